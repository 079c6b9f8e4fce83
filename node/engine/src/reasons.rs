//! Why a command ends with "not all is as safe as asked for": every peer that did not take its part, what the spool holds for
//! whom, and, if nothing else explains it, what to do.

use api::failure::Failure;
use api::message::{Problem, Spool, SpoolPart};
use api::output::Sink;
use database::DbError;
use proto::shape::ShareSize;
use proto::share_store::{Space, StoreError};
use rusqlite::Connection;
use upload_queue::packs;
use upload_queue::peers::PeerKey;
use upload_queue::uploader::DrainReport;

use crate::Engine;
use crate::facts::Scene;
use crate::peers::PROBE_WAIT;

/// The largest length of a stored share.
const SHARE_BYTES_MAX: u64 = ShareSize::LARGEST.stored_bytes() as u64;
/// A spool fuller than this (in percent of its limit) is a reason of its own.
const SPOOL_FULL_PERCENT: u64 = 50;

impl Engine {
    /// Says all reasons that there are; one at least.
    pub(super) async fn name_reasons(&self, report: &DrainReport, sink: &Sink) -> Result<(), Failure> {
        let mut named = self.name_failing_peers(report, sink).await?;
        let spool = self.spool()?;
        if spool.bytes * 100 >= spool.bytes_max * SPOOL_FULL_PERCENT && spool.bytes > 0 || report.gave_way > 0 {
            named += 1;
            let gave_way = match report.gave_way {
                0 => String::new(),
                shares => format!(
                    "; {shares} shares gave way to others, `gridbackup repair` builds them anew when there is room"
                ),
            };
            sink.send(Problem::new(spool.text() + &gave_way)).await?;
        }
        if named == 0 {
            let what = match report.packs_unsafe {
                0 => "Files wait for others that are not safe yet".to_owned(),
                packs => format!("{packs} packs are on too few peers"),
            };
            let error = format!("{what}: `gridbackup check` says what is missing, `gridbackup repair` builds it anew");
            sink.send(Problem::new(error)).await?;
        }
        Ok(())
    }

    /// Says of each peer that could not take its shares why; returns how many there are.
    async fn name_failing_peers(&self, report: &DrainReport, sink: &Sink) -> Result<usize, Failure> {
        let peers = self.0.peers.all();
        let asked = peers.iter().map(|peer| async {
            let failed = report.peers_failed.iter().find(|(key, _)| *key == peer.key);
            match failed {
                Some((_, error)) => Some(error.to_string()),
                None => why_not(tokio::time::timeout(PROBE_WAIT, peer.store.space()).await.ok()),
            }
        });
        let reasons = futures::future::join_all(asked).await;
        let mut named = 0;
        for (peer, reason) in peers.iter().zip(reasons) {
            if let Some(error) = reason {
                named += 1;
                sink.send(Problem::of_peer(&peer.name, error)).await?;
            }
        }
        Ok(named)
    }

    /// If no peer at all answers, says so of each; true then. The first answer is enough.
    pub(super) async fn name_if_nobody_answers(&self, sink: &Sink) -> Result<bool, Failure> {
        let peers = self.0.peers.all();
        let mut asked: futures::stream::FuturesUnordered<_> = peers
            .iter()
            .map(|peer| async {
                let answer = tokio::time::timeout(PROBE_WAIT, peer.store.space()).await.ok();
                (peer.name.clone(), answer)
            })
            .collect();
        let mut reasons = Vec::new();
        while let Some((name, answer)) = futures::StreamExt::next(&mut asked).await {
            match answer {
                Some(Ok(_)) => return Ok(false),
                silent => reasons.push((name, why_not(silent))),
            }
        }
        reasons.sort();
        for (name, reason) in reasons {
            let reason = reason.unwrap_or_else(|| "It did not answer".to_owned());
            sink.send(Problem::of_peer(&name, reason)).await?;
        }
        Ok(true)
    }

    /// What waits in the spool, and for whom.
    pub(super) fn spool(&self) -> Result<Spool, Failure> {
        let scene = self.scene(None);
        Ok(self.0.db.read(|conn| spool(conn, &scene))?)
    }
}

/// What waits in the spool, and for whom: also for a friend whom this command has no need to reach.
pub(super) fn spool(conn: &Connection, scene: &Scene) -> Result<Spool, DbError> {
    let name = |key: PeerKey| match scene.peers.iter().find(|peer| peer.key == key) {
        Some(peer) => peer.name.clone(),
        None => key.0,
    };
    let waiting = packs::spooled_by_peer(conn)?;
    let bytes = waiting.iter().map(|part| part.bytes).sum();
    let parts = waiting.into_iter().map(|part| SpoolPart {
        peer: part.peer.map(name),
        shares: part.shares,
        bytes: part.bytes,
    });
    Ok(Spool {
        bytes,
        bytes_max: scene.config.spool_max.0,
        parts: parts.collect(),
    })
}

/// Why a peer takes nothing, if so; `None` is no answer in time.
fn why_not(answer: Option<Result<Space, StoreError>>) -> Option<String> {
    match answer {
        None => Some("It did not answer in time".to_owned()),
        Some(Err(error)) => Some(error.to_string()),
        Some(Ok(Space {
            free_bytes: Some(free), ..
        })) if free < SHARE_BYTES_MAX => Some(format!("No room for another share: {free} bytes are left")),
        Some(Ok(_)) => None,
    }
}
