//! Forgetting snapshots, pruning what nobody wants any more, and bringing it back.
//!
//! The order is what makes it safe to be cut off anywhere: the catalog forgets, a head that says so survives the loss of
//! friends, and only then are peers told to give shares up. Each step is found undone and done again by the next `prune`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Instant;

use api::clock;
use api::failure::{Exit, Failure, Kind};
use api::human::nearest;
use api::message::{Fate, ForgetSummary, Keeper, PathName, Problem, PruneSummary, Retention, Summary, UndeleteSummary};
use api::output::Sink;
use api::request::Forget;
use backup::catalog::content::live::Wanted;
use backup::catalog::content::{live, post};
use backup::catalog::tree::{Marks, Snapshot};
use backup::catalog::{content, heads, tree};
use backup::prune::Exchange;
use backup::retention::{Group, Policy};
use backup::writer::WriteError;
use backup::{prune, retention};
use database::DbError;
use proto::id::{DeviceId, PackId};
use proto::root::Root;
use upload_queue::packs;
use upload_queue::packs::PackRow;
use upload_queue::peers::PeerKey;

use crate::marks::keepers;
use crate::{Engine, failures};

impl Engine {
    pub(super) async fn forget(&self, request: Forget, sink: &Sink) -> Result<Exit, Failure> {
        let _busy = self.0.busy.lock().await;
        if !request.dry_run {
            // What is decided on a catalog that is behind would be carried out on the one that replaces it.
            self.meet_heads().await?;
        }
        let kept = self.0.db.read(tree::kept)?;
        let named = self.named(&request.snapshots)?;
        let marks = self.0.db.read(tree::marks)?;
        warn_of_unknown_tags(&request.keep_tags, &marks, sink).await?;
        let unread_forgotten = self.unread_to_forget(&request)?;
        let released = self.released(&request.devices)?;
        let (staying, going) = judge(kept, &named, &marks, &request)?;
        if !request.allow_empty_group {
            refuse_emptying(&staying, &going, &named)?;
        }
        for (snapshot, reasons) in &staying {
            sink.send(retention(snapshot, Fate::Keep, reasons.clone())).await?;
        }
        for snapshot in &going {
            sink.send(retention(snapshot, Fate::Forget, Vec::new())).await?;
        }
        let seqs: Vec<u64> = going.iter().map(|snapshot| snapshot.record.seq).collect();
        let mut posted = false;
        if !request.dry_run {
            let now_ns = clock::now_ns();
            self.0.db.write_durable(|tx| {
                if request.unread {
                    heads::forget_unread(tx)?;
                }
                released.iter().try_for_each(|device| heads::release(tx, *device))?;
                tree::forget(tx, &seqs, now_ns)
            })?;
            posted = self.post(sink).await?;
        }
        let summary = ForgetSummary {
            snapshots_kept: staying.len() as u64,
            snapshots_forgotten: going.len() as u64,
            unread_forgotten,
            devices_released: released.len() as u64,
            published: posted,
            dry_run: request.dry_run,
        };
        sink.send(Summary::Forget(summary)).await?;
        if request.prune {
            let kept = staying.iter().map(|(snapshot, _)| snapshot.record.seq).collect();
            return self.prune_to(kept, request.dry_run, sink).await;
        }
        Ok(if posted || request.dry_run {
            Exit::Done
        } else {
            Exit::UnderProtected
        })
    }

    /// Other machines of the account by name or the first digits of their ids.
    fn released(&self, names: &[String]) -> Result<Vec<DeviceId>, Failure> {
        let known = self.0.db.read(heads::names)?;
        let find = |name: &String| {
            let is_meant = |(device, called): &(&DeviceId, &String)| {
                **device != self.device() && (*called == name || device.to_string().starts_with(name.as_str()))
            };
            let mut found = known.iter().filter(is_meant).map(|(device, _)| *device);
            match (found.next(), found.next()) {
                (Some(device), None) => Ok(device),
                (Some(_), Some(_)) => Err(
                    Failure::new(Exit::Usage, format!("Several machines are called `{name}`"))
                        .hint("name one by the first digits of its id"),
                ),
                (None, _) => Err(Failure::new(
                    Exit::Failed,
                    format!("No other machine of this account is called `{name}`"),
                )
                .kind(Kind::NotFound)
                .hint("`gridbackup check` names them")),
            }
        };
        names.iter().map(find).collect()
    }

