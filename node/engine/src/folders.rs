//! Folders as peers: each counts once, whatever names it has. A link, a mount or a folder inside another is the same disk
//! full of the same shares, and is lost with it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::failure::{Exit, Failure};
use api::message::Problem;
use api::output::Sink;
use api::request::PeerAdd;
use stores::folder::{FolderStore, is_marked};
use stores::removable::DirPeer;
use upload_queue::peers::place::Place;
use upload_queue::peers::{Peer, PeerKey, Reach};

use crate::Engine;
use crate::config::PeerUrl;
use crate::config::{Config, PeerConfig};
use crate::home::fill_random;
use crate::known::FoundPlace;
use crate::known::KnownPeer;

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

    /// The same, opened.
    pub(super) fn folder_peers(&self, config: &Config) -> Vec<Peer> {
        let folders = self.folders(config).into_iter().map(|(name, path)| {
            let quota = config.peers[&name].quota.as_ref().map(|quota| quota.0);
            let store = DirPeer::new(path.clone(), self.signer(), quota).keeping_free(config.min_free.0);
            folder_peer(&name, path, Arc::new(store))
        });
        folders.collect()
    }

    /// Their names in the database.
    pub(super) fn keys_of_folders(&self, config: &Config) -> BTreeMap<String, PeerKey> {
        let folders = self.folders(config).into_iter();
        folders.map(|(name, path)| (name, Place::Folder(path).key())).collect()
    }

    /// Makes the folder of a new peer a store.
    pub(super) fn prepare_folder(&self, peer: &PeerAdd, path: &Path) -> Result<PeerAdd, Failure> {
        if !path.is_dir() {
            return Err(
                Failure::new(Exit::Failed, format!("`{}` is not a folder", path.display()))
                    .hint("mount the disk or make the folder first"),
            );
        }
        self.check_independent(peer, path)?;
        let opened = FolderStore::open(path, self.0.home.account.account_id(), peer.quota);
        opened.map_err(|error| Failure::from_error(&error))?;
        Ok(peer.clone())
    }

    /// A folder with a store of this account.
    pub(super) fn existing_folder(&self, path: &Path) -> Result<FoundPlace, Failure> {
        let store = DirPeer::new(path.to_owned(), self.signer(), None);
        store
            .store()
            .map_err(|error| Failure::from_error(&error).hint("name the folder that was added as a peer"))?;
        let name = path
            .file_name()
            .map_or_else(|| "folder".to_owned(), |name| name.to_string_lossy().into_owned());
        let config = PeerConfig {
            url: Some(PeerUrl::Folder(path).to_string()),
            ..PeerConfig::default()
        };
        Ok(FoundPlace {
            peers: vec![folder_peer(&name, path.to_owned(), Arc::new(store))],
            name,
            config,
            roster: None,
        })
    }

    /// Refuses a folder that is a peer already, is inside one, or has one inside.
    fn check_independent(&self, peer: &PeerAdd, path: &Path) -> Result<(), Failure> {
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
        let Some(own) = PeerUrl::of(&peer.url).and_then(PeerUrl::folder).and_then(device) else {
            return Ok(());
        };
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

/// The folders of the config as they are known without being opened.
pub(super) fn known(config: &Config) -> Vec<KnownPeer> {
    let folders = config.folder_peers().map(|(name, path)| {
        let key = Place::Folder(path.to_owned()).key();
        KnownPeer {
            domain: key.0.clone(),
            key,
            name: name.to_owned(),
        }
    });
    folders.collect()
}

/// A folder as a peer: a failure domain of its own.
fn folder_peer(name: &str, path: PathBuf, store: Arc<DirPeer>) -> Peer {
    let place = Place::Folder(path);
    Peer {
        domain: place.to_string(),
        key: place.key(),
        place,
        name: name.to_owned(),
        reach: Reach::Local,
        store,
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
