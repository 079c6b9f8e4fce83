//! What is to be backed up is not as it was, or not as it says: every part that is not saved is named, and the rest is.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};
use tests::compare::assert_same;
use tests::fixture::noise;
use tests::home::{Home, Said, path_str, said};

use crate::unchanged::owner_with_folders;

/// An owner whose two peers are folders: what one run costs here is what these tests cost.
fn owner(dir: &Path) -> Result<Home> {
    let owner = Home::init(dir.join("owner"), "owner", 1)?;
    add_peers(&owner, dir)?;
    Ok(owner)
}

fn add_peers(owner: &Home, dir: &Path) -> Result<()> {
    for name in ["one", "two"] {
        let folder = dir.join(name);
        fs::create_dir_all(&folder)?;
        owner.ok(["peer", "add", name, &format!("dir:{}", path_str(&folder)?)])?;
    }
    Ok(())
}

/// A blank home that took over from one of the owner's folders.
fn recovered(owner: &Home, dir: &Path, name: &str) -> Result<Home> {
    let blank = Home::new(dir.join(name));
    let via = ["one", "two"].map(|peer| format!("dir:{}", dir.join(peer).display()));
    let words = owner.words();
    let words = path_str(&words)?;
    blank.ok(["recover", "--phrase-file", words, "--via", &via[0], "--via", &via[1]])?;
    Ok(blank)
}

fn restore(home: &Home, what: &str, target: &Path) -> Result<()> {
    home.ok(["restore", what, "--target", path_str(target)?])?;
    Ok(())
}

/// Whether a command named this path in what it could not do.
fn names(said: &Said, path: &Path, what: &str) -> bool {
    let path = path.display().to_string();
    said.stderr
        .lines()
        .chain(said.lines.iter().filter_map(|line| line["error"].as_str()))
        .any(|line| line.contains(what))
        && (said.stderr.contains(&path) || said.lines.iter().any(|line| line["path"] == path.as_str()))
}

#[test]
fn too_many_paths_are_refused_in_one_line_and_the_home_works_on() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = owner(dir.path())?;
    let source = dir.path().join("source");
    fs::create_dir_all(&source)?;
    let names: Vec<PathBuf> = (0..1025).map(|at| source.join(at.to_string())).collect();
    names.iter().try_for_each(|name| fs::write(name, "x"))?;
    let run = |names: &[PathBuf]| {
        let mut args = vec![OsStr::new("run"), OsStr::new("--once")];
        args.extend(names.iter().map(|name| name.as_os_str()));
        owner.say(args)
    };
    let refused = run(&names)?;
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("1024"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("panic"), "{}", refused.stderr);
    assert_eq!(run(&names[1..])?.code, Some(0));
    owner.ok(["run", "--once", path_str(&source)?])?;
    let blank = recovered(&owner, dir.path(), "blank")?;
    assert_eq!(blank.ok(["snapshots"])?.lines.len(), 2);
    Ok(())
}

/// A folder on a file system that takes large attributes, if there is one.
fn folder_for_attributes() -> Option<tempfile::TempDir> {
    let folders = [std::env::temp_dir(), "/dev/shm".into(), ".".into()];
    folders.into_iter().find_map(|folder| {
        let folder = tempfile::tempdir_in(folder).ok()?;
        (0..6)
            .all(|at| xattr::set(folder.path(), format!("user.{at}"), &[7; 60_000]).is_ok())
            .then_some(folder)
    })
}

