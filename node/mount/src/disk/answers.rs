//! A folder with one file, as a FUSE file system.
//!
//! The file is opened for direct IO: the kernel keeps no copy of it and writes nothing back later, so that every answer is the device's,
//! also to a loop device, which has a cache of its own above. For the same reason it cannot be mapped into memory to be written there.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use disk::journal::record::BLOCK_BYTES;
use disk::{Change, Device, ExtentKind};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};
use rustix::fs::{FallocateFlags, OFlags};

use super::NAME_BYTES_MAX;
use super::failure::errno;
use super::holes::find;
use super::serving::{Answered, Serving};

const FOLDER: INodeNo = INodeNo::ROOT;
const FILE: INodeNo = INodeNo(2);
/// Nobody changes anything about the file but through this mount, or what the device holds.
const KEPT: Duration = Duration::from_secs(60);
/// Longest write; the kernel sends no longer ones unless its administrator raised `fs.fuse.max_pages_limit`.
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Most asynchronous requests at once, for clients that have so many under way. Chosen: what fio, QEMU and loop devices ask for.
const BACKGROUND_MAX: u16 = 64;
/// `whence` of lseek(2), as Linux numbers it (linux/fs.h).
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
/// Bytes of the units that `blocks` counts (stat(2)).
const STAT_BLOCK_BYTES: u64 = 512;

/// The file system.
pub(super) struct DiskFs {
    serving: Arc<Serving>,
    name: OsString,
    mounted: SystemTime,
}

impl DiskFs {
    pub(super) fn new(serving: Arc<Serving>, name: OsString) -> Self {
        let mounted = SystemTime::now();
        Self { serving, name, mounted }
    }

    fn device(&self) -> &dyn Device {
        self.serving.device()
    }

    fn attributes(&self, number: INodeNo) -> Result<FileAttr, Errno> {
        let is_read_only = self.device().is_read_only();
        let (size, kind, perm, nlink, changed) = match number {
            FOLDER => (0, FileType::Directory, 0o500, 2, self.mounted),
            FILE => {
                let perm = if is_read_only { 0o400 } else { 0o600 };
                let changed = self.serving.changed();
                (self.device().size(), FileType::RegularFile, perm, 1, changed)
            }
            _ => return Err(Errno::ENOENT),
        };
        // Counting what holes leave would take the whole map. One block less than all of them: tools look for holes then, and none
        // takes the file for one hole.
        let blocks = (size.saturating_sub(BLOCK_BYTES as u64) / STAT_BLOCK_BYTES).max(size.min(1));
        Ok(FileAttr {
            ino: number,
            size,
            blocks,
            atime: changed,
            mtime: changed,
            ctime: changed,
            crtime: self.mounted,
            kind,
            perm,
            nlink,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: 0,
            blksize: BLOCK_BYTES as u32,
            flags: 0,
        })
    }

    fn reply_attributes(&self, number: INodeNo, reply: ReplyAttr) {
        match self.attributes(number) {
            // Times change with each write, and are asked for rarely.
            Ok(attributes) => reply.attr(&Duration::ZERO, &attributes),
            Err(error) => reply.error(error),
        }
    }

    /// How much of a range that is to be changed lies within the device. Beyond its end there is no room, as with any disk.
    fn within(&self, offset: u64, length: u64) -> Result<u64, Errno> {
        if self.device().is_read_only() {
            return Err(Errno::EROFS);
        }
        match self.device().size().checked_sub(offset) {
            None | Some(0) if length > 0 => Err(Errno::ENOSPC),
            rest => Ok(rest.unwrap_or(0).min(length)),
        }
    }

    fn seek(&self, offset: i64, whence: i32) -> Result<i64, Errno> {
        let size = self.device().size();
        let offset = u64::try_from(offset).ok().filter(|offset| *offset < size);
        let offset = offset.ok_or(Errno::ENXIO)?;
        let found = match whence {
            SEEK_DATA => find(self.device(), offset, ExtentKind::Data),
            // There is a hole behind the end of every file.
            SEEK_HOLE => find(self.device(), offset, ExtentKind::Zero).map(|found| Some(found.unwrap_or(size))),
            _ => return Err(Errno::EINVAL),
        };
        let found = found.map_err(|error| errno(&error))?.ok_or(Errno::ENXIO)?;
        i64::try_from(found).map_err(|_| Errno::EOVERFLOW)
    }
}

/// What fallocate(2) asks for with these flags, if a disk can do it.
fn effect(mode: i32, offset: u64, length: u64) -> Option<Change<'static>> {
    let keeps_size = FallocateFlags::KEEP_SIZE;
    match FallocateFlags::from_bits(mode as u32)? {
        mode if mode == FallocateFlags::PUNCH_HOLE | keeps_size => Some(Change::Trim { offset, length }),
        mode if mode.difference(keeps_size) == FallocateFlags::ZERO_RANGE => Some(Change::Zero { offset, length }),
        // Room for what is not yet written cannot be set aside: where blocks lie is decided when they are written.
        _ => None,
    }
}

