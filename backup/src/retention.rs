//! Which snapshots a policy keeps, and why. Pure: no catalog, no clock.
//!
//! Snapshots of different devices or roots are judged apart: a policy that kept the last one of all would forget everything that was
//! backed up by another command. A snapshot whose time cannot be right, later than now or earlier than one made before it, neither goes
//! nor takes the place of another: whoever got hold of a client must not push good snapshots out by forged dates.

use std::collections::{BTreeMap, HashSet};

use proto::id::DeviceId;
use proto::log_record::PathBytes;

use crate::catalog::tree::{OffsetAt, Snapshot};

const HOUR_SECS: i64 = 3_600;
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

/// Snapshots that are judged together: those that one device made of the same roots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// Whose.
    pub device: DeviceId,
    /// Of what.
    pub roots: Vec<PathBytes>,
}

impl Group {
    /// The group that a snapshot is in.
    pub fn of(snapshot: &Snapshot) -> Self {
        Self {
            device: snapshot.device,
            roots: snapshot.record.source_roots.clone(),
        }
    }
}

/// For each snapshot, in the order given, why it is kept; no reason: it may go. `offset_at` says where its days begin: in
/// summer an hour before those of winter. A policy that keeps nothing keeps nothing.
pub fn judge(snapshots: &[Snapshot], policy: &Policy, now_ns: i64, offset_at: OffsetAt<'_>) -> Vec<Vec<Reason>> {
    let mut reasons = vec![Vec::new(); snapshots.len()];
    if *policy == Policy::default() {
        return reasons;
    }
    let mut groups: BTreeMap<Group, Vec<usize>> = BTreeMap::new();
    let mut as_made: Vec<usize> = (0..snapshots.len()).collect();
    as_made.sort_by_key(|index| snapshots[*index].record.seq);
    // Each device has a clock of its own.
    let mut newest_ns: BTreeMap<DeviceId, i64> = BTreeMap::new();
    for index in as_made {
        let snapshot = &snapshots[index];
        let newest_ns = newest_ns.entry(snapshot.device).or_insert(i64::MIN);
        if (*newest_ns..=now_ns).contains(&snapshot.record.time_ns) {
            *newest_ns = snapshot.record.time_ns;
            groups.entry(Group::of(snapshot)).or_default().push(index);
        } else {
            reasons[index].push(Reason::Clock);
        }
    }
    for mut group in groups.into_values() {
        let made = |index: usize| (snapshots[index].record.time_ns, snapshots[index].record.seq);
        group.sort_by_key(|index| std::cmp::Reverse(made(*index)));
        let times: Vec<i64> = group.iter().map(|index| made(*index).0).collect();
        for (index, why) in group.into_iter().zip(judge_group(&times, policy, offset_at)) {
            reasons[index] = why;
        }
    }
    reasons
}

/// Names the period that a second since 1970, local time, is in.
type Period = fn(i64) -> i64;

