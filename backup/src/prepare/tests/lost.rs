//! Content that peers lost: read from its file and sent again, or named; never taken for known, never replaced by another.

use proto::share_store::ShareStore;
use upload_queue::packs::{PackRow, Purpose};

use super::*;
use crate::catalog::content::lost;
use crate::source::local::LocalFiles;

impl Bench {
    /// Peers lose their shares of these packs for good, and somebody who looked has told the catalog.
    fn lose(&self, peers: &[usize], which: impl Fn(Purpose) -> bool) {
        for &number in peers {
            let store = &self.stores[number];
            let key = PeerKey(format!("memory:{number}"));
            let ids = self.db.read(|conn| packs::shares_at(conn, &key)).unwrap();
            for (id, _) in ids {
                let row: PackRow = self.db.read(|conn| packs::share_of(conn, id)).unwrap().unwrap().pack;
                let pack = self.db.read(|conn| packs::get(conn, row)).unwrap().unwrap();
                if which(pack.purpose) {
                    self.runtime.block_on(store.remove(id)).unwrap();
                    self.db.write(|tx| packs::record_missing(tx, &key, id)).unwrap();
                }
            }
            store.inner().expire_trash();
        }
    }

    fn cat_at(&self, db: &Db, seq: u64, name: &str) -> Result<Vec<u8>, crate::restore::RestoreError> {
        let mut out = Vec::new();
        let path = self.path(name);
        let read = self.reader(db).cat(seq, path.as_os_str().as_bytes(), &mut out);
        read.map(|_| out)
    }

    fn lost_names(&self) -> Vec<String> {
        let lost = self.db.read(|conn| lost::files(conn, 100)).unwrap();
        let names = lost.named.iter().map(|file| {
            let name = file.path.rsplit(|byte| *byte == b'/').next().unwrap();
            String::from_utf8(name.to_vec()).unwrap()
        });
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    /// A run ends when all is safe. What was still on its way then is taken for lost, so that every run of a test is the same.
    fn settle(&self) {
        let drop_spooled = |tx: &rusqlite::Transaction<'_>| {
            tx.execute("UPDATE share SET spooled = 0 WHERE spooled = 1", [])?;
            Ok::<_, database::DbError>(())
        };
        self.db.write(drop_spooled).unwrap();
    }

    fn spool_files(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.home.path().join("spool")).unwrap();
        files.map(|file| file.unwrap().path()).collect()
    }
}

/// Three of four peers lost all they had, and the files were all there: copies of them were "complete" and could not be
/// restored, and no run ever read them again.
#[test]
fn what_peers_lost_is_read_from_its_file_and_sent_again_and_new_copies_are_whole() {
    let bench = Bench::new();
    let files = [
        ("tiny", noise(1, 10)),
        ("very-small", noise(2, 3000)),
        ("small", noise(3, 40_000)),
        ("large", noise(4, 9 * MIB)),
    ];
    files.iter().for_each(|(name, content)| bench.write(name, content));
    bench.backup();
    bench.settle();
    bench.lose(&[0, 1, 2], |_| true);
    assert_eq!(bench.lost_names(), ["large", "small", "very-small"]);
    bench.write("copy", &files[3].1);
    let summary = bench.backup();
    assert!(summary.failed.is_empty(), "{:?}", summary.failed);
    assert_eq!(summary.undelivered.packs_unsafe, 0);
    assert!(bench.all_packs_are_safe());
    assert_eq!((bench.waiting_jobs(), bench.lost_names().len()), (0, 0));
    let fresh = bench.recovered();
    for (name, content) in files.iter().chain([&("copy", files[3].1.clone())]) {
        assert!(bench.cat(&fresh, name) == *content, "{name}");
    }
    let again = bench.backup();
    assert_eq!((again.bytes_read, again.packs), (0, 0), "once");
}

#[test]
fn names_and_indexes_that_are_lost_are_posted_again_with_all_their_history() {
    let bench = Bench::new();
    let content = |day: u64| [("changes", noise(day, 50_000)), ("inline", noise(100 + day, 2000))];
    for day in 0..4 {
        content(day).iter().for_each(|(name, bytes)| bench.write(name, bytes));
        bench.write(&format!("day {day}"), &noise(200 + day, 90));
        bench.backup();
    }
    let before = bench.seq();
    bench.lose(&[0, 1, 2, 3], |purpose| purpose == Purpose::Metadata);
    let summary = bench.backup();
    assert_eq!(
        summary.undelivered.packs_unsafe, 3,
        "the packs of three inline contents that are nowhere else"
    );
    assert!(bench.seq() > before, "the chain of heads goes on");
    let fresh = bench.recovered();
    let seqs = |db: &Db| -> Vec<u64> {
        let all = db.read(tree::snapshots).unwrap();
        all.iter().map(|snapshot| snapshot.record.seq).collect()
    };
    assert_eq!(seqs(&fresh), [1, 2, 3, 4, 5]);
    for day in 0..4u64 {
        let seq = day + 1;
        let [(name, bytes), (inline, newest)] = content(day);
        assert!(bench.cat_at(&fresh, seq, name).unwrap() == bytes, "day {day}");
        assert!(bench.cat_at(&fresh, seq, &format!("day {day}")).unwrap() == noise(200 + day, 90));
        if day == 3 {
            assert!(bench.cat_at(&fresh, seq, inline).unwrap() == newest);
        } else {
            bench.cat_at(&fresh, seq, inline).unwrap_err();
        }
    }
    assert_eq!(
        bench.lost_names(),
        ["inline", "inline", "inline"],
        "named, not forgotten"
    );
    let again = bench.backup();
    assert_eq!(again.packs, 0, "and not posted over and over");
}

