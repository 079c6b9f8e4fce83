//! The folder, as a stream of files by key in byte order, so that it can be merged with other sorted streams.
//!
//! Entries of a folder are sorted as their keys are: a folder counts as its name with `/`. Then `a-b` comes before what lies
//! in `a`, and the whole walk is in order although only the folders on the way to the current file are in memory.

use std::ffi::{CString, OsString};
use std::fs::File as StdFile;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};

use crate::folder_page::FolderPages;
use crate::options::Links;
use crate::stat::Stat;

mod entries;

use entries::{Entries, Entry, Kind, PAGE, Why, key_part};

/// Longest key, in bytes (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>).
const KEY_BYTES_MAX: usize = 1024;
/// Deepest folder: an open descriptor each. Chosen: keys of 1,024 bytes cannot name deeper ones that matter.
const DEPTH_MAX: usize = 256;

/// What the walk came by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A file to publish.
    File {
        /// Its key, below the prefix.
        key: Vec<u8>,
        /// Where it lies.
        path: PathBuf,
        /// What it was like when the walk passed.
        stat: Stat,
        /// Kind and permissions, as in `st_mode`.
        mode: u32,
    },
    /// A page or redirect that has no file.
    Made {
        key: Vec<u8>,
        /// Its bytes.
        contents: Vec<u8>,
    },
    /// Something that cannot be published; what was published of it stays. A key that ends in `/` stands for all below.
    Broken {
        /// Key, or what the keys of a folder begin with.
        key: Vec<u8>,
        /// Where it lies.
        path: PathBuf,
        why: String,
    },
}

impl Found {
    /// What it is sorted by.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::File { key, .. } | Self::Made { key, .. } | Self::Broken { key, .. } => key,
        }
    }
}

/// The walk.
pub(crate) struct Walk {
    root: PathBuf,
    links: Links,
    pages: Option<FolderPages>,
    open: Vec<Folder>,
}

struct Folder {
    fd: OwnedFd,
    /// Device and inode: a link to a folder that is open leads around in a circle.
    id: (u64, u64),
    key: Vec<u8>,
    path: PathBuf,
    entries: Entries,
}

impl Walk {
    /// Opens the folder; its keys begin with `key`. With `pages`, folders without a page get one.
    pub fn open(root: &Path, key: &[u8], links: Links, pages: Option<FolderPages>) -> std::io::Result<Self> {
        let root = root.canonicalize()?;
        let fd = OwnedFd::from(StdFile::open(&root)?);
        let mut walk = Self {
            root: root.clone(),
            links,
            pages,
            open: Vec::new(),
        };
        let folder = walk.enter(fd, key.to_vec(), root)?;
        walk.open.push(folder);
        Ok(walk)
    }

    fn enter(&self, fd: OwnedFd, key: Vec<u8>, path: PathBuf) -> std::io::Result<Folder> {
        let stat = rustix::fs::fstat(&fd)?;
        let mut entries = Entries::default();
        let mut has_page = false;
        for entry in Dir::read_from(&fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let Some(kind) = self.kind(&fd, &path, name, entry.file_type()) else {
                continue;
            };
            has_page |= name == PAGE && kind != Kind::Folder;
            if !entries.push(name, kind) {
                return Err(std::io::Error::other("it has more names than fit into 4 GiB"));
            }
        }
        if !has_page && self.pages.as_ref().is_some_and(|pages| pages.has(&key)) {
            entries.push(PAGE, Kind::Page);
        }
        entries.sort();
        Ok(Folder {
            fd,
            id: (stat.st_dev, stat.st_ino),
            key,
            path,
            entries,
        })
    }

    /// What an entry is, links as what they lead to; none: it is left out.
    fn kind(&self, fd: &OwnedFd, path: &Path, name: &[u8], seen: FileType) -> Option<Kind> {
        let kind = |found: FileType| match found {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Folder,
            _ => Kind::Broken(Why::Strange),
        };
        let stat = |flags| statat(fd, name, flags).ok();
        let seen = match seen {
            FileType::Unknown => match stat(AtFlags::SYMLINK_NOFOLLOW) {
                Some(stat) => FileType::from_raw_mode(stat.st_mode),
                None => return Some(Kind::Broken(Why::Unseen)),
            },
            seen => seen,
        };
        if seen != FileType::Symlink {
            return Some(kind(seen));
        }
        if self.links == Links::Skip {
            return None;
        }
        let Some(stat) = stat(AtFlags::empty()) else {
            return Some(Kind::Broken(Why::Dangling));
        };
        let is_inside = || {
            let full = path.join(OsString::from_vec(name.to_vec()));
            full.canonicalize().is_ok_and(|target| target.starts_with(&self.root))
        };
        if self.links == Links::Inside && !is_inside() {
            return Some(Kind::Broken(Why::Outside));
        }
        Some(kind(FileType::from_raw_mode(stat.st_mode)))
    }

    fn folder(&self, outer: &Folder, entry: Entry<'_>, key: Vec<u8>, path: PathBuf) -> Result<Folder, String> {
        if self.open.len() >= DEPTH_MAX {
            return Err(format!("it lies deeper than {DEPTH_MAX} folders"));
        }
        let name = CString::new(entry.name()).map_err(|error| error.to_string())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(&outer.fd, name, flags, Mode::empty()).map_err(|error| error.to_string())?;
        let folder = self.enter(fd, key, path).map_err(|error| error.to_string())?;
        if outer.id == folder.id || self.open.iter().any(|open| open.id == folder.id) {
            return Err("a link that leads around in a circle".to_owned());
        }
        Ok(folder)
    }

