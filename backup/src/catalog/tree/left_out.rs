//! What the scans of snapshots left out, so that a restore can tell what was not looked at from what was not there.

use database::DbError;
use proto::log_record::{LeftOut, PathBytes};
use rusqlite::{Connection, OptionalExtension, Transaction};

use super::rows::malformed;

/// What the scan of a snapshot left out; nothing, if nothing is known.
pub fn left_out(conn: &Connection, snapshot: u64) -> Result<LeftOut, DbError> {
    let mut query = conn.prepare_cached(
        "SELECT body FROM left_out WHERE id = (SELECT left_out FROM snapshot_left_out WHERE snapshot = ?)",
    )?;
    let found = query.query_row([snapshot], |row| {
        minicbor::decode(row.get_ref(0)?.as_blob()?).map_err(|error| malformed(0, error))
    });
    Ok(found.optional()?.unwrap_or_default())
}

/// Records what the scan of a snapshot left out; equal ones are kept once.
pub(crate) fn set_left_out(tx: &Transaction<'_>, snapshot: u64, left_out: &LeftOut) -> Result<(), DbError> {
    let body = minicbor::to_vec(left_out).expect("encoding into a Vec cannot fail");
    tx.prepare_cached("INSERT OR IGNORE INTO left_out (body) VALUES (?)")?
        .execute([&body])?;
    tx.prepare_cached(
        "INSERT OR REPLACE INTO snapshot_left_out (snapshot, left_out) SELECT ?1, id FROM left_out WHERE body = ?2",
    )?
    .execute((snapshot, &body))?;
    Ok(())
}

/// A snapshot without a word of its own left out what its parent's scan did.
pub(super) fn inherit(tx: &Transaction<'_>, snapshot: u64, parent: u64) -> Result<(), DbError> {
    tx.prepare_cached(
        "INSERT OR IGNORE INTO snapshot_left_out (snapshot, left_out)
         SELECT ?1, left_out FROM snapshot_left_out WHERE snapshot = ?2",
    )?
    .execute((snapshot, parent))?;
    Ok(())
}

/// Adds a path that the snapshot does not show because it could not be read.
pub(super) fn add_unread(tx: &Transaction<'_>, snapshot: u64, path: &[u8]) -> Result<(), DbError> {
    let mut known = left_out(tx, snapshot)?;
    if known.unread.iter().any(|unread| unread.0 == path) {
        return Ok(());
    }
    known.unread.push(PathBytes(path.to_vec()));
    set_left_out(tx, snapshot, &known.within_limits())
}
