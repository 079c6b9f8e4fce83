//! Scans of real small trees: every snapshot shows what was there, and the log gives it back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use proptest::prelude::*;
use proto::log_record::{Content, Entry};
use upload_queue::priority::Weights;

use super::*;
use crate::catalog::{MIGRATIONS, tree};
use crate::source::details;

mod memory;
mod sources;

struct Bench {
    folder: tempfile::TempDir,
    db: Db,
    queue: Queue,
    now_ns: std::cell::Cell<i64>,
}

impl Bench {
    fn new() -> Self {
        let db = Db::in_memory(MIGRATIONS).unwrap();
        let queue = Queue::open(db.clone(), Weights::default()).unwrap();
        Self {
            folder: tempfile::tempdir().unwrap(),
            db,
            queue,
            now_ns: 1_000_000_000.into(),
        }
    }

    fn root(&self) -> PathBuf {
        fs::canonicalize(self.folder.path()).unwrap()
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root().join(name)
    }

    fn bytes(&self, name: impl AsRef<Path>) -> Vec<u8> {
        self.path(name).as_os_str().as_bytes().to_vec()
    }

    fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    fn scan(&self) -> ScanSummary {
        self.scan_with(&[self.root()], Rules::default()).unwrap()
    }

    fn scan_with(&self, roots: &[PathBuf], rules: Rules) -> Result<ScanSummary, ScanError> {
        self.scan_as(|options| {
            options.roots = roots.to_vec();
            options.rules = rules;
        })
    }

    fn scan_as(&self, change: impl FnOnce(&mut ScanOptions)) -> Result<ScanSummary, ScanError> {
        let mut options = self.options();
        change(&mut options);
        scan(&self.db, &self.queue, &options, &|_, _| {})
    }

    /// Those of a scan a minute after the one before.
    fn options(&self) -> ScanOptions {
        self.now_ns.set(self.now_ns.get() + 60_000_000_000);
        ScanOptions {
            roots: vec![self.root()],
            rules: Rules::default(),
            own_state: Vec::new(),
            one_file_system: true,
            emptied: Emptied::Unmounted,
            device: DeviceId([7; 32]),
            now_ns: self.now_ns.get(),
        }
    }

    fn entry(&self, snapshot: u64, name: impl AsRef<Path>) -> Option<Entry> {
        self.db
            .read(|conn| tree::entry(conn, snapshot, &self.bytes(name)))
            .unwrap()
    }

    fn version(&self, snapshot: u64, name: impl AsRef<Path>) -> proto::id::VersionId {
        match self
            .entry(snapshot, &name)
            .unwrap_or_else(|| panic!("{:?}", name.as_ref()))
            .content
        {
            Content::Version(version) => version,
            other => panic!("{other:?}"),
        }
    }

    fn jobs(&self) -> Vec<(Vec<u8>, proto::id::VersionId)> {
        let mut jobs: Vec<_> = self
            .queue
            .list(1000)
            .unwrap()
            .into_iter()
            .map(|job| (job.path, job.version))
            .collect();
        jobs.sort();
        jobs
    }

    /// As if everything waiting had been read and placed.
    fn place_all(&self) {
        let versions: Vec<_> = self.jobs().into_iter().map(|(_, version)| version).collect();
        self.db
            .write(|tx| {
                for version in &versions {
                    tx.execute(
                        "INSERT OR IGNORE INTO content (version, settled) VALUES (?, 1)",
                        [version.0.cast_signed()],
                    )?;
                }
                self.queue.settle(tx, &versions)
            })
            .unwrap();
    }
}

type Tree = BTreeMap<Vec<u8>, Entry>;

fn shown(db: &Db, snapshot: u64) -> Tree {
    let mut tree = Tree::new();
    db.read(|conn| {
        tree::walk::<DbError>(conn, snapshot, b"/", &mut |path, entry| {
            assert!(tree.insert(path.to_vec(), entry.clone()).is_none());
            Ok(true)
        })
    })
    .unwrap();
    tree
}

