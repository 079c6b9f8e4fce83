//! Asking the steward: give it an order for a pack and the bytes that it lacks, then learn what it has brought to its peers.
//!
//! The steward's word counts for nothing; that a share is placed says the signature of the peer that has it (`Steward`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use database::DbError;
use proto::share_store::StoreError;
use tokio::time::Instant;

use crate::packs;
use crate::packs::shares::SpooledShare;
use crate::packs::{KnownPack, PackRow, shares};
use crate::peers::PeerKey;
use crate::steward::{PassState, StewardPeer};
use crate::uploader::held::{HeldShare, Moved};
use crate::uploader::lane;
use crate::uploader::shared::{Shared, blocking};
use crate::uploader::waiting::Waiting;
use crate::uploader::waiting::{Delivery, Way};

/// Packs that the steward is asked about at once. Chosen: two wait for its disk while others are on the line.
pub(super) const ASKING_MAX: usize = 4;

/// A pack as it stands in the database.
struct Standing {
    pack: KnownPack,
    /// Shares in the spool, with their peers, that the steward is to bring.
    targets: Vec<(u8, PeerKey)>,
    /// Shares that the steward itself has, or is to get by its own line.
    own: BTreeSet<u8>,
}

/// Asks about one pack after the other, until aborted. A put that was cut off goes on where it stopped.
pub(super) async fn pass(shared: Arc<Shared>) {
    loop {
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let now = Instant::now();
        let (idle, next, steward) = {
            let mut lines = shared.lines();
            let idle = lines.held.give_up_if_idle(now);
            (idle, lines.held.next(now), lines.held.steward())
        };
        send_directly(&shared, idle);
        match (next, steward) {
            (Ok(row), Some(steward)) => ask(&shared, &steward, row).await,
            (Ok(row), None) => send_directly(&shared, shared.lines().held.forget(row)),
            (Err(Some(until)), _) => {
                let _ = tokio::time::timeout_at(until, changed).await;
            }
            (Err(None), _) => changed.await,
        }
    }
}

fn send_directly(shared: &Shared, released: Vec<HeldShare>) {
    if released.is_empty() {
        return;
    }
    {
        let (mut lines, now) = (shared.lines(), Instant::now());
        for (peer, share) in released {
            lines.add(Some(&peer), share, now);
        }
    }
    shared.announce();
}

async fn ask(shared: &Arc<Shared>, steward: &StewardPeer, row: PackRow) {
    let error = match step(shared, steward, row).await {
        Ok(()) => return shared.changed.notify_waiters(),
        Err(error) => error,
    };
    tracing::debug!(%error, "the steward did not do as it was asked");
    let released = {
        let (mut lines, now) = (shared.lines(), Instant::now());
        lines.held.failed(row, now);
        match lane::may_pass(&error) {
            true => Vec::new(),
            false => lines.held.give_up(now),
        }
    };
    send_directly(shared, released);
    shared.changed.notify_waiters();
}

/// One question and what follows from the answer.
async fn step(shared: &Arc<Shared>, steward: &StewardPeer, row: PackRow) -> Result<(), StoreError> {
    let Some(standing) = standing(shared, steward, row).await? else {
        send_directly(shared, shared.lines().held.forget(row));
        return Ok(());
    };
    let manifest = &standing.pack.manifest;
    let answer = steward.steward.pass_on(manifest, &standing.targets).await;
    if standing.targets.is_empty() {
        // A steward that did not hear that the order is void finds everything signed for, and ends it.
        send_directly(shared, shared.lines().held.forget(row));
        return Ok(());
    }
    let state = answer?;
    let placed = record_placed(shared, &standing, &state).await;
    let failing = shared.lines().held.release(row, &state.failing);
    send_directly(shared, failing);
    let lacking = lacking(&standing, &state);
    let open = standing.targets.len() - placed;
    if lacking.len() >= open && open > 0 && placed == 0 && state.have.is_empty() {
        // Sending them directly costs no more.
        send_directly(shared, shared.lines().held.forget(row));
        return Ok(());
    }
    for index in &lacking {
        put(shared, steward, &standing, *index).await?;
    }
    let moved = match placed + lacking.len() {
        0 => Moved::No,
        _ => Moved::Yes,
    };
    shared.lines().held.asked(row, moved, Instant::now());
    Ok(())
}

