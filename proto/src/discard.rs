//! A discard: an owner's signed, numbered order to one holder to move shares to its trash (docs/format/discard.md).
//!
//! It is the only way in which a holder gives anything up. What the trash does with them, and for how long, is the holder's.

use ed25519_dalek::SigningKey;
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use crate::id::{AccountId, DeviceId, ShareId};
use crate::keys::{CertError, DeviceCert, power};
use crate::signed;
use crate::wire::frame::IDS_MAX;

/// The version written, and the only one read.
const VERSION: u16 = 1;
/// What a discard's signature is for.
const DOMAIN: &str = "gridbackup 2026 discard";
/// Longest encoding: the longest certificate, 64 bytes of signature, and the rest.
pub const DISCARD_BYTES_MAX: usize = 512;
/// The holder named by a discard for a folder or bucket, which has no key of its own.
pub const NO_HOLDER: DeviceId = DeviceId([0; DeviceId::LEN]);

/// What only the caller knows of a discard that it signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Order {
    /// The holder's device, or [`NO_HOLDER`].
    pub holder: DeviceId,
    /// One more than the number of the last discard that this holder took of the account.
    pub number: u64,
    /// BLAKE3 of that discard's encoding; zero for the first.
    pub previous: [u8; 32],
    /// Seconds since 1970 by the owner's clock: for people.
    pub issued_secs: u64,
}

/// A signed discard, without the ids that it is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Discard {
    /// Who signs, and for whom. Has the power to give up.
    pub cert: DeviceCert,
    /// To whom, and when.
    pub order: Order,
    /// How many shares.
    pub count: u32,
    /// BLAKE3 of their ids, ascending, one after the other.
    pub ids_hash: [u8; 32],
    /// ed25519 by the device of `cert`.
    pub signature: [u8; 64],
}

/// A discard with the ids that it is about, as a holder keeps it beside what it moved to its trash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// The order.
    pub discard: Discard,
    /// Ascending.
    pub ids: Vec<ShareId>,
}

/// Bytes that are no valid discard, or ids that are not those it is about.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum DiscardError {
    /// Not the encoding.
    #[error("Not a discard: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer gridbackup.
    #[error("Discard version {version} is not known to this gridbackup")]
    Version {
        /// The version found.
        version: u16,
    },
    /// The certificate is not valid.
    #[error("The discard's certificate is not valid: {0}")]
    Cert(#[from] CertError),
    /// The device may not prune.
    #[error("The device that signed the discard may not prune")]
    Powerless,
    /// The signature does not hold.
    #[error("The discard's signature is wrong")]
    Signature,
    /// The ids are not ascending, too many, or not those that were signed.
    #[error("The ids are not those of the discard: {reason}")]
    Ids {
        /// What is wrong.
        reason: &'static str,
    },
}

/// The signed part as it is encoded.
#[derive(Encode, Decode)]
struct Body {
    #[n(0)]
    version: u16,
    #[n(1)]
    cert: ByteVec,
    #[n(2)]
    holder: DeviceId,
    #[n(3)]
    number: u64,
    #[n(4)]
    previous: ByteArray<32>,
    #[n(5)]
    count: u32,
    #[n(6)]
    ids_hash: ByteArray<32>,
    #[n(7)]
    issued_secs: u64,
}

impl Evidence {
    /// Reads a discard and its ids; checks all but who signed and to whom.
    pub fn read(discard: &[u8], ids: &[u8]) -> Result<Self, DiscardError> {
        let discard = Discard::decode(discard)?;
        let ids = discard.ids(ids)?;
        Ok(Self { discard, ids })
    }

    /// Whether this shows that `holder` was told by a device of `account` to give the share up.
    pub fn shows(&self, id: ShareId, account: AccountId, holder: DeviceId) -> bool {
        self.discard.account() == account && self.discard.order.holder == holder && self.ids.binary_search(&id).is_ok()
    }
}

