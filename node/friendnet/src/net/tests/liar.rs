//! A member whose node says what it likes, asked by a real one.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use proto::discard::{Discard, Evidence, Order, write_ids};
use proto::id::ShareId;
use proto::share_store::PeerStore;
use proto::wire::greeting::Greeting;
use proto::wire::share::Failure;
use upload_queue::peers::batches::{Batches, LISTED_MAX, Shelf};

use super::*;
use crate::given_up::{Owner, Trash, was_given_up};

/// What a liar answers to a request: the frame, or nothing at all.
pub(super) type Lie = Arc<dyn Fn(ShareMessage) -> Option<(ShareMessage, Bytes)> + Send + Sync>;

/// Takes the place of `honest`, which stops, and answers every request with `lie`. Returns its address.
pub(super) async fn become_liar(honest: TestNode, lie: Lie) -> (Multiaddr, TempDir) {
    let core = honest.net.shared.core.clone();
    let mut swarm = swarm::build(SwarmConfig {
        identity: identity::keypair(&core.device_key),
        discovery: LocalDiscovery::Off,
        members: core.members.clone(),
        forwards: false,
        upnp: false,
    })
    .unwrap();
    honest.net.stop();
    drop(honest.net);
    let mut control = swarm.behaviour().streams.new_control();
    let mut lanes = control.accept(StreamProtocol::new(SHARE_PROTOCOL)).unwrap();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let address = loop {
        if let libp2p::swarm::SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    tokio::spawn(async move {
        while let Some((_, stream)) = lanes.next().await {
            tokio::spawn(answer(stream, core.welcome(), lie.clone()));
        }
    });
    (address, honest.home)
}

fn answer(mut stream: Stream, welcome: Greeting, lie: Lie) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let hello = frames::read::<Greeting, _>(&mut stream).await;
        assert!(matches!(hello, Ok(Some((Greeting::Hello { .. }, _)))));
        let _asker_may_be_gone = frames::say(&mut stream, &welcome, Bytes::new()).await;
        while let Ok(Some((message, _))) = frames::read::<ShareMessage, _>(&mut stream).await {
            if let Some((said, payload)) = lie(message)
                && frames::say(&mut stream, &said, payload).await.is_err()
            {
                return;
            }
        }
    })
}

/// A full batch of ids from `first` on.
fn batch(first: u64) -> Bytes {
    let ids = (first..first + u64::from(proto::wire::frame::IDS_MAX)).flat_map(|number| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        id
    });
    ids.collect()
}

fn endless(message: ShareMessage) -> Option<(ShareMessage, Bytes)> {
    let (ShareMessage::List { request, after, .. } | ShareMessage::Trash { request, after, .. }) = message else {
        return None;
    };
    let number = |id: ShareId| u64::from_be_bytes(*id.0.first_chunk().expect("32 bytes"));
    let first = after.map_or(0, |after| number(after) + 1);
    Some((ShareMessage::Ids { request }, batch(first)))
}

fn the_same(message: ShareMessage) -> Option<(ShareMessage, Bytes)> {
    Some((
        ShareMessage::Ids {
            request: message.request(),
        },
        batch(0),
    ))
}

/// `recover` took 3.5 GiB from a friend that always had one batch more, and `check` went round for ever with the same one.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_who_lists_without_end_is_not_believed() {
    for lie in [Arc::new(endless) as Lie, Arc::new(the_same)] {
        let (ada, bob) = friends().await;
        let liar = ada.net.device();
        let (address, _home) = become_liar(ada, lie).await;
        bob.net.hint(liar, address);
        let store = bob.net.peer(liar);
        let found = async {
            while store.list(None, proto::wire::frame::IDS_MAX).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), found)
            .await
            .expect("the liar is found");
        for shelf in [Shelf::Kept, Shelf::Trash] {
            let mut ids = 0;
            let mut batches = Batches::new(&store, shelf);
            let ended = loop {
                match batches.next().await {
                    Ok(Some(batch)) => ids += batch.len(),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            assert!(matches!(ended, Err(StoreError::Corrupt { .. })), "{ended:?}");
            assert!(ids <= LISTED_MAX);
        }
    }
}

