//! Where content is: chunks, file versions, metadata sections, and what the newest head says.
//!
//! `post` has the steps between "its chunks are in packs" and "its upload job is settled".

use database::DbError;
use minicbor::{Decode, Encode};
use proto::cap_index::{Cap, ChunkSlot, Extent};
use proto::head::HeadBody;
use proto::id::{ChunkId, VersionId};
use proto::root::Root;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use upload_queue::packs::PackRow;

pub mod anew;
pub mod live;
pub mod lost;
pub mod moves;
pub mod post;

/// A catalog's version ids start somewhere in the lower half of what SQLite can count, and never come to its end.
const FIRST_VERSION_BITS: u32 = 62;

/// Bits of an offset in a pack's plaintext, in the table of chunks: a pack of 32 shares of 4 MiB ends before 2^27.
const OFFSET_BITS: u32 = 27;
/// Bits of a chunk's length there: ten times the longest chunk. Two lengths share an integer of SQLite, which is signed.
const LEN_BITS: u32 = 25;

/// A chunk's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPlace {
    /// The pack it is in.
    pub pack: PackRow,
    /// Its slot there.
    pub slot: ChunkSlot,
}

/// Where the content of a version is, as the catalog knows it.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// In these extents.
    Extents(Vec<Extent>),
    /// In an index section, as `Cap::Inline`.
    Section(SectionRow),
}

/// Row number of a metadata section.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SectionRow(pub i64);

/// A metadata section's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionPlace {
    /// The metadata pack it is in.
    pub pack: PackRow,
    /// Offset in the pack's plaintext.
    pub offset: u32,
    /// Bytes of the encoded section.
    pub len: u32,
    /// `SectionKind as u8`.
    pub kind: u8,
}

/// Where a chunk is, if it is known.
pub fn chunk(conn: &Connection, id: ChunkId) -> Result<Option<ChunkPlace>, DbError> {
    let mut query = conn.prepare_cached("SELECT place, lens FROM chunk WHERE id = ?1")?;
    let place = query.query_row([&id.0[..]], |row| Ok(chunk_place(id, row.get(0)?, row.get(1)?)));
    Ok(place.optional()?)
}

/// SQL: a place in the table of chunks is one that new content may refer to, since its pack is neither dead nor lost.
const IS_USABLE: &str = "(place >> 27 NOT IN (SELECT pack FROM dead_pack)
    AND NOT EXISTS (SELECT 1 FROM lost_pack WHERE lost_pack.pack = place >> 27))";

/// As `chunk`, but only if its pack is still wanted and not lost: what new content may refer to.
pub fn wanted_chunk(conn: &Connection, id: ChunkId) -> Result<Option<ChunkPlace>, DbError> {
    let mut query = conn.prepare_cached(&format!("SELECT place, lens FROM chunk WHERE id = ?1 AND {IS_USABLE}"))?;
    let place = query.query_row([&id.0[..]], |row| Ok(chunk_place(id, row.get(0)?, row.get(1)?)));
    Ok(place.optional()?)
}

/// Records a pack's chunks; chunks already known in a pack that is neither dead nor lost keep their first place.
pub fn add_chunks(tx: &Transaction<'_>, pack: PackRow, slots: &[ChunkSlot]) -> Result<(), DbError> {
    let statement = format!(
        "INSERT INTO chunk VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET place = ?2, lens = ?3 WHERE NOT {IS_USABLE}"
    );
    insert_chunks(tx, &statement, pack, slots)
}

/// As `add_chunks`, but whatever their places were so far.
fn put_chunks(tx: &Transaction<'_>, pack: PackRow, slots: &[ChunkSlot]) -> Result<(), DbError> {
    insert_chunks(tx, "INSERT OR REPLACE INTO chunk VALUES (?1, ?2, ?3)", pack, slots)
}

/// As `add_chunks`, in a catalog that is being rebuilt: until all packs and their holders are known, chunks that several
/// packs have keep all their places. `choose_twins` ends that.
pub fn replay_chunks(tx: &Transaction<'_>, pack: PackRow, slots: &[ChunkSlot]) -> Result<(), DbError> {
    insert_chunks(tx, "INSERT OR IGNORE INTO chunk VALUES (?1, ?2, ?3)", pack, slots)?;
    insert_chunks(
        tx,
        "INSERT OR IGNORE INTO chunk_twin SELECT ?1, ?2, ?3 FROM chunk WHERE id = ?1 AND place <> ?2",
        pack,
        slots,
    )
}

