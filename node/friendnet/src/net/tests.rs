//! Real nodes over loopback, each with a home of its own.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, Stream, StreamProtocol};
use proto::id::AccountId;
use proto::keys::{DeviceCert, power};
use proto::share_store::contract::Fixture;
use proto::share_store::{HeadStore, ShareStore, StoreError, contract};
use proto::wire::SHARE_PROTOCOL;
use proto::wire::by_device::Speaker;
use proto::wire::frame;
use proto::wire::greeting::Refusal;
use proto::wire::share::ShareMessage;
use proto::wire::ticket::Ticket;
use stores::room::Offered;
use tempfile::TempDir;
use upload_queue::bandwidth::Bandwidth;
use upload_queue::space::MinFree;

use super::frames::Frame;
use super::reach::Route;
use super::relays::RelayUse;
use super::swarm::{LocalDiscovery, SwarmConfig};
use super::{frames, reach, swarm};
use crate::handle::{InviteError, NetHandle};
use crate::identity;
use crate::join::JoinError;
use crate::roster::Roster;
use crate::roster::deeds;
use crate::roster::deeds::Removed;
use crate::start::{Net, NetConfig, TransportConfig};

mod care;
mod certificate;
mod disk;
mod heads;
mod liar;
mod outside;
mod promises;
mod protocols;
mod starving;
mod strangers;

const LATER: u64 = 1 << 40;

/// A node of the account of `fixture`.
struct TestNode {
    net: NetHandle,
    fixture: Fixture,
    home: TempDir,
}

async fn start(home: &Path, fixture: &Fixture, device: u8) -> NetHandle {
    Net::start(config(home, fixture, device, "/ip4/127.0.0.1/tcp/0"))
        .await
        .unwrap()
}

fn config(home: &Path, fixture: &Fixture, device: u8, listen: &str) -> NetConfig {
    let device_key = SigningKey::from_bytes(&[device; 32]);
    let cert = DeviceCert::sign(
        fixture.words(),
        identity::device_of(&device_key),
        power::ALL,
        "test",
        device.into(),
    );
    NetConfig {
        transport: TransportConfig {
            device_key,
            cert,
            listen: vec![listen.parse().unwrap()],
            announce: Vec::new(),
            discovery: LocalDiscovery::Off,
            upnp: false,
            relays: RelayUse::WhenUnreachable,
            forwards: true,
            bandwidth: Bandwidth::default(),
        },
        account_name: format!("account of {device}"),
        home: home.to_owned(),
        offered: Offered::Bytes(u64::MAX),
        min_free: MinFree::Bytes(0),
    }
}

async fn node(number: u8) -> TestNode {
    let (home, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(number.into()));
    let net = start(home.path(), &fixture, number).await;
    TestNode { net, fixture, home }
}

async fn friends() -> (TestNode, TestNode) {
    let (ada, bob) = (node(1).await, node(2).await);
    let ticket = ada.net.invite("Bob", LATER).await.unwrap();
    bob.net.join(&ticket).await.unwrap();
    (ada, bob)
}