    fn unread_to_forget(&self, request: &Forget) -> Result<u64, Failure> {
        match request.unread {
            true => Ok(self.0.db.read(heads::unread)?.len() as u64),
            false => Ok(0),
        }
    }

    fn named(&self, names: &[String]) -> Result<BTreeSet<u64>, Failure> {
        let found = names.iter().map(|name| {
            let snapshot = self.find_snapshot(name)?;
            // For looking, a date means the newest until then. What is destroyed has to be what was named.
            if tree::is_of_earlier_date(name, &snapshot, &clock::utc_offset_secs) {
                let (id, time) = (snapshot.record.id.short(), clock::timestamp(snapshot.record.time_ns));
                let failure = Failure::new(Exit::Failed, format!("No snapshot is of `{name}`")).kind(Kind::NotFound);
                return Err(failure.hint(format!(
                    "the one before it is {id} of {time}: name it so if it is to go"
                )));
            }
            Ok(snapshot.record.seq)
        });
        found.collect()
    }

    pub(super) async fn prune(&self, dry_run: bool, sink: &Sink) -> Result<Exit, Failure> {
        let _busy = self.0.busy.lock().await;
        if !dry_run {
            self.meet_heads().await?;
        }
        let kept = self.0.db.read(tree::kept)?;
        let kept = kept.iter().map(|snapshot| snapshot.record.seq).collect();
        self.prune_to(kept, dry_run, sink).await
    }

    /// Gives up what the snapshots `kept`, ascending, do not want.
    async fn prune_to(&self, kept: Vec<u64>, dry_run: bool, sink: &Sink) -> Result<Exit, Failure> {
        let started = Instant::now();
        if !dry_run {
            self.finish_repacking()?;
        }
        self.connect().await?;
        let others = self.wanted_by_others().await?;
        let mut wanted = Arc::new(self.wanted_here_or(&others, kept.clone()).await?);
        self.say_kept_for_others(&wanted, &kept, sink).await?;
        let plan = self.plan_repacking(&wanted).await?;
        let (packs_repacked, bytes_repacked) = (plan.packs.len() as u64, plan.copied_bytes);
        if !dry_run && packs_repacked > 0 {
            self.repack(plan, sink).await?;
            wanted = self.wanted_here_or(&others, kept).await?.into();
        }
        let mut summary = PruneSummary {
            packs_wanted: wanted.live.len() as u64,
            packs_dropped: wanted.dying.len() as u64,
            packs_repacked,
            bytes_repacked,
            dry_run,
            ..PruneSummary::default()
        };
        let mut exit = Exit::Done;
        if !dry_run {
            let now_ns = clock::now_ns();
            self.0.db.write_durable(|tx| live::record(tx, &wanted, now_ns))?;
            if !wanted.reviving.is_empty() {
                // What another machine wants and this one gave up is still in the peers' trash.
                let recalled = prune::recall_wanted(&self.0.db, &self.0.peers.all(), &HashSet::new()).await;
                recalled.map_err(|error| Failure::from_error(&error))?;
            }
            if self.post(sink).await? {
                let exchanges = prune::discard_dead(&self.0.db, &self.0.peers.all()).await;
                let exchanges = exchanges.map_err(|error| Failure::from_error(&error))?;
                summary.shares_discarded = exchanges.iter().map(|done| done.shares).sum();
                summary.bytes_discarded = exchanges.iter().map(|done| done.bytes).sum();
                say_failed(&exchanges, sink).await?;
                if exchanges.iter().any(|done| done.failed.is_some()) {
                    exit = Exit::UnderProtected;
                }
                self.expire_folders().await;
            } else {
                exit = Exit::UnderProtected;
            }
        }
        summary.seconds = started.elapsed().as_secs_f64();
        sink.send(Summary::Prune(summary)).await?;
        Ok(exit)
    }

