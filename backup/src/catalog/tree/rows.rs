//! Entry and directory rows: how they are encoded, and the queries that everything else in `tree` is made of.

use database::DbError;
use proto::id::VersionId;
use proto::log_record::{Content, Entry, EntryKind, Meta};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction};

/// Directory 0: holds nothing but the entry of `/`, under the empty name.
pub(crate) const NOWHERE: i64 = 0;
/// Directory 1: `/`.
pub(crate) const SLASH: i64 = 1;

/// An entry with the snapshots for which it holds: from `since` on, before `until`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EntryRow {
    pub since: u64,
    pub until: Option<u64>,
    pub suspect: bool,
    pub entry: Entry,
}

impl EntryRow {
    pub fn visible_at(&self, snapshot: u64) -> bool {
        self.since <= snapshot && self.until.is_none_or(|until| until > snapshot)
    }
}

/// Columns of an entry row, in the order that `read_row` expects.
pub(crate) const COLUMNS: &str = "name, since, until, version, suspect, body";

#[derive(minicbor::Encode)]
struct BodyRef<'a> {
    #[n(0)]
    kind: EntryKind,
    #[n(1)]
    meta: &'a Meta,
    #[n(2)]
    content: &'a Content,
}

#[derive(minicbor::Decode)]
struct Body {
    #[n(0)]
    kind: EntryKind,
    #[n(1)]
    meta: Meta,
    #[n(2)]
    content: Content,
}

/// The `version` column of an entry.
pub(crate) fn version_column(content: &Content) -> Option<i64> {
    match content {
        Content::Version(VersionId(id)) => Some(id.cast_signed()),
        _ => None,
    }
}

/// The `body` column of an entry: everything but its name and version.
pub(crate) fn encode_body(entry: &Entry) -> Vec<u8> {
    let content = match &entry.content {
        Content::Version(_) => &Content::None,
        other => other,
    };
    let body = BodyRef {
        kind: entry.kind,
        meta: &entry.meta,
        content,
    };
    minicbor::to_vec(body).expect("encoding into a Vec cannot fail")
}

/// Reads a row selected by `COLUMNS`.
pub(crate) fn read_row(row: &Row<'_>) -> rusqlite::Result<EntryRow> {
    let bytes = row.get_ref(5)?.as_blob()?;
    let body: Body = minicbor::decode(bytes).map_err(|error| malformed(5, error))?;
    let content = match row.get::<_, Option<i64>>(3)? {
        Some(id) => Content::Version(VersionId(id.cast_unsigned())),
        None => body.content,
    };
    Ok(EntryRow {
        since: row.get(1)?,
        until: row.get(2)?,
        suspect: row.get(4)?,
        entry: Entry {
            name: row.get(0)?,
            kind: body.kind,
            meta: body.meta,
            content,
        },
    })
}

/// A column of our own that does not decode: the file is damaged.
pub(crate) fn malformed(column: usize, error: minicbor::decode::Error) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, Box::new(error))
}

/// The components of an absolute path.
pub(crate) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

/// `directory/name` as an absolute path.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    path.extend_from_slice(directory);
    if path.last() != Some(&b'/') && !name.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// The directory and name under which the entry at `path` is kept, or nothing if that directory was never seen.
pub(crate) fn place(conn: &Connection, path: &[u8]) -> Result<Option<(i64, Vec<u8>)>, DbError> {
    let mut names: Vec<&[u8]> = components(path).collect();
    let Some(name) = names.pop() else {
        return Ok(Some((NOWHERE, Vec::new())));
    };
    let mut directory = SLASH;
    for parent in names {
        match child_directory(conn, directory, parent)? {
            Some(id) => directory = id,
            None => return Ok(None),
        }
    }
    Ok(Some((directory, name.to_vec())))
}

/// The id of the directory `name` in `parent`, if one was ever there.
pub(crate) fn child_directory(conn: &Connection, parent: i64, name: &[u8]) -> Result<Option<i64>, DbError> {
    let mut query = conn.prepare_cached("SELECT id FROM directory WHERE parent = ? AND name = ?")?;
    Ok(query.query_row((parent, name), |row| row.get(0)).optional()?)
}

/// The id of the directory at `path`, made with its ancestors if it was never there.
pub(crate) fn ensure_directory(tx: &Transaction<'_>, path: &[u8]) -> Result<i64, DbError> {
    let mut directory = SLASH;
    for name in components(path) {
        directory = match child_directory(tx, directory, name)? {
            Some(id) => id,
            None => {
                let mut insert = tx.prepare_cached("INSERT INTO directory (parent, name) VALUES (?, ?)")?;
                insert.insert((directory, name))?
            }
        };
    }
    Ok(directory)
}

