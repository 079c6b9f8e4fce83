//! How this node is reached from outside: what friends observe, what the router says, places at relays, punched holes, and
//! what becomes of all that when the machine slept or the network changed.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId, dcutr, identify, relay, upnp};
use tokio::sync::oneshot;

use super::{Driver, SLEEP_MIN};
use crate::identity;
use crate::net::reach::{Route, Upnp, is_global, is_loopback, is_relayed, without_peer};
use crate::net::relays::{Offer, RelayUse, Step};

/// Most addresses that count as reached from outside.
const EXTERNAL_MAX: usize = 4;
/// Most addresses remembered as once reached. Chosen: home, work, a mobile phone, in both protocols and IP versions.
const PROVEN_MAX: usize = 16;
/// How often straight ways are tried beside a relayed one (docs/protocol/reach.md).
const IMPROVE_INTERVAL: Duration = Duration::from_secs(600);

impl Driver {
    pub(super) fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received {
            connection_id,
            peer_id,
            info,
        } = event
        else {
            return;
        };
        if info.protocols.contains(&relay::HOP_PROTOCOL_NAME) {
            self.forwarders.insert(peer_id);
        } else {
            self.forwarders.remove(&peer_id);
        }
        if let Some(connection) = self.connections.get_mut(&connection_id) {
            connection.observed = Some(without_peer(info.observed_addr));
        }
        self.observed(connection_id);
        self.keep_relays();
    }

    /// A friend says where it sees this end of a connection: for one that it dialed, that is the address that worked.
    pub(super) fn observed(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let Some(observed) = connection.observed.clone() else {
            return;
        };
        if connection.is_relayed || !self.is_friend(connection.peer) {
            return;
        }
        if self.proven.contains(&observed) || (connection.dialed.is_none() && !connection.may_be_punched) {
            self.confirmed(observed);
        } else if connection.reuses_port && is_global(&observed) {
            self.swarm.behaviour_mut().candidates.propose(observed);
        }
    }

    /// Somebody reached this node at an address. Local addresses do not count: whoever is near finds them in the roster.
    pub(super) fn confirmed(&mut self, address: Multiaddr) {
        let whole_grid_here = self.reaching.listen.iter().any(is_loopback);
        if !(is_global(&address) || (whole_grid_here && is_loopback(&address))) {
            // Behaviours tell the swarm by themselves, and identify would tell everybody.
            self.swarm.remove_external_address(&address);
            return;
        }
        let mut is_new = false;
        self.links.update_reachability(|reachability| {
            let external = &mut reachability.external;
            is_new = external.len() < EXTERNAL_MAX && !external.contains(&address);
            if is_new {
                external.push(address.clone());
            }
            is_new
        });
        if is_new {
            tracing::info!(%address, "Reached from outside");
            if self.proven.len() < PROVEN_MAX {
                self.proven.insert(address.clone());
            }
            self.swarm.add_external_address(address);
            self.keep_relays();
        }
    }

    pub(super) fn refuted(&mut self, address: &Multiaddr) {
        self.links.update_reachability(|reachability| {
            let before = reachability.external.len();
            reachability.external.retain(|known| known != address);
            reachability.external.len() != before
        });
    }

    pub(super) fn on_upnp(&mut self, event: &upnp::Event) {
        let state = match event {
            upnp::Event::NewExternalAddr { .. } => Upnp::Mapped,
            upnp::Event::ExpiredExternalAddr { .. } => Upnp::Searching,
            upnp::Event::GatewayNotFound => Upnp::NoGateway,
            upnp::Event::NonRoutableGateway => Upnp::NotRoutable,
        };
        self.links.update_reachability(|reachability| {
            reachability.upnp = state;
            false
        });
    }

    pub(super) fn on_punch(&mut self, event: dcutr::Event) {
        let peer = event.remote_peer_id;
        match event.result {
            Ok(connection) => {
                tracing::info!(%peer, "Connected through a punched hole");
                if self.connections.contains_key(&connection) {
                    self.links.connection_up(peer, connection, Route::HolePunched);
                    self.close_superfluous(peer);
                }
            }
            Err(error) => tracing::info!(%peer, "No hole could be punched: {error}"),
        }
    }

    pub(super) fn on_relay(&mut self, event: &relay::client::Event) {
        if let relay::client::Event::ReservationReqAccepted {
            relay_peer_id,
            renewal: false,
            ..
        } = event
        {
            tracing::info!(relay = %relay_peer_id, "A friend forwards connections to this node");
            self.relays.held(*relay_peer_id);
            self.tell_relays();
        }
    }

    pub(super) fn listener_closed(&mut self, id: ListenerId, addresses: &[Multiaddr], reason: &io::Result<()>) {
        for address in addresses {
            self.links.not_listening_on(&without_peer(address.clone()));
        }
        if self.relays.ended(Instant::now(), id) {
            tracing::debug!(?reason, "A place at a relay ended");
            self.tell_relays();
        }
    }

    /// Asks for places at relays, or gives them up.
    pub(super) fn keep_relays(&mut self) {
        let now = Instant::now();
        let is_needed = match self.reaching.relays {
            RelayUse::Never => false,
            RelayUse::Always => true,
            RelayUse::WhenUnreachable => {
                let only_here = self.reaching.listen.iter().all(is_loopback);
                !only_here && self.links.reachability().external.is_empty()
            }
        };
        let offers = if is_needed { self.offers() } else { Vec::new() };
        for step in self.relays.plan(now, is_needed, offers) {
            match step {
                Step::Release(listener) => {
                    self.swarm.remove_listener(listener);
                }
                Step::Reserve(Offer { relay, address }) => {
                    let at = address.with(Protocol::P2p(relay)).with(Protocol::P2pCircuit);
                    match self.swarm.listen_on(at) {
                        Ok(listener) => self.relays.asked(now, relay, listener),
                        Err(error) => {
                            tracing::debug!(%relay, "A place cannot be asked for: {error}");
                            self.relays.failed(now, relay);
                        }
                    }
                }
            }
        }
    }

    /// Friends with a straight connection that offer to forward, each with an address of it.
    fn offers(&self) -> Vec<Offer> {
        let offer = |relay: &PeerId| {
            if !self.is_friend(*relay) || self.links.route(*relay)? != Route::Direct {
                return None;
            }
            let of_relay = |known: &&super::Connection| known.peer == *relay && !known.is_relayed;
            let dialed = self
                .connections
                .values()
                .filter(of_relay)
                .find_map(|known| known.dialed.clone());
            let address = match dialed {
                Some(address) => without_peer(address),
                None => {
                    let roster = self.members.borrow();
                    let told = roster.device(identity::device_id(*relay)?)?.addresses();
                    let straight = told.into_iter().filter(|address| !is_relayed(address));
                    straight.max_by_key(is_global)?
                }
            };
            Some(Offer { relay: *relay, address })
        };
        self.forwarders.iter().filter_map(offer).collect()
    }

    fn tell_relays(&self) {
        let relays = self.relays.holding();
        self.links.update_reachability(|reachability| {
            reachability.relays = relays;
            true
        });
    }

    /// Dials straight addresses of friends that are reached through relays: a port may have been forwarded since.
    pub(super) fn improve(&mut self) {
        let now = Instant::now();
        let relayed = self.connections.values().filter(|known| known.is_relayed);
        let relayed: HashSet<_> = relayed.map(|known| known.peer).collect();
        self.improved.retain(|peer, _| relayed.contains(peer));
        for peer in relayed {
            let last = *self.improved.entry(peer).or_insert(now);
            if now - last < IMPROVE_INTERVAL {
                continue;
            }
            self.improved.insert(peer, now);
            let mut addresses = self.links.addresses(peer);
            let roster = self.members.borrow().clone();
            if let Some(device) = identity::device_id(peer).and_then(|device| roster.device(device)) {
                addresses.extend(device.addresses());
            }
            addresses.retain(|address| !is_relayed(address));
            // Nobody waits for it: a straight connection that comes up replaces the relayed one.
            self.dialing.ask(peer, addresses, oneshot::channel().0);
        }
    }

    /// After a sleep, or when an address of this machine came or went, old connections lead nowhere and old waits make no
    /// sense.
    pub(super) fn notice_upheaval(&mut self) {
        let now = (Instant::now(), SystemTime::now());
        let (before, wall_before) = std::mem::replace(&mut self.clocks, now);
        let slept = now.1.duration_since(wall_before).unwrap_or_default();
        let slept = slept.saturating_sub(now.0 - before) > SLEEP_MIN;
        let changed = std::mem::take(&mut self.network_changed);
        if !slept && !changed {
            return;
        }
        tracing::info!(slept, "The network changed: connecting anew");
        for address in self.links.reachability().external {
            self.swarm.remove_external_address(&address);
            self.refuted(&address);
        }
        for connection in self.connections.keys().copied().collect::<Vec<_>>() {
            self.close(connection);
        }
        self.relays.forgive();
        self.links.upheaval();
    }
}
