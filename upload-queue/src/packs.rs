//! Packs and their shares in the database: what is spooled, what was delivered where.
//!
//! That no two holders of a pack share a failure domain is the work of `placement`; here holders are only counted.

use database::DbError;
use proto::cap_index::PackRecord;
use proto::id::{PackId, ShareId};
use proto::keys::WRAPPED_KEY_BYTES;
use proto::manifest::Manifest;
use proto::shape::ShareSize;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction};

use crate::peers::PeerKey;

pub(crate) mod shares;

mod counted;
mod dead;
mod lost;
mod spooled;

pub use counted::{Counted, Counter, peers, waited_for};
pub use dead::{
    KnownShare, bytes_held, data_rows, dead, dead_of_disks, forget_arrived, forget_gone_of_disks, set_alive, set_dead,
    share_of, unsafe_of_disks,
};
pub use lost::{
    believe, forget_holders, forget_spooled, held_by_all, holders, is_lost, lost, lost_without, shares_due, unsafe_rows,
};
pub use spooled::{Spooled, spooled_by_peer};

/// Row number of a pack: what the catalog's chunks refer to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PackRow(pub i64);

/// What a pack carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Chunks of files.
    Data = 0,
    /// Log, index and root sections: sent first.
    Metadata = 1,
    /// Commits of virtual disks: sent first, too, since somebody's writes wait for them. What gives them up is the disk, and nothing else.
    Disk = 2,
}

/// A pack as the database knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownPack {
    /// Its row.
    pub row: PackRow,
    /// Its public manifest, decoded (not verified again).
    pub manifest: Manifest,
    /// All it takes to open it.
    pub record: PackRecord,
    /// What it carries.
    pub purpose: Purpose,
    /// For each share in order, the peer that has it, if any is known.
    pub holders: Vec<Option<PeerKey>>,
}

impl KnownPack {
    /// Shares known to be held.
    pub fn held(&self) -> usize {
        self.holders.iter().flatten().count()
    }
}

/// How well packs are held, counted over all of a purpose or over some rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// Packs.
    pub packs: u64,
    /// Of those, packs that survive the loss of `tolerate` domains.
    pub safe: u64,
    /// Of those, packs that could be read now but survive fewer losses.
    pub fragile: u64,
    /// Smallest number of losses that any of them survives; `None` if one cannot even be read, or there are none.
    pub tolerates: Option<u8>,
}

/// Columns that `known` reads.
const COLUMNS: &str = "id, manifest, wrapped_key, purpose";

/// One pack.
pub fn get(conn: &Connection, row: PackRow) -> Result<Option<KnownPack>, DbError> {
    let mut select = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM pack WHERE id = ?1"))?;
    let pack = select.query_row([row.0], known).optional()?;
    pack.map(|pack| with_holders(conn, pack)).transpose()
}

/// One pack by its id.
pub fn find(conn: &Connection, pack: PackId) -> Result<Option<KnownPack>, DbError> {
    let mut select = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM pack WHERE pack_id = ?1"))?;
    let pack = select.query_row([pack.0], known).optional()?;
    pack.map(|pack| with_holders(conn, pack)).transpose()
}

/// All rows of packs that are not dead, ascending.
pub fn rows(conn: &Connection) -> Result<Vec<PackRow>, DbError> {
    let mut select =
        conn.prepare_cached("SELECT id FROM pack WHERE id NOT IN (SELECT pack FROM dead_pack) ORDER BY id")?;
    let rows = select.query_map([], |row| row.get(0).map(PackRow))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Shares of a pack that are held by some peer: enough to call it safe with `tolerate`?
pub fn is_safe(conn: &Connection, row: PackRow, tolerate: u8) -> Result<bool, DbError> {
    let mut select = conn.prepare_cached("SELECT held >= k + ?2 FROM pack WHERE id = ?1")?;
    let safe = select.query_row((row.0, tolerate), |row| row.get(0)).optional()?;
    Ok(safe.unwrap_or(false))
}

/// How many more shares of a pack are held than it takes to read it; negative: it cannot be read from peers.
pub(crate) fn surplus(conn: &Connection, row: PackRow) -> Result<i64, DbError> {
    let mut select = conn.prepare_cached("SELECT held - k FROM pack WHERE id = ?1")?;
    Ok(select.query_row([row.0], |row| row.get(0)).optional()?.unwrap_or(-1))
}

/// Health of all packs that are not dead.
pub fn health(conn: &Connection, tolerate: u8) -> Result<Health, DbError> {
    let mut select = conn.prepare_cached(
        "SELECT count(*), coalesce(sum(held >= k + ?1), 0), coalesce(sum(held >= k AND held < k + ?1), 0), min(held - k)
         FROM pack WHERE id NOT IN (SELECT pack FROM dead_pack)",
    )?;
    let health = select.query_row([tolerate], |row| {
        let losses: Option<i64> = row.get(3)?;
        Ok(Health {
            packs: row.get::<_, i64>(0)? as u64,
            safe: row.get::<_, i64>(1)? as u64,
            fragile: row.get::<_, i64>(2)? as u64,
            tolerates: losses.and_then(|losses| u8::try_from(losses).ok()),
        })
    })?;
    Ok(health)
}

/// Different sets of peers looked at, at most: packs of a backup lie on the same few friends.
const SPREADS_MAX: u32 = 1000;

/// A set of peers that hold shares of some pack, of which `k` are needed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spread {
    /// Shares needed.
    pub k: u8,
    /// Who has one.
    pub peers: Vec<PeerKey>,
}

