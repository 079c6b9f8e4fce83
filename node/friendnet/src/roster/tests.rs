use ed25519_dalek::SigningKey;
use proto::keys::power;
use proto::wire::by_device::Speaker;
use proto::wire::roster::{acceptance, grid_id};

use super::deeds::{RemoveError, Removed, SaidAgain};
use super::*;

mod hostile;

/// An account with a device.
pub(super) struct Who {
    words: SigningKey,
    key: SigningKey,
    cert: DeviceCert,
}

impl Who {
    pub(super) fn speaker(&self) -> Speaker<'_> {
        Speaker {
            key: &self.key,
            cert: &self.cert,
        }
    }

    pub(super) fn account(&self) -> AccountId {
        self.cert.account
    }

    fn device(&self) -> DeviceId {
        self.cert.device
    }

    /// Another device of the same account.
    fn again(&self, device: u8) -> Who {
        who_with(self.words.clone(), device)
    }
}

fn who_with(words: SigningKey, device: u8) -> Who {
    let key = SigningKey::from_bytes(&[device; 32]);
    let id = DeviceId(key.verifying_key().to_bytes());
    let cert = DeviceCert::sign(&words, id, power::ALL, "laptop", device.into());
    Who { words, key, cert }
}

pub(super) fn who(number: u8) -> Who {
    who_with(SigningKey::from_bytes(&[number; 32]), 100 + number)
}

pub(super) fn grid() -> GridId {
    grid_id(who(1).account(), 100)
}

pub(super) fn admission(admitter: &Who, member: &Who) -> MemberRecord {
    let accepted = acceptance(member.speaker(), grid(), "Ada", admitter.device());
    MemberRecord::admit(admitter.speaker(), grid(), member.account(), "Ada", accepted)
}

fn admit(admitter: u8, member: u8) -> MemberRecord {
    admission(&who(admitter), &who(member))
}

fn device(who: &Who, seq: u64) -> DeviceRecord {
    DeviceRecord::sign(&who.key, grid(), &who.cert, seq, &[vec![4, 127, 0, 0, 1, 6, 0, 80]])
}

pub(super) fn founded() -> Roster {
    let mut roster = Roster::empty(grid());
    assert!(roster.add_member(MemberRecord::found(who(1).speaker(), "Ada", 100)));
    roster
}

/// A grid with these admissions.
fn with(admissions: &[(u8, u8)]) -> Roster {
    let mut roster = founded();
    for (by, whom) in admissions {
        assert!(roster.add_member(admit(*by, *whom)), "{by} admits {whom}");
    }
    roster
}

fn members(roster: &Roster) -> Vec<u8> {
    let number = |account| (1..40).find(|number| who(*number).account() == account).unwrap_or(0);
    let mut members: Vec<u8> = roster.members().map(|member| number(member.account)).collect();
    members.sort_unstable();
    members
}

#[test]
fn only_the_account_that_the_grid_is_made_of_founds_it() {
    let mut roster = Roster::empty(grid());
    let other_time = MemberRecord::found(who(1).speaker(), "Ada", 101);
    assert!(!roster.add_member(other_time), "another founding time is another grid");
    assert!(!roster.add_member(MemberRecord::found(who(2).speaker(), "Ada", 100)));
    assert!(roster.add_member(MemberRecord::found(who(1).speaker(), "Ada", 100)));
}

#[test]
fn a_member_counts_only_when_a_member_admitted_it() {
    let mut roster = founded();
    assert!(!roster.add_member(admit(3, 4)));
    assert!(roster.add_member(admit(1, 3)));
    assert!(roster.add_member(admit(3, 4)));
    let mut changed = admit(1, 2);
    changed.name = "Eve".into();
    assert!(!roster.add_member(changed));
    assert_eq!(members(&roster), [1, 3, 4]);
}

#[test]
fn a_device_without_the_power_admits_nobody() {
    let weak = Who {
        cert: DeviceCert::sign(&who(1).words, who(1).device(), power::PUT_ONLY, "", 1),
        ..who(1)
    };
    assert!(!founded().add_member(admission(&weak, &who(2))));
}

