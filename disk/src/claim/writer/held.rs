//! A writer that holds its epoch: heads and confirmations of one commit after the other, and renewals in between.

use std::time::Duration;

use proto::epoch::Epoch;

use super::{Answer, Ask, Asked, Commit, Event, Offline, Rules, Service};
use crate::claim::quorum::VoterSet;

/// What a writer knows that holds its epoch.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(in crate::claim) struct Held<R> {
    /// The epoch.
    pub epoch: Epoch,
    /// The newest commit that is accepted in it.
    pub accepted: Option<Placed<R>>,
    /// The commit that is under way.
    pub pending: Option<Placed<R>>,
    /// Voters that are being asked whether they still promise the epoch.
    pub round: Option<Round>,
    /// When the newest round was begun that a majority confirmed.
    pub renewed: Option<Duration>,
    /// Not before then is the volume served.
    pub open_from: Duration,
    /// Whether what was found is its own by now.
    pub is_settled: bool,
    /// Voters that promise a higher epoch: for ever.
    pub refused: VoterSet,
    /// The highest of those.
    pub by: Epoch,
}

/// A head that is being put.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(in crate::claim) struct Placed<R> {
    pub tag: u64,
    pub commit: Commit<R>,
    pub took: VoterSet,
}

/// One question to all voters, whether they still promise the epoch.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(in crate::claim) struct Round {
    pub tag: u64,
    /// Before any of it was sent.
    pub since: Duration,
    pub purpose: Purpose,
    pub confirmed: VoterSet,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(in crate::claim) enum Purpose {
    /// Only the term.
    Renewal,
    /// The pending commit: a voter is asked after it took the head, and so nobody who is promised a higher epoch by it has read
    /// heads before.
    Acceptance,
}

impl<R: Clone + Eq> Held<R> {
    /// After a takeover whose claims were sent after `since`. What was found is put anew in the own epoch, before it is shown to anybody: it
    /// may be at a minority, and the next takeover might not see it.
    pub fn taken(
        epoch: Epoch,
        since: Duration,
        open_from: Duration,
        found: Option<Commit<R>>,
        last_tag: &mut u64,
    ) -> Self {
        *last_tag += 1;
        let is_settled = found.is_none();
        let pending = found.map(|found| Placed::new(*last_tag, Commit { epoch, ..found }));
        Self {
            epoch,
            accepted: None,
            pending,
            round: None,
            renewed: Some(since),
            open_from,
            is_settled,
            refused: VoterSet::default(),
            by: epoch,
        }
    }

    /// After a restart.
    pub fn resumed(last: Commit<R>, tag: u64) -> Self {
        Self {
            epoch: last.epoch,
            by: last.epoch,
            accepted: None,
            pending: Some(Placed::new(tag, last)),
            round: None,
            renewed: None,
            open_from: Duration::ZERO,
            is_settled: false,
            refused: VoterSet::default(),
        }
    }

    pub fn commit(&mut self, root: R, number: Option<u64>, last_tag: &mut u64) -> bool {
        let next = self.accepted.as_ref().map_or(0, |placed| placed.commit.number) + 1;
        let number = number.unwrap_or(next);
        if !self.is_settled || self.pending.is_some() || number < next {
            return false;
        }
        *last_tag += 1;
        let commit = Commit {
            epoch: self.epoch,
            number,
            root,
        };
        self.pending = Some(Placed::new(*last_tag, commit));
        true
    }

    pub fn asks(&mut self, voter: u8, now: Duration, rules: &Rules, last_tag: &mut u64) -> Vec<Asked<R>> {
        self.begin_round(now, rules, last_tag);
        // An accepted head is still given to those that do not have it: a voter may be lost.
        let head = self.pending.as_ref().or(self.accepted.as_ref());
        let is_owed = head.is_some_and(|head| !head.took.contains(voter));
        let mut asks: Vec<Asked<R>> = head.filter(|_| is_owed).map(Placed::ask).into_iter().collect();
        if let Some(round) = &self.round
            && !round.confirmed.contains(voter)
            && !(is_owed && round.purpose == Purpose::Acceptance)
        {
            let ask = Ask::Claim(self.epoch);
            asks.push(Asked { tag: round.tag, ask });
        }
        asks
    }

