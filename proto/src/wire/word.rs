//! The account's word on its own devices: which certificates count, and whether the account has left a grid
//! (docs/protocol/roster.md). Signed by the words, which no device holds: a thief cannot say it.

use ed25519_dalek::SigningKey;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::id::{AccountId, DeviceId, GridId};
use crate::keys::DeviceCert;
use crate::wire::grid_limits::{MEMBERS_MAX, RosterError};
use crate::wire::signed;

/// Most devices that a word revokes one by one; beyond, all that were certified before a time are. The list only grows when
/// a machine is lost (docs/decisions/0046-who-belongs.md).
pub const REVOKED_MAX: usize = 24;
/// Most bytes of a word.
pub const WORD_BYTES_MAX: usize = 32 + 2 * 9 + REVOKED_MAX * 34 + LEFT_MAX * 17 + MEMBERS_MAX * 34 + 66 + 20;

const WORD: &str = "gridbackup 2026 account word";

/// What an account says of itself. The one with the highest number counts.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct AccountWord {
    /// Whose word.
    #[n(0)]
    pub account: AccountId,
    /// Counts up.
    #[n(1)]
    pub seq: u64,
    /// Certificates issued before this, seconds since 1970, count for nothing. Both are written by the account itself.
    #[n(2)]
    pub since_secs: u64,
    /// Devices that count for nothing, ascending.
    #[n(3)]
    pub revoked: Vec<DeviceId>,
    /// Grids that the account has left, each once, the newest last.
    #[n(4)]
    pub left: Vec<GridId>,
    /// ed25519 by the account over all fields above.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub signature: [u8; 64],
    /// Accounts that stay members though the device that admitted them counts no more, ascending. None rather than empty.
    #[n(6)]
    pub stands_by: Option<Vec<AccountId>>,
}

#[derive(Encode)]
struct Said<'a> {
    #[n(0)]
    account: AccountId,
    #[n(1)]
    seq: u64,
    #[n(2)]
    since_secs: u64,
    #[n(3)]
    revoked: &'a [DeviceId],
    #[n(4)]
    left: &'a [GridId],
    #[n(5)]
    stands_by: Option<&'a [AccountId]>,
}

/// Most grids that an account has left and still says so, the newest (docs/protocol/roster.md).
pub const LEFT_MAX: usize = 4;

impl AccountWord {
    /// The word of an account that has said nothing yet.
    pub fn first(account: AccountId) -> Self {
        Self {
            account,
            seq: 0,
            since_secs: 0,
            revoked: Vec::new(),
            left: Vec::new(),
            signature: [0; 64],
            stands_by: None,
        }
    }

    /// Signs what is in `self`, with the words' key.
    #[must_use]
    pub fn signed(mut self, words: &SigningKey) -> Self {
        self.account = AccountId(words.verifying_key().to_bytes());
        self.signature = signed::sign(words, WORD, &self.said());
        self
    }

    /// Checks limits and signature.
    pub fn check(&self) -> Result<(), RosterError> {
        let fits_members =
            |accounts: &Vec<AccountId>| (1..=MEMBERS_MAX).contains(&accounts.len()) && accounts.is_sorted();
        let fits = self.revoked.len() <= REVOKED_MAX
            && self.left.len() <= LEFT_MAX
            && self.stands_by.as_ref().is_none_or(fits_members);
        let is_twice = |(at, grid)| self.left.iter().take(at).any(|before| before == grid);
        if !fits || !self.revoked.is_sorted() || self.left.iter().enumerate().any(is_twice) {
            return Err(RosterError::Malformed {
                reason: "an account's word whose lists are too long, out of order, or say a thing twice".into(),
            });
        }
        match signed::holds(&self.account.0, WORD, &self.said(), &self.signature) {
            true => Ok(()),
            false => Err(RosterError::Signature),
        }
    }

    /// Whether a certificate of this account counts.
    pub fn trusts(&self, cert: &DeviceCert) -> bool {
        cert.account == self.account
            && cert.issued_secs >= self.since_secs
            && self.revoked.binary_search(&cert.device).is_err()
    }

