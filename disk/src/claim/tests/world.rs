//! Writers, voters and a network that loses, doubles and delays: all that is not yet delivered may be, at any time, in any order.
//!
//! A lost message is one that is not delivered any more; a voter that is away, one to which nothing is; a dead or sleeping writer, one
//! that hears nothing. A voter judges, stores and answers in one step: where it dies in between, either nothing happened or the
//! answer is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use proto::epoch::{Epoch, Verdict};
use proto::id::DeviceId;

use super::explorer::Random;
use super::print::without_marks;
use super::variant::{Pretended, Variant};
use crate::claim::quorum::Quorum;
use crate::claim::times::Times;
use crate::claim::writer::{Answer, Ask, Asked, Commit, Event, Handover, Offline, Phase, Rules, Service, Writer};

/// Which commits led to a state: the life of a writer in which each was made, and whether it is one that names other voters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct History {
    len: u8,
    lives: [u8; 31],
}

impl History {
    pub fn len(&self) -> u64 {
        self.len.into()
    }

    /// The same and one more.
    pub fn and(self, life: u8) -> Self {
        self.with(life, 0)
    }

    /// The same and one that names other voters, or, of kind `TAKEN`, that needs those before no more.
    pub fn with(mut self, life: u8, kind: u8) -> Self {
        self.lives[usize::from(self.len)] = life.min(LIFE) | kind << 5;
        self.len += 1;
        self
    }

    /// The voters that its root names.
    pub fn names(&self, variant: Variant) -> Named {
        let mut named = Named::default();
        for kind in self.lives[..usize::from(self.len)].iter().map(|made| made >> 5) {
            named = match kind {
                0 => named,
                TAKEN => Named { leaving: None, ..named },
                voters if variant == Variant::ReplacedInOneStep => Named { voters, leaving: None },
                voters => Named {
                    voters,
                    leaving: Some(named.voters),
                },
            };
        }
        named
    }

    pub fn leads_to(&self, later: &Self) -> bool {
        later.lives[..usize::from(later.len)].starts_with(&self.lives[..usize::from(self.len)])
    }
}

const LIFE: u8 = 31;
const TAKEN: u8 = 7;

/// The voters that a root names, and those before them as long as they are needed as well: by their place in `Scenario::sets`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Named {
    pub voters: u8,
    pub leaving: Option<u8>,
}

impl Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.lives[..usize::from(self.len)].fmt(f)
    }
}

pub type State = Commit<History>;

/// What is on its way to a voter.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Request {
    writer: u8,
    life: u8,
    /// The number of the head that is put.
    seq: u64,
    asked: Asked<History>,
}

/// What is on its way back.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Reply {
    writer: u8,
    life: u8,
    tag: u64,
    answer: Answer<History>,
}

/// A voter, and what is under way between it and the writers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Voter {
    pub promise: Option<Epoch>,
    /// What its promise was before (for one that is restored from an old copy).
    pub promise_before: Option<Epoch>,
    /// The newest head of each device, and its number.
    pub heads: [Option<(u64, State)>; 3],
    /// Heads as they were when promises were read, for whoever reads them too early.
    pub early: [Option<Vec<State>>; 3],
    pub requests: Vec<Request>,
    pub replies: Vec<Reply>,
}

/// A device, and the writer that runs on it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Actor {
    pub writer: Writer<History>,
    pub life: u8,
    /// The newest head that was written down, and its number.
    pub head: Option<(u64, State)>,
    pub commits_left: u8,
    pub restarts_left: u8,
    /// How far its clock is behind.
    pub lag: u8,
    /// What its takeover found.
    pub found: Option<(Epoch, History)>,
    /// Up to where its journal was released.
    pub released: History,
    /// Other voters that it is to name.
    pub wants: Option<u8>,
    /// Whom it asks.
    pub asked: Named,
}

