//! Ranges of blocks that one change at a time has: a change that reads what is there and writes it back in part must not undo
//! another one.

use std::sync::{Condvar, Mutex, PoisonError};

/// Who has which blocks.
#[derive(Default)]
pub struct RangeLock {
    held: Mutex<Vec<(u64, u64)>>,
    freed: Condvar,
}

/// Has its ranges until it is dropped.
pub struct Held<'a> {
    lock: &'a RangeLock,
    ranges: Vec<(u64, u64)>,
}

impl RangeLock {
    /// Waits until nobody has a block of these ranges (first, end), and takes them all at once, so that two never wait for each
    /// other.
    pub fn lock(&self, ranges: Vec<(u64, u64)>) -> Held<'_> {
        let meets = |held: &Vec<(u64, u64)>| {
            let meets = |(start, end): &(u64, u64)| held.iter().any(|(from, to)| start < to && from < end);
            ranges.iter().any(meets)
        };
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.freed.wait_while(held, |held| meets(held));
        held.unwrap_or_else(PoisonError::into_inner).extend_from_slice(&ranges);
        Held { lock: self, ranges }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut held = self.lock.held.lock().unwrap_or_else(PoisonError::into_inner);
        for range in &self.ranges {
            if let Some(at) = held.iter().position(|other| other == range) {
                held.swap_remove(at);
            }
        }
        drop(held);
        self.lock.freed.notify_all();
    }
}
