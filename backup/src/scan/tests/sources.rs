//! Sources that are not as they were, or not as they say: missing, unmounted, over a limit, empty with content, this
//! program's own.

use std::ffi::{CString, OsStr};

use proto::record::PATH_BYTES_MAX;
use proto::section::SectionWriter;
use rustix::fs::{Mode, OFlags};

use super::*;

fn kinds(summary: &ScanSummary) -> Vec<(PathBuf, FailureKind)> {
    let failed = summary.failed.iter();
    failed.map(|failure| (failure.path.clone(), failure.kind)).collect()
}

#[test]
fn what_was_never_there_fails_a_scan_only_when_it_is_all_there_is() {
    let bench = Bench::new();
    let gone = bench.path("gone");
    let error = bench
        .scan_with(std::slice::from_ref(&gone), Rules::default())
        .unwrap_err();
    assert!(matches!(error, ScanError::Root { path, .. } if path == gone));
    assert!(bench.db.read(tree::snapshots).unwrap().is_empty());
    fs::create_dir(bench.path("there")).unwrap();
    bench.write("there/file", "content");
    let roots = [gone.clone(), bench.path("there")];
    let summary = bench.scan_with(&roots, Rules::default()).unwrap();
    assert_eq!(kinds(&summary), [(gone, FailureKind::Missing)]);
    assert!(bench.entry(1, "there/file").is_some());
    let snapshot = bench.db.read(tree::snapshots).unwrap().remove(0);
    assert_eq!(snapshot.record.source_roots.len(), 1, "nothing is known of the other");
}

#[test]
fn a_missing_root_keeps_what_is_known_of_it_and_the_others_go_on() {
    let bench = Bench::new();
    for name in ["a", "b"] {
        fs::create_dir_all(bench.path(name).join("sub")).unwrap();
        bench.write(format!("{name}/sub/large"), vec![1; 200]);
    }
    bench.write("single", "one");
    std::os::unix::fs::symlink(bench.path("a"), bench.path("way")).unwrap();
    let roots = ["way", "b", "single"].map(|name| bench.path(name));
    let first = bench.scan_with(&roots, Rules::default()).unwrap();
    fs::rename(bench.path("a"), bench.path("away")).unwrap();
    fs::rename(bench.path("single"), bench.path("else")).unwrap();
    bench.write("b/new", "new");
    for _ in 0..2 {
        let summary = bench.scan_with(&roots, Rules::default()).unwrap();
        let missing = [bench.path("a"), bench.path("single")].map(|path| (path, FailureKind::Missing));
        assert_eq!(kinds(&summary), missing);
        assert_eq!(
            (summary.files, summary.files_gone),
            (first.files + 2, 0),
            "a new file and the link"
        );
        let seen = |name: &str| bench.entry(summary.snapshot, name).is_some();
        assert!(seen("a/sub/large") && seen("b/sub/large") && seen("b/new") && seen("single"));
    }
    let rebuilt = Db::in_memory(MIGRATIONS).unwrap();
    (1..=3).for_each(|seq| replay(&rebuilt, records(&bench.db, seq, false)));
    (1..=3).for_each(|seq| assert_eq!(shown(&rebuilt, seq), shown(&bench.db, seq)));
    fs::rename(bench.path("away"), bench.path("a")).unwrap();
    fs::rename(bench.path("else"), bench.path("single")).unwrap();
    let back = bench.scan_with(&roots, Rules::default()).unwrap();
    assert_eq!((back.failed.len(), back.files_gone, back.files_new), (0, 0, 0));
    assert_eq!(back.files, first.files + 1);
}

#[test]
fn an_empty_root_is_kept_until_it_is_said_to_be_emptied() {
    let bench = Bench::new();
    bench.write("large", vec![1; 200]);
    bench.scan();
    fs::remove_file(bench.path("large")).unwrap();
    for _ in 0..2 {
        let summary = bench.scan();
        assert_eq!(kinds(&summary), [(bench.root(), FailureKind::Emptied)]);
        assert!(bench.entry(summary.snapshot, "large").is_some());
    }
    let accepted = bench.scan_as(|options| options.emptied = Emptied::ForGood).unwrap();
    assert_eq!((accepted.failed.len(), accepted.files_gone), (0, 1));
    assert!(bench.scan().failed.is_empty());
}

#[test]
fn a_folder_that_is_emptied_and_was_no_mount_point_is_empty() {
    let bench = Bench::new();
    fs::create_dir(bench.path("downloads")).unwrap();
    bench.write("downloads/large", vec![1; 200]);
    bench.scan();
    fs::remove_file(bench.path("downloads/large")).unwrap();
    let summary = bench.scan();
    assert_eq!((summary.failed.len(), summary.files_gone), (0, 1));
    assert!(bench.entry(2, "downloads/large").is_none());
}

