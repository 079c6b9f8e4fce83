//! Which share waits for which peer, and what each peer is up to: the uploader's memory, without clock or IO.
//!
//! Bounded by the spool: a ticket here is a file there.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use proto::id::ShareId;
use proto::share_store::StoreError;
use tokio::time::Instant;

use crate::packs::shares::SpooledShare;
use crate::packs::{PackRow, Purpose};
use crate::peers::{Peer, PeerKey};
use crate::placement::{Candidate, shuffled};
use crate::planner::Uptime;
use crate::uploader::held::Held;

/// First wait after a failure; doubles with each further one, up to the longest.
const BACK_OFF_FIRST: Duration = Duration::from_millis(250);
const BACK_OFF_LONGEST: Duration = Duration::from_secs(60);
/// A peer that fails for so long gets no new shares while the others can make packs safe without it.
const AWAY_AFTER: Duration = Duration::from_secs(15 * 60);
/// A peer is given up by those who wait when it failed so often in a row since they began to …
const STUCK_FAILURES: u64 = 4;
/// … or at least so often, and nothing went well for so long.
const STUCK_FAILURES_SLOW: u64 = 2;
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// A share in the spool, in sending order: metadata before content, older packs first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Ticket {
    not_urgent: bool,
    pub(super) pack: PackRow,
    pub(super) index: u8,
    pub(super) id: ShareId,
    pub(super) stored_bytes: u64,
}

impl Ticket {
    /// What packs are sorted by.
    pub(super) fn pack_order(&self) -> (bool, PackRow) {
        (self.not_urgent, self.pack)
    }
}

impl From<&SpooledShare> for Ticket {
    fn from(share: &SpooledShare) -> Self {
        Self {
            not_urgent: share.purpose != Purpose::Metadata,
            pack: share.pack,
            index: share.index,
            id: share.id,
            stored_bytes: share.stored_bytes,
        }
    }
}

/// What a lane of a peer should do.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Send this; it counts as in flight until it is recorded, taken back or moved.
    Send(Ticket),
    /// Nothing before then, unless something changes.
    WaitUntil(Instant),
    /// Nothing, unless something changes.
    Wait,
}

#[derive(Default)]
struct Line {
    waiting: BTreeSet<Ticket>,
    in_flight: BTreeSet<Ticket>,
    /// In a row.
    failures: u64,
    /// Of those, the ones that lengthen the back-off: since somebody last asked to try at once.
    backed_off: u64,
    failing_since: Option<Instant>,
    failed_last: Option<Instant>,
    succeeded_last: Option<Instant>,
    blocked_until: Option<Instant>,
    /// Full, or it refuses us: nothing goes there before the next wake.
    aside: bool,
    error: Option<StoreError>,
    free_bytes: Option<u64>,
    failures_total: u64,
}

/// What had happened when somebody began to wait.
pub(super) struct Mark {
    at: Instant,
    failures: HashMap<PeerKey, u64>,
}

#[derive(Default)]
pub(super) struct Lines {
    lines: HashMap<PeerKey, Line>,
    /// No domain is left for these.
    unplaced: BTreeSet<Ticket>,
    /// Being planned anew.
    moving: BTreeSet<Ticket>,
    /// Measured; peers that were not watched for long enough are not in it.
    uptimes: HashMap<PeerKey, Uptime>,
    /// These are given nothing new.
    shunned: HashSet<PeerKey>,
    /// What the steward is to bring.
    pub(super) held: Held,
    /// Bytes that deliveries are about to put into the spool.
    pub(super) incoming_bytes: u64,
}

impl Lines {
    fn line(&mut self, peer: &PeerKey) -> &mut Line {
        self.lines.entry(peer.clone()).or_default()
    }

    /// Holds a share back for the steward to bring, or puts it in line for `peer`.
    pub(super) fn add_new(&mut self, peer: Option<&PeerKey>, ticket: Ticket, now: Instant) {
        match peer.filter(|peer| self.held.takes(peer, now)) {
            Some(peer) => self.held.hold(peer.clone(), ticket, now),
            None => self.add(peer, ticket),
        }
    }

