//! GLOSSARY.md is true of the code: what it names is there, and words do not come back in a meaning that they gave up.

use std::collections::HashSet;
use std::path::Path;

use crate::layers::root;
use crate::tidy::sources;

/// What a word that was given up looked like: where (a path's beginning), what, and what is said instead.
///
/// Names only, as whole identifiers: in prose a word may be needed for something else.
const GIVEN_UP: &[(&str, &[&str], &str)] = &[
    (
        "upload-queue/src/uploader",
        &["ticket", "tickets", "Ticket"],
        "`Waiting`: a ticket is an invitation",
    ),
    (
        "publish/src",
        &["lease", "Lease", "LEASE", "lease_secs"],
        "`Term`: a lease is a job's",
    ),
    (
        "publish/src",
        &["Index", "IndexError", "index_path", "open_index"],
        "`Inventory`: an index is a kind of section",
    ),
    (
        "backup/src",
        &[
            "publish",
            "publishing",
            "Published",
            "unpublished",
            "publish_head",
            "publish_interval",
        ],
        "`post`: only sites are published",
    ),
    (
        "node/engine/src",
        &["publish_head", "unpublished"],
        "`post_head`: only sites are published",
    ),
    (
        "node/friendnet/src",
        &["publish", "Publish"],
        "`tell_addresses`: only sites are published",
    ),
    ("backup/src", &["ledger", "Ledger"], "`in_flight`: the ledger is care's"),
    (
        "backup/src",
        &["Pages", "PAGE_ROWS", "PAGE_ENTRIES", "PAGES_MAX"],
        "`batch`: pages are of the web",
    ),
    (
        "upload-queue/src",
        &["page", "pages", "Pages"],
        "`Batches`: pages are of the web",
    ),
    ("s3/src", &["page", "pages", "Page"], "`Batch`: pages are of the web"),
    (
        "proto/src",
        &["fit_roots"],
        "`source_roots`: the root is what a head points to",
    ),
];

/// Files where a word in that list is somebody else's.
const ELSEWHERE: &[(&str, &str)] = &[
    // The ending of a file of Apple's.
    ("upload-queue/src/priority.rs", "pages"),
];

/// The identifiers of a piece of text.
fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// What stands in code font.
fn in_code_font(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn what_the_glossary_names_is_in_the_code() {
    let glossary = std::fs::read_to_string(root().join("GLOSSARY.md")).expect("the glossary is there");
    let texts: Vec<String> = sources()
        .into_iter()
        .filter(|path| !path.ends_with("tests/words.rs"))
        .map(|path| std::fs::read_to_string(path).expect("source files are UTF-8"))
        .collect();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let code = texts.iter().flat_map(|text| text.lines().filter(is_code));
    let known: HashSet<&str> = code.flat_map(identifiers).collect();
    let is_path = |name: &str| name.contains('/');
    let missing: Vec<&str> = in_code_font(&glossary)
        .filter(|name| !is_path(name))
        .flat_map(|name| identifiers(name).filter(|part| !known.contains(part)))
        .collect();
    assert!(missing.is_empty(), "GLOSSARY.md names what is not there: {missing:?}");
    let nameless: Vec<&str> = glossary
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| word "))
        .filter(|line| !line.rsplit('|').nth(1).is_some_and(|names| names.contains('`')))
        .collect();
    assert!(nameless.is_empty(), "words without a name in the code: {nameless:#?}");
}

#[test]
fn no_word_comes_back_in_a_meaning_it_gave_up() {
    let mut found = Vec::new();
    for path in sources() {
        let name = path.strip_prefix(root()).expect("sources lie in the checkout");
        let text = std::fs::read_to_string(&path).expect("source files are UTF-8");
        for (_, words, instead) in GIVEN_UP.iter().filter(|(folder, ..)| is_in(name, folder)) {
            for (number, line) in text.lines().enumerate() {
                let names = without_texts(line);
                let again = identifiers(&names).find(|word| {
                    words.contains(word)
                        && !ELSEWHERE
                            .iter()
                            .any(|(file, own)| name == Path::new(file) && own == word)
                });
                if let Some(word) = again {
                    found.push(format!("{}:{}: {word}: {instead}", name.display(), number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Whether a file is `folder` with an ending, or below it.
fn is_in(file: &Path, folder: &str) -> bool {
    file.starts_with(folder) || file.with_extension("") == Path::new(folder)
}

/// A line of code without its comment, and without what is in quotes: SQL, messages, what is written down.
fn without_texts(line: &str) -> String {
    if line.contains("r#\"") {
        return String::new();
    }
    let code = line.split("//").next().unwrap_or_default();
    code.split('"').step_by(2).collect::<Vec<_>>().join(" ")
}
