//! A volume from where its root lies: with the map that is on this disk, if that is one of the same history, else with leaves that are
//! fetched when they are needed (docs/format/disk.md §7). What it costs does not grow with the volume.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::cap_index::PackRecord;
use proto::head::RootRef;

use super::compose::Prepared;
use super::contents::{HEAD_BYTES, Slots, UPDATES_HEAD_BYTES, decode_updates, slots_bytes, updates_bytes};
use super::lineage::ROOT_BYTES_MAX;
use super::pack_table::{Found, PackTable, Wanted};
use super::root::{LeafPage, PAGE_REGIONS, Root};
use super::state::Committed;
use super::{CommitError, PackNumber, Span};
use crate::device::DeviceError;
use crate::extents::{CommittedMap, LeafSource, MapError, MapOptions, Stored, Update};

/// Records that are told of at once. Chosen: half a megabyte.
const PACKS_AT_ONCE: usize = 1000;

/// Reads out of packs, wherever they are. Waits.
pub trait PackReader: Send + Sync + 'static {
    /// Bytes of a pack's plaintext, verified: all of the range or an error.
    fn read(&self, pack: &PackRecord, range: Range<u32>) -> Result<Vec<u8>, DeviceError>;
}

impl From<CommitError> for DeviceError {
    fn from(error: CommitError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// What it takes to find things in packs: the table of packs, and where leaves lie.
pub struct Places {
    reader: Arc<dyn PackReader>,
    known: Mutex<Known>,
}

struct Known {
    packs: PackTable,
    leaves: BTreeMap<u64, (u64, Span)>,
}

impl Places {
    /// Of a volume as of a commit.
    pub fn new(committed: &Committed, reader: Arc<dyn PackReader>) -> Self {
        Self {
            reader,
            known: Mutex::new(Known {
                packs: committed.packs.clone(),
                leaves: committed.leaves.clone(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where packs are read.
    pub fn reader(&self) -> Arc<dyn PackReader> {
        self.reader.clone()
    }

    /// A commit was accepted.
    pub fn advance(&self, committed: &Committed) {
        let mut known = self.lock();
        known.packs = committed.packs.clone();
        known.leaves.clone_from(&committed.leaves);
    }

    /// What it takes to open a pack. Pages of the table are fetched for that, if they are not there.
    pub fn record(&self, number: PackNumber) -> Result<PackRecord, DeviceError> {
        let record = self.record_if_there(number)?;
        record.ok_or_else(|| DeviceError::Damaged(format!("the disk has no pack {number}")))
    }

    /// The same, of a pack that may be gone.
    pub fn record_if_there(&self, number: PackNumber) -> Result<Option<PackRecord>, DeviceError> {
        loop {
            let wanted = match self.lock().packs.find(number) {
                Found::Pack(record) => return Ok(Some(record.clone())),
                Found::Fetch(wanted) => wanted,
                Found::Own | Found::Gone => return Ok(None),
            };
            let page = self.page(&wanted)?;
            self.lock().packs.give(&wanted, &page)?;
        }
    }

    /// The packs of these numbers that are there, by the thousand.
    pub fn each(
        &self,
        numbers: Range<PackNumber>,
        each: &mut dyn FnMut(&[PackRecord]) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let mut records = Vec::new();
        for number in numbers {
            records.extend(self.record_if_there(number)?);
            if records.len() == PACKS_AT_ONCE {
                each(&records)?;
                records.clear();
            }
        }
        each(&records)
    }

    /// Reads a part of a pack.
    pub fn read(&self, span: Span) -> Result<Vec<u8>, DeviceError> {
        let record = self.record(span.pack)?;
        self.read_of(&record, span.offset..span.offset.saturating_add(span.len))
    }

    /// The list of a pack's slots.
    pub fn slots(&self, record: &PackRecord) -> Result<Slots, DeviceError> {
        // Most lists are in the first segment, which has to be opened for the head.
        let bytes = slots_bytes(&self.read_of(record, 0..HEAD_BYTES as u32)?)?;
        let bytes = u32::try_from(bytes).map_err(|_| CommitError::malformed("A pack", "it has too many slots"))?;
        Ok(Slots::decode(&self.read_of(record, 0..bytes)?)?)
    }

    /// What a pack's own list says that it changes.
    pub fn updates(&self, record: &PackRecord, slots: &Slots) -> Result<Vec<Update>, DeviceError> {
        let begin = slots.end();
        let read = |bytes: u32| self.read_of(record, begin..begin.saturating_add(bytes));
        let bytes = updates_bytes(&read(UPDATES_HEAD_BYTES as u32)?)?;
        Ok(decode_updates(&read(bytes)?)?.1)
    }

    /// Reads pages of the table until something of it is there: all that it says it wants first.
    pub fn with_packs<T>(
        &self,
        packs: &mut PackTable,
        mut ask: impl FnMut(&mut PackTable) -> Result<T, Wanted>,
    ) -> Result<T, DeviceError> {
        loop {
            match ask(packs) {
                Ok(done) => return Ok(done),
                Err(wanted) => packs.give(&wanted, &self.page(&wanted)?)?,
            }
        }
    }

    /// A page of the table.
    pub fn page(&self, wanted: &Wanted) -> Result<Vec<u8>, DeviceError> {
        let range = wanted.offset..wanted.offset.saturating_add(wanted.len);
        self.read_of(&wanted.pack, range)
    }

    /// The same, of one whose record is known.
    pub fn read_of(&self, record: &PackRecord, range: Range<u32>) -> Result<Vec<u8>, DeviceError> {
        let (begin, len) = (range.start, range.len());
        let read = self.reader.read(record, range)?;
        match read.len() == len {
            true => Ok(read),
            false => Err(DeviceError::Damaged(format!(
                "of {len} bytes of a pack from {begin} on, {} came",
                read.len()
            ))),
        }
    }
}

impl LeafSource for Places {
    fn fetch(&self, region: u64) -> Result<Option<Vec<u8>>, DeviceError> {
        let place = self.lock().leaves.get(&region).copied();
        place.map(|(_, span)| self.read(span)).transpose()
    }
}

/// An open volume, but for its journal.
pub struct Opened {
    /// As of the last commit.
    pub committed: Committed,
    /// Where each block lies.
    pub map: CommittedMap,
    /// Where packs and leaves lie.
    pub places: Arc<Places>,
}

/// The root that lies there.
pub fn read_root(at: &RootRef, reader: &dyn PackReader) -> Result<Root, DeviceError> {
    if at.len > ROOT_BYTES_MAX {
        return Err(CommitError::malformed("The root", "it is longer than any").into());
    }
    let read = reader.read(&at.pack, at.offset..at.offset.saturating_add(at.len))?;
    Ok(Root::decode(&read)?)
}

/// Opens the volume whose root lies at `at`. `is_ours` says that the folder of the map is of the history that this root is of: that no other
/// writer went on meanwhile. A map there of a newer state than the root is refused.
pub fn open(
    at: &RootRef,
    reader: Arc<dyn PackReader>,
    mut map: MapOptions,
    is_ours: bool,
) -> Result<Opened, DeviceError> {
    let (mut committed, places) = begin_at(at, reader)?;
    if committed.root.volume != map.volume {
        return Err(CommitError::malformed("The root", "it is of another disk").into());
    }
    map.volume = committed.root.line();
    map.folder = map_folder(&map.folder, committed.root.rolled_back);
    durable::create_folders(&map.folder)?;
    let mut map = local_map(&committed, &places, map, is_ours)?;
    replay(
        &places,
        &mut committed,
        &mut |commit, updates| match commit > map.last() {
            true => Ok(map.apply(commit, updates)?),
            false => Ok(()),
        },
    )?;
    Ok(Opened { committed, map, places })
}

/// Where the map of a volume is that went back to a snapshot with this commit last: what is in the folder of before is of another state.
pub fn map_folder(folder: &Path, rolled_back: u64) -> PathBuf {
    match rolled_back {
        0 => folder.to_owned(),
        commit => folder.with_file_name(format!("map-{commit}")),
    }
}

/// A volume as of the root that lies at `at`, without a map.
pub fn state_at(at: &RootRef, reader: Arc<dyn PackReader>) -> Result<Committed, DeviceError> {
    let (mut committed, places) = begin_at(at, reader)?;
    replay(&places, &mut committed, &mut |_, _| Ok(()))?;
    Ok(committed)
}

/// The root that lies at `at`, and each pack of its own that its table names, by the thousand: those that it borrows left out. Reads nothing but the
/// root and the table.
pub fn each_named(
    at: &RootRef,
    reader: Arc<dyn PackReader>,
    each: &mut dyn FnMut(&[PackRecord]) -> Result<(), DeviceError>,
) -> Result<Root, DeviceError> {
    let root = read_root(at, &*reader)?;
    let packs = root.packs(&at.pack)?;
    let numbers = root.borrowed..packs.next();
    let places = Places::new(&Committed::new(root.clone(), packs, BTreeMap::new()), reader);
    places.each(numbers, each)?;
    Ok(root)
}

/// A commit that was delivered before, out of its packs.
pub fn prepared_at(at: &RootRef, reader: Arc<dyn PackReader>) -> Result<Prepared, DeviceError> {
    let (mut committed, places) = begin_at(at, reader)?;
    let (own, mut updates) = (committed.root.commit, Vec::new());
    replay(&places, &mut committed, &mut |commit, of_commit| {
        if commit == own {
            updates.extend_from_slice(of_commit);
        }
        Ok(())
    })?;
    Ok(Prepared {
        at: at.clone(),
        made: committed.packs.known_figures(),
        committed,
        updates,
        bytes: 0,
    })
}

/// The map of a state, begun anew from leaves in packs.
pub fn map_anew(committed: &Committed, places: &Arc<Places>, map: MapOptions) -> Result<CommittedMap, DeviceError> {
    let mut map = begin(committed, places, map)?;
    let mut noted = committed.clone();
    replay(places, &mut noted, &mut |commit, updates| {
        Ok(map.apply(commit, updates)?)
    })?;
    Ok(map)
}

fn begin_at(at: &RootRef, reader: Arc<dyn PackReader>) -> Result<(Committed, Arc<Places>), DeviceError> {
    let root = read_root(at, &*reader)?;
    let packs = root.packs(&at.pack)?;
    let mut committed = Committed::new(root, packs, BTreeMap::new());
    let places = Arc::new(Places::new(&committed, reader));
    committed.leaves = leaves(&places, &committed.root)?;
    places.advance(&committed);
    Ok((committed, places))
}

/// Takes the changes of a commit.
type TakeCommit<'a> = dyn FnMut(u64, &[Update]) -> Result<(), DeviceError> + 'a;

/// All changes that no leaf has, commit by commit.
fn replay(places: &Places, committed: &mut Committed, each: &mut TakeCommit<'_>) -> Result<(), DeviceError> {
    let lists = committed.root.pending.clone();
    for of_commit in lists.chunk_by(|one, other| one.0 == other.0) {
        let (commit, updates) = changes(places, of_commit)?;
        committed.note(commit, &updates);
        each(commit, &updates)?;
    }
    Ok(())
}

fn leaves(places: &Places, root: &Root) -> Result<BTreeMap<u64, (u64, Span)>, DeviceError> {
    let mut leaves = BTreeMap::new();
    for (number, span) in &root.pages {
        let first = u64::from(*number) * PAGE_REGIONS;
        for (region, commit, leaf) in LeafPage::decode(&places.read(*span)?)?.leaves {
            leaves.insert(first + u64::from(region), (commit, leaf));
        }
    }
    Ok(leaves)
}

/// The map of this disk, where that can be used, else one of leaves in packs.
fn local_map(
    committed: &Committed,
    places: &Arc<Places>,
    options: MapOptions,
    is_ours: bool,
) -> Result<CommittedMap, DeviceError> {
    let root = &committed.root;
    if is_ours {
        match CommittedMap::open(options.clone(), places.clone()) {
            // Beginning anew would give up leaves that somebody may still be looking for: this is no state to go on from here.
            Ok(map) if map.floor() > root.commit || map.newest_leaf() > root.commit => {
                let newest = map.floor().max(map.newest_leaf());
                let found = format!("the map in {} is of commit {newest}", options.folder.display());
                return Err(DeviceError::Damaged(format!(
                    "{found}, and the root of {}",
                    root.commit
                )));
            }
            Ok(map) if map.floor() >= root.floor => return Ok(map),
            // A map of an older state than the lists reach back to.
            Ok(_) => {}
            Err(error @ MapError::Io(_)) => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "the map of a disk is begun anew"),
        }
    }
    begin(committed, places, options)
}

/// A map of leaves in packs: none is here yet.
fn begin(committed: &Committed, places: &Arc<Places>, options: MapOptions) -> Result<CommittedMap, DeviceError> {
    let leaves = committed.leaves.iter();
    let stored = Stored {
        floor: committed.root.floor,
        leaves: leaves.map(|(region, (commit, _))| (*region, *commit)).collect(),
        live: Vec::new(),
    };
    Ok(CommittedMap::begin(options, places.clone(), &stored)?)
}

/// The changes of a commit, out of all its lists.
fn changes(places: &Places, lists: &[(u64, Span)]) -> Result<(u64, Vec<Update>), DeviceError> {
    let (mut last, mut changes) = (0, Vec::new());
    for (commit, span) in lists {
        let (of, updates) = decode_updates(&places.read(*span)?)?;
        if of != *commit {
            return Err(CommitError::malformed("A list of changes", "it is of another commit").into());
        }
        last = of;
        changes.extend(updates);
    }
    Ok((last, changes))
}
