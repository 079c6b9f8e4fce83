//! A bucket as a voter: promises in one object a volume, by conditional puts, at real servers and at some that are not quite one.

use anyhow::{Context, Result, ensure};
use proto::promise::{PROMISE_BYTES, Promise};
use proto::share_store::contract::Fixture;
use proto::share_store::contract::promises::{check_kept, check_promises, check_two_at_once};
use proto::share_store::{PromiseStore, StoreError};
use stores::bucket::{Bucket, Slot};
use tests::s3::{Kind, Server};
use tests::s3_proxy::{Faults, S3Proxy};

use crate::bucket::{bucket_at, keys_with};
use crate::s3_client::client_at;

/// Claims of each of two writers whose lines are bad.
const CLAIMS: usize = 25;

async fn made(location: &str, fixture: &Fixture) -> Result<Bucket> {
    let bucket = bucket_at(location, fixture, None)?;
    bucket.create(2).await?;
    Ok(bucket)
}

fn is_no_voter<T: std::fmt::Debug>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Refused { reason }) if reason.contains("it is no voter"))
}

/// That a slot does not vote, and says why.
async fn check_refuses(slot: &Slot, fixture: &Fixture) {
    let asked = slot.voter().await;
    assert!(is_no_voter(&asked), "{asked:?}");
    let claimed = slot.claim(fixture.claim(1)).await;
    assert!(is_no_voter(&claimed), "{claimed:?}");
}

#[tokio::test]
async fn a_bucket_that_honours_conditions_keeps_promises_and_any_other_says_that_it_does_not() -> Result<()> {
    tests::needs!(tests::s3::missing());
    for kind in Kind::all() {
        let (dir, fixture) = (tempfile::tempdir()?, Fixture::new(1));
        let server = Server::start(kind, dir.path())?;
        let bucket = made(&server.location(""), &fixture).await?;
        if kind != Kind::Moto && bucket.slot(0).voter().await.is_err() {
            check_refuses(&bucket.slot(0), &fixture).await;
            eprintln!("{kind:?} is no voter");
            continue;
        }
        check_promises(&bucket.slot(0), &fixture).await;
        // All slots are one voter, for every machine and after every restart.
        let again = bucket_at(&server.location(""), &fixture, None)?;
        for slot in [bucket.slot(1), again.slot(0), again.slot(1)] {
            check_kept(&slot, &fixture).await;
            assert_eq!(slot.voter().await, bucket.slot(0).voter().await, "{kind:?}");
        }
        let promises = keys_with(&server.client()?, "/promises/").await?;
        assert_eq!(promises.len(), 5, "one object a volume");
        assert_eq!(keys_with(&server.client()?, "/voter").await?.len(), 1);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_that_claim_at_once_have_one_order() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let (dir, fixture) = (tempfile::tempdir()?, Fixture::new(1));
    let server = Server::start(Kind::Moto, dir.path())?;
    for prefix in ["a/", "b/", "c/"] {
        let location = server.location(prefix);
        let one = made(&location, &fixture).await?;
        let (one, other) = (one.slot(0), bucket_at(&location, &fixture, None)?.slot(1));
        let asked = futures::join!(one.voter(), other.voter());
        assert_eq!(asked.0, asked.1, "whoever asked first");
        check_two_at_once(&one, &other, &fixture).await;
    }
    Ok(())
}

/// Claims again and again until it is answered, as writers do; every answer is at least the one before.
async fn claim_often(slot: Slot, fixture: &Fixture, device: &str) -> Result<(usize, usize)> {
    let (mut highest, mut won, mut unknown) = (None, 0, 0);
    for _ in 0..CLAIMS {
        let read = slot.promise(fixture.account(), fixture.volume(0)).await;
        let read = match read {
            Ok(read) => read,
            Err(_) => continue,
        };
        let read = read.map(|held| Promise::decode(&held)).transpose()?;
        let found = read.as_ref().map(Promise::epoch);
        ensure!(found >= highest, "{found:?} is there, and {highest:?} was answered");
        let counter = read.map_or(0, |held| held.counter) + 1;
        let claim = fixture.claim_of(device, fixture.volume(0), counter);
        let answer = loop {
            match slot.claim(claim.clone()).await {
                Ok(answer) => break answer,
                Err(StoreError::Unreachable { .. } | StoreError::Busy { .. }) => unknown += 1,
                Err(error) => return Err(error.into()),
            }
        };
        won += usize::from(answer == claim);
        let epoch = Some(Promise::decode(&answer)?.epoch());
        ensure!(epoch >= highest, "{epoch:?} after {highest:?}");
        highest = epoch;
    }
    Ok((won, unknown))
}

#[tokio::test(flavor = "multi_thread")]
async fn over_lines_that_lose_requests_and_answers_no_promise_is_ever_lowered() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let (dir, fixture) = (tempfile::tempdir()?, Fixture::new(1));
    let server = Server::start(Kind::Moto, dir.path())?;
    made(&server.location(""), &fixture).await?;
    let proxy = S3Proxy::start(&server.at)?;
    let slots = [0, 1].map(|number| {
        let bucket = bucket_at(&tests::s3::location("", &proxy.at), &fixture, None);
        bucket.map(|bucket| bucket.slot(number))
    });
    let [one, other] = slots;
    let (one, other) = (one?, other?);
    assert_eq!(one.voter().await, other.voter().await);
    proxy.set(Faults {
        per_mille: 150,
        ..Faults::default()
    });
    let (first, second) = futures::join!(
        claim_often(one, &fixture, "device"),
        claim_often(other, &fixture, "second device")
    );
    let (first, second) = (first?, second?);
    println!(
        "won and unknown: {first:?}, {second:?}; {} requests were hurt",
        proxy.faulty()
    );
    ensure!(first.0 > 0 && second.0 > 0 && proxy.faulty() > 0);
    Ok(())
}

