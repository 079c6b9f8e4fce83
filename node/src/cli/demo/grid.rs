//! The demo's processes: this same program, one home each, on loopback. They die with whoever holds them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use api::failure::{Exit, Failure};
use api::message::{Message, Ready};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Loopback, any port.
pub const ANY_PORT: &str = "/ip4/127.0.0.1/tcp/0";

/// A node that is not ready by then never will be.
const READY_WAIT: Duration = Duration::from_secs(60);

/// A node that has not stopped by then is killed.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// Starts processes.
pub struct Grid {
    program: PathBuf,
    work: PathBuf,
}

/// A running daemon; killed when dropped.
pub struct Node {
    home: PathBuf,
    child: Child,
    ready: Ready,
}

impl Grid {
    /// Homes are made below `work`.
    pub fn new(work: &Path) -> Result<Self, Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::context("The path of this program is not known", &error))?;
        Ok(Self {
            program,
            work: work.to_owned(),
        })
    }

    /// The home of `name`.
    pub fn home(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// Makes an account; nothing is asked of the local network.
    pub async fn init(&self, home: &Path, name: &str, tolerate: u16, phrase: Option<&Path>) -> Result<(), Failure> {
        let mut arguments: Vec<OsString> = ["init", "--name", name, "--tolerate", &tolerate.to_string()]
            .map(OsString::from)
            .into();
        if let Some(phrase) = phrase {
            arguments.extend(["--phrase-out".into(), phrase.into()]);
        }
        self.run(home, &arguments).await?;
        self.run(home, &["config".into(), "set".into(), "mdns".into(), "false".into()])
            .await?;
        Ok(())
    }

    /// Starts a daemon and waits until it is ready.
    pub async fn start(&self, home: &Path, arguments: &[OsString]) -> Result<Node, Failure> {
        let mut child = self
            .command(home, arguments)
            .args(["--listen", ANY_PORT])
            .spawn()
            .map_err(|error| Failure::context("A node cannot be started", &error))?;
        let stdout = child.stdout.take().ok_or_else(|| unexpected("node"))?;
        let mut lines = BufReader::new(stdout).lines();
        let first = timeout(READY_WAIT, lines.next_line()).await;
        let message = first
            .ok()
            .and_then(Result::ok)
            .flatten()
            .and_then(|line| serde_json::from_str(&line).ok());
        let Some(Message::Ready(ready)) = message else {
            let _ended = child.start_kill();
            return Err(failure_of(child.stderr.take())
                .await
                .unwrap_or_else(|| unexpected("node")));
        };
        // What it says from now on is read and dropped: a full pipe would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        if let Some(mut stderr) = child.stderr.take() {
            tokio::spawn(async move { tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await });
        }
        Ok(Node {
            home: home.to_owned(),
            child,
            ready,
        })
    }

    /// Runs a command to its end: its messages, or its failure.
    pub async fn run(&self, home: &Path, arguments: &[OsString]) -> Result<Vec<Message>, Failure> {
        let output = self
            .command(home, arguments)
            .output()
            .await
            .map_err(|error| Failure::context("A command cannot be started", &error))?;
        if !output.status.success() {
            let name = arguments.first().map(|name| name.to_string_lossy()).unwrap_or_default();
            let failure = last_error(&output.stderr);
            return Err(failure.unwrap_or_else(|| {
                let stderr = String::from_utf8_lossy(&output.stderr);
                let last = stderr.lines().last().unwrap_or_default();
                Failure::new(Exit::Failed, format!("`{name}` ended with {}: {last}", output.status))
            }));
        }
        let lines = output
            .stdout
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// The last message of a command.
    pub async fn last_message(&self, home: &Path, arguments: &[OsString]) -> Result<Message, Failure> {
        let messages = self.run(home, arguments).await?;
        messages
            .into_iter()
            .next_back()
            .ok_or_else(|| unexpected(&arguments[0].to_string_lossy()))
    }

    fn command(&self, home: &Path, arguments: &[OsString]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--json")
            .arg("--home")
            .arg(home)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

impl Node {
    /// Its home.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// An address to recover from.
    pub fn address(&self) -> Option<String> {
        let address = self.ready.addresses.first()?;
        Some(match address.contains("/p2p/") {
            true => address.clone(),
            false => format!("{address}/p2p/{}", self.ready.peer_id),
        })
    }

    /// Kills it as a power cut would.
    pub async fn kill(mut self) {
        let _ended_before = self.child.kill().await;
    }

    /// Asks it to stop and waits.
    pub async fn stop(mut self) -> Result<(), Failure> {
        let pid = self
            .child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM)
                .map_err(|error| Failure::context("A node cannot be asked to stop", &error))?;
        }
        if timeout(STOP_WAIT, self.child.wait()).await.is_err() {
            self.kill().await;
        }
        Ok(())
    }
}

/// A process did not say what it should.
pub fn unexpected(command: &str) -> Failure {
    Failure::new(Exit::Failed, format!("`{command}` did not say what was expected"))
        .hint("please report it, with the output of `demo -vv`")
}

async fn failure_of(stderr: Option<impl AsyncRead + Unpin>) -> Option<Failure> {
    let mut text = Vec::new();
    // Chosen: room for a log and the failure that it ends with.
    let read = stderr?.take(1 << 20);
    let mut read = std::pin::pin!(read);
    timeout(Duration::from_secs(1), read.read_to_end(&mut text))
        .await
        .ok()?
        .ok()?;
    last_error(&text)
}

fn last_error(stderr: &[u8]) -> Option<Failure> {
    let lines = stderr.split(|byte| *byte == b'\n');
    lines.rev().find_map(|line| match serde_json::from_slice(line) {
        Ok(Message::Error(failure)) => Some(failure),
        _ => None,
    })
}
