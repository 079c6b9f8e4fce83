//! `forget --prune` killed at random moments: packs are given up and repacked, and nothing that is wanted is lost.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::compare::assert_same;
use tests::fixture::noise;
use tests::grid::{Grid, share_files};
use tests::home::{Home, path_str};

use crate::crash::kills;
use crate::main_job::recover_and_restore;

const FILES: u64 = 160;
const FILE_BYTES: usize = 200_000;
const PRUNE: [&str; 4] = ["forget", "--keep-last", "1", "--prune"];

/// Writes three of four files anew, others each round: what was packed before is mostly unwanted then.
fn next_round(source: &Path, round: u64) -> Result<()> {
    fs::create_dir_all(source)?;
    for number in (0..FILES).filter(|number| round == 0 || !(number + round).is_multiple_of(4)) {
        let path = source.join(format!("file {number}"));
        fs::write(path, noise(FILE_BYTES, round * FILES + number))?;
    }
    Ok(())
}

/// Starts a prune and kills it after `moment`; whether it was still at work.
fn killed_after(owner: &Home, moment: Duration) -> Result<bool> {
    let mut child = owner
        .command(PRUNE)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    std::thread::sleep(moment);
    let working = child.try_wait()?.is_none();
    child.kill()?;
    child.wait()?;
    Ok(working)
}

fn kept_shares(grid: &Grid) -> Result<usize> {
    let mut count = 0;
    for node in &grid.nodes {
        count += share_files(&node.home.dir)?.len();
    }
    Ok(count)
}

#[test]
fn a_prune_killed_at_random_moments_loses_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    let grid = Grid::start(dir.path(), 5, 2)?;
    let back_up = |round| -> Result<()> {
        next_round(&source, round)?;
        grid.owner.ok(["run", "--once", path_str(&source)?]).map(drop)
    };
    let is_whole = |home: &Home, name: &str| -> Result<()> {
        let target = dir.path().join(name);
        home.ok(["restore", "latest", "--target", path_str(&target)?])?;
        assert_same(&source, &target.join(source.strip_prefix("/")?))?;
        Ok(fs::remove_dir_all(&target)?)
    };
    back_up(0)?;
    back_up(1)?;
    let start = Instant::now();
    let calm = grid.owner.ok(PRUNE)?;
    let undisturbed = start.elapsed();
    ensure!(calm.number("packs_repacked") > 0, "{}", calm.last());
    is_whole(&grid.owner, "calm")?;

    let dice = noise(kills() as usize, 11);
    let mut hits = 0;
    for (round, roll) in (2..).zip(dice) {
        back_up(round)?;
        hits += u32::from(killed_after(&grid.owner, undisturbed.mul_f64(f64::from(roll) / 255.0))?);
        is_whole(&grid.owner, "killed")?;
        if round % 2 == 0 {
            // The owner's disk dies just then.
            let (blank, target) = (dir.path().join("blank"), dir.path().join("recovered"));
            recover_and_restore(&blank, &grid.owner.words(), &grid.nodes[0].address()?, &target)?;
            assert_same(&source, &target.join(source.strip_prefix("/")?))?;
            fs::remove_dir_all(&blank)?;
            fs::remove_dir_all(&target)?;
        }
    }
    eprintln!(
        "killed at work {hits} times of {}; undisturbed {undisturbed:.2?}",
        kills()
    );
    let last = grid.owner.ok(["prune"])?;
    grid.owner.ok(["prune"])?;
    let kept = kept_shares(&grid)?;
    eprintln!("{}; {kept} shares are kept", last.last());
    let checked = grid.owner.ok(["check", "--read-data"])?;
    ensure!(checked.last()["ok"] == true, "{}", checked.last());
    is_whole(&grid.owner, "last")
}
