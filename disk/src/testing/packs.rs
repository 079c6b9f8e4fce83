//! Packs in memory, as a place to deliver to and to read from.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::cap_index::PackRecord;

use crate::commit::compose::PackSink;
use crate::commit::opening::PackReader;
use crate::device::DeviceError;

/// Bytes of plaintext that packs of each shape hold.
pub const ROOMS: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];

/// Something that is done once.
pub type Deed = Box<dyn FnOnce() + Send>;

/// The packs, by a manifest that is their number.
pub struct MemoryPacks {
    kept: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    /// Packs that were ever delivered.
    delivered: AtomicUsize,
    /// Reads so far.
    pub reads: AtomicUsize,
    /// Packs from this number on are refused.
    pub refused_from: AtomicUsize,
    /// What happens before the next reading.
    pub before_read: Mutex<Option<Deed>>,
}

impl MemoryPacks {
    /// None yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::default(),
            delivered: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            refused_from: AtomicUsize::new(usize::MAX),
            before_read: Mutex::default(),
        })
    }

    /// Those that were delivered.
    pub fn kept(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Vec<u8>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PackReader for MemoryPacks {
    fn read(&self, pack: &PackRecord, range: Range<u32>) -> Result<Vec<u8>, DeviceError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let happens = self.before_read.lock().unwrap_or_else(PoisonError::into_inner).take();
        happens.into_iter().for_each(|happens| happens());
        let kept = self.kept();
        let plain = kept.get(&pack.manifest);
        let part = plain.and_then(|plain| plain.get(range.start as usize..range.end as usize));
        let part = part.map(<[u8]>::to_vec);
        part.ok_or_else(|| DeviceError::Damaged("there is no such pack".to_owned()))
    }
}

impl PackSink for Arc<MemoryPacks> {
    fn rooms(&self) -> Vec<usize> {
        ROOMS.to_vec()
    }

    fn deliver(&mut self, plain: Vec<u8>, room: usize) -> Result<PackRecord, DeviceError> {
        assert!(plain.len() <= room && ROOMS.contains(&room), "a pack of no shape");
        let mut kept = self.kept();
        let number = self.delivered.load(Ordering::Relaxed);
        if number >= self.refused_from.load(Ordering::Relaxed) {
            return Err(DeviceError::Unavailable("no peer takes it".to_owned()));
        }
        self.delivered.fetch_add(1, Ordering::Relaxed);
        let manifest = (number as u64).to_le_bytes().to_vec();
        kept.insert(manifest.clone(), plain);
        Ok(PackRecord {
            manifest,
            wrapped_key: [3; 80],
        })
    }
}
