//! What lies behind the journal: the committed content of a volume. No journal, no keys, no map of ours is known there.

use futures::future::BoxFuture;

use crate::device::{DeviceError, Extent, ExtentKind};
use crate::journal::record::BLOCK_BYTES;

/// Committed content, by whole blocks.
pub trait Backing: Send + Sync + 'static {
    /// The number of the last record that is in it, as of when the volume is opened.
    fn committed_seq(&self) -> u64;
    /// Bytes of the device that it is the content of; none if it does not know.
    fn size(&self) -> Option<u64>;
    /// Reads blocks that can be had at once; false if some have to be fetched.
    fn read_now(&self, start: u64, into: &mut [u8]) -> Result<bool, DeviceError>;
    /// Reads blocks, and waits for them.
    fn read(&self, start: u64, count: u64) -> BoxFuture<'_, Result<Vec<u8>, DeviceError>>;
    /// What a range of blocks holds; lengths in bytes.
    fn extents(&self, start: u64, count: u64) -> Result<Vec<Extent>, DeviceError>;
    /// Blocks that will be asked for.
    fn prefetch(&self, start: u64, count: u64);
}

/// Nothing was ever committed: all blocks are zeros.
pub struct NoBacking;

impl Backing for NoBacking {
    fn committed_seq(&self) -> u64 {
        0
    }

    fn size(&self) -> Option<u64> {
        None
    }

    fn read_now(&self, _start: u64, into: &mut [u8]) -> Result<bool, DeviceError> {
        into.fill(0);
        Ok(true)
    }

    fn read(&self, _start: u64, count: u64) -> BoxFuture<'_, Result<Vec<u8>, DeviceError>> {
        Box::pin(async move { Ok(vec![0; count as usize * BLOCK_BYTES]) })
    }

    fn extents(&self, _start: u64, count: u64) -> Result<Vec<Extent>, DeviceError> {
        let (length, kind) = (count * BLOCK_BYTES as u64, ExtentKind::Zero);
        Ok(vec![Extent { length, kind }])
    }

    fn prefetch(&self, _start: u64, _count: u64) {}
}
