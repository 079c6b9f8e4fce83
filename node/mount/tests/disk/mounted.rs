//! A device that is mounted, in this process.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use disk::Device;
use disk::backing::NoBacking;
use disk::journal::{JournalKey, JournalOptions};
use disk::volume::{Volume, VolumeOptions};
use mount::MountOptions;
use mount::disk::{DiskMount, DiskMountError};
use tokio::runtime::Runtime;

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
/// Longest wait for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why nothing can be mounted here.
pub fn missing() -> Option<String> {
    let opened = File::options().read(true).write(true).open("/dev/fuse");
    match opened {
        Err(error) => Some(format!("/dev/fuse cannot be opened: {error}")),
        Ok(_) if rustix::process::geteuid().is_root() => None,
        Ok(_) => missing_tool("fusermount3"),
    }
}

pub fn missing_tool(tool: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let is_there = folders.into_iter().any(|folder| folder.join(tool).is_file());
    (!is_there).then(|| format!("there is no {tool}"))
}

pub struct Mounted {
    pub mount: Option<DiskMount>,
    pub runtime: Runtime,
    pub at: PathBuf,
    pub folder: tempfile::TempDir,
}

impl Mounted {
    pub fn new(device: Arc<dyn Device>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = folder.path().join("mount");
        std::fs::create_dir(&at)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let mount = {
            let _inside = runtime.enter();
            Some(mount(device, &at)?)
        };
        Ok(Self {
            mount,
            runtime,
            at,
            folder,
        })
    }

    pub fn path(&self) -> PathBuf {
        self.at.join("disk")
    }

    /// The file, for reading and writing.
    pub fn open(&self) -> Result<File> {
        Ok(File::options().read(true).write(true).open(self.path())?)
    }

    /// The file with more flags of open(2).
    pub fn open_with(&self, flags: rustix::fs::OFlags) -> Result<File> {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(flags.bits() as i32);
        Ok(options.open(self.path())?)
    }

    pub fn unmount(&mut self) -> Result<(), DiskMountError> {
        match &mut self.mount {
            Some(mount) => self.runtime.block_on(mount.unmount()),
            None => Ok(()),
        }
    }

    /// Unmounts when what the kernel still has open in it is closed.
    pub fn end(mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            match self.unmount() {
                Err(DiskMountError::InUse { .. }) if started.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                ended => return Ok(ended?),
            }
        }
    }
}

pub fn mount(device: Arc<dyn Device>, at: &Path) -> Result<DiskMount, DiskMountError> {
    let options = MountOptions {
        at: at.to_owned(),
        allow_other: false,
    };
    DiskMount::start(device, "disk".as_ref(), &options)
}

/// A volume with nothing committed, whose journal has so many bytes; opened again, with what it had.
pub fn volume(folder: &Path, size: u64, journal_bytes: u64) -> Result<Arc<Volume>> {
    let journal = folder.join("journal");
    std::fs::create_dir_all(&journal)?;
    let options = VolumeOptions {
        journal: JournalOptions {
            folder: journal,
            file_bytes: journal_bytes / 4,
            file_count: 4,
        },
        size,
        is_read_only: false,
        patience: Duration::from_millis(1),
    };
    let key = JournalKey::new(&[1; 32], [2; 16]);
    Ok(Arc::new(Volume::open(options, key, Arc::new(NoBacking))?))
}

/// Waits until it is so.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let started = Instant::now();
    while !is_so() {
        ensure!(started.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The number of an error.
pub fn number<T>(result: std::io::Result<T>) -> Option<rustix::io::Errno> {
    result.err().and_then(|error| rustix::io::Errno::from_io_error(&error))
}
