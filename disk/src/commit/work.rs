//! What goes into a commit: what the journal has, blocks and sections that leave packs which are collected, and sets of packs that
//! snapshots need.

use std::collections::BTreeSet;

use super::PackNumber;
use super::pack_set::PackSet;
use crate::device::DeviceError;
use crate::extents::Run;
use crate::volume::Batch;

/// The blocks of a run that lies in one slot; none if they are to stay where they are. Waits.
pub type ReadMoved<'a> = dyn Fn(&Run) -> Result<Option<Vec<u8>>, DeviceError> + 'a;

/// Which leaves a commit writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// Those that are due.
    Due,
    /// None: the map that is open is of another state.
    Kept,
}

/// What a commit is made of. The root and the table of packs that it begins with have all other changes already.
pub struct Work<'a> {
    /// What was written.
    pub batch: &'a Batch,
    /// When, nanoseconds since 1970.
    pub time_ns: i64,
    /// Runs that get other places, each within a slot.
    pub moves: &'a [Run],
    /// Reads these.
    pub read: &'a ReadMoved<'a>,
    /// Packs that no section stays in.
    pub victims: &'a BTreeSet<PackNumber>,
    /// Sets of snapshots, by their commits, that are written.
    pub sets: &'a [(u64, PackSet)],
    /// Leaves.
    pub leaves: Leaves,
}

impl<'a> Work<'a> {
    /// What was written, and nothing else.
    pub fn of(batch: &'a Batch, time_ns: i64) -> Self {
        const NONE: &BTreeSet<PackNumber> = &BTreeSet::new();
        Self {
            batch,
            time_ns,
            moves: &[],
            read: &|_| Ok(None),
            victims: NONE,
            sets: &[],
            leaves: Leaves::Due,
        }
    }
}
