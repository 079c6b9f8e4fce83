//! What is read of an entry only when it is new or changed: extended attributes, link targets, tiny contents.
//!
//! A tiny file is opened here so that its content goes into the log; every larger one is read by its upload job.

use std::io;
use std::time::Duration;

use proto::log_record::{Content, Entry, EntryKind, Meta, TINY_BYTES_MAX, XATTRS_BYTES_MAX, XATTRS_MAX};
use proto::record::PATH_BYTES_MAX;
use rustix::io::Errno;

use super::{Folder, OpenFile, Source, Xattrs};

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

/// Longest wait for a tick to end; a file changed further in the future than that stays suspect.
pub(crate) const WAIT_NS_MAX: i64 = COARSE_TICK_NS;

/// Waits until `at_ns`, if that is soon.
pub(crate) fn wait_until(source: &dyn Source, at_ns: i64) {
    let left = at_ns.saturating_sub(source.now_ns());
    if (1..=WAIT_NS_MAX).contains(&left) {
        source.wait(Duration::from_nanos(left.unsigned_abs()));
    }
}

/// Fills in what the listing did not say of an entry in `folder`, which without a name is the folder; returns what it lacks
/// then, for people. An error if nothing can be said of it. Content stays `None` for a file that needs a version or is not
/// settled.
pub(crate) fn complete(source: &dyn Source, folder: &dyn Folder, entry: &mut Entry) -> Result<Option<String>, Errno> {
    let name = match entry.name.as_slice() {
        b"" => b".",
        name => name,
    };
    let lacks = complete_xattrs(folder.xattrs(name), &mut entry.meta);
    match entry.kind {
        EntryKind::Symlink => {
            let target = folder.read_link(name)?;
            if target.len() > PATH_BYTES_MAX {
                return Err(Errno::NAMETOOLONG);
            }
            entry.content = Content::Inline(target);
        }
        // What says that it is empty may still have content: files of procfs and of many FUSE file systems.
        EntryKind::File if entry.meta.size == 0 || is_tiny_and_settled(&entry.meta, source.now_ns()) => {
            if let Some(bytes) = read_tiny(folder.open_file(name), &entry.meta) {
                entry.content = Content::Inline(bytes);
            }
        }
        _ => {}
    }
    Ok(lacks)
}

fn is_tiny_and_settled(meta: &Meta, now_ns: i64) -> bool {
    is_tiny(meta) && settled_at_ns(meta) <= now_ns
}

pub(crate) fn is_tiny(meta: &Meta) -> bool {
    meta.size <= TINY_BYTES_MAX
}

/// The content of a tiny file, if it is still the file that was seen, before and after.
pub(crate) fn read_tiny(opened: Result<Box<dyn OpenFile>, Errno>, seen: &Meta) -> Option<Vec<u8>> {
    let limit = usize::try_from(TINY_BYTES_MAX).ok()? + 1;
    let file = opened.ok()?;
    let before = file.stat().ok()?;
    let bytes = file.read_start(limit).ok()?;
    let after = file.stat().ok()?;
    let as_seen = |meta: &Meta| {
        (meta.inode, meta.device, meta.size, meta.mtime_ns, meta.ctime_ns)
            == (seen.inode, seen.device, seen.size, seen.mtime_ns, seen.ctime_ns)
    };
    let whole = u64::try_from(bytes.len()).is_ok_and(|len| len == seen.size);
    (after.kind == EntryKind::File && as_seen(&before.meta) && as_seen(&after.meta) && whole).then_some(bytes)
}

/// The first bytes of a regular file.
pub(crate) fn read_start(folder: &dyn Folder, name: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    folder.open_file(name)?.read_start(limit)
}

/// Takes over the extended attributes of an entry; returns, for people, which of them it goes without.
fn complete_xattrs(read: Result<Xattrs, Errno>, meta: &mut Meta) -> Option<String> {
    let (mut missed, mut why) = (Vec::new(), String::new());
    match read {
        Ok(Xattrs { found, unread }) => {
            meta.xattrs = found;
            for (name, errno) in unread {
                missed.push(name);
                why = io::Error::from(errno).to_string();
            }
        }
        Err(errno) => {
            let reason = io::Error::from(errno);
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
fn without_xattrs(names: &[Vec<u8>], why: &str) -> String {
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
