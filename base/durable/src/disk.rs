//! The calls to the file system that this crate is made of: every durable write is some of these, in an order that matters.
//! Below a folder that a test has mounted a disk on they go to that disk, everywhere else to the real one.

use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// Zeros written at a time where room cannot be had without writing.
const ZEROS: &[u8] = &[0; 1 << 18];

/// What a disk is asked for. Each call is one step, between which the power may go.
pub trait Disk: Send + Sync {
    /// Makes an empty file of mode 0600 at a name that nobody has yet.
    fn create(&self, path: &Path) -> io::Result<File>;
    /// Writes all of `parts` to the file, which was made at `path`.
    fn write(&self, file: &mut File, path: &Path, parts: &[&[u8]]) -> io::Result<()>;
    /// Gives an empty file, which was made at `path`, so many bytes, which read as zeros and have their room on the disk.
    fn allocate(&self, file: &mut File, path: &Path, bytes: u64) -> io::Result<()>;
    /// Opens a file that is there, to be read and to be written in place.
    fn open(&self, path: &Path) -> io::Result<File>;
    /// Writes to a file, which was opened at `path`, at a place of it.
    fn write_at(&self, file: &File, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the bytes of the file at `path` durable.
    fn sync(&self, file: &File, path: &Path) -> io::Result<()>;
    /// Gives a file or a folder another name. A file that had it is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name that nobody has yet.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a file's name away.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes an empty folder.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// The file system of this machine.
struct Real;

impl Disk for Real {
    fn create(&self, path: &Path) -> io::Result<File> {
        File::options().write(true).create_new(true).mode(0o600).open(path)
    }

    fn write(&self, file: &mut File, _path: &Path, parts: &[&[u8]]) -> io::Result<()> {
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

    fn allocate(&self, file: &mut File, path: &Path, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&*file, FallocateFlags::empty(), 0, bytes) {
            // Some file systems only give room to what is written.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => zeros(bytes, |parts| self.write(file, path, parts)),
            other => Ok(other?),
        }
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        File::options().read(true).write(true).open(path)
    }

    fn write_at(&self, file: &File, _path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File, _path: &Path) -> io::Result<()> {
        // Length and extents are part of what fdatasync flushes; only times are left out.
        file.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        match File::open(folder)?.sync_all() {
            // Some network and FUSE file systems cannot sync a directory; they have no stronger promise to ask for.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
            other => other,
        }
    }
}

/// So many zeros, in parts.
pub fn zeros(bytes: u64, write: impl FnOnce(&[&[u8]]) -> io::Result<()>) -> io::Result<()> {
    let mut parts = vec![ZEROS; (bytes / ZEROS.len() as u64) as usize];
    parts.push(&ZEROS[..(bytes % ZEROS.len() as u64) as usize]);
    write(&parts)
}

/// Disks of tests, by the folder that they are mounted on. Whoever is looked for by path is found from every thread, and
/// tests that run at the same time have folders of their own.
static MOUNTED: RwLock<Vec<(PathBuf, Arc<dyn Disk>)>> = RwLock::new(Vec::new());

/// The disk that `path` is on.
pub fn of(path: &Path) -> Arc<dyn Disk> {
    let mounted = MOUNTED.read().unwrap_or_else(PoisonError::into_inner);
    if !mounted.is_empty()
        && let Ok(path) = std::path::absolute(path)
        && let Some((_, disk)) = mounted.iter().find(|(root, _)| path.starts_with(root))
    {
        return disk.clone();
    }
    Arc::new(Real)
}

/// Keeps a disk mounted until it is dropped.
pub struct Mounted(PathBuf);

/// Mounts a disk on a folder on which there is none.
pub fn mount(root: &Path, disk: Arc<dyn Disk>) -> Mounted {
    let mut mounted = MOUNTED.write().unwrap_or_else(PoisonError::into_inner);
    mounted.push((root.to_owned(), disk));
    Mounted(root.to_owned())
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut mounted = MOUNTED.write().unwrap_or_else(PoisonError::into_inner);
        mounted.retain(|(root, _)| *root != self.0);
    }
}
