//! Which shares of a pack to build anew, and where to put them.
//!
//! Shares are counted on distinct failure domains only. What lies at a lost peer is missing; what lies at a suspected one
//! counts, unless so little is left that waiting is the greater risk. So a peer that comes and goes causes no repair, and
//! one that is lost causes each share to be built once: when it returns, its copies are one more, and count again where
//! nothing replaced them. A share that shares its domain with another one of its pack moves to a free domain when there is
//! one. Nothing is ever put on a domain that has a share of the pack, and nothing is planned that changes nothing: a grid
//! in which all plans were carried out plans nothing more.
//!
//! A pack never gets more than its n shares: their ids are in the signed manifest. New friends fill what had no place.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::care::matching::Matching;
use crate::care::standing::Standing;
use crate::peers::PeerKey;
use crate::placement::shuffled;

/// Shares beyond k at good peers, up to which suspected peers are no longer waited for.
const EMERGENCY_SPARE: usize = 1;

/// A peer, as far as placing is concerned.
#[derive(Clone, PartialEq, Debug)]
pub struct Place {
    /// The peer.
    pub key: PeerKey,
    /// Its failure domain.
    pub domain: String,
    /// May what it holds be counted on?
    pub standing: Standing,
    /// Bytes it still takes, if known; 0 for a peer that is given nothing.
    pub free_bytes: Option<u64>,
}

/// One share where it is believed to be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Copy {
    /// Its number in the manifest.
    pub index: u8,
    /// Who has it.
    pub peer: PeerKey,
}

/// A pack and what is believed of its shares.
#[derive(Clone, PartialEq, Debug)]
pub struct PackState {
    /// Shares needed. With 1, all shares are the same bytes and stand for each other.
    pub k: u8,
    /// Shares it has.
    pub n: u8,
    /// Bytes of a share in stored form.
    pub stored_bytes: u64,
    /// Random number of the pack (from its id), which spreads packs over peers.
    pub seed: u64,
    /// Its shares at peers. Copies at peers that the planner does not know count as lost.
    pub copies: Vec<Copy>,
    /// Shares that are on their way already, and where to: they take their domains, but count for nothing else.
    pub on_the_way: Vec<Copy>,
}

/// One share to put.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    /// Its number in the manifest.
    pub index: u8,
    /// Where it goes.
    pub to: PeerKey,
    /// A peer that has it, if any does; else it is built from k others.
    pub from: Option<PeerKey>,
}

/// What a pack needs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PackPlan {
    /// Distinct domains with a share at a good peer.
    pub good: u8,
    /// Distinct domains with a share at a peer that is not lost.
    pub counted: u8,
    /// `counted`, once `puts` and what is on its way have arrived.
    pub after: u8,
    /// Different shares at peers that are not lost: with fewer than k nothing can be built from them.
    pub sources: u8,
    /// What to put.
    pub puts: Vec<Put>,
}

/// Plans packs one after the other, and remembers the space that its plans take.
#[derive(Clone, Debug)]
pub struct Planner {
    places: Vec<Place>,
    by_key: BTreeMap<PeerKey, usize>,
    /// Of each place, the number of its domain.
    domains: Vec<usize>,
    domain_count: usize,
}

impl Planner {
    /// With these peers.
    pub fn new(places: Vec<Place>) -> Self {
        let names: BTreeSet<&str> = places.iter().map(|place| place.domain.as_str()).collect();
        let number: BTreeMap<&str, usize> = names.iter().enumerate().map(|(number, name)| (*name, number)).collect();
        Self {
            by_key: places
                .iter()
                .enumerate()
                .map(|(at, place)| (place.key.clone(), at))
                .collect(),
            domains: places.iter().map(|place| number[place.domain.as_str()]).collect(),
            domain_count: names.len(),
            places,
        }
    }

