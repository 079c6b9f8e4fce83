//! Virtual disks from the command line: written by the tools that people use, lost with all that was on the machine, and back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::fixture::{is_root_user, noise};
use tests::home::{Home, path_str};
use tests::needs;

use crate::mount::{Mount, has_fuse, make_dir};
use crate::unchanged::owner_with_folders;

pub const MIB: usize = 1 << 20;

pub fn missing(tools: &[&str]) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .collect();
    let is_there = |tool: &&&str| folders.iter().any(|folder| folder.join(tool).is_file());
    let missing = tools.iter().find(|tool| !is_there(tool));
    missing.map(|tool| format!("there is no {tool}"))
}

/// Runs a tool to its success, and returns what it prints.
pub fn tool(name: &str, arguments: &[&str]) -> Result<String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(name);
    let output = command
        .args(arguments)
        .env("PATH", path)
        .output()
        .context(name.to_owned())?;
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    ensure!(output.status.success(), "{name} {arguments:?}: {said}{errors}");
    Ok(said)
}

/// A disk that is served on a Unix socket.
pub struct Served {
    pub process: Mount,
    pub uri: String,
}

impl Served {
    pub fn start(home: &Home, name: &str, socket: &Path) -> Result<Self> {
        let address = format!("unix:{}", path_str(socket)?);
        let process = Mount::serving(home, &["disk", "serve", name, "--nbd", &address], "disk_served")?;
        ensure!(process.said["nbd"][0] == *address, "{}", process.said);
        let uri = format!("nbd+unix:///{name}?socket={}", path_str(socket)?);
        Ok(Self { process, uri })
    }

    fn kill(self) -> Result<()> {
        let pid = i32::try_from(self.process.pid())?;
        kill_process(Pid::from_raw(pid).context("a process has a number")?, Signal::KILL)?;
        drop(self.process);
        Ok(())
    }
}

pub fn info(home: &Home, name: &str) -> Result<Value> {
    Ok(home.ok(["disk", "info", name])?.last().clone())
}

#[test]
fn a_disk_outlives_the_machine_and_as_many_folders_as_may_be_lost() -> Result<()> {
    needs!(missing(&["nbdcopy", "qemu-io"]));
    let dir = tempfile::tempdir()?;
    let owner = owner_with_folders(dir.path(), 2)?;
    let socket = dir.path().join("socket");
    owner.ok(["disk", "create", "vm", "--size", "64M"])?;
    assert_eq!(info(&owner, "vm")?["state"], "closed");

    let image = dir.path().join("image");
    let mut content = noise(24 * MIB, 1);
    content.resize(64 * MIB, 0);
    fs::write(&image, &content)?;
    let served = Served::start(&owner, "vm", &socket)?;
    assert_eq!(fs::metadata(&socket)?.permissions().mode() & 0o777, 0o600);
    tool("nbdcopy", &["--flush", path_str(&image)?, &served.uri])?;
    assert_eq!(info(&owner, "vm")?["state"], "served");
    owner.ok(["disk", "flush", "vm"])?;
    // Acknowledged and flushed, but never committed: it is lost with the machine, and with nothing else.
    tool(
        "qemu-io",
        &["-f", "raw", "-c", "write -P 7 1M 4k", "-c", "flush", &served.uri],
    )?;
    served.kill()?;

    let back = |home: &Home, expected: &[u8]| -> Result<()> {
        let served = Served::start(home, "vm", &socket)?;
        let copy = dir.path().join("copy");
        tool("nbdcopy", &[&served.uri, path_str(&copy)?])?;
        ensure!(fs::read(&copy)? == expected, "the disk is not as it was");
        served.process.end(Signal::INT)?;
        Ok(())
    };
    let mut newer = content.clone();
    newer[MIB..MIB + 4096].fill(7);
    assert_eq!(info(&owner, "vm")?["state"], "ahead");
    // What is in the journal is this disk's own as long as nobody took it over.
    let said = owner.exits(1, ["disk", "salvage", "vm", "other"])?;
    ensure!(said.stderr.contains("Nobody has taken"), "{}", said.stderr);
    back(&owner, &newer)?;
    assert_eq!(info(&owner, "vm")?["state"], "closed");

    // All that this machine had of the disk is gone, and two folders with it.
    fs::remove_dir_all(owner.dir.join("disks"))?;
    fs::remove_dir_all(dir.path().join("disk1"))?;
    fs::remove_dir_all(dir.path().join("disk4"))?;
    back(&owner, &newer)
}

