//! What this node keeps for its friends: one folder store and its unfinished transfers per account.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use proto::id::AccountId;
use proto::share_store::StoreError;
use tokio::sync::Semaphore;

use super::folder::FolderStore;
use super::partial::Partials;

/// Shares being received at once, by all friends together. Chosen: each holds at most three frames in memory.
const RECEIVING_MAX: usize = 64;
/// Received shares being checked at once. Chosen: each takes the memory of a share, and hashing one takes milliseconds.
const CHECKING_MAX: usize = 2;

/// The stores for all friends.
pub struct Kept {
    root: PathBuf,
    state: Mutex<State>,
    /// Turns for receiving a share.
    pub receiving: Arc<Semaphore>,
    /// Turns for checking a received share.
    pub checking: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    shelves: HashMap<AccountId, Shelf>,
    quotas: HashMap<AccountId, u64>,
    default_quota: Option<u64>,
}

/// One friend's place.
#[derive(Clone)]
pub struct Shelf {
    /// Its shares and heads.
    pub store: FolderStore,
    /// Its transfers that have not ended.
    pub partials: Arc<Partials>,
}

impl Kept {
    /// Stores below `root`; each friend may use `default_quota` bytes unless told otherwise.
    pub fn new(root: &Path, default_quota: Option<u64>) -> Self {
        Self {
            root: root.to_owned(),
            state: Mutex::new(State {
                default_quota,
                ..State::default()
            }),
            receiving: Arc::new(Semaphore::new(RECEIVING_MAX)),
            checking: Arc::new(Semaphore::new(CHECKING_MAX)),
        }
    }

    /// The place of `owner`, made when it is not there. Blocks on first use.
    pub fn shelf(&self, owner: AccountId) -> Result<Shelf, StoreError> {
        let mut state = self.lock();
        if let Some(shelf) = state.shelves.get(&owner) {
            return Ok(shelf.clone());
        }
        let store =
            FolderStore::open(&self.root, owner, state.quota(owner)).map_err(|error| StoreError::Unreachable {
                reason: error.to_string(),
            })?;
        let partials = Arc::new(Partials::new(store.incoming()));
        let shelf = Shelf { store, partials };
        state.shelves.insert(owner, shelf.clone());
        Ok(shelf)
    }

    /// Limits what one friend may use; `None` returns to the default.
    pub fn set_quota(&self, owner: AccountId, quota: Option<u64>) {
        let mut state = self.lock();
        match quota {
            Some(bytes) => state.quotas.insert(owner, bytes),
            None => state.quotas.remove(&owner),
        };
        let quota = state.quota(owner);
        if let Some(shelf) = state.shelves.get(&owner) {
            shelf.store.set_quota(quota);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the shelves are locked")
    }
}

impl State {
    fn quota(&self, owner: AccountId) -> Option<u64> {
        self.quotas.get(&owner).copied().or(self.default_quota)
    }
}
