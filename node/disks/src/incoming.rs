//! Packs of a disk read back, from peers and from the spool: by the same verified, hedged reads as those of restores.

use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use backup::restore::fetch_stats::FetchStats;
use backup::restore::{Reader, RestoreError};
use database::DbError;
use disk::DeviceError;
use disk::commit::opening::PackReader;
use proto::cap_index::PackRecord;
use proto::manifest::Manifest;
use upload_queue::packs;
use upload_queue::packs::{KnownPack, PackRow, Purpose};

/// A read that takes longer is told to be impossible now. Chosen: a kernel gives a request of a block device as long.
pub const READ_PATIENCE: Duration = Duration::from_secs(30);

/// Reads out of packs of disks.
pub struct IncomingPacks {
    reader: Reader,
    patience: Duration,
    /// Who was quick and who was not, for as long as the disk is open.
    stats: Mutex<FetchStats>,
}

impl IncomingPacks {
    /// From the reader's peers, and its spool.
    pub fn new(reader: Reader) -> Self {
        Self {
            reader,
            patience: READ_PATIENCE,
            stats: Mutex::default(),
        }
    }

    /// With another patience than the usual.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The pack, and who holds it as far as the catalog knows: one that was rebuilt does not know the packs of disks, and everyone is asked.
    fn known(&self, record: &PackRecord) -> Result<KnownPack, DeviceError> {
        let manifest = Manifest::decode(&record.manifest)
            .map_err(|error| DeviceError::Damaged(format!("a pack's manifest: {error}")))?;
        let known = self.reader.db.read(|conn| packs::find(conn, manifest.pack));
        let known = known.map_err(|error: DbError| DeviceError::Unavailable(error.to_string()))?;
        Ok(known.unwrap_or_else(|| KnownPack {
            row: PackRow(0),
            holders: vec![None; manifest.shares.len()],
            manifest,
            record: record.clone(),
            purpose: Purpose::Disk,
        }))
    }
}

fn unavailable(error: RestoreError) -> DeviceError {
    match error {
        RestoreError::Damaged { .. } => DeviceError::Damaged(error.to_string()),
        other => DeviceError::Unavailable(other.to_string()),
    }
}

impl PackReader for IncomingPacks {
    fn read(&self, record: &PackRecord, range: Range<u32>) -> Result<Vec<u8>, DeviceError> {
        let pack = self.known(record)?;
        let key = self.reader.unwrap(record).map_err(unavailable)?;
        let ranges = [(range.start, range.end.saturating_sub(range.start))];
        let reading = self.reader.read_pack(&pack, &key, &ranges, &self.stats);
        let patience = self.patience;
        // Not the runtime's `block_on`, which refuses threads that have a runtime of their own, as those of NBD connections.
        let _entered = self.reader.runtime.enter();
        let waiting = tokio::time::timeout(patience, reading);
        let read = futures::executor::block_on(tokio::task::unconstrained(waiting));
        let read = read.map_err(|_late| {
            DeviceError::Unavailable(format!("too few peers answered within {} s", patience.as_secs()))
        })?;
        let parts = read.map_err(unavailable)?;
        Ok(parts.concat())
    }
}
