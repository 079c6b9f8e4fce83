//! Waiting for changes in a folder, by the system's word where it gives one (inotify on Linux). What changed is found by the next
//! run, which looks at every file's times anyway; here it counts only that something did.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Quiet for so long: whoever writes is done, and times of files prove something ([`publish::source`]).
pub const SETTLE: Duration = Duration::from_millis(2500);
/// Who never is done is published nevertheless.
pub const SETTLE_MAX: Duration = Duration::from_secs(60);

/// A watched folder with all below it.
#[derive(Debug)]
pub struct Watch {
    root: PathBuf,
    #[cfg(target_os = "linux")]
    events: tokio::net::unix::pipe::Receiver,
}

impl Watch {
    /// Of a folder; call [`Watch::renew`] before the first look at it.
    pub fn new(root: &Path) -> std::io::Result<Self> {
        #[cfg(target_os = "linux")]
        let events = {
            use rustix::fs::inotify::{CreateFlags, init};
            let events = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            // No pipe, and read like one.
            tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(events)?
        };
        Ok(Self {
            root: root.to_owned(),
            #[cfg(target_os = "linux")]
            events,
        })
    }

    /// Watches folders that are new, too. Those that cannot be watched are an error after all others are.
    pub fn renew(&self) -> std::io::Result<()> {
        let mut failed = None;
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            if let Err(error) = self.watch(&folder) {
                failed = Some(error);
            }
            // What cannot be read is named by the run.
            let Ok(entries) = std::fs::read_dir(&folder) else {
                continue;
            };
            let entries = entries.flatten();
            let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            folders.extend(inner.map(|entry| entry.path()));
        }
        failed.map_or(Ok(()), Err)
    }

    #[cfg(target_os = "linux")]
    fn watch(&self, folder: &Path) -> std::io::Result<()> {
        use rustix::fs::inotify::{WatchFlags, add_watch};
        let what = WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::ONLYDIR;
        match add_watch(&self.events, folder, what) {
            // It was removed meanwhile.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn watch(&self, _folder: &Path) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// Waits until something has changed and then nothing more for a while. May be dropped.
    pub async fn settled(&self) -> std::io::Result<()> {
        self.changed().await?;
        let quiet = async {
            while within(SETTLE, self.changed()).await.transpose()?.is_some() {}
            Ok(())
        };
        within(SETTLE_MAX, quiet).await.unwrap_or(Ok(()))
    }

    #[cfg(target_os = "linux")]
    async fn changed(&self) -> std::io::Result<()> {
        /// Room for some hundred events; their number does not matter.
        const BUFFER_BYTES: usize = 16 << 10;
        let mut buffer = [0; BUFFER_BYTES];
        loop {
            self.events.readable().await?;
            match self.events.try_read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                read => return read.map(drop),
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    async fn changed(&self) -> std::io::Result<()> {
        std::future::pending().await
    }
}

async fn within<T>(wait: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(wait, work).await.ok()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    async fn notices(watch: &Watch) -> bool {
        within(Duration::from_secs(20), watch.settled()).await.is_some()
    }

    #[tokio::test]
    async fn changes_are_noticed_also_in_folders_that_are_new() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::new(dir.path()).unwrap();
        watch.renew().unwrap();
        assert!(within(Duration::from_millis(50), watch.settled()).await.is_none());
        std::fs::create_dir(dir.path().join("new")).unwrap();
        assert!(notices(&watch).await);
        watch.renew().unwrap();
        std::fs::write(dir.path().join("new/file"), "x").unwrap();
        assert!(notices(&watch).await);
        std::fs::remove_file(dir.path().join("new/file")).unwrap();
        assert!(notices(&watch).await);
    }
}
