//! `publish restore`, `diff` and `watch`: the way back, the word before, and the service.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};
use bytes::Bytes;
use rustix::process::Signal;
use s3::{Condition, Headers};
use tests::home::said;
use tests::s3::Kind;
use tests::s3_proxy::{Faults, S3Proxy};
use tests::site::{FILES, Site, files, signal};

/// More than a request takes: two parts.
const LARGE_BYTES: usize = 9 << 20;

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
    tests::needs!(tests::s3::missing());
    for kind in Kind::all() {
        let site = Site::start(kind, FILES)?;
        std::fs::write(site.root.join("film.mp4"), vec![7; LARGE_BYTES])?;
        std::fs::write(site.root.join("empty"), "")?;
        std::fs::set_permissions(site.root.join("empty"), PermissionsExt::from_mode(0o750))?;
        old(&site.root.join("d0/file 0.css"), 1_000_000_000)?;
        let routes = site.routes(
            "[[route]]\nmatch = '*.css'\ncompress = 'gzip'\n[[route]]\nmatch = '*.html'\ncompress = 'brotli'\n",
        )?;
        site.publish(0, &["--routes", &routes])?;
        let target = site.dir.path().join("back");
        let dry = site.restore(&target, 0, &["--dry-run"])?;
        ensure!(
            dry.number("files_restored") == FILES as u64 + 2 && !target.exists(),
            "{}",
            dry.last()
        );
        let first = site.restore(&target, 0, &[])?;
        ensure!(first.number("files_restored") == FILES as u64 + 2, "{}", first.last());
        eprintln!("{kind:?}: {}", first.last());
        if kind != Kind::Rclone {
            ensure!(first.number("files_unverified") == 0, "{}", first.last());
        }
        assert_same(&site.root, &target)?;
        // What is right stays, what is not is mended, what is too much goes when that is asked for.
        std::fs::write(target.join("d1/file 1.html"), "damaged")?;
        std::fs::write(target.join("mine.txt"), "mine")?;
        let second = site.restore(&target, 0, &[])?;
        ensure!(second.number("files_restored") == 1, "{}", second.last());
        ensure!(target.join("mine.txt").exists());
        let removed = site.restore(&target, 0, &["--delete"])?;
        ensure!(removed.number("files_removed") == 1, "{}", removed.last());
        assert_same(&site.root, &target)?;
        let part = site.dir.path().join("part");
        site.restore(&part, 0, &["d3", "empty"])?;
        ensure!(
            files(&part)?
                .keys()
                .all(|name| name.starts_with(b"d3/") || name == b"empty")
        );
        std::fs::write(part.join("d3/mine.txt"), "mine")?;
        let guarded = site.restore(&part, 1, &["--delete", "--max-delete", "0", "d3"])?;
        ensure!(guarded.stderr.contains("--max-delete 1") && part.join("d3/mine.txt").exists());
    }
    Ok(())
}

#[tokio::test]
async fn keys_that_would_lead_out_are_refused_and_the_rest_goes_on() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 3)?;
    site.publish(0, &[])?;
    for key in ["www/../out", "www//abs", "www/folder/", "www/a/../../../out"] {
        site.put(key, "evil").await?;
    }
    let redirect = Headers {
        redirect: Some("/new.html".into()),
        ..Headers::default()
    };
    site.client
        .put(b"www/old.html", Bytes::new(), &redirect, &Condition::Always)
        .await?;
    let target = site.dir.path().join("a/b/back");
    let said = site.restore(&target, 3, &[])?;
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
    let linked = site.restore(&target, 1, &[])?;
    ensure!(linked.number("files_failed") == 1, "{}", linked.last());
    Ok(())
}

#[tokio::test]
async fn damage_is_noticed_and_a_killed_restore_goes_on() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 200)?;
    site.publish(0, &[])?;
    let proxy = S3Proxy::start(&site.server.at)?;
    proxy.set(Faults {
        latency: Duration::from_millis(20),
        per_mille: 50,
        ..Faults::default()
    });
    let (target, slow) = (site.dir.path().join("back"), site.through(&proxy.at));
    for _ in 0..3 {
        let mut child = slow.restoring(&target, &[])?.stdout(Stdio::null()).spawn()?;
        let (started, before) = (Instant::now(), count(&target));
        while count(&target) < before + 10 && started.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill()?;
        child.wait()?;
    }
    let whole = slow.restore(&target, 0, &[])?;
    ensure!(whole.number("files_unchanged") > 0, "{}", whole.last());
    site.restore(&target, 0, &["--delete"])?;
    assert_same(&site.root, &target)?;

    // Somebody put other bytes with the metadata of a file.
    let key = b"www/d0/file 0.css";
    let headers = site.client.head(key).await?.headers;
    site.client
        .put(key, Bytes::from("forged"), &headers, &Condition::Always)
        .await?;
    std::fs::remove_file(target.join("d0/file 0.css"))?;
    let forged = site.restore(&target, 1, &[])?;
    ensure!(
        forged.number("files_failed") == 1 && !target.join("d0/file 0.css").exists(),
        "{}",
        forged.last()
    );
    Ok(())
}

#[tokio::test]
async fn diff_says_what_a_run_would_do_and_why() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 6)?;
    site.publish(0, &[])?;
    let diff = |args: &[&str]| site.run("diff", 0, args);
    ensure!(diff(&[])?.lines.len() == 1, "nothing but the summary");
    std::fs::write(site.root.join("new.bin"), "new")?;
    std::fs::write(site.root.join("d0/file 0.css"), "other")?;
    std::fs::remove_file(site.root.join("d1/file 1.html"))?;
    let trusted = diff(&["--trust"])?;
    ensure!(trusted.number("requests") == 0, "{}", trusted.last());
    site.client.delete_one(b"www/d2/file 2.bin").await?;
    site.put("www/stranger", "x").await?;
    site.put("www/d3/file 3.css", "x").await?;
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
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 3)?;
    let child = site.begin("watch", &[])?;
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
    // The lock of the last publication may just be given back.
    std::thread::sleep(Duration::from_millis(500));
    signal(&child, Signal::TERM)?;
    let ended = said(child.wait_with_output()?)?;
    ensure!(ended.code == Some(0), "{:?} {}", ended.code, ended.stderr);
    let published = ended.lines.iter().filter(|line| line["objects_uploaded"].is_u64());
    ensure!(published.count() == 3, "a line each: {:?}", ended.lines);
    site.assert_same().await
}
