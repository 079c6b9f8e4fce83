//! One member takes all it can at a holder; the others are served as if it were not there.

use proto::id::ShareId;

use super::*;

/// Ada keeps; Bob, with three machines, is greedy; Cleo is not.
struct Grid {
    ada: TestNode,
    greedy: Vec<(NetHandle, TempDir)>,
    cleo: TestNode,
    _bob: TestNode,
}

async fn grid() -> Grid {
    let (ada, bob) = friends().await;
    let cleo = node(3).await;
    cleo.net
        .join(&ada.net.invite("Cleo", LATER).await.unwrap())
        .await
        .unwrap();
    let mut greedy = Vec::new();
    for device in 77..80 {
        let home = tempfile::tempdir().unwrap();
        let net = start(home.path(), &bob.fixture, device).await;
        net.meet(ada.net.addresses()[0].clone()).await.unwrap();
        greedy.push((net, home));
    }
    Grid {
        ada,
        greedy,
        cleo,
        _bob: bob,
    }
}

async fn in_seconds<T>(what: impl Future<Output = T>) -> T {
    let in_time = tokio::time::timeout(Duration::from_secs(8), what).await;
    in_time.expect("Cleo does not wait for Bob")
}

/// A hundred and twenty-eight lanes on which nothing went on were all that a holder had.
#[tokio::test(flavor = "multi_thread")]
async fn idle_lanes_of_one_member_keep_no_other_out() {
    let grid = grid().await;
    let mut idle = Vec::new();
    for (net, _) in &grid.greedy {
        for _ in 0..50 {
            idle.push(raw_stream(net, &grid.ada.net).await);
        }
    }
    let store = grid.cleo.net.peer(grid.ada.net.device());
    let (id, share) = grid.cleo.fixture.share(0);
    in_seconds(store.put(id, share)).await.unwrap();
    assert_eq!(in_seconds(store.list(None, 10)).await.unwrap(), [id]);
    // Nor its own account: what is idle gives way.
    let (net, _) = &grid.greedy[0];
    in_seconds(net.peer(grid.ada.net.device()).space()).await.unwrap();
}

/// Sixty-four puts of which nothing came held all turns, for a minute a byte.
#[tokio::test(flavor = "multi_thread")]
async fn puts_that_never_end_keep_nobody_waiting() {
    let grid = grid().await;
    let mut lanes = Vec::new();
    for lane in 0..6u8 {
        let (net, _) = &grid.greedy[usize::from(lane) % 3];
        let mut stream = raw_stream(net, &grid.ada.net).await;
        for request in 0..crate::share::serve::PUTS_MAX as u32 {
            let mut id = [lane; 32];
            id[1] = request as u8;
            let message = ShareMessage::Put {
                request,
                id: ShareId(id),
                stored_bytes: proto::shape::ShareSize::Small.stored_bytes() as u32,
            };
            frames::say(&mut stream, &message, Default::default()).await.unwrap();
        }
        lanes.push(stream);
    }
    // The first of them are being received.
    for stream in lanes.iter_mut().take(1) {
        let answer = frames::read::<ShareMessage, _>(stream).await.unwrap().unwrap();
        assert!(matches!(answer.0, ShareMessage::PutFrom { .. }), "{answer:?}");
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let store = grid.cleo.net.peer(grid.ada.net.device());
    let (id, share) = grid.cleo.fixture.share(0);
    in_seconds(store.put(id, share)).await.unwrap();
}
