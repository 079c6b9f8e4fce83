//! Files of this machine: the source that is always there.
//!
//! Everything goes by descriptors: what is in a folder is asked of the open folder, so that nobody who renames a folder or
//! puts a link in its place leads the scanner elsewhere.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::log_record::{EntryKind, Meta, Xattr};
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use xattr::FileExt as _;

use super::listing::{examine, examine_open, list, open_directory};
use super::{FileStat, Folder, ListBuffer, Listing, Next, OpenFile, Source, Xattrs, long_path};

/// Largest value of an extended attribute and largest list of names that Linux has (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const XATTR_BYTES_MAX: usize = 64 * 1024;
/// First try for the list of names: a dozen of usual ones.
const XATTR_NAMES_BYTES: usize = 256;

/// All file systems of this machine.
pub(crate) struct LocalFiles;

impl Source for LocalFiles {
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        std::fs::canonicalize(path)
    }

    fn leads_to_folder(&self, path: &Path) -> io::Result<bool> {
        // Not statx with the flags of `examine`, which mounts nothing.
        Ok(std::fs::metadata(path)?.is_dir())
    }

    fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let reached = long_path::reach(path)?;
        let target = rustix::fs::readlinkat(reached.above(), reached.rest.as_c_str(), Vec::new())?;
        Ok(target.into_bytes())
    }

    fn examine(&self, path: &[u8]) -> Result<(EntryKind, Meta), Errno> {
        let reached = long_path::reach(path)?;
        examine(reached.above(), &reached.rest)
    }

    fn reach_folder(&self, path: &[u8]) -> Result<Box<dyn Folder>, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Box::new(LocalFolder(long_path::open(path, flags)?)))
    }

    fn open_folder(&self, path: &[u8]) -> Result<Box<dyn Folder>, Errno> {
        let reached = long_path::reach(path)?;
        let directory = open_directory(reached.above(), reached.rest.as_c_str())?;
        Ok(Box::new(LocalFolder(directory)))
    }

    fn open_file(&self, path: &[u8]) -> Result<Box<dyn OpenFile>, Errno> {
        let reached = long_path::reach(path)?;
        open_file(reached.above(), &reached.rest)
    }

    fn now_ns(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }

    fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

struct LocalFolder(OwnedFd);

impl Folder for LocalFolder {
    fn identity(&self) -> Result<(u64, u64), Errno> {
        let stat = examine_open(&self.0)?;
        Ok((stat.meta.inode, stat.meta.device))
    }

    fn list(&self, buffer: &mut ListBuffer) -> Result<Listing, Errno> {
        list(&self.0, &mut buffer.0)
    }

    fn open_folder(&self, name: &[u8]) -> Result<Box<dyn Folder>, Errno> {
        Ok(Box::new(Self(open_directory(&self.0, name)?)))
    }

    fn open_file(&self, name: &[u8]) -> Result<Box<dyn OpenFile>, Errno> {
        open_file(&self.0, &CString::new(name).map_err(|_| Errno::INVAL)?)
    }

    fn read_link(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let target = rustix::fs::readlinkat(&self.0, name, Vec::new())?;
        Ok(target.into_bytes())
    }

    fn xattrs(&self, name: &[u8]) -> Result<Xattrs, Errno> {
        // There is no listxattrat before Linux 6.13; the descriptor's path reaches the entry however deep it is.
        let path = [format!("/proc/self/fd/{}/", self.0.as_raw_fd()).as_bytes(), name].concat();
        xattrs(&path)
    }
}

struct LocalFile(File);

fn open_file(directory: impl AsFd, name: &CStr) -> Result<Box<dyn OpenFile>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let open = |flags| rustix::fs::openat(directory.as_fd(), name, flags, Mode::empty());
    let file = match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags)?, // only the owner may leave the access time alone
        other => other?,
    };
    Ok(Box::new(LocalFile(file.into())))
}

impl OpenFile for LocalFile {
    fn stat(&self) -> io::Result<FileStat> {
        Ok(examine_open(&self.0)?)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    /// By read(2): some files of procfs cannot be read anywhere but from their beginning on.
    fn read_start(&self, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; limit];
        let mut len = 0;
        while len < limit {
            match rustix::io::read(&self.0, &mut bytes[len..]) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(len);
        Ok(bytes)
    }

    fn next_data(&self, offset: u64) -> io::Result<Next> {
        self.seek(SeekFrom::Data(offset))
    }

    fn next_hole(&self, offset: u64) -> io::Result<Next> {
        self.seek(SeekFrom::Hole(offset))
    }

    fn xattrs(&self) -> Vec<Xattr> {
        let names = self.0.list_xattr().into_iter().flatten();
        let mut xattrs: Vec<Xattr> = names
            .filter_map(|name| {
                let value = self.0.get_xattr(&name).ok().flatten()?;
                Some(Xattr {
                    name: name.into_vec(),
                    value,
                })
            })
            .collect();
        xattrs.sort_by(|a, b| a.name.cmp(&b.name));
        xattrs
    }
}

impl LocalFile {
    fn seek(&self, to: SeekFrom) -> io::Result<Next> {
        match rustix::fs::seek(&self.0, to) {
            Ok(offset) => Ok(Next::At(offset)),
            Err(Errno::NXIO) => Ok(Next::End),
            Err(Errno::INVAL | Errno::NOTSUP) => Ok(Next::Unknown),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// All extended attributes, sorted by name. Most entries have none, which one call tells.
fn xattrs(path: &[u8]) -> Result<Xattrs, Errno> {
    // Nearly all files have none or a few names: the buffer of the largest list is made only where it is needed.
    let mut names = vec![0u8; XATTR_NAMES_BYTES];
    let listed = rustix::fs::llistxattr(path, names.as_mut_slice()).or_else(|error| {
        if error != Errno::RANGE {
            return Err(error);
        }
        names.resize(XATTR_BYTES_MAX, 0);
        rustix::fs::llistxattr(path, names.as_mut_slice())
    });
    let len = match listed {
        Ok(len) => len,
        Err(errno) if is_none(errno) => 0,
        Err(errno) => return Err(errno),
    };
    names.truncate(len);
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    let mut value = vec![0u8; if len > 0 { XATTR_BYTES_MAX } else { 0 }];
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match rustix::fs::lgetxattr(path, name, value.as_mut_slice()) {
            Ok(len) => found.push(Xattr {
                name: name.to_vec(),
                value: value[..len].to_vec(),
            }),
            Err(errno) if is_none(errno) => {}
            Err(errno) => unread.push((name.to_vec(), errno)),
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Xattrs { found, unread })
}

/// Whether an error says that there is nothing: a file system without attributes, one that went meanwhile.
fn is_none(errno: Errno) -> bool {
    matches!(errno, Errno::NOTSUP | Errno::NODATA | Errno::NOENT | Errno::NOSYS)
}
