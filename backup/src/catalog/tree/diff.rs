//! Two snapshots side by side: what the one shows and the other does not, or shows otherwise.
//!
//! A row that both see says the same of both, and `change` names the directories that have other rows. So only those
//! are read, and the way to them: the cost is that of what changed, not of the tree. What a difference amounts to is
//! the work of `catalog::changes`.

use std::collections::{HashMap, HashSet, VecDeque};

use database::DbError;
use proto::log_record::{Entry, EntryKind};
use rusqlite::Connection;

use super::rows::{COLUMNS, EntryRow, SLASH, child_directory, join, place, read_row, row_at};
use super::walk::{Scope, normal, scope};
use super::{Snapshot, entry, snapshot};

/// Rows fetched at a time; at most two have the same name.
const BATCH_ROWS: usize = 512;

/// A value for the snapshot before, and one for the snapshot after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair<T> {
    /// For the first of the two.
    pub before: T,
    /// For the second.
    pub after: T,
}

impl<T> Pair<T> {
    fn map<U>(self, mut each: impl FnMut(T) -> U) -> Pair<U> {
        Pair {
            before: each(self.before),
            after: each(self.after),
        }
    }
}

/// What `diff` calls with a path and what each side has there; `Ok(false)` ends it.
pub type VisitPair<'a, E> = dyn FnMut(&[u8], Pair<Option<&Entry>>) -> Result<bool, E> + 'a;

/// Calls `visit` for each path at and below `path` whose entries in two snapshots (sequence numbers) are not the same row,
/// parents before children and names in byte order, until it returns `Ok(false)`. Both sides may turn out to say the same.
/// Memory: about 100 bytes for each directory that changed between them.
pub fn diff<E: From<DbError>>(
    conn: &Connection,
    seqs: Pair<u64>,
    path: &[u8],
    visit: &mut VisitPair<'_, E>,
) -> Result<(), E> {
    let path = normal(path);
    let (Some(before), Some(after)) = (snapshot(conn, seqs.before)?, snapshot(conn, seqs.after)?) else {
        return Ok(());
    };
    let sides = Sides {
        seqs,
        snapshots: Pair { before, after },
        changed: Changed::read(conn, seqs)?,
    };
    let tops = Pair {
        before: entry(conn, seqs.before, &path)?,
        after: entry(conn, seqs.after, &path)?,
    };
    if tops.before != tops.after && !visit(&path, as_refs(&tops))? {
        return Ok(());
    }
    let mut stack: Vec<Frame> = Vec::new();
    let directory = match place(conn, &path)? {
        Some((parent, name)) => child_directory(conn, parent, &name)?,
        None => None,
    };
    // A snapshot whose root is not `/` need not have an entry for it.
    let shown = tops.map(|top| path == b"/" || is_directory(top.as_ref()));
    if let Some(directory) = directory.or((path == b"/").then_some(SLASH)) {
        stack.push(Frame::new(&sides, directory, path, shown));
    }
    while let Some(frame) = stack.last_mut() {
        let Some(found) = frame.next(conn, &sides)? else {
            stack.pop();
            continue;
        };
        if found.entries.before != found.entries.after && !visit(&found.path, as_refs(&found.entries))? {
            return Ok(());
        }
        if let Some(below) = found.below(conn, &sides, frame)? {
            stack.push(below);
        }
    }
    Ok(())
}

fn as_refs(entries: &Pair<Option<Entry>>) -> Pair<Option<&Entry>> {
    Pair {
        before: entries.before.as_ref(),
        after: entries.after.as_ref(),
    }
}

fn is_directory(entry: Option<&Entry>) -> bool {
    entry.is_some_and(|entry| entry.kind == EntryKind::Directory)
}

/// What stays the same during a comparison.
struct Sides {
    seqs: Pair<u64>,
    snapshots: Pair<Snapshot>,
    changed: Changed,
}

impl Sides {
    fn scopes(&self, path: &[u8]) -> Pair<Scope> {
        Pair {
            before: scope(&self.snapshots.before.record.source_roots, path),
            after: scope(&self.snapshots.after.record.source_roots, path),
        }
    }
}

