//! What one observer knows of each peer: does it answer, does it keep what it took, may it be counted on.
//!
//! Time is seconds from any fixed moment. Silence counts only while somebody listened: an observer that slept for a month,
//! lost its own uplink or had its clock set learns nothing bad of its peers from that.

use std::collections::BTreeMap;

use crate::care::audit::Outcome;
use crate::peers::PeerKey;

/// After how much silence a peer is what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// Seconds until it is suspected. Chosen: a machine that is switched off every night never gets there.
    pub suspect_after_secs: u64,
    /// Seconds until it is lost. Chosen: holidays are normal (research: p2p-storage, "Recommended mechanisms").
    pub lost_after_secs: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            suspect_after_secs: 24 * 3600,
            lost_after_secs: 14 * 24 * 3600,
        }
    }
}

/// Whether the shares at a peer are counted on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Standing {
    /// Yes.
    Good,
    /// Silent for longer than a day: counted, unless a pack comes close to being lost.
    Suspected,
    /// Silent for longer than two weeks, or proved not to keep what it took. Its shares are built anew elsewhere.
    Lost,
}

/// The share of audited leaves that were not as they should be beyond which a peer is lost by proof: Storj's threshold.
const TRUST_MIN: f64 = 0.96;
/// Weight of what was known before each new leaf: Storj's forgetting factor, a memory of about a thousand leaves.
const TRUST_FORGETTING: f64 = 0.999;
/// A peer begins as if this many leaves had been sound: 1 / (1 − forgetting), so that no single failure condemns it.
const TRUST_START: f64 = 1000.0;
/// How long a peer that was proved not to keep shares gets none. Chosen: long enough to notice and replace a disk.
const PROBATION_SECS: u64 = 30 * 24 * 3600;
/// Challenges left without an answer by a peer that can be reached, before it counts as a refusal to prove: Storj's three.
const CONTAINED_MAX: u8 = 3;
/// Uptime remembers about this long.
const UPTIME_MEMORY_SECS: f64 = 30.0 * 24.0 * 3600.0;

/// Audits of a peer, counted by outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// All leaves were proved.
    pub success: u64,
    /// Some leaf was missing or wrong.
    pub failure: u64,
    /// The peer could not be reached.
    pub offline: u64,
    /// It could be reached and did not answer in time.
    pub contained: u64,
    /// Something else went wrong; nobody is blamed.
    pub unknown: u64,
}

/// What is known of one peer.
#[derive(Clone, PartialEq, Debug)]
pub struct PeerRecord {
    /// When it last answered.
    pub seen_secs: Option<u64>,
    /// Seconds of silence that were listened to since then.
    pub silent_secs: u64,
    /// Seconds during which it was looked at, and of those the ones at which it answered; both fade.
    pub watched_secs: f64,
    /// See `watched_secs`.
    pub up_secs: f64,
    /// Its audits.
    pub tally: Tally,
    /// Audited leaves that were sound, fading.
    pub sound: f64,
    /// Audited leaves that were not, fading.
    pub unsound: f64,
    /// Challenges in a row that it left open.
    pub contained: u8,
    /// When it was proved not to keep what it took.
    pub proved_secs: Option<u64>,
}

impl Default for PeerRecord {
    fn default() -> Self {
        Self {
            seen_secs: None,
            silent_secs: 0,
            watched_secs: 0.0,
            up_secs: 0.0,
            tally: Tally::default(),
            sound: TRUST_START,
            unsound: 0.0,
            contained: 0,
            proved_secs: None,
        }
    }
}

impl PeerRecord {
    /// May its shares be counted on?
    pub fn standing(&self, patience: &Patience) -> Standing {
        if self.proved_secs.is_some() || self.silent_secs >= patience.lost_after_secs {
            Standing::Lost
        } else if self.silent_secs >= patience.suspect_after_secs {
            Standing::Suspected
        } else {
            Standing::Good
        }
    }

    /// The part of the time at which it answered, if it was looked at for long enough to say.
    pub fn uptime(&self) -> Option<f64> {
        (self.watched_secs > 0.0).then(|| self.up_secs / self.watched_secs)
    }

