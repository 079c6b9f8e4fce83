//! Collection of a volume that is open: what is known of each pack, which of them are moved with the next commit, and which nobody needs.
//! Everything here is of accepted commits; what packs took is in their table, what they are needed for is counted.
//!
//! A pack is needed for blocks, for sections that the root leads to, or by a snapshot, which pins it whole.

use std::collections::{BTreeMap, BTreeSet};

use crate::collect::plan::{Allowance, Purse, plan};
use crate::collect::policy::{CREDIT_BLOCKS_MAX, Credit, Policy};
use crate::collect::table::{Pack, PackId, Table};
use crate::commit::PackNumber;
use crate::commit::pack_set::PackSet;
use crate::commit::pack_table::PackFigures;
use crate::commit::root::Root;
use crate::commit::state::Committed;
use crate::committed::CommittedBlocks;
use crate::device::DeviceError;
use crate::extents::Run;
use crate::journal::record::BLOCK_BYTES;
use crate::map::Piece;

const BLOCK: u64 = BLOCK_BYTES as u64;
/// Packs of the largest shape that one commit moves. Chosen: with all of a batch its lists fit into a root.
const MOVED_PACKS_MAX: u64 = 16;
/// Commits without a write to a pack's neighbours after which it counts as cold. Chosen: an hour, with a commit a minute.
const COLD_COMMITS: u32 = 60;

/// What is known of packs.
pub(super) struct Collector {
    is_counted: bool,
    /// How often the map had been begun anew when its blocks were counted.
    rounds: u64,
    /// What packs took that are this volume's own.
    figures: BTreeMap<PackNumber, PackFigures>,
    /// What snapshots need, by their commits.
    sets: BTreeMap<u64, PackSet>,
    /// Packs of which no block is left, though the map may still count some until its leaves are written.
    emptied: BTreeSet<PackNumber>,
    /// Packs that could not be read: left as they are by this process.
    unreadable: BTreeSet<PackNumber>,
    told: BTreeSet<PackNumber>,
    confirmed: BTreeSet<PackNumber>,
    credit: Credit,
}

/// What a choice goes by.
pub(super) struct Means {
    /// Blocks that the host wrote.
    pub host_blocks: u64,
    /// Blocks that may be moved besides.
    pub settle_blocks: u64,
    /// Bytes that packs have room for, ascending.
    pub rooms: Vec<usize>,
}

/// What the next commit moves.
#[derive(Default)]
pub(super) struct Chosen {
    /// Packs that nothing stays in.
    pub victims: BTreeSet<PackNumber>,
    /// Blocks of these, each run in a slot.
    pub moves: Vec<Run>,
}

impl Chosen {
    pub fn is_empty(&self) -> bool {
        self.victims.is_empty()
    }
}

impl Chosen {
    /// Leaves out blocks that are written anew, which are given in order: they would be moved for nothing.
    pub fn without(&mut self, pieces: &[Piece]) {
        let mut left = Vec::with_capacity(self.moves.len());
        for run in &self.moves {
            let behind = pieces.partition_point(|piece| piece.end() <= run.start);
            let mut at = run.start;
            for piece in pieces[behind..].iter().take_while(|piece| piece.start < run.end()) {
                left.extend(part(run, at, piece.start));
                at = piece.end();
            }
            left.extend(part(run, at, run.end()));
        }
        self.moves = left;
    }
}

/// A part of a run; none if that is empty.
fn part(run: &Run, from: u64, to: u64) -> Option<Run> {
    (from < to).then(|| Run {
        start: from,
        count: to - from,
        place: run.place.after((from - run.start) as u32),
    })
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            is_counted: false,
            rounds: 0,
            figures: BTreeMap::new(),
            sets: BTreeMap::new(),
            emptied: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            told: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            credit: Credit::new(CREDIT_BLOCKS_MAX),
        }
    }
}

impl Collector {
    /// What was counted says nothing any more.
    pub fn forget(&mut self) {
        self.is_counted = false;
    }

    /// Counts what packs have, unless that was done. Waits for leaves, and pages of the table of packs: bounded memory, but for some bytes a
    /// pack.
    pub fn count(&mut self, blocks: &CommittedBlocks) -> Result<(), DeviceError> {
        if self.is_counted && self.rounds == blocks.rounds() {
            return blocks.read_table();
        }
        self.is_counted = false;
        self.rounds = blocks.rounds();
        blocks.read_table()?;
        let (committed, places) = (blocks.committed(), blocks.places());
        let borrowed = committed.root.borrowed;
        let mut figures: BTreeMap<_, _> = committed.packs.known_figures().into_iter().collect();
        for wanted in committed.packs.pages_of_packs() {
            figures.extend(committed.packs.figures_of(&wanted, &places.page(&wanted)?)?);
        }
        figures.retain(|number, _| *number >= borrowed);
        let mut sets = BTreeMap::new();
        for entry in &committed.root.snapshots {
            let mut set = PackSet::default();
            for span in &entry.pinned {
                set.take(&places.read(*span)?, committed.packs.next())?;
            }
            sets.insert(entry.commit, set);
        }
        blocks.recount()?;
        (self.figures, self.sets) = (figures, sets);
        self.is_counted = self.rounds == blocks.rounds();
        match self.is_counted {
            true => Ok(()),
            false => Err(DeviceError::Unavailable(
                "the map of the disk was begun anew meanwhile".to_owned(),
            )),
        }
    }

