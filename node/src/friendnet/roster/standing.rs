//! Who counts: chains of admissions, and removals.
//!
//! The founder removes members; an account removes itself and its own devices. Nobody else can: a stolen key of one friend
//! must not throw out the others. What a removed account signs later counts for nothing.

use ed25519_dalek::SigningKey;
use proto::id::{AccountId, DeviceId};
use proto::keys::DeviceCert;
use proto::wire::removal::{REMOVALS_BYTES_MAX, REMOVALS_MAX, Removal};
use proto::wire::roster::{MEMBERS_MAX, MemberRecord};

use super::Roster;

/// Somebody cannot be removed.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum RemoveError {
    /// Only the founder removes others.
    #[error("Only {founder}, who founded the grid, can remove members of it")]
    NotFounder {
        /// The founder's name.
        founder: String,
    },
    /// The founder stays, or the roster holds no more removals.
    #[error("The roster can take no more removals: found a new grid")]
    Full,
}

impl Roster {
    /// Takes in one removal; true if that changed anything. Those that do not count are left out.
    pub fn add_removal(&mut self, removal: Removal) -> bool {
        let allowed = removal.remover == removal.account || self.is_founder(removal.remover);
        if !allowed || removal.check(self.grid).is_err() {
            return false;
        }
        let subject = removal.subject();
        match self.removals.get(&subject) {
            Some(held) if (held.seq, held.signature) >= (removal.seq, removal.signature) => return false,
            Some(_) => {}
            None if self.removals.len() >= REMOVALS_MAX => return false,
            None => {}
        }
        let before = self.removals.insert(subject, removal);
        let bytes: usize = self.removals.values().map(|removal| removal.encode().len()).sum();
        if bytes <= REMOVALS_BYTES_MAX {
            self.forget_unvouched();
            return true;
        }
        match before {
            Some(before) => self.removals.insert(subject, before),
            None => self.removals.remove(&subject),
        };
        false
    }

    /// Removes an account for good: it is refused from now on, and by all whom this roster reaches. False if it was so
    /// already.
    pub fn remove_member(&mut self, remover: &SigningKey, account: AccountId) -> Result<bool, RemoveError> {
        let own = AccountId(remover.verifying_key().to_bytes());
        if own != account && !self.is_founder(own) {
            let mut all = self.members.values();
            let founder = all.find(|member| member.founds(self.grid));
            return Err(RemoveError::NotFounder {
                founder: founder.map_or_else(String::new, |founder| founder.name.clone()),
            });
        }
        if self.is_removed(account) {
            return Ok(false);
        }
        self.say(remover, (account, own, None), true)
    }

    /// Removes a device of the remover's own account.
    pub fn remove_device(&mut self, remover: &SigningKey, device: DeviceId) -> Result<bool, RemoveError> {
        let own = AccountId(remover.verifying_key().to_bytes());
        if self.is_device_removed(own, device) {
            return Ok(false);
        }
        self.say(remover, (own, own, Some(device)), true)
    }

    /// Takes a removal of an account by this remover back; false if there is none.
    pub fn take_back(&mut self, remover: &SigningKey, account: AccountId) -> bool {
        let own = AccountId(remover.verifying_key().to_bytes());
        let subject = (account, own, None);
        let stands = self.removals.get(&subject).is_some_and(|removal| removal.is_removed);
        stands && self.say(remover, subject, false).unwrap_or(false)
    }

    /// Whether this remover's word alone keeps the account out.
    pub fn may_take_back(&self, remover: AccountId, account: AccountId) -> bool {
        self.removals_of(account).all(|removal| removal.remover == remover)
    }

    /// Whether a device may ask for anything: its account is a member and has not removed it.
    pub fn admits(&self, cert: &DeviceCert) -> bool {
        self.member(cert.account).is_some() && !self.is_device_removed(cert.account, cert.device)
    }

    /// Whether a removal of this account counts.
    pub fn is_removed(&self, account: AccountId) -> bool {
        self.removals_of(account).next().is_some()
    }

    /// Whether a member counts: it is not removed, and its admissions lead to the founder by way of accounts that
    /// were members, and knew it, when they were removed.
    pub(super) fn counts(&self, record: &MemberRecord) -> bool {
        !self.is_removed(record.account) && self.is_admitted(record)
    }

    /// Whether admissions lead to the founder.
    pub(super) fn is_admitted(&self, record: &MemberRecord) -> bool {
        let mut child = record;
        for _ in 0..=MEMBERS_MAX {
            if child.founds(self.grid) {
                return true;
            }
            let Some(parent) = self.members.get(&child.admitted_by) else {
                return false;
            };
            // Two who admitted each other lead nowhere.
            let leads_back = parent.account == record.account;
            let mut removals = self.removals_of(parent.account);
            if leads_back || removals.any(|removal| removal.admitted.binary_search(&child.account).is_err()) {
                return false;
            }
            child = parent;
        }
        false
    }

    /// Whether the account has removed this device of its own.
    pub fn is_device_removed(&self, account: AccountId, device: DeviceId) -> bool {
        let removal = self.removals.get(&(account, account, Some(device)));
        removal.is_some_and(|removal| removal.is_removed)
    }

    /// Drops the records of those that nobody vouches for any more: whoever hears of them only now does not keep them
    /// either, and rosters with the same members must have the same bytes.
    fn forget_unvouched(&mut self) {
        loop {
            let unvouched: Vec<_> = self
                .members
                .values()
                .filter(|member| !self.is_admitted(member))
                .map(|member| member.account)
                .collect();
            if unvouched.is_empty() {
                break;
            }
            self.members.retain(|account, _| !unvouched.contains(account));
        }
        self.devices
            .retain(|_, device| self.members.contains_key(&device.cert.account));
    }

    fn removals_of(&self, account: AccountId) -> impl Iterator<Item = &Removal> {
        let of_account = self
            .removals
            .range((account, AccountId([0; 32]), None)..)
            .take_while(move |(subject, _)| subject.0 == account);
        of_account
            .map(|(_, removal)| removal)
            .filter(|removal| removal.device.is_none() && removal.is_removed)
    }

    fn is_founder(&self, account: AccountId) -> bool {
        self.members
            .get(&account)
            .is_some_and(|member| member.founds(self.grid))
    }

    fn say(
        &mut self,
        remover: &SigningKey,
        subject: (AccountId, AccountId, Option<DeviceId>),
        is_removed: bool,
    ) -> Result<bool, RemoveError> {
        let (account, own, device) = subject;
        let admitted = self.members.values();
        let admitted = admitted.filter(|member| member.admitted_by == account && member.account != account);
        let removal = Removal {
            remover: own,
            account,
            device,
            seq: self.removals.get(&subject).map_or(1, |held| held.seq + 1),
            is_removed,
            admitted: match (is_removed, device) {
                (true, None) => admitted.map(|member| member.account).collect(),
                _ => Vec::new(),
            },
            signature: [0; 64],
        };
        if self.add_removal(removal.signed(remover, self.grid)) {
            Ok(true)
        } else {
            Err(RemoveError::Full)
        }
    }
}
