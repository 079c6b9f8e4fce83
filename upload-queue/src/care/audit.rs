//! Which leaves of which shares a peer is asked to prove, and when.
//!
//! Shares are gone through in a secret random order, one round after the other, with a random leaf each: no share is
//! asked for twice before all were asked for once, and nobody can tell which comes next. A challenge that was left open is
//! the same until it is answered, so that a peer cannot wait for one that it likes better.

use proto::id::ShareId;

/// How often and how much a peer is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Seconds between two challenges.
    pub every_secs: u64,
    /// Leaves in one challenge. 64 × 16 KiB = 1 MiB; a loss of 1 % is found with 99 % probability after 459 leaves.
    pub leaves: usize,
    /// After a failure so many times as often, until a whole round was sound: what else is gone is found soon.
    pub closer: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            every_secs: 24 * 3600,
            leaves: 64,
            closer: 24,
        }
    }
}

/// A leaf that a peer is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Leaf {
    /// The share.
    pub share: ShareId,
    /// Number of the leaf in it, from 0.
    pub leaf: u32,
}

/// A share that a peer should hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// The share.
    pub share: ShareId,
    /// Leaves of its data.
    pub leaves: u32,
}

/// How an audit ended: Storj's five.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Everything was proved.
    Success,
    /// Some shares are not there or not intact.
    Failure {
        /// Shares that the peer says, or shows by its silence on them, it does not have.
        missing: Vec<ShareId>,
        /// Shares whose proof was wrong.
        damaged: Vec<ShareId>,
    },
    /// The peer could not be reached.
    Offline,
    /// The peer was reached and did not answer in time: the same challenge comes again.
    Contained,
    /// Something else went wrong, perhaps here.
    Unknown,
}

/// Where the audits of one peer stand; kept between runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rota {
    /// Secret of this round: decides order and leaves. Fresh randomness for each.
    pub secret: u64,
    /// Place of the last share that was settled.
    pub position: Option<u64>,
    /// When the next challenge is due, in seconds.
    pub due_secs: u64,
    /// Whether the peer is looked at more closely, and whether this round has seen a failure.
    pub closer: bool,
    /// See `closer`.
    pub failed: bool,
}

/// A challenge.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Challenge {
    /// What is asked for.
    pub leaves: Vec<Leaf>,
    /// Place of its last share.
    position: u64,
    /// No share comes behind it in this round.
    ends_round: bool,
}

impl Rota {
    /// The first round; the first challenge is due at a random time within one interval, so that peers are not all asked
    /// at once.
    pub fn new(now_secs: u64, pace: &Pace, random: u64) -> Self {
        Self {
            secret: mix(random),
            position: None,
            due_secs: now_secs.saturating_add(random % pace.every_secs.max(1)),
            closer: false,
            failed: false,
        }
    }

    /// Is a challenge due?
    pub fn is_due(&self, now_secs: u64) -> bool {
        now_secs >= self.due_secs
    }

    /// The next challenge to a peer that should hold `shares`, in any order; empty if it holds none. The same until
    /// `settle` moves on.
    pub fn challenge(&self, shares: &[Held], pace: &Pace) -> Challenge {
        let mut ahead: Vec<(u64, Held)> = shares
            .iter()
            .map(|held| (self.place(held.share), *held))
            .filter(|(place, _)| self.position.is_none_or(|position| *place > position))
            .collect();
        ahead.sort_unstable_by_key(|(place, held)| (*place, held.share));
        ahead.dedup_by_key(|(_, held)| held.share);
        let ends_round = ahead.len() <= pace.leaves;
        ahead.truncate(pace.leaves);
        // Few shares are asked for several leaves each: the challenge then says as much as one over many.
        let per_share = pace.leaves.checked_div(ahead.len()).unwrap_or(0).max(1) as u32;
        let mut leaves = Vec::with_capacity(pace.leaves);
        for (place, held) in &ahead {
            let first = mix(place ^ self.secret) % u64::from(held.leaves.max(1));
            let count = per_share.min(held.leaves);
            // Evenly spread from a random one on: distinct, and over the whole share.
            leaves.extend((0..count).map(|number| Leaf {
                share: held.share,
                leaf: ((first + u64::from(number) * u64::from(held.leaves / count)) % u64::from(held.leaves)) as u32,
            }));
        }
        Challenge {
            leaves,
            position: ahead.last().map_or(u64::MAX, |(place, _)| *place),
            ends_round,
        }
    }

    /// Moves on behind a challenge, unless it was left open. `random` is for the next round's secret and the jitter.
    pub fn settle(&mut self, now_secs: u64, challenge: &Challenge, outcome: &Outcome, pace: &Pace, random: u64) {
        if matches!(outcome, Outcome::Failure { .. }) {
            (self.closer, self.failed) = (true, true);
        }
        if matches!(outcome, Outcome::Success | Outcome::Failure { .. }) {
            if challenge.ends_round {
                self.closer = self.failed;
                (self.secret, self.position, self.failed) = (mix(random), None, false);
            } else {
                self.position = Some(challenge.position);
            }
        }
        let interval = match outcome {
            // Asked again soon: whoever cannot prove must not win a day to fetch it.
            Outcome::Contained => pace.every_secs / 24,
            _ if self.closer => pace.every_secs / pace.closer.max(1),
            _ => pace.every_secs,
        };
        // Up to an eighth earlier: neither peers nor their answers fall into step.
        let jitter = mix(!random) % (interval / 8).max(1);
        self.due_secs = now_secs.saturating_add(interval.saturating_sub(jitter).max(1));
    }