/// Of the places of a chunk that several packs have, takes the one in the pack with most holders; the newer of equal ones.
/// What was pruned has none.
pub fn choose_twins(tx: &Transaction<'_>) -> Result<(), DbError> {
    let twins = {
        let mut query = tx.prepare("SELECT id, place, lens FROM chunk_twin ORDER BY place")?;
        let twins = query.query_map([], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })?;
        twins.collect::<Result<Vec<_>, _>>()?
    };
    let mut update = tx.prepare_cached(
        "UPDATE chunk SET place = ?2, lens = ?3 WHERE id = ?1 AND (SELECT held FROM pack WHERE id = ?2 >> 27)
         >= (SELECT held FROM pack WHERE id = chunk.place >> 27)",
    )?;
    for twin in twins {
        update.execute(twin)?;
    }
    tx.execute("DELETE FROM chunk_twin", [])?;
    Ok(())
}

fn insert_chunks(tx: &Transaction<'_>, statement: &str, pack: PackRow, slots: &[ChunkSlot]) -> Result<(), DbError> {
    let mut sorted = slots.to_vec();
    sorted.sort_unstable_by_key(|slot| slot.id); // neighbours in the tree are written together
    let mut insert = tx.prepare_cached(statement)?;
    for slot in sorted {
        let limits = [
            (slot.offset, OFFSET_BITS),
            (slot.stored_len, LEN_BITS),
            (slot.raw_len, LEN_BITS),
        ];
        if limits.iter().any(|(number, bits)| number >> bits != 0) {
            let error = std::io::Error::other("a chunk's place is out of limits");
            return Err(DbError::Sqlite(conversion(0, error)));
        }
        let lens = match slot.stored_len == slot.raw_len {
            true => i64::from(slot.raw_len),
            false => i64::from(slot.stored_len) << LEN_BITS | i64::from(slot.raw_len),
        };
        insert.execute(params![
            &slot.id.0[..],
            pack.0 << OFFSET_BITS | i64::from(slot.offset),
            lens
        ])?;
    }
    Ok(())
}

/// Calls `visit` with the place of every chunk.
pub fn for_each_chunk(conn: &Connection, visit: &mut dyn FnMut(ChunkPlace)) -> Result<(), DbError> {
    let mut query = conn.prepare_cached("SELECT id, place, lens FROM chunk")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        visit(chunk_place(ChunkId(row.get(0)?), row.get(1)?, row.get(2)?));
    }
    Ok(())
}

/// The same of the further places that a catalog knows while it is rebuilt.
pub(crate) fn for_each_twin(conn: &Connection, visit: &mut dyn FnMut(ChunkPlace)) -> Result<(), DbError> {
    let mut query = conn.prepare_cached("SELECT id, place, lens FROM chunk_twin")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        visit(chunk_place(ChunkId(row.get(0)?), row.get(1)?, row.get(2)?));
    }
    Ok(())
}

/// All chunks of a pack, by offset. Reads the whole chunk table: for repair and checks, not for every day.
pub fn chunks_of(conn: &Connection, pack: PackRow) -> Result<Vec<ChunkSlot>, DbError> {
    let mut query = conn.prepare_cached("SELECT id, place, lens FROM chunk WHERE place >> ?2 = ?1 ORDER BY place")?;
    let slots = query.query_map([pack.0, i64::from(OFFSET_BITS)], |row| {
        Ok(chunk_place(ChunkId(row.get(0)?), row.get(1)?, row.get(2)?).slot)
    })?;
    Ok(slots.collect::<Result<_, _>>()?)
}

/// The meaning of a row of `chunk`.
fn chunk_place(id: ChunkId, place: i64, lens: i64) -> ChunkPlace {
    let low = |number: i64, bits: u32| (number & ((1 << bits) - 1)) as u32;
    let raw_len = low(lens, LEN_BITS);
    let stored_len = match lens >> LEN_BITS {
        0 => raw_len,
        stored_len => stored_len as u32,
    };
    ChunkPlace {
        pack: PackRow(place >> OFFSET_BITS),
        slot: ChunkSlot {
            id,
            offset: low(place, OFFSET_BITS),
            stored_len,
            raw_len,
        },
    }
}

