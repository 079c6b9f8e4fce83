//! A volume that this machine writes: its folder, its journal, what is committed, and one commit after the other. How a commit is
//! accepted, and where packs are, is told from outside.
//!
//! The folder is worth what is not committed, and nothing else: without it the volume opens as of its last commit.

pub mod edits;
pub mod error;
pub mod given_up;
pub mod salvage;
pub mod stats;
pub mod view;

mod collector;
mod kept;
mod writer;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use collector::{Chosen, Collector, Means};
use error::OpenError;
use kept::Kept;
use proto::head::RootRef;
use stats::Counted;
use tokio::runtime::Handle;
use writer::WriterFile;

use crate::commit::PackNumber;
use crate::commit::compose::{PackSink, Prepared, batch_bytes_max, compose};
use crate::commit::opening::{PackReader, open, prepared_at};
use crate::commit::pack_set::PackSet;
use crate::commit::pack_table::PackTable;
use crate::commit::root::Root;
use crate::commit::state::Committed;
use crate::commit::work::{Leaves, Work};
use crate::committed::CommittedBlocks;
use crate::device::{Device, DeviceError};
use crate::extents::MapOptions;
use crate::journal::record::BLOCK_BYTES;
use crate::journal::{JournalKey, JournalOptions};
use crate::volume::{Batch, JournalUsage, Volume, VolumeOptions};

/// Bytes of blocks that go into one commit, at least and at most. Chosen: the list of its changes is short, and the smallest fills its packs.
const BATCH_BYTES: RangeInclusive<u64> = 16 << 20..=256 << 20;
/// A commit that took longer is followed by a smaller one, and by a larger one if it took less: what waits in the journal is released in steps
/// that writers do not notice.
const COMMIT_TIME: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(20);
/// Bytes of committed blocks in memory.
const BLOCKS_CACHE_BYTES: usize = 64 << 20;
/// How long writers wait for a full journal from which nothing is released before they are told that there is no room.
const PATIENCE: Duration = Duration::from_secs(300);

/// Has a root taken by peers, and returns only when it is taken for good.
pub type Accept<'a> = dyn FnMut(&Prepared) -> Result<(), DeviceError> + 'a;

/// A volume that is open for writing.
pub struct Running {
    volume: Arc<Volume>,
    blocks: Arc<CommittedBlocks>,
    folder: PathBuf,
    runtime: Handle,
    state: Mutex<State>,
    counted: Mutex<Counted>,
    /// Snapshots that somebody reads, by their commits.
    kept: Mutex<BTreeMap<u64, Weak<Kept>>>,
}

struct State {
    writer: WriterFile,
    /// A commit whose packs were delivered, and that was not accepted yet: it is offered again, as it is.
    waiting: Option<Waiting>,
    collector: Collector,
    /// How much the next commit takes.
    batch_bytes: u64,
}

struct Waiting {
    /// Keeps files of the journal as long as they may be read.
    _batch: Batch,
    prepared: Prepared,
    /// Packs of which nothing is left by it.
    emptied: Vec<PackNumber>,
    /// Packs that the table has no more by it.
    removed: Vec<PackNumber>,
    /// Sets of snapshots that it wrote.
    sets: Vec<(u64, PackSet)>,
    host_blocks: u64,
    moved_blocks: u64,
}

/// What a commit begins with that is not written by the host.
struct Edited {
    last: Committed,
    sets: Vec<(u64, PackSet)>,
    leaves: Leaves,
}

/// The first commit of a new volume, of nothing: there is a disk when it is accepted. Its voters are chosen here, for good
/// (`commit::lineage::are_voters`).
pub fn first_commit(
    volume: [u8; 16],
    name: String,
    size: u64,
    voters: Vec<[u8; 32]>,
    time_ns: i64,
    sink: &mut dyn PackSink,
) -> Result<Prepared, DeviceError> {
    let root = Root::first(volume, name, size, voters);
    // Whatever cannot be read again is refused here.
    Root::decode(&root.encode())?;
    let none = Committed::new(root, PackTable::default(), BTreeMap::new());
    compose(&none, &|_| Ok(None), &nothing(0), time_ns, sink)
}

