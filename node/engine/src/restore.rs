//! Restoring: from the request to the read side and back to a summary.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use api::failure::{Exit, Failure};
use api::message::{PathName, Phase, Problem, Progress, Removal, RemovalKind, RemovalState, RestoreSummary, Summary};
use api::output::Sink;
use api::request::{Overwrite, Restore};
use backup::restore;
use backup::restore::{Deleting, Extra, RestoreError, RestoreEvent, RestoreOptions, RestoreProgress};

use crate::home::{OwnFolders, check_deletion};
use crate::{Engine, failures};

/// How long an interrupted restore may write what it has fetched. Chosen: nobody waits longer for a ctrl-c.
const FINISH_TIME: Duration = Duration::from_secs(2);

impl Engine {
    pub(super) async fn restore(&self, request: Restore, sink: &Sink) -> Result<Exit, Failure> {
        let _busy = self.0.busy.lock().await;
        let started = Instant::now();
        let snapshot = self.find_snapshot(&request.snapshot)?.record;
        let deleting = self.deleting(&request)?;
        let reader = self.reader().await?;
        let options = options(request, deleting, snapshot.seq);
        let (dry_run, told) = (options.dry_run, sink.clone());
        let restoring = move || reader.restore(&options, &|event| say(&told, event, dry_run));
        let stop = sink.stop().clone();
        let given_up = async {
            stop.cancelled().await;
            tokio::time::sleep(FINISH_TIME).await;
        };
        let restored = tokio::select! {
            done = tokio::task::spawn_blocking(restoring) => match done.map_err(failures::worker)? {
                Err(RestoreError::Stopped) => return Err(Failure::interrupted()),
                restored => restored.map_err(failures::read)?,
            },
            () = given_up => return Err(Failure::interrupted()),
        };
        for problem in problems(&restored) {
            sink.send(problem).await?;
        }
        let exit = match restored.failed.is_empty() && restored.unmatched.is_empty() {
            true => Exit::Done,
            false => Exit::Failed,
        };
        let too_few_shares = restored.too_few_shares;
        let summary = RestoreSummary {
            snapshot: snapshot.id.to_string(),
            files_restored: restored.files_restored,
            files_unchanged: restored.files_unchanged,
            files_failed: restored.failed.len() as u64,
            bytes_restored: restored.bytes_restored,
            bytes_fetched: restored.bytes_fetched,
            peers_used: restored.peers_used,
            peers_bad: restored.peers_bad.into_iter().map(|(peer, _)| peer).collect(),
            seconds: started.elapsed().as_secs_f64(),
            dry_run,
            files_deleted: restored.files_deleted,
            folders_deleted: restored.folders_deleted,
            extras_left: restored.left,
            removals_withheld: restored.removals_withheld,
        };
        sink.send(Summary::Restore(summary)).await?;
        match too_few_shares {
            Some(error) => Err(failures::too_few_shares(error)),
            None => Ok(exit),
        }
    }

    /// What the removal of what is too much must know; an error if it would be dangerous.
    fn deleting(&self, request: &Restore) -> Result<Option<Deleting>, Failure> {
        if !request.delete {
            return Ok(None);
        }
        let config = self.config();
        let protected = OwnFolders::of(&self.0.home.paths, &config).not_removed();
        check_deletion(
            &request.target.to_path(),
            &protected,
            request.unsafe_delete || request.dry_run,
        )?;
        let rules = self.rules(&config)?;
        Ok(Some(Deleting { rules, protected }))
    }
}

/// What went wrong, a line each.
fn problems(restored: &restore::RestoreSummary) -> Vec<Problem> {
    let failed = restored.failed.iter();
    let failed = failed.map(|(path, reason)| Problem::of_path(path.as_path(), reason));
    let unmatched = restored.unmatched.iter();
    let unmatched =
        unmatched.map(|pattern| Problem::new(format!("--include `{pattern}` matches nothing in this snapshot")));
    let bad = restored.peers_bad.iter();
    let bad = bad.map(|(peer, reason)| Problem::of_peer(peer, reason));
    failed.chain(unmatched).chain(bad).collect()
}

fn options(request: Restore, delete: Option<Deleting>, snapshot: u64) -> RestoreOptions {
    RestoreOptions {
        snapshot,
        path: request.path.map(|path| path.0),
        target: request.target.to_path(),
        include: request.include,
        exclude: request.exclude,
        overwrite: match request.overwrite {
            Overwrite::Always => restore::Overwrite::Always,
            Overwrite::IfChanged => restore::Overwrite::IfChanged,
            Overwrite::Never => restore::Overwrite::Never,
        },
        delete,
        dry_run: request.dry_run,
        verify: request.verify,
    }
}

fn say(sink: &Sink, event: RestoreEvent, dry_run: bool) -> ControlFlow<()> {
    match event {
        RestoreEvent::Progress(done) => progress(sink, done),
        RestoreEvent::Extra(extra) => {
            // Whoever reads may be gone; what is removed is counted in the summary all the same.
            let _nobody_reads = sink.send_blocking(removal(extra, dry_run));
        }
    }
    match sink.stop().is_cancelled() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

fn removal(extra: Extra, dry_run: bool) -> Removal {
    Removal {
        path: PathName::from(extra.path.as_path()),
        kind: match extra.is_folder {
            true => RemovalKind::Folder,
            false => RemovalKind::File,
        },
        state: match (extra.left, dry_run) {
            (Some(_), _) => RemovalState::Left,
            (None, true) => RemovalState::WouldRemove,
            (None, false) => RemovalState::Removed,
        },
        reason: extra.left.map(|why| why.to_string()),
        dry_run,
    }
}

fn progress(sink: &Sink, done: RestoreProgress) {
    sink.progress(Progress {
        phase: Phase::Restore,
        files_done: done.files.0,
        files_total: Some(done.files.1),
        bytes_done: done.bytes.0,
        bytes_total: Some(done.bytes.1),
        current: None,
        ..Progress::default()
    });
}
