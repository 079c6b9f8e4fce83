//! A disk whose packs and heads lie in real folders: what comes back when this machine's part of it, or a folder, is lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use backup::catalog::content::live;
use backup::catalog::{MIGRATIONS, content, tree};
use backup::exclude::Rules;
use backup::heads::look;
use backup::prune::{Exchange, discard_dead};
use backup::restore::Reader;
use backup::scan::{Emptied, ScanOptions, scan};
use backup::writer::disks::{DiskPost, DiskPosted};
use backup::writer::{PrepareLimits, Writer};
use database::Db;
use disk::claim::writer::{Commit, Handover, Writer as Claim};
use disk::commit::compose::{Prepared, compose};
use disk::commit::opening::{PackReader, open};
use disk::commit::pack_table::PackTable;
use disk::commit::root::Root;
use disk::commit::state::Committed;
use disk::committed::CommittedBlocks;
use disk::extents::MapOptions;
use disk::journal::{JournalKey, JournalOptions};
use disk::volume::{Batch, Volume, VolumeOptions};
use disk::{Change, Device, DeviceError};
use ed25519_dalek::SigningKey;
use futures::executor::block_on;
use proto::head::{DiskHead, RootRef};
use proto::id::DeviceId;
use proto::keys::{AccountKeys, DeviceCert, power, words_key};
use proto::phrase::Seed;
use stores::bucket::Signer;
use stores::folder::FolderStore;
use stores::removable::DirPeer;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use upload_queue::packs::PackRow;
use upload_queue::peers::place::Place;
use upload_queue::peers::{Peer, PeerSet, Reach};
use upload_queue::priority::Weights;
use upload_queue::queue::Queue;
use upload_queue::space::MinFree;
use upload_queue::spool::Spool;
use upload_queue::uploader::{Uploader, UploaderConfig};

use crate::incoming::IncomingPacks;
use crate::outgoing::{Delivered, OutgoingPacks};
use crate::voters::{self, Electorate};
use crate::voting::{Voting, disk_head, rules};

mod way;

const FOLDERS: usize = 4;
const VOLUME: [u8; 16] = [9; 16];
const SIZE: u64 = 64 << 20;
const SOON: Duration = Duration::from_secs(60);

struct Grid {
    dir: tempfile::TempDir,
    runtime: Runtime,
    keys: Arc<AccountKeys>,
    peers: PeerSet,
    db: Db,
    writer: Writer,
}

