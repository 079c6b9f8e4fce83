//! A second history taken into a catalog that has one: another device's, or what this one posted while its home was behind.
//!
//! Both may have begun as one: what they share is known by its ids and stays as it is. Snapshots that only the other has get the
//! next numbers; their logs are said again, as this device's, and are posted with its next head. Packs and index sections
//! are only named anew.

use std::collections::{BTreeMap, HashMap, HashSet};

use database::{Db, DbError};
use proto::id::{SnapshotId, VersionId};
use proto::log_record::{LogRecord, PathBytes};
use proto::section_kind::SectionKind;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use upload_queue::packs;
use upload_queue::packs::PackRow;

use super::replay;
use super::replay::Listed;
use crate::catalog::content::{SectionPlace, SectionRow};
use crate::catalog::tree::{Replay, Snapshot};
use crate::catalog::{content, heads, tree};
use crate::restore::RestoreError;

/// Takes everything of `other`, a catalog rebuilt from one head, that `tx` does not know. All of it, or with an error nothing.
pub(super) fn merge(tx: &Transaction<'_>, other: &Db, listed: &[Listed]) -> Result<(), RestoreError> {
    // A rebuilt catalog takes all logs for posted; here they are to be said in full.
    other.write::<_, DbError>(|tx| {
        tx.execute_batch("UPDATE snapshot SET published = 0; DELETE FROM amendment;")?;
        Ok(())
    })?;
    other.read(|from| {
        let here = tree::snapshots(tx)?
            .into_iter()
            .map(|known| (known.record.id, known.record.seq));
        let here: HashMap<SnapshotId, u64> = here.collect();
        let known: HashSet<SnapshotId> = here.keys().copied().collect();
        let snapshots = tree::snapshots(from)?;
        let shared = snapshots.iter().map(|snapshot| &snapshot.record);
        let shared: BTreeMap<u64, u64> = shared
            .filter_map(|record| Some((record.seq, *here.get(&record.id)?)))
            .collect();
        add_marks(tx, from, &shared)?;
        if shared.len() == snapshots.len() {
            return take_heads(tx, from);
        }
        let packs = merge_packs(tx, from)?;
        replay::record_held(tx, listed)?;
        let sections = merge_sections(tx, from, &packs)?;
        merge_contents(tx, from, &sections)?;
        merge_chunks(tx, from, &packs)?;
        let seqs = merge_snapshots(tx, from, &snapshots, &known)?;
        merge_marks(tx, from, &seqs)?;
        take_heads(tx, from)
    })
}

fn take_heads(tx: &Transaction<'_>, from: &Connection) -> Result<(), RestoreError> {
    for (device, name) in heads::names(from)? {
        heads::name(tx, device, &name)?;
    }
    heads::taken_of(from)?
        .into_iter()
        .try_for_each(|(device, head)| heads::take(tx, device, head))?;
    Ok(())
}

fn merge_packs(tx: &Transaction<'_>, from: &Connection) -> Result<HashMap<PackRow, PackRow>, RestoreError> {
    let mut rows = HashMap::new();
    for row in packs::rows(from)?.into_iter().chain(packs::dead(from)?) {
        let Some(pack) = packs::get(from, row)? else { continue };
        rows.insert(
            row,
            packs::insert_known(tx, &pack.record, &pack.manifest, pack.purpose)?,
        );
    }
    Ok(rows)
}

/// Index sections; those that are new are named by the next root.
fn merge_sections(
    tx: &Transaction<'_>,
    from: &Connection,
    packs: &HashMap<PackRow, PackRow>,
) -> Result<HashMap<SectionRow, SectionRow>, RestoreError> {
    let known = content::sections(tx)?.into_iter();
    let known: HashMap<(PackRow, u32), SectionRow> =
        known.map(|(row, place)| ((place.pack, place.offset), row)).collect();
    let mut rows = HashMap::new();
    for (row, place) in content::sections(from)? {
        let Some(pack) = packs.get(&place.pack) else { continue };
        if place.kind != SectionKind::Index as u8 {
            continue;
        }
        let place = SectionPlace { pack: *pack, ..place };
        let known = known.get(&(place.pack, place.offset)).copied();
        rows.insert(row, known.map_or_else(|| content::add_section(tx, &place), Ok)?);
    }
    Ok(rows)
}

fn merge_contents(
    tx: &Transaction<'_>,
    from: &Connection,
    sections: &HashMap<SectionRow, SectionRow>,
) -> Result<(), RestoreError> {
    let mut all = from
        .prepare("SELECT version, cap, section FROM content")
        .map_err(DbError::from)?;
    let mut rows = all.query([]).map_err(DbError::from)?;
    while let Some(row) = rows.next().map_err(DbError::from)? {
        let read =
            (|| Ok::<_, rusqlite::Error>((row.get::<_, i64>(0)?, row.get::<_, Option<Vec<u8>>>(1)?, row.get(2)?)))();
        let (version, cap, section): (i64, Option<Vec<u8>>, Option<i64>) = read.map_err(DbError::from)?;
        let section = section.and_then(|row| sections.get(&SectionRow(row))).map(|row| row.0);
        add_content(tx, version, cap.as_deref(), section)?;
    }
    Ok(())
}

