//! Names and metadata over time: every entry has the snapshots from which and until which it was so.
//!
//! The parts are private and their functions are offered here, so that callers read `tree::walk` and need not know how
//! this is divided.

mod amend;
mod complete;
mod diff;
mod forget;
mod left_out;
mod log;
mod marks;
mod named;
mod replay;
pub(crate) mod rows;
mod snapshots;
mod walk;

use database::DbError;
use proto::id::DeviceId;
use proto::log_record::SnapshotRecord;

pub use amend::{amend, current_device, withdraw};
pub(crate) use complete::mark_complete;
pub use complete::snapshot_complete;
pub use diff::{Pair, VisitPair, diff};
pub use forget::{forget, forgotten, forgotten_ranges, kept, unforget};
pub use left_out::left_out;
pub use log::{AmendmentMark, amendment_mark, log, posted, posted_until, unposted};
pub use marks::{Marks, mark, marks, pin, set_tags, unpin};
pub use named::{find_forgotten, find_snapshot, is_of_earlier_date};
pub use replay::Replay;
pub use snapshots::{by_time, fit_source_roots, latest, snapshot, snapshot_id, snapshots};
pub use walk::{Newest, Visit, children, covers, entry, newest, walk};

pub(crate) use amend::note as note_amendment;
pub(crate) use forget::replay_forgotten;
pub(crate) use left_out::set_left_out;
pub(crate) use marks::{ranges, replay_marks};
pub(crate) use replay::close_below;
pub(crate) use snapshots::insert as insert_snapshot;
pub(crate) use walk::{Scope, scope};

/// A snapshot as the catalog knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Record as in logs and roots.
    pub record: SnapshotRecord,
    /// Device that made it.
    pub device: DeviceId,
}

/// Seconds that local time was ahead of UTC at a moment, in seconds since 1970: what it is today says nothing of last summer.
pub type OffsetAt<'a> = &'a dyn Fn(i64) -> i32;

/// No snapshot, or more than one, is meant by a name.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// None fits.
    #[error("No snapshot `{name}`; `gridbackup snapshots` lists them")]
    Unknown {
        /// As typed.
        name: String,
    },
    /// Several ids begin so.
    #[error("`{name}` fits {count} snapshots; give more digits")]
    Ambiguous {
        /// As typed.
        name: String,
        /// How many.
        count: usize,
    },
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<rusqlite::Error> for FindError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Db(error.into())
    }
}
