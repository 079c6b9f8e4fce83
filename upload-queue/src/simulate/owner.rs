//! The owner's machine: it looks at its friends, audits them, and has repaired what is missing, by the code in `care`.

use crate::care::alarm;
use crate::care::audit::{Challenge, Held, Outcome, Rota};
use crate::care::repair::{PackPlan, Place, Planner};
use crate::care::standing::{Standing, Watch};
use crate::simulate::friend::{Node, place_of, share_id};
use crate::simulate::scenario::Fault;
use crate::simulate::state::{By, DAY_SECS, Grid};

/// Of audits, those that end because the line breaks, and those that end in some other way.
const OFFLINE: f64 = 0.005;
const UNKNOWN: f64 = 0.005;
/// Leaves of a large share: 4 MiB in leaves of 16 KiB.
const LEAVES: u32 = 256;
/// The clock of every simulated machine is at least this: the epoch is not special.
const CLOCK_SECS: u64 = 1_000_000_000;

impl Grid<'_> {
    /// What the owner's clock shows.
    fn clock(&self) -> u64 {
        (CLOCK_SECS + self.now).saturating_add_signed(self.owner.clock_error_secs)
    }

    pub(super) fn look(&mut self) {
        if !self.owner.is_up() {
            return;
        }
        self.owner.patience = self.scenario.patience;
        let listed = self.nodes.iter().filter(|node| node.is_listed);
        let answers: Vec<_> = listed.map(|node| (node.key.clone(), node.answers())).collect();
        let clock = self.clock();
        self.owner.watch.look(clock, &answers, &self.scenario.patience);
        for number in 0..self.nodes.len() {
            if self.nodes[number].is_listed && self.nodes[number].answers() {
                self.audit(number, clock);
            }
        }
        self.repair();
        let listened = self.now - std::mem::replace(&mut self.owner.looked_secs, self.now);
        self.check_alarms(listened.min(self.scenario.patience.suspect_after_secs / 2));
    }

    fn audit(&mut self, number: usize, clock: u64) {
        let pace = &self.scenario.pace;
        let random = self.random.bits();
        self.owner.rotas.resize(self.nodes.len(), None);
        let mut rota = self.owner.rotas[number].unwrap_or_else(|| Rota::new(clock, pace, random));
        if rota.is_due(clock) {
            let challenge = rota.challenge(&self.held(number), pace);
            if !challenge.leaves.is_empty() {
                let outcome = self.answer(number, &challenge);
                let leaves = challenge.leaves.len();
                let key = &self.nodes[number].key;
                self.owner.watch.audited(key, clock, leaves, &outcome);
                rota.settle(clock, &challenge, &outcome, pace, random);
                self.conclude(number, &outcome);
            }
        }
        self.owner.rotas[number] = Some(rota);
    }

    /// The shares that a friend should hold.
    fn held(&self, number: usize) -> Vec<Held> {
        let key = &self.nodes[number].key;
        let packs = self.packs.iter().enumerate().filter(|(_, pack)| !pack.is_retired);
        packs
            .flat_map(|(at, pack)| {
                let here = pack.state.copies.iter().filter(|copy| copy.peer == *key);
                here.map(move |copy| Held {
                    share: share_id(at, copy.index),
                    leaves: LEAVES,
                })
            })
            .collect()
    }

    fn answer(&mut self, number: usize, challenge: &Challenge) -> Outcome {
        let chance = self.random.unit();
        if chance < OFFLINE {
            Outcome::Offline
        } else if chance < OFFLINE + UNKNOWN {
            Outcome::Unknown
        } else {
            let node = &self.nodes[number];
            node.prove(&challenge.leaves, |pack| self.can_fetch(number, pack))
        }
    }

    /// Could a friend that did not keep its shares of a pack get them from others now?
    fn can_fetch(&self, number: usize, pack: usize) -> bool {
        match self.nodes[number].friend.fault {
            Fault::Colludes { with } => self.nodes[with].answers(),
            _ => {
                let others = self.nodes.iter().enumerate();
                let up = others.filter(|(other, node)| *other != number && node.answers());
                let mask = up.fold(0, |mask, (_, node)| mask | node.of_pack(pack).intact);
                mask.count_ones() >= u32::from(self.packs[pack].state.k)
            }
        }
    }

    /// Shares that were proved not to be there are not counted any more.
    fn conclude(&mut self, number: usize, outcome: &Outcome) {
        let node = &mut self.nodes[number];
        let record = self.owner.watch.peers.get(&node.key);
        let condemned = record.is_some_and(|record| record.proved_secs.is_some());
        let failed = matches!(outcome, Outcome::Failure { .. });
        if let Some(since) = node.fault_secs.filter(|_| !node.is_found && (failed || condemned)) {
            node.is_found = true;
            let kind = match node.friend.fault {
                Fault::None => "none",
                Fault::Drops { .. } => "drops",
                Fault::Stalls { .. } => "stalls",
                Fault::Corrupts { .. } => "corrupts",
                Fault::Relays => "relays",
                Fault::Colludes { .. } => "colludes",
            };
            self.report.found.entry(kind).or_default().add(self.now - since);
        }
        let Outcome::Failure { missing, damaged } = outcome else {
            return;
        };
        for share in missing.iter().chain(damaged) {
            let (pack, index) = place_of(*share);
            let copies = &mut self.packs[pack].state.copies;
            copies.retain(|copy| copy.index != index || copy.peer != node.key);
            self.report.causes += 1;
        }
        self.owner.has_news = true;
    }

    /// Peers as an observer sees them; what is off now takes nothing.
    pub(super) fn places(&self, watch: &Watch) -> Vec<Place> {
        let listed = self.nodes.iter().filter(|node| node.is_listed);
        let place = |node: &Node| Place {
            key: node.key.clone(),
            domain: node.domain.clone(),
            standing: watch.standing(&node.key, &self.scenario.patience),
            free_bytes: match node.answers() {
                true => Some(node.free_bytes().saturating_sub(self.promised(&node.key))),
                false => Some(0),
            },
        };
        listed.map(place).collect()
    }

    /// Plans anew when something has changed that a plan depends on, and daily while something is missing.
    fn repair(&mut self) {
        let standing = |node: &Node| self.owner.standing(node);
        let standings: Vec<Standing> = self.nodes.iter().map(standing).collect();
        let worse = standings
            .iter()
            .zip(&self.owner.standings)
            .filter(|(now, before)| now > before);
        self.report.causes += worse.count() as u64;
        let is_time = self.now >= self.owner.planned_secs + DAY_SECS && self.owner.is_short && self.has_place();
        if !self.owner.has_news && !is_time && standings == self.owner.standings {
            self.raise_alarms();
            return;
        }
        (self.owner.standings, self.owner.planned_secs) = (standings, self.now);
        (self.owner.has_news, self.owner.is_short) = (false, false);
        let mut planner = Planner::new(self.places(&self.owner.watch));
        for pack in 0..self.packs.len() {
            if self.packs[pack].is_retired {
                continue;
            }
            let plan = planner.plan(&self.packs[pack].state);
            self.owner.is_short |= plan.after < self.packs[pack].state.n;
            self.carry_out(pack, &plan, By::Owner);
            self.packs[pack].plan = plan;
        }
        self.raise_alarms();
    }

    /// Could a friend that is on take a share of a pack that is short, and has none of it?
    fn has_place(&self) -> bool {
        let open: Vec<&Node> = self
            .nodes
            .iter()
            .filter(|node| self.owner.counts_on(node) && node.answers())
            .collect();
        let packs = self.packs.iter().enumerate();
        let mut short = packs.filter(|(_, pack)| !pack.is_retired && pack.plan.after < pack.state.n);
        short.any(|(at, pack)| {
            let has_room = |node: &&&Node| node.free_bytes() >= pack.state.stored_bytes;
            let is_empty = |domain: &str| {
                let mut same = self.nodes.iter().filter(|node| node.is_listed && node.domain == domain);
                same.all(|node| node.of_pack(at).said == 0)
            };
            open.iter().filter(has_room).any(|node| is_empty(&node.domain))
        })
    }

    pub(super) fn carry_out(&mut self, pack: usize, plan: &PackPlan, by: By) {
        for put in &plan.puts {
            let Some(to) = self.number_of(&put.to) else { continue };
            let from = put.from.as_ref().and_then(|key| self.number_of(key));
            self.check_put(pack, to);
            self.report.repair_puts += 1;
            self.report.repair_bytes += self.packs[pack].state.stored_bytes;
            self.send(pack, put.index, to, by, from);
        }
    }

    /// Raises and ends alarms; they depend on time, too.
    fn raise_alarms(&mut self) {
        let (watch, patience) = (&self.owner.watch, &self.scenario.patience);
        let had_alarm = self.has_alarm();
        for pack in &mut self.packs {
            let alarm = alarm::of_pack(pack.state.k, &pack.plan, watch, patience);
            pack.has_alarm = alarm.is_some() && !pack.is_retired;
        }
        self.report.alarms += u64::from(self.has_alarm() && !had_alarm);
    }

    fn has_alarm(&self) -> bool {
        self.packs.iter().any(|pack| pack.has_alarm)
    }
}
