//! Where content is: chunks, file versions, metadata sections, and what the newest head says.

use proto::cap_index::{Cap, ChunkSlot, Extent};
use proto::head::HeadBody;
use proto::id::{ChunkId, VersionId};
use proto::root::Root;
use rusqlite::{Connection, Transaction};
use upload_queue::db::DbError;
use upload_queue::packs::PackRow;

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
pub fn chunk(_conn: &Connection, _id: ChunkId) -> Result<Option<ChunkPlace>, DbError> {
    todo!()
}
/// Records a pack's chunks; chunks already known elsewhere keep their first place.
pub fn add_chunks(_tx: &Transaction<'_>, _pack: PackRow, _slots: &[ChunkSlot]) -> Result<(), DbError> {
    todo!()
}
/// All chunks of a pack, by offset.
pub fn chunks_of(_conn: &Connection, _pack: PackRow) -> Result<Vec<ChunkSlot>, DbError> {
    todo!()
}
/// Records where a version's content is. `Cap::Inline` goes with the section that carries it.
pub fn set_place(_tx: &Transaction<'_>, _version: VersionId, _place: &Place) -> Result<(), DbError> {
    todo!()
}
/// Where a version's content is; `None` while it waits.
pub fn place(_conn: &Connection, _version: VersionId) -> Result<Option<Place>, DbError> {
    todo!()
}
/// Records a section.
pub fn add_section(_tx: &Transaction<'_>, _place: &SectionPlace) -> Result<SectionRow, DbError> {
    todo!()
}
/// A section's place.
pub fn section(_conn: &Connection, _row: SectionRow) -> Result<Option<SectionPlace>, DbError> {
    todo!()
}
/// The packs that hold a version's content; empty while it waits. For inline caps, the section's pack.
pub fn packs_of(_conn: &Connection, _version: VersionId) -> Result<Vec<PackRow>, DbError> {
    todo!()
}
/// A fresh version id.
pub fn next_version(_tx: &Transaction<'_>) -> Result<VersionId, DbError> {
    todo!()
}

/// The newest head this device made or recovered from: what the next one builds on.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
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
pub fn published(_conn: &Connection) -> Result<Option<Published>, DbError> {
    todo!()
}
/// Records a new head.
pub fn set_published(_tx: &Transaction<'_>, _published: &Published) -> Result<(), DbError> {
    todo!()
}

/// Applies an index section's records to a catalog that is being rebuilt; returns the caps' versions.
pub fn replay_cap(_tx: &Transaction<'_>, _section: SectionRow, _version: VersionId, _cap: &Cap) -> Result<(), DbError> {
    todo!()
}