/// As `judge`, for times of one group, newest first.
fn judge_group(times_ns: &[i64], policy: &Policy, offset_at: OffsetAt<'_>) -> Vec<Vec<Reason>> {
    let periods: [(Reason, u32, Period); 4] = [
        (Reason::Daily, policy.daily, |secs| secs.div_euclid(DAY_SECS)),
        // 1970-01-01 was a Thursday.
        (Reason::Weekly, policy.weekly, |secs| {
            (secs.div_euclid(DAY_SECS) + 3).div_euclid(7)
        }),
        (Reason::Monthly, policy.monthly, month),
        (Reason::Yearly, policy.yearly, |secs| month(secs).div_euclid(12)),
    ];
    let mut seen: [HashSet<i64>; 4] = Default::default();
    let mut hours = HashSet::new();
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
        let secs = time_ns.div_euclid(NANOS);
        let offset_secs = i64::from(offset_at(secs));
        // The hour that clocks show twice in autumn is two hours: only what zones are off by less than hours counts here.
        let hour = (secs + offset_secs.rem_euclid(HOUR_SECS)).div_euclid(HOUR_SECS);
        if hours.len() < policy.hourly as usize && hours.insert(hour) {
            why.push(Reason::Hourly);
        }
        let local_secs = secs + offset_secs;
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
    use proto::log_record::SnapshotRecord;

    use super::*;

    const HOUR_NS: i64 = 3_600 * NANOS;
    /// 2026-11-21, a Saturday, 12:00 UTC.
    const NOON_NS: i64 = 1_795_262_400 * NANOS;

    fn snapshot(seq: u64, time_ns: i64, root: &str) -> Snapshot {
        let record = SnapshotRecord {
            seq,
            id: SnapshotId([0; 16]),
            time_ns,
            parent: None,
            source_roots: vec![PathBytes(root.into())],
            files: 0,
            bytes: 0,
        };
        Snapshot {
            record,
            device: DeviceId([1; DeviceId::LEN]),
        }
    }

    fn utc(_secs: i64) -> i32 {
        0
    }

    /// Hours before noon of the snapshots that stay, of one every hour for `hours`.
    fn stay(policy: Policy, hours: i64) -> Vec<i64> {
        let all: Vec<_> = (0..hours)
            .map(|hour| snapshot(1 + (hours - hour) as u64, NOON_NS - hour * HOUR_NS, "/home"))
            .collect();
        let judged = judge(&all, &policy, NOON_NS, &utc);
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
            judge(&all, &daily, NOON_NS, &|_| offset)
                .iter()
                .rposition(|why| !why.is_empty())
        };
        assert_eq!((kept(0), kept(2 * 3_600)), (Some(13), Some(15)));
    }

    /// Berlin, asked in winter: with the winter's offset for all, of each day in summer the snapshot at 00:15 of the next day was
    /// kept, of 25 October two, and none of the day before.
    #[test]
    fn a_day_in_summer_ends_at_its_own_midnight() {
        // 2026-10-25T01:00:00Z
        const WINTER_SECS: i64 = 1_792_890_000;
        let berlin = |secs: i64| if secs < WINTER_SECS { 7_200 } else { 3_600 };
        let daily = Policy {
            daily: 8,
            ..Policy::default()
        };
        // 23:30 and 00:15 of each day from 21 to 28 October, local time; 2026-10-28T23:30:00+01:00 is the last.
        let mut times = Vec::new();
        for day in 0..8 {
            let midnight_secs = WINTER_SECS - 3 * 3_600 - (4 - day) * DAY_SECS; // of the day's beginning, summer time
            let local = |secs: i64| secs + if secs >= WINTER_SECS - 3_600 { 3_600 } else { 0 };
            times.push(local(midnight_secs + 900) * NANOS);
            times.push(local(midnight_secs + 23 * 3_600 + 1_800) * NANOS);
        }
        let all: Vec<_> = (1..)
            .zip(&times)
            .map(|(seq, time_ns)| snapshot(seq, *time_ns, "/"))
            .collect();
        let judged = judge(&all, &daily, NOON_NS, &berlin);
        let kept: Vec<usize> = (0..all.len()).filter(|at| !judged[*at].is_empty()).collect();
        assert_eq!(kept, [1, 3, 5, 7, 9, 11, 13, 15], "the one at 23:30 of each day");
    }

    #[test]
    fn the_hour_that_comes_twice_in_autumn_is_two_hours() {
        const WINTER_SECS: i64 = 1_792_890_000;
        let berlin = |secs: i64| if secs < WINTER_SECS { 7_200 } else { 3_600 };
        let hourly = Policy {
            hourly: 2,
            ..Policy::default()
        };
        let all = [
            snapshot(1, (WINTER_SECS - 1_800) * NANOS, "/"),
            snapshot(2, (WINTER_SECS + 1_800) * NANOS, "/"),
        ];
        let judged = judge(&all, &hourly, NOON_NS, &berlin);
        assert!(judged.iter().all(|why| !why.is_empty()), "{judged:?}");
    }

    #[test]
    fn other_devices_are_judged_apart() {
        let last = Policy {
            last: 1,
            ..Policy::default()
        };
        let mut other = snapshot(1, NOON_NS - HOUR_NS, "/a");
        other.device = DeviceId([2; DeviceId::LEN]);
        let judged = judge(&[other, snapshot(2, NOON_NS, "/a")], &last, NOON_NS, &utc);
        assert_eq!(judged, [[Reason::Last], [Reason::Last]]);
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
            judge(&all, &last, NOON_NS, &utc),
            [vec![Reason::Last], vec![], vec![Reason::Last]]
        );
    }

    /// Snapshots so many hours before noon.
    fn made_in_order(mut hours: Vec<i64>) -> Vec<Snapshot> {
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
            let newest_ns = good.last().expect("there is one").record.time_ns;
            let forged = forged.into_iter().filter(|time_ns| !(newest_ns..=NOON_NS).contains(time_ns));
            let mut all = good.clone();
            all.extend(forged.zip(1_000..).map(|(time_ns, seq)| snapshot(seq, time_ns, "/")));
            let (alone, among) = (judge(&good, &policy, NOON_NS, &utc), judge(&all, &policy, NOON_NS, &utc));
            assert_eq!(alone[..], among[..good.len()]);
        }

        #[test]
        fn a_policy_keeps_the_newest_and_no_more_than_it_says(
            times in prop::collection::vec(0i64..400 * 24, 1..60),
            last in 0u32..4, hourly in 0u32..4, daily in 0u32..4, weekly in 0u32..4, monthly in 0u32..4, yearly in 0u32..4,
            offset in any::<i8>(), switched in 0i64..400 * 24,
        ) {
            let policy = Policy { last, hourly, daily, weekly, monthly, yearly, within_secs: None };
            let switch_secs = NOON_NS / NANOS - switched * 3_600;
            let all = made_in_order(times);
            let judged = judge(&all, &policy, NOON_NS, &|secs| i32::from(offset) * 600 + i32::from(secs > switch_secs) * 3_600);
            let kept = judged.iter().filter(|why| !why.is_empty()).count() as u32;
            assert!(kept <= last + hourly + daily + weekly + monthly + yearly);
            let newest = (0..all.len()).max_by_key(|at| (all[*at].record.time_ns, all[*at].record.seq)).unwrap();
            assert_eq!(judged[newest].is_empty(), policy == Policy::default());
            let again: Vec<_> = all.iter().zip(&judged).filter(|(_, why)| !why.is_empty()).map(|(snapshot, _)| snapshot.clone()).collect();
            assert!(judge(&again, &policy, NOON_NS, &|secs| i32::from(offset) * 600 + i32::from(secs > switch_secs) * 3_600).iter().all(|why| !why.is_empty()), "what was kept stays");
        }
    }
}
