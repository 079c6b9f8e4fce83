//! What the threads of a run share: the packs that fill, what is leased, the counts, and when to stop.
//!
//! The steps are written on it in files of their own: `sealing`, `commit`, `checkpoint`, `heads`, `settle`, `drain`.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use proto::id::VersionId;
use proto::share_store::StoreError;
use upload_queue::job::Job;
use upload_queue::peers::{Peer, PeerKey};
use upload_queue::queue::BatchLimits;
use upload_queue::uploader::DrainReport;

use super::budget::{BUFFER_BYTES, Budget};
use super::in_flight::InFlight;
use super::metadata::InlineSections;
use super::packer::{Packer, Parcel, pack_memory_bytes};
use super::{WriteError, WriteEvent, WriteSummary, Writer, now_ns};

/// How often the threads are looked at.
pub const TICK: Duration = Duration::from_millis(200);
/// A file that is to be tried again later than this is left to the next run.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(30);

/// What the threads of a run share.
pub struct Run<'a> {
    pub writer: &'a Writer,
    pub events: &'a (dyn Fn(WriteEvent) + Sync),
    pub(super) stop: &'a AtomicBool,
    /// A thread failed.
    pub(super) failed: AtomicBool,
    /// No room in the spool, and no peer to empty it.
    pub(super) stalled: AtomicBool,
    pub budget: Budget,
    pub in_flight: Arc<InFlight>,
    pub packer: Packer,
    pub inline: InlineSections,
    pub parcels: Sender<Parcel>,
    /// Written by a posting: no log is amended, and no other metadata recorded, while one is put together.
    pub gate: RwLock<()>,
    leased: Mutex<HashSet<VersionId>>,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    bytes_read: AtomicU64,
    bytes_added: AtomicU64,
    packs: AtomicU64,
    heads: AtomicUsize,
    gone: AtomicU64,
    heads_refused: Mutex<BTreeMap<PeerKey, (String, StoreError)>>,
    failed: Mutex<Vec<(PathBuf, String)>>,
}

impl<'a> Run<'a> {
    /// A run that has not begun.
    pub fn new(
        writer: &'a Writer,
        stop: &'a AtomicBool,
        events: &'a (dyn Fn(WriteEvent) + Sync),
        parcels: Sender<Parcel>,
    ) -> Self {
        let (k, n) = writer.uploader.code();
        let threads = writer.limits.threads.max(1);
        // Below this, those who bring chunks would wait for packs that nobody can fill.
        let bytes_min = threads * BUFFER_BYTES + pack_memory_bytes(k, n);
        let budget = Budget::new(writer.limits.bytes_in_flight_max.max(bytes_min));
        let in_flight = Arc::new(InFlight::default());
        let uploader = writer.uploader.clone();
        let code = Box::new(move || uploader.code());
        Self {
            writer,
            events,
            stop,
            failed: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            packer: Packer::new(in_flight.clone(), budget.clone(), code, parcels.clone()),
            budget,
            in_flight,
            inline: InlineSections::new((k, n)),
            parcels,
            gate: RwLock::new(()),
            leased: Mutex::default(),
            tally: Tally::default(),
        }
    }

