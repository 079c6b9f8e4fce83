//! Snapshots as folders: over FUSE, with what the system's own programs do in them, and over WebDAV with a plain client.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::compare::assert_same;
use tests::fixture::noise;
use tests::grid::{Grid, Node};
use tests::home::{Home, path_str};

use crate::main_job::make_source;
use crate::unchanged::owner_with_folders;

/// A mount, or something else that is served, that a process of its own holds.
pub struct Mount {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// What it said when it was ready.
    pub said: Value,
}

impl Mount {
    pub fn start(home: &Home, args: &[&str]) -> Result<Self> {
        Self::serving(home, &[&["mount"], args].concat(), "mounted")
    }

    /// A command that serves something until it is told to stop, and says this message when it does.
    pub fn serving(home: &Home, args: &[&str], ready: &str) -> Result<Self> {
        let log = File::create(home.dir.with_extension("mount.log"))?;
        let mut command = home.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let said: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
        let mount = Self { child, stdout, said };
        if mount.said["message_type"] != ready {
            let log = fs::read_to_string(home.dir.with_extension("mount.log"))?;
            bail!("{args:?} said `{line}` and {log}");
        }
        Ok(mount)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end; returns its last line.
    pub fn end(self, signal: Signal) -> Result<Value> {
        kill_process(Pid::from_child(&self.child), signal)?;
        self.end_with(0)
    }

    /// Waits until it ends with this code; returns its last line.
    pub fn end_with(mut self, code: i32) -> Result<Value> {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest)?;
        let status = self.child.wait()?;
        ensure!(status.code() == Some(code), "it ended with {status}: {rest}");
        Ok(rest
            .lines()
            .last()
            .map_or(Value::Null, |line| serde_json::from_str(line).unwrap_or(Value::Null)))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _gone = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _ended = self.child.wait();
        }
    }
}

/// Whether this system has FUSE; says so if not.
pub fn has_fuse() -> bool {
    let opened = File::options().read(true).write(true).open("/dev/fuse");
    if let Err(error) = &opened {
        tests::left_out::say(&format!("/dev/fuse cannot be opened: {error}"));
    }
    opened.is_ok()
}

pub fn make_dir(path: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&path)?;
    Ok(path)
}

fn is_mounted(at: &Path) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(1) == at.to_str()))
}

/// What a program prints, line by line, sorted.
fn lines_of(command: &mut Command) -> Result<BTreeSet<String>> {
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().map(str::to_owned).collect())
}

#[test]
fn cp_grep_and_random_seeks_find_in_a_mount_what_was_backed_up() -> Result<()> {
    if !has_fuse() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    make_source(&source)?;
    let owner = owner_with_folders(dir.path(), 2)?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let at = make_dir(dir.path().join("mnt"))?;
    let mount = Mount::start(&owner, &[path_str(&at)?])?;
    assert_eq!(mount.said["at"], path_str(&at)?);
    let shown = at.join("latest").join(source.strip_prefix("/")?);

    let start = Instant::now();
    assert_same(&source, &shown)?;
    eprintln!("compared in {:.1} s", start.elapsed().as_secs_f64());
    let (start, copy) = (Instant::now(), dir.path().join("copy"));
    let copied = Command::new("cp").arg("-a").arg(&shown).arg(&copy).status()?;
    ensure!(copied.success(), "cp -a failed");
    eprintln!("cp -a in {:.1} s", start.elapsed().as_secs_f64());
    assert_same(&source, &copy)?;

    let grep = |root: &Path| {
        lines_of(
            Command::new("grep")
                .args(["-rlF", "all work and no play", "."])
                .current_dir(root),
        )
    };
    let found = grep(&source)?;
    ensure!(found.len() > 8, "{found:?}");
    assert_eq!(grep(&shown)?, found);
    let comment = xattr::get(shown.join("odd/attributes/user"), "user.comment")?;
    assert_eq!(comment, xattr::get(source.join("odd/attributes/user"), "user.comment")?);
    seek_around(&source, &shown)?;

    ensure!(
        fs::write(shown.join("new"), b"x").is_err(),
        "the mount can be written to"
    );
    let summary = mount.end(Signal::INT)?;
    eprintln!("{summary}");
    ensure!(!is_mounted(&at)?, "the mount is still there");
    Ok(())
}

