//! The folder that is restored into. Everything below it is reached by directory descriptor, one component at a time and
//! never through a symbolic link, so that neither a link in the target nor a crafted name leads outside of it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use proto::log_record::Meta;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::restore::metadata::mtime_ns;
use crate::said::said;

/// Folders kept open: enough that the files of a folder share its descriptor. Chosen.
const OPEN_DIRS_MAX: usize = 64;

/// Lies in a folder that a restore made for as long as it is not complete: whoever goes on sets the folder's own metadata.
pub(super) const BEGUN: &[u8] = b".gridbackup-partial-target";

/// The folder that is restored into.
pub(super) struct Target {
    root: Arc<OwnedFd>,
    /// Whether this restore made it.
    pub(super) created: bool,
    path: PathBuf,
    open: Mutex<VecDeque<(Vec<u8>, Arc<OwnedFd>)>>,
}

/// A place below the target: its folder's descriptor and its name there.
pub(super) struct Place<'a> {
    pub(super) dir: Arc<OwnedFd>,
    pub(super) name: &'a [u8],
}

impl Target {
    /// Opens `path`, making it (and what leads to it) if it is not there.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let created = match std::fs::metadata(path) {
            Ok(found) if !found.is_dir() => {
                let what = "It is no folder; --target names the folder that everything goes into";
                return Err(io::Error::new(io::ErrorKind::NotADirectory, what));
            }
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()) => {
                return Err(io::Error::new(io::ErrorKind::NotConnected, said(Errno::NOTCONN)));
            }
            Err(_) => true,
        };
        std::fs::create_dir_all(path)?;
        let mut target = Self::open(path)?;
        target.created = created;
        Ok(target)
    }

    /// Opens `path`, which is there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self {
            root: Arc::new(root),
            created: false,
            path: path.to_owned(),
            open: Mutex::default(),
        })
    }

    /// Notes that this restore has begun the target; `true` if it, or one that was interrupted, made the folder.
    pub(super) fn begin(&self) -> io::Result<bool> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if !self.created {
            let found = rustix::fs::statat(&self.root, BEGUN, AtFlags::SYMLINK_NOFOLLOW);
            let user = rustix::process::geteuid().as_raw();
            return Ok(found.is_ok_and(|stat| stat.st_uid == user && stat.st_size == 0));
        }
        match rustix::fs::openat(&self.root, BEGUN, flags, Mode::RUSR | Mode::WUSR) {
            Ok(_) | Err(Errno::EXIST) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the folder itself has this metadata already.
    pub(super) fn is_dressed(&self, meta: &Meta) -> bool {
        let found = rustix::fs::statat(&self.root, c"", AtFlags::EMPTY_PATH);
        found.is_ok_and(|stat| mtime_ns(&stat) == meta.mtime_ns && stat.st_mode & 0o7777 == meta.mode)
    }

    /// The restore has come to its end.
    pub(super) fn end(&self) {
        let _not_there = rustix::fs::unlinkat(&self.root, BEGUN, AtFlags::empty());
    }

    /// Where `relative` is, for people.
    pub(super) fn show(&self, relative: &[u8]) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        match relative {
            [] => self.path.clone(),
            _ => self.path.join(std::ffi::OsStr::from_bytes(relative)),
        }
    }

    /// The folder `relative` (empty: the target itself), without following any symbolic link.
    pub(super) fn dir(&self, relative: &[u8]) -> io::Result<Arc<OwnedFd>> {
        let (mut dir, mut done) = self.nearest_open(relative);
        while done < relative.len() {
            let start = if done == 0 { 0 } else { done + 1 };
            let len = relative[start..].iter().position(|byte| *byte == b'/');
            let end = len.map_or(relative.len(), |len| start + len);
            let name = checked(&relative[start..end])?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            dir = Arc::new(rustix::fs::openat(&dir, name, flags, Mode::empty()).map_err(explain)?);
            done = end;
        }
        self.keep_open(relative, &dir);
        Ok(dir)
    }

    /// The place of `relative`, which is not the target itself.
    pub(super) fn place<'a>(&self, relative: &'a [u8]) -> io::Result<Place<'a>> {
        let (parent, name) = split(relative);
        let name = checked(name)?;
        Ok(Place {
            dir: self.dir(parent)?,
            name,
        })
    }

    /// The target as something to sync: opened before it gets its mode, which may forbid that.
    pub(super) fn disk(&self) -> io::Result<Disk> {
        let readable = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Disk(rustix::fs::openat(&self.root, c".", readable, Mode::empty())?))
    }

    /// Forgets open folders: something other than a file is about to be removed or replaced.
    pub(super) fn forget_open(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(Vec<u8>, Arc<OwnedFd>)>> {
        self.open.lock().expect("no panic while the open folders are locked")
    }

    fn nearest_open(&self, relative: &[u8]) -> (Arc<OwnedFd>, usize) {
        let open = self.lock();
        let nearest = open
            .iter()
            .filter(|(path, _)| path == relative || is_below(relative, path))
            .max_by_key(|(path, _)| path.len());
        nearest.map_or_else(|| (self.root.clone(), 0), |(path, dir)| (dir.clone(), path.len()))
    }

    fn keep_open(&self, relative: &[u8], dir: &Arc<OwnedFd>) {
        let mut open = self.lock();
        if open.iter().any(|(path, _)| path == relative) {
            return;
        }
        if open.len() == OPEN_DIRS_MAX {
            open.pop_front();
        }
        open.push_back((relative.to_vec(), dir.clone()));
    }
}

