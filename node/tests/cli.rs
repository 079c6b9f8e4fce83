//! The binary from outside: exit codes, JSON, and what a person meets first.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn gridbackup(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gridbackup"))
        .arg("--home")
        .arg(home)
        .args(arguments)
        .env_remove("GRIDBACKUP_HOME")
        .output()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The failure that stderr ends with.
fn error(output: &Output) -> Value {
    let text = stderr(output);
    let error: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(error["message_type"], "error");
    assert!(error["error"].is_string() && error.get("hint").is_some(), "{error}");
    error
}

fn init(home: &Path) -> Value {
    let output = gridbackup(home, &["init", "--json", "--name", "tester"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_home_without_an_account_is_exit_10_for_every_command() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["status"][..],
        &["snapshots"],
        &["run", "--once"],
        &["run"],
        &["node"],
        &["queue"],
        &["ls"],
        &["find", "x"],
        &["cat", "latest:/x"],
        &["restore", "latest", "--target", "/nowhere"],
        &["invite"],
        &["join", "ticket"],
        &["peer", "ls"],
        &["folder", "ls"],
        &["exclude", "ls"],
        &["config", "get"],
    ] {
        let output = gridbackup(dir.path(), &[&["--json"], arguments].concat());
        assert_eq!(code(&output), 10, "{arguments:?}: {}", stderr(&output));
        let error = error(&output);
        assert_eq!(error["code"], 10);
        assert!(error["hint"].as_str().unwrap().contains("gridbackup init"), "{error}");
    }
}

#[test]
fn a_wrong_command_line_is_exit_2() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["nonsense"][..],
        &["restore", "latest"],
        &["run", "/path/without/once"],
        &["init", "--tolerate", "many"],
        &["invite", "--expires", "soon"],
        &["cat", "latest"],
        &["peer", "set", "x"],
        &["run", "--listen", "not-a-multiaddr"],
        &["-v", "-q", "status"],
    ] {
        let output = gridbackup(dir.path(), &[&["--json"], arguments].concat());
        assert_eq!(code(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert_eq!(error(&output)["code"], 2);
    }
}

/// A bare `gridbackup` used to be a wrong command line and two screens of usage.
#[test]
fn gridbackup_alone_says_what_to_do_next() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let first = gridbackup(&home, &[]);
    assert_eq!(code(&first), 10, "{}", stderr(&first));
    for step in ["gridbackup init", "folder add", "join TICKET", "gridbackup run"] {
        assert!(stdout(&first).contains(step), "{}", stdout(&first));
    }
    assert_eq!(code(&gridbackup(&home, &["--json"])), 10);
    init(&home);
    let next = gridbackup(&home, &[]);
    assert_eq!(code(&next), 4, "{}", stderr(&next));
    assert!(
        stdout(&next).starts_with("Nothing is backed up yet"),
        "{}",
        stdout(&next)
    );
    assert!(
        stdout(&next).contains("gridbackup folder add PATH"),
        "{}",
        stdout(&next)
    );
    let status: Value = serde_json::from_slice(&gridbackup(&home, &["--json"]).stdout).unwrap();
    assert_eq!(status["state"], "nothing");
}

#[test]
fn init_makes_one_account_and_never_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let initialized = init(&home);
    assert_eq!(initialized["message_type"], "initialized");
    assert_eq!(initialized["phrase"].as_str().unwrap().split(' ').count(), 24);
    assert!(
        initialized["peer_id"].as_str().unwrap().starts_with("12D3"),
        "{initialized}"
    );
    for file in ["account.key", "device.key"] {
        assert_eq!(
            std::fs::metadata(home.join(file)).unwrap().permissions().mode() & 0o777,
            0o600,
            "{file}"
        );
    }
    let keys = std::fs::read(home.join("account.key")).unwrap();
    let second = gridbackup(&home, &["init"]);
    assert_eq!(code(&second), 1);
    assert!(stderr(&second).contains("already"), "{}", stderr(&second));
    assert_eq!(std::fs::read(home.join("account.key")).unwrap(), keys);
}

