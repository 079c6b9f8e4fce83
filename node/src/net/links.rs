//! What the node knows about its connections: who is connected, who can be found where, what it listens on.
//!
//! Written by the swarm's driver, read by everybody; nothing here waits.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::watch;

/// Most peers whose addresses from discovery are remembered: a crowded network must not fill memory.
const FOUND_MAX: usize = 256;
/// Most addresses remembered of one peer from one source.
const ADDRESSES_MAX: usize = 8;

/// The links; see the module.
pub struct Links {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    connections: HashMap<PeerId, u32>,
    welcome: HashSet<PeerId>,
    found: HashMap<PeerId, Vec<Multiaddr>>,
    hints: HashMap<PeerId, Vec<Multiaddr>>,
    listening: Vec<Multiaddr>,
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

    /// All connected peers.
    pub fn connected(&self) -> Vec<PeerId> {
        self.lock().connections.keys().copied().collect()
    }

    /// A connection came up.
    pub fn connection_up(&self, peer: PeerId) {
        *self.lock().connections.entry(peer).or_insert(0) += 1;
        self.changed.send_replace(());
    }

    /// A connection went down; `left` others to the peer remain.
    pub fn connection_down(&self, peer: PeerId, left: u32) {
        let mut state = self.lock();
        if left == 0 {
            state.connections.remove(&peer);
            state.welcome.remove(&peer);
        } else {
            state.connections.insert(peer, left);
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// A greeting of this peer was welcome: it is no stranger for as long as it is connected.
    pub fn welcome(&self, peer: PeerId) {
        self.lock().welcome.insert(peer);
    }

    /// Whether a greeting of this peer was welcome.
    pub fn is_welcome(&self, peer: PeerId) -> bool {
        self.lock().welcome.contains(&peer)
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

/// Which of the listen addresses others should be told. Loopback is left out, unless there is nothing else or the node was
/// asked to listen on it: then the whole grid is on this machine.
pub fn announced(asked: &[Multiaddr], listening: &[Multiaddr]) -> Vec<Multiaddr> {
    let asked_for_loopback = asked.iter().any(is_loopback);
    let outside: Vec<_> = listening
        .iter()
        .filter(|address| asked_for_loopback || !is_loopback(address))
        .cloned()
        .collect();
    if outside.is_empty() {
        listening.to_vec()
    } else {
        outside
    }
}

fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
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
        assert_eq!(announced(std::slice::from_ref(&any), &both), [lan]);
        assert_eq!(announced(&[any], std::slice::from_ref(&home)), [home]);
        assert_eq!(announced(&[address("/ip4/127.0.0.1/tcp/0")], &both), both);
    }
}
