//! The roster as this node holds it: in memory for everybody to see, in a file for the next start.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ed25519_dalek::SigningKey;
use libp2p::Multiaddr;
use proto::id::{AccountId, GridId};
use proto::keys::DeviceCert;
use proto::wire::by_device::Speaker;
use proto::wire::roster::{DeviceRecord, MemberRecord, grid_id};
use proto::wire::word::{AccountWord, LEFT_MAX};
use tokio::sync::watch;

use super::roster::deeds::{RemoveError, Removed, SaidAgain};
use super::roster::{Roster, RosterFileError};

/// Nobody was removed.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// The roster says no.
    #[error(transparent)]
    Refused(#[from] RemoveError),
    /// This device may not speak for its account.
    #[error("This device may not speak for its account: remove from one that may")]
    MayNotAdmit,
    /// It could not be kept.
    #[error(transparent)]
    Keep(#[from] RosterFileError),
}

/// The roster of this node. Methods that change it write a file: call them on blocking threads.
pub struct Members {
    path: PathBuf,
    /// Held while changing and saving, so that the file is never older than what is shown.
    changing: Mutex<()>,
    shown: watch::Sender<Arc<Roster>>,
}

impl Members {
    /// Reads what is kept. Without a file nobody is known, not even oneself.
    pub fn open(path: &Path) -> Self {
        let roster = Roster::load(path).unwrap_or_else(|| Roster::empty(GridId([0; 16])));
        Self {
            path: path.to_owned(),
            changing: Mutex::new(()),
            shown: watch::Sender::new(Arc::new(roster)),
        }
    }

    /// The roster now.
    pub fn roster(&self) -> Arc<Roster> {
        self.shown.borrow().clone()
    }

    /// Sees every change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Roster>> {
        self.shown.subscribe()
    }

    /// Changes the roster durably; `change` says whether it changed anything.
    pub fn update(&self, change: impl FnOnce(&mut Roster) -> bool) -> Result<bool, RosterFileError> {
        let _changing = self.changing.lock().expect("no panic while the roster is changed");
        let mut roster = Roster::clone(&self.roster());
        if !change(&mut roster) {
            return Ok(false);
        }
        roster.save(&self.path)?;
        self.shown.send_replace(Arc::new(roster));
        Ok(true)
    }

    /// Founds a grid with one member, unless there is one already that the account has not left.
    pub fn found(&self, founder: Speaker<'_>, name: &str, now_secs: u64) -> Result<bool, RosterFileError> {
        self.update(|roster| {
            let is_outside = roster.members().next().is_none() || roster.has_left(founder.account());
            is_outside && roster.found_anew(founder, name, now_secs)
        })
    }

    /// Founds a grid with one member in place of one that this account has left, or is out of.
    pub fn found_anew(&self, founder: Speaker<'_>, name: &str, now_secs: u64) -> Result<bool, RosterFileError> {
        self.update(|roster| roster.member(founder.account()).is_none() && roster.found_anew(founder, name, now_secs))
    }

    /// Removes a member, or votes for it.
    pub fn remove(&self, remover: Speaker<'_>, account: AccountId) -> Result<Removed, RemovalError> {
        let mut outcome = Ok(Removed::Already);
        self.update(|roster| {
            outcome = roster.remove_member(remover, account);
            outcome.as_ref().is_ok_and(|removed| *removed != Removed::Already)
        })?;
        Ok(outcome?)
    }

    /// Takes in what this account says of itself by its words, and removals by devices that count no more are said again by `speaker`,
    /// but for those taken back. None: it is no news.
    pub fn say(
        &self,
        speaker: Option<Speaker<'_>>,
        word: AccountWord,
        taken_back: &BTreeSet<AccountId>,
    ) -> Result<Option<SaidAgain>, RosterFileError> {
        let mut again = SaidAgain::default();
        let is_news = self.update(|roster| {
            if let Some(speaker) = speaker.filter(|speaker| word.trusts(speaker.cert)) {
                again = roster.say_again(speaker, &word, taken_back);
            }
            roster.add_word(word.clone())
        })?;
        // Said once more: the answer to the first time was lost.
        let is_said = is_news || self.roster().word(word.account) == Some(&word);
        Ok(is_said.then_some(again))
    }

    /// Says where this device is, if the roster does not say so already. True if it had to be said.
    pub fn tell_addresses(
        &self,
        device: &SigningKey,
        cert: &DeviceCert,
        addresses: &[Multiaddr],
    ) -> Result<bool, RosterFileError> {
        let addresses: Vec<_> = addresses.iter().map(Multiaddr::to_vec).collect();
        self.update(|roster| {
            let held = roster.device(cert.device);
            let next = held.map_or(1, |held| held.record.seq.saturating_add(1));
            let record = DeviceRecord::sign(device, roster.grid(), cert, next, &addresses);
            let same =
                held.is_some_and(|held| held.record.addresses == record.addresses && held.record.cert == record.cert);
            !same && roster.add_device(record)
        })
    }
}

impl Roster {
    /// Becomes a new grid with one member. What that one said of itself holds in every grid.
    fn found_anew(&mut self, founder: Speaker<'_>, name: &str, now_secs: u64) -> bool {
        let word = self.word(founder.account()).cloned();
        let has_left = |secs: &u64| {
            word.as_ref()
                .is_some_and(|word| word.left.contains(&grid_id(founder.account(), *secs)))
        };
        let mut secs = now_secs..=now_secs.saturating_add(LEFT_MAX as u64);
        let now_secs = secs.find(|secs| !has_left(secs)).unwrap_or(now_secs);
        *self = Self::empty(grid_id(founder.account(), now_secs));
        let is_founded = self.add_member(MemberRecord::found(founder, name, now_secs));
        if let Some(word) = word {
            self.add_word(word);
        }
        is_founded
    }

    /// Whether nobody but `account` is in it: it may then be left for another grid.
    pub fn is_alone(&self, account: AccountId) -> bool {
        self.members().all(|member| member.account == account)
    }
}
