//! docs/coming-from-restic.md promises commands to people who know others: every one of them is run here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tests::compare::rsync_differences;
use tests::fixture::noise;
use tests::home::{Home, path_str, program};

use crate::layers::root;
use crate::unchanged::owner_with_folders;

/// Commands of our column, by the number of their row.
fn promised() -> Result<BTreeMap<u32, Vec<String>>> {
    let text = fs::read_to_string(root().join("docs/coming-from-restic.md"))?;
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let hidden = line.replace("\\|", "\0");
        let cells: Vec<&str> = hidden.trim_matches('|').split('|').map(str::trim).collect();
        let (Ok(number), [_, _, _, _, _, ours]) = (cells[0].parse(), &cells[..]) else {
            continue;
        };
        let quoted = ours.split('`').skip(1).step_by(2);
        let commands = quoted.filter(|text| text.starts_with("gridbackup "));
        let commands: Vec<String> = commands.map(|command| command.replace('\0', "|")).collect();
        ensure!(!commands.is_empty(), "row {number} promises no command");
        rows.insert(number, commands);
    }
    Ok(rows)
}

/// A home with two snapshots on five folders, and places for what comes back.
struct Ann {
    dir: PathBuf,
    source: PathBuf,
    owner: Home,
}

impl Ann {
    fn new(dir: &Path) -> Result<Self> {
        let source = dir.join("ann");
        fs::create_dir_all(source.join("notes/deep"))?;
        fs::write(source.join("notes/todo.txt"), "wash the car")?;
        fs::write(source.join("notes/gone.txt"), "not for long")?;
        fs::write(source.join("notes/deep/plan.txt"), noise(3_000, 1))?;
        fs::write(source.join("photo.jpg"), noise(700_000, 2))?;
        std::os::unix::fs::symlink("photo.jpg", source.join("link"))?;
        fs::hard_link(source.join("photo.jpg"), source.join("notes/same.jpg"))?;
        let owner = owner_with_folders(dir, 1)?;
        owner.ok(["run", "--once", path_str(&source)?])?;
        fs::write(source.join("notes/todo.txt"), "wash the car, and the dog")?;
        fs::remove_file(source.join("notes/gone.txt"))?;
        fs::write(source.join("notes/new.txt"), noise(9_000, 3))?;
        owner.ok(["run", "--once", path_str(&source)?])?;
        fs::create_dir_all(dir.join("back"))?;
        fs::create_dir_all(dir.join("mnt"))?;
        Ok(Self {
            dir: dir.to_owned(),
            source,
            owner,
        })
    }

    fn back(&self) -> PathBuf {
        self.dir.join("back")
    }

    /// A promised command with this home's paths.
    fn here(&self, command: &str) -> Result<String> {
        let mut command = command
            .replace("/home/ann", path_str(&self.source)?)
            .replace("/tmp/back", path_str(&self.back())?)
            .replace("/tmp/mnt", path_str(&self.dir.join("mnt"))?)
            .replace("words.txt", path_str(&self.owner.words())?);
        for number in 1..=5 {
            let disk = self.dir.join(format!("disk{number}"));
            command = command.replace(&format!("/media/usb{number}"), path_str(&disk)?);
        }
        Ok(command)
    }

    fn shell(&self, command: &str) -> Result<Output> {
        let script = format!("gridbackup() {{ \"$GRIDBACKUP_PROGRAM\" \"$@\"; }}\nset -o pipefail\n{command}");
        let output = Command::new("bash")
            .args(["-c", &script])
            .env("GRIDBACKUP_PROGRAM", program())
            .env("GRIDBACKUP_HOME", &self.owner.dir)
            .stdin(Stdio::null())
            .output()
            .context("start bash")?;
        Ok(output)
    }

    /// Runs a promised command to its end; what it said.
    fn run(&self, command: &str) -> Result<String> {
        let output = self.shell(&self.here(command)?)?;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr),
        );
        ensure!(output.status.success(), "`{command}`: {out}{err}");
        Ok(out)
    }

    fn clear_back(&self) -> Result<()> {
        fs::remove_dir_all(self.back())?;
        Ok(fs::create_dir_all(self.back())?)
    }

    fn ensure_same(&self, source: &Path, back: &Path) -> Result<()> {
        let mut differences = rsync_differences(source, back)?;
        // A target that was there keeps its own time.
        differences.retain(|line| !line.ends_with(" ./"));
        ensure!(differences.is_empty(), "{differences:?}");
        Ok(())
    }
}

/// Looks at the home and at what a command, the n-th of its row, has said.
type Check = fn(&Ann, usize, &str) -> Result<bool>;

