//! What is known of each pack of a volume: how many blocks it takes, how many of them are needed and by whom, when it was written and
//! when something last died in it. Counts are of committed state only: an overwrite that no accepted head has may still be lost,
//! and then what it replaced is needed.
//!
//! Packs stand in classes by how full they are, a class for each hundredth, and in a class by how cold they are: the best victim is the
//! first of one of them.

use std::collections::BTreeSet;
use std::ops::Bound;

use thiserror::Error;

/// Number of a pack in its volume. The map names packs by it, so it is small; it is not used again while a map,
/// a snapshot or a plan may name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId(pub u32);

/// Classes: wholly dead packs, then one for each hundredth, of which the last has the full ones.
pub const CLASSES: usize = 101;

/// One pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pack {
    /// Blocks that it takes at peers, its padding with them.
    pub blocks: u32,
    /// Blocks that the volume's head needs.
    pub live: u32,
    /// Blocks that only snapshots need.
    pub pinned: u32,
    /// The commit that its newest block was first written by. Moving changes nothing of it: what snapshots
    /// need is told by it, so no pack has blocks from before and from after a snapshot.
    pub birth: u64,
    /// When a block of it was last born or died: seconds of the volume's age.
    pub changed_secs: u32,
    /// The same as a mean, in which each death counts by its part of the blocks that were needed: how cold the pack is. The last time alone
    /// is chance where deaths are rare.
    pub mean_secs: u32,
}

impl Pack {
    /// Blocks that are moved if it is collected.
    pub fn needed(&self) -> u32 {
        self.live + self.pinned
    }

    /// How full it is, in hundredths rounded up; 0 only if nothing of it is needed.
    pub fn class(&self) -> usize {
        (u64::from(self.needed()) * 100).div_ceil(u64::from(self.blocks)) as usize
    }
}

/// What a change of the table cannot be.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum TableError {
    /// The number is in use.
    #[error("Pack {0:?} is there already")]
    Taken(PackId),
    /// Nothing has the number.
    #[error("There is no pack {0:?}")]
    Unknown(PackId),
    /// A pack without blocks, or with more of them needed than it has.
    #[error("Pack {0:?} would have other blocks than it can have")]
    Count(PackId),
    /// Somebody needs it.
    #[error("Pack {0:?} has blocks that are needed")]
    Needed(PackId),
}

/// 32 bytes a pack, and some 15 for its entry in a set (8, in nodes that are half full at least): 12 MB for 1 TiB in packs of 4 MiB,
/// 47 MB for 1,000,000 packs.
#[derive(Clone, Copy)]
struct Row {
    birth: u64,
    blocks: u32,
    live: u32,
    pinned: u32,
    changed_secs: u32,
    mean_secs: u32,
}

const _: () = assert!(size_of::<Row>() == 32);

const VACANT: Row = Row {
    birth: 0,
    blocks: 0,
    live: 0,
    pinned: 0,
    changed_secs: 0,
    mean_secs: 0,
};

impl Row {
    fn pack(&self) -> Pack {
        Pack {
            blocks: self.blocks,
            live: self.live,
            pinned: self.pinned,
            birth: self.birth,
            changed_secs: self.changed_secs,
            mean_secs: self.mean_secs,
        }
    }

    /// Blocks of the head die. The mean moves by their part of what was needed.
    fn die(&mut self, count: u32, now_secs: u32) -> Option<()> {
        let needed = u64::from(self.live + self.pinned);
        self.live = self.live.checked_sub(count)?;
        let age = u64::from(now_secs.saturating_sub(self.mean_secs));
        let passed = (age * u64::from(count)).div_ceil(needed.max(1));
        self.mean_secs += passed as u32;
        if count > 0 {
            self.changed_secs = self.changed_secs.max(now_secs);
        }
        Some(())
    }
}

/// Sums over packs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many packs.
    pub packs: u64,
    /// Their blocks, padding with them.
    pub blocks: u64,
    /// Those that the head needs.
    pub live: u64,
    /// Those that only snapshots need.
    pub pinned: u64,
}

impl Totals {
    fn add(&mut self, pack: &Pack) {
        self.packs += 1;
        self.blocks += u64::from(pack.blocks);
        self.live += u64::from(pack.live);
        self.pinned += u64::from(pack.pinned);
    }

