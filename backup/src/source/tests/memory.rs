//! A tree of files in memory, for tests: a source that does what no disk does when it is asked to.
//!
//! It keeps what tests lean on: folders and files stay what they were opened as, every change moves a ctime, file systems are
//! mounted and taken away. Its clock goes on by itself only when somebody waits, and change times are taken from its ticks.
//! What goes wrong is said beforehand: a call that fails (`fail`), something that happens just before a call (`before`).

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proto::log_record::{Content, Entry, EntryKind, Meta, Xattr};
use rustix::io::Errno;

use crate::source::{FileStat, Folder, ListBuffer, Listing, Next, OpenFile, Source, Xattrs};

/// Times are those of the last tick: as with `CONFIG_HZ=100`.
const TICK_NS: i64 = 10_000_000;
const LINKS_MAX: usize = 40;

/// What a source is asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Call {
    Examine,
    OpenFolder,
    List,
    OpenFile,
    Stat,
    Read,
    Xattrs,
    ReadLink,
}

type Hook = Arc<dyn Fn(&MemoryTree) + Send + Sync>;

/// The tree. Its clones are the same tree.
#[derive(Clone)]
pub(crate) struct MemoryTree(Arc<Mutex<State>>);

struct State {
    nodes: HashMap<u64, Node>,
    now_ns: i64,
    devices: u64,
    failing: HashMap<(Vec<u8>, Call), Errno>,
    hooks: HashMap<(Vec<u8>, Call), Hook>,
    counts: HashMap<Call, usize>,
    read_bytes_max: usize,
}

#[derive(Clone)]
struct Node {
    kind: EntryKind,
    meta: Meta,
    /// Of a file, or where a link leads.
    content: Vec<u8>,
    entries: BTreeMap<Vec<u8>, u64>,
    /// The topmost folder of the file system that is mounted here.
    mounted: Option<u64>,
    /// What it says its length is, if it lies.
    said_bytes: Option<u64>,
}

const TOP: u64 = 1;

impl MemoryTree {
    pub fn new() -> Self {
        let tree = Self(Arc::new(Mutex::new(State {
            nodes: HashMap::new(),
            now_ns: 1_700_000_000_000_000_000,
            devices: 1,
            failing: HashMap::new(),
            hooks: HashMap::new(),
            counts: HashMap::new(),
            read_bytes_max: usize::MAX,
        })));
        tree.state().add(EntryKind::Directory, 1, Vec::new());
        tree
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Makes a folder and all above it.
    pub fn folder(&self, path: &str) {
        let mut state = self.state();
        let mut at = TOP;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = match state.child(at, name.as_bytes()) {
                Ok(child) => child,
                Err(_) => state.make(at, name.as_bytes(), EntryKind::Directory, Vec::new()),
            };
        }
    }

    /// Writes a file: the one that is there, or a new one.
    pub fn write(&self, path: impl AsRef<[u8]>, content: impl Into<Vec<u8>>) {
        let mut state = self.state();
        match state.find(path.as_ref(), false) {
            Ok((inode, _)) => state.change(inode, |node| node.content = content.into()),
            Err(_) => drop(state.make_at(path.as_ref(), EntryKind::File, content.into())),
        }
    }

    /// Makes a symbolic link.
    pub fn link(&self, path: &str, target: &str) {
        self.state()
            .make_at(path.as_bytes(), EntryKind::Symlink, target.as_bytes().to_vec());
    }

    /// Takes away what is there, with all below.
    pub fn remove(&self, path: &str) {
        let mut state = self.state();
        let (folder, name) = state.place(path.as_bytes());
        state.change(folder, |node| {
            node.entries.remove(&name);
        });
    }

    /// Gives something another name, also in place of what has it.
    pub fn rename(&self, from: &str, to: &str) {
        let mut state = self.state();
        let ((from, name), (to, new_name)) = (state.place(from.as_bytes()), state.place(to.as_bytes()));
        let inode = state.nodes.get_mut(&from).unwrap().entries.remove(&name).unwrap();
        state.change(from, |_| {});
        state.change(to, |node| {
            node.entries.insert(new_name, inode);
        });
        state.change(inode, |_| {});
    }

    /// Mounts an empty file system on a folder.
    pub fn mount(&self, path: &str) {
        let mut state = self.state();
        state.devices += 1;
        let device = state.devices;
        let top = state.add(EntryKind::Directory, device, Vec::new());
        let (folder, name) = state.place(path.as_bytes());
        let below = state.nodes[&folder].entries[&name];
        state.nodes.get_mut(&below).unwrap().mounted = Some(top);
    }

