//! Room in the spool for a new pack: waiting for it, and what gives way when peers that are absent would hold up the others.
//!
//! What gives way is a share of a pack that can be read from its other holders. It is owed all the same: its pack has a
//! holder fewer than it should have, counts as unsafe where that matters, and repair builds the share anew.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use database::DbError;
use tokio::time::Instant;

use crate::packs;
use crate::packs::{PackRow, shares};
use crate::peers::{PeerKey, Reach};
use crate::uploader::lines::Lines;
use crate::uploader::replan::Moving;
use crate::uploader::shared::{Shared, blocking};
use crate::uploader::waiting::Waiting;
use crate::uploader::{LOOK_AGAIN, OutgoingPack, UploadError, UploadEvent};

/// What gives way leaves so much of the limit free (1 / so many). Chosen: packs go on for a while until it is done again.
const FREED_PART: u64 = 4;

/// Waits until the spool is under its limit and its disk has room for a pack. When nothing goes out any more, what waits for
/// absent peers gives way to packs that the others take; where that is not enough, or nobody takes them, it fails.
pub(super) async fn room(shared: &Arc<Shared>, pack: &OutgoingPack) -> Result<(), UploadError> {
    let pack_bytes = spooled_bytes(shared, pack);
    let mut mark = None;
    loop {
        shared.go_on()?;
        let free_bytes = shared.spool.free_bytes(shared.config.min_free)?;
        let (is_quiet, lacking) = {
            let mut lines = shared.lines();
            let now = Instant::now();
            let lacking = Lacking::new(shared, &lines, free_bytes, pack_bytes);
            let Some(lacking) = lacking else {
                return Ok(());
            };
            let first = mark.is_none();
            let mark = mark.get_or_insert_with(|| lines.mark(now));
            if first {
                shared.woken.notify_one(); // what has no peer may get one
            }
            let is_quiet = !first && lines.incoming_bytes == 0 && lines.is_quiet(mark, |_| true, now);
            (is_quiet, lacking)
        };
        if is_quiet && give_way(shared, lacking.bytes).await? == 0 {
            return Err(lacking.error(shared));
        }
        if !is_quiet {
            shared.change(Some(Instant::now() + LOOK_AGAIN)).await;
        }
    }
}

/// What the spool lacks for another pack.
struct Lacking {
    bytes: u64,
    /// Of the disk, if that is what is short: what is left, and what is needed.
    disk: Option<(u64, u64)>,
}

impl Lacking {
    fn new(shared: &Shared, lines: &Lines, free_bytes: u64, pack_bytes: u64) -> Option<Self> {
        // What is under way is not on the disk yet; the catalog needs some, too: chosen, as much as a pack.
        let needed_bytes = lines.incoming_bytes + 2 * pack_bytes;
        let bytes_max = shared.config.spool_bytes_max;
        let over = (lines.spool_bytes() + 1).saturating_sub(bytes_max);
        if free_bytes < needed_bytes {
            return Some(Self {
                bytes: (needed_bytes - free_bytes).max(over),
                disk: Some((free_bytes, needed_bytes)),
            });
        }
        (over > 0).then(|| Self {
            bytes: over + bytes_max / FREED_PART,
            disk: None,
        })
    }

    fn error(&self, shared: &Shared) -> UploadError {
        let path = shared.config.spool.display().to_string();
        match self.disk {
            Some((free_bytes, needed_bytes)) => UploadError::DiskFull {
                path,
                free_bytes,
                needed_bytes,
            },
            None => UploadError::Stalled {
                path,
                bytes_max: shared.config.spool_bytes_max,
            },
        }
    }
}

