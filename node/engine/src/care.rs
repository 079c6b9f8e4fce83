//! Looking after shares while the daemon runs: who answers, who has to prove something, what has to be built anew, what has
//! to be read again.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use api::clock;
use api::failure::Failure;
use api::message::Event;
use api::output::Sink;
use database::DbError;
use proto::id::AccountId;
use proto::share_store::StoreError;
use rusqlite::Connection;
use stores::scrub;
use stores::scrub::{Found, Progress, ProgressFile};
use tokio::time::Instant;
use upload_queue::care::helper::Short;
use upload_queue::care::ledger;
use upload_queue::care::standing::{Standing, Watch};
use upload_queue::peers::PeerKey;
use upload_queue::planner::Uptime;

use crate::policy::patience;
use crate::repair::Looks;
use crate::{Engine, kind};

/// Longest time between two looks at who answers. Chosen: a quarter of an hour's absence is noticed, and costs nothing.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(300);
/// Looks until a silent peer is suspected: fewer would let one lost packet count.
const LOOKS_UNTIL_SUSPECTED: u32 = 4;
/// How long a peer is watched until its uptime counts for new packs. Chosen: weekdays and weekend.
const UPTIME_SECS_MIN: f64 = 7.0 * 86_400.0;
/// Shortest time between two rounds, whatever the config says.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// How fast shares kept for friends are read again. Chosen: a terabyte takes a day and a half, and no disk feels it.
const SCRUB_BYTES_PER_SEC: u64 = 8 << 20;
/// How often is looked whether a scrub is due.
const SCRUB_LOOK: Duration = Duration::from_secs(600);

/// What looking after shares remembers between rounds.
#[derive(Default)]
pub(super) struct Caring {
    /// Packs of others that are short of shares.
    pub short: Short,
}

/// Of the peers that were watched for long enough.
pub(super) fn measured_uptimes(watch: &Watch) -> HashMap<PeerKey, Uptime> {
    let measured = watch
        .peers
        .iter()
        .filter(|(_, known)| known.watched_secs >= UPTIME_SECS_MIN);
    measured
        .filter_map(|(key, known)| Some((key.clone(), Uptime::new(known.uptime()?))))
        .collect()
}

impl Engine {
    /// Until it is dropped.
    pub(super) async fn care_for_ever(&self, sink: &Sink) {
        if self.only_serves() {
            return self.scrub_for_ever(sink).await;
        }
        tokio::join!(
            self.rounds_for_ever(sink),
            self.scrub_for_ever(sink),
            self.drill_for_ever(sink)
        );
    }

    async fn rounds_for_ever(&self, sink: &Sink) {
        let mut next_repair = Instant::now();
        loop {
            let config = self.config();
            let look = (config.suspect_after.0 / LOOKS_UNTIL_SUSPECTED)
                .min(LOOK_INTERVAL_MAX)
                .min(config.repair_interval.0)
                .min(config.audit_interval.0)
                .max(INTERVAL_MIN);
            tokio::select! {
                () = tokio::time::sleep(look) => {}
                () = self.0.repair_now.notified() => next_repair = Instant::now(),
            }
            let looked = async {
                self.look_at_peers().await?;
                // First: what another machine gave up since is no loss.
                let free: Vec<_> = self.0.peers.all().into_iter().filter(kind::is_free_to_ask).collect();
                self.learn_disks(&free).await?;
                let failed = self.audit_due(sink).await?;
                if failed || Instant::now() >= next_repair {
                    next_repair = Instant::now() + config.repair_interval.0.max(INTERVAL_MIN);
                    let looks = if failed { Looks::Everywhere } else { Looks::WhereFree };
                    self.repair_in_background(looks, sink).await?;
                    self.help_others(sink).await?;
                }
                Ok::<_, Failure>(())
            };
            if let Err(failure) = looked.await {
                tracing::warn!(%failure, "looking after shares failed; it is tried again");
            }
        }
    }

