//! Homes that are older than what peers hold, heads that are newer than what can be read, two machines of one account: whatever
//! happened to the home or to the heads, every snapshot that was protected once comes back, and every hint shown works.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::compare::assert_same;
use tests::fixture::noise;
use tests::grid::share_files;
use tests::home::{Home, Said, path_str, program};

use crate::unchanged::owner_with_folders;

/// A home on five disks, and a folder to back up.
pub struct Ann {
    pub dir: PathBuf,
    pub source: PathBuf,
    pub home: Home,
}

impl Ann {
    pub fn new(dir: &Path, tolerate: u8) -> Result<Self> {
        let source = dir.join("source");
        fs::create_dir_all(&source)?;
        let home = owner_with_folders(dir, tolerate)?;
        Ok(Self {
            dir: dir.to_owned(),
            source,
            home,
        })
    }

    /// Writes the file of a day, one too long to travel in the log, and backs up.
    fn day(&self, number: u64) -> Result<Said> {
        self.write(number)?;
        self.home.say(["run", "--once", path_str(&self.source)?])
    }

    pub fn write(&self, number: u64) -> Result<()> {
        Ok(fs::write(
            self.source.join(format!("day {number}")),
            noise(30_000, number),
        )?)
    }

    fn disk(&self, number: u32) -> PathBuf {
        self.dir.join(format!("disk{number}"))
    }

    fn take_away(&self, number: u32) -> Result<()> {
        Ok(fs::rename(self.disk(number), self.dir.join(format!("away{number}")))?)
    }

    fn bring_back(&self, number: u32) -> Result<()> {
        Ok(fs::rename(self.dir.join(format!("away{number}")), self.disk(number))?)
    }

    /// A day that only three of the disks see, and of which the third then loses what it took: the shares that it lost.
    fn badly_kept_day(&self, number: u64) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        self.take_away(4)?;
        self.take_away(5)?;
        let before = share_files(&self.disk(3))?;
        ensure!(self.day(number)?.code == Some(4));
        let mut lost = Vec::new();
        for share in share_files(&self.disk(3))? {
            if !before.contains(&share) {
                lost.push((share.clone(), fs::read(&share)?));
                fs::remove_file(share)?;
            }
        }
        self.bring_back(4)?;
        self.bring_back(5)?;
        Ok(lost)
    }

    /// What recovers the account in a new home from the disks that are there.
    fn recovery(&self) -> Result<Vec<String>> {
        let words = path_str(&self.dir.join("owner.words"))?.to_owned();
        let mut args = ["recover", "--phrase-file", &words, "--via"]
            .map(str::to_owned)
            .to_vec();
        for disk in (1..=5).map(|number| self.disk(number)).filter(|disk| disk.exists()) {
            args.push(format!("dir:{}", path_str(&disk)?));
        }
        Ok(args)
    }

    pub fn recovered(&self, name: &str) -> Result<(Home, Said)> {
        let home = Home::new(self.dir.join(name));
        let said = home.ok(self.recovery()?)?;
        Ok((home, said))
    }

    /// The files of these days, and no others, are in the newest snapshot of a home, byte for byte.
    fn has_days(&self, home: &Home, snapshot: &str, days: &[u64]) -> Result<()> {
        let target = self.dir.join("back");
        let from = format!("{snapshot}:{}", path_str(&self.source)?);
        home.ok(["restore", &from, "--target", path_str(&target)?])?;
        for day in days {
            ensure!(
                fs::read(target.join(format!("day {day}")))? == noise(30_000, *day),
                "day {day}"
            );
        }
        ensure!(fs::read_dir(&target)?.count() == days.len(), "only {days:?}");
        Ok(fs::remove_dir_all(&target)?)
    }
}

pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let _not_there = fs::remove_dir_all(to);
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "cp {} {}", from.display(), to.display());
    Ok(())
}

pub fn snapshots(home: &Home) -> Result<Vec<Value>> {
    Ok(home.ok(["snapshots"])?.lines)
}

