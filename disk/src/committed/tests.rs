use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proto::cap_index::PackRecord;
use proto::head::RootRef;

use super::*;
use crate::commit::Span;
use crate::commit::compose::compose;
use crate::commit::opening::open;
use crate::commit::pack_table::PackTable;
use crate::commit::root::Root;
use crate::commit::state::Committed;
use crate::device::{Change, Device};
use crate::extents::{MapOptions, Update};
use crate::journal::{JournalKey, JournalOptions};
use crate::map::Piece;
use crate::testing::packs::{MemoryPacks, ROOMS};
use crate::volume::{Volume, VolumeOptions};

const SIZE: u64 = 600 << 20;
/// Less than some rounds write.
const BATCH_BYTES: u64 = 4 << 20;

/// A disk with its packs, its local folder, what it should hold, and where its last root lies.
struct Machine {
    dir: tempfile::TempDir,
    packs: Arc<MemoryPacks>,
    at: RootRef,
    /// Of the next folder: a lost one is not used again.
    folders: u32,
}

fn journal(folder: &Path) -> VolumeOptions {
    VolumeOptions {
        journal: JournalOptions {
            file_bytes: 1 << 20,
            file_count: 64,
            ..JournalOptions::new(folder.join("journal"))
        },
        size: SIZE,
        is_read_only: false,
        patience: Duration::from_secs(1),
    }
}

impl Machine {
    fn new() -> Self {
        let packs = MemoryPacks::new();
        // The first root is a commit of nothing.
        let root = Root::first([9; 16], "disk".to_owned(), SIZE, Vec::new());
        let none = Committed::new(root, PackTable::default(), Default::default());
        let batch = Batch {
            seq: 0,
            pieces: Vec::new(),
        };
        let prepared = compose(&none, &|_| Ok(None), &batch, 0, &mut packs.clone()).unwrap();
        let mut machine = Self {
            dir: tempfile::tempdir().unwrap(),
            packs,
            at: prepared.at,
            folders: 0,
        };
        machine.lose_folder();
        machine
    }

    fn folder(&self) -> std::path::PathBuf {
        self.dir.path().join(self.folders.to_string())
    }

    fn lose_folder(&mut self) {
        self.folders += 1;
        std::fs::create_dir_all(self.folder().join("journal")).unwrap();
        std::fs::create_dir_all(self.folder().join("map")).unwrap();
    }

    fn map(&self) -> MapOptions {
        MapOptions::new(self.folder().join("map"), [9; 16])
    }

    fn open(&self, is_ours: bool) -> (Volume, Arc<CommittedBlocks>) {
        self.open_with(self.map(), is_ours)
    }

    fn blocks(&self, map: MapOptions, is_ours: bool) -> Arc<CommittedBlocks> {
        let opened = open(&self.at, self.packs.clone(), map, is_ours).unwrap();
        Arc::new(CommittedBlocks::new(opened, 1 << 20, Handle::current()))
    }

    /// A commit of all that was written.
    fn prepare(&self, volume: &Volume, blocks: &CommittedBlocks) -> Prepared {
        futures::executor::block_on(volume.flush()).unwrap();
        let batch = volume.batch(u64::MAX).unwrap();
        blocks.prepare(&batch, 5, &mut self.packs.clone()).unwrap()
    }

    fn open_with(&self, map: MapOptions, is_ours: bool) -> (Volume, Arc<CommittedBlocks>) {
        let blocks = self.blocks(map, is_ours);
        let volume = Volume::open(
            journal(&self.folder()),
            JournalKey::new(&[5; 32], [6; 16]),
            blocks.clone(),
        )
        .unwrap();
        (volume, blocks)
    }

    fn commit(&mut self, volume: &Volume, blocks: &CommittedBlocks) -> Result<(), DeviceError> {
        self.at = commit(volume, blocks, &self.packs)?;
        Ok(())
    }
}

