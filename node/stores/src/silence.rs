//! Peers that did not answer a moment ago are asked with little patience until they do: here, and by the commands that follow.
//!
//! A peer that is away costs one question its full time. After that, whoever wants something of it waits a few seconds at most,
//! for one short question that all share; its answer, however late, ends the silence at once. What is remembered across commands
//! is a hint in a small file: losing it costs some seconds.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::discard::Evidence;
use proto::id::{AccountId, ShareId, VolumeId, VoterId};
use proto::share::Share;
use proto::share_store::{
    BoxFuture, HeadPlace, HeadStore, OldHeads, PeerStore, PromiseStore, PutAck, ShareStore, Space, StoreError,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use upload_queue::peers::PeerKey;

/// How long a silent peer may take for a short question, before something that is tried again by itself. Chosen: a handshake
/// across an ocean and back is done in it, three times.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same before something that a command gives up when it fails. Chosen: as long as a person waits without wondering.
const PATIENCE_OF_COMMANDS: Duration = Duration::from_secs(5);
/// How long a silent peer is not asked again after a question that failed. Chosen: one who returns is back in a few seconds.
const PAUSE: Duration = Duration::from_secs(2);
/// A short question that somebody gave up after so long was not answered.
const UNANSWERED: Duration = Duration::from_secs(2);
/// For how long commands remember. Chosen: what was away an hour ago is asked as if nothing had been.
const REMEMBERED_SECS: u64 = 3600;
/// Most bytes of the file that are read: a line for each of more peers than a grid has.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Version of the file; another one is not read.
const VERSION: u32 = 1;

/// Who is silent; clones share it.
#[derive(Clone)]
pub struct Silence(Arc<Inner>);

struct Inner {
    file: PathBuf,
    peers: Mutex<HashMap<PeerKey, Silent>>,
}

/// What is known of a peer that is silent.
#[derive(Clone)]
struct Silent {
    since_secs: u64,
    reason: String,
    question: Option<Question>,
}

/// One short question, for all who want something.
#[derive(Clone)]
struct Question {
    asked: Instant,
    /// When it failed, once it did; closed without a word when it was answered.
    failed: watch::Receiver<Option<Instant>>,
}

/// `silent` in the home.
#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    /// Since when, in seconds since 1970.
    silent: BTreeMap<String, u64>,
}

impl Silence {
    /// What an earlier command left behind, if that was not long ago.
    pub fn load(file: PathBuf) -> Self {
        let is_small = std::fs::metadata(&file).is_ok_and(|found| found.len() <= FILE_BYTES_MAX);
        let bytes = is_small
            .then(|| std::fs::read(&file).ok())
            .flatten()
            .unwrap_or_default();
        let known = serde_json::from_slice::<File>(&bytes).ok();
        let now = now_secs();
        let known = known.filter(|known| known.version == VERSION).into_iter();
        let recent = known
            .flat_map(|known| known.silent)
            .filter(|(_, since)| (*since..=since.saturating_add(REMEMBERED_SECS)).contains(&now));
        let silent = |(key, since_secs)| {
            let reason = "it did not answer".to_owned();
            let question = None;
            (
                PeerKey(key),
                Silent {
                    since_secs,
                    reason,
                    question,
                },
            )
        };
        Self(Arc::new(Inner {
            peers: Mutex::new(recent.map(silent).collect()),
            file,
        }))
    }

