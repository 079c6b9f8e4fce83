//! Whether a file is being read in order, and what to fetch before it is asked for.
//!
//! Pure arithmetic on offsets: the kernel sends several reads of one reader at once, and not always in order.

use std::ops::Range;

use proto::size::{KIB, MIB};

/// A read so near to where the last ones ended goes on with them.
const SLACK_BYTES: u64 = MIB as u64;
/// Bytes read in order before anything is fetched ahead: a look at the beginning of a file costs only that.
const RUN_BYTES_MIN: u64 = 256 * KIB as u64;
/// Most that is fetched ahead of a reader. Chosen: 50 ms of round trip at 80 MB/s, and eight readers fit in the cache.
const AHEAD_BYTES_MAX: u64 = 4 * MIB as u64;

/// Where a file was read.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Furthest end of the reads that follow one another.
    end: u64,
    /// Bytes of those reads.
    run: u64,
    /// What is fetched or being fetched.
    until: u64,
}

impl Ahead {
    /// Takes note of a read of a file of `len` bytes; what to fetch next, if it is time to.
    pub(super) fn after(&mut self, read: Range<u64>, len: u64) -> Option<Range<u64>> {
        if read.start.abs_diff(self.end) <= SLACK_BYTES {
            self.run += read.end - read.start;
            self.end = self.end.max(read.end);
        } else {
            self.run = read.end - read.start;
            (self.end, self.until) = (read.end, 0);
        }
        let window = self.run.min(AHEAD_BYTES_MAX);
        let start = self.until.max(self.end);
        // In pieces of half a window: each is a round trip.
        let is_due = self.run >= RUN_BYTES_MIN && start < len && start < self.end + window.div_ceil(2);
        is_due.then(|| start..(self.end + window).min(len))
    }

    /// Everything before `until` is on its way.
    pub(super) fn fetched_until(&mut self, until: u64) {
        self.until = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: u64 = 128 * KIB as u64;
    const LEN: u64 = 100 * MIB as u64;

    #[test]
    fn a_file_read_in_order_is_fetched_ahead_in_growing_windows_without_gaps() {
        let mut ahead = Ahead::default();
        let mut until = 0;
        let mut fetches = 0;
        for number in 0..LEN / READ {
            let read = number * READ..(number + 1) * READ;
            if let Some(next) = ahead.after(read.clone(), LEN) {
                assert!(next.start == until.max(read.end) && next.end <= LEN, "{next:?}");
                assert!(next.end - read.end <= AHEAD_BYTES_MAX);
                until = next.end;
                ahead.fetched_until(until);
                fetches += 1;
            }
        }
        assert_eq!(until, LEN);
        assert!(fetches < 60, "{fetches} round trips for {LEN} bytes");
    }

    #[test]
    fn random_reads_and_first_looks_fetch_nothing_ahead() {
        let mut ahead = Ahead::default();
        assert_eq!(ahead.after(0..READ, LEN), None);
        for number in [50, 3, 90, 20, 70] {
            let start = number * MIB as u64;
            assert_eq!(ahead.after(start..start + READ, LEN), None);
        }
    }

    #[test]
    fn nothing_is_fetched_beyond_the_end() {
        let mut ahead = Ahead::default();
        ahead.after(0..READ, 3 * READ);
        assert_eq!(ahead.after(READ..2 * READ, 3 * READ), Some(2 * READ..3 * READ));
        assert_eq!(ahead.after(2 * READ..3 * READ, 3 * READ), None);
    }
}