#[test]
fn the_shorter_chain_counts_whoever_is_heard_first_and_nobody_is_hidden_by_being_admitted_again() {
    let mut one = with(&[(1, 2), (1, 3), (3, 4)]);
    let mut other = with(&[(1, 2), (1, 3), (2, 4)]);
    let (of_one, of_other) = (one.records(), other.records());
    one.merge(&of_other);
    other.merge(&of_one);
    assert_eq!(one, other);
    assert!(!one.add_member(admit(4, 2)), "a longer chain");
    assert!(!one.add_member(admit(4, 3)), "two who admitted each other lead nowhere");
    assert_eq!(members(&one), [1, 2, 3, 4]);
}

/// One ordinary member admitted everybody anew, dated to the beginning of time, and left: it took all with it.
#[test]
fn who_leaves_takes_nobody_along() {
    let mut roster = with(&[(1, 2), (1, 3), (2, 4), (2, 5)]);
    for whom in [3, 4, 5] {
        roster.add_member(admit(2, whom));
    }
    let mut word = roster.next_word(who(2).account());
    deeds::leave(&mut word, grid(), true);
    assert!(roster.add_word(word.signed(&who(2).words)));
    assert_eq!(members(&roster), [1, 3, 4, 5]);
    assert!(!roster.admits(&who(2).cert));
    // It comes back by its own words.
    let mut word = roster.next_word(who(2).account());
    deeds::leave(&mut word, grid(), false);
    assert!(roster.add_word(word.signed(&who(2).words)));
    assert_eq!(members(&roster), [1, 2, 3, 4, 5]);
}

#[test]
fn a_device_cannot_say_that_its_account_leaves() {
    let mut roster = with(&[(1, 2)]);
    let mut word = roster.next_word(who(2).account());
    deeds::leave(&mut word, grid(), true);
    let mut forged = word.signed(&who(2).key);
    forged.account = who(2).account();
    assert!(!roster.add_word(forged));
    assert_eq!(
        roster.remove_member(who(2).speaker(), who(2).account()),
        Err(RemoveError::Own)
    );
    assert_eq!(members(&roster), [1, 2]);
}

#[test]
fn the_founder_removes_a_member_whose_later_word_counts_for_nothing() {
    let mut roster = with(&[(1, 2), (2, 3)]);
    roster.add_device(device(&who(2), 1));
    assert_eq!(
        roster.remove_member(who(1).speaker(), who(2).account()),
        Ok(Removed::Out)
    );
    assert_eq!(members(&roster), [1, 3], "whom it had admitted stays");
    assert_eq!(roster.devices().count(), 0);
    assert!(!roster.add_member(admit(2, 4)));
    assert!(!roster.add_member(admit(1, 2)), "the record of before");
    assert_eq!(Roster::from_records(&roster.records()), roster);
    let mut late = founded();
    late.add_member(admit(1, 2));
    late.merge(&roster.records());
    assert_eq!(late, roster);
    assert!(roster.take_back(who(1).speaker(), who(2).account()));
    roster.add_member(admit(1, 2));
    assert_eq!(members(&roster), [1, 2, 3]);
}

#[test]
fn more_than_half_of_those_whom_the_founder_admitted_remove_a_member_but_not_the_founder() {
    let mut roster = with(&[(1, 2), (1, 3), (1, 4), (1, 5), (5, 6)]);
    let no_vote = RemoveError::NoVote { founder: "Ada".into() };
    assert_eq!(roster.remove_member(who(6).speaker(), who(2).account()), Err(no_vote));
    // Of 1, 3, 4 and 5 three have to say so.
    for (voter, lacking) in [(3, 2), (4, 1)] {
        let said = roster.remove_member(who(voter).speaker(), who(2).account());
        assert_eq!(said, Ok(Removed::Voted { lacking }));
    }
    assert_eq!(members(&roster), [1, 2, 3, 4, 5, 6]);
    assert_eq!(
        roster.remove_member(who(5).speaker(), who(2).account()),
        Ok(Removed::Out)
    );
    for voter in [3, 4, 5] {
        let said = roster.remove_member(who(voter).speaker(), who(1).account());
        assert_eq!(said, Err(RemoveError::Founder { founder: "Ada".into() }));
        let vote = Removal::of(who(1).account(), 9, true).signed(who(voter).speaker(), grid());
        assert!(!roster.add_removal(vote));
    }
    // The founder is gone for good: the grid goes on without it.
    assert_eq!(members(&roster), [1, 3, 4, 5, 6]);
    assert!(roster.add_member(admit(3, 7)), "new friends are invited");
    assert_eq!(Roster::from_records(&roster.records()), roster);
}

