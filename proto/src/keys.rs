//! Keys derived from the seed, split by what their holder may do; device certificates (docs/format/keys.md).

use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use ed25519_dalek::SigningKey;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::id::{AccountId, ChunkId};
use crate::pack::{PackError, PackKey};
use crate::phrase::Seed;

mod cert;
pub mod locked;
pub use cert::{CERT_BYTES_MAX, CERT_NAME_BYTES_MAX, CertError, DeviceCert, power};

/// The key of the words: it signs certificates and the account's word (`wire::word`). Derived from the seed when the words are
/// typed, and forgotten after; no device keeps it.
pub fn words_key(seed: &Seed) -> SigningKey {
    SigningKey::from_bytes(&derive("gridbackup 2026 account signing", &[&seed.0]))
}

/// The keys of an account that a device holds: those that its powers need. Key files are 0600.
#[derive(Clone)]
pub struct AccountKeys {
    /// The account: the public half of the words' key.
    pub account: AccountId,
    /// What it takes to write.
    pub put: PutKeys,
    /// What it takes to read; none on a device that only puts.
    pub read: Option<ReadKey>,
}

/// This device holds no key to read with.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[error("This device may only put: it holds no key to read with")]
pub struct CannotRead;

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

/// Bytes that sealing adds: ephemeral public key and tag.
const SEAL_BYTES: usize = 32 + TAG_BYTES;
/// Bytes of a Poly1305 tag (RFC 8439 §2.5).
const TAG_BYTES: usize = 16;

/// First bytes of a key file.
const KEY_FILE_MAGIC: [u8; 8] = *b"GRIDKEYS";
/// The key file's version written, and the only one read.
const KEY_FILE_VERSION: u16 = 1;
/// Bytes of a key file before its checksum: magic, version, account and the four keys.
const KEY_FILE_CHECKED_BYTES: usize = 8 + 2 + 32 + 32 + 32 + 8 + 32;
/// Bytes of a key file: the BLAKE3 of all that ends it.
pub const KEY_FILE_BYTES: usize = KEY_FILE_CHECKED_BYTES + 32;

impl AccountKeys {
    /// Derives the keys of a device that may do everything (docs/format/keys.md §1).
    pub fn from_seed(seed: &Seed) -> Self {
        let account = AccountId(words_key(seed).verifying_key().to_bytes());
        let read = ReadKey(*derive("gridbackup 2026 reader x25519", &[&seed.0]));
        let gear = derive("gridbackup 2026 chunker gear", &[&seed.0]);
        let put = PutKeys {
            wrap_public: read.wrap_public(),
            chunk_id: *derive("gridbackup 2026 chunk id", &[&seed.0]),
            gear_seed: u64::from_le_bytes(*gear.first_chunk().expect("8 of 32 bytes")),
        };
        let read = Some(read);
        Self { account, put, read }
    }

    /// The same for a device with these powers: without them no secret that they need.
    #[must_use]
    pub fn for_powers(mut self, powers: u8) -> Self {
        self.read = self.read.filter(|_| powers & power::READ != 0);
        self
    }

    /// The account's public name.
    pub fn account_id(&self) -> AccountId {
        self.account
    }

    /// The key to read with.
    pub fn reader(&self) -> Result<&ReadKey, CannotRead> {
        self.read.as_ref().ok_or(CannotRead)
    }

    /// Key-file encoding (docs/format/keys.md §2), for a file of mode 0600.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        // At its full length from the start: growing would leave copies of keys behind in freed memory.
        let mut file = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES));
        file.extend_from_slice(&KEY_FILE_MAGIC);
        file.extend_from_slice(&KEY_FILE_VERSION.to_le_bytes());
        file.extend_from_slice(&self.account.0);
        file.extend_from_slice(&self.read.as_ref().map_or([0; 32], |read| read.0));
        file.extend_from_slice(&self.put.chunk_id);
        file.extend_from_slice(&self.put.gear_seed.to_le_bytes());
        file.extend_from_slice(&self.put.wrap_public);
        let checksum = blake3::hash(&file);
        file.extend_from_slice(checksum.as_bytes());
        file
    }

    /// Reads a key file; any flipped bit is an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyFileError> {
        let mut rest = bytes;
        if take(&mut rest)? != KEY_FILE_MAGIC {
            return Err(KeyFileError::Malformed);
        }
        let version = u16::from_le_bytes(take(&mut rest)?);
        if version != KEY_FILE_VERSION {
            return Err(KeyFileError::Version { version });
        }
        if bytes.len() != KEY_FILE_BYTES
            || blake3::hash(&bytes[..KEY_FILE_CHECKED_BYTES]) != bytes[KEY_FILE_CHECKED_BYTES..]
        {
            return Err(KeyFileError::Malformed);
        }
        let account = AccountId(take(&mut rest)?);
        let read = Some(ReadKey(take(&mut rest)?)).filter(|read| read.0 != [0; 32]);
        let put = PutKeys {
            chunk_id: take(&mut rest)?,
            gear_seed: u64::from_le_bytes(take(&mut rest)?),
            wrap_public: take(&mut rest)?,
        };
        let belongs = match &read {
            Some(read) => put.wrap_public == read.wrap_public(),
            None => is_usable(put.wrap_public),
        };
        match belongs {
            true => Ok(Self { account, put, read }),
            false => Err(KeyFileError::Malformed),
        }
    }
}

