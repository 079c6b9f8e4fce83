//! Restoring and recovering from a small grid of stores in memory, which may fail, lie and forget.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use ed25519_dalek::SigningKey;
use proto::cap_index::{Cap, ChunkSlot, Extent, IndexRecord, PackRecord};
use proto::head::RootRef;
use proto::head::{Head, HeadBody};
use proto::id::{DeviceId, ShareId, SnapshotId, VersionId};
use proto::keys::{DeviceCert, power, words_key};
use proto::log_record::{Content, Entry, EntryKind, LogRecord, Meta, PathBytes, SnapshotRecord, Xattr};
use proto::manifest::Manifest;
use proto::pack::PackKey;
use proto::phrase::Seed;
use proto::record::Record;
use proto::root::{Root, SectionRef};
use proto::section::SectionWriter;
use proto::section_kind::SectionKind;
use proto::shape::PackShape;
use proto::shape::ShareSize;
use proto::share_store::faulty::Faulty;
use proto::share_store::memory::MemoryStore;
use proto::share_store::{HeadStore, ShareStore};
use proto::{pack, section};
use upload_queue::peers::{Peer, PeerKey, Reach};

use super::*;
use crate::catalog::{MIGRATIONS, tree};
use crate::recover::{Aim, RecoverError, Recovered, recover};

mod again;
mod export;
mod swapped;

const K: u8 = 3;
const N: u8 = 5;

/// A grid whose stores hold one device's backup, made by hand.
struct Grid {
    stores: Vec<Arc<Faulty<MemoryStore>>>,
    keys: Arc<AccountKeys>,
    device: SigningKey,
    runtime: tokio::runtime::Runtime,
    packs: std::cell::Cell<u8>,
}

impl Grid {
    fn new() -> Self {
        Self {
            stores: (0..N).map(|_| Arc::new(Faulty::new(MemoryStore::new()))).collect(),
            keys: Arc::new(AccountKeys::from_seed(&Seed([7; 32]))),
            device: SigningKey::from_bytes(&[9; 32]),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap(),
            packs: std::cell::Cell::new(1),
        }
    }

    fn device_id(&self) -> DeviceId {
        DeviceId(self.device.verifying_key().to_bytes())
    }

    fn put_pack(&self, plain: &[u8]) -> (PackRecord, Vec<ShareId>) {
        let number = self.packs.replace(self.packs.get() + 1);
        let shape = PackShape {
            k: K,
            n: N,
            share: ShareSize::Small,
        };
        let key = PackKey([number; 32]);
        let sealed = pack::seal(&key, shape, plain);
        let ids = sealed.ids.clone();
        let manifest = Manifest::sign(key.pack_id(), shape, ids.clone(), self.keys.account_id(), &self.device);
        for (store, (id, share)) in self.stores.iter().zip(sealed.shares(&manifest)) {
            self.runtime.block_on(store.put(id, share)).unwrap();
        }
        let record = PackRecord {
            manifest: manifest.encode(),
            wrapped_key: self.keys.put.wrap(&key, [number; 32]),
        };
        (record, ids)
    }

    /// Posts log, index and root; returns the ids of the data pack's shares.
    fn post(&self, backup: &Backup, seq: u64) -> Vec<ShareId> {
        let (data, data_shares) = self.put_pack(&backup.plain);
        let mut index = vec![IndexRecord::Pack(data, backup.slots.clone())];
        index.extend(backup.caps.clone());
        let (log, index) = (encode(&backup.log(seq)), encode(&index));
        let section = |kind, pack, encoded: &[u8]| SectionRef {
            kind: kind as u8,
            pack,
            offset: 0,
            len: encoded.len() as u32,
        };
        // The index lies in the pack of the root itself, which the root cannot list.
        let root = Root {
            packs: vec![self.put_pack(&log).0],
            sections: vec![
                section(SectionKind::Log, 0, &log),
                section(SectionKind::Index, 1, &index),
            ],
            snapshots: vec![backup.snapshot(seq)],
            ..Root::default()
        };
        let root = root.encode().unwrap();
        let at = RootRef {
            pack: self.put_pack(&[&index[..], &root].concat()).0,
            offset: index.len() as u32,
            len: root.len() as u32,
        };
        let head = self.head(seq, Some(at), backup.snapshot(seq));
        for store in &self.stores {
            self.runtime.block_on(store.put_head(head.clone().into())).unwrap();
        }
        data_shares
    }