    /// Puts a share in line for `peer`.
    pub(super) fn add(&mut self, peer: Option<&PeerKey>, ticket: Ticket) {
        self.moving.remove(&ticket);
        let Some(peer) = peer else {
            self.unplaced.insert(ticket);
            return;
        };
        let line = self.line(peer);
        line.free_bytes = line.free_bytes.map(|free| free.saturating_sub(ticket.stored_bytes));
        line.waiting.insert(ticket);
    }

    /// The next step of a lane of `peer`. A peer that failed last is tried with one share at a time.
    pub(super) fn next(&mut self, peer: &PeerKey, now: Instant) -> Next {
        let line = self.line(peer);
        if line.aside || (line.failures > 0 && !line.in_flight.is_empty()) {
            return Next::Wait;
        }
        if let Some(until) = line.blocked_until.filter(|&until| until > now) {
            return Next::WaitUntil(until);
        }
        match line.waiting.pop_first() {
            Some(ticket) => {
                line.in_flight.insert(ticket.clone());
                Next::Send(ticket)
            }
            None => Next::Wait,
        }
    }

    /// `peer` took a share; its ticket stays in flight until it is `finished`.
    pub(super) fn succeeded(&mut self, peer: &PeerKey, now: Instant) {
        let line = self.line(peer);
        line.failures = 0;
        line.backed_off = 0;
        line.failing_since = None;
        line.blocked_until = None;
        line.error = None;
        line.succeeded_last = Some(now);
    }

    /// A share is recorded as delivered, or lost: forget it.
    pub(super) fn finished(&mut self, peer: &PeerKey, ticket: &Ticket) {
        let line = self.line(peer);
        line.in_flight.remove(ticket);
        // The steward may have brought what was in line here.
        line.waiting.remove(ticket);
        self.held.finished(ticket);
    }

    /// Back into the line: it was not sent.
    pub(super) fn take_back(&mut self, peer: &PeerKey, ticket: &Ticket) {
        let line = self.line(peer);
        line.in_flight.remove(ticket);
        line.waiting.insert(ticket.clone());
    }

    /// `peer` failed in a way that may pass, in an attempt begun at `begun`. Attempts that began before the last failure
    /// say nothing new.
    pub(super) fn failed(&mut self, peer: &PeerKey, error: &StoreError, begun: Instant, now: Instant) {
        let seed = shuffled(0, peer);
        let line = self.line(peer);
        line.error = Some(error.clone());
        if line.failed_last.is_some_and(|last| begun < last) {
            return;
        }
        line.failures += 1;
        line.failures_total += 1;
        line.backed_off += 1;
        line.failing_since.get_or_insert(now);
        line.failed_last = Some(now);
        let mut wait = back_off(line.backed_off, seed);
        if let StoreError::Busy { retry_after } = error {
            wait = wait.max((*retry_after).min(BACK_OFF_LONGEST));
        }
        line.blocked_until = Some(now + wait);
    }

    /// `peer` will take nothing more: it is set aside, and what waits for it is homeless.
    pub(super) fn refuse(&mut self, peer: &PeerKey, error: &StoreError) {
        let line = self.line(peer);
        line.aside = true;
        line.error = Some(error.clone());
        let mut waiting = std::mem::take(&mut line.waiting);
        self.unplaced.append(&mut waiting);
    }

    /// As `refuse`, and so is the share that was just sent there.
    pub(super) fn refuse_share(&mut self, peer: &PeerKey, ticket: &Ticket, error: &StoreError) {
        self.line(peer).in_flight.remove(ticket);
        self.unplaced.insert(ticket.clone());
        self.refuse(peer, error);
    }

    /// What has no peer, or one that is no longer there: to be planned anew.
    pub(super) fn take_homeless(&mut self, peers: &[Peer]) -> Vec<Ticket> {
        let mut tickets = std::mem::take(&mut self.unplaced);
        let known: HashSet<&PeerKey> = peers.iter().map(|peer| &peer.key).collect();
        for (_, line) in self.lines.iter_mut().filter(|(key, _)| !known.contains(key)) {
            tickets.append(&mut line.waiting);
        }
        self.moving.extend(tickets.iter().cloned());
        tickets.into_iter().collect()
    }

