//! A section: one compressed run of metadata records inside a metadata pack (docs/format/section.md).

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

/// Most bytes of records in a section, before compression.
pub const SECTION_RECORDS_BYTES_MAX: usize = 1 << 20;

/// Bytes that are no valid section.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum SectionError {
    /// Not the encoding, over the limit, or the checksum is wrong.
    #[error("Not a section, or damaged: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer gridbackup.
    #[error("Section version {version} is not known to this gridbackup")]
    Version {
        /// The version found.
        version: u16,
    },
    /// A record in it does not decode.
    #[error("Record {record} of the section does not decode: {reason}")]
    Record {
        /// Number of the record, from 0.
        record: usize,
        /// What the decoder said.
        reason: String,
    },
}

/// Encodes records (CBOR items end to end): header, checksum, zstd.
pub fn encode(_kind: SectionKind, _records: &[u8]) -> Vec<u8> {
    todo!()
}

/// Checks and decompresses a section; never allocates more than `SECTION_RECORDS_BYTES_MAX` (16 MiB for a root).
pub fn decode(_bytes: &[u8]) -> Result<(SectionKind, Vec<u8>), SectionError> {
    todo!()
}
