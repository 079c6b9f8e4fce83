//! Voters of disks that are lost, removed and replaced: who may open a disk then, and what is read of it meanwhile.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::fixture::noise;
use tests::home::{Home, path_str};
use tests::needs;

use crate::disks::{MIB, Served, info, missing, second_machine, tool};
use crate::mount::Mount;
use crate::unchanged::owner_with_folders;

fn voters(home: &Home, name: &str) -> Result<Vec<Value>> {
    Ok(home.ok(["disk", "voters", name])?.lines)
}

fn names(voters: &[Value]) -> Vec<&str> {
    voters.iter().filter_map(|voter| voter["peer"].as_str()).collect()
}

fn states(home: &Home) -> Result<Vec<String>> {
    let said = home.say(["status"])?;
    let reasons = said.last()["reasons"].as_array().cloned().unwrap_or_default();
    Ok(reasons
        .iter()
        .filter_map(|reason| Some(reason["state"].as_str()?.to_owned()))
        .collect())
}

/// The content of a disk as `disk export` writes it.
fn exported(home: &Home, dir: &Path, args: &[&str]) -> Result<Vec<u8>> {
    let file = dir.join("exported");
    home.ok([&["disk", "export"], args, &[path_str(&file)?]].concat())?;
    let content = fs::read(&file)?;
    fs::remove_file(file)?;
    Ok(content)
}

/// A disk with something on it, and what that is.
fn with_disk(home: &Home, dir: &Path) -> Result<Vec<u8>> {
    let mut content = noise(6 * MIB, 1);
    let image = dir.join("image");
    fs::write(&image, &content)?;
    home.ok(["disk", "create", "vm", "--size", "32M"])?;
    home.ok(["disk", "import", "vm", path_str(&image)?])?;
    content.resize(32 * MIB, 0);
    Ok(content)
}

/// Folders of these names as peers.
fn add_folders(home: &Home, dir: &Path, folders: &[&str]) -> Result<()> {
    for name in folders {
        let folder = dir.join(name);
        fs::create_dir_all(&folder)?;
        home.ok(["peer", "add", name, &format!("dir:{}", path_str(&folder)?)])?;
    }
    Ok(())
}

#[test]
fn a_voter_that_is_removed_is_replaced_and_then_another_old_one_may_be_lost() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = Home::init(dir.path().join("owner"), "owner", 1)?;
    add_folders(&owner, dir.path(), &["a", "b", "c"])?;
    let content = with_disk(&owner, dir.path())?;
    add_folders(&owner, dir.path(), &["d"])?;
    let before = voters(&owner, "vm")?;
    assert_eq!(names(&before).len(), 3);
    assert!(
        before
            .iter()
            .all(|voter| voter["promised"] == "this machine" && voter["online"] == true)
    );
    assert!(states(&owner)?.iter().all(|state| !state.starts_with("disk_")));

    let said = owner.ok(["peer", "rm", "a"])?;
    let is_named = |line: &Value| line.to_string().contains("votes for the disk vm");
    ensure!(said.lines.iter().any(is_named), "{said:?}");
    ensure!(states(&owner)?.contains(&"disk_voter_gone".to_owned()));
    let gone = voters(&owner, "vm")?;
    assert!(gone.iter().any(|voter| voter["peer"] == "a" && voter["gone"] == true));
    // One more, and nobody could open it.
    let said = owner.exits(1, ["peer", "rm", "b"])?;
    ensure!(said.stderr.contains("cannot be opened any more"), "{}", said.stderr);

    let socket = dir.path().join("socket");
    let served = Served::start(&owner, "vm", &socket)?;
    served.process.end(Signal::INT)?;
    let log = fs::read_to_string(owner.dir.with_extension("mount.log"))?;
    ensure!(
        log.contains("has other voters from now on, 3: a is a peer no more"),
        "{log}"
    );
    let after = voters(&owner, "vm")?;
    let mut now = names(&after);
    now.sort_unstable();
    assert_eq!(now, ["b", "c", "d"]);
    ensure!(!states(&owner)?.contains(&"disk_voter_gone".to_owned()));
    // Nothing is replaced twice.
    let said = owner.ok(["disk", "voters", "vm", "--replace"])?;
    ensure!(said.last()["action"] == "unchanged", "{}", said.last());

    owner.ok(["repair"])?;
    fs::rename(dir.path().join("b"), dir.path().join("b-away"))?;
    ensure!(exported(&owner, dir.path(), &["vm"])? == content);
    ensure!(
        voters(&owner, "vm")?
            .iter()
            .any(|voter| voter["peer"] == "b" && voter["online"] == false)
    );
    Ok(())
}