    /// Every peer may be tried at once, those set aside too.
    pub(super) fn wake(&mut self) {
        for line in self.lines.values_mut() {
            line.aside = false;
        }
        self.held.wake();
        self.unblock();
    }

    fn unblock(&mut self) {
        for line in self.lines.values_mut() {
            line.blocked_until = None;
            line.backed_off = 0;
        }
    }

    pub(super) fn shun(&mut self, peers: HashSet<PeerKey>) {
        self.shunned = peers;
    }

    pub(super) fn set_free_bytes(&mut self, peer: &PeerKey, free_bytes: Option<u64>) {
        let line = self.line(peer);
        // What is in line already is not yet counted there.
        let owed: u64 = line.waiting.iter().map(|ticket| ticket.stored_bytes).sum();
        line.free_bytes = free_bytes.map(|free| free.saturating_sub(owed));
    }

    /// Peers that fail for long, if the others are enough without them; what waits for those holds nobody up.
    fn away(&self, peers: &[Peer], tolerate: u8, now: Instant) -> HashSet<PeerKey> {
        let is_away = |peer: &Peer| {
            let since = self.lines.get(&peer.key).and_then(|line| line.failing_since);
            since.is_some_and(|since| now.duration_since(since) >= AWAY_AFTER)
        };
        let (away, here): (Vec<&Peer>, Vec<&Peer>) = peers.iter().partition(|peer| is_away(peer));
        let domains: HashSet<&str> = here
            .iter()
            .filter(|peer| !self.is_aside(&peer.key))
            .map(|peer| peer.domain.as_str())
            .collect();
        if domains.len() > usize::from(tolerate) {
            away.into_iter().map(|peer| peer.key.clone()).collect()
        } else {
            HashSet::new()
        }
    }

    fn is_aside(&self, peer: &PeerKey) -> bool {
        self.shunned.contains(peer) || self.lines.get(peer).is_some_and(|line| line.aside)
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
        let usable = best(&|peer| !away.contains(&peer.key) && !self.is_aside(&peer.key));
        if usable.is_empty() { best(&|_| true) } else { usable }
    }

    /// The peers as `placement` sees them, for shares of `stored_bytes`. Full ones and those set aside have no space (their
    /// domain still counts); those that fail come last.
    pub(super) fn candidates(&self, peers: &[Peer], stored_bytes: u64) -> Vec<Candidate> {
        let candidate = |peer: &Peer| {
            let mut candidate = Candidate::from(peer);
            if let Some(line) = self.lines.get(&peer.key) {
                candidate.free_bytes = line.free_bytes;
                if line.failures > 0 {
                    candidate.free_bytes = Some(line.free_bytes.map_or(stored_bytes, |free| free.min(stored_bytes)));
                }
            }
            if self.is_aside(&peer.key) || candidate.free_bytes.is_some_and(|free| free < stored_bytes) {
                candidate.free_bytes = Some(0);
            }
            candidate
        };
        peers.iter().map(candidate).collect()
    }

    /// Bytes that count against the spool's limit: all but those for peers that are away.
    pub(super) fn spool_bytes(&self, peers: &[Peer], tolerate: u8, now: Instant) -> u64 {
        let away = self.away(peers, tolerate, now);
        let present = self.lines.iter().filter(|(key, _)| !away.contains(key));
        let tickets = present.flat_map(|(_, line)| line.waiting.iter().chain(&line.in_flight));
        let bytes: u64 = tickets
            .chain(&self.unplaced)
            .chain(&self.moving)
            .chain(self.held.tickets())
            .map(|ticket| ticket.stored_bytes)
            .sum();
        bytes + self.incoming_bytes
    }

    /// Somebody begins to wait: every peer gets its chance at once.
    pub(super) fn mark(&mut self, now: Instant) -> Mark {
        self.unblock();
        self.held.hurry(now);
        let failures = |(key, line): (&PeerKey, &Line)| (key.clone(), line.failures_total);
        Mark {
            at: now,
            failures: self.lines.iter().map(failures).collect(),
        }
    }

