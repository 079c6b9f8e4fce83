//! Putting right what a scan recorded, once the file was really read.
//!
//! Every correction marks its directory, so that the next scan compares it entry by entry, and is noted as an amendment,
//! so that the log of its snapshot is posted again.

use database::DbError;
use proto::id::VersionId;
use proto::log_record::{Content, EntryKind, Meta};
use rusqlite::{Connection, Transaction};

use super::rows::{EntryRow, history, place};
use super::{left_out, rows};

/// The file was read in another state than the scan saw: records the state it was read in, in the snapshot that names
/// `version`, and makes sure that the log of that snapshot is posted (again).
///
/// Extended attributes stay as they were if `meta` has none. How soon after its last change the file was read is not
/// known here, so the next scan takes it for changed.
pub fn amend(tx: &Transaction<'_>, version: VersionId, path: &[u8], meta: &Meta) -> Result<(), DbError> {
    for (directory, row) in rows_of(tx, version, path)? {
        let mut entry = row.entry.clone();
        let size_before = entry.meta.size;
        let xattrs = std::mem::take(&mut entry.meta.xattrs);
        entry.meta = meta.clone();
        if entry.meta.xattrs.is_empty() {
            entry.meta.xattrs = xattrs;
        }
        rows::update(tx, directory, row.since, &entry)?;
        tx.prepare_cached("UPDATE entry SET suspect = 1 WHERE directory = ? AND name = ? AND since = ?")?
            .execute((directory, &entry.name, row.since))?;
        let grown = meta.size.cast_signed().saturating_sub(size_before.cast_signed());
        recount(tx, &row, 0, grown)?;
        note(tx, row.since, directory, &entry.name)?;
    }
    Ok(())
}

/// The file could not be read: takes its entry out of the snapshot that names `version`; the entry before it stays
/// current when the file is still there (`vanished` false). Its directory will be looked at again by the next scan.
pub fn withdraw(tx: &Transaction<'_>, version: VersionId, path: &[u8], vanished: bool) -> Result<(), DbError> {
    for (directory, row) in rows_of(tx, version, path)? {
        let name = &row.entry.name;
        rows::delete(tx, directory, name, row.since)?;
        let before = history(tx, directory, name)?
            .into_iter()
            .find(|before| before.until == Some(row.since));
        match before {
            Some(before) if !vanished => {
                rows::set_until(tx, directory, name, before.since, row.until)?;
                let shrunk = before.entry.meta.size.cast_signed() - row.entry.meta.size.cast_signed();
                recount(tx, &row, 0, shrunk)?;
            }
            _ => {
                recount(tx, &row, -1, -row.entry.meta.size.cast_signed())?;
                if !vanished {
                    note_unread(tx, &row, directory)?;
                }
            }
        }
        note(tx, row.since, directory, name)?;
    }
    Ok(())
}

/// The rows that name `version`: at `path`, and at its other names.
fn rows_of(conn: &Connection, version: VersionId, path: &[u8]) -> Result<Vec<(i64, EntryRow)>, DbError> {
    let mut places: Vec<(i64, Vec<u8>)> = place(conn, path)?.into_iter().collect();
    let mut query = conn.prepare_cached("SELECT directory, name FROM alias WHERE version = ?")?;
    for alias in query.query_map([version.0.cast_signed()], |row| Ok((row.get(0)?, row.get(1)?)))? {
        places.push(alias?);
    }
    places.sort();
    places.dedup();
    let mut found = Vec::new();
    for (directory, name) in places {
        let rows = history(conn, directory, &name)?.into_iter();
        let rows = rows.filter(|row| row.entry.content == Content::Version(version));
        found.extend(
            rows.filter(|row| row.entry.kind == EntryKind::File)
                .map(|row| (directory, row)),
        );
    }
    Ok(found)
}

/// The snapshots at which `row` was visible are silent of a file that is there.
fn note_unread(tx: &Transaction<'_>, row: &EntryRow, directory: i64) -> Result<(), DbError> {
    let path = rows::join(&rows::directory_path(tx, directory)?, &row.entry.name);
    let seqs: Vec<u64> = {
        let mut query = tx.prepare_cached("SELECT seq FROM snapshot WHERE seq >= ?1 AND (?2 IS NULL OR seq < ?2)")?;
        let seqs = query.query_map((row.since, row.until), |row| row.get(0))?;
        seqs.collect::<Result<_, _>>()?
    };
    seqs.into_iter()
        .try_for_each(|seq| left_out::add_unread(tx, seq, &path))
}

/// The device of the file that `version` is of, as the newest scan saw it at `path`; `None` if it is not there any more.
pub fn current_device(conn: &Connection, version: VersionId, path: &[u8]) -> Result<Option<u64>, DbError> {
    let Some((directory, name)) = place(conn, path)? else {
        return Ok(None);
    };
    let mut current = history(conn, directory, &name)?.into_iter();
    let current = current.find(|row| row.until.is_none() && row.entry.content == Content::Version(version));
    Ok(current.map(|row| row.entry.meta.device))
}

/// Corrects the totals of the snapshots at which `row` is or was visible.
fn recount(tx: &Transaction<'_>, row: &EntryRow, files: i64, bytes: i64) -> Result<(), DbError> {
    let mut update = tx.prepare_cached(
        "UPDATE snapshot SET files = max(0, files + ?1), bytes = max(0, bytes + ?2)
         WHERE seq >= ?3 AND (?4 IS NULL OR seq < ?4)",
    )?;
    update.execute((files, bytes, row.since, row.until))?;
    Ok(())
}

/// Notes that what `snapshot` says of a name is another thing now.
pub(crate) fn note(tx: &Transaction<'_>, snapshot: u64, directory: i64, name: &[u8]) -> Result<(), DbError> {
    tx.prepare_cached("INSERT INTO amendment (snapshot, directory, name) VALUES (?, ?, ?)")?
        .execute((snapshot, directory, name))?;
    tx.prepare_cached("UPDATE directory SET fingerprint = NULL, marks = marks + 1 WHERE id = ?")?
        .execute([directory])?;
    Ok(())
}
