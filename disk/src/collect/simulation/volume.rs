//! A volume with all that it has at peers: packs with what is in each of their places.

use std::collections::{BTreeMap, BTreeSet};

use super::dense::DenseMap;
use crate::collect::cycle::{Answer, Cycle};
use crate::collect::moves::{Move, Place, Places, Run, apply};
use crate::collect::plan::{Allowance, Plan, Purse, Victim, plan};
use crate::collect::policy::{Credit, Policy};
use crate::collect::relocations::Relocations;
use crate::collect::snapshots::{Fate, LineId, SnapshotId, Snapshots, Stretch};
use crate::collect::table::{Pack, PackId, Table};

/// What was written into a block: which block, and the how-manieth write it was. It stands for the block's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Content {
    block: u32,
    write: u64,
}

/// A pinned state of the volume, with what has to be read from it.
struct Pinned {
    commit: u64,
    map: DenseMap,
    contents: Vec<u64>,
}

/// What a pass of collection has prepared for a commit.
#[derive(Default)]
struct Collected {
    moves: Vec<Move>,
    /// Moves of blocks that snapshots name.
    relocated: Vec<Move>,
    packs: Vec<(PackId, Pack)>,
}

/// The volume.
pub struct Volume {
    policy: Policy,
    pack_blocks: u32,
    /// Its packs, as the policy knows them.
    pub table: Table,
    map: DenseMap,
    at_peers: BTreeMap<PackId, Vec<Content>>,
    snapshots: Snapshots,
    head: LineId,
    pinned: BTreeMap<SnapshotId, Pinned>,
    relocations: Relocations,
    /// The number of the last write to each block.
    contents: Vec<u64>,
    writes: u64,
    commit: u64,
    next_pack: u32,
    credit: Credit,
    settling: Credit,
    /// Blocks that the host has committed.
    pub host_blocks: u64,
    /// Blocks that collection has written.
    pub moved_blocks: u64,
}

impl Volume {
    /// Without content. At most `kept_packs` packs full of credit are kept.
    pub fn new(policy: Policy, blocks: u32, pack_blocks: u32, kept_packs: u32) -> Self {
        let (snapshots, head) = Snapshots::new();
        let credit = Credit::new(u64::from(kept_packs) * u64::from(pack_blocks));
        Self {
            policy,
            pack_blocks,
            table: Table::new(policy.pinned_percent),
            map: DenseMap::new(blocks as usize),
            at_peers: BTreeMap::new(),
            snapshots,
            head,
            pinned: BTreeMap::new(),
            relocations: Relocations::default(),
            contents: vec![0; blocks as usize],
            writes: 0,
            commit: 0,
            next_pack: 0,
            credit,
            settling: credit,
            host_blocks: 0,
            moved_blocks: 0,
        }
    }

    /// One commit: what the host wrote (sorted blocks), and what collection moves meanwhile. What it moves it chose before, so a move of a
    /// block that is among the host's comes too late.
    pub fn commit(&mut self, now_secs: u32, host: &[u32], settle_blocks: u64, is_idle: bool) {
        self.settling.earn(settle_blocks);
        let allowance = Allowance {
            credit_blocks: self.credit.blocks(),
            settle_blocks: self.settling.blocks(),
            is_idle,
        };
        let plan = plan(&self.table, &self.policy, now_secs, allowance);
        self.credit.spend(plan.spent(Purse::Credit));
        self.settling.spend(plan.spent(Purse::Settling));
        self.credit.earn(host.len() as u64);
        self.commit += 1;
        let collected = self.collect(&plan, now_secs);
        let written = self.write(host, now_secs);
        let made: Vec<_> = collected.packs.iter().chain(&written).map(|(id, _)| *id).collect();
        let victims = plan.victims.iter().map(|victim| victim.pack);
        let mut cycle = Cycle::new(made, plan.give_up.iter().copied().chain(victims).collect());
        let in_turn = "the steps are taken in order";
        cycle.stored().expect(in_turn);
        cycle.offering().expect(in_turn);
        cycle.answered(Answer::Accepted).expect(in_turn);
        self.accept_host(&written, now_secs);
        self.accept_moves(&plan.victims, collected);
        for id in cycle.give_up().expect(in_turn) {
            self.table.give_up(*id).expect("nothing of it is needed");
            self.at_peers.remove(id);
        }
    }