fn lose_catalog(home: &Home) -> Result<()> {
    for entry in fs::read_dir(&home.dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("catalog.db") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A virtual machine was turned back to Monday: its next backups were refused for as many runs as it was behind, then accepted,
/// and Tuesday to Thursday were gone.
#[test]
fn a_home_that_was_turned_back_catches_up_by_itself() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ann = Ann::new(dir.path(), 2)?;
    ensure!(ann.day(1)?.code == Some(0));
    copy(&ann.home.dir, &dir.path().join("monday"))?;
    for day in 2..=4 {
        ensure!(ann.day(day)?.code == Some(0));
    }
    copy(&dir.path().join("monday"), &ann.home.dir)?;
    let said = ann.day(5)?;
    ensure!(said.code == Some(0), "{said:?}");
    ensure!(said.stderr.contains("older than the newest backup"), "{}", said.stderr);
    ensure!(snapshots(&ann.home)?.len() == 5);
    let (other, said) = ann.recovered("other")?;
    ensure!(said.number("snapshots") == 5, "{}", said.last());
    ann.has_days(&other, "latest", &[1, 2, 3, 4, 5])?;
    ann.has_days(&other, "latest~2", &[1, 2, 3])
}

/// A home that is behind asks before it gives up, forgets or repairs anything, too.
#[test]
fn every_command_that_sends_catches_up_first() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ann = Ann::new(dir.path(), 1)?;
    ann.day(1)?;
    copy(&ann.home.dir, &dir.path().join("monday"))?;
    ann.day(2)?;
    ann.day(3)?;
    for command in [&["repair"][..], &["prune"], &["tag", "latest", "--add", "kept"]] {
        copy(&dir.path().join("monday"), &ann.home.dir)?;
        let said = ann.home.say(command)?;
        ensure!(said.code == Some(0), "{command:?}: {said:?}");
        ensure!(snapshots(&ann.home)?.len() == 3, "{command:?}");
        ensure!(ann.recovered("other")?.1.number("snapshots") == 3, "{command:?}");
        fs::remove_dir_all(dir.path().join("other"))?;
    }
    Ok(())
}

/// The old catalog counts on packs that peers have given up since, and knows nothing of what was forgotten.
#[test]
fn a_home_turned_back_to_before_a_prune_keeps_what_the_newest_head_keeps() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ann = Ann::new(dir.path(), 2)?;
    let large = ann.source.join("large");
    fs::write(&large, noise(3 << 20, 99))?;
    for day in 1..=2 {
        ensure!(ann.day(day)?.code == Some(0));
    }
    fs::remove_file(&large)?;
    for day in 3..=4 {
        ensure!(ann.day(day)?.code == Some(0));
    }
    copy(&ann.home.dir, &dir.path().join("thursday"))?;
    let said = ann.home.ok(["forget", "--keep-last", "2", "--prune"])?;
    ensure!(said.number("shares_discarded") > 0, "{}", said.last());
    copy(&dir.path().join("thursday"), &ann.home.dir)?;
    // The file is back. By the old catalog peers have it, and so it would not be sent.
    fs::write(&large, noise(3 << 20, 99))?;
    let said = ann.day(5)?;
    ensure!(said.code == Some(0), "{said:?}");
    ensure!(said.stderr.contains("older than the newest backup"), "{}", said.stderr);
    ensure!(said.number("bytes_added") > 3 << 20, "{}", said.last());
    ensure!(ann.day(6)?.code == Some(0));
    let (other, said) = ann.recovered("other")?;
    ensure!(said.number("snapshots") == 4, "{}", said.last());
    for home in [&ann.home, &other] {
        ensure!(snapshots(home)?.len() == 4, "what was forgotten stays so");
        let said = home.ok(["check", "--read-data"])?;
        ensure!(said.last()["ok"] == true, "{}", said.last());
        ann.has_days(home, "latest~3", &[1, 2, 3])?;
        ann.has_days(home, "latest~2", &[1, 2, 3, 4])?;
        let target = dir.path().join("all");
        home.ok(["restore", "latest", "--target", path_str(&target)?])?;
        assert_same(&ann.source, &target.join(ann.source.strip_prefix("/")?))?;
        fs::remove_dir_all(&target)?;
    }
    // And it goes on: what nobody wants is given up, and nothing else.
    ann.home.ok(["forget", "--keep-last", "1", "--prune"])?;
    ann.home.ok(["check", "--read-data"])?;
    ensure!(ann.recovered("third")?.1.number("snapshots") == 1);
    Ok(())
}

