//! The main job with real processes: back up over five nodes, lose two and the owner's machine, restore from 24 words.
//!
//! Small by default; `GRIDBACKUP_TEST_SCALE=full` (see `tests/must-show`) takes 20,000 real files and 1 GB and prints figures.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tests::compare::assert_same;
use tests::fixture::{self, Scale};
use tests::grid::{Grid, peak_mib};
use tests::home::{Home, Said, path_str, said};

/// What to back up: a minute's work for CI, or what the claim in the README was measured with.
pub fn scale() -> Scale {
    match std::env::var("GRIDBACKUP_TEST_SCALE").as_deref() {
        Ok("full") => Scale {
            files: 20_500,
            bytes: 1 << 30,
        },
        _ => Scale {
            files: 1_500,
            bytes: 60 << 20,
        },
    }
}

/// Makes the source tree: real files and all odd cases.
pub fn make_source(source: &Path) -> Result<()> {
    let made = fixture::real_files(&source.join("real"), scale())?;
    fixture::odd_cases(&source.join("odd"))?;
    eprintln!("source: {} real files, {} MB", made.files, made.bytes / 1_000_000);
    Ok(())
}

/// Runs `run --once` to its end and returns what it said, the peak of its memory in MiB and the seconds it took.
pub fn back_up(owner: &Home, source: &Path) -> Result<(Said, u64, Duration)> {
    let start = Instant::now();
    let mut command = owner.command(["run", "--once", path_str(source)?]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = child.id();
    let watch = std::thread::spawn(move || {
        let mut peak = 0;
        while let Some(now) = peak_mib(pid) {
            peak = now.max(peak);
            std::thread::sleep(Duration::from_millis(20));
        }
        peak
    });
    let said = said(child.wait_with_output()?)?;
    let peak = watch.join().expect("the watcher does not panic");
    Ok((said, peak, start.elapsed()))
}

/// Takes over an account on a blank machine, and restores everything below `target`.
pub fn recover_and_restore(dir: &Path, words: &Path, via: &str, target: &Path) -> Result<Said> {
    let blank = Home::new(dir);
    blank.ok(["recover", "--phrase-file", path_str(words)?, "--via", via])?;
    blank.ok(["restore", "latest", "--target", path_str(target)?])
}

#[test]
fn two_of_five_nodes_and_the_owner_are_lost_and_everything_comes_back_from_24_words() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    make_source(&source)?;
    let mut grid = Grid::start(dir.path(), 5, 2)?;

    let (backup, peak, took) = back_up(&grid.owner, &source)?;
    assert_eq!(backup.code, Some(0), "{} {}", backup.last(), backup.stderr);
    assert_eq!(backup.last()["complete"], true, "{}", backup.last());
    assert!(peak < 300, "the owner took {peak} MiB");
    eprintln!(
        "backup: {:.1} s, owner's peak {peak} MiB: {}",
        took.as_secs_f64(),
        backup.last()
    );
    let status = grid.owner.ok(["status"])?;
    assert_eq!(status.last()["safe"], true, "{}", status.last());

    for node in &grid.nodes {
        let peak = peak_mib(node.pid()).context("the node runs")?;
        assert!(peak < 150, "a node took {peak} MiB");
        eprintln!("node's peak {peak} MiB");
    }
    let survivor = grid.nodes.pop().context("five nodes")?;
    for lost in grid.nodes.drain(..2) {
        lost.kill_9();
    }
    let words = grid.owner.words();
    std::fs::remove_dir_all(&grid.owner.dir)?;

    let (start, target) = (Instant::now(), dir.path().join("restored"));
    let restore = recover_and_restore(&dir.path().join("blank"), &words, &survivor.address()?, &target)?;
    eprintln!(
        "recover and restore: {:.1} s: {}",
        start.elapsed().as_secs_f64(),
        restore.last()
    );
    assert_same(&source, &target.join(source.strip_prefix("/")?))
}