#[test]
fn a_disk_whose_voters_are_lost_is_read_all_the_same_and_opened_by_others() -> Result<()> {
    needs!(missing(&["qemu-io"]));
    let dir = tempfile::tempdir()?;
    let owner = Home::init(dir.path().join("owner"), "owner", 2)?;
    add_folders(&owner, dir.path(), &["a", "b", "c"])?;
    let content = with_disk(&owner, dir.path())?;
    add_folders(&owner, dir.path(), &["d", "e"])?;
    for lost in ["a", "b"] {
        fs::rename(dir.path().join(lost), dir.path().join(format!("{lost}-away")))?;
    }
    let socket = dir.path().join("socket");
    let address = format!("unix:{}", path_str(&socket)?);
    let said = owner.exits(13, ["disk", "serve", "vm", "--nbd", &address])?;
    for hint in ["--committed", "--replace --lost"] {
        ensure!(said.stderr.contains(hint), "{}", said.stderr);
    }
    ensure!(states(&owner)?.contains(&"disk_shut".to_owned()));
    owner.exits(13, ["disk", "voters", "vm", "--replace"])?;
    let heads = head_files(dir.path())?;
    ensure!(exported(&owner, dir.path(), &["vm", "--committed"])? == content);
    owner.ok(["disk", "check", "vm", "--committed"])?;
    assert_eq!(head_files(dir.path())?, heads, "reading wrote to peers");

    // New packs would wait for those that are only away.
    owner.ok(["peer", "rm", "a", "--force"])?;
    owner.ok(["peer", "rm", "b", "--force"])?;
    ensure!(exported(&owner, dir.path(), &["vm", "--committed"])? == content);
    owner.ok(["disk", "voters", "vm", "--replace", "--lost"])?;
    let now = voters(&owner, "vm")?;
    assert!(
        now.len() == 3 && now.iter().all(|voter| voter["online"] == true),
        "{now:?}"
    );
    ensure!(!states(&owner)?.contains(&"disk_shut".to_owned()));
    let said = owner.exits(2, ["disk", "voters", "vm", "--replace", "--lost"])?;
    ensure!(said.stderr.contains("none is lost"), "{}", said.stderr);
    let served = Served::start(&owner, "vm", &socket)?;
    tool(
        "qemu-io",
        &["-f", "raw", "-c", "write -P 5 0 1M", "-c", "flush", &served.uri],
    )?;
    // Also while it is served, as of its last commit.
    owner.ok(["disk", "flush", "vm"])?;
    let mut newer = content.clone();
    newer[..MIB].fill(5);
    ensure!(exported(&owner, dir.path(), &["vm", "--committed"])? == newer);
    served.process.end(Signal::INT)?;

    // Those that were lost come back: what they promised counts for nothing any more.
    for lost in ["a", "b"] {
        fs::rename(dir.path().join(format!("{lost}-away")), dir.path().join(lost))?;
    }
    add_folders(&owner, dir.path(), &["a", "b"])?;
    fs::remove_dir_all(owner.dir.join("disks"))?;
    ensure!(exported(&owner, dir.path(), &["vm"])? == newer);
    Ok(())
}

/// Heads that folders keep: their names and lengths.
fn head_files(dir: &Path) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    let mut open: Vec<_> = ["c", "d", "e"].iter().map(|name| dir.join(name)).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder)? {
            let (entry, path) = entry.map(|entry| (entry.metadata(), entry.path()))?;
            match entry?.is_dir() {
                true => open.push(path),
                false => found.push((path_str(&path)?.to_owned(), fs::metadata(&path)?.len())),
            }
        }
    }
    found.sort();
    Ok(found)
}

