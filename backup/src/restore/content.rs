//! The contents of many files at once: which pieces lie in which packs, fetched pack by pack and written out of order.

use std::collections::HashMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use proto::cap_index::{CHUNK_RAW_BYTES_MAX, ChunkSlot, Extent};
use proto::id::ChunkId;
use proto::log_record::Meta;
use proto::size::{KIB, MIB};
use tokio::sync::Semaphore;
use upload_queue::packs;
use upload_queue::packs::PackRow;

use crate::catalog::content;
use crate::restore::fetch_stats::FetchStats;
use crate::restore::write::Sink;
use crate::restore::{Reader, RestoreError, RestoreOptions};

/// Plaintext that is fetched as one: the pieces of a pack, cut if the pack is larger. Chosen: a default pack fits.
const BATCH_BYTES: u32 = 16 * MIB as u32;
/// Packs fetched at once, within the budget of bytes. Chosen: enough to keep a few peers busy.
const BATCHES_IN_FLIGHT: usize = 8;
/// Partial files a writer keeps open.
const OPEN_FILES_MAX: usize = 64;

/// A file that is being written.
pub(super) struct WantedFile {
    pub(super) relative: Vec<u8>,
    pub(super) meta: Meta,
    /// Bytes by length, holes included.
    pub(super) bytes: u64,
    extents: Vec<Extent>,
    pieces_left: AtomicU32,
    state: Mutex<FileState>,
}

#[derive(Default)]
struct FileState {
    begun_by: Option<u32>,
    failed: Option<String>,
}

/// A chunk's part in a file.
#[derive(Clone, Copy)]
struct Piece {
    pack: PackRow,
    file_offset: u64,
    slot: ChunkSlot,
    file: u32,
}

/// Files to be written, with all their pieces.
#[derive(Default)]
pub(super) struct Work {
    files: Vec<WantedFile>,
    pieces: Vec<Piece>,
    keep_extents: bool,
}

impl Work {
    /// No files; `options` say whether they will be read back.
    pub(super) fn new(options: &RestoreOptions) -> Self {
        Self {
            keep_extents: options.verify,
            ..Self::default()
        }
    }
    pub(super) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Adds a file made of `extents`.
    pub(super) fn add(
        &mut self,
        reader: &Reader,
        relative: &[u8],
        meta: &Meta,
        extents: &[Extent],
    ) -> Result<(), RestoreError> {
        let verify = self.keep_extents;
        let file = self.files.len() as u32;
        let first = self.pieces.len();
        let end = reader.locate(extents, |pack, slot, file_offset| {
            self.pieces.push(Piece {
                pack,
                file_offset,
                slot,
                file,
            });
        });
        let bytes = match end {
            Ok(bytes) => bytes,
            Err(error) => {
                self.pieces.truncate(first);
                return Err(error);
            }
        };
        self.files.push(WantedFile {
            relative: relative.to_vec(),
            meta: meta.clone(),
            bytes,
            extents: if verify { extents.to_vec() } else { Vec::new() },
            pieces_left: AtomicU32::new((self.pieces.len() - first) as u32),
            state: Mutex::default(),
        });
        Ok(())
    }

    /// Takes over what an interrupted restore left of the file added last: pieces that are there are not fetched again. Not
    /// of a file with holes, which could be filled with old bytes.
    pub(super) fn resume(&mut self, reader: &Reader, sink: &Sink) {
        let (number, Some(file)) = ((self.files.len() as u32).saturating_sub(1), self.files.last_mut()) else {
            return;
        };
        let first = self.pieces.partition_point(|piece| piece.file < number);
        let whole: u64 = self.pieces[first..]
            .iter()
            .map(|piece| u64::from(piece.slot.raw_len))
            .sum();
        if whole != file.bytes {
            return;
        }
        let Some(partial) = sink.left_over(&file.relative) else {
            return;
        };
        let before = self.pieces.len();
        let mut read = Vec::new();
        let mut is_there = |piece: &Piece| {
            read.resize(piece.slot.raw_len as usize, 0);
            partial.read_exact_at(&mut read, piece.file_offset).is_ok()
                && reader.keys.put.chunk_id(&read) == piece.slot.id
        };
        let missing: Vec<Piece> = self.pieces.drain(first..).filter(|piece| !is_there(piece)).collect();
        self.pieces.extend(missing);
        if self.pieces.len() < before {
            *file.pieces_left.get_mut() = (self.pieces.len() - first) as u32;
            file.state
                .get_mut()
                .expect("no panic while a file's state is locked")
                .begun_by = Some(rustix::process::geteuid().as_raw());
        }
    }

