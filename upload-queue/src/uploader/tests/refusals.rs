//! Peers that refuse, hang or take what cannot be written down: who waits is told, and all goes on when they are well.

use super::*;

fn refuse(grid: &Grid, number: usize) {
    grid.fault(number, |faults| {
        (faults.fail_puts, faults.put_error) = (u32::MAX, Some(full()));
    });
}

/// The story: a friend's disk refused writes while it reported room. A pack planned a moment before the refusal was never
/// sent and never given up: no run of the owner ended any more.
#[tokio::test(start_paused = true)]
async fn a_friend_that_refuses_never_keeps_a_run_from_ending() {
    let grid = Grid::with_stores(&[Reach::Remote; 5], Duration::from_millis(3), |_| MemoryStore::new());
    refuse(&grid, 0);
    let (uploader, _events) = grid.start(2);
    let mut delivering = Vec::new();
    for seed in 1..100 {
        let uploader = uploader.clone();
        delivering.push(tokio::spawn(async move {
            deliver(&uploader, fixture::pack(seed, 3, 5)).await
        }));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let report = tokio::time::timeout(Duration::from_secs(60), uploader.drain()).await;
    let report = report.expect("the run ends").unwrap();
    assert_eq!(report.peers_failed, [(key(0), full())]);
    assert!(report.packs_unsafe > 0);
    for delivered in delivering {
        delivered.await.unwrap();
    }

    // It is asked again by itself: nobody has to wake anything, or to restart.
    grid.fault(0, |faults| faults.fail_puts = 0);
    let begun = Instant::now();
    while grid.spool_files() > 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(20 * 60),
            "{} files wait",
            grid.spool_files()
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let report = uploader.drain().await.unwrap();
    assert_eq!((report.packs_unsafe, report.shares_waiting), (0, 0));
    assert!(report.peers_failed.is_empty());
}

/// A command that is cut off in the midst of planning takes nothing with it.
#[tokio::test]
async fn a_wait_that_is_dropped_leaves_no_share_with_nobody() {
    let grid = Grid::remote(2);
    refuse(&grid, 1);
    let (uploader, _events) = grid.start(1);
    for seed in 1..30 {
        deliver(&uploader, fixture::pack(seed, 1, 2)).await;
        let waiting = uploader.drain();
        tokio::pin!(waiting);
        let polled = futures::poll!(&mut waiting);
        assert!(polled.is_pending());
    }
    let report = tokio::time::timeout(Duration::from_secs(60), uploader.drain()).await;
    report.expect("the run ends").unwrap();
    grid.fault(1, |faults| faults.fail_puts = 0);
    assert_eq!(uploader.drain().await.unwrap().shares_waiting, 0);
}

/// A full disk under the catalog: the peers take every share, and nothing of it can be written down.
#[tokio::test(start_paused = true)]
async fn a_catalog_that_cannot_be_written_ends_the_wait_instead_of_sending_for_ever() {
    let grid = Grid::remote(1);
    let (uploader, _events) = grid.start(0);
    grid.db
        .write::<_, DbError>(|tx| {
            tx.execute_batch(
                "CREATE TRIGGER full_disk BEFORE UPDATE OF holder ON share
                 BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END",
            )?;
            Ok(())
        })
        .unwrap();
    deliver(&uploader, fixture::pack(1, 1, 1)).await;
    let report = tokio::time::timeout(Duration::from_secs(60), uploader.drain()).await;
    let report = report.expect("the wait ends").unwrap();
    let [(peer, error)] = &report.peers_failed[..] else {
        panic!("{report:?}")
    };
    assert!(*peer == key(0) && error.to_string().contains("disk is full"), "{error}");
    grid.db
        .write::<_, DbError>(|tx| Ok(tx.execute_batch("DROP TRIGGER full_disk")?))
        .unwrap();
    assert_eq!(uploader.drain().await.unwrap().shares_waiting, 0);
}

/// A disk that hangs: a put that never returns.
#[tokio::test(start_paused = true)]
async fn a_put_that_never_returns_is_given_up() {
    let forever = Duration::from_secs(1_000_000);
    let grid = Grid::with_stores(&[Reach::Remote], forever, |_| MemoryStore::new());
    let (uploader, _events) = grid.start(0);
    deliver(&uploader, fixture::pack(1, 1, 1)).await;
    let report = uploader.drain().await.unwrap();
    assert_eq!(report.shares_waiting, 1);
    assert!(matches!(
        &report.peers_failed[..],
        [(_, StoreError::Unreachable { .. })]
    ));
}

/// A store that panics takes its lane along, and nothing else.
#[tokio::test(start_paused = true)]
async fn a_lane_that_dies_gives_its_share_back() {
    let grid = Grid::with_stores(&[Reach::Remote; 2], Duration::from_secs(5), |_| MemoryStore::new());
    let shared = Shared::open(grid.db.clone(), grid.peers.clone(), config(&grid), mpsc::channel(9).0);
    let (shared, deliveries) = shared.unwrap();
    let shared = Arc::new(shared);
    outgoing::deliver(shared.clone(), fixture::pack(1, 1, 2), |_, _| Ok(()))
        .await
        .unwrap();
    let lane = tokio::spawn(lane::lane(shared.clone(), key(0)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        shared.lines().next(&key(0), Instant::now()),
        lines::Next::Wait,
        "it is under way"
    );
    lane.abort();
    let _ = lane.await;
    let next = shared.lines().next(&key(0), Instant::now());
    let lines::Next::Send(share) = next else {
        panic!("{next:?}")
    };

    // With nobody to record what it delivers a lane ends, instead of sending the same for ever.
    shared.lines().take_back(&key(0), &share, Instant::now());
    drop(deliveries);
    lane::lane(shared.clone(), key(0)).await;
    assert!(matches!(
        shared.lines().next(&key(0), Instant::now()),
        lines::Next::Send(_)
    ));
}

/// When what records deliveries is gone, nothing can end well: who waits is told, at once.
#[tokio::test]
async fn a_wait_ends_when_a_task_that_all_rely_on_is_gone() {
    let grid = Grid::remote(1);
    grid.fault(0, |faults| faults.unreachable = true);
    let (uploader, _events) = grid.start(0);
    deliver(&uploader, fixture::pack(1, 1, 1)).await;
    let waiting = tokio::spawn({
        let uploader = uploader.clone();
        async move { uploader.drain().await.map(drop) }
    });
    uploader._tasks.0[0].abort();
    assert!(matches!(waiting.await.unwrap(), Err(UploadError::Stopped)));
}

fn config(grid: &Grid) -> UploaderConfig {
    UploaderConfig {
        spool: grid.folder.path().join("spool"),
        spool_bytes_max: grid.spool_bytes_max,
        min_free: MinFree::Bytes(0),
        puts_per_peer: 2,
        tolerate: 1,
        steward: None,
    }
}
