//! Names and metadata over time: every entry has the snapshots from which and until which it was so.

use proto::id::{DeviceId, SnapshotId, VersionId};
use proto::log_record::{Entry, LogRecord, Meta, SnapshotRecord};
use rusqlite::{Connection, Transaction};
use upload_queue::db::DbError;

/// A snapshot as the catalog knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Record as in logs and roots.
    pub record: SnapshotRecord,
    /// Device that made it.
    pub device: DeviceId,
}

/// No snapshot, or more than one, is meant by a name.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// None fits.
    #[error("No snapshot `{name}`; `gridbackup snapshots` lists them")]
    Unknown {
        /// As typed.
        name: String,
    },
    /// Several ids begin so.
    #[error("`{name}` fits {count} snapshots; give more digits")]
    Ambiguous {
        /// As typed.
        name: String,
        /// How many.
        count: usize,
    },
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<rusqlite::Error> for FindError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Db(error.into())
    }
}

/// All snapshots, ascending by sequence number.
pub fn snapshots(_conn: &Connection) -> Result<Vec<Snapshot>, DbError> {
    todo!()
}

/// The snapshot that `name` means: `latest`, `latest~N`, an id or its prefix (4 digits or more), a date
/// (`2026-11-21`, `2026-11-21T10:00` in local time `utc_offset_secs`): the last one not after the end of that day or minute.
pub fn find_snapshot(_conn: &Connection, _name: &str, _utc_offset_secs: i32) -> Result<Snapshot, FindError> {
    todo!()
}

/// The entry at `path` (absolute; `/` is the root) in a snapshot.
pub fn entry(_conn: &Connection, _snapshot: u64, _path: &[u8]) -> Result<Option<Entry>, DbError> {
    todo!()
}

/// Calls `visit` with the absolute path and entry of everything at and below `path`, parents before children and names
/// in byte order, until it returns `Ok(false)`. Bounded memory. `path` itself is the first call, if it is there.
pub fn walk<E: From<DbError>>(
    _conn: &Connection,
    _snapshot: u64,
    _path: &[u8],
    _visit: &mut dyn FnMut(&[u8], &Entry) -> Result<bool, E>,
) -> Result<(), E> {
    todo!()
}

/// Entries of a directory, sorted by name.
pub fn children(_conn: &Connection, _snapshot: u64, _path: &[u8]) -> Result<Vec<Entry>, DbError> {
    todo!()
}

/// The newest entry recorded for a path in any snapshot, with its snapshot's sequence number: what `status PATH` needs.
pub fn newest(_conn: &Connection, _path: &[u8]) -> Result<Option<(u64, Entry)>, DbError> {
    todo!()
}

/// The log of `snapshot` as records: all that is in it (`full`) or what changed against its parent, sorted as
/// `LogRecord` asks. Calls `visit` with each.
pub fn log<E: From<DbError>>(
    _conn: &Connection,
    _snapshot: u64,
    _full: bool,
    _visit: &mut dyn FnMut(LogRecord) -> Result<(), E>,
) -> Result<(), E> {
    todo!()
}

/// Applies log records, in the order in which they were published, to a catalog that is being rebuilt.
pub struct Replay {}

impl Replay {
    /// Starts with nothing known of the current snapshot and directory.
    pub fn new(_device: DeviceId) -> Self {
        todo!()
    }
    /// Applies one record.
    pub fn apply(&mut self, _tx: &Transaction<'_>, _record: LogRecord) -> Result<(), DbError> {
        todo!()
    }
}

/// The file was read in another state than the scan saw: records the state it was read in, in the snapshot that names
/// `version`, and makes sure that the log of that snapshot is published (again).
pub fn amend(_tx: &Transaction<'_>, _version: VersionId, _path: &[u8], _meta: &Meta) -> Result<(), DbError> {
    todo!()
}

/// The file could not be read: takes its entry out of the snapshot that names `version`; the entry before it stays
/// current when the file is still there (`vanished` false). Its directory will be looked at again by the next scan.
pub fn withdraw(_tx: &Transaction<'_>, _version: VersionId, _path: &[u8], _vanished: bool) -> Result<(), DbError> {
    todo!()
}

/// Snapshots whose log has something to publish, ascending.
pub fn unpublished(_conn: &Connection) -> Result<Vec<u64>, DbError> {
    todo!()
}

/// The logs of all snapshots up to and including `snapshot` are published as they are now.
pub fn published(_tx: &Transaction<'_>, _snapshot: u64) -> Result<(), DbError> {
    todo!()
}

/// Files (non-directories) and bytes in a snapshot, and whether every version in it has a cap.
pub fn snapshot_complete(_conn: &Connection, _snapshot: u64) -> Result<bool, DbError> {
    todo!()
}

/// A snapshot id from what makes it unique.
pub fn snapshot_id(_device: DeviceId, _seq: u64, _time_ns: i64) -> SnapshotId {
    todo!()
}