    pub(super) async fn undelete(&self, names: &[String], sink: &Sink) -> Result<Exit, Failure> {
        let _busy = self.0.busy.lock().await;
        self.meet_heads().await?;
        let targets = self.forgotten(names)?;
        let mut kept: BTreeSet<u64> = self.0.db.read(tree::kept)?.iter().map(seq).collect();
        kept.extend(targets.iter().map(seq));
        let wanted = self.wanted(kept.into_iter().collect()).await?;
        self.connect().await?;
        let reviving: HashSet<PackRow> = wanted.reviving.iter().copied().collect();
        let exchanges = prune::recall_wanted(&self.0.db, &self.0.peers.all(), &reviving).await;
        let exchanges = exchanges.map_err(|error| Failure::from_error(&error))?;
        say_failed(&exchanges, sink).await?;
        let gone = self.unreadable(&wanted.reviving)?;
        if gone > 0 {
            let error = format!(
                "{gone} of {} packs of these snapshots are on too few peers that answer",
                wanted.reviving.len()
            );
            return Err(Failure::new(Exit::TooFewShares, error)
                .hint("try again when more peers are up; what was given up is gone after 30 days"));
        }
        let seqs: Vec<u64> = targets.iter().map(seq).collect();
        let now_ns = clock::now_ns();
        self.0.db.write_durable(|tx| {
            tree::unforget(tx, &seqs)?;
            live::record(tx, &wanted, now_ns)
        })?;
        for snapshot in &targets {
            sink.send(retention(snapshot, Fate::Undelete, Vec::new())).await?;
        }
        let posted = self.post(sink).await?;
        let summary = UndeleteSummary {
            snapshots: targets.len() as u64,
            packs: wanted.reviving.len() as u64,
            shares_recalled: exchanges.iter().map(|done| done.shares).sum(),
            bytes_recalled: exchanges.iter().map(|done| done.bytes).sum(),
        };
        sink.send(Summary::Undelete(summary)).await?;
        Ok(if posted { Exit::Done } else { Exit::UnderProtected })
    }

    /// The forgotten snapshots of these names; all of them without a name.
    fn forgotten(&self, names: &[String]) -> Result<Vec<Snapshot>, Failure> {
        if names.is_empty() {
            let all = self.0.db.read(|conn| {
                let forgotten = tree::forgotten(conn)?;
                let mut all = tree::snapshots(conn)?;
                all.retain(|snapshot| forgotten.contains_key(&snapshot.record.seq));
                Ok::<_, DbError>(all)
            });
            return Ok(all?);
        }
        let found = names.iter().map(|name| {
            let find = self
                .0
                .db
                .read(|conn| tree::find_forgotten(conn, name, &clock::utc_offset_secs));
            find.map_err(failures::find)
        });
        found.collect()
    }

    async fn wanted(&self, kept: Vec<u64>) -> Result<Wanted, Failure> {
        let db = self.0.db.clone();
        let looking = move || db.read(|conn| live::wanted(conn, &kept));
        Ok(tokio::task::spawn_blocking(looking).await.map_err(failures::worker)??)
    }

    /// The same, with what other machines of the account want: it is kept as it is.
    async fn wanted_here_or(&self, others: &BTreeSet<PackId>, kept: Vec<u64>) -> Result<Wanted, Failure> {
        let mut wanted = self.wanted(kept).await?;
        if others.is_empty() {
            return Ok(wanted);
        }
        self.0.db.read(|conn| live::keep(conn, &mut wanted, others))?;
        Ok(wanted)
    }

    /// Says what stays only because of other machines, and how to give up what those want that are gone for good.
    async fn say_kept_for_others(&self, wanted: &Wanted, kept: &[u64], sink: &Sink) -> Result<(), Failure> {
        let (own, is_peer) = (self.device(), |key: &PeerKey| self.0.peers.get(key).is_some());
        let others = self.0.db.read(|conn| heads::guarded(conn, own, &is_peer))?;
        if others.is_empty() {
            return Ok(());
        }
        let here = self.wanted(kept.to_vec()).await?;
        let packs = here.dying.len().saturating_sub(wanted.dying.len());
        if packs > 0 {
            let names: Vec<&str> = others.iter().map(|other| other.name.as_str()).collect();
            let error = format!(
                "{packs} packs stay because other machines of this account have them in their newest backups ({}); if one is gone for \
                 good: `gridbackup forget --device NAME`",
                names.join(", ")
            );
            sink.send(Problem::new(error)).await?;
        }
        Ok(())
    }

