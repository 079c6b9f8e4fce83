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
use disks::commits::{Mend, Way};
use disks::outgoing::Delivered;
use disks::record::VolumeBytes;
use disks::voters;
use disks::voting::{ClaimError, Voting, rules};
use proto::epoch::Epoch;
use proto::head::{DiskHead, RootRef};
use proto::id::{DeviceId, VoterId};
use tokio_util::sync::CancellationToken;

use super::known::KnownDisk;
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

/// Who is a disk's writer, by its voters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Promised {
    /// A machine, in this epoch.
    To(Epoch),
    /// Nobody by a majority.
    ToNobody,
}

impl Engine {
    /// A claim of a volume that nobody else knows of yet, and who votes on it.
    pub(super) async fn claim_new(&self, volume: VolumeBytes, writer: Writer) -> Result<(Way, Vec<VoterId>), Failure> {
        let voters = voters::choose(&self.0.peers.all()).await;
        let rules = rules(&writer, voters.len(), Handover::Forced).ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                "No peer can say who writes a disk: none answers, or none of them can vote",
            )
            .hint("add a folder, a friend, or a bucket that honours conditional writes")
        })?;
        let way = self.way(Claim::take_over(rules, None), voters.clone(), volume, writer);
        let found = way.voting.found(PATIENCE).await;
        if let Err(error) = found {
            return Err(self.not_claimed("the new disk", &error).await);
        }
        Ok((way, voters))
    }

    /// This machine as a disk's writer, and the commit from which it goes on.
    pub(super) async fn claim(
        &self,
        known: &KnownDisk,
        writer: Writer,
        take_over: TakeOver,
    ) -> Result<Claimed, Failure> {
        let head = known.head.clone().ok_or_else(|| {
            Failure::new(
                Exit::TooFewShares,
                format!("No head that can be reached names `{}`", known.name),
            )
            .hint("try again when more peers are up")
        })?;
        let voters = self.voters_of(known, &head).await?;
        let newest = commit_of(&head, writer.cert.device);
        let promised = self.promised(known, &voters).await?;
        let is_ours = known.machine.is_none() && promised == Promised::To(newest.epoch);
        let (handover, patience) = match (is_ours, take_over) {
            (true, _) => (Handover::Awaited, PATIENCE),
            (false, TakeOver::Now) => (Handover::Forced, PATIENCE),
            (false, TakeOver::Wait) => (Handover::Awaited, PATIENCE_OVER),
            (false, TakeOver::Never) => {
                // Also after `recover`: whether the machine before is gone nobody knows here.
                let machine = match (&known.machine, promised) {
                    (Some(machine), _) => machine.clone(),
                    (None, Promised::To(epoch)) => self.machine_name(epoch.device).await,
                    (None, Promised::ToNobody) => "before this one".to_owned(),
                };
                return Err(written_elsewhere(&known.name, &machine));
            }
        };
        let rules = rules(&writer, voters.len(), handover).ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                format!("`{}` has voters that no disk can have", known.name),
            )
        })?;
        let claim = match is_ours {
            true => Claim::resume(rules, newest.clone(), 1),
            // Above what this machine was before, and whatever the voters say.
            false => Claim::take_over(rules, Some(newest.epoch).filter(|_| known.machine.is_none())),
        };
        let way = self.way(claim, voters, known.volume, writer);
        let newest = match is_ours {
            true => newest,
            false => {
                tracing::warn!("{}", waiting_text(&known.name, handover));
                let found = way.voting.found(patience).await;
                let found = match found {
                    Ok(found) => found,
                    Err(error) => return Err(self.not_claimed(&known.name, &error).await),
                };
                found.ok_or_else(|| {
                    failures::too_few_shares(format!("No voter of `{}` knows a commit of it", known.name))
                })?
            }
        };
        if let Err(error) = way.voting.open(patience).await {
            return Err(self.not_claimed(&known.name, &error).await);
        }
        Ok(Claimed {
            way,
            newest,
            is_taken_over: !is_ours,
        })
    }

    fn way(&self, claim: Claim<RootRef>, voters: Vec<VoterId>, volume: VolumeBytes, writer: Writer) -> Way {
        let end = CancellationToken::new();
        Way {
            voting: Voting::start(claim, voters, volume, writer.clone(), &end),
            mend: self.mend(),
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

    /// The highest epoch that a majority of the voters, or one of them, promise.
    async fn promised(&self, known: &KnownDisk, voters: &[VoterId]) -> Result<Promised, Failure> {
        let account = self.0.home.account.account_id();
        let asked = voters::promises(&self.0.peers.all(), voters, account, known.volume).await;
        let told: Vec<Option<Epoch>> = asked.into_iter().flatten().collect();
        let majority = voters.len() / 2 + 1;
        if told.len() < majority {
            let (voters, waited) = (voters.len(), voters::PATIENCE);
            let error = ClaimError::NoMajority { voters, waited };
            return Err(self.not_claimed(&known.name, &error).await);
        }
        let highest = told.iter().max().copied().flatten();
        let count = told.iter().filter(|said| **said == highest).count();
        Ok(match highest {
            Some(epoch) if count >= majority || epoch.device != self.device() => Promised::To(epoch),
            _ => Promised::ToNobody,
        })
    }

    async fn voters_of(&self, known: &KnownDisk, head: &DiskHead) -> Result<Vec<VoterId>, Failure> {
        let (packs, at) = (self.disk_packs().await?, head.root.clone());
        let reading = tokio::task::spawn_blocking(move || read_root(&at, &*packs));
        let root = reading.await.map_err(failures::worker)?;
        let root = root.map_err(|error| {
            Failure::new(Exit::Failed, format!("`{}` cannot be read now: {error}", known.name)).exit(Exit::TooFewShares)
        })?;
        Ok(root.voters.into_iter().map(VoterId).collect())
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
            error => Failure::new(Exit::Failed, format!("`{name}` cannot be written now: {error}"))
                .exit(Exit::TooFewShares)
                .hint("try again when more of its voters are up"),
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
