//! What the walkers found, to be recorded in one transaction.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use proto::log_record::{Content, EntryKind, Meta};

use super::compare::{Comparison, Staged};
use super::fingerprint::Hash;
use super::{FailureKind, ScanError, ScanFailure};
use crate::catalog::tree::rows::EntryRow;

/// What is to be recorded for one directory.
#[derive(Debug)]
pub(super) struct Delta {
    pub id: i64,
    pub parent: i64,
    pub path: Vec<u8>,
    /// It has no row yet.
    pub is_new: bool,
    /// `marks` of its row when the scan began.
    pub marks: i64,
    /// To be stored; `None` if it is to be looked at again, or only some of its entries were looked at.
    pub fingerprint: Option<Hash>,
    pub set: Vec<Staged>,
    /// Names whose current row ends.
    pub ended: Vec<Vec<u8>>,
}

impl Delta {
    /// The last component of its path; empty for `/`.
    pub fn name(&self) -> &[u8] {
        self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }
}

/// What makes a regular file the same one under another name. ctime is in it, which a rename of the file itself moves
/// but the rename of a folder above does not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct FileKey {
    device: u64,
    inode: u64,
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
}

impl From<&Meta> for FileKey {
    fn from(meta: &Meta) -> Self {
        Self {
            device: meta.device,
            inode: meta.inode,
            size: meta.size,
            mtime_ns: meta.mtime_ns,
            ctime_ns: meta.ctime_ns,
        }
    }
}

/// A file that ended in this scan: where a moved one may have come from.
#[derive(Clone, Debug)]
pub(super) struct OldName {
    pub directory: i64,
    pub directory_path: Vec<u8>,
    pub row: EntryRow,
}

/// Everything that one walker, or all, found.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub deltas: Vec<Delta>,
    pub old_names: HashMap<FileKey, OldName>,
    /// Content of files with several links that are as they were, by device and inode.
    pub links: HashMap<(u64, u64), Content>,
    /// Directories that have gone, by parent and name: all below them has too.
    pub gone_directories: Vec<(i64, Vec<u8>, Vec<u8>)>,
    pub failed: Vec<ScanFailure>,
    /// Directories that were another thing a moment later: nothing is known of what is in them.
    pub passed_over: Vec<Vec<u8>>,
    /// Folders in which a store was left out.
    pub stores: Vec<PathBuf>,
    /// What no rule leaves out and is left out: this program's own state, shares in stores.
    pub left_out: Vec<Vec<u8>>,
    /// Entries that are recorded without something, and why, by directory and name.
    pub lacking: Vec<(i64, Vec<u8>, String)>,
    /// Directories that are mount points now and were none, or the other way round.
    pub mount_points: Vec<(i64, bool)>,
    /// Entries, by directory and name, that stay as they were although they were staged: mount points of what is not
    /// mounted now.
    pub withheld: Vec<(i64, Vec<u8>)>,
    /// Roots that were looked at, or of which something is known.
    pub roots_known: usize,
    pub files_new: u64,
    pub files_changed: u64,
    pub files_unmodified: u64,
    pub files_gone: u64,
    pub files: u64,
    pub bytes: u64,
}

impl Outcome {
    pub fn merge(&mut self, other: Self) {
        self.deltas.extend(other.deltas);
        self.old_names.extend(other.old_names);
        self.links.extend(other.links);
        self.gone_directories.extend(other.gone_directories);
        self.failed.extend(other.failed);
        self.passed_over.extend(other.passed_over);
        self.stores.extend(other.stores);
        self.left_out.extend(other.left_out);
        self.lacking.extend(other.lacking);
        self.mount_points.extend(other.mount_points);
        self.withheld.extend(other.withheld);
        self.roots_known += other.roots_known;
        self.files_new += other.files_new;
        self.files_changed += other.files_changed;
        self.files_unmodified += other.files_unmodified;
        self.files_gone += other.files_gone;
        self.files += other.files;
        self.bytes += other.bytes;
    }

