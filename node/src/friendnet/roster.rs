//! The members of a grid and their devices: which records count, how two rosters become one, and where it is kept.
//!
//! A conflict-free replicated set: merging is commutative and idempotent, so that members may meet in any order. A member
//! counts when a chain of admissions leads to the founder and nobody who may has removed it (`standing`); the founder is
//! what the grid's id is made of.

use std::collections::BTreeMap;
use std::path::Path;

use libp2p::Multiaddr;
use proto::id::{AccountId, DeviceId, GridId};
use proto::keys::DeviceCert;
use proto::wire::removal::Removal;
use proto::wire::roster::{DEVICES_MAX, DeviceRecord, MEMBERS_MAX, MemberRecord, RosterRecords};

use super::state_file;

pub mod standing;

/// A device of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its certificate, checked.
    pub cert: DeviceCert,
    /// The record that tells where it is.
    pub record: DeviceRecord,
}

impl Device {
    /// Where it listens, by its own word.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.record
            .addresses
            .iter()
            .filter_map(|bytes| Multiaddr::try_from(bytes.to_vec()).ok())
            .collect()
    }
}

/// The roster of one grid. Every record in it has been checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Roster {
    grid: GridId,
    /// Removed ones, too: the admissions of those they admitted lead through them.
    members: BTreeMap<AccountId, MemberRecord>,
    devices: BTreeMap<DeviceId, Device>,
    /// By account, remover and device.
    removals: BTreeMap<(AccountId, AccountId, Option<DeviceId>), Removal>,
}

/// A roster that cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("The roster {path} cannot be written: {source}")]
pub struct RosterFileError {
    /// The file.
    path: String,
    /// What the system said.
    source: std::io::Error,
}

impl Roster {
    /// A roster of `grid` in which nobody is known yet.
    pub fn empty(grid: GridId) -> Self {
        Self {
            grid,
            members: BTreeMap::new(),
            devices: BTreeMap::new(),
            removals: BTreeMap::new(),
        }
    }

    /// The grid.
    pub fn grid(&self) -> GridId {
        self.grid
    }

    /// Members, in order of account.
    pub fn members(&self) -> impl Iterator<Item = &MemberRecord> {
        self.members.values().filter(|member| self.counts(member))
    }

    /// Devices of all members, in order of device.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values().filter(|device| self.admits(&device.cert))
    }

    /// One member.
    pub fn member(&self, account: AccountId) -> Option<&MemberRecord> {
        self.members.get(&account).filter(|member| self.counts(member))
    }

    /// One device.
    pub fn device(&self, device: DeviceId) -> Option<&Device> {
        self.devices.get(&device).filter(|device| self.admits(&device.cert))
    }

    /// Whether another member fits.
    pub fn has_room(&self) -> bool {
        self.members.len() < MEMBERS_MAX
    }

    /// Takes in one member; true if that changed anything. Records that do not count are left out.
    pub fn add_member(&mut self, record: MemberRecord) -> bool {
        if !self.is_admitted(&record) || record.check(self.grid).is_err() {
            return false;
        }
        let better = match self.members.get(&record.account) {
            // Admitted twice, by two members at once: all members must pick the same record, whichever they heard first.
            Some(held) => member_order(&record) < member_order(held),
            None => self.has_room(),
        };
        if better {
            self.members.insert(record.account, record);
        }
        better
    }

    /// Takes in one device; true if that changed anything. Records that do not count are left out.
    pub fn add_device(&mut self, record: DeviceRecord) -> bool {
        let Ok(cert) = record.check(self.grid) else {
            return false;
        };
        if !self.members.contains_key(&cert.account) {
            return false;
        }
        let newer = |held: &Device| (record.seq, record.signature) > (held.record.seq, held.record.signature);
        if self.devices.get(&cert.device).is_some_and(|held| !newer(held)) {
            return false;
        }
        let account = cert.account;
        let device = cert.device;
        self.devices.insert(device, Device { cert, record });
        self.drop_oldest_device(account) != Some(device)
    }

    /// Merges what another member knows; true if that changed anything.
    pub fn merge(&mut self, other: &RosterRecords) -> bool {
        if other.grid != self.grid {
            return false;
        }
        let removals: Vec<_> = other
            .removals
            .iter()
            .filter_map(|bytes| Removal::decode(bytes).ok())
            .collect();
        let mut changed = false;
        // A member may stand before its admitter, and a removal counts only when the founder is known: go on until nothing
        // more is learned.
        for _ in 0..=MEMBERS_MAX {
            let mut learned = false;
            for removal in &removals {
                learned |= self.add_removal(removal.clone());
            }
            for record in &other.members {
                if self.members.get(&record.account) != Some(record) {
                    learned |= self.add_member(record.clone());
                }
            }
            changed |= learned;
            if !learned {
                break;
            }
        }
        for record in &other.devices {
            if !self.devices.values().any(|held| held.record == *record) {
                changed |= self.add_device(record.clone());
            }
        }
        changed
    }

    /// All records, for sending and keeping.
    pub fn records(&self) -> RosterRecords {
        RosterRecords {
            version: proto::wire::VERSION,
            grid: self.grid,
            members: self.members.values().cloned().collect(),
            devices: self.devices.values().map(|device| device.record.clone()).collect(),
            removals: self.removals.values().map(Removal::encode).collect(),
        }
    }

    /// BLAKE3 of the encoding: equal for equal rosters.
    pub fn digest(&self) -> [u8; 32] {
        *blake3::hash(&self.records().encode()).as_bytes()
    }

    /// A roster made of what somebody sent or kept: only what counts is in it.
    pub fn from_records(records: &RosterRecords) -> Self {
        let mut roster = Self::empty(records.grid);
        roster.merge(records);
        roster
    }

    /// Reads the roster kept in a file; `None` if there is none yet, or none that can be read: then a friend who reaches this
    /// node brings it.
    pub fn load(path: &Path) -> Option<Self> {
        let decode = |bytes: &[u8]| RosterRecords::decode(bytes).map_err(|error| error.to_string());
        let (records, lost) = state_file::read(path, decode);
        match lost {
            Some(lost) if records.is_some() => tracing::warn!("{lost}: friends tell the rest"),
            Some(lost) => tracing::warn!(
                "{lost}. Until a friend reaches this node it knows nobody: if none does, ask one for a ticket and `gridbackup join` it"
            ),
            None => {}
        }
        records.map(|records| Self::from_records(&records))
    }

    /// Replaces the file.
    pub fn save(&self, path: &Path) -> Result<(), RosterFileError> {
        state_file::replace(path, &self.records().encode()).map_err(|source| RosterFileError {
            path: path.display().to_string(),
            source,
        })
    }

    /// A member with too many devices keeps the newest, so that recovering an account works however often it was done.
    fn drop_oldest_device(&mut self, account: AccountId) -> Option<DeviceId> {
        let of_account = || self.devices.values().filter(|device| device.cert.account == account);
        if of_account().count() <= DEVICES_MAX {
            return None;
        }
        let oldest = of_account()
            .map(|device| (device.cert.issued_secs, device.cert.device))
            .min()?
            .1;
        self.devices.remove(&oldest);
        Some(oldest)
    }
}

/// The earliest admission counts; signatures settle what is left.
fn member_order(record: &MemberRecord) -> (u64, AccountId, [u8; 64], [u8; 64]) {
    (
        record.admitted_secs,
        record.admitted_by,
        record.acceptance,
        record.admission,
    )
}

#[cfg(test)]
mod tests;
