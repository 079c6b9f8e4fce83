//! Wrong words, names and tickets: a clear line, the right exit code, nothing lost.

use std::fs;

use anyhow::Result;
use tests::home::{Home, path_str};

use crate::unchanged::owner_with_folders;

#[test]
fn a_wrong_phrase_exits_with_12_and_says_which_word() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let words = dir.path().join("words");
    let blank = Home::new(dir.path().join("blank"));
    let recover = |text: &str| -> Result<String> {
        fs::write(&words, text)?;
        let said = blank.exits(
            12,
            [
                "recover",
                "--phrase-file",
                path_str(&words)?,
                "--via",
                "/ip4/127.0.0.1/tcp/1",
            ],
        )?;
        assert!(!blank.dir.join("account.key").exists(), "nothing is left behind");
        Ok(said.stderr)
    };
    assert!(recover("abandon ability")?.contains("24"));
    assert!(recover(&"abandon ".repeat(24))?.contains("checksum"));
    assert!(recover(&format!("{}zzzz", "abandon ".repeat(23)))?.contains("zzzz"));
    Ok(())
}

#[test]
fn a_right_phrase_of_another_account_finds_no_backup() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = owner_with_folders(dir.path(), 2)?;
    let source = dir.path().join("source");
    fs::create_dir_all(&source)?;
    fs::write(source.join("file"), b"content")?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let other = Home::init(dir.path().join("other"), "other", 2)?;
    let blank = Home::new(dir.path().join("blank"));
    let via = format!("dir:{}", path_str(&dir.path().join("disk1"))?);
    let said = blank.say(["recover", "--phrase-file", path_str(&other.words())?, "--via", &via])?;
    assert!(
        matches!(said.code, Some(1 | 12 | 13)),
        "{:?} {}",
        said.code,
        said.stderr
    );
    assert!(said.stderr.contains("backup"), "{}", said.stderr);
    Ok(())
}

#[test]
fn unknown_names_are_refused_with_a_remedy() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let nobody = Home::new(dir.path().join("nobody"));
    nobody.exits(10, ["status"])?;
    let owner = owner_with_folders(dir.path(), 2)?;
    let unknown = owner.exits(1, ["restore", "beef1234", "--target", path_str(dir.path())?])?;
    assert!(unknown.stderr.contains("snapshots"), "{}", unknown.stderr);
    owner.exits(2, ["no-such-command"])?;
    let ticket = owner.say(["join", "gbt1notaticket"])?;
    assert!(matches!(ticket.code, Some(1 | 2)), "{:?}", ticket.code);
    assert!(ticket.stderr.to_lowercase().contains("ticket"), "{}", ticket.stderr);
    Ok(())
}

#[test]
fn a_home_that_another_process_holds_is_left_alone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let home = Home::init(dir.path().join("home"), "home", 1)?;
    home.ok(["config", "set", "listen", "/ip4/127.0.0.1/tcp/0"])?;
    let _node = tests::grid::Node::start(&home)?;
    home.exits(11, ["node"])?;
    home.ok(["status"])?;
    Ok(())
}
