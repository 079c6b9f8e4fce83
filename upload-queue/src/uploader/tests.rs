use std::num::NonZeroU32;
use std::sync::Mutex;

use proto::share_store::faulty::{Faults, Faulty};
use proto::share_store::memory::MemoryStore;
use proto::share_store::{BoxFuture, HeadStore, PromiseStore, PutAck, ShareStore, Space};
use tokio::sync::mpsc;

use super::*;
use crate::fixture;
use crate::packs::{KnownPack, Purpose};
use crate::peers::place::Place;
use crate::peers::{Peer, Reach};

mod refusals;
mod room;
mod steward;

/// Counts the puts that pass, in order, on their way to a store with faults.
struct TestStore {
    inner: Faulty<MemoryStore>,
    put: Mutex<Vec<ShareId>>,
    delay: Duration,
}

impl ShareStore for TestStore {
    fn put(&self, id: ShareId, share: Share) -> BoxFuture<'_, Result<PutAck, StoreError>> {
        Box::pin(async move {
            tokio::time::sleep(self.delay).await;
            let ack = self.inner.put(id, share).await?;
            self.put.lock().unwrap().push(id);
            Ok(ack)
        })
    }
    fn get(&self, id: ShareId, range: std::ops::Range<u32>) -> BoxFuture<'_, Result<bytes::Bytes, StoreError>> {
        self.inner.get(id, range)
    }
    fn list(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        self.inner.list(after, limit)
    }
    fn remove(&self, id: ShareId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.remove(id)
    }
    fn space(&self) -> BoxFuture<'_, Result<Space, StoreError>> {
        self.inner.space()
    }
}

impl HeadStore for TestStore {
    fn put_head(&self, head: bytes::Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.put_head(head)
    }
    fn heads(&self, account: proto::id::AccountId) -> BoxFuture<'_, Result<Vec<bytes::Bytes>, StoreError>> {
        self.inner.heads(account)
    }
}

impl PromiseStore for TestStore {}

/// A grid of some peers and everything of ours that survives a restart.
struct Grid {
    db: Db,
    folder: tempfile::TempDir,
    stores: Vec<Arc<TestStore>>,
    peers: PeerSet,
    spool_bytes_max: u64,
}

impl Grid {
    fn new(reaches: &[Reach]) -> Self {
        Self::with_stores(reaches, Duration::ZERO, |_| MemoryStore::new())
    }

    fn with_stores(reaches: &[Reach], delay: Duration, make: impl Fn(usize) -> MemoryStore) -> Self {
        let store = |number| {
            Arc::new(TestStore {
                inner: Faulty::new(make(number)),
                put: Mutex::default(),
                delay,
            })
        };
        let stores: Vec<_> = (0..reaches.len()).map(store).collect();
        let peer = |(number, (store, reach)): (usize, (&Arc<TestStore>, &Reach))| Peer {
            key: key(number),
            place: Place::Folder("/memory".into()),
            name: format!("Friend {number}"),
            domain: format!("home {number}"),
            reach: *reach,
            store: store.clone(),
        };
        Self {
            db: Db::in_memory(crate::schema::MIGRATIONS).unwrap(),
            folder: tempfile::tempdir().unwrap(),
            peers: PeerSet::new(stores.iter().zip(reaches).enumerate().map(peer).collect()),
            stores,
            spool_bytes_max: 1 << 30,
        }
    }

    fn remote(count: usize) -> Self {
        Self::new(&vec![Reach::Remote; count])
    }

    fn start(&self, tolerate: u8) -> (Uploader, mpsc::Receiver<UploadEvent>) {
        self.start_with(tolerate, None)
    }

