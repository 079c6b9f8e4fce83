//! Packs that go by way of a steward, and stewards that do not do their work.

use std::collections::{HashMap, HashSet};

use proto::id::PackId;

use super::*;
use crate::steward::{PassState, Steward, StewardPeer};

/// What it does with its orders.
#[derive(Clone, PartialEq, Debug)]
enum Conduct {
    Works,
    DoesNotAnswer,
    Refuses,
    /// Takes everything and brings nothing.
    Withholds,
    /// Brings all but the shares of this peer.
    CannotReach(PeerKey),
}

/// Peer 0 of a grid as its steward. Knows all packs beforehand instead of computing shares.
struct TestSteward {
    stores: Vec<Arc<TestStore>>,
    packs: HashMap<PackId, Vec<(ShareId, Share)>>,
    conduct: Mutex<Conduct>,
    orders: Mutex<HashSet<PackId>>,
    taken: Mutex<Vec<ShareId>>,
}

impl TestSteward {
    fn new(grid: &Grid, packs: &[OutgoingPack], conduct: Conduct) -> Arc<Self> {
        let shares = packs.iter().map(|pack| (pack.manifest.pack, pack.shares.clone()));
        Arc::new(Self {
            stores: grid.stores.clone(),
            packs: shares.collect(),
            conduct: Mutex::new(conduct),
            orders: Mutex::default(),
            taken: Mutex::default(),
        })
    }

    fn peer(self: &Arc<Self>) -> StewardPeer {
        StewardPeer {
            key: key(0),
            steward: self.clone(),
        }
    }

    fn has(&self, id: ShareId) -> bool {
        self.taken.lock().unwrap().contains(&id) || self.stores[0].put.lock().unwrap().contains(&id)
    }
}

impl Steward for TestSteward {
    fn reaches(&self, _peer: &PeerKey) -> bool {
        true
    }

    fn pass_on<'a>(
        &'a self,
        manifest: &'a Manifest,
        targets: &'a [(u8, PeerKey)],
    ) -> BoxFuture<'a, Result<PassState, StoreError>> {
        Box::pin(async move {
            let conduct = self.conduct.lock().unwrap().clone();
            match conduct {
                Conduct::DoesNotAnswer => return Err(StoreError::Unreachable { reason: "away".into() }),
                Conduct::Refuses => return Err(StoreError::Refused { reason: "no".into() }),
                _ => {}
            }
            if targets.is_empty() {
                self.orders.lock().unwrap().remove(&manifest.pack);
                return Ok(PassState::default());
            }
            self.orders.lock().unwrap().insert(manifest.pack);
            let shares = &self.packs[&manifest.pack];
            let have: Vec<u8> = (0..)
                .zip(shares)
                .filter(|(_, (id, _))| self.has(*id))
                .map(|(index, _)| index)
                .collect();
            let mut state = PassState {
                have,
                ..PassState::default()
            };
            if state.have.len() < usize::from(manifest.shape.k) || conduct == Conduct::Withholds {
                return Ok(state);
            }
            for (index, peer) in targets {
                let (id, share) = shares[usize::from(*index)].clone();
                let number = (0..self.stores.len())
                    .find(|number| key(*number) == *peer)
                    .expect("a peer of the grid");
                let cannot = conduct == Conduct::CannotReach(peer.clone());
                match cannot || self.stores[number].put(id, share).await.is_err() {
                    true => state.failing.push(*index),
                    false => state.placed.push(*index),
                }
            }
            Ok(state)
        })
    }

    fn put_to_pass(&self, id: ShareId, share: Share) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            self.taken.lock().unwrap().push(id);
            Ok(share.stored_bytes() as u64)
        })
    }
}

fn packs(count: u8) -> Vec<OutgoingPack> {
    (1..=count).map(|seed| fixture::pack(seed, 3, 5)).collect()
}

async fn deliver_all(uploader: &Uploader, packs: Vec<OutgoingPack>) -> Vec<PackRow> {
    let mut rows = Vec::new();
    for pack in packs {
        rows.push(deliver(uploader, pack).await);
    }
    rows
}

/// All peers of a grid of five have one share of each pack.
fn assert_all_hold(grid: &Grid, rows: &[PackRow]) {
    for row in rows {
        assert_eq!(grid.pack(*row).held(), 5);
        grid.assert_holders_hold(*row);
    }
    assert_eq!(grid.spool_files(), 0);
}

fn share_bytes() -> u64 {
    proto::shape::ShareSize::Small.stored_bytes() as u64
}

