//! Which snapshots cannot be restored whole, because content of theirs is lost.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use database::DbError;
use proto::id::VersionId;
use proto::log_record::SnapshotRecord;
use rusqlite::Connection;
use upload_queue::packs::{Counter, PackRow};

use super::content;
use super::tree::covers;
use super::tree::rows::directory_path;

/// A row of the tree whose content is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LostRow {
    directory: Vec<u8>,
    since: u64,
    until: Option<u64>,
}

/// Rows of the tree whose content is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Broken(Vec<LostRow>);

impl Broken {
    /// Looks for them: at every row if any pack is lost, and at none if not.
    pub fn find(conn: &Connection, counter: &Counter) -> Result<Self, DbError> {
        let weak = counter.weak(conn, 0)?;
        let lost: HashSet<PackRow> = weak
            .into_iter()
            .filter(|(_, counted)| counted.is_lost())
            .map(|(row, _)| row)
            .collect();
        if lost.is_empty() {
            return Ok(Self::default());
        }
        let mut paths: HashMap<i64, Vec<u8>> = HashMap::new();
        let mut rows = Vec::new();
        let mut select =
            conn.prepare_cached("SELECT directory, version, since, until FROM entry WHERE version IS NOT NULL")?;
        let mut found = select.query([])?;
        while let Some(row) = found.next()? {
            let version = VersionId(row.get::<_, i64>(1)?.cast_unsigned());
            if !content::packs_of(conn, version)?.iter().any(|pack| lost.contains(pack)) {
                continue;
            }
            let directory: i64 = row.get(0)?;
            let path = match paths.entry(directory) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(directory_path(conn, directory)?),
            };
            rows.push(LostRow {
                directory: path.clone(),
                since: row.get(2)?,
                until: row.get(3)?,
            });
        }
        Ok(Self(rows))
    }

    /// Whether a snapshot shows any of them.
    pub fn is_broken(&self, snapshot: &SnapshotRecord) -> bool {
        self.0.iter().any(|row| {
            let is_of_its_time = row.since <= snapshot.seq && row.until.is_none_or(|until| until > snapshot.seq);
            // A root may be a file: its folder is above it.
            let is_below = |root: &[u8]| covers(root, &row.directory) || covers(&row.directory, root);
            is_of_its_time && snapshot.source_roots.iter().any(|root| is_below(&root.0))
        })
    }
}