impl Discard {
    /// Signs the order to move `ids` to the trash. An error if `cert` is not the certificate of `device` or may not prune,
    /// or the ids are none, too many or not ascending.
    pub fn sign(device: &SigningKey, cert: &DeviceCert, order: Order, ids: &[ShareId]) -> Result<Self, DiscardError> {
        if device.verifying_key().to_bytes() != cert.device.0 {
            return Err(malformed("the certificate is another device's"));
        }
        if !may_give_up(cert) {
            return Err(DiscardError::Powerless);
        }
        check_order(ids)?;
        let mut discard = Self {
            cert: cert.clone(),
            order,
            count: ids.len() as u32,
            ids_hash: hash_ids(ids),
            signature: [0; 64],
        };
        discard.signature = signed::sign(device, DOMAIN, &discard.body());
        Ok(discard)
    }

    /// The account that gives the shares up.
    pub fn account(&self) -> AccountId {
        self.cert.account
    }

    /// The stored bytes, at most [`DISCARD_BYTES_MAX`].
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.body();
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    /// What the next discard names as the one before.
    pub fn hash(&self) -> [u8; 32] {
        blake3::hash(&self.encode()).into()
    }

    /// Decodes and checks certificate, power and signature.
    pub fn decode(bytes: &[u8]) -> Result<Self, DiscardError> {
        if bytes.len() > DISCARD_BYTES_MAX {
            return Err(malformed("It is too long"));
        }
        let (body, signature) = signed::split(bytes).ok_or_else(|| malformed("It is too short"))?;
        let version = signed::version(body).map_err(malformed)?;
        if version != VERSION {
            return Err(DiscardError::Version { version });
        }
        let fields: Body = signed::decode_canonical(body).map_err(malformed)?;
        let cert = DeviceCert::decode(&fields.cert)?;
        if !may_give_up(&cert) {
            return Err(DiscardError::Powerless);
        }
        if !(1..=IDS_MAX).contains(&fields.count) {
            return Err(malformed(format!("It is about {} shares", fields.count)));
        }
        if !signed::verify(&cert.device.0, DOMAIN, body, &signature) {
            return Err(DiscardError::Signature);
        }
        Ok(Self {
            cert,
            order: Order {
                holder: fields.holder,
                number: fields.number,
                previous: *fields.previous,
                issued_secs: fields.issued_secs,
            },
            count: fields.count,
            ids_hash: *fields.ids_hash,
            signature,
        })
    }

    /// The ids in `payload`, if they are exactly those that the discard is about.
    pub fn ids(&self, payload: &[u8]) -> Result<Vec<ShareId>, DiscardError> {
        let ids = read_ids(payload)?;
        if ids.len() != self.count as usize || hash_ids(&ids) != self.ids_hash {
            return Err(DiscardError::Ids {
                reason: "others were signed",
            });
        }
        Ok(ids)
    }

    fn body(&self) -> Vec<u8> {
        signed::encode(&Body {
            version: VERSION,
            cert: self.cert.encode().into(),
            holder: self.order.holder,
            number: self.order.number,
            previous: self.order.previous.into(),
            count: self.count,
            ids_hash: self.ids_hash.into(),
            issued_secs: self.order.issued_secs,
        })
    }
}

/// The ids in a payload: whole, ascending, and no more than a payload holds.
pub fn read_ids(payload: &[u8]) -> Result<Vec<ShareId>, DiscardError> {
    let (ids, rest) = payload.as_chunks::<{ ShareId::LEN }>();
    if !rest.is_empty() {
        return Err(DiscardError::Ids {
            reason: "the last one is cut off",
        });
    }
    let ids: Vec<ShareId> = ids.iter().map(|id| ShareId(*id)).collect();
    check_order(&ids).map(|()| ids)
}

/// Ids as a payload.
pub fn write_ids(ids: &[ShareId]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.0).collect()
}

fn check_order(ids: &[ShareId]) -> Result<(), DiscardError> {
    if ids.is_empty() || ids.len() > IDS_MAX as usize {
        return Err(DiscardError::Ids {
            reason: "none, or too many",
        });
    }
    match ids.is_sorted_by(|a, b| a < b) {
        true => Ok(()),
        false => Err(DiscardError::Ids {
            reason: "they are not ascending",
        }),
    }
}

