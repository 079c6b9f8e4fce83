//! Leaves and tables that are not what was written, and leaves that are elsewhere.

use std::fs;
use std::sync::atomic::Ordering::SeqCst;

use super::*;

/// A map with three regions, all of it in leaves, and what it says.
fn written(folder: &Path) -> Model {
    let (mut map, mut model) = (open(folder), Model::default());
    for commit in 1..10 {
        let updates = vec![map_at(commit % 3 * REGION + 10 * commit, 9, commit as u32)];
        map.apply(commit, &updates).unwrap();
        model.apply(updates);
    }
    map.write_back(usize::MAX).unwrap();
    model
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = all.filter(|path| path.extension().unwrap() == ending).collect();
    files.sort();
    files
}

#[test]
fn a_damaged_leaf_is_named_and_fetched_again_where_that_is_possible() {
    let root = tempfile::tempdir().unwrap();
    let model = written(root.path());
    let source = Arc::new(MemorySource::default());
    source.take_in(&mut open(root.path()), &[0, 1, 2]);
    let path = files(root.path(), "leaf").remove(1);
    let whole = fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        Some(bytes)
    };
    let longer = [&whole[..], &[0]].concat();
    let damages = (0..whole.len()).map(flipped);
    let damages = damages.chain([
        Some(whole[..whole.len() - 1].to_vec()),
        Some(longer),
        Some(vec![]),
        None,
    ]);
    for damage in damages {
        let name = match &damage {
            Some(bytes) => fs::write(&path, bytes),
            None => fs::remove_file(&path),
        };
        name.unwrap();
        let mut map = open(root.path());
        let found = map.find(REGION, 1_000);
        assert!(matches!(&found, Err(MapError::LeafDamaged { region: 1, path: named }) if *named == path));
        // Other regions are there.
        model.assert_is(&mut map, 0, REGION);
        let mut map = CommittedMap::open(options(root.path()), source.clone()).unwrap();
        model.assert_is_all(&mut map);
    }
    // What was fetched is kept with the next writing, and the damage is gone.
    let mut map = CommittedMap::open(options(root.path()), source).unwrap();
    model.assert_is_all(&mut map);
    map.write_back(0).unwrap();
    model.assert_is_all(&mut open(root.path()));
    assert!(!path.exists());
}

#[test]
fn another_leaf_than_the_one_that_counts_is_refused() {
    let root = tempfile::tempdir().unwrap();
    written(root.path());
    let source = Arc::new(MemorySource::default());
    let mut map = CommittedMap::open(options(root.path()), source.clone()).unwrap();
    source.take_in(&mut map, &[0, 1]);
    let old = source.leaves.lock().unwrap()[&1].clone();
    let other = source.leaves.lock().unwrap()[&0].clone();
    map.apply(20, &[map_at(REGION, 1, 99)]).unwrap();
    map.write_back(usize::MAX).unwrap();
    for bytes in [old, other, Vec::new()] {
        assert!(matches!(
            map.load_leaf(1, bytes),
            Err(MapError::WrongLeaf { region: 1 })
        ));
    }
    assert!(matches!(
        map.load_leaf(77, Vec::new()),
        Err(MapError::WrongLeaf { region: 77 })
    ));
    drop(map);
    let path = files(root.path(), "leaf").remove(1);
    fs::write(&path, b"").unwrap();
    // The source has the leaf that was there before.
    let mut map = CommittedMap::open(options(root.path()), source).unwrap();
    let found = map.find(REGION, 1);
    assert!(matches!(found, Err(MapError::LeafDamaged { region: 1, .. })));
}

#[test]
fn a_damaged_table_is_named_and_a_missing_one_too() {
    let root = tempfile::tempdir().unwrap();
    let model = written(root.path());
    let mut map = open(root.path());
    for commit in 20..23 {
        map.apply(commit, &[]).unwrap();
        map.write_back(0).unwrap();
    }
    let stored = Stored {
        floor: 9,
        leaves: vec![(0, 9), (1, 9), (2, 9)],
        live: map.live_in_leaves(),
    };
    let source = Arc::new(MemorySource::default());
    source.take_in(&mut map, &[0, 1, 2]);
    drop(map);
    let tables = files(root.path(), "changes");
    assert_eq!(tables.len(), 4);
    for path in &tables {
        let whole = fs::read(path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(path, &bytes).unwrap();
            let opened = CommittedMap::open(options(root.path()), Arc::new(NoSource)).map(drop);
            assert!(
                matches!(&opened, Err(MapError::TableDamaged { path: named, .. }) if named == path),
                "{at}: {opened:?}"
            );
        }
        fs::write(path, &whole).unwrap();
    }
    fs::remove_file(&tables[1]).unwrap();
    let opened = CommittedMap::open(options(root.path()), Arc::new(NoSource)).map(drop);
    assert!(matches!(&opened, Err(MapError::TableDamaged { path, .. }) if *path == tables[1]));
    let other = MapOptions::new(root.path().to_owned(), [1; 16]);
    assert!(matches!(
        CommittedMap::open(other, Arc::new(NoSource)).map(drop),
        Err(MapError::TableDamaged { .. })
    ));
    let mut map = CommittedMap::begin(options(root.path()), source.clone(), &stored).unwrap();
    model.assert_is_all(&mut map);
    map.write_back(0).unwrap();
    drop(map);
    model.assert_is_all(&mut open(root.path()));
}