    /// Of these packs, how many cannot be read from the peers known to hold their shares.
    fn unreadable(&self, rows: &[PackRow]) -> Result<usize, Failure> {
        let count = self.0.db.read(|conn| {
            let mut count = 0;
            for row in rows {
                let pack = packs::get(conn, *row)?;
                count += usize::from(pack.is_none_or(|pack| pack.held() < usize::from(pack.manifest.shape.k)));
            }
            Ok::<_, DbError>(count)
        });
        Ok(count?)
    }

    /// Puts a head on the peers that says what is forgotten; whether it survives the loss of friends now.
    async fn post(&self, sink: &Sink) -> Result<bool, Failure> {
        let done = self.post_head().await?;
        if !done {
            let error = "Too few peers took the new head: nothing was given up, the next `gridbackup prune` goes on";
            sink.send(Problem::new(error)).await?;
        }
        Ok(done)
    }

    /// Puts a head on the peers that says what is forgotten, tagged and pinned; whether it survives the loss of friends now.
    pub(super) async fn post_head(&self) -> Result<bool, Failure> {
        let config = self.config();
        self.connect().await?;
        let uploader = self.uploader(&config).await?;
        let writer = self.writer(uploader, &config);
        let posting = tokio::task::spawn_blocking(move || writer.post(&|_| {}));
        match posting.await.map_err(failures::worker)? {
            Ok(_) | Err(WriteError::NoPeers) => {}
            Err(error) => return Err(failures::write(error)),
        }
        let done = self.0.db.read(|conn| {
            let mut root = content::posted(conn)?.map_or_else(Root::default, |posted| posted.root);
            let said = root.forgotten.take().unwrap_or_default() == tree::forgotten_ranges(conn)?;
            Ok::<_, DbError>(said && !tree::mark(conn, &mut root)? && post::is_backup_acknowledged(conn)?)
        })?;
        Ok(done)
    }
}

fn seq(snapshot: &Snapshot) -> u64 {
    snapshot.record.seq
}

type Judged = (Vec<(Snapshot, Vec<Keeper>)>, Vec<Snapshot>);

/// Which snapshots stay, with the reasons, and which go.
fn judge(
    kept: Vec<Snapshot>,
    named: &BTreeSet<u64>,
    marks: &BTreeMap<u64, Marks>,
    request: &Forget,
) -> Result<Judged, Failure> {
    let policy = policy(request);
    let has_policy = policy != Policy::default() || !request.keep_tags.is_empty();
    if !has_policy && named.is_empty() && !request.unread && request.devices.is_empty() {
        return Err(
            Failure::new(Exit::Usage, "There is nothing that says which snapshots to keep")
                .hint("say what to keep (--keep-daily 7 --keep-monthly 12) or name the snapshots to forget"),
        );
    }
    let reasons = retention::judge(&kept, &policy, clock::now_ns(), &clock::utc_offset_secs);
    let (mut staying, mut going) = (Vec::new(), Vec::new());
    for (snapshot, reasons) in kept.into_iter().zip(reasons) {
        let seq = snapshot.record.seq;
        let reasons = keepers(&reasons, marks.get(&seq), request);
        let is_pinned = marks.get(&seq).is_some_and(|marks| marks.pinned);
        if is_pinned && named.contains(&seq) {
            let id = snapshot.record.id.short();
            return Err(Failure::new(Exit::Failed, format!("Snapshot {id} is pinned"))
                .hint(format!("`gridbackup unpin {id}` first")));
        }
        let is_kept = !has_policy || !reasons.is_empty();
        if is_kept && !named.contains(&seq) {
            staying.push((snapshot, reasons));
        } else {
            going.push(snapshot);
        }
    }
    Ok((staying, going))
}

