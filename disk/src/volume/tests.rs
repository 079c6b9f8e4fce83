use std::path::Path;
use std::sync::Mutex;

use durable::power_cut::Machine;

use super::*;
use crate::journal::record::{BlockRange, RangeKind, record_bytes};

/// Operations of the long test, unless this variable asks for more.
const OPERATIONS: u64 = 20_000;
const OPERATIONS_VARIABLE: &str = "DISK_OPERATIONS";

/// Committed content in memory. Every third block has to be fetched.
#[derive(Default)]
struct MemoryBacking(Mutex<(u64, Vec<u8>)>);

impl MemoryBacking {
    fn new(size: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new((0, vec![0; size as usize]))))
    }

    fn commit(&self, volume: &Volume, bytes_max: u64) {
        let batch = volume.batch(bytes_max).unwrap();
        let mut kept = self.0.lock().unwrap();
        for piece in &batch.pieces {
            let at = piece.start as usize * BLOCK_BYTES;
            piece
                .read(&mut kept.1[at..at + piece.count as usize * BLOCK_BYTES])
                .unwrap();
        }
        kept.0 = batch.seq;
        drop(kept);
        let seq = batch.seq;
        drop(batch);
        volume.release(seq);
    }
}

impl Backing for MemoryBacking {
    fn size(&self) -> Option<u64> {
        None
    }

    fn committed_seq(&self) -> u64 {
        self.0.lock().unwrap().0
    }

    fn read_now(&self, start: u64, into: &mut [u8]) -> Result<bool, DeviceError> {
        if start.is_multiple_of(3) {
            return Ok(false);
        }
        let at = start as usize * BLOCK_BYTES;
        into.copy_from_slice(&self.0.lock().unwrap().1[at..at + into.len()]);
        Ok(true)
    }

    fn read(&self, start: u64, count: u64) -> BoxFuture<'_, Result<Vec<u8>, DeviceError>> {
        let at = start as usize * BLOCK_BYTES;
        let read = self.0.lock().unwrap().1[at..at + count as usize * BLOCK_BYTES].to_vec();
        Box::pin(async { Ok(read) })
    }

    fn extents(&self, start: u64, count: u64) -> Result<Vec<Extent>, DeviceError> {
        let kept = self.0.lock().unwrap();
        let blocks = kept
            .1
            .chunks_exact(BLOCK_BYTES)
            .skip(start as usize)
            .take(count as usize);
        let extents = blocks.map(|block| Extent {
            length: BLOCK,
            kind: match block.iter().all(|byte| *byte == 0) {
                true => ExtentKind::Zero,
                false => ExtentKind::Data,
            },
        });
        Ok(extents.collect())
    }

    fn prefetch(&self, _start: u64, _count: u64) {}
}

/// Always gives a byte less.
struct ShortBacking;

impl Backing for ShortBacking {
    fn size(&self) -> Option<u64> {
        None
    }

    fn committed_seq(&self) -> u64 {
        0
    }

    fn read_now(&self, _start: u64, _into: &mut [u8]) -> Result<bool, DeviceError> {
        Ok(false)
    }

