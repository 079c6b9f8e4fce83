//! What every voter must pass: a promise is the highest epoch that was claimed, whoever claims, in whatever order, and how often.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;

use super::Fixture;
use crate::id::VolumeId;
use crate::promise::Promise;
use crate::share_store::{BoxFuture, PeerStore, StoreError};

/// Volumes that two devices claim at once, and epochs of each.
const RACES: (u64, u64) = (3, 4);
/// The first volume that is raced for.
const FIRST_RACED: u64 = 10;

/// Checks all that writers of volumes rely on. `store` has no promise yet, and is the fixture's account's; what the suite claimed
/// there stays.
///
/// # Panics
/// With the claim that does not hold.
pub async fn check_promises(store: &dyn PeerStore, fixture: &Fixture) {
    let voter = store.voter().await.expect("A voter says which it is");
    check_raising(store, fixture).await;
    check_one_counter(store, fixture).await;
    check_wrong_claims(store, fixture).await;
    check_two_at_once(store, store, fixture).await;
    assert_eq!(store.voter().await, Ok(voter), "A voter is the same one afterwards");
    check_kept(store, fixture).await;
}

/// Checks that a store has what `check_promises` left there, however long ago: whoever opens it anew calls this.
///
/// # Panics
/// With the claim that does not hold.
pub async fn check_kept(store: &dyn PeerStore, fixture: &Fixture) {
    let (_, high) = by_epoch(fixture, 6);
    assert_promise(
        store,
        fixture,
        0,
        Some(&high),
        "The highest claim of a volume is its promise",
    )
    .await;
    let other = fixture.claim_of("device", fixture.volume(1), 1);
    assert_promise(store, fixture, 1, Some(&other), "Each volume has a promise of its own").await;
    assert_eq!(
        store.claim(fixture.claim(5)).await,
        Ok(high),
        "A lower claim is answered with the promise that refuses it"
    );
    for volume in FIRST_RACED..FIRST_RACED + RACES.0 {
        let (_, high) = raced(fixture, fixture.volume(volume), RACES.1);
        assert_promise(store, fixture, volume, Some(&high), "The higher of two claims is kept").await;
    }
}

/// Claims at two openings of one place at the same time. Both have no promise of the volumes that this claims.
///
/// # Panics
/// With the claim that does not hold.
pub async fn check_two_at_once(one: &dyn PeerStore, other: &dyn PeerStore, fixture: &Fixture) {
    assert_eq!(one.voter().await, other.voter().await, "Both are one voter");
    for volume in FIRST_RACED..FIRST_RACED + RACES.0 {
        for counter in 1..=RACES.1 {
            let (low, high) = raced(fixture, fixture.volume(volume), counter);
            let (first, second) = both(one.claim(low.clone()), other.claim(high.clone())).await;
            assert_eq!(second.as_ref(), Ok(&high), "The higher claim is promised");
            assert!(
                first.as_ref() == Ok(&low) || first.as_ref() == Ok(&high),
                "The lower one was promised before, or is refused by the higher: {first:?}"
            );
            for store in [one, other] {
                assert_promise(store, fixture, volume, Some(&high), "Two at once end in the higher one").await;
                assert_eq!(store.claim(low.clone()).await, Ok(high.clone()), "and stay there");
            }
        }
    }
}

async fn check_raising(store: &dyn PeerStore, fixture: &Fixture) {
    assert_promise(store, fixture, 0, None, "The suite needs a voter without promises").await;
    let first = fixture.claim(3);
    assert_eq!(
        store.claim(first.clone()).await,
        Ok(first.clone()),
        "A first claim is promised"
    );
    assert_promise(store, fixture, 0, Some(&first), "What was promised is read").await;
    assert_eq!(
        store.claim(first.clone()).await,
        Ok(first.clone()),
        "The same claim again is confirmed"
    );
    let higher = fixture.claim(5);
    assert_eq!(
        store.claim(higher.clone()).await,
        Ok(higher.clone()),
        "A higher claim is promised, also with a gap"
    );
    for (lower, what) in [(first, "that was promised before"), (fixture.claim(4), "in the gap")] {
        assert_eq!(
            store.claim(lower).await,
            Ok(higher.clone()),
            "A lower claim {what} is answered with the promise"
        );
    }
    assert_promise(store, fixture, 0, Some(&higher), "A lower claim changes nothing").await;
    let other = fixture.claim_of("device", fixture.volume(1), 1);
    assert_eq!(
        store.claim(other.clone()).await,
        Ok(other),
        "Another volume is claimed for itself"
    );
    assert_promise(store, fixture, 0, Some(&higher), "and says nothing of this one").await;
}

