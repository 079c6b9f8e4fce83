//! The map on a disk that is cut after each step.

use durable::power_cut::{Image, Machine};

use super::*;

/// Works on the map until it is done or the power goes: commits and writes, as drawn. The highest floor that was told.
fn work(folder: &Path, seed: u64, model: &mut Model) -> u64 {
    let mut draw = Draw(seed);
    let Ok(mut map) = CommittedMap::open(options(folder), Arc::new(NoSource)) else {
        return 0;
    };
    model.replay(&mut map);
    let mut floor = map.floor();
    for _ in 0..4 {
        let count = 1 + draw.below(4);
        let updates = draw.updates(model, count);
        // It is committed elsewhere before the map takes it in.
        model.apply(updates);
        let applied = map.apply(model.last(), model.history.last().unwrap());
        if applied.and_then(|()| map.write_back(draw.below(300) as usize)).is_err() {
            break;
        }
        floor = floor.max(map.floor());
    }
    floor
}

fn assert_goes_on(folder: &Path, model: &Model, floor: u64, at: &str) {
    let mut map =
        CommittedMap::open(options(folder), Arc::new(NoSource)).unwrap_or_else(|error| panic!("{at}: {error}"));
    assert!(map.floor() >= floor, "{at}: {} {floor}", map.floor());
    model.replay(&mut map);
    model.assert_is_all(&mut map);
    map.write_back(usize::MAX).unwrap();
    drop(map);
    let mut map = open(folder);
    assert_eq!(map.floor(), model.last(), "{at}");
    model.assert_is_all(&mut map);
}

/// Every image that a cut after each step of many histories may leave, and the disk as it is when only the process was killed.
#[test]
fn after_a_cut_at_every_step_leaves_and_a_replay_are_the_map() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let (mut images_tried, mut cuts) = (0, 0);
    for seed in 0..6 {
        for cut in 0.. {
            Image::default().lay(root);
            let mut model = Model::default();
            let before = work(root, seed, &mut model);
            let machine = Machine::start(root);
            machine.cut_after(Some(cut));
            let floor = work(root, seed + 1_000, &mut model).max(before);
            let is_over = machine.steps().len() < cut;
            let (images, steps) = (machine.outcomes(), machine.steps());
            machine.cut_after(None);
            assert_goes_on(root, &model, floor, &format!("seed {seed}, killed after {steps:?}"));
            drop(machine);
            for image in images {
                image.lay(root);
                let at = format!("seed {seed}, cut after {steps:?}: {image:?}");
                // A disk whose syncs take no time.
                let _machine = Machine::start(root);
                assert_goes_on(root, &model, floor, &at);
                images_tried += 1;
            }
            cuts += 1;
            if is_over {
                break;
            }
        }
    }
    println!("{cuts} cuts, {images_tried} images");
    assert!(images_tried > 1_000, "{images_tried}");
}

/// A process was killed before its table had a durable name; the next one opened the map, and commits up to the floor that it told
/// may be forgotten elsewhere since.
#[test]
fn the_floor_that_an_opening_tells_survives_a_power_cut() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut floors = BTreeSet::new();
    for cut in 0..40 {
        Image::default().lay(root);
        let machine = Machine::start(root);
        machine.cut_after(Some(cut));
        work(root, 3, &mut Model::default());
        machine.cut_after(None);
        let floor = open(root).floor();
        floors.insert(floor);
        let images = machine.outcomes();
        drop(machine);
        for image in images {
            image.lay(root);
            assert!(open(root).floor() >= floor, "cut {cut}: {image:?}");
        }
    }
    assert!(floors.len() > 2, "{floors:?}");
}

/// Beginning anew gives up what is there: never half of it.
#[test]
fn a_beginning_is_cut_into_the_old_map_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let source = Arc::new(MemorySource::default());
    for cut in 0.. {
        Image::default().lay(root);
        let mut model = Model::default();
        work(root, 5, &mut model);
        let mut map = open(root);
        let all: Vec<u64> = map.table.leaves.keys().copied().collect();
        source.take_in(&mut map, &all);
        let stored = source.stored(&map);
        drop(map);
        let machine = Machine::start(root);
        machine.cut_after(Some(cut));
        let begun = CommittedMap::begin(options(root), source.clone(), &stored).is_ok();
        let images = machine.outcomes();
        drop(machine);
        for image in images {
            image.lay(root);
            let mut map = CommittedMap::open(options(root), source.clone()).unwrap();
            assert!(!begun || map.table.leaves.values().all(|record| record.file.is_none()));
            model.replay(&mut map);
            model.assert_is_all(&mut map);
            map.write_back(usize::MAX).unwrap();
            drop(map);
            let mut map = open(root);
            model.replay(&mut map);
            model.assert_is_all(&mut map);
        }
        if begun {
            break;
        }
    }
}

/// A sync that failed is not repeated: all is written anew, under other names.
#[test]
fn what_failed_to_sync_is_still_there_and_is_written_anew() {
    for ending in [".leaf", ".tmp"] {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::start(root.path());
        let (mut model, mut map) = (Model::default(), open(root.path()));
        for commit in 1..4 {
            let updates = vec![map_at(commit * REGION, 9, 1), map_at(7, 5, commit as u32)];
            map.apply(commit, &updates).unwrap();
            model.apply(updates);
            if commit > 1 {
                machine.fail_sync_of(ending);
                assert!(matches!(map.write_back(usize::MAX), Err(MapError::Io(_))));
                model.assert_is_all(&mut map);
            }
            map.write_back(usize::MAX).unwrap();
            assert_eq!(map.floor(), commit);
            model.assert_is_all(&mut map);
        }
        let images = machine.outcomes();
        drop(machine);
        for image in images {
            let folder = tempfile::tempdir().unwrap();
            image.lay(folder.path());
            assert_goes_on(folder.path(), &model, 3, ending);
        }
    }
}
