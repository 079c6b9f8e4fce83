"""The golden bytes of docs/format/disk.md, from that text and the published descriptions of CBOR (RFC 8949) and LZ4 blocks alone: no
code is shared with the crate. python3 v1.py > v1-one-pack.bin"""

import struct
import sys


def cbor(value):
    def head(major, n):
        for code, size in [(24, 1), (25, 2), (26, 4), (27, 8)]:
            if n < 24:
                return bytes([major << 5 | n])
            if n < 1 << 8 * size:
                return bytes([major << 5 | code]) + n.to_bytes(size, "big")

    if value is None:
        return b"\xf6"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    return head(5, len(value)) + b"".join(cbor(k) + cbor(v) for k, v in sorted(value.items()))


COMMIT = 7
# One block that is kept as it is; and two blocks of sevens, packed: a byte, that byte 8,186 times, and five as they are, which is
# how an LZ4 block has to end.
plain = b"".join(struct.pack("<I", i * 2654435761 & 0xFFFFFFFF) for i in range(1024))
rest = 8192 - 1 - 5 - 4 - 15
packed = b"\x1f\x07" + struct.pack("<H", 1) + b"\xff" * (rest // 255) + bytes([rest % 255]) + b"\x50" + b"\x07" * 5
heads = [len(plain), len(packed) | 1 << 17 | 1 << 18]
changes = [
    struct.pack("<QQIIII", 19, 1 << 8 | 1, 33, 0, 0, 0),
    struct.pack("<QQIIII", 32, 2 << 8 | 1, 33, 16, 0, 0),
    struct.pack("<QQIIII", 1000, 5000 << 8 | 2, 0, 0, 0, 0),
    struct.pack("<QQIIII", 48, 3 << 8 | 3, 33, 32, 12, 50),
]
changes = struct.pack("<QII", COMMIT, len(changes), 0) + b"".join(changes)
out = b"GBDISK\0\0" + struct.pack("<HHIQQ", 1, 0, len(heads), COMMIT, 0) + struct.pack("<II", *heads) + plain + packed
changes_at = len(out)
out += changes


def record(n):
    return [bytes([n]) * 3, bytes([n]) * 80]


def section(value):
    global out
    at = len(out)
    out += cbor(value)
    return at, len(out) - at


def figures(room, commit):
    return [room, 700, 650000, commit]


def at(record, offset, length):
    return [record, offset, length]


# The first page of packs has two; the newest one has packs 32 and 33, which is this one.
page_at, page_len = section([{0: [0, [record(1), figures(1 << 18, 1)]], 31: [0, [record(2), figures(1 << 20, 4)]]}])
leaves_at, leaves_len = section([[[5, 6, [31, 400, 500]]]])
# Packs 3 to 7, and 31: how many were left out, and how many are there.
pinned_at, pinned_len = section([[[3, 5], [23, 1]]])
own = [1 << 16, 3, len(plain) + len(packed), COMMIT]
newest = [[{0: [0, [record(3), figures(1 << 20, 6)]], 1: [0, [None, own]]}], [{0: [1, [[None, 33, page_at, page_len]]]}]]
snapshots = [["first", 2, 10, at(record(1), 70, 80), [[33, pinned_at, pinned_len]], b""],
             ["later", 4, 11, at(record(2), 71, 81), [], bytes([1]) * 16 + bytes([2]) * 16]]
voters = bytes([1]) * 32 + bytes([2]) * 32 + bytes([4]) * 32
origin = [bytes([9]) * 16, "before", 3, bytes([8]) * 16]
root = [1, bytes(range(16)), "photos", 1 << 40, COMMIT, -5, 88, bytes(range(16, 32)), [34, newest], 6,
        [[2, [33, leaves_at, leaves_len]]], [[COMMIT, [33, changes_at, len(changes)]]],
        voters, snapshots, origin, 2, 5]
section(root)
sys.stdout.buffer.write(out)
