//! `publish` and its subcommands: which of them is meant.

mod diff;
mod restore;
mod send;
mod shown;
mod watch;

use api::failure::{Exit, Failure};
use engine::home::HomePaths;

use crate::render::RenderOptions;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
// Its group would have the name of the one that is flattened into it.
#[group(skip)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    publish: Option<send::Args>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make files of the objects again: bytes, times, modes
    Restore(restore::Args),
    /// Say what publishing would do, and why
    Diff(send::Args),
    /// Publish whenever the folder has changed
    Watch(watch::Args),
}

#[cfg(test)]
impl Args {
    /// Something to do was understood.
    pub(super) fn is_complete(&self) -> bool {
        self.command.is_some() || self.publish.is_some()
    }
}

/// Does what was asked for.
pub async fn run(args: Args, paths: HomePaths, options: RenderOptions) -> Result<Exit, Failure> {
    match (args.command, args.publish) {
        (Some(Command::Restore(args)), _) => restore::run(args, paths, options).await,
        (Some(Command::Diff(args)), _) => diff::run(args, paths, options).await,
        (Some(Command::Watch(args)), _) => watch::run(args, paths, options).await,
        (None, Some(args)) => send::run(args, paths, options).await,
        (None, None) => Err(Failure::new(Exit::Usage, "Name a folder and s3://BUCKET[/PREFIX]")),
    }
}
