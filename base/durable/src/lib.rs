//! Files that survive a power cut: bytes first, then the name, then the folder that carries the name. Every file that this
//! program makes durable by itself (SQLite minds its own) is written by these functions.
//!
//! **A sync that failed is never repeated.** After an error the kernel takes the pages for clean and forgets it: the next
//! sync of the same file says yes to bytes that are on no disk. So what fails to sync once loses its name here, and whoever
//! tries again writes other pages of another file.
//!
//! **Only a log is written in place** (`in_place`): its reader tells what was written from what was there before.
//!
//! **What is found is synced like what is made.** Whoever gave a name may have been killed before it was durable; the next
//! one finds it, and must not rely on it, nor promise it, before `sync_directory_of`.

mod disk;
pub mod in_place;
#[doc(hidden)] // for tests, of other crates too
pub mod power_cut;
pub mod state_file;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use disk::Disk;

/// Syncs the bytes of the file at `path`, or removes its name.
pub fn sync(file: &File, path: &Path) -> io::Result<()> {
    disk::of(path).sync(file, path).inspect_err(|_| discard(path))
}

/// Writes a new file of mode 0600 from `parts` and syncs its bytes; nothing is left of it on failure. Its name is not
/// durable yet. What had the name is removed first: its pages may be those of a sync that failed.
pub fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let file = write_unsynced(path, parts)?;
    sync(&file, path)
}

/// As `write`, but the caller calls `sync`: for many files, the disk works on the first while the last are written.
pub fn write_unsynced(path: &Path, parts: &[&[u8]]) -> io::Result<File> {
    make(path, |disk, file| disk.write(file, path, parts))
}

/// Makes a new file of mode 0600 that has room for so many bytes, and reads as zeros, and syncs it; else as `write`.
fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let file = make(path, |disk, file| disk.allocate(file, path, bytes))?;
    sync(&file, path)
}

fn make(path: &Path, fill: impl FnOnce(&dyn Disk, &mut File) -> io::Result<()>) -> io::Result<File> {
    let disk = disk::of(path);
    let mut file = match disk.create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => disk.remove(path).and_then(|()| disk.create(path)),
        made => made,
    }?;
    fill(&*disk, &mut file).inspect_err(|_| discard(path))?;
    Ok(file)
}

/// Gives a synced file its final name, durably; on failure it has neither. Both are on one file system. What had the name
/// is replaced.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    rename_unsynced(from, to).inspect_err(|_| discard(from))?;
    sync_directory_of(to).inspect_err(|_| discard(to))
}

/// As `rename`, but the caller calls `sync_directory_of`, once for many files, and minds what is left of a failure.
pub fn rename_unsynced(from: &Path, to: &Path) -> io::Result<()> {
    disk::of(to).rename(from, to)
}

/// Moves a file or a folder that is durable, durably; on failure it is in one of the two places.
pub fn relocate(from: &Path, to: &Path) -> io::Result<()> {
    rename_unsynced(from, to)?;
    // What is in neither place after a power cut would be lost: the new name is made durable first.
    sync_directory_of(to)?;
    match from.parent() == to.parent() {
        true => Ok(()),
        false => sync_directory_of(from),
    }
}

/// Replaces the file at `path` by one of mode 0600 with these bytes, whole or not at all, durably. On failure the old one
/// stays, unless its folder did not sync: then either is there, and a caller that tries again writes anew.
pub fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let temp = beside(path);
    write(&temp, parts)?;
    rename_unsynced(&temp, path).inspect_err(|_| discard(&temp))?;
    sync_directory_of(path)
}

/// As `replace`, for a name that nobody has yet: what is there is left alone (`AlreadyExists`). On failure nothing is there.
pub fn add(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let temp = beside(path);
    write(&temp, parts)?;
    let named = disk::of(path).link(&temp, path); // unlike a rename, refuses to replace
    discard(&temp);
    if let Err(error) = named {
        // Who made it may have been cut off: what the caller is told of does not go away again.
        return match error.kind() {
            ErrorKind::AlreadyExists => sync_directory_of(path).and(Err(error)),
            _ => Err(error),
        };
    }
    sync_directory_of(path).inspect_err(|_| discard(path))
}

/// As `replace`, but waits for no disk: for notes that a power cut may take back or leave empty.
pub fn replace_note(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let temp = beside(path);
    write_unsynced(&temp, parts)?;
    rename_unsynced(&temp, path).inspect_err(|_| discard(&temp))
}

/// Removes a file, durably.
pub fn remove(path: &Path) -> io::Result<()> {
    disk::of(path).remove(path)?;
    sync_directory_of(path)
}

/// A name beside `path` that no other write of any process has.
pub fn beside(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.as_os_str().to_owned();
    let (process, count) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    name.push(format!(".{process}-{count}.tmp"));
    PathBuf::from(name)
}

/// Syncs the directory entry of `path`.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().ok_or(ErrorKind::InvalidInput)?;
    // `file` without a folder is in the working folder.
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    disk::of(folder).sync_folder(folder)
}

/// Makes a folder and those above it that are missing, durably: a file in it is worth nothing when its folder is gone
/// after a power cut.
pub fn create_folders(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return sync_found_folder(path);
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        create_folders(above)?;
    }
    create_folder(path)
}

/// Makes a folder, but none above it, durably.
pub fn create_folder(path: &Path) -> io::Result<()> {
    match disk::of(path).create_folder(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => sync_found_folder(path),
        made => made.and_then(|()| sync_directory_of(path)),
    }
}

/// Who made a folder that is found may have been cut off before its name was durable. Nothing is above a root, and a folder
/// above that may not be read is somebody else's, who minds what is in it.
fn sync_found_folder(path: &Path) -> io::Result<()> {
    if path.parent().is_none() {
        return Ok(());
    }
    match sync_directory_of(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// A name that cannot be removed stays on a disk on which nothing can be named either: what would make the file count.
fn discard(path: &Path) {
    if let Err(error) = disk::of(path).remove(path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::error!(path = %path.display(), %error, "what could not be written stays behind");
    }
}

#[cfg(test)]
mod tests;
