//! Disks of those who keep shares, and of homes: full, read-only, failing to sync; and state files that are damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::compare::assert_same;
use tests::fixture::noise;
use tests::grid::{Grid, Node, invite};
use tests::home::{Home, path_str};
use tests::small_disk::SmallDisk;
use tests::sync_faults::SyncFaults;

use crate::healing::wait_until;
use crate::unchanged::owner_with_folders;

/// How long a daemon may take to notice.
const PATIENCE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// Files that no compression makes smaller.
fn source_of(dir: &Path, mib: usize) -> Result<PathBuf> {
    let source = dir.join("source");
    fs::create_dir_all(&source)?;
    for number in 0..mib.div_ceil(4) {
        fs::write(source.join(format!("file{number}")), noise(4 << 20, number as u64 + 1))?;
    }
    Ok(source)
}

fn restored(home: &Home, source: &Path, target: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(target);
    let wanted = format!("latest:{}", path_str(source)?);
    home.ok(["restore", &wanted, "--target", path_str(target)?])?;
    assert_same(source, target)
}

/// A friend's backup filled the lender's disk to the last byte, and then the lender's own catalog could not be opened.
#[test]
fn a_lender_keeps_a_part_of_its_disk_free_and_answers() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let Some(disk) = SmallDisk::mount_or_skip(&dir.path().join("node2"), 40)? else {
        return Ok(());
    };
    let grid = Grid::start_with(dir.path(), 2, 1, &[("store_max", "1G")])?;
    back_up_more_than_fits(&grid.owner, dir.path(), &disk)?;
    let kept = grid.nodes[1].home.ok(["status"])?.number("bytes_for_friends");
    ensure!(kept > 20 * MIB, "it keeps what fits: {kept}");
    Ok(())
}

#[test]
fn a_folder_peer_keeps_a_part_of_its_disk_free() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let Some(disk) = SmallDisk::mount_or_skip(&dir.path().join("disk2"), 40)? else {
        return Ok(());
    };
    let owner = owner_with_folders(dir.path(), 1)?;
    for gone in ["disk3", "disk4", "disk5"] {
        owner.ok(["peer", "rm", gone])?;
    }
    back_up_more_than_fits(&owner, dir.path(), &disk)
}

/// With two peers and one that may vanish, each gets as many bytes as there are.
fn back_up_more_than_fits(owner: &Home, dir: &Path, disk: &SmallDisk) -> Result<()> {
    let source = source_of(dir, 48)?;
    owner.exits(4, ["run", "--once", path_str(&source)?])?;
    // Smaller shares, for the gap that the large ones left.
    for number in 0..3 {
        fs::write(source.join(format!("small{number}")), noise(900_000, 100 + number))?;
        owner.exits(4, ["run", "--once", path_str(&source)?])?;
    }
    // A tenth of a small disk.
    let free = disk.free_bytes()?;
    ensure!(free >= 4 * MIB, "{free} bytes are left of the disk");
    restored(owner, &source, &dir.join("restored"))
}

/// After a failed fsync the kernel takes the pages for clean: the next fsync says yes to what is on no disk. A node
/// acknowledged such shares, eight times of eight.
#[test]
fn what_a_disk_failed_to_sync_is_written_anew_and_never_believed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = source_of(dir.path(), 12)?;
    let faults = SyncFaults::build(dir.path())?;
    let mut grid = Grid::start(dir.path(), 3, 1)?;
    // Shares that come to a friend's node, and its copies of heads.
    let node = grid.nodes.pop().context("three nodes")?.kill_9();
    let faulty = Node::start(&faults.at(&node, "/node3/store/", 6)?)?;
    // The owner's spool, its folder peer, and what its home keeps.
    let disk = dir.path().join("disk");
    fs::create_dir(&disk)?;
    grid.owner
        .ok(["peer", "add", "disk", &format!("dir:{}", path_str(&disk)?)])?;
    let failing = |part: &str| faults.at(&grid.owner, part, 2);
    for part in ["/spool/", "/disk/"] {
        // It may say that it could not; what it says is stored is stored.
        failing(part)?.say(["run", "--once", path_str(&source)?])?;
    }
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    let (failed, believed) = faults.outcome()?;
    ensure!(failed >= 3, "only {failed} syncs failed");
    ensure!(believed.is_empty(), "believed from the page cache: {believed:?}");
    let check = grid.owner.ok(["check", "--read-data"])?;
    ensure!(check.last()["ok"] == true, "{}", check.last());
    drop(faulty);
    Ok(())
}

