//! From "its chunks are in packs" to "its upload job is settled": which packs and caps still have to be listed in an index
//! section, which sections and which head still have to be posted.
//!
//! A version is *unlisted* (its cap is in no section), then *listed*, then *settled*.

use std::collections::HashSet;

use database::DbError;
use proto::cap_index::{ChunkSlot, Extent};
use proto::head::Head;
use proto::id::VersionId;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use upload_queue::packs::PackRow;
use upload_queue::peers::PeerKey;

use super::{Posted, SectionPlace, SectionRow, cbor, decoded, section_place, write_posted};

/// Records that no index section lists a data pack yet.
pub fn add_unlisted(tx: &Transaction<'_>, pack: PackRow, slots: &[ChunkSlot]) -> Result<(), DbError> {
    tx.prepare_cached("INSERT OR REPLACE INTO unlisted_pack VALUES (?1, ?2)")?
        .execute(params![pack.0, cbor(&slots.to_vec())])?;
    Ok(())
}

/// Data packs that no index section lists, ascending.
pub fn unlisted_packs(conn: &Connection) -> Result<Vec<PackRow>, DbError> {
    let mut query = conn.prepare_cached("SELECT pack FROM unlisted_pack ORDER BY pack")?;
    let packs = query.query_map([], |row| Ok(PackRow(row.get(0)?)))?;
    Ok(packs.collect::<Result<_, _>>()?)
}

/// The chunks of a pack that no index section lists; empty if it is not one.
pub fn unlisted_chunks(conn: &Connection, pack: PackRow) -> Result<Vec<ChunkSlot>, DbError> {
    let mut query = conn.prepare_cached("SELECT slots FROM unlisted_pack WHERE pack = ?1")?;
    let slots = query.query_row([pack.0], |row| decoded(0, &row.get::<_, Vec<u8>>(0)?));
    Ok(slots.optional()?.unwrap_or_default())
}

/// Records that a section lists a pack.
pub fn list_pack(tx: &Transaction<'_>, pack: PackRow) -> Result<(), DbError> {
    tx.prepare_cached("DELETE FROM unlisted_pack WHERE pack = ?1")?
        .execute([pack.0])?;
    Ok(())
}

/// Versions whose cap is in no section, ascending, with their extents.
pub fn unlisted_caps(conn: &Connection) -> Result<Vec<VersionId>, DbError> {
    versions(
        conn,
        "SELECT version FROM content WHERE settled = 0 AND section IS NULL ORDER BY version",
    )
}

/// The extents of a version whose cap is not inline; `None` if it is, or waits.
pub fn extents(conn: &Connection, version: VersionId) -> Result<Option<Vec<Extent>>, DbError> {
    match super::place(conn, version)? {
        Some(super::Place::Extents(extents)) => Ok(Some(extents)),
        Some(super::Place::Section(_)) | None => Ok(None),
    }
}

/// Records that a section carries a version's cap.
pub fn list_cap(tx: &Transaction<'_>, version: VersionId, section: SectionRow) -> Result<(), DbError> {
    tx.prepare_cached("UPDATE content SET section = ?2 WHERE version = ?1")?
        .execute(params![version.0 as i64, section.0])?;
    Ok(())
}

/// Sections that no root names yet, in the order in which they are to be replayed.
pub fn unposted_sections(conn: &Connection) -> Result<Vec<SectionPlace>, DbError> {
    let mut query =
        conn.prepare_cached("SELECT pack, offset, len, kind FROM section WHERE published = 0 ORDER BY id")?;
    let sections = query.query_map([], section_place)?;
    Ok(sections.collect::<Result<_, _>>()?)
}

/// Records a head that was signed and that no peer has. Its root names all sections recorded so far. Recorded before
/// it is put anywhere, so that no second head is ever signed with its number.
pub fn sign(tx: &Transaction<'_>, posted: &Posted) -> Result<(), DbError> {
    check_follows(tx, posted)?;
    write_posted(tx, posted, false)?;
    tx.execute("UPDATE section SET published = 1 WHERE published = 0", [])?;
    tx.execute("DELETE FROM disk_news", [])?;
    Ok(())
}

/// The same of a head that differs from the one before by a disk alone: what leads to backups counts as it did. `packs` are those
/// that the disk's commit is in.
pub fn sign_disk(tx: &Transaction<'_>, posted: &Posted, packs: &[PackRow]) -> Result<(), DbError> {
    check_follows(tx, posted)?;
    let is_kept = is_backup_acknowledged(tx)?;
    write_posted(tx, posted, false)?;
    if is_kept {
        tx.execute("INSERT OR IGNORE INTO disk_news VALUES (1)", [])?;
    }
    let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO disk_due VALUES (?1)")?;
    packs.iter().try_for_each(|pack| insert.execute([pack.0]).map(drop))?;
    Ok(())
}

/// No two heads of a device have one number. Whoever signs holds `writer::heads::HeadLock`, so that this never fails.
fn check_follows(tx: &Transaction<'_>, posted: &Posted) -> Result<(), DbError> {
    let newest = tx.query_row("SELECT head FROM published", [], |row| row.get::<_, Vec<u8>>(0));
    let newest = newest.optional()?.and_then(|newest| Head::decode(&newest).ok());
    // The number of another device's, from which this catalog was recovered, says nothing.
    let is_taken = newest
        .zip(Head::decode(&posted.head).ok())
        .is_some_and(|(newest, next)| newest.device() == next.device() && newest.seq >= next.seq);
    match is_taken {
        false => Ok(()),
        true => {
            let error = std::io::Error::other(format!("a head with number {} was signed already", posted.seq));
            Err(DbError::Sqlite(super::conversion(0, error)))
        }
    }
}

