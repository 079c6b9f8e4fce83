//! The hash tree over a share's data: BLAKE3 with 16 KiB leaves (docs/format/share.md).
//!
//! Only the leaves' chaining values are kept, as a table; inner nodes are merged again when needed (255 merges for the
//! large share). The root is the plain BLAKE3 hash of the data, so that any tool can check a whole share.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::id::ShareId;
use crate::size::KIB;

/// Bytes of a leaf, the least that a range read or an audit fetches. Chosen: the table of leaves takes 0.2 % of a share
/// (docs/decisions/0003-leaf-table.md).
pub const LEAF_BYTES: usize = 16 * KIB;

/// Bytes of a leaf's entry in the table: a BLAKE3 chaining value.
const ENTRY_BYTES: usize = 32;

/// Bytes of the leaf table of `data_bytes` of data.
pub const fn table_bytes(data_bytes: usize) -> usize {
    data_bytes / LEAF_BYTES * ENTRY_BYTES
}

/// The leaf table of `data`, whose length is a power of two and at least two leaves.
pub fn leaf_table(data: &[u8]) -> Vec<u8> {
    let mut table = Vec::with_capacity(table_bytes(data.len()));
    for (leaf, bytes) in (0..).zip(data.chunks(LEAF_BYTES)) {
        table.extend_from_slice(&leaf_value(leaf, bytes));
    }
    table
}

/// The root that `table` stands for: the share id.
///
/// # Panics
/// If `table` is not that of a power of two, at least two, of leaves.
pub fn table_root(table: &[u8]) -> ShareId {
    let (mut level, rest) = (table.as_chunks::<ENTRY_BYTES>().0.to_vec(), table.len() % ENTRY_BYTES);
    assert!(
        rest == 0 && level.len() >= 2 && level.len().is_power_of_two(),
        "a leaf table that no share has"
    );
    while level.len() > 2 {
        let merged = |pair: &[ChainingValue; 2]| merge_subtrees_non_root(&pair[0], &pair[1], Mode::Hash);
        level = level.as_chunks::<2>().0.iter().map(merged).collect();
    }
    ShareId(*merge_subtrees_root(&level[0], &level[1], Mode::Hash).as_bytes())
}

/// Checks `bytes`, whole leaves from leaf number `first_leaf` on, against `table` (itself checked by `table_root`).
/// Returns the number of the first wrong leaf; a part of a leaf and a leaf beyond the table are wrong.
pub fn check_leaves(table: &[u8], first_leaf: u32, bytes: &[u8]) -> Result<(), u32> {
    let entries = table.as_chunks::<ENTRY_BYTES>().0;
    for (number, bytes) in bytes.chunks(LEAF_BYTES).enumerate() {
        let leaf = first_leaf.saturating_add(number as u32);
        let whole = bytes.len() == LEAF_BYTES;
        if !whole || entries.get(leaf as usize) != Some(&leaf_value(leaf, bytes)) {
            return Err(leaf);
        }
    }
    Ok(())
}

/// The hashes beside the way from leaf number `leaf` up to the root, lowest first: what proves that leaf to somebody who
/// knows the share id only. `None` if `table` has no such leaf.
pub fn path(table: &[u8], leaf: u32) -> Option<Vec<[u8; ENTRY_BYTES]>> {
    let mut level = table.as_chunks::<ENTRY_BYTES>().0.to_vec();
    let mut at = leaf as usize;
    if at >= level.len() || !level.len().is_power_of_two() {
        return None;
    }
    let mut path = Vec::new();
    while level.len() > 1 {
        path.push(level[at ^ 1]);
        let merged = |pair: &[ChainingValue; 2]| merge_subtrees_non_root(&pair[0], &pair[1], Mode::Hash);
        level = level.as_chunks::<2>().0.iter().map(merged).collect();
        at /= 2;
    }
    Some(path)
}

