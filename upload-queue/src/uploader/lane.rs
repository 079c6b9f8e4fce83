//! Sending: each peer has some lanes, which take turns at its line.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use database::DbError;
use proto::id::ShareId;
use proto::share::Share;
use proto::share_store::{PutAck, StoreError};
use tokio::time::Instant;

use crate::packs::shares;
use crate::peers::{Peer, PeerKey};
use crate::uploader::lines::Next;
use crate::uploader::shared::{Shared, blocking};
use crate::uploader::waiting::Waiting;
use crate::uploader::waiting::{Delivery, Way};
use crate::uploader::{UploadError, UploadEvent, replan};

/// Longest time for one put. Chosen: the largest share over 10 kbit/s; nobody waits for a store that hangs for ever.
const PUT_LONGEST: Duration = Duration::from_secs(3600);

/// Sends what is in line for a peer until it leaves the set. May be aborted: a put is then repeated after the next start.
pub(super) async fn lane(shared: Arc<Shared>, key: PeerKey) {
    while let Some((peer, share)) = next(&shared, &key).await {
        send(&shared, &peer, share).await;
    }
}

/// The next share to send; `None` when the peer is gone, or the uploader.
async fn next(shared: &Shared, key: &PeerKey) -> Option<(Peer, Waiting)> {
    loop {
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        // Without anybody who writes down what arrives, the same share would be sent for ever.
        let peer = shared.peers.get(key).filter(|_| !shared.delivered.is_closed())?;
        let next = shared.lines().next(key, Instant::now());
        match next {
            Next::Send(share) => return Some((peer, share)),
            Next::WaitUntil(until) => {
                let _ = tokio::time::timeout_at(until, changed).await;
            }
            Next::Wait => changed.await,
        }
    }
}

async fn send(shared: &Arc<Shared>, peer: &Peer, share: Waiting) {
    let mut flight = Flight::new(shared, &peer.key, share);
    let permit = shared.in_memory.acquire().await;
    let sealed = match load(shared, &flight.share).await {
        Ok(Some(sealed)) => sealed,
        Ok(None) => return lost(shared, flight).await,
        Err(error) => {
            tracing::warn!(%error, "a share cannot be read from the spool now");
            let error = StoreError::Unreachable {
                reason: error.to_string(),
            };
            shared.lines().failed(&peer.key, &error, Instant::now(), Instant::now());
            return;
        }
    };
    let begun = Instant::now();
    let result = put(peer, flight.share.id, sealed).await;
    drop(permit);
    match result {
        Ok(ack) => {
            shared.bytes_sent.fetch_add(ack.bytes_sent, Ordering::Relaxed);
            let delivery = Delivery {
                peer: peer.key.clone(),
                share: flight.share.clone(),
                bytes: ack.bytes_sent,
                way: Way::Sent,
            };
            // Fails only when the uploader is being dropped; the share is then sent again after the next start.
            flight.has_landed = shared.delivered.send(delivery).await.is_ok();
        }
        Err(error) => failed(shared, flight, error, begun).await,
    }
}

/// A share under way. However its lane ends, the share is not under way any more: it is in line again, unless it landed.
struct Flight<'a> {
    shared: &'a Shared,
    peer: &'a PeerKey,
    share: Waiting,
    /// Somebody else minds it now.
    has_landed: bool,
}

impl<'a> Flight<'a> {
    fn new(shared: &'a Shared, peer: &'a PeerKey, share: Waiting) -> Self {
        Self {
            shared,
            peer,
            share,
            has_landed: false,
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if !self.has_landed {
            self.shared.lines().take_back(self.peer, &self.share, Instant::now());
        }
        self.shared.announce();
    }
}

/// Puts a share. A store that never answers is a store that does not.
pub(super) async fn put(peer: &Peer, id: ShareId, share: Share) -> Result<PutAck, StoreError> {
    let put = tokio::time::timeout(PUT_LONGEST, peer.store.put(id, share));
    put.await.unwrap_or_else(|_| {
        Err(StoreError::Unreachable {
            reason: format!("A share was under way for {} minutes", PUT_LONGEST.as_secs() / 60),
        })
    })
}

pub(super) async fn load(shared: &Arc<Shared>, share: &Waiting) -> Result<Option<Share>, UploadError> {
    let (spool, id) = (shared.spool.clone(), share.id);
    Ok(blocking(move || spool.read(id)).await??)
}

async fn failed(shared: &Arc<Shared>, mut flight: Flight<'_>, error: StoreError, begun: Instant) {
    let (peer, now) = (flight.peer, Instant::now());
    tracing::debug!(peer = peer.0, share = %flight.share.id, %error, "a share was not taken");
    shared.tell(UploadEvent::PeerFailed {
        peer: peer.clone(),
        error: error.clone(),
    });
    if may_pass(&error) {
        shared.lines().failed(peer, &error, begun, now);
        return;
    }
    shared.lines().refuse_share(peer, &flight.share, &error, now);
    flight.has_landed = true;
    replan::homeless(shared).await;
}

/// Whether the same put may succeed later without anybody making space or changing a policy.
pub(super) fn may_pass(error: &StoreError) -> bool {
    matches!(error, StoreError::Unreachable { .. } | StoreError::Busy { .. })
}

/// The spool does not have the share any more, or damaged.
async fn lost(shared: &Arc<Shared>, mut flight: Flight<'_>) {
    let (pack, index, id) = (flight.share.pack, flight.share.index, flight.share.id);
    let of_db = shared.clone();
    let forgotten = blocking(move || {
        of_db.db.write::<_, DbError>(|tx| {
            // Not lost, but delivered by an uploader before this one, whose last commit came after our start.
            let expected = shares::in_spool(tx, id)?;
            shares::leave_spool(tx, pack, index)?;
            Ok(expected)
        })
    })
    .await;
    match forgotten {
        Ok(Ok(true)) => {
            tracing::error!(share = %id, "a share was lost from the spool");
            shared.spool.remove(id);
            shared.tell(UploadEvent::SpoolLost { pack, share: id });
        }
        Ok(Ok(false)) => {}
        Ok(Err(error)) => tracing::error!(%error, share = %id, "a lost share could not be recorded"),
        Err(_) => return,
    }
    shared.lines().finished(Some(flight.peer), &flight.share);
    flight.has_landed = true;
}
