//! What a restore was asked for: looked up in the snapshot, and counted.

use std::sync::Arc;

use proto::log_record::{EntryKind, Meta};

use crate::catalog::tree;
use crate::restore::select::{Selection, base_path};
use crate::restore::window::for_each_selected;
use crate::restore::{Reader, RestoreError, RestoreOptions, RestoreProgress};

/// What was asked for, as the snapshot has it.
pub(super) struct Asked {
    pub(super) selection: Arc<Selection>,
    /// What the path leads to, and its metadata if that is known.
    pub(super) kind: EntryKind,
    pub(super) meta: Option<Meta>,
    /// What there is to do.
    pub(super) total: RestoreProgress,
    /// Include patterns that match nothing of it.
    pub(super) unmatched: Vec<String>,
}

impl Asked {
    /// Looks it up.
    pub(super) fn of(reader: &Reader, options: &RestoreOptions) -> Result<Self, RestoreError> {
        let base = base_path(options);
        let entry = reader.db.read(|conn| tree::entry(conn, options.snapshot, &base))?;
        let (kind, meta) = match entry {
            Some(entry) => (entry.kind, Some(entry.meta)),
            None if options.path.is_none() => (EntryKind::Directory, None),
            None => {
                let path = String::from_utf8_lossy(&base).into_owned();
                return Err(RestoreError::NoSuchPath { path });
            }
        };
        let selection = Arc::new(Selection::new(options, kind)?);
        let (total, unmatched) = count(reader, options, &selection)?;
        Ok(Self {
            selection,
            kind,
            meta,
            total,
            unmatched,
        })
    }
}

/// What there is to do, and the include patterns that match nothing of it.
fn count(
    reader: &Reader,
    options: &RestoreOptions,
    selection: &Selection,
) -> Result<(RestoreProgress, Vec<String>), RestoreError> {
    let mut total = RestoreProgress::default();
    let mut unmatched = Selection::patterns(options)?;
    let mut is_nothing = true;
    for_each_selected(reader, options.snapshot, selection, &mut |_, item| {
        is_nothing = false;
        let is_directory = item.entry.kind == EntryKind::Directory;
        unmatched.retain(|pattern| !pattern.matches(&item.relative, is_directory));
        if !is_directory {
            total.files.1 += 1;
            total.bytes.1 += item.entry.meta.size;
        }
        true
    })?;
    if is_nothing {
        let asked = [("--include", &options.include), ("--exclude", &options.exclude)];
        let asked = asked
            .iter()
            .flat_map(|(option, patterns)| patterns.iter().map(move |pattern| format!("{option} `{pattern}`")));
        return Err(RestoreError::NothingMatches {
            patterns: asked.collect::<Vec<_>>().join(" "),
        });
    }
    Ok((total, unmatched.into_iter().map(|pattern| pattern.text).collect()))
}
