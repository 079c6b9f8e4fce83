//! Changes in bytes as changes of whole blocks, with what they leave of the blocks they begin and end in.

use std::borrow::Cow;

use crate::device::{Change, DeviceError};
use crate::journal::record::{BLOCK_BYTES, BlockRange, RANGE_BYTES, RangeKind, SEALED_BYTES, head_bytes};

const BLOCK: u64 = BLOCK_BYTES as u64;
const ZEROS: &[u8] = &[0; BLOCK_BYTES];

/// Records' worth of changes: ranges, and the blocks of those that are written.
#[derive(Default)]
pub struct BlockChanges<'a> {
    /// What becomes of which blocks, in order.
    pub ranges: Vec<BlockRange>,
    /// Each of a block's length; whole ones are not copied.
    pub blocks: Vec<Cow<'a, [u8]>>,
}

/// What one record takes of them: ranges, and the blocks of those that are written.
pub type Part<'a, 'b> = (Vec<BlockRange>, &'b [Cow<'a, [u8]>]);

/// Gives a block as it is.
pub type ReadBlock<'a> = &'a dyn Fn(u64, &mut [u8]) -> Result<(), DeviceError>;

/// The blocks (first, end) that a range of bytes touches.
pub fn touched(offset: u64, length: u64) -> (u64, u64) {
    (offset / BLOCK, (offset + length).div_ceil(BLOCK))
}

impl<'a> BlockChanges<'a> {
    /// Adds a change; `read` gives a block as it was before all these changes.
    pub fn add(&mut self, change: &Change<'a>, read: ReadBlock<'_>) -> Result<(), DeviceError> {
        let (offset, length) = change.range();
        let end = offset + length;
        let mut at = offset;
        while at < end {
            let block = at / BLOCK;
            let whole = (end - at) / BLOCK;
            if at.is_multiple_of(BLOCK) && whole > 0 {
                let count = whole.min(u64::from(u32::MAX) / 2);
                let bytes = count * BLOCK;
                match *change {
                    Change::Write { data, .. } => {
                        let from = (at - offset) as usize;
                        let blocks = data[from..from + bytes as usize].chunks_exact(BLOCK_BYTES);
                        blocks
                            .zip(block..)
                            .for_each(|(bytes, block)| self.write(block, bytes.into()));
                    }
                    _ => self.push(block, count as u32, RangeKind::Zero),
                }
                at += bytes;
                continue;
            }
            let next = ((block + 1) * BLOCK).min(end);
            let mut bytes = vec![0; BLOCK_BYTES];
            if !self.newest(block, &mut bytes) {
                read(block, &mut bytes)?;
            }
            let part = &mut bytes[(at % BLOCK) as usize..][..(next - at) as usize];
            match *change {
                Change::Write { data, .. } => part.copy_from_slice(&data[(at - offset) as usize..][..part.len()]),
                _ => part.fill(0),
            }
            self.write(block, bytes.into());
            at = next;
        }
        Ok(())
    }

    /// A block of zeros carries nothing.
    fn write(&mut self, block: u64, bytes: Cow<'a, [u8]>) {
        if *bytes == *ZEROS {
            self.push(block, 1, RangeKind::Zero);
        } else {
            self.push(block, 1, RangeKind::Write);
            self.blocks.push(bytes);
        }
    }

    fn push(&mut self, start: u64, count: u32, kind: RangeKind) {
        if let Some(last) = self.ranges.last_mut().filter(|last| last.kind == kind)
            && last.start + u64::from(last.count) == start
            && let Some(sum) = last.count.checked_add(count)
        {
            last.count = sum;
            return;
        }
        self.ranges.push(BlockRange { start, count, kind });
    }

    /// Cuts them into records of at most so many bytes, which have room for a head and some blocks; in order.
    pub fn records(&self, bytes_max: u64) -> Vec<Part<'a, '_>> {
        let (mut records, mut blocks) = (Vec::new(), &self.blocks[..]);
        let (mut ranges, mut written, mut bytes) = (Vec::new(), 0, head_bytes(0));
        for range in &self.ranges {
            let mut rest = *range;
            while rest.count > 0 {
                let each = match rest.kind {
                    RangeKind::Write => SEALED_BYTES,
                    RangeKind::Zero => 0,
                };
                let room = bytes_max - bytes;
                if room < RANGE_BYTES as u64 + each {
                    let (now, later) = blocks.split_at(written);
                    records.push((std::mem::take(&mut ranges), now));
                    (blocks, written, bytes) = (later, 0, head_bytes(0));
                    continue;
                }
                let fit = (room - RANGE_BYTES as u64).checked_div(each);
                let count = fit.map_or(rest.count, |fit| fit.min(u64::from(rest.count)) as u32);
                ranges.push(BlockRange { count, ..rest });
                rest.start += u64::from(count);
                rest.count -= count;
                bytes += RANGE_BYTES as u64 + u64::from(count) * each;
                written += if each > 0 { count as usize } else { 0 };
            }
        }
        records.push((ranges, blocks));
        records
    }

    /// The block as it is after what was added so far; false if that changes nothing of it.
    fn newest(&self, block: u64, into: &mut [u8]) -> bool {
        let mut end = self.blocks.len();
        for range in self.ranges.iter().rev() {
            let written = match range.kind {
                RangeKind::Write => range.count as usize,
                RangeKind::Zero => 0,
            };
            let first = end - written;
            if (range.start..range.start + u64::from(range.count)).contains(&block) {
                match range.kind {
                    RangeKind::Write => into.copy_from_slice(&self.blocks[first + (block - range.start) as usize]),
                    RangeKind::Zero => into.fill(0),
                }
                return true;
            }
            end = first;
        }
        false
    }
}
