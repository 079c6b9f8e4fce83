//! Two publishers of one bucket: one waits or fails clearly, a dead one is succeeded, a stale one's late write does not win.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tests::home::{Home, Said, said};
use tests::s3::{KEYS, Kind, location};
use tests::s3_proxy::{Faults, S3Proxy};

use crate::publish_site::{FILES, LOCK, PREFIX, Site, write};

/// Shortest lease that the program takes: tests wait for its end.
const LEASE: [&str; 2] = ["--lease", "3"];
/// Longest wait for something that happens in a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody with a tree and an index of his own, who reaches the bucket at `at`.
struct Publisher {
    home: Home,
    root: PathBuf,
    at: String,
}

impl Publisher {
    /// With the same tree as the site.
    fn start(site: &Site, name: &str, at: &str) -> Result<Self> {
        let root = site.dir.path().join(name);
        for (name, bytes) in crate::publish_site::files(&site.root)? {
            let path = root.join(std::str::from_utf8(&name)?);
            std::fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
            std::fs::write(path, bytes)?;
        }
        Ok(Self {
            home: Home::new(site.dir.path().join(format!("home-{name}"))),
            root,
            at: at.to_owned(),
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let root = self.root.to_str().unwrap_or_default();
        let location = location(PREFIX, &self.at);
        let mut command = self
            .home
            .command(["publish", root, location.as_str()].iter().chain(&LEASE).chain(args));
        command
            .env("AWS_ACCESS_KEY_ID", KEYS.0)
            .env("AWS_SECRET_ACCESS_KEY", KEYS.1);
        command
    }

    fn publish(&self, code: i32, args: &[&str]) -> Result<Said> {
        let said = said(self.command(args).output()?)?;
        ensure!(
            said.code == Some(code),
            "{:?}: {} {}",
            said.code,
            said.last(),
            said.stderr
        );
        Ok(said)
    }

    fn begin(&self, args: &[&str]) -> Result<Child> {
        let mut command = self.command(args);
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let started = Instant::now();
    while !is_so() {
        ensure!(started.elapsed() < PATIENCE, "{what} does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn puts_of_files(proxy: &S3Proxy) -> usize {
    let came = proxy.came();
    let files = came
        .iter()
        .filter(|line| line.starts_with("PUT ") && !line.contains(".gridbackup-lock"));
    files.count()
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(child.id().try_into()?).context("a child has a number")?;
    Ok(kill_process(pid, signal)?)
}

fn touch(root: &Path, name: &str, text: &str) -> Result<()> {
    Ok(std::fs::write(root.join(name), text)?)
}

/// A publisher on a slow line that is in the midst of sending.
fn at_work(publisher: &Publisher, proxy: &S3Proxy) -> Result<Child> {
    proxy.set(Faults {
        latency: Duration::from_millis(150),
        ..Faults::default()
    });
    let child = publisher.begin(&["--workers", "2"])?;
    wait_until("the fifth put", || puts_of_files(proxy) >= 5)?;
    Ok(child)
}

#[tokio::test]
async fn of_two_publishers_at_once_one_fails_clearly_or_waits() -> Result<()> {
    let site = Site::start(Kind::Moto, FILES)?;
    let proxy = S3Proxy::start(&site.server.at)?;
    let slow = Publisher::start(&site, "slow", &proxy.at)?;
    let other = Publisher::start(&site, "other", &site.server.at)?;
    touch(&other.root, "d0/file 0.css", "other")?;
    write(&slow.root, b"only slow.bin", 3)?;
    let working = at_work(&slow, &proxy)?;
    let refused = other.publish(1, &[])?;
    ensure!(refused.stderr.contains("publishes there"), "{}", refused.stderr);
    ensure!(refused.stderr.trim().lines().count() == 1, "{}", refused.stderr);
    // On this machine, with the same index, it is known without asking.
    let before = proxy.came().len();
    ensure!(slow.publish(1, &[])?.stderr.contains("Another run publishes"));
    let came = proxy.came().split_off(before);
    ensure!(came.iter().all(|line| line.starts_with("PUT ")), "{came:?}");

    let waited = other.publish(0, &["--wait"])?;
    let first = said(working.wait_with_output()?)?;
    ensure!(first.code == Some(0), "{} {}", first.last(), first.stderr);
    // What the first put there is judged by the tree of the second.
    ensure!(waited.number("objects_deleted") == 1, "{}", waited.last());
    site.assert_is(&other.root).await?;

    // The first's index is of before; when it has something to send, it finds that out.
    proxy.set(Faults::default());
    touch(&slow.root, "d1/file 1.html", "news")?;
    let back = slow.publish(0, &[])?;
    ensure!(back.number("drifted") >= 1, "{}", back.last());
    site.assert_is(&slow.root).await
}

#[tokio::test]
async fn a_killed_publishers_lock_expires() -> Result<()> {
    let site = Site::start(Kind::Moto, FILES)?;
    let proxy = S3Proxy::start(&site.server.at)?;
    let killed = Publisher::start(&site, "killed", &proxy.at)?;
    let other = Publisher::start(&site, "other", &site.server.at)?;
    touch(&other.root, "d0/file 0.css", "other")?;
    let mut child = at_work(&killed, &proxy)?;
    child.kill()?;
    child.wait()?;
    ensure!(other.publish(1, &[])?.stderr.contains("publishes there"));
    let started = Instant::now();
    other.publish(0, &["--wait"])?;
    eprintln!("taken over after {:?}", started.elapsed());
    site.assert_is(&other.root).await?;
    // Who took over looks again for a quarter of an hour.
    ensure!(other.publish(0, &[])?.number("requests") == 1);
    proxy.set(Faults::default());
    killed.publish(0, &[])?;
    site.assert_is(&killed.root).await
}

#[tokio::test]
async fn a_publisher_that_stood_still_sends_nothing_more() -> Result<()> {
    let site = Site::start(Kind::Moto, FILES)?;
    let proxy = S3Proxy::start(&site.server.at)?;
    let stopped = Publisher::start(&site, "stopped", &proxy.at)?;
    let other = Publisher::start(&site, "other", &site.server.at)?;
    for number in 0..FILES {
        write(
            &other.root,
            format!("d{}/file {number}.bin", number % 7).as_bytes(),
            number + 1,
        )?;
    }
    let child = at_work(&stopped, &proxy)?;
    signal(&child, Signal::STOP)?;
    other.publish(0, &["--wait"])?;
    site.assert_is(&other.root).await?;
    let before = proxy.came();
    signal(&child, Signal::CONT)?;
    let ended = said(child.wait_with_output()?)?;
    ensure!(
        ended.code == Some(1) && ended.stderr.contains("lock"),
        "{:?} {}",
        ended.code,
        ended.stderr
    );
    let after = proxy.came().split_off(before.len());
    ensure!(after.is_empty(), "it sent {after:?}");
    site.assert_is(&other.root).await?;
    // Its next run lists, although its tree is as it was.
    proxy.set(Faults::default());
    stopped.publish(0, &[])?;
    site.assert_is(&stopped.root).await
}

/// Holds a put of the first publisher back until the second has taken over; gives what the server said to it in the end.
async fn late_put(site: &Site, text_of_second: &str) -> Result<(Publisher, u16)> {
    let proxy = S3Proxy::start(&site.server.at)?;
    let first = Publisher::start(site, "first", &proxy.at)?;
    let second = Publisher::start(site, "second", &site.server.at)?;
    touch(&first.root, "late.css", "old")?;
    first.publish(0, &[])?;
    touch(&second.root, "late.css", "old")?;
    second.publish(0, &[])?;

    touch(&first.root, "late.css", "late")?;
    proxy.set(Faults {
        hold: Some("PUT /site/www/late.css".to_owned()),
        ..Faults::default()
    });
    let mut child = first.begin(&[])?;
    wait_until("the late put", || proxy.held() == 1)?;
    child.kill()?;
    child.wait()?;
    touch(&second.root, "late.css", text_of_second)?;
    touch(&second.root, "new.css", "new")?;
    second.publish(0, &["--wait"])?;
    site.assert_is(&second.root).await?;
    let before = proxy.passed().len();
    proxy.set(Faults::default());
    wait_until("the answer to the late put", || proxy.passed().len() > before)?;
    let passed = proxy.passed().split_off(before);
    ensure!(passed.len() == 1 && passed[0].line.contains("late.css"), "{passed:?}");
    Ok((second, passed[0].status))
}

#[tokio::test]
async fn a_late_put_loses_against_what_was_put_meanwhile() -> Result<()> {
    let site = Site::start(Kind::Moto, 6)?;
    let (second, status) = late_put(&site, "second").await?;
    ensure!(status == 412, "the server said {status}");
    site.assert_is(&second.root).await
}

#[tokio::test]
async fn a_late_put_of_what_nobody_else_changed_is_repaired_by_the_next_run() -> Result<()> {
    let site = Site::start(Kind::Moto, 6)?;
    let (second, status) = late_put(&site, "old").await?;
    ensure!(status == 200, "the server said {status}");
    let next = second.publish(0, &[])?;
    ensure!(
        next.number("drifted") == 1 && next.number("objects_uploaded") == 1,
        "{}",
        next.last()
    );
    site.assert_is(&second.root).await
}

#[tokio::test]
async fn the_lock_is_nobodys_file() -> Result<()> {
    let site = Site::start(Kind::Moto, 3)?;
    site.publish(0, &[])?;
    let lock = site.client.get(LOCK, None, 4096).await?;
    let text = String::from_utf8(lock.bytes.to_vec())?;
    ensure!(text.contains("\"held\":false"), "{text}");
    let verified = site.publish(0, &["--verify"])?;
    ensure!(
        (verified.number("drifted"), verified.number("requests")) == (0, 1),
        "{}",
        verified.last()
    );
    std::fs::write(site.root.join(".gridbackup-lock"), "mine")?;
    let named = site.publish(3, &["--verify"])?;
    ensure!(
        named.number("files_broken") == 1 && named.number("objects_uploaded") == 0,
        "{}",
        named.last()
    );
    ensure!(site.client.get(LOCK, None, 4096).await?.bytes == text);
    // Without a lock, nothing is asked for it.
    std::fs::remove_file(site.root.join(".gridbackup-lock"))?;
    touch(&site.root, "new.bin", "new")?;
    ensure!(site.publish(0, &["--lock", "none"])?.number("requests") == 1);
    Ok(())
}

#[tokio::test]
async fn an_endpoint_that_ignores_conditions_is_told_of() -> Result<()> {
    let site = Site::start(Kind::Rclone, 3)?;
    let refused = site.publish(1, &["--lock", "require"])?;
    ensure!(refused.stderr.contains("ignores conditions"), "{}", refused.stderr);
    ensure!(site.objects().await?.is_empty());
    let weak = site.publish(0, &[])?;
    ensure!(weak.stderr.contains("ignores conditions"), "{}", weak.stderr);
    site.assert_same().await?;
    // Somebody at work is seen nevertheless.
    let held = "{\"gridbackup-lock\":1,\"holder\":\"x\",\"host\":\"oak\",\"fence\":9,\"beat\":0,\"lease-secs\":60,\"held\":true,\"generation\":9}";
    let (body, headers) = (bytes::Bytes::from(held), s3::Headers::default());
    site.client.put(LOCK, body, &headers, &s3::Condition::Always).await?;
    touch(&site.root, "new.bin", "new")?;
    ensure!(site.publish(1, &[])?.stderr.contains("oak publishes there"));
    Ok(())
}
