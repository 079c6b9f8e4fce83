//! Restoring: from the request to the read side and back to a summary.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use backup::restore::{self, RestoreError, RestoreOptions, RestoreProgress};

use crate::engine::{Engine, failures};
use crate::failure::{Exit, Failure};
use crate::message::{PathName, Problem, Progress, RestoreSummary, Summary};
use crate::output::Sink;
use crate::request::{Overwrite, Restore};

/// How long an interrupted restore may write what it has fetched. Chosen: nobody waits longer for a ctrl-c.
const FINISH_TIME: Duration = Duration::from_secs(2);

impl Engine {
    pub(super) async fn restore(&self, request: Restore, sink: &Sink) -> Result<Exit, Failure> {
        let _busy = self.0.busy.lock().await;
        let started = Instant::now();
        let snapshot = self.find_snapshot(&request.snapshot)?.record;
        let reader = self.reader().await?;
        let options = options(request, snapshot.seq);
        let (dry_run, progress) = (options.dry_run, sink.clone());
        let restoring = move || reader.restore(&options, &|done| say(&progress, done));
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
        for (path, reason) in &restored.failed {
            let path = Some(PathName::from(path.as_path()));
            sink.send(Problem {
                path,
                peer: None,
                error: reason.clone(),
            })
            .await?;
        }
        for (peer, reason) in &restored.peers_bad {
            sink.send(Problem {
                path: None,
                peer: Some(peer.clone()),
                error: reason.clone(),
            })
            .await?;
        }
        let exit = if restored.failed.is_empty() {
            Exit::Done
        } else {
            Exit::Failed
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
        };
        sink.send(Summary::Restore(summary)).await?;
        match too_few_shares {
            Some(error) => Err(failures::too_few_shares(error)),
            None => Ok(exit),
        }
    }
}

fn options(request: Restore, snapshot: u64) -> RestoreOptions {
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
        delete: request.delete,
        dry_run: request.dry_run,
        verify: request.verify,
    }
}

fn say(sink: &Sink, done: RestoreProgress) -> ControlFlow<()> {
    sink.progress(Progress {
        phase: "restore".to_owned(),
        files_done: done.files.0,
        files_total: Some(done.files.1),
        bytes_done: done.bytes.0,
        bytes_total: Some(done.bytes.1),
        current: None,
    });
    match sink.stop().is_cancelled() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}