/// Refuses to leave a group of snapshots, or the account, with nothing: a policy that keeps nothing of what a device backs up is a
/// slip of the hand far more often than a wish. Who names each snapshot of a group means it, but not of all groups.
fn refuse_emptying(
    staying: &[(Snapshot, Vec<Keeper>)],
    going: &[Snapshot],
    named: &BTreeSet<u64>,
) -> Result<(), Failure> {
    // A pin keeps one snapshot, and is no policy: one that keeps nothing else is as likely a slip.
    let has_policy = going.iter().any(|snapshot| !named.contains(&seq(snapshot)));
    let is_kept = |reasons: &Vec<Keeper>| !has_policy || reasons.iter().any(|keeper| *keeper != Keeper::Pinned);
    let kept = staying.iter().filter(|(_, reasons)| is_kept(reasons));
    let left: BTreeSet<Group> = kept.map(|(snapshot, _)| Group::of(snapshot)).collect();
    let mut emptied: BTreeMap<Group, u64> = BTreeMap::new();
    let leaving = going.iter().filter(|snapshot| !left.contains(&Group::of(snapshot)));
    for snapshot in leaving.clone() {
        *emptied.entry(Group::of(snapshot)).or_default() += 1;
    }
    let by_policy: BTreeSet<Group> = leaving
        .filter(|snapshot| !named.contains(&seq(snapshot)))
        .map(Group::of)
        .collect();
    if !left.is_empty() {
        emptied.retain(|group, _| by_policy.contains(group));
    }
    if emptied.is_empty() {
        return Ok(());
    }
    let groups: Vec<String> = emptied.iter().map(|(group, count)| group_text(group, *count)).collect();
    Err(
        Failure::new(Exit::Failed, format!("Nothing would be left of {}", groups.join("; "))).hint(
            "nothing was forgotten: say what to keep (`--dry-run` shows it), or --allow-empty-group if that is meant",
        ),
    )
}

/// A group, and how many snapshots it has, for people.
fn group_text(group: &Group, count: u64) -> String {
    let device = group.device.short();
    // More roots than a line holds help nobody to recognise the group.
    let mut roots: Vec<String> = group
        .roots
        .iter()
        .take(3)
        .map(|root| format!("`{}`", PathName(root.0.clone()).display()))
        .collect();
    if group.roots.len() > roots.len() {
        roots.push(format!("{} more", group.roots.len() - roots.len()));
    }
    let what = if count == 1 { "snapshot" } else { "snapshots" };
    format!("{} ({count} {what} of device {device})", roots.join(", "))
}

/// A tag that no snapshot has keeps none: perhaps another one was meant, and what has that one goes.
async fn warn_of_unknown_tags(tags: &[String], marks: &BTreeMap<u64, Marks>, sink: &Sink) -> Result<(), Failure> {
    let known: BTreeSet<&str> = marks
        .values()
        .flat_map(|marks| marks.tags.iter().map(String::as_str))
        .collect();
    for tag in tags.iter().filter(|tag| !known.contains(tag.as_str())) {
        let meant = nearest(tag, known.iter().copied()).map_or(String::new(), |meant| format!("; is `{meant}` meant?"));
        let error = format!("No snapshot has the tag `{tag}`: it keeps none{meant}");
        sink.send(Problem::new(error)).await?;
    }
    Ok(())
}

fn policy(request: &Forget) -> Policy {
    Policy {
        last: request.keep_last,
        hourly: request.keep_hourly,
        daily: request.keep_daily,
        weekly: request.keep_weekly,
        monthly: request.keep_monthly,
        yearly: request.keep_yearly,
        within_secs: request.keep_within_secs,
    }
}

fn retention(snapshot: &Snapshot, action: Fate, reasons: Vec<Keeper>) -> Retention {
    Retention {
        id: snapshot.record.id.to_string(),
        time: clock::timestamp(snapshot.record.time_ns),
        action,
        reasons,
    }
}

async fn say_failed(exchanges: &[Exchange], sink: &Sink) -> Result<(), Failure> {
    for exchange in exchanges {
        let Some(error) = &exchange.failed else { continue };
        sink.send(Problem::of_peer(&exchange.peer, error.to_string())).await?;
    }
    Ok(())
}
