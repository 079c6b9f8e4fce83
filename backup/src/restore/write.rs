//! One entry at a time into the target: made beside its place under a partial name, then moved into it complete.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use proto::log_record::{Content, Entry, EntryKind, Meta};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::restore::metadata::{MetadataWriter, Subject, mtime_ns};
use crate::restore::target::{Place, Target};
use crate::restore::verify::read_back_whole;
use crate::restore::{Overwrite, RestoreError, RestoreOptions, RestoreSummary};

const PARTIAL_PREFIX: &str = ".gridbackup-partial-";

/// The writing end of a restore; shared by all that write.
pub(super) struct Sink {
    pub(super) target: Target,
    overwrite: Overwrite,
    replace_folders: bool,
    verify: bool,
    metadata: MetadataWriter,
    pub(super) summary: Mutex<RestoreSummary>,
}

impl Sink {
    pub(super) fn new(target: Target, options: &RestoreOptions) -> Self {
        Self {
            target,
            overwrite: options.overwrite,
            replace_folders: options.delete,
            verify: options.verify,
            metadata: MetadataWriter::new(),
            summary: Mutex::default(),
        }
    }

    pub(super) fn summary(&self) -> std::sync::MutexGuard<'_, RestoreSummary> {
        self.summary.lock().expect("no panic while the summary is locked")
    }
    /// Keeps in mind why content could not be read, if it may be readable later.
    pub(super) fn note(&self, error: &RestoreError) {
        if matches!(error, RestoreError::TooFewShares { .. }) {
            self.summary().too_few_shares.get_or_insert(error.to_string());
        }
    }

    pub(super) fn failed(&self, relative: &[u8], reason: String) {
        let path = self.target.show(relative);
        self.summary().failed.push((path, reason));
    }

    /// Makes a folder that only we can use until its metadata is set.
    pub(super) fn make_dir(&self, relative: &[u8]) -> io::Result<()> {
        if relative.is_empty() {
            return Ok(());
        }
        let place = self.target.place(relative)?;
        match rustix::fs::mkdirat(&place.dir, place.name, Mode::RWXU) {
            Err(Errno::EXIST) => {}
            made => return Ok(made?),
        }
        let stat = place.stat()?.ok_or(Errno::NOENT)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            if stat.st_mode & 0o700 != 0o700 {
                let dir = self.target.dir(relative)?;
                let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir));
                rustix::fs::chmod(path, Mode::from_raw_mode(stat.st_mode & 0o7777 | 0o700))?;
            }
            return Ok(());
        }
        if !self.replace_folders {
            return Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                "Not a folder in the target, perhaps a symbolic link; nothing below it was restored; move it away",
            ));
        }
        place.remove_all()?;
        Ok(rustix::fs::mkdirat(&place.dir, place.name, Mode::RWXU)?)
    }

    /// Sets a folder's metadata, when all that is in it is there.
    pub(super) fn finish_dir(&self, relative: &[u8], meta: &Meta) -> io::Result<()> {
        let dir = self.target.dir(relative)?;
        self.metadata
            .correct(Subject::Path(dir.as_fd()), EntryKind::Directory, meta)
            .map(drop)
    }

    /// Whether what is in the entry's place stays, by the overwrite rule. Its metadata is corrected then, unless the rule
    /// is to keep it whatever it is.
    pub(super) fn keeps(&self, relative: &[u8], entry: &Entry) -> io::Result<bool> {
        let place = match self.target.place(relative) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            place => place?,
        };
        let Some(stat) = place.stat()? else {
            return Ok(false);
        };
        match self.overwrite {
            Overwrite::Always => return Ok(false),
            Overwrite::Never => return Ok(true),
            Overwrite::IfChanged if !is_same(&place, &stat, entry) => return Ok(false),
            Overwrite::IfChanged => {}
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&place.dir, place.name, flags, Mode::empty())?;
        self.metadata
            .correct(Subject::Path(fd.as_fd()), entry.kind, &entry.meta)?;
        Ok(true)
    }

    /// Whether the rule keeps what is in the entry's place; changes nothing.
    pub(super) fn would_keep(&self, relative: &[u8], entry: &Entry) -> bool {
        let Ok(place) = self.target.place(relative) else {
            return false;
        };
        match (place.stat(), self.overwrite) {
            (Ok(Some(_)), Overwrite::Never) => true,
            (Ok(Some(stat)), Overwrite::IfChanged) => is_same(&place, &stat, entry),
            _ => false,
        }
    }

    /// Writes a file whose content is at hand.
    pub(super) fn write_file(&self, relative: &[u8], meta: &Meta, content: &[u8]) -> io::Result<()> {
        let partial = self.create_partial(relative)?;
        partial.write_all_at(content, 0)?;
        if self.verify {
            read_back_whole(&partial, content)?;
        }
        self.finish_file(relative, meta, &partial, content.len() as u64)
    }

    /// What an interrupted restore left of a file, if it is ours alone.
    pub(super) fn left_over(&self, relative: &[u8]) -> Option<File> {
        if self.target.created {
            return None;
        }
        let partial = self.open_partial(relative).ok()?;
        let stat = rustix::fs::fstat(&partial).ok()?;
        let is_ours = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && stat.st_nlink == 1
            && stat.st_uid == rustix::process::geteuid().as_raw();
        is_ours.then_some(partial)
    }

    /// Begins a file. What is left of an earlier one is removed: its holes could be filled with old bytes.
    pub(super) fn create_partial(&self, relative: &[u8]) -> io::Result<File> {
        let place = self.target.place(relative)?;
        let name = partial_name(place.name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || rustix::fs::openat(&place.dir, name.as_str(), flags, Mode::RUSR | Mode::WUSR);
        let fd = match create() {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&place.dir, name.as_str(), AtFlags::empty())?;
                create()
            }
            created => created,
        }?;
        Ok(fd.into())
    }

    /// Goes on with a file that was begun.
    pub(super) fn open_partial(&self, relative: &[u8]) -> io::Result<File> {
        let place = self.target.place(relative)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&place.dir, partial_name(place.name), flags, Mode::empty())?;
        Ok(fd.into())
    }

    /// Removes a file that was begun.
    pub(super) fn drop_partial(&self, relative: &[u8]) {
        if let Ok(place) = self.target.place(relative) {
            let _ = rustix::fs::unlinkat(&place.dir, partial_name(place.name), AtFlags::empty());
        }
    }

    /// Gives a complete file its length, metadata and name. A file whose metadata cannot be set is moved in all the same.
    pub(super) fn finish_file(&self, relative: &[u8], meta: &Meta, partial: &File, bytes: u64) -> io::Result<()> {
        rustix::fs::ftruncate(partial, bytes)?;
        let set = self
            .metadata
            .apply(Subject::Open(partial.as_fd()), EntryKind::File, meta);
        let place = self.target.place(relative)?;
        self.move_in(&place, &partial_name(place.name))?;
        set.map_err(metadata_failed)
    }

    /// Makes a symbolic link, pipe, socket or device.
    pub(super) fn make_node(&self, relative: &[u8], entry: &Entry) -> io::Result<()> {
        let place = self.target.place(relative)?;
        let name = partial_name(place.name);
        let make = || match (entry.kind, &entry.content) {
            (EntryKind::Symlink, Content::Inline(aim)) => rustix::fs::symlinkat(&aim[..], &place.dir, name.as_str()),
            (kind, _) => match file_type(kind) {
                Some(kind) => rustix::fs::mknodat(&place.dir, name.as_str(), kind, Mode::RUSR, entry.meta.rdev),
                None => Err(Errno::INVAL),
            },
        };
        match make() {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&place.dir, name.as_str(), AtFlags::empty())?;
                make()
            }
            made => made,
        }
        .map_err(|error| not_made(entry.kind, error))?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&place.dir, name.as_str(), flags, Mode::empty())?;
        let set = self.metadata.apply(Subject::Path(fd.as_fd()), entry.kind, &entry.meta);
        self.move_in(&place, &name)?;
        set.map_err(metadata_failed)
    }

    /// Makes `relative` another name of `first`; `false` if it is one already.
    pub(super) fn link(&self, first: &[u8], relative: &[u8]) -> io::Result<bool> {
        let (from, to) = (self.target.place(first)?, self.target.place(relative)?);
        let old = from
            .stat()?
            .ok_or_else(|| io::Error::other("Its other name was not restored"))?;
        if let Some(there) = to.stat()? {
            let linked = (there.st_dev, there.st_ino) == (old.st_dev, old.st_ino);
            if linked || self.overwrite == Overwrite::Never {
                return Ok(false);
            }
        }
        let name = partial_name(to.name);
        let link = || rustix::fs::linkat(&from.dir, from.name, &to.dir, name.as_str(), AtFlags::empty());
        match link() {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&to.dir, name.as_str(), AtFlags::empty())?;
                link()
            }
            linked => linked,
        }?;
        self.move_in(&to, &name)?;
        Ok(true)
    }

    fn move_in(&self, place: &Place<'_>, partial: &str) -> io::Result<()> {
        let rename = || rustix::fs::renameat(&place.dir, partial, &place.dir, place.name);
        match rename() {
            Err(Errno::ISDIR | Errno::EXIST) if self.replace_folders => {
                self.target.forget_open();
                place.remove_all()?;
                Ok(rename()?)
            }
            Err(Errno::ISDIR | Errno::EXIST) => {
                let _ = rustix::fs::unlinkat(&place.dir, partial, AtFlags::empty());
                Err(io::Error::new(
                    io::ErrorKind::IsADirectory,
                    "A folder is in its place; move it away",
                ))
            }
            renamed => Ok(renamed?),
        }
    }
}

