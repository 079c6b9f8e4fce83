//! Which machine writes a disk: this one, again or from now on.

use std::sync::Arc;
use std::time::Duration;

use api::clock;
use api::failure::{Exit, Failure};
use api::request::TakeOver;
use backup::catalog::heads;
use backup::writer::Writer;
use disk::claim::writer::{Commit, Handover, Writer as Claim};
use disk::commit::opening::read_root;
use disk::commit::root::Root;
use disks::commits::{Mend, Way};
use disks::outgoing::Delivered;
use disks::record::VolumeBytes;
use disks::voters::{self, Electorate};
use disks::voting::{ClaimError, Voting, rules};
use futures::future::join_all;
use proto::epoch::Epoch;
use proto::head::{DiskHead, RootRef};
use proto::id::{DeviceId, VoterId};
use tokio_util::sync::CancellationToken;

use super::known::KnownDisk;
use super::unusable;
use crate::{Engine, failures};

/// How long a majority of voters may take to answer.
const PATIENCE: Duration = Duration::from_secs(45);
/// The same for a takeover that waits until the writer before acknowledges nothing more (`disk::claim::times`).
const PATIENCE_OVER: Duration = Duration::from_secs(120);

/// This machine is a disk's writer.
pub(super) struct Claimed {
    /// Of its commits.
    pub way: Way,
    /// From which commit it goes on.
    pub newest: Commit<RootRef>,
    /// Another machine was its writer before, or nobody knows.
    pub is_taken_over: bool,
}

/// How often other voters may be found than were asked before that is given up.
const CLAIMS_MAX: usize = 8;

/// Who is a disk's writer, by its voters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Promised {
    /// A machine, in this epoch.
    To(Epoch),
    /// Nobody by a majority.
    ToNobody,
}

/// Who is to vote on a disk from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Whoever does.
    Keep,
    /// These, as soon as a majority of those that it has has taken that.
    Replace(Vec<VoterId>),
    /// These, as a majority of those that it has is lost for good.
    Lost(Vec<VoterId>),
}

impl Change {
    pub fn after(&self) -> Option<&[VoterId]> {
        match self {
            Self::Replace(after) => Some(after),
            Self::Keep | Self::Lost(_) => None,
        }
    }
}

/// How a disk is claimed.
pub(super) struct Claiming<'a> {
    pub take_over: TakeOver,
    pub change: &'a Change,
    /// The commit that this machine was about to make when it ended.
    pub offered: Option<RootRef>,
}

impl Engine {
    /// A claim of a volume that nobody else knows of yet, and who votes on it.
    pub(super) async fn claim_new(&self, volume: VolumeBytes, writer: Writer) -> Result<(Way, Vec<VoterId>), Failure> {
        let voters = voters::choose(&self.0.peers.all(), &[]).await;
        let electorate = Electorate::of(voters.clone());
        let rules = rules(&writer, &electorate, Handover::Forced).ok_or_else(nobody_votes)?;
        let way = self.way(Claim::take_over(rules, None), electorate, volume, writer);
        let found = way.voting.found(PATIENCE).await;
        if let Err(error) = found {
            return Err(self.not_claimed("the new disk", &error).await);
        }
        way.voting.adopt(None);
        Ok((way, voters))
    }

    /// This machine as a disk's writer, and the commit from which it goes on.
    pub(super) async fn claim(
        &self,
        known: &KnownDisk,
        writer: Writer,
        claiming: Claiming<'_>,
    ) -> Result<Claimed, Failure> {
        let head = known.head.clone().ok_or_else(|| no_head(known))?;
        let newest = commit_of(&head, writer.cert.device);
        if let Change::Lost(after) = claiming.change {
            return self.claim_lost(known, writer, after, newest, claiming.take_over).await;
        }
        let needed = self.needed(known, &head, claiming.offered).await?;
        let promised = self.promised(known, &needed).await?;
        let is_ours = known.machine.is_none() && promised == Promised::To(newest.epoch);
        // The voters promise it to this machine, but the one before may still acknowledge: nobody waited that out.
        let was_cut_off =
            is_ours && self.disk_records().is_taking_over(known.volume) && claiming.take_over != TakeOver::Now;
        let (handover, patience) = self.handover(known, is_ours, promised, claiming.take_over).await?;
        let electorate = needed.clone().followed_by(claiming.change.after());
        let is_resumed = is_ours
            && !was_cut_off
            && (electorate == needed || self.may_resume(known, &electorate, newest.epoch).await);
        if is_resumed {
            let rules = rules(&writer, &electorate, handover).ok_or_else(|| no_voters(known))?;
            let way = self.way(
                Claim::resume(rules, newest.clone(), 1),
                electorate,
                known.volume,
                writer,
            );
            self.opened(known, &way, PATIENCE).await?;
            return Ok(Claimed {
                way,
                newest,
                is_taken_over: false,
            });
        }
        if !is_ours || was_cut_off {
            tracing::warn!("{}", waiting_text(&known.name, handover));
        }
        self.note_taking_over(known, handover == Handover::Awaited)?;
        // Above what this machine was before, and whatever the voters say.
        let above = Some(newest.epoch).filter(|_| known.machine.is_none());
        let (way, newest) = self
            .take(known, writer, electorate, above, handover, claiming.change)
            .await?;
        self.opened(known, &way, patience).await?;
        self.note_taking_over(known, false)?;
        Ok(Claimed {
            way,
            newest,
            is_taken_over: !is_ours || was_cut_off,
        })
    }

