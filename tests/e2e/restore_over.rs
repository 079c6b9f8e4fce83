//! Restores over what is there: what is removed and what never, links between files, and words when nothing fits.

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tests::compare::assert_same;
use tests::fixture::{is_root_user, noise};
use tests::home::{Home, Said, path_str};
use tests::s3::Kind;
use tests::site::{Site, files};
use tests::torture::as_plain_user;
use tests::tree::is_there;

use crate::unchanged::owner_with_folders;

const CACHE_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55";

/// An owner, a folder `box/ann/docs` to back up, and things beside it that are nobody's business.
struct Bench {
    dir: tempfile::TempDir,
    owner: Home,
    docs: PathBuf,
}

impl Bench {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let owner = owner_with_folders(dir.path(), 1)?;
        let docs = dir.path().join("box/ann/docs");
        write(&docs.join("a"), "alpha")?;
        write(&docs.join("sub/b"), "beta")?;
        Ok(Self { dir, owner, docs })
    }

    fn back_up(&self) -> Result<Said> {
        self.owner.ok(["run", "--once", path_str(&self.docs)?])
    }

    /// `restore latest:DOCS --target DOCS` and more.
    fn roll_back(&self, code: i32, more: &[&str]) -> Result<Said> {
        self.restore(code, &format!("latest:{}", path_str(&self.docs)?), &self.docs, more)
    }

    fn restore(&self, code: i32, from: &str, target: &Path, more: &[&str]) -> Result<Said> {
        let words = ["restore", from, "--target", path_str(target)?];
        self.owner.exits(code, words.iter().chain(more))
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::create_dir_all(path.parent().context("a parent")?)?;
    Ok(fs::write(path, text)?)
}

/// What became of things that the snapshot does not have, below `root`.
fn told(said: &Said, root: &Path, state: &str) -> Vec<String> {
    let lines = said.lines.iter().filter(|line| line["state"] == state);
    let paths = lines.filter_map(|line| line["path"].as_str());
    let below = paths.filter_map(|path| Some(Path::new(path).strip_prefix(root).ok()?.display().to_string()));
    let mut below: Vec<String> = below.collect();
    below.sort();
    below
}

fn run(program: &str, args: &[&str]) -> Result<bool> {
    let ended = Command::new(program).args(args).stderr(Stdio::null()).status();
    Ok(ended.is_ok_and(|status| status.success()))
}

/// In a chroot, `run --once /home/ann/docs` and `restore latest --target / --delete` erased /bin, /etc, the keys and the peers.
#[test]
fn nothing_beside_the_backed_up_folders_is_removed() -> Result<()> {
    let bench = Bench::new()?;
    bench.back_up()?;
    let system = bench.dir.path().join("system");
    let docs = system.join(bench.docs.strip_prefix("/")?);
    let (beside, above) = (docs.with_file_name("beside"), system.join("etc/passwd"));
    for path in [&beside, &above, &docs.join("new"), &docs.join("sub/new folder/x")] {
        write(path, "x")?;
    }
    let would = bench.restore(0, "latest", &system, &["--delete", "--dry-run"])?;
    let expected = ["new", "sub/new folder", "sub/new folder/x"];
    ensure!(told(&would, &docs, "would_remove") == expected, "{:?}", would.lines);
    ensure!((would.number("files_deleted"), would.number("folders_deleted")) == (2, 1));
    ensure!(is_there(&docs.join("new")), "a dry run removed");
    let said = bench.restore(0, "latest", &system, &["--delete"])?;
    ensure!(told(&said, &docs, "removed") == expected, "{:?}", said.lines);
    ensure!((said.number("files_deleted"), said.number("folders_deleted")) == (2, 1));
    ensure!(
        is_there(&beside) && is_there(&above),
        "what was never backed up is gone"
    );
    // The way there may be a link to where everything else lies.
    let (ann, moved) = (docs.parent().context("ann")?, system.join("moved"));
    fs::rename(ann, &moved)?;
    std::os::unix::fs::symlink(&moved, ann)?;
    bench.restore(1, "latest", &system, &["--delete"])?;
    ensure!(
        ann.is_symlink() && is_there(&moved.join("beside")),
        "a link above the roots is gone"
    );
    fs::remove_file(ann)?;
    fs::rename(&moved, ann)?;
    assert_same(&bench.docs, &docs)
}

