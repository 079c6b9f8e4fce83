//! One directory of this machine as the system shows it: getdents and statx by directory descriptor, no file is opened.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use proto::log_record::{Content, Entry, EntryKind, Meta};
use proto::record::NAME_BYTES_MAX;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Statx, StatxFlags};
use rustix::io::Errno;

use super::{FileStat, Listing};

const NANOS: i64 = 1_000_000_000;
/// Bytes of one block of `stx_blocks`.
const STAT_BLOCK_BYTES: u64 = 512;

/// Opens a directory without following a link in its last component and, where allowed, without touching its atime.
pub(super) fn open_directory(parent: impl AsFd, name: impl rustix::path::Arg + Copy) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let parent = parent.as_fd();
    match rustix::fs::openat(parent, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(parent, name, flags, Mode::empty()),
        other => other,
    }
}

/// Lists an open directory.
pub(super) fn list(directory: &OwnedFd, buffer: &mut [MaybeUninit<u8>]) -> Result<Listing, Errno> {
    let mut listing = Listing::default();
    let mut dents = RawDir::new(directory, buffer);
    while let Some(dent) = dents.next() {
        let dent = dent?;
        let name = dent.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if name.to_bytes().len() > NAME_BYTES_MAX {
            listing.failed.push((name.to_bytes().to_vec(), Errno::NAMETOOLONG));
            continue;
        }
        match examine(directory, name) {
            Ok((kind, meta)) => listing.entries.push(Entry {
                name: name.to_bytes().to_vec(),
                kind,
                meta,
                content: Content::None,
            }),
            Err(Errno::NOENT) => {}
            Err(error) => listing.failed.push((name.to_bytes().to_vec(), error)),
        }
    }
    listing.entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(listing)
}

/// Kind and metadata of a name.
pub(super) fn examine(directory: impl AsFd, name: &CStr) -> Result<(EntryKind, Meta), Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS)?;
    Ok(from_statx(&stat))
}

/// What an open file or directory is.
pub(super) fn examine_open(file: impl AsFd) -> Result<FileStat, Errno> {
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    let (kind, meta) = from_statx(&stat);
    Ok(FileStat {
        kind,
        meta,
        bytes_stored: stat.stx_blocks.saturating_mul(STAT_BLOCK_BYTES),
    })
}

fn from_statx(stat: &Statx) -> (EntryKind, Meta) {
    let mode = u32::from(stat.stx_mode);
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Fifo => EntryKind::Fifo,
        FileType::CharacterDevice => EntryKind::CharDevice,
        FileType::BlockDevice => EntryKind::BlockDevice,
        FileType::Socket => EntryKind::Socket,
        _ => EntryKind::File,
    };
    let has_size = matches!(kind, EntryKind::File | EntryKind::Symlink);
    let is_device = matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice);
    let nanos = |secs: i64, nanos: u32| secs.saturating_mul(NANOS).saturating_add(i64::from(nanos));
    let meta = Meta {
        mode: mode & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mtime_ns: nanos(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        ctime_ns: nanos(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        size: if has_size { stat.stx_size } else { 0 },
        inode: stat.stx_ino,
        device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        links: stat.stx_nlink,
        rdev: if is_device {
            rustix::fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor)
        } else {
            0
        },
        xattrs: Vec::new(),
    };
    (kind, meta)
}
