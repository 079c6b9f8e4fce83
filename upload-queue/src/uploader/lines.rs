//! Which share waits for which peer, and what each peer is up to: the uploader's memory, without clock or IO.
//!
//! Bounded by the spool: a share here is a file there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use proto::share_store::StoreError;
use tokio::time::Instant;

use crate::peers::{Peer, PeerKey};
use crate::placement::{Candidate, shuffled};
use crate::planner::Uptime;
use crate::uploader::held::Held;
use crate::uploader::line::Line;
use crate::uploader::waiting::Waiting;

/// A peer that fails for so long gets no new shares while the others can make packs safe without it.
const AWAY_AFTER: Duration = Duration::from_secs(15 * 60);
/// From so many failures in a row on, what waits for a peer is what the spool holds for one who is absent.
const ABSENT_FAILURES: u64 = 2;
/// What waits for peers that are absent may take this part of the spool before packs are made without them. Chosen: the
/// other half is for those who are there, so that the absent never hold them up.
const ABSENT_PART: u64 = 2;

/// What a lane of a peer should do.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Send this; it counts as in flight until it is recorded, taken back or moved.
    Send(Waiting),
    /// Nothing before then, unless something changes.
    WaitUntil(Instant),
    /// Nothing, unless something changes.
    Wait,
}

/// What had happened when somebody began to wait.
#[derive(Clone)]
pub(super) struct Mark {
    at: Instant,
    failures: HashMap<PeerKey, u64>,
}

#[derive(Clone, Default)]
pub(super) struct Lines {
    lines: BTreeMap<PeerKey, Line>,
    /// To be planned (anew) at once.
    homeless: BTreeSet<Waiting>,
    /// Planned in vain: no domain is left for these until something changes.
    unplaced: BTreeSet<Waiting>,
    /// Being planned anew.
    moving: BTreeSet<Waiting>,
    /// Measured; peers that were not watched for long enough are not in it.
    uptimes: HashMap<PeerKey, Uptime>,
    /// These are given nothing.
    shunned: HashSet<PeerKey>,
    /// What the steward is to bring.
    pub(super) held: Held,
    /// Bytes that deliveries are about to put into the spool.
    pub(super) incoming_bytes: u64,
    /// Most bytes in the spool.
    spool_bytes_max: u64,
}

impl Lines {
    /// Nothing waits; the spool holds at most so many bytes.
    pub(super) fn new(spool_bytes_max: u64) -> Self {
        Self {
            spool_bytes_max,
            ..Self::default()
        }
    }

    fn line(&mut self, peer: &PeerKey) -> &mut Line {
        self.lines.entry(peer.clone()).or_default()
    }

    /// Holds a share back for the steward to bring, or puts it in line for `peer`.
    pub(super) fn add_new(&mut self, peer: Option<&PeerKey>, share: Waiting, now: Instant) {
        match peer.filter(|peer| self.held.takes(peer, now)) {
            Some(peer) => self.held.hold(peer.clone(), share, now),
            None => self.add(peer, share, now),
        }
    }

    /// Puts a share in line for `peer`. One that was planned a moment before its peer refused is planned anew: nobody sends
    /// what is in line at a peer that rests.
    pub(super) fn add(&mut self, peer: Option<&PeerKey>, share: Waiting, now: Instant) {
        self.moving.remove(&share);
        let Some(peer) = peer else {
            self.unplaced.insert(share);
            return;
        };
        let is_shunned = self.shunned.contains(peer);
        let line = self.line(peer);
        if is_shunned || line.rests(now) {
            self.homeless.insert(share);
            return;
        }
        line.free_bytes = line.free_bytes.map(|free| free.saturating_sub(share.stored_bytes));
        line.waiting.insert(share);
    }

    /// The next step of a lane of `peer`. A peer that failed last is tried with one share at a time.
    pub(super) fn next(&mut self, peer: &PeerKey, now: Instant) -> Next {
        let line = self.line(peer);
        if line.failures > 0 && !line.in_flight.is_empty() {
            return Next::Wait;
        }
        if let Some(until) = line.blocked_until.filter(|&until| until > now) {
            return Next::WaitUntil(until);
        }
        match line.waiting.pop_first() {
            Some(share) => {
                line.in_flight.insert(share.clone());
                Next::Send(share)
            }
            None => Next::Wait,
        }
    }

    /// `peer` took a share, and that is written down.
    pub(super) fn succeeded(&mut self, peer: &PeerKey, now: Instant) {
        self.line(peer).succeeded(now);
    }