#[test]
fn a_writer_that_wakes_up_after_another_machine_replaced_the_voters_is_refused_and_loses_nothing_in_silence()
-> Result<()> {
    needs!(missing(&["qemu-io"]));
    let dir = tempfile::tempdir()?;
    let owner = owner_with_folders(dir.path(), 1)?;
    owner.ok(["disk", "create", "vm", "--size", "64M"])?;
    let second = second_machine(&owner, dir.path())?;
    let (here, there) = (dir.path().join("here"), dir.path().join("there"));
    let io = |uri: &str, commands: &[&str]| -> Result<String> {
        let mut arguments = vec!["-f", "raw"];
        commands.iter().for_each(|command| arguments.extend(["-c", command]));
        arguments.push(uri);
        tool("qemu-io", &arguments)
    };
    let served = Served::start(&owner, "vm", &here)?;
    io(&served.uri, &["write -P 1 0 64k", "flush"])?;
    owner.ok(["disk", "flush", "vm"])?;
    io(&served.uri, &["write -P 2 64k 64k", "flush"])?;
    let sleeper = Pid::from_raw(i32::try_from(served.process.pid())?).context("a process has a number")?;
    kill_process(sleeper, Signal::STOP)?;

    let removed = names(&voters(&second, "vm")?).first().map(|name| (*name).to_owned());
    second.ok(["peer", "rm", &removed.context("it has voters")?, "--force"])?;
    let said = second.exits(1, ["disk", "voters", "vm", "--replace"])?;
    ensure!(
        said.stderr.contains("last written by the machine owner"),
        "{}",
        said.stderr
    );
    second.ok(["disk", "voters", "vm", "--replace", "--take-over", "now"])?;
    assert_eq!(voters(&second, "vm")?.len(), 3);
    let served_there = Served::start(&second, "vm", &there)?;
    io(
        &served_there.uri,
        &["read -P 1 0 64k", "read -P 0 64k 64k", "write -P 3 128k 64k", "flush"],
    )?;
    second.ok(["disk", "flush", "vm"])?;

    kill_process(sleeper, Signal::CONT)?;
    // What it still acknowledges within its term is its own journal's, and salvaged with it.
    let _either = io(&served.uri, &["write -P 4 192k 64k", "flush"]);
    served.process.end_with(4)?;
    let log = fs::read_to_string(owner.dir.with_extension("mount.log"))?;
    ensure!(log.contains("the machine second is its writer"), "{log}");
    served_there.process.end(Signal::INT)?;

    owner.ok(["disk", "salvage", "vm", "mine"])?;
    let mine = Served::start(&owner, "mine", &here)?;
    io(
        &mine.uri,
        &["read -P 1 0 64k", "read -P 2 64k 64k", "read -P 0 128k 64k"],
    )?;
    mine.process.end(Signal::INT)?;
    // And it takes the disk back by voters that it never asked before.
    let address = format!("unix:{}", path_str(&here)?);
    let args = ["disk", "serve", "vm", "--nbd", &address, "--take-over", "now"];
    let back = Mount::serving(&owner, &args, "disk_served")?;
    let uri = format!("nbd+unix:///vm?socket={}", path_str(&here)?);
    io(&uri, &["read -P 1 0 64k", "read -P 0 64k 64k", "read -P 3 128k 64k"])?;
    back.end(Signal::INT)?;
    assert_eq!(info(&owner, "vm")?["voters"].as_array().map(Vec::len), Some(3));
    Ok(())
}

/// Killed at any moment, the disk has the voters before or those after, or both have to be asked: it opens, and has what it had.
#[test]
fn replacing_voters_may_be_cut_off_at_any_moment() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = Home::init(dir.path().join("owner"), "owner", 1)?;
    add_folders(&owner, dir.path(), &["a", "b", "c"])?;
    let content = with_disk(&owner, dir.path())?;
    add_folders(&owner, dir.path(), &["d", "e"])?;
    let folders = ["a", "b", "c", "d", "e"];
    for round in 0..12_u64 {
        // One that votes is away, so that there is something to replace; and back before the next one is.
        let now = voters(&owner, "vm")?;
        let away = names(&now)[round as usize % now.len()].to_owned();
        let (at, aside) = (dir.path().join(&away), dir.path().join("aside"));
        ensure!(folders.contains(&away.as_str()));
        fs::rename(&at, &aside)?;
        let mut command = owner.command(["disk", "voters", "vm", "--replace"]);
        let mut replacing = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(150 + 130 * round));
        replacing.kill()?;
        replacing.wait()?;
        fs::rename(&aside, &at)?;
        ensure!(exported(&owner, dir.path(), &["vm"])? == content, "round {round}");
    }
    // With all there, all is settled.
    owner.ok(["disk", "voters", "vm", "--replace"])?;
    let now = voters(&owner, "vm")?;
    assert!(
        now.iter()
            .all(|voter| voter["leaving"] == false && voter["online"] == true),
        "{now:?}"
    );
    assert_eq!(now.len(), 5);
    Ok(())
}
