//! Telling peers what is no longer wanted, and taking it back: the exchange of the live set.
//!
//! The catalog knows which packs are wanted (`catalog::content::live`). A peer lists what it holds, batch by batch; what belongs
//! to a dead pack is given up in signed discards. Shares of packs that the catalog does not know are left alone: they may be
//! another device's. Everything may be cut off and repeated.

use std::collections::HashSet;
use std::sync::Arc;

use database::{Db, DbError};
use proto::id::ShareId;
use proto::share_store::StoreError;
use upload_queue::packs;
use upload_queue::packs::PackRow;
use upload_queue::peers::Peer;
use upload_queue::peers::batches::{Batches, Shelf};

/// What an exchange with one peer came to.
#[derive(Debug)]
pub struct Exchange {
    /// The peer's name for people.
    pub peer: String,
    /// Shares moved to or out of its trash.
    pub shares: u64,
    /// Bytes of their stored forms.
    pub bytes: u64,
    /// Why it ended early; what was done is done.
    pub failed: Option<StoreError>,
}

/// The catalog failed.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The database said no.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A worker thread ended without an answer.
    #[error("A thread of the pruning ended: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// Which shares an exchange is about.
#[derive(Clone)]
enum Aim {
    /// Those of dead packs that are kept.
    Dead,
    /// Those in the trash of packs that are wanted, or are to be again.
    Wanted(Arc<HashSet<PackRow>>),
}

/// Has every peer move the shares of dead packs to its trash. Only to be called when the newest head that peers have says
/// that the snapshots which wanted them are forgotten.
pub async fn discard_dead(db: &Db, peers: &[Peer]) -> Result<Vec<Exchange>, PruneError> {
    exchange(db, peers, Aim::Dead).await
}

/// Takes the shares of packs that are wanted, and of the dead ones among `reviving`, out of every peer's trash, and records
/// who has them.
pub async fn recall_wanted(db: &Db, peers: &[Peer], reviving: &HashSet<PackRow>) -> Result<Vec<Exchange>, PruneError> {
    exchange(db, peers, Aim::Wanted(Arc::new(reviving.clone()))).await
}

async fn exchange(db: &Db, peers: &[Peer], aim: Aim) -> Result<Vec<Exchange>, PruneError> {
    let exchanges = peers.iter().map(|peer| with_peer(db, peer, &aim));
    futures::future::try_join_all(exchanges).await
}

async fn with_peer(db: &Db, peer: &Peer, aim: &Aim) -> Result<Exchange, PruneError> {
    let mut exchange = Exchange {
        peer: peer.name.clone(),
        shares: 0,
        bytes: 0,
        failed: None,
    };
    let shelf = match aim {
        Aim::Dead => Shelf::Kept,
        Aim::Wanted(_) => Shelf::Trash,
    };
    let mut batches = Batches::new(&*peer.store, shelf);
    loop {
        let batch = match batches.next().await {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(exchange),
            Err(error) => {
                exchange.failed = Some(error);
                return Ok(exchange);
            }
        };
        let (mut ids, bytes) = picked(db, batch, aim).await?;
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            continue;
        }
        match carry_out(db, peer, ids, aim).await? {
            Ok(count) => {
                exchange.shares += u64::from(count);
                exchange.bytes += bytes;
            }
            Err(error) => {
                exchange.failed = Some(error);
                return Ok(exchange);
            }
        }
    }
}

/// Of a batch, the shares that the exchange is about, and their bytes.
async fn picked(db: &Db, batch: Vec<ShareId>, aim: &Aim) -> Result<(Vec<ShareId>, u64), PruneError> {
    let (db, aim) = (db.clone(), aim.clone());
    let picking = move || {
        db.read(|conn| {
            let (mut ids, mut bytes) = (Vec::new(), 0);
            for id in batch {
                let Some(known) = packs::share_of(conn, id)? else {
                    continue;
                };
                let is_meant = match &aim {
                    Aim::Dead => known.dead,
                    Aim::Wanted(reviving) => !known.dead || reviving.contains(&known.pack),
                };
                if is_meant {
                    ids.push(id);
                    bytes += known.stored_bytes;
                }
            }
            Ok::<_, DbError>((ids, bytes))
        })
    };
    Ok(tokio::task::spawn_blocking(picking).await??)
}

async fn carry_out(db: &Db, peer: &Peer, ids: Vec<ShareId>, aim: &Aim) -> Result<Result<u32, StoreError>, PruneError> {
    let (db, key) = (db.clone(), peer.key.clone());
    match aim {
        Aim::Dead => {
            // First the catalog: a share that it believes to be there and that is not would be counted as safe.
            let lost = ids.clone();
            let recording = move || db.write(|tx| lost.iter().try_for_each(|id| packs::record_missing(tx, &key, *id)));
            tokio::task::spawn_blocking(recording).await??;
            Ok(peer.store.discard(ids).await)
        }
        Aim::Wanted(_) => match peer.store.recall(ids).await {
            Ok(held) => {
                let count = held.len() as u32;
                let recording = move || db.write(|tx| packs::record_held(tx, &key, &held));
                tokio::task::spawn_blocking(recording).await??;
                Ok(Ok(count))
            }
            Err(error) => Ok(Err(error)),
        },
    }
}
