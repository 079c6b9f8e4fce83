//! Content of which too few shares are left, peers that are peers no more, checks that look again: what is said, and what is
//! done about it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::compare::assert_same;
use tests::fixture::{flip_byte, noise};
use tests::grid::{Grid, Node, invite, share_files};
use tests::home::{Home, Said, path_str};
use tests::proxy::Proxy;

use crate::healing::wait_until;
use crate::main_job::recover_and_restore;

/// Files of every tier: in the log, in the index, in packs.
fn source(dir: &Path) -> Result<PathBuf> {
    let source = dir.join("source");
    fs::create_dir_all(source.join("folder"))?;
    for (name, size) in [
        ("tiny", 50),
        ("inline", 3_000),
        ("small", 60_000),
        ("folder/large", 2 << 20),
    ] {
        fs::write(source.join(name), noise(size, size as u64))?;
    }
    Ok(source)
}

/// An owner with so many folders as peers.
fn owner(dir: &Path, folders: usize, tolerate: u8) -> Result<Home> {
    let owner = Home::init(dir.join("owner"), "owner", tolerate)?;
    for number in 1..=folders {
        add(&owner, dir, number)?;
    }
    Ok(owner)
}

fn add(owner: &Home, dir: &Path, number: usize) -> Result<Said> {
    let folder = dir.join(format!("disk{number}"));
    fs::create_dir_all(&folder)?;
    owner.ok([
        "peer",
        "add",
        &format!("disk{number}"),
        &format!("dir:{}", path_str(&folder)?),
    ])
}

fn empty(folder: &Path) -> Result<()> {
    Ok(share_files(folder)?.iter().try_for_each(fs::remove_file)?)
}

/// Paths of the problems that a command told.
fn named(said: &Said) -> Vec<String> {
    let problems = said.lines.iter().filter(|line| line["message_type"] == "problem");
    let paths = problems.filter_map(|problem| problem["path"].as_str());
    paths
        .filter_map(|path| path.rsplit('/').next())
        .map(str::to_owned)
        .collect()
}

/// `verify` took the newest snapshot that was complete once, though content of it was lost.
#[test]
fn a_drill_reads_the_newest_snapshot_that_is_whole_and_names_those_that_are_not() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = source(dir.path())?;
    let owner = owner(dir.path(), 3, 1)?;
    let first = owner.ok(["run", "--once", path_str(&source)?])?;
    let disks = [1, 2].map(|number| dir.path().join(format!("disk{number}")));
    let shares = || -> Result<BTreeSet<PathBuf>> {
        let all = disks.iter().map(|disk| share_files(disk)).collect::<Result<Vec<_>>>()?;
        Ok(all.into_iter().flatten().collect())
    };
    let before = shares()?;
    let added = source.join("added");
    fs::write(&added, noise(1 << 20, 77))?;
    let second = owner.ok(["run", "--once", path_str(&source)?])?;
    owner.ok(["verify"])?;
    // Two of the three shares of what came with the second are gone, and so is the file itself.
    shares()?.difference(&before).try_for_each(fs::remove_file)?;
    fs::remove_file(&added)?;
    owner.exits(4, ["check"])?;
    let said = owner.exits(1, ["verify", "--files", "50"])?;
    ensure!(said.text("snapshot") == first.text("snapshot"), "{}", said.last());
    ensure!(
        said.number("snapshots_broken") == 1 && said.number("unreadable") == 0,
        "{}",
        said.last()
    );
    let id = &second.text("snapshot")[..8];
    let problem = said.lines.iter().find(|line| line["message_type"] == "problem");
    let problem = problem.context("the broken one is named")?;
    ensure!(problem["error"].to_string().contains(id), "{problem}");
    Ok(())
}

fn comes_back(dir: &Path, owner: &Home, source: &Path, disks: &[usize]) -> Result<()> {
    let blank = Home::new(dir.join("blank"));
    let words = owner.words();
    let mut command = vec![
        "recover".to_owned(),
        "--phrase-file".to_owned(),
        path_str(&words)?.to_owned(),
    ];
    for number in disks {
        let place = dir.join(format!("disk{number}"));
        command.extend(["--via".to_owned(), format!("dir:{}", path_str(&place)?)]);
    }
    blank.ok(&command)?;
    let target = dir.join("restored");
    blank.ok(["restore", "latest", "--target", path_str(&target)?])?;
    assert_same(source, &target.join(source.strip_prefix("/")?))
}

