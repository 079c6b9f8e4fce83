//! Invitations that this node gave out: each good for one account, until it expires.
//!
//! Only a verifier of each is kept (`<home>/invites`: CBOR and a checksum): the ticket itself cannot be printed again.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use durable::state_file;
use minicbor::{Decode, Encode};
use proto::id::{AccountId, DeviceId};
use proto::wire::greeting::Refusal;
use proto::wire::member::join_proof;
use proto::wire::ticket::{Ticket, TicketId};

/// Most invitations kept: older ones make room.
const INVITES_MAX: usize = 256;

/// One invitation.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Invite {
    /// Its ticket.
    #[n(0)]
    pub ticket: TicketId,
    /// Checks a proof of the secret.
    #[cbor(n(1), with = "minicbor::bytes")]
    verifier: [u8; 32],
    /// Whom it is for, in the inviter's words.
    #[n(2)]
    pub label: String,
    /// Seconds since 1970.
    #[n(3)]
    pub expires_secs: u64,
    /// Who used it.
    #[n(4)]
    pub used_by: Option<AccountId>,
    /// Accounts that the inviter had removed when it was made, each with the number of that removal: it takes back these.
    #[n(5)]
    pub takes_back: Vec<(AccountId, u64)>,
}

#[derive(Encode, Decode)]
struct InvitesFile {
    #[n(0)]
    version: u16,
    #[n(1)]
    invites: Vec<Invite>,
}

/// What a joiner presents.
#[derive(Clone, Copy, Debug)]
pub struct Presented {
    /// The ticket it names.
    pub ticket: TicketId,
    /// The proof for this connection.
    pub proof: [u8; 32],
    /// The device at the other end of the connection.
    pub joiner: DeviceId,
    /// The account that its certificate names.
    pub account: AccountId,
}

/// The invitations of a node, in memory and in a file.
pub struct Invites {
    path: PathBuf,
    held: Mutex<Vec<Invite>>,
}

/// Invitations that cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum InvitesError {
    /// The file cannot be read or written.
    #[error("The invitations in {path} cannot be kept: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Invites {
    /// Reads what is kept. What cannot be read is set aside: an invitation is soon given again, and friends who joined need none.
    pub fn open(path: &Path) -> Self {
        let (held, lost) = state_file::read(path, decode);
        if let Some(lost) = lost {
            tracing::warn!(
                "{lost}. Whoever was invited and has not joined yet needs a fresh ticket: `gridbackup invite`"
            );
        }
        Self {
            path: path.to_owned(),
            held: Mutex::new(held.unwrap_or_default()),
        }
    }

    /// Keeps a new invitation.
    pub fn add(&self, ticket: &Ticket, label: &str, takes_back: Vec<(AccountId, u64)>) -> Result<(), InvitesError> {
        let mut held = self.lock();
        let mut changed = held.clone();
        changed.push(Invite {
            ticket: ticket.id(),
            verifier: ticket.verifier(),
            label: label.to_owned(),
            expires_secs: ticket.expires_secs,
            used_by: None,
            takes_back,
        });
        let surplus = changed.len().saturating_sub(INVITES_MAX);
        changed.drain(..surplus);
        self.save(&changed)?;
        *held = changed;
        Ok(())
    }

    /// Checks what a joiner presents, without using the ticket up. The account that used it may come again: its first
    /// answer may have been lost.
    pub fn check(&self, inviter: DeviceId, presented: &Presented, now_secs: u64) -> Result<Invite, Refusal> {
        let held = self.lock();
        let found = held
            .iter()
            .find(|invite| invite.ticket == presented.ticket)
            .ok_or(Refusal::TicketUnknown)?;
        let proof = blake3::Hash::from_bytes(join_proof(&found.verifier, inviter, presented.joiner));
        // `blake3::Hash` compares in constant time.
        if proof != blake3::Hash::from_bytes(presented.proof) {
            return Err(Refusal::TicketUnknown);
        }
        match found.used_by {
            Some(account) if account == presented.account => Ok(found.clone()),
            Some(_) => Err(Refusal::TicketUsed),
            None if found.expires_secs <= now_secs => Err(Refusal::TicketExpired),
            None => Ok(found.clone()),
        }
    }

    /// Uses a ticket up, durably: at most one account gets `Ok`, however many ask at once.
    pub fn use_up(&self, ticket: TicketId, account: AccountId) -> Result<(), Refusal> {
        let mut held = self.lock();
        let mut changed = held.clone();
        let found = changed
            .iter_mut()
            .find(|invite| invite.ticket == ticket)
            .ok_or(Refusal::TicketUnknown)?;
        match found.used_by {
            Some(user) if user == account => return Ok(()),
            Some(_) => return Err(Refusal::TicketUsed),
            None => found.used_by = Some(account),
        }
        self.save(&changed).map_err(|error| {
            tracing::error!("{error}");
            Refusal::CannotAdmit
        })?;
        *held = changed;
        Ok(())
    }

    /// All that are kept, oldest first.
    pub fn all(&self) -> Vec<Invite> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Invite>> {
        self.held.lock().expect("no panic while the invitations are locked")
    }

    fn save(&self, invites: &[Invite]) -> Result<(), InvitesError> {
        let file = InvitesFile {
            version: 1,
            invites: invites.to_vec(),
        };
        let bytes = minicbor::to_vec(&file).expect("writing to memory does not fail");
        state_file::replace(&self.path, &bytes).map_err(|source| InvitesError::Io {
            path: self.path.clone(),
            source,
        })
    }
}

