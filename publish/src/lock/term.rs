//! Until when the holder of the lock may write: by this machine's clock for what it sends, by the endpoint's for what is on its way.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use s3::{Window, Windows};

/// Longest that a signature may be good for, in seconds
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>).
const WINDOW_SECS_MAX: i64 = 7 * 24 * 60 * 60;

/// A term that is extended by renewals.
#[derive(Debug)]
pub(super) struct Term {
    /// In milliseconds of [`now_ms`].
    until_ms: AtomicI64,
    heard: Mutex<Option<Heard>>,
}

/// A word of the endpoint's clock.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// What it said, in seconds since 1970.
    said_secs: i64,
    /// When that was heard, in milliseconds of [`now_ms`]: it said so then or earlier.
    at_ms: i64,
}

/// Milliseconds of a clock that goes on while the machine sleeps, and that nobody sets.
pub(super) fn now_ms() -> i64 {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    // On macOS this one goes on in sleep.
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Term {
    /// Of nobody yet.
    pub fn new() -> Self {
        Self {
            until_ms: AtomicI64::new(i64::MAX),
            heard: Mutex::default(),
        }
    }

    /// It runs for so long from when the request for it was sent, in milliseconds of [`now_ms`].
    pub fn extend(&self, sent_ms: i64, lasts: Duration) {
        self.until_ms
            .store(sent_ms.saturating_add(millis(lasts)), Ordering::Release);
    }

    /// It is over.
    pub fn end(&self) {
        self.until_ms.store(i64::MIN, Ordering::Release);
    }

    /// How long it still runs; none: not at all.
    pub fn left(&self) -> Option<Duration> {
        let left_ms = self.until_ms.load(Ordering::Acquire).saturating_sub(now_ms());
        u64::try_from(left_ms)
            .ok()
            .filter(|left_ms| *left_ms > 0)
            .map(Duration::from_millis)
    }

    /// What the endpoint's clock said in an answer that came just now.
    pub fn hear(&self, said: Option<Timestamp>) {
        if let Some(said) = said {
            *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Heard {
                said_secs: said.as_second(),
                at_ms: now_ms(),
            });
        }
    }

    /// The endpoint's clock has gone on since it was heard, so that it is not earlier than it is taken for here: the window begins and
    /// ends too early rather than too late.
    fn window_at(&self, now_ms: i64) -> Option<Window> {
        let heard = (*self.heard.lock().unwrap_or_else(PoisonError::into_inner))?;
        let theirs_ms = |own_ms: i64| {
            let since_ms = own_ms.saturating_sub(heard.at_ms);
            heard.said_secs.saturating_mul(1000).saturating_add(since_ms)
        };
        let until_ms = self.until_ms.load(Ordering::Acquire);
        let (from, until) = (theirs_ms(now_ms).div_euclid(1000), theirs_ms(until_ms).div_euclid(1000));
        let secs = until.saturating_sub(from).min(WINDOW_SECS_MAX);
        Some(Window {
            from: Timestamp::from_second(from).ok()?,
            secs: u64::try_from(secs).ok().filter(|secs| *secs > 0)?,
        })
    }
}

impl Windows for Term {
    fn window(&self) -> Option<Window> {
        self.window_at(now_ms())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn windows_end_before_the_term_by_the_endpoints_clock_and_not_much_before(
            theirs_ms in 1_700_000_000_000_i64..1_800_000_000_000,
            answered_ms in 0_i64..5_000,
            on_its_way_ms in 0_i64..3_000,
            later_ms in 0_i64..60_000,
        ) {
            // Own time begins when the lock is asked for; the endpoint's is then `theirs_ms`.
            let term = Term::new();
            term.extend(0, Duration::from_secs(60));
            let at_ms = answered_ms + on_its_way_ms;
            let said_secs = (theirs_ms + answered_ms).div_euclid(1000);
            *term.heard.lock().unwrap() = Some(Heard { said_secs, at_ms });
            let window = term.window_at(at_ms + later_ms);
            let end_ms = theirs_ms + 60_000;
            // What is lost: the rest of a second twice, and the way of the answer.
            let lost_ms = on_its_way_ms + 2_000;
            if at_ms + later_ms + lost_ms < 60_000 {
                let window = window.unwrap();
                let from_ms = window.from.as_millisecond();
                prop_assert!(from_ms <= theirs_ms + at_ms + later_ms);
                let until_ms = from_ms + i64::try_from(window.secs).unwrap() * 1000;
                prop_assert!(until_ms <= end_ms && until_ms > end_ms - lost_ms, "{until_ms} {end_ms}");
            } else if at_ms + later_ms >= 60_000 {
                prop_assert_eq!(window, None);
            }
        }
    }

    #[test]
    fn without_a_word_of_the_endpoints_clock_there_is_no_window() {
        let term = Term::new();
        term.extend(now_ms(), Duration::from_secs(60));
        assert_eq!(term.window(), None);
        term.hear(Some(Timestamp::UNIX_EPOCH));
        assert!(term.window().is_some() && term.left().is_some());
        term.end();
        assert!(term.window().is_none() && term.left().is_none());
    }
}
