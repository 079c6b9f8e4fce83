//! One entry at a time into the target: made beside its place under a partial name, then moved into it complete.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use proto::log_record::{Content, Entry, EntryKind, Meta};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::restore::judge::{Fate, Ignored, Judge, Sweep};
use crate::restore::metadata::{MetadataWriter, Subject, mtime_ns};
use crate::restore::target::{Place, Target, split};
use crate::restore::verify::read_back_whole;
use crate::restore::{Extra, Overwrite, RestoreError, RestoreOptions, RestoreSummary};

const PARTIAL_PREFIX: &str = ".gridbackup-partial-";

/// The writing end of a restore; shared by all that write.
pub(super) struct Sink {
    pub(super) target: Target,
    overwrite: Overwrite,
    /// What may be removed to make room; none: nothing.
    judge: Option<Arc<Judge>>,
    verify: bool,
    metadata: MetadataWriter,
    names: Mutex<Names>,
    extras: Mutex<Vec<Extra>>,
    pub(super) summary: Mutex<RestoreSummary>,
}

/// Files that have several names.
#[derive(Default)]
struct Names {
    /// What this restore wrote, or found to be the same, at a name: its device and inode in the target.
    sure: HashMap<Vec<u8>, (u64, u64)>,
    /// Device and inode in the snapshot of those whose content could not be had.
    lost: HashSet<(u64, u64)>,
}

/// How another name of a file came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Linked {
    /// It is a link now.
    Made,
    /// What is there stays.
    Kept,
    /// The first name is not what the snapshot has: there is nothing to link to.
    NoFirst,
}

