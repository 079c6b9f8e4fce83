//! Sections laid out in metadata packs: as few packs as possible, the root in the last one.

use proto::cap_index::PackRecord;
use proto::head::RootRef;
use proto::root::{Root, SectionRef};
use proto::section::SectionError;
use proto::section_kind::SectionKind;
use proto::shape::PackShape;
use proto::shape::ShareSize;
use upload_queue::packs::Purpose;

use super::WriteError;
use super::metadata::{Carries, Section};
use super::run::Run;
use crate::catalog::content::{Posted, SectionPlace};

/// Up to so many packs of small shares are made before one of large shares is.
const SMALL_PACKS_MAX: usize = 4;

/// The sections of one posting.
pub struct Outbox<'r, 'a> {
    run: &'r Run<'a>,
    code: (u8, u8),
    waiting: Vec<Section>,
    waiting_bytes: usize,
    longest_bytes: usize,
    delivered: Vec<(PackRecord, SectionRef)>,
}

impl<'r, 'a> Outbox<'r, 'a> {
    /// An empty outbox.
    pub fn new(run: &'r Run<'a>) -> Self {
        let code = run.writer.uploader.code();
        Self {
            run,
            code,
            waiting: Vec::new(),
            waiting_bytes: 0,
            longest_bytes: 0,
            delivered: Vec::new(),
        }
    }

    fn shape(&self, share: ShareSize) -> PackShape {
        PackShape {
            k: self.code.0,
            n: self.code.1,
            share,
        }
    }

    /// Adds a section that was delivered earlier and that no root names yet.
    pub fn push_delivered(&mut self, pack: &PackRecord, place: &SectionPlace) {
        let section = SectionRef {
            kind: place.kind,
            pack: 0,
            offset: place.offset,
            len: place.len,
        };
        self.delivered.push((pack.clone(), section));
    }

    /// Adds a section; delivers those before it when they fill a large pack.
    pub fn push(&mut self, section: Section) -> Result<(), WriteError> {
        let large = self.shape(ShareSize::Large);
        if self.waiting_bytes + section.bytes.len() > large.plain_bytes() {
            let full = std::mem::take(&mut self.waiting);
            self.waiting_bytes = 0;
            self.deliver(large, full)?;
        }
        self.waiting_bytes += section.bytes.len();
        self.longest_bytes = self.longest_bytes.max(section.bytes.len());
        self.waiting.push(section);
        Ok(())
    }

    fn deliver(&mut self, shape: PackShape, sections: Vec<Section>) -> Result<(), WriteError> {
        if sections.is_empty() {
            return Ok(());
        }
        let (plain, sections) = lay_out(sections);
        let outgoing = self.run.seal_metadata(shape, &plain)?;
        let record = outgoing.record.clone();
        self.delivered.extend(sections.iter().map(|(offset, section)| {
            (
                record.clone(),
                SectionRef {
                    kind: section.kind as u8,
                    pack: 0,
                    offset: *offset,
                    len: section.bytes.len() as u32,
                },
            )
        }));
        self.run.deliver_metadata(outgoing, sections, None)?;
        Ok(())
    }

    /// Delivers what waits, without a root: a later one will name it.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        let waiting = std::mem::take(&mut self.waiting);
        let shape = self.shape_for_waiting();
        self.waiting_bytes = 0;
        for group in groups(waiting, shape.plain_bytes()) {
            self.deliver(shape, group)?;
        }
        Ok(())
    }

    /// The shape for what waits.
    fn shape_for_waiting(&self) -> PackShape {
        let small = self.shape(ShareSize::Small);
        let fits = self.longest_bytes <= small.plain_bytes();
        if fits && self.waiting_bytes <= SMALL_PACKS_MAX * small.plain_bytes() {
            small
        } else {
            self.shape(ShareSize::Large)
        }
    }

    /// Delivers what waits and, behind it, `root` extended by all sections; `sign` makes the head for it, which is
    /// recorded together with the last pack.
    pub fn post(
        mut self,
        mut root: Root,
        sign: impl FnOnce(Root, RootRef) -> Result<Posted, WriteError>,
    ) -> Result<(), WriteError> {
        let shape = self.shape_for_waiting();
        let mut groups = groups(std::mem::take(&mut self.waiting), shape.plain_bytes());
        let last = groups.pop().unwrap_or_default();
        for group in groups {
            self.deliver(shape, group)?;
        }
        self.name_delivered(&mut root);
        let complete = with_own(&root, &last);
        let encoded = complete.encode()?;
        let last_bytes: usize = last.iter().map(|section| section.bytes.len()).sum();
        if last_bytes + encoded.len() <= shape.plain_bytes() {
            return self.deliver_root(shape, last, complete, encoded, sign);
        }
        self.deliver(shape, last)?;
        self.name_delivered(&mut root);
        let encoded = root.encode()?;
        let small = self.shape(ShareSize::Small);
        let shape = if encoded.len() <= small.plain_bytes() {
            small
        } else {
            self.shape(ShareSize::Large)
        };
        if encoded.len() > shape.plain_bytes() {
            let reason = format!("a root of {} bytes fits into no pack; remove tags", encoded.len());
            return Err(SectionError::Limit { reason }.into());
        }
        self.deliver_root(shape, Vec::new(), root, encoded, sign)
    }

    fn name_delivered(&mut self, root: &mut Root) {
        for (record, section) in self.delivered.drain(..) {
            if root.packs.last() != Some(&record) {
                root.packs.push(record);
            }
            root.sections.push(SectionRef {
                pack: root.packs.len() as u32 - 1,
                ..section
            });
        }
    }

    fn deliver_root(
        &self,
        shape: PackShape,
        mut sections: Vec<Section>,
        root: Root,
        encoded: Vec<u8>,
        sign: impl FnOnce(Root, RootRef) -> Result<Posted, WriteError>,
    ) -> Result<(), WriteError> {
        let len = encoded.len() as u32;
        sections.push(Section {
            kind: SectionKind::Root,
            bytes: encoded,
            carries: Carries::default(),
        });
        let (plain, sections) = lay_out(sections);
        let outgoing = self.run.seal_metadata(shape, &plain)?;
        let root_ref = RootRef {
            pack: outgoing.record.clone(),
            offset: plain.len() as u32 - len,
            len,
        };
        let posted = sign(root, root_ref)?;
        self.run.deliver_metadata(outgoing, sections, Some(posted))?;
        Ok(())
    }
}