fn metadata_failed(error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("Restored, but its metadata could not be set: {error}"),
    )
}

fn not_made(kind: EntryKind, error: Errno) -> io::Error {
    match (kind, error) {
        (EntryKind::CharDevice | EntryKind::BlockDevice, Errno::PERM) => {
            io::Error::new(io::ErrorKind::PermissionDenied, "Only root can make devices")
        }
        (_, error) => error.into(),
    }
}

/// Names may be as long as the file system allows, so the partial name is made from a hash.
fn partial_name(name: &[u8]) -> String {
    format!("{PARTIAL_PREFIX}{}", &blake3::hash(name).to_hex()[..16])
}

fn file_type(kind: EntryKind) -> Option<FileType> {
    match kind {
        EntryKind::Fifo => Some(FileType::Fifo),
        EntryKind::CharDevice => Some(FileType::CharacterDevice),
        EntryKind::BlockDevice => Some(FileType::BlockDevice),
        EntryKind::Socket => Some(FileType::Socket),
        EntryKind::File | EntryKind::Directory | EntryKind::Symlink => None,
    }
}

fn is_same(place: &Place<'_>, stat: &Stat, entry: &Entry) -> bool {
    let found = FileType::from_raw_mode(stat.st_mode);
    match entry.kind {
        EntryKind::File => {
            found == FileType::RegularFile
                && stat.st_size as u64 == entry.meta.size
                && mtime_ns(stat) == entry.meta.mtime_ns
        }
        EntryKind::Symlink => {
            found == FileType::Symlink
                && rustix::fs::readlinkat(&place.dir, place.name, Vec::new())
                    .is_ok_and(|aim| entry.content == Content::Inline(aim.into_bytes()))
        }
        EntryKind::Directory => found == FileType::Directory,
        EntryKind::CharDevice | EntryKind::BlockDevice => {
            file_type(entry.kind) == Some(found) && stat.st_rdev == entry.meta.rdev
        }
        EntryKind::Fifo | EntryKind::Socket => file_type(entry.kind) == Some(found),
    }
}
