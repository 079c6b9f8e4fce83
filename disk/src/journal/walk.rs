//! Reading records in their order, without the journal's lock: the map keeps the newest of each block alone, and who commits a
//! part of the journal needs what was the newest then (docs/format/journal.md §6).

use std::sync::Arc;

use super::lap::{HEADER_BYTES, Lap};
use super::recovery::read_head;
use super::{Entry, Journal, JournalError};

/// Where a walk stands, for the next one to go on there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    lap: u64,
    offset: u64,
    /// The number of the record that begins there.
    seq: u64,
}

/// The records after one that is committed, in their order. Files that it has not passed stay.
pub struct Walk {
    /// In order, with the last number that counts in each, and from the last on to the first.
    laps: Vec<(Arc<Lap>, u64)>,
    committed: u64,
    at: Option<Stop>,
}

impl Journal {
    /// The records after the last committed one.
    pub fn walk(&self) -> Walk {
        let mut laps = Vec::new();
        let mut end = self.last.0;
        for lap in self.laps.iter().rev() {
            // What was written anew is in two files, of which the later one counts.
            end = end.min(lap.last_seq());
            if end >= lap.header.first_seq && end > self.committed {
                laps.push((lap.clone(), end));
            }
            end = end.min(lap.header.first_seq.saturating_sub(1));
        }
        let first = laps.last().map_or(0, |(lap, _)| lap.header.lap);
        let goes_on = |stop: &Stop| stop.lap == first && stop.seq <= self.committed + 1;
        Walk {
            laps,
            committed: self.committed,
            at: self.stop.filter(goes_on),
        }
    }

    /// The next walk begins there, if what is before it is committed by then.
    pub fn stop_at(&mut self, stop: Option<Stop>) {
        self.stop = stop;
    }
}

impl Walk {
    /// The last record that is not among them, as it is committed.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Where it stands; none if that is where a file begins.
    pub fn stop(&self) -> Option<Stop> {
        self.at
    }

    /// The next record, if it is wanted; else it stays the next one. None at the end, too.
    pub fn next_if(&mut self, is_wanted: impl Fn(&Entry) -> bool) -> Result<Option<Entry>, JournalError> {
        while let Some((lap, end)) = self.laps.last().cloned() {
            let stop = self.at.unwrap_or(Stop {
                lap: lap.header.lap,
                offset: HEADER_BYTES,
                seq: lap.header.first_seq,
            });
            if stop.seq > end {
                self.laps.pop();
                self.at = None;
                continue;
            }
            let found = read_head(&lap, stop.offset)?.filter(|(head, _)| head.seq == stop.seq);
            let Some((head, mac)) = found else {
                let (seq, path) = (stop.seq, lap.file.path().to_owned());
                return Err(JournalError::HeadDamaged { seq, path });
            };
            let entry = Entry { lap, head, mac };
            let is_new = stop.seq > self.committed;
            if is_new && !is_wanted(&entry) {
                return Ok(None);
            }
            self.at = Some(Stop {
                offset: stop.offset + entry.head.record_bytes(),
                seq: stop.seq + 1,
                ..stop
            });
            if is_new {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}
