//! When to ask again: exponential pauses with full jitter, `Retry-After`, and a budget, so that an endpoint in trouble does
//! not get a multiple of the requests.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::error::Error;

/// How patient requests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// Requests for one answer, the first included.
    pub attempts_max: u32,
    /// Longest first pause; each next one may be twice as long.
    pub first: Duration,
    /// Longest pause.
    pub longest: Duration,
}

impl Default for Patience {
    /// Chosen: 22 s on average until an answer is given up, 45 s at most.
    fn default() -> Self {
        Self {
            attempts_max: 10,
            first: Duration::from_millis(100),
            longest: Duration::from_secs(20),
        }
    }
}

/// Longest `Retry-After` that is waited for; who asks for more gets no second request. Chosen: a user still waits.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

impl Patience {
    /// The pause after `attempts` requests, or none when it is time to give up. `random` is uniform.
    pub fn pause(&self, attempts: u32, retry_after: Option<Duration>, random: u32) -> Option<Duration> {
        if attempts >= self.attempts_max || retry_after.is_some_and(|wish| wish > RETRY_AFTER_MAX) {
            return None;
        }
        let doubled = self.first.saturating_mul(1 << (attempts - 1).min(16));
        // Full jitter (https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/).
        let jitter = doubled
            .min(self.longest)
            .mul_f64(f64::from(random) / f64::from(u32::MAX));
        Some(jitter + retry_after.unwrap_or_default())
    }
}

/// Tokens of a full budget. The proportions are those of Amazon's SDKs: 100 retries at once, then one for five successes.
const TOKENS_MAX: u32 = 500;
/// What a retry costs.
const RETRY_COST: u32 = 5;
/// What a retry after a timeout costs: such a request has cost the endpoint more.
const TIMEOUT_COST: u32 = 10;

/// What may be retried, over all requests of a client.
#[derive(Debug)]
pub(crate) struct Budget(AtomicU32);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU32::new(TOKENS_MAX))
    }
}

impl Budget {
    /// Pays for a retry; false if there is too little left.
    pub fn pay(&self, error: &Error) -> bool {
        let cost = if matches!(error, Error::Timeout { .. }) {
            TIMEOUT_COST
        } else {
            RETRY_COST
        };
        let take = |left: u32| left.checked_sub(cost);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// A request succeeded.
    pub fn earn(&self) {
        let add = |left: u32| Some((left + 1).min(TOKENS_MAX));
        let _always = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_end() {
        let patience = Patience::default();
        let longest = |attempts| patience.pause(attempts, None, u32::MAX).unwrap().as_millis();
        assert_eq!(
            [longest(1), longest(2), longest(4), longest(9)],
            [100, 200, 800, 20_000]
        );
        assert_eq!(patience.pause(3, None, 0), Some(Duration::ZERO));
        assert_eq!(patience.pause(10, None, 0), None);
    }

    #[test]
    fn a_wish_to_be_asked_later_is_kept_unless_it_is_unreasonable() {
        let patience = Patience::default();
        let wish = Duration::from_secs(7);
        assert_eq!(patience.pause(1, Some(wish), 0), Some(wish));
        assert_eq!(patience.pause(1, Some(Duration::from_secs(3600)), 0), None);
    }

    #[test]
    fn the_budget_ends_and_successes_fill_it_again() {
        let budget = Budget::default();
        let busy = Error::Busy(crate::error::Refusal::default());
        assert_eq!((0..200).filter(|_| budget.pay(&busy)).count(), 100);
        (0..5).for_each(|_| budget.earn());
        assert!(budget.pay(&busy) && !budget.pay(&busy));
        (0..9000).for_each(|_| budget.earn());
        assert_eq!((0..200).filter(|_| budget.pay(&busy)).count(), 100);
    }
}