    /// Who answers now; it is noted, and what is known of all peers by now.
    pub(super) async fn look_at_peers(&self) -> Result<(Watch, BTreeSet<PeerKey>), Failure> {
        let online: BTreeSet<PeerKey> = self.online().await.into_iter().collect();
        let peers = self.0.peers.all();
        let answers: Vec<_> = peers
            .iter()
            .map(|peer| (peer.key.clone(), online.contains(&peer.key)))
            .collect();
        let patience = patience(&self.config());
        let look = |conn: &Connection| {
            let mut watch = ledger::watch(conn)?;
            watch.look(clock::now_secs(), &answers, &patience);
            Ok::<_, DbError>(watch)
        };
        let noted = self.0.db.write::<_, DbError>(|tx| {
            let watch = look(tx)?;
            ledger::set_watch(tx, &watch)?;
            Ok(watch)
        });
        let watch = match noted {
            Ok(watch) => watch,
            // A full disk is no reason not to say who answers.
            Err(error @ (DbError::ReadOnly | DbError::Sqlite(_))) => {
                tracing::debug!("Who answers is not noted: {error}");
                self.0.db.read(look)?
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(uploader) = self.0.uploader.get() {
            let all = peers.into_iter().map(|peer| peer.key);
            let lost = |key: &PeerKey| watch.standing(key, &patience) == Standing::Lost;
            uploader.shun(all.filter(lost).collect());
            uploader.set_uptimes(measured_uptimes(&watch));
        }
        Ok((watch, online))
    }

    async fn scrub_for_ever(&self, sink: &Sink) {
        let file = ProgressFile::new(self.0.home.paths.state_dir());
        loop {
            let every = self.config().scrub_interval.0.max(INTERVAL_MIN);
            if file.read().is_due(clock::now_secs(), every) {
                match self.scrub_round(&file).await {
                    Ok(found) => self.tell_scrubbed(&found, sink).await,
                    Err(error) => tracing::warn!(%error, "a scrub was cut off; it goes on later"),
                }
            }
            tokio::time::sleep(every.min(SCRUB_LOOK)).await;
        }
    }

    /// One round over everything kept for friends, from where the last one stopped.
    async fn scrub_round(&self, file: &ProgressFile) -> Result<Found, StoreError> {
        let Some(net) = self.0.net.get().cloned() else {
            return Ok(Found::default());
        };
        let mut progress = file.read();
        if progress.account.is_none() {
            progress = Progress {
                began_secs: clock::now_secs(),
                ..Progress::default()
            };
        }
        let own = self.0.home.account.account_id();
        let roster = net.roster();
        let mut accounts: Vec<AccountId> = roster.members().map(|member| member.account).collect();
        accounts.retain(|account| *account != own && progress.account.is_none_or(|reached| *account >= reached));
        accounts.sort_unstable();
        let mut found = Found::default();
        let note = |progress: &Progress| {
            if let Err(error) = file.write(progress) {
                tracing::warn!(%error, "the progress of a scrub cannot be noted");
            }
        };
        for account in accounts {
            let of_net = net.clone();
            let shelf = tokio::task::spawn_blocking(move || of_net.shelf(account)).await;
            let store = shelf.map_err(|error| unreachable_store(&error))??.store;
            let after = progress.after.filter(|_| progress.account == Some(account));
            let began_secs = progress.began_secs;
            let mut at = |after| {
                note(&Progress {
                    began_secs,
                    account: Some(account),
                    after,
                });
            };
            scrub::account(&store, after, SCRUB_BYTES_PER_SEC, &mut found, &mut at).await?;
        }
        note(&Progress {
            began_secs: progress.began_secs,
            ..Progress::default()
        });
        Ok(found)
    }

    async fn tell_scrubbed(&self, found: &Found, sink: &Sink) {
        tracing::info!(found.shares, found.bytes, damaged = found.damaged.len(), "scrubbed");
        if !found.damaged.is_empty() {
            let text = format!(
                "{} of {} shares kept for friends are damaged and were set aside; check this disk",
                found.damaged.len(),
                found.shares
            );
            self.tell("scrub", text, sink).await;
        }
    }

    /// Something worth knowing, for whoever follows the daemon.
    pub(super) async fn tell(&self, event: &str, text: String, sink: &Sink) {
        let event = Event {
            time: clock::timestamp(clock::now_ns()),
            event: event.to_owned(),
            text,
        };
        let _nobody_reads = sink.send(event).await;
    }
}

fn unreachable_store(error: &tokio::task::JoinError) -> StoreError {
    StoreError::Unreachable {
        reason: error.to_string(),
    }
}
