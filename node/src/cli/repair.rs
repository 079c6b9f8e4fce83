//! `repair`: build shares anew that are lost.

use api::request::{Repair, Request};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// One round, even if it leaves something to do
    #[arg(long)]
    once: bool,
}

impl Args {
    pub fn request(self) -> Request {
        Request::Repair(Repair { once: self.once })
    }
}
