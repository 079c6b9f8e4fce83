//! A member whose node says what it likes, asked by a real one.

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use proto::id::ShareId;
use proto::wire::greeting::Greeting;
use upload_queue::peers::pages::{LISTED_MAX, Pages, Shelf};

use super::*;

/// What a liar answers to a request: the frame, or nothing at all.
type Lie = fn(ShareMessage) -> Option<(ShareMessage, Bytes)>;

/// Takes the place of `honest`, which stops, and answers every request with `lie`. Returns its address.
async fn become_liar(honest: TestNode, lie: Lie) -> (Multiaddr, TempDir) {
    let core = honest.net.shared.core.clone();
    let mut swarm = swarm::build(SwarmConfig {
        identity: identity::keypair(&core.device_key),
        discovery: LocalDiscovery::Off,
        members: core.members.subscribe(),
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
            tokio::spawn(answer(stream, core.welcome(), lie));
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

/// A full page of ids from `first` on.
fn page(first: u64) -> Bytes {
    let ids = (first..first + u64::from(proto::wire::share::IDS_MAX)).flat_map(|number| {
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
    Some((ShareMessage::Ids { request }, page(first)))
}

fn the_same(message: ShareMessage) -> Option<(ShareMessage, Bytes)> {
    Some((
        ShareMessage::Ids {
            request: message.request(),
        },
        page(0),
    ))
}

/// `recover` took 3.5 GiB from a friend that always had one page more, and `check` went round for ever with the same one.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_who_lists_without_end_is_not_believed() {
    for lie in [endless as Lie, the_same] {
        let (ada, bob) = friends().await;
        let liar = ada.net.device();
        let (address, _home) = become_liar(ada, lie).await;
        bob.net.hint(liar, address);
        let store = bob.net.peer(liar);
        let found = async {
            while store.list(None, proto::wire::share::IDS_MAX).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), found)
            .await
            .expect("the liar is found");
        for shelf in [Shelf::Kept, Shelf::Trash] {
            let mut ids = 0;
            let mut pages = Pages::new(&store, shelf);
            let ended = loop {
                match pages.next().await {
                    Ok(Some(page)) => ids += page.len(),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            assert!(matches!(ended, Err(StoreError::Corrupt { .. })), "{ended:?}");
            assert!(ids <= LISTED_MAX);
        }
    }
}