    /// A share is recorded as delivered, or is not to be sent any more: forget it.
    pub(super) fn finished(&mut self, peer: Option<&PeerKey>, share: &Waiting) {
        if let Some(peer) = peer {
            let line = self.line(peer);
            line.in_flight.remove(share);
            // The steward may have brought what was in line here.
            line.waiting.remove(share);
        }
        for rest in [&mut self.homeless, &mut self.unplaced, &mut self.moving] {
            rest.remove(share);
        }
        self.held.finished(share);
    }

    /// Back into the line: it was not sent.
    pub(super) fn take_back(&mut self, peer: &PeerKey, share: &Waiting, now: Instant) {
        let is_shunned = self.shunned.contains(peer);
        let line = self.line(peer);
        line.in_flight.remove(share);
        match is_shunned || line.rests(now) {
            true => self.homeless.insert(share.clone()),
            false => line.waiting.insert(share.clone()),
        };
    }

    /// `peer` failed in a way that may pass, in an attempt begun at `begun`.
    pub(super) fn failed(&mut self, peer: &PeerKey, error: &StoreError, begun: Instant, now: Instant) {
        let seed = shuffled(0, peer);
        self.line(peer).failed(error, seed, begun, now);
    }

    /// `peer` will take nothing more for now: what waits for it is homeless.
    pub(super) fn refuse(&mut self, peer: &PeerKey, error: &StoreError, now: Instant) {
        let mut waiting = self.line(peer).refuse(error, now);
        self.homeless.append(&mut waiting);
    }

    /// As `refuse`, and so is the share that was just sent there.
    pub(super) fn refuse_share(&mut self, peer: &PeerKey, share: &Waiting, error: &StoreError, now: Instant) {
        self.line(peer).in_flight.remove(share);
        self.homeless.insert(share.clone());
        self.refuse(peer, error, now);
    }

    /// What has no peer, or one that is no longer there: to be planned anew, until each is added again or `put_down`.
    pub(super) fn take_homeless(&mut self, peers: &[Peer]) -> Vec<Waiting> {
        let mut waiting = std::mem::take(&mut self.unplaced);
        waiting.append(&mut self.homeless);
        let known: HashSet<&PeerKey> = peers.iter().map(|peer| &peer.key).collect();
        for (_, line) in self.lines.iter_mut().filter(|(key, _)| !known.contains(key)) {
            waiting.append(&mut line.waiting);
        }
        self.moving.extend(waiting.iter().cloned());
        waiting.into_iter().collect()
    }

    /// Whoever was planning this does not any more: somebody else has to.
    pub(super) fn put_down(&mut self, share: Waiting) {
        if self.moving.remove(&share) {
            self.homeless.insert(share);
        }
    }

    /// Whether anything waits to be planned.
    pub(super) fn has_homeless(&self) -> bool {
        !self.homeless.is_empty()
    }

    /// Every peer may be tried at once, also those that refused, and the steward.
    pub(super) fn wake(&mut self) {
        self.held.wake();
        self.forgive();
        self.unblock();
    }

    /// Peers that refused are asked again at once.
    pub(super) fn forgive(&mut self) {
        self.lines.values_mut().for_each(Line::forgive);
    }

    fn unblock(&mut self) {
        self.lines.values_mut().for_each(Line::unblock);
    }

    /// These are given nothing new, and what waits for them is planned anew; whether they are others than before.
    pub(super) fn shun(&mut self, peers: HashSet<PeerKey>) -> bool {
        for (_, line) in self.lines.iter_mut().filter(|(key, _)| peers.contains(key)) {
            self.homeless.append(&mut line.waiting);
        }
        let before = std::mem::replace(&mut self.shunned, peers);
        before != self.shunned
    }

    pub(super) fn set_free_bytes(&mut self, peer: &PeerKey, free_bytes: Option<u64>) {
        let line = self.line(peer);
        // What is in line already is not yet counted there.
        let owed: u64 = line.waiting.iter().map(|share| share.stored_bytes).sum();
        line.free_bytes = free_bytes.map(|free| free.saturating_sub(owed));
    }

