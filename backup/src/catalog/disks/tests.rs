use std::collections::HashSet;

use database::Db;
use proto::id::{AccountId, PackId, ShareId};
use proto::keys::WRAPPED_KEY_BYTES;
use proto::manifest::Manifest;
use proto::shape::{PackShape, ShareSize};
use upload_queue::peers::PeerKey;

use super::*;
use crate::catalog::MIGRATIONS;

const VOLUME: VolumeBytes = [1; 16];

fn record(number: u8) -> PackRecord {
    let shape = PackShape {
        k: 2,
        n: 3,
        share: ShareSize::Small,
    };
    let shares = (0..3)
        .map(|share| ShareId([number.wrapping_mul(3) + share; 32]))
        .collect();
    let device = ed25519_dalek::SigningKey::from_bytes(&[3; 32]);
    let manifest = Manifest::sign(PackId([number; 32]), shape, shares, AccountId([1; 32]), &device);
    PackRecord {
        manifest: manifest.encode(),
        wrapped_key: [0; WRAPPED_KEY_BYTES],
    }
}

fn hold(db: &Db, records: &[PackRecord]) {
    let shares: Vec<ShareId> = records
        .iter()
        .flat_map(|record| Manifest::decode(&record.manifest).unwrap().shares)
        .collect();
    let held = db.write(|tx| packs::record_held(tx, &PeerKey("dir:/a".into()), &shares));
    held.unwrap();
}

fn counted(db: &Db) -> (u64, usize) {
    db.read::<_, DbError>(|conn| {
        let lost = packs::lost(conn, Purpose::Disk)?.len();
        Ok((packs::health(conn, 1)?.packs, lost))
    })
    .unwrap()
}

/// The machine that took the disk over gave packs up: they were lost packs here.
#[test]
fn packs_of_a_disk_that_another_machine_writes_are_not_counted_and_are_learned_again() {
    let db = Db::in_memory(MIGRATIONS).unwrap();
    let records: Vec<PackRecord> = (1..=3).map(record).collect();
    let learned = db.write::<_, DbError>(|tx| {
        set_here(tx, VOLUME)?;
        learn(tx, VOLUME, &records)
    });
    assert_eq!(learned.unwrap(), 3);
    assert_eq!(counted(&db), (3, 3), "nobody is known to have anything");
    hold(&db, &records);
    assert_eq!(counted(&db), (3, 0));
    assert_eq!(db.read(|conn| is_here(conn, VOLUME)).unwrap(), Some(true));

    assert_eq!(db.write(|tx| set_elsewhere(tx, VOLUME)).unwrap(), 0);
    assert_eq!(counted(&db), (0, 0));
    assert_eq!(db.read(|conn| is_here(conn, VOLUME)).unwrap(), Some(false));
    assert!(db.read(|conn| packs_of(conn, VOLUME)).unwrap().is_empty());

    assert_eq!(db.write(|tx| learn(tx, VOLUME, &records[1..])).unwrap(), 2);
    hold(&db, &records);
    assert_eq!(counted(&db), (2, 0));
    assert_eq!(db.write(|tx| learn(tx, VOLUME, &records)).unwrap(), 1, "two were known");
}

#[test]
fn a_pack_of_which_a_share_is_on_its_way_is_forgotten_when_that_has_arrived() {
    let db = Db::in_memory(MIGRATIONS).unwrap();
    db.write(|tx| learn(tx, VOLUME, &[record(1), record(2)])).unwrap();
    let spool = |spooled: bool| {
        db.write::<_, DbError>(|tx| {
            tx.execute("UPDATE share SET spooled = ?1 WHERE pack = 1 AND idx = 0", [spooled])?;
            Ok(())
        })
        .unwrap();
    };
    spool(true);
    assert_eq!(db.write(|tx| set_elsewhere(tx, VOLUME)).unwrap(), 1);
    assert_eq!(counted(&db).0, 1);
    spool(false);
    assert_eq!(db.write(|tx| set_elsewhere(tx, VOLUME)).unwrap(), 0);
    assert_eq!(counted(&db).0, 0);
}

#[test]
fn what_no_table_names_is_told_by_disk_and_what_was_given_up_is_not() {
    let db = Db::in_memory(MIGRATIONS).unwrap();
    db.write::<_, DbError>(|tx| {
        learn(tx, VOLUME, &[record(1), record(2), record(3)])?;
        learn(tx, [2; 16], &[record(4)])?;
        packs::set_dead(tx, &[PackRow(3)], 1)
    })
    .unwrap();
    let named = HashSet::from([PackId([1; 32])]);
    let unnamed = db.read(|conn| unnamed(conn, VOLUME, &named)).unwrap();
    assert_eq!(unnamed, [PackRow(2)]);
    let all: HashSet<PackRow> = (1..=5).map(PackRow).collect();
    let of = db.read(|conn| volumes_of(conn, &all)).unwrap();
    assert_eq!(of.into_iter().collect::<Vec<_>>(), [(VOLUME, 3), ([2; 16], 1)]);
}
