//! Files written in place, on a disk that is cut or that fails.

use std::collections::BTreeSet;
use std::fs;

use crate::in_place::InPlaceFile;
use crate::power_cut::{Image, Machine};

/// Every state of the file after a cut now.
fn left(machine: &Machine, root: &std::path::Path) -> BTreeSet<Vec<u8>> {
    let scratch = tempfile::tempdir().unwrap();
    let images: BTreeSet<Image> = machine.outcomes();
    assert!(root.exists());
    images
        .iter()
        .map(|image| {
            image.lay(scratch.path());
            fs::read(scratch.path().join("log")).unwrap()
        })
        .collect()
}

#[test]
fn what_is_not_synced_arrives_in_any_pieces_and_what_is_synced_stays() {
    let root = tempfile::tempdir().unwrap();
    let machine = Machine::start(root.path());
    let file = InPlaceFile::create(&root.path().join("log"), 16 << 10).unwrap();
    assert_eq!(left(&machine, root.path()), BTreeSet::from([vec![0; 16 << 10]]));
    file.write_at(&[1; 8 << 10], 100).unwrap();
    file.write_at(&[2; 8 << 10], 4 << 10).unwrap();
    let states = left(&machine, root.path());
    let is_torn = |state: &Vec<u8>| state[5_000] == 2 && state[200] == 0;
    assert!(states.len() > 5 && states.iter().any(is_torn), "{}", states.len());
    file.sync().unwrap();
    let synced = left(&machine, root.path());
    assert_eq!(synced.len(), 1);
    file.write_at(&[3; 512], 0).unwrap();
    let states = left(&machine, root.path());
    let same_behind = |state: &Vec<u8>| synced.iter().all(|synced| synced[512..] == state[512..]);
    assert!(states.len() == 2 && states.iter().all(same_behind));
}

#[test]
fn a_sync_that_failed_is_not_made_good_by_another_one() {
    let root = tempfile::tempdir().unwrap();
    let machine = Machine::start(root.path());
    let path = root.path().join("log");
    let file = InPlaceFile::create(&path, 4096).unwrap();
    file.write_at(&[1; 512], 0).unwrap();
    machine.fail_sync_of("log");
    assert!(file.sync().is_err() && file.sync().is_err());
    // As a program would that opens it again: the kernel has forgotten the error.
    let again = InPlaceFile::open(&path).unwrap();
    again.write_at(&[2; 512], 512).unwrap();
    again.sync().unwrap();
    let states = left(&machine, root.path());
    assert!(states.iter().any(|state| state[0] == 0), "it may be lost");
    assert!(states.iter().all(|state| state[512] == 2));
}

#[test]
fn nothing_is_written_behind_its_end() {
    let root = tempfile::tempdir().unwrap();
    let file = InPlaceFile::create(&root.path().join("log"), 300_001).unwrap();
    assert_eq!(file.bytes(), 300_001);
    file.write_at(&[1], 300_000).unwrap();
    assert!(file.write_at(&[1, 2], 300_000).is_err() && file.write_at(&[1], u64::MAX).is_err());
    let mut read = [0; 2];
    assert!(file.read_at(&mut read, 300_000).is_err());
    file.read_at(&mut read, 299_999).unwrap();
    assert_eq!(read, [0, 1]);
}
