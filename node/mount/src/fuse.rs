//! The tree as a FUSE file system. Metadata is answered at once, from the catalog; reads are answered by tasks of the
//! runtime, so that a slow peer holds up only who waits for it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backup::restore::file::OpenFile;
use backup::view::{Inodes, Node, View};
use database::DbError;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use proto::log_record::{Content, EntryKind};
use tokio::runtime::Handle;

use super::attributes::{attributes, file_type, kept};
use super::listing::Listing;

/// Files from this length on are looked at for holes when their attributes are asked for: that reads their extents.
const HOLES_BYTES_MIN: u64 = 64 << 10;
/// `.` and `..` come before the entries of a folder.
const DOTS: u64 = 2;
/// What `statvfs` says: the longest name (`NAME_MAX`) and a page.
const NAME_BYTES_MAX: u32 = 255;
const PAGE_BYTES: u32 = 4096;
/// `whence` of lseek(2), as Linux numbers it (linux/fs.h).
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
/// Most that the kernel reads ahead by itself; it may allow less.
const READ_AHEAD_BYTES: u32 = 1 << 20;

/// The file system.
pub(super) struct SnapshotFs {
    view: View,
    runtime: Handle,
    inodes: Mutex<Inodes>,
    files: Handles<Opened>,
    folders: Handles<Mutex<Listing>>,
}

/// An open file, with what `lseek` and the log need to know of it.
struct Opened {
    file: OpenFile,
    bytes: u64,
    name: String,
}

/// What is open, by handle.
struct Handles<T> {
    open: Mutex<HashMap<u64, Arc<T>>>,
    next: AtomicU64,
}

