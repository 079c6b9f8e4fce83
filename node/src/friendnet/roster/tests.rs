use ed25519_dalek::SigningKey;
use proto::keys::power;
use proto::wire::roster::{acceptance, grid_id};

use super::*;

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn account(key: &SigningKey) -> AccountId {
    AccountId(key.verifying_key().to_bytes())
}

fn grid() -> GridId {
    grid_id(account(&key(1)), 100)
}

fn admit(admitter: u8, member: u8, secs: u64) -> MemberRecord {
    let member = key(member);
    MemberRecord::admit(
        &key(admitter),
        grid(),
        account(&member),
        "Ada",
        acceptance(&member, grid(), "Ada"),
        secs,
    )
}

fn device(account: u8, device: u8, seq: u64) -> DeviceRecord {
    let cert = DeviceCert::sign(
        &key(account),
        DeviceId(key(device).verifying_key().to_bytes()),
        power::ALL,
        "laptop",
        device.into(),
    );
    DeviceRecord::sign(&key(device), grid(), &cert, seq, &[vec![4, 127, 0, 0, 1, 6, 0, 80]])
}

fn founded() -> Roster {
    let mut roster = Roster::empty(grid());
    assert!(roster.add_member(admit(1, 1, 100)));
    roster
}

#[test]
fn only_the_account_that_the_grid_is_made_of_admits_itself() {
    let mut roster = Roster::empty(grid());
    assert!(
        !roster.add_member(admit(1, 1, 101)),
        "another founding time is another grid"
    );
    assert!(!roster.add_member(admit(2, 2, 100)));
    assert!(roster.add_member(admit(1, 1, 100)));
}

#[test]
fn a_member_counts_only_when_a_member_admitted_it() {
    let mut roster = founded();
    assert!(!roster.add_member(admit(3, 4, 200)));
    assert!(roster.add_member(admit(1, 3, 150)));
    assert!(roster.add_member(admit(3, 4, 200)));
}

#[test]
fn a_changed_record_is_left_out() {
    let mut record = admit(1, 2, 150);
    record.name = "Eve".into();
    assert!(!founded().add_member(record));
}

#[test]
fn rosters_that_met_in_any_order_are_equal() {
    let (mut left, mut right) = (founded(), founded());
    for record in [admit(1, 2, 150), admit(2, 3, 160), admit(1, 4, 190)] {
        assert!(left.add_member(record));
    }
    for record in [admit(1, 4, 180), admit(4, 5, 200), admit(5, 3, 170)] {
        right.add_member(record);
    }
    left.add_device(device(4, 40, 1));
    right.add_device(device(4, 40, 2));
    right.add_device(device(5, 50, 1));
    let (of_left, of_right) = (left.records(), right.records());
    left.merge(&of_right);
    right.merge(&of_left);
    assert_eq!(left, right);
    assert_eq!(left.members().count(), 5);
    assert!(!left.merge(&of_right), "a second time changes nothing");
    assert_eq!(
        Roster::from_records(&RosterRecords::decode(&left.records().encode()).unwrap()),
        left
    );
}

#[test]
fn the_newest_devices_of_an_account_push_out_the_oldest() {
    let mut roster = founded();
    for number in 10..10 + DEVICES_MAX as u8 + 2 {
        assert!(roster.add_device(device(1, number, 1)));
    }
    assert_eq!(roster.devices().count(), DEVICES_MAX);
    assert!(
        !roster.add_device(device(1, 10, 9)),
        "an old certificate does not come back"
    );
}

