//! What Clonus3 and zc's S3 site sync were measured by and stumbled over, with `gridbackup publish`: requests from the server's log.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::s3::Kind;
use tests::site::{Site, write};

/// More than two batches of a listing.
const FILES: usize = 2100;

/// What the lock in the bucket costs a run at most: a look, three trials what is honoured, taking, giving back, and a renewal every 20 s:
/// a busy machine takes a minute for the longest.
const LOCK_REQUESTS_MAX: u64 = 9;

/// Requests in a part of moto's log, by method; listings apart, and without the lock.
fn counts(log: &str) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    let is_counted = |line: &&str| line.contains(" HTTP/1.1\"") && !line.contains(".gridbackup-lock");
    for line in log.lines().filter(is_counted) {
        let request = line.split('"').nth(1).unwrap_or_default();
        let method = request.split(' ').next().unwrap_or_default();
        let kind = if request.contains("list-type=2") {
            "LIST"
        } else {
            method
        };
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

/// What a run asked for.
fn asked(site: &Site, args: &[&str]) -> Result<BTreeMap<String, usize>> {
    let before = site.server.log()?.len();
    let said = site.publish(0, args)?;
    let log = site.server.log()?[before..].to_owned();
    let counts: BTreeMap<_, _> = counts(&log)
        .into_iter()
        .map(|(kind, count)| (kind.to_owned(), count))
        .collect();
    let counted = counts.values().sum::<usize>() as u64;
    let of_lock = if counts.contains_key("PUT") {
        LOCK_REQUESTS_MAX
    } else {
        0
    };
    ensure!(
        (counted..=counted + of_lock).contains(&said.number("requests")),
        "{counts:?}: {}",
        said.last()
    );
    ensure!(said.number("bytes_sent") == 0 || counts["PUT"] > 0, "{}", said.last());
    Ok(counts)
}

fn table<const N: usize>(rows: [(&str, usize); N]) -> BTreeMap<String, usize> {
    rows.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect()
}

/// Clonus3 took 565 s without a cache, 8.4 s with one and a listing, and 1.2 s trusting it.
#[tokio::test]
async fn no_cache_safe_and_trusting_cost_what_they_should() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, FILES)?;
    let first = asked(&site, &[])?;
    // The bucket of a new inventory is listed once: one batch, for it is empty.
    ensure!(first == table([("LIST", 1), ("PUT", FILES)]), "{first:?}");
    std::thread::sleep(Duration::from_millis(2100));
    // Written just before they were read: read once more, and no request is made for that.
    ensure!(asked(&site, &[])? == table([]), "racy");
    ensure!(asked(&site, &["--trust"])? == table([]), "trusting");
    let safe = asked(&site, &["--verify"])?;
    ensure!(safe == table([("LIST", FILES.div_ceil(1000))]), "safe: {safe:?}");
    std::fs::remove_dir_all(site.home.dir.join("publish"))?;
    let before = site.server.log()?.len();
    let lost = site.publish(0, &[])?;
    let log = site.server.log()?[before..].to_owned();
    // A copy of each onto itself, because a listing does not show headers; no bytes.
    let expected = BTreeMap::from([("LIST", FILES.div_ceil(1000)), ("PUT", FILES)]);
    ensure!(counts(&log) == expected, "no cache: {:?}", counts(&log));
    ensure!(
        (lost.number("bytes_sent"), lost.number("headers_changed")) == (0, FILES as u64),
        "{}",
        lost.last()
    );
    ensure!(asked(&site, &[])? == table([]), "again");
    Ok(())
}

/// zc's sync sent fresh files twice, and did not see changes within twenty minutes.
#[tokio::test]
async fn fresh_files_are_sent_once_and_their_changes_seen_at_once() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 0)?;
    write(&site.root, b"fresh.txt", 1)?;
    site.publish(0, &[])?;
    let path = site.root.join("fresh.txt");
    let times = std::fs::metadata(&path)?.modified()?;
    // As many bytes, and the times that the first ones had.
    std::fs::write(&path, "2 2 ")?;
    File::options()
        .append(true)
        .open(&path)?
        .set_times(FileTimes::new().set_modified(times))?;
    ensure!(
        site.publish(0, &[])?.number("objects_uploaded") == 1,
        "a change in the same second"
    );
    for _ in 0..3 {
        ensure!(site.publish(0, &[])?.number("objects_uploaded") == 0);
        std::thread::sleep(Duration::from_millis(1100));
    }
    let puts = site.server.log()?.matches("\"PUT /site/www/fresh.txt").count();
    ensure!(puts == 2, "{puts} puts for two contents");
    site.assert_same().await
}

