//! AutoNAT's server, for members and global addresses only.
//!
//! libp2p's own dials whatever address anybody names, also of this machine and its local network, and says how that went
//! (rust-libp2p #6610): a port scanner for strangers, and a way to services that trust their neighbours.

use std::collections::HashSet;
use std::sync::Arc;
use std::task::{Context, Poll};

use libp2p::autonat::v2::server;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::watch;

use super::reach::{has_one_ip, is_global};
use crate::identity::device_id;
use crate::roster::Roster;

/// See the module.
pub(super) struct DialBack {
    inner: server::Behaviour,
    members: watch::Receiver<Arc<Roster>>,
    /// Dials that `inner` asked for and that were not yet looked at.
    asked: HashSet<ConnectionId>,
}

/// A dial that nobody may ask for.
#[derive(Debug, thiserror::Error)]
#[error("Only members have addresses tested, and only global ones")]
struct NotForThem;

impl DialBack {
    /// Serves those who are members at the time.
    pub(super) fn new(members: watch::Receiver<Arc<Roster>>) -> Self {
        Self {
            inner: server::Behaviour::default(),
            members,
            asked: HashSet::new(),
        }
    }

    fn is_member(&self, peer: PeerId) -> bool {
        device_id(peer).is_some_and(|device| self.members.borrow().device(device).is_some())
    }

    /// A name is resolved by whoever dials, and may lead anywhere.
    fn may_dial(&self, peer: Option<PeerId>, addresses: &[Multiaddr]) -> bool {
        let is_open = |address: &Multiaddr| has_one_ip(address) && is_global(address);
        peer.is_some_and(|peer| self.is_member(peer)) && addresses.iter().all(is_open)
    }
}

impl NetworkBehaviour for DialBack {
    type ConnectionHandler = <server::Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = server::Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        // Whoever joined on a connection is served on it: so this is looked at now, not when it came up.
        match self.asked.remove(&id) && !self.may_dial(peer, addresses) {
            true => Err(ConnectionDenied::new(NotForThem)),
            false => Ok(Vec::new()),
        }
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_outbound_connection(id, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        let event = self.inner.poll(context);
        if let Poll::Ready(ToSwarm::Dial { opts }) = &event {
            self.asked.insert(opts.connection_id());
        }
        event
    }
}
