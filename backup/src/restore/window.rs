//! The selected entries of a snapshot, a window at a time.

use proto::log_record::{Entry, EntryKind};

use crate::catalog::tree;
use crate::restore::select::Selection;
use crate::restore::{Reader, RestoreError};

/// Entries in a window. Chosen: about 30 MB of them. Each window walks the snapshot from its beginning, which takes less
/// than a restore of as many files and holds no transaction open while files are fetched.
const WINDOW_ENTRIES_MAX: usize = 100_000;

/// An entry that is to be restored.
pub(super) struct Item {
    /// Where it goes below the target.
    pub(super) relative: Vec<u8>,
    pub(super) entry: Entry,
}

/// The next window: entries after the path `after`, and the last path of the window unless it is the last window.
pub(super) fn window(
    reader: &Reader,
    snapshot: u64,
    selection: &Selection,
    after: Option<&[u8]>,
) -> Result<(Vec<Item>, Option<Vec<u8>>), RestoreError> {
    let mut items = Vec::new();
    let mut last = None;
    for_each_selected(reader, snapshot, selection, &mut |path, item| {
        if after.is_some_and(|after| path.split(is_slash).le(after.split(is_slash))) {
            return true;
        }
        // Cut only between two selected paths: the folders above a path come with it.
        if items.len() >= WINDOW_ENTRIES_MAX && last.as_deref().is_some_and(|last| last != path) {
            return false;
        }
        items.push(item);
        last = Some(path.to_vec());
        true
    })?;
    let more = items.len() >= WINDOW_ENTRIES_MAX;
    Ok((items, last.filter(|_| more)))
}

/// Calls `visit` with everything that is selected, parents first, until it returns `false`. With include patterns, a
/// folder comes only before the first thing in it that is included, and with the absolute path of that.
pub(super) fn for_each_selected(
    reader: &Reader,
    snapshot: u64,
    selection: &Selection,
    visit: &mut dyn FnMut(&[u8], Item) -> bool,
) -> Result<(), RestoreError> {
    let mut excluded: Option<Vec<u8>> = None;
    let mut waiting: Vec<(Vec<u8>, Entry)> = Vec::new();
    reader.db.read(|conn| {
        tree::walk(conn, snapshot, selection.base(), &mut |path, entry| {
            if excluded.as_ref().is_some_and(|folder| is_below_absolute(path, folder)) {
                return Ok(true);
            }
            let is_directory = entry.kind == EntryKind::Directory;
            let relative = selection.relative(path);
            if selection.excludes(relative, is_directory) {
                excluded = Some(path.to_vec());
                return Ok(true);
            }
            waiting.retain(|(folder, _)| is_below_absolute(path, folder));
            let included =
                selection.includes(relative, is_directory) && !(relative.is_empty() && selection.is_thinned());
            if !included {
                if is_directory {
                    waiting.push((path.to_vec(), entry.clone()));
                }
                return Ok(true);
            }
            let above = waiting.drain(..);
            let entries = above.chain(std::iter::once((path.to_vec(), entry.clone())));
            for (place, entry) in entries {
                let relative = selection.relative(&place).to_vec();
                if !visit(path, Item { relative, entry }) {
                    return Ok(false);
                }
            }
            Ok::<bool, RestoreError>(true)
        })
    })
}

fn is_slash(byte: &u8) -> bool {
    *byte == b'/'
}

fn is_below_absolute(path: &[u8], folder: &[u8]) -> bool {
    match folder {
        b"/" => path.len() > 1,
        _ => path.len() > folder.len() && path[folder.len()] == b'/' && path.starts_with(folder),
    }
}
