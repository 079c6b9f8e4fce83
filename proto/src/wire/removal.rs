//! Removals: an account's word that another does not belong to a grid (docs/protocol/roster.md). Nobody removes itself so: that is
//! for the words (`wire::word`).
//!
//! Each is checked for itself here; whose removals count is the roster's.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::id::{AccountId, GridId};
use crate::keys::CERT_BYTES_MAX;
use crate::wire::by_device::{ByDevice, Speaker};
use crate::wire::grid_limits::{MEMBERS_MAX, RosterError};

/// Most accounts that the founder's removals are about, those taken back included (docs/protocol/roster.md, invariant 5).
pub const FOUNDER_REMOVALS_MAX: usize = 48;
/// Most votes of a member who is not the founder: who has so many takes one back before the next.
pub const VOTES_MAX: usize = 3;
/// Most members that a removal says stay.
pub const STAYING_MAX: usize = MEMBERS_MAX;
/// Most removals in a roster.
pub const REMOVALS_MAX: usize = FOUNDER_REMOVALS_MAX + VOTES_MAX * MEMBERS_MAX;
/// Most bytes of a removal.
const REMOVAL_BYTES_MAX: usize = 2 * 34 + CERT_BYTES_MAX + 72 + 16 + STAYING_MAX * 34;
/// Most bytes of all removals of a roster together.
pub const REMOVALS_BYTES_MAX: usize = REMOVALS_MAX * REMOVAL_BYTES_MAX;

const REMOVAL: &str = "gridbackup 2026 removal";

/// One account's word on another. The newest of a remover on one account is his word.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Removal {
    /// Who removes.
    #[n(0)]
    pub remover: AccountId,
    /// Who is removed.
    #[n(1)]
    pub account: AccountId,
    /// Counts up with each removal that this remover signs, whomever it is about.
    #[n(2)]
    pub seq: u64,
    /// False: the removal is taken back.
    #[n(3)]
    pub is_removed: bool,
    /// The members that the removed account had admitted, as far as the remover knows, ascending: they stay. Whoever it
    /// says later that it admitted does not count.
    #[n(4)]
    pub staying: Vec<AccountId>,
    /// The greatest number of a removal by the removed account that the remover has heard of: later ones do not count.
    #[n(5)]
    pub heard: u64,
    /// By a device of the remover over all fields above and the grid.
    #[n(6)]
    pub said: ByDevice,
}

#[derive(Encode)]
struct Word<'a> {
    #[n(0)]
    grid: GridId,
    #[n(1)]
    remover: AccountId,
    #[n(2)]
    account: AccountId,
    #[n(3)]
    seq: u64,
    #[n(4)]
    is_removed: bool,
    #[n(5)]
    staying: &'a [AccountId],
    #[n(6)]
    heard: u64,
}

impl Removal {
    /// A word on `account` that nobody has signed yet.
    pub fn of(account: AccountId, seq: u64, is_removed: bool) -> Self {
        Self {
            remover: account,
            account,
            seq,
            is_removed,
            staying: Vec::new(),
            heard: 0,
            said: ByDevice::none(),
        }
    }

    /// Signs what is in `self`, for the account of `remover`.
    #[must_use]
    pub fn signed(mut self, remover: Speaker<'_>, grid: GridId) -> Self {
        self.remover = remover.account();
        self.said = ByDevice::sign(remover, REMOVAL, &self.word(grid));
        self
    }

    /// Checks limits and signature; whether the remover may is for the caller.
    pub fn check(&self, grid: GridId) -> Result<(), RosterError> {
        if self.staying.len() > STAYING_MAX || !self.staying.is_sorted() {
            return Err(RosterError::Malformed {
                reason: "a removal whose list is too long or out of order".into(),
            });
        }
        if self.account == self.remover {
            return Err(RosterError::Malformed {
                reason: "an account that removes itself".into(),
            });
        }
        self.said.check(self.remover, REMOVAL, &self.word(grid)).map(drop)
    }

    /// Whether this is newer than `held`: by number, then signature, so that all take the same of two.
    pub fn is_newer_than(&self, held: Option<&Self>) -> bool {
        match held {
            Some(held) => (self.seq, &self.said) > (held.seq, &held.said),
            None => true,
        }
    }

    /// As it stands in a roster.
    pub fn encode(&self) -> ByteVec {
        minicbor::to_vec(self).expect("writing to memory does not fail").into()
    }

    /// Reads one of a roster.
    pub fn decode(bytes: &[u8]) -> Result<Self, RosterError> {
        minicbor::decode(bytes).map_err(|error| RosterError::Malformed {
            reason: error.to_string(),
        })
    }

    fn word(&self, grid: GridId) -> Word<'_> {
        Word {
            grid,
            remover: self.remover,
            account: self.account,
            seq: self.seq,
            is_removed: self.is_removed,
            staying: &self.staying,
            heard: self.heard,
        }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::id::DeviceId;
    use crate::keys::{DeviceCert, power};

    fn device() -> SigningKey {
        SigningKey::from_bytes(&[6; 32])
    }

    fn cert(powers: u8) -> DeviceCert {
        let id = DeviceId(device().verifying_key().to_bytes());
        DeviceCert::sign(&SigningKey::from_bytes(&[5; 32]), id, powers, "", 0)
    }

    fn removal(powers: u8, account: AccountId) -> Removal {
        let (key, cert) = (device(), cert(powers));
        let speaker = Speaker { key: &key, cert: &cert };
        let removal = Removal {
            staying: vec![AccountId([3; 32])],
            heard: 4,
            ..Removal::of(account, 1, true)
        };
        removal.signed(speaker, GridId([7; 16]))
    }

    #[test]
    fn every_field_and_the_grid_are_signed() {
        let (signed, grid) = (removal(power::ALL, AccountId([2; 32])), GridId([7; 16]));
        assert_eq!(signed.check(grid), Ok(()));
        assert_eq!(Removal::decode(&signed.encode()), Ok(signed.clone()));
        assert_eq!(signed.check(GridId([8; 16])), Err(RosterError::Signature));
        let changes: [fn(&mut Removal); 6] = [
            |removal| removal.heard += 1,
            |removal| removal.remover = AccountId([9; 32]),
            |removal| removal.account = AccountId([9; 32]),
            |removal| removal.seq += 1,
            |removal| removal.is_removed = false,
            |removal| removal.staying.clear(),
        ];
        for change in changes {
            let mut changed = signed.clone();
            change(&mut changed);
            assert_eq!(changed.check(grid), Err(RosterError::Signature));
        }
    }

    #[test]
    fn a_device_without_the_power_removes_nobody_and_nobody_removes_itself() {
        let grid = GridId([7; 16]);
        let without = power::ALL & !power::ADMIT;
        assert_eq!(
            removal(without, AccountId([2; 32])).check(grid),
            Err(RosterError::Signature)
        );
        let own = cert(power::ALL).account;
        assert!(matches!(
            removal(power::ALL, own).check(grid),
            Err(RosterError::Malformed { .. })
        ));
    }
}
