//! One share of each pack in a bucket: a store like any other.

use std::ops::Range;

use bytes::Bytes;
use proto::id::{AccountId, ShareId, VolumeId, VoterId};
use proto::shape::ShareSize;
use proto::share::Share;
use proto::share_store::{
    BoxFuture, HeadPlace, HeadStore, OldHeads, PromiseStore, PutAck, ShareStore, Space, StoreError,
};
use s3::Condition;
use tokio::sync::Mutex;
use upload_queue::bandwidth::Class;

use super::notes::Trash;
use super::parts::{Known, Part};
use super::{Bucket, keys};

/// The shares of one number.
pub struct Slot {
    pub(super) bucket: Bucket,
    pub(super) number: u8,
    pub(super) trash: Mutex<Trash>,
    /// What is known of where shares lie.
    pub(super) known: Known,
}

/// What lies where a share belongs.
enum There {
    Nothing,
    /// Those very bytes, or the same share with another manifest of this account: what came first stays.
    Same,
    /// So many other bytes.
    Damaged(u64),
}

impl Slot {
    pub(super) fn new(bucket: Bucket, number: u8) -> Self {
        Self {
            bucket,
            number,
            trash: Mutex::default(),
            known: Known::default(),
        }
    }

    pub(super) fn share_key(&self, part: Part, id: ShareId) -> Vec<u8> {
        self.bucket.0.keys.share(self.number, part, id)
    }

    async fn put_share(&self, id: ShareId, share: Share) -> Result<PutAck, StoreError> {
        share.verify(id).map_err(|error| StoreError::Refused {
            reason: error.to_string(),
        })?;
        let part = self.part_of(&share);
        let (bucket, key) = (&self.bucket, self.share_key(part, id));
        let bytes = share.stored_bytes() as u64;
        bucket.check_room(bytes)?;
        bucket.0.terms.bandwidth.upload.acquire(Class::Backup, bytes).await;
        let body = Bytes::from([&share.data[..], &share.tail].concat());
        let (client, nature) = (&bucket.0.client, bucket.ready().await?);
        let headers = bucket.share_headers(&nature, part);
        let is_put = nature.honours_conditions
            && match client.put(&key, body.clone(), &headers, &Condition::Absent).await {
                Err(s3::Error::Changed(_)) => false,
                put => bucket.heard(put).map(|_| true)?,
            };
        // An earlier attempt of this put counts, whose answer was lost.
        let there = match is_put {
            true => There::Nothing,
            false => self.compare(id, &key, &body).await?,
        };
        if !is_put && !matches!(there, There::Same) {
            bucket.heard(client.put(&key, body, &headers, &Condition::Always).await)?;
        }
        if part == Part::Short {
            self.known.add([id]);
        }
        let bytes_sent = match there {
            There::Nothing => {
                bucket.count(|used| used + bytes);
                bytes
            }
            There::Damaged(before) => {
                bucket.count(|used| (used + bytes).saturating_sub(before));
                bytes
            }
            There::Same => 0,
        };
        if bytes_sent == 0 || self.trash.lock().await.is_known() {
            self.take_out(&[id]).await?;
        }
        Ok(PutAck {
            bytes_sent,
            receipt: None,
        })
    }

    /// What is there, beside what should be. The ETag tells, unless the endpoint encrypts with keys of its own.
    async fn compare(&self, id: ShareId, key: &[u8], body: &Bytes) -> Result<There, StoreError> {
        let bucket = &self.bucket;
        let meta = match bucket.heard(bucket.0.client.head(key).await) {
            Err(StoreError::NotFound) => return Ok(There::Nothing),
            meta => meta?,
        };
        let is_same = meta.bytes == body.len() as u64
            && (meta.etag == s3::etag_of(body)
                || bucket
                    .read(key, meta.bytes)
                    .await?
                    .is_some_and(|there| there.bytes == *body || self.is_ours(id, there.bytes)));
        Ok(match is_same {
            true => There::Same,
            false => There::Damaged(meta.bytes),
        })
    }