/// Takes the next `N` bytes of a key file.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], KeyFileError> {
    let (taken, after) = rest.split_first_chunk().ok_or(KeyFileError::Malformed)?;
    *rest = after;
    Ok(*taken)
}

/// Whether a public key can be sealed to: one of small order makes every shared secret zero.
fn is_usable(public: [u8; 32]) -> bool {
    let shared = StaticSecret::from([1; 32]).diffie_hellman(&PublicKey::from(public));
    shared.was_contributory()
}

/// BLAKE3 in key derivation mode over `parts` end to end.
fn derive(context: &str, parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    let mut key = Zeroizing::new([0; 32]);
    hasher.finalize_xof().fill(key.as_mut_slice());
    hasher.zeroize();
    key
}

/// What sealing to the reader is for. Both derive keys in their own way, so that neither output passes for the other.
#[derive(Clone, Copy)]
enum Purpose<'a> {
    PackKey,
    Record(&'a [u8]),
}

impl Purpose<'_> {
    /// The cipher of one message: docs/format/keys.md §3. `None` if the other side's key makes every shared secret zero.
    fn cipher(
        self,
        secret: &StaticSecret,
        other: [u8; 32],
        ephemeral: [u8; 32],
        reader: [u8; 32],
    ) -> Option<XChaCha20Poly1305> {
        let shared = secret.diffie_hellman(&PublicKey::from(other));
        let (name, context) = match self {
            Self::PackKey => ("gridbackup 2026 wrapped pack key", [].as_slice()),
            Self::Record(context) => ("gridbackup 2026 sealed to reader", context),
        };
        let key = derive(name, &[shared.as_bytes(), &ephemeral, &reader, context]);
        shared
            .was_contributory()
            .then(|| XChaCha20Poly1305::new((&*key).into()))
    }
}

impl PutKeys {
    /// Id of a chunk's plaintext.
    pub fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        let hash = blake3::keyed_hash(&self.chunk_id, plain);
        ChunkId(*hash.as_bytes().first_chunk().expect("16 of 32 bytes"))
    }

    /// Wraps a pack key for the account's reader. `ephemeral` is 32 fresh random bytes.
    ///
    /// # Panics
    /// If `wrap_public` is a point of small order, which no key file holds.
    pub fn wrap(&self, key: &PackKey, ephemeral: [u8; 32]) -> [u8; WRAPPED_KEY_BYTES] {
        let mut wrapped = [0; WRAPPED_KEY_BYTES];
        wrapped[32..64].copy_from_slice(&key.0);
        self.seal_in_place(Purpose::PackKey, ephemeral, &mut wrapped);
        wrapped
    }

    /// Seals `plain` for the account's reader: an output of `plain.len() + 48` bytes bound to `context`. `ephemeral` is 32
    /// fresh random bytes.
    ///
    /// # Panics
    /// If `wrap_public` is a point of small order, which no key file holds.
    pub fn seal_to_reader(&self, context: &[u8], plain: &[u8], ephemeral: [u8; 32]) -> Vec<u8> {
        let mut sealed = vec![0; plain.len() + SEAL_BYTES];
        sealed[32..32 + plain.len()].copy_from_slice(plain);
        self.seal_in_place(Purpose::Record(context), ephemeral, &mut sealed);
        sealed
    }

    /// Encrypts what lies between the room for the ephemeral public key and the room for the tag, and fills both.
    fn seal_in_place(&self, purpose: Purpose<'_>, ephemeral: [u8; 32], sealed: &mut [u8]) {
        let secret = StaticSecret::from(ephemeral);
        let public = PublicKey::from(&secret).to_bytes();
        let (head, text) = sealed.split_at_mut(32);
        let (text, tag) = text.split_at_mut(text.len() - TAG_BYTES);
        head.copy_from_slice(&public);
        let sum = purpose
            .cipher(&secret, self.wrap_public, public, self.wrap_public)
            .expect("the reader's public key is never of small order")
            .encrypt_inout_detached(&XNonce::default(), &[], text.into())
            .expect("shorter than the cipher's limit of 256 GiB");
        tag.copy_from_slice(&sum);
    }
}

