//! From posted log records back to rows: the inverse of `log`.
//!
//! Records may come again, for a snapshot that is known already: then they replace what that snapshot says of a name
//! and leave later snapshots alone, which is how amendments travel and why a replay that died can be run again.

use database::DbError;
use proto::id::DeviceId;
use proto::log_record::{Entry, EntryKind, LogRecord, PathBytes, SnapshotRecord};
use rusqlite::Transaction;

use super::rows::{
    EntryRow, NOWHERE, SLASH, child_directories, child_directory, directory_path, ensure_directory, history,
    note_change,
};
use super::walk::{Scope, scope};
use super::{Snapshot, left_out, rows, snapshots};

/// Applies log records, in the order in which they were posted, to a catalog that is being rebuilt.
pub struct Replay {
    device: DeviceId,
    snapshot: Option<u64>,
    directory: Option<i64>,
}

impl Replay {
    /// Starts with nothing known of the current snapshot and directory.
    pub fn new(device: DeviceId) -> Self {
        Self {
            device,
            snapshot: None,
            directory: None,
        }
    }

    /// Applies one record.
    pub fn apply(&mut self, tx: &Transaction<'_>, record: LogRecord) -> Result<(), DbError> {
        match record {
            LogRecord::Snapshot(record) => {
                self.snapshot = Some(record.seq);
                self.directory = None;
                self.begin(tx, record)
            }
            LogRecord::Directory(path) => {
                let id = ensure_directory(tx, &path)?;
                self.directory = Some(id);
                match self.snapshot {
                    Some(snapshot) => note_change(tx, snapshot, id),
                    None => Ok(()),
                }
            }
            LogRecord::Entry(entry) => match self.position(&entry.name) {
                Some((snapshot, directory)) => set(tx, snapshot, directory, entry),
                None => Ok(()),
            },
            LogRecord::Gone(name) => match self.position(&name) {
                Some((snapshot, directory)) => remove(tx, snapshot, directory, &name),
                None => Ok(()),
            },
            LogRecord::LeftOut(says) => match self.snapshot {
                Some(snapshot) => left_out::set_left_out(tx, snapshot, &says),
                None => Ok(()),
            },
        }
    }

    /// Where an entry of this name goes. A record out of place or with a name that is none is left out: its log is
    /// damaged in a way that only a faulty writer can bring about, and the rest of it is still worth having.
    fn position(&self, name: &[u8]) -> Option<(u64, i64)> {
        let (snapshot, directory) = (self.snapshot?, self.directory?);
        let place = if name.is_empty() && directory == SLASH {
            NOWHERE
        } else {
            directory
        };
        let valid = place == NOWHERE
            || (!matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, b'/' | 0)));
        if !valid {
            tracing::warn!(snapshot, name = %name.escape_ascii(), "a log record that names no file is left out");
        }
        valid.then_some((snapshot, place))
    }

    fn begin(&self, tx: &Transaction<'_>, record: SnapshotRecord) -> Result<(), DbError> {
        if snapshots::snapshot(tx, record.seq)?.is_some() {
            return Ok(());
        }
        let newest = snapshots::latest(tx)?.map(|snapshot| snapshot.record.seq);
        let (seq, parent) = (record.seq, record.parent);
        if record.parent.is_none() && newest.is_some_and(|newest| newest < seq) {
            close_scope(tx, seq, SLASH, &record.source_roots)?;
        }
        snapshots::insert(
            tx,
            &Snapshot {
                record,
                device: self.device,
            },
        )?;
        tx.execute("UPDATE snapshot SET published = 1 WHERE seq = ?", [seq])?;
        parent.map_or(Ok(()), |parent| left_out::inherit(tx, seq, parent))
    }
}

/// A full log is about to say what is there: until it does, nothing below its roots is.
fn close_scope(tx: &Transaction<'_>, snapshot: u64, directory: i64, roots: &[PathBytes]) -> Result<(), DbError> {
    let path = directory_path(tx, directory)?;
    match scope(roots, &path) {
        Scope::Outside => return Ok(()),
        Scope::Inside => return close_below(tx, snapshot, directory),
        Scope::Above => {}
    }
    for row in rows::current(tx, directory)? {
        let name = &row.entry.name;
        if scope(roots, &rows::join(&path, name)) == Scope::Inside {
            note_change(tx, snapshot, directory)?;
            rows::set_until(tx, directory, name, row.since, Some(snapshot))?;
        }
    }
    for child in child_directories(tx, directory)? {
        close_scope(tx, snapshot, child, roots)?;
    }
    Ok(())
}

/// Ends every row below a directory that is visible at `snapshot`, and takes away those that begin there.
pub(crate) fn close_below(tx: &Transaction<'_>, snapshot: u64, directory: i64) -> Result<(), DbError> {
    let mut pending = vec![directory];
    while let Some(directory) = pending.pop() {
        tx.prepare_cached("DELETE FROM entry WHERE directory = ? AND since = ?")?
            .execute((directory, snapshot))?;
        let ended = tx
            .prepare_cached(
                "UPDATE entry SET until = ?2 WHERE directory = ?1 AND since < ?2 AND (until IS NULL OR until > ?2)",
            )?
            .execute((directory, snapshot))?;
        if ended > 0 {
            note_change(tx, snapshot, directory)?;
        }
        pending.extend(child_directories(tx, directory)?);
    }
    Ok(())
}

/// From `snapshot` on, until the next row of the name, `entry` holds.
fn set(tx: &Transaction<'_>, snapshot: u64, directory: i64, entry: Entry) -> Result<(), DbError> {
    note_change(tx, snapshot, directory)?;
    let rows = history(tx, directory, &entry.name)?;
    let next = rows.iter().find(|row| row.since > snapshot).map(|row| row.since);
    let (before, at): (Vec<&EntryRow>, Vec<&EntryRow>) = rows
        .iter()
        .filter(|row| row.since <= snapshot)
        .partition(|row| row.since < snapshot);
    let before = before.last();
    let was = at.first().or(before).map(|row| row.entry.kind);
    if was == Some(EntryKind::Directory)
        && entry.kind != EntryKind::Directory
        && let Some(id) = child_directory(tx, directory, &entry.name)?
    {
        close_below(tx, snapshot, id)?;
    }
    if !at.is_empty() {
        return rows::update(tx, directory, snapshot, &entry);
    }
    let mut until = next;
    if let Some(before) = before {
        if before.visible_at(snapshot) && before.entry == entry {
            return Ok(());
        }
        if before.until == Some(snapshot) && before.entry == entry {
            return rows::set_until(tx, directory, &entry.name, before.since, next);
        }
        if before.visible_at(snapshot) {
            until = before.until;
            rows::set_until(tx, directory, &entry.name, before.since, Some(snapshot))?;
        }
    }
    let row = EntryRow {
        since: snapshot,
        until,
        suspect: false,
        entry,
    };
    rows::insert(tx, directory, &row)
}

/// From `snapshot` on, until the next row of the name, there is no such name.
fn remove(tx: &Transaction<'_>, snapshot: u64, directory: i64, name: &[u8]) -> Result<(), DbError> {
    note_change(tx, snapshot, directory)?;
    for row in history(tx, directory, name)? {
        if row.since == snapshot {
            rows::delete(tx, directory, name, snapshot)?;
        } else if row.visible_at(snapshot) {
            rows::set_until(tx, directory, name, row.since, Some(snapshot))?;
        } else {
            continue;
        }
        if row.entry.kind == EntryKind::Directory
            && let Some(id) = child_directory(tx, directory, name)?
        {
            close_below(tx, snapshot, id)?;
        }
    }
    Ok(())
}
