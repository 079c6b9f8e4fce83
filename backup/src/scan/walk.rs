//! The walk: threads that share a stack of directories, list each, and compare what its fingerprint does not settle.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use database::DbError;
use proto::log_record::EntryKind;
use proto::record::PATH_BYTES_MAX;
use rustix::io::Errno;

use super::absent::{fail_entry, unlisted};
use super::compare::{Comparison, compare};
use super::filter::Filtered;
use super::fingerprint::{Hash, fingerprint, path_hash};
use super::outcome::Outcome;
use super::task::{OpenDirectory, Reach, Scan, Task, delta};
use super::{FailureKind, filter};
use crate::catalog::tree::{covers, rows};
use crate::source::{Folder, ListBuffer, Listing, Source, details};

/// Threads. Measured: getdents and statx on a warm cache scale to two, then wait for each other's directory locks.
const THREADS: usize = 2;
/// Directories kept open for their children; beyond it children are opened by path. Chosen: a quarter of the usual limit.
const OPEN_DIRECTORIES_MAX: usize = 256;
/// Directories between two calls of `progress`.
const PROGRESS_EVERY: u64 = 64;

/// What the threads share.
pub(super) struct Walk<'a> {
    scan: &'a Scan<'a>,
    progress: &'a (dyn Fn(u64, u64) + Sync),
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
    listing: ListBuffer,
    fingerprint: Vec<u8>,
}

impl<'a> Walk<'a> {
    pub fn new(scan: &'a Scan<'a>, progress: &'a (dyn Fn(u64, u64) + Sync)) -> Self {
        Self {
            scan,
            progress,
            files: AtomicU64::new(0),
            directories: AtomicU64::new(0),
            open: Arc::default(),
            work: Mutex::default(),
            changed: Condvar::new(),
        }
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
            listing: ListBuffer::new(),
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
            self.scan.close(&task, outcome)?;
            return Ok(Vec::new());
        }
        let listed = open(self.scan.source, &task).and_then(|folder| Ok((folder.list(&mut buffers.listing)?, folder)));
        let (mut listing, folder) = match listed {
            Ok(listed) => listed,
            // It vanished, or is another one now: the next scan sees what became of it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !task.is_root => {
                outcome.passed_over.push(task.path);
                return Ok(Vec::new());
            }
            Err(reason) => {
                self.scan
                    .keep(&task, FailureKind::Unreadable, unlisted(reason), outcome)?;
                return Ok(Vec::new());
            }
        };
        outcome.roots_known += usize::from(task.is_root);
        if task.reach == Reach::Nested {
            let leads = |name: &[u8]| leads_to(nested, &rows::join(&task.path, name));
            listing.entries.retain(|entry| leads(&entry.name));
        }
        if let Some(reason) = self.scan.emptied(&task, &listing)? {
            let name = task.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            outcome.withheld.push((task.parent, name.to_vec()));
            self.scan.keep(&task, FailureKind::Emptied, reason, outcome)?;
            return Ok(Vec::new());
        }
        let filtered = filter::apply(self.scan, &task, folder.as_ref(), &mut listing, outcome);
        if task.is_mount_point != self.scan.known.mount_points.contains(&task.id) {
            outcome.mount_points.push((task.id, task.is_mount_point));
        }
        let print = fingerprint(task.identity.1, task.identity.0, &listing, &mut buffers.fingerprint);
        let files = self.count(&task.path, &listing, outcome);
        let children = self.children(&task, folder, &filtered, &listing, nested, outcome);
        if task.known.is_some_and(|known| known.fingerprint == Some(print)) {
            outcome.files_unmodified += files;
            self.scan.say_lacking(&task, |_| true, outcome);
        } else {
            self.compare(&task, &children.directory, listing, print, &filtered, outcome)?;
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
        folder: Box<dyn Folder>,
        filtered: &Filtered,
        listing: &Listing,
        nested: &HashSet<Vec<u8>>,
        outcome: &mut Outcome,
    ) -> Children {
        self.open.fetch_add(1, Ordering::Relaxed);
        let above = Arc::new(OpenDirectory {
            folder,
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
            let (id, known) = self.scan.identify(&hash);
            let device = entry.meta.device;
            let is_root = nested.contains(&path);
            let leaves = self.scan.options.one_file_system && device != task.root_device;
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
        Children {
            tasks,
            directory: above,
        }
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
            Some(known) => self.scan.db.read(|conn| rows::current(conn, known.id))?,
            None => Vec::new(),
        };
        let mut is_settled = listing.failed.is_empty();
        let mut found = compare(listing, current);
        is_settled &= self.scan.keep_unmounted(task, filtered, &mut found, outcome)?;
        is_settled &= complete(self.scan.source, task, directory, &mut found, outcome);
        found.set.shrink_to_fit();
        if !self.scan.lacking(task).is_empty() {
            let as_they_were: HashSet<&[u8]> = found.unmodified.iter().map(|row| row.entry.name.as_slice()).collect();
            self.scan.say_lacking(task, |name| as_they_were.contains(name), outcome);
        }
        let ended = outcome.count(task.id, &task.path, &mut found);
        outcome
            .deltas
            .push(delta(task, is_settled.then_some(print), found.set, ended));
        Ok(())
    }
}

/// Completes the staged entries. What is out of reach stays as it is known; returns whether there was nothing such.
fn complete(
    source: &dyn Source,
    task: &Task,
    directory: &OpenDirectory,
    found: &mut Comparison,
    outcome: &mut Outcome,
) -> bool {
    let mut is_settled = true;
    for mut staged in std::mem::take(&mut found.set) {
        match details::complete(source, directory.folder.as_ref(), &mut staged.entry) {
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

struct Children {
    tasks: Vec<Task>,
    directory: Arc<OpenDirectory>,
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
fn open(source: &dyn Source, task: &Task) -> Result<Box<dyn Folder>, Errno> {
    let name = task.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let folder = match &task.above {
        Some(above) => above.folder.open_folder(name)?,
        None => source.open_folder(&task.path)?,
    };
    if folder.identity()? == task.identity {
        Ok(folder)
    } else {
        Err(Errno::STALE)
    }
}

/// Whether any of these is at or below `path`.
fn leads_to(nested: &HashSet<Vec<u8>>, path: &[u8]) -> bool {
    nested.iter().any(|root| covers(path, root))
}
