//! The roster: signed records of members and their devices (docs/protocol/roster.md).
//!
//! Only the records are here, each checked for itself. Which of them count, and how two rosters merge, is the node's.

use ed25519_dalek::SigningKey;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::id::{AccountId, DeviceId, GridId};
use crate::keys::{CERT_BYTES_MAX, DeviceCert};
use crate::wire::by_device::{ByDevice, Speaker};
use crate::wire::frame::PAYLOAD_BYTES_MAX;
use crate::wire::grid_limits::{MEMBERS_MAX, RosterError};
use crate::wire::removal::{REMOVALS_BYTES_MAX, REMOVALS_MAX};
use crate::wire::signed;
use crate::wire::word::WORD_BYTES_MAX;

/// Most member records: those of members, and of removed ones that admitted members who stay.
pub const RECORDS_MAX: usize = 2 * MEMBERS_MAX;
/// Most devices of one member. Chosen, as the limits below: the fullest roster fits one frame (asserted below).
pub const DEVICES_MAX: usize = 6;
/// Most addresses of one device.
pub const ADDRESSES_MAX: usize = 6;
/// Most bytes of one address, a multiaddr in binary form.
pub const ADDRESS_BYTES_MAX: usize = 96;
/// Most bytes of a member's name (docs/protocol/roster.md).
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes of the longest device record: certificate, addresses, number and signature.
const DEVICE_BYTES_MAX: usize = 256 + ADDRESSES_MAX * (ADDRESS_BYTES_MAX + 2) + 96;
/// Bytes of the longest member record: two accounts, two signed certificates, the name and the time.
const MEMBER_BYTES_MAX: usize = 2 * 32 + 2 * (CERT_BYTES_MAX + 72) + NAME_BYTES_MAX + 32;
// The fullest roster fits one frame.
const _: () = assert!(
    RECORDS_MAX * (MEMBER_BYTES_MAX + WORD_BYTES_MAX)
        + MEMBERS_MAX * DEVICES_MAX * DEVICE_BYTES_MAX
        + REMOVALS_BYTES_MAX
        + 64
        <= PAYLOAD_BYTES_MAX
);

const ACCEPTANCE: &str = "gridbackup 2026 acceptance";
const ADMISSION: &str = "gridbackup 2026 admission";
const DEVICE: &str = "gridbackup 2026 device record";

/// A member, as two signatures make it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct MemberRecord {
    /// Who.
    #[n(0)]
    pub account: AccountId,
    /// Name for people, chosen by the member.
    #[n(1)]
    pub name: String,
    /// Who admitted it: a member; the founder admitted itself.
    #[n(2)]
    pub admitted_by: AccountId,
    /// The founder's: what makes the grid's id, seconds since 1970 by its clock. Everybody else's is 0: dates that others write
    /// decide nothing.
    #[n(3)]
    pub founded_secs: u64,
    /// By a device of the member: it wants to be in this grid under this name.
    #[n(4)]
    pub acceptance: ByDevice,
    /// By a device of the admitter over all fields above.
    #[n(5)]
    pub admission: ByDevice,
}

/// Where a device of a member is, by its own word.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct DeviceRecord {
    /// Encoded `DeviceCert`.
    #[n(0)]
    pub cert: ByteVec,
    /// Counts up with each record of the device: the highest counts.
    #[n(1)]
    pub seq: u64,
    /// Where it listens: multiaddrs in binary form.
    #[n(2)]
    pub addresses: Vec<ByteVec>,
    /// ed25519 by the device over all fields above and the grid.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// A roster as it travels and as it is kept.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct RosterRecords {
    /// [`super::VERSION`] of the writer.
    #[n(0)]
    pub version: u16,
    /// Which grid: `grid_id` of its founder's record.
    #[n(1)]
    pub grid: GridId,
    /// The members, in order of account.
    #[n(2)]
    pub members: Vec<MemberRecord>,
    /// Their devices, in order of device.
    #[n(3)]
    pub devices: Vec<DeviceRecord>,
    /// Encoded [`Removal`](super::removal::Removal)s, in order of subject.
    #[n(4)]
    pub removals: Vec<ByteVec>,
    /// Encoded [`AccountWord`](super::word::AccountWord)s of members, in order of account.
    #[n(5)]
    pub words: Vec<ByteVec>,
}

#[derive(Encode)]
struct Acceptance<'a>(#[n(0)] GridId, #[n(1)] AccountId, #[n(2)] &'a str, #[n(3)] DeviceId);

#[derive(Encode)]
struct Accepted<'a>(#[n(0)] GridId, #[n(1)] AccountId, #[n(2)] &'a str);

#[derive(Encode)]
struct Admission<'a> {
    #[n(0)]
    accepted: Accepted<'a>,
    #[n(1)]
    admitted_by: AccountId,
    #[n(2)]
    founded_secs: u64,
    #[n(3)]
    acceptance: &'a ByDevice,
}

#[derive(Encode)]
struct Whereabouts<'a>(#[n(0)] GridId, #[n(1)] &'a ByteVec, #[n(2)] u64, #[n(3)] &'a [ByteVec]);

/// Id of the grid that `founder` founded at that time.
pub fn grid_id(founder: AccountId, founded_secs: u64) -> GridId {
    let mut founding = founder.0.to_vec();
    founding.extend_from_slice(&founded_secs.to_le_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::derive_key("gridbackup 2026 grid id", &founding)[..16]);
    GridId(id)
}

