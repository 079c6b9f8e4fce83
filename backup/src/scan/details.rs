//! What is read of an entry only when it is new or changed: extended attributes, link targets, tiny contents.
//!
//! A tiny file is opened here so that its content goes into the log; every larger one is read by its upload job.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::log_record::{Content, Entry, EntryKind, Meta, TINY_BYTES_MAX, Xattr};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::listing::examine_open;

/// Largest value of an extended attribute and largest list of names that Linux has (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const XATTR_BYTES_MAX: usize = 64 * 1024;
/// First try for the list of names: a dozen of usual ones.
const XATTR_NAMES_BYTES: usize = 256;
/// Longest clock tick that file times are taken from: 10 ms at `CONFIG_HZ=100`, doubled.
const TICK_NS: i64 = 20_000_000;
/// The tick of file systems that keep whole seconds or, as FAT does, pairs of them.
const COARSE_TICK_NS: i64 = 2_000_000_000;

/// When every later change of a file must show in its ctime: the tick it was last changed in is over.
///
/// A file that is changed, read, and changed again within one tick looks unchanged. Contents are therefore read only
/// after the tick: tiny ones here, larger ones by jobs that do not exist before the scan has waited.
pub(super) fn settled_at_ns(meta: &Meta) -> i64 {
    let coarse = meta.ctime_ns % 1_000_000_000 == 0;
    meta.ctime_ns
        .saturating_add(if coarse { COARSE_TICK_NS } else { TICK_NS })
}

/// The clock that file times come from.
pub(super) fn clock_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Longest wait for a tick to end; a file changed further in the future than that stays suspect.
pub(super) const WAIT_NS_MAX: i64 = COARSE_TICK_NS;

/// Waits until `at_ns`, if that is soon.
pub(super) fn wait_until(at_ns: i64) {
    let left = at_ns.saturating_sub(clock_ns());
    if (1..=WAIT_NS_MAX).contains(&left) {
        std::thread::sleep(Duration::from_nanos(left.unsigned_abs()));
    }
}

/// Fills in what the listing did not say. Content stays `None` for a file that needs a version or is not settled.
pub(super) fn complete(directory: &OwnedFd, entry: &mut Entry) {
    let Ok(name) = CString::new(entry.name.as_slice()) else {
        return;
    };
    entry.meta.xattrs = xattrs(directory, &name);
    match entry.kind {
        EntryKind::Symlink => {
            let target = rustix::fs::readlinkat(directory, name.as_c_str(), Vec::new());
            entry.content = Content::Inline(target.map(CString::into_bytes).unwrap_or_default());
        }
        EntryKind::File if entry.meta.size == 0 => entry.content = Content::Inline(Vec::new()),
        EntryKind::File if is_tiny(&entry.meta) && settled_at_ns(&entry.meta) <= clock_ns() => {
            if let Some(bytes) = read_tiny(directory, &name, &entry.meta) {
                entry.content = Content::Inline(bytes);
            }
        }
        _ => {}
    }
}

pub(super) fn is_tiny(meta: &Meta) -> bool {
    meta.size <= TINY_BYTES_MAX
}

/// The content of a tiny file, if it is still the file that was seen, before and after.
pub(super) fn read_tiny(directory: impl AsFd, name: &CStr, seen: &Meta) -> Option<Vec<u8>> {
    let limit = usize::try_from(TINY_BYTES_MAX).ok()? + 1;
    let (file, before) = open_file(directory, name).ok()?;
    let bytes = read_up_to(&file, limit).ok()?;
    let (kind, after) = examine_open(&file).ok()?;
    let as_seen = |meta: &Meta| {
        (meta.inode, meta.device, meta.size, meta.mtime_ns, meta.ctime_ns)
            == (seen.inode, seen.device, seen.size, seen.mtime_ns, seen.ctime_ns)
    };
    let whole = u64::try_from(bytes.len()).is_ok_and(|len| len == seen.size);
    (kind == EntryKind::File && as_seen(&before) && as_seen(&after) && whole).then_some(bytes)
}

/// The first bytes of a regular file.
pub(super) fn read_start(directory: impl AsFd, name: &CStr, limit: usize) -> Result<Vec<u8>, Errno> {
    let (file, _) = open_file(directory, name)?;
    read_up_to(&file, limit)
}

fn open_file(directory: impl AsFd, name: &CStr) -> Result<(OwnedFd, Meta), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let directory = directory.as_fd();
    let file = match rustix::fs::openat(directory, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(directory, name, flags, Mode::empty())?,
        other => other?,
    };
    let (_, meta) = examine_open(&file)?;
    Ok((file, meta))
}

fn read_up_to(file: &OwnedFd, limit: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; limit];
    let mut len = 0;
    while len < limit {
        match rustix::io::read(file, &mut bytes[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// All extended attributes that can be read, sorted by name. Most entries have none, which one call tells.
fn xattrs(directory: &OwnedFd, name: &CStr) -> Vec<Xattr> {
    // There is no listxattrat before Linux 6.13; the descriptor's path reaches the entry however deep it is.
    let path = [
        format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(),
        name.to_bytes(),
    ]
    .concat();
    xattrs_at(&path)
}

/// As `xattrs`, by path.
pub(super) fn xattrs_at(path: &[u8]) -> Vec<Xattr> {
    // Nearly all files have none or a few names: the buffer of the largest list is made only where it is needed.
    let mut names = vec![0u8; XATTR_NAMES_BYTES];
    let listed = rustix::fs::llistxattr(path, names.as_mut_slice()).or_else(|error| {
        if error != Errno::RANGE {
            return Err(error);
        }
        names.resize(XATTR_BYTES_MAX, 0);
        rustix::fs::llistxattr(path, names.as_mut_slice())
    });
    let Ok(len @ 1..) = listed else {
        return Vec::new();
    };
    names.truncate(len);
    let mut value = vec![0u8; XATTR_BYTES_MAX];
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if let Ok(len) = rustix::fs::lgetxattr(path, name, value.as_mut_slice()) {
            found.push(Xattr {
                name: name.to_vec(),
                value: value[..len].to_vec(),
            });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}
