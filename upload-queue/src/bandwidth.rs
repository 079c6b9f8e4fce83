//! Bandwidth: a token bucket whose callers have classes, and the hours at which which limit holds.
//!
//! One bucket holds all that a node sends, another all that it receives. When several wait, a restore goes before a repair,
//! a repair before a backup, a backup before an audit.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub mod schedule;

/// What bytes are for, the most urgent first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Somebody waits for a file.
    Restore,
    /// Shares that were lost are built anew.
    Repair,
    /// New shares.
    Backup,
    /// Proofs that shares are kept.
    Audit,
}

/// What a node may send and receive; clones share the limits.
#[derive(Clone, Default)]
pub struct Bandwidth {
    /// Everything that goes to friends.
    pub upload: Limiter,
    /// Everything that comes from them.
    pub download: Limiter,
}

/// Smallest burst, in bytes: a share of the small size passes at once after a pause.
const BURST_BYTES_MIN: u64 = 256 << 10;

/// A rate limit in bytes a second, which may change; clones share it.
#[derive(Clone, Default)]
pub struct Limiter(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// None: as fast as it goes.
    bytes_per_sec: Option<u64>,
    /// When all that was granted so far is paid for: the bucket is full when this lies one burst in the past.
    paid: Option<Instant>,
    waiting: BTreeSet<Turn>,
    next: u64,
}

type Turn = (Class, u64);

impl Limiter {
    /// A limit of `bytes_per_sec`, at least 1; none: no limit. One second's worth, and not less than 256 KiB, may pass at once.
    pub fn new(bytes_per_sec: Option<u64>) -> Self {
        let limiter = Self::default();
        limiter.set(bytes_per_sec);
        limiter
    }

    /// Changes the limit, for those that wait, too.
    pub fn set(&self, bytes_per_sec: Option<u64>) {
        let bytes_per_sec = bytes_per_sec.map(|rate| rate.max(1));
        let mut state = self.0.lock();
        if state.bytes_per_sec != bytes_per_sec {
            state.bytes_per_sec = bytes_per_sec;
            // A debt at the old rate is forgotten: at worst one burst passes twice.
            state.paid = None;
            drop(state);
            self.0.changed.notify_waiters();
        }
    }

    /// Waits until `bytes` may pass: those of a more urgent class first, then who came first. More than a burst is granted as one
    /// debt, which those that come later wait for. Dropping it while it waits gives nothing back.
    pub async fn acquire(&self, class: Class, bytes: u64) {
        let waiting = Waiting::enter(&self.0, class);
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            match waiting.try_pass(bytes) {
                Pass::Now => return,
                Pass::At(paid) => tokio::select! {
                    () = tokio::time::sleep_until(paid) => return,
                    () = self.limit_changed(paid) => {}
                },
                Pass::NotYet => changed.await,
            }
        }
    }

    /// Returns when a debt that is waited for was forgotten.
    async fn limit_changed(&self, paid: Instant) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.0.lock().paid.is_none_or(|now| now < paid) {
                return;
            }
            changed.await;
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Pass {
    Now,
    /// Granted; to be paid by then.
    At(Instant),
    /// Others are first.
    NotYet,
}

/// A place in the line, left when dropped.
struct Waiting<'a> {
    inner: &'a Inner,
    turn: Turn,
}

impl<'a> Waiting<'a> {
    fn enter(inner: &'a Inner, class: Class) -> Self {
        let mut state = inner.lock();
        let turn = (class, state.next);
        state.next += 1;
        state.waiting.insert(turn);
        Self { inner, turn }
    }

    fn try_pass(&self, bytes: u64) -> Pass {
        let now = Instant::now();
        let mut state = self.inner.lock();
        let Some(rate) = state.bytes_per_sec else {
            return Pass::Now;
        };
        if state.waiting.first() != Some(&self.turn) {
            return Pass::NotYet;
        }
        let burst = seconds_for(rate.max(BURST_BYTES_MIN), rate);
        let full = now.checked_sub(burst).unwrap_or(now);
        let from = state.paid.map_or(full, |paid| paid.max(full));
        let until = from + seconds_for(bytes, rate);
        state.paid = Some(until);
        if until <= now { Pass::Now } else { Pass::At(until) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.inner.lock().waiting.remove(&self.turn);
        self.inner.changed.notify_waiters();
    }
}

fn seconds_for(bytes: u64, bytes_per_sec: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / bytes_per_sec as f64)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const MIB: u64 = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_at_once_and_the_rest_at_the_rate() {
        let limiter = Limiter::new(Some(MIB));
        let start = Instant::now();
        limiter.acquire(Class::Backup, MIB).await;
        assert!(start.elapsed() < Duration::from_millis(5));
        for _ in 0..10 {
            limiter.acquire(Class::Backup, MIB).await;
        }
        let seconds = start.elapsed().as_secs_f64();
        assert!((9.9..10.1).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_together_share_the_rate() {
        let limiter = Limiter::new(Some(MIB));
        let start = Instant::now();
        futures::future::join_all((0..21).map(|_| limiter.acquire(Class::Backup, MIB))).await;
        let seconds = start.elapsed().as_secs_f64();
        assert!((19.9..20.1).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_a_burst_passes_in_the_end() {
        let limiter = Limiter::new(Some(1000));
        let start = Instant::now();
        limiter.acquire(Class::Backup, 512 << 10).await;
        let seconds = start.elapsed().as_secs_f64();
        assert!((262.0..263.0).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_restore_passes_all_backups_that_wait() {
        let limiter = Limiter::new(Some(MIB));
        limiter.acquire(Class::Audit, MIB).await;
        let done = AtomicUsize::new(0);
        let backups = futures::future::join_all((0..10).map(|_| async {
            limiter.acquire(Class::Backup, MIB).await;
            done.fetch_add(1, Ordering::Relaxed);
        }));
        let restore = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            limiter.acquire(Class::Restore, MIB).await;
            done.load(Ordering::Relaxed)
        };
        let (_, backups_before) = tokio::join!(backups, restore);
        assert_eq!(
            backups_before, 2,
            "one was through and one under way when the restore came"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_lifted_lets_all_pass() {
        let limiter = Limiter::new(Some(1));
        let start = Instant::now();
        let waiting = futures::future::join_all((0..5).map(|_| limiter.acquire(Class::Backup, 100 * MIB)));
        let lift = async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            limiter.set(None);
        };
        tokio::join!(waiting, lift);
        assert_eq!(start.elapsed().as_secs(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_does_not_hold_up_the_others() {
        let limiter = Limiter::new(Some(MIB));
        limiter.acquire(Class::Backup, MIB).await;
        let given_up = tokio::time::timeout(Duration::from_millis(10), limiter.acquire(Class::Restore, MIB));
        assert!(given_up.await.is_err());
        let start = Instant::now();
        limiter.acquire(Class::Audit, MIB).await;
        assert!(start.elapsed() <= Duration::from_secs(2));
    }
}
