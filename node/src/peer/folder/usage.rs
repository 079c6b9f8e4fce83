//! How many bytes an account's shares take, and how many they may: counted once, then kept in memory.

use std::sync::{Mutex, MutexGuard};

use proto::share_store::{Space, StoreError};
use upload_queue::space::{Disk, MinFree, Room};

use super::durable;
use super::layout::Layout;

/// Bytes used and granted.
pub struct Usage {
    state: Mutex<State>,
}

struct State {
    quota: Option<u64>,
    min_free: MinFree,
    /// `None` until somebody asks: counting walks every file.
    used: Option<u64>,
}

impl Usage {
    /// Nothing is counted yet.
    pub fn new(quota: Option<u64>) -> Self {
        Self {
            state: Mutex::new(State {
                quota,
                min_free: MinFree::default(),
                used: None,
            }),
        }
    }

    /// Changes the limit.
    pub fn set_quota(&self, quota: Option<u64>) {
        self.lock().quota = quota;
    }

    /// Changes what of the disk stays free.
    pub fn set_min_free(&self, min_free: MinFree) {
        self.lock().min_free = min_free;
    }

    /// `Full` if `bytes` more do not fit the quota.
    pub fn check_quota(&self, layout: &Layout, bytes: u64) -> Result<(), StoreError> {
        self.lock().check(layout, bytes, 0)
    }

    /// Takes room for `bytes` on the disk, or `Full` if they do not fit the quota or the disk. They are not counted yet.
    pub fn take_room(&self, layout: &Layout, bytes: u64) -> Result<Room, StoreError> {
        let min_free = {
            let mut state = self.lock();
            state.check(layout, bytes, 0)?;
            state.min_free
        };
        Room::take(layout.root(), bytes, min_free).map_err(durable::no_room)
    }

    /// Counts `bytes` in and `replaced` out, or `Full`.
    pub fn reserve(&self, layout: &Layout, bytes: u64, replaced: u64) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.check(layout, bytes, replaced)?;
        state.used = state.used.map(|used| (used + bytes).saturating_sub(replaced));
        Ok(())
    }

    /// Takes back what `reserve` counted, or counts a removed share out.
    pub fn release(&self, bytes: u64, replaced: u64) {
        let mut state = self.lock();
        state.used = state.used.map(|used| (used + replaced).saturating_sub(bytes));
    }

    /// Used bytes.
    pub fn used(&self, layout: &Layout) -> Result<u64, StoreError> {
        self.lock().used(layout)
    }

    /// Used and free bytes. Free is what both the quota and the disk grant.
    pub fn space(&self, layout: &Layout) -> Result<Space, StoreError> {
        let (used_bytes, quota, min_free) = {
            let mut state = self.lock();
            (state.used(layout)?, state.quota, state.min_free)
        };
        let disk = Disk::of(layout.root()).map_err(|error| durable::store_error("asking for space", &error))?;
        let on_disk = disk.takable(min_free);
        let in_quota = quota.map_or(u64::MAX, |quota| quota.saturating_sub(used_bytes));
        Ok(Space {
            used_bytes,
            free_bytes: Some(on_disk.min(in_quota)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the usage is locked")
    }
}

impl State {
    fn used(&mut self, layout: &Layout) -> Result<u64, StoreError> {
        if let Some(used) = self.used {
            return Ok(used);
        }
        let used = layout
            .measure()
            .map_err(|error| durable::store_error("measuring the store", &error))?;
        self.used = Some(used);
        Ok(used)
    }

    fn check(&mut self, layout: &Layout, bytes: u64, replaced: u64) -> Result<(), StoreError> {
        let Some(quota) = self.quota else { return Ok(()) };
        let used = self.used(layout)?;
        if (used + bytes).saturating_sub(replaced) > quota {
            return Err(StoreError::Full {
                reason: format!("the quota of {quota} bytes is used up"),
            });
        }
        Ok(())
    }
}