    /// Something is not in the snapshot as it is.
    pub fn fail(&mut self, path: Vec<u8>, kind: FailureKind, reason: impl Into<String>) {
        let path = PathBuf::from(OsString::from_vec(path));
        let reason = reason.into();
        self.failed.push(ScanFailure { path, kind, reason });
    }

    /// An entry is recorded without something.
    pub fn lack(&mut self, directory: i64, path: Vec<u8>, name: &[u8], reason: String) {
        self.lacking.push((directory, name.to_vec(), reason.clone()));
        self.fail(path, FailureKind::Incomplete, reason);
    }

    /// The error of a scan that found no root, and knows of none.
    pub fn nothing_was_read(&self) -> Option<ScanError> {
        let mut wrong = self
            .failed
            .iter()
            .filter(|failure| failure.kind != FailureKind::Incomplete);
        let first = wrong.next().filter(|_| self.roots_known == 0)?;
        Some(ScanError::Root {
            path: first.path.clone(),
            reason: first.reason.clone(),
        })
    }

    /// Takes back what was staged and is to stay as it was.
    pub fn withhold(&mut self) {
        for (directory, name) in std::mem::take(&mut self.withheld) {
            for delta in self.deltas.iter_mut().filter(|delta| delta.id == directory) {
                delta.set.retain(|staged| staged.entry.name != name);
                delta.ended.retain(|ended| *ended != name);
                delta.fingerprint = None;
            }
        }
    }

    /// Takes in what was found in a directory, and returns the names that end.
    pub fn count(&mut self, directory: i64, path: &[u8], found: &mut Comparison) -> Vec<Vec<u8>> {
        for row in &found.unmodified {
            self.files_unmodified += u64::from(row.entry.kind != EntryKind::Directory);
            let meta = &row.entry.meta;
            if meta.links > 1 && row.entry.kind == EntryKind::File {
                self.links.insert((meta.device, meta.inode), row.entry.content.clone());
            }
        }
        for staged in &found.set {
            match (staged.entry.kind, staged.before) {
                (EntryKind::Directory, _) => {}
                (_, None | Some(EntryKind::Directory)) => self.files_new += 1,
                (_, Some(_)) => self.files_changed += 1,
            }
        }
        let still_directories: Vec<&[u8]> = found
            .set
            .iter()
            .filter(|staged| staged.entry.kind == EntryKind::Directory)
            .map(|staged| staged.entry.name.as_slice())
            .collect();
        for row in &found.replaced {
            let is_directory = row.entry.kind == EntryKind::Directory;
            let stays = still_directories.binary_search(&row.entry.name.as_slice()).is_ok();
            if is_directory && !stays {
                self.gone_directories
                    .push((directory, path.to_vec(), row.entry.name.clone()));
            }
            self.files_gone += u64::from(!is_directory && stays);
        }
        for row in &found.gone {
            match row.entry.kind {
                EntryKind::Directory => {
                    self.gone_directories
                        .push((directory, path.to_vec(), row.entry.name.clone()));
                }
                _ => self.files_gone += 1,
            }
        }
        let mut ended = Vec::new();
        for row in found.replaced.drain(..).chain(found.gone.drain(..)) {
            ended.push(row.entry.name.clone());
            self.offer(directory, path, row);
        }
        ended
    }

    /// Remembers a file that ended as one that may have moved.
    pub fn offer(&mut self, directory: i64, directory_path: &[u8], row: EntryRow) {
        let known = !matches!(row.entry.content, Content::None);
        if row.entry.kind == EntryKind::File && known && !row.suspect {
            let key = FileKey::from(&row.entry.meta);
            let directory_path = directory_path.to_vec();
            self.old_names.insert(
                key,
                OldName {
                    directory,
                    directory_path,
                    row,
                },
            );
        }
    }
}
