//! The verdict through the program: what is not safe is never called so, whoever is asked and whenever.
//! docs/verdict.md is the table; `node` tests it row by row. Here: that the facts get there.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::fixture::noise;
use tests::grid::{Grid, Node, share_files};
use tests::home::{Home, Said, path_str, said};

use crate::healing::wait_until;

/// Someone who is not root, whoever runs the tests.
const NOBODY: u32 = 65_534;

/// Files of each size class: in the log, in an index, in a pack.
fn source(path: &Path) -> Result<()> {
    fs::create_dir_all(path)?;
    for (name, size) in [("tiny", 50), ("small", 3_000), ("large", 300_000)] {
        fs::write(path.join(name), noise(size, size as u64))?;
    }
    Ok(())
}

/// An owner with folders as peers.
fn owner(dir: &Path, tolerate: u8, disks: usize) -> Result<Home> {
    let owner = Home::init(dir.join("owner"), "owner", tolerate)?;
    for number in 1..=disks {
        let disk = dir.join(format!("disk{number}"));
        fs::create_dir_all(&disk)?;
        owner.ok([
            "peer",
            "add",
            &format!("disk{number}"),
            &format!("dir:{}", path_str(&disk)?),
        ])?;
    }
    Ok(owner)
}

/// `status`, which must exit with `code` and call it `state`; its numbers add up.
fn status(home: &Home, code: i32, state: &str) -> Result<Said> {
    let said = home.exits(code, ["status"])?;
    let last = said.last();
    ensure!(last["state"] == state, "{last}");
    ensure!(last["safe"] == (state == "safe"), "{last}");
    for unit in ["files", "bytes"] {
        let number = |part: &str| last[format!("{unit}_{part}")].as_u64().unwrap_or(0);
        let parts: u64 = ["protected", "waiting", "at_risk", "lost"].map(number).iter().sum();
        ensure!(parts == number("total"), "{unit} do not add up: {last}");
    }
    ensure!(!said.text("headline").is_empty(), "{last}");
    Ok(said)
}

fn file_state(home: &Home, path: &Path) -> Result<(String, Option<i32>, String)> {
    let said = home.say(["status", path_str(path)?])?;
    let reason = said.last()["reason"].as_str().unwrap_or_default().to_owned();
    Ok((said.text("state").to_owned(), said.code, reason))
}