#[test]
fn what_the_backup_leaves_out_is_never_removed() -> Result<()> {
    let bench = Bench::new()?;
    let docs = &bench.docs;
    let kept = [
        "node_modules/lib.js",
        "sub/later.secret",
        "sub/cache/blob",
        "shares/of/a/friend",
        "sub/mnt/usb/photo",
    ];
    write(&docs.join("sub/.gridbackupignore"), "*.secret\n")?;
    write(&docs.join("sub/cache/CACHEDIR.TAG"), CACHE_TAG)?;
    write(&docs.join("old/inner"), "x")?;
    fs::create_dir_all(docs.join("shares"))?;
    fs::create_dir_all(docs.join("sub/mnt/usb"))?;
    let is_mounted = is_root_user() && run("mount", &["-t", "tmpfs", "tmpfs", path_str(&docs.join("sub/mnt"))?])?;
    let _unmount = Unmount(docs.join("sub/mnt"));
    for name in kept {
        write(&docs.join(name), "in no backup")?;
    }
    bench.owner.ok(["exclude", "add", "node_modules/"])?;
    bench.owner.ok(["exclude", "add", "/**/shares/of/"])?;
    bench.owner.ok(["config", "set", "one_file_system", "true"])?;
    bench.back_up()?;
    // The rules of then count, and those of today.
    bench.owner.ok(["exclude", "rm", "node_modules/"])?;
    bench.owner.ok(["exclude", "add", "*.today"])?;
    write(&docs.join("x.today"), "left out by today's rules")?;
    write(&docs.join("renamed/node_modules/y"), "in a folder that is new")?;
    write(&docs.join("renamed/file"), "too much")?;
    // The snapshot has the ignore file and the tag; here they are gone, and a file has become a folder with more of them.
    fs::remove_file(docs.join("sub/.gridbackupignore"))?;
    fs::remove_file(docs.join("sub/cache/CACHEDIR.TAG"))?;
    fs::remove_file(docs.join("a"))?;
    write(&docs.join("a/node_modules/z"), "where a file was")?;
    let would = bench.roll_back(0, &["--delete", "--dry-run"])?;
    ensure!(
        told(&would, docs, "would_remove") == ["renamed/file"],
        "{:?}",
        would.lines
    );
    let said = bench.roll_back(1, &["--delete"])?;
    ensure!(
        told(&said, docs, "removed").is_empty() && said.number("removals_withheld") == 1,
        "{:?}",
        said.lines
    );
    ensure!(
        is_there(&docs.join("a/node_modules/z")),
        "a folder was replaced with what was in it"
    );
    fs::remove_dir_all(docs.join("a"))?;
    let said = bench.roll_back(0, &["--delete"])?;
    ensure!(told(&said, docs, "removed") == ["renamed/file"], "{:?}", said.lines);
    for name in kept.iter().chain(&["x.today", "renamed/node_modules/y"]) {
        ensure!(is_there(&docs.join(name)), "{name} is gone (mounted: {is_mounted})");
    }
    let left = told(&said, docs, "left");
    ensure!(
        said.number("extras_left") == left.len() as u64 && left.contains(&"node_modules".to_owned()),
        "{left:?}"
    );
    // What was recovered from the phrase knows it, too.
    fs::remove_dir_all(&bench.owner.dir)?;
    let mut recover = vec!["recover".to_owned(), "--phrase-file".to_owned()];
    recover.extend([path_str(&bench.owner.words())?.to_owned(), "--via".to_owned()]);
    recover.extend((1..=5).map(|number| format!("dir:{}", bench.dir.path().join(format!("disk{number}")).display())));
    bench.owner.ok(recover)?;
    bench.roll_back(0, &["--delete"])?;
    ensure!(
        is_there(&docs.join("node_modules/lib.js")),
        "a recovered home forgot the rules"
    );
    Ok(())
}

