//! A state of a volume that nobody changes any more, as a device: no journal, reads alone.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::backing::Backing;
use crate::committed::CommittedBlocks;
use crate::device::{Change, Device, DeviceError, Extent};
use crate::journal::record::BLOCK_BYTES;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// The device.
pub struct Kept {
    blocks: Arc<CommittedBlocks>,
    size: u64,
}

impl Kept {
    /// Of what was opened.
    pub fn new(blocks: CommittedBlocks) -> Self {
        let size = blocks.committed().root.size;
        Self {
            blocks: Arc::new(blocks),
            size,
        }
    }

    /// The blocks (first, count) that a range touches.
    fn touched(&self, offset: u64, length: u64) -> Result<(u64, u64), DeviceError> {
        let end = offset.checked_add(length).filter(|end| *end <= self.size);
        let end = end.ok_or(DeviceError::OutOfRange)?.div_ceil(BLOCK);
        Ok((offset / BLOCK, end - offset / BLOCK))
    }
}

impl Device for Kept {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn apply(&self, _changes: &[Change<'_>]) -> Result<(), DeviceError> {
        Err(DeviceError::ReadOnly)
    }

    fn ready(&self, _bytes: u64) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async { Ok(()) })
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async { Ok(()) })
    }

    fn read_now(&self, offset: u64, into: &mut [u8]) -> Result<bool, DeviceError> {
        let (start, count) = self.touched(offset, into.len() as u64)?;
        let mut blocks = vec![0; count as usize * BLOCK_BYTES];
        let is_here = self.blocks.read_now(start, &mut blocks)?;
        let at = (offset - start * BLOCK) as usize;
        into.copy_from_slice(&blocks[at..at + into.len()]);
        Ok(is_here)
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Vec<u8>, DeviceError>> {
        Box::pin(async move {
            let (start, count) = self.touched(offset, length as u64)?;
            let mut blocks = self.blocks.read(start, count).await?;
            blocks.drain(..(offset - start * BLOCK) as usize);
            blocks.truncate(length);
            Ok(blocks)
        })
    }

    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, DeviceError> {
        let (start, count) = self.touched(offset, length)?;
        let mut at = start * BLOCK;
        let mut clipped = Vec::new();
        for extent in self.blocks.extents(start, count)? {
            let (from, to) = (at.max(offset), (at + extent.length).min(offset + length));
            at += extent.length;
            if from < to {
                clipped.push(Extent {
                    length: to - from,
                    ..extent
                });
            }
        }
        Ok(clipped)
    }

    fn prefetch(&self, offset: u64, length: u64) {
        if let Ok((start, count)) = self.touched(offset, length) {
            self.blocks.prefetch(start, count);
        }
    }
}
