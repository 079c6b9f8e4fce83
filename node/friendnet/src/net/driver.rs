//! The one task that owns the swarm: carries out commands, keeps `Links` true, and shows strangers the door.
//!
//! What the outside world looks like, and how it reaches this node, is `driver/outside.rs`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, mdns, ping};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::crowd::{Crowd, Limits};
use super::dialing::{Dialing, Done};
use super::links::Links;
use super::reach::{Route, is_loopback, is_relayed};
use super::relays::{RelayUse, Relays};
use super::swarm::{Behaviour, BehaviourEvent};
use crate::identity;
use crate::roster::Roster;

mod outside;

/// A stranger that has not become a member within this time is disconnected.
const STRANGER_TIME: Duration = Duration::from_secs(20);
/// Connections of strangers. Chosen: whoever joins or recovers needs a second; with [`STRANGER_TIME`] and their streams this
/// bounds what strangers cost.
const STRANGERS: Limits = Limits {
    address: 8,
    network: 12,
    provider: 16,
    all: 32,
};
/// Connections of one friend's device. Chosen: a straight one, a relayed one, and what a laptop leaves behind that changes
/// its network every few seconds.
const OF_FRIEND_MAX: usize = 16;
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);
/// How often dials are looked after while some wait for their turn.
const DIAL_INTERVAL: Duration = Duration::from_millis(100);
/// Pings that may fail in a row, ten seconds each, before a connection counts as dead: as long as libp2p gives an answer.
const PING_FAILURES_MAX: u8 = 6;
/// A friend who comes through a relay although there is a straight connection older than this has lost that one. Chosen:
/// longer than a straight and a relayed dial of one attempt lie apart.
const STALE_AGE: Duration = Duration::from_secs(15);
/// A wall clock that runs ahead of the monotonic one by this says that the machine slept. Chosen: longer than a step of the
/// time service on a running machine, shorter than routers remember connections.
const SLEEP_MIN: Duration = Duration::from_secs(30);
/// Listen addresses that come up in this time are the first ones, not a change of the network.
const START_TIME: Duration = Duration::from_secs(5);

/// What the rest of the node asks of the swarm: to connect to a peer.
pub struct Dial {
    /// Whom.
    pub peer: PeerId,
    pub addresses: Vec<Multiaddr>,
    /// Gets the outcome.
    pub done: Done,
}

/// How this node is to be reached.
pub struct Reaching {
    /// When to ask for relays.
    pub relays: RelayUse,
    /// Addresses that the node was asked to listen on.
    pub listen: Vec<Multiaddr>,
}

/// State of the task.
pub struct Driver {
    swarm: Swarm<Behaviour>,
    links: Arc<Links>,
    members: watch::Receiver<Arc<Roster>>,
    reaching: Reaching,
    dialing: Dialing,
    relays: Relays,
    /// Friends that offer to forward.
    forwarders: HashSet<PeerId>,
    connections: HashMap<ConnectionId, Connection>,
    /// Those of strangers that came here.
    strangers: Crowd<ConnectionId>,
    /// When straight ways to friends behind relays were last tried.
    improved: HashMap<PeerId, Instant>,
    /// Members' devices.
    trusted: HashSet<PeerId>,
    /// Addresses that once were reached from outside: AutoNAT tests none of them again.
    proven: HashSet<Multiaddr>,
    started: Instant,
    /// Both clocks at the last sweep.
    clocks: (Instant, SystemTime),
    network_changed: bool,
}

/// A connection.
struct Connection {
    peer: PeerId,
    since: Instant,
    ping_failures: u8,
    /// The address dialed, if this end dialed.
    dialed: Option<Multiaddr>,
    /// Where the peer sees this end.
    observed: Option<Multiaddr>,
    /// Dialed from the port that the node listens on.
    reuses_port: bool,
    /// Beside a relayed one: holes may have been punched for it.
    may_be_punched: bool,
    is_relayed: bool,
}

impl Driver {
    /// A driver for a swarm that listens already.
    pub fn new(
        swarm: Swarm<Behaviour>,
        links: Arc<Links>,
        members: watch::Receiver<Arc<Roster>>,
        reaching: Reaching,
    ) -> Self {
        let mut driver = Self {
            swarm,
            links,
            members,
            reaching,
            dialing: Dialing::default(),
            relays: Relays::default(),
            forwarders: HashSet::new(),
            connections: HashMap::new(),
            strangers: Crowd::new(STRANGERS),
            improved: HashMap::new(),
            trusted: HashSet::new(),
            proven: HashSet::new(),
            started: Instant::now(),
            clocks: (Instant::now(), SystemTime::now()),
            network_changed: false,
        };
        driver.trust_members();
        driver
    }

