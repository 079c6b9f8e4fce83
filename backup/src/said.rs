//! What is said to people: errors of the system in words that say what to do, and paths.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::io::Errno;

/// A program that served files (FUSE) was killed, and its mount answers nobody (`ENOTCONN`).
const DEAD_MOUNT: &str =
    "A mount whose program was killed is there; take it away with `umount -l`, as a plain user with `fusermount3 -uz`";

/// An error in words.
pub fn said(error: Errno) -> String {
    match error {
        Errno::NOTCONN => DEAD_MOUNT.to_owned(),
        other => io::Error::from(other).to_string(),
    }
}

/// The same of an error that came from the standard library.
pub fn said_io(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => said(Errno::from_raw_os_error(number)),
        None => error.to_string(),
    }
}

/// A path in the form that reports take.
pub fn path_buf(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}
