//! What an account does to the roster: found, admit, remove, speak for itself.

use std::collections::BTreeSet;

use proto::id::{AccountId, DeviceId};
use proto::wire::by_device::Speaker;
use proto::wire::grid_limits::MEMBERS_MAX;
use proto::wire::removal::Removal;
use proto::wire::word::{AccountWord, LEFT_MAX, REVOKED_MAX};

use super::Roster;

/// The greatest number of a removal from which another is counted on. Chosen: nobody comes there by counting. One beyond is a thief's,
/// who would leave his victim no number to speak with.
const SEQ_MAX: u64 = 1 << 62;

/// Somebody cannot be removed.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum RemoveError {
    /// Only the founder and those whom it admitted itself are heard.
    #[error("Only {founder}, who founded the grid, and members whom {founder} admitted can remove members of it")]
    NoVote {
        /// The founder's name.
        founder: String,
    },
    /// Nobody removes the founder.
    #[error("{founder} founded the grid: nobody can remove the founder from it")]
    Founder {
        /// The founder's name.
        founder: String,
    },
    /// Nobody removes itself with a device.
    #[error("This is your own account: leave the grid with `gridbackup leave` and your words")]
    Own,
    /// The roster holds no more removals of this remover.
    #[error("You can remove no more members: take another removal back first")]
    Full,
}

/// What a removal came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// The account is out.
    Out,
    /// It was said before.
    Already,
    /// A vote; so many more are needed.
    Voted {
        /// Electors who have to say the same.
        lacking: usize,
    },
}

/// What became of the removals of a device that is revoked, by the account that they were about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SaidAgain {
    /// It had removed them, or its vote was needed for that: they stay out.
    pub removed: Vec<AccountId>,
    /// It had removed them: they may come back.
    pub taken_back: Vec<AccountId>,
    /// It had voted against them, and they are in: the vote was not said again.
    pub votes_dropped: Vec<AccountId>,
}

impl Roster {
    /// Says that an account does not belong to the grid: the founder's word, or a vote.
    pub fn remove_member(&mut self, remover: Speaker<'_>, account: AccountId) -> Result<Removed, RemoveError> {
        let own = remover.account();
        if own == account {
            return Err(RemoveError::Own);
        }
        if !self.standing.electors.contains(&own) {
            return Err(RemoveError::NoVote {
                founder: self.founder_name(),
            });
        }
        if self.founder() == Some(account) {
            return Err(RemoveError::Founder {
                founder: self.founder_name(),
            });
        }
        if self.is_removed(account) {
            return Ok(Removed::Already);
        }
        let held = self.removals.get(&(account, own));
        if held.is_none_or(|held| !held.removal.is_removed) && !self.say(remover, account, true) {
            return Err(RemoveError::Full);
        }
        Ok(match self.is_removed(account) {
            true => Removed::Out,
            false => Removed::Voted {
                lacking: self.votes_lacking(account),
            },
        })
    }

    /// Takes this remover's removal of an account back; false if there is none.
    pub fn take_back(&mut self, remover: Speaker<'_>, account: AccountId) -> bool {
        let held = self.removals.get(&(account, remover.account()));
        held.is_some_and(|held| held.removal.is_removed) && self.say(remover, account, false)
    }

    /// Whether this remover's word alone keeps the account out.
    pub fn may_take_back(&self, remover: AccountId, account: AccountId) -> bool {
        let mut without = self.clone();
        without.removals.remove(&(account, remover));
        !without.work_out().removed.contains(&account)
    }

    /// The number of this remover's removal of an account, if it stands.
    pub fn removal_seq(&self, remover: AccountId, account: AccountId) -> Option<u64> {
        let held = self.removals.get(&(account, remover)).map(|said| &said.removal);
        held.filter(|removal| removal.is_removed).map(|removal| removal.seq)
    }

    /// All accounts that this remover's word keeps out, with its number.
    pub fn removals_by(&self, remover: AccountId) -> Vec<(AccountId, u64)> {
        let removals = self.removals.values().map(|said| &said.removal);
        let own = removals.filter(|removal| removal.remover == remover && removal.is_removed);
        own.map(|removal| (removal.account, removal.seq)).collect()
    }

    /// Whom devices of an account have admitted that `word` revokes.
    pub fn admitted_by_revoked(&self, own: AccountId, word: &AccountWord) -> BTreeSet<AccountId> {
        let of_own = self.members.values().filter(|member| member.record.admitted_by == own);
        let of_revoked = of_own.filter(|member| member.record.account != own && !word.trusts(&member.admission));
        of_revoked.map(|member| member.record.account).collect()
    }

    /// Whom devices of an account have removed, or voted against, that `word` revokes.
    pub fn removed_by_revoked(&self, own: AccountId, word: &AccountWord) -> BTreeSet<AccountId> {
        let of_own = self.valid_removals().filter(|said| said.removal.remover == own);
        let of_revoked = of_own.filter(|said| !word.trusts(&said.cert));
        of_revoked.map(|said| said.removal.account).collect()
    }

    /// Those of whom members came by, themselves first.
    pub fn carriers(&self) -> BTreeSet<AccountId> {
        let mut carriers = BTreeSet::new();
        for member in self.members() {
            let mut next = Some(member.account);
            while let Some(account) = next.filter(|account| carriers.insert(*account)) {
                next = self.members.get(&account).map(|above| above.record.admitted_by);
            }
        }
        carriers
    }