/// A share stream of `caller` to `holder`, greetings done.
async fn raw_stream(caller: &NetHandle, holder: &NetHandle) -> Stream {
    let core = &caller.shared.core;
    let hello = Frame::bare(&core.hello(None));
    core.open(holder.device(), SHARE_PROTOCOL, &[hello]).await.unwrap()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_friends_node_keeps_the_contract_of_every_store() {
    let (ada, bob) = friends().await;
    contract::check_share_store(&bob.net.peer(ada.net.device()), &bob.fixture).await;
    assert!(ada.net.counters().shares_kept >= 5);
    assert!(ada.net.kept_for(bob.fixture.account()).unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_names_share_owner_and_holder() {
    let (ada, bob) = friends().await;
    let (id, share) = bob.fixture.share(0);
    let ack = bob.net.peer(ada.net.device()).put(id, share).await.unwrap();
    let receipt = proto::wire::receipt::Receipt::decode(&ack.receipt.unwrap()).unwrap();
    assert_eq!(
        (receipt.body.share, receipt.body.owner, receipt.body.holder),
        (id, bob.fixture.account(), ada.net.device())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_nothing() {
    let (ada, eve) = (node(1).await, node(6).await);
    for address in ada.net.shared.core.links.listening() {
        eve.net.hint(ada.net.device(), address);
    }
    let store = eve.net.peer(ada.net.device());
    let (id, share) = eve.fixture.share(0);
    assert!(matches!(store.put(id, share).await, Err(StoreError::Refused { .. })));
    assert!(matches!(
        store.heads(ada.fixture.account()).await,
        Err(StoreError::Refused { .. })
    ));
    let met = eve.net.meet(ada.net.addresses()[0].clone()).await;
    assert!(
        matches!(
            met,
            Err(JoinError::Refused {
                refusal: Refusal::Stranger,
                ..
            })
        ),
        "{met:?}"
    );
    assert_eq!(ada.net.roster().members().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_ends_its_stream_and_harms_no_other() {
    let (ada, bob) = friends().await;
    let garbage: [&[u8]; 3] = [
        &u32::MAX.to_le_bytes(),
        &[5, 0, 0, 0, 200, 200, 1, 2, 3],
        &[6, 0, 0, 0, 4, 0, 0xff, 0xff, 0xff, 0xff],
    ];
    for bytes in garbage {
        let mut stream = raw_stream(&bob.net, &ada.net).await;
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the stream ends");
        assert!(rest.is_empty());
    }
    assert!(bob.net.peer(ada.net.device()).space().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_goes_on_where_it_stopped_even_if_both_ends_restarted() {
    let (ada, bob) = friends().await;
    let (id, share) = bob.fixture.share(0);
    let sent = 100_000;
    let mut stream = raw_stream(&bob.net, &ada.net).await;
    let stored_bytes = share.stored_bytes() as u32;
    frames::say(
        &mut stream,
        &ShareMessage::Put {
            request: 0,
            id,
            stored_bytes,
        },
        Default::default(),
    )
    .await
    .unwrap();
    let answer = frames::read::<ShareMessage, _>(&mut stream).await.unwrap().unwrap();
    assert_eq!(answer.0, ShareMessage::PutFrom { request: 0, offset: 0 });
    frames::say(
        &mut stream,
        &ShareMessage::PutBytes { request: 0, offset: 0 },
        share.data.slice(..sent),
    )
    .await
    .unwrap();
    let kept = ada.net.shared.kept.shelf(bob.fixture.account()).unwrap();
    let partial = kept.store.incoming().join(format!("{id}.part"));
    eventually("the bytes arrive", || {
        std::fs::metadata(&partial).is_ok_and(|found| found.len() == sent as u64)
    })
    .await;
    drop((stream, ada.net, bob.net));
    let ada_net = start(ada.home.path(), &ada.fixture, 1).await;
    let bob_net = start(bob.home.path(), &bob.fixture, 2).await;
    bob_net.hint(ada_net.device(), ada_net.shared.core.links.listening()[0].clone());
    let ack = bob_net.peer(ada_net.device()).put(id, share.clone()).await.unwrap();
    assert_eq!(ack.bytes_sent, (share.stored_bytes() - sent) as u64);
    assert!(!partial.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_put_leaves_nothing_visible_and_can_be_repeated() {
    let (ada, bob) = friends().await;
    let store = bob.net.peer(ada.net.device());
    for number in 0..5 {
        let (id, share) = bob.fixture.share(number);
        let dropped = tokio::time::timeout(Duration::from_millis(number as u64), store.put(id, share.clone())).await;
        let listed = store.list(None, 10).await.unwrap();
        assert!(dropped.is_err() || listed.contains(&id));
        store.put(id, share).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_told_to_the_one_it_is_for() {
    let (ada, bob) = friends().await;
    ada.net.set_quota(bob.fixture.account(), Some(1000));
    let store = bob.net.peer(ada.net.device());
    let (id, share) = bob.fixture.share(0);
    assert!(matches!(
        store.put(id, share.clone()).await,
        Err(StoreError::Full { .. })
    ));
    assert_eq!(store.space().await.unwrap().free_bytes, Some(1000));
    ada.net.set_quota(bob.fixture.account(), None);
    store.put(id, share).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn other_members_read_but_never_change_what_an_account_keeps() {
    let (ada, bob) = friends().await;
    let (id, share) = bob.fixture.share(0);
    bob.net.peer(ada.net.device()).put(id, share.clone()).await.unwrap();
    let cleo = node(3).await;
    cleo.net
        .join(&bob.net.invite("Cleo", LATER).await.unwrap())
        .await
        .unwrap();
    eventually("Ada hears of Cleo", || {
        ada.net.roster().member(cleo.fixture.account()).is_some()
    })
    .await;
    let store = cleo.net.peer_of(ada.net.device(), bob.fixture.account());
    assert_eq!(store.get(id, 0..100).await.unwrap(), share.data[..100]);
    assert!(matches!(store.remove(id).await, Err(StoreError::Refused { .. })));
    let (other, share) = bob.fixture.share(1);
    assert!(matches!(store.put(other, share).await, Err(StoreError::Refused { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_admits_one_account_and_a_lost_answer_does_not_matter() {
    let (ada, bob, eve) = (node(1).await, node(2).await, node(6).await);
    let ticket = ada.net.invite("Bob", LATER).await.unwrap();
    for _ in 0..2 {
        bob.net.join(&ticket).await.unwrap();
    }
    let refusal = |outcome: Result<(), JoinError>| match outcome {
        Err(JoinError::Refused { refusal, .. }) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(eve.net.join(&ticket).await), Refusal::TicketUsed);
    let forged = Ticket {
        secret: [0; 16],
        ..ticket
    };
    assert_eq!(refusal(eve.net.join(&forged).await), Refusal::TicketUnknown);
    let expired = ada.net.invite("Eve", 1).await.unwrap();
    assert_eq!(refusal(eve.net.join(&expired).await), Refusal::TicketExpired);
    assert_eq!(ada.net.roster().members().count(), 2);
    assert!(bob.net.roster().device(ada.net.device()).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_in_a_grid_with_others_does_not_leave_it_by_joining_another() {
    let (_ada, bob) = friends().await;
    let cleo = node(3).await;
    let ticket = cleo.net.invite("Bob", LATER).await.unwrap();
    assert!(matches!(bob.net.join(&ticket).await, Err(JoinError::InAnotherGrid)));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_members_learn_all_addresses() {
    let (ada, bob) = friends().await;
    let cleo = node(3).await;
    cleo.net
        .join(&ada.net.invite("Cleo", LATER).await.unwrap())
        .await
        .unwrap();
    for net in [&ada.net, &bob.net, &cleo.net] {
        let mut roster = net.roster_changes();
        let complete =
            roster.wait_for(|roster| roster.devices().filter(|device| !device.addresses().is_empty()).count() == 3);
        tokio::time::timeout(Duration::from_secs(60), complete)
            .await
            .expect("in time")
            .expect("running");
    }
    eventually("Bob and Cleo find each other", || bob.net.connected(cleo.net.device())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_device_finds_its_grid_and_its_shares_with_one_address() {
    let (ada, bob) = friends().await;
    let (id, share) = bob.fixture.share(0);
    bob.net.peer(ada.net.device()).put(id, share).await.unwrap();
    drop(bob.net);
    let home = tempfile::tempdir().unwrap();
    let recovered = start(home.path(), &bob.fixture, 77).await;
    let met = recovered.meet(ada.net.addresses()[0].clone()).await.unwrap();
    assert_eq!(met, ada.net.device());
    assert_eq!(recovered.roster().grid(), ada.net.roster().grid());
    assert_eq!(recovered.peer(met).list(None, 10).await, Ok(vec![id]));
    eventually("Ada hears of the new device", || {
        ada.net.roster().device(recovered.device()).is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_friend_that_is_away_is_unreachable_at_once_and_served_when_it_is_back() {
    let (ada, bob) = friends().await;
    let store = bob.net.peer(ada.net.device());
    store.space().await.unwrap();
    drop(ada.net);
    eventually("the connection is noticed to be gone", || {
        !bob.net
            .connected(identity::device_of(&SigningKey::from_bytes(&[1; 32])))
    })
    .await;
    let answer = store.space().await;
    assert!(matches!(answer, Err(StoreError::Unreachable { .. })), "{answer:?}");
    let ada_net = start(ada.home.path(), &ada.fixture, 1).await;
    bob.net
        .hint(ada_net.device(), ada_net.shared.core.links.listening()[0].clone());
    tokio::time::sleep(Duration::from_millis(2100)).await;
    store.space().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_puts_and_a_small_request_share_a_connection() {
    let (ada, bob) = friends().await;
    let store = bob.net.peer(ada.net.device());
    let puts = (0..5).map(|number| {
        let (id, share) = bob.fixture.share(number);
        store.put(id, share)
    });
    let (acks, listed) = futures::join!(futures::future::join_all(puts), store.list(None, 10));
    assert!(listed.is_ok() && acks.iter().all(Result::is_ok), "{listed:?} {acks:?}");
    assert_eq!(store.list(None, 10).await.unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_opened_at_once_are_all_served() {
    let (ada, bob) = friends().await;
    let lanes = (0..24).map(|_| raw_stream(&bob.net, &ada.net));
    assert_eq!(futures::future::join_all(lanes).await.len(), 24);
}

#[test]
fn frames_of_a_share_fit_the_wire() {
    assert!(frame::PAYLOAD_BYTES_MAX >= proto::shape::ShareSize::Large.tail_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thief_who_gives_everything_up_over_the_network_only_fills_the_trash() {
    let (ada, bob) = friends().await;
    let store = bob.net.peer(ada.net.device());
    let mut ids = Vec::new();
    for number in 0..5 {
        let (id, share) = bob.fixture.share(number);
        store.put(id, share).await.unwrap();
        ids.push(id);
    }
    store.put_head(bob.fixture.head(1)).await.unwrap();
    ids.sort_unstable();
    // He has Bob's keys: everything that Ada lists, and an empty head besides.
    assert_eq!(store.discard(store.list(None, 100).await.unwrap()).await, Ok(5));
    store.put_head(bob.fixture.head(2)).await.unwrap();
    assert_eq!(store.list(None, 100).await, Ok(Vec::new()));
    assert_eq!(ada.net.expire(), stores::folder::Expired::default());

    let account = bob.fixture.account();
    let old = store.old_heads(account, None).await.unwrap();
    assert_eq!((old.heads[0].encoded.clone(), old.next), (bob.fixture.head(1), None));
    let (id, share) = bob.fixture.share(0);
    assert_eq!(
        store.get(id, 0..100).await.unwrap(),
        share.data[..100],
        "as restores read it"
    );
    assert_eq!(store.list_trash(None, 100).await, Ok(ids.clone()));
    assert_eq!(store.recall(ids.clone()).await, Ok(ids.clone()));
    assert_eq!(store.list(None, 100).await, Ok(ids));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discard_for_another_holder_is_refused() {
    let (ada, bob) = friends().await;
    let (id, share) = bob.fixture.share(0);
    bob.net.peer(ada.net.device()).put(id, share).await.unwrap();
    let core = &bob.net.shared.core;
    let order = proto::discard::Order {
        holder: bob.net.device(),
        number: 1,
        previous: [0; 32],
        issued_secs: 0,
    };
    let discard = proto::discard::Discard::sign(&core.device_key, &core.cert, order, &[id]).unwrap();
    let mut stream = raw_stream(&bob.net, &ada.net).await;
    let message = ShareMessage::Discard {
        request: 1,
        discard: discard.encode().into(),
    };
    Frame::new(&message, id.0.to_vec().into())
        .write(&mut stream)
        .await
        .unwrap();
    stream.flush().await.unwrap();
    let (answer, _) = super::frames::read::<ShareMessage, _>(&mut stream)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(answer, ShareMessage::Failed { .. }), "{answer:?}");
    assert_eq!(bob.net.peer(ada.net.device()).list(None, 10).await, Ok(vec![id]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_offered_to_all_is_a_limit_on_the_sum() {
    let (ada, bob) = friends().await;
    let ((id, share), (_, other)) = (bob.fixture.share(0), bob.fixture.share(1));
    let own = stores::kept::Kept::new(
        &ada.home.path().join("store"),
        Offered::Bytes(share.stored_bytes() as u64 + 1),
        MinFree::Bytes(0),
    );
    bob.net.peer(ada.net.device()).put(id, share.clone()).await.unwrap();
    // Counted from what is on disk, whoever's it is.
    assert!(matches!(
        own.room(other.stored_bytes() as u64),
        Err(StoreError::Full { .. })
    ));
    assert!(own.room(1).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_device_gets_nothing_more_and_cannot_join_again_while_its_account_stays() {
    let (ada, bob) = friends().await;
    let home = tempfile::tempdir().unwrap();
    let lost = start(home.path(), &bob.fixture, 4).await;
    lost.join(&bob.net.invite("second device", LATER).await.unwrap())
        .await
        .unwrap();
    let (id, share) = bob.fixture.share(0);
    lost.peer(ada.net.device()).put(id, share.clone()).await.unwrap();
    let roster = bob.net.roster();
    let mut word = roster.next_word(bob.fixture.account());
    assert!(deeds::revoke(&mut word, lost.device()));
    // With a device's key it cannot be said: the thief has one, too.
    let by_device = word.clone().signed(&SigningKey::from_bytes(&[4; 32]));
    assert_eq!(bob.net.say(by_device, &BTreeSet::new()).unwrap(), None);
    assert!(
        bob.net
            .say(word.signed(bob.fixture.words()), &BTreeSet::new())
            .unwrap()
            .is_some()
    );
    eventually("Ada hears of it", || ada.net.roster().device(lost.device()).is_none()).await;
    let refused = async {
        while !matches!(
            lost.peer(ada.net.device()).get(id, 0..100).await,
            Err(StoreError::Refused { .. })
        ) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), refused)
        .await
        .expect("refused");
    assert!(lost.join(&ada.net.invite("again", LATER).await.unwrap()).await.is_err());
    let got = bob.net.peer(ada.net.device()).get(id, 0..100).await;
    assert_eq!(got.unwrap(), share.data[..100], "the account's other device is served");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_gets_nothing_more_from_anybody() {
    let (ada, bob) = (node(1).await, node(2).await);
    let old = ada.net.invite("Bob", LATER).await.unwrap();
    bob.net.join(&old).await.unwrap();
    let cleo = node(3).await;
    cleo.net
        .join(&ada.net.invite("Cleo", LATER).await.unwrap())
        .await
        .unwrap();
    eventually("Bob hears of Cleo", || {
        bob.net.roster().device(cleo.net.device()).is_some()
    })
    .await;
    let (id, share) = bob.fixture.share(0);
    bob.net.peer(ada.net.device()).put(id, share.clone()).await.unwrap();
    bob.net.peer(cleo.net.device()).put(id, share.clone()).await.unwrap();
    let vote = cleo.net.remove_member(bob.fixture.account()).unwrap();
    assert_eq!(vote, Removed::Voted { lacking: 1 });
    bob.net.peer(ada.net.device()).get(id, 0..100).await.unwrap();
    assert_eq!(ada.net.remove_member(bob.fixture.account()).unwrap(), Removed::Out);
    assert!(bob.net.join(&old).await.is_err(), "a used ticket is used up");
    eventually("Cleo hears of it", || {
        cleo.net.roster().member(bob.fixture.account()).is_none()
    })
    .await;
    for holder in [&ada, &cleo] {
        // It may come back at once, as a stranger: what counts is what it is told then.
        let store = bob.net.peer(holder.net.device());
        let refused = async {
            while !matches!(store.get(id, 0..100).await, Err(StoreError::Refused { .. })) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), refused)
            .await
            .expect("refused");
        assert!(matches!(
            store.put(id, share.clone()).await,
            Err(StoreError::Refused { .. })
        ));
    }
    let of_cleo = cleo.net.invite("Bob again", LATER).await.unwrap();
    assert!(
        bob.net.join(&of_cleo).await.is_err(),
        "only who removed may take it back"
    );
    let of_ada = ada.net.invite("Bob again", LATER).await.unwrap();
    bob.net.join(&of_ada).await.unwrap();
    eventually("Cleo hears of that, too", || {
        cleo.net.roster().device(bob.net.device()).is_some()
    })
    .await;
    // A refusal is remembered for a moment.
    let taken_back = async {
        loop {
            match bob.net.peer(cleo.net.device()).get(id, 0..100).await {
                Err(StoreError::Refused { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                got => return got,
            }
        }
    };
    let got = tokio::time::timeout(Duration::from_secs(60), taken_back)
        .await
        .expect("an answer");
    assert_eq!(got.unwrap(), share.data[..100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_grid_says_so_to_who_invites_and_to_who_joins() {
    use proto::wire::grid_limits::MEMBERS_MAX;
    use proto::wire::roster::{MemberRecord, acceptance};
    let (ada, bob) = (node(1).await, node(2).await);
    let ticket = ada.net.invite("Bob", LATER).await.unwrap();
    let members = &ada.net.shared.membership.members;
    let founder = ada.net.shared.core.speaker().unwrap();
    let fill = |roster: &mut Roster| {
        let grid = roster.grid();
        (1..MEMBERS_MAX).all(|number| {
            let words = SigningKey::from_bytes(&[100 + number as u8; 32]);
            let id = AccountId(words.verifying_key().to_bytes());
            let device = identity::device_of(&words);
            let cert = DeviceCert::sign(&words, device, power::ALL, "one", 0);
            let one = Speaker {
                key: &words,
                cert: &cert,
            };
            let accepted = acceptance(one, grid, "one of many", founder.cert.device);
            roster.add_member(MemberRecord::admit(founder, grid, id, "one of many", accepted))
        })
    };
    assert!(members.update(fill).unwrap());
    let joined = bob.net.join(&ticket).await;
    let refusal = Refusal::GridFull;
    assert!(
        matches!(&joined, Err(JoinError::Refused { refusal: found, .. }) if *found == refusal),
        "{joined:?}"
    );
    assert!(matches!(
        ada.net.invite("Cleo", LATER).await,
        Err(InviteError::GridFull)
    ));
}

/// A node that had lost its roster founded a grid of its own and answered its friends as strangers, without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_roster_is_told_of_its_grid_by_the_first_friend_who_comes() {
    let (ada, bob) = friends().await;
    let TestNode { net, fixture, home } = bob;
    drop(net);
    for file in ["roster", "roster.before"] {
        std::fs::write(home.path().join(file), b"?").unwrap();
    }
    let bob = TestNode {
        net: start(home.path(), &fixture, 2).await,
        fixture,
        home,
    };
    let address = bob.net.addresses()[0].clone();
    ada.net
        .shared
        .membership
        .hint(bob.net.device(), std::iter::once(address));
    ada.net.shared.membership.exchange(bob.net.device()).await.unwrap();
    assert_eq!(bob.net.roster().grid(), ada.net.roster().grid());
    let (id, share) = bob.fixture.share(0);
    bob.net.peer(ada.net.device()).put(id, share).await.unwrap();
}
