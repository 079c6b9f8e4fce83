//! What a peer has, against what the catalog says: both are brought to agree.
//!
//! A share is missing when its peer does not list it. It is damaged when its bytes were read and are wrong, or the store says
//! so itself. What cannot be read for any other reason was not checked, and says nothing of the share.

use std::collections::{HashMap, HashSet};

use api::failure::Failure;
use database::DbError;
use proto::id::ShareId;
use proto::share_store::StoreError;
use upload_queue::care::rebuild::whole_share;
use upload_queue::packs;
use upload_queue::peers::Peer;
use upload_queue::peers::batches::{Batches, Shelf};

use crate::Engine;

/// How many shares that a peer is not believed to have intact are read again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rereads {
    /// None.
    None,
    /// Some: the daemon's round, which comes again.
    Some,
    /// All: somebody asked for it.
    All,
}

impl Rereads {
    /// Chosen: a hundred MiB of large shares at most in a round.
    const SOME: usize = 24;

    fn max(self) -> usize {
        match self {
            Self::None => 0,
            Self::Some => Self::SOME,
            Self::All => usize::MAX,
        }
    }
}

/// What a look at a peer found.
pub(super) struct Found {
    /// What it lists and is believed to have: also shares of packs that nobody knows.
    pub believed: HashSet<ShareId>,
    /// Of known packs, shares that it lists and is not believed to have, with what is wrong with those read just now.
    pub doubted: HashMap<ShareId, Option<String>>,
    /// Shares that it was thought to have and does not list.
    pub missing: u64,
    /// Shares of which nobody knew that it has them.
    pub news: u64,
}

/// How reading a share ended.
pub(super) enum ReadBack {
    /// As it should be.
    Sound,
    /// Wrong, or not there.
    Damaged(String),
    /// Nothing can be said of it.
    Unchecked(String),
}

impl Engine {
    /// Looks at what a peer lists, and records it: what is not listed is missing, what is listed and has no holder has one.
    /// What was thought to be there is read before the peer lists, so that nothing delivered meanwhile counts as missing.
    pub(super) async fn look_into(&self, peer: &Peer, rereads: Rereads) -> Result<Result<Found, StoreError>, Failure> {
        let (expected, bad) = self.0.db.read::<_, DbError>(|conn| {
            Ok((
                packs::shares_at(conn, &peer.key)?,
                packs::not_believed(conn, &peer.key)?,
            ))
        })?;
        let mut believed = match listed(peer).await {
            Ok(listed) => listed,
            Err(error) => return Ok(Err(error)),
        };
        let mut doubted = HashMap::new();
        for id in bad {
            if !believed.contains(&id) {
                continue;
            }
            match self.doubt(peer, id, doubted.len() < rereads.max()).await? {
                Doubt::Ended => {}
                Doubt::Holds(reason) => {
                    believed.remove(&id);
                    doubted.insert(id, reason);
                }
                Doubt::OfNothing => drop(believed.remove(&id)),
            }
        }
        let expected: HashSet<ShareId> = expected.into_iter().map(|(id, _)| id).collect();
        let missing: Vec<ShareId> = expected.difference(&believed).copied().collect();
        let news: Vec<ShareId> = believed.difference(&expected).copied().collect();
        let before = self.0.db.read(|conn| packs::held_by(conn, &peer.key))?.1;
        self.0.db.write::<_, DbError>(|tx| {
            missing
                .iter()
                .try_for_each(|id| packs::record_missing(tx, &peer.key, *id))?;
            packs::record_held(tx, &peer.key, &news).map(drop)
        })?;
        let after = self.0.db.read(|conn| packs::held_by(conn, &peer.key))?.1;
        let missing = missing.len() as u64;
        Ok(Ok(Found {
            believed,
            doubted,
            missing,
            news: (after + missing).saturating_sub(before),
        }))
    }

