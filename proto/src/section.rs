//! A section: one compressed run of metadata records inside a metadata pack (docs/format/section.md).
//!
//! What the records mean is not known here; see `log_record`, `cap_index` and `root`.

use std::marker::PhantomData;

use zstd::zstd_safe;

use crate::record;
use crate::record::Record;
use crate::section_kind::{SECTION_HEADER_BYTES, SectionKind};

const MAGIC: &[u8; 8] = b"GBSECT\0\0";
const VERSION: u16 = 1;
/// RFC 8878 §3.1.1.
const ZSTD_FRAME_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Where the checksum begins: it covers all before it, and the payload.
const CHECKED_BYTES: usize = 20;
/// zstd's own default; metadata is 1 % of a backup, so higher levels buy nothing that one would notice.
const ZSTD_LEVEL: i32 = 3;

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
    /// What was to be written is over a limit of the format.
    #[error("Over a limit of the format: {reason}")]
    Limit {
        /// Which.
        reason: String,
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

fn malformed(reason: impl Into<String>) -> SectionError {
    SectionError::Malformed { reason: reason.into() }
}

/// Encodes records (CBOR items end to end): header, checksum, zstd. `SectionError::Limit` if they are more than
/// `kind.records_bytes_max()`.
pub fn encode(kind: SectionKind, records: &[u8]) -> Result<Vec<u8>, SectionError> {
    if records.len() > kind.records_bytes_max() {
        return Err(SectionError::Limit {
            reason: format!("{} bytes are too many for one section", records.len()),
        });
    }
    let payload =
        zstd::bulk::compress(records, ZSTD_LEVEL).expect("compressing into a buffer of the bound's size succeeds");
    let mut section = Vec::with_capacity(SECTION_HEADER_BYTES + payload.len());
    section.extend_from_slice(MAGIC);
    section.extend_from_slice(&VERSION.to_le_bytes());
    section.extend_from_slice(&[kind as u8, 0]);
    section.extend_from_slice(&(records.len() as u32).to_le_bytes());
    section.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    let checksum = checksum(&section, &payload);
    section.extend_from_slice(&checksum);
    section.extend_from_slice(&payload);
    Ok(section)
}

/// Checks and decompresses a section; never allocates more than `SECTION_RECORDS_BYTES_MAX` (16 MiB for a root).
// docs/format/section.md §2
pub fn decode(bytes: &[u8]) -> Result<(SectionKind, Vec<u8>), SectionError> {
    let (header, payload) = bytes
        .split_at_checked(SECTION_HEADER_BYTES)
        .ok_or_else(|| malformed(format!("{} bytes are less than a header", bytes.len())))?;
    if header[..8] != *MAGIC {
        return Err(malformed("it does not begin with GBSECT"));
    }
    let version = u16::from_le_bytes([header[8], header[9]]);
    if version != VERSION {
        return Err(SectionError::Version { version });
    }
    let kind =
        SectionKind::from_number(header[10]).ok_or_else(|| malformed(format!("kind {} is unknown", header[10])))?;
    if header[11] != 0 {
        return Err(malformed(format!("flags {:#04x} are unknown", header[11])));
    }
    let records_len = u32_at(header, 12);
    if records_len > kind.records_bytes_max() {
        return Err(malformed(format!("{records_len} bytes of records are over the limit")));
    }
    if u32_at(header, 16) != payload.len() {
        return Err(malformed(format!(
            "its payload has {} bytes instead of {}",
            payload.len(),
            u32_at(header, 16)
        )));
    }
    if header[CHECKED_BYTES..] != checksum(&header[..CHECKED_BYTES], payload) {
        return Err(malformed("the checksum is wrong"));
    }
    decompress(payload, records_len).map(|records| (kind, records))
}

fn u32_at(header: &[u8], offset: usize) -> usize {
    let bytes = header[offset..offset + 4].try_into().expect("the slice has four bytes");
    u32::from_le_bytes(bytes) as usize
}

fn checksum(header: &[u8], payload: &[u8]) -> [u8; 16] {
    let hash = blake3::Hasher::new().update(header).update(payload).finalize();
    *hash.as_bytes().first_chunk().expect("a BLAKE3 hash has 32 bytes")
}

/// Opens a payload that must be one zstd frame of exactly `len` bytes of content.
fn decompress(payload: &[u8], len: usize) -> Result<Vec<u8>, SectionError> {
    // zstd takes a skippable frame for an empty one.
    if !payload.starts_with(&ZSTD_FRAME_MAGIC)
        || zstd_safe::find_frame_compressed_size(payload) != Ok(payload.len())
        || !matches!(zstd_safe::get_frame_content_size(payload), Ok(Some(content)) if content == len as u64)
    {
        return Err(malformed("its payload is not one zstd frame of the stated length"));
    }
    match zstd::bulk::decompress(payload, len) {
        Ok(records) if records.len() == len => Ok(records),
        Ok(_) => Err(malformed("its payload is shorter than stated")),
        Err(error) => Err(malformed(format!("its payload does not decompress: {error}"))),
    }
}

/// Collects records into sections as full as the limit allows.
pub struct SectionWriter<T> {
    records: Vec<u8>,
    /// Encodings of the records that set the context, outermost first.
    context: Vec<Vec<u8>>,
    /// Bytes of `records` that only repeat the context of the section before.
    repeated_bytes: usize,
    kind: PhantomData<fn(&T)>,
}

impl<T: Record> Default for SectionWriter<T> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            context: Vec::new(),
            repeated_bytes: 0,
            kind: PhantomData,
        }
    }
}

