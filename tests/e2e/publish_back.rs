//! `publish restore`, `diff` and `watch`: the way back, the word before, and the service.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use s3::{Condition, Headers};
use tests::home::{Said, said};
use tests::s3::{KEYS, Kind, location};
use tests::s3_proxy::{Faults, S3Proxy};

use crate::publish_site::{FILES, PREFIX, Site, files};

/// More than a request takes: two parts.
const LARGE_BYTES: usize = 9 << 20;

fn command(site: &Site, at: &str, target: &Path, args: &[&str]) -> Command {
    let location = location(PREFIX, at);
    let target = target.to_str().unwrap_or_default();
    let mut command = site
        .home
        .command(["publish", "restore", location.as_str(), target].iter().chain(args));
    command
        .env("AWS_ACCESS_KEY_ID", KEYS.0)
        .env("AWS_SECRET_ACCESS_KEY", KEYS.1);
    command
}

fn restore(site: &Site, target: &Path, code: i32, args: &[&str]) -> Result<Said> {
    let said = said(command(site, &site.server.at, target, args).output()?)?;
    ensure!(
        said.code == Some(code),
        "{:?}: {} {}",
        said.code,
        said.last(),
        said.stderr
    );
    Ok(said)
}

/// Files that are there, as far as they can be looked at while others write.
fn count(target: &Path) -> usize {
    files(target).map_or(0, |files| files.len())
}

/// Names, bytes, modes and times are the same.
fn assert_same(left: &Path, right: &Path) -> Result<()> {
    let (before, after) = (files(left)?, files(right)?);
    ensure!(before == after, "{:?} and {:?}", before.keys(), after.keys());
    for name in before.keys() {
        let name = std::str::from_utf8(name)?;
        let told = |root: &Path| -> Result<_> {
            let meta = std::fs::metadata(root.join(name))?;
            Ok((meta.mode(), meta.mtime(), meta.mtime_nsec()))
        };
        ensure!(
            told(left)? == told(right)?,
            "{name}: {:?} {:?}",
            told(left)?,
            told(right)?
        );
    }
    Ok(())
}

fn old(path: &Path, secs: u64) -> Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::new(secs, 123_456_789);
    Ok(std::fs::File::options().append(true).open(path)?.set_modified(time)?)
}

#[tokio::test]
async fn a_restore_brings_bytes_times_and_modes_back() -> Result<()> {
    for kind in [Kind::Moto, Kind::Rclone] {
        let site = Site::start(kind, FILES)?;
        std::fs::write(site.root.join("film.mp4"), vec![7; LARGE_BYTES])?;
        std::fs::write(site.root.join("empty"), "")?;
        std::fs::set_permissions(site.root.join("empty"), PermissionsExt::from_mode(0o750))?;
        old(&site.root.join("d0/file 0.css"), 1_000_000_000)?;
        let routes = site.dir.path().join("routes.toml");
        std::fs::write(
            &routes,
            "[[route]]\nmatch = '*.css'\ncompress = 'gzip'\n[[route]]\nmatch = '*.html'\ncompress = 'brotli'\n",
        )?;
        site.publish(0, &["--routes", routes.to_str().context("UTF-8")?])?;
        let target = site.dir.path().join("back");
        let dry = restore(&site, &target, 0, &["--dry-run"])?;
        ensure!(
            dry.number("files_restored") == FILES as u64 + 2 && !target.exists(),
            "{}",
            dry.last()
        );
        let first = restore(&site, &target, 0, &[])?;
        ensure!(first.number("files_restored") == FILES as u64 + 2, "{}", first.last());
        eprintln!("{kind:?}: {}", first.last());
        if kind == Kind::Moto {
            ensure!(first.number("files_unverified") == 0, "{}", first.last());
        }
        assert_same(&site.root, &target)?;
        // What is right stays, what is not is mended, what is too much goes when that is asked for.
        std::fs::write(target.join("d1/file 1.html"), "damaged")?;
        std::fs::write(target.join("mine.txt"), "mine")?;
        let second = restore(&site, &target, 0, &[])?;
        ensure!(second.number("files_restored") == 1, "{}", second.last());
        ensure!(target.join("mine.txt").exists());
        let removed = restore(&site, &target, 0, &["--delete"])?;
        ensure!(removed.number("files_removed") == 1, "{}", removed.last());
        assert_same(&site.root, &target)?;
        let part = site.dir.path().join("part");
        restore(&site, &part, 0, &["d3", "empty"])?;
        ensure!(
            files(&part)?
                .keys()
                .all(|name| name.starts_with(b"d3/") || name == b"empty")
        );
        std::fs::write(part.join("d3/mine.txt"), "mine")?;
        let guarded = restore(&site, &part, 1, &["--delete", "--max-delete", "0", "d3"])?;
        ensure!(guarded.stderr.contains("--max-delete 1") && part.join("d3/mine.txt").exists());
    }
    Ok(())
}

