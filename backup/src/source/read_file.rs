//! Reading a file once, and knowing whether what was read is one state of it.
//!
//! A file is examined before and after its bytes are read. Whatever else a program may do to it meanwhile, a change of its
//! bytes changes its ctime or its size: then the read is void. What says that it is empty is read to its end to know its
//! length: files of procfs, and of FUSE file systems that do not know it, are not empty.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;

use proto::log_record::{Meta, Xattr};
use proto::size::{KIB, MIB};
use rustix::fs::{FileType, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use xattr::FileExt as _;

use super::long_path;

/// Bytes of one block of `st_blocks`.
const STAT_BLOCK_BYTES: u64 = 512;
/// Longest file that is read although the system says that it is empty. Chosen: far more than such files have; some of
/// procfs have hundreds of gigabytes that are none.
const UNSIZED_BYTES_MAX: u64 = 64 * MIB as u64;
/// Bytes read at a time to know a length.
const MEASURE_BYTES: usize = 64 * KIB;

/// A file whose content was not read.
#[derive(Debug)]
pub enum ReadError {
    /// It is not there any more.
    Gone,
    /// Something else has its name.
    Replaced,
    /// It changed while it was read.
    Changed,
    /// It has more or fewer bytes than its length, and did not change.
    WrongLength(String),
    /// The system does not let it be read.
    Unreadable(io::Error),
}

/// A run of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Region {
    /// Bytes to read.
    Bytes {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        len: u64,
    },
    /// A hole of so many bytes.
    Hole(u64),
}

/// An open file, and what it was when it was opened.
pub struct SourceFile {
    file: File,
    stat: Stat,
    /// Its length if the system does not say it.
    measured: Option<u64>,
}

impl SourceFile {
    /// Opens the regular file at `path`, never through a link at its end and never waiting for a pipe's writer.
    pub fn open(path: &[u8]) -> Result<Self, ReadError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = |flags| long_path::open(path, flags);
        let opened = match open(flags | OFlags::NOATIME) {
            Err(Errno::PERM) => open(flags), // only the owner may leave the access time alone
            other => other,
        };
        let file = File::from(opened.map_err(open_error)?);
        let stat = rustix::fs::fstat(&file).map_err(|errno| ReadError::Unreadable(errno.into()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            _ => return Err(ReadError::Replaced),
        }
        let measured = if stat.st_size == 0 { measure(&file)? } else { None };
        Ok(Self { file, stat, measured })
    }

    /// Bytes by length.
    pub fn bytes(&self) -> u64 {
        self.measured.unwrap_or(self.stat.st_size as u64)
    }

    /// Modification time, nanoseconds since 1970.
    pub fn mtime_ns(&self) -> i64 {
        nanoseconds(self.stat.st_mtime, self.stat.st_mtime_nsec as i64)
    }

    /// Whether it was, when it was opened, what `meta` says: the same file, not touched since.
    pub fn is_as(&self, meta: &Meta) -> bool {
        let ctime_ns = nanoseconds(self.stat.st_ctime, self.stat.st_ctime_nsec as i64);
        (self.stat.st_ino, self.stat.st_size as u64, self.mtime_ns(), ctime_ns)
            == (meta.inode, meta.size, meta.mtime_ns, meta.ctime_ns)
    }

    /// Fails if the file is not what it was when it was opened, or goes on behind its length.
    pub fn unchanged(&self) -> Result<(), ReadError> {
        let behind = self
            .file
            .read_at(&mut [0], self.bytes())
            .map_err(ReadError::Unreadable)?;
        if !self.is_as_opened()? || (behind > 0 && self.measured.is_some()) {
            return Err(ReadError::Changed);
        }
        if behind > 0 {
            return Err(self.wrong_length("goes on behind"));
        }
        Ok(())
    }

    fn is_as_opened(&self) -> Result<bool, ReadError> {
        let now = rustix::fs::fstat(&self.file).map_err(|errno| ReadError::Unreadable(errno.into()))?;
        let state = |stat: &Stat| {
            (
                stat.st_size,
                stat.st_mtime,
                stat.st_mtime_nsec,
                stat.st_ctime,
                stat.st_ctime_nsec,
            )
        };
        Ok(state(&now) == state(&self.stat))
    }

    fn wrong_length(&self, how: &str) -> ReadError {
        let bytes = self.bytes();
        ReadError::WrongLength(format!("It {how} the {bytes} bytes that the system says it has"))
    }

