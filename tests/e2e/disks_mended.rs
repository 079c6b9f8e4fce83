//! Disks whose friends and folders go and come, or go for good: what is committed stays whole, without anybody's doing where that is possible.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tests::fixture::noise;
use tests::grid::{Grid, Node, share_files};
use tests::home::{Home, path_str};
use tests::needs;

use crate::disks::{MIB, Served, info, missing, tool};
use crate::healing::{HASTY, wait_until};

/// An owner with so many folders as peers, and nothing else.
fn owner_with(dir: &Path, folders: usize, tolerate: u8) -> Result<Home> {
    let owner = Home::init(dir.join("owner"), "owner", tolerate)?;
    for number in 1..=folders {
        let folder = dir.join(format!("disk{number}"));
        fs::create_dir_all(&folder)?;
        let at = format!("dir:{}", path_str(&folder)?);
        owner.ok(["peer", "add", &format!("disk{number}"), &at])?;
    }
    Ok(owner)
}

fn write(served: &Served, command: &str) -> Result<()> {
    tool("qemu-io", &["-f", "raw", "-c", command, "-c", "flush", &served.uri]).map(drop)
}

fn fill(served: &Served, dir: &Path, seed: u64) -> Result<()> {
    let image = dir.join("image");
    fs::write(&image, noise(32 * MIB, seed))?;
    tool("nbdcopy", &["--flush", path_str(&image)?, &served.uri]).map(drop)
}

fn content(served: &Served, dir: &Path) -> Result<Vec<u8>> {
    let copy = dir.join("copy");
    tool("nbdcopy", &[&served.uri, path_str(&copy)?])?;
    Ok(fs::read(copy)?)
}

/// As many shares as folders: with one away nothing can be committed. It came back, and commits failed until somebody ran `repair`.
#[test]
fn commits_go_on_by_themselves_when_a_folder_that_they_need_is_back() -> Result<()> {
    needs!(missing(&["qemu-io", "nbdcopy"]));
    for folders in [3, 5] {
        let dir = tempfile::tempdir()?;
        let owner = owner_with(dir.path(), folders, 2)?;
        owner.ok(["disk", "create", "vm", "--size", "32M"])?;
        let (here, away) = (dir.path().join("disk2"), dir.path().join("away"));
        let served = Served::start(&owner, "vm", &dir.path().join("socket"))?;
        write(&served, "write -P 1 0 1M")?;
        owner.ok(["disk", "flush", "vm"])?;

        fs::rename(&here, &away)?;
        write(&served, "write -P 2 1M 1M")?;
        let log = dir.path().join("flush.log");
        let out = fs::File::create(&log)?;
        let mut flushing = owner
            .command(["disk", "flush", "vm"])
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        wait_until("an attempt without the folder fails", || {
            Ok(fs::read_to_string(&log)?.contains("waits until"))
        })?;
        write(&served, "write -P 3 2M 1M")?;
        ensure!(flushing.try_wait()?.is_none(), "it does not wait");
        fs::rename(&away, &here)?;
        let back = Instant::now();
        let status = flushing.wait()?;
        ensure!(status.success(), "{status}: {}", fs::read_to_string(&log)?);
        owner.ok(["disk", "flush", "vm"])?;
        let took = back.elapsed();
        ensure!(
            took < Duration::from_secs(100),
            "it took {took:?} with {folders} folders"
        );
        served.process.end(Signal::INT)?;

        // All of it is on peers, as safe as is asked for.
        fs::remove_dir_all(owner.dir.join("disks"))?;
        for lost in ["disk1", "disk3"] {
            fs::remove_dir_all(dir.path().join(lost))?;
        }
        let served = match folders {
            // Of three voters one is left: nobody can claim the disk.
            3 => continue,
            _ => Served::start(&owner, "vm", &dir.path().join("socket"))?,
        };
        let mut expected = vec![0; 32 * MIB];
        (0..3).for_each(|number| expected[number * MIB..(number + 1) * MIB].fill(number as u8 + 1));
        ensure!(content(&served, dir.path())? == expected, "the disk is not as it was");
        served.process.end(Signal::INT)?;
    }
    Ok(())
}

fn standing(owner: &Home, name: &str) -> Result<String> {
    let said = owner.ok(["peer", "ls"])?;
    let peer = said.lines.iter().find(|line| line["name"] == name).context("a peer")?;
    Ok(peer["standing"].as_str().unwrap_or_default().to_owned())
}

