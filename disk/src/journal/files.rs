//! The files of the ring: the next one, which is made before it is needed, and those that nobody needs any more.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use durable::in_place::InPlaceFile;

use super::lap::{Cipher, HEADER_BYTES, Lap, LapHeader};
use super::record::{self, BlockRange};
use super::{Journal, JournalError};

/// A file that is to be made. That takes as long as the disk takes to write all of it, and needs no lock.
pub struct FilePlan {
    path: PathBuf,
    bytes: u64,
}

impl FilePlan {
    /// Makes it.
    pub fn make(&self) -> io::Result<InPlaceFile> {
        InPlaceFile::create(&self.path, self.bytes)
    }
}

impl Journal {
    /// Whether it is time to make the next file: the last one is half full, and none is free.
    pub fn wants_file(&self) -> bool {
        let is_time = self.free.is_empty() && self.offset > self.options.file_bytes / 2;
        is_time && !self.is_making && !self.has_made_none && !self.is_broken && self.may_have_more()
    }

    /// Whether a file is being made.
    pub fn is_making(&self) -> bool {
        self.is_making
    }

    /// Whether a record of these ranges has to wait for the file that is being made.
    pub fn waits_for_file(&self, ranges: &[BlockRange]) -> bool {
        self.is_making && self.free.is_empty() && !self.fits(record::record_bytes(ranges))
    }

    /// Whether the last file takes so many bytes more.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        !self.laps.is_empty() && self.offset + bytes <= self.options.file_bytes
    }

    fn may_have_more(&self) -> bool {
        self.laps.len() + self.free.len() + usize::from(self.is_making) < self.options.file_count
    }

    /// The next file, which whoever asks makes.
    pub fn plan_file(&mut self) -> FilePlan {
        self.is_making = true;
        self.name_file()
    }

    fn name_file(&mut self) -> FilePlan {
        let path = self.options.folder.join(format!("{:06}.journal", self.next_file));
        let bytes = self.options.file_bytes;
        self.next_file += 1;
        FilePlan { path, bytes }
    }

    /// The planned file was made, or it was not: then it is tried once more when it is needed.
    pub fn made(&mut self, made: io::Result<InPlaceFile>) {
        self.is_making = false;
        match made {
            Ok(file) => self.free.push(file),
            Err(error) => {
                tracing::warn!(%error, "the journal's next file was not made");
                self.has_made_none = true;
            }
        }
    }

    /// Goes on in another file, whose first record has this number.
    pub(super) fn begin_lap(&mut self, first_seq: u64) -> Result<(), JournalError> {
        if self.free.is_empty() {
            self.reclaim();
        }
        let file = match self.free.pop() {
            Some(file) => file,
            None if self.may_have_more() => self.name_file().make()?,
            None => return Err(JournalError::Full),
        };
        self.has_made_none = false;
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

    /// Nobody needs the records up to this number: files that hold no others, and that nobody reads from, may be used again.
    /// Whether there were any.
    pub fn release(&mut self, committed: u64) -> bool {
        self.committed = self.committed.max(committed);
        self.reclaim()
    }

    /// Takes back what was released, and was still read from then.
    pub fn reclaim(&mut self) -> bool {
        let before = self.laps.len();
        while self.laps.len() > 1 && self.laps[0].last_seq() <= self.committed.min(self.flushed) {
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