/// What is tried.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub variant: Variant,
    pub voters: u8,
    /// Voters that a volume may have: those of the first it has at first.
    pub sets: Vec<Vec<u8>>,
    /// Which others each writer is to name.
    pub wants: Vec<Option<u8>>,
    /// How many commits each writer makes, in each of its lives.
    pub commits: Vec<u8>,
    /// How often each may end and take over anew.
    pub restarts: Vec<u8>,
    /// Whether the first has written something before the others come.
    pub first_serves: bool,
    pub handover: Handover,
    /// None: time stands still, and nobody waits for it.
    pub ticks: u8,
    /// How far clocks may fall behind.
    pub lag_max: u8,
    /// Whether some orders are left out that lead to nothing else: see `changes_nothing_yet`.
    pub is_reduced: bool,
}

impl Scenario {
    pub const TICK: Duration = Duration::from_secs(1);
    const TIMES: Times = Times {
        term: Duration::from_secs(2),
        margin: Duration::from_secs(1),
        renew_after: Duration::from_secs(1),
        stall: Duration::from_secs(1),
    };

    fn quorum(&self, named: Named) -> Quorum {
        let set = |at: u8| self.sets[usize::from(at)].iter().copied().collect();
        let (before, after) = (named.leaving.unwrap_or(named.voters), named.voters);
        let (before, after) = match self.variant {
            Variant::MinorityPromises => return Quorum::broken(self.voters, self.voters / 2),
            Variant::VotersBeforeAlone => (before, before),
            Variant::VotersAfterAlone => (after, after),
            _ => (before, after),
        };
        Quorum::joint(set(before), set(after)).unwrap()
    }

    /// Whom a writer asks that has seen a root which names these, and is to name others.
    fn asked(named: Named, wants: Option<u8>) -> Named {
        match wants.filter(|wants| named.leaving.is_none() && *wants != named.voters) {
            Some(voters) => Named {
                voters,
                leaving: Some(named.voters),
            },
            None => named,
        }
    }

    fn rules(&self, device: usize, asked: Named) -> Rules {
        let shared = self.variant == Variant::EpochsWithoutDevice;
        Rules {
            device: DeviceId([if shared { 1 } else { device as u8 + 1 }; 32]),
            quorum: self.quorum(asked),
            times: Self::TIMES,
            handover: self.handover,
            offline: Offline::Stop,
        }
    }
}

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// A voter gets a request.
    Deliver { voter: usize, at: usize },
    /// A writer gets an answer.
    Hear { voter: usize, at: usize },
    /// A writer looks whether there is something to ask.
    Wake { writer: usize },
    /// A writer ends, and its machine takes over anew, by voters that some head named once.
    TakeOver { writer: usize, by: Named },
    /// A writer begins to name other voters.
    Replace { writer: usize },
    /// A writer ends, and goes on as the one it was.
    Resume { writer: usize },
    /// Time goes by.
    Tick,
    /// Time goes by, but not for this clock.
    TickWithout { writer: usize },
    /// A voter is restored from an old copy.
    Restore { voter: usize },
}

/// Everything at a moment.
#[derive(Clone, Debug)]
pub struct World {
    pub voters: Vec<Voter>,
    pub actors: Vec<Actor>,
    pub ticks: u8,
    /// The longest history that was accepted.
    pub accepted: History,
    /// The longest history that was accepted of each epoch.
    pub accepted_by: BTreeMap<Epoch, History>,
    /// What heads that were written ever named.
    pub named: BTreeSet<Named>,
    variant: Variant,
}

type Broken = Result<(), String>;

