//! A store in memory: what tests use by default, and the model of how a peer behaves.
//!
//! It checks what it is given like a real peer, but keeps nothing beyond its own life and has one caller only.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{BoxFuture, HeadStore, PromiseStore, PutAck, ShareStore, Space, StoreError};
use crate::epoch::Verdict;
use crate::head::Head;
use crate::id::{AccountId, DeviceId, ShareId, VolumeId, VoterId};
use crate::keep_days::KeepDays;
use crate::promise::Promise;
use crate::share::Share;

/// Shares, heads and promises in memory.
#[derive(Default)]
pub struct MemoryStore {
    capacity_bytes: Option<u64>,
    kept: Mutex<Kept>,
    voter: Voter,
}

/// Which voter a store is: another one than every other of this process.
struct Voter(VoterId);

impl Default for Voter {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(VoterId(*blake3::hash(&number.to_le_bytes()).as_bytes()))
    }
}

#[derive(Default)]
struct Kept {
    shares: BTreeMap<ShareId, Share>,
    /// With the day on which it was given up.
    trash: BTreeMap<ShareId, (u32, Share)>,
    today: u32,
    heads: BTreeMap<(AccountId, DeviceId), (u64, Bytes)>,
    promises: BTreeMap<(AccountId, VolumeId), (Promise, Bytes)>,
}

impl MemoryStore {
    /// A store without limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store that is `Full` when stored forms would take more than `capacity_bytes`.
    pub fn with_capacity(capacity_bytes: u64) -> Self {
        Self {
            capacity_bytes: Some(capacity_bytes),
            ..Self::default()
        }
    }

    /// Number of shares kept.
    pub fn share_count(&self) -> usize {
        self.kept().shares.len()
    }

    /// Ends everything in the trash, as time does.
    pub fn expire_trash(&self) {
        self.kept().trash.clear();
    }

    /// Counts so many days, and ends what has been in the trash for longer than its manifest says.
    pub fn pass_days(&self, days: u32) {
        let mut kept = self.kept();
        kept.today += days;
        let today = kept.today;
        kept.trash.retain(|_, (day, share)| {
            let keep_days = share.manifest().map_or(KeepDays::MOST, |manifest| manifest.keep_days);
            *day + keep_days.days() >= today
        });
    }

    /// Flips the lowest bit of byte `offset` of a share's stored form, as a failing disk would. Returns whether there is
    /// such a byte.
    pub fn damage(&self, id: ShareId, offset: usize) -> bool {
        let mut kept = self.kept();
        let Some(share) = kept.shares.get_mut(&id) else {
            return false;
        };
        let (part, at) = match offset.checked_sub(share.data.len()) {
            None => (&mut share.data, offset),
            Some(at) => (&mut share.tail, at),
        };
        let mut bytes = part.to_vec();
        let Some(byte) = bytes.get_mut(at) else { return false };
        *byte ^= 1;
        *part = bytes.into();
        true
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Every change below is a single insert or remove, so a panic elsewhere leaves nothing half done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_now(&self, id: ShareId, share: Share) -> Result<PutAck, StoreError> {
        share.verify(id).map_err(|error| StoreError::Refused {
            reason: error.to_string(),
        })?;
        let mut kept = self.kept();
        if kept.recall(id) {
            return Ok(PutAck::default());
        }
        let bytes_sent = share.stored_bytes() as u64;
        if self
            .capacity_bytes
            .is_some_and(|capacity| kept.used_bytes() + bytes_sent > capacity)
        {
            return Err(StoreError::Full {
                reason: "the store's capacity is used up".to_owned(),
            });
        }
        kept.shares.insert(id, share);
        Ok(PutAck {
            bytes_sent,
            receipt: None,
        })
    }

    fn put_head_now(&self, bytes: Bytes) -> Result<(), StoreError> {
        let head = Head::decode(&bytes).map_err(|error| StoreError::Refused {
            reason: error.to_string(),
        })?;
        let mut kept = self.kept();
        let key = (head.account(), head.device());
        match kept.heads.get(&key) {
            Some((_, held)) if *held == bytes => Ok(()),
            Some((seq, _)) if *seq == head.seq => Err(StoreError::Refused {
                reason: format!("another head {seq} of this device is held: a fork"),
            }),
            Some((seq, _)) if *seq > head.seq => Err(StoreError::Refused {
                reason: format!("head {seq} is held already"),
            }),
            _ => {
                kept.heads.insert(key, (head.seq, bytes));
                Ok(())
            }
        }
    }
}

impl MemoryStore {
    fn claim_now(&self, bytes: Bytes) -> Result<Bytes, StoreError> {
        let claim = Promise::decode(&bytes).map_err(StoreError::refused)?;
        let mut kept = self.kept();
        let place = (claim.account(), claim.volume);
        match kept.promises.get(&place) {
            Some((held, encoded)) if claim.verdict(Some(held)) != Verdict::Raise => Ok(encoded.clone()),
            _ => {
                kept.promises.insert(place, (claim, bytes.clone()));
                Ok(bytes)
            }
        }
    }
}

impl Kept {
    fn used_bytes(&self) -> u64 {
        let all = self.shares.values().chain(self.trash.values().map(|(_, share)| share));
        all.map(|share| share.stored_bytes() as u64).sum()
    }

    /// Takes a share out of the trash, if it is there; whether it is kept now.
    fn recall(&mut self, id: ShareId) -> bool {
        if let Some((_, share)) = self.trash.remove(&id) {
            self.shares.insert(id, share);
        }
        self.shares.contains_key(&id)
    }
}

impl ShareStore for MemoryStore {
    fn put(&self, id: ShareId, share: Share) -> BoxFuture<'_, Result<PutAck, StoreError>> {
        Box::pin(async move { self.put_now(id, share) })
    }

