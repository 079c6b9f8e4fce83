//! The read-cap index: which packs there are, what chunks lie in them, and which extents make a file version
//! (docs/format/read-cap-index.md).

use crate::id::{ChunkId, VersionId};
use crate::keys::WRAPPED_KEY_BYTES;
use crate::log_record::VERY_SMALL_BYTES_MAX;
use crate::record::Record;
use crate::section_kind::SectionKind;
use crate::shape::MANIFEST_AREA_BYTES;
use crate::size::MIB;

/// Most chunks in one `Pack` record and most extents in one `Cap` or `CapMore`: at most 33 bytes each, so that a record
/// takes about half a section. Longer lists go on in further records.
pub const LIST_MAX: usize = 16 * 1024;
/// Longest chunk, in bytes of plaintext: a reader allocates that much.
pub const CHUNK_RAW_BYTES_MAX: u32 = 16 * MIB as u32;

/// One record of the read-cap index.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub enum IndexRecord {
    /// A data pack and chunks in it. A pack with more chunks than `LIST_MAX` has several of these, which add up.
    #[n(0)]
    Pack(#[n(0)] PackRecord, #[n(1)] Vec<ChunkSlot>),
    /// Where a file version's content is.
    #[n(1)]
    Cap(#[n(0)] VersionId, #[n(1)] Cap),
    /// More extents of a version with more than `LIST_MAX` of them, from this byte of the file on. They follow its `Cap`
    /// in order, perhaps in a later section.
    #[n(2)]
    CapMore(#[n(0)] VersionId, #[n(1)] u64, #[n(2)] Vec<Extent>),
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

impl Extent {
    /// Bytes of the file that it covers.
    pub fn len(&self) -> u64 {
        match *self {
            Self::Chunk(_, raw_len) => raw_len.into(),
            Self::Hole(len) => len,
        }
    }

    /// Never true in a valid record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl IndexRecord {
    /// The records of a pack: one, or more if its chunks are more than `LIST_MAX`.
    pub fn of_pack(pack: PackRecord, slots: &[ChunkSlot]) -> Vec<Self> {
        if slots.is_empty() {
            return vec![Self::Pack(pack, Vec::new())];
        }
        slots
            .chunks(LIST_MAX)
            .map(|part| Self::Pack(pack.clone(), part.to_vec()))
            .collect()
    }

    /// The records of a version's cap: one, or more if its extents are more than `LIST_MAX`.
    pub fn of_cap(version: VersionId, cap: Cap) -> Vec<Self> {
        let extents = match cap {
            Cap::Extents(extents) if extents.len() > LIST_MAX => extents,
            short => return vec![Self::Cap(version, short)],
        };
        let mut records = Vec::new();
        let mut offset = 0;
        for part in extents.chunks(LIST_MAX) {
            records.push(match offset {
                0 => Self::Cap(version, Cap::Extents(part.to_vec())),
                _ => Self::CapMore(version, offset, part.to_vec()),
            });
            offset += part.iter().map(Extent::len).sum::<u64>();
        }
        records
    }
}

impl Record for IndexRecord {
    const KIND: SectionKind = SectionKind::Index;

    fn check(&self) -> Result<(), String> {
        match self {
            Self::Pack(pack, slots) => {
                pack.check()?;
                check_count(slots.len())?;
                slots.iter().try_for_each(ChunkSlot::check)
            }
            Self::Cap(_, Cap::Inline(bytes)) if bytes.len() as u64 > VERY_SMALL_BYTES_MAX => {
                Err(format!("{} bytes of content are too many for the index", bytes.len()))
            }
            Self::Cap(_, Cap::Inline(_)) => Ok(()),
            Self::Cap(_, Cap::Extents(extents)) => check_extents(0, extents),
            Self::CapMore(_, 0, _) => Err("more extents that begin at byte 0".to_owned()),
            Self::CapMore(_, offset, extents) => check_extents(*offset, extents),
        }
    }
}

impl PackRecord {
    /// Whether all limits hold; else which does not. The manifest itself is checked when it is decoded.
    pub fn check(&self) -> Result<(), String> {
        match self.manifest.len() {
            1..=MANIFEST_AREA_BYTES => Ok(()),
            len => Err(format!("a manifest of {len} bytes")),
        }
    }
}

impl ChunkSlot {
    fn check(&self) -> Result<(), String> {
        let lengths_fit = 0 < self.stored_len && self.stored_len <= self.raw_len && self.raw_len <= CHUNK_RAW_BYTES_MAX;
        if lengths_fit && self.offset.checked_add(self.stored_len).is_some() {
            return Ok(());
        }
        Err(format!(
            "chunk {} with {} bytes at {}",
            self.id, self.stored_len, self.offset
        ))
    }
}

fn check_count(count: usize) -> Result<(), String> {
    match count {
        0..=LIST_MAX => Ok(()),
        _ => Err(format!("a list of {count}, {LIST_MAX} are allowed")),
    }
}

fn check_extents(offset: u64, extents: &[Extent]) -> Result<(), String> {
    check_count(extents.len())?;
    let mut end = offset;
    for extent in extents {
        if extent.is_empty() || matches!(extent, Extent::Chunk(_, len) if *len > CHUNK_RAW_BYTES_MAX) {
            return Err(format!("an extent of {} bytes", extent.len()));
        }
        // A file's length is a signed 64-bit number everywhere that matters.
        end = end
            .checked_add(extent.len())
            .filter(|&end| end <= i64::MAX as u64)
            .ok_or("extents beyond 2^63 bytes")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::section;
    use crate::section::SectionWriter;

    fn arb_extent() -> impl Strategy<Value = Extent> {
        prop_oneof![
            (any::<[u8; 16]>(), 1..=CHUNK_RAW_BYTES_MAX).prop_map(|(id, len)| Extent::Chunk(ChunkId(id), len)),
            (1..1u64 << 40).prop_map(Extent::Hole),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn long_caps_survive_splitting_and_sections(
            some in prop::collection::vec(arb_extent(), 1..50), repeat in 1..2000usize, version in any::<u64>(),
        ) {
            let extents = some.repeat(repeat);
            let mut writer = SectionWriter::new();
            let mut sections = Vec::new();
            for record in IndexRecord::of_cap(VersionId(version), Cap::Extents(extents.clone())) {
                sections.extend(writer.push(&record).unwrap());
            }
            sections.extend(writer.finish());
            let mut read: Vec<Extent> = Vec::new();
            for section in &sections {
                let bytes = section::decode_kind::<IndexRecord>(section).unwrap();
                for record in section::records(&bytes) {
                    match record.unwrap() {
                        IndexRecord::Cap(VersionId(of), Cap::Extents(first)) if of == version => read = first,
                        IndexRecord::CapMore(VersionId(of), offset, more) if of == version => {
                            prop_assert_eq!(offset, read.iter().map(Extent::len).sum::<u64>());
                            read.extend(more);
                        }
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
            }
            prop_assert_eq!(read, extents);
        }
    }

    #[test]
    fn the_chunks_of_a_pack_are_split_over_records() {
        let pack = PackRecord {
            manifest: vec![1],
            wrapped_key: [2; WRAPPED_KEY_BYTES],
        };
        let slot = ChunkSlot {
            id: ChunkId([3; 16]),
            offset: u32::MAX - 9,
            stored_len: 9,
            raw_len: CHUNK_RAW_BYTES_MAX,
        };
        for (slots, records) in [(0, 1), (1, 1), (LIST_MAX, 1), (LIST_MAX + 1, 2)] {
            let made = IndexRecord::of_pack(pack.clone(), &vec![slot; slots]);
            assert_eq!(made.len(), records);
            made.iter().for_each(|record| assert_eq!(record.check(), Ok(())));
        }
    }
}