#[test]
fn what_has_too_many_attributes_is_named_each_time_and_comes_back_without_some() -> Result<()> {
    let Some(rich) = folder_for_attributes() else {
        eprintln!("no file system here takes large attributes");
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let owner = owner(dir.path())?;
    fs::write(rich.path().join("below"), noise(10_000, 1))?;
    for _ in 0..2 {
        let run = owner.exits(3, ["run", "--once", path_str(rich.path())?])?;
        assert!(names(&run, rich.path(), "attributes"), "{:?}", run.lines);
        assert_eq!(run.number("files_failed"), 1);
    }
    let blank = recovered(&owner, dir.path(), "blank")?;
    let back = folder_for_attributes().context("one was there before")?;
    let target = back.path().join("target");
    restore(&blank, &format!("latest:{}", rich.path().display()), &target)?;
    assert_eq!(fs::read(target.join("below"))?, noise(10_000, 1));
    let kept = xattr::list(&target)?.filter(|name| name.as_bytes().starts_with(b"user."));
    assert_eq!(kept.count(), 4);
    Ok(())
}

#[test]
fn what_lies_too_deep_is_named_and_nothing_comes_back_in_another_folder() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = owner(dir.path())?;
    let source = dir.path().join("source");
    fs::create_dir_all(&source)?;
    let mut at = rustix::fs::open(&source, OFlags::PATH, Mode::empty())?;
    let name = "n".repeat(250);
    for _ in 0..270 {
        rustix::fs::mkdirat(&at, &*name, Mode::RWXU)?;
        at = rustix::fs::openat(&at, &*name, OFlags::PATH, Mode::empty())?;
    }
    rustix::fs::openat(&at, "deepest", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU)?;
    fs::write(source.join("zz"), "last")?;
    let run = owner.exits(3, ["run", "--once", path_str(&source)?])?;
    assert_eq!(run.number("files_failed"), 1);
    let blank = recovered(&owner, dir.path(), "blank")?;
    let found = blank.ok(["find", "deepest"])?;
    assert!(
        !found.lines.iter().any(|line| line["path"].is_string()),
        "{:?}",
        found.lines
    );
    assert_eq!(
        blank
            .ok(["find", "zz"])?
            .lines
            .iter()
            .filter(|line| line["path"].is_string())
            .count(),
        1
    );
    Ok(())
}

#[test]
fn a_missing_folder_does_not_stop_the_others_and_keeps_what_was_known() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = owner(dir.path())?;
    let folders = ["docs", "usb"].map(|name| dir.path().join(name));
    for folder in &folders {
        fs::create_dir_all(folder.join("sub"))?;
        fs::write(folder.join("sub/file"), noise(20_000, 1))?;
        owner.ok(["folder", "add", path_str(folder)?])?;
    }
    owner.ok(["run", "--once"])?;
    let away = dir.path().join("away");
    fs::rename(&folders[1], &away)?;
    fs::write(folders[0].join("new"), noise(20_000, 2))?;
    let run = owner.exits(3, ["run", "--once"])?;
    assert!(names(&run, &folders[1], "mounted"), "{:?} {}", run.lines, run.stderr);
    assert_eq!(run.number("files_gone"), 0);
    let blank = recovered(&owner, dir.path(), "blank")?;
    for (at, folder) in [&folders[0], &away].into_iter().enumerate() {
        let target = dir.path().join(format!("target{at}"));
        restore(&blank, &format!("latest:{}", folders[at].display()), &target)?;
        assert_same(folder, &target)?;
    }
    // All of them away: what is known stays, and it is said.
    fs::rename(&folders[0], dir.path().join("away too"))?;
    owner.exits(3, ["run", "--once"])?;
    // Nothing known: nothing done.
    let nothing = dir.path().join("nothing");
    let refused = owner.exits(1, ["run", "--once", path_str(&nothing)?])?;
    assert!(refused.stderr.contains("nothing"), "{}", refused.stderr);
    Ok(())
}

