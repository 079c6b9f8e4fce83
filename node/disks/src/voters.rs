//! Which peers vote on who writes a disk: chosen when it is made or when some are replaced, and found again by what they are, not by where.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use disk::claim::quorum::{Quorum, VoterSet};
use disk::commit::root::Root;
use futures::future::join_all;
use proto::epoch::Epoch;
use proto::id::{AccountId, VolumeId, VoterId};
use proto::promise::Promise;
use upload_queue::peers::Peer;

use crate::record::VolumeBytes;

/// How long a peer may take to say which voter it is.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Most voters of a disk.
const VOTERS_MAX: usize = disk::commit::lineage::VOTERS_MAX;

/// Who has to be asked for a disk: its voters; while they are replaced, those before as well (docs/decisions/0071-other-voters.md).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Electorate {
    /// The voters, ascending.
    pub voters: Vec<VoterId>,
    /// Those before them, ascending; empty where nothing is replaced.
    pub leaving: Vec<VoterId>,
}

impl Electorate {
    /// These alone.
    pub fn of(voters: Vec<VoterId>) -> Self {
        let leaving = Vec::new();
        Self { voters, leaving }
    }

    /// Whom a root names.
    pub fn of_root(root: &Root) -> Self {
        let ids = |ids: &[[u8; 32]]| ids.iter().copied().map(VoterId).collect();
        Self {
            voters: ids(&root.voters),
            leaving: ids(&root.leaving),
        }
    }

    /// These, and others that are to come after them; the same while some are replaced already.
    pub fn followed_by(self, after: Option<&[VoterId]>) -> Self {
        match after {
            Some(after) if self.leaving.is_empty() && self.voters != after => Self {
                voters: after.to_vec(),
                leaving: self.voters,
            },
            _ => self,
        }
    }

    /// All of them: each one's number in a claim is its place here.
    pub fn all(&self) -> Vec<VoterId> {
        let all: BTreeSet<VoterId> = self.voters.iter().chain(&self.leaving).copied().collect();
        all.into_iter().collect()
    }

    /// What is a majority of them; none: no disk has such voters.
    pub fn quorum(&self) -> Option<Quorum> {
        let all = self.all();
        let set = |voters: &[VoterId]| -> VoterSet {
            let numbered = (0..).zip(&all).filter(|(_, voter)| voters.contains(voter));
            numbered.map(|(number, _)| number).collect()
        };
        let before = if self.leaving.is_empty() {
            &self.voters
        } else {
            &self.leaving
        };
        Quorum::joint(set(before), set(&self.voters))
    }

    /// Whether a majority of these is a majority of those.
    pub fn covers(&self, other: &Self) -> bool {
        let groups = [&self.voters, &self.leaving];
        let mut others = [&other.voters, &other.leaving]
            .into_iter()
            .filter(|group| !group.is_empty());
        others.all(|group| groups.contains(&group))
    }
}

/// What is known of a voter.
#[derive(Clone)]
pub struct VoterState {
    /// Which.
    pub id: VoterId,
    /// The peer that it is, if one that answers is it.
    pub peer: Option<Peer>,
    /// What it promises; outer none: it does not say.
    pub promise: Option<Option<Epoch>>,
}

impl VoterState {
    /// Whether it can be asked.
    pub fn is_there(&self) -> bool {
        self.promise.is_some()
    }
}

async fn voter_of(peer: &Peer) -> Option<VoterId> {
    tokio::time::timeout(PATIENCE, peer.store.voter()).await.ok()?.ok()
}

/// The peer that is this voter, if it answers.
pub async fn find(peers: &[Peer], voter: VoterId) -> Option<Peer> {
    let asked = join_all(peers.iter().map(voter_of)).await;
    let mut found = peers.iter().zip(asked);
    found
        .find(|(_, said)| *said == Some(voter))
        .map(|(peer, _)| peer.clone())
}

/// Which voter each of these peers is, as far as they answer.
pub async fn identify(peers: &[Peer]) -> Vec<Option<VoterId>> {
    join_all(peers.iter().map(voter_of)).await
}

/// How each of these voters is, and what it promises of a volume.
pub async fn states(peers: &[Peer], voters: &[VoterId], account: AccountId, volume: VolumeBytes) -> Vec<VoterState> {
    states_of(peers, &identify(peers).await, voters, account, volume).await
}

/// The same, where it is known which voter each peer is.
pub async fn states_of(
    peers: &[Peer],
    identified: &[Option<VoterId>],
    voters: &[VoterId],
    account: AccountId,
    volume: VolumeBytes,
) -> Vec<VoterState> {
    let asking = voters.iter().map(|id| async {
        let mut of_peers = peers.iter().zip(identified);
        let peer = of_peers
            .find(|(_, said)| **said == Some(*id))
            .map(|(peer, _)| peer.clone());
        let promise = match &peer {
            Some(peer) => promise_of(peer, account, volume).await,
            None => None,
        };
        VoterState { id: *id, peer, promise }
    });
    join_all(asking).await
}