/// What to keep was decided by the old catalog, and carried out on the one that replaced it: the packs of the newest days were
/// given up while their snapshots were kept, and a tag was gone.
#[test]
fn what_a_home_that_is_behind_forgets_or_marks_is_decided_when_it_has_caught_up() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ann = Ann::new(dir.path(), 1)?;
    ann.day(1)?;
    copy(&ann.home.dir, &dir.path().join("monday"))?;
    ann.day(2)?;
    ann.day(3)?;
    let newest = snapshots(&ann.home)?.pop();
    copy(&dir.path().join("monday"), &ann.home.dir)?;
    ann.home.ok(["tag", "latest", "--add", "kept"])?;
    let tagged = ann.home.ok(["snapshots", "--tag", "kept"])?;
    ensure!(
        tagged.lines.len() == 1 && newest.is_some_and(|newest| newest["id"] == tagged.last()["id"]),
        "{:?}",
        tagged.lines
    );
    copy(&dir.path().join("monday"), &ann.home.dir)?;
    let said = ann.home.ok(["forget", "--keep-last", "2", "--prune"])?;
    let dropped = said.number("packs_dropped");
    ensure!(
        dropped == said.number("packs_repacked"),
        "all are wanted: {}",
        said.last()
    );
    ensure!(snapshots(&ann.home)?.len() == 2);
    let (other, said) = ann.recovered("other")?;
    ensure!(said.number("snapshots") == 2, "{}", said.last());
    ensure!(other.ok(["snapshots", "--tag", "kept"])?.lines.len() == 1);
    ann.has_days(&other, "latest", &[1, 2, 3])?;
    ann.has_days(&other, "latest~1", &[1, 2])
}

/// The service ran before anybody had recovered: an empty catalog in place of the lost one made the history disappear.
#[test]
fn a_lost_catalog_is_not_replaced_by_an_empty_one_and_the_hint_works() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ann = Ann::new(dir.path(), 2)?;
    for day in 1..=4 {
        ann.day(day)?;
    }
    lose_catalog(&ann.home)?;
    for command in [
        &["run", "--once", path_str(&ann.source)?][..],
        &["status"],
        &["snapshots"],
    ] {
        let said = ann.home.exits(1, command)?;
        ensure!(said.stderr.contains("gridbackup recover"), "{}", said.stderr);
    }
    // As the message says, and not a word more. The numbers of its heads go on where they were.
    let said = ann.home.ok(["recover"])?;
    ensure!(said.number("snapshots") == 4, "{}", said.last());
    let said = ann.day(5)?;
    ensure!(said.code == Some(0), "{said:?}");
    let (other, said) = ann.recovered("other")?;
    ensure!(said.number("snapshots") == 5, "{}", said.last());
    ann.has_days(&other, "latest", &[1, 2, 3, 4, 5])
}

/// Two friends were away during a small backup; the owner's disk died; the two came back, and two others were lost.
#[test]
fn a_newer_head_that_cannot_be_read_hides_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ann = Ann::new(dir.path(), 2)?;
    ensure!(ann.day(1)?.code == Some(0));
    ann.badly_kept_day(2)?;
    ann.take_away(1)?;
    ann.take_away(2)?;
    let (other, said) = ann.recovered("other")?;
    ann.has_days(&other, "latest", &[1])?;
    let unread = &said.last()["unread"];
    ensure!(
        unread[0]["number"].as_u64() > Some(1) && unread[0]["device"] == "owner",
        "{}",
        said.last()
    );
    // Now its owner is back: what was badly kept is completed, and the newest is found again.
    ann.bring_back(1)?;
    ann.bring_back(2)?;
    ann.home.ok(["repair"])?;
    ensure!(ann.day(3)?.code == Some(0));
    ensure!(ann.recovered("third")?.1.last()["unread"] == Value::Array(Vec::new()));
    Ok(())
}

/// The same, and the owner's home was turned back: what cannot be read now is neither hidden nor given up.
#[test]
fn a_home_behind_a_head_that_cannot_be_read_goes_on_as_the_hint_says() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ann = Ann::new(dir.path(), 2)?;
    ann.day(1)?;
    copy(&ann.home.dir, &dir.path().join("monday"))?;
    let lost = ann.badly_kept_day(2)?;
    copy(&dir.path().join("monday"), &ann.home.dir)?;
    ann.take_away(1)?;
    ann.take_away(2)?;
    let said = ann.day(3)?;
    ensure!(
        said.code == Some(13) && said.stderr.contains("`gridbackup recover`"),
        "{said:?}"
    );
    let said = ann.home.ok(["recover"])?;
    ensure!(said.last()["unread"][0]["number"] == 2, "{}", said.last());
    ensure!(ann.day(3)?.code == Some(4), "three disks are too few for what is asked");
    ensure!(is_unread(&ann.home)?, "it is said until it is taken in");
    ann.bring_back(1)?;
    ann.bring_back(2)?;
    ann.home.ok(["repair"])?;
    for (share, bytes) in lost {
        fs::write(share, bytes)?;
    }
    // Now it can be read again.
    let said = ann.day(4)?;
    ensure!(
        said.code == Some(0) && said.stderr.contains("can be again: 3 snapshots"),
        "{said:?}"
    );
    ensure!(!is_unread(&ann.home)?);
    let (other, said) = ann.recovered("other")?;
    ensure!(said.number("snapshots") == 4, "{}", said.last());
    ann.has_days(&other, "latest", &[1, 2, 3, 4])?;
    ann.has_days(&other, "latest~2", &[1, 2])
}

