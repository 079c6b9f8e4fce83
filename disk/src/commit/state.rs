//! A volume as of a commit, but for its map: its root, its packs, where its leaves lie, and which regions have changes that no leaf has.

use std::collections::{BTreeMap, BTreeSet};

use super::Span;
use super::pack_table::PackTable;
use super::root::Root;
use crate::extents::{REGION_BLOCKS, Update};

/// A volume as of its last commit, but for its map.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Its root.
    pub root: Root,
    /// Its packs.
    pub packs: PackTable,
    /// Leaves that lie in packs: the commit that each says, and where it is.
    pub leaves: BTreeMap<u64, (u64, Span)>,
    /// Regions with changes that no leaf in a pack has: the first commit of these.
    dirty: BTreeMap<u64, u64>,
}

impl Committed {
    /// A volume as a root has it, with the leaves that its pages name.
    pub fn new(root: Root, packs: PackTable, leaves: BTreeMap<u64, (u64, Span)>) -> Self {
        Self {
            root,
            packs,
            leaves,
            dirty: BTreeMap::new(),
        }
    }

    /// This volume with the content of one of its snapshots, for its next commit.
    pub fn going_back(&self, snapshot: Self) -> Self {
        let mut root = self.root.clone();
        (root.floor, root.pages, root.pending) = (snapshot.root.floor, snapshot.root.pages, snapshot.root.pending);
        (root.size, root.rolled_back) = (snapshot.root.size, root.commit + 1);
        Self {
            root,
            packs: self.packs.clone(),
            leaves: snapshot.leaves,
            dirty: snapshot.dirty,
        }
    }

    /// The same, with an empty table of packs.
    pub(super) fn without_packs(&self) -> Self {
        Self {
            root: self.root.clone(),
            packs: PackTable::default(),
            leaves: self.leaves.clone(),
            dirty: self.dirty.clone(),
        }
    }

    /// A leaf of this region has all its changes.
    pub(super) fn is_written(&mut self, region: u64) {
        self.dirty.remove(&region);
    }

    /// Notes what a commit changed that is only in a list.
    pub fn note(&mut self, commit: u64, updates: &[Update]) {
        let mut noted = BTreeSet::new();
        for update in updates {
            let regions = regions(update);
            match update {
                Update::Map(_) | Update::Move { .. } => noted.extend(regions),
                // Trims of all that is free go over many regions that never held anything.
                Update::Trim { .. } => {
                    noted.extend(self.leaves.range(regions.clone()).map(|(region, _)| *region));
                    noted.extend(self.dirty.range(regions).map(|(region, _)| *region));
                }
            }
        }
        for region in noted {
            let is_in_leaf = self.leaves.get(&region).is_some_and(|(of, _)| *of >= commit);
            if !is_in_leaf {
                self.dirty.entry(region).or_insert(commit);
            }
        }
    }

    /// Up to here all is in leaves.
    pub(super) fn floor(&self) -> u64 {
        let oldest = self.dirty.values().min();
        oldest.map_or(self.root.commit, |first| first - 1)
    }

    /// Regions in the order in which their changes are due, each with the first commit of these.
    pub(super) fn due(&self) -> Vec<(u64, u64)> {
        let mut due: Vec<(u64, u64)> = self.dirty.iter().map(|(region, first)| (*first, *region)).collect();
        due.sort_unstable();
        due
    }
}

/// The regions that an update changes. Of a trim they may be many that hold nothing.
fn regions(update: &Update) -> std::ops::RangeInclusive<u64> {
    let (start, count) = match update {
        Update::Map(run) | Update::Move { to: run, .. } => (run.start, run.count),
        Update::Trim { start, count } => (*start, *count),
    };
    let blocks = u64::from(REGION_BLOCKS);
    start / blocks..=start.saturating_add(count.saturating_sub(1)) / blocks
}