impl World {
    pub fn new(scenario: &Scenario) -> Self {
        let actor = |at: usize| Actor {
            writer: Writer::take_over(scenario.rules(at, Named::default()), None),
            life: at as u8 + 1,
            head: None,
            commits_left: scenario.commits[at],
            restarts_left: scenario.restarts[at],
            lag: 0,
            found: None,
            released: History::default(),
            wants: scenario.wants[at],
            asked: Named::default(),
        };
        let mut world = Self {
            voters: vec![Voter::default(); scenario.voters.into()],
            actors: vec![actor(0)],
            ticks: 0,
            accepted: History::default(),
            accepted_by: BTreeMap::new(),
            named: BTreeSet::from([Named::default()]),
            variant: scenario.variant,
        };
        if scenario.first_serves {
            let whole = Scenario {
                variant: Variant::Right,
                handover: Handover::Forced,
                ticks: 0,
                ..scenario.clone()
            };
            (world.actors[0].commits_left, world.actors[0].wants) = (1, None);
            world.actors[0].writer.rules.handover = Handover::Forced;
            world.runs_alone(&whole, 0, &[true; 5]).unwrap();
            (world.actors[0].commits_left, world.actors[0].wants) = (scenario.commits[0], scenario.wants[0]);
        }
        world.actors.extend((1..scenario.commits.len()).map(actor));
        for at in 0..world.actors.len() {
            world.poll(scenario, at).unwrap();
        }
        world.prune(scenario, |_, _| true);
        world
    }

    /// Delivers between one writer and the voters that are there until it is accepted what it has to commit.
    pub fn runs_alone(&mut self, scenario: &Scenario, at: usize, there: &[bool]) -> Broken {
        let goal = self.actors[at].commits_left;
        for _ in 0..60 {
            self.poll(scenario, at)?;
            for voter in (0..self.voters.len()).filter(|voter| there[*voter]) {
                while let Some(next) = self.voters[voter].requests.pop() {
                    let reply = self.voters[voter].take(&next, scenario.variant);
                    self.hear(scenario, voter, reply)?;
                }
            }
            let actor = &mut self.actors[at];
            let is_done = match &actor.writer.phase {
                Phase::Holding(held) => {
                    held.is_settled && held.pending.is_none() && actor.commits_left == 0 && actor.wants.is_none()
                }
                Phase::Fenced { by } => {
                    let (by, newest) = (*by, self.newest_named());
                    self.begin(scenario, at, Some(by), newest);
                    self.actors[at].commits_left = goal;
                    false
                }
                _ => false,
            };
            if is_done {
                return Ok(());
            }
            self.ticks += u8::from(scenario.ticks > 0);
        }
        Err(format!("writer {at} is alone and comes to no end"))
    }

    /// Whether any one writer, from here on alone with some majority of voters, takes over and ends with one more commit accepted.
    pub fn ends_accepted(&self, scenario: &Scenario, random: &mut Random) -> Broken {
        let mut world = self.clone();
        let mut there = vec![false; world.voters.len()];
        let is_majority = |there: &[bool]| {
            let set = there
                .iter()
                .zip(0..)
                .filter(|(is_there, _)| **is_there)
                .map(|(_, voter)| voter)
                .collect();
            let mut named = self.named.iter();
            named.all(|named| scenario.quorum(*named).is_met_by(set))
        };
        while !is_majority(&there) {
            there[random.below(world.voters.len())] = true;
        }
        for voter in &mut world.voters {
            voter.requests.clear();
            voter.replies.clear();
        }
        let at = random.below(world.actors.len());
        let alone = Scenario {
            commits: vec![1; world.actors.len()],
            ..scenario.clone()
        };
        let before = world.accepted.len();
        let by = world
            .named
            .iter()
            .nth(random.below(world.named.len()))
            .copied()
            .unwrap_or_default();
        world.actors.iter_mut().for_each(|actor| actor.wants = None);
        world.begin(&alone, at, None, by);
        world.runs_alone(&alone, at, &there)?;
        match world.accepted.len() > before {
            true => Ok(()),
            false => Err(format!("writer {at} has nothing accepted beyond {before}")),
        }
    }

    /// What the last head names that any machine wrote.
    fn newest_named(&self) -> Named {
        self.named.iter().next_back().copied().unwrap_or_default()
    }

    fn begin(&mut self, scenario: &Scenario, at: usize, known: Option<Epoch>, by: Named) {
        let life = self.next_life();
        let actor = &mut self.actors[at];
        actor.asked = Scenario::asked(by, actor.wants);
        actor.writer = Writer::take_over(scenario.rules(at, actor.asked), known);
        (actor.life, actor.found) = (life, None);
        actor.released = History::default();
        actor.commits_left = scenario.commits[at];
    }

