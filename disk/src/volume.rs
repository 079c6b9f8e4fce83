//! A device over a journal, a map of what it has, and a backing for the rest. Every change is in the journal before anybody
//! sees it, and in the map in the journal's order.

mod batch;
mod blocks;
mod maker;
mod pace;
mod range_lock;
mod shared;
mod usage;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use batch::Batch;
use blocks::{BlockChanges, touched};
use futures::future::BoxFuture;
use maker::FileMaker;
use range_lock::RangeLock;
use shared::Shared;
use tokio::sync::watch;
pub use usage::JournalUsage;

use crate::backing::Backing;
use crate::device::{Change, Device, DeviceError, Extent, ExtentKind};
use crate::journal::record::{BLOCK_BYTES, SEALED_BYTES};
use crate::journal::{Flusher, Journal, JournalError, JournalKey, JournalOptions};
use crate::map::{Map, Piece};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Of the journal, in hundredths, above which writers wait. Chosen: the rest is for what was let in already, and for records
/// that are written anew after a sync that failed.
const FULL_PERCENT: u64 = 90;

/// What is shorter is not waited for: timers are no finer.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// How a volume is opened.
pub struct VolumeOptions {
    /// Its journal.
    pub journal: JournalOptions,
    /// Bytes of the device, a multiple of a block.
    pub size: u64,
    /// Whether nothing may be changed.
    pub is_read_only: bool,
    /// How long writers wait for a full journal from which nothing is released.
    pub patience: Duration,
}

/// An open volume.
pub struct Volume {
    shared: Arc<Shared>,
    flusher: Flusher,
    /// None if nothing is ever appended.
    _maker: Option<FileMaker>,
    ranges: RangeLock,
    backing: Arc<dyn Backing>,
    size: AtomicU64,
    is_read_only: bool,
    patience: Duration,
    /// How often something was released.
    released: watch::Sender<u64>,
}

