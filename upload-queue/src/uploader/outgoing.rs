//! A new pack's way into the database: local peers first, the rest into the spool, then one transaction.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use database::DbError;
use futures::future::join_all;
use proto::share_store::{PutAck, StoreError};
use rusqlite::Transaction;
use tokio::time::Instant;

use crate::packs::shares::{NewShare, SpooledShare};
use crate::packs::{PackRow, Purpose, shares};
use crate::peers::{Peer, PeerKey, Reach};
use crate::uploader::room::Incoming;
use crate::uploader::shared::{Shared, blocking};
use crate::uploader::waiting::Waiting;
use crate::uploader::{OutgoingPack, UploadError, UploadEvent, lane, room};
use crate::{packs, placement};

/// Where a share of the pack stands before it is recorded.
#[derive(Clone, Default)]
struct Place {
    peer: Option<PeerKey>,
    /// By the peer's acknowledgement; else the share goes into the spool.
    held: bool,
}

/// See `Uploader::deliver`.
pub(super) async fn deliver<F>(shared: Arc<Shared>, pack: OutgoingPack, with_pack: F) -> Result<PackRow, UploadError>
where
    F: FnOnce(&Transaction<'_>, PackRow) -> Result<(), DbError> + Send + 'static,
{
    if pack.purpose != Purpose::Metadata {
        room::room(&shared, &pack).await?;
    }
    let _incoming = Incoming::new(&shared, &pack);
    let (places, acks) = put_local(&shared, &pack).await;
    let stored_bytes = pack.manifest.shape.share.stored_bytes() as u64;
    let of_disk = shared.clone();
    let (row, safe, waiting) = blocking(move || spool_and_record(&of_disk, &pack, &places, with_pack)).await??;
    {
        let (mut lines, now) = (shared.lines(), Instant::now());
        for (peer, share) in waiting {
            lines.add_new(peer.as_ref(), share, now);
        }
    }
    shared.announce();
    for (peer, ack) in acks {
        shared.bytes_sent.fetch_add(ack.bytes_sent, Ordering::Relaxed);
        shared.delivered_bytes.fetch_add(stored_bytes, Ordering::Relaxed);
        shared.tell(UploadEvent::Delivered {
            peer,
            bytes: ack.bytes_sent,
        });
    }
    if safe {
        shared.tell(UploadEvent::PackSafe { pack: row });
    }
    Ok(row)
}

/// Plans all shares and puts those for local peers, in parallel; as long as one fails, plans anew without it.
async fn put_local(shared: &Arc<Shared>, pack: &OutgoingPack) -> (Vec<Place>, Vec<(PeerKey, PutAck)>) {
    let seed = u64::from_le_bytes(pack.manifest.pack.0[..8].try_into().expect("an id is longer"));
    let stored_bytes = pack.manifest.shape.share.stored_bytes() as u64;
    let mut places = vec![Place::default(); pack.shares.len()];
    let mut acks = Vec::new();
    let mut failed: HashSet<PeerKey> = HashSet::new();
    loop {
        let peers = shared.peers.all();
        let mut candidates = shared.lines().candidates(&peers, stored_bytes, Instant::now());
        for candidate in candidates
            .iter_mut()
            .filter(|candidate| failed.contains(&candidate.key))
        {
            candidate.free_bytes = Some(0);
        }
        let held: Vec<_> = places
            .iter()
            .map(|place| place.peer.clone().filter(|_| place.held))
            .collect();
        for (place, peer) in places.iter_mut().zip(placement::plan(&held, &candidates, seed)) {
            place.peer = peer;
        }
        let local = |key: &PeerKey| peers.iter().find(|peer| peer.key == *key && peer.reach == Reach::Local);
        let puts = places.iter().enumerate().filter(|(_, place)| !place.held);
        let puts = puts.filter_map(|(index, place)| Some((index, local(place.peer.as_ref()?)?)));
        let results = join_all(puts.map(|(index, peer)| put_one(shared, pack, index, peer))).await;
        let failed_before = failed.len();
        for (index, peer, result) in results {
            match result {
                Ok(ack) => {
                    places[index].held = true;
                    acks.push((peer, ack));
                }
                Err(_) => {
                    failed.insert(peer);
                }
            }
        }
        if failed.len() == failed_before {
            return (places, acks);
        }
    }
}

async fn put_one(
    shared: &Shared,
    pack: &OutgoingPack,
    index: usize,
    peer: &Peer,
) -> (usize, PeerKey, Result<PutAck, StoreError>) {
    let begun = Instant::now();
    let (id, share) = pack.shares[index].clone();
    let result = lane::put(peer, id, share).await;
    let now = Instant::now();
    match &result {
        Ok(_) => shared.lines().succeeded(&peer.key, now),
        Err(error) => {
            tracing::debug!(peer = peer.key.0, %error, "a local peer did not take a share");
            shared.tell(UploadEvent::PeerFailed {
                peer: peer.key.clone(),
                error: error.clone(),
            });
            if lane::may_pass(error) {
                shared.lines().failed(&peer.key, error, begun, now);
            } else {
                // What waits for it in the spool is planned anew by the supervisor.
                shared.lines().refuse(&peer.key, error, now);
                shared.woken.notify_one();
            }
        }
    }
    (index, peer.key.clone(), result)
}

/// Row, whether it is safe already, and what is now in the spool for whom.
type Recorded = (PackRow, bool, Vec<(Option<PeerKey>, Waiting)>);

/// The spool files are durable before the transaction names them; without the transaction they go again.
fn spool_and_record(
    shared: &Shared,
    pack: &OutgoingPack,
    places: &[Place],
    with_pack: impl FnOnce(&Transaction<'_>, PackRow) -> Result<(), DbError>,
) -> Result<Recorded, UploadError> {
    // A copy that has no place yet is made from another one when there is: it need not wait here until then.
    let is_copy = pack.manifest.shape.k == 1 && places.iter().any(|place| place.peer.is_some());
    let waits = |place: &Place| !(place.held || is_copy && place.peer.is_none());
    let waiting = pack.shares.iter().zip(places).filter(|(_, place)| waits(place));
    let files: Vec<_> = waiting.map(|(share, _)| share.clone()).collect();
    if !files.is_empty() {
        shared.spool.write(&files)?;
    }
    let recorded = shared.db.write::<_, DbError>(|tx| {
        let row = shares::insert_pack(tx, &pack.record, &pack.manifest, pack.purpose)?;
        let mut waiting = Vec::with_capacity(files.len());
        for (index, ((id, share), place)) in pack.shares.iter().zip(places).enumerate() {
            let new = NewShare {
                id: *id,
                planned: place.peer.clone(),
                held: place.held,
                spooled: waits(place),
            };
            shares::insert(tx, row, index, &new)?;
            if waits(place) {
                let spooled = SpooledShare {
                    pack: row,
                    index: index as u8, // a pack has at most 255 shares: n is a u8
                    id: *id,
                    purpose: pack.purpose,
                    stored_bytes: share.stored_bytes() as u64,
                    planned: place.peer.clone(),
                };
                waiting.push((place.peer.clone(), Waiting::from(&spooled)));
            }
        }
        with_pack(tx, row)?;
        Ok((row, packs::is_safe(tx, row, shared.tolerate())?, waiting))
    });
    if recorded.is_err() {
        for (id, _) in &files {
            shared.spool.remove(*id);
        }
    }
    Ok(recorded?)
}