    fn remove(&mut self, pack: &Pack) {
        self.packs -= 1;
        self.blocks -= u64::from(pack.blocks);
        self.live -= u64::from(pack.live);
        self.pinned -= u64::from(pack.pinned);
    }

    /// Blocks that somebody needs.
    pub fn needed(&self) -> u64 {
        self.live + self.pinned
    }
}

/// The packs of a volume. An operation takes time by the logarithm of their number; `restore` and `set_snapshots` look at all.
pub struct Table {
    rows: Vec<Row>,
    /// Those that may be moved, by class.
    classes: [BTreeSet<(u32, PackId)>; CLASSES],
    all: Totals,
    movable: Totals,
    /// Of snapshots, sorted.
    snapshot_commits: Vec<u64>,
    pinned_percent: u32,
}

impl Table {
    /// Without packs. Those that snapshots need blocks of are movable up to `pinned_percent`.
    pub fn new(pinned_percent: u32) -> Self {
        Self {
            rows: Vec::new(),
            classes: std::array::from_fn(|_| BTreeSet::new()),
            all: Totals::default(),
            movable: Totals::default(),
            snapshot_commits: Vec::new(),
            pinned_percent,
        }
    }

    /// As it was; packs in any order.
    pub fn restore(
        pinned_percent: u32,
        snapshot_commits: Vec<u64>,
        packs: impl IntoIterator<Item = (PackId, Pack)>,
    ) -> Result<Self, TableError> {
        let mut table = Self::new(pinned_percent);
        for (id, pack) in packs {
            table.put_row(id, &pack)?;
            table.all.add(&pack);
        }
        table.set_snapshots(snapshot_commits);
        Ok(table)
    }

    /// What is known of a pack.
    pub fn get(&self, id: PackId) -> Option<Pack> {
        self.row(id).ok().map(Row::pack)
    }

    /// All packs, by number.
    pub fn packs(&self) -> impl Iterator<Item = (PackId, Pack)> {
        let rows = self.rows.iter().enumerate().filter(|(_, row)| row.blocks > 0);
        rows.map(|(id, row)| (PackId(id as u32), row.pack()))
    }

    /// Of all packs.
    pub fn totals(&self) -> Totals {
        self.all
    }

    /// Of those that a plan may name: all but the ones with too many blocks that snapshots need.
    pub fn movable(&self) -> Totals {
        self.movable
    }

    /// Between which two snapshots a commit lies: blocks of different generations never share a pack.
    pub fn generation(&self, commit: u64) -> usize {
        self.snapshot_commits.partition_point(|snapshot| *snapshot < commit)
    }

    /// Whether a snapshot may need blocks that were born with this commit.
    pub fn is_in_snapshot(&self, commit: u64) -> bool {
        self.snapshot_commits.last().is_some_and(|newest| commit <= *newest)
    }

    /// The snapshots that there are, by their commits.
    pub fn set_snapshots(&mut self, mut commits: Vec<u64>) {
        commits.sort_unstable();
        self.snapshot_commits = commits;
        self.classes.iter_mut().for_each(BTreeSet::clear);
        self.movable = Totals::default();
        for place in 0..self.rows.len() {
            if self.rows[place].blocks > 0 {
                self.enlist(PackId(place as u32));
            }
        }
    }

    /// A pack that a commit brought. Of its blocks so many are needed: a block may have been overwritten before it was moved.
    pub fn add(&mut self, id: PackId, pack: Pack) -> Result<(), TableError> {
        self.put_row(id, &pack)?;
        self.all.add(&pack);
        self.enlist(id);
        Ok(())
    }

    /// Blocks that nobody needs any more: the head did.
    pub fn free(&mut self, id: PackId, count: u32, now_secs: u32) -> Result<(), TableError> {
        self.change(id, |row| row.die(count, now_secs))
    }

    /// Blocks that the head needs no more, but snapshots do.
    pub fn pin(&mut self, id: PackId, count: u32, now_secs: u32) -> Result<(), TableError> {
        self.change(id, |row| {
            row.die(count, now_secs)?;
            row.pinned += count;
            Some(())
        })
    }