/// All different spreads of packs that could be read: those with fewer than k holders are still on their way, or at risk.
pub fn spreads(conn: &Connection) -> Result<Vec<Spread>, DbError> {
    let mut select = conn.prepare_cached(
        "SELECT DISTINCT k, peers FROM (
             SELECT pack.k AS k, group_concat(peer.key, char(10) ORDER BY peer.key) AS peers
             FROM pack JOIN share ON share.pack = pack.id JOIN peer ON peer.id = share.holder
             WHERE pack.held >= pack.k AND pack.id NOT IN (SELECT pack FROM dead_pack)
             GROUP BY pack.id
         ) LIMIT ?1",
    )?;
    let spreads = select.query_map([SPREADS_MAX], |row| {
        let peers: String = row.get(1)?;
        Ok(Spread {
            k: row.get(0)?,
            peers: peers.lines().map(|key| PeerKey(key.to_owned())).collect(),
        })
    })?;
    Ok(spreads.collect::<Result<_, _>>()?)
}

/// Records a pack learned from the grid (recover), without holders; returns the row it has now or had already.
pub fn insert_known(
    tx: &Transaction<'_>,
    record: &PackRecord,
    manifest: &Manifest,
    purpose: Purpose,
) -> Result<PackRow, DbError> {
    let row: Option<i64> = tx
        .prepare_cached("SELECT id FROM pack WHERE pack_id = ?1")?
        .query_row([manifest.pack.0], |row| row.get(0))
        .optional()?;
    if let Some(row) = row {
        return Ok(PackRow(row));
    }
    let row = shares::insert_pack(tx, record, manifest, purpose)?;
    for (index, id) in manifest.shares.iter().enumerate() {
        let place = shares::NewShare {
            id: *id,
            planned: None,
            held: false,
            spooled: false,
        };
        shares::insert(tx, row, index, &place)?;
    }
    Ok(row)
}

/// Records that `peer` holds these shares; ids that belong to no known pack are skipped. Returns how many were known.
pub fn record_held(tx: &Transaction<'_>, peer: &PeerKey, shares: &[ShareId]) -> Result<u64, DbError> {
    let peer = shares::peer_id(tx, peer)?;
    let mut known = 0;
    for share in shares {
        known += u64::from(shares::record_holder(tx, peer, *share)?);
    }
    Ok(known)
}

/// Records that a share is not, or not intact, where it was thought to be. The peer's word that it has it counts for
/// nothing until the share is sent there again.
pub fn record_lost(tx: &Transaction<'_>, peer: &PeerKey, share: ShareId) -> Result<(), DbError> {
    tx.prepare_cached("INSERT OR IGNORE INTO care_bad VALUES (?1, ?2)")?
        .execute((&peer.0, share.0))?;
    record_missing(tx, peer, share)
}

