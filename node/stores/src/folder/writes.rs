//! Durable writes (crate `durable`) as a store needs them: folders for shares are made when they are missing, and
//! errors say what a caller of a store should do.

use std::io::{self, ErrorKind};
use std::path::Path;

use proto::share_store::StoreError;
use upload_queue::space::NoRoom;

pub use durable::{create_folders, sync_directory_of};

/// Writes a new file from `parts` and syncs its bytes. The name is not durable yet; on failure there is none.
pub fn write(path: &Path, parts: &[&[u8]]) -> Result<(), StoreError> {
    let written = match durable::write(path, parts) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make_directory_of(path).and_then(|()| durable::write(path, parts))
        }
        other => other,
    };
    written.map_err(|error| store_error("writing a share", &error))
}

/// Gives a synced file its final name, durably; on failure it has neither. Both are on one file system.
pub fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    make_directory_of(to)
        .and_then(|()| durable::rename(from, to))
        .map_err(|error| store_error("naming a share", &error))
}

/// Replaces a small file whole, durably. On failure the old one is there or the new one, and trying again writes anew.
pub fn replace(path: &Path, parts: &[&[u8]]) -> Result<(), StoreError> {
    make_directory_of(path)
        .and_then(|()| durable::replace(path, parts))
        .map_err(|error| store_error("writing to the store", &error))
}

/// Moves a file that is durable, durably; on failure it is in one of the two places.
pub fn relocate(from: &Path, to: &Path) -> Result<(), StoreError> {
    make_directory_of(to)
        .and_then(|()| durable::relocate(from, to))
        .map_err(|error| store_error("moving a share", &error))
}

/// Makes the directory that `path` is in, but none above it: when those are gone, the disk is. One that is there was made
/// durable when the store was opened, which spares every put a sync.
fn make_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().ok_or(ErrorKind::InvalidInput)?;
    if directory.is_dir() {
        return Ok(());
    }
    durable::create_folder(directory)
}

/// What a caller of a store should do about an error of the system.
pub fn store_error(doing: &str, error: &io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull => StoreError::Full {
            reason: "the disk is full".into(),
        },
        ErrorKind::QuotaExceeded => StoreError::Full {
            reason: "the disk quota is used up".into(),
        },
        _ => StoreError::Unreachable {
            reason: format!("{doing}: {error}"),
        },
    }
}

/// A disk that has no room.
pub fn no_room(error: NoRoom) -> StoreError {
    match error {
        NoRoom::Io(error) => store_error("asking for space", &error),
        error @ NoRoom::Kept { .. } => StoreError::Full {
            reason: error.to_string(),
        },
    }
}