impl Grid {
    /// Shares for `reach` peers go through the spool, or do not.
    fn new(reach: Reach) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let keys = Arc::new(AccountKeys::from_seed(&Seed([3; 32])));
        let signer = Signer {
            device: device(),
            cert: cert(),
        };
        let peers = (0..FOLDERS).map(|number| {
            let path = folder(dir.path(), number);
            std::fs::create_dir_all(&path).unwrap();
            FolderStore::open(&path, keys.account_id(), None).unwrap();
            let place = Place::Folder(path.clone());
            Peer {
                key: place.key(),
                place,
                name: format!("folder {number}"),
                domain: format!("domain {number}"),
                reach,
                store: Arc::new(DirPeer::new(path, signer.clone(), None).keeping_free(MinFree::Bytes(0))),
            }
        });
        let peers = PeerSet::new(peers.collect());
        let db = Db::in_memory(MIGRATIONS).unwrap();
        let writer = writer(dir.path(), &runtime, &keys, &peers, &db);
        Self {
            dir,
            runtime,
            keys,
            peers,
            db,
            writer,
        }
    }

    fn reader(&self) -> Reader {
        Reader {
            db: self.db.clone(),
            peers: self.peers.clone(),
            spool: Some(Spool::open(&self.dir.path().join("spool")).unwrap()),
            keys: self.keys.clone(),
            runtime: self.runtime.handle().clone(),
            bytes_in_flight_max: 64 << 20,
        }
    }

    fn away(&self, number: usize) {
        std::fs::rename(
            folder(self.dir.path(), number),
            self.dir.path().join(format!("away{number}")),
        )
        .unwrap();
    }

    fn back(&self, number: usize) {
        std::fs::rename(
            self.dir.path().join(format!("away{number}")),
            folder(self.dir.path(), number),
        )
        .unwrap();
    }

    /// The newest commit of the disk that any peer's head has.
    fn newest(&self) -> DiskHead {
        let looked = self.runtime.block_on(look(&self.peers.all(), &self.keys, SOON));
        let heads = looked.iter().flat_map(|looked| looked.sound());
        let disks = heads.flat_map(|open| open.body.disks.clone().unwrap_or_default());
        disks.max_by_key(DiskHead::number).unwrap()
    }

    fn back_up(&self, content: &[u8]) {
        let tree = self.dir.path().join("tree");
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::write(tree.join("file"), content).unwrap();
        let options = ScanOptions {
            roots: vec![std::fs::canonicalize(tree).unwrap()],
            rules: Rules::default(),
            own_state: Vec::new(),
            one_file_system: true,
            emptied: Emptied::ForGood,
            device: self.writer.cert.device,
            now_ns: 1,
        };
        scan(&self.db, &self.writer.queue, &options, &|_, _| {}).unwrap();
        let summary = self.writer.run(&AtomicBool::new(false), &|_| {}).unwrap();
        assert!(summary.failed.is_empty());
    }

    /// Creates the disk: its first commit is of nothing.
    fn create(&self) -> DiskPosted {
        let root = Root::first(VOLUME, "disk".to_owned(), SIZE, Vec::new());
        let none = Committed::new(root, PackTable::default(), Default::default());
        let batch = Batch {
            seq: 0,
            pieces: Vec::new(),
        };
        let delivered = Delivered::default();
        let mut packs = OutgoingPacks::new(&self.writer, VOLUME, delivered.clone());
        let Prepared { at, .. } = compose(&none, &|_| Ok(None), &batch, 0, &mut packs).unwrap();
        self.post(at, 1, &delivered.all())
    }

    fn post(&self, root: RootRef, commit: u64, packs: &[PackRow]) -> DiskPosted {
        assert!(self.writer.wait_safe(packs, SOON, &AtomicBool::new(false)).unwrap());
        let head = DiskHead {
            volume: VOLUME,
            epoch: 1,
            commit,
            root,
        };
        let post = DiskPost {
            volume: VOLUME,
            newest: Some(head),
            packs,
        };
        self.writer.post_disk(&post, &|_| {}).unwrap()
    }

    /// Opens the disk with a new local folder, from what peers have alone.
    fn open(&self, name: &str) -> Machine<'_> {
        let local = self.dir.path().join(name);
        std::fs::create_dir_all(local.join("journal")).unwrap();
        std::fs::create_dir_all(local.join("map")).unwrap();
        let packs = Arc::new(IncomingPacks::new(self.reader()));
        let map = MapOptions::new(local.join("map"), VOLUME);
        let opened = open(&self.newest().root, packs, map, false).unwrap();
        let blocks = Arc::new(CommittedBlocks::new(opened, 1 << 20, self.runtime.handle().clone()));
        let options = VolumeOptions {
            journal: JournalOptions {
                file_bytes: 1 << 20,
                file_count: 64,
                ..JournalOptions::new(local.join("journal"))
            },
            size: SIZE,
            is_read_only: false,
            patience: Duration::from_secs(1),
        };
        let volume = Volume::open(options, JournalKey::new(&[5; 32], [6; 16]), blocks.clone()).unwrap();
        Machine {
            grid: self,
            volume,
            blocks,
        }
    }
}

fn folder(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("folder{number}"))
}

fn device() -> SigningKey {
    SigningKey::from_bytes(&[4; 32])
}

fn cert() -> DeviceCert {
    let id = DeviceId(device().verifying_key().to_bytes());
    DeviceCert::sign(&words_key(&Seed([3; 32])), id, power::ALL, "laptop", 1)
}

