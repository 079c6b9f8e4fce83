//! Backup-log records: the tree as it was, as full or incremental logs (docs/format/backup-log.md).

use crate::id::{SnapshotId, VersionId};

/// One record of a backup log. A log is a `Snapshot`, then per directory (sorted by path bytes) a `Directory` followed by
/// its records sorted by name. A later record for the same path and snapshot replaces an earlier one.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub enum LogRecord {
    /// What follows belongs to this snapshot.
    #[n(0)]
    Snapshot(#[n(0)] SnapshotRecord),
    /// What follows is in this directory: absolute path bytes, `/` for the root.
    #[n(1)]
    Directory(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// An entry as it is from this snapshot on.
    #[n(2)]
    Entry(#[n(0)] Entry),
    /// A name that is not there any more from this snapshot on, with everything below it.
    #[n(3)]
    Gone(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

/// A snapshot in a log and in the root.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub struct SnapshotRecord {
    /// Sequence number on its device, from 1.
    #[n(0)]
    pub seq: u64,
    /// Its id.
    #[n(1)]
    pub id: SnapshotId,
    /// Nanoseconds since 1970 when its scan began.
    #[n(2)]
    pub time_ns: i64,
    /// The snapshot it was compared with.
    #[n(3)]
    pub parent: Option<u64>,
    /// Absolute paths it covers.
    #[n(4)]
    pub roots: Vec<PathBytes>,
    /// Non-directory entries in it.
    #[n(5)]
    pub files: u64,
    /// Bytes of their contents, by length.
    #[n(6)]
    pub bytes: u64,
}

/// A path or name of any bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct PathBytes(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

/// A name in a directory with all that is known of it but its content.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub struct Entry {
    /// One component, any bytes but `/` and NUL. The tree's root has the empty name.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// What it is.
    #[n(1)]
    pub kind: EntryKind,
    /// Its metadata.
    #[n(2)]
    pub meta: Meta,
    /// Where its content is.
    #[n(3)]
    pub content: Content,
}

/// File types.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum EntryKind {
    /// A regular file.
    #[n(0)]
    File,
    /// A directory.
    #[n(1)]
    Directory,
    /// A symbolic link; its target is `Content::Inline`.
    #[n(2)]
    Symlink,
    /// A named pipe.
    #[n(3)]
    Fifo,
    /// A character device.
    #[n(4)]
    CharDevice,
    /// A block device.
    #[n(5)]
    BlockDevice,
    /// A Unix socket.
    #[n(6)]
    Socket,
}

/// Metadata as `statx` and `listxattr` give it.
#[derive(Clone, PartialEq, Eq, Debug, Default, minicbor::Encode, minicbor::Decode)]
pub struct Meta {
    /// Permission bits with setuid, setgid, sticky: 12 bits.
    #[n(0)]
    pub mode: u32,
    /// Owner.
    #[n(1)]
    pub uid: u32,
    /// Group.
    #[n(2)]
    pub gid: u32,
    /// Nanoseconds since 1970.
    #[n(3)]
    pub mtime_ns: i64,
    /// Nanoseconds since 1970; not restored, used to tell change.
    #[n(4)]
    pub ctime_ns: i64,
    /// Bytes, by length; 0 for all but files and symlinks.
    #[n(5)]
    pub size: u64,
    /// Inode number on `device`, to tell moves and hard links.
    #[n(6)]
    pub inode: u64,
    /// File-system device number it was found on.
    #[n(7)]
    pub device: u64,
    /// Hard links to it; entries of a snapshot with equal (device, inode) and `links` > 1 are one file.
    #[n(8)]
    pub links: u32,
    /// Device number, for devices.
    #[n(9)]
    pub rdev: u64,
    /// Extended attributes, raw, sorted by name; POSIX ACLs are among them.
    #[n(10)]
    pub xattrs: Vec<Xattr>,
}

/// One extended attribute, raw.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub struct Xattr {
    /// Full name with its namespace.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// Raw value.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub value: Vec<u8>,
}

/// Where an entry's content is.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub enum Content {
    /// It has none: directories, pipes, devices, sockets.
    #[n(0)]
    None,
    /// Here: empty and tiny files (at most `TINY_BYTES_MAX`), symlink targets.
    #[n(1)]
    Inline(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// In the read-cap index, under this version.
    #[n(2)]
    Version(#[n(0)] VersionId),
}

/// Largest file content that a log record carries itself.
pub const TINY_BYTES_MAX: u64 = 128;
/// Largest file content that the read-cap index carries itself.
pub const VERY_SMALL_BYTES_MAX: u64 = 4096;
