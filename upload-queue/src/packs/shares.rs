//! Rows of single shares: written when a pack is delivered, followed while its shares go from the spool to their peers.

use database::DbError;
use proto::cap_index::PackRecord;
use proto::id::ShareId;
use proto::manifest::Manifest;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::packs::{PackRow, Purpose, purpose, stored_bytes};
use crate::peers::PeerKey;

/// A share of a pack that is about to be recorded.
pub(crate) struct NewShare {
    pub(crate) id: ShareId,
    pub(crate) planned: Option<PeerKey>,
    /// `planned` has it.
    pub(crate) held: bool,
    pub(crate) spooled: bool,
}

/// A share in the spool: where it belongs and where it is to go.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SpooledShare {
    pub(crate) pack: PackRow,
    pub(crate) index: u8,
    pub(crate) id: ShareId,
    pub(crate) purpose: Purpose,
    pub(crate) stored_bytes: u64,
    pub(crate) planned: Option<PeerKey>,
}

/// The row of a peer, made if it has none.
pub(crate) fn peer_id(tx: &Transaction<'_>, peer: &PeerKey) -> Result<i64, DbError> {
    let found = tx
        .prepare_cached("SELECT id FROM peer WHERE key = ?1")?
        .query_row([&peer.0], |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    tx.execute("INSERT INTO peer (key) VALUES (?1)", [&peer.0])?;
    Ok(tx.last_insert_rowid())
}

pub(crate) fn insert_pack(
    tx: &Transaction<'_>,
    record: &PackRecord,
    manifest: &Manifest,
    purpose: Purpose,
) -> Result<PackRow, DbError> {
    tx.prepare_cached(
        "INSERT INTO pack (k, held, purpose, share_bytes, pack_id, wrapped_key, manifest) VALUES (?1, 0, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        manifest.shape.k,
        purpose as i64,
        manifest.shape.share.data_bytes() as i64,
        manifest.pack.0,
        record.wrapped_key,
        record.manifest,
    ])?;
    Ok(PackRow(tx.last_insert_rowid()))
}

pub(crate) fn insert(tx: &Transaction<'_>, pack: PackRow, index: usize, share: &NewShare) -> Result<(), DbError> {
    let planned = share.planned.as_ref().map(|peer| peer_id(tx, peer)).transpose()?;
    let holder = planned.filter(|_| share.held);
    tx.prepare_cached(
        "INSERT INTO share (pack, idx, share_id, planned, holder, spooled) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        pack.0,
        index as i64,
        share.id.0,
        planned,
        holder,
        share.spooled
    ])?;
    if holder.is_some() {
        count_held(tx, pack, 1)?;
    }
    Ok(())
}

pub(crate) fn count_held(tx: &Transaction<'_>, pack: PackRow, change: i64) -> Result<(), DbError> {
    tx.prepare_cached("UPDATE pack SET held = held + ?2 WHERE id = ?1")?
        .execute((pack.0, change))?;
    Ok(())
}

