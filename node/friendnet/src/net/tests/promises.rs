//! Friends as voters: their promises over the network, and what strangers, other members and liars get and are believed.

use bytes::Bytes;
use proto::id::VoterId;
use proto::promise::{PROMISE_BYTES, Promise};
use proto::share_store::PromiseStore;
use proto::share_store::contract::promises::{check_kept, check_promises};

use super::*;
use crate::share::remote::RemoteStore;

fn is_refused<T: std::fmt::Debug>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Refused { .. }))
}

/// The voter's store, as soon as it can be reached.
async fn reach(asker: &TestNode, voter: &NetHandle) -> RemoteStore {
    let reaching = async {
        loop {
            for address in voter.shared.core.links.listening() {
                asker.net.hint(voter.device(), address);
            }
            let store = asker.net.peer(voter.device());
            if store.space().await.is_ok() {
                return store;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reaching).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_friend_keeps_promises_and_is_the_same_voter_after_a_restart() {
    let (ada, bob) = friends().await;
    let store = bob.net.peer(ada.net.device());
    let voter = VoterId(ada.net.device().0);
    assert_eq!(store.voter().await, Ok(voter));
    check_promises(&store, &bob.fixture).await;
    ada.net.stop();
    drop(ada.net);
    let again = start(ada.home.path(), &ada.fixture, 1).await;
    let store = reach(&bob, &again).await;
    check_kept(&store, &bob.fixture).await;
    assert_eq!(store.voter().await, Ok(voter));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_account_s_own_devices_claim_its_volumes_and_hear_of_its_promises() {
    let (ada, bob) = friends().await;
    let cleo = node(3).await;
    cleo.net
        .join(&bob.net.invite("Cleo", LATER).await.unwrap())
        .await
        .unwrap();
    eventually("Ada hears of Cleo", || {
        ada.net.roster().member(cleo.fixture.account()).is_some()
    })
    .await;
    let (own, other) = (
        bob.net.peer(ada.net.device()),
        cleo.net.peer_of(ada.net.device(), bob.fixture.account()),
    );
    own.claim(bob.fixture.claim(1)).await.unwrap();
    let (account, volume) = (bob.fixture.account(), bob.fixture.volume(0));
    // A claim that Bob's other device signed, brought by somebody else; and one of Cleo's own, in Bob's name and in hers.
    for claim in [bob.fixture.second_claim(7), cleo.fixture.claim(7)] {
        assert!(is_refused(&other.claim(claim).await));
    }
    assert!(is_refused(&other.promise(account, volume).await));
    assert!(is_refused(&own.claim(cleo.fixture.claim(7)).await));
    assert!(is_refused(&own.promise(cleo.fixture.account(), volume).await));
    let hers = cleo.net.peer(ada.net.device());
    let same_volume = cleo.fixture.claim_of("device", volume, 9);
    assert_eq!(hers.claim(same_volume.clone()).await, Ok(same_volume));
    assert_eq!(own.promise(account, volume).await, Ok(Some(bob.fixture.claim(1))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_a_revoked_device_is_refused_whoever_brings_it() {
    let (ada, bob) = friends().await;
    let store = bob.net.peer(ada.net.device());
    let claim = bob.fixture.second_claim(5);
    let mut word = bob.net.roster().next_word(bob.fixture.account());
    assert!(deeds::revoke(&mut word, Promise::decode(&claim).unwrap().cert.device));
    let said = bob.net.say(word.signed(bob.fixture.words()), &BTreeSet::new());
    assert!(said.unwrap().is_some());
    let account = bob.fixture.account();
    eventually("Ada hears of it", || {
        ada.net
            .roster()
            .word(account)
            .is_some_and(|word| !word.revoked.is_empty())
    })
    .await;
    let refused = store.claim(claim).await;
    assert!(is_refused(&refused), "{refused:?}");
    assert_eq!(store.claim(bob.fixture.claim(1)).await, Ok(bob.fixture.claim(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_as_a_claim_is_refused_and_the_stream_goes_on() {
    let (ada, bob) = friends().await;
    let mut stream = raw_stream(&bob.net, &ada.net).await;
    let payloads = [
        Bytes::new(),
        Bytes::from_static(&[7; 356]),
        Bytes::from(vec![0; frame::PAYLOAD_BYTES_MAX]),
        bob.fixture.head(1),
    ];
    for (request, payload) in (1..).zip(payloads) {
        let claim = ShareMessage::Claim { request };
        frames::say(&mut stream, &claim, payload).await.unwrap();
        let answer = frames::read::<ShareMessage, _>(&mut stream).await.unwrap().unwrap();
        assert!(
            matches!(
                &answer.0,
                ShareMessage::Failed {
                    failure: proto::wire::share::Failure::Refused(_),
                    ..
                }
            ),
            "{answer:?}"
        );
    }
    let claim = ShareMessage::Claim { request: 9 };
    frames::say(&mut stream, &claim, bob.fixture.claim(1)).await.unwrap();
    let answer = frames::read::<ShareMessage, _>(&mut stream).await.unwrap();
    assert_eq!(
        answer,
        Some((ShareMessage::PromiseIs { request: 9 }, bob.fixture.claim(1)))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_voter_answers_is_believed_only_if_a_device_signed_it_and_it_answers_the_claim() {
    let fixture = Fixture::new(2);
    let mut flipped = fixture.claim(9).to_vec();
    flipped[285] ^= 1;
    for (lie, what) in [
        (Bytes::new(), "nothing"),
        (fixture.claim(4), "a lower promise"),
        (fixture.claim_of("device", fixture.volume(1), 9), "another volume's"),
        (
            Fixture::new(1).claim_of("device", fixture.volume(0), 9),
            "another account's",
        ),
        (flipped.into(), "an invented one"),
        (fixture.head(1), "a head"),
    ] {
        let (ada, bob) = friends().await;
        let liar = ada.net.device();
        let said = lie.clone();
        let (address, _home) = liar::become_liar(
            ada,
            Arc::new(move |message| {
                let request = message.request();
                Some(match message {
                    ShareMessage::Claim { .. } | ShareMessage::PromiseOf { .. } => {
                        (ShareMessage::PromiseIs { request }, said.clone())
                    }
                    _ => (
                        ShareMessage::SpaceIs {
                            request,
                            used_bytes: 0,
                            free_bytes: None,
                        },
                        Bytes::new(),
                    ),
                })
            }),
        )
        .await;
        bob.net.hint(liar, address.clone());
        let store = bob.net.peer(liar);
        let found = async {
            while store.space().await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), found)
            .await
            .expect("the liar is found");
        let claimed = store.claim(bob.fixture.claim(5)).await;
        // Of a longer answer than was asked for nothing is read.
        let is_long = lie.len() > PROMISE_BYTES && claimed.is_err();
        assert!(
            is_long || matches!(claimed, Err(StoreError::Corrupt { .. })),
            "{what}: {claimed:?}"
        );
        let read = store.promise(bob.fixture.account(), bob.fixture.volume(0)).await;
        let is_plausible = lie.is_empty() || lie == bob.fixture.claim(4);
        assert_eq!(read.is_ok(), is_plausible, "{what}: {read:?}");
    }
}
