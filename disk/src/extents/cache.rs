//! Leaves that were opened, bounded in bytes. Who was asked for since the hand came by last stays (CLOCK).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::leaf::Leaf;

/// Bytes that an entry takes besides its leaf.
const ENTRY_BYTES: usize = 128;

struct Entry {
    leaf: Arc<Leaf>,
    /// Tells it from others of its region that were there before.
    turn: u64,
    was_asked_for: bool,
}

/// Leaves by region.
pub(super) struct LeafCache {
    entries: HashMap<u64, Entry>,
    /// Regions in the order in which the hand comes by, each with its turn.
    order: VecDeque<(u64, u64)>,
    turns: u64,
    bytes: usize,
    bytes_max: usize,
}

fn bytes_of(leaf: &Leaf) -> usize {
    leaf.bytes().len() + ENTRY_BYTES
}

impl LeafCache {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            turns: 0,
            bytes: 0,
            bytes_max,
        }
    }

    pub fn get(&mut self, region: u64) -> Option<Arc<Leaf>> {
        let entry = self.entries.get_mut(&region)?;
        entry.was_asked_for = true;
        Some(entry.leaf.clone())
    }

    pub fn has(&self, region: u64) -> bool {
        self.entries.contains_key(&region)
    }

    /// Puts a leaf there, in the place of an older one of its region.
    pub fn put(&mut self, region: u64, leaf: Arc<Leaf>) {
        self.remove(region);
        self.turns += 1;
        self.bytes += bytes_of(&leaf);
        self.order.push_back((region, self.turns));
        let (turn, was_asked_for) = (self.turns, false);
        self.entries.insert(
            region,
            Entry {
                leaf,
                turn,
                was_asked_for,
            },
        );
        while self.bytes > self.bytes_max {
            let Some((region, turn)) = self.order.pop_front() else {
                return;
            };
            match self.entries.get_mut(&region).filter(|entry| entry.turn == turn) {
                Some(entry) if entry.was_asked_for => {
                    entry.was_asked_for = false;
                    self.order.push_back((region, turn));
                }
                Some(_) => self.remove(region),
                None => {}
            }
        }
    }

    pub fn remove(&mut self, region: u64) {
        if let Some(entry) = self.entries.remove(&region) {
            self.bytes -= bytes_of(&entry.leaf);
        }
        // What was removed stays in the order until the hand comes by: not for ever, if it does not.
        if self.order.len() > 2 * self.entries.len() + 64 {
            let entries = &self.entries;
            self.order
                .retain(|(region, turn)| entries.get(region).is_some_and(|entry| entry.turn == *turn));
        }
    }

    /// Bytes in it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
