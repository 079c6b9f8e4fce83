//! Leaving out of a listing what the rules leave out, before it is fingerprinted or compared.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use proto::log_record::EntryKind;
use rustix::io::Errno;

use super::details;
use super::listing::Listing;
use super::walk::Task;
use crate::catalog::tree::rows::join;
use crate::exclude::{CACHE_TAG, CACHE_TAG_SIGNATURE, FolderRules, IGNORE_FILE, IGNORE_FILE_BYTES_MAX, Rules};

/// Takes out of the listing what the rules leave out; returns the folder rules for what is below.
pub(super) fn apply(rules: &Rules, task: &Task, fd: &OwnedFd, listing: &mut Listing) -> Option<Arc<FolderRules>> {
    let has_file = |name: &[u8]| {
        let at = listing
            .entries
            .binary_search_by(|entry| entry.name.as_slice().cmp(name));
        at.is_ok_and(|at| listing.entries[at].kind == EntryKind::File)
    };
    let mut folder_rules = task.folder_rules.clone();
    if has_file(IGNORE_FILE)
        && let Ok(text) = read_start(fd, IGNORE_FILE, IGNORE_FILE_BYTES_MAX)
    {
        let text = String::from_utf8_lossy(&text);
        folder_rules = Some(Arc::new(FolderRules::new(&task.path, &text, folder_rules)));
    }
    let tagged = rules.heeds_cache_tags()
        && has_file(CACHE_TAG)
        && read_start(fd, CACHE_TAG, CACHE_TAG_SIGNATURE.len()).is_ok_and(|start| start == CACHE_TAG_SIGNATURE);
    if tagged {
        listing.entries.retain(|entry| entry.name == CACHE_TAG);
    }
    if !rules.is_empty() || folder_rules.is_some() {
        let excludes = |name: &[u8], is_directory| {
            rules.excludes_entry(folder_rules.as_deref(), &join(&task.path, name), is_directory)
        };
        listing
            .entries
            .retain(|entry| !excludes(&entry.name, entry.kind == EntryKind::Directory));
    }
    folder_rules
}

fn read_start(directory: &OwnedFd, name: &[u8], limit: usize) -> Result<Vec<u8>, Errno> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    details::read_start(directory, &name, limit)
}
