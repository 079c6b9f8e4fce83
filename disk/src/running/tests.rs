mod model;
mod states;

use super::writer::WRITER;
use super::*;
use crate::device::Change;
use crate::testing::packs::MemoryPacks;

const VOLUME: [u8; 16] = [4; 16];
const SIZE: u64 = 600 << 20;

/// Peers, and what their newest head says of the volume.
struct Grid {
    packs: Arc<MemoryPacks>,
    head: Mutex<(u64, RootRef)>,
}

impl Grid {
    fn new() -> Self {
        let packs = MemoryPacks::new();
        let first = first_commit(VOLUME, "disk".to_owned(), SIZE, Vec::new(), 5, &mut packs.clone()).unwrap();
        Self {
            packs,
            head: Mutex::new((first.committed.root.commit, first.at)),
        }
    }

    fn open(&self, folder: &Path) -> Result<Running, OpenError> {
        let (commit, at) = self.head.lock().unwrap().clone();
        Running::open(folder, VOLUME, commit, &at, self.packs.clone(), Handle::current(), None)
    }

    fn commit(&self, running: &Running) -> Result<bool, DeviceError> {
        running.commit(6, &mut self.packs.clone(), &mut |prepared| {
            *self.head.lock().unwrap() = (prepared.committed.root.commit, prepared.at.clone());
            Ok(())
        })
    }
}

fn write(running: &Running, block: u64, byte: u8) {
    let change = Change::Write {
        offset: block * 4096,
        data: &[byte; 4096],
    };
    running.device().apply(&[change]).unwrap();
}

