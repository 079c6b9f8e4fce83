//! Snapshots, going back, clones, sizes, and what a restart has to go on with.

use super::super::edits::{Edit, NewVolume};
use super::super::error::EditError;
use super::*;

impl Grid {
    fn edit(&self, running: &Running, edit: &Edit) -> Result<(), EditError> {
        running.edit(edit, 7, &mut self.packs.clone(), &mut |prepared| {
            *self.head.lock().unwrap() = (prepared.committed.root.commit, prepared.at.clone());
            Ok(())
        })
    }

    /// Removes what is given up from where packs are kept; how many these were.
    pub fn give_up(&self, running: &Running) -> usize {
        let given_up = running.take_given_up().unwrap();
        for pack in &given_up {
            assert!(self.packs.kept().remove(&pack.record.manifest).is_some());
        }
        let numbers: Vec<PackNumber> = given_up.iter().map(|pack| pack.number).collect();
        running.confirm_given_up(&numbers).unwrap();
        numbers.len()
    }
}

fn byte_of(device: &Arc<dyn Device>, block: u64) -> u8 {
    futures::executor::block_on(device.read(block * 4096, 4096)).unwrap()[0]
}

fn snapshot(name: &str) -> Edit {
    Edit::Snapshot(name.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_snapshot_is_what_was_written_before_it_and_a_rollback_brings_it_back() {
    let (dir, grid) = (tempfile::tempdir().unwrap(), Grid::new());
    let running = grid.open(dir.path()).unwrap();
    write(&running, 1, 1);
    grid.edit(&running, &snapshot("one")).unwrap();
    write(&running, 1, 2);
    write(&running, 2, 2);
    assert!(matches!(
        grid.edit(&running, &snapshot("one")),
        Err(EditError::NameTaken(_))
    ));
    let device = running.open_snapshot("one").unwrap();
    assert_eq!(
        (byte_of(&device, 1), byte_of(&device, 2), device.is_read_only()),
        (1, 0, true)
    );
    assert!(
        device
            .apply(&[Change::Trim {
                offset: 0,
                length: 4096
            }])
            .is_err()
    );
    let delete = Edit::DeleteSnapshot("one".to_owned());
    assert!(matches!(grid.edit(&running, &delete), Err(EditError::IsOpen(_))));
    drop(device);
    write(&running, 3, 3);
    grid.edit(&running, &Edit::Rollback("one".to_owned())).unwrap();
    assert_eq!([1, 2, 3].map(|block| read(&running, block)), [1, 0, 0]);
    let names: Vec<String> = running
        .root()
        .snapshots
        .iter()
        .map(|entry| entry.name.clone())
        .collect();
    assert_eq!(names[0], "one");
    assert!(names[1].starts_with("before-rollback-"), "{names:?}");
    write(&running, 2, 9);
    grid.commit(&running).unwrap();
    let before = running.open_snapshot(&names[1]).unwrap();
    assert_eq!([1, 2, 3].map(|block| byte_of(&before, block)), [2, 2, 3]);
    drop(before);
    drop(running);
    // With the map that was begun by it, and without one.
    for folder in [dir.path().to_owned(), dir.path().join("other")] {
        let running = grid.open(&folder).unwrap();
        assert_eq!([1, 2, 3].map(|block| read(&running, block)), [1, 9, 0]);
    }
    let running = grid.open(&dir.path().join("other")).unwrap();
    grid.edit(&running, &Edit::Rollback(names[1].clone())).unwrap();
    assert_eq!([1, 2, 3].map(|block| read(&running, block)), [2, 2, 3]);
    grid.edit(&running, &delete).unwrap();
    assert_eq!(running.root().snapshots.len(), 2);
}

/// The process dies after peers went back, and before the map of this disk did.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_rollback_that_was_not_heard_of_does_not_leave_the_map_of_the_other_state() {
    let (dir, grid) = (tempfile::tempdir().unwrap(), Grid::new());
    let running = grid.open(dir.path()).unwrap();
    write(&running, 1, 1);
    grid.edit(&running, &snapshot("one")).unwrap();
    write(&running, 1, 2);
    let mut sink = grid.packs.clone();
    let heard = running.edit(&Edit::Rollback("one".to_owned()), 7, &mut sink, &mut |prepared| {
        let root = &prepared.committed.root;
        *grid.head.lock().unwrap() = (root.commit, prepared.at.clone());
        match root.rolled_back {
            0 => Ok(()),
            _ => Err(DeviceError::Unavailable("the answer was lost".to_owned())),
        }
    });
    assert!(heard.is_err());
    assert_eq!(read(&running, 1), 2);
    drop(running);
    let running = grid.open(dir.path()).unwrap();
    assert_eq!(read(&running, 1), 1);
    assert!(!dir.path().join("map").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_clone_reads_the_packs_of_its_origin_and_gives_up_none_of_them() {
    const CLONE: [u8; 16] = [77; 16];
    let (dir, grid) = (tempfile::tempdir().unwrap(), Grid::new());
    let running = grid.open(&dir.path().join("origin")).unwrap();
    (0..200).for_each(|block| write(&running, block, 1));
    grid.edit(&running, &snapshot("one")).unwrap();
    let new = NewVolume {
        volume: CLONE,
        name: "copy".to_owned(),
        voters: vec![[1; 32]],
    };
    let clone = |running: &Running| running.clone_of("one", new.clone(), 8, &mut grid.packs.clone());
    assert!(matches!(clone(&running), Err(EditError::NotHeld(_))));
    let hold = Edit::Hold {
        snapshot: "one".to_owned(),
        volume: CLONE,
    };
    grid.edit(&running, &hold).unwrap();
    let first = clone(&running).unwrap();
    let delete = Edit::DeleteSnapshot("one".to_owned());
    assert!(matches!(grid.edit(&running, &delete), Err(EditError::Held(_))));
    (0..200).for_each(|block| write(&running, block, 2));
    grid.commit(&running).unwrap();
    let origin = grid.head.lock().unwrap().clone();
    *grid.head.lock().unwrap() = (first.committed.root.commit, first.at);
    let folder = dir.path().join("clone");
    let open = || {
        let (commit, at) = grid.head.lock().unwrap().clone();
        Running::open(&folder, CLONE, commit, &at, grid.packs.clone(), Handle::current(), None).unwrap()
    };
    let copy = open();
    assert_eq!(
        (read(&copy, 0), read(&copy, 199), copy.root().voters),
        (1, 1, vec![[1; 32]])
    );
    for fill in 3..30 {
        (0..199).for_each(|block| write(&copy, block, fill));
        grid.commit(&copy).unwrap();
        grid.give_up(&copy);
    }
    let borrowed = copy.root().borrowed;
    assert!(borrowed > 0 && copy.orphans().unwrap().iter().all(|pack| pack.number >= borrowed));
    drop(copy);
    std::fs::remove_dir_all(&folder).unwrap();
    let copy = open();
    assert_eq!((read(&copy, 0), read(&copy, 199)), (29, 1));
    drop(copy);
    *grid.head.lock().unwrap() = origin;
    let let_go = Edit::LetGo {
        snapshot: "one".to_owned(),
        volume: CLONE,
    };
    assert_eq!(byte_of(&running.open_snapshot("one").unwrap(), 5), 1);
    grid.edit(&running, &let_go).unwrap();
    grid.edit(&running, &delete).unwrap();
    assert_eq!((read(&running, 0), read(&running, 199)), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_disk_grows_and_shrinks_while_it_is_open() {
    let (dir, grid) = (tempfile::tempdir().unwrap(), Grid::new());
    let running = grid.open(dir.path()).unwrap();
    let last = SIZE / 4096 - 1;
    write(&running, last, 5);
    assert!(matches!(
        grid.edit(&running, &Edit::Grow(SIZE - 4096)),
        Err(EditError::Smaller { .. })
    ));
    assert!(matches!(
        grid.edit(&running, &Edit::Grow(SIZE + 1)),
        Err(EditError::NoSize(_))
    ));
    grid.edit(&running, &Edit::Grow(SIZE * 8)).unwrap();
    assert_eq!(running.device().size(), SIZE * 8);
    write(&running, SIZE * 8 / 4096 - 1, 6);
    grid.edit(&running, &Edit::Shrink(SIZE - 4096)).unwrap();
    let beyond = Change::Trim {
        offset: SIZE - 4096,
        length: 4096,
    };
    assert!(matches!(
        running.device().apply(&[beyond]),
        Err(DeviceError::OutOfRange)
    ));
    drop(running);
    let running = grid.open(dir.path()).unwrap();
    assert_eq!(running.root().size, SIZE - 4096);
    grid.edit(&running, &Edit::Grow(SIZE * 8)).unwrap();
    assert_eq!((read(&running, last), read(&running, SIZE * 8 / 4096 - 1)), (0, 0));
}

/// After a restart another commit got the number of one that peers may already have had.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_commit_that_was_offered_before_a_restart_is_offered_again() {
    let (dir, grid) = (tempfile::tempdir().unwrap(), Grid::new());
    let running = grid.open(dir.path()).unwrap();
    write(&running, 1, 1);
    let mut offered = Vec::new();
    let refused = running.commit(6, &mut grid.packs.clone(), &mut |prepared| {
        offered.push((prepared.committed.root.commit, prepared.at.clone()));
        Err(DeviceError::Unavailable("nobody is there".to_owned()))
    });
    assert!(refused.is_err());
    write(&running, 1, 2);
    drop(running);
    let running = grid.open(dir.path()).unwrap();
    assert!(grid.commit(&running).unwrap());
    assert_eq!(*grid.head.lock().unwrap(), offered[0]);
    assert_eq!((read(&running, 1), running.is_dirty()), (2, true));
    assert!(grid.commit(&running).unwrap());
    drop(running);
    assert_eq!(read(&grid.open(&dir.path().join("other")).unwrap(), 1), 2);
}

/// A leaf of this disk was newer than the one in packs, so that nothing had it again: all reads and commits of its region failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_rotten_leaf_of_this_disk_costs_only_that_the_map_is_begun_anew() {
    let (dir, grid) = (tempfile::tempdir().unwrap(), Grid::new());
    let running = grid.open(dir.path()).unwrap();
    for fill in 1..4 {
        (0..3000).for_each(|block| write(&running, block * 2, fill));
        grid.commit(&running).unwrap();
    }
    running.blocks.write_leaf_here(0);
    drop(running);
    let mut rotten = 0;
    for entry in walk(&dir.path().join("map")) {
        let mut bytes = std::fs::read(&entry).unwrap();
        if bytes.starts_with(b"GBLEAF") {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&entry, bytes).unwrap();
            rotten += 1;
        }
    }
    assert_eq!(rotten, 1);
    let running = grid.open(dir.path()).unwrap();
    assert_eq!(read(&running, 10), 3);
    write(&running, 10, 4);
    grid.commit(&running).unwrap();
    assert_eq!((read(&running, 10), read(&running, 12)), (4, 3));
}

/// All blocks of a pack are dead, and a leaf in it is needed: the only one of a region that nobody writes to.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pack_stays_as_long_as_a_leaf_in_it_is_needed() {
    let (dir, grid) = (tempfile::tempdir().unwrap(), Grid::new());
    let running = grid.open(dir.path()).unwrap();
    write(&running, 5, 1);
    grid.commit(&running).unwrap();
    let mut given_up = 0;
    for fill in 1..40 {
        write(&running, 70_000, fill);
        grid.commit(&running).unwrap();
        given_up += grid.give_up(&running);
    }
    assert!(given_up > 20, "{given_up}");
    let other = grid.open(&dir.path().join("other")).unwrap();
    assert_eq!((read(&other, 5), read(&other, 70_000)), (1, 39));
}

/// All blocks of a pack are dead, and its list of changes is needed: the leaf of its region is too long to be written with every commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pack_stays_as_long_as_its_list_of_changes_is_needed() {
    let (dir, grid) = (tempfile::tempdir().unwrap(), Grid::new());
    let running = grid.open(dir.path()).unwrap();
    (0..2000).for_each(|block| write(&running, block * 2, 1));
    grid.commit(&running).unwrap();
    for fill in 2..20 {
        write(&running, 7, fill);
        grid.commit(&running).unwrap();
        grid.give_up(&running);
    }
    assert!(running.root().pending.len() > 10);
    let other = grid.open(&dir.path().join("other")).unwrap();
    assert_eq!((read(&other, 2), read(&other, 7)), (1, 19));
}

pub fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(walk(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_disk_tells_what_it_takes_and_what_it_did() {
    let (dir, grid) = (tempfile::tempdir().unwrap(), Grid::new());
    let running = grid.open(dir.path()).unwrap();
    assert_eq!((running.stats().oldest_pending, running.stats().packs), (None, None));
    write(&running, 1, 1);
    let stats = running.stats();
    assert!(stats.oldest_pending.is_some() && stats.pending_bytes >= 4096);
    assert!(stats.journal_bytes > 0 && stats.journal_bytes < stats.journal_bytes_max);
    grid.commit(&running).unwrap();
    running.count_packs().unwrap();
    let stats = running.stats();
    assert_eq!((stats.oldest_pending, stats.pending_bytes), (None, 0));
    assert_eq!((stats.commits, stats.host_bytes, stats.commit), (1, 4096, 2));
    assert_eq!((stats.live_bytes, stats.packs), (Some(4096), Some(2)));
    assert_eq!(stats.stored_bytes, Some(128 << 10));
    assert_eq!(stats.sent_bytes, 64 << 10);
}
