//! A volume's writer: takes over, commits, and knows whether it may acknowledge.
//!
//! Whoever drives it sends what `asks` says to each voter, as often as it likes, and brings every answer, however late: answers are
//! told apart by tags, and what was asked before and matters no more is passed over.

use std::time::Duration;

use proto::epoch::Epoch;
use proto::id::DeviceId;

use super::quorum::{Quorum, VoterSet};
use super::times::Times;

mod held;

use held::Held;

/// A state of a volume, as a head says it. `R` is where its root lies.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Commit<R> {
    /// Of the writer whose head says it.
    pub epoch: Epoch,
    /// One more than that of the commit before; adopting a commit keeps its number.
    pub number: u64,
    /// Where its root lies.
    pub root: R,
}

impl<R> Commit<R> {
    /// What decides between the heads of several devices: the epoch before the number.
    pub fn rank(&self) -> (Epoch, u64) {
        (self.epoch, self.number)
    }
}

/// What is asked of a voter.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Ask<R> {
    /// The promise that it has.
    ReadPromise,
    /// To promise this epoch, or to say that it still does.
    Claim(Epoch),
    /// What the newest head of each device of the account says of the volume.
    ReadHeads,
    /// To keep the head that says this. It is written down here before it is sent, and is the same bytes for every voter.
    PutHead(Commit<R>),
}

/// A question, and what its answer is known by.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Asked<R> {
    /// Greater than that of any question which was asked for another purpose before.
    pub tag: u64,
    /// The question.
    pub ask: Ask<R>,
}

/// What a voter says. No answer at all is no answer here: the question is asked again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Answer<R> {
    /// The promise that it has now, after a claim was judged and is durable.
    Promise(Option<Epoch>),
    /// Of each device whose newest head speaks of the volume, what it says. Only heads count whose device is that of the epoch, and
    /// may put and read.
    Heads(Vec<Commit<R>>),
    /// It keeps the head, or a newer one of the same device.
    Took,
}

/// What an answer led to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event<R> {
    /// The takeover found the volume's state, and waits to be told to put it under its own epoch (`Writer::adopt`); `None`: nothing was
    /// ever committed.
    Found {
        /// The state, as the writer before put it.
        state: Option<Commit<R>>,
        /// Until then that writer may acknowledge what will not be in the volume. Who forces a takeover is told so.
        free_from: Duration,
    },
    /// This commit can never be lost to a later writer: its journal may be released, and what it no longer needs given up.
    Accepted(Commit<R>),
    /// Another writer took over, or is about to. The journal stays, for a clone to be made of it.
    Fenced {
        /// The highest epoch that a voter named.
        by: Epoch,
    },
}

/// Whether a taker waits until the writer before acknowledges nothing more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Handover {
    /// It waits.
    Awaited,
    /// It does not: what the other acknowledged and did not commit is the other's alone. Right also for a volume that is being made,
    /// whose id nobody else has.
    Forced,
}

/// What a writer does that has not heard from a majority for a term.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Offline {
    /// It stops acknowledging.
    Stop,
    /// It goes on, and may find later that all of it belongs into a clone.
    Continue,
}

/// By what a writer goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rules {
    /// The device that writes.
    pub device: DeviceId,
    /// The voters.
    pub quorum: Quorum,
    /// For how long what holds.
    pub times: Times,
    /// Of a takeover.
    pub handover: Handover,
    /// When no majority answers.
    pub offline: Offline,
}

/// Whether writes may be acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Service {
    /// Nothing may be read or written yet.
    NotYet,
    /// They may.
    Open,
    /// They wait.
    Stalled,
    /// They fail. The writer still asks, and is open again if a majority confirms it.
    Failing,
    /// They fail, for ever.
    Fenced,
}