/// Three of four disks were emptied and every file was on the owner's disk. `run --once` said "complete", copies were
/// "complete" and could not be restored, the second `check` said "All accounted for".
#[test]
fn what_three_of_four_disks_lost_is_named_twice_and_the_next_run_sends_it_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (source, owner) = (source(dir.path())?, owner(dir.path(), 4, 1)?);
    owner.ok(["run", "--once", path_str(&source)?])?;
    for number in 1..=3 {
        empty(&dir.path().join(format!("disk{number}")))?;
    }
    for _ in 0..2 {
        let check = owner.exits(4, ["check"])?;
        assert_eq!(check.last()["ok"], false, "{}", check.last());
        assert_eq!(check.number("files_lost"), 3, "{}", check.last());
        let mut names = named(&check);
        names.sort();
        assert_eq!(names, ["inline", "large", "small"]);
        assert!(
            check.number("shares_found") < check.number("shares_expected"),
            "{}",
            check.last()
        );
    }
    let repair = owner.exits(4, ["repair"])?;
    assert_eq!(repair.number("files_lost"), 3, "{}", repair.last());
    fs::copy(source.join("folder/large"), source.join("copy"))?;
    let run = owner.ok(["run", "--once", path_str(&source)?])?;
    assert_eq!(run.last()["complete"], true, "{}", run.last());
    let check = owner.ok(["check", "--read-data"])?;
    assert_eq!(check.number("shares_found"), check.number("shares_expected"));
    comes_back(dir.path(), &owner, &source, &[1, 2, 3])
}

/// Nobody looked: the run itself has to notice, as it is all that a cron job does.
#[test]
fn a_run_alone_notices_emptied_disks() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (source, owner) = (source(dir.path())?, owner(dir.path(), 4, 1)?);
    owner.ok(["run", "--once", path_str(&source)?])?;
    for number in 1..=3 {
        empty(&dir.path().join(format!("disk{number}")))?;
    }
    owner.ok(["run", "--once", path_str(&source)?])?;
    owner.ok(["check", "--read-data"])?;
    comes_back(dir.path(), &owner, &source, &[2, 3, 4])
}

#[test]
fn n_shares_are_due_at_every_check_whether_one_is_gone_or_flipped() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (source, owner) = (source(dir.path())?, owner(dir.path(), 4, 1)?);
    owner.ok(["run", "--once", path_str(&source)?])?;
    let disk = dir.path().join("disk2");
    let share = share_files(&disk)?.pop().context("a share")?;
    fs::remove_file(&share)?;
    for _ in 0..2 {
        let check = owner.exits(4, ["check"])?;
        assert_eq!(check.number("shares_found") + 1, check.number("shares_expected"));
        assert_eq!(check.number("files_lost"), 0, "{}", check.last());
    }
    owner.ok(["repair"])?;
    owner.ok(["check"])?;
    let share = share_files(&disk)?.pop().context("a share")?;
    flip_byte(&share)?;
    for _ in 0..2 {
        let check = owner.exits(4, ["check", "--read-data"])?;
        assert_eq!(check.number("shares_bad"), 1, "{}", check.last());
    }
    assert_eq!(
        owner.exits(4, ["check"])?.number("shares_bad"),
        1,
        "without reading, too"
    );
    // It is as it was again: a share that reads back well counts, and nothing needs to be sent.
    flip_byte(&share)?;
    let repair = owner.ok(["repair"])?;
    assert_eq!(repair.number("shares_rebuilt"), 0, "{}", repair.last());
    owner.ok(["check", "--read-data"])?;
    Ok(())
}

