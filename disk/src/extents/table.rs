//! Which leaves make the map, and how many blocks refer to each pack: as bytes (docs/format/disk-map.md §3). Either all of it, or
//! what changed since the one numbered before.

use std::collections::BTreeMap;

use super::counts::Counts;
use super::leaf::{SUM_BYTES, Sum, sum_of};
use crate::journal::record::field;

/// Bytes before the records.
const HEAD_BYTES: usize = 64;
/// Bytes of what is said of a leaf.
const LEAF_BYTES: usize = 40;
/// Bytes of a pack's count.
const COUNT_BYTES: usize = 8;

const MAGIC: &[u8; 8] = b"GBDMAP\0\0";
const VERSION: u32 = 1;
/// In the place of a file's number: there is no leaf any more.
const NO_LEAF: u64 = 0;
/// In the place of a file's number: the leaf is not on this disk.
const ELSEWHERE: u64 = u64::MAX;

/// A leaf that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeafRecord {
    /// The number of its file; none: it is to be had from the source alone.
    pub file: Option<u64>,
    /// Up to which commit its region's changes are in it.
    pub commit: u64,
    /// Its checksum; of one that was not seen yet zeros.
    pub sum: Sum,
}

/// Whether a table is all there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableKind {
    Whole,
    Changes,
}

/// A file of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableFile {
    pub kind: TableKind,
    /// Of the newest changes that are in it.
    pub number: u64,
    /// Up to here all commits are in leaves.
    pub floor: u64,
    /// By region; none: it has no leaf any more.
    pub leaves: Vec<(u64, Option<LeafRecord>)>,
    /// Blocks of leaves that refer to a pack.
    pub counts: Vec<(u32, u32)>,
}

impl TableFile {
    pub fn encode(&self, volume: &[u8; 16]) -> Vec<u8> {
        let records = self.leaves.len() * LEAF_BYTES + self.counts.len() * COUNT_BYTES;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + records + SUM_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(self.kind as u32).to_le_bytes());
        bytes.extend_from_slice(volume);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.floor.to_le_bytes());
        bytes.extend_from_slice(&(self.leaves.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&(self.counts.len() as u64).to_le_bytes());
        for (region, leaf) in &self.leaves {
            let (file, commit, sum) = match leaf {
                Some(leaf) => (leaf.file.unwrap_or(ELSEWHERE), leaf.commit, leaf.sum),
                None => (NO_LEAF, 0, Sum::default()),
            };
            bytes.extend_from_slice(&region.to_le_bytes());
            bytes.extend_from_slice(&file.to_le_bytes());
            bytes.extend_from_slice(&commit.to_le_bytes());
            bytes.extend_from_slice(&sum);
        }
        for (pack, blocks) in &self.counts {
            bytes.extend_from_slice(&pack.to_le_bytes());
            bytes.extend_from_slice(&blocks.to_le_bytes());
        }
        let sum = sum_of(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }

    /// None unless it is valid, and of this volume.
    pub fn decode(bytes: &[u8], volume: &[u8; 16]) -> Option<Self> {
        let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM_BYTES)?)?;
        let is_ours = body.starts_with(MAGIC)
            && u32::from_le_bytes(field(body, 8)?) == VERSION
            && body.get(16..32)? == volume
            && sum_of(body) == sum;
        let kind = match u32::from_le_bytes(field(body, 12)?) {
            0 => TableKind::Whole,
            1 => TableKind::Changes,
            _ => return None,
        };
        let leaf_bytes = length(body, 48, LEAF_BYTES)?;
        let count_bytes = length(body, 56, COUNT_BYTES)?;
        let records = body.get(HEAD_BYTES..)?;
        if !is_ours || records.len() != leaf_bytes.checked_add(count_bytes)? {
            return None;
        }
        let (leaves, counts) = records.split_at(leaf_bytes);
        let leaves = leaves.chunks_exact(LEAF_BYTES).map(|bytes| decode_leaf(bytes, kind));
        let counts = counts.chunks_exact(COUNT_BYTES).map(|bytes| {
            Some((
                u32::from_le_bytes(field(bytes, 0)?),
                u32::from_le_bytes(field(bytes, 4)?),
            ))
        });
        Some(Self {
            kind,
            number: u64::from_le_bytes(field(body, 32)?),
            floor: u64::from_le_bytes(field(body, 40)?),
            leaves: leaves.collect::<Option<_>>()?,
            counts: counts.collect::<Option<_>>()?,
        })
    }
}

/// Bytes of records of which a field says how many there are.
fn length(body: &[u8], at: usize, record_bytes: usize) -> Option<usize> {
    let count = u64::from_le_bytes(field(body, at)?);
    usize::try_from(count).ok()?.checked_mul(record_bytes)
}

fn decode_leaf(bytes: &[u8], kind: TableKind) -> Option<(u64, Option<LeafRecord>)> {
    let file = match u64::from_le_bytes(field(bytes, 8)?) {
        NO_LEAF if kind == TableKind::Changes => return Some((u64::from_le_bytes(field(bytes, 0)?), None)),
        NO_LEAF => return None,
        ELSEWHERE => None,
        number => Some(number),
    };
    let record = LeafRecord {
        file,
        commit: u64::from_le_bytes(field(bytes, 16)?),
        sum: field(bytes, 24)?,
    };
    Some((u64::from_le_bytes(field(bytes, 0)?), Some(record)))
}

/// What all files of the table say together.
#[derive(Default)]
pub(super) struct Table {
    /// Of the newest changes.
    pub number: u64,
    pub floor: u64,
    pub leaves: BTreeMap<u64, LeafRecord>,
    pub counts: Counts,
}

impl Table {
    /// Takes in a file: the first one, or the one behind those that were taken in.
    pub fn take(&mut self, file: &TableFile) {
        if file.kind == TableKind::Whole {
            *self = Self::default();
        }
        (self.number, self.floor) = (file.number, file.floor);
        for (region, leaf) in &file.leaves {
            // Those who were there before are of no use to anybody.
            let _before = match leaf {
                Some(leaf) => self.leaves.insert(*region, *leaf),
                None => self.leaves.remove(region),
            };
        }
        for (pack, blocks) in &file.counts {
            self.counts.set(*pack, *blocks);
        }
    }

    /// All of it, as one file.
    pub fn whole(&self) -> TableFile {
        TableFile {
            kind: TableKind::Whole,
            number: self.number,
            floor: self.floor,
            leaves: self
                .leaves
                .iter()
                .map(|(region, leaf)| (*region, Some(*leaf)))
                .collect(),
            counts: self.counts.iter().collect(),
        }
    }
}