#[test]
fn its_own_state_is_left_out_by_whatever_name_it_goes() {
    for name in [
        &b"gb[1]home"[..],
        b"back\\slash",
        b"caf\xe9",
        b"st*r",
        b"{a,b}",
        b"!x",
        b"#x",
        b" ",
    ] {
        let bench = Bench::new();
        let own = bench.path(OsStr::from_bytes(name));
        fs::create_dir_all(own.join("spool")).unwrap();
        fs::write(own.join("catalog.db"), "x").unwrap();
        bench.write("file", "x");
        std::os::unix::fs::symlink(&own, bench.path("way")).unwrap();
        let scan = |root: PathBuf, own: PathBuf| {
            bench.scan_as(|options| {
                options.roots = vec![root, bench.path("file")];
                options.own_state = vec![own];
            })
        };
        scan(bench.root(), bench.path("way")).unwrap();
        assert!(bench.entry(1, "file").is_some());
        assert!(
            bench.entry(1, OsStr::from_bytes(name)).is_none(),
            "{}",
            name.escape_ascii()
        );
        for root in [bench.path("way"), own.join("spool")] {
            let summary = scan(root, own.clone()).unwrap();
            assert_eq!(summary.failed[0].kind, FailureKind::OwnState);
        }
        assert!(bench.entry(3, OsStr::from_bytes(name)).is_none());
    }
}

#[test]
fn a_store_is_left_out_and_named_and_what_lies_beside_it_is_kept() {
    let bench = Bench::new();
    for folder in [
        "disk/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/shares",
        "disk/photos",
        "plain/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    ] {
        fs::create_dir_all(bench.path(folder)).unwrap();
    }
    bench.write("disk/gridbackup-store", "gridbackup store 1\n");
    bench.write("disk/photos/cat", "cat");
    bench.write("plain/gridbackup-store", "another text");
    for root in ["", "disk"] {
        let summary = bench.scan_with(&[bench.path(root)], Rules::default()).unwrap();
        assert_eq!(summary.stores, [bench.path("disk")]);
        let parts = [
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "gridbackup-store",
        ]
        .map(|part| bench.path("disk").join(part));
        assert_eq!(summary.left_out, parts);
        let seen = |name: &str| bench.entry(summary.snapshot, name).is_some();
        assert!(
            !seen("disk/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
                && !seen("disk/gridbackup-store")
        );
        assert!(
            seen("disk/photos/cat")
                && (seen("plain/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef") || root == "disk")
        );
    }
}

#[test]
fn a_named_folder_is_kept_although_it_is_tagged_as_a_cache() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("cache/below")).unwrap();
    for folder in ["cache", "cache/below"] {
        bench.write(format!("{folder}/CACHEDIR.TAG"), crate::exclude::CACHE_TAG_SIGNATURE);
        bench.write(format!("{folder}/file"), "x");
    }
    let named = bench.scan_with(&[bench.path("cache")], Rules::default()).unwrap();
    assert!(bench.entry(named.snapshot, "cache/file").is_some());
    assert!(bench.entry(named.snapshot, "cache/below/file").is_none());
    let above = bench.scan();
    assert!(bench.entry(above.snapshot, "cache/file").is_none());
}

#[test]
fn what_is_lacking_is_named_until_the_entry_is_another_one() {
    let bench = Bench::new();
    for name in ["file", "other"] {
        bench.write(name, vec![1; 200]);
    }
    bench.scan();
    bench
        .db
        .write::<_, DbError>(|tx| {
            let (parent, name) = tree::rows::place(tx, &bench.bytes("file"))?.unwrap();
            tx.execute("INSERT INTO lacking VALUES (?, ?, 'why')", (parent, name))?;
            Ok(())
        })
        .unwrap();
    let expected = [(bench.path("file"), FailureKind::Incomplete)];
    assert_eq!(kinds(&bench.scan()), expected);
    bench.write("other", vec![2; 300]);
    assert_eq!(kinds(&bench.scan()), expected, "in a folder that changed, too");
    bench.write("file", vec![3; 300]);
    assert!(bench.scan().failed.is_empty());
    assert!(bench.scan().failed.is_empty());
}

/// A folder on a file system that takes large attributes, if there is one.
fn folder_for_attributes() -> Option<tempfile::TempDir> {
    let folders = [std::env::temp_dir(), "/dev/shm".into(), ".".into()];
    folders.into_iter().find_map(|folder| {
        let folder = tempfile::tempdir_in(folder).ok()?;
        let path = folder.path().join("probe");
        fs::write(&path, "x").ok()?;
        set_attributes(&path, 6).then_some(folder)
    })
}

