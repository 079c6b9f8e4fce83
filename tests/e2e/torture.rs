//! The torture set of metadata through all that gives it back: restore, mount and tar dump; as root and as a plain user.
//!
//! What a plain user cannot have (devices, other people's files, setuid of others) is left out of what is expected, and
//! nothing else. `GRIDBACKUP_TEST_SCALE=full` takes a folder of 100,000 entries.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::fs::FileType;
use rustix::process::Signal;
use tests::fixture::{is_root_user, noise};
use tests::home::{Home, Said, path_str};
use tests::torture::{self, BEYOND, CLOSED, PLAIN_ID, SET, as_plain_user};
use tests::tree::{self, Tree, differences};

use crate::mount::{Mount, has_fuse, make_dir};
use crate::unchanged::owner_with_folders;

fn entries() -> usize {
    match std::env::var("GRIDBACKUP_TEST_SCALE").as_deref() {
        Ok("full") => 100_000,
        _ => 2_000,
    }
}

/// Whether this is root; says so if not.
fn is_root_user_here() -> bool {
    if !is_root_user() {
        tests::left_out::say("this is not root");
    }
    is_root_user()
}

/// Whether who asks can mount; says so if not.
fn can_mount() -> bool {
    let device = fs::File::options().read(true).write(true).open("/dev/fuse");
    let helper = || Command::new("fusermount3").arg("-V").output().is_ok();
    let can = has_fuse() && device.is_ok() && (is_root_user() || helper());
    if !can {
        tests::left_out::say("/dev/fuse cannot be opened, or there is no fusermount3 (package fuse3)");
    }
    can
}

/// A folder for a plain user, if this is root.
fn plain_dir(dir: &Path) -> Result<PathBuf> {
    let plain = make_dir(dir.join("plain"))?;
    if is_root_user() {
        fs::set_permissions(dir, Permissions::from_mode(0o755))?;
        chown(&plain, Some(PLAIN_ID), Some(PLAIN_ID))?;
    }
    Ok(plain)
}

fn assert_equal(what: &str, here: &Tree, there: &Tree) -> Result<()> {
    let differences = differences(here, there);
    ensure!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
    eprintln!("{what}: {} paths are the same", here.len());
    Ok(())
}

/// What is at and below a folder of a tree.
fn below(tree: &Tree, folder: &str) -> Tree {
    let inside = |path: &[u8]| {
        let rest = path.strip_prefix(folder.as_bytes())?;
        (rest.is_empty() || rest[0] == b'/').then(|| rest.get(1..).unwrap_or_default().to_vec())
    };
    let paths = tree.iter().filter_map(|(path, facts)| {
        let mut facts = facts.clone();
        facts.first_name = facts.first_name.map(|first| inside(&first).unwrap_or(first));
        Some((inside(path)?, facts))
    });
    paths.collect()
}

fn restore(home: &Home, source: &Path, target: &Path) -> Result<Said> {
    let what = format!("latest:{}", path_str(source)?);
    home.say(["restore", &what, "--target", path_str(target)?])
}

/// Backs the set up and gets it back in all three ways, as whoever calls.
fn round_trip(dir: &Path) -> Result<()> {
    let source = dir.join("source");
    torture::build(&source, entries())?;
    let home = owner_with_folders(dir, 2)?;
    let start = Instant::now();
    let said = home.say(["run", "--once", path_str(&source)?])?;
    eprintln!("backed up in {:.1} s: {}", start.elapsed().as_secs_f64(), said.last());
    let problems = problems(&said);
    match is_root_user() {
        true => ensure!(
            said.code == Some(0) && problems.is_empty(),
            "{problems:?} {}",
            said.last()
        ),
        false => {
            let closed = path_str(&source.join(CLOSED))?.to_owned();
            ensure!(
                said.code == Some(3) && problems == [closed],
                "{problems:?} {}",
                said.last()
            );
        }
    }
    ensure!(said.last()["complete"] == true, "{}", said.last());
    let source_tree = tree::read(&source)?;

    let (start, target) = (Instant::now(), dir.join("target"));
    let said = restore(&home, &source, &target)?;
    ensure!(said.code == Some(0), "{} {}", said.last(), said.stderr);
    eprintln!("restored in {:.1} s", start.elapsed().as_secs_f64());
    assert_equal("restore", &source_tree, &tree::read(&target)?)?;
    let again = restore(&home, &source, &target)?;
    ensure!(
        again.code == Some(0) && again.number("files_restored") == 0,
        "{}",
        again.last()
    );
    assert_equal("restore over itself", &source_tree, &tree::read(&target)?)?;

    if can_mount() {
        let at = make_dir(dir.join("mnt"))?;
        let mount = Mount::start(&home, &[path_str(&at)?])?;
        let shown = at.join("latest").join(source.strip_prefix("/")?);
        let start = Instant::now();
        assert_equal("mount", &source_tree, &tree::read(&shown)?)?;
        eprintln!("read through the mount in {:.1} s", start.elapsed().as_secs_f64());
        mount.end(Signal::TERM)?;
    }
    dump_and_unpack(&home, &source, &source_tree, dir)
}

