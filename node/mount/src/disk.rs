//! A virtual disk as a folder with one file, whose bytes are the disk's: for loop devices, and for whatever works on images of disks.
//!
//! `serving` does what is asked of the device, `answers` translates between it and FUSE. Leaves out which disk it is, and resizing.

mod answers;
mod failure;
mod held;
mod holes;
mod serving;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use disk::{Device, DeviceError};
use fuser::MountOption;
use tokio::runtime::Handle;

use self::answers::DiskFs;
use self::serving::Serving;
use super::session::{FuseMount, MountError, MountOptions, shared_config};

/// Threads that answer the kernel. Chosen: what takes long is a task beside them, and what remains for them is the work of a
/// processor, or a read or write of the local disk.
const THREADS: usize = 4;
/// Longest name of a file (`NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;

/// A disk cannot be mounted, or not be unmounted.
#[derive(Debug, thiserror::Error)]
pub enum DiskMountError {
    /// Not mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// No file can have this name.
    #[error("`{}` is no name of a file", name.display())]
    FileName {
        /// Which.
        name: OsString,
    },
    /// Something has the file open, and it stays mounted.
    #[error("`{}` is in use: detach loop devices and close what has the file open", path.display())]
    InUse {
        /// Where it is mounted.
        path: PathBuf,
    },
    /// The system would not unmount it, and it stays mounted.
    #[error("`{}` cannot be unmounted: {source}", path.display())]
    StillMounted {
        /// Where it is mounted.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What was written last may not survive a power cut.
    #[error("Not all that was written to the disk is safe from a power cut: {0}")]
    NotFlushed(DeviceError),
}

/// A mounted disk. Dropping it takes the mount out of sight; what has the file open keeps it until it is closed.
pub struct DiskMount {
    at: PathBuf,
    /// None when it is mounted no more.
    mount: Option<FuseMount>,
    serving: Arc<Serving>,
}

impl DiskMount {
    /// Mounts a folder with one file of this name. Blocking; what takes time is done in the runtime that this is called in.
    pub fn start(device: Arc<dyn Device>, file: &OsStr, options: &MountOptions) -> Result<Self, DiskMountError> {
        let bytes = file.as_bytes();
        let is_name = !matches!(bytes, b"" | b"." | b"..") && !bytes.contains(&b'/') && !bytes.contains(&0);
        if !is_name || bytes.len() > NAME_BYTES_MAX {
            return Err(DiskMountError::FileName { name: file.to_owned() });
        }
        let mut config = shared_config(options, THREADS);
        // The kernel holds everybody against the file's mode: with `allow_other` these are its owner and root, as for a disk.
        let more = [MountOption::DefaultPermissions, MountOption::NoExec];
        config.mount_options.extend(more);
        if device.is_read_only() {
            config.mount_options.push(MountOption::RO);
        }
        let serving = Arc::new(Serving::new(device, Handle::current()));
        let files = DiskFs::new(serving.clone(), file.to_owned());
        let mount = Some(FuseMount::serve(files, &options.at, &config)?);
        let at = options.at.clone();
        Ok(Self { at, mount, serving })
    }

    /// Waits until somebody else has unmounted it and all that was written is flushed. May be dropped.
    pub async fn gone(&mut self) -> Result<(), DiskMountError> {
        if let Some(mount) = &mut self.mount {
            mount.gone().await;
            self.mount = None;
        }
        self.flushed()
    }

    /// Flushes, and unmounts unless the file is in use: then it stays mounted. When it is done, all that was written survives a power
    /// cut. If this is dropped, so is the mount.
    pub async fn unmount(&mut self) -> Result<(), DiskMountError> {
        // First, so that what takes long and can fail is done while it is still mounted.
        self.serving.flush().await.map_err(DiskMountError::NotFlushed)?;
        let Some(mount) = self.mount.take() else {
            return self.flushed();
        };
        let unmounting = tokio::task::spawn_blocking(move || (mount.unmount(), mount));
        let (unmounted, mut mount) = unmounting.await.expect("unmounting does not panic");
        if let Err(source) = unmounted {
            self.mount = Some(mount);
            let path = self.at.clone();
            return Err(match source.kind() {
                io::ErrorKind::ResourceBusy => DiskMountError::InUse { path },
                _ => DiskMountError::StillMounted { path, source },
            });
        }
        mount.gone().await;
        self.flushed()
    }

    /// How the flush at the mount's end ended.
    fn flushed(&self) -> Result<(), DiskMountError> {
        match self.serving.take_failed_end() {
            Some(error) => Err(DiskMountError::NotFlushed(error)),
            None => Ok(()),
        }
    }
}
