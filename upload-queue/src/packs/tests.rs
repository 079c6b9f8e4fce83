use database::Db;

use super::*;
use crate::fixture;
use crate::uploader::OutgoingPack;

fn peer(number: u8) -> PeerKey {
    PeerKey(format!("friend:{number}"))
}

fn known(db: &Db, pack: &OutgoingPack) -> PackRow {
    db.write::<_, DbError>(|tx| insert_known(tx, &pack.record, &pack.manifest, pack.purpose))
        .unwrap()
}

fn held(db: &Db, number: u8, shares: &[ShareId]) -> u64 {
    db.write::<_, DbError>(|tx| record_held(tx, &peer(number), shares))
        .unwrap()
}

fn read<T>(db: &Db, work: impl FnOnce(&Connection) -> Result<T, DbError>) -> T {
    db.read(work).unwrap()
}

#[test]
fn a_pack_comes_back_as_it_was_recorded_and_is_recorded_once() {
    let db = Db::in_memory(crate::schema::MIGRATIONS).unwrap();
    let pack = fixture::pack(1, 2, 3);
    let row = known(&db, &pack);
    assert_eq!(known(&db, &pack), row);
    assert_eq!(held(&db, 7, &[pack.shares[1].0]), 1);

    let found = read(&db, |conn| get(conn, row)).unwrap();
    assert_eq!(read(&db, |conn| find(conn, pack.manifest.pack)), Some(found.clone()));
    assert_eq!(found.holders, [None, Some(peer(7)), None]);
    assert_eq!(found.held(), 1);
    assert_eq!(
        (found.manifest, found.record, found.purpose),
        (pack.manifest, pack.record, pack.purpose)
    );
    assert_eq!(read(&db, rows), [row]);
    assert_eq!(read(&db, |conn| get(conn, PackRow(99))), None);
}

#[test]
fn a_pack_is_safe_when_it_survives_as_many_losses_as_asked() {
    let db = Db::in_memory(crate::schema::MIGRATIONS).unwrap();
    let pack = fixture::pack(1, 2, 4);
    let row = known(&db, &pack);
    for (number, (id, _)) in pack.shares.iter().enumerate() {
        held(&db, number as u8, &[*id]);
        assert_eq!(
            read(&db, |conn| is_safe(conn, row, 1)),
            number + 1 >= 3,
            "{} held",
            number + 1
        );
    }
    assert!(!read(&db, |conn| is_safe(conn, PackRow(99), 0)));
}

#[test]
fn health_counts_what_survives_and_the_weakest_pack() {
    let db = Db::in_memory(crate::schema::MIGRATIONS).unwrap();
    assert_eq!(read(&db, |conn| health(conn, 1)), Health::default());
    let packs: Vec<_> = (1..4).map(|seed| fixture::pack(seed, 2, 4)).collect();
    for (pack, shares) in packs.iter().zip([4, 3, 2]) {
        known(&db, pack);
        for (number, (id, _)) in pack.shares[..shares].iter().enumerate() {
            held(&db, number as u8, &[*id]);
        }
    }
    let expected = Health {
        packs: 3,
        safe: 2,
        fragile: 1,
        tolerates: Some(0),
    };
    assert_eq!(read(&db, |conn| health(conn, 1)), expected);
    db.write::<_, DbError>(|tx| record_lost(tx, &peer(0), packs[2].shares[0].0))
        .unwrap();
    let expected = Health {
        fragile: 0,
        tolerates: None,
        ..expected
    };
    assert_eq!(read(&db, |conn| health(conn, 1)), expected);
}

#[test]
fn recording_what_is_known_already_changes_nothing() {
    let db = Db::in_memory(crate::schema::MIGRATIONS).unwrap();
    let pack = fixture::pack(1, 2, 3);
    let row = known(&db, &pack);
    let id = pack.shares[0].0;
    assert_eq!(held(&db, 1, &[id, ShareId([9; 32])]), 1);
    assert_eq!(held(&db, 1, &[id]), 1);
    assert_eq!(held(&db, 2, &[id]), 1, "known, though its first holder stays");
    assert_eq!(
        read(&db, |conn| get(conn, row)).unwrap().holders,
        [Some(peer(1)), None, None]
    );
    for _ in 0..2 {
        db.write::<_, DbError>(|tx| record_lost(tx, &peer(1), id)).unwrap();
        assert_eq!(read(&db, |conn| get(conn, row)).unwrap().held(), 0);
        assert_eq!(read(&db, |conn| health(conn, 0)).tolerates, None);
    }
}

