//! A pack's public manifest: enough to audit and rebuild its shares, nothing to read them (docs/format/manifest.md).

use minicbor::{Decode, Encode};

use crate::erasure::SHARES_MAX;
use crate::id::{AccountId, DeviceId, PackId, ShareId};
use crate::keep_days::KeepDays;
use crate::shape::PackShape;
use crate::shape::{MANIFEST_AREA_BYTES, ShareSize};
use crate::signed;

/// The version written, and the only one read.
const VERSION: u16 = 1;
/// What a manifest's signature is for.
const DOMAIN: &str = "gridbackup 2026 manifest";

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
    /// How long holders keep its shares after they were given up.
    pub keep_days: KeepDays,
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

/// The signed part as it is encoded: docs/format/manifest.md §2.
#[derive(Encode, Decode)]
struct Body {
    #[n(0)]
    version: u16,
    #[n(1)]
    pack: PackId,
    #[n(2)]
    k: u8,
    #[n(3)]
    n: u8,
    #[n(4)]
    share_bytes: u32,
    #[n(5)]
    shares: Vec<ShareId>,
    #[n(6)]
    account: AccountId,
    #[n(7)]
    device: DeviceId,
    /// Left out, and the array one shorter, where it is none.
    #[n(8)]
    keep_days: Option<u8>,
}

impl Manifest {
    /// Signs a manifest of shares that are kept for [`KeepDays::MOST`] after they were given up, as those of backups are.
    ///
    /// # Panics
    /// If the shape is not valid or `shares` are not `shape.n`.
    pub fn sign(
        pack: PackId,
        shape: PackShape,
        shares: Vec<ShareId>,
        account: AccountId,
        device: &ed25519_dalek::SigningKey,
    ) -> Self {
        Self::sign_keeping(KeepDays::MOST, pack, shape, shares, account, device)
    }

    /// As `sign`, of shares that are kept for other days.
    ///
    /// # Panics
    /// As `sign` does.
    pub fn sign_keeping(
        keep_days: KeepDays,
        pack: PackId,
        shape: PackShape,
        shares: Vec<ShareId>,
        account: AccountId,
        device: &ed25519_dalek::SigningKey,
    ) -> Self {
        assert!(
            shape.is_valid() && shares.len() == usize::from(shape.n),
            "a manifest of a shape that no pack has"
        );
        let device_id = DeviceId(device.verifying_key().to_bytes());
        let mut manifest = Self {
            pack,
            shape,
            shares,
            account,
            device: device_id,
            keep_days,
            signature: [0; 64],
        };
        manifest.signature = signed::sign(device, DOMAIN, &manifest.body());
        manifest
    }

    /// The stored bytes, at most `shape::MANIFEST_AREA_BYTES`.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.body();
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    /// Decodes and checks limits and signature.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_AREA_BYTES {
            return Err(malformed("It is too long"));
        }
        let (body, signature) = signed::split(bytes).ok_or_else(|| malformed("It is too short"))?;
        let version = signed::version(body).map_err(malformed)?;
        if version != VERSION {
            return Err(ManifestError::Version { version });
        }
        let manifest = Self::from_body(signed::decode_canonical(body).map_err(malformed)?, signature)?;
        match signed::verify(&manifest.device.0, DOMAIN, body, &signature) {
            true => Ok(manifest),
            false => Err(ManifestError::Signature),
        }
    }

    fn body(&self) -> Vec<u8> {
        signed::encode(&Body {
            version: VERSION,
            pack: self.pack,
            k: self.shape.k,
            n: self.shape.n,
            share_bytes: self.shape.share.data_bytes() as u32,
            shares: self.shares.clone(),
            account: self.account,
            device: self.device,
            keep_days: self.keep_days.field(),
        })
    }

    fn from_body(body: Body, signature: [u8; 64]) -> Result<Self, ManifestError> {
        let share = usize::try_from(body.share_bytes)
            .ok()
            .and_then(ShareSize::from_data_bytes)
            .ok_or_else(|| malformed(format!("No share has {} bytes", body.share_bytes)))?;
        let shape = PackShape {
            k: body.k,
            n: body.n,
            share,
        };
        if !shape.is_valid() {
            return Err(malformed(format!(
                "{} of {} is not within 1 ≤ k ≤ n ≤ {SHARES_MAX}",
                body.k, body.n
            )));
        }
        if body.shares.len() != usize::from(shape.n) {
            return Err(malformed(format!(
                "It names {} shares instead of {}",
                body.shares.len(),
                shape.n
            )));
        }
        let keep_days = KeepDays::from_field(body.keep_days).ok_or_else(|| {
            malformed(format!(
                "Its shares are kept for {} days",
                body.keep_days.unwrap_or_default()
            ))
        })?;
        Ok(Self {
            pack: body.pack,
            shape,
            shares: body.shares,
            account: body.account,
            device: body.device,
            keep_days,
            signature,
        })
    }
}

