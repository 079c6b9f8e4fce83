//! Roots: what the user named, as real paths, and the entries on the way to them.
//!
//! An ancestor of a root is recorded so that a restore can make it again, with its owner and permissions. Its times move
//! with things that are none of this backup's business, so they alone are no change.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use database::DbError;
use proto::log_record::{Content, Entry, EntryKind, PathBytes, SNAPSHOT_ROOTS_BYTES_MAX, SNAPSHOT_ROOTS_MAX};
use rustix::io::Errno;

use super::compare::{Comparison, Staged, same};
use super::fingerprint::{Hash, KnownDirectory, path_hash};
use super::outcome::{Delta, Outcome};
use super::task::{Reach, Scan, Task};
use super::{FailureKind, ScanError};
use crate::catalog::tree::rows::{EntryRow, NOWHERE, components};
use crate::catalog::tree::{covers, rows};
use crate::said::{said, said_io};
use crate::source::{Source, details};

/// What is said of a root that is this program's own.
const OWN_STATE: &str = "It is what gridbackup itself works with, which is never backed up: name another folder";
/// Links that may lead on from each other, as the kernel has it (`MAXSYMLINKS`).
const LINKS_MAX: usize = 40;

/// What is to be scanned.
pub(super) struct Roots {
    /// Real paths, sorted, without those that another one covers.
    pub paths: Vec<PathBytes>,
    /// Those that another one covers: entered even where a file system begins.
    pub nested: HashSet<Vec<u8>>,
    /// Those that are not there, and why.
    missing: BTreeMap<Vec<u8>, String>,
}

/// The real paths of the roots. A folder named by a link is the folder it leads to; any other link is itself. What is not
/// there has the path that it had when it was.
pub(super) fn resolve(source: &dyn Source, roots: &[PathBuf]) -> Roots {
    let mut missing = BTreeMap::new();
    let mut paths = Vec::new();
    for root in roots {
        let real = real_path(source, root).unwrap_or_else(|error| {
            let path = where_it_was(source, root);
            missing.insert(path.as_os_str().as_bytes().to_vec(), said_io(&error));
            path
        });
        // A link that leads nowhere is saved as itself; what it led to may be a disk that is not mounted.
        let leads_nowhere = is_link(source, &real) && source.leads_to_folder(&real).is_err();
        if leads_nowhere {
            let path = where_it_was(source, root).into_os_string().into_vec();
            missing.insert(path.clone(), "a link leads here, and nothing is there".to_owned());
            paths.push(path);
        }
        paths.push(real.into_os_string().into_vec());
    }
    paths.sort();
    paths.dedup();
    let mut kept: Vec<PathBytes> = Vec::new();
    let mut nested = HashSet::new();
    for path in paths {
        if kept.iter().any(|root| covers(&root.0, &path)) {
            nested.insert(path);
        } else {
            kept.push(PathBytes(path));
        }
    }
    Roots {
        paths: kept,
        nested,
        missing,
    }
}

fn is_link(source: &dyn Source, path: &Path) -> bool {
    let found = source.examine(path.as_os_str().as_bytes());
    found.is_ok_and(|(kind, _)| kind == EntryKind::Symlink)
}

