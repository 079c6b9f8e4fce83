//! What cannot be looked at now: it stays as it is known, and is named.
//!
//! A disk that is not mounted looks like a folder that somebody emptied, or removed. What tells them apart is that it was a
//! mount point when it was last listed, and is none now. A root that is empty is one in either case: nobody names an empty
//! folder for its backup.

use database::DbError;
use proto::log_record::EntryKind;
use proto::record::NAME_BYTES_MAX;
use rustix::io::Errno;

use super::compare::{Comparison, compare};
use super::filter::Filtered;
use super::fingerprint::{KnownDirectory, path_hash};
use super::outcome::Outcome;
use super::task::{Scan, Task, delta};
use super::{Emptied, FailureKind};
use crate::catalog::tree::rows;
use crate::catalog::tree::rows::EntryRow;
use crate::said::said;
use crate::source::Listing;

/// What is said of a mount point that has nothing of what it had.
const NOT_MOUNTED: &str = "Nothing is mounted here any more; what was in it is kept as it was. Mount it again, or, if it was \
                           emptied for good, run `gridbackup run --once --accept-emptied`";

/// What is said of a root that is empty and was not.
const EMPTY: &str = "It is empty now and was not before; what was in it is kept as it was. Mount it again, or, if it was \
                     emptied for good, run `gridbackup run --once --accept-emptied`";

impl Scan<'_> {
    /// Ends all that is known below a mount point that is no longer entered.
    pub(super) fn close(&self, task: &Task, outcome: &mut Outcome) -> Result<(), DbError> {
        let Some(known) = task.known else { return Ok(()) };
        let mut found = compare(Listing::default(), self.db.read(|conn| rows::current(conn, known.id))?);
        if self.known.mount_points.contains(&task.id) {
            outcome.mount_points.push((task.id, false));
        }
        if !found.gone.is_empty() {
            let ended = outcome.count(task.id, &task.path, &mut found);
            outcome.deltas.push(delta(task, None, Vec::new(), ended));
        }
        Ok(())
    }

    /// Why what is known of a directory is kept although it has nothing of it any more: it was a mount point and is none now,
    /// or it is a root and empty.
    pub(super) fn emptied(&self, task: &Task, listing: &Listing) -> Result<Option<&'static str>, DbError> {
        let was_mounted = self.known.mount_points.contains(&task.id) && !task.is_mount_point;
        let is_empty_root = task.is_root && listing.entries.is_empty() && listing.failed.is_empty();
        let (Some(known), true) = (task.known, was_mounted || is_empty_root) else {
            return Ok(None);
        };
        if self.options.emptied == Emptied::ForGood {
            return Ok(None);
        }
        let current = self.db.read(|conn| rows::current(conn, known.id))?;
        let is_there = |row: &EntryRow| {
            let at = listing
                .entries
                .binary_search_by(|entry| entry.name.cmp(&row.entry.name));
            at.is_ok()
        };
        if current.is_empty() || current.iter().any(is_there) {
            return Ok(None);
        }
        Ok(Some(if was_mounted { NOT_MOUNTED } else { EMPTY }))
    }

    /// Mount points that are gone, with what they had, may only be unmounted: desktops remove the folder then. Returns
    /// whether there were none.
    pub(super) fn keep_unmounted(
        &self,
        task: &Task,
        filtered: &Filtered,
        found: &mut Comparison,
        outcome: &mut Outcome,
    ) -> Result<bool, DbError> {
        if self.options.emptied == Emptied::ForGood {
            return Ok(true);
        }
        let (mut gone, mut none) = (Vec::new(), true);
        for row in std::mem::take(&mut found.gone) {
            let child = self.known.get(&path_hash(&task.hash, &row.entry.name)).copied();
            let child = child.filter(|child| {
                let is_left_out = filtered.directories.binary_search(&row.entry.name).is_ok();
                row.entry.kind == EntryKind::Directory && self.known.mount_points.contains(&child.id) && !is_left_out
            });
            if child.is_none() {
                gone.push(row);
                continue;
            }
            none = false;
            let path = rows::join(&task.path, &row.entry.name);
            outcome.fail(path, FailureKind::Emptied, NOT_MOUNTED);
            self.keep_known(child, outcome)?;
            found.unmodified.push(row);
        }
        found.gone = gone;
        Ok(none)
    }

    /// What the entries of a directory lacked when they were recorded.
    pub(super) fn lacking(&self, task: &Task) -> &[(Vec<u8>, String)] {
        self.known.lacking.get(&task.id).map_or(&[], Vec::as_slice)
    }

    /// Says again what is lacking of those entries of a directory that are as they were.
    pub(super) fn say_lacking(&self, task: &Task, is_as_it_was: impl Fn(&[u8]) -> bool, outcome: &mut Outcome) {
        for (name, reason) in self.lacking(task) {
            if is_as_it_was(name) {
                outcome.fail(rows::join(&task.path, name), FailureKind::Incomplete, reason.as_str());
            }
        }
    }

    /// A directory cannot be looked at: what is known of it and of all below stays.
    pub(super) fn keep(
        &self,
        task: &Task,
        kind: FailureKind,
        reason: impl Into<String>,
        outcome: &mut Outcome,
    ) -> Result<(), DbError> {
        outcome.fail(task.path.clone(), kind, reason);
        outcome.roots_known += usize::from(task.is_root && task.known.is_some());
        self.keep_known(task.known, outcome)
    }

    /// Counts what is known of a directory and of all below: it stays in the snapshot.
    pub(super) fn keep_known(&self, known: Option<KnownDirectory>, outcome: &mut Outcome) -> Result<(), DbError> {
        let mut pending: Vec<i64> = known.iter().map(|known| known.id).collect();
        while let Some(id) = pending.pop() {
            let (current, below) = self
                .db
                .read(|conn| Ok::<_, DbError>((rows::current(conn, id)?, rows::child_directories(conn, id)?)))?;
            for row in current.iter().filter(|row| row.entry.kind != EntryKind::Directory) {
                outcome.files += 1;
                outcome.files_unmodified += 1;
                outcome.bytes += if row.entry.kind == EntryKind::File {
                    row.entry.meta.size
                } else {
                    0
                };
            }
            pending.extend(below);
        }
        Ok(())
    }
}

/// An entry that could not be examined.
pub(super) fn fail_entry(path: Vec<u8>, reason: Errno, outcome: &mut Outcome) {
    match reason {
        Errno::NAMETOOLONG => {
            let reason = format!("Its name or target is too long ({NAME_BYTES_MAX} bytes of a name are possible)");
            outcome.fail(path, FailureKind::TooLong, reason);
        }
        reason => outcome.fail(path, FailureKind::Unreadable, said(reason)),
    }
}

/// Why a directory could not be listed.
pub(super) fn unlisted(reason: Errno) -> String {
    match reason {
        Errno::STALE => "It was replaced while it was looked at".to_owned(),
        reason => said(reason),
    }
}