/// A put whose answer is lost is made again by the client, and is refused: what is there by then is its own.
#[tokio::test]
async fn conflicts_and_lost_answers_are_no_refusals() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let (dir, fixture) = (tempfile::tempdir()?, Fixture::new(1));
    let server = Server::start(Kind::Moto, dir.path())?;
    let proxy = S3Proxy::start(&server.at)?;
    let slot = made(&tests::s3::location("", &proxy.at), &fixture).await?.slot(0);
    slot.claim(fixture.claim(1)).await?;
    proxy.set(Faults {
        conflicts: 2,
        ..Faults::default()
    });
    assert_eq!(
        slot.claim(fixture.claim(2)).await,
        Ok(fixture.claim(2)),
        "asked again by itself"
    );
    proxy.set(Faults {
        conflicts: u64::MAX,
        ..Faults::default()
    });
    let unknown = slot.claim(fixture.claim(3)).await;
    assert!(matches!(unknown, Err(StoreError::Busy { .. })), "{unknown:?}");
    proxy.set(Faults::default());
    let read = slot.promise(fixture.account(), fixture.volume(0)).await;
    assert_eq!(read, Ok(Some(fixture.claim(2))));
    assert_eq!(slot.claim(fixture.claim(3)).await, Ok(fixture.claim(3)));
    Ok(())
}

#[tokio::test]
async fn an_endpoint_that_ignores_a_condition_is_no_voter() -> Result<()> {
    tests::needs!(tests::s3::missing());
    for header in ["if-none-match", "if-match"] {
        let (dir, fixture) = (tempfile::tempdir()?, Fixture::new(1));
        let server = Server::start(Kind::Moto, dir.path())?;
        let proxy = S3Proxy::start(&server.at)?;
        proxy.set(Faults {
            without: Some(header),
            ..Faults::default()
        });
        let location = tests::s3::location("", &proxy.at);
        let bucket = made(&location, &fixture).await?;
        check_refuses(&bucket.slot(0), &fixture).await;
        check_refuses(&bucket_at(&location, &fixture, None)?.slot(1), &fixture).await;
        let promises = keys_with(&server.client()?, "/promises/").await?;
        assert!(promises.is_empty(), "{header}: nothing was promised");
    }
    Ok(())
}

