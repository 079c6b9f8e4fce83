//! `status [PATH...]`: is my data safe.

use std::path::PathBuf;

use api::failure::Failure;
use api::request::{Request, Status};

use super::context::absolute;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Answer for these files only
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

impl Args {
    pub fn request(self) -> Result<Request, Failure> {
        let paths: Result<_, _> = self.paths.iter().map(|path| absolute(path)).collect();
        Ok(Request::Status(Status { paths: paths? }))
    }
}
