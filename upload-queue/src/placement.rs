//! Which code a pack gets, and which peer gets which share: distinct failure domains, weighted by free space.

use std::cmp::Reverse;
use std::collections::HashSet;

use proto::shape::ShareSize;

use crate::peers::{Peer, PeerKey};

/// Most shares of a pack: more add little safety, and each is another stream, file and audit.
const SHARES_MAX: usize = 20;
/// From so many domains on, one stays out of each pack: there is a peer to repair onto at once.
const DOMAINS_WITH_SPARE: usize = 7;

/// Shares needed and made, for `tolerate` friends that may vanish out of `domains` failure domains.
///
/// n = domains (one fewer from seven on, so that there is a peer to repair onto; at most 20), but at least tolerate + 1: where there
/// are fewer domains yet, the shares without a place are built when there are more;
/// k = min(n − tolerate, ⌈n/2⌉), at least 1.
pub fn code_for(tolerate: u8, domains: usize) -> (u8, u8) {
    let spare = usize::from(domains >= DOMAINS_WITH_SPARE);
    let n = (domains - spare).max(usize::from(tolerate) + 1).min(SHARES_MAX) as u8;
    let k = n.saturating_sub(tolerate).min(n.div_ceil(2)).max(1);
    (k, n)
}

/// For each share the peer it should go to, or `None` where no domain is left. Shares already placed keep their peer;
/// no two shares of a pack share a domain; peers with more free space first (by powers of two), among equals in an order
/// that `seed` shuffles. Peers with no space for even a share of the smallest size get none.
pub fn plan(shares: &[Option<PeerKey>], peers: &[Candidate], seed: u64) -> Vec<Option<PeerKey>> {
    let placed: HashSet<&PeerKey> = shares.iter().flatten().collect();
    let mut domains: HashSet<&str> = peers
        .iter()
        .filter(|peer| placed.contains(&peer.key))
        .map(|peer| peer.domain.as_str())
        .collect();
    let missing = shares.iter().filter(|share| share.is_none()).count();

    let mut ordered: Vec<&Candidate> = peers.iter().filter(|peer| has_space(peer)).collect();
    ordered.sort_by_key(|peer| (Reverse(space_class(peer)), shuffled(seed, &peer.key)));
    let mut chosen: Vec<&Candidate> = ordered
        .into_iter()
        .filter(|peer| domains.insert(peer.domain.as_str()))
        .take(missing)
        .collect();
    // Shuffled anew: otherwise the data shares, which readers ask for first, would all lie on the largest peers.
    chosen.sort_by_key(|peer| shuffled(!seed, &peer.key));

    let mut chosen = chosen.into_iter().map(|peer| peer.key.clone());
    let place = |share: &Option<PeerKey>| share.clone().or_else(|| chosen.next());
    shares.iter().map(place).collect()
}

fn has_space(peer: &Candidate) -> bool {
    peer.free_bytes
        .is_none_or(|bytes| bytes >= ShareSize::ALL[0].stored_bytes() as u64)
}

/// Free space by powers of two: smaller differences do not outweigh an even spread.
fn space_class(peer: &Candidate) -> u32 {
    peer.free_bytes.map_or(u64::BITS, |bytes| bytes.max(1).ilog2())
}

/// A number that looks random for each pair of seed and peer: FNV-1a over the key, then the finalizer of splitmix64.
pub(crate) fn shuffled(seed: u64, key: &PeerKey) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in key.0.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= seed;
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// A peer that could take a share.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The peer.
    pub key: PeerKey,
    /// Its failure domain.
    pub domain: String,
    /// Bytes it still takes, if known.
    pub free_bytes: Option<u64>,
}

