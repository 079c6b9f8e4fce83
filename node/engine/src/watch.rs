//! What the daemon does for the verdict: settles what was delivered between two runs, and says when the verdict changes.

use std::time::Duration;

use api::failure::{Exit, Failure};
use api::message::State;
use api::output::Sink;
use tokio::time::Instant;

use crate::verdict::{LastRun, judge};
use crate::{Engine, Mode, failures};

/// After a delivery, others that follow are waited for. Chosen: a person who looks sees it at once; a thousand deliveries are
/// settled together.
const DELIVERIES_GATHER: Duration = Duration::from_secs(1);
/// A look at millions of files takes long: so many times as long is rested after it.
const PAUSE_FOR_LOOK: u32 = 10;
/// How often is looked although nothing was delivered: a friend may have come back for whom only a head is new.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

impl Engine {
    /// Until it is dropped.
    pub(super) async fn watch_for_ever(&self, sink: &Sink) {
        let stores_only = matches!(&self.0.mode, Mode::Daemon(options) if options.store_only);
        if stores_only || self.only_serves() {
            return std::future::pending().await;
        }
        let mut said: Option<State> = None;
        let mut pause = DELIVERIES_GATHER;
        loop {
            // Told or not: it is time to look.
            let _told = tokio::time::timeout(LOOK_INTERVAL, self.0.delivered.notified()).await;
            tokio::time::sleep(pause).await;
            if self.0.busy.try_lock().is_err() {
                continue; // a run settles by itself, and tells when it ends
            }
            let begun = Instant::now();
            if let Err(failure) = self.settle_delivered().await {
                tracing::warn!(%failure, "what was delivered cannot be settled now; the next run does it");
            }
            self.say_verdict(&mut said, sink).await;
            pause = DELIVERIES_GATHER.max(begun.elapsed() * PAUSE_FOR_LOOK);
        }
    }

    /// Repairs, and settles what that delivered.
    pub(super) async fn repair_and_settle(&self, once: bool, sink: &Sink) -> Result<Exit, Failure> {
        let repaired = self.repair(once, sink).await?;
        self.settle_delivered().await?;
        Ok(repaired)
    }

    /// Posts what became readable and settles what became safe, as the end of a run does. A run at work does it itself.
    pub(super) async fn settle_delivered(&self) -> Result<(), Failure> {
        let Ok(_busy) = self.0.busy.try_lock() else {
            return Ok(());
        };
        let Some(uploader) = self.0.uploader.get().cloned() else {
            return Ok(());
        };
        let owes = self.0.queue.counts()?.sending_jobs > 0
            || !self.0.db.read(backup::catalog::content::post::is_acknowledged)?;
        if !owes || self.0.peers.all().is_empty() {
            return Ok(());
        }
        let writer = self.writer(uploader, &self.config());
        let settled = tokio::task::spawn_blocking(move || writer.post(&|_| {})).await;
        settled.map_err(failures::worker)?.map_err(failures::write)?;
        Ok(())
    }

    /// Says what is decided now, if it is another state than was said last.
    async fn say_verdict(&self, said: &mut Option<State>, sink: &Sink) {
        let facts = match self.facts().await {
            Ok(facts) => facts,
            Err(failure) => return tracing::warn!(%failure, "how things stand cannot be looked at"),
        };
        let verdict = judge(&facts);
        let is_moving = facts.last_run == LastRun::UnderWay && !verdict.is_safe();
        if !is_moving && *said != Some(verdict.state) {
            *said = Some(verdict.state);
            self.tell("verdict", verdict.headline(), sink).await;
        }
    }
}
