//! What can be done with snapshots besides restoring them: compare, mark, dump, count, find, drill.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::compare::rsync_differences;
use tests::fixture::{self, noise};
use tests::grid::Node;
use tests::home::{Home, path_str};

use crate::main_job::make_source;
use crate::unchanged::owner_with_folders;

/// How long a daemon may take to say something.
const PATIENCE: Duration = Duration::from_secs(60);

fn recover(owner: &Home, dir: &Path) -> Result<Home> {
    let home = Home::new(dir.join("second"));
    let words = owner.words();
    let mut command = vec!["recover", "--phrase-file", path_str(&words)?];
    let disks: Vec<String> = (1..=5)
        .map(|disk| format!("dir:{}", dir.join(format!("disk{disk}")).display()))
        .collect();
    for disk in &disks {
        command.extend(["--via", disk]);
    }
    home.ok(command)?;
    Ok(home)
}

#[test]
fn a_diff_names_every_change_and_nothing_else() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    make_source(&source)?;
    for name in ["stays", "grows", "touched", "locked", "becomes"] {
        fs::write(source.join(name), noise(5_000, name.len() as u64))?;
    }
    fs::create_dir_all(source.join("going/deep"))?;
    fs::write(source.join("going/deep/file"), "x")?;
    let owner = owner_with_folders(dir.path(), 1)?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    fs::write(source.join("grows"), noise(6_000, 1))?;
    fs::File::open(source.join("touched"))?.set_modified(std::time::SystemTime::UNIX_EPOCH)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(source.join("locked"), mode)?;
    fs::remove_file(source.join("becomes"))?;
    fs::create_dir(source.join("becomes"))?;
    fs::write(source.join("becomes/folder"), "y")?;
    fs::remove_dir_all(source.join("going"))?;
    owner.ok(["run", "--once", path_str(&source)?])?;

    let start = Instant::now();
    let said = owner.ok(["diff", "latest~1", "latest"])?;
    eprintln!("diff: {:.3} s", start.elapsed().as_secs_f64());
    let changes: BTreeMap<&str, (&str, &Value)> = said
        .lines
        .iter()
        .filter(|line| line["message_type"] == "change")
        .map(|line| {
            let path = line["path"].as_str().unwrap_or_default();
            let name = path.strip_prefix(source.to_str().unwrap_or_default()).unwrap_or(path);
            (name, (line["change"].as_str().unwrap_or_default(), &line["what"]))
        })
        .collect();
    let none = json!([]);
    let (content, time, mode) = (json!(["content", "time"]), json!(["time"]), json!(["mode"]));
    let expected = BTreeMap::from([
        ("/becomes", ("type", &none)),
        ("/becomes/folder", ("added", &none)),
        ("/going", ("removed", &none)),
        ("/going/deep", ("removed", &none)),
        ("/going/deep/file", ("removed", &none)),
        ("/grows", ("modified", &content)),
        ("/locked", ("metadata", &mode)),
        ("/touched", ("metadata", &time)),
    ]);
    ensure!(changes == expected, "{changes:#?}");
    let counts = ["added", "removed", "modified", "metadata", "type_changed"].map(|key| said.number(key));
    ensure!(counts == [1, 3, 1, 2, 1], "{}", said.last());
    let back = owner.ok(["diff", "latest", "latest~1", path_str(&source.join("going"))?])?;
    ensure!(back.number("added") == 3 && back.lines.len() == 4, "{:?}", back.lines);
    owner.exits(1, ["diff", "latest", "latest~1", "/nowhere"])?;
    Ok(())
}

