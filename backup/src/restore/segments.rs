//! Which segments of which data shares hold the plaintext ranges asked for, and the ranges cut out of opened segments.
//!
//! Pure arithmetic: nothing here knows a peer or a key.

use std::ops::Range;

use bytes::Bytes;
use proto::pack::segments_of;
use proto::shape::{PackShape, SEGMENT_BYTES, SEGMENT_PLAIN_BYTES};

/// Runs of wanted segments with at most so many unwanted ones between them are fetched as one: two segments take less
/// time on a home uplink than another round trip. Chosen.
const GAP_SEGMENTS_MAX: u32 = 2;

/// What is wanted of one data share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShareWant {
    /// Number of the share in its pack.
    pub(super) index: u8,
    /// Runs of segments, numbered from the share's first, ascending and apart.
    pub(super) runs: Vec<Range<u32>>,
}

/// Opened segments end to end.
pub(super) struct PlainRun {
    /// Number of the first segment in the pack.
    pub(super) first: u32,
    /// Their plaintext.
    pub(super) bytes: Bytes,
}

/// Byte range of a run of segments in its share's stored form.
pub(super) fn byte_range(run: &Range<u32>) -> Range<u32> {
    run.start * SEGMENT_BYTES as u32..run.end * SEGMENT_BYTES as u32
}

/// Whether every range lies inside of a pack of this shape.
pub(super) fn all_inside(shape: PackShape, ranges: &[(u32, u32)]) -> bool {
    ranges
        .iter()
        .all(|&(offset, len)| u64::from(offset) + u64::from(len) <= shape.plain_bytes() as u64)
}

/// What is wanted of each data share for the plaintext `ranges`, which lie inside of the pack. A share of which more than
/// half is wanted is wanted whole: one get instead of many.
pub(super) fn wants(shape: PackShape, ranges: &[(u32, u32)]) -> Vec<ShareWant> {
    let mut segments: Vec<Range<u32>> = ranges
        .iter()
        .filter(|(_, len)| *len > 0)
        .map(|&(offset, len)| segments_of(offset, len))
        .collect();
    segments.sort_by_key(|run| run.start);
    // Before they are cut at shares: a long run may reach past the start of the next in a share that both need.
    segments.dedup_by(|next, run| {
        let joined = next.start <= run.end;
        if joined {
            run.end = run.end.max(next.end);
        }
        joined
    });
    let mut wants: Vec<ShareWant> = Vec::new();
    for run in segments {
        let mut start = run.start;
        while start < run.end {
            let share = start / shape.segments_per_share();
            let first = share * shape.segments_per_share();
            let end = run.end.min(first + shape.segments_per_share());
            add_run(&mut wants, share as u8, start - first..end - first);
            start = end;
        }
    }
    for want in &mut wants {
        let segments: u32 = want.runs.iter().map(|run| run.end - run.start).sum();
        if segments * 2 > shape.segments_per_share() {
            want.runs = std::iter::once(0..shape.segments_per_share()).collect();
        }
    }
    wants
}

fn add_run(wants: &mut Vec<ShareWant>, index: u8, run: Range<u32>) {
    let same_share = wants.last_mut().filter(|want| want.index == index);
    let Some(want) = same_share else {
        let runs = std::iter::once(run).collect();
        wants.push(ShareWant { index, runs });
        return;
    };
    match want.runs.last_mut() {
        Some(last) if run.start <= last.end + GAP_SEGMENTS_MAX => last.end = last.end.max(run.end),
        _ => want.runs.push(run),
    }
}

/// The plaintext range `offset..offset + len` out of `runs`, which are sorted and hold all of it. Only a range that
/// crosses from one run to the next is copied.
pub(super) fn cut(runs: &[PlainRun], offset: u32, len: u32) -> Bytes {
    let (mut position, end) = (offset as usize, offset as usize + len as usize);
    let mut parts = Vec::new();
    let after = runs.partition_point(|run| run.first as usize * SEGMENT_PLAIN_BYTES <= position);
    for run in &runs[after.saturating_sub(1)..] {
        if position >= end {
            break;
        }
        let start = run.first as usize * SEGMENT_PLAIN_BYTES;
        let stop = end.min(start + run.bytes.len());
        parts.push(run.bytes.slice(position - start..stop - start));
        position = stop;
    }
    match parts.len() {
        0 => Bytes::new(),
        1 => parts.swap_remove(0),
        _ => parts.concat().into(),
    }
}

// A list of one run is meant, not the numbers in it.
#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use proptest::prelude::*;
    use proto::shape::ShareSize;

    use super::*;

    const SHAPE: PackShape = PackShape {
        k: 3,
        n: 5,
        share: ShareSize::Small,
    };

    #[test]
    fn a_range_across_two_shares_wants_both() {
        let plain = SEGMENT_PLAIN_BYTES as u32;
        let wants = wants(SHAPE, &[(3 * plain + 5, plain)]);
        assert_eq!(
            wants,
            [
                ShareWant {
                    index: 0,
                    runs: vec![3..4]
                },
                ShareWant {
                    index: 1,
                    runs: vec![0..1]
                },
            ]
        );
    }

    #[test]
    fn more_than_half_of_a_share_is_fetched_whole() {
        let plain = SEGMENT_PLAIN_BYTES as u32;
        let wants = wants(SHAPE, &[(0, 2 * plain + 1)]);
        assert_eq!(
            wants,
            [ShareWant {
                index: 0,
                runs: vec![0..4]
            }]
        );
    }

    #[test]
    fn a_range_beyond_the_pack_is_noticed_even_if_it_overflows() {
        assert!(all_inside(SHAPE, &[(0, SHAPE.plain_bytes() as u32)]));
        assert!(!all_inside(SHAPE, &[(1, SHAPE.plain_bytes() as u32)]));
        assert!(!all_inside(SHAPE, &[(u32::MAX, u32::MAX)]));
    }

    proptest! {
        #[test]
        fn cut_ranges_are_the_bytes_asked_for(
            asked in proptest::collection::vec((0u32..780_000, 0u32..200_000), 1..20)
        ) {
            let total = SHAPE.plain_bytes() as u32;
            let plain: Vec<u8> = (0..total).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let ranges: Vec<(u32, u32)> = asked.iter().map(|&(offset, len)| (offset, len.min(total - offset))).collect();
            let mut runs = Vec::new();
            for want in wants(SHAPE, &ranges) {
                for run in want.runs {
                    let first = u32::from(want.index) * SHAPE.segments_per_share() + run.start;
                    let start = first as usize * SEGMENT_PLAIN_BYTES;
                    let end = start + (run.end - run.start) as usize * SEGMENT_PLAIN_BYTES;
                    runs.push(PlainRun { first, bytes: Bytes::copy_from_slice(&plain[start..end]) });
                }
            }
            for (offset, len) in ranges {
                let expected = &plain[offset as usize..(offset + len) as usize];
                prop_assert!(cut(&runs, offset, len) == expected);
            }
        }
    }
}
