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

/// Far longer than the restore takes on any machine: whoever waits for one such answer is seen, whatever else the machine does.
const LATE: Duration = Duration::from_secs(60);
/// What a kill may cost: two packs that were on their way.
const IN_FLIGHT_BYTES: u64 = 32 << 20;
/// At full scale, on a machine with nothing else to do: what finding out that two friends are late may take (the first wait).
const FINDING_OUT: Duration = Duration::from_secs(2);
/// And what the rest may take longer: shares are built from others.
const TIMES_MAX: f64 = 1.3;

fn is_full_scale() -> bool {
    std::env::var("GRIDBACKUP_TEST_SCALE").as_deref() == Ok("full")
}

/// In memory when seconds are compared: how long a disk takes to write the same bytes varies more than what is to be seen.
fn folder() -> Result<tempfile::TempDir> {
    let in_memory = Path::new("/dev/shm");
    if is_full_scale() && in_memory.is_dir() {
        return Ok(tempfile::tempdir_in(in_memory)?);
    }
    Ok(tempfile::tempdir()?)
}

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
    let dir = folder()?;
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
    let restore = |late: Duration| -> Result<(f64, Said)> {
        proxies.iter().for_each(|proxy| proxy.answer_late(late));
        let target = dir.path().join("target");
        let start = Instant::now();
        let said = grid.owner.ok(["restore", "latest", "--target", path_str(&target)?])?;
        let took = start.elapsed().as_secs_f64();
        assert_same(&source, &target.join(source.strip_prefix("/")?))?;
        std::fs::remove_dir_all(&target)?;
        Ok((took, said))
    };
    let (first, said_first) = restore(Duration::ZERO)?;
    let used = said_first.last()["peers_used"].to_string();
    ensure!(used.contains("node4") && used.contains("node5"), "{used}");
    let (second, _) = restore(Duration::ZERO)?;
    let (late, said_late) = restore(LATE)?;
    let fast = first.min(second);
    eprintln!(
        "restore: {first:.2} and {second:.2} s, with two of five friends {} s late {late:.2} s: {:.2}; fetched {} and {} bytes",
        LATE.as_secs(),
        late / fast,
        said_first.number("bytes_fetched"),
        said_late.number("bytes_fetched")
    );
    let limit = match is_full_scale() {
        true => TIMES_MAX * fast + FINDING_OUT.as_secs_f64(),
        false => LATE.as_secs_f64(),
    };
    ensure!(late < limit, "{late} instead of {fast} s");
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
    // What was on its way at a kill is fetched again: batches of 16 MiB, which are much of a small source.
    let slack = if is_full_scale() { 0 } else { 10 * IN_FLIGHT_BYTES };
    let limit = undisturbed.number("bytes_fetched") * 11 / 10 + slack;
    ensure!(fetched <= limit, "{fetched} bytes of {limit}");
    assert_same(&source, &target.join(source.strip_prefix("/")?))
}
