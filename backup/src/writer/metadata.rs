//! Metadata on its way out: records are gathered into sections, and each section remembers what it makes findable.

use std::sync::{Mutex, PoisonError};

use database::DbError;
use proto::cap_index::IndexRecord;
use proto::id::VersionId;
use proto::record::Record;
use proto::section::{SectionError, SectionWriter};
use proto::section_kind::SectionKind;
use proto::shape::PackShape;
use proto::shape::ShareSize;
use rusqlite::Transaction;
use upload_queue::packs::PackRow;
use upload_queue::queue::Queue;

use super::in_flight::ReadFile;
use crate::catalog::content::{Place, SectionRow, post};
use crate::catalog::{content, tree};

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
            post::list_cap(tx, *version, row)?;
        }
        for pack in &self.carries.packs {
            post::list_pack(tx, *pack)?;
        }
        if let Some(snapshot) = self.carries.snapshot {
            tree::posted(tx, snapshot)?;
        }
        Ok(())
    }
}

/// Gathers records of one kind into sections.
pub struct Gatherer<T> {
    writer: SectionWriter<T>,
    carries: Carries,
}

impl<T: Record> Default for Gatherer<T> {
    fn default() -> Self {
        Self {
            writer: SectionWriter::new(),
            carries: Carries::default(),
        }
    }
}

impl<T: Record> Gatherer<T> {
    /// Adds a record; returns the section before it if that is full. A record over the limits of its format is refused, and
    /// whoever pushes it sees to it that it is said: one odd name must not keep everything else from being posted.
    pub fn push(&mut self, record: &T) -> Result<Option<Section>, SectionError> {
        Ok(self.writer.push(record)?.map(|bytes| Section {
            kind: T::KIND,
            bytes,
            carries: std::mem::take(&mut self.carries),
        }))
    }

    /// What the records pushed so far make findable, from the last one pushed on.
    pub fn carries(&mut self) -> &mut Carries {
        &mut self.carries
    }

    /// The section begun, if there is one.
    pub fn finish(self) -> Option<Section> {
        Some(Section {
            kind: T::KIND,
            bytes: self.writer.finish()?,
            carries: self.carries,
        })
    }
}

/// Very small contents on their way into index sections; all preparers share it.
pub struct InlineSections {
    state: Mutex<InlineState>,
    pack_bytes_max: usize,
}

struct InlineState {
    open: Gatherer<IndexRecord>,
    full: Vec<Section>,
    full_bytes: usize,
}

impl InlineSections {
    /// Gathers for packs of this code.
    pub fn new((k, n): (u8, u8)) -> Self {
        let state = InlineState {
            open: Gatherer::default(),
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
    pub fn push(&self, record: &IndexRecord, file: ReadFile) -> Result<Option<Vec<Section>>, SectionError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let full = state.open.push(record)?;
        state.open.carries().inline.push(file);
        let Some(section) = full else { return Ok(None) };
        let overflows = state.full_bytes + section.bytes.len() > self.pack_bytes_max;
        let sections = overflows.then(|| {
            state.full_bytes = 0;
            std::mem::take(&mut state.full)
        });
        state.full_bytes += section.bytes.len();
        state.full.push(section);
        Ok(sections)
    }

    /// Everything gathered so far.
    pub fn take(&self) -> Vec<Section> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.full_bytes = 0;
        let mut sections = std::mem::take(&mut state.full);
        sections.extend(std::mem::take(&mut state.open).finish());
        sections
    }
}

#[cfg(test)]
mod tests {
    use proto::cap_index::Cap;

    use super::*;

    fn file(version: u64) -> ReadFile {
        ReadFile {
            version: VersionId(version),
            path: Vec::new(),
            bytes: 4000,
            extents: Vec::new(),
        }
    }

    fn push(inline: &InlineSections, version: u64) -> Option<Vec<Section>> {
        let mut content = vec![0; 4000];
        blake3::Hasher::new()
            .update(&version.to_le_bytes())
            .finalize_xof()
            .fill(&mut content);
        inline
            .push(
                &IndexRecord::Cap(VersionId(version), Cap::Inline(content)),
                file(version),
            )
            .unwrap()
    }

    #[test]
    fn a_section_carries_the_files_whose_content_is_in_it() {
        let inline = InlineSections::new((1, 1));
        let mut sections = Vec::new();
        for version in 0..1500 {
            sections.extend(push(&inline, version).into_iter().flatten());
        }
        assert!(!sections.is_empty(), "more than fits one large pack was pushed");
        sections.extend(inline.take());
        let mut versions = Vec::new();
        for section in &sections {
            let records = proto::section::decode_kind::<IndexRecord>(&section.bytes).unwrap();
            let inside: Vec<VersionId> = proto::section::records::<IndexRecord>(&records)
                .map(|record| match record.unwrap() {
                    IndexRecord::Cap(version, Cap::Inline(_)) => version,
                    other => panic!("{other:?}"),
                })
                .collect();
            let carried: Vec<VersionId> = section.carries.inline.iter().map(|file| file.version).collect();
            assert_eq!(inside, carried);
            versions.extend(inside);
        }
        assert_eq!(versions, (0..1500).map(VersionId).collect::<Vec<_>>());
        assert!(inline.take().is_empty());
    }
}
