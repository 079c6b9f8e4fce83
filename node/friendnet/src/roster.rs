//! The members of a grid and their devices: which records count, how two rosters become one, and where it is kept.
//!
//! A replicated set: members may meet in any order and come to hold the same. A member counts when a chain of admissions leads to the
//! founder, nobody who may has removed it, and it has not left (`standing`); the founder is what the grid's id is made of.

use std::collections::{BTreeMap, BTreeSet};

use libp2p::Multiaddr;
use proto::id::{AccountId, DeviceId, GridId};
use proto::keys::DeviceCert;
use proto::wire::grid_limits::MEMBERS_MAX;
use proto::wire::removal::{FOUNDER_REMOVALS_MAX, Removal, VOTES_MAX};
use proto::wire::roster::{DEVICES_MAX, DeviceRecord, MemberRecord, RECORDS_MAX, RosterRecords};
use proto::wire::word::AccountWord;

use self::standing::{Place, Standing};

pub mod deeds;
mod file;
pub mod names;
mod standing;

pub use file::RosterFileError;

/// Most members by way of one whom the founder admitted, himself included. Chosen: a family or a shared flat.
pub const BRANCH_MAX: usize = 8;

/// A device of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its certificate, checked.
    pub cert: DeviceCert,
    /// The record that tells where it is.
    pub record: DeviceRecord,
}

impl Device {
    /// Where it listens, by its own word.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.record
            .addresses
            .iter()
            .filter_map(|bytes| Multiaddr::try_from(bytes.to_vec()).ok())
            .collect()
    }
}

/// A member record that was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Member {
    record: MemberRecord,
    /// The device of the admitter that signed.
    admission: DeviceCert,
}

/// A removal that was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Said {
    removal: Removal,
    /// The device of the remover that signed.
    cert: DeviceCert,
}

/// Records whose signatures hold. Whether they count is for the roster that takes them.
#[derive(Clone, Debug, Default)]
pub struct Vetted {
    members: Vec<Member>,
    devices: Vec<Device>,
    removals: Vec<Said>,
    words: Vec<AccountWord>,
}

/// The roster of one grid. Every record in it has been checked, and counts or is needed for others to count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Roster {
    grid: GridId,
    /// Of removed ones those whose admissions others came by.
    members: BTreeMap<AccountId, Member>,
    devices: BTreeMap<DeviceId, Device>,
    /// By account and remover.
    removals: BTreeMap<(AccountId, AccountId), Said>,
    words: BTreeMap<AccountId, AccountWord>,
    standing: Standing,
}

impl Roster {
    /// A roster of `grid` in which nobody is known yet.
    pub fn empty(grid: GridId) -> Self {
        Self {
            grid,
            members: BTreeMap::new(),
            devices: BTreeMap::new(),
            removals: BTreeMap::new(),
            words: BTreeMap::new(),
            standing: Standing::default(),
        }
    }

    /// The grid.
    pub fn grid(&self) -> GridId {
        self.grid
    }

    /// Members, in order of account.
    pub fn members(&self) -> impl Iterator<Item = &MemberRecord> {
        let counted = self.members.values().map(|member| &member.record);
        counted.filter(|record| self.standing.counted.contains(&record.account))
    }

