//! A disk that is open on this machine: what faces write to is committed again and again, until it is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use disk::commit::root::Root;
use disk::running::Running;
use disk::running::edits::{Edit, NewVolume};
use disk::running::error::EditError;
use disk::running::stats::Stats;
use disk::{Device, DeviceError};
use proto::cap_index::PackRecord;
use proto::epoch::Epoch;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinHandle;

use crate::claimed::Claimed;
use crate::commits::{Due, Way};
use crate::voting::Voting;

/// Between two looks whether a commit is due.
const LOOK: Duration = Duration::from_secs(1);
/// After so long without a write packs are moved that only time makes worth it (docs/decisions/0065-collection-of-a-disk.md).
const SETTLE_AFTER: Duration = Duration::from_secs(300);
/// Between two such moves, and how many blocks each takes: 0.8 Mbit/s before redundancy, well below what friends have for an uplink.
const SETTLE_EVERY: Duration = Duration::from_secs(20);
const SETTLE_BLOCKS: u64 = 512;
/// When what a process before this one left behind is looked for: not while a disk is being opened.
const SWEEP_AFTER: Duration = Duration::from_secs(30);

/// How commits go.
#[derive(Clone, Debug, Default)]
pub struct CommitState {
    /// All records up to this one are committed.
    pub committed_seq: u64,
    /// Why the last attempt failed, if it did.
    pub failed: Option<String>,
}

/// What was written is not on peers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotCommitted {
    /// Attempts fail; the next is made by itself while the disk is open.
    #[error("What was written last is not on enough peers after {} s: {why}", waited.as_secs())]
    Failed {
        /// How long it was waited for.
        waited: Duration,
        /// Why the last attempt failed.
        why: String,
    },
    /// This machine's own disk failed.
    #[error("What was written last is not safe on this machine: {0}")]
    NotFlushed(String),
    /// It took too long.
    #[error("What was written last is not on enough peers after {} s", waited.as_secs())]
    Late {
        /// How long it was waited for.
        waited: Duration,
    },
    /// Another machine is its writer now.
    #[error("Another machine has taken the disk over, and what was written last is on this one alone")]
    Fenced {
        /// Which, and since which epoch.
        by: Epoch,
    },
    /// The disk was closed.
    #[error("The disk was closed before what was written last was on peers")]
    Closed,
}

/// An open disk. Dropping it stops committing; `close` ends it in order.
pub struct OpenDisk {
    running: Arc<Running>,
    voting: Voting,
    /// Ended with the disk: none of its tasks outlives it.
    way: Arc<Way>,
    state: watch::Receiver<CommitState>,
    shared: Arc<Shared>,
    committing: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    /// Somebody wants all up to this record committed.
    wanted: AtomicU64,
    asked: Notify,
    stop: Arc<AtomicBool>,
}

impl Drop for OpenDisk {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.asked.notify_one();
    }
}

impl OpenDisk {
    /// Of a volume that was just opened. Within a runtime.
    pub fn start(running: Running, way: Way) -> Self {
        let running = Arc::new(running);
        let (say, state) = watch::channel(CommitState {
            committed_seq: running.root().journal,
            ..CommitState::default()
        });
        let shared = Arc::new(Shared {
            wanted: AtomicU64::new(0),
            asked: Notify::new(),
            stop: Arc::default(),
        });
        let (voting, way) = (way.voting.clone(), Arc::new(way));
        let committing = Committing {
            running: running.clone(),
            way: way.clone(),
            shared: shared.clone(),
            say,
        };
        Self {
            running,
            voting,
            way,
            state,
            shared,
            committing: Mutex::new(Some(tokio::spawn(committing.run()))),
        }
    }

    /// What faces serve.
    pub fn device(&self) -> Arc<dyn Device> {
        Arc::new(Claimed::new(self.running.device(), self.voting.clone()))
    }

    /// Whether this machine is its writer.
    pub fn voting(&self) -> &Voting {
        &self.voting
    }

    /// The last commit.
    pub fn root(&self) -> Root {
        self.running.root()
    }

    /// Bytes in the journal, and how many it has room for.
    pub fn journal(&self) -> (u64, u64) {
        let usage = self.running.journal_usage();
        (usage.used_bytes, usage.bytes_max)
    }

