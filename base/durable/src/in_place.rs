//! A file of a fixed length that is written in place, for logs whose records tell by themselves whether they are whole. All of it
//! has its room on the disk before it has its name: later writes never find the disk full.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::disk::{self, Disk};

/// An open file. It may be read and written from several threads at once.
pub struct InPlaceFile {
    file: File,
    path: PathBuf,
    bytes: u64,
    disk: Arc<dyn Disk>,
    failed: AtomicBool,
}

impl InPlaceFile {
    /// Makes a durable file that reads as so many zeros, in the place of what has the name.
    pub fn create(path: &Path, bytes: u64) -> io::Result<Self> {
        let temp = crate::beside(path);
        // Not written: that would be every byte twice while a disk is written to for the first time, and the syncs that make a place
        // known as written cost no more than those that wait for the zeros (docs/decisions/0061-journal-of-a-disk.md).
        crate::allocate(&temp, bytes)?;
        crate::rename(&temp, path)?;
        Self::open(path)
    }

    /// Opens a file that is there.
    pub fn open(path: &Path) -> io::Result<Self> {
        let disk = disk::of(path);
        let file = disk.open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            file,
            path: path.to_owned(),
            bytes,
            disk,
            failed: AtomicBool::new(false),
        })
    }

    /// Gives the file another name, durably; what had it is replaced.
    pub fn rename(&mut self, to: &Path) -> io::Result<()> {
        crate::rename(&self.path, to)?;
        self.path = to.to_owned();
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes within the file's length.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.bytes) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.disk.write_at(&self.file, &self.path, bytes, offset)
    }

    /// Reads all of `into`.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    /// Whether a sync of it failed: it is good for reading alone.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Makes what was written durable. After a failure it fails for ever: a sync that is repeated says yes to bytes that are on
    /// no disk. What was written since the last success has to be written to another file.
    pub fn sync(&self) -> io::Result<()> {
        if self.failed.load(Ordering::SeqCst) {
            return Err(io::Error::other("An earlier sync of this file failed"));
        }
        self.disk
            .sync(&self.file, &self.path)
            .inspect_err(|_| self.failed.store(true, Ordering::SeqCst))
    }
}
