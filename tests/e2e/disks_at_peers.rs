//! Virtual disks whose blocks lie with friends, or in one bucket alone.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tests::fixture::noise;
use tests::grid::Grid;
use tests::home::{Home, path_str};
use tests::needs;
use tests::s3::{Kind, Server};

use crate::disks::{MIB, Served, info, missing, tool};

/// What a disk has, by a client that reads all of it.
fn content(served: &Served, dir: &Path) -> Result<Vec<u8>> {
    let copy = dir.join("copy");
    tool("nbdcopy", &[&served.uri, path_str(&copy)?])?;
    Ok(fs::read(copy)?)
}

fn write(served: &Served, dir: &Path, content: &[u8]) -> Result<()> {
    let image = dir.join("image");
    fs::write(&image, content)?;
    tool("nbdcopy", &["--flush", path_str(&image)?, &served.uri]).map(drop)
}

#[test]
fn a_disk_goes_on_without_as_many_friends_as_may_be_lost_and_comes_back_from_the_others() -> Result<()> {
    needs!(missing(&["nbdcopy", "qemu-io"]));
    let dir = tempfile::tempdir()?;
    let Grid { owner, mut nodes } = Grid::start(dir.path(), 5, 1)?;
    let socket = dir.path().join("socket");
    owner.ok(["disk", "create", "vm", "--size", "32M"])?;
    let served = Served::start(&owner, "vm", &socket)?;
    let mut expected = noise(32 * MIB, 1);
    write(&served, dir.path(), &expected)?;
    owner.ok(["disk", "flush", "vm"])?;

    // One friend vanishes while the disk is in use.
    drop(nodes.pop().map(tests::grid::Node::kill_9));
    tool(
        "qemu-io",
        &["-f", "raw", "-c", "write -P 5 3M 2M", "-c", "flush", &served.uri],
    )?;
    expected[3 * MIB..5 * MIB].fill(5);
    ensure!(
        content(&served, dir.path())? == expected,
        "without a friend the disk is not as it was"
    );
    owner.ok(["disk", "flush", "vm"])?;
    served.process.end(Signal::INT)?;

    fs::remove_dir_all(owner.dir.join("disks"))?;
    let served = Served::start(&owner, "vm", &socket)?;
    ensure!(
        content(&served, dir.path())? == expected,
        "without its cache the disk is not as it was"
    );
    served.process.end(Signal::INT).map(drop)
}

#[test]
fn a_disk_lives_in_one_bucket_alone_and_another_machine_takes_it_over_there() -> Result<()> {
    needs!(missing(&["nbdcopy", "qemu-io"]).or_else(tests::s3::missing));
    let dir = tempfile::tempdir()?;
    let server = Server::start(Kind::Moto, dir.path())?;
    let endpoint = format!("http://{}", server.at);
    let owner = Home::init(dir.path().join("owner"), "owner", 0)?;
    owner.ok(["peer", "add", "bucket", "s3://site/grid", "--endpoint", &endpoint])?;
    owner.ok(["disk", "create", "vm", "--size", "32M"])?;
    let socket = dir.path().join("socket");
    let served = Served::start(&owner, "vm", &socket)?;
    let mut expected = noise(16 * MIB, 1);
    expected.resize(32 * MIB, 0);
    write(&served, dir.path(), &expected)?;
    served.process.end(Signal::INT)?;
    assert_eq!(info(&owner, "vm")?["state"], "closed");
    fs::remove_dir_all(owner.dir.join("disks"))?;
    let served = Served::start(&owner, "vm", &socket)?;
    ensure!(content(&served, dir.path())? == expected, "the disk is not as it was");
    served.process.end(Signal::INT)?;

    let second = Home::new(dir.path().join("second"));
    let words = owner.words();
    let recover = [
        "recover",
        "--name",
        "second",
        "--tolerate",
        "0",
        "--phrase-file",
        path_str(&words)?,
    ];
    second.ok([&recover[..], &["--via", "s3://site/grid", "--endpoint", &endpoint]].concat())?;
    let address = format!("unix:{}", path_str(&socket)?);
    let refused = second.exits(1, ["disk", "serve", "vm", "--nbd", &address])?;
    ensure!(
        refused.stderr.contains("last written by the machine"),
        "{}",
        refused.stderr
    );
    let args = ["disk", "serve", "vm", "--nbd", &address, "--take-over", "now"];
    let taken = crate::mount::Mount::serving(&second, &args, "disk_served")?;
    let served = Served {
        process: taken,
        uri: format!("nbd+unix:///vm?socket={}", path_str(&socket)?),
    };
    ensure!(content(&served, dir.path())? == expected, "the disk is not as it was");
    served.process.end(Signal::INT).map(drop)
}
