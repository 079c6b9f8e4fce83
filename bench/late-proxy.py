#!/usr/bin/env python3
"""late-proxy.py LISTEN-PORT SERVER-PORT DELAY-MS
Passes TCP connections on 127.0.0.1 from one port to another, every byte DELAY-MS later in each direction: a round trip takes
twice that, and so does connecting. Bytes are late, not rare: nothing is throttled."""
import asyncio, sys

LISTEN, SERVER, DELAY = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000


async def pass_on(reader, writer, first):
    loop, waiting = asyncio.get_running_loop(), asyncio.Queue(1024)

    async def write():
        while True:
            at, data = await waiting.get()
            await asyncio.sleep(max(0, at - loop.time()))
            if not data:
                break
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    writing = asyncio.create_task(write())
    try:
        while True:
            data = await reader.read(1 << 16)
            await waiting.put((loop.time() + DELAY + first, data))
            first = 0
            if not data:
                break
        await writing
    except (ConnectionError, OSError):
        writing.cancel()
        writer.close()


async def accept(reader, writer):
    try:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", SERVER)
    except OSError:
        return writer.close()
    # The first bytes wait for the handshake that a far server would need.
    await asyncio.gather(pass_on(reader, server_writer, 2 * DELAY), pass_on(server_reader, writer, 0))
    writer.close()
    server_writer.close()


async def main():
    server = await asyncio.start_server(accept, "127.0.0.1", LISTEN, backlog=1024)
    await server.serve_forever()


asyncio.run(main())