/// Takes a mount away when the test ends.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _not_mounted = Command::new("umount").arg(&self.0).stderr(Stdio::null()).status();
    }
}

/// A folder that could not be read was empty in a "complete" snapshot, and what was in it removed by a roll-back.
#[test]
fn what_could_not_be_read_is_not_taken_for_gone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777))?;
    as_plain_user(|| -> Result<()> {
        let owner = owner_with_folders(dir.path(), 1)?;
        let docs = dir.path().join("docs");
        for name in ["closed/precious", "unreadable.txt", "open/x"] {
            write(&docs.join(name), "only copy")?;
        }
        let closed = |mode| fs::set_permissions(docs.join("closed"), Permissions::from_mode(mode));
        let unreadable = |mode| fs::set_permissions(docs.join("unreadable.txt"), Permissions::from_mode(mode));
        write(
            &docs.join("unreadable.txt"),
            &"more than fits into a record ".repeat(400),
        )?;
        closed(0)?;
        unreadable(0)?;
        owner.exits(3, ["run", "--once", path_str(&docs)?])?;
        closed(0o755)?;
        unreadable(0o644)?;
        let from = format!("latest:{}", path_str(&docs)?);
        let said = owner.ok(["restore", &from, "--target", path_str(&docs)?, "--delete"])?;
        ensure!(
            said.number("files_deleted") == 0 && said.number("extras_left") == 2,
            "{:?}",
            said.lines
        );
        closed(0o755)?;
        ensure!(is_there(&docs.join("closed/precious")) && is_there(&docs.join("unreadable.txt")));
        Ok(())
    })
}

/// `--exclude 'cache/'` did not protect the folder, `--exclude cache` did.
#[test]
fn patterns_of_the_restore_protect_folders_too() -> Result<()> {
    let bench = Bench::new()?;
    bench.back_up()?;
    for name in ["cache/x", "sub/new/y", "sub/z"] {
        write(&bench.docs.join(name), "x")?;
    }
    bench.roll_back(0, &["--delete", "--exclude", "cache/", "--include", "sub/"])?;
    let there = ["cache/x", "sub/new", "sub/z"].map(|name| is_there(&bench.docs.join(name)));
    ensure!(there == [true, false, false], "{there:?}");
    write(&bench.docs.join("sub/new/kept/y"), "x")?;
    write(&bench.docs.join("sub/new/z"), "x")?;
    bench.roll_back(0, &["--delete", "--exclude", "kept/", "--exclude", "cache/"])?;
    ensure!(is_there(&bench.docs.join("sub/new/kept/y")) && !is_there(&bench.docs.join("sub/new/z")));
    Ok(())
}

#[test]
fn dangerous_places_need_a_word_more_and_own_folders_are_left_even_so() -> Result<()> {
    let bench = Bench::new()?;
    let all = bench.dir.path().join("all");
    fs::create_dir_all(&all)?;
    let owner = Home::init(all.join("home"), "owner", 1)?;
    for number in 1..=3 {
        fs::create_dir_all(all.join(format!("disk{number}")))?;
        let url = format!("dir:{}", path_str(&all.join(format!("disk{number}")))?);
        owner.ok(["peer", "add", &format!("disk{number}"), &url])?;
    }
    write(&all.join("docs/a"), "alpha")?;
    owner.ok(["exclude", "add", "disk*/"])?;
    owner.ok(["run", "--once", path_str(&all)?])?;
    owner.ok(["exclude", "rm", "disk*/"])?;
    write(&all.join("docs/new"), "x")?;
    let from = format!("latest:{}", path_str(&all)?);
    for target in [
        all.as_path(),
        bench.dir.path(),
        Path::new("/"),
        &all.join("disk1"),
        &all.join("home/store"),
    ] {
        let said = owner.exits(1, ["restore", &from, "--target", path_str(target)?, "--delete"])?;
        ensure!(said.stderr.contains("--unsafe-delete"), "{}", said.stderr);
    }
    let sure = [
        "restore",
        &from,
        "--target",
        path_str(&all)?,
        "--delete",
        "--unsafe-delete",
    ];
    let said = owner.ok(sure)?;
    ensure!(told(&said, &all, "removed") == ["docs/new"], "{:?}", said.lines);
    owner.ok(["check"])?;
    Ok(())
}

