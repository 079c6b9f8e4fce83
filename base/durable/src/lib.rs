//! Files that survive a power cut: bytes first, then the name, then the folder that carries the name. Every file that this
//! program makes durable by itself (SQLite minds its own) is written by these functions.
//!
//! **A sync that failed is never repeated.** After an error the kernel takes the pages for clean and forgets it: the next
//! sync of the same file says yes to bytes that are on no disk. So what fails to sync once loses its name here, and whoever
//! tries again writes other pages of another file.

pub mod state_file;

use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Syncs the bytes of the file at `path`, or removes its name.
pub fn sync(file: &File, path: &Path) -> io::Result<()> {
    // Length and extents are part of what fdatasync flushes; only times are left out.
    file.sync_data().inspect_err(|_| discard(path))
}

/// Writes a new file of mode 0600 from `parts` and syncs its bytes; nothing is left of it on failure. Its name is not
/// durable yet. What had the name is removed first: its pages may be those of a sync that failed.
pub fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let file = write_unsynced(path, parts)?;
    sync(&file, path)
}

/// As `write`, but the caller calls `sync`: for many files, the disk works on the first while the last are written.
pub fn write_unsynced(path: &Path, parts: &[&[u8]]) -> io::Result<File> {
    let mut file = create(path)?;
    write_all(&mut file, parts).inspect_err(|_| discard(path))?;
    Ok(file)
}

fn write_all(file: &mut File, parts: &[&[u8]]) -> io::Result<()> {
    let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let count = file.write_vectored(rest)?;
        if count == 0 && rest.iter().any(|slice| !slice.is_empty()) {
            return Err(ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, count);
    }
    Ok(())
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    match options.open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)
        }
        opened => opened,
    }
}

/// Gives a synced file its final name, durably; on failure it has neither. Both are on one file system. What had the name
/// is replaced.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).inspect_err(|_| discard(from))?;
    sync_directory_of(to).inspect_err(|_| discard(to))
}

/// Replaces the file at `path` by one of mode 0600 with these bytes, whole or not at all, durably. On failure the old one
/// stays, unless its folder did not sync: then either is there, and a caller that tries again writes anew.
pub fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let temp = beside(path);
    write(&temp, parts)?;
    fs::rename(&temp, path).inspect_err(|_| discard(&temp))?;
    sync_directory_of(path)
}

/// As `replace`, for a name that nobody has yet: what is there is left alone (`AlreadyExists`). On failure nothing is there.
pub fn add(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let temp = beside(path);
    write(&temp, parts)?;
    let named = fs::hard_link(&temp, path); // unlike a rename, refuses to replace
    discard(&temp);
    named?;
    sync_directory_of(path).inspect_err(|_| discard(path))
}

/// As `replace`, but waits for no disk: for notes that a power cut may take back or leave empty.
pub fn replace_note(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let temp = beside(path);
    write_unsynced(&temp, parts)?;
    fs::rename(&temp, path).inspect_err(|_| discard(&temp))
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
    match File::open(folder)?.sync_all() {
        // Some network and FUSE file systems cannot sync a directory; they have no stronger promise to ask for.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

/// Makes a folder and those above it that are missing, durably: a file in it is worth nothing when its folder is gone
/// after a power cut.
pub fn create_folders(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        create_folders(above)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made?,
    }
    sync_directory_of(path)
}

/// A name that cannot be removed stays on a disk on which nothing can be named either: what would make the file count.
fn discard(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::error!(path = %path.display(), %error, "what could not be written stays behind");
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    /// A file that no kernel syncs.
    fn unsyncable() -> File {
        let (_reader, writer) = io::pipe().unwrap();
        File::from(OwnedFd::from(writer))
    }

    #[test]
    fn what_did_not_sync_has_no_name_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("share");
        fs::write(&path, b"in the page cache").unwrap();
        assert!(sync(&unsyncable(), &path).is_err());
        assert!(!path.exists());
    }

    #[test]
    fn what_is_written_again_is_another_file_of_this_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("share");
        fs::write(&path, b"of a sync that failed").unwrap();
        let old = File::open(&path).unwrap();
        write(&path, &[b"two ", b"", b"parts"]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two parts");
        let (old, new) = (old.metadata().unwrap(), fs::metadata(&path).unwrap());
        assert_ne!(old.ino(), new.ino());
        assert_eq!(new.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_one_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roster");
        replace(&path, &[b"old"]).unwrap();
        replace(&path, &[b"new"]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, &[b"new"]).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_added_replaces_nothing_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("account.key");
        add(&path, &[b"mi", b"ne"]).unwrap();
        let refused = add(&path, &[b"another"]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        replace_note(&path, &[b"noted"]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"noted");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn missing_folders_are_made_and_a_file_in_the_way_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        create_folders(&deep).unwrap();
        create_folders(&deep).unwrap();
        fs::write(folder.path().join("file"), b"").unwrap();
        assert!(create_folders(&folder.path().join("file/x")).is_err());
    }
}
