//! All snapshots as one read-only tree, as a mount shows it: `ids/ID`, `dates/TIME` and `latest`, and below a snapshot the
//! absolute paths of what was backed up.
//!
//! Says nothing of FUSE or WebDAV. Nothing is kept per entry: an entry is found again by its place.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use database::DbError;
use proto::log_record::{Content, Entry, EntryKind, Meta, PathBytes};
use rusqlite::Connection;

use crate::catalog::tree;
use crate::catalog::tree::rows::{NOWHERE, SLASH};
use crate::catalog::tree::{Scope, rows};
use crate::restore::RestoreError;
use crate::restore::file::{Files, OpenFile};

mod inodes;
mod snapshots;

pub use self::inodes::Inodes;
use self::snapshots::Snapshots;

/// Names at the top.
const IDS: &[u8] = b"ids";
const DATES: &[u8] = b"dates";
const LATEST: &[u8] = b"latest";
/// Entries fetched at a time: as `tree::walk` does.
const BATCH_ENTRIES: usize = 256;
/// Symbolic links followed on the way to one entry: as Linux does (`MAXSYMLINKS`).
const LINKS_MAX: usize = 40;

/// How a tree is shown.
pub struct ViewOptions {
    /// The list of snapshots is read again when it is older.
    pub snapshots_kept: Duration,
    /// The name below `dates` of a snapshot made so many nanoseconds after 1970.
    pub date_name: Box<dyn Fn(i64) -> String + Send + Sync>,
}

/// The tree; clones share it.
#[derive(Clone)]
pub struct View(Arc<Inner>);

struct Inner {
    files: Files,
    options: ViewOptions,
    snapshots: Mutex<Option<(Instant, Arc<Snapshots>)>>,
}

/// Where something is in the tree.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// The folder of everything.
    Top,
    /// The folder of snapshots by id.
    Ids,
    /// The folder of links by date.
    Dates,
    /// The link to the newest snapshot.
    Latest,
    /// The link of this snapshot's date.
    Date(u64),
    /// The folder of this snapshot: what was `/`.
    Snapshot(u64),
    /// A name in a directory of a snapshot.
    Entry {
        /// Sequence number of the snapshot.
        snapshot: u64,
        /// Row of the directory.
        directory: i64,
        /// The name in it.
        name: Vec<u8>,
    },
}

/// Something in the tree.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// Where it is.
    pub place: Place,
    /// Its name, kind, metadata and content. What no snapshot has recorded (the top, the folders of snapshots and dates) has
    /// made-up metadata.
    pub entry: Entry,
}

impl View {
    /// A tree of the snapshots in the catalog of `files`.
    pub fn new(files: Files, options: ViewOptions) -> Self {
        Self(Arc::new(Inner {
            files,
            options,
            snapshots: Mutex::default(),
        }))
    }

    /// What its files are opened with.
    pub fn files(&self) -> &Files {
        &self.0.files
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, DbError>) -> Result<T, DbError> {
        self.0.files.reader().db.read(work)
    }

    fn snapshots(&self) -> Result<Arc<Snapshots>, DbError> {
        let mut kept = self
            .0
            .snapshots
            .lock()
            .expect("no panic while the snapshots are locked");
        if let Some((read, snapshots)) = &*kept
            && read.elapsed() < self.0.options.snapshots_kept
        {
            return Ok(snapshots.clone());
        }
        let list = self.read(tree::kept)?;
        let snapshots = Arc::new(Snapshots::new(list, &self.0.options.date_name));
        *kept = Some((Instant::now(), snapshots.clone()));
        Ok(snapshots)
    }

    /// The top.
    pub fn top(&self) -> Result<Node, DbError> {
        Ok(made_up(Place::Top, b"", self.snapshots()?.newest_time_ns()))
    }

    /// What is at a place, if it is still there.
    pub fn node(&self, place: &Place) -> Result<Option<Node>, DbError> {
        match place {
            Place::Top => self.top().map(Some),
            Place::Ids => self.child(&Place::Top, IDS),
            Place::Dates => self.child(&Place::Top, DATES),
            Place::Latest => self.child(&Place::Top, LATEST),
            Place::Date(seq) => Ok(self.snapshots()?.date_link(*seq)),
            Place::Snapshot(seq) => self.snapshot(*seq),
            Place::Entry {
                snapshot,
                directory,
                name,
            } => {
                let Some(roots) = self.roots(*snapshot)? else {
                    return Ok(None);
                };
                self.read(|conn| entry(conn, *snapshot, &roots, *directory, name))
            }
        }
    }

