//! Owner, extended attributes, mode and times of what was restored, in the order in which they do not undo each other.
//!
//! What only root may set is left out quietly for everybody else, once each with a warning: the content is there.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use proto::log_record::{EntryKind, Meta};
use rustix::fs::{AtFlags, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

/// Longest list of attribute names the kernel gives (`XATTR_LIST_MAX`), and longest value (`XATTR_SIZE_MAX`).
const XATTR_BYTES_MAX: usize = 65_536;

/// Sets metadata; remembers whether it has warned of what it may not set.
pub(super) struct MetadataWriter {
    is_root_user: bool,
    warned_of_owners: AtomicBool,
    warned_of_xattrs: AtomicBool,
}

/// What metadata is set on.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    /// A file open for reading or writing.
    Open(BorrowedFd<'a>),
    /// Anything opened with `O_PATH | O_NOFOLLOW`.
    Path(BorrowedFd<'a>),
}

impl<'a> Subject<'a> {
    fn fd(self) -> BorrowedFd<'a> {
        match self {
            Self::Open(fd) | Self::Path(fd) => fd,
        }
    }
    /// A path that means exactly what an `O_PATH` descriptor means: calls that refuse such descriptors take it.
    fn proc_path(self) -> String {
        format!("/proc/self/fd/{}", self.fd().as_raw_fd())
    }
    fn chmod(self, mode: Mode) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => rustix::fs::fchmod(fd, mode),
            Self::Path(_) => rustix::fs::chmod(self.proc_path(), mode),
        }
    }
    fn set_xattr(self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Path(_) => rustix::fs::setxattr(self.proc_path(), name, value, XattrFlags::empty()),
        }
    }
    fn remove_xattr(self, name: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Self::Path(_) => rustix::fs::removexattr(self.proc_path(), name),
        }
    }
    fn xattr_names(self) -> rustix::io::Result<Vec<u8>> {
        let mut names = vec![0; XATTR_BYTES_MAX];
        let len = match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, &mut names[..]),
            Self::Path(_) => rustix::fs::listxattr(self.proc_path(), &mut names[..]),
        }?;
        names.truncate(len);
        Ok(names)
    }
    fn xattr(self, name: &[u8], buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Open(fd) => rustix::fs::fgetxattr(fd, name, buffer),
            Self::Path(_) => rustix::fs::getxattr(self.proc_path(), name, buffer),
        }
    }
}

impl MetadataWriter {
    pub(super) fn new() -> Self {
        Self {
            is_root_user: rustix::process::geteuid().is_root(),
            warned_of_owners: AtomicBool::new(false),
            warned_of_xattrs: AtomicBool::new(false),
        }
    }

    /// Sets everything. The owner goes first, since a change of owner clears capabilities and setuid; then attributes,
    /// while the mode still lets us write; then the mode, whose group bits are the mask of an ACL just set; times last.
    pub(super) fn apply(&self, subject: Subject<'_>, kind: EntryKind, meta: &Meta) -> io::Result<()> {
        let owned = self.set_owner(subject, meta)?;
        self.set_xattrs(subject, meta)?;
        if kind != EntryKind::Symlink {
            // A file that now belongs to somebody else than it should must not run with that one's powers.
            let bits = if owned { meta.mode & 0o7777 } else { meta.mode & 0o1777 };
            subject.chmod(Mode::from_raw_mode(bits))?;
        }
        set_mtime(subject, meta.mtime_ns)
    }

    /// Sets what differs on something that is there already; `true` if anything did.
    pub(super) fn correct(&self, subject: Subject<'_>, kind: EntryKind, meta: &Meta) -> io::Result<bool> {
        let differs = self.differs(subject, kind, meta)?;
        if differs {
            self.apply(subject, kind, meta)?;
        }
        Ok(differs)
    }

    /// Whether anything differs on something that is there already.
    pub(super) fn differs(&self, subject: Subject<'_>, kind: EntryKind, meta: &Meta) -> io::Result<bool> {
        let stat = rustix::fs::statat(subject.fd(), c"", AtFlags::EMPTY_PATH)?;
        let mode_differs = kind != EntryKind::Symlink && stat.st_mode & 0o7777 != meta.mode & 0o7777;
        let owner_differs = self.is_root_user && (stat.st_uid, stat.st_gid) != (meta.uid, meta.gid);
        Ok(mode_differs || owner_differs || mtime_ns(&stat) != meta.mtime_ns || xattrs_differ(subject, meta))
    }

