//! The head: a device's signed, numbered, constant-size pointer to its newest root (docs/format/head.md).

use std::ops::Range;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::cap_index::PackRecord;
use crate::id::{AccountId, DeviceId};
use crate::keys::{CertError, DeviceCert, PutKeys, ReadKey, WRAPPED_KEY_BYTES, power};
use crate::log_record::SnapshotRecord;
use crate::record;
use crate::section_kind::SectionKind;
use crate::shape::MANIFEST_AREA_BYTES;

/// Bytes of an encoded head, whatever is in it, so that its size tells nothing (docs/format/head.md).
pub const HEAD_BYTES: usize = 4096;

/// The greatest number of a head. Chosen: nobody comes there by counting, and catalogs can hold it and count on from it.
pub const SEQ_MAX: u64 = 1 << 62;

/// A head as peers keep it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The device's certificate: who signs, and for whom.
    pub cert: DeviceCert,
    /// Greater than that of any head of the device before.
    pub seq: u64,
    /// BLAKE3 of the encoded head before this one, as far as its signer knows it; else zero.
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
    /// The device's virtual disks, ascending by volume; `None` rather than an empty list.
    #[n(2)]
    pub disks: Option<Vec<DiskHead>>,
}

/// The newest commit of a virtual disk: nothing else makes it visible.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub struct DiskHead {
    /// Which disk.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub volume: [u8; 16],
    /// Which of its writers, one after the other: a higher one goes before.
    #[n(1)]
    pub epoch: u64,
    /// Of that writer the commit: the first of a disk is 1.
    #[n(2)]
    pub commit: u64,
    /// Where the root of the disk lies (docs/format/disk.md §4).
    #[n(3)]
    pub root: RootRef,
}

/// Where a root lies: its pack in full, since nothing else names it.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub struct RootRef {
    /// The metadata pack it is in.
    #[n(0)]
    pub pack: PackRecord,
    /// Offset in the pack's plaintext.
    #[n(1)]
    pub offset: u32,
    /// Bytes of the encoded section.
    #[n(2)]
    pub len: u32,
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
    /// What was to be written is over a limit of the format, or not this device's.
    #[error("No head can be written: {reason}")]
    Limit {
        /// Which.
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

impl HeadError {
    fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed { reason: reason.into() }
    }
}

const MAGIC: &[u8; 8] = b"GBHEAD\0\0";
const VERSION: u16 = 1;
const SIGNATURE_DOMAIN: &[u8] = b"gridbackup 2026 head signature";
/// Bytes of the area for the certificate, which is at most as long (docs/format/keys.md §4).
const CERT_BYTES_MAX: usize = 256;

// docs/format/head.md §1
const CERT_LEN: Range<usize> = 10..12;
const CERT: Range<usize> = 12..12 + CERT_BYTES_MAX;
const SEQ: Range<usize> = CERT.end..CERT.end + 8;
const PREVIOUS: Range<usize> = SEQ.end..SEQ.end + 32;
const SEALED: Range<usize> = PREVIOUS.end..SIGNATURE.start;
const SIGNATURE: Range<usize> = HEAD_BYTES - 64..HEAD_BYTES;

/// Bytes that sealing adds: an ephemeral public key and a tag.
const SEALING_BYTES: usize = 48;
/// Bytes of the body before it is sealed: its length, its CBOR, zeros.
const BODY_BYTES: usize = SEALED.end - SEALED.start - SEALING_BYTES;
/// Bytes for the length in front of the body.
const BODY_LEN_BYTES: usize = 2;

/// Bytes of the list of disks in a body, at most. Chosen: the root of a backup over `SHARES_MAX` shares and a snapshot without its paths
/// fit beside it, so that no disk ever keeps a backup from being posted. A disk takes 481 bytes at most over 5 shares, 651 over 10,
/// 991 over 20 (a test holds it): so four disks, three, two.
pub const DISKS_BYTES_MAX: usize = 2240;

