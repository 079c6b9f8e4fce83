use proto::id::ShareId;

use super::*;
use crate::packs::PackRow;

mod model;

fn unreachable() -> StoreError {
    StoreError::Unreachable { reason: String::new() }
}

#[tokio::test(start_paused = true)]
async fn attempts_in_flight_together_fail_as_one() {
    let (mut lines, peer) = (Lines::default(), PeerKey("a".into()));
    let begun = Instant::now();
    tokio::time::advance(Duration::from_secs(1)).await;
    lines.failed(&peer, &unreachable(), begun, Instant::now());
    lines.failed(&peer, &unreachable(), begun, Instant::now());
    assert_eq!(lines.line(&peer).failures, 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_fails_for_long_is_left_out_if_the_others_are_enough() {
    use std::sync::Arc;

    use proto::share_store::memory::MemoryStore;

    use crate::peers::Reach;
    use crate::peers::place::Place;

    let peers: Vec<_> = ["a", "b", "c"]
        .map(|name| Peer {
            key: PeerKey(name.into()),
            place: Place::Folder("/memory".into()),
            name: name.into(),
            domain: name.into(),
            reach: Reach::Remote,
            store: Arc::new(MemoryStore::new()),
        })
        .into();
    let (now, a) = (Instant::now(), &peers[0].key);
    let mut lines = Lines::new(100);
    lines.failed(a, &unreachable(), now, now);
    lines.failed(a, &unreachable(), now, now);
    assert_eq!(lines.domains(&peers, 1, now).len(), 3);
    let share = |pack| Waiting {
        not_urgent: true,
        pack: PackRow(pack),
        index: 0,
        id: ShareId([1; 32]),
        stored_bytes: 30,
    };
    lines.add(Some(a), share(1), now);
    let later = now + AWAY_AFTER;
    assert_eq!(lines.domains(&peers, 1, later).len(), 2);
    // Without it, two losses could not be survived: it is counted on.
    assert_eq!(lines.domains(&peers, 2, later).len(), 3);
    // Nor is it for long, if what waits for it takes its part of the spool.
    assert_eq!(lines.domains(&peers, 1, now).len(), 3);
    lines.add(Some(a), share(2), now);
    assert_eq!(lines.domains(&peers, 1, now).len(), 2);
    assert_eq!(lines.take_absent(&peers, 2, now), []);
    let taken = lines.take_absent(&peers, 1, now);
    assert_eq!(taken, [1, 2].map(|pack| (Some(a.clone()), share(pack))));
    assert_eq!(lines.spool_bytes(), 60, "what is taken is not gone yet");
}