#[test]
fn a_file_system_on_a_disk_is_clean_after_its_loop_device_and_the_cache_are_gone() -> Result<()> {
    needs!(missing(&["losetup", "mkfs.ext4", "e2fsck", "fstrim"]));
    if !has_fuse() || !is_root_user() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let owner = owner_with_folders(dir.path(), 1)?;
    owner.ok(["disk", "create", "files", "--size", "256M"])?;
    let (at, files) = (make_dir(dir.path().join("at"))?, make_dir(dir.path().join("files"))?);
    let file = at.join("disk");
    let mounted = || Mount::serving(&owner, &["disk", "mount", "files", path_str(&file)?], "disk_served");
    let attach = || -> Result<String> {
        let said = tool("losetup", &["--direct-io=on", "-f", "--show", path_str(&file)?])?;
        Ok(said.trim().to_owned())
    };

    let process = mounted()?;
    let device = attach()?;
    let written = || -> Result<()> {
        tool("mkfs.ext4", &["-q", &device])?;
        tool("mount", &[&device, path_str(&files)?])?;
        fs::write(files.join("content"), noise(5 * MIB, 3))?;
        fs::write(files.join("gone"), noise(5 * MIB, 4))?;
        fs::remove_file(files.join("gone"))?;
        tool("fstrim", &[path_str(&files)?])?;
        tool("umount", &[path_str(&files)?]).map(drop)
    }();
    tool("losetup", &["-d", &device])?;
    written?;
    process.end(Signal::TERM)?;
    fs::remove_dir_all(owner.dir.join("disks"))?;

    let process = mounted()?;
    let device = attach()?;
    let read = || -> Result<()> {
        tool("e2fsck", &["-fn", &device])?;
        tool("mount", &["-o", "ro", &device, path_str(&files)?])?;
        let content = fs::read(files.join("content"));
        tool("umount", &[path_str(&files)?])?;
        ensure!(content? == noise(5 * MIB, 3), "the file is not as it was");
        Ok(())
    }();
    tool("losetup", &["-d", &device])?;
    read?;
    process.end(Signal::TERM).map(drop)
}

/// Another machine of the owner's account, which came by the words, with the same folders as peers.
pub fn second_machine(owner: &Home, dir: &Path) -> Result<Home> {
    let second = Home::new(dir.join("second"));
    let words = owner.words();
    let folders: Vec<String> = (1..=5)
        .map(|number| Ok(format!("dir:{}", path_str(&dir.join(format!("disk{number}")))?)))
        .collect::<Result<_>>()?;
    let mut args = vec!["recover", "--name", "second", "--phrase-file", path_str(&words)?];
    folders.iter().for_each(|folder| args.extend(["--via", folder]));
    second.ok(args)?;
    Ok(second)
}

#[test]
fn a_writer_that_sleeps_while_another_machine_takes_its_disk_over_is_refused_and_loses_nothing_in_silence() -> Result<()>
{
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

    // Not unless it is asked for.
    let said = second.exits(
        1,
        ["disk", "serve", "vm", "--nbd", &format!("unix:{}", path_str(&there)?)],
    )?;
    ensure!(
        said.stderr.contains("last written by the machine owner"),
        "{}",
        said.stderr
    );
    let begun = std::time::Instant::now();
    let address = format!("unix:{}", path_str(&there)?);
    let args = ["disk", "serve", "vm", "--nbd", &address, "--take-over", "wait"];
    let taken = Mount::serving(&second, &args, "disk_served")?;
    ensure!(begun.elapsed().as_secs() >= 60, "the other could still acknowledge");
    let uri = format!("nbd+unix:///vm?socket={}", path_str(&there)?);
    io(
        &uri,
        &["read -P 1 0 64k", "read -P 0 64k 64k", "write -P 3 128k 64k", "flush"],
    )?;
    second.ok(["disk", "flush", "vm"])?;

    // It wakes: what it writes now is not acknowledged, and it ends with a word.
    kill_process(sleeper, Signal::CONT)?;
    let write = io(&served.uri, &["write -P 4 0 64k", "flush"]);
    ensure!(write.is_err(), "a stale writer acknowledged a write: {write:?}");
    served.process.end_with(4)?;
    let log = fs::read_to_string(owner.dir.with_extension("mount.log"))?;
    ensure!(log.contains("the machine second is its writer"), "{log}");
    let said = owner.exits(
        1,
        ["disk", "serve", "vm", "--nbd", &format!("unix:{}", path_str(&here)?)],
    )?;
    ensure!(
        said.stderr.contains("last written by the machine second"),
        "{}",
        said.stderr
    );
    taken.end(Signal::INT)?;

    // What both had committed is there; what only the first had is in its journal.
    let served = Served::start(&second, "vm", &there)?;
    io(
        &served.uri,
        &["read -P 1 0 64k", "read -P 0 64k 64k", "read -P 3 128k 64k"],
    )?;
    served.process.end(Signal::INT)?;
    assert_eq!(info(&owner, "vm")?["state"], "elsewhere");

    // A disk of its own is made of that, and then nothing is left to be salvaged.
    owner.ok(["disk", "salvage", "vm", "mine"])?;
    let served = Served::start(&owner, "mine", &here)?;
    io(
        &served.uri,
        &["read -P 1 0 64k", "read -P 2 64k 64k", "read -P 0 128k 64k"],
    )?;
    served.process.end(Signal::INT)?;
    owner.exits(1, ["disk", "salvage", "vm", "again"])?;
    Ok(())
}

