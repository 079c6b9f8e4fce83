//! Damage and refusals at peers and on the owner's disk: restores stay right, the culprit is named.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tests::compare::assert_same;
use tests::fixture::{flip_byte, noise};
use tests::grid::Grid;
use tests::home::{Home, Said, path_str, said};
use tests::small_disk::SmallDisk;

use crate::main_job::recover_and_restore;
use crate::unchanged::owner_with_folders;

/// A few files of each size tier.
fn small_source(dir: &Path) -> Result<PathBuf> {
    let source = dir.join("source");
    fs::create_dir_all(source.join("folder"))?;
    for (name, size) in [
        ("tiny", 50),
        ("very small", 3_000),
        ("small", 60_000),
        ("folder/large", 9 << 20),
    ] {
        fs::write(source.join(name), noise(size, size as u64))?;
    }
    Ok(source)
}

/// All shares (not heads, not markers) that a folder peer keeps.
fn shares(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.metadata()?.len() > 100_000 {
                found.push(path);
            }
        }
    }
    Ok(found)
}

#[test]
fn a_corrupted_share_is_made_up_for_and_its_peer_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = small_source(dir.path())?;
    let owner = owner_with_folders(dir.path(), 2)?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let flip = |disks: [&str; 2]| -> Result<()> {
        let found = disks.iter().map(|disk| shares(&dir.path().join(disk)));
        let found = found.collect::<Result<Vec<_>>>()?;
        Ok(found.iter().flatten().try_for_each(|share| flip_byte(share))?)
    };
    // A restore that needs no share of the two reads none: then the damage is put where it does read.
    for disks in [["disk2", "disk4"], ["disk1", "disk3"], ["disk5", "disk2"]] {
        flip(disks)?;
        let target = dir.path().join("restored");
        let wanted = format!("latest:{}", path_str(&source)?);
        let restore = owner.ok(["restore", &wanted, "--target", path_str(&target)?])?;
        assert_same(&source, &target)?;
        let bad = restore.last()["peers_bad"].to_string();
        if disks.iter().any(|disk| bad.contains(disk)) {
            let check = owner.exits(4, ["check", "--read-data"])?;
            let problems = format!("{:?}", check.lines);
            assert!(disks.iter().all(|disk| problems.contains(disk)), "{problems}");
            return Ok(());
        }
        flip(disks)?;
        fs::remove_dir_all(&target)?;
    }
    bail!("no restore named a damaged peer");
}

#[test]
fn with_three_of_five_disks_gone_the_missing_are_named_and_nothing_false_is_restored() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = small_source(dir.path())?;
    let owner = owner_with_folders(dir.path(), 2)?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    for disk in ["disk1", "disk3", "disk5"] {
        fs::rename(dir.path().join(disk), dir.path().join(format!("{disk}-away")))?;
    }
    let (target, wanted) = (dir.path().join("restored"), format!("latest:{}", path_str(&source)?));
    let restore = owner.exits(13, ["restore", &wanted, "--target", path_str(&target)?])?;
    assert!(restore.stderr.contains("disk1"), "{}", restore.stderr);
    assert!(!target.join("folder/large").exists());
    for disk in ["disk1", "disk3", "disk5"] {
        fs::rename(dir.path().join(format!("{disk}-away")), dir.path().join(disk))?;
    }
    fs::remove_dir_all(&target)?;
    owner.ok(["restore", &wanted, "--target", path_str(&target)?])?;
    assert_same(&source, &target)
}

#[test]
fn a_disk_that_is_away_leaves_the_run_with_exit_4_and_the_next_run_completes_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = small_source(dir.path())?;
    let owner = owner_with_folders(dir.path(), 2)?;
    fs::rename(dir.path().join("disk3"), dir.path().join("away"))?;
    owner.exits(4, ["run", "--once", path_str(&source)?])?;
    let status = owner.say(["status"])?;
    assert_eq!(status.last()["safe"], false, "{}", status.last());
    fs::rename(dir.path().join("away"), dir.path().join("disk3"))?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let status = owner.ok(["status"])?;
    assert_eq!(status.last()["safe"], true, "{}", status.last());
    Ok(())
}

/// Someone who is not root, whoever runs the tests.
const NOBODY: u32 = 65_534;

#[test]
fn an_unreadable_file_is_named_and_the_rest_goes_on() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = small_source(dir.path())?;
    fs::set_permissions(source.join("small"), fs::Permissions::from_mode(0o000))?;
    let own = |home: &Home, args: &[&str]| -> Result<Said> {
        let mut command = home.command(args);
        if tests::fixture::is_root_user() {
            command.uid(NOBODY).gid(NOBODY);
        }
        said(command.output()?)
    };
    if tests::fixture::is_root_user() {
        for path in [dir.path().to_owned(), source.clone(), source.join("folder")] {
            std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY))?;
        }
    }
    let (owner, disk) = (Home::new(dir.path().join("owner")), dir.path().join("disk"));
    own(
        &owner,
        &[
            "init",
            "--name",
            "owner",
            "--tolerate",
            "0",
            "--phrase-out",
            path_str(&owner.words())?,
        ],
    )?;
    fs::create_dir(&disk)?;
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o777))?;
    own(&owner, &["peer", "add", "disk", &format!("dir:{}", path_str(&disk)?)])?;
    let run = own(&owner, &["run", "--once", path_str(&source)?])?;
    assert_eq!(run.code, Some(3), "{:?} {}", run.lines, run.stderr);
    assert_eq!(run.number("files_failed"), 1, "{}", run.last());
    let named = |line: &serde_json::Value| line["path"].as_str().is_some_and(|path| path.ends_with("/small"));
    assert!(run.lines.iter().any(named), "{:?}", run.lines);
    let target = dir.path().join("restored");
    let restored = own(
        &owner,
        &[
            "restore",
            &format!("latest:{}", path_str(&source)?),
            "--target",
            path_str(&target)?,
        ],
    )?;
    assert_eq!(restored.code, Some(0), "{:?} {}", restored.lines, restored.stderr);
    assert!(target.join("folder/large").exists() && !target.join("small").exists());
    Ok(())
}

