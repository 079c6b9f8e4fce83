//! Repair by the owner: learn from the peers what they hold, forget what is lost, build it anew where there is room.
//!
//! What is built goes through the uploader's spool, like a new pack: a crash loses nothing and no peer is overrun.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::clock;
use api::failure::{Exit, Failure};
use api::message::{Problem, RepairSummary, Summary};
use api::output;
use api::output::Sink;
use database::DbError;
use proto::id::ShareId;
use tokio_util::sync::CancellationToken;
use upload_queue::care::helper::seed_of;
use upload_queue::care::ledger;
use upload_queue::care::rebuild::{Source, build};
use upload_queue::care::repair::{Copy, PackPlan, PackState, Place, Planner};
use upload_queue::care::standing::{Standing, Watch};
use upload_queue::packs;
use upload_queue::packs::{KnownPack, PackRow};
use upload_queue::peers::{Peer, PeerKey, Reach};
use upload_queue::uploader::{DrainReport, Rebuilt, Uploader};

use crate::listing::Rereads;
use crate::policy::{patience, tolerate};
use crate::{Engine, kind};

/// Rounds of one repair: the second makes up for sources that turned out bad, the third for targets.
const ROUNDS_MAX: usize = 3;
/// How long a peer may take to say how much space it has.
const SPACE_WAIT: Duration = Duration::from_secs(10);

/// Where a repair lists what is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Looks {
    /// Nowhere: the catalog is believed, as somebody waits.
    Nowhere,
    /// In folders of this machine only.
    Here,
    /// Not in buckets, where the catalog is believed: each thousand shares listed cost a request.
    WhereFree,
    /// At every peer: somebody asked for it, or there is doubt.
    Everywhere,
}

/// Which packs a repair plans for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Packs<'a> {
    /// All: also those that could be safer than the policy asks for.
    All,
    /// Only those that survive fewer losses than the policy asks for.
    Unsafe,
    /// Of these, as well.
    UnsafeOf(&'a [PackRow]),
}

/// What each peer that was looked at says it holds.
type Listed = BTreeMap<PeerKey, Arc<HashSet<ShareId>>>;

impl Engine {
    /// The command.
    pub(super) async fn repair(&self, once: bool, sink: &Sink) -> Result<Exit, Failure> {
        let started = Instant::now();
        self.connect().await?;
        let config = self.config();
        let uploader = self.uploader(&config).await?;
        let sent_before = uploader.bytes_sent();
        let mut summary = RepairSummary::default();
        let mut report = DrainReport::default();
        self.check_spool(sink).await?;
        self.learn_disks(&self.0.peers.all()).await?;
        for _ in 0..if once { 1 } else { ROUNDS_MAX } {
            let before = (summary.shares_rebuilt, uploader.bytes_sent());
            self.repair_round(&uploader, Looks::Everywhere, Packs::All, &mut summary, sink)
                .await?;
            report = uploader.drain().await.map_err(|error| Failure::from_error(&error))?;
            // What arrived from the spool meanwhile may be what others can be built from.
            if before == (summary.shares_rebuilt, uploader.bytes_sent()) {
                break;
            }
        }
        let heads = self.mend_heads().await?;
        self.say_heads(&heads, sink).await?;
        let rosters = self.mend_rosters().await;
        self.say_rosters(&rosters, sink).await?;
        // What was built and that nobody has taken yet is not repaired.
        summary.shares_waiting = report.shares_waiting;
        summary.shares_rebuilt = summary.shares_rebuilt.saturating_sub(report.shares_waiting);
        summary.files_lost = self.name_lost(sink).await?;
        let health = self.0.db.read(|conn| packs::health(conn, tolerate(&config)))?;
        summary.packs = health.packs;
        summary.packs_unsafe = health.packs - health.safe;
        summary.ok = summary.packs_unsafe == 0 && heads.faults.is_empty() && rosters.faults.is_empty();
        summary.bytes_sent = uploader.bytes_sent() - sent_before;
        summary.seconds = started.elapsed().as_secs_f64();
        let exit = if summary.ok { Exit::Done } else { Exit::UnderProtected };
        if summary.packs_unsafe > 0 {
            self.name_reasons(&report, sink).await?;
        }
        sink.send(Summary::Repair(summary)).await?;
        Ok(exit)
    }

    /// The daemon's round: nothing is waited for.
    pub(super) async fn repair_in_background(&self, looks: Looks, sink: &Sink) -> Result<(), Failure> {
        let known = self.0.db.read(packs::rows)?;
        if known.is_empty() {
            return Ok(());
        }
        let uploader = self.uploader(&self.config()).await?;
        let mut summary = RepairSummary::default();
        for _ in 0..ROUNDS_MAX {
            let missing = summary.shares_missing;
            self.repair_round(&uploader, looks, Packs::All, &mut summary, sink)
                .await?;
            if summary.shares_missing == missing {
                break;
            }
        }
        if self.can_send_again()? {
            self.0.back_up_now.notify_one();
        }
        if summary.shares_missing + summary.shares_rebuilt > 0 {
            let text = format!(
                "{} shares were missing at peers, {} were built anew",
                summary.shares_missing, summary.shares_rebuilt
            );
            self.tell("repair", text, sink).await;
        }
        self.mend_heads_in_background(sink).await
    }

