//! Why a command ends with "not all is as safe as asked for": every peer that did not take its part, what the spool holds for
//! whom, and, if nothing else explains it, what to do.

use proto::id::DeviceId;
use proto::share::ShareSize;
use proto::share_store::{Space, StoreError};
use upload_queue::packs::{self, Spooled};
use upload_queue::peers::PeerKey;
use upload_queue::uploader::DrainReport;

use crate::engine::Engine;
use crate::engine::peers::{FRIEND, PROBE_WAIT};
use crate::failure::Failure;
use crate::friendnet::roster::Roster;
use crate::message::{Problem, Spool, SpoolPart};
use crate::output::Sink;

/// The larger of the two lengths of a stored share.
const SHARE_BYTES_MAX: u64 = ShareSize::Large.stored_bytes() as u64;
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
            self.say_problem(None, spool.text() + &gave_way, sink).await?;
        }
        if named == 0 {
            let what = match report.packs_unsafe {
                0 => "Files wait for others that are not safe yet".to_owned(),
                packs => format!("{packs} packs are on too few peers"),
            };
            let error = format!("{what}: `gridbackup check` says what is missing, `gridbackup repair` builds it anew");
            self.say_problem(None, error, sink).await?;
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
                self.say_problem(Some(peer.name.clone()), error, sink).await?;
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
            self.say_problem(Some(name), reason, sink).await?;
        }
        Ok(true)
    }

    /// What waits in the spool, and for whom.
    pub(super) fn spool(&self) -> Result<Spool, Failure> {
        let waiting = self.0.db.read(packs::spooled_by_peer)?;
        Ok(Spool {
            bytes: waiting.iter().map(|part| part.bytes).sum(),
            bytes_max: self.config().spool_max.0,
            parts: waiting.into_iter().map(|part| self.spool_part(part)).collect(),
        })
    }

    fn spool_part(&self, part: Spooled) -> SpoolPart {
        SpoolPart {
            peer: part.peer.map(|key| self.name_of_key(&key)),
            shares: part.shares,
            bytes: part.bytes,
        }
    }

    /// Also of a friend whom this command has no need to reach.
    fn name_of_key(&self, key: &PeerKey) -> String {
        if let Some(peer) = self.0.peers.get(key) {
            return peer.name;
        }
        let device = key.0.strip_prefix(FRIEND).and_then(|id| id.parse::<DeviceId>().ok());
        let roster = Roster::load(&self.0.home.paths.roster());
        let mut friends = roster.iter().flat_map(|roster| self.friends(roster));
        let friend = friends.find(|friend| Some(friend.device) == device);
        friend.map_or_else(|| key.0.clone(), |friend| friend.name)
    }

    async fn say_problem(&self, peer: Option<String>, error: String, sink: &Sink) -> Result<(), Failure> {
        let path = None;
        sink.send(Problem { path, peer, error }).await?;
        Ok(())
    }
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
