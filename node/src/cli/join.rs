//! `join TICKET`: this node becomes a member of the inviter's grid.

use std::io::Read;
use std::path::PathBuf;

use api::failure::{Exit, Failure};
use api::request::{Join, Request};
use engine::home::HomePaths;
use friendnet::roster::deeds;
use proto::wire::ticket::Ticket;

use super::words;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The ticket; `-` reads it from stdin
    ticket: String,
    /// File with the 24 words: to come back to a grid that this account has left
    #[arg(long, value_name = "FILE")]
    phrase_file: Option<PathBuf>,
}

/// Longest ticket that is read from stdin.
const TICKET_BYTES_MAX: u64 = 16 << 10;

impl Args {
    pub fn request(self, paths: &HomePaths) -> Result<Request, Failure> {
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
        let grid = ticket.parse::<Ticket>().map(|ticket| ticket.grid);
        let word = match (self.phrase_file, grid) {
            (Some(phrase_file), Ok(grid)) => Some(
                words::say(paths, &phrase_file, |_, word| {
                    deeds::leave(word, grid, false);
                    Ok(())
                })?
                .word,
            ),
            _ => None,
        };
        Ok(Request::Join(Join { ticket, word }))
    }
}