impl<T: Record> SectionWriter<T> {
    /// A writer without records.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a record; returns the section before it when it did not fit there any more. A record over its limits, or
    /// without its context, is refused with `SectionError::Limit`. One that sets the context takes it away when it is
    /// refused: what belongs to it must not come to belong to what was before it.
    pub fn push(&mut self, record: &T) -> Result<Option<Vec<u8>>, SectionError> {
        let encoded = match self.admit(record) {
            Ok(encoded) => encoded,
            Err(reason) => {
                if record.is_context() {
                    self.context.truncate(record.depth());
                }
                return Err(SectionError::Limit { reason });
            }
        };
        let full = self.records.len() + encoded.len() > T::KIND.records_bytes_max();
        let section = if full { self.take_section(record.depth()) } else { None };
        if record.is_context() {
            self.context.truncate(record.depth());
            self.context.push(encoded.clone());
        }
        self.records.extend_from_slice(&encoded);
        Ok(section)
    }

    /// The encoding of a record that may be written here.
    fn admit(&self, record: &T) -> Result<Vec<u8>, String> {
        record.check()?;
        if record.depth() > self.context.len() {
            return Err("it comes before what it belongs to".to_owned());
        }
        let encoded = record::to_cbor(record);
        let context_bytes: usize = self.context[..record.depth()].iter().map(Vec::len).sum();
        if context_bytes + encoded.len() > T::KIND.records_bytes_max() {
            return Err(format!("its {} bytes do not fit in a section", encoded.len()));
        }
        Ok(encoded)
    }

    /// Bytes of records collected and not yet in a section.
    pub fn pending_bytes(&self) -> usize {
        self.records.len() - self.repeated_bytes
    }

    /// The last section; `None` if there is nothing to write.
    pub fn finish(mut self) -> Option<Vec<u8>> {
        self.take_section(0)
    }

    /// Ends the section; the next one begins with the first `depth` levels of the context.
    fn take_section(&mut self, depth: usize) -> Option<Vec<u8>> {
        let section = (self.pending_bytes() > 0)
            .then(|| encode(T::KIND, &self.records).expect("`push` collects no more than a section holds"));
        self.records = self.context[..depth].concat();
        self.repeated_bytes = self.records.len();
        section
    }
}

/// Decodes the records of a decompressed section one by one; ends after the first error.
pub fn records<T: Record>(records: &[u8]) -> Records<'_, T> {
    Records {
        rest: records,
        number: 0,
        depth: 0,
        kind: PhantomData,
    }
}

/// Decodes a section of `T`s and returns their bytes for `records`; a section of another kind is an error.
pub fn decode_kind<T: Record>(section: &[u8]) -> Result<Vec<u8>, SectionError> {
    match decode(section)? {
        (kind, records) if kind == T::KIND => Ok(records),
        (kind, _) => Err(malformed(format!("it is of kind {kind:?} instead of {:?}", T::KIND))),
    }
}

/// Iterator over the records of a section; see [`records`].
pub struct Records<'a, T> {
    rest: &'a [u8],
    number: usize,
    depth: usize,
    kind: PhantomData<fn() -> T>,
}