    fn head(&self, seq: u64, root: Option<RootRef>, snapshot: SnapshotRecord) -> Vec<u8> {
        let cert = DeviceCert::sign(&words_key(&Seed([7; 32])), self.device_id(), power::ALL, "laptop", 1);
        let body = HeadBody {
            root,
            snapshot: Some(snapshot),
            disks: None,
        };
        Head::sign(&self.device, &cert, seq, [0; 32], &body, &self.keys.put, [3; 32])
            .unwrap()
            .encode()
    }

    /// A reader with an empty catalog.
    fn blank(&self) -> Reader {
        let peers = self.stores.iter().enumerate().map(|(number, store)| Peer {
            key: PeerKey(format!("friend:{number}")),
            place: upload_queue::peers::place::Place::Folder("/memory".into()),
            name: format!("friend{number}"),
            domain: format!("home{number}"),
            reach: Reach::Remote,
            store: store.clone(),
        });
        Reader {
            spool: None,
            db: Db::in_memory(MIGRATIONS).unwrap(),
            peers: PeerSet::new(peers.collect()),
            keys: self.keys.clone(),
            runtime: self.runtime.handle().clone(),
            bytes_in_flight_max: 64 << 20,
        }
    }

    fn recover(&self, reader: &Reader) -> Result<Recovered, RecoverError> {
        self.runtime
            .block_on(recover(reader, &self.keys, &Aim::default(), &|_| {}))
    }

    fn recovered(&self) -> Reader {
        let reader = self.blank();
        self.recover(&reader).unwrap();
        reader
    }
}

fn encode<R: Record>(records: &[R]) -> Vec<u8> {
    let mut writer = SectionWriter::new();
    for record in records {
        assert_eq!(writer.push(record).unwrap(), None);
    }
    writer.finish().unwrap()
}

/// A folder `/src` and what is in it.
#[derive(Default)]
struct Backup {
    plain: Vec<u8>,
    slots: Vec<ChunkSlot>,
    caps: Vec<IndexRecord>,
    entries: Vec<Entry>,
    versions: u64,
}

impl Backup {
    fn chunk(&mut self, grid: &Grid, content: &[u8]) -> Extent {
        let id = grid.keys.put.chunk_id(content);
        let packed = zstd::bulk::compress(content, 3).unwrap();
        let stored = if packed.len() < content.len() {
            &packed[..]
        } else {
            content
        };
        self.slots.push(ChunkSlot {
            id,
            offset: self.plain.len() as u32,
            stored_len: stored.len() as u32,
            raw_len: content.len() as u32,
        });
        self.plain.extend_from_slice(stored);
        Extent::Chunk(id, content.len() as u32)
    }
    fn entry(&mut self, name: &[u8], kind: EntryKind, size: u64, content: Content) -> &mut Entry {
        self.entries.push(Entry {
            name: name.to_vec(),
            kind,
            meta: meta(size),
            content,
        });
        self.entries.last_mut().unwrap()
    }
    fn file(&mut self, name: &[u8], size: u64, cap: Cap) -> &mut Entry {
        self.versions += 1;
        let version = VersionId(self.versions);
        self.caps.push(IndexRecord::Cap(version, cap));
        self.entry(name, EntryKind::File, size, Content::Version(version))
    }
    fn snapshot(&self, seq: u64) -> SnapshotRecord {
        SnapshotRecord {
            seq,
            id: SnapshotId([seq as u8; 16]),
            time_ns: seq as i64,
            parent: None,
            source_roots: vec![PathBytes(b"/src".to_vec())],
            files: self.entries.len() as u64,
            bytes: self.entries.iter().map(|entry| entry.meta.size).sum(),
        }
    }
    fn log(&self, seq: u64) -> Vec<LogRecord> {
        let mut entries = self.entries.clone();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let folder = |name: &[u8]| Entry {
            name: name.to_vec(),
            kind: EntryKind::Directory,
            meta: Meta { mode: 0o750, ..meta(0) },
            content: Content::None,
        };
        let mut log = vec![
            LogRecord::Snapshot(self.snapshot(seq)),
            LogRecord::Directory(b"/".to_vec()),
            LogRecord::Entry(folder(b"")),
            LogRecord::Entry(folder(b"src")),
            LogRecord::Directory(b"/src".to_vec()),
        ];
        log.extend(entries.into_iter().map(LogRecord::Entry));
        log
    }
}