fn read(running: &Running, block: u64) -> u8 {
    let read = futures::executor::block_on(running.device().read(block * 4096, 4096)).unwrap();
    assert!(read.iter().all(|byte| *byte == read[0]));
    read[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_disk_is_there_after_a_stop_a_kill_and_the_loss_of_its_folder() {
    let (dir, grid) = (tempfile::tempdir().unwrap(), Grid::new());
    let folder = dir.path().join("disk");
    let running = grid.open(&folder).unwrap();
    assert!(!running.is_dirty() && !grid.commit(&running).unwrap());
    write(&running, 3, 7);
    assert!(running.is_dirty());
    assert!(grid.commit(&running).unwrap() && !running.is_dirty());
    write(&running, 3, 8);
    running.end().await.unwrap();
    drop(running);
    let running = grid.open(&folder).unwrap();
    assert_eq!(read(&running, 3), 8);
    write(&running, 4, 9);
    drop(running);
    let running = grid.open(&folder).unwrap();
    assert_eq!((read(&running, 3), read(&running, 4)), (8, 9));
    drop(running);
    std::fs::remove_dir_all(&folder).unwrap();
    let running = grid.open(&folder).unwrap();
    assert_eq!((read(&running, 3), read(&running, 4)), (7, 0));
    write(&running, 5, 1);
    grid.commit(&running).unwrap();
    assert_eq!(running.root().commit, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_commit_that_was_not_accepted_is_offered_again_as_it_is() {
    let (dir, grid) = (tempfile::tempdir().unwrap(), Grid::new());
    let running = grid.open(dir.path()).unwrap();
    write(&running, 1, 1);
    let mut offered = Vec::new();
    for _ in 0..2 {
        let refused = running.commit(6, &mut grid.packs.clone(), &mut |prepared| {
            offered.push(prepared.at.clone());
            Err(DeviceError::Unavailable("nobody is there".to_owned()))
        });
        assert!(refused.is_err());
        write(&running, 1, 2);
    }
    assert_eq!(offered[0], offered[1]);
    assert!(grid.commit(&running).unwrap());
    assert_eq!(grid.head.lock().unwrap().1, offered[0]);
    assert_eq!(read(&running, 1), 2);
    assert!(grid.commit(&running).unwrap());
    drop(running);
    let other = dir.path().join("other");
    assert_eq!(read(&grid.open(&other).unwrap(), 1), 2);
}

/// A head was taken, and this process died before it knew.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_commit_whose_acceptance_was_not_heard_of_is_ones_own() {
    let (dir, grid) = (tempfile::tempdir().unwrap(), Grid::new());
    let running = grid.open(dir.path()).unwrap();
    write(&running, 1, 1);
    let heard = running.commit(6, &mut grid.packs.clone(), &mut |prepared| {
        *grid.head.lock().unwrap() = (prepared.committed.root.commit, prepared.at.clone());
        Err(DeviceError::Unavailable("the answer was lost".to_owned()))
    });
    assert!(heard.is_err());
    write(&running, 2, 2);
    drop(running);
    let running = grid.open(dir.path()).unwrap();
    assert_eq!((read(&running, 1), read(&running, 2)), (1, 2));
    assert!(grid.commit(&running).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_folder_that_another_machine_has_overtaken_is_kept_and_refused() {
    let (dir, grid) = (tempfile::tempdir().unwrap(), Grid::new());
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let running = grid.open(&ours).unwrap();
    write(&running, 1, 1);
    grid.commit(&running).unwrap();
    write(&running, 1, 2);
    drop(running);
    let running = grid.open(&theirs).unwrap();
    write(&running, 1, 3);
    grid.commit(&running).unwrap();
    drop(running);
    let refused = grid.open(&ours).err().unwrap();
    assert!(
        matches!(refused, OpenError::Overtaken { ours: 2, theirs: 3, .. }),
        "{refused}"
    );
    assert!(ours.join("journal").read_dir().unwrap().next().is_some());
    assert_eq!(read(&grid.open(&theirs).unwrap(), 1), 3);
}

/// The same home was copied, and both went on: their journals have one id, and commits of one number.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_copy_of_the_folder_does_not_go_on_from_what_the_other_one_has_committed() {
    for (theirs, ours) in [(1, 0), (1, 1), (2, 1)] {
        let (dir, grid) = (tempfile::tempdir().unwrap(), Grid::new());
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        let running = grid.open(&one).unwrap();
        write(&running, 1, 1);
        grid.commit(&running).unwrap();
        running.end().await.unwrap();
        drop(running);
        copy(&one, &other);
        let before = grid.head.lock().unwrap().clone();
        let running = grid.open(&other).unwrap();
        write(&running, 1, 2);
        write(&running, 3, 2);
        for _ in 0..ours {
            // Signed, and taken by nobody: the other one was there first.
            let refused = running.commit(6, &mut grid.packs.clone(), &mut |_| {
                Err(DeviceError::Unavailable("it is a fork".to_owned()))
            });
            assert!(refused.is_err());
        }
        drop(running);
        *grid.head.lock().unwrap() = before;
        let running = grid.open(&one).unwrap();
        for number in 0..theirs {
            write(&running, 2, 3 + number);
            grid.commit(&running).unwrap();
        }
        drop(running);
        let (commit, at) = grid.head.lock().unwrap().clone();
        assert!(Running::is_overtaken(&other, VOLUME, commit, &at).unwrap());
        assert!(!Running::is_overtaken(&one, VOLUME, commit, &at).unwrap());
        assert!(!Running::is_overtaken(&dir.path().join("none"), VOLUME, commit, &at).unwrap());
        let refused = grid.open(&other).err().unwrap();
        assert!(matches!(refused, OpenError::Overtaken { .. }), "{refused}");
        grid.open(&one).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// Peers that were turned back, or of which only the oldest are reached, show an honest head of before.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_older_head_than_the_one_that_was_accepted_is_refused() {
    let (dir, grid) = (tempfile::tempdir().unwrap(), Grid::new());
    let running = grid.open(dir.path()).unwrap();
    write(&running, 1, 1);
    grid.commit(&running).unwrap();
    let older = grid.head.lock().unwrap().clone();
    write(&running, 1, 2);
    grid.commit(&running).unwrap();
    drop(running);
    let newest = std::mem::replace(&mut *grid.head.lock().unwrap(), older);
    let refused = grid.open(dir.path()).err().unwrap();
    assert!(
        matches!(refused, OpenError::TurnedBack { ours: 3, theirs: 2 }),
        "{refused}"
    );
    *grid.head.lock().unwrap() = newest;
    assert_eq!(read(&grid.open(dir.path()).unwrap(), 1), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_journal_without_its_keys_is_not_taken_for_an_empty_one() {
    let (dir, grid) = (tempfile::tempdir().unwrap(), Grid::new());
    let running = grid.open(dir.path()).unwrap();
    write(&running, 1, 1);
    drop(running);
    for name in [WRITER, "writer.before"] {
        let _either = std::fs::remove_file(dir.path().join(name));
    }
    assert!(std::fs::read_dir(dir.path()).unwrap().count() <= 3);
    let refused = grid.open(dir.path()).err().unwrap();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    let other = Running::open(
        dir.path(),
        [5; 16],
        1,
        &grid.head.lock().unwrap().1,
        grid.packs.clone(),
        Handle::current(),
        None,
    );
    assert!(other.is_err());
}

#[test]
fn commits_over_a_slow_line_become_smaller_and_over_a_fast_one_larger_again() {
    let secs = Duration::from_secs;
    let after = |most: u64, bytes: u64, time| next_batch_bytes(most << 20, bytes << 20, time) >> 20;
    assert_eq!(after(256, 256, secs(64)), 128);
    assert_eq!(after(16, 16, secs(64)), 16);
    assert_eq!(after(32, 32, secs(10)), 32);
    assert_eq!(after(32, 32, secs(2)), 64);
    assert_eq!(after(32, 1, secs(2)), 32);
    assert_eq!(after(256, 256, secs(2)), 256);
}
