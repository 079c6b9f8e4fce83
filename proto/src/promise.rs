//! A promise: the highest epoch of a volume that a voter was asked for, as the claim that its writer signed
//! (docs/format/promise.md). How a voter makes it durable is the voter's.

use std::ops::Range;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::epoch::{EPOCH_COUNTER_MAX, Epoch, Verdict};
use crate::id::{AccountId, VolumeId};
use crate::keys::{CERT_BYTES_MAX, CertError, DeviceCert, power};

/// Bytes of an encoded promise (docs/format/promise.md §1).
pub const PROMISE_BYTES: usize = 356;

const MAGIC: &[u8; 8] = b"GBPROM\0\0";
const VERSION: u16 = 1;
const SIGNATURE_DOMAIN: &[u8] = b"gridbackup 2026 promise signature";
/// What a device needs to be a volume's writer: it puts heads, and reads those of the writers before.
const POWERS: u8 = power::PUT | power::READ;

// docs/format/promise.md §1
const CERT_LEN: Range<usize> = 10..12;
const CERT: Range<usize> = 12..12 + CERT_BYTES_MAX;
const VOLUME: Range<usize> = CERT.end..CERT.end + VolumeId::LEN;
const COUNTER: Range<usize> = VOLUME.end..VOLUME.end + 8;
const SIGNATURE: Range<usize> = COUNTER.end..PROMISE_BYTES;

const _: () = assert!(SIGNATURE.end - SIGNATURE.start == 64);

/// A signed claim of an epoch of a volume; kept by a voter, it is the voter's promise.
///
/// It names no voter: a writer claims its epoch at all of them, and whoever brings a claim later than its writer did only does
/// what the writer asked for. It never says another epoch than its signer's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promise {
    /// Who claims, and for whom. May put and read.
    pub cert: DeviceCert,
    /// What is to be written.
    pub volume: VolumeId,
    /// The epoch's counter; its device is that of the certificate.
    pub counter: u64,
    /// ed25519 by the device of `cert`.
    pub signature: [u8; 64],
}

/// Bytes that are no valid promise.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum PromiseError {
    /// Not the encoding, or out of limits.
    #[error("Not a promise: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer gridbackup.
    #[error("Promise version {version} is not known to this gridbackup")]
    Version {
        /// The version found.
        version: u16,
    },
    /// The certificate is not valid.
    #[error("The promise's certificate is not valid: {0}")]
    Cert(#[from] CertError),
    /// The device may not write volumes.
    #[error("The device that claims may not both put and read")]
    Powerless,
    /// The certificate is another device's than the one that is to sign.
    #[error("The device's key is not the one that its certificate names")]
    AnotherDevice,
    /// The signature does not hold.
    #[error("The promise's signature is wrong")]
    Signature,
}

fn malformed(reason: impl Into<String>) -> PromiseError {
    PromiseError::Malformed { reason: reason.into() }
}

impl Promise {
    /// Signs a claim. An error if `cert` is not the certificate of `device` or lacks a power, or no epoch has this counter.
    pub fn sign(device: &SigningKey, cert: &DeviceCert, volume: VolumeId, counter: u64) -> Result<Self, PromiseError> {
        if device.verifying_key().to_bytes() != cert.device.0 {
            return Err(PromiseError::AnotherDevice);
        }
        let mut promise = Self {
            cert: cert.clone(),
            volume,
            counter,
            signature: [0; 64],
        };
        promise.check()?;
        promise.signature = device.sign(&signed_bytes(&promise.encode())).to_bytes();
        Ok(promise)
    }

    /// The account whose volume it is.
    pub fn account(&self) -> AccountId {
        self.cert.account
    }

    /// The epoch that is claimed, and promised by whoever keeps this.
    pub fn epoch(&self) -> Epoch {
        Epoch {
            counter: self.counter,
            device: self.cert.device,
        }
    }

    /// What a voter that keeps `held` does with this claim. The caller has seen that both are of the account and the volume
    /// that it keeps them for.
    pub fn verdict(&self, held: Option<&Self>) -> Verdict {
        Verdict::of(held.map(Self::epoch), self.epoch())
    }

