//! `leave`: this account ends its membership in the grid, by its words.

use std::path::PathBuf;

use api::failure::{Exit, Failure};
use api::request::Request;
use engine::home::{HomePaths, Identity};
use friendnet::roster::deeds;

use super::words;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// File with the 24 words; `-` reads them from stdin
    #[arg(long, value_name = "FILE")]
    phrase_file: PathBuf,
}

impl Args {
    pub fn request(self, paths: &HomePaths) -> Result<Request, Failure> {
        let account = Identity::cert(paths)?.account;
        let word = words::say(paths, &self.phrase_file, |roster, word| {
            if roster.is_alone(account) {
                return Err(Failure::new(
                    Exit::Usage,
                    "Nobody else is in this grid: there is nothing to leave",
                ));
            }
            deeds::leave(word, roster.grid(), true);
            Ok(())
        })?;
        Ok(Request::Say(word))
    }
}
