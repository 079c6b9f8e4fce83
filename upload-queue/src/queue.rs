//! The durable queue: SQLite holds the jobs, a `priority-queue` window holds the best of them in memory.

use proto::id::VersionId;
use rusqlite::{Connection, Transaction};

use crate::db::{Db, DbError};
use crate::job::{Job, NewJob};
use crate::priority::Weights;

/// How much to lease at once: one large file, or many small ones.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Most jobs.
    pub jobs_max: usize,
    /// Most bytes, unless the first job alone is larger.
    pub bytes_max: u64,
}

/// Totals over the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Jobs in any state.
    pub jobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of those, jobs whose content is sealed and on its way.
    pub sending_jobs: u64,
    /// Their bytes.
    pub sending_bytes: u64,
}

/// The queue; clones share it.
#[derive(Clone)]
pub struct Queue {}

impl Queue {
    /// Opens the queue and returns the leases of a process that died to the waiting jobs.
    pub fn open(_db: Db, _weights: Weights) -> Result<Self, DbError> {
        todo!()
    }
    /// Adds jobs within the caller's transaction (the one that records the file). A version already there is left alone.
    pub fn enqueue(&self, _tx: &Transaction<'_>, _jobs: &[NewJob], _now_ns: i64) -> Result<(), DbError> {
        todo!()
    }
    /// Leases the best jobs that may run now, in order; empty when there are none.
    pub fn lease(&self, _limits: BatchLimits, _now_ns: i64) -> Result<Vec<Job>, DbError> {
        todo!()
    }
    /// Gives a lease back, to be tried again not before `not_before_ns`; counts an attempt.
    pub fn retry(&self, _version: VersionId, _not_before_ns: i64) -> Result<(), DbError> {
        todo!()
    }
    /// Marks leased jobs as `Sending`, within the transaction that records their caps.
    pub fn sending(&self, _tx: &Transaction<'_>, _versions: &[VersionId]) -> Result<(), DbError> {
        todo!()
    }
    /// Puts `Sending` jobs back to `Waiting`: their sealed content was lost before it was safe.
    pub fn reopen(&self, _tx: &Transaction<'_>, _versions: &[VersionId]) -> Result<(), DbError> {
        todo!()
    }
    /// Removes jobs: done, or given up.
    pub fn settle(&self, _tx: &Transaction<'_>, _versions: &[VersionId]) -> Result<(), DbError> {
        todo!()
    }
    /// The first `limit` jobs in order: those being sent, those leased, then those waiting.
    pub fn list(&self, _limit: usize) -> Result<Vec<Job>, DbError> {
        todo!()
    }
    /// One job.
    pub fn get(&self, _conn: &Connection, _version: VersionId) -> Result<Option<Job>, DbError> {
        todo!()
    }
    /// Earliest time at which a job that was given back may run; `None` when none waits for its time.
    pub fn next_retry_ns(&self) -> Result<Option<i64>, DbError> {
        todo!()
    }
    /// Totals.
    pub fn counts(&self) -> Result<QueueCounts, DbError> {
        todo!()
    }
}