#[test]
fn nobody_fills_the_grid_with_inventions() {
    let mut roster = with(&[(1, 2), (1, 3)]);
    let admitted = (10..40).filter(|whom| roster.add_member(admit(2, *whom))).count();
    assert_eq!(admitted, BRANCH_MAX - 1);
    let deeper = (10..40).filter(|whom| roster.add_member(admit(10, *whom))).count();
    assert_eq!(deeper, 0, "nor do the inventions");
    assert!(roster.add_member(admit(1, 4)) && roster.add_member(admit(3, 5)));
    // Removed ones take no place.
    roster.remove_member(who(1).speaker(), who(2).account()).unwrap();
    for whom in 10..17 {
        roster.remove_member(who(1).speaker(), who(whom).account()).unwrap();
    }
    assert_eq!(members(&roster), [1, 3, 4, 5]);
    assert_eq!(roster.records().members.len(), 4);
}

#[test]
fn votes_of_one_member_take_no_place_of_others() {
    let mut roster = with(&[(1, 2), (1, 3)]);
    let taken = (10..40).filter(|whom| roster.remove_member(who(2).speaker(), who(*whom).account()).is_ok());
    assert_eq!(taken.count(), VOTES_MAX);
    assert_eq!(
        roster.remove_member(who(1).speaker(), who(2).account()),
        Ok(Removed::Out)
    );
}

#[test]
fn a_revoked_device_counts_for_nothing_and_what_it_had_said_is_said_again() {
    let (lost, kept) = (who(1), who(1).again(90));
    let mut roster = with(&[(1, 2), (2, 3), (1, 4)]);
    roster.remove_member(lost.speaker(), who(4).account()).unwrap();
    roster.add_device(device(&lost, 1));
    roster.add_device(device(&kept, 1));
    let before = roster.clone();
    let mut word = roster.next_word(lost.account());
    assert!(deeds::revoke(&mut word, lost.device()));
    roster.stand_by(&mut word, &BTreeSet::new());
    let again = roster.say_again(kept.speaker(), &word, &BTreeSet::new());
    let told = SaidAgain {
        removed: vec![who(4).account()],
        ..SaidAgain::default()
    };
    assert_eq!(again, told);
    let word = word.signed(&lost.words);
    // The word alone is heard first, from a friend who has no more: nobody is out by it but whom the account put out.
    let mut told_the_word = before.clone();
    assert!(told_the_word.add_word(word.clone()));
    assert!([1, 2, 3].iter().all(|one| members(&told_the_word).contains(one)));
    assert!(roster.add_word(word));
    assert_eq!(members(&roster), [1, 2, 3]);
    assert!(!roster.admits(&lost.cert) && roster.admits(&kept.cert));
    assert!(roster.device(lost.device()).is_none());
    assert!(
        !roster.add_device(device(&lost, 9)),
        "a newer record does not bring it back"
    );
    assert!(
        !roster.add_member(admission(&lost, &who(5))),
        "nor does it admit anybody"
    );
    // Whoever hears of it comes to the same.
    let mut other = before;
    other.merge(&roster.records());
    assert_eq!(other, roster);
    assert_eq!(Roster::from_records(&roster.records()), roster);
}

/// A thief's removal with the last of all numbers left the account none to say anything else with.
#[test]
fn no_number_that_a_device_signs_outlives_it() {
    let (mut here, mut there) = (with(&[(1, 2), (1, 3), (1, 4)]), with(&[(1, 2), (1, 3), (1, 4)]));
    let (stolen, other) = (who(1), who(1).again(50));
    for seq in [u64::MAX - 1, u64::MAX] {
        let said = Removal::of(who(3).account(), seq, true).signed(stolen.speaker(), grid());
        assert!(here.add_removal(said.clone()) && there.add_removal(said));
        assert!(here.add_device(device(&stolen, seq)), "and its address");
    }
    // Another device of the account goes on, whatever the stolen one counted to.
    let mut word = here.next_word(stolen.account());
    assert!(deeds::revoke(&mut word, stolen.device()));
    here.say_again(other.speaker(), &word, &BTreeSet::new());
    assert!(here.add_word(word.signed(&stolen.words)));
    assert!(
        here.removal_seq(stolen.account(), who(3).account())
            .is_some_and(|seq| seq < 10)
    );
    assert!(here.take_back(other.speaker(), who(3).account()));
    assert_eq!(here.remove_member(other.speaker(), who(4).account()), Ok(Removed::Out));
    there.merge(&here.records());
    assert_eq!(there, here, "and everybody hears it");
    // The last number of a word is the account's own doing, and no other than that one number is lost.
    let last = AccountWord {
        seq: u64::MAX,
        ..here.next_word(stolen.account())
    };
    assert!(here.add_word(last.signed(&stolen.words)));
    assert_eq!(here.next_word(stolen.account()).seq, u64::MAX);
    assert!(here.add_device(device(&other, u64::MAX)) && !here.add_device(device(&other, 0)));
}