    /// A claim above all others, and what it found. Where that names other voters than were asked, it is begun anew with those: whoever goes on
    /// without them goes on beside them.
    async fn take(
        &self,
        known: &KnownDisk,
        writer: Writer,
        mut electorate: Electorate,
        mut above: Option<Epoch>,
        handover: Handover,
        change: &Change,
    ) -> Result<(Way, Commit<RootRef>), Failure> {
        for _ in 0..CLAIMS_MAX {
            let rules = rules(&writer, &electorate, handover).ok_or_else(|| no_voters(known))?;
            let claim = Claim::take_over(rules, above);
            let way = self.way(claim, electorate, known.volume, writer.clone());
            let found = match way.voting.found(PATIENCE).await {
                Ok(found) => found,
                Err(error) => return Err(self.not_claimed(&known.name, &error).await),
            };
            let found = found.ok_or_else(|| {
                failures::too_few_shares(format!("No voter of `{}` knows a commit of it", known.name))
            })?;
            let named = Electorate::of_root(&self.root_at(known, &found.root).await?);
            if way.voting.electorate().covers(&named) {
                way.voting.adopt(None);
                return Ok((way, found));
            }
            above = way.voting.epoch().max(above);
            electorate = named.followed_by(change.after());
        }
        let error = format!("`{}` gets other voters again and again", known.name);
        Err(Failure::new(Exit::Failed, error).hint("another machine replaces them: try again when it is done"))
    }

    /// A claim by voters that are to be, as those that are are lost: from the newest commit that any head names, above whatever is promised.
    async fn claim_lost(
        &self,
        known: &KnownDisk,
        writer: Writer,
        after: &[VoterId],
        newest: Commit<RootRef>,
        take_over: TakeOver,
    ) -> Result<Claimed, Failure> {
        let (account, peers) = (self.0.home.account.account_id(), self.0.peers.all());
        let asking = peers.iter().map(|peer| voters::promise_of(peer, account, known.volume));
        let told = join_all(asking).await.into_iter().flatten().flatten().max();
        let above = told.max(Some(newest.epoch));
        // By what a peer says, not by this machine's head: after `recover` that is a copy of whoever writes by it. Where none says anything
        // another may write.
        let was_cut_off = self.disk_records().is_taking_over(known.volume);
        let is_ours = known.machine.is_none() && told == Some(newest.epoch) && !was_cut_off;
        let promised = above.map_or(Promised::ToNobody, Promised::To);
        let (handover, patience) = self.handover(known, is_ours, promised, take_over).await?;
        // There was no other.
        let handover = if is_ours { Handover::Forced } else { handover };
        self.note_taking_over(known, handover == Handover::Awaited)?;
        let electorate = Electorate::of(after.to_vec());
        let rules = rules(&writer, &electorate, handover).ok_or_else(nobody_votes)?;
        let mut way = self.way(Claim::take_over(rules, above), electorate, known.volume, writer);
        way.is_without_voters = true;
        let found = match way.voting.found(PATIENCE).await {
            Ok(found) => found,
            Err(error) => return Err(self.not_claimed(&known.name, &error).await),
        };
        let newer = |commit: &Commit<RootRef>| (commit.epoch.counter, commit.number);
        let newest = found.into_iter().chain([newest]).max_by_key(newer);
        let newest = newest.ok_or_else(|| no_head(known))?;
        way.voting.adopt(Some(newest.clone()));
        self.opened(known, &way, patience).await?;
        self.note_taking_over(known, false)?;
        Ok(Claimed {
            way,
            newest,
            is_taken_over: !is_ours,
        })
    }

