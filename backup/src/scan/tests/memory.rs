//! Scans of a tree in memory, where things happen that no disk does when a test asks for it: file systems come and go, a
//! folder is replaced just before it is opened, one entry cannot be read, the clock goes back.

use std::sync::atomic::{AtomicBool, Ordering};

use proto::log_record::Xattr;
use rustix::io::Errno;

use super::*;
use crate::source::tests::memory::{Call, MemoryTree};

/// A catalog, and a tree whose root is `/r`.
struct TreeBench {
    tree: MemoryTree,
    bench: Bench,
}

impl TreeBench {
    fn new() -> Self {
        let tree = MemoryTree::new();
        tree.folder("/r");
        let bench = Bench::new();
        Self { tree, bench }
    }

    fn scan(&self) -> ScanSummary {
        self.scan_as(|_| {})
    }

    fn scan_as(&self, change: impl FnOnce(&mut ScanOptions)) -> ScanSummary {
        let mut options = self.bench.options();
        options.roots = vec!["/r".into()];
        options.one_file_system = false;
        change(&mut options);
        scan_of(&self.tree, &self.bench.db, &self.bench.queue, &options, &|_, _| {}).unwrap()
    }

    fn entry(&self, snapshot: u64, path: &str) -> Option<Entry> {
        self.bench.entry(snapshot, path)
    }

    fn has(&self, snapshot: u64, path: &str) -> bool {
        self.entry(snapshot, path).is_some()
    }

    /// What logs give back of these snapshots is what the catalog shows of them.
    fn logs_give_back(&self, snapshots: std::ops::RangeInclusive<u64>) {
        let rebuilt = Db::in_memory(MIGRATIONS).unwrap();
        for seq in snapshots.clone() {
            replay(&rebuilt, records(&self.bench.db, seq, false));
        }
        for seq in snapshots {
            assert_eq!(shown(&rebuilt, seq), shown(&self.bench.db, seq));
        }
    }
}

fn kinds(summary: &ScanSummary) -> Vec<(&str, FailureKind)> {
    let failed = summary.failed.iter();
    failed
        .map(|failure| (failure.path.to_str().unwrap(), failure.kind))
        .collect()
}

#[test]
fn an_unmounted_disk_is_kept_until_it_is_said_to_be_emptied() {
    for is_gone in [false, true] {
        let bench = TreeBench::new();
        bench.tree.folder("/r/disk");
        bench.tree.mount("/r/disk");
        bench.tree.folder("/r/disk/sub");
        bench.tree.write("/r/disk/sub/large", vec![1; 200]);
        bench.tree.write("/r/other", "x");
        assert!(bench.scan().failed.is_empty());
        bench.tree.unmount("/r/disk");
        if is_gone {
            bench.tree.remove("/r/disk");
        } else {
            bench.tree.write("/r/disk/NOT_MOUNTED", "x");
        }
        for _ in 0..2 {
            let summary = bench.scan();
            assert_eq!(kinds(&summary), [("/r/disk", FailureKind::Emptied)]);
            assert_eq!((summary.files, summary.files_gone), (2, 0));
            assert!(bench.has(summary.snapshot, "/r/disk/sub/large"));
            assert!(!bench.has(summary.snapshot, "/r/disk/NOT_MOUNTED"));
        }
        let accepted = bench.scan_as(|options| options.emptied = Emptied::ForGood);
        assert!(accepted.failed.is_empty());
        assert!(!bench.has(accepted.snapshot, "/r/disk/sub/large"));
        assert_eq!(bench.has(accepted.snapshot, "/r/disk/NOT_MOUNTED"), !is_gone);
        bench.logs_give_back(1..=4);
    }
}

#[test]
fn an_unmounted_disk_that_a_rule_leaves_out_is_left_out() {
    let bench = TreeBench::new();
    bench.tree.folder("/r/disk");
    bench.tree.mount("/r/disk");
    bench.tree.write("/r/disk/large", vec![1; 200]);
    bench.scan();
    bench.tree.unmount("/r/disk");
    let summary = bench.scan_as(|options| options.rules = Rules::new(&["disk/"]).unwrap());
    assert!(summary.failed.is_empty());
    assert!(!bench.has(2, "/r/disk"));
}

