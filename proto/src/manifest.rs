//! A pack's public manifest: enough to audit and rebuild its shares, nothing to read them (docs/format/manifest.md).

use crate::id::{AccountId, DeviceId, PackId, ShareId};
use crate::pack::PackShape;

/// Which shares make a pack, signed by the device that made it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The pack.
    pub pack: PackId,
    /// Its code and share size.
    pub shape: PackShape,
    /// Its n shares, data first.
    pub shares: Vec<ShareId>,
    /// Whose it is.
    pub account: AccountId,
    /// Which device made and signed it.
    pub device: DeviceId,
    /// ed25519 over the encoding without this field.
    pub signature: [u8; 64],
}

/// Bytes that are not a valid manifest.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ManifestError {
    /// Not the encoding, or out of limits.
    #[error("Not a manifest: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer gridbackup.
    #[error("Manifest version {version} is not known to this gridbackup")]
    Version {
        /// The version found.
        version: u16,
    },
    /// The signature does not hold.
    #[error("The manifest's signature is wrong")]
    Signature,
}

impl Manifest {
    /// Signs a manifest.
    pub fn sign(
        _pack: PackId,
        _shape: PackShape,
        _shares: Vec<ShareId>,
        _account: AccountId,
        _device: &ed25519_dalek::SigningKey,
    ) -> Self {
        todo!()
    }
    /// The stored bytes, at most `share::MANIFEST_AREA_BYTES`.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }
    /// Decodes and checks limits and signature.
    pub fn decode(_bytes: &[u8]) -> Result<Self, ManifestError> {
        todo!()
    }
}