    /// Whether what is claimed waits for the writer before, and how long that may take. Refused where that is another machine, and nobody said that
    /// it is to be taken over.
    async fn handover(
        &self,
        known: &KnownDisk,
        is_ours: bool,
        promised: Promised,
        take_over: TakeOver,
    ) -> Result<(Handover, Duration), Failure> {
        match (is_ours, take_over) {
            // Should voters that are to be have promised more, it is waited for as for anybody.
            (true, _) => Ok((Handover::Awaited, PATIENCE_OVER)),
            (false, TakeOver::Now) => Ok((Handover::Forced, PATIENCE)),
            (false, TakeOver::Wait) => Ok((Handover::Awaited, PATIENCE_OVER)),
            (false, TakeOver::Never) => {
                // Also after `recover`: whether the machine before is gone nobody knows here.
                let machine = match (&known.machine, promised) {
                    (Some(machine), _) => machine.clone(),
                    (None, Promised::To(epoch)) => self.machine_name(epoch.device).await,
                    (None, Promised::ToNobody) => "before this one".to_owned(),
                };
                Err(written_elsewhere(&known.name, &machine))
            }
        }
    }

    /// Before anything is claimed, and after whoever wrote before acknowledges nothing more: what voters promise does not tell the two apart.
    fn note_taking_over(&self, known: &KnownDisk, is_so: bool) -> Result<(), Failure> {
        let records = self.disk_records();
        let noted = records.set_taking_over(known.volume, is_so);
        noted.map_err(|error| unusable(&records.folder_of(known.volume), &error))
    }

