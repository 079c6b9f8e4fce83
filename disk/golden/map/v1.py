"""The golden bytes of docs/format/disk-map.md, from the published description of BLAKE3 alone: no code is shared with the crate.
python3 v1.py writes the files beside it."""

import os
import struct

M = 0xFFFFFFFF
IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8


def rotr(x, n):
    return ((x >> n) | (x << (32 - n))) & M


def compress(value, block, counter, flags):
    m = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    v = list(value) + IV[:4] + [counter & M, counter >> 32, len(block), flags]

    def g(a, b, c, d, x, y):
        v[a] = (v[a] + v[b] + x) & M
        v[d] = rotr(v[d] ^ v[a], 16)
        v[c] = (v[c] + v[d]) & M
        v[b] = rotr(v[b] ^ v[c], 12)
        v[a] = (v[a] + v[b] + y) & M
        v[d] = rotr(v[d] ^ v[a], 8)
        v[c] = (v[c] + v[d]) & M
        v[b] = rotr(v[b] ^ v[c], 7)

    for _ in range(7):
        for n, (a, b, c, d) in enumerate([(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                                          (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]):
            g(a, b, c, d, m[2 * n], m[2 * n + 1])
        m = [m[p] for p in PERMUTATION]
    return [v[j] ^ v[j + 8] for j in range(8)]


def subtree(data, first, root):
    """The chaining value of the chunks of data, the first of which has this number."""
    if len(data) <= 1024:
        value, blocks = IV, [data[i:i + 64] for i in range(0, len(data), 64)] or [b""]
        for i, block in enumerate(blocks):
            flags = (CHUNK_START if i == 0 else 0) | (CHUNK_END | root if i == len(blocks) - 1 else 0)
            value = compress(value, block, first, flags)
        return value
    chunks = (len(data) - 1) // 1024
    left = 1 << (chunks.bit_length() - 1)
    both = subtree(data[:left * 1024], first, 0) + subtree(data[left * 1024:], first + left, 0)
    return compress(IV, struct.pack("<16I", *both), 0, PARENT | root)


def summed(data):
    return data + struct.pack("<8I", *subtree(data, 0, ROOT))[:16]


def leaf(form, volume, region, commit, count, records):
    return summed(b"GBLEAF\0\0" + struct.pack("<II", 1, form) + volume + struct.pack("<QQII", region, commit, count, 0) + records)


def run(start, blocks, pack, slot, block):
    return struct.pack("<HHII", start, blocks - 1, pack, slot * 16 + block)


def table(kind, volume, number, floor, leaves, counts):
    out = b"GBDMAP\0\0" + struct.pack("<II", 1, kind) + volume + struct.pack("<QQQQ", number, floor, len(leaves), len(counts))
    out += b"".join(struct.pack("<QQQ", *one[:3]) + one[3] for one in leaves)
    return summed(out + b"".join(struct.pack("<II", *one) for one in counts))


def write(name, content):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), name), "wb") as file:
        file.write(content)


# "abc" from the published test vectors of BLAKE3.
assert summed(b"abc")[3:].hex() == "6437b3ac38465133ffb63b75273a8db5"

VOLUME = bytes(range(16))
ELSEWHERE = 2**64 - 1

runs = [run(0, 1, 0, 0, 0), run(7, 40, 5, 2, 3), run(47, 1, 6, 2**28 - 1, 15), run(65000, 536, 1000000, 99, 0)]
write("v1-runs.leaf", leaf(0, VOLUME, 0x1234, 77, len(runs), b"".join(runs)))

cells = [(0xFFFFFFFF, 0) if block % 5 == 0 else (block * 7 + 1, block * 3) for block in range(65536)]
dense = leaf(1, b"\x22" * 16, 1, 2**40, 65536, b"".join(struct.pack("<II", *cell) for cell in cells))
write("v1-dense.ends", dense[:56] + dense[-16:])

write("v1-whole.table", table(0, VOLUME, 9, 1000, [(0, 3, 1001, b"\x41" * 16), (2**34, ELSEWHERE, 900, bytes(16))],
                              [(0, 1), (70000, 65536)]))
write("v1-changes.table", table(1, VOLUME, 10, 1005, [(0, 0, 0, bytes(16)), (2, 4, 1006, b"\x42" * 16)], [(0, 0)]))