    /// What the next commit moves. That something cannot be read now costs only that.
    pub fn choose(&mut self, blocks: &CommittedBlocks, means: &Means) -> Chosen {
        let is_counted = self.is_counted && self.rounds == blocks.rounds();
        if !is_counted && means.settle_blocks == 0 && blocks.has_leaves_elsewhere() {
            // A commit does not wait for the whole map.
            return Chosen::default();
        }
        let chosen = self.count(blocks).and_then(|()| self.try_choose(blocks, means));
        chosen.unwrap_or_else(|error| {
            tracing::warn!(%error, "nothing of a disk is collected with this commit");
            Chosen::default()
        })
    }

    fn try_choose(&mut self, blocks: &CommittedBlocks, means: &Means) -> Result<Chosen, DeviceError> {
        let committed = blocks.committed();
        let policy = Policy {
            cold_secs: COLD_COMMITS,
            padded_blocks: (means.rooms.first().map_or(0, |room| *room as u64) / BLOCK).max(1) as u32,
            ..Policy::default()
        };
        let rows = self.rows(&committed, &blocks.live().into_iter().collect());
        let table = Table::restore(policy.pinned_percent, Vec::new(), rows);
        let table = table.map_err(|error| DeviceError::Damaged(error.to_string()))?;
        self.credit.earn(self.as_stored(means.host_blocks));
        let most = means.rooms.last().map_or(0, |room| *room as u64) * MOVED_PACKS_MAX / BLOCK;
        let allowance = Allowance {
            credit_blocks: self.credit.blocks().min(most),
            settle_blocks: means.settle_blocks.min(most),
            is_idle: means.host_blocks == 0,
        };
        let plan = plan(&table, &policy, committed.root.commit as u32, allowance);
        self.credit.spend(plan.spent(Purse::Credit));
        let mut chosen = Chosen::default();
        for victim in &plan.victims {
            let number = victim.pack.0;
            match blocks.live_runs(number) {
                Ok(runs) => {
                    chosen.moves.extend(runs);
                    chosen.victims.insert(number);
                }
                Err(error) => {
                    tracing::warn!(%error, pack = number, "a pack cannot be collected");
                    self.unreadable.insert(number);
                }
            }
        }
        Ok(chosen)
    }

    /// How many blocks of room these take, by what blocks took so far.
    fn as_stored(&self, blocks: u64) -> u64 {
        let sum = |what: fn(&PackFigures) -> u32| {
            self.figures
                .values()
                .map(|figures| u64::from(what(figures)))
                .sum::<u64>()
        };
        let (bytes, of_blocks) = (sum(|figures| figures.slot_bytes), sum(|figures| figures.blocks));
        match of_blocks {
            0 => blocks,
            _ => (u128::from(blocks) * u128::from(bytes) / u128::from(of_blocks * BLOCK)) as u64,
        }
    }

    /// Packs that may be moved: of which something is needed, and which nothing pins. Lists of changes cannot be moved; they are not needed for
    /// long.
    fn rows(&self, committed: &Committed, live: &BTreeMap<PackNumber, u32>) -> Vec<(PackId, Pack)> {
        let sections = sections(committed);
        let own = committed.packs.next().checked_sub(1);
        let lists: BTreeSet<PackNumber> = committed.root.pending.iter().map(|(_, span)| span.pack).collect();
        let may_move = |number: &PackNumber| {
            !self.is_pinned(*number)
                && !lists.contains(number)
                && !self.unreadable.contains(number)
                && !self.emptied.contains(number)
                && Some(*number) != own
        };
        let rows = self
            .figures
            .iter()
            .filter(|(number, _)| may_move(number))
            .map(|(number, figures)| {
                let blocks = (u64::from(figures.room) / BLOCK).max(1);
                let live = u64::from(live.get(number).copied().unwrap_or(0));
                let slots = live * u64::from(figures.slot_bytes) / u64::from(figures.blocks.max(1));
                let needed = slots + sections.get(number).copied().unwrap_or(0);
                let pack = Pack {
                    blocks: blocks as u32,
                    live: needed.div_ceil(BLOCK).min(blocks) as u32,
                    pinned: 0,
                    birth: 0,
                    changed_secs: figures.commit as u32,
                    mean_secs: figures.commit as u32,
                };
                (PackId(*number), pack)
            });
        rows.filter(|(_, pack)| pack.live > 0).collect()
    }

