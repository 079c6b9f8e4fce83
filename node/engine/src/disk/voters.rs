//! Who votes on which machine writes a disk: how they are, which are peers no more, and others in their place
//! (docs/decisions/0071-other-voters.md).

use std::collections::BTreeSet;
use std::sync::Arc;

use api::failure::{Exit, Failure};
use api::message::{Changed, Deed, DiskVoter, Problem, Promised, Thing};
use api::output::Sink;
use api::request::{DiskVotersReplace, TakeOver};
use data_encoding::HEXLOWER;
use disk::running::edits::Edit;
use disks::open::OpenDisk;
use disks::record::{KnownVoter, VolumeBytes};
use disks::voters::{self, Electorate, VoterState};
use proto::epoch::Epoch;
use proto::id::VoterId;
use upload_queue::peers::place::Place;
use upload_queue::peers::{Peer, PeerKey};

use super::claim::{Change, nobody_votes};
use super::known::KnownDisk;
use crate::{Engine, failures, known};

/// How long the end of replacing voters waits for peers.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A disk's voters as they were found.
pub(super) struct Voters {
    electorate: Electorate,
    all: Vec<Voter>,
}

struct Voter {
    state: VoterState,
    /// What it is or was called.
    name: Option<String>,
    /// No peer is it any more.
    is_gone: bool,
}

impl Voters {
    /// Whether a majority can be asked.
    fn has_majority(&self) -> bool {
        let there = (0..).zip(&self.all).filter(|(_, voter)| voter.state.is_there());
        let there = there.map(|(number, _)| number).collect();
        self.electorate.quorum().is_some_and(|quorum| quorum.is_met_by(there))
    }

    fn gone(&self) -> Vec<String> {
        let gone = self.all.iter().filter(|voter| voter.is_gone);
        gone.map(Voter::shown).collect()
    }
}

impl Voter {
    fn shown(&self) -> String {
        self.name.clone().unwrap_or_else(|| short(self.state.id))
    }
}

fn short(id: VoterId) -> String {
    HEXLOWER.encode(&id.0[..4])
}

impl Engine {
    /// How the voters of a disk are, as its newest commit names them. Which peers they are is written down.
    pub(super) async fn voters(&self, known: &KnownDisk) -> Result<Option<Voters>, Failure> {
        let Some(head) = &known.head else { return Ok(None) };
        let electorate = Electorate::of_root(&self.root_at(known, &head.root).await?);
        let (account, peers) = (self.0.home.account.account_id(), self.0.peers.all());
        let identified = voters::identify(&peers).await;
        let states = voters::states_of(&peers, &identified, &electorate.all(), account, known.volume).await;
        let records = self.disk_records();
        let before = records.voters(known.volume);
        let is_peer = self.peer_keys();
        let mut all = Vec::new();
        let mut noted = Vec::new();
        for state in states {
            let seen = before
                .iter()
                .find(|seen| seen.id == state.id.0 && !seen.peer.is_empty());
            let peer = state.peer.as_ref().map(|peer| (peer.key.0.clone(), peer.name.clone()));
            let peer = peer.or_else(|| seen.map(|seen| (seen.peer.clone(), seen.name.clone())));
            let is_gone =
                state.peer.is_none() && is_gone(peer.as_ref().map(|(key, _)| key), &peers, &identified, &is_peer);
            let (peer, name) = peer.unzip();
            noted.push(KnownVoter {
                id: state.id.0,
                peer: peer.unwrap_or_default(),
                name: name.clone().unwrap_or_default(),
            });
            all.push(Voter { state, name, is_gone });
        }
        if known.record.is_some()
            && let Err(error) = records.put_voters(known.volume, &noted)
        {
            tracing::warn!("{}: {error}", records.folder_of(known.volume).display());
        }
        Ok(Some(Voters { electorate, all }))
    }