/// Says of all these shares that they are in its trash, and shows this, if anything.
fn given_up(ids: Vec<ShareId>, shown: Option<Evidence>) -> Lie {
    Arc::new(move |message| {
        let request = message.request();
        Some(match (message, &shown) {
            (ShareMessage::Trash { after: None, .. }, _) => (ShareMessage::Ids { request }, write_ids(&ids).into()),
            (ShareMessage::Evidence { .. }, Some(Evidence { discard, ids })) => {
                let discard = discard.encode().into();
                (ShareMessage::EvidenceIs { request, discard }, write_ids(ids).into())
            }
            (ShareMessage::Evidence { .. }, None) => {
                let failure = Failure::NotFound;
                (ShareMessage::Failed { request, failure }, Bytes::new())
            }
            _ => (ShareMessage::Ids { request }, Bytes::new()),
        })
    })
}

/// One friend who said of all shares that they were in its trash kept the others from healing what was lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_its_owner_gave_up_is_shown_by_its_signature_and_not_by_a_member_s_word() {
    let bob = node(2).await;
    let (dora, cleo) = (node(4).await, node(3).await);
    for other in [&dora, &cleo] {
        other
            .net
            .join(&bob.net.invite("friend", LATER).await.unwrap())
            .await
            .unwrap();
    }
    let owner = bob.fixture.account();
    eventually("Cleo and Dora know each other", || {
        cleo.net.roster().device(dora.net.device()).is_some() && dora.net.roster().device(cleo.net.device()).is_some()
    })
    .await;
    let mut ids = Vec::new();
    for number in 0..5 {
        let (id, share) = bob.fixture.share(number);
        bob.net.peer(dora.net.device()).put(id, share).await.unwrap();
        ids.push(id);
    }
    ids.sort_unstable();
    assert_eq!(bob.net.peer(dora.net.device()).discard(ids[..2].to_vec()).await, Ok(2));
    let at = |device| -> Arc<dyn PeerStore> { Arc::new(cleo.net.peer_of(device, owner)) };
    let judge = async |device, unlisted: &[ShareId]| {
        let mut trashes = [Trash::ask(at(device), device).await];
        let (unlisted, roster) = (unlisted.iter().copied().collect::<BTreeSet<_>>(), cleo.net.roster());
        let of_owner = Owner {
            account: owner,
            roster: &roster,
        };
        was_given_up(&unlisted, 5, &mut trashes, of_owner).await
    };
    assert!(judge(dora.net.device(), &ids[..3]).await, "an honest holder shows it");
    assert!(
        !judge(dora.net.device(), &ids[1..]).await,
        "one share may have been moved"
    );

    // What a liar can show: nothing, what was said to another, what it signed itself, and of what it was told what is not asked.
    let shown = at(dora.net.device()).evidence(ids[0]).await.unwrap();
    let ada = node(1).await;
    ada.net
        .join(&bob.net.invite("Ada", LATER).await.unwrap())
        .await
        .unwrap();
    let liar = ada.net.device();
    eventually("Cleo knows Ada", || cleo.net.roster().device(liar).is_some()).await;
    let sign = |core: &crate::net::core::Core, holder, ids: &[ShareId]| {
        let order = Order {
            holder,
            number: 1,
            previous: [0; 32],
            issued_secs: 0,
        };
        let discard = Discard::sign(&core.device_key, &core.cert, order, ids).unwrap();
        let ids = ids.to_vec();
        Evidence { discard, ids }
    };
    let own = sign(&ada.net.shared.core, liar, &ids);
    let other = sign(&bob.net.shared.core, liar, &[ShareId([1; 32])]);
    let true_one = sign(&bob.net.shared.core, liar, &ids[..2]);
    let lies = [None, Some(shown), Some(own), Some(other), Some(true_one)];
    let current = Arc::new(std::sync::Mutex::new(given_up(ids.clone(), None)));
    let lie: Lie = {
        let current = current.clone();
        Arc::new(move |message| {
            let lie = current.lock().unwrap().clone();
            lie(message)
        })
    };
    let (address, _home) = become_liar(ada, lie).await;
    cleo.net.hint(liar, address);
    let reached = async {
        while at(liar).list_trash(None, 10).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reached)
        .await
        .expect("the liar is found");
    let mut believed = Vec::new();
    for shown in lies {
        *current.lock().unwrap() = given_up(ids.clone(), shown);
        believed.push(judge(liar, &ids).await);
    }
    assert_eq!(
        believed,
        [false, false, false, false, true],
        "the last is the owner's own word"
    );
}