/// Makes a commit, which is accepted: where its root lies.
fn commit(volume: &Volume, blocks: &CommittedBlocks, packs: &Arc<MemoryPacks>) -> Result<RootRef, DeviceError> {
    // Files of the journal are released as far as they are durable.
    futures::executor::block_on(volume.flush())?;
    let batch = volume.batch(BATCH_BYTES)?;
    let prepared = blocks.prepare(&batch, 77, &mut packs.clone())?;
    blocks.accept(&prepared)?;
    drop(batch);
    volume.release(blocks.committed_seq());
    Ok(prepared.at)
}

fn put(volume: &Volume, block: u64, fill: u8) {
    let (offset, data) = (block * BLOCK, [fill; BLOCK_BYTES]);
    volume.apply(&[Change::Write { offset, data: &data }]).unwrap();
}

fn get(volume: &Volume, block: u64) -> u8 {
    let read = futures::executor::block_on(volume.read(block * BLOCK, BLOCK_BYTES)).unwrap();
    assert!(read.iter().all(|byte| *byte == read[0]));
    read[0]
}

/// Numbers that follow from a seed (SplitMix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        match self.below(4) {
            0 => bytes.fill(self.below(256) as u8),
            1 => {}
            _ => bytes = self.random(len),
        }
        bytes
    }

    fn random(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let seed = self.below(u64::MAX).to_le_bytes();
        blake3::Hasher::new().update(&seed).finalize_xof().fill(&mut bytes);
        bytes
    }
}

/// What was written, by block; zeros are not there.
type Model = HashMap<u64, Vec<u8>>;

fn check(volume: &Volume, model: &Model, blocks: impl Iterator<Item = u64>) {
    for block in blocks {
        let read = futures::executor::block_on(volume.read(block * BLOCK, BLOCK_BYTES)).unwrap();
        let zeros = vec![0; BLOCK_BYTES];
        assert!(&read == model.get(&block).unwrap_or(&zeros), "block {block}");
    }
}

fn write(volume: &Volume, model: &mut Model, draw: &mut Draw) {
    let count = match draw.below(4) {
        0 => 1 + draw.below(40),
        _ => 1,
    };
    // Most writes are near each other.
    let start = match draw.below(3) {
        0 => draw.below(SIZE / BLOCK - count),
        _ => draw.below(300),
    };
    if draw.below(5) == 0 {
        volume
            .apply(&[Change::Trim {
                offset: start * BLOCK,
                length: count * BLOCK,
            }])
            .unwrap();
        (start..start + count).for_each(|block| drop(model.remove(&block)));
        return;
    }
    let data = draw.bytes(count as usize * BLOCK_BYTES);
    volume
        .apply(&[Change::Write {
            offset: start * BLOCK,
            data: &data,
        }])
        .unwrap();
    for (block, bytes) in (start..).zip(data.chunks_exact(BLOCK_BYTES)) {
        match bytes.iter().all(|byte| *byte == 0) {
            true => drop(model.remove(&block)),
            false => drop(model.insert(block, bytes.to_vec())),
        }
    }
}

