//! `stats`: what snapshots take.

use api::request::{Request, Stats};

/// Arguments of `stats`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this one, and what no other snapshot refers to
    snapshot: Option<String>,
}

impl Args {
    pub fn request(self) -> Request {
        Request::Stats(Stats {
            snapshot: self.snapshot,
        })
    }
}
