//! What the owner said of snapshots: tags, and which are pinned. Both travel in the root, so that they outlive the machine.

use std::collections::{BTreeMap, BTreeSet};

use database::DbError;
use proto::root::{Root, SnapshotRange, TaggedSnapshots};
use rusqlite::{Connection, Transaction};

use super::snapshots;

/// What was said of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// No policy forgets it.
    pub pinned: bool,
    /// Its tags, sorted.
    pub tags: BTreeSet<String>,
}

/// Snapshots (sequence numbers) of which anything was said.
pub fn marks(conn: &Connection) -> Result<BTreeMap<u64, Marks>, DbError> {
    let mut marks: BTreeMap<u64, Marks> = BTreeMap::new();
    let mut query = conn.prepare_cached("SELECT snapshot, tag FROM tag")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        marks.entry(row.get(0)?).or_default().tags.insert(row.get(1)?);
    }
    let mut query = conn.prepare_cached("SELECT snapshot FROM pinned")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        marks.entry(row.get(0)?).or_default().pinned = true;
    }
    Ok(marks)
}

/// Gives a snapshot these tags and no others.
pub fn set_tags(tx: &Transaction<'_>, seq: u64, tags: &BTreeSet<String>) -> Result<(), DbError> {
    tx.prepare_cached("DELETE FROM tag WHERE snapshot = ?")?
        .execute([seq])?;
    let mut insert = tx.prepare_cached("INSERT INTO tag VALUES (?, ?)")?;
    for tag in tags {
        insert.execute((seq, tag))?;
    }
    Ok(())
}

/// Keeps snapshots from being forgotten by a policy.
pub fn pin(tx: &Transaction<'_>, seqs: &[u64]) -> Result<(), DbError> {
    let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO pinned VALUES (?)")?;
    seqs.iter().try_for_each(|seq| insert.execute([seq]).map(drop))?;
    Ok(())
}

/// Lets policies forget them again.
pub fn unpin(tx: &Transaction<'_>, seqs: &[u64]) -> Result<(), DbError> {
    let mut delete = tx.prepare_cached("DELETE FROM pinned WHERE snapshot = ?")?;
    seqs.iter().try_for_each(|seq| delete.execute([seq]).map(drop))?;
    Ok(())
}

/// Writes into a root what is said of snapshots; whether it said anything else before.
pub fn mark(conn: &Connection, root: &mut Root) -> Result<bool, DbError> {
    let all: Vec<u64> = snapshots::snapshots(conn)?
        .iter()
        .map(|known| known.record.seq)
        .collect();
    let (mut tagged, mut pinned): (BTreeMap<String, BTreeSet<u64>>, BTreeSet<u64>) = Default::default();
    for (seq, marks) in marks(conn)? {
        for tag in marks.tags {
            tagged.entry(tag).or_default().insert(seq);
        }
        if marks.pinned {
            pinned.insert(seq);
        }
    }
    let tags = tagged.into_iter().map(|(tag, seqs)| TaggedSnapshots {
        snapshots: ranges(&all, |seq| seqs.contains(&seq)),
        tag,
    });
    // A tag of a snapshot that was never recorded names none.
    let tags: Vec<TaggedSnapshots> = tags.filter(|tagged| !tagged.snapshots.is_empty()).collect();
    let tags = Some(tags).filter(|tags| !tags.is_empty());
    let pinned = Some(ranges(&all, |seq| pinned.contains(&seq))).filter(|ranges| !ranges.is_empty());
    let differs = root.tags != tags || root.pinned != pinned;
    (root.tags, root.pinned) = (tags, pinned);
    Ok(differs)
}

/// Takes over what a root says of snapshots.
pub(crate) fn replay_marks(tx: &Transaction<'_>, root: &Root) -> Result<(), DbError> {
    for tagged in root.tags.iter().flatten() {
        for range in &tagged.snapshots {
            tx.prepare_cached("INSERT OR IGNORE INTO tag SELECT seq, ? FROM snapshot WHERE seq BETWEEN ? AND ?")?
                .execute((&tagged.tag, range.first, range.last))?;
        }
    }
    for range in root.pinned.iter().flatten() {
        tx.prepare_cached("INSERT OR IGNORE INTO pinned SELECT seq FROM snapshot WHERE seq BETWEEN ? AND ?")?
            .execute((range.first, range.last))?;
    }
    Ok(())
}

/// The snapshots of `all` (ascending) that are `meant`, as ranges without another of them in it: what a root carries.
pub(crate) fn ranges(all: &[u64], meant: impl Fn(u64) -> bool) -> Vec<SnapshotRange> {
    let mut ranges: Vec<SnapshotRange> = Vec::new();
    let mut open = false;
    for &seq in all {
        let is_meant = meant(seq);
        match ranges.last_mut() {
            Some(last) if is_meant && open => last.last = seq,
            _ if is_meant => ranges.push(SnapshotRange { first: seq, last: seq }),
            _ => {}
        }
        open = is_meant;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use database::Db;
    use proto::id::{DeviceId, SnapshotId};
    use proto::log_record::SnapshotRecord;

    use super::*;
    use crate::catalog::MIGRATIONS;
    use crate::catalog::tree::{Snapshot, insert_snapshot};

    fn catalog(seqs: &[u64]) -> Db {
        let db = Db::in_memory(MIGRATIONS).unwrap();
        let snapshot = |seq: u64| Snapshot {
            device: DeviceId([1; 32]),
            record: SnapshotRecord {
                seq,
                id: SnapshotId([seq as u8; 16]),
                time_ns: 0,
                parent: None,
                source_roots: Vec::new(),
                files: 0,
                bytes: 0,
            },
        };
        db.write(|tx| seqs.iter().try_for_each(|seq| insert_snapshot(tx, &snapshot(*seq))))
            .unwrap();
        db
    }

    #[test]
    fn tags_and_pins_come_back_out_of_a_root() {
        let seqs = [1, 2, 4, 5, 9];
        let db = catalog(&seqs);
        let tags = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let mut root = Root::default();
        db.write(|tx| {
            for seq in [2, 4, 5] {
                set_tags(tx, seq, &tags(&["holiday", "old"]))?;
            }
            set_tags(tx, 4, &tags(&["holiday"]))?;
            pin(tx, &[1, 9])?;
            unpin(tx, &[1])?;
            assert!(mark(tx, &mut root)?);
            assert!(!mark(tx, &mut root)?, "said already");
            Ok::<_, DbError>(())
        })
        .unwrap();
        assert_eq!(
            root.tags.as_ref().unwrap()[0].snapshots.len(),
            1,
            "2 to 5 are one range"
        );
        assert_eq!(root.tags.as_ref().unwrap()[1].snapshots.len(), 2);
        assert_eq!(Root::decode(&root.encode().unwrap()).unwrap(), root);

        let other = catalog(&seqs);
        other.write(|tx| replay_marks(tx, &root)).unwrap();
        assert_eq!(other.read(marks).unwrap(), db.read(marks).unwrap());
    }
}
