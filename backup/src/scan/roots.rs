//! Roots: what the user named, as real paths, and the entries on the way to them.
//!
//! An ancestor of a root is recorded so that a restore can make it again, with its owner and permissions. Its times move
//! with things that are none of this backup's business, so they alone are no change.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use proto::log_record::{Content, Entry, EntryKind, PathBytes};
use rustix::fs::CWD;
use upload_queue::db::DbError;

use super::compare::{Comparison, Staged, same};
use super::fingerprint::{Hash, KnownDirectory, path_hash};
use super::listing::examine;
use super::outcome::{Delta, Outcome};
use super::walk::{Task, Walk};
use super::{ScanError, details};
use crate::catalog::tree::covers;
use crate::catalog::tree::rows::{self, EntryRow, NOWHERE, components};

/// The real paths of the roots, sorted, without those that another one covers. A folder named by a link is the folder
/// it leads to; any other link is itself.
pub(super) fn resolve(roots: &[PathBuf]) -> Result<Vec<PathBytes>, ScanError> {
    let mut paths = Vec::new();
    for root in roots {
        let failed = |error: std::io::Error| ScanError::Root {
            path: root.clone(),
            reason: error.to_string(),
        };
        let is_directory = std::fs::metadata(root).is_ok_and(|meta| meta.is_dir());
        let real = match (is_directory, root.parent(), root.file_name()) {
            (false, Some(parent), Some(name)) => {
                let parent = if parent.as_os_str().is_empty() {
                    Path::new(".")
                } else {
                    parent
                };
                let path = std::fs::canonicalize(parent).map_err(failed)?.join(name);
                std::fs::symlink_metadata(&path).map_err(failed)?;
                path
            }
            _ => std::fs::canonicalize(root).map_err(failed)?,
        };
        paths.push(real.as_os_str().as_bytes().to_vec());
    }
    paths.sort();
    let mut kept: Vec<PathBytes> = Vec::new();
    for path in paths {
        if !kept.iter().any(|root| covers(&root.0, &path)) {
            kept.push(PathBytes(path));
        }
    }
    Ok(kept)
}

/// A directory on the way.
struct Step {
    id: i64,
    hash: Hash,
    known: Option<KnownDirectory>,
}

/// Stages the roots' own entries and those of their ancestors; returns the tasks to walk.
pub(super) fn approach(walk: &Walk<'_>, roots: &[PathBytes], outcome: &mut Outcome) -> Result<Vec<Task>, ScanError> {
    let mut steps: HashMap<Vec<u8>, Step> = HashMap::new();
    let mut deltas: BTreeMap<i64, Delta> = BTreeMap::new();
    let mut tasks = Vec::new();
    for (path, is_root) in on_the_way(roots) {
        let entry = look(&path)?;
        let (directory, parent_hash) = match parent(&path).and_then(|parent| steps.get(parent)) {
            Some(step) => (step.id, step.hash),
            None => (NOWHERE, Hash::default()),
        };
        stage(walk, &mut deltas, outcome, (directory, &path), entry.clone(), is_root)?;
        if entry.kind != EntryKind::Directory {
            continue;
        }
        let hash = path_hash(&parent_hash, &entry.name);
        let (id, known) = walk.identify(&hash);
        if is_root {
            tasks.push(Task {
                id,
                parent: directory,
                path,
                hash,
                known,
                identity: (entry.meta.inode, entry.meta.device),
                root_device: entry.meta.device,
                is_root: true,
                above: None,
                folder_rules: None,
            });
            continue;
        }
        if known.is_none() {
            deltas.insert(id, partial(id, directory, path.clone(), None));
        }
        steps.insert(path, Step { id, hash, known });
    }
    for step in steps.values() {
        if let (Some(delta), Some(known)) = (deltas.get_mut(&step.id), step.known) {
            delta.is_new = false;
            delta.marks = known.marks;
        }
    }
    let worth = |delta: &Delta| delta.is_new || !delta.set.is_empty() || !delta.ended.is_empty();
    outcome.deltas.extend(deltas.into_values().filter(worth));
    Ok(tasks)
}

fn partial(id: i64, parent: i64, path: Vec<u8>, known: Option<&KnownDirectory>) -> Delta {
    Delta {
        id,
        parent,
        path,
        is_new: known.is_none(),
        marks: known.map_or(0, |known| known.marks),
        fingerprint: None,
        set: Vec::new(),
        ended: Vec::new(),
    }
}

