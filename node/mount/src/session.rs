//! A FUSE mount's life: mounted, served by a few threads, and taken away whatever happens.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backup::view::View;
use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};
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
        if !Path::new("/dev/fuse").exists() {
            return Err(MountError::NoFuse);
        }
        let at = &options.at;
        if !take_dead_mount_away(at) {
            return Err(MountError::Dead { path: at.clone() });
        }
        let is_folder = std::fs::metadata(at).and_then(|found| match found.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        });
        is_folder.map_err(|source| MountError::NoFolder {
            path: at.clone(),
            source,
        })?;
        let refused = |source| MountError::Refused {
            path: at.clone(),
            source,
        };
        let files = SnapshotFs::new(view, tokio::runtime::Handle::current());
        let mut session = Session::new(files, at, &config(options)).map_err(refused)?;
        let unmounter = session.unmount_callable();
        let (say, ended) = oneshot::channel();
        let serving = std::thread::Builder::new().name("mount".to_owned()).spawn(move || {
            let _nobody_waits = say.send(session.run());
        });
        let mount = Self {
            at: at.clone(),
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
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        let Some(mut unmounter) = self.unmounter.take() else {
            return;
        };
        // While a file is open in it, it is only taken out of sight; it ends when the last one is closed.
        if unmounter.unmount().is_err()
            && let Err(error) = detach(&self.at)
        {
            tracing::error!("`{}` cannot be unmounted: {error}", self.at.display());
        }
    }
}

fn config(options: &MountOptions) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        // Somebody else's setuid programs and devices must show, and do nothing.
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
        MountOption::FSName("gridbackup".to_owned()),
        MountOption::Subtype("gridbackup".to_owned()),
    ];
    if options.allow_other {
        // Whoever mounted may read all of the own backup; others what the modes say.
        config.mount_options.push(MountOption::DefaultPermissions);
        config.acl = SessionACL::All;
    }
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    config
}

/// A process that was killed leaves its mount behind, in which everything fails (`ENOTCONN`). `false` if it is still there.
fn take_dead_mount_away(at: &Path) -> bool {
    let is_dead = || rustix::fs::stat(at).is_err_and(|error| error == Errno::NOTCONN);
    if is_dead()
        && let Err(error) = detach(at)
    {
        tracing::debug!("the dead mount at `{}` cannot be taken away: {error}", at.display());
    }
    !is_dead()
}

/// Unmounts at once, whatever is open.
fn detach(at: &Path) -> io::Result<()> {
    match rustix::mount::unmount(at, UnmountFlags::DETACH) {
        Err(Errno::PERM) => {}
        done => return Ok(done?),
    }
    // Only root may do it directly: this helper may for the one who mounted.
    let unmounts = ["fusermount3", "fusermount"].into_iter().any(|helper| {
        let status = Command::new(helper)
            .args(["-u", "-z", "--"])
            .arg(at)
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    });
    if unmounts { Ok(()) } else { Err(Errno::PERM.into()) }
}