    /// Peers that packs are made without, if the others are enough: those that fail for long; those that fail at all, once
    /// what waits for them fills its part of the spool.
    fn away(&self, peers: &[Peer], tolerate: u8, now: Instant) -> HashSet<PeerKey> {
        let is_crowded = self.absent_bytes(now) >= self.spool_bytes_max / ABSENT_PART;
        let is_away = |peer: &Peer| {
            let Some(line) = self.lines.get(&peer.key) else {
                return false;
            };
            let is_long = |since| now.duration_since(since) >= AWAY_AFTER;
            line.failing_since.is_some_and(is_long) || is_crowded && is_absent(line, now)
        };
        let out = peers.iter().filter(|peer| is_away(peer)).map(|peer| peer.key.clone());
        let out: HashSet<PeerKey> = out.collect();
        match self.are_enough_without(&out, peers, tolerate, now) {
            true => out,
            false => HashSet::new(),
        }
    }

    /// Whether the peers that are not `out` lie in more domains than may be lost.
    fn are_enough_without(&self, out: &HashSet<PeerKey>, peers: &[Peer], tolerate: u8, now: Instant) -> bool {
        let here = peers.iter().filter(|peer| !out.contains(&peer.key));
        let usable = here.filter(|peer| !self.is_aside(&peer.key, now));
        let domains: HashSet<&str> = usable.map(|peer| peer.domain.as_str()).collect();
        domains.len() > usize::from(tolerate)
    }

    fn is_aside(&self, peer: &PeerKey, now: Instant) -> bool {
        self.shunned.contains(peer) || self.lines.get(peer).is_some_and(|line| line.rests(now))
    }

    /// Bytes in the spool that nobody takes now.
    fn absent_bytes(&self, now: Instant) -> u64 {
        let absent = self.lines.values().filter(|line| is_absent(line, now));
        let waiting = absent.flat_map(|line| &line.waiting).chain(&self.unplaced);
        waiting.map(|share| share.stored_bytes).sum()
    }

    /// Content in the spool that nobody takes now, each with the peer that it waits for: the caller has it until each is
    /// added again, `finished` or `put_down`. Nothing if those who are there are not enough to make packs safe: then there
    /// is nobody to make room for.
    pub(super) fn take_absent(
        &mut self,
        peers: &[Peer],
        tolerate: u8,
        now: Instant,
    ) -> Vec<(Option<PeerKey>, Waiting)> {
        let absent = self.lines.iter().filter(|(_, line)| is_absent(line, now));
        let absent: HashSet<PeerKey> = absent.map(|(key, _)| key.clone()).collect();
        if !self.are_enough_without(&absent, peers, tolerate, now) {
            return Vec::new();
        }
        let is_content = |share: &Waiting| share.not_urgent;
        let mut taken = Vec::new();
        for (key, line) in self.lines.iter_mut().filter(|(key, _)| absent.contains(key)) {
            let waiting = line.waiting.extract_if(.., |share| is_content(share));
            taken.extend(waiting.map(|share| (Some(key.clone()), share)));
        }
        let unplaced = self.unplaced.extract_if(.., |share| is_content(share));
        taken.extend(unplaced.map(|share| (None, share)));
        self.moving.extend(taken.iter().map(|(_, share)| share.clone()));
        taken
    }

    pub(super) fn set_uptimes(&mut self, uptimes: HashMap<PeerKey, Uptime>) {
        self.uptimes = uptimes;
    }

    /// The best uptime of each failure domain that a pack made now can count on; of all there are, if none answers. Peers
    /// that nothing is known of are taken to be on.
    pub(super) fn domains(&self, peers: &[Peer], tolerate: u8, now: Instant) -> Vec<Uptime> {
        let away = self.away(peers, tolerate, now);
        let best = |usable: &dyn Fn(&Peer) -> bool| {
            let mut domains: HashMap<&str, f64> = HashMap::new();
            for peer in peers.iter().filter(|peer| usable(peer)) {
                let uptime = self.uptimes.get(&peer.key).map_or(1.0, |uptime| uptime.now());
                let best = domains.entry(&peer.domain).or_insert(uptime);
                *best = best.max(uptime);
            }
            domains.into_values().map(Uptime::new).collect::<Vec<_>>()
        };
        // Those who are left may be too few for what is asked: a pack made for them alone would stay so when others come.
        let are_enough = self.are_enough_without(&HashSet::new(), peers, tolerate, now);
        let is_shunned = |peer: &Peer| are_enough && self.shunned.contains(&peer.key);
        let usable = best(&|peer| !away.contains(&peer.key) && !is_shunned(peer) && !self.is_doubted(&peer.key));
        if usable.is_empty() { best(&|_| true) } else { usable }
    }

