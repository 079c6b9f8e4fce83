//! Local files that no object has become: removed when that is asked for.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The files that stay, as hashes of their paths: 16 bytes each.
pub(super) struct Extra {
    target: PathBuf,
    kept: HashSet<[u8; 16]>,
}

fn short(path: &Path) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(path.as_os_str().as_bytes()).as_bytes()[..16]);
    short
}

impl Extra {
    pub fn new(target: &Path) -> Self {
        Self {
            target: target.to_owned(),
            kept: HashSet::new(),
        }
    }

    /// There is an object for this.
    pub fn keep(&mut self, path: &Path) {
        self.kept.insert(short(path));
    }

    /// All others that are wanted. Links are files here: what they lead to is not looked at, nor are other file systems and
    /// the `protected` folders.
    pub fn files(&self, protected: &[PathBuf], is_wanted: &dyn Fn(&Path) -> bool) -> std::io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut folders = vec![self.target.clone()];
        let identity = |path: &PathBuf| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
        let protected: Vec<(u64, u64)> = protected.iter().filter_map(|path| identity(path).ok()).collect();
        let device = identity(&self.target).map(|(device, _)| device).ok();
        while let Some(folder) = folders.pop() {
            let entries = match std::fs::read_dir(&folder) {
                // A dry run into a folder that is not there yet.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && folder == self.target => break,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let path = entry.path();
                if entry.file_type()?.is_dir() {
                    let (on, inode) = identity(&path)?;
                    if Some(on) == device && !protected.contains(&(on, inode)) && !is_mount_point(&path) {
                        folders.push(path);
                    }
                } else if !self.kept.contains(&short(&path)) && is_wanted(&path) {
                    found.push(path);
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// A bind mount has the device of the folder that it hides. Kernels before 5.8 do not tell.
fn is_mount_point(path: &Path) -> bool {
    let (flags, mask) = (
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        rustix::fs::StatxFlags::BASIC_STATS,
    );
    let found = rustix::fs::statx(rustix::fs::CWD, path, flags, mask);
    found.is_ok_and(|stat| stat.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT))
}
