//! A node's metadata as the kernel wants it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backup::view::{Node, Place};
use fuser::{FileAttr, FileType, INodeNo};
use proto::log_record::EntryKind;

/// Bytes of the units that `blocks` counts (stat(2)).
const BLOCK_BYTES: u64 = 512;
/// What `stat` says is a good length of reads. Chosen: what the kernel asks for at once.
const READ_BYTES: u32 = 128 * 1024;
/// A new snapshot appears so soon. Chosen: soon enough for people, late enough for `find`.
const LIST_KEPT: Duration = Duration::from_secs(1);
/// Entries of a snapshot only change while it is being made.
const ENTRY_KEPT: Duration = Duration::from_secs(60);

/// How long the kernel may keep what it was told of a node.
pub(super) fn kept(node: &Node) -> Duration {
    match node.place {
        Place::Entry { .. } => ENTRY_KEPT,
        _ => LIST_KEPT,
    }
}

/// The attributes of a node whose number is `number`. `bytes_on_disk` is its length without holes.
pub(super) fn attributes(node: &Node, number: u64, bytes_on_disk: u64) -> FileAttr {
    let meta = &node.entry.meta;
    let mtime = time(meta.mtime_ns);
    FileAttr {
        ino: INodeNo(number),
        size: meta.size,
        blocks: bytes_on_disk.div_ceil(BLOCK_BYTES),
        // When it was last read was not recorded.
        atime: mtime,
        mtime,
        ctime: time(meta.ctime_ns),
        crtime: mtime,
        kind: file_type(node.entry.kind),
        perm: (meta.mode & 0o7777) as u16,
        // 1 for a folder says that its subfolders cannot be counted by it.
        nlink: if node.has_other_names() { meta.links } else { 1 },
        uid: meta.uid,
        gid: meta.gid,
        rdev: device(meta.rdev),
        blksize: READ_BYTES,
        flags: 0,
    }
}

/// What kind of thing a node is.
pub(super) fn file_type(kind: EntryKind) -> FileType {
    match kind {
        EntryKind::File => FileType::RegularFile,
        EntryKind::Directory => FileType::Directory,
        EntryKind::Symlink => FileType::Symlink,
        EntryKind::Fifo => FileType::NamedPipe,
        EntryKind::CharDevice => FileType::CharDevice,
        EntryKind::BlockDevice => FileType::BlockDevice,
        EntryKind::Socket => FileType::Socket,
    }
}

/// A device number in the kernel's 32 bits (linux/kdev_t.h, `new_decode_dev`).
fn device(rdev: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12
}

/// Nanoseconds since 1970 as a time.
pub(super) fn time(ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    let time = if ns < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_the_kernels() {
        assert_eq!(device(rustix::fs::makedev(1, 3)), 0x103);
        assert_eq!(device(rustix::fs::makedev(7, 200)), 0x7c8);
        assert_eq!(device(rustix::fs::makedev(259, 0x12345)), 0x1231_0345);
    }

    #[test]
    fn times_before_1970_are_before_1970() {
        assert_eq!(UNIX_EPOCH.duration_since(time(-1)).unwrap(), Duration::from_nanos(1));
        assert_eq!(time(5).duration_since(UNIX_EPOCH).unwrap(), Duration::from_nanos(5));
    }
}
