//! One writer, in every order of steps. Three voters and two writers are tried in all orders, five and three in long runs by a seed; and
//! each rule that is broken on purpose must be found out. docs/decisions/0064-one-writer.md has the argument and the figures.

use self::explorer::{Explored, Random, counterexample, explore, walk};
use self::variant::Variant;
use self::world::Scenario;
use crate::claim::writer::Handover;

mod explorer;
mod print;
mod service;
mod variant;
mod world;

/// One serves, another takes over by force while the first goes on.
fn handover(variant: Variant, commits: [u8; 2]) -> Scenario {
    Scenario {
        variant,
        voters: 3,
        sets: vec![vec![0, 1, 2]],
        wants: vec![None; commits.len()],
        commits: commits.to_vec(),
        restarts: vec![0, 0],
        first_serves: true,
        handover: Handover::Forced,
        ticks: 0,
        lag_max: 0,
        is_reduced: true,
    }
}

/// Two make the same volume at the same moment.
fn duel(variant: Variant) -> Scenario {
    Scenario {
        first_serves: false,
        ..handover(variant, [1, 1])
    }
}

/// As `handover`, and the first may end and begin anew.
fn there_and_back(variant: Variant, commits: [u8; 2]) -> Scenario {
    Scenario {
        restarts: vec![1, 0],
        ..handover(variant, commits)
    }
}

/// One serves, may sleep and wake, and is waited for.
fn timed(variant: Variant, voters: u8, ticks: u8, lag_max: u8) -> Scenario {
    Scenario {
        voters,
        sets: vec![(0..voters).collect()],
        handover: Handover::Awaited,
        ticks,
        lag_max,
        ..handover(variant, [0, 0])
    }
}

/// One serves and names other voters, while another takes over by whatever was named at some time.
fn replacing(variant: Variant, sets: &[&[u8]], commits: [u8; 2]) -> Scenario {
    let voters = sets.iter().copied().flatten().max().map_or(0, |last| last + 1);
    Scenario {
        voters,
        sets: sets.iter().map(|set| set.to_vec()).collect(),
        wants: vec![Some(1), None],
        ..handover(variant, commits)
    }
}

/// Two name others at once.
fn both_replacing(variant: Variant, commits: [u8; 2]) -> Scenario {
    Scenario {
        wants: vec![Some(1), Some(2)],
        ..replacing(variant, &[&[0], &[1], &[2]], commits)
    }
}

/// Three that come and go, two of whom name others.
fn deep_replacing(variant: Variant, seed: u64) -> Scenario {
    let sets: [&[u8]; 4] = match seed % 4 / 2 {
        0 => [&[0, 1, 2], &[2, 3, 4], &[0, 3, 4], &[1]],
        _ => [&[0], &[1, 2, 3], &[0, 1, 4], &[2]],
    };
    Scenario {
        voters: 5,
        sets: sets.iter().map(|set| set.to_vec()).collect(),
        wants: vec![Some(1), Some(2), Some(3)],
        restarts: vec![3, 3, 3],
        ..deep(variant, seed)
    }
}

/// Five voters and three writers that come and go. Clocks of odd seeds go, and are waited for.
fn deep(variant: Variant, seed: u64) -> Scenario {
    let is_timed = seed % 2 == 1;
    Scenario {
        voters: 5,
        sets: vec![(0..5).collect()],
        wants: vec![None; 3],
        commits: vec![3, 2, 3],
        restarts: vec![2, 2, 2],
        handover: if is_timed { Handover::Awaited } else { Handover::Forced },
        ticks: if is_timed { 60 } else { 0 },
        lag_max: u8::from(is_timed),
        is_reduced: false,
        ..handover(variant, [0, 0])
    }
}

/// For whoever changes a rule: what takes minutes, too.
fn is_thorough() -> bool {
    std::env::var_os("GRIDBACKUP_CLAIM_THOROUGH").is_some()
}

