//! How a catalog of many snapshots behaves: `cargo run --release --example history [SNAPSHOTS] [FILES]`.
//!
//! Makes a tree of FILES in folders of a hundred, then SNAPSHOTS with twenty changed files each and a clock of its own, and says how
//! long it takes to open, list, compare, count, find and forget.

use std::time::Instant;

use backup::catalog::content::{self, Place, live};
use backup::catalog::{changes, find, stats, tree};
use backup::retention::{self, Policy};
use database::{Db, DbError};
use proto::cap_index::{ChunkSlot, Extent};
use proto::id::{ChunkId, DeviceId, VersionId};
use proto::log_record::{Content, Entry, EntryKind, LogRecord, Meta, PathBytes, SnapshotRecord};
use upload_queue::packs::PackRow;

const FOLDER_FILES: u64 = 100;
const CHANGES: u64 = 20;
const HOUR_NS: i64 = 3_600_000_000_000;

fn folder(number: u64) -> Vec<u8> {
    format!("/home/ann/{:02}/{:04}", number % 50, number).into_bytes()
}

fn entry(name: String, kind: EntryKind, version: Option<u64>, time: i64) -> LogRecord {
    LogRecord::Entry(Entry {
        name: name.into_bytes(),
        kind,
        meta: Meta {
            mode: 0o644,
            size: 10_000,
            mtime_ns: time,
            ctime_ns: time,
            links: 1,
            ..Meta::default()
        },
        content: version.map_or(Content::None, |version| Content::Version(VersionId(version))),
    })
}

fn record(seq: u64, files: u64) -> SnapshotRecord {
    let time_ns = 1_700_000_000_000_000_000 + seq as i64 * HOUR_NS;
    SnapshotRecord {
        seq,
        id: tree::snapshot_id(DeviceId([7; 32]), seq, time_ns),
        time_ns,
        parent: (seq > 1).then(|| seq - 1),
        source_roots: vec![PathBytes(b"/home/ann".to_vec())],
        files,
        bytes: files * 10_000,
    }
}

fn directory(
    replay: &mut tree::Replay,
    tx: &rusqlite::Transaction<'_>,
    path: &str,
    names: &[String],
) -> Result<(), DbError> {
    replay.apply(tx, LogRecord::Directory(path.as_bytes().to_vec()))?;
    for name in names {
        replay.apply(tx, entry(name.clone(), EntryKind::Directory, None, 1))?;
    }
    Ok(())
}

fn first(replay: &mut tree::Replay, tx: &rusqlite::Transaction<'_>, files: u64) -> Result<(), DbError> {
    let folders = files.div_ceil(FOLDER_FILES);
    replay.apply(tx, LogRecord::Snapshot(record(1, files)))?;
    directory(replay, tx, "/", &[String::new(), "home".into()])?;
    directory(replay, tx, "/home", &["ann".into()])?;
    let groups: Vec<String> = (0..50).map(|group| format!("{group:02}")).collect();
    directory(replay, tx, "/home/ann", &groups)?;
    for (group, name) in groups.iter().enumerate() {
        let inside = (0..folders).filter(|number| number % 50 == group as u64);
        let names: Vec<String> = inside.map(|number| format!("{number:04}")).collect();
        directory(replay, tx, &format!("/home/ann/{name}"), &names)?;
    }
    for number in 0..files {
        if number % FOLDER_FILES == 0 {
            replay.apply(tx, LogRecord::Directory(folder(number / FOLDER_FILES)))?;
        }
        let name = format!("file-{:03}.txt", number % FOLDER_FILES);
        replay.apply(tx, entry(name, EntryKind::File, Some(number + 1), 1))?;
    }
    Ok(())
}

/// Versions are numbered on; each has a chunk of its own, all in a few packs.
fn place(tx: &rusqlite::Transaction<'_>, versions: std::ops::Range<u64>) -> Result<(), DbError> {
    let id = |version: u64| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&version.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
        ChunkId(id)
    };
    for version in versions.clone() {
        content::set_place(
            tx,
            VersionId(version),
            &Place::Extents(vec![Extent::Chunk(id(version), 10_000)]),
        )?;
    }
    let slots: Vec<ChunkSlot> = versions
        .clone()
        .map(|version| ChunkSlot {
            id: id(version),
            offset: (version % 1_000) as u32 * 5_000,
            stored_len: 5_000,
            raw_len: 10_000,
        })
        .collect();
    content::add_chunks(tx, PackRow((versions.start / 1_000) as i64 + 1), &slots)
}

