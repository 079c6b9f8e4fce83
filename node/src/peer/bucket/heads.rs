//! The heads of an account's devices, one object each, replaced by conditional puts and never by an older one.

use bytes::Bytes;
use proto::head::{HEAD_BYTES, Head};
use proto::id::{AccountId, DeviceId};
use proto::share_store::StoreError;
use s3::{Condition, Listed};

use super::{Bucket, Slot, keys};
use crate::engine::clock;

/// Most heads that are read at once.
const HEADS_MAX: usize = 64;
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
                None => Condition::Absent,
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

    /// Keeps a head that is about to be replaced, if it is the first of its device today.
    async fn keep_old_head(&self, device: DeviceId, head: Bytes) -> Result<(), StoreError> {
        let key = self
            .bucket
            .0
            .keys
            .old_head(self.number, clock::now_secs() / DAY_SECS, device);
        let headers = Bucket::headers(&self.bucket.ready().await?);
        match self.bucket.0.client.put(&key, head, &headers, &Condition::Absent).await {
            Err(s3::Error::Changed(_)) => Ok(()),
            put => self.bucket.heard(put).map(drop),
        }
    }

    pub(super) async fn newest_heads(&self, account: AccountId) -> Result<Vec<Bytes>, StoreError> {
        let prefix = self.bucket.0.keys.heads(self.number);
        self.read_heads(account, prefix).await
    }

    /// Replaced heads, newest first.
    pub(super) async fn replaced_heads(&self, account: AccountId) -> Result<Vec<Bytes>, StoreError> {
        let prefix = self.bucket.0.keys.old_heads(self.number);
        self.read_heads(account, prefix).await
    }

    async fn read_heads(&self, account: AccountId, prefix: Vec<u8>) -> Result<Vec<Bytes>, StoreError> {
        if account != self.bucket.account_id() {
            return Ok(Vec::new());
        }
        let mut listed: Vec<Listed> = self.bucket.list_few(prefix).await?.0;
        listed.sort_by(|a, b| b.key.cmp(&a.key));
        let mut heads = Vec::new();
        for object in listed.iter().filter(|object| is_device(&object.key)).take(HEADS_MAX) {
            let head = self.bucket.read(&object.key, HEAD_BYTES as u64 + 1).await?;
            heads.extend(head.map(|head| head.bytes));
        }
        Ok(heads)
    }
}

fn is_device(key: &[u8]) -> bool {
    keys::last(key).is_some_and(|name| name.parse::<DeviceId>().is_ok())
}
