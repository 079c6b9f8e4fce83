//! The walk: threads that share a stack of directories, list each, and compare what its fingerprint does not settle.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use proto::log_record::{Entry, EntryKind};
use rustix::io::Errno;
use upload_queue::db::{Db, DbError};

use super::compare::compare;
use super::fingerprint::{Hash, Known, KnownDirectory, fingerprint, path_hash};
use super::listing::{DENTS_BUFFER_BYTES, Listing, examine_open, list, open_directory};
use super::outcome::{Delta, Outcome};
use super::{ScanFailure, ScanOptions, details, filter};
use crate::catalog::tree::rows;
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
    /// A root that cannot be listed fails the whole scan.
    pub is_root: bool,
    pub above: Option<Arc<OpenDirectory>>,
    pub folder_rules: Option<Arc<FolderRules>>,
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

/// Why a walk cannot go on.
#[derive(Debug)]
pub(super) enum WalkError {
    Root { path: Vec<u8>, reason: Errno },
    Db(DbError),
}

impl From<DbError> for WalkError {
    fn from(error: DbError) -> Self {
        Self::Db(error)
    }
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

    /// Walks everything at and below `tasks`.
    pub fn run(&self, tasks: Vec<Task>) -> Result<Outcome, WalkError> {
        self.lock().tasks = tasks;
        let mut all = Outcome::default();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| self.worker())).collect();
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

    fn worker(&self) -> Result<Outcome, WalkError> {
        // A thread that leaves early, even by a panic, must not leave the other waiting.
        let _stop = StopOnDrop(self);
        let mut outcome = Outcome::default();
        let mut buffers = Buffers {
            dents: vec![MaybeUninit::uninit(); DENTS_BUFFER_BYTES],
            fingerprint: Vec::new(),
        };
        while let Some(task) = self.take() {
            let children = self.visit(task, &mut buffers, &mut outcome)?;
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

    fn visit(&self, task: Task, buffers: &mut Buffers, outcome: &mut Outcome) -> Result<Vec<Task>, WalkError> {
        let listed = open(&task).and_then(|fd| Ok((list(&fd, &mut buffers.dents)?, fd)));
        let (mut listing, fd) = match listed {
            Ok(listed) => listed,
            Err(reason) if task.is_root => {
                return Err(WalkError::Root {
                    path: task.path,
                    reason,
                });
            }
            // It vanished, or is another one now: the next scan sees what became of it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE) => {
                outcome.passed_over.push(task.path);
                return Ok(Vec::new());
            }
            Err(reason) => {
                outcome.failed.push(failure(task.path, reason));
                self.keep_known(task.known, outcome)?;
                return Ok(Vec::new());
            }
        };
        let folder_rules = filter::apply(&self.options.rules, &task, &fd, &mut listing);
        let print = fingerprint(task.identity.1, task.identity.0, &listing, &mut buffers.fingerprint);
        let files = self.count(&task.path, &listing, outcome);
        let children = self.children(&task, fd, folder_rules, &listing);
        if task.known.is_some_and(|known| known.fingerprint == Some(print)) {
            outcome.files_unmodified += files;
        } else {
            let settled = listing.failed.is_empty().then_some(print);
            self.compare(&task, &children.fd, listing, settled, outcome)?;
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
            outcome.failed.push(failure(rows::join(path, name), *reason));
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

    /// A directory that cannot be listed keeps what is known of it and of all below.
    fn keep_known(&self, known: Option<KnownDirectory>, outcome: &mut Outcome) -> Result<(), DbError> {
        let mut pending: Vec<i64> = known.iter().map(|known| known.id).collect();
        while let Some(id) = pending.pop() {
            let (current, below) = self
                .db
                .read(|conn| Ok::<_, DbError>((rows::current(conn, id)?, rows::child_directories(conn, id)?)))?;
            for row in current.iter().filter(|row| row.entry.kind != EntryKind::Directory) {
                outcome.files += 1;
                outcome.files_unmodified += 1;
                outcome.bytes += if row.entry.kind == EntryKind::File {
                    row.entry.meta.size
                } else {
                    0
                };
            }
            pending.extend(below);
        }
        Ok(())
    }

    fn children(
        &self,
        task: &Task,
        fd: OwnedFd,
        folder_rules: Option<Arc<FolderRules>>,
        listing: &Listing,
    ) -> Children {
        self.open.fetch_add(1, Ordering::Relaxed);
        let above = Arc::new(OpenDirectory {
            fd,
            open: self.open.clone(),
        });
        let keep_open = self.open.load(Ordering::Relaxed) <= OPEN_DIRECTORIES_MAX;
        let enters = |entry: &&Entry| {
            let same_device = entry.meta.device == task.root_device;
            entry.kind == EntryKind::Directory && (same_device || !self.options.one_file_system)
        };
        let tasks = listing.entries.iter().filter(enters).map(|entry| {
            let hash = path_hash(&task.hash, &entry.name);
            let (id, known) = self.identify(&hash);
            Task {
                id,
                parent: task.id,
                path: rows::join(&task.path, &entry.name),
                hash,
                known,
                identity: (entry.meta.inode, entry.meta.device),
                root_device: task.root_device,
                is_root: false,
                above: keep_open.then(|| above.clone()),
                folder_rules: folder_rules.clone(),
            }
        });
        Children {
            tasks: tasks.collect(),
            fd: above.clone(),
        }
    }

    fn compare(
        &self,
        task: &Task,
        directory: &OpenDirectory,
        listing: Listing,
        fingerprint: Option<Hash>,
        outcome: &mut Outcome,
    ) -> Result<(), DbError> {
        let current = match task.known {
            Some(known) => self.db.read(|conn| rows::current(conn, known.id))?,
            None => Vec::new(),
        };
        let mut found = compare(listing, current);
        found.set.shrink_to_fit();
        let ended = outcome.count(task.id, &task.path, &mut found);
        for staged in &mut found.set {
            details::complete(&directory.fd, &mut staged.entry);
        }
        outcome.deltas.push(Delta {
            id: task.id,
            parent: task.parent,
            path: task.path.clone(),
            is_new: task.known.is_none(),
            marks: task.known.map_or(0, |known| known.marks),
            fingerprint,
            set: found.set,
            ended,
        });
        Ok(())
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

pub(super) fn failure(path: Vec<u8>, reason: Errno) -> ScanFailure {
    let path = PathBuf::from(std::ffi::OsString::from_vec(path));
    ScanFailure {
        path,
        reason: std::io::Error::from(reason).to_string(),
    }
}
