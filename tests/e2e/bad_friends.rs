//! Friends that refuse, are away or do not move: nobody waits for them for ever, and what they owe is named.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tests::disk::Disk;
use tests::fixture::noise;
use tests::grid::{Grid, Node, share_files};
use tests::home::{Home, Said, path_str, said};
use tests::s3::{Kind, Server};

use crate::healing::wait_until;

/// A command that has not ended by then never will. Chosen: on a busy machine they take ten seconds.
const FOR_EVER: Duration = Duration::from_secs(90);

/// Runs a command, and ends it if it does not end by itself.
fn ends(home: &Home, args: &[&str]) -> Result<Said> {
    let mut command = home.command(args);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (pid, start) = (child.id().to_string(), Instant::now());
    // What it says must be read meanwhile.
    let reader = std::thread::spawn(move || {
        let output = child.wait_with_output();
        output.map(|output| (output, start.elapsed()))
    });
    while !reader.is_finished() {
        if start.elapsed() > FOR_EVER {
            Command::new("kill").args(["-9", &pid]).status()?;
            bail!("gridbackup {args:?} did not end within {} s", FOR_EVER.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let (output, _) = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    said(output)
}

/// Files of noise: `count` of `mib` MiB.
fn source(dir: &Path, count: u64, mib: usize) -> Result<std::path::PathBuf> {
    let source = dir.join("source");
    fs::create_dir_all(&source)?;
    for number in 0..count {
        fs::write(source.join(number.to_string()), noise(mib << 20, number + 1))?;
    }
    Ok(source)
}

/// What was said to be wrong with a peer, or with none.
fn problems(said: &Said, peer: Option<&str>) -> Vec<String> {
    let problems = said.lines.iter().filter(|line| line["message_type"] == "problem");
    let of_peer = problems.filter(|line| line["peer"].as_str() == peer);
    of_peer.map(|line| line["error"].to_string()).collect()
}

/// The story: a friend's disk refused writes and reported room. The owner's run never ended, its daemon made no snapshot any
/// more, `check` and `forget` hung, without a word, also when the friend was well again.
#[test]
fn a_friend_whose_disk_refuses_writes_holds_nobody_up_and_is_whole_again_when_it_is_well() -> Result<()> {
    tests::needs!(tests::disk::missing());
    let dir = tempfile::tempdir()?;
    let source = source(dir.path(), 12, 4)?;
    let mut grid = Grid::start(dir.path(), 5, 2)?;
    let home = grid.nodes.pop().context("five nodes")?.kill_9();
    let (_node, disk) = Disk::start(&home)?;
    grid.owner.ok(["config", "set", "interval", "2s"])?;
    grid.owner.ok(["folder", "add", path_str(&source)?])?;
    // It has its folders; then nothing new.
    fs::write(source.join("first"), noise(100_000, 99))?;
    grid.owner.ok(["run", "--once", path_str(&source.join("first"))?])?;
    disk.refuse()?;

    let run = ends(&grid.owner, &["run", "--once"])?;
    assert_eq!(run.code, Some(4), "{run:?}");
    let named = problems(&run, Some("node5")).join("; ");
    assert!(named.contains("disk is full"), "{named} of {run:?}");
    ends(&grid.owner, &["check"])?;

    // A daemon meets the same friend, and goes on.
    let daemon = Node::start_as(&grid.owner, "run")?;
    fs::write(source.join("later"), noise(5 << 20, 100))?;
    let snapshots = || -> Result<usize> { Ok(daemon.home.ok(["snapshots"])?.lines.len()) };
    let before = snapshots()?;
    wait_until("another snapshot of the daemon", || Ok(snapshots()? > before))?;

    disk.accept()?;
    wait_until("everything safe", || {
        Ok(daemon.home.say(["status"])?.last()["safe"] == Value::Bool(true))
    })?;
    drop(daemon);
    let run = ends(&grid.owner, &["run", "--once"])?;
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(ends(&grid.owner, &["check"])?.code, Some(0));
    Ok(())
}

/// The story: 8 members, 6 of them there, `spool_max = 20M`: 15 of 90 files went up; "75 files wait for peers", each run.
#[test]
fn a_spool_full_of_shares_for_absent_friends_does_not_stop_the_backup_and_is_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = source(dir.path(), 20, 4)?;
    let mut grid = Grid::start_with(dir.path(), 5, 1, &[("spool_max", "12M")])?;
    let away = grid.nodes.pop().context("five nodes")?.kill_9();
    let run = ends(&grid.owner, &["run", "--once", path_str(&source)?])?;
    // Four are there, and with four each pack survives the loss of one.
    assert_eq!((run.code, run.number("files_waiting")), (Some(0), 0), "{run:?}");

    let spool = fs::read_dir(grid.owner.dir.join("spool"))?;
    let waiting: u64 = spool.map(|entry| Ok(entry?.metadata()?.len())).sum::<Result<u64>>()?;
    // The limit, and what two threads had begun to deliver by then.
    assert!(waiting <= 20 << 20, "{waiting} bytes");
    let queue = grid.owner.ok(["queue"])?;
    let spool = queue.lines.iter().find(|line| line["message_type"] == "spool");
    let spool = spool.context("the queue names the spool")?;
    assert_eq!(spool["bytes"].as_u64(), Some(waiting), "{spool}");
    let status = grid.owner.say(["status"])?;
    let told = &status.last()["spool"];
    assert_eq!(told["bytes"].as_u64(), Some(waiting), "{status:?}");
    assert!(told["parts"].to_string().contains("node5"), "{told}");
    let doctor = grid.owner.say(["doctor"])?;
    let finding = doctor.lines.iter().find(|line| line["check"] == "spool");
    let finding = finding.context("the doctor looks at the spool")?;
    assert!(finding["text"].to_string().contains("node5"), "{finding}");

    // What gave way is owed: once the friend is back, a repair builds it anew.
    let _back = Node::start(&away)?;
    grid.owner.ok(["repair"])?;
    grid.owner.ok(["check"])?;
    let queue = grid.owner.ok(["queue"])?;
    assert!(
        queue.lines.iter().all(|line| line["message_type"] != "spool"),
        "{queue:?}"
    );
    let status = grid.owner.say(["status"])?;
    assert_eq!(status.last()["spool"]["bytes"], 0, "{status:?}");
    assert!(!share_files(&away.dir.join("store"))?.is_empty());
    Ok(())
}

/// The story: `repair` said "healed", exit 0, when the put had failed: the friend's listing was believed again.
#[test]
fn a_repair_whose_put_fails_says_so_until_the_share_is_taken() -> Result<()> {
    tests::needs!(tests::disk::missing());
    let dir = tempfile::tempdir()?;
    let source = source(dir.path(), 1, 5)?;
    let mut grid = Grid::start(dir.path(), 5, 2)?;
    let home = grid.nodes.pop().context("five nodes")?.kill_9();
    let (_node, disk) = Disk::start(&home)?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    // A share is damaged, and the disk takes nothing new.
    disk.inside(
        r#"f=$(find "$0" -type f -size +90k | head -1) && printf xxxx | dd of="$f" bs=1 seek=5000 conv=notrunc 2>/dev/null"#,
    )?;
    disk.refuse()?;
    grid.owner.exits(4, ["check", "--read-data"])?;
    for _ in 0..2 {
        let repair = ends(&grid.owner, &["repair"])?;
        assert_eq!(repair.code, Some(4), "{repair:?}");
        assert_eq!(
            (repair.number("shares_rebuilt"), repair.number("shares_waiting")),
            (0, 1),
            "{repair:?}"
        );
        let named = problems(&repair, Some("node5")).join("; ");
        assert!(named.contains("disk is full"), "{named} of {repair:?}");
        assert_eq!(grid.owner.say(["status"])?.last()["safe"], false);
    }
    disk.accept()?;
    let repair = ends(&grid.owner, &["repair"])?;
    assert_eq!(repair.code, Some(0), "{repair:?}");
    grid.owner.ok(["check", "--read-data"])?;
    Ok(())
}

/// The story: every friend was away and nothing had changed: exit 0, "safe".
#[test]
fn a_run_that_reaches_nobody_says_so_though_nothing_changed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = source(dir.path(), 1, 1)?;
    let mut grid = Grid::start(dir.path(), 3, 1)?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    // With one of three there, somebody was asked; only the new list of files is not on enough of them.
    let homes: Vec<Home> = grid.nodes.drain(1..).map(Node::kill_9).collect();
    let run = ends(&grid.owner, &["run", "--once", path_str(&source)?])?;
    assert_eq!(run.code, Some(4), "{run:?}");
    let reasons = run.last()["reasons"].to_string();
    assert!(
        reasons.contains("head_behind") && !reasons.contains("away"),
        "{reasons}"
    );
    let last = grid.nodes.pop().context("a node")?.kill_9();
    let run = ends(&grid.owner, &["run", "--once", path_str(&source)?])?;
    assert_eq!(run.code, Some(4), "{run:?}");
    for name in ["node1", "node2", "node3"] {
        assert!(!problems(&run, Some(name)).is_empty(), "{name} of {run:?}");
    }
    let _back = homes
        .iter()
        .chain([&last])
        .map(Node::start)
        .collect::<Result<Vec<_>>>()?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    Ok(())
}

/// The story: a frozen friend cost every command 4 to 12 s.
#[test]
fn a_frozen_friend_costs_one_command_its_patience_and_the_next_ones_little() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = source(dir.path(), 1, 5)?;
    let grid = Grid::start(dir.path(), 4, 1)?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    let frozen = Frozen::new(grid.nodes.get(3).context("four nodes")?.pid())?;
    let took = |args: &[&str]| -> Result<Duration> {
        let start = Instant::now();
        ends(&grid.owner, args)?;
        Ok(start.elapsed())
    };
    let first = took(&["status"])?;
    for args in [&["status"][..], &["peer", "ls"], &["run", "--once", path_str(&source)?]] {
        let again = took(args)?;
        assert!(
            again < Duration::from_secs(3),
            "{args:?}: {again:?}, and {first:?} at first"
        );
    }
    let list = grid.owner.ok(["peer", "ls"])?;
    let peer = list
        .lines
        .iter()
        .find(|line| line["name"] == "node4")
        .context("a peer")?;
    assert_eq!(peer["online"], false);
    // Back at once: nobody waits for what is remembered to be forgotten.
    drop(frozen);
    let list = grid.owner.ok(["peer", "ls"])?;
    assert!(list.lines.iter().all(|line| line["online"] == true), "{list:?}");
    Ok(())
}

