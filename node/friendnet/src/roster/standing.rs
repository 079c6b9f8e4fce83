//! Who counts: chains of admissions that lead to the founder, removals, and what accounts say of themselves.
//!
//! - An account's own word, signed by its words, binds the account only: which of its devices count, and whether it has left.
//! - The founder removes members. So does a majority of the electors: the founder and those whom it admitted itself, without the one
//!   in question. A grid outlives its founder thereby, and whoever admits inventions of its own gets no vote by it.
//! - Nobody removes the founder: who has its machine makes as many electors as he likes, and its words must find a way in.
//! - Whoever is removed takes nobody along whom the removers say stay. What it signs later counts for nothing: neither those
//!   whom it admits then nor its votes.
//!
//! A pure function of the records, whatever their order.

use std::collections::{BTreeMap, BTreeSet};

use proto::id::AccountId;
use proto::keys::DeviceCert;

use super::{Member, Roster, Said};

/// What the records come to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Standing {
    /// Accounts with a chain of admissions that lead to the founder, removed ones too, each with its branch: the member
    /// of the founder's own admission that it came by. The founder is its own.
    pub(super) admitted: BTreeMap<AccountId, Place>,
    /// Members.
    pub(super) counted: BTreeSet<AccountId>,
    /// Accounts that others removed.
    pub(super) removed: BTreeSet<AccountId>,
    /// Those whose votes are heard.
    pub(super) electors: BTreeSet<AccountId>,
    /// Those, and who was voted out: what it had said before still counts.
    pub(super) voters: BTreeSet<AccountId>,
}

/// Where an account stands in the tree of admissions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// Admissions between it and the founder.
    pub(super) depth: usize,
    /// The account of the founder's own admission above it, or itself.
    pub(super) branch: AccountId,
}

impl Roster {
    /// Works out who counts.
    pub(super) fn work_out(&self) -> Standing {
        let Some(founder) = self.founder() else {
            return Standing::default();
        };
        let electors = self.electors(founder);
        let by_founder: BTreeMap<AccountId, u64> = self
            .valid_removals()
            .filter(|said| said.removal.remover == founder)
            .map(|said| (said.removal.account, said.removal.heard))
            .collect();
        let base: BTreeSet<AccountId> = electors
            .into_iter()
            .filter(|elector| !by_founder.contains_key(elector))
            .collect();
        let mut removed = self.voted_out(&base);
        removed.extend(by_founder);
        let admitted = self.admitted(founder, &removed);
        let counts = |account: &&AccountId| !removed.contains_key(account) && !self.has_left(**account);
        Standing {
            counted: admitted.keys().filter(counts).copied().collect(),
            electors: base
                .iter()
                .filter(|elector| !removed.contains_key(elector))
                .copied()
                .collect(),
            voters: base,
            removed: removed.into_keys().collect(),
            admitted,
        }
    }

    /// The founder, if its record is known: the grid's id says who that is.
    pub(super) fn founder(&self) -> Option<AccountId> {
        let mut members = self.members.values();
        members
            .find(|member| member.record.founds(self.grid))
            .map(|member| member.record.account)
    }

    /// Whether the account of a certificate, member or not, has not revoked it as far as is known.
    pub fn is_in_force(&self, cert: &DeviceCert) -> bool {
        self.words.get(&cert.account).is_none_or(|word| word.trusts(cert))
    }

    /// Whether an admission counts: its account stands by the device that signed it, or by whom it admitted.
    pub(super) fn believes(&self, member: &Member) -> bool {
        let word = self.words.get(&member.record.admitted_by);
        self.is_in_force(&member.admission) || word.is_some_and(|word| word.stands_by(member.record.account))
    }

    /// Whether an account has left the grid by its own word.
    pub fn has_left(&self, account: AccountId) -> bool {
        self.words
            .get(&account)
            .is_some_and(|word| word.left.contains(&self.grid))
    }

    /// The founder and those whom it admitted itself.
    fn electors(&self, founder: AccountId) -> BTreeSet<AccountId> {
        let own = self.members.values().filter(|member| {
            member.record.admitted_by == founder
                && (member.record.account == founder || self.believes(member))
                && !self.has_left(member.record.account)
        });
        own.map(|member| member.record.account).collect()
    }

    pub(super) fn valid_removals(&self) -> impl Iterator<Item = &Said> {
        self.removals
            .values()
            .filter(|said| said.removal.is_removed && self.is_in_force(&said.cert))
    }

    /// Whom votes remove, with the greatest number of a word of theirs that was heard before.
    fn voted_out(&self, base: &BTreeSet<AccountId>) -> BTreeMap<AccountId, u64> {
        // First with all votes; then without those that somebody cast who is out by then.
        let first = self.majorities(base, &BTreeMap::new());
        self.majorities(base, &first)
    }

    /// Who more than half of the electors want out, without counting what those in `out` said after they were heard last.
    fn majorities(&self, base: &BTreeSet<AccountId>, out: &BTreeMap<AccountId, u64>) -> BTreeMap<AccountId, u64> {
        let mut votes: BTreeMap<AccountId, (usize, u64)> = BTreeMap::new();
        for said in self.valid_removals() {
            let (voter, account) = (said.removal.remover, said.removal.account);
            let is_heard = out.get(&voter).is_none_or(|until| said.removal.seq <= *until);
            if base.contains(&voter) && is_heard {
                let (count, heard) = votes.entry(account).or_default();
                *count += 1;
                *heard = (*heard).max(said.removal.heard);
            }
        }
        let electors = |account: &AccountId| base.len() - usize::from(base.contains(account));
        votes.retain(|account, (count, _)| {
            2 * *count > electors(account) && (out.is_empty() || out.contains_key(account))
        });
        votes
            .into_iter()
            .map(|(account, (_, heard))| (account, heard))
            .collect()
    }

    /// All whose admissions lead to the founder by way of accounts that were members when they were heard last.
    fn admitted(&self, founder: AccountId, removed: &BTreeMap<AccountId, u64>) -> BTreeMap<AccountId, Place> {
        let mut children: BTreeMap<AccountId, Vec<AccountId>> = BTreeMap::new();
        for member in self.members.values().filter(|member| self.believes(member)) {
            let (account, admitter) = (member.record.account, member.record.admitted_by);
            if account != founder {
                children.entry(admitter).or_default().push(account);
            }
        }
        let mut admitted = BTreeMap::from([(
            founder,
            Place {
                depth: 0,
                branch: founder,
            },
        )]);
        let mut next = vec![founder];
        while let Some(parent) = next.pop() {
            let place = admitted[&parent];
            for child in children.remove(&parent).unwrap_or_default() {
                if removed.contains_key(&parent) && !self.stays(parent, child) {
                    continue;
                }
                let branch = if parent == founder { child } else { place.branch };
                let depth = place.depth + 1;
                admitted.insert(child, Place { depth, branch });
                next.push(child);
            }
        }
        admitted
    }

    /// Whether those who removed `parent` say that `child` stays: the founder, or else any of the voters.
    fn stays(&self, parent: AccountId, child: AccountId) -> bool {
        let of_parent: Vec<&Said> = self
            .valid_removals()
            .filter(|said| said.removal.account == parent)
            .collect();
        let is_founders = |said: &&&Said| Some(said.removal.remover) == self.founder();
        let lists = |said: &&Said| said.removal.staying.binary_search(&child).is_ok();
        match of_parent.iter().find(is_founders) {
            Some(founders) => lists(founders),
            None => of_parent.iter().any(lists),
        }
    }
}
