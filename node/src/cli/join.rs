//! `join TICKET`: this node becomes a member of the inviter's grid.

use std::io::Read;

use crate::failure::{Exit, Failure};
use crate::request::Request;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The ticket; `-` reads it from stdin
    ticket: String,
}

/// Longest ticket that is read from stdin.
const TICKET_BYTES_MAX: u64 = 16 << 10;

impl Args {
    /// As a request.
    pub fn request(self) -> Result<Request, Failure> {
        let mut ticket = self.ticket;
        if ticket == "-" {
            ticket.clear();
            std::io::stdin()
                .take(TICKET_BYTES_MAX)
                .read_to_string(&mut ticket)
                .map_err(|error| Failure::context(format!("The ticket cannot be read: {error}"), &error))?;
        }
        // Mail programs break lines; a ticket has no white space of its own.
        let ticket: String = ticket.split_whitespace().collect();
        if ticket.is_empty() {
            return Err(Failure::new(Exit::Usage, "There is no ticket").hint("ask a friend for `gridbackup invite`"));
        }
        Ok(Request::Join { ticket })
    }
}