fn add_content(
    tx: &Transaction<'_>,
    version: i64,
    cap: Option<&[u8]>,
    section: Option<i64>,
) -> Result<(), RestoreError> {
    let known: Option<(Option<Vec<u8>>, Option<i64>)> = tx
        .prepare_cached("SELECT cap, section FROM content WHERE version = ?1")
        .map_err(DbError::from)?
        .query_row([version], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(DbError::from)?;
    match known {
        Some((known, at)) if known.as_deref() == cap && (cap.is_some() || at == section) => Ok(()),
        // Two catalogs of one device gave out the same numbers: one would show the other's contents.
        Some(_) => Err(RestoreError::Damaged {
            what: "The index of a head that forks".to_owned(),
            reason: format!(
                "it means another file by version {}",
                VersionId(version.cast_unsigned()).0
            ),
        }),
        None => {
            tx.prepare_cached("INSERT INTO content VALUES (?1, ?2, ?3, 1)")
                .and_then(|mut insert| insert.execute(params![version, cap, section]))
                .map_err(DbError::from)?;
            Ok(())
        }
    }
}

fn merge_chunks(
    tx: &Transaction<'_>,
    from: &Connection,
    packs: &HashMap<PackRow, PackRow>,
) -> Result<(), RestoreError> {
    let mut failed = None;
    let mut visit = |place: content::ChunkPlace| {
        if let (Some(pack), None) = (packs.get(&place.pack), &failed) {
            failed = content::replay_chunks(tx, *pack, &[place.slot]).err();
        }
    };
    content::for_each_chunk(from, &mut visit)?;
    content::for_each_twin(from, &mut visit)?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Says the logs of the snapshots that are not `known`; returns the new number of each.
fn merge_snapshots(
    tx: &Transaction<'_>,
    from: &Connection,
    snapshots: &[Snapshot],
    known: &HashSet<SnapshotId>,
) -> Result<BTreeMap<u64, u64>, RestoreError> {
    let mut next = tree::latest(tx)?.map_or(0, |latest| latest.record.seq) + 1;
    let first = next;
    let mut seqs = BTreeMap::new();
    // What the log says so far of this history's own state: only there may a log say no more than what changed.
    let mut said: Vec<PathBytes> = Vec::new();
    for snapshot in snapshots {
        if known.contains(&snapshot.record.id) {
            said.clear();
            continue;
        }
        let roots = &snapshot.record.source_roots;
        let is_said = |root: &PathBytes| said.iter().any(|said| tree::covers(&said.0, &root.0));
        let is_full = snapshot.record.parent.is_none() || !roots.iter().all(is_said);
        let mut replay = Replay::new(snapshot.device);
        tree::log::<RestoreError>(from, snapshot.record.seq, is_full, &mut |record| {
            let record = match record {
                LogRecord::Snapshot(mut record) => {
                    record.seq = next;
                    record.parent = (!is_full).then(|| next - 1);
                    LogRecord::Snapshot(record)
                }
                record => record,
            };
            Ok(replay.apply(tx, record)?)
        })?;
        if is_full {
            said.extend(roots.iter().cloned());
        }
        seqs.insert(snapshot.record.seq, next);
        next += 1;
    }
    tx.execute("UPDATE snapshot SET published = 0 WHERE seq >= ?1", [first])
        .map_err(DbError::from)?;
    Ok(seqs)
}

/// What is tagged or pinned in either history is in both. What only one has forgotten is not forgotten.
fn add_marks(tx: &Transaction<'_>, from: &Connection, shared: &BTreeMap<u64, u64>) -> Result<(), RestoreError> {
    let known = tree::marks(tx)?;
    for (old, marks) in tree::marks(from)? {
        let Some(seq) = shared.get(&old) else { continue };
        let mut tags = known.get(seq).map(|known| known.tags.clone()).unwrap_or_default();
        tags.extend(marks.tags.iter().cloned());
        tree::set_tags(tx, *seq, &tags)?;
        if marks.pinned {
            tree::pin(tx, &[*seq])?;
        }
    }
    Ok(())
}

fn merge_marks(tx: &Transaction<'_>, from: &Connection, seqs: &BTreeMap<u64, u64>) -> Result<(), RestoreError> {
    for (old, at_ns) in tree::forgotten(from)? {
        if let Some(seq) = seqs.get(&old) {
            tree::forget(tx, &[*seq], at_ns)?;
        }
    }
    for (old, marks) in tree::marks(from)? {
        let Some(seq) = seqs.get(&old) else { continue };
        tree::set_tags(tx, *seq, &marks.tags)?;
        if marks.pinned {
            tree::pin(tx, &[*seq])?;
        }
    }
    Ok(())
}
