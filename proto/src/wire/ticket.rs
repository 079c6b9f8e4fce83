//! A ticket: one line of text that lets one account join a grid, once (docs/protocol/ticket.md).

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::id::{DeviceId, GridId};

const PREFIX: &str = "gbt1";
/// Bytes of a BLAKE3 at the end: a ticket that was mistyped or cut off is told from one that nobody made.
const CHECKSUM_BYTES: usize = 4;
/// Most characters of a ticket: bounds what is decoded.
const TEXT_BYTES_MAX: usize = 2048;

/// Most addresses in a ticket.
pub const ADDRESSES_MAX: usize = 8;

/// What the text says. `secret` is as good as membership until it is used: never log a ticket.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ticket {
    /// Whom to dial.
    #[n(0)]
    pub inviter: DeviceId,
    /// The grid to join.
    #[n(1)]
    pub grid: GridId,
    /// Known to the inviter and whoever has the ticket.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub secret: [u8; 16],
    /// Seconds since 1970, by the inviter's clock.
    #[n(3)]
    pub expires_secs: u64,
    /// Where to dial: multiaddrs in binary form.
    #[n(4)]
    pub addresses: Vec<ByteVec>,
}

/// Names a ticket without telling its secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct TicketId(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

/// Text that is no ticket.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum TicketError {
    /// Another prefix: not a ticket, or of a newer gridbackup.
    #[error("Not a ticket: it should begin with `{PREFIX}`")]
    Prefix,
    /// A character is wrong, or some are missing.
    #[error("The ticket is damaged: copy it again, all of it")]
    Damaged,
}

impl Ticket {
    /// Its name.
    pub fn id(&self) -> TicketId {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::derive_key("gridbackup 2026 ticket id", &self.secret)[..16]);
        TicketId(id)
    }

    /// What the inviter keeps, and the key of `member::join_proof`. The secret does not follow from it.
    pub fn verifier(&self) -> [u8; 32] {
        blake3::derive_key("gridbackup 2026 ticket proof", &self.secret)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = minicbor::to_vec(self).expect("writing to memory does not fail");
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_BYTES]);
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({:?})", self.id())
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim().to_ascii_uppercase();
        let coded = text
            .strip_prefix(&PREFIX.to_ascii_uppercase())
            .ok_or(TicketError::Prefix)?;
        if coded.len() > TEXT_BYTES_MAX {
            return Err(TicketError::Damaged);
        }
        let bytes = BASE32_NOPAD
            .decode(coded.as_bytes())
            .map_err(|_| TicketError::Damaged)?;
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TicketError::Damaged)?;
        if blake3::hash(body).as_bytes()[..CHECKSUM_BYTES] != checksum[..] {
            return Err(TicketError::Damaged);
        }
        let ticket: Self = minicbor::decode(body).map_err(|_| TicketError::Damaged)?;
        if ticket.addresses.len() > ADDRESSES_MAX {
            return Err(TicketError::Damaged);
        }
        Ok(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            inviter: DeviceId([1; 32]),
            grid: GridId([2; 16]),
            secret: [3; 16],
            expires_secs: 1_800_000_000,
            addresses: vec![vec![4, 127, 0, 0, 1, 6, 0x1f, 0x90].into()],
        }
    }

    #[test]
    fn a_ticket_reads_back_whatever_a_chat_program_did_to_its_case_and_ends() {
        let text = ticket().to_string();
        assert_eq!(text.parse(), Ok(ticket()));
        assert_eq!(format!(" {}\n", text.to_uppercase()).parse(), Ok(ticket()));
    }

    #[test]
    fn every_wrong_character_is_found() {
        let text = ticket().to_string();
        for at in PREFIX.len()..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[at] = if wrong[at] == b'a' { b'b' } else { b'a' };
            let wrong = String::from_utf8(wrong).expect("ASCII");
            assert_eq!(wrong.parse::<Ticket>(), Err(TicketError::Damaged), "at {at}");
        }
        assert_eq!(text[..text.len() - 3].parse::<Ticket>(), Err(TicketError::Damaged));
    }

    #[test]
    fn a_ticket_of_version_1_is_read_for_ever() {
        let frozen = include_str!("../../golden/wire/v1-ticket.txt");
        assert_eq!(ticket().to_string(), frozen.trim());
        assert_eq!(frozen.parse(), Ok(ticket()));
    }
}