fn meta(size: u64) -> Meta {
    Meta {
        mode: 0o640,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime_ns: 1_600_000_000_123_456_789,
        size,
        links: 1,
        ..Meta::default()
    }
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

const BIG: usize = 400_000;

/// One of everything. The big file has a hole of 1 MiB between two chunks that lie in different shares.
fn one_of_everything(grid: &Grid) -> Backup {
    let mut backup = Backup::default();
    let (first, second) = (noise(BIG, 1), vec![b'x'; 70_000]);
    let extents = [
        backup.chunk(grid, &first),
        Extent::Hole(1 << 20),
        backup.chunk(grid, &second),
    ];
    let size = (BIG + 70_000 + (1 << 20)) as u64;
    let big = backup.file(b"big", size, Cap::Extents(extents[..1].to_vec()));
    (big.meta.links, big.meta.inode) = (2, 77);
    let mut other_name = big.clone();
    let rest = IndexRecord::CapMore(VersionId(1), BIG as u64, extents[1..].to_vec());
    backup.caps.push(rest);
    other_name.name = b"other name".to_vec();
    backup.entries.push(other_name);
    let whole_hole = Cap::Extents(vec![Extent::Hole(1 << 30)]);
    backup.file(b"hole", 1 << 30, whole_hole);
    let small = backup.file(b"small \xff", 300, Cap::Inline(vec![b's'; 300]));
    small.meta.xattrs = vec![Xattr {
        name: b"user.colour".to_vec(),
        value: b"\x00red".to_vec(),
    }];
    backup
        .entry(b"tiny", EntryKind::File, 2, Content::Inline(b"hi".to_vec()))
        .meta
        .mode = 0o4711;
    backup
        .entry(b"empty", EntryKind::File, 0, Content::Inline(vec![]))
        .meta
        .mode = 0;
    backup.entry(b"link", EntryKind::Symlink, 4, Content::Inline(b"../x".to_vec()));
    backup.entry(b"pipe", EntryKind::Fifo, 0, Content::None);
    backup.entry(b"socket", EntryKind::Socket, 0, Content::None);
    backup.entry(b"dir", EntryKind::Directory, 0, Content::None).meta.mode = 0o1555;
    backup
}

fn options(target: &Path) -> RestoreOptions {
    RestoreOptions {
        snapshot: 1,
        path: Some(b"/src".to_vec()),
        target: target.to_owned(),
        include: vec![],
        exclude: vec![],
        overwrite: Overwrite::IfChanged,
        delete: None,
        dry_run: false,
        verify: true,
    }
}

fn restore(reader: &Reader, options: &RestoreOptions) -> RestoreSummary {
    reader.restore(options, &|_| ControlFlow::Continue(())).unwrap()
}

fn big_content() -> Vec<u8> {
    [noise(BIG, 1), vec![0; 1 << 20], vec![b'x'; 70_000]].concat()
}

fn check_everything(target: &Path) {
    let is = |name: &str| std::fs::symlink_metadata(target.join(name)).unwrap();
    assert!(std::fs::read(target.join("big")).unwrap() == big_content());
    assert_eq!(is("big").ino(), is("other name").ino());
    assert!(is("big").blocks() * 512 < 700_000, "the hole is kept");
    assert_eq!((is("hole").len(), is("hole").blocks()), (1 << 30, 0));
    let small = target.join(std::ffi::OsStr::from_bytes(b"small \xff"));
    assert_eq!(std::fs::read(&small).unwrap(), [b's'; 300]);
    let mut value = [0; 16];
    match rustix::fs::getxattr(&small, "user.colour", &mut value[..]) {
        Ok(len) => assert_eq!(&value[..len], b"\x00red"),
        Err(error) => assert_eq!(error, rustix::io::Errno::OPNOTSUPP),
    }
    assert_eq!(std::fs::read(target.join("tiny")).unwrap(), b"hi");
    assert_eq!(std::fs::read_link(target.join("link")).unwrap(), Path::new("../x"));
    for (name, mode) in [
        ("tiny", 0o104711),
        ("empty", 0o100000),
        ("dir", 0o041555),
        ("pipe", 0o010640),
        ("socket", 0o140640),
        ("big", 0o100640),
    ] {
        assert_eq!(
            format!("{:o}", is(name).permissions().mode()),
            format!("{mode:o}"),
            "{name}"
        );
    }
    for name in ["big", "link", "pipe", "dir", "tiny", "hole"] {
        assert_eq!(
            (is(name).mtime(), is(name).mtime_nsec()),
            (1_600_000_000, 123_456_789),
            "{name}"
        );
    }
    let partial = std::fs::read_dir(target)
        .unwrap()
        .any(|entry| entry.unwrap().file_name().as_bytes().starts_with(b".gridbackup"));
    assert!(!partial, "no partial file is left");
}

#[test]
fn everything_comes_back_as_it_was_from_the_phrase_alone() {
    let grid = Grid::new();
    let backup = one_of_everything(&grid);
    grid.post(&backup, 1);
    let reader = grid.blank();
    let recovered = grid.recover(&reader).unwrap();
    assert_eq!((recovered.head, recovered.snapshots, recovered.files), (1, 1, 10));
    assert_eq!(
        (recovered.device_name.as_str(), recovered.peers_answered),
        ("laptop", 5)
    );
    assert_eq!(recovered.peers_bad, []);
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("made/by/restore");
    let summary = restore(&reader, &options(&target));
    assert_eq!(summary.failed, []);
    assert_eq!((summary.files_restored, summary.files_unchanged), (9, 0));
    check_everything(&target);
    assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o7777, 0o750);

    let again = restore(&reader, &options(&target));
    assert_eq!(
        (again.files_restored, again.files_unchanged, again.failed.len()),
        (0, 9, 0)
    );
    check_everything(&target);
}

