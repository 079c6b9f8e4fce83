//! What was not done, and the newest runs: kept so that whoever looks later, at a daemon above all, still sees it.
//!
//! A trouble stays until a run that looked at the same thing does not meet it any more. What is recorded here stays on this
//! machine: nothing of it is posted. Leaves out what follows from it: that is the verdict, in `node`.

use database::DbError;
use rusqlite::{Connection, OptionalExtension, Row, Transaction};

use super::tree::covers;

/// Runs that are kept. Chosen: days of a daemon that tries every hour.
const RUNS_MAX: i64 = 200;
/// Bytes of a reason or an error that are kept. Chosen: longer than any that was seen.
const TEXT_BYTES_MAX: usize = 4096;

/// What a trouble is about. The names are in the database for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A folder or file that is to be backed up could not be looked at, or only in part.
    Unseen,
    /// The content of a file could not be read.
    Unread,
    /// It is kept without something that does not fit.
    Partial,
    /// A head that was gone round could be read again, and not be merged: by its hash.
    Fork,
    /// No trouble: a folder of the config, as the last run over all of them knew it.
    Folder,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Unseen => "unseen",
            Self::Unread => "unread",
            Self::Partial => "partial",
            Self::Fork => "fork",
            Self::Folder => "folder",
        }
    }
}

/// Something that was not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// A path, or a peer's key.
    pub subject: Vec<u8>,
    /// Why.
    pub reason: String,
    /// First seen, nanoseconds since 1970.
    pub since_ns: i64,
    /// Last seen.
    pub seen_ns: i64,
}

/// What a run met: the list of a kind, in place of what was known at and below these paths.
#[derive(Clone, Copy, Debug)]
pub struct Met<'a> {
    /// What.
    pub kind: Kind,
    /// Where was looked; what is known elsewhere stays.
    pub within: &'a [Vec<u8>],
    /// Subject and reason of each.
    pub list: &'a [(Vec<u8>, String)],
    /// When, nanoseconds since 1970.
    pub now_ns: i64,
}

/// Records what was met now. What was known before keeps the time since when, and what was not met again is gone.
pub fn replace(tx: &Transaction<'_>, met: &Met<'_>) -> Result<(), DbError> {
    let kind = met.kind.name();
    let mut insert = tx.prepare_cached(
        "INSERT INTO trouble VALUES (?1, ?2, ?3, ?4, ?4)
         ON CONFLICT (kind, subject) DO UPDATE SET reason = ?3, seen_ns = ?4",
    )?;
    for (subject, reason) in met.list {
        insert.execute((kind, subject, shortened(reason), met.now_ns))?;
    }
    let old: Vec<Vec<u8>> = {
        let mut select = tx.prepare_cached("SELECT subject FROM trouble WHERE kind = ?1 AND seen_ns <> ?2")?;
        let rows = select.query_map((kind, met.now_ns), |row| row.get(0))?;
        rows.collect::<Result<_, _>>()?
    };
    let mut delete = tx.prepare_cached("DELETE FROM trouble WHERE kind = ?1 AND subject = ?2")?;
    for subject in old {
        if met.within.iter().any(|path| covers(path, &subject)) {
            delete.execute((kind, subject))?;
        }
    }
    Ok(())
}

/// Records the folders of the config. What is known of one that is no longer among them, nor inside of another, is over.
pub fn folders(tx: &Transaction<'_>, folders: &[Vec<u8>], now_ns: i64) -> Result<(), DbError> {
    let known = list(tx, Kind::Folder, usize::MAX)?
        .into_iter()
        .map(|known| known.subject);
    let gone: Vec<Vec<u8>> = known
        .filter(|known| !folders.iter().any(|folder| covers(folder, known)))
        .collect();
    let list: Vec<(Vec<u8>, String)> = folders.iter().map(|folder| (folder.clone(), String::new())).collect();
    let everywhere = [b"/".to_vec()];
    for (kind, within, list) in [
        (Kind::Unseen, &gone[..], &[][..]),
        (Kind::Unread, &gone[..], &[]),
        (Kind::Partial, &gone[..], &[]),
        (Kind::Folder, &everywhere[..], &list),
    ] {
        let met = Met {
            kind,
            within,
            list,
            now_ns,
        };
        replace(tx, &met)?;
    }
    Ok(())
}

/// How many of a kind there are.
pub fn count(conn: &Connection, kind: Kind) -> Result<u64, DbError> {
    let mut select = conn.prepare_cached("SELECT count(*) FROM trouble WHERE kind = ?1")?;
    Ok(select
        .query_row([kind.name()], |row| row.get::<_, i64>(0))?
        .cast_unsigned())
}

/// Since when the oldest of a kind is known, nanoseconds since 1970.
pub fn oldest(conn: &Connection, kind: Kind) -> Result<Option<i64>, DbError> {
    let mut select = conn.prepare_cached("SELECT min(since_ns) FROM trouble WHERE kind = ?1")?;
    Ok(select.query_row([kind.name()], |row| row.get(0))?)
}