    /// Pins the state of the last commit.
    pub fn snapshot(&mut self) -> SnapshotId {
        let id = self
            .snapshots
            .take(self.head, self.commit)
            .expect("commits are numbered upwards");
        let pinned = Pinned {
            commit: self.commit,
            map: self.map.clone(),
            contents: self.contents.clone(),
        };
        self.pinned.insert(id, pinned);
        self.table.set_snapshots(self.snapshots.commits().collect());
        id
    }

    /// Deletes a snapshot.
    pub fn delete(&mut self, id: SnapshotId) {
        let freed = self
            .snapshots
            .delete(id, Vec::new)
            .expect("it was taken, and not cloned");
        for blocks in freed {
            let freed = self.table.unpin(blocks.place.pack, blocks.count);
            freed.expect("the snapshot pinned them");
        }
        self.pinned.remove(&id);
        self.relocations
            .prune(self.pinned.values().map(|pinned| pinned.commit).min());
        self.table.set_snapshots(self.snapshots.commits().collect());
    }

    /// Reads every block of the head and of all snapshots. Panics if one is not what was written, and if the table is not what a
    /// count of all blocks says.
    pub fn check(&self) {
        self.read_all(&self.map, &self.contents, "the head");
        let mut counts: BTreeMap<PackId, (u32, u32)> = BTreeMap::new();
        let live: BTreeSet<_> = self.map.iter().map(|(_, place)| place).collect();
        live.iter()
            .for_each(|place| counts.entry(place.pack).or_default().0 += 1);
        for pinned in self.pinned.values() {
            self.read_all(&pinned.map, &pinned.contents, "a snapshot");
        }
        for place in self.named_by_snapshots().difference(&live) {
            counts.entry(place.pack).or_default().1 += 1;
        }
        for (id, pack) in self.table.packs() {
            let counted = counts.remove(&id).unwrap_or_default();
            assert_eq!((pack.live, pack.pinned), counted, "{id:?}");
        }
        assert!(counts.is_empty(), "packs that the table does not know");
        assert!(self.table.packs().map(|(id, _)| id).eq(self.at_peers.keys().copied()));
    }

    /// How many records say where blocks of snapshots went.
    pub fn relocations(&self) -> usize {
        self.relocations.len()
    }

    fn read_all(&self, map: &DenseMap, contents: &[u64], whose: &str) {
        for (block, place) in map.iter() {
            let [(place, 1)] = self.relocations.resolve(place, 1)[..] else {
                panic!("block {block} of {whose} is at no one place");
            };
            let pack = self.at_peers.get(&place.pack);
            let pack = pack.unwrap_or_else(|| panic!("block {block} of {whose} was given up"));
            let (content, block) = (pack[place.slot as usize], block as u32);
            let write = contents[block as usize];
            assert_eq!(content, Content { block, write }, "of {whose}");
        }
    }

    fn named_by_snapshots(&self) -> BTreeSet<Place> {
        let maps = self.pinned.values().map(|pinned| &pinned.map);
        let places = maps.flat_map(|map| map.iter().map(|(_, place)| place));
        places
            .flat_map(|place| self.relocations.resolve(place, 1))
            .map(|(place, _)| place)
            .collect()
    }

    /// A pack with these contents, of which nothing is needed yet.
    fn put_pack(&mut self, contents: Vec<Content>, birth: u64, now_secs: u32) -> (PackId, Pack) {
        let id = PackId(self.next_pack);
        self.next_pack += 1;
        let pack = Pack {
            blocks: (contents.len() as u32)
                .next_multiple_of(self.policy.padded_blocks)
                .min(self.pack_blocks),
            live: 0,
            pinned: 0,
            birth,
            changed_secs: now_secs,
            mean_secs: now_secs,
        };
        self.at_peers.insert(id, contents);
        (id, pack)
    }

    /// Writes what is still needed of victims into packs of their own, each generation for itself, from cold to hot.
    fn collect(&mut self, plan: &Plan, now_secs: u32) -> Collected {
        let is_held = |victim: &Victim| self.table.is_in_snapshot(victim.was.birth);
        let named = if plan.victims.iter().any(is_held) {
            self.named_by_snapshots()
        } else {
            BTreeSet::new()
        };
        let mut collected = Collected::default();
        for victims in plan.victims.chunk_by(|left, right| left.generation == right.generation) {
            let birth = victims.iter().map(|victim| victim.was.birth).max().unwrap_or_default();
            let places: Vec<_> = victims
                .iter()
                .flat_map(|victim| self.needed(victim.pack, &named))
                .collect();
            for places in places.chunks(self.pack_blocks as usize) {
                let contents = places.iter().map(|(_, content)| *content).collect();
                let (pack, row) = self.put_pack(contents, birth, now_secs);
                self.moved_blocks += places.len() as u64;
                for (slot, (place, content)) in places.iter().enumerate() {
                    let from = Run {
                        start: u64::from(content.block),
                        count: 1,
                        place: *place,
                    };
                    let slot = slot as u32;
                    let to = Place { pack, slot };
                    if self.map.get(from.start) == Some(*place) {
                        collected.moves.push(Move { from, to });
                    }
                    if named.contains(place) {
                        collected.relocated.push(Move { from, to });
                    }
                }
                collected.packs.push((pack, row));
            }
        }
        collected
    }

