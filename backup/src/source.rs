//! Trees of files as the source of a backup: folders listed, entries examined, contents read once.
//!
//! The scanner and the preparer look at files through these traits alone: `Source` is a tree, asked by absolute paths, `Folder`
//! an open folder of it, asked by names, `OpenFile` a file that is being read. A source gives facts. What follows from them is
//! decided once, above it, for every source alike: what an entry still lacks and when a small content may be taken
//! (`details`), and whether what was read is one state of a file (`read_file`). docs/decisions/0060-source-trait.md says what a
//! source promises, what a remote one will have to bring, and what stays out of here: watching for changes, freezing a tree.
//!
//! One call is made for a folder, a file or a window of a file, never for a byte.

use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::log_record::{Entry, EntryKind, Meta, Xattr};
use rustix::io::Errno;

mod listing;
pub(crate) mod local;
pub(crate) mod long_path;

pub(crate) mod details;
pub(crate) mod read_file;

/// Room that a thread lists folders with. Chosen: a folder of some hundred names takes one call of getdents.
const LIST_BUFFER_BYTES: usize = 32 * 1024;

/// A tree of files. Paths are absolute, of any bytes but NUL and of any length; errors are the numbers of the system that the
/// tree is on, because they are said to people and a few of them mean something: see each call.
pub(crate) trait Source: Sync {
    /// The path without links, as realpath(3) has it.
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf>;

    /// Whether a path leads, by all its links, to a folder; an error if to nothing. A file system that mounts itself when
    /// somebody comes is mounted.
    fn leads_to_folder(&self, path: &Path) -> io::Result<bool>;

    /// Where the link at a path leads.
    fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, Errno>;

    /// Kind and metadata, without extended attributes, of what is at a path; a link at its end is itself.
    fn examine(&self, path: &[u8]) -> Result<(EntryKind, Meta), Errno>;

    /// A folder to ask for names in it. It may be one that cannot be listed.
    fn reach_folder(&self, path: &[u8]) -> Result<Box<dyn Folder>, Errno>;

    /// A folder to be listed; never one that a link at the path's end leads to.
    fn open_folder(&self, path: &[u8]) -> Result<Box<dyn Folder>, Errno>;

    /// A file to be read, as `Folder::open_file`. `NOENT` and `NOTDIR`: nothing is there; `LOOP` and `NXIO`: no file is.
    fn open_file(&self, path: &[u8]) -> Result<Box<dyn OpenFile>, Errno>;

    /// The clock that its change times are taken from.
    fn now_ns(&self) -> i64;

    /// Returns when that clock is this much further.
    fn wait(&self, time: Duration);
}

/// An open folder: it stays the one that was opened, whatever becomes of its name.
pub(crate) trait Folder: Send + Sync {
    /// Inode and device: what tells it from one that has its name now.
    fn identity(&self) -> Result<(u64, u64), Errno>;

    /// All that is in it, examined without opening anything. What goes meanwhile is not in it.
    fn list(&self, buffer: &mut ListBuffer) -> Result<Listing, Errno>;

    /// A folder in it; never one that a link leads to. `NOENT`, `NOTDIR`, `LOOP`: the name is no folder any more.
    fn open_folder(&self, name: &[u8]) -> Result<Box<dyn Folder>, Errno>;

    /// What is in it, to be read. Never follows a link, never waits for a pipe's writer and, where that is possible, leaves
    /// the time of its last access alone. It may be no regular file: `OpenFile::stat` tells.
    fn open_file(&self, name: &[u8]) -> Result<Box<dyn OpenFile>, Errno>;

    /// Where a link in it leads.
    fn read_link(&self, name: &[u8]) -> Result<Vec<u8>, Errno>;

    /// Extended attributes of what is in it, sorted by name; `.` is the folder itself. A link is itself. None where there are
    /// no such attributes.
    fn xattrs(&self, name: &[u8]) -> Result<Xattrs, Errno>;
}

/// An open file: it stays the one that was opened, whatever becomes of its name.
pub(crate) trait OpenFile {
    /// What it is now, not what it was when it was opened. A change of its bytes moves its ctime or its size.
    fn stat(&self) -> io::Result<FileStat>;

    /// Reads from `offset` on, at most until `buffer` is full; returns how much. Nothing: there is no more.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Its first bytes, up to `limit`. Asked once, before anything else is read.
    fn read_start(&self, limit: usize) -> io::Result<Vec<u8>>;

    /// Where the next byte that is stored lies, from `offset` on.
    fn next_data(&self, offset: u64) -> io::Result<Next>;

    /// Where the next hole begins, from `offset` on.
    fn next_hole(&self, offset: u64) -> io::Result<Next>;

    /// Its extended attributes, sorted by name, as far as they can be read.
    fn xattrs(&self) -> Vec<Xattr>;
}

/// Entries of a folder, sorted by name, without extended attributes and contents.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub entries: Vec<Entry>,
    /// Names that are there but could not be examined.
    pub failed: Vec<(Vec<u8>, Errno)>,
}

/// Extended attributes, and names of those that could not be read.
#[derive(Debug, Default)]
pub(crate) struct Xattrs {
    pub found: Vec<Xattr>,
    pub unread: Vec<(Vec<u8>, Errno)>,
}

/// What a file is while it is open.
#[derive(Clone, Debug)]
pub(crate) struct FileStat {
    pub kind: EntryKind,
    /// Without extended attributes.
    pub meta: Meta,
    /// Fewer than its length if it has holes.
    pub bytes_stored: u64,
}

/// Where something is in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    At(u64),
    /// Nowhere up to the end.
    End,
    /// The file system knows of no holes.
    Unknown,
}

/// A thread's room for listing folders, for sources that need any.
pub(crate) struct ListBuffer(Vec<MaybeUninit<u8>>);

impl ListBuffer {
    pub fn new() -> Self {
        Self(vec![MaybeUninit::uninit(); LIST_BUFFER_BYTES])
    }
}

#[cfg(test)]
pub(crate) mod tests;
