//! A FUSE mount's life: mounted, served by a few threads, and taken away whatever happens.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backup::view::View;
use fuser::{Config, Filesystem, MountOption, Session, SessionACL, SessionUnmounter};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use tokio::sync::oneshot;

use super::fuse::SnapshotFs;

/// Threads that answer the kernel. Chosen: lookups come from the catalog in microseconds, and reads are answered elsewhere.
const THREADS: usize = 4;

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// The folder to mount on.
    pub at: PathBuf,
    /// Other users may look, as far as the files' modes let them.
    pub allow_other: bool,
}

/// A mount failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no FUSE here.
    #[error("/dev/fuse is not there: this system has no FUSE")]
    NoFuse,
    /// The folder is not one.
    #[error("`{}` is no folder: {source}", path.display())]
    NoFolder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A mount whose program was killed is still there.
    #[error("`{}` is still mounted by a gridbackup that was killed", path.display())]
    Dead {
        /// Where.
        path: PathBuf,
    },
    /// The system said no.
    #[error("`{}` cannot be mounted: {source}", path.display())]
    Refused {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A mount; dropping it takes it away.
pub struct FuseMount {
    at: PathBuf,
    unmounter: Option<SessionUnmounter>,
    ended: oneshot::Receiver<io::Result<()>>,
}

impl FuseMount {
    /// Mounts. Blocking; what is read is fetched in the runtime that this is called in.
    pub fn mount(view: View, options: &MountOptions) -> Result<Self, MountError> {
        let files = SnapshotFs::new(view, tokio::runtime::Handle::current());
        Self::serve(files, &options.at, &config(options))
    }

    /// Mounts a file system. Blocking.
    pub(super) fn serve(files: impl Filesystem, at: &Path, config: &Config) -> Result<Self, MountError> {
        if !Path::new("/dev/fuse").exists() {
            return Err(MountError::NoFuse);
        }
        if !take_dead_mount_away(at) {
            return Err(MountError::Dead { path: at.to_owned() });
        }
        let is_folder = std::fs::metadata(at).and_then(|found| match found.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        });
        is_folder.map_err(|source| MountError::NoFolder {
            path: at.to_owned(),
            source,
        })?;
        let refused = |source| MountError::Refused {
            path: at.to_owned(),
            source,
        };
        let mut session = Session::new(files, at, config).map_err(refused)?;
        let unmounter = session.unmount_callable();
        let (say, ended) = oneshot::channel();
        let serving = std::thread::Builder::new().name("mount".to_owned()).spawn(move || {
            let _nobody_waits = say.send(session.run());
        });
        let mount = Self {
            at: at.to_owned(),
            unmounter: Some(unmounter),
            ended,
        };
        serving.map_err(refused)?;
        Ok(mount)
    }

    /// Waits until somebody else has unmounted it. May be dropped.
    pub async fn gone(&mut self) {
        if let Ok(Err(error)) = (&mut self.ended).await {
            tracing::warn!("The mount at `{}` ended: {error}", self.at.display());
        }
        // There is nothing left to take away, and something else may be mounted there by now.
        self.unmounter = None;
    }

    /// Unmounts, unless something in it is in use (`EBUSY`): then it stays. Blocking.
    pub(super) fn unmount(&self) -> io::Result<()> {
        match self.unmounter {
            Some(_) => unmount(&self.at, UnmountFlags::empty()),
            None => Ok(()),
        }
    }
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        let Some(mut unmounter) = self.unmounter.take() else {
            return;
        };
        // While a file is open in it, it is only taken out of sight; it ends when the last one is closed.
        if unmounter.unmount().is_err()
            && let Err(error) = unmount(&self.at, UnmountFlags::DETACH)
        {
            tracing::error!("`{}` cannot be unmounted: {error}", self.at.display());
        }
    }
}

fn config(options: &MountOptions) -> Config {
    let mut config = shared_config(options, THREADS);
    config.mount_options.push(MountOption::RO);
    if options.allow_other {
        // Whoever mounted may read all of the own backup; others what the modes say.
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    config
}

/// What all mounts of ours have in common.
pub(super) fn shared_config(options: &MountOptions, threads: usize) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        // Somebody else's setuid programs and devices must show, and do nothing.
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
        MountOption::FSName("gridbackup".to_owned()),
        MountOption::Subtype("gridbackup".to_owned()),
    ];
    if options.allow_other {
        config.acl = SessionACL::All;
    }
    config.n_threads = Some(threads);
    config.clone_fd = true;
    config
}

/// A process that was killed leaves its mount behind, in which everything fails (`ENOTCONN`). `false` if it is still there.
fn take_dead_mount_away(at: &Path) -> bool {
    let is_dead = || rustix::fs::stat(at).is_err_and(|error| error == Errno::NOTCONN);
    if is_dead()
        && let Err(error) = unmount(at, UnmountFlags::DETACH)
    {
        tracing::debug!("the dead mount at `{}` cannot be taken away: {error}", at.display());
    }
    !is_dead()
}

/// Unmounts: with `DETACH` at once, whatever is open, else only if nothing is (`EBUSY`).
fn unmount(at: &Path, flags: UnmountFlags) -> io::Result<()> {
    match rustix::mount::unmount(at, flags) {
        Err(Errno::PERM) => {}
        done => return Ok(done?),
    }
    // Only root may do it directly: this helper may for the one who mounted.
    let lazily: &[&str] = if flags.contains(UnmountFlags::DETACH) {
        &["-z"]
    } else {
        &[]
    };
    let ended = ["fusermount3", "fusermount"].into_iter().find_map(|helper| {
        let mut command = Command::new(helper);
        command.arg("-u").args(lazily).arg("--").arg(at).stderr(Stdio::null());
        command.status().ok()
    });
    match ended {
        Some(status) if status.success() => Ok(()),
        // It says which error only in words, and in use is what is left when the mount is ours.
        Some(_) if lazily.is_empty() => Err(Errno::BUSY.into()),
        _ => Err(Errno::PERM.into()),
    }
}
