//! Giving up and keeping: forgotten snapshots, the trash of peers, and a thief who has all of the owner's keys.
//!
//! Time passes by changing what a store has counted of it (`gridbackup-days` in its folder), while nothing runs: the program
//! itself has no switch for it, and moving its clock would not do, since a store does not believe jumps.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tests::compare::assert_same;
use tests::fixture::noise;
use tests::grid::{Grid, Node};
use tests::home::{Home, path_str};

use crate::unchanged::owner_with_folders;

/// Data files; very small contents travel with the metadata, which is never given up.
fn write_file(source: &Path, name: &str, size: usize) -> Result<()> {
    fs::create_dir_all(source)?;
    Ok(fs::write(source.join(name), noise(size, size as u64))?)
}

fn find(folder: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|found| found == name) {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// Lets days pass in the store somewhere below `folder`.
fn pass_days(folder: &Path, days: u64) -> Result<()> {
    let files = find(folder, "gridbackup-days")?;
    let [file] = &files[..] else {
        bail!("{} stores in {}", files.len(), folder.display());
    };
    let text = fs::read_to_string(file)?;
    let counted = text.lines().find_map(|line| line.strip_prefix("counted_secs "));
    let counted = counted.context("a store counts")?;
    let later = counted.parse::<u64>()? + days * 86_400;
    Ok(fs::write(file, text.replace(counted, &later.to_string()))?)
}

pub fn snapshot_ids(home: &Home) -> Result<Vec<String>> {
    let said = home.ok(["snapshots"])?;
    let ids = said.lines.iter().map(|line| line["id"].as_str().map(str::to_owned));
    ids.collect::<Option<_>>().context("snapshots have ids")
}

/// How often a command is repeated whose peers did not all answer: a busy machine drops connections now and then.
const TRIES_MAX: u32 = 5;

/// Runs `first`, then `again` until all peers did what they were asked; adds up `number` of their answers.
pub fn insist(home: &Home, first: &[&str], again: &[&str], number: &str) -> Result<u64> {
    let mut said = home.say(first)?;
    let mut sum = said.last()[number].as_u64().unwrap_or(0);
    for _ in 1..TRIES_MAX {
        let all_did = said.code == Some(0) && !said.lines.iter().any(|line| line["message_type"] == "problem");
        if all_did {
            return Ok(sum);
        }
        eprintln!("{:?}: {:?} {}", again, said.lines, said.stderr);
        said = home.say(again)?;
        sum += said.last()[number].as_u64().unwrap_or(0);
    }
    bail!("{again:?} still says {:?} {}", said.lines, said.stderr)
}

/// Forgets every snapshot and has peers give everything up.
pub fn delete_everything(home: &Home) -> Result<u64> {
    let ids = snapshot_ids(home)?;
    let mut forget = vec!["forget", "--prune", "--allow-empty-group"];
    forget.extend(ids.iter().map(String::as_str));
    let discarded = insist(home, &forget, &["prune"], "shares_discarded")?;
    ensure!(snapshot_ids(home)?.is_empty(), "all are forgotten");
    Ok(discarded)
}

/// Restarts all nodes some days later.
pub fn days_later(grid: &mut Grid, days: u64) -> Result<()> {
    let homes: Vec<Home> = grid.nodes.drain(..).map(Node::kill_9).collect();
    for home in &homes {
        pass_days(&home.dir, days)?;
    }
    for home in &homes {
        grid.nodes.push(Node::start(home)?);
    }
    Ok(())
}

fn recover(dir: &Path, grid: &Grid) -> Result<Home> {
    let home = Home::new(dir);
    let (words, via) = (grid.owner.words(), grid.nodes[0].address()?);
    home.ok(["recover", "--phrase-file", path_str(&words)?, "--via", &via])?;
    Ok(home)
}

#[test]
fn what_a_thief_with_all_keys_deletes_is_there_on_day_29_and_gone_on_day_31() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    for (name, size) in [("a", 60_000), ("b", 3 << 20), ("c", 9 << 20)] {
        write_file(&source, name, size)?;
    }
    let mut grid = Grid::start(dir.path(), 3, 1)?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;

    // The thief has the owner's home, and with it every key there is; the owner's machine is gone.
    let discarded = delete_everything(&grid.owner)?;
    ensure!(discarded > 0, "shares were given up");
    let thief = grid.owner.dir.with_extension("stolen");
    fs::rename(&grid.owner.dir, thief)?;
    days_later(&mut grid, 29)?;

    let second = recover(&dir.path().join("second"), &grid)?;
    ensure!(snapshot_ids(&second)?.is_empty(), "recovery sees what was forgotten");
    let recalled = insist(&second, &["undelete"], &["undelete"], "shares_recalled")?;
    eprintln!("given up: {discarded} shares; on day 29 brought back: {recalled}");
    ensure!(recalled == discarded);
    let target = dir.path().join("restored");
    second.ok(["restore", "latest", "--target", path_str(&target)?])?;
    assert_same(&source, &target.join(source.strip_prefix("/")?))?;

    // The same again, and nobody notices for longer.
    let discarded_again = delete_everything(&second)?;
    ensure!(discarded_again == discarded, "{discarded_again} of {discarded}");
    days_later(&mut grid, 31)?;
    let third = recover(&dir.path().join("third"), &grid)?;
    third.exits(13, ["undelete"])?;
    for node in &grid.nodes {
        ensure!(find(&node.home.dir, "1.discard")?.is_empty(), "no trash is left");
    }
    Ok(())
}

