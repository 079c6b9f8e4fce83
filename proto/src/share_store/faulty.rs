//! A decorator that fails on purpose: what a peer, a disk or a network may do, at exact and repeatable points.
//!
//! Nothing here is random. A simulation that wants random faults draws them and sets them here.

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{BoxFuture, HeadPlace, HeadStore, OldHeads, PromiseStore, PutAck, ShareStore, Space, StoreError};
use crate::discard::Evidence;
use crate::head::Head;
use crate::id::{AccountId, DeviceId, ShareId, VolumeId, VoterId};
use crate::share::Share;

/// What goes wrong. The default: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Every call fails with `Unreachable`.
    pub unreachable: bool,
    /// The next puts, this many, fail with `put_error`; counts down.
    pub fail_puts: u32,
    /// How they fail; `Unreachable` if not set.
    pub put_error: Option<StoreError>,
    /// Every so many puts one is acknowledged and thrown away: a lying peer, or a lost write.
    pub drop_every: Option<NonZeroU32>,
    /// Every so many gets one bit of the answer is flipped.
    pub flip_every: Option<NonZeroU32>,
    /// `heads` answers with the first head of each device that came through here: a rolled-back peer.
    pub replay_old_heads: bool,
    /// The next claims, this many, are judged, and their answers are lost: `Unreachable`; counts down.
    pub lose_claim_answers: u32,
    /// `list` has always one batch more, of shares that nobody knows: a peer that lies without end.
    pub list_without_end: bool,
}

/// `inner` with faults.
pub struct Faulty<S> {
    inner: S,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    faults: Faults,
    puts: u32,
    gets: u32,
    first_heads: Vec<(AccountId, DeviceId, Bytes)>,
}

/// What becomes of a put.
enum PutFate {
    Pass,
    Drop,
    Fail(StoreError),
}

impl<S> Faulty<S> {
    /// `inner` without faults so far.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            state: Mutex::default(),
        }
    }

    /// Changes what goes wrong from the next call on.
    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state().faults);
    }

    /// The store behind it, which has no faults.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self) -> Result<(), StoreError> {
        match self.state().faults.unreachable {
            true => Err(unreachable_on_purpose()),
            false => Ok(()),
        }
    }
}

impl State {
    fn next_put(&mut self) -> PutFate {
        if self.faults.fail_puts > 0 {
            self.faults.fail_puts -= 1;
            return PutFate::Fail(self.faults.put_error.clone().unwrap_or_else(unreachable_on_purpose));
        }
        self.puts = self.puts.wrapping_add(1);
        match self.faults.drop_every {
            Some(every) if self.puts.is_multiple_of(every.get()) => PutFate::Drop,
            _ => PutFate::Pass,
        }
    }

    /// Flips a bit of every so manieth answer, each time in another place.
    fn after_get(&mut self, bytes: Bytes) -> Bytes {
        self.gets = self.gets.wrapping_add(1);
        match self.faults.flip_every {
            Some(every) if self.gets.is_multiple_of(every.get()) && !bytes.is_empty() => {
                let mut flipped = bytes.to_vec();
                // A prime step visits all parts of answers of any length.
                let at = self.gets as usize * 7919 % flipped.len();
                flipped[at] ^= 1 << (self.gets % 8);
                flipped.into()
            }
            _ => bytes,
        }
    }

    fn remember_head(&mut self, bytes: &Bytes) {
        let Ok(head) = Head::decode(bytes) else { return };
        let key = (head.account(), head.device());
        if !self
            .first_heads
            .iter()
            .any(|(account, device, _)| (*account, *device) == key)
        {
            self.first_heads.push((key.0, key.1, bytes.clone()));
        }
    }
}

