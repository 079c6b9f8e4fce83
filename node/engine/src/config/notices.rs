//! What a setting comes to that may not be what was meant: rules that can match nothing, stores in folders that are backed
//! up. Nothing here is refused; it is said.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use api::message::{PathName, Problem};
use backup::exclude;

use super::Config;

/// What is said of a folder that is backed up and has a store in it.
pub const STORE_LEFT_OUT: &str = "Shares of backups are kept here: they are left out of the backup";

/// Rules that match nothing at or below any of these folders.
pub fn idle_rules<'a>(rules: &[String], folders: impl Iterator<Item = &'a PathBuf> + Clone) -> Vec<Problem> {
    let is_idle = |rule: &&String| {
        let mut folders = folders.clone().peekable();
        if folders.peek().is_none() {
            // Rules may be there before the folders, but not those that no folder can suit.
            let pattern = rule.trim_start_matches('!').trim_end_matches('/');
            return pattern.contains('/') && !pattern.starts_with(['/', '*']);
        }
        !folders.any(|folder| exclude::can_match(rule, folder.as_os_str().as_bytes()))
    };
    let idle = rules.iter().filter(is_idle);
    let said = idle.map(|rule| {
        let bare = rule.trim_start_matches(['!', '.', '~', '/']);
        Problem::new(format!(
            "The exclude rule `{rule}` matches nothing in what is backed up: with a slash in it, a rule is a path from \
             `/` on; write `**/{bare}` to match it anywhere"
        ))
    });
    said.collect()
}

/// Folder peers that lie in folders that are backed up.
pub fn stores_in_folders(config: &Config) -> Vec<Problem> {
    let peers = config.folder_peers();
    let peers = peers.filter_map(|(name, path)| Some((name, std::fs::canonicalize(path).ok()?)));
    let stores = peers.filter(|(_, store)| config.folders.iter().any(|folder| lies_in(store, folder)));
    let said = stores.map(|(name, store)| Problem {
        path: Some(PathName::from(store.as_path())),
        ..Problem::of_peer(
            name,
            format!("It is the store of the peer {name} and lies in a folder that is backed up: it is left out"),
        )
    });
    said.collect()
}

/// Whether a real path is `folder`, or below it, by whatever name that goes.
pub fn lies_in(path: &Path, folder: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let Some(folder) = identity(folder) else { return false };
    path.ancestors().any(|above| identity(above) == Some(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_can_match_nothing_are_named_with_what_would() {
        let folders = [PathBuf::from("/home/ann"), PathBuf::from("/srv")];
        let rules = ["*.iso", "Downloads/*.iso", "/srv/x", "/mnt/y", "./z"].map(str::to_owned);
        let said = idle_rules(&rules, folders.iter());
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].error.contains("`**/Downloads/*.iso`"), "{said:?}");
        let none: [PathBuf; 0] = [];
        assert_eq!(
            idle_rules(&rules, none.iter()).len(),
            2,
            "only those that no folder can suit"
        );
    }

    #[test]
    fn a_store_is_found_in_a_folder_through_links() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("real/sub/store")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let store = std::fs::canonicalize(dir.path().join("link/sub/store")).unwrap();
        assert!(lies_in(&store, &dir.path().join("link")));
        assert!(lies_in(&store, &store));
        assert!(!lies_in(&store, &dir.path().join("nothing")));
        assert!(!lies_in(&dir.path().join("real"), &store));
    }
}