#[tokio::test]
async fn keys_that_would_lead_out_are_refused_and_the_rest_goes_on() -> Result<()> {
    let site = Site::start(Kind::Moto, 3)?;
    site.publish(0, &[])?;
    for key in ["www/../out", "www//abs", "www/folder/", "www/a/../../../out"] {
        let (body, headers) = (Bytes::from("evil"), Headers::default());
        site.client
            .put(key.as_bytes(), body, &headers, &Condition::Always)
            .await?;
    }
    let redirect = Headers {
        redirect: Some("/new.html".into()),
        ..Headers::default()
    };
    site.client
        .put(b"www/old.html", Bytes::new(), &redirect, &Condition::Always)
        .await?;
    let target = site.dir.path().join("a/b/back");
    let said = restore(&site, &target, 3, &[])?;
    ensure!(
        said.number("keys_refused") == 4 && said.number("files_restored") == 3,
        "{}",
        said.last()
    );
    ensure!(said.number("objects_skipped") == 1, "{}", said.last());
    assert_same(&site.root, &target)?;
    ensure!(!site.dir.path().join("out").exists() && !site.dir.path().join("a/out").exists());
    // A link on the way leads out, too.
    std::fs::remove_dir_all(target.join("d0"))?;
    std::os::unix::fs::symlink(site.dir.path(), target.join("d0"))?;
    let linked = restore(&site, &target, 1, &[])?;
    ensure!(linked.number("files_failed") == 1, "{}", linked.last());
    Ok(())
}

#[tokio::test]
async fn damage_is_noticed_and_a_killed_restore_goes_on() -> Result<()> {
    let site = Site::start(Kind::Moto, 200)?;
    site.publish(0, &[])?;
    let proxy = S3Proxy::start(&site.server.at)?;
    proxy.set(Faults {
        latency: Duration::from_millis(20),
        per_mille: 50,
        ..Faults::default()
    });
    let target = site.dir.path().join("back");
    for _ in 0..3 {
        let mut child = command(&site, &proxy.at, &target, &[]).stdout(Stdio::null()).spawn()?;
        let (started, before) = (Instant::now(), count(&target));
        while count(&target) < before + 10 && started.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill()?;
        child.wait()?;
    }
    let whole = said(command(&site, &proxy.at, &target, &[]).output()?)?;
    ensure!(
        whole.code == Some(0) && whole.number("files_unchanged") > 0,
        "{} {}",
        whole.last(),
        whole.stderr
    );
    restore(&site, &target, 0, &["--delete"])?;
    assert_same(&site.root, &target)?;

    // Somebody put other bytes with the metadata of a file.
    let key = b"www/d0/file 0.css";
    let headers = site.client.head(key).await?.headers;
    site.client
        .put(key, Bytes::from("forged"), &headers, &Condition::Always)
        .await?;
    std::fs::remove_file(target.join("d0/file 0.css"))?;
    let forged = restore(&site, &target, 1, &[])?;
    ensure!(
        forged.number("files_failed") == 1 && !target.join("d0/file 0.css").exists(),
        "{}",
        forged.last()
    );
    Ok(())
}