fn records(db: &Db, snapshot: u64, full: bool) -> Vec<proto::log_record::LogRecord> {
    let mut records = Vec::new();
    db.read(|conn| {
        tree::log::<DbError>(conn, snapshot, full, &mut |record| {
            records.push(record);
            Ok(())
        })
    })
    .unwrap();
    records
}

fn replay(into: &Db, records: Vec<proto::log_record::LogRecord>) {
    let mut replay = tree::Replay::new(DeviceId([7; 32]));
    into.write(|tx| records.into_iter().try_for_each(|record| replay.apply(tx, record)))
        .unwrap();
}

#[test]
fn a_first_scan_records_every_kind_and_asks_for_the_larger_files() {
    let bench = Bench::new();
    bench.write("empty", "");
    bench.write("tiny", "four");
    bench.write("large", vec![1; 200]);
    fs::create_dir(bench.path("folder")).unwrap();
    let odd = Path::new(std::ffi::OsStr::from_bytes(b"folder/a\n\xff"));
    bench.write(odd, vec![2; 300]);
    std::os::unix::fs::symlink("tiny", bench.path("link")).unwrap();
    let summary = bench.scan();
    assert_eq!((summary.files_new, summary.files, summary.bytes), (5, 5, 504));
    assert!(!summary.unchanged && summary.failed.is_empty());
    assert_eq!(bench.entry(1, "empty").unwrap().content, Content::Inline(Vec::new()));
    assert_eq!(
        bench.entry(1, "tiny").unwrap().content,
        Content::Inline(b"four".to_vec())
    );
    assert_eq!(
        bench.entry(1, "link").unwrap().content,
        Content::Inline(b"tiny".to_vec())
    );
    let paths: Vec<_> = bench.jobs().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, [bench.bytes(odd), bench.bytes("large")]);
}

#[test]
fn nothing_changed_is_a_snapshot_row_and_nothing_else() {
    let bench = Bench::new();
    bench.write("large", vec![1; 200]);
    bench.scan();
    let summary = bench.scan();
    assert!(summary.unchanged);
    assert_eq!((summary.snapshot, summary.files, summary.files_unmodified), (2, 1, 1));
    assert_eq!(shown(&bench.db, 1), shown(&bench.db, 2));
    assert_eq!(records(&bench.db, 2, false).len(), 1);
}

#[test]
fn a_renamed_folder_keeps_its_versions() {
    let bench = Bench::new();
    fs::create_dir(bench.path("a")).unwrap();
    bench.write("a/large", vec![1; 200]);
    bench.scan();
    bench.place_all();
    fs::rename(bench.path("a"), bench.path("b")).unwrap();
    let summary = bench.scan();
    assert_eq!((summary.files_moved, summary.files_new, summary.files_gone), (1, 1, 1));
    assert_eq!(bench.version(1, "a/large"), bench.version(2, "b/large"));
    assert!(bench.jobs().is_empty());
    assert_eq!(bench.entry(2, "a/large"), None);
}

#[test]
fn a_file_that_moved_before_it_was_read_is_read_under_its_new_name() {
    let bench = Bench::new();
    fs::create_dir(bench.path("a")).unwrap();
    bench.write("a/large", vec![1; 200]);
    bench.scan();
    fs::rename(bench.path("a"), bench.path("b")).unwrap();
    bench.scan();
    let version = bench.version(2, "b/large");
    assert_eq!(bench.version(1, "a/large"), version);
    assert_eq!(bench.jobs(), [(bench.bytes("b/large"), version)]);
}

#[test]
fn hard_links_share_a_version_and_a_job() {
    let bench = Bench::new();
    bench.write("x", vec![1; 200]);
    fs::hard_link(bench.path("x"), bench.path("y")).unwrap();
    bench.scan();
    assert_eq!(bench.version(1, "x"), bench.version(1, "y"));
    assert_eq!(bench.jobs().len(), 1);
}