/// Writes, commits, kills and losses of the local folder in any order: after a kill all is there, after a loss all that was committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_is_there_and_what_was_committed_survives_the_loss_of_the_folder() {
    for seed in 0..4 {
        let (mut draw, mut machine) = (Draw(seed), Machine::new());
        let (mut model, mut committed) = (Model::new(), Model::new());
        let (mut volume, mut blocks) = machine.open(true);
        for step in 0..200 {
            for _ in 0..draw.below(12) {
                write(&volume, &mut model, &mut draw);
            }
            match draw.below(8) {
                0..5 => {
                    machine.commit(&volume, &blocks).unwrap();
                    committed.clone_from(&model);
                }
                5 => {
                    drop((volume, blocks));
                    (volume, blocks) = machine.open(true);
                }
                6 if step % 4 == 0 => {
                    drop((volume, blocks));
                    machine.lose_folder();
                    (volume, blocks) = machine.open(draw.below(2) == 0);
                    model.clone_from(&committed);
                }
                _ => {}
            }
            check(
                &volume,
                &model,
                (0..4).map(|_| draw.below(340)).chain(model.keys().copied().take(2)),
            );
        }
        check(&volume, &model, (0..400).chain(model.keys().copied()));
        let extents = volume.extents(0, SIZE).unwrap();
        assert_eq!(extents.iter().map(|extent| extent.length).sum::<u64>(), SIZE);
        let data: u64 = extents
            .iter()
            .filter(|extent| extent.kind == ExtentKind::Data)
            .map(|extent| extent.length)
            .sum();
        assert!(data <= (model.len() as u64 + 64 * 40) * BLOCK);
        machine.commit(&volume, &blocks).unwrap();
        let root = blocks.committed().root;
        assert!(
            root.pending.len() <= crate::commit::root::PENDING_MAX,
            "{}",
            root.pending.len()
        );
    }
}

/// A commit that cannot be delivered leaves everything as it was, and the next one has it all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_failed_is_made_again_by_the_next_one() {
    let (mut draw, mut machine) = (Draw(11), Machine::new());
    let mut model = Model::new();
    let (volume, blocks) = machine.open(true);
    for round in 0..20 {
        for _ in 0..60 {
            write(&volume, &mut model, &mut draw);
        }
        let packs = machine.packs.kept().len();
        machine.packs.refused_from.store(packs + round % 3, Ordering::Relaxed);
        let is_done = machine.commit(&volume, &blocks).is_ok();
        check(&volume, &model, model.keys().copied().take(50));
        machine.packs.refused_from.store(usize::MAX, Ordering::Relaxed);
        if !is_done {
            machine.commit(&volume, &blocks).unwrap();
        }
    }
    drop((volume, blocks));
    machine.lose_folder();
    let (volume, _blocks) = machine.open(true);
    check(&volume, &model, (0..340).chain(model.keys().copied()));
}

/// A trickle of commits of one block: each is one pack of the smallest shape, and opening reads no more the longer it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trickle_costs_one_small_pack_a_commit_and_opening_stays_cheap() {
    let mut machine = Machine::new();
    let (volume, blocks) = machine.open(true);
    let mut data = vec![1; BLOCK_BYTES];
    for commit in 0..1500_u64 {
        data.fill(commit as u8 | 1);
        let offset = (commit % 50) * BLOCK * 17;
        volume.apply(&[Change::Write { offset, data: &data }]).unwrap();
        machine.commit(&volume, &blocks).unwrap();
    }
    let kept = machine.packs.kept().len();
    assert_eq!(kept, 1501);
    drop((volume, blocks));
    machine.lose_folder();
    machine.packs.reads.store(0, Ordering::Relaxed);
    let (_volume, blocks) = machine.open(true);
    let reads = machine.packs.reads.load(Ordering::Relaxed);
    assert!(reads <= crate::commit::root::PENDING_MAX + 40, "{reads} reads");
    assert_eq!(blocks.committed().root.commit, 1501);
    let largest = machine.packs.kept().values().map(Vec::len).max().unwrap();
    assert!(largest <= ROOMS[0], "{largest} bytes");
}

/// A disk with two blocks in the first region, whose leaf is in a pack and not here.
fn with_a_leaf_elsewhere() -> (Machine, Arc<Volume>, Arc<CommittedBlocks>) {
    let mut machine = Machine::new();
    let (volume, blocks) = machine.open(true);
    put(&volume, 3, 33);
    put(&volume, 4, 44);
    machine.commit(&volume, &blocks).unwrap();
    // The leaf is as of the commit before.
    put(&volume, 100_000, 1);
    machine.commit(&volume, &blocks).unwrap();
    drop((volume, blocks));
    machine.lose_folder();
    let (volume, blocks) = machine.open(true);
    (machine, Arc::new(volume), blocks)
}

