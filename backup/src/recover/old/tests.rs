//! A liar of each kind, and an honest peer.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use proto::head::{Head, HeadBody};
use proto::id::{AccountId, DeviceId, ShareId};
use proto::keys::{DeviceCert, power, words_key};
use proto::phrase::Seed;
use proto::share::Share;
use proto::share_store::{
    BoxFuture, HeadPlace, HeadStore, OldHead as Encoded, OldHeads, PromiseStore, PutAck, ShareStore, Space,
};
use upload_queue::peers::{PeerKey, Reach};

use super::*;

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Five batches, four heads on each.
    Honest,
    /// Always one batch more.
    Endless,
    /// The same batch for ever.
    Same,
    /// Heads of nobody, and more than an answer holds.
    Garbage,
    /// A batch, then silence.
    Silent,
}

struct Friend {
    kind: Kind,
    heads: Vec<Bytes>,
}

fn place(day: u32) -> HeadPlace {
    let device = DeviceId([0; 32]);
    HeadPlace { day, device }
}

impl Friend {
    async fn batch(&self, after: Option<HeadPlace>) -> OldHeads {
        let day = after.map_or(0, |after| after.day + 1);
        let some = |from: u32| -> Vec<Encoded> {
            let heads = self.heads.iter().cycle().skip(from as usize).take(4);
            let age_days = 30 - from as u16 % 30;
            heads
                .map(move |head| Encoded {
                    encoded: head.clone(),
                    age_days,
                })
                .collect()
        };
        let (heads, next) = match self.kind {
            Kind::Honest => (some(4 * day), Some(place(day)).filter(|_| day < 4)),
            Kind::Endless => (some(day), Some(place(day))),
            Kind::Same => (some(0), Some(place(0))),
            Kind::Garbage => {
                let garbage = Encoded {
                    encoded: Bytes::from_static(&[7; 4096]),
                    age_days: 30,
                };
                (vec![garbage; OLD_HEADS_MAX * (1 + day as usize)], Some(place(day)))
            }
            Kind::Silent if day > 0 => std::future::pending().await,
            Kind::Silent => (some(0), Some(place(0))),
        };
        OldHeads { heads, next }
    }
}

impl ShareStore for Friend {
    fn put(&self, _: ShareId, _: Share) -> BoxFuture<'_, Result<PutAck, StoreError>> {
        unreachable!("it is only asked for heads")
    }
    fn get(&self, _: ShareId, _: Range<u32>) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        unreachable!("it is only asked for heads")
    }
    fn list(&self, _: Option<ShareId>, _: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        unreachable!("it is only asked for heads")
    }
    fn remove(&self, _: ShareId) -> BoxFuture<'_, Result<(), StoreError>> {
        unreachable!("it is only asked for heads")
    }
    fn space(&self) -> BoxFuture<'_, Result<Space, StoreError>> {
        unreachable!("it is only asked for heads")
    }
}

impl HeadStore for Friend {
    fn put_head(&self, _: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        unreachable!("it is only asked for old heads")
    }
    fn heads(&self, _: AccountId) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>> {
        unreachable!("it is only asked for old heads")
    }
    fn old_heads(&self, _: AccountId, after: Option<HeadPlace>) -> BoxFuture<'_, Result<OldHeads, StoreError>> {
        Box::pin(async move { Ok(self.batch(after).await) })
    }
}

impl PromiseStore for Friend {}

fn peer(kind: Kind, heads: &[Bytes]) -> Peer {
    let name = format!("{kind:?}");
    Peer {
        key: PeerKey(name.clone()),
        place: upload_queue::peers::place::Place::Folder("/memory".into()),
        domain: name.clone(),
        name,
        reach: Reach::Remote,
        store: Arc::new(Friend {
            kind,
            heads: heads.to_vec(),
        }),
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_peers_answer_it_ends_and_what_honest_ones_have_comes() {
    let (keys, words) = (AccountKeys::from_seed(&Seed([1; 32])), words_key(&Seed([1; 32])));
    let device = SigningKey::from_bytes(&[4; 32]);
    let cert = DeviceCert::sign(&words, DeviceId(device.verifying_key().to_bytes()), power::ALL, "", 0);
    let head = |seq| {
        let body = HeadBody {
            root: None,
            snapshot: None,
            disks: None,
        };
        let head = Head::sign(&device, &cert, seq, [0; 32], &body, &keys.put, [9; 32]).unwrap();
        Bytes::from(head.encode())
    };
    let heads: Vec<Bytes> = (1..=20).map(head).collect();
    let count = async |kinds: &[Kind]| {
        let peers: Vec<Peer> = kinds.iter().map(|kind| peer(*kind, &heads)).collect();
        let begun = Instant::now();
        let found = ask(&peers, &keys).await;
        assert!(begun.elapsed() <= TIME_MAX, "{kinds:?}");
        found.len()
    };
    assert_eq!(count(&[Kind::Honest]).await, 20);
    assert_eq!(count(&[Kind::Same]).await, 4);
    assert_eq!(count(&[Kind::Garbage]).await, 0);
    assert_eq!(count(&[Kind::Silent]).await, 4, "what came before is as good as any");
    let all = [Kind::Endless, Kind::Same, Kind::Garbage, Kind::Silent, Kind::Honest];
    assert_eq!(count(&all).await, 20);
}