    /// Of the leaves it was asked for, the part that was as it should be.
    pub fn trust(&self) -> f64 {
        self.sound / (self.sound + self.unsound)
    }

    fn heard(&mut self, now_secs: u64, elapsed: u64, answered: bool) {
        let fading = (-(elapsed as f64) / UPTIME_MEMORY_SECS).exp();
        self.watched_secs = self.watched_secs * fading + elapsed as f64;
        self.up_secs *= fading;
        if answered {
            self.up_secs += elapsed as f64;
            self.seen_secs = Some(now_secs);
            self.silent_secs = 0;
        } else {
            self.silent_secs = self.silent_secs.saturating_add(elapsed);
        }
        if self
            .proved_secs
            .is_some_and(|at| now_secs >= at.saturating_add(PROBATION_SECS))
        {
            (self.proved_secs, self.sound, self.unsound) = (None, TRUST_START, 0.0);
        }
    }

    fn leaves(&mut self, sound: usize, unsound: usize, now_secs: u64) {
        for (count, of_sound) in [(sound, true), (unsound, false)] {
            for _ in 0..count {
                self.sound = self.sound * TRUST_FORGETTING + f64::from(u8::from(of_sound));
                self.unsound = self.unsound * TRUST_FORGETTING + f64::from(u8::from(!of_sound));
            }
        }
        if self.trust() < TRUST_MIN && self.proved_secs.is_none() {
            self.proved_secs = Some(now_secs);
        }
    }
}

/// All peers, as one observer knows them.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Watch {
    /// What is known of each.
    pub peers: BTreeMap<PeerKey, PeerRecord>,
    /// When they were last looked at.
    pub looked_secs: Option<u64>,
}

impl Watch {
    /// Notes who answered just now. A longer pause than half of `suspect_after` since the last look counts as one of
    /// that length, and none counts while not one of several peers answers: then it is the observer who is cut off.
    pub fn look(&mut self, now_secs: u64, answers: &[(PeerKey, bool)], patience: &Patience) {
        let gap_max = (patience.suspect_after_secs / 2).max(1);
        let elapsed = self
            .looked_secs
            .map_or(0, |looked| now_secs.saturating_sub(looked).min(gap_max));
        self.looked_secs = Some(now_secs);
        let cut_off = answers.len() > 1 && answers.iter().all(|(_, answered)| !answered);
        if cut_off {
            return;
        }
        for (key, answered) in answers {
            let record = self.peers.entry(key.clone()).or_default();
            record.heard(now_secs, elapsed, *answered);
        }
    }

    /// Notes how an audit of `leaves` leaves ended.
    pub fn audited(&mut self, key: &PeerKey, now_secs: u64, leaves: usize, outcome: &Outcome) {
        let record = self.peers.entry(key.clone()).or_default();
        if !matches!(outcome, Outcome::Contained | Outcome::Offline) {
            record.contained = 0;
        }
        match outcome {
            Outcome::Success => {
                record.tally.success += 1;
                record.leaves(leaves, 0, now_secs);
            }
            Outcome::Failure { missing, damaged } => {
                record.tally.failure += 1;
                let unsound = (missing.len() + damaged.len()).min(leaves);
                record.leaves(leaves - unsound, unsound, now_secs);
            }
            Outcome::Offline => record.tally.offline += 1,
            Outcome::Contained => {
                record.tally.contained += 1;
                record.contained += 1;
                if record.contained >= CONTAINED_MAX {
                    record.contained = 0;
                    record.leaves(0, leaves, now_secs);
                }
            }
            Outcome::Unknown => record.tally.unknown += 1,
        }
    }

