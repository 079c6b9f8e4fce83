//! What a second run costs: nothing when nothing changed, about the changes when something did.

use std::fs;
use std::time::Instant;

use anyhow::Result;
use tests::fixture;
use tests::home::{Home, path_str};

use crate::main_job::make_source;

/// An owner with five folders as peers.
pub fn owner_with_folders(dir: &std::path::Path, tolerate: u8) -> Result<Home> {
    let owner = Home::init(dir.join("owner"), "owner", tolerate)?;
    for number in 1..=5 {
        let folder = dir.join(format!("disk{number}"));
        fs::create_dir_all(&folder)?;
        owner.ok([
            "peer",
            "add",
            &format!("disk{number}"),
            &format!("dir:{}", path_str(&folder)?),
        ])?;
    }
    Ok(owner)
}

#[test]
fn a_second_run_reads_and_uploads_only_what_changed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    make_source(&source)?;
    let owner = owner_with_folders(dir.path(), 2)?;
    let source_arg = path_str(&source)?;
    let first = owner.ok(["run", "--once", source_arg])?;
    let files = first.number("files_new");

    let start = Instant::now();
    let second = owner.ok(["run", "--once", source_arg])?;
    eprintln!(
        "nothing changed: {:.3} s for {files} files: {}",
        start.elapsed().as_secs_f64(),
        second.last()
    );
    assert_eq!(
        (second.number("bytes_read"), second.number("packs")),
        (0, 0),
        "{}",
        second.last()
    );
    assert_eq!(
        (second.number("files_unmodified"), second.number("files_new")),
        (files, 0),
        "{}",
        second.last()
    );
    assert!(
        second.number("bytes_sent") < 64 << 10,
        "no more than a head a peer: {}",
        second.last()
    );

    let changed = fixture::change_some(&source.join("real"), 0.01)? as u64;
    let third = owner.ok(["run", "--once", source_arg])?;
    eprintln!("{changed} files changed: {}", third.last());
    assert_eq!(third.number("files_changed"), changed, "{}", third.last());
    assert!(
        third.number("bytes_read") < first.number("bytes_read") / 4,
        "{}",
        third.last()
    );

    fs::rename(source.join("real"), source.join("renamed"))?;
    let renamed = owner.ok(["run", "--once", source_arg])?;
    assert_eq!(
        renamed.number("bytes_read"),
        0,
        "a renamed folder is not read again: {}",
        renamed.last()
    );
    assert_eq!(renamed.last()["complete"], true, "{}", renamed.last());

    let target = dir.path().join("restored");
    owner.ok([
        "restore",
        &format!("latest:{source_arg}"),
        "--target",
        path_str(&target)?,
    ])?;
    tests::compare::assert_same(&source, &target)
}