fn hash_ids(ids: &[ShareId]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for id in ids {
        hasher.update(&id.0);
    }
    hasher.finalize().into()
}

fn may_give_up(cert: &DeviceCert) -> bool {
    cert.powers & power::GIVE_UP != 0
}

fn malformed(reason: impl Into<String>) -> DiscardError {
    DiscardError::Malformed { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn account() -> SigningKey {
        SigningKey::from_bytes(&[5; 32])
    }

    fn device() -> SigningKey {
        SigningKey::from_bytes(&[4; 32])
    }

    fn cert(powers: u8) -> DeviceCert {
        let device = DeviceId(device().verifying_key().to_bytes());
        DeviceCert::sign(&account(), device, powers, "laptop", 1_800_000_000)
    }

    fn ids(count: u8) -> Vec<ShareId> {
        (0..count).map(|number| ShareId([number; 32])).collect()
    }

    fn discard(ids: &[ShareId]) -> Discard {
        let order = Order {
            holder: DeviceId([7; 32]),
            number: 3,
            previous: [9; 32],
            issued_secs: 1_800_000_000,
        };
        Discard::sign(&device(), &cert(power::ALL), order, ids).unwrap()
    }

    #[test]
    fn a_discard_of_version_1_does_not_change() {
        let golden = include_bytes!("../golden/discard/v1-three-shares.bin");
        assert_eq!(
            data_encoding::HEXLOWER.encode(&discard(&ids(3)).encode()),
            data_encoding::HEXLOWER.encode(golden)
        );
        assert_eq!(Discard::decode(golden), Ok(discard(&ids(3))));
    }

    #[test]
    fn a_device_that_may_not_prune_signs_nothing_that_holds() {
        let mut discard = discard(&ids(1));
        discard.cert = cert(power::READ);
        discard.signature = signed::sign(&device(), DOMAIN, &discard.body());
        assert_eq!(Discard::decode(&discard.encode()), Err(DiscardError::Powerless));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let encoded = discard(&ids(3)).encode();
        for bit in 0..encoded.len() * 8 {
            let mut flipped = encoded.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Discard::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn evidence_is_about_its_ids_its_account_and_its_holder() {
        let discard = discard(&ids(3));
        let evidence = Evidence::read(&discard.encode(), &write_ids(&ids(3))).unwrap();
        let own = discard.account();
        let shows = |id, account, holder| evidence.shows(ShareId([id; 32]), account, DeviceId([holder; 32]));
        assert!(shows(2, own, 7));
        assert!(!shows(3, own, 7) && !shows(2, AccountId([1; 32]), 7) && !shows(2, own, 8));
        assert!(Evidence::read(&discard.encode(), &write_ids(&ids(2))).is_err());
    }

    #[test]
    fn only_the_ids_that_were_signed_are_taken() {
        let discard = discard(&ids(3));
        assert_eq!(discard.ids(&write_ids(&ids(3))), Ok(ids(3)));
        let swapped = [ids(3)[1], ids(3)[0], ids(3)[2]];
        for wrong in [&ids(2)[..], &ids(4)[..], &swapped, &[]] {
            assert!(discard.ids(&write_ids(wrong)).is_err());
        }
        assert!(discard.ids(&write_ids(&ids(3))[1..]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _ = Discard::decode(&bytes);
            let _ = read_ids(&bytes);
        }

        #[test]
        fn what_was_signed_is_read_back(count in 1u8..60, number: u64, previous: [u8; 32], issued_secs in any::<u64>()) {
            let order = Order { holder: NO_HOLDER, number, previous, issued_secs };
            let discard = Discard::sign(&device(), &cert(power::GIVE_UP), order, &ids(count)).unwrap();
            let encoded = discard.encode();
            assert!(encoded.len() <= DISCARD_BYTES_MAX);
            assert_eq!(Discard::decode(&encoded), Ok(discard));
        }
    }
}