/// Records where a version's content is. `Cap::Inline` goes with the section that carries it.
pub fn set_place(tx: &Transaction<'_>, version: VersionId, place: &Place) -> Result<(), DbError> {
    let (cap, section) = match place {
        Place::Extents(extents) => (Some(cbor(extents)), None),
        Place::Section(section) => (None, Some(section.0)),
    };
    tx.prepare_cached("INSERT OR REPLACE INTO content VALUES (?1, ?2, ?3, 0)")?
        .execute(params![version.0 as i64, cap, section])?;
    Ok(())
}

/// Where a version's content is; `None` while it waits.
pub fn place(conn: &Connection, version: VersionId) -> Result<Option<Place>, DbError> {
    let mut query = conn.prepare_cached("SELECT cap, section FROM content WHERE version = ?1")?;
    let place = query.query_row([version.0 as i64], |row| match row.get::<_, Option<Vec<u8>>>(0)? {
        Some(cap) => Ok(Place::Extents(decoded(0, &cap)?)),
        None => Ok(Place::Section(SectionRow(row.get(1)?))),
    });
    Ok(place.optional()?)
}

/// Records a section.
pub fn add_section(tx: &Transaction<'_>, place: &SectionPlace) -> Result<SectionRow, DbError> {
    tx.prepare_cached("INSERT INTO section (pack, offset, len, kind, published) VALUES (?1, ?2, ?3, ?4, 0)")?
        .execute(params![place.pack.0, place.offset, place.len, place.kind])?;
    Ok(SectionRow(tx.last_insert_rowid()))
}

/// A section's place.
pub fn section(conn: &Connection, row: SectionRow) -> Result<Option<SectionPlace>, DbError> {
    let mut query = conn.prepare_cached("SELECT pack, offset, len, kind FROM section WHERE id = ?1")?;
    Ok(query.query_row([row.0], section_place).optional()?)
}

/// All sections, in the order in which they are replayed.
pub(crate) fn sections(conn: &Connection) -> Result<Vec<(SectionRow, SectionPlace)>, DbError> {
    let mut query = conn.prepare_cached("SELECT pack, offset, len, kind, id FROM section ORDER BY id")?;
    let sections = query.query_map([], |row| Ok((SectionRow(row.get(4)?), section_place(row)?)))?;
    Ok(sections.collect::<Result<_, _>>()?)
}

fn section_place(row: &Row<'_>) -> rusqlite::Result<SectionPlace> {
    Ok(SectionPlace {
        pack: PackRow(row.get(0)?),
        offset: row.get(1)?,
        len: row.get(2)?,
        kind: row.get(3)?,
    })
}

/// The packs that hold a version's content; empty while it waits. For inline caps, the section's pack.
pub fn packs_of(conn: &Connection, version: VersionId) -> Result<Vec<PackRow>, DbError> {
    let mut packs = Vec::new();
    match place(conn, version)? {
        None => {}
        Some(Place::Section(row)) => packs.extend(section(conn, row)?.map(|section| section.pack)),
        Some(Place::Extents(extents)) => {
            for extent in extents {
                let Extent::Chunk(id, _) = extent else { continue };
                let Some(place) = chunk(conn, id)? else { continue };
                if packs.last() != Some(&place.pack) {
                    packs.push(place.pack);
                }
            }
            packs.sort_unstable();
            packs.dedup();
        }
    }
    Ok(packs)
}

/// A fresh version id.
pub fn next_version(tx: &Transaction<'_>) -> Result<VersionId, DbError> {
    reserve_versions(tx, 1)
}