impl<T> Handles<T> {
    fn new() -> Self {
        Self {
            open: Mutex::default(),
            next: AtomicU64::new(1),
        }
    }
    fn add(&self, opened: T) -> FileHandle {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.open).insert(handle, Arc::new(opened));
        FileHandle(handle)
    }
    fn get(&self, handle: FileHandle) -> Result<Arc<T>, Errno> {
        lock(&self.open).get(&handle.0).cloned().ok_or(Errno::EBADF)
    }
    fn remove(&self, handle: FileHandle) {
        lock(&self.open).remove(&handle.0);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in one request must not take the mount away from the others.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SnapshotFs {
    pub(super) fn new(view: View, runtime: Handle) -> Self {
        Self {
            view,
            runtime,
            inodes: Mutex::default(),
            files: Handles::new(),
            folders: Handles::new(),
        }
    }

    /// The node of a number; `ESTALE` if its snapshot was forgotten or its content amended.
    fn node(&self, number: INodeNo) -> Result<Node, Errno> {
        let place = lock(&self.inodes).place(number.0).ok_or(Errno::ESTALE)?;
        self.view.node(&place).map_err(catalog_failed)?.ok_or(Errno::ESTALE)
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> Result<Node, Errno> {
        let place = lock(&self.inodes).place(parent.0).ok_or(Errno::ESTALE)?;
        let child = self.view.child(&place, name.as_bytes()).map_err(catalog_failed)?;
        child.ok_or(Errno::ENOENT)
    }

    fn attributes(&self, node: &Node, number: u64) -> FileAttr {
        let size = node.entry.meta.size;
        let may_have_holes = matches!(node.entry.content, Content::Version(_)) && size >= HOLES_BYTES_MIN;
        let opened = may_have_holes.then(|| self.view.open(node).ok()).flatten();
        let on_disk = opened.and_then(|file| file.bytes_outside_holes()).unwrap_or(size);
        attributes(node, number, on_disk)
    }

    fn open_file(&self, number: INodeNo) -> Result<(FileHandle, FopenFlags), Errno> {
        let node = self.node(number)?;
        match node.entry.kind {
            EntryKind::File => {}
            EntryKind::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::ENXIO),
        }
        let name = node.entry.name.escape_ascii().to_string();
        let file = self.view.open(&node).map_err(|error| {
            tracing::error!("`{name}` cannot be opened: {error}");
            Errno::EIO
        })?;
        // Another content has another number, unless it was amended a moment ago: what is cached is true.
        let keep = match node.number() == number.0 {
            true => FopenFlags::FOPEN_KEEP_CACHE,
            false => FopenFlags::empty(),
        };
        let opened = Opened {
            file,
            bytes: node.entry.meta.size,
            name,
        };
        Ok((self.files.add(opened), keep | FopenFlags::FOPEN_NOFLUSH))
    }

    fn open_folder(&self, number: INodeNo) -> Result<FileHandle, Errno> {
        let node = self.node(number)?;
        match node.entry.kind {
            EntryKind::Directory => Ok(self.folders.add(Mutex::new(Listing::new(node.place)))),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// Gives `add` the entries of an open folder from `offset` on, with the offset after each, until it is full.
    fn read_folder(
        &self,
        handle: FileHandle,
        offset: u64,
        add: &mut dyn FnMut(Shown<'_>, u64) -> bool,
    ) -> Result<(), Errno> {
        let folder = self.folders.get(handle)?;
        let mut listing = lock(&folder);
        let itself = self
            .view
            .node(listing.place())
            .map_err(catalog_failed)?
            .ok_or(Errno::ESTALE)?;
        let mut offset = offset;
        for name in [".", ".."].iter().skip(offset.min(DOTS) as usize) {
            offset += 1;
            if add(Shown::Dot(name, &itself), offset) {
                return Ok(());
            }
        }
        loop {
            let position = usize::try_from(offset - DOTS).map_err(|_| Errno::EINVAL)?;
            let nodes = listing.from(&self.view, position).map_err(catalog_failed)?;
            if nodes.is_empty() {
                return Ok(());
            }
            for node in nodes {
                offset += 1;
                if add(Shown::Entry(node), offset) {
                    return Ok(());
                }
            }
        }
    }

    fn attribute(&self, number: INodeNo, name: &OsStr) -> Result<Vec<u8>, Errno> {
        let xattrs = self.node(number)?.entry.meta.xattrs;
        let found = xattrs.into_iter().find(|xattr| xattr.name == name.as_bytes());
        found.map(|xattr| xattr.value).ok_or(Errno::NO_XATTR)
    }

    fn attribute_names(&self, number: INodeNo) -> Result<Vec<u8>, Errno> {
        let mut names = Vec::new();
        for xattr in self.node(number)?.entry.meta.xattrs {
            names.extend_from_slice(&xattr.name);
            names.push(0);
        }
        Ok(names)
    }

    fn seek(&self, handle: FileHandle, offset: i64, whence: i32) -> Result<i64, Errno> {
        let opened = self.files.get(handle)?;
        let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        let found = match whence {
            SEEK_DATA => opened.file.next_outside_hole(offset, opened.bytes),
            SEEK_HOLE => opened.file.next_hole(offset, opened.bytes),
            _ => return Err(Errno::EINVAL),
        };
        found.and_then(|found| i64::try_from(found).ok()).ok_or(Errno::ENXIO)
    }
}

/// What is in a folder.
#[derive(Clone, Copy)]
enum Shown<'a> {
    /// `.` or `..`, for which the folder itself stands: nobody follows them.
    Dot(&'static str, &'a Node),
    Entry(&'a Node),
}

fn catalog_failed(error: DbError) -> Errno {
    tracing::error!("The mount cannot read the catalog: {error}");
    Errno::EIO
}

/// Answers a request for an attribute or the list of them as getxattr(2) and listxattr(2) have it.
fn reply_sized(reply: ReplyXattr, found: Result<Vec<u8>, Errno>, size: u32) {
    match found {
        Err(error) => reply.error(error),
        Ok(bytes) if size == 0 => reply.size(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
        Ok(bytes) if bytes.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(bytes) => reply.data(&bytes),
    }
}

impl Filesystem for SnapshotFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // What an older kernel does not have costs speed, nothing else.
        for flag in [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
        ] {
            let _not_known = config.add_capabilities(flag);
        }
        if let Err(allowed) = config.set_max_readahead(READ_AHEAD_BYTES) {
            let _is_allowed = config.set_max_readahead(allowed);
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.child(parent, name) {
            Ok(node) => {
                let number = lock(&self.inodes).note(&node);
                reply.entry(&kept(&node), &self.attributes(&node, number), Generation(0));
            }
            Err(error) => reply.error(error),
        }
    }

    fn forget(&self, _request: &Request, number: INodeNo, lookups: u64) {
        lock(&self.inodes).forget(number.0, lookups);
    }

    fn getattr(&self, _request: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.node(number) {
            Ok(node) => reply.attr(&kept(&node), &self.attributes(&node, number.0)),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        match self.node(number).map(|node| node.entry.content) {
            Ok(Content::Inline(target)) => reply.data(&target),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.open_file(number) {
            Ok((handle, flags)) => reply.opened(handle, flags),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let opened = match self.files.get(handle) {
            Ok(opened) => opened,
            Err(error) => return reply.error(error),
        };
        self.runtime.spawn(async move {
            match opened.file.read_at(offset, size as usize).await {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => {
                    tracing::error!("`{}` cannot be read at byte {offset}: {error}", opened.name);
                    reply.error(Errno::EIO);
                }
            }
        });
    }

    fn release(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.files.remove(handle);
        reply.ok();
    }

    fn lseek(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match self.seek(handle, offset, whence) {
            Ok(found) => reply.offset(found),
            Err(error) => reply.error(error),
        }
    }

    fn opendir(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.open_folder(number) {
            Ok(handle) => reply.opened(handle, FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _request: &Request, number: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let read = self.read_folder(handle, offset, &mut |shown, next| match shown {
            Shown::Dot(name, _) => reply.add(number, next, FileType::Directory, name),
            Shown::Entry(node) => {
                let name = OsStr::from_bytes(&node.entry.name);
                reply.add(INodeNo(node.number()), next, file_type(node.entry.kind), name)
            }
        });
        match read {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let read = self.read_folder(handle, offset, &mut |shown, next| {
            let (node, noted, name) = match shown {
                Shown::Dot(name, node) => (node, number.0, OsStr::new(name)),
                Shown::Entry(node) => {
                    let noted = lock(&self.inodes).note(node);
                    (node, noted, OsStr::from_bytes(&node.entry.name))
                }
            };
            let attributes = self.attributes(node, noted);
            let is_full = reply.add(INodeNo(noted), next, name, &kept(node), &attributes, Generation(0));
            // Only what the kernel is told counts as looked up; it knows the dots already.
            if is_full && matches!(shown, Shown::Entry(_)) {
                lock(&self.inodes).forget(noted, 1);
            }
            is_full
        });
        match read {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn releasedir(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.folders.remove(handle);
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _number: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, PAGE_BYTES, NAME_BYTES_MAX, PAGE_BYTES);
    }

    fn getxattr(&self, _request: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        reply_sized(reply, self.attribute(number, name), size);
    }

    fn listxattr(&self, _request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        reply_sized(reply, self.attribute_names(number), size);
    }
}
