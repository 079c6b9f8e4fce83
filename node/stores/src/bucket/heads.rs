//! The heads of an account's devices, one object each, replaced by conditional puts and never by an older one.

use api::clock;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use proto::head::{HEAD_BYTES, Head};
use proto::id::{AccountId, DeviceId};
use proto::share_store::{HeadPlace, OLD_HEADS_MAX, OldHead, OldHeads, StoreError};
use s3::Condition;

use super::{Bucket, Slot, keys};

/// Most devices whose newest heads are kept: as many as a friend's node keeps (docs/protocol/share.md).
const HEADS_MAX: usize = 64;
/// Heads that are read at once.
const READS_MAX: usize = 16;
/// Attempts against another process that replaces the same head.
const ATTEMPTS_MAX: u32 = 3;
/// Seconds of a day.
const DAY_SECS: u64 = 86_400;

impl Slot {
    /// Keeps a head of the account unless one as new is there.
    pub(super) async fn put_newer_head(&self, encoded: Bytes) -> Result<(), StoreError> {
        let refused = |reason: String| StoreError::Refused { reason };
        let head = Head::decode(&encoded).map_err(|error| refused(error.to_string()))?;
        if head.account() != self.bucket.account_id() {
            return Err(refused("The head belongs to another account".into()));
        }
        let key = self.bucket.0.keys.head(self.number, head.device());
        let headers = Bucket::headers(&self.bucket.ready().await?);
        for _ in 0..ATTEMPTS_MAX {
            let held = self.bucket.read(&key, HEAD_BYTES as u64 + 1).await?;
            let condition = match &held {
                Some(held) if held.bytes == encoded => return Ok(()),
                Some(held) => {
                    match Head::decode(&held.bytes) {
                        Ok(known) if known.seq >= head.seq => {
                            let reason = format!("A head as new as number {} is held for that device", head.seq);
                            return Err(refused(reason));
                        }
                        Ok(_) => self.keep_old_head(head.device(), held.bytes.clone()).await?,
                        // What does not decode is damaged: the new head heals it.
                        Err(_) => {}
                    }
                    Condition::Is(held.meta.etag.clone())
                }
                None => {
                    self.make_place().await?;
                    Condition::Absent
                }
            };
            let client = &self.bucket.0.client;
            let put = client.put(&key, encoded.clone(), &headers, &condition).await;
            if !matches!(put, Err(s3::Error::Changed(_))) {
                return self.bucket.heard(put).map(drop);
            }
        }
        Err(StoreError::Busy {
            retry_after: std::time::Duration::from_secs(1),
        })
    }

    /// Makes room for the head of one more device: the heads that were put longest ago give way, as if they were replaced.
    async fn make_place(&self) -> Result<(), StoreError> {
        let mut there = self.listed_heads().await?;
        while there.len() >= HEADS_MAX {
            let (key, device) = there.remove(0);
            if let Some(head) = self.bucket.read(&key, HEAD_BYTES as u64 + 1).await? {
                self.keep_old_head(device, head.bytes).await?;
            }
            self.bucket.heard(self.bucket.0.client.delete_one(&key).await)?;
        }
        Ok(())
    }

    /// The keys of the newest heads of devices, that first which was put longest ago.
    async fn listed_heads(&self) -> Result<Vec<(Vec<u8>, DeviceId)>, StoreError> {
        let mut listed = self.bucket.list_few(self.bucket.0.keys.heads(self.number)).await?.0;
        listed.sort_by(|a, b| (a.modified, &a.key).cmp(&(b.modified, &b.key)));
        let named = listed.into_iter().filter_map(|object| {
            let device = keys::last(&object.key)?.parse().ok()?;
            Some((object.key, device))
        });
        Ok(named.collect())
    }

    /// Keeps a head that is about to be replaced, if it is the first of its device today.
    async fn keep_old_head(&self, device: DeviceId, head: Bytes) -> Result<(), StoreError> {
        let place = HeadPlace { day: today(), device };
        let key = self.bucket.0.keys.old_head(self.number, place);
        let headers = Bucket::headers(&self.bucket.ready().await?);
        match self.bucket.0.client.put(&key, head, &headers, &Condition::Absent).await {
            Err(s3::Error::Changed(_)) => Ok(()),
            put => self.bucket.heard(put).map(drop),
        }
    }

    /// Of most devices those that were put last.
    pub(super) async fn newest_heads(&self, account: AccountId) -> Result<Vec<Bytes>, StoreError> {
        if account != self.bucket.account_id() {
            return Ok(Vec::new());
        }
        let listed = self.listed_heads().await?;
        let keys: Vec<Vec<u8>> = listed.into_iter().rev().take(HEADS_MAX).map(|(key, _)| key).collect();
        Ok(self.read_heads(&keys).await?.into_iter().flatten().collect())
    }

    /// Replaced heads behind `after`, in the order of their places.
    pub(super) async fn replaced_heads(
        &self,
        account: AccountId,
        after: Option<HeadPlace>,
    ) -> Result<OldHeads, StoreError> {
        if account != self.bucket.account_id() {
            return Ok(OldHeads::default());
        }
        let all = &self.bucket.0.keys;
        let start = after.map_or_else(Vec::new, |after| all.old_head(self.number, after));
        let (listed, _) = self
            .bucket
            .list(all.old_heads(self.number), start, OLD_HEADS_MAX + 1)
            .await?;
        let is_all = listed.len() <= OLD_HEADS_MAX;
        let places = listed.into_iter().take(OLD_HEADS_MAX);
        let places = places.filter_map(|object| Some((keys::place_of(&object.key)?, object.key)));
        let (places, keys): (Vec<HeadPlace>, Vec<Vec<u8>>) = places.unzip();
        let heads = self.read_heads(&keys).await?;
        let found = places.iter().zip(heads).filter_map(|(place, head)| {
            Some(OldHead {
                encoded: head?,
                age_days: u16::try_from(today().saturating_sub(place.day)).unwrap_or(u16::MAX),
            })
        });
        Ok(OldHeads {
            heads: found.collect(),
            next: places.last().copied().filter(|_| !is_all),
        })
    }

    async fn read_heads(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let reads = keys.iter().map(|key| async move {
            let head = self.bucket.read(key, HEAD_BYTES as u64 + 1).await?;
            Ok::<_, StoreError>(head.map(|head| head.bytes))
        });
        let reads: Vec<_> = reads.collect();
        stream::iter(reads).buffered(READS_MAX).try_collect().await
    }
}

/// The day by this machine's clock: what a key names. When it is over is told by the endpoint's.
fn today() -> u32 {
    u32::try_from(clock::now_secs() / DAY_SECS).unwrap_or(u32::MAX)
}
