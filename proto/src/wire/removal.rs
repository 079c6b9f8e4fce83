//! Removals: signed records that an account, or one device of it, no longer belongs to a grid (docs/protocol/roster.md).
//!
//! Each is checked for itself here; whose removals count is the roster's.

use ed25519_dalek::SigningKey;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::id::{AccountId, DeviceId, GridId};
use crate::wire::roster::{MEMBERS_MAX, RosterError};
use crate::wire::signed;

/// Most removals in a roster, counting those taken back.
pub const REMOVALS_MAX: usize = 64;
/// Most bytes of all removals of a roster together.
pub const REMOVALS_BYTES_MAX: usize = 24 * 1024;

const REMOVAL: &str = "gridbackup 2026 removal";

/// One account's word on another, or on one of its own devices. The newest of a remover on one subject is his word.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Removal {
    /// Who removes.
    #[n(0)]
    pub remover: AccountId,
    /// Who is removed, or whose device.
    #[n(1)]
    pub account: AccountId,
    /// Only this device of the account; none: the account with all its devices.
    #[n(2)]
    pub device: Option<DeviceId>,
    /// Counts up with each word of this remover on this subject.
    #[n(3)]
    pub seq: u64,
    /// False: the removal is taken back.
    #[n(4)]
    pub is_removed: bool,
    /// The members that the removed account had admitted, as far as the remover knows, ascending: they stay. Whoever it
    /// says later that it admitted does not count.
    #[n(5)]
    pub admitted: Vec<AccountId>,
    /// ed25519 by the remover over all fields above and the grid.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub signature: [u8; 64],
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
    device: Option<DeviceId>,
    #[n(4)]
    seq: u64,
    #[n(5)]
    is_removed: bool,
    #[n(6)]
    admitted: &'a [AccountId],
}

impl Removal {
    /// Signs what is in `self`; `remover` and `signature` are set.
    #[must_use]
    pub fn signed(mut self, remover: &SigningKey, grid: GridId) -> Self {
        self.remover = AccountId(remover.verifying_key().to_bytes());
        self.signature = signed::sign(remover, REMOVAL, &self.word(grid));
        self
    }

    /// Checks limits and signature; whether the remover may is for the caller.
    pub fn check(&self, grid: GridId) -> Result<(), RosterError> {
        if self.admitted.len() > MEMBERS_MAX || !self.admitted.is_sorted() {
            return Err(RosterError::Malformed {
                reason: "a removal whose list is too long or out of order".into(),
            });
        }
        if self.device.is_some() && self.account != self.remover {
            return Err(RosterError::Malformed {
                reason: "a removal of somebody else's device".into(),
            });
        }
        if signed::holds(&self.remover.0, REMOVAL, &self.word(grid), &self.signature) {
            Ok(())
        } else {
            Err(RosterError::Signature)
        }
    }

    /// What it is about, and by whom: of two with the same subject one counts.
    pub fn subject(&self) -> (AccountId, AccountId, Option<DeviceId>) {
        (self.account, self.remover, self.device)
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
            device: self.device,
            seq: self.seq,
            is_removed: self.is_removed,
            admitted: &self.admitted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removal() -> Removal {
        Removal {
            remover: AccountId([0; 32]),
            account: AccountId([2; 32]),
            device: None,
            seq: 1,
            is_removed: true,
            admitted: vec![AccountId([3; 32])],
            signature: [0; 64],
        }
    }

    #[test]
    fn every_field_and_the_grid_are_signed() {
        let (key, grid) = (SigningKey::from_bytes(&[5; 32]), GridId([7; 16]));
        let signed = removal().signed(&key, grid);
        assert_eq!(signed.check(grid), Ok(()));
        assert_eq!(Removal::decode(&signed.encode()), Ok(signed.clone()));
        assert_eq!(signed.check(GridId([8; 16])), Err(RosterError::Signature));
        let changes: [fn(&mut Removal); 5] = [
            |removal| removal.remover = AccountId([9; 32]),
            |removal| removal.account = AccountId([9; 32]),
            |removal| removal.seq += 1,
            |removal| removal.is_removed = false,
            |removal| removal.admitted.clear(),
        ];
        for change in changes {
            let mut changed = signed.clone();
            change(&mut changed);
            assert_eq!(changed.check(grid), Err(RosterError::Signature));
        }
    }

    #[test]
    fn nobody_removes_a_device_of_somebody_else() {
        let (key, grid) = (SigningKey::from_bytes(&[5; 32]), GridId([7; 16]));
        let mut other = removal();
        other.device = Some(DeviceId([4; 32]));
        assert!(matches!(
            other.signed(&key, grid).check(grid),
            Err(RosterError::Malformed { .. })
        ));
    }
}
