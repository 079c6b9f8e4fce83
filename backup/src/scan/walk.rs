//! The walk: threads that share a stack of directories, list each, and compare what its fingerprint does not settle.

use std::collections::HashSet;
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use database::{Db, DbError};
use proto::log_record::{EntryKind, Meta};
use proto::record::PATH_BYTES_MAX;
use rustix::fs::CWD;
use rustix::io::Errno;

use super::absent::{fail_entry, unlisted};
use super::compare::{Comparison, Staged, compare};
use super::filter::Filtered;
use super::fingerprint::{Hash, Known, KnownDirectory, fingerprint, path_hash};
use super::listing::{DENTS_BUFFER_BYTES, Listing, examine, examine_open, list, open_directory};
use super::outcome::{Delta, Outcome};
use super::{FailureKind, ScanOptions, details, filter};
use crate::catalog::tree::{covers, rows};
use crate::exclude::FolderRules;
use crate::long_path;

/// Threads. Measured: getdents and statx on a warm cache scale to two, then wait for each other's directory locks.
const THREADS: usize = 2;
/// Directories kept open for their children; beyond it children are opened by path. Chosen: a quarter of the usual limit.
const OPEN_DIRECTORIES_MAX: usize = 256;
/// Directories between two calls of `progress`.
const PROGRESS_EVERY: u64 = 64;

/// A directory to be walked.
pub(super) struct Task {
    pub id: i64,
    pub parent: i64,
    pub path: Vec<u8>,
    pub hash: Hash,
    pub known: Option<KnownDirectory>,
    /// Its inode and device when it was listed: what is opened must be it.
    pub identity: (u64, u64),
    /// Device of the root it is under.
    pub root_device: u64,
    /// It was named to be scanned.
    pub is_root: bool,
    /// Another file system than that of its parent begins here.
    pub is_mount_point: bool,
    /// How much of it belongs to the snapshot.
    pub reach: Reach,
    pub above: Option<Arc<OpenDirectory>>,
    pub folder_rules: Option<Arc<FolderRules>>,
}

/// How much of a directory belongs to the snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// Everything.
    Whole,
    /// What leads to roots that were named, too: a file system begins above that is left out otherwise.
    Nested,
    /// Nothing but itself: a file system begins that is left out.
    Nothing,
}

/// A directory kept open for its children.
pub(super) struct OpenDirectory {
    fd: OwnedFd,
    open: Arc<AtomicUsize>,
}

impl Drop for OpenDirectory {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the threads share.
pub(super) struct Walk<'a> {
    pub db: &'a Db,
    pub options: &'a ScanOptions,
    pub known: &'a Known,
    pub next_id: AtomicI64,
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
    /// Device and inode of this program's own state.
    own_state: Vec<(u64, u64)>,
    files: AtomicU64,
    directories: AtomicU64,
    open: Arc<AtomicUsize>,
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Default)]
struct Work {
    tasks: Vec<Task>,
    /// Tasks that are being worked on, and may bring more.
    active: usize,
    stopped: bool,
}

/// Working space of one thread.
struct Buffers {
    dents: Vec<MaybeUninit<u8>>,
    fingerprint: Vec<u8>,
}

