//! An S3 bucket as a peer: shares and heads of one account as objects under opaque keys (docs/format/bucket.md).
//!
//! A bucket that takes several shares of a pack is as many stores, its *slots*, side by side. What is in them is known from the
//! catalog; nothing is asked about or listed but where there is doubt. Leaves out: which slots there are (`engine::buckets`).

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::id::{AccountId, ShareId};
use proto::keys::AccountKeys;
use proto::share::{Share, ShareSize};
use proto::share_store::{BoxFuture, HeadStore, PutAck, ShareStore, Space, StoreError};
use s3::{Client, Condition, Headers, ListOptions, Listed};
use tokio::sync::Mutex;
use upload_queue::bandwidth::Class;

use crate::net::Bandwidth;

mod heads;
mod keys;
mod marker;
mod meeting;
mod trash;

use keys::Keys;
pub use marker::SHARES_MAX;
pub use trash::Signer;
use trash::Trash;

/// An answer so young tells that the endpoint can be reached. Chosen: a status that is looked at twice asks once.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(30);

/// How an account's part of a bucket is used.
#[derive(Clone)]
pub struct Terms {
    /// Gives shares up: a bucket has no node of its own.
    pub signer: Signer,
    /// Storage class of shares, such as `STANDARD_IA`; none: the bucket's.
    pub storage_class: Option<String>,
    /// Most bytes of shares in all slots.
    pub quota: Option<u64>,
    /// Limits for what is sent and received.
    pub bandwidth: Bandwidth,
}

/// One account's part of a bucket; clones share it.
#[derive(Clone)]
pub struct Bucket(Arc<Inner>);

struct Inner {
    client: Client,
    keys: Keys,
    account: AccountKeys,
    terms: Terms,
    /// Bytes of shares in all slots, as far as is known.
    used_bytes: std::sync::Mutex<u64>,
    answered: std::sync::Mutex<Option<Instant>>,
    /// As the marker says, once it was read.
    honours_conditions: std::sync::Mutex<Option<bool>>,
    /// What was met under the grid's keys last: key and ETag.
    met: Mutex<BTreeSet<(Vec<u8>, String)>>,
}

impl Bucket {
    /// The part of `account` in the client's bucket. Nothing is sent yet.
    pub fn new(client: Client, account: AccountKeys, terms: Terms) -> Self {
        let keys = Keys::new(client.location(), &account);
        Self(Arc::new(Inner {
            client,
            keys,
            account,
            terms,
            used_bytes: std::sync::Mutex::default(),
            answered: std::sync::Mutex::default(),
            honours_conditions: std::sync::Mutex::default(),
            met: Mutex::default(),
        }))
    }

    /// Its store of shares number `number`, from 0.
    pub fn slot(&self, number: u8) -> Slot {
        Slot {
            bucket: self.clone(),
            number,
            trash: Arc::default(),
        }
    }

    /// Says how many bytes the shares in all slots take.
    pub fn set_used_bytes(&self, bytes: u64) {
        self.count(|_| bytes);
    }

    /// What the endpoint calls the same objects, whoever asks.
    pub fn url(&self) -> String {
        format!("{}/{}", self.0.client.url(), self.0.client.location().prefix)
    }

    fn account_id(&self) -> AccountId {
        self.0.account.account_id()
    }

    /// An answer, or what the caller can do about there being none.
    fn heard<T>(&self, answer: Result<T, s3::Error>) -> Result<T, StoreError> {
        let is_answer = !matches!(&answer, Err(error) if error.is_general() || error.is_retryable());
        *self.0.answered.lock().expect("nothing panics while it is locked") = is_answer.then(Instant::now);
        answer.map_err(store_error)
    }

    fn has_answered(&self) -> bool {
        let answered = self.0.answered.lock().expect("nothing panics while it is locked");
        answered.is_some_and(|at| at.elapsed() < ANSWER_AGE_MAX)
    }

    fn used_bytes(&self) -> u64 {
        *self.0.used_bytes.lock().expect("nothing panics while it is locked")
    }

    fn count(&self, change: impl FnOnce(u64) -> u64) {
        let mut used = self.0.used_bytes.lock().expect("nothing panics while it is locked");
        *used = change(*used);
    }

    fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
        match self.0.terms.quota {
            Some(quota) if self.used_bytes().saturating_add(bytes) > quota => Err(StoreError::Full {
                reason: format!("the bucket may hold {quota} bytes for us"),
            }),
            _ => Ok(()),
        }
    }

    fn headers(&self) -> Headers {
        Headers {
            storage_class: self.0.terms.storage_class.clone(),
            ..Headers::default()
        }
    }

    /// All of a small object; none if there is none.
    async fn read(&self, key: &[u8], bytes_max: u64) -> Result<Option<s3::Object>, StoreError> {
        match self.heard(self.0.client.get(key, None, bytes_max).await) {
            Ok(object) => Ok(Some(object)),
            Err(StoreError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Up to `limit` objects below `prefix` with keys after `start_after`, and the endpoint's time.
    async fn list(
        &self,
        prefix: Vec<u8>,
        start_after: Vec<u8>,
        limit: usize,
    ) -> Result<(Vec<Listed>, Option<jiff::Timestamp>), StoreError> {
        let mut options = ListOptions {
            prefix,
            start_after,
            token: None,
        };
        let (mut found, mut now) = (Vec::new(), None);
        loop {
            let page = self.heard(self.0.client.list(&options).await)?;
            // Not every endpoint knows `start-after`.
            let after = page
                .objects
                .into_iter()
                .filter(|object| object.key > options.start_after);
            found.extend(after);
            now = now.or(page.now);
            options.token = page.next;
            if options.token.is_none() || found.len() >= limit {
                found.truncate(limit);
                return Ok((found, now));
            }
        }
    }
}

/// One share of each pack in a bucket: a store like any other.
pub struct Slot {
    bucket: Bucket,
    number: u8,
    trash: Arc<Mutex<Trash>>,
}

impl Slot {
    fn share_key(&self, id: ShareId) -> Vec<u8> {
        self.bucket.0.keys.share(self.number, id)
    }

    async fn put_share(&self, id: ShareId, share: Share) -> Result<PutAck, StoreError> {
        share.verify(id).map_err(|error| StoreError::Refused {
            reason: error.to_string(),
        })?;
        let (bucket, key) = (&self.bucket, self.share_key(id));
        let bytes = share.stored_bytes() as u64;
        bucket.check_room(bytes)?;
        let terms = &bucket.0.terms;
        terms.bandwidth.upload.acquire(Class::Backup, bytes).await;
        let body = Bytes::from([&share.data[..], &share.tail].concat());
        let (client, headers) = (&bucket.0.client, bucket.headers());
        let put = match bucket.honours_conditions().await? {
            true => client.put(&key, body.clone(), &headers, &Condition::Absent).await,
            false if self.holds(&key, &body).await? => Err(s3::Error::Changed(String::new())),
            false => client.put(&key, body.clone(), &headers, &Condition::Always).await,
        };
        let bytes_sent = match put {
            // It is there, or an earlier attempt of this put arrived and its answer did not.
            Err(s3::Error::Changed(_)) if self.holds(&key, &body).await? => 0,
            Err(s3::Error::Changed(_)) => {
                bucket.heard(client.put(&key, body, &headers, &Condition::Always).await)?;
                bytes
            }
            put => {
                bucket.heard(put)?;
                bucket.count(|used| used + bytes);
                bytes
            }
        };
        if bytes_sent == 0 || self.trash.lock().await.is_known() {
            self.take_out(&[id]).await?;
        }
        Ok(PutAck {
            bytes_sent,
            receipt: None,
        })
    }

    /// Whether the object has exactly these bytes. Its ETag tells, unless the endpoint encrypts with keys of its own.
    async fn holds(&self, key: &[u8], body: &Bytes) -> Result<bool, StoreError> {
        let bucket = &self.bucket;
        let meta = match bucket.heard(bucket.0.client.head(key).await) {
            Err(StoreError::NotFound) => return Ok(false),
            meta => meta?,
        };
        if meta.bytes != body.len() as u64 {
            return Ok(false);
        }
        if meta.etag == s3::etag_of(body) {
            return Ok(true);
        }
        let there = bucket.read(key, body.len() as u64).await?;
        Ok(there.is_some_and(|there| there.bytes == *body))
    }

    async fn get_share(&self, id: ShareId, range: Range<u32>) -> Result<Bytes, StoreError> {
        if range.start > range.end || range.end as usize > ShareSize::Large.stored_bytes() {
            return Err(StoreError::OutOfRange);
        }
        let bucket = &self.bucket;
        let length = u64::from(range.end - range.start);
        bucket.0.terms.bandwidth.download.acquire(Class::Restore, length).await;
        let asked = u64::from(range.start)..u64::from(range.end);
        let got = bucket.0.client.get(&self.share_key(id), Some(asked), length).await;
        match bucket.heard(got) {
            Ok(object) if object.bytes.len() as u64 == length => Ok(object.bytes),
            Ok(_) => Err(StoreError::OutOfRange),
            Err(StoreError::NotFound) => Err(bucket.check_here().await.err().unwrap_or(StoreError::NotFound)),
            Err(error) => Err(error),
        }
    }

    async fn list_shares(&self, after: Option<ShareId>, limit: u32) -> Result<Vec<ShareId>, StoreError> {
        if after.is_none() {
            self.load_trash().await?;
        }
        let prefix = self.bucket.0.keys.shares(self.number);
        let (mut ids, mut start_after) = (Vec::new(), after.map(|id| self.share_key(id)).unwrap_or_default());
        let limit = limit as usize;
        while ids.len() < limit {
            let page = self.bucket.list(prefix.clone(), start_after, limit).await?.0;
            let Some(last) = page.last() else { break };
            start_after = last.key.clone();
            let is_last = page.len() < limit;
            let trash = self.trash.lock().await;
            ids.extend(page.iter().filter_map(|object| {
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
        if ids.is_empty() && after.is_none() {
            self.bucket.check_here().await?;
        }
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
    fn old_heads(&self, account: AccountId) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>> {
        Box::pin(self.replaced_heads(account))
    }
}

/// What an endpoint's refusal means to who keeps shares there.
pub fn store_error(error: s3::Error) -> StoreError {
    let reason = error.to_string();
    match &error {
        s3::Error::NotFound(_) => StoreError::NotFound,
        s3::Error::Busy(_) => StoreError::Busy {
            retry_after: error.retry_after().unwrap_or(Duration::from_secs(1)),
        },
        s3::Error::Refused(refusal) if refusal.status == 416 => StoreError::OutOfRange,
        s3::Error::Refused(refusal) if refusal.status == 507 || refusal.code.contains("Quota") => {
            StoreError::Full { reason }
        }
        s3::Error::Refused(_) | s3::Error::Header { .. } | s3::Error::Changed(_) => StoreError::Refused { reason },
        s3::Error::TooLong { .. } => StoreError::Corrupt { reason },
        // Denied, too: credentials expire and are mended, and what is there already stays there.
        _ => StoreError::Unreachable { reason },
    }
}