/// A reader fetched a leaf while a commit wrote it anew. What came was not the leaf that counts any more, and the disk said that it was
/// damaged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaf_that_a_commit_writes_anew_while_it_is_fetched_is_no_error() {
    let (machine, volume, blocks) = with_a_leaf_elsewhere();
    let (writer, packs) = (volume.clone(), machine.packs.clone());
    *machine.packs.before_read.lock().unwrap() = Some(Box::new(move || {
        for fill in 50..53 {
            put(&writer, 3, fill);
            commit(&writer, &blocks, &packs).unwrap();
        }
    }));
    assert_eq!((get(&volume, 4), get(&volume, 3)), (44, 52));
}

/// A commit waited for a leaf from peers with the map locked, and whoever read anything waited with it, on a thread of the runtime.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_leaf_that_a_commit_fetches() {
    let (mut machine, volume, blocks) = with_a_leaf_elsewhere();
    // The next commit needs the leaf of what this one changed.
    put(&volume, 3, 50);
    machine.commit(&volume, &blocks).unwrap();
    put(&volume, 3, 51);
    let (has_read, may_go_on) = std::sync::mpsc::channel();
    let (is_fetching, fetches) = std::sync::mpsc::channel();
    *machine.packs.before_read.lock().unwrap() = Some(Box::new(move || {
        is_fetching.send(()).unwrap();
        let _either = may_go_on.recv_timeout(Duration::from_secs(5));
    }));
    let (writer, packs, committed) = (volume.clone(), machine.packs.clone(), blocks.clone());
    let commits = std::thread::spawn(move || commit(&writer, &committed, &packs).unwrap());
    fetches.recv().unwrap();
    let mut block = [0; BLOCK_BYTES];
    assert!(volume.read_now(140_000 * BLOCK, &mut block).unwrap());
    assert!(
        has_read.send(()).is_ok(),
        "a reading waited for a leaf that it does not need"
    );
    commits.join().unwrap();
}

/// The map of this disk may be ahead of a root in single leaves, while its floor is not: these told of what that root does not have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_root_is_not_read_with_newer_leaves() {
    let mut machine = Machine::new();
    let (volume, blocks) = machine.open(true);
    for fill in 33..35 {
        put(&volume, 3, fill);
        put(&volume, 100_000, fill);
        let older = machine.at.clone();
        machine.commit(&volume, &blocks).unwrap();
        if fill == 34 {
            machine.at = older;
        }
    }
    blocks.inner.lock().map.write_regions(&[0]).unwrap();
    drop((volume, blocks));
    std::fs::remove_dir_all(machine.folder().join("journal")).unwrap();
    std::fs::create_dir(machine.folder().join("journal")).unwrap();
    // Nothing of the newer map is touched by that.
    let refused = open(&machine.at, machine.packs.clone(), machine.map(), true);
    assert!(matches!(refused, Err(DeviceError::Damaged(_))));
    let (volume, _blocks) = machine.open(false);
    assert_eq!((get(&volume, 3), get(&volume, 100_000)), (33, 33));
}

/// A commit of nothing moved the root's floor ahead of that of the map of this disk, which was then begun anew: all leaves were fetched
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_changes_no_leaf_does_not_cost_the_map_of_this_disk() {
    let mut machine = Machine::new();
    let (volume, blocks) = machine.open(true);
    (0..20).for_each(|number| put(&volume, number * 7000, 7));
    (0..8).for_each(|_| machine.commit(&volume, &blocks).unwrap());
    let root = blocks.committed().root;
    assert_eq!(root.floor, root.commit);
    drop((volume, blocks));
    let (_volume, blocks) = machine.open(true);
    let state = blocks.inner.lock();
    assert!((0..3).all(|region| !state.map.is_elsewhere(region)));
}