/// The `limit` ids that follow, counting in their first eight bytes.
fn invented(after: Option<ShareId>, limit: u32) -> Vec<ShareId> {
    let number = |id: ShareId| {
        id.0.iter()
            .take(8)
            .fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let first = after.map_or(0, |after| number(after).wrapping_add(1));
    let ids = (0..u64::from(limit)).map(|count| {
        let mut id = [0; ShareId::LEN];
        id[..8].copy_from_slice(&first.wrapping_add(count).to_be_bytes());
        ShareId(id)
    });
    ids.collect()
}

fn unreachable_on_purpose() -> StoreError {
    StoreError::Unreachable {
        reason: "a fault was set".to_owned(),
    }
}

impl<S: ShareStore> ShareStore for Faulty<S> {
    fn put(&self, id: ShareId, share: Share) -> BoxFuture<'_, Result<PutAck, StoreError>> {
        Box::pin(async move {
            self.reach()?;
            let fate = self.state().next_put();
            match fate {
                PutFate::Pass => self.inner.put(id, share).await,
                PutFate::Drop => Ok(PutAck {
                    bytes_sent: share.stored_bytes() as u64,
                    receipt: None,
                }),
                PutFate::Fail(error) => Err(error),
            }
        })
    }

    fn get(&self, id: ShareId, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        Box::pin(async move {
            self.reach()?;
            let bytes = self.inner.get(id, range).await?;
            Ok(self.state().after_get(bytes))
        })
    }

    fn list(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(async move {
            self.reach()?;
            if self.state().faults.list_without_end {
                return Ok(invented(after, limit));
            }
            self.inner.list(after, limit).await
        })
    }

    fn remove(&self, id: ShareId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.reach()?;
            self.inner.remove(id).await
        })
    }

    fn space(&self) -> BoxFuture<'_, Result<Space, StoreError>> {
        Box::pin(async move {
            self.reach()?;
            self.inner.space().await
        })
    }

    fn discard(&self, ids: Vec<ShareId>) -> BoxFuture<'_, Result<u32, StoreError>> {
        Box::pin(async move {
            self.reach()?;
            self.inner.discard(ids).await
        })
    }

    fn list_trash(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(async move {
            self.reach()?;
            self.inner.list_trash(after, limit).await
        })
    }

    fn evidence(&self, id: ShareId) -> BoxFuture<'_, Result<Evidence, StoreError>> {
        Box::pin(async move {
            self.reach()?;
            self.inner.evidence(id).await
        })
    }

    fn recall(&self, ids: Vec<ShareId>) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(async move {
            self.reach()?;
            self.inner.recall(ids).await
        })
    }
}

impl<S: HeadStore> HeadStore for Faulty<S> {
    fn put_head(&self, head: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.reach()?;
            self.inner.put_head(head.clone()).await?;
            self.state().remember_head(&head);
            Ok(())
        })
    }

    fn heads(&self, account: AccountId) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>> {
        Box::pin(async move {
            self.reach()?;
            let newest = self.inner.heads(account).await?;
            let state = self.state();
            if !state.faults.replay_old_heads {
                return Ok(newest);
            }
            let old = state.first_heads.iter().filter(|(of, _, _)| *of == account);
            Ok(old.map(|(_, _, bytes)| bytes.clone()).collect())
        })
    }

    fn old_heads(&self, account: AccountId, after: Option<HeadPlace>) -> BoxFuture<'_, Result<OldHeads, StoreError>> {
        Box::pin(async move {
            self.reach()?;
            self.inner.old_heads(account, after).await
        })
    }
}

