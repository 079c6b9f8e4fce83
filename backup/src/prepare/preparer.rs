//! A preparer: leases jobs, reads each file once, cuts and compresses it, and hands its chunks to the packer.
//!
//! It decides what becomes of a file that cannot be read as it was found; what is recorded, and when, is the writer's part.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use proto::cap_index::{Cap, Extent, IndexRecord};
use proto::id::ChunkId;
use proto::log_record::VERY_SMALL_BYTES_MAX;
use proto::size::MIB;
use upload_queue::job::Job;
use upload_queue::queue::BatchLimits;

use crate::catalog::content;
use crate::chunk::{Chunker, FileClass, class_of, profile};
use crate::said::path_buf;
use crate::source::Source;
use crate::source::details::too_many_xattrs;
use crate::source::read_file::{ReadError, Region, SourceFile};
use crate::writer::budget::BUFFER_BYTES;
use crate::writer::compress::Compressor;
use crate::writer::in_flight::{PackNumber, ReadFile};
use crate::writer::packer::{Closed, Parcel};
use crate::writer::run::Run;
use crate::writer::{WriteError, now_ns};

/// One large file or many small ones: large enough that the queue is not asked often, small enough that a new important
/// file does not wait long.
const BATCH: BatchLimits = BatchLimits {
    jobs_max: 512,
    bytes_max: 32 * MIB as u64,
};
/// A file caught changing is read again at once so often; a large one only later, since each attempt takes long.
const ATTEMPTS_AT_ONCE: u32 = 3;
const LARGE_FILE_BYTES: u64 = 64 * MIB as u64;
/// How often a file is tried again later before it is reported.
const ATTEMPTS_LATER: u32 = 3;
/// The first wait before a changing file is tried again; doubled each time.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Files that wait for no pack are recorded so many at once: a transaction each would be slow.
const READY_FILES_MIN: usize = 256;

/// Why a file's content was not handed on.
enum Failure {
    /// This file only.
    File(ReadError),
    /// The run is being stopped.
    Stopped,
    /// Everything.
    Run(WriteError),
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::File(error)
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Self::Run(error)
    }
}

impl From<database::DbError> for Failure {
    fn from(error: database::DbError) -> Self {
        Self::Run(error.into())
    }
}

impl From<Closed> for Failure {
    fn from(_: Closed) -> Self {
        Self::Stopped // the sealer that closed the channel has told why
    }
}

/// A thread that prepares.
pub struct Preparer<'r, 'a> {
    run: &'r Run<'a>,
    source: &'r dyn Source,
    chunker: &'r Chunker,
    compressor: Compressor,
    buffer: Vec<u8>,
}

/// What a file is made of so far.
#[derive(Default)]
struct Made {
    extents: Vec<Extent>,
    packs: BTreeSet<PackNumber>,
}

impl<'r, 'a> Preparer<'r, 'a> {
    /// A preparer of a run.
    pub(super) fn new(run: &'r Run<'a>, source: &'r dyn Source, chunker: &'r Chunker) -> Result<Self, WriteError> {
        let compressor = Compressor::new(run.writer.limits.zstd_level).map_err(WriteError::Zstd)?;
        Ok(Self {
            run,
            source,
            chunker,
            compressor,
            buffer: Vec::new(),
        })
    }

    /// Works until the queue has nothing more for this run.
    pub fn work(&mut self) -> Result<(), WriteError> {
        let run = self.run;
        let _buffer = run.budget.acquire(BUFFER_BYTES);
        while !run.stopped() {
            let jobs = run.lease(BATCH)?;
            if jobs.is_empty() {
                if !run.wait_for_retry()? {
                    break;
                }
                continue;
            }
            for job in &jobs {
                if run.stopped() {
                    break;
                }
                self.prepare(job)?;
            }
        }
        Ok(())
    }

    fn prepare(&mut self, job: &Job) -> Result<(), WriteError> {
        let at_once = if job.bytes > LARGE_FILE_BYTES {
            1
        } else {
            ATTEMPTS_AT_ONCE
        };
        for attempt in 1..=at_once {
            match self.read(job) {
                Ok(()) | Err(Failure::Stopped) => return Ok(()),
                Err(Failure::Run(error)) => return Err(error),
                Err(Failure::File(ReadError::Changed)) if attempt < at_once => {}
                Err(Failure::File(error)) => return self.put_off(job, &error),
            }
        }
        Ok(())
    }

    /// A file that keeps changing is tried again later, a few times; any other is reported.
    fn put_off(&self, job: &Job, error: &ReadError) -> Result<(), WriteError> {
        match error {
            ReadError::Changed if job.attempts < ATTEMPTS_LATER => {
                let wait = RETRY_AFTER * (1 << job.attempts);
                self.run
                    .retry(job.version, now_ns().saturating_add(wait.as_nanos() as i64))
            }
            ReadError::Changed => self
                .run
                .give_up(job, false, "It kept changing while it was read".to_owned()),
            ReadError::Gone => self.run.missing(self.source, job),
            ReadError::Replaced => self.run.give_up(job, true, "It is no longer a regular file".to_owned()),
            ReadError::WrongLength(reason) => self.run.give_up(job, false, reason.clone()),
            ReadError::Unreadable(error) => self.run.give_up(job, false, error.to_string()),
        }
    }

