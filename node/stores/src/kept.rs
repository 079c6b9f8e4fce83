//! What this node keeps for its friends: one folder store and its unfinished transfers per account.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use proto::id::AccountId;
use proto::share_store::StoreError;
use tokio::sync::Semaphore;
use upload_queue::space::MinFree;

use super::folder::{Expired, FolderStore, account_folder, store_error, used_below};
use super::guests::Guests;
use super::heard::Heard;
use super::offer::{Offer, Room, Standing};
use super::partial::Partials;
use super::passing::Passing;
use super::shelf::Shelf;
use crate::room::Offered;

/// Received shares being checked at once. Chosen: each takes the memory of a share, and hashing one takes milliseconds.
const CHECKING_MAX: usize = 2;

/// The stores for all friends.
pub struct Kept {
    root: PathBuf,
    state: Mutex<State>,
    /// What each member may do here at once.
    pub guests: Guests,
    /// Turns for checking a received share.
    pub checking: Arc<Semaphore>,
    /// When each account was last heard from.
    pub heard: Heard,
    /// What is not kept, but passed on.
    pub passing: Passing,
    offer: Offer,
    min_free: MinFree,
}

#[derive(Default)]
struct State {
    shelves: HashMap<AccountId, Shelf>,
    quotas: HashMap<AccountId, u64>,
    default_quota: Option<u64>,
    /// Bytes in folders below the root whose shelf nobody has asked for; counted once.
    unopened: Option<HashMap<PathBuf, u64>>,
}

