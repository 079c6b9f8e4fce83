//! Two publishers of one bucket: one waits or fails clearly, a dead one is succeeded, a stale one's late write does not win.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tests::home::said;
use tests::s3::Kind;
use tests::s3_proxy::{Faults, S3Proxy};
use tests::site::{FILES, LOCK, Publisher, Site, let_go, name, signal, wait_until, write};

/// Shortest term that the program takes: tests wait for its end.
const TERM: [&str; 2] = ["--lease", "3"];

/// Another publisher, who does not wait long.
fn publisher(site: &Site, name: &str, at: &str) -> Result<Publisher> {
    Ok(Publisher {
        options: &TERM,
        ..site.another(name, at)?
    })
}

/// Servers that know no conditions.
fn unconditional() -> impl Iterator<Item = Kind> {
    Kind::all().into_iter().filter(|kind| *kind != Kind::Moto)
}

fn puts_of_files(proxy: &S3Proxy) -> usize {
    let came = proxy.came();
    let files = came
        .iter()
        .filter(|line| line.starts_with("PUT ") && !line.contains(".gridbackup-lock"));
    files.count()
}

/// A publisher on a slow line that is in the midst of sending.
fn at_work(publisher: &Publisher, proxy: &S3Proxy) -> Result<Child> {
    proxy.set(Faults {
        latency: Duration::from_millis(150),
        ..Faults::default()
    });
    let child = publisher.begin("", &["--workers", "2"])?;
    wait_until("the fifth put", || Ok(puts_of_files(proxy) >= 5))?;
    Ok(child)
}

#[tokio::test]
async fn of_two_publishers_at_once_one_fails_clearly_or_waits() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, FILES)?;
    let proxy = S3Proxy::start(&site.server.at)?;
    let slow = publisher(&site, "slow", &proxy.at)?;
    let other = publisher(&site, "other", &site.server.at)?;
    other.touch("d0/file 0.css", "other")?;
    write(&slow.root, b"only slow.bin", 3)?;
    let working = at_work(&slow, &proxy)?;
    let refused = other.publish(1, &[])?;
    ensure!(refused.stderr.contains("publishes there"), "{}", refused.stderr);
    ensure!(refused.stderr.trim().lines().count() == 1, "{}", refused.stderr);
    // On this machine, with the same inventory, it is known without asking.
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

    // The first's inventory is of before; when it has something to send, it finds that out.
    proxy.set(Faults::default());
    slow.touch("d1/file 1.html", "news")?;
    let back = slow.publish(0, &[])?;
    ensure!(back.number("drifted") >= 1, "{}", back.last());
    site.assert_is(&slow.root).await
}

#[tokio::test]
async fn a_killed_publishers_lock_expires() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, FILES)?;
    let proxy = S3Proxy::start(&site.server.at)?;
    let killed = publisher(&site, "killed", &proxy.at)?;
    let other = publisher(&site, "other", &site.server.at)?;
    other.touch("d0/file 0.css", "other")?;
    let mut child = at_work(&killed, &proxy)?;
    child.kill()?;
    child.wait()?;
    ensure!(other.publish(1, &[])?.stderr.contains("publishes there"));
    let started = Instant::now();
    let mut waiting = other.begin("", &["--wait"])?;
    let taken_over = wait_until("the end of its term", || Ok(waiting.try_wait()?.is_some()));
    waiting.kill()?;
    taken_over?;
    ensure!(waiting.wait()?.success());
    eprintln!("taken over after {:?}", started.elapsed());
    // moto does not look at the time: requests to it are signed as usual.
    let is_timed = |line: &&String| line.contains("X-Amz-Expires") && !line.contains("gridbackup-lock");
    ensure!(proxy.came().iter().find(is_timed).is_none());
    site.assert_is(&other.root).await?;
    // Who took over looks again for a quarter of an hour.
    ensure!(other.publish(0, &[])?.number("requests") == 1);
    proxy.set(Faults::default());
    killed.publish(0, &[])?;
    site.assert_is(&killed.root).await
}

