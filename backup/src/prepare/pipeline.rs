//! A run: preparers and sealers as threads, checkpoints in between, and the end in the right order.
//!
//! Preparers read, cut and compress; a bounded channel takes full packs to the sealers, which seal, code and deliver them.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use proto::id::VersionId;
use proto::share_store::StoreError;
use proto::size::MIB;
use upload_queue::job::Job;
use upload_queue::packs;
use upload_queue::peers::{Peer, PeerKey};
use upload_queue::queue::BatchLimits;
use upload_queue::uploader::{DrainReport, UploadError};

use crate::catalog::content::anew;
use crate::catalog::{content, tree};

use super::budget::Budget;
use super::chunk::Chunker;
use super::commit::RecordChunks;
use super::ledger::Ledger;
use super::metadata::InlineSections;
use super::packer::{Packer, Parcel, pack_memory_bytes};
use super::preparer::{BUFFER_BYTES, Preparer};
use super::{WriteError, WriteEvent, WriteSummary, Writer, now_ns};

/// With more than this waiting in the queue, the log is published before anything is read: names and sizes first.
const LOG_FIRST_BYTES: u64 = 64 * MIB as u64;
/// How often the threads are looked at.
const TICK: Duration = Duration::from_millis(200);
/// A file that is to be tried again later than this is left to the next run.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(30);
/// Rounds of a run at most: what is lost on its way (a damaged spool) is read again in the next one.
const ROUNDS_MAX: usize = 3;
/// How long a run that was asked to stop waits for shares on their way.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What the threads of a run share.
pub struct Run<'a> {
    pub writer: &'a Writer,
    pub events: &'a (dyn Fn(WriteEvent) + Sync),
    stop: &'a AtomicBool,
    failed: AtomicBool,
    stalled: AtomicBool,
    pub budget: Budget,
    pub chunker: Chunker,
    pub ledger: Arc<Ledger>,
    pub packer: Packer,
    pub inline: InlineSections,
    pub parcels: Sender<Parcel>,
    /// Written by a publication: no log is amended, and no other metadata recorded, while one is put together.
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

/// Runs the write side; see `Writer::run`.
pub fn run(
    writer: &Writer,
    stop: &AtomicBool,
    events: &(dyn Fn(WriteEvent) + Sync),
) -> Result<WriteSummary, WriteError> {
    if writer.peers.all().is_empty() {
        return Err(WriteError::NoPeers);
    }
    writer.reopen_lost()?;
    let mut summary = round(writer, stop, events)?;
    for _ in 1..ROUNDS_MAX {
        let lost_on_the_way = writer.reopen_lost()? > 0 || writer.db.read(anew::is_due)?;
        if !lost_on_the_way || stop.load(Ordering::Relaxed) {
            break;
        }
        summary = summary.and_then(round(writer, stop, events)?);
    }
    let tolerate = writer.uploader.tolerate();
    let health = writer.db.read(|conn| packs::health(conn, tolerate))?;
    summary.undelivered.packs_unsafe = health.packs - health.safe;
    Ok(summary)
}

fn round(writer: &Writer, stop: &AtomicBool, events: &(dyn Fn(WriteEvent) + Sync)) -> Result<WriteSummary, WriteError> {
    let (parcels, full) = crossbeam_channel::bounded(1);
    let run = Run::new(writer, stop, events, parcels);
    let worked = run.work(full);
    run.give_back();
    let undelivered = worked?;
    Ok(run.summary(undelivered))
}