    /// All that are peers, whether they are reached or not; none: it cannot be told of friends.
    fn peer_keys(&self) -> PeerKeys {
        let peers = self.0.peers.all().into_iter().map(|peer| peer.key);
        let friends = known::friends(&self.0.home.paths, self.0.home.account.account_id());
        PeerKeys {
            // Who was never in a grid has no friends.
            has_roster: self.keys_of_devices(&|_| true).is_some() || !self.0.home.paths.roster().exists(),
            keys: peers.chain(friends.into_iter().map(|friend| friend.key)).collect(),
        }
    }

    pub(crate) async fn show_voters(&self, name: &str, sink: &Sink) -> Result<Exit, Failure> {
        let known = self.find_disk(name).await?;
        for voter in self.voter_messages(&known).await? {
            sink.send(voter).await?;
        }
        Ok(Exit::Done)
    }

    /// What is said of a disk's voters.
    pub(super) async fn voter_messages(&self, known: &KnownDisk) -> Result<Vec<DiskVoter>, Failure> {
        let Some(voters) = self.voters(known).await? else {
            return Ok(Vec::new());
        };
        let mut messages = Vec::new();
        for voter in &voters.all {
            let (promised, machine) = match voter.state.promise {
                None => (Promised::Unknown, None),
                Some(None) => (Promised::Nobody, None),
                Some(Some(Epoch { device, .. })) if device == self.device() => (Promised::Us, None),
                Some(Some(Epoch { device, .. })) => (Promised::Other, Some(self.machine_name(device).await)),
            };
            messages.push(DiskVoter {
                id: HEXLOWER.encode(&voter.state.id.0),
                peer: voter.name.clone(),
                gone: voter.is_gone,
                online: voter.state.is_there(),
                promised,
                machine,
                leaving: !voters.electorate.voters.contains(&voter.state.id),
            });
        }
        Ok(messages)
    }

    pub(crate) async fn replace_voters(&self, asked: DiskVotersReplace, sink: &Sink) -> Result<Exit, Failure> {
        let known = self.find_disk(&asked.name).await?;
        let voters = self
            .voters(&known)
            .await?
            .ok_or_else(|| super::claim::no_head(&known))?;
        match (voters.has_majority(), asked.lost) {
            (true, true) => {
                let error = format!("A majority of the voters of `{}` answers: none is lost", known.name);
                return Err(Failure::new(Exit::Usage, error).hint("replace them without --lost"));
            }
            (false, false) => {
                let (voters, waited) = (voters.all.len(), voters::PATIENCE);
                let error = disks::voting::ClaimError::NoMajority { voters, waited };
                return Err(self.not_claimed(&known.name, &error).await);
            }
            _ => {}
        }
        let after = self.chosen(&voters).await?;
        if after == voters.electorate.voters && voters.electorate.leaving.is_empty() {
            sink.send(Changed::new(Deed::Unchanged, Thing::DiskVoters, known.name))
                .await?;
            return Ok(Exit::Done);
        }
        let change = match asked.lost {
            true => Change::Lost(after),
            false => Change::Replace(after),
        };
        self.change_voters(&known, asked.take_over, change).await?;
        sink.send(Changed::new(Deed::Changed, Thing::DiskVoters, known.name))
            .await?;
        Ok(Exit::Done)
    }

    /// Other voters for a disk that is about to be served, if some of its own are peers no more and a majority is there. The disk with them, if there are; if it fails,
    /// the disk is served by those that it has.
    pub(super) async fn replace_gone(&self, known: &KnownDisk, take_over: TakeOver) -> Option<KnownDisk> {
        let replaced = self.try_to_replace_gone(known, take_over).await;
        replaced.unwrap_or_else(|failure| {
            tracing::info!("`{}`: its voters are not replaced now: {failure}", known.name);
            None
        })
    }

    async fn try_to_replace_gone(&self, known: &KnownDisk, take_over: TakeOver) -> Result<Option<KnownDisk>, Failure> {
        let Some(voters) = self.voters(known).await? else {
            return Ok(None);
        };
        let gone = voters.gone();
        if gone.is_empty() || !voters.has_majority() {
            return Ok(None);
        }
        let after = self.chosen(&voters).await?;
        if after == voters.electorate.voters {
            return Ok(None);
        }
        let count = after.len();
        let changed = self.change_voters(known, take_over, Change::Replace(after)).await?;
        let are = if gone.len() == 1 { "is a peer" } else { "are peers" };
        tracing::warn!(
            "`{}` has other voters from now on, {count}: {} {are} no more",
            known.name,
            gone.join(", ")
        );
        Ok(Some(changed))
    }

