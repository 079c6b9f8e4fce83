//! Runs of blocks cut to what is read at once, and their blocks out of slots.

use crate::commit::PackNumber;
use crate::extents::{Place, Run, SLOT_BLOCKS};
use crate::journal::record::BLOCK_BYTES;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Bytes that are read out of a pack at once, about. Chosen: a read of a megabyte is one, and memory is bounded.
pub(super) const READ_BYTES: u32 = 1 << 20;

/// Copies the blocks of a part of a run, which are in one slot, to where they belong in what begins at a block; false if the slot does
/// not have them.
pub(super) fn copy_part(part: &Run, slot: &[u8], start: u64, into: &mut [u8]) -> bool {
    let bytes = part.count as usize * BLOCK_BYTES;
    let (from, to) = (
        usize::from(part.place.block()) * BLOCK_BYTES,
        (part.start - start) as usize * BLOCK_BYTES,
    );
    let blocks = slot.get(from..from + bytes);
    blocks.is_some_and(|blocks| {
        into[to..to + bytes].copy_from_slice(blocks);
        true
    })
}

/// The pack of a run, its first slot and its last one.
pub(super) fn slots_of(run: &Run) -> (PackNumber, u32, u32) {
    let last = run.place.after(run.count as u32 - 1);
    (run.place.pack, run.place.slot(), last.slot())
}

/// A run, slot by slot.
pub(super) fn parts(run: &Run) -> Vec<Run> {
    cut(run, |place| u64::from(SLOT_BLOCKS - u32::from(place.block())))
}

/// A run in pieces that are read at once: whole slots.
pub(super) fn pieces(run: &Run) -> Vec<Run> {
    let most = u64::from(READ_BYTES) / BLOCK;
    cut(run, |place| most - u64::from(place.block()))
}

fn cut(run: &Run, room: impl Fn(Place) -> u64) -> Vec<Run> {
    let mut parts = Vec::new();
    let mut at = *run;
    while at.count > 0 {
        let count = room(at.place).min(at.count);
        parts.push(Run { count, ..at });
        at = Run {
            start: at.start + count,
            count: at.count - count,
            place: at.place.after(count as u32),
        };
    }
    parts
}
