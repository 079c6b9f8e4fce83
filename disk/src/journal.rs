//! What every write goes to first: numbered, chained records in a ring of files of one length. A record that was appended survives
//! the death of this process, and a power cut once its file was synced. It knows blocks, not what is the newest of them (`map`).

mod flusher;
mod lap;
pub mod record;
mod recovery;
mod reserved;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use durable::in_place::InPlaceFile;

pub use flusher::{FlushError, Flusher};
use lap::{Cipher, HEADER_BYTES, LapHeader};
pub use lap::{JournalKey, Lap};
use record::{BLOCK_BYTES, BlockRange, Head, Mac, RangeKind, SEALED_BYTES};
pub use reserved::Reserved;

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
        Ok(self.publish(reserved))
    }

    /// Gives a record of these ranges the next number, and its place. It is sealed by whoever asked, written in its turn, and
    /// published then; until it is, no later one is.
    pub fn reserve(&mut self, ranges: Vec<BlockRange>) -> Result<Reserved, JournalError> {
        if self.is_broken {
            return Err(JournalError::Broken);
        }
        let mut head = Head {
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
        if self.laps.is_empty() || self.offset + bytes > self.options.file_bytes {
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
    pub fn publish(&mut self, reserved: Reserved) -> Entry {
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

    /// Takes back all places of what is not published. Part of it may have been written: no place is sealed twice, so nothing more
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

    /// Goes on in another file, whose first record has this number.
    fn begin_lap(&mut self, first_seq: u64) -> Result<(), JournalError> {
        let file = match self.free.pop() {
            Some(file) => file,
            None => self.make_file()?,
        };
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(|error| io::Error::other(error.to_string()))?;
        let header = LapHeader {
            lap: self.laps.back().map_or(1, |lap| lap.header.lap + 1),
            first_seq,
            link: self.reserved.1,
            flushed: self.flushed,
            salt,
            cipher: Cipher::of_this_machine(),
        };
        if let Err(error) = file.write_at(&header.encode(&self.key), 0) {
            self.free.push(file);
            return Err(error.into());
        }
        self.laps.push_back(Arc::new(Lap::new(file, header, &self.key)));
        self.offset = HEADER_BYTES;
        Ok(())
    }

    fn make_file(&mut self) -> Result<InPlaceFile, JournalError> {
        if self.laps.len() + self.free.len() >= self.options.file_count {
            return Err(JournalError::Full);
        }
        let path = self.options.folder.join(format!("{:06}.journal", self.next_file));
        let file = InPlaceFile::create(&path, self.options.file_bytes)?;
        self.next_file += 1;
        Ok(file)
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

    /// Nobody needs the records up to this number: files that hold no others, and that nobody reads from, may be used again.
    /// Whether there were any.
    pub fn release(&mut self, committed: u64) -> bool {
        let before = self.laps.len();
        while self.laps.len() > 1 && self.laps[0].last_seq() <= committed.min(self.flushed) {
            let lap = self.laps.pop_front().expect("there are two");
            match Arc::try_unwrap(lap) {
                Ok(lap) => self.reuse(lap),
                Err(lap) => {
                    self.laps.push_front(lap);
                    break;
                }
            }
        }
        self.laps.len() < before
    }

    /// In the place of a file whose sync failed another one is made.
    fn reuse(&mut self, lap: Lap) {
        if !lap.file.has_failed() {
            self.free.push(lap.file);
        } else if let Err(error) = durable::remove(lap.file.path()) {
            tracing::warn!(path = %lap.file.path().display(), %error, "a file that failed to sync stays behind");
        }
    }
}

#[cfg(test)]
mod tests;
