"""The golden bytes of a head with disks (docs/format/head.md), from the published descriptions of BLAKE3, X25519, XChaCha20-Poly1305,
ed25519 and CBOR alone, as tiny.py has them: no code is shared with the crate. That it describes the same format is shown first: the
golden head without disks, which is older, comes out of it as it is.

python3 disks.py: writes what is missing beside it, and fails if a file that is there differs."""

import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from tiny import P, cbor as cbor_of, derive, ed25519, xchacha_seal  # noqa: E402


def x25519(secret, point):
    """RFC 7748 §5: the Montgomery ladder."""
    k = int.from_bytes(secret, "little") & (1 << 254) - 8 | 1 << 254
    x1 = int.from_bytes(point, "little") % 2**255
    low, high = (1, 0), (x1, 1)
    for bit in reversed(range(255)):
        swap = k >> bit & 1
        low, high = ladder(high, low, x1)[::-1] if swap else ladder(low, high, x1)
    return (low[0] * pow(low[1], P - 2, P) % P).to_bytes(32, "little")


def ladder(two, three, x1):
    (x2, z2), (x3, z3) = two, three
    a, b = x2 + z2, x2 - z2
    da, cb = (x3 - z3) * a, (x3 + z3) * b
    aa, bb = a * a, b * b
    e = aa - bb
    return (aa * bb % P, e * (aa + 121665 * e) % P), ((da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P)


def cbor(value):
    """As tiny.py, with texts; lists are short."""
    if isinstance(value, str):
        text = value.encode()
        return bytes([cbor_of(text)[0] | 0x20]) + cbor_of(text)[1:]  # major type 3 instead of 2
    if isinstance(value, list):
        return bytes([0x80 | len(value)]) + b"".join(map(cbor, value))
    return cbor_of(value)


SEED, DEVICE, EPHEMERAL = b"\x66" * 32, b"\x77" * 32, b"\x99" * 32
BASE = (9).to_bytes(32, "little")


def certificate():
    words = derive("gridbackup 2026 account signing", SEED)
    fields = [1, ed25519(words, b"")[0], ed25519(DEVICE, b"")[0], 31, "laptop", 1_700_000_000]
    return cbor(fields) + ed25519(words, b"gridbackup 2026 device cert" + cbor(fields))[1]


def sealed(purpose, context, plain):
    wrap = x25519(derive("gridbackup 2026 reader x25519", SEED), BASE)
    public, shared = x25519(EPHEMERAL, BASE), x25519(EPHEMERAL, wrap)
    return public + xchacha_seal(derive(purpose, shared + public + wrap + context), b"\0" * 24, b"", plain)


def root(offset, length):
    return [[b"\x22" * 300, b"\x33" * 80], offset, length]


def head(disks):
    snapshot = [2, b"\x11" * 16, 1_700_000_000_123_456_789, 1, [b"/home/ann"], 3, 70_000]
    body = cbor([root(9, 500), snapshot] + disks)
    padded = (struct.pack("<H", len(body)) + body).ljust(3676, b"\0")
    cert, number = certificate(), struct.pack("<Q", 2)
    context = ed25519(DEVICE, b"")[0] + number
    signed = b"GBHEAD\0\0" + struct.pack("<HH", 1, len(cert)) + cert.ljust(256, b"\0") + number + b"\x88" * 32
    signed += sealed("gridbackup 2026 sealed to reader", context, padded)
    return signed + ed25519(DEVICE, b"gridbackup 2026 head signature" + signed)[1]


def disk(number, commit):
    return [bytes([number]) * 16, number, commit, root(70_000, 600)]


for name, disks in [
    ("v1-full.bin", []),
    ("v1-disks.bin", [[disk(1, 2_000_000_000), disk(2, 1)]]),
]:
    made = head(disks)
    if not (HERE / name).exists():
        (HERE / name).write_bytes(made)
    assert (HERE / name).read_bytes() == made, name
    print(name, len(made))
