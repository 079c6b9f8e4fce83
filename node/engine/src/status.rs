//! Is my data safe: the facts, the verdict, and the numbers beside it.

use api::failure::{Exit, Failure};
use api::message::{LastRun, Reason, Status};
use api::output::Sink;
use api::{clock, message};
use backup::catalog::{heads, trouble};
use database::DbError;
use rusqlite::Connection;
use upload_queue::peers::PeerKey;

use crate::facts::{Scene, is_counted};
use crate::friends::{has_left, is_revoked};
use crate::heads::other_text;
use crate::known::KnownPeer;
use crate::reasons::spool;
use crate::verdict::{Facts, Verdict, judge};
use crate::{Engine, Mode, facts, faults, known, verdict, whole};

impl Engine {
    pub(super) async fn status(&self, sink: &Sink) -> Result<Exit, Failure> {
        self.connect().await?;
        let online = self.online().await;
        let scene = self.scene(Some(online.clone()));
        let (mut status, verdict) = self.looked_at(scene).await?;
        let config = self.config();
        status.costs = self.costs(&config)?;
        status.disks = self.disks_of_status().await?;
        let (counts, kept) = self.kept_for_friends().await;
        (status.bytes_received, status.bytes_sent, status.bytes_for_friends) =
            (counts.bytes_received, counts.bytes_sent, kept);
        status.alarms = self.alarms().await;
        self.set_outlook(&mut status, &online)?;
        sink.send(status).await?;
        Ok(verdict.exit())
    }

    async fn looked_at(&self, scene: Scene) -> Result<(Status, Verdict), Failure> {
        let db = self.0.db.clone();
        let looking = move || db.read(|conn| look(conn, &scene));
        let looked = tokio::task::spawn_blocking(looking).await;
        Ok(looked.map_err(super::failures::worker)??)
    }

    /// The facts of this moment, without asking any peer.
    pub(super) async fn facts(&self) -> Result<Facts, Failure> {
        let (db, scene) = (self.0.db.clone(), self.scene(None));
        let gathering = move || db.read(|conn| facts::gather(conn, &scene));
        let gathered = tokio::task::spawn_blocking(gathering).await;
        Ok(gathered.map_err(super::failures::worker)??)
    }

    /// What the catalog does not know. Friends are known from the roster, whether the network runs or not.
    pub(super) fn scene(&self, online: Option<Vec<PeerKey>>) -> Scene {
        let peers = self.0.peers.all().into_iter().map(|peer| KnownPeer {
            key: peer.key,
            domain: peer.domain,
            name: peer.name,
        });
        let mut peers: Vec<KnownPeer> = peers.collect();
        if self.0.net.get().is_none() {
            let own = self.0.home.account.account_id();
            peers.extend(known::friends(&self.0.home.paths, own));
        }
        Scene {
            config: self.config(),
            config_fault: self.config_fault().map(|fault| fault.error),
            device: self.device(),
            peers,
            online,
            store_only: matches!(&self.0.mode, Mode::Daemon(options) if options.store_only),
            is_running: self.0.busy.try_lock().is_err(),
            disks_ahead: self.disks_ahead(),
            disk_votes: self.votes_without(&|_| false),
            is_full: faults::is_full(self.0.home.paths.state_dir()),
            is_revoked: is_revoked(&self.0.home.paths, &self.0.home.cert),
            has_left: has_left(&self.0.home.paths, &self.0.home.cert),
        }
    }
}

/// What the catalog answers; blocking.
pub(super) fn look(conn: &Connection, scene: &Scene) -> Result<(Status, Verdict), DbError> {
    let facts = facts::gather(conn, scene)?;
    let verdict = judge(&facts);
    let total = facts.total();
    let mut status = Status {
        safe: verdict.is_safe(),
        tolerates: facts.tolerates as u32,
        tolerate: facts.tolerate as u32,
        files_total: total.files,
        files_protected: facts.protected.files,
        files_waiting: facts.waiting.files,
        files_at_risk: facts.at_risk.files,
        files_lost: facts.lost.files,
        bytes_total: total.bytes,
        bytes_protected: facts.protected.bytes,
        bytes_waiting: facts.waiting.bytes,
        bytes_at_risk: facts.at_risk.bytes,
        bytes_lost: facts.lost.bytes,
        files_unread: facts.left_out.count,
        peers_total: scene.peers.iter().filter(|peer| is_counted(&peer.key)).count() as u32,
        only_catalog: scene.online.is_none(),
        state: verdict.state,
        headline: verdict.headline(),
        reasons: verdict.reasons.iter().map(Reason::from).collect(),
        spool: spool(conn, scene)?,
        last_run: trouble::runs(conn)?.first().map(|run| LastRun {
            began: clock::timestamp(run.began_ns),
            ended: run.ended_ns.map(clock::timestamp),
            exit: run.exit,
            error: run.error.clone(),
        }),
        devices: heads::others(conn, scene.device, &|key| scene.is_known(key))?
            .iter()
            .map(other_text)
            .collect(),
        ..Status::default()
    };
    let online = scene.online.as_deref().unwrap_or_default();
    status.peers_online = online.iter().filter(|key| is_counted(key)).count() as u32;
    if let Some(newest) = whole::newest(conn, &|key| scene.is_known(key))?.whole {
        status.newest_complete_snapshot = Some(newest.record.id.to_string());
        status.newest_complete_time = Some(clock::timestamp(newest.record.time_ns));
    }
    Ok((status, verdict))
}

impl From<&verdict::Reason> for message::Reason {
    fn from(reason: &verdict::Reason) -> Self {
        Self {
            state: reason.state,
            text: reason.text.clone(),
            since: reason.since,
            remedy: reason.remedy.clone(),
        }
    }
}
