//! Sending: each peer has some lanes, which take turns at its line.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use proto::share::Share;
use proto::share_store::StoreError;
use tokio::time::Instant;

use crate::db::DbError;
use crate::packs::shares;
use crate::peers::{Peer, PeerKey};
use crate::uploader::lines::{Next, Ticket};
use crate::uploader::record::Delivery;
use crate::uploader::shared::{Shared, blocking};
use crate::uploader::{UploadError, UploadEvent, replan};

/// Sends what is in line for a peer until it leaves the set. May be aborted: a put is then repeated after the next start.
pub(super) async fn lane(shared: Arc<Shared>, key: PeerKey) {
    while let Some((peer, ticket)) = next(&shared, &key).await {
        send(&shared, &peer, ticket).await;
    }
}

/// The next share to send; `None` when the peer is gone.
async fn next(shared: &Shared, key: &PeerKey) -> Option<(Peer, Ticket)> {
    loop {
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let peer = shared.peers.get(key)?;
        let next = shared.lines().next(key, Instant::now());
        match next {
            Next::Send(ticket) => return Some((peer, ticket)),
            Next::WaitUntil(until) => {
                let _ = tokio::time::timeout_at(until, changed).await;
            }
            Next::Wait => changed.await,
        }
    }
}

async fn send(shared: &Arc<Shared>, peer: &Peer, ticket: Ticket) {
    let permit = shared.in_memory.acquire().await;
    let share = match load(shared, &ticket).await {
        Ok(Some(share)) => share,
        Ok(None) => return lost(shared, &peer.key, ticket).await,
        Err(error) => {
            tracing::warn!(%error, "a share cannot be read from the spool now");
            let error = StoreError::Unreachable {
                reason: error.to_string(),
            };
            return postpone(shared, &peer.key, &ticket, &error, Instant::now());
        }
    };
    let begun = Instant::now();
    let result = peer.store.put(ticket.id, share).await;
    drop(permit);
    match result {
        Ok(ack) => {
            shared.bytes_sent.fetch_add(ack.bytes_sent, Ordering::Relaxed);
            shared.lines().succeeded(&peer.key, Instant::now());
            let delivery = Delivery {
                peer: peer.key.clone(),
                ticket,
                bytes: ack.bytes_sent,
            };
            // Fails only when the uploader is being dropped; the share is then sent again after the next start.
            let _ = shared.delivered.send(delivery).await;
            shared.changed.notify_waiters();
        }
        Err(error) => failed(shared, &peer.key, ticket, error, begun).await,
    }
}

pub(super) async fn load(shared: &Arc<Shared>, ticket: &Ticket) -> Result<Option<Share>, UploadError> {
    let (spool, id) = (shared.spool.clone(), ticket.id);
    Ok(blocking(move || spool.read(id)).await??)
}

async fn failed(shared: &Arc<Shared>, peer: &PeerKey, ticket: Ticket, error: StoreError, begun: Instant) {
    tracing::debug!(peer = peer.0, share = %ticket.id, %error, "a share was not taken");
    shared.tell(UploadEvent::PeerFailed {
        peer: peer.clone(),
        error: error.clone(),
    });
    if may_pass(&error) {
        return postpone(shared, peer, &ticket, &error, begun);
    }
    shared.lines().refuse_share(peer, &ticket, &error);
    replan::homeless(shared).await;
}

/// Whether the same put may succeed later without anybody making space or changing a policy.
pub(super) fn may_pass(error: &StoreError) -> bool {
    matches!(error, StoreError::Unreachable { .. } | StoreError::Busy { .. })
}

pub(super) fn postpone(shared: &Shared, peer: &PeerKey, ticket: &Ticket, error: &StoreError, begun: Instant) {
    {
        let mut lines = shared.lines();
        lines.failed(peer, error, begun, Instant::now());
        lines.take_back(peer, ticket);
    }
    shared.changed.notify_waiters();
}

/// The spool does not have the share any more, or damaged.
async fn lost(shared: &Arc<Shared>, peer: &PeerKey, ticket: Ticket) {
    let (pack, index, id) = (ticket.pack, ticket.index, ticket.id);
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
    shared.lines().finished(peer, &ticket);
    shared.changed.notify_waiters();
}
