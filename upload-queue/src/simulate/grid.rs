//! What the events of a simulated grid do to it.

use crate::care::repair::{Copy, PackPlan, PackState};
use crate::peers::PeerKey;
use crate::placement::{Candidate, plan};
use crate::planner::plan_code;
use crate::simulate::events::{Event, Queue};
use crate::simulate::friend::{Batch, Node};
use crate::simulate::random::Random;
use crate::simulate::report::{Report, Violation};
use crate::simulate::scenario::{Fault, Friend, Scenario};
use crate::simulate::state::{By, DAY_SECS, Grid, Helper, Owner, Pack, SHARES_MAX, WINDOW_SECS, YEAR_SECS};

const HELPER_LOOK_SECS: u64 = 12 * 3600;
/// Members get to know each other, and their owner's habits, for so long before it leaves.
const HELPERS_WATCH_DAYS: u64 = 40;

impl<'a> Grid<'a> {
    /// The grid at the moment at which its first backup is complete.
    pub(super) fn new(scenario: &'a Scenario, seed: u64) -> Self {
        let mut grid = Self {
            scenario,
            random: Random::new(seed),
            now: 0,
            queue: Queue::default(),
            nodes: Vec::new(),
            owner: Owner::default(),
            helpers: Vec::new(),
            packs: Vec::new(),
            transfers: Vec::new(),
            report: Report {
                grids: 1,
                years: scenario.years - scenario.warm_up_years,
                ..Report::default()
            },
            is_lost: false,
            code: scenario
                .code
                .unwrap_or_else(|| plan_code(scenario.tolerate, &scenario.domains())),
            first_puts_missing: 0,
            batches: 0,
        };
        for friend in &scenario.friends {
            grid.add(friend.clone());
        }
        for _ in 0..scenario.packs {
            grid.back_up();
        }
        grid.schedule();
        grid
    }

    fn schedule(&mut self) {
        let scenario = self.scenario;
        let first = scenario.owner.next_change(0, true, &mut self.random);
        let first_day = |days: u64| days * DAY_SECS;
        let mut at = vec![(Some(1), Event::Look), (Some(WINDOW_SECS), Event::Sample)];
        at.push((first, Event::OwnerToggle));
        if let Some((from, to)) = scenario.owner_away_days {
            at.push((Some(first_day(from)), Event::OwnerAway(true)));
            at.push((Some(first_day(to)), Event::OwnerAway(false)));
        }
        at.push((scenario.forget_days.map(first_day), Event::Forget));
        at.push(((scenario.clock_error_secs > 0).then_some(DAY_SECS), Event::Clock));
        for (secs, event) in at {
            if let Some(secs) = secs {
                self.queue.add(secs, event);
            }
        }
    }