/// A disk in memory at a folder; unmounted when dropped. `None` where that is not allowed.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).ok()?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "none"])
            .arg(at)
            .output()
            .ok()?;
        mounted.status.success().then(|| Self(at.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _gone_already = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn an_unmounted_disk_is_kept_as_it_was_until_it_is_said_to_be_emptied() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = owner(dir.path())?;
    let (root, below) = (dir.path().join("usb"), dir.path().join("media"));
    let disks = [root.clone(), below.join("stick")];
    let mounted: Option<Vec<Disk>> = disks.iter().map(|disk| Disk::mount(disk)).collect();
    let Some(mounted) = mounted else {
        eprintln!("mounting is not allowed here");
        return Ok(());
    };
    for disk in &disks {
        fs::create_dir(disk.join("sub"))?;
        fs::write(disk.join("sub/file"), noise(20_000, 1))?;
    }
    let args = ["run", "--once", path_str(&root)?, path_str(&below)?];
    owner.ok(args)?;
    owner.ok(args)?;
    drop(mounted);
    let seen = |wanted: bool| -> Result<()> {
        for disk in &disks {
            let said = owner.say(["cat", &format!("latest:{}/sub/file", disk.display())])?;
            ensure!((said.code == Some(0)) == wanted, "{}: {}", disk.display(), said.stderr);
        }
        Ok(())
    };
    for _ in 0..2 {
        let run = owner.exits(3, args)?;
        assert!(
            names(&run, &disks[0], "--accept-emptied") && names(&run, &disks[1], "mounted"),
            "{:?}",
            run.lines
        );
        assert_eq!(run.number("files_gone"), 0);
        seen(true)?;
    }
    owner.ok([&args[..], &["--accept-emptied"]].concat())?;
    seen(false)?;
    owner.ok(args)?;
    Ok(())
}

#[test]
fn a_job_whose_disk_is_unmounted_waits_for_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = owner(dir.path())?;
    let root = dir.path().join("usb");
    let Some(disk) = Disk::mount(&root) else {
        eprintln!("mounting is not allowed here");
        return Ok(());
    };
    fs::write(root.join("file"), noise(50_000, 1))?;
    let away = ["one", "two"].map(|name| (dir.path().join(name), dir.path().join(format!("{name} away"))));
    away.iter().try_for_each(|(from, to)| fs::rename(from, to))?;
    let run = owner.say(["run", "--once", path_str(&root)?])?;
    assert_ne!(run.code, Some(0));
    away.iter().try_for_each(|(from, to)| fs::rename(to, from))?;
    drop(disk);
    let run = owner.exits(3, ["run", "--once", path_str(&root)?])?;
    assert_eq!(run.number("files_gone"), 0, "{:?}", run.lines);
    owner
        .ok(["cat", &format!("latest:{}/file", root.display())])
        .or_else(|_| {
            // Its content had not been read yet: then it still waits.
            let waiting = owner.ok(["queue"])?.lines.len();
            ensure!(waiting == 1, "{waiting} jobs");
            owner.ok(["queue"])
        })?;
    Ok(())
}

#[test]
fn files_that_say_they_are_empty_are_saved_with_their_content() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = owner(dir.path())?;
    let version = Path::new("/proc/version");
    if fs::metadata(version).map_or(true, |meta| meta.len() > 0) {
        return Ok(());
    }
    let run = owner.ok(["run", "--once", path_str(version)?])?;
    assert_eq!(run.last()["complete"], true);
    let target = dir.path().join("target");
    restore(&owner, "latest", &target)?;
    assert_eq!(fs::read(target.join("proc/version"))?, fs::read(version)?);
    Ok(())
}

#[test]
fn the_homes_own_state_is_left_out_whatever_its_path_is() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for name in [&b"gb[1]home"[..], b"back\\slash", b"caf\xe9", b"st*r?"] {
        let source = dir.path().join(OsStr::from_bytes(&[b"of ", name].concat()));
        let home = Home::new(source.join(OsStr::from_bytes(name)));
        fs::create_dir_all(&source)?;
        fs::write(source.join("file"), "x")?;
        let words = dir.path().join(OsStr::from_bytes(&[name, b" words"].concat()));
        let init = [
            OsStr::new("init"),
            OsStr::new("--tolerate"),
            OsStr::new("1"),
            OsStr::new("--phrase-out"),
        ];
        home.ok(init.into_iter().chain([words.as_os_str()]))?;
        add_peers(&home, dir.path())?;
        let run = home
            .command([OsStr::new("run"), OsStr::new("--once"), source.as_os_str()])
            .output()?;
        let run = said(run)?;
        ensure!(run.code == Some(0), "{}: {}", name.escape_ascii(), run.stderr);
        for own in ["account.key", "catalog.db", "config.toml"] {
            let found = home.ok(["find", own])?;
            let paths: Vec<_> = found.lines.iter().filter(|line| line["path"].is_string()).collect();
            assert!(paths.is_empty(), "{}: {paths:?}", name.escape_ascii());
        }
        assert_eq!(run.number("files_new"), 1);
    }
    Ok(())
}

