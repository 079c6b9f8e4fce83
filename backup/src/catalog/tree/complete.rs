//! Whether the content of every file of a snapshot is known to be kept somewhere.
//!
//! Answered without reading the whole tree: snapshots found complete are marked, and only rows newer than the newest
//! marked one are looked at.

use database::DbError;
use rusqlite::{Connection, OptionalExtension, Transaction};

use super::rows::directory_path;
use super::snapshots::snapshot;
use super::walk::shows;

/// Directories with a row that is visible at ?1, is newer than ?2, and whose version has no place yet.
const INCOMPLETE: &str = "
    SELECT DISTINCT change.directory FROM change JOIN entry ON entry.directory = change.directory
    WHERE change.snapshot > ?2 AND change.snapshot <= ?1 AND entry.since = change.snapshot
      AND (entry.until IS NULL OR entry.until > ?1) AND entry.version IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM content WHERE content.version = entry.version)";

/// Whether every version in a snapshot has a cap.
pub fn snapshot_complete(conn: &Connection, snapshot_seq: u64) -> Result<bool, DbError> {
    let Some(snapshot) = snapshot(conn, snapshot_seq)? else {
        return Ok(false);
    };
    let base = newest_marked(conn, snapshot_seq)?;
    if base == snapshot_seq {
        return Ok(true);
    }
    let mut query = conn.prepare_cached(INCOMPLETE)?;
    let mut rows = query.query((snapshot_seq, base))?;
    while let Some(row) = rows.next()? {
        let path = directory_path(conn, row.get(0)?)?;
        if shows(&snapshot.record.source_roots, &path) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The newest snapshot up to `snapshot` that is marked; 0 if there is none.
fn newest_marked(conn: &Connection, snapshot: u64) -> Result<u64, DbError> {
    let mut query =
        conn.prepare_cached("SELECT coalesce(max(seq), 0) FROM snapshot WHERE complete = 1 AND seq <= ?")?;
    Ok(query.query_row([snapshot], |row| row.get(0))?)
}

/// Marks the snapshots that have become complete, oldest first, up to the first that has not.
pub(crate) fn mark_complete(tx: &Transaction<'_>) -> Result<(), DbError> {
    let unmarked: Vec<u64> = {
        let mut query = tx.prepare_cached("SELECT seq FROM snapshot WHERE complete = 0 ORDER BY seq")?;
        let seqs = query.query_map([], |row| row.get(0))?;
        seqs.collect::<Result<_, _>>()?
    };
    for seq in unmarked {
        let base = newest_marked(tx, seq)?;
        let waits = tx
            .prepare_cached(INCOMPLETE)?
            .query_row((seq, base), |_| Ok(()))
            .optional()?;
        if waits.is_some() {
            break;
        }
        tx.execute("UPDATE snapshot SET complete = 1 WHERE seq = ?", [seq])?;
    }
    Ok(())
}