/// A power cut in a store's first minute left its marker empty: the store was "of a newer version" from then on.
#[test]
fn folders_whose_marker_is_damaged_still_give_their_shares() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = source_of(dir.path(), 4)?;
    let owner = owner_with_folders(dir.path(), 2)?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    for (disk, text) in [
        ("disk1", &b""[..]),
        ("disk2", b"gridback"),
        ("disk3", &[0; 19]),
        ("disk4", b"?"),
    ] {
        fs::write(dir.path().join(disk).join("gridbackup-store"), text)?;
    }
    fs::remove_file(dir.path().join("disk5/gridbackup-store"))?;
    restored(&owner, &source, &dir.path().join("restored"))?;
    owner.ok(["check", "--read-data"])?;
    // What another version wrote is left alone.
    fs::write(dir.path().join("disk1/gridbackup-store"), "gridbackup store 2\n")?;
    let run = owner.exits(4, ["run", "--once", path_str(&source)?]);
    let said = owner.say(["peer", "ls"])?;
    ensure!(
        said.lines
            .iter()
            .any(|peer| peer["name"] == "disk1" && peer["online"] == false),
        "{said:?} {run:?}"
    );
    Ok(())
}

/// How a file can be lost.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Missing,
    Empty,
    Flipped,
    Noise,
}

fn damage(path: &Path, how: Damage) -> Result<()> {
    let whole = fs::read(path)?;
    match how {
        Damage::Missing => fs::remove_file(path)?,
        Damage::Empty => fs::write(path, b"")?,
        Damage::Flipped => {
            let mut flipped = whole;
            let at = flipped.len() / 2;
            if let Some(byte) = flipped.get_mut(at) {
                *byte ^= 1;
            }
            fs::write(path, flipped)?;
        }
        Damage::Noise => fs::write(path, noise(1000, 7))?,
    }
    Ok(())
}

/// One bad byte in `invites` kept a node from starting, and every command of its owner, `restore` too.
#[test]
fn no_damaged_state_file_stops_a_restore_or_a_backup() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    fs::create_dir(&source)?;
    fs::write(source.join("file"), noise(100_000, 1))?;
    let owner = owner_with_folders(dir.path(), 2)?;
    owner.ok(["config", "set", "listen", "/ip4/127.0.0.1/tcp/0"])?;
    // A friend, so that the roster and the invitations are read by every command.
    let friend = Home::init(dir.path().join("friend"), "friend", 2)?;
    friend.ok(["config", "set", "listen", "/ip4/127.0.0.1/tcp/0"])?;
    let daemon = Node::start_as(&owner, "run")?;
    friend.ok(["join", &invite(&owner)?])?;
    drop(daemon);
    owner.say(["run", "--once", path_str(&source)?])?;
    for name in ["api.token", "webdav.password", "scrub", "verified", "port"] {
        let path = owner.dir.join(name);
        if !path.exists() {
            fs::write(&path, b"as a later version may write it")?;
        }
    }
    let files = [
        "invites",
        "roster",
        "device.cert",
        "port",
        "lock",
        "api.token",
        "scrub",
        "verified",
    ];
    let target = dir.path().join("restored");
    for file in files {
        for how in [Damage::Missing, Damage::Empty, Damage::Flipped, Damage::Noise] {
            let path = owner.dir.join(file);
            if !path.exists() {
                continue;
            }
            damage(&path, how)?;
            restored(&owner, &source, &target).with_context(|| format!("{file} {how:?}"))?;
            let run = owner.say(["run", "--once", path_str(&source)?])?;
            ensure!(matches!(run.code, Some(0 | 4)), "{file} {how:?}: {run:?}");
        }
    }
    let doctor = owner.say(["doctor"])?;
    let named = doctor
        .lines
        .iter()
        .any(|line| line["check"] == "state" && line["text"].to_string().contains("roster"));
    ensure!(named, "what was set aside stays named: {doctor:?}");
    for file in files
        .iter()
        .map(|file| owner.dir.join(file))
        .filter(|path| path.exists())
    {
        damage(&file, Damage::Noise)?;
    }
    drop(Node::start_as(&owner, "run")?);
    Ok(())
}