fn reasons(said: &Said) -> Vec<String> {
    let all = said.last()["reasons"].as_array().cloned().unwrap_or_default();
    all.iter()
        .map(|reason| reason["state"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Without any peer, 73 small files were "protected": they have no job.
#[test]
fn before_anything_is_kept_by_anybody_nothing_is_safe() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (home, from) = (owner(dir.path(), 1, 0)?, dir.path().join("source"));
    status(&home, 4, "nothing")?;
    source(&from)?;
    home.ok(["folder", "add", path_str(&from)?])?;
    home.exits(1, ["run", "--once"])?;
    let said = status(&home, 4, "no_peer")?;
    assert_eq!((said.number("files_protected"), said.number("files_waiting")), (0, 3));
    ensure!(reasons(&said).contains(&"run_failed".to_owned()), "{}", said.last());
    Ok(())
}

/// "Safe: every file survives the loss of 2 peers" above "Restorable at once: 0 %", with three of four peers removed.
#[test]
fn what_removed_peers_hold_counts_for_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (home, from) = (owner(dir.path(), 1, 4)?, dir.path().join("source"));
    source(&from)?;
    home.ok(["folder", "add", path_str(&from)?])?;
    home.ok(["run", "--once"])?;
    ensure!(status(&home, 0, "safe")?.number("tolerates") >= 1);
    // As a friend who leaves, or a hand in config.toml: no command of ours sees it.
    let config = home.dir.join("config.toml");
    let mut text = fs::read_to_string(&config)?;
    for name in ["disk1", "disk2", "disk3"] {
        let start = text
            .find(&format!("[peers.{name}]"))
            .context("the peer is in the config")?;
        let end = text[start + 1..].find("\n[").map_or(text.len(), |at| start + 1 + at);
        text.replace_range(start..end, "");
    }
    fs::write(&config, text)?;
    let said = home.exits(4, ["status"])?;
    ensure!(
        said.last()["safe"] == false && said.number("files_protected") == 0,
        "{}",
        said.last()
    );
    let (state, code, _) = file_state(&home, &from.join("large"))?;
    ensure!(state != "protected" && code == Some(4), "{state}");
    ensure!(home.exits(4, ["run", "--once"])?.last()["reasons"][0]["text"].is_string());
    Ok(())
}

/// With one of two folders gone nothing was backed up, `status` said "Safe", `doctor` all ok.
#[test]
fn a_folder_that_is_not_there_is_named_by_everybody() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (home, from, usb) = (
        owner(dir.path(), 1, 3)?,
        dir.path().join("source"),
        dir.path().join("usb"),
    );
    for folder in [&from, &usb] {
        source(folder)?;
        home.ok(["folder", "add", path_str(folder)?])?;
    }
    home.ok(["run", "--once"])?;
    home.ok(["doctor"])?;
    fs::rename(&usb, dir.path().join("pulled"))?;
    for ran in [false, true] {
        if ran {
            let run = home.say(["run", "--once"])?;
            ensure!(run.code != Some(0), "{}", run.last());
        }
        let said = home.say(["status"])?;
        ensure!(
            matches!(said.code, Some(3 | 4)) && said.last()["safe"] == false,
            "{}",
            said.last()
        );
        ensure!(
            said.last()["reasons"].to_string().contains(path_str(&usb)?),
            "{}",
            said.last()
        );
        let doctor = home.exits(1, ["doctor"])?;
        ensure!(
            doctor
                .lines
                .iter()
                .any(|line| line.to_string().contains(path_str(&usb).unwrap_or("?")))
        );
    }
    fs::rename(dir.path().join("pulled"), &usb)?;
    home.ok(["run", "--once"])?;
    status(&home, 0, "safe")?;
    Ok(())
}

/// After `run --once PATH`, only PATH counted.
#[test]
fn everything_that_was_backed_up_counts_and_not_only_the_last_path() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let home = owner(dir.path(), 1, 3)?;
    let paths = ["a", "b"].map(|name| dir.path().join(name));
    for path in &paths {
        source(path)?;
        home.ok(["run", "--once", path_str(path)?])?;
    }
    assert_eq!(status(&home, 0, "safe")?.number("files_total"), 6);
    // A disk away, and a new file in the first: the second still counts.
    fs::rename(dir.path().join("disk3"), dir.path().join("away"))?;
    fs::write(paths[0].join("new"), noise(200_000, 7))?;
    let run = home.exits(4, ["run", "--once", path_str(&paths[0])?])?;
    ensure!(
        run.last()["reasons"][0]["text"].is_string(),
        "exit 4 says why: {}",
        run.last()
    );
    let said = home.exits(4, ["status"])?;
    assert_eq!(said.number("files_total"), 7, "{}", said.last());
    ensure!(said.number("files_protected") < 7, "{}", said.last());
    Ok(())
}

/// `run --once` with every friend away and nothing changed: exit 0, "safe".
#[test]
fn with_everybody_away_nothing_is_called_safe() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (home, from) = (owner(dir.path(), 1, 3)?, dir.path().join("source"));
    source(&from)?;
    home.ok(["run", "--once", path_str(&from)?])?;
    for number in 1..=3 {
        fs::rename(
            dir.path().join(format!("disk{number}")),
            dir.path().join(format!("away{number}")),
        )?;
    }
    let said = status(&home, 4, "away")?;
    assert_eq!(said.number("files_protected"), 3, "what they hold is not forgotten");
    home.exits(4, ["run", "--once", path_str(&from)?])?;
    for number in 1..=3 {
        fs::rename(
            dir.path().join(format!("away{number}")),
            dir.path().join(format!("disk{number}")),
        )?;
    }
    home.ok(["run", "--once", path_str(&from)?])?;
    status(&home, 0, "safe")?;
    Ok(())
}

