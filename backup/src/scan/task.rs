//! A scan before it begins, and its pieces of work: one directory each.
//!
//! The walk, the roots, what is left out and what is absent are written on these, and know nothing of threads.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use database::Db;
use proto::log_record::Meta;

use super::ScanOptions;
use super::compare::Staged;
use super::fingerprint::{Hash, Known, KnownDirectory};
use super::outcome::Delta;
use crate::exclude::FolderRules;
use crate::source::{Folder, Source};

/// What is to be scanned, and what is known of it from before.
pub(super) struct Scan<'a> {
    pub source: &'a dyn Source,
    pub db: &'a Db,
    pub options: &'a ScanOptions,
    pub known: &'a Known,
    next_id: AtomicI64,
    /// Device and inode of this program's own state.
    own_state: Vec<(u64, u64)>,
}

impl<'a> Scan<'a> {
    pub fn new(source: &'a dyn Source, db: &'a Db, options: &'a ScanOptions, known: &'a Known) -> Self {
        Self {
            source,
            db,
            options,
            known,
            next_id: AtomicI64::new(known.next_id),
            own_state: identities(source, &options.own_state),
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
}

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
    pub folder: Box<dyn Folder>,
    /// How many are open.
    pub open: Arc<AtomicUsize>,
}

impl Drop for OpenDirectory {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is to be recorded for the directory of a task.
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

/// Device and inode of folders, where they are there.
fn identities(source: &dyn Source, folders: &[PathBuf]) -> Vec<(u64, u64)> {
    let examined = folders.iter().filter_map(|folder| {
        let folder = source.canonicalize(folder).ok()?;
        let (_, meta) = source.examine(folder.as_os_str().as_bytes()).ok()?;
        Some((meta.device, meta.inode))
    });
    examined.collect()
}