/// Of a kind, the first `limit` in the order of their subjects.
pub fn list(conn: &Connection, kind: Kind, limit: usize) -> Result<Vec<Trouble>, DbError> {
    let mut select = conn.prepare_cached(
        "SELECT subject, reason, since_ns, seen_ns FROM trouble WHERE kind = ?1 ORDER BY subject LIMIT ?2",
    )?;
    let rows = select.query_map((kind.name(), i64::try_from(limit).unwrap_or(i64::MAX)), read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What is known of a path itself, or of a folder that it is in; the nearest.
pub fn at(conn: &Connection, kind: Kind, path: &[u8]) -> Result<Option<Trouble>, DbError> {
    let mut select =
        conn.prepare_cached("SELECT subject, reason, since_ns, seen_ns FROM trouble WHERE kind = ?1 AND subject = ?2")?;
    let mut at = path;
    loop {
        let found = select.query_row((kind.name(), at), read).optional()?;
        if found.is_some() || at.len() <= 1 {
            return Ok(found);
        }
        let end = at.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        at = &path[..end.max(1)];
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Trouble> {
    Ok(Trouble {
        subject: row.get(0)?,
        reason: row.get(1)?,
        since_ns: row.get(2)?,
        seen_ns: row.get(3)?,
    })
}

/// A run of this home.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunRecord {
    /// When it began, nanoseconds since 1970.
    pub began_ns: i64,
    /// When it ended; none: it is under way, or was cut off.
    pub ended_ns: Option<i64>,
    /// Its exit code.
    pub exit: Option<u8>,
    /// Why it failed as a whole.
    pub error: Option<String>,
    /// It was about the folders of the config, not about paths that somebody named.
    pub whole: bool,
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunEnd {
    /// When, nanoseconds since 1970.
    pub ended_ns: i64,
    /// Its exit code.
    pub exit: u8,
    /// Why it failed as a whole.
    pub error: Option<String>,
}

/// Records that a run begins; its number. The oldest run makes room.
pub fn begin_run(tx: &Transaction<'_>, began_ns: i64, whole: bool) -> Result<i64, DbError> {
    tx.execute("INSERT INTO run (began_ns, whole) VALUES (?1, ?2)", (began_ns, whole))?;
    let id = tx.last_insert_rowid();
    tx.execute("DELETE FROM run WHERE id <= ?1", [id - RUNS_MAX])?;
    Ok(id)
}

/// Records how a run ended.
pub fn end_run(tx: &Transaction<'_>, id: i64, end: &RunEnd) -> Result<(), DbError> {
    let error = end.error.as_deref().map(shortened);
    tx.execute(
        "UPDATE run SET ended_ns = ?2, exit = ?3, error = ?4 WHERE id = ?1",
        (id, end.ended_ns, end.exit, error),
    )?;
    Ok(())
}

/// The runs that are remembered, the newest first.
pub fn runs(conn: &Connection) -> Result<Vec<RunRecord>, DbError> {
    let mut select = conn.prepare_cached("SELECT began_ns, ended_ns, exit, error, whole FROM run ORDER BY id DESC")?;
    let rows = select.query_map([], |row| {
        Ok(RunRecord {
            began_ns: row.get(0)?,
            ended_ns: row.get(1)?,
            exit: row.get(2)?,
            error: row.get(3)?,
            whole: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(conn: &Connection, kind: Kind) -> Vec<(String, i64, i64)> {
        let known = list(conn, kind, 100).unwrap().into_iter();
        known
            .map(|trouble| {
                let subject = String::from_utf8(trouble.subject).unwrap();
                (subject, trouble.since_ns, trouble.seen_ns)
            })
            .collect()
    }

    fn meet(tx: &Transaction<'_>, within: &[&str], list: &[&str], now_ns: i64) {
        let within: Vec<Vec<u8>> = within.iter().map(|path| path.as_bytes().to_vec()).collect();
        let list: Vec<_> = list
            .iter()
            .map(|path| (path.as_bytes().to_vec(), "Permission denied".to_owned()))
            .collect();
        let met = Met {
            kind: Kind::Unseen,
            within: &within,
            list: &list,
            now_ns,
        };
        replace(tx, &met).unwrap();
    }

    #[test]
    fn a_trouble_stays_until_who_looks_there_does_not_meet_it() {
        let mut conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("../../migrations/trouble-0001.sql"))
            .unwrap();
        let tx = conn.transaction().unwrap();
        meet(&tx, &["/a", "/b"], &["/a/x", "/b/y"], 1);
        meet(&tx, &["/a"], &["/a/x", "/a/z"], 2);
        let expected = [("/a/x", 1, 2), ("/a/z", 2, 2), ("/b/y", 1, 1)];
        assert!(
            subjects(&tx, Kind::Unseen)
                .iter()
                .map(|(path, since, seen)| (path.as_str(), *since, *seen))
                .eq(expected)
        );
        assert_eq!(count(&tx, Kind::Unread).unwrap(), 0);
        meet(&tx, &["/"], &["/a"], 3);
        assert_eq!(subjects(&tx, Kind::Unseen), [("/a".to_owned(), 3, 3)]);
        let below = at(&tx, Kind::Unseen, b"/a/deep/er").unwrap().unwrap();
        assert_eq!(below.subject, b"/a");
        assert_eq!(at(&tx, Kind::Unseen, b"/ab").unwrap(), None);
    }

    #[test]
    fn the_newest_runs_are_remembered_and_one_that_did_not_end_is_told_apart() {
        let mut conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("../../migrations/trouble-0001.sql"))
            .unwrap();
        let tx = conn.transaction().unwrap();
        for number in 0..RUNS_MAX + 5 {
            let id = begin_run(&tx, number, number % 2 == 0).unwrap();
            let end = RunEnd {
                ended_ns: number + 1,
                exit: 1,
                error: Some("é".repeat(TEXT_BYTES_MAX)),
            };
            end_run(&tx, id, &end).unwrap();
        }
        begin_run(&tx, 1_000, true).unwrap();
        let runs = runs(&tx).unwrap();
        assert_eq!(runs.len(), RUNS_MAX as usize);
        assert_eq!((runs[0].began_ns, runs[0].ended_ns), (1_000, None));
        assert!(
            runs[1]
                .error
                .as_ref()
                .is_some_and(|error| error.len() <= TEXT_BYTES_MAX)
        );
    }
}
