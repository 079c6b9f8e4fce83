//! What is in a snapshot.

use jiff::Timestamp;
use proto::log_record;
use serde::{Deserialize, Serialize};

use super::PathName;
use crate::named::named;

/// An entry of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Absolute path.
    #[serde(flatten)]
    pub path: PathName,
    /// What it is.
    pub kind: EntryKind,
    /// Length.
    pub bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Id of the snapshot.
    pub snapshot: String,
    /// Where a symlink points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_target: Option<String>,
    /// `find`: the oldest snapshot that shows it so; `snapshot` is the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_snapshot: Option<String>,
    /// `find`: how many snapshots show it so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<u64>,
}

named! {
    /// What an entry of a snapshot is.
    pub enum EntryKind {
        /// A regular file.
        File = "file",
        /// A folder.
        Directory = "directory",
        /// A symbolic link.
        Symlink = "symlink",
        /// A named pipe.
        Fifo = "fifo",
        /// A Unix socket.
        Socket = "socket",
        /// A character device.
        CharDevice = "char_device",
        /// A block device.
        BlockDevice = "block_device",
        /// An object of a bucket, as `publish diff` has them: no snapshot has any.
        Object = "object",
    }
}

impl From<log_record::EntryKind> for EntryKind {
    fn from(kind: log_record::EntryKind) -> Self {
        match kind {
            log_record::EntryKind::File => Self::File,
            log_record::EntryKind::Directory => Self::Directory,
            log_record::EntryKind::Symlink => Self::Symlink,
            log_record::EntryKind::Fifo => Self::Fifo,
            log_record::EntryKind::Socket => Self::Socket,
            log_record::EntryKind::CharDevice => Self::CharDevice,
            log_record::EntryKind::BlockDevice => Self::BlockDevice,
        }
    }
}
