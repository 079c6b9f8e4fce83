//! What is over the limits of a format, or not as long as it says: posted all the same, named, and never a panic.

use proto::log_record::PathBytes;

use super::*;

impl Bench {
    /// Gives a snapshot these roots, as a version without limits recorded them.
    fn set_roots(&self, seq: u64, roots: Vec<PathBytes>) {
        let roots = minicbor::to_vec(roots).unwrap();
        self.db
            .write::<_, DbError>(|tx| Ok(tx.execute("UPDATE snapshot SET roots = ? WHERE seq = ?", (roots, seq))?))
            .unwrap();
    }

    pub(super) fn recovered(&self) -> Db {
        let fresh = Db::in_memory(MIGRATIONS).unwrap();
        let reader = self.reader(&fresh);
        let aim = Aim::default();
        let recovery = recover(&reader, &self.keys, &aim, &|_| {});
        self.runtime.block_on(recovery).unwrap();
        fresh
    }
}

fn roots(db: &Db) -> Vec<Vec<PathBytes>> {
    let snapshots = db.read(tree::snapshots).unwrap().into_iter();
    snapshots.map(|snapshot| snapshot.record.source_roots).collect()
}

#[test]
fn a_home_that_recorded_too_many_paths_can_post_again() {
    let bench = Bench::new();
    bench.write("file", &noise(1, 100_000));
    let writer = bench.writer();
    bench.scan(&writer);
    let many = (0..2000).map(|at| bench.path(&format!("file {at}")));
    let own = bench.path("file");
    let all = many
        .chain([own])
        .map(|path| PathBytes(path.as_os_str().as_bytes().to_vec()));
    bench.set_roots(1, all.collect());
    let summary = bench.run(&writer);
    assert_eq!((summary.failed.len(), summary.heads), (0, PEERS));
    assert_eq!(bench.backup().heads, PEERS);
    let fresh = bench.recovered();
    assert_eq!(bench.cat(&fresh, "file"), noise(1, 100_000));
    assert_eq!(roots(&fresh), roots(&bench.db));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As many paths as a snapshot takes, of 200 bytes each: they do not compress well.
fn long_paths(seed: u64, beside: &std::path::Path) -> Vec<PathBytes> {
    let own = beside.as_os_str().as_bytes();
    let own = PathBytes(own.strip_suffix(b"/").unwrap_or(own).to_vec());
    let mut paths: Vec<PathBytes> = (0..1000)
        .map(|at| PathBytes(format!("/{}", hex(&noise(seed * 1000 + at, 100))).into_bytes()))
        .chain([own])
        .collect();
    paths.sort();
    paths
}

#[test]
fn more_snapshots_of_many_paths_than_a_root_takes_are_posted_root_by_root() {
    let bench = Bench::new();
    let writer = bench.writer();
    for seq in 1..=24 {
        bench.write("file", &noise(seq, 5_000));
        bench.scan(&writer);
        bench.set_roots(seq, long_paths(seq, &bench.path("")));
    }
    let summary = bench.run(&writer);
    assert_eq!((summary.failed.len(), summary.heads), (0, PEERS));
    let fresh = bench.recovered();
    assert_eq!(roots(&fresh), roots(&bench.db));
    assert_eq!(bench.cat(&fresh, "file"), noise(24, 5_000));
    // Many more that change nothing do not make the head's one root longer and longer.
    for seq in 25..=40 {
        bench.scan(&writer);
        bench.set_roots(seq, long_paths(1, &bench.path("")));
        bench.run(&writer);
    }
    let posted = bench.db.read(content::posted).unwrap().unwrap();
    assert!(posted.root.encode().unwrap().len() < 3 * MIB);
    let fresh = bench.recovered();
    assert_eq!(roots(&fresh).last(), roots(&bench.db).last());
}

#[test]
fn a_snapshot_that_changed_nothing_keeps_its_own_paths_however_long() {
    let bench = Bench::new();
    for name in ["a", "b"] {
        std::fs::create_dir(bench.path(name)).unwrap();
        bench.write(&format!("{name}/file"), &noise(1, 10_000));
    }
    bench.backup();
    let writer = bench.writer();
    bench.scan_roots(&writer, vec![bench.path("b")]);
    bench.set_roots(2, long_paths(1, &bench.path("b")));
    bench.run(&writer);
    assert_eq!(roots(&bench.recovered()), roots(&bench.db));
}

#[test]
fn a_file_without_a_length_is_saved_with_all_it_has() {
    let version = PathBuf::from("/proc/version");
    if std::fs::metadata(&version).map_or(true, |meta| meta.len() > 0) {
        return; // no procfs here
    }
    let bench = Bench::new();
    let writer = bench.writer();
    for _ in 0..2 {
        bench.scan_roots(&writer, vec![version.clone()]);
        let summary = bench.run(&writer);
        assert!(summary.failed.is_empty(), "{:?}", summary.failed);
        let mut read = Vec::new();
        let last = bench.db.read(tree::snapshots).unwrap().pop().unwrap().record.seq;
        bench.reader(&bench.db).cat(last, b"/proc/version", &mut read).unwrap();
        assert_eq!(read, std::fs::read(&version).unwrap());
    }
}