#[test]
fn a_removed_disk_counts_for_nothing_and_says_before_what_it_costs() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (source, owner) = (source(dir.path())?, owner(dir.path(), 4, 1)?);
    owner.ok(["run", "--once", path_str(&source)?])?;
    fs::remove_file(source.join("small"))?;
    let shares = share_files(&dir.path().join("disk1"))?.len() as u64;
    let dry = owner.ok(["peer", "rm", "disk1", "--dry-run"])?;
    assert_eq!(
        (dry.number("shares"), dry.number("files_lost")),
        (shares, 0),
        "{}",
        dry.last()
    );
    assert!(dry.number("bytes_again") > 0, "{}", dry.last());
    let removed = owner.ok(["peer", "rm", "disk1"])?;
    assert_eq!(removed.lines[0]["message_type"], "peer_removal");
    let check = owner.exits(4, ["check"])?;
    assert_eq!(
        check.number("shares_found") + shares,
        check.number("shares_expected"),
        "{}",
        check.last()
    );

    // Another is taken out of the config by hand, a third would take a file with it that is not here any more.
    let config = owner.dir.join("config.toml");
    let text = fs::read_to_string(&config)?;
    fs::write(&config, text.replace("disk2", "gone").replace("dir:", "dir:/nowhere"))?;
    owner.exits(4, ["repair"])?;
    fs::write(&config, &text)?;
    owner.ok(["repair"])?;
    owner.ok(["peer", "rm", "disk2", "--force"])?;
    let refused = owner.exits(1, ["peer", "rm", "disk3"])?;
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(named(&refused), ["small"]);
    owner.ok(["peer", "rm", "disk3", "--force"])?;
    let repair = owner.exits(4, ["repair"])?;
    assert_eq!(repair.last()["ok"], false, "{}", repair.last());

    for number in 5..=7 {
        add(&owner, dir.path(), number)?;
    }
    let run = owner.exits(4, ["run", "--once", path_str(&source)?])?;
    assert_eq!(run.number("files_lost"), 1, "{}", run.last());
    assert_eq!(named(&run), ["small"]);
    comes_back(dir.path(), &owner, &source, &[5, 6, 7])?;
    // Nobody wants it any more: then nothing is amiss.
    owner.ok(["forget", "--keep-last", "1", "--prune"])?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    owner.ok(["repair"])?;
    Ok(())
}

/// `check --read-data` over a line that breaks off took every share for damaged, and repair never believed them again.
#[test]
fn a_line_that_breaks_off_condemns_no_share() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = source(dir.path())?;
    let mut grid = Grid::start(dir.path(), 2, 1)?;
    let home = Home::init(dir.path().join("node3"), "node3", 1)?;
    let proxy = Proxy::start()?;
    home.ok(["config", "set", "listen", "/ip4/127.0.0.1/tcp/0"])?;
    let announced = format!("/ip4/127.0.0.1/tcp/{}", proxy.at.port());
    home.ok(["config", "set", "announce", &announced])?;
    home.ok(["join", &invite(&grid.nodes[0].home)?])?;
    let node = Node::start(&home)?;
    let port = node.ready["addresses"][0].as_str().and_then(|at| at.split('/').nth(4));
    proxy.forward_to(([127, 0, 0, 1], port.context("a port")?.parse()?).into());
    grid.nodes.push(node);
    wait_until("all three have their shares", || {
        Ok(grid.owner.say(["run", "--once", path_str(&source)?])?.code == Some(0)
            && grid.owner.say(["check"])?.code == Some(0))
    })?;
    let all = grid.owner.ok(["check", "--read-data"])?;
    // The list of shares comes through, a share does not.
    proxy.cut_after(100_000);
    let cut = grid.owner.exits(4, ["check", "--read-data"])?;
    assert_eq!(cut.number("shares_bad"), 0, "{}", cut.last());
    assert!(cut.number("shares_unchecked") > 0, "{}", cut.last());
    proxy.cut_after(u64::MAX);
    // A line that has just broken may take another try.
    wait_until("all is read again", || {
        let again = grid.owner.say(["check", "--read-data"])?;
        assert_eq!(again.number("shares_bad"), 0, "{}", again.last());
        Ok(again.code == Some(0) && again.number("shares_found") == all.number("shares_found"))
    })?;
    let repair = grid.owner.ok(["repair"])?;
    assert_eq!(repair.number("shares_rebuilt"), 0, "{}", repair.last());
    Ok(())
}

/// A cron job's runs are all that ever looks: a dead friend was counted for ever, with "Safe" and exit 0.
#[test]
fn runs_alone_give_a_dead_friend_up_and_what_it_held_counts_no_more() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = source(dir.path())?;
    let mut grid = Grid::start_with(dir.path(), 4, 1, &[("suspect_after", "1s"), ("lost_after", "1s")])?;
    wait_until("all four have their shares", || {
        Ok(grid.owner.say(["run", "--once", path_str(&source)?])?.code == Some(0)
            && grid.owner.say(["check"])?.code == Some(0))
    })?;
    grid.nodes.remove(1).kill_9();
    wait_until("the dead friend is given up", || {
        std::thread::sleep(Duration::from_millis(500));
        grid.owner.say(["run", "--once", path_str(&source)?])?;
        let said = grid.owner.ok(["peer", "ls"])?;
        let dead = said
            .lines
            .iter()
            .find(|line| line["name"] == "node2")
            .context("a peer")?;
        Ok(dead["standing"] == "lost" && dead["bytes_for_me"] == 0)
    })?;
    let target = dir.path().join("restored");
    let blank = dir.path().join("blank");
    recover_and_restore(&blank, &grid.owner.words(), &grid.nodes[0].address()?, &target)?;
    assert_same(&source, &target.join(source.strip_prefix("/")?))
}

