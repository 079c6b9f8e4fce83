//! The tree as backup-log records, to be posted: full, incremental, or what was amended since it was posted.

use std::collections::BTreeSet;

use database::DbError;
use proto::log_record::{Entry, EntryKind, LeftOut, LogRecord, PathBytes};
use rusqlite::{Connection, Transaction};

use super::Snapshot;
use super::complete::mark_complete;
use super::left_out::left_out;
use super::rows::{COLUMNS, EntryRow, NOWHERE, SLASH, child_directory, components, directory_path, read_row, row_at};
use super::snapshots::snapshot;
use super::walk::Listing;

/// The log of `snapshot` as records: all that is in it (`full`) or what changed against its parent, sorted as
/// `LogRecord` asks. Calls `visit` with each.
///
/// A snapshot without a parent has a full log, and a full log names no parent. If the log was posted already, only
/// what was amended since is in it, whichever is asked for: that is all that the grid lacks.
pub fn log<E: From<DbError>>(
    conn: &Connection,
    snapshot_seq: u64,
    full: bool,
    visit: &mut dyn FnMut(LogRecord) -> Result<(), E>,
) -> Result<(), E> {
    let Some(snapshot) = snapshot(conn, snapshot_seq)? else {
        return Ok(());
    };
    let mut record = snapshot.record.clone();
    let says = left_out(conn, snapshot_seq)?;
    if was_posted(conn, snapshot_seq)? {
        visit(LogRecord::Snapshot(record))?;
        if says != LeftOut::default() {
            visit(LogRecord::LeftOut(says))?;
        }
        return amended_log(conn, snapshot_seq, visit);
    }
    if full || record.parent.is_none() {
        record.parent = None;
        visit(LogRecord::Snapshot(record))?;
        if says != LeftOut::default() {
            visit(LogRecord::LeftOut(says))?;
        }
        return full_log(conn, &snapshot, visit);
    }
    let parents = match record.parent {
        Some(parent) => left_out(conn, parent)?,
        None => LeftOut::default(),
    };
    visit(LogRecord::Snapshot(record))?;
    if says != parents {
        visit(LogRecord::LeftOut(says))?;
    }
    incremental_log(conn, snapshot_seq, visit)
}

fn was_posted(conn: &Connection, snapshot: u64) -> Result<bool, DbError> {
    let mut query = conn.prepare_cached("SELECT published FROM snapshot WHERE seq = ?")?;
    Ok(query.query_row([snapshot], |row| row.get(0))?)
}

fn full_log<E: From<DbError>>(
    conn: &Connection,
    snapshot: &Snapshot,
    visit: &mut dyn FnMut(LogRecord) -> Result<(), E>,
) -> Result<(), E> {
    let (seq, roots) = (snapshot.record.seq, &snapshot.record.source_roots);
    visit(LogRecord::Directory(b"/".to_vec()))?;
    if let Some(slash) = row_at(conn, seq, NOWHERE, b"")? {
        visit(LogRecord::Entry(slash.entry))?;
    }
    let mut stack = vec![Listing::new(SLASH, b"/".to_vec(), roots)];
    list(conn, seq, roots, SLASH, b"/", visit)?;
    while let Some(listing) = stack.last_mut() {
        let Some((path, entry)) = listing.next(conn, seq, roots)? else {
            stack.pop();
            continue;
        };
        if entry.kind != EntryKind::Directory {
            continue;
        }
        if let Some(id) = child_directory(conn, listing.directory, &entry.name)? {
            visit(LogRecord::Directory(path.clone()))?;
            list(conn, seq, roots, id, &path, visit)?;
            stack.push(Listing::new(id, path, roots));
        }
    }
    Ok(())
}

/// The entries of one directory.
fn list<E: From<DbError>>(
    conn: &Connection,
    snapshot: u64,
    roots: &[PathBytes],
    directory: i64,
    path: &[u8],
    visit: &mut dyn FnMut(LogRecord) -> Result<(), E>,
) -> Result<(), E> {
    let mut listing = Listing::new(directory, path.to_vec(), roots);
    while let Some((_, entry)) = listing.next(conn, snapshot, roots)? {
        visit(LogRecord::Entry(entry))?;
    }
    Ok(())
}

fn incremental_log<E: From<DbError>>(
    conn: &Connection,
    snapshot: u64,
    visit: &mut dyn FnMut(LogRecord) -> Result<(), E>,
) -> Result<(), E> {
    let ids = {
        let mut query = conn
            .prepare_cached("SELECT directory FROM change WHERE snapshot = ?")
            .map_err(DbError::from)?;
        let ids = query.query_map([snapshot], |row| row.get(0)).map_err(DbError::from)?;
        ids.collect::<Result<Vec<i64>, _>>().map_err(DbError::from)?
    };
    for (path, directory) in sorted_by_path(conn, snapshot, ids)? {
        let mut query = conn
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM entry WHERE directory = ?1 AND (since = ?2 OR until = ?2) ORDER BY name, since"
            ))
            .map_err(DbError::from)?;
        let rows = query
            .query_map((directory, snapshot), read_row)
            .map_err(DbError::from)?;
        visit(LogRecord::Directory(path))?;
        let mut ended: Option<Vec<u8>> = None;
        for row in rows {
            let EntryRow { since, entry, .. } = row.map_err(DbError::from)?;
            // A row that ends where the next row of its name begins was replaced; any other has gone.
            let replaces = ended.as_ref() == Some(&entry.name);
            if let Some(gone) = ended.take().filter(|_| !replaces) {
                visit(LogRecord::Gone(gone))?;
            }
            if since == snapshot {
                visit(LogRecord::Entry(entry))?;
            } else {
                ended = Some(entry.name);
            }
        }
        if let Some(gone) = ended {
            visit(LogRecord::Gone(gone))?;
        }
    }
    Ok(())
}