/// Every directory ever seen in `parent`, by name.
pub(crate) fn child_directories(conn: &Connection, parent: i64) -> Result<Vec<i64>, DbError> {
    let mut query = conn.prepare_cached("SELECT id FROM directory WHERE parent = ? ORDER BY name")?;
    let ids = query.query_map([parent], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// The absolute path of a directory; `/` also for nowhere.
pub(crate) fn directory_path(conn: &Connection, directory: i64) -> Result<Vec<u8>, DbError> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut at = directory;
    let mut query = conn.prepare_cached("SELECT parent, name FROM directory WHERE id = ?")?;
    while at > SLASH {
        let (parent, name): (i64, Vec<u8>) = query.query_row([at], |row| Ok((row.get(0)?, row.get(1)?)))?;
        // A parent is always older; anything else would be a loop in a damaged file.
        at = if parent < at { parent } else { SLASH };
        names.push(name);
    }
    let mut path = Vec::new();
    for name in names.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    Ok(if path.is_empty() { b"/".to_vec() } else { path })
}

/// The row of a name that is visible at a snapshot.
pub(crate) fn row_at(
    conn: &Connection,
    snapshot: u64,
    directory: i64,
    name: &[u8],
) -> Result<Option<EntryRow>, DbError> {
    let mut query = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM entry WHERE directory = ? AND name = ? AND since <= ? ORDER BY since DESC LIMIT 1"
    ))?;
    let row = query.query_row((directory, name, snapshot), read_row).optional()?;
    Ok(row.filter(|row| row.visible_at(snapshot)))
}

/// All rows of a name, oldest first.
pub(crate) fn history(conn: &Connection, directory: i64, name: &[u8]) -> Result<Vec<EntryRow>, DbError> {
    let mut query = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM entry WHERE directory = ? AND name = ? ORDER BY since"
    ))?;
    let rows = query.query_map((directory, name), read_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The current rows of a directory, sorted by name.
pub(crate) fn current(conn: &Connection, directory: i64) -> Result<Vec<EntryRow>, DbError> {
    let mut query = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM entry WHERE directory = ? AND until IS NULL ORDER BY name"
    ))?;
    let rows = query.query_map([directory], read_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Up to `limit` entries of a directory in a snapshot, sorted, with names after `after`.
pub(crate) fn batch(
    conn: &Connection,
    snapshot: u64,
    directory: i64,
    after: &[u8],
    limit: usize,
) -> Result<Vec<Entry>, DbError> {
    let mut query = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM entry WHERE directory = ?1 AND name > ?2 AND since <= ?3
         AND (until IS NULL OR until > ?3) ORDER BY name LIMIT ?4"
    ))?;
    let rows = query.query_map((directory, after, snapshot, limit), |row| Ok(read_row(row)?.entry))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Notes that rows of `directory` begin or end at `snapshot`.
pub(crate) fn note_change(tx: &Transaction<'_>, snapshot: u64, directory: i64) -> Result<(), DbError> {
    let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO change (snapshot, directory) VALUES (?, ?)")?;
    insert.execute((snapshot, directory))?;
    Ok(())
}

/// Inserts a row.
pub(crate) fn insert(tx: &Transaction<'_>, directory: i64, row: &EntryRow) -> Result<(), DbError> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO entry (directory, name, since, until, version, suspect, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    insert.execute((
        directory,
        &row.entry.name,
        row.since,
        row.until,
        version_column(&row.entry.content),
        row.suspect,
        encode_body(&row.entry),
    ))?;
    Ok(())
}

/// Replaces what a row says, but not the snapshots for which it holds.
pub(crate) fn update(tx: &Transaction<'_>, directory: i64, since: u64, entry: &Entry) -> Result<(), DbError> {
    let mut update =
        tx.prepare_cached("UPDATE entry SET version = ?, body = ? WHERE directory = ? AND name = ? AND since = ?")?;
    let version = version_column(&entry.content);
    update.execute((version, encode_body(entry), directory, &entry.name, since))?;
    Ok(())
}

/// Sets until when a row holds.
pub(crate) fn set_until(
    tx: &Transaction<'_>,
    directory: i64,
    name: &[u8],
    since: u64,
    until: Option<u64>,
) -> Result<(), DbError> {
    let mut update = tx.prepare_cached("UPDATE entry SET until = ? WHERE directory = ? AND name = ? AND since = ?")?;
    update.execute((until, directory, name, since))?;
    Ok(())
}

/// Removes a row.
pub(crate) fn delete(tx: &Transaction<'_>, directory: i64, name: &[u8], since: u64) -> Result<(), DbError> {
    let mut delete = tx.prepare_cached("DELETE FROM entry WHERE directory = ? AND name = ? AND since = ?")?;
    delete.execute((directory, name, since))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_joined_with_exactly_one_slash() {
        assert_eq!(join(b"/", b"a"), b"/a");
        assert_eq!(join(b"/a", b"b"), b"/a/b");
        assert_eq!(join(b"/", b""), b"/");
    }

    #[test]
    fn components_skip_empty_names() {
        let names: Vec<&[u8]> = components(b"//a/b/").collect();
        assert_eq!(names, [b"a".as_slice(), b"b"]);
    }
}