fn real_path(source: &dyn Source, root: &Path) -> std::io::Result<PathBuf> {
    let is_directory = source.leads_to_folder(root).unwrap_or(false);
    let (false, Some(parent), Some(name)) = (is_directory, root.parent(), root.file_name()) else {
        return source.canonicalize(root);
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let path = source.canonicalize(parent)?.join(name);
    source.examine(path.as_os_str().as_bytes())?;
    Ok(path)
}

/// Where a root that is not there would be: links are followed as far as they lead, also into what is missing.
fn where_it_was(source: &dyn Source, root: &Path) -> PathBuf {
    let absolute = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    let mut rest: Vec<_> = absolute.iter().rev().map(OsStr::to_owned).collect();
    let mut path = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = rest.pop() {
        match Path::new(&name).components().next() {
            Some(Component::ParentDir) => drop(path.pop()),
            Some(Component::RootDir) => path = PathBuf::from("/"),
            Some(Component::Normal(_)) => {
                path.push(&name);
                if let Ok(target) = source.read_link(path.as_os_str().as_bytes())
                    && links < LINKS_MAX
                {
                    links += 1;
                    path.pop();
                    let target = PathBuf::from(OsString::from_vec(target));
                    rest.extend(target.iter().rev().map(OsStr::to_owned));
                }
            }
            _ => {}
        }
    }
    path
}

/// A directory on the way.
struct Step {
    id: i64,
    hash: Hash,
    device: u64,
    known: Option<KnownDirectory>,
}

/// Stages the roots' own entries and those of their ancestors; returns the tasks to scan. Roots that nothing is known of,
/// and that are not there, are taken out.
pub(super) fn approach(scan: &Scan<'_>, roots: &mut Roots, outcome: &mut Outcome) -> Result<Vec<Task>, ScanError> {
    let mut steps: HashMap<Vec<u8>, Step> = HashMap::new();
    let mut deltas: BTreeMap<i64, Delta> = BTreeMap::new();
    let mut tasks = Vec::new();
    let mut own: Vec<Vec<u8>> = Vec::new();
    check_count(&roots.paths)?;
    for (path, is_root) in on_the_way(&roots.paths) {
        let found = match roots.missing.get(&path) {
            Some(reason) => Err(reason.clone()),
            None => look(scan.source, &path).map_err(said),
        };
        let entry = match found {
            Ok(entry) => entry,
            Err(reason) if is_root => {
                if !miss(scan, &path, &reason, outcome)? {
                    roots.paths.retain(|root| root.0 != path);
                }
                continue;
            }
            Err(_) => continue, // nothing below it is there either
        };
        if entry.kind == EntryKind::Directory && scan.is_own_state(&entry.meta) {
            own.push(path.clone());
        }
        if is_root && own.iter().any(|own| covers(own, &path)) {
            roots.paths.retain(|root| root.0 != path);
            outcome.fail(path, FailureKind::OwnState, OWN_STATE);
            continue;
        }
        let parent = parent(&path).and_then(|parent| steps.get(parent));
        let (directory, parent_hash) = parent.map_or((NOWHERE, Hash::default()), |step| (step.id, step.hash));
        let is_mount_point = parent.is_none_or(|step| step.device != entry.meta.device);
        stage(scan, &mut deltas, outcome, (directory, &path), entry.clone(), is_root)?;
        if entry.kind != EntryKind::Directory {
            outcome.roots_known += usize::from(is_root);
            continue;
        }
        if is_root {
            let root = RootFound {
                path,
                entry,
                parent: directory,
                parent_hash: &parent_hash,
                is_mount_point,
            };
            tasks.push(task_of(root, scan));
            continue;
        }
        let hash = path_hash(&parent_hash, &entry.name);
        let (id, known) = scan.identify(&hash);
        if known.is_none() {
            deltas.insert(id, partial(id, directory, path.clone(), None));
        }
        let device = entry.meta.device;
        let step = Step {
            id,
            hash,
            device,
            known,
        };
        steps.insert(path, step);
    }
    for path in &roots.nested {
        if let Some(reason) = roots.missing.get(path) {
            outcome.fail(path.clone(), FailureKind::Missing, missing_reason(reason));
        }
    }
    outcome.deltas.extend(worthwhile(deltas, steps.values()));
    Ok(tasks)
}

/// What changes on the way; a folder that is known already is no new one.
fn worthwhile<'a>(mut deltas: BTreeMap<i64, Delta>, steps: impl Iterator<Item = &'a Step>) -> Vec<Delta> {
    for step in steps {
        if let (Some(delta), Some(known)) = (deltas.get_mut(&step.id), step.known) {
            delta.is_new = false;
            delta.marks = known.marks;
        }
    }
    let worth = |delta: &Delta| delta.is_new || !delta.set.is_empty() || !delta.ended.is_empty();
    deltas.into_values().filter(worth).collect()
}