    /// The same store, asked as its silence allows.
    pub fn minded(&self, key: &PeerKey, store: Arc<dyn PeerStore>) -> Arc<dyn PeerStore> {
        Arc::new(Minded {
            silence: self.clone(),
            key: key.clone(),
            store,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerKey, Silent>> {
        self.0.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self, key: &PeerKey) {
        let was_silent = self.lock().remove(key).is_some();
        if was_silent {
            self.keep();
        }
    }

    fn unheard(&self, key: &PeerKey, reason: &str) {
        let is_new = {
            let mut peers = self.lock();
            let is_new = !peers.contains_key(key);
            let silent = peers.entry(key.clone()).or_insert_with(|| Silent {
                since_secs: now_secs(),
                reason: String::new(),
                question: None,
            });
            reason.clone_into(&mut silent.reason);
            is_new
        };
        if is_new {
            self.keep();
        }
    }

    /// Leaves a hint to the next command; without it that waits as this one did.
    fn keep(&self) {
        let silent = self
            .lock()
            .iter()
            .map(|(key, silent)| (key.0.clone(), silent.since_secs))
            .collect();
        let file = File {
            version: VERSION,
            silent,
        };
        let written = serde_json::to_vec(&file)
            .map_err(std::io::Error::from)
            .and_then(|bytes| durable::replace_note(&self.0.file, &[&bytes]));
        if let Err(error) = written {
            tracing::debug!(%error, "who is silent is not remembered");
        }
    }
}

/// A store behind the memory of its silence.
struct Minded {
    silence: Silence,
    key: PeerKey,
    store: Arc<dyn PeerStore>,
}

impl Minded {
    /// Fails within `patience` if the peer is as silent as before.
    async fn may_ask(&self, patience: Duration) -> Result<(), StoreError> {
        let (question, since_secs, reason) = {
            let mut peers = self.silence.lock();
            let Some(silent) = peers.get_mut(&self.key) else {
                return Ok(());
            };
            let is_over = |question: &Question| {
                let failed = *question.failed.borrow();
                failed.is_some_and(|at| at.elapsed() >= PAUSE) || question.failed.has_changed().is_err()
            };
            if silent.question.as_ref().is_none_or(is_over) {
                silent.question = Some(self.ask());
            }
            (silent.question.clone(), silent.since_secs, silent.reason.clone())
        };
        if let Some(Question { asked, mut failed }) = question {
            let left = patience.saturating_sub(asked.elapsed());
            let _failed_or_answered = tokio::time::timeout(left, failed.wait_for(Option::is_some)).await;
        }
        match self.silence.lock().contains_key(&self.key) {
            false => Ok(()),
            true => Err(StoreError::Unreachable {
                reason: format!("{reason} (silent for {} s)", now_secs().saturating_sub(since_secs)),
            }),
        }
    }

    /// Asks without waiting. However late the answer, it ends the silence.
    fn ask(&self) -> Question {
        let (fail, failed) = watch::channel(None);
        let (silence, key, store) = (self.silence.clone(), self.key.clone(), self.store.clone());
        tokio::spawn(async move {
            match store.space().await {
                Err(StoreError::Unreachable { reason }) => {
                    silence.unheard(&key, &reason);
                    let _nobody_waits = fail.send(Some(Instant::now()));
                    // Whoever comes later learns when this was.
                    tokio::time::sleep(PAUSE).await;
                }
                _ => silence.heard(&key),
            }
        });
        Question {
            asked: Instant::now(),
            failed,
        }
    }

    /// Asks with patience, and learns from what comes of it.
    async fn minding<T>(
        &self,
        patience: Duration,
        asking: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.may_ask(patience).await?;
        self.learning(asking).await
    }

    /// Learns from what comes of it. Reads are always asked for: what comes late is better than what does not come back, and
    /// restores wait for nobody who is late as long as there are others.
    async fn learning<T>(&self, asking: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let answer = asking.await;
        match &answer {
            Err(StoreError::Unreachable { reason }) => self.silence.unheard(&self.key, reason),
            _ => self.silence.heard(&self.key),
        }
        answer
    }

    /// As `minding`, of a short question: one that is given up was not answered.
    async fn minding_time<T>(&self, asking: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let mut wait = Wait {
            minded: self,
            begun: Instant::now(),
            is_over: false,
        };
        let answer = self.minding(PATIENCE, asking).await;
        wait.is_over = true;
        answer
    }
}

/// Somebody waits for a short answer, and may give up.
struct Wait<'a> {
    minded: &'a Minded,
    begun: Instant,
    is_over: bool,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.begun.elapsed() >= UNANSWERED {
            let Minded { silence, key, .. } = self.minded;
            silence.unheard(key, "it did not answer in time");
        }
    }
}

impl ShareStore for Minded {
    fn put(&self, id: ShareId, share: Share) -> BoxFuture<'_, Result<PutAck, StoreError>> {
        Box::pin(self.minding(PATIENCE, self.store.put(id, share)))
    }
    fn get(&self, id: ShareId, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        Box::pin(self.learning(self.store.get(id, range)))
    }
    fn list(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(self.minding(PATIENCE_OF_COMMANDS, self.store.list(after, limit)))
    }
    fn remove(&self, id: ShareId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.minding(PATIENCE_OF_COMMANDS, self.store.remove(id)))
    }
    fn space(&self) -> BoxFuture<'_, Result<Space, StoreError>> {
        Box::pin(self.minding_time(self.store.space()))
    }
    fn discard(&self, ids: Vec<ShareId>) -> BoxFuture<'_, Result<u32, StoreError>> {
        Box::pin(self.minding(PATIENCE_OF_COMMANDS, self.store.discard(ids)))
    }
    fn list_trash(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(self.minding(PATIENCE_OF_COMMANDS, self.store.list_trash(after, limit)))
    }
    fn evidence(&self, id: ShareId) -> BoxFuture<'_, Result<Evidence, StoreError>> {
        Box::pin(self.minding(PATIENCE_OF_COMMANDS, self.store.evidence(id)))
    }
    fn recall(&self, ids: Vec<ShareId>) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(self.minding(PATIENCE_OF_COMMANDS, self.store.recall(ids)))
    }
}

