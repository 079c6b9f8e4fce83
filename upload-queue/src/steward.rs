//! The steward: an always-on peer that takes a pack once and brings its shares to all other peers (docs/protocol/steward.md).
//!
//! Leaves out how it is spoken to, and every decision of the steward's own.

use std::sync::Arc;

use proto::id::ShareId;
use proto::manifest::Manifest;
use proto::share::Share;
use proto::share_store::{BoxFuture, StoreError};

use crate::peers::PeerKey;

/// How far a steward is with a pack.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PassState {
    /// Shares that their target has, by its own signature.
    pub placed: Vec<u8>,
    /// Shares that the steward has.
    pub have: Vec<u8>,
    /// Shares that their target did not take when that was last tried.
    pub failing: Vec<u8>,
}

/// What can be asked of a steward.
pub trait Steward: Send + Sync {
    /// Whether a steward can bring shares to this peer.
    fn reaches(&self, peer: &PeerKey) -> bool;

    /// Orders shares of a pack, by their numbers, to peers; may be repeated, the last order counts. When it returns, the
    /// order survives a crash of the steward. No targets: the order is void. May be dropped.
    fn pass_on<'a>(
        &'a self,
        manifest: &'a Manifest,
        targets: &'a [(u8, PeerKey)],
    ) -> BoxFuture<'a, Result<PassState, StoreError>>;

    /// Gives the steward a share of a pack that it has an order for. Returns the bytes that really travelled. May be dropped.
    fn put_to_pass(&self, id: ShareId, share: Share) -> BoxFuture<'_, Result<u64, StoreError>>;
}

/// A steward, and which of the peers it is.
#[derive(Clone)]
pub struct StewardPeer {
    /// Its name in the database.
    pub key: PeerKey,
    /// How it is asked.
    pub steward: Arc<dyn Steward>,
}

impl std::fmt::Debug for StewardPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StewardPeer").field(&self.key).finish()
    }
}
