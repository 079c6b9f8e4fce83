//! The inventory against a plain map, and what it refuses.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn open(dir: &Path) -> Inventory {
    Inventory::open(&dir.join("site.db"), "http://s3/site").unwrap()
}

fn row(key: &[u8], number: u8) -> Row {
    Row {
        key: key.to_vec(),
        state: if number.is_multiple_of(2) {
            State::Sure
        } else {
            State::Racy
        },
        stat: Stat {
            bytes: number.into(),
            mtime_ns: -5,
            ctime_ns: i64::MAX,
            inode: u64::MAX,
        },
        hash: [number; 32],
        etag: format!("e{number}"),
        version: (number > 9).then(|| "v".to_owned()),
        headers: [number; 16],
        compress: [Compress::None, Compress::Gzip, Compress::Brotli][usize::from(number % 3)],
    }
}

/// It names all that a site has, and was readable by all where no home had been made before.
#[test]
fn only_its_owner_reads_an_inventory() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("new");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    drop(open(&folder));
    let path = folder.join("site.db");
    assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    drop(open(&folder));
    assert_eq!(mode(&path), 0o600, "nor an older one");
}

#[derive(Clone, Debug)]
enum Act {
    Doubt(Vec<u8>),
    Store(Vec<u8>, u8),
    Forget(Vec<u8>),
    Reopen,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let key = || prop::collection::vec(any::<u8>(), 0..2);
    prop::collection::vec(
        prop_oneof![
            key().prop_map(Act::Doubt),
            (key(), 0..20u8).prop_map(|(key, number)| Act::Store(key, number)),
            key().prop_map(Act::Forget),
            Just(Act::Reopen),
        ],
        0..20,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]
    #[test]
    fn the_index_is_a_map_that_survives_being_closed(acts in acts()) {
        let dir = tempfile::tempdir().unwrap();
        let mut inventory = open(dir.path());
        let mut model: BTreeMap<Vec<u8>, Option<Row>> = BTreeMap::new();
        for act in acts {
            match act {
                Act::Doubt(key) => {
                    inventory.doubt(&key, model.contains_key(&key)).unwrap();
                    model.insert(key, None);
                }
                Act::Store(key, number) => {
                    inventory.store(&[row(&key, number)]).unwrap();
                    model.insert(key.clone(), Some(row(&key, number)));
                }
                Act::Forget(key) => {
                    inventory.forget(std::slice::from_ref(&key)).unwrap();
                    model.remove(&key);
                }
                Act::Reopen => {
                    drop(inventory);
                    inventory = open(dir.path());
                    prop_assert_eq!(inventory.is_empty, model.is_empty());
                }
            }
        }
        let rows: Vec<Row> = inventory.rows().map(Result::unwrap).collect();
        prop_assert!(rows.iter().map(|row| &row.key).eq(model.keys()));
        for (found, expected) in rows.iter().zip(model.values()) {
            match expected {
                Some(expected) => prop_assert_eq!(found, expected),
                None => prop_assert_eq!(found.state, State::Doubt),
            }
        }
    }
}

#[test]
fn rows_come_in_order_over_many_batches() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = open(dir.path());
    let rows: Vec<_> = (0..2 * BATCH_ROWS + 1)
        .rev()
        .map(|number| row(format!("{number:05}").as_bytes(), 1))
        .collect();
    inventory.store(&rows).unwrap();
    assert!(
        inventory
            .rows()
            .map(|row| row.unwrap().key)
            .eq(rows.iter().rev().map(|row| row.key.clone()))
    );
}

#[test]
fn an_index_is_bound_to_its_bucket_and_to_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = open(dir.path());
    let path = dir.path().join("site.db");
    assert!(matches!(
        Inventory::open(&path, "http://s3/site").err(),
        Some(InventoryError::Busy(_))
    ));
    drop(inventory);
    let other = Inventory::open(&path, "http://s3/other").err().unwrap();
    assert!(
        matches!(&other, InventoryError::Bound { bound, .. } if bound == "http://s3/site"),
        "{other}"
    );
    std::fs::write(
        dir.path().join("text"),
        "not a database, but longer than a header of one would be, by far; really",
    )
    .unwrap();
    let error = Inventory::open(&dir.path().join("text"), "http://s3/site")
        .err()
        .unwrap();
    assert!(matches!(error, InventoryError::Foreign(_)), "{error}");
}

#[test]
fn what_was_listed_and_put_off_lives_for_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = open(dir.path());
    let listed = |key: &[u8]| s3::Listed {
        key: key.to_vec(),
        bytes: 1,
        etag: "e".into(),
        modified: None,
    };
    inventory.see(&[listed(b"b"), listed(b"a")]).unwrap();
    assert!(
        inventory
            .all_seen()
            .map(|seen| seen.unwrap().key)
            .eq([b"a".to_vec(), b"b".to_vec()])
    );
    assert_eq!(
        (inventory.seen(b"a").unwrap().is_some(), inventory.seen(b"c").unwrap()),
        (true, None)
    );
    inventory.put_off(b"p", b"/p").unwrap();
    inventory.put_off_made(b"q", b"<p>").unwrap();
    assert_eq!(
        inventory.put_off_until_now().map(Result::unwrap).collect::<Vec<_>>(),
        [(b"p".to_vec(), Some(b"/p".to_vec())), (b"q".to_vec(), None)]
    );
    assert_eq!(
        (inventory.made(b"q").unwrap(), inventory.made(b"p").unwrap()),
        (b"<p>".to_vec(), Vec::new())
    );
    let dead = |key: &[u8], is_strange| Dead {
        key: key.to_vec(),
        etag: "e".to_owned(),
        is_strange,
    };
    inventory.mark_dead(&dead(b"d", false)).unwrap();
    inventory.mark_dead(&dead(b"s", true)).unwrap();
    assert_eq!(inventory.dead(false).unwrap(), (vec![dead(b"d", false)], 1));
    assert_eq!(inventory.dead(true).unwrap(), (vec![dead(b"s", true)], 1));
    inventory.bury(&[b"d".to_vec()]).unwrap();
    assert_eq!(
        (inventory.dead(false).unwrap().1, inventory.dead(true).unwrap().1),
        (0, 1)
    );
    inventory.clear().unwrap();
    assert_eq!((inventory.dead(true).unwrap().1, inventory.all_seen().count()), (0, 0));
    drop(inventory);
    assert_eq!(open(dir.path()).all_seen().count(), 0);
}

#[test]
fn what_is_known_of_the_lock_survives_and_older_inventories_know_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = open(dir.path());
    assert_eq!(inventory.lock_memory().unwrap(), Memory::default());
    let memory = Memory {
        holder: "cafe".into(),
        etag: "e".into(),
        fence: 7,
        generation: Some(3),
        is_timed: Some(true),
        is_conditional: Some(false),
        doubt_until: Some(-1),
    };
    inventory.remember_lock(&memory).unwrap();
    drop(inventory);
    let inventory = open(dir.path());
    assert_eq!(inventory.lock_memory().unwrap(), memory);
    drop(inventory);
    // As the first version left it.
    let connection = Connection::open(dir.path().join("site.db")).unwrap();
    connection
        .execute_batch("DROP TABLE lock; PRAGMA user_version = 1;")
        .unwrap();
    drop(connection);
    assert_eq!(open(dir.path()).lock_memory().unwrap(), Memory::default());
}
