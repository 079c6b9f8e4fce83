//! The parts of the house style that a machine can see.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::layers::root;

/// Most lines of a file, without its tests.
const FILE_LINES_MAX: usize = 500;
/// Most lines of a function.
const FUNCTION_LINES_MAX: usize = 70;

/// Names of files that are test modules of the file they lie beside.
const TEST_FILES: &[&str] = &["tests", "frozen", "metadata_golden", "fixtures"];

/// What makes a name or its bytes durable, or a file take another's place: for `base/durable` alone, whose functions do it in
/// the right order and are tested with a power cut after each step.
const DISK_CALLS: &[&str] = &[
    "fs::rename",
    "fs::hard_link",
    "renameat",
    "fs::linkat(",
    "sync_all(",
    "sync_data(",
    "fsync(",
    "fdatasync(",
];

/// Files that call them all the same, what they call, and why.
const DISK_CALLERS: &[(&str, &[&str], &str)] = &[
    (
        "backup/src/restore/verify.rs",
        &["sync_data("],
        "only clean pages can be dropped from the cache, and only then what is read back comes from the disk",
    ),
    (
        "backup/src/restore/write.rs",
        &["fs::rename", "renameat", "fs::linkat("],
        "restored files are reached by the descriptor of their folder, so that no link leads out of the target",
    ),
    (
        "publish/src/restore/fetch.rs",
        &["fs::rename"],
        "restored files are the user's: like any copy they are promised to be whole, not to be durable",
    ),
    (
        "node/mount/src/disk/answers.rs",
        &["fsync("],
        "answers the kernel's: the name is the trait's, and nothing is called",
    ),
    (
        "node/src/cli/demo/folder.rs",
        &["fs::hard_link"],
        "the demo's folder has a hard link for the backup to keep",
    ),
];

pub fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in [
        "base",
        "proto",
        "upload-queue",
        "backup",
        "disk",
        "s3",
        "publish",
        "node",
        "fuzz",
        "tests",
    ] {
        list(&root().join(folder), &mut files);
    }
    assert!(files.len() > 30, "the source files are found");
    files
}

fn list(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("source folders can be listed").flatten() {
        let path = entry.path();
        if path.is_dir() {
            list(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push(path);
        }
    }
}

/// A file's lines up to its test module.
fn code(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("source files are UTF-8");
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .map(str::to_owned)
        .collect()
}

fn is_test(path: &Path) -> bool {
    path.strip_prefix(root()).is_ok_and(|path| path.starts_with("tests"))
        || path.components().any(|part| part.as_os_str() == "tests")
        || path
            .file_stem()
            .is_some_and(|stem| TEST_FILES.iter().any(|name| stem == *name))
}

/// rustfmt sorts what stands together, and does not put what belongs together in one place.
#[test]
fn imports_stand_in_three_groups() {
    let group_of = |line: &str| match line.trim_start_matches("use ").split([':', ';', ' ']).next() {
        Some("std" | "core" | "alloc") => 0,
        Some("crate" | "self" | "super") => 2,
        _ => 1,
    };
    let is_sorted = |path: &PathBuf| {
        let lines = code(path);
        let begins = |line: &&String| line.starts_with("use ");
        let head = lines.iter().skip_while(|line| !begins(line));
        let head = head.take_while(|line| {
            line.is_empty() || begins(line) || line.starts_with([' ', '}']) && !line.ends_with(['{', ')'])
        });
        let mut last = None;
        let mut is_apart = true;
        head.filter(|line| line.is_empty() || begins(line)).all(|line| {
            if line.is_empty() {
                is_apart = true;
                return true;
            }
            let group = group_of(line);
            let fits = last.is_none_or(|last| if is_apart { group > last } else { group == last });
            (last, is_apart) = (Some(group), false);
            fits
        })
    };
    let mixed: Vec<_> = sources().into_iter().filter(|path| !is_sorted(path)).collect();
    assert!(mixed.is_empty(), "not std, other crates, this crate, apart: {mixed:?}");
}

#[test]
fn files_fit_in_the_head() {
    let long: Vec<_> = sources()
        .into_iter()
        .filter(|path| !is_test(path) && code(path).len() > FILE_LINES_MAX)
        .collect();
    assert!(long.is_empty(), "over {FILE_LINES_MAX} lines: {long:?}");
}

#[test]
fn files_say_what_they_are_for() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|path| !is_test(path) && !code(path).iter().any(|line| line.starts_with("//!")))
        .collect();
    assert!(silent.is_empty(), "no `//!` at the top: {silent:?}");
}