    /// Takes away what is mounted on a folder; what the folder has itself is seen again.
    pub fn unmount(&self, path: &str) {
        let mut state = self.state();
        let (folder, name) = state.place(path.as_bytes());
        let below = state.nodes[&folder].entries[&name];
        state.nodes.get_mut(&below).unwrap().mounted = None;
    }

    /// Changes metadata as nobody but a disk could: without a new ctime.
    pub fn set_meta(&self, path: &str, change: impl FnOnce(&mut Meta)) {
        let mut state = self.state();
        let (inode, _) = state.find(path.as_bytes(), false).unwrap();
        change(&mut state.nodes.get_mut(&inode).unwrap().meta);
    }

    /// A file that says that it is so long.
    pub fn says_bytes(&self, path: &str, bytes: u64) {
        let mut state = self.state();
        let (inode, _) = state.find(path.as_bytes(), false).unwrap();
        state.change(inode, |node| node.said_bytes = Some(bytes));
    }

    /// Sets the clock, also back.
    pub fn set_clock(&self, now_ns: i64) {
        self.state().now_ns = now_ns;
    }

    /// No read gives more than this at once.
    pub fn read_bytes_max(&self, bytes: usize) {
        self.state().read_bytes_max = bytes;
    }

    /// From now on this call for this path fails.
    pub fn fail(&self, path: &str, call: Call, with: Errno) {
        self.state().failing.insert((path.as_bytes().to_vec(), call), with);
    }

    /// Nothing fails any more, and nothing happens by itself.
    pub fn mend(&self) {
        let mut state = self.state();
        state.failing.clear();
        state.hooks.clear();
    }

    /// From now on this happens just before each such call for this path.
    pub fn before(&self, path: &str, call: Call, happens: impl Fn(&Self) + Send + Sync + 'static) {
        let key = (path.as_bytes().to_vec(), call);
        self.state().hooks.insert(key, Arc::new(happens));
    }

    /// How often each call was made since this was last asked.
    pub fn counts(&self) -> HashMap<Call, usize> {
        std::mem::take(&mut self.state().counts)
    }

    /// What comes before every call: it is counted, what is to happen happens, and it may fail.
    fn call(&self, path: &[u8], call: Call) -> Result<MutexGuard<'_, State>, Errno> {
        let key = (path.to_vec(), call);
        let hook = {
            let mut state = self.state();
            *state.counts.entry(call).or_default() += 1;
            state.hooks.get(&key).cloned()
        };
        if let Some(happens) = hook {
            happens(self);
        }
        let state = self.state();
        match state.failing.get(&key) {
            Some(errno) => Err(*errno),
            None => Ok(state),
        }
    }

    fn open(&self, path: &[u8]) -> Result<Box<dyn OpenFile>, Errno> {
        let state = self.call(path, Call::OpenFile)?;
        let (inode, _) = state.find(path, false)?;
        drop(state);
        self.opened(path, inode)
    }

    fn opened(&self, path: &[u8], inode: u64) -> Result<Box<dyn OpenFile>, Errno> {
        match self.state().nodes[&inode].kind {
            EntryKind::Symlink => Err(Errno::LOOP),
            EntryKind::Socket => Err(Errno::NXIO),
            _ => Ok(Box::new(MemoryFile(Handle::new(self, path, inode)))),
        }
    }
}

impl State {
    fn tick(&mut self) -> i64 {
        self.now_ns += 1;
        self.now_ns - self.now_ns % TICK_NS + 1 // no file system of whole seconds
    }

    fn add(&mut self, kind: EntryKind, device: u64, content: Vec<u8>) -> u64 {
        let (inode, now) = (self.nodes.len() as u64 + 1, self.tick());
        let meta = Meta {
            mode: 0o755,
            uid: 1000,
            gid: 1000,
            mtime_ns: now,
            ctime_ns: now,
            inode,
            device,
            links: 1,
            ..Meta::default()
        };
        let node = Node {
            kind,
            meta,
            content,
            entries: BTreeMap::new(),
            mounted: None,
            said_bytes: None,
        };
        self.nodes.insert(inode, node);
        inode
    }

    fn make(&mut self, folder: u64, name: &[u8], kind: EntryKind, content: Vec<u8>) -> u64 {
        let inode = self.add(kind, self.nodes[&folder].meta.device, content);
        self.change(folder, |node| {
            node.entries.insert(name.to_vec(), inode);
        });
        inode
    }

    fn make_at(&mut self, path: &[u8], kind: EntryKind, content: Vec<u8>) -> u64 {
        let (folder, name) = self.place(path);
        self.make(folder, &name, kind, content)
    }