#[test]
fn other_file_systems_go_when_they_are_no_longer_entered_unless_they_are_named() {
    let bench = TreeBench::new();
    bench.tree.folder("/r/disk");
    bench.tree.mount("/r/disk");
    bench.tree.folder("/r/disk/named");
    bench.tree.write("/r/disk/named/file", "content");
    let scan = |named: Option<&str>, one_file_system| {
        let summary = bench.scan_as(|options| {
            options.roots.extend(named.map(PathBuf::from));
            options.one_file_system = one_file_system;
        });
        summary.snapshot
    };
    let file = "/r/disk/named/file";
    let all = scan(None, false);
    assert!(bench.has(all, file) && bench.has(all, "/r/disk"));
    for _ in 0..2 {
        let one = scan(None, true);
        assert!(
            !bench.has(one, file) && bench.has(one, "/r/disk"),
            "the mount point itself stays"
        );
    }
    assert!(bench.has(scan(Some("/r/disk/named"), true), file));
    assert!(bench.has(scan(None, false), file));
    bench.logs_give_back(1..=5);
}

#[test]
fn an_unreadable_root_keeps_what_is_known_of_it() {
    let bench = TreeBench::new();
    for name in ["a", "b"] {
        bench.tree.folder(&format!("/{name}"));
        bench.tree.write(format!("/{name}/large"), vec![1; 200]);
    }
    let scan = || bench.scan_as(|options| options.roots = vec!["/a".into(), "/b".into()]);
    scan();
    bench.tree.fail("/a", Call::OpenFolder, Errno::ACCESS);
    let summary = scan();
    assert_eq!(kinds(&summary), [("/a", FailureKind::Unreadable)]);
    assert!(bench.has(2, "/a/large") && bench.has(2, "/b/large"));
}

/// A disk that is dying gives errors for some of what is on it.
#[test]
fn one_entry_and_one_folder_that_cannot_be_read_are_named_and_kept_and_the_rest_goes_on() {
    let bench = TreeBench::new();
    bench.tree.folder("/r/bad");
    bench.tree.write("/r/bad/below", vec![1; 200]);
    bench.tree.write("/r/file", vec![2; 200]);
    bench.scan();
    bench.tree.fail("/r/file", Call::Examine, Errno::IO);
    bench.tree.fail("/r/bad", Call::List, Errno::IO);
    bench.tree.write("/r/new", vec![3; 200]);
    for _ in 0..2 {
        let summary = bench.scan();
        let unreadable = ["/r/bad", "/r/file"].map(|path| (path, FailureKind::Unreadable));
        assert_eq!(kinds(&summary), unreadable);
        assert_eq!(summary.files_gone, 0);
        assert!(
            ["/r/bad/below", "/r/file", "/r/new"]
                .iter()
                .all(|path| bench.has(summary.snapshot, path))
        );
    }
    bench.tree.mend();
    let summary = bench.scan();
    assert!(summary.failed.is_empty() && summary.unchanged, "{summary:?}");
    bench.logs_give_back(1..=4);
}

#[test]
fn a_folder_that_is_replaced_before_it_is_opened_is_not_taken_for_the_one_that_was_listed() {
    let bench = TreeBench::new();
    for folder in ["/r/a", "/other"] {
        bench.tree.folder(folder);
    }
    bench.tree.write("/r/a/mine", vec![1; 200]);
    bench.tree.write("/other/secret", vec![2; 200]);
    bench.scan();
    bench.tree.before("/r/a", Call::OpenFolder, |tree| {
        tree.rename("/r/a", "/away");
        tree.rename("/other", "/r/a");
    });
    let summary = bench.scan();
    assert_eq!(kinds(&summary), [("/r/a", FailureKind::Unreadable)]);
    assert!(bench.has(2, "/r/a/mine") && !bench.has(2, "/r/a/secret"));
    bench.tree.mend();
    assert!(bench.scan().failed.is_empty());
    assert!(!bench.has(3, "/r/a/mine") && bench.has(3, "/r/a/secret"));
}

#[test]
fn a_link_put_in_place_of_a_folder_leads_nowhere() {
    let bench = TreeBench::new();
    for folder in ["/r/a", "/other"] {
        bench.tree.folder(folder);
    }
    bench.tree.write("/other/secret", vec![2; 200]);
    bench.tree.before("/r/a", Call::OpenFolder, |tree| {
        tree.remove("/r/a");
        tree.link("/r/a", "/other");
    });
    assert!(bench.scan().failed.is_empty(), "the next scan sees what became of it");
    bench.tree.mend();
    bench.scan();
    for seq in [1, 2] {
        assert!(!shown(&bench.bench.db, seq).keys().any(|path| path.ends_with(b"secret")));
    }
    let link = Content::Inline(b"/other".to_vec());
    assert_eq!(bench.entry(2, "/r/a").unwrap().content, link);
}

