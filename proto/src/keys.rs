//! Keys derived from the seed, split by what their holder may do; device certificates (docs/format/keys.md).

use ed25519_dalek::SigningKey;
use zeroize::ZeroizeOnDrop;

use crate::id::{AccountId, ChunkId, DeviceId};
use crate::pack::{PackError, PackKey};
use crate::phrase::Seed;

/// Every key of an account. A device that may do everything holds all of them; key files are 0600.
#[derive(Clone)]
pub struct AccountKeys {
    /// Signs device certificates and memberships.
    pub signing: SigningKey,
    /// What it takes to write.
    pub put: PutKeys,
    /// What it takes to read.
    pub read: ReadKey,
}

/// What a device needs to write what it cannot read.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct PutKeys {
    /// X25519 public key that pack keys are wrapped to.
    pub wrap_public: [u8; 32],
    /// Keys the chunk ids, so that ids tell nothing about content.
    pub chunk_id: [u8; 32],
    /// Seeds the chunker, so that chunk lengths tell nothing about content.
    pub gear_seed: u64,
}

/// What it takes to read: the X25519 secret.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct ReadKey(pub [u8; 32]);

/// Bytes of a wrapped pack key: ephemeral public key, encrypted key, tag.
pub const WRAPPED_KEY_BYTES: usize = 32 + 32 + 16;

impl AccountKeys {
    /// Derives all keys.
    pub fn from_seed(_seed: &Seed) -> Self {
        todo!()
    }
    /// The account's public name.
    pub fn account_id(&self) -> AccountId {
        todo!()
    }
    /// Key-file encoding (docs/format/keys.md), for a file of mode 0600.
    pub fn encode(&self) -> zeroize::Zeroizing<Vec<u8>> {
        todo!()
    }
    /// Reads a key file; any flipped bit is an error.
    pub fn decode(_bytes: &[u8]) -> Result<Self, KeyFileError> {
        todo!()
    }
}

impl PutKeys {
    /// Id of a chunk's plaintext.
    pub fn chunk_id(&self, _plain: &[u8]) -> ChunkId {
        todo!()
    }
    /// Wraps a pack key for the account's reader. `ephemeral` is 32 fresh random bytes.
    pub fn wrap(&self, _key: &PackKey, _ephemeral: [u8; 32]) -> [u8; WRAPPED_KEY_BYTES] {
        todo!()
    }
    /// Seals `plain` for the account's reader: an output of `plain.len() + 48` bytes bound to `context`.
    pub fn seal_to_reader(&self, _context: &[u8], _plain: &[u8], _ephemeral: [u8; 32]) -> Vec<u8> {
        todo!()
    }
}

impl ReadKey {
    /// Unwraps a pack key.
    pub fn unwrap(&self, _wrapped: &[u8; WRAPPED_KEY_BYTES]) -> Result<PackKey, PackError> {
        todo!()
    }
    /// Opens what `seal_to_reader` sealed; `None` if damaged, for another account or another context.
    pub fn open(&self, _context: &[u8], _sealed: &[u8]) -> Option<zeroize::Zeroizing<Vec<u8>>> {
        todo!()
    }
}

/// A key file that cannot be used.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum KeyFileError {
    /// Not a key file, or damaged.
    #[error("Not a gridbackup key file, or damaged")]
    Malformed,
    /// Written by a newer gridbackup.
    #[error("Key file version {version} is not known to this gridbackup")]
    Version {
        /// The version found.
        version: u16,
    },
}

/// What a device may do, as bits of `DeviceCert::powers`. Nested: each includes those before it.
pub mod power {
    /// Put shares and heads.
    pub const PUT: u8 = 1;
    /// Audit and repair.
    pub const REPAIR: u8 = 2;
    /// Read.
    pub const READ: u8 = 4;
    /// Forget and prune, add and remove devices.
    pub const PRUNE: u8 = 8;
    /// All of them.
    pub const ALL: u8 = 15;
}

/// The account's word that a device is its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceCert {
    /// The account that signs.
    pub account: AccountId,
    /// The device certified.
    pub device: DeviceId,
    /// Bits of [`power`].
    pub powers: u8,
    /// Name for people, at most 64 bytes of UTF-8.
    pub name: String,
    /// Seconds since 1970.
    pub issued_secs: u64,
    /// ed25519 by the account over the encoding without this field.
    pub signature: [u8; 64],
}

impl DeviceCert {
    /// Certifies a device.
    pub fn sign(_account: &SigningKey, _device: DeviceId, _powers: u8, _name: &str, _issued_secs: u64) -> Self {
        todo!()
    }
    /// The stored bytes, at most 256.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }
    /// Decodes and checks the signature.
    pub fn decode(_bytes: &[u8]) -> Result<Self, CertError> {
        todo!()
    }
}

/// Bytes that are no valid certificate.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum CertError {
    /// Not the encoding, or out of limits.
    #[error("Not a device certificate: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// The signature does not hold.
    #[error("The device certificate's signature is wrong")]
    Signature,
}