/// Directories with rows that begin or end between the two snapshots, and those above them.
struct Changed {
    all: HashSet<i64>,
    children: HashMap<i64, Vec<(Vec<u8>, i64)>>,
}

impl Changed {
    fn read(conn: &Connection, seqs: Pair<u64>) -> Result<Self, DbError> {
        let mut found = Self {
            all: HashSet::new(),
            children: HashMap::new(),
        };
        let range = (seqs.before.min(seqs.after), seqs.before.max(seqs.after));
        let mut query =
            conn.prepare_cached("SELECT DISTINCT directory FROM change WHERE snapshot > ? AND snapshot <= ?")?;
        let mut above = conn.prepare_cached("SELECT parent, name FROM directory WHERE id = ?")?;
        let mut rows = query.query(range)?;
        while let Some(row) = rows.next()? {
            let mut at: i64 = row.get(0)?;
            while at > SLASH && found.all.insert(at) {
                let (parent, name): (i64, Vec<u8>) = above.query_row([at], |row| Ok((row.get(0)?, row.get(1)?)))?;
                found.children.entry(parent).or_default().push((name, at));
                // A parent is always older; anything else would be a loop in a damaged file.
                at = if parent < at { parent } else { SLASH };
            }
        }
        found.all.insert(SLASH);
        for children in found.children.values_mut() {
            children.sort_unstable_by(|a, b| b.0.cmp(&a.0)); // the next one last
        }
        Ok(found)
    }
}

/// A name in a directory.
struct Found {
    path: Vec<u8>,
    name: Vec<u8>,
    entries: Pair<Option<Entry>>,
    /// A directory in which something changed, though its own entry did not.
    unchanged: Option<i64>,
}

impl Found {
    /// The frame for what is below, if anything there can differ.
    fn below(&self, conn: &Connection, sides: &Sides, parent: &Frame) -> Result<Option<Frame>, DbError> {
        if let Some(directory) = self.unchanged {
            // The one row that both sides see, if any: what lies in a directory without one is shown by nobody.
            let row = row_at(conn, sides.seqs.before, parent.directory, &self.name)?;
            if !is_directory(row.as_ref().map(|row| &row.entry)) {
                return Ok(None);
            }
            return Ok(Some(Frame::new(sides, directory, self.path.clone(), parent.shown)));
        }
        let shown = as_refs(&self.entries).map(is_directory);
        if !shown.before && !shown.after {
            return Ok(None);
        }
        let Some(directory) = child_directory(conn, parent.directory, &self.name)? else {
            return Ok(None);
        };
        let frame = Frame::new(sides, directory, self.path.clone(), shown);
        let differs = frame.whole || sides.changed.all.contains(&directory);
        Ok(differs.then_some(frame))
    }
}

/// A directory under comparison.
struct Frame {
    directory: i64,
    path: Vec<u8>,
    /// On which sides it is there.
    shown: Pair<bool>,
    /// Rows that both sides see are read, too: the snapshots' roots, or a missing directory, may tell them apart.
    whole: bool,
    batch: VecDeque<EntryRow>,
    last: Option<Vec<u8>>,
    /// Changed directories in it, the next one last; those that `batch` names come from there.
    children: Vec<(Vec<u8>, i64)>,
}

impl Frame {
    fn new(sides: &Sides, directory: i64, path: Vec<u8>, shown: Pair<bool>) -> Self {
        let scopes = sides.scopes(&path);
        let inside = scopes.before == Scope::Inside && scopes.after == Scope::Inside;
        let whole = !inside || !shown.before || !shown.after;
        let children = match whole {
            true => Vec::new(),
            false => sides.changed.children.get(&directory).cloned().unwrap_or_default(),
        };
        Self {
            directory,
            path,
            shown,
            whole,
            batch: VecDeque::new(),
            last: Some(Vec::new()),
            children,
        }
    }

