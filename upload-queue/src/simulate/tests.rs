//! Grids in numbers. `GRIDBACKUP_SIM_SEED` replays a series of grids, `GRIDBACKUP_SIM_GRIDS` says how many of it; every
//! failure prints what to type.

use std::time::Instant;

use super::*;
use crate::planner::{Losses, Uptime, forecast, losses_per_year};
use crate::simulate::habit::Habit;
use crate::simulate::report::Report;
use crate::simulate::scenario::{Fault, Friend};

/// The series that is simulated when none is asked for.
const SERIES: u64 = 0x6772_6964;
const GRIDS: u64 = 1000;
const GIB: u64 = 1 << 30;

fn number_from(variable: &str, default: u64) -> u64 {
    let asked = std::env::var(variable).ok();
    asked.map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{variable} is not a number"))
    })
}

fn series() -> u64 {
    number_from("GRIDBACKUP_SIM_SEED", SERIES)
}

/// Simulates, says how to replay it, and insists that nothing forbidden happened.
fn sound(runs: u64, scenario: impl Fn(u64) -> Scenario + Sync) -> (Report, Vec<Report>) {
    let (series, started) = (series(), Instant::now());
    let reports = run_all(runs, series, scenario);
    let replay = format!("replay: GRIDBACKUP_SIM_SEED={series} cargo test --release -p upload-queue simulate");
    println!("{runs} grids in {:.1} s; {replay}", started.elapsed().as_secs_f64());
    let mut sum = Report::default();
    for (number, report) in reports.iter().enumerate() {
        let seed = random::seed_of_run(series, number as u64);
        let few = &report.violations[..report.violations.len().min(5)];
        assert!(few.is_empty(), "grid {number} (seed {seed}): {few:#?}\n{replay}");
        sum.merge(report);
    }
    (sum, reports)
}

#[test]
fn a_thousand_grids_over_five_years_break_no_rule() {
    let runs = number_from("GRIDBACKUP_SIM_GRIDS", GRIDS);
    let (sum, _) = sound(runs, Scenario::mixed);
    println!("{sum:#?}");
    assert_eq!(sum.grids, runs);
    assert!(
        sum.deaths > runs && sum.repair_puts > runs && sum.alarms > runs,
        "too quiet to show anything"
    );
}

#[test]
fn a_run_follows_from_its_seed() {
    let scenario = Scenario::mixed(5);
    assert_eq!(run(&scenario, 5), run(&scenario, 5));
    assert_ne!(run(&scenario, 5), run(&scenario, 6));
}

/// Friends that are lost once a year, always on otherwise, replaced after exactly 45 days: losses are frequent enough to
/// be counted. Silence is never judged before that, so that a share comes back when its new friend comes, as the formula
/// has it.
fn stressed(k: u8, n: u8) -> Scenario {
    let mut scenario = Scenario::uniform(usize::from(n), 1.0, n - k);
    scenario.code = Some((k, n));
    scenario.losses_per_year = 1.0;
    (scenario.replace_days, scenario.replace_exactly) = (Some(45.0), true);
    (scenario.patience.suspect_after_secs, scenario.patience.lost_after_secs) = (200 * 86_400, 400 * 86_400);
    // All packs of a backup share its fate: one tells as much as many.
    (scenario.packs, scenario.pack_bytes) = (1, GIB);
    // Of six years one, in which the grid is too young, is not counted; audits are of no concern here.
    (scenario.years, scenario.warm_up_years) = (6.0, 1.0);
    scenario.look_secs = 24 * 3600;
    scenario.pace.every_secs = 365 * 86_400;
    scenario
}

#[test]
fn measured_losses_are_as_the_closed_form_says() {
    for (k, n) in [(1, 2), (2, 4), (2, 5), (3, 6)] {
        let scenario = stressed(k, n);
        let (sum, reports) = sound(1000, |_| scenario.clone());
        let repair_days = sum.repairs.mean_days();
        assert!((45.0..46.5).contains(&repair_days), "repair took {repair_days} days");
        let losses = Losses {
            per_year: scenario.losses_per_year,
            repair_days,
        };
        let expected = losses_per_year(k.into(), n.into(), losses);
        // Losses of one grid come in clusters: the spread is measured between grids, not taken to be Poisson's.
        let grids = reports.len() as f64;
        let mean = sum.losses as f64 / grids;
        let variance = reports
            .iter()
            .map(|report| (report.losses as f64 - mean).powi(2))
            .sum::<f64>()
            / (grids - 1.0);
        // 99.9 % of a normal distribution.
        let margin = 3.29 * (variance / grids).sqrt();
        let years = sum.years / grids;
        let (measured, margin) = (mean / years, margin / years);
        println!(
            "{k} of {n}: {measured:.4} ± {margin:.4} losses a year in {} years, by the formula {expected:.4}",
            sum.years
        );
        assert!(
            (measured - expected).abs() <= margin,
            "{k} of {n}: {measured} is not {expected} ± {margin}"
        );
    }
}

