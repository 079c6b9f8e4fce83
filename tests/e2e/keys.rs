//! What a machine's keys may do, and what opens them: passphrases, machines that only put.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tests::compare::assert_same;
use tests::fixture::noise;
use tests::grid::{Grid, Node};
use tests::home::{Home, path_str};

use crate::healing::wait_until;

fn folder(dir: &Path, name: &str, seed: u64) -> Result<std::path::PathBuf> {
    let folder = dir.join(name);
    fs::create_dir(&folder)?;
    fs::write(folder.join("letter"), noise(60_000, seed))?;
    fs::write(folder.join("photo"), noise(3 << 20, seed + 1))?;
    Ok(folder)
}

fn with(home: &Home, variable: &str, value: &str) -> Home {
    let mut home = home.clone();
    home.env.push((variable.to_owned(), value.to_owned()));
    home
}

/// The bytes of the two key files.
fn keys(home: &Home) -> Result<[Vec<u8>; 2]> {
    Ok([
        fs::read(home.dir.join("account.key"))?,
        fs::read(home.dir.join("device.key"))?,
    ])
}

#[test]
fn locked_keys_are_opened_by_a_passphrase_from_anywhere_and_by_nothing_else() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = folder(dir.path(), "source", 1)?;
    let (source, store) = (path_str(&source)?, dir.path().join("usb"));
    fs::create_dir(&store)?;
    let home = Home::init(dir.path().join("home"), "ann", 0)?;
    home.ok(["peer", "add", "usb", &format!("dir:{}", store.display())])?;
    home.ok(["run", "--once", source])?;
    let plain = keys(&home)?;
    let file = |name: &str, text: &str| -> Result<String> {
        let path = dir.path().join(name);
        fs::write(&path, text)?;
        Ok(path_str(&path)?.to_owned())
    };
    let (one, two) = (
        file("one", "correct horse\nnot this\n")?,
        file("two", "battery staple\n")?,
    );

    ensure!(home.ok(["passphrase", "set", "--new", &one])?.text("action") == "locked");
    for (locked, plain) in keys(&home)?.iter().zip(&plain) {
        ensure!(
            locked.starts_with(b"GRIDSEAL") && !locked.windows(16).any(|part| plain.windows(16).any(|key| key == part))
        );
    }
    let refused = home.exits(12, ["run", "--once", source])?;
    ensure!(refused.stderr.contains("--passphrase-file"), "{}", refused.stderr);
    ensure!(with(&home, "GRIDBACKUP_PASSPHRASE", "wrong").say(["snapshots"])?.code == Some(12));
    home.ok(["device", "ls", "--passphrase-file", &one])?;
    with(&home, "GRIDBACKUP_PASSPHRASE_FILE", &one).ok(["run", "--once", source])?;
    home.ok(["snapshots", "--passphrase-command", "echo correct horse"])?;
    let typed = with(&home, "GRIDBACKUP_PASSPHRASE", "correct horse");
    let failing = home.exits(1, ["snapshots", "--passphrase-command", "exit 3"])?;
    ensure!(failing.stderr.contains("exit 3"), "{}", failing.stderr);

    // Another passphrase: the key files stay, and the old one opens nothing.
    let locked = keys(&home)?;
    typed.ok(["passphrase", "set", "--new", &two])?;
    ensure!(keys(&home)? == locked);
    ensure!(typed.say(["snapshots"])?.code == Some(12));
    let typed = with(&home, "GRIDBACKUP_PASSPHRASE", "battery staple");
    // A daemon that has it needs nobody to type it again, and its keys are not changed under it.
    typed.ok(["config", "set", "listen", "/ip4/127.0.0.1/tcp/0"])?;
    let daemon = Node::start(&typed)?;
    home.ok(["status"])?;
    ensure!(typed.say(["passphrase", "rm"])?.code == Some(11), "the home is in use");
    drop(daemon);

    // A change that was cut off leaves files that can be read, and is finished by the next.
    let sealed = keys(&home)?;
    fs::write(home.dir.join("device.key"), &plain[1])?;
    typed.ok(["snapshots"])?;
    typed.ok(["passphrase", "set", "--new", &one])?;
    let typed = with(&home, "GRIDBACKUP_PASSPHRASE", "correct horse");
    ensure!(keys(&home)?[0] == sealed[0] && keys(&home)?[1].starts_with(b"GRIDSEAL"));
    // A lock that is lost is not replaced by one that opens nothing.
    let lock = home.dir.join("keys.lock");
    let kept = fs::read(&lock)?;
    fs::remove_file(&lock)?;
    for command in [["passphrase", "set", "--new", &one].as_slice(), &["snapshots"]] {
        let refused = typed.exits(12, command)?;
        ensure!(
            refused.stderr.contains("keys.lock") && refused.stderr.contains("recover"),
            "{refused:?}"
        );
    }
    ensure!(!lock.exists());
    // Nor is one of another home taken for this one's: it would open, and the keys would not.
    let other = with(
        &Home::new(dir.path().join("other")),
        "GRIDBACKUP_PASSPHRASE",
        "battery staple",
    );
    other.ok(["init", "--phrase-out", path_str(&other.words())?])?;
    fs::copy(other.dir.join("keys.lock"), &lock)?;
    let before = keys(&home)?;
    let foreign = with(&home, "GRIDBACKUP_PASSPHRASE", "battery staple");
    for command in [["passphrase", "set", "--new", &one].as_slice(), &["passphrase", "rm"]] {
        foreign.exits(12, command)?;
    }
    ensure!(keys(&home)? == before && fs::read(&lock)? == fs::read(other.dir.join("keys.lock"))?);
    fs::write(&lock, kept)?;
    ensure!(typed.ok(["passphrase", "rm"])?.text("action") == "unlocked");
    ensure!(keys(&home)? == plain);
    home.ok(["run", "--once", source])?;
    ensure!(home.ok(["passphrase", "rm"])?.text("action") == "unchanged");

    // A home that is made with a passphrase is locked from the start.
    let new = with(
        &Home::new(dir.path().join("new")),
        "GRIDBACKUP_PASSPHRASE",
        "correct horse",
    );
    new.ok(["init", "--phrase-out", path_str(&new.words())?])?;
    ensure!(keys(&new)?.iter().all(|key| key.starts_with(b"GRIDSEAL")));
    Ok(())
}