/// The disk of the map failed when a commit was accepted. Peers have accepted it all the same, so it has to be taken in once the disk is well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_commit_that_could_not_be_taken_in_is_tried_again() {
    let machine = Machine::new();
    let mut map = machine.map();
    map.overlay_bytes = 0;
    let (volume, blocks) = machine.open_with(map, true);
    let prepare = || machine.prepare(&volume, &blocks);
    // The leaf of the first region is longer than all that is due, so that changes of the other one stay in memory.
    (0..1500).for_each(|number| put(&volume, number * 2, 7));
    put(&volume, 100_000, 8);
    blocks.accept(&prepare()).unwrap();
    put(&volume, 3, 34);
    let prepared = prepare();
    let (here, away) = (machine.folder().join("map"), machine.folder().join("away"));
    std::fs::rename(&here, &away).unwrap();
    std::fs::write(&here, b"no folder").unwrap();
    blocks.accept(&prepared).unwrap_err();
    assert_eq!(blocks.committed().root.commit, 2);
    std::fs::remove_file(&here).unwrap();
    std::fs::rename(&away, &here).unwrap();
    blocks.accept(&prepared).unwrap();
    volume.release(blocks.committed_seq());
    assert_eq!((get(&volume, 3), get(&volume, 100_000)), (34, 8));
}

/// The root of another disk emptied the folder of the map, and blocks of that disk were read as those of this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_of_another_disk_is_refused() {
    let machine = Machine::new();
    let map = MapOptions {
        volume: [1; 16],
        ..machine.map()
    };
    assert!(open(&machine.at, machine.packs.clone(), map, true).is_err());
}

/// A disk whose leaves are long: commits of one block each carried one of them, whatever it took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trickle_into_a_region_with_a_long_leaf_costs_small_packs_too() {
    let mut machine = Machine::new();
    let (volume, blocks) = machine.open(true);
    (0..6000).for_each(|number| put(&volume, number * 2, 7));
    let mut delivered = Vec::new();
    for commit in 0..300 {
        machine.commit(&volume, &blocks).unwrap();
        let kept = machine.packs.kept();
        delivered.push(kept[&(kept.len() as u64 - 1).to_le_bytes().to_vec()].len());
        put(&volume, 4, commit as u8);
    }
    assert!(blocks.committed().leaves[&0].1.len > 50_000);
    let large = delivered[50..].iter().filter(|bytes| **bytes > ROOMS[0]).count();
    assert!(large <= 5, "{large} of 250 packs");
}

/// Takes packs, and forgets them.
struct Counted {
    rooms: Vec<usize>,
    packs: usize,
}

impl PackSink for Counted {
    fn rooms(&self) -> Vec<usize> {
        self.rooms.clone()
    }

    fn deliver(&mut self, _plain: Vec<u8>, _room: usize) -> Result<PackRecord, DeviceError> {
        self.packs += 1;
        Ok(PackRecord {
            manifest: self.packs.to_le_bytes().to_vec(),
            wrapped_key: [3; 80],
        })
    }
}

/// A batch of more packs than a root can name made a root that nobody reads: all of the disk was gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_makes_no_root_that_is_not_read() {
    let machine = Machine::new();
    let (volume, blocks) = machine.open(true);
    let data: Vec<u8> = (0..240).flat_map(|seed| Draw(seed).random(BLOCK_BYTES)).collect();
    volume.apply(&[Change::Write { offset: 0, data: &data }]).unwrap();
    let mut batch = volume.batch(u64::MAX).unwrap();
    let piece = batch.pieces[0].clone();
    let mut sink = Counted {
        rooms: vec![64 << 10, 900 << 10],
        packs: 0,
    };
    let bytes_max = crate::commit::compose::batch_bytes_max(&sink.rooms);
    let times = |bytes: u64| 0..bytes / (240 * BLOCK);
    let at = |number| Piece {
        start: number * 256,
        ..piece.clone()
    };
    batch.pieces = times(bytes_max).map(at).collect();
    let prepared = blocks.prepare(&batch, 77, &mut sink).unwrap();
    assert!((50..150).contains(&prepared.committed.root.pending.len()));
    Root::decode(&prepared.committed.root.encode()).unwrap();
    batch.pieces = times(bytes_max * 4).map(at).collect();
    assert!(blocks.prepare(&batch, 77, &mut sink).is_err());
    // A leaf may come that has no room in these.
    sink.rooms.pop();
    batch.pieces.truncate(1);
    sink.packs = 0;
    assert!(blocks.prepare(&batch, 77, &mut sink).is_err());
    assert_eq!(sink.packs, 0);
}