/// The packs, of sections and of disks, that only a head which too few peers have yet names. A disk that has lost one of its packs has to
/// be helped otherwise: no head would ever be posted again.
pub fn unacknowledged_packs(conn: &Connection) -> Result<Vec<PackRow>, DbError> {
    let mut query = conn.prepare_cached(
        "SELECT pack FROM section WHERE published = 1 UNION
         SELECT pack FROM disk_due WHERE NOT EXISTS (SELECT 1 FROM lost_pack WHERE lost_pack.pack = disk_due.pack)
         AND pack NOT IN (SELECT pack FROM dead_pack) ORDER BY pack",
    )?;
    let packs = query.query_map([], |row| Ok(PackRow(row.get(0)?)))?;
    Ok(packs.collect::<Result<_, _>>()?)
}

/// The newest head is about to be given to peers. An update even where nothing differs: committed durably, it takes
/// everything before it to disk.
pub fn offer(tx: &Transaction<'_>) -> Result<(), DbError> {
    tx.execute("UPDATE published SET acknowledged = 0", [])?;
    Ok(())
}

/// Records that a peer has a head.
pub fn add_holder(tx: &Transaction<'_>, peer: &PeerKey, head: &[u8; 32]) -> Result<(), DbError> {
    tx.prepare_cached("INSERT OR REPLACE INTO head_peer VALUES (?1, ?2)")?
        .execute(params![peer.0, head])?;
    Ok(())
}

/// Records that a peer does not have the newest head, whatever was thought. When too few have it, it counts as posted again
/// only once it was put again.
pub fn remove_holder(tx: &Transaction<'_>, peer: &PeerKey) -> Result<(), DbError> {
    let removed = tx
        .prepare_cached("DELETE FROM head_peer WHERE peer = ?1 AND hash = (SELECT hash FROM published)")?
        .execute([&peer.0])?;
    if removed > 0 {
        tx.execute("UPDATE published SET acknowledged = 0", [])?;
        tx.execute("DELETE FROM disk_news", [])?;
    }
    Ok(())
}

/// The peers that are known to have a head.
pub fn holders(conn: &Connection, head: &[u8; 32]) -> Result<HashSet<PeerKey>, DbError> {
    let mut query = conn.prepare_cached("SELECT peer FROM head_peer WHERE hash = ?1")?;
    let holders = query.query_map([head], |row| Ok(PeerKey(row.get(0)?)))?;
    Ok(holders.collect::<Result<_, _>>()?)
}

/// Records that enough peers have the newest head.
pub fn acknowledge(tx: &Transaction<'_>) -> Result<(), DbError> {
    tx.execute("UPDATE published SET acknowledged = 1", [])?;
    tx.execute("UPDATE section SET published = 2 WHERE published = 1", [])?;
    tx.execute_batch("DELETE FROM disk_due; DELETE FROM disk_news;")?;
    Ok(())
}

/// Whether enough peers have a head that leads to all backups that the newest head leads to: the newest itself, or one from which it
/// differs by disks alone.
pub fn is_backup_acknowledged(conn: &Connection) -> Result<bool, DbError> {
    let mut query = conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM disk_news)")?;
    Ok(is_acknowledged(conn)? || query.query_row([], |row| row.get(0))?)
}

/// Whether enough peers have the newest head; true when there is none.
pub fn is_acknowledged(conn: &Connection) -> Result<bool, DbError> {
    let mut query = conn.prepare_cached("SELECT acknowledged FROM published")?;
    Ok(query.query_row([], |row| row.get(0)).optional()?.unwrap_or(true))
}

/// Versions that a head which enough peers have leads to, and whose jobs are not settled, ascending.
pub fn unsettled(conn: &Connection) -> Result<Vec<VersionId>, DbError> {
    versions(
        conn,
        "SELECT version FROM content WHERE settled = 0
         AND (SELECT published FROM section WHERE id = content.section) = 2 ORDER BY version",
    )
}

/// The pack of the section that carries a version's cap.
pub fn cap_pack(conn: &Connection, version: VersionId) -> Result<Option<PackRow>, DbError> {
    let mut query = conn.prepare_cached(
        "SELECT section.pack FROM content JOIN section ON section.id = content.section WHERE version = ?1",
    )?;
    Ok(query
        .query_row([version.0 as i64], |row| Ok(PackRow(row.get(0)?)))
        .optional()?)
}

/// Records that a version's job is settled.
pub fn settle(tx: &Transaction<'_>, version: VersionId) -> Result<(), DbError> {
    tx.prepare_cached("UPDATE content SET settled = 1 WHERE version = ?1")?
        .execute([version.0 as i64])?;
    Ok(())
}

fn versions(conn: &Connection, query: &str) -> Result<Vec<VersionId>, DbError> {
    let mut query = conn.prepare_cached(query)?;
    let versions = query.query_map([], |row| Ok(VersionId(row.get::<_, i64>(0)? as u64)))?;
    Ok(versions.collect::<Result<_, _>>()?)
}
