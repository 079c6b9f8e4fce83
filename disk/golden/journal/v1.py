"""The golden bytes of docs/format/journal.md, from the published descriptions of BLAKE3, ChaCha20-Poly1305 (RFC 8439) and AES-GCM
(FIPS 197, SP 800-38D) alone: no code is shared with the crate. python3 v1.py CIPHER > v1-CIPHER.bin, CIPHER being chacha or aes"""

import struct
import sys

M = 0xFFFFFFFF
IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
CHUNK_START, CHUNK_END, ROOT, KEYED, CONTEXT, MATERIAL = 1, 2, 8, 16, 32, 64


def rotr(x, n):
    return ((x >> n) | (x << (32 - n))) & M


def blake3_chunk(key, data, flags):
    """BLAKE3 of at most one chunk of 1,024 bytes."""
    assert len(data) <= 1024
    blocks = [data[i:i + 64] for i in range(0, len(data), 64)] or [b""]
    value = list(key)
    for i, block in enumerate(blocks):
        f = flags | (CHUNK_START if i == 0 else 0) | (CHUNK_END | ROOT if i == len(blocks) - 1 else 0)
        m = list(struct.unpack("<16I", block.ljust(64, b"\0")))
        v = value + IV[:4] + [0, 0, len(block), f]

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
        value = [v[j] ^ v[j + 8] for j in range(8)]
    return struct.pack("<8I", *value)


def words(key):
    return struct.unpack("<8I", key)


def derive(context, material):
    return blake3_chunk(words(blake3_chunk(IV, context.encode(), CONTEXT)), material, MATERIAL)


def mac(key, data):
    return blake3_chunk(words(key), data, KEYED)[:16]


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
    state = SIGMA + list(words(key)) + [counter] + list(struct.unpack("<3I", nonce))
    return struct.pack("<16I", *[(a + b) & M for a, b in zip(chacha_rounds(state), state)])


def poly1305(key, data):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for i in range(0, len(data), 16):
        total = (total + int.from_bytes(data[i:i + 16] + b"\1", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def chacha_seal(key, nonce, plain):
    stream = b"".join(chacha_block(key, 1 + i, nonce) for i in range((len(plain) + 63) // 64))
    sealed = bytes(a ^ b for a, b in zip(plain, stream))
    padded = sealed + b"\0" * (-len(sealed) % 16) + struct.pack("<QQ", 0, len(sealed))
    return sealed + poly1305(chacha_block(key, 0, nonce)[:32], padded)


def times(a, b):
    """Product in the field of AES."""
    product = 0
    while b:
        product ^= a * (b & 1)
        a, b = (a << 1) ^ (0x11B if a & 0x80 else 0), b >> 1
    return product


def substitute(x):
    inverse = next((y for y in range(256) if times(x, y) == 1), 0)
    turned = [(inverse << n | inverse >> (8 - n)) & 0xFF for n in range(5)]
    return 0x63 ^ turned[0] ^ turned[1] ^ turned[2] ^ turned[3] ^ turned[4]


SBOX = bytes(substitute(x) for x in range(256))
DOUBLE = bytes(times(x, 2) for x in range(256))


def aes_schedule(key):
    w = [key[i:i + 4] for i in range(0, 32, 4)]
    constant = 1
    for i in range(8, 60):
        t = w[-1]
        if i % 8 == 0:
            t = bytes(SBOX[x] for x in t[1:] + t[:1])
            t = bytes([t[0] ^ constant]) + t[1:]
            constant = times(constant, 2)
        elif i % 8 == 4:
            t = bytes(SBOX[x] for x in t)
        w.append(bytes(a ^ b for a, b in zip(w[-8], t)))
    return [b"".join(w[i:i + 4]) for i in range(0, 60, 4)]


def aes_block(schedule, block):
    s = bytes(a ^ b for a, b in zip(block, schedule[0]))
    for number in range(1, 15):
        s = bytes(SBOX[s[(i + 4 * (i % 4)) % 16]] for i in range(16))
        if number < 14:
            mixed = []
            for c in range(0, 16, 4):
                a = s[c:c + 4]
                mixed += [DOUBLE[a[i]] ^ DOUBLE[a[(i + 1) % 4]] ^ a[(i + 1) % 4] ^ a[(i + 2) % 4] ^ a[(i + 3) % 4] for i in range(4)]
            s = bytes(mixed)
        s = bytes(a ^ b for a, b in zip(s, schedule[number]))
    return s


def ghash_times(x, y):
    z = 0
    for i in range(127, -1, -1):
        if x >> i & 1:
            z ^= y
        y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
    return z


def aes_seal(key, nonce, plain):
    schedule = aes_schedule(key)
    h = int.from_bytes(aes_block(schedule, b"\0" * 16), "big")
    stream = b"".join(aes_block(schedule, nonce + struct.pack(">I", 2 + i)) for i in range((len(plain) + 15) // 16))
    sealed = bytes(a ^ b for a, b in zip(plain, stream))
    padded = sealed + b"\0" * (-len(sealed) % 16) + struct.pack(">QQ", 0, 8 * len(sealed))
    total = 0
    for i in range(0, len(padded), 16):
        total = ghash_times(total ^ int.from_bytes(padded[i:i + 16], "big"), h)
    first = aes_block(schedule, nonce + struct.pack(">I", 1))
    return sealed + bytes(a ^ b for a, b in zip(total.to_bytes(16, "big"), first))


CIPHER, seal = {"chacha": (1, chacha_seal), "aes": (2, aes_seal)}[sys.argv[1]]
VOLUME_KEY, CACHE, SALT = bytes(range(32)), b"\x11" * 16, b"\x22" * 32
secret = derive("gridbackup 2026 disk journal", VOLUME_KEY + CACHE)
header_key = derive("gridbackup 2026 disk journal file header", secret)
blocks_key = derive("gridbackup 2026 disk journal blocks", secret + SALT)
records_key = derive("gridbackup 2026 disk journal records", secret + SALT)
LAP = 3

out = b"GBJRNL\0\0" + struct.pack("<QQQ", 1, LAP, 41) + b"\x33" * 16 + CACHE + SALT + struct.pack("<QQ", 40, CIPHER)
assert len(out) == 112
out = (out + mac(header_key, out)).ljust(512, b"\0")


def record(offset, seq, flushed, link, ranges, blocks, kind=1):
    length = -(-(64 + 16 * len(ranges) + 16 + 4112 * len(blocks)) // 512) * 512
    head = b"GBJR" + bytes([1, kind, 0, 0]) + struct.pack("<QQQ", seq, flushed, LAP) + link
    head += struct.pack("<IIII", len(ranges), length, offset, 0)
    head += b"".join(struct.pack("<QII", *one) for one in ranges)
    code = mac(records_key, head)
    whole = head + code
    for block in blocks:
        whole += seal(blocks_key, struct.pack("<QI", offset + len(whole), 0), block)
    return whole.ljust(length, b"\0"), code


first, code = record(len(out), 41, 40, b"\x33" * 16, [(7, 2, 0), (1 << 28, 5, 1)], [b"\x44" * 4096, bytes(range(256)) * 16])
second, code = record(len(out) + len(first), 42, 41, code, [(8, 1, 1), (9, 1, 0)], [b"\x55" * 4096])
end, _ = record(len(out) + len(first) + len(second), 43, 42, code, [], [], kind=2)
sys.stdout.buffer.write(out + first + second + end)
