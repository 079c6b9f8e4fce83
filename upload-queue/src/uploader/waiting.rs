//! A share that waits in the spool, as the uploader's memory names it, and what is said when a peer has taken it.

use proto::id::ShareId;

use crate::packs::shares::SpooledShare;
use crate::packs::{PackRow, Purpose};
use crate::peers::PeerKey;

/// A share in the spool, in sending order: metadata and disks before content, older packs first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Waiting {
    pub(super) not_urgent: bool,
    pub(super) pack: PackRow,
    pub(super) index: u8,
    pub(super) id: ShareId,
    pub(super) stored_bytes: u64,
}

impl Waiting {
    /// What packs are sorted by.
    pub(super) fn pack_order(&self) -> (bool, PackRow) {
        (self.not_urgent, self.pack)
    }
}

impl From<&SpooledShare> for Waiting {
    fn from(share: &SpooledShare) -> Self {
        Self {
            not_urgent: share.purpose == Purpose::Data,
            pack: share.pack,
            index: share.index,
            id: share.id,
            stored_bytes: share.stored_bytes,
        }
    }
}

/// A share that a peer took.
#[derive(Clone)]
pub(super) struct Delivery {
    pub(super) peer: PeerKey,
    pub(super) share: Waiting,
    pub(super) bytes: u64,
    pub(super) way: Way,
}

/// How a share got to its peer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From here: the peer answers us.
    Sent,
    /// By the steward: whether the peer answers us is not known.
    Passed,
}