/// The content of a disk, or of a snapshot of it, as `disk export` writes it.
fn exported(home: &Home, dir: &Path, args: &[&str]) -> Result<Vec<u8>> {
    let file = dir.join("exported");
    home.ok([&["disk", "export"], args, &[path_str(&file)?]].concat())?;
    let content = fs::read(&file)?;
    fs::remove_file(file)?;
    Ok(content)
}

#[test]
fn what_a_disk_was_comes_back_from_snapshots_clones_and_images() -> Result<()> {
    needs!(missing(&["qemu-io"]));
    let dir = tempfile::tempdir()?;
    let owner = owner_with_folders(dir.path(), 1)?;
    let of = |args: &[&str]| exported(&owner, dir.path(), args);
    let image = dir.path().join("image");
    let mut first = noise(6 * MIB, 1);
    first[MIB..2 * MIB].fill(0);
    fs::write(&image, &first)?;
    owner.ok(["disk", "create", "vm", "--size", "32M"])?;
    let done = owner.ok(["disk", "import", "vm", path_str(&image)?])?;
    ensure!(done.last()["command"] == "disk", "{}", done.last());
    let again = owner.exits(1, ["disk", "import", "vm", path_str(&image)?])?;
    ensure!(again.stderr.contains("5.0 MiB in it"), "{}", again.stderr);
    owner.ok(["disk", "import", "vm", path_str(&image)?, "--force"])?;
    first.resize(32 * MIB, 0);
    ensure!(of(&["vm"])? == first, "the image is not what was imported");
    let read = owner.ok(["disk", "export", "vm", path_str(&dir.path().join("unused"))?])?;
    ensure!(
        !read.lines.iter().any(|line| line["action"] == "committed"),
        "nothing was written: {read:?}"
    );
    assert_eq!(owner.ok(["disk", "check", "vm"])?.number("bytes_done"), 5 << 20);

    // While it is served: a snapshot, which clients may read.
    let served = Served::start(&owner, "vm", &dir.path().join("socket"))?;
    owner.ok(["disk", "snapshot", "vm", "one"])?;
    tool(
        "qemu-io",
        &["-f", "raw", "-c", "write -P 9 0 5M", "-c", "flush", &served.uri],
    )?;
    let snapshot = served.uri.replace("/vm?", "/vm@one?");
    tool("qemu-io", &["-r", "-f", "raw", "-c", "read -P 0 1M 1M", &snapshot])?;
    served.process.end(Signal::INT)?;
    let mut second = first.clone();
    second[..5 * MIB].fill(9);
    ensure!(of(&["vm"])? == second && of(&["vm", "--snapshot", "one"])? == first);

    // A clone is a disk of its own, and holds what it came from.
    owner.ok(["disk", "clone", "vm", "other", "--snapshot", "one"])?;
    owner.exits(1, ["disk", "snapshot", "vm", "one", "--delete"])?;
    owner.ok(["disk", "rollback", "vm", "one"])?;
    ensure!(of(&["vm"])? == first && of(&["other"])? == first);
    let snapshots = info(&owner, "vm")?["snapshots"].as_array().map_or(0, Vec::len);
    assert_eq!(snapshots, 2, "what was rolled back is kept");
    owner.ok(["disk", "erase", "vm", "--force"])?;
    ensure!(of(&["vm"])? == vec![0; 32 * MIB] && of(&["other"])? == first);

    owner.exits(1, ["disk", "resize", "other", "16M"])?;
    owner.ok(["disk", "resize", "other", "16M", "--shrink"])?;
    owner.ok(["disk", "resize", "other", "64M"])?;
    let mut shrunk = first[..16 * MIB].to_vec();
    shrunk.resize(64 * MIB, 0);
    ensure!(of(&["other"])? == shrunk, "what was cut off came back");

    owner.ok(["disk", "rm", "other", "--force"])?;
    owner.ok(["disk", "snapshot", "vm", "one", "--delete"])?;
    owner.ok(["disk", "rm", "vm", "--force"])?;
    assert!(owner.ok(["disk", "ls"])?.lines.is_empty());
    Ok(())
}

