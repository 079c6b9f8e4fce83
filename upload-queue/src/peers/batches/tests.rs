//! A liar of each kind, and an honest peer.

use std::ops::Range;

use bytes::Bytes;
use proto::id::AccountId;
use proto::share::Share;
use proto::share_store::{BoxFuture, HeadStore, PromiseStore, PutAck, ShareStore, Space};

use super::*;

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Lists 20,000 shares.
    Honest,
    /// Always one batch more.
    Endless,
    /// The same batch for ever.
    Same,
    /// A batch that goes down.
    Descending,
    /// One id twice in a batch.
    Doubled,
    /// One id each minute but a second.
    Slow,
    /// No answer.
    Silent,
}

struct Peer(Kind);

fn id(number: u64) -> ShareId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    ShareId(id)
}

fn number(id: ShareId) -> u64 {
    u64::from_be_bytes(*id.0.first_chunk().expect("32 bytes"))
}

impl Peer {
    async fn batch(&self, after: Option<ShareId>, limit: u32) -> Vec<ShareId> {
        let first = after.map_or(0, |after| number(after) + 1);
        let limit = u64::from(limit);
        match self.0 {
            Kind::Honest => (first..20_000.min(first + limit)).map(id).collect(),
            Kind::Endless => (first..first + limit).map(id).collect(),
            Kind::Same => (0..limit).map(id).collect(),
            Kind::Descending => (first..first + limit).rev().map(id).collect(),
            Kind::Doubled => vec![id(first), id(first)],
            Kind::Slow => {
                tokio::time::sleep(BATCH_TIME - Duration::from_secs(1)).await;
                vec![id(first)]
            }
            Kind::Silent => std::future::pending().await,
        }
    }
}

impl ShareStore for Peer {
    fn put(&self, _: ShareId, _: Share) -> BoxFuture<'_, Result<PutAck, StoreError>> {
        unreachable!("it is only listed")
    }
    fn get(&self, _: ShareId, _: Range<u32>) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        unreachable!("it is only listed")
    }
    fn list(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(async move { Ok(self.batch(after, limit).await) })
    }
    fn remove(&self, _: ShareId) -> BoxFuture<'_, Result<(), StoreError>> {
        unreachable!("it is only listed")
    }
    fn space(&self) -> BoxFuture<'_, Result<Space, StoreError>> {
        unreachable!("it is only listed")
    }
    fn list_trash(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        self.list(after, limit)
    }
}

impl HeadStore for Peer {
    fn put_head(&self, _: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        unreachable!("it is only listed")
    }
    fn heads(&self, _: AccountId) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>> {
        unreachable!("it is only listed")
    }
}

impl PromiseStore for Peer {}

/// `recover` and `check` collected what one friend listed until 3.5 GiB were full, or for ever.
#[tokio::test(start_paused = true)]
async fn whatever_a_peer_lists_the_list_ends_and_a_liar_has_none() {
    for shelf in [Shelf::Kept, Shelf::Trash] {
        let all = async |kind| {
            let begun = Instant::now();
            let found = Batches::new(&Peer(kind), shelf).all().await;
            assert!(begun.elapsed() <= LIST_TIME, "{kind:?}");
            found
        };
        assert_eq!(all(Kind::Honest).await, Ok((0..20_000).map(id).collect()));
        for kind in [Kind::Endless, Kind::Same, Kind::Descending, Kind::Doubled] {
            let found = all(kind).await;
            assert!(matches!(found, Err(StoreError::Corrupt { .. })), "{kind:?}");
        }
        for kind in [Kind::Slow, Kind::Silent] {
            let found = all(kind).await;
            assert!(matches!(found, Err(StoreError::Unreachable { .. })), "{kind:?}");
        }
    }
}
