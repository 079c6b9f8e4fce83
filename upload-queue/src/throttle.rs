//! A token bucket, and the `PeerStore` decorator that holds puts to it.
//!
//! Reads are not held back: a restore is never slowed down by the budget for backups.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use proto::id::{AccountId, ShareId};
use proto::share::Share;
use proto::share_store::{BoxFuture, HeadStore, PeerStore, PutAck, ShareStore, Space, StoreError};
use tokio::time::Instant;

/// Smallest burst, in bytes: a share of the small size passes at once after a pause.
const BURST_BYTES_MIN: u64 = 256 << 10;

/// A rate limit in bytes a second; clones share it.
#[derive(Clone)]
pub struct Throttle(Arc<Bucket>);

struct Bucket {
    bytes_per_sec: u64,
    burst: Duration,
    /// When all that was granted so far is paid for: the bucket is full when this lies one burst in the past.
    paid: Mutex<Option<Instant>>,
}

impl Throttle {
    /// A limit of `bytes_per_sec`, at least 1. One second's worth, and not less than 256 KiB, may pass at once.
    pub fn new(bytes_per_sec: u64) -> Self {
        let bytes_per_sec = bytes_per_sec.max(1);
        let burst_bytes = bytes_per_sec.max(BURST_BYTES_MIN);
        Self(Arc::new(Bucket {
            bytes_per_sec,
            burst: seconds_for(burst_bytes, bytes_per_sec),
            paid: Mutex::new(None),
        }))
    }

    /// Waits until `bytes` may pass. More than a burst is granted as one debt, which those that come later wait for.
    /// Dropping it while it waits does not give the bytes back.
    pub async fn acquire(&self, bytes: u64) {
        let now = Instant::now();
        let paid = {
            let mut paid = self.0.paid.lock().unwrap_or_else(PoisonError::into_inner);
            let full = now.checked_sub(self.0.burst).unwrap_or(now);
            let from = paid.map_or(full, |paid| paid.max(full));
            let until = from + seconds_for(bytes, self.0.bytes_per_sec);
            *paid = Some(until);
            until
        };
        tokio::time::sleep_until(paid).await;
    }
}

fn seconds_for(bytes: u64, bytes_per_sec: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / bytes_per_sec as f64)
}

/// A store whose puts wait for a [`Throttle`]. Bytes are paid before they are sent, as if all of the share travelled.
pub struct Throttled<S> {
    store: S,
    throttle: Throttle,
}

impl<S> Throttled<S> {
    /// Holds `store` to `throttle`, which may be shared with other stores.
    pub fn new(store: S, throttle: Throttle) -> Self {
        Self { store, throttle }
    }
}

impl<S: PeerStore> ShareStore for Throttled<S> {
    fn put(&self, id: ShareId, share: Share) -> BoxFuture<'_, Result<PutAck, StoreError>> {
        Box::pin(async move {
            self.throttle.acquire(share.stored_bytes() as u64).await;
            self.store.put(id, share).await
        })
    }
    fn get(&self, id: ShareId, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        self.store.get(id, range)
    }
    fn list(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        self.store.list(after, limit)
    }
    fn remove(&self, id: ShareId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.remove(id)
    }
    fn space(&self) -> BoxFuture<'_, Result<Space, StoreError>> {
        self.store.space()
    }
    fn discard(&self, ids: Vec<ShareId>) -> BoxFuture<'_, Result<u32, StoreError>> {
        self.store.discard(ids)
    }
    fn list_trash(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        self.store.list_trash(after, limit)
    }
    fn recall(&self, ids: Vec<ShareId>) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        self.store.recall(ids)
    }
}

impl<S: PeerStore> HeadStore for Throttled<S> {
    fn put_head(&self, head: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.put_head(head)
    }
    fn heads(&self, account: AccountId) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>> {
        self.store.heads(account)
    }
    fn old_heads(&self, account: AccountId) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>> {
        self.store.old_heads(account)
    }
}

#[cfg(test)]
mod tests {
    use proto::share_store::memory::MemoryStore;

    use super::*;
    use crate::fixture::pack;

    const MIB: u64 = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_at_once_and_the_rest_at_the_rate() {
        let throttle = Throttle::new(MIB);
        let start = Instant::now();
        throttle.acquire(MIB).await;
        assert!(start.elapsed() < Duration::from_millis(5));
        for _ in 0..10 {
            throttle.acquire(MIB).await;
        }
        let seconds = start.elapsed().as_secs_f64();
        assert!((9.9..10.1).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_together_share_the_rate() {
        let throttle = Throttle::new(MIB);
        let start = Instant::now();
        futures::future::join_all((0..21).map(|_| throttle.acquire(MIB))).await;
        let seconds = start.elapsed().as_secs_f64();
        assert!((19.9..20.1).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_a_burst_passes_in_the_end() {
        let throttle = Throttle::new(1000);
        let start = Instant::now();
        throttle.acquire(512 << 10).await;
        let seconds = start.elapsed().as_secs_f64();
        assert!((262.0..263.0).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn puts_wait_and_reads_do_not() {
        let store = Throttled::new(MemoryStore::default(), Throttle::new(100_000));
        let start = Instant::now();
        let shares = pack(1, 2, 2).shares;
        let bytes: usize = shares.iter().map(|(_, share)| share.stored_bytes()).sum();
        for (id, share) in shares.clone() {
            store.put(id, share).await.unwrap();
        }
        let seconds = start.elapsed().as_secs_f64();
        let expected = (bytes as f64 - BURST_BYTES_MIN as f64) / 100_000.0;
        assert!(
            (expected - 0.1..expected + 0.1).contains(&seconds),
            "{seconds}, not {expected}"
        );

        let start = Instant::now();
        store.get(shares[0].0, 0..1000).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
