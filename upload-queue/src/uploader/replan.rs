//! Finding another peer for shares whose peer takes no more, is gone, or never was.

use std::sync::Arc;

use tokio::time::Instant;

use crate::packs::{PackRow, shares};
use crate::peers::PeerKey;
use crate::placement;
use crate::uploader::shared::{Shared, blocking};
use crate::uploader::ticket::Ticket;
use database::DbError;

/// Plans shares anew that have no peer, or one that has left the set: to a domain that has no share of the pack, if any
/// peer there takes it; else they wait for one. May be dropped: somebody else then plans them.
pub(super) async fn homeless(shared: &Arc<Shared>) {
    let peers = shared.peers.all();
    let mut moving = Moving::new(shared, shared.lines().take_homeless(&peers));
    if moving.tickets.is_empty() {
        return;
    }
    let (of_db, of_tickets) = (shared.clone(), moving.tickets.clone());
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
        let (mut lines, now) = (shared.lines(), Instant::now());
        let planned = planned.iter().map(Option::as_ref).chain(std::iter::repeat(None));
        for (ticket, peer) in moving.take().into_iter().zip(planned) {
            lines.add(peer, ticket, now);
        }
    }
    shared.announce();
}

/// Tickets that somebody works on. Should the work be dropped, they are homeless again instead of nobody's.
pub(super) struct Moving<'a> {
    shared: &'a Shared,
    pub(super) tickets: Vec<Ticket>,
}

impl<'a> Moving<'a> {
    pub(super) fn new(shared: &'a Shared, tickets: Vec<Ticket>) -> Self {
        Self { shared, tickets }
    }

    /// They have a place, or are about to be given one without a pause.
    pub(super) fn take(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.tickets)
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        if self.tickets.is_empty() {
            return;
        }
        {
            let mut lines = self.shared.lines();
            self.tickets.drain(..).for_each(|ticket| lines.put_down(ticket));
        }
        self.shared.announce();
    }
}

/// A peer for one share of a pack whose others are, or are to be, at `places`.
fn other_peer(shared: &Shared, ticket: &Ticket, mut places: Vec<Option<PeerKey>>) -> Option<PeerKey> {
    if let Some(own) = places.get_mut(usize::from(ticket.index)) {
        *own = None;
    }
    let mut shares: Vec<_> = places.into_iter().filter(Option::is_some).collect();
    shares.push(None);
    let peers = shared.peers.all();
    let candidates = shared.lines().candidates(&peers, ticket.stored_bytes, Instant::now());
    placement::plan(&shares, &candidates, seed(ticket.pack)).pop().flatten()
}

fn seed(pack: PackRow) -> u64 {
    (pack.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
