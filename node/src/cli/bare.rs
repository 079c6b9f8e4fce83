//! `gridbackup` alone: what to do next. Nothing set up: the four steps; later: the verdict, and the next step.

use std::io::Write;

use api::failure::{Exit, Failure};
use api::request::{Request, Status};
use engine::home::{HomePaths, no_account};

use super::context::{Context, block_on};
use crate::render::RenderOptions;

const FIRST_STEPS: &str = "\
There is no account here yet. Four steps to a backup that nobody but you can read:
  gridbackup init                      make an account; its 24 words bring everything back: keep them on paper
  gridbackup folder add ~/Documents    say what is to be backed up
  gridbackup join TICKET               to friends who gave you one, or: gridbackup peer add usb dir:/media/usb
  gridbackup run                       from now on by itself; once: gridbackup run --once
To see the whole story first: gridbackup demo. To bring a lost machine back: gridbackup recover. All commands: gridbackup --help
";

/// What to do next.
pub fn run(paths: HomePaths, options: RenderOptions) -> Result<Exit, Failure> {
    if !paths.has_account() {
        if options.json {
            return Err(no_account(&paths));
        }
        let _nobody_reads = write!(std::io::stdout(), "{FIRST_STEPS}");
        return Ok(Exit::NoAccount);
    }
    let options = RenderOptions { brief: true, ..options };
    let context = Context { paths, options };
    block_on(async move { context.execute(Request::Status(Status { paths: Vec::new() })).await })?
}
