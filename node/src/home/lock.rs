//! The lock of a home: one process at a time. The kernel drops it with the process, so a crash leaves none behind.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::FlockOperation;

use super::HomePaths;
use crate::failure::{Exit, Failure};

/// The home is ours until this is dropped.
#[derive(Debug)]
pub struct HomeLock {
    _file: File,
}

impl HomeLock {
    /// Takes the lock; if another process has it: exit 11, with its pid.
    pub fn take(paths: &HomePaths) -> Result<Self, Failure> {
        Self::try_take(paths)?.ok_or_else(|| busy(paths))
    }

    /// Takes the lock; `None` if another process has it.
    pub fn try_take(paths: &HomePaths) -> Result<Option<Self>, Failure> {
        let path = paths.lock();
        let failed = |error: &dyn std::error::Error| {
            Failure::new(Exit::Failed, format!("`{}` cannot be locked: {error}", path.display()))
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed(&error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(failed(&error)),
        }
        // The pid is only for the message of whoever comes second.
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(|error| failed(&error))?;
        Ok(Some(Self { _file: file }))
    }
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