async fn check_one_counter(store: &dyn PeerStore, fixture: &Fixture) {
    let (low, high) = by_epoch(fixture, 6);
    assert_eq!(
        store.claim(low.clone()).await,
        Ok(low.clone()),
        "One of two devices comes first"
    );
    assert_eq!(
        store.claim(high.clone()).await,
        Ok(high.clone()),
        "With the same counter the device decides"
    );
    assert_eq!(store.claim(low).await, Ok(high), "and there is one order of the two");
}

async fn check_wrong_claims(store: &dyn PeerStore, fixture: &Fixture) {
    let (_, held) = by_epoch(fixture, 6);
    let good = fixture.claim(9);
    let mut flipped = good.to_vec();
    flipped[300] ^= 1;
    let mut raised = good.to_vec();
    raised[284] += 1;
    for (wrong, what) in [
        (flipped.into(), "a claim with a wrong bit"),
        (raised.into(), "a claim that somebody raised"),
        (good.slice(1..), "a short claim"),
        ([&good[..], b"x"].concat().into(), "a long claim"),
        (Bytes::new(), "nothing"),
        (fixture.head(1), "a head"),
    ] {
        let answer = store.claim(wrong).await;
        assert!(
            matches!(answer, Err(StoreError::Refused { .. })),
            "Claim refuses {what}, and not: {answer:?}"
        );
    }
    // Whether it is kept for that account or refused, it is nothing to this one.
    let stranger = Fixture::new(fixture.number + 1_000);
    let _kept_or_refused = store.claim(stranger.claim_of("device", fixture.volume(0), 99)).await;
    assert_promise(store, fixture, 0, Some(&held), "Wrong claims change nothing").await;
    let of_stranger = store.promise(stranger.account(), fixture.volume(5)).await;
    assert!(
        matches!(of_stranger, Ok(None) | Err(StoreError::Refused { .. })),
        "Another account has no promise there: {of_stranger:?}"
    );
}

async fn assert_promise(store: &dyn PeerStore, fixture: &Fixture, volume: u64, expected: Option<&Bytes>, what: &str) {
    let read = store.promise(fixture.account(), fixture.volume(volume)).await;
    assert_eq!(read, Ok(expected.cloned()), "{what} (volume {volume})");
}

/// The claims of both devices with this counter, the lower epoch first.
fn by_epoch(fixture: &Fixture, counter: u64) -> (Bytes, Bytes) {
    raced(fixture, fixture.volume(0), counter)
}

fn raced(fixture: &Fixture, volume: VolumeId, counter: u64) -> (Bytes, Bytes) {
    let claims = ["device", "second device"].map(|device| fixture.claim_of(device, volume, counter));
    let epoch = |claim: &Bytes| Promise::decode(claim).expect("a fixture's claim is valid").epoch();
    let [one, other] = claims;
    if epoch(&one) < epoch(&other) {
        (one, other)
    } else {
        (other, one)
    }
}

/// Drives two futures at once, whatever the executor is.
async fn both<T>(mut one: BoxFuture<'_, T>, mut other: BoxFuture<'_, T>) -> (T, T) {
    let (mut first, mut second) = (None, None);
    poll_fn(|context| {
        if first.is_none()
            && let Poll::Ready(done) = one.as_mut().poll(context)
        {
            first = Some(done);
        }
        if second.is_none()
            && let Poll::Ready(done) = other.as_mut().poll(context)
        {
            second = Some(done);
        }
        match (first.take(), second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (one, other) => {
                (first, second) = (one, other);
                Poll::Pending
            }
        }
    })
    .await
}
