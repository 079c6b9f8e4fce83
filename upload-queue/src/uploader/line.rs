//! One peer's line: what waits for it, what is under way to it, and how it has been doing. Without clock or IO.

use std::collections::BTreeSet;
use std::time::Duration;

use proto::share_store::StoreError;
use tokio::time::Instant;

use crate::uploader::waiting::Waiting;

/// First wait after a failure; doubles with each further one, up to the longest.
pub(super) const BACK_OFF_FIRST: Duration = Duration::from_millis(250);
pub(super) const BACK_OFF_LONGEST: Duration = Duration::from_secs(60);
/// How long a peer that refused is left alone; doubles with each further refusal, up to the longest. Chosen: whoever made
/// room on a disk sees the backup go on within a coffee break, and a peer that stays full costs four shares an hour.
pub(super) const REST_FIRST: Duration = Duration::from_secs(60);
pub(super) const REST_LONGEST: Duration = Duration::from_secs(15 * 60);
/// A peer is given up by those who wait when it failed so often since they began to, or since it last took a share …
const STUCK_FAILURES: u64 = 4;
/// … or at least so often, and nothing went well for so long.
const STUCK_FAILURES_SLOW: u64 = 2;
const STUCK_AFTER: Duration = Duration::from_secs(5);

#[derive(Clone, Default)]
pub(super) struct Line {
    pub(super) waiting: BTreeSet<Waiting>,
    pub(super) in_flight: BTreeSet<Waiting>,
    /// In a row.
    pub(super) failures: u64,
    /// Of those, the ones that lengthen the back-off: since somebody last asked to try at once.
    pub(super) backed_off: u64,
    pub(super) failing_since: Option<Instant>,
    pub(super) failed_last: Option<Instant>,
    pub(super) succeeded_last: Option<Instant>,
    pub(super) blocked_until: Option<Instant>,
    /// Full, or it refuses us: nothing is in line here before then.
    pub(super) rests_until: Option<Instant>,
    /// In a row, since somebody last asked to try at once.
    pub(super) refusals: u32,
    pub(super) error: Option<StoreError>,
    pub(super) free_bytes: Option<u64>,
    pub(super) failures_total: u64,
    /// Of those, the ones before it last took a share.
    pub(super) failures_made_good: u64,
}

impl Line {
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| until > now)
    }

    /// It took a share, and that is written down.
    pub(super) fn succeeded(&mut self, now: Instant) {
        self.failures = 0;
        self.backed_off = 0;
        self.refusals = 0;
        self.failures_made_good = self.failures_total;
        self.failing_since = None;
        self.blocked_until = None;
        self.rests_until = None;
        self.error = None;
        self.succeeded_last = Some(now);
    }

    /// An attempt begun at `begun` failed in a way that may pass; `seed` is the peer's own. Attempts that began before the
    /// last failure say nothing new.
    pub(super) fn failed(&mut self, error: &StoreError, seed: u64, begun: Instant, now: Instant) {
        self.error = Some(error.clone());
        if self.failed_last.is_some_and(|last| begun < last) {
            return;
        }
        self.failures += 1;
        self.failures_total += 1;
        self.backed_off += 1;
        self.failing_since.get_or_insert(now);
        self.failed_last = Some(now);
        let mut wait = back_off(self.backed_off, seed);
        if let StoreError::Busy { retry_after } = error {
            wait = wait.max((*retry_after).min(BACK_OFF_LONGEST));
        }
        self.blocked_until = Some(now + wait);
    }

    /// It will take nothing more for now; returns what waited for it.
    pub(super) fn refuse(&mut self, error: &StoreError, now: Instant) -> BTreeSet<Waiting> {
        // Refusals of what was under way together are one.
        if !self.rests(now) {
            let rest = REST_FIRST.saturating_mul(1 << self.refusals.min(16)).min(REST_LONGEST);
            self.rests_until = Some(now + rest);
            self.refusals = self.refusals.saturating_add(1);
        }
        self.error = Some(error.clone());
        std::mem::take(&mut self.waiting)
    }

    /// It may be tried at once, if it failed.
    pub(super) fn unblock(&mut self) {
        (self.blocked_until, self.backed_off) = (None, 0);
    }

    /// It may be tried at once, if it refused.
    pub(super) fn forgive(&mut self) {
        (self.rests_until, self.refusals) = (None, 0);
    }

    /// Whether those who wait since `since` need not wait for it any more; it had failed `failures_before` times by then.
    pub(super) fn is_stuck(&self, failures_before: u64, since: Instant, now: Instant) -> bool {
        let failures = self.failures_total - failures_before.max(self.failures_made_good);
        let quiet_since = self.succeeded_last.map_or(since, |last| last.max(since));
        let slow = now.duration_since(quiet_since) >= STUCK_AFTER;
        failures >= STUCK_FAILURES || (failures >= STUCK_FAILURES_SLOW && slow)
    }
}

/// Wait after so many failures in a row, shortened by up to a quarter, differently for each peer and failure, so that
/// peers that went together are not tried together for ever.
pub(super) fn back_off(failures: u64, seed: u64) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    let full = BACK_OFF_FIRST.saturating_mul(1 << doublings).min(BACK_OFF_LONGEST);
    let jitter = (seed.rotate_left(doublings * 3) % 256) as u32;
    full - full / 4 * jitter / 256
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::PeerKey;
    use crate::placement::shuffled;

    #[test]
    fn back_off_grows_to_a_minute_and_differs_between_peers() {
        let waits: Vec<_> = (1..40)
            .map(|failures| back_off(failures, shuffled(0, &PeerKey("a".into()))))
            .collect();
        assert!(waits[0] <= BACK_OFF_FIRST && waits[0] >= BACK_OFF_FIRST * 3 / 4);
        assert!(
            waits[20..].iter().all(|wait| (45..=60).contains(&wait.as_secs())),
            "{waits:?}"
        );
        let other = back_off(1, shuffled(0, &PeerKey("b".into())));
        assert_ne!(waits[0], other);
    }
}