/// What the target lies on.
pub(super) struct Disk(OwnedFd);

impl Disk {
    /// Writes everything to the disk: once at the end, for a sync per file takes longer than the files.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.0)?)
    }
}

impl Place<'_> {
    /// What is there, if anything is; a symbolic link is looked at itself.
    pub(super) fn stat(&self) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.dir, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What is there, if anything is, and what it is: a name may stand for something else the next time.
    pub(super) fn open(&self) -> io::Result<Option<(OwnedFd, Stat)>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.dir, self.name, flags, Mode::empty()) {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd)?;
                Ok(Some((fd, stat)))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what is there, which is no folder.
    pub(super) fn unlink(&self) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.dir, self.name, AtFlags::empty())?)
    }
}

/// Names in a folder, without `.` and `..`.
pub(super) fn names(dir: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let readable = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, c".", readable, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::new(fd)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// A folder in a folder, not followed if it is a link.
pub(super) fn open_below(dir: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Whether `path` is strictly below the folder `dir` (relative paths; the empty one is the target).
pub(super) fn is_below(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() && !path.is_empty() || path.len() > dir.len() && path[dir.len()] == b'/' && path.starts_with(dir)
}

/// A relative path's folder and name.
pub(super) fn split(relative: &[u8]) -> (&[u8], &[u8]) {
    match relative.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&relative[..slash], &relative[slash + 1..]),
        None => (&[], relative),
    }
}

/// Names come from a log: authentic, but nothing that leads elsewhere may pass even so.
fn checked(name: &[u8]) -> io::Result<&[u8]> {
    let bad = name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0);
    match bad {
        true => Err(io::Error::new(io::ErrorKind::InvalidInput, "Not a name of a file")),
        false => Ok(name),
    }
}

fn explain(error: Errno) -> io::Error {
    match error {
        Errno::NOTDIR | Errno::LOOP => io::Error::new(
            io::ErrorKind::NotADirectory,
            "A folder on the way is something else in the target, perhaps a symbolic link; move it away",
        ),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbolic_link_on_the_way_is_refused() {
        let outside = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).unwrap();
        let target = Target::create(folder.path()).unwrap();
        let error = target.place(b"link/file").map(drop).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::create(folder.path()).unwrap();
        for path in [&b".."[..], b"../x", b"a/../../x", b"", b".", b"a//b", b"a\0"] {
            assert!(target.place(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_path_as_long_as_the_system_allows_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::create(folder.path()).unwrap();
        let mut path = Vec::new();
        for _ in 0..1_000 {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(b"abc");
            let place = target.place(&path).unwrap();
            rustix::fs::mkdirat(&place.dir, place.name, Mode::RWXU).unwrap();
        }
        target.forget_open();
        assert!(target.dir(&path).is_ok());
    }
}