    fn read(&self, _start: u64, count: u64) -> BoxFuture<'_, Result<Vec<u8>, DeviceError>> {
        Box::pin(async move { Ok(vec![7; count as usize * BLOCK_BYTES - 1]) })
    }

    fn extents(&self, _start: u64, count: u64) -> Result<Vec<Extent>, DeviceError> {
        let (length, kind) = (count * BLOCK, ExtentKind::Data);
        Ok(vec![Extent { length, kind }])
    }

    fn prefetch(&self, _start: u64, _count: u64) {}
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

    /// A range of bytes, half of them aligned.
    fn range(&mut self, size: u64, length_max: u64) -> (u64, u64) {
        let length = 1 + self.below(length_max.min(size));
        let offset = self.below(size - length + 1);
        match self.below(2) {
            0 => (offset, length),
            _ => (
                offset / BLOCK * BLOCK,
                length.next_multiple_of(BLOCK).min(size - offset / BLOCK * BLOCK),
            ),
        }
    }

    /// One to three changes, made to the model too. None is longer than `length_max` and a block.
    fn apply(&mut self, volume: &Volume, model: &mut [u8], length_max: u64) -> Result<(), DeviceError> {
        let size = model.len() as u64;
        let drawn: Vec<_> = (0..1 + self.below(3))
            .map(|_| {
                let (offset, length) = self.range(size, length_max);
                let mut data = vec![self.below(256) as u8; length as usize];
                let zeros = self.range(length, length);
                data[zeros.0 as usize..(zeros.0 + zeros.1) as usize].fill(0);
                (offset, length, self.below(4), data)
            })
            .collect();
        let changes: Vec<_> = drawn
            .iter()
            .map(|(offset, length, kind, data)| match kind {
                0 => Change::Zero {
                    offset: *offset,
                    length: *length,
                },
                1 => Change::Trim {
                    offset: *offset,
                    length: *length,
                },
                _ => Change::Write { offset: *offset, data },
            })
            .collect();
        volume.apply(&changes)?;
        for change in &changes {
            let (offset, length) = change.range();
            let part = &mut model[offset as usize..(offset + length) as usize];
            match change {
                Change::Write { data, .. } => part.copy_from_slice(data),
                _ => part.fill(0),
            }
        }
        Ok(())
    }
}

fn open(folder: &Path, size: u64, files: (u64, usize), backing: Arc<dyn Backing>) -> Result<Volume, DeviceError> {
    let options = VolumeOptions {
        journal: JournalOptions {
            folder: folder.to_owned(),
            file_bytes: files.0,
            file_count: files.1,
        },
        size,
        is_read_only: false,
        patience: Duration::from_millis(1),
    };
    Volume::open(options, JournalKey::new(&[1; 32], [2; 16]), backing)
}

fn read(volume: &Volume, offset: u64, length: usize) -> Vec<u8> {
    let mut now = vec![0; length];
    let read = futures::executor::block_on(volume.read(offset, length)).unwrap();
    if volume.read_now(offset, &mut now).unwrap() {
        assert_eq!(now, read);
    }
    read
}

/// Holes are zeros, and the extents are as long as the range.
fn assert_extents(volume: &Volume, model: &[u8], (offset, length): (u64, u64)) {
    let mut at = offset as usize;
    for extent in volume.extents(offset, length).unwrap() {
        let part = &model[at..at + extent.length as usize];
        assert!(
            extent.kind == ExtentKind::Data || part.iter().all(|byte| *byte == 0),
            "at {at}"
        );
        at += extent.length as usize;
    }
    assert_eq!(at as u64, offset + length);
}

#[test]
fn it_holds_what_a_model_in_memory_holds() {
    let asked = std::env::var(OPERATIONS_VARIABLE)
        .ok()
        .and_then(|count| count.parse().ok());
    let seed = asked.map_or(7, |_| std::process::id().into());
    println!("seed {seed}");
    let (mut draw, size, files) = (Draw(seed), 1 << 20, (256 << 10, 24));
    let root = tempfile::tempdir().unwrap();
    let backing = MemoryBacking::new(size);
    let mut volume = open(root.path(), size, files, backing.clone()).unwrap();
    let mut model = vec![0; size as usize];
    for operation in 0..asked.unwrap_or(OPERATIONS) {
        match draw.below(400) {
            0..=199 => {
                if volume.is_full(200 << 10) {
                    futures::executor::block_on(volume.flush()).unwrap();
                    backing.commit(&volume, u64::MAX);
                }
                let length_max = 1 << (8 + draw.below(8));
                draw.apply(&volume, &mut model, length_max)
                    .unwrap_or_else(|error| panic!("{operation}: {error}"));
            }
            200..=379 => {
                let (offset, length) = draw.range(size, 64 << 10);
                let expected = &model[offset as usize..(offset + length) as usize];
                assert!(
                    read(&volume, offset, length as usize) == expected,
                    "operation {operation}"
                );
            }
            380..=389 => assert_extents(&volume, &model, draw.range(size, size)),
            390..=396 => futures::executor::block_on(volume.flush()).unwrap(),
            397 | 398 => {
                futures::executor::block_on(volume.flush()).unwrap();
                backing.commit(&volume, draw.below(300) << 10);
            }
            _ => {
                if draw.below(2) == 0 {
                    futures::executor::block_on(volume.end()).unwrap();
                }
                drop(volume);
                volume = open(root.path(), size, files, backing.clone())
                    .unwrap_or_else(|error| panic!("operation {operation}: {error}"));
            }
        }
    }
    assert!(read(&volume, 0, size as usize) == model);
}

