//! What is read but not yet recorded: chunks in packs on their way, and the files that wait for those packs.
//!
//! Kept in memory only. After a crash the files are read again, and every chunk that was recorded is found again.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::cap_index::{ChunkSlot, Extent};
use proto::id::{ChunkId, VersionId};

/// Number of a filling of the packer within a run: one large pack, or the small packs that its rest was cut into.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PackNumber(pub u64);

/// A file that was read to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadFile {
    /// Its version.
    pub version: VersionId,
    pub path: Vec<u8>,
    /// Bytes by length.
    pub bytes: u64,
    /// What it is made of; empty when its content is inline.
    pub extents: Vec<Extent>,
}

/// What a run has in flight.
#[derive(Default)]
pub struct InFlight(Mutex<State>);

#[derive(Default)]
struct State {
    chunks: HashMap<ChunkId, PackNumber>,
    packs: HashMap<PackNumber, PackOnItsWay>,
    files: HashMap<VersionId, WaitingFile>,
    ready: Vec<ReadFile>,
}

struct PackOnItsWay {
    parts_left: usize,
    waiting: Vec<VersionId>,
}

struct WaitingFile {
    packs_left: usize,
    file: ReadFile,
}

impl InFlight {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pack on its way that has a chunk.
    pub fn chunk(&self, id: ChunkId) -> Option<PackNumber> {
        self.state().chunks.get(&id).copied()
    }

    /// A pack was opened.
    pub fn open(&self, pack: PackNumber) {
        self.state().packs.insert(
            pack,
            PackOnItsWay {
                parts_left: 1,
                waiting: Vec::new(),
            },
        );
    }

    /// A chunk went into an open pack.
    pub fn add_chunk(&self, id: ChunkId, pack: PackNumber) {
        self.state().chunks.insert(id, pack);
    }

    /// A pack goes out as so many packs.
    pub fn split(&self, pack: PackNumber, parts: usize) {
        if let Some(pack) = self.state().packs.get_mut(&pack) {
            pack.parts_left = parts;
        }
    }

    /// A file was read; its chunks are in these packs and in packs that are recorded.
    pub fn add_file(&self, file: ReadFile, packs: &BTreeSet<PackNumber>) {
        let mut state = self.state();
        let mut packs_left = 0;
        for pack in packs {
            if let Some(pack) = state.packs.get_mut(pack) {
                pack.waiting.push(file.version);
                packs_left += 1;
            }
        }
        if packs_left == 0 {
            state.ready.push(file);
        } else {
            state.files.insert(file.version, WaitingFile { packs_left, file });
        }
    }

    /// A part of a pack is being recorded: the files that this makes complete, to be recorded with it. Files read from
    /// now on do not wait for the pack.
    pub fn recording(&self, pack: PackNumber) -> Vec<ReadFile> {
        let mut state = self.state();
        let Some(on_its_way) = state.packs.get_mut(&pack) else {
            return Vec::new();
        };
        on_its_way.parts_left -= 1;
        if on_its_way.parts_left > 0 {
            return Vec::new();
        }
        let waiting = state.packs.remove(&pack).map(|pack| pack.waiting).unwrap_or_default();
        let mut complete = Vec::new();
        for version in waiting {
            let Some(file) = state.files.get_mut(&version) else {
                continue;
            };
            file.packs_left -= 1;
            if file.packs_left == 0 {
                complete.extend(state.files.remove(&version).map(|waiting| waiting.file));
            }
        }
        complete
    }

    /// These chunks are recorded: the catalog knows them from now on.
    pub fn recorded(&self, slots: &[ChunkSlot]) {
        let mut state = self.state();
        for slot in slots {
            state.chunks.remove(&slot.id);
        }
    }

    /// Files whose chunks are all recorded, once there are `at_least` of them.
    pub fn take_ready(&self, at_least: usize) -> Vec<ReadFile> {
        let mut state = self.state();
        if state.ready.len() < at_least {
            Vec::new()
        } else {
            std::mem::take(&mut state.ready)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u64) -> ReadFile {
        ReadFile {
            version: VersionId(version),
            path: Vec::new(),
            bytes: 1,
            extents: Vec::new(),
        }
    }

    #[test]
    fn a_file_is_complete_with_the_last_part_of_its_last_pack() {
        let in_flight = InFlight::default();
        let (first, second) = (PackNumber(1), PackNumber(2));
        in_flight.open(first);
        in_flight.open(second);
        in_flight.add_file(file(1), &BTreeSet::from([first, second]));
        in_flight.add_file(file(2), &BTreeSet::from([second]));
        in_flight.split(second, 2);
        assert_eq!(in_flight.recording(second), []);
        assert_eq!(in_flight.recording(second), [file(2)]);
        assert_eq!(in_flight.recording(first), [file(1)]);
        assert_eq!(in_flight.take_ready(1), []);
    }

    #[test]
    fn a_file_whose_chunks_are_all_recorded_is_ready_at_once() {
        let in_flight = InFlight::default();
        in_flight.open(PackNumber(1));
        in_flight.recording(PackNumber(1));
        in_flight.add_file(file(1), &BTreeSet::from([PackNumber(1)]));
        assert_eq!(in_flight.take_ready(2), []);
        assert_eq!(in_flight.take_ready(1), [file(1)]);
    }

    #[test]
    fn a_chunk_on_its_way_is_known_until_the_catalog_knows_it() {
        let in_flight = InFlight::default();
        let id = ChunkId([1; 16]);
        in_flight.add_chunk(id, PackNumber(1));
        assert_eq!(in_flight.chunk(id), Some(PackNumber(1)));
        in_flight.recorded(&[ChunkSlot {
            id,
            offset: 0,
            stored_len: 1,
            raw_len: 1,
        }]);
        assert_eq!(in_flight.chunk(id), None);
    }
}