#[test]
fn forgotten_snapshots_give_their_space_back_and_come_back_while_the_trash_has_them() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    write_file(&source, "old", 2 << 20)?;
    write_file(&source, "stays", 3 << 20)?;
    let owner = owner_with_folders(dir.path(), 2)?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    fs::remove_file(source.join("old"))?;
    write_file(&source, "new", 5 << 20)?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let ids = snapshot_ids(&owner)?;

    let asked = owner.ok(["forget", "--keep-last", "1", "--prune", "--dry-run"])?;
    ensure!(asked.number("shares_discarded") == 0 && snapshot_ids(&owner)? == ids);
    let kept = asked.lines.iter().filter(|line| line["action"] == "keep");
    let kept: Vec<_> = kept.map(|line| (&line["id"], &line["reasons"])).collect();
    ensure!(
        kept == [(&ids[1].clone().into(), &serde_json::json!(["last"]))],
        "{kept:?}"
    );
    owner.exits(2, ["forget"])?;

    owner.ok(["forget", "--keep-last", "1", "--prune"])?;
    ensure!(snapshot_ids(&owner)? == ids[1..]);
    ensure!(
        owner.ok(["check"])?.last()["ok"] == true,
        "what was given up is not missed"
    );
    ensure!(owner.ok(["status"])?.last()["safe"] == true);
    // New packs may be half empty and come together in the next one: each repacking halves what it takes, so that ends.
    let mut again = owner.ok(["prune"])?;
    for _ in 0..8 {
        if again.number("shares_discarded") > 0 {
            again = owner.ok(["prune"])?;
        }
    }
    ensure!(again.number("shares_discarded") == 0, "{}", again.last());

    owner.ok(["undelete", &ids[0]])?;
    ensure!(snapshot_ids(&owner)? == ids);
    let target = dir.path().join("first");
    let first = format!("{}:{}", ids[0], path_str(&source)?);
    owner.ok(["restore", &first, "--target", path_str(&target)?])?;
    ensure!(fs::read(target.join("old"))? == noise(2 << 20, 2 << 20));
    Ok(())
}

#[test]
fn a_backup_after_everything_was_given_up_and_is_gone_needs_nothing_of_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    write_file(&source, "a", 2 << 20)?;
    write_file(&source, "b", 3 << 20)?;
    let owner = owner_with_folders(dir.path(), 2)?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    ensure!(delete_everything(&owner)? > 0);
    for disk in 1..=5 {
        pass_days(&dir.path().join(format!("disk{disk}")), 31)?;
    }
    owner.ok(["prune"])?;

    // No file has changed since: still all of it has to go up again.
    let backup = owner.ok(["run", "--once", path_str(&source)?])?;
    ensure!(backup.number("bytes_added") > 4 << 20, "{}", backup.last());
    let target = dir.path().join("restored");
    owner.ok(["restore", "latest", "--target", path_str(&target)?])?;
    assert_same(&source, &target.join(source.strip_prefix("/")?))?;

    let blank = Home::new(dir.path().join("blank"));
    let words = owner.words();
    let disk = format!("dir:{}", dir.path().join("disk1").display());
    let mut via = vec!["recover", "--phrase-file", path_str(&words)?, "--via", &disk];
    let disks: Vec<String> = (2..=4)
        .map(|disk| format!("dir:{}", dir.path().join(format!("disk{disk}")).display()))
        .collect();
    for disk in &disks {
        via.extend(["--via", disk]);
    }
    blank.ok(via)?;
    let target = dir.path().join("recovered");
    blank.ok(["restore", "latest", "--target", path_str(&target)?])?;
    assert_same(&source, &target.join(source.strip_prefix("/")?))
}
