//! A holder's signed word that it keeps a share (docs/protocol/receipt.md).

use ed25519_dalek::SigningKey;
use minicbor::{Decode, Encode};

use crate::id::{AccountId, DeviceId, ShareId};
use crate::wire::signed;

const CONTEXT: &str = "gridbackup 2026 receipt";

/// What a holder signs.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ReceiptBody {
    /// The share kept.
    #[n(0)]
    pub share: ShareId,
    /// Whose it is.
    #[n(1)]
    pub owner: AccountId,
    /// Who keeps it, and signs.
    #[n(2)]
    pub holder: DeviceId,
    /// Bytes of its stored form.
    #[n(3)]
    pub stored_bytes: u32,
    /// Seconds since 1970, by the holder's clock.
    #[n(4)]
    pub kept_secs: u64,
}

/// A signed receipt.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Receipt {
    /// What is signed.
    #[n(0)]
    pub body: ReceiptBody,
    /// ed25519 by the holder.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// Bytes that are no valid receipt.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ReceiptError {
    /// Not the encoding.
    #[error("Not a receipt: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// The signature does not hold.
    #[error("The receipt's signature is wrong")]
    Signature,
}

impl Receipt {
    /// Signs a receipt. `device` is the holder's key.
    pub fn sign(device: &SigningKey, body: ReceiptBody) -> Self {
        let signature = signed::sign(device, CONTEXT, &body);
        Self { body, signature }
    }

    /// The bytes that travel, at most 256.
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory does not fail")
    }

    /// Decodes and checks the signature.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReceiptError> {
        let receipt: Self = minicbor::decode(bytes).map_err(|error| ReceiptError::Malformed {
            reason: error.to_string(),
        })?;
        let body = &receipt.body;
        if !signed::holds(&body.holder.0, CONTEXT, body, &receipt.signature) {
            return Err(ReceiptError::Signature);
        }
        Ok(receipt)
    }
}
