//! Source paths of any length: the kernel takes 4,095 bytes in one call, and trees can be deeper than that.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

/// Longest path that one call takes, without the NUL (`PATH_MAX` in linux/limits.h).
const CALL_BYTES_MAX: usize = 4095;

/// The part of a path that one call takes, and the folder that it begins at.
pub(crate) struct Reached {
    above: Option<OwnedFd>,
    /// Relative to the folder, or the whole path.
    pub rest: CString,
}

impl Reached {
    /// Where `rest` begins.
    pub fn above(&self) -> BorrowedFd<'_> {
        self.above.as_ref().map_or(CWD, AsFd::as_fd)
    }
}

/// Opens folder by folder until the rest of `path` fits in one call: at once for nearly all.
pub(crate) fn reach(path: &[u8]) -> Result<Reached, Errno> {
    let (mut above, mut rest) = (None, path);
    while rest.len() > CALL_BYTES_MAX {
        let cut = rest[..=CALL_BYTES_MAX].iter().rposition(|byte| *byte == b'/');
        let cut = cut.filter(|cut| *cut > 0).ok_or(Errno::NAMETOOLONG)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let from = above.as_ref().map_or(CWD, AsFd::as_fd);
        above = Some(rustix::fs::openat(from, &rest[..cut], flags, Mode::empty())?);
        let name = rest[cut..].iter().position(|byte| *byte != b'/').ok_or(Errno::ISDIR)?;
        rest = &rest[cut + name..];
    }
    let rest = CString::new(rest).map_err(|_| Errno::INVAL)?;
    Ok(Reached { above, rest })
}

/// Opens `path` as open(2) does.
pub(crate) fn open(path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let reached = reach(path)?;
    rustix::fs::openat(reached.above(), reached.rest.as_c_str(), flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn files_below_the_longest_path_of_one_call_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let mut path = folder.path().as_os_str().as_bytes().to_vec();
        let mut at = open(&path, OFlags::PATH).unwrap();
        let name = "n".repeat(240);
        for _ in 0..40 {
            rustix::fs::mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, name.as_str(), OFlags::PATH, Mode::empty()).unwrap();
            path.extend_from_slice(b"/");
            path.extend_from_slice(name.as_bytes());
        }
        let create = OFlags::CREATE | OFlags::WRONLY;
        let file = rustix::fs::openat(&at, "file", create, Mode::RWXU).unwrap();
        std::fs::File::from(file).write_all(b"deep").unwrap();
        path.extend_from_slice(b"/file");
        assert!(path.len() > 2 * CALL_BYTES_MAX);
        let opened = open(&path, OFlags::RDONLY).unwrap();
        assert_eq!(std::io::read_to_string(std::fs::File::from(opened)).unwrap(), "deep");
        path.push(b'x');
        assert_eq!(open(&path, OFlags::RDONLY).unwrap_err(), Errno::NOENT);
        assert_eq!(open(&[b'x'; 5000], OFlags::RDONLY).unwrap_err(), Errno::NAMETOOLONG);
    }
}
