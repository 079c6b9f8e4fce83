//! What ends a run; what concerns single files is an event.

use std::path::PathBuf;

use crate::inventory::InventoryError;
use crate::lock::LockError;

/// A run that did not reach its end. What was published is recorded, and the next run goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The folder cannot be read at all.
    #[error("`{path}` cannot be read: {source}")]
    Source {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder without files, and objects that would be deleted.
    #[error("`{path}` has no files to publish; nothing was deleted. Is it mounted? (--allow-empty publishes it so)")]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// More would be deleted than may be.
    #[error(
        "{deletes} objects have no file any more, more than {deletes_max}; none was deleted. If that is right: --max-delete {deletes}"
    )]
    TooManyDeletes {
        /// How many would be deleted.
        deletes: u64,
        /// How many may be.
        deletes_max: u64,
    },
    /// The folder of a restore.
    #[error("`{path}` cannot be written: {source}")]
    Target {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// More local files would be removed than may be.
    #[error(
        "{deletes} files have no object, more than {deletes_max}; none was removed. If that is right: --max-delete {deletes}"
    )]
    TooManyFiles {
        /// How many would be removed.
        deletes: u64,
        /// How many may be.
        deletes_max: u64,
    },
    /// The inventory.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// The lock in the bucket.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The endpoint, about more than one object.
    #[error(transparent)]
    S3(#[from] s3::Error),
    /// Stopped by its caller.
    #[error("Interrupted")]
    Stopped,
}
