//! A share as it is stored: data, leaf table, public manifest, trailer (docs/format/share.md).

use bytes::Bytes;

use crate::id::ShareId;
use crate::manifest::Manifest;
use crate::size::{KIB, MIB};

/// The two sizes a share's data can have. Two only, so that sizes tell a friend nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum ShareSize {
    /// 256 KiB: metadata and small daily changes.
    Small,
    /// 4 MiB: everything else.
    Large,
}

impl ShareSize {
    /// Bytes of data.
    pub const fn data_bytes(self) -> usize {
        match self {
            Self::Small => 256 * KIB,
            Self::Large => 4 * MIB,
        }
    }
    /// Bytes of the stored form: data and tail.
    pub const fn stored_bytes(self) -> usize {
        self.data_bytes() + self.tail_bytes()
    }
    /// Bytes of the tail: leaf table, manifest area, trailer.
    pub const fn tail_bytes(self) -> usize {
        crate::hash_tree::table_bytes(self.data_bytes()) + MANIFEST_AREA_BYTES + TRAILER_BYTES
    }
    /// The size whose data has `bytes` bytes.
    pub fn from_data_bytes(bytes: usize) -> Option<Self> {
        [Self::Small, Self::Large]
            .into_iter()
            .find(|size| size.data_bytes() == bytes)
    }
    /// The size whose stored form has `bytes` bytes.
    pub fn from_stored_bytes(bytes: usize) -> Option<Self> {
        [Self::Small, Self::Large]
            .into_iter()
            .find(|size| size.stored_bytes() == bytes)
    }
}

/// Bytes reserved for the encoded public manifest, zero padded: room for `SHARES_MAX` share ids.
pub const MANIFEST_AREA_BYTES: usize = 2 * KIB;
/// Bytes of the trailer that ends every stored share.
pub const TRAILER_BYTES: usize = 32;

/// A share in its stored form. `data` is usually a slice of a whole pack's buffer: nothing is copied on the way to a peer.
#[derive(Clone, PartialEq, Eq)]
pub struct Share {
    /// Ciphertext or parity: `ShareSize::data_bytes` of it.
    pub data: Bytes,
    /// Leaf table, manifest area, trailer: `ShareSize::tail_bytes` of it.
    pub tail: Bytes,
}

/// A stored form that is not a share.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ShareError {
    /// Neither of the two sizes.
    #[error("{bytes} bytes are not the length of a stored share")]
    Length {
        /// The length found.
        bytes: usize,
    },
    /// Magic, version, lengths or checksum of the trailer are wrong.
    #[error("The share's trailer is damaged or of an unknown version")]
    Trailer,
    /// The leaf table does not hash to the share id.
    #[error("The share's leaf table does not match its id")]
    Table,
    /// A leaf does not match the table.
    #[error("Leaf {leaf} of the share is damaged")]
    Leaf {
        /// Number of the first leaf that is wrong, from 0.
        leaf: u32,
    },
    /// The manifest area does not hold a valid manifest that names this share.
    #[error("The share's manifest is damaged or names other shares")]
    Manifest,
}

impl Share {
    /// Builds the stored form around `data`; returns the id too. `table` is `hash_tree::leaf_table(&data)`.
    ///
    /// # Panics
    /// If `data` has neither of the two sizes or `table` does not belong to that size.
    pub fn new(_data: Bytes, _table: &[u8], _manifest: &Manifest) -> Self {
        todo!()
    }
    /// Splits a stored form into data and tail, without checking either.
    pub fn from_stored(_stored: Bytes) -> Result<Self, ShareError> {
        todo!()
    }
    /// Size class.
    pub fn size(&self) -> ShareSize {
        todo!()
    }
    /// Checks everything: trailer, table against `id`, every leaf, manifest names `id`.
    pub fn verify(&self, _id: ShareId) -> Result<(), ShareError> {
        todo!()
    }
    /// The public manifest inside, decoded and signature-checked.
    pub fn manifest(&self) -> Result<Manifest, ShareError> {
        todo!()
    }
    /// Bytes of the stored form.
    pub fn stored_bytes(&self) -> usize {
        self.data.len() + self.tail.len()
    }
}
