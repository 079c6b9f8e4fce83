//! How commands behave: towards what is typed, towards other commands of the same home, and towards whoever reads what they say.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tests::fixture::noise;
use tests::home::{Home, Said, path_str, program};

use crate::layers::root;
use crate::unchanged::owner_with_folders;

/// Far longer than any of these commands takes, on a busy machine, too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two folders with a large file each.
fn sources(dir: &Path) -> Result<[String; 2]> {
    let one = |number: u64| -> Result<String> {
        let source = dir.join(format!("source{number}"));
        fs::create_dir_all(&source)?;
        fs::write(source.join("large"), noise(300_000, number))?;
        Ok(path_str(&source)?.to_owned())
    };
    Ok([one(1)?, one(2)?])
}

/// The snapshots of a home, oldest first.
fn snapshots(home: &Home) -> Result<Vec<String>> {
    let listed = home.ok(["snapshots"])?.lines;
    let ids = listed.iter().filter_map(|line| line["id"].as_str().map(str::to_owned));
    Ok(ids.collect())
}

fn wait(mut child: Child) -> Result<Option<i32>> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    bail!("it never ended")
}

/// `forget --keep-tag TYPO --prune` forgot every snapshot and exited with 0: no group kept one.
#[test]
fn a_policy_that_leaves_nothing_of_a_folder_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = owner_with_folders(dir.path(), 1)?;
    let [one, two] = sources(dir.path())?;
    for source in [&one, &one, &two] {
        owner.ok(["run", "--once", source])?;
    }
    let all = snapshots(&owner)?;
    ensure!(all.len() == 3, "{all:?}");
    owner.ok(["tag", "latest", "--add", "trip"])?;

    let refused = |args: &[&str], code: i32, names: &str| -> Result<()> {
        let said = owner.exits(code, args)?;
        ensure!(said.stderr.contains(names), "{args:?}: {}", said.stderr);
        ensure!(snapshots(&owner)? == all, "{args:?} forgot something");
        Ok(())
    };
    refused(&["forget", "--keep-tag", "tripp", "--prune"], 1, &one)?;
    refused(&["forget", "--keep-tag", "tripp", "--dry-run"], 1, &two)?;
    // One group would keep its own, the other nothing.
    refused(&["forget", "--keep-tag", "trip", "--prune"], 1, &one)?;
    // What the policy would keep of a group is named beside it.
    refused(&["forget", "--keep-last", "1", "latest~1"], 1, &one)?;
    refused(
        &["forget", &all[0], &all[1], &all[2], "--prune"],
        1,
        "Nothing would be left",
    )?;
    refused(&["forget", "--keep-last", "0"], 2, "nothing that says")?;
    // A date names what was made on it, not the newest before it.
    refused(&["forget", "2099-12-31"], 1, "No snapshot is of")?;
    refused(
        &["forget", "--keep-within", "1h30m", "--dry-run"],
        2,
        "`mo` for months or `min` for minutes",
    )?;

    let warned = owner.ok(["forget", "--keep-last", "2", "--keep-tag", "tripp", "--dry-run"])?;
    let problem = warned
        .lines
        .iter()
        .find(|line| line["message_type"] == "problem")
        .context("no warning")?;
    ensure!(problem["error"].to_string().contains("is `trip` meant"), "{problem}");
    owner.ok(["forget", "--keep-within", "1y", "--dry-run"])?;
    let minutes = owner.ok(["config", "set", "alarm_after", "6m"])?;
    ensure!(
        minutes.lines[0]["error"].to_string().contains("6mo"),
        "{:?}",
        minutes.lines
    );
    // Who names a folder's snapshots means it.
    owner.ok(["forget", &all[2]])?;
    owner.ok(["forget", "--keep-tag", "tripp", "--allow-empty-group"])?;
    ensure!(snapshots(&owner)?.is_empty());
    Ok(())
}

