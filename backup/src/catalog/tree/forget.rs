//! Snapshots that were forgotten: still known, no longer shown, and no longer wanted unless they are brought back.

use std::collections::BTreeMap;

use database::DbError;
use proto::root::SnapshotRange;
use rusqlite::{Connection, Transaction};

use super::marks::ranges;
use super::{Snapshot, snapshots};

/// Forgotten snapshots by sequence number, with the time of forgetting in nanoseconds since 1970 (0: learned by recovery).
pub fn forgotten(conn: &Connection) -> Result<BTreeMap<u64, i64>, DbError> {
    let mut query = conn.prepare_cached("SELECT snapshot, time_ns FROM forgotten")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// All snapshots that are not forgotten, ascending by sequence number.
pub fn kept(conn: &Connection) -> Result<Vec<Snapshot>, DbError> {
    let forgotten = forgotten(conn)?;
    let mut all = snapshots::snapshots(conn)?;
    all.retain(|snapshot| !forgotten.contains_key(&snapshot.record.seq));
    Ok(all)
}

/// Forgets snapshots. Forgetting one again changes nothing.
pub fn forget(tx: &Transaction<'_>, seqs: &[u64], now_ns: i64) -> Result<(), DbError> {
    let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO forgotten VALUES (?, ?)")?;
    for seq in seqs {
        insert.execute((seq, now_ns))?;
    }
    Ok(())
}

/// Brings forgotten snapshots back.
pub fn unforget(tx: &Transaction<'_>, seqs: &[u64]) -> Result<(), DbError> {
    let mut delete = tx.prepare_cached("DELETE FROM forgotten WHERE snapshot = ?")?;
    for seq in seqs {
        delete.execute([seq])?;
    }
    Ok(())
}

/// The forgotten snapshots as ranges without a kept snapshot in them: what a root carries. Policies keep few snapshots
/// between many that go, so that there are few ranges, however many snapshots there were.
pub fn forgotten_ranges(conn: &Connection) -> Result<Vec<SnapshotRange>, DbError> {
    let forgotten = forgotten(conn)?;
    let all: Vec<u64> = snapshots::snapshots(conn)?
        .iter()
        .map(|known| known.record.seq)
        .collect();
    Ok(ranges(&all, |seq| forgotten.contains_key(&seq)))
}

/// Takes over what a root says is forgotten.
pub(crate) fn replay_forgotten(tx: &Transaction<'_>, ranges: &[SnapshotRange]) -> Result<(), DbError> {
    for range in ranges {
        tx.prepare_cached("INSERT OR IGNORE INTO forgotten SELECT seq, 0 FROM snapshot WHERE seq BETWEEN ? AND ?")?
            .execute((range.first, range.last))?;
    }
    Ok(())
}