    /// The best voters among the peers that answer, those first that a disk has already.
    async fn chosen(&self, voters: &Voters) -> Result<Vec<VoterId>, Failure> {
        let after = voters::choose(&self.0.peers.all(), &voters.electorate.voters).await;
        match after.is_empty() {
            false => Ok(after),
            true => Err(nobody_votes()),
        }
    }

    /// Opens the disk, has its voters changed, and closes it. The disk with its new ones.
    async fn change_voters(
        &self,
        known: &KnownDisk,
        take_over: TakeOver,
        change: Change,
    ) -> Result<KnownDisk, Failure> {
        self.change_in_use(known, take_over, &change).await?;
        let known = self.find_disk(&super::id(known.volume)).await?;
        if let Err(failure) = self.voters(&known).await {
            tracing::debug!("which peers vote now is not written down: {failure}");
        }
        Ok(known)
    }

    async fn change_in_use(&self, known: &KnownDisk, take_over: TakeOver, change: &Change) -> Result<(), Failure> {
        let _in_use = self.0.disks.take(known)?;
        let disk = self.open_unused(known, take_over, change).await?;
        if !disk.root().leaving.is_empty() && change.after().is_some() {
            // Some were being replaced when that was cut off.
            self.edit_voters(known, disk, vec![Edit::VotersTaken]).await?;
            let known = self.find_disk(&super::id(known.volume)).await?;
            let disk = self.open_unused(&known, TakeOver::Never, change).await?;
            return self.edit_voters(&known, disk, edits(change)).await;
        }
        self.edit_voters(known, disk, edits(change)).await
    }

    /// Makes these edits, and closes the disk: by what was asked so far it is not to be served.
    pub(super) async fn edit_voters(
        &self,
        known: &KnownDisk,
        disk: Arc<OpenDisk>,
        edits: Vec<Edit>,
    ) -> Result<(), Failure> {
        let editing = disk.clone();
        let edited = tokio::task::spawn_blocking(move || edits.iter().try_for_each(|edit| editing.edit(edit))).await;
        let closed = disk.close(PATIENCE).await;
        let root = disk.root();
        drop(disk);
        if closed.is_ok() {
            self.note_closed(known.volume, &root)?;
        }
        let edited = edited.map_err(failures::worker)?;
        edited.map_err(|error| super::edits::not_edited(&known.name, error))?;
        match closed {
            Ok(()) => Ok(()),
            Err(error) => Err(self.not_committed(known, error).await),
        }
    }

    /// Voters of disks that are peers no more, or would be none without these: by what is written down here, and without asking anybody.
    pub(crate) fn votes_without(&self, without: &dyn Fn(&PeerKey) -> bool) -> Vec<DiskVotes> {
        let records = self.disk_records();
        let is_peer = self.peer_keys();
        let (written, _unreadable) = records.all().unwrap_or_default();
        let of_disk = |volume: VolumeBytes, name: String| {
            let voters = records.voters(volume);
            let is_gone = |voter: &KnownVoter| {
                let key = PeerKey(voter.peer.clone());
                !voter.peer.is_empty() && (without(&key) || !is_peer.has(&key))
            };
            let (gone, left): (Vec<_>, Vec<_>) = voters.into_iter().partition(is_gone);
            DiskVotes {
                name,
                gone: gone.into_iter().map(|voter| voter.name).collect(),
                left,
            }
        };
        written
            .into_iter()
            .map(|record| of_disk(record.volume, record.name))
            .collect()
    }

