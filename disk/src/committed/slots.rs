//! Slots that were read, unpacked, and the lists of slots of packs: in memory, bounded in bytes. Who was asked for since the hand came by
//! last stays (CLOCK).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::commit::PackNumber;
use crate::commit::contents::Slots;

/// Bytes of lists that are kept. Chosen: a thousand lists of packs of 12 MiB whose slots are whole.
const LISTS_BYTES_MAX: usize = 16 << 20;

struct Entry {
    blocks: Arc<Vec<u8>>,
    was_asked_for: bool,
}

#[derive(Default)]
struct State {
    slots: HashMap<(PackNumber, u32), Entry>,
    order: VecDeque<(PackNumber, u32)>,
    bytes: usize,
    lists: HashMap<PackNumber, Arc<Slots>>,
    lists_order: VecDeque<PackNumber>,
    lists_bytes: usize,
}

/// The cache.
pub(super) struct SlotCache {
    state: Mutex<State>,
    bytes_max: usize,
}

impl SlotCache {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            bytes_max,
        }
    }

    pub fn bytes(&self) -> usize {
        let state = self.lock();
        state.bytes + state.lists_bytes
    }

    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, pack: PackNumber, slot: u32) -> Option<Arc<Vec<u8>>> {
        let mut state = self.lock();
        let entry = state.slots.get_mut(&(pack, slot))?;
        entry.was_asked_for = true;
        Some(entry.blocks.clone())
    }

    /// Whether it is here; nobody asks for its blocks.
    pub fn has(&self, pack: PackNumber, slot: u32) -> bool {
        self.lock().slots.contains_key(&(pack, slot))
    }

    pub fn put(&self, pack: PackNumber, slot: u32, blocks: Vec<u8>) -> Arc<Vec<u8>> {
        let mut state = self.lock();
        let (bytes, blocks) = (blocks.len(), Arc::new(blocks));
        let entry = Entry {
            blocks: blocks.clone(),
            was_asked_for: false,
        };
        match state.slots.insert((pack, slot), entry) {
            Some(old) => state.bytes -= old.blocks.len(),
            None => state.order.push_back((pack, slot)),
        }
        state.bytes += bytes;
        while state.bytes > self.bytes_max {
            let Some(key) = state.order.pop_front() else { break };
            match state.slots.get_mut(&key) {
                Some(entry) if entry.was_asked_for => {
                    entry.was_asked_for = false;
                    state.order.push_back(key);
                }
                Some(_) => {
                    let bytes = state.slots.remove(&key).map_or(0, |entry| entry.blocks.len());
                    state.bytes -= bytes;
                }
                None => {}
            }
        }
        blocks
    }

    pub fn list(&self, pack: PackNumber) -> Option<Arc<Slots>> {
        self.lock().lists.get(&pack).cloned()
    }

    pub fn put_list(&self, pack: PackNumber, slots: Slots) -> Arc<Slots> {
        let (mut state, slots) = (self.lock(), Arc::new(slots));
        match state.lists.insert(pack, slots.clone()) {
            Some(old) => state.lists_bytes -= old.bytes(),
            None => state.lists_order.push_back(pack),
        }
        state.lists_bytes += slots.bytes();
        while state.lists_bytes > LISTS_BYTES_MAX && state.lists.len() > 1 {
            let Some(oldest) = state.lists_order.pop_front() else {
                break;
            };
            state.lists_bytes -= state.lists.remove(&oldest).map_or(0, |list| list.bytes());
        }
        slots
    }
}

#[cfg(test)]
mod tests;