impl ReadKey {
    /// Unwraps a pack key.
    pub fn unwrap(&self, wrapped: &[u8; WRAPPED_KEY_BYTES]) -> Result<PackKey, PackError> {
        let plain = self.open_for(Purpose::PackKey, wrapped).ok_or(PackError::WrappedKey)?;
        let key = plain.as_slice().try_into().map_err(|_| PackError::WrappedKey)?;
        Ok(PackKey(key))
    }

    /// Opens what `seal_to_reader` sealed; `None` if damaged, for another account or another context.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.open_for(Purpose::Record(context), sealed)
    }

    fn open_for(&self, purpose: Purpose<'_>, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (ephemeral, text) = sealed.split_first_chunk::<32>()?;
        let (text, tag) = text.split_last_chunk::<TAG_BYTES>()?;
        let cipher = purpose.cipher(&StaticSecret::from(self.0), *ephemeral, *ephemeral, self.wrap_public())?;
        let mut plain = Zeroizing::new(text.to_vec());
        cipher
            .decrypt_inout_detached(&XNonce::default(), &[], plain.as_mut_slice().into(), &Tag::from(*tag))
            .ok()?;
        Some(plain)
    }

    /// The public half, which pack keys are wrapped to.
    pub fn wrap_public(&self) -> [u8; 32] {
        PublicKey::from(&StaticSecret::from(self.0)).to_bytes()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{assert_golden, pattern, pattern_array};
    use proptest::prelude::{ProptestConfig, proptest};

    fn keys() -> AccountKeys {
        AccountKeys::from_seed(&Seed(pattern_array("seed")))
    }

    fn same(one: &AccountKeys, other: &AccountKeys) -> bool {
        one.account == other.account && one.put == other.put && one.read == other.read
    }

    #[test]
    fn a_key_file_comes_back_and_has_a_fixed_length() {
        let file = keys().encode();
        assert_eq!((file.len(), file.capacity()), (178, 178));
        assert_eq!(file.len(), KEY_FILE_BYTES);
        assert!(same(&AccountKeys::decode(&file).unwrap(), &keys()));
    }

    #[test]
    fn a_device_that_only_puts_holds_no_secret_to_read_with() {
        let file = keys().for_powers(power::PUT_ONLY).encode();
        let secret = keys().read.unwrap().0;
        assert!(!file.windows(32).any(|window| window == secret));
        let read = AccountKeys::decode(&file).unwrap();
        assert!(read.reader().is_err() && read.put == keys().put);
        for keys in [keys(), read] {
            let words = words_key(&Seed(pattern_array("seed"))).to_bytes();
            assert!(!keys.encode().windows(32).any(|window| window == words));
        }
    }

    #[test]
    fn version_1_of_the_key_file_is_written_and_read_as_ever() {
        let golden = assert_golden("keys/v1-key-file.bin", &keys().encode());
        assert!(same(&AccountKeys::decode(&golden).unwrap(), &keys()));
    }

    #[test]
    fn sealed_forms_of_version_1_are_written_and_read_as_ever() {
        let wrapped = keys().put.wrap(&PackKey([5; 32]), [6; 32]);
        let golden = assert_golden("keys/v1-wrapped-key.bin", &wrapped);
        assert!(
            keys()
                .reader()
                .unwrap()
                .unwrap(golden.as_slice().try_into().unwrap())
                .ok()
                .unwrap()
                == PackKey([5; 32])
        );
        let sealed = keys().put.seal_to_reader(b"context", b"plaintext", [7; 32]);
        let golden = assert_golden("keys/v1-sealed-record.bin", &sealed);
        assert_eq!(
            *keys().reader().unwrap().open(b"context", &golden).unwrap(),
            b"plaintext"
        );
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_of_a_key_file_is_an_error() {
        let file = keys().encode();
        for bit in 0..file.len() * 8 {
            let mut bytes = file.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = AccountKeys::decode(&bytes).err().unwrap();
            let version = matches!(error, KeyFileError::Version { .. });
            assert_eq!(version, (8..10).contains(&(bit / 8)), "bit {bit}: {error}");
        }
        for len in 0..file.len() {
            assert!(AccountKeys::decode(&file[..len]).is_err(), "{len}");
        }
        assert!(AccountKeys::decode(&[file.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn a_key_file_whose_halves_do_not_belong_together_is_refused() {
        let mut other = keys();
        other.put.wrap_public = AccountKeys::from_seed(&Seed([1; 32])).put.wrap_public;
        assert_eq!(
            AccountKeys::decode(&other.encode()).err(),
            Some(KeyFileError::Malformed)
        );
    }

    #[test]
    fn only_the_reader_unwraps_a_pack_key() {
        let wrapped = keys().put.wrap(&PackKey([5; 32]), [6; 32]);
        assert!(keys().reader().unwrap().unwrap(&wrapped).ok().unwrap() == PackKey([5; 32]));
        let other = AccountKeys::from_seed(&Seed([1; 32]));
        assert_eq!(
            other.reader().unwrap().unwrap(&wrapped).err(),
            Some(PackError::WrappedKey)
        );
        for at in 0..wrapped.len() {
            let mut wrapped = wrapped;
            wrapped[at] ^= 1;
            assert_eq!(
                keys().reader().unwrap().unwrap(&wrapped).err(),
                Some(PackError::WrappedKey),
                "byte {at}"
            );
        }
    }

    #[test]
    fn sealed_records_are_bound_to_their_context_and_are_no_wrapped_keys() {
        let sealed = keys().put.seal_to_reader(b"head", &[5; 32], [6; 32]);
        assert_eq!(sealed.len(), 32 + 48);
        assert_eq!(*keys().reader().unwrap().open(b"head", &sealed).unwrap(), [5; 32]);
        assert!(keys().reader().unwrap().open(b"root", &sealed).is_none());
        assert!(
            keys()
                .reader()
                .unwrap()
                .unwrap(sealed.as_slice().try_into().unwrap())
                .is_err()
        );
        let empty_context = keys().put.seal_to_reader(b"", &[5; 32], [6; 32]);
        assert!(
            keys()
                .reader()
                .unwrap()
                .unwrap(empty_context.as_slice().try_into().unwrap())
                .is_err()
        );
    }

    #[test]
    fn a_shared_secret_of_zero_opens_nothing() {
        // What a peer could make without knowing any key: the ephemeral key of small order makes the secret known.
        let keys = keys();
        let ephemeral = [0; 32];
        let key = derive(
            "gridbackup 2026 sealed to reader",
            &[&[0; 32], &ephemeral, &keys.put.wrap_public, b"head"],
        );
        let mut forged = vec![0; 32 + 4];
        let tag = XChaCha20Poly1305::new((&*key).into())
            .encrypt_inout_detached(&XNonce::default(), &[], (&mut forged[32..]).into())
            .unwrap();
        forged.extend_from_slice(&tag);
        assert!(keys.reader().unwrap().open(b"head", &forged).is_none());
    }

    #[test]
    fn chunk_ids_depend_on_the_account() {
        let other = AccountKeys::from_seed(&Seed([1; 32]));
        assert_eq!(keys().put.chunk_id(b"chunk"), keys().put.chunk_id(b"chunk"));
        assert_ne!(keys().put.chunk_id(b"chunk"), other.put.chunk_id(b"chunk"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn what_is_sealed_to_the_reader_opens_and_damaged_does_not(
            plain in proptest::collection::vec(0..u8::MAX, 0..300),
            context in proptest::collection::vec(0..u8::MAX, 0..40),
            ephemeral: [u8; 32],
            damage in 0..usize::MAX,
        ) {
            let mut sealed = keys().put.seal_to_reader(&context, &plain, ephemeral);
            assert_eq!(*keys().reader().unwrap().open(&context, &sealed).unwrap(), plain);
            let at = damage % sealed.len();
            sealed[at] ^= 1;
            assert!(keys().reader().unwrap().open(&context, &sealed).is_none());
        }

        #[test]
        fn short_and_arbitrary_bytes_do_not_open(len in 0..200_usize) {
            assert!(keys().reader().unwrap().open(b"", &pattern("sealed", len)).is_none());
        }

        #[test]
        fn the_keys_of_every_seed_come_back_from_their_file(seed: [u8; 32]) {
            let keys = AccountKeys::from_seed(&Seed(seed));
            assert!(same(&AccountKeys::decode(&keys.encode()).unwrap(), &keys));
        }
    }
}