#[tokio::test]
async fn diff_says_what_a_run_would_do_and_why() -> Result<()> {
    let site = Site::start(Kind::Moto, 6)?;
    site.publish(0, &[])?;
    let root = site.root.to_str().context("UTF-8")?;
    let location = site.server.location(PREFIX);
    let diff = |args: &[&str]| -> Result<Said> {
        let mut command = site
            .home
            .command(["publish", "diff", root, location.as_str()].iter().chain(args));
        let said = said(
            command
                .env("AWS_ACCESS_KEY_ID", KEYS.0)
                .env("AWS_SECRET_ACCESS_KEY", KEYS.1)
                .output()?,
        )?;
        ensure!(said.code == Some(0), "{:?}: {} {}", said.code, said.last(), said.stderr);
        Ok(said)
    };
    ensure!(diff(&[])?.lines.len() == 1, "nothing but the summary");
    std::fs::write(site.root.join("new.bin"), "new")?;
    std::fs::write(site.root.join("d0/file 0.css"), "other")?;
    std::fs::remove_file(site.root.join("d1/file 1.html"))?;
    let trusted = diff(&["--trust"])?;
    ensure!(trusted.number("requests") == 0, "{}", trusted.last());
    site.client.delete_one(b"www/d2/file 2.bin").await?;
    let (body, headers) = (Bytes::from("x"), Headers::default());
    site.client
        .put(b"www/stranger", body.clone(), &headers, &Condition::Always)
        .await?;
    site.client
        .put(b"www/d3/file 3.css", body, &headers, &Condition::Always)
        .await?;
    let whole = diff(&[])?;
    let mut told: Vec<_> = whole
        .lines
        .iter()
        .filter(|line| line["change"].is_string())
        .map(|line| {
            format!(
                "{} {} {}",
                line["change"].as_str().unwrap_or_default(),
                line["path"].as_str().unwrap_or_default(),
                line["what"][0].as_str().unwrap_or_default()
            )
        })
        .collect();
    told.sort_unstable();
    let expected = [
        "added www/d2/file 2.bin removed by others",
        "added www/new.bin new",
        "modified www/d0/file 0.css content",
        "modified www/d3/file 3.css changed by others",
        "removed www/d1/file 1.html has no file",
        "removed www/stranger put there by others",
    ];
    ensure!(told == expected, "{told:#?}");
    ensure!(whole.number("requests") == 1, "{}", whole.last());
    site.publish(0, &["--verify"])?;
    site.assert_same().await
}

#[tokio::test]
async fn watch_publishes_what_changes_and_ends_cleanly() -> Result<()> {
    let site = Site::start(Kind::Moto, 3)?;
    let root = site.root.to_str().context("UTF-8")?;
    let location = site.server.location(PREFIX);
    let mut command = site.home.command(["publish", "watch", root, location.as_str()]);
    command
        .env("AWS_ACCESS_KEY_ID", KEYS.0)
        .env("AWS_SECRET_ACCESS_KEY", KEYS.1);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let is_there = async |key: &str| -> Result<()> {
        let started = Instant::now();
        while site.client.head(key.as_bytes()).await.is_err() {
            ensure!(started.elapsed() < Duration::from_secs(60), "{key} does not come");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    };
    is_there("www/d0/file 0.css").await?;
    std::fs::create_dir(site.root.join("new"))?;
    std::fs::write(site.root.join("new/one.txt"), "one")?;
    is_there("www/new/one.txt").await?;
    std::fs::write(site.root.join("new/two.txt"), "two")?;
    is_there("www/new/two.txt").await?;
    let pid = Pid::from_raw(child.id().try_into()?).context("a child has a number")?;
    // The lock of the last publication may just be given back.
    std::thread::sleep(Duration::from_millis(500));
    kill_process(pid, Signal::TERM)?;
    let ended = said(child.wait_with_output()?)?;
    ensure!(ended.code == Some(0), "{:?} {}", ended.code, ended.stderr);
    let published = ended.lines.iter().filter(|line| line["objects_uploaded"].is_u64());
    ensure!(published.count() == 3, "a line each: {:?}", ended.lines);
    site.assert_same().await
}
