//! How much of the journal is in use, and how long the oldest of it has waited.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Volume;

/// Between two marks. Chosen: the age of what waits is told to the second.
const MARK_EVERY: Duration = Duration::from_secs(1);
/// Most marks. Chosen: an hour; what waits longer is as old as the oldest of them.
const MARKS_MAX: usize = 3600;

/// The figures of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalUsage {
    /// Bytes of files in use.
    pub used_bytes: u64,
    /// Bytes of all.
    pub bytes_max: u64,
    /// Bytes of blocks that no commit has, the newest of each.
    pub pending_bytes: u64,
    /// How long the oldest record has waited for a commit.
    pub oldest_pending: Option<Duration>,
}

/// When records came, by some of them.
#[derive(Default)]
pub(super) struct Marks {
    /// Numbers that were the last ones, and when; ascending.
    marks: VecDeque<(u64, Instant)>,
}

impl Marks {
    /// A record came that followed this one.
    pub fn came_behind(&mut self, seq: u64, now: Instant) {
        let is_due = self
            .marks
            .back()
            .is_none_or(|(_, last)| now.duration_since(*last) >= MARK_EVERY);
        if is_due {
            if self.marks.len() == MARKS_MAX {
                // The oldest stays: it tells the age.
                self.marks.remove(1);
            }
            self.marks.push_back((seq, now));
        }
    }

    /// Records up to this one are committed.
    pub fn release(&mut self, committed: u64, last: u64) {
        // A mark is of the records behind it up to the next one's.
        while self.marks.get(1).is_some_and(|(next, _)| *next <= committed) {
            self.marks.pop_front();
        }
        if last <= committed {
            self.marks.clear();
        }
    }

    fn oldest(&self) -> Option<Instant> {
        self.marks.front().map(|(_, when)| *when)
    }
}

impl Volume {
    /// How much of the journal is in use. What was there when the volume was opened counts from then on.
    pub fn journal_usage(&self) -> JournalUsage {
        let core = self.shared.lock();
        let (used_bytes, bytes_max) = core.journal.usage();
        let pending_bytes = core.map.bytes();
        let is_pending = core.journal.last_seq() > core.journal.committed_seq();
        let oldest = core.marks.oldest().filter(|_| is_pending);
        JournalUsage {
            used_bytes,
            bytes_max,
            pending_bytes,
            oldest_pending: oldest.map(|when| when.elapsed()),
        }
    }
}
