//! Membership: joining a grid and keeping rosters equal, by `/gridbackup/member/1`.
//!
//! Here is what both ends do with a roster; `join/ask.rs` is the end that calls, `join/answer.rs` the one that is called.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use libp2p::{Multiaddr, Stream};
use proto::id::DeviceId;
use proto::wire::greeting::Refusal;
use proto::wire::grid_limits::RosterError;
use proto::wire::member::MemberMessage;
use proto::wire::roster::RosterRecords;
use proto::wire::word::AccountWord;

use super::identity;
use super::invite::Invites;
use super::members::Members;
use super::roster::{Roster, RosterFileError};
use crate::net::core::{ConnectError, Core};
use crate::net::frames;
use crate::net::frames::ReadError;
use crate::net::greet::GreetError;

mod answer;
mod ask;

/// How long a whole exchange may take: a roster is small.
const EXCHANGE_TIME: Duration = Duration::from_secs(30);

/// Joining, or meeting a member, did not work.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nobody answered.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The inviter said no; `refusal` says which no.
    #[error("The other side refused: {text}")]
    Refused {
        /// What to act on.
        refusal: Refusal,
        /// For people.
        text: String,
        /// What some account says of itself that explains it.
        word: Option<Box<AccountWord>>,
    },
    /// This home is in a grid with others already.
    #[error("This account is in another grid already: a second grid needs a second home")]
    InAnotherGrid,
    /// This device may not speak for its account.
    #[error("This device may not speak for its account: join from one that may")]
    MayNotAdmit,
    /// The other side broke the protocol, or answered for another grid.
    #[error("The other side's answer cannot be used: {reason}")]
    Answer {
        /// What is wrong.
        reason: String,
    },
    /// The roster could not be kept.
    #[error(transparent)]
    Keep(#[from] RosterFileError),
}

impl From<GreetError> for JoinError {
    fn from(error: GreetError) -> Self {
        match error {
            GreetError::Refused { refusal, text, word } => Self::Refused { refusal, text, word },
            other => Self::Answer {
                reason: other.to_string(),
            },
        }
    }
}

impl From<ReadError> for JoinError {
    fn from(error: ReadError) -> Self {
        Self::Answer {
            reason: error.to_string(),
        }
    }
}

impl From<std::io::Error> for JoinError {
    fn from(error: std::io::Error) -> Self {
        Self::Answer {
            reason: error.to_string(),
        }
    }
}

impl From<RosterError> for JoinError {
    fn from(error: RosterError) -> Self {
        Self::Answer {
            reason: error.to_string(),
        }
    }
}

/// This node as a member of its grid: what it may change of the roster, and whom it has invited.
pub struct Membership {
    /// The transport.
    pub core: Arc<Core>,
    /// The roster.
    pub members: Members,
    /// Tickets given out.
    pub invites: Invites,
    /// The account's name for people.
    pub account_name: String,
}

impl Membership {
    /// `core` sees the roster of `members`.
    pub fn new(core: Arc<Core>, members: Members, invites: Invites, account_name: String) -> Self {
        Self {
            core,
            members,
            invites,
            account_name,
        }
    }

    /// Founds a grid of one if this home is in none, and this device may. Blocks.
    pub fn found(&self) -> Result<(), RosterFileError> {
        if let Some(speaker) = self.core.speaker() {
            self.members.found(speaker, &self.account_name, self.core.now_secs())?;
        }
        Ok(())
    }

    /// Remembers where a device can be dialed.
    pub fn hint(&self, device: DeviceId, addresses: impl Iterator<Item = Multiaddr>) {
        if let Some(peer) = identity::peer_id(device) {
            addresses.for_each(|address| self.core.links.hint(peer, address));
        }
    }

    /// Takes in what a member left for others to find.
    pub async fn learn(self: &Arc<Self>, records: RosterRecords) -> Result<(), JoinError> {
        match records.grid == self.core.roster().grid() {
            true => self.merge(records).await,
            false => self.adopt(records).await,
        }
    }

    /// Says in the roster where this device is. A short command that does not listen leaves what its daemon said.
    pub async fn tell_addresses(self: &Arc<Self>) -> Result<(), JoinError> {
        let known = self.core.roster().device(self.core.device).is_some();
        let silent = self.core.announced_addresses().is_empty();
        if silent && (known || !self.core.listen.is_empty()) {
            return Ok(());
        }
        let telling = self.clone();
        blocking(move || {
            let Self { core, members, .. } = &*telling;
            members.tell_addresses(&core.device_key, &core.cert, &core.announced_addresses())
        })
        .await
    }

    async fn merge(self: &Arc<Self>, records: RosterRecords) -> Result<(), JoinError> {
        let own = self.core.cert.account;
        let before = self.core.roster();
        self.update(move |roster| roster.merge(&records)).await?;
        if let (Some(was), Some(is)) = (before.word(own), self.core.roster().word(own)) {
            let lost: Vec<String> = was.lost_in(is).map(|device| device.short()).collect();
            if !lost.is_empty() {
                tracing::warn!(
                    "The account has said something else on another machine, where it was not known that {} is revoked: it counts again \
                     until `gridbackup device revoke` says so once more",
                    lost.join(", ")
                );
            }
        }
        // Others may know a record of this device that is newer than ours: from a home that was set back.
        self.tell_addresses().await
    }

    /// Takes over the roster of another grid, if this account is a member of it and leaves nobody behind.
    async fn adopt(self: &Arc<Self>, records: RosterRecords) -> Result<(), JoinError> {
        let new = Roster::from_records(&records);
        let account = self.core.cert.account;
        if new.member(account).is_none() {
            return Err(JoinError::Answer {
                reason: "this account is not in its roster".into(),
            });
        }
        self.update(move |roster| {
            let may_leave = roster.is_alone(account);
            if roster.grid() == new.grid() {
                return roster.merge(&records);
            }
            // What this account said of itself holds in every grid: one that it has left is not taken over from a friend who has not
            // heard of that yet.
            let mut new = new;
            roster.word(account).map(|word| new.add_word(word.clone()));
            let may_adopt = may_leave && new.member(account).is_some();
            if may_adopt {
                *roster = new;
            }
            may_adopt
        })
        .await?;
        if self.core.roster().member(account).is_none() {
            return Err(JoinError::InAnotherGrid);
        }
        self.tell_addresses().await
    }

    /// Takes in what an account says of itself, if it is or was a member.
    async fn hear(self: &Arc<Self>, word: AccountWord) -> Result<(), JoinError> {
        self.update(move |roster| roster.add_word(word)).await
    }

    /// Changes the roster durably, off the threads that serve the network.
    async fn update(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Roster) -> bool + Send + 'static,
    ) -> Result<(), JoinError> {
        let changing = self.clone();
        blocking(move || changing.members.update(change)).await
    }
}

async fn blocking<F>(change: F) -> Result<(), JoinError>
where
    F: FnOnce() -> Result<bool, RosterFileError> + Send + 'static,
{
    match tokio::task::spawn_blocking(change).await {
        Ok(changed) => Ok(changed.map(drop)?),
        Err(stopped) => Err(JoinError::Answer {
            reason: stopped.to_string(),
        }),
    }
}

/// The next message of an exchange.
async fn read(stream: &mut Stream) -> Result<(MemberMessage, Bytes), JoinError> {
    frames::read(stream).await?.ok_or(JoinError::Answer {
        reason: "the stream ended early".into(),
    })
}
