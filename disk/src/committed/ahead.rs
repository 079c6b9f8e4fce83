//! What will be read next: who reads one range after the other goes on so. Pure: it is told what is read, and says what to fetch.

/// How far ahead of a reader is fetched, in blocks, at most: 4 MiB. Chosen: a few fetches side by side, and a small part of what is kept
/// in memory even for several readers.
const BLOCKS_MAX: u64 = 1024;
/// Readers that are told apart. Chosen: a file system reads few files at a time, and there may be as many connections.
const READERS_MAX: usize = 4;

/// Who read what last.
#[derive(Debug, Default)]
pub(super) struct Readers {
    /// The one that read last is the last one.
    readers: Vec<Reader>,
}

#[derive(Debug)]
struct Reader {
    /// The last range that it read.
    last: (u64, u64),
    /// All up to here was said to be fetched.
    ahead: u64,
    /// How far ahead of it is fetched.
    window: u64,
}

impl Readers {
    /// Blocks from `start` to `end` are read: what should be fetched for the reading after it (first, end); nothing if that was said before, or
    /// if nobody reads on from there. A range that is asked for twice in a row counts once.
    pub fn saw(&mut self, start: u64, end: u64) -> Option<(u64, u64)> {
        let at = self.readers.iter().position(|reader| start == reader.last.1);
        let Some(at) = at else {
            if !self.readers.iter().any(|reader| reader.last == (start, end)) {
                if self.readers.len() == READERS_MAX {
                    self.readers.remove(0);
                }
                self.readers.push(Reader {
                    last: (start, end),
                    ahead: end,
                    window: end - start,
                });
            }
            return None;
        };
        let mut reader = self.readers.remove(at);
        reader.last = (start, end);
        reader.window = (reader.window.max(end - start) * 2).min(BLOCKS_MAX);
        let (first, until) = (reader.ahead.max(end), end + reader.window);
        // Small readings ask for much at a time, too.
        let is_worth_it = until >= first + reader.window / 4;
        if is_worth_it {
            reader.ahead = until;
        }
        self.readers.push(reader);
        is_worth_it.then_some((first, until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_on_has_what_follows_fetched_once_and_ever_further_ahead() {
        let mut readers = Readers::default();
        let mut ahead = 0;
        for at in 0..200 {
            let (start, end) = (at * 16, at * 16 + 16);
            let told = readers.saw(start, end);
            assert_eq!(readers.saw(start, end), None, "asked for twice");
            if let Some((first, until)) = told {
                assert!(first >= ahead && first >= end && until <= end + BLOCKS_MAX);
                assert!(ahead == 0 || first == ahead, "nothing is left out");
                ahead = until;
            }
            assert!(at < 10 || ahead >= end + BLOCKS_MAX / 2);
        }
    }

    #[test]
    fn who_jumps_about_has_nothing_fetched_and_does_not_hide_two_who_read_on() {
        let mut readers = Readers::default();
        for at in 0..50_u64 {
            let jump = (at * 7919 % 1000) * 1000 + 500_000;
            assert_eq!(readers.saw(jump, jump + 1), None);
            for begin in [0, 100_000] {
                let told = readers.saw(begin + at * 256, begin + at * 256 + 256);
                assert_eq!(told.is_some(), at > 0, "{at}");
            }
        }
    }
}