/// Tries all; and from every hundredth state or so, one writer alone with a majority ends accepted.
fn holds(name: &str, scenario: &Scenario) -> Explored {
    let (mut count, mut random) = (0_u64, Random::new(1));
    let explored = explore(scenario, |world| {
        count += 1;
        match count % 97 {
            0 => world.ends_accepted(scenario, &mut random),
            _ => Ok(()),
        }
    });
    let explored = explored.unwrap_or_else(|broken| panic!("{name}: {broken}"));
    println!("{name}: {} states, {} steps", explored.states, explored.steps);
    explored
}

#[test]
fn a_forced_takeover_while_the_other_commits_loses_nothing_that_was_accepted() {
    assert!(holds("handover", &handover(Variant::Right, [2, 1])).states > 100_000);
}

#[test]
fn two_that_make_a_volume_at_once_make_one() {
    assert!(holds("duel", &duel(Variant::Right)).states > 100_000);
}

#[test]
fn who_comes_back_finds_what_was_served_meanwhile() {
    assert!(holds("there and back", &there_and_back(Variant::Right, [0, 0])).states > 100_000);
    if is_thorough() {
        holds("there and back, 0 and 1", &there_and_back(Variant::Right, [0, 1]));
    }
}

#[test]
fn nobody_acknowledges_while_another_does_whoever_sleeps() {
    // One voter has all orders of clocks and sleep; three take minutes.
    holds("timed, one voter", &timed(Variant::Right, 1, 6, 1));
    let commits = Scenario {
        commits: vec![1, 1],
        ..timed(Variant::Right, 1, 5, 0)
    };
    holds("timed, one voter, commits", &commits);
    let duel = Scenario {
        first_serves: false,
        ..timed(Variant::Right, 1, 5, 0)
    };
    holds("timed duel, one voter", &duel);
    if is_thorough() {
        holds("timed, three voters", &timed(Variant::Right, 3, 4, 0));
    }
}

#[test]
fn the_smallest_of_them_holds_in_the_unreduced_orders_too() {
    let whole = Scenario {
        is_reduced: false,
        ..handover(Variant::Right, [1, 0])
    };
    holds("handover, unreduced", &whole);
}

