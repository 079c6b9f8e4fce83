//! What somebody meets who goes by the README and makes ordinary mistakes: each hint works to its end, and nothing is called
//! safe that is not.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tests::fixture::noise;
use tests::home::{Home, path_str};

fn add(home: &Home, dir: &Path, name: &str) -> Result<PathBuf> {
    let folder = dir.join(name);
    fs::create_dir_all(&folder)?;
    home.ok(["peer", "add", name, &format!("dir:{}", path_str(&folder)?)])?;
    Ok(folder)
}

fn state(home: &Home) -> Result<String> {
    Ok(home.say(["status"])?.text("state").to_owned())
}

/// The README's own order: a backup first, then friend after friend. All stayed on the first one, whatever was tried.
#[test]
fn what_was_backed_up_before_enough_peers_were_there_spreads_when_they_come() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    fs::create_dir_all(&source)?;
    fs::write(source.join("large"), noise(600_000, 1))?;
    fs::write(source.join("tiny"), b"tiny")?;
    let home = Home::init(dir.path().join("owner"), "owner", 2)?;
    home.ok(["folder", "add", path_str(&source)?])?;
    add(&home, dir.path(), "a")?;
    home.exits(4, ["run", "--once"])?;
    for name in ["b", "c", "d"] {
        add(&home, dir.path(), name)?;
    }
    home.say(["repair"])?;
    home.say(["run", "--once"])?;
    ensure!(state(&home)? == "safe", "{:?}", home.say(["status"])?.last());
    // And it is true: what the first one has is not needed.
    fs::remove_dir_all(dir.path().join("a"))?;
    fs::remove_dir_all(dir.path().join("b"))?;
    let other = Home::new(dir.path().join("other"));
    let words = dir.path().join("owner.words");
    let via = |name: &str| Ok::<_, anyhow::Error>(format!("dir:{}", path_str(&dir.path().join(name))?));
    other.ok([
        "recover",
        "--phrase-file",
        path_str(&words)?,
        "--via",
        &via("c")?,
        "--via",
        &via("d")?,
    ])?;
    let target = dir.path().join("back");
    other.ok(["restore", "latest", "--target", path_str(&target)?])?;
    let back = target.join(source.strip_prefix("/")?);
    ensure!(fs::read(back.join("large"))? == noise(600_000, 1) && fs::read(back.join("tiny"))? == b"tiny");
    Ok(())
}

/// The second run had nothing to do, and what waited for the one that was away was called safe.
#[test]
fn what_waits_for_one_peer_is_not_safe_at_the_second_look_either() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    fs::create_dir_all(&source)?;
    fs::write(source.join("first"), noise(50_000, 1))?;
    let home = Home::init(dir.path().join("owner"), "owner", 2)?;
    home.ok(["folder", "add", path_str(&source)?])?;
    for name in ["a", "b", "c", "d", "e"] {
        add(&home, dir.path(), name)?;
    }
    home.ok(["run", "--once"])?;
    fs::rename(dir.path().join("e"), dir.path().join("away"))?;
    fs::write(source.join("second"), b"z1")?;
    for _ in 0..2 {
        home.exits(4, ["run", "--once"])?;
        let status = home.exits(4, ["status"])?;
        ensure!(status.last()["safe"] == false, "{}", status.last());
    }
    fs::rename(dir.path().join("away"), dir.path().join("e"))?;
    home.ok(["run", "--once"])?;
    ensure!(state(&home)? == "safe");
    Ok(())
}

/// `status` went on to name a folder that was taken out as its own hint says.
#[test]
fn a_folder_that_is_gone_and_taken_out_is_lacking_no_more() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (stays, goes) = (dir.path().join("stays"), dir.path().join("goes"));
    let home = Home::init(dir.path().join("owner"), "owner", 1)?;
    for name in ["a", "b", "c"] {
        add(&home, dir.path(), name)?;
    }
    for folder in [&stays, &goes] {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("file"), noise(5_000, 1))?;
        home.ok(["folder", "add", path_str(folder)?])?;
    }
    home.ok(["run", "--once"])?;
    fs::remove_dir_all(&goes)?;
    home.exits(3, ["run", "--once"])?;
    home.ok(["folder", "rm", path_str(&goes)?])?;
    home.ok(["run", "--once"])?;
    home.ok(["status"])?;
    Ok(())
}

/// An empty or missing config.toml was taken for one in which all peers were removed.
#[test]
fn an_empty_or_missing_config_removes_no_peer() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    fs::create_dir_all(&source)?;
    fs::write(source.join("file"), noise(50_000, 1))?;
    let home = Home::init(dir.path().join("owner"), "owner", 1)?;
    home.ok(["folder", "add", path_str(&source)?])?;
    for name in ["a", "b", "c"] {
        add(&home, dir.path(), name)?;
    }
    home.ok(["run", "--once"])?;
    let config = home.dir.join("config.toml");
    let right = fs::read(&config)?;
    for empty in [true, false] {
        match empty {
            true => fs::write(&config, b"")?,
            false => fs::remove_file(&config)?,
        }
        let status = home.exits(4, ["status"])?;
        ensure!(status.text("state") == "config_damaged", "{}", status.last());
        ensure!(status.number("files_lost") == 0, "{}", status.last());
        home.exits(1, ["run", "--once"])?;
        // What is added to an emptied config would pass for all there is.
        home.exits(1, ["config", "set", "tolerate", "1"])?;
        home.exits(1, ["peer", "rm", "a"])?;
        let target = dir.path().join(format!("back {empty}"));
        home.ok(["restore", "latest", "--target", path_str(&target)?])?;
        ensure!(fs::read(home.dir.join("config.last"))? == right);
        // As the hint says.
        fs::copy(home.dir.join("config.last"), &config)?;
        home.ok(["run", "--once"])?;
        home.ok(["status"])?;
    }
    Ok(())
}

/// A policy that keeps nothing was let through where a snapshot was pinned.
#[test]
fn a_pin_does_not_make_a_slip_of_the_hand_a_policy() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    fs::create_dir_all(&source)?;
    let home = Home::init(dir.path().join("owner"), "owner", 0)?;
    add(&home, dir.path(), "a")?;
    for number in 0..3 {
        fs::write(source.join("file"), noise(5_000, number))?;
        home.ok(["run", "--once", path_str(&source)?])?;
    }
    home.ok(["pin", "latest~2"])?;
    home.exits(1, ["forget", "--keep-tag", "nope"])?;
    ensure!(home.ok(["snapshots"])?.lines.len() == 3);
    for _ in 0..2 {
        home.ok(["forget", "latest"])?;
    }
    ensure!(home.ok(["snapshots"])?.lines.len() == 1, "who names them means it");
    Ok(())
}

/// Without a word of who has the backups, nothing was found at nobody, and that was called a success.
#[test]
fn recovery_without_anybody_to_ask_says_so() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let home = Home::init(dir.path().join("owner"), "owner", 1)?;
    for entry in fs::read_dir(&home.dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("catalog.db") {
            fs::remove_file(entry.path())?;
        }
    }
    let said = home.exits(1, ["recover"])?;
    ensure!(said.stderr.contains("--via"), "{}", said.stderr);
    Ok(())
}
