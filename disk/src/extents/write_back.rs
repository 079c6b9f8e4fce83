//! Writing leaves: those with the oldest changes first, all of what is in memory of a region at once. First the leaves are durable,
//! then the table that names them: a cut leaves the state before or the one after it.

use std::collections::{BTreeMap, BTreeSet};

use super::leaf::{Leaf, LeafId};
use super::lookup::{count, gaps, laid_over};
use super::place::{Piece, REGION_BLOCKS};
use super::table::{LeafRecord, TableFile, TableKind};
use super::{CommittedMap, MapError, files};

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WrittenBack {
    /// Regions that have another leaf than before, or none any more.
    pub regions: Vec<u64>,
    /// Bytes of these leaves.
    pub bytes: usize,
}

/// Leaves that are to be written.
#[derive(Default)]
struct Staged {
    leaves: Vec<(u64, Option<Leaf>)>,
    regions: BTreeSet<u64>,
    /// By how much the counts of packs change.
    counts: BTreeMap<u32, i64>,
    bytes: usize,
}

impl CommittedMap {
    /// Writes leaves of about so many bytes, one at least if there are changes: those whose changes are the oldest. A region whose leaf
    /// cannot be had now stays as it is, and is an error only if there is nothing else. On failure all changes are still there.
    pub fn write_back(&mut self, bytes_max: usize) -> Result<WrittenBack, MapError> {
        let staged = self.stage(bytes_max)?;
        self.write_staged(staged)
    }

    /// Writes the leaves of these regions, as far as they have changes in memory. On failure all changes are still there.
    pub fn write_regions(&mut self, regions: &[u64]) -> Result<WrittenBack, MapError> {
        let mut staged = Staged::default();
        for region in regions {
            if self.overlay.regions(*region, *region).next().is_some() {
                self.stage_region(*region, usize::MAX, &mut staged)?;
            }
        }
        self.write_staged(staged)
    }

    fn write_staged(&mut self, staged: Staged) -> Result<WrittenBack, MapError> {
        let oldest = self.overlay.oldest_but(&staged.regions);
        // All before the oldest change that stays is in leaves.
        let floor = oldest.map_or(self.last, |since| since - 1).max(self.table.floor);
        if staged.leaves.is_empty() && self.fetched.is_empty() && floor == self.table.floor {
            return Ok(WrittenBack::default());
        }
        let leaves = staged.leaves.iter().map(|(region, leaf)| (*region, leaf.as_ref()));
        let written = self.files.write_leaves(leaves)?;
        let mut records: BTreeMap<u64, Option<LeafRecord>> = BTreeMap::new();
        for region in &self.fetched {
            records.insert(*region, self.table.leaves.get(region).copied());
        }
        records.extend(written);
        let counts = staged.counts.iter().map(|(pack, change)| {
            let blocks = i64::from(self.table.counts.get(*pack)) + change;
            (*pack, blocks.clamp(0, u32::MAX.into()) as u32)
        });
        let changes = TableFile {
            kind: TableKind::Changes,
            number: self.table.number + 1,
            floor,
            leaves: records.into_iter().collect(),
            counts: counts.collect(),
        };
        self.files.save_changes(&changes)?;
        let done = WrittenBack {
            regions: staged.regions.iter().copied().collect(),
            bytes: staged.bytes,
        };
        self.is_written(&changes, staged);
        self.files.fold(&self.table)?;
        Ok(done)
    }

    fn stage(&mut self, bytes_max: usize) -> Result<Staged, MapError> {
        let (mut staged, mut failure) = (Staged::default(), None);
        let mut age = (0, 0);
        while let Some(next) = self.overlay.oldest_after(age) {
            age = next;
            match self.stage_region(age.1, bytes_max, &mut staged) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error @ MapError::Io(_)) => return Err(error),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure.filter(|_| staged.leaves.is_empty()) {
            Some(error) => Err(error),
            None => Ok(staged),
        }
    }

    /// False if there is no room for its leaf.
    fn stage_region(&mut self, region: u64, bytes_max: usize, staged: &mut Staged) -> Result<bool, MapError> {
        let over = self.overlay.find(region, 0, REGION_BLOCKS);
        let whole = Piece {
            start: 0,
            end: REGION_BLOCKS,
            place: None,
        };
        let old = self.leaf(region)?;
        let pieces = laid_over(old.as_deref(), &over, &gaps(&over, &whole));
        let volume = self.options.volume;
        let leaf = Leaf::build(&LeafId { volume, region }, self.last, &pieces);
        let bytes = leaf.as_ref().map_or(0, |leaf| leaf.bytes().len());
        if !staged.leaves.is_empty() && staged.bytes + bytes > bytes_max {
            return Ok(false);
        }
        count(&pieces, |pack, blocks| {
            *staged.counts.entry(pack).or_default() += i64::from(blocks);
        });
        let old = old.map(|old| old.pieces()).unwrap_or_default();
        count(&old, |pack, blocks| {
            *staged.counts.entry(pack).or_default() -= i64::from(blocks);
        });
        staged.bytes += bytes;
        staged.regions.insert(region);
        staged.leaves.push((region, leaf));
        Ok(true)
    }

    /// The table names these leaves: they take the place of changes in memory, and of older ones.
    fn is_written(&mut self, changes: &TableFile, staged: Staged) {
        for (region, leaf) in staged.leaves {
            let over = self.overlay.find(region, 0, REGION_BLOCKS);
            count(&over, |pack, blocks| self.pending.sub(pack, blocks));
            self.overlay.remove(region);
            if let Some(file) = self.table.leaves.get(&region).and_then(|record| record.file) {
                files::remove(&self.files.leaf_path(region, file));
            }
            match leaf {
                Some(leaf) => self.cache.put(region, leaf.into()),
                None => self.cache.remove(region),
            }
        }
        self.fetched.clear();
        self.table.take(changes);
    }
}
