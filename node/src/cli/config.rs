//! `config get|set`: settings by dotted key.

use api::failure::{Exit, Failure};
use api::request::{ConfigGet, ConfigSet, Request};

use super::context::Context;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print a setting, or all of them
    Get {
        /// Dotted key, for example `tolerate` or `peers.usb.quota`
        key: Option<String>,
    },
    /// Change a setting
    Set {
        /// Dotted key
        key: String,
        /// Its new value; sizes and durations may have units
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
}

impl Command {
    /// As a request.
    pub fn request(self) -> Request {
        match self {
            Self::Get { key } => Request::ConfigGet(ConfigGet { key }),
            Self::Set { key, value } => Request::ConfigSet(ConfigSet { key, value }),
        }
    }
}

/// Executes one.
pub async fn run(mut context: Context, command: Command) -> Result<Exit, Failure> {
    context.options.bare_setting = matches!(command, Command::Get { key: Some(_) });
    context.execute(command.request()).await
}