    pub(super) fn run(mut self) -> Report {
        let end = (self.scenario.years * YEAR_SECS) as u64;
        while let Some((secs, event)) = self.queue.next().filter(|(secs, _)| *secs <= end) {
            self.now = secs;
            self.happen(event);
            if matches!(event, Event::Die(_) | Event::Arrive(_) | Event::Forget | Event::Look) {
                self.check_losses();
            }
        }
        self.check_end();
        self.report
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Toggle(node) => self.toggle(node),
            Event::OwnerToggle => {
                self.owner.is_on = !self.owner.is_on;
                let next = self
                    .scenario
                    .owner
                    .next_change(self.now, self.owner.is_on, &mut self.random);
                next.into_iter()
                    .for_each(|secs| self.queue.add(secs, Event::OwnerToggle));
            }
            Event::OwnerAway(away) => {
                self.owner.is_away = away;
                if away {
                    self.abandon(By::Owner);
                }
            }
            Event::Clock => {
                let range = 2.0 * self.scenario.clock_error_secs as f64;
                self.owner.clock_error_secs = (range * (self.random.unit() - 0.5)) as i64;
                self.queue.add(self.now + 61 * DAY_SECS, Event::Clock);
            }
            Event::Die(node) => self.die(node),
            Event::Join(node) => self.join(node),
            Event::Look => {
                self.look();
                self.queue.add(self.now + self.scenario.look_secs, Event::Look);
            }
            Event::HelperLook(node) => {
                self.helper_look(node);
                if self.nodes[node].is_alive && self.now < self.helped_days().1 * DAY_SECS {
                    self.queue.add(self.now + HELPER_LOOK_SECS, Event::HelperLook(node));
                }
            }
            Event::Arrive(transfer) => self.arrive(transfer),
            Event::Forget => {
                self.forget();
                let days = self.scenario.forget_days.unwrap_or(365).max(1);
                self.queue.add(self.now + days * DAY_SECS, Event::Forget);
            }
            Event::Sample => {
                self.sample();
                self.queue.add(self.now + WINDOW_SECS, Event::Sample);
            }
        }
    }

    fn add(&mut self, friend: Friend) {
        let number = self.nodes.len();
        let node = Node::new(number, friend, self.now);
        if let Some(secs) = node.friend.habit.next_change(self.now, true, &mut self.random) {
            self.queue.add(secs, Event::Toggle(number));
        }
        if self.scenario.losses_per_year > 0.0 {
            let life = self.random.exponential(YEAR_SECS / self.scenario.losses_per_year);
            self.queue.add(self.now.saturating_add(life as u64), Event::Die(number));
        }
        if self.scenario.owner_away_days.is_some() {
            self.helpers.push(Helper::default());
            let first = self.now.max(self.helped_days().0 * DAY_SECS) + 1;
            self.queue.add(first, Event::HelperLook(number));
        }
        self.nodes.push(node);
    }

    /// From which day to which members are simulated: at other times they only watch.
    fn helped_days(&self) -> (u64, u64) {
        let (from, to) = self.scenario.owner_away_days.unwrap_or_default();
        (from.saturating_sub(HELPERS_WATCH_DAYS), to + HELPERS_WATCH_DAYS)
    }

    fn toggle(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if !node.is_alive {
            return;
        }
        (node.is_up, node.up_secs) = (!node.is_up, self.now);
        if let Some(secs) = node.friend.habit.next_change(self.now, node.is_up, &mut self.random) {
            self.queue.add(secs, Event::Toggle(number));
        }
    }

    fn die(&mut self, number: usize) {
        self.nodes[number].is_alive = false;
        self.report.deaths += 1;
        self.report.causes += 1;
        self.abandon(By::Friend(number));
        for pack in 0..self.packs.len() {
            let had = self.nodes[number].of_pack(pack).intact;
            let gone = had & !self.existing(pack);
            for (index, since) in self.packs[pack].gone_since.iter_mut().enumerate() {
                if gone & 1 << index != 0 {
                    *since = Some(self.now);
                }
            }
        }
        if let Some(days) = self.scenario.replace_days {
            let mean = days * DAY_SECS as f64;
            let exactly = self.scenario.replace_exactly;
            let wait = if exactly { mean } else { self.random.exponential(mean) };
            self.queue.add(self.now + wait as u64, Event::Join(number));
        }
    }

    /// An honest friend, otherwise like the lost one, takes its place in the owner's list.
    fn join(&mut self, gone: usize) {
        self.nodes[gone].is_listed = false;
        let key = self.nodes[gone].key.clone();
        for pack in &mut self.packs {
            pack.state.copies.retain(|copy| copy.peer != key);
        }
        let friend = Friend {
            fault: Fault::None,
            ..self.nodes[gone].friend.clone()
        };
        self.add(friend);
        self.report.joins += 1;
        self.report.causes += 1;
        self.owner.has_news = true;
    }

    /// Makes a pack. The first ones are complete at once, later ones are sent.
    fn back_up(&mut self) {
        let (k, n) = self.code;
        let number = self.packs.len();
        let stored_bytes = self.scenario.pack_bytes / u64::from(k);
        let seed = self.random.bits();
        let candidates: Vec<Candidate> = self.candidates(stored_bytes);
        let placed = plan(&vec![None; usize::from(n)], &candidates, seed);
        self.packs.push(Pack {
            state: PackState {
                k,
                n,
                stored_bytes,
                seed,
                copies: Vec::new(),
                on_the_way: Vec::new(),
            },
            // Nothing to be alarmed about until it was planned once.
            plan: PackPlan {
                good: k,
                ..PackPlan::default()
            },
            is_retired: false,
            is_established: false,
            has_alarm: false,
            silent_secs: 0,
            hollow_secs: 0,
            short_since: None,
            is_told: false,
            gone_since: [None; SHARES_MAX],
        });
        for (index, key) in (0..).zip(placed) {
            let Some(to) = key.and_then(|key| self.number_of(&key)) else {
                self.first_puts_missing += 1;
                continue;
            };
            self.check_put(number, to);
            if self.now > 0 {
                self.send(number, index, to, By::Owner, None);
            } else if self.nodes[to].put(number, index, stored_bytes, 0, &mut self.random) {
                let peer = self.nodes[to].key.clone();
                self.packs[number].state.copies.push(Copy { index, peer });
            }
        }
    }

    fn candidates(&self, stored_bytes: u64) -> Vec<Candidate> {
        let good = self.nodes.iter().filter(|node| self.owner.counts_on(node));
        good.map(|node| Candidate {
            key: node.key.clone(),
            domain: node.domain.clone(),
            free_bytes: Some(node.free_bytes().saturating_sub(self.promised(&node.key))),
        })
        .filter(|candidate| candidate.free_bytes >= Some(stored_bytes))
        .collect()
    }

    /// The oldest pack is forgotten and another one made. Only an order that the owner signed is obeyed.
    fn forget(&mut self) {
        let Some(pack) = self.packs.iter().position(|pack| !pack.is_retired) else {
            return;
        };
        if !self.owner.is_up() {
            return;
        }
        self.batches += 1;
        let forged = Batch {
            by_owner: false,
            number: self.batches + 1,
            pack: self.packs.len() - 1,
        };
        let batch = Batch {
            by_owner: true,
            number: self.batches,
            pack,
        };
        for node in self.nodes.iter_mut().filter(|node| node.answers()) {
            if node.delete(&forged, self.now) {
                self.report.violations.push(Violation {
                    secs: self.now,
                    what: format!("{} obeyed a forged order to delete", node.key.0),
                });
            }
            node.delete(&batch, self.now);
        }
        self.packs[pack].is_retired = true;
        self.back_up();
        self.owner.has_news = true;
    }

    pub(super) fn number_of(&self, key: &PeerKey) -> Option<usize> {
        self.nodes.iter().position(|node| node.key == *key)
    }
}