/// A disk of 64 TiB of which all leaves are due, packed in the smallest packs: its pages of leaves had no room in one of them.
#[tokio::test]
async fn pages_of_leaves_that_one_pack_has_no_room_for_lie_in_several() {
    let mut root = Root::first([9; 16], "disk".to_owned(), 1 << 46, Vec::new());
    let (pack, offset, len) = (0, 0, 1);
    root.commit = 1;
    root.pending = vec![(1, Span { pack, offset, len }); 256];
    let mut last = Committed::new(root, PackTable::default(), Default::default());
    let place = Place::new(0, 0, 0).unwrap();
    let run = |start| Run {
        start,
        count: 1 << 32,
        place,
    };
    last.note(
        1,
        &(0..4)
            .map(|run_number| Update::Map(run(run_number << 32)))
            .collect::<Vec<_>>(),
    );
    let batch = Batch {
        seq: 1,
        pieces: Vec::new(),
    };
    let mut sink = Counted {
        rooms: vec![64 << 10, 900 << 10],
        packs: 0,
    };
    let prepared = compose(&last, &|_| Ok(Some((1, vec![7; 84]))), &batch, 0, &mut sink).unwrap();
    let root = prepared.committed.root;
    assert_eq!((root.pages.len(), root.floor, root.pending.len()), (512, 2, 0));
    let packs: std::collections::BTreeSet<_> = root.pages.iter().map(|(_, span)| span.pack).collect();
    assert!(packs.len() > 3);
}