/// Reads at random places of large files from eight threads and compares with the source.
fn seek_around(source: &Path, shown: &Path) -> Result<()> {
    let names = [
        "odd/sizes/4194311-random",
        "odd/sizes/4194311-text",
        "odd/sparse/islands",
        "odd/links/first",
    ];
    std::thread::scope(|scope| {
        let readers = (0..8u64).map(|reader| {
            scope.spawn(move || -> Result<()> {
                for name in names {
                    let (ours, theirs) = (File::open(shown.join(name))?, File::open(source.join(name))?);
                    let len = theirs.metadata()?.len();
                    for step in noise(8 * 50, reader + 1).chunks_exact(8) {
                        let random = u64::from_le_bytes(step.try_into()?);
                        let (offset, bytes) = (random % len, (random >> 40) as usize % 200_000);
                        let (mut got, mut wanted) = (vec![0; bytes], vec![0; bytes]);
                        let (got_len, len) = (
                            read_at(&ours, &mut got, offset)?,
                            read_at(&theirs, &mut wanted, offset)?,
                        );
                        ensure!(
                            got_len == len && got == wanted,
                            "{name} differs at {offset}, {bytes} bytes"
                        );
                    }
                }
                Ok(())
            })
        });
        let readers: Vec<_> = readers.collect();
        readers
            .into_iter()
            .try_for_each(|reader| reader.join().expect("a reader does not panic"))
    })
}

/// Reads until the buffer is full or the file ends.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64)? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}

#[test]
fn one_small_file_of_a_large_snapshot_costs_one_request_to_one_peer() -> Result<()> {
    if !has_fuse() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let source = make_dir(dir.path().join("source"))?;
    for number in 0..6 {
        fs::write(source.join(format!("large{number}")), noise(10 << 20, number + 1))?;
    }
    let small = noise(20_000, 99);
    fs::write(source.join("small"), &small)?;
    let owner = owner_with_folders(dir.path(), 2)?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let at = make_dir(dir.path().join("mnt"))?;
    let mount = Mount::start(&owner, &[path_str(&at)?])?;
    let shown = at.join("latest").join(source.strip_prefix("/")?);
    assert_eq!(fs::read_dir(&shown)?.count(), 7);
    assert!(fs::read(shown.join("small"))? == small);
    let summary = mount.end(Signal::TERM)?;
    assert_eq!(summary["ranges_fetched"], 1, "{summary}");
    assert_eq!(summary["peers_used"].as_array().map(Vec::len), Some(1), "{summary}");
    ensure!(summary["bytes_fetched"].as_u64() <= Some(256 << 10), "{summary}");
    Ok(())
}