#[test]
fn the_phrase_goes_to_a_private_file_that_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let phrase = dir.path().join("phrase.txt");
    let arguments = ["init", "--json", "--phrase-out", phrase.to_str().unwrap()];
    let output = gridbackup(&dir.path().join("a"), &arguments);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let initialized: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(initialized.get("phrase").is_none(), "{initialized}");
    assert_eq!(std::fs::metadata(&phrase).unwrap().permissions().mode() & 0o777, 0o600);
    let words = std::fs::read_to_string(&phrase).unwrap();
    assert_eq!(words.split_whitespace().count(), 24);
    let again = gridbackup(&dir.path().join("b"), &arguments);
    assert_eq!(code(&again), 1);
    assert_eq!(std::fs::read_to_string(&phrase).unwrap(), words);
    assert!(
        !dir.path().join("b/account.key").exists(),
        "an account without a phrase was made"
    );
}

#[test]
fn a_wrong_phrase_is_exit_12_and_makes_no_home() {
    let dir = tempfile::tempdir().unwrap();
    let phrase = dir.path().join("phrase");
    let home = dir.path().join("home");
    let unknown = ["abandon"; 23].join(" ") + " gridbackup";
    let checksum = ["abandon"; 24].join(" ");
    for words in ["one two three", &unknown, &checksum, ""] {
        std::fs::write(&phrase, words).unwrap();
        let arguments = [
            "recover",
            "--json",
            "--via",
            "dir:/nowhere",
            "--phrase-file",
            phrase.to_str().unwrap(),
        ];
        let output = gridbackup(&home, &arguments);
        assert_eq!(code(&output), 12, "{words}: {}", stderr(&output));
        assert_eq!(error(&output)["code"], 12);
        assert!(!home.exists());
    }
}

#[test]
fn settings_change_and_comments_stay() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let path = dir.path().join("config.toml");
    let before = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("# my own words\n{before}")).unwrap();
    assert_eq!(code(&gridbackup(dir.path(), &["config", "set", "tolerate", "3"])), 0);
    assert_eq!(
        code(&gridbackup(dir.path(), &["config", "set", "limit_upload", "5M"])),
        0
    );
    assert_eq!(stdout(&gridbackup(dir.path(), &["config", "get", "tolerate"])), "3\n");
    assert_eq!(
        stdout(&gridbackup(dir.path(), &["config", "get", "limit_upload"])),
        "5242880\n"
    );
    let after = std::fs::read_to_string(&path).unwrap();
    assert!(after.starts_with("# my own words\n"));
    for comment in before.lines().filter(|line| line.starts_with('#')) {
        assert!(after.contains(comment), "{comment} is gone");
    }
    let wrong = gridbackup(dir.path(), &["config", "set", "tolerat", "3"]);
    assert_eq!(code(&wrong), 2);
    assert!(stderr(&wrong).contains("tolerat"), "{}", stderr(&wrong));
    std::fs::write(&path, "\n\nfolder = []\n").unwrap();
    let broken = gridbackup(dir.path(), &["folder", "ls"]);
    assert_eq!(code(&broken), 1);
    assert!(stderr(&broken).contains("line 3"), "{}", stderr(&broken));
}

#[test]
fn folders_and_rules_are_added_listed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home);
    let photos = dir.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    let photos = photos.to_str().unwrap();
    assert_eq!(code(&gridbackup(&home, &["folder", "add", "/not/there"])), 1);
    assert_eq!(code(&gridbackup(&home, &["folder", "add", photos])), 0);
    assert_eq!(stdout(&gridbackup(&home, &["folder", "ls"])), format!("{photos}\n"));
    let listed: Value = serde_json::from_slice(&gridbackup(&home, &["folder", "ls", "--json"]).stdout).unwrap();
    assert_eq!(
        (&listed["message_type"], &listed["path"]),
        (&"folder".into(), &photos.into())
    );
    assert_eq!(code(&gridbackup(&home, &["folder", "rm", photos])), 0);
    assert_eq!(code(&gridbackup(&home, &["folder", "rm", photos])), 1);
    assert_eq!(code(&gridbackup(&home, &["exclude", "add", "*.tmp", "!keep.tmp"])), 0);
    assert_eq!(stdout(&gridbackup(&home, &["exclude", "ls"])), "*.tmp\n!keep.tmp\n");
    assert_eq!(code(&gridbackup(&home, &["exclude", "rm", "*.tmp"])), 0);
    assert_eq!(stdout(&gridbackup(&home, &["exclude", "ls"])), "!keep.tmp\n");
}

