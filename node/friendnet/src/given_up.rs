//! Whether an absent owner gave a pack up: what members have in their trash, by its owner's signature and not by their word.
//!
//! A member who says that a share is in its trash shows the discard by which it came there. Who cannot has said nothing: else one
//! liar would keep everybody from healing what others lost.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use proto::id::{AccountId, DeviceId, ShareId};
use proto::share_store::PeerStore;
use upload_queue::peers::batches::{Batches, Shelf};

use crate::roster::Roster;

/// Shares of a pack in the trash and nowhere else that mean that the pack was given up. Chosen: one may have been moved.
const GIVEN_UP_MIN: usize = 2;
/// How long a member may take to show a discard. Chosen: it is half a megabyte at most.
const SHOWING_TIME: Duration = Duration::from_secs(30);

/// What a member says that it has in its trash of one owner.
pub struct Trash {
    store: Arc<dyn PeerStore>,
    device: DeviceId,
    claimed: HashSet<ShareId>,
    shown: HashSet<ShareId>,
}

/// Whose shares, and who may give them up.
#[derive(Clone, Copy)]
pub struct Owner<'a> {
    /// The account.
    pub account: AccountId,
    /// Who counts.
    pub roster: &'a Roster,
}

impl Trash {
    /// Nothing.
    pub fn empty(store: Arc<dyn PeerStore>, device: DeviceId) -> Self {
        Self {
            store,
            device,
            claimed: HashSet::new(),
            shown: HashSet::new(),
        }
    }

    /// Asks the member; an answer that does not come, or is not to be believed, counts as an empty trash.
    pub async fn ask(store: Arc<dyn PeerStore>, device: DeviceId) -> Self {
        let listed = Batches::new(&*store, Shelf::Trash).all().await;
        Self {
            claimed: listed.unwrap_or_default().into_iter().collect(),
            ..Self::empty(store, device)
        }
    }

    /// Whether the owner gave the share up here.
    async fn has(&mut self, id: ShareId, owner: Owner<'_>) -> bool {
        if !self.claimed.contains(&id) || self.shown.contains(&id) {
            return self.shown.contains(&id);
        }
        let asked = tokio::time::timeout(SHOWING_TIME, self.store.evidence(id)).await;
        let shown = asked.ok().and_then(Result::ok);
        let shown = shown.filter(|evidence| evidence.shows(id, owner.account, self.device));
        match shown {
            Some(evidence) if owner.roster.is_in_force(&evidence.discard.cert) => {
                self.shown.extend(evidence.ids);
                true
            }
            // By a device that the owner has revoked since: a thief gave it up, or nobody needs it.
            Some(evidence) => {
                self.claimed.retain(|id| evidence.ids.binary_search(id).is_err());
                false
            }
            None => {
                tracing::warn!(member = %self.device.short(), "A member does not show what it says was given up");
                self.claimed.clear();
                false
            }
        }
    }
}

/// Whether the owner gave a pack up before it went away: then what is left of it is on its way to the trash. `unlisted` are its shares
/// that no member lists, out of `count`. One share in the trash that is listed nowhere may have been moved, and its new holder lost.
pub async fn was_given_up(unlisted: &BTreeSet<ShareId>, count: usize, trashes: &mut [Trash], owner: Owner<'_>) -> bool {
    let enough = GIVEN_UP_MIN.min(count);
    let is_claimed = |id: &&ShareId| trashes.iter().any(|trash| trash.claimed.contains(id));
    if unlisted.iter().filter(is_claimed).count() < enough {
        return false;
    }
    let mut gone = 0;
    for id in unlisted {
        for trash in &mut *trashes {
            if trash.has(*id, owner).await {
                gone += 1;
                break;
            }
        }
        if gone >= enough {
            return true;
        }
    }
    false
}
