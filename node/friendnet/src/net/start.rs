//! The steps of starting: what all tasks share, where to listen.

use std::sync::Arc;
use std::time::Duration;

use libp2p::{Multiaddr, Swarm};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::core::Core;
use super::counters::Counters;
use super::driver::Dial;
use super::links::Links;
use super::reach::Upnp;
use super::swarm::Behaviour;
use super::{NetConfig, NetError};
use crate::identity;
use crate::invite::Invites;
use crate::members::Members;
use stores::kept::Kept;

/// How long to wait for the first listen address.
const LISTEN_TIME: Duration = Duration::from_secs(5);

/// What all tasks share. Founds a grid of one if this home is in none.
pub(super) fn make_core(
    config: NetConfig,
    members: Members,
    control: libp2p_stream::Control,
    dials: mpsc::Sender<Dial>,
) -> Result<Core, NetError> {
    let upnp = config.asks_router();
    let core = Core {
        device: identity::device_of(&config.device_key),
        members,
        invites: Invites::open(&config.home.join("invites")),
        kept: Kept::new(&config.home.join("store"), config.offered, config.min_free),
        counters: Counters::default(),
        links: Arc::new(Links::default()),
        control,
        dials,
        stop: CancellationToken::new(),
        device_key: config.device_key,
        cert: config.cert,
        account_name: config.account_name,
        listen: config.listen,
        announce: config.announce,
        bandwidth: config.bandwidth,
    };
    if upnp {
        core.links.update_reachability(|reachability| {
            reachability.upnp = Upnp::Searching;
            false
        });
    }
    if let Some(speaker) = core.speaker() {
        core.members.found(speaker, &core.account_name, core.now_secs())?;
    }
    Ok(core)
}

/// Listens wherever it can: a machine without IPv6 is no reason not to start.
pub(super) fn listen(swarm: &mut Swarm<Behaviour>, addresses: &[Multiaddr]) -> Result<(), NetError> {
    let mut failed = None;
    let mut listening = 0;
    for address in addresses {
        match swarm.listen_on(address.clone()) {
            Ok(_) => listening += 1,
            Err(error) => {
                tracing::warn!("Cannot listen on {address}: {error}");
                failed = Some(NetError::Listen {
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
pub(super) async fn await_addresses(core: &Core) -> Result<(), NetError> {
    let Some(address) = core.listen.first() else {
        return Ok(());
    };
    let mut changes = core.links.subscribe();
    let listening = async { while core.links.listening().is_empty() && changes.changed().await.is_ok() {} };
    tokio::time::timeout(LISTEN_TIME, listening)
        .await
        .map_err(|_| NetError::Listen {
            address: address.clone(),
            reason: "the system gave no address in time".into(),
        })
}