    pub fn answered(
        &mut self,
        voter: u8,
        tag: u64,
        answer: Answer<R>,
        now: Duration,
        rules: &Rules,
        last_tag: &mut u64,
    ) -> Option<Event<R>> {
        match answer {
            Answer::Took => {
                let heads = [&mut self.pending, &mut self.accepted];
                if let Some(head) = heads.into_iter().flatten().find(|head| head.tag == tag) {
                    head.took.insert(voter);
                }
                self.begin_round(now, rules, last_tag);
                None
            }
            Answer::Promise(promise) if self.round.as_ref().is_some_and(|round| round.tag == tag) => {
                self.confirmed(voter, promise?, now, rules)
            }
            _ => None,
        }
    }

    pub fn service(&self, now: Duration, rules: &Rules) -> Service {
        let Some(renewed) = self.renewed.filter(|_| self.is_settled && now >= self.open_from) else {
            return Service::NotYet;
        };
        let term_ends = renewed + rules.times.term;
        if now < term_ends || rules.offline == Offline::Continue {
            Service::Open
        } else if now < term_ends + rules.times.stall {
            Service::Stalled
        } else {
            Service::Failing
        }
    }

    /// Begins the round that is due, if there is none that can still be of use.
    fn begin_round(&mut self, now: Duration, rules: &Rules, last_tag: &mut u64) {
        let is_kept = self
            .pending
            .as_ref()
            .is_some_and(|head| rules.quorum.is_met_by(head.took));
        let purpose = match is_kept {
            true => Purpose::Acceptance,
            false => Purpose::Renewal,
        };
        let is_under_way = |round: &Round| round.purpose == purpose && now < round.since + rules.times.term;
        let is_due = is_kept
            || self
                .renewed
                .is_some_and(|renewed| now >= renewed + rules.times.renew_after);
        if is_due && !self.round.as_ref().is_some_and(is_under_way) {
            *last_tag += 1;
            self.round = Some(Round {
                tag: *last_tag,
                since: now,
                purpose,
                confirmed: VoterSet::default(),
            });
        }
    }

    fn confirmed(&mut self, voter: u8, promise: Epoch, now: Duration, rules: &Rules) -> Option<Event<R>> {
        if promise > self.epoch {
            self.refused.insert(voter);
            self.by = self.by.max(promise);
            let by = self.by;
            return rules.quorum.is_blocked_by(self.refused).then_some(Event::Fenced { by });
        }
        // A lower promise is a voter's that forgot what it had promised. It was claimed again just now, and is asked once more.
        let round = self.round.as_mut().filter(|_| promise == self.epoch)?;
        // By now another may have taken over and waited for the term: nothing is said any more of what it may have gone beyond.
        if now >= round.since + rules.times.term {
            return None;
        }
        round.confirmed.insert(voter);
        if !rules.quorum.is_met_by(round.confirmed) {
            return None;
        }
        let round = self.round.take()?;
        self.renewed = self.renewed.max(Some(round.since));
        if round.purpose == Purpose::Renewal {
            return None;
        }
        self.is_settled = true;
        self.accepted = self.pending.take();
        self.accepted.clone().map(|placed| Event::Accepted(placed.commit))
    }
}

impl<R: Clone> Placed<R> {
    fn new(tag: u64, commit: Commit<R>) -> Self {
        let took = VoterSet::default();
        Self { tag, commit, took }
    }

    fn ask(&self) -> Asked<R> {
        Asked {
            tag: self.tag,
            ask: Ask::PutHead(self.commit.clone()),
        }
    }
}