#[test]
fn measured_availability_is_as_the_closed_form_says() {
    for (friends, uptime) in [(3, 0.35), (5, 0.5), (6, 0.8)] {
        let mut scenario = Scenario::uniform(friends, uptime, 2);
        (scenario.losses_per_year, scenario.code) = (0.0, Some((2, friends as u8)));
        let (sum, _) = sound(20, |_| scenario.clone());
        let closed = forecast(2, &vec![Uptime::new(uptime); friends], Losses::default());
        let (now, soon) = (sum.p_restorable_now(), sum.p_restorable_in_window());
        println!("{friends} friends at {uptime}: {now:.4} and {soon:.5}, by the formula {closed:?}");
        // 18,000 samples: 3.3 standard deviations are 0.012 at most.
        assert!((now - closed.restorable_now).abs() < 0.012, "{now}");
        assert!((soon - closed.restorable_in_window).abs() < 0.004, "{soon}");
    }
}

/// A friend that is on for eight hours a day, from this hour.
fn desktop(household: usize, from_hour: f64) -> Friend {
    let habit = Habit::Daily {
        from_hour,
        hours: 8.0,
        skips: 0.0,
    };
    Friend::new(household, habit)
}

/// Must not become: an empty peer, a pack with two shares at one of few peers, repair without end.
#[test]
fn one_to_four_friends_that_come_and_go_daily_cause_no_repair_at_all() {
    for count in 1..=4 {
        let scenario = |seed: u64| {
            let mut scenario = Scenario::uniform(count, 1.0, 2);
            for number in 0..count {
                let from_hour = (seed % 24) as f64 + 5.0 * number as f64;
                scenario.friends[number] = desktop(number, from_hour);
                // Uneven: 60 GiB to 480 GiB.
                scenario.friends[number].room_bytes = (60 << number) * GIB;
            }
            (scenario.losses_per_year, scenario.look_secs, scenario.pack_bytes) = (0.0, 3600, 10 * GIB);
            scenario
        };
        let (sum, _) = sound(20, scenario);
        assert_eq!(sum.repair_puts, 0, "{count} friends");
        assert_eq!((sum.losses, sum.refused), (0, 0), "{count} friends");
        let example = scenario(7);
        let grid = Grid::new(&example, 7);
        assert!(
            grid.nodes.iter().all(|node| node.used_bytes > 0),
            "a friend of {count} is empty"
        );
    }
}

#[test]
fn friends_whose_room_is_too_small_get_what_fits_and_the_rest_goes_to_a_new_friend_once() {
    let scenario = |_| {
        let mut scenario = Scenario::uniform(4, 0.9, 1);
        scenario.friends[0].room_bytes = 30 * GIB;
        scenario.friends[1].room_bytes = 0;
        (scenario.losses_per_year, scenario.replace_days) = (0.2, Some(20.0));
        scenario
    };
    let (sum, _) = sound(50, scenario);
    assert_eq!(sum.refused, 0);
    assert!(sum.repair_puts > 0);
}

/// A friend with this fault among five honest ones that have 300 packs, as many shares each as a small backup.
fn beside_a_liar(fault: Fault) -> Report {
    let scenario = |_| {
        let mut scenario = Scenario::uniform(6, 0.9, 2);
        scenario.friends[5].fault = fault;
        (scenario.packs, scenario.pack_bytes, scenario.losses_per_year) = (300, GIB, 0.0);
        scenario.years = 0.5;
        scenario
    };
    sound(20, scenario).0
}

#[test]
fn every_kind_of_liar_is_found_within_weeks_and_harms_no_restore() {
    // Days within which all of 20 were found. 1 % of 300 shares are three: gone through in five days, or twice that.
    let liars = [
        (Fault::Drops { share: 0.01 }, "drops", 14.0),
        (Fault::Drops { share: 0.5 }, "drops", 4.0),
        (Fault::Stalls { share: 0.01 }, "stalls", 21.0),
        (Fault::Corrupts { share: 0.01 }, "corrupts", 14.0),
    ];
    for (fault, kind, days) in liars {
        let report = beside_a_liar(fault);
        let found = report.found.get(kind).copied().unwrap_or_default();
        println!(
            "{fault:?}: {found:?}, {} not found; mean {:.1} days",
            report.unfound,
            found.mean_days()
        );
        assert_eq!(report.unfound, 0, "{fault:?}");
        assert!(found.count > 5 && found.max_days() < days, "{fault:?}: {found:?}");
        assert_eq!(report.losses, 0, "{fault:?}");
    }
}

/// No audit tells who fetches what he is asked for from those who keep it: they have to hold their shares for it, and so
/// nothing is lost by him alone.
#[test]
fn who_fetches_what_he_is_asked_for_harms_no_restore_while_the_others_keep_theirs() {
    for fault in [Fault::Relays, Fault::Colludes { with: 4 }] {
        let report = beside_a_liar(fault);
        assert_eq!(report.losses, 0, "{fault:?}");
    }
}
