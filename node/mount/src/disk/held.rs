//! A change that is held while it waits: for room, or for the blocks that it begins or ends in. The kernel's own bytes are in the buffer
//! of the thread that answers it, which goes on with the next request.

use disk::journal::record::BLOCK_BYTES;
use disk::{Change, Device, DeviceError};

const BLOCK: u64 = BLOCK_BYTES as u64;
/// What a change counts for beside its bytes when room is asked for: its place in the journal.
const CHANGE_BYTES: u64 = 64;
/// Most bytes of one `apply` that zeroes or trims: the device may look up all that is in them.
const EFFECT_BYTES: u64 = 1 << 30;

/// A change with bytes of its own.
pub(super) enum Held {
    Write { offset: u64, data: Vec<u8> },
    Zero { offset: u64, length: u64 },
    Trim { offset: u64, length: u64 },
}

impl Held {
    pub(super) fn of(change: &Change<'_>) -> Self {
        match *change {
            Change::Write { offset, data } => Self::Write {
                offset,
                data: data.to_vec(),
            },
            Change::Zero { offset, length } => Self::Zero { offset, length },
            Change::Trim { offset, length } => Self::Trim { offset, length },
        }
    }

    pub(super) fn change(&self) -> Change<'_> {
        match *self {
            Self::Write { offset, ref data } => Change::Write { offset, data },
            Self::Zero { offset, length } => Change::Zero { offset, length },
            Self::Trim { offset, length } => Change::Trim { offset, length },
        }
    }

    /// The same in parts, none of which has a range too long to look up.
    pub(super) fn parts(self) -> Vec<Self> {
        let (offset, length) = match self {
            Self::Write { .. } => return vec![self],
            Self::Zero { offset, length } | Self::Trim { offset, length } => (offset, length),
        };
        let is_trim = matches!(self, Self::Trim { .. });
        let starts = (0..length).step_by(EFFECT_BYTES as usize);
        let parts = starts.map(|start| {
            let (offset, length) = (offset + start, (length - start).min(EFFECT_BYTES));
            match is_trim {
                true => Self::Trim { offset, length },
                false => Self::Zero { offset, length },
            }
        });
        parts.collect()
    }
}

/// Bytes of room that a change needs.
pub(super) fn room(change: &Change<'_>) -> u64 {
    match change {
        Change::Write { data, .. } => CHANGE_BYTES + data.len() as u64,
        Change::Zero { .. } | Change::Trim { .. } => CHANGE_BYTES,
    }
}

/// The blocks (offset, length) that a change leaves a part of as it was: whoever changes them has to have them.
pub(super) fn edges(change: &Change<'_>, size: u64) -> impl Iterator<Item = (u64, usize)> + use<> {
    let (offset, length) = change.range();
    let end = offset + length;
    let first = (!offset.is_multiple_of(BLOCK)).then_some(offset / BLOCK);
    let last = (!end.is_multiple_of(BLOCK) && end < size).then_some(end / BLOCK);
    let edges = [first, last.filter(|last| Some(*last) != first)];
    edges.into_iter().flatten().map(move |block| {
        let start = block * BLOCK;
        (start, BLOCK.min(size - start) as usize)
    })
}

/// Whether `apply` needs nothing that would have to be fetched.
pub(super) fn is_here(device: &dyn Device, change: &Change<'_>) -> bool {
    edges(change, device.size()).all(|(start, length)| {
        let mut block = [0; BLOCK_BYTES];
        // What fails here fails in `apply`, too, which says why.
        device.read_now(start, &mut block[..length]).unwrap_or(true)
    })
}

/// Fetches what `apply` needs, after which it does not wait.
pub(super) async fn fetch(device: &dyn Device, change: &Change<'_>) -> Result<(), DeviceError> {
    for (start, length) in edges(change, device.size()) {
        device.read(start, length).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges_of(offset: u64, length: u64, size: u64) -> Vec<(u64, usize)> {
        edges(&Change::Zero { offset, length }, size).collect()
    }

    #[test]
    fn the_blocks_that_are_needed_are_those_changed_in_part() {
        assert_eq!(edges_of(0, 8192, 1 << 20), []);
        assert_eq!(edges_of(1, 4095, 1 << 20), [(0, 4096)]);
        assert_eq!(edges_of(4096, 1, 1 << 20), [(4096, 4096)]);
        assert_eq!(edges_of(4097, 1, 1 << 20), [(4096, 4096)], "one block is read once");
        assert_eq!(edges_of(4095, 2, 1 << 20), [(0, 4096), (4096, 4096)]);
        assert_eq!(edges_of(4096, 904, 5000), [], "all that there is of the last block");
        assert_eq!(edges_of(4097, 10, 5000), [(4096, 904)], "the last block is short");
    }

    #[test]
    fn long_effects_are_cut_and_writes_are_not() {
        let offset = 5;
        for length in [
            1,
            EFFECT_BYTES - 1,
            EFFECT_BYTES,
            EFFECT_BYTES + 1,
            3 * EFFECT_BYTES + 7,
        ] {
            let mut at = offset;
            for part in (Held::Trim { offset, length }).parts() {
                assert!(matches!(part, Held::Trim { .. }));
                let (start, length) = part.change().range();
                assert!(start == at && length > 0 && length <= EFFECT_BYTES);
                at += length;
            }
            assert_eq!(at, offset + length);
        }
        let data = vec![1; 100];
        assert_eq!((Held::Write { offset, data }).parts().len(), 1);
    }
}
