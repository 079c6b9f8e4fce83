//! Looking at one snapshot: an entry, a directory, everything below a path.
//!
//! A snapshot shows what is at and below its roots, and of their ancestors only themselves: the tables may know more,
//! from snapshots with other roots.

use database::DbError;
use proto::log_record::{Entry, EntryKind, PathBytes};
use rusqlite::{Connection, OptionalExtension};

use super::rows::{COLUMNS, batch, child_directory, join, place, read_row, row_at};
use super::snapshots::snapshot;

/// Entries fetched at a time. Chosen: one query's cost vanishes, and a batch of long names stays far below a megabyte.
const BATCH_ENTRIES: usize = 256;

/// Where a path lies, seen from a snapshot's roots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// At or below a root.
    Inside,
    /// An ancestor of a root.
    Above,
    /// Neither.
    Outside,
}

/// Where `path` lies.
pub(crate) fn scope(roots: &[PathBytes], path: &[u8]) -> Scope {
    if roots.iter().any(|root| covers(&root.0, path)) {
        Scope::Inside
    } else if roots.iter().any(|root| covers(path, &root.0)) {
        Scope::Above
    } else {
        Scope::Outside
    }
}

/// Whether a snapshot with these roots shows anything of the directory at `path` but itself.
pub(crate) fn shows(roots: &[PathBytes], path: &[u8]) -> bool {
    scope(roots, path) != Scope::Outside
}

/// Whether `path` is `above` or below it.
pub fn covers(above: &[u8], path: &[u8]) -> bool {
    above == b"/"
        || path
            .strip_prefix(above)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// `path` without doubled or trailing slashes.
pub(super) fn normal(path: &[u8]) -> Vec<u8> {
    let names = super::rows::components(path);
    let path = names.fold(Vec::new(), |path: Vec<u8>, name| {
        [&path, b"/".as_slice(), name].concat()
    });
    if path.is_empty() { b"/".to_vec() } else { path }
}

/// The entry at `path` (absolute; `/` is the root) in a snapshot.
pub fn entry(conn: &Connection, snapshot_seq: u64, path: &[u8]) -> Result<Option<Entry>, DbError> {
    let path = normal(path);
    let Some(snapshot) = snapshot(conn, snapshot_seq)? else {
        return Ok(None);
    };
    if scope(&snapshot.record.source_roots, &path) == Scope::Outside {
        return Ok(None);
    }
    let Some((directory, name)) = place(conn, &path)? else {
        return Ok(None);
    };
    Ok(row_at(conn, snapshot_seq, directory, &name)?.map(|row| row.entry))
}

/// The newest entry recorded for a path in any snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Newest {
    /// Sequence number of the first snapshot that shows it so.
    pub since: u64,
    /// Of the first that does not any more.
    pub until: Option<u64>,
    /// What it says.
    pub entry: Entry,
}

impl Newest {
    /// Whether it was so in any snapshot up to this one.
    pub fn is_shown(&self, newest: Option<u64>) -> bool {
        newest.is_some_and(|newest| self.since <= newest)
    }
}

/// The newest entry recorded for a path in any snapshot: what `status PATH` needs.
pub fn newest(conn: &Connection, path: &[u8]) -> Result<Option<Newest>, DbError> {
    let Some((directory, name)) = place(conn, path)? else {
        return Ok(None);
    };
    let mut query = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM entry WHERE directory = ? AND name = ? ORDER BY since DESC LIMIT 1"
    ))?;
    let row = query.query_row((directory, name), read_row).optional()?;
    Ok(row.map(|row| Newest {
        since: row.since,
        until: row.until,
        entry: row.entry,
    }))
}

/// An entry with its absolute path.
pub(crate) type Located = (Vec<u8>, Entry);

/// A directory that is being listed, batch by batch.
pub(crate) struct Listing {
    pub directory: i64,
    pub path: Vec<u8>,
    scope: Scope,
    batch: std::vec::IntoIter<Entry>,
    last: Option<Vec<u8>>,
}

impl Listing {
    pub fn new(directory: i64, path: Vec<u8>, roots: &[PathBytes]) -> Self {
        let scope = scope(roots, &path);
        let batch = Vec::new().into_iter();
        let last = Some(Vec::new());
        Self {
            directory,
            path,
            scope,
            batch,
            last,
        }
    }

