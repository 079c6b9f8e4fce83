//! The one task that owns the swarm: carries out commands, keeps `Links` true, and shows strangers the door.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, mdns, ping};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::links::Links;
use super::swarm::{Behaviour, BehaviourEvent};
use crate::friendnet::identity;
use crate::friendnet::roster::Roster;

/// A stranger that has not been welcomed within this time is disconnected.
const STRANGER_TIME: Duration = Duration::from_secs(20);
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What the rest of the node asks of the swarm: to connect to a peer.
pub struct Dial {
    /// Whom.
    pub peer: PeerId,
    /// Where.
    pub addresses: Vec<Multiaddr>,
    /// Gets the outcome.
    pub done: Done,
}

/// State of the task.
pub struct Driver {
    swarm: Swarm<Behaviour>,
    links: Arc<Links>,
    members: watch::Receiver<Arc<Roster>>,
    dialing: HashMap<PeerId, Dialing>,
    inbound: HashMap<ConnectionId, (PeerId, Instant)>,
}

type Done = oneshot::Sender<Result<(), String>>;

/// A dial that is going on.
struct Dialing {
    /// libp2p-stream dials too, without addresses: its failures are not ours.
    attempt: ConnectionId,
    waiting: Vec<Done>,
    /// Who asked meanwhile, perhaps with newer addresses: dialed again if this one fails.
    next: Option<(Vec<Multiaddr>, Vec<Done>)>,
}

impl Driver {
    /// A driver for a swarm that listens already.
    pub fn new(swarm: Swarm<Behaviour>, links: Arc<Links>, members: watch::Receiver<Arc<Roster>>) -> Self {
        let mut driver = Self {
            swarm,
            links,
            members,
            dialing: HashMap::new(),
            inbound: HashMap::new(),
        };
        driver.trust_members();
        driver
    }

    /// Runs until it is stopped or nobody can ask for anything any more.
    pub async fn run(mut self, mut dials: mpsc::Receiver<Dial>, stop: CancellationToken) {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                event = self.swarm.select_next_some() => self.on_event(event),
                dial = dials.recv() => match dial {
                    Some(dial) => self.dial(dial),
                    None => break,
                },
                Ok(()) = self.members.changed() => self.trust_members(),
                _ = sweep.tick() => self.disconnect_strangers(),
            }
        }
    }

    fn dial(&mut self, dial: Dial) {
        let Dial { peer, addresses, done } = dial;
        if self.swarm.is_connected(&peer) {
            // Whoever asked may have given up; here and below.
            let _ = done.send(Ok(()));
        } else if let Some(dialing) = self.dialing.get_mut(&peer) {
            let (newest, waiting) = dialing.next.get_or_insert_default();
            *newest = addresses;
            waiting.push(done);
        } else {
            self.dial_for(peer, addresses, vec![done]);
        }
    }

    fn dial_for(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, waiting: Vec<Done>) {
        // All dials start here, so that the swarm never has another one to the same peer.
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .addresses(addresses)
            .build();
        let attempt = options.connection_id();
        let next = None;
        self.dialing.insert(peer, Dialing { attempt, waiting, next });
        if let Err(error) = self.swarm.dial(options) {
            self.dialed(peer, &Err(reason(&error)));
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                if matches!(endpoint, ConnectedPoint::Listener { .. }) {
                    self.inbound.insert(connection_id, (peer_id, Instant::now()));
                }
                self.links.connection_up(peer_id);
                self.dialed(peer_id, &Ok(()));
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                num_established,
                ..
            } => {
                self.inbound.remove(&connection_id);
                self.links.connection_down(peer_id, num_established);
            }
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(peer),
                connection_id,
                error,
            } if self
                .dialing
                .get(&peer)
                .is_some_and(|dialing| dialing.attempt == connection_id) =>
            {
                self.dialed(peer, &Err(reason(&error)));
            }
            SwarmEvent::NewListenAddr { address, .. } => self.links.listening_on(address),
            SwarmEvent::ExpiredListenAddr { address, .. } => self.links.not_listening_on(&address),
            SwarmEvent::ListenerError { error, .. } => tracing::warn!("Listening: {error}"),
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Ping(ping::Event {
                connection,
                result: Err(ping::Failure::Timeout),
                peer,
            }) => {
                tracing::debug!(%peer, "No answer to a ping: closing the connection");
                self.swarm.close_connection(connection);
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                found
                    .into_iter()
                    .for_each(|(peer, address)| self.links.found(peer, address));
            }
            BehaviourEvent::Mdns(mdns::Event::Expired(lost)) => {
                lost.iter().for_each(|(peer, address)| self.links.lost(*peer, address));
            }
            _ => {}
        }
    }

    fn dialed(&mut self, peer: PeerId, outcome: &Result<(), String>) {
        let Some(Dialing { waiting, next, .. }) = self.dialing.remove(&peer) else {
            return;
        };
        for done in waiting {
            let _ = done.send(outcome.clone());
        }
        let Some((addresses, waiting)) = next else { return };
        if outcome.is_err() {
            return self.dial_for(peer, addresses, waiting);
        }
        for done in waiting {
            let _ = done.send(Ok(()));
        }
    }

    fn trust_members(&mut self) {
        let roster = self.members.borrow_and_update().clone();
        for device in roster.devices() {
            if let Some(peer) = identity::peer_id(device.cert.device) {
                self.swarm.behaviour_mut().limits.bypass_peer_id(&peer);
            }
        }
    }

    fn disconnect_strangers(&mut self) {
        let limits = &self.swarm.behaviour().limits;
        let is_stranger = |peer| !self.links.is_welcome(peer) && !limits.is_bypassed(&peer);
        let overdue: Vec<_> = self
            .inbound
            .iter()
            .filter(|(_, (peer, since))| since.elapsed() > STRANGER_TIME && is_stranger(*peer))
            .map(|(connection, _)| *connection)
            .collect();
        for connection in overdue {
            self.swarm.close_connection(connection);
        }
    }
}

/// A dial error in one line.
fn reason(error: &DialError) -> String {
    match error {
        DialError::NoAddresses => "no address of it is known".into(),
        DialError::WrongPeerId { address, .. } => format!("another device answers at {address}"),
        DialError::Transport(tried) => {
            let told = tried
                .iter()
                .take(3)
                .map(|(address, error)| format!("{address}: {}", innermost(error)));
            told.collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}

/// libp2p wraps transport errors many layers deep, and only the innermost says what happened.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
