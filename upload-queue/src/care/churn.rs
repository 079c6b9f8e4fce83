//! Small grids over months: placing, watching and repairing together, against what friend grids died of.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::care::repair::{Copy, PackState, Place, Planner};
use crate::care::standing::{Patience, Standing, Watch};
use crate::peers::PeerKey;
use crate::placement::{Candidate, code_for, plan};

const HOUR: u64 = 3600;
/// Stored bytes of a small share.
const SHARE_BYTES: u64 = 264_736;
const TOLERATE: u8 = 2;

struct Grid {
    peers: Vec<Candidate>,
    used: BTreeMap<PeerKey, u64>,
    packs: Vec<PackState>,
    watch: Watch,
    puts: usize,
}

impl Grid {
    /// Friends with so many shares of room each; one of them each household.
    fn new(rooms: &[u64]) -> Self {
        let peer = |(number, room): (usize, &u64)| Candidate {
            key: PeerKey(format!("friend:{number}")),
            domain: format!("home {number}"),
            free_bytes: Some(room * SHARE_BYTES),
        };
        Self {
            peers: rooms.iter().enumerate().map(peer).collect(),
            used: BTreeMap::new(),
            packs: Vec::new(),
            watch: Watch::default(),
            puts: 0,
        }
    }

    fn free(&self, peer: &Candidate) -> Option<u64> {
        let used = self.used.get(&peer.key).copied().unwrap_or(0);
        peer.free_bytes.map(|room| room - used)
    }

    fn back_up(&mut self, count: usize, seed: u64) {
        for number in 0..count as u64 {
            let now: Vec<_> = self
                .peers
                .iter()
                .map(|peer| Candidate {
                    free_bytes: self.free(peer),
                    ..peer.clone()
                })
                .collect();
            let (k, n) = code_for(TOLERATE, now.len());
            let seed = seed.wrapping_add(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let placed = plan(&vec![None; usize::from(n)], &now, seed);
            let copies: Vec<_> = (0..)
                .zip(placed)
                .filter_map(|(index, peer)| Some(Copy { index, peer: peer? }))
                .collect();
            for copy in &copies {
                *self.used.entry(copy.peer.clone()).or_default() += SHARE_BYTES;
            }
            let on_the_way = Vec::new();
            self.packs.push(PackState {
                k,
                n,
                stored_bytes: SHARE_BYTES,
                seed,
                copies,
                on_the_way,
            });
        }
    }

    /// One look: who answers is noted, and plans are carried out at once.
    fn hour(&mut self, now: u64, up: impl Fn(usize) -> bool) {
        let patience = Patience::default();
        let answers: Vec<_> = self
            .peers
            .iter()
            .enumerate()
            .map(|(n, peer)| (peer.key.clone(), up(n)))
            .collect();
        self.watch.look(now, &answers, &patience);
        let places = self.peers.iter().zip(&answers).map(|(peer, (_, up))| Place {
            key: peer.key.clone(),
            domain: peer.domain.clone(),
            standing: self.watch.standing(&peer.key, &patience),
            free_bytes: if *up { self.free(peer) } else { Some(0) },
        });
        let mut planner = Planner::new(places.collect());
        for pack in &mut self.packs {
            for put in planner.plan(pack).puts {
                *self.used.entry(put.to.clone()).or_default() += SHARE_BYTES;
                pack.copies.push(Copy {
                    index: put.index,
                    peer: put.to,
                });
                self.puts += 1;
            }
        }
    }

    /// No domain has two shares of a pack, and no quota is exceeded.
    fn check(&self) {
        for pack in &self.packs {
            let domains: BTreeSet<_> = pack.copies.iter().map(|copy| &copy.peer).collect();
            assert_eq!(domains.len(), pack.copies.len(), "two shares of a pack in one domain");
        }
        for peer in &self.peers {
            let used = self.used.get(&peer.key).copied().unwrap_or(0);
            assert!(peer.free_bytes.is_none_or(|quota| used <= quota));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn one_to_four_friends_with_uneven_room_are_all_used_and_never_doubled(
        rooms in prop::collection::vec(1u64..200, 1..5), packs in 1usize..100, seed in any::<u64>(),
    ) {
        let mut grid = Grid::new(&rooms);
        grid.back_up(packs, seed);
        grid.check();
        for peer in &grid.peers {
            prop_assert!(grid.used.contains_key(&peer.key), "{} is empty", peer.key.0);
        }
        for hour in 0..48 {
            grid.hour(hour * HOUR, |_| true);
        }
        prop_assert_eq!(grid.puts, 0);
    }

    #[test]
    fn friends_that_come_and_go_daily_cause_no_repair(
        count in 1usize..5, on in 1u64..24, phase in 0u64..24, seed in any::<u64>(),
    ) {
        let mut grid = Grid::new(&vec![1000; count]);
        grid.back_up(20, seed);
        for hour in 0..30 * 24 {
            // Each at another time of day.
            grid.hour(hour * HOUR, |friend| (hour + phase + 5 * friend as u64) % 24 < on);
        }
        prop_assert_eq!(grid.puts, 0);
    }

    #[test]
    fn a_lost_friend_is_replaced_once_and_its_return_costs_nothing(
        count in 7usize..12, seed in any::<u64>(), away in 15u64..60,
    ) {
        let mut grid = Grid::new(&vec![1000; count]);
        grid.back_up(10, seed);
        let gone = PeerKey("friend:0".into());
        let at_gone = grid.packs.iter().filter(|pack| pack.copies.iter().any(|copy| copy.peer == gone)).count();
        // Away, back for a week, and again, for months.
        for hour in (0..150 * 24).step_by(3) {
            let in_cycle = (hour / 24) % (away + 7);
            grid.hour(hour * HOUR, |friend| friend != 0 || in_cycle >= away);
        }
        prop_assert_eq!(grid.puts, at_gone);
        for pack in &grid.packs {
            let counted: BTreeSet<_> = pack.copies.iter().filter(|copy| copy.peer != gone).map(|copy| copy.index).collect();
            prop_assert_eq!(counted.len(), usize::from(pack.n));
        }
    }

    #[test]
    fn a_friend_that_joins_gets_what_had_no_place(seed in any::<u64>()) {
        // Two of four are full from the start.
        let mut grid = Grid::new(&[100, 100, 1, 1]);
        grid.back_up(20, seed);
        grid.peers.push(Candidate { key: PeerKey("friend:4".into()), domain: "home 4".into(), free_bytes: Some(1000 * SHARE_BYTES) });
        for hour in 0..3 {
            grid.hour(hour * HOUR, |_| true);
        }
        grid.check();
        prop_assert!(grid.used[&PeerKey("friend:4".into())] >= 18 * SHARE_BYTES);
        let puts = grid.puts;
        for hour in 3..100 {
            grid.hour(hour * HOUR, |_| true);
        }
        prop_assert_eq!(grid.puts, puts);
    }
}

/// `Standing` is what the planner goes by, so its order is part of the contract: better first.
#[test]
fn standings_are_ordered_from_good_to_lost() {
    assert!(Standing::Good < Standing::Suspected && Standing::Suspected < Standing::Lost);
}