    fn read(&mut self, job: &Job) -> Result<(), Failure> {
        let file = SourceFile::open(self.source, &job.path)?;
        if let Some(was) = self.run.lost_before(job)?
            && !was.is_some_and(|was| file.is_as(&was))
        {
            let reason = "Its content is lost at the peers, and it is not what it was any more";
            return Err(ReadError::Unreadable(io::Error::other(reason)).into());
        }
        if file.bytes() <= VERY_SMALL_BYTES_MAX {
            return self.read_inline(job, &file);
        }
        let mut made = Made::default();
        let class = class_of(&job.path);
        for region in file.regions()? {
            match region {
                Region::Hole(len) => made.extents.push(Extent::Hole(len)),
                Region::Bytes { offset, len } => self.read_run(&file, class, offset, len, &mut made)?,
            }
        }
        self.accept(job, &file)?;
        self.run
            .in_flight
            .add_file(read_file(job, &file, made.extents), &made.packs);
        self.run.record_ready(READY_FILES_MIN)?;
        Ok(())
    }

    fn read_inline(&self, job: &Job, file: &SourceFile) -> Result<(), Failure> {
        let mut content = vec![0; file.bytes() as usize];
        file.read(&mut content, 0)?;
        self.run.count_read(file.bytes());
        self.accept(job, file)?;
        let record = IndexRecord::Cap(job.version, Cap::Inline(content));
        let file = read_file(job, file, Vec::new());
        match self.run.inline.push(&record, file).map_err(WriteError::from)? {
            Some(full) => self
                .run
                .parcels
                .send(Parcel::Inline(full))
                .map_err(|_| Failure::Stopped),
            None => Ok(()),
        }
    }

    /// What was read is one state of the file. If it is another than the one that was scanned, the catalog is told.
    fn accept(&self, job: &Job, file: &SourceFile) -> Result<(), Failure> {
        file.unchanged()?;
        if (file.bytes(), file.mtime_ns()) != (job.bytes, job.mtime_ns) {
            let mut meta = file.meta();
            if !meta.fit_xattrs().is_empty() {
                // The next scan names them: it looks again at what was read in another state than scanned.
                let reason = format!("Some of its extended attributes are not saved: {}", too_many_xattrs());
                self.run.failed(path_buf(&job.path), reason);
            }
            self.run.amend(job, &meta)?;
        }
        Ok(())
    }

    /// Cuts the run of `len` bytes at `offset`, window by window.
    fn read_run(
        &mut self,
        file: &SourceFile,
        class: FileClass,
        offset: u64,
        len: u64,
        made: &mut Made,
    ) -> Result<(), Failure> {
        let profile = profile(class, file.bytes());
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut held = 0; // bytes of the buffer that are read and not yet cut
        let mut read = 0;
        while held > 0 || read < len {
            if self.run.stopped() {
                return Err(Failure::Stopped);
            }
            let more = (len - read).min((BUFFER_BYTES - held) as u64) as usize;
            if buffer.len() < held + more {
                buffer.resize(held + more, 0);
            }
            file.read(&mut buffer[held..held + more], offset + read)?;
            self.run.count_read(more as u64);
            read += more as u64;
            held += more;
            let mut cut = 0;
            while cut < held && (read == len || held - cut >= profile.max) {
                let chunk_len = self.chunker.cut(profile, &buffer[cut..held]);
                self.add_chunk(class, &buffer[cut..cut + chunk_len], made)?;
                cut += chunk_len;
            }
            buffer.copy_within(cut..held, 0);
            held -= cut;
        }
        self.buffer = buffer;
        Ok(())
    }

    fn add_chunk(&mut self, class: FileClass, plain: &[u8], made: &mut Made) -> Result<(), Failure> {
        let writer = self.run.writer;
        let id = writer.keys.put.chunk_id(plain);
        let len = plain.len() as u32;
        made.extents.push(Extent::Chunk(id, len));
        if let Some(pack) = self.run.in_flight.chunk(id) {
            made.packs.insert(pack);
        } else if !self.is_recorded(id)? {
            let stored = self.compressor.compress(class, plain);
            made.packs.insert(self.run.packer.append(id, stored, len)?);
        }
        Ok(())
    }

    /// Asked after what is in flight: a chunk leaves that only when the catalog has it.
    fn is_recorded(&self, id: ChunkId) -> Result<bool, WriteError> {
        Ok(self
            .run
            .writer
            .db
            .read(|conn| content::wanted_chunk(conn, id))?
            .is_some())
    }
}

fn read_file(job: &Job, file: &SourceFile, extents: Vec<Extent>) -> ReadFile {
    ReadFile {
        version: job.version,
        path: job.path.clone(),
        bytes: file.bytes(),
        extents,
    }
}