/// The map of this disk, whatever it had to write and read meanwhile and whatever failed, says what leaves and lists out of packs say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opening_with_the_map_of_this_disk_is_as_one_without() {
    for seed in 100..104 {
        let (mut draw, mut machine) = (Draw(seed), Machine::new());
        let (mut model, mut committed) = (Model::new(), Model::new());
        let small = |machine: &Machine, draw: &mut Draw| MapOptions {
            overlay_bytes: draw.below(3) as usize * 3000,
            cache_bytes: draw.below(2) as usize * 2000,
            ..machine.map()
        };
        let (mut volume, mut blocks) = machine.open_with(small(&machine, &mut draw), true);
        for step in 0..60 {
            (0..draw.below(12)).for_each(|_| write(&volume, &mut model, &mut draw));
            match draw.below(8) {
                0 => {
                    let packs = machine.packs.kept().len();
                    machine.packs.refused_from.store(packs, Ordering::Relaxed);
                    machine.commit(&volume, &blocks).unwrap_err();
                    machine.packs.refused_from.store(usize::MAX, Ordering::Relaxed);
                }
                // Made, but not accepted: leaves of this disk may have been written for it.
                1 => drop(machine.prepare(&volume, &blocks)),
                2 => {
                    drop((volume, blocks));
                    (volume, blocks) = machine.open_with(small(&machine, &mut draw), true);
                }
                3 if step % 4 == 0 => {
                    drop((volume, blocks));
                    machine.lose_folder();
                    (volume, blocks) = machine.open_with(small(&machine, &mut draw), draw.below(2) == 0);
                    model.clone_from(&committed);
                }
                4 => {
                    // Accepted, but the process dies before it takes it in.
                    machine.at = machine.prepare(&volume, &blocks).at;
                    committed.clone_from(&model);
                    drop((volume, blocks));
                    (volume, blocks) = machine.open_with(small(&machine, &mut draw), true);
                }
                _ => {
                    machine.commit(&volume, &blocks).unwrap();
                    while blocks.committed_seq() < volume.last_seq() {
                        machine.commit(&volume, &blocks).unwrap();
                    }
                    committed.clone_from(&model);
                }
            }
            let some = (0..4).map(|_| draw.below(340)).collect::<Vec<_>>();
            check(&volume, &model, some.into_iter().chain(model.keys().copied().take(3)));
            if step % 10 == 0 {
                let folder = tempfile::tempdir().unwrap();
                let fresh = machine.blocks(MapOptions::new(folder.path().to_owned(), [9; 16]), false);
                assert!(places(&fresh) == places(&blocks), "seed {seed}, step {step}");
                for block in (0..340).chain(committed.keys().copied()) {
                    let (mut read, zeros) = (vec![1; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
                    fresh.inner.read(block, &mut read).unwrap();
                    assert!(
                        &read == committed.get(&block).unwrap_or(&zeros),
                        "seed {seed}, step {step}, block {block}"
                    );
                }
            }
        }
    }
}

/// Where each block lies, however it is cut into runs.
fn places(blocks: &CommittedBlocks) -> Vec<(u64, Place)> {
    let runs = blocks.inner.find(0, SIZE / BLOCK).unwrap();
    let places = |run: Run| (0..run.count).map(move |block| (run.start + block, run.place.after(block as u32)));
    runs.into_iter().flat_map(places).collect()
}

/// Whoever opened a volume with another size than its root says could write beyond its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_has_the_size_that_its_root_says() {
    let machine = Machine::new();
    let blocks = machine.blocks(machine.map(), true);
    let options = VolumeOptions {
        size: SIZE + 4096,
        ..journal(&machine.folder())
    };
    let refused = Volume::open(options, JournalKey::new(&[5; 32], [6; 16]), blocks);
    assert!(matches!(refused, Err(DeviceError::Damaged(_))));
}

/// Each hint took a thread until its blocks had come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_ahead_takes_no_more_than_a_few_threads() {
    let mut machine = Machine::new();
    let (volume, blocks) = machine.open(true);
    (0..64).for_each(|number| put(&volume, number, 7));
    machine.commit(&volume, &blocks).unwrap();
    let held = machine.packs.kept();
    (0..100).for_each(|number| blocks.prefetch(number % 64, 1));
    let reading = blocks.inner.prefetching.load(Ordering::Relaxed);
    drop(held);
    assert!((1..=PREFETCHES_MAX).contains(&reading), "{reading}");
    while blocks.inner.prefetching.load(Ordering::Relaxed) > 0 {
        tokio::task::yield_now().await;
    }
    blocks.prefetch(0, 1);
}

/// A read found where its blocks lay, they were moved, and the pack was given up before it was read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_looks_again_when_its_pack_has_gone() {
    let machine = Machine::new();
    let (volume, blocks) = machine.open(true);
    put(&volume, 3, 33);
    let first = machine.prepare(&volume, &blocks);
    blocks.accept(&first).unwrap();
    volume.release(blocks.committed_seq());
    put(&volume, 3, 34);
    let second = machine.prepare(&volume, &blocks);
    let (gone, accepting) = (first.at.pack.manifest, blocks.clone());
    let packs = machine.packs.clone();
    *machine.packs.before_read.lock().unwrap() = Some(Box::new(move || {
        accepting.accept(&second).unwrap();
        packs.kept().remove(&gone);
    }));
    let read = blocks.read(3, 1).await.unwrap();
    assert_eq!(read[0], 34);
}