fn decode(bytes: &[u8]) -> Result<Vec<Invite>, String> {
    match minicbor::decode::<InvitesFile>(bytes) {
        Ok(file) if file.version == 1 => Ok(file.invites),
        Ok(file) => Err(format!("version {} is of a newer gridbackup", file.version)),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proto::id::GridId;

    use super::*;

    const INVITER: DeviceId = DeviceId([1; 32]);

    fn ticket() -> Ticket {
        Ticket {
            inviter: INVITER,
            grid: GridId([2; 16]),
            secret: [3; 16],
            expires_secs: 1000,
            addresses: Vec::new(),
        }
    }

    fn presented(ticket: &Ticket, account: u8) -> Presented {
        let joiner = DeviceId([account; 32]);
        let proof = join_proof(&ticket.verifier(), INVITER, joiner);
        Presented {
            ticket: ticket.id(),
            proof,
            joiner,
            account: AccountId([account; 32]),
        }
    }

    #[test]
    fn a_ticket_admits_one_account_however_often_it_asks_and_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("invites");
        let invites = Invites::open(&path);
        invites.add(&ticket(), "Bob", Vec::new()).unwrap();
        assert!(invites.check(INVITER, &presented(&ticket(), 5), 999).is_ok());
        invites.use_up(ticket().id(), AccountId([5; 32])).unwrap();
        for invites in [invites, Invites::open(&path)] {
            assert!(
                invites.check(INVITER, &presented(&ticket(), 5), 2000).is_ok(),
                "a lost answer is asked for again"
            );
            assert_eq!(
                invites.check(INVITER, &presented(&ticket(), 6), 999),
                Err(Refusal::TicketUsed)
            );
            assert_eq!(
                invites.use_up(ticket().id(), AccountId([6; 32])),
                Err(Refusal::TicketUsed)
            );
        }
    }

    #[test]
    fn an_expired_or_unknown_ticket_or_a_proof_for_another_connection_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let invites = Invites::open(&home.path().join("invites"));
        assert_eq!(
            invites.check(INVITER, &presented(&ticket(), 5), 1),
            Err(Refusal::TicketUnknown)
        );
        invites.add(&ticket(), "Bob", Vec::new()).unwrap();
        assert_eq!(
            invites.check(INVITER, &presented(&ticket(), 5), 1000),
            Err(Refusal::TicketExpired)
        );
        let mut overheard = presented(&ticket(), 5);
        overheard.joiner = DeviceId([6; 32]);
        assert_eq!(invites.check(INVITER, &overheard, 1), Err(Refusal::TicketUnknown));
    }

    #[test]
    fn the_file_does_not_hold_the_secret() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("invites");
        let ticket = Ticket {
            secret: *b"sixteen secrets!",
            ..ticket()
        };
        Invites::open(&path).add(&ticket, "Bob", Vec::new()).unwrap();
        let kept = std::fs::read(&path).unwrap();
        assert!(!kept.windows(16).any(|window| window == ticket.secret));
    }
}