    fn place(&self, share: ShareId) -> u64 {
        let head = u64::from_le_bytes(*share.0.first_chunk().expect("an id is longer than 8 bytes"));
        mix(head ^ self.secret)
    }
}

/// The finalizer of splitmix64.
fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 24 * 3600;

    fn shares(count: usize) -> Vec<Held> {
        let id = |number: usize| ShareId(*blake3_like(number as u64).first_chunk().expect("32 bytes"));
        (0..count)
            .map(|number| Held {
                share: id(number),
                leaves: 256,
            })
            .collect()
    }

    /// Bytes that look random, without a hash crate.
    fn blake3_like(number: u64) -> Vec<u8> {
        (0..4).flat_map(|part| mix(number * 4 + part).to_le_bytes()).collect()
    }

    const SOUND: Outcome = Outcome::Success;

    #[test]
    fn a_loss_of_one_percent_is_found_within_a_week_in_99_of_100_runs() {
        let (held, pace) = (shares(2000), Pace::default());
        let lost: HashSet<ShareId> = held.iter().step_by(100).map(|held| held.share).collect();
        let mut within = 0;
        for run in 0..1000 {
            let mut rota = Rota::new(0, &pace, run);
            let found = (0..8).any(|day| {
                let challenge = rota.challenge(&held, &pace);
                rota.settle(day * DAY, &challenge, &SOUND, &pace, run);
                challenge.leaves.iter().any(|leaf| lost.contains(&leaf.share))
            });
            within += usize::from(found);
        }
        assert!(within >= 985, "{within} of 1000");
    }

    #[test]
    fn after_a_failure_all_shares_are_seen_within_days_and_then_the_pace_is_as_before() {
        let (held, pace) = (shares(2000), Pace::default());
        let mut rota = Rota::new(0, &pace, 7);
        let failure = Outcome::Failure {
            missing: vec![held[0].share],
            damaged: Vec::new(),
        };
        let first = rota.challenge(&held, &pace);
        rota.settle(0, &first, &failure, &pace, 8);
        let (mut seen, mut now) = (HashSet::new(), 0);
        while rota.closer {
            now = rota.due_secs;
            let challenge = rota.challenge(&held, &pace);
            seen.extend(challenge.leaves.iter().map(|leaf| leaf.share));
            rota.settle(now, &challenge, &SOUND, &pace, now);
        }
        assert_eq!(seen.len(), held.len());
        // The round that failed, then a sound one: 2 × 32 challenges, an hour apart.
        assert!(now < 3 * DAY, "{now}");
    }

    #[test]
    fn a_challenge_left_open_comes_again_and_soon() {
        let (held, pace) = (shares(300), Pace::default());
        let mut rota = Rota::new(0, &pace, 7);
        let challenge = rota.challenge(&held, &pace);
        for outcome in [Outcome::Contained, Outcome::Offline, Outcome::Unknown] {
            rota.settle(0, &challenge, &outcome, &pace, 9);
            assert_eq!(rota.challenge(&held, &pace), challenge, "{outcome:?}");
        }
        rota.settle(0, &challenge, &Outcome::Contained, &pace, 9);
        assert!(rota.due_secs <= DAY / 24);
    }

    proptest! {
        #[test]
        fn every_round_asks_for_every_share_once_with_leaves_that_exist(
            count in 0usize..400, seed in any::<u64>(), leaves in prop::sample::select(vec![2u32, 16, 256]),
        ) {
            let pace = Pace::default();
            let held: Vec<Held> = shares(count).into_iter().map(|held| Held { leaves, ..held }).collect();
            let mut rota = Rota::new(0, &pace, seed);
            let mut asked = Vec::new();
            loop {
                let challenge = rota.challenge(&held, &pace);
                prop_assert!(challenge.leaves.len() <= pace.leaves);
                let distinct: HashSet<_> = challenge.leaves.iter().collect();
                prop_assert_eq!(distinct.len(), challenge.leaves.len());
                prop_assert!(challenge.leaves.iter().all(|leaf| leaf.leaf < leaves));
                asked.extend(distinct.iter().map(|leaf| leaf.share).collect::<HashSet<_>>());
                rota.settle(0, &challenge, &SOUND, &pace, seed ^ 1);
                if challenge.ends_round {
                    break;
                }
            }
            prop_assert_eq!(asked.len(), count);
            prop_assert_eq!(asked.into_iter().collect::<HashSet<_>>().len(), count);
        }
    }
}
