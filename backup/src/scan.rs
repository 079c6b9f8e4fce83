//! The scanner: finds what changed since the last snapshot without reading any file's content.
//!
//! Roots lead to directories; each is listed and fingerprinted; what a fingerprint does not settle is compared with the
//! catalog; contents are decided; one transaction records it all. Reading files is left to the upload jobs.

mod compare;
mod contents;
mod details;
mod filter;
mod fingerprint;
mod listing;
mod outcome;
mod record;
mod roots;
mod walk;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use proto::id::DeviceId;
use proto::log_record::EntryKind;
use upload_queue::db::{Db, DbError};
use upload_queue::queue::Queue;

use self::fingerprint::Known;
use self::outcome::Outcome;
use self::walk::{Walk, WalkError};
use crate::catalog::tree::rows::{child_directory, current, join};
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
    db: &Db,
    queue: &Queue,
    options: &ScanOptions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<ScanSummary, ScanError> {
    let roots = roots::resolve(&options.roots)?;
    let known = db.read(Known::load)?;
    let walk = Walk::new(db, options, &known, progress);
    let mut outcome = Outcome::default();
    let tasks = roots::approach(&walk, &roots, &mut outcome)?;
    outcome.merge(walk.run(tasks).map_err(root_error)?);
    walk.report();
    follow_gone(db, &mut outcome)?;
    outcome.deltas.sort_unstable_by_key(|delta| delta.id);
    let needs = contents::decide(&mut outcome);
    let changed = |delta: &outcome::Delta| !delta.set.is_empty() || !delta.ended.is_empty();
    let unchanged = !outcome.deltas.iter().any(changed);
    let snapshot = db.write(|tx| record::record(tx, queue, options, roots, &mut outcome, &needs))?;
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
        unchanged,
    })
}

fn root_error(error: WalkError) -> ScanError {
    match error {
        WalkError::Db(error) => ScanError::Db(error),
        WalkError::Root { path, reason } => ScanError::Root {
            path: PathBuf::from(OsString::from_vec(path)),
            reason: std::io::Error::from(reason).to_string(),
        },
    }
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