    /// Goes on as the writer that it was, by the voters that its last commit names, and others that it is to name.
    fn resume(&mut self, scenario: &Scenario, at: usize, last: State) {
        let life = self.next_life();
        let actor = &mut self.actors[at];
        actor.asked = Scenario::asked(last.root.names(scenario.variant), actor.wants);
        actor.life = life;
        actor.writer = Writer::resume(scenario.rules(at, actor.asked), last, actor.writer.tag + 1);
    }

    fn next_life(&self) -> u8 {
        self.actors.iter().map(|actor| actor.life).max().unwrap_or_default() + 1
    }

    fn now(&self, at: usize) -> Duration {
        Scenario::TICK * u32::from(self.ticks - self.actors[at].lag)
    }

    /// Whatever may happen next.
    pub fn actions(&self, scenario: &Scenario) -> Vec<Action> {
        let mut actions = Vec::new();
        for (voter, column) in self.voters.iter().enumerate() {
            let deliver = (0..column.requests.len()).map(|at| Action::Deliver { voter, at });
            actions.extend(deliver);
            actions.extend((0..column.replies.len()).map(|at| Action::Hear { voter, at }));
            if scenario.variant == Variant::VoterRestored && column.promise != column.promise_before {
                actions.push(Action::Restore { voter });
            }
        }
        for (writer, actor) in self.actors.iter().enumerate() {
            if actor.restarts_left > 0 {
                actions.extend(self.named.iter().map(|by| Action::TakeOver { writer, by: *by }));
                if self.resumable(writer).is_some() {
                    actions.push(Action::Resume { writer });
                }
            }
            let is_to_ask = actor.wants.is_some_and(|wants| wants != actor.asked.voters);
            if is_to_ask && self.resumable(writer).is_some() {
                actions.push(Action::Replace { writer });
            }
            if self.ticks < scenario.ticks {
                actions.push(Action::Wake { writer });
                if actor.lag < scenario.lag_max {
                    actions.push(Action::TickWithout { writer });
                }
            }
        }
        if self.ticks < scenario.ticks {
            actions.push(Action::Tick);
        }
        actions
    }

    /// What a writer has written down that may go on after a restart.
    fn resumable(&self, at: usize) -> Option<State> {
        let actor = &self.actors[at];
        match &actor.writer.phase {
            Phase::Holding(held) if held.is_settled => actor.head.as_ref().map(|(_, state)| state.clone()),
            _ => None,
        }
    }

    /// One step; an error is a broken invariant.
    pub fn step(&mut self, scenario: &Scenario, action: Action) -> Broken {
        let mut heard = None;
        match action {
            Action::Deliver { voter, at } => {
                let column = &mut self.voters[voter];
                let request = column.requests[at].clone();
                let reply = column.take(&request, scenario.variant);
                if scenario.is_reduced && self.changes_nothing_yet(scenario, voter, &reply) {
                    heard = Some(reply.writer.into());
                    self.hear(scenario, voter, reply)?;
                    self.poll(scenario, heard.unwrap_or_default())?;
                } else if !self.voters[voter].replies.contains(&reply) {
                    self.voters[voter].replies.push(reply);
                }
            }
            Action::Hear { voter, at } => {
                let reply = self.voters[voter].replies.swap_remove(at);
                let writer = reply.writer.into();
                heard = Some(writer);
                self.hear(scenario, voter, reply)?;
                self.poll(scenario, writer)?;
            }
            Action::Wake { writer } => self.poll(scenario, writer)?,
            Action::TakeOver { writer, by } => {
                self.begin(scenario, writer, None, by);
                self.actors[writer].restarts_left -= 1;
                self.poll(scenario, writer)?;
            }
            Action::Resume { writer } => {
                if let Some(last) = self.resumable(writer) {
                    self.actors[writer].restarts_left -= 1;
                    self.resume(scenario, writer, last);
                }
                self.poll(scenario, writer)?;
            }
            Action::Replace { writer } => {
                if let Some(last) = self.resumable(writer) {
                    self.resume(scenario, writer, last);
                }
                self.poll(scenario, writer)?;
            }
            Action::Tick => self.ticks += 1,
            Action::TickWithout { writer } => {
                self.ticks += 1;
                self.actors[writer].lag += 1;
            }
            Action::Restore { voter } => self.voters[voter].promise = self.voters[voter].promise_before,
        }
        self.prune(scenario, |writer, voter| match action {
            Action::Deliver { voter: at, .. } => at == voter || Some(writer) == heard,
            Action::Restore { voter: at } => at == voter,
            Action::Hear { .. } => Some(writer) == heard,
            Action::Wake { writer: at }
            | Action::TakeOver { writer: at, .. }
            | Action::Replace { writer: at }
            | Action::Resume { writer: at } => at == writer,
            Action::Tick | Action::TickWithout { .. } => false,
        });
        self.check(scenario)
    }

