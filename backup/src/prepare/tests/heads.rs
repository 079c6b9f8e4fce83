//! Heads that are badly kept, catalogs that were turned back, devices that share an account: recovery finds all that counted.

use std::collections::BTreeMap;

use super::*;
use crate::catalog::heads;
use crate::heads::{look, note};
use crate::recover::Recovered;

type Files = BTreeMap<String, Vec<u8>>;

impl Bench {
    /// Another machine of the account, with this catalog.
    pub(super) fn second(&self, device: u8, db: Db) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            home: tempfile::tempdir().unwrap(),
            runtime: Runtime::new().unwrap(),
            keys: self.keys.clone(),
            device: SigningKey::from_bytes(&[device; 32]),
            stores: self.stores.clone(),
            peers: self.peers.clone(),
            db,
        }
    }

    pub(super) fn recover(&self, aim: &Aim) -> (Db, Recovered) {
        let fresh = Db::in_memory(MIGRATIONS).unwrap();
        let reader = self.reader(&fresh);
        let recovered = self
            .runtime
            .block_on(recover(&reader, &self.keys, aim, &|_| {}))
            .unwrap();
        (fresh, recovered)
    }

    pub(super) fn ahead(&self) -> usize {
        let peers = self.peers.all();
        let looking = look(&peers, &self.keys, std::time::Duration::from_secs(5));
        let looked = self.runtime.block_on(looking);
        self.db.write(|tx| note(tx, &looked)).unwrap();
        self.db.read(|conn| heads::ahead(conn, self.device_id())).unwrap().len()
    }

    pub(super) fn away(&self, peer: usize, away: bool) {
        self.stores[peer].set(|faults| faults.unreachable = away);
    }
}

/// A machine's life: random changes to few files, and what each of its snapshots has to show.
struct Machine {
    bench: Bench,
    now: Files,
    shown: BTreeMap<Vec<u8>, (PathBuf, Files)>,
}

impl Machine {
    fn new(bench: Bench) -> Self {
        Self {
            bench,
            now: Files::new(),
            shown: BTreeMap::new(),
        }
    }

    fn live(&mut self, dice: &mut impl FnMut(u8) -> u8) {
        for _ in 0..=dice(3) {
            let name = format!("file {}", dice(4));
            if dice(4) == 0 && self.now.remove(&name).is_some() {
                std::fs::remove_file(self.bench.path(&name)).unwrap();
                continue;
            }
            // Of every way to be stored: in the log, in an index, in packs.
            let content = noise(dice(200).into(), [60, 3_000, 90_000][usize::from(dice(3))]);
            self.bench.write(&name, &content);
            self.now.insert(name, content);
        }
        self.bench.backup();
        let newest = self.bench.db.read(tree::snapshots).unwrap().pop().unwrap();
        let shown = (self.bench.path(""), self.now.clone());
        self.shown.insert(newest.record.id.0.to_vec(), shown);
    }
}

fn ensure_shown(bench: &Bench, db: &Db, shown: &BTreeMap<Vec<u8>, (PathBuf, Files)>, seed: u64) {
    let snapshots = db.read(tree::snapshots).unwrap();
    let ids: BTreeSet<Vec<u8>> = snapshots.iter().map(|snapshot| snapshot.record.id.0.to_vec()).collect();
    assert_eq!(ids, shown.keys().cloned().collect(), "seed {seed}");
    for snapshot in snapshots {
        let (folder, files) = &shown[&snapshot.record.id.0.to_vec()];
        let seq = snapshot.record.seq;
        let mut there = Files::new();
        let folder_bytes = folder.as_os_str().as_bytes();
        let folder_bytes = folder_bytes.strip_suffix(b"/").unwrap_or(folder_bytes);
        let mut names = Vec::new();
        db.read(|conn| {
            tree::walk(conn, seq, folder_bytes, &mut |path, entry| {
                if entry.kind == proto::log_record::EntryKind::File {
                    names.push(path.to_vec());
                }
                Ok::<_, DbError>(true)
            })
        })
        .unwrap();
        for path in names {
            let mut out = Vec::new();
            bench.reader(db).cat(seq, &path, &mut out).unwrap();
            let name = String::from_utf8(path[folder_bytes.len() + 1..].to_vec()).unwrap();
            there.insert(name, out);
        }
        assert_eq!(there, *files, "seed {seed}, snapshot {seq}");
    }
}

