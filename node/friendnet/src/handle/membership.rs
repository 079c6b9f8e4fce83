//! What this account does to the grid's roster: removes and votes, speaks for itself, founds anew.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use proto::id::{AccountId, DeviceId};
use proto::wire::greeting::Refusal;
use proto::wire::word::AccountWord;

use super::NetHandle;
use crate::join::JoinError;
use crate::members::RemovalError;
use crate::roster::deeds::{Removed, SaidAgain};
use crate::roster::{Roster, RosterFileError};

/// How long one device may take to hear what changed. Chosen: a dial, and a roster each way.
const TELLING_TIME: Duration = Duration::from_secs(6);
/// Devices told at once: nearly all of a full grid.
const TOLD_AT_ONCE: usize = 64;

impl NetHandle {
    /// Removes an account from the grid, or votes for it; everybody is told so. Blocks.
    pub fn remove_member(&self, account: AccountId) -> Result<Removed, RemovalError> {
        let speaker = self.shared.core.speaker().ok_or(RemovalError::MayNotAdmit)?;
        self.shared.membership.members.remove(speaker, account)
    }

    /// Says what this account says of itself by its words; everybody is told so. Blocks. None: it is no news.
    pub fn say(
        &self,
        word: AccountWord,
        taken_back: &BTreeSet<AccountId>,
    ) -> Result<Option<SaidAgain>, RosterFileError> {
        let members = &self.shared.membership.members;
        members.say(self.shared.core.speaker(), word, taken_back)
    }

    /// Tells all other devices of `roster` now what the roster of this node says, as far as they answer in time. Returns the
    /// accounts of which no device has heard it. May be dropped.
    pub async fn tell(&self, roster: &Roster) -> BTreeSet<AccountId> {
        let core = &self.shared.core;
        let others: Vec<(AccountId, DeviceId)> = roster
            .devices()
            .map(|device| (device.cert.account, device.cert.device))
            .filter(|(_, device)| *device != core.device)
            .collect();
        let mut deaf: BTreeSet<AccountId> = others.iter().map(|(account, _)| *account).collect();
        let told = stream::iter(others).map(|(account, device)| async move {
            let told = tokio::time::timeout(TELLING_TIME, self.tell_one(device)).await;
            told.unwrap_or(false).then_some(account)
        });
        let heard: Vec<Option<AccountId>> = told.buffer_unordered(TOLD_AT_ONCE).collect().await;
        for account in heard.into_iter().flatten() {
            deaf.remove(&account);
        }
        deaf
    }

    async fn tell_one(&self, device: DeviceId) -> bool {
        let membership = &self.shared.membership;
        // Who hears that this account has left ends the connection, before it has answered: asked again it says so.
        for _ in 0..2 {
            match membership.exchange(device).await {
                Ok(_)
                | Err(JoinError::Refused {
                    refusal: Refusal::HasLeft,
                    ..
                }) => return true,
                Err(JoinError::Connect(_) | JoinError::Refused { .. }) => return false,
                Err(_) => {}
            }
        }
        false
    }

    /// Founds a grid of this account's own, if it is a member of none. Blocks.
    pub fn found_anew(&self) -> Result<bool, RemovalError> {
        let membership = &self.shared.membership;
        let speaker = self.shared.core.speaker().ok_or(RemovalError::MayNotAdmit)?;
        Ok(membership
            .members
            .found_anew(speaker, &membership.account_name, self.now_secs())?)
    }
}
