//! The lock of a home: one process at a time. The kernel drops it with the process, so a crash leaves none behind.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use api::failure::{Exit, Failure};
use rustix::fs::FlockOperation;

use super::HomePaths;

/// The home is ours until this is dropped.
#[derive(Debug)]
pub struct HomeLock {
    /// None: the lock's file is not there and cannot be made.
    _file: Option<File>,
    /// Why the home cannot be written: on its disk is no room, or it may only be read.
    unwritable: Option<String>,
}

impl HomeLock {
    /// Takes the lock to change the home; if another process has it: exit 11, with its pid.
    pub fn take(paths: &HomePaths) -> Result<Self, Failure> {
        Self::try_take(paths)?.ok_or_else(|| busy(paths))?.for_writing(paths)
    }

    /// Takes the lock; `None` if another process has it. A home that cannot be written is locked all the same, to be read:
    /// together with others who only read it.
    pub fn try_take(paths: &HomePaths) -> Result<Option<Self>, Failure> {
        let path = paths.lock();
        let failed = |error: &dyn std::error::Error| {
            Failure::new(Exit::Failed, format!("`{}` cannot be locked: {error}", path.display()))
        };
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let (file, unwritable) = match opened {
            Ok(file) => (Some(file), None),
            Err(error) if is_unwritable(&error) => match File::open(&path) {
                Ok(file) => (Some(file), Some(error.to_string())),
                Err(missing) if missing.kind() == ErrorKind::NotFound => (None, Some(error.to_string())),
                Err(_) => return Err(failed(&error)),
            },
            Err(error) => return Err(failed(&error)),
        };
        let operation = match unwritable {
            None => FlockOperation::NonBlockingLockExclusive,
            Some(_) => FlockOperation::NonBlockingLockShared,
        };
        match file.as_ref().map_or(Ok(()), |file| rustix::fs::flock(file, operation)) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(failed(&error)),
        }
        if let Some(mut file) = file.as_ref().filter(|_| unwritable.is_none()) {
            // The pid is only for the message of whoever comes second: a full disk has no room for it, and no need.
            let _unnamed = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        }
        Ok(Some(Self {
            _file: file,
            unwritable,
        }))
    }

    /// The same, if the home can be written.
    pub fn for_writing(self, paths: &HomePaths) -> Result<Self, Failure> {
        match &self.unwritable {
            None => Ok(self),
            Some(reason) => Err(Failure::new(
                Exit::Failed,
                format!("{} cannot be written: {reason}", paths.state_dir().display()),
            )
            .hint("what only reads works: `gridbackup restore`, `status`, `ls`")),
        }
    }

    /// Whether the home can only be read.
    pub fn is_to_read(&self) -> bool {
        self.unwritable.is_some()
    }
}

fn is_unwritable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied | ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

/// The failure of whoever comes second.
pub fn busy(paths: &HomePaths) -> Failure {
    let holder = match read_pid(&paths.lock()) {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    };
    Failure::new(
        Exit::HomeBusy,
        format!("{} is in use by {holder}", paths.state_dir().display()),
    )
    .hint("wait for it, or stop it")
}

fn read_pid(path: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(path).ok()?.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_to_come_hears_the_pid_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let paths = HomePaths::locate(Some(dir.path())).unwrap();
        let first = HomeLock::take(&paths).unwrap();
        let failure = HomeLock::take(&paths).unwrap_err();
        assert_eq!(failure.exit, Exit::HomeBusy);
        assert!(
            failure.error.contains(&format!("process {}", std::process::id())),
            "{failure}"
        );
        drop(first);
        assert!(HomeLock::take(&paths).is_ok());
    }
}