    fn change(&mut self, inode: u64, change: impl FnOnce(&mut Node)) {
        let now = self.tick();
        let node = self.nodes.get_mut(&inode).unwrap();
        change(node);
        (node.meta.mtime_ns, node.meta.ctime_ns) = (now, now);
    }

    /// The folder of a path, and its last name.
    fn place(&self, path: &[u8]) -> (u64, Vec<u8>) {
        let at = path.iter().rposition(|byte| *byte == b'/').unwrap();
        let (folder, _) = self.find(&path[..at], true).unwrap();
        (folder, path[at + 1..].to_vec())
    }

    /// What has a name in a folder, or is mounted there.
    fn child(&self, folder: u64, name: &[u8]) -> Result<u64, Errno> {
        let node = &self.nodes[&folder];
        if node.kind != EntryKind::Directory {
            return Err(Errno::NOTDIR);
        }
        let inode = *node.entries.get(name).ok_or(Errno::NOENT)?;
        Ok(self.nodes[&inode].mounted.unwrap_or(inode))
    }

    /// What a path leads to, and its path without links.
    fn find(&self, path: &[u8], follow: bool) -> Result<(u64, Vec<u8>), Errno> {
        let components = |path: &[u8]| -> Vec<Vec<u8>> { path.rsplit(|byte| *byte == b'/').map(Vec::from).collect() };
        let (mut pending, mut links) = (components(path), 0);
        let mut way: Vec<(Vec<u8>, u64)> = Vec::new();
        while let Some(name) = pending.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    way.pop();
                    continue;
                }
                _ => {}
            }
            let inode = self.child(way.last().map_or(TOP, |(_, inode)| *inode), &name)?;
            let node = &self.nodes[&inode];
            if node.kind != EntryKind::Symlink || (pending.is_empty() && !follow) {
                way.push((name, inode));
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(Errno::LOOP);
            }
            if node.content.starts_with(b"/") {
                way.clear();
            }
            pending.extend(components(&node.content));
        }
        let path = way
            .iter()
            .flat_map(|(name, _)| [b"/", name.as_slice()].concat())
            .collect();
        let path = if way.is_empty() { b"/".to_vec() } else { path };
        Ok((way.last().map_or(TOP, |(_, inode)| *inode), path))
    }

    fn meta(&self, inode: u64) -> (EntryKind, Meta) {
        let node = &self.nodes[&inode];
        let size = node.said_bytes.unwrap_or(node.content.len() as u64);
        let xattrs = Vec::new();
        let meta = node.meta.clone();
        (node.kind, Meta { size, xattrs, ..meta })
    }

    fn xattrs(&self, inode: u64) -> Vec<Xattr> {
        self.nodes[&inode].meta.xattrs.clone()
    }
}

impl Source for MemoryTree {
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        let (_, path) = self.state().find(path.as_os_str().as_bytes(), true)?;
        Ok(std::ffi::OsString::from_vec(path).into())
    }

    fn leads_to_folder(&self, path: &Path) -> io::Result<bool> {
        let state = self.state();
        let (inode, _) = state.find(path.as_os_str().as_bytes(), true)?;
        Ok(state.nodes[&inode].kind == EntryKind::Directory)
    }

    fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let state = self.call(path, Call::ReadLink)?;
        let (inode, _) = state.find(path, false)?;
        read_link(&state.nodes[&inode])
    }

    fn examine(&self, path: &[u8]) -> Result<(EntryKind, Meta), Errno> {
        let state = self.call(path, Call::Examine)?;
        let (inode, _) = state.find(path, false)?;
        Ok(state.meta(inode))
    }

    fn reach_folder(&self, path: &[u8]) -> Result<Box<dyn Folder>, Errno> {
        let (inode, path) = self.state().find(path, true)?;
        Ok(Box::new(MemoryFolder(Handle::new(self, &path, inode))))
    }

    fn open_folder(&self, path: &[u8]) -> Result<Box<dyn Folder>, Errno> {
        let state = self.call(path, Call::OpenFolder)?;
        let (inode, _) = state.find(path, false)?;
        folder(&state, Handle::new(self, path, inode))
    }

    fn open_file(&self, path: &[u8]) -> Result<Box<dyn OpenFile>, Errno> {
        self.open(path)
    }

    fn now_ns(&self) -> i64 {
        self.state().now_ns
    }

    fn wait(&self, time: Duration) {
        self.state().now_ns += time.as_nanos() as i64;
    }
}

fn read_link(node: &Node) -> Result<Vec<u8>, Errno> {
    match node.kind {
        EntryKind::Symlink => Ok(node.content.clone()),
        _ => Err(Errno::INVAL),
    }
}