    fn start_with(&self, tolerate: u8, steward: Option<StewardPeer>) -> (Uploader, mpsc::Receiver<UploadEvent>) {
        let (events, told) = mpsc::channel(1000);
        let config = UploaderConfig {
            spool: self.folder.path().join("spool"),
            spool_bytes_max: self.spool_bytes_max,
            min_free: MinFree::Bytes(0),
            puts_per_peer: 2,
            tolerate,
            steward,
        };
        (
            Uploader::start(self.db.clone(), self.peers.clone(), config, events).unwrap(),
            told,
        )
    }

    fn fault(&self, number: usize, change: impl FnOnce(&mut Faults)) {
        self.stores[number].inner.set(change);
    }

    fn pack(&self, row: PackRow) -> KnownPack {
        self.db
            .read::<_, DbError>(|conn| packs::get(conn, row))
            .unwrap()
            .unwrap()
    }

    fn puts(&self) -> usize {
        self.stores.iter().map(|store| store.put.lock().unwrap().len()).sum()
    }

    fn spool_files(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("spool")).unwrap().count()
    }

    /// Every holder that the database names has its share.
    fn assert_holders_hold(&self, row: PackRow) {
        let pack = self.pack(row);
        for (id, holder) in pack.manifest.shares.iter().zip(&pack.holders) {
            let Some(holder) = holder else { continue };
            let held = self
                .stores
                .iter()
                .enumerate()
                .any(|(number, store)| key(number) == *holder && store.put.lock().unwrap().contains(id));
            assert!(held, "{holder:?} does not have {id}");
        }
    }
}

fn key(number: usize) -> PeerKey {
    PeerKey(format!("friend:{number}"))
}

async fn deliver(uploader: &Uploader, pack: OutgoingPack) -> PackRow {
    uploader.deliver(pack, |_, _| Ok(())).await.unwrap()
}

fn told(events: &mut mpsc::Receiver<UploadEvent>) -> Vec<UploadEvent> {
    std::iter::from_fn(|| events.try_recv().ok()).collect()
}

fn full() -> StoreError {
    StoreError::Full { reason: "quota".into() }
}

#[tokio::test]
async fn every_share_goes_to_a_peer_of_its_own_and_leaves_the_spool() {
    let grid = Grid::remote(3);
    let (uploader, mut events) = grid.start(1);
    assert_eq!(uploader.code(), (2, 3));
    let rows = [
        deliver(&uploader, fixture::pack(1, 2, 3)).await,
        deliver(&uploader, fixture::pack(2, 2, 3)).await,
    ];
    let report = uploader.drain().await.unwrap();

    assert_eq!((report.packs_unsafe, report.shares_waiting), (0, 0));
    assert!(report.peers_failed.is_empty());
    let share_bytes = proto::shape::ShareSize::Small.stored_bytes() as u64;
    assert_eq!(report.bytes_sent, 6 * share_bytes);
    assert_eq!((grid.puts(), grid.spool_files()), (6, 0));
    for row in rows {
        let pack = grid.pack(row);
        let mut holders = pack.holders.clone();
        holders.sort();
        assert_eq!(holders, [Some(key(0)), Some(key(1)), Some(key(2))]);
        grid.assert_holders_hold(row);
        assert!(uploader.settled(row).await.unwrap());
    }
    let events = told(&mut events);
    let count = |which: &dyn Fn(&UploadEvent) -> bool| events.iter().filter(|event| which(event)).count();
    assert_eq!(
        count(&|event| matches!(event, UploadEvent::Delivered { bytes, .. } if *bytes == share_bytes)),
        6
    );
    assert_eq!(count(&|event| matches!(event, UploadEvent::PackSafe { .. })), 2);
}

#[tokio::test]
async fn local_peers_have_their_share_when_deliver_returns_and_nothing_is_spooled_for_them() {
    let grid = Grid::new(&[Reach::Local, Reach::Local]);
    let (uploader, mut events) = grid.start(1);
    let row = deliver(&uploader, fixture::pack(1, 1, 2)).await;
    assert_eq!((grid.puts(), grid.spool_files()), (2, 0));
    assert_eq!(grid.pack(row).held(), 2);
    assert!(
        told(&mut events)
            .iter()
            .any(|event| matches!(event, UploadEvent::PackSafe { pack } if *pack == row))
    );
}

