//! The committed content of a volume as what lies behind its journal: blocks out of slots of packs, which are kept in memory for a
//! while, and come from wherever packs are.

mod ahead;
mod collection;
mod fetching;
mod parts;
mod read_cache;
mod slots;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahead::Readers;
use fetching::Fetching;
use futures::future::BoxFuture;
use parts::{copy_part, parts, pieces, slots_of};
use proto::cap_index::PackRecord;
use read_cache::ReadCache;
use slots::SlotCache;
use tokio::runtime::Handle;

use crate::backing::Backing;
use crate::commit::PackNumber;
use crate::commit::compose::{PackSink, Prepared, compose_work};
use crate::commit::contents::Slots;
use crate::commit::opening::{Opened, Places, map_anew, map_folder};
use crate::commit::state::Committed;
use crate::commit::work::Work;
use crate::device::{DeviceError, Extent, ExtentKind};
use crate::extents::{CommittedMap, LeafSource, MapError, Place, REGION_BLOCKS, Run};
use crate::journal::record::BLOCK_BYTES;
use crate::volume::Batch;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Read-aheads at a time. Chosen: as many as fetch side by side what a file system asks for, and a bounded number of threads.
const PREFETCHES_MAX: usize = 4;

/// Bytes of slots in a file on this disk. Chosen: half of the usual journal, which lies beside it.
const READ_CACHE_BYTES: u64 = 1 << 30;

/// The committed content of an open volume.
pub struct CommittedBlocks {
    inner: Arc<Inner>,
    runtime: Handle,
}

struct Inner {
    state: Mutex<State>,
    places: Arc<Places>,
    slots: SlotCache,
    /// None if it could not be had, or nobody wants it.
    file: Option<ReadCache>,
    fetching: Fetching,
    readers: Mutex<Readers>,
    /// Read-aheads that are on their way.
    prefetching: AtomicUsize,
}

struct State {
    committed: Committed,
    map: CommittedMap,
    /// How often the map was begun anew: what was counted before says nothing then.
    rounds: u64,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the map. If a leaf on this disk is damaged, and packs have it as of another commit, the map is begun anew from packs.
    fn ask<T>(
        &self,
        state: &mut State,
        mut ask: impl FnMut(&mut CommittedMap) -> Result<T, MapError>,
    ) -> Result<T, DeviceError> {
        match ask(&mut state.map) {
            Err(error @ MapError::LeafDamaged { .. }) => {
                tracing::warn!(%error, "the map of a disk is begun anew");
                state.map = map_anew(&state.committed, &self.places, state.map.options().clone())?;
                state.rounds += 1;
                Ok(ask(&mut state.map)?)
            }
            done => Ok(done?),
        }
    }

    /// Where these blocks lie. Leaves that are not here are fetched first, and nobody waits for that but who asked.
    fn find(&self, start: u64, count: u64) -> Result<Vec<Run>, DeviceError> {
        let missing = {
            let mut state = self.lock();
            let missing = state.map.missing(start, count);
            if missing.is_empty() {
                return self.ask(&mut state, |map| map.find(start, count));
            }
            missing
        };
        if let [region] = missing[..] {
            let mut state = self.lock_with_leaf(region)?;
            return self.ask(&mut state, |map| map.find(start, count));
        }
        // By halves, so that a cache that cannot keep all these leaves has each when it is needed.
        let middle = missing[missing.len() / 2] * u64::from(REGION_BLOCKS);
        let mut runs = self.find(start, middle - start)?;
        runs.extend(self.find(middle, start + count - middle)?);
        Ok(runs)
    }

