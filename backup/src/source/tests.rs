//! What every source promises, tried on each: files of this machine, and the tree in memory that tests lean on.
//!
//! A test in memory says something of real files only as far as both sources do the same here.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use proto::log_record::EntryKind;
use rustix::io::Errno;

use self::memory::MemoryTree;
use crate::source::local::LocalFiles;
use crate::source::read_file::{ReadError, SourceFile};
use crate::source::{Folder, ListBuffer, Source};

pub(crate) mod memory;

/// A source, and how a test changes what is in it.
trait Changing {
    fn source(&self) -> &dyn Source;
    fn at(&self, name: &[u8]) -> Vec<u8>;
    fn folder(&self, name: &str);
    fn write(&self, name: &[u8], content: &[u8]);
    fn link(&self, name: &str, target: &str);
    fn remove(&self, name: &str);
    fn rename(&self, from: &str, to: &str);
}

struct Local(tempfile::TempDir);

impl Local {
    fn path(&self, name: &[u8]) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(OsStr::from_bytes(name))
    }
}

impl Changing for Local {
    fn source(&self) -> &dyn Source {
        &LocalFiles
    }

    fn at(&self, name: &[u8]) -> Vec<u8> {
        self.path(name).as_os_str().as_bytes().to_vec()
    }

    fn folder(&self, name: &str) {
        std::fs::create_dir(self.path(name.as_bytes())).unwrap();
    }

    fn write(&self, name: &[u8], content: &[u8]) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn link(&self, name: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.path(name.as_bytes())).unwrap();
    }

    fn remove(&self, name: &str) {
        let path = self.path(name.as_bytes());
        std::fs::remove_file(path).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from.as_bytes()), self.path(to.as_bytes())).unwrap();
    }
}

struct Memory(MemoryTree);

fn below(name: &str) -> String {
    format!("/place/{name}")
}

impl Changing for Memory {
    fn source(&self) -> &dyn Source {
        &self.0
    }

    fn at(&self, name: &[u8]) -> Vec<u8> {
        [b"/place/", name].concat()
    }

    fn folder(&self, name: &str) {
        self.0.folder(&below(name));
    }

    fn write(&self, name: &[u8], content: &[u8]) {
        self.0.write(self.at(name), content);
    }

    fn link(&self, name: &str, target: &str) {
        self.0.link(&below(name), target);
    }

    fn remove(&self, name: &str) {
        self.0.remove(&below(name));
    }

    fn rename(&self, from: &str, to: &str) {
        self.0.rename(&below(from), &below(to));
    }
}

fn every_source(promise: impl Fn(&dyn Changing)) {
    promise(&Local(tempfile::tempdir().unwrap()));
    let tree = MemoryTree::new();
    tree.folder("/place");
    promise(&Memory(tree));
}

/// Opens the place, where the names are.
fn open(tree: &dyn Changing, name: &str) -> Box<dyn Folder> {
    let path = tree.at(name.as_bytes());
    let path = path.strip_suffix(b"/").unwrap_or(&path);
    tree.source().open_folder(path).unwrap()
}

#[test]
fn a_listing_has_names_of_any_bytes_in_their_order_and_no_link_is_followed() {
    every_source(|tree| {
        tree.folder("b");
        tree.write(b"c", b"four");
        tree.write(b"\xff\n", b"");
        tree.link("a", "b");
        let listing = open(tree, "").list(&mut ListBuffer::new()).unwrap();
        assert!(listing.failed.is_empty());
        let found: Vec<_> = listing
            .entries
            .iter()
            .map(|entry| (entry.name.as_slice(), entry.kind, entry.meta.inode))
            .collect();
        let examined = [&b"a"[..], b"b", b"c", b"\xff\n"].map(|name| {
            let (kind, meta) = tree.source().examine(&tree.at(name)).unwrap();
            (name, kind, meta.inode)
        });
        assert_eq!(found, examined);
        let kinds = found.iter().map(|(_, kind, _)| *kind).collect::<Vec<_>>();
        let [link, folder, file] = [EntryKind::Symlink, EntryKind::Directory, EntryKind::File];
        assert_eq!(kinds, [link, folder, file, file]);
        assert_eq!(listing.entries[2].meta.size, 4);
    });
}

