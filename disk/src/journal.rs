//! What every write goes to first: numbered, chained records in a ring of files of one length. A record that was appended survives
//! the death of this process, and a power cut once its file was synced. It knows blocks, not what is the newest of them (`map`).

mod files;
mod flusher;
mod lap;
pub mod record;
mod recovery;
mod reserved;
mod walk;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use durable::in_place::InPlaceFile;

pub use files::FilePlan;
pub use flusher::{FlushError, Flusher};
use lap::HEADER_BYTES;
pub use lap::{BlockCipher, Cipher, JournalKey, Lap};
use record::{BLOCK_BYTES, BlockRange, Head, HeadKind, Mac, RangeKind, SEALED_BYTES, SECTOR_BYTES};
pub use reserved::Reserved;
use walk::Stop;
pub use walk::Walk;

/// Bytes of a file unless asked otherwise. Chosen: a file is released as a whole, and a ring has a few dozen.
const FILE_BYTES: u64 = 64 << 20;
/// Files of a ring unless asked otherwise: 2 GiB in all.
const FILE_COUNT: usize = 32;

/// Where a journal is, and how large.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// The folder of its files, which is there.
    pub folder: PathBuf,
    /// Bytes of a file, a multiple of a sector and below 4 GiB.
    pub file_bytes: u64,
    /// How many files there may be.
    pub file_count: usize,
}

impl JournalOptions {
    /// The usual ones.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            file_bytes: FILE_BYTES,
            file_count: FILE_COUNT,
        }
    }
}

impl JournalOptions {
    /// The usual ones, or with as many files as so many bytes have room for; two at least.
    pub fn sized(folder: PathBuf, bytes: Option<u64>) -> Self {
        let usual = Self::new(folder);
        let count = bytes.map_or(usual.file_count, |bytes| {
            usize::try_from(bytes / usual.file_bytes).unwrap_or(usize::MAX).max(2)
        });
        Self {
            file_count: count,
            ..usual
        }
    }
}

/// What a journal could not do.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// All files are in use.
    #[error("All files of the journal are in use")]
    Full,
    /// A record that was durable is not there any more.
    #[error(
        "The journal is damaged: record {seq} was durable and is not there any more; records up to {flushed} were written \
         to the disk"
    )]
    Damaged {
        /// The first one that is missing.
        seq: u64,
        /// Up to where all were durable.
        flushed: u64,
    },
    /// A file is not of this journal.
    #[error("{0} is damaged, or of a journal with another key")]
    WrongKey(PathBuf),
    /// A record cannot be read any more.
    #[error("Record {seq} in {path} is damaged")]
    HeadDamaged {
        /// Its number.
        seq: u64,
        /// Its file.
        path: PathBuf,
    },
    /// A block is not what was written.
    #[error("A block of record {seq} in {path} is damaged")]
    BlockDamaged {
        /// The record's number.
        seq: u64,
        /// Its file.
        path: PathBuf,
    },
    /// A sync failed, and what was asked for could not be written elsewhere.
    #[error("The journal could not be written to the disk, and takes nothing any more")]
    Broken,
    /// More than fits in a file.
    #[error("A record is longer than a file of the journal")]
    TooLong,
    /// The disk failed.
    #[error("The journal's disk failed: {0}")]
    Io(#[from] io::Error),
}

/// Where a record's blocks lie.
#[derive(Clone)]
pub struct Entry {
    /// Its file.
    pub lap: Arc<Lap>,
    /// Its head.
    pub head: Head,
    mac: Mac,
}

impl Entry {
    /// Its ranges, each with the place of its first block in the file.
    pub fn places(&self) -> impl Iterator<Item = (BlockRange, u64)> {
        let mut at = u64::from(self.head.offset) + self.head.payload_offset();
        self.head.ranges.iter().map(move |range| {
            let place = at;
            if range.kind == RangeKind::Write {
                at += u64::from(range.count) * SEALED_BYTES;
            }
            (*range, place)
        })
    }

    /// All its blocks, one after the other; none if one of them is not what was sealed.
    fn payload(&self) -> io::Result<Option<Vec<u8>>> {
        let first = u64::from(self.head.offset) + self.head.payload_offset();
        let mut payload = vec![0; self.head.blocks() as usize * BLOCK_BYTES];
        Ok(self.lap.open(first, &mut payload)?.then_some(payload))
    }
}

