use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Mutex;

use super::*;

mod cuts;
mod damage;
mod golden;

/// Updates of the long test, unless this variable asks for more.
const UPDATES: u64 = 30_000;
const UPDATES_VARIABLE: &str = "DISK_OPERATIONS";

const VOLUME: [u8; 16] = [0x5a; 16];
const REGION: u64 = REGION_BLOCKS as u64;

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

    fn place(&mut self) -> Place {
        Place::new(self.below(6) as u32 * 700, self.below(50) as u32, self.below(16) as u8).unwrap()
    }

    /// A range near the places where something may go wrong.
    fn range(&mut self) -> (u64, u64) {
        let region = [0, 1, 2, 3, 1 << 34][self.below(5) as usize];
        let near = match self.below(3) {
            0 => 0,
            1 => REGION - 20,
            _ => 5_000,
        };
        let start = region * REGION + near + self.below(40);
        match self.below(60) {
            0 => (start, REGION * 2),
            1 => (start - start % REGION, REGION),
            _ => (start, 1 + self.below(30)),
        }
    }

    fn update(&mut self, model: &Model) -> Update {
        let (start, count) = self.range();
        match self.below(8) {
            0 | 1 => Update::Trim { start, count },
            2 => {
                let place = self.place();
                let from = model.blocks.get(&start).copied().unwrap_or_else(|| self.place());
                let count = count.min(40);
                let to = Run { start, count, place };
                Update::Move { to, from }
            }
            _ => {
                // Long runs would make the model slow.
                let (count, place) = (count.min(40), self.place());
                Update::Map(Run { start, count, place })
            }
        }
    }

    fn updates(&mut self, model: &Model, count: u64) -> Vec<Update> {
        (0..count).map(|_| self.update(model)).collect()
    }
}

/// What a map should say, block by block.
#[derive(Clone, Default)]
struct Model {
    blocks: BTreeMap<u64, Place>,
    history: Vec<Vec<Update>>,
}

impl Model {
    fn last(&self) -> u64 {
        self.history.len() as u64
    }

    fn put(&mut self, run: &Run, at: impl Fn(u64) -> bool) {
        for block in (run.start..run.end()).filter(|block| at(*block)) {
            self.blocks.insert(block, run.place.after((block - run.start) as u32));
        }
    }

    fn apply(&mut self, updates: Vec<Update>) {
        let before = self.blocks.clone();
        for update in &updates {
            if let Update::Move { to, from } = update {
                let lay = |block: u64| before.get(&block) == Some(&from.after((block - to.start) as u32));
                self.put(to, lay);
            }
        }
        for update in &updates {
            match update {
                Update::Map(run) => self.put(run, |_| true),
                Update::Trim { start, count } => {
                    let gone = *start..start + count;
                    self.blocks.retain(|block, _| !gone.contains(block));
                }
                Update::Move { .. } => {}
            }
        }
        self.history.push(updates);
    }

    /// Applies what the map does not have in leaves for certain, as an opening has to.
    fn replay(&self, map: &mut CommittedMap) {
        for commit in map.floor() + 1..=self.last() {
            map.apply(commit, &self.history[commit as usize - 1]).unwrap();
        }
    }

    fn live(&self) -> Vec<(u32, u32)> {
        let mut live = BTreeMap::new();
        self.blocks
            .values()
            .for_each(|place| *live.entry(place.pack).or_default() += 1);
        live.into_iter().collect()
    }

    fn assert_is(&self, map: &mut CommittedMap, start: u64, count: u64) {
        let found = map.find(start, count).unwrap();
        let mut last_end = start;
        let mut blocks = BTreeMap::new();
        for run in &found {
            assert!(
                run.start >= last_end && run.count > 0 && run.end() <= start + count,
                "{found:?}"
            );
            last_end = run.end();
            for block in 0..run.count {
                blocks.insert(run.start + block, run.place.after(block as u32));
            }
        }
        let expected: BTreeMap<u64, Place> = self
            .blocks
            .range(start..start + count)
            .map(|(block, place)| (*block, *place))
            .collect();
        assert!(blocks == expected, "from {start}: {blocks:?} is not {expected:?}");
    }

    fn assert_is_all(&self, map: &mut CommittedMap) {
        self.assert_is(map, 0, VOLUME_BLOCKS_MAX);
        assert_eq!(map.live_exactly().unwrap(), self.live());
        let live: HashMap<u32, u32> = map.live().into_iter().collect();
        for (pack, blocks) in self.live() {
            assert!(
                live.get(&pack).is_some_and(|most| *most >= blocks),
                "pack {pack}: {blocks}"
            );
        }
        assert!(map.recount().unwrap(), "the counts of leaves are exact");
    }
}

