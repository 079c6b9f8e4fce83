//! A mount of much more than fits into memory: what one small file costs, and what reading everything takes.
//!
//! Small by default; `GRIDBACKUP_TEST_SCALE=full` makes a source of 10 GB, which compresses to a fiftieth but holds no chunk
//! twice, and prints the figures of docs/figures.md.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tests::fixture::noise;
use tests::grid::peak_mib;
use tests::home::path_str;

use crate::mount::{Mount, has_fuse, make_dir};
use crate::unchanged::owner_with_folders;

const LARGE_BYTES: usize = 64 << 20;
const SMALL_BYTES: usize = 20_000;
const READERS: usize = 8;
/// What `grep` looks for: at the end of the last large file, and nowhere else.
const NEEDLE: &[u8] = b"the needle";

/// Large and small files.
fn counts() -> (usize, usize) {
    match std::env::var("GRIDBACKUP_TEST_SCALE").as_deref() {
        Ok("full") => (160, 5_000),
        _ => (2, 200),
    }
}

fn make_source(source: &Path) -> Result<()> {
    let (large, small) = counts();
    let text = b"all work and no play makes a dull backup ".repeat(100);
    for number in 0..large {
        let mut content = Vec::with_capacity(LARGE_BYTES + 8192);
        while content.len() < LARGE_BYTES {
            content.extend_from_slice(&noise(32, (number * LARGE_BYTES + content.len()) as u64));
            content.extend_from_slice(&text);
        }
        if number + 1 == large {
            content.extend_from_slice(NEEDLE);
        }
        File::create(source.join(format!("large{number}")))?.write_all(&content)?;
    }
    make_dir(source.join("small"))?;
    for number in 0..small {
        fs::write(source.join(format!("small/{number}")), small_content(number))?;
    }
    Ok(())
}

fn small_content(number: usize) -> Vec<u8> {
    noise(SMALL_BYTES, 1 << 40 | number as u64)
}

#[test]
fn one_small_file_of_ten_gigabytes_costs_one_request_and_all_of_it_little_memory() -> Result<()> {
    if !has_fuse() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let source = make_dir(dir.path().join("source"))?;
    make_source(&source)?;
    let owner = owner_with_folders(dir.path(), 2)?;
    let start = Instant::now();
    let said = owner.ok(["run", "--once", path_str(&source)?])?;
    eprintln!("backed up in {:.0} s: {}", start.elapsed().as_secs_f64(), said.last());
    let at = make_dir(dir.path().join("mnt"))?;
    let shown = at.join("latest").join(source.strip_prefix("/")?);

    let start = Instant::now();
    let mount = Mount::start(&owner, &[path_str(&at)?])?;
    let (mounted, start) = (start.elapsed(), Instant::now());
    let middle = counts().1 / 2;
    ensure!(fs::read(shown.join(format!("small/{middle}")))? == small_content(middle));
    eprintln!("mounted in {mounted:.2?}, a small file read in {:.2?}", start.elapsed());
    let summary = mount.end(Signal::TERM)?;
    ensure!(summary["ranges_fetched"] == 1, "{summary}");
    ensure!(summary["peers_used"].as_array().map(Vec::len) == Some(1), "{summary}");
    ensure!(summary["bytes_fetched"].as_u64() <= Some(256 << 10), "{summary}");
    eprintln!("{summary}");

    let mount = Mount::start(&owner, &[path_str(&at)?])?;
    let start = Instant::now();
    let found = Command::new("grep")
        .args(["-rlF", std::str::from_utf8(NEEDLE)?, "."])
        .current_dir(&shown)
        .output()?;
    let (grepped, peak) = (start.elapsed(), peak_mib(mount.pid()));
    ensure!(
        found.stdout == format!("./large{}\n", counts().0 - 1).as_bytes(),
        "{found:?}"
    );
    eprintln!(
        "grep -r in {:.0} s, the mount's peak {peak:?} MiB",
        grepped.as_secs_f64()
    );
    eprintln!("{}", mount.end(Signal::TERM)?);
    ensure!(peak < Some(300), "the mount took {peak:?} MiB");

    // Another mount: what grep has read is in the kernel's cache of the first.
    let mount = Mount::start(&owner, &[path_str(&at)?])?;
    let start = Instant::now();
    read_at_once(&source, &shown)?;
    let (read, peak) = (start.elapsed(), peak_mib(mount.pid()));
    eprintln!(
        "{READERS} readers in {:.0} s, the mount's peak {peak:?} MiB",
        read.as_secs_f64()
    );
    eprintln!("{}", mount.end(Signal::TERM)?);
    ensure!(peak < Some(300), "the mount took {peak:?} MiB");
    Ok(())
}

/// Readers that each read a large file of their own from beginning to end, with the small ones in between.
fn read_at_once(source: &Path, shown: &Path) -> Result<()> {
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                scope.spawn(move || -> Result<()> {
                    let large = format!("large{}", reader % counts().0);
                    same_bytes(&source.join(&large), &shown.join(&large))?;
                    for number in (reader..counts().1).step_by(READERS) {
                        let read = fs::read(shown.join(format!("small/{number}")))?;
                        ensure!(read == small_content(number), "small/{number} differs");
                    }
                    Ok(())
                })
            })
            .collect();
        let mut readers = readers.into_iter();
        readers.try_for_each(|reader| reader.join().expect("a reader does not panic"))
    })
}

fn same_bytes(one: &Path, other: &Path) -> Result<()> {
    let (mut here, mut there) = (File::open(one)?, File::open(other)?);
    ensure!(here.metadata()?.len() == there.metadata()?.len());
    let (mut wanted, mut got) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let read = here.read(&mut wanted)?;
        if read == 0 {
            return Ok(());
        }
        there.read_exact(&mut got[..read])?;
        ensure!(wanted[..read] == got[..read], "{} differs", other.display());
    }
}