    /// The next entry that the snapshot shows, with its path.
    pub fn next(&mut self, conn: &Connection, snapshot: u64, roots: &[PathBytes]) -> Result<Option<Located>, DbError> {
        loop {
            if let Some(entry) = self.batch.next() {
                let path = join(&self.path, &entry.name);
                if self.scope == Scope::Inside || scope(roots, &path) != Scope::Outside {
                    return Ok(Some((path, entry)));
                }
                continue;
            }
            let Some(last) = self.last.take() else {
                return Ok(None);
            };
            let batch = batch(conn, snapshot, self.directory, &last, BATCH_ENTRIES)?;
            if batch.len() == BATCH_ENTRIES {
                self.last = batch.last().map(|entry| entry.name.clone());
            }
            self.batch = batch.into_iter();
        }
    }
}

/// What `walk` calls with an absolute path and its entry; `Ok(false)` ends the walk.
pub type Visit<'a, E> = dyn FnMut(&[u8], &Entry) -> Result<bool, E> + 'a;

/// Calls `visit` with the absolute path and entry of everything at and below `path`, parents before children and names
/// in byte order, until it returns `Ok(false)`. Bounded memory. `path` itself is the first call, if it is there.
pub fn walk<E: From<DbError>>(
    conn: &Connection,
    snapshot_seq: u64,
    path: &[u8],
    visit: &mut Visit<'_, E>,
) -> Result<(), E> {
    let path = normal(path);
    let Some(top) = entry(conn, snapshot_seq, &path)? else {
        return Ok(());
    };
    let Some(snapshot) = snapshot(conn, snapshot_seq)? else {
        return Ok(());
    };
    let roots = snapshot.record.source_roots;
    if !visit(&path, &top)? {
        return Ok(());
    }
    let mut stack: Vec<Listing> = Vec::new();
    if let Some(directory) = directory_at(conn, &path, &top)? {
        stack.push(Listing::new(directory, path, &roots));
    }
    while let Some(listing) = stack.last_mut() {
        let Some((path, entry)) = listing.next(conn, snapshot_seq, &roots)? else {
            stack.pop();
            continue;
        };
        if !visit(&path, &entry)? {
            return Ok(());
        }
        if entry.kind == EntryKind::Directory
            && let Some(id) = child_directory(conn, listing.directory, &entry.name)?
        {
            stack.push(Listing::new(id, path, &roots));
        }
    }
    Ok(())
}

/// The id of the directory at `path`, whose entry is `entry`.
fn directory_at(conn: &Connection, path: &[u8], entry: &Entry) -> Result<Option<i64>, DbError> {
    if entry.kind != EntryKind::Directory {
        return Ok(None);
    }
    match place(conn, path)? {
        Some((parent, name)) => child_directory(conn, parent, &name),
        None => Ok(None),
    }
}

/// Entries of a directory, sorted by name.
pub fn children(conn: &Connection, snapshot_seq: u64, path: &[u8]) -> Result<Vec<Entry>, DbError> {
    let path = normal(path);
    let (Some(top), Some(snapshot)) = (entry(conn, snapshot_seq, &path)?, snapshot(conn, snapshot_seq)?) else {
        return Ok(Vec::new());
    };
    let Some(directory) = directory_at(conn, &path, &top)? else {
        return Ok(Vec::new());
    };
    let mut listing = Listing::new(directory, path, &snapshot.record.source_roots);
    let mut entries = Vec::new();
    while let Some((_, entry)) = listing.next(conn, snapshot_seq, &snapshot.record.source_roots)? {
        entries.push(entry);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_inside_above_or_outside_the_roots() {
        let roots = [PathBytes(b"/home/u".to_vec()), PathBytes(b"/srv".to_vec())];
        assert_eq!(scope(&roots, b"/home/u"), Scope::Inside);
        assert_eq!(scope(&roots, b"/home/u/x"), Scope::Inside);
        assert_eq!(scope(&roots, b"/home/us"), Scope::Outside);
        assert_eq!(scope(&roots, b"/home"), Scope::Above);
        assert_eq!(scope(&roots, b"/"), Scope::Above);
        assert_eq!(scope(&[PathBytes(b"/".to_vec())], b"/etc"), Scope::Inside);
    }

    #[test]
    fn paths_are_normalised() {
        assert_eq!(normal(b"/a//b/"), b"/a/b");
        assert_eq!(normal(b"//"), b"/");
    }
}