/// Reserves `count` fresh version ids that follow one another; returns the first.
///
/// A new catalog starts at a random point, so that ids it gives out do not meet those of an earlier catalog of the device
/// which nobody recovered.
pub fn reserve_versions(tx: &Transaction<'_>, count: u64) -> Result<VersionId, DbError> {
    let next = tx
        .query_row("SELECT next FROM version_counter", [], |row| row.get::<_, i64>(0))
        .optional()?;
    let first = match next {
        Some(next) => next,
        None => random_start().map_err(|error| DbError::Sqlite(conversion(0, error)))?,
    };
    tx.execute(
        "INSERT OR REPLACE INTO version_counter VALUES (1, ?1)",
        [first + count as i64],
    )?;
    Ok(VersionId(first as u64))
}

fn random_start() -> Result<i64, std::io::Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok((u64::from_le_bytes(bytes) >> (u64::BITS - FIRST_VERSION_BITS)).max(1) as i64)
}

/// The newest head this device made or recovered from: what the next one builds on.
#[derive(Clone, Debug, PartialEq)]
pub struct Posted {
    /// Sequence number of the head.
    pub seq: u64,
    /// Hash of the encoded head.
    pub hash: [u8; 32],
    /// Its encoding, to be put on peers that do not have it.
    pub head: Vec<u8>,
    /// Its body.
    pub body: HeadBody,
    /// The root it points to, decoded.
    pub root: Root,
}

/// The newest head.
pub fn posted(conn: &Connection) -> Result<Option<Posted>, DbError> {
    let mut query = conn.prepare_cached("SELECT seq, hash, head, body, root FROM published")?;
    let posted = query.query_row([], |row| {
        Ok(Posted {
            seq: row.get::<_, i64>(0)? as u64,
            hash: row.get(1)?,
            head: row.get(2)?,
            body: decoded(3, &row.get::<_, Vec<u8>>(3)?)?,
            root: decoded(4, &row.get::<_, Vec<u8>>(4)?)?,
        })
    });
    Ok(posted.optional()?)
}

/// Records a head that peers have: one that was recovered from, after its sections. See `post::sign` for a new one.
pub fn set_posted(tx: &Transaction<'_>, posted: &Posted) -> Result<(), DbError> {
    write_posted(tx, posted, true)?;
    tx.execute("UPDATE section SET published = 2", [])?;
    Ok(())
}

fn write_posted(tx: &Transaction<'_>, posted: &Posted, acknowledged: bool) -> Result<(), DbError> {
    tx.execute(
        "INSERT OR REPLACE INTO published VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            posted.seq as i64,
            posted.hash,
            posted.head,
            cbor(&posted.body),
            cbor(&posted.root),
            acknowledged
        ],
    )?;
    Ok(())
}

/// Applies a cap of an index section to a catalog that is being rebuilt; may be repeated in the order of the sections.
pub fn replay_cap(tx: &Transaction<'_>, section: SectionRow, version: VersionId, cap: &Cap) -> Result<(), DbError> {
    let extents = match cap {
        Cap::Inline(_) => None,
        Cap::Extents(extents) => Some(extents.clone()),
    };
    tx.prepare_cached("INSERT OR REPLACE INTO content VALUES (?1, ?2, ?3, 1)")?
        .execute(params![version.0 as i64, extents.as_ref().map(cbor), section.0])?;
    Ok(())
}

fn cbor<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory does not fail")
}

fn decoded<T: for<'b> Decode<'b, ()>>(column: usize, bytes: &[u8]) -> rusqlite::Result<T> {
    minicbor::decode(bytes).map_err(|error| conversion(column, error))
}