/// Changes until the power goes: the content after each record, from `versions` on, and how many of them were flushed.
fn work(seed: u64, folder: &Path, backing: &Arc<MemoryBacking>, versions: &mut Vec<Vec<u8>>, flushed: &mut usize) {
    let size = versions[0].len() as u64;
    let Ok(volume) = open(folder, size, (64 << 10, 12), backing.clone()) else {
        return;
    };
    let mut draw = Draw(seed);
    for _ in 0..10 {
        let mut model = versions.last().unwrap().clone();
        let mut expected = model.clone();
        // A failed write may be there after all.
        let is_done = draw.apply(&volume, &mut model, 9_000).is_ok();
        expected.clone_from(&model);
        versions.push(expected);
        if !is_done {
            return;
        }
        if draw.below(3) == 0 {
            if futures::executor::block_on(volume.flush()).is_err() {
                return;
            }
            *flushed = versions.len() - 1;
            if draw.below(2) == 0 {
                backing.commit(&volume, draw.below(8) * BLOCK);
            }
        }
    }
}

#[test]
fn after_a_power_cut_what_was_flushed_is_there_and_the_rest_is_a_prefix() {
    let root = tempfile::tempdir().unwrap();
    let (size, mut tried) = (16 * BLOCK, 0);
    for seed in 0..12 {
        for cut in 0.. {
            durable::power_cut::Image::default().lay(root.path());
            let backing = MemoryBacking::new(size);
            let (mut versions, mut flushed) = (vec![vec![0; size as usize]], 0);
            let machine = Machine::start(root.path());
            if cut % 5 == 4 {
                machine.fail_sync_of(".journal");
            }
            machine.cut_after(Some(cut));
            work(seed, root.path(), &backing, &mut versions, &mut flushed);
            let is_over = machine.steps().len() < cut;
            let images = machine.outcomes();
            drop(machine);
            for image in images {
                image.lay(root.path());
                let volume = open(root.path(), size, (64 << 10, 12), backing.clone())
                    .unwrap_or_else(|error| panic!("seed {seed} cut {cut}: {error}: {image:?}"));
                let found = read(&volume, 0, size as usize);
                assert!(versions[flushed..].contains(&found), "seed {seed} cut {cut}: {image:?}");
                tried += 1;
            }
            if is_over {
                break;
            }
        }
    }
    assert!(tried > 500, "{tried}");
}

#[test]
fn a_full_journal_makes_writers_wait_and_fails_them_only_without_progress() {
    let root = tempfile::tempdir().unwrap();
    let backing = MemoryBacking::new(1 << 20);
    let volume = open(root.path(), 1 << 20, (64 << 10, 4), backing.clone()).unwrap();
    let clock = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    clock.block_on(volume.ready(8 << 10)).unwrap();
    while !volume.is_full(8 << 10) {
        volume
            .apply(&[Change::Write {
                offset: 0,
                data: &[3; 8 << 10],
            }])
            .unwrap();
    }
    assert!(matches!(
        clock.block_on(volume.ready(8 << 10)),
        Err(DeviceError::NoSpace)
    ));
    clock.block_on(volume.flush()).unwrap();
    backing.commit(&volume, u64::MAX);
    clock.block_on(volume.ready(8 << 10)).unwrap();
    assert_eq!(read(&volume, 100, 10), [3; 10]);
}

