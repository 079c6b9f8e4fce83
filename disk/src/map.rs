//! Which blocks the journal has, and where: the newest of each. All of it is in memory; what is committed is taken out
//! (`release`), and is then the backing's to find.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::journal::record::{BLOCK_BYTES, BlockRange, RANGE_BYTES, RangeKind, SEALED_BYTES};
use crate::journal::{Entry, Lap};

/// Blocks that were changed by one range of a record.
#[derive(Clone)]
pub struct Piece {
    /// The first block.
    pub start: u64,
    /// How many.
    pub count: u64,
    /// The record's number.
    pub seq: u64,
    /// Where they lie; none: they are zeros.
    pub place: Option<Place>,
}

/// Where blocks lie, one after the other.
#[derive(Clone)]
pub struct Place {
    /// The file, which is not used again as long as this is there.
    pub lap: Arc<Lap>,
    /// Of the first one.
    pub offset: u64,
}

impl Piece {
    /// The block behind it.
    pub fn end(&self) -> u64 {
        self.start + self.count
    }

    /// The part of it that lies in a range; it does lie there in part.
    fn within(&self, start: u64, end: u64) -> Self {
        let from = self.start.max(start);
        let place = self.place.as_ref().map(|place| Place {
            lap: place.lap.clone(),
            offset: place.offset + (from - self.start) * SEALED_BYTES,
        });
        Self {
            start: from,
            count: self.end().min(end) - from,
            seq: self.seq,
            place,
        }
    }
}

/// Pieces by their first block; they do not overlap.
#[derive(Default)]
pub struct Map {
    pieces: BTreeMap<u64, Piece>,
    /// Blocks that are not zeros.
    written: u64,
}

impl Piece {
    fn written(&self) -> u64 {
        self.place.as_ref().map_or(0, |_| self.count)
    }
}

impl Map {
    /// Bytes that it takes to write it elsewhere: of all blocks that are not zeros, and something for each piece.
    pub fn bytes(&self) -> u64 {
        self.written * BLOCK_BYTES as u64 + (self.pieces.len() * RANGE_BYTES) as u64
    }

    /// Takes in a record: it is newer than all that were taken in, or one of them at another place.
    pub fn apply(&mut self, entry: &Entry) {
        for (range, offset) in entry.places() {
            self.insert(
                range,
                entry.head.seq,
                Place {
                    lap: entry.lap.clone(),
                    offset,
                },
            );
        }
    }

    fn insert(&mut self, range: BlockRange, seq: u64, place: Place) {
        let (start, end) = (range.start, range.start + u64::from(range.count));
        if start == end {
            return;
        }
        for old in self.overlapping(start, end) {
            self.pieces.remove(&old.start);
            self.written -= old.written();
            if old.start < start {
                self.put(old.within(0, start));
            }
            if old.end() > end {
                self.put(old.within(end, u64::MAX));
            }
        }
        let place = (range.kind == RangeKind::Write).then_some(place);
        let count = end - start;
        self.put(Piece {
            start,
            count,
            seq,
            place,
        });
    }

    fn put(&mut self, piece: Piece) {
        self.written += piece.written();
        self.pieces.insert(piece.start, piece);
    }

    /// Whole pieces that have a part in these blocks, in order.
    fn overlapping(&self, start: u64, end: u64) -> Vec<Piece> {
        let before = self.pieces.range(..start).next_back().map(|(_, piece)| piece);
        let before = before.filter(|piece| piece.end() > start && start < end);
        let within = self.pieces.range(start..end).map(|(_, piece)| piece);
        before.into_iter().chain(within).cloned().collect()
    }

    /// Whether it has nothing.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// All it has, in order.
    pub fn all(&self) -> Vec<Piece> {
        self.pieces.values().cloned().collect()
    }

    /// What it has of these blocks, in order; what lies between was not changed.
    pub fn find(&self, start: u64, count: u64) -> Vec<Piece> {
        let end = start.saturating_add(count);
        let pieces = self.overlapping(start, end);
        pieces.iter().map(|piece| piece.within(start, end)).collect()
    }

    /// Forgets what records up to this number changed.
    pub fn release(&mut self, committed: u64) {
        self.pieces.retain(|_, piece| piece.seq > committed);
        self.written = self.pieces.values().map(Piece::written).sum();
    }
}

#[cfg(test)]
mod tests;
