//! What is asked of a map: where blocks lie, leaves as bytes, and how many blocks refer to each pack.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::counts::Counts;
use super::leaf::{Leaf, LeafId};
use super::place::{Piece, Place, REGION_BLOCKS, Run, push};
use super::table::LeafRecord;
use super::{CommittedMap, MapError, regions};

impl CommittedMap {
    /// Where blocks of a range lie, in order; what lies between is zeros. Costs nothing for regions without a leaf or changes.
    pub fn find(&mut self, start: u64, count: u64) -> Result<Vec<Run>, MapError> {
        let mut found: Vec<Run> = Vec::new();
        for (region, part) in self.known(start, count) {
            let first = region * u64::from(REGION_BLOCKS);
            for piece in self.pieces(region, part.start, part.end)? {
                let Some(place) = piece.place else { continue };
                let start = first + u64::from(piece.start);
                let count = u64::from(piece.blocks());
                match found.last_mut() {
                    // Runs end with their region in leaves alone.
                    Some(last)
                        if last.end() == start
                            && last.place.has_room(last.count + count)
                            && last.place.after(last.count as u32) == place =>
                    {
                        last.count += count;
                    }
                    _ => found.push(Run { start, count, place }),
                }
            }
        }
        Ok(found)
    }

    /// Regions whose leaf would have to be fetched from the source to look these blocks up. Who cannot wait fetches them elsewhere,
    /// and gives them to `load_leaf`.
    pub fn missing(&self, start: u64, count: u64) -> Vec<u64> {
        let is_missing = |(region, part): &(u64, Piece)| {
            self.is_elsewhere(*region) && !gaps(&self.overlay.find(*region, part.start, part.end), part).is_empty()
        };
        let parts = self.known(start, count).into_iter();
        parts.filter(is_missing).map(|(region, _)| region).collect()
    }

    /// Whether a region has a leaf that would have to be fetched from the source.
    pub fn is_elsewhere(&self, region: u64) -> bool {
        let leaf = self.table.leaves.get(&region);
        leaf.is_some_and(|leaf| leaf.file.is_none()) && !self.cache.has(region)
    }

    /// Regions whose leaf the next `apply` may have to fetch, as too many changes are in memory. Who cannot wait does so before.
    pub fn needed_by_apply(&self) -> Vec<u64> {
        if self.overlay.bytes() <= self.options.overlay_bytes {
            return Vec::new();
        }
        let changed = self.overlay.regions(0, u64::MAX);
        changed.filter(|region| self.is_elsewhere(*region)).collect()
    }

    /// The leaf of a region as it is kept, without what is in memory alone; none if there is none.
    pub fn leaf_bytes(&mut self, region: u64) -> Result<Option<Vec<u8>>, MapError> {
        let leaf = self.leaf(region)?;
        Ok(leaf.map(|leaf| leaf.bytes().to_vec()))
    }

    /// The commit up to which the leaf of a region has everything; none if there is no leaf.
    pub fn leaf_commit(&self, region: u64) -> Option<u64> {
        self.table.leaves.get(&region).map(|record| record.commit)
    }

    /// The highest commit that any leaf says; 0 if there is none.
    pub fn newest_leaf(&self) -> u64 {
        let commits = self.table.leaves.values().map(|record| record.commit);
        commits.max().unwrap_or(0)
    }

    /// Takes a leaf that was fetched. It has to be the one that counts.
    pub fn load_leaf(&mut self, region: u64, bytes: Vec<u8>) -> Result<(), MapError> {
        match self.table.leaves.get(&region).copied() {
            Some(record) => self.adopt(region, record, bytes).map(drop),
            None => Err(MapError::WrongLeaf { region }),
        }
    }

    /// Blocks that refer to each pack, by number; none refers to those that are left out. While changes are in memory alone a pack
    /// may refer to blocks that lie elsewhere by now: their old place counts until their leaf is written. So this is never too low.
    pub fn live(&self) -> Vec<(u32, u32)> {
        let mut live = Counts::default();
        let all = self.table.counts.iter().chain(self.pending.iter());
        all.for_each(|(pack, blocks)| live.add(pack, blocks));
        live.iter().collect()
    }

