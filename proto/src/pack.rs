//! A pack: chunks or metadata sections end to end, zero padded, sealed in 64 KiB segments (docs/format/pack.md).

use bytes::Bytes;
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use zeroize::ZeroizeOnDrop;

use crate::erasure;
use crate::hash_tree::{leaf_table, table_root};
use crate::id::{PackId, ShareId};
use crate::manifest::Manifest;
use crate::shape::{PackShape, SEGMENT_BYTES, SEGMENT_PLAIN_BYTES};
use crate::share::Share;

/// The random key of one pack.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct PackKey(pub [u8; 32]);

impl PackKey {
    /// The pack's id: derived, so that a key can never be used for another pack.
    pub fn pack_id(&self) -> PackId {
        PackId(blake3::derive_key("gridbackup 2026 pack id", &self.0))
    }
}

/// A pack could not be opened.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum PackError {
    /// Wrong key, wrong place or damaged bytes.
    #[error("Segment {segment} of the pack does not open: damaged, or not this pack's")]
    Segment {
        /// Number of the segment, from 0.
        segment: u32,
    },
    /// A wrapped key that this account cannot unwrap.
    #[error("The pack's key is sealed for another account or damaged")]
    WrappedKey,
}

/// A sealed pack: ciphertext of k data shares end to end, and their parity.
pub struct SealedPack {
    /// Shape it was sealed for.
    pub shape: PackShape,
    /// k data shares, then n−k parity shares; data shares are slices of one buffer.
    pub data: Vec<Bytes>,
    /// Leaf table of each.
    pub tables: Vec<Vec<u8>>,
    /// Id of each.
    pub ids: Vec<ShareId>,
}

impl SealedPack {
    /// The stored forms, each with the signed public manifest in its tail.
    pub fn shares(&self, manifest: &Manifest) -> Vec<(ShareId, Share)> {
        let parts = self.ids.iter().zip(&self.data).zip(&self.tables);
        parts
            .map(|((id, data), table)| (*id, Share::new(data.clone(), table, manifest)))
            .collect()
    }
}

/// Seals `plain` (at most `shape.plain_bytes()`), makes parity, hashes. The CPU work of a pack, about 20 ms for 12 MiB.
///
/// # Panics
/// If `plain` is longer than the shape holds, or the shape is not valid.
pub fn seal(key: &PackKey, shape: PackShape, plain: &[u8]) -> SealedPack {
    assert!(shape.is_valid(), "a shape that no pack has: {shape:?}");
    assert!(
        plain.len() <= shape.plain_bytes(),
        "{} bytes do not fit into {shape:?}",
        plain.len()
    );
    let ciphertext = seal_segments(key, shape.segments(), plain);
    let parity = erasure::parity(shape.k, shape.n, &ciphertext).expect("a valid shape, and k shares of one size");
    let ciphertext = Bytes::from(ciphertext);
    let share_bytes = shape.share.data_bytes();
    let data: Vec<Bytes> = (0..usize::from(shape.k))
        .map(|share| ciphertext.slice(share * share_bytes..(share + 1) * share_bytes))
        .chain(parity.into_iter().map(Bytes::from))
        .collect();
    let tables: Vec<Vec<u8>> = data.iter().map(|share| leaf_table(share)).collect();
    let ids = tables.iter().map(|table| table_root(table)).collect();
    SealedPack {
        shape,
        data,
        tables,
        ids,
    }
}

/// The ciphertext of `segments` segments. Each is appended and encrypted where it lies: plaintext is copied once.
fn seal_segments(key: &PackKey, segments: u32, plain: &[u8]) -> Vec<u8> {
    let cipher = XChaCha20Poly1305::new(&key.0.into());
    let pack = key.pack_id();
    let mut sealed = Vec::with_capacity(segments as usize * SEGMENT_BYTES);
    let mut pieces = plain.chunks(SEGMENT_PLAIN_BYTES);
    for segment in 0..segments {
        let start = sealed.len();
        sealed.extend_from_slice(pieces.next().unwrap_or_default());
        sealed.resize(start + SEGMENT_PLAIN_BYTES, 0);
        let (nonce, associated) = nonce_and_associated(pack, segment);
        let tag = cipher
            .encrypt_inout_detached(&nonce, &associated, (&mut sealed[start..]).into())
            .expect("a segment is shorter than the cipher's limit");
        sealed.extend_from_slice(&tag);
    }
    sealed
}

