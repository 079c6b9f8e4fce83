//! No files of one crate import each other in a circle, by the rules of `bench/circles.py`: whoever reads one file can read
//! on downwards, and what is moved out takes only what lies below it along.
//!
//! An import is a `use` line or a path that begins with `crate`, `self` or `super`, outside of tests. What a file offers by
//! `pub use` counts as imported from the file that it lies in. A file may take words from the files that it stands under.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::layers::{ARROWS, root};

/// A module's path from the crate's root, which is empty.
type Name = Vec<String>;

#[derive(Default)]
struct Module {
    file: PathBuf,
    children: BTreeSet<String>,
    uses: Vec<Vec<String>>,
    /// What it offers by `pub use`, and where that comes from.
    offers: BTreeMap<String, Vec<String>>,
}

/// The text of a file, if it is there.
type Source<'a> = &'a dyn Fn(&Path) -> Option<String>;

struct Crate {
    modules: BTreeMap<Name, Module>,
}

impl Crate {
    fn read(src: &Path, source: Source<'_>) -> Self {
        let mut read = Self {
            modules: BTreeMap::new(),
        };
        let tops = [src.join("lib.rs"), src.join("main.rs")];
        if let Some(top) = tops.iter().find(|top| source(top).is_some()) {
            read.add(top, Vec::new(), src, source);
        }
        read
    }

    fn add(&mut self, file: &Path, name: Name, folder: &Path, source: Source<'_>) {
        let text = without_tests(&source(file).expect("who adds a file has looked"));
        let mut module = Module {
            file: file.to_owned(),
            ..Module::default()
        };
        let mut rest = String::new();
        for statement in statements(&text) {
            match statement {
                Statement::Use { is_shown, tree } => {
                    for (path, called) in paths(&tree) {
                        if is_shown {
                            module.offers.insert(called, path.clone());
                        }
                        module.uses.push(path);
                    }
                }
                Statement::Mod(child) => {
                    let files = [folder.join(format!("{child}.rs")), folder.join(&child).join("mod.rs")];
                    if let Some(file) = files.iter().find(|file| source(file).is_some()) {
                        let child_name = [name.as_slice(), std::slice::from_ref(&child)].concat();
                        self.add(file, child_name, &folder.join(&child), source);
                        module.children.insert(child);
                    }
                }
                Statement::Other(line) => {
                    rest += line;
                    rest.push('\n');
                }
            }
        }
        module.uses.extend(inline_paths(&rest));
        self.modules.insert(name, module);
    }

    /// The module whose file holds what `path`, named in `module`, means; `None` if that is not in this crate.
    fn file_of(&self, module: &[String], path: &[String], depth: u32) -> Option<Name> {
        let mut at = module.to_vec();
        let mut path = path;
        match path.first().map(String::as_str) {
            Some("crate") => {
                at.clear();
                path = &path[1..];
            }
            Some("self" | "super") => {
                while let Some(step @ ("self" | "super")) = path.first().map(String::as_str) {
                    if step == "super" {
                        at.pop();
                    }
                    path = &path[1..];
                }
            }
            Some(first) if self.modules[module].children.contains(first) => {}
            _ => return None,
        }
        while let Some((first, rest)) = path.split_first() {
            let here = &self.modules[&at];
            // A function may have the name of its module: outside, what is offered is meant.
            if let Some(offered) = here.offers.get(first).filter(|_| rest.is_empty() && depth < 9) {
                return Some(self.file_of(&at, offered, depth + 1).unwrap_or(at));
            }
            if !here.children.contains(first) {
                break;
            }
            at.push(first.clone());
            path = rest;
        }
        Some(at)
    }

    fn arrows(&self) -> BTreeMap<&Name, BTreeSet<Name>> {
        let of_module = |(name, module): (&Name, &Module)| -> BTreeSet<Name> {
            let targets = module.uses.iter().filter_map(|path| self.file_of(name, path, 0));
            targets.filter(|to| !name.starts_with(to)).collect()
        };
        self.modules.iter().map(|entry| (entry.0, of_module(entry))).collect()
    }

    /// The files of each circle.
    fn circles(&self) -> BTreeSet<BTreeSet<&Path>> {
        let arrows = self.arrows();
        let reached: BTreeMap<&Name, BTreeSet<&Name>> =
            arrows.keys().map(|name| (*name, reach(&arrows, name))).collect();
        let circle = |name: &&Name| -> BTreeSet<&Path> {
            let back = reached[*name].iter().filter(|other| reached[**other].contains(name));
            back.map(|other| self.modules[*other].file.as_path()).collect()
        };
        reached.keys().map(circle).filter(|files| !files.is_empty()).collect()
    }
}

/// All that is imported from `name` on, directly or through others.
fn reach<'a>(arrows: &'a BTreeMap<&Name, BTreeSet<Name>>, name: &Name) -> BTreeSet<&'a Name> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&Name> = arrows[name].iter().collect();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(&arrows[next]);
        }
    }
    reached
}

