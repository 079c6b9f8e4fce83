//! Repacking mostly dead packs before they are given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::failure::Failure;
use api::message::{Phase, Problem, Progress};
use api::output::Sink;
use backup::catalog::content::live::Wanted;
use backup::catalog::content::moves;
use backup::writer::repack;
use backup::writer::repack::{Plan, Repacked};
use tokio_util::task::AbortOnDropHandle;

use crate::policy::tolerate;
use crate::{Engine, failures};

impl Engine {
    /// What is to be repacked.
    pub(super) async fn plan_repacking(&self, wanted: &Arc<Wanted>) -> Result<Plan, Failure> {
        let (db, wanted) = (self.0.db.clone(), wanted.clone());
        let planning = move || db.read(|conn| repack::plan(conn, &wanted));
        Ok(tokio::task::spawn_blocking(planning)
            .await
            .map_err(failures::worker)??)
    }

    /// Ends what an earlier repacking began: friends may have taken its packs since.
    pub(super) fn finish_repacking(&self) -> Result<(), Failure> {
        let tolerate = tolerate(&self.config());
        self.0.db.write_durable(|tx| moves::finish(tx, tolerate))?;
        Ok(())
    }

    /// Repacks, and names what could not be read.
    pub(super) async fn repack(&self, plan: Plan, sink: &Sink) -> Result<(), Failure> {
        let config = self.config();
        let reader = self.reader().await?;
        let writer = self.writer(self.uploader(&config).await?, &config);
        let (stop, _watch) = stop_flag(sink);
        let (progress, total) = (sink.clone(), plan.copied_bytes);
        let say = move |copied| {
            progress.progress(Progress {
                phase: Phase::Repack,
                bytes_done: copied,
                bytes_total: Some(total),
                ..Progress::default()
            });
        };
        let repacking = move || writer.repack(&reader, &plan, &stop, &say);
        let repacked = tokio::task::spawn_blocking(repacking).await.map_err(failures::worker)?;
        let Repacked { failed, .. } = repacked.map_err(failures::write)?;
        for error in failed {
            let error = format!("A pack was not repacked and stays as it is: {error}");
            sink.send(Problem::new(error)).await?;
        }
        match sink.stop().is_cancelled() {
            true => Err(Failure::interrupted()),
            false => Ok(()),
        }
    }
}

/// A flag that is set when the request is cancelled, and what watches for that until it is dropped.
pub(super) fn stop_flag(sink: &Sink) -> (Arc<AtomicBool>, AbortOnDropHandle<()>) {
    let flag = Arc::new(AtomicBool::new(false));
    let (asked, set) = (sink.stop().clone(), flag.clone());
    let watch = tokio::spawn(async move {
        asked.cancelled().await;
        set.store(true, Ordering::Relaxed);
    });
    (flag, AbortOnDropHandle::new(watch))
}