impl Filesystem for DiskFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // What an older kernel does not have costs speed, nothing else.
        let _not_known = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        let _not_known = config.set_max_background(BACKGROUND_MAX);
        config
            .set_max_write(WRITE_BYTES_MAX)
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(())
    }

    fn destroy(&mut self) {
        self.serving.end();
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let is_file = parent == FOLDER && name == self.name;
        let found = if is_file {
            self.attributes(FILE)
        } else {
            Err(Errno::ENOENT)
        };
        match found {
            Ok(attributes) => reply.entry(&KEPT, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _request: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        self.reply_attributes(number, reply);
    }

    /// Times are the device's, and what sets them (`touch`, `cp -p`) need not fail. Whatever else is set would not be kept.
    fn setattr(
        &self,
        _request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // Opening with O_TRUNC comes here, too, and fails: whoever asks for it takes what it does not write for zeros afterwards.
        let is_resized = size.is_some_and(|size| size != self.device().size());
        if is_resized || mode.or(uid).or(gid).is_some() {
            return reply.error(Errno::EPERM);
        }
        self.reply_attributes(number, reply);
    }

    fn open(&self, _request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if number != FILE {
            return reply.error(Errno::EISDIR);
        }
        if self.device().is_read_only() && flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(Errno::EROFS);
        }
        // Nobody's file grows by a write, so writes need not wait for each other.
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.serving.read(offset, size, reply);
    }

    fn write(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let length = match self.within(offset, data.len() as u64) {
            Ok(0) => return reply.written(0),
            Ok(length) => length,
            Err(error) => return reply.error(error),
        };
        // O_SYNC contains it. The kernel leaves this to the file system.
        let answered = match OFlags::from_bits_retain(flags.0 as u32).contains(OFlags::DSYNC) {
            true => Answered::WhenFlushed,
            false => Answered::WhenMade,
        };
        let data = &data[..length as usize];
        self.serving
            .change(&Change::Write { offset, data }, answered, move |made| match made {
                Ok(()) => reply.written(length as u32),
                Err(error) => reply.error(error),
            });
    }

    fn fallocate(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let keeps_size = mode as u32 & FallocateFlags::KEEP_SIZE.bits() != 0;
        let ends_within = offset
            .checked_add(length)
            .is_some_and(|end| end <= self.device().size());
        let within = match self.within(offset, length) {
            // "The file size will not be changed": what lies behind it is nothing.
            Err(Errno::ENOSPC) if keeps_size => Ok(0),
            Ok(_) if !keeps_size && !ends_within => Err(Errno::ENOSPC),
            within => within,
        };
        let change = match within.map(|length| (length, effect(mode, offset, length))) {
            Err(error) => return reply.error(error),
            Ok((_, None)) => return reply.error(Errno::EOPNOTSUPP),
            Ok((0, Some(_))) => return reply.ok(),
            Ok((_, Some(change))) => change,
        };
        self.serving
            .change(&change, Answered::WhenMade, move |made| reply_empty(reply, made));
    }

    /// Each close waits until what was written is flushed, so that unmounting, which waits for all to be closed, has nothing left to
    /// do, and a failure is told to somebody.
    fn flush(&self, _request: &Request, _number: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        if self.serving.is_flushed() {
            return reply.ok();
        }
        self.serving.answer_flushed(move |flushed| reply_empty(reply, flushed));
    }

    fn fsync(&self, _request: &Request, _number: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        // Also if nothing was written here: other faces of the disk may have written.
        self.serving.answer_flushed(move |flushed| reply_empty(reply, flushed));
    }

    fn lseek(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match self.seek(offset, whence) {
            Ok(found) => reply.offset(found),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = [
            (FOLDER, FileType::Directory, OsStr::new(".")),
            (FOLDER, FileType::Directory, OsStr::new("..")),
            (FILE, FileType::RegularFile, &self.name),
        ];
        for ((number, kind, name), next) in entries.into_iter().zip(1..).skip(offset.min(3) as usize) {
            if reply.add(number, next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    /// Loop devices take the length of a block for the shortest that can be trimmed.
    fn statfs(&self, _request: &Request, _number: INodeNo, reply: ReplyStatfs) {
        let block = BLOCK_BYTES as u32;
        let blocks = self.device().size() / u64::from(block);
        reply.statfs(blocks, 0, 0, 1, 0, block, NAME_BYTES_MAX as u32, block);
    }

    /// The kernel asks with every write, until it has heard that there are none.
    fn getxattr(&self, _request: &Request, _number: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _request: &Request, _number: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    /// What asks whether this is a disk is told that it is a file.
    fn ioctl(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    // Nothing is made, removed or renamed in the folder.

    fn create(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(Errno::EPERM);
    }

    fn mknod(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _device: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn mkdir(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn symlink(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, _target: &Path, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn link(&self, _request: &Request, _number: INodeNo, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn unlink(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn rmdir(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn rename(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _new_parent: INodeNo,
        _new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EPERM);
    }
}

fn reply_empty(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}
