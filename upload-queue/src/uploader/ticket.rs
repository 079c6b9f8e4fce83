//! A share in the spool, as the uploader's memory names it.

use proto::id::ShareId;

use crate::packs::shares::SpooledShare;
use crate::packs::{PackRow, Purpose};

/// A share in the spool, in sending order: metadata before content, older packs first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Ticket {
    pub(super) not_urgent: bool,
    pub(super) pack: PackRow,
    pub(super) index: u8,
    pub(super) id: ShareId,
    pub(super) stored_bytes: u64,
}

impl Ticket {
    /// What packs are sorted by.
    pub(super) fn pack_order(&self) -> (bool, PackRow) {
        (self.not_urgent, self.pack)
    }
}

impl From<&SpooledShare> for Ticket {
    fn from(share: &SpooledShare) -> Self {
        Self {
            not_urgent: share.purpose != Purpose::Metadata,
            pack: share.pack,
            index: share.index,
            id: share.id,
            stored_bytes: share.stored_bytes,
        }
    }
}