fn writer(dir: &Path, runtime: &Runtime, keys: &Arc<AccountKeys>, peers: &PeerSet, db: &Db) -> Writer {
    let _in_runtime = runtime.enter();
    let config = UploaderConfig {
        spool: dir.join("spool"),
        spool_bytes_max: 1 << 30,
        min_free: MinFree::Bytes(0),
        puts_per_peer: 2,
        tolerate: 1,
        steward: None,
    };
    let (events, _) = tokio::sync::mpsc::channel(16);
    Writer {
        db: db.clone(),
        queue: Queue::open(db.clone(), Weights::default()).unwrap(),
        uploader: Uploader::start(db.clone(), peers.clone(), config, events).unwrap(),
        keys: keys.clone(),
        device: device(),
        cert: cert(),
        peers: peers.clone(),
        heads: Default::default(),
        runtime: runtime.handle().clone(),
        settings: None,
        limits: PrepareLimits {
            bytes_in_flight_max: 64 << 20,
            threads: 2,
            zstd_level: 1,
            post_interval_secs: 300,
        },
    }
}

struct Machine<'a> {
    grid: &'a Grid,
    volume: Volume,
    blocks: Arc<CommittedBlocks>,
}

impl Machine<'_> {
    fn write(&self, offset: u64, data: &[u8]) {
        self.volume.apply(&[Change::Write { offset, data }]).unwrap();
    }

    fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        block_on(self.volume.read(offset, length)).unwrap()
    }

    fn commit(&self) -> DiskPosted {
        block_on(self.volume.flush()).unwrap();
        let batch = self.volume.batch(u64::MAX).unwrap();
        let delivered = Delivered::default();
        let mut packs = OutgoingPacks::new(&self.grid.writer, VOLUME, delivered.clone());
        let prepared = self.blocks.prepare(&batch, 77, &mut packs).unwrap();
        let commit = prepared.committed.root.commit;
        let posted = self.grid.post(prepared.at.clone(), commit, &delivered.all());
        if posted.is_safe {
            self.blocks.accept(&prepared).unwrap();
            let seq = batch.seq;
            drop(batch);
            self.volume.release(seq);
        }
        posted
    }
}

/// Bytes that do not compress, so that a megabyte takes more than a pack of the smallest shape.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let bytes = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    });
    bytes.take(len).collect()
}

#[test]
fn a_disk_comes_back_from_the_head_that_peers_have_with_as_many_folders_lost_as_may_be() {
    let grid = Grid::new(Reach::Local);
    assert!(grid.create().is_safe);
    let machine = grid.open("first");
    let (large, small) = (noise(1, 3 << 20), noise(2, 4096));
    machine.write(5 << 20, &large);
    let posted = machine.commit();
    assert_eq!((posted.is_safe, posted.peers.len()), (true, FOLDERS));
    grid.back_up(&noise(5, 200_000));
    machine.write((5 << 20) + 8192, &small);
    assert!(machine.commit().is_safe);
    grid.back_up(&noise(6, 200_000));
    machine.write(40 << 20, &small);
    assert!(machine.commit().is_safe);
    drop(machine);

    let mut expected = large.clone();
    expected[8192..][..4096].copy_from_slice(&small);
    let compare = |machine: &Machine<'_>| {
        assert!(machine.read(5 << 20, large.len()) == expected);
        assert!(machine.read(40 << 20, 4096) == small);
        assert!(machine.read(0, 4096) == [0; 4096]);
    };
    assert_eq!(grid.newest().number(), (1, 4));
    compare(&grid.open("second"));
    for number in 0..FOLDERS {
        grid.away(number);
        compare(&grid.open(&format!("without {number}")));
        grid.back(number);
    }

    // The backup is as whole as the disk, and that all its snapshots are forgotten is nothing to the disk.
    let last = grid.db.read(tree::snapshots).unwrap().pop().unwrap().record.seq;
    let path = std::fs::canonicalize(grid.dir.path().join("tree/file")).unwrap();
    let mut file = Vec::new();
    grid.reader()
        .cat(last, path.to_str().unwrap().as_bytes(), &mut file)
        .unwrap();
    assert!(file == noise(6, 200_000));
    let all = grid.db.read(tree::snapshots).unwrap();
    let all: Vec<u64> = all.iter().map(|snapshot| snapshot.record.seq).collect();
    grid.db.write(|tx| tree::forget(tx, &all, 1)).unwrap();
    let wanted = grid.db.read(|conn| live::wanted(conn, &[])).unwrap();
    grid.db.write(|tx| live::record(tx, &wanted, 1)).unwrap();
    grid.writer.post(&|_| {}).unwrap();
    let peers = grid.peers.all();
    let pruning = discard_dead(&grid.db, &peers);
    let exchanges = grid.runtime.block_on(pruning).unwrap();
    let is_pruned = |exchange: &Exchange| exchange.failed.is_none() && exchange.shares > 0;
    assert!(exchanges.iter().all(is_pruned), "{exchanges:?}");
    compare(&grid.open("third"));
    assert!(grid.db.read(content::post::is_acknowledged).unwrap());
}