impl From<JournalError> for DeviceError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Full => Self::NoSpace,
            JournalError::Broken => Self::ReadOnly,
            JournalError::Io(error) => Self::Io(error),
            JournalError::TooLong => Self::Io(std::io::ErrorKind::InvalidInput.into()),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl Volume {
    /// Opens a volume, with what its journal has that is not committed.
    pub fn open(options: VolumeOptions, key: JournalKey, backing: Arc<dyn Backing>) -> Result<Self, DeviceError> {
        if let Some(size) = backing.size().filter(|size| *size != options.size) {
            let wanted = options.size;
            return Err(DeviceError::Damaged(format!(
                "the disk has {size} bytes, and not {wanted}"
            )));
        }
        let (journal, entries) = Journal::open(options.journal, key, backing.committed_seq())?;
        let mut map = Map::default();
        entries.iter().for_each(|entry| map.apply(entry));
        let shared = Arc::new(Shared::new(journal, map));
        let maker = match options.is_read_only {
            true => None,
            false => Some(FileMaker::start(shared.clone())?),
        };
        let flushed = shared.clone();
        Ok(Self {
            flusher: Flusher::start(move || flushed.sync())?,
            _maker: maker,
            shared,
            ranges: RangeLock::default(),
            backing,
            size: AtomicU64::new(options.size),
            is_read_only: options.is_read_only,
            patience: options.patience,
            released: watch::Sender::new(0),
        })
    }

    /// A clean end: flushes, and says in the journal that all is durable, so that rot of the last records is found when it is opened. More
    /// may be appended afterwards.
    pub async fn end(&self) -> Result<(), DeviceError> {
        self.flush().await?;
        Ok(self.shared.end()?)
    }

    /// The backing has everything up to this record: the journal needs it no more. Batches are dropped before; files of what is not
    /// flushed stay.
    pub fn release(&self, committed: u64) {
        let mut core = self.shared.lock();
        core.map.release(committed);
        core.journal.release(committed);
        let last = core.journal.last_seq();
        core.marks.release(committed, last);
        drop(core);
        self.released.send_modify(|count| *count += 1);
    }

    /// Another size, from now on. What is beyond a smaller one is trimmed, in the journal. Faces that told their clients the size before go on
    /// saying it until they are asked again.
    pub fn resize(&self, size: u64) -> Result<(), DeviceError> {
        let before = self.size.swap(size, Ordering::AcqRel);
        if size >= before {
            return Ok(());
        }
        let (start, end) = touched(size, before - size);
        // Whoever was let in before has the lock of what it changes.
        let _held = self.ranges.lock(vec![(start, end)]);
        let trim = Change::Trim {
            offset: size,
            length: before - size,
        };
        let mut blocks = BlockChanges::default();
        blocks.add(&trim, &|block, into| self.read_block(block, into))?;
        let bytes_max = self.shared.lock().journal.record_bytes_max();
        for (ranges, blocks) in blocks.records(bytes_max) {
            self.shared.append(&ranges, blocks)?;
        }
        Ok(())
    }

    fn is_full(&self, bytes: u64) -> bool {
        let (used, full) = self.filled();
        used.saturating_add(bytes) > full
    }

    /// Bytes of the journal that are in use, and at how many it is full.
    fn filled(&self) -> (u64, u64) {
        let mut core = self.shared.lock();
        // What somebody read from when it was released is free by now.
        core.journal.reclaim();
        let (used, all) = core.journal.usage();
        (used, all / 100 * FULL_PERCENT)
    }

    /// A range of the device, or an error.
    fn check(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        let end = offset.checked_add(length).filter(|end| *end <= self.size());
        end.map(|_| ()).ok_or(DeviceError::OutOfRange)
    }

    fn is_zero(&self, offset: u64, length: u64) -> Result<bool, DeviceError> {
        let extents = self.extents(offset, length)?;
        Ok(extents.iter().all(|extent| extent.kind == ExtentKind::Zero))
    }

    fn read_block(&self, block: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        let pieces = self.shared.lock().map.find(block, 1);
        if let Some(piece) = pieces.first() {
            return piece.read(into);
        }
        if !self.backing.read_now(block, into)? {
            into.copy_from_slice(&futures::executor::block_on(self.fetch(block, 1))?);
        }
        Ok(())
    }

    /// Waits for committed blocks: all of them, or an error.
    async fn fetch(&self, start: u64, count: u64) -> Result<Vec<u8>, DeviceError> {
        let read = self.backing.read(start, count).await?;
        match read.len() as u64 == count * BLOCK {
            true => Ok(read),
            false => Err(DeviceError::Damaged(format!(
                "of {count} blocks from block {start} on, {} bytes came",
                read.len()
            ))),
        }
    }

    /// Reads whole blocks; false, and anything in `into`, if some have to be fetched.
    fn blocks_now(&self, start: u64, end: u64, into: &mut [u8]) -> Result<bool, DeviceError> {
        let pieces = self.shared.lock().map.find(start, end - start);
        for (gap, count) in gaps(start, end, &pieces) {
            let at = (gap - start) as usize * BLOCK_BYTES;
            let gap_bytes = &mut into[at..at + count as usize * BLOCK_BYTES];
            if !self.backing.read_now(gap, gap_bytes)? {
                return Ok(false);
            }
        }
        self.overlay(start, &pieces, into)?;
        Ok(true)
    }

    /// Reads what the journal has of these blocks: files that pieces name stay, whatever is released meanwhile.
    fn overlay(&self, start: u64, pieces: &[Piece], into: &mut [u8]) -> Result<(), DeviceError> {
        for piece in pieces {
            let at = (piece.start - start) as usize * BLOCK_BYTES;
            piece.read(&mut into[at..at + piece.count as usize * BLOCK_BYTES])?;
        }
        Ok(())
    }
}

/// Whether a range is one of whole blocks.
fn is_whole(offset: u64, length: usize) -> bool {
    offset.is_multiple_of(BLOCK) && length.is_multiple_of(BLOCK_BYTES)
}

/// The blocks (first, count) between pieces.
fn gaps(start: u64, end: u64, pieces: &[Piece]) -> Vec<(u64, u64)> {
    let mut gaps = Vec::new();
    let mut at = start;
    for (from, to) in pieces
        .iter()
        .map(|piece| (piece.start, piece.start + piece.count))
        .chain([(end, end)])
    {
        if at < from {
            gaps.push((at, from - at));
        }
        at = to;
    }
    gaps
}

impl Piece {
    /// Reads all its blocks.
    pub fn read(&self, into: &mut [u8]) -> Result<(), DeviceError> {
        self.read_part(self.start, into)
    }

    /// Reads some of its blocks, from a block on that is one of them.
    pub fn read_part(&self, from: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        let Some(place) = &self.place else {
            into.fill(0);
            return Ok(());
        };
        if !place
            .lap
            .open(place.offset + (from - self.start) * SEALED_BYTES, into)?
        {
            let (seq, path) = (self.seq, place.lap.file.path().to_owned());
            return Err(JournalError::BlockDamaged { seq, path }.into());
        }
        Ok(())
    }
}