/// Commands that look and bring back, and change nothing.
fn everything_that_reads(home: &Home, source: &Path, target: &Path) -> Result<()> {
    restored(home, source, target)?;
    let file = format!("latest:{}", path_str(&source.join("file0"))?);
    let commands: &[&[&str]] = &[
        &["snapshots"],
        &["queue"],
        &["ls", "latest"],
        &["cat", &file],
        &["find", "file0"],
        &["stats"],
        &["peer", "ls"],
        &["folder", "ls"],
        &["config", "get", "tolerate"],
    ];
    for command in commands {
        home.ok(*command)?;
    }
    Ok(())
}

/// A disk full to the last byte, or mounted to be read only, kept even `restore` from working: SQLite writes to read.
#[test]
fn what_only_reads_works_in_a_home_on_a_full_disk_and_on_one_that_may_only_be_read() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let Some(disk) = SmallDisk::mount_or_skip(&dir.path().join("owner"), 160)? else {
        return Ok(());
    };
    let source = source_of(dir.path(), 4)?;
    let owner = owner_with_folders(dir.path(), 2)?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let target = dir.path().join("restored");
    for was_killed in [false, true] {
        if was_killed {
            // Leaves its write-ahead log behind.
            drop(Node::start_as(&owner, "run")?.kill_9());
        }
        disk.fill()?;
        everything_that_reads(&owner, &source, &target).with_context(|| format!("full, killed: {was_killed}"))?;
        let status = owner.exits(4, ["status"])?;
        ensure!(status.text("state") == "run_failed", "{}", status.last());
        disk.empty()?;
        if was_killed {
            drop(Node::start_as(&owner, "run")?.kill_9());
        }
        disk.freeze()?;
        everything_that_reads(&owner, &source, &target).with_context(|| format!("read only, killed: {was_killed}"))?;
        owner.ok(["status"])?;
        let refused = owner.exits(1, ["run", "--once", path_str(&source)?])?;
        ensure!(refused.stderr.contains("cannot be written"), "{}", refused.stderr);
        disk.thaw()?;
    }
    owner.ok(["run", "--once", path_str(&source)?])?;
    Ok(())
}

/// Two nodes that keep all of what an owner has, and the source of that.
fn lenders(dir: &Path) -> Result<(Grid, PathBuf)> {
    let source = source_of(dir, 4)?;
    let grid = Grid::start(dir, 2, 1)?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    Ok((grid, source))
}

/// Others filled the lender's disk to the last byte: its node did not start again, and what it keeps could not be restored.
#[test]
fn a_node_on_a_full_disk_starts_serves_and_goes_on_when_there_is_room() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let Some(disk) = SmallDisk::mount_or_skip(&dir.path().join("node2"), 40)? else {
        return Ok(());
    };
    let (mut grid, source) = lenders(dir.path())?;
    let lender = grid.nodes.pop().context("two nodes")?.kill_9();
    let other = grid.nodes.pop().context("two nodes")?.kill_9();
    disk.fill()?;
    let node = Node::start(&lender)?;
    restored(&grid.owner, &source, &dir.path().join("restored"))?;
    // Ended in order it leaves no journal behind, and has no room for one when it starts.
    lender.ok(["stop"])?;
    let journal = lender.dir.join("catalog.db-wal");
    wait_until("the node has ended", || Ok(!journal.exists()))?;
    drop(node);
    disk.fill()?;
    let node = Node::start(&lender)?;
    restored(&grid.owner, &source, &dir.path().join("restored"))?;
    lender.ok(["peer", "ls"])?;
    lender.ok(["status"])?;
    let refused = lender.exits(1, ["check"])?;
    ensure!(refused.stderr.contains("make room"), "{}", refused.stderr);

    disk.empty()?;
    wait_until("the node writes again", || Ok(lender.say(["check"])?.code == Some(0)))?;
    fs::write(source.join("more"), noise(100_000, 99))?;
    let _other = Node::start(&other)?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    restored(&grid.owner, &source, &dir.path().join("restored"))?;
    drop(node);
    Ok(())
}

