//! A full spool: who gives way to whom, and what is owed afterwards.

use super::*;
use crate::packs::Health;

const SHARE_BYTES: u64 = proto::shape::ShareSize::Small.stored_bytes() as u64;

fn health(grid: &Grid, tolerate: u8) -> Health {
    grid.db
        .read::<_, DbError>(|conn| packs::health(conn, tolerate))
        .unwrap()
}

/// The story: 8 members, 6 online, a spool of 20 MB: 15 of 90 files went up, then "75 files wait for peers", run after run.
#[tokio::test(start_paused = true)]
async fn shares_for_absent_friends_do_not_keep_new_packs_from_those_who_are_there() {
    let mut grid = Grid::remote(5);
    grid.spool_bytes_max = 6 * SHARE_BYTES;
    grid.fault(0, |faults| faults.unreachable = true);
    let (uploader, mut events) = grid.start(1);
    for seed in 1..60 {
        let (k, n) = uploader.code();
        deliver(&uploader, fixture::pack(seed, k, n)).await;
        // One pack more than the limit is under way at most.
        assert!(grid.spool_files() as u64 * SHARE_BYTES <= grid.spool_bytes_max + 5 * SHARE_BYTES);
    }
    let report = uploader.drain().await.unwrap();
    assert_eq!((health(&grid, 1).safe, report.packs_unsafe), (59, 0));
    assert!(report.shares_waiting <= 6);
    assert_eq!(uploader.code().1, 4, "packs are made without who is absent");
    drop(told(&mut events));
}

/// All that is in the spool was meant for a friend who left in the midst of it.
#[tokio::test(start_paused = true)]
async fn what_gives_way_is_the_oldest_that_others_can_rebuild_and_it_is_owed_still() {
    let mut grid = Grid::remote(3);
    grid.spool_bytes_max = 4 * SHARE_BYTES;
    grid.fault(0, |faults| faults.unreachable = true);
    let (uploader, mut events) = grid.start(1);
    let mut rows = Vec::new();
    for seed in 1..6 {
        rows.push(deliver(&uploader, fixture::pack(seed, 2, 3)).await);
        uploader.drain().await.unwrap();
    }
    let report = uploader.drain().await.unwrap();
    let gave_way: u64 = told(&mut events)
        .iter()
        .map(|event| match event {
            UploadEvent::GaveWay { peer, shares } if *peer == Some(key(0)) => *shares,
            _ => 0,
        })
        .sum();
    assert!(gave_way > 0 && report.gave_way == gave_way, "{gave_way} of {report:?}");
    assert_eq!(report.shares_waiting + gave_way, 5);
    assert_eq!(grid.spool_files() as u64, report.shares_waiting);
    // Each can be read, none is as safe as asked for: nobody is told otherwise.
    assert_eq!((health(&grid, 1).fragile, report.packs_unsafe), (5, 5));
    let waits = |row: &PackRow| {
        let on_the_way = grid
            .db
            .read::<_, DbError>(|conn| packs::on_the_way(conn, *row))
            .unwrap();
        !on_the_way.is_empty()
    };
    let waiting: Vec<bool> = rows.iter().map(waits).collect();
    assert!(waiting.is_sorted(), "the oldest went first: {waiting:?}");

    // What is built anew goes the way of any share.
    grid.fault(0, |faults| faults.unreachable = false);
    let pack = fixture::pack(1, 2, 3);
    let known = grid.pack(rows[0]);
    let index = known.holders.iter().position(Option::is_none).unwrap();
    let (id, share) = pack.shares[index].clone();
    let index = index as u8;
    let to = key(0);
    let rebuilt = vec![Rebuilt { index, id, share, to }];
    assert_eq!(uploader.rehome(rows[0], rebuilt).await.unwrap(), 1);
    uploader.wake();
    let report = uploader.drain().await.unwrap();
    assert_eq!((report.shares_waiting, grid.pack(rows[0]).held()), (0, 3));
}

/// With the others too few, a new pack could not be made safe: nothing gives way to it, and the run is told why it stops.
#[tokio::test(start_paused = true)]
async fn nothing_gives_way_when_those_who_are_there_are_not_enough() {
    let mut grid = Grid::remote(3);
    grid.spool_bytes_max = 2 * SHARE_BYTES;
    for number in 0..2 {
        grid.fault(number, |faults| faults.unreachable = true);
    }
    let (uploader, _events) = grid.start(1);
    deliver(&uploader, fixture::pack(1, 2, 3)).await;
    uploader.drain().await.unwrap();
    let refused = uploader.deliver(fixture::pack(2, 2, 3), |_, _| Ok(())).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, UploadError::Stalled { .. }), "{error}");
    assert!(
        error.to_string().contains("wait for peers that do not take them"),
        "{error}"
    );
    assert_eq!(uploader.drain().await.unwrap().shares_waiting, 2);
}

/// What can be read from nobody else stays in the spool, however full that is.
#[tokio::test(start_paused = true)]
async fn what_nobody_can_rebuild_does_not_give_way() {
    let mut grid = Grid::remote(4);
    grid.spool_bytes_max = SHARE_BYTES;
    grid.fault(0, |faults| faults.unreachable = true);
    let (uploader, _events) = grid.start(0);
    // All of it goes to the friend who is not there: planned before that was known.
    let pack = fixture::pack(1, 1, 1);
    let share = pack.shares[0].clone();
    let row = deliver(&uploader, pack).await;
    uploader.drain().await.unwrap();
    let to = key(0);
    let rebuilt = vec![Rebuilt {
        index: 0,
        id: share.0,
        share: share.1,
        to,
    }];
    assert_eq!(uploader.rehome(row, rebuilt).await.unwrap(), 1);
    assert_eq!(uploader.drain().await.unwrap().shares_waiting, 1);
    assert!(uploader.deliver(fixture::pack(2, 1, 1), |_, _| Ok(())).await.is_err());
    assert_eq!(uploader.drain().await.unwrap().shares_waiting, 1);
}