#[test]
fn an_interrupted_restore_goes_on_and_corrects_what_is_there() {
    let grid = Grid::new();
    grid.post(&one_of_everything(&grid), 1);
    let reader = grid.recovered();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path();
    restore(&reader, &options(target));
    std::fs::remove_file(target.join("big")).unwrap();
    std::fs::remove_file(target.join("other name")).unwrap();
    let partial = format!(".gridbackup-partial-{}", &blake3::hash(b"big").to_hex()[..16]);
    std::fs::write(target.join(partial), vec![0xee; 3 << 20]).unwrap();
    std::fs::set_permissions(target.join("tiny"), PermissionsExt::from_mode(0o600)).unwrap();
    let summary = restore(&reader, &options(target));
    assert_eq!((summary.files_restored, summary.files_unchanged), (2, 7));
    check_everything(target);
}

#[test]
fn as_many_peers_may_be_away_as_the_code_has_parity() {
    let grid = Grid::new();
    grid.post(&one_of_everything(&grid), 1);
    for store in &grid.stores[..2] {
        store.set(|faults| faults.unreachable = true);
    }
    let reader = grid.recovered();
    let folder = tempfile::tempdir().unwrap();
    let summary = restore(&reader, &options(folder.path()));
    assert_eq!(summary.failed, []);
    check_everything(folder.path());
    assert_eq!(summary.peers_used, ["friend2", "friend3", "friend4"]);
}