/// Leaves in memory, as packs would have them.
#[derive(Default)]
struct MemorySource {
    leaves: Mutex<HashMap<u64, Vec<u8>>>,
    is_away: std::sync::atomic::AtomicBool,
    fetches: std::sync::atomic::AtomicUsize,
}

impl MemorySource {
    fn take_in(&self, map: &mut CommittedMap, regions: &[u64]) {
        for region in regions {
            let mut leaves = self.leaves.lock().unwrap();
            match map.leaf_bytes(*region).unwrap() {
                Some(bytes) => drop(leaves.insert(*region, bytes)),
                None => drop(leaves.remove(region)),
            }
        }
    }

    fn stored(&self, map: &CommittedMap) -> Stored {
        let leaves = self.leaves.lock().unwrap();
        let leaves = leaves.iter().map(|(region, bytes)| {
            let id = LeafId {
                volume: VOLUME,
                region: *region,
            };
            (*region, Leaf::read(bytes.clone(), &id).unwrap().commit())
        });
        Stored {
            floor: map.floor(),
            leaves: leaves.collect(),
            live: map.live_in_leaves(),
        }
    }
}

impl LeafSource for MemorySource {
    fn fetch(&self, region: u64) -> Result<Option<Vec<u8>>, DeviceError> {
        use std::sync::atomic::Ordering::SeqCst;
        self.fetches.fetch_add(1, SeqCst);
        match self.is_away.load(SeqCst) {
            true => Err(DeviceError::Unavailable("Friends are away".to_owned())),
            false => Ok(self.leaves.lock().unwrap().get(&region).cloned()),
        }
    }
}

/// So small that both bounds are felt.
fn options(folder: &Path) -> MapOptions {
    MapOptions {
        folder: folder.to_owned(),
        volume: VOLUME,
        overlay_bytes: 12_000,
        cache_bytes: 4_000,
    }
}

fn open(folder: &Path) -> CommittedMap {
    CommittedMap::open(options(folder), Arc::new(NoSource)).unwrap()
}

fn map_at(start: u64, count: u64, pack: u32) -> Update {
    let place = Place::new(pack, 0, 0).unwrap();
    Update::Map(Run { start, count, place })
}

#[test]
fn it_says_what_a_model_says_over_updates_trims_moves_writes_and_openings() {
    let updates = std::env::var(UPDATES_VARIABLE).map_or(UPDATES, |text| text.parse().unwrap());
    let root = tempfile::tempdir().unwrap();
    let (mut draw, mut model) = (Draw(1), Model::default());
    let source = Arc::new(MemorySource::default());
    let mut map = CommittedMap::open(options(root.path()), source.clone()).unwrap();
    let (mut done, mut begun, mut shared) = (0, 0, BTreeSet::new());
    while done < updates {
        let many = 1 + draw.below(20);
        let changes = draw.updates(&model, many);
        map.apply(model.last() + 1, &changes).unwrap();
        model.apply(changes);
        done += many;
        assert!(map.usage().overlay_bytes < 12_000 + 40 * 2 * overlay::PIECE_BYTES + 20 * overlay::REGION_BYTES);
        assert!(map.usage().cache_bytes <= 4_000);
        match draw.below(60) {
            0..4 => {
                let bytes = draw.below(4_000) as usize;
                shared.extend(map.write_back(bytes).unwrap().regions);
            }
            4 => {
                drop(map);
                map = CommittedMap::open(options(root.path()), source.clone()).unwrap();
                model.replay(&mut map);
                model.assert_is_all(&mut map);
            }
            5 if draw.below(4) == 0 => {
                // The disk is lost: what is committed has all leaves, as of now.
                let all: Vec<u64> = map.table.leaves.keys().copied().chain(shared.clone()).collect();
                source.take_in(&mut map, &all);
                let stored = source.stored(&map);
                map = CommittedMap::begin(options(root.path()), source.clone(), &stored).unwrap();
                model.replay(&mut map);
                model.assert_is_all(&mut map);
                begun += 1;
            }
            _ => {
                let (start, count) = draw.range();
                model.assert_is(&mut map, start, count);
            }
        }
    }
    while map.floor() < map.last() {
        map.write_back(1).unwrap();
    }
    assert!(begun > 1);
    assert_eq!(map.usage().overlay_bytes, 0);
    assert_eq!(map.live(), model.live(), "nothing in memory: the counts are exact");
    model.assert_is_all(&mut map);
}

