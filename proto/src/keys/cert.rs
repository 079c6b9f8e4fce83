//! Device certificates: the account's word that a device is its own, and what it may do (docs/format/keys.md §4).

use ed25519_dalek::SigningKey;
use minicbor::{Decode, Encode};

use crate::id::{AccountId, DeviceId};
use crate::signed;

/// The version written, and the only one read.
const VERSION: u16 = 1;
/// What a certificate's signature is for.
const DOMAIN: &str = "gridbackup 2026 device cert";
/// Longest encoding: what a [head](crate::head) has room for (docs/format/head.md §1).
pub const CERT_BYTES_MAX: usize = 256;
/// Longest name.
pub const CERT_NAME_BYTES_MAX: usize = 64;

/// What a device may do, as bits of `DeviceCert::powers`. Each stands for itself.
pub mod power {
    /// Put shares and heads.
    pub const PUT: u8 = 1;
    /// Fetch shares, audit and repair.
    pub const REPAIR: u8 = 2;
    /// Read: the device holds the secret for it.
    pub const READ: u8 = 4;
    /// Give shares up and take them back: forget and prune.
    pub const GIVE_UP: u8 = 8;
    /// Speak for the account in a grid: accept, admit members, say that one is removed.
    pub const ADMIT: u8 = 16;
    /// All of them.
    pub const ALL: u8 = 31;
    /// What a machine gets that shall save what it cannot read.
    pub const PUT_ONLY: u8 = PUT | REPAIR;
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
    /// Seconds since 1970. The account's word may say that none issued before a time counts.
    pub issued_secs: u64,
    /// ed25519 by the account over the encoding without this field.
    pub signature: [u8; 64],
}

/// The signed part as it is encoded: docs/format/keys.md §4.
#[derive(Encode, Decode)]
struct Body {
    #[n(0)]
    version: u16,
    #[n(1)]
    account: AccountId,
    #[n(2)]
    device: DeviceId,
    #[n(3)]
    powers: u8,
    #[n(4)]
    name: String,
    #[n(5)]
    issued_secs: u64,
}

impl DeviceCert {
    /// Certifies a device. `account` is the key of the words, which no device keeps. Of the name, control characters and what
    /// is longer than 64 bytes are dropped.
    ///
    /// # Panics
    /// If `powers` has none of the bits of [`power`].
    pub fn sign(account: &SigningKey, device: DeviceId, powers: u8, name: &str, issued_secs: u64) -> Self {
        let powers = powers & power::ALL;
        assert!(powers != 0, "a certificate without any power");
        let account_id = AccountId(account.verifying_key().to_bytes());
        let name = clean_name(name);
        let mut cert = Self {
            account: account_id,
            device,
            powers,
            name,
            issued_secs,
            signature: [0; 64],
        };
        cert.signature = signed::sign(account, DOMAIN, &cert.body());
        cert
    }

    /// The stored bytes, at most 256.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.body();
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    /// Decodes and checks the signature.
    pub fn decode(bytes: &[u8]) -> Result<Self, CertError> {
        if bytes.len() > CERT_BYTES_MAX {
            return Err(malformed("It is too long"));
        }
        let (body, signature) = signed::split(bytes).ok_or_else(|| malformed("It is too short"))?;
        let version = signed::version(body).map_err(malformed)?;
        if version != VERSION {
            return Err(CertError::Version { version });
        }
        let cert = Self::from_body(signed::decode_canonical(body).map_err(malformed)?, signature)?;
        match signed::verify(&cert.account.0, DOMAIN, body, &signature) {
            true => Ok(cert),
            false => Err(CertError::Signature),
        }
    }

    fn body(&self) -> Vec<u8> {
        signed::encode(&Body {
            version: VERSION,
            account: self.account,
            device: self.device,
            powers: self.powers,
            name: self.name.clone(),
            issued_secs: self.issued_secs,
        })
    }

    fn from_body(body: Body, signature: [u8; 64]) -> Result<Self, CertError> {
        let Body {
            account,
            device,
            powers,
            name,
            issued_secs,
            ..
        } = body;
        if powers == 0 || powers & !power::ALL != 0 {
            return Err(malformed(format!("Powers {powers:#06b} are not known")));
        }
        if clean_name(&name) != name {
            return Err(malformed("Its name is too long or has control characters"));
        }
        Ok(Self {
            account,
            device,
            powers,
            name,
            issued_secs,
            signature,
        })
    }
}

/// `name` without control characters, cut at the last whole character within the limit.
fn clean_name(name: &str) -> String {
    let mut name: String = name.chars().filter(|c| !c.is_control()).collect();
    name.truncate(name.floor_char_boundary(CERT_NAME_BYTES_MAX));
    name
}

