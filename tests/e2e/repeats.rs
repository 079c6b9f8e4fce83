//! Requests of the API that are asked again: by the same key, after other processes, by a client that nobody of ours wrote.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::fixture::noise;
use tests::grid::Node;
use tests::home::{Home, path_str};

/// Status and body of one request on a home's socket.
fn ask(home: &Path, method: &str, uri: &str, key: Option<&str>, body: &str) -> Result<(u16, String)> {
    let mut stream = UnixStream::connect(home.join("api.sock"))?;
    let key = key.map_or(String::new(), |key| format!("Idempotency-Key: {key}\r\n"));
    let length = body.len();
    write!(
        stream,
        "{method} {uri} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n{key}Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("a head and a body")?;
    let status = head.split(' ').nth(1).context("a status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// The ticket that an answer in JSON lines has, in whatever chunks it came.
fn ticket(body: &str) -> Result<String> {
    let line = body.lines().find(|line| line.contains("ticket")).context("a ticket")?;
    let message: Value = serde_json::from_str(line)?;
    Ok(message["ticket"].as_str().context("a ticket")?.to_owned())
}

/// A key was forgotten with the process, and behind 64 others: a repeat made a second ticket.
#[test]
fn a_key_that_is_repeated_after_the_daemon_was_killed_brings_the_same_answer() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = Home::init(dir.path().join("owner"), "owner", 1)?;
    owner.ok(["config", "set", "listen", "/ip4/127.0.0.1/tcp/0"])?;
    let daemon = Node::start_as(&owner, "run")?;
    let body = r#"{"name":"a friend","expires_secs":3600}"#;
    let invite = |key: &str| ask(&owner.dir, "POST", "/invites", Some(key), body);
    let (status, first) = invite("one")?;
    assert_eq!(status, 200, "{first}");
    for number in 0..70 {
        assert_eq!(invite(&format!("other {number}"))?.0, 200);
    }
    assert_eq!(ticket(&invite("one")?.1)?, ticket(&first)?);
    daemon.kill_9();
    let _again = Node::start_as(&owner, "run")?;
    assert_eq!(ticket(&invite("one")?.1)?, ticket(&first)?);
    assert_ne!(ticket(&invite("two")?.1)?, ticket(&first)?);
    let other = ask(&owner.dir, "POST", "/invites", Some("one"), r#"{"expires_secs":60}"#)?;
    assert_eq!(other.0, 409, "{}", other.1);
    assert!(other.1.contains("/problems/conflict"), "{}", other.1);
    Ok(())
}

/// Each was a 500.
#[test]
fn what_is_not_there_is_not_found() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("source");
    std::fs::create_dir(&source)?;
    std::fs::write(source.join("file"), noise(1000, 1))?;
    let owner = Home::init(dir.path().join("owner"), "owner", 0)?;
    std::fs::create_dir(dir.path().join("disk"))?;
    owner.ok([
        "peer",
        "add",
        "disk",
        &format!("dir:{}", path_str(&dir.path().join("disk"))?),
    ])?;
    owner.ok(["run", "--once", path_str(&source)?])?;
    let _daemon = Node::start_as(&owner, "run")?;
    for (method, uri, key) in [
        ("GET", "/snapshots/0123abcd/entries", None),
        ("GET", "/snapshots/latest/entries?path=/nowhere", None),
        ("GET", "/snapshots/latest/content?path=/nowhere", None),
        ("GET", "/statistics?snapshot=0123abcd", None),
        ("DELETE", "/peers/nobody", Some("a")),
        ("DELETE", "/disks/nothing", Some("b")),
    ] {
        let (status, body) = ask(&owner.dir, method, uri, key, "")?;
        assert_eq!(status, 404, "{method} {uri}: {body}");
        assert!(body.contains("/problems/not-found"), "{body}");
    }
    Ok(())
}
