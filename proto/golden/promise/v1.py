"""The golden bytes of docs/format/promise.md, from RFC 8032 (ed25519) and RFC 8949 (CBOR) alone: no code is shared with the crate.
python3 v1.py > v1-laptop.bin"""

import hashlib
import struct
import sys

# RFC 8032 §5.1: ed25519.
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def recover_x(y, sign):
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P)
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return P - x if x & 1 != sign else x


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE = (recover_x(BASE_Y, 0), BASE_Y)


def add(one, other):
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + product, P - 2, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - product, P - 2, P)
    return x % P, y % P


def times(number, point):
    total = (0, 1)
    while number:
        if number & 1:
            total = add(total, point)
        point, number = add(point, point), number >> 1
    return total


def pack(point):
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def hashed(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")


def secret_parts(seed):
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little") & (1 << 254) - 8 | 1 << 254
    return scalar, digest[32:]


def public(seed):
    return pack(times(secret_parts(seed)[0], BASE))


def sign(seed, message):
    scalar, prefix = secret_parts(seed)
    nonce = hashed(prefix, message) % ORDER
    point = pack(times(nonce, BASE))
    return point + ((nonce + hashed(point, public(seed), message) * scalar) % ORDER).to_bytes(32, "little")


# RFC 8032 §7.1, test 2.
SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
assert public(SEED).hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
assert sign(SEED, b"\x72").hex().startswith("92a009a9f0d4cab8720e820b5f642540")

ACCOUNT, DEVICE = b"\x01" * 32, b"\x02" * 32
# keys.md §4: an array of six fields, shortest forms.
body = b"\x86" + b"\x01" + b"\x58\x20" + public(ACCOUNT) + b"\x58\x20" + public(DEVICE) + b"\x18\x1f"
body += b"\x66laptop" + b"\x1a" + struct.pack(">I", 1_770_000_000)
cert = body + sign(ACCOUNT, b"gridbackup 2026 device cert" + body)

promise = b"GBPROM\0\0" + struct.pack("<HH", 1, len(cert)) + cert.ljust(256, b"\0")
promise += b"\x03" * 16 + struct.pack("<Q", 0x0102030405060708)
assert len(promise) == 292
sys.stdout.buffer.write(promise + sign(DEVICE, b"gridbackup 2026 promise signature" + promise))
