//! A file of the ring while it is used once: its header, its keys, sealing and opening of blocks (docs/format/journal.md §2).
//! Its salt is drawn anew each time, so that no place of a file is ever sealed twice under one key.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use durable::in_place::InPlaceFile;
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};
use zeroize::Zeroizing;

use super::record::{BLOCK_BYTES, Mac, SEALED_BYTES, SECTOR_BYTES, field, mac};

/// Bytes of a file's header.
pub const HEADER_BYTES: u64 = SECTOR_BYTES;
const MAGIC: &[u8; 8] = b"GBJRNL\0\0";
const VERSION: u64 = 1;
/// Bytes of the header that are authenticated.
const CHECKED_BYTES: usize = 112;
/// Sealed blocks read at a time. Chosen: what a large read costs is the copy then, not the calls.
const READ_BLOCKS: usize = 16;

/// The key that a journal's keys are derived from.
pub struct JournalKey {
    secret: Zeroizing<[u8; 32]>,
    header_mac: Zeroizing<[u8; 32]>,
    cache: [u8; 16],
}

impl JournalKey {
    /// Of a volume's key and the id of the cache that the journal belongs to.
    pub fn new(volume_key: &[u8; 32], cache: [u8; 16]) -> Self {
        let secret = derive("gridbackup 2026 disk journal", &[volume_key, &cache]);
        let header_mac = derive("gridbackup 2026 disk journal file header", &[&*secret]);
        Self {
            secret,
            header_mac,
            cache,
        }
    }
}

fn derive(context: &str, parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    Zeroizing::new(*hasher.finalize().as_bytes())
}

/// What blocks are sealed with. A journal never travels, so it is what the processor is best at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    /// The faster one of those without instructions for AES.
    ChaCha20Poly1305 = 1,
    /// Several times as fast where the processor helps, and only there (docs/decisions/0061-journal-of-a-disk.md).
    Aes256Gcm = 2,
}

impl Cipher {
    /// The one to begin a file with.
    pub fn of_this_machine() -> Self {
        #[cfg(target_arch = "x86_64")]
        let has_aes = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
        #[cfg(target_arch = "aarch64")]
        let has_aes =
            std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let has_aes = false;
        if has_aes {
            Self::Aes256Gcm
        } else {
            Self::ChaCha20Poly1305
        }
    }

    fn from_number(number: u64) -> Option<Self> {
        [Self::ChaCha20Poly1305, Self::Aes256Gcm]
            .into_iter()
            .find(|cipher| *cipher as u64 == number)
    }
}

/// Seals blocks with a key that never seals twice with one nonce; whoever gives the nonces sees to that.
pub struct BlockCipher(LessSafeKey);

impl BlockCipher {
    /// Of a key.
    pub fn new(cipher: Cipher, key: &[u8; 32]) -> Self {
        let algorithm = match cipher {
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Cipher::Aes256Gcm => &AES_256_GCM,
        };
        Self(LessSafeKey::new(
            UnboundKey::new(algorithm, key).expect("both take 32 bytes"),
        ))
    }

    /// Adds a block, sealed.
    pub fn seal(&self, block: &[u8], nonce: [u8; 12], into: &mut Vec<u8>) {
        let start = into.len();
        into.extend_from_slice(block);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::empty(), &mut into[start..])
            .expect("a block is not too long for the cipher");
        into.extend_from_slice(tag.as_ref());
    }

    /// Opens a sealed block, whose bytes it uses up; false if it is not what was sealed.
    pub fn open(&self, sealed: &mut [u8], nonce: [u8; 12], block: &mut [u8]) -> bool {
        let (sealed, tag) = sealed.split_at_mut(BLOCK_BYTES);
        let tag = Tag::try_from(&*tag).expect("16 bytes");
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.0.open_in_place_separate_tag(nonce, Aad::empty(), tag, sealed, 0..);
        opened.map(|opened| block.copy_from_slice(opened)).is_ok()
    }
}

/// What a file's header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LapHeader {
    /// Its number: the files of a journal are in the order of their laps.
    pub lap: u64,
    /// The number of its first record.
    pub first_seq: u64,
    /// What authenticates the record before.
    pub link: Mac,
    /// The highest number that was durable when it was begun.
    pub flushed: u64,
    /// Fresh each time.
    pub salt: [u8; 32],
    /// What its blocks are sealed with.
    pub cipher: Cipher,
}

/// What a file's header was found to be.
pub enum FoundHeader {
    /// Nothing was written to it yet.
    None,
    /// It is valid.
    Valid(LapHeader),
    /// It is of another key, or damaged.
    Wrong,
}

