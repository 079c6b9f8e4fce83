//! How a friend is reached, and how others reach this node: the words for it, and what an address says about it.
//!
//! Only types and pure functions; who dials is `dialing`, who asks for relays is `relays`.

use std::net::IpAddr;

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// How a connection leads to a friend. Ordered: what is later is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Route {
    /// Through another friend, which forwards sealed bytes.
    Relayed,
    /// Straight, after both ends opened their routers for each other.
    HolePunched,
    /// Straight.
    Direct,
}

/// Whether the router of this network opens ports when asked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Upnp {
    /// Switched off, or this node does not listen.
    #[default]
    Off,
    /// No answer yet.
    Searching,
    /// The router forwards a port to this node.
    Mapped,
    /// No router answers.
    NoGateway,
    /// The router itself has no public address.
    NotRoutable,
}

impl Upnp {
    /// As commands write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Searching => "searching",
            Self::Mapped => "mapped",
            Self::NoGateway => "no_gateway",
            Self::NotRoutable => "gateway_not_public",
        }
    }
}

/// How others reach this node.
#[derive(Clone, Default, Debug)]
pub struct Reachability {
    /// Addresses at which a friend did reach it, or which the router or an AutoNAT server vouches for.
    pub external: Vec<Multiaddr>,
    /// Friends that hold a place for it as relays.
    pub relays: Vec<PeerId>,
    /// The router's answer.
    pub upnp: Upnp,
}

impl Reachability {
    /// Whether somebody from outside of the local network can dial this node.
    pub fn is_public(&self) -> bool {
        self.external.iter().any(is_global)
    }
}

/// Whether an address leads through a relay.
pub fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// Whether an address is of this machine only.
pub fn is_loopback(address: &Multiaddr) -> bool {
    ip(address).is_some_and(|ip| ip.is_loopback())
}

/// Whether an address may be dialed from anywhere: a name, or an IP address of no private, shared or link-local range.
pub fn is_global(address: &Multiaddr) -> bool {
    if is_relayed(address) {
        return false;
    }
    match ip(address).map(|ip| ip.to_canonical()) {
        None => address
            .iter()
            .any(|part| matches!(part, Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_))),
        Some(IpAddr::V4(ip)) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && (64..128).contains(&b); // RFC 6598
            // This network; multicast, reserved and broadcast.
            let is_special = a == 0 || a >= 224;
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_shared || is_special)
        }
        Some(IpAddr::V6(ip)) => {
            let [first, ..] = ip.segments();
            // What is given out so far; 6to4 leads to whatever IPv4 address is in it.
            (0x2000..0x4000).contains(&first) && first != 0x2002
        }
    }
}

/// An address without the device at its end.
pub fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

/// Whether an address has one IP address: transports look for it from its end, and `ip` from its beginning.
pub fn has_one_ip(address: &Multiaddr) -> bool {
    let is_ip = |part: &Protocol<'_>| matches!(part, Protocol::Ip4(_) | Protocol::Ip6(_));
    address.iter().filter(is_ip).count() == 1
}

/// The first IP address in it.
pub fn ip(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_public_addresses_and_names_are_global() {
        let relay = PeerId::random();
        for (text, expected) in [
            ("/ip4/198.51.100.7/tcp/4250".to_owned(), true),
            ("/dns4/home.example/udp/4250/quic-v1".to_owned(), true),
            ("/ip6/2001:db8::1/tcp/4250".to_owned(), true),
            ("/ip4/192.168.1.2/tcp/4250".to_owned(), false),
            ("/ip4/100.64.0.1/tcp/4250".to_owned(), false),
            ("/ip4/127.0.0.1/tcp/4250".to_owned(), false),
            ("/ip6/fe80::1/tcp/4250".to_owned(), false),
            ("/ip6/fd00::1/tcp/4250".to_owned(), false),
            ("/ip6/::ffff:127.0.0.1/tcp/4250".to_owned(), false),
            ("/ip6/64:ff9b::7f00:1/tcp/4250".to_owned(), false),
            ("/ip6/2002:7f00:1::1/tcp/4250".to_owned(), false),
            ("/ip4/0.1.2.3/tcp/4250".to_owned(), false),
            ("/ip4/239.1.2.3/tcp/4250".to_owned(), false),
            (format!("/ip4/198.51.100.7/tcp/4250/p2p/{relay}/p2p-circuit"), false),
        ] {
            assert_eq!(is_global(&address(&text)), expected, "{text}");
        }
    }

    #[test]
    fn a_direct_connection_is_better_than_a_punched_and_that_than_a_relayed_one() {
        assert!(Route::Direct > Route::HolePunched && Route::HolePunched > Route::Relayed);
    }
}