/// A node that reads its roster anew, or is told it as a whole, comes to the same: also with votes of one who is out.
#[test]
fn votes_of_who_is_out_are_kept_with_who_cast_them_or_not_at_all() {
    let mut roster = with(&[(1, 2), (1, 3), (1, 4), (1, 5), (1, 6)]);
    let out = |roster: &mut Roster, by: u8, whom: u8| roster.remove_member(who(by).speaker(), who(whom).account());
    assert!(out(&mut roster, 3, 6).is_ok());
    for by in [2, 4, 5] {
        assert!(out(&mut roster, by, 3).is_ok());
    }
    assert!(roster.is_removed(who(3).account()), "by a majority");
    assert_eq!(Roster::from_records(&roster.records()), roster);
    // What it had said before counts: with two more it is a majority of five without the removed one.
    assert!(out(&mut roster, 2, 6).is_ok());
    assert!(out(&mut roster, 4, 6).is_ok());
    assert_eq!(Roster::from_records(&roster.records()), roster);
    // By the founder: then none of its votes counts, and none is kept.
    let mut roster = with(&[(1, 2), (1, 3), (1, 4)]);
    assert!(out(&mut roster, 3, 4).is_ok());
    assert_eq!(out(&mut roster, 1, 3), Ok(Removed::Out));
    assert_eq!(roster.removals_by(who(3).account()), []);
    assert_eq!(Roster::from_records(&roster.records()), roster);
}

#[test]
fn who_left_keeps_the_place_of_a_branch() {
    let branch: Vec<(u8, u8)> = (10..17).map(|child| (2, child)).collect();
    let mut roster = with(&[&[(1, 2)], &branch[..]].concat());
    assert!(!roster.has_room(who(2).account()));
    let mut word = roster.next_word(who(2).account());
    deeds::leave(&mut word, roster.grid(), true);
    assert!(roster.add_word(word.signed(&who(2).words)));
    assert!(!roster.add_member(admit(2, 20)) && !roster.add_member(admit(10, 21)));
}

#[test]
fn a_vote_of_a_revoked_device_that_decides_nothing_is_not_said_again() {
    let (lost, kept) = (who(2), who(2).again(90));
    let mut roster = with(&[(1, 2), (1, 3), (1, 4)]);
    let voted = roster.remove_member(lost.speaker(), who(4).account());
    assert!(matches!(voted, Ok(Removed::Voted { .. })), "{voted:?}");
    let mut word = roster.next_word(lost.account());
    assert!(deeds::revoke(&mut word, lost.device()));
    let again = roster.say_again(kept.speaker(), &word, &BTreeSet::new());
    assert_eq!(again.votes_dropped, [who(4).account()]);
    assert!(roster.add_word(word.signed(&lost.words)));
    assert_eq!(roster.removals_by(lost.account()), []);
}

fn sorted(who: impl IntoIterator<Item = u8>) -> Vec<AccountId> {
    let accounts: BTreeSet<AccountId> = who.into_iter().map(|one| self::who(one).account()).collect();
    accounts.into_iter().collect()
}

/// What its words stood by they may put out later, and take back who was removed: with the last of all numbers, too.
#[test]
fn what_was_said_again_can_still_be_disowned() {
    let (stolen, kept) = (who(1), who(1).again(90));
    let mut roster = with(&[(1, 2), (1, 3), (3, 5)]);
    let said = Removal::of(who(2).account(), 1 << 62, true).signed(stolen.speaker(), grid());
    assert!(roster.add_removal(said));
    let mut word = roster.next_word(stolen.account());
    assert!(deeds::revoke(&mut word, stolen.device()));
    roster.stand_by(&mut word, &BTreeSet::new());
    let again = roster.say_again(kept.speaker(), &word, &BTreeSet::new());
    assert_eq!(again.removed, [who(2).account()]);
    assert!(roster.add_word(word.signed(&stolen.words)));
    assert_eq!(members(&roster), [1, 3, 5]);
    let mut word = roster.next_word(stolen.account());
    let (out, back) = (BTreeSet::from([who(3).account()]), BTreeSet::from([who(2).account()]));
    roster.stand_by(&mut word, &out);
    let again = roster.say_again(kept.speaker(), &word, &back);
    assert_eq!(again.taken_back, [who(2).account()]);
    assert!(roster.add_word(word.signed(&stolen.words)));
    assert_eq!(members(&roster), [1], "and whom 3 admitted");
    assert!(roster.add_member(admission(&kept, &who(2))));
    assert_eq!(members(&roster), [1, 2]);
    assert_eq!(Roster::from_records(&roster.records()), roster);
}

