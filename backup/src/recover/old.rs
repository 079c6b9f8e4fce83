//! Heads that peers replaced: asked for batch by batch, never more than a peer can have, nor for longer than saying so takes.
//!
//! Each head is signed: what came before a peer fell silent, or lied, is as good as any.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use proto::id::HeadHash;
use proto::keys::AccountKeys;
use proto::share_store::{OLD_HEADS_MAX, StoreError};
use tokio::time::Instant;
use upload_queue::peers::Peer;

use super::PATIENCE;
use crate::heads::OpenHead;

/// Most batches that one peer is asked for. Chosen: a month of all places that a store has for devices, and as many again that gave way.
const BATCHES_MAX: usize = 128;
/// How long a peer may take for all of them. Chosen: it is asked when something is wrong, and somebody waits.
const TIME_MAX: Duration = Duration::from_secs(180);

/// A head that peers replaced.
#[derive(Clone, Debug)]
pub(super) struct OldHead {
    pub(super) open: OpenHead,
    /// It is at least so many days old, as the peer counts that says most.
    pub(super) age_days: u16,
}

/// All that peers have, each head once.
pub(super) async fn ask(peers: &[Peer], keys: &AccountKeys) -> Vec<OldHead> {
    let answers = join_all(peers.iter().map(|peer| ask_one(peer, keys))).await;
    let mut all: HashMap<HeadHash, OldHead> = HashMap::new();
    for old in answers.into_iter().flatten() {
        let known = all.entry(old.open.hash).or_insert_with(|| old.clone());
        known.age_days = known.age_days.max(old.age_days);
    }
    all.into_values().collect()
}

async fn ask_one(peer: &Peer, keys: &AccountKeys) -> Vec<OldHead> {
    let (mut old, mut after, until) = (Vec::new(), None, Instant::now() + TIME_MAX);
    for _ in 0..BATCHES_MAX {
        let asked = peer.store.old_heads(keys.account_id(), after);
        let deadline = until.min(Instant::now() + PATIENCE);
        let late = StoreError::Unreachable {
            reason: "no answer in time".to_owned(),
        };
        let batch = tokio::time::timeout_at(deadline, asked).await.unwrap_or(Err(late));
        let batch = match batch {
            Ok(batch) if batch.heads.len() <= OLD_HEADS_MAX => batch,
            Ok(_) => return old,
            Err(error) => {
                tracing::warn!("{} was asked for older backups: {error}", peer.name);
                return old;
            }
        };
        old.extend(batch.heads.iter().filter_map(|head| {
            let open = OpenHead::open(&head.encoded, keys).ok()?;
            let age_days = head.age_days;
            Some(OldHead { open, age_days })
        }));
        match batch.next {
            Some(next) if after.is_none_or(|after| after < next) => after = Some(next),
            _ => return old,
        }
    }
    tracing::warn!(
        "{} has more older backups than anybody keeps: the rest is left out",
        peer.name
    );
    old
}

#[cfg(test)]
mod tests;
