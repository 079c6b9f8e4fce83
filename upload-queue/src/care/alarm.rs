//! When to say that a restore is in doubt, however little can be done about it.

use crate::care::repair::PackPlan;
use crate::care::standing::{Patience, Watch};

/// Why a restore might fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Alarm {
    /// Peers that were heard from within the day, or the day before, hold fewer shares of some pack than it takes.
    TooFewShares,
    /// None of several peers has answered for longer than a day: this machine is cut off, or all of them are gone.
    CutOff,
}

/// What there is to say of a pack that needs `k` shares. With [`Patience::default`] silence is told after a day and a half
/// of listening at the latest, a share that is not kept when an audit asks for it.
pub fn of_pack(k: u8, plan: &PackPlan, watch: &Watch, patience: &Patience) -> Option<Alarm> {
    if is_cut_off(watch, patience) {
        return Some(Alarm::CutOff);
    }
    (plan.good < k).then_some(Alarm::TooFewShares)
}

fn is_cut_off(watch: &Watch, patience: &Patience) -> bool {
    let heard = watch.peers.values().filter_map(|record| record.seen_secs).max();
    let silent = watch
        .looked_secs
        .zip(heard)
        .map(|(looked, heard)| looked.saturating_sub(heard));
    silent.is_some_and(|secs| secs >= patience.suspect_after_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::PeerKey;

    #[test]
    fn too_few_good_shares_and_silence_on_all_sides_are_told() {
        let (patience, mut watch) = (Patience::default(), Watch::default());
        let plan = |good| PackPlan {
            good,
            ..PackPlan::default()
        };
        assert_eq!(of_pack(2, &plan(2), &watch, &patience), None);
        assert_eq!(of_pack(2, &plan(1), &watch, &patience), Some(Alarm::TooFewShares));
        let both = |answered| ["a", "b"].map(|name| (PeerKey(name.into()), answered));
        for hour in 0..26 {
            watch.look(hour * 3600, &both(hour == 0), &patience);
        }
        assert_eq!(of_pack(2, &plan(2), &watch, &patience), Some(Alarm::CutOff));
        watch.look(26 * 3600, &both(true), &patience);
        assert_eq!(of_pack(2, &plan(2), &watch, &patience), None);
    }
}
