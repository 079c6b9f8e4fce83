//! Repair by members who cannot read: which of a pack's holders repairs it while its owner is away.
//!
//! All holders know the same pack id and, roughly, the same holders. Each ranks itself; the first acts at once, the others
//! later, one after the other, if the pack is still not whole. Two that act at once do the same work on the same place
//! (plans follow from the pack): wasteful, never harmful.

use std::collections::BTreeMap;

use proto::id::PackId;

use crate::peers::PeerKey;
use crate::placement::shuffled;

/// How long an owner is silent until members repair for it, and how long each waits for the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turns {
    /// Seconds from first seeing a pack short until the first holder acts.
    pub first_secs: u64,
    /// Seconds that each further holder waits longer.
    pub step_secs: u64,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            first_secs: 0,
            step_secs: 6 * 3600,
        }
    }
}

/// Random number of a pack: the same on all members.
pub fn seed_of(pack: PackId) -> u64 {
    u64::from_le_bytes(*pack.0.first_chunk().expect("an id is longer than 8 bytes"))
}

/// The place of `own` in the order in which holders repair `pack`; `None` if it is not among them.
pub fn rank(pack: PackId, holders: &[PeerKey], own: &PeerKey) -> Option<usize> {
    let score = |key: &PeerKey| (shuffled(!seed_of(pack), key), key.clone());
    if !holders.contains(own) {
        return None;
    }
    let mine = score(own);
    Some(holders.iter().filter(|key| score(key) < mine).count())
}

/// Packs seen short of shares, and since when.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Short(BTreeMap<PackId, u64>);

impl Short {
    /// Forgets packs that are whole again.
    pub fn keep(&mut self, short: impl Fn(&PackId) -> bool) {
        self.0.retain(|pack, _| short(pack));
    }

    /// Notes that a pack is short; is it this holder's turn?
    pub fn is_turn(&mut self, pack: PackId, rank: usize, now_secs: u64, turns: &Turns) -> bool {
        let since = *self.0.entry(pack).or_insert(now_secs);
        let wait = turns
            .first_secs
            .saturating_add(turns.step_secs.saturating_mul(rank as u64));
        now_secs.saturating_sub(since) >= wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: usize) -> Vec<PeerKey> {
        (0..count).map(|n| PeerKey(format!("friend:{n}"))).collect()
    }

    #[test]
    fn every_pack_has_one_first_helper_and_the_work_is_spread() {
        let holders = keys(6);
        let mut first = [0; 6];
        for number in 0..600u32 {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&number.to_le_bytes());
            let ranks: Vec<_> = holders.iter().map(|key| rank(PackId(id), &holders, key)).collect();
            let mut sorted: Vec<_> = ranks.iter().flatten().copied().collect();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4, 5]);
            first[ranks.iter().position(|rank| *rank == Some(0)).unwrap()] += 1;
        }
        assert!(first.iter().all(|count| (60..140).contains(count)), "{first:?}");
        assert_eq!(rank(PackId([0; 32]), &holders[1..], &holders[0]), None);
    }

    #[test]
    fn the_next_helper_waits_for_the_one_before_and_for_each_pack_anew() {
        let turns = Turns {
            first_secs: 10,
            step_secs: 100,
        };
        let (mut short, pack) = (Short::default(), PackId([1; 32]));
        assert!(!short.is_turn(pack, 0, 1000, &turns));
        assert!(short.is_turn(pack, 0, 1010, &turns));
        assert!(!short.is_turn(pack, 1, 1109, &turns));
        assert!(short.is_turn(pack, 1, 1110, &turns));
        short.keep(|_| false);
        assert!(!short.is_turn(pack, 0, 2000, &turns));
    }
}