impl<'a> Walk<'a> {
    pub fn new(
        db: &'a Db,
        options: &'a ScanOptions,
        known: &'a Known,
        progress: &'a (dyn Fn(u64, u64) + Sync),
    ) -> Self {
        Self {
            db,
            options,
            known,
            next_id: AtomicI64::new(known.next_id),
            progress,
            own_state: identities(&options.own_state),
            files: AtomicU64::new(0),
            directories: AtomicU64::new(0),
            open: Arc::default(),
            work: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// The directory with this path hash, and the id it has or gets.
    pub fn identify(&self, hash: &Hash) -> (i64, Option<KnownDirectory>) {
        match self.known.get(hash) {
            Some(known) => (known.id, Some(*known)),
            None => (self.next_id.fetch_add(1, Ordering::Relaxed), None),
        }
    }

    /// Whether a directory is this program's own state.
    pub fn is_own_state(&self, meta: &Meta) -> bool {
        self.own_state.contains(&(meta.device, meta.inode))
    }

    /// Walks everything at and below `tasks`; into the directories of `nested`, whatever file system they begin.
    pub fn run(&self, tasks: Vec<Task>, nested: &HashSet<Vec<u8>>) -> Result<Outcome, DbError> {
        self.lock().tasks = tasks;
        let mut all = Outcome::default();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| self.worker(nested))).collect();
            let mut result = Ok(());
            for thread in threads {
                match thread.join() {
                    Ok(Ok(outcome)) => all.merge(outcome),
                    Ok(Err(error)) => result = Err(error),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            result
        })?;
        Ok(all)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn worker(&self, nested: &HashSet<Vec<u8>>) -> Result<Outcome, DbError> {
        // A thread that leaves early, even by a panic, must not leave the other waiting.
        let _stop = StopOnDrop(self);
        let mut outcome = Outcome::default();
        let mut buffers = Buffers {
            dents: vec![MaybeUninit::uninit(); DENTS_BUFFER_BYTES],
            fingerprint: Vec::new(),
        };
        while let Some(task) = self.take() {
            let children = self.visit(task, nested, &mut buffers, &mut outcome)?;
            let mut work = self.lock();
            work.tasks.extend(children);
            work.active -= 1;
            self.changed.notify_all();
        }
        Ok(outcome)
    }

    fn take(&self) -> Option<Task> {
        let mut work = self.lock();
        loop {
            if work.stopped {
                return None;
            }
            if let Some(task) = work.tasks.pop() {
                work.active += 1;
                return Some(task);
            }
            if work.active == 0 {
                return None;
            }
            work = self.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn visit(
        &self,
        task: Task,
        nested: &HashSet<Vec<u8>>,
        buffers: &mut Buffers,
        outcome: &mut Outcome,
    ) -> Result<Vec<Task>, DbError> {
        if task.reach == Reach::Nothing {
            self.close(&task, outcome)?;
            return Ok(Vec::new());
        }
        let listed = open(&task).and_then(|fd| Ok((list(&fd, &mut buffers.dents)?, fd)));
        let (mut listing, fd) = match listed {
            Ok(listed) => listed,
            // It vanished, or is another one now: the next scan sees what became of it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !task.is_root => {
                outcome.passed_over.push(task.path);
                return Ok(Vec::new());
            }
            Err(reason) => {
                self.keep(&task, FailureKind::Unreadable, unlisted(reason), outcome)?;
                return Ok(Vec::new());
            }
        };
        outcome.roots_known += usize::from(task.is_root);
        if task.reach == Reach::Nested {
            let leads = |name: &[u8]| leads_to(nested, &rows::join(&task.path, name));
            listing.entries.retain(|entry| leads(&entry.name));
        }
        if let Some(reason) = self.emptied(&task, &listing)? {
            let name = task.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            outcome.withheld.push((task.parent, name.to_vec()));
            self.keep(&task, FailureKind::Emptied, reason, outcome)?;
            return Ok(Vec::new());
        }
        let filtered = filter::apply(self, &task, &fd, &mut listing, outcome);
        if task.is_mount_point != self.known.mount_points.contains(&task.id) {
            outcome.mount_points.push((task.id, task.is_mount_point));
        }
        let print = fingerprint(task.identity.1, task.identity.0, &listing, &mut buffers.fingerprint);
        let files = self.count(&task.path, &listing, outcome);
        let children = self.children(&task, fd, &filtered, &listing, nested, outcome);
        if task.known.is_some_and(|known| known.fingerprint == Some(print)) {
            outcome.files_unmodified += files;
            self.say_lacking(&task, |_| true, outcome);
        } else {
            self.compare(&task, &children.fd, listing, print, &filtered, outcome)?;
        }
        Ok(children.tasks)
    }

    /// Counts what was seen, and names what could not be. Returns how many are no directories.
    fn count(&self, path: &[u8], listing: &Listing, outcome: &mut Outcome) -> u64 {
        let files = listing
            .entries
            .iter()
            .filter(|entry| entry.kind != EntryKind::Directory);
        let regular = listing.entries.iter().filter(|entry| entry.kind == EntryKind::File);
        let (files, bytes): (u64, u64) = (files.count() as u64, regular.map(|entry| entry.meta.size).sum());
        outcome.files += files;
        outcome.bytes += bytes;
        for (name, reason) in &listing.failed {
            fail_entry(rows::join(path, name), *reason, outcome);
        }
        let files_seen = self.files.fetch_add(files, Ordering::Relaxed) + files;
        let directories_seen = self.directories.fetch_add(1, Ordering::Relaxed) + 1;
        if directories_seen.is_multiple_of(PROGRESS_EVERY) {
            (self.progress)(files_seen, directories_seen);
        }
        files
    }

    /// Tells the totals that were seen.
    pub fn report(&self) {
        (self.progress)(
            self.files.load(Ordering::Relaxed),
            self.directories.load(Ordering::Relaxed),
        );
    }

    fn children(
        &self,
        task: &Task,
        fd: OwnedFd,
        filtered: &Filtered,
        listing: &Listing,
        nested: &HashSet<Vec<u8>>,
        outcome: &mut Outcome,
    ) -> Children {
        self.open.fetch_add(1, Ordering::Relaxed);
        let above = Arc::new(OpenDirectory {
            fd,
            open: self.open.clone(),
        });
        let keep_open = self.open.load(Ordering::Relaxed) <= OPEN_DIRECTORIES_MAX;
        let mut tasks = Vec::new();
        for entry in listing
            .entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::Directory)
        {
            let path = rows::join(&task.path, &entry.name);
            if path.len() > PATH_BYTES_MAX {
                let reason = format!("Its path is longer than {PATH_BYTES_MAX} bytes: what is in it is not saved");
                outcome.fail(path, FailureKind::TooLong, reason);
                continue;
            }
            let hash = path_hash(&task.hash, &entry.name);
            let (id, known) = self.identify(&hash);
            let device = entry.meta.device;
            let is_root = nested.contains(&path);
            let leaves = self.options.one_file_system && device != task.root_device;
            let reach = match task.reach {
                _ if is_root => Reach::Whole,
                Reach::Whole if !leaves => Reach::Whole,
                _ if leads_to(nested, &path) => Reach::Nested,
                _ => Reach::Nothing,
            };
            tasks.push(Task {
                id,
                parent: task.id,
                path,
                hash,
                known,
                identity: (entry.meta.inode, device),
                root_device: if is_root { device } else { task.root_device },
                is_root,
                is_mount_point: device != task.identity.1,
                reach,
                above: keep_open.then(|| above.clone()),
                folder_rules: filtered.folder_rules.clone(),
            });
        }
        Children { tasks, fd: above }
    }

    fn compare(
        &self,
        task: &Task,
        directory: &OpenDirectory,
        listing: Listing,
        print: Hash,
        filtered: &Filtered,
        outcome: &mut Outcome,
    ) -> Result<(), DbError> {
        let current = match task.known {
            Some(known) => self.db.read(|conn| rows::current(conn, known.id))?,
            None => Vec::new(),
        };
        let mut is_settled = listing.failed.is_empty();
        let mut found = compare(listing, current);
        is_settled &= self.keep_unmounted(task, filtered, &mut found, outcome)?;
        is_settled &= complete(task, directory, &mut found, outcome);
        found.set.shrink_to_fit();
        if !self.lacking(task).is_empty() {
            let as_they_were: HashSet<&[u8]> = found.unmodified.iter().map(|row| row.entry.name.as_slice()).collect();
            self.say_lacking(task, |name| as_they_were.contains(name), outcome);
        }
        let ended = outcome.count(task.id, &task.path, &mut found);
        outcome
            .deltas
            .push(delta(task, is_settled.then_some(print), found.set, ended));
        Ok(())
    }
}

/// Completes the staged entries. What is out of reach stays as it is known; returns whether there was nothing such.
fn complete(task: &Task, directory: &OpenDirectory, found: &mut Comparison, outcome: &mut Outcome) -> bool {
    let mut is_settled = true;
    for mut staged in std::mem::take(&mut found.set) {
        match details::complete(&directory.fd, &mut staged.entry) {
            Ok(lacks) => {
                if let Some(reason) = lacks {
                    outcome.lack(
                        task.id,
                        rows::join(&task.path, &staged.entry.name),
                        &staged.entry.name,
                        reason,
                    );
                }
                found.set.push(staged);
            }
            Err(reason) => {
                is_settled = false;
                if reason != Errno::NOENT {
                    fail_entry(rows::join(&task.path, &staged.entry.name), reason, outcome);
                }
                found.retract(&staged.entry.name);
            }
        }
    }
    is_settled
}

pub(super) fn delta(task: &Task, fingerprint: Option<Hash>, set: Vec<Staged>, ended: Vec<Vec<u8>>) -> Delta {
    Delta {
        id: task.id,
        parent: task.parent,
        path: task.path.clone(),
        is_new: task.known.is_none(),
        marks: task.known.map_or(0, |known| known.marks),
        fingerprint,
        set,
        ended,
    }
}

struct Children {
    tasks: Vec<Task>,
    fd: Arc<OpenDirectory>,
}

struct StopOnDrop<'a, 'b>(&'a Walk<'b>);

impl Drop for StopOnDrop<'_, '_> {
    fn drop(&mut self) {
        // A thread that found no work left does no harm here: there is none for the other either.
        self.0.lock().stopped = true;
        self.0.changed.notify_all();
    }
}

/// Opens the directory of a task, and makes sure that it is the one that was listed.
fn open(task: &Task) -> Result<OwnedFd, Errno> {
    let name = task.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let fd = match &task.above {
        Some(above) => open_directory(&above.fd, name)?,
        None => {
            let reached = long_path::reach(&task.path)?;
            open_directory(reached.above(), reached.rest.as_c_str())?
        }
    };
    let (_, meta) = examine_open(&fd)?;
    if (meta.inode, meta.device) == task.identity {
        Ok(fd)
    } else {
        Err(Errno::STALE)
    }
}

/// Whether any of these is at or below `path`.
fn leads_to(nested: &HashSet<Vec<u8>>, path: &[u8]) -> bool {
    nested.iter().any(|root| covers(path, root))
}

/// Device and inode of folders, where they are there.
fn identities(folders: &[PathBuf]) -> Vec<(u64, u64)> {
    let examined = folders.iter().filter_map(|folder| {
        let folder = std::fs::canonicalize(folder).ok()?;
        let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
        let (_, meta) = examine(CWD, &path).ok()?;
        Some((meta.device, meta.inode))
    });
    examined.collect()
}