#[tokio::test]
async fn a_bucket_with_locks_votes_and_what_it_promised_is_locked() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let (dir, fixture) = (tempfile::tempdir()?, Fixture::new(1));
    let server = Server::start(Kind::Moto, dir.path())?;
    let location = server.locked_location("")?;
    let bucket = made(&location, &fixture).await?;
    check_promises(&bucket.slot(0), &fixture).await;
    let client = client_at(&location)?;
    let mut keys = keys_with(&client, "/promises/").await?;
    keys.extend(keys_with(&client, "/voter").await?);
    assert_eq!(keys.len(), 6);
    let mut first = Vec::new();
    for key in &keys {
        first.push(client.head(key).await?.headers.lock.context("it is locked")?);
    }
    // Somebody with this machine's credentials hides them; they come back as they were last.
    ensure!(client.delete(&keys).await?.is_empty());
    let again = bucket_at(&location, &fixture, None)?;
    assert_eq!(again.reveal().await, Ok(keys.len() as u64));
    check_kept(&again.slot(0), &fixture).await;
    assert_eq!(again.slot(0).voter().await, bucket.slot(0).voter().await);

    // A month later they are locked for longer.
    let proxy = S3Proxy::start(&server.at)?;
    proxy.set(Faults {
        later_secs: 31 * 86_400,
        ..Faults::default()
    });
    let later = bucket_at(&location.replace(&server.at, &proxy.at), &fixture, None)?;
    ensure!(later.renew_locks(2).await? > keys.len() as u64);
    for (key, first) in keys.iter().zip(first) {
        let lock = client.head(key).await?.headers.lock.context("it is locked")?;
        ensure!(lock.until > first.until, "{} is locked for longer", s3::shown(key));
    }
    Ok(())
}

#[tokio::test]
async fn a_damaged_promise_is_an_error_and_an_emptied_bucket_has_not_promised_nothing() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let (dir, fixture) = (tempfile::tempdir()?, Fixture::new(1));
    let server = Server::start(Kind::Moto, dir.path())?;
    let bucket = made(&server.location(""), &fixture).await?;
    let (slot, client) = (bucket.slot(0), server.client()?);
    slot.claim(fixture.claim(5)).await?;
    let key = keys_with(&client, "/promises/").await?.remove(0);
    let good = client.get(&key, None, PROMISE_BYTES as u64).await?.bytes;
    let mut flipped = good.to_vec();
    flipped[290] ^= 1;
    for damaged in [
        flipped.into(),
        good.slice(1..),
        [&good[..], b"x"].concat().into(),
        "".into(),
        fixture.claim_of("device", fixture.volume(1), 9),
        Fixture::new(2).claim_of("device", fixture.volume(0), 9),
    ] {
        client
            .put(&key, damaged, &Default::default(), &Default::default())
            .await?;
        let read = slot.promise(fixture.account(), fixture.volume(0)).await;
        let claimed = slot.claim(fixture.claim(9)).await.map(Some);
        for answer in [read, claimed] {
            assert!(matches!(answer, Err(StoreError::Corrupt { .. })), "{answer:?}");
        }
    }
    client.put(&key, good, &Default::default(), &Default::default()).await?;
    assert_eq!(slot.claim(fixture.claim(6)).await, Ok(fixture.claim(6)));

    ensure!(client.delete(&keys_with(&client, "").await?).await?.is_empty());
    let read = slot.promise(fixture.account(), fixture.volume(0)).await;
    let claimed = slot.claim(fixture.claim(1)).await.map(Some);
    for answer in [read, claimed] {
        let said = matches!(&answer, Err(StoreError::Unreachable { reason }) if reason.contains("emptied"));
        assert!(said, "{answer:?}");
    }
    assert!(keys_with(&client, "").await?.is_empty(), "and is not filled anew");
    Ok(())
}

#[tokio::test]
async fn claims_of_other_accounts_are_refused() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let (dir, fixture, stranger) = (tempfile::tempdir()?, Fixture::new(1), Fixture::new(2));
    let server = Server::start(Kind::Moto, dir.path())?;
    let slot = made(&server.location(""), &fixture).await?.slot(0);
    let claimed = slot.claim(stranger.claim(1)).await;
    assert!(matches!(claimed, Err(StoreError::Refused { .. })), "{claimed:?}");
    let read = slot.promise(stranger.account(), stranger.volume(0)).await;
    assert!(matches!(read, Err(StoreError::Refused { .. })), "{read:?}");
    assert!(keys_with(&server.client()?, "/promises/").await?.is_empty());
    Ok(())
}
