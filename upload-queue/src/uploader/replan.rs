//! Finding another peer for shares whose peer takes no more, is gone, or never was.

use std::sync::Arc;

use database::DbError;
use tokio::time::Instant;

use crate::packs::{PackRow, shares};
use crate::peers::PeerKey;
use crate::placement;
use crate::uploader::shared::{Shared, blocking};
use crate::uploader::waiting::Waiting;

/// Plans shares anew that have no peer, or one that has left the set: to a domain that has no share of the pack, if any
/// peer there takes it; else they wait for one. May be dropped: somebody else then plans them.
pub(super) async fn homeless(shared: &Arc<Shared>) {
    let peers = shared.peers.all();
    let mut moving = Moving::new(shared, shared.lines().take_homeless(&peers));
    if moving.waiting.is_empty() {
        return;
    }
    let (of_db, of_waiting) = (shared.clone(), moving.waiting.clone());
    let planned = blocking(move || {
        of_db.db.write::<_, DbError>(|tx| {
            let mut planned = Vec::with_capacity(of_waiting.len());
            for share in &of_waiting {
                let peer = other_peer(&of_db, share, shares::places(tx, share.pack)?);
                shares::set_planned(tx, share.pack, share.index, peer.as_ref())?;
                planned.push(peer);
            }
            Ok(planned)
        })
    })
    .await;
    let planned = planned.unwrap_or_else(|_| Ok(Vec::new())).unwrap_or_else(|error| {
        tracing::error!(%error, "shares could not be planned anew");
        Vec::new()
    });
    {
        let (mut lines, now) = (shared.lines(), Instant::now());
        let planned = planned.iter().map(Option::as_ref).chain(std::iter::repeat(None));
        for (share, peer) in moving.take().into_iter().zip(planned) {
            lines.add(peer, share, now);
        }
    }
    shared.announce();
}

/// Waiting shares that somebody works on. Should the work be dropped, they are homeless again instead of nobody's.
pub(super) struct Moving<'a> {
    shared: &'a Shared,
    pub(super) waiting: Vec<Waiting>,
}

impl<'a> Moving<'a> {
    pub(super) fn new(shared: &'a Shared, waiting: Vec<Waiting>) -> Self {
        Self { shared, waiting }
    }

    /// They have a place, or are about to be given one without a pause.
    pub(super) fn take(&mut self) -> Vec<Waiting> {
        std::mem::take(&mut self.waiting)
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        {
            let mut lines = self.shared.lines();
            self.waiting.drain(..).for_each(|share| lines.put_down(share));
        }
        self.shared.announce();
    }
}

/// A peer for one share of a pack whose others are, or are to be, at `places`.
fn other_peer(shared: &Shared, share: &Waiting, mut places: Vec<Option<PeerKey>>) -> Option<PeerKey> {
    if let Some(own) = places.get_mut(usize::from(share.index)) {
        *own = None;
    }
    let mut shares: Vec<_> = places.into_iter().filter(Option::is_some).collect();
    shares.push(None);
    let peers = shared.peers.all();
    let candidates = shared.lines().candidates(&peers, share.stored_bytes, Instant::now());
    placement::plan(&shares, &candidates, seed(share.pack)).pop().flatten()
}

fn seed(pack: PackRow) -> u64 {
    (pack.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
