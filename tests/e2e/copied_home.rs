//! Two copies of one home at work: a daemon that a copy has overtaken says so, stops sending, and goes on after a restart.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use tests::compare::assert_same;
use tests::fixture::noise;
use tests::grid::Node;
use tests::home::{Home, path_str};

use crate::healing::{PATIENCE, wait_until};
use crate::turned_back::{Ann, copy, snapshots};

/// Stops a process in its tracks, or lets it go on.
fn signal(node: &Node, signal: &str) -> Result<()> {
    let status = Command::new("kill").args([signal, &node.pid().to_string()]).status()?;
    ensure!(status.success(), "kill {signal}");
    Ok(())
}

fn ids(home: &Home) -> Result<BTreeSet<String>> {
    let ids = snapshots(home)?.into_iter();
    Ok(ids
        .filter_map(|snapshot| Some(snapshot["id"].as_str()?.to_owned()))
        .collect())
}

fn is_safe(home: &Home) -> Result<bool> {
    Ok(home.say(["status"])?.code == Some(0))
}

/// A copy of the home was started on another machine, while the daemon went on: it never looked at the heads again.
#[test]
fn a_daemon_that_a_copy_of_its_home_has_overtaken_says_restart_and_then_loses_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ann = Ann::new(dir.path(), 1)?;
    let (home, twin) = (&ann.home, Home::new(dir.path().join("twin")));
    home.ok(["config", "set", "listen", "/ip4/127.0.0.1/tcp/0"])?;
    home.ok(["config", "set", "interval", "2s"])?;
    home.ok(["folder", "add", path_str(&ann.source)?])?;
    ann.write(1)?;
    home.ok(["run", "--once"])?;
    copy(&home.dir, &twin.dir)?;

    ann.write(2)?;
    let daemon = Node::start_as(home, "run")?;
    let day = ann.source.join("day 2");
    wait_until("the daemon has sent", || {
        Ok(home.say(["status", path_str(&day)?])?.code == Some(0))
    })?;
    // Otherwise the two would overtake each other while the copy is at work.
    signal(&daemon, "-STOP")?;
    let theirs = dir.path().join("theirs");
    fs::create_dir_all(&theirs)?;
    fs::write(theirs.join("only of the copy"), noise(50_000, 7))?;
    for _ in 0..2 {
        twin.ok(["run", "--once", path_str(&theirs)?])?;
    }
    let of_twin = ids(&twin)?;
    signal(&daemon, "-CONT")?;

    let failed = daemon.event("backup_failed", PATIENCE)?;
    let is_told = |text: &str| text.contains("older than the newest backup") && text.contains("restart gridbackup");
    ensure!(is_told(&failed["text"].to_string()), "{failed}");
    let status = home.exits(4, ["status"])?;
    ensure!(status.text("state") == "head_refused", "{}", status.last());
    for command in [
        &["run", "--once"][..],
        &["forget", "--keep-last", "1", "--prune"],
        &["prune"],
        &["tag", "latest", "--add", "kept"],
    ] {
        let said = home.exits(1, command)?;
        ensure!(is_told(&said.stderr), "{command:?}: {}", said.stderr);
    }
    home.exits(4, ["repair"])?;
    let of_daemon = ids(home)?;
    ensure!(!of_twin.is_subset(&of_daemon), "{of_twin:?} {of_daemon:?}");

    daemon.kill_9();
    ann.write(3)?;
    let daemon = Node::start_as(home, "run")?;
    wait_until("it has caught up", || {
        Ok(of_twin.is_subset(&ids(home)?) && is_safe(home)?)
    })?;
    home.ok(["check", "--read-data"])?;
    let day = ann.source.join("day 3");
    wait_until("it backs up again", || {
        Ok(home.say(["status", path_str(&day)?])?.code == Some(0))
    })?;
    daemon.kill_9();

    let (other, _) = ann.recovered("other")?;
    let all = ids(&other)?;
    ensure!(of_daemon.is_subset(&all) && of_twin.is_subset(&all), "{all:?}");
    let target = dir.path().join("back");
    other.ok([
        "restore",
        &format!("latest:{}", path_str(&ann.source)?),
        "--target",
        path_str(&target)?,
    ])?;
    assert_same(&ann.source, &target)
}
