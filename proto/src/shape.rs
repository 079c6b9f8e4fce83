//! How a pack is cut, and how long its parts are: the ground on which `pack`, `share` and `manifest` stand.
//!
//! What is in the parts is theirs (docs/format/pack.md, share.md, manifest.md).

use crate::erasure::SHARES_MAX;
use crate::hash_tree;
use crate::size::{KIB, MIB};

/// Bytes of a sealed segment.
pub const SEGMENT_BYTES: usize = 64 * KIB;
/// Bytes of plaintext in a segment: the rest is the tag.
pub const SEGMENT_PLAIN_BYTES: usize = SEGMENT_BYTES - TAG_BYTES;
/// Bytes of the Poly1305 tag that ends a segment (RFC 8439 §2.5).
pub(crate) const TAG_BYTES: usize = 16;
/// Bytes reserved for the encoded public manifest, zero padded: room for `SHARES_MAX` share ids.
pub const MANIFEST_AREA_BYTES: usize = 2 * KIB;
/// Bytes of the trailer that ends every stored share.
pub const TRAILER_BYTES: usize = 32;

/// The sizes a share's data can have. Few only, so that sizes tell a friend nothing of what is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum ShareSize {
    /// 64 KiB, a single segment: a disk's commits of a few blocks, of which there are thousands a day. No backup uses it.
    Tiny,
    /// 256 KiB: metadata and small daily changes.
    Small,
    /// 4 MiB: everything else.
    Large,
}

impl ShareSize {
    /// All of them, ascending.
    pub const ALL: [Self; 3] = [Self::Tiny, Self::Small, Self::Large];
    /// The largest: what bounds whatever others send as a share.
    pub const LARGEST: Self = Self::Large;

    /// Bytes of data.
    pub const fn data_bytes(self) -> usize {
        match self {
            Self::Tiny => SEGMENT_BYTES,
            Self::Small => 256 * KIB,
            Self::Large => 4 * MIB,
        }
    }
    /// Bytes of the stored form: data and tail.
    pub const fn stored_bytes(self) -> usize {
        self.data_bytes() + self.tail_bytes()
    }
    /// Bytes of the tail: leaf table, manifest area, trailer.
    pub const fn tail_bytes(self) -> usize {
        hash_tree::table_bytes(self.data_bytes()) + MANIFEST_AREA_BYTES + TRAILER_BYTES
    }
    /// The size whose data has `bytes` bytes.
    pub fn from_data_bytes(bytes: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.data_bytes() == bytes)
    }
    /// The size whose stored form has `bytes` bytes.
    pub fn from_stored_bytes(bytes: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.stored_bytes() == bytes)
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
    /// Whether 1 ≤ k ≤ n ≤ `SHARES_MAX`.
    pub const fn is_valid(self) -> bool {
        1 <= self.k && self.k <= self.n && self.n <= SHARES_MAX
    }
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