#[test]
fn with_too_few_peers_the_missing_ones_are_named_and_the_rest_is_restored() {
    let grid = Grid::new();
    grid.post(&one_of_everything(&grid), 1);
    let reader = grid.recovered();
    for store in &grid.stores[1..4] {
        store.set(|faults| faults.unreachable = true);
    }
    let folder = tempfile::tempdir().unwrap();
    let summary = restore(&reader, &options(folder.path()));
    let reason = &summary.failed.iter().find(|(path, _)| path.ends_with("big")).unwrap().1;
    assert_eq!(
        reason,
        "Not enough shares reachable: 2 of 3 for a pack; not reachable: friend1, friend2, friend3"
    );
    assert_eq!(std::fs::read(folder.path().join("tiny")).unwrap(), b"hi");
    let error = reader.cat(1, b"/src/big", &mut Vec::new()).unwrap_err();
    assert!(
        matches!(error, RestoreError::TooFewShares { have: 2, need: 3, .. }),
        "{error}"
    );
}

#[test]
fn damaged_shares_are_made_up_for_and_their_peers_named() {
    let grid = Grid::new();
    let shares = grid.post(&one_of_everything(&grid), 1);
    let reader = grid.recovered();
    // A data share and a parity share: exactly k are good.
    assert!(grid.stores[0].inner().damage(shares[0], 70_000));
    assert!(grid.stores[3].inner().damage(shares[3], 70_000));
    let folder = tempfile::tempdir().unwrap();
    let summary = restore(&reader, &options(folder.path()));
    assert_eq!(summary.failed, []);
    check_everything(folder.path());
    let bad: Vec<&str> = summary.peers_bad.iter().map(|(name, _)| name.as_str()).collect();
    assert!(bad.contains(&"friend0"), "{bad:?}");
    assert!(bad.iter().all(|name| ["friend0", "friend3"].contains(name)), "{bad:?}");
    assert!(
        summary.peers_bad[0].1.ends_with("leaf 4 is damaged"),
        "{:?}",
        summary.peers_bad
    );
}

#[test]
fn a_peer_that_flips_bits_now_and_then_never_spoils_a_file() {
    let grid = Grid::new();
    grid.post(&one_of_everything(&grid), 1);
    let reader = grid.recovered();
    for store in &grid.stores[..2] {
        store.set(|faults| faults.flip_every = std::num::NonZeroU32::new(2));
    }
    for _ in 0..4 {
        let mut content = Vec::new();
        reader.cat(1, b"/src/big", &mut content).unwrap();
        assert!(content == big_content());
    }
}

#[test]
fn a_symbolic_link_in_the_target_does_not_lead_outside() {
    let grid = Grid::new();
    grid.post(&one_of_everything(&grid), 1);
    let reader = grid.recovered();
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let precious = outside.path().join("precious");
    std::fs::write(&precious, b"precious").unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("src")).unwrap();
    let everything = RestoreOptions {
        path: None,
        ..options(folder.path())
    };
    let summary = restore(&reader, &everything);
    assert_eq!(summary.failed.len(), 1);
    assert_eq!(summary.failed[0].0, folder.path().join("src"));
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);

    std::fs::remove_file(folder.path().join("src")).unwrap();
    std::fs::create_dir(folder.path().join("src")).unwrap();
    std::os::unix::fs::symlink(&precious, folder.path().join("src/tiny")).unwrap();
    let summary = restore(&reader, &everything);
    assert_eq!(summary.failed, []);
    assert_eq!(std::fs::read(&precious).unwrap(), b"precious");
    check_everything(&folder.path().join("src"));
}

#[test]
fn patterns_a_dry_run_and_deleting_do_what_they_say() {
    let grid = Grid::new();
    grid.post(&one_of_everything(&grid), 1);
    let reader = grid.recovered();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    let mut some = RestoreOptions {
        include: vec!["t*".to_owned(), "empty".to_owned()],
        exclude: vec!["empty".to_owned()],
        dry_run: true,
        ..options(&target)
    };
    assert_eq!(restore(&reader, &some).files_restored, 1);
    assert!(!target.exists());
    some.dry_run = false;
    restore(&reader, &some);
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 1);
    std::fs::create_dir_all(target.join("extra/deep")).unwrap();
    std::fs::write(target.join("keep.tmp"), b"").unwrap();
    let delete = RestoreOptions {
        delete: Some(Deleting::default()),
        exclude: vec!["*.tmp".to_owned()],
        ..options(&target)
    };
    assert_eq!(restore(&reader, &delete).failed, []);
    assert!(!target.join("extra").exists());
    assert!(target.join("keep.tmp").exists());
    let never = RestoreOptions {
        overwrite: Overwrite::Never,
        ..options(&target)
    };
    std::fs::write(target.join("tiny"), b"mine").unwrap();
    assert_eq!(restore(&reader, &never).files_unchanged, 9);
    assert_eq!(std::fs::read(target.join("tiny")).unwrap(), b"mine");
}