    /// Lets a writer commit what it has, and ask what it wants to.
    fn poll(&mut self, scenario: &Scenario, at: usize) -> Broken {
        let now = self.now(at);
        let is_served = scenario.ticks == 0 || self.actors[at].writer.service(now) != Service::NotYet;
        if is_served {
            // Not while the writer before may acknowledge: who goes on as the writer that it was waits for nobody.
            self.name_others(scenario, at);
        }
        let actor = &mut self.actors[at];
        if let Phase::Holding(held) = &actor.writer.phase
            && actor.commits_left > 0
            && is_served
            && held.is_settled
            && held.pending.is_none()
        {
            let so_far = held.accepted.as_ref().map(|placed| placed.commit.root);
            let root = so_far.unwrap_or_default().and(actor.life);
            assert!(actor.writer.commit(root));
            actor.commits_left -= 1;
        }
        self.ask(at, now);
        match scenario.variant.pretends(&mut self.actors[at].writer) {
            Pretended::Nothing => Ok(()),
            Pretended::HeadsArePut => {
                self.ask(at, now);
                Ok(())
            }
            Pretended::Accepted(state) => self.accept(scenario, at, state),
        }
    }

    /// Names the voters that a writer is to name; then that those before are needed no more; then goes on with the new ones alone.
    fn name_others(&mut self, scenario: &Scenario, at: usize) {
        let actor = &mut self.actors[at];
        let Phase::Holding(held) = &actor.writer.phase else {
            return;
        };
        let Some(last) = held.accepted.as_ref().map(|placed| placed.commit.clone()) else {
            return;
        };
        if !held.is_settled || held.pending.is_some() {
            return;
        }
        let (named, life) = (last.root.names(scenario.variant), actor.life);
        match (named.leaving, actor.wants) {
            (Some(_), _) => assert!(actor.writer.commit(last.root.with(life, TAKEN))),
            (None, Some(wants)) if wants == named.voters => actor.wants = None,
            (None, Some(wants)) if wants == actor.asked.voters => {
                actor.wants = None;
                assert!(actor.writer.commit(last.root.with(life, wants)));
            }
            (None, None) if actor.asked != named => self.resume(scenario, at, last),
            _ => {}
        }
    }

    fn ask(&mut self, at: usize, now: Duration) {
        let actor = &mut self.actors[at];
        for number in actor.writer.rules.quorum.voters() {
            let voter = &mut self.voters[usize::from(number)];
            for asked in actor.writer.asks(number, now) {
                if let Ask::PutHead(state) = &asked.ask
                    && actor.head.as_ref().is_none_or(|(_, head)| head != state)
                {
                    self.named.insert(state.root.names(self.variant));
                    actor.head = Some((actor.head_seq() + 1, state.clone()));
                }
                let request = Request {
                    writer: at as u8,
                    life: actor.life,
                    seq: actor.head_seq(),
                    asked,
                };
                if !voter.requests.contains(&request) {
                    voter.requests.push(request);
                }
            }
        }
    }

