//! Shares that have arrived in part: files that grow as bytes come, so that a transfer goes on where it stopped, whichever
//! end went away.
//!
//! Nothing is known about the bytes before the share is complete; then they are read back and checked as a whole. Everything
//! here blocks.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;

use proto::id::ShareId;
use proto::share::Share;
use proto::share_store::StoreError;

use super::folder::{FolderStore, store_error};

/// Most unfinished transfers kept for one friend. With the size of a share this also bounds their bytes.
const PARTIALS_MAX: usize = 64;
const EXTENSION: &str = "part";

/// One friend's unfinished transfers.
pub struct Partials {
    folder: PathBuf,
    /// The newest writer of each share: when a connection breaks unnoticed, the next one takes over.
    writers: Mutex<HashMap<ShareId, u64>>,
}

/// A transfer that is going on.
pub struct Partial {
    id: ShareId,
    writer: u64,
    path: PathBuf,
    file: File,
    /// Bytes that are in the file.
    received: u32,
    stored_bytes: u32,
    resumed: bool,
}

impl Partials {
    /// Transfers in `folder`, which exists.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            writers: Mutex::default(),
        }
    }

    /// Begins or goes on with the transfer of `id`. Whoever wrote it before can no longer.
    pub fn open(&self, id: ShareId, stored_bytes: u32) -> Result<Partial, StoreError> {
        let path = self.folder.join(format!("{id}.{EXTENSION}"));
        let writer = {
            let mut writers = self.lock();
            let writer = writers.get(&id).map_or(0, |writer| writer + 1);
            writers.insert(id, writer);
            writer
        };
        let opened = (|| {
            if !path.exists() {
                self.make_room()?;
            }
            let file = File::options().append(true).create(true).open(&path)?;
            let mut received = file.metadata()?.len();
            if received > stored_bytes.into() {
                file.set_len(0)?;
                received = 0;
            }
            Ok((file, received as u32))
        })();
        let (file, received) = opened.map_err(|error| store_error("receiving a share", &error))?;
        Ok(Partial {
            id,
            writer,
            path,
            file,
            received,
            stored_bytes,
            resumed: received > 0,
        })
    }

    /// Adds bytes. `offset` is where they belong: where the last ones ended.
    pub fn append(&self, partial: &mut Partial, offset: u32, bytes: &[u8]) -> Result<(), StoreError> {
        if offset != partial.received || bytes.len() > (partial.stored_bytes - partial.received) as usize {
            return Err(StoreError::Refused {
                reason: format!("Bytes at {offset} of a share do not follow the last ones"),
            });
        }
        // Under the lock, so that a new writer never sees half of an old one's bytes arrive after its own.
        let writers = self.lock();
        if writers.get(&partial.id) != Some(&partial.writer) {
            return Err(StoreError::Busy {
                retry_after: std::time::Duration::from_secs(1),
            });
        }
        let written = partial.file.write_all(bytes);
        drop(writers);
        match written {
            Ok(()) => partial.received += bytes.len() as u32,
            Err(error) => {
                // What is there of the failed write is unknown: the file would no longer be where `received` says.
                let _ = partial.file.set_len(partial.received.into());
                let error = store_error("receiving a share", &error);
                if matches!(error, StoreError::Full { .. }) {
                    self.discard(partial);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Checks the complete share and takes it into `store`, durably. `turn` is given back as soon as the memory for
    /// checking is: waiting for the disk needs none.
    pub fn finish<T>(&self, partial: &Partial, store: &FolderStore, turn: T) -> Result<(), StoreError> {
        let checked = partial.check();
        drop(turn);
        if let Err(error) = checked {
            self.discard(partial);
            return Err(error);
        }
        partial
            .file
            .sync_data()
            .map_err(|error| store_error("receiving a share", &error))?;
        let adopted = store.adopt(partial.id, &partial.path, partial.stored_bytes.into());
        if adopted.is_err() {
            self.discard(partial);
        }
        self.forget(partial);
        adopted
    }

    /// Forgets who wrote a transfer that is no longer written; its bytes stay.
    pub fn forget(&self, partial: &Partial) {
        let mut writers = self.lock();
        if writers.get(&partial.id) == Some(&partial.writer) {
            writers.remove(&partial.id);
        }
    }

    fn discard(&self, partial: &Partial) {
        let mut writers = self.lock();
        if writers.get(&partial.id) == Some(&partial.writer) {
            writers.remove(&partial.id);
            let _ = fs::remove_file(&partial.path);
        }
    }

    /// Removes the oldest transfers that nobody is writing, until one more fits.
    fn make_room(&self) -> std::io::Result<()> {
        let writers = self.lock();
        let mut idle = Vec::new();
        let mut count = 0;
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let Some(id) = share_of(&path) else { continue };
            count += 1;
            if !writers.contains_key(&id) {
                let changed = fs::metadata(&path)
                    .and_then(|found| found.modified())
                    .unwrap_or(SystemTime::UNIX_EPOCH);
                idle.push((changed, path));
            }
        }
        idle.sort_unstable();
        for (_, path) in idle.iter().take((count + 1_usize).saturating_sub(PARTIALS_MAX)) {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ShareId, u64>> {
        self.writers.lock().expect("no panic while the transfers are locked")
    }
}

impl Partial {
    /// Where the next bytes belong.
    pub fn received(&self) -> u32 {
        self.received
    }

    /// Whether all bytes are here.
    pub fn is_complete(&self) -> bool {
        self.received == self.stored_bytes
    }

    /// Reads the bytes back from the file: what is acknowledged is what is on disk, not what came by.
    fn check(&self) -> Result<(), StoreError> {
        let mut stored = Vec::with_capacity(self.stored_bytes as usize);
        File::open(&self.path)
            .and_then(|file| file.take(u64::from(self.stored_bytes) + 1).read_to_end(&mut stored))
            .map_err(|error| store_error("checking a share", &error))?;
        let checked = Share::from_stored(stored.into()).and_then(|share| share.verify(self.id));
        checked.map_err(|error| match self.resumed {
            // The first part may have been damaged by a crash here: that is not the sender's fault.
            true => StoreError::Busy {
                retry_after: std::time::Duration::ZERO,
            },
            false => StoreError::Refused {
                reason: error.to_string(),
            },
        })
    }
}

fn share_of(path: &Path) -> Option<ShareId> {
    if path.extension()? != EXTENSION {
        return None;
    }
    path.file_stem()?.to_str()?.parse().ok()
}