impl<S: PromiseStore> PromiseStore for Faulty<S> {
    fn claim(&self, claim: Bytes) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        Box::pin(async move {
            self.reach()?;
            let answer = self.inner.claim(claim).await?;
            let mut state = self.state();
            match state.faults.lose_claim_answers.checked_sub(1) {
                Some(left) => {
                    state.faults.lose_claim_answers = left;
                    Err(unreachable_on_purpose())
                }
                None => Ok(answer),
            }
        })
    }

    fn promise(&self, account: AccountId, volume: VolumeId) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(async move {
            self.reach()?;
            self.inner.promise(account, volume).await
        })
    }

    fn voter(&self) -> BoxFuture<'_, Result<VoterId, StoreError>> {
        Box::pin(async move {
            self.reach()?;
            self.inner.voter().await
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;
    use crate::share_store::contract;
    use crate::share_store::contract::Fixture;
    use crate::share_store::memory::MemoryStore;

    fn every(count: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(count)
    }

    #[test]
    fn without_faults_it_passes_the_contract() {
        block_on(contract::check_share_store(
            &Faulty::new(MemoryStore::new()),
            &Fixture::new(1),
        ));
        block_on(contract::promises::check_promises(
            &Faulty::new(MemoryStore::new()),
            &Fixture::new(1),
        ));
    }

    #[test]
    fn a_claim_whose_answer_is_lost_is_the_promise_all_the_same() {
        let fixture = Fixture::new(1);
        let store = Faulty::new(MemoryStore::new());
        store.set(|faults| faults.lose_claim_answers = 1);
        assert_eq!(block_on(store.claim(fixture.claim(2))), Err(unreachable_on_purpose()));
        let held = block_on(store.promise(fixture.account(), fixture.volume(0)));
        assert_eq!(held, Ok(Some(fixture.claim(2))));
        assert_eq!(block_on(store.claim(fixture.claim(1))), Ok(fixture.claim(2)));
    }

    #[test]
    fn puts_fail_as_often_as_was_set_and_then_pass() {
        let fixture = Fixture::new(1);
        let store = Faulty::new(MemoryStore::new());
        let full = StoreError::Full {
            reason: "a test".to_owned(),
        };
        store.set(|faults| (faults.fail_puts, faults.put_error) = (2, Some(full.clone())));
        let (id, share) = fixture.share(0);
        for _ in 0..2 {
            assert_eq!(block_on(store.put(id, share.clone())), Err(full.clone()));
        }
        assert!(block_on(store.put(id, share)).is_ok());
    }

    #[test]
    fn every_second_put_is_acknowledged_and_thrown_away() {
        let fixture = Fixture::new(1);
        let store = Faulty::new(MemoryStore::new());
        store.set(|faults| faults.drop_every = every(2));
        for number in 0..4 {
            let (id, share) = fixture.share(number);
            assert!(block_on(store.put(id, share)).unwrap().bytes_sent > 0);
        }
        assert_eq!(store.inner().share_count(), 2);
        assert_eq!(block_on(store.get(fixture.share(1).0, 0..1)), Err(StoreError::NotFound));
    }

    #[test]
    fn every_second_get_has_one_wrong_bit() {
        let (id, share) = Fixture::new(1).share(0);
        let store = Faulty::new(MemoryStore::new());
        block_on(store.put(id, share.clone())).unwrap();
        store.set(|faults| faults.flip_every = every(2));
        for right in [true, false, true, false] {
            let bytes = block_on(store.get(id, 0..1000)).unwrap();
            let wrong_bits: u32 = bytes.iter().zip(&share.data).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert_eq!(wrong_bits, u32::from(!right));
        }
    }

    #[test]
    fn a_rolled_back_peer_answers_with_its_first_head() {
        let fixture = Fixture::new(1);
        let store = Faulty::new(MemoryStore::new());
        for seq in 1..=3 {
            block_on(store.put_head(fixture.head(seq))).unwrap();
        }
        assert_eq!(block_on(store.heads(fixture.account())), Ok(vec![fixture.head(3)]));
        store.set(|faults| faults.replay_old_heads = true);
        assert_eq!(block_on(store.heads(fixture.account())), Ok(vec![fixture.head(1)]));
    }

    #[test]
    fn an_unreachable_store_answers_nothing() {
        let fixture = Fixture::new(1);
        let store = Faulty::new(MemoryStore::new());
        store.set(|faults| faults.unreachable = true);
        let (id, share) = fixture.share(0);
        let unreachable = unreachable_on_purpose();
        assert_eq!(block_on(store.put(id, share)).unwrap_err(), unreachable);
        assert_eq!(block_on(store.get(id, 0..1)).unwrap_err(), unreachable);
        assert_eq!(block_on(store.list(None, 1)).unwrap_err(), unreachable);
        assert_eq!(block_on(store.remove(id)).unwrap_err(), unreachable);
        assert_eq!(block_on(store.space()).unwrap_err(), unreachable);
        assert_eq!(block_on(store.put_head(fixture.head(1))).unwrap_err(), unreachable);
        assert_eq!(block_on(store.heads(fixture.account())).unwrap_err(), unreachable);
        assert_eq!(block_on(store.claim(fixture.claim(1))).unwrap_err(), unreachable);
        let promise = block_on(store.promise(fixture.account(), fixture.volume(0)));
        assert_eq!(promise.unwrap_err(), unreachable);
        assert_eq!(block_on(store.voter()).unwrap_err(), unreachable);
    }
}
