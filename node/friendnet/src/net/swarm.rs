//! The libp2p swarm: transport, behaviours and their limits. Leaves out what is said on the streams.

use std::sync::Arc;
use std::time::Duration;

use libp2p::autonat::v2 as autonat;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    PeerId, Swarm, SwarmBuilder, Transport, dcutr, identify, mdns, noise, ping, quic, relay, tcp, upnp, yamux,
};
use tokio::sync::watch;

use super::candidates::Candidates;
use super::dial_back::DialBack;
use super::doors::Doors;
use crate::identity::device_id;
use crate::roster::Roster;

/// Connections of friends stay open for good: a punched hole costs a common friend to get again. Dead ones are found by
/// pings, strangers are shown the door by the driver.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 3600);
/// Most streams on one connection. A friend needs two lanes and one for the roster.
const STREAMS_MAX: usize = 64;
/// Chosen with the timeout: a laptop that went to sleep is noticed within two minutes, and a slow uplink with a full send
/// buffer is not mistaken for one.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(60);

/// What identify says of us: of no meaning to gridbackup, which tells its version in greetings.
const IDENTIFY_PROTOCOL: &str = "gridbackup/1";
/// Circuits of friends that this node forwards at once, in all and for one of them. Chosen: every pair of a grid of eight.
const CIRCUITS_MAX: usize = 64;
const CIRCUITS_PER_FRIEND_MAX: usize = 8;
/// A circuit lives as long as a night's backup. libp2p's two minutes and 128 KiB end every share half-way.
const CIRCUIT_TIME: Duration = Duration::from_secs(12 * 3600);
/// To libp2p, no limit.
const CIRCUIT_BYTES_MAX: u64 = 0;

/// All behaviours of a node.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    /// Our protocols.
    pub(super) streams: libp2p_stream::Behaviour,
    /// Finds dead connections.
    pub(super) ping: ping::Behaviour,
    /// Finds friends on the local network.
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
    /// Tells either end where the other sees it. Listen addresses are not told: friends have them from the roster.
    pub(super) identify: identify::Behaviour,
    /// Feeds those below with addresses.
    pub(super) candidates: Candidates,
    /// Places at relays, and connections through them.
    pub(super) relay_client: relay::client::Behaviour,
    /// Forwards for friends.
    pub(super) relay_server: Toggle<relay::Behaviour>,
    /// Punches holes: replaces a relayed connection by a straight one.
    pub(super) dcutr: dcutr::Behaviour,
    /// Asks friends to dial back.
    pub(super) autonat_client: autonat::client::Behaviour,
    /// Dials back for friends.
    pub(super) autonat_server: DialBack,
    /// Asks the router to forward ports.
    pub(super) upnp: Toggle<upnp::tokio::Behaviour>,
}

/// What a swarm is made for.
pub(super) struct SwarmConfig {
    /// The device's key.
    pub(super) identity: Keypair,
    /// Whether to look for friends on the local network.
    pub(super) discovery: LocalDiscovery,
    /// Who is a friend: only they are forwarded for.
    pub(super) members: watch::Receiver<Arc<Roster>>,
    /// Whether to forward at all.
    pub(super) forwards: bool,
    /// Whether to ask the router for a port.
    pub(super) upnp: bool,
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
pub(super) fn build(config: SwarmConfig) -> Result<Swarm<Behaviour>, SwarmError> {
    let failed = |error: &dyn std::error::Error| SwarmError {
        reason: error.to_string(),
    };
    let swarm = SwarmBuilder::with_existing_identity(config.identity.clone())
        .with_tokio()
        .with_other_transport(straight)
        .map_err(|error| failed(&error))?
        .with_relay_client(noise::Config::new, multiplexer)
        .map_err(|error| failed(&error))?
        .with_behaviour(|_, relay_client| behaviour(config, relay_client))
        .map_err(|error| failed(&error))?
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_TIMEOUT))
        .build();
    Ok(swarm)
}

/// TCP and QUIC, through doors that strangers cannot shut.
fn straight(identity: &Keypair) -> Result<Doors, Box<dyn std::error::Error + Send + Sync>> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(identity)?)
        .multiplex(multiplexer())
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    let quic = quic::tokio::Transport::new(quic::Config::new(identity))
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    let either = tcp.or_transport(quic).map(|either, _| either.into_inner());
    Ok(Doors::new(either.boxed()))
}

fn multiplexer() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(STREAMS_MAX);
    config
}

fn behaviour(config: SwarmConfig, relay_client: relay::client::Behaviour) -> Behaviour {
    let own = config.identity.public();
    let peer = own.to_peer_id();
    let mdns = match config.discovery {
        LocalDiscovery::Off => None,
        LocalDiscovery::On => local_discovery(peer),
    };
    let ping = ping::Config::new()
        .with_interval(PING_INTERVAL)
        .with_timeout(PING_TIMEOUT);
    let identify = identify::Config::new(IDENTIFY_PROTOCOL.to_owned(), own)
        .with_agent_version(IDENTIFY_PROTOCOL.to_owned())
        .with_cache_size(0)
        .with_hide_listen_addrs(true);
    let relay_server = config
        .forwards
        .then(|| relay::Behaviour::new(peer, relay_config(config.members.clone())));
    Behaviour {
        streams: libp2p_stream::Behaviour::new(),
        ping: ping::Behaviour::new(ping),
        mdns: mdns.into(),
        identify: identify::Behaviour::new(identify),
        candidates: Candidates::default(),
        relay_client,
        relay_server: relay_server.into(),
        dcutr: dcutr::Behaviour::new(peer),
        autonat_client: autonat::client::Behaviour::default(),
        autonat_server: DialBack::new(config.members),
        upnp: config.upnp.then(upnp::tokio::Behaviour::default).into(),
    }
}

/// Friends may have places and circuits for as long as they like; nobody else may have any. libp2p's rate limits are left
/// out: friends behind one router share its address.
fn relay_config(members: watch::Receiver<Arc<Roster>>) -> relay::Config {
    let is_friend = move || -> Box<dyn relay::RateLimiter> {
        let members = members.clone();
        Box::new(move |peer: PeerId, _: &libp2p::Multiaddr, _| {
            device_id(peer).is_some_and(|device| members.borrow().device(device).is_some())
        })
    };
    relay::Config {
        max_circuits: CIRCUITS_MAX,
        max_circuits_per_peer: CIRCUITS_PER_FRIEND_MAX,
        max_circuit_duration: CIRCUIT_TIME,
        max_circuit_bytes: CIRCUIT_BYTES_MAX,
        reservation_rate_limiters: vec![is_friend()],
        circuit_src_rate_limiters: vec![is_friend()],
        ..relay::Config::default()
    }
}

/// A machine without multicast still has a roster with addresses.
fn local_discovery(own: PeerId) -> Option<mdns::tokio::Behaviour> {
    mdns::tokio::Behaviour::new(mdns::Config::default(), own)
        .inspect_err(|error| tracing::warn!("Friends on the local network are not looked for: {error}"))
        .ok()
}