#[test]
fn one_file_can_be_restored_or_shown_alone() {
    let grid = Grid::new();
    grid.post(&one_of_everything(&grid), 1);
    let reader = grid.recovered();
    let folder = tempfile::tempdir().unwrap();
    let one = RestoreOptions {
        path: Some(b"/src/big".to_vec()),
        ..options(folder.path())
    };
    assert_eq!(restore(&reader, &one).files_restored, 1);
    assert!(std::fs::read(folder.path().join("big")).unwrap() == big_content());
    let mut shown = Vec::new();
    assert_eq!(reader.cat(1, b"/src/small \xff", &mut shown).unwrap(), 300);
    assert!(matches!(
        reader.cat(1, b"/src/gone", &mut shown),
        Err(RestoreError::NoSuchPath { .. })
    ));
}

#[test]
fn a_version_without_a_place_is_named_and_the_rest_restored() {
    let grid = Grid::new();
    let mut backup = one_of_everything(&grid);
    backup.entry(b"waiting", EntryKind::File, 9, Content::Version(VersionId(99)));
    grid.post(&backup, 1);
    let reader = grid.recovered();
    let folder = tempfile::tempdir().unwrap();
    let summary = restore(&reader, &options(folder.path()));
    let failed = vec![(folder.path().join("waiting"), "It was not uploaded yet".to_owned())];
    assert_eq!((summary.failed, summary.files_restored), (failed, 9));
    let error = reader.cat(1, b"/src/waiting", &mut Vec::new()).unwrap_err();
    assert!(matches!(error, RestoreError::Waiting { .. }));
}

#[test]
fn the_newest_head_wins_and_rollbacks_and_forks_are_named() {
    let grid = Grid::new();
    let backup = one_of_everything(&grid);
    grid.post(&backup, 1);
    grid.stores[2].set(|faults| faults.replay_old_heads = true);
    let old = grid
        .runtime
        .block_on(grid.stores[2].heads(grid.keys.account_id()))
        .unwrap();
    assert_eq!(old.len(), 1);
    grid.post(&backup, 2);
    let reader = grid.blank();
    let recovered = grid.recover(&reader).unwrap();
    assert_eq!(recovered.head, 2);
    let bad: Vec<&str> = recovered.peers_bad.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(bad, ["friend2"]);

    let forged = Grid::new();
    forged.post(&backup, 2);
    let fork = forged.head(2, None, backup.snapshot(1));
    let store = Arc::new(Faulty::new(MemoryStore::new()));
    grid.runtime.block_on(store.put_head(fork.into())).unwrap();
    let mut peers = reader.peers.all();
    peers[4].store = store;
    reader.peers.set(peers);
    let recovered = grid.recover(&reader).unwrap();
    assert!(
        recovered
            .peers_bad
            .iter()
            .any(|(name, reason)| name == "friend4" && reason.contains("another head"))
    );
    let snapshots = reader.db.read(tree::snapshots).unwrap();
    assert_eq!(snapshots.len(), 1, "the second recovery started over");
}

#[test]
fn without_any_head_recovery_says_how_many_peers_answered() {
    let grid = Grid::new();
    grid.stores[0].set(|faults| faults.unreachable = true);
    let error = grid.recover(&grid.blank()).unwrap_err();
    assert!(matches!(error, RecoverError::NoHead { answered: 4 }), "{error}");
}

#[test]
fn a_section_that_is_damaged_is_an_error_and_no_panic() {
    assert!(section::decode(&[0; 40]).is_err());
    assert!(sections::records::<LogRecord>(&[1, 2, 3]).is_err());
}

mod file;
mod view;
