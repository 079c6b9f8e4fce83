//! The server as people's tools use it. A tool that is not installed is named and counted as left out (`./check` installs them).
//!
//! `disk/tests/foreign` runs the suites of other projects, which have to be built from their sources first.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::needs;
use crate::served::{MIB, Served};

fn missing(tool: &str) -> Option<String> {
    let is_there =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(tool).is_file());
    (!is_there).then(|| format!("there is no {tool}"))
}

impl Served {
    fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket.display())
    }
}

/// Runs a tool to its success, and returns what it prints.
fn run(tool: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(tool).args(arguments).output().context(tool.to_owned())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{tool} {arguments:?}: {said}{errors}");
    Ok(said)
}

/// A sparse file of the export's size: data that are no zeros, and holes of many lengths.
fn sparse_file(path: &Path, size: u64) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create_new(path)?;
    file.set_len(size)?;
    let (mut at, mut step) = (0, 4096);
    while at < size {
        let length = step.min(size - at) as usize;
        let data: Vec<u8> = (0..length).map(|byte| (byte as u64 / 7 + at) as u8 | 1).collect();
        file.write_all_at(&data, at)?;
        at += step * 3;
        step = (step * 2) % (9 * MIB + 4096);
    }
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the temporary folder's name is UTF-8")
}

#[test]
fn nbdinfo_lists_describes_and_maps() -> Result<()> {
    needs!(missing("nbdinfo"));
    let served = Served::new();
    let list = run("nbdinfo", &["--list", &served.uri("").replace("///", "//")])?;
    for export in ["disk", "snapshot", "largest"] {
        ensure!(list.contains(&format!("export=\"{export}\"")), "{list}");
    }
    let told = run("nbdinfo", &[&served.uri("disk")])?;
    for line in [
        "can_multi_conn: true",
        "can_fast_zero: true",
        "can_df: true",
        "base:allocation",
        "block_size_preferred: 4096",
        "block_size_maximum: 33554432",
        "The disk",
    ] {
        ensure!(told.contains(line), "{line}: {told}");
    }
    run("nbdinfo", &["--is", "read-only", &served.uri("snapshot")])?;
    let map = run("nbdinfo", &["--map", &served.uri("disk")])?;
    ensure!(map.contains("268435456    3  hole,zero"), "{map}");
    Ok(())
}

#[test]
fn nbdcopy_copies_there_and_back_and_holes_stay_holes() -> Result<()> {
    needs!(missing("nbdcopy").or_else(|| missing("nbdinfo")));
    let (served, folder) = (Served::new(), tempfile::tempdir()?);
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    sparse_file(&there, 256 * MIB)?;
    run("nbdcopy", &["--flush", text(&there)?, &served.uri("disk")])?;
    ensure!(served.device.asked().flushes > 0);
    run("nbdcopy", &[&served.uri("disk"), text(&back)?])?;
    ensure!(std::fs::read(&there)? == std::fs::read(&back)?);
    let map = run("nbdinfo", &["--map", "--totals", &served.uri("disk")])?;
    ensure!(map.contains("hole,zero") && map.contains("data"), "{map}");
    Ok(())
}

#[test]
fn qemu_img_converts_compares_and_maps() -> Result<()> {
    needs!(missing("qemu-img"));
    let (served, folder) = (Served::new(), tempfile::tempdir()?);
    let file = folder.path().join("file");
    sparse_file(&file, 256 * MIB)?;
    let uri = served.uri("disk");
    run(
        "qemu-img",
        &["convert", "-n", "-f", "raw", "-O", "raw", "-W", text(&file)?, &uri],
    )?;
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", text(&file)?, &uri])?;
    let map = run("qemu-img", &["map", "--output=json", "-f", "raw", &uri])?;
    ensure!(
        map.contains("\"zero\": true") && map.contains("\"zero\": false"),
        "{map}"
    );
    let qcow = folder.path().join("qcow");
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &uri, text(&qcow)?])?;
    run(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "qcow2", text(&file)?, text(&qcow)?],
    )?;
    Ok(())
}

#[test]
fn qemu_io_reads_what_it_wrote_zeroed_and_discarded() -> Result<()> {
    needs!(missing("qemu-io"));
    let served = Served::new();
    let steps = [
        "write -P 0xab 0 64k",
        "write -f -P 0xcd 64k 3M",
        "write -z 4k 8k",
        "write -z -u 128k 1M",
        "discard 32k 8k",
        "read -P 0xab 0 4k",
        "read -P 0 4k 8k",
        "read -P 0xab 12k 20k",
        "read -P 0 32k 8k",
        "read -P 0xcd 64k 64k",
        "read -P 0 128k 1M",
        "write -P 0x11 511 513",
        "read -P 0x11 511 513",
        "aio_write -P 0x22 8M 2M",
        "aio_write -P 0x33 10M 2M",
        "aio_flush",
        "read -P 0x22 8M 2M",
        "read -P 0x33 10M 2M",
        "flush",
    ];
    let mut arguments = vec!["-f", "raw"];
    arguments.extend(steps.iter().flat_map(|step| ["-c", *step]));
    let uri = served.uri("disk");
    arguments.push(&uri);
    let said = run("qemu-io", &arguments)?;
    ensure!(!said.contains("failed") && !said.contains("error"), "{said}");
    ensure!(served.device.asked().flushes > 0);
    Ok(())
}

#[test]
fn fio_verifies_what_it_wrote_at_random() -> Result<()> {
    needs!(missing("fio"));
    // Debian's fio has the engine, others may not.
    let engines = run("fio", &["--enghelp"])?;
    needs!((!engines.contains("nbd")).then(|| "this fio has no nbd engine".to_owned()));
    let (served, folder) = (Served::new(), tempfile::tempdir()?);
    let uri = format!("--uri={}", served.uri("disk"));
    let job = |name: &str, more: &[&str]| {
        let name = format!("--name={name}");
        let mut arguments = vec![
            name.as_str(),
            "--ioengine=nbd",
            uri.as_str(),
            "--verify=crc32c",
            "--verify_fatal=1",
        ];
        arguments.extend(more);
        // It keeps notes in the working folder.
        let output = Command::new("fio")
            .args(&arguments)
            .current_dir(folder.path())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && !errors.contains("verify:"), "{said}{errors}");
        Ok(())
    };
    job(
        "blocks",
        &["--rw=randwrite", "--bs=4k", "--size=32m", "--iodepth=16", "--fsync=32"],
    )?;
    job(
        "odd",
        &[
            "--rw=randwrite",
            "--bsrange=1k-600k",
            "--bs_unaligned",
            "--size=64m",
            "--iodepth=8",
        ],
    )?;
    job("trims", &["--rw=randtrimwrite", "--bs=4k", "--size=8m", "--iodepth=4"])
}