impl Kept {
    /// Stores below `root`, which offer this much to all friends together, and to each unless told otherwise. `min_free` of the
    /// disk stays free.
    pub fn new(root: &Path, offered: Offered, min_free: MinFree) -> Self {
        Self {
            root: root.to_owned(),
            state: Mutex::new(State {
                default_quota: match offered {
                    Offered::Bytes(bytes) => Some(bytes),
                    Offered::Automatic => None,
                },
                ..State::default()
            }),
            guests: Guests::default(),
            checking: Arc::new(Semaphore::new(CHECKING_MAX)),
            heard: Heard::new(root),
            passing: Passing::new(root).keeping_free(min_free),
            offer: Offer::new(offered),
            min_free,
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
        store.set_min_free(self.min_free);
        let partials = Arc::new(Partials::new(store.incoming()));
        let shelf = Shelf { store, partials };
        state.shelves.insert(owner, shelf.clone());
        if let Some(unopened) = &mut state.unopened {
            unopened.remove(&account_folder(&self.root, owner));
        }
        Ok(shelf)
    }

    /// Takes room for a share of `bytes`, or `Full`. Blocks.
    pub fn room(&self, bytes: u64) -> Result<Room, StoreError> {
        match self.offer.take(bytes, || self.standing()) {
            // What nobody goes on with gives way.
            Err(StoreError::Full { .. }) => {
                let shelves: Vec<Shelf> = self.lock().shelves.values().cloned().collect();
                shelves.iter().try_for_each(|shelf| shelf.partials.drop_idle(None))?;
                self.offer.take(bytes, || self.standing())
            }
            taken => taken,
        }
    }

    /// Bytes that friends may still use together. Blocks.
    pub fn left(&self) -> Result<u64, StoreError> {
        Ok(self.offer.left(self.standing()?))
    }

    fn standing(&self) -> Result<Standing, StoreError> {
        Ok(Standing::of(&self.root, self.used_bytes()?, self.min_free))
    }

    /// Bytes kept for all friends, or passed on. Blocks the first time, while they are counted.
    pub fn used_bytes(&self) -> Result<u64, StoreError> {
        let (shelves, unopened): (Vec<Shelf>, u64) = {
            let mut state = self.lock();
            if state.unopened.is_none() {
                let mut counted = used_below(&self.root)?;
                for owner in state.shelves.keys() {
                    counted.remove(&account_folder(&self.root, *owner));
                }
                state.unopened = Some(counted);
            }
            let unopened = state.unopened.iter().flat_map(HashMap::values).sum();
            (state.shelves.values().cloned().collect(), unopened)
        };
        shelves
            .iter()
            .try_fold(unopened + self.passing.used_bytes()?, |sum, shelf| {
                Ok(sum + shelf.used_bytes()?)
            })
    }

    /// Ends what was in the trash of these accounts for long enough. Blocks.
    pub fn expire(&self, accounts: &[AccountId]) -> Expired {
        let mut all = Expired::default();
        for account in accounts {
            if !account_folder(&self.root, *account).exists() {
                continue;
            }
            match self.shelf(*account).and_then(|shelf| shelf.store.expire()) {
                Ok(expired) => {
                    all.shares += expired.shares;
                    all.bytes += expired.bytes;
                    all.returned += expired.returned;
                }
                Err(error) => tracing::warn!("The trash of {} was not looked through: {error}", account.short()),
            }
        }
        all
    }

    /// Removes everything kept for an account but its promises, for good; how many bytes it was. Blocks.
    pub fn evict(&self, account: AccountId) -> Result<u64, StoreError> {
        let shelf = self.shelf(account)?;
        let bytes = shelf.used_bytes()? + self.passing.evict(account)?;
        // Moved first, durably: cut off, it is an empty place for the account and a folder to be removed, never half of its
        // shares. Nobody opens the place meanwhile.
        let mut state = self.lock();
        let evicted = shelf.store.evict();
        state.shelves.remove(&account);
        drop(state);
        std::fs::remove_dir_all(evicted?)
            .map(|()| bytes)
            .map_err(|error| store_error("removing what an account stored", &error))
    }

    /// When the newest head of an account came, seconds since 1970; none: it has no backup here. Blocks.
    pub fn newest_head_secs(&self, account: AccountId) -> Option<u64> {
        FolderStore::newest_head_secs(&self.root, account)
    }

    /// Limits what one friend may use; `None`: what is offered to all.
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

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proto::discard::{Discard, Order};
    use proto::id::DeviceId;
    use proto::keep_days::KeepDays;
    use proto::keys::{DeviceCert, power};
    use proto::share_store::ShareStore;
    use proto::share_store::contract::Fixture;
    use proto::share_store::contract::promises::{check_kept, check_promises};

    use super::*;

    #[tokio::test]
    async fn what_a_friend_gives_up_stays_as_long_as_its_manifest_says() {
        let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
        let kept = Kept::new(root.path(), Offered::Automatic, MinFree::Bytes(0));
        let store = kept.shelf(fixture.account()).unwrap().store;
        let mut ids = Vec::new();
        for days in [2, 30] {
            let (id, share) = fixture.kept_for(days, KeepDays::new(days as u8).unwrap());
            store.put(id, share).await.unwrap();
            ids.push(id);
        }
        let (two, month) = (ids[0], ids[1]);
        ids.sort_unstable();
        let (device, holder) = (SigningKey::from_bytes(&[8; 32]), DeviceId([3; 32]));
        let id = DeviceId(device.verifying_key().to_bytes());
        let cert = DeviceCert::sign(fixture.words(), id, power::ALL, "laptop", 0);
        let order = Order {
            holder,
            number: 1,
            previous: [0; 32],
            issued_secs: 0,
        };
        let discard = Discard::sign(&device, &cert, order, &ids).unwrap();
        assert_eq!(store.take_discard(discard, ids, holder).await, Ok(2));
        let is_there = |id| store.open_share(id).is_ok();
        for (days, two_is_there, month_is_there) in
            [(1, true, true), (2, false, true), (27, false, true), (1, false, false)]
        {
            store.pass_days(days);
            kept.expire(&[fixture.account()]);
            assert_eq!(
                (is_there(two), is_there(month)),
                (two_is_there, month_is_there),
                "{days} more days"
            );
        }
    }

    #[tokio::test]
    async fn what_is_kept_for_a_friend_goes_and_what_was_promised_to_it_stays() {
        let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
        let kept = Kept::new(root.path(), Offered::Automatic, MinFree::Bytes(0));
        let account = fixture.account();
        let store = kept.shelf(account).unwrap().store;
        check_promises(&store, &fixture).await;
        let (id, share) = fixture.share(0);
        store.put(id, share).await.unwrap();
        assert!(kept.evict(account).unwrap() > 0);
        let store = kept.shelf(account).unwrap().store;
        assert_eq!(store.list(None, 9).await, Ok(Vec::new()));
        check_kept(&store, &fixture).await;
        let again = Kept::new(root.path(), Offered::Automatic, MinFree::Bytes(0));
        check_kept(&again.shelf(account).unwrap().store, &fixture).await;
    }
}
