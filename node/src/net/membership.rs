//! What this account does to the grid's roster: removes and votes, speaks for itself, founds anew.

use proto::id::AccountId;
use proto::wire::word::AccountWord;

use super::NetHandle;
use crate::friendnet::members::RemovalError;
use crate::friendnet::roster::RosterFileError;
use crate::friendnet::roster::deeds::Removed;

impl NetHandle {
    /// Removes an account from the grid, or votes for it; everybody is told so. Blocks.
    pub fn remove_member(&self, account: AccountId) -> Result<Removed, RemovalError> {
        let core = &self.shared.core;
        let speaker = core.speaker().ok_or(RemovalError::MayNotAdmit)?;
        core.members.remove(speaker, account)
    }

    /// Says what this account says of itself by its words; everybody is told so. Blocks. True if it was news.
    pub fn say(&self, word: AccountWord) -> Result<bool, RosterFileError> {
        let core = &self.shared.core;
        core.members.say(core.speaker(), word)
    }

    /// Founds a grid of this account's own, if it is a member of none. Blocks.
    pub fn found_anew(&self) -> Result<bool, RemovalError> {
        let core = &self.shared.core;
        let speaker = core.speaker().ok_or(RemovalError::MayNotAdmit)?;
        Ok(core.members.found_anew(speaker, &core.account_name, core.now_secs())?)
    }
}
