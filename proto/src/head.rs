//! The head: a device's signed, numbered, constant-size pointer to its newest root (docs/format/head.md).

use crate::id::{AccountId, DeviceId};
use crate::keys::{DeviceCert, PutKeys, ReadKey};
use crate::log_record::SnapshotRecord;
use crate::root::RootRef;

/// Bytes of an encoded head, whatever is in it.
pub const HEAD_BYTES: usize = 4096;

/// A head as peers keep it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The device's certificate: who signs, and for whom.
    pub cert: DeviceCert,
    /// Counts up by one with each head of the device.
    pub seq: u64,
    /// BLAKE3 of the encoded head before this one; zero for the first.
    pub previous: [u8; 32],
    /// The sealed, padded body.
    pub sealed: Vec<u8>,
    /// ed25519 by the device.
    pub signature: [u8; 64],
}

/// What only the account can read of a head.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub struct HeadBody {
    /// The newest root; `None` before anything was stored.
    #[n(0)]
    pub root: Option<RootRef>,
    /// The newest snapshot: in the root unless nothing had changed when it was made. Its `roots` are left empty here when
    /// they would not fit; then they are those of its parent.
    #[n(1)]
    pub snapshot: Option<SnapshotRecord>,
}

/// Bytes that are no valid head.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum HeadError {
    /// Not the encoding, or not `HEAD_BYTES` long.
    #[error("Not a head: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer gridbackup.
    #[error("Head version {version} is not known to this gridbackup")]
    Version {
        /// The version found.
        version: u16,
    },
    /// A signature does not hold: the head's or its certificate's.
    #[error("The head's signature is wrong")]
    Signature,
    /// The body does not open with this account's key.
    #[error("The head's body does not open: damaged, or another account's")]
    Sealed,
}

impl Head {
    /// Seals and signs a head. `ephemeral` is 32 fresh random bytes.
    pub fn sign(
        _device: &ed25519_dalek::SigningKey,
        _cert: &DeviceCert,
        _seq: u64,
        _previous: [u8; 32],
        _body: &HeadBody,
        _put: &PutKeys,
        _ephemeral: [u8; 32],
    ) -> Self {
        todo!()
    }
    /// The account it belongs to.
    pub fn account(&self) -> AccountId {
        self.cert.account
    }
    /// The device it belongs to.
    pub fn device(&self) -> DeviceId {
        self.cert.device
    }
    /// The stored bytes: exactly `HEAD_BYTES`.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }
    /// Decodes; checks length, version, certificate and signature.
    pub fn decode(_bytes: &[u8]) -> Result<Self, HeadError> {
        todo!()
    }
    /// BLAKE3 of the encoding: the next head's `previous`.
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.encode()).as_bytes()
    }
    /// Opens the body.
    pub fn open(&self, _read: &ReadKey) -> Result<HeadBody, HeadError> {
        todo!()
    }
}