    /// Peers that packs are not made for: a full one is not counted on again because it has rested.
    fn is_doubted(&self, peer: &PeerKey) -> bool {
        self.lines.get(peer).is_some_and(|line| line.refusals > 0)
    }

    /// The peers as `placement` sees them, for shares of `stored_bytes`. Full ones and those that rest have no space (their
    /// domain still counts); those that fail come last.
    pub(super) fn candidates(&self, peers: &[Peer], stored_bytes: u64, now: Instant) -> Vec<Candidate> {
        let candidate = |peer: &Peer| {
            let mut candidate = Candidate::from(peer);
            if let Some(line) = self.lines.get(&peer.key) {
                candidate.free_bytes = line.free_bytes;
                if line.failures > 0 {
                    candidate.free_bytes = Some(line.free_bytes.map_or(stored_bytes, |free| free.min(stored_bytes)));
                }
            }
            if self.is_aside(&peer.key, now) || candidate.free_bytes.is_some_and(|free| free < stored_bytes) {
                candidate.free_bytes = Some(0);
            }
            candidate
        };
        peers.iter().map(candidate).collect()
    }

    /// Bytes on their way to peers that take them, with those that come, and whom most of them are for.
    pub(super) fn under_way(&self, now: Instant) -> (u64, Option<(PeerKey, u64)>) {
        let taking = self.lines.iter().filter(|(_, line)| !is_absent(line, now));
        let bytes = |line: &Line| {
            line.waiting
                .iter()
                .chain(&line.in_flight)
                .map(|share| share.stored_bytes)
                .sum()
        };
        let by_peer: Vec<(&PeerKey, u64)> = taking.map(|(key, line)| (key, bytes(line))).collect();
        let placed: u64 = by_peer.iter().map(|(_, bytes)| bytes).sum();
        let others = self.homeless.iter().chain(&self.moving).chain(self.held.waiting());
        let others: u64 = others.map(|share| share.stored_bytes).sum();
        let slowest = by_peer
            .into_iter()
            .filter(|(_, bytes)| *bytes > 0)
            .max_by_key(|(_, bytes)| *bytes);
        let slowest = slowest.map(|(key, bytes)| (key.clone(), bytes));
        (placed + others + self.incoming_bytes, slowest)
    }

    /// Bytes in the spool, and those that come.
    pub(super) fn spool_bytes(&self) -> u64 {
        let lines = self.lines.values();
        let waiting = lines.flat_map(|line| line.waiting.iter().chain(&line.in_flight));
        let bytes: u64 = waiting
            .chain(&self.homeless)
            .chain(&self.unplaced)
            .chain(&self.moving)
            .chain(self.held.waiting())
            .map(|share| share.stored_bytes)
            .sum();
        bytes + self.incoming_bytes
    }

    /// Somebody begins to wait: every peer that failed gets its chance at once.
    pub(super) fn mark(&mut self, now: Instant) -> Mark {
        self.unblock();
        self.held.hurry(now);
        let failures = |(key, line): (&PeerKey, &Line)| (key.clone(), line.failures_total);
        Mark {
            at: now,
            failures: self.lines.iter().map(failures).collect(),
        }
    }

    /// Whether nothing more can be done since `mark` for the shares that `which` selects. In every state in which it is
    /// false, something is under way or due by a known time (`tests::model`).
    pub(super) fn is_quiet(&self, mark: &Mark, which: impl Fn(&Waiting) -> bool, now: Instant) -> bool {
        let has_work = |line: &Line| line.waiting.iter().chain(&line.in_flight).any(&which);
        let mut busy = self.lines.iter().filter(|(_, line)| has_work(line));
        let before = |key| mark.failures.get(key).copied().unwrap_or(0);
        let planned = self.homeless.iter().chain(&self.moving);
        busy.all(|(key, line)| line.is_stuck(before(key), mark.at, now))
            && !planned.chain(self.held.waiting()).any(&which)
    }

    /// The last error of each peer that has not taken a share since.
    pub(super) fn errors(&self) -> Vec<(PeerKey, StoreError)> {
        let error = |(key, line): (&PeerKey, &Line)| Some((key.clone(), line.error.clone()?));
        let mut errors: Vec<_> = self.lines.iter().filter_map(error).collect();
        errors.sort_by(|a, b| a.0.cmp(&b.0));
        errors
    }
}

fn is_absent(line: &Line, now: Instant) -> bool {
    line.failures >= ABSENT_FAILURES || line.rests(now)
}

#[cfg(test)]
mod tests;
