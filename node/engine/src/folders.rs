//! Folders as peers: each counts once, whatever names it has. A link, a mount or a folder inside another is the same disk
//! full of the same shares, and is lost with it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::Engine;
use crate::config::Config;
use crate::config::peer_url::PeerUrl;
use crate::home::fill_random;
use api::failure::{Exit, Failure};
use api::message::Problem;
use api::output::Sink;
use api::request::PeerAdd;
use stores::folder::is_marked;

impl Engine {
    /// The folders of the config that are peers, by name. Of several that are one, only the first is; it is said once.
    pub(super) fn folders(&self, config: &Config) -> BTreeMap<String, PathBuf> {
        let mut folders: BTreeMap<String, PathBuf> = BTreeMap::new();
        for (name, path) in config.folder_peers() {
            let path = path.to_owned();
            // What lies inside another may be where a disk is to be mounted: without a marker it is only away.
            let is_twin = |other: &Path| match overlap(&path, other) {
                Some(Overlap::Same) => true,
                Some(Overlap::Inside) => is_marked(&path),
                Some(Overlap::Around) => is_marked(other),
                None => false,
            };
            let twin = folders.iter().find(|(_, other)| is_twin(other));
            let Some((other, _)) = twin else {
                folders.insert(name.to_owned(), path);
                continue;
            };
            let mut said = self
                .0
                .said_twins
                .lock()
                .expect("no panic while what was said is locked");
            if said.insert(name.to_owned()) {
                tracing::warn!(
                    "The peers {other} and {name} are one folder, which counts once: {name} is left out; \
                     `gridbackup peer rm {name}`"
                );
            }
        }
        folders
    }

    /// Refuses a folder that is a peer already, is inside one, or has one inside.
    pub(super) fn check_independent(&self, peer: &PeerAdd, path: &Path) -> Result<(), Failure> {
        for (name, other) in self.config().folder_peers() {
            if name == peer.name {
                continue;
            }
            let how = match overlap(path, other) {
                Some(Overlap::Same) => "the same folder as",
                Some(Overlap::Inside) => "inside",
                Some(Overlap::Around) => "around",
                None if sees_probe(path, other)? => "the same folder as",
                None => continue,
            };
            let error = format!(
                "`{}` is {how} `{}`, the peer {name}: both are lost together, and would count twice",
                path.display(),
                other.display()
            );
            return Err(Failure::new(Exit::Failed, error).hint("name a folder on another disk or machine"));
        }
        Ok(())
    }

    /// Says which other folder is on the same file system as a new one.
    pub(super) async fn say_shared_disk(&self, peer: &PeerAdd, sink: &Sink) -> Result<(), Failure> {
        let device = |path: &Path| fs::metadata(path).ok().map(|meta| meta.dev());
        let own = match PeerUrl::of(&peer.url) {
            Some(PeerUrl::Folder(path)) => device(path),
            Some(PeerUrl::Bucket(_)) | None => None,
        };
        let Some(own) = own else { return Ok(()) };
        let config = self.config();
        let twin = config
            .folder_peers()
            .find(|(name, path)| *name != peer.name && device(path) == Some(own));
        if let Some((twin, _)) = twin {
            let error = format!("It is on the same file system as {twin}: if that disk dies, both are lost");
            sink.send(Problem::of_peer(&peer.name, error)).await?;
        }
        Ok(())
    }
}

/// How two folders are one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Overlap {
    /// By another name.
    Same,
    /// The first lies in the second, on the same file system.
    Inside,
    /// The second in the first.
    Around,
}

fn overlap(a: &Path, b: &Path) -> Option<Overlap> {
    if a.components().eq(b.components()) || (identity(a).is_some() && identity(a) == identity(b)) {
        Some(Overlap::Same)
    } else if is_inside(a, b) {
        Some(Overlap::Inside)
    } else if is_inside(b, a) {
        Some(Overlap::Around)
    } else {
        None
    }
}

/// Device and inode; none for what is not there.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Whether a folder lies below another one, by any name of either. A disk mounted inside another's folder does not.
fn is_inside(below: &Path, above: &Path) -> bool {
    let (Ok(real), Some(place)) = (fs::canonicalize(below), identity(above)) else {
        return false;
    };
    let is_same_disk = identity(&real).is_some_and(|(device, _)| device == place.0);
    is_same_disk
        && real
            .ancestors()
            .skip(1)
            .any(|ancestor| identity(ancestor) == Some(place))
}

/// Whether what is written into a folder shows in another: the same share mounted twice has two devices. A folder that cannot
/// be written to is refused by whoever makes it a store.
fn sees_probe(folder: &Path, other: &Path) -> Result<bool, Failure> {
    let mut random = [0; 8];
    fill_random(&mut random)?;
    let name = format!(".gridbackup-probe-{:016x}", u64::from_le_bytes(random));
    let probe = folder.join(&name);
    if fs::write(&probe, []).is_err() {
        return Ok(false);
    }
    let is_seen = other.join(&name).exists();
    let _swept_by_hand = fs::remove_file(&probe);
    Ok(is_seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_with_its_links_its_parents_and_what_is_inside() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for folder in ["disk/inner", "disk2"] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        std::os::unix::fs::symlink(path("disk"), path("link")).unwrap();
        let slash = PathBuf::from(format!("{}/", path("disk").display()));
        let dots = path("disk2/../disk/.");
        for (a, b, how) in [
            (path("disk"), slash, Some(Overlap::Same)),
            (path("disk"), dots, Some(Overlap::Same)),
            (path("link"), path("disk"), Some(Overlap::Same)),
            (path("link/inner"), path("disk"), Some(Overlap::Inside)),
            (path("link"), path("disk/inner"), Some(Overlap::Around)),
            (path("disk2"), path("disk"), None),
            // Not mounted: told by their names.
            (path("gone/"), path("gone"), Some(Overlap::Same)),
            (path("gone/a"), path("gone"), None),
            (path("gone"), path("other"), None),
        ] {
            assert_eq!(overlap(&a, &b), how, "{} {}", a.display(), b.display());
        }
        assert!(sees_probe(&path("disk"), &path("link")).unwrap());
        assert!(!sees_probe(&path("disk"), &path("disk2")).unwrap());
        assert_eq!(fs::read_dir(path("disk")).unwrap().count(), 1, "no probe stays");
    }
}
