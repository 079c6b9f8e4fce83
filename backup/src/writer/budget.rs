//! The cap on bytes in memory: who wants a buffer waits for a permit, and gives it back by dropping it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use proto::size::MIB;

use crate::chunk::CHUNK_BYTES_MAX;

/// Bytes of a file in memory at once, beside the longest chunk carried over from the window before.
const WINDOW_BYTES: usize = 5 * MIB;
/// What a thread that brings chunks may hold of them before they are packed.
pub const BUFFER_BYTES: usize = WINDOW_BYTES + CHUNK_BYTES_MAX;

/// A counting semaphore over bytes; clones share it.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    bytes_max: usize,
    used: Mutex<usize>,
    freed: Condvar,
}

/// So many bytes of the budget, until it is dropped.
pub struct Permit {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Inner {
            bytes_max,
            used: Mutex::new(0),
            freed: Condvar::new(),
        }))
    }

    /// Waits until `bytes` are free. More than the whole budget is given when nothing else is taken, so that a wish too
    /// large makes a run slow and never stops it.
    pub fn acquire(&self, bytes: usize) -> Permit {
        let used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut used = self
            .0
            .freed
            .wait_while(used, |used| *used > 0 && *used + bytes > self.0.bytes_max)
            .unwrap_or_else(PoisonError::into_inner);
        *used += bytes;
        drop(used);
        Permit {
            budget: self.clone(),
            bytes,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.budget.0.used.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.budget.0.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_too_much_waits_until_enough_is_free() {
        let budget = Budget::new(10);
        let first = budget.acquire(8);
        let other = budget.clone();
        let waiter = std::thread::spawn(move || drop(other.acquire(5)));
        drop(first);
        waiter.join().unwrap();
        assert_eq!(*budget.0.used.lock().unwrap(), 0);
    }

    #[test]
    fn more_than_everything_is_given_when_nothing_is_taken() {
        drop(Budget::new(10).acquire(11));
    }
}