/// A node that only stores for friends needs no catalog for that, and did not start without one.
#[test]
fn a_node_whose_catalog_is_damaged_serves_its_friends_and_says_what_to_do() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut grid, source) = lenders(dir.path())?;
    let lender = grid.nodes.pop().context("two nodes")?.kill_9();
    let other = grid.nodes.pop().context("two nodes")?.kill_9();
    let catalog = lender.dir.join("catalog.db");
    let kept = fs::read(&catalog)?;
    for how in [Damage::Noise, Damage::Empty, Damage::Missing] {
        fs::write(&catalog, &kept)?;
        damage(&catalog, how)?;
        let node = Node::start(&lender).with_context(|| format!("{how:?}"))?;
        restored(&grid.owner, &source, &dir.path().join("restored")).with_context(|| format!("{how:?}"))?;
        for command in [&["status"][..], &["run", "--once"]] {
            let said = lender.exits(1, command)?;
            ensure!(
                said.stderr.contains("catalog.db") && said.stderr.contains("gridbackup recover"),
                "{how:?}: {}",
                said.stderr
            );
        }
        node.kill_9();
    }
    // As the message says.
    let _other = Node::start(&other)?;
    fs::write(&catalog, noise(10_000, 3))?;
    fs::rename(&catalog, dir.path().join("moved-away"))?;
    lender.ok(["recover"])?;
    let _node = Node::start(&lender)?;
    lender.ok(["status"])?;
    grid.owner.ok(["check", "--read-data"])?;
    Ok(())
}

/// One wrong letter in config.toml kept everything from working: a restore, too, and what is kept for friends.
#[test]
fn a_damaged_config_stops_no_restore_and_no_serving_and_nothing_is_backed_up_by_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut grid, source) = lenders(dir.path())?;
    let owner = grid.owner.clone();
    let disk = dir.path().join("disk");
    fs::create_dir(&disk)?;
    owner.ok(["peer", "add", "disk", &format!("dir:{}", path_str(&disk)?)])?;
    owner.ok(["folder", "add", path_str(&source)?])?;
    owner.ok(["run", "--once"])?;
    // A friend's node with such a config serves, and nobody else is there but the folder.
    let lender = grid.nodes.pop().context("two nodes")?.kill_9();
    let _away = grid.nodes.pop().context("two nodes")?.kill_9();
    let spoil = |home: &Home| -> Result<String> {
        let path = home.dir.join("config.toml");
        let right = fs::read_to_string(&path)?;
        fs::write(&path, format!("{right}\ntolerat = 2\n"))?;
        Ok(right)
    };
    spoil(&lender)?;
    let _lender = Node::start(&lender)?;
    let right = spoil(&owner)?;
    let target = dir.path().join("restored");
    restored(&owner, &source, &target)?;
    for command in [
        &["snapshots"][..],
        &["ls", "latest"],
        &["find", "file0"],
        &["peer", "ls"],
    ] {
        owner.ok(command)?;
    }
    let status = owner.exits(4, ["status"])?;
    ensure!(status.text("state") == "config_damaged", "{}", status.last());
    ensure!(status.text("headline").contains("tolerat"), "{}", status.last());
    for command in [&["run", "--once"][..], &["prune"], &["repair"]] {
        let refused = owner.exits(1, command)?;
        ensure!(refused.stderr.contains("config.toml"), "{}", refused.stderr);
    }

    // So does the daemon, until the file is right again: then it backs up at once.
    let daemon = Node::start_as(&owner, "run")?;
    daemon.event("config_damaged", PATIENCE)?;
    fs::write(source.join("new"), noise(10_000, 5))?;
    owner.ok(["cat", &format!("latest:{}", path_str(&source.join("file0"))?)])?;
    let seen = owner.ok(["ls", &format!("latest:{}", path_str(&source)?)])?;
    ensure!(seen.lines.len() == 1, "nothing is backed up: {seen:?}");
    fs::write(owner.dir.join("config.toml"), right)?;
    daemon.event("config_mended", PATIENCE)?;
    wait_until("the new file is backed up", || {
        Ok(owner
            .say(["ls", &format!("latest:{}", path_str(&source)?)])?
            .lines
            .len()
            == 2)
    })?;
    Ok(())
}
