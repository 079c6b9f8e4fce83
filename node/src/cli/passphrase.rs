//! `passphrase set|rm`: locks this machine's key files, or unlocks them. The daemon must not run meanwhile.

use std::path::PathBuf;

use api::failure::{Exit, Failure};
use api::message::{Changed, Deed, Thing};
use api::output::Output;
use engine::home::passphrase::PassphraseSource;
use engine::home::{HomeLock, no_account, passphrase};

use super::context::Context;
use super::execute;
use crate::render::Renderer;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Lock the keys with a passphrase, or change it: without it nothing on this disk can speak for the account
    Set {
        /// File with the new passphrase in its first line; `-` reads stdin [default: asked for twice]
        #[arg(long, value_name = "FILE")]
        new: Option<PathBuf>,
    },
    /// Unlock the keys for good: the daemon starts without being asked
    Rm,
}

impl Command {
    /// Does it, here: no daemon is told a passphrase.
    pub fn run(self, context: &Context) -> Result<Exit, Failure> {
        let paths = &context.paths;
        if !paths.has_account() {
            return Err(no_account(paths));
        }
        let _lock = HomeLock::take(paths)?;
        let action = match self {
            Self::Set { new } => {
                passphrase::set(paths, &new_passphrase(new)?)?;
                Deed::Locked
            }
            Self::Rm if passphrase::remove(paths)? => Deed::Unlocked,
            Self::Rm => Deed::Unchanged,
        };
        let changed = Changed::new(action, Thing::Keys, paths.state_dir().display().to_string());
        let mut renderer = Renderer::stdout(context.options);
        let shown = renderer
            .show(&Output::Message(changed.into()))
            .and_then(|()| renderer.finish());
        shown.map_err(|error| execute::unwritable(&error))?;
        Ok(Exit::Done)
    }
}

fn new_passphrase(file: Option<PathBuf>) -> Result<zeroize::Zeroizing<String>, Failure> {
    if file.is_some() {
        return PassphraseSource { file, command: None }.get("");
    }
    let new = passphrase::ask("New passphrase")?;
    match *passphrase::ask("Once more")? == *new {
        true => Ok(new),
        false => Err(Failure::new(
            Exit::Usage,
            "The two passphrases differ: nothing was changed",
        )),
    }
}
