//! Runs over a tree in memory: files that change, break off, lie about their length or are replaced while they are read.

use std::sync::atomic::AtomicUsize;

use rustix::io::Errno;

use super::*;
use crate::scan::scan_of;
use crate::source::tests::memory::{Call, MemoryTree};

/// A tree with these files below `/r`.
fn tree(files: &[(&str, Vec<u8>)]) -> MemoryTree {
    let tree = MemoryTree::new();
    tree.folder("/r");
    for (name, content) in files {
        tree.write(*name, content.clone());
    }
    tree
}

impl Bench {
    fn scan_tree(&self, writer: &Writer, tree: &MemoryTree) {
        let options = ScanOptions {
            one_file_system: false,
            ..self.options(vec!["/r".into()])
        };
        let summary = scan_of(tree, &self.db, &writer.queue, &options, &|_, _| {}).unwrap();
        assert!(summary.failed.is_empty(), "{:?}", summary.failed);
    }

    fn run_tree(&self, writer: &Writer, tree: &MemoryTree) -> WriteSummary {
        writer.run_from(tree, &AtomicBool::new(false), &|_| {}).unwrap()
    }

    fn backup_tree(&self, tree: &MemoryTree) -> WriteSummary {
        let writer = self.writer();
        self.scan_tree(&writer, tree);
        self.run_tree(&writer, tree)
    }
}

fn failed(summary: &WriteSummary) -> Vec<(&str, &str)> {
    let failed = summary.failed.iter();
    failed
        .map(|(path, reason)| (path.to_str().unwrap(), reason.as_str()))
        .collect()
}

#[test]
fn a_file_that_changes_while_it_is_read_is_read_again_and_never_torn() {
    for bytes in [3000, 300_000] {
        let bench = Bench::new();
        let (old, new) = (noise(1, bytes), noise(2, bytes));
        let tree = tree(&[("/r/file", old)]);
        let writer = bench.writer();
        bench.scan_tree(&writer, &tree);
        tree.read_bytes_max(bytes / 3);
        let (reads, late) = (AtomicUsize::new(0), new.clone());
        tree.before("/r/file", Call::Read, move |tree| {
            if reads.fetch_add(1, Ordering::Relaxed) == 2 {
                tree.write("/r/file", late.clone());
            }
        });
        let summary = bench.run_tree(&writer, &tree);
        assert!(summary.failed.is_empty(), "{:?}", summary.failed);
        assert!(bench.cat(&bench.db, "/r/file") == new);
        assert_eq!(bench.waiting_jobs(), 0);
    }
}

#[test]
fn a_source_that_gives_a_little_at_a_time_gives_all() {
    let bench = Bench::new();
    let files = [("/r/small", noise(1, 3000)), ("/r/large", noise(2, 300_000))];
    let tree = tree(&files);
    tree.read_bytes_max(77);
    assert!(bench.backup_tree(&tree).failed.is_empty());
    for (name, content) in &files {
        assert!(bench.cat(&bench.db, name) == *content, "{name}");
    }
}

#[test]
fn a_file_that_cannot_be_read_to_its_end_is_named_and_the_others_are_safe() {
    let bench = Bench::new();
    let tree = tree(&[("/r/good", noise(1, 100_000)), ("/r/bad", noise(2, 300_000))]);
    tree.read_bytes_max(100_000);
    let reads = AtomicUsize::new(0);
    tree.before("/r/bad", Call::Read, move |tree| {
        if reads.fetch_add(1, Ordering::Relaxed) == 2 {
            tree.fail("/r/bad", Call::Read, Errno::IO);
        }
    });
    let summary = bench.backup_tree(&tree);
    assert!(matches!(failed(&summary)[..], [("/r/bad", reason)] if reason.contains("os error 5")));
    assert!(bench.newest("/r/bad").is_none());
    assert!(bench.cat(&bench.db, "/r/good") == noise(1, 100_000));
    tree.mend();
    assert!(bench.backup_tree(&tree).failed.is_empty());
    assert!(bench.cat(&bench.db, "/r/bad") == noise(2, 300_000));
}

#[test]
fn a_file_of_another_length_than_it_says_is_named_so() {
    let tellings = [(200_000, "It ends before"), (100, "It goes on behind")];
    for (said, reason) in tellings {
        let bench = Bench::new();
        let tree = tree(&[("/r/liar", noise(1, 100_000))]);
        tree.says_bytes("/r/liar", said);
        // Said of it while it may be read: nobody waits for a state that never comes.
        let summary = bench.backup_tree(&tree);
        let found = failed(&summary);
        assert!(
            matches!(found[..], [("/r/liar", why)] if why.starts_with(reason)),
            "{found:?}"
        );
        assert_eq!(bench.waiting_jobs(), 0);
    }
}

#[test]
fn a_file_that_says_it_is_empty_is_saved_with_all_it_has() {
    let bench = Bench::new();
    let tree = tree(&[("/r/unsized", noise(1, 100_000))]);
    tree.says_bytes("/r/unsized", 0);
    assert!(bench.backup_tree(&tree).failed.is_empty());
    assert!(bench.cat(&bench.db, "/r/unsized") == noise(1, 100_000));
}

#[test]
fn a_link_put_in_place_of_a_file_is_never_followed() {
    let bench = Bench::new();
    let tree = tree(&[("/r/file", noise(1, 100_000))]);
    let writer = bench.writer();
    bench.scan_tree(&writer, &tree);
    tree.write("/secret", noise(2, 100_000));
    tree.before("/r/file", Call::OpenFile, |tree| {
        tree.remove("/r/file");
        tree.link("/r/file", "/secret");
    });
    let summary = bench.run_tree(&writer, &tree);
    assert_eq!(failed(&summary), [("/r/file", "It is no longer a regular file")]);
    assert_eq!(summary.bytes_read, 0);
}

#[test]
fn a_file_on_a_disk_that_was_taken_away_waits_and_a_deleted_one_is_gone() {
    let bench = Bench::new();
    let tree = tree(&[("/r/goes", noise(1, 100_000))]);
    tree.folder("/r/disk");
    tree.mount("/r/disk");
    tree.write("/r/disk/waits", noise(2, 100_000));
    let writer = bench.writer();
    bench.scan_tree(&writer, &tree);
    tree.remove("/r/goes");
    tree.unmount("/r/disk");
    let summary = bench.run_tree(&writer, &tree);
    assert_eq!(summary.gone, 1);
    assert_eq!(
        failed(&summary),
        [("/r/disk/waits", "What it is on is not mounted any more")]
    );
    assert_eq!(bench.waiting_jobs(), 1);
    assert!(bench.newest("/r/goes").is_none() && bench.newest("/r/disk/waits").is_some());
}
