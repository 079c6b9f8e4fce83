//! A file's extents with their ends, so that the one at an offset is found without counting from the start.

use std::ops::Range;

use proto::cap_index::Extent;

use crate::restore::RestoreError;

/// The extents of a file.
pub(super) struct Extents {
    list: Vec<Extent>,
    /// Where each ends in the file.
    ends: Vec<u64>,
}

impl Extents {
    pub(super) fn new(list: Vec<Extent>) -> Result<Self, RestoreError> {
        let mut end = 0u64;
        let mut ends = Vec::with_capacity(list.len());
        for extent in &list {
            end = end.checked_add(extent.len()).ok_or_else(|| RestoreError::Damaged {
                what: "A file's list of extents".to_owned(),
                reason: "it is longer than a file can be".to_owned(),
            })?;
            ends.push(end);
        }
        Ok(Self { list, ends })
    }

    /// Length of the file.
    pub(super) fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The extents that `range` of the file touches, each with what of the extent itself is in it.
    pub(super) fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = (Extent, Range<u64>)> {
        let first = self.ends.partition_point(|end| *end <= range.start);
        (first..self.list.len())
            .map(|index| (self.list[index], self.start(index), self.ends[index]))
            .take_while(move |(_, start, _)| *start < range.end)
            .filter(|(_, start, end)| start < end)
            .map(move |(extent, start, end)| {
                let part = range.start.max(start) - start..range.end.min(end) - start;
                (extent, part)
            })
    }

    /// The first offset from `offset` on that is in an extent as wanted.
    pub(super) fn next(&self, offset: u64, wanted: impl Fn(&Extent) -> bool) -> Option<u64> {
        let first = self.ends.partition_point(|end| *end <= offset);
        let found = (first..self.list.len()).find(|index| wanted(&self.list[*index]) && !self.list[*index].is_empty());
        found.map(|index| self.start(index).max(offset))
    }

    pub(super) fn bytes_outside_holes(&self) -> u64 {
        let chunks = self.list.iter().filter(|extent| matches!(extent, Extent::Chunk(..)));
        chunks.map(Extent::len).sum()
    }

    fn start(&self, index: usize) -> u64 {
        match index {
            0 => 0,
            _ => self.ends[index - 1],
        }
    }
}

// A list of one range is meant, not the numbers in it.
#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use proto::id::ChunkId;

    use super::*;

    fn extents() -> Extents {
        let chunk = |number| Extent::Chunk(ChunkId([number; 16]), 10);
        Extents::new(vec![chunk(1), chunk(2), Extent::Hole(80), chunk(3), Extent::Hole(0)]).unwrap()
    }

    #[test]
    fn a_range_touches_exactly_the_extents_that_it_overlaps() {
        let parts = |range| extents().overlapping(range).map(|(_, part)| part).collect::<Vec<_>>();
        assert_eq!(parts(5..25), [5..10, 0..10, 0..5]);
        assert_eq!(parts(10..11), [0..1]);
        assert_eq!(parts(99..200), [79..80, 0..10]);
        assert_eq!(parts(110..200), []);
        assert_eq!(extents().len(), 110);
    }

    #[test]
    fn holes_and_what_lies_between_them_are_found() {
        let is_hole = |extent: &Extent| matches!(extent, Extent::Hole(_));
        let hole = |offset| extents().next(offset, is_hole);
        let chunk = |offset| extents().next(offset, |extent| !is_hole(extent));
        assert_eq!([hole(0), hole(50), hole(100)], [Some(20), Some(50), None]);
        assert_eq!(
            [chunk(0), chunk(15), chunk(20), chunk(110)],
            [Some(0), Some(15), Some(100), None]
        );
        assert_eq!(extents().bytes_outside_holes(), 30);
    }

    #[test]
    fn a_list_that_overflows_is_damaged() {
        assert!(Extents::new(vec![Extent::Hole(u64::MAX), Extent::Hole(1)]).is_err());
    }
}