    /// Fetches and writes everything. `after_each` is called after each batch; once it says stop, no batch is begun.
    pub(super) fn run(mut self, reader: &Reader, job: &Arc<Job>, after_each: &dyn Fn() -> ControlFlow<()>) {
        self.pieces
            .sort_unstable_by_key(|piece| (piece.pack, piece.slot.offset));
        let batches = batches(&self.pieces);
        let files = Arc::new(self.files);
        for file in files
            .iter()
            .filter(|file| file.pieces_left.load(Ordering::Relaxed) == 0)
        {
            let whole = job.open(file);
            job.finish(file, whole.map_err(|error| error.to_string()));
        }
        let budget = Semaphore::new((reader.bytes_in_flight_max / KIB).max(1));
        let total = budget.available_permits() as u32;
        let stopped = AtomicBool::new(false);
        reader.runtime.block_on(async {
            let mut done = futures::stream::iter(batches.into_iter().map(|range| {
                let (batch, files, budget, stopped) = (self.pieces[range].to_vec(), files.clone(), &budget, &stopped);
                async move {
                    let cost = (batch_bytes(&batch) / KIB as u64).min(u64::from(total)) as u32;
                    let _permit = budget.acquire_many(cost).await;
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    job.clone().run_batch(reader, files, batch).await;
                }
            }))
            .buffer_unordered(BATCHES_IN_FLIGHT);
            while done.next().await.is_some() {
                stopped.fetch_or(after_each().is_break(), Ordering::Relaxed);
            }
        });
    }
}

/// Memory for a batch: its bytes sealed and opened, and one chunk unpacked at a time.
fn batch_bytes(batch: &[Piece]) -> u64 {
    let stored: u64 = batch.iter().map(|piece| u64::from(piece.slot.stored_len)).sum();
    let longest = batch.iter().map(|piece| piece.slot.raw_len).max();
    2 * stored + u64::from(longest.unwrap_or_default())
}

/// Ranges of sorted pieces that are fetched as one.
fn batches(pieces: &[Piece]) -> Vec<std::ops::Range<usize>> {
    let mut batches = Vec::new();
    let mut start = 0;
    for end in 1..=pieces.len() {
        let first = &pieces[start];
        let full = pieces
            .get(end)
            .is_none_or(|next| next.pack != first.pack || next.slot.offset - first.slot.offset >= BATCH_BYTES);
        if full {
            batches.push(start..end);
            start = end;
        }
    }
    batches
}

/// What all batches share.
pub(super) struct Job {
    pub(super) reader: Reader,
    pub(super) sink: Sink,
    pub(super) stats: Mutex<FetchStats>,
    pub(super) verify: bool,
}

impl Job {
    async fn run_batch(self: Arc<Self>, reader: &Reader, files: Arc<Vec<WantedFile>>, batch: Vec<Piece>) {
        let mut slots: Vec<ChunkSlot> = batch.iter().map(|piece| piece.slot).collect();
        slots.dedup();
        let chunks = match reader.read_slots(batch[0].pack, &slots, &self.stats).await {
            Ok(chunks) => chunks,
            Err(error) => {
                self.sink.note(&error);
                for piece in &batch {
                    self.settle(&files[piece.file as usize], Err(error.to_string()), None);
                }
                return;
            }
        };
        let job = self.clone();
        let written = tokio::task::spawn_blocking(move || job.write_batch(&files, &batch, slots.iter().zip(&chunks)));
        if let Err(error) = written.await
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }

    fn write_batch<'a>(
        &self,
        files: &[WantedFile],
        batch: &[Piece],
        stored: impl Iterator<Item = (&'a ChunkSlot, &'a Bytes)>,
    ) {
        let mut open: HashMap<u32, File> = HashMap::new();
        let mut pieces = batch.iter().peekable();
        for (slot, stored) in stored {
            let plain = open_chunk(&self.reader, slot, stored);
            while let Some(piece) = pieces.next_if(|piece| piece.slot == *slot) {
                let file = &files[piece.file as usize];
                let written = match &plain {
                    Ok(plain) => self.write_piece(&mut open, file, piece, plain),
                    Err(error) => Err(error.to_string()),
                };
                self.settle(file, written, open.get(&piece.file));
                if file.pieces_left.load(Ordering::Relaxed) == 0 {
                    open.remove(&piece.file);
                }
            }
        }
    }

    fn write_piece(
        &self,
        open: &mut HashMap<u32, File>,
        file: &WantedFile,
        piece: &Piece,
        plain: &[u8],
    ) -> Result<(), String> {
        if !open.contains_key(&piece.file) {
            if open.len() == OPEN_FILES_MAX {
                open.clear();
            }
            let opened = self.open(file).map_err(|error| error.to_string())?;
            open.insert(piece.file, opened);
        }
        open[&piece.file]
            .write_all_at(plain, piece.file_offset)
            .map_err(|error| error.to_string())
    }

    fn open(&self, file: &WantedFile) -> std::io::Result<File> {
        let mut state = file.state.lock().expect("no panic while a file's state is locked");
        if let Some(owner) = state.begun_by {
            return self.sink.open_partial(&file.relative, owner);
        }
        let created = self.sink.create_partial(&file.relative)?;
        // By what the file system makes of it: some give everything to one user.
        state.begun_by = Some(rustix::fs::fstat(&created)?.st_uid);
        Ok(created)
    }

    /// Counts a piece as done; the last one finishes the file.
    fn settle(&self, file: &WantedFile, written: Result<(), String>, open: Option<&File>) {
        if let Err(reason) = written {
            let mut state = file.state.lock().expect("no panic while a file's state is locked");
            state.failed.get_or_insert(reason);
        }
        if file.pieces_left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let failed = {
            let mut state = file.state.lock().expect("no panic while a file's state is locked");
            state.failed.take()
        };
        let partial = match (failed, open) {
            (Some(reason), _) => Err(reason),
            (None, Some(open)) => open.try_clone().map_err(|error| error.to_string()),
            (None, None) => self.open(file).map_err(|error| error.to_string()),
        };
        self.finish(file, partial);
    }

    fn finish(&self, file: &WantedFile, partial: Result<File, String>) {
        if partial.is_err() {
            self.sink.lost(&file.meta);
        }
        let finished = partial.and_then(|partial| {
            if self.verify {
                self.reader
                    .read_back(&partial, &file.extents)
                    .map_err(|error| error.to_string())?;
            }
            self.sink
                .finish_file(&file.relative, &file.meta, &partial, file.bytes)
                .map_err(|error| error.to_string())
        });
        match finished {
            Ok(()) => {
                let mut summary = self.sink.summary();
                summary.files_restored += 1;
                summary.bytes_restored += file.bytes;
            }
            Err(reason) => {
                self.sink.drop_partial(&file.relative);
                self.sink.failed(&file.relative, reason);
            }
        }
    }
}

