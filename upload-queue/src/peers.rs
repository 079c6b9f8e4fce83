//! The peers that shares can go to, as this crate needs to know them.

use std::sync::{Arc, RwLock};

use proto::share_store::PeerStore;

use crate::peers::place::Place;

pub mod batches;
pub mod place;

/// A peer's name in the database: the text of its [`Place`]. Stable for as long as it holds shares. This crate compares such
/// names, and asks nothing else of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerKey(pub String);

/// How far away a peer is: shares for a local one are put at once, the others go through the spool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// A folder on this machine.
    Local,
    /// Over the network.
    Remote,
}

/// A peer.
#[derive(Clone)]
pub struct Peer {
    /// Its name in the database.
    pub key: PeerKey,
    /// Where it is.
    pub place: Place,
    /// Its name for people.
    pub name: String,
    /// Failure domain: peers with equal domains are lost together (household, provider).
    pub domain: String,
    /// How far away.
    pub reach: Reach,
    /// Where its shares are put and got.
    pub store: Arc<dyn PeerStore>,
}

/// The current peers; clones share the set, which may change while uploads run.
#[derive(Clone, Default)]
pub struct PeerSet(Arc<RwLock<Vec<Peer>>>);

impl PeerSet {
    /// A set with these peers.
    pub fn new(peers: Vec<Peer>) -> Self {
        Self(Arc::new(RwLock::new(peers)))
    }
    /// Replaces all peers.
    pub fn set(&self, peers: Vec<Peer>) {
        *self.0.write().expect("no panic while the peers are locked") = peers;
    }
    /// The peers as they are now.
    pub fn all(&self) -> Vec<Peer> {
        self.0.read().expect("no panic while the peers are locked").clone()
    }
    /// One of them.
    pub fn get(&self, key: &PeerKey) -> Option<Peer> {
        self.all().into_iter().find(|peer| peer.key == *key)
    }
}
