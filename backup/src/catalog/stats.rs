//! What snapshots take: by length, once deduplicated, compressed, on peers with redundancy; and what only one refers to.
//!
//! Every row that names a content is read once. Memory: some 100 bytes for each different content and chunk.

use std::collections::{HashMap, HashSet};

use database::DbError;
use proto::cap_index::Extent;
use proto::id::{ChunkId, VersionId};
use proto::log_record::Content;
use rusqlite::Connection;
use upload_queue::packs;
use upload_queue::packs::PackRow;

use super::content::Place;
use super::shown::Series;
use super::tree::Snapshot;
use super::tree::rows::EntryRow;
use super::{content, shown, tree};

/// What some snapshots take. Contents of up to 128 bytes are part of the log and counted in `bytes` alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Snapshots counted.
    pub snapshots: u64,
    /// Files in them, each snapshot's own.
    pub files: u64,
    /// Bytes by length: what restoring each of them would write.
    pub bytes: u64,
    /// Different contents.
    pub contents: u64,
    /// Contents that are not uploaded yet; the numbers below leave them out.
    pub contents_waiting: u64,
    /// Different chunks.
    pub chunks: u64,
    /// Bytes of different chunks, and of different contents up to 4 KiB.
    pub bytes_deduplicated: u64,
    /// The same, chunks as they are stored in packs.
    pub bytes_compressed: u64,
    /// Data packs that they lie in, perhaps with chunks of other snapshots.
    pub packs: u64,
    /// Bytes of all shares of these packs that peers are known to hold.
    pub bytes_stored: u64,
    /// Of one snapshot: bytes as in `bytes_compressed` that no other kept snapshot refers to.
    pub bytes_unique: Option<u64>,
}

/// Contents with their lengths.
type Contents = HashMap<VersionId, u64>;

/// What all snapshots that are not forgotten take together; or of those the one with the sequence number `only`.
pub fn stats(conn: &Connection, only: Option<u64>) -> Result<Stats, DbError> {
    let kept = tree::kept(conn)?;
    let counted = kept
        .iter()
        .filter(|known| only.is_none_or(|only| known.record.seq == only));
    let mut stats = Stats::default();
    for snapshot in counted {
        stats.snapshots += 1;
        stats.files += snapshot.record.files;
        stats.bytes += snapshot.record.bytes;
    }
    let (own, others) = contents(conn, &kept, only)?;
    stats.contents = own.len() as u64;
    let mut packs: HashSet<PackRow> = HashSet::new();
    let mut chunks: HashSet<ChunkId> = HashSet::new();
    for (version, bytes) in &own {
        match content::place(conn, *version)? {
            None => stats.contents_waiting += 1,
            Some(Place::Section(_)) => {
                stats.bytes_deduplicated += bytes;
                stats.bytes_compressed += bytes;
            }
            Some(Place::Extents(extents)) => {
                for id in ids(&extents).filter(|id| chunks.insert(*id)) {
                    let Some(place) = content::chunk(conn, id)? else {
                        continue;
                    };
                    stats.bytes_deduplicated += u64::from(place.slot.raw_len);
                    stats.bytes_compressed += u64::from(place.slot.stored_len);
                    packs.insert(place.pack);
                }
            }
        }
    }
    stats.chunks = chunks.len() as u64;
    stats.packs = packs.len() as u64;
    for row in packs {
        let Some(pack) = packs::get(conn, row)? else { continue };
        stats.bytes_stored += pack.held() as u64 * pack.manifest.shape.share.stored_bytes() as u64;
    }
    if only.is_some() {
        stats.bytes_unique = Some(unique(conn, &own, &others)?);
    }
    Ok(stats)
}

/// The contents that the snapshot `only` shows (none: any kept one), and those that any other kept one does.
fn contents(conn: &Connection, kept: &[Snapshot], only: Option<u64>) -> Result<(Contents, Contents), DbError> {
    let series = shown::series(kept);
    let (mut own, mut others) = (Contents::new(), Contents::new());
    shown::each_content(conn, &mut |path, row| {
        let Content::Version(version) = row.entry.content else {
            return Ok(());
        };
        let (in_own, in_others) = shown_by(&series, path, row, only);
        if in_own {
            own.insert(version, row.entry.meta.size);
        }
        if in_others {
            others.insert(version, row.entry.meta.size);
        }
        Ok(())
    })?;
    Ok((own, others))
}

