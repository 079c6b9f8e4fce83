//! What is read of an entry only when it is new or changed: extended attributes, link targets, tiny contents.
//!
//! A tiny file is opened here so that its content goes into the log; every larger one is read by its upload job.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::log_record::{Content, Entry, EntryKind, Meta, TINY_BYTES_MAX, XATTRS_BYTES_MAX, XATTRS_MAX, Xattr};
use proto::record::PATH_BYTES_MAX;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::listing::examine_open;

/// Largest value of an extended attribute and largest list of names that Linux has (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const XATTR_BYTES_MAX: usize = 64 * 1024;
/// First try for the list of names: a dozen of usual ones.
const XATTR_NAMES_BYTES: usize = 256;
/// Attributes named of those that an entry goes without. Chosen: a line stays a line.
const XATTRS_NAMED_MAX: usize = 3;
/// Longest clock tick that file times are taken from: 10 ms at `CONFIG_HZ=100`, doubled.
const TICK_NS: i64 = 20_000_000;
/// The tick of file systems that keep whole seconds or, as FAT does, pairs of them.
const COARSE_TICK_NS: i64 = 2_000_000_000;

/// When every later change of a file must show in its ctime: the tick it was last changed in is over.
///
/// A file that is changed, read, and changed again within one tick looks unchanged. Contents are therefore read only
/// after the tick: tiny ones here, larger ones by jobs that do not exist before the scan has waited.
pub(crate) fn settled_at_ns(meta: &Meta) -> i64 {
    let coarse = meta.ctime_ns % 1_000_000_000 == 0;
    meta.ctime_ns
        .saturating_add(if coarse { COARSE_TICK_NS } else { TICK_NS })
}

/// The clock that file times come from.
pub(crate) fn clock_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Longest wait for a tick to end; a file changed further in the future than that stays suspect.
pub(crate) const WAIT_NS_MAX: i64 = COARSE_TICK_NS;

/// Waits until `at_ns`, if that is soon.
pub(crate) fn wait_until(at_ns: i64) {
    let left = at_ns.saturating_sub(clock_ns());
    if (1..=WAIT_NS_MAX).contains(&left) {
        std::thread::sleep(Duration::from_nanos(left.unsigned_abs()));
    }
}

/// Fills in what the listing did not say; returns what the entry lacks then, for people. An error if nothing can be said
/// of it. Content stays `None` for a file that needs a version or is not settled.
pub(crate) fn complete(directory: &OwnedFd, entry: &mut Entry) -> Result<Option<String>, Errno> {
    let name = CString::new(entry.name.as_slice()).map_err(|_| Errno::INVAL)?;
    // There is no listxattrat before Linux 6.13; the descriptor's path reaches the entry however deep it is.
    let path = [
        format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(),
        name.to_bytes(),
    ]
    .concat();
    let lacks = complete_xattrs(&path, &mut entry.meta);
    match entry.kind {
        EntryKind::Symlink => {
            let target = rustix::fs::readlinkat(directory, name.as_c_str(), Vec::new())?.into_bytes();
            if target.len() > PATH_BYTES_MAX {
                return Err(Errno::NAMETOOLONG);
            }
            entry.content = Content::Inline(target);
        }
        // What says that it is empty may still have content: files of procfs and of many FUSE file systems.
        EntryKind::File if entry.meta.size == 0 || is_tiny_and_settled(&entry.meta) => {
            if let Some(bytes) = read_tiny(directory, &name, &entry.meta) {
                entry.content = Content::Inline(bytes);
            }
        }
        _ => {}
    }
    Ok(lacks)
}

fn is_tiny_and_settled(meta: &Meta) -> bool {
    is_tiny(meta) && settled_at_ns(meta) <= clock_ns()
}

pub(crate) fn is_tiny(meta: &Meta) -> bool {
    meta.size <= TINY_BYTES_MAX
}

/// The content of a tiny file, if it is still the file that was seen, before and after.
pub(crate) fn read_tiny(directory: impl AsFd, name: &CStr, seen: &Meta) -> Option<Vec<u8>> {
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
pub(crate) fn read_start(directory: impl AsFd, name: &CStr, limit: usize) -> Result<Vec<u8>, Errno> {
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

/// Reads the extended attributes of the entry at `path`; returns, for people, which of them it goes without.
pub(crate) fn complete_xattrs(path: &[u8], meta: &mut Meta) -> Option<String> {
    let (mut missed, mut why) = (Vec::new(), String::new());
    match xattrs(path) {
        Ok((found, unread)) => {
            meta.xattrs = found;
            for (name, errno) in unread {
                missed.push(name);
                why = std::io::Error::from(errno).to_string();
            }
        }
        Err(errno) => {
            let reason = std::io::Error::from(errno);
            return Some(format!("It is saved without its extended attributes: {reason}"));
        }
    }
    let dropped = meta.fit_xattrs();
    if !dropped.is_empty() {
        why = too_many_xattrs();
        missed.extend(dropped.into_iter().map(|xattr| xattr.name));
    }
    (!missed.is_empty()).then(|| without_xattrs(&missed, &why))
}

/// Why extended attributes may not fit.
pub(crate) fn too_many_xattrs() -> String {
    format!("at most {XATTRS_MAX} of together {XATTRS_BYTES_MAX} bytes are possible")
}

/// What an entry goes without.
pub(crate) fn without_xattrs(names: &[Vec<u8>], why: &str) -> String {
    let named = names
        .iter()
        .take(XATTRS_NAMED_MAX)
        .map(|name| name.escape_ascii().to_string());
    let more = if names.len() > XATTRS_NAMED_MAX { ", …" } else { "" };
    let named = named.collect::<Vec<_>>().join(", ");
    format!(
        "It is saved without {} of its extended attributes ({named}{more}): {why}",
        names.len()
    )
}

/// Attributes, and names of those that could not be read.
type Xattrs = (Vec<Xattr>, Vec<(Vec<u8>, Errno)>);

/// All extended attributes, sorted by name. Most entries have none, which one call tells.
fn xattrs(path: &[u8]) -> Result<Xattrs, Errno> {
    // Nearly all files have none or a few names: the buffer of the largest list is made only where it is needed.
    let mut names = vec![0u8; XATTR_NAMES_BYTES];
    let listed = rustix::fs::llistxattr(path, names.as_mut_slice()).or_else(|error| {
        if error != Errno::RANGE {
            return Err(error);
        }
        names.resize(XATTR_BYTES_MAX, 0);
        rustix::fs::llistxattr(path, names.as_mut_slice())
    });
    let len = match listed {
        Ok(len) => len,
        Err(errno) if is_none(errno) => 0,
        Err(errno) => return Err(errno),
    };
    names.truncate(len);
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    let mut value = vec![0u8; if len > 0 { XATTR_BYTES_MAX } else { 0 }];
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match rustix::fs::lgetxattr(path, name, value.as_mut_slice()) {
            Ok(len) => found.push(Xattr {
                name: name.to_vec(),
                value: value[..len].to_vec(),
            }),
            Err(errno) if is_none(errno) => {}
            Err(errno) => unread.push((name.to_vec(), errno)),
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((found, unread))
}

/// Whether an error says that there is nothing: a file system without attributes, one that went meanwhile.
fn is_none(errno: Errno) -> bool {
    matches!(errno, Errno::NOTSUP | Errno::NODATA | Errno::NOENT | Errno::NOSYS)
}