/// The code of a file: no comments, nothing that is there for tests alone.
fn without_tests(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    let mut code = String::new();
    let mut at = 0;
    while at < lines.len() {
        if lines[at].trim() == "#[cfg(test)]" {
            let mut item = at + 1;
            while lines.get(item).is_some_and(|line| line.trim().starts_with("#[")) {
                item += 1;
            }
            let line = lines.get(item).copied().unwrap_or_default();
            let bare = shown(line.trim()).1;
            if bare.starts_with("mod ") && bare.ends_with('{') && line == line.trim_start() {
                break;
            }
            if bare.starts_with("use ") || (bare.starts_with("mod ") && bare.ends_with(';')) {
                while !lines[item].contains(';') {
                    item += 1;
                }
                at = item + 1;
                continue;
            }
        }
        code += lines[at];
        code.push('\n');
        at += 1;
    }
    code
}

enum Statement<'a> {
    Use { is_shown: bool, tree: String },
    Mod(String),
    Other(&'a str),
}

fn statements(code: &str) -> Vec<Statement<'_>> {
    let mut found = Vec::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let (is_shown, bare) = shown(line.trim());
        if let Some(begun) = bare.strip_prefix("use ") {
            let mut tree = begun.to_owned();
            while !tree.contains(';') {
                let Some(more) = lines.next() else { break };
                tree.push(' ');
                tree += more.trim();
            }
            let tree = tree.split(';').next().unwrap_or_default().to_owned();
            found.push(Statement::Use { is_shown, tree });
        } else if let Some(name) = bare.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            found.push(Statement::Mod(name.to_owned()));
        } else {
            found.push(Statement::Other(line));
        }
    }
    found
}

/// Whether a line begins with `pub`, and what follows.
fn shown(line: &str) -> (bool, &str) {
    match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with(' ') => (true, rest.trim_start()),
        Some(rest) if rest.starts_with('(') => (true, rest.split_once(')').map_or(rest, |(_, rest)| rest.trim_start())),
        _ => (false, line),
    }
}

/// A `use` tree as paths and the names that they get.
fn paths(tree: &str) -> Vec<(Vec<String>, String)> {
    let tree = tree.trim();
    let steps = |text: &str| -> Vec<String> {
        let steps = text.split("::").map(str::trim).filter(|step| !step.is_empty());
        steps.map(str::to_owned).collect()
    };
    let Some((head, rest)) = tree.split_once('{') else {
        let (path, called) = tree.split_once(" as ").unwrap_or((tree, ""));
        let mut path = steps(path);
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let last = path.last().cloned().unwrap_or_default();
        let called = Some(called.trim()).filter(|called| !called.is_empty());
        return vec![(path, called.map_or(last, str::to_owned))];
    };
    let head = steps(head);
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let mut found = Vec::new();
    for part in parts(inner) {
        if part == "self" {
            found.push((head.clone(), head.last().cloned().unwrap_or_default()));
        } else {
            let below = paths(part).into_iter();
            found.extend(below.map(|(path, called)| ([head.as_slice(), &path].concat(), called)));
        }
    }
    found
}

/// The parts of a list between braces.
fn parts(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(list[start..].trim());
    found.retain(|part| !part.is_empty());
    found
}

/// Paths in expressions and types that begin in this crate.
fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let is_path = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    let words = code.split(|letter| !is_path(letter));
    let paths = words.map(|word| {
        word.split("::")
            .filter(|step| !step.is_empty())
            .map(str::to_owned)
            .collect()
    });
    paths
        .filter(|path: &Vec<String>| path.len() > 1 && matches!(path[0].as_str(), "crate" | "self" | "super"))
        .collect()
}

#[test]
fn files_of_a_crate_import_downwards() {
    let source = |file: &Path| std::fs::read_to_string(file).ok();
    let mut files = 0;
    for (folder, _) in ARROWS {
        let read = Crate::read(&root().join(folder).join("src"), &source);
        files += read.modules.len();
        let circles = read.circles();
        assert!(circles.is_empty(), "files of {folder} import each other: {circles:#?}");
    }
    assert!(files > 400, "the source files are found");
}

#[test]
fn circles_are_found_and_nothing_else_is_taken_for_one() {
    let circles = |files: &[(&str, &str)]| -> Vec<Vec<String>> {
        let source = |file: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == file);
            found.map(|(_, text)| (*text).to_owned())
        };
        let read = Crate::read(Path::new(""), &source);
        let circles = read.circles();
        let name = |file: &&Path| file.display().to_string();
        circles.iter().map(|circle| circle.iter().map(name).collect()).collect()
    };
    let top = ("lib.rs", "mod a;\npub(crate) mod b;\nmod c;\npub use c::deep;\n");
    let b = ("b.rs", "use crate::c::{\n    self,\n    Word as Other,\n};\n");
    let c = ("c.rs", "fn f() -> super::a::Word {}\n");
    let there = |a: &'static str| circles(&[top, ("a.rs", a), b, c]);
    assert_eq!(there("use crate::b;\n"), [["a.rs", "b.rs", "c.rs"]]);
    assert_eq!(there("pub use super::deep;\n"), [["a.rs", "c.rs"]]);
    assert!(there("// crate::b\n#[cfg(test)]\nmod tests {\n    use crate::b;\n}\n").is_empty());
    assert!(there("#[cfg(test)]\nuse crate::{\n    b,\n};\nuse crate::Top;\n").is_empty());
    let under = [
        ("lib.rs", "mod a;"),
        ("a.rs", "mod under;\nuse under::f;"),
        ("a/under.rs", "use super::Options;"),
    ];
    assert!(circles(&under).is_empty());
}