    fn next(&mut self, conn: &Connection, sides: &Sides) -> Result<Option<Found>, DbError> {
        if self.batch.is_empty() {
            self.read_batch(conn, sides)?;
        }
        let row_name = self.batch.front().map(|row| row.entry.name.clone());
        let child_first = match (self.children.last(), &row_name) {
            (Some((child, _)), Some(row)) => child < row,
            (child, _) => child.is_some(),
        };
        if child_first && let Some((name, directory)) = self.children.pop() {
            return Ok(Some(Found {
                path: join(&self.path, &name),
                name,
                entries: Pair::default(),
                unchanged: Some(directory),
            }));
        }
        let Some(name) = row_name else {
            return Ok(None);
        };
        if self.children.last().is_some_and(|(child, _)| *child == name) {
            self.children.pop();
        }
        let path = join(&self.path, &name);
        let mut entries = Pair::default();
        let scopes = sides.scopes(&path);
        while let Some(row) = self.batch.pop_front_if(|row| row.entry.name == name) {
            let sees = |shown: bool, scope: Scope, seq: u64| shown && scope != Scope::Outside && row.visible_at(seq);
            if sees(self.shown.before, scopes.before, sides.seqs.before) {
                entries.before = Some(row.entry.clone());
            }
            if sees(self.shown.after, scopes.after, sides.seqs.after) {
                entries.after = Some(row.entry);
            }
        }
        Ok(Some(Found {
            path,
            name,
            entries,
            unchanged: None,
        }))
    }

