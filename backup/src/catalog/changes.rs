//! What became of a path between two snapshots, in the words of people: added, removed, modified, and in what.

use database::DbError;
use proto::log_record::{Content, Entry, EntryKind};
use rusqlite::Connection;

use super::content;
use super::content::Place;
use super::tree::Pair;

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is something else: a folder where a file was.
    Type,
    /// Its content is another one.
    Modified,
    /// Only what is said about it is.
    Metadata,
}

/// In what an entry differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// Bytes of a file, target of a link, number of a device.
    Content,
    /// Permission bits.
    Mode,
    /// Owner or group.
    Owner,
    /// Modification time.
    Time,
    /// Extended attributes, and ACLs among them.
    Xattrs,
}

/// What became of a path that has these entries, and in what it differs; `None` if nothing that can be restored did.
pub fn change(conn: &Connection, entries: Pair<Option<&Entry>>) -> Result<Option<(Change, Vec<Aspect>)>, DbError> {
    let (before, after) = match (entries.before, entries.after) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return Ok(Some((Change::Added, Vec::new()))),
        (Some(_), None) => return Ok(Some((Change::Removed, Vec::new()))),
        (Some(before), Some(after)) => (before, after),
    };
    if before.kind != after.kind {
        return Ok(Some((Change::Type, Vec::new())));
    }
    let content = content_differs(conn, before, after)?;
    let (old, new) = (&before.meta, &after.meta);
    let differing = [
        (Aspect::Content, content),
        (Aspect::Mode, old.mode != new.mode),
        (Aspect::Owner, (old.uid, old.gid) != (new.uid, new.gid)),
        (Aspect::Time, old.mtime_ns != new.mtime_ns),
        (Aspect::Xattrs, old.xattrs != new.xattrs),
    ];
    let aspects: Vec<Aspect> = differing
        .into_iter()
        .filter_map(|(aspect, differs)| differs.then_some(aspect))
        .collect();
    // A folder's time moves with each name in it, which is said of the name itself.
    let noise = before.kind == EntryKind::Directory && aspects == [Aspect::Time];
    Ok(match aspects.is_empty() || noise {
        true => None,
        false if content => Some((Change::Modified, aspects)),
        false => Some((Change::Metadata, aspects)),
    })
}

/// Whether two entries of one kind have different contents. Contents of up to 4 KiB are kept on the grid alone: for them,
/// length and modification time have to tell.
fn content_differs(conn: &Connection, before: &Entry, after: &Entry) -> Result<bool, DbError> {
    let (old, new) = match (&before.content, &after.content) {
        (Content::Version(old), Content::Version(new)) => (*old, *new),
        (Content::None, Content::None) => return Ok(before.meta.rdev != after.meta.rdev),
        (old, new) => return Ok(old != new),
    };
    if old == new || before.meta.size != after.meta.size {
        return Ok(old != new);
    }
    match (content::place(conn, old)?, content::place(conn, new)?) {
        (Some(Place::Extents(old)), Some(Place::Extents(new))) => Ok(old != new),
        _ => Ok(before.meta.mtime_ns != after.meta.mtime_ns),
    }
}

#[cfg(test)]
mod tests {
    use database::Db;
    use proto::cap_index::Extent;
    use proto::id::{ChunkId, VersionId};
    use proto::log_record::{Meta, Xattr};

    use super::*;
    use crate::catalog::MIGRATIONS;

    fn file(version: u64, mtime_ns: i64) -> Entry {
        Entry {
            name: b"f".to_vec(),
            kind: EntryKind::File,
            meta: Meta {
                mode: 0o644,
                size: 5_000,
                mtime_ns,
                ..Meta::default()
            },
            content: Content::Version(VersionId(version)),
        }
    }

    fn told(db: &Db, before: Option<&Entry>, after: Option<&Entry>) -> Option<(Change, Vec<Aspect>)> {
        db.read(|conn| change(conn, Pair { before, after })).unwrap()
    }

    #[test]
    fn a_file_that_was_only_touched_keeps_its_content() {
        let db = Db::in_memory(MIGRATIONS).unwrap();
        db.write(|tx| {
            let extents = |chunk| Place::Extents(vec![Extent::Chunk(ChunkId([chunk; 16]), 5_000)]);
            content::set_place(tx, VersionId(1), &extents(1))?;
            content::set_place(tx, VersionId(2), &extents(1))?;
            content::set_place(tx, VersionId(3), &extents(3))
        })
        .unwrap();
        let (first, touched, other, waiting) = (file(1, 10), file(2, 11), file(3, 10), file(4, 11));
        let modified = (Change::Modified, vec![Aspect::Content]);
        assert_eq!(
            told(&db, Some(&first), Some(&touched)),
            Some((Change::Metadata, vec![Aspect::Time]))
        );
        assert_eq!(told(&db, Some(&first), Some(&other)), Some(modified));
        assert_eq!(
            told(&db, Some(&first), Some(&waiting)),
            Some((Change::Modified, vec![Aspect::Content, Aspect::Time]))
        );
        assert_eq!(told(&db, Some(&first), Some(&file(5, 10))), None, "a new ctime alone");
        assert_eq!(told(&db, None, Some(&first)), Some((Change::Added, Vec::new())));
        assert_eq!(told(&db, Some(&first), None), Some((Change::Removed, Vec::new())));
    }

    #[test]
    fn metadata_is_told_apart_and_a_folders_time_is_no_change() {
        let db = Db::in_memory(MIGRATIONS).unwrap();
        let folder = Entry {
            kind: EntryKind::Directory,
            content: Content::None,
            ..file(1, 1)
        };
        let mut later = folder.clone();
        later.meta.mtime_ns = 2;
        assert_eq!(told(&db, Some(&folder), Some(&later)), None);
        later.meta.mode = 0o700;
        later.meta.uid = 5;
        later.meta.xattrs = vec![Xattr {
            name: b"user.x".to_vec(),
            value: Vec::new(),
        }];
        let aspects = vec![Aspect::Mode, Aspect::Owner, Aspect::Time, Aspect::Xattrs];
        assert_eq!(
            told(&db, Some(&folder), Some(&later)),
            Some((Change::Metadata, aspects))
        );
        assert_eq!(
            told(&db, Some(&folder), Some(&file(1, 1))),
            Some((Change::Type, Vec::new()))
        );
    }
}
