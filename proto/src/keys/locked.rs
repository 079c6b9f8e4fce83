//! Key files locked with a passphrase (docs/format/keys.md §2): the passphrase opens a key, and that key the files. A new passphrase
//! therefore replaces one small file, and no key file is ever between two passphrases.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::Aead;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce, aead::Payload};
use zeroize::Zeroizing;

const LOCK_MAGIC: [u8; 8] = *b"GRIDLOCK";
const LOCK_VERSION: u16 = 1;
/// Magic, version, three costs, salt.
const LOCK_HEADER_BYTES: usize = 8 + 2 + 3 * 4 + 16;
/// Bytes of a lock: header, nonce, sealed key.
pub const LOCK_BYTES: usize = LOCK_HEADER_BYTES + NONCE_BYTES + 32 + TAG_BYTES;
const LOCKED_MAGIC: [u8; 8] = *b"GRIDSEAL";
/// Magic, version.
const LOCKED_HEADER_BYTES: usize = 8 + 2;
/// Bytes of a nonce of XChaCha20: long enough to be drawn at random for every file.
const NONCE_BYTES: usize = 24;
/// Bytes of a Poly1305 tag (RFC 8439 §2.5).
const TAG_BYTES: usize = 16;

/// What trying one passphrase costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// KiB of memory.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

/// What a lock is made with: the second choice of RFC 9106 §4, for machines that cannot spare 2 GiB.
pub const COST: Cost = Cost {
    memory_kib: 64 << 10,
    passes: 3,
    lanes: 4,
};
/// Most that a lock may ask for before it is opened: 1 GiB.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 64;
const LANES_MAX: u32 = 16;

/// Which file a locked one is, so that none is taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFile {
    /// The account's keys.
    Account,
    /// The device's key.
    Device,
}

impl KeyFile {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Account => b"account.key",
            Self::Device => b"device.key",
        }
    }
}

/// Keys stay locked.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum LockError {
    /// Another one, or a flipped bit: they cannot be told apart.
    #[error("The passphrase is wrong")]
    Passphrase,
    /// No lock, or a damaged one.
    #[error("It is no lock of this program, or damaged")]
    Malformed,
    /// Made by a newer program.
    #[error("It has version {version}, which this program does not know")]
    Version {
        /// That version.
        version: u16,
    },
    /// Locked by another key.
    #[error("It was locked with another key, or is damaged")]
    Key,
}

/// The key that key files are locked with.
pub type LockKey = Zeroizing<[u8; 32]>;

/// A lock that `passphrase` opens. Salt and nonce are random, 16 and 24 bytes.
pub fn make_lock(
    key: &LockKey,
    passphrase: &[u8],
    cost: Cost,
    salt: [u8; 16],
    nonce: [u8; 24],
) -> Result<Vec<u8>, LockError> {
    let mut lock = Vec::with_capacity(LOCK_BYTES);
    lock.extend_from_slice(&LOCK_MAGIC);
    lock.extend_from_slice(&LOCK_VERSION.to_le_bytes());
    for number in [cost.memory_kib, cost.passes, cost.lanes] {
        lock.extend_from_slice(&number.to_le_bytes());
    }
    lock.extend_from_slice(&salt);
    let sealed = seal(&stretched(passphrase, cost, &salt)?, nonce, &lock, key.as_slice())?;
    lock.extend_from_slice(&nonce);
    lock.extend_from_slice(&sealed);
    Ok(lock)
}

/// The key that a lock holds.
pub fn open_lock(lock: &[u8], passphrase: &[u8]) -> Result<LockKey, LockError> {
    let (header, cost, salt) = header(lock)?;
    let nonce = lock[LOCK_HEADER_BYTES..].first_chunk().ok_or(LockError::Malformed)?;
    let sealed = &lock[LOCK_HEADER_BYTES + NONCE_BYTES..];
    let key = open(&stretched(passphrase, cost, &salt)?, *nonce, header, sealed).ok_or(LockError::Passphrase)?;
    let key: [u8; 32] = key.as_slice().try_into().map_err(|_| LockError::Malformed)?;
    Ok(Zeroizing::new(key))
}

fn header(lock: &[u8]) -> Result<(&[u8], Cost, [u8; 16]), LockError> {
    let malformed = LockError::Malformed;
    let mut rest = lock.strip_prefix(&LOCK_MAGIC).ok_or(malformed)?;
    let version = u16::from_le_bytes(take(&mut rest)?);
    if version != LOCK_VERSION {
        return Err(LockError::Version { version });
    }
    let cost = Cost {
        memory_kib: u32::from_le_bytes(take(&mut rest)?),
        passes: u32::from_le_bytes(take(&mut rest)?),
        lanes: u32::from_le_bytes(take(&mut rest)?),
    };
    let is_bounded = cost.memory_kib <= MEMORY_KIB_MAX && cost.passes <= PASSES_MAX && cost.lanes <= LANES_MAX;
    if lock.len() != LOCK_BYTES || !is_bounded {
        return Err(malformed);
    }
    Ok((&lock[..LOCK_HEADER_BYTES], cost, take(&mut rest)?))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], LockError> {
    let (taken, after) = rest.split_first_chunk().ok_or(LockError::Malformed)?;
    *rest = after;
    Ok(*taken)
}