/// Each had committed all when it closed the disk: the cache of the first one was refused, as if something in it could be lost.
#[test]
fn a_disk_goes_to_another_machine_and_back() -> Result<()> {
    needs!(missing(&["qemu-io"]));
    let dir = tempfile::tempdir()?;
    let owner = owner_with_folders(dir.path(), 1)?;
    owner.ok(["disk", "create", "vm", "--size", "64M"])?;
    let second = second_machine(&owner, dir.path())?;
    let socket = dir.path().join("socket");
    let address = format!("unix:{}", path_str(&socket)?);
    let uri = format!("nbd+unix:///vm?socket={}", path_str(&socket)?);
    for (home, read, write) in [
        (&owner, "read -P 0 0 64k", "write -P 1 0 64k"),
        (&second, "read -P 1 0 64k", "write -P 2 0 64k"),
        (&owner, "read -P 2 0 64k", "write -P 3 0 64k"),
        (&second, "read -P 3 0 64k", "write -P 4 0 64k"),
    ] {
        let args = ["disk", "serve", "vm", "--nbd", &address, "--take-over", "now"];
        let served = Mount::serving(home, &args, "disk_served")?;
        tool("qemu-io", &["-f", "raw", "-c", read, "-c", write, "-c", "flush", &uri])?;
        served.end(Signal::INT)?;
        assert_eq!(info(home, "vm")?["state"], "closed");
    }
    Ok(())
}

#[test]
fn what_cannot_be_done_with_a_disk_is_said_and_changes_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = owner_with_folders(dir.path(), 1)?;
    let refused = |code: i32, args: &[&str], why: &str| -> Result<()> {
        let said = owner.exits(code, args)?;
        let text = format!("{}{}", said.last(), said.stderr);
        ensure!(text.contains(why), "{args:?}: {text}");
        Ok(())
    };
    refused(2, &["disk", "create", "vm", "--size", "1000"], "No disk has 1000 bytes")?;
    refused(2, &["disk", "create", "a/b", "--size", "1G"], "no name for a disk")?;
    refused(2, &["disk", "create", "vm", "--size", "65T"], "64 TiB at most")?;
    refused(
        2,
        &["disk", "create", "vm", "--size", "1G", "--cache-size", "1M"],
        "512M",
    )?;
    owner.ok(["disk", "create", "vm", "--size", "1T"])?;
    refused(
        1,
        &["disk", "create", "vm", "--size", "1G"],
        "There is a disk `vm` already",
    )?;
    refused(1, &["disk", "info", "vn"], "is it `vm`?")?;
    refused(2, &["disk", "serve", "vm", "--nbd", "0.0.0.0:0"], "other machines")?;
    refused(2, &["disk", "serve", "vm", "--nbd", "nowhere"], "no address")?;
    refused(
        1,
        &["disk", "mount", "vm", path_str(&dir.path().join("none/file"))?],
        "no folder",
    )?;
    let full = make_dir(dir.path().join("full"))?;
    fs::write(full.join("content"), "it would be hidden")?;
    refused(
        2,
        &["disk", "mount", "vm", path_str(&full.join("file"))?],
        "is not empty",
    )?;
    refused(2, &["disk", "rm", "vm"], "--force")?;
    assert_eq!(info(&owner, "vm")?["state"], "closed");

    let served = Served::start(&owner, "vm", &dir.path().join("socket"))?;
    let another = format!("unix:{}", path_str(&dir.path().join("another"))?);
    refused(1, &["disk", "serve", "vm", "--nbd", &another], "is in use")?;
    refused(1, &["disk", "rm", "vm", "--force"], "is served")?;
    served.process.end(Signal::INT)?;
    owner.ok(["disk", "rm", "vm", "--force"])?;
    refused(1, &["disk", "info", "vm"], "There is no disk `vm`")?;
    assert!(owner.ok(["disk", "ls"])?.lines.is_empty());
    assert!(owner.dir.join("disks").read_dir()?.next().is_none());
    Ok(())
}
