//! `invite`: a one-line, one-use ticket.

use api::human::Period;
use api::request::{Invite, Request};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A label for the friend who is invited
    #[arg(long)]
    name: Option<String>,
    /// How long the ticket holds
    #[arg(long, default_value = "7d", value_name = "DURATION")]
    expires: Period,
}

impl Args {
    pub fn request(self) -> Request {
        Request::Invite(Invite {
            name: self.name,
            expires_secs: self.expires.0.as_secs(),
        })
    }
}