/// A short answer of an object store became a truncated manifest elsewhere.
#[test]
fn a_short_answer_fails_what_asked_for_it_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let volume = open(folder.path(), 8 * BLOCK, (1 << 20, 4), Arc::new(ShortBacking)).unwrap();
    let is_damaged = |error: DeviceError| matches!(error, DeviceError::Damaged(_));
    assert!(is_damaged(futures::executor::block_on(volume.read(0, 5)).unwrap_err()));
    let part = Change::Write { offset: 1, data: &[1] };
    assert!(is_damaged(volume.apply(&[part]).unwrap_err()));
    let whole = [2; BLOCK_BYTES];
    volume
        .apply(&[Change::Write {
            offset: 0,
            data: &whole,
        }])
        .unwrap();
    assert_eq!(read(&volume, 0, BLOCK_BYTES), whole);
}

#[test]
fn zeros_cost_no_payload_and_trims_of_what_is_zero_cost_nothing() {
    let root = tempfile::tempdir().unwrap();
    let volume = open(root.path(), 1 << 40, (64 << 10, 4), Arc::new(crate::backing::NoBacking)).unwrap();
    volume
        .apply(&[Change::Trim {
            offset: 0,
            length: 1 << 40,
        }])
        .unwrap();
    assert_eq!(volume.shared.lock().journal.last_seq(), 0);
    volume.apply(&[Change::Write { offset: 5, data: &[1] }]).unwrap();
    let (before, _) = volume.shared.lock().journal.usage();
    volume
        .apply(&[Change::Zero {
            offset: 0,
            length: 1 << 40,
        }])
        .unwrap();
    let (after, _) = volume.shared.lock().journal.usage();
    assert_eq!(after - before, 512);
    assert_eq!(read(&volume, 0, 10), [0; 10]);
    let outside = volume.apply(&[Change::Zero {
        offset: 1,
        length: 1 << 40,
    }]);
    assert!(matches!(outside, Err(DeviceError::OutOfRange)));
}

/// Whoever commits a part of the journal commits what a power cut could have left: a block that was changed again later is as it was.
#[test]
fn every_batch_is_what_the_volume_held_after_a_record() {
    let (size, mut cut) = (16 * BLOCK, 0);
    for seed in 0..8 {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::start(root.path());
        let (mut draw, backing) = (Draw(seed), MemoryBacking::new(size));
        let mut volume = open(root.path(), size, (64 << 10, 64), backing.clone()).unwrap();
        let mut model = vec![0; size as usize];
        let mut versions = vec![model.clone()];
        for _ in 0..300 {
            match draw.below(20) {
                0..=11 => {
                    draw.apply(&volume, &mut model, 9_000).unwrap();
                    versions.resize(volume.last_seq() as usize + 1, model.clone());
                }
                12 | 13 => {
                    if draw.below(8) == 0 {
                        machine.fail_sync_of(".journal");
                    }
                    futures::executor::block_on(volume.flush()).unwrap();
                }
                14 => {
                    drop(volume);
                    volume = open(root.path(), size, (64 << 10, 64), backing.clone()).unwrap();
                }
                _ => {
                    let bytes_max = draw.below(20) * BLOCK;
                    let committed = backing.committed_seq();
                    let batch = volume.batch(bytes_max).unwrap();
                    assert!(batch.seq > committed || batch.seq == volume.last_seq());
                    let mut content = backing.0.lock().unwrap().1.clone();
                    let mut bytes = 0;
                    for piece in &batch.pieces {
                        let at = piece.start as usize * BLOCK_BYTES;
                        piece
                            .read(&mut content[at..at + piece.count as usize * BLOCK_BYTES])
                            .unwrap();
                        bytes += piece.place.as_ref().map_or(0, |_| piece.count * BLOCK);
                        assert!(piece.seq > committed && piece.seq <= batch.seq);
                    }
                    assert!(bytes <= bytes_max || batch.seq == committed + 1);
                    assert!(content == versions[batch.seq as usize], "seed {seed}: {}", batch.seq);
                    cut += u64::from(batch.seq < volume.last_seq());
                    drop(batch);
                    // Not everything that is begun is accepted.
                    if draw.below(3) > 0 {
                        backing.commit(&volume, bytes_max);
                    }
                }
            }
            if draw.below(10) == 0 {
                assert!(read(&volume, 0, size as usize) == model);
            }
        }
    }
    assert!(cut > 100, "{cut}");
}