/// The same, and what the third disk lost stays lost: that is said until it is given up, and hinders nothing.
#[test]
fn a_head_that_stays_unreadable_is_said_until_it_is_given_up() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ann = Ann::new(dir.path(), 2)?;
    ann.day(1)?;
    copy(&ann.home.dir, &dir.path().join("monday"))?;
    ann.badly_kept_day(2)?;
    copy(&dir.path().join("monday"), &ann.home.dir)?;
    for disk in 1..=2 {
        for share in share_files(&ann.disk(disk))? {
            fs::remove_file(share)?;
        }
    }
    ensure!(ann.day(3)?.code == Some(13));
    ann.home.ok(["recover"])?;
    for day in 3..=4 {
        ann.day(day)?;
        ann.home.say(["repair"])?;
        ensure!(is_unread(&ann.home)?, "day {day}");
    }
    // Another machine, or this one after it lost its catalog again, knows of it as well.
    let (other, said) = ann.recovered("other")?;
    ensure!(is_unread(&other)?, "{}", said.last());
    let refused = ann.home.exits(4, ["prune"])?;
    ensure!(refused.stderr.contains("forget --unread"), "{}", refused.stderr);
    let said = ann.home.ok(["forget", "--unread"])?;
    ensure!(
        (said.number("unread_forgotten"), said.number("snapshots_kept")) == (1, 3),
        "{}",
        said.last()
    );
    ensure!(ann.day(5)?.code == Some(0) && !is_unread(&ann.home)?);
    ann.home.ok(["status"])?;
    Ok(())
}

/// Whether `status` says that a backup could not be read when the home was recovered.
fn is_unread(home: &Home) -> Result<bool> {
    let said = home.say(["status"])?;
    Ok(said.last()["reasons"].to_string().contains("head_unread"))
}

/// A node that only stores lost its catalog: nobody has a backup of it, and it must start again.
#[test]
fn a_home_that_never_backed_anything_up_begins_anew() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ann = Ann::new(dir.path(), 1)?;
    lose_catalog(&ann.home)?;
    ann.home.exits(1, ["status"])?;
    ann.home.ok(["recover"])?;
    ensure!(ann.day(1)?.code == Some(0));
    Ok(())
}