#[test]
fn what_is_only_in_the_spool_is_read_from_there_and_what_is_nowhere_is_said_to_be_away() {
    let grid = Grid::new(Reach::Remote);
    assert!(grid.create().is_safe);
    for number in 0..FOLDERS {
        grid.away(number);
    }
    let mut packs = OutgoingPacks::new(&grid.writer, VOLUME, Delivered::default());
    let plain = noise(3, 100_000);
    let shape = grid.writer.shapes()[1];
    let pack = disk::commit::compose::PackSink::deliver(&mut packs, plain.clone(), shape.plain_bytes()).unwrap();
    let incoming = IncomingPacks::new(grid.reader());
    assert!(incoming.read(&pack, 60_000..100_000).unwrap() == plain[60_000..]);
    let holders = grid.db.read(upload_queue::packs::holders).unwrap();
    assert!(holders.iter().all(|holder| holder.0.starts_with("dir:")), "{holders:?}");

    let reader = Reader {
        spool: None,
        ..grid.reader()
    };
    let begun = Instant::now();
    let error = IncomingPacks::new(reader)
        .with_patience(Duration::from_secs(5))
        .read(&pack, 0..1000)
        .unwrap_err();
    assert!(matches!(error, DeviceError::Unavailable(_)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

/// A process was killed when it had signed a head, and before anybody had it: the disk could never be opened again.
#[test]
fn a_head_that_was_signed_and_is_nowhere_is_put_by_whoever_opens_the_disk() {
    let grid = Grid::new(Reach::Local);
    assert!(grid.create().is_safe);
    let electorate = Electorate::of(grid.runtime.block_on(voters::choose(&grid.peers.all(), &[])));
    let rules = rules(&grid.writer, &electorate, Handover::Forced).unwrap();
    let vote = |claim, is_taken_over| {
        let end = CancellationToken::new();
        let voting = {
            let _in_runtime = grid.runtime.enter();
            Voting::start(claim, electorate.clone(), VOLUME, grid.writer.clone(), &end)
        };
        if is_taken_over {
            grid.runtime.block_on(voting.found(Duration::from_secs(20))).unwrap();
            voting.adopt(None);
        }
        grid.runtime.block_on(voting.open(Duration::from_secs(20))).unwrap();
        end.cancel();
        voting.epoch().unwrap()
    };
    let epoch = vote(Claim::take_over(rules, None), true);
    let root = grid.newest().root;
    (0..FOLDERS).for_each(|number| grid.away(number));
    let signed = disk_head(
        VOLUME,
        &Commit {
            epoch,
            number: 2,
            root: root.clone(),
        },
    );
    let post = DiskPost {
        volume: VOLUME,
        newest: Some(signed),
        packs: &[],
    };
    assert!(!grid.writer.post_disk(&post, &|_| {}).unwrap().is_safe);
    (0..FOLDERS).for_each(|number| grid.back(number));
    let newest = Commit { epoch, number: 2, root };
    vote(Claim::resume(rules, newest, 1), false);
    assert_eq!(grid.newest().number(), (epoch.counter, 2));
}

#[test]
fn that_a_disk_is_gone_is_told_to_peers_also_if_nothing_else_is_left() {
    let grid = Grid::new(Reach::Local);
    assert!(grid.create().is_safe);
    let gone = DiskPost {
        volume: VOLUME,
        newest: None,
        packs: &[],
    };
    assert!(grid.writer.post_disk(&gone, &|_| {}).unwrap().is_safe);
    let looked = grid.runtime.block_on(look(&grid.peers.all(), &grid.keys, SOON));
    let heads: Vec<_> = looked.iter().flat_map(|looked| looked.sound()).collect();
    assert_eq!(heads.len(), FOLDERS);
    assert!(heads.iter().all(|open| open.body.disks.is_none()));
}
