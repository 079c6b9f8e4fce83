//! Which snapshot can be restored whole: the newest that is complete and of which nothing is lost.

use backup::catalog::broken::Broken;
use backup::catalog::tree;
use backup::catalog::tree::Snapshot;
use database::DbError;
use rusqlite::Connection;
use upload_queue::packs::Counter;
use upload_queue::peers::PeerKey;

/// Snapshots looked at, from the newest back.
const SNAPSHOTS_LOOKED_AT_MAX: usize = 100;

/// The newest snapshots that were complete once.
#[derive(Clone, Debug, Default)]
pub(super) struct Newest {
    /// The newest that still is.
    pub whole: Option<Snapshot>,
    /// Newer ones of which content was lost since, newest first.
    pub broken: Vec<Snapshot>,
}

/// Looks for them; `is_known` says whether somebody still is a peer.
pub(super) fn newest(conn: &Connection, is_known: &dyn Fn(&PeerKey) -> bool) -> Result<Newest, DbError> {
    let broken = Broken::find(conn, &Counter::new(conn, is_known)?)?;
    let mut newest = Newest::default();
    for snapshot in tree::kept(conn)?.into_iter().rev().take(SNAPSHOTS_LOOKED_AT_MAX) {
        if !tree::snapshot_complete(conn, snapshot.record.seq)? {
            continue;
        }
        if !broken.is_broken(&snapshot.record) {
            newest.whole = Some(snapshot);
            break;
        }
        newest.broken.push(snapshot);
    }
    Ok(newest)
}