    /// Blocks that nobody needs any more: snapshots did.
    pub fn unpin(&mut self, id: PackId, count: u32) -> Result<(), TableError> {
        self.change(id, |row| {
            row.pinned = row.pinned.checked_sub(count)?;
            Some(())
        })
    }

    /// Blocks that only snapshots needed, and that the head has again after a rollback.
    pub fn revive(&mut self, id: PackId, count: u32) -> Result<(), TableError> {
        self.change(id, |row| {
            row.pinned = row.pinned.checked_sub(count)?;
            row.live += count;
            Some(())
        })
    }

    /// Everything that was needed of a victim is elsewhere: the moves that still held in the head, and what was relocated. Who moves
    /// counts what died meanwhile by `free` or `pin` first.
    pub fn moved_away(&mut self, id: PackId) -> Result<(), TableError> {
        self.change(id, |row| {
            (row.live, row.pinned) = (0, 0);
            Some(())
        })
    }

    /// A pack that was given up. Refused while anybody needs a block of it.
    pub fn give_up(&mut self, id: PackId) -> Result<(), TableError> {
        let pack = self.row(id)?.pack();
        if pack.needed() > 0 {
            return Err(TableError::Needed(id));
        }
        self.strike(id);
        self.all.remove(&pack);
        self.rows[id.0 as usize] = VACANT;
        Ok(())
    }

    /// The coldest pack of a class that may be moved.
    pub fn coldest(&self, class: usize) -> Option<PackId> {
        self.classes[class].first().map(|(_, id)| *id)
    }

    /// The one after it in its class.
    pub fn after(&self, id: PackId) -> Option<PackId> {
        let pack = self.row(id).ok()?.pack();
        let warmer = (Bound::Excluded((pack.mean_secs, id)), Bound::Unbounded);
        self.classes[self.class(&pack)?].range(warmer).next().map(|(_, id)| *id)
    }

    fn row(&self, id: PackId) -> Result<&Row, TableError> {
        let row = self.rows.get(id.0 as usize).filter(|row| row.blocks > 0);
        row.ok_or(TableError::Unknown(id))
    }

    fn put_row(&mut self, id: PackId, pack: &Pack) -> Result<(), TableError> {
        if self.row(id).is_ok() {
            return Err(TableError::Taken(id));
        }
        let needed = u64::from(pack.live) + u64::from(pack.pinned);
        if pack.blocks == 0 || needed > u64::from(pack.blocks) {
            return Err(TableError::Count(id));
        }
        let place = id.0 as usize;
        if place >= self.rows.len() {
            self.rows.resize(place + 1, VACANT);
        }
        self.rows[place] = Row {
            birth: pack.birth,
            blocks: pack.blocks,
            live: pack.live,
            pinned: pack.pinned,
            changed_secs: pack.changed_secs,
            mean_secs: pack.mean_secs,
        };
        Ok(())
    }

    fn change(&mut self, id: PackId, change: impl FnOnce(&mut Row) -> Option<()>) -> Result<(), TableError> {
        let before = *self.row(id)?;
        let mut after = before;
        change(&mut after).ok_or(TableError::Count(id))?;
        if after
            .live
            .checked_add(after.pinned)
            .is_none_or(|needed| needed > after.blocks)
        {
            return Err(TableError::Count(id));
        }
        self.strike(id);
        self.all.remove(&before.pack());
        self.rows[id.0 as usize] = after;
        self.all.add(&after.pack());
        self.enlist(id);
        Ok(())
    }

    /// Which class a pack stands in; none if snapshots hold too much of it.
    fn class(&self, pack: &Pack) -> Option<usize> {
        let class = pack.class();
        let is_held = self.is_in_snapshot(pack.birth) && class > self.pinned_percent as usize;
        (!is_held).then_some(class)
    }

    fn enlist(&mut self, id: PackId) {
        let pack = self.rows[id.0 as usize].pack();
        let Some(class) = self.class(&pack) else { return };
        self.classes[class].insert((pack.mean_secs, id));
        self.movable.add(&pack);
    }

    fn strike(&mut self, id: PackId) {
        let pack = self.rows[id.0 as usize].pack();
        let Some(class) = self.class(&pack) else { return };
        self.classes[class].remove(&(pack.mean_secs, id));
        self.movable.remove(&pack);
    }
}

#[cfg(test)]
mod tests;