/// Thirty inventions that have left by their own words filled a roster that nobody could read any more: a revocation was lost with it.
#[test]
fn inventions_that_have_left_fill_no_roster_and_come_back_with_nobody_s_word() {
    let (stolen, kept) = (who(1), who(1).again(90));
    let mut roster = with(&[(1, 2)]);
    let mut left = Vec::new();
    for invention in 5..39 {
        if roster.add_member(admit(1, invention)) {
            let mut word = roster.next_word(who(invention).account());
            deeds::leave(&mut word, grid(), true);
            assert!(roster.add_word(word.signed(&who(invention).words)));
            left.push(invention);
        }
    }
    assert_eq!(left.len(), MEMBERS_MAX - 2, "who left may come back, and keeps a place");
    assert!(!roster.has_room(stolen.account()));
    let child = left[0] + 100;
    assert!(!roster.add_member(admission(&who(left[0]), &who(child))));
    let mut word = roster.next_word(stolen.account());
    assert!(deeds::revoke(&mut word, stolen.device()));
    roster.stand_by(&mut word, &BTreeSet::new());
    assert_eq!(word.stands_by, Some(vec![who(2).account()]));
    roster.say_again(kept.speaker(), &word, &BTreeSet::new());
    assert!(roster.add_word(word.signed(&stolen.words)));
    assert_eq!(RosterRecords::decode(&roster.records().encode()), Ok(roster.records()));
    let mut word = roster.next_word(who(left[0]).account());
    deeds::leave(&mut word, grid(), false);
    roster.add_word(word.signed(&who(left[0]).words));
    assert_eq!(members(&roster), [1, 2]);
    // By whom it stood in another grid it stands still.
    let mut word = founded().next_word(stolen.account());
    word.stands_by = Some(sorted([2, 3]));
    founded().stand_by(&mut word, &BTreeSet::from([who(3).account()]));
    assert_eq!(word.stands_by, Some(sorted([2])));
}

/// A thief with the founder's machine makes electors, who outvote friends; and fills the founder's places with removals.
#[test]
fn whom_a_stolen_machine_of_the_founder_let_in_is_out_with_it_and_so_are_their_votes() {
    let (stolen, kept) = (who(1), who(1).again(90));
    let mut roster = with(&[(1, 2), (1, 3), (2, 4)]);
    let fakes = 20..28;
    for fake in fakes.clone() {
        assert!(roster.add_member(admit(1, fake)) && roster.add_member(admit(fake, fake + 10)));
    }
    for fake in fakes.clone() {
        let voted = roster.remove_member(who(fake).speaker(), who(2).account());
        assert!(voted.is_ok());
    }
    assert!(roster.is_removed(who(2).account()) && roster.member(who(1).account()).is_some());
    for invented in 0..FOUNDER_REMOVALS_MAX as u8 {
        let said = Removal::of(AccountId([invented; 32]), invented.into(), true);
        roster.add_removal(said.signed(stolen.speaker(), grid()));
    }
    let mut word = roster.next_word(stolen.account());
    assert!(deeds::revoke(&mut word, stolen.device()));
    let own = stolen.account();
    let put_out: BTreeSet<AccountId> = fakes.clone().map(|fake| who(fake).account()).collect();
    assert!(put_out.is_subset(&roster.admitted_by_revoked(own, &word)));
    let taken_back = roster.removed_by_revoked(own, &word);
    roster.stand_by(&mut word, &put_out);
    assert_eq!(word.stands_by, Some(sorted([2, 3])));
    let again = roster.say_again(kept.speaker(), &word, &taken_back);
    assert_eq!(again.removed, []);
    assert!(roster.add_word(word.signed(&stolen.words)));
    assert_eq!(members(&roster), [1, 2, 3, 4], "the votes count no more");
    assert!(fakes.clone().all(|fake| !roster.add_member(admit(1, fake))));
    assert_eq!(roster.remove_member(kept.speaker(), who(3).account()), Ok(Removed::Out));
    assert_eq!(Roster::from_records(&roster.records()), roster);
}

