//! The scanner: finds what changed since the last snapshot without reading any file's content.
//!
//! Roots lead to directories; each is listed and fingerprinted; what a fingerprint does not settle is compared with the
//! catalog; contents are decided; one transaction records it all. Reading files is left to the upload jobs.

mod absent;
mod compare;
mod contents;
mod filter;
mod fingerprint;
mod glance;
mod outcome;
mod record;
mod roots;
mod task;
mod walk;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use database::{Db, DbError};
use proto::id::DeviceId;
use proto::log_record::{EntryKind, SNAPSHOT_ROOTS_BYTES_MAX, SNAPSHOT_ROOTS_MAX};
use upload_queue::queue::Queue;

pub use self::glance::{Glance, glance};

use self::fingerprint::Known;
use self::outcome::Outcome;
use self::task::Scan;
use self::walk::Walk;
use crate::catalog::tree::rows::{child_directory, current, join};
use crate::exclude::Rules;
use crate::source::Source;
use crate::source::local::LocalFiles;

/// What to scan.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// Absolute folders or files; each is walked without crossing into other file systems unless it says so itself.
    pub roots: Vec<PathBuf>,
    /// What to leave out.
    pub rules: Rules,
    /// Folders to leave out with all below, by whatever way the walk comes to them: this program's own state.
    pub own_state: Vec<PathBuf>,
    /// Stop at mount points below a root.
    pub one_file_system: bool,
    /// What becomes of what was below mount points that are empty or gone now.
    pub emptied: Emptied,
    /// The device in whose name the snapshot is made.
    pub device: DeviceId,
    /// Now, nanoseconds since 1970.
    pub now_ns: i64,
}

/// What it means that a mount point has nothing of what it had, or a root is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Emptied {
    /// Its file system is not mounted: what is known of it stays.
    #[default]
    Unmounted,
    /// Somebody emptied it: what was there has gone.
    ForGood,
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
    /// Everything that the snapshot does not have as it is: what could not be looked at and what does not fit.
    pub failed: Vec<ScanFailure>,
    /// Folders in which a store of shares was left out.
    pub stores: Vec<PathBuf>,
    /// What is there and was left out by no rule: this program's own state, and the shares in those stores.
    pub left_out: Vec<PathBuf>,
    /// Nothing at all differs from the snapshot before.
    pub unchanged: bool,
}

/// Something that is not in the snapshot as it is; unless its kind says otherwise, what was known of it before stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanFailure {
    /// Which.
    pub path: PathBuf,
    /// What came of it.
    pub kind: FailureKind,
    /// Why.
    pub reason: String,
}

/// What came of something that could not be scanned as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// A root is not there: what was known at and below it stays.
    Missing,
    /// A mount point has nothing of what it had, or is gone, or a root is empty: what was known below it stays.
    Emptied,
    /// It could not be listed or examined: what was known at and below it stays.
    Unreadable,
    /// It is over a limit of the format, and left out.
    TooLong,
    /// It is there without some of its extended attributes.
    Incomplete,
    /// A root that is this program's own state, or in it: left out.
    OwnState,
}

/// The scan as a whole failed.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// No root is there or can be listed, and nothing was known of any.
    #[error("{}: {reason}", path.display())]
    Root {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// More roots than a snapshot has room for.
    #[error(
        "{count} paths of {bytes} bytes are too many for one snapshot ({SNAPSHOT_ROOTS_MAX} and {SNAPSHOT_ROOTS_BYTES_MAX} \
         bytes are possible): name the folder that they are in"
    )]
    TooManyRoots {
        /// How many.
        count: usize,
        /// How long they are together.
        bytes: usize,
    },
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Makes a snapshot: walks the roots with two threads, compares by directory fingerprint, then records entries, gone
/// names and upload jobs. All of a snapshot becomes visible at once; a scan that dies leaves nothing behind.
/// `progress` is called now and then with files and directories seen.
pub fn scan(
    db: &Db,
    queue: &Queue,
    options: &ScanOptions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<ScanSummary, ScanError> {
    scan_of(&LocalFiles, db, queue, options, progress)
}

/// A scan of any source.
pub(crate) fn scan_of(
    source: &dyn Source,
    db: &Db,
    queue: &Queue,
    options: &ScanOptions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<ScanSummary, ScanError> {
    let known = db.read(Known::load)?;
    let before = Scan::new(source, db, options, &known);
    let walk = Walk::new(&before, progress);
    let mut outcome = Outcome::default();
    let mut roots = roots::resolve(source, &options.roots);
    let tasks = roots::approach(&before, &mut roots, &mut outcome)?;
    outcome.merge(walk.run(tasks, &roots.nested)?);
    walk.report();
    if let Some(error) = outcome.nothing_was_read() {
        return Err(error);
    }
    outcome.withhold();
    follow_gone(db, &mut outcome)?;
    outcome.deltas.sort_unstable_by_key(|delta| delta.id);
    let needs = contents::decide(source, &mut outcome);
    let changed = |delta: &outcome::Delta| !delta.set.is_empty() || !delta.ended.is_empty();
    let unchanged = !outcome.deltas.iter().any(changed);
    let snapshot = db.write(|tx| record::record(tx, queue, options, roots.paths, &mut outcome, &needs))?;
    outcome.failed.sort_by(|a, b| a.path.cmp(&b.path));
    outcome.stores.sort();
    Ok(ScanSummary {
        snapshot,
        files_new: outcome.files_new,
        files_changed: outcome.files_changed,
        files_unmodified: outcome.files_unmodified,
        files_gone: outcome.files_gone,
        files: outcome.files,
        bytes: outcome.bytes,
        files_moved: needs.files_moved,
        failed: outcome.failed,
        stores: outcome.stores,
        left_out: outcome
            .left_out
            .into_iter()
            .map(|path| PathBuf::from(OsString::from_vec(path)))
            .collect(),
        unchanged,
    })
}

/// Looks up what was below the directories that have gone: it has gone too, or it moved.
fn follow_gone(db: &Db, outcome: &mut Outcome) -> Result<(), DbError> {
    let mut pending = std::mem::take(&mut outcome.gone_directories);
    outcome.gone_directories.clone_from(&pending);
    while let Some((parent, parent_path, name)) = pending.pop() {
        let path = join(&parent_path, &name);
        let found = db.read(|conn| {
            let Some(id) = child_directory(conn, parent, &name)? else {
                return Ok::<_, DbError>(None);
            };
            Ok(Some((id, current(conn, id)?)))
        })?;
        let Some((id, rows)) = found else { continue };
        for row in rows {
            if row.entry.kind == EntryKind::Directory {
                pending.push((id, path.clone(), row.entry.name));
            } else {
                outcome.files_gone += 1;
                outcome.offer(id, &path, row);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