/// What a sync is to make durable.
pub struct FlushPlan {
    laps: Vec<Arc<Lap>>,
    /// The highest number that it covers.
    pub seq: u64,
}

impl FlushPlan {
    /// Waits for the disk. Needs no lock of the journal's.
    pub fn sync(&self) -> io::Result<()> {
        self.laps.iter().try_for_each(|lap| lap.file.sync())
    }
}

/// An open journal. Whoever has it appends; readers have `Arc<Lap>`s.
pub struct Journal {
    options: JournalOptions,
    key: JournalKey,
    /// In the order of their laps; the last one is written to.
    laps: VecDeque<Arc<Lap>>,
    /// Files that may be used again.
    free: Vec<InPlaceFile>,
    /// The number of a file that is not there yet.
    next_file: usize,
    /// Whether somebody makes the next file.
    is_making: bool,
    /// Whether that failed since the last file was begun.
    has_made_none: bool,
    /// Of records that may not be durable yet.
    unflushed: VecDeque<Entry>,
    /// Where the next record goes.
    offset: u64,
    /// The last record that is written.
    last: (u64, Mac),
    /// The last one that was given a place.
    reserved: (u64, Mac),
    /// How often places were taken back.
    round: u64,
    flushed: u64,
    /// Nobody needs the records up to this one.
    committed: u64,
    /// Where the last walk ended.
    stop: Option<Stop>,
    is_broken: bool,
}

impl Journal {
    /// The highest number there is.
    pub fn last_seq(&self) -> u64 {
        self.last.0
    }

    /// The highest number that is durable.
    pub fn flushed_seq(&self) -> u64 {
        self.flushed
    }

    /// The highest number that nobody needs.
    pub fn committed_seq(&self) -> u64 {
        self.committed
    }

    /// Whether it takes nothing any more.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Bytes in use, and bytes in all.
    pub fn usage(&self) -> (u64, u64) {
        let whole = self.laps.len().saturating_sub(1) as u64 * self.options.file_bytes;
        (
            whole + self.offset,
            self.options.file_count as u64 * self.options.file_bytes,
        )
    }

    /// Takes nothing any more.
    pub fn give_up(&mut self) {
        self.is_broken = true;
        self.withdraw();
    }

    /// How long a record may be.
    pub fn record_bytes_max(&self) -> u64 {
        self.options.file_bytes - HEADER_BYTES
    }

    /// Appends one record: its ranges, and the blocks of those that are written, one after the other. On failure nothing of it
    /// counts.
    pub fn append(&mut self, ranges: Vec<BlockRange>, payload: &[u8]) -> Result<Entry, JournalError> {
        let reserved = self.reserve(ranges)?;
        let mut record = Vec::new();
        reserved.seal(payload.chunks_exact(BLOCK_BYTES), &mut record);
        if let Err(error) = reserved.write(&record) {
            self.withdraw();
            return Err(error.into());
        }
        Ok(self.written(reserved))
    }

    /// Gives a record of these ranges the next number, and its place. Whoever asked seals it, writes it in its turn, and says so
    /// (`written`); until then, no later one counts.
    pub fn reserve(&mut self, ranges: Vec<BlockRange>) -> Result<Reserved, JournalError> {
        if self.is_broken {
            return Err(JournalError::Broken);
        }
        let mut head = Head {
            kind: HeadKind::Changes,
            seq: self.reserved.0 + 1,
            flushed: self.flushed,
            lap: 0,
            offset: 0,
            link: self.reserved.1,
            ranges,
        };
        let bytes = head.record_bytes();
        if bytes > self.record_bytes_max() {
            return Err(JournalError::TooLong);
        }
        if !self.fits(bytes) {
            self.begin_lap(head.seq)?;
        }
        let lap = self.laps.back().expect("one was begun").clone();
        head.lap = lap.header.lap;
        head.offset = self.offset as u32;
        let mac = head.encode(lap.mac_key(), &mut Vec::new());
        self.offset += bytes;
        self.reserved = (head.seq, mac);
        let round = self.round;
        Ok(Reserved { lap, head, mac, round })
    }

