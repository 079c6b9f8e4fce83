//! `verify`: a drill.

use api::request::{Request, Verify};

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many files [default: `verify_files` of the config]
    #[arg(long, value_name = "N")]
    files: Option<u64>,
}

impl Args {
    pub fn request(self) -> Request {
        Request::Verify(Verify { files: self.files })
    }
}
