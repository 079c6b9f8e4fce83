//! Metadata on its way out: records are gathered into sections, and each section remembers what it makes findable.

use std::sync::{Mutex, PoisonError};

use minicbor::Encode;
use proto::cap_index::{Cap, Extent, IndexRecord};
use proto::id::VersionId;
use proto::pack::PackShape;
use proto::section::{SECTION_RECORDS_BYTES_MAX, SectionKind};
use proto::share::ShareSize;
use rusqlite::Transaction;
use upload_queue::db::DbError;
use upload_queue::packs::PackRow;
use upload_queue::queue::Queue;

use crate::catalog::content::{self, Place, SectionRow, publish};
use crate::catalog::tree;

use super::ledger::ReadFile;

/// Extents in one cap record: 23 bytes each at most, and a few such records fit the smallest section.
const CAP_EXTENTS_MAX: usize = 4000;
/// What a section's header and an incompressible run may take beyond its records.
const SECTION_OVERHEAD_BYTES: usize = 2048;

/// What a section makes findable: recorded when the section's pack is durable here.
#[derive(Default)]
pub struct Carries {
    /// Files whose content is in it.
    pub inline: Vec<ReadFile>,
    /// Versions whose caps end in it.
    pub caps: Vec<VersionId>,
    /// Packs that it lists.
    pub packs: Vec<PackRow>,
    /// The last snapshot whose log ends in it.
    pub snapshot: Option<u64>,
}

/// An encoded section.
pub struct Section {
    /// What records it holds.
    pub kind: SectionKind,
    /// Its encoding.
    pub bytes: Vec<u8>,
    /// What it makes findable.
    pub carries: Carries,
}

impl Section {
    /// Records what the section makes findable.
    pub fn record(&self, tx: &Transaction<'_>, queue: &Queue, row: SectionRow) -> Result<(), DbError> {
        for file in &self.carries.inline {
            content::set_place(tx, file.version, &Place::Section(row))?;
        }
        let versions: Vec<VersionId> = self.carries.inline.iter().map(|file| file.version).collect();
        queue.sending(tx, &versions)?;
        for version in &self.carries.caps {
            publish::list_cap(tx, *version, row)?;
        }
        for pack in &self.carries.packs {
            publish::list_pack(tx, *pack)?;
        }
        if let Some(snapshot) = self.carries.snapshot {
            tree::published(tx, snapshot)?;
        }
        Ok(())
    }
}

/// Gathers records of one kind into sections.
pub struct SectionWriter {
    kind: SectionKind,
    records_bytes_max: usize,
    records: Vec<u8>,
    carries: Carries,
}

impl SectionWriter {
    /// Sections that fit small packs of this code.
    pub fn new(kind: SectionKind, (k, n): (u8, u8)) -> Self {
        let shape = PackShape {
            k,
            n,
            share: ShareSize::Small,
        };
        let records_bytes_max = SECTION_RECORDS_BYTES_MAX.min(shape.plain_bytes() - SECTION_OVERHEAD_BYTES);
        Self {
            kind,
            records_bytes_max,
            records: Vec::new(),
            carries: Carries::default(),
        }
    }

    /// Adds a record; returns the section before it if that is full.
    pub fn push<T: Encode<()>>(&mut self, record: &T) -> Option<Section> {
        let encoded = minicbor::to_vec(record).expect("writing to memory does not fail");
        let full = if self.records.len() + encoded.len() > self.records_bytes_max {
            self.finish()
        } else {
            None
        };
        self.records.extend_from_slice(&encoded);
        full
    }

    /// What the records pushed so far make findable, from the last one pushed on.
    pub fn carries(&mut self) -> &mut Carries {
        &mut self.carries
    }

    /// The section begun, if there is one.
    pub fn finish(&mut self) -> Option<Section> {
        if self.records.is_empty() {
            return None;
        }
        let bytes = proto::section::encode(self.kind, &self.records);
        self.records.clear();
        Some(Section {
            kind: self.kind,
            bytes,
            carries: std::mem::take(&mut self.carries),
        })
    }
}

/// Very small contents on their way into index sections; all preparers share it.
pub struct InlineSections {
    state: Mutex<InlineState>,
    pack_bytes_max: usize,
}

struct InlineState {
    open: SectionWriter,
    full: Vec<Section>,
    full_bytes: usize,
}

impl InlineSections {
    /// Gathers for packs of this code.
    pub fn new((k, n): (u8, u8)) -> Self {
        let state = InlineState {
            open: SectionWriter::new(SectionKind::Index, (k, n)),
            full: Vec::new(),
            full_bytes: 0,
        };
        let pack_bytes_max = PackShape {
            k,
            n,
            share: ShareSize::Large,
        }
        .plain_bytes();
        Self {
            state: Mutex::new(state),
            pack_bytes_max,
        }
    }

    /// Adds a file's content; returns the sections that fill a large pack, once there are as many.
    pub fn push(&self, record: &IndexRecord, file: ReadFile) -> Option<Vec<Section>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let full = state.open.push(record);
        state.open.carries().inline.push(file);
        let section = full?;
        let overflows = state.full_bytes + section.bytes.len() > self.pack_bytes_max;
        let sections = overflows.then(|| {
            state.full_bytes = 0;
            std::mem::take(&mut state.full)
        });
        state.full_bytes += section.bytes.len();
        state.full.push(section);
        sections
    }

    /// Everything gathered so far.
    pub fn take(&self) -> Vec<Section> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.full_bytes = 0;
        let mut sections = std::mem::take(&mut state.full);
        sections.extend(state.open.finish());
        sections
    }
}

/// The records of a cap: more than one where it is long.
pub fn cap_records(version: VersionId, extents: &[Extent]) -> Vec<IndexRecord> {
    if extents.is_empty() {
        return vec![IndexRecord::Cap(version, Cap::Extents(Vec::new()))];
    }
    let parts = extents.chunks(CAP_EXTENTS_MAX).enumerate();
    parts
        .map(|(part, extents)| match part {
            0 => IndexRecord::Cap(version, Cap::Extents(extents.to_vec())),
            _ => IndexRecord::Cap(
                version,
                Cap::Continued((part * CAP_EXTENTS_MAX) as u32, extents.to_vec()),
            ),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proto::id::ChunkId;

    use super::*;

    #[test]
    fn a_long_cap_is_cut_into_records_that_add_up() {
        let extents: Vec<Extent> = (0..CAP_EXTENTS_MAX as u64 * 2 + 5)
            .map(|number| Extent::Hole(number + 1))
            .collect();
        let mut joined = Vec::new();
        for record in cap_records(VersionId(1), &extents) {
            match record {
                IndexRecord::Cap(VersionId(1), Cap::Extents(part)) if joined.is_empty() => joined = part,
                IndexRecord::Cap(VersionId(1), Cap::Continued(at, part)) => {
                    assert_eq!(at as usize, joined.len());
                    joined.extend(part);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(joined, extents);
        assert_eq!(cap_records(VersionId(1), &[]).len(), 1);
    }

    #[test]
    fn every_record_fits_the_smallest_section() {
        let writer = SectionWriter::new(SectionKind::Index, (1, 1));
        let extents = vec![Extent::Chunk(ChunkId([255; 16]), u32::MAX); CAP_EXTENTS_MAX];
        let cap = minicbor::to_vec(&cap_records(VersionId(u64::MAX), &extents)[0]).unwrap();
        assert!(cap.len() <= writer.records_bytes_max);
    }
}