/// A friend who joins a grid that already runs.
fn one_more(dir: &Path, grid: &mut Grid, number: usize, settings: &[(&str, &str)]) -> Result<()> {
    let name = format!("node{number}");
    let home = Home::init(dir.join(&name), &name, 1)?;
    home.ok(["config", "set", "listen", "/ip4/127.0.0.1/tcp/0"])?;
    for (key, value) in settings {
        home.ok(["config", "set", key, value])?;
    }
    home.ok(["join", &invite(&grid.nodes[0].home)?])?;
    grid.nodes.push(Node::start(&home)?);
    Ok(())
}

/// Backs up until all peers have what they should.
fn back_up_until_all_is_there(owner: &Home, source: &Path) -> Result<()> {
    wait_until("all have their shares", || {
        Ok(owner.say(["run", "--once", path_str(source)?])?.code == Some(0) && owner.say(["check"])?.code == Some(0))
    })?;
    Ok(())
}

/// What a friend had is gone with its disk.
fn lose(node: Node) -> Result<()> {
    Ok(fs::remove_dir_all(node.kill_9().dir)?)
}

/// Recovers in a new home from one friend, and restores everything.
fn comes_back_from(dir: &Path, owner: &Home, friend: &Node, source: &Path) -> Result<()> {
    let target = dir.join("restored");
    recover_and_restore(&dir.join("blank"), &owner.words(), &friend.address()?, &target)?;
    assert_same(source, &target.join(source.strip_prefix("/")?))
}

/// Three of four friends were lost, new ones joined, and the runs said "complete": what was on the lost ones was never sent again.
#[test]
fn what_more_friends_took_with_them_than_may_be_lost_is_named_and_sent_again_to_new_ones() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = source(dir.path())?;
    let settings = [("suspect_after", "1s"), ("lost_after", "1s")];
    let mut grid = Grid::start_with(dir.path(), 4, 1, &settings)?;
    back_up_until_all_is_there(&grid.owner, &source)?;
    for node in grid.nodes.drain(1..) {
        lose(node)?;
    }
    wait_until("the three are given up, and what they had is named", || {
        std::thread::sleep(Duration::from_millis(500));
        let said = grid.owner.say(["repair"])?;
        let mut names = named(&said);
        names.sort();
        Ok(said.code == Some(4) && said.number("files_lost") == 3 && names == ["inline", "large", "small"])
    })?;
    let mut shortages = Vec::new();
    for _ in 0..2 {
        let check = grid.owner.exits(4, ["check"])?;
        assert_eq!(
            (check.number("files_lost"), named(&check).len()),
            (3, 3),
            "{}",
            check.last()
        );
        shortages.push((check.number("shares_found"), check.number("shares_expected")));
    }
    assert!(
        shortages[0] == shortages[1] && shortages[0].0 < shortages[0].1,
        "{shortages:?}"
    );
    let status = grid.owner.exits(4, ["status"])?;
    // The tiny one is in lost logs: it is of no pack that could be named, and as lost.
    assert_eq!(
        (status.text("state"), status.number("files_lost")),
        ("lost", 4),
        "{}",
        status.last()
    );

    for number in 5..=7 {
        one_more(dir.path(), &mut grid, number, &settings)?;
    }
    let run = grid.owner.say(["run", "--once", path_str(&source)?])?;
    assert!(
        run.number("bytes_read") >= 2 << 20,
        "read from the source again: {}",
        run.last()
    );
    back_up_until_all_is_there(&grid.owner, &source)?;
    assert_eq!(grid.owner.ok(["check", "--read-data"])?.number("files_lost"), 0);
    assert_eq!(grid.owner.ok(["status"])?.last()["safe"], true);
    // As many as are tolerated, and the only old one at that.
    lose(grid.nodes.remove(0))?;
    comes_back_from(dir.path(), &grid.owner, &grid.nodes[0], &source)
}