/// Opens segment number `segment` in place; returns its plaintext, a prefix of `ciphertext`.
pub fn open_segment<'a>(key: &PackKey, segment: u32, ciphertext: &'a mut [u8]) -> Result<&'a [u8], PackError> {
    let damaged = PackError::Segment { segment };
    if ciphertext.len() != SEGMENT_BYTES {
        return Err(damaged);
    }
    let (text, tag) = ciphertext.split_at_mut(SEGMENT_PLAIN_BYTES);
    let tag = Tag::try_from(&*tag).expect("what is left of a segment is its tag");
    let (nonce, associated) = nonce_and_associated(key.pack_id(), segment);
    XChaCha20Poly1305::new(&key.0.into())
        .decrypt_inout_detached(&nonce, &associated, (&mut *text).into(), &tag)
        .map_err(|_| damaged)?;
    Ok(text)
}

/// docs/format/pack.md §3. The key is fresh for every pack, so the segment's number is enough of a nonce.
fn nonce_and_associated(pack: PackId, segment: u32) -> (XNonce, [u8; PackId::LEN + 8]) {
    let number = u64::from(segment).to_le_bytes();
    let mut nonce = XNonce::default();
    nonce[..8].copy_from_slice(&number);
    let mut associated = [0; PackId::LEN + 8];
    associated[..PackId::LEN].copy_from_slice(&pack.0);
    associated[PackId::LEN..].copy_from_slice(&number);
    (nonce, associated)
}

