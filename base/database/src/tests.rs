use super::*;

const TREE: &[Migration] = &[
    Migration {
        component: "tree",
        version: 1,
        sql: "CREATE TABLE entry (name TEXT)",
    },
    Migration {
        component: "tree",
        version: 2,
        sql: "ALTER TABLE entry ADD COLUMN size INTEGER",
    },
];

fn add(db: &Db, name: &str) -> Result<(), DbError> {
    db.write(|tx| {
        tx.execute("INSERT INTO entry (name) VALUES (?1)", [name])?;
        Ok(())
    })
}

fn count(db: &Db) -> i64 {
    db.read::<_, DbError>(|conn| Ok(conn.query_row("SELECT count(*) FROM entry", [], |row| row.get(0))?))
        .unwrap()
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.db");
    (folder, path)
}

#[test]
fn what_was_written_is_there_after_opening_again() {
    let (_folder, path) = file();
    add(&Db::open(&path, TREE).unwrap(), "a").unwrap();
    assert_eq!(count(&Db::open(&path, TREE).unwrap()), 1);
}

/// Who moves a damaged catalog away leaves its journal behind, which SQLite would play into the next one.
#[test]
fn the_journal_of_a_database_that_was_moved_away_is_not_played_into_the_next() {
    let (folder, path) = file();
    let db = Db::open(&path, TREE).unwrap();
    add(&db, "a").unwrap();
    // As a process that was killed leaves it.
    let left = folder.path().join("left.db");
    let journal = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
    std::fs::copy(journal(&path), journal(&left)).unwrap();
    let next = Db::open(&left, TREE).unwrap();
    assert_eq!(count(&next), 0);
    add(&next, "b").unwrap();
    drop(next);
    assert_eq!(count(&Db::open(&left, TREE).unwrap()), 1);
}

#[test]
fn a_missing_migration_runs_once_and_the_rows_stay() {
    let (_folder, path) = file();
    add(&Db::open(&path, &TREE[..1]).unwrap(), "a").unwrap();
    for _ in 0..2 {
        let db = Db::open(&path, TREE).unwrap();
        db.write::<_, DbError>(|tx| Ok(tx.execute("UPDATE entry SET size = 1", [])?))
            .unwrap();
        assert_eq!(count(&db), 1);
    }
}