/// Publishes only; see `Writer::publish`.
pub fn publish(writer: &Writer, events: &(dyn Fn(WriteEvent) + Sync)) -> Result<usize, WriteError> {
    if writer.peers.all().is_empty() {
        return Err(WriteError::NoPeers);
    }
    let (parcels, _nothing_is_read) = crossbeam_channel::bounded(1);
    let stop = AtomicBool::new(false);
    let run = Run::new(writer, &stop, events, parcels);
    run.put_newest_head()?;
    run.checkpoint()?;
    Ok(run.tally.heads.load(Ordering::Relaxed))
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
        // Below this, preparers would wait for packs that nobody can fill.
        let bytes_min = threads * BUFFER_BYTES + pack_memory_bytes(k, n);
        let budget = Budget::new(writer.limits.bytes_in_flight_max.max(bytes_min));
        let ledger = Arc::new(Ledger::default());
        let uploader = writer.uploader.clone();
        let code = Box::new(move || uploader.code());
        Self {
            writer,
            events,
            stop,
            failed: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            chunker: Chunker::new(writer.keys.put.gear_seed),
            packer: Packer::new(ledger.clone(), budget.clone(), code, parcels.clone()),
            budget,
            ledger,
            inline: InlineSections::new((k, n)),
            parcels,
            gate: RwLock::new(()),
            leased: Mutex::default(),
            tally: Tally::default(),
        }
    }

    fn work(&self, full: Receiver<Parcel>) -> Result<DrainReport, WriteError> {
        self.put_newest_head()?;
        self.settle_safe()?;
        if self.writer.queue.counts()?.bytes > LOG_FIRST_BYTES && !self.writer.db.read(tree::unpublished)?.is_empty() {
            self.checkpoint()?;
        }
        self.prepare_and_seal(full)?;
        let undelivered = self.drain()?;
        self.checkpoint()?;
        Ok(undelivered)
    }

    fn prepare_and_seal(&self, full: Receiver<Parcel>) -> Result<(), WriteError> {
        let threads = self.writer.limits.threads.max(1);
        let coordinator = std::thread::current();
        std::thread::scope(|scope| {
            let sealers: Vec<_> = (0..threads)
                .map(|_| {
                    let full = full.clone();
                    scope.spawn(move || self.watched(|| self.seal_parcels(&full, content::add_chunks)))
                })
                .collect();
            drop(full);
            let preparers: Vec<_> = (0..threads)
                .map(|_| {
                    let coordinator = coordinator.clone();
                    scope.spawn(move || {
                        let worked = self.watched(|| Preparer::new(self)?.work());
                        coordinator.unpark();
                        worked
                    })
                })
                .collect();
            let checked =
                self.watched(|| self.checkpoints_until(|| preparers.iter().all(|thread| thread.is_finished())));
            let prepared = join_all(preparers);
            let _ = self.packer.finish(); // a sealer that failed tells why itself
            sealers.iter().for_each(|_| drop(self.parcels.send(Parcel::End)));
            let sealed = join_all(sealers);
            checked.and(prepared).and(sealed)
        })
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

    /// Seals and delivers what comes; `record` records the chunks of a pack.
    pub fn seal_parcels(&self, full: &Receiver<Parcel>, record: RecordChunks) -> Result<(), WriteError> {
        for parcel in full {
            match parcel {
                Parcel::End => break,
                _ if self.failed.load(Ordering::Relaxed) || self.stalled.load(Ordering::Relaxed) => {}
                Parcel::Data(pack) => self.unless_stalled(self.deliver_data(pack, record))?,
                Parcel::Inline(sections) => {
                    let _not_while_publishing = self.gate.read().unwrap_or_else(PoisonError::into_inner);
                    self.unless_stalled(self.deliver_inline(sections))?;
                }
            }
        }
        Ok(())
    }

    /// No room in the spool and no peer to empty it: the run ends with what it has, the other jobs wait.
    fn unless_stalled(&self, delivered: Result<(), WriteError>) -> Result<(), WriteError> {
        if let Err(WriteError::Upload(UploadError::Stalled { .. })) = delivered {
            self.stalled.store(true, Ordering::Relaxed);
            return Ok(());
        }
        delivered
    }

    fn checkpoints_until(&self, done: impl Fn() -> bool) -> Result<(), WriteError> {
        let mut last = Instant::now();
        while !done() {
            std::thread::park_timeout(TICK);
            if last.elapsed() >= self.publish_interval() && !self.stopped() {
                self.checkpoint()?;
                last = Instant::now();
            }
        }
        Ok(())
    }

    fn publish_interval(&self) -> Duration {
        Duration::from_secs(self.writer.limits.publish_interval_secs)
    }

    /// Waits for what is on its way, publishing meanwhile.
    pub fn drain(&self) -> Result<DrainReport, WriteError> {
        let runtime = &self.writer.runtime;
        let uploader = self.writer.uploader.clone();
        let mut drained = runtime.spawn(async move { uploader.drain().await });
        let (mut last, mut stopped_at) = (Instant::now(), None);
        loop {
            if let Ok(joined) = runtime.block_on(async { tokio::time::timeout(TICK, &mut drained).await }) {
                return Ok(joined.map_err(|error| WriteError::Thread(error.to_string()))??);
            }
            if self.stop.load(Ordering::Relaxed) && stopped_at.get_or_insert_with(Instant::now).elapsed() > STOP_GRACE {
                drained.abort();
                return Ok(DrainReport::default());
            }
            if last.elapsed() >= self.publish_interval() {
                self.checkpoint()?;
                last = Instant::now();
            }
        }
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
    fn give_back(&self) {
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

    fn summary(self, undelivered: DrainReport) -> WriteSummary {
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
