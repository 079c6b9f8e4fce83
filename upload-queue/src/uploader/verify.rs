//! Does the spool have what the database says: a share that it lost is on no way to anybody, and must not count as if it were.

use crate::packs;
use crate::packs::shares;
use crate::packs::shares::SpooledShare;
use crate::spool::Spool;
use crate::uploader::shared::Shared;
use crate::uploader::{UploadError, UploadEvent};
use database::{Db, DbError};

/// Those of the spooled shares whose files are there and whole by their length; the others are forgotten. Cheap: done at
/// every start. A flipped bit is found when the share is sent, or by `all`.
pub(super) fn those_there(
    db: &Db,
    spool: &Spool,
    spooled: Vec<SpooledShare>,
) -> Result<Vec<SpooledShare>, UploadError> {
    let is_there = |share: &SpooledShare| spool.has(share.id, share.stored_bytes);
    let (there, gone): (Vec<_>, Vec<_>) = spooled.into_iter().partition(is_there);
    if !gone.is_empty() {
        tracing::error!(
            shares = gone.len(),
            "shares were lost from the spool; their files are read again"
        );
        db.write::<_, DbError>(|tx| gone.iter().try_for_each(|share| packs::forget_spooled(tx, share.id)))?;
    }
    Ok(there)
}

/// See `Uploader::verify_spool`.
pub(super) fn all(shared: &Shared) -> Result<u64, UploadError> {
    let mut lost = 0;
    for share in shared.db.read(shares::spooled)? {
        if shared.spool.read(share.id)?.is_some() {
            continue;
        }
        // It may have been delivered while this read: then no row says any more that it is here.
        let was_here = shared.db.write::<_, DbError>(|tx| {
            let was_here = shares::in_spool(tx, share.id)?;
            packs::forget_spooled(tx, share.id)?;
            Ok(was_here)
        })?;
        if was_here {
            lost += 1;
            tracing::error!(share = %share.id, "a share in the spool is damaged");
            shared.tell(UploadEvent::SpoolLost {
                pack: share.pack,
                share: share.id,
            });
        }
    }
    Ok(lost)
}