/// What a row's commands must have done, after each of them.
fn script(row: u32) -> Option<Check> {
    Some(match row {
        1 => |ann, step, said| {
            let back = ann.back();
            match step {
                0 => ann.ensure_same(&ann.source.join("notes"), &back).map(|()| true),
                1 => {
                    let todo = back.join(ann.source.strip_prefix("/")?).join("notes/todo.txt");
                    Ok(fs::read(todo)? == b"wash the car, and the dog")
                }
                2 => Ok(said.contains("Would restore")),
                _ => Ok(back.join("photo.jpg").exists()),
            }
        },
        2 => |_, step, said| {
            let expected = [
                "2 snapshots",
                "",
                "gone.txt",
                "new.txt",
                "notes/todo.txt",
                "-  ",
                "M  ",
                "wash the car, and the dog",
            ];
            Ok(said.contains(expected[step]))
        },
        3 => |_, _, _| Ok(true),
        4 => |_, step, said| {
            let expected = ["", "", "tag", "pinned", "", "", "Brought back"];
            Ok(said.contains(expected[step]))
        },
        5 => |_, step, said| Ok(step != 1 || said.contains("!keep.tmp")),
        6 => |_, step, said| {
            let expected = ["All accounted for", "All as safe", "Restorable"];
            Ok(said.contains(expected[step]))
        },
        7 => |ann, _, said| {
            ensure!(said.contains("Recovered"), "{said}");
            let new = Home::new(ann.back().join("new"));
            Ok(!new.ok(["snapshots"])?.lines.is_empty())
        },
        8 => |_, _, _| Ok(true),
        9 => |ann, _, _| ann.ensure_same(&ann.source, &ann.back()).map(|()| true),
        13 => |_, step, said| {
            let expected = ["Gave up", "Would give up", "Gave up"];
            Ok(said.contains(expected[step]))
        },
        14 => |ann, step, _| match step {
            0 => ann.ensure_same(&ann.source, &ann.back()).map(|()| true),
            1 => Ok(fs::read(ann.back().join("notes.zip"))?.starts_with(b"PK\x03\x04")),
            _ => {
                let listed = Command::new("tar")
                    .arg("-tf")
                    .arg(ann.back().join("all.tar"))
                    .output()?;
                let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
                Ok(listed.contains("notes/todo.txt"))
            }
        },
        21 => |_, step, said| {
            let expected = ["with redundancy", "in no other snapshot"];
            Ok(said.contains(expected[step]))
        },
        _ => return None,
    })
}

/// The row whose commands run until they are stopped, and what holds meanwhile.
const STAYING: u32 = 10;
const MEANWHILE: [&str; 2] = [
    "test -e /tmp/mnt/latest/home/ann/notes/todo.txt",
    "exec 3<>/dev/tcp/127.0.0.1/8123",
];

fn run_staying(ann: &Ann, commands: &[String]) -> Result<()> {
    if !Path::new("/dev/fuse").exists() {
        tests::left_out::say("/dev/fuse is not there");
        return Ok(());
    }
    fs::create_dir_all(ann.dir.join("mnt"))?;
    ensure!(commands.len() == MEANWHILE.len(), "{commands:?}");
    for (command, holds) in commands.iter().zip(MEANWHILE) {
        let args = command.strip_prefix("gridbackup ").context("our command")?;
        let script = format!(
            "(exec \"$GRIDBACKUP_PROGRAM\" {args}) & pid=$!\n\
             for _ in $(seq 100); do if ({holds}) 2>/dev/null; then held=yes; break; fi; sleep 0.1; done\n\
             kill $pid; wait $pid; [ \"$held\" = yes ]"
        );
        ann.run(&script)?;
    }
    Ok(())
}

#[test]
fn every_command_promised_to_those_who_come_from_others_does_what_it_says() -> Result<()> {
    let rows = promised()?;
    let expected = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 14, 21];
    ensure!(rows.keys().eq(&expected), "{:?}", rows.keys());
    for (row, commands) in rows {
        let dir = tempfile::tempdir()?;
        let ann = Ann::new(dir.path())?;
        if row == STAYING {
            run_staying(&ann, &commands).with_context(|| format!("row {row}"))?;
            continue;
        }
        let Some(done) = script(row) else {
            bail!("row {row} has no script");
        };
        for (step, command) in commands.iter().enumerate() {
            let said = ann.run(command).with_context(|| format!("row {row}"))?;
            let did = done(&ann, step, &said).with_context(|| format!("row {row}: `{command}`"))?;
            ensure!(did, "row {row}: `{command}` said {said}");
            if row == 1 && step < 2 {
                ann.clear_back()?;
            }
        }
        eprintln!("row {row}: {} commands", commands.len());
    }
    Ok(())
}