#[tokio::test]
async fn a_publisher_that_stood_still_sends_nothing_more() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, FILES)?;
    let proxy = S3Proxy::start(&site.server.at)?;
    let stopped = publisher(&site, "stopped", &proxy.at)?;
    let other = publisher(&site, "other", &site.server.at)?;
    for number in 0..FILES {
        write(&other.root, name(number).as_bytes(), number + 1)?;
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

/// Holds a request of the first publisher (`hold`, of the run that follows `change`) back until the second has taken over; gives what the
/// server said to it in the end.
async fn late(
    site: &Site,
    hold: &str,
    change: fn(&Path) -> Result<()>,
    text_of_second: &str,
) -> Result<(Publisher, u16)> {
    let proxy = S3Proxy::start(&site.server.at)?;
    let first = publisher(site, "first", &proxy.at)?;
    let second = publisher(site, "second", &site.server.at)?;
    first.touch("late.css", "old")?;
    first.publish(0, &[])?;
    second.touch("late.css", "old")?;
    second.publish(0, &[])?;

    change(&first.root)?;
    first.killed_at(&proxy, hold, &[])?;
    second.touch("late.css", text_of_second)?;
    second.touch("new.css", "new")?;
    second.publish(0, &["--wait"])?;
    site.assert_is(&second.root).await?;
    let passed = let_go(&proxy)?;
    ensure!(passed.line.contains(hold), "{passed:?}");
    Ok((second, passed.status))
}

const LATE_PUT: &str = "PUT /site/www/late.css";

fn write_late(root: &Path) -> Result<()> {
    Ok(std::fs::write(root.join("late.css"), "late")?)
}

fn remove(root: &Path) -> Result<()> {
    Ok(std::fs::remove_file(root.join("late.css"))?)
}

#[tokio::test]
async fn a_late_put_loses_against_what_was_put_meanwhile() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 6)?;
    let (second, status) = late(&site, LATE_PUT, write_late, "second").await?;
    ensure!(status == 412, "the server said {status}");
    site.assert_is(&second.root).await
}

#[tokio::test]
async fn a_late_write_is_refused_even_where_nobody_else_changed_anything() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let changes = [(LATE_PUT, write_late as fn(&Path) -> _), ("&delete=", remove)];
    // They check signatures and their times, and know no conditions.
    for kind in unconditional() {
        for (hold, change) in changes {
            let site = Site::start(kind, 6)?;
            let (second, status) = late(&site, hold, change, "old").await?;
            ensure!(status == 400, "{kind:?} said {status} to {hold}");
            site.assert_is(&second.root).await?;
            let next = second.publish(0, &[])?;
            ensure!(next.number("drifted") == 0, "{kind:?}: {}", next.last());
        }
    }
    Ok(())
}

#[tokio::test]
async fn where_times_are_not_checked_the_next_run_repairs_what_a_late_put_did() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 6)?;
    let (second, status) = late(&site, LATE_PUT, write_late, "old").await?;
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
async fn a_clock_that_is_minutes_wrong_publishes_too() -> Result<()> {
    tests::needs!(tests::s3::missing());
    for skew_secs in [-600, 600] {
        let site = Site::start(Kind::Moto, FILES)?;
        let proxy = S3Proxy::start(&site.server.at)?;
        let faults = Faults {
            skew_secs,
            checks_windows: true,
            ..Faults::default()
        };
        proxy.set(faults.clone());
        let publisher = publisher(&site, "skewed", &proxy.at)?;
        publisher.publish(0, &[])?;
        site.assert_is(&publisher.root).await?;
        let came = proxy.came();
        let is_put = |line: &&String| line.starts_with("PUT /site/www/d");
        ensure!(
            came.iter().filter(is_put).all(|line| line.contains("&X-Amz-Expires=")),
            "{came:?}"
        );

        // Its clock is set while it is asked: what is refused then is made again under the renewed lock.
        publisher.touch("late.css", "late")?;
        proxy.set(Faults {
            hold: Some(LATE_PUT.to_owned()),
            ..faults.clone()
        });
        let child = publisher.begin("", &[])?;
        wait_until("the put", || Ok(proxy.held() == 1))?;
        proxy.set(Faults {
            skew_secs: skew_secs + 200,
            ..faults
        });
        let ended = said(child.wait_with_output()?)?;
        ensure!(ended.code == Some(0), "{} {}", ended.last(), ended.stderr);
        let puts = proxy.came().iter().filter(|line| line.starts_with(LATE_PUT)).count();
        ensure!(puts == 2, "{puts} puts");
        site.assert_is(&publisher.root).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_lock_is_nobodys_file() -> Result<()> {
    tests::needs!(tests::s3::missing());
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
    site.touch("new.bin", "new")?;
    ensure!(site.publish(0, &["--lock", "none"])?.number("requests") == 1);
    Ok(())
}

#[tokio::test]
async fn an_endpoint_that_ignores_conditions_is_told_of() -> Result<()> {
    tests::needs!(tests::s3::missing());
    for kind in unconditional() {
        let site = Site::start(kind, 3)?;
        let refused = site.publish(1, &["--lock", "require"])?;
        ensure!(refused.stderr.contains("ignores conditions"), "{}", refused.stderr);
        ensure!(site.objects().await?.is_empty());
        let weak = site.publish(0, &[])?;
        ensure!(weak.stderr.contains("ignores conditions"), "{}", weak.stderr);
        site.assert_same().await?;
        // Somebody at work is seen nevertheless.
        let held = "{\"gridbackup-lock\":1,\"holder\":\"x\",\"host\":\"oak\",\"fence\":9,\"beat\":0,\"lease-secs\":60,\"held\":true,\"generation\":9}";
        site.put("www/.gridbackup-lock", held).await?;
        site.touch("new.bin", "new")?;
        ensure!(site.publish(1, &[])?.stderr.contains("oak publishes there"));
    }
    Ok(())
}