/// Both machines said `Safe`; recovery brought the snapshots of one and did not mention the other.
#[test]
fn the_snapshots_of_all_machines_of_an_account_come_back() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ann = Ann::new(dir.path(), 1)?;
    ann.day(1)?;
    let second = Home::new(dir.path().join("second"));
    let mut recovery = ann.recovery()?;
    recovery.extend(["--name".to_owned(), "laptop".to_owned()]);
    second.ok(recovery)?;
    let (theirs, mine) = (dir.path().join("theirs"), noise(20_000, 77));
    fs::create_dir_all(&theirs)?;
    fs::write(theirs.join("only here"), &mine)?;
    second.ok(["run", "--once", path_str(&theirs)?])?;
    ann.day(2)?;
    fs::write(theirs.join("only here"), [&mine[..], b"!"].concat())?;
    second.ok(["run", "--once", path_str(&theirs)?])?;
    ann.day(3)?;
    // Each of the two names the other: the one whose runs met its heads without a look, too.
    let said = ann.home.ok(["status"])?;
    ensure!(others(&said) == ["laptop"], "{}", said.last());
    let text = Command::new(program())
        .env("GRIDBACKUP_HOME", &ann.home.dir)
        .arg("status")
        .output()?;
    let text = String::from_utf8(text.stdout)?;
    ensure!(text.contains("\nAnother machine of this account: laptop "), "{text}");
    for (home, name) in [(&ann.home, "laptop"), (&second, "owner")] {
        for said in [home.ok(["check"])?, home.ok(["status"])?] {
            ensure!(others(&said) == [name], "{}", said.last());
        }
    }
    let (third, said) = ann.recovered("third")?;
    ensure!(said.number("snapshots") == 5, "{}", said.last());
    // It has the backups of both, and so there is no other.
    ensure!(others(&third.say(["status"])?).is_empty());
    let of = |device: &str| Ok::<_, anyhow::Error>(third.ok(["snapshots", "--device", device])?.lines);
    let (owner, laptop) = (of("owner")?, of("laptop")?);
    ensure!((owner.len(), laptop.len()) == (3, 2), "{owner:?} {laptop:?}");
    let id = |line: &Value| line["id"].as_str().unwrap_or_default().to_owned();
    ann.has_days(&third, &id(&owner[1]), &[1, 2])?;
    ann.has_days(&third, "latest", &[1, 2, 3])?;
    let read = |line: &Value| -> Result<Vec<u8>> {
        let path = format!("{}:{}", id(line), path_str(&theirs.join("only here"))?);
        Ok(Command::new(program())
            .env("GRIDBACKUP_HOME", &third.dir)
            .args(["cat", &path])
            .output()?
            .stdout)
    };
    ensure!(read(&laptop[0])? == mine && read(&laptop[1])?.len() == mine.len() + 1);
    // What was merged is the third's own from now on, and comes back from its head alone.
    third.ok(["run", "--once", path_str(&theirs)?])?;
    let said = ann.recovered("fourth")?.1;
    ensure!(said.number("snapshots") == 6, "{}", said.last());
    let fourth = Home::new(dir.path().join("fourth"));
    ensure!(fourth.ok(["snapshots", "--device", "laptop"])?.lines.len() == 2);
    ann.has_days(&fourth, &id(&owner[2]), &[1, 2, 3])
}

/// The names of the machines that `check` or `status` tells of.
fn others(said: &Said) -> Vec<&str> {
    let devices = said.last()["devices"].as_array().into_iter().flatten();
    let names = devices.filter_map(|device| device.as_str()?.split(' ').next());
    names.collect()
}

/// The second machine had a file that the first one had sent; the first gave it up.
#[test]
fn prune_keeps_what_another_machine_of_the_account_wants() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ann = Ann::new(dir.path(), 1)?;
    let large = noise(700_000, 1);
    fs::write(ann.source.join("shared"), &large)?;
    ann.day(1)?;
    let (second, _) = ann.recovered("second")?;
    let theirs = dir.path().join("theirs");
    fs::create_dir_all(&theirs)?;
    fs::write(theirs.join("the same"), &large)?;
    ensure!(second.ok(["run", "--once", path_str(&theirs)?])?.number("bytes_added") < 100_000);
    fs::remove_file(ann.source.join("shared"))?;
    ann.day(2)?;
    ann.home.ok(["forget", "--keep-last", "1", "--prune"])?;
    let said = second.ok(["check", "--read-data"])?;
    ensure!(said.last()["ok"] == true, "{}", said.last());
    ensure!(ann.home.ok(["prune"])?.number("shares_discarded") == 0);
    Ok(())
}

/// The second recovered all that the first had, and forgot it: the first was idle meanwhile, and its own backups were given up.
#[test]
fn prune_keeps_what_an_idle_machine_has_backed_up_until_that_is_said_to_be_gone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ann = Ann::new(dir.path(), 1)?;
    for day in 1..=3 {
        ann.day(day)?;
        fs::remove_file(ann.source.join(format!("day {day}")))?;
    }
    ann.home.ok(["tag", "latest~1", "--add", "kept"])?;
    ann.home.ok(["pin", "latest~1"])?;
    let second = Home::new(dir.path().join("second"));
    let mut recovery = ann.recovery()?;
    recovery.extend(["--name".to_owned(), "laptop".to_owned()]);
    second.ok(recovery)?;
    let theirs = dir.path().join("theirs");
    fs::create_dir_all(&theirs)?;
    fs::write(theirs.join("file"), noise(20_000, 9))?;
    second.ok(["run", "--once", path_str(&theirs)?])?;
    second.ok(["unpin", "latest~2"])?;
    second.ok(["forget", "--keep-last", "1", "--allow-empty-group"])?;
    let said = second.ok(["prune"])?;
    ensure!(said.number("shares_discarded") == 0, "{}", said.last());
    ensure!(
        said.lines
            .iter()
            .any(|line| line["error"].to_string().contains("forget --device")),
        "{:?}",
        said.lines
    );
    ensure!(ann.home.ok(["check", "--read-data"])?.last()["ok"] == true);
    let said = second.ok(["forget", "--device", "owner", "--prune"])?;
    ensure!(said.last()["shares_discarded"].as_u64() > Some(0), "{}", said.last());
    Ok(())
}

