//! A tree as facts about each path, read by directory descriptor: paths may be longer than the kernel takes in one call,
//! and of two trees that are compared each may be readable for another user only.

use std::collections::hash_map::{DefaultHasher, HashMap};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom, Stat, openat, seek, statat};
use rustix::io::Errno;

/// What is known of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Kind and permissions.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Number of a device.
    pub device: u64,
    /// Length and hash of a file's content; `None` if it may not be read.
    pub content: Option<(u64, u64)>,
    /// Data runs of a file that has holes, `(start, end)` each.
    pub runs: Vec<(u64, u64)>,
    /// Where a symbolic link leads.
    pub aim: Vec<u8>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path of the same inode, if it has several.
    pub first_name: Option<Vec<u8>>,
}

impl Facts {
    /// Which kind of thing it is.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }
}

/// Relative paths, the empty one first.
pub type Tree = BTreeMap<Vec<u8>, Facts>;

/// Longest piece of a path that is opened in one call.
const PIECE_BYTES_MAX: usize = 4000;
const BUFFER_BYTES: usize = 1 << 20;
/// The end of a path that differences show.
const SHOWN_BYTES: usize = 100;

/// Reads everything below `root`. Folders that may not be listed are taken for empty.
pub fn read(root: &Path) -> Result<Tree> {
    let mut reader = Reader {
        root: rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?,
        tree: Tree::new(),
        names: HashMap::new(),
        buffer: vec![0; BUFFER_BYTES],
    };
    let itself = statat(&reader.root, c"", AtFlags::EMPTY_PATH)?;
    let facts = reader.facts(&reader.root.try_clone()?, b".", b"", &itself)?;
    reader.tree.insert(Vec::new(), facts);
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let below = reader.folder(&path);
        pending.extend(below.with_context(|| format!("read {}/{}", root.display(), path.escape_ascii()))?);
    }
    Ok(reader.tree)
}

struct Reader {
    root: OwnedFd,
    tree: Tree,
    names: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl Reader {
    /// Takes in the entries of a folder; returns its subfolders.
    fn folder(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut subfolders = Vec::new();
        let folder = match self.open(path) {
            Err(Errno::ACCESS) => return Ok(subfolders),
            opened => opened?,
        };
        let mut names = BTreeSet::new();
        for entry in Dir::read_from(&folder)? {
            names.insert(entry?.file_name().to_bytes().to_vec());
        }
        for name in names.into_iter().filter(|name| !matches!(&name[..], b"." | b"..")) {
            let child = match path {
                [] => name.clone(),
                _ => [path, b"/", &name].concat(),
            };
            let stat = statat(&folder, &name[..], AtFlags::SYMLINK_NOFOLLOW)?;
            let facts = self.facts(&folder, &name, &child, &stat);
            let facts = facts.with_context(|| name.escape_ascii().to_string())?;
            if facts.kind() == FileType::Directory {
                subfolders.push(child.clone());
            }
            self.tree.insert(child, facts);
        }
        Ok(subfolders)
    }

    fn open(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let (mut at, mut rest) = (None, path);
        while rest.len() > PIECE_BYTES_MAX {
            let cut = rest[..PIECE_BYTES_MAX].iter().rposition(|byte| *byte == b'/');
            let cut = cut.expect("names are shorter than pieces");
            let from = at.as_ref().unwrap_or(&self.root);
            at = Some(openat(from, &rest[..cut], OFlags::PATH, Mode::empty())?);
            rest = &rest[cut + 1..];
        }
        let last = if rest.is_empty() { &b"."[..] } else { rest };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        openat(at.as_ref().unwrap_or(&self.root), last, flags, Mode::empty())
    }

    fn facts(&mut self, folder: &OwnedFd, name: &[u8], path: &[u8], stat: &Stat) -> Result<Facts> {
        let mut facts = Facts {
            mode: stat.st_mode,
            owner: (stat.st_uid, stat.st_gid),
            mtime: (stat.st_mtime, stat.st_mtime_nsec as i64),
            xattrs: xattrs(folder, name),
            ..Facts::default()
        };
        match facts.kind() {
            FileType::Symlink => facts.aim = rustix::fs::readlinkat(folder, name, Vec::new())?.into_bytes(),
            FileType::CharacterDevice | FileType::BlockDevice => facts.device = stat.st_rdev,
            FileType::RegularFile => self.look_into(folder, name, stat, &mut facts)?,
            _ => {}
        }
        if stat.st_nlink > 1 && facts.kind() != FileType::Directory {
            let inode = (stat.st_dev, stat.st_ino);
            facts.first_name = Some(self.names.entry(inode).or_insert_with(|| path.to_vec()).clone());
        }
        Ok(facts)
    }

    fn look_into(&mut self, folder: &OwnedFd, name: &[u8], stat: &Stat, facts: &mut Facts) -> Result<()> {
        let file = match openat(folder, name, OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty()) {
            Err(Errno::ACCESS) => return Ok(()),
            opened => opened?,
        };
        if (stat.st_blocks as u64) * 512 < stat.st_size as u64 {
            facts.runs = runs(&file)?;
        }
        let (mut file, mut hash, mut bytes) = (std::fs::File::from(file), DefaultHasher::new(), 0);
        rustix::fs::seek(&file, SeekFrom::Start(0))?;
        loop {
            let read = (&mut file).take(BUFFER_BYTES as u64);
            let read = read_full(read, &mut self.buffer)?;
            hash.write(&self.buffer[..read]);
            bytes += read as u64;
            if read < self.buffer.len() {
                break;
            }
        }
        facts.content = Some((bytes, hash.finish()));
        Ok(())
    }
}

fn read_full(mut from: impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match from.read(&mut buffer[done..])? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}

fn runs(file: &OwnedFd) -> Result<Vec<(u64, u64)>> {
    let (mut runs, mut at) = (Vec::new(), 0);
    while let Ok(start) = seek(file, SeekFrom::Data(at)) {
        at = seek(file, SeekFrom::Hole(start))?;
        runs.push((start, at));
    }
    Ok(runs)
}

fn xattrs(folder: &OwnedFd, name: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let path = [format!("/proc/self/fd/{}/", folder.as_raw_fd()).as_bytes(), name].concat();
    let path = std::ffi::OsStr::from_bytes(&path);
    // Not every file system has attributes.
    let names = xattr::list(path).into_iter().flatten();
    let values = names.filter_map(|name| Some((name.clone().into_vec(), xattr::get(path, name).ok()??)));
    values.collect()
}

/// What `there` has otherwise than `here`, as lines for people; 50 at most.
pub fn differences(here: &Tree, there: &Tree) -> Vec<String> {
    let paths: BTreeSet<&Vec<u8>> = here.keys().chain(there.keys()).collect();
    let mut found = Vec::new();
    for path in paths {
        let said = match (here.get(path), there.get(path)) {
            (Some(here), Some(there)) if here == there => continue,
            (Some(here), Some(there)) => format!("{here:?} became {there:?}"),
            (Some(_), None) => "missing".to_owned(),
            (None, _) => "not there before".to_owned(),
        };
        let end = &path[path.len().saturating_sub(SHOWN_BYTES)..];
        found.push(format!("{}: {said}", end.escape_ascii()));
    }
    found.truncate(50);
    found
}

/// Whether a path is there, however long it is.
pub fn is_there(path: &Path) -> bool {
    statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}
