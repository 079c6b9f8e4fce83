//! A grid that heals itself: friends vanish for good while the owner is away, and nobody does anything about it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tests::compare::assert_same;
use tests::fixture::noise;
use tests::grid::{Grid, share_files};
use tests::home::path_str;

use crate::main_job::recover_and_restore;

/// Days made seconds.
pub const HASTY: &[(&str, &str)] = &[
    ("suspect_after", "10s"),
    ("lost_after", "30s"),
    ("repair_interval", "2s"),
    ("audit_interval", "3s"),
    ("scrub_interval", "1h"),
];
/// How long a busy machine may take for what takes seconds.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Looks until it is so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let start = Instant::now();
    while !is_so()? {
        if start.elapsed() > PATIENCE {
            bail!("{what}: not within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(start.elapsed())
}

pub fn small_source(source: &Path) -> Result<()> {
    std::fs::create_dir_all(source.join("folder"))?;
    for (name, size) in [("tiny", 50), ("small", 60_000), ("folder/large", 40 << 20)] {
        std::fs::write(source.join(name), noise(size, size as u64))?;
    }
    Ok(())
}

#[test]
fn three_of_nine_friends_are_lost_while_the_owner_is_away_and_the_others_make_everything_whole_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    small_source(&source)?;
    // Ten real processes at work: nine nodes, and the owner's backup.
    let mut grid = Grid::start_with(dir.path(), 9, 2, HASTY)?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    let count = |grid: &Grid| -> Result<Vec<usize>> {
        let counts = grid
            .nodes
            .iter()
            .map(|node| Ok(share_files(&node.home.dir.join("store"))?.len()));
        counts.collect()
    };
    // Nine households: n = 8, of which k = 4 are needed; one household stays out of each pack. A share that a busy friend did not
    // take in time is built by the others.
    let mut shares = 0;
    wait_until("eight shares of every pack", || {
        shares = count(&grid)?.iter().sum();
        Ok(shares > 0 && shares.is_multiple_of(8))
    })?;
    let packs = shares / 8;

    for lost in grid.nodes.drain(1..4) {
        let home = lost.kill_9();
        std::fs::remove_dir_all(home.dir)?;
    }
    eprintln!("{packs} packs; shares at the six left: {:?}", count(&grid)?);
    let took = wait_until("a share of every pack at each of the six", || {
        Ok(count(&grid)?.iter().all(|held| *held >= packs))
    })?;
    let held = count(&grid)?;
    eprintln!("whole again after {:.1} s: {held:?}", took.as_secs_f64());
    // No share is anywhere twice, and nothing goes on.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(count(&grid)?, held, "an endless repair");
    let mut copies: BTreeMap<String, usize> = BTreeMap::new();
    for node in &grid.nodes {
        for file in share_files(&node.home.dir.join("store"))? {
            *copies
                .entry(file.file_name().context("a file")?.to_string_lossy().into_owned())
                .or_default() += 1;
        }
    }
    let doubled = copies.values().filter(|count| **count > 1).count();
    assert_eq!((doubled, held.iter().sum::<usize>()), (0, 6 * packs));

    // Two more may vanish now, as the policy says: without the repair this would have been the end of most packs.
    for lost in grid.nodes.drain(1..3) {
        lost.kill_9();
    }
    let (words, survivor) = (grid.owner.words(), &grid.nodes[0]);
    std::fs::remove_dir_all(&grid.owner.dir)?;
    let target = dir.path().join("restored");
    recover_and_restore(&dir.path().join("blank"), &words, &survivor.address()?, &target)?;
    assert_same(&source, &target.join(source.strip_prefix("/")?))
}

/// One friend says of every share of its friends that it was given up, without a discard of the owner to show: nobody healed anything
/// any more. Its store lies; its program is the real one.
#[test]
fn a_friend_who_says_that_everything_was_given_up_keeps_nobody_from_healing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    small_source(&source)?;
    let mut grid = Grid::start_with(dir.path(), 7, 2, HASTY)?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    let files = |grid: &Grid| -> Result<Vec<Vec<std::path::PathBuf>>> {
        let nodes = grid.nodes.iter();
        nodes.map(|node| share_files(&node.home.dir.join("store"))).collect()
    };
    // Seven households: six shares of every pack.
    let mut shares = 0;
    wait_until("six shares of every pack", || {
        shares = files(&grid)?.iter().map(Vec::len).sum();
        Ok(shares > 0 && shares.is_multiple_of(6))
    })?;
    let packs = shares / 6;

    let all = files(&grid)?;
    let account = all[1][0].ancestors().nth(3).context("a store")?;
    let own: Vec<_> = all[1].iter().filter_map(|file| file.file_name()).collect();
    for file in all.iter().flatten() {
        let name = file.file_name().context("a file")?;
        let folder = account.join("trash/00000001").join(&name.to_string_lossy()[..2]);
        if !own.contains(&name) {
            std::fs::create_dir_all(&folder)?;
            std::fs::write(folder.join(name), "given up")?;
        }
    }
    let liar = grid.nodes.remove(1);
    for lost in grid.nodes.drain(..2).collect::<Vec<_>>() {
        let home = lost.kill_9();
        std::fs::remove_dir_all(home.dir)?;
    }
    let took = wait_until(
        "a share of every pack at each of the four who are left and honest",
        || Ok(files(&grid)?.iter().all(|held| held.len() >= packs)),
    )?;
    eprintln!("{packs} packs whole again after {:.1} s", took.as_secs_f64());
    drop(liar);
    Ok(())
}

#[test]
fn the_owner_s_daemon_builds_anew_what_a_lost_friend_held() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    small_source(&source)?;
    let mut grid = Grid::start_with(dir.path(), 7, 2, HASTY)?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    grid.owner.ok(["repair", "--once"])?;
    let lost = grid.nodes.remove(1).kill_9();
    std::fs::remove_dir_all(lost.dir)?;
    // A command looks once: that is no reason to give anybody up.
    let said = grid.owner.ok(["repair", "--once"])?;
    assert_eq!(said.number("shares_rebuilt"), 0, "{}", said.last());
    let daemon = tests::grid::Node::start_as(&grid.owner, "run")?;
    let standing = |name: &str| -> Result<String> {
        let said = grid.owner.ok(["peer", "ls"])?;
        let peer = said.lines.iter().find(|line| line["name"] == name).context("a peer")?;
        Ok(peer["standing"].as_str().unwrap_or_default().to_owned())
    };
    let took = wait_until("the lost friend is given up", || Ok(standing("node2")? == "lost"))?;
    eprintln!("given up after {:.1} s", took.as_secs_f64());
    let took = wait_until("all shares are where they should be", || {
        let said = grid.owner.say(["check"])?;
        Ok(said.last()["ok"] == true && grid.owner.ok(["repair", "--once"])?.number("shares_rebuilt") == 0)
    })?;
    eprintln!("whole again after {:.1} s", took.as_secs_f64());
    // Seven households: n = 6, k = 3; with one lost all six shares have a place among the other six.
    let said = grid.owner.ok(["check"])?;
    let (packs, found) = (said.number("packs"), said.number("shares_found"));
    assert_eq!(found, 6 * packs, "{}", said.last());
    drop(daemon);
    let target = dir.path().join("restored");
    recover_and_restore(
        &dir.path().join("blank"),
        &grid.owner.words(),
        &grid.nodes[0].address()?,
        &target,
    )?;
    assert_same(&source, &target.join(source.strip_prefix("/")?))
}
