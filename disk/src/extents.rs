//! The committed map of a volume: which pack each block lies in, and where (docs/format/disk-map.md). What was changed last is in
//! memory (`overlay`), everything else in leaves, one for each region, which are written from time to time (`write_back`). It
//! reads no packs, and knows nothing of what the journal has and no commit names yet: that is `map`'s.

mod cache;
mod counts;
mod files;
mod leaf;
mod lookup;
mod overlay;
mod place;
mod table;
mod write_back;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use cache::LeafCache;
use counts::Counts;
use files::Files;
pub use leaf::{LEAF_BYTES_MAX, Leaf, LeafId, Sum};
use overlay::Overlay;
use place::Piece;
pub use place::{Place, REGION_BLOCKS, Run, SLOT_BLOCKS, SLOTS_MAX, VOLUME_BLOCKS_MAX};
use table::{LeafRecord, Table};
pub use write_back::WrittenBack;

use crate::device::DeviceError;

/// Bytes of changes in memory unless asked otherwise: two million of them.
const OVERLAY_BYTES: usize = 64 << 20;
/// Bytes of leaves in memory unless asked otherwise.
const CACHE_BYTES: usize = 64 << 20;
/// Bytes of leaves that are written at a time when there are too many changes. Chosen: they are in memory meanwhile.
const FORCED_BYTES: usize = 8 << 20;

/// Where a map is, and what it may take.
#[derive(Debug, Clone)]
pub struct MapOptions {
    /// The folder of its files, which is there. Nothing else is in it.
    pub folder: PathBuf,
    /// The volume's id.
    pub volume: [u8; 16],
    /// Bytes of changes in memory. One commit more than this may be there.
    pub overlay_bytes: usize,
    /// Bytes of leaves that are kept in memory after they were read.
    pub cache_bytes: usize,
}

impl MapOptions {
    /// The usual ones.
    pub fn new(folder: PathBuf, volume: [u8; 16]) -> Self {
        Self {
            folder,
            volume,
            overlay_bytes: OVERLAY_BYTES,
            cache_bytes: CACHE_BYTES,
        }
    }
}