    /// Devices of all members, in order of device.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values().filter(|device| self.admits(&device.cert))
    }

    /// Devices that can keep something for `own`: those of other members that say where they are. A machine that only sends never does; of
    /// a member who has no other all are.
    pub fn keepers(&self, own: AccountId) -> impl Iterator<Item = &Device> {
        let is_reachable = |device: &Device| !device.record.addresses.is_empty();
        let of_others = move || self.devices().filter(move |device| device.cert.account != own);
        let reachable: BTreeSet<AccountId> = of_others()
            .filter(|device| is_reachable(device))
            .map(|device| device.cert.account)
            .collect();
        of_others().filter(move |device| is_reachable(device) || !reachable.contains(&device.cert.account))
    }

    /// One member.
    pub fn member(&self, account: AccountId) -> Option<&MemberRecord> {
        let counts = self.standing.counted.contains(&account);
        self.members
            .get(&account)
            .filter(|_| counts)
            .map(|member| &member.record)
    }

    /// One device.
    pub fn device(&self, device: DeviceId) -> Option<&Device> {
        self.devices.get(&device).filter(|device| self.admits(&device.cert))
    }

    /// What an account said of itself last.
    pub fn word(&self, account: AccountId) -> Option<&AccountWord> {
        self.words.get(&account)
    }

    /// Whether a device may ask for anything: its account is a member and stands by its certificate.
    pub fn admits(&self, cert: &DeviceCert) -> bool {
        self.standing.counted.contains(&cert.account) && self.is_in_force(cert)
    }

    /// Whether others have removed this account.
    pub fn is_removed(&self, account: AccountId) -> bool {
        self.standing.removed.contains(&account)
    }

    /// Whether another member fits that `admitter` admits. All that came by one whom the founder admitted, himself included, are at
    /// most `BRANCH_MAX`: nobody can fill the grid with inventions of his own.
    pub fn has_room(&self, admitter: AccountId) -> bool {
        let Some(place) = self.standing.admitted.get(&admitter) else {
            return false;
        };
        // Who left may come back, and could admit meanwhile.
        let taken = || {
            let admitted = self.standing.admitted.iter();
            let stay = admitted.filter(|(account, _)| !self.standing.removed.contains(account));
            stay.map(|(_, place)| place)
        };
        let is_full = taken().count() >= MEMBERS_MAX || self.members.len() >= RECORDS_MAX;
        let is_branch_full =
            place.depth > 0 && taken().filter(|other| other.branch == place.branch).count() >= BRANCH_MAX;
        !is_full && !is_branch_full
    }

    /// Takes in one member; true if that changed anything. Records that do not count are left out.
    pub fn add_member(&mut self, record: MemberRecord) -> bool {
        vet_member(record, self.grid).is_some_and(|member| self.take_member(member) && self.tidy())
    }

    /// Takes in one device; true if that changed anything. Records that do not count are left out.
    pub fn add_device(&mut self, record: DeviceRecord) -> bool {
        vet_device(record, self.grid).is_some_and(|device| self.take_device(device))
    }

    /// Takes in one removal; true if that changed anything. Those that do not count are left out.
    pub fn add_removal(&mut self, removal: Removal) -> bool {
        vet_removal(removal, self.grid).is_some_and(|said| self.take_removal(said) && self.tidy())
    }

    /// Takes in what an account of a member says of itself; true if that changed anything.
    pub fn add_word(&mut self, word: AccountWord) -> bool {
        word.check().is_ok() && self.take_word(word) && self.tidy()
    }

    /// Goes back to a word of an account that revokes more than the one held, which was said without knowing of it; true if it does. The
    /// next word is said on top of it.
    pub fn recall_word(&mut self, word: AccountWord) -> bool {
        let held = self.words.get(&word.account);
        let is_forgotten = held.is_some() && word.revokes_more_than(held) && word.check().is_ok();
        is_forgotten && {
            self.words.insert(word.account, word);
            self.tidy()
        }
    }

    /// Merges what another member knows; true if that changed anything.
    pub fn merge(&mut self, other: &RosterRecords) -> bool {
        self.take(&self.vet(other))
    }

    /// The records of `other` whose signatures hold and that are not here already.
    pub fn vet(&self, other: &RosterRecords) -> Vetted {
        if other.grid != self.grid {
            return Vetted::default();
        }
        let is_news =
            |record: &&MemberRecord| self.members.get(&record.account).map(|held| &held.record) != Some(record);
        let members = other.members.iter().filter(is_news).cloned();
        let is_held = |record: &&DeviceRecord| self.devices.values().any(|held| held.record == **record);
        let devices = other.devices.iter().filter(|record| !is_held(record)).cloned();
        let removals = other.removals.iter().filter_map(|bytes| Removal::decode(bytes).ok());
        let words = other.words.iter().filter_map(|bytes| AccountWord::decode(bytes).ok());
        let words = words.filter(|word| word.is_newer_than(self.words.get(&word.account)));
        Vetted {
            members: members.filter_map(|record| vet_member(record, self.grid)).collect(),
            devices: devices.filter_map(|record| vet_device(record, self.grid)).collect(),
            removals: removals.filter_map(|removal| vet_removal(removal, self.grid)).collect(),
            words: words.filter(|word| word.check().is_ok()).collect(),
        }
    }

    /// Takes in what counts of some records; true if that changed anything.
    pub fn take(&mut self, vetted: &Vetted) -> bool {
        let mut changed = false;
        // A member may stand before its admitter, and a removal counts only when its remover does: go on until nothing more is
        // learned.
        for _ in 0..=RECORDS_MAX {
            let mut learned = false;
            for word in &vetted.words {
                learned |= self.take_word(word.clone());
            }
            for said in &vetted.removals {
                learned |= self.take_removal(said.clone());
            }
            if learned {
                self.recount();
            }
            for member in &vetted.members {
                learned |= self.members.get(&member.record.account) != Some(member) && self.take_member(member.clone());
            }
            changed |= learned;
            if !learned {
                break;
            }
        }
        if changed {
            self.tidy();
        }
        for device in &vetted.devices {
            changed |= self.take_device(device.clone());
        }
        changed
    }

    fn take_member(&mut self, member: Member) -> bool {
        let account = member.record.account;
        let is_founder = member.record.founds(self.grid);
        // Who founded the grid is known by the grid's id: no device of his needs to be believed for that.
        let is_believed = is_founder || (account != member.record.admitted_by && self.believes(&member));
        if !is_believed {
            return false;
        }
        if let Some(held) = self.members.get(&account) {
            return self.replace_member(held.clone(), member);
        }
        // Whoever is removed takes no place, unless somebody stays who came by it: that record may come later.
        if (self.is_removed(account) && !self.stays_needed(account))
            || !(is_founder || self.has_room(member.record.admitted_by))
        {
            return false;
        }
        self.members.insert(account, member);
        self.recount();
        let counts = self.standing.admitted.contains_key(&account);
        if !counts {
            self.members.remove(&account);
            self.recount();
        }
        counts
    }

    /// Whether a removal of an account says that somebody stays who came by it.
    fn stays_needed(&self, account: AccountId) -> bool {
        let of_account = self.removals.values().filter(|said| said.removal.account == account);
        of_account.into_iter().any(|said| !said.removal.staying.is_empty())
    }

    /// Of two admissions the shorter chain to the founder counts, then the lesser account and bytes: all take the same. Neither counts
    /// if somebody who counts would not by it.
    fn replace_member(&mut self, held: Member, member: Member) -> bool {
        let depth = |standing: &Standing, admitter| standing.admitted.get(&admitter).map(|place: &Place| place.depth);
        let order = |member: &Member| {
            let record = &member.record;
            let is_believed = record.founds(self.grid) || self.believes(member);
            let depth = depth(&self.standing, record.admitted_by).filter(|_| is_believed);
            (
                depth.unwrap_or(usize::MAX),
                record.admitted_by,
                record.admission.clone(),
                record.acceptance.clone(),
            )
        };
        if order(&member) >= order(&held) {
            return false;
        }
        let (account, before) = (held.record.account, self.clone());
        self.members.insert(account, member);
        self.recount();
        let is_loss = before
            .standing
            .counted
            .difference(&self.standing.counted)
            .next()
            .is_some();
        if is_loss || !self.standing.admitted.contains_key(&account) {
            *self = before;
            return false;
        }
        true
    }

    fn take_device(&mut self, device: Device) -> bool {
        let (account, id) = (device.cert.account, device.cert.device);
        let is_newer =
            |held: &Device| (device.record.seq, device.record.signature) > (held.record.seq, held.record.signature);
        if !self.admits(&device.cert) || self.devices.get(&id).is_some_and(|held| !is_newer(held)) {
            return false;
        }
        self.devices.insert(id, device);
        self.drop_oldest_device(account) != Some(id)
    }

    fn take_removal(&mut self, said: Said) -> bool {
        let (account, remover) = (said.removal.account, said.removal.remover);
        let is_founder = self.founder() == Some(remover);
        // What a device said counts no more once it is revoked, whatever number it gave.
        let held = self.removals.get(&(account, remover));
        let held = held
            .filter(|held| self.is_in_force(&held.cert))
            .map(|held| &held.removal);
        let may = is_founder || self.standing.voters.contains(&remover);
        let is_void = self.founder() == Some(account) || !self.is_in_force(&said.cert);
        if !may || is_void || !said.removal.is_newer_than(held) {
            return false;
        }
        let of_remover = self.removals.keys().filter(|(_, by)| *by == remover).count();
        let places = if is_founder { FOUNDER_REMOVALS_MAX } else { VOTES_MAX };
        if held.is_none() && of_remover >= places {
            return false;
        }
        self.removals.insert((account, remover), said);
        true
    }

    /// Words of members only: a stranger's takes no place.
    fn take_word(&mut self, word: AccountWord) -> bool {
        let is_known = self.members.contains_key(&word.account);
        if !is_known || !word.is_newer_than(self.words.get(&word.account)) {
            return false;
        }
        self.words.insert(word.account, word);
        true
    }

    /// Works out anew who counts.
    fn recount(&mut self) {
        self.standing = self.work_out();
    }

    /// Drops what nobody needs any more, so that rosters with the same members have the same bytes. Last of all: a word that revokes a
    /// device may come before what another device says again. True.
    fn tidy(&mut self) -> bool {
        loop {
            self.recount();
            let count = |roster: &Self| (roster.members.len(), roster.removals.len(), roster.words.len());
            let before = count(self);
            let mut removals = std::mem::take(&mut self.removals);
            removals.retain(|(_, remover), said| self.is_heard(*remover) && self.is_in_force(&said.cert));
            self.removals = removals;
            let needed = self.needed();
            self.members.retain(|account, _| needed.contains(account));
            self.words.retain(|account, _| needed.contains(account));
            if before == count(self) {
                break;
            }
        }
        let mut devices = std::mem::take(&mut self.devices);
        devices.retain(|_, device| self.admits(&device.cert));
        self.devices = devices;
        true
    }

    /// Whose records have to be known: members, whom they came by, and who left and may come back.
    fn needed(&self) -> BTreeSet<AccountId> {
        let Standing { admitted, removed, .. } = &self.standing;
        let mut needed: BTreeSet<AccountId> = admitted
            .keys()
            .filter(|account| !removed.contains(account))
            .copied()
            .collect();
        // A vote is known as one only by the record of who cast it.
        needed.extend(self.removals.keys().map(|(_, remover)| remover));
        let mut children: Vec<AccountId> = needed.iter().copied().collect();
        while let Some(child) = children.pop() {
            let Some(member) = self.members.get(&child) else {
                continue;
            };
            if needed.insert(member.record.admitted_by) {
                children.push(member.record.admitted_by);
            }
        }
        needed
    }

    /// Whether removals by this account are kept: those of who was voted out, too, since it may have said them before.
    fn is_heard(&self, remover: AccountId) -> bool {
        self.founder() == Some(remover) || self.standing.voters.contains(&remover)
    }

    /// All records, for sending and keeping.
    pub fn records(&self) -> RosterRecords {
        RosterRecords {
            version: proto::wire::VERSION,
            grid: self.grid,
            members: self.members.values().map(|member| member.record.clone()).collect(),
            devices: self.devices.values().map(|device| device.record.clone()).collect(),
            removals: self.removals.values().map(|said| said.removal.encode()).collect(),
            words: self.words.values().map(AccountWord::encode).collect(),
        }
    }

    /// BLAKE3 of the encoding: equal for equal rosters.
    pub fn digest(&self) -> [u8; 32] {
        *blake3::hash(&self.records().encode()).as_bytes()
    }

    /// A roster made of what somebody sent or kept: only what counts is in it.
    pub fn from_records(records: &RosterRecords) -> Self {
        let mut roster = Self::empty(records.grid);
        roster.merge(records);
        roster
    }

    /// A member with too many devices keeps the newest, so that recovering an account works however often it was done.
    fn drop_oldest_device(&mut self, account: AccountId) -> Option<DeviceId> {
        let of_account = || self.devices.values().filter(|device| device.cert.account == account);
        if of_account().count() <= DEVICES_MAX {
            return None;
        }
        let oldest = of_account()
            .map(|device| (device.cert.issued_secs, device.cert.device))
            .min()?
            .1;
        self.devices.remove(&oldest);
        Some(oldest)
    }
}

fn vet_member(record: MemberRecord, grid: GridId) -> Option<Member> {
    record.check(grid).ok()?;
    let admission = record.admission.decoded().ok()?;
    Some(Member { record, admission })
}

fn vet_device(record: DeviceRecord, grid: GridId) -> Option<Device> {
    let cert = record.check(grid).ok()?;
    Some(Device { cert, record })
}

fn vet_removal(removal: Removal, grid: GridId) -> Option<Said> {
    removal.check(grid).ok()?;
    let cert = removal.said.decoded().ok()?;
    Some(Said { removal, cert })
}

#[cfg(test)]
mod tests;