    /// How long the oldest write has waited for a commit; none if there is nothing that waits.
    pub fn waiting(&self) -> Option<Duration> {
        self.running.journal_usage().oldest_pending
    }

    /// What it takes, and what it did.
    pub fn stats(&self) -> Stats {
        self.running.stats()
    }

    /// All packs that the last commit names and that are its own, by the thousand. Blocking.
    pub fn own_packs(&self, each: &mut dyn FnMut(&[PackRecord]) -> Result<(), DeviceError>) -> Result<(), DeviceError> {
        self.running.own_packs(each)
    }

    /// A snapshot of it to read. Blocking.
    pub fn snapshot(&self, name: &str) -> Result<Arc<dyn Device>, EditError> {
        self.running.open_snapshot(name)
    }

    /// Commits what there is, and then an edit. Blocking.
    pub fn edit(&self, edit: &Edit) -> Result<(), EditError> {
        let edited = self.way.edit(&self.running, edit, &self.shared.stop);
        self.shared.asked.notify_one();
        edited
    }

    /// Makes a new disk of a snapshot of this one, which holds it for that. Blocking.
    pub fn create_clone(&self, snapshot: &str, new: NewVolume, way: &Way) -> Result<(), EditError> {
        way.create_clone(&self.running, snapshot, new, &self.shared.stop)
    }

    /// How commits go.
    pub fn state(&self) -> CommitState {
        self.state.borrow().clone()
    }

    /// A barrier: when it is done, all that was written before is on peers. Attempts that fail are followed by others until `patience` is over.
    pub async fn committed(&self, patience: Duration) -> Result<(), NotCommitted> {
        let flushed = self.running.device().flush().await;
        flushed.map_err(|error| NotCommitted::NotFlushed(error.to_string()))?;
        let wanted = self.running.last_seq();
        if !self.running.is_dirty() {
            return Ok(());
        }
        let mut state = self.state.clone();
        self.shared.wanted.fetch_max(wanted, Ordering::SeqCst);
        self.shared.asked.notify_one();
        let waiting = state.wait_for(|state| state.committed_seq >= wanted);
        let waited = tokio::time::timeout(patience, waiting).await.map(|state| state.is_ok());
        match waited {
            Ok(true) => Ok(()),
            _ if let Some(by) = self.voting.progress().fenced => Err(NotCommitted::Fenced { by }),
            Ok(false) => Err(NotCommitted::Closed),
            Err(_late) => Err(match self.state().failed {
                Some(why) => NotCommitted::Failed { waited: patience, why },
                None => NotCommitted::Late { waited: patience },
            }),
        }
    }

    /// Why what was written last is not on peers: of the first attempt that fails, or of the last one if that did. May be dropped.
    pub async fn failing(&self) -> String {
        let mut state = self.state.clone();
        let why = state
            .wait_for(|state| state.failed.is_some())
            .await
            .map(|state| state.failed.clone());
        match why {
            Ok(Some(why)) => why,
            // It is closed: whoever waits for its commit hears of that.
            _ => std::future::pending().await,
        }
    }

    /// Ends it: what was written is committed if that can be done within `patience`, and else stays in the journal. Nobody writes any more.
    pub async fn close(&self, patience: Duration) -> Result<(), NotCommitted> {
        let committed = self.committed(patience).await;
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.asked.notify_one();
        if let Some(committing) = self.committing.lock().await.take()
            && let Err(error) = committing.await
        {
            tracing::error!(%error, "the commits of a disk ended unexpectedly");
        }
        let flushed = self.running.end().await;
        flushed.map_err(|error: DeviceError| NotCommitted::NotFlushed(error.to_string()))?;
        committed
    }
}

struct Committing {
    running: Arc<Running>,
    way: Arc<Way>,
    shared: Arc<Shared>,
    say: watch::Sender<CommitState>,
}

