//! Two friends behind routers of their own and a third with a public address: the two exchange shares.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tests::compare::assert_same;
use tests::fixture::noise;
use tests::grid::{Node, invite};
use tests::home::{Home, path_str};
use tests::netns::{Nat, Street};

/// Enough for reservations, dials and three attempts at a hole on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

struct Scene {
    _dir: tempfile::TempDir,
    street: Street,
    anna: Node,
    bert: Node,
    rita: Option<Node>,
    source: PathBuf,
    restored: PathBuf,
}

/// The scene, or nothing where namespaces cannot be made.
fn scene(nat: Nat) -> Result<Option<Scene>> {
    let street = match Street::build(nat) {
        Ok(street) => street,
        Err(reason) => {
            tests::left_out::say(&format!("network namespaces cannot be made here: {reason:#}"));
            return Ok(None);
        }
    };
    let dir = tempfile::tempdir()?;
    let (source, restored) = (dir.path().join("source"), dir.path().join("restored"));
    std::fs::create_dir(&source)?;
    for number in 0..3 {
        std::fs::write(source.join(format!("file{number}")), noise(3_000_000, number + 1))?;
    }
    let home = |name: &str, space: String, listen: &str| -> Result<Home> {
        let home = Home::init(dir.path().join(name), name, 1)?.within(space);
        home.ok(["config", "set", "listen", listen])?;
        Ok(home)
    };
    let public = street.public_ip();
    let rita = home(
        "rita",
        street.public(),
        &format!("/ip4/{public}/tcp/4250,/ip4/{public}/udp/4250/quic-v1"),
    )?;
    let rita = Node::start(&rita)?;
    let mut nated = Vec::new();
    for (number, name) in [(1, "anna"), (2, "bert")] {
        let home = home(
            name,
            street.host(number),
            "/ip4/0.0.0.0/tcp/4250,/ip4/0.0.0.0/udp/4250/quic-v1",
        )?;
        home.ok(["join", &invite(&rita.home)?])?;
        nated.push(Node::start(&home)?);
    }
    let (bert, anna) = (nated.pop().context("two")?, nated.pop().context("two")?);
    Ok(Some(Scene {
        _dir: dir,
        street,
        anna,
        bert,
        rita: Some(rita),
        source,
        restored,
    }))
}

/// How `home` reaches the peer of this name, as `peer ls` says.
fn reach(home: &Home, name: &str) -> Result<String> {
    let said = home.ok(["peer", "ls"])?;
    let peer = said.lines.iter().find(|line| line["name"] == name);
    Ok(peer
        .map_or("unknown", |peer| peer["reach"].as_str().unwrap_or("unknown"))
        .to_owned())
}

