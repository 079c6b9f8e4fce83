//! `completions SHELL`: a completion script on stdout.

use std::io::Write;

use api::failure::{Exit, Failure};

use super::execute::unwritable;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which shell
    shell: clap_complete::Shell,
}

/// Prints it.
pub fn run(args: &Args) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "gridbackup", &mut script);
    print(&script)
}

/// Writes to stdout; a reader that went away has all it wanted.
pub fn print(text: &[u8]) -> Result<Exit, Failure> {
    let mut stdout = std::io::stdout();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(unwritable(&error)),
        _ => Ok(Exit::Done),
    }
}