/// Whether the snapshot `only` (none: any) shows a row of the directory at `path`, and whether another one does.
fn shown_by(series: &[Series<'_>], path: &[u8], row: &EntryRow, only: Option<u64>) -> (bool, bool) {
    let (mut own, mut others) = (false, false);
    for showing in shown::showing(series, path, row) {
        match only {
            None => own = true,
            Some(only) => {
                let has_own = showing.binary_search(&only).is_ok();
                own |= has_own;
                others |= showing.len() > usize::from(has_own);
            }
        }
    }
    (own, others)
}

/// Bytes as stored of the contents and chunks that are in `own` alone.
fn unique(conn: &Connection, own: &Contents, others: &Contents) -> Result<u64, DbError> {
    let mut bytes = 0;
    let mut chunks: HashSet<ChunkId> = HashSet::new();
    for (version, len) in own.iter().filter(|(version, _)| !others.contains_key(version)) {
        match content::place(conn, *version)? {
            None => {}
            Some(Place::Section(_)) => bytes += len,
            Some(Place::Extents(extents)) => chunks.extend(ids(&extents)),
        }
    }
    for version in others.keys() {
        if chunks.is_empty() {
            break;
        }
        if let Some(Place::Extents(extents)) = content::place(conn, *version)? {
            for id in ids(&extents) {
                chunks.remove(&id);
            }
        }
    }
    for id in chunks {
        bytes += content::chunk(conn, id)?.map_or(0, |place| u64::from(place.slot.stored_len));
    }
    Ok(bytes)
}

fn ids(extents: &[Extent]) -> impl Iterator<Item = ChunkId> {
    extents.iter().filter_map(|extent| match extent {
        Extent::Chunk(id, _) => Some(*id),
        Extent::Hole(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use database::Db;
    use proto::cap_index::ChunkSlot;
    use proto::id::{DeviceId, SnapshotId};
    use proto::log_record::{Entry, EntryKind, LogRecord, Meta, PathBytes, SnapshotRecord};

    use super::*;
    use crate::catalog::MIGRATIONS;

    fn file(name: &str, version: u64, size: u64) -> LogRecord {
        LogRecord::Entry(Entry {
            name: name.as_bytes().to_vec(),
            kind: EntryKind::File,
            meta: Meta {
                size,
                ..Meta::default()
            },
            content: Content::Version(VersionId(version)),
        })
    }

    fn snapshot(seq: u64, root: &str, bytes: u64) -> LogRecord {
        LogRecord::Snapshot(SnapshotRecord {
            seq,
            id: SnapshotId([seq as u8; 16]),
            time_ns: 0,
            parent: (seq > 1).then(|| seq - 1),
            source_roots: vec![PathBytes(root.as_bytes().to_vec())],
            files: 2,
            bytes,
        })
    }

    fn chunk(number: u8) -> Extent {
        Extent::Chunk(ChunkId([number; 16]), 1000)
    }

    /// Snapshot 1: `a` of chunks 1 and 2, `b` of chunk 2. Snapshot 2: `a` of chunks 1 and 3, `b` as before. Snapshot 3 is of
    /// another folder, so that it does not refer to `a` of snapshot 1 though that row's time is its own, too.
    fn catalog() -> Db {
        let db = Db::in_memory(MIGRATIONS).unwrap();
        db.write(|tx| {
            let mut replay = tree::Replay::new(DeviceId([7; 32]));
            let folder = |path: &str| LogRecord::Directory(path.as_bytes().to_vec());
            for record in [
                snapshot(1, "/r", 3000),
                folder("/r"),
                file("a", 1, 2000),
                file("b", 2, 1000),
                snapshot(2, "/s", 1000),
                folder("/s"),
                file("c", 4, 1000),
                snapshot(3, "/r", 3000),
                folder("/r"),
                file("a", 3, 2000),
            ] {
                replay.apply(tx, record)?;
            }
            content::set_place(tx, VersionId(1), &Place::Extents(vec![chunk(1), chunk(2)]))?;
            content::set_place(tx, VersionId(2), &Place::Extents(vec![chunk(2)]))?;
            content::set_place(tx, VersionId(3), &Place::Extents(vec![chunk(1), chunk(3)]))?;
            let slots: Vec<ChunkSlot> = (1..=3u8)
                .map(|number| ChunkSlot {
                    id: ChunkId([number; 16]),
                    offset: u32::from(number) * 600,
                    stored_len: 600,
                    raw_len: 1000,
                })
                .collect();
            content::add_chunks(tx, PackRow(1), &slots)
        })
        .unwrap();
        db
    }

    #[test]
    fn all_snapshots_together_count_each_chunk_once() {
        let stats = catalog().read(|conn| stats(conn, None)).unwrap();
        assert_eq!((stats.snapshots, stats.files, stats.bytes), (3, 6, 7000));
        assert_eq!((stats.contents, stats.contents_waiting, stats.chunks), (4, 1, 3));
        assert_eq!((stats.bytes_deduplicated, stats.bytes_compressed), (3000, 1800));
        assert_eq!((stats.packs, stats.bytes_unique), (1, None));
    }

    #[test]
    fn a_snapshot_alone_has_what_no_other_shows() {
        let db = catalog();
        let of = |seq| db.read(|conn| stats(conn, Some(seq))).unwrap();
        // Chunk 1 is in version 3, too; chunk 2 in `b`, which snapshot 3 shows: nothing is snapshot 1's alone.
        assert_eq!((of(1).bytes_deduplicated, of(1).bytes_unique), (2000, Some(0)));
        assert_eq!((of(3).bytes_deduplicated, of(3).bytes_unique), (3000, Some(600)));
        db.write(|tx| tree::forget(tx, &[3], 0)).unwrap();
        assert_eq!(of(1).bytes_unique, Some(1200));
    }
}