/// Seven friends, six shares of a pack: one is lost for good while the disk is in use, the daemon builds anew what it held, and then two lose
/// what they have.
#[test]
fn a_disk_is_whole_again_behind_a_lost_friend_and_bears_as_many_losses_as_before() -> Result<()> {
    needs!(missing(&["nbdcopy", "qemu-io"]));
    let dir = tempfile::tempdir()?;
    let Grid { owner, mut nodes } = Grid::start_with(dir.path(), 7, 2, HASTY)?;
    owner.ok(["disk", "create", "vm", "--size", "32M"])?;
    let daemon = Node::start_as(&owner, "run")?;
    let socket = dir.path().join("socket");
    let served = Served::start(&owner, "vm", &socket)?;
    let mut expected = noise(32 * MIB, 1);
    fill(&served, dir.path(), 1)?;
    owner.ok(["disk", "flush", "vm"])?;

    let lost = nodes.remove(6).kill_9();
    fs::remove_dir_all(&lost.dir)?;
    write(&served, "write -P 5 3M 2M")?;
    expected[3 * MIB..5 * MIB].fill(5);
    owner.ok(["disk", "flush", "vm"])?;
    wait_until("the lost friend is given up", || {
        Ok(standing(&owner, "node7")? == "lost")
    })?;
    wait_until("all shares are where they should be", || {
        let said = owner.say(["check"])?;
        Ok(said.last()["ok"] == true && owner.ok(["repair", "--once"])?.number("shares_rebuilt") == 0)
    })?;
    let said = owner.ok(["check"])?;
    assert_eq!(said.number("shares_found"), 6 * said.number("packs"), "{}", said.last());
    served.process.end(Signal::INT)?;
    drop(daemon);

    // Two lose their shares, of which one, which may be a voter, goes on to answer.
    for share in share_files(&nodes[1].home.dir.join("store"))? {
        fs::remove_file(share)?;
    }
    fs::remove_dir_all(nodes.remove(0).kill_9().dir)?;
    fs::remove_dir_all(owner.dir.join("disks"))?;
    let served = Served::start(&owner, "vm", &socket)?;
    ensure!(content(&served, dir.path())? == expected, "the disk is not as it was");
    served.process.end(Signal::INT).map(drop)
}

/// Another machine of the account, with the same folders.
fn machine(owner: &Home, dir: &Path, folders: usize) -> Result<(Home, Value)> {
    let second = Home::new(dir.join("second"));
    let words = owner.words();
    let vias: Vec<String> = (1..=folders)
        .map(|number| Ok(format!("dir:{}", path_str(&dir.join(format!("disk{number}")))?)))
        .collect::<Result<_>>()?;
    let mut args = vec!["recover", "--name", "second", "--phrase-file", path_str(&words)?];
    vias.iter().for_each(|via| args.extend(["--via", via]));
    let said = second.ok(args)?.last().clone();
    Ok((second, said))
}

