//! `device add`: a home for one more machine of this account, made where the words are typed and copied to where it works.

use std::path::PathBuf;

use api::failure::{Exit, Failure};
use api::message::{Changed, Deed, Thing};
use api::output::Output;
use engine::config::last_good::InForce;
use engine::home::{HomeLock, HomePaths, Identity};
use proto::keys::power;

use super::context::Context;
use super::{execute, init, words};
use crate::render::Renderer;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The machine's name
    name: String,
    /// New folder for its home: copy it to the machine, keep no copy, and use it there with --home. Its keys are locked with the
    /// passphrase that is given here, if one is
    dir: PathBuf,
    /// It may only put: it backs up what it cannot read or give up, and a thief gets no more than that
    #[arg(long)]
    put_only: bool,
    /// File with the 24 words; `-` reads them from stdin
    #[arg(long, value_name = "FILE")]
    phrase_file: PathBuf,
}

/// Makes it. Nobody has to be told: friends welcome whoever the account's words have certified.
pub fn run(context: &Context, args: Args) -> Result<Exit, Failure> {
    let own = Identity::cert(&context.paths)?;
    let (seed, roster) = words::seed_and_roster(&context.paths, &args.phrase_file, &own)?;
    let paths = HomePaths::locate(Some(&args.dir))?;
    let home = paths.state_dir().display();
    let is_free = match std::fs::read_dir(&args.dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if !is_free {
        return Err(
            Failure::new(Exit::Failed, format!("`{home}` is no new folder")).hint("name one that is not there yet")
        );
    }
    paths.create()?;
    let _lock = HomeLock::take(&paths)?;
    let powers = if args.put_only { power::PUT_ONLY } else { power::ALL };
    let tolerate = InForce::read(&context.paths.config(), &context.paths.last_config())
        .config
        .tolerate;
    let identity = init::begin_with(&paths, &seed, Some(args.name), tolerate, powers)?;
    backup::catalog::open(&paths.catalog())?;
    roster
        .save(&paths.roster())
        .map_err(|error| Failure::from_error(&error))?;
    identity.finish(&paths)?;
    let made = Changed::new(Deed::Made, Thing::Home, home.to_string());
    let mut renderer = Renderer::stdout(context.options);
    let shown = renderer
        .show(&Output::Message(made.into()))
        .and_then(|()| renderer.finish());
    shown.map_err(|error| execute::unwritable(&error))?;
    Ok(Exit::Done)
}