#[test]
fn long_runs_of_five_voters_and_three_writers_hold() {
    let (mut steps, mut accepted) = (0, 0);
    for seed in 0..300 {
        let walked = walk(&deep(Variant::Right, seed), seed, 600);
        let (world, taken) = walked.unwrap_or_else(|(way, broken)| panic!("seed {seed}: {broken}: {way:#?}"));
        steps += taken;
        accepted += world.accepted.len();
        let alone = world.ends_accepted(&deep(Variant::Right, seed), &mut Random::new(seed));
        alone.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
    println!("deep: {steps} steps, {accepted} commits");
    assert!(accepted > 300, "runs in which nothing happens show nothing: {accepted}");
}

#[test]
fn who_replaces_voters_and_who_takes_over_meanwhile_lose_nothing_that_was_accepted() {
    holds("one voter replaced", &replacing(Variant::Right, &[&[0], &[1]], [1, 1]));
    holds("two replace at once", &both_replacing(Variant::Right, [0, 0]));
    // Minutes, and gigabytes of states.
    if is_thorough() {
        let back = Scenario {
            restarts: vec![1, 0],
            ..replacing(Variant::Right, &[&[0], &[1]], [1, 0])
        };
        holds("one voter replaced, the first comes back", &back);
        let one_of_three = replacing(Variant::Right, &[&[0, 1, 2], &[0, 1, 3]], [0, 0]);
        holds("one of three replaced", &one_of_three);
    }
}

#[test]
fn voters_replaced_in_long_runs() {
    let (mut steps, mut accepted, mut replaced) = (0, 0, 0);
    for seed in 0..2000 {
        let scenario = deep_replacing(Variant::Right, seed);
        let walked = walk(&scenario, seed, 700);
        let (world, taken) = walked.unwrap_or_else(|(way, broken)| panic!("seed {seed}: {broken}: {way:#?}"));
        steps += taken;
        accepted += world.accepted.len();
        replaced += usize::from(world.accepted.names(Variant::Right).voters != 0);
        let alone = world.ends_accepted(&scenario, &mut Random::new(seed));
        alone.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
    println!("deep, replacing: {steps} steps, {accepted} commits, {replaced} runs that end with other voters");
    assert!(
        replaced > 500,
        "runs in which nothing is replaced show nothing: {replaced}"
    );
}

#[test]
fn nobody_acknowledges_while_another_does_though_voters_are_replaced() {
    let sleeping = Scenario {
        wants: vec![Some(1), None],
        voters: 2,
        sets: vec![vec![0], vec![1]],
        ..timed(Variant::Right, 2, 4, 0)
    };
    // All orders take minutes; the long runs of odd seeds have clocks, too.
    if is_thorough() {
        holds("timed, replacing", &sleeping);
    }
    for seed in 0..4000 {
        let walked = walk(&sleeping, seed, 200);
        walked.unwrap_or_else(|(way, broken)| panic!("seed {seed}: {broken}: {way:#?}"));
    }
}

#[test]
fn rules_broken_while_voters_are_replaced_are_found() {
    for variant in [
        Variant::VotersBeforeAlone,
        Variant::VotersAfterAlone,
        Variant::ReplacedInOneStep,
        Variant::OtherVotersAdopted,
    ] {
        let found = (0..20_000).find_map(|seed| {
            let scenario = deep_replacing(variant, seed);
            walk(&scenario, seed, 700).err().map(|(_, broken)| (seed, broken))
        });
        let (seed, broken) = found.unwrap_or_else(|| panic!("{variant:?} is not found"));
        println!("{variant:?}: {broken}, seed {seed}");
    }
}

/// All orders, the shortest first.
fn is_found(name: &str, scenario: &Scenario, expected: &str) {
    let (way, broken) = counterexample(scenario, 1_000_000).unwrap_or_else(|| panic!("{name} is not found"));
    println!("{name}: {broken}, in {} steps", way.len());
    assert!(broken.contains(expected), "{name}: {broken}: {way:#?}");
}

#[test]
fn rules_broken_at_a_takeover_are_found() {
    for variant in [
        Variant::ConfirmBeforeHead,
        Variant::HeadsBeforePromise,
        Variant::HeadAtOne,
        Variant::MinorityPromises,
        Variant::NoPromise,
        Variant::LastClaimWins,
        Variant::VoterRestored,
    ] {
        is_found(&format!("{variant:?}"), &handover(variant, [1, 0]), "");
    }
    is_found("Untagged", &handover(Variant::Untagged, [2, 0]), "adopts");
    is_found("EpochsWithoutDevice", &duel(Variant::EpochsWithoutDevice), "beside");
}

#[test]
fn clocks_that_are_worse_than_assumed_or_not_waited_for_are_found() {
    is_found(
        "a clock that stops in sleep",
        &timed(Variant::Right, 1, 6, 2),
        "two writers",
    );
    let late = Scenario {
        commits: vec![1, 1],
        ..timed(Variant::LateAnswersCount, 1, 5, 0)
    };
    is_found("LateAnswersCount", &late, "has gone on");
    is_found(
        "TermFromAnswer",
        &timed(Variant::TermFromAnswer, 1, 6, 0),
        "two writers",
    );
    let forced = Scenario {
        handover: Handover::Forced,
        ..timed(Variant::Right, 1, 6, 0)
    };
    is_found("no waiting", &forced, "two writers");
}

/// What takes three takeovers to go wrong is too far for the shortest way, and not for many long ones.
#[test]
fn rules_broken_over_three_takeovers_are_found() {
    for variant in [Variant::NumberBeforeEpoch, Variant::AdoptionNotAwaited] {
        let scenario = Scenario {
            restarts: vec![2, 2],
            is_reduced: false,
            ..handover(variant, [2, 2])
        };
        let found = (0..20_000).find_map(|seed| walk(&scenario, seed, 200).err().map(|(_, broken)| (seed, broken)));
        let (seed, broken) = found.unwrap_or_else(|| panic!("{variant:?} is not found"));
        println!("{variant:?}: {broken}, seed {seed}");
        let right = Scenario {
            variant: Variant::Right,
            ..scenario
        };
        assert!(walk(&right, seed, 200).is_ok());
    }
}
