//! `queue`: what goes up next, and why.

use api::request::{Queue, Request};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Jobs to show at most
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: u64,
}

impl Args {
    pub fn request(self) -> Request {
        Request::Queue(Queue { limit: self.limit })
    }
}
