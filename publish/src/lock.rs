//! The lock in the bucket: one publisher at a time, wherever it runs.
//!
//! It is taken right before the first request that changes something, renewed meanwhile, and given back. A holder whose term
//! has run out, by a clock that also counts while the machine sleeps, sends nothing more: [`Lock::guard`] looks before every
//! step of a request. What is on its way by then is refused by the endpoint because it comes after the term
//! ([`Lock::write`]), or loses because it is conditional. docs/decisions/0020-publish-lock.md goes through the interleavings.
//!
//! Leaves out: which request has which condition (`worker`, `plan`).

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use s3::{Client, Condition, Error, Headers, Stored};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::inventory::{Inventory, InventoryError, Memory};
use crate::options::{LockMode, LockOptions};

mod document;
mod take;
mod term;

pub(crate) use document::{Document, NAME, is_lock};
use term::{Term, now_ms};

/// Renewals in a term: two may fail.
const BEATS_PER_TERM: u32 = 3;
/// Longest wait for giving the lock back.
const RELEASE_WAIT: Duration = Duration::from_secs(10);

/// The lock cannot be had, or was lost.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another publisher is at work.
    #[error(
        "{host} publishes there: it said so {age_secs} s ago, and the lock is free {term_secs} s after its last word (--wait waits)"
    )]
    Held {
        /// Its machine.
        host: String,
        /// Since its last renewal.
        age_secs: i64,
        /// How long it is believed without one.
        term_secs: u64,
    },
    /// What lies in the lock's place is something else.
    #[error("{0} is no lock of this gridbackup; delete it if nobody publishes there")]
    Foreign(String),
    /// Another publisher has it now, or may have it.
    #[error("The lock in the bucket was lost ({0}); nothing more was sent, and the next run lists and repairs")]
    Lost(&'static str),
    /// A request came too late, was made once more after the lock was renewed, and came too late again.
    #[error("{0} twice; a longer --lease helps slow lines")]
    Late(Error),
    /// `--lock require`, and the endpoint cannot.
    #[error("The endpoint ignores conditions, so that no lock is safe there (--lock auto makes do with what it has)")]
    Unconditional,
    /// Others are always faster.
    #[error("Other publishers took the lock in the bucket again and again (--wait waits)")]
    Crowded,
    /// Nobody could be told from others.
    #[error("This machine has no random numbers")]
    Randomness,
    /// The inventory may not be what the bucket is: list, and begin anew.
    #[error("The bucket has to be listed first")]
    Doubted,
    /// The endpoint.
    #[error(transparent)]
    S3(#[from] Error),
    /// The inventory.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
}

/// What is known of the lock while it is held.
#[derive(Debug)]
struct Held {
    document: Document,
    etag: String,
    memory: Memory,
    /// Others may have published since the inventory was right.
    is_doubtful: bool,
    renewing: Option<AbortHandle>,
}

#[derive(Debug)]
enum State {
    Free,
    Held(Box<Held>),
    /// Lost or given back.
    Over,
}

/// The lock of one run; clones share it.
#[derive(Clone)]
pub(crate) struct Lock(Arc<Inner>);

struct Inner {
    client: Client,
    inventory: Arc<Inventory>,
    key: Vec<u8>,
    options: LockOptions,
    /// Not needed: a dry run, or nobody wants it.
    is_off: bool,
    state: Mutex<State>,
    term: Arc<Term>,
    is_open: AtomicBool,
    is_conditional: AtomicBool,
    /// The endpoint refuses what comes after the time that it was signed for.
    is_timed: AtomicBool,
    /// The bucket was listed since the lock was taken.
    is_listed: AtomicBool,
    lost: CancellationToken,
}

impl Lock {
    /// Of the keys that begin with `root`. Nothing is asked yet.
    pub fn new(client: Client, inventory: Arc<Inventory>, root: &[u8], options: LockOptions, dry_run: bool) -> Self {
        Self(Arc::new(Inner {
            client,
            inventory,
            key: [root, NAME].concat(),
            is_off: dry_run || options.mode == LockMode::None,
            options,
            state: Mutex::new(State::Free),
            term: Arc::new(Term::new()),
            is_open: AtomicBool::new(false),
            is_conditional: AtomicBool::new(false),
            is_timed: AtomicBool::new(false),
            is_listed: AtomicBool::new(false),
            lost: CancellationToken::new(),
        }))
    }

    /// Before a request that changes something. Takes the lock if nobody did yet; [`LockError::Doubted`]: list first.
    pub async fn enter(&self) -> Result<(), LockError> {
        let inner = &self.0;
        if inner.is_off || inner.is_open.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut state = inner.state.lock().await;
        if let State::Free = &*state {
            let mut held = inner.take().await?;
            let own = self.clone();
            held.renewing = Some(tokio::spawn(async move { own.renew().await }).abort_handle());
            *state = State::Held(Box::new(held));
        }
        match &*state {
            State::Held(held) if held.is_doubtful && !inner.is_listed.load(Ordering::Acquire) => {
                Err(LockError::Doubted)
            }
            State::Held(_) => {
                inner.is_open.store(true, Ordering::Release);
                Ok(())
            }
            _ => Err(LockError::Lost("another run has it now")),
        }
    }

    /// The bucket was listed. Held or not: what counts is a listing under the lock.
    pub async fn listed(&self) {
        if matches!(*self.0.state.lock().await, State::Held(_)) {
            self.0.is_listed.store(true, Ordering::Release);
        }
    }

    /// Requests can be made conditional here.
    pub fn is_conditional(&self) -> bool {
        self.0.is_conditional.load(Ordering::Relaxed)
    }

    /// The endpoint ignores conditions, and the lock is taken nevertheless.
    pub fn is_weak(&self) -> bool {
        self.0.is_open.load(Ordering::Acquire) && !self.is_conditional()
    }

    /// Does a part of a request only while the term runs. May be dropped.
    pub async fn guard<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, LockError> {
        let mut request = pin!(request);
        let mut lost = pin!(self.0.lost.cancelled());
        std::future::poll_fn(|context| {
            // First the clock: this process may have stood still since it last looked.
            if self.0.term.left().is_none() || lost.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(LockError::Lost("its term ran out")));
            }
            request.as_mut().poll(context).map_err(LockError::S3)
        })
        .await
    }

    /// Makes a request that changes objects while the term runs; if that came too late nevertheless (a slow line, a clock that was
    /// set), once more after the lock was renewed. May be dropped.
    pub async fn write<T, F: Future<Output = Result<T, Error>> + Send>(
        &self,
        request: impl Fn(Client) -> F,
    ) -> Result<T, LockError> {
        match self.guard(request(self.0.writer())).await {
            Err(LockError::S3(error @ Error::Late(_))) => tracing::debug!(%error, "it is made again"),
            ended => return ended,
        }
        self.confirm().await?;
        match self.guard(request(self.0.writer())).await {
            Err(LockError::S3(error @ Error::Late(_))) => Err(LockError::Late(error)),
            ended => ended,
        }
    }

    /// Renews at once: whoever finds other people's writes asks whether the lock is still held.
    pub async fn confirm(&self) -> Result<(), LockError> {
        match &mut *self.0.state.lock().await {
            State::Held(held) => self.0.beat(held).await,
            _ if self.0.is_off => Ok(()),
            _ => Err(LockError::Lost("another run has it now")),
        }
    }

    async fn renew(&self) {
        let inner = &self.0;
        let usual = inner.options.term / BEATS_PER_TERM;
        let mut pause = usual;
        loop {
            tokio::time::sleep(pause).await;
            let mut state = inner.state.lock().await;
            let State::Held(held) = &mut *state else { return };
            pause = match inner.beat(held).await {
                Ok(()) => usual,
                Err(LockError::Lost(why)) => {
                    tracing::warn!(why, "the lock was lost");
                    inner.term.end();
                    inner.lost.cancel();
                    *state = State::Over;
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "the lock could not be renewed yet");
                    usual / 4
                }
            };
        }
    }

    /// What the inventory says may not be so: the next run lists.
    pub fn doubt(&self) -> Result<(), InventoryError> {
        let memory = self.0.inventory.lock_memory()?;
        self.0.inventory.remember_lock(&Memory {
            generation: None,
            ..memory
        })
    }

    /// Gives the lock back, if it was taken. `is_whole`: the run did all that there was to do, so that the inventory is as the bucket;
    /// `listed_secs`: when the bucket was listed, by its clock. From a listing that is late enough on no late write is to be feared.
    pub async fn release(&self, is_whole: bool, listed_secs: Option<i64>) -> Result<(), LockError> {
        if self.0.is_off {
            return Ok(());
        }
        let is_over = |until: i64| is_whole && listed_secs.is_some_and(|listed_secs| listed_secs >= until);
        let mut state = self.0.state.lock().await;
        let State::Held(mut held) = std::mem::replace(&mut *state, State::Over) else {
            let memory = self.0.inventory.lock_memory()?;
            return match memory.doubt_until.is_some_and(is_over) {
                true => Ok(self.0.inventory.remember_lock(&Memory {
                    doubt_until: None,
                    ..memory
                })?),
                false => Ok(()),
            };
        };
        if let Some(renewing) = held.renewing.take() {
            renewing.abort();
        }
        let document = Document {
            held: false,
            beat: held.document.beat + 1,
            generation: held.document.generation + 1,
            ..held.document.clone()
        };
        let generation = document.generation;
        let condition = self.0.condition(Condition::Is(held.etag));
        let giving = self.guard(async {
            let given = tokio::time::timeout(RELEASE_WAIT, self.0.write(&document, &condition)).await;
            given.unwrap_or(Err(Error::Changed("the lock".to_owned())))
        });
        // If that fails, the next run finds its own lock and lists.
        let stored = giving.await?;
        let is_right = is_whole || !held.is_doubtful;
        Ok(self.0.inventory.remember_lock(&Memory {
            etag: stored.etag,
            generation: is_right.then_some(generation),
            doubt_until: held.memory.doubt_until.filter(|until| !is_over(*until)),
            ..held.memory
        })?)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let State::Held(held) = self.state.get_mut()
            && let Some(renewing) = &held.renewing
        {
            renewing.abort();
        }
    }
}