#[test]
fn a_home_that_another_process_holds_is_exit_11_with_its_pid() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let lock = std::fs::File::options()
        .write(true)
        .open(dir.path().join("lock"))
        .unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    std::fs::write(dir.path().join("lock"), "4711\n").unwrap();
    for arguments in [&["queue"][..], &["run"]] {
        let output = gridbackup(dir.path(), arguments);
        assert_eq!(code(&output), 11, "{}", stderr(&output));
        assert!(stderr(&output).contains("process 4711"), "{}", stderr(&output));
    }
}

#[test]
fn every_command_has_help_and_none_needs_a_home_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let overview = stdout(&gridbackup(dir.path(), &["--help"]));
    let commands: Vec<&str> = overview
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.len() > 18, "{commands:?}");
    for command in commands {
        let output = gridbackup(dir.path(), &[command, "--help"]);
        assert_eq!(code(&output), 0, "{command}");
        assert!(stdout(&output).contains("Usage:"), "{command}");
    }
}

#[test]
fn completions_and_the_manual_are_printed_whole() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = gridbackup(dir.path(), &["completions", shell]);
        assert_eq!(code(&output), 0);
        assert!(stdout(&output).contains("snapshots"), "{shell}");
    }
    let manual = stdout(&gridbackup(dir.path(), &["man"]));
    assert!(
        manual.contains(".TH gridbackup") && manual.contains("RESTORE"),
        "{}",
        &manual[..manual.len().min(500)]
    );
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    for command in ["config get", "completions bash", "man", "--help"] {
        let line = format!(
            "{} --home {} {command} | true",
            env!("CARGO_BIN_EXE_gridbackup"),
            dir.path().display()
        );
        let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
        assert_eq!(stderr(&output), "", "{command}");
    }
}

#[test]
fn a_running_daemon_answers_the_other_commands_and_stops_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    init(&home);
    assert_eq!(code(&gridbackup(&home, &["config", "set", "mdns", "false"])), 0);
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_gridbackup"))
        .args(["--json", "node", "--listen", "/ip4/127.0.0.1/tcp/0", "--home"])
        .arg(&home)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(daemon.stdout.take().unwrap()), &mut first).unwrap();
    let ready: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(ready["message_type"], "ready", "{ready}");
    let disk = dir.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("a.txt"), "keep me").unwrap();
    let (disk, source) = (format!("dir:{}", disk.display()), source.to_str().unwrap());
    let run = |arguments: &[&str]| {
        let output = gridbackup(&home, arguments);
        assert!(matches!(code(&output), 0 | 4), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    };
    run(&["config", "set", "tolerate", "0"]);
    run(&["peer", "add", "disk", &disk]);
    assert!(run(&["peer", "ls"]).contains("disk"));
    run(&["run", "--once", source]);
    assert_eq!(run(&["cat", &format!("latest:{source}/a.txt")]), "keep me");
    assert!(run(&["find", "a.txt"]).contains("/a.txt"));
    assert_eq!(run(&["--json", "snapshots"]).lines().count(), 1);
    assert_eq!(code(&gridbackup(&home, &["node"])), 11);
    run(&["stop"]);
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    assert_eq!(run(&["--json", "snapshots"]).lines().count(), 1);
    assert_eq!(code(&gridbackup(&home, &["stop"])), 1);
}
