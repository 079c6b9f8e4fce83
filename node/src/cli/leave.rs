//! `leave`: this account ends its membership in the grid, by its words.

use std::path::PathBuf;

use super::words;
use crate::failure::Failure;
use crate::friendnet::roster::deeds;
use crate::home::HomePaths;
use crate::request::Request;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File with the 24 words; `-` reads them from stdin
    #[arg(long, value_name = "FILE")]
    phrase_file: PathBuf,
}

impl Args {
    /// As a request.
    pub fn request(self, paths: &HomePaths) -> Result<Request, Failure> {
        let word = words::say(paths, &self.phrase_file, |roster, word| {
            deeds::leave(word, roster.grid(), true);
            Ok(())
        })?;
        Ok(Request::Say(word))
    }
}
