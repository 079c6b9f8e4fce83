//! The read-cap index: which packs there are, what chunks lie in them, and which extents make a file version
//! (docs/format/read-cap-index.md).

use crate::id::{ChunkId, VersionId};
use crate::keys::WRAPPED_KEY_BYTES;

/// One record of the read-cap index.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub enum IndexRecord {
    /// A data pack and the chunks in it.
    #[n(0)]
    Pack(#[n(0)] PackRecord, #[n(1)] Vec<ChunkSlot>),
    /// Where a file version's content is.
    #[n(1)]
    Cap(#[n(0)] VersionId, #[n(1)] Cap),
}

/// All it takes to find and open a pack.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub struct PackRecord {
    /// The encoded public manifest.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub manifest: Vec<u8>,
    /// The pack's key, wrapped for the account's reader.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub wrapped_key: [u8; WRAPPED_KEY_BYTES],
}

/// A chunk's place in its pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub struct ChunkSlot {
    /// The chunk.
    #[n(0)]
    pub id: ChunkId,
    /// Offset in the pack's plaintext, in bytes.
    #[n(1)]
    pub offset: u32,
    /// Bytes it takes there.
    #[n(2)]
    pub stored_len: u32,
    /// Bytes of the chunk itself; equal to `stored_len` when it is stored as it is, else it is one zstd frame.
    #[n(3)]
    pub raw_len: u32,
}

/// Where a file version's content is.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub enum Cap {
    /// Here: very small files (at most `log_record::VERY_SMALL_BYTES_MAX`).
    #[n(0)]
    Inline(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// In these extents, in order, which add up to the file's length.
    #[n(1)]
    Extents(#[n(0)] Vec<Extent>),
}

/// A run of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub enum Extent {
    /// The bytes of a chunk; its raw length.
    #[n(0)]
    Chunk(#[n(0)] ChunkId, #[n(1)] u32),
    /// A hole of so many bytes.
    #[n(1)]
    Hole(#[n(0)] u64),
}
