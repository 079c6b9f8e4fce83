//! What the node knows about its connections: who is connected, who can be found where, what it listens on.
//!
//! Written by the swarm's driver, read by everybody; nothing here waits.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use proto::keys::DeviceCert;
use tokio::sync::watch;

use super::reach::{Reachability, Route, is_global, is_loopback, is_relayed};

/// Most peers whose addresses from discovery are remembered: a crowded network must not fill memory.
const FOUND_MAX: usize = 256;
/// Most addresses remembered of one peer from one source.
const ADDRESSES_MAX: usize = 8;
/// Most relayed addresses that others are told: a relay with many addresses must not crowd out the rest.
const RELAYED_TOLD_MAX: usize = 3;

/// Most devices of one account that are in no roster and are still no strangers: its owner may recover on several machines.
const VOUCHED_MAX: usize = 8;

/// The links; see the module.
pub struct Links {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    connections: HashMap<PeerId, HashMap<ConnectionId, Route>>,
    /// Connected devices that have shown a member's certificate, whether the roster knows them or not.
    vouched: HashMap<PeerId, DeviceCert>,
    found: HashMap<PeerId, Vec<Multiaddr>>,
    hints: HashMap<PeerId, Vec<Multiaddr>>,
    listening: Vec<Multiaddr>,
    reachability: Reachability,
    upheavals: u64,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl Links {
    /// Sees every change of connections, discoveries and listen addresses.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether there is a connection.
    pub fn is_connected(&self, peer: PeerId) -> bool {
        self.lock().connections.contains_key(&peer)
    }

    /// The best way that connections lead to a peer.
    pub fn route(&self, peer: PeerId) -> Option<Route> {
        self.lock().connections.get(&peer)?.values().max().copied()
    }

    /// A connection came up, or turned out to be of another kind.
    pub fn connection_up(&self, peer: PeerId, connection: ConnectionId, route: Route) {
        self.lock()
            .connections
            .entry(peer)
            .or_default()
            .insert(connection, route);
        self.changed.send_replace(());
    }

    /// A connection went down.
    pub fn connection_down(&self, peer: PeerId, connection: ConnectionId) {
        let mut state = self.lock();
        if let Some(connections) = state.connections.get_mut(&peer) {
            connections.remove(&connection);
            if connections.is_empty() {
                state.connections.remove(&peer);
                state.vouched.remove(&peer);
            }
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// A connected device has shown this certificate of a member.
    pub fn vouch(&self, peer: PeerId, cert: &DeviceCert) {
        let mut state = self.lock();
        let of_account = state.vouched.values().filter(|known| known.account == cert.account);
        if of_account.count() < VOUCHED_MAX && state.connections.contains_key(&peer) {
            state.vouched.insert(peer, cert.clone());
        }
    }

    /// Whether a device has shown a certificate that counts.
    pub fn is_vouched(&self, peer: PeerId) -> bool {
        self.lock().vouched.contains_key(&peer)
    }

    /// Those whose certificate counts no longer are strangers, and returned.
    pub fn doubt(&self, mut counts: impl FnMut(&DeviceCert) -> bool) -> Vec<PeerId> {
        let vouched = &mut self.lock().vouched;
        vouched
            .extract_if(|_, cert| !counts(cert))
            .map(|(peer, _)| peer)
            .collect()
    }

    /// Relayed connections to a peer that a straight one makes superfluous.
    pub fn superfluous(&self, peer: PeerId) -> Vec<ConnectionId> {
        let state = self.lock();
        let Some(connections) = state.connections.get(&peer) else {
            return Vec::new();
        };
        let is_relayed = |route: &Route| *route == Route::Relayed;
        if connections.values().all(is_relayed) {
            return Vec::new();
        }
        let relayed = connections.iter().filter(|(_, route)| is_relayed(route));
        relayed.map(|(connection, _)| *connection).collect()
    }

    /// Somebody was discovered on the local network.
    pub fn found(&self, peer: PeerId, address: Multiaddr) {
        let mut state = self.lock();
        if state.found.len() < FOUND_MAX || state.found.contains_key(&peer) {
            remember(state.found.entry(peer).or_default(), address);
            drop(state);
            self.changed.send_replace(());
        }
    }

    /// A discovery expired.
    pub fn lost(&self, peer: PeerId, address: &Multiaddr) {
        let mut state = self.lock();
        if let Some(addresses) = state.found.get_mut(&peer) {
            addresses.retain(|known| known != address);
            if addresses.is_empty() {
                state.found.remove(&peer);
            }
        }
    }

    /// A person or a ticket said where a peer is.
    pub fn hint(&self, peer: PeerId, address: Multiaddr) {
        remember(self.lock().hints.entry(peer).or_default(), address);
    }

    /// Where a peer may be, apart from the roster: hints first.
    pub fn addresses(&self, peer: PeerId) -> Vec<Multiaddr> {
        let state = self.lock();
        [&state.hints, &state.found]
            .into_iter()
            .filter_map(|source| source.get(&peer))
            .flatten()
            .cloned()
            .collect()
    }

    /// The node listens on one more address.
    pub fn listening_on(&self, address: Multiaddr) {
        let mut state = self.lock();
        if !state.listening.contains(&address) {
            state.listening.push(address);
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// The node no longer listens on an address.
    pub fn not_listening_on(&self, address: &Multiaddr) {
        self.lock().listening.retain(|known| known != address);
        self.changed.send_replace(());
    }

    /// What the node listens on.
    pub fn listening(&self) -> Vec<Multiaddr> {
        self.lock().listening.clone()
    }

    /// How others reach this node.
    pub fn reachability(&self) -> Reachability {
        self.lock().reachability.clone()
    }

    /// Changes how others reach this node; those who listen are told if `change` says that it matters.
    pub fn update_reachability(&self, change: impl FnOnce(&mut Reachability) -> bool) {
        let matters = change(&mut self.lock().reachability);
        if matters {
            self.changed.send_replace(());
        }
    }

    /// How often the network changed under this node: the machine slept, or got another address.
    pub fn upheavals(&self) -> u64 {
        self.lock().upheavals
    }

    /// The machine slept, or got another address: whoever waits before trying again should not.
    pub fn upheaval(&self) {
        self.lock().upheavals += 1;
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the links are locked")
    }
}

fn remember(addresses: &mut Vec<Multiaddr>, address: Multiaddr) {
    if !addresses.contains(&address) {
        addresses.truncate(ADDRESSES_MAX - 1);
        addresses.insert(0, address);
    }
}

/// Which addresses others should be told, the best first: those at which somebody was reached from outside, those that
/// look public, those through relays, and the rest. Loopback is left out, unless there is nothing else or the node was asked
/// to listen on it: then the whole grid is on this machine.
pub fn announced(asked: &[Multiaddr], listening: &[Multiaddr], external: &[Multiaddr]) -> Vec<Multiaddr> {
    let asked_for_loopback = asked.iter().any(is_loopback);
    let (relayed, straight): (Vec<_>, Vec<_>) = listening.iter().partition(|address| is_relayed(address));
    let outside: Vec<_> = straight
        .iter()
        .filter(|address| asked_for_loopback || !is_loopback(address))
        .collect();
    let own = if outside.is_empty() && relayed.is_empty() {
        straight.iter().collect()
    } else {
        outside
    };
    let (global, local): (Vec<_>, Vec<_>) = own.into_iter().partition(|address| is_global(address));
    let mut told: Vec<Multiaddr> = Vec::new();
    let relayed = relayed.iter().take(RELAYED_TOLD_MAX);
    for address in external
        .iter()
        .chain(global.into_iter().copied())
        .chain(relayed.copied())
        .chain(local.into_iter().copied())
    {
        if !told.contains(address) {
            told.push(address.clone());
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn loopback_is_announced_only_when_asked_for_or_alone() {
        let any = address("/ip4/0.0.0.0/tcp/0");
        let (home, lan) = (address("/ip4/127.0.0.1/tcp/5"), address("/ip4/10.0.0.2/tcp/5"));
        let both = [home.clone(), lan.clone()];
        assert_eq!(announced(std::slice::from_ref(&any), &both, &[]), [lan]);
        assert_eq!(announced(&[any], std::slice::from_ref(&home), &[]), [home]);
        assert_eq!(announced(&[address("/ip4/127.0.0.1/tcp/0")], &both, &[]), both);
    }

    #[test]
    fn addresses_that_work_from_outside_are_told_first() {
        let any = address("/ip4/0.0.0.0/tcp/0");
        let relay = PeerId::random();
        let relayed = address(&format!("/ip4/198.51.100.9/tcp/1/p2p/{relay}/p2p-circuit"));
        let (lan, public) = (address("/ip4/10.0.0.2/tcp/5"), address("/ip4/198.51.100.7/tcp/5"));
        let forwarded = address("/ip4/203.0.113.4/tcp/5");
        let listening = [lan.clone(), relayed.clone(), public.clone()];
        assert_eq!(
            announced(&[any], &listening, std::slice::from_ref(&forwarded)),
            [forwarded, public, relayed, lan]
        );
    }

    #[test]
    fn a_straight_connection_makes_relayed_ones_superfluous() {
        let (links, peer) = (Links::default(), PeerId::random());
        let id = ConnectionId::new_unchecked;
        links.connection_up(peer, id(1), Route::Relayed);
        assert_eq!(links.superfluous(peer), []);
        links.connection_up(peer, id(2), Route::HolePunched);
        assert_eq!(links.superfluous(peer), [id(1)]);
        assert_eq!(links.route(peer), Some(Route::HolePunched));
        links.connection_down(peer, id(2));
        assert_eq!(links.route(peer), Some(Route::Relayed));
        links.connection_down(peer, id(1));
        assert_eq!(links.route(peer), None);
        assert!(!links.is_connected(peer));
    }
}
