//! What a member can make a holder write: its quota, and little beside.

use super::*;

/// Bytes of all files below a folder.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => bytes_below(&entry.path()),
        _ => entry.metadata().map_or(0, |found| found.len()),
    });
    bytes.sum()
}

const QUOTA: u64 = 2_000_000;
/// The marker, the days that were counted, what a discard says of itself.
const BESIDE: u64 = 10_000;

/// With a quota of 6 MB, a friend left 269 MB of transfers that it did not end, and then as much of discards as it liked.
#[tokio::test(flavor = "multi_thread")]
async fn unfinished_transfers_and_discards_stay_within_the_quota() {
    let (ada, bob) = friends().await;
    let stored = ada.home.path().join("store");
    ada.net.set_quota(bob.fixture.account(), Some(QUOTA));
    let mut stream = raw_stream(&bob.net, &ada.net).await;
    let (_, share) = bob.fixture.share(0);
    for request in 0..50u8 {
        let message = ShareMessage::Put {
            request: request.into(),
            id: proto::id::ShareId([request; 32]),
            stored_bytes: proto::shape::ShareSize::Small.stored_bytes() as u32,
        };
        frames::say(&mut stream, &message, Default::default()).await.unwrap();
        let answer = frames::read::<ShareMessage, _>(&mut stream).await.unwrap().unwrap();
        assert!(matches!(answer.0, ShareMessage::PutFrom { .. }), "{answer:?}");
        let (before, request) = (bytes_below(&stored), u32::from(request));
        let piece = ShareMessage::PutBytes { request, offset: 0 };
        frames::say(&mut stream, &piece, share.data.slice(..200_000))
            .await
            .unwrap();
        eventually("the bytes are there", || {
            bytes_below(&stored) > before || bytes_below(&stored) > QUOTA
        })
        .await;
        let cancel = ShareMessage::Cancel { request };
        frames::say(&mut stream, &cancel, Default::default()).await.unwrap();
        // Its end is no answer: what follows on the stream says that it came.
        let ping = ShareMessage::Ping { request: 1000 };
        frames::say(&mut stream, &ping, Default::default()).await.unwrap();
        frames::read::<ShareMessage, _>(&mut stream).await.unwrap().unwrap();
    }
    let left = bytes_below(&stored);
    assert!(left <= QUOTA + BESIDE, "{left}");
    assert!(
        ada.net.kept_for(bob.fixture.account()).unwrap() + BESIDE >= left,
        "all of it counts"
    );

    let store = bob.net.peer(ada.net.device());
    for round in 0..20u8 {
        let ids = (0..proto::wire::frame::IDS_MAX).map(|number| {
            let mut id = [round; 32];
            id[..4].copy_from_slice(&number.to_be_bytes());
            proto::id::ShareId(id)
        });
        assert_eq!(store.discard(ids.collect()).await, Ok(0));
    }
    assert!(bytes_below(&stored) <= left + BESIDE);

    // And none of it keeps a share out.
    let (id, share) = bob.fixture.share(0);
    store.put(id, share).await.unwrap();
}