fn make(db: &Db, snapshots: u64, files: u64) -> Result<(), DbError> {
    let folders = files.div_ceil(FOLDER_FILES);
    let mut version = files + 1;
    let mut replay = tree::Replay::new(DeviceId([7; 32]));
    db.write(|tx| {
        first(&mut replay, tx, files)?;
        place(tx, 1..version)
    })?;
    for batch in (2..=snapshots).collect::<Vec<_>>().chunks(250) {
        db.write(|tx| {
            for seq in batch {
                replay.apply(tx, LogRecord::Snapshot(record(*seq, files)))?;
                let from = version;
                for change in 0..CHANGES {
                    // Work goes on in one folder for a while; the rest is scattered.
                    let at = if change < 15 {
                        seq / 20
                    } else {
                        seq * 7_919 + change * 104_729
                    };
                    replay.apply(tx, LogRecord::Directory(folder(at % folders)))?;
                    let name = format!("file-{:03}.txt", (seq * 31 + change * 7) % FOLDER_FILES);
                    replay.apply(tx, entry(name, EntryKind::File, Some(version), *seq as i64))?;
                    version += 1;
                }
                place(tx, from..version)?;
            }
            Ok::<_, DbError>(())
        })?;
    }
    // As settling uploads leaves it.
    db.write(|tx| Ok::<_, DbError>(tx.execute("UPDATE snapshot SET complete = 1", [])?))?;
    Ok(())
}

fn timed<T>(what: &str, work: impl FnOnce() -> Result<T, DbError>) -> Result<T, DbError> {
    let start = Instant::now();
    let done = work()?;
    println!("{what:<44} {:>9.1} ms", start.elapsed().as_secs_f64() * 1e3);
    Ok(done)
}

fn count_changes(db: &Db, before: u64, after: u64) -> Result<u64, DbError> {
    let mut count = 0;
    db.read(|conn| {
        tree::diff::<DbError>(conn, tree::Pair { before, after }, b"/", &mut |_, entries| {
            count += u64::from(changes::change(conn, entries)?.is_some());
            Ok(true)
        })
    })?;
    Ok(count)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let snapshots = arguments.next().transpose()?.unwrap_or(5_000);
    let files = arguments.next().transpose()?.unwrap_or(200_000);
    let folder_of_db = std::env::temp_dir().join(format!("gridbackup-history-{}", std::process::id()));
    std::fs::create_dir_all(&folder_of_db)?;
    let path = folder_of_db.join("catalog.db");
    let db = backup::catalog::open(&path)?;
    timed("make", || make(&db, snapshots, files))?;
    drop(db);
    println!("catalog: {} MB", std::fs::metadata(&path)?.len() / 1_000_000);
    let db = timed("open", || backup::catalog::open(&path))?;
    let middle = snapshots / 2;
    timed("name a snapshot by date", || {
        db.read(|conn| Ok::<_, DbError>(tree::find_snapshot(conn, "2024-01-01", &|_| 0).is_ok()))
    })?;
    timed("list a folder of the middle one", || {
        db.read(|conn| tree::children(conn, middle, &folder(7)))
    })?;
    timed("list all snapshots, with completeness", || {
        db.read(|conn| {
            let kept = tree::kept(conn)?;
            kept.iter()
                .try_for_each(|known| tree::snapshot_complete(conn, known.record.seq).map(drop))
        })
    })?;
    for (before, after) in [(middle, middle + 1), (middle, middle + 100), (1, snapshots)] {
        let what = format!("diff {before} {after}");
        let count = timed(&what, || count_changes(&db, before, after))?;
        println!("  {count} changes");
    }
    let mut found = 0;
    timed("find in all snapshots", || {
        let wants = |path: &[u8], _: &Entry| path.ends_with(b"file-042.txt");
        db.read(|conn| {
            find::find::<DbError>(conn, None, &wants, &mut |_| {
                found += 1;
                Ok(())
            })
        })
    })?;
    println!("  {found} states");
    timed("stats of all", || db.read(|conn| stats::stats(conn, None)))?;
    timed("stats of one", || db.read(|conn| stats::stats(conn, Some(middle))))?;
    let policy = Policy {
        daily: 7,
        weekly: 5,
        monthly: 12,
        ..Policy::default()
    };
    let kept = timed("judge by a policy and forget", || {
        let kept = db.read(tree::kept)?;
        let reasons = retention::judge(&kept, &policy, i64::MAX, &|_| 0);
        let going = kept.iter().zip(&reasons).filter(|(_, why)| why.is_empty());
        let going: Vec<u64> = going.map(|(known, _)| known.record.seq).collect();
        db.write_durable(|tx| tree::forget(tx, &going, 1))?;
        db.read(tree::kept)
    })?;
    let kept: Vec<u64> = kept.iter().map(|known| known.record.seq).collect();
    println!("  {} stay", kept.len());
    timed("what is still wanted", || db.read(|conn| live::wanted(conn, &kept)))?;
    let peak = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(line) = peak.lines().find(|line| line.starts_with("VmHWM")) {
        println!("{line}");
    }
    std::fs::remove_dir_all(folder_of_db)?;
    Ok(())
}