#[test]
fn a_touched_mode_is_read_again_and_a_removed_folder_goes_with_all_below() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("a/b")).unwrap();
    bench.write("a/b/large", vec![1; 200]);
    bench.write("keep", vec![1; 200]);
    bench.scan();
    fs::remove_dir_all(bench.path("a")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(bench.path("keep"), mode).unwrap();
    let summary = bench.scan();
    assert_eq!((summary.files_gone, summary.files_changed, summary.files), (1, 1, 1));
    assert_ne!(bench.version(1, "keep"), bench.version(2, "keep"));
    assert!(bench.entry(1, "a/b/large").is_some());
    assert_eq!((bench.entry(2, "a/b/large"), bench.entry(2, "a")), (None, None));
}

#[test]
fn scans_of_other_roots_leave_each_other_alone() {
    let bench = Bench::new();
    for name in ["a", "b"] {
        fs::create_dir(bench.path(name)).unwrap();
        bench.write(format!("{name}/large"), vec![1; 200]);
    }
    bench.scan_with(&[bench.path("a")], Rules::default()).unwrap();
    bench.scan_with(&[bench.path("b")], Rules::default()).unwrap();
    let third = bench
        .scan_with(&[bench.path("a"), bench.path("b/large")], Rules::default())
        .unwrap();
    assert!(third.unchanged, "{third:?}");
    assert!(bench.entry(1, "a/large").is_some() && bench.entry(1, "b").is_none());
    assert!(bench.entry(2, "b/large").is_some() && bench.entry(2, "a/large").is_none());
    assert!(bench.entry(3, "b/large").is_some() && bench.entry(3, "a/large").is_some());
    let rebuilt = Db::in_memory(MIGRATIONS).unwrap();
    (1..=3).for_each(|seq| replay(&rebuilt, records(&bench.db, seq, false)));
    (1..=3).for_each(|seq| assert_eq!(shown(&rebuilt, seq), shown(&bench.db, seq)));
}

#[test]
fn rules_ignore_files_and_cache_tags_leave_out() {
    let bench = Bench::new();
    for folder in ["cache", "sub"] {
        fs::create_dir(bench.path(folder)).unwrap();
    }
    bench.write("cache/CACHEDIR.TAG", crate::exclude::CACHE_TAG_SIGNATURE);
    bench.write("cache/big", "x");
    bench.write("sub/.gridbackupignore", "*.log\n");
    bench.write("sub/a.log", "x");
    bench.write("a.log", "x");
    bench.write("a.tmp", "x");
    let rules = Rules::new(&["*.tmp"]).unwrap();
    bench.scan_with(&[bench.root()], rules.clone()).unwrap();
    let there = |name: &str| bench.entry(1, name).is_some();
    assert!(there("cache/CACHEDIR.TAG") && there("sub/.gridbackupignore") && there("a.log"));
    assert!(!there("cache/big") && !there("sub/a.log") && !there("a.tmp"));
    let rules = rules.cache_folders(crate::exclude::CacheFolders::Keep);
    bench.scan_with(&[bench.root()], rules).unwrap();
    assert!(bench.entry(2, "cache/big").is_some());
}

#[test]
fn a_file_changed_too_far_in_the_future_is_read_again() {
    let bench = Bench::new();
    bench.write("large", vec![1; 200]);
    bench.scan();
    bench
        .db
        .write::<_, DbError>(|tx| {
            tx.execute("UPDATE entry SET suspect = 1 WHERE name = CAST('large' AS BLOB)", [])?;
            tx.execute("UPDATE directory SET fingerprint = NULL", [])?;
            Ok(())
        })
        .unwrap();
    assert_eq!(bench.scan().files_changed, 1);
    assert!(bench.scan().unchanged);
}

#[test]
fn tiny_files_just_written_are_settled_before_they_are_read() {
    let bench = Bench::new();
    bench.write("tiny", "one");
    bench.scan();
    let meta = bench.entry(1, "tiny").unwrap().meta;
    assert!(LocalFiles.now_ns() >= details::settled_at_ns(&meta));
}

#[test]
fn a_file_withdrawn_is_found_again_by_the_next_scan() {
    let bench = Bench::new();
    bench.write("large", vec![1; 200]);
    bench.scan();
    let version = bench.version(1, "large");
    bench
        .db
        .write(|tx| tree::withdraw(tx, version, &bench.bytes("large"), false))
        .unwrap();
    assert_eq!(bench.entry(1, "large"), None);
    assert_eq!(bench.scan().files_new, 1);
}

