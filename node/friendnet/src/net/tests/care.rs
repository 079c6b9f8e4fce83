//! Proofs, and shares that members bring back, between real nodes.

use proto::hash_tree::LEAF_BYTES;
use proto::id::ShareId;
use proto::manifest::Manifest;
use proto::pack;
use proto::pack::PackKey;
use proto::shape::PackShape;
use proto::shape::ShareSize;
use proto::share::Share;
use upload_queue::care::audit::{Leaf, Outcome};

use super::*;
use crate::share::challenge;
use crate::share::challenge::Asked;

/// Shares of a pack of this account, signed by its device number `device`.
fn shares_of(fixture: &Fixture, device: u8) -> Vec<(ShareId, Share)> {
    let shape = PackShape {
        k: 2,
        n: 4,
        share: ShareSize::Small,
    };
    let key = PackKey([9; 32]);
    let sealed = pack::seal(&key, shape, b"content");
    let device = SigningKey::from_bytes(&[device; 32]);
    let manifest = Manifest::sign(key.pack_id(), shape, sealed.ids.clone(), fixture.account(), &device);
    sealed.shares(&manifest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_brings_back_what_the_owner_s_device_made_and_nothing_else() {
    let (ada, bob) = friends().await;
    let cleo = node(3).await;
    let ticket = bob.net.invite("Cleo", LATER).await.unwrap();
    cleo.net.join(&ticket).await.unwrap();
    eventually("Ada hears of Cleo", || {
        ada.net.roster().member(cleo.fixture.account()).is_some()
    })
    .await;
    let store = cleo.net.peer_of(ada.net.device(), bob.fixture.account());
    let (id, share) = shares_of(&bob.fixture, 2)[1].clone();
    let ack = store.put(id, share.clone()).await.unwrap();
    let receipt = proto::wire::receipt::Receipt::decode(&ack.receipt.unwrap()).unwrap();
    assert_eq!(receipt.body.owner, bob.fixture.account());
    // Bob finds it among his own.
    assert_eq!(bob.net.peer(ada.net.device()).list(None, 10).await.unwrap(), [id]);
    // Signed by a device that is not Bob's, even if it says so: Cleo's own, and nobody's.
    for device in [3, 77] {
        let (id, share) = shares_of(&bob.fixture, device)[2].clone();
        let refused = store.put(id, share).await;
        assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    }
    let (id, share) = shares_of(&cleo.fixture, 3)[2].clone();
    assert!(matches!(store.put(id, share).await, Err(StoreError::Refused { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_friend_proves_what_it_holds_and_what_it_lost_shows() {
    let (ada, bob) = friends().await;
    let store = bob.net.peer(ada.net.device());
    let mut asked = Vec::new();
    for (id, share) in shares_of(&bob.fixture, 2) {
        let leaves = (0..16).map(|leaf| Asked {
            leaf: Leaf { share: id, leaf },
            size: share.size(),
        });
        asked.extend(leaves);
        store.put(id, share).await.unwrap();
    }
    assert_eq!(asked.len(), proto::wire::audit::LEAVES_MAX);
    let sound = challenge::friend(&store, &asked, [1; 32]).await;
    assert!(matches!(sound, Outcome::Success), "{sound:?}");

    let (missing, damaged) = (asked[0].leaf.share, asked[16].leaf.share);
    let kept = ada.net.shelf(bob.fixture.account()).unwrap().store;
    kept.set_aside(missing).unwrap();
    let (account, name) = (bob.fixture.account().to_string(), damaged.to_string());
    let folder = ada.home.path().join("store").join(&account);
    let path = folder.join("shares").join(&name[..2]).join(&name);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[3 * LEAF_BYTES] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let failure = Outcome::Failure {
        missing: vec![missing],
        damaged: vec![damaged],
    };
    assert_eq!(challenge::friend(&store, &asked, [2; 32]).await, failure);
    // A leaf that no share of that size has is not held, and a member proves to other members, too.
    let beyond = Asked {
        leaf: Leaf {
            share: damaged,
            leaf: 16,
        },
        size: ShareSize::Small,
    };
    assert!(matches!(
        challenge::friend(&store, &[beyond], [3; 32]).await,
        Outcome::Failure { .. }
    ));
    ada.net.stop();
    assert_eq!(challenge::friend(&store, &asked, [4; 32]).await, Outcome::Offline);
}

/// A put of a share without a byte of it took it out of the owner's trash, for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_takes_nothing_out_of_the_trash_of_another() {
    let (ada, bob) = friends().await;
    let cleo = node(3).await;
    let ticket = ada.net.invite("Cleo", LATER).await.unwrap();
    cleo.net.join(&ticket).await.unwrap();
    let (id, share) = shares_of(&bob.fixture, 2)[1].clone();
    let own = bob.net.peer(ada.net.device());
    own.put(id, share.clone()).await.unwrap();
    assert_eq!(own.discard(vec![id]).await, Ok(1));
    let store = cleo.net.peer_of(ada.net.device(), bob.fixture.account());
    assert!(matches!(store.recall(vec![id]).await, Err(StoreError::Refused { .. })));
    let put = store.put(id, share.clone()).await;
    assert!(matches!(put, Err(StoreError::Refused { .. })), "{put:?}");
    assert_eq!(own.list_trash(None, 10).await, Ok(vec![id]));
    assert_eq!(own.put(id, share).await.unwrap().bytes_sent, 0, "its owner may");
    assert_eq!(own.list(None, 10).await, Ok(vec![id]));
}