    /// What a run does that no daemon looks after: who answers is noted, folders here are looked into, the other peers when
    /// it is time, and what is missing is built anew. Nothing is waited for: the run itself sends it.
    pub(super) async fn repair_in_run(&self, uploader: &Uploader, sink: &Sink) -> Result<(), Failure> {
        if self.0.db.read(packs::rows)?.is_empty() {
            return Ok(());
        }
        let now = clock::now_secs();
        let every = self.config().repair_interval.0.as_secs();
        let last = self.0.db.read(ledger::repaired_secs)?;
        // A clock that was set back must not keep it from being done.
        let is_due = last.is_none_or(|last| now < last || now - last >= every);
        let (looks, which) = match is_due {
            true => (Looks::WhereFree, Packs::All),
            false => (Looks::Here, Packs::Unsafe),
        };
        let mut summary = RepairSummary::default();
        self.repair_round(uploader, looks, which, &mut summary, sink).await?;
        if is_due {
            self.0.db.write(|tx| ledger::set_repaired_secs(tx, now))?;
        }
        Ok(())
    }

    /// What somebody waits for: of these packs, what peers that answer now can be given. Nothing is waited for.
    pub(super) async fn repair_packs(&self, rows: &[PackRow]) -> Result<(), Failure> {
        let uploader = self.uploader(&self.config()).await?;
        let (sink, said) = output::channel(CancellationToken::new());
        // What cannot be built is in the log, and nobody asked for more.
        let _unread = said.decoupled();
        let mut summary = RepairSummary::default();
        self.repair_round(&uploader, Looks::Nowhere, Packs::UnsafeOf(rows), &mut summary, &sink)
            .await?;
        if summary.shares_rebuilt > 0 {
            tracing::info!(
                "{} shares that a disk waits for were built anew",
                summary.shares_rebuilt
            );
        }
        Ok(())
    }

    async fn repair_round(
        &self,
        uploader: &Uploader,
        looks: Looks,
        which: Packs<'_>,
        summary: &mut RepairSummary,
        sink: &Sink,
    ) -> Result<(), Failure> {
        let _caring = self.0.caring.lock().await;
        // A share that was on its way to a peer while that was removed has arrived by now.
        self.give_up_removed(&self.config());
        let (watch, online) = self.look_at_peers().await?;
        let listed = self.reconcile(&watch, &online, looks, summary, sink).await?;
        let tolerate = tolerate(&self.config());
        let rows = self.0.db.read(|conn| match which {
            Packs::All => packs::rows(conn),
            Packs::Unsafe => packs::unsafe_rows(conn, tolerate),
            Packs::UnsafeOf(these) => {
                let mut rows = packs::unsafe_rows(conn, tolerate)?;
                rows.retain(|row| these.contains(row));
                Ok(rows)
            }
        })?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut planner = Planner::new(self.places(&watch, &online).await);
        for row in rows {
            sink.go_on()?;
            let Some((pack, state)) = self.0.db.read(|conn| pack_state(conn, row, &listed))? else {
                continue;
            };
            let plan = planner.plan(&state);
            // What nothing can be built from is said by the names of its files (`name_lost`).
            if !plan.puts.is_empty() && plan.sources >= state.k {
                self.carry_out(uploader, &pack, &state, &plan, summary, sink).await?;
            }
        }
        Ok(())
    }

    /// Brings catalog and peers to agree: what lost peers held is forgotten, and each peer that answers is looked into.
    async fn reconcile(
        &self,
        watch: &Watch,
        online: &BTreeSet<PeerKey>,
        looks: Looks,
        summary: &mut RepairSummary,
        sink: &Sink,
    ) -> Result<Listed, Failure> {
        let patience = patience(&self.config());
        let rereads = match looks {
            Looks::Everywhere => Rereads::All,
            Looks::WhereFree | Looks::Here | Looks::Nowhere => Rereads::Some,
        };
        let mut all = Listed::new();
        for peer in self.0.peers.all() {
            if watch.standing(&peer.key, &patience) == Standing::Lost {
                self.give_up(&peer, summary)?;
                continue;
            }
            let is_looked_at = match looks {
                Looks::Everywhere => true,
                Looks::WhereFree => kind::is_free_to_ask(&peer),
                Looks::Here => peer.reach == Reach::Local,
                Looks::Nowhere => false,
            };
            if !online.contains(&peer.key) || !is_looked_at {
                continue;
            }
            match self.look_into(&peer, rereads).await? {
                Ok(found) => {
                    summary.shares_missing += found.missing;
                    summary.shares_found += found.news;
                    all.insert(peer.key, Arc::new(found.believed));
                }
                Err(error) => sink.send(Problem::of_peer(&peer.name, error.to_string())).await?,
            }
        }
        Ok(all)
    }

