//! Which slots are being fetched: who needs one of them waits for it instead of fetching it a second time.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::commit::PackNumber;

/// How long somebody else's fetching is waited for. Chosen: most are over in a tenth of it, and one that hangs must not use up the
/// patience of whoever waits.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Slots of a pack, from the first to the last one.
type Slots = (PackNumber, u32, u32);

/// What is being fetched.
#[derive(Default)]
pub(super) struct Fetching {
    slots: Mutex<Vec<Slots>>,
    ended: Condvar,
}

/// Fetches these until it is dropped.
pub(super) struct Turn<'a> {
    fetching: &'a Fetching,
    slots: Slots,
}

impl Fetching {
    /// A turn to fetch these slots, and whether somebody was waited for, who may have brought them. Blocking.
    pub fn turn(&self, slots: Slots) -> (Turn<'_>, bool) {
        let (pack, first, last) = slots;
        let meets = |other: &Slots| other.0 == pack && first <= other.2 && other.1 <= last;
        let fetched = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let has_waited = fetched.iter().any(meets);
        let waited = self
            .ended
            .wait_timeout_while(fetched, WAIT_MAX, |fetched| fetched.iter().any(meets));
        waited.unwrap_or_else(PoisonError::into_inner).0.push(slots);
        (Turn { fetching: self, slots }, has_waited)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut fetched = self.fetching.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = fetched.iter().position(|other| *other == self.slots) {
            fetched.swap_remove(at);
        }
        drop(fetched);
        self.fetching.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn who_needs_a_slot_that_is_being_fetched_waits_for_it_and_nobody_else_does() {
        let (fetching, has_asked, is_over) = (Fetching::default(), AtomicBool::new(false), AtomicBool::new(false));
        let (turn, has_waited) = fetching.turn((1, 5, 9));
        assert!(!has_waited);
        assert!(!fetching.turn((1, 10, 12)).1 && !fetching.turn((2, 5, 9)).1);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                has_asked.store(true, Ordering::SeqCst);
                let (_turn, _) = fetching.turn((1, 9, 12));
                assert!(is_over.load(Ordering::SeqCst));
            });
            while !has_asked.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            // Without waiting it would be through by then, most times.
            (0..1000).for_each(|_| std::thread::yield_now());
            is_over.store(true, Ordering::SeqCst);
            drop(turn);
            waiting.join().unwrap();
        });
        assert!(fetching.slots.lock().unwrap().is_empty());
    }
}