fn same_file(one: &Path, other: &Path) -> Result<bool> {
    Ok(fs::metadata(one)?.ino() == fs::metadata(other)?.ino())
}

/// A second name became a link to whatever lay at the first.
#[test]
fn links_are_made_only_to_what_the_snapshot_has() -> Result<()> {
    let bench = Bench::new()?;
    let name = |name: &str| bench.docs.join(name);
    let text = noise(300_000, 7);
    fs::write(name("h1"), &text)?;
    fs::hard_link(name("h1"), name("h2"))?;
    fs::hard_link(name("h1"), name("h3"))?;
    bench.back_up()?;
    // `never` keeps the local first name: the others are what the snapshot has, and linked to each other.
    for lost in ["h1", "h2", "h3"] {
        fs::remove_file(name(lost))?;
    }
    fs::write(name("h1"), "mine")?;
    bench.roll_back(0, &["--overwrite", "never"])?;
    ensure!(
        fs::read(name("h1"))? == b"mine" && fs::read(name("h2"))? == text,
        "linked to a local file"
    );
    ensure!(same_file(&name("h2"), &name("h3"))? && !same_file(&name("h1"), &name("h2"))?);
    // A first name that is as it should be is linked to.
    bench.roll_back(0, &[])?;
    fs::remove_file(name("h2"))?;
    bench.roll_back(0, &["--overwrite", "never"])?;
    ensure!(same_file(&name("h1"), &name("h2"))?);
    // The first name cannot be made: the others are, and not as links to what is in its way.
    for lost in ["h1", "h2", "h3"] {
        fs::remove_file(name(lost))?;
    }
    write(&name("h1/in the way"), "x")?;
    bench.roll_back(1, &["--overwrite", "always"])?;
    ensure!(fs::read(name("h2"))? == text && same_file(&name("h2"), &name("h3"))?);
    // The content cannot be had: what is there stays.
    fs::remove_dir_all(name("h1"))?;
    fs::remove_file(name("h3"))?;
    fs::write(name("h1"), "stale")?;
    fs::write(name("h2"), "mine")?;
    for number in 1..=5 {
        fs::rename(
            bench.dir.path().join(format!("disk{number}")),
            bench.dir.path().join(format!("away{number}")),
        )?;
    }
    let said = bench.roll_back(13, &["--overwrite", "always"])?;
    ensure!(
        fs::read(name("h1"))? == b"stale" && fs::read(name("h2"))? == b"mine",
        "{:?}",
        said.lines
    );
    ensure!(!is_there(&name("h3")), "a link to a stale file");
    Ok(())
}