impl<T: Record> Records<'_, T> {
    fn decode_next(&mut self) -> Result<T, String> {
        let (record, len) = record::first_from_cbor::<T>(self.rest)?;
        record.check()?;
        if record.depth() > self.depth {
            return Err("it comes before what it belongs to".to_owned());
        }
        if record.is_context() {
            self.depth = record.depth() + 1;
        }
        self.rest = &self.rest[len..];
        Ok(record)
    }
}

impl<T: Record> Iterator for Records<'_, T> {
    type Item = Result<T, SectionError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let number = self.number;
        self.number += 1;
        let decoded = self.decode_next();
        if decoded.is_err() {
            self.rest = &[];
        }
        Some(decoded.map_err(|reason| SectionError::Record { record: number, reason }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cap_index::{Cap, IndexRecord};
    use crate::id::{SnapshotId, VersionId};
    use crate::log_record::{LogRecord, SnapshotRecord};
    use crate::section_kind::SECTION_RECORDS_BYTES_MAX;

    fn snapshot(seq: u64) -> LogRecord {
        LogRecord::Snapshot(SnapshotRecord {
            seq,
            id: SnapshotId([7; 16]),
            time_ns: -1,
            parent: None,
            source_roots: Vec::new(),
            files: 0,
            bytes: 0,
        })
    }

    fn directory(path: &str) -> LogRecord {
        LogRecord::Directory(path.as_bytes().to_vec())
    }

    fn gone(number: usize) -> LogRecord {
        LogRecord::Gone(format!("{number:0200}").into_bytes())
    }

    fn read_all<T: Record>(section: &[u8]) -> Vec<T> {
        let bytes = decode_kind::<T>(section).unwrap();
        records(&bytes).collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn each_section_of_a_long_log_carries_its_context() {
        let mut writer = SectionWriter::new();
        let mut sections = Vec::new();
        for record in [snapshot(3), directory("/"), directory("/a")] {
            assert_eq!(writer.push(&record).unwrap(), None);
        }
        for number in 0..12_000 {
            sections.extend(writer.push(&gone(number)).unwrap());
        }
        sections.extend(writer.finish());
        assert_eq!(sections.len(), 3);
        let mut next = 0;
        for (position, section) in sections.iter().enumerate() {
            let mut records = read_all::<LogRecord>(section);
            assert!(section.len() <= SectionKind::Log.encoded_bytes_max());
            assert_eq!(records.remove(0), snapshot(3));
            if position == 0 {
                assert_eq!(records.remove(0), directory("/"));
            }
            assert_eq!(records.remove(0), directory("/a"));
            for record in records {
                assert_eq!(record, gone(next));
                next += 1;
            }
        }
        assert_eq!(next, 12_000);
    }

    #[test]
    fn records_without_their_context_are_refused_on_both_sides() {
        let mut writer = SectionWriter::new();
        assert!(writer.push(&gone(0)).is_err());
        assert!(writer.push(&directory("/")).is_err());
        assert_eq!(writer.finish(), None);
        for first in [gone(0), directory("/")] {
            let bytes = [record::to_cbor(&first), record::to_cbor(&snapshot(1))].concat();
            let read: Vec<_> = records::<LogRecord>(&bytes).collect();
            assert!(
                matches!(read[..], [Err(SectionError::Record { record: 0, .. })]),
                "{read:?}"
            );
        }
    }

    #[test]
    fn what_belongs_to_a_refused_directory_does_not_come_to_lie_in_the_one_before() {
        let mut writer = SectionWriter::new();
        let too_long = directory(&"/0123456".repeat(record::PATH_BYTES_MAX / 8 + 1));
        for good in [snapshot(1), directory("/a"), gone(1)] {
            writer.push(&good).unwrap();
        }
        assert!(writer.push(&too_long).is_err());
        assert!(writer.push(&gone(2)).is_err());
        for good in [directory("/b"), gone(3)] {
            writer.push(&good).unwrap();
        }
        let read = read_all::<LogRecord>(&writer.finish().unwrap());
        assert_eq!(read[2..], [gone(1), directory("/b"), gone(3)]);
    }

    #[test]
    fn a_record_over_its_limits_is_refused_and_the_writer_goes_on() {
        let mut writer = SectionWriter::new();
        let record = |len| IndexRecord::Cap(VersionId(1), Cap::Inline(vec![1; len]));
        writer.push(&record(4096)).unwrap();
        assert!(writer.push(&record(4097)).is_err());
        writer.push(&record(0)).unwrap();
        assert_eq!(
            read_all::<IndexRecord>(&writer.finish().unwrap()),
            [record(4096), record(0)]
        );
    }

    #[test]
    fn the_error_names_the_record_that_has_unknown_fields_or_variants() {
        let good = record::to_cbor(&gone(1));
        let context = [record::to_cbor(&snapshot(1)), record::to_cbor(&directory("/"))].concat();
        // Gone with a second field; a fifth variant.
        for unknown in [&[0x82, 0x03, 0x82, 0x41, b'a', 0x00][..], &[0x82, 0x04, 0x80]] {
            let bytes = [&context, &good, unknown, &good].concat();
            let read: Vec<_> = records::<LogRecord>(&bytes).collect();
            assert_eq!(read.len(), 4);
            assert!(
                matches!(read[3], Err(SectionError::Record { record: 3, .. })),
                "{:?}",
                read[3]
            );
        }
    }

    #[test]
    fn a_section_of_another_kind_is_not_read() {
        let section = encode(SectionKind::Index, b"").unwrap();
        assert!(matches!(
            decode_kind::<LogRecord>(&section),
            Err(SectionError::Malformed { .. })
        ));
    }

    #[test]
    fn a_newer_version_is_refused_by_its_number() {
        let mut section = encode(SectionKind::Log, b"x").unwrap();
        section[8] = 2;
        assert_eq!(decode(&section), Err(SectionError::Version { version: 2 }));
    }

    /// A section around any payload, with a right checksum.
    fn forge(kind: u8, records_len: u32, payload: &[u8]) -> Vec<u8> {
        let mut section = [
            &MAGIC[..],
            &VERSION.to_le_bytes(),
            &[kind, 0],
            &records_len.to_le_bytes(),
        ]
        .concat();
        section.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        let sum = checksum(&section, payload);
        section.extend_from_slice(&sum);
        section.extend_from_slice(payload);
        section
    }

    #[test]
    fn only_one_frame_of_the_stated_length_is_a_payload() {
        let frame = zstd::bulk::compress(&[5; 100], 1).unwrap();
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9][..]].concat();
        assert!(decode(&forge(1, 100, &frame)).is_ok());
        assert!(decode(&forge(1, 99, &frame)).is_err());
        assert!(decode(&forge(1, 101, &frame)).is_err());
        assert!(decode(&forge(1, 200, &[&frame[..], &frame].concat())).is_err());
        assert!(decode(&forge(1, 100, &[&frame[..], &skippable].concat())).is_err());
        assert!(decode(&forge(1, 0, &skippable)).is_err());
        assert!(decode(&forge(1, 0, b"")).is_err());
    }

    #[test]
    fn a_small_section_cannot_make_the_reader_allocate_more_than_the_limit() {
        let bomb = zstd::bulk::compress(&vec![0; SECTION_RECORDS_BYTES_MAX + 1], 1).unwrap();
        assert!(decode(&forge(1, SECTION_RECORDS_BYTES_MAX as u32 + 1, &bomb)).is_err());
        assert!(decode(&forge(3, SECTION_RECORDS_BYTES_MAX as u32 + 1, &bomb)).is_ok());
        assert!(decode(&forge(4, 1, &bomb)).is_err());
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(records in prop::collection::vec(any::<u8>(), 0..5000)) {
            let section = encode(SectionKind::Index, &records).unwrap();
            prop_assert_eq!(decode(&section), Ok((SectionKind::Index, records)));
        }

        #[test]
        fn one_flipped_bit_anywhere_is_an_error(
            records in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>(), bit in 0..8u8,
        ) {
            let mut section = encode(SectionKind::Log, &records).unwrap();
            let at = at.index(section.len());
            section[at] ^= 1u8 << bit;
            prop_assert!(decode(&section).is_err());
        }

        #[test]
        fn truncated_or_longer_sections_are_errors(
            records in prop::collection::vec(any::<u8>(), 0..300), cut in any::<prop::sample::Index>(),
        ) {
            let mut section = encode(SectionKind::Log, &records).unwrap();
            prop_assert!(decode(&section[..cut.index(section.len())]).is_err());
            section.push(0);
            prop_assert!(decode(&section).is_err());
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..5u8, len in 0..400u32) {
            let _ = decode(&bytes);
            let _ = decode(&forge(kind, len, &bytes));
            records::<LogRecord>(&bytes).for_each(drop);
            records::<IndexRecord>(&bytes).for_each(drop);
            records::<crate::root::Root>(&bytes).for_each(drop);
        }
    }
}
