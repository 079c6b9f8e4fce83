//! Which packs are collected next, and which are given up: a pure function of the table.

use std::ops::RangeInclusive;

use super::policy::Policy;
use super::table::{CLASSES, Pack, PackId, Table};

/// What a plan may spend, and on what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Blocks that may be moved because the host wrote as many.
    pub credit_blocks: u64,
    /// Blocks that may be moved to settle down, by the rate that the caller has for it.
    pub settle_blocks: u64,
    /// Whether the host has not written for `IDLE_SECS`: then all packs settle, otherwise the write-cold ones.
    pub is_idle: bool,
}

/// What pays for a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purse {
    /// What the host wrote.
    Credit,
    /// The rate for settling down.
    Settling,
}

/// A pack that is collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Victim {
    /// Which.
    pub pack: PackId,
    /// Between which two snapshots it was born. What is moved is packed together only within one.
    pub generation: usize,
    /// What was known of it.
    pub was: Pack,
    /// What it is moved for.
    pub purse: Purse,
}

/// What to do next. It holds for the table that it was made from: the next one is made when the commit with these moves was
/// accepted and is in the table, or is known to come to nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Packs of which nothing is needed in the newest accepted commit.
    pub give_up: Vec<PackId>,
    /// Packs to be moved, in the order in which their blocks are to be packed: by generation, then from cold to hot.
    pub victims: Vec<Victim>,
}

impl Plan {
    /// Blocks that are moved for credit, or to settle down.
    pub fn spent(&self, purse: Purse) -> u64 {
        let of_purse = self.victims.iter().filter(|victim| victim.purse == purse);
        of_purse.map(|victim| u64::from(victim.was.needed())).sum()
    }
}

/// Who is next in each class.
struct Candidates<'a> {
    table: &'a Table,
    next: [Option<PackId>; CLASSES],
    now_secs: u32,
}

impl<'a> Candidates<'a> {
    fn new(table: &'a Table, now_secs: u32) -> Self {
        Self {
            table,
            next: std::array::from_fn(|class| table.coldest(class)),
            now_secs,
        }
    }

    fn get(&self, class: usize) -> Option<(PackId, Pack)> {
        let id = self.next[class]?;
        Some((id, self.table.get(id)?))
    }

    fn take(&mut self, id: PackId, class: usize) {
        self.next[class] = self.table.after(id);
    }

    /// As a fraction, of what it gains to move a pack.
    fn gain(&self, pack: &Pack) -> (u128, u128) {
        gain(pack, self.now_secs.saturating_sub(pack.mean_secs))
    }

    /// The one that gains most. Within a class, packs differ by less than a hundredth, so the coldest of each stands for it.
    fn most_gain(&self, classes: RangeInclusive<usize>) -> Option<(PackId, Pack)> {
        classes.filter_map(|class| self.get(class)).reduce(|best, other| {
            let (left, right) = (self.gain(&best.1), self.gain(&other.1));
            if right.0 * left.1 > left.0 * right.1 {
                other
            } else {
                best
            }
        })
    }

    /// The emptiest one that has not changed for so long.
    fn emptiest(&self, classes: RangeInclusive<usize>, unchanged_secs: u32) -> Option<(PackId, Pack)> {
        let mut coldest = classes.filter_map(|class| self.get(class));
        coldest.find(|(_, pack)| self.now_secs.saturating_sub(pack.changed_secs) >= unchanged_secs)
    }
}

/// What moving a pack gains for what it costs, (1 − u) × age / (1 + u), as a fraction: u blocks are read and written to free 1 − u, and
/// what has not changed for long will not free more by waiting (Rosenblum and Ousterhout, SOSP 1991, §3.5).
fn gain(pack: &Pack, age_secs: u32) -> (u128, u128) {
    let (blocks, needed) = (u128::from(pack.blocks), u128::from(pack.needed()));
    ((blocks - needed) * (u128::from(age_secs) + 1), blocks + needed)
}

/// What would be stored and needed if the plan so far were carried out.
struct Outlook {
    stored: u64,
    needed: u64,
}

impl Outlook {
    fn is_settled(&self, policy: &Policy) -> bool {
        self.stored * 100 <= self.needed * u64::from(policy.settled_percent)
    }
}

/// What to do at a time, in seconds of the volume's age. The same table gives the same plan. It looks at each list once for
/// each victim, however many packs there are.
pub fn plan(table: &Table, policy: &Policy, now_secs: u32, allowance: Allowance) -> Plan {
    let mut plan = Plan::default();
    let mut candidates = Candidates::new(table, now_secs);
    let movable = table.movable();
    let mut outlook = Outlook {
        stored: movable.blocks,
        needed: movable.needed(),
    };
    while let Some((id, pack)) = candidates.get(0).filter(|_| plan.give_up.len() < policy.plan_packs_max) {
        candidates.take(id, 0);
        outlook.stored -= u64::from(pack.blocks);
        plan.give_up.push(id);
    }
    let for_credit = 1..=policy.victim_percent as usize;
    let to_settle = 1..=policy.settling_percent() as usize;
    let unchanged_secs = if allowance.is_idle { 0 } else { policy.cold_secs };
    let (mut credit, mut settle) = (allowance.credit_blocks, allowance.settle_blocks);
    let padding_max = u64::from(policy.padded_blocks - 1);
    let mut purse = Purse::Credit;
    while plan.victims.len() < policy.plan_packs_max && !outlook.is_settled(policy) {
        let (found, left) = match purse {
            Purse::Credit => (candidates.most_gain(for_credit.clone()), &mut credit),
            Purse::Settling => (candidates.emptiest(to_settle.clone(), unchanged_secs), &mut settle),
        };
        match found.filter(|(_, pack)| u64::from(pack.needed()) <= *left) {
            Some((id, pack)) => {
                // The last pack of what is moved may be padded.
                outlook.stored += if plan.victims.is_empty() { padding_max } else { 0 };
                *left -= u64::from(pack.needed());
                outlook.stored -= u64::from(pack.blocks - pack.needed());
                candidates.take(id, pack.class());
                plan.victims.push(Victim {
                    pack: id,
                    generation: table.generation(pack.birth),
                    was: pack,
                    purse,
                });
            }
            // Who comes first and is too dear is waited for: smaller ones would take its turn for ever.
            None if purse == Purse::Credit => purse = Purse::Settling,
            None => break,
        }
    }
    plan.victims
        .sort_by_key(|victim| (victim.generation, victim.was.mean_secs, victim.pack));
    plan.victims = worth_moving(&plan.victims, policy);
    plan
}

/// Without generations that would take as much room as before, for their padding: they would be moved again and again.
fn worth_moving(victims: &[Victim], policy: &Policy) -> Vec<Victim> {
    let gains = |victims: &&[Victim]| {
        let needed: u64 = victims.iter().map(|victim| u64::from(victim.was.needed())).sum();
        let blocks: u64 = victims.iter().map(|victim| u64::from(victim.was.blocks)).sum();
        needed.next_multiple_of(u64::from(policy.padded_blocks)) < blocks
    };
    let generations = victims.chunk_by(|left, right| left.generation == right.generation);
    generations.filter(gains).flatten().copied().collect()
}

#[cfg(test)]
mod tests;