    /// Says which disks a peer votes for that is to be removed. Fails if one of them could not be opened any more, and nobody said that this is meant.
    pub(crate) async fn may_lose_voters(
        &self,
        peer: &str,
        is_removed: &(dyn Fn(&PeerKey) -> bool + Sync),
        is_meant: bool,
        sink: &Sink,
    ) -> Result<(), Failure> {
        let (now, then) = (self.votes_without(&|_| false), self.votes_without(is_removed));
        for (now, then) in now.into_iter().zip(then) {
            if then.gone.len() == now.gone.len() {
                continue;
            }
            let name = &then.name;
            if then.has_majority() {
                let text = format!("it votes for the disk {name}: who serves that next chooses another voter");
                sink.send(Problem::of_peer(peer, text)).await?;
                continue;
            }
            let error = format!(
                "Without `{peer}` the disk `{name}` cannot be opened any more: a majority of its voters would be gone"
            );
            if !is_meant {
                return Err(Failure::new(Exit::Failed, error).hint(format!(
                    "`gridbackup disk voters {name} --replace` chooses others when there are more peers, or `gridbackup peer rm {peer} --force`"
                )));
            }
            sink.send(Problem::of_peer(peer, error)).await?;
        }
        Ok(())
    }
}

/// The voters of a disk by what is written down of them.
#[derive(Clone, Debug)]
pub(crate) struct DiskVotes {
    /// The disk's name.
    pub name: String,
    /// Names of those that are no peers.
    pub gone: Vec<String>,
    /// The others.
    left: Vec<KnownVoter>,
}

impl DiskVotes {
    /// Whether those that are left, as far as they fit, are a majority.
    pub fn has_majority_of(&self, fits: impl Fn(&PeerKey) -> bool) -> bool {
        // Of one that was never seen nothing is known.
        let is_there = |voter: &&KnownVoter| voter.peer.is_empty() || fits(&PeerKey(voter.peer.clone()));
        let there = self.left.iter().filter(is_there).count();
        2 * there > self.gone.len() + self.left.len() || self.gone.len() + self.left.len() == 0
    }

    /// Who they are, in a sentence without a full stop; none: nothing is known of them.
    pub fn text(&self) -> Option<String> {
        let name = |voter: &KnownVoter| match &voter.name[..] {
            "" => short(VoterId(voter.id)),
            name => name.to_owned(),
        };
        let gone = self.gone.iter().map(|name| format!("{name}, a peer no more"));
        let all: Vec<String> = self.left.iter().map(name).chain(gone).collect();
        (!all.is_empty()).then(|| format!("Who writes the disk {} is decided by {}", self.name, all.join("; ")))
    }

    /// Whether those that are left are a majority.
    pub fn has_majority(&self) -> bool {
        self.has_majority_of(|_| true)
    }
}

struct PeerKeys {
    keys: BTreeSet<PeerKey>,
    /// Who is a friend can be told.
    has_roster: bool,
}

impl PeerKeys {
    fn has(&self, key: &PeerKey) -> bool {
        let is_unknown = || !self.has_roster && matches!(key.place(), Some(Place::Friend(_)));
        self.keys.contains(key) || is_unknown()
    }
}

/// Whether a voter that no peer says it is, is gone: the peer that it was is none any more or is another voter by now; or it was never seen here, and all
/// peers say that they are others.
fn is_gone(was: Option<&String>, peers: &[Peer], identified: &[Option<VoterId>], is_peer: &PeerKeys) -> bool {
    match was {
        Some(key) => {
            let mut same = peers.iter().zip(identified).filter(|(peer, _)| peer.key.0 == *key);
            !is_peer.has(&PeerKey(key.clone())) || same.any(|(_, said)| said.is_some())
        }
        None => {
            let answers = |key: &PeerKey| {
                let mut of_peer = peers.iter().zip(identified).filter(|(peer, _)| peer.key == *key);
                of_peer.any(|(peer, said)| said.is_some() || !peer.place.is_counted())
            };
            is_peer.has_roster && is_peer.keys.iter().all(answers)
        }
    }
}

fn edits(change: &Change) -> Vec<Edit> {
    let ids = |voters: &[VoterId]| voters.iter().map(|voter| voter.0).collect();
    match change {
        Change::Keep => Vec::new(),
        Change::Replace(after) => vec![Edit::Voters(ids(after)), Edit::VotersTaken],
        Change::Lost(after) => vec![Edit::VotersInstead(ids(after))],
    }
}