impl From<&Peer> for Candidate {
    fn from(peer: &Peer) -> Self {
        Self {
            key: peer.key.clone(),
            domain: peer.domain.clone(),
            free_bytes: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn peer(number: usize, domain: usize, free_bytes: Option<u64>) -> Candidate {
        Candidate {
            key: PeerKey(format!("friend:{number}")),
            domain: format!("home {domain}"),
            free_bytes,
        }
    }

    #[test]
    fn the_code_follows_the_number_of_domains() {
        for (tolerate, domains, code) in [
            (2, 0, (1, 3)), // nobody: a code that is valid all the same
            (2, 1, (1, 3)),
            (0, 1, (1, 1)),
            (1, 2, (1, 2)),
            (2, 3, (1, 3)),
            (1, 3, (2, 3)),
            (2, 5, (3, 5)),
            (2, 6, (3, 6)),
            (2, 7, (3, 6)), // one is kept free to repair onto
            (2, 8, (4, 7)),
            (0, 2, (1, 2)),
            (2, 12, (6, 11)),
            (2, 100, (10, 20)),
            (255, 5, (1, 20)),
        ] {
            assert_eq!(code_for(tolerate, domains), code, "tolerate {tolerate} of {domains}");
        }
    }

    #[test]
    fn the_peer_with_more_space_is_taken() {
        let peers = [
            peer(0, 0, Some(1 << 30)),
            peer(1, 1, Some(1 << 40)),
            peer(2, 2, Some(1 << 30)),
        ];
        for seed in 0..100 {
            assert_eq!(plan(&[None], &peers, seed), [Some(peers[1].key.clone())]);
        }
    }

    /// Of a peer that failed nothing is known but that it may take one share of the pack's size: no peer was ever tried again with the
    /// smallest ones after all had been away at once.
    #[test]
    fn a_peer_with_room_for_a_share_of_the_smallest_size_gets_it() {
        let tiny = ShareSize::Tiny.stored_bytes() as u64;
        for (free, is_taken) in [(tiny, true), (tiny - 1, false)] {
            assert_eq!(plan(&[None], &[peer(0, 0, Some(free))], 1)[0].is_some(), is_taken);
        }
    }

    #[test]
    fn a_share_without_a_domain_has_no_peer() {
        let peers = [peer(0, 0, None), peer(1, 0, None)];
        assert_eq!(plan(&[None, None], &peers, 1).iter().flatten().count(), 1);
    }

    /// Both who gets a share at all, and who gets the first one.
    #[test]
    fn equal_peers_get_equally_many_shares() {
        let peers: Vec<_> = (0..8).map(|n| peer(n, n, Some((1 << 40) + n as u64))).collect();
        let (mut any, mut first) = (HashMap::new(), HashMap::new());
        for seed in 0..4000u64 {
            let placed = plan(&[const { None }; 4], &peers, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            *first.entry(placed[0].clone()).or_insert(0) += 1;
            for share in placed {
                *any.entry(share).or_insert(0) += 1;
            }
        }
        assert!(
            any.len() == 8 && any.values().all(|&count| (1800..2200).contains(&count)),
            "{any:?}"
        );
        assert!(
            first.len() == 8 && first.values().all(|&count| (400..600).contains(&count)),
            "{first:?}"
        );
    }

    prop_compose! {
        fn candidates()(
            peers in prop::collection::vec((0usize..10, prop::option::of(0u64..1 << 42)), 0..24),
        ) -> Vec<Candidate> {
            peers.into_iter().enumerate().map(|(number, (domain, free))| peer(number, domain, free)).collect()
        }
    }

    proptest! {
        #[test]
        fn plans_keep_what_is_placed_and_use_each_domain_once(
            peers in candidates(), n in 1usize..21, kept in prop::collection::vec(any::<bool>(), 21), seed in any::<u64>(),
        ) {
            let first = plan(&vec![None; n], &peers, seed);
            prop_assert_eq!(first.len(), n);
            let shares: Vec<_> = first.iter().zip(kept).map(|(share, keep)| share.clone().filter(|_| keep)).collect();
            let second = plan(&shares, &peers, seed ^ 1);

            let by_key: HashMap<_, _> = peers.iter().map(|peer| (&peer.key, peer)).collect();
            let open: HashSet<_> = peers.iter().filter(|peer| has_space(peer)).map(|peer| &peer.domain).collect();
            for (before, planned) in [(&vec![None; n], &first), (&shares, &second)] {
                let mut domains = HashSet::new();
                for (before, share) in before.iter().zip(planned) {
                    let Some(key) = share else { continue };
                    prop_assert!(before.is_none() || before == share, "a placed share moved");
                    prop_assert!(domains.insert(&by_key[key].domain), "two shares in {}", by_key[key].domain);
                    prop_assert!(has_space(by_key[key]), "a full peer was chosen");
                }
                prop_assert_eq!(domains.len(), n.min(open.len()), "a domain was left out");
            }
            prop_assert_eq!(plan(&shares, &peers, seed ^ 1), second, "not deterministic");
        }

        #[test]
        fn codes_are_valid_and_survive_what_they_can(tolerate in any::<u8>(), domains in 0usize..100) {
            let (k, n) = code_for(tolerate, domains);
            prop_assert!(1 <= k && k <= n && usize::from(n) <= domains.max(usize::from(tolerate) + 1) && n <= 20);
            prop_assert!(n - k >= tolerate || n == 20);
        }
    }
}