    /// What the folder at `place` has under a name.
    pub fn child(&self, place: &Place, name: &[u8]) -> Result<Option<Node>, DbError> {
        let snapshots = self.snapshots()?;
        match place {
            Place::Top => Ok(self.at_top(&snapshots).into_iter().find(|node| node.entry.name == name)),
            Place::Ids => match snapshots.by_id(name) {
                Some(seq) => self.snapshot(seq),
                None => Ok(None),
            },
            Place::Dates => Ok(snapshots.by_date(name).and_then(|seq| snapshots.date_link(seq))),
            Place::Latest | Place::Date(_) => Ok(None),
            Place::Snapshot(_) | Place::Entry { .. } => {
                let Some((snapshot, roots)) = self.within(place)? else {
                    return Ok(None);
                };
                self.read(|conn| match directory_of(conn, place)? {
                    Some(directory) => entry(conn, snapshot, &roots, directory, name),
                    None => Ok(None),
                })
            }
        }
    }

    /// Up to `limit` entries of the folder at `place`, sorted by name, with names after `after` (empty: from the first on).
    /// Fewer only at the end.
    pub fn list(&self, place: &Place, after: &[u8], limit: usize) -> Result<Vec<Node>, DbError> {
        let snapshots = self.snapshots()?;
        match place {
            Place::Top => {
                let nodes = self.at_top(&snapshots).into_iter();
                Ok(nodes
                    .filter(|node| node.entry.name.as_slice() > after)
                    .take(limit)
                    .collect())
            }
            Place::Ids => {
                let nodes = snapshots.ids_after(after).map(|seq| self.snapshot(seq));
                nodes.filter_map(Result::transpose).take(limit).collect()
            }
            Place::Dates => {
                let nodes = snapshots.dates_after(after).filter_map(|seq| snapshots.date_link(seq));
                Ok(nodes.take(limit).collect())
            }
            Place::Latest | Place::Date(_) => Ok(Vec::new()),
            Place::Snapshot(_) | Place::Entry { .. } => {
                let Some((snapshot, roots)) = self.within(place)? else {
                    return Ok(Vec::new());
                };
                self.read(|conn| match directory_of(conn, place)? {
                    Some(directory) => level(conn, snapshot, &roots, directory, after, limit),
                    None => Ok(Vec::new()),
                })
            }
        }
    }

    /// The node at this path from the top, symbolic links followed: for those to whom links cannot be shown. A link leads
    /// nowhere outside of its snapshot; an absolute one is taken from the snapshot's `/`.
    pub fn find(&self, path: &[Vec<u8>]) -> Result<Option<Node>, DbError> {
        self.follow(vec![self.top()?], path)
    }

    /// Where the link `node` in the folder at `path` leads, if it is one; else the node itself.
    pub fn resolve(&self, folder: &[Vec<u8>], node: Node) -> Result<Option<Node>, DbError> {
        if node.entry.kind != EntryKind::Symlink {
            return Ok(Some(node));
        }
        let path: Vec<Vec<u8>> = folder.iter().cloned().chain([node.entry.name]).collect();
        self.find(&path)
    }

    fn follow(&self, mut trail: Vec<Node>, path: &[Vec<u8>]) -> Result<Option<Node>, DbError> {
        let mut ahead: Vec<Vec<u8>> = path.iter().rev().cloned().collect();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    if matches!(
                        trail.last(),
                        Some(Node {
                            place: Place::Entry { .. },
                            ..
                        })
                    ) {
                        trail.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let Some(child) = trail
                .last()
                .map(|node| self.child(&node.place, &name))
                .transpose()?
                .flatten()
            else {
                return Ok(None);
            };
            let target = match (&child.place, &child.entry.content) {
                (Place::Latest | Place::Date(_), _) => match self.linked(&child.place)? {
                    Some(snapshot) => {
                        trail.push(snapshot);
                        continue;
                    }
                    None => return Ok(None),
                },
                (_, Content::Inline(target)) if child.entry.kind == EntryKind::Symlink => target.clone(),
                _ => {
                    trail.push(child);
                    continue;
                }
            };
            links += 1;
            if links > LINKS_MAX {
                return Ok(None);
            }
            if target.starts_with(b"/") {
                let root = trail.iter().position(|node| matches!(node.place, Place::Snapshot(_)));
                trail.truncate(root.map_or(1, |root| root + 1));
            }
            ahead.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
        }
        Ok(trail.pop())
    }

    /// The snapshot that one of our own links leads to.
    fn linked(&self, place: &Place) -> Result<Option<Node>, DbError> {
        match place {
            Place::Date(seq) => self.snapshot(*seq),
            _ => match self.snapshots()?.newest() {
                Some(seq) => self.snapshot(seq),
                None => Ok(None),
            },
        }
    }

    /// Opens the file at a node.
    pub fn open(&self, node: &Node) -> Result<OpenFile, RestoreError> {
        self.0.files.open_entry(&node.entry)
    }

    fn at_top(&self, snapshots: &Snapshots) -> Vec<Node> {
        let time_ns = snapshots.newest_time_ns();
        let mut nodes = vec![made_up(Place::Dates, DATES, time_ns), made_up(Place::Ids, IDS, time_ns)];
        if let Some(target) = snapshots.newest().and_then(|seq| snapshots.id_name(seq)) {
            let target = [IDS, b"/", target].concat();
            nodes.push(link(Place::Latest, LATEST, target, time_ns));
        }
        nodes
    }