#[test]
fn what_is_elsewhere_is_fetched_once_and_told_before() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = written(first.path());
    let source = Arc::new(MemorySource::default());
    let mut map = open(first.path());
    source.take_in(&mut map, &[0, 1, 2]);
    let stored = source.stored(&map);
    let mut map = CommittedMap::begin(options(second.path()), source.clone(), &stored).unwrap();
    assert_eq!(map.missing(0, 1 << 40), [0, 1, 2]);
    assert_eq!(map.missing(REGION * 5, REGION), [0_u64; 0]);
    // Commits go on without them; the counts follow when the leaves come.
    source.is_away.store(true, SeqCst);
    map.apply(10, &[map_at(REGION, REGION, 50), map_at(REGION * 9, 1, 51)])
        .unwrap();
    assert_eq!(source.fetches.load(SeqCst), 0);
    assert_eq!(map.missing(REGION, 1_000), [0_u64; 0]);
    assert_eq!(map.find(REGION, 1_000).unwrap()[0].place.pack, 50);
    assert!(matches!(map.find(0, 1), Err(MapError::Unavailable { region: 0, .. })));
    // What can be written is written.
    assert_eq!(map.write_back(usize::MAX).unwrap().regions, [9]);
    assert!(matches!(
        map.write_back(usize::MAX),
        Err(MapError::Unavailable { region: 1, .. })
    ));
    let leaf = source.leaves.lock().unwrap()[&0].clone();
    map.load_leaf(0, leaf).unwrap();
    model.assert_is(&mut map, 0, REGION);
    source.is_away.store(false, SeqCst);
    source.fetches.store(0, SeqCst);
    map.write_back(usize::MAX).unwrap();
    assert_eq!(map.missing(0, 1 << 40), [2]);
    assert_eq!(map.live_exactly().unwrap(), map.live());
    drop(map);
    let mut map = CommittedMap::open(options(second.path()), source.clone()).unwrap();
    assert_eq!(map.floor(), 10);
    map.find(0, 1 << 40).unwrap();
    assert_eq!(source.fetches.load(SeqCst), 2, "regions 1 and 2");
}

/// Whoever makes leaves with right checksums is not believed more than their records allow.
#[test]
fn leaves_with_right_checksums_and_wrong_records_are_refused() {
    let (volume, region) = (VOLUME, 4);
    let id = LeafId { volume, region };
    let piece = |start, end, index| Piece {
        start,
        end,
        place: Some(Place::from_index(7, index)),
    };
    let leaf = Leaf::build(
        &id,
        3,
        &[piece(5, 9, 100), piece(9, 12, 50), piece(20, REGION_BLOCKS, 0)],
    );
    let good = leaf.unwrap().bytes().to_vec();
    let resealed = |at: usize, with: &[u8]| {
        let mut bytes = good[..good.len() - 16].to_vec();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes.extend_from_slice(&leaf::sum_of(&bytes));
        Leaf::read(bytes, &id).is_some()
    };
    assert!(resealed(40, &4_u64.to_le_bytes()));
    let bad: [(usize, &[u8]); 9] = [
        (8, &[2]),
        (12, &[1]),
        (12, &[2]),
        (48, &[2]),
        (48, &[0, 0, 0, 0]),
        (52, &[1]),
        // Overlapping, joined with the one before, and of no pack.
        (56 + 2, &[4]),
        (68 + 8, &[104]),
        (60, &[0xff; 4]),
    ];
    for (at, with) in bad {
        assert!(!resealed(at, with), "{at}");
    }
    // A run that leaves the region, and one whose places come to an end.
    assert!(!resealed(80, &21_u16.to_le_bytes()));
    assert!(!resealed(56 + 8, &[0xff; 4]));
    assert!(Leaf::read(good.clone(), &LeafId { volume, region: 5 }).is_none());
    for at in 0..good.len() {
        assert!(Leaf::read(good[..at].to_vec(), &id).is_none());
    }
}