impl Reader {
    /// Calls `found` with the place of each chunk of `extents` and its offset in the file; returns the file's length.
    pub(super) fn locate(
        &self,
        extents: &[Extent],
        mut found: impl FnMut(PackRow, ChunkSlot, u64),
    ) -> Result<u64, RestoreError> {
        self.db.read(|conn| {
            let mut offset = 0u64;
            for extent in extents {
                let len = match extent {
                    Extent::Hole(len) => *len,
                    Extent::Chunk(id, len) => {
                        let place = content::chunk(conn, *id)?.ok_or_else(|| unknown_chunk(*id))?;
                        if place.slot.raw_len != *len {
                            return Err(damaged_chunk(*id, "its length differs from what the file says"));
                        }
                        found(place.pack, place.slot, offset);
                        u64::from(*len)
                    }
                };
                offset = offset.checked_add(len).ok_or_else(|| RestoreError::Damaged {
                    what: "A file's list of extents".to_owned(),
                    reason: "it is longer than a file can be".to_owned(),
                })?;
            }
            Ok(offset)
        })
    }

    /// Chunks of one pack as they are stored there.
    pub(super) async fn read_slots(
        &self,
        row: PackRow,
        slots: &[ChunkSlot],
        stats: &Mutex<FetchStats>,
    ) -> Result<Vec<Bytes>, RestoreError> {
        let ranges: Vec<(u32, u32)> = slots.iter().map(|slot| (slot.offset, slot.stored_len)).collect();
        self.read_row(row, &ranges, stats).await
    }

    /// The same, each checked against its id.
    pub(crate) async fn read_checked(&self, row: PackRow, slots: &[ChunkSlot]) -> Result<Vec<Bytes>, RestoreError> {
        let chunks = self.read_slots(row, slots, &Mutex::default()).await?;
        for (slot, stored) in slots.iter().zip(&chunks) {
            open_chunk(self, slot, stored)?;
        }
        Ok(chunks)
    }

    /// Ranges of a pack that the catalog knows.
    pub(crate) async fn read_row(
        &self,
        row: PackRow,
        ranges: &[(u32, u32)],
        stats: &Mutex<FetchStats>,
    ) -> Result<Vec<Bytes>, RestoreError> {
        let pack = self
            .db
            .read(|conn| packs::get(conn, row))?
            .ok_or_else(|| RestoreError::Damaged {
                what: "The catalog".to_owned(),
                reason: "it names a pack that it does not know; move catalog.db away and run `gridbackup recover`"
                    .to_owned(),
            })?;
        let key = self.unwrap(&pack.record)?;
        self.read_pack(&pack, &key, ranges, stats).await
    }
}

/// A chunk's plaintext, checked against its id.
pub(super) fn open_chunk(reader: &Reader, slot: &ChunkSlot, stored: &Bytes) -> Result<Bytes, RestoreError> {
    let plain = if slot.stored_len == slot.raw_len {
        stored.clone()
    } else if slot.raw_len > CHUNK_RAW_BYTES_MAX {
        return Err(damaged_chunk(slot.id, "it is longer than chunks are"));
    } else {
        zstd::bulk::decompress(stored, slot.raw_len as usize)
            .map_err(|error| damaged_chunk(slot.id, &error.to_string()))?
            .into()
    };
    if plain.len() != slot.raw_len as usize || reader.keys.put.chunk_id(&plain) != slot.id {
        return Err(damaged_chunk(slot.id, "its content does not match its id"));
    }
    Ok(plain)
}

fn unknown_chunk(id: ChunkId) -> RestoreError {
    damaged_chunk(id, "the index does not say where it is")
}

fn damaged_chunk(id: ChunkId, reason: &str) -> RestoreError {
    RestoreError::Damaged {
        what: format!("Chunk {}", id.short()),
        reason: reason.to_owned(),
    }
}