/// What a peer promises of a volume; outer none: it does not say, or what it says is no promise of it.
pub async fn promise_of(peer: &Peer, account: AccountId, volume: VolumeBytes) -> Option<Option<Epoch>> {
    let asked = peer.store.promise(account, VolumeId(volume));
    match tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()? {
        None => Some(None),
        Some(promise) => Some(Some(epoch_of(&promise, account, volume)?)),
    }
}

/// The epoch of a promise that a voter shows: signed by whoever it is of, for this account and volume.
pub fn epoch_of(promise: &[u8], account: AccountId, volume: VolumeBytes) -> Option<Epoch> {
    let promise = Promise::decode(promise).ok()?;
    let is_of = promise.account() == account && promise.volume.0 == volume;
    is_of.then(|| promise.epoch())
}

/// Voters for a disk: an odd number, at most five, in as many failure domains as there are, those first that it has already. None: nobody can
/// vote.
pub async fn choose(peers: &[Peer], keep: &[VoterId]) -> Vec<VoterId> {
    let asked = identify(peers).await;
    let voters = peers
        .iter()
        .zip(asked)
        .filter_map(|(peer, voter)| Some((peer.domain.clone(), voter?)));
    let mut voters: Vec<_> = voters.collect();
    // Stable: the others stay in the order of the peers.
    voters.sort_by_key(|(_, voter)| !keep.contains(voter));
    pick(voters)
}

/// Of voters with their domains: one of each domain first, then second ones.
fn pick(voters: Vec<(String, VoterId)>) -> Vec<VoterId> {
    let (mut seen, mut of_domain) = (BTreeSet::new(), BTreeMap::<String, usize>::new());
    let mut ranked = Vec::new();
    for (domain, voter) in voters {
        if seen.insert(voter) {
            let rank = of_domain.entry(domain).or_default();
            ranked.push((*rank, voter));
            *rank += 1;
        }
    }
    // Stable: those of one rank stay in the order of the peers.
    ranked.sort_by_key(|(rank, _)| *rank);
    let count = ranked.len().min(VOTERS_MAX);
    let odd = if count.is_multiple_of(2) {
        count.saturating_sub(1)
    } else {
        count
    };
    let mut chosen: Vec<VoterId> = ranked.into_iter().take(odd).map(|(_, voter)| voter).collect();
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(domains: &[(&str, u8)]) -> Vec<u8> {
        let voters = domains
            .iter()
            .map(|(domain, voter)| ((*domain).to_owned(), VoterId([*voter; 32])));
        pick(voters.collect()).iter().map(|voter| voter.0[0]).collect()
    }

    fn ids(voters: &[u8]) -> Vec<VoterId> {
        voters.iter().map(|voter| VoterId([*voter; 32])).collect()
    }

    #[test]
    fn while_voters_are_replaced_those_before_are_asked_as_well() {
        let (one, other) = (Electorate::of(ids(&[1, 2, 3])), Electorate::of(ids(&[2, 3, 4])));
        let both = one.clone().followed_by(Some(&ids(&[2, 3, 4])));
        assert_eq!(both.all(), ids(&[1, 2, 3, 4]));
        assert!(both.covers(&one) && both.covers(&other) && both.covers(&both));
        assert!(!one.covers(&both) && !one.covers(&other) && !other.covers(&both));
        let quorum = both.quorum().unwrap();
        let is_met = |voters: &[u8]| quorum.is_met_by(voters.iter().copied().collect());
        assert!(is_met(&[1, 2]) && !is_met(&[0, 1]) && !is_met(&[2, 3]) && is_met(&[0, 1, 3]));
        // Nobody is replaced by the same, nor while others are.
        assert_eq!(one.clone().followed_by(Some(&ids(&[1, 2, 3]))), one);
        assert_eq!(both.clone().followed_by(Some(&ids(&[7]))), both);
        assert!(Electorate::of(ids(&[1, 2])).quorum().is_none() && Electorate::of(Vec::new()).quorum().is_none());
    }

    #[test]
    fn an_odd_number_of_voters_is_chosen_and_one_of_each_domain_first() {
        assert!(picked(&[]).is_empty());
        assert_eq!(picked(&[("a", 1)]), [1]);
        assert_eq!(picked(&[("a", 1), ("b", 2)]), [1]);
        assert_eq!(picked(&[("a", 1), ("a", 2), ("b", 3), ("c", 4)]), [1, 3, 4]);
        assert_eq!(
            picked(&[("a", 7), ("a", 6), ("a", 5), ("b", 4), ("b", 3), ("c", 2)]),
            [2, 3, 4, 6, 7]
        );
        // The slots of one bucket are one voter.
        assert_eq!(picked(&[("a", 1), ("a", 1), ("a", 1)]), [1]);
    }
}
