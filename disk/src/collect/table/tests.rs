use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn pack(blocks: u32, live: u32, pinned: u32, birth: u64, changed_secs: u32) -> Pack {
    Pack {
        blocks,
        live,
        pinned,
        birth,
        changed_secs,
        mean_secs: changed_secs,
    }
}

/// The packs of a class in their order.
fn listed(table: &Table, class: usize) -> Vec<PackId> {
    let first = table.coldest(class);
    std::iter::successors(first, |id| table.after(*id)).collect()
}

/// What the table says is what one finds by looking at all packs.
fn check(table: &Table, model: &BTreeMap<PackId, Pack>, newest: Option<u64>) {
    assert!(table.packs().eq(model.iter().map(|(id, pack)| (*id, *pack))));
    let is_held = |pack: &Pack| newest.is_some_and(|newest| pack.birth <= newest) && pack.class() > 25;
    let (mut all, mut movable) = (Totals::default(), Totals::default());
    for pack in model.values() {
        all.add(pack);
        if !is_held(pack) {
            movable.add(pack);
        }
    }
    assert_eq!((table.totals(), table.movable()), (all, movable));
    for class in 0..CLASSES {
        let of_class = model.iter().filter(|(_, pack)| pack.class() == class && !is_held(pack));
        let mut expected: Vec<_> = of_class.map(|(id, pack)| (pack.mean_secs, *id)).collect();
        expected.sort_unstable();
        assert!(
            listed(table, class).iter().eq(expected.iter().map(|(_, id)| id)),
            "class {class}"
        );
    }
}

#[derive(Debug, Clone)]
enum Step {
    Add { blocks: u32, live: u32, birth: u64 },
    Free(u32),
    Pin(u32),
    Unpin(u32),
    Revive(u32),
    MovedAway,
    GiveUp,
    Snapshots(Vec<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    let count = 0..12_u32;
    prop_oneof![
        4 => (0..20_u32, 0..20_u32, 0..9_u64).prop_map(|(blocks, live, birth)| Step::Add { blocks, live, birth }),
        6 => count.clone().prop_map(Step::Free),
        3 => count.clone().prop_map(Step::Pin),
        2 => count.clone().prop_map(Step::Unpin),
        1 => count.prop_map(Step::Revive),
        1 => Just(Step::MovedAway),
        2 => Just(Step::GiveUp),
        1 => prop::collection::vec(0..9_u64, 0..3).prop_map(Step::Snapshots),
    ]
}

/// One step for a pack by itself; none: it is refused.
fn expected(old: Option<Pack>, step: &Step, now_secs: u32) -> Option<Option<Pack>> {
    if let Step::Add { blocks, live, birth } = *step {
        let is_right = old.is_none() && live <= blocks && blocks > 0;
        return is_right.then_some(Some(pack(blocks, live, 0, birth, now_secs)));
    }
    let mut after = old?;
    match *step {
        Step::Free(count) | Step::Pin(count) => {
            let needed = u64::from(after.needed());
            after.live = after.live.checked_sub(count)?;
            after.pinned += if matches!(step, Step::Pin(_)) { count } else { 0 };
            if count > 0 {
                let age = u64::from(now_secs - after.mean_secs);
                after.mean_secs += (age * u64::from(count)).div_ceil(needed) as u32;
                after.changed_secs = now_secs;
            }
        }
        Step::Unpin(count) => after.pinned = after.pinned.checked_sub(count)?,
        Step::Revive(count) => {
            after.pinned = after.pinned.checked_sub(count)?;
            after.live += count;
        }
        Step::MovedAway => (after.live, after.pinned) = (0, 0),
        _ => return (after.needed() == 0).then_some(None),
    }
    Some(Some(after))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn its_counts_and_classes_are_those_of_all_packs(steps in prop::collection::vec((0..6_u32, 0..4_u32, step()), 1..60)) {
        let mut table = Table::new(25);
        let mut model = BTreeMap::new();
        let (mut now_secs, mut newest) = (0, None);
        for (id, passed, step) in steps {
            let id = PackId(id);
            now_secs += passed;
            let done = match step.clone() {
                Step::Snapshots(commits) => {
                    newest = commits.iter().copied().max();
                    table.set_snapshots(commits);
                    check(&table, &model, newest);
                    continue;
                }
                Step::Add { blocks, live, birth } => table.add(id, pack(blocks, live, 0, birth, now_secs)),
                Step::Free(count) => table.free(id, count, now_secs),
                Step::Pin(count) => table.pin(id, count, now_secs),
                Step::Unpin(count) => table.unpin(id, count),
                Step::Revive(count) => table.revive(id, count),
                Step::MovedAway => table.moved_away(id),
                Step::GiveUp => table.give_up(id),
            };
            match expected(model.get(&id).copied(), &step, now_secs) {
                None => prop_assert!(done.is_err(), "{step:?}"),
                Some(after) => {
                    prop_assert_eq!(done, Ok(()));
                    match after {
                        Some(after) => drop(model.insert(id, after)),
                        None => drop(model.remove(&id)),
                    }
                }
            }
            check(&table, &model, newest);
        }
        let commits: Vec<_> = newest.into_iter().collect();
        let restored = Table::restore(25, commits, model.iter().rev().map(|(id, pack)| (*id, *pack))).unwrap();
        check(&restored, &model, newest);
    }
}

#[test]
fn a_pack_is_not_given_up_while_a_block_of_it_is_needed() {
    let mut table = Table::new(25);
    let id = PackId(3);
    table.add(id, pack(10, 2, 0, 1, 0)).unwrap();
    table.pin(id, 1, 1).unwrap();
    table.free(id, 1, 1).unwrap();
    assert_eq!(table.give_up(id), Err(TableError::Needed(id)));
    table.unpin(id, 1).unwrap();
    assert_eq!(table.give_up(id), Ok(()));
    assert_eq!(table.free(id, 0, 3), Err(TableError::Unknown(id)));
}

#[test]
fn few_deaths_warm_a_cold_pack_a_little_and_many_a_lot() {
    let mut table = Table::new(25);
    let id = PackId(0);
    table.add(id, pack(100, 100, 0, 1, 0)).unwrap();
    table.free(id, 10, 1000).unwrap();
    assert_eq!(
        table.get(id).map(|pack| (pack.changed_secs, pack.mean_secs)),
        Some((1000, 100))
    );
    table.free(id, 90, 1000).unwrap();
    assert_eq!(table.get(id).map(|pack| pack.mean_secs), Some(1000));
}

#[test]
fn a_clock_that_goes_back_changes_no_age() {
    let mut table = Table::new(25);
    let id = PackId(0);
    table.add(id, pack(10, 5, 0, 1, 100)).unwrap();
    table.free(id, 1, 50).unwrap();
    assert_eq!(table.get(id), Some(pack(10, 4, 0, 1, 100)));
}