    async fn opened(&self, known: &KnownDisk, way: &Way, patience: Duration) -> Result<(), Failure> {
        match way.voting.open(patience).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.not_claimed(&known.name, &error).await),
        }
    }

    fn way(&self, claim: Claim<RootRef>, electorate: Electorate, volume: VolumeBytes, writer: Writer) -> Way {
        let end = CancellationToken::new();
        Way {
            voting: Voting::start(claim, electorate, volume, writer.clone(), &end),
            mend: self.mend(),
            is_without_voters: false,
            end: end.drop_guard(),
            writer,
            volume,
            now_ns: clock::now_ns,
            delivered: Delivered::default(),
            turn: std::sync::Mutex::default(),
        }
    }

    /// A disk that is open does not keep the home open.
    fn mend(&self) -> Mend {
        let engine = Arc::downgrade(&self.0);
        Arc::new(move |packs| {
            let engine = engine.clone();
            Box::pin(async move {
                let Some(engine) = engine.upgrade().map(Engine) else {
                    return;
                };
                if let Err(failure) = engine.repair_packs(&packs).await {
                    tracing::info!(%failure, "what a commit of a disk waits for was not built anew");
                }
            })
        })
    }

    /// Whether nobody whom this asks has promised more than this epoch: by voters that are to be somebody else may have been one.
    async fn may_resume(&self, known: &KnownDisk, electorate: &Electorate, epoch: Epoch) -> bool {
        let account = self.0.home.account.account_id();
        let states = voters::states(&self.0.peers.all(), &electorate.all(), account, known.volume).await;
        states.iter().all(|state| state.promise.flatten() <= Some(epoch))
    }

    /// The highest epoch that a majority of the voters, or one of them, promise.
    async fn promised(&self, known: &KnownDisk, electorate: &Electorate) -> Result<Promised, Failure> {
        let account = self.0.home.account.account_id();
        let all = electorate.all();
        let quorum = electorate.quorum().ok_or_else(|| no_voters(known))?;
        let states = voters::states(&self.0.peers.all(), &all, account, known.volume).await;
        let told = || {
            (0..)
                .zip(&states)
                .filter_map(|(number, state)| Some((number, state.promise?)))
        };
        if !quorum.is_met_by(told().map(|(number, _)| number).collect()) {
            let (voters, waited) = (all.len(), voters::PATIENCE);
            let error = ClaimError::NoMajority { voters, waited };
            return Err(self.not_claimed(&known.name, &error).await);
        }
        let highest = told().map(|(_, said)| said).max().flatten();
        let of_highest = told().filter(|(_, said)| *said == highest);
        let is_of_majority = quorum.is_met_by(of_highest.map(|(number, _)| number).collect());
        Ok(match highest {
            Some(epoch) if is_of_majority || epoch.device != self.device() => Promised::To(epoch),
            _ => Promised::ToNobody,
        })
    }

    /// Whom the newest commit names; and where this machine was about to replace them, those as well.
    async fn needed(
        &self,
        known: &KnownDisk,
        head: &DiskHead,
        offered: Option<RootRef>,
    ) -> Result<Electorate, Failure> {
        let named = Electorate::of_root(&self.root_at(known, &head.root).await?);
        let Some(offered) = offered else { return Ok(named) };
        let Ok(root) = self.root_at(known, &offered).await else {
            return Ok(named);
        };
        let offered = Electorate::of_root(&root);
        Ok(match (offered.covers(&named), named.covers(&offered)) {
            (true, _) => offered,
            // As those of before were said to be lost, and are back.
            (false, false) if root.commit == head.commit + 1 => named.followed_by(Some(&offered.voters)),
            _ => named,
        })
    }

    /// A root of a disk.
    pub(super) async fn root_at(&self, known: &KnownDisk, at: &RootRef) -> Result<Root, Failure> {
        let (packs, at) = (self.disk_packs().await?, at.clone());
        let reading = tokio::task::spawn_blocking(move || read_root(&at, &*packs));
        let root = reading.await.map_err(failures::worker)?;
        root.map_err(|error| {
            Failure::new(Exit::Failed, format!("`{}` cannot be read now: {error}", known.name)).exit(Exit::TooFewShares)
        })
    }

    pub(super) async fn not_claimed(&self, name: &str, error: &ClaimError) -> Failure {
        match error {
            ClaimError::Fenced { by } => {
                let machine = self.machine_name(by.device).await;
                Failure::new(
                    Exit::Failed,
                    format!("`{name}` is written by the machine {machine} now"),
                )
                .hint("serve it there, or take it over with --take-over wait")
            }
            ClaimError::NoMajority { .. } => {
                Failure::new(Exit::Failed, format!("`{name}` cannot be written now: {error}"))
                    .exit(Exit::TooFewShares)
                    .hint(format!(
                        "`gridbackup disk voters {name}` names them; until they are back, `disk export {name} FILE --committed` reads it; if a \
                         majority is lost for good: `disk voters {name} --replace --lost`"
                    ))
            }
            error => Failure::new(Exit::Failed, format!("`{name}` cannot be written now: {error}"))
                .exit(Exit::TooFewShares)
                .hint("try again in a minute"),
        }
    }

    /// What a machine of this account is called; if that was not seen yet, peers are asked.
    pub(super) async fn machine_name(&self, device: DeviceId) -> String {
        let known = || Some(self.0.db.read(heads::names).ok()?.get(&device)?.clone());
        if known().is_none()
            && let Err(error) = self.look(voters::PATIENCE).await
        {
            tracing::debug!(%error, "which machine that is");
        }
        known().unwrap_or_else(|| device.short().to_string())
    }
}

fn waiting_text(name: &str, handover: Handover) -> String {
    match handover {
        Handover::Awaited => format!(
            "`{name}` is taken over: for a minute the machine that wrote it last may still acknowledge writes; --take-over now \
             does not wait"
        ),
        Handover::Forced => format!(
            "`{name}` is taken over: what the machine that wrote it last acknowledges for another minute is not in it"
        ),
    }
}

pub(super) fn no_head(known: &KnownDisk) -> Failure {
    Failure::new(
        Exit::TooFewShares,
        format!("No head that can be reached names `{}`", known.name),
    )
    .hint("try again when more peers are up")
}

fn no_voters(known: &KnownDisk) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("`{}` has voters that no disk can have", known.name),
    )
}

pub(super) fn nobody_votes() -> Failure {
    Failure::new(
        Exit::Failed,
        "No peer can say who writes a disk: none answers, or none of them can vote",
    )
    .hint("add a folder, a friend, or a bucket that honours conditional writes")
}

fn written_elsewhere(name: &str, machine: &str) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("`{name}` was last written by the machine {machine}"),
    )
    .hint("serve it there, or take it over with --take-over wait")
}

fn commit_of(head: &DiskHead, device: DeviceId) -> Commit<RootRef> {
    Commit {
        epoch: Epoch {
            counter: head.epoch,
            device,
        },
        number: head.commit,
        root: head.root.clone(),
    }
}
