//! What a run records, each thing in one transaction: packs with the files that they complete, files given up, files that
//! were read in another state than scanned.

use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use database::DbError;
use proto::cap_index::ChunkSlot;
use proto::id::VersionId;
use proto::log_record::Meta;
use rusqlite::Transaction;
use upload_queue::job::Job;
use upload_queue::packs::{PackRow, Purpose};
use upload_queue::queue::Queue;
use upload_queue::uploader::OutgoingPack;

use crate::catalog::content::{Place, Published, SectionPlace, publish};
use crate::catalog::{content, tree};
use crate::said::path_buf;

use super::ledger::ReadFile;
use super::metadata::Section;
use super::packer::FullPack;
use super::pipeline::Run;
use super::{WriteError, WriteEvent, now_ns};

/// When a file is looked for again whose file system is not mounted: not in this run.
const UNMOUNTED_RETRY: Duration = Duration::from_secs(60);

/// Records the chunks of a pack in the transaction that records the pack.
pub type RecordChunks = fn(&Transaction<'_>, PackRow, &[ChunkSlot]) -> Result<(), DbError>;

impl Run<'_> {
    /// Seals and delivers a pack of chunks, recorded by `record`. The files that it completes are recorded with it.
    pub fn deliver_data(&self, pack: FullPack, record: RecordChunks) -> Result<(), WriteError> {
        let FullPack {
            number,
            shape,
            plain,
            slots,
            permit,
        } = pack;
        let outgoing = self.writer.seal(shape, &plain, Purpose::Data)?;
        self.count_pack(plain.len());
        drop(plain);
        let completed = Arc::new(Mutex::new(Vec::new()));
        let with_pack = {
            let (completed, ledger, queue) = (completed.clone(), self.ledger.clone(), self.writer.queue.clone());
            let slots = slots.clone();
            move |tx: &Transaction<'_>, row: PackRow| {
                record(tx, row, &slots)?;
                publish::add_unlisted(tx, row, &slots)?;
                let files = ledger.recording(number);
                record_files(tx, &queue, &files)?;
                completed.lock().unwrap_or_else(PoisonError::into_inner).extend(files);
                Ok(())
            }
        };
        self.writer
            .runtime
            .block_on(self.writer.uploader.deliver(outgoing, with_pack))?;
        self.ledger.recorded(&slots);
        drop(permit);
        let files = std::mem::take(&mut *completed.lock().unwrap_or_else(PoisonError::into_inner));
        self.files_done(&files);
        Ok(())
    }

    /// Delivers a sealed metadata pack with its sections, each at its offset, and records what they make findable;
    /// `published` is the head that was signed for the root among them.
    pub fn deliver_metadata(
        &self,
        outgoing: OutgoingPack,
        sections: Vec<(u32, Section)>,
        published: Option<Published>,
    ) -> Result<PackRow, WriteError> {
        let sections = Arc::new(sections);
        let with_pack = {
            let (sections, queue) = (sections.clone(), self.writer.queue.clone());
            move |tx: &Transaction<'_>, pack: PackRow| {
                for (offset, section) in sections.iter() {
                    let len = section.bytes.len() as u32;
                    let place = SectionPlace {
                        pack,
                        offset: *offset,
                        len,
                        kind: section.kind as u8,
                    };
                    let row = content::add_section(tx, &place)?;
                    section.record(tx, &queue, row)?;
                }
                published.iter().try_for_each(|published| publish::sign(tx, published))
            }
        };
        let row = self
            .writer
            .runtime
            .block_on(self.writer.uploader.deliver(outgoing, with_pack))?;
        for (_, section) in sections.iter() {
            self.files_done(&section.carries.inline);
        }
        Ok(row)
    }

    /// Records files whose chunks are all in the catalog already, once there are `at_least` of them.
    pub fn record_ready(&self, at_least: usize) -> Result<(), WriteError> {
        let files = self.ledger.take_ready(at_least);
        if !files.is_empty() {
            self.writer
                .db
                .write(|tx| record_files(tx, &self.writer.queue, &files))?;
            self.files_done(&files);
        }
        Ok(())
    }

    fn files_done(&self, files: &[ReadFile]) {
        for file in files {
            self.unlease(file.version);
            (self.events)(WriteEvent::FileDone {
                path: path_buf(&file.path),
                bytes: file.bytes,
            });
        }
    }

    /// The file was read in another state than it was scanned in.
    pub fn amend(&self, job: &Job, meta: &Meta) -> Result<(), WriteError> {
        let _not_while_logs_are_published = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        Ok(self
            .writer
            .db
            .write(|tx| tree::amend(tx, job.version, &job.path, meta))?)
    }

    /// The file is not where it was. If what it was on is not mounted any more, it waits. Else somebody deleted it: nothing is
    /// wrong, and it is in no snapshot.
    pub fn missing(&self, job: &Job) -> Result<(), WriteError> {
        let device = self
            .writer
            .db
            .read(|conn| tree::current_device(conn, job.version, &job.path))?;
        if device.is_some() && device != device_above(&job.path) {
            let later = now_ns().saturating_add(UNMOUNTED_RETRY.as_nanos() as i64);
            self.retry(job.version, later)?;
            self.failed(path_buf(&job.path), "What it is on is not mounted any more".to_owned());
            return Ok(());
        }
        self.withdraw(job, true)?;
        self.count_gone();
        Ok(())
    }

    /// The file cannot be read: its entry is taken back, its job removed, its path reported.
    pub fn give_up(&self, job: &Job, vanished: bool, reason: String) -> Result<(), WriteError> {
        self.withdraw(job, vanished)?;
        self.failed(path_buf(&job.path), reason);
        Ok(())
    }

    /// Snapshots that had its content on the grid go on showing it, though it is lost: a peer may come back with it.
    fn withdraw(&self, job: &Job, vanished: bool) -> Result<(), WriteError> {
        let was_sent = self.lost_before(job)?.is_some();
        {
            let _not_while_logs_are_published = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            self.writer.db.write(|tx| {
                if !was_sent {
                    tree::withdraw(tx, job.version, &job.path, vanished)?;
                }
                self.writer.queue.settle(tx, &[job.version])
            })?;
        }
        self.unlease(job.version);
        Ok(())
    }
}

/// The file system of the nearest folder above `path` that is there.
fn device_above(path: &[u8]) -> Option<u64> {
    let path = path_buf(path);
    let mut above = path.ancestors().skip(1);
    above.find_map(|folder| Some(std::fs::symlink_metadata(folder).ok()?.dev()))
}

fn record_files(tx: &Transaction<'_>, queue: &Queue, files: &[ReadFile]) -> Result<(), DbError> {
    for file in files {
        content::set_place(tx, file.version, &Place::Extents(file.extents.clone()))?;
    }
    let versions: Vec<VersionId> = files.iter().map(|file| file.version).collect();
    queue.sending(tx, &versions)
}
