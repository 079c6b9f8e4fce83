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
fn a_damaged_roster_file_is_named_and_not_replaced() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("roster");
    assert!(Roster::load(&path).unwrap().is_none());
    founded().save(&path).unwrap();
    assert_eq!(Roster::load(&path).unwrap(), Some(founded()));
    std::fs::write(&path, b"?").unwrap();
    assert!(matches!(Roster::load(&path), Err(RosterFileError::Damaged { .. })));
}
