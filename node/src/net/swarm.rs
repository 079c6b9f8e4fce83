//! The libp2p swarm: transport, behaviours and their limits. Leaves out what is said on the streams.

use std::time::Duration;

use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{Swarm, SwarmBuilder, connection_limits, mdns, noise, ping, tcp, yamux};

/// Connections of friends stay open between runs of the upload queue.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// Most streams on one connection. A friend needs two lanes and one for the roster.
const STREAMS_MAX: usize = 64;
/// Handshakes going on at once.
const PENDING_MAX: u32 = 32;
/// Connections of strangers; members are not counted.
const STRANGERS_MAX: u32 = 32;
/// Chosen with the timeout: a laptop that went to sleep is noticed within two minutes, and a slow uplink with a full send
/// buffer is not mistaken for one.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(60);

/// All behaviours of a node.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    /// First, so that a stranger beyond the limits costs nothing else.
    pub(super) limits: connection_limits::Behaviour,
    /// Our protocols.
    pub(super) streams: libp2p_stream::Behaviour,
    /// Finds dead connections.
    pub(super) ping: ping::Behaviour,
    /// Finds friends on the local network.
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
}

/// Whether the node looks for friends on the local network, and can be found there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LocalDiscovery {
    /// By multicast DNS.
    #[default]
    On,
    /// Not at all.
    Off,
}

/// The transport could not be made.
#[derive(Debug, thiserror::Error)]
#[error("The network transport cannot be set up: {reason}")]
pub struct SwarmError {
    reason: String,
}

/// Builds a swarm that does nothing yet. Must be called inside a tokio runtime.
pub(super) fn build(identity: Keypair, discovery: LocalDiscovery) -> Result<Swarm<Behaviour>, SwarmError> {
    let mdns = match discovery {
        LocalDiscovery::Off => None,
        LocalDiscovery::On => local_discovery(&identity),
    };
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_MAX))
        .with_max_established_incoming(Some(STRANGERS_MAX));
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        streams: libp2p_stream::Behaviour::new(),
        ping: ping::Behaviour::new(
            ping::Config::new()
                .with_interval(PING_INTERVAL)
                .with_timeout(PING_TIMEOUT),
        ),
        mdns: mdns.into(),
    };
    let multiplexer = || {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(STREAMS_MAX);
        config
    };
    let swarm = SwarmBuilder::with_existing_identity(identity)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, multiplexer)
        .map_err(|error| SwarmError {
            reason: error.to_string(),
        })?
        .with_behaviour(|_| behaviour)
        .map_err(|error| SwarmError {
            reason: error.to_string(),
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_TIMEOUT))
        .build();
    Ok(swarm)
}

/// A machine without multicast still has a roster with addresses.
fn local_discovery(identity: &Keypair) -> Option<mdns::tokio::Behaviour> {
    let started = mdns::tokio::Behaviour::new(mdns::Config::default(), identity.public().to_peer_id());
    started
        .inspect_err(|error| tracing::warn!("Friends on the local network are not looked for: {error}"))
        .ok()
}
