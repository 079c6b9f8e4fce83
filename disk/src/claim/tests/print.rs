//! States that differ in the order of their voters or of their messages alone are one: what is known of each voter is hashed by
//! itself, and the hashes are sorted.

use std::hash::{Hash, Hasher};

use super::variant::Variant;
use super::world::{History, Scenario, World};
use crate::claim::quorum::VoterSet;
use crate::claim::writer::{Phase, Writer};

impl World {
    /// The same for worlds that differ in the order of their voters or of their messages alone.
    pub fn fingerprint(&self, scenario: &Scenario) -> u64 {
        let mut voters: Vec<u64> = (0..self.voters.len())
            .map(|voter| self.voter_print(scenario, voter))
            .collect();
        voters.sort_unstable();
        let mut all = Fold::default();
        voters.hash(&mut all);
        (self.ticks, self.accepted, &self.accepted_by, &self.named).hash(&mut all);
        for actor in &self.actors {
            (actor.life, &actor.head, actor.commits_left, actor.restarts_left).hash(&mut all);
            (actor.lag, actor.found, actor.released, actor.wants, actor.asked).hash(&mut all);
            without_marks(&actor.writer).hash(&mut all);
        }
        all.finish()
    }

    fn voter_print(&self, scenario: &Scenario, number: usize) -> u64 {
        let voter = &self.voters[number];
        let sum = |prints: &mut dyn Iterator<Item = u64>| prints.fold(0_u64, u64::wrapping_add);
        let mut all = Fold::default();
        let sets = scenario.sets.iter();
        sets.for_each(|set| set.contains(&(number as u8)).hash(&mut all));
        (voter.promise, &voter.heads, &voter.early).hash(&mut all);
        if scenario.variant == Variant::VoterRestored {
            voter.promise_before.hash(&mut all);
        }
        sum(&mut voter.requests.iter().map(print)).hash(&mut all);
        sum(&mut voter.replies.iter().map(print)).hash(&mut all);
        for actor in &self.actors {
            marks(&actor.writer, number as u8).hash(&mut all);
        }
        all.finish()
    }
}

/// What a writer notes of one voter.
fn marks(writer: &Writer<History>, voter: u8) -> [bool; 4] {
    let mut marks = [false; 4];
    for (mark, set) in marks.iter_mut().zip(sets(&mut writer.clone())) {
        *mark = set.contains(voter);
    }
    marks
}

pub fn without_marks(writer: &Writer<History>) -> Writer<History> {
    let mut without = writer.clone();
    sets(&mut without)
        .into_iter()
        .for_each(|set| *set = VoterSet::default());
    without
}

/// The sets of voters in a writer, always in one order.
fn sets(writer: &mut Writer<History>) -> Vec<&mut VoterSet> {
    match &mut writer.phase {
        Phase::Looking { seen, .. } => vec![seen],
        Phase::Claiming { promised, refused, .. } => vec![promised, refused],
        Phase::Gathering { promised, told, .. } => vec![promised, told],
        Phase::Holding(held) => {
            let heads = [&mut held.accepted, &mut held.pending];
            let took = heads.into_iter().flatten().map(|head| &mut head.took);
            let round = held.round.iter_mut().map(|round| &mut round.confirmed);
            took.chain(round).chain([&mut held.refused]).collect()
        }
        Phase::Found { .. } | Phase::Fenced { .. } => Vec::new(),
    }
}

fn print(what: &impl Hash) -> u64 {
    let mut fold = Fold::default();
    what.hash(&mut fold);
    fold.finish()
}

/// A quick hash: nobody chooses what comes in.
#[derive(Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xa076_1d64_78bd_642f;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
        self.0 = self.0.rotate_left(23).wrapping_add(word);
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
}