    /// The map, with the leaf of a region, which is fetched while nothing is locked.
    fn lock_with_leaf(&self, region: u64) -> Result<MutexGuard<'_, State>, DeviceError> {
        let state = self.lock();
        if !state.map.is_elsewhere(region) {
            return Ok(state);
        }
        drop(state);
        let fetched = self.places.fetch(region);
        let mut state = self.lock();
        // Somebody else may have fetched it meanwhile, or a commit have written it anew: then what came, or did not, counts for nothing.
        if state.map.is_elsewhere(region) {
            let leaf = fetched?;
            let leaf = leaf.ok_or_else(|| DeviceError::Damaged(format!("the map of region {region} is nowhere")))?;
            state.map.load_leaf(region, leaf)?;
        }
        Ok(state)
    }

    /// The leaf of a region with all that is committed, and the commit that it says; none if the region is zeros.
    fn write_leaf(&self, region: u64) -> Result<Option<(u64, Vec<u8>)>, DeviceError> {
        let mut state = self.lock_with_leaf(region)?;
        self.ask(&mut state, |map| {
            map.write_regions(&[region])?;
            Ok(map.leaf_commit(region).zip(map.leaf_bytes(region)?))
        })
    }

    /// Fills in blocks from slots that are here; false if one is not.
    fn copy(&self, start: u64, runs: &[Run], into: &mut [u8]) -> bool {
        into.fill(0);
        let mut parts = runs.iter().flat_map(parts);
        parts.all(|part| {
            let (pack, slot) = (part.place.pack, part.place.slot());
            match (self.slots.get(pack, slot), &self.file) {
                (Some(blocks), _) => copy_part(&part, &blocks, start, into),
                (None, Some(file)) => {
                    let to = (part.start - start) as usize * BLOCK_BYTES;
                    let within = &mut into[to..to + part.count as usize * BLOCK_BYTES];
                    file.read(pack, slot, usize::from(part.place.block()), within)
                }
                (None, None) => false,
            }
        })
    }

    /// Whether all slots of a run are here.
    fn has(&self, run: &Run) -> bool {
        let is_in_file = |place: Place| {
            let file = self.file.as_ref();
            file.is_some_and(|file| file.has(place.pack, place.slot()))
        };
        let mut parts = parts(run).into_iter().map(|part| part.place);
        parts.all(|place| self.slots.has(place.pack, place.slot()) || is_in_file(place))
    }

    /// Reads blocks, and what they need of packs.
    fn read(&self, start: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        let count = into.len() as u64 / BLOCK;
        loop {
            let runs = self.find(start, count)?;
            match self.read_runs(start, &runs, into) {
                // Blocks may have been moved meanwhile, and the pack that they lay in been given up.
                Err(_) if self.find(start, count)? != runs => {}
                done => return done,
            }
        }
    }

    fn read_runs(&self, start: u64, runs: &[Run], into: &mut [u8]) -> Result<(), DeviceError> {
        into.fill(0);
        for piece in runs.iter().flat_map(pieces) {
            let from = (piece.start - start) as usize * BLOCK_BYTES;
            let within = &mut into[from..from + piece.count as usize * BLOCK_BYTES];
            if self.copy(piece.start, &[piece], within) {
                continue;
            }
            let (_turn, has_waited) = self.fetching.turn(slots_of(&piece));
            if has_waited && self.copy(piece.start, &[piece], within) {
                continue;
            }
            for (part, slot) in parts(&piece).iter().zip(self.fetch(&piece)?) {
                if !copy_part(part, &slot, start, into) {
                    let (slot, pack) = (part.place.slot(), part.place.pack);
                    return Err(DeviceError::Damaged(format!("slot {slot} of pack {pack} is too short")));
                }
            }
        }
        Ok(())
    }

    /// Fetches the slots of a run, which lie one after the other.
    fn fetch(&self, run: &Run) -> Result<Vec<Arc<Vec<u8>>>, DeviceError> {
        let pack = run.place.pack;
        let record = self.places.record(pack)?;
        let list = self.list(pack, &record)?;
        let (_, _, last) = slots_of(run);
        let range = |slot| {
            let range = list.range(slot);
            range.ok_or_else(|| DeviceError::Damaged(format!("pack {pack} of the disk has no slot {slot}")))
        };
        let (begin, end) = (range(run.place.slot())?.start, range(last)?.end);
        let stored = self.places.read_of(&record, begin..end)?;
        let mut slots = Vec::new();
        for slot in run.place.slot()..=last {
            let range = range(slot)?;
            let stored = &stored[(range.start - begin) as usize..(range.end - begin) as usize];
            let blocks = self.slots.put(pack, slot, list.unpack(slot, stored)?);
            if let Some(file) = &self.file {
                file.put(pack, slot, &blocks);
            }
            slots.push(blocks);
        }
        Ok(slots)
    }
}