    fn get(&self, id: ShareId, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        Box::pin(async move {
            let kept = self.kept();
            let share = kept
                .shares
                .get(&id)
                .or_else(|| kept.trash.get(&id).map(|(_, share)| share));
            let share = share.ok_or(StoreError::NotFound)?;
            slice(share, range.start as usize..range.end as usize)
        })
    }

    fn list(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(async move { Ok(batch(&self.kept().shares, after, limit)) })
    }

    fn remove(&self, id: ShareId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.kept().shares.remove(&id);
            Ok(())
        })
    }

    fn space(&self) -> BoxFuture<'_, Result<Space, StoreError>> {
        Box::pin(async move {
            let used_bytes = self.kept().used_bytes();
            let free_bytes = self.capacity_bytes.map(|capacity| capacity.saturating_sub(used_bytes));
            Ok(Space { used_bytes, free_bytes })
        })
    }

    fn discard(&self, ids: Vec<ShareId>) -> BoxFuture<'_, Result<u32, StoreError>> {
        Box::pin(async move {
            let mut kept = self.kept();
            let (today, mut count) = (kept.today, 0);
            for id in ids {
                if let Some(share) = kept.shares.remove(&id) {
                    kept.trash.insert(id, (today, share));
                    count += 1;
                }
            }
            Ok(count)
        })
    }

    fn list_trash(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(async move { Ok(batch(&self.kept().trash, after, limit)) })
    }

    fn recall(&self, ids: Vec<ShareId>) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(async move {
            let mut kept = self.kept();
            Ok(ids.into_iter().filter(|id| kept.recall(*id)).collect())
        })
    }
}

impl HeadStore for MemoryStore {
    fn put_head(&self, head: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.put_head_now(head) })
    }

    fn heads(&self, account: AccountId) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>> {
        Box::pin(async move {
            let kept = self.kept();
            let heads = kept.heads.iter().filter(|((of, _), _)| *of == account);
            Ok(heads.map(|(_, (_, bytes))| bytes.clone()).collect())
        })
    }
}

impl PromiseStore for MemoryStore {
    fn claim(&self, claim: Bytes) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        Box::pin(async move { self.claim_now(claim) })
    }

    fn promise(&self, account: AccountId, volume: VolumeId) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(async move {
            let kept = self.kept();
            Ok(kept
                .promises
                .get(&(account, volume))
                .map(|(_, encoded)| encoded.clone()))
        })
    }

    fn voter(&self) -> BoxFuture<'_, Result<VoterId, StoreError>> {
        Box::pin(async move { Ok(self.voter.0) })
    }
}

fn batch<T>(shares: &BTreeMap<ShareId, T>, after: Option<ShareId>, limit: u32) -> Vec<ShareId> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let ids = shares.range((from, Bound::Unbounded)).map(|(id, _)| *id);
    ids.take(limit as usize).collect()
}

/// The bytes `range` of data and tail end to end. Copies only where the range spans both.
fn slice(share: &Share, range: Range<usize>) -> Result<Bytes, StoreError> {
    if range.start > range.end || range.end > share.stored_bytes() {
        return Err(StoreError::OutOfRange);
    }
    let data_len = share.data.len();
    Ok(if range.end <= data_len {
        share.data.slice(range)
    } else if range.start >= data_len {
        share.tail.slice(range.start - data_len..range.end - data_len)
    } else {
        [&share.data[range.start..], &share.tail[..range.end - data_len]]
            .concat()
            .into()
    })
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;
    use crate::share_store::contract;
    use crate::share_store::contract::Fixture;

    #[test]
    fn it_passes_the_contract() {
        block_on(contract::check_share_store(&MemoryStore::new(), &Fixture::new(7)));
    }

    #[test]
    fn it_keeps_promises_and_is_another_voter_than_others() {
        let (one, other) = (MemoryStore::new(), MemoryStore::with_capacity(0));
        block_on(contract::promises::check_promises(&one, &Fixture::new(7)));
        assert_ne!(block_on(one.voter()), block_on(other.voter()));
    }

    #[test]
    fn it_keeps_what_was_given_up_as_long_as_its_manifest_says() {
        let store = MemoryStore::new();
        let pass_days = async |days| store.pass_days(days);
        block_on(contract::check_keep_days(&store, &Fixture::new(7), pass_days));
    }

    #[test]
    fn it_is_full_at_its_capacity_and_not_before() {
        let fixture = Fixture::new(7);
        let (first, share) = fixture.share(0);
        let store = MemoryStore::with_capacity(share.stored_bytes() as u64);
        block_on(store.put(first, share.clone())).unwrap();
        assert_eq!(block_on(store.space()).unwrap().free_bytes, Some(0));
        let (second, other) = fixture.share(1);
        assert!(matches!(
            block_on(store.put(second, other.clone())),
            Err(StoreError::Full { .. })
        ));
        assert!(block_on(store.put(first, share)).is_ok());
        block_on(store.remove(first)).unwrap();
        assert!(block_on(store.put(second, other)).is_ok());
    }

    #[test]
    fn damage_changes_one_byte_of_data_or_tail() {
        let (id, share) = Fixture::new(7).share(0);
        let store = MemoryStore::new();
        let (data_len, len) = (share.data.len(), share.stored_bytes());
        block_on(store.put(id, share)).unwrap();
        for offset in [0, data_len - 1, data_len, len - 1] {
            let range = offset as u32..offset as u32 + 1;
            let before = block_on(store.get(id, range.clone())).unwrap()[0];
            assert!(store.damage(id, offset));
            assert_eq!(block_on(store.get(id, range)).unwrap()[0], before ^ 1);
        }
        assert!(!store.damage(id, len));
    }
}
