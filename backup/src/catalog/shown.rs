//! Which snapshots show a row: those of its time whose roots cover its path.

use database::DbError;
use proto::log_record::PathBytes;
use rusqlite::Connection;

use super::tree::rows::{EntryRow, join};
use super::tree::{Scope, Snapshot, rows, scope};

/// Snapshots of the same roots.
pub(super) struct Series<'a> {
    roots: &'a [PathBytes],
    /// Ascending sequence numbers.
    seqs: Vec<u64>,
}

/// Snapshots, ascending, by their roots: of these there are few, however many snapshots there are.
pub(super) fn series(snapshots: &[Snapshot]) -> Vec<Series<'_>> {
    let mut all: Vec<Series<'_>> = Vec::new();
    for Snapshot { record, .. } in snapshots {
        match all.iter_mut().find(|series| series.roots == record.source_roots) {
            Some(series) => series.seqs.push(record.seq),
            None => all.push(Series {
                roots: &record.source_roots,
                seqs: vec![record.seq],
            }),
        }
    }
    all
}

/// What is called with the path of a directory and each of its rows that names a content.
pub(super) type Visit<'a> = dyn FnMut(&[u8], &EntryRow) -> Result<(), DbError> + 'a;

/// Calls `visit` for every row that names a content, directory by directory.
pub(super) fn each_content(conn: &Connection, visit: &mut Visit<'_>) -> Result<(), DbError> {
    let mut place: Option<(i64, Vec<u8>)> = None;
    let mut query = conn.prepare_cached(&format!(
        "SELECT {}, directory FROM entry WHERE version IS NOT NULL ORDER BY directory",
        rows::COLUMNS
    ))?;
    let mut found = query.query([])?;
    while let Some(row) = found.next()? {
        let directory: i64 = row.get(6)?;
        if place.as_ref().is_none_or(|(known, _)| *known != directory) {
            place = Some((directory, rows::directory_path(conn, directory)?));
        }
        let path = place.as_ref().map_or(&b"/"[..], |(_, path)| path);
        visit(path, &rows::read_row(row)?)?;
    }
    Ok(())
}

/// Whether any of the snapshots shows a row of the directory at `path`.
pub(super) fn is_shown(series: &[Series<'_>], path: &[u8], row: &EntryRow) -> bool {
    showing(series, path, row).next().is_some()
}

/// Runs of sequence numbers of the snapshots that show a row of the directory at `path`; none of them is empty.
pub(super) fn showing<'a>(
    series: &'a [Series<'_>],
    path: &'a [u8],
    row: &'a EntryRow,
) -> impl Iterator<Item = &'a [u64]> {
    series.iter().filter_map(move |Series { roots, seqs }| {
        let first = seqs.partition_point(|seq| *seq < row.since);
        let end = row
            .until
            .map_or(seqs.len(), |until| seqs.partition_point(|seq| *seq < until));
        let run = seqs.get(first..end).filter(|run| !run.is_empty())?;
        let covered = match scope(roots, path) {
            Scope::Inside => true,
            Scope::Outside => false,
            Scope::Above => scope(roots, &join(path, &row.entry.name)) != Scope::Outside,
        };
        covered.then_some(run)
    })
}