fn set_attributes(path: &Path, count: usize) -> bool {
    let set = |at| xattr::set(path, format!("user.{at:04}"), &vec![7; 60_000]);
    (0..count).all(|at| set(at).is_ok())
}

#[test]
fn a_folder_with_too_many_attributes_is_kept_with_all_below_and_named_each_time() {
    let Some(folder) = folder_for_attributes() else {
        return; // no file system here takes them
    };
    let bench = Bench { folder, ..Bench::new() };
    fs::create_dir(bench.path("rich")).unwrap();
    bench.write("rich/below", "x");
    assert!(set_attributes(&bench.path("rich"), 6));
    fs::remove_file(bench.path("probe")).unwrap();
    for _ in 0..2 {
        let summary = bench.scan();
        assert_eq!(kinds(&summary), [(bench.path("rich"), FailureKind::Incomplete)]);
        assert!(summary.failed[0].reason.contains("user.000"), "{:?}", summary.failed);
    }
    let entry = bench.entry(2, "rich").unwrap();
    assert_eq!(entry.check(), Ok(()));
    assert_eq!(entry.meta.xattrs.len(), 4);
    let rebuilt = Db::in_memory(MIGRATIONS).unwrap();
    replay(&rebuilt, through_sections(records(&bench.db, 1, false)));
    assert!(shown(&rebuilt, 1).contains_key(&bench.bytes("rich/below")));
}

/// Records as they come back from the grid; none may be refused.
fn through_sections(records: Vec<proto::log_record::LogRecord>) -> Vec<proto::log_record::LogRecord> {
    let mut writer = SectionWriter::new();
    let mut sections: Vec<_> = records
        .iter()
        .filter_map(|record| writer.push(record).expect("nothing is over a limit"))
        .collect();
    sections.extend(writer.finish());
    let mut read = Vec::new();
    for section in sections {
        let bytes = proto::section::decode_kind::<proto::log_record::LogRecord>(&section).unwrap();
        read.extend(proto::section::records(&bytes).map(|record| record.unwrap()));
    }
    read
}

#[test]
fn what_lies_too_deep_is_named_and_nothing_comes_to_lie_elsewhere() {
    let bench = Bench::new();
    let mut path = bench.bytes("");
    let mut at = rustix::fs::open(bench.root(), OFlags::PATH, Mode::empty()).unwrap();
    let name = CString::new("n".repeat(250)).unwrap();
    while path.len() <= PATH_BYTES_MAX + 600 {
        rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, &name, OFlags::PATH, Mode::empty()).unwrap();
        path.extend_from_slice(b"/");
        path.extend_from_slice(name.as_bytes());
        let create = OFlags::CREATE | OFlags::WRONLY;
        rustix::fs::openat(&at, "file", create, Mode::RWXU).unwrap();
    }
    for _ in 0..2 {
        let summary = bench.scan();
        let [(failed, FailureKind::TooLong)] = &kinds(&summary)[..] else {
            panic!("{:?}", summary.failed.len())
        };
        assert!(failed.as_os_str().len() > PATH_BYTES_MAX);
    }
    let rebuilt = Db::in_memory(MIGRATIONS).unwrap();
    replay(&rebuilt, through_sections(records(&bench.db, 1, false)));
    let (seen, told) = (shown(&bench.db, 1), shown(&rebuilt, 1));
    assert!(seen == told, "{} and {}", seen.len(), told.len());
}

#[test]
fn a_file_that_says_it_is_empty_is_looked_into() {
    let version = Path::new("/proc/version");
    if fs::metadata(version).map_or(true, |meta| meta.len() > 0) {
        return; // no procfs here
    }
    let bench = Bench::new();
    bench.write("empty", "");
    let roots = [version.to_owned(), bench.root()];
    let summary = bench.scan_with(&roots, Rules::default()).unwrap();
    assert!(summary.failed.is_empty());
    let jobs: Vec<_> = bench.jobs().into_iter().map(|(path, _)| path).collect();
    assert_eq!(jobs, [b"/proc/version"]);
    assert_eq!(bench.entry(1, "empty").unwrap().content, Content::Inline(Vec::new()));
}

#[test]
fn too_many_paths_are_refused_before_anything_is_recorded() {
    let bench = Bench::new();
    let roots: Vec<PathBuf> = (0..=SNAPSHOT_ROOTS_MAX).map(|at| bench.path(at.to_string())).collect();
    roots.iter().for_each(|root| fs::write(root, "x").unwrap());
    let error = bench.scan_with(&roots, Rules::default()).unwrap_err();
    assert!(matches!(error, ScanError::TooManyRoots { count: 1025, .. }), "{error}");
    assert!(bench.db.read(tree::snapshots).unwrap().is_empty());
    assert_eq!(bench.scan_with(&roots[1..], Rules::default()).unwrap().files, 1024);
}
