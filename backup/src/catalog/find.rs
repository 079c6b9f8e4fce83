//! Everything of a kind that any snapshot shows, each state of it once.
//!
//! Every row of the catalog is read once, however many snapshots show it.

use database::DbError;
use proto::log_record::Entry;
use rusqlite::Connection;

use super::shown::Series;
use super::tree::rows;
use super::tree::rows::{EntryRow, SLASH};
use super::{shown, tree};

/// A state of a path, and who shows it.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Absolute.
    pub path: &'a [u8],
    /// What it is, or was.
    pub entry: &'a Entry,
    /// Sequence numbers of the oldest and the newest snapshot that shows it so.
    pub seqs: (u64, u64),
    /// How many snapshots show it so.
    pub snapshots: u64,
}

/// What is called with everything found; an error ends it.
pub type Visit<'a, E> = dyn FnMut(Found<'_>) -> Result<(), E> + 'a;

/// Calls `visit` for each state of each path below `/` that a kept snapshot shows, or the one with the sequence number
/// `only`: folder by folder, names in byte order, older states first. `wants` says by its name alone whether a path is worth
/// more than a look.
pub fn find<E: From<DbError>>(
    conn: &Connection,
    only: Option<u64>,
    wants: &dyn Fn(&[u8], &Entry) -> bool,
    visit: &mut Visit<'_, E>,
) -> Result<(), E> {
    let mut kept = tree::kept(conn)?;
    kept.retain(|known| only.is_none_or(|only| known.record.seq == only));
    let series = shown::series(&kept);
    let mut pending = vec![SLASH];
    while let Some(directory) = pending.pop() {
        let path = rows::directory_path(conn, directory)?;
        look_into(conn, directory, &path, &series, wants, visit)?;
        let first = pending.len();
        pending.extend(rows::child_directories(conn, directory)?);
        pending[first..].reverse();
    }
    Ok(())
}

fn look_into<E: From<DbError>>(
    conn: &Connection,
    directory: i64,
    path: &[u8],
    series: &[Series<'_>],
    wants: &dyn Fn(&[u8], &Entry) -> bool,
    visit: &mut Visit<'_, E>,
) -> Result<(), E> {
    let mut query = conn
        .prepare_cached(&format!(
            "SELECT {} FROM entry WHERE directory = ? ORDER BY name, since",
            rows::COLUMNS
        ))
        .map_err(DbError::from)?;
    let mut found = query.query([directory]).map_err(DbError::from)?;
    while let Some(row) = found.next().map_err(DbError::from)? {
        let row: EntryRow = rows::read_row(row).map_err(DbError::from)?;
        let of_row = rows::join(path, &row.entry.name);
        if !wants(&of_row, &row.entry) {
            continue;
        }
        let (mut oldest, mut newest, mut snapshots) = (u64::MAX, 0, 0);
        for run in shown::showing(series, path, &row) {
            oldest = oldest.min(run[0]);
            newest = newest.max(run[run.len() - 1]);
            snapshots += run.len() as u64;
        }
        if snapshots > 0 {
            visit(Found {
                path: &of_row,
                entry: &row.entry,
                seqs: (oldest, newest),
                snapshots,
            })?;
        }
    }
    Ok(())
}