    /// The same, exactly: reads the leaves of all regions that have changes.
    pub fn live_exactly(&mut self) -> Result<Vec<(u32, u32)>, MapError> {
        let mut live = Counts::default();
        self.live().iter().for_each(|(pack, blocks)| live.add(*pack, *blocks));
        let changed: Vec<u64> = self.overlay.regions(0, u64::MAX).collect();
        for region in changed {
            let Some(leaf) = self.leaf(region)? else { continue };
            for over in self.overlay.find(region, 0, REGION_BLOCKS) {
                let mut under = Vec::new();
                leaf.find(over.start, over.end, &mut under);
                count(&under, |pack, blocks| live.sub(pack, blocks));
            }
        }
        Ok(live.iter().collect())
    }

    /// The same of leaves alone: what a commit says beside the leaves that it carries.
    pub fn live_in_leaves(&self) -> Vec<(u32, u32)> {
        self.table.counts.iter().collect()
    }

    /// Regions that have a leaf.
    pub fn leaf_regions(&self) -> Vec<u64> {
        self.table.leaves.keys().copied().collect()
    }

    /// Adds how many blocks of a region's leaf refer to each pack.
    pub fn count_leaf(&mut self, region: u64, counted: &mut BTreeMap<u32, u32>) -> Result<(), MapError> {
        if let Some(leaf) = self.leaf(region)? {
            count(&leaf.pieces(), |pack, blocks| {
                *counted.entry(pack).or_default() += blocks
            });
        }
        Ok(())
    }

    /// What `count_leaf` came to for all regions, between two changes of the map.
    pub fn take_counts(&mut self, counted: &BTreeMap<u32, u32>) -> Result<(), MapError> {
        let counted_pairs = counted.iter().map(|(pack, blocks)| (*pack, *blocks));
        if !counted_pairs.clone().eq(self.table.counts.iter()) {
            let mut counts = Counts::default();
            counted_pairs.for_each(|(pack, blocks)| counts.set(pack, blocks));
            self.table.counts = counts;
            self.files.write_whole(&self.table)?;
            self.fetched.clear();
        }
        Ok(())
    }

    /// Counts the blocks of all leaves anew, which reads them all. Whether that is what was known; if not, it is from now on.
    pub fn recount(&mut self) -> Result<bool, MapError> {
        let mut counted = Counts::default();
        let regions: Vec<u64> = self.table.leaves.keys().copied().collect();
        for region in regions {
            if let Some(leaf) = self.leaf(region)? {
                count(&leaf.pieces(), |pack, blocks| counted.add(pack, blocks));
            }
        }
        let was_right = counted.iter().eq(self.table.counts.iter());
        if !was_right {
            self.table.counts = counted;
            self.files.write_whole(&self.table)?;
            self.fetched.clear();
        }
        Ok(was_right)
    }

    /// What a commit's move applies to.
    pub(super) fn movable(&mut self, commit: u64, to: &Run, from: Place, moved: &mut Vec<Run>) -> Result<(), MapError> {
        for (region, part) in regions(to.start, to.count) {
            if self.has(region, commit) {
                continue;
            }
            let first = region * u64::from(REGION_BLOCKS);
            for piece in self.pieces(region, part.start, part.end)? {
                let start = first + u64::from(piece.start);
                let end = start + u64::from(piece.blocks());
                if piece.place == Some(from.after((start - to.start) as u32)) {
                    moved.push(to.within(start, end));
                }
            }
        }
        Ok(())
    }

    /// What blocks of a region are, in order. The leaf is read only if it is needed.
    pub(super) fn pieces(&mut self, region: u64, start: u32, end: u32) -> Result<Vec<Piece>, MapError> {
        let over = self.overlay.find(region, start, end);
        let whole = Piece {
            start,
            end,
            place: None,
        };
        let gaps = gaps(&over, &whole);
        if gaps.is_empty() {
            return Ok(over);
        }
        let leaf = self.leaf(region)?;
        Ok(laid_over(leaf.as_deref(), &over, &gaps))
    }