impl Inner {
    fn list(&self, pack: PackNumber, record: &PackRecord) -> Result<Arc<Slots>, DeviceError> {
        match self.slots.list(pack) {
            Some(list) => Ok(list),
            None => Ok(self.slots.put_list(pack, self.places.slots(record)?)),
        }
    }
}

impl CommittedBlocks {
    /// Of a volume that was opened; keeps so many bytes of blocks in memory.
    pub fn new(opened: Opened, cache_bytes: usize, runtime: Handle) -> Self {
        let Opened { committed, map, places } = opened;
        Self {
            inner: Arc::new(Inner {
                state: Mutex::new(State {
                    committed,
                    map,
                    rounds: 0,
                }),
                places,
                slots: SlotCache::new(cache_bytes),
                file: None,
                fetching: Fetching::default(),
                readers: Mutex::default(),
                prefetching: AtomicUsize::new(0),
            }),
            runtime,
        }
    }

    /// The same, and more of them in a file in this folder, as long as it is open.
    #[must_use]
    pub fn with_read_cache(mut self, folder: &Path) -> Self {
        match (Arc::get_mut(&mut self.inner), ReadCache::new(folder, READ_CACHE_BYTES)) {
            (Some(inner), Ok(file)) => inner.file = Some(file),
            (_, Err(error)) => tracing::warn!(%error, "what is read of a disk is kept in memory alone"),
            (None, _) => {}
        }
        self
    }

    /// Fetches what will be read after these blocks, if somebody reads on.
    fn read_ahead(&self, start: u64, count: u64) {
        let mut readers = self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((first, end)) = readers.saw(start, start + count) else {
            return;
        };
        drop(readers);
        let size = self.inner.lock().committed.root.size / BLOCK;
        let step = u64::from(parts::READ_BYTES) / BLOCK;
        let mut at = first;
        while at < end.min(size) {
            let count = step.min(end.min(size) - at);
            self.prefetch(at, count);
            at += count;
        }
    }

    /// The next commit: all that a batch has. Reads go on meanwhile: they wait while a leaf is written, not while one is
    /// fetched.
    pub fn prepare(&self, batch: &Batch, time_ns: i64, sink: &mut dyn PackSink) -> Result<Prepared, DeviceError> {
        self.prepare_work(&self.committed(), &Work::of(batch, time_ns), sink)
    }

    /// The same of all that a commit can be made of, on top of the last one, whose root and table may have been edited.
    pub fn prepare_work(
        &self,
        last: &Committed,
        work: &Work<'_>,
        sink: &mut dyn PackSink,
    ) -> Result<Prepared, DeviceError> {
        compose_work(last, &|region| self.inner.write_leaf(region), work, sink)
    }

    /// The commit was accepted: it is what is read from now on. On failure nothing of it was taken in, and it is to be tried again, or the
    /// volume opened anew: another one in its place would not be accepted.
    pub fn accept(&self, prepared: &Prepared) -> Result<(), DeviceError> {
        let Prepared { committed, updates, .. } = prepared;
        if committed.root.rolled_back == committed.root.commit {
            return self.go_back(committed);
        }
        let needed = self.inner.lock().map.needed_by_apply();
        // What cannot be had now is no failure yet: `apply` tells.
        let _either = needed
            .into_iter()
            .try_for_each(|region| self.inner.lock_with_leaf(region).map(drop));
        let mut state = self.inner.lock();
        self.inner
            .ask(&mut state, |map| map.apply(committed.root.commit, updates))?;
        // A commit that changes nothing moves the root's floor alone. A map whose floor is below that of the root is not opened again.
        if state.map.floor() < committed.root.floor
            && let Err(error) = state.map.write_regions(&[])
        {
            tracing::warn!(%error, "the floor of the map of a disk could not be written");
        }
        self.inner.places.advance(committed);
        state.committed = committed.clone();
        Ok(())
    }