    /// What `pack` needs now. The space for it is taken.
    pub fn plan(&mut self, pack: &PackState) -> PackPlan {
        let good = self.matched(pack, |standing| standing == Standing::Good);
        let counted = self.counted(pack, good.clone());
        let mut plan = PackPlan {
            good: good.size() as u8,
            counted: counted.size() as u8,
            sources: self.sources(pack),
            ..PackPlan::default()
        };
        let emergency = usize::from(plan.good) <= usize::from(pack.k) + EMERGENCY_SPARE;
        let kept = if emergency { good } else { counted };
        let mut taken: BTreeSet<usize> = (0..self.domain_count)
            .filter(|domain| kept.has_domain(*domain))
            .collect();
        let mut missing: Vec<u8> = (0..pack.n)
            .filter(|index| !kept.has_share(usize::from(*index)))
            .collect();
        for copy in &pack.on_the_way {
            if let Some(&at) = self.by_key.get(&copy.peer) {
                taken.insert(self.domains[at]);
                missing.retain(|index| *index != copy.index);
            }
        }
        let surplus = self.counted_copies(pack, |standing| standing != Standing::Lost);
        let mut held: BTreeSet<usize> = surplus.map(|(_, domain)| domain).chain(taken.iter().copied()).collect();
        let arriving = usize::from(pack.n) - missing.len() - kept.size();
        for index in missing {
            // Where there is no share at all, else where there is only one too many.
            let Some(at) = self.best(pack, &held).or_else(|| self.best(pack, &taken)) else {
                break;
            };
            held.insert(self.domains[at]);
            taken.insert(self.domains[at]);
            self.take(at, pack.stored_bytes);
            plan.puts.push(Put {
                index,
                to: self.places[at].key.clone(),
                from: self.holder(pack, index),
            });
        }
        plan.after = (kept.size() + arriving + plan.puts.len()).max(usize::from(plan.counted)) as u8;
        plan
    }

    /// The matching of `good`, grown by what lies at suspected peers.
    fn counted(&self, pack: &PackState, good: Matching) -> Matching {
        let mut matching = good;
        self.grow(&mut matching, pack, |standing| standing != Standing::Lost);
        matching
    }

    fn matched(&self, pack: &PackState, counts: impl Fn(Standing) -> bool) -> Matching {
        let mut matching = Matching::new(usize::from(pack.n), self.domain_count);
        self.grow(&mut matching, pack, counts);
        matching
    }

    fn grow(&self, matching: &mut Matching, pack: &PackState, counts: impl Fn(Standing) -> bool) {
        let edges: Vec<(usize, usize)> = self.counted_copies(pack, counts).collect();
        matching.grow(edges.iter().copied());
        if pack.k == 1 {
            // Equal bytes: any of them stands for any index.
            let any =
                |(_, domain): &(usize, usize)| (0..usize::from(pack.n)).map(move |index| (index, *domain)).collect();
            matching.grow(edges.iter().flat_map(|edge| -> Vec<(usize, usize)> { any(edge) }));
        }
    }

    /// Share and domain of each copy that counts.
    fn counted_copies(
        &self,
        pack: &PackState,
        counts: impl Fn(Standing) -> bool,
    ) -> impl Iterator<Item = (usize, usize)> {
        pack.copies.iter().filter_map(move |copy| {
            let at = *self.by_key.get(&copy.peer)?;
            let within = copy.index < pack.n && counts(self.places[at].standing);
            within.then_some((usize::from(copy.index), self.domains[at]))
        })
    }

    fn sources(&self, pack: &PackState) -> u8 {
        let distinct: BTreeSet<usize> = self
            .counted_copies(pack, |standing| standing != Standing::Lost)
            .map(|(index, _)| index)
            .collect();
        distinct.len() as u8
    }