/// A volume's writer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Writer<R> {
    pub(super) rules: Rules,
    pub(super) tag: u64,
    pub(super) phase: Phase<R>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Phase<R> {
    /// Which promises there are.
    Looking { seen: VoterSet, highest: Option<Epoch> },
    /// Claiming an epoch above all that were seen.
    Claiming {
        epoch: Epoch,
        since: Duration,
        promised: VoterSet,
        refused: VoterSet,
        by: Epoch,
    },
    /// A majority has promised, and only now is asked for heads: what is accepted later needs a confirmation that one of these
    /// voters does not give any more.
    Gathering {
        epoch: Epoch,
        since: Duration,
        free_from: Duration,
        promised: VoterSet,
        told: VoterSet,
        newest: Option<Commit<R>>,
    },
    /// The state is found. Whoever drives it has to look whether its root names the voters that were asked.
    Found {
        epoch: Epoch,
        since: Duration,
        open_from: Duration,
        state: Option<Commit<R>>,
    },
    /// The epoch is its own, as far as it has heard.
    Holding(Held<R>),
    /// It is another's.
    Fenced { by: Epoch },
}

impl<R: Clone + Eq> Writer<R> {
    /// Begins a takeover. `known` is the highest epoch that this machine knows of: at least every one that it ever claimed.
    pub fn take_over(rules: Rules, known: Option<Epoch>) -> Self {
        let phase = Phase::Looking {
            seen: VoterSet::default(),
            highest: known,
        };
        Self { rules, tag: 1, phase }
    }

    /// Goes on after a restart as the writer that this machine was: `last` is the newest commit that was written down to be put,
    /// in its own epoch, under which it had been open before. If a majority still promises that epoch there was no other, and nobody
    /// needs to be waited for. `tag` is greater than any of before.
    pub fn resume(rules: Rules, last: Commit<R>, tag: u64) -> Self {
        Self {
            rules,
            tag,
            phase: Phase::Holding(Held::resumed(last, tag)),
        }
    }

    /// What to ask this voter now: nothing, one thing or two. The same again until it is answered.
    pub fn asks(&mut self, voter: u8, now: Duration) -> Vec<Asked<R>> {
        let tag = self.tag;
        let one = |ask| vec![Asked { tag, ask }];
        match &mut self.phase {
            Phase::Looking { seen, .. } if !seen.contains(voter) => one(Ask::ReadPromise),
            Phase::Claiming {
                epoch,
                promised,
                refused,
                ..
            } if !promised.contains(voter) && !refused.contains(voter) => one(Ask::Claim(*epoch)),
            // Should one of the majority not answer any more, another may take its place.
            Phase::Gathering { epoch, promised, .. } if !promised.contains(voter) => one(Ask::Claim(*epoch)),
            Phase::Gathering { told, .. } if !told.contains(voter) => one(Ask::ReadHeads),
            Phase::Holding(held) => held.asks(voter, now, &self.rules, &mut self.tag),
            _ => Vec::new(),
        }
    }

    /// What a voter answered to the question with this tag.
    pub fn answered(&mut self, voter: u8, tag: u64, answer: Answer<R>, now: Duration) -> Option<Event<R>> {
        if let Phase::Holding(held) = &mut self.phase {
            let event = held.answered(voter, tag, answer, now, &self.rules, &mut self.tag);
            if let Some(Event::Fenced { by }) = event {
                self.phase = Phase::Fenced { by };
            }
            return event;
        }
        if tag != self.tag {
            return None;
        }
        match answer {
            Answer::Promise(promise) => self.promised(voter, promise, now),
            Answer::Heads(heads) => self.told(voter, heads),
            Answer::Took => None,
        }
    }

    /// Puts what was found under its own epoch. Only if the root of it names voters of whom a majority was asked
    /// (`Quorum::covers`): others may have gone on with theirs, and a head that says this epoch would go before what they accepted. What
    /// is found by a claim of too few is dropped with the claim, and another one begun, above this epoch.
    pub fn adopt(&mut self) -> bool {
        let Phase::Found { state, .. } = &self.phase else {
            return false;
        };
        let state = state.clone();
        self.adopt_instead(state)
    }

    /// The same, of a state that is known to be newer than what was found: where the voters that would have told are lost.
    pub fn adopt_instead(&mut self, state: Option<Commit<R>>) -> bool {
        let Phase::Found {
            epoch,
            since,
            open_from,
            ..
        } = self.phase
        else {
            return false;
        };
        let held = Held::taken(epoch, since, open_from, state, &mut self.tag);
        self.phase = Phase::Holding(held);
        true
    }

