//! A bucket as a peer: it keeps shares like any store, several of each pack, and leads back to the grid.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use proto::id::DeviceId;
use proto::keep_days::KeepDays;
use proto::keys::{DeviceCert, power};
use proto::share_store::contract::Fixture;
use proto::share_store::{HeadStore, ShareStore, StoreError, contract};
use s3::Client;
use stores::bucket::{Bucket, Signer, Terms};
use tests::compare::assert_same;
use tests::fixture::noise;
use tests::grid::{Grid, Node};
use tests::home::{Home, path_str};
use tests::s3::{Kind, Server};
use tests::s3_proxy::{Faults, S3Proxy};
use upload_queue::bandwidth::Bandwidth;

use crate::healing::{HASTY, small_source, wait_until};
use crate::liars::audits;
use crate::main_job::recover_and_restore;
use crate::s3_client::{client, client_at};

fn bucket(server: &Server, fixture: &Fixture, quota: Option<u64>) -> Result<Bucket> {
    bucket_at(&server.location(""), fixture, quota)
}

pub fn bucket_at(location: &str, fixture: &Fixture, quota: Option<u64>) -> Result<Bucket> {
    let device = fixture.words().clone();
    let id = DeviceId(device.verifying_key().to_bytes());
    let cert = DeviceCert::sign(fixture.words(), id, power::ALL, "device", 0);
    let terms = Terms {
        signer: Signer { device, cert },
        storage_class: None,
        quota,
        bandwidth: Bandwidth::default(),
        slots: 1,
    };
    Ok(Bucket::new(client_at(location)?, fixture.keys().clone(), terms))
}

