//! Waits between attempts: each failure doubles them, and a random part keeps friends from coming all at once when a relay
//! or a router is back.

use std::time::{Duration, Instant};

/// Failures after which waits no longer double.
const DOUBLINGS_MAX: u32 = 16;

/// Attempts at one thing.
#[derive(Clone, Copy, Default, Debug)]
pub struct BackOff {
    failures: u32,
    not_before: Option<Instant>,
}

impl BackOff {
    /// Whether the wait is over.
    pub fn is_over(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|not_before| now >= not_before)
    }

    /// An attempt failed: the wait before the next is `first`, doubled with each failure up to `longest`, and of that a
    /// random part between a half and the whole.
    pub fn failed(&mut self, now: Instant, first: Duration, longest: Duration) {
        let wait = first.saturating_mul(1 << self.failures.min(DOUBLINGS_MAX)).min(longest);
        self.failures += 1;
        self.not_before = Some(now + jittered(wait));
    }

    /// An attempt succeeded, or the world has changed.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// A random part of `wait`, between a half and the whole.
fn jittered(wait: Duration) -> Duration {
    // Without randomness all waits are whole ones.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    wait.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_differ() {
        let (first, longest) = (Duration::from_secs(2), Duration::from_secs(100));
        let (now, mut attempts) = (Instant::now(), BackOff::default());
        assert!(attempts.is_over(now));
        for failures in 0..40 {
            attempts.failed(now, first, longest);
            let whole = first.saturating_mul(1 << failures.min(10)).min(longest);
            assert!(!attempts.is_over(now + whole / 2 - Duration::from_millis(1)));
            assert!(attempts.is_over(now + whole));
        }
        attempts.reset();
        assert!(attempts.is_over(now));
        let waits: Vec<_> = (0..8).map(|_| jittered(longest)).collect();
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }
}
