//! The scanner: finds what changed since the last snapshot without reading any file's content.

use std::path::PathBuf;

use proto::id::DeviceId;
use upload_queue::db::{Db, DbError};
use upload_queue::queue::Queue;

use crate::exclude::Rules;

/// What to scan.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// Absolute folders or files; each is walked without crossing into other file systems unless it says so itself.
    pub roots: Vec<PathBuf>,
    /// What to leave out.
    pub rules: Rules,
    /// Stop at mount points below a root.
    pub one_file_system: bool,
    /// The device in whose name the snapshot is made.
    pub device: DeviceId,
    /// Now, nanoseconds since 1970.
    pub now_ns: i64,
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanSummary {
    /// Sequence number of the snapshot made.
    pub snapshot: u64,
    /// Files (non-directories) that were not there before.
    pub files_new: u64,
    /// Files that differ from before.
    pub files_changed: u64,
    /// Files that are as before.
    pub files_unmodified: u64,
    /// Files that were there before.
    pub files_gone: u64,
    /// Files in the snapshot.
    pub files: u64,
    /// Bytes in the snapshot, by length.
    pub bytes: u64,
    /// New or changed files whose content was recognised without reading: moved, or another name of a hard link.
    pub files_moved: u64,
    /// Directories that could not be listed, entries that could not be examined.
    pub failed: Vec<ScanFailure>,
    /// Nothing at all differs from the snapshot before.
    pub unchanged: bool,
}

/// Something that could not be scanned; what was known of it before stays as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanFailure {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// The scan as a whole failed.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A root is not there or cannot be listed: nothing below it is taken for gone.
    #[error("{} cannot be read: {reason}; is it mounted?", path.display())]
    Root {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Makes a snapshot: walks the roots with two threads, compares by directory fingerprint, then records entries, gone
/// names and upload jobs. All of a snapshot becomes visible at once; a scan that dies leaves nothing behind.
/// `progress` is called now and then with files and directories seen.
pub fn scan(
    _db: &Db,
    _queue: &Queue,
    _options: &ScanOptions,
    _progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<ScanSummary, ScanError> {
    todo!()
}