fn malformed(reason: impl Into<String>) -> CertError {
    CertError::Malformed { reason: reason.into() }
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
    /// Written by a newer gridbackup.
    #[error("Device certificate version {version} is not known to this gridbackup")]
    Version {
        /// The version found.
        version: u16,
    },
    /// The signature does not hold.
    #[error("The device certificate's signature is wrong")]
    Signature,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{assert_golden, pattern_array};
    use proptest::prelude::{any, proptest};

    fn account() -> SigningKey {
        SigningKey::from_bytes(&pattern_array("account"))
    }

    fn cert(powers: u8, name: &str) -> DeviceCert {
        DeviceCert::sign(
            &account(),
            DeviceId(pattern_array("device")),
            powers,
            name,
            1_770_000_000,
        )
    }

    /// A body that says what it should not, correctly signed.
    fn signed_body(change: impl FnOnce(&mut Body)) -> Vec<u8> {
        let mut body = minicbor::decode(&cert(power::ALL, "laptop").body()).unwrap();
        change(&mut body);
        let mut bytes = signed::encode(&body);
        bytes.extend_from_slice(&signed::sign(&account(), DOMAIN, &bytes.clone()));
        bytes
    }

    #[test]
    fn a_certificate_comes_back_and_the_longest_one_fits() {
        let longest = DeviceCert {
            issued_secs: u64::MAX,
            ..cert(power::ALL, &"ü".repeat(40))
        };
        assert_eq!(longest.name.len(), 64);
        assert_eq!(longest.encode().len(), 211);
        let cert = cert(power::PUT, "laptop");
        assert_eq!(DeviceCert::decode(&cert.encode()), Ok(cert));
    }

    #[test]
    fn version_1_is_written_and_read_as_ever() {
        let cert = cert(power::ALL, "laptop");
        let golden = assert_golden("cert/v1-all-powers.bin", &cert.encode());
        assert_eq!(DeviceCert::decode(&golden), Ok(cert));
    }

    #[test]
    fn every_flipped_bit_is_an_error_of_the_right_kind() {
        let good = cert(power::ALL, "laptop").encode();
        let body_bytes = good.len() - signed::SIGNATURE_BYTES;
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = DeviceCert::decode(&bytes).unwrap_err();
            match bit / 8 {
                1 => assert!(!matches!(error, CertError::Signature), "{bit}: {error}"),
                at if at >= body_bytes => assert_eq!(error, CertError::Signature, "{bit}"),
                _ => {}
            }
        }
        for len in 0..good.len() {
            assert!(DeviceCert::decode(&good[..len]).is_err(), "{len}");
        }
        assert!(DeviceCert::decode(&[good.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn limits_hold_even_if_the_signature_does() {
        assert!(DeviceCert::decode(&signed_body(|_| {})).is_ok());
        let refused: [fn(&mut Body); 5] = [
            |body| body.powers = 0,
            |body| body.powers = 32,
            |body| body.name = "x".repeat(65),
            |body| body.name = "x".repeat(300),
            |body| body.name = "lap\ntop".to_owned(),
        ];
        for (number, change) in refused.into_iter().enumerate() {
            let error = DeviceCert::decode(&signed_body(change)).unwrap_err();
            assert!(matches!(error, CertError::Malformed { .. }), "{number}: {error}");
        }
        let newer = signed_body(|body| body.version = 2);
        assert_eq!(DeviceCert::decode(&newer), Err(CertError::Version { version: 2 }));
    }

    #[test]
    fn a_certificate_of_another_account_does_not_pass_for_ours() {
        let other = signed_body(|body| body.account = AccountId(pattern_array("other")));
        assert_eq!(DeviceCert::decode(&other), Err(CertError::Signature));
    }

    #[test]
    fn no_power_includes_another() {
        let bits = [power::PUT, power::REPAIR, power::READ, power::GIVE_UP, power::ADMIT];
        assert_eq!(bits.map(|bit| cert(bit, "").powers), bits);
        assert_eq!(bits.iter().fold(0, |all, bit| all | bit), power::ALL);
    }

    proptest! {
        #[test]
        fn any_name_makes_a_certificate_that_decodes(name in any::<String>(), secs: u64, powers in 1..32_u8) {
            let cert = DeviceCert::sign(&account(), DeviceId([3; 32]), powers, &name, secs);
            let bytes = cert.encode();
            assert!(bytes.len() <= CERT_BYTES_MAX);
            assert_eq!(DeviceCert::decode(&bytes), Ok(cert));
        }

        #[test]
        fn arbitrary_bytes_are_an_error_not_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            assert!(DeviceCert::decode(&bytes).is_err());
        }
    }
}