impl Inner {
    /// The lock itself has no window: it relies on its ETag. No ACL is asked for: what has none is private everywhere, and buckets
    /// without ACLs refuse them.
    async fn write(&self, document: &Document, condition: &Condition) -> Result<Stored, Error> {
        self.write_by(&self.client, document, condition).await
    }

    async fn write_by(&self, client: &Client, document: &Document, condition: &Condition) -> Result<Stored, Error> {
        let (bytes, headers) = (document.bytes(), Headers::default());
        let stored = client.put(&self.key, bytes, &headers, condition).await?;
        self.term.hear(stored.answered);
        Ok(stored)
    }

    /// Who makes requests that change objects.
    fn writer(&self) -> Client {
        match self.is_timed.load(Ordering::Relaxed) {
            true => self.client.within(self.term.clone()),
            false => self.client.clone(),
        }
    }

    fn condition(&self, condition: Condition) -> Condition {
        if self.is_conditional.load(Ordering::Relaxed) {
            condition
        } else {
            Condition::Always
        }
    }

    /// One renewal. Its term counts from before it was sent.
    async fn beat(&self, held: &mut Held) -> Result<(), LockError> {
        let (sent_ms, over) = (now_ms(), LockError::Lost("its term ran out"));
        let Some(left) = self.term.left() else {
            return Err(over);
        };
        let document = Document {
            beat: held.document.beat + 1,
            ..held.document.clone()
        };
        let beating = tokio::time::timeout(left, self.send_beat(held, &document));
        held.etag = beating.await.map_err(|_| over)??;
        held.document = document;
        self.term.extend(sent_ms, self.options.term);
        Ok(())
    }