    fn snapshot(&self, seq: u64) -> Result<Option<Node>, DbError> {
        let snapshots = self.snapshots()?;
        let (Some(name), Some(shown)) = (snapshots.id_name(seq), snapshots.get(seq)) else {
            return Ok(None);
        };
        let mut node = made_up(Place::Snapshot(seq), name, shown.time_ns);
        if let Some(row) = self.read(|conn| rows::row_at(conn, seq, NOWHERE, b""))? {
            node.entry.meta = row.entry.meta;
        }
        Ok(Some(node))
    }

    fn roots(&self, snapshot: u64) -> Result<Option<Arc<[PathBytes]>>, DbError> {
        Ok(self.snapshots()?.get(snapshot).map(|shown| shown.roots.clone()))
    }

    /// The snapshot that a folder is in, and its roots.
    fn within(&self, place: &Place) -> Result<Option<Within>, DbError> {
        let (Place::Snapshot(snapshot) | Place::Entry { snapshot, .. }) = place else {
            return Ok(None);
        };
        Ok(self.roots(*snapshot)?.map(|roots| (*snapshot, roots)))
    }
}

/// A snapshot's number and its roots.
type Within = (u64, Arc<[PathBytes]>);

/// The row of the directory at a place in a snapshot.
fn directory_of(conn: &Connection, place: &Place) -> Result<Option<i64>, DbError> {
    match place {
        Place::Snapshot(_) => Ok(Some(SLASH)),
        Place::Entry {
            snapshot,
            directory,
            name,
        } => {
            let row = rows::row_at(conn, *snapshot, *directory, name)?;
            match row.filter(|row| row.entry.kind == EntryKind::Directory) {
                Some(_) => rows::child_directory(conn, *directory, name),
                None => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

/// Which names of a directory a snapshot shows.
struct Shows<'a> {
    roots: &'a [PathBytes],
    /// The directory's path, if only some are.
    above: Option<Vec<u8>>,
    all: bool,
}

impl<'a> Shows<'a> {
    fn of(conn: &Connection, roots: &'a [PathBytes], directory: i64) -> Result<Self, DbError> {
        let path = rows::directory_path(conn, directory)?;
        let scope = tree::scope(roots, &path);
        Ok(Self {
            roots,
            above: (scope == Scope::Above).then_some(path),
            all: scope == Scope::Inside,
        })
    }

    fn name(&self, name: &[u8]) -> bool {
        let above = |path: &Vec<u8>| tree::scope(self.roots, &rows::join(path, name)) != Scope::Outside;
        self.all || self.above.as_ref().is_some_and(above)
    }
}

fn entry(
    conn: &Connection,
    snapshot: u64,
    roots: &[PathBytes],
    directory: i64,
    name: &[u8],
) -> Result<Option<Node>, DbError> {
    let Some(row) = rows::row_at(conn, snapshot, directory, name)? else {
        return Ok(None);
    };
    let shows = Shows::of(conn, roots, directory)?.name(name);
    Ok(shows.then(|| at(snapshot, directory, row.entry)))
}

/// A batch of a directory, as long as was asked for unless it ends.
fn level(
    conn: &Connection,
    snapshot: u64,
    roots: &[PathBytes],
    directory: i64,
    after: &[u8],
    limit: usize,
) -> Result<Vec<Node>, DbError> {
    let shows = Shows::of(conn, roots, directory)?;
    let (mut nodes, mut last) = (Vec::new(), after.to_vec());
    loop {
        let asked = BATCH_ENTRIES.min(limit - nodes.len());
        let batch = rows::batch(conn, snapshot, directory, &last, asked)?;
        let is_last = batch.len() < asked;
        if let Some(entry) = batch.last() {
            last.clone_from(&entry.name);
        }
        let shown = batch.into_iter().filter(|entry| shows.name(&entry.name));
        nodes.extend(shown.map(|entry| at(snapshot, directory, entry)));
        if is_last || nodes.len() == limit {
            return Ok(nodes);
        }
    }
}

fn at(snapshot: u64, directory: i64, entry: Entry) -> Node {
    let place = Place::Entry {
        snapshot,
        directory,
        name: entry.name.clone(),
    };
    Node { place, entry }
}

/// A folder of ours: readable for everybody whom the mount lets in.
fn made_up(place: Place, name: &[u8], time_ns: i64) -> Node {
    let entry = Entry {
        name: name.to_vec(),
        kind: EntryKind::Directory,
        meta: Meta {
            mode: 0o555,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime_ns: time_ns,
            ctime_ns: time_ns,
            ..Meta::default()
        },
        content: Content::None,
    };
    Node { place, entry }
}

/// A link of ours.
fn link(place: Place, name: &[u8], target: Vec<u8>, time_ns: i64) -> Node {
    let mut node = made_up(place, name, time_ns);
    node.entry.kind = EntryKind::Symlink;
    node.entry.meta.mode = 0o777;
    node.entry.meta.size = target.len() as u64;
    node.entry.content = Content::Inline(target);
    node
}