/// Waits until `peer ls` shows one of `wanted`; what it shows then, or showed last.
pub fn await_reach(home: &Home, name: &str, wanted: &[&str]) -> Result<String> {
    let begun = Instant::now();
    loop {
        let now = reach(home, name)?;
        if wanted.contains(&now.as_str()) || begun.elapsed() > PATIENCE {
            return Ok(now);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn back_up(scene: &Scene) -> Result<()> {
    let anna = &scene.anna.home;
    let begun = Instant::now();
    anna.ok(["run", "--once", path_str(&scene.source)?])?;
    let kept = scene.bert.home.ok(["status"])?.number("bytes_for_friends");
    ensure!(kept > 6_000_000, "Bert keeps only {kept} bytes");
    eprintln!(
        "backup of 9 MB to both friends took {:.1} s; Bert keeps {kept} bytes",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

fn restore(scene: &Scene) -> Result<()> {
    let target = &scene.restored;
    scene
        .anna
        .home
        .ok(["restore", "latest", "--target", path_str(target)?, "--verify"])?;
    let same = target.join(scene.source.strip_prefix("/")?);
    assert_same(&scene.source, &same)
}

fn findings(home: &Home, code: i32) -> Result<Vec<Value>> {
    let said = home.exits(code, ["doctor"])?;
    for finding in &said.lines {
        eprintln!("  {} {}", finding["level"], finding["text"]);
    }
    Ok(said.lines)
}

fn level_of<'a>(findings: &'a [Value], check: &str) -> Result<&'a str> {
    let found = findings.iter().find(|finding| finding["check"] == check);
    found
        .and_then(|finding| finding["level"].as_str())
        .with_context(|| format!("a finding on {check}"))
}

#[test]
fn friends_behind_symmetric_routers_exchange_shares_through_a_third() -> Result<()> {
    let Some(mut scene) = scene(Nat::Symmetric)? else {
        return Ok(());
    };
    let (anna, bert) = (scene.anna.home.clone(), scene.bert.home.clone());
    ensure!(await_reach(&anna, "bert", &["relayed"])? == "relayed");
    ensure!(await_reach(&bert, "anna", &["relayed"])? == "relayed");
    ensure!(await_reach(&anna, "rita", &["direct"])? == "direct");
    back_up(&scene)?;
    restore(&scene)?;
    ensure!(reach(&anna, "bert")? == "relayed", "no hole can be punched here");
    eprintln!("doctor of Anna, behind a router:");
    let found = findings(&anna, 0)?;
    ensure!(level_of(&found, "outside")? == "notice");
    let rita = scene.rita.take().context("Rita runs")?;
    eprintln!("doctor of Rita, with a public address:");
    ensure!(level_of(&findings(&rita.home, 0)?, "outside")? == "ok");
    let rita = rita.kill_9();
    ensure!(
        await_reach(&anna, "bert", &["none"])? == "none",
        "without a relay there is no way"
    );
    eprintln!("doctor of Anna, without the relay:");
    ensure!(level_of(&findings(&anna, 1)?, "outside")? == "problem");
    let begun = Instant::now();
    let rita = Node::start(&rita)?;
    ensure!(await_reach(&anna, "bert", &["relayed"])? == "relayed");
    eprintln!(
        "reached again {:.0} s after the relay came back",
        begun.elapsed().as_secs_f64()
    );
    restart_often(scene, &rita.home)
}

/// How often a daemon behind a router is restarted: enough to meet a race at full scale, a taste of it in CI.
fn restarts() -> u32 {
    match std::env::var("GRIDBACKUP_TEST_SCALE").as_deref() {
        Ok("full") => 20,
        _ => 1,
    }
}

/// A daemon that found itself reached from outside told so to connections through a relay, too: that panicked in 7 of 10
/// restarts, and the friend at the other end was cut off for up to sixteen minutes.
fn restart_often(scene: Scene, rita: &Home) -> Result<()> {
    let Scene {
        _dir,
        street,
        mut anna,
        bert,
        ..
    } = scene;
    for round in 1..=restarts() {
        let begun = Instant::now();
        anna = Node::start(&anna.kill_9())?;
        for (home, name) in [(&anna.home, "bert"), (&bert.home, "anna")] {
            ensure!(await_reach(home, name, &["relayed"])? == "relayed", "restart {round}");
        }
        for home in [&anna.home, &bert.home, rita] {
            let log = std::fs::read_to_string(home.dir.with_extension("log"))?;
            ensure!(!log.contains("panicked"), "restart {round}: {log}");
        }
        eprintln!(
            "reached again {:.0} s after restart {round}",
            begun.elapsed().as_secs_f64()
        );
    }
    drop(street);
    Ok(())
}

#[test]
fn friends_behind_common_routers_punch_a_hole_and_need_the_third_no_longer() -> Result<()> {
    let Some(mut scene) = scene(Nat::KeepsPorts)? else {
        return Ok(());
    };
    let anna = scene.anna.home.clone();
    let way = await_reach(&anna, "bert", &["hole_punched"])?;
    eprintln!("Anna reaches Bert: {way}");
    if way != "hole_punched" {
        bail!("no hole was punched: {way}");
    }
    back_up(&scene)?;
    drop(scene.rita.take().context("Rita runs")?.kill_9());
    // Bert alone, over the hole.
    restore(&scene)?;
    ensure!(reach(&anna, "bert")? == "hole_punched");
    let _ = &scene.street;
    Ok(())
}