impl Run<'_> {
    /// Delivers sections that no root names yet, in packs of their own.
    pub fn deliver_inline(&self, sections: Vec<Section>) -> Result<(), WriteError> {
        let mut outbox = Outbox::new(self);
        for section in sections {
            outbox.push(section)?;
        }
        outbox.flush()
    }

    fn seal_metadata(
        &self,
        shape: PackShape,
        plain: &[u8],
    ) -> Result<upload_queue::uploader::OutgoingPack, WriteError> {
        self.count_pack(plain.len());
        self.writer.seal(shape, plain, Purpose::Metadata)
    }
}

/// `root` as it is in the pack that carries it behind `sections`.
fn with_own(root: &Root, sections: &[Section]) -> Root {
    let mut root = root.clone();
    let own = root.packs.len() as u32;
    let mut offset = 0;
    for section in sections {
        let len = section.bytes.len() as u32;
        root.sections.push(SectionRef {
            kind: section.kind as u8,
            pack: own,
            offset,
            len,
        });
        offset += len;
    }
    root
}

/// Sections end to end, with their offsets.
fn lay_out(sections: Vec<Section>) -> (Vec<u8>, Vec<(u32, Section)>) {
    let mut plain = Vec::new();
    let laid = sections
        .into_iter()
        .map(|section| {
            let offset = plain.len() as u32;
            plain.extend_from_slice(&section.bytes);
            (offset, section)
        })
        .collect();
    (plain, laid)
}

/// Cuts sections into runs of at most `bytes_max`.
fn groups(sections: Vec<Section>, bytes_max: usize) -> Vec<Vec<Section>> {
    let mut groups: Vec<Vec<Section>> = Vec::new();
    let mut bytes = 0;
    for section in sections {
        bytes += section.bytes.len();
        match groups.last_mut() {
            Some(group) if bytes <= bytes_max => group.push(section),
            _ => {
                bytes = section.bytes.len();
                groups.push(vec![section]);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(bytes: usize) -> Section {
        Section {
            kind: SectionKind::Index,
            bytes: vec![1; bytes],
            carries: Carries::default(),
        }
    }

    #[test]
    fn sections_are_cut_into_runs_that_fit() {
        let lens = |sections: &[usize], max| -> Vec<usize> {
            groups(sections.iter().map(|len| section(*len)).collect(), max)
                .iter()
                .map(Vec::len)
                .collect()
        };
        assert_eq!(lens(&[4, 4, 4, 9, 1, 1], 10), [2, 1, 2, 1]);
        assert_eq!(lens(&[], 10), []);
    }

    #[test]
    fn a_root_names_the_sections_beside_it_by_the_position_behind_its_packs() {
        let root = with_own(&Root::default(), &[section(5), section(7)]);
        let places: Vec<_> = root
            .sections
            .iter()
            .map(|section| (section.pack, section.offset, section.len))
            .collect();
        assert_eq!(places, [(0, 0, 5), (0, 5, 7)]);
        let own = PackRecord {
            manifest: vec![1],
            wrapped_key: [0; 80],
        };
        assert_eq!(root.pack_of(&root.sections[0], &own), Some(&own));
    }
}