/// A file that could not be read: exit 3 once, and then "Safe: every file".
#[test]
fn what_could_not_be_read_stays_visible_until_it_is_read() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let from = dir.path().join("source");
    source(&from)?;
    let own = |args: &[&str]| -> Result<Said> {
        let mut command = Home::new(dir.path().join("owner")).command(args);
        if tests::fixture::is_root_user() {
            command.uid(NOBODY).gid(NOBODY);
        }
        said(command.output()?)
    };
    let exits = |code: i32, args: &[&str]| -> Result<Said> {
        let said = own(args)?;
        ensure!(
            said.code == Some(code),
            "{args:?}: {:?} {} {}",
            said.code,
            said.last(),
            said.stderr
        );
        Ok(said)
    };
    let disk = dir.path().join("disk");
    fs::create_dir(&disk)?;
    if tests::fixture::is_root_user() {
        for path in [dir.path(), &from, &disk] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY))?;
        }
    }
    let closed = from.join("large");
    let chmod = |mode| fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(mode));
    let words = dir.path().join("words");
    exits(
        0,
        &[
            "init",
            "--name",
            "o",
            "--tolerate",
            "0",
            "--phrase-out",
            path_str(&words)?,
        ],
    )?;
    exits(0, &["peer", "add", "disk", &format!("dir:{}", path_str(&disk)?)])?;
    exits(0, &["folder", "add", path_str(&from)?])?;
    chmod(0o000)?;
    exits(3, &["run", "--once"])?;
    for _ in 0..2 {
        let said = exits(3, &["status"])?;
        ensure!(
            said.last()["state"] == "left_out" && said.last()["safe"] == false,
            "{}",
            said.last()
        );
        ensure!(said.text("headline").contains(path_str(&closed)?), "{}", said.last());
        ensure!(said.last()["reasons"][0]["since"].is_string(), "{}", said.last());
    }
    let file = exits(3, &["status", path_str(&closed)?])?;
    ensure!(file.last()["state"] == "unreadable", "{}", file.last());
    chmod(0o644)?;
    exits(0, &["run", "--once"])?;
    exits(0, &["status"])?;
    exits(0, &["status", path_str(&closed)?]).map(drop)
}

/// "protected on 5 peers", of a file that was rewritten or deleted since.
#[test]
fn status_of_a_file_looks_at_the_file() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (home, from) = (owner(dir.path(), 1, 3)?, dir.path().join("source"));
    for folder in ["", "cache", "docs"] {
        source(&from.join(folder))?;
    }
    fs::write(
        from.join("cache/CACHEDIR.TAG"),
        "Signature: 8a477f597d28d172789f06886806bc55",
    )?;
    fs::write(from.join("docs/.gridbackupignore"), "*.tmp\n")?;
    for name in ["a.iso", "docs/b.tmp"] {
        fs::write(from.join(name), "x")?;
    }
    home.ok(["exclude", "add", "*.iso"])?;
    home.ok(["folder", "add", path_str(&from)?])?;
    home.ok(["run", "--once"])?;
    for path in ["large", "small", "tiny", "docs", ""] {
        let (state, code, reason) = file_state(&home, &from.join(path))?;
        ensure!(
            (state.as_str(), code) == ("protected", Some(0)),
            "{path}: {state} {reason}"
        );
    }
    fs::write(from.join("large"), noise(300_000, 1))?;
    fs::remove_file(from.join("small"))?;
    fs::write(from.join("new"), "new")?;
    fs::write(dir.path().join("outside"), "x")?;
    let expected: &[(PathBuf, &str, &str)] = &[
        (from.join("large"), "changed", "changed after"),
        (from.join("small"), "deleted", "not there any more"),
        (from.clone(), "changed", "after it was backed up"),
        (from.join("docs"), "protected", ""),
        (from.join("new"), "unknown", "newer than the last backup"),
        (dir.path().join("outside"), "unknown", "no folder"),
        (from.join("nonsense"), "missing", "No such file"),
        (from.join("a.iso"), "excluded", "`*.iso`"),
        (from.join("docs/b.tmp"), "excluded", ".gridbackupignore"),
        (from.join("cache/large"), "excluded", "CACHEDIR.TAG"),
    ];
    for (path, state, reason) in expected {
        let found = file_state(&home, path)?;
        ensure!(
            found.0 == *state && found.2.contains(reason),
            "{}: {found:?}",
            path.display()
        );
        ensure!(
            (found.1 == Some(0)) == (*state == "protected"),
            "{}: {found:?}",
            path.display()
        );
    }
    home.ok(["run", "--once"])?;
    ensure!(file_state(&home, &from.join("large"))?.0 == "protected");
    ensure!(
        file_state(&home, &from.join("small"))?.0 == "deleted",
        "also when the backup knows it"
    );
    Ok(())
}