/// Shares that the steward needs to have k of the pack: those it is to bring, first in the pack first.
fn lacking(standing: &Standing, state: &PassState) -> Vec<u8> {
    let has: BTreeSet<u8> = standing.own.iter().chain(&state.have).copied().collect();
    let needed = usize::from(standing.pack.manifest.shape.k).saturating_sub(has.len());
    let is_open = |index: &u8| !has.contains(index) && !state.placed.contains(index);
    let open = standing.targets.iter().map(|(index, _)| *index).filter(is_open);
    open.take(needed).collect()
}

/// `None`: there is no such pack any more.
async fn standing(shared: &Arc<Shared>, steward: &StewardPeer, row: PackRow) -> Result<Option<Standing>, StoreError> {
    let (of_db, steward) = (shared.clone(), steward.clone());
    let read = blocking(move || {
        of_db.db.read::<_, DbError>(|conn| {
            let Some(pack) = packs::get(conn, row)? else {
                return Ok(None);
            };
            let mut targets = shares::on_the_way(conn, row)?;
            targets.retain(|(_, peer)| *peer != steward.key && steward.steward.reaches(peer));
            targets.sort_unstable_by_key(|(index, _)| *index);
            let places = (0..).zip(shares::places(conn, row)?);
            let own = places.filter(|(_, peer)| peer.as_ref() == Some(&steward.key));
            Ok(Some(Standing {
                pack,
                targets,
                own: own.map(|(index, _)| index).collect(),
            }))
        })
    });
    read.await
        .map_err(|error| local(&error))?
        .map_err(|error| local(&error))
}

/// Hands on what peers have signed for; returns how many shares that were.
async fn record_placed(shared: &Shared, standing: &Standing, state: &PassState) -> usize {
    let mut placed = 0;
    for (index, peer) in &standing.targets {
        if !state.placed.contains(index) {
            continue;
        }
        placed += 1;
        let delivery = Delivery {
            peer: peer.clone(),
            share: waiting(standing, *index),
            bytes: 0,
            way: Way::Passed,
        };
        // Fails only when the uploader is being dropped; it is asked again after the next start.
        let _ = shared.delivered.send(delivery).await;
    }
    placed
}

fn waiting(standing: &Standing, index: u8) -> Waiting {
    let manifest = &standing.pack.manifest;
    Waiting::from(&SpooledShare {
        pack: standing.pack.row,
        index,
        id: manifest.shares[usize::from(index)],
        purpose: standing.pack.purpose,
        stored_bytes: manifest.shape.share.stored_bytes() as u64,
        planned: None,
    })
}

async fn put(shared: &Arc<Shared>, steward: &StewardPeer, standing: &Standing, index: u8) -> Result<(), StoreError> {
    let _permit = shared.in_memory.acquire().await;
    let waiting = waiting(standing, index);
    let Some(share) = lane::load(shared, &waiting).await.map_err(|error| local(&error))? else {
        // Delivered meanwhile, or lost: whoever sends it directly finds out.
        let released = shared.lines().held.release(waiting.pack, &[index]);
        send_directly(shared, released);
        return Ok(());
    };
    let bytes = steward.steward.put_to_pass(waiting.id, share).await?;
    shared.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
    shared.lines().held.took(Instant::now());
    Ok(())
}

/// Something of ours failed: it is tried again like a peer that fails.
fn local(error: &dyn std::error::Error) -> StoreError {
    StoreError::Unreachable {
        reason: error.to_string(),
    }
}
