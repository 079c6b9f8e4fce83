//! A pack: chunks or metadata sections end to end, zero padded, sealed in 64 KiB segments (docs/format/pack.md).

use bytes::Bytes;
use zeroize::ZeroizeOnDrop;

use crate::id::{PackId, ShareId};
use crate::manifest::Manifest;
use crate::share::{Share, ShareSize};
use crate::size::KIB;

/// Bytes of a sealed segment.
pub const SEGMENT_BYTES: usize = 64 * KIB;
/// Bytes of plaintext in a segment: the rest is the tag.
pub const SEGMENT_PLAIN_BYTES: usize = SEGMENT_BYTES - 16;

/// The random key of one pack.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct PackKey(pub [u8; 32]);

impl PackKey {
    /// The pack's id: derived, so that a key can never be used for another pack.
    pub fn pack_id(&self) -> PackId {
        todo!()
    }
}

/// How a pack is cut: any k of n shares of one size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct PackShape {
    /// Shares needed to read.
    pub k: u8,
    /// Shares made.
    pub n: u8,
    /// Size of each.
    pub share: ShareSize,
}

impl PackShape {
    /// Bytes of plaintext that fit.
    pub const fn plain_bytes(self) -> usize {
        self.segments() as usize * SEGMENT_PLAIN_BYTES
    }
    /// Number of segments.
    pub const fn segments(self) -> u32 {
        (self.k as usize * self.share.data_bytes() / SEGMENT_BYTES) as u32
    }
    /// Segments in one data share.
    pub const fn segments_per_share(self) -> u32 {
        (self.share.data_bytes() / SEGMENT_BYTES) as u32
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
    pub fn shares(&self, _manifest: &Manifest) -> Vec<(ShareId, Share)> {
        todo!()
    }
}

/// Seals `plain` (at most `shape.plain_bytes()`), makes parity, hashes. The CPU work of a pack, about 20 ms for 12 MiB.
///
/// # Panics
/// If `plain` is longer than the shape holds, or the shape is not valid.
pub fn seal(_key: &PackKey, _shape: PackShape, _plain: &[u8]) -> SealedPack {
    todo!()
}

/// Opens segment number `segment` in place; returns its plaintext, a prefix of `ciphertext`.
pub fn open_segment<'a>(_key: &PackKey, _segment: u32, _ciphertext: &'a mut [u8]) -> Result<&'a [u8], PackError> {
    todo!()
}

/// Segments that hold the plaintext bytes `offset..offset + len`, as a half-open range of segment numbers.
pub fn segments_of(offset: u32, len: u32) -> std::ops::Range<u32> {
    let segment = SEGMENT_PLAIN_BYTES as u32;
    offset / segment..(offset + len).div_ceil(segment).max(offset / segment)
}
