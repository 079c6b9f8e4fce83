//! Does the spool have what the database says: a share that it lost is on no way to anybody, and must not count as if it were.

use database::DbError;

use crate::packs;
use crate::packs::shares;
use crate::uploader::shared::Shared;
use crate::uploader::{UploadError, UploadEvent};

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
