//! The folders that gridbackup itself lives on: what of them no backup saves, and that no restore removes anything in them.

use std::path::{Path, PathBuf};

use api::failure::{Exit, Failure};
use disks::record::Records;

use super::HomePaths;
use crate::config::Config;

/// The folders that gridbackup itself lives on: the one list for everything that must not take them for the user's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFolders {
    config: PathBuf,
    state: PathBuf,
    peers: Vec<PathBuf>,
    /// Journals and maps of virtual disks that lie elsewhere.
    caches: Vec<PathBuf>,
}

impl OwnFolders {
    /// Those of a home.
    pub fn of(paths: &HomePaths, config: &Config) -> Self {
        Self {
            config: paths.config_dir.clone(),
            state: paths.state_dir.clone(),
            peers: config.folder_peers().map(|(_, path)| path.to_owned()).collect(),
            caches: caches(&Records::new(paths.disks())),
        }
    }

    /// What no scan looks into: state changes while it is read, and brought back it would be stale keys and locks. The config is
    /// the user's and is saved; of a peer's folder only the shares are left out, which the scan tells by the store's marker.
    pub fn not_saved(&self) -> Vec<PathBuf> {
        [&[self.state.clone()][..], &self.caches].concat()
    }

    /// What no restore removes anything from: keys, state, config, the shares of friends and those in folder peers.
    pub fn not_removed(&self) -> Vec<PathBuf> {
        let mut all = vec![self.config.clone(), self.state.clone()];
        all.extend_from_slice(&self.peers);
        all.extend_from_slice(&self.caches);
        all.dedup();
        all
    }
}

fn caches(records: &Records) -> Vec<PathBuf> {
    let (known, _unreadable) = records.all().unwrap_or_default();
    let elsewhere = known.iter().filter(|record| record.named_cache().is_some());
    elsewhere.map(|record| records.cache_of(record)).collect()
}

/// Refuses to remove files at and below `target` if that is the whole system, or if `own` folders are in it or around it.
pub fn check_deletion(target: &Path, own: &[PathBuf], sure: bool) -> Result<(), Failure> {
    if sure {
        return Ok(());
    }
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let target = real(target);
    let touches = |own: &&PathBuf| {
        let own = real(own);
        own.starts_with(&target) || target.starts_with(&own)
    };
    let why = match (target.parent(), own.iter().find(touches)) {
        (None, _) => "it is the whole system".to_owned(),
        (_, Some(own)) => format!("gridbackup's own folder {} is there", own.display()),
        (_, None) => return Ok(()),
    };
    let refused = format!("Nothing is removed from {}: {why}", target.display());
    Err(Failure::new(Exit::Failed, refused)
        .hint("see what would be removed with `--delete --dry-run`; then say `--delete --unsafe-delete`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_the_system_nor_what_holds_or_lies_in_an_own_folder_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let (home, link) = (dir.path().join("ann/state"), dir.path().join("link"));
        std::fs::create_dir_all(&home).unwrap();
        std::os::unix::fs::symlink(dir.path().join("ann"), &link).unwrap();
        let own = [home.clone()];
        for target in [Path::new("/"), dir.path(), &home, &home.join("store"), &link] {
            assert!(check_deletion(target, &own, false).is_err(), "{}", target.display());
            assert_eq!(check_deletion(target, &own, true), Ok(()));
        }
        let beside = dir.path().join("ann/documents");
        assert_eq!(check_deletion(&beside, &own, false), Ok(()));
    }
}