/// An account's word, by one of its devices, that it wants to be in `grid` under `name`, admitted by the device `admitter` and no
/// other: it is public, and else anybody could admit a member once more.
pub fn acceptance(speaker: Speaker<'_>, grid: GridId, name: &str, admitter: DeviceId) -> ByDevice {
    ByDevice::sign(
        speaker,
        ACCEPTANCE,
        &Acceptance(grid, speaker.account(), name, admitter),
    )
}

impl MemberRecord {
    /// Admits an account that accepted.
    pub fn admit(admitter: Speaker<'_>, grid: GridId, account: AccountId, name: &str, acceptance: ByDevice) -> Self {
        let record = Self {
            account,
            name: name.to_owned(),
            admitted_by: admitter.account(),
            founded_secs: 0,
            acceptance,
            admission: ByDevice::none(),
        };
        record.admitted(admitter, grid)
    }

    /// The record with which the account of `founder` begins a grid.
    pub fn found(founder: Speaker<'_>, name: &str, founded_secs: u64) -> Self {
        let grid = grid_id(founder.account(), founded_secs);
        let record = Self {
            account: founder.account(),
            name: name.to_owned(),
            admitted_by: founder.account(),
            founded_secs,
            acceptance: acceptance(founder, grid, name, founder.cert.device),
            admission: ByDevice::none(),
        };
        record.admitted(founder, grid)
    }

    fn admitted(mut self, admitter: Speaker<'_>, grid: GridId) -> Self {
        self.admission = ByDevice::sign(admitter, ADMISSION, &self.admission_body(grid));
        self
    }

    /// Checks limits and both signatures; whether the admitter is a member, and trusts its device, is for the caller.
    pub fn check(&self, grid: GridId) -> Result<(), RosterError> {
        if self.name.len() > NAME_BYTES_MAX {
            return Err(RosterError::Malformed {
                reason: format!("a name of {} bytes", self.name.len()),
            });
        }
        let admission = self.admission_body(grid);
        let admitter = self.admission.check(self.admitted_by, ADMISSION, &admission)?.device;
        let accepted = Acceptance(grid, self.account, &self.name, admitter);
        self.acceptance.check(self.account, ACCEPTANCE, &accepted).map(drop)
    }

    /// Whether this is the founder of `grid`.
    pub fn founds(&self, grid: GridId) -> bool {
        self.account == self.admitted_by && grid_id(self.account, self.founded_secs) == grid
    }

    fn admission_body(&self, grid: GridId) -> Admission<'_> {
        Admission {
            accepted: Accepted(grid, self.account, &self.name),
            admitted_by: self.admitted_by,
            founded_secs: self.founded_secs,
            acceptance: &self.acceptance,
        }
    }
}

impl DeviceRecord {
    /// Signs a record. Addresses beyond the limits are left out.
    pub fn sign(device: &SigningKey, grid: GridId, cert: &DeviceCert, seq: u64, addresses: &[Vec<u8>]) -> Self {
        let cert = ByteVec::from(cert.encode());
        let short = addresses.iter().filter(|address| address.len() <= ADDRESS_BYTES_MAX);
        let addresses: Vec<_> = short.take(ADDRESSES_MAX).cloned().map(ByteVec::from).collect();
        let signature = signed::sign(device, DEVICE, &Whereabouts(grid, &cert, seq, &addresses));
        Self {
            cert,
            seq,
            addresses,
            signature,
        }
    }

    /// Checks limits, certificate and signature; whether the account is a member is for the caller.
    pub fn check(&self, grid: GridId) -> Result<DeviceCert, RosterError> {
        if self.addresses.len() > ADDRESSES_MAX
            || self.addresses.iter().any(|address| address.len() > ADDRESS_BYTES_MAX)
        {
            return Err(RosterError::Malformed {
                reason: "too many or too long addresses".into(),
            });
        }
        let cert = DeviceCert::decode(&self.cert).map_err(|error| RosterError::Malformed {
            reason: error.to_string(),
        })?;
        let body = Whereabouts(grid, &self.cert, self.seq, &self.addresses);
        if signed::holds(&cert.device.0, DEVICE, &body, &self.signature) {
            Ok(cert)
        } else {
            Err(RosterError::Signature)
        }
    }

    /// The device, when the certificate can be read.
    pub fn device(&self) -> Option<DeviceId> {
        DeviceCert::decode(&self.cert).ok().map(|cert| cert.device)
    }
}

impl RosterRecords {
    /// The bytes that travel and are kept, at most `PAYLOAD_BYTES_MAX`.
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory does not fail")
    }

    /// Decodes and checks version and limits; the records are checked one by one by whoever merges them.
    pub fn decode(bytes: &[u8]) -> Result<Self, RosterError> {
        let malformed = |reason: String| RosterError::Malformed { reason };
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return Err(malformed(format!("{} bytes are too many", bytes.len())));
        }
        let records: Self = minicbor::decode(bytes).map_err(|error| malformed(error.to_string()))?;
        if records.version != super::VERSION {
            return Err(RosterError::Version {
                version: records.version,
            });
        }
        let word_bytes: usize = records.words.iter().map(|word| word.len()).sum();
        if records.members.len() > RECORDS_MAX
            || records.devices.len() > MEMBERS_MAX * DEVICES_MAX
            || records.words.len() > RECORDS_MAX
            || word_bytes > RECORDS_MAX * WORD_BYTES_MAX
        {
            return Err(malformed("more members, devices or words than a grid can have".into()));
        }
        let removal_bytes: usize = records.removals.iter().map(|removal| removal.len()).sum();
        if records.removals.len() > REMOVALS_MAX || removal_bytes > REMOVALS_BYTES_MAX {
            return Err(malformed("more removals than a roster can have".into()));
        }
        Ok(records)
    }
}