impl Sink {
    pub(super) fn new(target: Target, options: &RestoreOptions, judge: Option<Arc<Judge>>) -> Self {
        Self {
            target,
            overwrite: options.overwrite,
            judge: judge.filter(|_| options.overwrite != Overwrite::Never),
            names: Mutex::default(),
            extras: Mutex::default(),
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

    fn names(&self) -> std::sync::MutexGuard<'_, Names> {
        self.names.lock().expect("no panic while the names are locked")
    }

    /// What is at `relative` is what the snapshot has, so that other names may be linked to it.
    fn is_sure(&self, relative: &[u8], meta: &Meta, stat: &Stat) {
        if meta.links > 1 {
            self.names().sure.insert(relative.to_vec(), (stat.st_dev, stat.st_ino));
        }
    }

    /// The content of this file cannot be had, under whatever name.
    pub(super) fn lost(&self, meta: &Meta) {
        if meta.links > 1 {
            self.names().lost.insert((meta.device, meta.inode));
        }
    }

    /// Whether that was found out.
    pub(super) fn is_lost(&self, meta: &Meta) -> bool {
        self.names().lost.contains(&(meta.device, meta.inode))
    }

    /// Whether other names may be linked to what is at `relative`.
    pub(super) fn has_sure(&self, relative: &[u8]) -> bool {
        self.names().sure.contains_key(relative)
    }

    /// Counts something that the snapshot does not have, and keeps it to be told.
    pub(super) fn extra(&self, relative: &[u8], is_folder: bool, fate: Fate) {
        let left = match fate {
            Fate::Failed(error) => return self.failed(relative, format!("It could not be removed: {error}")),
            Fate::Left(why) => Some(why),
            Fate::Removed => None,
        };
        {
            let mut summary = self.summary();
            match (left, is_folder) {
                (Some(_), _) => summary.left += 1,
                (None, true) => summary.folders_deleted += 1,
                (None, false) => summary.files_deleted += 1,
            }
        }
        let path = self.target.show(relative);
        let mut extras = self.extras.lock().expect("no panic while the extras are locked");
        extras.push(Extra { path, is_folder, left });
    }

    /// What there is to tell.
    pub(super) fn take_extras(&self) -> Vec<Extra> {
        std::mem::take(&mut self.extras.lock().expect("no panic while the extras are locked"))
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
        // A link on the way to the roots may lead to where everything else lies.
        if !self.judge.as_ref().is_some_and(|judge| judge.covers(relative)) {
            return Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                "Not a folder in the target, perhaps a symbolic link; nothing below it was restored; move it away",
            ));
        }
        place.unlink()?;
        self.extra(relative, false, Fate::Removed);
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
        let Some((fd, stat)) = place.open()? else {
            return Ok(false);
        };
        let is_same = is_same(&fd, &stat, entry);
        match self.overwrite {
            Overwrite::Always => return Ok(false),
            Overwrite::Never if is_same => {
                self.is_sure(relative, &entry.meta, &stat);
                return Ok(true);
            }
            Overwrite::Never => return Ok(true),
            Overwrite::IfChanged if !is_same || self.is_others(&fd, &stat, entry)? => return Ok(false),
            Overwrite::IfChanged => {}
        }
        self.metadata
            .correct(Subject::Path(fd.as_fd()), entry.kind, &entry.meta)?;
        self.is_sure(relative, &entry.meta, &stat);
        Ok(true)
    }

    /// Whether a file has more names than the snapshot knows of, and other metadata: the others may be anywhere, and are nothing to
    /// this restore.
    fn is_others(&self, fd: &OwnedFd, stat: &Stat, entry: &Entry) -> io::Result<bool> {
        let has_more = entry.kind == EntryKind::File && stat.st_nlink > u64::from(entry.meta.links.max(1));
        Ok(has_more
            && self
                .metadata
                .differs(Subject::Path(fd.as_fd()), entry.kind, &entry.meta)?)
    }

    /// Whether the rule keeps what is in the entry's place; changes nothing.
    pub(super) fn would_keep(&self, relative: &[u8], entry: &Entry) -> bool {
        let Ok(place) = self.target.place(relative) else {
            return false;
        };
        match (place.open(), self.overwrite) {
            (Ok(Some(_)), Overwrite::Never) => true,
            (Ok(Some((fd, stat))), Overwrite::IfChanged) => {
                is_same(&fd, &stat, entry) && matches!(self.is_others(&fd, &stat, entry), Ok(false))
            }
            _ => false,
        }
    }

    /// Writes a file whose content is at hand.
    pub(super) fn write_file(&self, relative: &[u8], meta: &Meta, content: &[u8]) -> io::Result<()> {
        let partial = self.create_partial(relative)?;
        let written = partial.write_all_at(content, 0).and_then(|()| match self.verify {
            true => read_back_whole(&partial, content),
            false => Ok(()),
        });
        // Unlike the part of a large file, it is no beginning that another run could go on from.
        let finished = written.and_then(|()| self.finish_file(relative, meta, &partial, content.len() as u64));
        if finished.is_err() {
            self.drop_partial(relative);
        }
        finished
    }

    /// What an interrupted restore left of a file, if it is ours alone.
    pub(super) fn left_over(&self, relative: &[u8]) -> Option<File> {
        if self.target.created {
            return None;
        }
        self.open_partial(relative, rustix::process::geteuid().as_raw()).ok()
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

    /// Goes on with a file that was begun and belongs to this user. Looked at each time: who may write to the folder can put
    /// another name of any file in its place.
    pub(super) fn open_partial(&self, relative: &[u8], owner: u32) -> io::Result<File> {
        let place = self.target.place(relative)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&place.dir, partial_name(place.name), flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        match is_file && has_one_name(&stat) && stat.st_uid == owner {
            true => Ok(fd.into()),
            false => Err(swapped()),
        }
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
        self.move_in(relative, &place, &partial_name(place.name))?;
        self.is_sure(relative, meta, &rustix::fs::fstat(partial)?);
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
        let fd = open_made(&place, &name, entry)?;
        let set = self.metadata.apply(Subject::Path(fd.as_fd()), entry.kind, &entry.meta);
        self.move_in(relative, &place, &name)?;
        if let Some(stat) = place.stat()? {
            self.is_sure(relative, &entry.meta, &stat);
        }
        set.map_err(metadata_failed)
    }

    /// Makes `relative` another name of `first`, if that is what the snapshot has.
    pub(super) fn link(&self, first: &[u8], relative: &[u8]) -> io::Result<Linked> {
        let to = self.target.place(relative)?;
        let there = to.stat()?;
        if there.is_some() && self.overwrite == Overwrite::Never {
            return Ok(Linked::Kept);
        }
        let Some(sure) = self.names().sure.get(first).copied() else {
            return Ok(Linked::NoFirst);
        };
        if there.is_some_and(|there| (there.st_dev, there.st_ino) == sure) {
            return Ok(Linked::Kept);
        }
        let from = self.target.place(first)?;
        if from.stat()?.is_none_or(|stat| (stat.st_dev, stat.st_ino) != sure) {
            return Ok(Linked::NoFirst);
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
        self.move_in(relative, &to, &name)?;
        Ok(Linked::Made)
    }

    /// Gives what is complete its name. If that cannot be, nothing is left beside the place.
    fn move_in(&self, relative: &[u8], place: &Place<'_>, partial: &str) -> io::Result<()> {
        let rename = || rustix::fs::renameat(&place.dir, partial, &place.dir, place.name);
        let moved = match rename() {
            Err(Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY) => self
                .clear_folder(relative, place)
                .and_then(|()| rename().map_err(io::Error::from)),
            renamed => renamed.map_err(io::Error::from),
        };
        if moved.is_err() {
            let _ = rustix::fs::unlinkat(&place.dir, partial, AtFlags::empty());
        }
        moved
    }

    /// Removes a folder that is where the snapshot has something else, if all that is in it may go.
    fn clear_folder(&self, relative: &[u8], place: &Place<'_>) -> io::Result<()> {
        let in_the_way = |what| Err(io::Error::new(io::ErrorKind::IsADirectory, what));
        let Some(judge) = self.judge.as_ref().filter(|judge| judge.covers(relative)) else {
            return in_the_way("A folder is in its place; move it away");
        };
        self.target.forget_open();
        let ignored = self.ignored_above(judge, relative)?;
        let at = (&*place.dir, place.name);
        if !judge.sweep(at, relative, &ignored, Sweep::Look, &mut |_, _, _| {}) {
            return in_the_way("A folder is in its place, and in it is what the backup leaves out; move it away");
        }
        let mut tell = |relative: &[u8], is_folder, fate| self.extra(relative, is_folder, fate);
        judge.sweep(at, relative, &ignored, Sweep::Remove, &mut tell);
        Ok(())
    }

    /// The ignore files above a place, as they lie there.
    fn ignored_above(&self, judge: &Judge, relative: &[u8]) -> io::Result<Ignored> {
        let (folder, _) = split(relative);
        let slashes = folder.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let above = slashes.map(|(at, _)| &folder[..at]);
        let mut ignored = Ignored::default();
        // The last of them is the target itself again if there is no folder in between.
        let mut above: Vec<&[u8]> = std::iter::once(&b""[..]).chain(above).chain([folder]).collect();
        above.dedup();
        for folder in above {
            if judge.covers(folder) {
                ignored = judge.below(&ignored, &*self.target.dir(folder)?, folder, None);
            }
        }
        Ok(ignored)
    }
}

/// Opens what was just made, if that is what is there: before metadata is set on it, since who may write to the folder can put
/// another name of any file in its place.
pub(super) fn open_made(place: &Place<'_>, name: &str, entry: &Entry) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&place.dir, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    match has_one_name(&stat) && is_same(&fd, &stat, entry) {
        true => Ok(fd),
        false => Err(swapped()),
    }
}

/// It is no other name of a file of somebody's. Some file systems count no names.
fn has_one_name(stat: &Stat) -> bool {
    stat.st_nlink <= 1
}

fn swapped() -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        "Somebody else put another file in its place while it was restored",
    )
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

/// Whether what `fd` is open on, which `stat` tells of, is the entry.
fn is_same(fd: &OwnedFd, stat: &Stat, entry: &Entry) -> bool {
    let found = FileType::from_raw_mode(stat.st_mode);
    match entry.kind {
        EntryKind::File => {
            found == FileType::RegularFile
                && stat.st_size as u64 == entry.meta.size
                && mtime_ns(stat) == entry.meta.mtime_ns
        }
        EntryKind::Symlink => {
            found == FileType::Symlink
                && rustix::fs::readlinkat(fd, c"", Vec::new())
                    .is_ok_and(|aim| entry.content == Content::Inline(aim.into_bytes()))
        }
        EntryKind::Directory => found == FileType::Directory,
        EntryKind::CharDevice | EntryKind::BlockDevice => {
            file_type(entry.kind) == Some(found) && stat.st_rdev == entry.meta.rdev
        }
        EntryKind::Fifo | EntryKind::Socket => file_type(entry.kind) == Some(found),
    }
}
