//! A place that a record was given, before it is written: sealing takes most of the time, and needs nobody's lock.

use std::io;
use std::sync::Arc;

use super::Entry;
use super::lap::Lap;
use super::record::{Head, Mac, SEALED_BYTES};

/// A record with its number and its place. Those that were given one before it are written first.
pub struct Reserved {
    pub(super) lap: Arc<Lap>,
    pub(super) head: Head,
    pub(super) mac: Mac,
    /// How often places had been taken back when it was given.
    pub(super) round: u64,
}

impl Reserved {
    /// Makes the record's bytes, of the blocks that it is to carry.
    pub fn seal<'a>(&self, blocks: impl Iterator<Item = &'a [u8]>, record: &mut Vec<u8>) {
        let bytes = self.head.record_bytes() as usize;
        record.clear();
        record.reserve(bytes);
        self.head.encode(self.lap.mac_key(), record);
        let start = record.len() as u64;
        for block in blocks {
            self.lap
                .seal(block, u64::from(self.head.offset) + record.len() as u64, record);
        }
        let sealed = record.len() as u64 - start;
        assert_eq!(sealed, self.head.blocks() * SEALED_BYTES, "every block is given");
        record.resize(bytes, 0);
    }

    /// Writes it to its place, in its turn.
    pub fn write(&self, record: &[u8]) -> io::Result<()> {
        self.lap.file.write_at(record, u64::from(self.head.offset))
    }

    pub(super) fn into_entry(self) -> Entry {
        Entry {
            lap: self.lap,
            head: self.head,
            mac: self.mac,
        }
    }
}
