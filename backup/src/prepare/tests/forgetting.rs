//! Lives drawn from a seed: files come, change, move and go; snapshots are made, forgotten, pruned and brought back; trash ends.
//! After each of it every kept snapshot reads back byte for byte, with the catalog of the day and with one rebuilt from the
//! keys alone.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::catalog::content::{live, moves};
use crate::prune;

type Files = BTreeMap<String, Vec<u8>>;

struct Life {
    bench: Bench,
    dice: std::vec::IntoIter<u8>,
    now: Files,
    /// What each snapshot has to show.
    snapshots: BTreeMap<u64, Files>,
    forgotten: Vec<u64>,
}

impl Life {
    fn new(seed: u64) -> Self {
        Self {
            bench: Bench::new(),
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
        let name = format!("file {}", self.roll(5));
        let other = format!("file {}", self.roll(5));
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
        let scanned = self.bench.scan(&writer);
        let summary = self.bench.run(&writer);
        assert!(summary.failed.is_empty(), "{:?}", summary.failed);
        self.snapshots.insert(scanned.snapshot, self.now.clone());
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
        writer.publish(&|_| {}).unwrap();
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
        self.bench.writer().publish(&|_| {}).unwrap();
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
            for (name, content) in &self.snapshots[&seq] {
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
        let recovery = recover(&reader, &self.bench.keys, None, &|_| {});
        self.bench.runtime.block_on(recovery).unwrap();
        let seqs = |db: &Db| -> BTreeSet<u64> {
            let kept = db.read(tree::kept).unwrap();
            kept.iter().map(|snapshot| snapshot.record.seq).collect()
        };
        let (known, recovered) = (seqs(&self.bench.db), seqs(&fresh));
        assert!(recovered.is_subset(&known), "recovery knows what is forgotten");
        // Of snapshots at the end that changed nothing a head names the newest only: docs/decisions/0005-unchanged-run.md.
        for seq in known.difference(&recovered) {
            assert_eq!(self.snapshots[seq], self.now, "snapshot {seq} is not recovered");
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
                life.bench.writer().publish(&|_| {}).unwrap();
            }
            if rolled >= 6 && life.bench.seq() > 0 {
                life.check_all();
            }
        }
        life.check(&life.bench.db, "the catalog at the end");
    }
}
