//! Local files that no object has become: removed when that is asked for.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
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

    /// All others that are wanted. Links are files here: what they lead to is not looked at.
    pub fn files(&self, is_wanted: &dyn Fn(&Path) -> bool) -> std::io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut folders = vec![self.target.clone()];
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
                    folders.push(path);
                } else if !self.kept.contains(&short(&path)) && is_wanted(&path) {
                    found.push(path);
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}