impl HeadStore for Minded {
    fn put_head(&self, head: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.minding(PATIENCE, self.store.put_head(head)))
    }
    fn heads(&self, account: AccountId) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>> {
        Box::pin(self.minding(PATIENCE, self.store.heads(account)))
    }
    fn old_heads(&self, account: AccountId, after: Option<HeadPlace>) -> BoxFuture<'_, Result<OldHeads, StoreError>> {
        Box::pin(self.learning(self.store.old_heads(account, after)))
    }
}

impl PromiseStore for Minded {
    fn claim(&self, claim: Bytes) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        Box::pin(self.minding(PATIENCE, self.store.claim(claim)))
    }
    fn promise(&self, account: AccountId, volume: VolumeId) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(self.minding(PATIENCE, self.store.promise(account, volume)))
    }
    /// Not learned from: of a friend it is known without asking.
    fn voter(&self) -> BoxFuture<'_, Result<VoterId, StoreError>> {
        self.store.voter()
    }
}

fn now_secs() -> u64 {
    std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use proto::share_store::faulty::Faulty;
    use proto::share_store::memory::MemoryStore;

    use super::*;

    fn minded(silence: &Silence) -> (Arc<Faulty<MemoryStore>>, Arc<dyn PeerStore>) {
        let store = Arc::new(Faulty::new(MemoryStore::new()));
        (store.clone(), silence.minded(&PeerKey("friend:1".into()), store))
    }

    #[tokio::test]
    async fn a_peer_that_was_silent_is_known_to_be_by_the_next_command_and_heard_as_soon_as_it_answers() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("silent");
        let silence = Silence::load(file.clone());
        let (store, peer) = minded(&silence);
        store.set(|faults| faults.unreachable = true);
        assert!(peer.list(None, 1).await.is_err());
        assert_eq!(silence.lock().len(), 1);

        let next = Silence::load(file.clone());
        assert_eq!(next.lock().len(), 1);
        let (store, peer) = minded(&next);
        assert!(
            peer.list(None, 1).await.is_ok(),
            "it answers by now, and that is enough"
        );
        assert_eq!((next.lock().len(), Silence::load(file).lock().len()), (0, 0));

        // One question for all, then a pause, then another.
        store.set(|faults| faults.unreachable = true);
        for _ in 0..3 {
            assert!(peer.space().await.is_err());
        }
        store.set(|faults| faults.unreachable = false);
        assert!(peer.space().await.is_err(), "not asked again at once");
        tokio::time::sleep(PAUSE).await;
        assert!(peer.space().await.is_ok());
    }

    #[tokio::test]
    async fn a_damaged_or_old_file_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("silent");
        let hour_ago = now_secs() - REMEMBERED_SECS - 5;
        for text in [
            String::new(),
            "{".to_owned(),
            format!(r#"{{"version":1,"silent":{{"friend:1":{hour_ago}}}}}"#),
            format!(r#"{{"version":2,"silent":{{"friend:1":{}}}}}"#, now_secs()),
            format!(r#"{{"version":1,"silent":{{"friend:1":{}}}}}"#, u64::MAX),
        ] {
            std::fs::write(&file, &text).unwrap();
            assert_eq!(Silence::load(file.clone()).lock().len(), 0, "{text}");
        }
    }
}
