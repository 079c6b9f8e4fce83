//! Reading a file once, and knowing whether what was read is one state of it.
//!
//! A file is examined before and after its bytes are read. Whatever else a program may do to it meanwhile, a change of its
//! bytes changes its ctime or its size: then the read is void. What says that it is empty is read to its end to know its
//! length: files of procfs, and of FUSE file systems that do not know it, are not empty.

use std::io;

use proto::log_record::{EntryKind, Meta};
use proto::size::{KIB, MIB};
use rustix::io::Errno;

use super::{FileStat, Next, OpenFile, Source};

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
    file: Box<dyn OpenFile>,
    stat: FileStat,
    /// Its length if the system does not say it.
    measured: Option<u64>,
}

impl SourceFile {
    /// Opens the regular file at `path`, never through a link at its end and never waiting for a pipe's writer.
    pub(crate) fn open(source: &dyn Source, path: &[u8]) -> Result<Self, ReadError> {
        let file = source.open_file(path).map_err(open_error)?;
        let stat = file.stat().map_err(ReadError::Unreadable)?;
        if stat.kind != EntryKind::File {
            return Err(ReadError::Replaced);
        }
        let measured = if stat.meta.size == 0 {
            measure(file.as_ref())?
        } else {
            None
        };
        Ok(Self { file, stat, measured })
    }

    /// Bytes by length.
    pub fn bytes(&self) -> u64 {
        self.measured.unwrap_or(self.stat.meta.size)
    }

    /// Modification time, nanoseconds since 1970.
    pub fn mtime_ns(&self) -> i64 {
        self.stat.meta.mtime_ns
    }

    /// Whether it was, when it was opened, what `meta` says: the same file, not touched since.
    pub fn is_as(&self, meta: &Meta) -> bool {
        let state = |meta: &Meta| (meta.inode, meta.size, meta.mtime_ns, meta.ctime_ns);
        state(&self.stat.meta) == state(meta)
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
        let now = self.file.stat().map_err(ReadError::Unreadable)?;
        let state = |meta: &Meta| (meta.size, meta.mtime_ns, meta.ctime_ns);
        Ok(state(&now.meta) == state(&self.stat.meta))
    }

    fn wrong_length(&self, how: &str) -> ReadError {
        let bytes = self.bytes();
        ReadError::WrongLength(format!("It {how} the {bytes} bytes that the system says it has"))
    }

    /// Fills `buffer` from `offset` on.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), ReadError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) if self.measured.is_none() && self.is_as_opened()? => {
                    return Err(self.wrong_length("ends before"));
                }
                Ok(0) => return Err(ReadError::Changed),
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::Unreadable(error)),
            }
        }
        Ok(())
    }

    /// The runs that the file is made of, in order. File systems that know no holes give one run of bytes.
    pub fn regions(&self) -> Result<Vec<Region>, ReadError> {
        let bytes = self.bytes();
        // A file system that does not know its length knows nothing of holes either.
        if self.measured.is_some() || self.stat.bytes_stored >= bytes {
            return Ok(vec![Region::Bytes { offset: 0, len: bytes }]);
        }
        let mut regions = Vec::new();
        let mut at = 0;
        while at < bytes {
            let begin = self.place(self.file.next_data(at), at)?.clamp(at, bytes);
            if begin > at {
                regions.push(Region::Hole(begin - at));
            }
            if begin == bytes {
                break;
            }
            let end = self.place(self.file.next_hole(begin), bytes)?.clamp(begin, bytes);
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
    fn place(&self, next: io::Result<Next>, unknown: u64) -> Result<u64, ReadError> {
        match next.map_err(ReadError::Unreadable)? {
            Next::At(offset) => Ok(offset),
            Next::End => Ok(self.bytes()),
            Next::Unknown => Ok(unknown),
        }
    }

    /// The metadata it was opened with.
    pub fn meta(&self) -> Meta {
        Meta {
            size: self.bytes(),
            xattrs: self.file.xattrs(),
            ..self.stat.meta.clone()
        }
    }
}

/// Reads a file to its end; its length, if it is not empty after all.
fn measure(file: &dyn OpenFile) -> Result<Option<u64>, ReadError> {
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

fn open_error(errno: Errno) -> ReadError {
    match errno {
        Errno::NOENT | Errno::NOTDIR => ReadError::Gone,
        Errno::LOOP | Errno::NXIO => ReadError::Replaced,
        other => ReadError::Unreadable(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek, Write};
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use super::*;
    use crate::source::local::LocalFiles;

    fn open(path: &Path) -> Result<SourceFile, ReadError> {
        SourceFile::open(&LocalFiles, path.as_os_str().as_bytes())
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