/// Paths that a command had problems with.
fn problems(said: &Said) -> Vec<String> {
    let problems = said.lines.iter().filter(|line| line["message_type"] == "problem");
    problems
        .map(|line| line["path"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Pipes a tar of a path into GNU tar; returns what that says.
fn tar(home: &Home, what: &Path, args: &[&str]) -> Result<Vec<u8>> {
    let what = format!("latest:{}", path_str(what)?);
    let mut dump = home
        .command(["dump", &what, "--format", "tar"])
        .stdout(Stdio::piped())
        .spawn()?;
    let piped = dump.stdout.take().context("stdout is piped")?;
    let taken = Command::new("tar").args(args).stdin(piped).output()?;
    ensure!(dump.wait()?.success(), "dump failed");
    ensure!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    Ok(taken.stdout)
}

fn dump_and_unpack(home: &Home, source: &Path, source_tree: &Tree, dir: &Path) -> Result<()> {
    // tar has no sockets, and ours no holes.
    let mut expected = below(source_tree, SET);
    expected.retain(|_, facts| facts.kind() != FileType::Socket);
    expected.values_mut().for_each(|facts| facts.runs.clear());
    // GNU tar sets attributes by way of /proc/self/fd/N/PATH, which is too long for the longest: it says so, and goes on.
    let longest = expected.iter_mut().filter(|(path, _)| path.len() > 4_060);
    longest
        .filter(|(_, facts)| facts.first_name.is_none())
        .for_each(|(_, facts)| facts.xattrs.clear());
    let own = [
        "--same-owner",
        "--numeric-owner",
        "-xp",
        "--xattrs",
        "--xattrs-include=*",
    ];
    for (name, acls) in [("unpacked", &[][..]), ("unpacked-acls", &["--acls"][..])] {
        let target = make_dir(dir.join(name))?;
        let start = Instant::now();
        let args = [&own[usize::from(!is_root_user())..], acls, &["-C", path_str(&target)?]].concat();
        tar(home, &source.join(SET), &args)?;
        eprintln!("dumped and unpacked in {:.1} s", start.elapsed().as_secs_f64());
        let mut found = tree::read(&target)?;
        found.values_mut().for_each(|facts| facts.runs.clear());
        assert_equal(name, &expected, &found)?;
    }
    // No program unpacks paths that the kernel does not take, but all of them are in the archive.
    let beyond = below(source_tree, BEYOND);
    let listed = tar(home, &source.join(BEYOND), &["-t", "--quoting-style=literal"])?;
    let listed: BTreeSet<&[u8]> = listed
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"/").unwrap_or(line))
        .filter(|line| !matches!(*line, b"" | b"."))
        .collect();
    let expected: BTreeSet<&[u8]> = beyond
        .keys()
        .map(Vec::as_slice)
        .filter(|path| !path.is_empty())
        .collect();
    ensure!(listed == expected, "{} of {} paths", listed.len(), expected.len());
    let contents = tar(home, &source.join(BEYOND), &["-xO"])?;
    let bytes: u64 = 2 * (10 + 3_000 + 50_000 + 1_500_000);
    ensure!(contents.len() as u64 == bytes, "{} bytes of {bytes}", contents.len());
    Ok(())
}

#[test]
fn the_torture_set_comes_back_by_restore_mount_and_tar_as_root() -> Result<()> {
    if !is_root_user_here() {
        return Ok(());
    }
    round_trip(tempfile::tempdir()?.path())
}

#[test]
fn the_torture_set_comes_back_by_restore_mount_and_tar_as_a_plain_user() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let plain = plain_dir(dir.path())?;
    as_plain_user(|| round_trip(&plain))
}

/// As above but for what the kernel keeps from a plain user: own everything, no setuid of others, no attributes of the system.
fn as_plain_user_gets_it(source: &Tree) -> Tree {
    let mut tree = source.clone();
    tree.retain(|_, facts| !matches!(facts.kind(), FileType::CharacterDevice | FileType::BlockDevice));
    for facts in tree.values_mut() {
        if facts.kind() != FileType::Symlink {
            facts.mode &= !0o6000;
        }
        facts.owner = (PLAIN_ID, PLAIN_ID);
        facts
            .xattrs
            .retain(|name, _| name.starts_with(b"user.") || name.starts_with(b"system."));
    }
    tree
}