#[tokio::test]
async fn the_pack_and_what_goes_with_it_are_one_transaction() {
    let grid = Grid::remote(2);
    let (uploader, _events) = grid.start(1);
    let refuse = |_: &Transaction<'_>, _| Err(DbError::Foreign { path: "refused".into() });
    let result = uploader.deliver(fixture::pack(1, 1, 2), refuse).await;
    assert!(matches!(result, Err(UploadError::Db(_))));
    assert!(grid.db.read::<_, DbError>(packs::rows).unwrap().is_empty());
    assert_eq!((grid.puts(), grid.spool_files()), (0, 0));
    assert_eq!(uploader.drain().await.unwrap().shares_waiting, 0);
}

#[tokio::test]
async fn a_spool_that_cannot_be_written_is_an_error_that_names_it_and_records_nothing() {
    let grid = Grid::remote(2);
    let (uploader, _events) = grid.start(1);
    let spool = grid.folder.path().join("spool");
    std::fs::remove_dir(&spool).unwrap();
    let error = uploader
        .deliver(fixture::pack(1, 1, 2), |_, _| Ok(()))
        .await
        .unwrap_err();
    assert!(
        error.to_string().starts_with(&format!("The spool {}", spool.display())),
        "{error}"
    );
    assert!(grid.db.read::<_, DbError>(packs::rows).unwrap().is_empty());
}

