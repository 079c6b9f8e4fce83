//! Which snapshots a policy keeps, and why. Pure: no catalog, no clock.
//!
//! Snapshots of different roots are judged apart: a policy that kept the last one of all would forget everything that was
//! backed up by another command. A snapshot whose time cannot be right, later than now or earlier than one made before it, neither goes
//! nor takes the place of another: whoever got hold of a client must not push good snapshots out by forged dates.

use std::collections::{BTreeMap, HashSet};

use proto::log_record::{PathBytes, SnapshotRecord};

const DAY_SECS: i64 = 86_400;
const NANOS: i64 = 1_000_000_000;

/// How many of what to keep; all zero keeps nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The newest so many.
    pub last: u32,
    /// The newest of each of the last so many hours that have any.
    pub hourly: u32,
    /// The same by days.
    pub daily: u32,
    /// The same by weeks, which begin on Monday.
    pub weekly: u32,
    /// The same by months.
    pub monthly: u32,
    /// The same by years.
    pub yearly: u32,
    /// All that are at most so many seconds older than the newest.
    pub within_secs: Option<u64>,
}

/// Why a snapshot is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// One of the newest.
    Last,
    /// Recent enough.
    Within,
    /// The newest of its hour.
    Hourly,
    /// The newest of its day.
    Daily,
    /// The newest of its week.
    Weekly,
    /// The newest of its month.
    Monthly,
    /// The newest of its year.
    Yearly,
    /// Its time cannot be right: look at it.
    Clock,
}

impl Reason {
    /// As the flag that keeps it names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Within => "within",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
            Self::Clock => "clock",
        }
    }
}

/// For each snapshot, in the order given, why it is kept; no reason: it may go. `utc_offset_secs` says where days begin. A policy
/// that keeps nothing keeps nothing.
pub fn judge(snapshots: &[SnapshotRecord], policy: &Policy, now_ns: i64, utc_offset_secs: i32) -> Vec<Vec<Reason>> {
    let mut reasons = vec![Vec::new(); snapshots.len()];
    if *policy == Policy::default() {
        return reasons;
    }
    let mut groups: BTreeMap<&[PathBytes], Vec<usize>> = BTreeMap::new();
    let mut as_made: Vec<usize> = (0..snapshots.len()).collect();
    as_made.sort_by_key(|index| snapshots[*index].seq);
    let mut newest_ns = i64::MIN;
    for index in as_made {
        let snapshot = &snapshots[index];
        if (newest_ns..=now_ns).contains(&snapshot.time_ns) {
            newest_ns = snapshot.time_ns;
            groups.entry(&snapshot.roots).or_default().push(index);
        } else {
            reasons[index].push(Reason::Clock);
        }
    }
    for mut group in groups.into_values() {
        group.sort_by_key(|index| std::cmp::Reverse((snapshots[*index].time_ns, snapshots[*index].seq)));
        let times: Vec<i64> = group.iter().map(|index| snapshots[*index].time_ns).collect();
        for (index, why) in group.into_iter().zip(judge_group(&times, policy, utc_offset_secs)) {
            reasons[index] = why;
        }
    }
    reasons
}

/// Names the period that a second since 1970, local time, is in.
type Period = fn(i64) -> i64;

/// As `judge`, for times of one group, newest first.
fn judge_group(times_ns: &[i64], policy: &Policy, utc_offset_secs: i32) -> Vec<Vec<Reason>> {
    let periods: [(Reason, u32, Period); 5] = [
        (Reason::Hourly, policy.hourly, |secs| secs.div_euclid(3_600)),
        (Reason::Daily, policy.daily, |secs| secs.div_euclid(DAY_SECS)),
        // 1970-01-01 was a Thursday.
        (Reason::Weekly, policy.weekly, |secs| {
            (secs.div_euclid(DAY_SECS) + 3).div_euclid(7)
        }),
        (Reason::Monthly, policy.monthly, month),
        (Reason::Yearly, policy.yearly, |secs| month(secs).div_euclid(12)),
    ];
    let mut seen: Vec<HashSet<i64>> = vec![HashSet::new(); periods.len()];
    let mut reasons = Vec::with_capacity(times_ns.len());
    for (number, &time_ns) in times_ns.iter().enumerate() {
        let mut why = Vec::new();
        if (number as u64) < u64::from(policy.last) {
            why.push(Reason::Last);
        }
        let age_secs = times_ns[0].saturating_sub(time_ns) / NANOS;
        if policy
            .within_secs
            .is_some_and(|within| age_secs.cast_unsigned() <= within)
        {
            why.push(Reason::Within);
        }
        let local_secs = time_ns.div_euclid(NANOS) + i64::from(utc_offset_secs);
        for ((reason, count, period), seen) in periods.iter().zip(&mut seen) {
            if seen.len() < *count as usize && seen.insert(period(local_secs)) {
                why.push(*reason);
            }
        }
        reasons.push(why);
    }
    reasons
}