/// What of a pack goes into the spool: local peers take theirs directly.
fn spooled_bytes(shared: &Shared, pack: &OutgoingPack) -> u64 {
    let (peers, now) = (shared.peers.all(), Instant::now());
    let share_bytes = pack.manifest.shape.share.stored_bytes() as u64;
    let candidates = shared.lines().candidates(&peers, share_bytes, now);
    let takes = |key: &PeerKey| {
        let candidate = candidates.iter().find(|candidate| candidate.key == *key);
        candidate.is_some_and(|candidate| candidate.free_bytes != Some(0))
    };
    let local = peers
        .iter()
        .filter(|peer| peer.reach == Reach::Local && takes(&peer.key));
    pack.shares.len().saturating_sub(local.count()) as u64 * share_bytes
}

/// Lets shares for absent peers go from the spool, at least `bytes` of them if there are as many; returns how many went.
/// First those of packs that are safe without them, and of each kind those that have waited longest.
async fn give_way(shared: &Arc<Shared>, bytes: u64) -> Result<usize, UploadError> {
    let absent = {
        let peers = shared.peers.all();
        shared.lines().take_absent(&peers, shared.tolerate(), Instant::now())
    };
    let mut moving = Moving::new(shared, absent.iter().map(|(_, share)| share.clone()).collect());
    let (of_db, of_waiting) = (shared.clone(), moving.waiting.clone());
    let gone = blocking(move || let_go(&of_db, of_waiting, bytes)).await??;
    let mut counts: HashMap<Option<&PeerKey>, u64> = HashMap::new();
    {
        let (mut lines, now) = (shared.lines(), Instant::now());
        moving.take();
        for (peer, share) in &absent {
            match gone.contains(share) {
                true => {
                    *counts.entry(peer.as_ref()).or_default() += 1;
                    lines.finished(peer.as_ref(), share);
                }
                false => lines.add(peer.as_ref(), share.clone(), now),
            }
        }
    }
    shared.gave_way.fetch_add(gone.len() as u64, Ordering::Relaxed);
    for (peer, shares) in counts {
        let peer = peer.cloned();
        shared.tell(UploadEvent::GaveWay { peer, shares });
    }
    shared.announce();
    Ok(gone.len())
}

/// The rows say first that a share is not in the spool; a file that stays after that is swept at the next start.
fn let_go(shared: &Shared, mut waiting: Vec<Waiting>, bytes: u64) -> Result<Vec<Waiting>, DbError> {
    let gone = shared.db.write_durable::<_, DbError>(|tx| {
        let mut surplus: HashMap<PackRow, i64> = HashMap::new();
        for share in &waiting {
            if let Entry::Vacant(unknown) = surplus.entry(share.pack) {
                unknown.insert(packs::surplus(tx, share.pack)?);
            }
        }
        let of = |share: &Waiting| surplus.get(&share.pack).copied().unwrap_or(-1);
        waiting.retain(|share| of(share) >= 0);
        waiting.sort_by_key(|share| (of(share) < i64::from(shared.tolerate()), share.pack_order()));
        let mut freed = 0;
        let enough = |share: &&Waiting| {
            let is_needed = freed < bytes;
            freed += share.stored_bytes;
            is_needed
        };
        let gone: Vec<Waiting> = waiting.iter().take_while(enough).cloned().collect();
        for share in &gone {
            shares::set_planned(tx, share.pack, share.index, None)?;
            shares::leave_spool(tx, share.pack, share.index)?;
        }
        Ok(gone)
    })?;
    let named = |share: &Waiting| shared.db.read::<_, DbError>(|conn| shares::in_spool(conn, share.id));
    for share in &gone {
        if !named(share)? {
            shared.spool.remove(share.id);
        }
    }
    Ok(gone)
}

/// Bytes that count as spooled while a pack is being delivered.
pub(super) struct Incoming<'a>(&'a Shared, u64);

impl<'a> Incoming<'a> {
    pub(super) fn new(shared: &'a Shared, pack: &OutgoingPack) -> Self {
        let bytes = spooled_bytes(shared, pack);
        shared.lines().incoming_bytes += bytes;
        Self(shared, bytes)
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        self.0.lines().incoming_bytes -= self.1;
        self.0.changed.notify_waiters();
    }
}