impl Device for Volume {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only || self.shared.lock().journal.is_broken()
    }

    fn apply(&self, changes: &[Change<'_>]) -> Result<(), DeviceError> {
        if self.is_read_only {
            return Err(DeviceError::ReadOnly);
        }
        let mut touches = Vec::new();
        for (offset, length) in changes.iter().map(Change::range) {
            self.check(offset, length)?;
            touches.push(touched(offset, length));
        }
        let _held = self.ranges.lock(touches);
        // It may have been made smaller while this waited.
        let mut ranges = changes.iter().map(Change::range);
        ranges.try_for_each(|(offset, length)| self.check(offset, length))?;
        let mut blocks = BlockChanges::default();
        // File systems trim all that is free, again and again: what reads as zeros needs no record.
        let is_idle = changes.iter().all(|change| !matches!(change, Change::Write { .. }))
            && changes
                .iter()
                .map(Change::range)
                .map(|(offset, length)| self.is_zero(offset, length))
                .all(|zero| matches!(zero, Ok(true)));
        for change in changes.iter().filter(|_| !is_idle) {
            blocks.add(change, &|block, into| self.read_block(block, into))?;
        }
        if !blocks.ranges.is_empty() {
            let bytes_max = self.shared.lock().journal.record_bytes_max();
            for (ranges, blocks) in blocks.records(bytes_max) {
                self.shared.append(&ranges, blocks)?;
            }
        }
        Ok(())
    }

    fn ready(&self, bytes: u64) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            let mut released = self.released.subscribe();
            while self.is_full(bytes) {
                let progress = tokio::time::timeout(self.patience, released.changed());
                if progress.await.is_err() {
                    return Err(DeviceError::NoSpace);
                }
            }
            let (used, full) = self.filled();
            let wait = pace::wait(bytes, used, full);
            if wait >= PAUSE_MIN {
                tokio::time::sleep(wait).await;
            }
            Ok(())
        })
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DeviceError>> {
        let flushed = self.flusher.flush();
        Box::pin(async {
            flushed
                .await
                .map_err(|error| DeviceError::Io(std::io::Error::other(error)))
        })
    }

    fn read_now(&self, offset: u64, into: &mut [u8]) -> Result<bool, DeviceError> {
        self.check(offset, into.len() as u64)?;
        let (start, end) = touched(offset, into.len() as u64);
        // Whole blocks are read to where they are wanted: fresh memory and a copy cost as much as opening them.
        if is_whole(offset, into.len()) {
            return self.blocks_now(start, end, into);
        }
        let mut blocks = vec![0; (end - start) as usize * BLOCK_BYTES];
        let is_here = self.blocks_now(start, end, &mut blocks)?;
        let at = (offset - start * BLOCK) as usize;
        into.copy_from_slice(&blocks[at..at + into.len()]);
        Ok(is_here)
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Vec<u8>, DeviceError>> {
        Box::pin(async move {
            self.check(offset, length as u64)?;
            let (start, end) = touched(offset, length as u64);
            let pieces = self.shared.lock().map.find(start, end - start);
            if pieces.is_empty() && is_whole(offset, length) {
                return self.fetch(start, end - start).await;
            }
            let mut blocks = vec![0; (end - start) as usize * BLOCK_BYTES];
            for (gap, count) in gaps(start, end, &pieces) {
                let at = (gap - start) as usize * BLOCK_BYTES;
                let read = self.fetch(gap, count).await?;
                blocks[at..at + count as usize * BLOCK_BYTES].copy_from_slice(&read);
            }
            self.overlay(start, &pieces, &mut blocks)?;
            let at = (offset - start * BLOCK) as usize;
            blocks.drain(..at);
            blocks.truncate(length);
            Ok(blocks)
        })
    }

    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, DeviceError> {
        self.check(offset, length)?;
        let (start, end) = touched(offset, length);
        let pieces = self.shared.lock().map.find(start, end - start);
        let mut found: Vec<(u64, Extent)> = Vec::new();
        for piece in &pieces {
            let kind = piece.place.as_ref().map_or(ExtentKind::Zero, |_| ExtentKind::Data);
            let length = piece.count * BLOCK;
            found.push((piece.start, Extent { length, kind }));
        }
        for (gap, count) in gaps(start, end, &pieces) {
            let mut at = gap;
            for extent in self.backing.extents(gap, count)? {
                found.push((at, extent));
                at += extent.length / BLOCK;
            }
        }
        found.sort_by_key(|(at, _)| *at);
        let clipped = found.into_iter().map(|(at, extent)| {
            let from = (at * BLOCK).max(offset);
            let to = (at * BLOCK + extent.length).min(offset + length);
            let length = to.saturating_sub(from);
            Extent { length, ..extent }
        });
        Ok(clipped.filter(|extent| extent.length > 0).collect())
    }

    fn prefetch(&self, offset: u64, length: u64) {
        if self.check(offset, length).is_err() {
            return;
        }
        let (start, end) = touched(offset, length);
        let pieces = self.shared.lock().map.find(start, end - start);
        for (gap, count) in gaps(start, end, &pieces) {
            self.backing.prefetch(gap, count);
        }
    }
}

#[cfg(test)]
mod tests;