    fn hear(&mut self, scenario: &Scenario, voter: usize, reply: Reply) -> Broken {
        let at = usize::from(reply.writer);
        let now = self.now(at);
        let actor = &mut self.actors[at];
        if reply.life != actor.life {
            return Ok(());
        }
        let events = scenario
            .variant
            .tells(&mut actor.writer, voter as u8, reply.tag, reply.answer, now);
        for event in events {
            match event {
                Event::Found { state, .. } => self.found(scenario, at, state)?,
                Event::Accepted(state) => self.accept(scenario, at, state)?,
                Event::Fenced { .. } => {}
            }
        }
        Ok(())
    }

    /// Whether a writer only counts this answer, one more that it was waiting for and not the last of them. It is heard at once then: the
    /// writer does nothing else for it that others could see, and whenever it would have gone on without this answer, by others, it
    /// can be made to go on by the last of those.
    fn changes_nothing_yet(&self, scenario: &Scenario, voter: usize, reply: &Reply) -> bool {
        let actor = &self.actors[usize::from(reply.writer)];
        let mut after = actor.writer.clone();
        let (tag, answer) = (reply.tag, reply.answer.clone());
        let events = scenario
            .variant
            .tells(&mut after, voter as u8, tag, answer, Duration::ZERO);
        let only_counts = match reply.answer {
            Answer::Took => true,
            Answer::Promise(_) => !matches!(actor.writer.phase, Phase::Looking { .. }),
            Answer::Heads(_) => false,
        };
        only_counts
            && events.is_empty()
            && without_marks(&after) == without_marks(&actor.writer)
            && reply.life == actor.life
    }

    /// Goes on with what was found, or, where its root names other voters than were asked, with those.
    fn found(&mut self, scenario: &Scenario, at: usize, state: Option<State>) -> Broken {
        let history = state.map(|state| state.root).unwrap_or_default();
        let actor = &mut self.actors[at];
        let named = history.names(scenario.variant);
        let is_covered = actor.writer.rules.quorum.covers(scenario.quorum(named));
        if !is_covered && scenario.variant != Variant::OtherVotersAdopted {
            let epoch = actor.writer.epoch();
            let commits_left = actor.commits_left;
            self.begin(scenario, at, epoch, named);
            self.actors[at].commits_left = commits_left;
            return Ok(());
        }
        assert!(actor.writer.adopt());
        actor.found = actor.writer.epoch().map(|epoch| (epoch, history));
        // What was accepted of a higher epoch fences this writer: whatever it adopts, it comes to nothing.
        let mut before = self
            .accepted_by
            .iter()
            .filter(|(epoch, _)| Some(**epoch) < actor.writer.epoch());
        if let Some((_, missed)) = before.find(|(_, accepted)| !accepted.leads_to(&history)) {
            return Err(format!("writer {at} adopts {history:?}, accepted was {missed:?}"));
        }
        Ok(())
    }

    fn accept(&mut self, scenario: &Scenario, at: usize, state: State) -> Broken {
        let history = state.root;
        if state.number != history.len() {
            return Err(format!("commit {} has the history {history:?}", state.number));
        }
        if history.leads_to(&self.accepted) == self.accepted.leads_to(&history) && history != self.accepted {
            return Err(format!(
                "writer {at} has {history:?} accepted beside {:?}",
                self.accepted
            ));
        }
        for (other, actor) in self.actors.iter().enumerate() {
            let Some((epoch, found)) = actor.found.filter(|(epoch, _)| *epoch > state.epoch) else {
                continue;
            };
            if !history.leads_to(&found) {
                return Err(format!(
                    "writer {at} has {history:?} accepted, writer {other} took {found:?} over"
                ));
            }
            // Late word of what is in the other's history does no harm; with terms kept there is not even that.
            let has_gone_on = self.accepted.len() > found.len();
            if scenario.handover == Handover::Awaited && has_gone_on {
                return Err(format!("writer {at} is told of {history:?} when {epoch:?} has gone on"));
            }
        }
        if self.accepted.leads_to(&history) {
            self.accepted = history;
        }
        self.actors[at].released = history;
        self.accepted_by.insert(state.epoch, history);
        Ok(())
    }

