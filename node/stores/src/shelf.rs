//! One friend's place on this disk: what lies there and what is on its way there.

use std::sync::Arc;

use proto::share_store::StoreError;

use super::folder::FolderStore;
use super::partial::Partials;

/// One friend's place.
#[derive(Clone)]
pub struct Shelf {
    /// Its shares and heads.
    pub store: FolderStore,
    /// Its transfers that have not ended.
    pub partials: Arc<Partials>,
}

impl Shelf {
    /// All bytes on the disk, but for transfers that are going on: room is promised for them. Blocks the first time, while
    /// they are counted.
    pub fn used_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.store.used_bytes()? + self.partials.idle_bytes()?)
    }
}