#[test]
fn a_newer_schema_is_refused_by_name() {
    let (_folder, path) = file();
    drop(Db::open(&path, TREE).unwrap());
    let error = Db::open(&path, &TREE[..1]).err().unwrap();
    assert!(
        matches!(
            error,
            DbError::Newer {
                component: "tree",
                version: 2,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn work_that_fails_leaves_no_trace() {
    let db = Db::in_memory(TREE).unwrap();
    let failed: Result<(), DbError> = db.write(|tx| {
        tx.execute("INSERT INTO entry (name) VALUES ('a')", [])?;
        Err(DbError::Foreign { path: String::new() })
    });
    assert!(failed.is_err());
    assert_eq!(count(&db), 0);
}

#[test]
fn a_panic_in_a_transaction_does_not_break_the_next() {
    let db = Db::in_memory(TREE).unwrap();
    let other = db.clone();
    let panicked = std::thread::spawn(move || {
        let _: Result<(), DbError> = other.write(|tx| {
            tx.execute("INSERT INTO entry (name) VALUES ('a')", [])?;
            panic!("as a bug would")
        });
    });
    assert!(panicked.join().is_err());
    add(&db, "b").unwrap();
    assert_eq!(count(&db), 1);
}

#[test]
fn a_reader_sees_one_state_and_does_not_wait_for_the_writer() {
    let db = Db::in_memory(TREE).unwrap();
    db.write::<_, DbError>(|tx| {
        tx.execute("INSERT INTO entry (name) VALUES ('a')", [])?;
        assert_eq!(count(&db), 0);
        Ok(())
    })
    .unwrap();
    db.read::<_, DbError>(|conn| {
        let seen = |conn: &Connection| -> i64 {
            conn.query_row("SELECT count(*) FROM entry", [], |row| row.get(0))
                .unwrap()
        };
        assert_eq!(seen(conn), 1);
        add(&db, "b")?;
        assert_eq!(seen(conn), 1);
        Ok(())
    })
    .unwrap();
    assert_eq!(count(&db), 2);
}

#[test]
fn a_reader_cannot_write() {
    let db = Db::in_memory(TREE).unwrap();
    let result: Result<usize, DbError> = db.read(|conn| Ok(conn.execute("DELETE FROM entry", [])?));
    assert!(result.is_err());
}

#[test]
fn a_durable_write_is_an_ordinary_one_that_is_synced() {
    let (_folder, path) = file();
    let db = Db::open(&path, TREE).unwrap();
    db.write_durable::<_, DbError>(|tx| {
        let level: i64 = tx.pragma_query_value(None, "synchronous", |row| row.get(0))?;
        assert_eq!(level, 2, "FULL");
        Ok(())
    })
    .unwrap();
    let level = db.write::<i64, DbError>(|tx| Ok(tx.pragma_query_value(None, "synchronous", |row| row.get(0))?));
    assert_eq!(level.unwrap(), 1, "NORMAL");
}

#[test]
fn other_files_are_refused_and_left_as_they_are() {
    let (_folder, path) = file();
    let sqlite = {
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("CREATE TABLE songs (name TEXT)").unwrap();
        drop(conn);
        std::fs::read(&path).unwrap()
    };
    for bytes in [sqlite, b"dear diary".to_vec(), vec![7; 8192], Vec::new()] {
        std::fs::write(&path, &bytes).unwrap();
        let error = Db::open(&path, TREE).err().unwrap();
        assert!(matches!(error, DbError::Foreign { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn a_catalog_cut_off_anywhere_is_refused() {
    let (_folder, path) = file();
    let db = Db::open(&path, TREE).unwrap();
    for number in 0..500 {
        add(&db, &format!("{number:0>200}")).unwrap();
    }
    drop(db);
    let whole = std::fs::read(&path).unwrap();
    assert!(
        !path.with_file_name("catalog.db-wal").exists(),
        "the last handle checkpoints"
    );
    for len in [0, 1, 99, 100, 4095, 4096, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..len]).unwrap();
        let error = Db::open(&path, TREE).err().unwrap();
        assert!(matches!(error, DbError::Foreign { .. }), "{len}: {error}");
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(count(&Db::open(&path, TREE).unwrap()), 500);
}

#[test]
fn a_creation_that_was_interrupted_is_begun_anew() {
    let (_folder, path) = file();
    std::fs::write(path.with_file_name("catalog.db.new"), b"SQLite format 3\0half").unwrap();
    std::fs::write(path.with_file_name("catalog.db.new-journal"), b"half").unwrap();
    add(&Db::open(&path, TREE).unwrap(), "a").unwrap();
}

#[test]
fn what_a_killed_process_committed_is_there() {
    let (folder, path) = file();
    let db = Db::open(&path, TREE).unwrap();
    add(&db, "a").unwrap();
    // As the files are while the process lives: the commit is in the WAL.
    let copy = folder.path().join("copy.db");
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(folder.path().join("catalog.db-wal"), folder.path().join("copy.db-wal")).unwrap();
    assert_eq!(count(&Db::open(&copy, TREE).unwrap()), 1);
}

#[test]
fn a_test_database_is_gone_with_its_last_handle() {
    let db = Db::in_memory(TREE).unwrap();
    let path = db.0.path.clone();
    let other = db.clone();
    drop(db);
    assert!(path.exists());
    drop(other);
    assert!(!path.exists());
}

#[test]
fn a_flipped_byte_in_any_page_is_found_by_who_reads_it() {
    let (_folder, path) = file();
    let db = Db::open(&path, TREE).unwrap();
    for number in 0..400 {
        add(&db, &format!("{number:0>100}")).unwrap();
    }
    drop(db);
    let whole = std::fs::read(&path).unwrap();
    assert!(whole.len() > 10 * checksum::PAGE_BYTES);
    for page in 0..whole.len() / checksum::PAGE_BYTES {
        // A byte of a row, one of the free space, one of the checksum.
        for at in [100, 2000, 4000, 4095] {
            let mut damaged = whole.clone();
            damaged[page * checksum::PAGE_BYTES + at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            let read = Db::open(&path, TREE).and_then(|db| {
                db.read::<_, DbError>(|conn| {
                    Ok(conn.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))?)
                })
            });
            let is_found = match &read {
                Ok(report) => report.contains(&ffi::SQLITE_IOERR_DATA.to_string()),
                Err(error) => matches!(error, DbError::Damaged | DbError::Foreign { .. }),
            };
            assert!(is_found, "page {page}, byte {at}: {read:?}");
        }
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(count(&Db::open(&path, TREE).unwrap()), 400);
}

#[test]
fn a_database_without_room_for_checksums_is_left_alone() {
    let (_folder, path) = file();
    let other = Connection::open(&path).unwrap();
    other
        .execute_batch("CREATE TABLE entry (name TEXT); INSERT INTO entry VALUES ('theirs')")
        .unwrap();
    drop(other);
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(Db::open(&path, TREE), Err(DbError::Foreign { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// Tables of two kinds: some are replaced, some stay.
const PEERS: &[Migration] = &[Migration {
    component: "peers",
    version: 1,
    sql: "CREATE TABLE peer (key TEXT PRIMARY KEY); CREATE TABLE care_bad (peer TEXT, share BLOB);",
}];

#[test]
fn a_database_put_together_beside_another_replaces_it_whole_or_is_saved_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.db");
    assert!(matches!(Db::open_existing(&path, PEERS), Err(DbError::Missing { .. })));
    assert!(!path.exists(), "looking makes nothing");
    let beside = Db::scratch(folder.path(), PEERS).unwrap();
    let name = |db: &Db, key: &str| {
        db.write::<_, DbError>(|tx| Ok(tx.execute("INSERT INTO peer (key) VALUES (?1)", [key])?))
            .unwrap()
    };
    let names = |db: &Db| -> Vec<String> {
        db.read::<_, DbError>(|conn| {
            let mut query = conn.prepare("SELECT key FROM peer ORDER BY key")?;
            let keys = query.query_map([], |row| row.get(0))?;
            Ok(keys.collect::<Result<_, _>>()?)
        })
        .unwrap()
    };
    name(&beside, "new");
    // Left by a process that was cut off.
    std::fs::write(folder.path().join("catalog.db.whole"), b"half").unwrap();
    beside.save_as(&path, PEERS).unwrap();
    assert_eq!(names(&Db::open_existing(&path, PEERS).unwrap()), ["new"]);

    let live = Db::open_existing(&path, PEERS).unwrap();
    name(&live, "old");
    live.write::<_, DbError>(|tx| Ok(tx.execute("INSERT INTO care_bad VALUES ('old', x'00')", [])?))
        .unwrap();
    live.replace_by(&beside, &|table| !table.starts_with("care_")).unwrap();
    assert_eq!(names(&live), ["new"]);
    let bad = live.read::<_, DbError>(|conn| {
        Ok(conn.query_row("SELECT count(*) FROM care_bad", [], |row| row.get::<_, i64>(0))?)
    });
    assert_eq!(bad.unwrap(), 1, "what is not to be replaced stays");

    drop(beside);
    std::fs::create_dir(folder.path().join("gridbackup-scratch-1-1")).unwrap();
    Db::sweep_scratch(folder.path()).unwrap();
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        left.iter().all(|name| name.to_string_lossy().starts_with("catalog.db")),
        "{left:?}"
    );
    assert!(
        !left.iter().any(|name| name.to_string_lossy().contains("whole")),
        "{left:?}"
    );
}

/// A home on a full disk, or on one that may only be read: SQLite wants to write even to read, and `restore` failed.
#[test]
fn a_catalog_is_read_without_a_byte_being_written() {
    let (folder, path) = file();
    let strange = folder.path().join("a ?#% folder");
    std::fs::create_dir(&strange).unwrap();
    let db = Db::open(&path, TREE).unwrap();
    add(&db, "a").unwrap();
    for (name, with_wal) in [("live", true), ("closed", false)] {
        let copy = strange.join(name);
        let wal = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
        if with_wal {
            // As a killed process leaves it: the row is in the WAL.
            std::fs::copy(&path, &copy).unwrap();
            std::fs::copy(wal(&path), wal(&copy)).unwrap();
        } else {
            add(&Db::open(&copy, TREE).unwrap(), "a").unwrap();
        }
        let before = contents(&strange);
        let frozen = Db::open_to_read(&copy, TREE).unwrap();
        assert_eq!(count(&frozen), 1, "{name}");
        // More readers than are kept open, at once.
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(count(&frozen), 1));
            }
        });
        assert!(matches!(add(&frozen, "b"), Err(DbError::ReadOnly)));
        assert!(matches!(
            Db::open_to_read(&copy, &[]),
            Ok(_) | Err(DbError::Newer { .. })
        ));
        drop(frozen);
        assert!(contents(&strange) == before, "{name}");
        // Nothing is in the way of who may write.
        let db = Db::open(&copy, TREE).unwrap();
        add(&db, "b").unwrap();
        assert_eq!(count(&db), 2, "{name}");
    }
    let old = strange.join("old");
    drop(Db::open(&old, &TREE[..1]).unwrap());
    assert!(matches!(Db::open_to_read(&old, TREE), Err(DbError::ReadOnly)));
}

fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    found.sort();
    found
}

#[test]
fn after_a_sync_that_failed_the_wal_begins_anew_before_anything_more_is_written() {
    let (folder, path) = file();
    let db = Db::open(&path, TREE).unwrap();
    add(&db, "a").unwrap();
    let copy = folder.path().join("copy.db");
    let main_file_alone = || {
        std::fs::copy(&path, &copy).unwrap();
        count(&Db::open(&copy, TREE).unwrap())
    };
    assert_eq!(main_file_alone(), 0, "it is in the WAL, which may be on no disk");
    checksum::set_sync_failed(true);
    db.write_durable(|tx| {
        tx.execute("INSERT INTO entry (name) VALUES ('b')", [])
            .map_err(DbError::from)
    })
    .unwrap();
    assert_eq!(main_file_alone(), 1);
    assert_eq!(count(&db), 2);
}
