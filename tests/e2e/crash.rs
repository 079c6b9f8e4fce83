//! kill -9 at random moments: nothing is lost, next to nothing is sent twice.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::compare::assert_same;
use tests::fixture::noise;
use tests::grid::{Grid, Node};
use tests::home::{Home, path_str};

use crate::main_job::{back_up, make_source, recover_and_restore};

/// How often a process is killed: enough to hit every stage at full scale, a taste of it in CI.
pub fn kills() -> u32 {
    if std::env::var("GRIDBACKUP_TEST_SCALE").as_deref() == Ok("full") {
        25
    } else {
        6
    }
}

/// Bytes of shares that the nodes say they have received since they started.
fn received(grid: &Grid) -> Result<u64> {
    let mut bytes = 0;
    for node in &grid.nodes {
        bytes += node.home.ok(["status"])?.number("bytes_received");
    }
    Ok(bytes)
}

/// Starts a backup and kills it after `moment`; whether it was still at work.
fn killed_after(owner: &Home, source: &Path, moment: Duration) -> Result<bool> {
    let mut command = owner.command(["run", "--once", path_str(source)?]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    std::thread::sleep(moment);
    let working = child.try_wait()?.is_none();
    child.kill()?;
    child.wait()?;
    Ok(working)
}

#[test]
fn an_owner_killed_at_random_moments_sends_next_to_nothing_twice() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    make_source(&source)?;

    let calm_dir = dir.path().join("calm");
    fs::create_dir_all(&calm_dir)?;
    let calm = Grid::start(&calm_dir, 5, 2)?;
    let start = Instant::now();
    back_up(&calm.owner, &source)?;
    let undisturbed = start.elapsed();
    let bytes_calm = received(&calm)?;
    drop(calm);
    fs::remove_dir_all(&calm_dir)?;

    let stormy_dir = dir.path().join("stormy");
    fs::create_dir_all(&stormy_dir)?;
    let grid = Grid::start(&stormy_dir, 5, 2)?;
    let seed = std::env::var("GRIDBACKUP_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(20_260_501);
    eprintln!("seed {seed}; undisturbed {:.1} s", undisturbed.as_secs_f64());
    let dice = noise(2 * kills() as usize, seed);
    let mut hits = 0;
    for roll in dice.chunks(2) {
        // Each life gets up to a fifth of the undisturbed time: most die at work, and the work still gets done.
        let share = f64::from(u16::from_le_bytes([roll[0], roll[1]])) / f64::from(u16::MAX) / 5.0;
        hits += u32::from(killed_after(&grid.owner, &source, undisturbed.mul_f64(share))?);
    }
    let (last, _, _) = back_up(&grid.owner, &source)?;
    assert_eq!(last.code, Some(0), "{} {}", last.last(), last.stderr);
    let bytes = received(&grid)?;
    eprintln!(
        "killed at work {hits} times; received {bytes} bytes, undisturbed {bytes_calm}: {:.3}",
        bytes as f64 / bytes_calm as f64
    );
    ensure!(
        bytes as f64 <= bytes_calm as f64 * 1.1,
        "{bytes} bytes instead of {bytes_calm}"
    );

    let target = dir.path().join("restored");
    let via = grid.nodes[2].address()?;
    recover_and_restore(&dir.path().join("blank"), &grid.owner.words(), &via, &target)?;
    assert_same(&source, &target.join(source.strip_prefix("/")?))
}

#[test]
fn a_storing_node_killed_at_random_moments_loses_no_acknowledged_share() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    make_source(&source)?;
    let mut grid = Grid::start(dir.path(), 5, 2)?;
    let mut command = grid.owner.command(["run", "--once", path_str(&source)?]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let dice = noise(kills() as usize, 7);
    for roll in dice {
        std::thread::sleep(Duration::from_millis(u64::from(roll) * 4));
        let home = grid.nodes.remove(1).kill_9();
        grid.nodes.insert(1, Node::start(&home)?);
    }
    child.wait()?;
    // Whatever was still undelivered goes up now; then every share that the owner believes to be held is there.
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    let status = grid.owner.ok(["status"])?;
    assert_eq!(status.last()["safe"], true, "{}", status.last());
    let check = grid.owner.ok(["check"])?;
    assert_eq!(
        check.number("shares_found"),
        check.number("shares_expected"),
        "{}",
        check.last()
    );

    let survivors: Vec<_> = grid.nodes.drain(..3).collect();
    drop(grid.nodes);
    let target = dir.path().join("restored");
    recover_and_restore(
        &dir.path().join("blank"),
        &grid.owner.words(),
        &survivors[1].address()?,
        &target,
    )?;
    assert_same(&source, &target.join(source.strip_prefix("/")?))
}
