//! Writing down what arrived, many deliveries in one commit, before their spool files go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use database::DbError;
use proto::id::ShareId;
use proto::share_store::StoreError;
use rusqlite::Transaction;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::packs;
use crate::packs::{PackRow, shares};
use crate::uploader::UploadEvent;
use crate::uploader::shared::{Shared, blocking};
use crate::uploader::waiting::{Delivery, Way};

/// Most deliveries in one transaction.
const BATCH_MAX: usize = 64;

/// What a transaction found out.
struct Recorded {
    safe: BTreeSet<PackRow>,
    /// Spool files that no row names any more.
    unnamed: BTreeSet<ShareId>,
}

/// Records deliveries until the uploader is dropped. While one commit is synced, the next batch gathers.
pub(super) async fn record(shared: Arc<Shared>, mut deliveries: mpsc::Receiver<Delivery>) {
    let mut batch = Vec::new();
    while deliveries.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let begun = Instant::now();
        let batch = std::mem::take(&mut batch);
        let (of_db, of_batch) = (shared.clone(), batch.clone());
        let recorded = blocking(move || {
            let tolerate = of_db.tolerate();
            let recorded = of_db.db.write_durable(|tx| store(tx, &of_batch, tolerate))?;
            for id in &recorded.unnamed {
                of_db.spool.remove(*id);
            }
            Ok::<_, DbError>(recorded)
        });
        match recorded.await {
            Ok(Ok(recorded)) => finish(&shared, batch, recorded),
            Ok(Err(error)) => {
                // The puts are repeated, at no cost: the peers have the shares.
                tracing::error!(%error, "deliveries could not be recorded");
                let error = StoreError::Unreachable {
                    reason: error.to_string(),
                };
                {
                    let (mut lines, now) = (shared.lines(), Instant::now());
                    for delivery in batch {
                        lines.failed(&delivery.peer, &error, begun, now);
                        lines.take_back(&delivery.peer, &delivery.share, now);
                    }
                }
                shared.announce();
            }
            Err(_) => return,
        }
    }
}

fn store(tx: &Transaction<'_>, batch: &[Delivery], tolerate: u8) -> Result<Recorded, DbError> {
    let mut recorded = Recorded {
        safe: BTreeSet::new(),
        unnamed: BTreeSet::new(),
    };
    for Delivery { peer, share, .. } in batch {
        let before = packs::is_safe(tx, share.pack, tolerate)?;
        shares::record_delivered(tx, share.pack, share.index, peer)?;
        if !before && packs::is_safe(tx, share.pack, tolerate)? {
            recorded.safe.insert(share.pack);
        }
        if !shares::in_spool(tx, share.id)? {
            recorded.unnamed.insert(share.id);
        }
    }
    Ok(recorded)
}

fn finish(shared: &Shared, batch: Vec<Delivery>, recorded: Recorded) {
    {
        let (mut lines, now) = (shared.lines(), Instant::now());
        for delivery in &batch {
            lines.finished(Some(&delivery.peer), &delivery.share);
            if delivery.way == Way::Sent {
                lines.succeeded(&delivery.peer, now);
            }
        }
    }
    shared.changed.notify_waiters();
    for Delivery { peer, bytes, share, .. } in batch {
        shared.delivered_bytes.fetch_add(share.stored_bytes, Ordering::Relaxed);
        shared.tell(UploadEvent::Delivered { peer, bytes });
    }
    for pack in recorded.safe {
        shared.tell(UploadEvent::PackSafe { pack });
    }
}