#[test]
fn an_amended_state_travels_in_the_log_posted_again() {
    let bench = Bench::new();
    bench.write("large", vec![1; 200]);
    bench.scan();
    let rebuilt = Db::in_memory(MIGRATIONS).unwrap();
    replay(&rebuilt, records(&bench.db, 1, false));
    bench.db.write(|tx| tree::posted(tx, 1)).unwrap();
    let entry = bench.entry(1, "large").unwrap();
    let meta = proto::log_record::Meta {
        size: 300,
        ..entry.meta
    };
    let version = bench.version(1, "large");
    bench
        .db
        .write(|tx| tree::amend(tx, version, &bench.bytes("large"), &meta))
        .unwrap();
    assert_eq!(bench.db.read(tree::unposted).unwrap(), [1]);
    replay(&rebuilt, records(&bench.db, 1, false));
    assert_eq!(shown(&rebuilt, 1), shown(&bench.db, 1));
    assert_eq!(
        bench.scan().files_changed,
        1,
        "read again: it may have changed after it was read"
    );
}

#[test]
fn a_withdrawn_file_is_gone_from_the_log_posted_again() {
    let bench = Bench::new();
    bench.write("large", vec![1; 200]);
    bench.write("other", vec![1; 200]);
    bench.scan();
    let rebuilt = Db::in_memory(MIGRATIONS).unwrap();
    replay(&rebuilt, records(&bench.db, 1, true));
    bench.db.write(|tx| tree::posted(tx, 1)).unwrap();
    let version = bench.version(1, "large");
    bench
        .db
        .write(|tx| tree::withdraw(tx, version, &bench.bytes("large"), true))
        .unwrap();
    replay(&rebuilt, records(&bench.db, 1, true));
    assert_eq!(shown(&rebuilt, 1), shown(&bench.db, 1));
    assert_eq!(bench.entry(1, "large"), None);
}

#[test]
fn an_amendment_made_while_a_log_is_under_way_is_not_taken_for_posted() {
    let bench = Bench::new();
    bench.write("large", vec![1; 200]);
    bench.scan();
    let mark = bench.db.read(tree::amendment_mark).unwrap();
    let version = bench.version(1, "large");
    bench
        .db
        .write(|tx| tree::withdraw(tx, version, &bench.bytes("large"), true))
        .unwrap();
    bench.db.write(|tx| tree::posted_until(tx, 1, mark)).unwrap();
    assert_eq!(bench.db.read(tree::unposted).unwrap(), [1]);
}

#[test]
fn a_snapshot_is_complete_when_all_its_versions_have_a_place() {
    let bench = Bench::new();
    bench.write("large", vec![1; 200]);
    bench.scan();
    let complete = |seq| bench.db.read(|conn| tree::snapshot_complete(conn, seq)).unwrap();
    assert!(!complete(1));
    bench.place_all();
    assert!(complete(1));
    bench.db.write(|tx| tree::posted(tx, 1)).unwrap();
    bench.write("other", vec![1; 200]);
    bench.scan();
    assert!(complete(1) && !complete(2));
}

#[test]
fn a_scan_that_fails_to_record_leaves_the_catalog_as_it_was() {
    let bench = Bench::new();
    bench.write("large", vec![1; 200]);
    bench.scan();
    let before = shown(&bench.db, 1);
    bench.write("large", vec![2; 300]);
    bench
        .db
        .write::<_, DbError>(|tx| {
            Ok(tx.execute_batch("CREATE TRIGGER full BEFORE INSERT ON entry BEGIN SELECT raise(ABORT, 'full'); END")?)
        })
        .unwrap();
    bench.scan_with(&[bench.root()], Rules::default()).unwrap_err();
    bench
        .db
        .write::<_, DbError>(|tx| Ok(tx.execute_batch("DROP TRIGGER full")?))
        .unwrap();
    assert_eq!(bench.db.read(tree::snapshots).unwrap().len(), 1);
    assert_eq!(shown(&bench.db, 1), before);
    assert_eq!(bench.scan().snapshot, 2);
}

