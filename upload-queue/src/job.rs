//! An upload job: one file version whose content is not yet safe on the grid.

use proto::id::VersionId;

use crate::priority::Score;

/// A job to be enqueued.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// What is to be uploaded.
    pub version: VersionId,
    /// Absolute path where its content is read.
    pub path: Vec<u8>,
    /// Bytes by length.
    pub bytes: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// A job in the queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// What is to be uploaded.
    pub version: VersionId,
    /// Absolute path where its content is read.
    pub path: Vec<u8>,
    /// Bytes by length.
    pub bytes: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Name of its class.
    pub class: String,
    /// Its score.
    pub score: Score,
    /// Where it stands.
    pub state: JobState,
    /// How often preparing it failed for a reason that may pass.
    pub attempts: u32,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Not begun.
    Waiting = 0,
    /// Being read and sealed; back to `Waiting` if the process dies.
    Leased = 1,
    /// All of its content is in packs that are durable here; not all of them are safe on the grid, or not yet posted.
    Sending = 2,
}
