//! Commits of disks beside backups: one chain of heads, which keeps both.

use proto::head::{DiskHead, RootRef};
use upload_queue::packs::{PackRow, Purpose};

use super::*;
use crate::catalog::content::{live, post};
use crate::heads::look;
use crate::writer::disks::{DiskPost, DiskPosted};

const VOLUME: [u8; 16] = [7; 16];
const SOON: std::time::Duration = std::time::Duration::from_secs(20);

/// Makes a commit's pack and waits for it, if that is worth it.
fn commit(writer: &Writer, number: u64) -> (DiskHead, PackRow) {
    let shape = writer.shapes()[0];
    let (row, pack) = writer.seal_and_deliver(shape, &number.to_le_bytes(), VOLUME).unwrap();
    let root = RootRef {
        pack,
        offset: 0,
        len: 100,
    };
    let head = DiskHead {
        volume: VOLUME,
        epoch: 1,
        commit: number,
        root,
    };
    (head, row)
}

fn post_commit(writer: &Writer, (head, row): (DiskHead, PackRow)) -> Result<DiskPosted, WriteError> {
    let post = DiskPost {
        volume: VOLUME,
        newest: Some(head),
        packs: &[row],
    };
    writer.post_disk(&post, &|_| {})
}

fn commit_and_post(writer: &Writer, number: u64) -> DiskPosted {
    let (head, row) = commit(writer, number);
    assert!(writer.wait_safe(&[row], SOON, &AtomicBool::new(false)).unwrap());
    post_commit(writer, (head, row)).unwrap()
}

impl Bench {
    fn posted(&self) -> content::Posted {
        self.db.read(content::posted).unwrap().unwrap()
    }

    /// The bodies of the newest head at each peer.
    fn at_peers(&self) -> Vec<proto::head::HeadBody> {
        let looked = self.runtime.block_on(look(&self.peers.all(), &self.keys, SOON));
        let heads = looked.iter().flat_map(|looked| looked.sound());
        heads.map(|open| open.body.clone()).collect()
    }
}

fn commit_of(body: &proto::head::HeadBody) -> Option<u64> {
    body.disks.as_ref().map(|disks| disks[0].commit)
}

#[test]
fn a_backup_keeps_the_disk_and_a_commit_of_the_disk_keeps_the_backup() {
    let bench = Bench::new();
    let writer = bench.writer();
    let first = commit_and_post(&writer, 1);
    assert_eq!((first.is_safe, first.peers.len()), (true, PEERS));
    assert!(
        bench
            .at_peers()
            .iter()
            .all(|body| body.root.is_none() && commit_of(body) == Some(1))
    );

    bench.write("file", &[1; 100_000]);
    bench.backup();
    let backed_up = bench.posted();
    assert!(backed_up.body.root.is_some() && commit_of(&backed_up.body) == Some(1));
    let writer = bench.writer();
    assert!(commit_and_post(&writer, 2).is_safe);
    let newest = bench.posted();
    assert_eq!(newest.body.root, backed_up.body.root);
    assert_eq!(newest.body.snapshot, backed_up.body.snapshot);
    assert_eq!(newest.root, backed_up.root);
    assert_eq!(bench.waiting_jobs(), 0);

    bench.backup(); // nothing changed: a head alone
    bench.write("file", &[2; 100_000]);
    bench.backup();
    let peers = bench.at_peers();
    assert!(peers.len() == PEERS && peers.iter().all(|body| commit_of(body) == Some(2)));
    let (recovered, _) = bench.recover(&Aim::default());
    assert_eq!(bench.cat(&recovered, "file"), [2; 100_000]);
    let carried = recovered.read(content::posted).unwrap().unwrap();
    assert_eq!(commit_of(&carried.body), Some(2));

    let taken_out = DiskPost {
        volume: VOLUME,
        newest: None,
        packs: &[],
    };
    assert!(bench.writer().post_disk(&taken_out, &|_| {}).unwrap().is_safe);
    assert_eq!(commit_of(&bench.posted().body), None);
}

#[test]
fn an_older_commit_is_refused_and_nothing_is_written() {
    let bench = Bench::new();
    let writer = bench.writer();
    commit_and_post(&writer, 2);
    let seq = bench.seq();
    let error = post_commit(&writer, commit(&writer, 1)).unwrap_err();
    assert!(error.to_string().contains("older than commit 2"), "{error}");
    assert_eq!((bench.seq(), commit_of(&bench.posted().body)), (seq, Some(2)));
}

#[test]
fn a_disk_that_has_no_room_in_a_head_is_refused_before_anything_is_written() {
    let bench = Bench::new();
    bench.write("file", b"first");
    bench.backup();
    let writer = bench.writer();
    let mut fitting = 0;
    let error = loop {
        if let Err(error) = writer.room_for_disk([fitting; 16]) {
            break error;
        }
        let (head, row) = commit(&writer, 1);
        let volume = [fitting; 16];
        let post = DiskPost {
            volume,
            newest: Some(DiskHead { volume, ..head }),
            packs: &[row],
        };
        writer.post_disk(&post, &|_| {}).unwrap();
        fitting += 1;
    };
    assert!(error.to_string().contains("remove a disk"), "{error}");
    // Four shares: a little less than over five.
    assert_eq!(fitting, 5);
    // The disks that are there go on, and so do backups.
    writer.room_for_disk([0; 16]).unwrap();
    bench.write("file", b"second");
    bench.backup();
    assert!(bench.db.read(post::is_acknowledged).unwrap());
    assert_eq!(bench.posted().body.disks.unwrap().len(), 5);
}

