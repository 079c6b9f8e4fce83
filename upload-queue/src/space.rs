//! Room on disks: what of a disk is never taken, and what this process has promised of it already.
//!
//! A disk that is full to its last byte stops more than backups: the catalog can note nothing, mail is lost, and often the
//! machine does not start. So whatever may wait, or may be put elsewhere, leaves some of it free: shares kept for friends,
//! shares in folder peers, the spool. What is small and must not wait (heads, rosters, the catalog) may use the rest.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What of a disk is never taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum MinFree {
    /// The larger of a hundredth of the disk and a GiB, but no more than a tenth of a small disk.
    #[default]
    Automatic,
    /// So many hundredths of the disk.
    Percent(f64),
    /// So many bytes.
    Bytes(u64),
}

/// Chosen as Syncthing has it.
const PART: u64 = 100;
/// Chosen: room for a catalog of some million files, its journal, and an update of the system.
const BYTES: u64 = 1 << 30;
/// Chosen: on a disk of a few GiB a whole one would be most of what can be lent.
const SMALL_PART: u64 = 10;

impl MinFree {
    /// Bytes that stay free on a disk of `total` bytes.
    pub fn bytes(self, total: u64) -> u64 {
        match self {
            Self::Automatic => (total / PART).max(BYTES.min(total / SMALL_PART)),
            Self::Percent(percent) => (total as f64 / 100.0 * percent.clamp(0.0, 100.0)) as u64,
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// A disk as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// All its bytes.
    pub total_bytes: u64,
    /// Bytes free for this user.
    pub free_bytes: u64,
    number: u64,
}

impl Disk {
    /// The disk that `path` is on.
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(path)?;
        // Some network and FUSE file systems do not know their size: whoever writes there learns when it is full.
        let free_bytes = match found.f_blocks {
            0 => u64::MAX,
            _ => found.f_bavail.saturating_mul(found.f_frsize),
        };
        Ok(Self {
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes,
            number: std::fs::metadata(path)?.dev(),
        })
    }

    /// Bytes that may still be taken: what is free, without what stays free and what is promised.
    pub fn takable(&self, min_free: MinFree) -> u64 {
        let promised = promised().get(&self.number).copied().unwrap_or(0);
        self.free_bytes
            .saturating_sub(min_free.bytes(self.total_bytes))
            .saturating_sub(promised)
    }
}

/// Room on a disk for something that is being written; given back when dropped.
#[derive(Debug)]
pub struct Room {
    disk: u64,
    bytes: u64,
}

/// No room.
#[derive(Debug, thiserror::Error)]
pub enum NoRoom {
    /// It would go into what stays free.
    #[error("its disk has {} MiB free, and {} MiB stay free (min_free)", free_bytes >> 20, min_free_bytes >> 20)]
    Kept {
        /// Bytes free now.
        free_bytes: u64,
        /// Bytes that stay free.
        min_free_bytes: u64,
    },
    /// The disk cannot be asked.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Room {
    /// Promises `bytes` of the disk that `path` is on, if that leaves enough free.
    pub fn take(path: &Path, bytes: u64, min_free: MinFree) -> Result<Self, NoRoom> {
        let disk = Disk::of(path)?;
        let min_free_bytes = min_free.bytes(disk.total_bytes);
        let mut promised = promised();
        let promised = promised.entry(disk.number).or_default();
        let needed = bytes.saturating_add(*promised).saturating_add(min_free_bytes);
        if needed > disk.free_bytes {
            return Err(NoRoom::Kept {
                free_bytes: disk.free_bytes,
                min_free_bytes,
            });
        }
        *promised += bytes;
        Ok(Self {
            disk: disk.number,
            bytes,
        })
    }

    /// So many of the bytes are written now: the disk itself counts them from here on.
    pub fn written(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        give_back(self.disk, bytes);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        give_back(self.disk, self.bytes);
    }
}

fn give_back(disk: u64, bytes: u64) {
    let mut promised = promised();
    if let Some(left) = promised.get_mut(&disk) {
        *left = left.saturating_sub(bytes);
    }
}

/// Promised bytes by disk. For the whole process: a store, a spool and a folder peer often share one disk.
fn promised() -> MutexGuard<'static, BTreeMap<u64, u64>> {
    static PROMISED: Mutex<BTreeMap<u64, u64>> = Mutex::new(BTreeMap::new());
    PROMISED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn large_disks_keep_a_hundredth_and_small_ones_a_tenth_at_most() {
        // A memory card, a small server, a laptop, a NAS.
        for (total, kept) in [
            (60 << 20, 6 << 20),
            (5 * GIB, GIB / 2),
            (50 * GIB, GIB),
            (4000 * GIB, 40 * GIB),
        ] {
            assert_eq!(MinFree::Automatic.bytes(total), kept, "of {total}");
        }
        assert_eq!(MinFree::Percent(2.5).bytes(1000), 25);
        assert_eq!(MinFree::Bytes(7).bytes(1000), 7);
    }

    #[test]
    fn what_is_promised_is_not_promised_twice_until_it_is_written_or_given_back() {
        let folder = tempfile::tempdir().unwrap();
        // Without the last GiB, which other tests may be writing to.
        let free = Disk::of(folder.path()).unwrap().free_bytes.saturating_sub(GIB / 4);
        let part = free / 4 * 3;
        let take = || Room::take(folder.path(), part, MinFree::Bytes(0));
        let mut first = take().unwrap();
        assert!(matches!(take(), Err(NoRoom::Kept { .. })));
        first.written(part);
        drop((take().unwrap(), first));
        drop(take().unwrap());
        assert!(matches!(
            Room::take(folder.path(), 1, MinFree::Percent(100.0)),
            Err(NoRoom::Kept { .. })
        ));
        assert_eq!(Disk::of(folder.path()).unwrap().takable(MinFree::Percent(100.0)), 0);
    }
}