fn stretched(passphrase: &[u8], cost: Cost, salt: &[u8; 16]) -> Result<LockKey, LockError> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(|_| LockError::Malformed)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, key.as_mut())
        .map_err(|_| LockError::Malformed)?;
    Ok(key)
}

/// Whether a key file is locked.
pub fn is_locked(file: &[u8]) -> bool {
    file.starts_with(&LOCKED_MAGIC)
}

/// A key file, locked. The nonce is random.
pub fn lock(key: &LockKey, kind: KeyFile, nonce: [u8; 24], plain: &[u8]) -> Result<Vec<u8>, LockError> {
    let mut file = Vec::with_capacity(LOCKED_HEADER_BYTES + NONCE_BYTES + plain.len() + TAG_BYTES);
    file.extend_from_slice(&LOCKED_MAGIC);
    file.extend_from_slice(&LOCK_VERSION.to_le_bytes());
    let sealed = seal(key, nonce, kind.name(), plain)?;
    file.extend_from_slice(&nonce);
    file.extend_from_slice(&sealed);
    Ok(file)
}

/// What is in a locked key file.
pub fn unlock(key: &LockKey, kind: KeyFile, file: &[u8]) -> Result<Zeroizing<Vec<u8>>, LockError> {
    let mut rest = file.strip_prefix(&LOCKED_MAGIC).ok_or(LockError::Malformed)?;
    let version = u16::from_le_bytes(take(&mut rest)?);
    if version != LOCK_VERSION {
        return Err(LockError::Version { version });
    }
    let nonce = take(&mut rest)?;
    open(key, nonce, kind.name(), rest).ok_or(LockError::Key)
}

fn seal(key: &LockKey, nonce: [u8; 24], aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, LockError> {
    XChaCha20Poly1305::new((&**key).into())
        .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad })
        .map_err(|_| LockError::Malformed)
}

fn open(key: &LockKey, nonce: [u8; 24], aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    XChaCha20Poly1305::new((&**key).into())
        .decrypt(&XNonce::from(nonce), Payload { msg: sealed, aad })
        .ok()
        .map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::assert_golden;

    /// Far too little for a real lock, and quick.
    const CHEAP: Cost = Cost {
        memory_kib: 16,
        passes: 1,
        lanes: 2,
    };

    fn key() -> LockKey {
        Zeroizing::new([7; 32])
    }

    fn made() -> Vec<u8> {
        make_lock(&key(), b"correct horse", CHEAP, [1; 16], [2; 24]).unwrap()
    }

    #[test]
    fn the_passphrase_opens_a_lock_and_the_lock_its_files() {
        let lock = made();
        assert_eq!(lock.len(), LOCK_BYTES);
        let opened = open_lock(&lock, b"correct horse").unwrap();
        let file = super::lock(&key(), KeyFile::Device, [3; 24], b"secret").unwrap();
        assert!(is_locked(&file) && !is_locked(b"GRIDKEYS"));
        assert_eq!(unlock(&opened, KeyFile::Device, &file).unwrap().as_slice(), b"secret");
        assert_eq!(unlock(&opened, KeyFile::Account, &file), Err(LockError::Key));
        assert_eq!(open_lock(&lock, b"correct hors"), Err(LockError::Passphrase));
    }

    #[test]
    fn any_flipped_bit_keeps_it_locked() {
        let lock = made();
        for at in 0..lock.len() {
            let mut bad = lock.clone();
            bad[at] ^= 1;
            assert!(open_lock(&bad, b"correct horse").is_err(), "byte {at}");
        }
        let file = super::lock(&key(), KeyFile::Account, [3; 24], b"secret").unwrap();
        for at in 0..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 1;
            assert!(unlock(&key(), KeyFile::Account, &bad).is_err(), "byte {at}");
        }
        for end in 0..lock.len() {
            assert!(open_lock(&lock[..end], b"correct horse").is_err());
        }
    }

    #[test]
    fn a_lock_cannot_ask_for_more_than_a_machine_has() {
        for at in [10, 14, 18] {
            let mut greedy = made();
            greedy[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            assert_eq!(open_lock(&greedy, b"correct horse"), Err(LockError::Malformed));
        }
    }

    #[test]
    fn golden() {
        let lock = make_lock(&key(), b"correct horse", COST, [1; 16], [2; 24]).unwrap();
        assert_golden("keys/v1-lock.bin", &lock);
        let file = super::lock(&key(), KeyFile::Account, [3; 24], b"secret").unwrap();
        assert_golden("keys/v1-locked-file.bin", &file);
        assert_eq!(open_lock(&lock, b"correct horse").unwrap(), key());
    }
}
