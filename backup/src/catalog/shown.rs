//! Which snapshots show a row: those of its time whose roots cover its path.

use proto::log_record::PathBytes;

use super::tree::rows::{EntryRow, join};
use super::tree::{Scope, Snapshot, scope};

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
        match all.iter_mut().find(|series| series.roots == record.roots) {
            Some(series) => series.seqs.push(record.seq),
            None => all.push(Series {
                roots: &record.roots,
                seqs: vec![record.seq],
            }),
        }
    }
    all
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