impl Committing {
    async fn run(self) {
        let mut due = Due::default();
        let mut settling = Settling::new(Instant::now());
        let mut sweep_at = Some(Instant::now() + SWEEP_AFTER);
        while !self.shared.stop.load(Ordering::SeqCst) && self.way.voting.progress().fenced.is_none() {
            if sweep_at.take_if(|at| Instant::now() >= *at).is_some() {
                self.give_up(true);
            }
            if !self.running.is_dirty() {
                due.clean();
                self.note_committed();
                if settling.is_due(Instant::now()) {
                    settling.done(self.settle().await, Instant::now());
                }
            } else {
                settling = settling.after_a_write(Instant::now());
                let is_asked = self.shared.wanted.load(Ordering::SeqCst) > self.say.borrow().committed_seq;
                let waiting_bytes = self.running.journal_usage().pending_bytes;
                if due.is_due(Instant::now(), self.running.last_seq(), waiting_bytes, is_asked) {
                    let is_made = self.attempt().await;
                    match is_made {
                        true => due.committed(Instant::now()),
                        false => due.failed(Instant::now()),
                    }
                    if is_made {
                        continue;
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.shared.asked.notified() => {}
            }
        }
    }

    /// All is committed, perhaps by an edit, which commits what there is before it: whoever waits for an attempt would wait for ever.
    fn note_committed(&self) {
        let committed_seq = self.running.root().journal;
        self.say.send_if_modified(|state| {
            let is_news = state.committed_seq < committed_seq;
            if is_news {
                (state.committed_seq, state.failed) = (committed_seq, None);
            }
            is_news
        });
    }

    /// One commit; whether it was made.
    async fn attempt(&self) -> bool {
        let (running, way, stop) = (self.running.clone(), self.way.clone(), self.shared.stop.clone());
        let committing = tokio::task::spawn_blocking(move || way.commit(&running, &stop));
        let committed = match committing.await {
            Ok(committed) => committed.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = &committed {
            tracing::warn!("A commit of a disk was not made, and is tried again: {error}");
        }
        if committed.is_ok() {
            self.give_up(false);
        }
        let committed_seq = self.running.root().journal;
        self.say.send_modify(|state| {
            state.committed_seq = committed_seq;
            state.failed = committed.as_ref().err().cloned();
        });
        committed.is_ok()
    }

    /// Moves what only idle time makes worth it; whether there was anything.
    async fn settle(&self) -> bool {
        let (running, way, stop) = (self.running.clone(), self.way.clone(), self.shared.stop.clone());
        let settling = tokio::task::spawn_blocking(move || way.settle(&running, SETTLE_BLOCKS, &stop));
        match settling.await {
            Ok(Ok(true)) => {
                self.give_up(false);
                true
            }
            Ok(Ok(false)) => false,
            Ok(Err(error)) => {
                tracing::info!("Packs of a disk were not moved: {error}");
                false
            }
            Err(_ended) => false,
        }
    }

    /// Gives up what commits need no more, in the background.
    fn give_up(&self, also_orphans: bool) {
        let (running, way) = (self.running.clone(), self.way.clone());
        tokio::spawn(async move {
            let writer = way.writer.clone();
            let giving_up = tokio::task::spawn_blocking(move || {
                let unnamed = match also_orphans {
                    true => way.give_up_unnamed(&running)?,
                    false => 0,
                };
                Ok::<_, DeviceError>(unnamed + way.give_up(&running, also_orphans)?)
            });
            match giving_up.await {
                Ok(Ok(0)) if !also_orphans => {}
                Ok(Ok(_)) => {
                    if let Err(error) = writer.discard_of_disks().await {
                        tracing::warn!("What a disk needs no more was not given up: {error}");
                    }
                }
                Ok(Err(error)) => tracing::info!("What a disk needs no more is looked for another time: {error}"),
                Err(_ended) => {}
            }
        });
    }
}

/// When packs are moved that only idle time makes worth it.
struct Settling {
    next: Instant,
}

impl Settling {
    fn new(now: Instant) -> Self {
        Self {
            next: now + SETTLE_AFTER,
        }
    }

    fn after_a_write(self, now: Instant) -> Self {
        Self::new(now)
    }

    fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    fn done(&mut self, has_moved: bool, now: Instant) {
        self.next = match has_moved {
            true => now + SETTLE_EVERY,
            // Time alone makes packs worth it, too, but not in a minute.
            false => now + SETTLE_AFTER,
        };
    }
}
