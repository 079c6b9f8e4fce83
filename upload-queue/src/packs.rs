//! Packs and their shares in the database: what is spooled, what was delivered where.

use proto::cap_index::PackRecord;
use proto::id::{PackId, ShareId};
use proto::manifest::Manifest;
use rusqlite::{Connection, Transaction};

use crate::db::DbError;
use crate::peers::PeerKey;

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

/// One pack.
pub fn get(_conn: &Connection, _row: PackRow) -> Result<Option<KnownPack>, DbError> {
    todo!()
}
/// One pack by its id.
pub fn find(_conn: &Connection, _pack: PackId) -> Result<Option<KnownPack>, DbError> {
    todo!()
}
/// All rows, ascending.
pub fn rows(_conn: &Connection) -> Result<Vec<PackRow>, DbError> {
    todo!()
}
/// Shares of a pack that are held by some peer: enough to call it safe with `tolerate`?
pub fn is_safe(_conn: &Connection, _row: PackRow, _tolerate: u8) -> Result<bool, DbError> {
    todo!()
}
/// Health of all packs.
pub fn health(_conn: &Connection, _tolerate: u8) -> Result<Health, DbError> {
    todo!()
}
/// Records a pack learned from the grid (recover), without holders; returns the row it has now or had already.
pub fn insert_known(
    _tx: &Transaction<'_>,
    _record: &PackRecord,
    _manifest: &Manifest,
    _purpose: Purpose,
) -> Result<PackRow, DbError> {
    todo!()
}
/// Records that `peer` holds these shares; ids that belong to no known pack are skipped. Returns how many were known.
pub fn record_held(_tx: &Transaction<'_>, _peer: &PeerKey, _shares: &[ShareId]) -> Result<u64, DbError> {
    todo!()
}
/// Records that a share is not, or not intact, where it was thought to be.
pub fn record_lost(_tx: &Transaction<'_>, _peer: &PeerKey, _share: ShareId) -> Result<(), DbError> {
    todo!()
}
/// Bytes (stored form) and number of shares that `peer` holds for us.
pub fn held_by(_conn: &Connection, _peer: &PeerKey) -> Result<(u64, u64), DbError> {
    todo!()
}
