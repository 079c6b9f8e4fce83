//! The hash tree over a share's data: BLAKE3 with 16 KiB leaves (docs/format/share.md).
//!
//! Only the leaves' chaining values are kept, as a table; inner nodes are merged again when needed (255 merges for the
//! large share). The root is the plain BLAKE3 hash of the data, so that any tool can check a whole share.

use crate::id::ShareId;
use crate::size::KIB;

/// Bytes of a leaf.
pub const LEAF_BYTES: usize = 16 * KIB;

/// Bytes of the leaf table of `data_bytes` of data.
pub const fn table_bytes(data_bytes: usize) -> usize {
    data_bytes / LEAF_BYTES * 32
}

/// The leaf table of `data`, whose length is a power of two and at least two leaves.
pub fn leaf_table(_data: &[u8]) -> Vec<u8> {
    todo!()
}

/// The root that `table` stands for: the share id.
pub fn table_root(_table: &[u8]) -> ShareId {
    todo!()
}

/// Checks `bytes`, whole leaves from leaf number `first_leaf` on, against `table` (itself checked by `table_root`).
/// Returns the number of the first wrong leaf.
pub fn check_leaves(_table: &[u8], _first_leaf: u32, _bytes: &[u8]) -> Result<(), u32> {
    todo!()
}
