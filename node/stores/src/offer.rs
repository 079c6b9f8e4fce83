//! What this node offers to all friends together.
//!
//! Room is taken before a share is received and given back when it is counted among its owner's, so that shares received at
//! the same time cannot share the last free bytes. Leaves out what stays free of the disk: that is taken by whoever writes.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::share_store::StoreError;
use upload_queue::space::{Disk, MinFree};

use crate::room::Offered;

/// Bytes offered, and what is promised of them.
#[derive(Clone)]
pub struct Offer(Arc<State>);

struct State {
    offered: Offered,
    promised: Mutex<u64>,
}

/// Room for one share; given back when dropped.
pub struct Room {
    offer: Offer,
    bytes: u64,
}

/// How things stand on the disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// Bytes that all friends use.
    pub used: u64,
    /// Bytes that may still be taken of the disk.
    pub takable: u64,
}

impl Standing {
    /// The store at `root`, or where it will be made, of which all friends use `used`.
    pub fn of(root: &Path, used: u64, min_free: MinFree) -> Self {
        let disk = root.ancestors().find_map(|path| Disk::of(path).ok());
        let takable = disk.map_or(0, |disk| disk.takable(min_free));
        Self { used, takable }
    }
}

impl Offer {
    /// Offers this much.
    pub fn new(offered: Offered) -> Self {
        Self(Arc::new(State {
            offered,
            promised: Mutex::new(0),
        }))
    }

    /// Bytes that are offered and neither used nor promised.
    pub fn left(&self, standing: Standing) -> u64 {
        let offered = self.0.offered.bytes(standing.used, standing.takable);
        offered.saturating_sub(standing.used).saturating_sub(*self.promised())
    }

    /// Takes room for `bytes`. `Full` if there is none.
    pub fn take(
        &self,
        bytes: u64,
        standing: impl FnOnce() -> Result<Standing, StoreError>,
    ) -> Result<Room, StoreError> {
        let mut promised = self.promised();
        let standing = standing()?;
        let offered = self.0.offered.bytes(standing.used, standing.takable);
        if standing.used.saturating_add(*promised).saturating_add(bytes) > offered {
            return Err(StoreError::Full {
                reason: format!("the {offered} bytes offered to all friends are used up"),
            });
        }
        *promised += bytes;
        drop(promised);
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

    fn standing(used: u64) -> Standing {
        Standing { used, takable: 100 }
    }

    #[test]
    fn room_is_taken_once_and_given_back() {
        let offer = Offer::new(Offered::Bytes(10));
        let first = offer
            .take(6, || Ok(standing(0)))
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(offer.left(standing(1)), 3);
        assert!(matches!(
            offer.take(6, || Ok(standing(0))),
            Err(StoreError::Full { .. })
        ));
        assert!(matches!(
            offer.take(4, || Ok(standing(1))),
            Err(StoreError::Full { .. })
        ));
        drop(first);
        assert!(offer.take(6, || Ok(standing(4))).is_ok());
    }

    #[test]
    fn without_a_setting_the_disk_decides() {
        let offer = Offer::new(Offered::Automatic);
        assert_eq!(offer.left(standing(0)), 50);
        assert!(offer.take(51, || Ok(standing(0))).is_err());
        assert!(offer.take(50, || Ok(standing(0))).is_ok());
    }
}