    fn is_pinned(&self, number: PackNumber) -> bool {
        self.sets.values().any(|set| set.contains(number))
    }

    /// Of this volume's own packs those that the newest accepted commit needs, but for its snapshots.
    pub fn head_set(&self, blocks: &CommittedBlocks) -> PackSet {
        let committed = blocks.committed();
        let (sections, live) = (sections(&committed), blocks.live());
        let live: BTreeSet<PackNumber> = live.into_iter().map(|(number, _)| number).collect();
        let is_needed = |number: &PackNumber| {
            sections.contains_key(number) || (live.contains(number) && !self.emptied.contains(number))
        };
        self.figures.keys().copied().filter(is_needed).collect()
    }

    /// Packs of the table that neither the newest accepted commit nor a snapshot needs. Nothing before all was counted.
    pub fn unneeded(&self, blocks: &CommittedBlocks) -> Result<BTreeSet<PackNumber>, DeviceError> {
        if !self.is_counted || self.rounds != blocks.rounds() {
            return Ok(BTreeSet::new());
        }
        blocks.read_table()?;
        let head = self.head_set(blocks);
        let numbers = self.figures.keys().copied();
        Ok(numbers
            .filter(|number| !head.contains(*number) && !self.is_pinned(*number))
            .collect())
    }

    /// The same, but for those that were told. None if that cannot be known now.
    pub fn untold(&self, blocks: &CommittedBlocks) -> BTreeSet<PackNumber> {
        let unneeded = self.unneeded(blocks).unwrap_or_default();
        unneeded.difference(&self.told).copied().collect()
    }

    /// These were told.
    pub fn are_told(&mut self, packs: BTreeSet<PackNumber>) {
        self.told.extend(packs);
    }

    /// It is recorded that these are given up.
    pub fn confirm(&mut self, packs: impl Iterator<Item = PackNumber>) {
        self.confirmed.extend(packs);
    }

    /// Those that the table is to forget.
    pub fn confirmed(&self) -> impl Iterator<Item = PackNumber> {
        self.confirmed.iter().copied()
    }

    /// Sets of snapshots with a section in one of these packs: they are written anew.
    pub fn sets_in(&self, root: &Root, victims: &BTreeSet<PackNumber>) -> Vec<(u64, PackSet)> {
        let lie_there = root
            .snapshots
            .iter()
            .filter(|entry| entry.pinned.iter().any(|span| victims.contains(&span.pack)));
        lie_there
            .filter_map(|entry| Some((entry.commit, self.sets.get(&entry.commit)?.clone())))
            .collect()
    }

    /// A commit was accepted that brought packs, left nothing of others, and whose table has some no more.
    pub fn accepted(
        &mut self,
        blocks: &CommittedBlocks,
        made: &[(PackNumber, PackFigures)],
        emptied: &[PackNumber],
        removed: &[PackNumber],
        sets: &[(u64, PackSet)],
    ) {
        self.figures.extend(made.iter().copied());
        self.emptied.extend(emptied);
        for number in removed {
            self.figures.remove(number);
            self.confirmed.remove(number);
            self.emptied.remove(number);
            self.told.remove(number);
        }
        self.sets.extend(sets.iter().cloned());
        let root = blocks.committed().root;
        self.sets
            .retain(|commit, _| root.snapshots.iter().any(|entry| entry.commit == *commit));
        // The state that is gone back to has blocks where the other one had none.
        if root.rolled_back == root.commit {
            self.emptied.clear();
            self.is_counted = false;
        }
    }

    /// Bytes that packs take, and how many they are; none before they were counted.
    pub fn totals(&self, blocks: &CommittedBlocks) -> Option<(u64, u64)> {
        let rooms = self.figures.values().map(|figures| u64::from(figures.room));
        let is_known = self.is_counted && self.rounds == blocks.rounds();
        is_known.then(|| (rooms.sum(), self.figures.len() as u64))
    }
}

/// Bytes that the root leads to in each pack, but for slots.
fn sections(committed: &Committed) -> BTreeMap<PackNumber, u64> {
    let root = &committed.root;
    let leaves = committed.leaves.values().map(|(_, span)| *span);
    let pages = root.pages.iter().map(|(_, span)| *span);
    let lists = root.pending.iter().map(|(_, span)| *span);
    let sets = root.snapshots.iter().flat_map(|entry| entry.pinned.iter().copied());
    let mut sections = BTreeMap::new();
    for span in leaves
        .chain(pages)
        .chain(lists)
        .chain(sets)
        .chain(committed.packs.page_spans())
    {
        *sections.entry(span.pack).or_default() += u64::from(span.len);
    }
    // The root itself.
    if let Some(own) = committed.packs.next().checked_sub(1) {
        *sections.entry(own).or_default() += 1;
    }
    sections
}
