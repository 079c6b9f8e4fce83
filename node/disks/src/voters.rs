//! Which peers vote on who writes a disk: chosen when it is made, and found again by what they are, not by where.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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

/// What each of these voters promises of a volume; outer none: it does not say, or what it says is no promise of it.
pub async fn promises(
    peers: &[Peer],
    voters: &[VoterId],
    account: AccountId,
    volume: VolumeBytes,
) -> Vec<Option<Option<Epoch>>> {
    let asking = voters.iter().map(|voter| async {
        let peer = find(peers, *voter).await?;
        let asked = peer.store.promise(account, VolumeId(volume));
        match tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()? {
            None => Some(None),
            Some(promise) => Some(Some(epoch_of(&promise, account, volume)?)),
        }
    });
    join_all(asking).await
}

/// The epoch of a promise that a voter shows: signed by whoever it is of, for this account and volume.
pub fn epoch_of(promise: &[u8], account: AccountId, volume: VolumeBytes) -> Option<Epoch> {
    let promise = Promise::decode(promise).ok()?;
    let is_of = promise.account() == account && promise.volume.0 == volume;
    is_of.then(|| promise.epoch())
}

/// Voters for a new disk: an odd number, at most five, in as many failure domains as there are. None: nobody can vote.
pub async fn choose(peers: &[Peer]) -> Vec<VoterId> {
    let asked = join_all(peers.iter().map(voter_of)).await;
    let voters = peers
        .iter()
        .zip(asked)
        .filter_map(|(peer, voter)| Some((peer.domain.clone(), voter?)));
    pick(voters.collect())
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