    async fn get_share(&self, id: ShareId, range: Range<u32>) -> Result<Bytes, StoreError> {
        if range.start > range.end || range.end as usize > ShareSize::LARGEST.stored_bytes() {
            return Err(StoreError::OutOfRange);
        }
        let bucket = &self.bucket;
        let length = u64::from(range.end - range.start);
        bucket.0.terms.bandwidth.download.acquire(Class::Restore, length).await;
        let asked = u64::from(range.start)..u64::from(range.end);
        let mut got = Err(StoreError::NotFound);
        for part in self.known.order(id) {
            let key = self.share_key(part, id);
            got = bucket.heard(bucket.0.client.get(&key, Some(asked.clone()), length).await);
            match &got {
                Err(StoreError::NotFound) => continue,
                Ok(_) => self.known.found(part, id),
                Err(_) => {}
            }
            break;
        }
        match got {
            Ok(object) if object.bytes.len() as u64 == length => Ok(object.bytes),
            Ok(_) => Err(StoreError::OutOfRange),
            Err(StoreError::NotFound) => Err(bucket.check_here().await.err().unwrap_or(StoreError::NotFound)),
            Err(error) => Err(error),
        }
    }

    async fn list_shares(&self, after: Option<ShareId>, limit: u32) -> Result<Vec<ShareId>, StoreError> {
        if after.is_none() {
            self.refresh_trash().await?;
        }
        let mut ids = self.list_part(Part::Full, after, limit).await?;
        let short = self.list_part(Part::Short, after, limit).await?;
        self.known.add(short.iter().copied());
        ids.extend(short);
        ids.sort_unstable();
        ids.dedup();
        ids.truncate(limit as usize);
        if ids.is_empty() && after.is_none() {
            self.bucket.check_here().await?;
        }
        Ok(ids)
    }

    /// As `list_shares`, of one part, and without asking anew what is in the trash.
    pub(super) async fn list_part(
        &self,
        part: Part,
        after: Option<ShareId>,
        limit: u32,
    ) -> Result<Vec<ShareId>, StoreError> {
        let prefix = self.bucket.0.keys.shares(self.number, part);
        let mut start_after = after.map(|id| self.share_key(part, id)).unwrap_or_default();
        let (mut ids, limit) = (Vec::new(), limit as usize);
        while ids.len() < limit {
            let batch = self.bucket.list(prefix.clone(), start_after, limit).await?.0;
            let Some(last) = batch.last() else { break };
            start_after = last.key.clone();
            let is_last = batch.len() < limit;
            let trash = self.trash.lock().await;
            ids.extend(batch.iter().filter_map(|object| {
                let id = keys::id_of(&object.key)?;
                (!trash.has(id, object.modified)).then_some(id)
            }));
            if is_last {
                break;
            }
        }
        // Amazon lists in the order of the bytes; not everybody does.
        ids.sort_unstable();
        ids.truncate(limit);
        Ok(ids)
    }

    async fn ask_space(&self) -> Result<Space, StoreError> {
        let bucket = &self.bucket;
        if !bucket.has_answered() {
            bucket.check_here().await?;
        }
        let used_bytes = bucket.used_bytes();
        Ok(Space {
            used_bytes,
            free_bytes: bucket.0.terms.quota.map(|quota| quota.saturating_sub(used_bytes)),
        })
    }
}

impl ShareStore for Slot {
    fn put(&self, id: ShareId, share: Share) -> BoxFuture<'_, Result<PutAck, StoreError>> {
        Box::pin(self.put_share(id, share))
    }
    fn get(&self, id: ShareId, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        Box::pin(self.get_share(id, range))
    }
    fn list(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(self.list_shares(after, limit))
    }
    fn remove(&self, id: ShareId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.give_up(vec![id]).await.map(drop) })
    }
    fn space(&self) -> BoxFuture<'_, Result<Space, StoreError>> {
        Box::pin(self.ask_space())
    }
    fn discard(&self, ids: Vec<ShareId>) -> BoxFuture<'_, Result<u32, StoreError>> {
        Box::pin(self.give_up(ids))
    }
    fn list_trash(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(self.list_given_up(after, limit))
    }
    fn recall(&self, ids: Vec<ShareId>) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(async move { self.recall_shares(&ids).await })
    }
}

impl HeadStore for Slot {
    fn put_head(&self, head: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.put_newer_head(head))
    }
    fn heads(&self, account: AccountId) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>> {
        Box::pin(self.newest_heads(account))
    }
    fn old_heads(&self, account: AccountId, after: Option<HeadPlace>) -> BoxFuture<'_, Result<OldHeads, StoreError>> {
        Box::pin(self.replaced_heads(account, after))
    }
}

impl PromiseStore for Slot {
    fn claim(&self, claim: Bytes) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        Box::pin(self.bucket.judge(claim))
    }
    fn promise(&self, account: AccountId, volume: VolumeId) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(self.bucket.promise_of(account, volume))
    }
    fn voter(&self) -> BoxFuture<'_, Result<VoterId, StoreError>> {
        Box::pin(self.bucket.voter())
    }
}