#[test]
fn all_snapshots_of_machines_that_share_an_account_come_back_and_stay() {
    for seed in 0..4u64 {
        let mut rolls = noise(1_000 + seed, 4_096).into_iter();
        let mut dice = |sides: u8| rolls.next().unwrap() % sides;
        let mut first = Machine::new(Bench::new());
        first.live(&mut dice);
        first.live(&mut dice);
        let (db, _) = first.bench.recover(&Aim::default());
        let mut second = Machine::new(first.bench.second(9, db));
        second.shown = first.shown.clone();
        for _ in 0..5 {
            match dice(2) {
                0 => first.live(&mut dice),
                _ => second.live(&mut dice),
            }
        }
        let mut shown = first.shown.clone();
        shown.extend(second.shown.clone());
        let (db, recovered) = first.bench.recover(&Aim::default());
        assert_eq!(recovered.unread, [], "seed {seed}");
        ensure_shown(&first.bench, &db, &shown, seed);
        // A third machine goes on from there. Its head alone leads to everything.
        let mut third = Machine::new(first.bench.second(10, db));
        third.shown = shown;
        third.live(&mut dice);
        let newest = third.bench.db.read(content::posted).unwrap().unwrap();
        assert!(newest.root.devices.is_some());
        let (db, recovered) = first.bench.recover(&Aim::default());
        assert_eq!(recovered.unread, [], "seed {seed}");
        ensure_shown(&third.bench, &db, &third.shown, seed);
    }
}

#[test]
fn whoever_is_lost_after_a_badly_kept_backup_the_one_before_is_found() {
    let pairs = (0..PEERS).flat_map(|a| (0..a).map(move |b| [a, b]));
    for (away, lost) in pairs.flat_map(|pair| (0..PEERS).map(move |lost| (pair, lost))) {
        if away.contains(&lost) {
            continue;
        }
        let bench = Bench::new();
        bench.write("first", &noise(1, 50_000));
        assert_eq!(bench.backup().heads, PEERS);
        // Two of four away: what is made now is on as many as it takes to read it, and survives no loss.
        away.iter().for_each(|peer| bench.away(*peer, true));
        bench.write("second", &noise(2, 50_000));
        bench.backup();
        assert!(!bench.db.read(content::post::is_acknowledged).unwrap());
        assert_eq!(bench.waiting_jobs(), 1, "a head that is badly kept settles nothing");
        away.iter().for_each(|peer| bench.away(*peer, false));
        bench.away(lost, true);
        let (db, recovered) = bench.recover(&Aim::default());
        assert!(recovered.snapshots >= 1 && bench.cat(&db, "first") == noise(1, 50_000));
        assert_eq!(
            recovered.unread.is_empty(),
            recovered.snapshots == 2,
            "{:?}",
            recovered.unread
        );
        // Everybody is back: it is completed.
        bench.away(lost, false);
        let summary = bench.run(&bench.writer());
        assert_eq!((summary.heads, bench.waiting_jobs()), (PEERS, 0));
        assert_eq!(bench.recover(&Aim::default()).1.snapshots, 2);
    }
}

/// One friend that lists without end ate all memory of a recovery that the others could have served.
#[test]
fn who_lists_without_end_is_left_out_of_a_recovery_and_named() {
    let bench = Bench::new();
    bench.write("file", &noise(1, 50_000));
    bench.backup();
    bench.stores[1].set(|faults| faults.list_without_end = true);
    let (db, recovered) = bench.recover(&Aim::default());
    assert_eq!(bench.cat(&db, "file"), noise(1, 50_000));
    let bad: Vec<&str> = recovered.peers_bad.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(bad, ["peer 1"]);
}

