//! The story of a backup, from jobs in the queue to a head that leads to their contents.
//!
//! The scanner has recorded names and metadata, and a job for each content that is new (`scan`). From here on:
//!
//! 1. A preparer leases a job and reads its file once (`preparer`, `source::read_file`); what is not as it was scanned is put
//!    off, amended or given up (`changed`).
//! 2. It cuts what it reads (`chunk`), passes over chunks that are known, and compresses the others (`writer::compress`).
//! 3. Chunks fill packs (`writer::packer`); what is in flight knows which file waits for which pack (`writer::in_flight`).
//! 4. A sealer seals, signs and codes a full pack (`writer::sealing`, `writer::seal`) and hands its shares to the uploader,
//!    in one transaction with the files that it completes (`writer::commit`). A process that dies later goes on from there.
//! 5. A checkpoint, now and then and at the end, packs what is new of names and places, and signs a head that leads to it
//!    (`writer::checkpoint`, `writer::outbox`).
//! 6. The head goes to the peers once all that it leads to can be read from them (`writer::heads`).
//! 7. Jobs whose content survives the loss of as many peers as the policy says are done (`writer::settle`).
//!
//! Preparers and sealers are threads, joined by a channel that holds one pack; one cap on bytes in memory holds for all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};
use proto::size::MIB;
use upload_queue::packs;
use upload_queue::uploader::DrainReport;

use super::preparer::Preparer;
use crate::catalog::content::anew;
use crate::catalog::{content, tree};
use crate::chunk::Chunker;
use crate::source::Source;
use crate::source::local::LocalFiles;
use crate::writer::packer::Parcel;
use crate::writer::run::{Run, TICK, join_all};
use crate::writer::{WriteError, WriteEvent, WriteSummary, Writer};

/// With more than this waiting in the queue, the log is posted before anything is read: names and sizes first.
const LOG_FIRST_BYTES: u64 = 64 * MIB as u64;
/// Rounds of a run at most: what is lost on its way (a damaged spool) is read again in the next one.
const ROUNDS_MAX: usize = 3;

/// One round, step by step.
fn back_up(run: &Run<'_>, source: &dyn Source, full: Receiver<Parcel>) -> Result<DrainReport, WriteError> {
    run.put_newest_head()?; // that of an earlier run, where it is not yet
    run.settle_safe()?;
    if is_log_first(run.writer)? {
        run.checkpoint()?;
    }
    prepare_and_seal(run, source, full)?;
    let undelivered = run.drain()?;
    run.checkpoint()?;
    Ok(undelivered)
}

impl Writer {
    /// Works until the queue is empty or nothing more can be placed, posting on the way and at the end. Blocking: run
    /// it on its own thread. `stop` makes it finish what is in flight, post and return.
    pub fn run(&self, stop: &AtomicBool, events: &(dyn Fn(WriteEvent) + Sync)) -> Result<WriteSummary, WriteError> {
        self.run_from(&LocalFiles, stop, events)
    }

    /// The same with files of any source.
    pub(crate) fn run_from(
        &self,
        source: &dyn Source,
        stop: &AtomicBool,
        events: &(dyn Fn(WriteEvent) + Sync),
    ) -> Result<WriteSummary, WriteError> {
        if self.peers.all().is_empty() {
            return Err(WriteError::NoPeers);
        }
        self.reopen_lost(source)?;
        let mut summary = round(self, source, stop, events)?;
        for _ in 1..ROUNDS_MAX {
            let lost_on_the_way = self.reopen_lost(source)? > 0 || self.db.read(anew::is_due)?;
            if !lost_on_the_way || stop.load(Ordering::Relaxed) {
                break;
            }
            summary = summary.and_then(round(self, source, stop, events)?);
        }
        let tolerate = self.uploader.tolerate();
        let health = self.db.read(|conn| packs::health(conn, tolerate))?;
        summary.undelivered.packs_unsafe = health.packs - health.safe;
        Ok(summary)
    }
}

fn round(
    writer: &Writer,
    source: &dyn Source,
    stop: &AtomicBool,
    events: &(dyn Fn(WriteEvent) + Sync),
) -> Result<WriteSummary, WriteError> {
    let (parcels, full) = bounded(1);
    let run = Run::new(writer, stop, events, parcels);
    let worked = back_up(&run, source, full);
    run.give_back();
    let undelivered = worked?;
    Ok(run.summary(undelivered))
}

fn is_log_first(writer: &Writer) -> Result<bool, WriteError> {
    Ok(writer.queue.counts()?.bytes > LOG_FIRST_BYTES && !writer.db.read(tree::unposted)?.is_empty())
}

/// Steps 1 to 4 by the threads, until the queue has nothing more for this run; and checkpoints meanwhile.
fn prepare_and_seal(run: &Run<'_>, source: &dyn Source, full: Receiver<Parcel>) -> Result<(), WriteError> {
    let threads = run.writer.limits.threads.max(1);
    let chunker = Chunker::new(run.writer.keys.put.gear_seed);
    let coordinator = std::thread::current();
    std::thread::scope(|scope| {
        let sealers: Vec<_> = (0..threads)
            .map(|_| {
                let full = full.clone();
                scope.spawn(move || run.watched(|| run.seal_parcels(&full, content::add_chunks)))
            })
            .collect();
        drop(full);
        let preparers: Vec<_> = (0..threads)
            .map(|_| {
                let (coordinator, chunker) = (coordinator.clone(), &chunker);
                scope.spawn(move || {
                    let worked = run.watched(|| Preparer::new(run, source, chunker)?.work());
                    coordinator.unpark();
                    worked
                })
            })
            .collect();
        let checked = run.watched(|| checkpoints_until(run, || preparers.iter().all(|thread| thread.is_finished())));
        let prepared = join_all(preparers);
        let _ = run.packer.finish(); // a sealer that failed tells why itself
        sealers.iter().for_each(|_| drop(run.parcels.send(Parcel::End)));
        let sealed = join_all(sealers);
        checked.and(prepared).and(sealed)
    })
}

fn checkpoints_until(run: &Run<'_>, done: impl Fn() -> bool) -> Result<(), WriteError> {
    let mut last = Instant::now();
    while !done() {
        std::thread::park_timeout(TICK);
        if last.elapsed() >= run.post_interval() && !run.stopped() {
            run.checkpoint()?;
            last = Instant::now();
        }
    }
    Ok(())
}