// The longest manifest with its wrapped key fits, and 256 bytes are enough for the fields around it.
const _: () = assert!(MANIFEST_AREA_BYTES + WRAPPED_KEY_BYTES + 256 <= BODY_BYTES - BODY_LEN_BYTES);

impl Head {
    /// Seals and signs a head. `ephemeral` is 32 fresh random bytes. `HeadError::Limit` if `cert` is not the certificate of
    /// `device`, or `body` breaks the limits of its records.
    pub fn sign(
        device: &SigningKey,
        cert: &DeviceCert,
        seq: u64,
        previous: [u8; 32],
        body: &HeadBody,
        put: &PutKeys,
        ephemeral: [u8; 32],
    ) -> Result<Self, HeadError> {
        if device.verifying_key().to_bytes() != cert.device.0 {
            let reason = "the device's key is not the one that its certificate names".to_owned();
            return Err(HeadError::Limit { reason });
        }
        if seq > SEQ_MAX {
            let reason = format!("number {seq} is no head's");
            return Err(HeadError::Limit { reason });
        }
        let padded = body.to_padded().map_err(|reason| HeadError::Limit { reason })?;
        let sealed = put.seal_to_reader(&sealing_context(cert.device, seq), &padded, ephemeral);
        let mut head = Self {
            cert: cert.clone(),
            seq,
            previous,
            sealed,
            signature: [0; 64],
        };
        head.signature = device.sign(&signed_bytes(&head.encode())).to_bytes();
        Ok(head)
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
        let cert = self.cert.encode();
        let mut bytes = vec![0; HEAD_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[CERT_LEN].copy_from_slice(&(cert.len() as u16).to_le_bytes());
        bytes[CERT][..cert.len()].copy_from_slice(&cert);
        bytes[SEQ].copy_from_slice(&self.seq.to_le_bytes());
        bytes[PREVIOUS].copy_from_slice(&self.previous);
        bytes[SEALED].copy_from_slice(&self.sealed);
        bytes[SIGNATURE].copy_from_slice(&self.signature);
        bytes
    }

    /// Decodes; checks length, version, certificate and signature.
    // docs/format/head.md §2
    pub fn decode(bytes: &[u8]) -> Result<Self, HeadError> {
        if bytes.len() != HEAD_BYTES {
            return Err(HeadError::malformed(format!(
                "it has {} bytes instead of {HEAD_BYTES}",
                bytes.len()
            )));
        }
        if bytes[..8] != *MAGIC {
            return Err(HeadError::malformed("it does not begin with GBHEAD"));
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != VERSION {
            return Err(HeadError::Version { version });
        }
        let head = Self {
            cert: decode_cert(u16::from_le_bytes([bytes[10], bytes[11]]).into(), &bytes[CERT])?,
            seq: u64::from_le_bytes(array(&bytes[SEQ])),
            previous: array(&bytes[PREVIOUS]),
            sealed: bytes[SEALED].to_vec(),
            signature: array(&bytes[SIGNATURE]),
        };
        if head.seq > SEQ_MAX {
            return Err(HeadError::malformed(format!("its number is {}", head.seq)));
        }
        VerifyingKey::from_bytes(&head.cert.device.0)
            .and_then(|device| device.verify_strict(&signed_bytes(bytes), &Signature::from_bytes(&head.signature)))
            .map_err(|_| HeadError::Signature)?;
        Ok(head)
    }

    /// BLAKE3 of the encoding: the next head's `previous`.
    pub fn hash(&self) -> [u8; 32] {
        blake3::hash(&self.encode()).into()
    }

    /// Opens the body.
    pub fn open(&self, read: &ReadKey) -> Result<HeadBody, HeadError> {
        let padded = read
            .open(&sealing_context(self.device(), self.seq), &self.sealed)
            .ok_or(HeadError::Sealed)?;
        HeadBody::from_padded(&padded).map_err(|reason| HeadError::malformed(format!("its body: {reason}")))
    }
}

impl HeadBody {
    /// Length, CBOR, zeros: always `BODY_BYTES`. Leaves the snapshot's roots out if they would not fit.
    fn to_padded(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let mut short = self.clone();
        if record::to_cbor(self).len() > BODY_BYTES - BODY_LEN_BYTES {
            short
                .snapshot
                .iter_mut()
                .for_each(|snapshot| snapshot.source_roots.clear());
        }
        short.check()?;
        let body = record::to_cbor(&short);
        if body.len() > BODY_BYTES - BODY_LEN_BYTES {
            return Err(format!("a body of {} bytes", body.len()));
        }
        let mut padded = Zeroizing::new(vec![0; BODY_BYTES]);
        padded[..BODY_LEN_BYTES].copy_from_slice(&(body.len() as u16).to_le_bytes());
        padded[BODY_LEN_BYTES..][..body.len()].copy_from_slice(&body);
        Ok(padded)
    }

    fn from_padded(padded: &[u8]) -> Result<Self, String> {
        let (len, rest) = padded.split_first_chunk().ok_or("it is empty")?;
        let len = usize::from(u16::from_le_bytes(*len));
        let (body, padding) = rest.split_at_checked(len).ok_or("it is longer than its room")?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err("its padding is not zero".to_owned());
        }
        let (decoded, used) = record::first_from_cbor::<Self>(body)?;
        if used != len {
            return Err("it is longer than its record".to_owned());
        }
        decoded.check()?;
        Ok(decoded)
    }

    fn check(&self) -> Result<(), String> {
        self.root.iter().try_for_each(RootRef::check)?;
        self.snapshot.iter().try_for_each(SnapshotRecord::check)?;
        self.disks.as_deref().map_or(Ok(()), check_disks)
    }

    /// Bytes that the record of a snapshot can have and always be told with its paths, however its disks' commits grow.
    pub fn snapshot_room(&self) -> usize {
        let disks = self.disks.as_ref().map_or(0, |_| DISKS_BYTES_MAX);
        let root = record::to_cbor(&self.root).len();
        // The head of the array is a byte.
        (BODY_BYTES - BODY_LEN_BYTES).saturating_sub(1 + root + disks)
    }

    /// The newest commit of a disk.
    pub fn disk(&self, volume: [u8; 16]) -> Option<&DiskHead> {
        self.disks.iter().flatten().find(|disk| disk.volume == volume)
    }

    /// Takes the newest commit of a disk in, or the disk out. `HeadError::Limit` if that is older than what is there, or another one of the
    /// same number, or if there is no room for it.
    pub fn set_disk(&mut self, volume: [u8; 16], newest: Option<DiskHead>) -> Result<(), HeadError> {
        let limit = |reason: String| Err(HeadError::Limit { reason });
        let mut disks = self.disks.clone().unwrap_or_default();
        let at = disks.binary_search_by_key(&volume, |disk| disk.volume);
        match (at, newest) {
            (Ok(at), None) => drop(disks.remove(at)),
            (Err(_), None) => {}
            (_, Some(newest)) if newest.volume != volume => return limit("the commit is another disk's".to_owned()),
            (Ok(at), Some(newest)) if newest.number() < disks[at].number() => {
                let ((epoch, commit), (newer_epoch, newer)) = (newest.number(), disks[at].number());
                return limit(format!(
                    "commit {commit} of writer {epoch} of the disk is older than commit {newer} of writer {newer_epoch}"
                ));
            }
            (Ok(at), Some(newest)) if newest.number() == disks[at].number() && newest.root != disks[at].root => {
                let (epoch, commit) = newest.number();
                return limit(format!(
                    "there is another commit {commit} of writer {epoch} of the disk: a copy of this home has made it"
                ));
            }
            (Ok(at), Some(newest)) => disks[at] = newest,
            (Err(at), Some(newest)) => disks.insert(at, newest),
        }
        let disks = Some(disks).filter(|disks| !disks.is_empty());
        let is_growing = disks.as_ref().map_or(0, Vec::len) > self.disks.as_ref().map_or(0, Vec::len);
        if let Err(reason) = disks.as_deref().map_or(Ok(()), check_disks) {
            return limit(reason);
        }
        let changed = Self { disks, ..self.clone() };
        // Whoever has disks already tells of snapshots so that there is room.
        if is_growing && record::to_cbor(&changed).len() > BODY_BYTES - BODY_LEN_BYTES {
            return limit(
                "there is no room for another disk beside the paths of the newest snapshot; back up once more"
                    .to_owned(),
            );
        }
        *self = changed;
        Ok(())
    }
}

fn check_disks(disks: &[DiskHead]) -> Result<(), String> {
    if disks.is_empty() || !disks.is_sorted_by(|one, other| one.volume < other.volume) {
        return Err("its disks are not in order, or none".to_owned());
    }
    disks.iter().try_for_each(DiskHead::check)?;
    let bytes = record::to_cbor(&disks).len();
    match bytes <= DISKS_BYTES_MAX {
        true => Ok(()),
        false => Err(format!(
            "{} disks over so many shares take {bytes} bytes, and there is room for {DISKS_BYTES_MAX}; remove a disk",
            disks.len()
        )),
    }
}

impl DiskHead {
    /// What says which of two commits of a disk is the newer.
    pub fn number(&self) -> (u64, u64) {
        (self.epoch, self.commit)
    }