    /// Whether nothing more can be done since `mark` for the shares that `which` selects.
    pub(super) fn is_quiet(&self, mark: &Mark, which: impl Fn(&Ticket) -> bool, now: Instant) -> bool {
        let has_work = |line: &Line| line.waiting.iter().chain(&line.in_flight).any(&which);
        let mut busy = self.lines.iter().filter(|(_, line)| has_work(line));
        busy.all(|(key, line)| is_stuck(key, line, mark, now))
            && !self.moving.iter().chain(self.held.tickets()).any(&which)
    }

    /// The last error of each peer that has not taken a share since.
    pub(super) fn errors(&self) -> Vec<(PeerKey, StoreError)> {
        let error = |(key, line): (&PeerKey, &Line)| Some((key.clone(), line.error.clone()?));
        let mut errors: Vec<_> = self.lines.iter().filter_map(error).collect();
        errors.sort_by(|a, b| a.0.cmp(&b.0));
        errors
    }
}

fn is_stuck(key: &PeerKey, line: &Line, mark: &Mark, now: Instant) -> bool {
    let before = mark.failures.get(key).copied().unwrap_or(0);
    let failures = line.failures.min(line.failures_total - before);
    let quiet_since = line.succeeded_last.map_or(mark.at, |last| last.max(mark.at));
    let slow = now.duration_since(quiet_since) >= STUCK_AFTER;
    failures >= STUCK_FAILURES || (failures >= STUCK_FAILURES_SLOW && slow)
}

/// Wait after so many failures in a row, shortened by up to a quarter, differently for each peer and failure, so that
/// peers that went together are not tried together for ever.
fn back_off(failures: u64, seed: u64) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    let full = BACK_OFF_FIRST.saturating_mul(1 << doublings).min(BACK_OFF_LONGEST);
    let jitter = (seed.rotate_left(doublings * 3) % 256) as u32;
    full - full / 4 * jitter / 256
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> StoreError {
        StoreError::Unreachable { reason: String::new() }
    }

    #[test]
    fn back_off_grows_to_a_minute_and_differs_between_peers() {
        let waits: Vec<_> = (1..40)
            .map(|failures| back_off(failures, shuffled(0, &PeerKey("a".into()))))
            .collect();
        assert!(waits[0] <= BACK_OFF_FIRST && waits[0] >= BACK_OFF_FIRST * 3 / 4);
        assert!(
            waits[20..].iter().all(|wait| (45..=60).contains(&wait.as_secs())),
            "{waits:?}"
        );
        let other = back_off(1, shuffled(0, &PeerKey("b".into())));
        assert_ne!(waits[0], other);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_in_flight_together_fail_as_one() {
        let (mut lines, peer) = (Lines::default(), PeerKey("a".into()));
        let begun = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        lines.failed(&peer, &unreachable(), begun, Instant::now());
        lines.failed(&peer, &unreachable(), begun, Instant::now());
        assert_eq!(lines.line(&peer).failures, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_fails_for_long_is_left_out_if_the_others_are_enough() {
        use std::sync::Arc;

        use proto::share_store::memory::MemoryStore;

        use crate::peers::Reach;

        let peers: Vec<_> = ["a", "b", "c"]
            .map(|name| Peer {
                key: PeerKey(name.into()),
                name: name.into(),
                domain: name.into(),
                reach: Reach::Remote,
                store: Arc::new(MemoryStore::new()),
            })
            .into();
        let mut lines = Lines::default();
        lines.failed(&peers[0].key, &unreachable(), Instant::now(), Instant::now());
        assert_eq!(lines.domains(&peers, 1, Instant::now()).len(), 3);
        let ticket = Ticket {
            not_urgent: true,
            pack: PackRow(1),
            index: 0,
            id: ShareId([1; 32]),
            stored_bytes: 10,
        };
        lines.add(Some(&peers[0].key), ticket);
        tokio::time::advance(AWAY_AFTER).await;
        let now = Instant::now();
        assert_eq!(
            (lines.domains(&peers, 1, now).len(), lines.spool_bytes(&peers, 1, now)),
            (2, 0)
        );
        // Without it, two losses could not be survived: it is counted on, and what waits for it counts.
        assert_eq!(
            (lines.domains(&peers, 2, now).len(), lines.spool_bytes(&peers, 2, now)),
            (3, 10)
        );
    }
}
