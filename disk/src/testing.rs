//! A device in memory, for tests and for benchmarks of a face alone. It can be slow, full or broken when told so.

pub mod packs;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::device::{Change, Device, DeviceError, Extent, ExtentKind};

/// Bytes of a page: what is kept, and what a hole is at least.
const PAGE_BYTES: u64 = 4096;
const PAGE: usize = PAGE_BYTES as usize;

/// What a device was asked for so far.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Calls of `apply`.
    pub applies: usize,
    /// Changes in them.
    pub changes: usize,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Calls of `flush`.
    pub flushes: usize,
    /// Ranges of `prefetch`.
    pub prefetches: Vec<(u64, u64)>,
}

/// A device whose pages are in memory; pages without a byte are holes.
pub struct MemoryDevice {
    size: u64,
    is_read_only: bool,
    pages: Mutex<BTreeMap<u64, Box<[u8; PAGE]>>>,
    asked: Mutex<Asked>,
    /// How long a flush takes.
    flush_takes: Duration,
    /// While true, `ready` waits.
    is_full: watch::Sender<bool>,
    /// While true, nothing can be read at once, and `read` waits.
    is_far: watch::Sender<bool>,
    /// A range that fails, as a damaged one.
    broken: Mutex<Option<(u64, u64)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn while_true(mut told: watch::Receiver<bool>) {
    // The sender lives in the device, which is borrowed while this is waited for.
    let _is_false = told.wait_for(|value| !value).await;
}

impl MemoryDevice {
    /// An empty one.
    pub fn new(size: u64) -> Self {
        Self {
            size,
            is_read_only: false,
            pages: Mutex::default(),
            asked: Mutex::default(),
            flush_takes: Duration::ZERO,
            is_full: watch::Sender::new(false),
            is_far: watch::Sender::new(false),
            broken: Mutex::new(None),
        }
    }

    /// The same, that nobody may change.
    pub fn read_only(mut self) -> Self {
        self.is_read_only = true;
        self
    }

    /// The same, whose flushes take so long.
    pub fn with_flushes_of(mut self, duration: Duration) -> Self {
        self.flush_takes = duration;
        self
    }

    /// Whether its journal is full.
    pub fn set_full(&self, is_full: bool) {
        self.is_full.send_replace(is_full);
    }

    /// Whether what it holds has to be fetched, and cannot be.
    pub fn set_far(&self, is_far: bool) {
        self.is_far.send_replace(is_far);
    }

    /// The range (offset and end) that fails.
    pub fn set_broken(&self, range: Option<(u64, u64)>) {
        *locked(&self.broken) = range;
    }

    /// What it was asked for.
    pub fn asked(&self) -> Asked {
        locked(&self.asked).clone()
    }

    fn check(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= self.size)
            .ok_or(DeviceError::OutOfRange)?;
        match *locked(&self.broken) {
            Some((from, to)) if offset < to && from < end => Err(DeviceError::Damaged(format!("bytes {from} to {to}"))),
            _ => Ok(()),
        }
    }

    fn write(&self, mut offset: u64, mut data: &[u8]) {
        let mut pages = locked(&self.pages);
        while !data.is_empty() {
            let within = (offset % PAGE_BYTES) as usize;
            let now = data.len().min(PAGE - within);
            let page = pages.entry(offset / PAGE_BYTES).or_insert_with(|| Box::new([0; PAGE]));
            page[within..within + now].copy_from_slice(&data[..now]);
            data = &data[now..];
            offset += now as u64;
        }
    }

    fn zero(&self, offset: u64, length: u64) {
        let mut pages = locked(&self.pages);
        let end = offset + length;
        let touched: Vec<u64> = pages
            .range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES))
            .map(|(number, _)| *number)
            .collect();
        for number in touched {
            let start = number * PAGE_BYTES;
            if offset <= start && start + PAGE_BYTES <= end {
                pages.remove(&number);
            } else if let Some(page) = pages.get_mut(&number) {
                let from = offset.saturating_sub(start) as usize;
                let to = (end - start).min(PAGE_BYTES) as usize;
                page[from..to].fill(0);
            }
        }
    }

    fn copy(&self, mut offset: u64, mut into: &mut [u8]) {
        let pages = locked(&self.pages);
        while !into.is_empty() {
            let within = (offset % PAGE_BYTES) as usize;
            let now = into.len().min(PAGE - within);
            let (first, rest) = into.split_at_mut(now);
            match pages.get(&(offset / PAGE_BYTES)) {
                Some(page) => first.copy_from_slice(&page[within..within + now]),
                None => first.fill(0),
            }
            into = rest;
            offset += now as u64;
        }
    }
}

impl Device for MemoryDevice {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn apply(&self, changes: &[Change<'_>]) -> Result<(), DeviceError> {
        {
            let mut asked = locked(&self.asked);
            asked.applies += 1;
            asked.changes += changes.len();
        }
        if self.is_read_only {
            return Err(DeviceError::ReadOnly);
        }
        for change in changes {
            match *change {
                Change::Write { offset, data } => {
                    self.check(offset, data.len() as u64)?;
                    self.write(offset, data);
                }
                Change::Zero { offset, length } | Change::Trim { offset, length } => {
                    self.check(offset, length)?;
                    self.zero(offset, length);
                }
            }
        }
        Ok(())
    }

    fn ready(&self, _bytes: u64) -> BoxFuture<'_, Result<(), DeviceError>> {
        let told = self.is_full.subscribe();
        Box::pin(async {
            while_true(told).await;
            Ok(())
        })
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DeviceError>> {
        locked(&self.asked).flushes += 1;
        Box::pin(async {
            if !self.flush_takes.is_zero() {
                tokio::time::sleep(self.flush_takes).await;
            }
            Ok(())
        })
    }

    fn read_now(&self, offset: u64, into: &mut [u8]) -> Result<bool, DeviceError> {
        self.check(offset, into.len() as u64)?;
        if *self.is_far.borrow() {
            return Ok(false);
        }
        self.copy(offset, into);
        locked(&self.asked).read_bytes += into.len() as u64;
        Ok(true)
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Vec<u8>, DeviceError>> {
        let told = self.is_far.subscribe();
        Box::pin(async move {
            while_true(told).await;
            let mut bytes = vec![0; length];
            self.read_now(offset, &mut bytes)?;
            Ok(bytes)
        })
    }

    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, DeviceError> {
        self.check(offset, length)?;
        let (pages, end) = (locked(&self.pages), offset + length);
        let (mut extents, mut at) = (Vec::<Extent>::new(), offset);
        let mut push = |length, kind| match extents.last_mut() {
            Some(last) if last.kind == kind => last.length += length,
            _ => extents.push(Extent { length, kind }),
        };
        for number in pages
            .range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES))
            .map(|(number, _)| number)
        {
            let start = (number * PAGE_BYTES).max(offset);
            let stop = ((number + 1) * PAGE_BYTES).min(end);
            if at < start {
                push(start - at, ExtentKind::Zero);
            }
            push(stop - start, ExtentKind::Data);
            at = stop;
        }
        if at < end {
            push(end - at, ExtentKind::Zero);
        }
        Ok(extents)
    }

    fn prefetch(&self, offset: u64, length: u64) {
        locked(&self.asked).prefetches.push((offset, length));
    }
}
