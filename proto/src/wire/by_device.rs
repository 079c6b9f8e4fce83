//! What an account says by one of its devices: the device's certificate and its signature. Whether the account still trusts the device
//! is for whoever knows the account's word (`wire::word`).

use ed25519_dalek::SigningKey;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::id::AccountId;
use crate::keys::{DeviceCert, power};
use crate::wire::grid_limits::RosterError;
use crate::wire::signed;

/// A device that speaks for its account.
#[derive(Clone, Copy, Debug)]
pub struct Speaker<'a> {
    /// Its key.
    pub key: &'a SigningKey,
    /// Its certificate, with the power to admit.
    pub cert: &'a DeviceCert,
}

impl Speaker<'_> {
    /// The account that it speaks for.
    pub fn account(&self) -> AccountId {
        self.cert.account
    }
}

/// A certificate and a signature by its device.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub struct ByDevice {
    /// Encoded `DeviceCert`.
    #[n(0)]
    pub cert: ByteVec,
    /// ed25519 by the device over a context and what is said.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

impl ByDevice {
    /// Signs.
    pub(super) fn sign<B: Encode<()>>(speaker: Speaker<'_>, context: &str, body: &B) -> Self {
        Self {
            cert: speaker.cert.encode().into(),
            signature: signed::sign(speaker.key, context, body),
        }
    }

    /// Nobody's, for what is signed in a second step.
    pub(super) fn none() -> Self {
        Self {
            cert: ByteVec::from(Vec::new()),
            signature: [0; 64],
        }
    }

    /// The certificate of the device that signed, which is one of `account` and may speak for it.
    pub(super) fn check<B: Encode<()>>(
        &self,
        account: AccountId,
        context: &str,
        body: &B,
    ) -> Result<DeviceCert, RosterError> {
        let cert = self.decoded()?;
        if cert.account != account || cert.powers & power::ADMIT == 0 {
            return Err(RosterError::Signature);
        }
        match signed::holds(&cert.device.0, context, body, &self.signature) {
            true => Ok(cert),
            false => Err(RosterError::Signature),
        }
    }

    /// The certificate.
    pub fn decoded(&self) -> Result<DeviceCert, RosterError> {
        DeviceCert::decode(&self.cert).map_err(|error| RosterError::Malformed {
            reason: error.to_string(),
        })
    }
}