fn folder(state: &State, handle: Handle) -> Result<Box<dyn Folder>, Errno> {
    match state.nodes[&handle.inode].kind {
        EntryKind::Directory => Ok(Box::new(MemoryFolder(handle))),
        _ => Err(Errno::NOTDIR),
    }
}

/// Something open, and the path that it was opened by.
struct Handle {
    tree: MemoryTree,
    path: Vec<u8>,
    inode: u64,
}

impl Handle {
    fn new(tree: &MemoryTree, path: &[u8], inode: u64) -> Self {
        let (tree, path) = (tree.clone(), path.to_vec());
        Self { tree, path, inode }
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let above = self.path.strip_suffix(b"/").unwrap_or(&self.path);
        [above, b"/", name].concat()
    }
}

struct MemoryFolder(Handle);

impl Folder for MemoryFolder {
    fn identity(&self) -> Result<(u64, u64), Errno> {
        let meta = &self.0.tree.state().nodes[&self.0.inode].meta;
        Ok((meta.inode, meta.device))
    }

    fn list(&self, _: &mut ListBuffer) -> Result<Listing, Errno> {
        let names: Vec<_> = {
            let state = self.0.tree.call(&self.0.path, Call::List)?;
            state.nodes[&self.0.inode].entries.keys().cloned().collect()
        };
        let mut listing = Listing::default();
        for name in names {
            let examined = self.0.tree.call(&self.0.path_of(&name), Call::Examine);
            let examined = examined.and_then(|state| Ok(state.meta(state.child(self.0.inode, &name)?)));
            match examined {
                Ok((kind, meta)) => listing.entries.push(Entry {
                    name,
                    kind,
                    meta,
                    content: Content::None,
                }),
                Err(Errno::NOENT) => {}
                Err(errno) => listing.failed.push((name, errno)),
            }
        }
        Ok(listing)
    }

    fn open_folder(&self, name: &[u8]) -> Result<Box<dyn Folder>, Errno> {
        let path = self.0.path_of(name);
        let state = self.0.tree.call(&path, Call::OpenFolder)?;
        let inode = state.child(self.0.inode, name)?;
        folder(&state, Handle::new(&self.0.tree, &path, inode))
    }

    fn open_file(&self, name: &[u8]) -> Result<Box<dyn OpenFile>, Errno> {
        let path = self.0.path_of(name);
        let state = self.0.tree.call(&path, Call::OpenFile)?;
        let inode = state.child(self.0.inode, name)?;
        drop(state);
        self.0.tree.opened(&path, inode)
    }

    fn read_link(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let state = self.0.tree.call(&self.0.path_of(name), Call::ReadLink)?;
        read_link(&state.nodes[&state.child(self.0.inode, name)?])
    }

    fn xattrs(&self, name: &[u8]) -> Result<Xattrs, Errno> {
        let state = self.0.tree.call(&self.0.path_of(name), Call::Xattrs)?;
        let inode = match name {
            b"." => self.0.inode,
            name => state.child(self.0.inode, name)?,
        };
        let (found, unread) = (state.xattrs(inode), Vec::new());
        Ok(Xattrs { found, unread })
    }
}

struct MemoryFile(Handle);

impl OpenFile for MemoryFile {
    fn stat(&self) -> io::Result<FileStat> {
        let state = self.0.tree.call(&self.0.path, Call::Stat)?;
        let (kind, meta) = state.meta(self.0.inode);
        let bytes_stored = meta.size;
        Ok(FileStat {
            kind,
            meta,
            bytes_stored,
        })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.0.tree.call(&self.0.path, Call::Read)?;
        let node = &state.nodes[&self.0.inode];
        if node.kind == EntryKind::Directory {
            return Err(Errno::ISDIR.into());
        }
        let rest = node.content.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len()).min(state.read_bytes_max);
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn read_start(&self, limit: usize) -> io::Result<Vec<u8>> {
        let (mut bytes, mut len) = (vec![0; limit], 0);
        while len < limit {
            match self.read_at(&mut bytes[len..], len as u64)? {
                0 => break,
                more => len += more,
            }
        }
        bytes.truncate(len);
        Ok(bytes)
    }

    fn next_data(&self, _: u64) -> io::Result<Next> {
        Ok(Next::Unknown)
    }

    fn next_hole(&self, _: u64) -> io::Result<Next> {
        Ok(Next::Unknown)
    }

    fn xattrs(&self) -> Vec<Xattr> {
        self.0.tree.state().xattrs(self.0.inode)
    }
}
