//! Restores that are cut off and started again, and peers that answer late.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::share::Share;
use proto::share_store::{BoxFuture, PromiseStore, PutAck, Space, StoreError};
use upload_queue::packs;

use super::*;
use crate::restore::fetch_stats::FetchStats;

/// Two chunks of noise without a hole, in one pack.
fn two_chunks(grid: &Grid) -> (Backup, Vec<u8>) {
    let mut backup = Backup::default();
    let parts = [noise(BIG, 1), noise(300_000, 2)];
    let extents = parts.iter().map(|part| backup.chunk(grid, part)).collect();
    let whole = parts.concat();
    backup.file(b"whole", whole.len() as u64, Cap::Extents(extents));
    (backup, whole)
}

fn partial_of(name: &str) -> String {
    format!(".gridbackup-partial-{}", &blake3::hash(name.as_bytes()).to_hex()[..16])
}

#[test]
fn pieces_that_an_interrupted_restore_has_written_are_not_fetched_again() {
    let grid = Grid::new();
    let (backup, whole) = two_chunks(&grid);
    grid.post(&backup, 1);
    let reader = grid.recovered();
    let fetched_with = |left: Option<&[u8]>| {
        let folder = tempfile::tempdir().unwrap();
        if let Some(left) = left {
            std::fs::write(folder.path().join(partial_of("whole")), left).unwrap();
        }
        let summary = restore(&reader, &options(folder.path()));
        assert_eq!(summary.failed, []);
        assert!(std::fs::read(folder.path().join("whole")).unwrap() == whole);
        summary.bytes_fetched
    };
    let all = fetched_with(None);
    assert!(fetched_with(Some(&whole[..BIG])) < all / 2 + 65_536);
    assert_eq!(fetched_with(Some(&whole)), 0);
    assert_eq!(
        fetched_with(Some(&vec![0xee; 2 * whole.len()])),
        all,
        "what is wrong is fetched"
    );
}

#[test]
fn a_restore_that_is_told_to_stop_finishes_what_it_began_and_goes_on_later() {
    let grid = Grid::new();
    let (backup, whole) = two_chunks(&grid);
    grid.post(&backup, 1);
    let reader = grid.recovered();
    let folder = tempfile::tempdir().unwrap();
    let stopped = reader.restore(&options(folder.path()), &|_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(RestoreError::Stopped)));
    let summary = restore(&reader, &options(folder.path()));
    assert_eq!((summary.failed, summary.bytes_fetched), (vec![], 0));
    assert!(std::fs::read(folder.path().join("whole")).unwrap() == whole);
}

/// A store whose answers come late.
struct Late {
    inner: Arc<Faulty<MemoryStore>>,
    gets: AtomicU32,
}

const LATE: Duration = Duration::from_secs(60);

impl ShareStore for Late {
    fn put(&self, id: ShareId, share: Share) -> BoxFuture<'_, Result<PutAck, StoreError>> {
        self.inner.put(id, share)
    }
    fn get(&self, id: ShareId, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            tokio::time::sleep(LATE).await;
            self.inner.get(id, range).await
        })
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

impl HeadStore for Late {
    fn put_head(&self, head: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.put_head(head)
    }
    fn heads(&self, account: proto::id::AccountId) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>> {
        self.inner.heads(account)
    }
}

impl PromiseStore for Late {}

#[test]
fn peers_that_answer_late_are_waited_for_once_and_then_done_without() {
    let grid = Grid::new();
    let (backup, whole) = two_chunks(&grid);
    grid.post(&backup, 1);
    let reader = grid.recovered();
    let late: Vec<Arc<Late>> = (grid.stores[..2].iter())
        .map(|inner| {
            Arc::new(Late {
                inner: inner.clone(),
                gets: AtomicU32::new(0),
            })
        })
        .collect();
    let mut peers = reader.peers.all();
    for (peer, late) in peers.iter_mut().zip(&late) {
        peer.store = late.clone();
    }
    let reader = Reader {
        peers: PeerSet::new(peers),
        ..reader
    };
    let stats = Mutex::new(FetchStats::default());
    let rows = reader.db.read(packs::rows).unwrap();
    let read_all = || {
        for row in &rows {
            let ranges = [(0, whole.len() as u32)];
            reader.runtime.block_on(reader.read_row(*row, &ranges, &stats)).unwrap();
        }
    };
    let began = Instant::now();
    read_all();
    let asked = || late.iter().map(|late| late.gets.load(Ordering::Relaxed)).sum::<u32>();
    let (asked_first, fetched_first) = (asked(), stats.lock().unwrap().bytes_fetched);
    (0..5).for_each(|_| read_all());
    assert!(began.elapsed() < LATE / 4, "{:?}", began.elapsed());
    assert_eq!(asked(), asked_first, "they are left alone");
    let fetched = stats.lock().unwrap().bytes_fetched - fetched_first;
    let pack = u64::from(K) * ShareSize::Small.data_bytes() as u64;
    assert_eq!(
        fetched,
        5 * rows.len() as u64 * pack,
        "two shares are rebuilt from one fetch of the others"
    );
}

/// A restore that was cut off had made its target, so that the one that went on took it for the user's and left its mode,
/// owner, times and attributes as they were.
#[test]
fn a_restore_that_goes_on_gives_its_target_the_folders_own_metadata() {
    let grid = Grid::new();
    let (backup, _) = two_chunks(&grid);
    grid.post(&backup, 1);
    let reader = grid.recovered();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("made by the restore");
    for cut_off in [1, 2] {
        let stopped = reader.restore(&options(&target), &|_| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(RestoreError::Stopped)), "{cut_off}");
    }
    assert_eq!(restore(&reader, &options(&target)).failed, []);
    let source = reader.db.read(|conn| tree::entry(conn, 1, b"/src")).unwrap().unwrap();
    let is_dressed = || {
        let found = std::fs::metadata(&target).unwrap();
        assert_eq!(found.mode() & 0o7777, source.meta.mode);
        assert_eq!(found.mtime() * 1_000_000_000 + found.mtime_nsec(), source.meta.mtime_ns);
    };
    is_dressed();
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 1, "a mark is left behind");
    // What was finished once is finished again.
    std::fs::remove_file(target.join("whole")).unwrap();
    std::fs::set_permissions(&target, PermissionsExt::from_mode(source.meta.mode)).unwrap();
    let time = std::time::UNIX_EPOCH + Duration::from_nanos(source.meta.mtime_ns as u64);
    std::fs::File::open(&target).unwrap().set_modified(time).unwrap();
    restore(&reader, &options(&target));
    is_dressed();
    // A folder of the user's keeps what it has.
    let own = folder.path().join("own");
    std::fs::create_dir(&own).unwrap();
    std::fs::set_permissions(&own, PermissionsExt::from_mode(0o700)).unwrap();
    restore(&reader, &options(&own));
    assert_eq!(std::fs::metadata(&own).unwrap().mode() & 0o7777, 0o700);
}
