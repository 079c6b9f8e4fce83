//! How long a writer's word is good for. All by clocks of single machines that go on while the machine sleeps and that nobody sets
//! (`CLOCK_BOOTTIME`); none is ever compared with another machine's.

use std::time::Duration;

/// The times of a volume's writers. All of them must go by the same: they are fixed, and differ in tests alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Times {
    /// For how long a writer acknowledges what is not committed, from before it asked a majority that then confirmed it.
    pub term: Duration,
    /// What a taker waits beyond that, counted from when a majority had promised it.
    pub margin: Duration,
    /// When a writer asks again that has nothing to commit.
    pub renew_after: Duration,
    /// For how long writes wait once the term is over, before they fail.
    pub stall: Duration,
}

impl Times {
    /// Term: chosen, as long as a friend's machine may take to restart, as short as somebody waits who takes over. Renewed three
    /// times in it, so that two losses do not matter. Stall: what a file system bears before it is better told.
    pub const USUAL: Self = Self {
        term: Duration::from_secs(60),
        margin: Duration::from_secs(2),
        renew_after: Duration::from_secs(20),
        stall: Duration::from_secs(300),
    };

    /// How long a taker waits.
    pub fn wait(&self) -> Duration {
        self.term + self.margin
    }
}

/// Clocks go at most this much too fast or too slow, in percent. Chosen: a hundred times what quartz and NTP's slewing do.
const RATE_PERCENT: u64 = 1;

// The holder's clock may be slow and the taker's fast, by as much.
const _: () = assert!(
    Times::USUAL.term.as_secs() * (100 + RATE_PERCENT)
        <= (Times::USUAL.term.as_secs() + Times::USUAL.margin.as_secs()) * (100 - RATE_PERCENT)
);