    async fn send_beat(&self, held: &Held, document: &Document) -> Result<String, LockError> {
        if !self.is_conditional.load(Ordering::Relaxed) {
            // Nobody is told that he comes too late: look.
            self.assert_ours(held).await?;
        }
        let mut etag = held.etag.clone();
        loop {
            let condition = self.condition(Condition::Is(etag));
            match self.write(document, &condition).await {
                Ok(stored) => return Ok(stored.etag),
                // An earlier beat whose answer was lost, or another holder.
                Err(Error::Changed(_) | Error::NotFound(_)) => etag = self.assert_ours(held).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The lock's ETag, if it is still ours.
    async fn assert_ours(&self, held: &Held) -> Result<String, LockError> {
        match self.look().await? {
            Some(look) if look.document.is_same_taking(&held.document) => Ok(look.etag),
            Some(_) => Err(LockError::Lost("another publisher took it")),
            None => Err(LockError::Lost("somebody deleted it")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_sent_after_the_term() {
        let dir = tempfile::tempdir().unwrap();
        let inventory = Inventory::open(&dir.path().join("inventory.db"), "b").unwrap();
        let location = s3::Location::parse("s3://site?endpoint=http://127.0.0.1:1").unwrap();
        let client = Client::new(location, &s3::Options::default()).unwrap();
        let lock = Lock::new(client, Arc::new(inventory), b"", LockOptions::default(), false);
        let sent = AtomicBool::new(false);
        let request = async || {
            sent.store(true, Ordering::Relaxed);
            Ok(())
        };
        lock.0.term.extend(now_ms() - 60_001, Duration::from_secs(60));
        assert!(matches!(lock.guard(request()).await, Err(LockError::Lost(_))));
        assert!(!sent.load(Ordering::Relaxed));
        lock.0.term.extend(now_ms(), Duration::from_secs(60));
        lock.guard(request()).await.unwrap();
        lock.0.lost.cancel();
        assert!(matches!(lock.guard(request()).await, Err(LockError::Lost(_))));
    }
}
