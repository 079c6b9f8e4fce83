//! Files that are not as they were scanned: read in another state, gone, or not to be read at all.

use std::os::unix::ffi::OsStrExt;
use std::sync::PoisonError;
use std::time::Duration;

use proto::log_record::Meta;
use upload_queue::job::Job;

use crate::catalog::tree;
use crate::said::path_buf;
use crate::source::Source;
use crate::writer::run::Run;
use crate::writer::{WriteError, now_ns};

/// When a file is looked for again whose file system is not mounted: not in this run.
const UNMOUNTED_RETRY: Duration = Duration::from_secs(60);

impl Run<'_> {
    /// The file was read in another state than it was scanned in.
    pub fn amend(&self, job: &Job, meta: &Meta) -> Result<(), WriteError> {
        let _not_while_logs_are_posted = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        Ok(self
            .writer
            .db
            .write(|tx| tree::amend(tx, job.version, &job.path, meta))?)
    }

    /// The file is not where it was. If what it was on is not mounted any more, it waits. Else somebody deleted it: nothing is
    /// wrong, and it is in no snapshot.
    pub fn missing(&self, source: &dyn Source, job: &Job) -> Result<(), WriteError> {
        let device = self
            .writer
            .db
            .read(|conn| tree::current_device(conn, job.version, &job.path))?;
        if device.is_some() && device != device_above(source, &job.path) {
            let later = now_ns().saturating_add(UNMOUNTED_RETRY.as_nanos() as i64);
            self.retry(job.version, later)?;
            self.failed(path_buf(&job.path), "What it is on is not mounted any more".to_owned());
            return Ok(());
        }
        self.withdraw(job, true)?;
        self.count_gone();
        Ok(())
    }

    /// The file cannot be read: its entry is taken back, its job removed, its path reported.
    pub fn give_up(&self, job: &Job, vanished: bool, reason: String) -> Result<(), WriteError> {
        self.withdraw(job, vanished)?;
        self.failed(path_buf(&job.path), reason);
        Ok(())
    }

    /// Snapshots that had its content on the grid go on showing it, though it is lost: a peer may come back with it.
    fn withdraw(&self, job: &Job, vanished: bool) -> Result<(), WriteError> {
        let was_sent = self.lost_before(job)?.is_some();
        {
            let _not_while_logs_are_posted = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            self.writer.db.write(|tx| {
                if !was_sent {
                    tree::withdraw(tx, job.version, &job.path, vanished)?;
                }
                self.writer.queue.settle(tx, &[job.version])
            })?;
        }
        self.unlease(job.version);
        Ok(())
    }
}

/// The file system of the nearest folder above `path` that is there.
fn device_above(source: &dyn Source, path: &[u8]) -> Option<u64> {
    let path = path_buf(path);
    let mut above = path.ancestors().skip(1);
    above.find_map(|folder| Some(source.examine(folder.as_os_str().as_bytes()).ok()?.1.device))
}