#[test]
fn stores_in_a_source_are_left_out_and_said_wherever_they_come_from() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = Home::init(dir.path().join("owner"), "owner", 1)?;
    let source = dir.path().join("source");
    fs::create_dir_all(source.join("usb/photos"))?;
    fs::write(source.join("usb/photos/cat"), noise(100_000, 1))?;
    std::os::unix::fs::symlink(&source, dir.path().join("way"))?;
    let added = owner.ok(["folder", "add", path_str(&dir.path().join("way"))?])?;
    assert!(!added.stderr.contains("store"), "{}", added.stderr);
    let store = source.join("usb");
    let added = owner.ok(["peer", "add", "usb", &format!("dir:{}", path_str(&store)?)])?;
    assert!(names(&added, &store, "left out"), "{:?} {}", added.lines, added.stderr);
    add_peers(&owner, &source)?;
    owner.ok(["folder", "rm", path_str(&dir.path().join("way"))?])?;
    let added = owner.ok(["folder", "add", path_str(&source)?])?;
    assert!(names(&added, &store, "left out"), "{:?} {}", added.lines, added.stderr);
    for round in 0..3 {
        let run = owner.ok(["run", "--once"])?;
        assert!(names(&run, &store, "left out"), "{:?}", run.lines);
        assert_eq!(run.number("files_new"), u64::from(round == 0), "{:?}", run.lines);
    }
    // One that is nobody's peer any more.
    fs::create_dir_all(source.join("old/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/shares"))?;
    fs::write(source.join("old/gridbackup-store"), "gridbackup store 1\n")?;
    fs::write(
        source.join("old/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/shares/share"),
        noise(100_000, 3),
    )?;
    let run = owner.ok(["run", "--once"])?;
    assert!(names(&run, &source.join("old"), "left out"), "{:?}", run.lines);
    assert_eq!(run.number("files_new"), 0, "{:?}", run.lines);
    Ok(())
}

#[test]
fn a_file_that_waited_and_was_deleted_is_simply_gone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = Home::init(dir.path().join("owner"), "owner", 1)?;
    let source = dir.path().join("source");
    fs::create_dir_all(&source)?;
    for name in ["stays", "goes"] {
        fs::write(source.join(name), noise(50_000, name.len() as u64))?;
    }
    // Nowhere to put anything: the jobs wait.
    assert_ne!(owner.say(["run", "--once", path_str(&source)?])?.code, Some(0));
    fs::remove_file(source.join("goes"))?;
    add_peers(&owner, dir.path())?;
    let run = owner.ok(["run", "--once", path_str(&source)?])?;
    assert_eq!(run.number("files_failed"), 0, "{:?}", run.lines);
    Ok(())
}

#[test]
fn rules_are_refused_expanded_or_warned_of() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = owner_with_folders(dir.path(), 1)?;
    let home = dir.path().join("a[nn]");
    fs::create_dir_all(home.join("Downloads"))?;
    fs::write(home.join("Downloads/big.iso"), "x")?;
    fs::write(home.join("Downloads/note"), "x")?;
    owner.ok(["folder", "add", path_str(&home)?])?;
    for wrong in ["", "[", "!", "# note"] {
        owner.exits(2, ["exclude", "add", wrong])?;
        owner.exits(
            2,
            [
                "config",
                "set",
                "exclude",
                &format!("[{}]", serde_json::to_string(wrong)?),
            ],
        )?;
    }
    let add = |rule: &str| -> Result<Said> {
        let output = owner
            .command(["exclude", "add", rule])
            .env("HOME", &home)
            .current_dir(&home)
            .output();
        said(output.context("start gridbackup")?)
    };
    let idle = add("Downloads/*.iso")?;
    assert_eq!(idle.code, Some(0), "{}", idle.stderr);
    assert!(
        format!("{:?}", idle.lines).contains("**/Downloads/*.iso"),
        "{:?}",
        idle.lines
    );
    let run = owner.ok(["run", "--once"])?;
    assert!(
        format!("{:?}", run.lines).contains("matches nothing"),
        "{:?}",
        run.lines
    );
    assert_eq!(run.number("files_new"), 2);
    owner.ok(["exclude", "rm", "Downloads/*.iso"])?;
    for rule in ["~/Downloads/*.iso", "./Downloads/*.iso"] {
        let added = add(rule)?;
        assert!(
            !format!("{:?}", added.lines).contains("matches nothing"),
            "{:?}",
            added.lines
        );
    }
    assert_eq!(owner.ok(["exclude", "ls"])?.lines.len(), 1, "both are the same rule");
    let run = owner.ok(["run", "--once"])?;
    assert_eq!((run.number("files_gone"), run.number("files_unmodified")), (1, 1));
    Ok(())
}