/// The catalog of the new machine did not know the disk's packs: nothing was built anew, and `status` said Safe.
#[test]
fn a_machine_that_recovered_looks_after_a_disk_from_the_first_moment() -> Result<()> {
    needs!(missing(&["nbdcopy", "qemu-io"]));
    let dir = tempfile::tempdir()?;
    let owner = owner_with(dir.path(), 6, 2)?;
    owner.ok(["disk", "create", "vm", "--size", "32M"])?;
    let image = dir.path().join("image");
    let expected = noise(32 * MIB, 2);
    fs::write(&image, &expected)?;
    owner.ok(["disk", "import", "vm", path_str(&image)?])?;
    let packs = owner.ok(["check"])?.number("packs");
    ensure!(packs > 1, "there is nothing to look after");

    let (second, said) = machine(&owner, dir.path(), 6)?;
    assert_eq!(said["disks"], serde_json::json!(["vm"]), "{said}");
    fs::remove_dir_all(&owner.dir)?;
    let said = second.ok(["check"])?;
    // What the machine before gave up, and did not come to discard, is with peers still.
    ensure!(said.number("packs") >= packs, "{}", said.last());
    let status = second.say(["status"])?;
    assert_eq!(status.last()["state"], "safe", "{}", status.last());
    assert_eq!(status.last()["disks"][0]["name"], "vm");
    ensure!(status.number("bytes_total") == 0 && status.last()["disks"][0]["held_bytes"].as_u64() > Some(32 << 20));

    // One folder is lost for good, and all that another one has; a new one takes the place of the first, and then as many are lost as may be.
    fs::remove_dir_all(dir.path().join("disk6"))?;
    second.ok(["peer", "rm", "disk6", "--force"])?;
    for share in share_files(&dir.path().join("disk5"))? {
        fs::remove_file(share)?;
    }
    second.exits(4, ["check"])?;
    let said = second.say(["status"])?;
    assert_eq!(said.last()["state"], "disk_at_risk", "{}", said.last());
    let folder = dir.path().join("disk7");
    fs::create_dir_all(&folder)?;
    second.ok(["peer", "add", "disk7", &format!("dir:{}", path_str(&folder)?)])?;
    let said = second.say(["repair"])?;
    ensure!(said.number("shares_rebuilt") >= packs, "{}", said.last());
    for lost in ["disk1", "disk2"] {
        fs::remove_dir_all(dir.path().join(lost))?;
    }
    let socket = dir.path().join("socket");
    let address = format!("unix:{}", path_str(&socket)?);
    let args = ["disk", "serve", "vm", "--nbd", &address, "--take-over", "now"];
    let served = Served {
        process: crate::mount::Mount::serving(&second, &args, "disk_served")?,
        uri: format!("nbd+unix:///vm?socket={}", path_str(&socket)?),
    };
    ensure!(content(&served, dir.path())? == expected, "the disk is not as it was");
    served.process.end(Signal::INT).map(drop)
}

/// The machine that took a disk over gives up what nobody needs any more: the machine before took that for lost.
#[test]
fn what_another_machine_gave_up_of_a_disk_that_it_took_over_is_not_lost_here() -> Result<()> {
    needs!(missing(&["qemu-io"]));
    let dir = tempfile::tempdir()?;
    let owner = owner_with(dir.path(), 5, 2)?;
    owner.ok(["disk", "create", "vm", "--size", "32M"])?;
    let socket = dir.path().join("socket");
    let served = Served::start(&owner, "vm", &socket)?;
    fill(&served, dir.path(), 1)?;
    served.process.end(Signal::INT)?;
    let before = owner.ok(["check"])?.number("packs");
    let first = share_files(&dir.path().join("disk1"))?;
    assert_eq!(first.len() as u64, before, "a share of each pack");

    let (second, _) = machine(&owner, dir.path(), 5)?;
    let address = format!("unix:{}", path_str(&socket)?);
    let args = ["disk", "serve", "vm", "--nbd", &address, "--take-over", "now"];
    let uri = format!("nbd+unix:///vm?socket={}", path_str(&socket)?);
    let served = Served {
        process: crate::mount::Mount::serving(&second, &args, "disk_served")?,
        uri,
    };
    let kept = info(&second, "vm")?["snapshots"][0]["name"].clone();
    second.ok([
        "disk",
        "snapshot",
        "vm",
        kept.as_str().context("what was taken over is kept")?,
        "--delete",
    ])?;
    for seed in 2..5 {
        fill(&served, dir.path(), seed)?;
        second.ok(["disk", "flush", "vm"])?;
    }
    // What was overwritten is given up within a minute.
    let are_gone = || Ok(first.iter().filter(|share| share.exists()).count() * 2 <= first.len());
    wait_until("packs are given up", are_gone)?;

    let said = owner.say(["check"])?;
    assert_eq!(said.last()["ok"], true, "{}", said.last());
    ensure!(before > 1 && said.number("packs") == 0, "{}", said.last());
    let status = owner.say(["status"])?;
    ensure!(
        status.last()["reasons"].to_string().find("disk_lost").is_none(),
        "{}",
        status.last()
    );
    assert_eq!(status.last()["disks"][0]["state"], "elsewhere");
    let said = second.ok(["check"])?;
    assert_eq!(said.last()["ok"], true, "{}", said.last());
    served.process.end(Signal::INT)?;

    // And back: what this machine knows of it by now is what it has to know.
    let taken = crate::mount::Mount::serving(&owner, &args, "disk_served")?;
    wait_until("it is looked after here again", || {
        Ok(owner.say(["status"])?.last()["disks"][0]["held_bytes"].as_u64() > Some(32 << 20))
    })?;
    let said = owner.say(["check"])?;
    assert_eq!(said.last()["ok"], true, "{}", said.last());
    taken.end(Signal::INT).map(drop)
}
