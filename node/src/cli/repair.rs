//! `repair`: build shares anew that are lost.

use api::request::Request;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// One round, even if it leaves something to do
    #[arg(long)]
    once: bool,
}

impl Args {
    pub fn request(self) -> Request {
        Request::Repair { once: self.once }
    }
}