/// Names that are no UTF-8 ended zc's sync, or lost files.
#[tokio::test]
async fn names_of_any_bytes_are_published_once() -> Result<()> {
    tests::needs!(tests::s3::missing());
    for kind in Kind::all() {
        let site = Site::start(kind, 0)?;
        let names: [&[u8]; 6] = [
            b"caf\xe9.txt",
            b"\xff\xfe\x80.txt",
            "Gr\u{fc}\u{df}e \u{65e5}\u{672c} \u{1d11e}.txt".as_bytes(),
            b"a+b%20c&d=e?f#g.txt",
            b"<\"'>.txt",
            b"folder \xe9/x.txt",
        ];
        for (number, name) in names.into_iter().enumerate() {
            write(&site.root, name, number)?;
        }
        let first = site.publish(0, &[])?;
        ensure!(first.number("objects_uploaded") == 6, "{kind:?}: {}", first.last());
        let objects = site.objects().await?;
        for (number, name) in names.into_iter().enumerate() {
            // As Latin-1 what is not UTF-8.
            let latin = || name.iter().map(|&byte| char::from(byte)).collect::<String>();
            let key = std::str::from_utf8(name).map_or_else(|_| latin(), str::to_owned);
            let expected = std::fs::read(site.root.join(OsStr::from_bytes(name)))?;
            ensure!(
                objects.get(key.as_bytes()).is_some_and(|found| *found == expected),
                "{kind:?} {number} {key}"
            );
        }
        std::thread::sleep(Duration::from_millis(2100));
        site.publish(0, &[])?;
        ensure!(site.publish(0, &["--verify"])?.number("drifted") == 0);
        ensure!(site.publish(0, &[])?.number("requests") == 0);
    }
    Ok(())
}

/// zc's inventory was written once, at the end; a crash lost it, and a damaged one could not be read.
#[tokio::test]
async fn whatever_becomes_of_the_index_nothing_is_sent_twice() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 60)?;
    let inventory = site.dir.path().join("site.db");
    let args = ["--index", inventory.to_str().context("UTF-8")?];
    site.publish(0, &args)?;
    let empty = |said: &tests::home::Said| (said.number("bytes_sent"), said.number("objects_deleted")) == (0, 0);
    // Deleted, with its journal; cut to nothing.
    for cut in [false, true] {
        for ending in ["", "-wal", "-shm"] {
            let _missing = std::fs::remove_file(inventory.with_extension(format!("db{ending}")));
        }
        if cut {
            File::create(&inventory)?;
        }
        let said = site.publish(0, &args)?;
        ensure!(empty(&said), "cut {cut}: {}", said.last());
    }
    // Garbage over its beginning, and over all but that: an error that names the file and the remedy, which helps.
    for from in [0, 4096] {
        let mut bytes = std::fs::read(&inventory)?;
        bytes[from..].iter_mut().for_each(|byte| *byte = 0x5a);
        std::fs::write(&inventory, bytes)?;
        let said = site.publish(1, &args)?;
        ensure!(said.stderr.contains("site.db"), "{}", said.stderr);
        ensure!(
            ["--index", "moved away"]
                .iter()
                .any(|remedy| said.stderr.contains(remedy)),
            "{}",
            said.stderr
        );
        std::fs::remove_file(&inventory)?;
        let said = site.publish(0, &args)?;
        ensure!(empty(&said), "garbage from {from}: {}", said.last());
    }
    // Killed in the middle of a change.
    for number in 0..60 {
        std::fs::write(site.root.join(format!("new {number}.bin")), [number; 100])?;
    }
    let mut child = site.begin("", &args)?;
    std::thread::sleep(Duration::from_millis(120));
    child.kill()?;
    child.wait()?;
    site.publish(0, &args)?;
    site.assert_same().await?;
    ensure!(site.publish(0, &["--verify", args[0], args[1]])?.number("drifted") == 0);
    Ok(())
}

/// An empty folder emptied zc's bucket, and one broken link is no reason to stop.
#[tokio::test]
async fn an_empty_folder_is_refused_and_a_broken_link_named() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 9)?;
    symlink("nowhere", site.root.join("a-broken-link"))?;
    let said = site.publish(3, &[])?;
    ensure!(
        (said.number("objects_uploaded"), said.number("files_broken")) == (9, 1),
        "{}",
        said.last()
    );
    ensure!(
        said.lines.iter().any(|line| line.to_string().contains("a-broken-link")),
        "{:?}",
        said.lines
    );
    std::fs::remove_dir_all(&site.root)?;
    std::fs::create_dir(&site.root)?;
    let refused = site.publish(1, &[])?;
    ensure!(refused.stderr.contains("--allow-empty"), "{}", refused.stderr);
    ensure!(site.objects().await?.len() == 9);
    site.publish(0, &["--allow-empty"])?;
    ensure!(site.objects().await?.is_empty());
    Ok(())
}

/// Temporary credentials: where a request has to say how long it is good for, everything of its signature stands in the query, and so in
/// access logs; SECURITY.md says so. Nowhere else does it.
#[test]
fn a_session_token_is_in_the_url_only_of_requests_that_must_come_in_time() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 3)?;
    let mut publisher = site.publisher.clone();
    publisher
        .home
        .env
        .push(("AWS_SESSION_TOKEN".to_owned(), "sesame".to_owned()));
    publisher.publish(0, &[])?;
    let log = site.server.log()?;
    let requests = log.lines().filter(|line| line.contains("HTTP/1.1"));
    let (timed, others): (Vec<&str>, Vec<&str>) = requests.partition(|line| line.contains("X-Amz-Expires="));
    ensure!(!timed.is_empty() && !others.is_empty(), "{log}");
    ensure!(
        timed.iter().all(|line| line.contains("X-Amz-Security-Token=sesame")),
        "{timed:?}"
    );
    ensure!(others.iter().all(|line| !line.contains("sesame")), "{others:?}");
    Ok(())
}
