//! The durable queue: SQLite holds the jobs, a `priority-queue` window holds the best of them in memory.
//!
//! The database is the truth. The window only says which rows to look at next: what it names is checked against the row
//! before it is leased, so that a transaction that was rolled back after it told the window about its jobs does no harm.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use database::{Db, DbError};
use proto::id::VersionId;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::job::{Job, JobState, NewJob};
use crate::priority::{Score, Scorer, Weights};
use crate::queue::window::{Rank, Window};

mod window;

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

/// Jobs that the window holds. Chosen: some seconds of small files, under 1 MiB of memory.
const WINDOW_JOBS: usize = 4096;

/// `job.state` of jobs that are `Waiting`, but not before their time: kept out of the order until then.
const POSTPONED: i64 = 3;

const COLUMNS: &str =
    "version, path, bytes, mtime_ns, class, total, recency, size, class_points, ageing, state, attempts";

/// The queue; clones share it. One process opens it, once: others read through [`Db`].
#[derive(Clone)]
pub struct Queue(Arc<Inner>);

struct Inner {
    db: Db,
    scorer: Scorer,
    /// Locked only while the database's writer is, or for no longer than a look.
    window: Mutex<Window>,
}

impl Queue {
    /// Opens the queue and returns the leases of a process that died to the waiting jobs.
    pub fn open(db: Db, weights: Weights) -> Result<Self, DbError> {
        Self::with_window(db, weights, WINDOW_JOBS)
    }