#[test]
fn what_is_longer_than_a_file_goes_into_several_records() {
    let root = tempfile::tempdir().unwrap();
    let (size, files) = (1 << 20, (64 << 10, 64));
    let volume = open(root.path(), size, files, Arc::new(crate::backing::NoBacking)).unwrap();
    let mut draw = Draw(3);
    let mut data: Vec<u8> = (0..size).map(|_| draw.below(256) as u8).collect();
    data[300 << 10..400 << 10].fill(0);
    volume.apply(&[Change::Write { offset: 0, data: &data }]).unwrap();
    // Of 231 blocks, 15 fit in a file.
    assert_eq!(volume.last_seq(), 231_u64.div_ceil(15));
    assert!(read(&volume, 0, size as usize) == data);
    drop(volume);
    let volume = open(root.path(), size, files, Arc::new(crate::backing::NoBacking)).unwrap();
    assert!(read(&volume, 0, size as usize) == data);
}

#[test]
fn records_that_are_cut_hold_the_same_changes_in_the_same_order() {
    let mut draw = Draw(5);
    for _ in 0..500 {
        let mut changes = BlockChanges::default();
        let data: Vec<_> = (0..1 + draw.below(6))
            .map(|_| vec![draw.below(2) as u8; (draw.below(9) * BLOCK) as usize])
            .collect();
        for data in &data {
            let offset = draw.below(20) * BLOCK;
            changes
                .add(&Change::Write { offset, data }, &|_, _| unreachable!())
                .unwrap();
            let length = draw.below(3) * BLOCK;
            changes
                .add(&Change::Zero { offset, length }, &|_, _| unreachable!())
                .unwrap();
        }
        let bytes_max = (5_000 + draw.below(30_000)) / 512 * 512;
        let mut records = changes.records(bytes_max).into_iter();
        let alone = |ranges: &[BlockRange]| -> Vec<(u64, RangeKind)> {
            let blocks = |range: &BlockRange| {
                let kind = range.kind;
                (range.start..range.start + u64::from(range.count)).map(move |block| (block, kind))
            };
            ranges.iter().flat_map(blocks).collect()
        };
        let (mut ranges, mut blocks) = (Vec::new(), Vec::new());
        for (some, written) in &mut records {
            assert!(record_bytes(&some) <= bytes_max && some.iter().all(|range| range.count > 0));
            let counted = alone(&some)
                .iter()
                .filter(|(_, kind)| *kind == RangeKind::Write)
                .count();
            assert_eq!(counted, written.len());
            ranges.extend(alone(&some));
            blocks.extend_from_slice(written);
        }
        assert_eq!(ranges, alone(&changes.ranges));
        assert_eq!(blocks, changes.blocks);
    }
}

