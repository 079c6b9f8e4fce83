"""Listens on a free port of 127.0.0.1, says which, and forwards each connection to a Unix socket: for an emulated machine, which has no
other way out than TCP. One process, since our server takes connections of one process for one client's. Usage: forward.py SOCKET"""

import socket
import sys
import threading


def pump(source, target):
    try:
        while data := source.recv(1 << 18):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    outside, _ = listener.accept()
    outside.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    inside = socket.socket(socket.AF_UNIX)
    inside.connect(sys.argv[1])
    for ends in ((outside, inside), (inside, outside)):
        threading.Thread(target=pump, args=ends, daemon=True).start()
