//! `config get|set`: settings by dotted key.

use super::context::Context;
use api::failure::{Exit, Failure};
use api::request::Request;

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

/// Executes one.
pub async fn run(mut context: Context, command: Command) -> Result<Exit, Failure> {
    let request = match command {
        Command::Get { key } => {
            context.options.bare_setting = key.is_some();
            Request::ConfigGet { key }
        }
        Command::Set { key, value } => Request::ConfigSet { key, value },
    };
    context.execute(request).await
}
