//! A set of packs by number, as runs of numbers: what a snapshot says that it needs (docs/format/disk.md §5).

use std::ops::Range;

use minicbor::{Decode, Encode};

use super::{CommitError, PackNumber};

/// Runs of one section. Chosen: a section is at most 160 KiB, and has room beside the root in the smallest large pack.
const SECTION_RUNS: usize = 16 << 10;

const WHAT: &str = "The list of packs of a snapshot";

/// The set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackSet {
    /// Ascending, with something left out between them.
    runs: Vec<Range<PackNumber>>,
}

/// A part of a set, in the order of the numbers.
#[derive(Debug, Encode, Decode)]
struct Section {
    /// Runs: numbers that are left out since the one before, or 0, and numbers that are in, one at least.
    #[n(0)]
    runs: Vec<(u32, u32)>,
}

impl FromIterator<PackNumber> for PackSet {
    /// Of numbers that ascend.
    fn from_iter<I: IntoIterator<Item = PackNumber>>(packs: I) -> Self {
        let mut runs: Vec<Range<PackNumber>> = Vec::new();
        for pack in packs {
            match runs.last_mut() {
                Some(run) if run.end == pack => run.end += 1,
                _ => runs.push(pack..pack + 1),
            }
        }
        Self { runs }
    }
}

impl PackSet {
    /// Whether a pack is in it.
    pub fn contains(&self, pack: PackNumber) -> bool {
        let behind = self.runs.partition_point(|run| run.end <= pack);
        self.runs.get(behind).is_some_and(|run| run.contains(&pack))
    }

    /// Its sections, in their order.
    pub fn encode(&self) -> Vec<Vec<u8>> {
        let mut end = 0;
        let mut pairs = Vec::with_capacity(self.runs.len());
        for run in &self.runs {
            pairs.push((run.start - end, run.end - run.start));
            end = run.end;
        }
        let sections = pairs.chunks(SECTION_RUNS).map(|runs| Section { runs: runs.to_vec() });
        sections.map(|section| proto::record::to_cbor(&section)).collect()
    }

    /// Takes the next section in; all its packs are numbered below `end`.
    pub fn take(&mut self, section: &[u8], end: PackNumber) -> Result<(), CommitError> {
        let malformed = || CommitError::malformed(WHAT, "it has packs that the disk has not");
        let section: Section = minicbor::decode(section).map_err(|error| CommitError::malformed(WHAT, error))?;
        for (left_out, count) in section.runs {
            let begin = self.runs.last().map_or(0, |run| run.end).checked_add(left_out);
            let begin = begin.ok_or_else(malformed)?;
            let behind = begin
                .checked_add(count)
                .filter(|behind| *behind <= end && count > 0)
                .ok_or_else(malformed)?;
            self.runs.push(begin..behind);
        }
        Ok(())
    }
}