/// The task of walking a root.
fn task_of(root: RootFound<'_>, scan: &Scan<'_>) -> Task {
    let RootFound {
        path,
        entry,
        parent,
        parent_hash,
        is_mount_point,
    } = root;
    let hash = path_hash(parent_hash, &entry.name);
    let (id, known) = scan.identify(&hash);
    Task {
        id,
        parent,
        path,
        hash,
        known,
        identity: (entry.meta.inode, entry.meta.device),
        root_device: entry.meta.device,
        is_root: true,
        is_mount_point,
        reach: Reach::Whole,
        above: None,
        folder_rules: None,
    }
}

/// A root that is a folder, and what it lies in.
struct RootFound<'a> {
    path: Vec<u8>,
    entry: Entry,
    parent: i64,
    parent_hash: &'a Hash,
    is_mount_point: bool,
}

fn check_count(roots: &[PathBytes]) -> Result<(), ScanError> {
    let bytes = roots.iter().map(|root| root.0.len()).sum();
    if roots.len() > SNAPSHOT_ROOTS_MAX || bytes > SNAPSHOT_ROOTS_BYTES_MAX {
        let count = roots.len();
        return Err(ScanError::TooManyRoots { count, bytes });
    }
    Ok(())
}

/// A root that is not there: what is known of it stays. Returns whether anything is.
fn miss(scan: &Scan<'_>, path: &[u8], reason: &str, outcome: &mut Outcome) -> Result<bool, DbError> {
    outcome.fail(path.to_vec(), FailureKind::Missing, missing_reason(reason));
    let current = scan.db.read(|conn| {
        let Some((directory, name)) = rows::place(conn, path)? else {
            return Ok::<_, DbError>(None);
        };
        let history = rows::history(conn, directory, &name)?;
        Ok(history.into_iter().find(|row| row.until.is_none()))
    })?;
    let Some(row) = current else { return Ok(false) };
    outcome.roots_known += 1;
    if row.entry.kind == EntryKind::Directory {
        let top = path_hash(&Hash::default(), b"");
        let hash = components(path).fold(top, |hash, name| path_hash(&hash, name));
        scan.keep_known(scan.known.get(&hash).copied(), outcome)?;
    } else {
        outcome.files += 1;
        outcome.files_unmodified += 1;
        outcome.bytes += row.entry.meta.size;
    }
    Ok(true)
}

fn missing_reason(reason: &str) -> String {
    format!("It cannot be found ({reason}); is it mounted? What is backed up of it stays as it is")
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

fn look(source: &dyn Source, path: &[u8]) -> Result<Entry, Errno> {
    let (kind, meta) = source.examine(path)?;
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
    scan: &Scan<'_>,
    deltas: &mut BTreeMap<i64, Delta>,
    outcome: &mut Outcome,
    (directory, path): (i64, &[u8]),
    mut entry: Entry,
    is_root: bool,
) -> Result<(), DbError> {
    let history = scan.db.read(|conn| rows::history(conn, directory, &entry.name))?;
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
        Some(row) if !row.suspect && unchanged(&row.entry, &entry, is_root) => {
            let lacking = scan.known.lacking.get(&directory).into_iter().flatten();
            for (_, reason) in lacking.filter(|(name, _)| *name == row.entry.name) {
                outcome.fail(path.to_vec(), FailureKind::Incomplete, reason.as_str());
            }
            found.unmodified.push(row);
        }
        current => match complete(scan.source, path, &mut entry) {
            Ok(lacks) => {
                if let Some(reason) = lacks {
                    outcome.lack(directory, path.to_vec(), &entry.name, reason);
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
            Err(reason) => {
                outcome.fail(path.to_vec(), FailureKind::Unreadable, said(reason));
                found.unmodified.extend(current);
            }
        },
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

/// Fills in what is not known yet of a root or an ancestor; see `details::complete`.
fn complete(source: &dyn Source, path: &[u8], entry: &mut Entry) -> Result<Option<String>, Errno> {
    let folder = source.reach_folder(parent(path).unwrap_or(b"/"))?;
    details::complete(source, folder.as_ref(), entry)
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