    /// Whether an account stays a member whichever device admitted it.
    pub fn stands_by(&self, account: AccountId) -> bool {
        let accounts = self.stands_by.as_ref();
        accounts.is_some_and(|accounts| accounts.binary_search(&account).is_ok())
    }

    /// Devices that this revokes by name, and `newer` does not.
    pub fn lost_in<'a>(&'a self, newer: &'a Self) -> impl Iterator<Item = &'a DeviceId> {
        self.revoked
            .iter()
            .filter(|device| newer.revoked.binary_search(device).is_err())
    }

    /// Whether some device counted by `before` that does not count any more.
    pub fn revokes_more_than(&self, before: Option<&Self>) -> bool {
        let was_trusted = |device| before.is_none_or(|before| before.revoked.binary_search(device).is_err());
        self.revoked.iter().any(was_trusted) || self.since_secs > before.map_or(0, |before| before.since_secs)
    }

    /// Whether this is newer than `held`: by number, then signature, so that all take the same of two.
    pub fn is_newer_than(&self, held: Option<&Self>) -> bool {
        match held {
            Some(held) => (self.seq, self.signature) > (held.seq, held.signature),
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

    fn said(&self) -> Said<'_> {
        Said {
            account: self.account,
            seq: self.seq,
            since_secs: self.since_secs,
            revoked: &self.revoked,
            left: &self.left,
            stands_by: self.stands_by.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::power;

    fn words() -> SigningKey {
        SigningKey::from_bytes(&[5; 32])
    }

    fn word() -> AccountWord {
        AccountWord {
            seq: 3,
            since_secs: 2,
            revoked: vec![DeviceId([1; 32]), DeviceId([2; 32])],
            left: vec![GridId([6; 16])],
            stands_by: Some(vec![AccountId([3; 32])]),
            ..AccountWord::first(AccountId([0; 32]))
        }
        .signed(&words())
    }

    #[test]
    fn every_field_is_signed_and_only_by_the_words() {
        assert_eq!(word().check(), Ok(()));
        assert_eq!(AccountWord::decode(&word().encode()), Ok(word()));
        let changes: [fn(&mut AccountWord); 6] = [
            |word| word.account = AccountId([9; 32]),
            |word| word.seq += 1,
            |word| word.since_secs += 1,
            |word| word.revoked.truncate(1),
            |word| word.left.clear(),
            |word| word.stands_by = None,
        ];
        for change in changes {
            let mut changed = word();
            change(&mut changed);
            assert_eq!(changed.check(), Err(RosterError::Signature));
        }
    }

    #[test]
    fn lists_have_limits() {
        let many = AccountWord {
            revoked: (0..=REVOKED_MAX as u8).map(|id| DeviceId([id; 32])).collect(),
            ..word()
        };
        let wild = AccountWord {
            revoked: vec![DeviceId([2; 32]), DeviceId([1; 32])],
            ..word()
        };
        let friends = |count: u8| AccountWord {
            stands_by: Some((0..count).map(|id| AccountId([id; 32])).collect()),
            ..word()
        };
        assert!(friends(MEMBERS_MAX as u8).signed(&words()).check().is_ok());
        for bad in [many, wild, friends(0), friends(MEMBERS_MAX as u8 + 1)] {
            assert!(matches!(
                bad.signed(&words()).check(),
                Err(RosterError::Malformed { .. })
            ));
        }
    }

    #[test]
    fn devices_certified_too_early_and_revoked_ones_count_for_nothing() {
        let cert = |device, secs| DeviceCert::sign(&words(), DeviceId([device; 32]), power::ALL, "", secs);
        let trusted = [(7, 2), (7, 3), (7, 1), (1, 2), (2, 9)].map(|(device, secs)| word().trusts(&cert(device, secs)));
        assert_eq!(trusted, [true, true, false, false, false]);
        let other = DeviceCert::sign(&SigningKey::from_bytes(&[6; 32]), DeviceId([7; 32]), power::ALL, "", 2);
        assert!(!word().trusts(&other));
    }
}