    /// Whether a peer's word on a share counts again.
    async fn doubt(&self, peer: &Peer, id: ShareId, may_read: bool) -> Result<Doubt, Failure> {
        let known = self.0.db.read(|conn| packs::share_of(conn, id))?;
        let Some(known) = known.filter(|known| !known.dead) else {
            return Ok(Doubt::OfNothing);
        };
        if !may_read {
            return Ok(Doubt::Holds(None));
        }
        Ok(match read_back(peer, id, known.stored_bytes as u32).await {
            ReadBack::Sound => {
                self.0.db.write(|tx| packs::believe(tx, &peer.key, id))?;
                Doubt::Ended
            }
            ReadBack::Damaged(reason) => Doubt::Holds(Some(reason)),
            ReadBack::Unchecked(_) => Doubt::Holds(None),
        })
    }
}

enum Doubt {
    Ended,
    Holds(Option<String>),
    /// Its pack is not wanted, or not known.
    OfNothing,
}

/// Ids of all shares that a peer has.
pub(super) async fn listed(peer: &Peer) -> Result<HashSet<ShareId>, StoreError> {
    let ids = Batches::new(&*peer.store, Shelf::Kept).all().await?;
    Ok(ids.into_iter().collect())
}

/// Ids of all shares that a peer has in its trash.
pub(super) async fn in_trash(peer: &Peer) -> Result<HashSet<ShareId>, StoreError> {
    let ids = Batches::new(&*peer.store, Shelf::Trash).all().await?;
    Ok(ids.into_iter().collect())
}

/// Reads a share back, whole.
pub(super) async fn read_back(peer: &Peer, id: ShareId, stored_bytes: u32) -> ReadBack {
    match whole_share(&*peer.store, id, stored_bytes).await {
        Ok(_) => ReadBack::Sound,
        Err(error @ (StoreError::NotFound | StoreError::Corrupt { .. } | StoreError::OutOfRange)) => {
            ReadBack::Damaged(error.to_string())
        }
        Err(error) => ReadBack::Unchecked(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ed25519_dalek::SigningKey;
    use proto::id::AccountId;
    use proto::manifest::Manifest;
    use proto::pack;
    use proto::pack::PackKey;
    use proto::shape::PackShape;
    use proto::shape::ShareSize;
    use proto::share::Share;
    use proto::share_store::ShareStore;
    use proto::share_store::faulty::Faulty;
    use proto::share_store::memory::MemoryStore;
    use upload_queue::peers::place::Place;
    use upload_queue::peers::{PeerKey, Reach};

    use super::*;

    fn share() -> (ShareId, Share) {
        let shape = PackShape {
            k: 1,
            n: 1,
            share: ShareSize::Small,
        };
        let key = PackKey([7; 32]);
        let sealed = pack::seal(&key, shape, b"content");
        let device = SigningKey::from_bytes(&[3; 32]);
        let manifest = Manifest::sign(key.pack_id(), shape, sealed.ids.clone(), AccountId([1; 32]), &device);
        sealed.shares(&manifest).remove(0)
    }

    fn in_a_word(read: &ReadBack) -> &'static str {
        match read {
            ReadBack::Sound => "sound",
            ReadBack::Damaged(_) => "damaged",
            ReadBack::Unchecked(_) => "unchecked",
        }
    }

    /// `check --read-data` over a line that broke off took every share for damaged.
    #[tokio::test]
    async fn a_share_is_damaged_only_if_its_bytes_were_read_and_are_wrong_or_its_store_says_so() {
        let (id, share) = share();
        let stored_bytes = share.stored_bytes() as u32;
        let store = Arc::new(Faulty::new(MemoryStore::new()));
        let peer = Peer {
            key: PeerKey("memory:0".into()),
            place: Place::Folder("/memory".into()),
            name: "peer".into(),
            domain: "domain".into(),
            reach: Reach::Remote,
            store: store.clone(),
        };
        let read = async || in_a_word(&read_back(&peer, id, stored_bytes).await);
        assert_eq!(read().await, "damaged", "it is not there");
        store.put(id, share).await.unwrap();
        assert_eq!(read().await, "sound");
        store.set(|faults| faults.unreachable = true);
        assert_eq!(read().await, "unchecked");
        assert!(store.inner().damage(id, 100));
        assert_eq!(read().await, "unchecked", "nothing was read");
        store.set(|faults| faults.unreachable = false);
        assert_eq!(read().await, "damaged");
    }
}