/// COMPLETE "yes", and "Newest complete snapshot", with one of two shares that it takes.
#[test]
fn a_snapshot_with_lost_content_is_not_the_newest_complete_one() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (home, from) = (owner(dir.path(), 1, 3)?, dir.path().join("source"));
    source(&from)?;
    home.ok(["run", "--once", path_str(&from)?])?;
    ensure!(status(&home, 0, "safe")?.last()["newest_complete_snapshot"].is_string());
    for number in 1..=2 {
        for share in share_files(&dir.path().join(format!("disk{number}")))? {
            fs::remove_file(share)?;
        }
    }
    home.say(["check"])?;
    let said = home.exits(4, ["status"])?;
    ensure!(
        said.last()["newest_complete_snapshot"] == Value::Null,
        "{}",
        said.last()
    );
    ensure!(said.number("files_protected") == 0, "{}", said.last());
    ensure!(reasons(&said).contains(&"lost".to_owned()), "{}", said.last());
    ensure!(home.ok(["snapshots"])?.last()["broken"] == true);
    ensure!(file_state(&home, &from.join("large"))?.0 == "lost");
    Ok(())
}

/// `status` during `repair` was exit 11: "in use by process N".
#[test]
fn status_answers_while_another_process_holds_the_home() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (home, from) = (owner(dir.path(), 1, 3)?, dir.path().join("source"));
    source(&from)?;
    home.ok(["run", "--once", path_str(&from)?])?;
    let lock = fs::File::options().write(true).open(home.dir.join("lock"))?;
    lock.lock()?;
    home.exits(11, ["queue"])?;
    let said = status(&home, 0, "safe")?;
    ensure!(said.last()["only_catalog"] == true, "{}", said.last());
    ensure!(file_state(&home, &from.join("large"))?.0 == "protected");
    Ok(())
}

/// A friend came back and took its shares; `status` said "Not safe" until the next run, an hour later.
#[test]
fn what_arrives_with_a_returned_friend_counts_at_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let from = dir.path().join("source");
    source(&from)?;
    let mut grid = Grid::start(dir.path(), 3, 2)?;
    grid.owner.ok(["folder", "add", path_str(&from)?])?;
    let away = grid.nodes.pop().context("three nodes")?.kill_9();
    let daemon = Node::start_as(&grid.owner, "run")?;
    let verdict = |daemon: &Node| daemon.event("verdict", Duration::from_secs(60));
    verdict(&daemon)?;
    let said = grid.owner.exits(4, ["status"])?;
    ensure!(said.last()["safe"] == false, "{}", said.last());
    let _back = Node::start(&away)?;
    wait_until("the verdict is safe", || {
        Ok(grid.owner.say(["status"])?.last()["state"] == "safe")
    })?;
    ensure!(
        verdict(&daemon)?["text"]
            .as_str()
            .is_some_and(|text| text.starts_with("Safe"))
    );
    Ok(())
}
