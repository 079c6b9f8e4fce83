//! What the uploader's tasks have in common.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use database::{Db, DbError};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinError;
use tokio::time::Instant;

use crate::packs;
use crate::packs::shares;
use crate::packs::shares::SpooledShare;
use crate::peers::PeerSet;
use crate::spool::Spool;
use crate::uploader::lines::Lines;
use crate::uploader::waiting::Delivery;
use crate::uploader::waiting::Waiting;
use crate::uploader::{UploadError, UploadEvent, UploaderConfig};

/// Shares in memory at once on their way from the spool to all peers: at 4 MiB each, 96 MiB.
const SHARES_IN_MEMORY_MAX: usize = 24;
/// Deliveries that wait to be recorded, at most; a lane that finds the channel full waits.
const UNRECORDED_MAX: usize = 256;

pub(super) struct Shared {
    pub(super) db: Db,
    pub(super) peers: PeerSet,
    pub(super) config: UploaderConfig,
    pub(super) spool: Spool,
    events: mpsc::Sender<UploadEvent>,
    lines: Mutex<Lines>,
    tolerate: AtomicU8,
    /// Something happened in `lines`.
    pub(super) changed: Notify,
    /// The supervisor should look now.
    pub(super) woken: Notify,
    pub(super) delivered: mpsc::Sender<Delivery>,
    pub(super) in_memory: Semaphore,
    pub(super) bytes_sent: AtomicU64,
    /// In stored form, acknowledged since the start.
    pub(super) delivered_bytes: AtomicU64,
    /// Shares that gave way in the spool, since the start.
    pub(super) gave_way: AtomicU64,
    /// A task without which nothing goes on has ended.
    is_over: AtomicBool,
}

impl Shared {
    /// Shares of a pack that may be lost.
    pub(super) fn tolerate(&self) -> u8 {
        self.tolerate.load(Ordering::Relaxed)
    }

    pub(super) fn set_tolerate(&self, tolerate: u8) {
        self.tolerate.store(tolerate, Ordering::Relaxed);
    }

    /// Opens the spool, brings it and the database to agree, and lines up what is in it.
    pub(super) fn open(
        db: Db,
        peers: PeerSet,
        config: UploaderConfig,
        events: mpsc::Sender<UploadEvent>,
    ) -> Result<(Self, mpsc::Receiver<Delivery>), UploadError> {
        let spool = Spool::open(&config.spool)?;
        // A share found on a peer (recover, an audit) need not be sent.
        let waiting = db.write::<_, DbError>(|tx| {
            tx.execute(
                "UPDATE share SET spooled = 0 WHERE spooled = 1 AND holder IS NOT NULL",
                [],
            )?;
            shares::spooled(tx)
        })?;
        let waiting = those_there(&db, &spool, waiting)?;
        let keep: HashSet<_> = waiting.iter().map(|share| share.id).collect();
        let swept = spool.sweep(&keep)?;
        if swept > 0 || !waiting.is_empty() {
            tracing::info!(
                waiting = waiting.len(),
                swept,
                "the spool was taken over from an earlier run"
            );
        }
        let mut lines = Lines::new(config.spool_bytes_max);
        lines.held.set_steward(config.steward.clone());
        let now = Instant::now();
        for share in &waiting {
            lines.add_new(share.planned.as_ref(), Waiting::from(share), now);
        }
        let (delivered, deliveries) = mpsc::channel(UNRECORDED_MAX);
        let tolerate = AtomicU8::new(config.tolerate);
        let shared = Self {
            db,
            peers,
            config,
            spool,
            events,
            lines: Mutex::new(lines),
            tolerate,
            changed: Notify::new(),
            woken: Notify::new(),
            delivered,
            in_memory: Semaphore::new(SHARES_IN_MEMORY_MAX),
            bytes_sent: AtomicU64::new(0),
            delivered_bytes: AtomicU64::new(0),
            gave_way: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        };
        Ok((shared, deliveries))
    }

    /// Never held across an await, nor while the database or the spool is used.
    pub(super) fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next change, or until `deadline`. A change between the caller's look and this call may be missed:
    /// callers who cannot bear that look again after [`Notify::notified`] is enabled, or give a deadline.
    pub(super) async fn change(&self, deadline: Option<Instant>) {
        let changed = self.changed.notified();
        match deadline {
            Some(deadline) => {
                let _ = tokio::time::timeout_at(deadline, changed).await;
            }
            None => changed.await,
        }
    }

    /// Something happened in `lines`: whoever waits looks, and what has no place is planned at once.
    pub(super) fn announce(&self) {
        if self.lines().has_homeless() {
            self.woken.notify_one();
        }
        self.changed.notify_waiters();
    }

    /// Whether anything can still happen.
    pub(super) fn go_on(&self) -> Result<(), UploadError> {
        match self.is_over.load(Ordering::Relaxed) {
            true => Err(UploadError::Stopped),
            false => Ok(()),
        }
    }

    pub(super) fn tell(&self, event: UploadEvent) {
        let _ = self.events.try_send(event);
    }
}

/// Runs a task that all others rely on. When it ends, by a panic too, those who wait are told.
pub(super) async fn vital(shared: Arc<Shared>, task: impl Future<Output = ()>) {
    struct End(Arc<Shared>);
    impl Drop for End {
        fn drop(&mut self) {
            self.0.is_over.store(true, Ordering::Relaxed);
            self.0.changed.notify_waiters();
        }
    }
    let _end = End(shared);
    task.await;
}

/// Runs what blocks on the runtime's threads for that.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, UploadError> {
    joined(tokio::task::spawn_blocking(work).await)
}

/// A panic goes on in the caller; a task that was cancelled means that the runtime ends.
pub(super) fn joined<T>(result: Result<T, JoinError>) -> Result<T, UploadError> {
    result.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => UploadError::Stopped,
    })
}

/// Those of the spooled shares whose files are there and whole by their length; the others are forgotten. Cheap: done at
/// every start. A flipped bit is found when the share is sent, or by `verify::all`.
pub(super) fn those_there(
    db: &Db,
    spool: &Spool,
    spooled: Vec<SpooledShare>,
) -> Result<Vec<SpooledShare>, UploadError> {
    let is_there = |share: &SpooledShare| spool.has(share.id, share.stored_bytes);
    let (there, gone): (Vec<_>, Vec<_>) = spooled.into_iter().partition(is_there);
    if !gone.is_empty() {
        tracing::error!(
            shares = gone.len(),
            "shares were lost from the spool; their files are read again"
        );
        db.write::<_, DbError>(|tx| gone.iter().try_for_each(|share| packs::forget_spooled(tx, share.id)))?;
    }
    Ok(there)
}