    fn with_window(db: Db, weights: Weights, jobs: usize) -> Result<Self, DbError> {
        let reset = db.write::<_, DbError>(|tx| {
            let leased = totals(tx, JobState::Leased as i64)?;
            if leased.0 > 0 {
                tracing::info!(jobs = leased.0, "jobs that were being prepared start again");
                tx.execute("UPDATE job SET state = 0 WHERE state = 1", [])?;
                add_totals(tx, JobState::Leased as i64, -leased.0, -leased.1)?;
                add_totals(tx, JobState::Waiting as i64, leased.0, leased.1)?;
            }
            Ok(())
        });
        match reset {
            // Nobody prepares anything either.
            Err(DbError::ReadOnly) => {}
            other => other?,
        }
        Ok(Self(Arc::new(Inner {
            db,
            scorer: Scorer::new(weights),
            window: Mutex::new(Window::new(jobs)),
        })))
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.0.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds jobs within the caller's transaction (the one that records the file). A version already there is left alone.
    pub fn enqueue(&self, tx: &Transaction<'_>, jobs: &[NewJob], now_ns: i64) -> Result<(), DbError> {
        let mut insert = tx.prepare_cached(
            "INSERT INTO job (version, path, bytes, mtime_ns, class, total, recency, size, class_points, ageing, state)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0) ON CONFLICT (version) DO NOTHING",
        )?;
        let (mut count, mut bytes) = (0, 0);
        let mut window = self.window();
        for job in jobs {
            let (class, score) = self.0.scorer.score(&job.path, job.bytes, job.mtime_ns, now_ns);
            let inserted = insert.execute(params![
                job.version.0 as i64,
                job.path,
                stored_bytes(job.bytes),
                job.mtime_ns,
                class,
                score.total,
                score.recency,
                score.size,
                score.class,
                score.ageing,
            ])?;
            if inserted > 0 {
                count += 1;
                bytes += stored_bytes(job.bytes);
                window.insert(job.version.0 as i64, score.total);
            }
        }
        add_totals(tx, JobState::Waiting as i64, count, bytes)
    }

    /// Leases the best jobs that may run now, in order; empty when there are none.
    pub fn lease(&self, limits: BatchLimits, now_ns: i64) -> Result<Vec<Job>, DbError> {
        let leased = self.0.db.write(|tx| {
            let mut window = self.window();
            promote(tx, &mut window, now_ns)?;
            let jobs = take(tx, &mut window, limits)?;
            move_jobs(tx, jobs.iter().map(|job| job.version), JobState::Leased as i64)?;
            Ok(jobs)
        });
        if leased.is_err() {
            // Rolled back: jobs that left the window wait in the database still.
            self.window().forget();
        }
        leased
    }

    /// Gives a lease back, to be tried again not before `not_before_ns`; counts an attempt.
    pub fn retry(&self, version: VersionId, not_before_ns: i64) -> Result<(), DbError> {
        self.0.db.write(|tx| {
            move_jobs(tx, [version], POSTPONED)?;
            tx.prepare_cached("UPDATE job SET attempts = attempts + 1, not_before_ns = ?2 WHERE version = ?1")?
                .execute((version.0 as i64, not_before_ns))?;
            Ok(())
        })
    }

    /// Marks leased jobs as `Sending`, within the transaction that records their caps.
    pub fn sending(&self, tx: &Transaction<'_>, versions: &[VersionId]) -> Result<(), DbError> {
        move_jobs(tx, versions.iter().copied(), JobState::Sending as i64)?;
        Ok(())
    }

    /// Puts `Sending` jobs back to `Waiting`: their sealed content was lost before it was safe.
    pub fn reopen(&self, tx: &Transaction<'_>, versions: &[VersionId]) -> Result<(), DbError> {
        let moved = move_jobs(tx, versions.iter().copied(), JobState::Waiting as i64)?;
        let mut window = self.window();
        for (version, total) in moved {
            window.insert(version, total);
        }
        Ok(())
    }

    /// Removes jobs: done, or given up.
    pub fn settle(&self, tx: &Transaction<'_>, versions: &[VersionId]) -> Result<(), DbError> {
        let mut delete = tx.prepare_cached("DELETE FROM job WHERE version = ?1 RETURNING state, bytes")?;
        let mut tally = Tally::default();
        for version in versions {
            let gone: Option<(i64, i64)> = delete
                .query_row([version.0 as i64], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            if let Some((state, bytes)) = gone {
                tally.count(state, -1, -bytes);
            }
        }
        tally.store(tx)
    }

    /// The first `limit` jobs in order: those being sent, those leased, then those waiting.
    pub fn list(&self, limit: usize) -> Result<Vec<Job>, DbError> {
        self.0.db.read(|conn| {
            let mut jobs = Vec::new();
            for state in [JobState::Sending, JobState::Leased] {
                jobs.extend(in_order(conn, state as i64, limit - jobs.len())?);
            }
            let room = limit - jobs.len();
            let mut waiting = in_order(conn, JobState::Waiting as i64, room)?;
            waiting.extend(in_order(conn, POSTPONED, room)?);
            waiting.sort_by_key(|job| std::cmp::Reverse(Rank::new(job.score.total, job.version.0 as i64)));
            waiting.truncate(room);
            jobs.extend(waiting);
            Ok(jobs)
        })
    }

    /// One job.
    pub fn get(&self, conn: &Connection, version: VersionId) -> Result<Option<Job>, DbError> {
        Ok(conn
            .prepare_cached(&format!("SELECT {COLUMNS} FROM job WHERE version = ?1"))?
            .query_row([version.0 as i64], job)
            .optional()?)
    }

    /// Earliest time at which a job that was given back may run; `None` when none waits for its time.
    pub fn next_retry_ns(&self) -> Result<Option<i64>, DbError> {
        self.0.db.read(|conn| {
            Ok(
                conn.query_row("SELECT min(not_before_ns) FROM job WHERE state = 3", [], |row| {
                    row.get(0)
                })?,
            )
        })
    }

    /// Totals.
    pub fn counts(&self) -> Result<QueueCounts, DbError> {
        self.0.db.read(|conn| {
            let (jobs, bytes): (i64, i64) =
                conn.query_row("SELECT sum(jobs), sum(bytes) FROM job_total", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
            let sending = totals(conn, JobState::Sending as i64)?;
            Ok(QueueCounts {
                jobs: jobs as u64,
                bytes: bytes as u64,
                sending_jobs: sending.0 as u64,
                sending_bytes: sending.1 as u64,
            })
        })
    }
}

/// Jobs whose time has come wait in order again.
fn promote(tx: &Transaction<'_>, window: &mut Window, now_ns: i64) -> Result<(), DbError> {
    let mut due = tx.prepare_cached("SELECT version FROM job WHERE state = 3 AND not_before_ns <= ?1")?;
    let due: Vec<i64> = due.query_map([now_ns], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let versions = due.iter().map(|&version| VersionId(version as u64));
    for (version, total) in move_jobs(tx, versions, JobState::Waiting as i64)? {
        window.insert(version, total);
    }
    Ok(())
}

/// Takes jobs from the window, best first, until a limit is reached.
fn take(tx: &Transaction<'_>, window: &mut Window, limits: BatchLimits) -> Result<Vec<Job>, DbError> {
    let mut select = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM job WHERE version = ?1 AND state = 0"))?;
    let mut jobs = Vec::new();
    let mut bytes: u64 = 0;
    while jobs.len() < limits.jobs_max {
        let Some((version, rank)) = window.pop() else {
            if window.is_whole() || !refill(tx, window, &jobs)? {
                break;
            }
            continue;
        };
        let Some(job) = select.query_row([version], job).optional()? else {
            continue; // settled, or its transaction was rolled back
        };
        bytes = bytes.saturating_add(job.bytes);
        if bytes > limits.bytes_max && !jobs.is_empty() {
            window.insert(version, rank.total());
            break;
        }
        jobs.push(job);
    }
    Ok(jobs)
}

/// Reads the best waiting jobs into an empty window, without those `taken` in this very transaction. False: none is left.
fn refill(tx: &Transaction<'_>, window: &mut Window, taken: &[Job]) -> Result<bool, DbError> {
    let limit = window.jobs_max() + 1 + taken.len();
    let mut select =
        tx.prepare_cached("SELECT version, total FROM job WHERE state = 0 ORDER BY total DESC, version LIMIT ?1")?;
    let mut rows: Vec<(i64, f64)> = select
        .query_map([limit as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let more = rows.len() == limit;
    let taken: std::collections::HashSet<i64> = taken.iter().map(|job| job.version.0 as i64).collect();
    rows.retain(|(version, _)| !taken.contains(version));
    window.fill(&rows, more);
    Ok(!rows.is_empty())
}

/// Moves jobs to `state`; returns version and total of those that are there.
fn move_jobs(
    tx: &Transaction<'_>,
    versions: impl IntoIterator<Item = VersionId>,
    state: i64,
) -> Result<Vec<(i64, f64)>, DbError> {
    let mut select = tx.prepare_cached("SELECT state, bytes, total FROM job WHERE version = ?1")?;
    let mut update = tx.prepare_cached("UPDATE job SET state = ?2 WHERE version = ?1")?;
    let mut tally = Tally::default();
    let mut moved = Vec::new();
    for version in versions {
        let version = version.0 as i64;
        let found: Option<(i64, i64, f64)> = select
            .query_row([version], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((from, bytes, total)) = found else { continue };
        update.execute((version, state))?;
        tally.count(from, -1, -bytes);
        tally.count(state, 1, bytes);
        moved.push((version, total));
    }
    tally.store(tx)?;
    Ok(moved)
}

/// Changes of `job_total` that a transaction has yet to store.
#[derive(Default)]
struct Tally([(i64, i64); 4]);

impl Tally {
    fn count(&mut self, state: i64, jobs: i64, bytes: i64) {
        // Only this module writes states, so the index is in range; a damaged row is left out of the totals.
        if let Some(total) = usize::try_from(state).ok().and_then(|state| self.0.get_mut(state)) {
            total.0 += jobs;
            total.1 += bytes;
        }
    }
    fn store(self, tx: &Transaction<'_>) -> Result<(), DbError> {
        for (state, (jobs, bytes)) in self.0.into_iter().enumerate() {
            if (jobs, bytes) != (0, 0) {
                add_totals(tx, state as i64, jobs, bytes)?;
            }
        }
        Ok(())
    }
}

fn add_totals(tx: &Transaction<'_>, state: i64, jobs: i64, bytes: i64) -> Result<(), DbError> {
    tx.prepare_cached("UPDATE job_total SET jobs = jobs + ?2, bytes = bytes + ?3 WHERE state = ?1")?
        .execute((state, jobs, bytes))?;
    Ok(())
}

/// Jobs and bytes in a state.
fn totals(conn: &Connection, state: i64) -> Result<(i64, i64), DbError> {
    Ok(conn
        .prepare_cached("SELECT jobs, bytes FROM job_total WHERE state = ?1")?
        .query_row([state], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

fn in_order(conn: &Connection, state: i64, limit: usize) -> Result<Vec<Job>, DbError> {
    let mut select = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM job WHERE state = ?1 ORDER BY total DESC, version LIMIT ?2"
    ))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let jobs = select.query_map((state, limit), job)?.collect::<Result<_, _>>()?;
    Ok(jobs)
}

/// SQLite's integers are signed; no file is longer than half of what 64 bits count. Totals stay far below overflow.
fn stored_bytes(bytes: u64) -> i64 {
    const BYTES_MAX: u64 = 1 << 56;
    bytes.min(BYTES_MAX) as i64
}

fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    Ok(Job {
        version: VersionId(row.get::<_, i64>(0)? as u64),
        path: row.get(1)?,
        bytes: row.get::<_, i64>(2)?.max(0) as u64,
        mtime_ns: row.get(3)?,
        class: row.get(4)?,
        score: Score {
            total: row.get(5)?,
            recency: row.get(6)?,
            size: row.get(7)?,
            class: row.get(8)?,
            ageing: row.get(9)?,
        },
        state: match row.get::<_, i64>(10)? {
            1 => JobState::Leased,
            2 => JobState::Sending,
            _ => JobState::Waiting,
        },
        attempts: row.get(11)?,
    })
}

#[cfg(test)]
mod tests;
