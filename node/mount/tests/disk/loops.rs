//! File systems on a loop device over the mounted file: made, filled, trimmed, checked, and read again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use disk::testing::MemoryDevice;
use disk::{Device, ExtentKind};

use crate::mounted::{MIB, Mounted, missing, missing_tool, volume};
use crate::needs;

/// btrfs wants 109 MiB at least.
const SIZE: u64 = 192 * MIB;
const FILES: usize = 120;

/// Runs a tool to its success, and returns what it prints.
fn run(tool: &str, arguments: &[&str]) -> Result<String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(tool);
    let output = command
        .args(arguments)
        .env("PATH", path)
        .output()
        .context(tool.to_owned())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{tool} {arguments:?}: {said}{errors}");
    Ok(said)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the temporary folder's name is UTF-8")
}

/// Why there can be no file systems on loop devices here.
fn missing_for(tools: &[&str]) -> Option<String> {
    let not_root = !rustix::process::geteuid().is_root();
    let not_root = not_root.then(|| "only root has loop devices".to_owned());
    let no_loops = (!Path::new("/dev/loop-control").exists()).then(|| "there are no loop devices".to_owned());
    let tools = || {
        ["losetup", "mount", "umount", "fstrim"]
            .iter()
            .chain(tools)
            .find_map(|tool| missing_tool(tool))
    };
    missing().or(not_root).or(no_loops).or_else(tools)
}

/// A loop device over a file, and where it is mounted. Dropped, both are taken away.
struct Loop {
    device: String,
    at: PathBuf,
}

impl Loop {
    fn new(mounted: &Mounted, options: &[&str]) -> Result<Self> {
        let path = mounted.path();
        let device = run("losetup", &[&["--find", "--show"], options, &[text(&path)?]].concat())?;
        let at = mounted.folder.path().join("files");
        std::fs::create_dir_all(&at)?;
        let device = device.trim().to_owned();
        Ok(Self { device, at })
    }

    fn mount(&self) -> Result<()> {
        run("mount", &[&self.device, text(&self.at)?]).map(drop)
    }

    fn unmount(&self) -> Result<()> {
        run("umount", &[text(&self.at)?]).map(drop)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _not_mounted = text(&self.at).and_then(|at| run("umount", &["--quiet", at]));
        let _told_by_the_mount = run("losetup", &["--detach", &self.device]);
    }
}

/// The bytes of a file of the tree: every length from none to some MiB, and not to be compressed.
fn content(number: usize) -> Vec<u8> {
    let length = number * number * 37 + number;
    let mut state = number as u32 + 1;
    let bytes = (0..length).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    bytes.collect()
}

fn name(at: &Path, number: usize) -> PathBuf {
    at.join(format!("{}/{number}", number % 7))
}

fn write_tree(at: &Path) -> Result<()> {
    for number in 0..FILES {
        let path = name(at, number);
        std::fs::create_dir_all(path.parent().context("files lie in folders")?)?;
        std::fs::write(path, content(number))?;
    }
    Ok(())
}

fn compare(at: &Path, numbers: impl Iterator<Item = usize>) -> Result<()> {
    for number in numbers {
        ensure!(std::fs::read(name(at, number))? == content(number), "file {number}");
    }
    Ok(())
}

fn data_bytes(device: &dyn Device) -> Result<u64> {
    let extents = device.extents(0, device.size())?;
    let data = extents.iter().filter(|extent| extent.kind == ExtentKind::Data);
    Ok(data.map(|extent| extent.length).sum())
}

/// `make` makes the file system, `check` says that it is whole.
fn lives_on_a_loop_device(device: Arc<dyn Device>, options: &[&str], make: &[&str], check: &[&str]) -> Result<()> {
    let mounted = Mounted::new(device.clone())?;
    let over = Loop::new(&mounted, options)?;
    let tool = |command: &[&str]| run(command[0], &[&command[1..], &[&*over.device]].concat());
    tool(make)?;
    over.mount()?;
    write_tree(&over.at)?;
    over.unmount()?;
    tool(check)?;
    over.mount()?;
    compare(&over.at, 0..FILES)?;
    for number in (0..FILES).filter(|number| number % 2 == 1) {
        std::fs::remove_file(name(&over.at, number))?;
    }
    run("sync", &["--file-system", text(&over.at)?])?;
    let before = data_bytes(&*device)?;
    run("fstrim", &[text(&over.at)?])?;
    over.unmount()?;
    let freed: usize = (0..FILES)
        .filter(|number| number % 2 == 1)
        .map(|number| content(number).len())
        .sum();
    let after = data_bytes(&*device)?;
    // File systems keep some of it: parts of blocks, and what they write for having removed it.
    ensure!(
        after + freed as u64 / 2 < before,
        "{before} bytes of data, then {after}"
    );
    tool(check)?;
    drop(over);
    mounted.end()?;
    // Without the kernel's caches of before.
    let mounted = Mounted::new(device)?;
    let over = Loop::new(&mounted, options)?;
    over.mount()?;
    compare(&over.at, (0..FILES).step_by(2))?;
    drop(over);
    mounted.end()
}

const EXT4: (&[&str], &[&str]) = (&["mkfs.ext4", "-q"], &["e2fsck", "-f", "-n"]);
const BTRFS: (&[&str], &[&str]) = (&["mkfs.btrfs", "-q"], &["btrfs", "check"]);

#[test]
fn ext4_lives_on_a_loop_device() -> Result<()> {
    needs!(missing_for(&["mkfs.ext4", "e2fsck"]));
    lives_on_a_loop_device(Arc::new(MemoryDevice::new(SIZE)), &[], EXT4.0, EXT4.1)
}

#[test]
fn ext4_lives_on_a_loop_device_with_direct_io() -> Result<()> {
    needs!(missing_for(&["mkfs.ext4", "e2fsck"]));
    let device = Arc::new(MemoryDevice::new(SIZE));
    lives_on_a_loop_device(device, &["--direct-io=on"], EXT4.0, EXT4.1)
}

#[test]
fn ext4_lives_on_a_loop_device_over_a_volume() -> Result<()> {
    needs!(missing_for(&["mkfs.ext4", "e2fsck"]));
    let folder = tempfile::tempdir()?;
    // Nothing is committed: the journal has all that was ever written.
    let device = volume(folder.path(), SIZE, 256 * MIB)?;
    lives_on_a_loop_device(device, &[], EXT4.0, EXT4.1)
}

#[test]
fn btrfs_lives_on_a_loop_device() -> Result<()> {
    needs!(missing_for(&["mkfs.btrfs", "btrfs"]));
    lives_on_a_loop_device(Arc::new(MemoryDevice::new(SIZE)), &[], BTRFS.0, BTRFS.1)
}