#[test]
fn a_device_of_a_stranger_is_left_out() {
    assert!(!founded().add_device(device(9, 90, 1)));
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
    assert_eq!(state_file::all_set_aside(home.path()).len(), 1);
    founded().save(&path).unwrap();
    founded().save(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(Roster::load(&path), Some(founded()));
}

#[test]
fn the_founder_removes_a_member_whose_later_word_counts_for_nothing() {
    let mut roster = founded();
    for record in [admit(1, 2, 150), admit(2, 3, 160)] {
        assert!(roster.add_member(record));
    }
    roster.add_device(device(2, 20, 1));
    assert_eq!(roster.remove_member(&key(1), account(&key(2))), Ok(true));
    assert!(roster.member(account(&key(2))).is_none());
    assert_eq!(roster.devices().count(), 0);
    assert!(roster.member(account(&key(3))).is_some(), "whom it had admitted stays");
    assert!(!roster.add_member(admit(2, 4, 120)), "however early it is dated");
    assert!(!roster.add_member(admit(2, 2, 1)));
    assert_eq!(Roster::from_records(&roster.records()), roster);
    assert!(roster.take_back(&key(1), account(&key(2))));
    assert!(roster.member(account(&key(2))).is_some());
}

#[test]
fn nobody_but_the_founder_removes_others() {
    let mut roster = founded();
    roster.add_member(admit(1, 2, 150));
    roster.add_member(admit(1, 3, 150));
    let refused = Err(standing::RemoveError::NotFounder { founder: "Ada".into() });
    assert_eq!(roster.remove_member(&key(2), account(&key(3))), refused);
    assert_eq!(roster.remove_member(&key(2), account(&key(2))), Ok(true), "but itself");
    assert_eq!(roster.members().count(), 2);
}

#[test]
fn a_lost_device_is_removed_by_its_account() {
    let mut roster = founded();
    let laptop = device(1, 10, 1).device().unwrap();
    roster.add_device(device(1, 10, 1));
    roster.add_device(device(1, 11, 1));
    assert_eq!(roster.remove_device(&key(1), laptop), Ok(true));
    assert!(roster.device(laptop).is_none());
    roster.add_device(device(1, 10, 9));
    assert!(roster.device(laptop).is_none(), "a newer record does not bring it back");
    assert_eq!(roster.devices().count(), 1);
}

#[test]
fn a_member_cannot_hide_another_by_admitting_it_anew() {
    let mut roster = founded();
    roster.add_member(admit(1, 2, 150));
    roster.add_member(admit(2, 3, 160));
    assert!(
        !roster.add_member(admit(3, 2, 0)),
        "two who admitted each other lead nowhere"
    );
    assert_eq!(roster.members().count(), 3);
}

/// What happens at one of three nodes.
#[derive(Clone, Debug)]
enum Deed {
    Admit { by: u8, whom: u8, secs: u64 },
    Remove { whom: u8 },
    TakeBack { whom: u8 },
    Move { account: u8, seq: u64 },
    Meet { other: usize },
}

fn deed() -> impl proptest::strategy::Strategy<Value = (usize, Deed)> {
    use proptest::prelude::*;
    let what = prop_oneof![
        (1..6u8, 2..7u8, 100..400u64).prop_map(|(by, whom, secs)| Deed::Admit { by, whom, secs }),
        (2..7u8).prop_map(|whom| Deed::Remove { whom }),
        (2..7u8).prop_map(|whom| Deed::TakeBack { whom }),
        (1..7u8, 1..4u64).prop_map(|(account, seq)| Deed::Move { account, seq }),
        (0..3usize).prop_map(|other| Deed::Meet { other }),
    ];
    (0..3usize, what)
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn three_rosters_become_equal_whatever_happened_and_in_whatever_order_they_meet(
        deeds in proptest::collection::vec(deed(), 0..24),
        order in proptest::prelude::any::<bool>(),
    ) {
        let mut rosters = [founded(), founded(), founded()];
        for (at, deed) in deeds {
            match deed {
                Deed::Admit { by, whom, secs } => {
                    // Who was removed admits nobody at an honest node.
                    if rosters[at].member(account(&key(by))).is_some() {
                        rosters[at].add_member(admit(by, whom, secs));
                    }
                }
                // The founder works at node 0 only, as one account on one device does.
                Deed::Remove { whom } => drop(rosters[0].remove_member(&key(1), account(&key(whom)))),
                Deed::TakeBack { whom } => drop(rosters[0].take_back(&key(1), account(&key(whom)))),
                Deed::Move { account, seq } => drop(rosters[at].add_device(device(account, account * 10, seq))),
                Deed::Meet { other } => {
                    let records = rosters[other].records();
                    rosters[at].merge(&records);
                }
            }
        }
        for _ in 0..4 {
            let pairs = if order { [(0, 1), (1, 2), (2, 0), (1, 0)] } else { [(2, 1), (0, 2), (1, 0), (2, 0)] };
            for (left, right) in pairs {
                let records = rosters[right].records();
                rosters[left].merge(&records);
                let records = rosters[left].records();
                rosters[right].merge(&records);
            }
        }
        proptest::prop_assert_eq!(&rosters[0], &rosters[1]);
        proptest::prop_assert_eq!(&rosters[1], &rosters[2]);
        let records = rosters[0].records();
        proptest::prop_assert!(!rosters[0].merge(&records), "merging is idempotent");
        proptest::prop_assert_eq!(Roster::from_records(&records), rosters[0].clone());
    }
}