    fn check(&self, scenario: &Scenario) -> Broken {
        for (at, actor) in self.actors.iter().enumerate() {
            if !actor.released.leads_to(&self.accepted) {
                return Err(format!("writer {at} released its journal up to {:?}", actor.released));
            }
        }
        let open = |at: &usize| self.actors[*at].writer.service(self.now(*at)) == Service::Open;
        let count = (0..self.actors.len()).filter(open).count();
        if scenario.ticks > 0 && count > 1 {
            return Err("two writers acknowledge".to_owned());
        }
        Ok(())
    }

    /// Drops what can have no effect any more: promises and the numbers of heads only rise, and old tags never come back.
    fn prune(&mut self, scenario: &Scenario, is_touched: impl Fn(usize, usize) -> bool) {
        let actors = &self.actors;
        for (number, voter) in self.voters.iter_mut().enumerate() {
            let is_heard = |reply: &Reply| {
                let actor = &actors[usize::from(reply.writer)];
                reply.life == actor.life && {
                    let mut heard = actor.writer.clone();
                    let events = scenario.variant.tells(
                        &mut heard,
                        number as u8,
                        reply.tag,
                        reply.answer.clone(),
                        Duration::ZERO,
                    );
                    !events.is_empty() || heard != actor.writer
                }
            };
            let Voter {
                requests,
                replies,
                promise,
                heads,
                ..
            } = voter;
            replies.retain(|reply| !is_touched(reply.writer.into(), number) || is_heard(reply));
            requests.retain(|request| {
                let at = usize::from(request.writer);
                let actor = &actors[at];
                !is_touched(at, number)
                    || changes(*promise, heads, request, scenario.variant)
                    || request.life == actor.life
                        && actor.writer.rules.quorum.voters().any(|asked| asked == number as u8)
                        && {
                            let asks = actor.writer.clone().asks(number as u8, Duration::ZERO);
                            asks.iter().any(|asked| asked.tag == request.asked.tag)
                        }
            });
        }
    }
}

impl Actor {
    fn head_seq(&self) -> u64 {
        self.head.as_ref().map_or(0, |(seq, _)| *seq)
    }
}

impl Voter {
    /// What a voter does with a request.
    fn take(&mut self, request: &Request, variant: Variant) -> Reply {
        let device = usize::from(request.writer);
        let says = |heads: &[Option<(u64, State)>; 3]| {
            let states = heads.iter().flatten().map(|(_, state)| state.clone());
            states.map(|state| variant.seen(state)).collect()
        };
        let answer = match &request.asked.ask {
            Ask::ReadPromise => {
                if variant == Variant::HeadsBeforePromise {
                    self.early[device] = Some(says(&self.heads));
                }
                Answer::Promise(self.promise)
            }
            Ask::Claim(epoch) => {
                if changes(self.promise, &self.heads, request, variant) {
                    self.promise_before = self.promise;
                    self.promise = Some(*epoch);
                }
                Answer::Promise(match variant {
                    Variant::NoPromise => Some(*epoch),
                    _ => self.promise,
                })
            }
            Ask::ReadHeads => Answer::Heads(self.early[device].clone().unwrap_or_else(|| says(&self.heads))),
            Ask::PutHead(state) => {
                if changes(self.promise, &self.heads, request, variant) {
                    self.heads[device] = Some((request.seq, state.clone()));
                }
                Answer::Took
            }
        };
        Reply {
            writer: request.writer,
            life: request.life,
            tag: request.asked.tag,
            answer,
        }
    }
}

/// Whether a voter is another after a request.
fn changes(promise: Option<Epoch>, heads: &[Option<(u64, State)>; 3], request: &Request, variant: Variant) -> bool {
    match &request.asked.ask {
        Ask::Claim(epoch) => match variant {
            Variant::NoPromise => false,
            Variant::LastClaimWins => promise != Some(*epoch),
            _ => Verdict::of(promise, *epoch) == Verdict::Raise,
        },
        Ask::PutHead(_) => {
            let held = heads[usize::from(request.writer)].as_ref();
            held.is_none_or(|(seq, _)| *seq < request.seq)
        }
        Ask::ReadPromise | Ask::ReadHeads => false,
    }
}