#[test]
fn patterns_that_match_nothing_are_a_failure() -> Result<()> {
    let bench = Bench::new()?;
    bench.back_up()?;
    let target = bench.dir.path().join("out");
    for more in [&["--include", "nowhere"][..], &["--include", "nowhere", "--dry-run"]] {
        let said = bench.restore(1, "latest", &target, more)?;
        ensure!(said.stderr.contains("nowhere") && !target.exists(), "{}", said.stderr);
    }
    let said = bench.restore(
        1,
        "latest",
        &target,
        &["--include", "nowhere", "--include", "sub", "--include", "!x"],
    )?;
    ensure!(said.number("files_restored") == 1, "{:?}", said.lines);
    let problems: Vec<_> = said
        .lines
        .iter()
        .filter(|line| line["message_type"] == "problem")
        .collect();
    ensure!(
        problems.len() == 1 && problems[0].to_string().contains("nowhere"),
        "{problems:?}"
    );
    bench.owner.exits(1, ["dump", "latest:/nowhere"])?;
    let file = bench.docs.join("a");
    let said = bench.restore(1, &format!("latest:{}", path_str(&file)?), &file, &[])?;
    ensure!(said.stderr.contains("no folder"), "{}", said.stderr);
    Ok(())
}

/// The target folder of a restore into a folder that was there kept its own time, which the restore itself had moved.
#[test]
fn a_folder_that_becomes_the_snapshots_gets_its_metadata() -> Result<()> {
    let bench = Bench::new()?;
    fs::set_permissions(&bench.docs, Permissions::from_mode(0o750))?;
    bench.back_up()?;
    let copy = bench.dir.path().join("copy");
    ensure!(run("cp", &["-a", path_str(&bench.docs)?, path_str(&copy)?])?);
    for target in [&bench.docs, &bench.dir.path().join("other")] {
        write(&target.join("new"), "x")?;
        let from = format!("latest:{}", path_str(&bench.docs)?);
        bench.restore(0, &from, target, &["--delete"])?;
        assert_same(&copy, target)?;
    }
    // One that only lends its room keeps its own.
    let room = bench.dir.path().join("room");
    fs::create_dir(&room)?;
    fs::set_permissions(&room, Permissions::from_mode(0o700))?;
    bench.restore(0, &format!("latest:{}", path_str(&bench.docs)?), &room, &[])?;
    ensure!(fs::metadata(&room)?.mode() & 0o777 == 0o700);
    Ok(())
}

/// `ls > /dev/full` said "Interrupted", 130.
#[test]
fn a_full_standard_output_is_named_by_every_command() -> Result<()> {
    let bench = Bench::new()?;
    bench.back_up()?;
    let cat = format!("latest:{}", path_str(&bench.docs.join("a"))?);
    for words in [
        &["ls", "latest"][..],
        &["status"],
        &["snapshots"],
        &["cat", &cat],
        &["find", "*"],
        &["dump", "latest"],
        &["completions", "bash"],
        &["man"],
        &["--help"],
        &["config", "get", "name"],
        &["run", "--once", path_str(&bench.docs)?],
    ] {
        let mut command = bench.owner.command(words);
        let said = command
            .stdout(fs::OpenOptions::new().write(true).open("/dev/full")?)
            .stderr(Stdio::piped())
            .output()?;
        let stderr = String::from_utf8_lossy(&said.stderr);
        ensure!(said.status.code() == Some(1), "{words:?}: {:?} {stderr}", said.status);
        ensure!(
            stderr.contains("tandard output") && stderr.contains("space"),
            "{words:?}: {stderr}"
        );
    }
    Ok(())
}

#[test]
fn nothing_is_left_beside_a_place_that_refuses() -> Result<()> {
    let bench = Bench::new()?;
    fs::write(bench.docs.join("large"), noise(400_000, 3))?;
    bench.back_up()?;
    let targets = ["a", "large"].map(|name| bench.docs.join(name));
    for target in &targets {
        fs::write(target, "changed")?;
    }
    if !is_root_user() || !run("chattr", &["+i", path_str(&targets[0])?, path_str(&targets[1])?])? {
        eprintln!("no immutable files here: nothing was tried");
        return Ok(());
    }
    let said = bench.roll_back(1, &[]);
    run("chattr", &["-i", path_str(&targets[0])?, path_str(&targets[1])?])?;
    ensure!(said?.number("files_failed") == 2);
    for entry in fs::read_dir(&bench.docs)? {
        let name = entry?.file_name();
        ensure!(!name.to_string_lossy().starts_with(".gridbackup-partial"), "{name:?}");
    }
    Ok(())
}