    fn set_owner(&self, subject: Subject<'_>, meta: &Meta) -> io::Result<bool> {
        // The all-ones id means "leave it" to the kernel.
        let (uid, gid) = (owner_id(meta.uid), owner_id(meta.gid));
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        match rustix::fs::chownat(subject.fd(), c"", uid, gid, AtFlags::EMPTY_PATH) {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::INVAL) if !self.is_root_user => {
                warn(&self.warned_of_owners, "owners");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn set_xattrs(&self, subject: Subject<'_>, meta: &Meta) -> io::Result<()> {
        // Attributes that nobody recorded come from the folder's default ACL, or from an earlier state of the file.
        for name in subject.xattr_names().unwrap_or_default().split(|byte| *byte == 0) {
            let ours = name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_");
            if ours && meta.xattrs.iter().all(|xattr| xattr.name != name) {
                let _ = subject.remove_xattr(name);
            }
        }
        for xattr in &meta.xattrs {
            match subject.set_xattr(&xattr.name, &xattr.value) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP) => warn(&self.warned_of_xattrs, "extended attributes"),
                Err(Errno::PERM | Errno::ACCESS) if !self.is_root_user => {
                    warn(&self.warned_of_xattrs, "extended attributes")
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn warn(warned: &AtomicBool, what: &str) {
    if !warned.swap(true, Ordering::Relaxed) {
        tracing::warn!("Some {what} cannot be set here: no permission, or not supported by the file system");
    }
}

fn owner_id(raw: u32) -> Option<u32> {
    (raw != u32::MAX).then_some(raw)
}

fn xattrs_differ(subject: Subject<'_>, meta: &Meta) -> bool {
    let names = subject.xattr_names().unwrap_or_default();
    let extra = names.split(|byte| *byte == 0).any(|name| {
        let ours = name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_");
        ours && meta.xattrs.iter().all(|xattr| xattr.name != name)
    });
    if extra {
        return true;
    }
    let mut value = vec![0; XATTR_BYTES_MAX];
    meta.xattrs
        .iter()
        .any(|xattr| !matches!(subject.xattr(&xattr.name, &mut value), Ok(len) if value[..len] == xattr.value[..]))
}

/// A file's modification time in nanoseconds since 1970.
pub(super) fn mtime_ns(stat: &Stat) -> i64 {
    stat.st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(stat.st_mtime_nsec as i64)
}

fn set_mtime(subject: Subject<'_>, mtime_ns: i64) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime_ns.div_euclid(1_000_000_000),
            tv_nsec: mtime_ns.rem_euclid(1_000_000_000),
        },
    };
    match subject {
        Subject::Open(fd) => rustix::fs::futimens(fd, &times)?,
        Subject::Path(fd) => rustix::fs::utimensat(fd.as_fd(), c"", &times, AtFlags::EMPTY_PATH)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn mode_and_times_before_1970_are_set_to_the_nanosecond() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let meta = Meta {
            mode: 0o4751,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime_ns: -1_234_567_891,
            ..Meta::default()
        };
        let subject = Subject::Open(file.as_file().as_fd());
        let writer = MetadataWriter::new();
        writer.apply(subject, EntryKind::File, &meta).unwrap();
        let found = std::fs::metadata(file.path()).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, 0o4751);
        assert_eq!((found.mtime(), found.mtime_nsec()), (-2, 765_432_109));
        assert!(!writer.correct(subject, EntryKind::File, &meta).unwrap());
    }

    #[test]
    fn a_symbolic_link_gets_its_own_time_and_not_its_targets() {
        let folder = tempfile::tempdir().unwrap();
        let (link, aim) = (folder.path().join("link"), folder.path().join("aim"));
        std::fs::write(&aim, b"").unwrap();
        std::os::unix::fs::symlink(&aim, &link).unwrap();
        let before = std::fs::metadata(&aim).unwrap().mtime();
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW;
        let fd = rustix::fs::open(&link, flags, Mode::empty()).unwrap();
        let meta = Meta {
            mtime_ns: 5_000_000_007,
            uid: u32::MAX,
            gid: u32::MAX,
            ..Meta::default()
        };
        MetadataWriter::new()
            .apply(Subject::Path(fd.as_fd()), EntryKind::Symlink, &meta)
            .unwrap();
        let found = std::fs::symlink_metadata(&link).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (5, 7));
        assert_eq!(std::fs::metadata(&aim).unwrap().mtime(), before);
    }
}