/// Notes that `peer` has a share with these bytes. False: it belongs to no known pack.
///
/// With k = 1 a pack has several shares of the same id: the peer gets the one planned for it, or the first that nobody
/// holds. A holder already known stays; a peer holds at most one share of a pack.
pub(crate) fn record_holder(tx: &Transaction<'_>, peer: i64, share: ShareId) -> Result<bool, DbError> {
    let packs: Vec<i64> = tx
        .prepare_cached("SELECT DISTINCT pack FROM share WHERE share_id = ?1")?
        .query_map([share.0], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for &pack in &packs {
        let taken = tx
            .prepare_cached(
                "UPDATE share SET holder = ?3 WHERE pack = ?1
                 AND NOT EXISTS (SELECT 1 FROM share WHERE pack = ?1 AND holder = ?3 AND share_id = ?2)
                 AND idx = (SELECT idx FROM share WHERE pack = ?1 AND share_id = ?2 AND holder IS NULL
                            ORDER BY planned IS ?3 DESC, idx LIMIT 1)",
            )?
            .execute((pack, share.0, peer))?;
        count_held(tx, PackRow(pack), taken as i64)?;
    }
    Ok(!packs.is_empty())
}

/// All shares in the spool, metadata and disks first, then older packs.
pub(crate) fn spooled(conn: &Connection) -> Result<Vec<SpooledShare>, DbError> {
    let mut select = conn.prepare_cached(
        "SELECT share.pack, share.idx, share.share_id, pack.purpose, pack.share_bytes, peer.key
         FROM share JOIN pack ON pack.id = share.pack LEFT JOIN peer ON peer.id = share.planned
         WHERE share.spooled = 1 ORDER BY pack.purpose > 0 DESC, share.pack, share.idx",
    )?;
    let rows = select.query_map([], |row| {
        Ok(SpooledShare {
            pack: PackRow(row.get(0)?),
            index: row.get(1)?,
            id: ShareId(row.get(2)?),
            purpose: purpose(row.get(3)?),
            stored_bytes: stored_bytes(row.get(4)?),
            planned: row.get::<_, Option<String>>(5)?.map(PeerKey),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Number of shares in the spool.
pub(crate) fn spooled_count(conn: &Connection) -> Result<u64, DbError> {
    let count: i64 = conn.query_row("SELECT count(*) FROM share WHERE spooled = 1", [], |row| row.get(0))?;
    Ok(count as u64)
}

/// Whether any row says that the share `id` is in the spool.
pub(crate) fn in_spool(conn: &Connection, id: ShareId) -> Result<bool, DbError> {
    Ok(conn
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM share WHERE share_id = ?1 AND spooled = 1)")?
        .query_row([id.0], |row| row.get(0))?)
}

/// A share of a pack is held by `peer` and leaves the spool. Only now is the peer believed again to have it, if it was not.
pub(crate) fn record_delivered(tx: &Transaction<'_>, pack: PackRow, index: u8, peer: &PeerKey) -> Result<(), DbError> {
    tx.prepare_cached(
        "DELETE FROM care_bad WHERE key = ?3
         AND share_id = (SELECT share_id FROM share WHERE pack = ?1 AND idx = ?2)",
    )?
    .execute((pack.0, index, &peer.0))?;
    let peer = peer_id(tx, peer)?;
    let taken = tx
        .prepare_cached("UPDATE share SET holder = ?3, planned = ?3 WHERE pack = ?1 AND idx = ?2 AND holder IS NULL")?
        .execute((pack.0, index, peer))?;
    count_held(tx, pack, taken as i64)?;
    leave_spool(tx, pack, index)
}

/// A share of a pack is no longer in the spool.
pub(crate) fn leave_spool(tx: &Transaction<'_>, pack: PackRow, index: u8) -> Result<(), DbError> {
    tx.prepare_cached("UPDATE share SET spooled = 0 WHERE pack = ?1 AND idx = ?2")?
        .execute((pack.0, index))?;
    Ok(())
}

/// For each share of a pack, the peer that holds it or is to get it.
pub(crate) fn places(conn: &Connection, pack: PackRow) -> Result<Vec<Option<PeerKey>>, DbError> {
    let mut select = conn.prepare_cached(
        "SELECT peer.key FROM share LEFT JOIN peer ON peer.id = coalesce(share.holder, share.planned)
         WHERE share.pack = ?1 ORDER BY share.idx",
    )?;
    let rows = select.query_map([pack.0], |row| Ok(row.get::<_, Option<String>>(0)?.map(PeerKey)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Changes where a share is to go.
pub(crate) fn set_planned(
    tx: &Transaction<'_>,
    pack: PackRow,
    index: u8,
    peer: Option<&PeerKey>,
) -> Result<(), DbError> {
    let planned = peer.map(|peer| peer_id(tx, peer)).transpose()?;
    tx.prepare_cached("UPDATE share SET planned = ?3 WHERE pack = ?1 AND idx = ?2")?
        .execute((pack.0, index, planned))?;
    Ok(())
}

/// Shares of a pack in the spool that have a peer to go to.
pub(crate) fn on_the_way(conn: &Connection, pack: PackRow) -> Result<Vec<(u8, PeerKey)>, DbError> {
    let mut select = conn.prepare_cached(
        "SELECT share.idx, peer.key FROM share JOIN peer ON peer.id = share.planned
         WHERE share.pack = ?1 AND share.spooled = 1",
    )?;
    let rows = select.query_map([pack.0], |row| Ok((row.get(0)?, PeerKey(row.get(1)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A share goes back into the spool, for `peer`; whoever held it is forgotten. False: it is in the spool already.
pub(crate) fn respool(tx: &Transaction<'_>, pack: PackRow, index: u8, peer: &PeerKey) -> Result<bool, DbError> {
    let held: Option<bool> = tx
        .prepare_cached("SELECT holder IS NOT NULL FROM share WHERE pack = ?1 AND idx = ?2 AND spooled = 0")?
        .query_row((pack.0, index), |row| row.get(0))
        .optional()?;
    let Some(held) = held else { return Ok(false) };
    let peer = peer_id(tx, peer)?;
    tx.prepare_cached("UPDATE share SET spooled = 1, planned = ?3, holder = NULL WHERE pack = ?1 AND idx = ?2")?
        .execute((pack.0, index, peer))?;
    count_held(tx, pack, -i64::from(held))?;
    Ok(true)
}