/// What a map could not do.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// A leaf is not what was written, and nobody has another one. A map that is begun anew from what is committed mends it.
    #[error("The map of region {region} is damaged: {path}")]
    LeafDamaged {
        /// The region.
        region: u64,
        /// Its file, or where that would be.
        path: PathBuf,
    },
    /// What a source gave is not the leaf that counts.
    #[error("What was fetched is not the map of region {region} as it is committed")]
    WrongLeaf {
        /// The region.
        region: u64,
    },
    /// The list of leaves is not what was written. A map that is begun anew from what is committed mends it.
    #[error("{path} is damaged: {reason}")]
    TableDamaged {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A leaf is not on this disk, and could not be fetched.
    #[error("The map of region {region} could not be fetched: {error}")]
    Unavailable {
        /// The region.
        region: u64,
        /// Why not.
        error: DeviceError,
    },
    /// Commits come one after the other.
    #[error("Commit {commit} does not come behind {last}")]
    OutOfOrder {
        /// The one that came.
        commit: u64,
        /// The one before.
        last: u64,
    },
    /// Blocks that no volume has, or a place that no pack has.
    #[error("A change of blocks {start} and {count} behind it is not possible")]
    Impossible {
        /// The first block.
        start: u64,
        /// How many.
        count: u64,
    },
    /// The disk failed.
    #[error("The disk of the map failed: {0}")]
    Io(#[from] io::Error),
}

impl From<MapError> for DeviceError {
    fn from(error: MapError) -> Self {
        match error {
            MapError::Io(error) => Self::Io(error),
            MapError::Unavailable { .. } => Self::Unavailable(error.to_string()),
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// Where leaves are to be had that are not on this disk: packs hold the same bytes.
pub trait LeafSource: Send + Sync {
    /// The leaf of a region, as it is committed; waits for it. None if there is none.
    fn fetch(&self, region: u64) -> Result<Option<Vec<u8>>, DeviceError>;
}

/// No leaf but those on this disk.
pub struct NoSource;

impl LeafSource for NoSource {
    fn fetch(&self, _region: u64) -> Result<Option<Vec<u8>>, DeviceError> {
        Ok(None)
    }
}

/// What a commit says of leaves that a source has: all that is needed to begin a map without this disk's.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// Up to here all commits are in these leaves.
    pub floor: u64,
    /// Regions that have one, each with the commit that it says.
    pub leaves: Vec<(u64, u64)>,
    /// Blocks of them all that refer to a pack, as `CommittedMap::live_in_leaves` had it.
    pub live: Vec<(u32, u32)>,
}

/// One change of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// These blocks lie there.
    Map(Run),
    /// These blocks are zeros.
    Trim {
        /// The first one.
        start: u64,
        /// How many.
        count: u64,
    },
    /// These blocks lie there, as far as they lay, before this commit, in the run that began at `from`: a copy was made of them. What
    /// the same commit maps or trims wins, in whatever order they are given.
    Move {
        /// Where they lie then.
        to: Run,
        /// Where the first of them lay.
        from: Place,
    },
}

/// What a map takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of changes in memory, at most.
    pub overlay_bytes: usize,
    /// Bytes of leaves in memory.
    pub cache_bytes: usize,
    /// Regions that have a leaf.
    pub leaves: usize,
}

/// An open map. Calls that read leaves wait for the disk, and for the source if that is where a leaf is: `missing` tells.
pub struct CommittedMap {
    options: MapOptions,
    source: Arc<dyn LeafSource>,
    files: Files,
    /// As it is on the disk; with what was fetched since.
    table: Table,
    /// Regions whose leaf was fetched since the table was written.
    fetched: BTreeSet<u64>,
    overlay: Overlay,
    /// Blocks of the overlay that refer to a pack.
    pending: Counts,
    cache: LeafCache,
    last: u64,
}

impl CommittedMap {
    /// Opens what is in the folder; an empty one is the map of an empty volume. All commits above `floor` are then to be applied
    /// again, in order, and before anything is looked up. If the table is damaged, `begin` anew.
    pub fn open(options: MapOptions, source: Arc<dyn LeafSource>) -> Result<Self, MapError> {
        let (files, table) = Files::open(&options.folder, options.volume)?;
        Ok(Self::with(options, source, files, table))
    }

    /// Begins anew from leaves that the source has, each fetched when it is needed. What is in the folder is given up.
    pub fn begin(options: MapOptions, source: Arc<dyn LeafSource>, stored: &Stored) -> Result<Self, MapError> {
        let mut table = Table {
            floor: stored.floor,
            ..Table::default()
        };
        for (region, commit) in &stored.leaves {
            let record = LeafRecord {
                file: None,
                commit: *commit,
                sum: Sum::default(),
            };
            table.leaves.insert(*region, record);
        }
        for (pack, blocks) in &stored.live {
            table.counts.set(*pack, *blocks);
        }
        let files = Files::begin(&options.folder, options.volume, &mut table)?;
        Ok(Self::with(options, source, files, table))
    }

    fn with(options: MapOptions, source: Arc<dyn LeafSource>, files: Files, table: Table) -> Self {
        Self {
            source,
            files,
            last: table.floor,
            cache: LeafCache::new(options.cache_bytes),
            options,
            table,
            fetched: BTreeSet::new(),
            overlay: Overlay::default(),
            pending: Counts::default(),
        }
    }

    /// Up to here all commits are durable in leaves: those above it are needed for the next opening.
    pub fn floor(&self) -> u64 {
        self.table.floor
    }

    /// The last commit that was applied.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Where it is.
    pub fn options(&self) -> &MapOptions {
        &self.options
    }

    /// What it takes.
    pub fn usage(&self) -> Usage {
        Usage {
            overlay_bytes: self.overlay.bytes(),
            cache_bytes: self.cache.bytes(),
            leaves: self.table.leaves.len(),
        }
    }

    /// Takes in a commit, with a higher number than all before. A region whose leaf has it already leaves it out. On failure nothing
    /// of it was taken in. Writes leaves first if too many changes are in memory; reads leaves for moves alone.
    pub fn apply(&mut self, commit: u64, updates: &[Update]) -> Result<(), MapError> {
        if commit <= self.last {
            let last = self.last;
            return Err(MapError::OutOfOrder { commit, last });
        }
        updates.iter().try_for_each(check)?;
        if self.overlay.bytes() > self.options.overlay_bytes {
            // Much at once: of the regions that are left then few have to be read again soon.
            while self.overlay.bytes() > self.options.overlay_bytes / 4 * 3 {
                self.write_back(FORCED_BYTES)?;
            }
        }
        let mut moved = Vec::new();
        for update in updates {
            if let Update::Move { to, from } = update {
                self.movable(commit, to, *from, &mut moved)?;
            }
        }
        for run in &moved {
            self.map(commit, run);
        }
        for update in updates {
            match update {
                Update::Map(run) => self.map(commit, run),
                Update::Trim { start, count } => self.trim(commit, *start, *count),
                Update::Move { .. } => {}
            }
        }
        self.last = commit;
        Ok(())
    }

    /// Whether a region's leaf has all changes of this commit.
    fn has(&self, region: u64, commit: u64) -> bool {
        let leaf = self.table.leaves.get(&region);
        leaf.is_some_and(|leaf| leaf.commit >= commit)
    }

    fn map(&mut self, commit: u64, run: &Run) {
        for (region, part) in regions(run.start, run.count) {
            if self.has(region, commit) {
                continue;
            }
            let first = region * u64::from(REGION_BLOCKS) + u64::from(part.start);
            let place = run.place.after((first - run.start) as u32);
            let piece = Piece {
                place: Some(place),
                ..part
            };
            self.pending.add(place.pack, piece.blocks());
            let old = self.overlay.insert(region, commit, piece);
            self.lost(&old);
        }
    }

    /// Touches regions alone that have a leaf or changes: all others are zeros already.
    fn trim(&mut self, commit: u64, start: u64, count: u64) {
        for (region, part) in self.known(start, count) {
            if self.has(region, commit) {
                continue;
            }
            let old = match self.table.leaves.contains_key(&region) {
                true => self.overlay.insert(region, commit, part),
                false => self.overlay.erase(region, part.start, part.end),
            };
            self.lost(&old);
        }
    }

    fn lost(&mut self, old: &[Piece]) {
        for piece in old {
            if let Some(place) = piece.place {
                self.pending.sub(place.pack, piece.blocks());
            }
        }
    }

    /// The parts of a range that lie in regions with a leaf or changes, in order.
    fn known(&self, start: u64, count: u64) -> Vec<(u64, Piece)> {
        let Some(last) = start.checked_add(count).and_then(|end| end.checked_sub(1)) else {
            return Vec::new();
        };
        let blocks = u64::from(REGION_BLOCKS);
        let (from, to) = (start / blocks, last / blocks);
        if count == 0 {
            return Vec::new();
        }
        let mut known: BTreeSet<u64> = self.overlay.regions(from, to).collect();
        known.extend(self.table.leaves.range(from..=to).map(|(region, _)| *region));
        let parts = known.into_iter().map(|region| (region, part(region, start, last)));
        parts.collect()
    }
}

/// The part of a range of blocks, given by its first and its last one, that lies in a region.
fn part(region: u64, start: u64, last: u64) -> Piece {
    let first = region * u64::from(REGION_BLOCKS);
    Piece {
        start: start.saturating_sub(first) as u32,
        end: (last - first + 1).min(REGION_BLOCKS.into()) as u32,
        place: None,
    }
}

/// A range of blocks, region by region.
fn regions(start: u64, count: u64) -> impl Iterator<Item = (u64, Piece)> {
    let (last, blocks) = (start + count - 1, u64::from(REGION_BLOCKS));
    (start / blocks..=last / blocks).map(move |region| (region, part(region, start, last)))
}

fn check(update: &Update) -> Result<(), MapError> {
    let (start, count) = match update {
        Update::Map(run) | Update::Move { to: run, .. } => (run.start, run.count),
        Update::Trim { start, count } => (*start, *count),
    };
    let has_room = match update {
        Update::Map(run) => run.place.has_room(run.count),
        Update::Move { to, from } => to.place.has_room(to.count) && from.has_room(to.count),
        Update::Trim { .. } => true,
    };
    let is_within = start.checked_add(count).is_some_and(|end| end <= VOLUME_BLOCKS_MAX);
    match is_within && has_room {
        true => Ok(()),
        false => Err(MapError::Impossible { start, count }),
    }
}

#[cfg(test)]
mod tests;