    /// The page of a folder, unless its route does not publish it.
    fn page(&self, folder: &Folder, key: Vec<u8>) -> Option<Found> {
        let pages = self.pages.as_ref()?;
        let of_kind = |wanted: Kind| folder.entries.iter().filter(move |entry| entry.kind == wanted);
        let folders = of_kind(Kind::Folder).map(|entry| entry.text());
        let files = of_kind(Kind::File).filter_map(|entry| {
            let stat = statat(folder.fd.as_fd(), entry.name(), AtFlags::empty()).ok()?;
            Some((entry.text(), Stat::from(&stat)))
        });
        let contents = pages.render(&folder.key, folders, files)?;
        Some(Found::Made { key, contents })
    }

    /// What becomes of an entry; none: a folder was entered.
    fn visit(&mut self, folder: &Folder, entry: Entry<'_>) -> (Option<Found>, Option<Folder>) {
        let path = folder.path.join(OsString::from_vec(entry.name().to_vec()));
        let key = [folder.key.as_slice(), entry.part].concat();
        let broken = |key, path, why: String| (Some(Found::Broken { key, path, why }), None);
        if key.len() > KEY_BYTES_MAX {
            return broken(key, path, format!("its key is longer than {KEY_BYTES_MAX} bytes"));
        }
        match entry.kind {
            Kind::Broken(why) => broken(key, path, why.text().to_owned()),
            Kind::Page => (self.page(folder, key), None),
            Kind::Folder => match self.folder(folder, entry, key.clone(), path.clone()) {
                Ok(inner) => (None, Some(inner)),
                Err(why) => broken(key, path, why),
            },
            Kind::File => match statat(folder.fd.as_fd(), entry.name(), AtFlags::empty()) {
                Ok(stat) => (
                    Some(Found::File {
                        key,
                        path,
                        stat: (&stat).into(),
                        mode: stat.st_mode,
                    }),
                    None,
                ),
                Err(error) => broken(key, path, error.to_string()),
            },
        }
    }
}

impl Iterator for Walk {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            let mut folder = self.open.pop()?;
            let Some(index) = folder.entries.advance() else {
                continue;
            };
            let (found, inner) = self.visit(&folder, folder.entries.get(index));
            self.open.push(folder);
            self.open.extend(inner);
            if found.is_some() {
                return found;
            }
        }
    }
}

/// How a path begins every key when keys are whole paths: without the first slash, with one at the end.
pub(crate) fn whole_path_key(root: &Path) -> std::io::Result<Vec<u8>> {
    let root = root.canonicalize()?;
    let mut key: Vec<u8> = Vec::new();
    for part in root.iter().filter(|part| *part != "/") {
        let part = part.as_bytes();
        key.extend(key_part(part).as_deref().unwrap_or(part));
        key.push(b'/');
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    fn keys(root: &Path, links: Links) -> Vec<(Vec<u8>, bool)> {
        let walk = Walk::open(root, b"", links, None).unwrap();
        walk.map(|found| (found.key().to_vec(), matches!(found, Found::File { .. })))
            .collect()
    }

    fn write(root: &Path, name: &[u8]) {
        let path = root.join(OsStr::from_bytes(name));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }

    #[test]
    fn names_of_any_bytes_become_keys_and_doubles_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in [&b"caf\xe9"[..], "café".as_bytes(), b"b\xff/x"] {
            write(dir.path(), name);
        }
        let expected = [("bÿ/x", true), ("café", true), ("café", false)];
        let found = keys(dir.path(), Links::Inside);
        assert_eq!(found, expected.map(|(key, is_file)| (key.as_bytes().to_vec(), is_file)));
    }

    #[test]
    fn links_go_by_the_policy_and_circles_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("site");
        write(&root, b"a/file");
        write(dir.path(), b"secret");
        symlink("file", root.join("a/inside")).unwrap();
        symlink("../../secret", root.join("a/outside")).unwrap();
        symlink("..", root.join("a/up")).unwrap();
        symlink("nowhere", root.join("dead")).unwrap();
        let names = |links| -> Vec<_> {
            let found = keys(&root, links).into_iter();
            found
                .map(|(key, is_file)| format!("{} {is_file}", String::from_utf8(key).unwrap()))
                .collect()
        };
        assert_eq!(names(Links::Skip), ["a/file true"]);
        let inside = [
            "a/file true",
            "a/inside true",
            "a/outside false",
            "a/up/ false",
            "dead false",
        ];
        assert_eq!(names(Links::Inside), inside);
        assert!(names(Links::Follow).contains(&"a/outside true".to_owned()));
    }

    #[test]
    fn whole_paths_are_what_keys_begin_with() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), b"x");
        let key = whole_path_key(dir.path()).unwrap();
        assert!(!key.starts_with(b"/") && key.ends_with(b"/"));
        let found = Walk::open(dir.path(), &key, Links::Skip, None).unwrap().next().unwrap();
        assert_eq!(found.key(), [key.as_slice(), b"x"].concat());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn keys_come_in_the_order_of_their_bytes(
            names in prop::collection::vec("[a!.0~-]{1,2}(/[a!.0~-]{1,2}){0,2}", 1..25)
        ) {
            let dir = tempfile::tempdir().unwrap();
            let names = names.iter().filter(|name| name.split('/').all(|part| part != "." && part != ".."));
            for name in names {
                let path = dir.path().join(name);
                // A file where another name wants a folder, or the other way round: the first stays.
                if path.parent().is_some_and(|parent| std::fs::create_dir_all(parent).is_ok()) && !path.is_dir() {
                    std::fs::write(path, b"").unwrap();
                }
            }
            let found = keys(dir.path(), Links::Inside);
            prop_assert!(found.is_sorted_by(|left, right| left.0 < right.0), "{:?}", found);
        }
    }
}
