//! Where members meet when all addresses have changed, and where a recovered device learns of its grid.
//!
//! Rosters are sealed: for the account's own reader, and for whoever knows the grid's id. A provider learns how many there are.

use bytes::Bytes;
use proto::id::{DeviceId, GridId};
use proto::keys::{PutKeys, ReadKey};
use proto::share_store::StoreError;
use proto::wire::frame::PAYLOAD_BYTES_MAX;
use proto::wire::grid_limits::MEMBERS_MAX;
use proto::wire::roster::{DEVICES_MAX, RosterRecords};
use s3::Condition;

use super::Bucket;

/// What a sealed roster is bound to.
pub(super) const CONTEXT: &[u8] = b"gridbackup 2026 bucket roster";
/// Longest sealed roster, in bytes.
const SEALED_BYTES_MAX: u64 = PAYLOAD_BYTES_MAX as u64 + 64;

/// A copy of the roster in a bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RosterCopy {
    /// It is not there.
    Missing,
    /// It is there, and is no roster that its reader can open.
    Damaged,
    /// What it says.
    There(RosterRecords),
}

impl Bucket {
    /// Leaves what `device` knows of its grid for the account's other devices and for the other members.
    pub async fn tell(&self, device: DeviceId, records: &RosterRecords) -> Result<(), StoreError> {
        let grid = reader_of(records.grid);
        let places = [
            (self.0.keys.roster(), &self.0.account.put),
            (self.meeting_key(records.grid, device), &writer_for(&grid)),
        ];
        for (key, keys) in places {
            let mut ephemeral = [0; 32];
            getrandom::fill(&mut ephemeral).map_err(|error| StoreError::Unreachable {
                reason: format!("the system gives no randomness: {error}"),
            })?;
            let sealed = Bytes::from(keys.seal_to_reader(CONTEXT, &records.encode(), ephemeral));
            let headers = Self::headers(&self.nature().await?);
            self.heard(self.0.client.put(&key, sealed, &headers, &Condition::Always).await)?;
        }
        Ok(())
    }

    /// What this account's devices left here last; none: nothing, or nothing that can be read.
    pub async fn own_roster(&self) -> Result<Option<RosterRecords>, StoreError> {
        let Some(read) = &self.0.account.read else {
            return Ok(None);
        };
        let sealed = self.read(&self.0.keys.roster(), SEALED_BYTES_MAX).await?;
        Ok(sealed.and_then(|sealed| open(read, &sealed.bytes)))
    }

    /// The copies that `device` left: for the account's own devices, and for the members of `grid`.
    pub async fn told(&self, device: DeviceId, grid: GridId) -> Result<[RosterCopy; 2], StoreError> {
        // A device that only puts cannot tell what the others of its account have left.
        let own = match &self.0.account.read {
            Some(read) => self.copy(&self.0.keys.roster(), read).await?,
            None => RosterCopy::Missing,
        };
        let met = self.copy(&self.meeting_key(grid, device), &reader_of(grid)).await?;
        Ok([own, met])
    }

    async fn copy(&self, key: &[u8], reader: &ReadKey) -> Result<RosterCopy, StoreError> {
        let copy = match self.read(key, SEALED_BYTES_MAX).await {
            Ok(None) => RosterCopy::Missing,
            Ok(Some(sealed)) => open(reader, &sealed.bytes).map_or(RosterCopy::Damaged, RosterCopy::There),
            Err(StoreError::Corrupt { .. }) => RosterCopy::Damaged,
            Err(error) => return Err(error),
        };
        Ok(copy)
    }

    /// What the members of `grid` left here since this was last asked.
    pub async fn meet(&self, grid: GridId) -> Result<Vec<RosterRecords>, StoreError> {
        let prefix = self.0.keys.grid(grid);
        let listed = self.list(prefix, Vec::new(), MEMBERS_MAX * DEVICES_MAX).await?.0;
        let reader = reader_of(grid);
        let mut met = self.0.met.lock().await;
        let mut found = Vec::new();
        for object in listed {
            let seen = (object.key.clone(), object.etag);
            if met.contains(&seen) {
                continue;
            }
            let sealed = self.read(&object.key, SEALED_BYTES_MAX).await?;
            found.extend(sealed.and_then(|sealed| open(&reader, &sealed.bytes)));
            met.retain(|(key, _)| *key != object.key);
            met.insert(seen);
        }
        found.retain(|records| records.grid == grid);
        Ok(found)
    }

    fn meeting_key(&self, grid: GridId, device: DeviceId) -> Vec<u8> {
        let name = blake3::keyed_hash(&reader_of(grid).0, &device.0).to_hex();
        [&self.0.keys.grid(grid)[..], &name.as_bytes()[..32]].concat()
    }
}

/// Everybody who knows the grid's id reads what is sealed for it: its members, and those who were invited.
pub(super) fn reader_of(grid: GridId) -> ReadKey {
    ReadKey(blake3::derive_key("gridbackup 2026 bucket meeting", &grid.0))
}

pub(super) fn writer_for(reader: &ReadKey) -> PutKeys {
    PutKeys {
        wrap_public: reader.wrap_public(),
        chunk_id: [0; 32],
        gear_seed: 0,
    }
}

pub(super) fn open(reader: &ReadKey, sealed: &[u8]) -> Option<RosterRecords> {
    RosterRecords::decode(&reader.open(CONTEXT, sealed)?).ok()
}