#[test]
fn a_machine_that_only_puts_backs_up_what_it_can_neither_read_nor_give_up() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let grid = Grid::start(dir.path(), 3, 1)?;
    let owner = &grid.owner;
    let source = folder(dir.path(), "source", 1)?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let words = owner.words();
    let words = path_str(&words)?;

    let nas = Home::new(dir.path().join("nas"));
    let add = [
        "device",
        "add",
        "nas",
        path_str(&nas.dir)?,
        "--put-only",
        "--phrase-file",
        words,
    ];
    owner.ok(add)?;
    ensure!(owner.say(add)?.code == Some(1), "it is a home already");
    ensure!(keys(&nas)?[0][42..74] == [0; 32], "no key to read with");
    nas.ok(["config", "set", "mdns", "false"])?;
    nas.ok(["config", "set", "upnp", "false"])?;
    let disk = folder(dir.path(), "disk", 5)?;
    nas.ok(["run", "--once", path_str(&disk)?])?;
    fs::write(disk.join("more"), noise(70_000, 9))?;
    nas.ok(["run", "--once", path_str(&disk)?])?;
    let ids = nas.ok(["snapshots"])?.lines;
    let ids: Vec<&str> = ids.iter().filter_map(|line| line["id"].as_str()).collect();
    ensure!(ids.len() == 2, "{ids:?}");
    let target = dir.path().join("stolen");
    let refused = nas.exits(1, ["restore", ids[1], "--target", path_str(&target)?])?;
    ensure!(refused.stderr.contains("may only put"), "{refused:?}");
    for words_here in [
        ["leave", "--phrase-file", words].as_slice(),
        &["device", "revoke", "--others", "--phrase-file", words],
    ] {
        let refused = nas.exits(1, words_here)?;
        ensure!(refused.stderr.contains("may not speak"), "{refused:?}");
    }
    nas.exits(1, ["recover"])?;
    ensure!(nas.say(["invite"])?.code != Some(0), "it lets nobody in");

    // The owner sees and reads what it backed up.
    let blank = Home::new(dir.path().join("blank"));
    let via = grid.nodes[0].address()?;
    blank.ok(["recover", "--phrase-file", words, "--via", &via])?;
    let seen = blank.ok(["snapshots"])?.lines;
    let newest = seen
        .iter()
        .find(|line| line["id"] == ids[1])
        .with_context(|| format!("no {} in {seen:?}", ids[1]))?;
    let target = dir.path().join("restored");
    blank.ok([
        "restore",
        newest["id"].as_str().context("an id")?,
        "--target",
        path_str(&target)?,
    ])?;
    assert_same(&disk, &target.join(disk.strip_prefix("/")?))?;

    // Whoever has that machine forgets its snapshots, and gives nothing up by it.
    nas.exits(1, ["prune"])?;
    nas.ok(["forget", ids[0], ids[1], "--allow-empty-group"])?;
    nas.ok(["run", "--once", path_str(&disk)?])?;
    let late = Home::new(dir.path().join("late"));
    late.ok(["recover", "--phrase-file", words, "--via", &via])?;
    late.ok(["undelete"])?;
    let target = dir.path().join("again");
    late.ok(["restore", ids[1], "--target", path_str(&target)?])?;
    assert_same(&disk, &target.join(disk.strip_prefix("/")?))?;
    let known = || -> Result<Option<serde_json::Value>> {
        let devices = owner.ok(["device", "ls"])?.lines;
        Ok(devices.into_iter().find(|line| line["name"] == "nas"))
    };
    wait_until("the owner hears of nas", || {
        owner.say(["check"])?;
        Ok(known()?.is_some())
    })?;
    let shown = known()?.context("nas")?;
    ensure!(shown["powers"] == serde_json::json!(["put", "repair"]), "{shown}");
    Ok(())
}
