//! The kinds of sections and how long each may be (docs/format/section.md). What is in them is not known here.

use crate::size::MIB;

/// What records a section holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum SectionKind {
    /// `log_record::LogRecord`s.
    Log = 1,
    /// `cap_index::IndexRecord`s.
    Index = 2,
    /// One `root::Root`.
    Root = 3,
}

impl SectionKind {
    /// The kind that `number` stands for.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Log, Self::Index, Self::Root]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }

    /// Most bytes of records that a section of this kind holds.
    pub const fn records_bytes_max(self) -> usize {
        match self {
            Self::Log | Self::Index => SECTION_RECORDS_BYTES_MAX,
            Self::Root => ROOT_RECORD_BYTES_MAX,
        }
    }

    /// Whether a section of this kind can lie there in a pack's plaintext; else why not.
    pub fn check_span(self, offset: u32, len: u32) -> Result<(), String> {
        let len_fits = (SECTION_HEADER_BYTES..=self.encoded_bytes_max()).contains(&(len as usize));
        if len_fits && offset.checked_add(len).is_some() {
            return Ok(());
        }
        Err(format!("a section of {len} bytes at {offset}"))
    }

    /// Longest encoded section of this kind.
    pub const fn encoded_bytes_max(self) -> usize {
        let records = self.records_bytes_max();
        // ZSTD_COMPRESSBOUND: what zstd adds to bytes that do not compress.
        SECTION_HEADER_BYTES + records + records / 256 + 64
    }
}

/// Most bytes of records in a section, before compression.
pub const SECTION_RECORDS_BYTES_MAX: usize = MIB;
/// Most bytes of a root, before compression: a root is one record and cannot be split.
pub const ROOT_RECORD_BYTES_MAX: usize = 16 * MIB;
/// Bytes before the payload.
pub const SECTION_HEADER_BYTES: usize = 36;
