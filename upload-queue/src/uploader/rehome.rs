//! Shares of a known pack that were built anew: into the spool, then to new places like any other share.

use std::sync::Arc;

use database::DbError;
use tokio::time::Instant;

use crate::packs;
use crate::packs::{PackRow, shares};
use crate::peers::PeerKey;
use crate::uploader::shared::{Shared, blocking};
use crate::uploader::waiting::Waiting;
use crate::uploader::{Rebuilt, UploadError};

/// See `Uploader::rehome`.
pub(super) async fn rehome(shared: Arc<Shared>, pack: PackRow, rebuilt: Vec<Rebuilt>) -> Result<usize, UploadError> {
    let of_disk = shared.clone();
    let waiting = blocking(move || spool_and_record(&of_disk, pack, &rebuilt)).await??;
    let taken = waiting.len();
    {
        let (mut lines, now) = (shared.lines(), Instant::now());
        for (peer, share) in waiting {
            lines.add(Some(&peer), share, now);
        }
    }
    shared.announce();
    Ok(taken)
}

/// As with a new pack: the files are durable before the transaction names them, and those it does not name go again.
fn spool_and_record(
    shared: &Shared,
    pack: PackRow,
    rebuilt: &[Rebuilt],
) -> Result<Vec<(PeerKey, Waiting)>, UploadError> {
    let files: Vec<_> = rebuilt.iter().map(|share| (share.id, share.share.clone())).collect();
    shared.spool.write(&files)?;
    let recorded = shared.db.write::<_, DbError>(|tx| {
        let Some(known) = packs::get(tx, pack)? else {
            return Ok(Vec::new());
        };
        let mut waiting = Vec::with_capacity(rebuilt.len());
        for share in rebuilt {
            if known.manifest.shares.get(usize::from(share.index)) != Some(&share.id) {
                continue;
            }
            if shares::respool(tx, pack, share.index, &share.to)? {
                let spooled = shares::SpooledShare {
                    pack,
                    index: share.index,
                    id: share.id,
                    purpose: known.purpose,
                    stored_bytes: share.share.stored_bytes() as u64,
                    planned: Some(share.to.clone()),
                };
                waiting.push((share.to.clone(), Waiting::from(&spooled)));
            }
        }
        Ok(waiting)
    });
    let unnamed = shared.db.read::<_, DbError>(|conn| {
        let named = |id| shares::in_spool(conn, id);
        files
            .iter()
            .map(|(id, _)| Ok((*id, named(*id)?)))
            .collect::<Result<Vec<_>, DbError>>()
    })?;
    for (id, _) in unnamed.into_iter().filter(|(_, named)| !named) {
        shared.spool.remove(id);
    }
    Ok(recorded?)
}