/// Directories that are there in `snapshot`, with their paths, component by component in byte order. Whatever was below
/// a directory that has gone is said by the one name that has gone in its parent.
fn sorted_by_path(conn: &Connection, snapshot: u64, ids: Vec<i64>) -> Result<Vec<(Vec<u8>, i64)>, DbError> {
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        if is_there(conn, snapshot, id)? {
            found.push((directory_path(conn, id)?, id));
        }
    }
    found.sort_by(|(a, a_id), (b, b_id)| components(a).cmp(components(b)).then(a_id.cmp(b_id)));
    Ok(found)
}

fn is_there(conn: &Connection, snapshot: u64, directory: i64) -> Result<bool, DbError> {
    if directory <= SLASH {
        return Ok(true);
    }
    let mut query = conn.prepare_cached("SELECT parent, name FROM directory WHERE id = ?")?;
    let (parent, name): (i64, Vec<u8>) = query.query_row([directory], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let row = row_at(conn, snapshot, parent, &name)?;
    Ok(row.is_some_and(|row| row.entry.kind == EntryKind::Directory))
}

fn amended_log<E: From<DbError>>(
    conn: &Connection,
    snapshot: u64,
    visit: &mut dyn FnMut(LogRecord) -> Result<(), E>,
) -> Result<(), E> {
    let names: BTreeSet<(i64, Vec<u8>)> = {
        let mut query = conn
            .prepare_cached("SELECT directory, name FROM amendment WHERE snapshot = ?")
            .map_err(DbError::from)?;
        let names = query
            .query_map([snapshot], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(DbError::from)?;
        names.collect::<Result<_, _>>().map_err(DbError::from)?
    };
    let ids: BTreeSet<i64> = names.iter().map(|(directory, _)| *directory).collect();
    for (path, directory) in sorted_by_path(conn, snapshot, ids.into_iter().collect())? {
        visit(LogRecord::Directory(path))?;
        for (_, name) in names.range((directory, Vec::new())..(directory + 1, Vec::new())) {
            visit(amended_record(conn, snapshot, directory, name)?)?;
        }
    }
    Ok(())
}

fn amended_record(conn: &Connection, snapshot: u64, directory: i64, name: &[u8]) -> Result<LogRecord, DbError> {
    let entry: Option<Entry> = row_at(conn, snapshot, directory, name)?.map(|row| row.entry);
    Ok(entry.map_or_else(|| LogRecord::Gone(name.to_vec()), LogRecord::Entry))
}

/// Snapshots whose log has something to post, ascending.
pub fn unposted(conn: &Connection) -> Result<Vec<u64>, DbError> {
    let mut query = conn.prepare_cached(
        "SELECT seq FROM snapshot WHERE published = 0
         UNION SELECT snapshot FROM amendment WHERE snapshot IN (SELECT seq FROM snapshot) ORDER BY 1",
    )?;
    let seqs = query.query_map([], |row| row.get(0))?;
    Ok(seqs.collect::<Result<_, _>>()?)
}

/// How far amendments have come: taken on the connection that reads logs, given to `posted_until` once they are on
/// the grid, so that an amendment made in between is not taken for posted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AmendmentMark(i64);

/// The mark of this moment.
pub fn amendment_mark(conn: &Connection) -> Result<AmendmentMark, DbError> {
    let mark = conn.query_row("SELECT coalesce(max(id), 0) FROM amendment", [], |row| row.get(0))?;
    Ok(AmendmentMark(mark))
}

/// The logs of all snapshots up to and including `snapshot` are posted as they were at `mark`.
pub fn posted_until(tx: &Transaction<'_>, snapshot: u64, mark: AmendmentMark) -> Result<(), DbError> {
    tx.execute(
        "UPDATE snapshot SET published = 1 WHERE published = 0 AND seq <= ?",
        [snapshot],
    )?;
    tx.execute(
        "DELETE FROM amendment WHERE snapshot <= ? AND id <= ?",
        (snapshot, mark.0),
    )?;
    mark_complete(tx)
}

/// The logs of all snapshots up to and including `snapshot` are posted as they are now.
pub fn posted(tx: &Transaction<'_>, snapshot: u64) -> Result<(), DbError> {
    let mark = amendment_mark(tx)?;
    posted_until(tx, snapshot, mark)
}