    fn read_batch(&mut self, conn: &Connection, sides: &Sides) -> Result<(), DbError> {
        let Some(after) = self.last.take() else {
            return Ok(());
        };
        let which = if self.whole { "OR" } else { "<>" };
        let mut query = conn.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM entry WHERE directory = ?1 AND name > ?2 AND
             ((since <= ?3 AND coalesce(until > ?3, 1)) {which} (since <= ?4 AND coalesce(until > ?4, 1)))
             ORDER BY name, since LIMIT ?5"
        ))?;
        let parameters = (self.directory, after, sides.seqs.before, sides.seqs.after, BATCH_ROWS);
        let rows = query.query_map(parameters, read_row)?;
        self.batch = rows.collect::<Result<_, _>>()?;
        if self.batch.len() == BATCH_ROWS {
            // The last name may have one more row: it comes with the next batch.
            let cut = self.batch.pop_back().map(|row| row.entry.name);
            while self
                .batch
                .pop_back_if(|row| Some(&row.entry.name) == cut.as_ref())
                .is_some()
            {}
            self.last = self.batch.back().map(|row| row.entry.name.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use database::Db;
    use proptest::prelude::*;
    use proto::id::{DeviceId, SnapshotId};
    use proto::log_record::{Content, LogRecord, Meta, PathBytes, SnapshotRecord};

    use super::*;
    use crate::catalog::{MIGRATIONS, tree};

    /// What may happen to a path in a snapshot.
    #[derive(Clone, Debug)]
    enum Act {
        File(u8),
        Directory(u8),
        Gone,
    }

    fn record(seq: u64, roots: &[&str]) -> SnapshotRecord {
        SnapshotRecord {
            seq,
            id: SnapshotId([seq as u8; 16]),
            time_ns: seq as i64,
            parent: (seq > 1).then(|| seq - 1),
            source_roots: roots.iter().map(|root| PathBytes(root.as_bytes().to_vec())).collect(),
            files: 0,
            bytes: 0,
        }
    }

    fn row(name: &str, kind: EntryKind, mark: u8) -> Entry {
        Entry {
            name: name.as_bytes().to_vec(),
            kind,
            meta: Meta {
                mtime_ns: mark.into(),
                ..Meta::default()
            },
            content: match kind {
                EntryKind::File => Content::Inline(vec![mark]),
                _ => Content::None,
            },
        }
    }

    fn all(db: &Db, seq: u64) -> BTreeMap<Vec<u8>, Entry> {
        let mut all = BTreeMap::new();
        db.read(|conn| {
            tree::walk::<DbError>(conn, seq, b"/", &mut |path, entry| {
                all.insert(path.to_vec(), entry.clone());
                Ok(true)
            })
        })
        .unwrap();
        all
    }

    fn acts() -> impl Strategy<Value = Vec<Vec<(usize, usize, Act)>>> {
        let act = prop_oneof![
            any::<u8>().prop_map(Act::File),
            any::<u8>().prop_map(Act::Directory),
            Just(Act::Gone)
        ];
        prop::collection::vec(prop::collection::vec((0..3usize, 0..4usize, act), 0..8), 2..7)
    }

    const FOLDERS: [&str; 3] = ["/r/a", "/r/a/b", "/r/c"];
    const NAMES: [&str; 4] = ["a", "b", "x", "y"];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However two snapshots came about, `diff` says exactly what two walks side by side say, in the same order.
        #[test]
        fn a_diff_is_what_two_walks_differ_in(history in acts(), narrow in any::<bool>()) {
            let db = Db::in_memory(MIGRATIONS).unwrap();
            db.write(|tx| {
                let mut replay = tree::Replay::new(DeviceId([7; 32]));
                for (index, acts) in history.iter().enumerate() {
                    let seq = index as u64 + 1;
                    // The last snapshot may have another root than those before.
                    let roots: &[&str] = if narrow && index + 1 == history.len() { &["/r/a"] } else { &["/r"] };
                    replay.apply(tx, LogRecord::Snapshot(record(seq, roots)))?;
                    if seq == 1 {
                        replay.apply(tx, LogRecord::Directory(b"/".to_vec()))?;
                        replay.apply(tx, LogRecord::Entry(row("", EntryKind::Directory, 0)))?;
                        replay.apply(tx, LogRecord::Entry(row("r", EntryKind::Directory, 0)))?;
                        replay.apply(tx, LogRecord::Directory(b"/r".to_vec()))?;
                        replay.apply(tx, LogRecord::Entry(row("a", EntryKind::Directory, 0)))?;
                        replay.apply(tx, LogRecord::Entry(row("c", EntryKind::Directory, 0)))?;
                    }
                    for (folder, name, act) in acts {
                        replay.apply(tx, LogRecord::Directory(FOLDERS[*folder].as_bytes().to_vec()))?;
                        let name = NAMES[*name];
                        replay.apply(tx, match act {
                            Act::File(mark) => LogRecord::Entry(row(name, EntryKind::File, *mark)),
                            Act::Directory(mark) => LogRecord::Entry(row(name, EntryKind::Directory, *mark)),
                            Act::Gone => LogRecord::Gone(name.as_bytes().to_vec()),
                        })?;
                    }
                }
                Ok::<_, DbError>(())
            }).unwrap();
            let last = history.len() as u64;
            for (before, after) in [(1, last), (last, 1), (last - 1, last), (1, last.min(2))] {
                let (one, two) = (all(&db, before), all(&db, after));
                let mut expected: Vec<_> = one.keys().chain(two.keys())
                    .filter(|path| one.get(*path) != two.get(*path)).cloned().collect();
                expected.sort_by(|a, b| a.split(|byte| *byte == b'/').cmp(b.split(|byte| *byte == b'/')));
                expected.dedup();
                let mut found = Vec::new();
                db.read(|conn| diff::<DbError>(conn, Pair { before, after }, b"/", &mut |path, entries| {
                    assert_eq!(entries.before, one.get(path));
                    assert_eq!(entries.after, two.get(path));
                    found.push(path.to_vec());
                    Ok(true)
                })).unwrap();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn a_directory_longer_than_a_batch_is_compared_to_its_end() {
        let db = Db::in_memory(MIGRATIONS).unwrap();
        let names: Vec<String> = (0..3 * BATCH_ROWS).map(|number| format!("{number:05}")).collect();
        db.write(|tx| {
            let mut replay = tree::Replay::new(DeviceId([7; 32]));
            for seq in 1..=2u8 {
                replay.apply(tx, LogRecord::Snapshot(record(seq.into(), &["/"])))?;
                replay.apply(tx, LogRecord::Directory(b"/".to_vec()))?;
                replay.apply(tx, LogRecord::Entry(row("", EntryKind::Directory, 0)))?;
                for name in &names {
                    replay.apply(tx, LogRecord::Entry(row(name, EntryKind::File, seq)))?;
                }
            }
            Ok::<_, DbError>(())
        })
        .unwrap();
        let mut count = 0;
        let seqs = Pair { before: 1, after: 2 };
        db.read(|conn| {
            diff::<DbError>(conn, seqs, b"/", &mut |_, entries| {
                assert!(entries.before.is_some() && entries.after.is_some());
                count += 1;
                Ok(true)
            })
        })
        .unwrap();
        assert_eq!(count, names.len());
    }
}