/// A batch of nothing, up to that record.
fn nothing(seq: u64) -> Batch {
    Batch {
        seq,
        pieces: Vec::new(),
    }
}

impl Running {
    /// Opens the volume whose newest accepted commit has its root at `at`. The folder is made if it is not there. The journal takes the usual
    /// room, or so many bytes.
    pub fn open(
        folder: &Path,
        volume: [u8; 16],
        commit: u64,
        at: &RootRef,
        reader: Arc<dyn PackReader>,
        runtime: Handle,
        journal_bytes: Option<u64>,
    ) -> Result<Self, OpenError> {
        durable::create_folders(&folder.join("journal"))?;
        let known = writer::read(folder, volume)?;
        // The journal has given up what is in accepted commits: an older one must not be gone on from.
        if let Some(ours) = known
            .as_ref()
            .map(|known| known.file.commit)
            .filter(|ours| commit < *ours)
        {
            return Err(OpenError::TurnedBack { ours, theirs: commit });
        }
        let map = MapOptions::new(folder.join("map"), volume);
        let opened = open(at, reader, map, known.is_some())?;
        remove_other_maps(folder, &opened.map.options().folder);
        let root = &opened.committed.root;
        if root.volume != volume || root.commit != commit {
            return Err(DeviceError::Damaged("what the head names is not the root of this disk".to_owned()).into());
        }
        let mut writer = match known {
            Some(known) if known.has_made(commit, at) => known.file,
            // It has been damaged, and lacks what was accepted last: that its journal is gone on with tells enough.
            Some(known) if !known.is_newest && root.journal_id == known.file.journal => known.file,
            Some(known) => {
                return Err(OpenError::Overtaken {
                    ours: known.file.commit,
                    theirs: commit,
                    folder: folder.to_owned(),
                });
            }
            None => WriterFile::new(volume)?,
        };
        // What was offered may have been accepted, and this machine have died before it heard of that.
        writer.offered.take_if(|(offered, _)| *offered <= commit);
        (writer.commit, writer.at) = (commit, Some(at.clone()));
        writer::write(folder, &writer)?;
        let options = VolumeOptions {
            journal: JournalOptions::sized(folder.join("journal"), journal_bytes),
            size: root.size,
            is_read_only: false,
            patience: PATIENCE,
        };
        let key = JournalKey::new(&writer.secret, writer.journal);
        let blocks = CommittedBlocks::new(opened, BLOCKS_CACHE_BYTES, runtime.clone()).with_read_cache(folder);
        let blocks = Arc::new(blocks);
        blocks.write_with(writer.journal);
        let volume = Arc::new(Volume::open(options, key, blocks.clone())?);
        Ok(Self {
            volume,
            blocks,
            folder: folder.to_owned(),
            runtime,
            state: Mutex::new(State {
                writer,
                waiting: None,
                collector: Collector::default(),
                batch_bytes: *BATCH_BYTES.end(),
            }),
            counted: Mutex::default(),
            kept: Mutex::default(),
        })
    }

    /// Whether opening the folder with this commit would be refused because somebody else has made that. Nothing is changed.
    pub fn is_overtaken(folder: &Path, volume: [u8; 16], commit: u64, at: &RootRef) -> Result<bool, OpenError> {
        if !folder.join("journal").is_dir() {
            return Ok(false);
        }
        let known = writer::read(folder, volume)?;
        Ok(known.is_some_and(|known| known.is_newest && known.file.commit <= commit && !known.has_made(commit, at)))
    }

