//! Object Lock, where the bucket has it: what is kept cannot be destroyed for [`LOCK_DAYS`], not even with this machine's credentials.
//!
//! Whoever has stolen them can only hide objects, and they are found again ([`Bucket::reveal`]). What is still wanted is locked
//! anew every [`RENEW_DAYS`]; what was given up is not, and so its locks run out.

use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use proto::share_store::StoreError;
use proto::wire::frame::IDS_MAX;
use s3::{Condition, Headers, Lock, LockMode, MarkersAfter};

use super::Bucket;
use super::marker::Nature;
use super::parts::Part;
use crate::folder::TRASH_DAYS;

/// Days until the next renewal. Chosen: each costs a request for each object.
const RENEW_DAYS: u32 = TRASH_DAYS;
/// Days for which objects are locked. Right before a renewal as many are left as given up shares wait.
const LOCK_DAYS: u32 = RENEW_DAYS + TRASH_DAYS + 1;
/// Requests at once.
const ASKS_MAX: usize = 16;
/// Longest note about the last renewal, in bytes.
const NOTE_BYTES_MAX: u64 = 64;

impl Nature {
    fn lock(&self) -> Option<Lock> {
        let lock = |mode: LockMode| Lock {
            mode,
            until: self.now() + days(LOCK_DAYS),
        };
        self.locks.map(lock)
    }
}

fn days(days: u32) -> SignedDuration {
    SignedDuration::from_hours(24 * i64::from(days))
}

impl Bucket {
    /// Of what is small, or read often.
    pub(super) fn headers(nature: &Nature) -> Headers {
        Headers {
            lock: nature.lock(),
            ..Headers::default()
        }
    }

    /// A lock outlives every number of days below a month: what is to go sooner has none.
    pub(super) fn share_headers(&self, nature: &Nature, part: Part) -> Headers {
        let headers = match part {
            Part::Full => Self::headers(nature),
            Part::Short => Headers::default(),
        };
        Headers {
            storage_class: self.0.terms.storage_class.clone(),
            ..headers
        }
    }

    pub(super) async fn lock_marker(&self) -> Result<(), StoreError> {
        match self.nature().await?.lock() {
            Some(lock) => self.lock_again(&self.0.keys.marker(), lock).await,
            None => Ok(()),
        }
    }

    /// Locks anew what is kept in the first `shares` slots, if it is time; how many objects.
    pub async fn renew_locks(&self, shares: u8) -> Result<u64, StoreError> {
        let nature = self.nature().await?;
        let (Some(lock), note) = (nature.lock(), self.0.keys.renewed()) else {
            return Ok(0);
        };
        let renewed = self.read(&note, NOTE_BYTES_MAX).await?;
        let renewed = renewed.and_then(|note| std::str::from_utf8(&note.bytes).ok()?.trim().parse().ok());
        // A time to come is nobody's.
        let is_young = |renewed: Timestamp| {
            let age = nature.now().duration_since(renewed);
            !age.is_negative() && age < days(RENEW_DAYS)
        };
        if renewed.is_some_and(is_young) {
            return Ok(0);
        }
        let mut count = self.lock_below(self.0.keys.marker(), lock).await?;
        count += self.lock_below(self.0.keys.roster(), lock).await?;
        count += self.lock_below(self.0.keys.voter(), lock).await?;
        count += self.lock_below(self.0.keys.promises(), lock).await?;
        for number in 0..shares {
            let slot = self.slot(number);
            count += self.lock_below(self.0.keys.heads(number), lock).await?;
            slot.refresh_trash().await?;
            let mut after = None;
            loop {
                let ids = slot.list_part(Part::Full, after, IDS_MAX).await?;
                let Some(last) = ids.last() else { break };
                after = Some(*last);
                let keys = ids.iter().map(|id| slot.share_key(Part::Full, *id)).collect();
                count += self.lock_all(keys, lock).await?;
            }
        }
        // Cut off before this, all is locked once more.
        let body = format!("{}\n", nature.now()).into();
        let client = &self.0.client;
        self.heard(client.put(&note, body, &Headers::default(), &Condition::Always).await)?;
        Ok(count)
    }

    /// What is there with keys that begin so, which is little.
    async fn lock_below(&self, prefix: Vec<u8>, lock: Lock) -> Result<u64, StoreError> {
        let found = self.list_few(prefix).await?.0;
        self.lock_all(found.into_iter().map(|object| object.key).collect(), lock)
            .await
    }

    async fn lock_all(&self, keys: Vec<Vec<u8>>, lock: Lock) -> Result<u64, StoreError> {
        let asks: Vec<_> = keys.iter().map(|key| self.lock_again(key, lock)).collect();
        stream::iter(asks)
            .buffer_unordered(ASKS_MAX)
            .try_collect::<()>()
            .await?;
        Ok(keys.len() as u64)
    }

    async fn lock_again(&self, key: &[u8], lock: Lock) -> Result<(), StoreError> {
        match self.0.client.lock(key, lock).await {
            // No lock can be made shorter: somebody was faster.
            Err(s3::Error::Denied(_)) if self.is_locked(key, lock).await? => Ok(()),
            // What is gone by now needs none.
            Err(s3::Error::NotFound(_)) => Ok(()),
            locked => self.heard(locked),
        }
    }

    async fn is_locked(&self, key: &[u8], lock: Lock) -> Result<bool, StoreError> {
        let meta = self.heard(self.0.client.head(key).await)?;
        Ok(meta.headers.lock.is_some_and(|there| there.until >= lock.until))
    }

    /// Brings back what seems deleted though its locks kept it; how many objects. What was given up long ago and is not gone yet comes
    /// back into the trash, with the notes about it.
    pub async fn reveal(&self) -> Result<u64, StoreError> {
        if self.heard(self.0.client.lock_mode().await)?.is_none() {
            return Ok(0);
        }
        let mut count = 0;
        // Below a marker there may be another one.
        loop {
            match self.reveal_once().await? {
                0 => return Ok(count),
                revealed => count += revealed,
            }
        }
    }

    async fn reveal_once(&self) -> Result<u64, StoreError> {
        let (prefix, mut count, mut after) = (self.0.keys.all(), 0, MarkersAfter::default());
        loop {
            let (hidden, next) = self.heard(self.0.client.hidden(&prefix, &after).await)?;
            let asks: Vec<_> = hidden.iter().map(|marker| self.0.client.reveal(marker)).collect();
            let revealed = stream::iter(asks).buffer_unordered(ASKS_MAX);
            self.heard(revealed.try_collect::<()>().await)?;
            count += hidden.len() as u64;
            match next {
                Some(next) => after = next,
                None => return Ok(count),
            }
        }
    }
}