    /// A good peer that has the share, else a suspected one.
    fn holder(&self, pack: &PackState, index: u8) -> Option<PeerKey> {
        let copies = pack.copies.iter().filter(|copy| copy.index == index || pack.k == 1);
        let standing = copies.filter_map(|copy| Some((self.places[*self.by_key.get(&copy.peer)?].standing, copy)));
        let found = standing.filter(|(standing, _)| *standing != Standing::Lost).min();
        found.map(|(_, copy)| copy.peer.clone())
    }

    /// The good peer with most room on a domain that is not taken; among equals (by powers of two) the pack decides.
    fn best(&self, pack: &PackState, taken: &BTreeSet<usize>) -> Option<usize> {
        (0..self.places.len())
            .filter(|&at| {
                let place = &self.places[at];
                let room = place.free_bytes.is_none_or(|bytes| bytes >= pack.stored_bytes);
                place.standing == Standing::Good && room && !taken.contains(&self.domains[at])
            })
            .min_by_key(|&at| {
                let place = &self.places[at];
                let room = place.free_bytes.map_or(u64::BITS, |bytes| bytes.max(1).ilog2());
                (Reverse(room), shuffled(pack.seed, &place.key), &place.key)
            })
    }

    fn take(&mut self, at: usize, bytes: u64) {
        if let Some(free) = &mut self.places[at].free_bytes {
            *free = free.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: usize, standing: Standing) -> Place {
        Place {
            key: PeerKey(format!("friend:{number}")),
            domain: format!("home {number}"),
            standing,
            free_bytes: Some(1 << 30),
        }
    }

    fn copy(index: u8, peer: usize) -> Copy {
        Copy {
            index,
            peer: PeerKey(format!("friend:{peer}")),
        }
    }

    fn pack(k: u8, n: u8, copies: &[(u8, usize)]) -> PackState {
        PackState {
            k,
            n,
            stored_bytes: 264_736,
            seed: 7,
            copies: copies.iter().map(|(index, peer)| copy(*index, *peer)).collect(),
            on_the_way: Vec::new(),
        }
    }

    fn puts(plan: &PackPlan) -> Vec<(u8, &str, Option<&str>)> {
        plan.puts
            .iter()
            .map(|put| {
                (
                    put.index,
                    put.to.0.as_str(),
                    put.from.as_ref().map(|from| from.0.as_str()),
                )
            })
            .collect()
    }

    use Standing::{Good, Lost, Suspected};

    #[test]
    fn what_lies_at_a_lost_peer_is_built_anew_on_a_free_domain() {
        let mut planner = Planner::new((0..7).map(|n| place(n, if n == 2 { Lost } else { Good })).collect());
        let plan = planner.plan(&pack(3, 6, &[(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]));
        assert_eq!(puts(&plan), [(2, "friend:6", None)]);
        assert_eq!((plan.good, plan.counted, plan.after, plan.sources), (5, 5, 6, 5));
    }

    #[test]
    fn a_suspected_peer_is_waited_for_while_enough_is_left() {
        let shares: Vec<_> = (0..8).map(|n| (n as u8, n)).collect();
        let suspects = |count: usize| -> PackPlan {
            let standing = |n| if n < count { Suspected } else { Good };
            Planner::new((0..12).map(|n| place(n, standing(n))).collect()).plan(&pack(4, 8, &shares))
        };
        assert_eq!(suspects(1).puts, []);
        assert_eq!(suspects(2).puts, [], "six of eight left, four needed");
        assert_eq!(suspects(3).puts.len(), 3, "five left: as good as lost");
        assert_eq!(suspects(3).puts[0].from, Some(PeerKey("friend:0".into())));
    }

    #[test]
    fn without_a_free_domain_nothing_is_doubled() {
        let mut planner = Planner::new((0..3).map(|n| place(n, if n == 2 { Lost } else { Good })).collect());
        assert_eq!(planner.plan(&pack(1, 3, &[(0, 0), (1, 1), (2, 2)])).puts, []);
        assert_eq!(planner.plan(&pack(2, 3, &[(0, 0), (1, 1), (2, 2)])).puts, []);
    }

    #[test]
    fn a_returned_peer_s_shares_count_again_and_cause_no_work() {
        let mut planner = Planner::new((0..7).map(|n| place(n, Good)).collect());
        let all = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)];
        assert_eq!(planner.plan(&pack(3, 6, &all)).counted, 6);
        let twice: Vec<_> = all.into_iter().chain([(2, 6)]).collect();
        let plan = planner.plan(&pack(3, 6, &twice));
        assert_eq!((plan.counted, plan.puts.len()), (6, 0));
    }

