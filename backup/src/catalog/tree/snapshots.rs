//! Snapshot rows, and the order in which snapshots were made.

use std::collections::BTreeMap;

use database::{Db, DbError};
use proto::id::{DeviceId, SnapshotId};
use proto::log_record::{PathBytes, SnapshotRecord};
use rusqlite::{Connection, OptionalExtension, Row, Transaction};

use super::Snapshot;
use super::rows::malformed;

const COLUMNS: &str = "seq, id, device, time_ns, parent, roots, files, bytes";

/// All snapshots, ascending by sequence number.
pub fn snapshots(conn: &Connection) -> Result<Vec<Snapshot>, DbError> {
    let mut query = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM snapshot ORDER BY seq"))?;
    let rows = query.query_map([], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// One snapshot by its sequence number.
pub fn snapshot(conn: &Connection, seq: u64) -> Result<Option<Snapshot>, DbError> {
    let mut query = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM snapshot WHERE seq = ?"))?;
    Ok(query.query_row([seq], read).optional()?)
}

/// The newest snapshot.
pub fn latest(conn: &Connection) -> Result<Option<Snapshot>, DbError> {
    let mut query = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM snapshot ORDER BY seq DESC LIMIT 1"))?;
    Ok(query.query_row([], read).optional()?)
}

/// Snapshots of several devices, each device's ascending by sequence number, in the order in which they were made. Those of a
/// device that build on one another stay in their order, whatever its clock did. One with a log in full begins anew: it may be
/// of a history that was merged later than it was made.
pub fn by_time(snapshots: Vec<Snapshot>) -> Vec<Snapshot> {
    let mut lines: BTreeMap<(DeviceId, usize), Vec<Snapshot>> = BTreeMap::new();
    let mut begun: BTreeMap<DeviceId, usize> = BTreeMap::new();
    for snapshot in snapshots {
        let line = begun.entry(snapshot.device).or_default();
        *line += usize::from(snapshot.record.parent.is_none());
        lines.entry((snapshot.device, *line)).or_default().push(snapshot);
    }
    let mut newest_first = Vec::new();
    loop {
        let last = lines
            .values_mut()
            .filter(|line| !line.is_empty())
            .max_by_key(|line| line.last().map(|last| (last.record.time_ns, last.record.seq)));
        let Some(last) = last.and_then(Vec::pop) else { break };
        newest_first.push(last);
    }
    newest_first.reverse();
    newest_first
}

/// A snapshot id from what makes it unique.
pub fn snapshot_id(device: DeviceId, seq: u64, time_ns: i64) -> SnapshotId {
    let mut hasher = blake3::Hasher::new_derive_key("gridbackup 2026 snapshot id");
    hasher.update(&device.0);
    hasher.update(&seq.to_le_bytes());
    hasher.update(&time_ns.to_le_bytes());
    let mut id = [0; SnapshotId::LEN];
    hasher.finalize_xof().fill(&mut id);
    SnapshotId(id)
}

/// Records a snapshot.
pub(crate) fn insert(tx: &Transaction<'_>, snapshot: &Snapshot) -> Result<(), DbError> {
    let record = &snapshot.record;
    let roots = minicbor::to_vec(&record.source_roots).expect("encoding into a Vec cannot fail");
    let mut insert = tx.prepare_cached(&format!(
        "INSERT INTO snapshot ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    ))?;
    insert.execute((
        record.seq,
        record.id.0.as_slice(),
        snapshot.device.0.as_slice(),
        record.time_ns,
        record.parent,
        roots,
        record.files,
        record.bytes,
    ))?;
    Ok(())
}

/// Makes the paths of snapshots fit that were recorded before limits were checked, so that they can be posted.
pub fn fit_source_roots(db: &Db) -> Result<(), DbError> {
    let mut all = db.read(snapshots)?;
    all.retain_mut(|snapshot| snapshot.record.fit_source_roots());
    if all.is_empty() {
        return Ok(());
    }
    db.write(|tx| {
        for snapshot in &all {
            let roots = minicbor::to_vec(&snapshot.record.source_roots).expect("encoding into a Vec cannot fail");
            tx.execute(
                "UPDATE snapshot SET roots = ? WHERE seq = ?",
                (roots, snapshot.record.seq),
            )?;
        }
        Ok(())
    })
}

fn read(row: &Row<'_>) -> rusqlite::Result<Snapshot> {
    let roots: Vec<PathBytes> = minicbor::decode(row.get_ref(5)?.as_blob()?).map_err(|error| malformed(5, error))?;
    Ok(Snapshot {
        record: SnapshotRecord {
            seq: row.get(0)?,
            id: SnapshotId(row.get(1)?),
            time_ns: row.get(3)?,
            parent: row.get(4)?,
            source_roots: roots,
            files: row.get(6)?,
            bytes: row.get(7)?,
        },
        device: DeviceId(row.get(2)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_history_that_was_merged_later_stays_older_and_a_clock_that_went_back_moves_nothing() {
        let made = |seq: u64, time_ns: i64, parent: Option<u64>| Snapshot {
            record: SnapshotRecord {
                seq,
                id: SnapshotId([seq as u8; 16]),
                time_ns,
                parent,
                source_roots: Vec::new(),
                files: 0,
                bytes: 0,
            },
            device: DeviceId([0; 32]),
        };
        let seqs = |snapshots| -> Vec<u64> { by_time(snapshots).iter().map(|made| made.record.seq).collect() };
        // The third was merged after the second was made, and the fourth builds on it.
        let merged = vec![
            made(1, 10, None),
            made(2, 30, Some(1)),
            made(3, 20, None),
            made(4, 40, Some(3)),
        ];
        assert_eq!(seqs(merged[..3].to_vec()), [1, 3, 2]);
        assert_eq!(seqs(merged), [1, 3, 2, 4]);
        let clock = vec![made(1, 50, None), made(2, 20, Some(1)), made(3, 30, Some(2))];
        assert_eq!(seqs(clock), [1, 2, 3]);
    }
}