    fn needed(&self, pack: PackId, named: &BTreeSet<Place>) -> Vec<(Place, Content)> {
        let contents = self.at_peers[&pack].iter().enumerate();
        let places = contents.map(|(slot, content)| {
            let slot = slot as u32;
            (Place { pack, slot }, *content)
        });
        let is_needed = |(place, content): &(Place, Content)| {
            self.map.get(u64::from(content.block)) == Some(*place) || named.contains(place)
        };
        places.filter(is_needed).collect()
    }

    fn write(&mut self, host: &[u32], now_secs: u32) -> Vec<(PackId, Pack)> {
        let mut packs = Vec::new();
        for blocks in host.chunks(self.pack_blocks as usize) {
            let mut contents = Vec::with_capacity(blocks.len());
            for block in blocks {
                self.writes += 1;
                self.contents[*block as usize] = self.writes;
                contents.push(Content {
                    block: *block,
                    write: self.writes,
                });
            }
            packs.push(self.put_pack(contents, self.commit, now_secs));
        }
        self.host_blocks += host.len() as u64;
        packs
    }

    fn accept_host(&mut self, packs: &[(PackId, Pack)], now_secs: u32) {
        let mut deaths: BTreeMap<PackId, (u32, u32)> = BTreeMap::new();
        for (pack, row) in packs {
            for slot in 0..self.at_peers[pack].len() as u32 {
                let start = u64::from(self.at_peers[pack][slot as usize].block);
                if let Some(old) = self.map.get(start) {
                    let of_pack = deaths.entry(old.pack).or_default();
                    match self.die(old) {
                        Fate::Freed => of_pack.0 += 1,
                        Fate::Pinned => of_pack.1 += 1,
                    }
                }
                let place = Place { pack: *pack, slot };
                self.map.set(Run { start, count: 1, place });
            }
            let live = self.at_peers[pack].len() as u32;
            let added = self.table.add(*pack, Pack { live, ..*row });
            added.expect("numbers are not used again");
        }
        for (id, (freed, pinned)) in deaths {
            let counted = self.table.free(id, freed, now_secs);
            let counted = counted.and_then(|()| self.table.pin(id, pinned, now_secs));
            counted.expect("the head named them");
        }
    }

    fn die(&mut self, place: Place) -> Fate {
        let birth = self
            .table
            .get(place.pack)
            .expect("the map names packs that are there")
            .birth;
        let blocks = Stretch { place, count: 1, birth };
        self.snapshots.die(self.head, blocks).expect("the head is there")
    }

    fn accept_moves(&mut self, victims: &[Victim], collected: Collected) {
        let held = apply(&mut self.map, &collected.moves);
        let mut counts: BTreeMap<PackId, (u32, u32)> = BTreeMap::new();
        held.iter()
            .for_each(|part| counts.entry(part.to.pack).or_default().0 += part.from.count);
        let live: BTreeSet<_> = held.iter().map(|part| part.to).collect();
        let mut fresh = Relocations::default();
        for part in &collected.relocated {
            for relocations in [&mut fresh, &mut self.relocations] {
                relocations.add(part.from.place, part.from.count, part.to, self.commit);
            }
            if !live.contains(&part.to) {
                counts.entry(part.to.pack).or_default().1 += 1;
            }
        }
        if !fresh.is_empty() {
            self.snapshots.relocate(&fresh);
        }
        for victim in victims {
            let moved = self.table.moved_away(victim.pack);
            moved.expect("victims are there until they are given up");
        }
        for (id, row) in collected.packs {
            let (live, pinned) = counts.remove(&id).unwrap_or_default();
            let added = self.table.add(id, Pack { live, pinned, ..row });
            added.expect("numbers are not used again");
        }
    }
}
