//! Friends that lose, corrupt or turn back what they took: each is found, and none harms a restore.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::compare::assert_same;
use tests::grid::{Grid, Node, share_files};
use tests::home::{Home, path_str};

use crate::healing::{HASTY, small_source, wait_until};
use crate::main_job::recover_and_restore;

/// Audits passed and done, of one peer.
pub fn audits(owner: &Home, name: &str) -> Result<(u64, u64)> {
    let said = owner.ok(["peer", "ls"])?;
    let peer = said.lines.iter().find(|line| line["name"] == name).context("a peer")?;
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    Ok((number(&peer["audits"][0]), number(&peer["audits"][1])))
}

#[test]
fn a_friend_that_drops_shares_and_one_that_corrupts_them_are_found_by_audits_and_made_up_for() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    small_source(&source)?;
    let settings: Vec<_> = HASTY
        .iter()
        .filter(|(key, _)| *key != "repair_interval")
        .copied()
        .collect();
    let grid = Grid::start_with(dir.path(), 5, 2, &settings)?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    // One share is dropped without a word at node2, each leaf of one is changed at node3.
    let dropped = share_files(&grid.nodes[1].home.dir.join("store"))?
        .pop()
        .context("a share")?;
    fs::remove_file(&dropped)?;
    let corrupted = share_files(&grid.nodes[2].home.dir.join("store"))?
        .pop()
        .context("a share")?;
    let mut bytes = fs::read(&corrupted)?;
    bytes.iter_mut().step_by(4096).for_each(|byte| *byte ^= 1);
    fs::write(&corrupted, &bytes)?;

    let daemon = Node::start_as(&grid.owner, "run")?;
    // Two looks find it, whichever comes first: the first repair after the start sees that it is not listed and sends it again.
    let took = wait_until("a failed audit, or the share sent again", || {
        let (passed, done) = audits(&grid.owner, "node2")?;
        Ok(passed < done || dropped.exists())
    })?;
    eprintln!("what node2 dropped was missed after {:.1} s", took.as_secs_f64());
    // Unless that repair reads it as one of its k shares, and makes up for it at once.
    let took = wait_until("a failed audit, or the share sent again", || {
        let (passed, done) = audits(&grid.owner, "node3")?;
        Ok(passed < done || fs::read(&corrupted).is_ok_and(|now| now != bytes))
    })?;
    eprintln!("node3 was found after {:.1} s, audited every 3 s", took.as_secs_f64());
    for name in ["node1", "node4", "node5"] {
        wait_until("a passed audit", || {
            audits(&grid.owner, name).map(|(passed, _)| passed > 0)
        })?;
        let (passed, done) = audits(&grid.owner, name)?;
        assert_eq!(passed, done, "{name} did nothing wrong");
    }
    // There is no other household: the shares are sent again to the friends that lost them.
    wait_until("all is repaired", || Ok(grid.owner.say(["repair"])?.code == Some(0)))?;
    grid.owner.ok(["check", "--read-data"])?;
    assert!(dropped.exists());
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

#[test]
fn a_friend_that_answers_with_an_old_head_is_named_and_the_newest_backup_is_recovered() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    small_source(&source)?;
    let mut grid = Grid::start(dir.path(), 3, 1)?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    // The heads of the first backup are kept aside and put back after the second one.
    let account = |node: &Node| -> Result<std::path::PathBuf> {
        let share = share_files(&node.home.dir.join("store"))?.pop().context("a share")?;
        let folder = share
            .ancestors()
            .nth(3)
            .context("shares/xx/id lie in the account's folder")?;
        Ok(folder.join("heads"))
    };
    let heads = account(&grid.nodes[1])?;
    let mut old = Vec::new();
    for entry in fs::read_dir(&heads)? {
        let path = entry?.path();
        old.push((path.clone(), fs::read(path)?));
    }
    fs::write(source.join("newer"), "the second backup")?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    let liar = grid.nodes.remove(1);
    let home = liar.kill_9();
    for (path, bytes) in old {
        fs::write(path, bytes)?;
    }
    let liar = Node::start(&home)?;
    let blank = Home::new(dir.path().join("blank"));
    let via = grid.nodes[0].address()?;
    let words = grid.owner.words();
    let recovered = blank.ok(["recover", "--phrase-file", path_str(&words)?, "--via", &via])?;
    let bad = recovered.last()["peers_bad"].to_string();
    assert!(
        bad.contains("node2") && bad.contains("went back"),
        "{}",
        recovered.last()
    );
    let target = dir.path().join("restored");
    blank.ok(["restore", "latest", "--target", path_str(&target)?])?;
    assert_same(&source, &target.join(source.strip_prefix("/")?))?;
    drop(liar);
    Ok(())
}