/// What one of two machines had pinned and tagged of a snapshot that both knew was lost when the other's history came first.
#[test]
fn pins_and_tags_of_what_two_machines_share_come_back() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ann = Ann::new(dir.path(), 1)?;
    ann.day(1)?;
    let second = Home::new(dir.path().join("second"));
    let mut recovery = ann.recovery()?;
    recovery.extend(["--name".to_owned(), "laptop".to_owned()]);
    second.ok(recovery)?;
    ann.home.ok(["tag", "latest", "--add", "first"])?;
    ann.home.ok(["pin", "latest"])?;
    let theirs = dir.path().join("theirs");
    fs::create_dir_all(&theirs)?;
    fs::write(theirs.join("file"), noise(20_000, 9))?;
    second.ok(["run", "--once", path_str(&theirs)?])?;
    let (third, _) = ann.recovered("third")?;
    let all = snapshots(&third)?;
    let shared = all.iter().find(|line| line["device_name"] == "owner");
    ensure!(
        shared.is_some_and(|line| line["pinned"] == true && line["tags"][0] == "first"),
        "{all:?}"
    );
    Ok(())
}

/// Two machines of one account: the first has forgotten what the second has as well, and has given up nothing yet.
struct Two {
    ann: Ann,
    second: Home,
    theirs: PathBuf,
}

impl Two {
    fn new(ann: Ann) -> Result<Self> {
        let large = noise(700_000, 1);
        fs::write(ann.source.join("shared"), &large)?;
        ensure!(ann.day(1)?.code == Some(0));
        let second = Home::new(ann.dir.join("second"));
        let mut recovery = ann.recovery()?;
        recovery.extend(["--name".to_owned(), "laptop".to_owned()]);
        second.ok(recovery)?;
        let theirs = ann.dir.join("theirs");
        fs::create_dir_all(&theirs)?;
        fs::write(theirs.join("the same"), &large)?;
        fs::remove_file(ann.source.join("shared"))?;
        Ok(Self { ann, second, theirs })
    }

    fn second_runs(&self) -> Result<Said> {
        self.second.say(["run", "--once", path_str(&self.theirs)?])
    }

    /// The first gives its only use of it up, and meets the second's heads.
    fn forget(&self) -> Result<()> {
        ensure!(self.ann.day(2)?.code == Some(0));
        self.ann.home.ok(["forget", "--keep-last", "1"])?;
        self.ann.home.ok(["status"])?;
        Ok(())
    }

    /// Shares at the disks that are here.
    fn shares(&self) -> Result<usize> {
        let disks = (1..=5).map(|number| self.ann.disk(number)).filter(|disk| disk.exists());
        disks.map(|disk| Ok(share_files(&disk)?.len())).sum()
    }

    /// `prune` cannot tell, says so, and leaves every share where it is.
    fn gives_nothing_up(&self, why: &str) -> Result<()> {
        let shares = self.shares()?;
        let said = self.ann.home.exits(4, ["prune"])?;
        ensure!(
            said.stderr.contains("Nothing is given up") && said.stderr.contains(why),
            "{}",
            said.stderr
        );
        ensure!(self.shares()? == shares, "shares were given up");
        Ok(())
    }

    /// It can tell again: what the second wants stays.
    fn prunes(&self) -> Result<()> {
        self.ann.home.ok(["prune"])?;
        self.second.ok(["repair"])?;
        let said = self.second.ok(["check", "--read-data"])?;
        ensure!(said.last()["ok"] == true, "{}", said.last());
        let target = self.ann.dir.join("of second");
        self.second.ok(["restore", "latest", "--target", path_str(&target)?])?;
        assert_same(&self.theirs, &target.join(self.theirs.strip_prefix("/")?))
    }
}

