//! What must hold at every moment, and what is measured: by what is really there, which no machine in the grid knows.

use std::collections::BTreeSet;

use crate::care::standing::Standing;
use crate::simulate::friend::Node;
use crate::simulate::report::Violation;
use crate::simulate::scenario::Fault;
use crate::simulate::state::{DAY_SECS, Grid, WINDOW_SECS, YEAR_SECS};

/// Listened time after which shares that are said to be kept and are not must have been told: a friend that is on for
/// little of the day has to be met, and audited, once or twice.
const HOLLOW_SECS_MAX: u64 = 14 * DAY_SECS;

impl Grid<'_> {
    /// Shares of a pack, as a mask, that friends which satisfy `counts` really keep.
    fn mask(&self, pack: usize, counts: impl Fn(&Node) -> bool) -> u32 {
        self.nodes.iter().fold(0, |mask, node| {
            mask | match node.friend.fault {
                // What it took lies at its accomplice.
                Fault::Colludes { with } if counts(node) && counts(&self.nodes[with]) => node.of_pack(pack).said,
                Fault::Colludes { .. } => 0,
                _ if counts(node) => node.of_pack(pack).intact,
                _ => 0,
            }
        })
    }

    /// Shares of a pack that are somewhere.
    pub(super) fn existing(&self, pack: usize) -> u32 {
        self.mask(pack, |node| node.is_alive)
    }

    /// Different shares of a pack at friends that were on at some time since `secs`.
    pub(super) fn reachable(&self, pack: usize, secs: u64) -> u32 {
        self.mask(pack, |node| node.answered_since(secs)).count_ones()
    }

    pub(super) fn violated(&mut self, what: String) {
        let secs = self.now;
        self.report.violations.push(Violation { secs, what });
    }

    /// Counts the moments at which the friends alone could not restore everything any more.
    pub(super) fn check_losses(&mut self) {
        let mut any = false;
        for number in 0..self.packs.len() {
            if self.packs[number].is_retired {
                continue;
            }
            let is_enough = self.existing(number).count_ones() >= u32::from(self.packs[number].state.k);
            let pack = &mut self.packs[number];
            pack.is_established |= is_enough;
            any |= pack.is_established && !is_enough;
        }
        let counts = self.now as f64 >= self.scenario.warm_up_years * YEAR_SECS;
        self.report.losses += u64::from(any && !self.is_lost && counts);
        self.is_lost = any;
    }

    /// A share must not go to a domain that has one of its pack while another one with room has none.
    pub(super) fn check_put(&mut self, pack: usize, to: usize) {
        let state = &self.packs[pack].state;
        let holders = state.copies.iter().chain(&state.on_the_way).map(|copy| &copy.peer);
        let holders: BTreeSet<_> = holders.collect();
        let listed = || self.nodes.iter().filter(|node| node.is_listed);
        let taken: BTreeSet<&str> = listed()
            .filter(|node| holders.contains(&node.key) && self.owner.standing(node) != Standing::Lost)
            .map(|node| node.domain.as_str())
            .collect();
        let is_doubled = taken.contains(self.nodes[to].domain.as_str());
        let is_free = |node: &&Node| {
            let room = node.free_bytes().saturating_sub(self.promised(&node.key));
            let is_empty = !taken.contains(node.domain.as_str()) && !holders.contains(&node.key);
            is_empty && node.answers() && self.owner.counts_on(node) && room >= state.stored_bytes
        };
        if is_doubled && let Some(free) = listed().find(is_free) {
            let (to, free) = (&self.nodes[to], &free.domain);
            self.violated(format!("pack {pack} twice in {} while {free} had room", to.domain));
        }
    }

    /// No share is sent where the same one is believed to be.
    pub(super) fn check_repeat(&mut self, pack: usize, index: u8, to: usize) {
        let key = &self.nodes[to].key;
        let copies = &self.packs[pack].state.copies;
        if copies.iter().any(|copy| copy.index == index && copy.peer == *key) {
            self.violated(format!(
                "share {index} of pack {pack} was sent to {} twice",
                self.nodes[to].key.0
            ));
        }
    }

    /// Too few reachable shares are told in time. `listened`: seconds since the last look, as far as they count.
    pub(super) fn check_alarms(&mut self, listened: u64) {
        // Silence on all sides teaches nothing of one friend; it is an alarm of its own.
        let mut listed = self.nodes.iter().filter(|node| node.is_listed);
        let is_heard = listed.clone().count() == 1 || listed.any(Node::answers);
        let listened = if is_heard { listened } else { 0 };
        let since = self.now.saturating_sub(WINDOW_SECS);
        let silence_max = self.scenario.patience.suspect_after_secs * 3 / 2;
        for number in 0..self.packs.len() {
            let k = u32::from(self.packs[number].state.k);
            if self.packs[number].is_retired || !self.packs[number].is_established {
                continue;
            }
            let is_hollow = self.reachable(number, since) < k;
            let is_silent = is_hollow && self.believed(number, since) < k;
            let pack = &mut self.packs[number];
            let was_short = pack.short_since;
            pack.short_since = is_hollow.then(|| was_short.unwrap_or(self.now));
            let is_open = |is: bool, secs: u64| if is && !pack.has_alarm { secs + listened } else { 0 };
            (pack.silent_secs, pack.hollow_secs) = (
                is_open(is_silent, pack.silent_secs),
                is_open(is_hollow, pack.hollow_secs),
            );
            if let Some(since) = pack.short_since.filter(|_| pack.has_alarm) {
                if !pack.is_told {
                    self.report.alarm_delay.add(self.now - since);
                }
                pack.is_told = true;
            } else if pack.short_since.is_none() {
                pack.is_told = false;
            }
            let (silent, hollow) = (
                pack.silent_secs > silence_max,
                pack.hollow_secs > HOLLOW_SECS_MAX.max(silence_max),
            );
            if silent || hollow {
                (pack.silent_secs, pack.hollow_secs) = (0, 0);
                let why = if silent { "are silent" } else { "do not keep it" };
                self.violated(format!(
                    "too few shares of pack {number} went unreported: friends {why}"
                ));
            }
        }
    }

    /// Different shares of a pack that are believed to be at friends that were on at some time since `secs`.
    fn believed(&self, pack: usize, secs: u64) -> u32 {
        let is_there = |node: &&Node| node.is_listed && node.answered_since(secs);
        let said = self.nodes.iter().filter(is_there).map(|node| node.of_pack(pack).said);
        said.fold(0, |mask, said| mask | said).count_ones()
    }

    /// Notes what could be restored, empties trash, and looks through everything that is kept.
    pub(super) fn sample(&mut self) {
        let bytes: Vec<u64> = self.packs.iter().map(|pack| pack.state.stored_bytes).collect();
        let now = self.now;
        for node in self.nodes.iter_mut().filter(|node| node.answers()) {
            node.expire(now, |pack| bytes[pack]);
        }
        let live =
            || (0..self.packs.len()).filter(|&pack| !self.packs[pack].is_retired && self.packs[pack].is_established);
        let enough = |pack, secs| self.reachable(pack, secs) >= u32::from(self.packs[pack].state.k);
        let up_now = |pack| {
            let mask = self.mask(pack, Node::answers);
            mask.count_ones() >= u32::from(self.packs[pack].state.k)
        };
        let (is_now, is_soon) = (
            live().all(up_now),
            live().all(|pack| enough(pack, now.saturating_sub(WINDOW_SECS))),
        );
        self.report.samples += 1;
        self.report.restorable_now += u64::from(is_now);
        self.report.restorable_in_window += u64::from(is_soon);
        self.check_kept();
    }

    /// An honest friend keeps what it took until an order of the owner, and never more than it offers.
    fn check_kept(&mut self) {
        let mut found = Vec::new();
        for node in &self.nodes {
            let packs = self.packs.iter().enumerate();
            let used: u64 = packs
                .map(|(at, pack)| u64::from(node.of_pack(at).said.count_ones()) * pack.state.stored_bytes)
                .sum();
            if used != node.used_bytes || used > node.friend.room_bytes {
                found.push(format!("{} has {used} bytes of {}", node.key.0, node.friend.room_bytes));
            }
        }
        for (at, pack) in self.packs.iter().enumerate().filter(|(_, pack)| !pack.is_retired) {
            for copy in &pack.state.copies {
                let node = self.number_of(&copy.peer).map(|number| &self.nodes[number]);
                let honest = node.filter(|node| node.is_alive && node.friend.fault == Fault::None);
                if honest.is_some_and(|node| node.of_pack(at).intact & 1 << copy.index == 0) {
                    found.push(format!("{} lost a share of pack {at} without an order", copy.peer.0));
                }
            }
        }
        found.into_iter().for_each(|what| self.violated(what));
    }

    /// Repair must come to an end: no more of it than its causes explain.
    pub(super) fn check_end(&mut self) {
        let bound = self.report.causes * self.packs.len() as u64;
        if self.report.repair_puts > bound + self.first_puts_missing {
            self.violated(format!(
                "{} shares were repaired for {bound} reasons",
                self.report.repair_puts
            ));
        }
        let with_fault = self
            .nodes
            .iter()
            .filter(|node| node.fault_secs.is_some() && !node.is_found);
        self.report.unfound += with_fault.count() as u64;
    }
}
