//! What is promised when: answers, flushes, and that nobody waits for somebody else.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use disk::testing::MemoryDevice;
use disk::{Device, ExtentKind};
use mount::disk::DiskMountError;
use rustix::fs::{FallocateFlags, OFlags, SeekFrom, fallocate, seek};

use crate::mounted::{KIB, MIB, Mounted, missing, mount, wait_for};
use crate::needs;

/// More than there are threads that answer the kernel.
const CLIENTS: u64 = 12;
/// A child process mounts here, until it is killed.
const FOLDER_VARIABLE: &str = "DISK_MOUNT_FOLDER";

fn memory(size: u64) -> Result<(Arc<MemoryDevice>, Mounted)> {
    let device = Arc::new(MemoryDevice::new(size));
    Ok((device.clone(), Mounted::new(device)?))
}

#[test]
fn the_folder_has_one_file_of_the_devices_size_for_its_owner_alone() -> Result<()> {
    needs!(missing());
    let size = (1 << 44) + 4096;
    let (_, mounted) = memory(size)?;
    let names: Vec<_> = std::fs::read_dir(&mounted.at)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<_>>()?;
    ensure!(names == ["disk"], "{names:?}");
    let told = std::fs::metadata(mounted.path())?;
    ensure!(told.is_file() && told.len() == size);
    ensure!(told.mode() & 0o7777 == 0o600 && told.uid() == rustix::process::geteuid().as_raw());
    ensure!(
        told.blocks() > 0 && told.blocks() * 512 < size,
        "{} blocks",
        told.blocks()
    );
    let room = rustix::fs::statvfs(&mounted.at)?;
    ensure!(room.f_bsize == 4 * KIB && room.f_blocks * 4 * KIB == size && room.f_bfree == 0);
    mounted.end()
}

#[test]
fn a_sync_flushes_and_a_close_only_what_was_written() -> Result<()> {
    needs!(missing());
    let (device, mounted) = memory(MIB)?;
    let flushes = || device.asked().flushes;
    let file = mounted.open()?;
    file.write_all_at(b"abc", 7)?;
    ensure!(flushes() == 0);
    file.sync_all()?;
    file.sync_data()?;
    ensure!(flushes() == 2, "each sync is one, whatever was written");
    drop(file);
    ensure!(flushes() == 2, "nothing was written since");
    let file = mounted.open()?;
    file.write_all_at(b"abc", 7)?;
    drop(file);
    ensure!(flushes() == 3, "a close waits for its flush");
    drop(mounted.open()?);
    ensure!(flushes() == 3);
    for flags in [OFlags::DSYNC, OFlags::SYNC] {
        let before = flushes();
        let file = mounted.open_with(flags)?;
        file.write_all_at(b"abc", 7)?;
        ensure!(flushes() == before + 1, "{flags:?}");
        file.write_all_at(&vec![1; 4096], 8192)?;
        ensure!(flushes() == before + 2, "{flags:?}");
    }
    mounted.end()
}

#[test]
fn punching_makes_holes_and_zeroing_makes_zeros() -> Result<()> {
    needs!(missing());
    let (device, mounted) = memory(4 * MIB)?;
    let file = mounted.open()?;
    file.write_all_at(&vec![0x25; 4 << 20], 0)?;
    let holes = || -> Result<u64> {
        let extents = device.extents(0, 4 * MIB)?;
        let holes = extents.iter().filter(|extent| extent.kind == ExtentKind::Zero);
        Ok(holes.map(|extent| extent.length).sum())
    };
    ensure!(holes()? == 0 && seek(&file, SeekFrom::Hole(0))? == 4 * MIB);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, MIB, MIB)?;
    ensure!(holes()? == MIB && seek(&file, SeekFrom::Hole(0))? == MIB && seek(&file, SeekFrom::Data(MIB))? == 2 * MIB);
    fallocate(&file, FallocateFlags::ZERO_RANGE, 3 * MIB + 1, MIB - 1)?;
    let mut last = [1; 2];
    file.read_exact_at(&mut last, 3 * MIB)?;
    ensure!(last == [0x25, 0] && holes()? == 2 * MIB - 4 * KIB);
    // Up to the end and beyond: what is there is punched.
    fallocate(&file, punch, 2 * MIB, 1 << 50)?;
    ensure!(holes()? == 3 * MIB && file.metadata()?.len() == 4 * MIB);
    drop(file);
    mounted.end()
}

/// Lets those go who wait, however the test ends: while they are in the kernel, this process, which serves them, cannot end.
struct LetsGo(Arc<MemoryDevice>);

impl Drop for LetsGo {
    fn drop(&mut self) {
        self.0.set_far(false);
        self.0.set_full(false);
    }
}

fn clients(
    mounted: &Mounted,
    work: fn(&File, u64) -> std::io::Result<()>,
) -> Result<Vec<JoinHandle<std::io::Result<()>>>> {
    let one = |number| {
        let file = mounted.open()?;
        Ok(std::thread::spawn(move || work(&file, number)))
    };
    (0..CLIENTS).map(one).collect()
}

fn ended(clients: Vec<JoinHandle<std::io::Result<()>>>) -> Result<()> {
    for client in clients {
        client.join().ok().context("a client panicked")??;
    }
    Ok(())
}

