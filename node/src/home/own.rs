//! The folders that gridbackup itself lives on: nothing in them is ever removed by a restore.

use std::path::{Path, PathBuf};

use super::HomePaths;
use crate::config::Config;
use crate::failure::{Exit, Failure};

/// Keys, state, the shares of friends and those that lie in folder peers.
pub fn own_folders(paths: &HomePaths, config: &Config) -> Vec<PathBuf> {
    let peers = config.peers.values().filter_map(|peer| peer.url.as_deref());
    let folders = peers.filter_map(|url| url.strip_prefix("dir:")).map(PathBuf::from);
    let mut own = vec![paths.config_dir.clone(), paths.state_dir.clone()];
    own.extend(folders);
    own.dedup();
    own
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
