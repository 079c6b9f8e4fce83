//! The engine: opens a home and executes requests.

use crate::failure::{Exit, Failure};
use crate::home::Home;
use crate::output::Sink;
use crate::request::Request;

/// What the engine is opened for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One request, then exit.
    Command {
        /// Addresses to listen on instead of the config's.
        listen: Vec<String>,
    },
    /// The daemon: serve until told to stop.
    Daemon(DaemonOptions),
}

/// How the daemon runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonOptions {
    /// Addresses to listen on instead of the config's.
    pub listen: Vec<String>,
    /// Only store for friends: no scanning, no uploads.
    pub store_only: bool,
    /// Where the API listens, as the `ready` message says it.
    pub api: String,
}

/// An open home.
pub struct Engine {
    #[expect(dead_code, reason = "holds the home's lock")]
    home: Home,
}

impl Engine {
    /// Opens a locked home.
    pub async fn open(home: Home, _mode: Mode) -> Result<Self, Failure> {
        Ok(Self { home })
    }

    /// Executes one request; answers go to `sink`, the exit code is the request's.
    pub async fn execute(&self, _request: Request, _sink: Sink) -> Result<Exit, Failure> {
        Err(Failure::new(Exit::Failed, "The engine is not available"))
    }

    /// The daemon's life: sends `ready`, then events, until the sink's stop token is cancelled.
    pub async fn serve(&self, _sink: Sink) -> Result<Exit, Failure> {
        Err(Failure::new(Exit::Failed, "The engine is not available"))
    }
}
