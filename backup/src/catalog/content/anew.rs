//! Posting everything once more: what to do when metadata packs are lost, and with them names and indexes.
//!
//! The catalog knows all that they said. So the next root begins a list of its own, and logs, packs and caps count as said
//! nowhere; the usual posting does the rest, and the usual rules say when it counts. Only very small contents are not in
//! the catalog: their sections are named again where their pack is not lost, and are lost files where it is.

use std::collections::HashSet;

use database::DbError;
use proto::cap_index::ChunkSlot;
use proto::id::ChunkId;
use proto::root::Root;
use proto::section_kind::SectionKind;
use rusqlite::{Connection, Transaction};
use upload_queue::packs;
use upload_queue::packs::{PackRow, Purpose};

use super::{chunk_place, post, posted, write_posted};

/// `section.published` of a section that no root names because its pack is lost, and that contents are still in.
const LOST: u8 = 3;

/// Whether metadata is lost that some head leads to, or may.
pub fn is_due(conn: &Connection) -> Result<bool, DbError> {
    let mut query = conn.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM lost_pack WHERE purpose = ?1
             AND NOT EXISTS (SELECT 1 FROM section WHERE section.pack = lost_pack.pack AND published = ?2))",
    )?;
    Ok(query.query_row((Purpose::Metadata as i64, LOST), |row| row.get(0))?)
}

/// Has everything posted once more, all in one transaction.
pub fn begin(tx: &Transaction<'_>, now_ns: i64) -> Result<(), DbError> {
    keep_contents(tx)?;
    forget_publication(tx)?;
    set_dead_without_sections(tx, packs::lost(tx, Purpose::Metadata)?, now_ns)?;
    unlist_packs(tx)
}

/// Sections of packs that came back are named by the next root again.
pub fn take_back(tx: &Transaction<'_>) -> Result<(), DbError> {
    tx.prepare_cached(
        "UPDATE section SET published = 0 WHERE published = ?1
         AND NOT EXISTS (SELECT 1 FROM lost_pack WHERE lost_pack.pack = section.pack)",
    )?
    .execute([LOST])?;
    Ok(())
}

/// Whether `take_back` has anything to do.
pub fn came_back(conn: &Connection) -> Result<bool, DbError> {
    let mut query = conn.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM section WHERE published = ?1
             AND NOT EXISTS (SELECT 1 FROM lost_pack WHERE lost_pack.pack = section.pack))",
    )?;
    Ok(query.query_row([LOST], |row| row.get(0))?)
}

/// Lost packs whose contents are elsewhere by now are declared dead.
pub(super) fn bury(tx: &Transaction<'_>, now_ns: i64) -> Result<(), DbError> {
    let emptied: HashSet<PackRow> = {
        let mut delete = tx.prepare_cached(
            "DELETE FROM section WHERE published = ?1
             AND id NOT IN (SELECT section FROM content WHERE cap IS NULL AND section IS NOT NULL) RETURNING pack",
        )?;
        let packs = delete.query_map([LOST], |row| row.get(0).map(PackRow))?;
        packs.collect::<Result<_, _>>()?
    };
    set_dead_without_sections(tx, emptied, now_ns)
}

fn set_dead_without_sections(
    tx: &Transaction<'_>,
    packs: impl IntoIterator<Item = PackRow>,
    now_ns: i64,
) -> Result<(), DbError> {
    let mut has_sections = tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM section WHERE pack = ?1)")?;
    for row in packs {
        if !has_sections.query_row([row.0], |row| row.get::<_, bool>(0))? {
            packs::set_dead(tx, &[row], now_ns)?;
        }
    }
    Ok(())
}

/// Of all sections, only those stay that contents are in.
fn keep_contents(tx: &Transaction<'_>) -> Result<(), DbError> {
    tx.execute(
        "DELETE FROM section WHERE kind <> ?1
         OR id NOT IN (SELECT section FROM content WHERE cap IS NULL AND section IS NOT NULL)",
        [SectionKind::Index as u8],
    )?;
    tx.execute(
        "UPDATE section SET published =
         CASE WHEN EXISTS (SELECT 1 FROM lost_pack WHERE lost_pack.pack = section.pack) THEN ?1 ELSE 0 END",
        [LOST],
    )?;
    Ok(())
}

fn forget_publication(tx: &Transaction<'_>) -> Result<(), DbError> {
    tx.execute_batch(
        "UPDATE content SET section = NULL WHERE cap IS NOT NULL;
         UPDATE content SET settled = 0;
         DELETE FROM amendment;
         UPDATE snapshot SET published = 0;",
    )?;
    let Some(mut head) = posted(tx)? else {
        return Ok(());
    };
    // The chain of heads goes on; the root begins anew (`writer::checkpoint`), and keeps what only it says.
    head.body.root = None;
    head.root = Root {
        packs: Vec::new(),
        sections: Vec::new(),
        snapshots: Vec::new(),
        older: None,
        ..head.root
    };
    let acknowledged = post::is_acknowledged(tx)?;
    write_posted(tx, &head, acknowledged)
}

/// No index section lists any data pack. Chunks on their way into a pack are listed as they will be there.
fn unlist_packs(tx: &Transaction<'_>) -> Result<(), DbError> {
    let is_dead: HashSet<PackRow> = packs::dead(tx)?.into_iter().collect();
    let mut query = tx.prepare("SELECT id, place, lens FROM chunk ORDER BY place")?;
    let mut rows = query.query([])?;
    let mut open: Option<(PackRow, Vec<ChunkSlot>)> = None;
    while let Some(row) = rows.next()? {
        let place = chunk_place(ChunkId(row.get(0)?), row.get(1)?, row.get(2)?);
        if is_dead.contains(&place.pack) {
            continue;
        }
        match &mut open {
            Some((pack, slots)) if *pack == place.pack => slots.push(place.slot),
            _ => {
                if let Some((pack, slots)) = open.replace((place.pack, vec![place.slot])) {
                    post::add_unlisted(tx, pack, &slots)?;
                }
            }
        }
    }
    if let Some((pack, slots)) = open {
        post::add_unlisted(tx, pack, &slots)?;
    }
    tx.execute(
        "INSERT OR REPLACE INTO unlisted_pack SELECT pack, slots FROM moving_pack",
        [],
    )?;
    Ok(())
}