#[test]
fn writers_find_the_next_file_made() {
    let root = tempfile::tempdir().unwrap();
    let volume = open(root.path(), 1 << 20, (64 << 10, 8), Arc::new(crate::backing::NoBacking)).unwrap();
    let files = || {
        // As soon as nobody makes one, and nobody is about to.
        let waits = |core: &mut shared::Core| core.journal.wants_file() || core.journal.is_making();
        drop(volume.shared.lock_unless(waits));
        std::fs::read_dir(root.path()).unwrap().count()
    };
    assert_eq!(files(), 1);
    let data = vec![1; 40 << 10];
    for made in [2, 3, 4] {
        volume.apply(&[Change::Write { offset: 0, data: &data }]).unwrap();
        assert_eq!(files(), made);
    }
}

#[test]
fn blocks_of_zeros_within_a_long_write_cost_no_payload() {
    let root = tempfile::tempdir().unwrap();
    let volume = open(root.path(), 1 << 20, (2 << 20, 4), Arc::new(crate::backing::NoBacking)).unwrap();
    let mut data = vec![7; 1 << 20];
    volume.apply(&[Change::Write { offset: 0, data: &data }]).unwrap();
    let (before, _) = volume.shared.lock().journal.usage();
    data.fill(0);
    (data[20 << 10], data[(200 << 10) - 1]) = (1, 2);
    volume.apply(&[Change::Write { offset: 0, data: &data }]).unwrap();
    let (after, _) = volume.shared.lock().journal.usage();
    // Two blocks, and five ranges.
    assert_eq!(after - before, 8_704);
    assert!(read(&volume, 0, 1 << 20) == data);
}

/// Records are sealed side by side: one that is taken back, as what came before it goes to another file, is written all the same.
#[test]
fn what_many_threads_wrote_while_a_sync_failed_is_there_in_order() {
    let root = tempfile::tempdir().unwrap();
    let machine = Machine::start(root.path());
    let (size, files) = (64 * BLOCK, (256 << 10, 64));
    let volume = open(root.path(), size, files, Arc::new(crate::backing::NoBacking)).unwrap();
    let writing = |volume: &Volume, thread: u64| {
        for round in 1..40 {
            let data = vec![round; (1 + (thread % 4) as usize) * BLOCK_BYTES];
            let offset = thread * 8 * BLOCK;
            volume.apply(&[Change::Write { offset, data: &data }]).unwrap();
            if round % 10 == 3 {
                futures::executor::block_on(volume.flush()).unwrap();
            }
        }
    };
    machine.fail_sync_of("000000.journal");
    std::thread::scope(|scope| {
        (0..8).for_each(|thread| {
            let volume = &volume;
            scope.spawn(move || writing(volume, thread));
        });
    });
    let whole = read(&volume, 0, size as usize);
    for (block, bytes) in whole.chunks_exact(BLOCK_BYTES).enumerate() {
        let is_written = block % 8 <= (block / 8) % 4;
        assert!(
            bytes.iter().all(|byte| *byte == if is_written { 39 } else { 0 }),
            "block {block}"
        );
    }
    assert_eq!(volume.shared.lock().journal.last_seq(), 8 * 39);
    drop(volume);
    let volume = open(root.path(), size, files, Arc::new(crate::backing::NoBacking)).unwrap();
    assert!(read(&volume, 0, size as usize) == whole);
}

#[test]
fn changes_of_one_block_from_many_threads_undo_none_of_each_other() {
    let root = tempfile::tempdir().unwrap();
    let volume = open(root.path(), 1 << 20, (1 << 20, 8), Arc::new(crate::backing::NoBacking)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let volume = &volume;
            scope.spawn(move || {
                for at in 0..100 {
                    let offset = at * 4 + thread;
                    volume
                        .apply(&[Change::Write {
                            offset,
                            data: &[thread as u8 + 1],
                        }])
                        .unwrap();
                }
            });
        }
    });
    let read = read(&volume, 0, 400);
    assert!(read.iter().zip(0..).all(|(byte, at)| u64::from(*byte) == at % 4 + 1));
}
