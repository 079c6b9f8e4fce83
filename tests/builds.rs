//! What is built, and from what: the crates that we keep with differences, and one build for the demo and the tests.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::layers::root;

/// `third-party/compare` says it where the published sources cannot be had.
const NOT_TO_BE_HAD: i32 = 3;

#[test]
fn what_is_kept_in_third_party_is_what_was_published_with_our_differences() -> Result<()> {
    for tool in ["patch", "diff"] {
        let is_there = Command::new(tool).arg("--version").output().is_ok();
        tests::needs!((!is_there).then(|| format!("there is no {tool}")));
    }
    let compared = Command::new(root().join("third-party/compare")).output()?;
    if compared.status.code() == Some(NOT_TO_BE_HAD) {
        tests::left_out::say("the published sources of third-party/ cannot be had");
        return Ok(());
    }
    let said = String::from_utf8_lossy(&compared.stdout);
    ensure!(compared.status.success(), "{said}");
    Ok(())
}

/// `cargo run -- demo` and then `cargo test --workspace` built everything twice, six minutes, when a crate of the workspace asked a
/// library for one feature more.
#[test]
fn the_demo_and_the_tests_are_one_build() -> Result<()> {
    let built = |of: &[&str], edges: &str| -> Result<BTreeSet<String>> {
        let mut tree = Command::new(env!("CARGO"));
        tree.current_dir(root())
            .args([
                "tree",
                "--offline",
                "--prefix",
                "none",
                "--no-dedupe",
                "--format",
                "{p} {f}",
            ])
            .args(["--edges", edges])
            .args(of);
        let tree = tree.output().context("cargo tree does not start")?;
        ensure!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        Ok(String::from_utf8(tree.stdout)?.lines().map(str::to_owned).collect())
    };
    let demo = built(&["--package", "node"], "normal,build")?;
    let tests = built(&["--workspace"], "normal,build,dev")?;
    let again: Vec<_> = demo.difference(&tests).collect();
    ensure!(demo.len() > 100, "the dependencies are found");
    ensure!(again.is_empty(), "built with other features for the tests: {again:#?}");
    Ok(())
}