#[tokio::test]
async fn a_bucket_keeps_the_contract_of_every_store() -> Result<()> {
    tests::needs!(tests::s3::missing());
    for kind in Kind::all() {
        let (dir, fixture) = (tempfile::tempdir()?, Fixture::new(1));
        let server = Server::start(kind, dir.path())?;
        let bucket = bucket(&server, &fixture, Some(1 << 30))?;
        bucket.create(2).await?;
        contract::check_share_store(&bucket.slot(0), &fixture).await;
        assert_eq!(
            bucket.slot(1).list(None, 9).await,
            Ok(Vec::new()),
            "{kind:?}: slots are stores of their own"
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_was_given_up_waits_in_the_trash_and_comes_back() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let (dir, fixture) = (tempfile::tempdir()?, Fixture::new(1));
    let server = Server::start(Kind::Moto, dir.path())?;
    let bucket = bucket(&server, &fixture, None)?;
    bucket.create(1).await?;
    let slot = bucket.slot(0);
    let mut ids = Vec::new();
    for number in 0..4 {
        let (id, share) = fixture.share(number);
        slot.put(id, share).await?;
        ids.push(id);
    }
    ids.sort();
    assert_eq!(slot.discard(ids[..3].to_vec()).await, Ok(3));
    assert_eq!(
        slot.discard(ids[..3].to_vec()).await,
        Ok(0),
        "a repeated discard moves nothing"
    );
    assert_eq!(slot.list(None, 9).await, Ok(ids[3..].to_vec()));
    // Another process of the same account finds the same.
    let other = self::bucket(&server, &fixture, None)?.slot(0);
    assert_eq!(other.list_trash(None, 9).await, Ok(ids[..3].to_vec()));
    assert_eq!(other.list_trash(Some(ids[0]), 1).await, Ok(vec![ids[1]]));
    assert_eq!(other.recall(vec![ids[1]]).await, Ok(vec![ids[1]]));
    assert_eq!(slot.list(None, 9).await, Ok(vec![ids[1], ids[3]]));
    assert_eq!(slot.expire().await?.shares, 0, "nothing is old enough");
    assert!(
        slot.get(ids[0], 0..16).await.is_ok(),
        "what is in the trash can be read"
    );
    // Put again, it is kept again, and costs nothing.
    let number = (0..4)
        .find(|number| fixture.share(*number).0 == ids[0])
        .context("it is one of them")?;
    assert_eq!(slot.put(ids[0], fixture.share(number).1).await?.bytes_sent, 0);
    assert_eq!(other.list(None, 9).await, Ok(vec![ids[0], ids[1], ids[3]]));
    Ok(())
}

#[tokio::test]
async fn a_damaged_object_is_replaced_and_an_emptied_bucket_is_missed() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let (dir, fixture) = (tempfile::tempdir()?, Fixture::new(1));
    let server = Server::start(Kind::Moto, dir.path())?;
    let bucket = bucket(&server, &fixture, None)?;
    bucket.create(1).await?;
    let (slot, client) = (bucket.slot(0), client(&server)?);
    let (id, share) = fixture.share(0);
    slot.put(id, share.clone()).await?;
    slot.put_head(fixture.head(1)).await?;
    slot.put_head(fixture.head(2)).await?;
    let old = slot.old_heads(fixture.account(), None).await?;
    assert_eq!((old.heads[0].encoded.clone(), old.next), (fixture.head(1), None));

    let keys: Vec<Vec<u8>> = client
        .list(&Default::default())
        .await?
        .objects
        .into_iter()
        .map(|object| object.key)
        .collect();
    let object = keys
        .iter()
        .find(|key| key.ends_with(id.to_string().as_bytes()))
        .context("it lies there")?;
    let mut bytes = client.get(object, None, 8 << 20).await?.bytes.to_vec();
    bytes[1000] ^= 1;
    client
        .put(object, bytes.into(), &Default::default(), &Default::default())
        .await?;
    assert!(slot.put(id, share.clone()).await?.bytes_sent > 0);
    assert_eq!(slot.get(id, 1000..1001).await.as_deref(), Ok(&share.data[1000..1001]));

    ensure!(client.delete(&keys).await?.is_empty());
    for answer in [
        slot.get(id, 0..1).await.map(drop),
        slot.list(None, 9).await.map(drop),
        bucket.slot(0).space().await.map(drop),
    ] {
        assert!(
            answer.is_ok() || matches!(&answer, Err(StoreError::Unreachable { reason }) if reason.contains("emptied")),
            "{answer:?}"
        );
        assert_ne!(answer, Err(StoreError::NotFound));
    }
    Ok(())
}

/// Keys of all objects whose keys contain this.
pub async fn keys_with(client: &Client, part: &str) -> Result<Vec<Vec<u8>>> {
    let objects = client.list(&Default::default()).await?.objects.into_iter();
    let keys = objects.map(|object| object.key);
    Ok(keys.filter(|key| String::from_utf8_lossy(key).contains(part)).collect())
}

#[tokio::test]
async fn a_month_later_the_trash_is_gone_and_nothing_else() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let (dir, fixture) = (tempfile::tempdir()?, Fixture::new(1));
    let server = Server::start(Kind::Moto, dir.path())?;
    let proxy = S3Proxy::start(&server.at)?;
    let bucket = bucket_at(&tests::s3::location("", &proxy.at), &fixture, None)?;
    bucket.create(1).await?;
    let slot = bucket.slot(0);
    let mut ids = Vec::new();
    for number in 0..3 {
        let (id, share) = fixture.share(number);
        slot.put(id, share).await?;
        ids.push(id);
    }
    ids.sort();
    slot.put_head(fixture.head(1)).await?;
    slot.put_head(fixture.head(2)).await?;
    // A note that nobody can read takes up its number and does no harm.
    let client = client(&server)?;
    slot.discard(vec![ids[0]]).await?;
    let notes = keys_with(&client, "/t/").await?;
    let damaged = String::from_utf8(notes[0].clone())?.replace("/t/00000000000000000001", "/t/00000000000000000002");
    client
        .put(
            damaged.as_bytes(),
            "damaged".into(),
            &Default::default(),
            &Default::default(),
        )
        .await?;
    assert_eq!(slot.discard(vec![ids[1], ids[2]]).await, Ok(2));
    assert_eq!(slot.recall(vec![ids[2]]).await, Ok(vec![ids[2]]));
    assert_eq!(keys_with(&client, "/t/").await?.len(), 4);

    const DAY_SECS: i64 = 86_400;
    for (days, shares, notes, old_heads) in [(30, 3, 4, 1), (33, 1, 1, 0), (66, 1, 1, 0)] {
        proxy.set(Faults {
            later_secs: days * DAY_SECS,
            ..Faults::default()
        });
        let expired = bucket.slot(0).expire().await?;
        assert_eq!(
            keys_with(&client, "/s/").await?.len(),
            shares,
            "day {days}: {expired:?}"
        );
        assert_eq!(keys_with(&client, "/t/").await?.len(), notes, "day {days}");
        assert_eq!(keys_with(&client, "/o/").await?.len(), old_heads, "day {days}");
    }
    assert_eq!(bucket.slot(0).list(None, 9).await, Ok(vec![ids[2]]));
    assert_eq!(slot.heads(fixture.account()).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn what_is_locked_is_found_again_when_it_was_deleted() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let (dir, fixture) = (tempfile::tempdir()?, Fixture::new(1));
    let server = Server::start(Kind::Moto, dir.path())?;
    let location = server.locked_location("")?;
    let bucket = bucket_at(&location, &fixture, None)?;
    bucket.create(1).await?;
    let slot = bucket.slot(0);
    let (id, share) = fixture.share(0);
    slot.put(id, share.clone()).await?;
    slot.put_head(fixture.head(1)).await?;
    let client = client_at(&location)?;
    let keys = keys_with(&client, "").await?;
    let mut first = Vec::new();
    for key in &keys {
        let lock = client.head(key).await?.headers.lock.context("all is locked")?;
        let days = lock.until.duration_since(jiff::Timestamp::now()).as_hours() / 24;
        assert!((60..=61).contains(&days), "{} for {days} days", s3::shown(key));
        first.push((key, lock));
    }
    // Somebody with this machine's credentials: nothing is destroyed, and all seems gone.
    ensure!(client.delete(&keys).await?.is_empty());
    let emptied = bucket_at(&location, &fixture, None)?;
    assert_eq!(emptied.shares().await, Ok(None));
    assert_eq!(emptied.reveal().await, Ok(keys.len() as u64));
    assert_eq!(emptied.shares().await, Ok(Some(1)));
    assert_eq!(emptied.slot(0).list(None, 9).await, Ok(vec![id]));
    assert_eq!(emptied.slot(0).get(id, 0..9).await.as_deref(), Ok(&share.data[..9]));
    assert_eq!(
        emptied.slot(0).heads(fixture.account()).await,
        Ok(vec![fixture.head(1)])
    );

    // A month later all is locked for longer, once.
    let proxy = S3Proxy::start(&server.at)?;
    let later = bucket_at(&location.replace(&server.at, &proxy.at), &fixture, None)?;
    proxy.set(Faults {
        later_secs: 31 * 86_400,
        ..Faults::default()
    });
    assert_eq!(later.renew_locks(1).await, Ok(3), "marker, head and share");
    assert_eq!(later.renew_locks(1).await, Ok(0));
    for (key, before) in first {
        let lock = client.head(key).await?.headers.lock.context("still locked")?;
        assert!(
            lock.until.duration_since(before.until).as_hours() / 24 >= 30,
            "{}",
            s3::shown(key)
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_was_given_up_stays_as_long_as_its_manifest_says() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let (dir, fixture) = (tempfile::tempdir()?, Fixture::new(1));
    let server = Server::start(Kind::Moto, dir.path())?;
    let proxy = S3Proxy::start(&server.at)?;
    let bucket = bucket_at(&tests::s3::location("", &proxy.at), &fixture, None)?;
    bucket.create(1).await?;
    let passed = std::cell::Cell::new(0);
    let pass_days = async |days: u32| {
        passed.set(passed.get() + i64::from(days));
        // And an hour: the days of a bucket begin with what is given up.
        proxy.set(Faults {
            later_secs: passed.get() * 86_400 + 3_600,
            ..Faults::default()
        });
        let expired = bucket.slot(0).expire().await;
        expired.expect("The trash is looked through");
    };
    contract::check_keep_days(&bucket.slot(0), &fixture, pass_days).await;
    Ok(())
}

#[tokio::test]
async fn shares_that_stay_for_fewer_days_are_found_by_everybody_and_never_locked() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let (dir, fixture) = (tempfile::tempdir()?, Fixture::new(1));
    let server = Server::start(Kind::Moto, dir.path())?;
    let location = server.locked_location("")?;
    let bucket = bucket_at(&location, &fixture, None)?;
    bucket.create(1).await?;
    let (full, full_share) = fixture.share(0);
    let (short, short_share) = fixture.kept_for(1, KeepDays::new(2).context("two days")?);
    bucket.slot(0).put(full, full_share.clone()).await?;
    bucket.slot(0).put(short, short_share.clone()).await?;
    let again = bucket.slot(0).put(short, short_share.clone()).await?;
    assert_eq!(again.bytes_sent, 0);
    let (_, shorter) = fixture.kept_for(1, KeepDays::new(0).context("no days")?);
    assert_eq!(
        bucket.slot(0).put(short, shorter).await?.bytes_sent,
        0,
        "what came first stays"
    );
    let mut both = vec![full, short];
    both.sort();
    assert_eq!(bucket.slot(0).list(None, 9).await, Ok(both.clone()));
    assert_eq!(bucket.slot(0).list(None, 1).await, Ok(both[..1].to_vec()));
    assert_eq!(bucket.slot(0).list(Some(both[0]), 9).await, Ok(both[1..].to_vec()));
    let end = short_share.stored_bytes() as u32;
    let tail = end - short_share.tail.len() as u32;
    assert_eq!(
        bucket.slot(0).get(short, tail..end).await.as_deref(),
        Ok(&short_share.tail[..])
    );
    assert_eq!(
        bucket.slot(0).get(short, tail..end + 1).await,
        Err(StoreError::OutOfRange)
    );
    assert_eq!(bucket.slot(0).discard(both.clone()).await, Ok(2));
    assert_eq!(bucket.slot(0).recall(both.clone()).await, Ok(both.clone()));
    assert_eq!(bucket.slot(0).list(None, 9).await, Ok(both));

    let client = client_at(&location)?;
    let key = keys_with(&client, "/0/k/").await?.pop().context("it lies there")?;
    assert!(key.ends_with(short.to_string().as_bytes()));
    assert_eq!(client.head(&key).await?.headers.lock, None);
    let proxy = S3Proxy::start(&server.at)?;
    let later = bucket_at(&location.replace(&server.at, &proxy.at), &fixture, None)?;
    proxy.set(Faults {
        later_secs: 31 * 86_400,
        ..Faults::default()
    });
    assert_eq!(later.renew_locks(1).await, Ok(2), "marker and one share");
    assert_eq!(client.head(&key).await?.headers.lock, None);
    Ok(())
}

fn make_source(source: &Path) -> Result<()> {
    for (folder, count, size) in [("small", 200, 3_000), ("photos", 12, 1_500_000)] {
        let folder = source.join(folder);
        std::fs::create_dir_all(&folder)?;
        for number in 0..count {
            std::fs::write(folder.join(format!("{number}")), noise(size, number as u64))?;
        }
    }
    Ok(())
}

/// Requests of a kind since line `from` of moto's log: `HEAD `, or `list-type=2` of listings.
fn asked(server: &Server, from: usize, what: &str) -> Result<usize> {
    let log = server.log()?;
    Ok(log
        .lines()
        .skip(from)
        .filter(|line| line.contains(" HTTP/1.1\"") && line.contains(what))
        .count())
}

#[test]
fn both_friends_or_the_bucket_may_be_lost() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    make_source(&source)?;
    let server = Server::start(Kind::Moto, dir.path())?;
    let mut grid = Grid::start(dir.path(), 2, 1)?;
    let owner = grid.owner.clone();
    let place = server.location("backups");
    owner.ok([
        "peer",
        "add",
        "cloud",
        &place,
        "--shares",
        "2",
        "--storage-class",
        "STANDARD_IA",
    ])?;
    owner.ok(["config", "set", "peers.cloud.price", "0.5"])?;
    let again = owner.ok(["peer", "add", "cloud", &place, "--shares", "2"])?;
    assert_eq!(again.text("action"), "unchanged");
    let fewer = owner.exits(2, ["peer", "add", "smaller", &place, "--shares", "1"])?;
    assert!(fewer.stderr.contains("takes 2 shares"), "{}", fewer.stderr);
    let from = server.log()?.lines().count();
    let backup = owner.ok(["run", "--once", path_str(&source)?])?;
    assert_eq!(backup.last()["complete"], true, "{}", backup.last());
    eprintln!("backup: {}; requests {}", backup.last(), asked(&server, from, "")?);
    let listings = asked(&server, from, "list-type")?;
    assert!(
        listings <= 4 && asked(&server, from, "HEAD ")? == 0,
        "nobody has a head of a new machine, and so the bucket's two slots were asked: {listings}"
    );
    let from_nothing = server.log()?.lines().count();
    owner.ok(["run", "--once", path_str(&source)?])?;
    assert_eq!(
        (
            asked(&server, from_nothing, "HEAD ")?,
            asked(&server, from_nothing, "list-type")?
        ),
        (0, 0),
        "a backup asks nothing that the catalog or a friend knows"
    );
    eprintln!("nothing changed: requests {}", asked(&server, from_nothing, "")?);
    let status = owner.ok(["status"])?;
    assert_eq!(status.last()["safe"], true, "{}", status.last());
    assert_eq!(status.number("tolerates"), 1, "{}", status.last());
    assert_eq!(status.number("peers_total"), 3, "{}", status.last());
    assert!(
        status.last()["costs"][0]["dollars_a_month"].as_f64() > Some(0.0),
        "{}",
        status.last()
    );
    owner.ok(["check", "--read-data"])?;

    // The owner and both friends are gone: the bucket and 24 words are left.
    let friends: Vec<Home> = grid.nodes.drain(..).map(Node::kill_9).collect();
    let words = owner.words();
    std::fs::remove_dir_all(&owner.dir)?;
    let target = dir.path().join("from-bucket");
    recover_and_restore(&dir.path().join("blank1"), &words, &place, &target)?;
    assert_same(&source, &target.join(source.strip_prefix("/")?))?;
    let blank = Home::new(dir.path().join("blank1"));
    let peers = blank.ok(["peer", "ls"])?;
    let mut kinds: Vec<_> = peers.lines.iter().filter_map(|peer| peer["kind"].as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        ["friend", "friend", "s3"],
        "the bucket leads to the friends: {:?}",
        peers.lines
    );

    let settings = blank.ok(["config", "get", "peers"])?;
    let cloud = &settings.last()["value"]["cloud"];
    assert_eq!(
        (&cloud["price"], &cloud["storage_class"], &cloud["shares"]),
        (&0.5.into(), &"STANDARD_IA".into(), &2.into()),
        "it has one name, and what was said of it: {settings:?}"
    );
    assert_eq!(
        settings.last()["value"].as_object().map(serde_json::Map::len),
        Some(1),
        "{settings:?}"
    );

    // The bucket is gone: the friends are left.
    drop(server);
    let friends: Vec<Node> = friends.iter().map(Node::start).collect::<Result<_>>()?;
    let target = dir.path().join("from-friends");
    recover_and_restore(&dir.path().join("blank2"), &words, &friends[0].address()?, &target)?;
    assert_same(&source, &target.join(source.strip_prefix("/")?))
}

#[tokio::test]
async fn a_bucket_that_loses_and_corrupts_shares_is_found_by_audits_and_made_up_for() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    small_source(&source)?;
    let server = Server::start(Kind::Moto, dir.path())?;
    let settings: Vec<_> = HASTY
        .iter()
        .filter(|(key, _)| *key != "repair_interval")
        .copied()
        .collect();
    let grid = Grid::start_with(dir.path(), 2, 1, &settings)?;
    grid.owner.ok(["peer", "add", "cloud", &server.location("")])?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    // What happens after its first repair only audits find.
    let _daemon = Node::start_as(&grid.owner, "run")?;
    wait_until("a passed audit of the bucket", || {
        audits(&grid.owner, "cloud").map(|(passed, _)| passed > 0)
    })?;
    let client = client(&server)?;
    let shares = keys_with(&client, "/0/s/").await?;
    let (dropped, corrupted) = (&shares[0], &shares[1]);
    client.delete_one(dropped).await?;
    let right = client.get(corrupted, None, 16 << 20).await?.bytes;
    let mut wrong = right.to_vec();
    wrong.iter_mut().step_by(4096).for_each(|byte| *byte ^= 1);
    client
        .put(corrupted, wrong.into(), &Default::default(), &Default::default())
        .await?;
    let took = wait_until("a failed audit of the bucket", || {
        let (passed, done) = audits(&grid.owner, "cloud")?;
        Ok(passed < done)
    })?;
    eprintln!(
        "the bucket was found out after {:.1} s, audited every 3 s",
        took.as_secs_f64()
    );
    wait_until("all is repaired", || Ok(grid.owner.say(["repair"])?.code == Some(0)))?;
    grid.owner.ok(["check", "--read-data"])?;
    assert_eq!(client.get(corrupted, None, 16 << 20).await?.bytes, right);
    client.head(dropped).await?;
    Ok(())
}