    /// A returned friend still has share 2, which went elsewhere meanwhile: found by the simulation.
    #[test]
    fn a_share_goes_where_there_is_none_rather_than_where_one_is_too_many() {
        let mut places: Vec<_> = (0..8).map(|n| place(n, Good)).collect();
        places[7].free_bytes = Some(1 << 29);
        places[5].standing = Lost;
        let with_surplus = [(0, 0), (1, 1), (2, 2), (2, 6), (3, 3), (4, 4), (5, 5)];
        let plan = Planner::new(places.clone()).plan(&pack(3, 6, &with_surplus));
        assert_eq!(puts(&plan), [(5, "friend:7", None)], "though another has more room");
        places.truncate(7);
        let plan = Planner::new(places).plan(&pack(3, 6, &with_surplus));
        assert_eq!(plan.puts.len(), 1, "better beside a share too many than nowhere");
    }

    #[test]
    fn a_doubled_share_moves_to_a_domain_that_becomes_free() {
        let doubled = pack(2, 4, &[(0, 0), (1, 1), (2, 2), (3, 2)]);
        let mut before = Planner::new((0..3).map(|n| place(n, Good)).collect());
        assert_eq!(before.plan(&doubled).puts, []);
        let mut joined = Planner::new((0..4).map(|n| place(n, Good)).collect());
        assert_eq!(puts(&joined.plan(&doubled)), [(3, "friend:3", Some("friend:2"))]);
    }

    #[test]
    fn two_machines_of_one_household_are_one_domain() {
        let mut places: Vec<_> = (0..4).map(|n| place(n, Good)).collect();
        places[3].domain = places[2].domain.clone();
        let plan = Planner::new(places).plan(&pack(1, 4, &[(0, 0), (1, 1), (2, 2)]));
        assert_eq!(plan.puts, []);
    }

    #[test]
    fn copies_of_a_whole_stand_for_each_other() {
        // k = 1: index 0 twice is as good as 0 and 1.
        let mut planner = Planner::new((0..3).map(|n| place(n, Good)).collect());
        let plan = planner.plan(&pack(1, 3, &[(0, 0), (0, 1)]));
        assert_eq!((plan.counted, plan.puts.len()), (2, 1));
        assert_eq!(plan.puts[0].to.0, "friend:2");
        assert!(plan.puts[0].from.is_some());
    }

    #[test]
    fn what_is_on_its_way_is_not_planned_again() {
        let mut planner = Planner::new((0..4).map(|n| place(n, Good)).collect());
        let mut state = pack(2, 4, &[(0, 0), (1, 1)]);
        state.on_the_way = vec![copy(3, 2)];
        let plan = planner.plan(&state);
        assert_eq!(puts(&plan), [(2, "friend:3", None)]);
        assert_eq!(plan.after, 4);
    }

    #[test]
    fn a_plan_takes_the_space_that_it_needs() {
        let mut places: Vec<_> = (0..3).map(|n| place(n, Good)).collect();
        places[2].free_bytes = Some(300_000);
        let mut planner = Planner::new(places);
        let short = pack(1, 3, &[(0, 0), (1, 1)]);
        assert_eq!(planner.plan(&short).puts.len(), 1);
        assert_eq!(planner.plan(&short).puts.len(), 0);
    }
}
