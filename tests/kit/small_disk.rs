//! A small disk of its own (a tmpfs), for tests of what happens when it is full or may only be read. Needs root.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};

/// Unmounted when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it, or says that the test is left out here, and why.
    pub fn mount_or_skip(at: &Path, mib: u32) -> Result<Option<Self>> {
        fs::create_dir_all(at)?;
        let size = format!("size={mib}M");
        match mount(&["-t", "tmpfs", "-o", &size, "tmpfs"], at) {
            Ok(()) => Ok(Some(Self(at.to_owned()))),
            Err(reason) => {
                crate::left_out::say(&format!("a small disk cannot be mounted here: {reason:#}"));
                Ok(None)
            }
        }
    }

    /// Takes the last byte of it.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.0.join("filler"))?;
        for piece in [1 << 20, 4096, 1] {
            let zeros = vec![0; piece];
            loop {
                match file.write(&zeros) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => bail!(error),
                }
            }
        }
        Ok(())
    }

    /// Gives back what `fill` took.
    pub fn empty(&self) -> Result<()> {
        Ok(fs::remove_file(self.0.join("filler"))?)
    }

    /// Gives it this size.
    pub fn grow(&self, mib: u32) -> Result<()> {
        mount(&["-o", &format!("remount,size={mib}M")], &self.0)
    }

    /// From now on it may only be read.
    pub fn freeze(&self) -> Result<()> {
        mount(&["-o", "remount,ro"], &self.0)
    }

    /// It may be written again.
    pub fn thaw(&self) -> Result<()> {
        mount(&["-o", "remount,rw"], &self.0)
    }

    /// Bytes free.
    pub fn free_bytes(&self) -> Result<u64> {
        let disk = rustix::fs::statvfs(&self.0)?;
        Ok(disk.f_bavail * disk.f_frsize)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(args: &[&str], at: &Path) -> Result<()> {
    let done = Command::new("mount").args(args).arg(at).output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
