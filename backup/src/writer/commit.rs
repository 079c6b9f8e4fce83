//! What a run delivers and records, each pack in one transaction with the files that it completes.

use std::sync::{Arc, Mutex, PoisonError};

use database::DbError;
use proto::cap_index::ChunkSlot;
use proto::id::VersionId;
use rusqlite::Transaction;
use upload_queue::packs::{PackRow, Purpose};
use upload_queue::queue::Queue;
use upload_queue::uploader::OutgoingPack;

use super::in_flight::ReadFile;
use super::metadata::Section;
use super::packer::FullPack;
use super::run::Run;
use super::{WriteError, WriteEvent};
use crate::catalog::content;
use crate::catalog::content::{Place, Posted, SectionPlace, post};
use crate::said::path_buf;

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
            let (completed, in_flight, queue) = (completed.clone(), self.in_flight.clone(), self.writer.queue.clone());
            let slots = slots.clone();
            move |tx: &Transaction<'_>, row: PackRow| {
                record(tx, row, &slots)?;
                post::add_unlisted(tx, row, &slots)?;
                let files = in_flight.recording(number);
                record_files(tx, &queue, &files)?;
                completed.lock().unwrap_or_else(PoisonError::into_inner).extend(files);
                Ok(())
            }
        };
        self.writer
            .runtime
            .block_on(self.writer.uploader.deliver(outgoing, with_pack))?;
        self.in_flight.recorded(&slots);
        drop(permit);
        let files = std::mem::take(&mut *completed.lock().unwrap_or_else(PoisonError::into_inner));
        self.files_done(&files);
        Ok(())
    }

    /// Delivers a sealed metadata pack with its sections, each at its offset, and records what they make findable;
    /// `posted` is the head that was signed for the root among them.
    pub fn deliver_metadata(
        &self,
        outgoing: OutgoingPack,
        sections: Vec<(u32, Section)>,
        posted: Option<Posted>,
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
                posted.iter().try_for_each(|posted| post::sign(tx, posted))
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
        let files = self.in_flight.take_ready(at_least);
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
}

fn record_files(tx: &Transaction<'_>, queue: &Queue, files: &[ReadFile]) -> Result<(), DbError> {
    for file in files {
        content::set_place(tx, file.version, &Place::Extents(file.extents.clone()))?;
    }
    let versions: Vec<VersionId> = files.iter().map(|file| file.version).collect();
    queue.sending(tx, &versions)
}