#[test]
fn a_long_write_is_one_run_over_slots_and_regions() {
    let root = tempfile::tempdir().unwrap();
    let mut map = open(root.path());
    let (start, count, place) = (REGION - 1_000, 4_000, Place::new(7, 3, 0).unwrap());
    // As a batch would say it, slot by slot.
    let slots = (0..count / 16).map(|slot| {
        let place = Place::new(7, 3 + slot as u32, 0).unwrap();
        let (start, count) = (start + slot * 16, 16);
        Update::Map(Run { start, count, place })
    });
    map.apply(1, &slots.collect::<Vec<_>>()).unwrap();
    for _ in 0..2 {
        assert_eq!(map.find(0, 1 << 40).unwrap(), [Run { start, count, place }]);
        map.write_back(usize::MAX).unwrap();
    }
    let leaf = map.leaf_bytes(0).unwrap().unwrap();
    assert_eq!(leaf.len(), 56 + 12 + 16, "one run");
    let found = map.find(start + 17, 1).unwrap()[0].place;
    assert_eq!((found.pack, found.slot(), found.block()), (7, 4, 1));
}

#[test]
fn trims_and_lookups_of_what_is_empty_make_nothing() {
    let root = tempfile::tempdir().unwrap();
    let mut map = open(root.path());
    let (start, count) = (0, VOLUME_BLOCKS_MAX);
    map.apply(1, &[Update::Trim { start, count }]).unwrap();
    assert_eq!(map.find(start, count).unwrap(), []);
    let (overlay_bytes, cache_bytes, leaves) = (0, 0, 0);
    let nothing = Usage {
        overlay_bytes,
        cache_bytes,
        leaves,
    };
    assert_eq!(map.usage(), nothing);
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    // A region that becomes empty has no file.
    map.apply(2, &[map_at(REGION * 9, 3, 1)]).unwrap();
    map.write_back(usize::MAX).unwrap();
    assert_eq!(map.usage().leaves, 1);
    map.apply(3, &[Update::Trim { start, count }]).unwrap();
    let regions = vec![9];
    assert_eq!(map.write_back(usize::MAX).unwrap(), WrittenBack { regions, bytes: 0 });
    assert_eq!(map.usage(), nothing);
    let leaves = std::fs::read_dir(root.path()).unwrap().flatten();
    assert_eq!(
        { leaves }
            .filter(|file| file.path().extension().unwrap() == "leaf")
            .count(),
        0
    );
    assert_eq!(
        (map.live(), map.floor(), open(root.path()).usage()),
        (vec![], 3, nothing)
    );
}

#[test]
fn the_oldest_changes_are_written_first_and_the_floor_follows() {
    let root = tempfile::tempdir().unwrap();
    let mut map = open(root.path());
    for (commit, region) in [(1, 5), (2, 3), (3, 5), (4, 8)] {
        map.apply(commit, &[map_at(region * REGION + commit, 1, commit as u32)])
            .unwrap();
    }
    assert_eq!(map.floor(), 0);
    for (region, floor) in [(5, 1), (3, 3), (8, 4)] {
        assert_eq!(map.write_back(1).unwrap().regions, [region]);
        assert_eq!((map.floor(), open(root.path()).floor()), (floor, floor));
    }
    assert_eq!(map.write_back(usize::MAX).unwrap(), WrittenBack::default());
    // Commits that change nothing move it too.
    map.apply(9, &[]).unwrap();
    map.write_back(usize::MAX).unwrap();
    assert_eq!(open(root.path()).floor(), 9);
}

/// What is applied again after an opening costs nothing where the leaf has it.
#[test]
fn a_region_leaves_out_the_commits_that_its_leaf_has() {
    let root = tempfile::tempdir().unwrap();
    let (mut map, mut model) = (open(root.path()), Model::default());
    for (commit, region) in [(1, 5), (2, 3), (3, 5)] {
        let updates = vec![map_at(region * REGION + commit, 1, commit as u32)];
        map.apply(commit, &updates).unwrap();
        model.apply(updates);
    }
    assert_eq!(map.write_back(1).unwrap().regions, [5]);
    drop(map);
    let mut map = open(root.path());
    assert_eq!(map.floor(), 1);
    model.replay(&mut map);
    model.assert_is_all(&mut map);
    assert_eq!(map.write_back(usize::MAX).unwrap().regions, [3]);
    model.assert_is_all(&mut map);
}

