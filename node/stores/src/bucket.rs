//! An S3 bucket as a peer: shares, heads and promises of one account as objects under opaque keys (docs/format/bucket.md).
//!
//! A bucket that takes several shares of a pack is as many stores, its *slots*, side by side. What is in them is known from the
//! catalog; nothing is asked about or listed but where there is doubt. Leaves out: which slots there are (`engine::buckets`).

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use proto::id::{AccountId, VoterId};
use proto::keys::AccountKeys;
use proto::share_store::StoreError;
use s3::{Client, ListOptions, Listed};
use tokio::sync::Mutex;
use upload_queue::bandwidth::Bandwidth;
use upload_queue::peers::batches::LISTED_MAX;

#[doc(hidden)]
pub mod fuzzing;
mod heads;
mod keys;
mod lock;
mod marker;
mod meeting;
mod notes;
mod parts;
mod promises;
mod short;
mod slot;
mod trash;

use keys::Keys;
use marker::Nature;
pub use marker::SHARES_MAX;
pub use meeting::RosterCopy;
pub use slot::Slot;
pub use trash::Signer;

/// An answer so young tells that the endpoint can be reached. Chosen: a status that is looked at twice asks once.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(30);
/// Most objects of what is few: heads, and notes of what was given up. Chosen: a note holds thousands of ids, and they end
/// after a month.
const FEW_MAX: usize = 1 << 16;
/// Most batches of one list: an endpoint that has always one more is broken.
const BATCHES_MAX: usize = LISTED_MAX / s3::BATCH_KEYS_MAX;

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
    /// Shares of a pack that it takes.
    pub slots: u8,
}

/// One account's part of a bucket; clones share it.
#[derive(Clone)]
pub struct Bucket(Arc<Inner>);

struct Inner {
    client: Client,
    keys: Keys,
    account: AccountKeys,
    terms: Terms,
    state: std::sync::Mutex<State>,
    /// What was met under the grid's keys last: key and ETag.
    met: Mutex<BTreeSet<(Vec<u8>, String)>>,
}

/// What is known without asking.
#[derive(Default)]
struct State {
    /// Bytes of shares in all slots.
    used_bytes: u64,
    /// When it answered, unless it failed since.
    answered: Option<Instant>,
    /// Once the marker was read.
    nature: Option<Nature>,
    /// Which voter it is, once it has shown that it honours conditions.
    voter: Option<VoterId>,
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
            state: std::sync::Mutex::default(),
            met: Mutex::default(),
        }))
    }

    /// Its store of shares number `number`, from 0.
    pub fn slot(&self, number: u8) -> Slot {
        Slot::new(self.clone(), number)
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("nothing panics while it is locked")
    }

    /// An answer, or what the caller can do about there being none.
    fn heard<T>(&self, answer: Result<T, s3::Error>) -> Result<T, StoreError> {
        let is_answer = !matches!(&answer, Err(error) if error.is_general() || error.is_retryable());
        self.state().answered = is_answer.then(Instant::now);
        answer.map_err(store_error)
    }

    fn has_answered(&self) -> bool {
        self.state().answered.is_some_and(|at| at.elapsed() < ANSWER_AGE_MAX)
    }

    fn used_bytes(&self) -> u64 {
        self.state().used_bytes
    }

    fn count(&self, change: impl FnOnce(u64) -> u64) {
        let mut state = self.state();
        state.used_bytes = change(state.used_bytes);
    }

    fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
        match self.0.terms.quota {
            Some(quota) if self.used_bytes().saturating_add(bytes) > quota => Err(StoreError::Full {
                reason: format!("the bucket may hold {quota} bytes for us"),
            }),
            _ => Ok(()),
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
        for _ in 0..BATCHES_MAX {
            let batch = self.heard(self.0.client.list(&options).await)?;
            // Not every endpoint knows `start-after`.
            let after = batch
                .objects
                .into_iter()
                .filter(|object| object.key > options.start_after);
            found.extend(after);
            now = now.or(batch.now);
            options.token = batch.next;
            if options.token.is_none() || found.len() >= limit {
                found.truncate(limit);
                return Ok((found, now));
            }
        }
        Err(too_long())
    }

    /// All objects below `prefix`, which are few, and the endpoint's time.
    async fn list_few(&self, prefix: Vec<u8>) -> Result<(Vec<Listed>, Option<jiff::Timestamp>), StoreError> {
        let found = self.list(prefix, Vec::new(), FEW_MAX + 1).await?;
        match found.0.len() <= FEW_MAX {
            true => Ok(found),
            false => Err(too_long()),
        }
    }
}

fn too_long() -> StoreError {
    StoreError::Corrupt {
        reason: "The bucket's list does not end".to_owned(),
    }
}

/// What an endpoint's refusal means to who keeps shares there.
pub fn store_error(error: s3::Error) -> StoreError {
    let reason = error.to_string();
    match &error {
        s3::Error::NotFound(_) | s3::Error::NoBucket(_) => StoreError::NotFound,
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