#[test]
fn a_daemon_mounts_shows_new_snapshots_and_unmounts_when_its_client_ends() -> Result<()> {
    if !has_fuse() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let source = make_dir(dir.path().join("source"))?;
    fs::write(source.join("file"), noise(100_000, 1))?;
    let grid = Grid::start(dir.path(), 3, 1)?;
    let owner = &grid.owner;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let _daemon = Node::start_as(owner, "run")?;
    let at = make_dir(dir.path().join("mnt"))?;
    let mount = Mount::start(owner, &[path_str(&at)?])?;
    let shown = at.join("latest").join(source.strip_prefix("/")?);
    assert!(fs::read(shown.join("file"))? == noise(100_000, 1));

    fs::write(source.join("new"), b"new")?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !shown.join("new").exists() {
        ensure!(Instant::now() < deadline, "the new snapshot does not appear");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(fs::read_dir(at.join("ids"))?.count(), 2);
    assert_eq!(fs::read_dir(at.join("dates"))?.count(), 2);
    // Held open while it ends: it goes out of sight at once, and the daemon stays well.
    let open = File::open(shown.join("file"))?;
    mount.end(Signal::TERM)?;
    ensure!(!is_mounted(&at)?, "the mount is still there");
    drop(open);
    owner.ok(["status"])?;
    Ok(())
}

#[test]
fn a_killed_mount_is_taken_away_by_the_next_and_wrong_places_are_refused() -> Result<()> {
    if !has_fuse() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let source = make_dir(dir.path().join("source"))?;
    fs::write(source.join("file"), b"content")?;
    let owner = owner_with_folders(dir.path(), 2)?;
    owner.ok(["folder", "add", path_str(&source)?])?;
    owner.ok(["run", "--once"])?;
    let at = make_dir(dir.path().join("mnt"))?;
    let mut killed = Mount::start(&owner, &[path_str(&at)?])?;
    killed.child.kill()?;
    killed.child.wait()?;
    ensure!(fs::metadata(&at).is_err(), "a dead mount answers");
    let mount = Mount::start(&owner, &[path_str(&at)?])?;
    assert_eq!(
        fs::read(at.join("latest").join(source.strip_prefix("/")?).join("file"))?,
        b"content"
    );
    mount.end(Signal::TERM)?;

    owner.exits(1, ["mount", path_str(&dir.path().join("nowhere"))?])?;
    owner.exits(1, ["mount", path_str(&source)?])?;
    owner.exits(2, ["mount", "--webdav", "192.0.2.1:0"])?;
    owner.exits(2, ["mount"])?;
    Ok(())
}

/// "Transport endpoint is not connected" told nobody that the program behind a folder was killed, nor what to do.
#[test]
fn a_dead_mount_is_explained_to_restores_and_backups() -> Result<()> {
    if !has_fuse() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let source = make_dir(dir.path().join("source"))?;
    fs::write(source.join("file"), b"content")?;
    let owner = owner_with_folders(dir.path(), 1)?;
    owner.ok(["folder", "add", path_str(&source)?])?;
    owner.ok(["run", "--once"])?;
    let at = make_dir(dir.path().join("mnt"))?;
    let mut killed = Mount::start(&owner, &[path_str(&at)?])?;
    killed.child.kill()?;
    killed.child.wait()?;
    let below = at.join("restored");
    for target in [&at, &below] {
        let said = owner.exits(1, ["restore", "latest", "--target", path_str(target)?])?;
        ensure!(
            said.stderr.contains("was killed") && said.stderr.contains("umount -l"),
            "{said:?}"
        );
    }
    // A folder that has been backed up for long, on a file system whose program died since.
    let folders = format!("{},{}", path_str(&source)?, path_str(&at)?);
    owner.ok(["config", "set", "folders", &folders])?;
    let run = owner.exits(3, ["run", "--once"])?;
    let named =
        |line: &Value| line["path"] == *path_str(&at).unwrap_or("?") && line["error"].to_string().contains("umount -l");
    ensure!(run.lines.iter().any(named), "{run:?}");
    let status = owner.exits(3, ["status"])?;
    ensure!(
        status.last()["headline"].to_string().contains("was killed"),
        "{}",
        status.last()
    );
    let _taken_away = Command::new("umount").arg("-l").arg(&at).status();
    Ok(())
}

#[test]
fn a_folder_of_very_many_entries_is_listed_in_time_that_grows_with_it() -> Result<()> {
    if !has_fuse() {
        return Ok(());
    }
    let count = match std::env::var("GRIDBACKUP_TEST_SCALE").as_deref() {
        Ok("full") => 100_000,
        _ => 10_000,
    };
    let dir = tempfile::tempdir()?;
    let source = make_dir(dir.path().join("source"))?;
    for number in 0..count {
        File::create(source.join(format!("entry-{number}")))?;
    }
    let owner = owner_with_folders(dir.path(), 2)?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let at = make_dir(dir.path().join("mnt"))?;
    let _mount = Mount::start(&owner, &[path_str(&at)?])?;
    let shown = at.join("latest").join(source.strip_prefix("/")?);
    let start = Instant::now();
    let names: BTreeSet<_> = fs::read_dir(&shown)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    assert_eq!(names.len(), count);
    let listed = start.elapsed();
    let start = Instant::now();
    for name in &names {
        assert_eq!(fs::symlink_metadata(shown.join(name))?.size(), 0);
    }
    let looked = start.elapsed();
    eprintln!("{count} entries: listed in {listed:.2?}, looked at in {looked:.2?}");
    ensure!(listed < Duration::from_secs(10), "listed in {listed:?}");
    Ok(())
}

/// An answer of the WebDAV server.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

/// One request, as simple as HTTP gets.
fn ask(url: &str, line: &str, headers: &[String]) -> Result<Answer> {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address)?;
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    write!(stream, "{line} HTTP/1.0\r\nHost: {address}\r\n{headers}\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .context("the head has an end")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head.split(' ').nth(1).context("a status")?.parse()?;
    let body = answer.split_off(end + 4);
    Ok(Answer { status, head, body })
}

#[test]
fn webdav_shows_the_same_bytes_to_a_plain_http_client() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = make_dir(dir.path().join("source/ä b"))?;
    let content = noise(3_000_000, 5);
    fs::write(source.join("large"), &content)?;
    fs::write(source.join("small&<"), b"small")?;
    std::os::unix::fs::symlink("large", source.join("link"))?;
    std::os::unix::fs::symlink("nowhere", source.join("dangling"))?;
    let owner = owner_with_folders(dir.path(), 2)?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let mount = Mount::start(&owner, &["--webdav", "127.0.0.1:0"])?;
    let url = mount.said["webdav"].as_str().context("a URL")?;
    let password = mount.said["password"].as_str().context("a password")?;
    let basic = format!("Authorization: Basic {}", base64(format!("me:{password}").as_bytes()));
    let asked = |line: &str, more: &[&str]| {
        let more = more.iter().map(|header| (*header).to_owned());
        ask(
            url,
            line,
            &std::iter::once(basic.clone()).chain(more).collect::<Vec<_>>(),
        )
    };
    let folder = format!(
        "/latest{}",
        source.display().to_string().replace('ä', "%C3%A4").replace(' ', "%20")
    );

    assert_eq!(ask(url, "GET /", &[])?.status, 401);
    assert_eq!(
        ask(url, "GET /", &["Authorization: Basic bWU6d3Jvbmc=".to_owned()])?.status,
        401
    );
    let options = asked("OPTIONS /", &[])?;
    assert!(
        options.status == 200 && options.head.contains("\r\ndav: 1"),
        "{}",
        options.head
    );
    assert_eq!(asked(&format!("PUT {folder}/new"), &[])?.status, 405);
    assert_eq!(asked("PROPFIND /", &["Depth: infinity"])?.status, 403);
    assert_eq!(asked("PROPFIND /latest/nowhere", &["Depth: 0"])?.status, 404);

    let listing = asked(&format!("PROPFIND {folder}/"), &["Depth: 1"])?;
    let text = String::from_utf8(listing.body)?;
    let hrefs = |text: &str| {
        text.split("<D:href>")
            .skip(1)
            .filter_map(|rest| rest.split('<').next().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let expected = ["", "large", "link", "small%26%3C"].map(|name| format!("{folder}/{name}"));
    assert_eq!((listing.status, hrefs(&text)), (207, expected.to_vec()), "{text}");
    assert!(text.contains("<D:getcontentlength>3000000<"), "{text}");
    let alone = asked(&format!("PROPFIND {folder}/"), &["Depth: 0"])?;
    assert_eq!(hrefs(&String::from_utf8(alone.body)?), [format!("{folder}/")]);

    let whole = asked(&format!("GET {folder}/link"), &[])?;
    assert!(whole.status == 200 && whole.body == content, "{}", whole.head);
    let part = asked(&format!("GET {folder}/large"), &["Range: bytes=1000000-1999999"])?;
    assert!(
        part.status == 206 && part.body == content[1_000_000..2_000_000],
        "{}",
        part.head
    );
    assert!(
        part.head.contains("content-range: bytes 1000000-1999999/3000000"),
        "{}",
        part.head
    );
    assert_eq!(
        asked(&format!("GET {folder}/large"), &["Range: bytes=3000000-"])?.status,
        416
    );
    let head = asked(&format!("HEAD {folder}/large"), &[])?;
    assert!(
        head.body.is_empty() && head.head.contains("content-length: 3000000"),
        "{}",
        head.head
    );
    let page = asked("GET /", &[])?;
    assert!(String::from_utf8(page.body)?.contains("<a href=\"/latest/\">latest/</a>"));
    mount.end(Signal::TERM)?;
    Ok(())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let known = digit <= three.len();
            let index = (bits >> (18 - 6 * digit)) as usize & 63;
            text.push(if known { DIGITS[index] as char } else { '=' });
        }
    }
    text
}
