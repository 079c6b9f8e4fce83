//! Moves of blocks to other places, which hold only for what still lies where it was when they were planned. So a block that was
//! overwritten while its pack was collected stays overwritten, whichever of the two commits comes first.

use super::table::PackId;

/// Where blocks lie in packs, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The pack.
    pub pack: PackId,
    /// The first one's number within it.
    pub slot: u32,
}

impl Place {
    /// So many blocks further on.
    pub fn skip(self, count: u32) -> Self {
        let slot = self.slot + count;
        Self { slot, ..self }
    }
}

/// Blocks of a volume that follow each other, and lie so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first block.
    pub start: u64,
    /// How many.
    pub count: u32,
    /// Where the first one lies.
    pub place: Place,
}

/// Blocks that get another place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Which, and where they have to lie for it.
    pub from: Run,
    /// Where the first of them lies afterwards.
    pub to: Place,
}

/// A map from blocks to places.
pub trait Places {
    /// Where these blocks lie, in order; those that lie nowhere are left out.
    fn find(&self, start: u64, count: u32) -> Vec<Run>;

    /// Blocks lie there from now on.
    fn set(&mut self, run: Run);
}

/// The parts of moves that hold in this map, in order.
pub fn still_hold(places: &impl Places, moves: &[Move]) -> Vec<Move> {
    let mut hold = Vec::new();
    for planned in moves {
        let lies = places.find(planned.from.start, planned.from.count);
        hold.extend(lies.into_iter().filter_map(|run| held(planned, run)));
    }
    hold
}

/// Applies what holds of each move, in order, and says what that was. Blocks are named by one move at most.
pub fn apply(places: &mut impl Places, moves: &[Move]) -> Vec<Move> {
    let hold = still_hold(places, moves);
    for part in &hold {
        places.set(Run {
            place: part.to,
            ..part.from
        });
    }
    hold
}

/// The move for a run of blocks that lie somewhere, if they lie where it wants them.
fn held(planned: &Move, run: Run) -> Option<Move> {
    let skipped = u32::try_from(run.start - planned.from.start).expect("found within the move's own blocks");
    (run.place == planned.from.place.skip(skipped)).then(|| Move {
        from: run,
        to: planned.to.skip(skipped),
    })
}

#[cfg(test)]
mod tests;
