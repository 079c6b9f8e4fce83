//! What was changed since the leaves were written: in memory, by region, the newest of each block. It says what it takes.

use std::collections::{BTreeMap, BTreeSet};

use super::place::{NO_PACK, Piece, Place, REGION_BLOCKS};

/// Bytes that a piece takes at most on average: 14 in nodes of B-trees that are half full, and what leads to them. Measured by
/// the example `map_figures`, which is well below.
pub const PIECE_BYTES: usize = 32;
/// Bytes that a region with changes takes besides: a B-tree of one node, and its places in two others.
pub const REGION_BYTES: usize = 320;

/// What a piece is but its start. Narrow, as there are millions of them.
#[derive(Clone, Copy)]
struct Held {
    last: u16,
    pack: u32,
    index: u32,
}

/// Changes of one region.
struct Pending {
    /// The commit of the first of them.
    since: u64,
    pieces: BTreeMap<u16, Held>,
}

/// Changes of all regions.
#[derive(Default)]
pub(super) struct Overlay {
    regions: BTreeMap<u64, Pending>,
    /// Regions by the commit of their first change.
    ages: BTreeSet<(u64, u64)>,
    pieces: usize,
}

fn piece(start: u16, held: &Held) -> Piece {
    let is_mapped = held.pack != NO_PACK;
    Piece {
        start: start.into(),
        end: u32::from(held.last) + 1,
        place: is_mapped.then(|| Place::from_index(held.pack, held.index)),
    }
}

fn held(piece: &Piece) -> Held {
    Held {
        last: (piece.end - 1) as u16,
        pack: piece.place.map_or(NO_PACK, |place| place.pack),
        index: piece.place.map_or(0, Place::index),
    }
}

impl Pending {
    /// Whole pieces that have a part in a range, in order.
    fn overlapping(&self, start: u32, end: u32) -> impl Iterator<Item = Piece> {
        let before = self.pieces.range(..start as u16).next_back();
        let before = before
            .map(|(at, held)| piece(*at, held))
            .filter(|piece| piece.end > start);
        let within = self.pieces.range(start as u16..=(end - 1) as u16);
        before.into_iter().chain(within.map(|(at, held)| piece(*at, held)))
    }

    /// Takes these blocks out; what was there.
    fn erase(&mut self, start: u32, end: u32) -> Vec<Piece> {
        let mut old: Vec<_> = self.overlapping(start, end).collect();
        for piece in &old {
            self.pieces.remove(&(piece.start as u16));
            if piece.start < start {
                self.put(&piece.within(0, start));
            }
            if piece.end > end {
                self.put(&piece.within(end, REGION_BLOCKS));
            }
        }
        old.iter_mut().for_each(|piece| *piece = piece.within(start, end));
        old
    }

    fn put(&mut self, piece: &Piece) {
        self.pieces.insert(piece.start as u16, held(piece));
    }

    /// Puts a piece where nothing is, as part of the one before it if that goes on in it.
    fn join(&mut self, next: Piece) {
        let before = self.pieces.range_mut(..next.start as u16).next_back();
        match before {
            Some((start, held)) if piece(*start, held).goes_on_in(&next) => held.last = (next.end - 1) as u16,
            _ => self.put(&next),
        }
    }
}

impl Overlay {
    /// Takes in a change of a region, newer than all before; the pieces that it takes the place of.
    pub fn insert(&mut self, region: u64, commit: u64, piece: Piece) -> Vec<Piece> {
        let pending = self.regions.entry(region).or_insert_with(|| {
            self.ages.insert((commit, region));
            let (since, pieces) = (commit, BTreeMap::new());
            Pending { since, pieces }
        });
        let before = pending.pieces.len();
        let old = pending.erase(piece.start, piece.end);
        pending.join(piece);
        self.pieces = self.pieces + pending.pieces.len() - before;
        old
    }

    /// Forgets changes of these blocks, as if there had been none; what they were.
    pub fn erase(&mut self, region: u64, start: u32, end: u32) -> Vec<Piece> {
        let Some(pending) = self.regions.get_mut(&region) else {
            return Vec::new();
        };
        let before = pending.pieces.len();
        let old = pending.erase(start, end);
        self.pieces = self.pieces + pending.pieces.len() - before;
        if pending.pieces.is_empty() {
            self.remove(region);
        }
        old
    }

    /// What was changed of these blocks, in order.
    pub fn find(&self, region: u64, start: u32, end: u32) -> Vec<Piece> {
        let pending = self.regions.get(&region);
        let pieces = pending.into_iter().flat_map(|pending| pending.overlapping(start, end));
        pieces.map(|piece| piece.within(start, end)).collect()
    }

    /// All changes of a region are in its leaf.
    pub fn remove(&mut self, region: u64) {
        if let Some(pending) = self.regions.remove(&region) {
            self.pieces -= pending.pieces.len();
            self.ages.remove(&(pending.since, region));
        }
    }

    /// The region whose first change is the oldest, of those behind this one in that order; with its age.
    pub fn oldest_after(&self, age: (u64, u64)) -> Option<(u64, u64)> {
        self.ages.range((age.0, age.1.saturating_add(1))..).next().copied()
    }

    /// The commit of the oldest change, but for these regions.
    pub fn oldest_but(&self, regions: &BTreeSet<u64>) -> Option<u64> {
        let mut others = self.ages.iter().filter(|(_, region)| !regions.contains(region));
        others.next().map(|(since, _)| *since)
    }

    /// Regions of a range of them that have changes, in order.
    pub fn regions(&self, from: u64, to: u64) -> impl Iterator<Item = u64> {
        self.regions.range(from..=to).map(|(region, _)| *region)
    }

    /// Bytes that it takes in memory, at most.
    pub fn bytes(&self) -> usize {
        self.pieces * PIECE_BYTES + self.regions.len() * REGION_BYTES
    }
}
