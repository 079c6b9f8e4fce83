//! What a run leaves behind for whoever looks later: that it was, how it ended, what it could not read, and why it is not
//! all safe.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use api::clock;
use api::failure::{Exit, Failure};
use api::message::Reason;
use backup::catalog::trouble;
use backup::catalog::trouble::{Kind, Met, RunEnd};
use backup::scan::{FailureKind, ScanError, ScanFailure, ScanSummary};
use backup::writer::WriteSummary;
use database::DbError;

use crate::Engine;
use crate::verdict::{Named, judge};

impl Engine {
    /// Runs to its end, and records that it began and how it ended.
    pub(super) async fn remembered(
        &self,
        whole: bool,
        run: impl Future<Output = Result<Exit, Failure>>,
    ) -> Result<Exit, Failure> {
        let db = &self.0.db;
        let id = db.write(|tx| trouble::begin_run(tx, clock::now_ns(), whole))?;
        let ending = run.await;
        self.0.delivered.notify_one();
        let (exit, error) = match &ending {
            Ok(exit) => (*exit, None),
            Err(failure) => (failure.exit, Some(failure.error.clone())),
        };
        let end = RunEnd {
            ended_ns: clock::now_ns(),
            exit: exit.code(),
            error,
        };
        match (db.write(|tx| trouble::end_run(tx, id, &end)), ending) {
            (Err(error), Ok(_)) => Err(error.into()),
            // What failed first says more than that nothing can be recorded after it.
            (_, ending) => ending,
        }
    }

    /// Records which folders there are to back up: of one that was taken out nothing is lacking any more.
    pub(super) fn note_folders(&self, folders: &[PathBuf]) -> Result<(), Failure> {
        let folders: Vec<Vec<u8>> = folders.iter().map(|folder| real(folder)).collect();
        Ok(self.0.db.write(|tx| trouble::folders(tx, &folders, clock::now_ns()))?)
    }

    /// Records what a scan of these roots could not look at, in place of what was known there.
    pub(super) fn note_seen(&self, roots: &[PathBuf], scanned: &Result<ScanSummary, ScanError>) -> Result<(), Failure> {
        let (within, failed): (Vec<Vec<u8>>, Vec<_>) = match scanned {
            Ok(scanned) => (roots.iter().map(|root| real(root)).collect(), scanned.failed.clone()),
            // It stopped there: nothing is known of the others.
            Err(ScanError::Root { path, reason }) => {
                let failure = ScanFailure {
                    path: path.clone(),
                    kind: FailureKind::Missing,
                    reason: reason.clone(),
                };
                (Vec::new(), vec![failure])
            }
            Err(_) => return Ok(()),
        };
        let now_ns = clock::now_ns();
        let is_partial = |failure: &&ScanFailure| failure.kind == FailureKind::Incomplete;
        let partial = named(failed.iter().filter(is_partial));
        let unseen = named(failed.iter().filter(|failure| !is_partial(failure)));
        Ok(self.0.db.write::<_, DbError>(|tx| {
            for (kind, list) in [(Kind::Partial, &partial), (Kind::Unseen, &unseen)] {
                let met = Met {
                    kind,
                    within: &within,
                    list,
                    now_ns,
                };
                trouble::replace(tx, &met)?;
            }
            Ok(())
        })?)
    }

    /// Records the files whose content could not be read. A run tries all that are due, whatever it was asked to look at.
    pub(super) fn note_read(&self, failed: &[(PathBuf, String)]) -> Result<(), Failure> {
        let bytes = |path: &PathBuf| path.as_os_str().as_bytes().to_vec();
        let list: Vec<_> = failed
            .iter()
            .map(|(path, reason)| (bytes(path), reason.clone()))
            .collect();
        let met = Met {
            kind: Kind::Unread,
            within: &[b"/".to_vec()],
            list: &list,
            now_ns: clock::now_ns(),
        };
        Ok(self.0.db.write(|tx| trouble::replace(tx, &met))?)
    }

    /// The exit code of a run that ends now, and why. What other paths lack that it did not look at is not its business.
    pub(super) async fn verdict_of_run(
        &self,
        unseen: &[ScanFailure],
        written: &WriteSummary,
        is_alone: bool,
    ) -> Result<(Exit, Vec<Reason>), Failure> {
        let mut facts = self.facts().await?;
        if is_alone {
            facts.peers_online = Some(0);
        }
        let unread = written.failed.iter().map(|(path, _)| path);
        let paths = unseen.iter().map(|failure| &failure.path).chain(unread);
        let names: Vec<String> = paths.map(|path| path.display().to_string()).collect();
        facts.folders_failing.retain(|failing| names.contains(&failing.path));
        let is_file = |name: &String| facts.folders_failing.iter().all(|failing| failing.path != *name);
        let names: Vec<String> = names.iter().filter(|name| is_file(name)).cloned().collect();
        facts.left_out = Named {
            count: names.len() as u64,
            names,
        };
        let (exit, reasons) = judge(&facts).of_run();
        let reasons = reasons.iter().filter(|reason| reason.exit() != Exit::Done);
        Ok((exit, reasons.map(Reason::from).collect()))
    }
}

fn named<'a>(failed: impl Iterator<Item = &'a ScanFailure>) -> Vec<(Vec<u8>, String)> {
    let named = failed.map(|failure| {
        let path: &OsStr = failure.path.as_os_str();
        (path.as_bytes().to_vec(), failure.reason.clone())
    });
    named.collect()
}

/// As snapshots name it, if it is there.
fn real(path: &Path) -> Vec<u8> {
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    real.as_os_str().as_bytes().to_vec()
}
