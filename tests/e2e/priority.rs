//! With a slow uplink the newest small documents are safe while an old video still waits, and the owner can see it.

use std::fs::{self, File};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, bail};
use serde_json::Value;
use tests::fixture::noise;
use tests::grid::{Grid, Node};
use tests::home::path_str;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn yesterdays_documents_are_protected_while_an_old_video_waits() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("home");
    fs::create_dir_all(source.join("Documents"))?;
    fs::create_dir_all(source.join("Videos"))?;
    let video = source.join("Videos/holiday.mp4");
    fs::write(&video, noise(600 << 20, 3))?;
    File::options()
        .write(true)
        .open(&video)?
        .set_modified(SystemTime::now() - 900 * DAY)?;
    let mut documents = Vec::new();
    for number in 0..20 {
        let path = source.join(format!("Documents/letter{number}.odt"));
        fs::write(&path, noise(20_000 + number, number as u64))?;
        File::options()
            .write(true)
            .open(&path)?
            .set_modified(SystemTime::now() - DAY)?;
        documents.push(path);
    }
    let grid = Grid::start(dir.path(), 5, 2)?;
    grid.owner.ok(["config", "set", "limit_upload", "2M"])?;
    grid.owner.ok(["config", "set", "publish_interval", "2s"])?;
    grid.owner.ok(["folder", "add", path_str(&source)?])?;
    let daemon = Node::start_as(&grid.owner, "run")?;

    let state = |path: &std::path::Path| -> Result<String> {
        let said = grid.owner.say(["status", path_str(path)?])?;
        Ok(said.last()["state"].as_str().unwrap_or_default().to_owned())
    };
    let start = Instant::now();
    let outcome = loop {
        let waiting = documents
            .iter()
            .filter(|path| state(path).is_ok_and(|state| state != "protected"))
            .count();
        if waiting == 0 {
            break Ok(());
        }
        if start.elapsed() > Duration::from_secs(400) {
            break Err(format!("{waiting} documents are still not protected"));
        }
        std::thread::sleep(Duration::from_millis(500));
    };
    let (video_state, queue) = (state(&video), grid.owner.say(["queue"]));
    drop(daemon);
    if let Err(reason) = outcome {
        bail!("{reason}; queue: {:?}", queue?.lines);
    }
    eprintln!("documents protected after {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!(video_state?, "waiting");
    let jobs: Vec<Value> = queue?.lines;
    assert!(
        jobs.iter().any(|job| job["path"] == path_str(&video).unwrap()),
        "the video is in the queue: {jobs:?}"
    );
    Ok(())
}