    /// Runs until it is stopped or nobody can ask for anything any more.
    pub async fn run(mut self, mut dials: mpsc::Receiver<Dial>, stop: CancellationToken) {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        let mut dial_turn = tokio::time::interval(DIAL_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                event = self.swarm.select_next_some() => self.on_event(event),
                dial = dials.recv() => match dial {
                    Some(dial) => self.dial(dial),
                    None => break,
                },
                Ok(()) = self.members.changed() => self.trust_members(),
                _ = sweep.tick() => self.sweep(),
                _ = dial_turn.tick(), if self.dialing.is_waiting() => {}
            }
            self.dial_due();
        }
    }

    fn dial(&mut self, dial: Dial) {
        let Dial { peer, addresses, done } = dial;
        if self.links.is_connected(peer) {
            // Whoever asked may have given up.
            let _ = done.send(Ok(()));
        } else {
            self.dialing.ask(peer, addresses, done);
        }
    }

    fn dial_due(&mut self) {
        for (peer, addresses) in self.dialing.due(Instant::now()) {
            let options = DialOpts::peer_id(peer)
                .condition(PeerCondition::Always)
                .addresses(addresses)
                .build();
            let attempt = options.connection_id();
            self.dialing.started(peer, attempt);
            if let Err(error) = self.swarm.dial(options) {
                self.dialing.failed(peer, attempt, reason(&error));
            }
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => self.connected(peer_id, connection_id, &endpoint),
            SwarmEvent::ConnectionClosed {
                peer_id, connection_id, ..
            } => {
                self.connections.remove(&connection_id);
                self.strangers.leave(connection_id);
                self.links.connection_down(peer_id, connection_id);
                if !self.links.is_connected(peer_id) {
                    self.forwarders.remove(&peer_id);
                }
            }
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(peer),
                connection_id,
                error,
            } => self.dialing.failed(peer, connection_id, reason(&error)),
            SwarmEvent::NewListenAddr { address, .. } => self.listening(address),
            SwarmEvent::ExpiredListenAddr { address, .. } => self.not_listening(&address),
            SwarmEvent::ListenerClosed {
                listener_id,
                addresses,
                reason,
            } => self.listener_closed(listener_id, &addresses, &reason),
            SwarmEvent::ListenerError { error, .. } => tracing::warn!("Listening: {error}"),
            SwarmEvent::ExternalAddrConfirmed { address } => self.confirmed(address),
            SwarmEvent::ExternalAddrExpired { address } => self.refuted(&address),
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Ping(event) => self.on_ping(&event),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                found
                    .into_iter()
                    .for_each(|(peer, address)| self.links.found(peer, address));
            }
            BehaviourEvent::Mdns(mdns::Event::Expired(lost)) => {
                lost.iter().for_each(|(peer, address)| self.links.lost(*peer, address));
            }
            BehaviourEvent::Identify(event) => self.on_identify(event),
            BehaviourEvent::RelayClient(event) => self.on_relay(&event),
            BehaviourEvent::Dcutr(event) => self.on_punch(event),
            BehaviourEvent::Upnp(event) => self.on_upnp(&event),
            _ => {}
        }
    }

    fn connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let (dialed, reuses_port) = match endpoint {
            ConnectedPoint::Dialer { address, port_use, .. } => (Some(address.clone()), *port_use == PortUse::Reuse),
            ConnectedPoint::Listener { .. } => (None, false),
        };
        let connection = Connection {
            peer,
            since: Instant::now(),
            ping_failures: 0,
            dialed,
            observed: None,
            reuses_port,
            may_be_punched: self.links.route(peer) == Some(Route::Relayed),
            is_relayed: endpoint.is_relayed(),
        };
        let route = if connection.is_relayed {
            Route::Relayed
        } else {
            Route::Direct
        };
        if connection.is_relayed && connection.dialed.is_none() {
            self.close_stale(peer);
        }
        self.connections.insert(id, connection);
        self.links.connection_up(peer, id, route);
        self.dialing.succeeded(peer);
        self.close_superfluous(peer);
        self.close_crowd(peer, id, endpoint);
    }

    /// Those who have to go for a connection that came up: older strangers, or what a friend has too many of.
    fn close_crowd(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        if let (ConnectedPoint::Listener { send_back_addr, .. }, false) = (endpoint, self.is_known(peer)) {
            for gone in self.strangers.enter(id, send_back_addr) {
                tracing::debug!("A stranger's connection gives way to another");
                self.close(gone);
            }
            return;
        }
        let of_friend = self.connections.iter().filter(|(_, known)| known.peer == peer);
        let mut of_friend: Vec<_> = of_friend.map(|(id, known)| (known.since, *id)).collect();
        of_friend.sort_unstable();
        for (_, oldest) in of_friend.iter().take(of_friend.len().saturating_sub(OF_FRIEND_MAX)) {
            self.close(*oldest);
        }
    }

    /// Nothing is sent through a relay that can go straight.
    fn close_superfluous(&mut self, peer: PeerId) {
        for connection in self.links.superfluous(peer) {
            self.close(connection);
        }
    }

    /// A friend who found no other way than through a relay has no straight connection to us, whatever this end believes.
    fn close_stale(&mut self, peer: PeerId) {
        let is_stale =
            |known: &Connection| known.peer == peer && !known.is_relayed && known.since.elapsed() > STALE_AGE;
        let stale = self.connections.iter().filter(|(_, known)| is_stale(known));
        for connection in stale.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close(connection);
        }
    }

    /// Closes a connection, and forgets it at once: one that leads nowhere may take a quarter of an hour to close.
    fn close(&mut self, id: ConnectionId) {
        self.swarm.close_connection(id);
        self.strangers.leave(id);
        if let Some(connection) = self.connections.remove(&id) {
            self.links.connection_down(connection.peer, id);
        }
    }

    fn on_ping(&mut self, event: &ping::Event) {
        let Some(connection) = self.connections.get_mut(&event.connection) else {
            return;
        };
        connection.ping_failures = match event.result {
            Ok(_) => 0,
            Err(ping::Failure::Timeout) => PING_FAILURES_MAX,
            Err(ping::Failure::Unsupported) => connection.ping_failures,
            // Not even a stream for a ping could be opened.
            Err(ping::Failure::Other { .. }) => connection.ping_failures + 1,
        };
        if connection.ping_failures >= PING_FAILURES_MAX {
            tracing::debug!(peer = %event.peer, "No answer to pings: closing the connection");
            self.close(event.connection);
        }
    }

    fn trust_members(&mut self) {
        let roster = self.members.borrow_and_update().clone();
        let devices = roster.devices().map(|device| device.cert.device);
        let trusted: HashSet<_> = devices.filter_map(identity::peer_id).collect();
        let before = std::mem::replace(&mut self.trusted, trusted);
        let removed = before.difference(&self.trusted).copied();
        let doubted = self.links.doubt(|cert| roster.admits(cert));
        let refused: HashSet<PeerId> = removed.chain(doubted).collect();
        let of_refused = self
            .connections
            .iter()
            .filter(|(_, known)| refused.contains(&known.peer));
        for connection in of_refused.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close(connection);
        }
        // What a stranger said counts as soon as it has joined.
        for connection in self.connections.keys().copied().collect::<Vec<_>>() {
            self.observed(connection);
        }
    }

    fn sweep(&mut self) {
        self.notice_upheaval();
        self.disconnect_strangers();
        self.keep_relays();
        self.improve();
    }

    fn disconnect_strangers(&mut self) {
        let friends = self.connections.iter().filter(|(_, known)| self.is_known(known.peer));
        for id in friends.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.strangers.leave(id);
        }
        let overdue: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| {
                connection.dialed.is_none()
                    && connection.since.elapsed() > STRANGER_TIME
                    && !self.is_known(connection.peer)
            })
            .map(|(id, _)| *id)
            .collect();
        for connection in overdue {
            self.close(connection);
        }
    }

    /// A member's device, also one of which no roster knows yet: it has shown its certificate.
    fn is_known(&self, peer: PeerId) -> bool {
        self.is_friend(peer) || self.links.is_vouched(peer)
    }

    fn is_friend(&self, peer: PeerId) -> bool {
        self.trusted.contains(&peer)
    }

    fn listening(&mut self, address: Multiaddr) {
        self.network_changed |= self.started.elapsed() > START_TIME && !is_loopback(&address) && !is_relayed(&address);
        self.links.listening_on(super::reach::without_peer(address));
    }

    fn not_listening(&mut self, address: &Multiaddr) {
        self.network_changed |= !is_loopback(address) && !is_relayed(address);
        self.links
            .not_listening_on(&super::reach::without_peer(address.clone()));
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