/// Peers that are silent may have heads of machines that nobody else has.
#[test]
fn prune_gives_nothing_up_while_more_peers_are_silent_than_may_be_lost() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let two = Two::new(Ann::new(dir.path(), 1)?)?;
    ensure!(two.second_runs()?.code == Some(0));
    two.forget()?;
    two.ann.take_away(1)?;
    two.ann.take_away(2)?;
    two.gives_nothing_up("2 peers do not say whether another machine")?;
    two.ann.bring_back(1)?;
    two.ann.bring_back(2)?;
    // A head that is damaged could be anybody's, too.
    for number in 1..=2 {
        copy(&two.ann.disk(number), &dir.path().join(format!("whole{number}")))?;
        for head in heads_of(&two.ann.disk(number))? {
            fs::write(head, noise(4096, 9))?;
        }
    }
    two.gives_nothing_up("2 peers do not say whether another machine")?;
    for number in 1..=2 {
        copy(&dir.path().join(format!("whole{number}")), &two.ann.disk(number))?;
    }
    two.prunes()
}

#[test]
fn prune_gives_nothing_up_while_what_another_machine_wants_cannot_be_read() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let two = Two::new(Ann::new(dir.path(), 1)?)?;
    let of_first = (1..=5).map(|number| share_files(&two.ann.disk(number)));
    let of_first = of_first.collect::<Result<Vec<_>>>()?.concat();
    ensure!(two.second_runs()?.code == Some(0));
    // All of them: of a small pack one share alone may be enough.
    let mut lost = Vec::new();
    for number in 1..=5 {
        for share in share_files(&two.ann.disk(number))? {
            if !of_first.contains(&share) {
                lost.push((share.clone(), fs::read(&share)?));
                fs::remove_file(share)?;
            }
        }
    }
    ensure!(!lost.is_empty());
    two.forget()?;
    two.gives_nothing_up("what the machine `laptop` has backed up cannot be read")?;
    for (share, bytes) in lost {
        fs::write(share, bytes)?;
    }
    two.prunes()
}

/// One of two disks had the second machine's head, and was away: nobody else knew of it, and its files were given up.
#[test]
fn prune_gives_nothing_up_while_who_has_another_machine_s_head_is_away() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ann = Ann::new(dir.path(), 1)?;
    for number in 3..=5 {
        ann.home.ok(["peer", "rm", &format!("disk{number}")])?;
        fs::remove_dir_all(ann.disk(number))?;
    }
    let two = Two::new(ann)?;
    two.ann.take_away(2)?;
    ensure!(two.second_runs()?.code == Some(4));
    two.ann.bring_back(2)?;
    two.forget()?;
    two.ann.take_away(1)?;
    two.gives_nothing_up("who has the newest backup of the machine `laptop` does not answer")?;
    two.ann.bring_back(1)?;
    two.prunes()
}

/// All files of heads below a folder.
fn heads_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if folder.components().any(|part| part.as_os_str() == "heads") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// All five friends had lost the head: `check`, `status`, `repair` and `verify` were content, and nothing could be recovered.
#[test]
fn heads_that_are_missing_or_damaged_are_named_counted_and_put_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ann = Ann::new(dir.path(), 2)?;
    ann.day(1)?;
    let said = ann.home.ok(["check"])?;
    ensure!(
        (said.number("heads_expected"), said.number("heads_found")) == (5, 5),
        "{}",
        said.last()
    );
    let spoil = |damage: &dyn Fn(&Path) -> std::io::Result<()>| -> Result<()> {
        for number in 1..=5 {
            for head in heads_of(&ann.disk(number))? {
                damage(&head)?;
            }
        }
        Ok(())
    };
    let garble = |head: &Path| fs::write(head, noise(4096, 9));
    for damage in [
        &|head: &Path| fs::remove_file(head) as std::io::Result<()>,
        &garble as &dyn Fn(&Path) -> _,
    ] {
        spoil(damage)?;
        for _ in 0..2 {
            let said = ann.home.exits(4, ["check"])?;
            ensure!(said.number("heads_found") == 0, "{}", said.last());
            ensure!(said.stderr.contains("disk3") || said.lines.iter().any(|line| line["peer"] == "disk3"));
        }
        ann.home.exits(1, ["verify"])?;
        ann.home.ok(["repair"])?;
        ann.home.ok(["check"])?;
        ann.recovered("other")?;
        fs::remove_dir_all(dir.path().join("other"))?;
    }
    Ok(())
}