#[test]
fn what_has_to_be_fetched_holds_up_nobody_else() -> Result<()> {
    needs!(missing());
    let (device, mounted) = memory(MIB)?;
    let file = mounted.open()?;
    file.write_all_at(&vec![0x25; MIB as usize], 0)?;
    device.set_far(true);
    let _lets_go = LetsGo(device.clone());
    let readers = clients(&mounted, |file, number| {
        let mut read = [0; 4096];
        file.read_exact_at(&mut read, number * 8 * KIB)?;
        if read == [0x25; 4096] {
            Ok(())
        } else {
            Err(std::io::ErrorKind::InvalidData.into())
        }
    })?;
    // These need the rest of the blocks that they begin and end in.
    let writers = clients(&mounted, |file, number| {
        file.write_all_at(&[1; 6000], number * 16 * KIB + 100)
    })?;
    // No sync among them: the kernel holds each of them until all writes to its file are answered.
    for number in 0..100 {
        file.write_all_at(&[2; 4096], 512 * KIB + number * 4 * KIB)?;
        ensure!(mounted.path().metadata()?.len() == MIB);
    }
    ensure!(
        !readers.iter().chain(&writers).any(JoinHandle::is_finished),
        "nothing was here to be read"
    );
    device.set_far(false);
    // The readers' blocks may have been overwritten by the writers before they were read: only whether they end counts for those.
    for reader in readers {
        let _any = reader.join().ok().context("a reader panicked")?;
    }
    ended(writers)?;
    let mut read = [0; 6002];
    file.read_exact_at(&mut read, 99)?;
    ensure!(read[0] == 0x25 && read[1..6001].iter().all(|byte| *byte == 1) && read[6001] == 0x25);
    drop(file);
    mounted.end()
}

#[test]
fn a_full_journal_holds_up_writers_and_nobody_else() -> Result<()> {
    needs!(missing());
    let (device, mounted) = memory(MIB)?;
    device.set_full(true);
    let _lets_go = LetsGo(device.clone());
    let writers = clients(&mounted, |file, number| file.write_all_at(&[1; 4096], number * 4 * KIB))?;
    let file = mounted.open()?;
    for number in 0..100 {
        let mut read = [1; 4096];
        file.read_exact_at(&mut read, number * 4 * KIB)?;
        ensure!(read == [0; 4096]);
    }
    ensure!(!writers.iter().any(JoinHandle::is_finished));
    device.set_full(false);
    ended(writers)?;
    ensure!(
        std::fs::read(mounted.path())?[..(CLIENTS * 4 * KIB) as usize]
            .iter()
            .all(|byte| *byte == 1)
    );
    drop(file);
    mounted.end()
}

#[test]
fn a_mount_in_use_stays_and_unmounting_flushes() -> Result<()> {
    needs!(missing());
    let (device, mut mounted) = memory(MIB)?;
    let file = mounted.open()?;
    file.write_all_at(b"abc", 7)?;
    ensure!(matches!(mounted.unmount(), Err(DiskMountError::InUse { .. })));
    file.write_all_at(b"abc", 10)?;
    let before = device.asked().flushes;
    drop(file);
    mounted.unmount()?;
    ensure!(device.asked().flushes > before && !mounted.path().exists());
    mounted.unmount()?;
    Ok(())
}

#[test]
fn who_unmounts_it_is_noticed_when_all_is_flushed() -> Result<()> {
    needs!(missing());
    let (device, mut mounted) = memory(MIB)?;
    std::fs::write(mounted.folder.path().join("from"), vec![1; 4096])?;
    mounted.open()?.write_all_at(b"abc", 0)?;
    let helper = if rustix::process::geteuid().is_root() {
        "umount"
    } else {
        "fusermount3"
    };
    let mut unmounting = Command::new(helper);
    if helper != "umount" {
        unmounting.arg("-u");
    }
    ensure!(unmounting.arg(&mounted.at).status()?.success());
    let mount = mounted.mount.as_mut().context("it was mounted")?;
    mounted.runtime.block_on(mount.gone())?;
    ensure!(device.asked().flushes >= 2, "one for the close, one at the end");
    mounted.end()
}

#[test]
fn a_mount_whose_process_was_killed_is_taken_away_by_the_next() -> Result<()> {
    needs!(missing());
    let folder = tempfile::tempdir()?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "promises::a_process_that_mounts_until_it_is_killed"])
        .env(FOLDER_VARIABLE, folder.path())
        .stdout(Stdio::null())
        .spawn()?;
    let mounted = wait_for("the child mounts", || folder.path().join("disk").exists());
    child.kill()?;
    child.wait()?;
    mounted?;
    ensure!(
        std::fs::metadata(folder.path()).is_err(),
        "a dead mount answers nothing"
    );
    let runtime = tokio::runtime::Runtime::new()?;
    let mut again = {
        let _inside = runtime.enter();
        mount(Arc::new(MemoryDevice::new(MIB)), folder.path())?
    };
    ensure!(std::fs::read(folder.path().join("disk"))? == vec![0; MIB as usize]);
    runtime.block_on(again.unmount())?;
    Ok(())
}

/// Nothing, but in the process that the test above starts.
#[test]
fn a_process_that_mounts_until_it_is_killed() -> Result<()> {
    let Some(folder) = std::env::var_os(FOLDER_VARIABLE) else {
        return Ok(());
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let _inside = runtime.enter();
    let _mount = mount(Arc::new(MemoryDevice::new(MIB)), Path::new(&folder))?;
    loop {
        std::thread::park();
    }
}