/// The second `check` had struck the missing share off, and found all that was recorded.
#[tokio::test]
async fn an_object_that_a_bucket_lost_is_missed_at_every_check() -> Result<()> {
    tests::needs!(tests::s3::missing());
    for kind in Kind::all() {
        let dir = tempfile::tempdir()?;
        let source = dir.path().join("source");
        std::fs::create_dir_all(&source)?;
        std::fs::write(source.join("file"), noise(3 << 20, 3))?;
        let server = Server::start(kind, dir.path())?;
        let owner = Home::init(dir.path().join("owner"), "owner", 1)?;
        for number in 1..=2 {
            let folder = dir.path().join(format!("disk{number}"));
            std::fs::create_dir_all(&folder)?;
            let place = format!("dir:{}", path_str(&folder)?);
            owner.ok(["peer", "add", &format!("disk{number}"), &place])?;
        }
        owner.ok(["peer", "add", "cloud", &server.location("backups")])?;
        owner.ok(["run", "--once", path_str(&source)?])?;
        let all = owner.ok(["check"])?;
        let client = client(&server)?;
        let lost = keys_with(&client, "/0/s/").await?.pop().context("a share")?;
        client.delete_one(&lost).await?;
        for _ in 0..2 {
            let check = owner.exits(4, ["check"])?;
            let counts = (check.number("shares_found") + 1, check.number("shares_expected"));
            let due = all.number("shares_expected");
            assert_eq!(counts, (due, due), "{kind:?}: {}", check.last());
            assert_eq!(check.last()["ok"], false, "{kind:?}: {}", check.last());
        }
        let repair = owner.ok(["repair"])?;
        assert_eq!(repair.number("shares_rebuilt"), 1, "{kind:?}: {}", repair.last());
        owner.ok(["check", "--read-data"])?;
        client.head(&lost).await?;
    }
    Ok(())
}
