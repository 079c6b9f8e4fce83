//! A block device as its faces (NBD, FUSE) see it.

use std::io;

use futures::future::BoxFuture;

/// One change of a device's content, in bytes; any alignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// These bytes from there on.
    Write {
        /// Where it starts.
        offset: u64,
        /// What is there afterwards.
        data: &'a [u8],
    },
    /// Zeros from there on.
    Zero {
        /// Where it starts.
        offset: u64,
        /// How many bytes.
        length: u64,
    },
    /// Nobody wants these bytes any more: they read as zeros.
    Trim {
        /// Where it starts.
        offset: u64,
        /// How many bytes.
        length: u64,
    },
}

impl Change<'_> {
    /// Where it starts, and how many bytes it changes.
    pub fn range(&self) -> (u64, u64) {
        match self {
            Self::Write { offset, data } => (*offset, data.len() as u64),
            Self::Zero { offset, length } | Self::Trim { offset, length } => (*offset, *length),
        }
    }
}

/// What a range holds, for block status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// How many bytes.
    pub length: u64,
    /// What they are.
    pub kind: ExtentKind,
}

/// What the bytes of an extent are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentKind {
    /// Bytes that were written.
    Data,
    /// Written as zeros, trimmed or never written: it reads as zeros, and is a hole.
    Zero,
}

/// What a device could not do.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Outside of the device.
    #[error("The range is outside of the device")]
    OutOfRange,
    /// Nothing may be written to it.
    #[error("The device is read-only")]
    ReadOnly,
    /// The journal is full, and nothing was taken from it for too long.
    #[error("The journal is full, and nothing of it could be put elsewhere")]
    NoSpace,
    /// Some of it lies where it cannot be had now.
    #[error("Not to be had now: {0}")]
    Unavailable(String),
    /// Some of it is not what was written.
    #[error("Damaged: {0}")]
    Damaged(String),
    /// The disk below failed.
    #[error("The disk below failed: {0}")]
    Io(#[from] io::Error),
}

/// A device of bytes. What waits is a future; everything else returns at once, or as soon as the disk below does.
pub trait Device: Send + Sync + 'static {
    /// How many bytes it has.
    fn size(&self) -> u64;

    /// Whether every `apply` is refused.
    fn is_read_only(&self) -> bool;

    /// Applies in this order. When it returns, later reads see them, and they survive the death of this process (not a power
    /// cut). A change that ends within a block needs the rest of that block: if only peers have that, this call waits for them
    /// and holds its thread, unless the block was read just before. After a failure some of them may have been applied.
    fn apply(&self, changes: &[Change<'_>]) -> Result<(), DeviceError>;

    /// Room for so many bytes of changes; waits while the journal is full (slow, never an error first).
    fn ready(&self, bytes: u64) -> BoxFuture<'_, Result<(), DeviceError>>;

    /// All that was applied before the call, by whomever, survives a power cut when it is done. Group commit off the caller's
    /// thread.
    fn flush(&self) -> BoxFuture<'_, Result<(), DeviceError>>;

    /// Reads what can be had at once; false if some of it has to be fetched from peers (then `read`).
    fn read_now(&self, offset: u64, into: &mut [u8]) -> Result<bool, DeviceError>;

    /// Reads, and waits for what has to be fetched.
    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Vec<u8>, DeviceError>>;

    /// What a range holds, in order; neighbours of one kind may be given as one or as several.
    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, DeviceError>;

    /// Read-ahead of a range that will be asked for.
    fn prefetch(&self, offset: u64, length: u64);
}
