//! Several real nodes on loopback, joined by tickets.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::home::Home;

/// A running `gridbackup node` or `run`.
pub struct Node {
    /// Its home.
    pub home: Home,
    /// Its first line: peer id and addresses.
    pub ready: Value,
    child: Child,
    /// What it says after that, read all the time: a node whose standard output is gone would be told so by a signal.
    said: mpsc::Receiver<String>,
}

impl Node {
    /// Starts a node in `home` and waits until it serves.
    pub fn start(home: &Home) -> Result<Self> {
        Self::start_as(home, "node")
    }

    /// Starts a daemon by this command and waits until it serves.
    pub fn start_as(home: &Home, command: &str) -> Result<Self> {
        let log = std::fs::File::create(home.dir.with_extension("log"))?;
        let mut child = home
            .command([command])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("start a node")?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let ready: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
        if ready["message_type"] != "ready" {
            let _ = child.kill();
            bail!("node in {} said `{line}` instead of ready", home.dir.display());
        }
        Ok(Self {
            home: home.clone(),
            ready,
            child,
            said: lines(stdout),
        })
    }

    /// Waits for the next event of this name.
    pub fn event(&self, name: &str, patience: Duration) -> Result<Value> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self
                .said
                .recv_timeout(left)
                .with_context(|| format!("no `{name}` in {patience:?}"))?;
            let message: Value = serde_json::from_str(&line)?;
            if message["message_type"] == "event" && message["event"] == name {
                return Ok(message);
            }
        }
    }

    /// Its first address, with its peer id.
    pub fn address(&self) -> Result<String> {
        let address = self.ready["addresses"][0].as_str().context("a node listens")?;
        let peer = self.ready["peer_id"].as_str().context("a node has a peer id")?;
        Ok(if address.contains("/p2p/") {
            address.to_owned()
        } else {
            format!("{address}/p2p/{peer}")
        })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a power cut would.
    pub fn kill_9(mut self) -> Home {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.home.clone()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stdout: BufReader<ChildStdout>) -> mpsc::Receiver<String> {
    let (say, said) = mpsc::channel();
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let _nobody_listens = say.send(line);
        }
    });
    said
}

/// An owner and nodes that joined one grid.
pub struct Grid {
    /// The one who backs up.
    pub owner: Home,
    /// The friends.
    pub nodes: Vec<Node>,
}

impl Grid {
    /// Starts `count` nodes below `dir`; the first invites the others and the owner.
    pub fn start(dir: &Path, count: usize, tolerate: u8) -> Result<Self> {
        Self::start_with(dir, count, tolerate, &[])
    }

    /// As `start`, with these settings at the nodes and the owner.
    pub fn start_with(dir: &Path, count: usize, tolerate: u8, settings: &[(&str, &str)]) -> Result<Self> {
        let mut nodes: Vec<Node> = Vec::new();
        for number in 1..=count {
            let home = Home::init(dir.join(format!("node{number}")), &format!("node{number}"), tolerate)?;
            home.ok(["config", "set", "listen", "/ip4/127.0.0.1/tcp/0"])?;
            set(&home, settings)?;
            if let Some(first) = nodes.first() {
                let ticket = invite(&first.home)?;
                home.ok(["join", &ticket])?;
            }
            nodes.push(Node::start(&home)?);
        }
        let owner = Home::init(dir.join("owner"), "owner", tolerate)?;
        set(&owner, settings)?;
        let first = nodes.first().context("a grid has at least one node")?;
        owner.ok(["join", &invite(&first.home)?])?;
        Ok(Self { owner, nodes })
    }
}

fn set(home: &Home, settings: &[(&str, &str)]) -> Result<()> {
    settings
        .iter()
        .try_for_each(|(key, value)| home.ok(["config", "set", key, value]).map(drop))
}

/// All files of stored shares below a folder; not those set aside.
pub fn share_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_share = || path.ancestors().nth(2).is_some_and(|folder| folder.ends_with("shares"));
            if path.is_dir() {
                folders.push(path);
            } else if name.len() == 64 && is_share() {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// A fresh ticket from a running node.
pub fn invite(home: &Home) -> Result<String> {
    Ok(home.ok(["invite"])?.text("ticket").to_owned())
}

/// Largest resident memory that a process has had so far, in MiB.
pub fn peak_mib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kib| kib / 1024)
}