#[test]
fn a_plain_user_gets_all_contents_and_modes_of_what_root_backed_up() -> Result<()> {
    if !is_root_user_here() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let (source, plain) = (dir.path().join("source"), plain_dir(dir.path())?);
    torture::build(&source, 100)?;
    let home = owner_with_folders(dir.path(), 2)?;
    home.ok(["run", "--once", path_str(&source)?])?;
    let words = plain.join("words");
    fs::copy(home.words(), &words)?;
    chown(&words, Some(PLAIN_ID), Some(PLAIN_ID))?;
    let disks: Vec<PathBuf> = (1..=5).map(|disk| dir.path().join(format!("disk{disk}"))).collect();
    let given = Command::new("chown")
        .args(["-R", &PLAIN_ID.to_string()])
        .args(&disks)
        .status()?;
    ensure!(given.success(), "the disks cannot be given away");

    let (target, inside) = (plain.join("target"), plain.join("inside"));
    as_plain_user(|| -> Result<()> {
        let home = Home::new(plain.join("home"));
        let mut command = vec![
            "recover".to_owned(),
            "--phrase-file".to_owned(),
            path_str(&words)?.to_owned(),
        ];
        for disk in &disks {
            command.extend(["--via".to_owned(), format!("dir:{}", disk.display())]);
        }
        home.ok(&command)?;
        for _ in ["new", "over itself"] {
            let said = restore(&home, &source, &target)?;
            let mut failed: Vec<String> = problems(&said);
            failed.sort();
            let devices = ["more-links/device", "special/disk", "special/null"];
            let devices = devices.map(|device| target.join(SET).join(device).display().to_string());
            ensure!(failed == devices && said.code == Some(1), "{failed:?} {}", said.last());
            let warnings = said
                .stderr
                .lines()
                .filter(|line| line.contains("cannot be set"))
                .count();
            ensure!(warnings == 2, "owners once, attributes once: {}", said.stderr);
        }
        let said = restore(&home, &source.join(CLOSED), &inside)?;
        ensure!(said.code == Some(0), "{} {}", said.last(), said.stderr);
        Ok(())
    })?;
    let expected = as_plain_user_gets_it(&tree::read(&source)?);
    assert_equal("restored by a plain user", &expected, &tree::read(&target)?)?;
    let (mut expected, mut inside) = (below(&expected, CLOSED), tree::read(&inside)?);
    // Its other names are not below it.
    for tree in [&mut expected, &mut inside] {
        tree.values_mut().for_each(|facts| facts.first_name = None);
    }
    assert_equal("a closed folder restored by a plain user", &expected, &inside)
}

#[test]
fn others_see_through_a_mount_of_root_what_the_modes_let_them() -> Result<()> {
    if !is_root_user_here() || !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    plain_dir(dir.path())?;
    let source = make_dir(dir.path().join("source"))?;
    for (name, mode) in [("open", 0o644), ("secret", 0o600)] {
        fs::write(source.join(name), noise(20_000, 1))?;
        fs::set_permissions(source.join(name), Permissions::from_mode(mode))?;
    }
    let home = owner_with_folders(dir.path(), 1)?;
    home.ok(["run", "--once", path_str(&source)?])?;
    let at = make_dir(dir.path().join("mnt"))?;
    let shown = at.join("latest").join(source.strip_prefix("/")?);
    let read = |name: &str| as_plain_user(|| fs::read(shown.join(name)).map_err(|error| error.kind()));
    let denied = Err(std::io::ErrorKind::PermissionDenied);
    let mount = Mount::start(&home, &[path_str(&at)?])?;
    ensure!(read("open") == denied, "a mount lets others in by itself");
    mount.end(Signal::TERM)?;
    let mount = Mount::start(&home, &["--allow-other", path_str(&at)?])?;
    ensure!(read("open") == Ok(noise(20_000, 1)) && read("secret") == denied);
    mount.end(Signal::TERM)?;
    Ok(())
}

#[test]
fn what_a_plain_user_cannot_read_is_named_and_everything_else_is_saved() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let plain = plain_dir(dir.path())?;
    as_plain_user(|| {
        let source = make_dir(plain.join("source"))?;
        make_dir(source.join("closed/inner"))?;
        for file in ["open", "closed/inner/file", "tiny", "shut"] {
            fs::write(source.join(file), noise(if file == "tiny" { 5 } else { 9_000 }, 1))?;
        }
        for path in ["closed", "shut", "tiny"] {
            fs::set_permissions(source.join(path), Permissions::from_mode(0o000))?;
        }
        let home = owner_with_folders(&plain, 1)?;
        let expected = ["closed", "shut", "tiny"].map(|name| source.join(name).display().to_string());
        for _ in ["first", "again"] {
            let said = home.exits(3, ["run", "--once", path_str(&source)?])?;
            let named: BTreeSet<String> = problems(&said).into_iter().collect();
            ensure!(named == BTreeSet::from(expected.clone()), "{named:?} {}", said.last());
        }
        let target = plain.join("target");
        let said = restore(&home, &source, &target)?;
        ensure!(fs::read(target.join("open"))? == noise(9_000, 1));
        ensure!(fs::metadata(target.join("closed"))?.permissions().mode() & 0o7777 == 0);
        ensure!(
            said.code == Some(0) && said.number("files_restored") == 1,
            "{}",
            said.last()
        );
        for path in [&source, &target] {
            fs::set_permissions(path.join("closed"), Permissions::from_mode(0o700))?;
        }
        Ok(())
    })
}
