//! Lives drawn from a seed: files come, change, move and go; snapshots are made, of all or of one folder, forgotten, pruned and brought
//! back; trash ends.
//! After each of it every kept snapshot reads back byte for byte, with the catalog of the day and with one rebuilt from the
//! keys alone.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::catalog::content::{live, moves};
use crate::prune;

type Files = BTreeMap<String, Vec<u8>>;

/// What a snapshot is made of: everything, or one folder.
const ROOTS: [&[&str]; 4] = [&[""], &["a"], &["b"], &["a", "b"]];

fn below(roots: &[&str], files: &Files) -> Files {
    let covered = |name: &str| roots.iter().any(|root| name.starts_with(root));
    files
        .iter()
        .filter(|(name, _)| covered(name))
        .map(|(name, content)| (name.clone(), content.clone()))
        .collect()
}

struct Life {
    bench: Bench,
    dice: std::vec::IntoIter<u8>,
    now: Files,
    /// What each snapshot is made of and has to show.
    snapshots: BTreeMap<u64, (&'static [&'static str], Files)>,
    forgotten: Vec<u64>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let bench = Bench::new();
        ["a", "b"]
            .iter()
            .for_each(|folder| std::fs::create_dir(bench.path(folder)).unwrap());
        Self {
            bench,
            dice: noise(seed, 4_096).into_iter(),
            now: Files::new(),
            snapshots: BTreeMap::new(),
            forgotten: Vec::new(),
        }
    }

    fn roll(&mut self, sides: usize) -> usize {
        usize::from(self.dice.next().expect("enough dice")) % sides
    }

    fn change_a_file(&mut self) {
        let name = format!("{}/file {}", ["a", "b"][self.roll(2)], self.roll(4));
        let other = format!("{}/file {}", ["a", "b"][self.roll(2)], self.roll(4));
        match (self.roll(5), self.now.remove(&name)) {
            (0, Some(_)) => std::fs::remove_file(self.bench.path(&name)).unwrap(),
            (1, Some(content)) => {
                std::fs::rename(self.bench.path(&name), self.bench.path(&other)).unwrap();
                self.now.insert(other, content);
            }
            (2, Some(mut content)) => {
                content.extend(noise(self.roll(9) as u64, 20_000));
                self.bench.write(&name, &content);
                self.now.insert(name, content);
            }
            _ => {
                // Few different contents: chunks that are given up come back under other names.
                let content = noise(self.roll(6) as u64, 5_000 + 60_000 * self.roll(4));
                self.bench.write(&name, &content);
                self.now.insert(name, content);
            }
        }
    }

    fn back_up(&mut self) {
        let writer = self.bench.writer();
        let roots = ROOTS[self.roll(ROOTS.len())];
        let scanned = self.bench.scan_of(&writer, roots);
        let summary = self.bench.run(&writer);
        assert!(summary.failed.is_empty(), "{:?}", summary.failed);
        self.snapshots
            .insert(scanned.snapshot, (roots, below(roots, &self.now)));
    }

    fn kept(&self) -> Vec<u64> {
        let kept = self.bench.db.read(tree::kept).unwrap();
        kept.iter().map(|snapshot| snapshot.record.seq).collect()
    }

    fn forget(&mut self) {
        let kept = self.kept();
        let going: Vec<u64> = kept.into_iter().filter(|_| self.roll(2) == 0).collect();
        self.bench.db.write(|tx| tree::forget(tx, &going, 1)).unwrap();
        self.forgotten.extend(going);
    }

    fn prune(&mut self) {
        let db = &self.bench.db;
        let writer = self.bench.writer();
        db.write(|tx| moves::finish(tx, 1)).unwrap();
        self.repack(&writer);
        let wanted = db.read(|conn| live::wanted(conn, &self.kept())).unwrap();
        db.write(|tx| live::record(tx, &wanted, 1)).unwrap();
        writer.post(&|_| {}).unwrap();
        let peers = self.bench.peers.all();
        let exchanges = prune::discard_dead(db, &peers);
        for exchange in self.bench.runtime.block_on(exchanges).unwrap() {
            assert_eq!(exchange.failed, None);
        }
    }

    fn repack(&self, writer: &Writer) {
        let db = &self.bench.db;
        let wanted = db.read(|conn| live::wanted(conn, &self.kept())).unwrap();
        let plan = db.read(|conn| repack::plan(conn, &wanted)).unwrap();
        let reader = self.bench.reader(db);
        let repacked = writer.repack(&reader, &plan, &AtomicBool::new(false), &|_| {}).unwrap();
        assert!(repacked.failed.is_empty(), "{:?}", repacked.failed);
        assert_eq!(repacked.copied_bytes, plan.copied_bytes);
        eprintln!("{} packs repacked", plan.packs.len());
        assert!(
            db.read(moves::under_way).unwrap().is_empty(),
            "all peers take what they are given"
        );
    }

    fn undelete(&mut self) {
        let Some(seq) = self.forgotten.pop() else { return };
        let db = &self.bench.db;
        let mut kept = self.kept();
        kept.push(seq);
        kept.sort_unstable();
        let wanted = db.read(|conn| live::wanted(conn, &kept)).unwrap();
        let reviving = wanted.reviving.iter().copied().collect();
        let peers = self.bench.peers.all();
        let exchanges = prune::recall_wanted(db, &peers, &reviving);
        self.bench.runtime.block_on(exchanges).unwrap();
        db.write(|tx| {
            tree::unforget(tx, &[seq])?;
            live::record(tx, &wanted, 2)
        })
        .unwrap();
        self.bench.writer().post(&|_| {}).unwrap();
    }

    /// What was forgotten cannot come back after that.
    fn end_the_trash(&mut self) {
        self.prune();
        for store in &self.bench.stores {
            store.inner().expire_trash();
        }
        self.forgotten.clear();
    }

    fn check(&self, db: &Db, what: &str) {
        for snapshot in db.read(tree::kept).unwrap() {
            let seq = snapshot.record.seq;
            for (name, content) in &self.snapshots[&seq].1 {
                let mut out = Vec::new();
                let path = self.bench.path(name);
                let read = self.bench.reader(db).cat(seq, path.as_os_str().as_bytes(), &mut out);
                assert!(
                    read.is_ok() && out == *content,
                    "{what}: `{name}` of snapshot {seq}: {read:?}"
                );
            }
        }
    }

    fn check_all(&self) {
        self.check(&self.bench.db, "the catalog");
        let fresh = Db::in_memory(MIGRATIONS).unwrap();
        let reader = self.bench.reader(&fresh);
        let aim = Aim::default();
        let recovery = recover(&reader, &self.bench.keys, &aim, &|_| {});
        self.bench.runtime.block_on(recovery).unwrap();
        let seqs = |db: &Db| -> BTreeSet<u64> {
            let kept = db.read(tree::kept).unwrap();
            kept.iter().map(|snapshot| snapshot.record.seq).collect()
        };
        let (known, recovered) = (seqs(&self.bench.db), seqs(&fresh));
        assert!(recovered.is_subset(&known), "recovery knows what is forgotten");
        // Of snapshots at the end that changed nothing a head names the newest only: docs/decisions/0005-unchanged-run.md.
        for seq in known.difference(&recovered) {
            let (roots, files) = &self.snapshots[seq];
            assert_eq!(*files, below(roots, &self.now), "snapshot {seq} is not recovered");
        }
        self.check(&fresh, "a recovered catalog");
    }
}

