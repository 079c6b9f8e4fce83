//! A set of packs by number, as runs of numbers: what a snapshot says that it needs (docs/format/disk.md §5).

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};

use super::{CommitError, PackNumber};

/// Runs of one section. Chosen: a section is at most 160 KiB, and has room beside the root in the smallest large pack.
const SECTION_RUNS: usize = 16 << 10;

const WHAT: &str = "The list of packs of a snapshot";

/// A part of a set, in the order of the numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
struct Section {
    /// Runs: numbers that are left out since the one before, or 0, and numbers that are in, one at least.
    #[n(0)]
    runs: Vec<(u32, u32)>,
}

/// The sections of a set.
pub fn encode(packs: &BTreeSet<PackNumber>) -> Vec<Vec<u8>> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    let mut end = 0;
    for pack in packs {
        match runs.last_mut() {
            Some((_, count)) if *pack == end => *count += 1,
            _ => runs.push((pack - end, 1)),
        }
        end = pack.saturating_add(1);
    }
    // Each section is whole by itself, but for where it begins, which is where the one before ended.
    let sections = runs.chunks(SECTION_RUNS).map(|runs| Section { runs: runs.to_vec() });
    sections.map(|section| proto::record::to_cbor(&section)).collect()
}

/// Takes the packs of a section in, which comes behind all that were taken in so far; `next` is the number behind the last of these.
/// All are below `end`.
pub fn decode(
    section: &[u8],
    next: &mut PackNumber,
    end: PackNumber,
    into: &mut BTreeSet<PackNumber>,
) -> Result<(), CommitError> {
    let malformed = || CommitError::malformed(WHAT, "it has packs that the disk has not");
    let section: Section = minicbor::decode(section).map_err(|error| CommitError::malformed(WHAT, error))?;
    for (left_out, count) in section.runs {
        let first = next.checked_add(left_out).ok_or_else(malformed)?;
        let behind = first.checked_add(count).filter(|behind| *behind <= end && count > 0);
        *next = behind.ok_or_else(malformed)?;
        into.extend(first..*next);
    }
    Ok(())
}
