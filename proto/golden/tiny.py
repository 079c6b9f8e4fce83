"""The golden bytes of a tiny share's tail, of a pack of tiny shares and of a manifest with keep days (docs/format/share.md, pack.md,
manifest.md), from the published descriptions of BLAKE3, XChaCha20-Poly1305, ed25519 and CBOR alone: no code is shared with the crate.
That it describes the same formats is shown first: the golden files of small shares, which are older, come out of it as they are.

python3 tiny.py: writes what is missing beside it, and fails if a file that is there differs."""

import hashlib
import pathlib
import struct

HERE = pathlib.Path(__file__).parent
M = 0xFFFFFFFF
IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
CHUNK_START, CHUNK_END, PARENT, ROOT, CONTEXT, MATERIAL = 1, 2, 4, 8, 32, 64


def rotr(x, n):
    return ((x >> n) | (x << (32 - n))) & M


def compress(value, block, counter, length, flags):
    m = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    v = list(value) + IV[:4] + [counter & M, counter >> 32, length, flags]

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
    return [v[i] ^ v[i + 8] for i in range(8)] + [v[i + 8] ^ value[i] for i in range(8)]


def last_step(key, data, first_chunk, flags):
    """The arguments of the compression that ends the subtree over data, but for ROOT."""
    if len(data) <= 1024:
        blocks = [data[i:i + 64] for i in range(0, len(data), 64)] or [b""]
        value = key
        for i, block in enumerate(blocks):
            f = flags | (CHUNK_START if i == 0 else 0) | (CHUNK_END if i == len(blocks) - 1 else 0)
            step = (value, block, first_chunk, len(block), f)
            value = compress(*step)[:8]
        return step
    left = 1024
    while left * 2 < len(data):
        left *= 2
    halves = chaining(key, data[:left], first_chunk, flags) + chaining(key, data[left:], first_chunk + left // 1024, flags)
    return key, halves, 0, 64, flags | PARENT


def chaining(key, data, first_chunk, flags=0):
    return struct.pack("<8I", *compress(*last_step(key, data, first_chunk, flags))[:8])


def blake3(data, length=32, key=IV, flags=0):
    value, block, _, size, f = last_step(key, data, 0, flags)
    out = b""
    for counter in range(-(-length // 64)):
        out += struct.pack("<16I", *compress(value, block, counter, size, f | ROOT))
    return out[:length]


def derive(context, material, length=32):
    key = struct.unpack("<8I", blake3(context.encode(), flags=CONTEXT))
    return blake3(material, length, key, MATERIAL)


def pattern(name, length):
    return derive("gridbackup test pattern", name.encode(), length)


def chacha_rounds(state):
    s = list(state)

    def q(a, b, c, d):
        for x, y, z, n in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)]:
            s[x] = (s[x] + s[y]) & M
            s[z] = rotr(s[z] ^ s[x], 32 - n)

    for _ in range(10):
        q(0, 4, 8, 12), q(1, 5, 9, 13), q(2, 6, 10, 14), q(3, 7, 11, 15)
        q(0, 5, 10, 15), q(1, 6, 11, 12), q(2, 7, 8, 13), q(3, 4, 9, 14)
    return s


SIGMA = list(struct.unpack("<4I", b"expand 32-byte k"))


def chacha_block(key, counter, nonce):
    state = SIGMA + list(struct.unpack("<8I", key)) + [counter] + list(struct.unpack("<3I", nonce))
    return struct.pack("<16I", *[(a + b) & M for a, b in zip(chacha_rounds(state), state)])


def poly1305(key, data):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for i in range(0, len(data), 16):
        total = (total + int.from_bytes(data[i:i + 16] + b"\1", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def xchacha_seal(key, nonce, associated, plain):
    s = chacha_rounds(SIGMA + list(struct.unpack("<8I", key)) + list(struct.unpack("<4I", nonce[:16])))
    key, nonce = struct.pack("<8I", *s[:4], *s[12:]), b"\0" * 4 + nonce[16:]
    stream = b"".join(chacha_block(key, 1 + i, nonce) for i in range((len(plain) + 63) // 64))
    sealed = bytes(a ^ b for a, b in zip(plain, stream))
    padded = lambda data: data + b"\0" * (-len(data) % 16)
    lengths = struct.pack("<QQ", len(associated), len(sealed))
    return sealed + poly1305(chacha_block(key, 0, nonce)[:32], padded(associated) + padded(sealed) + lengths)


P = 2**255 - 19
D = -121665 * pow(121666, P - 2, P) % P
ORDER = 2**252 + 27742317777372353535851937790883648493


def point_add(a, b):
    (x1, y1, z1, t1), (x2, y2, z2, t2) = a, b
    e, f = (y1 - x1) * (y2 - x2), (y1 + x1) * (y2 + x2)
    g, h = 2 * t1 * t2 * D, 2 * z1 * z2
    e, f, g, h = f - e, h - g, h + g, f + e
    return e * f % P, g * h % P, f * g % P, e * h % P


def base():
    y = 4 * pow(5, P - 2, P) % P
    xx = (y * y - 1) * pow(D * y * y + 1, P - 2, P)
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    x = x if x % 2 == 0 else P - x
    return x, y, 1, x * y % P


def times(n):
    sum_, point = (0, 1, 1, 0), base()
    while n:
        if n & 1:
            sum_ = point_add(sum_, point)
        point, n = point_add(point, point), n >> 1
    x, y, z, _ = sum_
    inverse = pow(z, P - 2, P)
    return (y * inverse % P | (x * inverse % P & 1) << 255).to_bytes(32, "little")


def ed25519(seed, message):
    """Public key and signature."""
    h = hashlib.sha512(seed).digest()
    a = int.from_bytes(h[:32], "little") & (1 << 254) - 8 | 1 << 254
    public = times(a)
    r = int.from_bytes(hashlib.sha512(h[32:] + message).digest(), "little") % ORDER
    big_r = times(r)
    k = int.from_bytes(hashlib.sha512(big_r + public + message).digest(), "little") % ORDER
    return public, big_r + ((r + k * a) % ORDER).to_bytes(32, "little")


def cbor(value):
    major, number, rest = {
        int: lambda: (0, value, b""),
        bytes: lambda: (2, len(value), value),
        list: lambda: (4, len(value), b"".join(map(cbor, value))),
    }[type(value)]()
    if number < 24:
        return bytes([major << 5 | number]) + rest
    for size, extra in [(1, 24), (2, 25), (4, 26), (8, 27)]:
        if number < 1 << 8 * size:
            return bytes([major << 5 | extra]) + number.to_bytes(size, "big") + rest


def manifest(k, share_bytes, ids, keep_days=None):
    seed = pattern("device", 32)
    device = ed25519(seed, b"")[0]
    fields = [1, pattern("pack", 32), k, len(ids), share_bytes, ids, pattern("account", 32), device]
    body = cbor(fields + ([] if keep_days is None else [keep_days]))
    return body + ed25519(seed, b"gridbackup 2026 manifest" + body)[1]


def leaf_table(data):
    return b"".join(chaining(IV, data[at:at + 16384], at // 1024) for at in range(0, len(data), 16384))


def tail(share_bytes):
    data = pattern("share", share_bytes)
    encoded = manifest(1, share_bytes, [blake3(data)] * 2)
    checked = encoded.ljust(2048, b"\0") + b"GRIDSHAR" + struct.pack("<HHI", 1, len(encoded), share_bytes)
    return leaf_table(data) + checked + blake3(checked, 16)


def gf_times(a, b):
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a, b = a << 1 ^ (0x11D if a & 0x80 else 0), b >> 1
    return product


def pack_2_of_3(share_bytes, plain_bytes):
    """V·T⁻¹ has T = ((1, 0), (1, 1)) for k = 2, which is its own inverse; row 2 of V is (1, 2), so row 2 of M is (3, 2)."""
    key = pattern("pack key", 32)
    id_ = derive("gridbackup 2026 pack id", key)
    segments = 2 * share_bytes // 65536
    plain = pattern("plain", plain_bytes).ljust(segments * 65520, b"\0")
    numbers = [struct.pack("<Q", s) for s in range(segments)]
    sealed = [xchacha_seal(key, number + b"\0" * 16, id_ + number, plain[s * 65520:(s + 1) * 65520])
              for s, number in enumerate(numbers)]
    data = b"".join(sealed)
    data = [data[:share_bytes], data[share_bytes:]]
    by = [[gf_times(factor, b) for b in range(256)] for factor in (3, 2)]
    parity = bytes(by[0][a] ^ by[1][b] for a, b in zip(*data))
    return id_ + b"".join(blake3(share) for share in data + [parity]) + data[0][65520:65536] + data[1][-16:]


made_up = [pattern(f"share {i}", 32) for i in range(3)]
if __name__ == "__main__":
    for name, made in [
        ("manifest/v1-2-of-3.bin", lambda: manifest(2, 262144, made_up)),
        ("share/v1-small-tail.bin", lambda: tail(262144)),
        ("pack/v1-small-2-of-3.bin", lambda: pack_2_of_3(262144, 300000)),
        ("manifest/v1-2-of-3-keep-2.bin", lambda: manifest(2, 262144, made_up, 2)),
        ("share/v1-tiny-tail.bin", lambda: tail(65536)),
        ("pack/v1-tiny-2-of-3.bin", lambda: pack_2_of_3(65536, 100000)),
    ]:
        made = made()
        if not (HERE / name).exists():
            (HERE / name).write_bytes(made)
        assert (HERE / name).read_bytes() == made, name
        print(name, len(made))