/// With k = 1 all shares are the same bytes and one spool file, which must stay until the last of them is delivered.
#[tokio::test]
async fn copies_that_share_a_spool_file_all_arrive() {
    let grid = Grid::remote(3);
    grid.fault(2, |faults| faults.unreachable = true);
    let (uploader, _events) = grid.start(2);
    assert_eq!(uploader.code(), (1, 3));
    let row = deliver(&uploader, fixture::pack(1, 1, 3)).await;
    let report = uploader.drain().await.unwrap();
    assert_eq!(
        (report.shares_waiting, grid.pack(row).held(), grid.spool_files()),
        (1, 2, 1)
    );
    grid.fault(2, |faults| faults.unreachable = false);
    uploader.wake();
    assert_eq!(uploader.drain().await.unwrap().shares_waiting, 0);
    assert_eq!((grid.pack(row).held(), grid.spool_files()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_passes_is_tried_again() {
    let grid = Grid::remote(2);
    grid.fault(1, |faults| faults.fail_puts = 3);
    let (uploader, mut events) = grid.start(1);
    let row = deliver(&uploader, fixture::pack(1, 1, 2)).await;
    let report = uploader.drain().await.unwrap();
    assert_eq!((report.shares_waiting, grid.pack(row).held()), (0, 2));
    assert!(report.peers_failed.is_empty(), "it took the share in the end");
    assert!(
        told(&mut events)
            .iter()
            .any(|event| matches!(event, UploadEvent::PeerFailed { peer, .. } if *peer == key(1)))
    );
}

#[tokio::test(start_paused = true)]
async fn a_busy_peer_is_left_alone_for_as_long_as_it_asks() {
    let grid = Grid::remote(1);
    let retry_after = Duration::from_secs(3);
    grid.fault(0, |faults| {
        (faults.fail_puts, faults.put_error) = (1, Some(StoreError::Busy { retry_after }))
    });
    let (uploader, _events) = grid.start(0);
    let row = deliver(&uploader, fixture::pack(1, 1, 1)).await;
    let start = Instant::now();
    while grid.pack(row).held() == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(start.elapsed() >= Duration::from_millis(2900), "{:?}", start.elapsed());
}

#[tokio::test]
async fn drain_ends_when_a_peer_does_not_answer_and_says_so() {
    let grid = Grid::remote(3);
    grid.fault(1, |faults| faults.unreachable = true);
    let (uploader, _events) = grid.start(1);
    let row = deliver(&uploader, fixture::pack(1, 2, 3)).await;
    let report = uploader.drain().await.unwrap();
    assert_eq!((report.packs_unsafe, report.shares_waiting), (1, 1));
    assert!(matches!(&report.peers_failed[..], [(peer, StoreError::Unreachable { .. })] if *peer == key(1)));
    assert!(!uploader.settled(row).await.unwrap());
    assert_eq!((grid.pack(row).held(), grid.spool_files()), (2, 1));

    grid.fault(1, |faults| faults.unreachable = false);
    uploader.wake();
    assert!(uploader.settled(row).await.unwrap());
}

#[tokio::test]
async fn the_share_of_a_full_peer_goes_to_a_domain_that_has_none() {
    let grid = Grid::remote(3);
    for number in 0..2 {
        grid.fault(number, |faults| {
            (faults.fail_puts, faults.put_error) = (u32::MAX, Some(full()))
        });
    }
    let (uploader, _events) = grid.start(1);
    let rows = [
        deliver(&uploader, fixture::pack(1, 1, 1)).await,
        deliver(&uploader, fixture::pack(2, 1, 1)).await,
    ];
    assert_eq!(uploader.drain().await.unwrap().shares_waiting, 0);
    for row in rows {
        assert_eq!(grid.pack(row).holders, [Some(key(2))]);
    }
}

#[tokio::test]
async fn what_no_peer_takes_waits_in_the_spool_until_one_does() {
    let grid = Grid::remote(2);
    grid.fault(1, |faults| {
        (faults.fail_puts, faults.put_error) = (u32::MAX, Some(full()))
    });
    let (uploader, _events) = grid.start(1);
    let row = deliver(&uploader, fixture::pack(1, 1, 2)).await;
    let report = uploader.drain().await.unwrap();
    assert_eq!((report.shares_waiting, grid.pack(row).held()), (1, 1));
    assert_eq!(report.peers_failed, [(key(1), full())]);
    assert_eq!(uploader.code(), (1, 2), "a copy for a peer that is still to come");

    grid.fault(1, |faults| faults.fail_puts = 0);
    uploader.wake();
    assert_eq!(uploader.drain().await.unwrap().shares_waiting, 0);
    assert_eq!(grid.pack(row).held(), 2);
}

#[tokio::test]
async fn a_local_peer_that_fails_is_replaced_or_made_up_for_later() {
    let grid = Grid::new(&[Reach::Local, Reach::Local, Reach::Remote]);
    grid.fault(0, |faults| faults.unreachable = true);
    let (uploader, _events) = grid.start(1);
    let row = deliver(&uploader, fixture::pack(1, 1, 2)).await;
    uploader.drain().await.unwrap();
    let mut holders = grid.pack(row).holders;
    holders.sort();
    assert_eq!(holders, [Some(key(1)), Some(key(2))]);

    let row = deliver(&uploader, fixture::pack(2, 2, 3)).await;
    assert_eq!(uploader.drain().await.unwrap().shares_waiting, 1);
    grid.fault(0, |faults| faults.unreachable = false);
    assert_eq!(uploader.drain().await.unwrap().shares_waiting, 0);
    assert_eq!((grid.pack(row).held(), grid.spool_files()), (3, 0));
}

#[tokio::test]
async fn a_peer_that_comes_later_gets_what_had_no_domain() {
    let grid = Grid::remote(3);
    let all = grid.peers.all();
    grid.peers.set(all[..2].to_vec());
    let (uploader, _events) = grid.start(1);
    let row = deliver(&uploader, fixture::pack(1, 2, 3)).await;
    assert_eq!(uploader.drain().await.unwrap().shares_waiting, 1);
    grid.peers.set(all);
    uploader.wake();
    assert!(uploader.settled(row).await.unwrap());
    assert_eq!(uploader.drain().await.unwrap().shares_waiting, 0);
}

/// It is made from another copy when there is a domain, and need not wait here until then.
#[tokio::test]
async fn a_copy_that_has_no_domain_does_not_wait_in_the_spool() {
    let grid = Grid::remote(1);
    let (uploader, _events) = grid.start(2);
    let row = deliver(&uploader, fixture::pack(1, 1, 3)).await;
    let report = uploader.drain().await.unwrap();
    assert_eq!((report.shares_waiting, report.packs_unsafe), (0, 1));
    assert_eq!((grid.pack(row).held(), grid.spool_files()), (1, 0));
}

#[tokio::test]
async fn the_share_of_a_peer_that_left_goes_elsewhere() {
    let grid = Grid::remote(3);
    grid.fault(0, |faults| faults.unreachable = true);
    grid.fault(1, |faults| faults.unreachable = true);
    let (uploader, _events) = grid.start(0);
    let rows = [1, 2, 3, 4].map(|seed| fixture::pack(seed, 1, 1));
    let mut delivered = Vec::new();
    for pack in rows {
        delivered.push(deliver(&uploader, pack).await);
    }
    uploader.drain().await.unwrap();
    grid.peers.set(grid.peers.all()[2..].to_vec());
    uploader.wake();
    assert_eq!(uploader.drain().await.unwrap().shares_waiting, 0);
    for row in delivered {
        assert_eq!(grid.pack(row).holders, [Some(key(2))]);
    }
}

#[tokio::test]
async fn metadata_is_sent_before_content_that_came_earlier() {
    let grid = Grid::remote(1);
    grid.fault(0, |faults| faults.unreachable = true);
    let (uploader, _events) = grid.start(0);
    for seed in 1..6 {
        deliver(&uploader, fixture::pack(seed, 1, 1)).await;
    }
    uploader.drain().await.unwrap();
    let mut metadata = fixture::pack(9, 1, 1);
    metadata.purpose = Purpose::Metadata;
    let id = metadata.shares[0].0;
    deliver(&uploader, metadata).await;
    uploader.drain().await.unwrap();
    grid.fault(0, |faults| faults.unreachable = false);
    uploader.drain().await.unwrap();
    // The first put after a failure goes alone, and it is the best in line; one that was in flight may precede it.
    let put = grid.stores[0].put.lock().unwrap();
    assert!(put[..2].contains(&id), "{put:?}");
    assert_eq!(put.len(), 6);
}

#[tokio::test]
async fn deliver_waits_while_the_spool_is_full_but_not_with_metadata() {
    let mut grid = Grid::with_stores(&[Reach::Remote], Duration::from_millis(30), |_| MemoryStore::new());
    grid.spool_bytes_max = 1;
    let (uploader, _events) = grid.start(0);
    for seed in 1..5 {
        deliver(&uploader, fixture::pack(seed, 1, 1)).await;
        assert!(grid.spool_files() <= 1);
    }
    uploader.drain().await.unwrap();

    grid.fault(0, |faults| faults.unreachable = true);
    deliver(&uploader, fixture::pack(5, 1, 1)).await;
    let error = uploader
        .deliver(fixture::pack(6, 1, 1), |_, _| Ok(()))
        .await
        .unwrap_err();
    assert!(matches!(error, UploadError::Stalled { .. }), "{error}");
    let mut metadata = fixture::pack(7, 1, 1);
    metadata.purpose = Purpose::Metadata;
    deliver(&uploader, metadata).await;
    assert_eq!(grid.spool_files(), 2);
}

#[tokio::test]
async fn after_a_restart_everything_arrives_and_only_what_was_in_flight_is_sent_twice() {
    let grid = Grid::with_stores(&[Reach::Remote; 3], Duration::from_millis(3), |_| MemoryStore::new());
    let mut rows = Vec::new();
    let mut seeds = 1..;
    for _ in 0..4 {
        let (uploader, _events) = grid.start(1);
        for seed in seeds.by_ref().take(4) {
            rows.push(deliver(&uploader, fixture::pack(seed, 2, 3)).await);
        }
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    let (uploader, _events) = grid.start(1);
    let report = uploader.drain().await.unwrap();
    assert_eq!(
        (report.packs_unsafe, report.shares_waiting, grid.spool_files()),
        (0, 0, 0)
    );
    for row in &rows {
        grid.assert_holders_hold(*row);
    }
    let (restarts, lanes, unrecorded) = (4, 6, 6);
    assert!(
        grid.puts() <= 3 * rows.len() + restarts * (lanes + unrecorded),
        "{} puts",
        grid.puts()
    );
}

#[tokio::test]
async fn a_restart_sweeps_the_spool_and_keeps_what_still_waits() {
    let grid = Grid::remote(2);
    grid.fault(0, |faults| faults.unreachable = true);
    let (uploader, _events) = grid.start(1);
    let row = deliver(&uploader, fixture::pack(1, 1, 2)).await;
    uploader.drain().await.unwrap();
    drop(uploader);
    let stray = fixture::pack(2, 1, 1).shares[0].0;
    std::fs::write(
        grid.folder.path().join("spool").join(stray.to_string()),
        b"of a pack never recorded",
    )
    .unwrap();

    grid.fault(0, |faults| faults.unreachable = false);
    let (uploader, _events) = grid.start(1);
    assert_eq!(grid.spool_files(), 1);
    assert!(uploader.settled(row).await.unwrap());
}

#[tokio::test]
async fn a_share_damaged_in_the_spool_is_reported_and_never_sent() {
    let grid = Grid::remote(2);
    grid.fault(0, |faults| faults.unreachable = true);
    grid.fault(1, |faults| faults.unreachable = true);
    let (uploader, mut events) = grid.start(1);
    let pack = fixture::pack(1, 2, 2);
    let damaged = pack.shares[0].0;
    let row = deliver(&uploader, pack).await;
    uploader.drain().await.unwrap();
    let path = grid.folder.path().join("spool").join(damaged.to_string());
    let mut stored = std::fs::read(&path).unwrap();
    stored[1000] ^= 1;
    std::fs::write(&path, stored).unwrap();

    for number in 0..2 {
        grid.fault(number, |faults| faults.unreachable = false);
    }
    let report = uploader.drain().await.unwrap();
    assert_eq!(
        (report.shares_waiting, grid.pack(row).held(), grid.spool_files()),
        (0, 1, 0)
    );
    let lost = |event: &UploadEvent| matches!(event, UploadEvent::SpoolLost { share, .. } if *share == damaged);
    assert!(told(&mut events).iter().any(lost));
    assert!(!uploader.settled(row).await.unwrap());
}

#[tokio::test]
async fn a_share_that_was_found_on_a_peer_is_not_sent_after_a_restart() {
    let grid = Grid::remote(1);
    grid.fault(0, |faults| faults.unreachable = true);
    let (uploader, _events) = grid.start(0);
    let pack = fixture::pack(1, 1, 1);
    let id = pack.shares[0].0;
    deliver(&uploader, pack).await;
    uploader.drain().await.unwrap();
    drop(uploader);
    grid.db
        .write::<_, DbError>(|tx| packs::record_held(tx, &key(0), &[id]))
        .unwrap();
    let (uploader, _events) = grid.start(0);
    let report = uploader.drain().await.unwrap();
    assert_eq!(
        (
            report.shares_waiting,
            report.packs_unsafe,
            grid.spool_files(),
            grid.puts()
        ),
        (0, 0, 0, 0)
    );
}

#[tokio::test]
async fn a_grid_that_fails_often_gets_everything_in_the_end() {
    let grid = Grid::remote(4);
    let (uploader, _events) = grid.start(1);
    let mut rows = Vec::new();
    for seed in 1..20u8 {
        let number = usize::from(seed) % 4;
        grid.fault(number, |faults| faults.fail_puts = 1);
        rows.push(deliver(&uploader, fixture::pack(seed, 2, 4)).await);
    }
    let report = uploader.drain().await.unwrap();
    assert_eq!(
        (report.shares_waiting, report.packs_unsafe, grid.spool_files()),
        (0, 0, 0)
    );
    for row in rows {
        assert_eq!(grid.pack(row).held(), 4);
        grid.assert_holders_hold(row);
    }
}

/// Placement counts on what the peers say: a lying peer is for audits to find, not for the uploader.
#[tokio::test]
async fn an_acknowledged_share_counts_as_held() {
    let grid = Grid::remote(1);
    grid.fault(0, |faults| faults.drop_every = NonZeroU32::new(1));
    let (uploader, _events) = grid.start(0);
    let row = deliver(&uploader, fixture::pack(1, 1, 1)).await;
    assert!(uploader.settled(row).await.unwrap());
}

#[tokio::test]
async fn a_share_built_anew_goes_to_its_new_place_and_the_old_one_no_longer_counts() {
    let grid = Grid::remote(4);
    let (uploader, _told) = grid.start(0);
    let pack = fixture::pack(1, 2, 3);
    let shares = pack.shares.clone();
    let row = uploader.deliver(pack, |_, _| Ok(())).await.unwrap();
    uploader.drain().await.unwrap();
    let before = grid.pack(row);
    let free = (0..4)
        .map(key)
        .find(|key| !before.holders.contains(&Some(key.clone())))
        .unwrap();
    let rebuilt = |to: &PeerKey| {
        vec![Rebuilt {
            index: 1,
            id: shares[1].0,
            share: shares[1].1.clone(),
            to: to.clone(),
        }]
    };
    assert_eq!(uploader.rehome(row, rebuilt(&free)).await.unwrap(), 1);
    uploader.drain().await.unwrap();
    let after = grid.pack(row);
    assert_eq!((after.holders[1].as_ref(), after.held()), (Some(&free), 3));
    grid.assert_holders_hold(row);
    assert_eq!(grid.spool_files(), 0);

    // A share whose bytes are another's is not taken, and leaves nothing behind.
    let mut wrong = rebuilt(&free);
    (wrong[0].index, wrong[0].id) = (0, shares[1].0);
    assert_eq!(uploader.rehome(row, wrong).await.unwrap(), 0);
    assert_eq!(grid.spool_files(), 0);
}

#[tokio::test]
async fn a_shunned_peer_gets_nothing_new() {
    let grid = Grid::remote(3);
    let (uploader, _told) = grid.start(0);
    uploader.shun([key(1)].into());
    assert_eq!(uploader.code().1, 2);
    uploader.deliver(fixture::pack(1, 1, 2), |_, _| Ok(())).await.unwrap();
    uploader.drain().await.unwrap();
    assert!(grid.stores[1].put.lock().unwrap().is_empty());
}

/// The story: three of four friends were lost, and what was sent again waited for those three in the spool.
#[tokio::test]
async fn what_waits_for_a_peer_that_is_lost_goes_to_another() {
    for lost in 0..4 {
        let grid = Grid::remote(4);
        let (uploader, _told) = grid.start(0);
        (0..4).for_each(|peer| grid.fault(peer, |faults| faults.unreachable = true));
        uploader.deliver(fixture::pack(1, 2, 3), |_, _| Ok(())).await.unwrap();
        assert_eq!(uploader.drain().await.unwrap().shares_waiting, 3);
        (0..4).for_each(|peer| grid.fault(peer, |faults| faults.unreachable = peer == lost));
        uploader.shun([key(lost)].into());
        let report = uploader.drain().await.unwrap();
        assert_eq!((report.shares_waiting, grid.spool_files()), (0, 0), "without {lost}");
    }
}
