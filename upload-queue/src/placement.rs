//! Which code a pack gets, and which peer gets which share: distinct failure domains, weighted by free space.

use crate::peers::{Peer, PeerKey};

/// Shares needed and made, for `tolerate` friends that may vanish out of `domains` failure domains.
///
/// n = domains (one fewer from seven on, so that there is a peer to repair onto; at most 20);
/// k = min(n − tolerate, ⌈n/2⌉), at least 1.
pub fn code_for(_tolerate: u8, _domains: usize) -> (u8, u8) {
    todo!()
}

/// For each share the peer it should go to, or `None` where no domain is left. Shares already placed keep their peer;
/// no two shares of a pack share a domain; among equals, the peer with more free space, then a rotation by `seed`.
pub fn plan(_shares: &[Option<PeerKey>], _peers: &[Candidate], _seed: u64) -> Vec<Option<PeerKey>> {
    todo!()
}

/// A peer that could take a share.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The peer.
    pub key: PeerKey,
    /// Its failure domain.
    pub domain: String,
    /// Bytes it still takes, if known.
    pub free_bytes: Option<u64>,
}

impl From<&Peer> for Candidate {
    fn from(peer: &Peer) -> Self {
        Self {
            key: peer.key.clone(),
            domain: peer.domain.clone(),
            free_bytes: None,
        }
    }
}