    /// May a peer's shares be counted on? One that is not known yet: yes.
    pub fn standing(&self, key: &PeerKey, patience: &Patience) -> Standing {
        self.peers
            .get(key)
            .map_or(Standing::Good, |record| record.standing(patience))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::id::ShareId;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;

    fn key(name: &str) -> PeerKey {
        PeerKey(name.to_owned())
    }

    /// Two peers, looked at every hour; `answers(hour)` says whether the first one answers, the second always does.
    fn watched(hours: u64, answers: impl Fn(u64) -> bool) -> Watch {
        let mut watch = Watch::default();
        for hour in 0..hours {
            let now = [(key("a"), answers(hour)), (key("b"), true)];
            watch.look(hour * HOUR, &now, &Patience::default());
        }
        watch
    }

    fn standing(watch: &Watch) -> Standing {
        watch.standing(&key("a"), &Patience::default())
    }

    #[test]
    fn silence_makes_a_peer_suspected_after_a_day_and_lost_after_two_weeks_and_a_word_makes_it_good() {
        assert_eq!(standing(&watched(24, |hour| hour == 0)), Standing::Good);
        assert_eq!(standing(&watched(26, |hour| hour == 0)), Standing::Suspected);
        assert_eq!(standing(&watched(14 * 24, |hour| hour == 0)), Standing::Suspected);
        assert_eq!(standing(&watched(14 * 24 + 2, |hour| hour == 0)), Standing::Lost);
        assert_eq!(standing(&watched(14 * 24 + 2, |hour| hour > 14 * 24)), Standing::Good);
    }

    #[test]
    fn a_peer_that_is_off_every_night_is_never_suspected_and_its_uptime_is_measured() {
        let watch = watched(60 * 24, |hour| hour % 24 < 12);
        assert_eq!(standing(&watch), Standing::Good);
        let uptime = watch.peers[&key("a")].uptime().unwrap();
        assert!((0.4..0.6).contains(&uptime), "{uptime}");
    }

    #[test]
    fn an_observer_that_slept_or_was_cut_off_or_whose_clock_jumped_blames_nobody() {
        let mut watch = watched(10, |_| true);
        watch.look(400 * DAY, &[(key("a"), false), (key("b"), true)], &Patience::default());
        assert_eq!(standing(&watch), Standing::Good);
        let mut watch = watched(10, |_| true);
        for hour in 10..1000 {
            watch.look(
                hour * HOUR,
                &[(key("a"), false), (key("b"), false)],
                &Patience::default(),
            );
        }
        assert_eq!(standing(&watch), Standing::Good);
        watch.look(0, &[(key("a"), false), (key("b"), true)], &Patience::default());
        assert_eq!(standing(&watch), Standing::Good);
    }

    #[test]
    fn a_peer_that_lost_everything_is_lost_by_proof_within_one_challenge_and_one_that_lost_a_hundredth_never() {
        let failed = |count: u8| Outcome::Failure {
            missing: (0..count).map(|n| ShareId([n; 32])).collect(),
            damaged: Vec::new(),
        };
        let mut watch = Watch::default();
        watch.audited(&key("a"), 0, 64, &failed(64));
        assert_eq!(standing(&watch), Standing::Lost);
        watch.look(0, &[(key("a"), true), (key("b"), true)], &Patience::default());
        assert_eq!(standing(&watch), Standing::Lost, "a word does not outweigh a proof");
        watch.look(31 * DAY, &[(key("a"), true), (key("b"), true)], &Patience::default());
        assert_eq!(standing(&watch), Standing::Good, "after its probation");

        let mut watch = Watch::default();
        for day in 0..1000 {
            let outcome = if day % 2 == 0 { failed(1) } else { Outcome::Success };
            watch.audited(&key("a"), day * DAY, 64, &outcome);
        }
        assert_eq!(standing(&watch), Standing::Good);
    }

    #[test]
    fn three_challenges_left_open_in_a_row_count_as_failed() {
        let mut watch = Watch::default();
        for _ in 0..2 {
            watch.audited(&key("a"), 0, 64, &Outcome::Contained);
            watch.audited(&key("a"), 0, 64, &Outcome::Offline);
        }
        assert_eq!(standing(&watch), Standing::Good);
        watch.audited(&key("a"), 0, 64, &Outcome::Contained);
        assert_eq!(standing(&watch), Standing::Lost);
    }
}