    /// The leaf that counts, from memory, from the disk or from the source.
    pub(super) fn leaf(&mut self, region: u64) -> Result<Option<Arc<Leaf>>, MapError> {
        let Some(record) = self.table.leaves.get(&region).copied() else {
            return Ok(None);
        };
        if let Some(leaf) = self.cache.get(region) {
            return Ok(Some(leaf));
        }
        let Some(file) = record.file else {
            return self.fetch(region, record).map(Some);
        };
        let read = self.files.read_leaf(region, file)?;
        let leaf = read.and_then(|bytes| self.checked(region, &record, bytes));
        match leaf {
            Some(leaf) => {
                let leaf = Arc::new(leaf);
                self.cache.put(region, leaf.clone());
                Ok(Some(leaf))
            }
            None => self.mend(region, record, file).map(Some),
        }
    }

    fn checked(&self, region: u64, record: &LeafRecord, bytes: Vec<u8>) -> Option<Leaf> {
        let volume = self.options.volume;
        let leaf = Leaf::read(bytes, &LeafId { volume, region })?;
        // Of one that was never seen the checksum is not known.
        let is_it = record.file.is_none() || leaf.sum() == record.sum;
        (is_it && leaf.commit() == record.commit).then_some(leaf)
    }

    fn fetch(&mut self, region: u64, record: LeafRecord) -> Result<Arc<Leaf>, MapError> {
        let fetched = self.source.fetch(region);
        let bytes = fetched.map_err(|error| MapError::Unavailable { region, error })?;
        let bytes = bytes.ok_or(MapError::WrongLeaf { region })?;
        self.adopt(region, record, bytes)
    }

    /// The file is damaged or gone: in its place comes what the source has, if that is the same leaf.
    fn mend(&mut self, region: u64, record: LeafRecord, file: u64) -> Result<Arc<Leaf>, MapError> {
        let path = self.files.leaf_path(region, file);
        let mended = self.fetch(region, record).map_err(|error| match error {
            MapError::WrongLeaf { .. } => MapError::LeafDamaged {
                region,
                path: path.clone(),
            },
            other => other,
        })?;
        tracing::warn!(region, path = %path.display(), "a damaged leaf was fetched again");
        Ok(mended)
    }

    /// Keeps a leaf that was fetched. A disk that does not take it costs only that it is fetched again.
    fn adopt(&mut self, region: u64, record: LeafRecord, bytes: Vec<u8>) -> Result<Arc<Leaf>, MapError> {
        let leaf = self.checked(region, &record, bytes);
        let leaf = Arc::new(leaf.ok_or(MapError::WrongLeaf { region })?);
        match self.keep(region, &leaf) {
            Ok(()) => {}
            Err(error) => tracing::warn!(region, %error, "a leaf that was fetched could not be kept"),
        }
        self.cache.put(region, leaf.clone());
        Ok(leaf)
    }

    fn keep(&mut self, region: u64, leaf: &Leaf) -> io::Result<()> {
        for (region, record) in self.files.write_leaves([(region, Some(leaf))].into_iter())? {
            if let Some(record) = record {
                self.table.leaves.insert(region, record);
                self.fetched.insert(region);
            }
        }
        Ok(())
    }
}

/// The parts of `whole` that none of the pieces in it has.
pub(super) fn gaps(pieces: &[Piece], whole: &Piece) -> Vec<Piece> {
    let (mut gaps, mut at) = (Vec::new(), whole.start);
    let ends = pieces.iter().map(|piece| (piece.start, piece.end));
    for (start, end) in ends.chain([(whole.end, whole.end)]) {
        if at < start {
            gaps.push(Piece {
                start: at,
                end: start,
                place: None,
            });
        }
        at = end;
    }
    gaps
}

/// Changes over what the leaf has in their gaps, in order.
pub(super) fn laid_over(leaf: Option<&Leaf>, over: &[Piece], gaps: &[Piece]) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(over.len() + gaps.len());
    let mut over = over.iter().peekable();
    for gap in gaps {
        while let Some(piece) = over.next_if(|piece| piece.start < gap.start) {
            push(&mut pieces, *piece);
        }
        if let Some(leaf) = leaf {
            leaf.find(gap.start, gap.end, &mut pieces);
        }
    }
    over.for_each(|piece| push(&mut pieces, *piece));
    pieces
}

/// Tells how many blocks of each pack there are.
pub(super) fn count(pieces: &[Piece], mut each: impl FnMut(u32, u32)) {
    for piece in pieces {
        if let Some(place) = piece.place {
            each(place.pack, piece.blocks());
        }
    }
}