    fn check(&self) -> Result<(), String> {
        match self.commit {
            0 => Err("a disk's commit has the number 0".to_owned()),
            _ => self.root.check(),
        }
    }
}

impl RootRef {
    /// Whether all limits hold; else which does not.
    pub fn check(&self) -> Result<(), String> {
        self.pack.check()?;
        SectionKind::Root.check_span(self.offset, self.len)
    }
}

fn decode_cert(len: usize, area: &[u8]) -> Result<DeviceCert, HeadError> {
    let (encoded, padding) = area
        .split_at_checked(len)
        .ok_or_else(|| HeadError::malformed(format!("a certificate of {len} bytes")))?;
    let cert = DeviceCert::decode(encoded).map_err(|error| match error {
        CertError::Signature => HeadError::Signature,
        other => HeadError::malformed(other.to_string()),
    })?;
    // Two encodings of one certificate would give one head two hashes.
    if padding.iter().any(|&byte| byte != 0) || cert.encode() != encoded {
        return Err(HeadError::malformed("the certificate is padded with something"));
    }
    if cert.powers & power::PUT == 0 {
        return Err(HeadError::malformed("its device may not put"));
    }
    Ok(cert)
}

fn sealing_context(device: DeviceId, seq: u64) -> Vec<u8> {
    [&device.0[..], &seq.to_le_bytes()].concat()
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
    use crate::cap_index::PackRecord;
    use crate::erasure::SHARES_MAX;
    use crate::id::{PackId, ShareId, SnapshotId};
    use crate::keep_days::KeepDays;
    use crate::keys::{AccountKeys, words_key};
    use crate::log_record::PathBytes;
    use crate::manifest::Manifest;
    use crate::phrase::Seed;
    use crate::shape::{PackShape, ShareSize};

    fn keys() -> AccountKeys {
        AccountKeys::from_seed(&Seed([1; 32]))
    }

    fn sign(keys: &AccountKeys, powers: u8, body: &HeadBody) -> Head {
        let device = SigningKey::from_bytes(&[2; 32]);
        let device_id = DeviceId(device.verifying_key().to_bytes());
        let words = words_key(&Seed([1; 32]));
        let cert = DeviceCert::sign(&words, device_id, powers, "laptop", 1_700_000_000);
        Head::sign(&device, &cert, 5, [3; 32], body, &keys.put, [4; 32]).unwrap()
    }

    fn body(roots: Vec<PathBytes>) -> HeadBody {
        let pack = PackRecord {
            manifest: vec![5; MANIFEST_AREA_BYTES],
            wrapped_key: [6; WRAPPED_KEY_BYTES],
        };
        let snapshot = SnapshotRecord {
            seq: u64::MAX,
            id: SnapshotId([7; 16]),
            time_ns: i64::MIN,
            parent: Some(u64::MAX - 1),
            source_roots: roots,
            files: u64::MAX,
            bytes: u64::MAX,
        };
        HeadBody {
            root: Some(RootRef {
                pack,
                offset: 1 << 30,
                len: 1 << 20,
            }),
            snapshot: Some(snapshot),
            disks: None,
        }
    }

    #[test]
    fn the_reader_of_the_account_gets_the_body_back() {
        let keys = keys();
        for body in [
            HeadBody {
                root: None,
                snapshot: None,
                disks: None,
            },
            body(Vec::new()),
            body(vec![PathBytes(b"/home".to_vec())]),
        ] {
            let head = sign(&keys, power::PUT, &body);
            let encoded = head.encode();
            assert_eq!(encoded.len(), HEAD_BYTES);
            let decoded = Head::decode(&encoded).unwrap();
            assert_eq!(decoded, head);
            assert_eq!(decoded.open(keys.reader().unwrap()), Ok(body));
            assert_eq!(decoded.hash(), *blake3::hash(&encoded).as_bytes());
        }
    }

    #[test]
    fn roots_that_do_not_fit_are_left_out_and_all_else_stays() {
        let keys = keys();
        let long = body(vec![PathBytes([&b"/"[..], &[b'x'; 255]].concat()); 10]);
        let opened = sign(&keys, power::ALL, &long).open(keys.reader().unwrap());
        assert_eq!(opened, Ok(body(Vec::new())));
    }

    /// A thief's head with the last of all numbers could be kept by every friend, and written down by no catalog: nothing went on.
    #[test]
    fn a_number_that_no_catalog_holds_is_no_head_s() {
        let (keys, empty) = (
            keys(),
            HeadBody {
                root: None,
                snapshot: None,
                disks: None,
            },
        );
        let mut head = sign(&keys, power::ALL, &empty);
        let device = SigningKey::from_bytes(&[2; 32]);
        for (seq, is_valid) in [(SEQ_MAX, true), (SEQ_MAX + 1, false), (u64::MAX, false)] {
            head.seq = seq;
            head.signature = device.sign(&signed_bytes(&head.encode())).to_bytes();
            assert_eq!(Head::decode(&head.encode()).is_ok(), is_valid, "{seq}");
            let signed = Head::sign(&device, &head.cert, seq, [0; 32], &empty, &keys.put, [4; 32]);
            assert_eq!(signed.is_ok(), is_valid, "{seq}");
        }
    }

    /// A commit of a disk over n shares, whose numbers are the longest.
    fn disk(volume: u8, n: u8) -> DiskHead {
        let device = SigningKey::from_bytes(&[2; 32]);
        let shape = PackShape {
            k: 1,
            n,
            share: ShareSize::Large,
        };
        let shares = vec![ShareId([9; 32]); usize::from(n)];
        let days = KeepDays::new(29).unwrap();
        let manifest = Manifest::sign_keeping(days, PackId([8; 32]), shape, shares, AccountId([7; 32]), &device);
        let pack = PackRecord {
            manifest: manifest.encode(),
            wrapped_key: [6; WRAPPED_KEY_BYTES],
        };
        DiskHead {
            volume: [volume; 16],
            epoch: u64::MAX,
            commit: u64::MAX,
            root: RootRef {
                pack,
                offset: 1 << 26,
                len: 1 << 20,
            },
        }
    }

    #[test]
    fn so_many_disks_fit_beside_any_backup_and_one_more_is_refused_by_a_line() {
        for (n, bytes, most) in [(5, 481, 4), (10, 651, 3), (20, 991, 2), (SHARES_MAX, 1401, 1)] {
            assert_eq!(record::to_cbor(&disk(1, n)).len(), bytes, "{n}");
            let mut body = body(Vec::new());
            body.root = Some(disk(1, SHARES_MAX).root);
            for volume in 1..=most {
                body.set_disk([volume; 16], Some(disk(volume, n))).unwrap();
            }
            let keys = keys();
            assert_eq!(
                sign(&keys, power::ALL, &body).open(keys.reader().unwrap()),
                Ok(body.clone())
            );
            let before = body.clone();
            let error = body.set_disk([most + 1; 16], Some(disk(most + 1, n))).unwrap_err();
            assert!(error.to_string().contains("remove a disk"), "{error}");
            assert_eq!(body, before);
            body.set_disk([1; 16], None).unwrap();
            assert_eq!(body.disks.as_ref().map_or(0, Vec::len), usize::from(most) - 1);
        }
    }

    #[test]
    fn the_commit_of_a_disk_never_goes_back() {
        let at = |epoch, commit| DiskHead {
            epoch,
            commit,
            ..disk(1, 5)
        };
        let mut body = body(Vec::new());
        for (epoch, commit, is_taken) in [(1, 5, true), (1, 4, false), (1, 5, true), (2, 1, true), (1, 9, false)] {
            let taken = body.set_disk([1; 16], Some(at(epoch, commit)));
            assert_eq!(taken.is_ok(), is_taken, "{epoch} {commit}");
        }
        assert_eq!(body.disks, Some(vec![at(2, 1)]));
        // A copy of the home makes commits with the same numbers.
        let mut other = at(2, 1);
        other.root.offset += 1;
        assert!(body.set_disk([1; 16], Some(other)).is_err());
        assert_eq!(body.disks, Some(vec![at(2, 1)]));
        assert!(body.set_disk([2; 16], Some(at(3, 1))).is_err());
        assert!(body.set_disk([1; 16], Some(at(3, 0))).is_err());
        body.set_disk([1; 16], None).unwrap();
        assert_eq!(body.disks, None);
    }

    #[test]
    fn a_snapshot_with_room_beside_one_disk_is_told_with_its_paths_beside_all_that_fit() {
        let mut body = body(Vec::new());
        body.root = Some(disk(1, 5).root);
        body.set_disk([1; 16], Some(disk(1, 5))).unwrap();
        let room = body.snapshot_room();
        let snapshot = body.snapshot.as_mut().unwrap();
        let bare = record::to_cbor(snapshot).len();
        // A path has a head of three bytes, and no name in it is too long.
        let path = (0..room - bare - 3).map(|at| if at % 200 == 0 { b'/' } else { b'x' });
        snapshot.source_roots = vec![PathBytes(path.collect())];
        assert_eq!(record::to_cbor(snapshot).len(), room);
        for volume in 2..=4 {
            body.set_disk([volume; 16], Some(disk(volume, 5))).unwrap();
        }
        let keys = keys();
        assert_eq!(sign(&keys, power::ALL, &body).open(keys.reader().unwrap()), Ok(body));
    }

    #[test]
    fn another_account_or_another_number_does_not_open_it() {
        let mut head = sign(&keys(), power::PUT, &body(Vec::new()));
        let stranger = AccountKeys::from_seed(&Seed([9; 32]));
        assert_eq!(head.open(stranger.reader().unwrap()), Err(HeadError::Sealed));
        head.seq += 1;
        assert_eq!(head.open(keys().reader().unwrap()), Err(HeadError::Sealed));
    }

    #[test]
    fn a_newer_version_is_refused_by_its_number() {
        let mut encoded = sign(&keys(), power::PUT, &body(Vec::new())).encode();
        encoded[8] = 2;
        assert_eq!(Head::decode(&encoded), Err(HeadError::Version { version: 2 }));
    }

    proptest! {
        #[test]
        fn one_flipped_bit_anywhere_is_an_error(at in 0..HEAD_BYTES, bit in 0..8u8) {
            let mut encoded = sign(&keys(), power::PUT, &body(Vec::new())).encode();
            encoded[at] ^= 1u8 << bit;
            prop_assert!(Head::decode(&encoded).is_err());
        }

        #[test]
        fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), HEAD_BYTES), len in any::<u16>()) {
            let _ = Head::decode(&bytes);
            bytes[..8].copy_from_slice(MAGIC);
            bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
            bytes[CERT_LEN].copy_from_slice(&len.to_le_bytes());
            prop_assert!(Head::decode(&bytes).is_err());
            let _ = HeadBody::from_padded(&bytes[..BODY_BYTES]);
        }
    }
}