#[test]
fn whatever_is_forgotten_pruned_and_brought_back_kept_snapshots_stay_whole() {
    for seed in [1, 2, 3] {
        let mut life = Life::new(seed);
        for step in 0..40 {
            let rolled = life.roll(10);
            match rolled {
                0..=3 => {
                    life.change_a_file();
                    life.change_a_file();
                    life.back_up();
                }
                4 => life.back_up(),
                5 => life.forget(),
                6 | 7 => life.prune(),
                8 => life.undelete(),
                _ => life.end_the_trash(),
            }
            eprintln!("seed {seed}, step {step}: {rolled}; {} kept", life.kept().len());
            if rolled >= 5 {
                life.bench.writer().post(&|_| {}).unwrap();
            }
            if rolled >= 6 && life.bench.seq() > 0 {
                life.check_all();
            }
        }
        life.check(&life.bench.db, "the catalog at the end");
    }
}

/// A large file in a snapshot of one folder, then a snapshot of another: forgetting the first freed nothing, as the second is of
/// the time in which the file was there.
#[test]
fn a_snapshot_of_another_folder_keeps_nothing_and_what_was_given_up_is_sent_again() {
    let bench = Bench::new();
    ["a", "b"]
        .iter()
        .for_each(|folder| std::fs::create_dir(bench.path(folder)).unwrap());
    bench.write("a/large", &noise(1, 300_000));
    bench.write("b/small", &noise(2, 20_000));
    let back_up = |roots: &[&str]| {
        let writer = bench.writer();
        let scanned = bench.scan_of(&writer, roots);
        (scanned.snapshot, bench.run(&writer))
    };
    let (of_a, _) = back_up(&["a"]);
    let (of_b, _) = back_up(&["b"]);
    bench.db.write(|tx| tree::forget(tx, &[of_a], 1)).unwrap();
    let wanted = bench.db.read(|conn| live::wanted(conn, &[of_b])).unwrap();
    assert_eq!(wanted.dying.len(), 1);
    bench.db.write(|tx| live::record(tx, &wanted, 1)).unwrap();
    bench.writer().post(&|_| {}).unwrap();
    bench
        .runtime
        .block_on(prune::discard_dead(&bench.db, &bench.peers.all()))
        .unwrap();
    bench.stores.iter().for_each(|store| store.inner().expire_trash());
    let (_, again) = back_up(&["a"]);
    assert_eq!(again.bytes_read, 300_000, "unchanged, but nowhere any more");
    assert!(bench.cat(&bench.db, "a/large") == noise(1, 300_000));
}