impl LapHeader {
    /// The bytes of a sector.
    pub fn encode(&self, key: &JournalKey) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES as usize);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.lap.to_le_bytes());
        bytes.extend_from_slice(&self.first_seq.to_le_bytes());
        bytes.extend_from_slice(&self.link);
        bytes.extend_from_slice(&key.cache);
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&self.flushed.to_le_bytes());
        bytes.extend_from_slice(&(self.cipher as u64).to_le_bytes());
        let mac = mac(&key.header_mac, &bytes);
        bytes.extend_from_slice(&mac);
        bytes.resize(HEADER_BYTES as usize, 0);
        bytes
    }

    /// Reads a sector.
    pub fn decode(bytes: &[u8], key: &JournalKey) -> FoundHeader {
        if bytes.iter().all(|byte| *byte == 0) {
            return FoundHeader::None;
        }
        Self::fields(bytes, key).map_or(FoundHeader::Wrong, FoundHeader::Valid)
    }

    fn fields(bytes: &[u8], key: &JournalKey) -> Option<Self> {
        let header = Self {
            lap: u64::from_le_bytes(field(bytes, 16)?),
            first_seq: u64::from_le_bytes(field(bytes, 24)?),
            link: field(bytes, 32)?,
            flushed: u64::from_le_bytes(field(bytes, 96)?),
            salt: field(bytes, 64)?,
            cipher: Cipher::from_number(u64::from_le_bytes(field(bytes, CHECKED_BYTES - 8)?))?,
        };
        // The whole sector follows from the fields.
        (header.encode(key) == bytes).then_some(header)
    }
}

/// A file in use.
pub struct Lap {
    /// What its header says.
    pub header: LapHeader,
    /// The file.
    pub file: InPlaceFile,
    /// The highest number of a record in it.
    last_seq: AtomicU64,
    cipher: BlockCipher,
    mac_key: Zeroizing<[u8; 32]>,
}

impl Lap {
    /// Of a file that has this header, or is to get it.
    pub fn new(file: InPlaceFile, header: LapHeader, key: &JournalKey) -> Self {
        let sealing = derive("gridbackup 2026 disk journal blocks", &[&*key.secret, &header.salt]);
        Self {
            cipher: BlockCipher::new(header.cipher, &sealing),
            mac_key: derive("gridbackup 2026 disk journal records", &[&*key.secret, &header.salt]),
            last_seq: AtomicU64::new(header.first_seq.saturating_sub(1)),
            header,
            file,
        }
    }

    /// What authenticates heads of its records.
    pub fn mac_key(&self) -> &[u8; 32] {
        &self.mac_key
    }

    /// The highest number of a record in it.
    pub fn last_seq(&self) -> u64 {
        self.last_seq.load(Ordering::Acquire)
    }

    /// A record was written to it.
    pub fn has(&self, seq: u64) {
        self.last_seq.fetch_max(seq, Ordering::AcqRel);
    }

    /// What is behind this record counts for nothing.
    pub fn ends_at(&self, seq: u64) {
        self.last_seq.store(seq, Ordering::Release);
    }

    /// Adds a block, sealed for this place of the file.
    pub fn seal(&self, block: &[u8], offset: u64, into: &mut Vec<u8>) {
        self.cipher.seal(block, nonce(offset), into);
    }

    /// Reads the blocks that lie there, one after the other, into `into`, of the length of some; false if one is not what was sealed.
    pub fn open(&self, mut offset: u64, into: &mut [u8]) -> io::Result<bool> {
        let mut sealed = [0; READ_BLOCKS * SEALED_BYTES as usize];
        for blocks in into.chunks_mut(READ_BLOCKS * BLOCK_BYTES) {
            let sealed = &mut sealed[..blocks.len() / BLOCK_BYTES * SEALED_BYTES as usize];
            match self.file.read_at(sealed, offset) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                other => other?,
            }
            for (block, sealed) in blocks
                .chunks_exact_mut(BLOCK_BYTES)
                .zip(sealed.chunks_exact_mut(SEALED_BYTES as usize))
            {
                if !self.cipher.open(sealed, nonce(offset), block) {
                    return Ok(false);
                }
                offset += SEALED_BYTES;
            }
        }
        Ok(true)
    }
}

/// The place in the file: the key is this lap's alone, and no place of a lap is written twice.
fn nonce(offset: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&offset.to_le_bytes());
    nonce
}
