//! A changed directory against its rows: what is new, changed, gone, or as it was.
//!
//! A regular file is as it was when kind, size, mtime, ctime, inode and the rest of its metadata are. Anything that
//! touches a file moves its ctime, which nobody can set back: a file with another ctime is read again, even if it was
//! only a chmod, since size and mtime can be made to look unchanged; deduplication makes that cheap.

use std::iter::Peekable;

use proto::log_record::{Entry, EntryKind, Meta};

use crate::catalog::tree::rows::EntryRow;
use crate::source::Listing;

/// An entry to be recorded.
#[derive(Debug)]
pub(super) struct Staged {
    pub entry: Entry,
    /// What the name was before.
    pub before: Option<EntryKind>,
    /// Its content waits for a version id: `entry.content` counts within this scan.
    pub fresh: bool,
    /// Could change after it is read without showing it.
    pub suspect: bool,
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub set: Vec<Staged>,
    /// Rows that end because `set` has their name.
    pub replaced: Vec<EntryRow>,
    pub gone: Vec<EntryRow>,
    pub unmodified: Vec<EntryRow>,
}

/// Joins a listing with the directory's current rows, both sorted by name.
pub(super) fn compare(listing: Listing, rows: Vec<EntryRow>) -> Comparison {
    let mut found = Comparison::default();
    let mut rows = rows.into_iter().peekable();
    for entry in listing.entries {
        while let Some(row) = next_if(&mut rows, |row| row.entry.name < entry.name) {
            absent(&mut found, row, &listing.failed);
        }
        match next_if(&mut rows, |row| row.entry.name == entry.name) {
            Some(row) if !row.suspect && same(&row.entry, &entry) => found.unmodified.push(row),
            Some(row) => {
                let before = Some(row.entry.kind);
                found.set.push(Staged {
                    entry,
                    before,
                    fresh: false,
                    suspect: false,
                });
                found.replaced.push(row);
            }
            None => found.set.push(Staged {
                entry,
                before: None,
                fresh: false,
                suspect: false,
            }),
        }
    }
    for row in rows {
        absent(&mut found, row, &listing.failed);
    }
    found
}

impl Comparison {
    /// An entry that turned out to be out of reach: what is known of it stays.
    pub fn retract(&mut self, name: &[u8]) {
        if let Some(at) = self.replaced.iter().position(|row| row.entry.name == name) {
            let row = self.replaced.remove(at);
            self.unmodified.push(row);
        }
    }
}

fn next_if(rows: &mut Peekable<std::vec::IntoIter<EntryRow>>, test: impl Fn(&EntryRow) -> bool) -> Option<EntryRow> {
    rows.next_if(test)
}

/// A name that could not be examined is there: what is known of it stays.
fn absent(found: &mut Comparison, row: EntryRow, failed: &[(Vec<u8>, rustix::io::Errno)]) {
    if failed.iter().any(|(name, _)| *name == row.entry.name) {
        found.unmodified.push(row);
    } else {
        found.gone.push(row);
    }
}

/// Whether nothing happened to an entry. File systems may get other device numbers when they are mounted again: with
/// all else equal, and a ctime to the nanosecond, that alone is no change.
pub(super) fn same(old: &Entry, new: &Entry) -> bool {
    let identity = |meta: &Meta| (meta.inode, meta.size, meta.mtime_ns, meta.ctime_ns);
    let rest = |meta: &Meta| (meta.mode, meta.uid, meta.gid, meta.links, meta.rdev);
    let device = old.meta.device == new.meta.device || new.meta.ctime_ns % 1_000_000_000 != 0;
    old.kind == new.kind && identity(&old.meta) == identity(&new.meta) && rest(&old.meta) == rest(&new.meta) && device
}

#[cfg(test)]
mod tests {
    use proto::log_record::Content;

    use super::*;

    fn entry(name: &str, ctime_ns: i64) -> Entry {
        let meta = Meta {
            ctime_ns,
            ..Meta::default()
        };
        Entry {
            name: name.into(),
            kind: EntryKind::File,
            meta,
            content: Content::None,
        }
    }

    fn row(name: &str, ctime_ns: i64) -> EntryRow {
        EntryRow {
            since: 1,
            until: None,
            suspect: false,
            entry: entry(name, ctime_ns),
        }
    }

    #[test]
    fn a_merge_finds_new_changed_gone_and_unmodified() {
        let entries = vec![entry("b", 1), entry("c", 2), entry("d", 1)];
        let listing = Listing {
            entries,
            failed: vec![(b"e".to_vec(), rustix::io::Errno::IO)],
        };
        let found = compare(
            listing,
            vec![row("a", 1), row("c", 1), row("d", 1), row("e", 1), row("f", 1)],
        );
        let names = |rows: &[EntryRow]| -> Vec<String> {
            rows.iter()
                .map(|row| String::from_utf8_lossy(&row.entry.name).into_owned())
                .collect()
        };
        let set: Vec<_> = found
            .set
            .iter()
            .map(|staged| (staged.entry.name.clone(), staged.before))
            .collect();
        assert_eq!(set, [(b"b".to_vec(), None), (b"c".to_vec(), Some(EntryKind::File))]);
        assert_eq!(names(&found.gone), ["a", "f"]);
        assert_eq!(names(&found.replaced), ["c"]);
        assert_eq!(names(&found.unmodified), ["d", "e"]);
    }

    #[test]
    fn a_suspect_file_is_taken_for_changed() {
        let listing = Listing {
            entries: vec![entry("a", 1)],
            failed: Vec::new(),
        };
        let suspect = EntryRow {
            suspect: true,
            ..row("a", 1)
        };
        assert_eq!(compare(listing, vec![suspect]).set.len(), 1);
    }

    #[test]
    fn another_device_number_alone_is_no_change_unless_times_are_coarse() {
        let moved = |ctime_ns| {
            let mut entry = entry("a", ctime_ns);
            entry.meta.device = 7;
            entry
        };
        assert!(same(&entry("a", 1_000_000_001), &moved(1_000_000_001)));
        assert!(!same(&entry("a", 1_000_000_000), &moved(1_000_000_000)));
    }
}