    /// Runs a thread's work; the others stop when it fails or panics.
    pub fn watched<T>(&self, work: impl FnOnce() -> Result<T, WriteError>) -> Result<T, WriteError> {
        struct Flag<'f>(&'f AtomicBool, bool);
        impl Drop for Flag<'_> {
            fn drop(&mut self) {
                self.0.fetch_or(self.1, Ordering::Relaxed);
            }
        }
        let mut flag = Flag(&self.failed, true);
        let worked = work();
        flag.1 = worked.is_err();
        worked
    }

    /// Time between two heads while there is something new.
    pub fn post_interval(&self) -> Duration {
        Duration::from_secs(self.writer.limits.post_interval_secs)
    }

    /// Whether threads should come to an end.
    pub fn stopped(&self) -> bool {
        [self.stop, &self.failed, &self.stalled]
            .iter()
            .any(|flag| flag.load(Ordering::Relaxed))
    }

    /// Leases the next batch.
    pub fn lease(&self, limits: BatchLimits) -> Result<Vec<Job>, WriteError> {
        let jobs = self.writer.queue.lease(limits, now_ns())?;
        self.leased().extend(jobs.iter().map(|job| job.version));
        Ok(jobs)
    }

    /// Gives a lease back for later.
    pub fn retry(&self, version: VersionId, not_before_ns: i64) -> Result<(), WriteError> {
        self.writer.queue.retry(version, not_before_ns)?;
        self.unlease(version);
        Ok(())
    }

    /// A job is out of the preparers' hands.
    pub fn unlease(&self, version: VersionId) {
        self.leased().remove(&version);
    }

    fn leased(&self) -> MutexGuard<'_, HashSet<VersionId>> {
        self.leased.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leases of a run that was stopped or failed are good for the next one.
    pub fn give_back(&self) {
        for version in std::mem::take(&mut *self.leased()) {
            if let Err(error) = self.writer.queue.retry(version, now_ns()) {
                tracing::warn!(%error, "A job could not be given back; the next start does it");
            }
        }
    }

    /// Waits until a job may be tried again; false when none will be soon.
    pub fn wait_for_retry(&self) -> Result<bool, WriteError> {
        let Some(due_ns) = self.writer.queue.next_retry_ns()? else {
            return Ok(false);
        };
        let begun = Instant::now();
        let wait = Duration::from_nanos(u64::try_from(due_ns.saturating_sub(now_ns())).unwrap_or(0));
        if wait > RETRY_WAIT_MAX {
            return Ok(false);
        }
        while begun.elapsed() <= wait && !self.stopped() {
            std::thread::sleep(TICK.min(wait).max(Duration::from_millis(10)));
        }
        Ok(true)
    }

    /// Bytes of a file were read.
    pub fn count_read(&self, bytes: u64) {
        let read = self.tally.bytes_read.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (self.events)(WriteEvent::BytesRead(read));
    }

    /// A pack with so many bytes of plaintext goes out.
    pub fn count_pack(&self, bytes: usize) {
        self.tally.packs.fetch_add(1, Ordering::Relaxed);
        self.tally.bytes_added.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How many peers have the newest head.
    pub fn heads(&self) -> usize {
        self.tally.heads.load(Ordering::Relaxed)
    }

    /// So many peers have the newest head.
    pub fn head_put(&self, peers: usize) {
        self.tally.heads.store(peers, Ordering::Relaxed);
    }

    /// A file was deleted before it was read.
    pub fn count_gone(&self) {
        self.tally.gone.fetch_add(1, Ordering::Relaxed);
    }

    /// These peers did not take the newest head, for these reasons.
    pub fn heads_refused(&self, refused: impl Iterator<Item = (Peer, StoreError)>) {
        let mut all = self.tally.heads_refused.lock().unwrap_or_else(PoisonError::into_inner);
        *all = refused.map(|(peer, error)| (peer.key, (peer.name, error))).collect();
    }

    /// Who said so, and did not only not answer.
    pub fn heads_refused_by(&self) -> HashSet<PeerKey> {
        let all = self.tally.heads_refused.lock().unwrap_or_else(PoisonError::into_inner);
        let refusing = all
            .iter()
            .filter(|(_, (_, error))| matches!(error, StoreError::Refused { .. }));
        refusing.map(|(peer, _)| peer.clone()).collect()
    }

    /// A file could not be read, or not recorded as it is.
    pub fn failed(&self, path: PathBuf, reason: String) {
        (self.events)(WriteEvent::FileFailed {
            path: path.clone(),
            reason: reason.clone(),
        });
        self.tally
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((path, reason));
    }

    /// What it did, once it is over.
    pub fn summary(self, undelivered: DrainReport) -> WriteSummary {
        WriteSummary {
            bytes_read: self.tally.bytes_read.into_inner(),
            bytes_added: self.tally.bytes_added.into_inner(),
            packs: self.tally.packs.into_inner(),
            failed: self.tally.failed.into_inner().unwrap_or_else(PoisonError::into_inner),
            gone: self.tally.gone.into_inner(),
            undelivered,
            heads: self.tally.heads.into_inner(),
            heads_refused: self
                .tally
                .heads_refused
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .into_values()
                .collect(),
        }
    }
}

/// Waits for all threads; the first failure is the answer.
pub fn join_all(threads: Vec<ScopedJoinHandle<'_, Result<(), WriteError>>>) -> Result<(), WriteError> {
    let mut all = Ok(());
    for thread in threads {
        let worked = thread
            .join()
            .unwrap_or_else(|_| Err(WriteError::Thread("it panicked".to_owned())));
        all = all.and(worked);
    }
    all
}