/// A pack of a folder whose only snapshot was forgotten stayed wanted as long as a snapshot of any other folder was newer.
#[test]
fn pruning_frees_what_only_another_folders_time_kept() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = owner_with_folders(dir.path(), 1)?;
    let [one, two] = sources(dir.path())?;
    owner.ok(["run", "--once", &one])?;
    owner.ok(["run", "--once", &two])?;
    let first = snapshots(&owner)?.remove(0);
    let pruned = owner.ok(["forget", &first, "--prune"])?;
    ensure!(pruned.number("packs_dropped") == 1, "{}", pruned.last());
    // Unchanged, and nowhere any more: it is sent again.
    owner.ok(["run", "--once", &one])?;
    let back = dir.path().join("back");
    owner.ok(["restore", &format!("latest:{one}"), "--target", path_str(&back)?])?;
    ensure!(fs::read(back.join("large"))? == noise(300_000, 1));
    Ok(())
}

/// Six of six commands beside a `run --once` exited with 130 or 1 when that ended, their work done.
#[test]
fn commands_beside_one_that_ends_are_answered_to_their_end() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = owner_with_folders(dir.path(), 1)?;
    let [one, two] = sources(dir.path())?;
    owner.ok(["run", "--once", &one])?;
    let (first, back) = (snapshots(&owner)?.remove(0), dir.path().join("back"));
    let beside: [&[&str]; 7] = [
        &["run", "--once", &two],
        &["status"],
        &["restore", &first, "--target", path_str(&back)?],
        &["check"],
        &["ls", "latest"],
        &["tag", "latest", "--add", "x"],
        &["peer", "set", "disk1", "--quota", "1G"],
    ];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let running: Vec<_> = beside
            .iter()
            .map(|args| {
                let (owner, done) = (&owner, &done);
                scope.spawn(move || -> Result<u32> {
                    let mut count = 0;
                    while !done.load(Ordering::Relaxed) {
                        let said = owner.say(*args)?;
                        // What they find may differ from moment to moment; that they are cut off, fail or find the home in use may not be.
                        ensure!(
                            matches!(said.code, Some(0 | 4)),
                            "{args:?}: {:?} {}",
                            said.code,
                            said.stderr
                        );
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        let ran = (0..4).try_for_each(|number| -> Result<()> {
            fs::write(Path::new(&one).join("small"), noise(5_000, number))?;
            owner.ok(["run", "--once", &one])?;
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        for (command, args) in running.into_iter().zip(beside) {
            let count = command.join().expect("no panic").with_context(|| format!("{args:?}"))?;
            eprintln!("{count} × {args:?}");
        }
        ran
    })
}

/// A home whose runs have something to warn of: a folder that is gone.
fn owner_with_a_lost_disk(dir: &Path) -> Result<(Home, String)> {
    let owner = owner_with_folders(dir, 1)?;
    let [one, _] = sources(dir)?;
    fs::remove_dir_all(dir.join("disk5"))?;
    Ok((owner, one))
}

/// `run --once 2>&1 | head -3` hung, and a closed stderr failed it with nothing backed up: the first line that could not be logged
/// was a panic.
#[test]
fn no_reader_of_a_run_holds_it_up_or_fails_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (owner, source) = owner_with_a_lost_disk(dir.path())?;
    let mut number = 0;
    let mut run = |stdout: Stdio, stderr: Stdio, level: &str| -> Result<Child> {
        number += 1;
        fs::write(Path::new(&source).join("changing"), noise(200_000, number))?;
        let mut command = owner.command(["run", "--once", &source]);
        let command = command.env("GRIDBACKUP_LOG", level).stdout(stdout).stderr(stderr);
        Ok(command.spawn()?)
    };
    let full = || -> Result<Stdio> { Ok(File::options().write(true).open("/dev/full")?.into()) };
    let made = |what: &str, count: usize| -> Result<()> {
        ensure!(snapshots(&owner)?.len() == count, "{what}: no snapshot");
        Ok(())
    };

    let mut left = run(Stdio::null(), Stdio::piped(), "trace")?;
    drop(left.stderr.take());
    ensure!(matches!(wait(left)?, Some(0 | 4)), "stderr's reader left");
    made("stderr's reader left", 1)?;

    // Far more than a pipe holds, and nobody reads.
    let mut stopped = run(Stdio::null(), Stdio::piped(), "trace")?;
    let reader = stopped.stderr.take();
    ensure!(matches!(wait(stopped)?, Some(0 | 4)), "stderr's reader stopped");
    drop(reader);
    made("stderr's reader stopped", 2)?;

    ensure!(
        matches!(wait(run(Stdio::null(), full()?, "trace")?)?, Some(0 | 4)),
        "stderr is full"
    );
    made("stderr is full", 3)?;

    let mut left = run(Stdio::piped(), Stdio::null(), "warn")?;
    drop(left.stdout.take());
    ensure!(matches!(wait(left)?, Some(0 | 4)), "stdout's reader left");
    made("stdout's reader left", 4)?;

    // The work is done, but who asked for its summary has to know that there is none.
    ensure!(wait(run(full()?, Stdio::null(), "warn")?)? == Some(1), "stdout is full");
    made("stdout is full", 5)?;

    let closed = Command::new("sh")
        .args(["-c", "exec \"$@\" 2>&-", "sh"])
        .arg(program())
        .args(["run", "--once", &source])
        .env("GRIDBACKUP_HOME", &owner.dir)
        .stdout(Stdio::null())
        .spawn()?;
    ensure!(matches!(wait(closed)?, Some(0 | 4)), "stderr is closed");
    made("stderr is closed", 6)
}

/// Logs were raw lines with colour codes in pipes and files, one for each share and try, and text among JSON.
#[test]
fn what_is_logged_is_plain_short_and_json_where_asked() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (owner, source) = owner_with_a_lost_disk(dir.path())?;
    let mut number = 0;
    let mut run = |flags: &[&str]| -> Result<Output> {
        number += 1;
        for file in 0..6 {
            fs::write(
                Path::new(&source).join(format!("new{file}")),
                noise(200_000, number * 10 + file),
            )?;
        }
        let mut command = Command::new(program());
        command.env("GRIDBACKUP_HOME", &owner.dir).args(flags);
        Ok(command.args(["run", "--once", &source]).output()?)
    };
    let text = String::from_utf8(run(&[])?.stderr)?;
    ensure!(!text.contains('\x1b'), "colours: {text}");
    ensure!(text.lines().all(|line| line.starts_with("gridbackup: ")), "{text}");
    let warned = text
        .lines()
        .filter(|line| line.contains("did not take a share"))
        .count();
    ensure!(warned <= 1, "{warned} lines for one peer: {text}");

    let quiet = String::from_utf8(run(&["-q"])?.stderr)?;
    ensure!(!quiet.contains("warning"), "{quiet}");

    let json = String::from_utf8(run(&["--json", "-v"])?.stderr)?;
    ensure!(!json.is_empty());
    for line in json.lines() {
        let object: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        ensure!(object["message_type"].is_string(), "{line}");
    }
    Ok(())
}

/// A mistyped name was "`peer_remove` is not available in this version; see CHANGELOG.md".
#[test]
fn mistyped_names_are_told_as_such() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = owner_with_folders(dir.path(), 1)?;
    let unknown = |args: &[&str]| -> Result<Said> { owner.exits(1, args) };
    for args in [
        &["peer", "rm", "dsik1"][..],
        &["peer", "set", "disk11", "--quota", "1G"],
        &["peer", "set", "disk11", "--shares", "2"],
        &["peer", "evict", "diks1"],
    ] {
        let said = unknown(args)?.stderr;
        ensure!(
            said.contains("There is no peer `") && said.contains("is `disk1` meant?"),
            "{args:?}: {said}"
        );
    }
    let said = unknown(&["peer", "rm", "somebody"])?.stderr;
    ensure!(
        said.contains("There is no peer `somebody`") && !said.contains("meant"),
        "{said}"
    );
    let said = owner.exits(2, ["config", "get", "tolerat"])?.stderr;
    ensure!(said.contains("is `tolerate` meant?"), "{said}");
    Ok(())
}

/// What a new user types is what is tried on a clean machine.
#[test]
fn ci_runs_the_two_commands_of_the_readme() -> Result<()> {
    let readme = fs::read_to_string(root().join("README.md"))?;
    let example = readme
        .split("\n\n")
        .find(|part| part.starts_with("    "))
        .context("no example")?;
    let promised: Vec<&str> = example
        .lines()
        .map(|line| line.split('#').next().unwrap_or(line).trim())
        .collect();
    let ci = fs::read_to_string(root().join(".ci/run"))?;
    let run: Vec<&str> = ci.lines().skip_while(|line| !line.starts_with("cd ")).skip(1).collect();
    ensure!(promised.len() == 2 && promised == run, "{promised:?} and {run:?}");
    Ok(())
}
