//! What is said of snapshots: what they are and become, changes, groups, statistics, drills.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{EntryKind, PathName};
use crate::named::named;
use crate::request::GroupBy;

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// The beginning of the id of the device that made it.
    pub device: String,
    /// Its name.
    #[serde(default)]
    pub device_name: String,
    /// When.
    pub time: Timestamp,
    /// All its content was sealed and handed on; whether enough of it is left, `broken` says.
    pub complete: bool,
    /// Files in it.
    pub files: u64,
    /// Bytes in it, by length.
    pub bytes: u64,
    /// The snapshot before.
    pub parent: Option<String>,
    /// The folders that were backed up.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// No policy forgets it.
    #[serde(default)]
    pub pinned: bool,
    /// Content of it is lost: it cannot be restored whole.
    #[serde(default)]
    pub broken: bool,
}

/// What becomes of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Its id.
    pub id: String,
    /// When it was made.
    pub time: Timestamp,
    /// What becomes of it.
    pub action: Fate,
    /// What keeps it.
    pub reasons: Vec<Keeper>,
}

/// A path that differs between two snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Absolute.
    #[serde(flatten)]
    pub path: PathName,
    /// How it differs.
    pub change: ChangeKind,
    /// What it is now, or was.
    pub kind: EntryKind,
    /// In what it differs: `content`, `mode`, `owner`, `time`, `xattrs`.
    pub what: Vec<String>,
    /// Length before; none if it was not there.
    pub bytes_before: Option<u64>,
    /// Length after; none if it is gone.
    pub bytes_after: Option<u64>,
}

named! {
    /// How a path differs between two snapshots.
    pub enum ChangeKind {
        /// Only the second has it.
        Added = "added",
        /// Only the first has it.
        Removed = "removed",
        /// It has another content.
        Modified = "modified",
        /// Its metadata alone differs.
        Metadata = "metadata",
        /// It is something else: a folder where a file was.
        Type = "type",
    }

    /// What keeps a snapshot.
    pub enum Keeper {
        /// It is one of the newest.
        Last = "last",
        /// It is not much older than the newest.
        Within = "within",
        /// It is the newest of an hour.
        Hourly = "hourly",
        /// Of a day.
        Daily = "daily",
        /// Of a week.
        Weekly = "weekly",
        /// Of a month.
        Monthly = "monthly",
        /// Of a year.
        Yearly = "yearly",
        /// Its time cannot be right: look at it.
        Clock = "clock",
        /// One of its tags.
        Tag = "tag",
        /// It is pinned.
        Pinned = "pinned",
    }

    /// What becomes of a snapshot.
    pub enum Fate {
        /// It stays.
        Keep = "keep",
        /// No backup wants it any more.
        Forget = "forget",
        /// It is wanted again.
        Undelete = "undelete",
    }
}

/// Snapshots that follow have this in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// What they were grouped by.
    pub by: Vec<GroupBy>,
    /// What they have in common, for people.
    pub name: String,
    /// How many follow.
    pub snapshots: u64,
}

/// `verify`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifySummary {
    /// Id of the snapshot read.
    pub snapshot: String,
    /// Files picked.
    pub files: u64,
    /// Bytes read from the grid and checked.
    pub bytes: u64,
    /// Files whose bytes on the disk are the same.
    pub identical: u64,
    /// Files that were read, and have changed on the disk since the snapshot.
    pub changed_since: u64,
    /// Files that claim not to have changed, and have other bytes.
    pub differing: u64,
    /// Files that could not be read from the grid.
    pub unreadable: u64,
    /// Peers whose newest head is missing, old or damaged.
    #[serde(default)]
    pub heads_bad: u64,
    /// Buckets whose copy of the grid's roster is missing, old or damaged.
    #[serde(default)]
    pub rosters_bad: u64,
    /// Newer snapshots that were complete, and of which content was lost since.
    #[serde(default)]
    pub snapshots_broken: u64,
    /// All could be read, none differs, all peers have the head (and the roster) that leads there, and no newer snapshot is broken.
    pub ok: bool,
    /// Time taken.
    pub seconds: f64,
}

/// `stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsSummary {
    /// Id of the snapshot; none: all.
    pub snapshot: Option<String>,
    /// Snapshots counted.
    pub snapshots: u64,
    /// Files in them, each snapshot's own.
    pub files: u64,
    /// Bytes by length: what restoring each of them would write.
    pub bytes: u64,
    /// Different contents of more than 128 bytes.
    pub contents: u64,
    /// Contents that are not uploaded yet; the numbers below leave them out.
    pub contents_waiting: u64,
    /// Different chunks.
    pub chunks: u64,
    /// Bytes of different chunks, and of different contents up to 4 KiB.
    pub bytes_deduplicated: u64,
    /// The same, chunks compressed.
    pub bytes_compressed: u64,
    /// Data packs that they lie in, perhaps with chunks of other snapshots.
    pub packs: u64,
    /// Bytes of all shares of these packs that peers hold: with redundancy and padding.
    pub bytes_stored: u64,
    /// Of one snapshot: compressed bytes that no other snapshot refers to.
    pub bytes_unique: Option<u64>,
}

/// `diff`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffSummary {
    /// Id of the first snapshot.
    pub before: String,
    /// Id of the second.
    pub after: String,
    /// Paths that only the second has.
    pub added: u64,
    /// Paths that only the first has.
    pub removed: u64,
    /// Paths with another content.
    pub modified: u64,
    /// Paths whose metadata alone differs.
    pub metadata: u64,
    /// Paths that are something else.
    pub type_changed: u64,
    /// Bytes by length of what was added, and of what changed as it is now.
    pub bytes_added: u64,
    /// Bytes by length of what was removed, and of what changed as it was.
    pub bytes_removed: u64,
}
