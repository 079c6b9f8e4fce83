//! A record's head, as bytes (docs/format/journal.md §3). What is sealed behind it is `lap`'s.

/// Records begin at multiples of this: what a disk writes whole.
pub const SECTOR_BYTES: u64 = 512;
/// Bytes of a block, the unit of everything that is mapped.
pub const BLOCK_BYTES: usize = 4096;
/// A block sealed: with its tag.
pub const SEALED_BYTES: u64 = BLOCK_BYTES as u64 + 16;
/// Bytes before the ranges.
pub const FIXED_BYTES: usize = 64;
/// Bytes of a range.
pub const RANGE_BYTES: usize = 16;
/// Bytes of the code that authenticates a head, and links the next one to it.
pub const MAC_BYTES: usize = 16;

/// What a head begins with.
pub const MAGIC: &[u8; 4] = b"GBJR";
const VERSION: u8 = 1;

/// What a head is authenticated by.
pub type Mac = [u8; MAC_BYTES];

/// What a head is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    /// A record.
    Changes = 1,
    /// The place where the next record would have been when all was durable; it is none, and is there for its mark.
    End = 2,
}

/// What becomes of a range of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeKind {
    /// It holds what the record carries.
    Write,
    /// It reads as zeros, because they were written or because nobody wants it.
    Zero,
}

/// A range of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRange {
    /// The first block.
    pub start: u64,
    /// How many.
    pub count: u32,
    /// What becomes of it.
    pub kind: RangeKind,
}

/// All of a record but its blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// What it is of.
    pub kind: HeadKind,
    /// Its number; each is one more than the one before.
    pub seq: u64,
    /// The highest number that was durable when it was written.
    pub flushed: u64,
    /// The lap that it was written in.
    pub lap: u64,
    /// Where it begins in the file.
    pub offset: u32,
    /// What authenticates the record before.
    pub link: Mac,
    /// What it changes, in this order.
    pub ranges: Vec<BlockRange>,
}

impl HeadKind {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Changes, Self::End]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// How many blocks ranges carry.
fn blocks(ranges: &[BlockRange]) -> u64 {
    let written = ranges.iter().filter(|range| range.kind == RangeKind::Write);
    written.map(|range| u64::from(range.count)).sum()
}

/// How long the head of so many ranges is.
pub fn head_bytes(ranges: usize) -> u64 {
    (FIXED_BYTES + ranges * RANGE_BYTES + MAC_BYTES) as u64
}

/// How long the record of these ranges is, with what fills its last sector.
pub fn record_bytes(ranges: &[BlockRange]) -> u64 {
    (head_bytes(ranges.len()) + blocks(ranges) * SEALED_BYTES).next_multiple_of(SECTOR_BYTES)
}

impl Head {
    /// How many blocks it carries.
    pub fn blocks(&self) -> u64 {
        blocks(&self.ranges)
    }

    /// Where its first block lies, from its beginning.
    pub fn payload_offset(&self) -> u64 {
        head_bytes(self.ranges.len())
    }

    /// How long the record is, with what fills its last sector.
    pub fn record_bytes(&self) -> u64 {
        record_bytes(&self.ranges)
    }

    /// Adds its bytes to none, and answers what authenticates them.
    pub fn encode(&self, mac_key: &[u8; 32], bytes: &mut Vec<u8>) -> Mac {
        assert!(bytes.is_empty(), "a record begins with its head");
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[VERSION, self.kind as u8, 0, 0]);
        bytes.extend_from_slice(&self.seq.to_le_bytes());
        bytes.extend_from_slice(&self.flushed.to_le_bytes());
        bytes.extend_from_slice(&self.lap.to_le_bytes());
        bytes.extend_from_slice(&self.link);
        bytes.extend_from_slice(&(self.ranges.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.record_bytes() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.offset.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        for range in &self.ranges {
            bytes.extend_from_slice(&range.start.to_le_bytes());
            bytes.extend_from_slice(&range.count.to_le_bytes());
            bytes.extend_from_slice(&(range.kind as u32).to_le_bytes());
        }
        let mac = mac(mac_key, bytes);
        bytes.extend_from_slice(&mac);
        mac
    }

    /// How long the head is, by its first bytes; none if no head begins so.
    pub fn head_bytes(fixed: &[u8; FIXED_BYTES]) -> Option<u64> {
        let is_ours =
            fixed.starts_with(MAGIC) && fixed[4] == VERSION && fixed[6..8] == [0; 2] && fixed[60..64] == [0; 4];
        let ranges = u32::from_le_bytes(field(fixed, 48)?);
        let is_known = HeadKind::from_number(fixed[5]).is_some_and(|kind| kind == HeadKind::Changes || ranges == 0);
        (is_ours && is_known).then_some(FIXED_BYTES as u64 + u64::from(ranges) * RANGE_BYTES as u64 + MAC_BYTES as u64)
    }

    /// Reads a whole head, which is to begin at this place of this lap. None unless it is valid.
    pub fn decode(bytes: &[u8], mac_key: &[u8; 32], lap: u64, offset: u32) -> Option<(Self, Mac)> {
        let fixed: &[u8; FIXED_BYTES] = bytes.first_chunk()?;
        if Self::head_bytes(fixed)? != bytes.len() as u64 {
            return None;
        }
        let (body, sent) = bytes.split_at(bytes.len() - MAC_BYTES);
        let expected = mac(mac_key, body);
        // In constant time: BLAKE3's hashes compare so.
        if blake3::hash(sent) != blake3::hash(&expected) {
            return None;
        }
        let ranges = body[FIXED_BYTES..].chunks_exact(RANGE_BYTES).map(|range| {
            Some(BlockRange {
                start: u64::from_le_bytes(field(range, 0)?),
                count: u32::from_le_bytes(field(range, 8)?),
                kind: match u32::from_le_bytes(field(range, 12)?) {
                    0 => RangeKind::Write,
                    1 => RangeKind::Zero,
                    _ => return None,
                },
            })
        });
        let head = Self {
            kind: HeadKind::from_number(fixed[5])?,
            seq: u64::from_le_bytes(field(fixed, 8)?),
            flushed: u64::from_le_bytes(field(fixed, 16)?),
            lap: u64::from_le_bytes(field(fixed, 24)?),
            offset: u32::from_le_bytes(field(fixed, 56)?),
            link: field(fixed, 32)?,
            ranges: ranges.collect::<Option<_>>()?,
        };
        let is_here = head.lap == lap && head.offset == offset && head.flushed < head.seq;
        let bytes = u64::from(u32::from_le_bytes(field(fixed, 52)?));
        (is_here && head.record_bytes() == bytes).then_some((head, expected))
    }
}

/// The bytes from there on.
pub fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// What authenticates bytes under a key.
pub fn mac(key: &[u8; 32], bytes: &[u8]) -> Mac {
    *blake3::keyed_hash(key, bytes)
        .as_bytes()
        .first_chunk()
        .expect("16 of 32 bytes")
}