/// The share id that `bytes`, as leaf number `leaf`, and the hashes beside its way up lead to.
pub fn path_root(leaf: u32, bytes: &[u8], path: &[[u8; ENTRY_BYTES]]) -> Option<ShareId> {
    let (top, below) = path.split_last()?;
    if bytes.len() != LEAF_BYTES || u64::from(leaf) >> path.len().min(63) != 0 {
        return None;
    }
    let pair = |level: usize, own: ChainingValue, beside: &ChainingValue| match leaf >> level & 1 {
        0 => (own, *beside),
        _ => (*beside, own),
    };
    let mut value = leaf_value(leaf, bytes);
    for (level, beside) in below.iter().enumerate() {
        let (left, right) = pair(level, value, beside);
        value = merge_subtrees_non_root(&left, &right, Mode::Hash);
    }
    let (left, right) = pair(below.len(), value, top);
    Some(ShareId(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()))
}

fn leaf_value(leaf: u32, bytes: &[u8]) -> ChainingValue {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(u64::from(leaf) * LEAF_BYTES as u64);
    hasher.update(bytes).finalize_non_root()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pattern;

    #[test]
    fn the_table_s_root_is_the_plain_blake3_hash() {
        // Two leaves are the least a tree has; 4, 16 and 256 are the share sizes.
        for leaves in [2, 4, 16, 256] {
            let bytes = pattern("root", leaves * LEAF_BYTES);
            let table = leaf_table(&bytes);
            assert_eq!(table.len(), table_bytes(bytes.len()));
            assert_eq!(table_root(&table).0, *blake3::hash(&bytes).as_bytes());
        }
    }

    #[test]
    fn a_path_leads_from_its_leaf_to_the_root_and_from_no_other() {
        for leaves in [2, 16, 256] {
            let bytes = pattern("path", leaves * LEAF_BYTES);
            let table = leaf_table(&bytes);
            let root = table_root(&table);
            let leaf_bytes = |leaf: usize| &bytes[leaf * LEAF_BYTES..(leaf + 1) * LEAF_BYTES];
            for leaf in [0, 1, leaves / 2, leaves - 1] {
                let way = path(&table, leaf as u32).unwrap();
                assert_eq!(way.len(), leaves.ilog2() as usize);
                assert_eq!(path_root(leaf as u32, leaf_bytes(leaf), &way), Some(root));
                let other = (leaf + 1) % leaves;
                assert_ne!(path_root(other as u32, leaf_bytes(leaf), &way), Some(root));
                assert_ne!(path_root(leaf as u32, leaf_bytes(other), &way), Some(root));
                assert_ne!(path_root(leaf as u32, leaf_bytes(leaf), &way[1..]), Some(root));
            }
            assert_eq!(path(&table, leaves as u32), None);
            assert_eq!(path_root(leaves as u32, leaf_bytes(0), &path(&table, 0).unwrap()), None);
            assert_eq!(path_root(0, &bytes[..LEAF_BYTES - 1], &path(&table, 0).unwrap()), None);
            assert_eq!(path_root(0, leaf_bytes(0), &[]), None);
        }
    }

    #[test]
    fn the_first_wrong_leaf_is_named_wherever_the_range_begins() {
        let mut bytes = pattern("leaf", 16 * LEAF_BYTES);
        let table = leaf_table(&bytes);
        bytes[5 * LEAF_BYTES] ^= 1;
        bytes[9 * LEAF_BYTES - 1] ^= 1;
        assert_eq!(check_leaves(&table, 0, &bytes), Err(5));
        assert_eq!(check_leaves(&table, 5, &bytes[5 * LEAF_BYTES..]), Err(5));
        assert_eq!(check_leaves(&table, 6, &bytes[6 * LEAF_BYTES..]), Err(8));
        assert_eq!(check_leaves(&table, 9, &bytes[9 * LEAF_BYTES..]), Ok(()));
        assert_eq!(check_leaves(&table, 8, &bytes[9 * LEAF_BYTES..]), Err(8));
    }

    #[test]
    fn a_part_of_a_leaf_and_a_leaf_beyond_the_table_are_wrong() {
        let bytes = pattern("part", 2 * LEAF_BYTES);
        let table = leaf_table(&bytes);
        assert_eq!(check_leaves(&table, 0, &bytes[..2 * LEAF_BYTES - 1]), Err(1));
        assert_eq!(check_leaves(&table, 2, &bytes[..LEAF_BYTES]), Err(2));
        assert_eq!(check_leaves(&table, u32::MAX, &bytes), Err(u32::MAX));
    }
}
