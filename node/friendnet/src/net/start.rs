//! The steps of starting the transport: what all tasks share, where to listen, who answers.

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use libp2p::{Multiaddr, Swarm};
use proto::keys::DeviceCert;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use upload_queue::bandwidth::Bandwidth;

use super::acceptor::Acceptor;
use super::core::Core;
use super::counters::Counters;
use super::driver::{Dial, Driver, Reaching};
use super::links::Links;
use super::protocol::Protocol;
use super::reach::Upnp;
use super::relays::RelayUse;
use super::swarm;
use super::swarm::{Behaviour, LocalDiscovery, SwarmConfig, SwarmError};
use crate::identity;
use crate::roster::Roster;

/// How long to wait for the first listen address.
const LISTEN_TIME: Duration = Duration::from_secs(5);
/// Dials waiting for the driver.
const DIALS_MAX: usize = 64;

/// Who goes on the network, where, and how it is reached.
pub struct TransportConfig {
    /// This device's key.
    pub device_key: SigningKey,
    /// The account's word that this device is its own.
    pub cert: DeviceCert,
    /// Where to listen, as multiaddrs such as `/ip4/0.0.0.0/tcp/0`. None: the node can only dial.
    pub listen: Vec<Multiaddr>,
    /// Addresses that others should be told besides those.
    pub announce: Vec<Multiaddr>,
    /// Whether to look for friends on the local network.
    pub discovery: LocalDiscovery,
    /// Whether to ask the router to forward ports.
    pub upnp: bool,
    /// When to ask friends to forward connections to this node.
    pub relays: RelayUse,
    /// Whether to forward connections for friends, once this node is reached from outside.
    pub forwards: bool,
    /// Holds what is sent to friends and received from them to rates.
    pub bandwidth: Bandwidth,
}

/// The transport did not start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// It could not be made.
    #[error(transparent)]
    Swarm(#[from] SwarmError),
    /// An address cannot be listened on.
    #[error("Cannot listen on {address}: {reason}")]
    Listen {
        /// The address asked for.
        address: Multiaddr,
        /// What the system said.
        reason: String,
    },
}

/// A transport that listens and does not answer yet.
pub struct Transport {
    /// What its tasks share.
    pub core: Arc<Core>,
    swarm: Swarm<Behaviour>,
    reaching: Reaching,
    dial_queue: mpsc::Receiver<Dial>,
}

/// Makes a transport, for who is in the grid, always as it is now. Must be called inside a tokio runtime.
pub fn prepare(config: TransportConfig, members: watch::Receiver<Arc<Roster>>) -> Result<Transport, TransportError> {
    // Whoever does not listen needs no port.
    let upnp = config.upnp && !config.listen.is_empty();
    let mut swarm = swarm::build(SwarmConfig {
        identity: identity::keypair(&config.device_key),
        discovery: config.discovery,
        members: members.clone(),
        forwards: config.forwards,
        upnp,
    })?;
    listen(&mut swarm, &config.listen)?;
    let (dials, dial_queue) = mpsc::channel(DIALS_MAX);
    let core = Core {
        device: identity::device_of(&config.device_key),
        members,
        counters: Counters::default(),
        links: Arc::new(Links::default()),
        control: swarm.behaviour().streams.new_control(),
        dials,
        stop: CancellationToken::new(),
        device_key: config.device_key,
        cert: config.cert,
        listen: config.listen.clone(),
        announce: config.announce,
        bandwidth: config.bandwidth,
    };
    if upnp {
        core.links.update_reachability(|reachability| {
            reachability.upnp = Upnp::Searching;
            false
        });
    }
    let reaching = Reaching {
        relays: config.relays,
        listen: config.listen,
    };
    Ok(Transport {
        core: Arc::new(core),
        swarm,
        reaching,
        dial_queue,
    })
}

impl Transport {
    /// Dials for whoever asks, and answers by these protocols, until the node stops.
    pub fn run(self, protocols: Vec<Arc<dyn Protocol>>) {
        let Self {
            core,
            swarm,
            reaching,
            dial_queue,
        } = self;
        // Before the swarm moves: streams of a protocol that nobody has said he speaks are refused.
        let acceptor = Acceptor::new(core.clone(), protocols);
        let driver = Driver::new(swarm, core.links.clone(), core.members.clone(), reaching);
        let (stop, driven) = (core.stop.clone(), core.stop.clone().drop_guard());
        tokio::spawn(async move {
            // A driver that ends, even by a panic, ends everything: nobody goes on deaf.
            let _driven = driven;
            driver.run(dial_queue, stop).await;
        });
        tokio::spawn(acceptor.run());
    }
}

/// Listens wherever it can: a machine without IPv6 is no reason not to start.
fn listen(swarm: &mut Swarm<Behaviour>, addresses: &[Multiaddr]) -> Result<(), TransportError> {
    let mut failed = None;
    let mut listening = 0;
    for address in addresses {
        match swarm.listen_on(address.clone()) {
            Ok(_) => listening += 1,
            Err(error) => {
                tracing::warn!("Cannot listen on {address}: {error}");
                failed = Some(TransportError::Listen {
                    address: address.clone(),
                    reason: error.to_string(),
                });
            }
        }
    }
    match failed {
        Some(error) if listening == 0 => Err(error),
        _ => Ok(()),
    }
}

/// The system's answer to `listen_on` comes later, as an event.
pub async fn await_addresses(core: &Core) -> Result<(), TransportError> {
    let Some(address) = core.listen.first() else {
        return Ok(());
    };
    let mut changes = core.links.subscribe();
    let listening = async { while core.links.listening().is_empty() && changes.changed().await.is_ok() {} };
    tokio::time::timeout(LISTEN_TIME, listening)
        .await
        .map_err(|_| TransportError::Listen {
            address: address.clone(),
            reason: "the system gave no address in time".into(),
        })
}