fn conversion(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        for sql in [
            include_str!("../../../upload-queue/migrations/packs-0001.sql"),
            include_str!("../../../upload-queue/migrations/dead-0001.sql"),
            include_str!("../../../upload-queue/migrations/lost-0001.sql"),
            include_str!("../../migrations/content-0001.sql"),
            include_str!("../../migrations/forgotten-0001.sql"),
            include_str!("../../migrations/disks-0001.sql"),
        ] {
            conn.execute_batch(sql).unwrap();
        }
        conn
    }

    fn slot(number: u8, offset: u32, stored_len: u32, raw_len: u32) -> ChunkSlot {
        ChunkSlot {
            id: ChunkId([number; 16]),
            offset,
            stored_len,
            raw_len,
        }
    }

    #[test]
    fn chunks_keep_their_first_place() {
        let mut conn = catalog();
        let tx = conn.transaction().unwrap();
        let slots = [slot(9, 0, 10, 10), slot(3, 10, 20, 45)];
        add_chunks(&tx, PackRow(1), &slots).unwrap();
        add_chunks(&tx, PackRow(2), &[slot(3, 0, 20, 45)]).unwrap();
        assert_eq!(chunks_of(&tx, PackRow(1)).unwrap(), slots);
        assert_eq!(chunks_of(&tx, PackRow(2)).unwrap(), []);
        assert_eq!(
            chunk(&tx, ChunkId([3; 16])).unwrap().unwrap(),
            ChunkPlace {
                pack: PackRow(1),
                slot: slots[1]
            }
        );
        assert_eq!(chunk(&tx, ChunkId([4; 16])).unwrap(), None);
    }

    #[test]
    fn chunks_of_dead_packs_are_stored_anew() {
        let mut conn = catalog();
        let tx = conn.transaction().unwrap();
        add_chunks(&tx, PackRow(1), &[slot(3, 10, 20, 45)]).unwrap();
        upload_queue::packs::set_dead(&tx, &[PackRow(1)], 0).unwrap();
        assert_eq!(wanted_chunk(&tx, ChunkId([3; 16])).unwrap(), None);
        assert!(
            chunk(&tx, ChunkId([3; 16])).unwrap().is_some(),
            "A restore still finds it"
        );
        add_chunks(&tx, PackRow(2), &[slot(3, 0, 20, 45)]).unwrap();
        let place = wanted_chunk(&tx, ChunkId([3; 16])).unwrap().unwrap();
        assert_eq!(place.pack, PackRow(2));
    }

    #[test]
    fn a_rebuilt_catalog_takes_chunks_from_the_packs_that_peers_have() {
        let mut conn = catalog();
        let tx = conn.transaction().unwrap();
        for (row, held) in [(1, 0), (2, 3), (3, 0)] {
            tx.execute("INSERT INTO pack VALUES (?1, 2, ?2, 0, 0, ?1, x'', x'')", (row, held))
                .unwrap();
            replay_chunks(
                &tx,
                PackRow(row),
                &[slot(3, 0, 20, 45), slot(row as u8 + 10, 20, 20, 45)],
            )
            .unwrap();
        }
        choose_twins(&tx).unwrap();
        assert_eq!(chunk(&tx, ChunkId([3; 16])).unwrap().unwrap().pack, PackRow(2));
        assert_eq!(chunk(&tx, ChunkId([13; 16])).unwrap().unwrap().pack, PackRow(3));
    }

    #[test]
    fn a_version_is_in_the_packs_of_its_chunks_or_of_its_section() {
        let mut conn = catalog();
        let tx = conn.transaction().unwrap();
        add_chunks(&tx, PackRow(5), &[slot(1, 0, 10, 10)]).unwrap();
        add_chunks(&tx, PackRow(4), &[slot(2, 0, 10, 10)]).unwrap();
        let extents = vec![
            Extent::Chunk(ChunkId([1; 16]), 10),
            Extent::Hole(1 << 40),
            Extent::Chunk(ChunkId([2; 16]), 10),
            Extent::Chunk(ChunkId([1; 16]), 10),
        ];
        set_place(&tx, VersionId(1), &Place::Extents(extents.clone())).unwrap();
        assert_eq!(place(&tx, VersionId(1)).unwrap(), Some(Place::Extents(extents)));
        assert_eq!(packs_of(&tx, VersionId(1)).unwrap(), [PackRow(4), PackRow(5)]);

        let section_place = SectionPlace {
            pack: PackRow(6),
            offset: 7,
            len: 8,
            kind: 2,
        };
        let row = add_section(&tx, &section_place).unwrap();
        assert_eq!(section(&tx, row).unwrap(), Some(section_place));
        set_place(&tx, VersionId(2), &Place::Section(row)).unwrap();
        assert_eq!(place(&tx, VersionId(2)).unwrap(), Some(Place::Section(row)));
        assert_eq!(packs_of(&tx, VersionId(2)).unwrap(), [PackRow(6)]);
        assert_eq!(packs_of(&tx, VersionId(3)).unwrap(), []);
    }

    #[test]
    fn version_ids_follow_one_another_from_a_start_of_their_own() {
        let starts: Vec<u64> = (0..2)
            .map(|_| {
                let mut conn = catalog();
                let tx = conn.transaction().unwrap();
                let first = next_version(&tx).unwrap();
                assert_eq!(reserve_versions(&tx, 10).unwrap(), VersionId(first.0 + 1));
                assert_eq!(next_version(&tx).unwrap(), VersionId(first.0 + 11));
                assert!(first.0 < 1 << FIRST_VERSION_BITS);
                first.0
            })
            .collect();
        assert_ne!(starts[0], starts[1]);
    }

    #[test]
    fn a_replayed_cap_has_no_job_to_settle() {
        let mut conn = catalog();
        let tx = conn.transaction().unwrap();
        let extents = vec![Extent::Hole(5)];
        for _ in 0..2 {
            replay_cap(&tx, SectionRow(1), VersionId(1), &Cap::Extents(extents.clone())).unwrap();
        }
        replay_cap(&tx, SectionRow(1), VersionId(2), &Cap::Inline(vec![1])).unwrap();
        assert_eq!(place(&tx, VersionId(1)).unwrap(), Some(Place::Extents(extents)));
        assert_eq!(place(&tx, VersionId(2)).unwrap(), Some(Place::Section(SectionRow(1))));
        assert_eq!(post::unsettled(&tx).unwrap(), []);
        assert_eq!(post::unlisted_caps(&tx).unwrap(), []);
    }

    #[test]
    fn a_version_is_unlisted_then_listed_then_settled() {
        let mut conn = catalog();
        let tx = conn.transaction().unwrap();
        let version = VersionId(1);
        set_place(&tx, version, &Place::Extents(vec![])).unwrap();
        assert_eq!(post::unlisted_caps(&tx).unwrap(), [version]);
        let row = add_section(
            &tx,
            &SectionPlace {
                pack: PackRow(6),
                offset: 7,
                len: 8,
                kind: 2,
            },
        )
        .unwrap();
        post::list_cap(&tx, version, row).unwrap();
        assert_eq!(post::unlisted_caps(&tx).unwrap(), []);
        assert_eq!(post::unsettled(&tx).unwrap(), []);
        let head = Posted {
            seq: 1,
            hash: [1; 32],
            head: vec![1, 2, 3],
            body: HeadBody {
                root: None,
                snapshot: None,
                disks: None,
            },
            root: Root::default(),
        };
        post::sign(&tx, &head).unwrap();
        assert_eq!(posted(&tx).unwrap(), Some(head));
        assert!(!post::is_acknowledged(&tx).unwrap());
        assert_eq!(post::unsettled(&tx).unwrap(), []);
        assert_eq!(post::unacknowledged_packs(&tx).unwrap(), [PackRow(6)]);
        post::acknowledge(&tx).unwrap();
        assert_eq!(post::unacknowledged_packs(&tx).unwrap(), []);
        assert!(post::is_acknowledged(&tx).unwrap());
        assert_eq!(post::unposted_sections(&tx).unwrap(), []);
        assert_eq!(post::unsettled(&tx).unwrap(), [version]);
        assert_eq!(post::cap_pack(&tx, version).unwrap(), Some(PackRow(6)));
        post::settle(&tx, version).unwrap();
        assert_eq!(post::unsettled(&tx).unwrap(), []);
    }

    #[test]
    fn a_chunk_takes_at_most_42_bytes() {
        let mut conn = catalog();
        let tx = conn.transaction().unwrap();
        let slots: Vec<ChunkSlot> = (0..100_000u32)
            .map(|number| ChunkSlot {
                id: ChunkId((u128::from(number) << 96).to_be_bytes()),
                offset: 12_000_000,
                stored_len: 200_000,
                raw_len: 300_000,
            })
            .collect();
        add_chunks(&tx, PackRow(60_000), &slots).unwrap();
        tx.commit().unwrap();
        let pages: i64 = conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        let page_bytes: i64 = conn.query_row("PRAGMA page_size", [], |row| row.get(0)).unwrap();
        let bytes = pages * page_bytes / 100_000;
        assert!(bytes <= 42, "{bytes} bytes a chunk");
    }
}