#[test]
fn tags_and_pins_outlive_the_machine_and_keep_snapshots() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    fs::create_dir(&source)?;
    let owner = owner_with_folders(dir.path(), 1)?;
    for number in 0..4 {
        fs::write(source.join("file"), noise(5_000 + number, 1))?;
        owner.ok(["run", "--once", path_str(&source)?])?;
    }
    owner.ok(["tag", "latest~1", "--add", "trip", "--add", "old"])?;
    owner.ok(["tag", "latest~1", "--remove", "old"])?;
    owner.ok(["pin", "latest~3"])?;
    owner.exits(2, ["tag", "latest", "--add", "two\nlines"])?;
    let pinned = owner.exits(1, ["forget", "latest~3"])?;
    ensure!(pinned.stderr.contains("unpin"), "{}", pinned.stderr);
    let said = owner.ok(["forget", "--keep-last", "1", "--keep-tag", "trip"])?;
    let kept: Vec<&Value> = said
        .lines
        .iter()
        .filter(|line| line["action"] == "keep")
        .map(|line| &line["reasons"])
        .collect();
    ensure!(
        kept == [&json!(["pinned"]), &json!(["tag"]), &json!(["last"])],
        "{kept:?}"
    );

    let home = recover(&owner, dir.path())?;
    let said = home.ok(["snapshots"])?;
    let marks: Vec<(&Value, &Value)> = said.lines.iter().map(|line| (&line["tags"], &line["pinned"])).collect();
    let (none, trip, yes, no) = (json!([]), json!(["trip"]), json!(true), json!(false));
    ensure!(marks == [(&none, &yes), (&trip, &no), (&none, &no)], "{marks:?}");
    let only = home.ok(["snapshots", "--tag", "trip", "--path", path_str(&source.join("file"))?])?;
    ensure!(only.lines.len() == 1);
    ensure!(home.ok(["snapshots", "--device", "ffffffffffff"])?.lines.is_empty());
    let grouped = home.ok(["snapshots", "--group-by", "device,tag", "--last", "1"])?;
    let groups = grouped
        .lines
        .iter()
        .filter(|line| line["message_type"] == "group")
        .count();
    ensure!((groups, grouped.lines.len()) == (2, 4), "{:?}", grouped.lines);
    Ok(())
}

/// Pipes a dump into a program.
fn dump_into(owner: &Home, what: &str, format: &str, into: &mut Command) -> Result<()> {
    let mut dump = owner
        .command(["dump", what, "--format", format])
        .stdout(Stdio::piped())
        .spawn()?;
    let taken = into.stdin(dump.stdout.take().context("stdout is piped")?).output()?;
    ensure!(dump.wait()?.success(), "dump failed");
    ensure!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    Ok(())
}

#[test]
fn a_tar_dump_gives_every_odd_thing_back() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    make_source(&source)?;
    fs::write(source.join("large"), noise(20 << 20, 5))?;
    // A tar has no sockets.
    let _none_there = fs::remove_file(source.join("odd/special/socket"));
    let owner = owner_with_folders(dir.path(), 1)?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let target = dir.path().join("target");
    fs::create_dir(&target)?;
    let what = format!("latest:{}", path_str(&source)?);
    let mut tar = Command::new("tar");
    tar.args([
        "-x",
        "--numeric-owner",
        "--same-owner",
        "-p",
        "--xattrs",
        "--xattrs-include=*",
        "-C",
    ])
    .arg(&target);
    let start = Instant::now();
    dump_into(&owner, &what, "tar", &mut tar)?;
    eprintln!("dump and tar -x: {:.1} s", start.elapsed().as_secs_f64());
    let differences = rsync_differences(&source, &target)?;
    ensure!(differences.is_empty(), "{differences:#?}");
    Ok(())
}

#[test]
fn a_zip_dump_is_read_by_others() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    fs::create_dir_all(source.join("ä/deep"))?;
    fs::write(source.join("ä/deep/small"), "hello")?;
    fs::write(source.join("empty"), "")?;
    fs::write(source.join("large"), noise(6 << 20, 1))?;
    std::os::unix::fs::symlink("empty", source.join("link"))?;
    let owner = owner_with_folders(dir.path(), 1)?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let zip = dir.path().join("all.zip");
    let mut write = Command::new("tee");
    write.arg(&zip).stdout(Stdio::null());
    dump_into(&owner, &format!("latest:{}", path_str(&source)?), "zip", &mut write)?;
    let script = "import sys, zipfile, zlib\n\
                  z = zipfile.ZipFile(sys.argv[1])\n\
                  assert z.testzip() is None\n\
                  for i in z.infolist(): print(i.filename, i.file_size, oct(i.external_attr >> 16), i.date_time[0])\n\
                  z.extractall(sys.argv[2])";
    let target = dir.path().join("target");
    let python = Command::new("python3")
        .args(["-c", script])
        .arg(&zip)
        .arg(&target)
        .output();
    let Ok(python) = python else {
        eprintln!("no python3: the zip is not read");
        return Ok(());
    };
    let said = String::from_utf8_lossy(&python.stdout);
    ensure!(
        python.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&python.stderr)
    );
    ensure!(said.contains("ä/deep/small 5 0o100644"), "{said}");
    ensure!(said.contains("link 5 0o120777"), "{said}");
    ensure!(fs::read(target.join("large"))? == noise(6 << 20, 1));
    ensure!(fs::read(target.join("ä/deep/small"))? == b"hello");
    Ok(())
}

