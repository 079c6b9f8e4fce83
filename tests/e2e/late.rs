//! Restores that are slow or cut off: friends at the end of bad lines, ten kills.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::compare::assert_same;
use tests::grid::{Grid, Node, invite};
use tests::home::{Home, Said, path_str};
use tests::proxy::Proxy;

use crate::healing::wait_until;
use crate::main_job::make_source;

const LATE: Duration = Duration::from_secs(5);
/// What finding out that two friends are late may take: the first wait for them.
const FINDING_OUT: Duration = Duration::from_secs(4);

/// Five friends; the last two are reached through proxies.
fn grid_with_bad_lines(dir: &Path) -> Result<(Grid, Vec<Proxy>)> {
    let mut grid = Grid::start(dir, 3, 2)?;
    let mut proxies = Vec::new();
    for number in 4..=5 {
        let home = Home::init(dir.join(format!("node{number}")), &format!("node{number}"), 2)?;
        let proxy = Proxy::start()?;
        home.ok(["config", "set", "listen", "/ip4/127.0.0.1/tcp/0"])?;
        home.ok([
            "config",
            "set",
            "announce",
            &format!("/ip4/127.0.0.1/tcp/{}", proxy.at.port()),
        ])?;
        home.ok(["join", &invite(&grid.nodes[0].home)?])?;
        let node = Node::start(&home)?;
        let listening = node.ready["addresses"][0].as_str().context("a node listens")?;
        let port = listening.split('/').nth(4).context("a port")?.parse()?;
        proxy.forward_to(([127, 0, 0, 1], port).into());
        grid.nodes.push(node);
        proxies.push(proxy);
    }
    Ok((grid, proxies))
}

#[test]
fn two_friends_whose_answers_come_late_hardly_slow_a_restore_down() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    make_source(&source)?;
    let (grid, proxies) = grid_with_bad_lines(dir.path())?;
    // Nobody shall dial the owner: such a connection would not go through a proxy.
    grid.owner.ok(["config", "set", "announce", "/ip4/127.0.0.1/tcp/9"])?;
    let daemon = Node::start_as(&grid.owner, "run")?;
    wait_until("all friends are connected", || {
        let peers = grid.owner.ok(["peer", "ls"])?.lines;
        Ok(peers.len() == 5 && peers.iter().all(|peer| peer["reach"] == "direct"))
    })?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    let restore = |name: &str| -> Result<(Duration, Said)> {
        let target = dir.path().join(name);
        let start = Instant::now();
        let said = grid.owner.ok(["restore", "latest", "--target", path_str(&target)?])?;
        let took = start.elapsed();
        assert_same(&source, &target.join(source.strip_prefix("/")?))?;
        std::fs::remove_dir_all(&target)?;
        Ok((took, said))
    };
    let behind_proxies = |said: &Said| {
        let used = said.last()["peers_used"].to_string();
        used.contains("node4") || used.contains("node5")
    };
    let (fast, said_fast) = restore("fast")?;
    ensure!(behind_proxies(&said_fast), "{}", said_fast.last());
    proxies.iter().for_each(|proxy| proxy.answer_late(LATE));
    let (late, said_late) = restore("late")?;
    eprintln!(
        "restore: {:.2} s, with two of five friends {} s late {:.2} s; fetched {} and {} bytes",
        fast.as_secs_f64(),
        LATE.as_secs(),
        late.as_secs_f64(),
        said_fast.number("bytes_fetched"),
        said_late.number("bytes_fetched")
    );
    ensure!(late < 2 * fast + FINDING_OUT, "{late:?} instead of {fast:?}");
    drop(daemon);
    Ok(())
}

#[test]
fn a_restore_killed_ten_times_ends_identical_and_fetches_little_twice() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    make_source(&source)?;
    let grid = Grid::start(dir.path(), 5, 2)?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    let whole = dir.path().join("whole");
    let start = Instant::now();
    let undisturbed = grid.owner.ok(["restore", "latest", "--target", path_str(&whole)?])?;
    let took = start.elapsed();
    let target = dir.path().join("target");
    let served = || -> Result<u64> {
        let mut sum = 0;
        for node in &grid.nodes {
            let said = node.home.ok(["status"])?;
            sum += said.number("bytes_sent");
        }
        Ok(sum)
    };
    let before = served()?;
    for kill in 1..=10 {
        let mut child = grid
            .owner
            .command(["restore", "latest", "--target", path_str(&target)?])
            .spawn()?;
        std::thread::sleep(took * kill / 12);
        child.kill()?;
        child.wait()?;
    }
    grid.owner.ok(["restore", "latest", "--target", path_str(&target)?])?;
    let fetched = served()? - before;
    eprintln!(
        "fetched {fetched} bytes in eleven runs, {} undisturbed",
        undisturbed.number("bytes_fetched")
    );
    assert_same(&source, &target.join(source.strip_prefix("/")?))
}
