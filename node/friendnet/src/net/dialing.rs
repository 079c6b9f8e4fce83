//! Dials in the order of preference: TCP, which carries bulk best, then QUIC, then through relays; each begins when the one
//! before has failed or had its head start.
//!
//! Plain state: the driver carries out what `next` says and reports what became of it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use tokio::sync::oneshot;

use super::reach::is_relayed;

/// What a dial has of a head start before the next kind of address is tried, too. Chosen: a TCP handshake across an ocean
/// is done in it, and nobody notices it.
const HEAD_START: Duration = Duration::from_millis(750);

/// Where the outcome of a dial goes.
pub type Done = oneshot::Sender<Result<(), String>>;

/// Dials going on, at most one for each peer.
#[derive(Default)]
pub struct Dialing {
    peers: HashMap<PeerId, Dial>,
}

#[derive(Default)]
struct Dial {
    stages: VecDeque<Vec<Multiaddr>>,
    next_at: Option<Instant>,
    /// libp2p-stream dials too, without addresses: its failures are not ours.
    attempts: Vec<ConnectionId>,
    reasons: Vec<String>,
    waiting: Vec<Done>,
    /// Who asked meanwhile, perhaps with newer addresses: dialed again if this one fails.
    next: Option<(Vec<Multiaddr>, Vec<Done>)>,
}

impl Dialing {
    /// Somebody wants a connection.
    pub fn ask(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, done: Done) {
        if let Some(dial) = self.peers.get_mut(&peer) {
            let (newest, waiting) = dial.next.get_or_insert_default();
            *newest = addresses;
            waiting.push(done);
        } else {
            self.begin(peer, addresses, vec![done]);
        }
    }

    /// The stages that are due now.
    pub fn due(&mut self, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut due = Vec::new();
        for (peer, dial) in &mut self.peers {
            if dial.next_at.is_none_or(|at| now >= at)
                && let Some(addresses) = dial.stages.pop_front()
            {
                dial.next_at = Some(now + HEAD_START);
                due.push((*peer, addresses));
            }
        }
        due
    }

    /// Whether any stage waits for its time.
    pub fn is_waiting(&self) -> bool {
        self.peers.values().any(|dial| !dial.stages.is_empty())
    }

    /// The swarm dials.
    pub fn started(&mut self, peer: PeerId, attempt: ConnectionId) {
        if let Some(dial) = self.peers.get_mut(&peer) {
            dial.attempts.push(attempt);
        }
    }

    /// An attempt failed; those of others are ignored.
    pub fn failed(&mut self, peer: PeerId, attempt: ConnectionId, reason: String) {
        let Some(dial) = self.peers.get_mut(&peer) else { return };
        let before = dial.attempts.len();
        dial.attempts.retain(|going| *going != attempt);
        if dial.attempts.len() == before {
            return;
        }
        dial.reasons.push(reason);
        dial.next_at = None;
        if !dial.attempts.is_empty() || !dial.stages.is_empty() {
            return;
        }
        let Some(dial) = self.peers.remove(&peer) else { return };
        let reason = dial.reasons.join("; ");
        for done in dial.waiting {
            // Whoever asked may have given up; here and below.
            let _ = done.send(Err(reason.clone()));
        }
        if let Some((addresses, waiting)) = dial.next {
            self.begin(peer, addresses, waiting);
        }
    }

    /// A connection is there, by whatever attempt.
    pub fn succeeded(&mut self, peer: PeerId) {
        let Some(dial) = self.peers.remove(&peer) else { return };
        let next = dial.next.into_iter().flat_map(|(_, waiting)| waiting);
        for done in dial.waiting.into_iter().chain(next) {
            let _ = done.send(Ok(()));
        }
    }

    fn begin(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, waiting: Vec<Done>) {
        let stages = stages(addresses);
        if stages.is_empty() {
            for done in waiting {
                let _ = done.send(Err("no address of it is known".into()));
            }
            return;
        }
        let dial = Dial {
            stages,
            waiting,
            ..Dial::default()
        };
        self.peers.insert(peer, dial);
    }
}

/// Addresses by kind, best first, without empty ones.
fn stages(addresses: Vec<Multiaddr>) -> VecDeque<Vec<Multiaddr>> {
    let (relayed, straight): (Vec<_>, Vec<_>) = addresses.into_iter().partition(is_relayed);
    let is_tcp = |address: &Multiaddr| address.iter().any(|part| matches!(part, Protocol::Tcp(_)));
    let (tcp, quic): (Vec<_>, Vec<_>) = straight.into_iter().partition(is_tcp);
    [tcp, quic, relayed]
        .into_iter()
        .filter(|stage| !stage.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Vec<Multiaddr> {
        let relay = PeerId::random();
        [
            format!("/ip4/198.51.100.7/tcp/1/p2p/{relay}/p2p-circuit"),
            "/ip4/192.168.1.2/udp/2/quic-v1".to_owned(),
            "/ip4/192.168.1.2/tcp/2".to_owned(),
        ]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect()
    }

    fn ports(stage: &[(PeerId, Vec<Multiaddr>)]) -> Vec<String> {
        stage.iter().flat_map(|(_, at)| at).map(ToString::to_string).collect()
    }

    #[test]
    fn tcp_is_dialed_first_then_quic_then_relays() {
        let (mut dialing, peer, now) = (Dialing::default(), PeerId::random(), Instant::now());
        let (done, mut outcome) = oneshot::channel();
        dialing.ask(peer, addresses(), done);
        assert_eq!(ports(&dialing.due(now)), ["/ip4/192.168.1.2/tcp/2"]);
        assert!(dialing.due(now).is_empty());
        assert_eq!(
            ports(&dialing.due(now + HEAD_START)),
            ["/ip4/192.168.1.2/udp/2/quic-v1"]
        );
        assert!(ports(&dialing.due(now + 2 * HEAD_START))[0].ends_with("p2p-circuit"));
        assert!(!dialing.is_waiting());
        dialing.succeeded(peer);
        assert_eq!(outcome.try_recv().unwrap(), Ok(()));
    }

    #[test]
    fn a_failure_starts_the_next_kind_at_once_and_the_last_one_is_told() {
        let (mut dialing, peer, now) = (Dialing::default(), PeerId::random(), Instant::now());
        let (done, mut outcome) = oneshot::channel();
        let (later, mut later_outcome) = oneshot::channel();
        dialing.ask(peer, addresses(), done);
        dialing.ask(peer, addresses(), later);
        for number in 0..3 {
            assert_eq!(dialing.due(now).len(), 1);
            let attempt = ConnectionId::new_unchecked(number);
            dialing.started(peer, attempt);
            dialing.failed(peer, ConnectionId::new_unchecked(99), "of another".into());
            assert!(outcome.try_recv().is_err());
            dialing.failed(peer, attempt, format!("reason {number}"));
        }
        assert_eq!(
            outcome.try_recv().unwrap(),
            Err("reason 0; reason 1; reason 2".to_owned())
        );
        assert_eq!(dialing.due(now).len(), 1, "who asked meanwhile is dialed for again");
        dialing.succeeded(peer);
        assert_eq!(later_outcome.try_recv().unwrap(), Ok(()));
    }
}