/// The second `check` had struck the missing share off, and found all that was recorded.
#[test]
fn a_share_that_a_friend_lost_is_missed_at_every_check() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = source(dir.path())?;
    let grid = Grid::start(dir.path(), 3, 1)?;
    back_up_until_all_is_there(&grid.owner, &source)?;
    let store = grid.nodes[1].home.dir.join("store");
    fs::remove_file(share_files(&store)?.pop().context("a share")?)?;
    for _ in 0..2 {
        let check = grid.owner.exits(4, ["check"])?;
        assert_eq!(
            check.number("shares_found") + 1,
            check.number("shares_expected"),
            "{}",
            check.last()
        );
        assert_eq!(check.last()["ok"], false, "{}", check.last());
        assert_eq!(check.number("files_lost"), 0, "{}", check.last());
    }
    let repair = grid.owner.ok(["repair"])?;
    assert_eq!(repair.number("shares_rebuilt"), 1, "{}", repair.last());
    grid.owner.ok(["check", "--read-data"])?;
    Ok(())
}

/// What the removed one held went on being counted: "protected", "All as safe as asked for", and after one real loss nothing
/// came back.
#[test]
fn a_friend_removed_by_the_founder_counts_for_nothing_and_its_shares_are_built_anew() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = source(dir.path())?;
    let mut grid = Grid::start(dir.path(), 3, 1)?;
    back_up_until_all_is_there(&grid.owner, &source)?;
    // The fourth has nothing: every share has its place already.
    one_more(dir.path(), &mut grid, 4, &[])?;
    let daemon = Node::start_as(&grid.owner, "run")?;
    wait_until("the owner knows the fourth", || {
        Ok(grid.owner.ok(["peer", "ls"])?.lines.len() == 4)
    })?;
    assert_eq!(share_files(&grid.nodes[3].home.dir.join("store"))?.len(), 0);
    grid.nodes[0].home.ok(["peer", "rm", "node2"])?;
    lose(grid.nodes.remove(1))?;
    wait_until(
        "the owner hears of it, and builds its shares anew at the fourth",
        || {
            let peers = grid.owner.ok(["peer", "ls"])?;
            let check = grid.owner.say(["check"])?;
            Ok(peers.lines.len() == 3 && check.code == Some(0))
        },
    )?;
    let status = grid.owner.ok(["status"])?;
    assert_eq!(
        (status.last()["safe"].as_bool(), status.number("tolerates")),
        (Some(true), 1),
        "{}",
        status.last()
    );
    let (first, fourth) = (&grid.nodes[0].home.dir, &grid.nodes[2].home.dir);
    assert_eq!(
        share_files(&first.join("store"))?.len(),
        share_files(&fourth.join("store"))?.len()
    );
    drop(daemon);
    // As many losses as are tolerated.
    lose(grid.nodes.remove(1))?;
    comes_back_from(dir.path(), &grid.owner, &grid.nodes[0], &source)
}

/// One disk under four names was four "independent" peers.
#[test]
fn a_folder_is_a_peer_once_whatever_names_it_has() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = owner(dir.path(), 2, 1)?;
    let disk = dir.path().join("disk1");
    fs::create_dir_all(disk.join("inner"))?;
    std::os::unix::fs::symlink(&disk, dir.path().join("link"))?;
    let disk = path_str(&disk)?;
    let link = path_str(dir.path())?.to_owned() + "/link";
    for twin in [
        format!("{disk}/"),
        link.clone(),
        format!("{disk}/inner"),
        path_str(dir.path())?.to_owned(),
        format!("{disk}/../disk1"),
    ] {
        let refused = owner.exits(1, ["peer", "add", "twin", &format!("dir:{twin}")])?;
        assert!(refused.stderr.contains("disk1"), "{twin}: {}", refused.stderr);
    }
    let third = add(&owner, dir.path(), 3)?;
    let shared = third
        .lines
        .iter()
        .any(|line| line["error"].to_string().contains("same file system"));
    assert!(shared, "{:?}", third.lines);
    // By hand, past the command: only one counts, and that is said.
    let config = owner.dir.join("config.toml");
    let text = fs::read_to_string(&config)?;
    fs::write(&config, format!("{text}\n[peers.twin]\nurl = \"dir:{link}\"\n"))?;
    let peers = owner.ok(["peer", "ls"])?;
    assert_eq!(peers.lines.len(), 3, "{:?}", peers.lines);
    ensure!(peers.stderr.contains("twin"), "it is said: {}", peers.stderr);
    Ok(())
}