/// A recovered machine backed nothing up, and said `Safe`.
#[test]
fn settings_come_back_with_the_backups() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ann = Ann::new(dir.path(), 1)?;
    ann.home.ok(["folder", "add", path_str(&ann.source)?])?;
    ann.home.ok(["exclude", "add", "*.iso"])?;
    ann.home.ok(["config", "set", "interval", "10m"])?;
    ann.write(1)?;
    ann.home.ok(["run", "--once"])?;
    let (other, said) = ann.recovered("other")?;
    for (key, value) in [
        ("folders", path_str(&ann.source)?),
        ("exclude", "*.iso"),
        ("tolerate", "1"),
        ("interval", "600"),
    ] {
        let now = other.ok(["config", "get", key])?;
        ensure!(now.last().to_string().contains(value), "{key}: {}", now.last());
        ensure!(said.last()["settings"].to_string().contains(key), "{}", said.last());
    }
    ensure!(other.ok(["run", "--once"])?.number("files_unmodified") == 1);
    let mut chosen = ann.recovery()?;
    chosen.extend(["--tolerate".to_owned(), "0".to_owned()]);
    let third = Home::new(dir.path().join("third"));
    third.ok(chosen)?;
    ensure!(
        third
            .ok(["config", "get", "tolerate"])?
            .last()
            .to_string()
            .contains('0')
    );
    Ok(())
}

/// Cut off between two of its files, `init` or `recover` left a home that could do neither.
#[test]
fn a_home_whose_making_was_cut_off_is_made_by_the_same_command_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ann = Ann::new(dir.path(), 1)?;
    ann.day(1)?;
    let made = Home::init(dir.path().join("made"), "made", 1)?;
    let recovered = ann.recovered("recovered")?.0;
    let files = ["config.toml", "catalog.db", "device.key", "device.cert"];
    for (whole, command) in [(&made, "init"), (&recovered, "recover")] {
        for count in 0..=files.len() {
            let cut = Home::new(dir.path().join(format!("{command} {count}")));
            fs::create_dir_all(&cut.dir)?;
            // What recovery makes of the catalog comes last.
            for file in files
                .iter()
                .take(count)
                .filter(|file| command == "init" || **file != "catalog.db")
            {
                let _not_every_home_has_it = fs::copy(whole.dir.join(file), cut.dir.join(file));
            }
            match command {
                "init" => cut.ok(["init", "--name", "again"])?,
                _ => cut.ok(ann.recovery()?)?,
            };
            // Nothing is backed up yet: not safe, and said in order.
            cut.exits(4, ["status"])?;
            ensure!(fs::metadata(cut.dir.join("account.key"))?.len() > 0);
        }
    }
    // With its keys, and not yet its catalog: nothing takes it for new, and the command goes on.
    let cut = Home::new(dir.path().join("keys only"));
    fs::create_dir_all(&cut.dir)?;
    for file in ["device.key", "device.cert", "account.key"] {
        fs::copy(recovered.dir.join(file), cut.dir.join(file))?;
    }
    ensure!(
        cut.exits(1, ["run", "--once", path_str(&ann.source)?])?
            .stderr
            .contains("gridbackup recover")
    );
    cut.ok(ann.recovery()?)?;
    ann.has_days(&cut, "latest", &[1])?;
    // A home that lost its account's key is no new one.
    fs::remove_file(ann.home.dir.join("account.key"))?;
    ensure!(ann.home.exits(1, ["init"])?.stderr.contains("account.key"));
    ann.home.ok(ann.recovery()?)?;
    ensure!(ann.day(2)?.code == Some(0));
    Ok(())
}

/// The folder of a bare name is the empty path, which cannot be synced; the words stayed, of an account that was never made.
#[test]
fn the_words_of_an_account_that_does_not_exist_never_stay() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let here = |home: &str, words: &str| -> Result<std::process::Output> {
        let mut command = Command::new(program());
        command
            .current_dir(dir.path())
            .env("GRIDBACKUP_HOME", dir.path().join(home));
        Ok(command.args(["init", "--phrase-out", words]).output()?)
    };
    ensure!(here("one", "words.txt")?.status.success());
    let words = fs::read_to_string(dir.path().join("words.txt"))?;
    ensure!(words.split_whitespace().count() == 24);
    // Never overwritten, and nothing is made.
    ensure!(!here("two", "words.txt")?.status.success());
    ensure!(!dir.path().join("two/account.key").exists());
    ensure!(fs::read_to_string(dir.path().join("words.txt"))? == words);
    ensure!(!here("three", "no such folder/words.txt")?.status.success());
    ensure!(here("three", "words 3.txt")?.status.success());
    // Cut off after the words and before the key: the same command makes that account.
    fs::remove_file(dir.path().join("one/account.key"))?;
    ensure!(here("one", "words.txt")?.status.success());
    ensure!(fs::read_to_string(dir.path().join("words.txt"))? == words);
    Ok(())
}
