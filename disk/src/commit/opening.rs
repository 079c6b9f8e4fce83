//! A volume from where its root lies: with the map that is on this disk, if that is one of the same history, else with leaves that are
//! fetched when they are needed (docs/format/disk.md §7). What it costs does not grow with the volume.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::cap_index::PackRecord;
use proto::head::RootRef;

use super::compose::Committed;
use super::contents::{HEAD_BYTES, Slots, decode_updates, slots_bytes};
use super::pack_table::{Found, PackTable};
use super::root::{LeafPage, PAGE_REGIONS, ROOT_BYTES_MAX, Root};
use super::{CommitError, PackNumber, Span};
use crate::device::DeviceError;
use crate::extents::{CommittedMap, LeafSource, MapError, MapOptions, Stored, Update};

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

    /// A commit was accepted.
    pub fn advance(&self, committed: &Committed) {
        let mut known = self.lock();
        known.packs = committed.packs.clone();
        known.leaves.clone_from(&committed.leaves);
    }

    /// What it takes to open a pack. Pages of the table are fetched for that, if they are not there.
    pub fn record(&self, number: PackNumber) -> Result<PackRecord, DeviceError> {
        loop {
            let wanted = match self.lock().packs.find(number) {
                Found::Pack(record) => return Ok(record.clone()),
                Found::Fetch(wanted) => wanted,
                Found::Own | Found::Gone => {
                    return Err(DeviceError::Damaged(format!("the disk has no pack {number}")));
                }
            };
            let range = wanted.offset..wanted.offset.saturating_add(wanted.len);
            let page = self.reader.read(&wanted.pack, range)?;
            self.lock().packs.give(&wanted, &page)?;
        }
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
    Ok(Root::decode(
        &reader.read(&at.pack, at.offset..at.offset.saturating_add(at.len))?,
    )?)
}

/// Opens the volume whose root lies at `at`. `is_ours` says that the folder of the map is of the history that this root is of: that no other
/// writer went on meanwhile.
pub fn open(at: &RootRef, reader: Arc<dyn PackReader>, map: MapOptions, is_ours: bool) -> Result<Opened, DeviceError> {
    let root = read_root(at, &*reader)?;
    if root.volume != map.volume {
        return Err(CommitError::malformed("The root", "it is of another disk").into());
    }
    let packs = root.packs(&at.pack)?;
    let mut committed = Committed::new(root, packs, BTreeMap::new());
    let places = Arc::new(Places::new(&committed, reader));
    committed.leaves = leaves(&places, &committed.root)?;
    places.advance(&committed);
    let mut map = local_map(&committed, &places, map, is_ours)?;
    let lists = committed.root.pending.clone();
    for of_commit in lists.chunk_by(|one, other| one.0 == other.0) {
        let (commit, updates) = changes(&places, of_commit)?;
        committed.note(commit, &updates);
        if commit > map.last() {
            map.apply(commit, &updates)?;
        }
    }
    Ok(Opened { committed, map, places })
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
            Ok(map) if (root.floor..=root.commit).contains(&map.floor()) && map.newest_leaf() <= root.commit => {
                return Ok(map);
            }
            // A map of an older state than the lists reach back to, or of a commit that was not accepted.
            Ok(_) => {}
            Err(error @ MapError::Io(_)) => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "the map of a disk is begun anew"),
        }
    }
    let stored = Stored {
        floor: root.floor,
        leaves: committed
            .leaves
            .iter()
            .map(|(region, (commit, _))| (*region, *commit))
            .collect(),
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