#[test]
fn content_whose_file_has_changed_or_gone_stays_lost_and_shown_until_a_peer_comes_back_with_it() {
    let bench = Bench::new();
    for (name, seed) in [("changed", 1), ("gone", 2), ("kept", 3), ("mtime-set-back", 4)] {
        bench.write(name, &noise(seed, 70_000));
    }
    bench.backup();
    // Away, not destroyed: what they had counts for nothing.
    let held: Vec<_> = (0..3)
        .map(|number| {
            let key = PeerKey(format!("memory:{number}"));
            let ids = bench.db.read(|conn| packs::shares_at(conn, &key)).unwrap();
            bench.db.write(|tx| packs::forget_holder(tx, &key)).unwrap();
            (key, ids.into_iter().map(|(id, _)| id).collect::<Vec<_>>())
        })
        .collect();
    let was = std::fs::metadata(bench.path("mtime-set-back"))
        .unwrap()
        .modified()
        .unwrap();
    bench.write("mtime-set-back", &noise(5, 70_000));
    let file = std::fs::File::options()
        .append(true)
        .open(bench.path("mtime-set-back"))
        .unwrap();
    file.set_modified(was).unwrap();
    bench.write("changed", &noise(6, 60_000));
    std::fs::remove_file(bench.path("gone")).unwrap();
    let summary = bench.backup();
    assert!(summary.failed.is_empty(), "{:?}", summary.failed);
    assert_eq!(bench.lost_names(), ["changed", "gone", "mtime-set-back"]);
    assert!(bench.cat_at(&bench.db, 1, "kept").unwrap() == noise(3, 70_000));
    for (key, ids) in &held {
        bench.db.write(|tx| packs::record_held(tx, key, ids)).unwrap();
    }
    assert_eq!(bench.lost_names(), [""; 0]);
    for (name, seed) in [("changed", 1), ("gone", 2), ("kept", 3), ("mtime-set-back", 4)] {
        assert!(
            bench.cat_at(&bench.db, 1, name).unwrap() == noise(seed, 70_000),
            "{name}"
        );
    }
}

/// The file is opened again after the scan has looked at it: what changed in between must not get into old snapshots.
#[test]
fn a_file_that_changes_between_the_look_and_the_read_is_given_up_and_its_snapshot_keeps_it() {
    let bench = Bench::new();
    bench.write("file", &noise(1, 70_000));
    bench.backup();
    bench.settle();
    bench.lose(&[0, 1, 2], |purpose| purpose == Purpose::Data);
    let writer = bench.writer();
    assert_eq!(writer.reopen_lost(&LocalFiles).unwrap(), 1);
    assert_eq!(bench.lost_names(), [""; 0], "it waits to be sent");
    bench.write("file", &noise(2, 70_000));
    let summary = bench.run(&writer);
    assert_eq!(summary.failed.len(), 1, "{:?}", summary.failed);
    assert_eq!(bench.lost_names(), ["file"]);
    let entry = bench.newest("file").unwrap();
    assert_eq!(entry.meta.size, 70_000, "the snapshot shows it still");
    bench.backup();
    assert!(bench.cat(&bench.recovered(), "file") == noise(2, 70_000));
}

#[test]
fn a_spool_that_is_damaged_while_friends_are_away_is_noticed_and_its_files_are_read_again() {
    type Damage = fn(&std::path::Path);
    let damages: [(&str, Damage); 3] = [
        ("deleted", |path| std::fs::remove_file(path).unwrap()),
        ("cut off", |path| {
            std::fs::File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(1000)
                .unwrap();
        }),
        ("flipped", |path| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes[5000] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let bench = Bench::new();
        let files = [
            ("inline", noise(1, 2000)),
            ("small", noise(2, 60_000)),
            ("large", noise(3, 2 * MIB)),
        ];
        files.iter().for_each(|(name, content)| bench.write(name, content));
        bench.unreachable(true);
        bench.backup();
        assert!(!bench.spool_files().is_empty());
        bench.spool_files().iter().for_each(|path| damage(path));
        bench.unreachable(false);
        bench.write("copy", &files[2].1);
        let summary = bench.backup();
        assert!(summary.failed.is_empty(), "{what}: {:?}", summary.failed);
        assert_eq!(summary.undelivered.packs_unsafe, 0, "{what}");
        assert_eq!(bench.waiting_jobs(), 0, "{what}");
        let fresh = bench.recovered();
        for (name, content) in files.iter().chain([&("copy", files[2].1.clone())]) {
            assert!(bench.cat(&fresh, name) == *content, "{what}: {name}");
        }
    }
}
