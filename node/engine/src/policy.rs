//! The policy of config.toml as the crates below count it: in shares, not in peers.
//!
//! A bucket may hold several shares of a pack, and they are lost together: to survive the loss of N peers, a pack must survive that
//! of all shares of the N which hold most (docs/decisions/0019-bucket-slots.md).

use upload_queue::care::standing::Patience;

use crate::config::Config;
use crate::kind;

/// Shares of a pack that may be lost.
pub(super) fn tolerate(config: &Config) -> u8 {
    let extra: u64 = further_shares(config).take(config.tolerate.into()).sum();
    u8::try_from(u64::from(config.tolerate) + extra).unwrap_or(u8::MAX)
}

/// Peers that may be lost, when so many shares may.
pub(super) fn peers_within(config: &Config, shares: u64) -> u64 {
    let mut left = shares;
    let heavy = further_shares(config).take_while(|further| {
        let rest = left.checked_sub(1 + further);
        left = rest.unwrap_or(left);
        rest.is_some()
    });
    let heavy = heavy.count() as u64;
    match heavy < further_shares(config).count() as u64 {
        // Not even the next bucket: whichever peers are lost, it may be among them.
        true => heavy,
        false => heavy + left,
    }
}

/// Of each peer that holds several shares, those beyond one; most first.
fn further_shares(config: &Config) -> impl Iterator<Item = u64> {
    let all = config.peers.values().map(kind::further_shares);
    let mut further: Vec<u64> = all.filter(|further| *further > 0).collect();
    further.sort_unstable_by(|a, b| b.cmp(a));
    further.into_iter()
}

/// The config's patience with peers.
pub(super) fn patience(config: &Config) -> Patience {
    Patience {
        suspect_after_secs: config.suspect_after.0.as_secs(),
        lost_after_secs: config.lost_after.0.as_secs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PeerConfig;

    fn config(tolerate: u16, buckets: &[u16]) -> Config {
        let peer = |(number, shares): (usize, &u16)| {
            let peer = PeerConfig {
                url: Some(format!("s3://bucket-{number}")),
                shares: Some(*shares),
                ..PeerConfig::default()
            };
            (number.to_string(), peer)
        };
        Config {
            tolerate,
            peers: buckets.iter().enumerate().map(peer).collect(),
            ..Config::default()
        }
    }

    #[test]
    fn the_heaviest_peers_are_lost_first() {
        for (peers, buckets, shares) in [
            (2, [].as_slice(), 2),
            (1, &[2], 2),
            (2, &[2], 3),
            (1, &[1, 3], 3),
            (3, &[2, 3], 6),
            (0, &[4], 0),
        ] {
            let config = config(peers, buckets);
            assert_eq!(tolerate(&config), shares, "{peers} {buckets:?}");
            assert_eq!(
                peers_within(&config, shares.into()),
                u64::from(peers),
                "{peers} {buckets:?}"
            );
        }
        let bucket = config(2, &[3]);
        assert_eq!(
            [0, 1, 2, 3, 4].map(|shares| peers_within(&bucket, shares)),
            [0, 0, 0, 1, 2]
        );
    }
}
