//! All that a volume does, in drawn order, against a model: whatever happens, the head and every snapshot read back exactly, and packs
//! that are given up are really gone.

use std::collections::BTreeMap;

use super::super::edits::Edit;
use super::states::walk;
use super::*;

type Blocks = BTreeMap<u64, u32>;

/// What a disk should be.
#[derive(Clone, Default)]
struct State {
    blocks: Blocks,
    snapshots: BTreeMap<String, Blocks>,
}

/// What peers do with a root.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Takes,
    Refuses,
    /// It is taken, and nobody hears of it.
    IsLost,
}

struct World {
    dir: tempfile::TempDir,
    grid: Grid,
    running: Option<Running>,
    folders: u32,
    seed: u64,
    /// As it reads now.
    now: State,
    accepted: State,
    /// What is offered.
    offered: Option<State>,
    fills: u32,
    given_up: usize,
}

fn content(fill: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    if fill != 0 {
        blake3::Hasher::new()
            .update(&fill.to_le_bytes())
            .finalize_xof()
            .fill(&mut bytes);
    }
    bytes
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            dir: tempfile::tempdir().unwrap(),
            grid: Grid::new(),
            running: None,
            folders: 0,
            seed,
            now: State::default(),
            accepted: State::default(),
            offered: None,
            fills: 0,
            given_up: 0,
        };
        world.open();
        world
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join(self.folders.to_string())
    }

    fn open(&mut self) {
        self.running = Some(self.grid.open(&self.folder()).unwrap());
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Blocks of two regions, a hot part and a cold one.
    fn block(&mut self) -> u64 {
        let is_hot = self.draw(4) > 0;
        let within = self.draw(if is_hot { 60 } else { 700 });
        within + self.draw(2) * 66_000
    }

    fn write(&mut self) {
        for _ in 0..1 + self.draw(150) {
            let (block, count) = (self.block(), 1 + self.draw(8));
            if self.draw(10) == 0 {
                let change = Change::Trim {
                    offset: block * 4096,
                    length: count * 4096,
                };
                self.running().device().apply(&[change]).unwrap();
                (block..block + count).for_each(|block| {
                    self.now.blocks.remove(&block);
                });
                continue;
            }
            let fills = self.fills + 1..;
            self.fills += count as u32;
            let written: Vec<(u64, u32)> = (block..block + count).zip(fills).collect();
            let data: Vec<u8> = written.iter().flat_map(|(_, fill)| content(*fill)).collect();
            let change = Change::Write {
                offset: block * 4096,
                data: &data,
            };
            self.running().device().apply(&[change]).unwrap();
            self.now.blocks.extend(written);
        }
    }

    fn answer(&mut self) -> Answer {
        match self.draw(8) {
            0 => Answer::Refuses,
            1 => Answer::IsLost,
            _ => Answer::Takes,
        }
    }

    fn commit(&mut self, answer: Answer, settle_blocks: u64) -> bool {
        let was_offered = self.offered.take();
        let state = was_offered.clone().unwrap_or_else(|| self.now.clone());
        let mut is_offered = false;
        let mut accept = |prepared: &Prepared| {
            is_offered = true;
            if answer != Answer::Refuses {
                *self.grid.head.lock().unwrap() = (prepared.committed.root.commit, prepared.at.clone());
            }
            match answer {
                Answer::Takes => Ok(()),
                _ => Err(DeviceError::Unavailable("nobody answers".to_owned())),
            }
        };
        let running = self.running.as_ref().unwrap();
        let done = running.settle(settle_blocks, 6, &mut self.grid.packs.clone(), &mut accept);
        if answer != Answer::Refuses && is_offered {
            self.accepted = state.clone();
        }
        match done {
            Ok(_) => self.offered = None,
            Err(_) if is_offered => self.offered = Some(state),
            Err(error) => panic!("{error}"),
        }
        done.unwrap_or(false)
    }

    /// An edit, which peers may refuse at first.
    fn edit(&mut self, edit: &Edit, after: &dyn Fn(&mut State, u64)) {
        while self.offered.is_some() {
            self.commit(Answer::Takes, 0);
        }
        let mut state = self.now.clone();
        let is_refused = self.draw(4) == 0;
        let mut before = 0;
        let mut accept = |prepared: &Prepared| {
            let root = &prepared.committed.root;
            before = root.commit - 1;
            if is_refused && names(root) != names(&self.running().root()) {
                return Err(DeviceError::Unavailable("nobody takes it".to_owned()));
            }
            *self.grid.head.lock().unwrap() = (root.commit, prepared.at.clone());
            Ok(())
        };
        let running = self.running.as_ref().unwrap();
        let done = running.edit(edit, 7, &mut self.grid.packs.clone(), &mut accept);
        assert_eq!(done.is_err(), is_refused, "{done:?}");
        after(&mut state, before);
        if is_refused {
            self.accepted = self.now.clone();
            if self.draw(2) == 0 {
                self.reopen(false);
            }
            self.offered = Some(state.clone());
            assert!(self.commit(Answer::Takes, 0));
        }
        self.now = state.clone();
        self.accepted = state;
    }

    fn drawn_snapshot(&mut self) -> Option<String> {
        let names: Vec<String> = self.now.snapshots.keys().cloned().collect();
        let at = self.draw(names.len().max(1) as u64) as usize;
        names.get(at).cloned()
    }

    fn drawn_edit(&mut self) {
        let name = self.drawn_snapshot();
        match (self.draw(5), name) {
            (0 | 1, _) if self.now.snapshots.len() < 6 => {
                let name = format!("snapshot {}", self.fills);
                if !self.now.snapshots.contains_key(&name) {
                    self.edit(&Edit::Snapshot(name.clone()), &|state, _| {
                        state.snapshots.insert(name.clone(), state.blocks.clone());
                    });
                }
            }
            (2 | 3, Some(name)) => self.edit(&Edit::DeleteSnapshot(name.clone()), &|state, _| {
                state.snapshots.remove(&name);
            }),
            (4, Some(name)) => self.edit(&Edit::Rollback(name.clone()), &|state, before| {
                let kept = state.blocks.clone();
                state.blocks = state.snapshots[&name].clone();
                state.snapshots.insert(format!("before-rollback-{before}"), kept);
            }),
            _ => {}
        }
    }

    /// The process ends; the folder may be lost with it.
    fn reopen(&mut self, is_lost: bool) {
        self.running = None;
        if is_lost {
            self.folders += 1;
            self.now = self.accepted.clone();
            self.offered = None;
        } else if self.draw(3) == 0 {
            let files = walk(&self.folder());
            let leaves: Vec<PathBuf> = files
                .into_iter()
                .filter(|path| std::fs::read(path).unwrap().starts_with(b"GBLEAF"))
                .collect();
            let at = self.draw(leaves.len().max(1) as u64) as usize;
            if let Some(path) = leaves.get(at) {
                let mut bytes = std::fs::read(path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(path, bytes).unwrap();
            }
        }
        self.open();
        if self.running().root().commit == self.grid.head.lock().unwrap().0 && !is_lost {
            let is_taken = self.running().lock().writer.offered.is_none();
            if is_taken {
                self.offered = None;
            }
        }
    }

    /// Gives up what nobody needs; it may be forgotten to be said that this is recorded.
    fn give_up(&mut self) {
        let packs = match self.draw(3) {
            0 => self.running().orphans().unwrap(),
            _ => self.running().take_given_up().unwrap(),
        };
        for pack in &packs {
            let is_removed = self.grid.packs.kept().remove(&pack.record.manifest).is_some();
            self.given_up += usize::from(is_removed);
        }
        if self.draw(4) > 0 {
            let numbers: Vec<PackNumber> = packs.iter().map(|pack| pack.number).collect();
            self.running().confirm_given_up(&numbers).unwrap();
        }
    }

    fn step(&mut self) {
        match self.draw(20) {
            0..8 => self.write(),
            8..12 => {
                let answer = self.answer();
                self.commit(answer, 0);
            }
            12..14 => {
                let answer = self.answer();
                self.commit(answer, 600);
            }
            14..16 => self.drawn_edit(),
            16 => self.reopen(false),
            17 if self.draw(3) == 0 => self.reopen(true),
            _ => self.give_up(),
        }
    }

    fn check(&self, step: u64) {
        let running = self.running();
        check(&running.device(), &self.now.blocks, &format!("step {step}: the head"));
        let names: Vec<String> = running
            .root()
            .snapshots
            .iter()
            .map(|entry| entry.name.clone())
            .collect();
        for name in names {
            let blocks = self.now.snapshots.get(&name).or(self.accepted.snapshots.get(&name));
            let device = running.open_snapshot(&name).unwrap();
            let blocks =
                blocks.unwrap_or_else(|| panic!("step {step}: {name}, and not {:?}", self.now.snapshots.keys()));
            check(&device, blocks, &format!("step {step}: {name}"));
        }
    }

    /// Another machine has nothing but packs and the head.
    fn check_elsewhere(&self, step: u64) {
        let folder = tempfile::tempdir().unwrap();
        let running = self.grid.open(folder.path()).unwrap();
        check(
            &running.device(),
            &self.accepted.blocks,
            &format!("step {step}: elsewhere"),
        );
        for (name, blocks) in &self.accepted.snapshots {
            let device = running.open_snapshot(name).unwrap();
            check(&device, blocks, &format!("step {step}: {name} elsewhere"));
        }
    }
}

fn names(root: &Root) -> Vec<String> {
    root.snapshots.iter().map(|entry| entry.name.clone()).collect()
}

fn check(device: &Arc<dyn Device>, blocks: &Blocks, what: &str) {
    for start in [0, 66_000] {
        let read = futures::executor::block_on(device.read(start * 4096, 710 * 4096));
        let read = read.unwrap_or_else(|error| panic!("{what}: {error}"));
        for (block, bytes) in (start..).zip(read.chunks_exact(4096)) {
            let fill = blocks.get(&block).copied().unwrap_or(0);
            assert!(bytes == content(fill), "{what}: block {block} is not {fill}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_and_snapshots_read_back_whatever_happens() {
    let (mut given_up, mut moved) = (0, 0);
    for seed in 0..5 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for step in 0..120 {
            world.step();
            if step % 5 == 0 {
                world.check(step);
            }
            if step % 24 == 23 {
                world.check_elsewhere(step);
            }
        }
        given_up += world.given_up;
        moved += world.running().stats().moved_bytes;
    }
    assert!(
        given_up > 80 && moved > 0,
        "{given_up} packs given up, {moved} bytes moved"
    );
}

/// A volume that is written over and over takes no more than it should once it has settled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_comes_down_to_what_is_needed() {
    let mut world = World::new(5);
    for _ in 0..60 {
        world.write();
        world.commit(Answer::Takes, 0);
        world.give_up();
    }
    let stats = world.running().stats();
    assert!(
        stats.moved_bytes <= stats.host_bytes,
        "{} bytes moved for {} written",
        stats.moved_bytes,
        stats.host_bytes
    );
    for _ in 0..60 {
        world.commit(Answer::Takes, 4000);
        world.give_up();
    }
    world.check(0);
    world.check_elsewhere(0);
    let stats = world.running().stats();
    let (stored, live) = (stats.stored_bytes.unwrap(), stats.live_bytes.unwrap());
    assert!(
        stored * 100 <= live * 125,
        "{stored} bytes stored, {live} needed, {stats:?}"
    );
    let there: usize = world.grid.packs.kept().values().map(Vec::len).sum();
    assert!(there as u64 <= stored, "{there} bytes are there, {stored} are known");
}