    /// Fills `buffer` from `offset` on.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), ReadError> {
        match self.file.read_exact_at(buffer, offset) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(ReadError::Unreadable(error)),
            Err(_) if self.measured.is_none() && self.is_as_opened()? => Err(self.wrong_length("ends before")),
            Err(_) => Err(ReadError::Changed),
        }
    }

    /// The runs that the file is made of, in order. File systems that know no holes give one run of bytes.
    pub fn regions(&self) -> Result<Vec<Region>, ReadError> {
        let bytes = self.bytes();
        // A file system that does not know its length knows nothing of holes either.
        if self.measured.is_some() || self.stat.st_blocks as u64 * STAT_BLOCK_BYTES >= bytes {
            return Ok(vec![Region::Bytes { offset: 0, len: bytes }]);
        }
        let mut regions = Vec::new();
        let mut at = 0;
        while at < bytes {
            let begin = self.seek(SeekFrom::Data(at), at)?.clamp(at, bytes);
            if begin > at {
                regions.push(Region::Hole(begin - at));
            }
            if begin == bytes {
                break;
            }
            let end = self.seek(SeekFrom::Hole(begin), bytes)?.clamp(begin, bytes);
            if end == begin {
                return Err(ReadError::Changed);
            }
            regions.push(Region::Bytes {
                offset: begin,
                len: end - begin,
            });
            at = end;
        }
        Ok(regions)
    }

    /// `unknown` is the answer of a file system without holes; behind the last bytes there is a hole up to the end.
    fn seek(&self, to: SeekFrom, unknown: u64) -> Result<u64, ReadError> {
        match rustix::fs::seek(&self.file, to) {
            Ok(offset) => Ok(offset),
            Err(Errno::NXIO) => Ok(self.bytes()),
            Err(Errno::INVAL | Errno::NOTSUP) => Ok(unknown),
            Err(errno) => Err(ReadError::Unreadable(errno.into())),
        }
    }

    /// The metadata it was opened with.
    pub fn meta(&self) -> Meta {
        let stat = &self.stat;
        Meta {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime_ns: self.mtime_ns(),
            ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec as i64),
            size: self.bytes(),
            inode: stat.st_ino,
            device: stat.st_dev,
            links: stat.st_nlink as u32,
            rdev: 0,
            xattrs: self.xattrs(),
        }
    }

    /// Attributes that cannot be read are left out: many file systems have none at all.
    fn xattrs(&self) -> Vec<Xattr> {
        let names = self.file.list_xattr().into_iter().flatten();
        let mut xattrs: Vec<Xattr> = names
            .filter_map(|name| {
                let value = self.file.get_xattr(&name).ok().flatten()?;
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

/// Reads a file to its end; its length, if it is not empty after all.
fn measure(file: &File) -> Result<Option<u64>, ReadError> {
    let mut buffer = Vec::new();
    let mut bytes = 0;
    loop {
        buffer.resize(if bytes == 0 { 1 } else { MEASURE_BYTES }, 0);
        match file.read_at(&mut buffer, bytes) {
            Ok(0) => return Ok(Some(bytes).filter(|bytes| *bytes > 0)),
            Ok(more) => bytes += more as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ReadError::Unreadable(error)),
        }
        if bytes > UNSIZED_BYTES_MAX {
            let reason = format!("The system says that it is empty, and it has more than {UNSIZED_BYTES_MAX} bytes");
            return Err(ReadError::WrongLength(reason));
        }
    }
}

fn nanoseconds(secs: i64, nanos: i64) -> i64 {
    secs.saturating_mul(1_000_000_000).saturating_add(nanos)
}

fn open_error(errno: Errno) -> ReadError {
    match errno {
        Errno::NOENT | Errno::NOTDIR => ReadError::Gone,
        Errno::LOOP | Errno::NXIO => ReadError::Replaced,
        other => ReadError::Unreadable(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use super::*;

    fn open(path: &Path) -> Result<SourceFile, ReadError> {
        SourceFile::open(path.as_os_str().as_bytes())
    }

    #[test]
    fn a_file_that_grows_while_it_is_read_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "begun").unwrap();
        let file = open(&path).unwrap();
        assert_eq!(file.bytes(), 5);
        file.unchanged().unwrap();
        File::options()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b" and went on")
            .unwrap();
        assert!(matches!(file.unchanged(), Err(ReadError::Changed)));
    }

    #[test]
    fn a_file_that_gets_shorter_while_it_is_read_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "long enough").unwrap();
        let file = open(&path).unwrap();
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(file.read(&mut [0; 11], 0), Err(ReadError::Changed)));
    }

    #[test]
    fn what_is_not_a_regular_file_is_never_opened_for_long() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(open(&dir.path().join("nothing")), Err(ReadError::Gone)));
        assert!(matches!(open(dir.path()), Err(ReadError::Replaced)));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
        assert!(matches!(open(&link), Err(ReadError::Replaced)));
    }

    #[test]
    fn regions_and_holes_add_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sparse");
        let mut file = File::create(&path).unwrap();
        file.seek(io::SeekFrom::Start(1 << 20)).unwrap();
        file.write_all(&[7; 4096]).unwrap();
        file.set_len(3 << 20).unwrap();
        drop(file);
        let regions = open(&path).unwrap().regions().unwrap();
        let total: u64 = regions
            .iter()
            .map(|region| match region {
                Region::Bytes { len, .. } | Region::Hole(len) => *len,
            })
            .sum();
        assert_eq!(total, 3 << 20);
        assert!(
            regions
                .iter()
                .any(|region| matches!(region, Region::Bytes { offset, len }
            if *offset <= 1 << 20 && offset + len >= (1 << 20) + 4096))
        );
    }
}