    /// Whether its place is still its own: the failure of a record takes back what was given to those that would have followed it.
    pub fn is_held(&self, reserved: &Reserved) -> bool {
        reserved.round == self.round
    }

    /// Whether all before it are written.
    pub fn is_next(&self, reserved: &Reserved) -> bool {
        reserved.head.seq == self.last.0 + 1
    }

    /// It was written, in its turn.
    pub fn written(&mut self, reserved: Reserved) -> Entry {
        assert!(
            self.is_held(&reserved) && self.is_next(&reserved),
            "records are written in turn"
        );
        self.last = (reserved.head.seq, reserved.mac);
        reserved.lap.has(reserved.head.seq);
        let entry = reserved.into_entry();
        self.unflushed.push_back(entry.clone());
        entry
    }

    /// Takes back all places of what is not written. Part of it may have been written: no place is sealed twice, so nothing more
    /// goes to this file, and what follows has the same numbers in another one.
    pub fn withdraw(&mut self) {
        self.continue_from(self.last);
    }

    /// What comes next follows this record, in another file.
    fn continue_from(&mut self, last: (u64, Mac)) {
        (self.last, self.reserved) = (last, last);
        self.offset = self.options.file_bytes;
        self.round += 1;
    }

    /// What a sync has to make durable, of all that was appended.
    pub fn plan_flush(&self) -> Result<FlushPlan, JournalError> {
        if self.is_broken {
            return Err(JournalError::Broken);
        }
        let mut laps: Vec<Arc<Lap>> = Vec::new();
        for entry in &self.unflushed {
            if laps.last().is_none_or(|lap| !Arc::ptr_eq(lap, &entry.lap)) {
                laps.push(entry.lap.clone());
            }
        }
        Ok(FlushPlan { laps, seq: self.last.0 })
    }

    /// A sync of a plan was done.
    pub fn flushed(&mut self, plan: &FlushPlan) {
        self.flushed = self.flushed.max(plan.seq);
        while self
            .unflushed
            .front()
            .is_some_and(|entry| entry.head.seq <= self.flushed)
        {
            self.unflushed.pop_front();
        }
    }

    /// Says, durably, that all is durable: rot of the last records is no torn tail then. What is appended afterwards goes on in
    /// another file. Without effect if something is not flushed, or the file has no room.
    pub fn end(&mut self) -> Result<(), JournalError> {
        let is_all = self.last.0 == self.flushed && self.reserved == self.last && !self.is_broken;
        let Some(lap) = self.laps.back().filter(|_| is_all && self.fits(SECTOR_BYTES)).cloned() else {
            return Ok(());
        };
        let head = Head {
            kind: HeadKind::End,
            seq: self.last.0 + 1,
            flushed: self.flushed,
            lap: lap.header.lap,
            offset: self.offset as u32,
            link: self.last.1,
            ranges: Vec::new(),
        };
        let mut bytes = Vec::new();
        head.encode(lap.mac_key(), &mut bytes);
        bytes.resize(head.record_bytes() as usize, 0);
        self.offset = self.options.file_bytes;
        lap.file.write_at(&bytes, u64::from(head.offset))?;
        Ok(lap.file.sync()?)
    }

    /// A sync failed: what it was to make durable is written to another file, with the same numbers. The entries, anew; where
    /// they were before nothing may be read any more. On failure the journal takes nothing any more.
    pub fn rewrite(&mut self) -> Result<Vec<Entry>, JournalError> {
        let done = self.try_rewrite();
        if done.is_err() {
            self.give_up();
        }
        done
    }

    fn try_rewrite(&mut self) -> Result<Vec<Entry>, JournalError> {
        let old: Vec<Entry> = self.unflushed.drain(..).collect();
        let Some(first) = old.first() else {
            return Ok(Vec::new());
        };
        self.continue_from((first.head.seq - 1, first.head.link));
        for entry in &old {
            let damaged = || JournalError::BlockDamaged {
                seq: entry.head.seq,
                path: entry.lap.file.path().to_owned(),
            };
            let payload = entry.payload()?.ok_or_else(damaged)?;
            self.append(entry.head.ranges.clone(), &payload)?;
        }
        Ok(self.unflushed.iter().cloned().collect())
    }
}

#[cfg(test)]
mod tests;