fn malformed(reason: impl Into<String>) -> ManifestError {
    ManifestError::Malformed { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{assert_golden, keeping, manifest};

    fn shape(k: u8, n: u8) -> PackShape {
        PackShape {
            k,
            n,
            share: ShareSize::Small,
        }
    }

    /// A manifest whose body says what it should not, correctly signed: limits must hold for members too.
    fn signed_body(change: impl FnOnce(&mut Body)) -> Vec<u8> {
        let good = manifest(shape(2, 3), &[]);
        let key = ed25519_dalek::SigningKey::from_bytes(&crate::fixtures::pattern_array("device"));
        let mut body = minicbor::decode(&good.body()).unwrap();
        change(&mut body);
        let mut bytes = signed::encode(&body);
        bytes.extend_from_slice(&signed::sign(&key, DOMAIN, &bytes.clone()));
        bytes
    }

    #[test]
    fn a_manifest_of_most_shares_fits_into_its_area() {
        let largest = manifest(
            PackShape {
                k: 31,
                n: SHARES_MAX,
                share: ShareSize::Large,
            },
            &[],
        );
        let bytes = largest.encode();
        assert_eq!(bytes.len(), 1_267);
        assert!(bytes.len() <= MANIFEST_AREA_BYTES);
        assert_eq!(Manifest::decode(&bytes), Ok(largest));
    }

    #[test]
    fn version_1_is_written_and_read_as_ever() {
        let written = manifest(shape(2, 3), &[]);
        let golden = assert_golden("manifest/v1-2-of-3.bin", &written.encode());
        assert_eq!(Manifest::decode(&golden), Ok(written));
    }

    #[test]
    fn keep_days_are_a_field_behind_the_others() {
        let mut written = manifest(shape(2, 3), &[]);
        let without = written.body();
        let key = ed25519_dalek::SigningKey::from_bytes(&crate::fixtures::pattern_array("device"));
        for days in 0..30 {
            written.keep_days = KeepDays::new(days).unwrap();
            written.signature = signed::sign(&key, DOMAIN, &written.body());
            assert_eq!(Manifest::decode(&written.encode()), Ok(written.clone()));
            // One field more in the array's head, and the number behind the rest.
            assert_eq!(
                (without[0] + 1, &without[1..]),
                (written.body()[0], &written.body()[1..without.len()])
            );
        }
        written.keep_days = KeepDays::MOST;
        assert_eq!(written.body(), without);
        assert!([31, 32, u8::MAX].into_iter().all(|days| KeepDays::new(days).is_none()));
    }

    /// Made by `golden/tiny.py`, which shares nothing with this crate.
    #[test]
    fn a_manifest_with_keep_days_is_written_as_ever() {
        let written = keeping(2, shape(2, 3), &[]);
        let golden = assert_golden("manifest/v1-2-of-3-keep-2.bin", &written.encode());
        let read = Manifest::decode(&golden);
        assert_eq!(read.as_ref().map(|manifest| manifest.keep_days.days()), Ok(2));
        assert_eq!(read, Ok(written));
    }

    /// Who changes the days has to sign anew: a longer or shorter time under the old signature is refused.
    #[test]
    fn keep_days_are_signed() {
        for (signed, claimed) in [(2, 0), (2, 30), (30, 0), (0, 1)] {
            let mut changed = keeping(signed, shape(2, 3), &[]);
            changed.keep_days = KeepDays::new(claimed).unwrap();
            assert_eq!(Manifest::decode(&changed.encode()), Err(ManifestError::Signature));
        }
    }

    #[test]
    fn every_shape_comes_back() {
        for n in 1..=SHARES_MAX {
            for k in [1, n.div_ceil(2), n] {
                let written = manifest(shape(k, n), &[]);
                assert_eq!(Manifest::decode(&written.encode()), Ok(written));
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_an_error_of_the_right_kind() {
        let good = manifest(shape(2, 3), &[]).encode();
        let body_bytes = good.len() - signed::SIGNATURE_BYTES;
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = Manifest::decode(&bytes).unwrap_err();
            match bit / 8 {
                1 => assert!(!matches!(error, ManifestError::Signature), "{bit}: {error}"),
                at if at >= body_bytes => assert_eq!(error, ManifestError::Signature, "{bit}"),
                _ => {}
            }
        }
    }

    #[test]
    fn every_cut_and_every_appended_byte_is_an_error() {
        let good = manifest(shape(2, 3), &[]).encode();
        for len in 0..good.len() {
            assert!(Manifest::decode(&good[..len]).is_err(), "{len}");
        }
        assert!(Manifest::decode(&[good.as_slice(), &[0]].concat()).is_err());
        assert!(Manifest::decode(&vec![0; MANIFEST_AREA_BYTES + 1]).is_err());
    }

    #[test]
    fn limits_hold_even_if_the_signature_does() {
        assert!(Manifest::decode(&signed_body(|_| {})).is_ok());
        let refused: [fn(&mut Body); 10] = [
            |body| body.k = 0,
            |body| body.k = 4,
            |body| body.n = SHARES_MAX + 1,
            |body| body.share_bytes = 131_072,
            |body| body.keep_days = Some(31),
            |body| body.keep_days = Some(u8::MAX),
            // Said at length, what is meant by saying nothing.
            |body| body.keep_days = Some(30),
            |body| body.shares.truncate(2),
            |body| body.shares.push(body.shares[0]),
            |body| body.n = 4,
        ];
        for (number, change) in refused.into_iter().enumerate() {
            let error = Manifest::decode(&signed_body(change)).unwrap_err();
            assert!(matches!(error, ManifestError::Malformed { .. }), "{number}: {error}");
        }
        assert_eq!(
            Manifest::decode(&signed_body(|body| body.version = 2)),
            Err(ManifestError::Version { version: 2 })
        );
    }

    #[test]
    fn a_longer_encoding_of_the_same_is_refused() {
        let key = ed25519_dalek::SigningKey::from_bytes(&crate::fixtures::pattern_array("device"));
        let mut body = manifest(shape(2, 3), &[]).body();
        body.splice(1..2, [0x18, 0x01]);
        let signature = signed::sign(&key, DOMAIN, &body);
        let error = Manifest::decode(&[body.as_slice(), &signature].concat()).unwrap_err();
        assert!(matches!(error, ManifestError::Malformed { .. }), "{error}");
    }
}