/// Metadata `generated`, which anybody may give, made `publish restore` restore 0 of 36 files.
#[tokio::test]
async fn publish_brings_back_what_its_routes_call_generated() -> Result<()> {
    let site = Site::start(Kind::Moto, 9)?;
    let routes = site.routes(
        "[[route]]\nmatch = '*'\nheaders = { metadata = { generated = 'hugo' } }\n[[route]]\nmatch = '*.css'\n\
         headers = { redirect = '/elsewhere' }\n[[route]]\nmatch = 'drafts/**'\npublish = false\n",
    )?;
    write(&site.root.join("drafts/later.html"), "not yet")?;
    site.publish(0, &["--routes", &routes, "--index-pages"])?;
    let back = site.dir.path().join("back");
    let said = site.restore(&back, 0, &[])?;
    ensure!(
        said.number("files_restored") == 9 && said.number("objects_skipped") > 0,
        "{}",
        said.last()
    );
    fs::remove_dir_all(site.root.join("drafts"))?;
    ensure!(files(&site.root)? == files(&back)?);
    // What the routes do not publish has no object, and is in no backup.
    write(&back.join("drafts/later.html"), "not yet")?;
    write(&back.join("old.html"), "too much")?;
    let delete = ["--delete", "--routes", &routes];
    let would = site.restore(&back, 0, &[&delete[..], &["--dry-run"]].concat())?;
    ensure!(
        would.number("files_removed") == 1 && would.lines.iter().any(|line| line.to_string().contains("old.html")),
        "{:?}",
        would.lines
    );
    site.restore(&back, 0, &delete)?;
    ensure!(is_there(&back.join("drafts/later.html")) && !is_there(&back.join("old.html")));
    let said = site.restore(Path::new("/"), 1, &["--delete"])?;
    ensure!(said.stderr.contains("--unsafe-delete"), "{}", said.stderr);
    // Names that nothing fits.
    let said = site.restore(&back, 1, &["nowhere", "d0"])?;
    ensure!(
        said.lines.iter().any(|line| line.to_string().contains("nowhere")),
        "{:?}",
        said.lines
    );
    Ok(())
}

/// aws, s5cmd and rclone take these beside the URL.
#[tokio::test]
async fn endpoint_and_region_stand_beside_every_url() -> Result<()> {
    let site = Site::start(Kind::Moto, 3)?;
    let at = format!("http://{}", site.at);
    let beside = ["--endpoint", &at, "--region", "us-east-1"];
    let (home, root) = (&site.home, path_str(&site.root)?);
    let back = site.dir.path().join("back");
    home.ok([&["publish", root, "s3://site/beside"][..], &beside].concat())?;
    home.ok([&["publish", "diff", root, "s3://site/beside"][..], &beside].concat())?;
    home.ok([
        &["publish", "restore", "s3://site/beside", path_str(&back)?][..],
        &beside,
    ]
    .concat())?;
    ensure!(files(&site.root)? == files(&back)?);
    // A bucket that is not there was "Other publishers took the lock in the bucket again and again".
    let said = home.exits(1, [&["publish", root, "s3://nosuchbucket/x"][..], &beside].concat())?;
    ensure!(said.stderr.contains("no such bucket"), "{}", said.stderr);
    let owner = Home::init(site.dir.path().join("owner"), "owner", 0)?;
    owner.ok([
        &["peer", "add", "bucket", "s3://site/grid"][..],
        &["--endpoint-url", &at],
    ]
    .concat())?;
    owner.ok(["run", "--once", root])?;
    let words = path_str(&owner.words())?.to_owned();
    let other = Home::new(site.dir.path().join("other"));
    other.ok([
        &["recover", "--phrase-file", &words, "--via", "s3://site/grid"][..],
        &["--endpoint", &at],
    ]
    .concat())?;
    Ok(())
}