/// Segments that hold the plaintext bytes `offset..offset + len`, as a half-open range of segment numbers; empty if `len`
/// is 0.
pub fn segments_of(offset: u32, len: u32) -> std::ops::Range<u32> {
    let segment = SEGMENT_PLAIN_BYTES as u64;
    let first = u64::from(offset) / segment;
    let end = match len {
        0 => first,
        _ => (u64::from(offset) + u64::from(len)).div_ceil(segment),
    };
    first as u32..end as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::erasure::rebuild;
    use crate::fixtures::{assert_golden, manifest, pattern, pattern_array};
    use crate::shape::{ShareSize, TAG_BYTES};
    use proptest::prelude::{ProptestConfig, any, proptest};

    const SHAPE: PackShape = PackShape {
        k: 2,
        n: 3,
        share: ShareSize::Small,
    };

    fn key() -> PackKey {
        PackKey(pattern_array("pack key"))
    }

    /// Opens all segments of the data shares.
    fn open(key: &PackKey, pack: &SealedPack) -> Vec<u8> {
        let ciphertext = pack.data[..usize::from(pack.shape.k)].concat();
        (0..)
            .zip(ciphertext.chunks(SEGMENT_BYTES))
            .flat_map(|(number, segment)| open_segment(key, number, &mut segment.to_vec()).unwrap().to_vec())
            .collect()
    }

    #[test]
    fn what_is_sealed_is_opened_again_with_zeros_behind_it() {
        // Nothing, one byte, around the end of a segment and of the pack.
        let full = SHAPE.plain_bytes();
        for len in [0, 1, SEGMENT_PLAIN_BYTES, SEGMENT_PLAIN_BYTES + 1, full - 1, full] {
            let plain = pattern("plain", len);
            let opened = open(&key(), &seal(&key(), SHAPE, &plain));
            assert_eq!(opened.len(), full);
            assert!(
                opened[..len] == plain && opened[len..].iter().all(|byte| *byte == 0),
                "{len}"
            );
        }
    }

    #[test]
    fn version_1_is_sealed_as_ever() {
        assert_golden("pack/v1-small-2-of-3.bin", &pinned(SHAPE, 300_000));
        let tiny = PackShape {
            share: ShareSize::Tiny,
            ..SHAPE
        };
        // Made by `golden/tiny.py`, which shares nothing with this crate.
        assert_golden("pack/v1-tiny-2-of-3.bin", &pinned(tiny, 100_000));
    }

    /// Pack id, share ids, and the first and last segment's tags: together they pin every byte of a sealed pack.
    fn pinned(shape: PackShape, plain_bytes: usize) -> Vec<u8> {
        let pack = seal(&key(), shape, &pattern("plain", plain_bytes));
        let mut written = key().pack_id().0.to_vec();
        pack.ids.iter().for_each(|id| written.extend_from_slice(&id.0));
        let last = pack.data[1].len();
        written.extend_from_slice(&pack.data[0][SEGMENT_PLAIN_BYTES..SEGMENT_BYTES]);
        written.extend_from_slice(&pack.data[1][last - TAG_BYTES..]);
        written
    }

    #[test]
    fn ids_and_tables_are_those_of_the_shares_and_parity_rebuilds_data() {
        let pack = seal(&key(), SHAPE, &pattern("plain", 100_000));
        assert_eq!((pack.data.len(), pack.tables.len(), pack.ids.len()), (3, 3, 3));
        for (share, id) in pack.data.iter().zip(&pack.ids) {
            assert_eq!(share.len(), SHAPE.share.data_bytes());
            assert_eq!(id.0, *blake3::hash(share).as_bytes());
        }
        assert!(rebuild(2, 3, &[(1, &pack.data[1]), (2, &pack.data[2])], 0).unwrap() == pack.data[0]);
    }

    #[test]
    fn the_shares_of_a_sealed_pack_check_themselves() {
        for (k, n) in [(1, 1), (1, 3), (2, 3), (3, 3)] {
            let shape = PackShape { k, n, ..SHAPE };
            let pack = seal(&key(), shape, &pattern("plain", 70_000));
            let shares = pack.shares(&manifest(shape, &pack.ids));
            assert_eq!(shares.len(), usize::from(n));
            assert!(shares.iter().all(|(id, share)| share.verify(*id).is_ok()));
        }
    }

    #[test]
    fn data_shares_are_slices_of_one_buffer() {
        let pack = seal(&key(), SHAPE, &[]);
        assert_eq!(
            pack.data[0].as_ptr().wrapping_add(pack.data[0].len()),
            pack.data[1].as_ptr()
        );
    }

    #[test]
    fn a_flipped_byte_another_key_another_place_and_another_length_do_not_open() {
        let pack = seal(&key(), SHAPE, &pattern("plain", 200_000));
        let segment = &pack.data[0][SEGMENT_BYTES..2 * SEGMENT_BYTES];
        let fails = |key: &PackKey, number, mut bytes: Vec<u8>| {
            assert_eq!(
                open_segment(key, number, &mut bytes),
                Err(PackError::Segment { segment: number })
            );
        };
        assert!(open_segment(&key(), 1, &mut segment.to_vec()).is_ok());
        for at in (0..SEGMENT_PLAIN_BYTES)
            .step_by(509)
            .chain(SEGMENT_PLAIN_BYTES..SEGMENT_BYTES)
        {
            let mut bytes = segment.to_vec();
            bytes[at] ^= 1;
            fails(&key(), 1, bytes);
        }
        fails(&PackKey([0; 32]), 1, segment.to_vec());
        fails(&key(), 0, segment.to_vec());
        fails(&key(), 1, segment[1..].to_vec());
        fails(&key(), 1, vec![]);
    }

    #[test]
    fn a_segment_that_fails_to_open_is_left_as_it_was() {
        let pack = seal(&key(), SHAPE, &[]);
        let mut segment = pack.data[0][..SEGMENT_BYTES].to_vec();
        assert!(open_segment(&key(), 1, &mut segment).is_err());
        assert!(segment == pack.data[0][..SEGMENT_BYTES]);
    }

    #[test]
    fn equal_plaintext_under_two_keys_looks_unequal() {
        let plain = pattern("plain", 1_000);
        let (one, other) = (seal(&key(), SHAPE, &plain), seal(&PackKey([0; 32]), SHAPE, &plain));
        assert_ne!(key().pack_id(), PackKey([0; 32]).pack_id());
        assert!(one.ids.iter().all(|id| !other.ids.contains(id)));
    }

    #[test]
    fn no_bytes_are_in_no_segments() {
        let segment = SEGMENT_PLAIN_BYTES as u32;
        assert_eq!(segments_of(segment + 1, 0), 1..1);
        assert_eq!(segments_of(0, segment), 0..1);
        assert_eq!(segments_of(0, segment + 1), 0..2);
        assert_eq!(segments_of(segment - 1, 2), 0..2);
        assert_eq!(segments_of(segment, 1), 1..2);
        // From outside: absurd numbers give an absurd range, not a panic.
        assert!(segments_of(u32::MAX, u32::MAX).end > 65_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn the_segments_of_a_range_hold_it(offset in 0..500_000_u32, len in 0..24_000_u32) {
            let plain = pattern("plain", SHAPE.plain_bytes());
            let ciphertext = seal(&key(), SHAPE, &plain).data[..2].concat();
            let range = segments_of(offset, len);
            let opened: Vec<u8> = range
                .clone()
                .flat_map(|number| {
                    let at = number as usize * SEGMENT_BYTES;
                    open_segment(&key(), number, &mut ciphertext[at..at + SEGMENT_BYTES].to_vec()).unwrap().to_vec()
                })
                .collect();
            let within = offset as usize - range.start as usize * SEGMENT_PLAIN_BYTES;
            if len > 0 {
                let (offset, len) = (offset as usize, len as usize);
                assert!(opened[within..within + len] == plain[offset..offset + len]);
            }
        }

        #[test]
        fn arbitrary_bytes_do_not_open(bytes in proptest::collection::vec(any::<u8>(), 0..100), number: u32) {
            let mut segment = bytes;
            segment.resize(SEGMENT_BYTES, 0);
            assert!(open_segment(&key(), number, &mut segment).is_err());
        }
    }
}