#[test]
fn a_file_that_vanishes_from_a_folder_while_it_is_looked_at_is_no_failure() {
    let bench = TreeBench::new();
    bench.tree.folder("/r/a");
    for name in ["/r/file", "/r/a/file"] {
        bench.tree.write(name, vec![1; 200]);
    }
    bench
        .tree
        .before("/r/file", Call::Examine, |tree| tree.remove("/r/file"));
    bench.tree.before("/r/a", Call::OpenFolder, |tree| tree.remove("/r/a"));
    let summary = bench.scan();
    assert_eq!((summary.failed.len(), summary.files), (0, 0));
}

#[test]
fn an_entry_is_saved_without_the_attributes_that_cannot_be_read_and_named_each_time() {
    let bench = TreeBench::new();
    bench.tree.write("/r/file", vec![1; 200]);
    let attribute = Xattr {
        name: b"user.colour".to_vec(),
        value: b"green".to_vec(),
    };
    bench
        .tree
        .set_meta("/r/file", |meta| meta.xattrs = vec![attribute.clone()]);
    bench.tree.fail("/r/file", Call::Xattrs, Errno::IO);
    for seq in 1..=2 {
        assert_eq!(kinds(&bench.scan()), [("/r/file", FailureKind::Incomplete)]);
        assert!(bench.entry(seq, "/r/file").unwrap().meta.xattrs.is_empty());
    }
    bench.tree.mend();
    bench.tree.write("/r/file", vec![2; 200]);
    assert!(bench.scan().failed.is_empty());
    assert_eq!(bench.entry(3, "/r/file").unwrap().meta.xattrs, [attribute]);
}

/// A machine whose clock was ahead, and was set right: what was written meanwhile has a time to come, and may be written
/// again within that time without showing it.
#[test]
fn files_from_before_the_clock_was_set_back_are_read_again_until_their_time_has_come() {
    let bench = TreeBench::new();
    bench.tree.write("/r/large", vec![1; 200]);
    let written = bench.tree.now_ns();
    bench.tree.set_clock(written - 3_600_000_000_000);
    assert_eq!(bench.scan().files_new, 1);
    assert!(
        bench.tree.now_ns() < written - 3_000_000_000_000,
        "nobody waits for an hour"
    );
    for _ in 0..2 {
        assert_eq!(bench.scan().files_changed, 1);
    }
    bench.tree.set_clock(written + 3_600_000_000_000);
    assert_eq!(
        bench.scan().files_changed,
        1,
        "the last time: it was suspect when it was recorded"
    );
    assert!(bench.scan().unchanged);
}

/// Written, read and written again within one tick of the clock, a file looks as it did: what was read would stay in every
/// snapshot to come.
#[test]
fn a_tiny_file_that_changes_just_after_it_was_read_is_seen_by_the_next_scan() {
    let bench = TreeBench::new();
    bench.tree.write("/r/tiny", "one");
    let written = AtomicBool::new(false);
    // Asked twice: the second time is after its bytes were read.
    bench.tree.before("/r/tiny", Call::Stat, move |tree| {
        if written.swap(true, Ordering::Relaxed) {
            tree.write("/r/tiny", "two");
        }
    });
    bench.scan();
    assert_ne!(
        bench.entry(1, "/r/tiny").unwrap().content,
        Content::Inline(b"one".to_vec())
    );
    bench.tree.mend();
    bench.scan();
    assert_eq!(
        bench.entry(2, "/r/tiny").unwrap().content,
        Content::Inline(b"two".to_vec())
    );
}

/// What a remote source pays for is calls.
#[test]
fn an_unchanged_tree_costs_two_calls_a_folder_one_an_entry_and_opens_no_file() {
    let bench = TreeBench::new();
    for folder in 0..20 {
        bench.tree.folder(&format!("/r/{folder}"));
        for file in 0..30 {
            bench.tree.write(format!("/r/{folder}/{file}"), vec![1; 200]);
        }
        bench.tree.write(format!("/r/{folder}/tiny"), "x");
    }
    bench.scan();
    let first = bench.tree.counts();
    assert_eq!(
        (first[&Call::OpenFile], first[&Call::Stat]),
        (20, 40),
        "tiny files alone are opened"
    );
    assert!(bench.scan().unchanged);
    let counts = bench.tree.counts();
    assert_eq!((counts[&Call::OpenFolder], counts[&Call::List]), (21, 21));
    // Entries, the root on its way, and once more what leads to it.
    assert!(counts[&Call::Examine] <= 20 + 20 * 31 + 4, "{counts:?}");
    assert!(
        [Call::OpenFile, Call::Stat, Call::Read, Call::Xattrs]
            .iter()
            .all(|call| !counts.contains_key(call))
    );
}
