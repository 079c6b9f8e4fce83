//! `publish` over a line on which one request in twenty goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::s3::Kind;
use tests::s3_proxy::{Faults, Passed, S3Proxy};
use tests::site::{Site, let_go};

/// Requests of 1,000 that something happens to.
const PER_MILLE: u64 = 50;
/// More than a request takes: two parts.
const LARGE_BYTES: usize = 9 << 20;

fn large(site: &Site, count: u8) -> Result<()> {
    for number in 0..count {
        std::fs::write(site.root.join(format!("film {number}.mp4")), vec![number; LARGE_BYTES])?;
    }
    Ok(())
}

/// How often each object was written. An upload in parts makes one write, however often its completion is asked for: whoever lost
/// the answer asks again, and is told the same (Amazon S3, `CompleteMultipartUpload`; moto, too).
fn written(passed: &[Passed]) -> BTreeMap<String, usize> {
    let mut written = BTreeMap::new();
    let mut completed = BTreeSet::new();
    for passed in passed.iter().filter(|passed| passed.status == 200) {
        let (method, target) = passed.line.split_once(' ').unwrap_or_default();
        let (key, query) = target.split_once('?').unwrap_or((target, ""));
        let upload = query.split('&').find_map(|pair| pair.strip_prefix("uploadId="));
        let is_write = match method {
            "POST" => upload.is_some_and(|upload| completed.insert(upload.to_owned())),
            "PUT" => upload.is_none() && !key.contains(".gridbackup-lock"),
            _ => false,
        };
        if is_write {
            *written.entry(key.to_owned()).or_default() += 1;
        }
    }
    written
}

#[tokio::test]
async fn on_a_bad_line_every_object_is_written_once() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 200)?;
    large(&site, 3)?;
    let proxy = S3Proxy::start(&site.server.at)?;
    let bad = site.through(&proxy.at);
    proxy.set(Faults {
        latency: Duration::from_millis(5),
        per_mille: PER_MILLE,
        ..Faults::default()
    });
    bad.publish(0, &[])?;
    let written = written(&proxy.passed());
    eprintln!(
        "{} objects, {} requests, {} of them disturbed",
        written.len(),
        proxy.came().len(),
        proxy.faulty()
    );
    ensure!(proxy.faulty() > 0 && written.len() == 203, "{}", written.len());
    let twice: Vec<_> = written.iter().filter(|(_, times)| **times > 1).collect();
    ensure!(twice.is_empty(), "{twice:?}");
    site.assert_same().await
}

#[tokio::test]
async fn ten_kills_on_a_bad_line_leave_the_bucket_as_the_folder() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let files = 300;
    let site = Site::start(Kind::Moto, files)?;
    large(&site, 4)?;
    let proxy = S3Proxy::start(&site.server.at)?;
    let bad = site.through(&proxy.at);
    proxy.set(Faults {
        latency: Duration::from_millis(10),
        per_mille: PER_MILLE,
        ..Faults::default()
    });
    let mut in_flight = 0;
    for kill in 0..10u64 {
        let mut child = bad
            .command("", &[])?
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // Seven steps of different lengths: the start, the first files, their midst.
        std::thread::sleep(Duration::from_millis(100 + kill * 377 % 700));
        let (came, passed) = (proxy.came().len(), proxy.passed().len());
        child.kill()?;
        child.wait()?;
        in_flight += (came - passed).min(64);
    }
    bad.publish(0, &[])?;
    site.assert_same().await?;
    let written = written(&proxy.passed());
    let writes: usize = written.values().sum();
    eprintln!(
        "{} objects, {writes} writes in eleven runs, {} requests, {} disturbed",
        written.len(),
        proxy.came().len(),
        proxy.faulty()
    );
    ensure!(
        written.len() == files + 4 && writes <= files + 4 + 10 * 64,
        "{writes} ({in_flight})"
    );
    proxy.set(Faults::default());
    ensure!(bad.publish(0, &["--verify"])?.number("drifted") == 0);
    Ok(())
}

#[tokio::test]
async fn a_server_in_another_hour_is_published_to() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 12)?;
    let proxy = S3Proxy::start(&site.server.at)?;
    let bad = site.through(&proxy.at);
    for skew_secs in [3600, -86_400] {
        proxy.set(Faults {
            skew_secs,
            ..Faults::default()
        });
        std::fs::write(site.root.join("new.bin"), skew_secs.to_string())?;
        bad.publish(0, &[])?;
        site.assert_same().await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_a_killed_run_may_have_sent_is_sent_again() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 3)?;
    let proxy = S3Proxy::start(&site.server.at)?;
    let (bad, args) = (site.through(&proxy.at), ["--lock", "none"]);
    bad.touch("x.bin", "old")?;
    bad.publish(0, &args)?;
    bad.touch("x.bin", "new")?;
    bad.killed_at(&proxy, "PUT /site/www/x.bin", &args)?;
    ensure!(let_go(&proxy)?.status == 200);
    // The file is again what the inventory last heard of, and the object is not.
    bad.touch("x.bin", "old")?;
    bad.publish(0, &args)?;
    site.assert_same().await
}

#[tokio::test]
async fn parts_of_a_killed_run_are_given_up() -> Result<()> {
    tests::needs!(tests::s3::missing());
    let site = Site::start(Kind::Moto, 3)?;
    large(&site, 1)?;
    let proxy = S3Proxy::start(&site.server.at)?;
    let bad = site.through(&proxy.at);
    bad.killed_at(&proxy, "partNumber=2", &[])?;
    let_go(&proxy)?;
    let uploads = || site.server.raw("GET", "/site?uploads", "s3", "");
    ensure!(uploads()?.contains("<UploadId>"));
    bad.publish(0, &[])?;
    ensure!(!uploads()?.contains("<UploadId>"));
    site.assert_same().await
}
