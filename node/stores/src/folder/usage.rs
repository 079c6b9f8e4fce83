//! How many bytes an account takes, and how many it may: shares, trash, heads and what proves a deletion. Counted once, then
//! kept in memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::share_store::{Space, StoreError};
use upload_queue::space::{Disk, MinFree, Room};

use super::layout::Layout;
use super::writes;

/// Bytes used and granted; clones share them.
#[derive(Clone)]
pub struct Usage {
    state: Arc<Mutex<State>>,
}

/// Room in the quota for a share that is on its way; given back when dropped.
pub struct Earmark {
    usage: Usage,
    bytes: u64,
}

struct State {
    quota: Option<u64>,
    min_free: MinFree,
    /// `None` until somebody asks: counting walks every file.
    used: Option<u64>,
    /// Bytes of the shares that are on their way, as if they were here.
    earmarked: u64,
}

impl Usage {
    /// Nothing is counted yet.
    pub fn new(quota: Option<u64>) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                quota,
                min_free: MinFree::default(),
                used: None,
                earmarked: 0,
            })),
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
        self.check_quota(layout, bytes)?;
        self.take_disk(layout, bytes)
    }

    /// As `take_room`, for what is within the quota already.
    pub fn take_disk(&self, layout: &Layout, bytes: u64) -> Result<Room, StoreError> {
        let min_free = self.lock().min_free;
        Room::take(layout.root(), bytes, min_free).map_err(writes::no_room)
    }

    /// Takes room in the quota for a share that is on its way, beside `unfinished` bytes of others, or `Full`.
    pub fn earmark(&self, layout: &Layout, bytes: u64, unfinished: u64) -> Result<Earmark, StoreError> {
        let mut state = self.lock();
        state.check(layout, bytes.saturating_add(unfinished), 0)?;
        state.earmarked += bytes;
        Ok(Earmark {
            usage: self.clone(),
            bytes,
        })
    }

    /// Counts `bytes` in and `replaced` out, or `Full`; what was earmarked for them is kept.
    pub fn reserve(
        &self,
        layout: &Layout,
        bytes: u64,
        replaced: u64,
        earmark: Option<Earmark>,
    ) -> Result<(), StoreError> {
        let mut state = self.lock();
        if let Some(mut earmark) = earmark {
            // Not when it is dropped: somebody else could take it in between.
            state.earmarked -= std::mem::take(&mut earmark.bytes);
        }
        state.check(layout, bytes, replaced)?;
        state.used = state.used.map(|used| (used + bytes).saturating_sub(replaced));
        Ok(())
    }

    /// Takes back what `reserve` counted, or counts a removed share out.
    pub fn release(&self, bytes: u64, replaced: u64) {
        let mut state = self.lock();
        state.used = state.used.map(|used| (used + replaced).saturating_sub(bytes));
    }

    /// Counts what takes its place whatever the quota: it is little, and bounded by itself.
    pub fn count(&self, bytes: u64, replaced: u64) {
        self.release(replaced, bytes);
    }

    /// The limit.
    pub fn quota(&self) -> Option<u64> {
        self.lock().quota
    }

    /// Used bytes.
    pub fn used(&self, layout: &Layout) -> Result<u64, StoreError> {
        self.lock().used(layout)
    }

    /// Used and free bytes. Free is what both the quota and the disk grant.
    pub fn space(&self, layout: &Layout) -> Result<Space, StoreError> {
        let (used_bytes, earmarked, quota, min_free) = {
            let mut state = self.lock();
            (state.used(layout)?, state.earmarked, state.quota, state.min_free)
        };
        let disk = Disk::of(layout.root()).map_err(|error| writes::store_error("asking for space", &error))?;
        let on_disk = disk.takable(min_free);
        let in_quota = quota.map_or(u64::MAX, |quota| quota.saturating_sub(used_bytes + earmarked));
        Ok(Space {
            used_bytes,
            free_bytes: Some(on_disk.min(in_quota)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Earmark {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.usage.lock().earmarked -= self.bytes;
        }
    }
}

impl State {
    fn used(&mut self, layout: &Layout) -> Result<u64, StoreError> {
        if let Some(used) = self.used {
            return Ok(used);
        }
        let used = layout
            .measure()
            .map_err(|error| writes::store_error("measuring the store", &error))?;
        self.used = Some(used);
        Ok(used)
    }

    fn check(&mut self, layout: &Layout, bytes: u64, replaced: u64) -> Result<(), StoreError> {
        let Some(quota) = self.quota else { return Ok(()) };
        let used = self.used(layout)?;
        let wanted = used.saturating_add(self.earmarked).saturating_add(bytes);
        if wanted.saturating_sub(replaced) > quota {
            return Err(StoreError::Full {
                reason: format!("the quota of {quota} bytes is used up"),
            });
        }
        Ok(())
    }
}