/// Months since year 0 in the Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn month(secs: i64) -> i64 {
    let days = secs.div_euclid(DAY_SECS) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    (era * 400 + year_of_era) * 12 + month_from_march + 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};
    use proto::id::SnapshotId;

    use super::*;

    const HOUR_NS: i64 = 3_600 * NANOS;
    /// 2026-11-21, a Saturday, 12:00 UTC.
    const NOON_NS: i64 = 1_795_262_400 * NANOS;

    fn snapshot(seq: u64, time_ns: i64, root: &str) -> SnapshotRecord {
        SnapshotRecord {
            seq,
            id: SnapshotId([0; 16]),
            time_ns,
            parent: None,
            roots: vec![PathBytes(root.into())],
            files: 0,
            bytes: 0,
        }
    }

    /// Hours before noon of the snapshots that stay, of one every hour for `hours`.
    fn stay(policy: Policy, hours: i64) -> Vec<i64> {
        let all: Vec<_> = (0..hours)
            .map(|hour| snapshot(1 + (hours - hour) as u64, NOON_NS - hour * HOUR_NS, "/home"))
            .collect();
        let judged = judge(&all, &policy, NOON_NS, 0);
        (0..hours).filter(|hour| !judged[*hour as usize].is_empty()).collect()
    }

    #[test]
    fn of_each_period_the_newest_stays() {
        let daily = Policy {
            daily: 3,
            ..Policy::default()
        };
        assert_eq!(stay(daily, 100), [0, 13, 37]);
        let weekly = Policy {
            weekly: 2,
            ..Policy::default()
        };
        assert_eq!(stay(weekly, 24 * 20), [0, 5 * 24 + 13], "weeks begin on Monday");
        let monthly = Policy {
            monthly: 2,
            ..Policy::default()
        };
        assert_eq!(stay(monthly, 24 * 40), [0, 20 * 24 + 13]);
        let yearly = Policy {
            yearly: 5,
            ..Policy::default()
        };
        assert_eq!(stay(yearly, 24 * 330), [0, 324 * 24 + 13]);
    }

    #[test]
    fn days_begin_where_the_user_lives() {
        let daily = Policy {
            daily: 2,
            ..Policy::default()
        };
        let all: Vec<_> = (0..24)
            .map(|hour| snapshot(24 - hour, NOON_NS - hour as i64 * HOUR_NS, "/"))
            .collect();
        let kept = |offset| {
            judge(&all, &daily, NOON_NS, offset)
                .iter()
                .rposition(|why| !why.is_empty())
        };
        assert_eq!((kept(0), kept(2 * 3_600)), (Some(13), Some(15)));
    }

    #[test]
    fn other_roots_are_judged_apart() {
        let last = Policy {
            last: 1,
            ..Policy::default()
        };
        let all = [
            snapshot(1, NOON_NS, "/a"),
            snapshot(2, NOON_NS, "/b"),
            snapshot(3, NOON_NS, "/b"),
        ];
        assert_eq!(
            judge(&all, &last, NOON_NS, 0),
            [vec![Reason::Last], vec![], vec![Reason::Last]]
        );
    }

    /// Snapshots so many hours before noon.
    fn made_in_order(mut hours: Vec<i64>) -> Vec<SnapshotRecord> {
        hours.sort_unstable_by_key(|hour| std::cmp::Reverse(*hour));
        let all = hours.iter().enumerate();
        all.map(|(at, hour)| snapshot(at as u64, NOON_NS - hour * HOUR_NS, "/"))
            .collect()
    }

    proptest! {
        #[test]
        fn forged_dates_push_no_good_snapshot_out(
            times in prop::collection::vec(1i64..400 * 24, 1..40),
            forged in prop::collection::vec(any::<i64>(), 0..40),
            daily in 0u32..4, weekly in 0u32..4, yearly in 0u32..4, within_secs in prop::option::of(0u64..40_000_000),
        ) {
            let policy = Policy { daily, weekly, yearly, within_secs, ..Policy::default() };
            let good = made_in_order(times);
            let newest_ns = good.last().expect("there is one").time_ns;
            let forged = forged.into_iter().filter(|time_ns| !(newest_ns..=NOON_NS).contains(time_ns));
            let mut all = good.clone();
            all.extend(forged.zip(1_000..).map(|(time_ns, seq)| snapshot(seq, time_ns, "/")));
            let (alone, among) = (judge(&good, &policy, NOON_NS, 0), judge(&all, &policy, NOON_NS, 0));
            assert_eq!(alone[..], among[..good.len()]);
        }

        #[test]
        fn a_policy_keeps_the_newest_and_no_more_than_it_says(
            times in prop::collection::vec(0i64..400 * 24, 1..60),
            last in 0u32..4, hourly in 0u32..4, daily in 0u32..4, weekly in 0u32..4, monthly in 0u32..4, yearly in 0u32..4,
            offset in any::<i8>(),
        ) {
            let policy = Policy { last, hourly, daily, weekly, monthly, yearly, within_secs: None };
            let all = made_in_order(times);
            let judged = judge(&all, &policy, NOON_NS, i32::from(offset) * 600);
            let kept = judged.iter().filter(|why| !why.is_empty()).count() as u32;
            assert!(kept <= last + hourly + daily + weekly + monthly + yearly);
            let newest = (0..all.len()).max_by_key(|at| (all[*at].time_ns, all[*at].seq)).unwrap();
            assert_eq!(judged[newest].is_empty(), policy == Policy::default());
            let again: Vec<_> = all.iter().zip(&judged).filter(|(_, why)| !why.is_empty()).map(|(snapshot, _)| snapshot.clone()).collect();
            assert!(judge(&again, &policy, NOON_NS, i32::from(offset) * 600).iter().all(|why| !why.is_empty()), "what was kept stays");
        }
    }
}