    /// The stored bytes: exactly [`PROMISE_BYTES`].
    pub fn encode(&self) -> Vec<u8> {
        let cert = self.cert.encode();
        let mut bytes = vec![0; PROMISE_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[CERT_LEN].copy_from_slice(&(cert.len() as u16).to_le_bytes());
        bytes[CERT][..cert.len()].copy_from_slice(&cert);
        bytes[VOLUME].copy_from_slice(&self.volume.0);
        bytes[COUNTER].copy_from_slice(&self.counter.to_le_bytes());
        bytes[SIGNATURE].copy_from_slice(&self.signature);
        bytes
    }

    /// Decodes; checks length, version, certificate, powers, limits and signature.
    // docs/format/promise.md §2
    pub fn decode(bytes: &[u8]) -> Result<Self, PromiseError> {
        if bytes.len() != PROMISE_BYTES {
            let reason = format!("it has {} bytes instead of {PROMISE_BYTES}", bytes.len());
            return Err(malformed(reason));
        }
        if bytes[..8] != *MAGIC {
            return Err(malformed("it does not begin with GBPROM"));
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != VERSION {
            return Err(PromiseError::Version { version });
        }
        let promise = Self {
            cert: decode_cert(u16::from_le_bytes([bytes[10], bytes[11]]).into(), &bytes[CERT])?,
            volume: VolumeId(array(&bytes[VOLUME])),
            counter: u64::from_le_bytes(array(&bytes[COUNTER])),
            signature: array(&bytes[SIGNATURE]),
        };
        promise.check()?;
        VerifyingKey::from_bytes(&promise.cert.device.0)
            .and_then(|device| device.verify_strict(&signed_bytes(bytes), &Signature::from_bytes(&promise.signature)))
            .map_err(|_| PromiseError::Signature)?;
        Ok(promise)
    }

    fn check(&self) -> Result<(), PromiseError> {
        if self.cert.powers & POWERS != POWERS {
            return Err(PromiseError::Powerless);
        }
        if !(1..=EPOCH_COUNTER_MAX).contains(&self.counter) {
            return Err(malformed(format!("no epoch has the counter {}", self.counter)));
        }
        Ok(())
    }
}

fn decode_cert(len: usize, area: &[u8]) -> Result<DeviceCert, PromiseError> {
    let (encoded, padding) = area
        .split_at_checked(len)
        .ok_or_else(|| malformed(format!("a certificate of {len} bytes")))?;
    // A certificate has one encoding; with its padding free, a promise would have many.
    if padding.iter().any(|&byte| byte != 0) {
        return Err(malformed("the certificate is padded with something"));
    }
    Ok(DeviceCert::decode(encoded)?)
}

fn signed_bytes(encoded: &[u8]) -> Vec<u8> {
    [SIGNATURE_DOMAIN, &encoded[..SIGNATURE.start]].concat()
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the ranges of the layout have these lengths")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::assert_golden;
    use crate::id::DeviceId;

    fn device() -> SigningKey {
        SigningKey::from_bytes(&[2; 32])
    }

    fn cert(powers: u8) -> DeviceCert {
        let id = DeviceId(device().verifying_key().to_bytes());
        DeviceCert::sign(&SigningKey::from_bytes(&[1; 32]), id, powers, "laptop", 1_770_000_000)
    }

    fn promise(counter: u64) -> Promise {
        Promise::sign(&device(), &cert(power::ALL), VolumeId([3; 16]), counter).unwrap()
    }

    /// With fields that `sign` would refuse, correctly signed.
    fn signed_anew(mut promise: Promise) -> Vec<u8> {
        promise.signature = device().sign(&signed_bytes(&promise.encode())).to_bytes();
        promise.encode()
    }

    /// The bytes were made by `proto/golden/promise/v1.py`, which shares no code with the crate.
    #[test]
    fn version_1_is_written_and_read_as_ever() {
        let promise = promise(0x0102_0304_0506_0708);
        let golden = assert_golden("promise/v1-laptop.bin", &promise.encode());
        assert_eq!(Promise::decode(&golden), Ok(promise));
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_an_error() {
        let good = promise(7).encode();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Promise::decode(&bytes).is_err(), "{bit}");
        }
        for len in 0..good.len() {
            assert!(Promise::decode(&good[..len]).is_err(), "{len}");
        }
        assert!(Promise::decode(&[good.as_slice(), &[0]].concat()).is_err());
        let mut newer = good;
        newer[8] = 2;
        assert_eq!(Promise::decode(&newer), Err(PromiseError::Version { version: 2 }));
    }

    #[test]
    fn a_device_that_may_not_put_and_read_claims_nothing() {
        for (powers, may) in [
            (power::ALL, true),
            (power::PUT | power::READ, true),
            (power::PUT_ONLY, false),
            (power::READ, false),
            (power::ALL & !power::READ, false),
        ] {
            let signed = Promise::sign(&device(), &cert(powers), VolumeId([3; 16]), 7);
            assert_eq!(signed.is_ok(), may, "{powers}");
            let forced = signed_anew(Promise {
                cert: cert(powers),
                ..promise(7)
            });
            let expected = if may { None } else { Some(PromiseError::Powerless) };
            assert_eq!(Promise::decode(&forced).err(), expected, "{powers}");
        }
    }

    #[test]
    fn a_counter_that_no_epoch_has_is_refused() {
        for (counter, is_one) in [
            (0, false),
            (1, true),
            (EPOCH_COUNTER_MAX, true),
            (EPOCH_COUNTER_MAX + 1, false),
        ] {
            let signed = Promise::sign(&device(), &cert(power::ALL), VolumeId([3; 16]), counter);
            assert_eq!(signed.is_ok(), is_one, "{counter}");
            let forced = signed_anew(Promise { counter, ..promise(7) });
            assert_eq!(Promise::decode(&forced).is_ok(), is_one, "{counter}");
        }
    }

    #[test]
    fn nobody_claims_in_the_name_of_another_device() {
        let other = SigningKey::from_bytes(&[9; 32]);
        let signed = Promise::sign(&other, &cert(power::ALL), VolumeId([3; 16]), 7);
        assert_eq!(signed, Err(PromiseError::AnotherDevice));
        let mut forged = promise(7);
        forged.signature = other.sign(&signed_bytes(&forged.encode())).to_bytes();
        assert_eq!(Promise::decode(&forged.encode()), Err(PromiseError::Signature));
    }

    #[test]
    fn a_claim_is_judged_by_its_signer_s_own_epoch() {
        assert_eq!(promise(7).epoch().device, cert(power::ALL).device);
        assert_eq!(promise(7).verdict(None), Verdict::Raise);
        assert_eq!(promise(8).verdict(Some(&promise(7))), Verdict::Raise);
        assert_eq!(promise(7).verdict(Some(&promise(7))), Verdict::Confirm);
        assert_eq!(promise(7).verdict(Some(&promise(8))), Verdict::Refuse);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), PROMISE_BYTES), len in any::<u16>()) {
            prop_assert!(Promise::decode(&bytes).is_err());
            bytes[..8].copy_from_slice(MAGIC);
            bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
            bytes[CERT_LEN].copy_from_slice(&len.to_le_bytes());
            prop_assert!(Promise::decode(&bytes).is_err());
        }
    }
}
