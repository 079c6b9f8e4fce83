//! Which packs are still wanted: the owner's side of garbage collection.
//!
//! A data pack is live if a file version that some kept snapshot shows, by its time and its roots, has a chunk in it, and dead otherwise. Dead packs keep
//! their rows, so that a forgotten snapshot can come back with what the trash of peers still has; but nothing new refers to
//! them. Metadata packs are always live. Leaves out whom to tell: that is `crate::prune`.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use database::DbError;
use proto::cap_index::Extent;
use proto::id::{PackId, VersionId};
use proto::log_record::Content;
use rusqlite::{Connection, Transaction};
use upload_queue::packs;
use upload_queue::packs::{PackRow, Purpose};

use super::{Place, chunk, moves, packs_of, place};
use crate::catalog::shown::Series;
use crate::catalog::tree::rows;
use crate::catalog::tree::rows::EntryRow;
use crate::catalog::{shown, tree};

/// Places are sorted when there are twice as many as after the last time, but not fewer than twice these.
const SORT_FROM: usize = 64;

/// What a change of the kept snapshots means for packs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Data packs that are wanted.
    pub live: HashSet<PackRow>,
    /// Data packs that are not, and were so far.
    pub dying: Vec<PackRow>,
    /// Data packs that are wanted again.
    pub reviving: Vec<PackRow>,
    /// What of the packs that are not on their way the snapshots want.
    pub chunks: BTreeMap<PackRow, WantedChunks>,
}

/// The chunks of a pack that are wanted, each by its offset and stored length: 8 bytes a chunk, however many files have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedChunks {
    places: Vec<(u32, u32)>,
    /// Places up to here are sorted and differ.
    sorted: usize,
}

impl WantedChunks {
    fn add(&mut self, offset: u32, stored_len: u32) {
        self.places.push((offset, stored_len));
        if self.places.len() >= 2 * self.sorted.max(SORT_FROM) {
            self.sort();
        }
    }
    fn sort(&mut self) {
        self.places.sort_unstable();
        self.places.dedup();
        self.sorted = self.places.len();
    }
    /// Their lengths in the pack, by offset.
    pub fn lens(&self) -> impl Iterator<Item = u32> + '_ {
        self.places.iter().map(|(_, stored_len)| *stored_len)
    }
    /// Their bytes in the pack.
    pub fn bytes(&self) -> u64 {
        self.lens().map(u64::from).sum()
    }
    /// Whether the chunk at this offset is among them.
    pub fn contains(&self, offset: u32) -> bool {
        self.places.binary_search_by_key(&offset, |(start, _)| *start).is_ok()
    }
}

/// What packs the snapshots `kept` (sequence numbers, ascending) want. Reads every file version once.
pub fn wanted(conn: &Connection, kept: &[u64]) -> Result<Wanted, DbError> {
    let mut chunks: BTreeMap<PackRow, WantedChunks> = BTreeMap::new();
    let mut snapshots = tree::snapshots(conn)?;
    snapshots.retain(|snapshot| kept.binary_search(&snapshot.record.seq).is_ok());
    let series = shown::series(&snapshots);
    shown::each_content(conn, &mut |path, row| match row.entry.content {
        Content::Version(version) if shown::is_shown(&series, path, row) => add_chunks_of(conn, version, &mut chunks),
        _ => Ok(()),
    })?;
    let on_their_way = on_their_way(conn)?;
    let live: HashSet<PackRow> = chunks.keys().chain(&on_their_way).copied().collect();
    chunks.retain(|pack, _| !on_their_way.contains(pack));
    chunks.values_mut().for_each(WantedChunks::sort);

    let dead: HashSet<PackRow> = packs::dead(conn)?.into_iter().collect();
    let data = packs::data_rows(conn)?;
    Ok(Wanted {
        dying: data
            .iter()
            .copied()
            .filter(|row| !live.contains(row) && !dead.contains(row))
            .collect(),
        reviving: data
            .iter()
            .copied()
            .filter(|row| live.contains(row) && dead.contains(row))
            .collect(),
        live,
        chunks,
    })
}