#[test]
fn a_catalog_that_was_turned_back_is_noticed_and_no_number_is_signed_twice() {
    let bench = Bench::new();
    bench.write("first", &noise(1, 50_000));
    bench.backup();
    let old = Db::in_memory(MIGRATIONS).unwrap();
    old.replace_by(&bench.db, &|_| true).unwrap();
    assert_eq!(bench.ahead(), 0);
    for day in 2..5 {
        bench.write("first", &noise(day, 50_000));
        bench.backup();
    }
    let mut bench = Bench { db: old, ..bench };
    assert_eq!(bench.ahead(), PEERS);
    let known = bench.db.read(content::posted).unwrap().unwrap().head;
    let aim = Aim {
        own: Some(bench.device_id()),
        known: vec![known],
        ..Aim::default()
    };
    let (caught_up, recovered) = bench.recover(&aim);
    assert_eq!((recovered.snapshots, recovered.head), (4, 4));
    bench.db = caught_up;
    assert_eq!(bench.ahead(), 0);
    bench.write("first", &noise(9, 50_000));
    assert_eq!(bench.backup().heads, PEERS);
    assert_eq!(bench.seq(), 5);
    // Recovered from an older head, it still goes above all that was seen.
    let before = bench.db.read(tree::snapshots).unwrap()[1].record.time_ns + 1;
    let aim = Aim {
        before_ns: Some(before),
        own: Some(bench.device_id()),
        ..Aim::default()
    };
    let fresh = Db::in_memory(MIGRATIONS).unwrap();
    let reader = bench.reader(&fresh);
    // Stores in memory keep no older heads: the point is that nothing newer is taken.
    assert!(
        bench
            .runtime
            .block_on(recover(&reader, &bench.keys, &aim, &|_| {}))
            .is_err()
    );
}

#[test]
fn two_copies_of_one_home_at_work_lose_nothing() {
    let mut one = Machine::new(Bench::new());
    let mut rolls = noise(77, 4_096).into_iter();
    let mut dice = |sides: u8| rolls.next().unwrap() % sides;
    one.live(&mut dice);
    let copy = Db::in_memory(MIGRATIONS).unwrap();
    copy.replace_by(&one.bench.db, &|_| true).unwrap();
    let mut other = Machine::new(one.bench.second(4, copy));
    other.shown = one.shown.clone();
    // Each posts a head of the same number, on other peers.
    one.bench.away(0, true);
    one.live(&mut dice);
    one.bench.away(0, false);
    assert!(other.bench.ahead() > 0, "the copy is told before it sends anything");
    let known = other.bench.db.read(content::posted).unwrap().unwrap().head;
    let aim = Aim {
        own: Some(other.bench.device_id()),
        known: vec![known],
        ..Aim::default()
    };
    other.bench.db = other.bench.recover(&aim).0;
    other.live(&mut dice);
    other.shown.extend(one.shown.clone());
    let (db, _) = one.bench.recover(&Aim::default());
    ensure_shown(&one.bench, &db, &other.shown, 77);
}

/// Its heads were refused for as many times as the copy was ahead, and then hid what the copy had backed up.
#[test]
fn a_copy_that_went_on_while_a_run_was_at_work_is_not_hidden_by_its_next_heads() {
    let mut bench = Bench::new();
    bench.write("first", &noise(1, 50_000));
    bench.backup();
    let copy = Db::in_memory(MIGRATIONS).unwrap();
    copy.replace_by(&bench.db, &|_| true).unwrap();
    let other = bench.second(4, copy);
    other.write("only of the copy", &noise(2, 50_000));
    assert_eq!(other.backup().heads, PEERS);
    for day in 3..6 {
        bench.write("first", &noise(day, 50_000));
        bench.backup();
        assert!(!bench.db.read(content::post::is_acknowledged).unwrap());
    }
    let (db, recovered) = bench.recover(&Aim::default());
    assert_eq!(recovered.snapshots, 2);
    assert_eq!(other.cat(&db, "only of the copy"), noise(2, 50_000));
    let aim = Aim {
        own: Some(bench.device_id()),
        known: vec![bench.db.read(content::posted).unwrap().unwrap().head],
        ..Aim::default()
    };
    let (caught_up, recovered) = bench.recover(&aim);
    // Both gave out the same version numbers for different files: what this one signed is left out, and named.
    assert_eq!((recovered.snapshots, recovered.unread.len()), (2, 1));
    bench.db = caught_up;
    assert_eq!(bench.backup().heads, PEERS);
    let (db, recovered) = bench.recover(&Aim::default());
    assert_eq!((recovered.snapshots, bench.cat(&db, "first")), (3, noise(5, 50_000)));
}