#[tokio::test(start_paused = true)]
async fn a_steward_is_sent_k_shares_of_a_pack_and_all_peers_get_theirs() {
    let grid = Grid::remote(5);
    let steward = TestSteward::new(&grid, &packs(6), Conduct::Works);
    let (uploader, _events) = grid.start_with(2, Some(steward.peer()));
    let rows = deliver_all(&uploader, packs(6)).await;
    let report = uploader.drain().await.unwrap();
    assert_eq!((report.packs_unsafe, report.shares_waiting), (0, 0));
    assert_eq!(report.bytes_sent, 6 * 3 * share_bytes());
    assert_all_hold(&grid, &rows);
    // Each share once, and in the end the steward has no order any more.
    assert_eq!(grid.puts(), 6 * 5);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(steward.orders.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn shares_go_directly_when_the_steward_does_not_answer() {
    let grid = Grid::remote(5);
    let steward = TestSteward::new(&grid, &packs(3), Conduct::DoesNotAnswer);
    let (uploader, _events) = grid.start_with(2, Some(steward.peer()));
    let start = Instant::now();
    let rows = deliver_all(&uploader, packs(3)).await;
    assert_eq!(uploader.drain().await.unwrap().packs_unsafe, 0);
    let took = start.elapsed().as_secs();
    assert!((30..60).contains(&took), "{took} s");
    assert_all_hold(&grid, &rows);
    // Until it has rested, nothing new is held back for it.
    let start = Instant::now();
    deliver(&uploader, fixture::pack(9, 3, 5)).await;
    assert_eq!(uploader.drain().await.unwrap().packs_unsafe, 0);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn shares_go_directly_at_once_when_the_steward_refuses() {
    let grid = Grid::remote(5);
    let steward = TestSteward::new(&grid, &packs(3), Conduct::Refuses);
    let (uploader, _events) = grid.start_with(2, Some(steward.peer()));
    let start = Instant::now();
    let rows = deliver_all(&uploader, packs(3)).await;
    assert_eq!(uploader.drain().await.unwrap().packs_unsafe, 0);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_all_hold(&grid, &rows);
}

#[tokio::test(start_paused = true)]
async fn shares_go_directly_in_the_end_when_the_steward_takes_them_and_does_nothing() {
    let grid = Grid::remote(5);
    let steward = TestSteward::new(&grid, &packs(3), Conduct::Withholds);
    let (uploader, _events) = grid.start_with(2, Some(steward.peer()));
    let start = Instant::now();
    let rows = deliver_all(&uploader, packs(3)).await;
    assert_eq!(uploader.drain().await.unwrap().packs_unsafe, 0);
    let took = start.elapsed().as_secs();
    assert!((600..700).contains(&took), "{took} s");
    assert_all_hold(&grid, &rows);
}

#[tokio::test(start_paused = true)]
async fn what_the_steward_cannot_bring_goes_directly_and_the_rest_stays_with_it() {
    let grid = Grid::remote(5);
    let steward = TestSteward::new(&grid, &packs(3), Conduct::CannotReach(key(2)));
    let (uploader, _events) = grid.start_with(2, Some(steward.peer()));
    let start = Instant::now();
    let rows = deliver_all(&uploader, packs(3)).await;
    let report = uploader.drain().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(report.bytes_sent, 3 * 4 * share_bytes());
    assert_all_hold(&grid, &rows);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_steward_is_asked_first_and_is_not_sent_again_what_it_has() {
    let grid = Grid::remote(5);
    let steward = TestSteward::new(&grid, &packs(3), Conduct::Withholds);
    let (uploader, _events) = grid.start_with(2, Some(steward.peer()));
    let rows = deliver_all(&uploader, packs(3)).await;
    while uploader.bytes_sent() < 3 * 3 * share_bytes() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(uploader);
    *steward.conduct.lock().unwrap() = Conduct::Works;
    let (uploader, _events) = grid.start_with(2, Some(steward.peer()));
    let report = uploader.drain().await.unwrap();
    assert_eq!((report.packs_unsafe, report.bytes_sent), (0, 0));
    assert_all_hold(&grid, &rows);
}

#[tokio::test(start_paused = true)]
async fn without_its_steward_what_was_held_back_goes_directly() {
    let grid = Grid::remote(5);
    let steward = TestSteward::new(&grid, &packs(3), Conduct::Withholds);
    let (uploader, _events) = grid.start_with(2, Some(steward.peer()));
    let rows = deliver_all(&uploader, packs(3)).await;
    let start = Instant::now();
    uploader.set_steward(None);
    assert_eq!(uploader.drain().await.unwrap().packs_unsafe, 0);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_all_hold(&grid, &rows);
}
