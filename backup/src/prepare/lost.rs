//! Lost content becomes work again: what its file still has is read and sent once more.
//!
//! Only from a file that is what the catalog says it was, to the last change: an older snapshot must not get newer content.
//! Until it is read, the catalog keeps the places of lost content: a peer may come back with it first.

use database::DbError;
use proto::id::VersionId;
use proto::log_record::{Content, Meta};
use upload_queue::job::{Job, JobState, NewJob};

use crate::catalog::content::lost;
use crate::catalog::content::lost::{Lost, LostFile};
use crate::catalog::{content, tree};
use crate::source::Source;
use crate::source::local::LocalFiles;
use crate::source::read_file::SourceFile;
use crate::writer::run::Run;
use crate::writer::{WriteError, Writer, now_ns};

/// Jobs opened in one transaction.
const BATCH: usize = 4096;

/// Whether the file at a lost file's path is still what it was: then its content can be sent again. Opens it.
pub fn is_here(file: &LostFile) -> bool {
    is_in(&LocalFiles, file)
}

fn is_in(source: &dyn Source, file: &LostFile) -> bool {
    file.is_current && SourceFile::open(source, &file.path).is_ok_and(|found| found.is_as(&file.meta))
}

impl Writer {
    /// Puts the lost files that are still here into the queue again; returns how many. Lost packs that no file leads into
    /// are given up.
    pub(super) fn reopen_lost(&self, source: &dyn Source) -> Result<usize, WriteError> {
        let (mut batch, mut reopened) = (Vec::new(), 0);
        self.db.read(|conn| {
            Lost::load(conn)?.for_each_file::<WriteError>(conn, &mut |file| {
                if is_in(source, &file) {
                    batch.push(file);
                }
                if batch.len() == BATCH {
                    reopened += self.reopen(&std::mem::take(&mut batch))?;
                }
                Ok(())
            })
        })?;
        reopened += self.reopen(&batch)?;
        if reopened > 0 {
            tracing::warn!(
                files = reopened,
                "content was lost at the peers; it is read here and sent again"
            );
        }
        self.db.write(|tx| lost::bury(tx, now_ns()))?;
        Ok(reopened)
    }

    fn reopen(&self, files: &[LostFile]) -> Result<usize, WriteError> {
        Ok(self.db.write::<_, DbError>(|tx| {
            let mut reopened = 0;
            for file in files {
                match self.queue.get(tx, file.version)?.map(|job| job.state) {
                    None => self.queue.enqueue(tx, &[job(file)], now_ns())?,
                    Some(JobState::Sending) => self.queue.reopen(tx, &[file.version])?,
                    Some(JobState::Waiting | JobState::Leased) => continue,
                }
                reopened += 1;
            }
            Ok(reopened)
        })?)
    }
}

fn job(file: &LostFile) -> NewJob {
    NewJob {
        version: file.version,
        path: file.path.clone(),
        bytes: file.meta.size,
        mtime_ns: file.meta.mtime_ns,
    }
}

impl Run<'_> {
    /// If a job is for content that was on the grid and is lost: what its file has to be. `Some(None)`: it is that no more.
    pub fn lost_before(&self, job: &Job) -> Result<Option<Option<Meta>>, WriteError> {
        Ok(self.writer.db.read::<_, DbError>(|conn| {
            if content::place(conn, job.version)?.is_none() {
                return Ok(None);
            }
            let newest = tree::newest(conn, &job.path)?.map(|newest| newest.entry);
            Ok(Some(
                newest
                    .filter(|entry| is_of(&entry.content, job.version))
                    .map(|entry| entry.meta),
            ))
        })?)
    }
}

fn is_of(content: &Content, version: VersionId) -> bool {
    matches!(content, Content::Version(of) if *of == version)
}