/// The roots and all their ancestors, parents first.
fn on_the_way(roots: &[PathBytes]) -> BTreeMap<Vec<u8>, bool> {
    let mut paths = BTreeMap::new();
    for root in roots {
        let mut path = Vec::new();
        paths.entry(b"/".to_vec()).or_insert(false);
        for name in components(&root.0) {
            path.push(b'/');
            path.extend_from_slice(name);
            paths.entry(path.clone()).or_insert(false);
        }
        paths.insert(root.0.clone(), true);
    }
    paths
}

fn parent(path: &[u8]) -> Option<&[u8]> {
    let at = path.iter().rposition(|byte| *byte == b'/')?;
    match (at, path.len()) {
        (0, 1) => None,
        (0, _) => Some(b"/"),
        (at, _) => Some(&path[..at]),
    }
}

fn look(path: &[u8]) -> Result<Entry, ScanError> {
    let failed = |reason: rustix::io::Errno| ScanError::Root {
        path: PathBuf::from(std::ffi::OsStr::from_bytes(path)),
        reason: std::io::Error::from(reason).to_string(),
    };
    let c_path = CString::new(path).map_err(|_| failed(rustix::io::Errno::INVAL))?;
    let (kind, meta) = examine(CWD, &c_path).map_err(failed)?;
    let name = components(path).next_back().unwrap_or_default().to_vec();
    Ok(Entry {
        name,
        kind,
        meta,
        content: Content::None,
    })
}

/// Compares one entry with its row, and stages it if it differs.
fn stage(
    walk: &Walk<'_>,
    deltas: &mut BTreeMap<i64, Delta>,
    outcome: &mut Outcome,
    (directory, path): (i64, &[u8]),
    mut entry: Entry,
    is_root: bool,
) -> Result<(), DbError> {
    let history = walk.db.read(|conn| rows::history(conn, directory, &entry.name))?;
    let current: Option<EntryRow> = history.into_iter().find(|row| row.until.is_none());
    if entry.kind != EntryKind::Directory {
        outcome.files += 1;
        outcome.bytes += if entry.kind == EntryKind::File {
            entry.meta.size
        } else {
            0
        };
    }
    let mut found = Comparison::default();
    match current {
        Some(row) if !row.suspect && unchanged(&row.entry, &entry, is_root) => found.unmodified.push(row),
        current => {
            let above = parent(path).unwrap_or(b"/").to_vec();
            if let Ok(fd) = super::listing::open_directory(CWD, above.as_slice())
                && !entry.name.is_empty()
            {
                details::complete(&fd, &mut entry);
            } else {
                entry.meta.xattrs = details::xattrs_at(path);
            }
            let before = current.as_ref().map(|row| row.entry.kind);
            found.set.push(Staged {
                entry,
                before,
                fresh: false,
                suspect: false,
            });
            found.replaced.extend(current);
        }
    }
    let above = parent(path).unwrap_or(b"").to_vec();
    let ended = outcome.count(directory, &above, &mut found);
    let delta = deltas.entry(directory).or_insert_with(|| {
        let mut delta = partial(directory, NOWHERE, above, None);
        delta.is_new = false;
        delta
    });
    delta.set.extend(found.set);
    delta.ended.extend(ended);
    Ok(())
}

fn unchanged(old: &Entry, new: &Entry, is_root: bool) -> bool {
    let kept = |entry: &Entry| {
        (
            entry.kind,
            entry.meta.mode,
            entry.meta.uid,
            entry.meta.gid,
            entry.meta.inode,
        )
    };
    if is_root {
        same(old, new)
    } else {
        kept(old) == kept(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_come_before_their_roots() {
        let paths = on_the_way(&[PathBytes(b"/a/b".to_vec()), PathBytes(b"/c".to_vec())]);
        let expected: [(&[u8], bool); 4] = [(b"/", false), (b"/a", false), (b"/a/b", true), (b"/c", true)];
        assert!(paths.iter().map(|(path, root)| (path.as_slice(), *root)).eq(expected));
    }

    #[test]
    fn parents_of_paths() {
        assert_eq!(parent(b"/"), None);
        assert_eq!(parent(b"/a"), Some(b"/".as_slice()));
        assert_eq!(parent(b"/a/b"), Some(b"/a".as_slice()));
    }
}