/// Keeps packs that are wanted elsewhere whole: they neither die nor are repacked.
pub fn keep(conn: &Connection, wanted: &mut Wanted, elsewhere: &BTreeSet<PackId>) -> Result<(), DbError> {
    let dead: HashSet<PackRow> = packs::dead(conn)?.into_iter().collect();
    for pack in elsewhere {
        let Some(pack) = packs::find(conn, *pack)? else {
            continue;
        };
        let row = pack.row;
        wanted.live.insert(row);
        wanted.chunks.remove(&row);
        wanted.dying.retain(|dying| *dying != row);
        if dead.contains(&row) && !wanted.reviving.contains(&row) {
            wanted.reviving.push(row);
        }
    }
    Ok(())
}

fn add_chunks_of(
    conn: &Connection,
    version: VersionId,
    chunks: &mut BTreeMap<PackRow, WantedChunks>,
) -> Result<(), DbError> {
    let Some(Place::Extents(extents)) = place(conn, version)? else {
        return Ok(()); // waits, or lies in a metadata pack
    };
    for extent in extents {
        let Extent::Chunk(id, _) = extent else { continue };
        if let Some(place) = chunk(conn, id)? {
            let wanted = chunks.entry(place.pack).or_default();
            wanted.add(place.slot.offset, place.slot.stored_len);
        }
    }
    Ok(())
}

/// Packs that are needed before any snapshot can show it: those of a job that is not settled, those that no index lists yet
/// or that the spool still has, and those that chunks are being moved into.
fn on_their_way(conn: &Connection) -> Result<HashSet<PackRow>, DbError> {
    let mut packs: HashSet<PackRow> = moves::under_way(conn)?.into_iter().collect();
    let mut query = conn.prepare_cached("SELECT version FROM content WHERE settled = 0")?;
    let unsettled = query.query_map([], |row| Ok(VersionId(row.get::<_, i64>(0)?.cast_unsigned())))?;
    for version in unsettled {
        packs.extend(packs_of(conn, version?)?);
    }
    let mut query =
        conn.prepare_cached("SELECT pack FROM unlisted_pack UNION SELECT pack FROM share WHERE spooled = 1")?;
    let undelivered = query.query_map([], |row| row.get(0).map(PackRow))?;
    packs.extend(undelivered.collect::<Result<Vec<_>, _>>()?);
    // What is lost is on no way any more: its content, if any snapshot wants it, is sent again in another pack.
    for lost in packs::lost(conn, Purpose::Data)? {
        packs.remove(&lost);
    }
    Ok(packs)
}

/// Records what is wanted. Files whose newest state no kept snapshot shows are read again by the next scan of theirs: their
/// content may be gone by then.
pub fn record(tx: &Transaction<'_>, wanted: &Wanted, now_ns: i64) -> Result<(), DbError> {
    packs::set_dead(tx, &wanted.dying, now_ns)?;
    packs::set_alive(tx, &wanted.reviving)?;
    let kept = tree::kept(tx)?;
    let series = shown::series(&kept);
    // Ids first: nothing is changed below a query that still reads.
    let directories = ids(tx)?;
    for directory in directories {
        distrust_hidden(tx, directory, &series)?;
    }
    Ok(())
}

/// The directories that hold files whose content is kept.
fn ids(conn: &Connection) -> Result<Vec<i64>, DbError> {
    let mut query =
        conn.prepare_cached("SELECT DISTINCT directory FROM entry WHERE until IS NULL AND version IS NOT NULL")?;
    let ids = query.query_map([], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Has the newest states in a directory that no snapshot shows read again.
fn distrust_hidden(tx: &Transaction<'_>, directory: i64, series: &[Series<'_>]) -> Result<(), DbError> {
    let path = rows::directory_path(tx, directory)?;
    let mut query = tx.prepare_cached(&format!(
        "SELECT {} FROM entry WHERE directory = ? AND until IS NULL AND version IS NOT NULL",
        rows::COLUMNS
    ))?;
    let newest = query.query_map([directory], rows::read_row)?;
    let newest: Vec<EntryRow> = newest.collect::<Result<_, _>>()?;
    let mut hidden = newest
        .iter()
        .filter(|row| !shown::is_shown(series, &path, row))
        .peekable();
    if hidden.peek().is_some() {
        tx.prepare_cached("UPDATE directory SET fingerprint = NULL, marks = marks + 1 WHERE id = ?")?
            .execute([directory])?;
    }
    for row in hidden {
        tx.prepare_cached("UPDATE entry SET suspect = 1 WHERE directory = ? AND name = ? AND since = ?")?
            .execute((directory, &row.entry.name, row.since))?;
    }
    Ok(())
}
