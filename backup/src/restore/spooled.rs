//! The spool as one more place that gives shares: those that were not sent yet. It is asked like a peer, and what it gives is checked like a
//! peer's; but it is none, and nothing that it gives or lacks is recorded of any.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use proto::id::{AccountId, ShareId};
use proto::share::Share;
use proto::share_store::{BoxFuture, HeadStore, PromiseStore, PutAck, ShareStore, Space, StoreError};
use upload_queue::peers::place::Place;
use upload_queue::peers::{Peer, PeerKey, Reach};
use upload_queue::spool::Spool;

/// The name by which it is asked: of a form that no place has.
const KEY: &str = "spool";

/// The spool, as `Holders` asks it.
pub(super) fn as_peer(spool: &Spool) -> Peer {
    Peer {
        key: PeerKey(KEY.to_owned()),
        place: Place::Folder(KEY.into()),
        name: "the spool".to_owned(),
        domain: "this machine".to_owned(),
        reach: Reach::Local,
        store: Arc::new(Spooled(spool.clone())),
    }
}

/// Whether this is the spool.
pub(super) fn is_spool(peer: &Peer) -> bool {
    peer.key.0 == KEY
}

struct Spooled(Spool);

fn refused<T: Send + 'static>() -> BoxFuture<'static, Result<T, StoreError>> {
    Box::pin(async { Err(StoreError::refused("the spool is only read")) })
}

impl ShareStore for Spooled {
    fn put(&self, _id: ShareId, _share: Share) -> BoxFuture<'_, Result<PutAck, StoreError>> {
        refused()
    }

    fn get(&self, id: ShareId, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        let spool = self.0.clone();
        Box::pin(async move {
            // The whole share is read and checked: it is on this disk, and its peer will have it soon.
            let reading = tokio::task::spawn_blocking(move || spool.read(id));
            let unreadable = |error: String| StoreError::Unreachable { reason: error };
            let read = reading.await.map_err(|error| unreadable(error.to_string()))?;
            let share = read.map_err(|error| unreadable(error.to_string()))?;
            let share = share.ok_or(StoreError::NotFound)?;
            let stored = [&share.data[..], &share.tail[..]].concat();
            let part = stored.get(range.start as usize..range.end as usize);
            part.map(Bytes::copy_from_slice).ok_or(StoreError::OutOfRange)
        })
    }

    fn list(&self, _after: Option<ShareId>, _limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        refused()
    }

    fn remove(&self, _id: ShareId) -> BoxFuture<'_, Result<(), StoreError>> {
        refused()
    }

    fn space(&self) -> BoxFuture<'_, Result<Space, StoreError>> {
        refused()
    }
}

impl HeadStore for Spooled {
    fn put_head(&self, _head: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        refused()
    }

    fn heads(&self, _account: AccountId) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>> {
        refused()
    }
}

impl PromiseStore for Spooled {}
