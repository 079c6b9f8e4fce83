//! The grid's roster in a bucket: members find each other by it, a recovered machine its friends, and it is looked after.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::fixture::noise;
use tests::grid::{Grid, Node, invite};
use tests::home::{Home, Said, path_str};
use tests::s3::{Kind, Server};

use crate::bucket::keys_with;
use crate::s3_client::client;

/// How long a node may take to look into the bucket.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn friends_who_moved_find_each_other_in_the_bucket() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let dir = tempfile::tempdir()?;
    let server = Server::start(Kind::Moto, dir.path())?;
    let mut grid = Grid::start(dir.path(), 1, 1)?;
    let (owner, place) = (grid.owner.clone(), server.location("grid"));
    let friend = grid.nodes.pop().context("there is one")?.kill_9();
    for home in [&owner, &friend] {
        home.ok(["peer", "add", "cloud", &place])?;
    }
    // Where it was known to be, somebody else lives now.
    let moved = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    friend.ok(["config", "set", "listen", &format!("/ip4/127.0.0.1/tcp/{moved}")])?;
    let _friend = Node::start(&friend)?;
    // The friend knows where the owner was, and that is nowhere: only the bucket can help.
    let started = Instant::now();
    let _owner = Node::start_as(&owner, "run")?;
    loop {
        let peers = owner.ok(["peer", "ls"])?;
        let is_there = |peer: &&serde_json::Value| peer["kind"] == "friend" && peer["online"] == true;
        if peers.lines.iter().any(|peer| is_there(&peer)) {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "{:?}", peers.lines);
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What a check says of the bucket's roster.
fn said_of_roster(said: &Said) -> Option<String> {
    let mut problems = said.lines.iter().filter(|line| line["peer"] == "cloud");
    let roster = problems.find(|line| line["error"].to_string().contains("roster"))?;
    Some(roster["error"].to_string())
}

/// Nobody ever looked whether the roster was still in the bucket: a note said that it had been left there.
#[tokio::test]
async fn a_roster_that_is_gone_damaged_or_old_in_a_bucket_is_named_and_put_again() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    std::fs::create_dir(&source)?;
    std::fs::write(source.join("file"), noise(100_000, 1))?;
    let server = Server::start(Kind::Moto, dir.path())?;
    let grid = Grid::start(dir.path(), 2, 1)?;
    let owner = &grid.owner;
    owner.ok(["peer", "add", "cloud", &server.location("")])?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let good = owner.ok(["check"])?;
    ensure!(
        (good.number("rosters_expected"), good.number("rosters_found")) == (1, 1),
        "{}",
        good.last()
    );
    let client = client(&server)?;
    let roster = keys_with(&client, "/roster")
        .await?
        .pop()
        .context("the roster lies there")?;
    let old = client.get(&roster, None, 1 << 20).await?.bytes;
    let objects = client.list(&Default::default()).await?.objects;
    // Beside the account's folder there is only that of the grid.
    let account = roster.split(|byte| *byte == b'/').next().context("below the account")?;
    let met = objects.iter().find(|object| !object.key.starts_with(account));
    let met = met.context("what members meet by lies there")?.key.clone();
    let put =
        async |key: &[u8], bytes: bytes::Bytes| client.put(key, bytes, &Default::default(), &Default::default()).await;

    let named_and_mended = |what: &str| -> Result<()> {
        let check = owner.exits(4, ["check"])?;
        let said = said_of_roster(&check).with_context(|| format!("{what}: {check:?}"))?;
        ensure!(said.contains(what) && check.number("rosters_found") == 0, "{said}");
        owner.exits(1, ["verify"])?;
        owner.ok(["repair"])?;
        let mended = owner.ok(["check"])?;
        ensure!(mended.number("rosters_found") == 1, "{}", mended.last());
        Ok(())
    };
    for key in [&roster, &met] {
        client.delete_one(key).await?;
        named_and_mended("missing")?;
        put(key, "no roster".into()).await?;
        named_and_mended("damaged")?;
    }
    // From before a friend joined: whoever recovers by it does not find him.
    let friend = Home::init(dir.path().join("late"), "late", 1)?;
    friend.ok(["config", "set", "listen", "/ip4/127.0.0.1/tcp/0"])?;
    let daemon = Node::start_as(owner, "run")?;
    friend.ok(["join", &invite(owner)?])?;
    drop(daemon);
    put(&roster, old).await?;
    named_and_mended("old")?;

    // The daemon looks by itself.
    client.delete_one(&roster).await?;
    let daemon = Node::start_as(owner, "run")?;
    daemon.event("roster", PATIENCE)?;
    ensure!(!keys_with(&client, "/roster").await?.is_empty());
    Ok(())
}
