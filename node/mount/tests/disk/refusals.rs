//! What is refused, with which number, and that nothing is lost by asking for it.

use std::fs::{File, FileTimes, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Result, ensure};
use disk::testing::MemoryDevice;
use mount::MountOptions;
use mount::disk::{DiskMount, DiskMountError};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use crate::mounted::{KIB, MIB, Mounted, missing, number, volume};
use crate::needs;

const SIZE: u64 = MIB + 100;

#[test]
fn beyond_the_end_there_is_nothing_to_read_and_no_room_to_write() -> Result<()> {
    needs!(missing());
    let mounted = Mounted::new(Arc::new(MemoryDevice::new(SIZE)))?;
    let file = mounted.open()?;
    let mut buffer = [7; 200];
    ensure!(file.read_at(&mut buffer, SIZE - 50)? == 50 && buffer[..50] == [0; 50]);
    for offset in [SIZE, SIZE + 1, 1 << 62] {
        ensure!(file.read_at(&mut buffer, offset)? == 0, "{offset}");
        ensure!(number(file.write_at(&buffer, offset)) == Some(Errno::NOSPC), "{offset}");
        ensure!(seek(&file, SeekFrom::Data(offset)) == Err(Errno::NXIO));
        ensure!(seek(&file, SeekFrom::Hole(offset)) == Err(Errno::NXIO));
    }
    ensure!(file.write_at(&buffer, SIZE - 50)? == 50, "as much as there is room for");
    let beyond = fallocate(&file, FallocateFlags::ZERO_RANGE, SIZE - 50, 51);
    ensure!(beyond == Err(Errno::NOSPC), "the file would grow");
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, SIZE, 51)?;
    ensure!(file.metadata()?.len() == SIZE);
    drop(file);
    mounted.end()
}

#[test]
fn the_file_is_neither_resized_nor_emptied_nor_removed() -> Result<()> {
    needs!(missing());
    let mounted = Mounted::new(Arc::new(MemoryDevice::new(SIZE)))?;
    let (file, path, at) = (mounted.open()?, mounted.path(), mounted.at.clone());
    file.write_all_at(b"precious", 0)?;
    let refused = Some(Errno::PERM);
    for size in [0, 1, SIZE - 1, SIZE + 1, 1 << 50] {
        ensure!(number(file.set_len(size)) == refused, "{size}");
    }
    file.set_len(SIZE)?;
    ensure!(number(File::create(&path)) == refused, "O_TRUNC");
    ensure!(number(File::create(at.join("other"))) == refused);
    ensure!(number(std::fs::create_dir(at.join("other"))) == refused);
    ensure!(number(std::os::unix::fs::symlink("disk", at.join("other"))) == refused);
    ensure!(number(std::fs::hard_link(&path, at.join("other"))) == refused);
    ensure!(number(std::fs::rename(&path, at.join("other"))) == refused);
    ensure!(number(std::fs::remove_file(&path)) == refused);
    ensure!(number(std::fs::set_permissions(&path, Permissions::from_mode(0o666))) == refused);
    // Nobody is hurt by times that are not kept.
    file.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH))?;
    ensure!(file.metadata()?.mtime() > 0);
    for mode in [
        FallocateFlags::empty(),
        FallocateFlags::KEEP_SIZE,
        FallocateFlags::COLLAPSE_RANGE,
    ] {
        ensure!(fallocate(&file, mode, 0, 4096) == Err(Errno::OPNOTSUPP), "{mode:?}");
    }
    let mut read = [0; 8];
    file.read_exact_at(&mut read, 0)?;
    ensure!(&read == b"precious" && path.metadata()?.len() == SIZE);
    drop(file);
    mounted.end()
}

#[test]
fn a_read_only_disk_is_read_and_nothing_else() -> Result<()> {
    needs!(missing());
    let mounted = Mounted::new(Arc::new(MemoryDevice::new(SIZE).read_only()))?;
    let path = mounted.path();
    ensure!(std::fs::read(&path)? == vec![0; SIZE as usize] && path.metadata()?.mode() & 0o7777 == 0o400);
    // An ordinary user is told of the mode first.
    let told = number(File::options().write(true).open(&path));
    ensure!(matches!(told, Some(Errno::ROFS | Errno::ACCESS)), "{told:?}");
    ensure!(matches!(
        number(std::fs::remove_file(&path)),
        Some(Errno::ROFS | Errno::ACCESS)
    ));
    mounted.end()
}

#[test]
fn what_fails_below_fails_where_it_was_asked_for() -> Result<()> {
    needs!(missing());
    let device = Arc::new(MemoryDevice::new(MIB));
    let mounted = Mounted::new(device.clone())?;
    let file = mounted.open()?;
    device.set_broken(Some((64 * KIB, 68 * KIB)));
    let mut buffer = [0; 4096];
    ensure!(number(file.read_at(&mut buffer, 64 * KIB)) == Some(Errno::IO));
    ensure!(number(file.write_at(&buffer, 64 * KIB)) == Some(Errno::IO));
    ensure!(
        number(file.write_at(&buffer, 62 * KIB)) == Some(Errno::IO),
        "half of it"
    );
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    ensure!(fallocate(&file, punch, 0, 128 * KIB) == Err(Errno::IO));
    file.write_all_at(&[1; 4096], 60 * KIB)?;
    file.read_exact_at(&mut buffer, 68 * KIB)?;
    device.set_far(true);
    let reading = std::thread::spawn(move || number(file.read_at(&mut [0; 100], 64 * KIB)));
    device.set_far(false);
    ensure!(reading.join().ok().flatten() == Some(Errno::IO));
    device.set_broken(None);
    mounted.open()?.read_exact_at(&mut buffer, 60 * KIB)?;
    ensure!(buffer == [1; 4096]);
    mounted.end()
}

#[test]
fn a_journal_that_stays_full_is_no_space_left_and_what_was_written_is_there() -> Result<()> {
    needs!(missing());
    let folder = tempfile::tempdir()?;
    let mounted = Mounted::new(volume(folder.path(), 64 * MIB, 8 * MIB)?)?;
    let file = mounted.open()?;
    let mut written = 0;
    let failed = loop {
        match file.write_at(&[7; 64 << 10], written) {
            Ok(bytes) => written += bytes as u64,
            Err(error) => break error,
        }
        ensure!(written < 16 * MIB, "the journal is full by now");
    };
    ensure!(number::<()>(Err(failed)) == Some(Errno::NOSPC) && written > MIB);
    file.sync_all()?;
    ensure!(
        std::fs::read(mounted.path())?[..written as usize]
            .iter()
            .all(|byte| *byte == 7)
    );
    drop(file);
    mounted.end()
}

#[test]
fn what_is_no_name_of_a_file_is_refused_before_anything_is_mounted() {
    let options = MountOptions {
        at: "/nowhere".into(),
        allow_other: false,
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    for name in ["", ".", "..", "a/b", "/", "a\0b", &"n".repeat(256)] {
        let started = DiskMount::start(Arc::new(MemoryDevice::new(MIB)), name.as_ref(), &options);
        assert!(matches!(started, Err(DiskMountError::FileName { .. })), "`{name}`");
    }
}