#[test]
fn a_damaged_head_at_a_peer_is_not_believed_and_the_peer_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = small_source(dir.path())?;
    let owner = owner_with_folders(dir.path(), 2)?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let mut folders = vec![dir.path().join("disk3")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.metadata()?.len() == 4096 {
                flip_byte(&path)?;
            }
        }
    }
    let blank = Home::new(dir.path().join("blank"));
    let words = owner.words();
    let mut args = vec![
        "recover".to_owned(),
        "--phrase-file".to_owned(),
        path_str(&words)?.to_owned(),
        "--via".to_owned(),
    ];
    for number in 1..=5 {
        args.push(format!("dir:{}", path_str(&dir.path().join(format!("disk{number}")))?));
    }
    let recovered = blank.ok(&args)?;
    assert!(
        recovered.last()["peers_bad"].to_string().contains("disk3"),
        "{}",
        recovered.last()
    );
    let target = dir.path().join("restored");
    blank.ok([
        "restore",
        &format!("latest:{}", path_str(&source)?),
        "--target",
        path_str(&target)?,
    ])?;
    assert_same(&source, &target)
}

#[test]
fn damaged_state_files_get_a_clear_line_and_lose_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = small_source(dir.path())?;
    let owner = owner_with_folders(dir.path(), 2)?;
    owner.ok(["invite"])?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let damaged = |name: &str, change: &dyn Fn(&Path) -> Result<()>| -> Result<String> {
        let (file, kept) = (owner.dir.join(name), dir.path().join("kept"));
        fs::copy(&file, &kept)?;
        change(&file).with_context(|| name.to_owned())?;
        let said = owner.say(["status"])?;
        assert_ne!(said.code, Some(0), "{name}: {}", said.last());
        assert!(!said.stderr.contains("panic"), "{name}: {}", said.stderr);
        fs::copy(&kept, &file)?;
        owner.ok(["status"])?;
        Ok(said.stderr)
    };
    let truncate = |path: &Path| -> Result<()> { Ok(fs::write(path, &fs::read(path)?[..10])?) };
    let foreign = |path: &Path| -> Result<()> { Ok(fs::write(path, b"this belongs to another program".repeat(400))?) };
    // A byte of each page: one of them is read by the next command.
    let flip_pages = |path: &Path| -> Result<()> {
        let mut bytes = fs::read(path)?;
        bytes.iter_mut().skip(4000).step_by(4096).for_each(|byte| *byte ^= 1);
        Ok(fs::write(path, bytes)?)
    };
    assert!(damaged("catalog.db", &foreign)?.contains("catalog"));
    assert!(damaged("catalog.db", &truncate)?.contains("catalog"));
    assert!(damaged("config.toml", &|path| Ok(fs::write(path, "tolerate = \"many\"\n")?))?.contains("line 1"));
    let said = damaged("catalog.db", &flip_pages)?;
    assert!(said.contains("catalog.db") && said.contains("damaged"), "{said}");
    // What can be made anew, or is kept twice, stops nothing: `lender::no_damaged_state_file_stops_a_home`.
    for name in ["account.key", "device.key"] {
        for change in [&truncate as &dyn Fn(&Path) -> Result<()>, &|path| Ok(flip_byte(path)?)] {
            let said = damaged(name, change)?;
            assert!(said.contains(name), "{name}: {said}");
        }
    }
    Ok(())
}

#[test]
fn a_full_disk_at_a_peer_is_reported_and_loses_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = small_source(dir.path())?;
    let owner: Home = owner_with_folders(dir.path(), 2)?;
    owner.ok(["peer", "set", "disk5", "--quota", "1M"])?;
    let run = owner.exits(4, ["run", "--once", path_str(&source)?])?;
    assert!(
        run.lines.iter().any(|line| line.to_string().contains("disk5")),
        "the full peer is named: {:?}",
        run.lines
    );
    owner.ok(["peer", "set", "disk5", "--quota", "1G"])?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    Ok(())
}

#[test]
fn a_full_disk_at_the_spool_makes_a_run_wait_or_say_so_and_loses_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let Some(disk) = SmallDisk::mount_or_skip(&dir.path().join("owner"), 12)? else {
        return Ok(());
    };
    let source = dir.path().join("source");
    fs::create_dir(&source)?;
    for number in 0..10 {
        fs::write(source.join(format!("file{number}")), noise(9_000_000, number))?;
    }
    let grid = Grid::start(dir.path(), 3, 1)?;
    // Not even one pack fits.
    let run = grid.owner.exits(1, ["run", "--once", path_str(&source)?])?;
    assert!(
        run.stderr.contains("spool") && run.stderr.contains("make room"),
        "{}",
        run.stderr
    );
    // A few fit, of ten: the run goes at the pace of its peers.
    disk.grow(100)?;
    grid.owner.ok(["run", "--once", path_str(&source)?])?;
    let target = dir.path().join("restored");
    recover_and_restore(
        &dir.path().join("blank"),
        &grid.owner.words(),
        &grid.nodes[0].address()?,
        &target,
    )?;
    assert_same(&source, &target.join(source.strip_prefix("/")?))
}
