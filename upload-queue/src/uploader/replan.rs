//! Finding another peer for shares whose peer takes no more, is gone, or never was.

use std::sync::Arc;

use crate::db::DbError;
use crate::packs::{PackRow, shares};
use crate::peers::PeerKey;
use crate::placement;
use crate::uploader::lines::Ticket;
use crate::uploader::shared::{Shared, blocking};

/// Plans shares anew that have no peer, or one that has left the set: to a domain that has no share of the pack, if any
/// peer there takes it; else they wait for one. May be dropped only with the whole uploader.
pub(super) async fn homeless(shared: &Arc<Shared>) {
    let peers = shared.peers.all();
    let tickets = shared.lines().take_homeless(&peers);
    if tickets.is_empty() {
        return;
    }
    let (of_db, of_tickets) = (shared.clone(), tickets.clone());
    let planned = blocking(move || {
        of_db.db.write::<_, DbError>(|tx| {
            let mut planned = Vec::with_capacity(of_tickets.len());
            for ticket in &of_tickets {
                let peer = other_peer(&of_db, ticket, shares::places(tx, ticket.pack)?);
                shares::set_planned(tx, ticket.pack, ticket.index, peer.as_ref())?;
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
        let mut lines = shared.lines();
        let planned = planned.iter().map(Option::as_ref).chain(std::iter::repeat(None));
        for (ticket, peer) in tickets.into_iter().zip(planned) {
            lines.add(peer, ticket);
        }
    }
    shared.changed.notify_waiters();
}

/// A peer for one share of a pack whose others are, or are to be, at `places`.
fn other_peer(shared: &Shared, ticket: &Ticket, mut places: Vec<Option<PeerKey>>) -> Option<PeerKey> {
    if let Some(own) = places.get_mut(usize::from(ticket.index)) {
        *own = None;
    }
    let mut shares: Vec<_> = places.into_iter().filter(Option::is_some).collect();
    shares.push(None);
    let peers = shared.peers.all();
    let candidates = shared.lines().candidates(&peers, ticket.stored_bytes);
    placement::plan(&shares, &candidates, seed(ticket.pack)).pop().flatten()
}

fn seed(pack: PackRow) -> u64 {
    (pack.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