    /// Begins a commit: of packs that are kept as the policy asks. False unless the writer is open to one and has none under way.
    pub fn commit(&mut self, root: R) -> bool {
        self.commit_numbered(root, None)
    }

    /// The same, of this number, where that is none lower than the next: the first of a clone follows that of its origin.
    pub fn commit_numbered(&mut self, root: R, number: Option<u64>) -> bool {
        match &mut self.phase {
            Phase::Holding(held) => held.commit(root, number, &mut self.tag),
            _ => false,
        }
    }

    /// Whether writes may be acknowledged at this moment.
    pub fn service(&self, now: Duration) -> Service {
        match &self.phase {
            Phase::Holding(held) => held.service(now, &self.rules),
            Phase::Fenced { .. } => Service::Fenced,
            _ => Service::NotYet,
        }
    }

    /// The epoch that it holds, as far as it has heard.
    pub fn epoch(&self) -> Option<Epoch> {
        match &self.phase {
            Phase::Found { epoch, .. } => Some(*epoch),
            Phase::Holding(held) => Some(held.epoch),
            _ => None,
        }
    }

    fn promised(&mut self, voter: u8, promise: Option<Epoch>, now: Duration) -> Option<Event<R>> {
        let quorum = self.rules.quorum;
        match &mut self.phase {
            Phase::Looking { seen, highest } => {
                seen.insert(voter);
                *highest = promise.max(*highest);
                if quorum.is_met_by(*seen) {
                    let highest = *highest;
                    return self.claim(highest, now);
                }
            }
            Phase::Claiming {
                epoch,
                since,
                promised,
                refused,
                by,
            } => {
                if promise == Some(*epoch) {
                    promised.insert(voter);
                } else if promise > Some(*epoch) {
                    refused.insert(voter);
                    *by = promise.map_or(*by, |higher| higher.max(*by));
                }
                let (epoch, since, promised, refused, by) = (*epoch, *since, *promised, *refused, *by);
                if quorum.is_met_by(promised) {
                    self.gather(epoch, since, promised, now);
                } else if quorum.is_blocked_by(refused) {
                    return Some(self.fenced(by));
                }
            }
            Phase::Gathering { epoch, promised, .. } if promise == Some(*epoch) => promised.insert(voter),
            _ => {}
        }
        None
    }

    fn claim(&mut self, highest: Option<Epoch>, now: Duration) -> Option<Event<R>> {
        let Some(epoch) = Epoch::above(highest, self.rules.device) else {
            return highest.map(|last| self.fenced(last));
        };
        self.tag += 1;
        self.phase = Phase::Claiming {
            epoch,
            since: now,
            promised: VoterSet::default(),
            refused: VoterSet::default(),
            by: epoch,
        };
        None
    }

    fn gather(&mut self, epoch: Epoch, since: Duration, promised: VoterSet, now: Duration) {
        self.tag += 1;
        self.phase = Phase::Gathering {
            epoch,
            since,
            free_from: now + self.rules.times.wait(),
            promised,
            told: VoterSet::default(),
            newest: None,
        };
    }

    fn told(&mut self, voter: u8, heads: Vec<Commit<R>>) -> Option<Event<R>> {
        let Phase::Gathering {
            epoch,
            since,
            free_from,
            told,
            newest,
            ..
        } = &mut self.phase
        else {
            return None;
        };
        told.insert(voter);
        *newest = heads.into_iter().chain(newest.take()).max_by_key(Commit::rank);
        if !self.rules.quorum.is_met_by(*told) {
            return None;
        }
        let (state, free_from) = (newest.take(), *free_from);
        let open_from = match self.rules.handover {
            Handover::Awaited => free_from,
            Handover::Forced => Duration::ZERO,
        };
        self.phase = Phase::Found {
            epoch: *epoch,
            since: *since,
            open_from,
            state: state.clone(),
        };
        Some(Event::Found { state, free_from })
    }

    fn fenced(&mut self, by: Epoch) -> Event<R> {
        self.phase = Phase::Fenced { by };
        Event::Fenced { by }
    }
}