    /// Where the root of the commit lies that this folder's writer was about to make when it ended, if it was: the next to be made there.
    pub fn offered(folder: &Path, volume: [u8; 16]) -> Result<Option<RootRef>, OpenError> {
        if !folder.join("journal").is_dir() {
            return Ok(None);
        }
        let known = writer::read(folder, volume)?;
        Ok(known.and_then(|known| known.file.offered).map(|(_, at)| at))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What faces serve.
    pub fn device(&self) -> Arc<dyn Device> {
        self.volume.clone()
    }

    /// Of what is committed.
    pub fn root(&self) -> Root {
        self.blocks.committed().root
    }

    /// The number of the last record: a commit up to it has all that was written before.
    pub fn last_seq(&self) -> u64 {
        self.volume.last_seq()
    }

    /// How full the journal is, and what of it waits for a commit.
    pub fn journal_usage(&self) -> JournalUsage {
        self.volume.journal_usage()
    }

    /// Whether something waits for a commit.
    pub fn is_dirty(&self) -> bool {
        self.volume.last_seq() > self.root().journal
    }

    /// Commits what there is, as much as one commit takes; whether there was anything. Blocks of packs of which little is needed go with it, no more
    /// of them than the host wrote. If `accept` fails, the next call offers the same commit again, also after a restart. Blocks; one at a time.
    pub fn commit(&self, time_ns: i64, sink: &mut dyn PackSink, accept: &mut Accept<'_>) -> Result<bool, DeviceError> {
        self.advance(&mut self.lock(), 0, time_ns, sink, accept)
    }

    /// The same, also if nothing was written: moves up to so many blocks, so that what is stored comes down to what is needed. False if there is
    /// nothing to write and to move.
    pub fn settle(
        &self,
        blocks: u64,
        time_ns: i64,
        sink: &mut dyn PackSink,
        accept: &mut Accept<'_>,
    ) -> Result<bool, DeviceError> {
        self.advance(&mut self.lock(), blocks, time_ns, sink, accept)
    }

    fn advance(
        &self,
        state: &mut State,
        settle_blocks: u64,
        time_ns: i64,
        sink: &mut dyn PackSink,
        accept: &mut Accept<'_>,
    ) -> Result<bool, DeviceError> {
        let began = Instant::now();
        self.find_offered(state)?;
        if state.waiting.is_none() {
            // Files of the journal are released as far as they are durable.
            futures::executor::block_on(self.volume.flush())?;
            let batch = self
                .volume
                .batch(state.batch_bytes.min(batch_bytes_max(&sink.rooms())))?;
            let last = self.blocks.committed();
            let is_new = batch.seq > last.root.journal;
            let batch = if is_new { batch } else { nothing(last.root.journal) };
            let means = Means {
                host_blocks: host_blocks(&batch),
                settle_blocks,
                rooms: sink.rooms(),
            };
            let mut chosen = match is_new || settle_blocks > 0 {
                true => state.collector.choose(&self.blocks, &means),
                false => Chosen::default(),
            };
            if !is_new && chosen.is_empty() {
                return Ok(false);
            }
            chosen.without(&batch.pieces);
            let edited = Edited {
                last,
                sets: Vec::new(),
                leaves: Leaves::Due,
            };
            state.waiting = Some(self.prepare(state, batch, chosen, edited, time_ns, sink)?);
        }
        let host_bytes = state.waiting.as_ref().map_or(0, |waiting| waiting.host_blocks) * BLOCK_BYTES as u64;
        self.offer(state, accept)?;
        state.batch_bytes = next_batch_bytes(state.batch_bytes, host_bytes, began.elapsed());
        Ok(true)
    }

    /// A commit that was offered before this process: it is offered again.
    fn find_offered(&self, state: &mut State) -> Result<(), DeviceError> {
        let Some((_, at)) = state.writer.offered.as_ref().filter(|_| state.waiting.is_none()) else {
            return Ok(());
        };
        let prepared = prepared_at(at, self.blocks.places().reader())?;
        let root = &prepared.committed.root;
        if root.volume != state.writer.volume || root.commit != state.writer.commit + 1 {
            return Err(DeviceError::Damaged(
                "what was offered is not the next commit of this disk".to_owned(),
            ));
        }
        // It knows no more of its packs than a root has.
        state.collector.forget();
        state.waiting = Some(Waiting {
            _batch: nothing(root.journal),
            prepared,
            emptied: Vec::new(),
            removed: Vec::new(),
            sets: Vec::new(),
            host_blocks: 0,
            moved_blocks: 0,
        });
        Ok(())
    }

    /// Makes a commit of all this. Packs that cannot be read now keep their blocks.
    fn prepare(
        &self,
        state: &State,
        batch: Batch,
        chosen: Chosen,
        edited: Edited,
        time_ns: i64,
        sink: &mut dyn PackSink,
    ) -> Result<Waiting, DeviceError> {
        let Edited {
            mut last,
            mut sets,
            leaves,
        } = edited;
        let places = self.blocks.places();
        places.with_packs(&mut last.packs, |packs| packs.rewrite(&chosen.victims))?;
        let removed: Vec<PackNumber> = state.collector.confirmed().collect();
        for number in &removed {
            places.with_packs(&mut last.packs, |packs| packs.remove(*number))?;
        }
        sets.extend(state.collector.sets_in(&last.root, &chosen.victims));
        let failed = RefCell::new(BTreeSet::new());
        let moved = RefCell::new(0);
        let work = Work {
            batch: &batch,
            time_ns,
            moves: &chosen.moves,
            read: &|run| match self.blocks.read_part(run) {
                Ok(blocks) => {
                    *moved.borrow_mut() += run.count;
                    Ok(Some(blocks))
                }
                Err(error) => {
                    tracing::warn!(%error, pack = run.place.pack, "a pack that is collected could not be read");
                    failed.borrow_mut().insert(run.place.pack);
                    Ok(None)
                }
            },
            victims: &chosen.victims,
            sets: &sets,
            leaves,
        };
        let prepared = self.blocks.prepare_work(&last, &work, sink)?;
        let failed = failed.into_inner();
        Ok(Waiting {
            emptied: chosen.victims.difference(&failed).copied().collect(),
            removed,
            sets,
            host_blocks: host_blocks(&batch),
            moved_blocks: moved.into_inner(),
            _batch: batch,
            prepared,
        })
    }

    /// Offers the commit that waits. Its number is on the disk first: no other one gets it, whatever becomes of this process.
    fn offer(&self, state: &mut State, accept: &mut Accept<'_>) -> Result<(), DeviceError> {
        let State {
            writer,
            waiting: Some(waiting),
            ..
        } = &mut *state
        else {
            return Ok(());
        };
        let prepared = &waiting.prepared;
        let offered = Some((prepared.committed.root.commit, prepared.at.clone()));
        if writer.offered != offered {
            writer.offered = offered;
            writer::write(&self.folder, writer)?;
        }
        accept(prepared)?;
        let size = self.root().size;
        let root = &prepared.committed.root;
        (writer.commit, writer.at, writer.offered) = (root.commit, Some(prepared.at.clone()), None);
        writer::write(&self.folder, writer)?;
        self.blocks.accept(prepared)?;
        if root.size != size {
            self.volume.resize(root.size)?;
        }
        let Some(waiting) = state.waiting.take() else {
            return Ok(());
        };
        let Waiting {
            prepared,
            emptied,
            removed,
            sets,
            ..
        } = &waiting;
        state
            .collector
            .accepted(&self.blocks, &prepared.made, emptied, removed, sets);
        let mut counted = self.counted();
        counted.add(&waiting.prepared, waiting.host_blocks, waiting.moved_blocks);
        counted.totals = state.collector.totals(&self.blocks);
        drop(counted);
        drop(waiting);
        self.volume.release(self.root().journal);
        Ok(())
    }

    /// Makes all durable here, and says in the journal that this was its end. Commits nothing.
    pub async fn end(&self) -> Result<(), DeviceError> {
        self.volume.end().await
    }
}

/// Maps of states that were turned away from.
fn remove_other_maps(folder: &Path, map: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_map = entry.file_name().to_string_lossy().starts_with("map");
        if is_map
            && entry.path() != map
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::debug!(%error, "a map that is not needed any more");
        }
    }
}

/// How much the next commit takes, when one could take `most`, took `bytes`, and was made in so long.
fn next_batch_bytes(most: u64, bytes: u64, time: Duration) -> u64 {
    let next = match most {
        most if time > *COMMIT_TIME.end() => most / 2,
        // Of less than it could take it says nothing.
        most if time < *COMMIT_TIME.start() && bytes >= most / 2 => most * 2,
        most => most,
    };
    next.clamp(*BATCH_BYTES.start(), *BATCH_BYTES.end())
}

/// Blocks that the host wrote, zeros left out.
fn host_blocks(batch: &Batch) -> u64 {
    let written = batch.pieces.iter().filter(|piece| piece.place.is_some());
    written.map(|piece| piece.count).sum()
}

#[cfg(test)]
mod tests;