/// With k = 1 all shares of a pack are the same bytes, hence the same id.
#[test]
fn copies_with_equal_ids_are_counted_a_holder_each() {
    let db = Db::in_memory(crate::schema::MIGRATIONS).unwrap();
    let pack = fixture::pack(1, 1, 3);
    let id = pack.shares[0].0;
    assert!(pack.shares.iter().all(|(other, _)| *other == id));
    let row = known(&db, &pack);
    for _ in 0..2 {
        held(&db, 1, &[id]);
        held(&db, 2, &[id]);
    }
    assert_eq!(
        read(&db, |conn| get(conn, row)).unwrap().holders,
        [Some(peer(1)), Some(peer(2)), None]
    );
    assert!(read(&db, |conn| is_safe(conn, row, 1)));
    db.write::<_, DbError>(|tx| record_lost(tx, &peer(1), id)).unwrap();
    assert_eq!(
        read(&db, |conn| get(conn, row)).unwrap().holders,
        [None, Some(peer(2)), None]
    );
}

#[test]
fn a_peer_is_charged_the_stored_form_of_what_it_holds() {
    let db = Db::in_memory(crate::schema::MIGRATIONS).unwrap();
    let packs = [fixture::pack(1, 2, 3), fixture::pack(2, 2, 3)];
    for pack in &packs {
        known(&db, pack);
        held(&db, 1, &[pack.shares[2].0]);
    }
    let bytes = 2 * ShareSize::Small.stored_bytes() as u64;
    assert_eq!(read(&db, |conn| held_by(conn, &peer(1))), (bytes, 2));
    assert_eq!(read(&db, |conn| held_by(conn, &peer(2))), (0, 0));
}

#[test]
fn spreads_are_told_once_and_only_of_packs_that_can_be_read() {
    let db = Db::in_memory(crate::schema::MIGRATIONS).unwrap();
    for number in [1, 2] {
        let pack = fixture::pack(number, 2, 3);
        known(&db, &pack);
        for (at, (id, _)) in pack.shares.iter().enumerate() {
            held(&db, at as u8, &[*id]);
        }
    }
    let short = fixture::pack(3, 2, 3);
    known(&db, &short);
    held(&db, 7, &[short.shares[0].0]);
    let expected = Spread {
        k: 2,
        peers: (0..3).map(peer).collect(),
    };
    assert_eq!(read(&db, spreads), [expected]);
}

#[test]
fn what_a_lost_peer_held_is_forgotten_and_counts_again_when_it_lists_it() {
    let db = Db::in_memory(crate::schema::MIGRATIONS).unwrap();
    let packs: Vec<_> = (1..4).map(|seed| fixture::pack(seed, 2, 3)).collect();
    let rows: Vec<_> = packs.iter().map(|pack| known(&db, pack)).collect();
    let ids: Vec<_> = packs.iter().map(|pack| pack.shares[1].0).collect();
    held(&db, 7, &ids);
    held(&db, 8, &[packs[0].shares[0].0]);
    assert_eq!(read(&db, |conn| shares_at(conn, &peer(7))).len(), 3);
    let forgotten = db.write::<_, DbError>(|tx| forget_holder(tx, &peer(7))).unwrap();
    assert_eq!(forgotten, 3);
    assert!(read(&db, |conn| shares_at(conn, &peer(7))).is_empty());
    let counts = |db: &Db| -> Vec<usize> {
        let counted = |row: &PackRow| read(db, |conn| get(conn, *row)).unwrap().held();
        rows.iter().map(counted).collect()
    };
    assert_eq!(counts(&db), [1, 0, 0]);
    assert_eq!(
        read(&db, |conn| health(conn, 0)).fragile + read(&db, |conn| health(conn, 0)).safe,
        0
    );
    held(&db, 7, &ids);
    assert_eq!(counts(&db), [2, 1, 1]);
    assert_eq!(read(&db, |conn| health(conn, 0)).safe, 1);
}