/// Both read the newest head, sign the next one and record it: without one lock for it two heads had one number.
#[test]
fn a_backup_and_a_disk_at_once_sign_no_two_heads_with_one_number() {
    const COMMITS: u64 = 12;
    let bench = Bench::new();
    bench.write("file", b"first");
    bench.backup();
    let writer = bench.writer();
    let before = bench.seq();
    let posts = std::thread::scope(|scope| {
        let of_disk = writer.clone();
        let disk = scope.spawn(move || {
            for number in 1..=COMMITS {
                let (head, row) = commit(&of_disk, number);
                post_commit(&of_disk, (head, row)).unwrap();
            }
        });
        let mut posts = 0;
        while !disk.is_finished() || posts == 0 {
            bench.write("file", format!("{posts}").as_bytes());
            bench.scan(&writer);
            let of_backup = bench.seq();
            bench.run(&writer);
            assert!(bench.seq() > of_backup);
            posts += 1;
        }
        disk.join().unwrap();
        posts
    });
    assert!(bench.seq() >= before + COMMITS + posts);
    assert_eq!(commit_of(&bench.posted().body), Some(COMMITS));
    let (recovered, _) = bench.recover(&Aim::default());
    assert_eq!(bench.cat(&recovered, "file"), format!("{}", posts - 1).as_bytes());
}

#[test]
fn a_home_that_was_turned_back_posts_no_commit() {
    let bench = Bench::new();
    bench.write("file", b"first");
    bench.backup();
    let old = bench.second(4, Db::in_memory(MIGRATIONS).unwrap());
    old.db.replace_by(&bench.db, &|_| true).unwrap();
    assert!(commit_and_post(&bench.writer(), 1).is_safe);
    assert!(old.ahead() > 0);
    let seq = old.seq();
    let writer = old.writer();
    let error = post_commit(&writer, commit(&writer, 1)).unwrap_err();
    assert!(matches!(error, WriteError::Overtaken), "{error}");
    assert_eq!(old.seq(), seq);
}

#[test]
fn a_commit_counts_only_when_its_packs_are_safe_and_a_backup_is_none_the_worse() {
    let bench = Bench::new();
    bench.write("file", b"first");
    bench.backup();
    let writer = bench.writer();
    for peer in 1..PEERS {
        bench.away(peer, true);
    }
    let (head, row) = commit(&writer, 1);
    let stop = AtomicBool::new(false);
    let begun = std::time::Instant::now();
    let patience = std::time::Duration::from_millis(500);
    assert!(!writer.wait_safe(&[row], patience, &stop).unwrap());
    stop.store(true, Ordering::Relaxed);
    assert!(!writer.wait_safe(&[row], SOON, &stop).unwrap() && begun.elapsed() < SOON / 2);
    let posted = post_commit(&writer, (head, row)).unwrap();
    assert!(!posted.is_safe, "{posted:?}");
    assert!(!bench.db.read(post::is_acknowledged).unwrap());
    assert!(bench.db.read(post::is_backup_acknowledged).unwrap());
    for peer in 1..PEERS {
        bench.away(peer, false);
    }
    // Whatever posts next goes on with it.
    let writer = bench.writer();
    assert!(writer.wait_safe(&[row], SOON, &AtomicBool::new(false)).unwrap());
    writer.post(&|_| {}).unwrap();
    assert!(bench.db.read(post::is_acknowledged).unwrap());
    assert!(bench.at_peers().iter().all(|body| commit_of(body) == Some(1)));
}

#[test]
fn nothing_that_files_want_or_not_gives_up_a_pack_of_a_disk() {
    let bench = Bench::new();
    let writer = bench.writer();
    let (head, row) = commit(&writer, 1);
    assert!(writer.wait_safe(&[row], SOON, &AtomicBool::new(false)).unwrap());
    post_commit(&writer, (head, row)).unwrap();
    let wanted = bench.db.read(|conn| live::wanted(conn, &[])).unwrap();
    assert!(wanted.dying.is_empty() && wanted.live.is_empty());
    // All shares are gone: the pack is lost, counted, and not buried as a file's would be.
    let keys: Vec<PeerKey> = bench.peers.all().into_iter().map(|peer| peer.key).collect();
    bench
        .db
        .write(|tx| keys.iter().try_for_each(|key| packs::forget_holder(tx, key).map(drop)))
        .unwrap();
    assert_eq!(bench.db.read(|conn| packs::lost(conn, Purpose::Disk)).unwrap(), [row]);
    assert_eq!(bench.db.write(|tx| content::lost::bury(tx, 1)).unwrap(), 0);
    assert_eq!(bench.db.read(|conn| packs::lost(conn, Purpose::Disk)).unwrap(), [row]);
    // The next backup is not kept from being posted by it.
    bench.write("file", b"first");
    bench.backup();
    assert!(bench.db.read(post::is_acknowledged).unwrap());
}