#[test]
fn stats_say_what_a_snapshot_adds_and_find_knows_every_state() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    fs::create_dir_all(source.join("sub"))?;
    fs::write(source.join("stays"), noise(3 << 20, 1))?;
    fs::write(source.join("twin"), noise(3 << 20, 1))?;
    fs::write(source.join("sub/first"), noise(1 << 20, 2))?;
    let owner = owner_with_folders(dir.path(), 1)?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    fs::remove_file(source.join("sub/first"))?;
    fs::write(source.join("sub/second"), noise(2 << 20, 3))?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let all = owner.ok(["stats"])?;
    let one = owner.ok(["stats", "latest~1"])?;
    let mib = |said: &tests::home::Said, key: &str| said.number(key) >> 20;
    ensure!(
        mib(&all, "bytes") == 15 && mib(&all, "bytes_deduplicated") == 6,
        "{}",
        all.last()
    );
    ensure!(
        all.number("bytes_stored") > all.number("bytes_compressed"),
        "{}",
        all.last()
    );
    ensure!(one.number("bytes_unique") == 1 << 20, "{}", one.last());
    ensure!(owner.ok(["stats", "latest"])?.number("bytes_unique") == 2 << 20);

    let found = owner.ok(["find", "*s*", "--type", "f"])?;
    let names: Vec<(&str, u64)> = found
        .lines
        .iter()
        .map(|line| {
            let name = line["path"].as_str().and_then(|path| path.rsplit('/').next());
            (name.unwrap_or_default(), line["snapshots"].as_u64().unwrap_or(0))
        })
        .collect();
    ensure!(names == [("stays", 2), ("first", 1), ("second", 1)], "{names:?}");
    ensure!(owner.ok(["find", "first", "--snapshot", "latest"])?.lines.is_empty());
    ensure!(owner.ok(["find", "first", "--older", "1d"])?.lines.is_empty());
    Ok(())
}

#[test]
fn a_drill_finds_what_cannot_be_restored_and_what_rots_here() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    fs::create_dir(&source)?;
    // None so small that it lies in the log, where it needs no peer.
    for number in 0..20 {
        fs::write(
            source.join(format!("file{number}")),
            noise(5_000 + number * 9_000, number as u64),
        )?;
    }
    let owner = owner_with_folders(dir.path(), 1)?;
    owner.exits(1, ["verify"])?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let good = owner.ok(["verify", "--files", "50"])?;
    let total = good.number("files");
    ensure!(good.number("identical") == total && total >= 19, "{}", good.last());

    fs::write(source.join("file3"), "changed since")?;
    let rotten = source.join("file7");
    let time = fs::metadata(&rotten)?.modified()?;
    fixture::flip_byte(&rotten)?;
    fs::File::options().write(true).open(&rotten)?.set_modified(time)?;
    let bad = owner.exits(1, ["verify", "--files", "50"])?;
    let numbers = ["changed_since", "differing", "unreadable"].map(|key| bad.number(key));
    ensure!(numbers == [1, 1, 0] && bad.last()["ok"] == false, "{}", bad.last());

    for disk in 1..=4 {
        fs::remove_dir_all(dir.path().join(format!("disk{disk}")))?;
    }
    // What lies in the one share that is left can be read from it alone.
    let gone = owner.exits(1, ["verify", "--files", "50"])?;
    let unreadable = gone.number("unreadable");
    ensure!(unreadable > 0 && gone.last()["ok"] == false, "{}", gone.last());
    Ok(())
}

#[test]
fn the_daemon_drills_by_itself_and_says_what_it_found() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    fs::create_dir(&source)?;
    let file = source.join("file");
    fs::write(&file, noise(50_000, 1))?;
    let owner = owner_with_folders(dir.path(), 1)?;
    owner.ok(["config", "set", "verify_interval", "1s"])?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let daemon = Node::start_as(&owner, "run")?;
    daemon.event("verified", PATIENCE)?;
    let time = fs::metadata(&file)?.modified()?;
    fixture::flip_byte(&file)?;
    fs::File::options().write(true).open(&file)?.set_modified(time)?;
    let failed = daemon.event("verify_failed", PATIENCE)?;
    ensure!(failed["text"].to_string().contains("1 differ"), "{failed}");
    Ok(())
}