/// Records that a peer does not list a share that it was thought to have.
pub fn record_missing(tx: &Transaction<'_>, peer: &PeerKey, share: ShareId) -> Result<(), DbError> {
    let peer = shares::peer_id(tx, peer)?;
    let lost: Vec<i64> = tx
        // `+`: by the share's index; a peer has too many shares to look through.
        .prepare_cached("UPDATE share SET holder = NULL WHERE share_id = ?1 AND +holder = ?2 RETURNING pack")?
        .query_map((share.0, peer), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for pack in lost {
        shares::count_held(tx, PackRow(pack), -1)?;
    }
    Ok(())
}

/// Forgets what a lost peer held, until it lists it again. Returns how many shares that were.
pub fn forget_holder(tx: &Transaction<'_>, peer: &PeerKey) -> Result<u64, DbError> {
    let peer = shares::peer_id(tx, peer)?;
    tx.prepare_cached(
        "UPDATE pack SET held = held - (SELECT count(*) FROM share WHERE share.pack = pack.id AND share.holder = ?1)
         WHERE id IN (SELECT pack FROM share WHERE holder = ?1)",
    )?
    .execute([peer])?;
    let forgotten = tx
        .prepare_cached("UPDATE share SET holder = NULL WHERE holder = ?1")?
        .execute([peer])?;
    Ok(forgotten as u64)
}

/// Shares of packs that are not dead that `peer` should hold, each with its pack's share size: what it can be challenged for.
pub fn shares_at(conn: &Connection, peer: &PeerKey) -> Result<Vec<(ShareId, ShareSize)>, DbError> {
    let mut select = conn.prepare_cached(
        "SELECT share.share_id, pack.share_bytes
         FROM peer JOIN share ON share.holder = peer.id JOIN pack ON pack.id = share.pack
         WHERE peer.key = ?1 AND pack.id NOT IN (SELECT pack FROM dead_pack)",
    )?;
    let rows = select.query_map([&peer.0], |row| Ok((ShareId(row.get(0)?), row.get::<_, i64>(1)?)))?;
    let mut found = Vec::new();
    for row in rows {
        let (id, bytes) = row?;
        let size = usize::try_from(bytes).ok().and_then(ShareSize::from_data_bytes);
        found.extend(size.map(|size| (id, size)));
    }
    Ok(found)
}

/// Shares that `peer` could not give or prove and was not sent since.
pub fn not_believed(conn: &Connection, peer: &PeerKey) -> Result<Vec<ShareId>, DbError> {
    let mut select = conn.prepare_cached("SELECT share_id FROM care_bad WHERE key = ?1")?;
    let rows = select.query_map([&peer.0], |row| row.get(0).map(ShareId))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Shares of a pack that are on their way to a peer: number in the manifest, and which peer.
pub fn on_the_way(conn: &Connection, row: PackRow) -> Result<Vec<(u8, PeerKey)>, DbError> {
    shares::on_the_way(conn, row)
}

/// Number of shares that wait in the spool.
pub fn spooled(conn: &Connection) -> Result<u64, DbError> {
    shares::spooled_count(conn)
}

/// Bytes (stored form) and number of shares that `peer` holds for us.
pub fn held_by(conn: &Connection, peer: &PeerKey) -> Result<(u64, u64), DbError> {
    let mut select = conn.prepare_cached(
        "SELECT pack.share_bytes, count(*) FROM peer JOIN share ON share.holder = peer.id JOIN pack ON pack.id = share.pack
         WHERE peer.key = ?1 GROUP BY pack.share_bytes",
    )?;
    let sizes: Vec<(i64, i64)> = select
        .query_map([&peer.0], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut held = (0, 0);
    for (data_bytes, count) in sizes {
        held.0 += stored_bytes(data_bytes) * count as u64;
        held.1 += count as u64;
    }
    Ok(held)
}

/// Bytes of the stored form of a share with so many data bytes; none for a size that no share has.
fn stored_bytes(data_bytes: i64) -> u64 {
    usize::try_from(data_bytes)
        .ok()
        .and_then(ShareSize::from_data_bytes)
        .map_or(0, |size| size.stored_bytes() as u64)
}

fn known(row: &Row<'_>) -> rusqlite::Result<KnownPack> {
    let encoded: Vec<u8> = row.get(1)?;
    let manifest = Manifest::decode(&encoded)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, Type::Blob, Box::new(error)))?;
    let wrapped_key: [u8; WRAPPED_KEY_BYTES] = row.get(2)?;
    Ok(KnownPack {
        row: PackRow(row.get(0)?),
        holders: vec![None; manifest.shares.len()],
        manifest,
        record: PackRecord {
            manifest: encoded,
            wrapped_key,
        },
        purpose: purpose(row.get(3)?),
    })
}

fn purpose(stored: i64) -> Purpose {
    [Purpose::Metadata, Purpose::Disk]
        .into_iter()
        .find(|purpose| *purpose as i64 == stored)
        .unwrap_or(Purpose::Data)
}

fn with_holders(conn: &Connection, mut pack: KnownPack) -> Result<KnownPack, DbError> {
    let mut select = conn.prepare_cached(
        "SELECT share.idx, peer.key FROM share JOIN peer ON peer.id = share.holder WHERE share.pack = ?1",
    )?;
    let mut rows = select.query([pack.row.0])?;
    while let Some(row) = rows.next()? {
        let index: u8 = row.get(0)?;
        if let Some(holder) = pack.holders.get_mut(usize::from(index)) {
            *holder = Some(PeerKey(row.get(1)?));
        }
    }
    Ok(pack)
}

#[cfg(test)]
mod tests;
