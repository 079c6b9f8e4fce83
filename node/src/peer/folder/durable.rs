//! Files that survive a power cut: bytes first, then the name, then the directory that carries the name.

use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice, Write};
use std::path::Path;

use proto::share_store::StoreError;

/// Writes a new file from `parts` and syncs its bytes. The name is not durable yet; on failure a part of it may be left.
pub fn write(path: &Path, parts: &[&[u8]]) -> Result<(), StoreError> {
    let written = (|| {
        let mut file = create(path)?;
        let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            let count = file.write_vectored(rest)?;
            if count == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut rest, count);
        }
        // Length and extents are part of what fdatasync flushes; only times are left out.
        file.sync_data()
    })();
    written.map_err(|error| store_error("writing a share", &error))
}

/// Gives a synced file its final name, durably. Both are on one file system.
pub fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    let renamed = (|| {
        match fs::rename(from, to) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make_directory_of(to)?;
                fs::rename(from, to)?;
            }
            other => other?,
        }
        sync_directory_of(to)
    })();
    renamed.map_err(|error| store_error("naming a share", &error))
}

fn create(path: &Path) -> io::Result<File> {
    match File::create(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make_directory_of(path)?;
            File::create(path)
        }
        other => other,
    }
}

/// Makes the directory that `path` is in, but none above it: when those are gone, the disk is.
fn make_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().ok_or(ErrorKind::InvalidInput)?;
    match fs::create_dir(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_directory_of(directory),
    }
}

/// Syncs the directory entry of `path`.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().ok_or(ErrorKind::InvalidInput)?;
    match File::open(directory)?.sync_all() {
        // Some network and FUSE file systems cannot sync a directory; they have no stronger promise to ask for.
        Err(error) if error.kind() == ErrorKind::InvalidInput || error.kind() == ErrorKind::Unsupported => Ok(()),
        other => other,
    }
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