    fn give_up(&self, peer: &Peer, summary: &mut RepairSummary) -> Result<(), Failure> {
        let forgotten = self
            .0
            .db
            .write::<_, DbError>(|tx| packs::forget_holder(tx, &peer.key))?;
        if forgotten > 0 {
            tracing::warn!(
                peer = peer.name,
                forgotten,
                "a peer is lost; what it held is built anew"
            );
            summary.peers_lost.push(peer.name.clone());
            summary.shares_missing += forgotten;
        }
        Ok(())
    }

    async fn places(&self, watch: &Watch, online: &BTreeSet<PeerKey>) -> Vec<Place> {
        let patience = patience(&self.config());
        let place = |peer: Peer| async move {
            let free_bytes = match online.contains(&peer.key) {
                true => match tokio::time::timeout(SPACE_WAIT, peer.store.space()).await {
                    Ok(Ok(space)) => space.free_bytes,
                    _ => Some(0),
                },
                false => Some(0),
            };
            Place {
                standing: watch.standing(&peer.key, &patience),
                key: peer.key,
                domain: peer.domain,
                free_bytes,
            }
        };
        futures::future::join_all(self.0.peers.all().into_iter().map(place)).await
    }

    /// One pack. What cannot be built is said; the next round tries again.
    async fn carry_out(
        &self,
        uploader: &Uploader,
        pack: &KnownPack,
        state: &PackState,
        plan: &PackPlan,
        summary: &mut RepairSummary,
        sink: &Sink,
    ) -> Result<(), Failure> {
        let wanted: Vec<u8> = plan.puts.iter().map(|put| put.index).collect();
        // Shares that are wanted themselves come first: copying one is cheaper than k.
        let mut copies: Vec<&Copy> = state.copies.iter().collect();
        copies.sort_by_key(|copy| !wanted.contains(&copy.index));
        let reachable = copies
            .into_iter()
            .filter_map(|copy| Some((copy, self.0.peers.get(&copy.peer)?)));
        let (keys, sources): (Vec<(u8, PeerKey)>, Vec<Source>) = reachable
            .map(|(copy, peer)| {
                let index = copy.index;
                let store = peer.store;
                ((index, peer.key), Source { index, store })
            })
            .unzip();
        let built = match build(&pack.manifest, &sources, &wanted).await {
            Ok(built) => built,
            Err(error) => {
                let error = format!("Pack {} cannot be repaired now: {error}", pack.manifest.pack.short());
                sink.send(Problem::new(error)).await?;
                return Ok(());
            }
        };
        self.0.db.write::<_, DbError>(|tx| {
            built.bad.iter().try_for_each(|number| {
                let (index, peer) = &keys[*number];
                packs::record_lost(tx, peer, pack.manifest.shares[usize::from(*index)])
            })
        })?;
        summary.bytes_fetched += built.bytes_fetched;
        summary.shares_missing += built.bad.len() as u64;
        let shares = built.shares.into_iter().zip(&plan.puts);
        let shares = shares.map(|((index, id, share), put)| Rebuilt {
            index,
            id,
            share,
            to: put.to.clone(),
        });
        let taken = uploader.rehome(pack.row, shares.collect()).await;
        summary.shares_rebuilt += taken.map_err(|error| Failure::from_error(&error))? as u64;
        Ok(())
    }
}

/// A pack and where its shares are believed to be: by the catalog, and by what peers list besides.
fn pack_state(
    conn: &rusqlite::Connection,
    row: PackRow,
    listed: &Listed,
) -> Result<Option<(KnownPack, PackState)>, DbError> {
    let Some(pack) = packs::get(conn, row)? else {
        return Ok(None);
    };
    let mut copies: Vec<Copy> = (0..)
        .zip(&pack.holders)
        .filter_map(|(index, holder)| {
            let peer = holder.clone()?;
            Some(Copy { index, peer })
        })
        .collect();
    for (peer, found) in listed {
        for (index, id) in (0..).zip(&pack.manifest.shares) {
            // All shares of a pack with k = 1 are the same bytes: a peer has them once.
            let known = |copy: &Copy| copy.peer == *peer && (copy.index == index || pack.manifest.shape.k == 1);
            if found.contains(id) && !copies.iter().any(known) {
                let peer = peer.clone();
                copies.push(Copy { index, peer });
            }
        }
    }
    let on_the_way = packs::on_the_way(conn, row)?;
    let shape = pack.manifest.shape;
    let state = PackState {
        k: shape.k,
        n: shape.n,
        stored_bytes: shape.share.stored_bytes() as u64,
        seed: seed_of(pack.manifest.pack),
        copies,
        on_the_way: on_the_way
            .into_iter()
            .map(|(index, peer)| Copy { index, peer })
            .collect(),
    };
    Ok(Some((pack, state)))
}