    /// A commit went back to a snapshot: the map is that one's, in a folder of its own, as the one that is there is of another state.
    fn go_back(&self, committed: &Committed) -> Result<(), DeviceError> {
        let mut state = self.inner.lock();
        let mut options = state.map.options().clone();
        let of_before = options.folder.clone();
        options.folder = map_folder(&of_before, committed.root.rolled_back);
        durable::create_folders(&options.folder)?;
        let before = state.committed.clone();
        self.inner.places.advance(committed);
        match map_anew(committed, &self.inner.places, options) {
            Ok(map) => {
                state.map = map;
                state.rounds += 1;
                state.committed = committed.clone();
            }
            Err(error) => {
                self.inner.places.advance(&before);
                return Err(error);
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&of_before) {
            tracing::debug!(%error, "a map that is not needed any more");
        }
        Ok(())
    }

    /// Commits say from now on that they are of this journal, whose numbers go on from where the last one's ended.
    pub fn write_with(&self, journal: [u8; 16]) {
        self.inner.lock().committed.root.journal_id = journal;
    }

    /// As of the last commit that was accepted.
    pub fn committed(&self) -> Committed {
        self.inner.lock().committed.clone()
    }
}

impl Backing for CommittedBlocks {
    fn committed_seq(&self) -> u64 {
        self.inner.lock().committed.root.journal
    }

    fn size(&self) -> Option<u64> {
        Some(self.inner.lock().committed.root.size)
    }

    fn read_now(&self, start: u64, into: &mut [u8]) -> Result<bool, DeviceError> {
        let count = into.len() as u64 / BLOCK;
        self.read_ahead(start, count);
        let runs = {
            let mut state = self.inner.lock();
            if !state.map.missing(start, count).is_empty() {
                return Ok(false);
            }
            self.inner.ask(&mut state, |map| map.find(start, count))?
        };
        Ok(self.inner.copy(start, &runs, into))
    }

    fn read(&self, start: u64, count: u64) -> BoxFuture<'_, Result<Vec<u8>, DeviceError>> {
        self.read_ahead(start, count);
        let inner = self.inner.clone();
        let reading = self.runtime.spawn_blocking(move || {
            let mut blocks = vec![0; count as usize * BLOCK_BYTES];
            inner.read(start, &mut blocks).map(|()| blocks)
        });
        // Who waits for it may hold a thread of a runtime (`Volume::apply`), and may have used up its task's budget: then tokio says that
        // nothing is ready, again and again.
        Box::pin(tokio::task::unconstrained(async move {
            let read = reading.await;
            read.unwrap_or_else(|error| Err(DeviceError::Unavailable(format!("a reader failed: {error}"))))
        }))
    }

    fn extents(&self, start: u64, count: u64) -> Result<Vec<Extent>, DeviceError> {
        let mut extents = Vec::new();
        let mut at = start;
        let hole = |blocks: u64| Extent {
            length: blocks * BLOCK,
            kind: ExtentKind::Zero,
        };
        for run in self.inner.find(start, count)? {
            if at < run.start {
                extents.push(hole(run.start - at));
            }
            extents.push(Extent {
                length: run.count * BLOCK,
                kind: ExtentKind::Data,
            });
            at = run.end();
        }
        if at < start + count {
            extents.push(hole(start + count - at));
        }
        Ok(extents)
    }

    fn prefetch(&self, start: u64, count: u64) {
        let inner = self.inner.clone();
        // It is a hint: who asks faster than packs come has to wait for what it reads anyway.
        if inner.prefetching.fetch_add(1, Ordering::Relaxed) >= PREFETCHES_MAX {
            inner.prefetching.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let count = count.min(self.inner.slots.bytes_max() as u64 / 2 / BLOCK);
        self.runtime.spawn_blocking(move || {
            let runs = inner.find(start, count).unwrap_or_default();
            let mut pieces = runs.iter().flat_map(pieces);
            let fetched = pieces.try_for_each(|piece| {
                let (_turn, _) = inner.fetching.turn(slots_of(&piece));
                match inner.has(&piece) {
                    true => Ok(()),
                    false => inner.fetch(&piece).map(drop),
                }
            });
            if let Err(error) = fetched {
                tracing::debug!(%error, "reading ahead");
            }
            inner.prefetching.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

#[cfg(test)]
impl CommittedBlocks {
    /// Writes the leaf of a region on this disk alone, so that packs have an older one.
    pub fn write_leaf_here(&self, region: u64) {
        self.inner.write_leaf(region).expect("the leaf is written");
    }
}

#[cfg(test)]
mod tests;
