//! `repair`: build shares anew that are lost.

use api::request::Request;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One round, even if it leaves something to do
    #[arg(long)]
    once: bool,
}

impl Args {
    /// As a request.
    pub fn request(self) -> Request {
        Request::Repair { once: self.once }
    }
}
