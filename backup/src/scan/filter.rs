//! Leaving out of a listing what is to be left out, before it is fingerprinted or compared.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use proto::log_record::EntryKind;

use super::outcome::Outcome;
use super::task::{Scan, Task};
use crate::catalog::tree::rows::join;
use crate::exclude::{
    CACHE_TAG, CACHE_TAG_SIGNATURE, FolderRules, IGNORE_FILE, IGNORE_FILE_BYTES_MAX, STORE_MARKER,
    STORE_MARKER_SIGNATURE, is_store_part,
};
use crate::source::details::read_start;
use crate::source::{Folder, Listing};

/// What the rules say of a directory.
pub(super) struct Filtered {
    /// The folder rules for what is below.
    pub folder_rules: Option<Arc<FolderRules>>,
    /// Directories that were left out, sorted.
    pub directories: Vec<Vec<u8>>,
}

/// Takes out of the listing what is to be left out.
pub(super) fn apply(
    scan: &Scan<'_>,
    task: &Task,
    folder: &dyn Folder,
    listing: &mut Listing,
    outcome: &mut Outcome,
) -> Filtered {
    let rules = &scan.options.rules;
    let mut folder_rules = task.folder_rules.clone();
    if has_file(listing, IGNORE_FILE)
        && let Ok(text) = read_start(folder, IGNORE_FILE, IGNORE_FILE_BYTES_MAX)
    {
        let text = String::from_utf8_lossy(&text);
        folder_rules = Some(Arc::new(FolderRules::new(&task.path, &text, folder_rules)));
    }
    let mut directories = Vec::new();
    let mut keep = |listing: &mut Listing, keeps: &dyn Fn(&[u8], bool) -> bool| {
        listing.entries.retain(|entry| {
            let is_directory = entry.kind == EntryKind::Directory;
            let kept = keeps(&entry.name, is_directory);
            if !kept && is_directory {
                directories.push(entry.name.clone());
            }
            kept
        });
    };
    // Whoever names a folder means what is in it, tagged or not.
    let heeds_tag = rules.heeds_cache_tags() && !task.is_root;
    if heeds_tag && is_marked(listing, folder, CACHE_TAG, CACHE_TAG_SIGNATURE) {
        keep(listing, &|name, _| name == CACHE_TAG);
    }
    if is_marked(listing, folder, STORE_MARKER, STORE_MARKER_SIGNATURE) {
        // Backed up, it would be put into itself, and grow with every run.
        let parts = listing.entries.iter().filter(|entry| is_store_part(&entry.name));
        outcome.left_out.extend(parts.map(|part| join(&task.path, &part.name)));
        keep(listing, &|name, _| !is_store_part(name));
        outcome
            .stores
            .push(PathBuf::from(OsString::from_vec(task.path.clone())));
    }
    if !rules.is_empty() || folder_rules.is_some() {
        keep(listing, &|name, is_directory| {
            !rules.excludes_entry(folder_rules.as_deref(), &join(&task.path, name), is_directory)
        });
    }
    listing.entries.retain(|entry| {
        let is_own = entry.kind == EntryKind::Directory && scan.is_own_state(&entry.meta);
        if is_own {
            outcome.left_out.push(join(&task.path, &entry.name));
            directories.push(entry.name.clone());
        }
        !is_own
    });
    directories.sort();
    Filtered {
        folder_rules,
        directories,
    }
}

fn has_file(listing: &Listing, name: &[u8]) -> bool {
    let at = listing
        .entries
        .binary_search_by(|entry| entry.name.as_slice().cmp(name));
    at.is_ok_and(|at| listing.entries[at].kind == EntryKind::File)
}

/// Whether there is a file of this name that begins so.
fn is_marked(listing: &Listing, folder: &dyn Folder, name: &[u8], signature: &[u8]) -> bool {
    has_file(listing, name) && read_start(folder, name, signature.len()).is_ok_and(|start| start == signature)
}