#[test]
fn names_that_several_bear_are_shown_with_digits_of_the_account() {
    let mut roster = founded();
    let like_an_id = who(4).account().to_string()[..8].to_owned();
    for (of, name) in [
        (2, "bob"),
        (3, "Bob "),
        (4, "cleo"),
        (5, like_an_id.as_str()),
        (6, "c\u{200b}leo"),
        (7, "сlеo"),
        (8, "dan  friend"),
    ] {
        let (admitter, member) = (who(1), who(of));
        let accepted = acceptance(member.speaker(), roster.grid(), name, admitter.device());
        let record = MemberRecord::admit(admitter.speaker(), roster.grid(), member.account(), name, accepted);
        assert!(roster.add_member(record));
    }
    let digits = |of: u8| who(of).account().to_string()[..8].to_owned();
    assert_eq!(roster.name_of(who(4).account()), format!("cleo~{}", digits(4)));
    assert_eq!(
        roster.name_of(who(6).account()),
        format!("cleo~{}", digits(6)),
        "one character is not seen"
    );
    assert_eq!(
        roster.name_of(who(7).account()),
        format!("сlеo~{}", digits(7)),
        "two are Cyrillic"
    );
    assert_eq!(roster.name_of(who(8).account()), format!("dan friend~{}", digits(8)));
    assert_eq!(roster.name_of(who(2).account()), format!("bob~{}", digits(2)));
    assert_eq!(roster.name_of(who(3).account()), format!("Bob~{}", digits(3)));
    assert_eq!(roster.accounts_called("cleo"), [who(4).account()]);
    assert_eq!(
        roster.accounts_called(&format!("bob~{}", digits(2))),
        [who(2).account()]
    );
    assert_eq!(roster.accounts_called(&digits(3)), [who(3).account()]);
    assert_eq!(roster.accounts_called("bob"), [who(2).account()]);
    assert!(roster.accounts_called("dora").is_empty());
    assert_eq!(roster.name_of(who(5).account()), format!("{like_an_id}~{}", digits(5)));
    assert_eq!(
        roster.accounts_called(&like_an_id),
        [who(4).account()],
        "not who calls itself so"
    );
}

#[test]
fn of_the_grids_left_the_oldest_is_forgotten_first() {
    let grids: Vec<GridId> = (0..6).rev().map(|number| GridId([number; 16])).collect();
    let mut word = founded().next_word(who(1).account());
    for grid in &grids {
        deeds::leave(&mut word, *grid, true);
    }
    assert_eq!(word.left, grids[2..]);
    assert!(word.signed(&who(1).words).check().is_ok());
}

#[test]
fn certificates_from_before_a_time_count_for_nothing() {
    let mut roster = founded();
    roster.add_device(device(&who(1), 1));
    let mut word = roster.next_word(who(1).account());
    word.since_secs = 150;
    assert!(roster.add_word(word.signed(&who(1).words)));
    assert!(!roster.admits(&who(1).cert) && roster.admits(&who(1).again(180).cert));
}

#[test]
fn the_newest_devices_of_an_account_push_out_the_oldest() {
    let mut roster = founded();
    for number in 10..10 + DEVICES_MAX as u8 + 2 {
        assert!(roster.add_device(device(&who(1).again(number), 1)));
    }
    assert_eq!(roster.devices().count(), DEVICES_MAX);
    let old = device(&who(1).again(10), 9);
    assert!(!roster.add_device(old), "an old certificate does not come back");
    assert!(!roster.add_device(device(&who(9), 1)), "nor is a stranger's taken");
}

#[test]
fn a_damaged_roster_is_set_aside_and_the_one_before_it_read() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("roster");
    assert!(Roster::load(&path).is_none());
    founded().save(&path).unwrap();
    assert_eq!(Roster::load(&path), Some(founded()));
    std::fs::write(&path, b"?").unwrap();
    assert!(Roster::load(&path).is_none());
    assert_eq!(durable::state_file::all_set_aside(home.path()).len(), 1);
    founded().save(&path).unwrap();
    founded().save(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(Roster::load(&path), Some(founded()));
}
