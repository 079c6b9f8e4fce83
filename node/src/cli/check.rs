//! `check`: is every share where it should be, and intact.

use api::request::{Check, Request};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read shares back and verify them: all, or so many percent of them
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true, default_missing_value = "100",
          value_parser = clap::value_parser!(u64).range(0..=100))]
    read_data: Option<u64>,
}

impl Args {
    pub fn request(self) -> Request {
        Request::Check(Check {
            read_percent: self.read_data,
        })
    }
}
