//! What this node offers to all friends together.
//!
//! Room is taken before a share is received and given back when it is counted among its owner's, so that shares received at
//! the same time cannot share the last free bytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::share_store::StoreError;

/// Bytes offered, and what is promised of them.
#[derive(Clone)]
pub struct Offer(Arc<State>);

struct State {
    bytes: Option<u64>,
    promised: Mutex<u64>,
}

/// Room for one share; given back when dropped.
pub struct Room {
    offer: Offer,
    bytes: u64,
}

impl Offer {
    /// Offers so many bytes; none: without limit.
    pub fn new(bytes: Option<u64>) -> Self {
        Self(Arc::new(State {
            bytes,
            promised: Mutex::new(0),
        }))
    }

    /// Takes room for `bytes`; `used` tells what all friends use. `Full` if there is none.
    pub fn take(&self, bytes: u64, used: impl FnOnce() -> Result<u64, StoreError>) -> Result<Room, StoreError> {
        if let Some(offered) = self.0.bytes {
            let mut promised = self.promised();
            if used()?.saturating_add(*promised).saturating_add(bytes) > offered {
                return Err(StoreError::Full {
                    reason: format!("the {offered} bytes offered to all friends are used up"),
                });
            }
            *promised += bytes;
        }
        Ok(Room {
            offer: self.clone(),
            bytes,
        })
    }

    fn promised(&self) -> MutexGuard<'_, u64> {
        self.0.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut promised = self.offer.promised();
        *promised = promised.saturating_sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_once_and_given_back() {
        let offer = Offer::new(Some(10));
        let first = offer.take(6, || Ok(0)).unwrap_or_else(|error| panic!("{error}"));
        assert!(matches!(offer.take(6, || Ok(0)), Err(StoreError::Full { .. })));
        assert!(matches!(offer.take(4, || Ok(1)), Err(StoreError::Full { .. })));
        drop(first);
        assert!(offer.take(6, || Ok(4)).is_ok());
        assert!(Offer::new(None).take(u64::MAX, || Ok(u64::MAX)).is_ok());
    }
}