#[test]
fn what_is_opened_is_never_what_a_link_leads_to() {
    every_source(|tree| {
        tree.folder("folder");
        tree.write(b"file", b"content");
        tree.link("to-folder", "folder");
        tree.link("to-file", "file");
        let place = open(tree, "");
        for errno in [
            place.open_folder(b"to-folder").err(),
            tree.source().open_folder(&tree.at(b"to-folder")).err(),
        ] {
            assert!(matches!(errno, Some(Errno::NOTDIR | Errno::LOOP)), "{errno:?}");
        }
        assert_eq!(place.open_file(b"to-file").err(), Some(Errno::LOOP));
        assert_eq!(tree.source().open_file(&tree.at(b"to-file")).err(), Some(Errno::LOOP));
        assert_eq!(place.read_link(b"to-file").unwrap(), b"file");
        assert_eq!(tree.source().read_link(&tree.at(b"to-file")).unwrap(), b"file");
        assert_eq!(place.open_folder(b"file").err(), Some(Errno::NOTDIR));
        assert_eq!(place.open_folder(b"nothing").err(), Some(Errno::NOENT));
        assert_eq!(place.open_file(b"nothing").err(), Some(Errno::NOENT));
        assert_eq!(tree.source().examine(&tree.at(b"file/x")).err(), Some(Errno::NOTDIR));
    });
}

#[test]
fn links_are_followed_where_that_is_what_is_asked() {
    every_source(|tree| {
        tree.folder("folder");
        tree.write(b"folder/file", b"content");
        tree.link("way", "folder/../folder");
        tree.link("nowhere", "gone");
        let path = |name: &[u8]| PathBuf::from(OsStr::from_bytes(&tree.at(name)));
        let source = tree.source();
        assert_eq!(source.canonicalize(&path(b"way/file")).unwrap(), path(b"folder/file"));
        assert!(source.leads_to_folder(&path(b"way")).unwrap());
        assert!(!source.leads_to_folder(&path(b"way/file")).unwrap());
        assert!(source.leads_to_folder(&path(b"nowhere")).is_err());
        let reached = source.reach_folder(&tree.at(b"way")).unwrap();
        assert_eq!(reached.open_file(b"file").unwrap().read_start(3).unwrap(), b"con");
        assert!(reached.xattrs(b".").is_ok());
    });
}

#[test]
fn what_is_open_stays_what_it_is_when_its_name_goes_to_another() {
    every_source(|tree| {
        tree.folder("folder");
        tree.write(b"folder/file", b"old");
        let folder = open(tree, "folder");
        let file = folder.open_file(b"file").unwrap();
        tree.rename("folder", "away");
        tree.folder("folder");
        tree.write(b"folder/file", b"another");
        assert_ne!(folder.identity().unwrap(), open(tree, "folder").identity().unwrap());
        assert_eq!(folder.identity().unwrap(), open(tree, "away").identity().unwrap());
        assert_eq!(folder.open_file(b"file").unwrap().read_start(9).unwrap(), b"old");
        tree.remove("away/file");
        let mut bytes = [0; 9];
        assert_eq!(file.read_at(&mut bytes, 1).unwrap(), 2);
        assert_eq!(&bytes[..2], b"ld");
        assert_eq!(file.read_at(&mut bytes, 3).unwrap(), 0);
    });
}

#[test]
fn a_file_is_seen_to_change_while_it_is_open() {
    every_source(|tree| {
        tree.write(b"file", b"one state");
        let path = tree.at(b"file");
        let file = SourceFile::open(tree.source(), &path).unwrap();
        let mut bytes = [0; 9];
        file.read(&mut bytes, 0).unwrap();
        file.unchanged().unwrap();
        assert!(file.is_as(&tree.source().examine(&path).unwrap().1));
        tree.source().wait(std::time::Duration::from_millis(20)); // for the next tick
        tree.write(b"file", b"and other");
        assert!(matches!(file.unchanged(), Err(ReadError::Changed)));
        assert!(!file.is_as(&tree.source().examine(&path).unwrap().1));
        assert!(tree.source().now_ns() >= tree.source().examine(&path).unwrap().1.ctime_ns);
    });
}
