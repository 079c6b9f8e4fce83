//! What is to be committed: a part of the journal from its beginning on, as long as who asks can take. The map knows the newest of
//! each block alone; where a later record hides what a block was then, the records say it.

use super::Volume;
use crate::device::DeviceError;
use crate::journal::record::{BLOCK_BYTES, RANGE_BYTES};
use crate::journal::{Entry, JournalError, Walk};
use crate::map::{Map, Piece};

/// All changes up to a record. As long as it is there, what it names can be read.
pub struct Batch {
    /// The number of the last record.
    pub seq: u64,
    /// The newest of each block as of that record, in order.
    pub pieces: Vec<Piece>,
}

impl Volume {
    /// The number of the last record; a batch up to it has all that was applied before.
    pub fn last_seq(&self) -> u64 {
        self.shared.lock().journal.last_seq()
    }

    /// What is not committed, from the oldest record on: all of it, or else as many records as come to so many bytes of blocks and of
    /// their ranges, but one at least.
    pub fn batch(&self, bytes_max: u64) -> Result<Batch, DeviceError> {
        let core = self.shared.lock();
        if core.map.bytes() <= bytes_max {
            return Ok(Batch {
                seq: core.journal.last_seq(),
                pieces: core.map.all(),
            });
        }
        let mut walk = core.journal.walk();
        drop(core);
        let batch = oldest(&mut walk, bytes_max)?;
        self.shared.lock().journal.stop_at(walk.stop());
        Ok(batch)
    }
}

fn oldest(walk: &mut Walk, bytes_max: u64) -> Result<Batch, JournalError> {
    let (mut map, mut seq) = (Map::default(), walk.committed());
    while let Some(entry) = walk.next_if(|entry| map.is_empty() || map.bytes() + bytes(entry) <= bytes_max)? {
        map.apply(&entry);
        seq = entry.head.seq;
    }
    Ok(Batch { seq, pieces: map.all() })
}

fn bytes(entry: &Entry) -> u64 {
    entry.head.blocks() * BLOCK_BYTES as u64 + (entry.head.ranges.len() * RANGE_BYTES) as u64
}
