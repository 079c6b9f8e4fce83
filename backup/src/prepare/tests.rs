//! Runs over real small trees and peers in memory: what is protected, what is sent, what is left after trouble.

use std::collections::BTreeSet;
use std::io::{Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use database::{Db, DbError};
use ed25519_dalek::SigningKey;
use proto::cap_index::Extent;
use proto::head::Head;
use proto::id::DeviceId;
use proto::keys::{AccountKeys, DeviceCert, power, words_key};
use proto::log_record::{Content, Entry};
use proto::phrase::Seed;
use proto::share_store::faulty::Faulty;
use proto::share_store::memory::MemoryStore;
use proto::size::MIB;
use tokio::runtime::Runtime;
use upload_queue::packs;
use upload_queue::peers::{Peer, PeerKey, PeerSet, Reach};
use upload_queue::priority::Weights;
use upload_queue::queue::Queue;
use upload_queue::space::MinFree;
use upload_queue::uploader::{Uploader, UploaderConfig};

use crate::catalog::content::Place;
use crate::catalog::{MIGRATIONS, content, tree};
use crate::exclude::Rules;
use crate::recover::{Aim, recover};
use crate::restore::Reader;
use crate::scan::{ScanOptions, ScanSummary, scan};
use crate::writer::{PrepareLimits, WriteError, WriteEvent, WriteSummary, Writer, now_ns, repack};

mod disks;
mod forgetting;
mod heads;
mod limits;
mod lost;
mod memory;
mod repacking;

const PEERS: usize = 4;

struct Bench {
    folder: tempfile::TempDir,
    home: tempfile::TempDir,
    runtime: Runtime,
    keys: Arc<AccountKeys>,
    device: SigningKey,
    stores: Vec<Arc<Faulty<MemoryStore>>>,
    peers: PeerSet,
    db: Db,
}

impl Bench {
    fn new() -> Self {
        let stores: Vec<_> = (0..PEERS).map(|_| Arc::new(Faulty::new(MemoryStore::new()))).collect();
        let peers = stores.iter().enumerate().map(|(number, store)| Peer {
            key: PeerKey(format!("memory:{number}")),
            place: upload_queue::peers::place::Place::Folder("/memory".into()),
            name: format!("peer {number}"),
            domain: format!("domain {number}"),
            reach: Reach::Remote,
            store: store.clone(),
        });
        Self {
            folder: tempfile::tempdir().unwrap(),
            home: tempfile::tempdir().unwrap(),
            runtime: Runtime::new().unwrap(),
            keys: Arc::new(AccountKeys::from_seed(&Seed([3; 32]))),
            device: SigningKey::from_bytes(&[4; 32]),
            peers: PeerSet::new(peers.collect()),
            stores,
            db: Db::in_memory(MIGRATIONS).unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        std::fs::canonicalize(self.folder.path()).unwrap().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn device_id(&self) -> DeviceId {
        DeviceId(self.device.verifying_key().to_bytes())
    }

    /// The writer of a process that starts now.
    fn writer(&self) -> Writer {
        let _in_runtime = self.runtime.enter();
        let config = UploaderConfig {
            spool: self.home.path().join("spool"),
            spool_bytes_max: 1 << 30,
            min_free: MinFree::Bytes(0),
            puts_per_peer: 2,
            tolerate: 1,
            steward: None,
        };
        let (events, _) = tokio::sync::mpsc::channel(16);
        Writer {
            db: self.db.clone(),
            queue: Queue::open(self.db.clone(), Weights::default()).unwrap(),
            uploader: Uploader::start(self.db.clone(), self.peers.clone(), config, events).unwrap(),
            keys: self.keys.clone(),
            device: self.device.clone(),
            cert: DeviceCert::sign(&words_key(&Seed([3; 32])), self.device_id(), power::ALL, "laptop", 1),
            peers: self.peers.clone(),
            heads: Default::default(),
            runtime: self.runtime.handle().clone(),
            settings: None,
            limits: PrepareLimits {
                bytes_in_flight_max: 64 * MIB,
                threads: 2,
                zstd_level: 1,
                post_interval_secs: 300,
            },
        }
    }

    fn scan(&self, writer: &Writer) -> ScanSummary {
        self.scan_of(writer, &[""])
    }

    fn scan_of(&self, writer: &Writer, roots: &[&str]) -> ScanSummary {
        self.scan_roots(writer, roots.iter().map(|root| self.path(root)).collect())
    }

    fn scan_roots(&self, writer: &Writer, roots: Vec<PathBuf>) -> ScanSummary {
        scan(&self.db, &writer.queue, &self.options(roots), &|_, _| {}).unwrap()
    }

    fn options(&self, roots: Vec<PathBuf>) -> ScanOptions {
        ScanOptions {
            roots,
            rules: Rules::default(),
            own_state: Vec::new(),
            one_file_system: true,
            emptied: crate::scan::Emptied::ForGood,
            device: self.device_id(),
            now_ns: now_ns(),
        }
    }

    fn run(&self, writer: &Writer) -> WriteSummary {
        writer.run(&AtomicBool::new(false), &|_| {}).unwrap()
    }

    /// A process that scans, runs and ends.
    fn backup(&self) -> WriteSummary {
        let writer = self.writer();
        self.scan(&writer);
        self.run(&writer)
    }

    fn waiting_jobs(&self) -> u64 {
        let queue = Queue::open(self.db.clone(), Weights::default()).unwrap();
        queue.counts().unwrap().jobs
    }

    fn newest(&self, name: &str) -> Option<Entry> {
        let path = self.path(name);
        let last = self.db.read(tree::snapshots).unwrap().pop()?.record.seq;
        self.db
            .read(|conn| tree::entry(conn, last, path.as_os_str().as_bytes()))
            .unwrap()
    }

    fn cat(&self, db: &Db, name: &str) -> Vec<u8> {
        let last = db.read(tree::snapshots).unwrap().pop().unwrap().record.seq;
        let mut out = Vec::new();
        self.reader(db)
            .cat(last, self.path(name).as_os_str().as_bytes(), &mut out)
            .unwrap();
        out
    }

    fn reader(&self, db: &Db) -> Reader {
        Reader {
            spool: None,
            db: db.clone(),
            peers: self.peers.clone(),
            keys: self.keys.clone(),
            runtime: self.runtime.handle().clone(),
            bytes_in_flight_max: 64 * MIB,
        }
    }

    fn extents(&self, name: &str) -> Vec<Extent> {
        let Content::Version(version) = self.newest(name).unwrap().content else {
            panic!("{name} is inline")
        };
        match self.db.read(|conn| content::place(conn, version)).unwrap() {
            Some(Place::Extents(extents)) => extents,
            other => panic!("{other:?}"),
        }
    }

    fn seq(&self) -> u64 {
        self.db.read(content::posted).unwrap().map_or(0, |posted| posted.seq)
    }

    fn unreachable(&self, unreachable: bool) {
        for store in &self.stores {
            store.set(|faults| faults.unreachable = unreachable);
        }
    }

    fn all_packs_are_safe(&self) -> bool {
        let unsafe_packs = self.db.read::<_, DbError>(|conn| {
            packs::rows(conn)?
                .into_iter()
                .try_fold(0, |count, row| Ok(count + u64::from(!packs::is_safe(conn, row, 1)?)))
        });
        unsafe_packs.unwrap() == 0
    }
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

#[test]
fn everything_is_protected_and_comes_back_with_the_keys_alone() {
    let bench = Bench::new();
    let files = [
        ("tiny", noise(1, 10)),
        ("very-small", noise(2, 3000)),
        ("small", noise(3, 40_000)),
        ("text", b"all work and no play ".repeat(20_000)),
        ("large", noise(4, 20 * MIB)),
    ];
    files.iter().for_each(|(name, content)| bench.write(name, content));
    let summary = bench.backup();
    assert!(summary.failed.is_empty());
    assert_eq!(summary.heads, PEERS);
    assert_eq!(summary.undelivered.packs_unsafe, 0);
    assert_eq!(bench.waiting_jobs(), 0);
    for (name, content) in &files {
        assert!(bench.cat(&bench.db, name) == *content, "{name}");
    }
    let fresh = Db::in_memory(MIGRATIONS).unwrap();
    let recovered = bench
        .runtime
        .block_on(recover(&bench.reader(&fresh), &bench.keys, &Aim::default(), &|_| {}))
        .unwrap();
    assert_eq!((recovered.head, recovered.files), (1, 5));
    for (name, content) in &files {
        assert!(bench.cat(&fresh, name) == *content, "{name}");
    }
}

#[test]
fn what_comes_later_is_recovered_too() {
    let bench = Bench::new();
    for day in 0..4u64 {
        bench.write(&format!("day {day}"), &noise(day, 30_000));
        bench.backup();
        bench.backup(); // nothing changed: only a head
    }
    assert_eq!(bench.seq(), 8);
    let fresh = Db::in_memory(MIGRATIONS).unwrap();
    bench
        .runtime
        .block_on(recover(&bench.reader(&fresh), &bench.keys, &Aim::default(), &|_| {}))
        .unwrap();
    let seqs = |db: &Db| -> Vec<u64> {
        db.read(tree::snapshots)
            .unwrap()
            .iter()
            .map(|snapshot| snapshot.record.seq)
            .collect()
    };
    assert_eq!(seqs(&fresh), seqs(&bench.db));
    for day in 0..4u64 {
        assert!(bench.cat(&fresh, &format!("day {day}")) == noise(day, 30_000));
    }
}

#[test]
fn nothing_new_makes_a_head_and_no_pack() {
    let bench = Bench::new();
    bench.write("file", &noise(1, 100_000));
    bench.backup();
    let seq = bench.seq();
    let summary = bench.backup();
    assert_eq!((summary.packs, summary.bytes_read, summary.heads), (0, 0, PEERS));
    assert_eq!(bench.seq(), seq + 1);
}

#[test]
fn only_the_changed_file_is_read() {
    let bench = Bench::new();
    bench.write("one", &noise(1, 100_000));
    bench.write("two", &noise(2, 100_000));
    bench.backup();
    bench.write("two", &noise(3, 90_000));
    let summary = bench.backup();
    assert_eq!(summary.bytes_read, 90_000);
    assert_eq!(bench.cat(&bench.db, "two"), noise(3, 90_000));
    assert_eq!(bench.waiting_jobs(), 0);
}

#[test]
fn the_same_content_is_stored_once() {
    let bench = Bench::new();
    (0..20).for_each(|number| bench.write(&format!("copy {number}"), &noise(1, 600_000)));
    let summary = bench.backup();
    assert!(summary.bytes_added < 700_000, "{} bytes", summary.bytes_added);
    bench.write("late copy", &noise(1, 600_000));
    let summary = bench.backup();
    assert!(summary.bytes_added < 20_000, "{} bytes", summary.bytes_added);
    assert!(bench.cat(&bench.db, "late copy") == noise(1, 600_000));
}

#[test]
fn holes_stay_holes() {
    let bench = Bench::new();
    let mut file = std::fs::File::create(bench.path("sparse")).unwrap();
    file.seek(std::io::SeekFrom::Start(4 << 20)).unwrap();
    file.write_all(&noise(1, 8192)).unwrap();
    file.set_len(64 << 20).unwrap();
    drop(file);
    let summary = bench.backup();
    assert!(summary.bytes_read < 1 << 20);
    let extents = bench.extents("sparse");
    assert_eq!(extents.iter().map(Extent::len).sum::<u64>(), 64 << 20);
    assert!(extents.iter().any(|extent| matches!(extent, Extent::Hole(_))));
    assert_eq!(bench.cat(&bench.db, "sparse")[4 << 20..][..8192], noise(1, 8192));
}

#[test]
fn a_file_that_vanished_is_reported_and_the_rest_goes_on() {
    let bench = Bench::new();
    bench.write("stays", &noise(1, 100_000));
    bench.write("goes", &noise(2, 100_000));
    bench.write("becomes a folder", &noise(3, 100_000));
    let writer = bench.writer();
    bench.scan(&writer);
    std::fs::remove_file(bench.path("goes")).unwrap();
    std::fs::remove_file(bench.path("becomes a folder")).unwrap();
    std::fs::create_dir(bench.path("becomes a folder")).unwrap();
    let summary = bench.run(&writer);
    let failed: BTreeSet<PathBuf> = summary.failed.into_iter().map(|(path, _)| path).collect();
    assert_eq!(
        failed,
        BTreeSet::from([bench.path("becomes a folder")]),
        "what was deleted is simply gone"
    );
    assert_eq!(bench.waiting_jobs(), 0);
    assert_eq!(bench.newest("goes"), None);
    assert!(bench.cat(&bench.db, "stays") == noise(1, 100_000));
}

#[test]
fn a_file_that_changed_since_the_scan_is_taken_as_it_is_read() {
    let bench = Bench::new();
    bench.write("file", &noise(1, 100_000));
    let writer = bench.writer();
    bench.scan(&writer);
    bench.write("file", &noise(2, 120_000));
    let summary = bench.run(&writer);
    assert!(summary.failed.is_empty());
    assert_eq!(bench.newest("file").unwrap().meta.size, 120_000);
    assert!(bench.cat(&bench.db, "file") == noise(2, 120_000));
}

#[test]
fn a_file_that_never_rests_is_reported_and_never_torn() {
    let bench = Bench::new();
    bench.write("calm", &noise(1, 100_000));
    bench.write("log", &noise(2, MIB));
    let writer = bench.writer();
    bench.scan(&writer);
    let log = std::fs::File::options().append(true).open(bench.path("log")).unwrap();
    let summary = writer.run(&AtomicBool::new(false), &|event| {
        if matches!(event, WriteEvent::BytesRead(_)) {
            (&log).write_all(b"one more line\n").unwrap();
        }
    });
    let summary = summary.unwrap();
    let failed: Vec<PathBuf> = summary.failed.into_iter().map(|(path, _)| path).collect();
    assert_eq!(failed, [bench.path("log")]);
    assert_eq!(bench.waiting_jobs(), 0);
    assert!(bench.cat(&bench.db, "calm") == noise(1, 100_000));
}

#[test]
fn a_run_without_peers_says_so() {
    let bench = Bench::new();
    let writer = bench.writer();
    bench.peers.set(Vec::new());
    assert!(matches!(
        writer.run(&AtomicBool::new(false), &|_| {}),
        Err(WriteError::NoPeers)
    ));
}

#[test]
fn what_no_peer_took_goes_out_later_and_once() {
    let bench = Bench::new();
    bench.write("small", &noise(1, 3000));
    bench.write("large", &noise(2, 20 * MIB));
    bench.unreachable(true);
    let summary = bench.backup();
    assert_eq!(summary.heads, 0);
    assert!(summary.undelivered.packs_unsafe > 0);
    assert_eq!(bench.waiting_jobs(), 2);
    let first = bench.db.read(content::posted).unwrap().unwrap();
    bench.unreachable(false);
    let writer = bench.writer();
    let summary = bench.run(&writer);
    assert_eq!((summary.bytes_read, summary.heads), (0, PEERS));
    assert_eq!(bench.waiting_jobs(), 0);
    assert!(bench.all_packs_are_safe());
    let second = bench.db.read(content::posted).unwrap().unwrap();
    let head = Head::decode(&second.head).unwrap();
    assert_eq!((first.seq, head.seq, head.previous), (1, 2, first.hash));
    assert!(bench.cat(&bench.db, "large") == noise(2, 20 * MIB));
    assert!(bench.cat(&bench.db, "small") == noise(1, 3000));
}

#[test]
fn a_run_that_is_stopped_anywhere_is_finished_by_the_next() {
    for stop_at in [0, MIB as u64, 15 * MIB as u64] {
        let bench = Bench::new();
        (0..30).for_each(|number| bench.write(&format!("file {number}"), &noise(number, MIB)));
        let writer = bench.writer();
        bench.scan(&writer);
        let stop = AtomicBool::new(false);
        let stopped = writer
            .run(&stop, &|event| {
                if matches!(event, WriteEvent::BytesRead(bytes) if bytes >= stop_at) {
                    stop.store(true, Ordering::Relaxed);
                }
            })
            .unwrap();
        drop(writer);
        let writer = bench.writer();
        let summary = bench.run(&writer);
        assert_eq!(summary.heads, PEERS);
        assert_eq!(bench.waiting_jobs(), 0);
        assert!(bench.all_packs_are_safe());
        let added = stopped.bytes_added + summary.bytes_added;
        assert!(
            added < 30 * MIB as u64 + 200_000,
            "{added} bytes: some chunk is stored twice"
        );
        assert!(bench.cat(&bench.db, "file 29") == noise(29, MIB));
    }
}