/// A process that does not run until this is dropped.
struct Frozen(String);

impl Frozen {
    fn new(pid: u32) -> Result<Self> {
        let frozen = Self(pid.to_string());
        Command::new("kill").args(["-STOP", &frozen.0]).status()?;
        Ok(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _gone = Command::new("kill").args(["-CONT", &self.0]).status();
    }
}

/// The story: a bucket whose endpoint was down made each run take 49 to 117 s instead of 2.
#[test]
fn a_dead_bucket_is_asked_once_and_costs_the_next_run_next_to_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = source(dir.path(), 1, 5)?;
    let server = Server::start(Kind::Moto, dir.path())?;
    let owner = Home::init(dir.path().join("owner"), "owner", 1)?;
    for disk in ["disk1", "disk2"] {
        let path = dir.path().join(disk);
        fs::create_dir(&path)?;
        owner.ok(["peer", "add", disk, &format!("dir:{}", path_str(&path)?)])?;
    }
    owner.ok(["peer", "add", "cloud", &server.location("p")])?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    drop(server);
    fs::write(source.join("more"), noise(5 << 20, 7))?;
    let start = Instant::now();
    let run = ends(&owner, &["run", "--once", path_str(&source)?])?;
    let first = start.elapsed();
    assert_eq!(run.code, Some(4), "{run:?}");
    assert!(!problems(&run, Some("cloud")).is_empty(), "{run:?}");
    let start = Instant::now();
    ends(&owner, &["run", "--once", path_str(&source)?])?;
    let again = start.elapsed();
    assert!(
        first < Duration::from_secs(25) && again < Duration::from_secs(6),
        "{first:?}, then {again:?}"
    );
    Ok(())
}