    /// Says in a word that those stay whom devices had admitted that it revokes, but for those in `out`: members, and whom members came by.
    /// Others have left, and may come back with a ticket. By whom the account stood before it still does: it may be of another grid.
    pub fn stand_by(&self, word: &mut AccountWord, out: &BTreeSet<AccountId>) {
        let (mut admitted, carriers) = (self.admitted_by_revoked(word.account, word), self.carriers());
        admitted.retain(|account| carriers.contains(account));
        let is_elsewhere = |account: &AccountId| !self.members.contains_key(account);
        admitted.extend(word.stands_by.iter().flatten().copied().filter(is_elsewhere));
        let mut staying: Vec<AccountId> = admitted.difference(out).copied().collect();
        // Those of other grids last: they make room.
        staying.sort_by_key(|account| (is_elsewhere(account), *account));
        staying.truncate(MEMBERS_MAX);
        staying.sort_unstable();
        word.stands_by = (!staying.is_empty()).then_some(staying);
    }

    /// Signs anew, with this device, the removals that devices of its account have said that `word` revokes, and that count; but for
    /// those `taken_back`, whoever said them. Whether a thief has said them, nobody knows but the account: it is told what.
    pub fn say_again(
        &mut self,
        speaker: Speaker<'_>,
        word: &AccountWord,
        taken_back: &BTreeSet<AccountId>,
    ) -> SaidAgain {
        let (own, grid) = (speaker.account(), self.grid);
        let mut again = SaidAgain::default();
        let own_removals = || self.removals.values().filter(|said| said.removal.remover == own);
        let trusted = own_removals().filter(|said| word.trusts(&said.cert) && said.removal.seq <= SEQ_MAX);
        // Whatever a revoked device counted to: what it said is void, and the first number is newer.
        let mut seq = trusted.map(|said| said.removal.seq).max().unwrap_or(0);
        let said: Vec<super::Said> = own_removals().filter(|said| said.removal.is_removed).cloned().collect();
        for super::Said { removal, cert } in said {
            let (is_revoked, is_out) = (!word.trusts(&cert), self.is_removed(removal.account));
            let is_taken_back = taken_back.contains(&removal.account);
            match (is_taken_back, is_revoked) {
                (true, _) if is_out => again.taken_back.push(removal.account),
                (_, true) if !is_out => again.votes_dropped.push(removal.account),
                (_, true) => again.removed.push(removal.account),
                _ => {}
            }
            let is_said_again = match is_taken_back {
                true => !is_revoked,
                false => is_revoked && is_out,
            };
            if !is_said_again {
                continue;
            }
            seq = seq.saturating_add(1);
            let staying = if is_taken_back { Vec::new() } else { removal.staying };
            let removal = Removal {
                seq,
                is_removed: !is_taken_back,
                staying,
                ..removal
            };
            let removal = removal.signed(speaker, grid);
            let said = super::Said {
                cert: speaker.cert.clone(),
                removal,
            };
            self.removals.insert((said.removal.account, own), said);
        }
        self.tidy();
        again
    }

    /// The word that an account says next, to be changed and signed by its words.
    pub fn next_word(&self, account: AccountId) -> AccountWord {
        let held = self.words.get(&account).cloned();
        let mut word = held.unwrap_or_else(|| AccountWord::first(account));
        word.seq = word.seq.saturating_add(1);
        word
    }

    /// How many more electors have to say that an account is out.
    fn votes_lacking(&self, account: AccountId) -> usize {
        let electors = self
            .standing
            .electors
            .iter()
            .filter(|elector| **elector != account)
            .count();
        let votes = self.removals.values().filter(|said| {
            let removal = &said.removal;
            removal.account == account && removal.is_removed && self.standing.electors.contains(&removal.remover)
        });
        (electors / 2 + 1).saturating_sub(votes.count())
    }

    fn founder_name(&self) -> String {
        let founder = self.founder().and_then(|founder| self.members.get(&founder));
        founder.map_or_else(|| "the founder".to_owned(), |founder| founder.record.name.clone())
    }

    fn greatest_seq(&self, remover: AccountId) -> u64 {
        let removals = self.removals.values().map(|said| &said.removal);
        let seqs = removals.filter(|removal| removal.remover == remover && removal.seq <= SEQ_MAX);
        seqs.map(|removal| removal.seq).max().unwrap_or(0)
    }

    fn say(&mut self, remover: Speaker<'_>, account: AccountId, is_removed: bool) -> bool {
        let members = self.members.values().map(|member| &member.record);
        let staying = members.filter(|record| record.admitted_by == account && record.account != account);
        let removal = Removal {
            staying: match is_removed {
                true => staying.map(|record| record.account).collect(),
                false => Vec::new(),
            },
            heard: self.greatest_seq(account),
            ..Removal::of(
                account,
                self.greatest_seq(remover.account()).saturating_add(1),
                is_removed,
            )
        };
        self.add_removal(removal.signed(remover, self.grid))
    }
}

/// Revokes a device in a word; false if it holds no more, and the epoch has to go up.
pub fn revoke(word: &mut AccountWord, device: DeviceId) -> bool {
    if let Err(at) = word.revoked.binary_search(&device) {
        if word.revoked.len() >= REVOKED_MAX {
            return false;
        }
        word.revoked.insert(at, device);
    }
    true
}

/// Says in a word that the account has left a grid, or belongs to it again.
pub fn leave(word: &mut AccountWord, grid: proto::id::GridId, has_left: bool) {
    word.left.retain(|left| *left != grid);
    if has_left {
        let too_many = (word.left.len() + 1).saturating_sub(LEFT_MAX);
        word.left.drain(..too_many);
        word.left.push(grid);
    }
}