#[test]
fn functions_fit_on_a_screen() {
    let mut long = Vec::new();
    for path in sources().into_iter().filter(|path| !is_test(path)) {
        let mut open: Option<(usize, usize)> = None;
        for (number, line) in code(&path).iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let starts = line.trim_start().split("fn ").next().is_some_and(|before| {
                before
                    .split_whitespace()
                    .all(|word| word.starts_with("pub") || word == "async" || word == "const")
            }) && line.contains("fn ");
            match open {
                None if starts && !line.trim_end().ends_with([';', '}']) => open = Some((number, indent)),
                Some((start, outer)) if indent == outer && line.trim() == "}" => {
                    if number - start >= FUNCTION_LINES_MAX {
                        long.push(format!("{}:{}", path.display(), start + 1));
                    }
                    open = None;
                }
                Some((_, outer)) if indent == outer && line.trim_end().ends_with(';') => open = None,
                _ => {}
            }
        }
    }
    assert!(long.is_empty(), "functions over {FUNCTION_LINES_MAX} lines: {long:#?}");
}

#[test]
fn nothing_is_unfinished() {
    let marks = ["todo!(", "unimplemented!(", "#[ignore", "FIXME", "XXX"];
    let mut found = Vec::new();
    for path in sources().into_iter().filter(|path| !path.ends_with("tests/tidy.rs")) {
        let text = std::fs::read_to_string(&path).expect("source files are UTF-8");
        for (number, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn nothing_outside_of_tests_unwraps() {
    let mut found = Vec::new();
    for path in sources().into_iter().filter(|path| !is_test(path)) {
        for (number, line) in code(&path).iter().enumerate() {
            if line.contains(".unwrap()") && !line.trim_start().starts_with("//") {
                found.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn only_durable_calls_the_disk() {
    let (mut found, mut excused) = (BTreeSet::new(), BTreeSet::new());
    for path in sources().into_iter().filter(|path| !is_test(path)) {
        let name = path.strip_prefix(root()).expect("sources lie in the checkout");
        if name.starts_with("base/durable") {
            continue;
        }
        let exception = DISK_CALLERS.iter().find(|(caller, ..)| name == Path::new(caller));
        for (number, line) in code(&path).iter().enumerate() {
            let is_comment = line.trim_start().starts_with("//");
            for call in DISK_CALLS.iter().filter(|call| !is_comment && line.contains(**call)) {
                match exception {
                    Some((caller, calls, _)) if calls.contains(call) => drop(excused.insert((*caller, *call))),
                    _ => drop(found.insert(format!("{}:{}: {call}", name.display(), number + 1))),
                }
            }
        }
    }
    assert!(found.is_empty(), "use a function of base/durable: {found:#?}");
    let listed = DISK_CALLERS
        .iter()
        .flat_map(|(caller, calls, _)| calls.iter().map(|call| (*caller, *call)));
    assert_eq!(excused, listed.collect(), "exceptions that are not needed any more");
}

#[test]
fn no_test_file_is_forgotten() {
    let runner = std::fs::read_to_string(root().join("tests/runner.rs")).expect("this binary has a source");
    let mut here = BTreeSet::new();
    for folder in ["tests", "tests/e2e"] {
        for entry in std::fs::read_dir(root().join(folder))
            .expect("the folder of tests is there")
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".rs") && name != "runner.rs" {
                here.insert(if folder == "tests" { name } else { format!("e2e/{name}") });
            }
        }
    }
    let forgotten: Vec<_> = here
        .into_iter()
        .filter(|name| !runner.contains(&format!("\"{name}\"")))
        .collect();
    assert!(forgotten.is_empty(), "not in tests/runner.rs: {forgotten:?}");
}