/// One thing that happens to the tree.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize),
    Folder(usize),
    Remove(usize),
    Rename(usize, usize),
    Link(usize, usize),
    Chmod(usize, u32),
    Scan,
}

const PLACES: [&[u8]; 9] = [
    b"a",
    b"b",
    b"a/x",
    b"a/y\n",
    b"b/x",
    b"b/\xff\xfe",
    b"a/x/1",
    b"a/x/2",
    b"a-b",
];

fn step() -> impl Strategy<Value = Step> {
    let place = 0..PLACES.len();
    prop_oneof![
        3 => (place.clone(), 0usize..400).prop_map(|(at, len)| Step::Write(at, len)),
        3 => place.clone().prop_map(Step::Folder),
        2 => place.clone().prop_map(Step::Remove),
        2 => (place.clone(), place.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => (place.clone(), place.clone()).prop_map(|(from, to)| Step::Link(from, to)),
        1 => (place, 0o600u32..0o700).prop_map(|(at, mode)| Step::Chmod(at, mode)),
        3 => Just(Step::Scan),
    ]
}

/// What the file system says is below the root: kind and size or target of each path.
fn model(root: &Path) -> BTreeMap<Vec<u8>, (EntryKind, u64, u64)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = if meta.is_dir() {
            EntryKind::Directory
        } else {
            EntryKind::File
        };
        let size = if meta.is_dir() { 0 } else { meta.len() };
        found.insert(
            path.as_os_str().as_bytes().to_vec(),
            (kind, size, std::os::unix::fs::MetadataExt::ino(&meta)),
        );
        if meta.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

fn apply(root: &Path, step: &Step) {
    let at = |index: usize| root.join(std::ffi::OsStr::from_bytes(PLACES[index]));
    // Steps that make no sense now are no steps.
    let _ = match step {
        Step::Write(place, len) => fs::write(at(*place), vec![7; *len]),
        Step::Folder(place) => fs::create_dir(at(*place)),
        Step::Remove(place) => fs::remove_dir_all(at(*place)).or_else(|_| fs::remove_file(at(*place))),
        Step::Rename(from, to) => fs::rename(at(*from), at(*to)),
        Step::Link(from, to) => fs::hard_link(at(*from), at(*to)),
        Step::Chmod(place, mode) => {
            fs::set_permissions(at(*place), std::os::unix::fs::PermissionsExt::from_mode(*mode))
        }
        Step::Scan => Ok(()),
    };
}

fn seen(bench: &Bench, snapshot: u64) -> BTreeMap<Vec<u8>, (EntryKind, u64, u64)> {
    let root = bench.bytes("");
    let root = root.strip_suffix(b"/").unwrap_or(&root);
    let inside = shown(&bench.db, snapshot)
        .into_iter()
        .filter(|(path, _)| path.starts_with(root));
    inside
        .map(|(path, entry)| (path, (entry.kind, entry.meta.size, entry.meta.inode)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_snapshot_shows_the_tree_of_its_time_and_logs_give_it_back(
        steps in prop::collection::vec(step(), 1..40),
        full in any::<bool>(),
    ) {
        let bench = Bench::new();
        let mut models = Vec::new();
        for step in steps.iter().chain([&Step::Scan]) {
            apply(&bench.root(), step);
            if matches!(step, Step::Scan) {
                let summary = bench.scan_as(|options| options.emptied = Emptied::ForGood).unwrap();
                prop_assert!(summary.failed.is_empty());
                models.push(model(&bench.root()));
                let files = models.last().unwrap().values().filter(|(kind, ..)| *kind != EntryKind::Directory);
                prop_assert_eq!(summary.files, files.count() as u64);
            }
        }
        let rebuilt = Db::in_memory(MIGRATIONS).unwrap();
        for (at, model) in models.iter().enumerate() {
            let seq = at as u64 + 1;
            prop_assert_eq!(&seen(&bench, seq), model);
            replay(&rebuilt, records(&bench.db, seq, full && at % 2 == 0));
        }
        for seq in 1..=models.len() as u64 {
            prop_assert_eq!(shown(&rebuilt, seq), shown(&bench.db, seq));
        }
    }
}