#[test]
fn moves_apply_to_what_still_lies_there() {
    let root = tempfile::tempdir().unwrap();
    let mut map = open(root.path());
    let place = |pack, slot| Place::new(pack, slot, 0).unwrap();
    map.apply(1, &[map_at(100, 48, 1)]).unwrap();
    map.write_back(usize::MAX).unwrap();
    map.apply(2, &[map_at(110, 2, 2)]).unwrap();
    let to = Run {
        start: 100,
        count: 48,
        place: place(9, 5),
    };
    let from = place(1, 0);
    let (start, count) = (140, 8);
    map.apply(3, &[Update::Trim { start, count }, Update::Move { to, from }])
        .unwrap();
    let found: Vec<_> = map.find(0, 1_000).unwrap();
    let found: Vec<_> = found.iter().map(|run| (run.start, run.count, run.place.pack)).collect();
    assert_eq!(found, [(100, 10, 9), (110, 2, 2), (112, 28, 9)]);
    assert_eq!(map.live_exactly().unwrap(), [(2, 2), (9, 38)]);
    assert_eq!(map.live(), [(1, 48), (2, 2), (9, 38)], "the leaf has pack 1 yet");
}

#[test]
fn what_no_volume_has_is_refused_and_nothing_of_its_commit_is_taken() {
    let root = tempfile::tempdir().unwrap();
    let mut map = open(root.path());
    let place = Place::new(1, SLOTS_MAX - 1, 15).unwrap();
    assert!(Place::new(u32::MAX, 0, 0).is_none() && Place::new(0, SLOTS_MAX, 0).is_none());
    assert!(Place::new(0, 0, 16).is_none());
    let run = |start, count| Update::Map(Run { start, count, place });
    let count = u64::MAX;
    for bad in [
        run(0, 0),
        run(0, 2),
        run(VOLUME_BLOCKS_MAX, 1),
        Update::Trim { start: 1, count },
    ] {
        let applied = map.apply(1, &[map_at(5, 5, 5), bad]);
        assert!(matches!(applied, Err(MapError::Impossible { .. })), "{bad:?}");
        assert_eq!(map.find(0, VOLUME_BLOCKS_MAX).unwrap(), []);
    }
    map.apply(7, &[run(VOLUME_BLOCKS_MAX - 1, 1)]).unwrap();
    assert_eq!(map.find(0, u64::MAX).unwrap().len(), 1);
    assert_eq!(map.find(3, 0).unwrap().len(), 0);
    let applied = map.apply(7, &[]);
    assert!(matches!(applied, Err(MapError::OutOfOrder { commit: 7, last: 7 })));
}

#[test]
fn a_fragmented_region_is_dense_and_never_over_its_bound() {
    let root = tempfile::tempdir().unwrap();
    let wide = MapOptions::new(root.path().to_owned(), VOLUME);
    let mut map = CommittedMap::open(wide.clone(), Arc::new(NoSource)).unwrap();
    let (mut draw, mut model) = (Draw(3), Model::default());
    let mut lengths = Vec::new();
    // Of the blocks so many of eight are mapped, each alone.
    for share in [3, 6, 8] {
        let all = (0..REGION).filter(|block| block % 8 < share);
        let updates = all.map(|start| {
            let (count, place) = (
                1,
                Place::new(draw.below(1 << 20) as u32, draw.below(1 << 20) as u32, 3).unwrap(),
            );
            Update::Map(Run { start, count, place })
        });
        let updates: Vec<_> = updates.collect();
        map.apply(model.last() + 1, &updates).unwrap();
        model.apply(updates);
        map.write_back(usize::MAX).unwrap();
        lengths.push(map.leaf_bytes(0).unwrap().unwrap().len());
        drop(map);
        map = CommittedMap::open(wide.clone(), Arc::new(NoSource)).unwrap();
        model.assert_is_all(&mut map);
        for _ in 0..1_000 {
            model.assert_is(&mut map, draw.below(REGION), 1 + draw.below(20));
        }
    }
    assert_eq!(lengths, [72 + 3 * 8_192 * 12, LEAF_BYTES_MAX, LEAF_BYTES_MAX]);
    assert_eq!(LEAF_BYTES_MAX, 524_360, "docs/format/disk-map.md §2");
}

#[test]
fn the_table_is_written_as_one_file_before_its_changes_are_many() {
    let root = tempfile::tempdir().unwrap();
    let mut map = open(root.path());
    let (mut files_most, mut model) = (0, Model::default());
    for commit in 1..700 {
        let updates = vec![map_at(commit % 7 * REGION + commit, 3, commit as u32)];
        map.apply(commit, &updates).unwrap();
        model.apply(updates);
        map.write_back(1).unwrap();
        files_most = files_most.max(std::fs::read_dir(root.path()).unwrap().count());
    }
    assert!(files_most < 256 + 7 + 3, "{files_most}");
    drop(map);
    let mut map = open(root.path());
    assert!(map.floor() > 690);
    model.replay(&mut map);
    model.assert_is_all(&mut map);
}
