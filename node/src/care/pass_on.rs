//! The steward's work: for each order, build what is missing from the shares that are here, and bring it to its targets.
//!
//! May be cut off anywhere: a share that its target has already is signed for again without being sent. Leaves out taking orders
//! (`peer::serve::pass_on`) and keeping them (`peer::passing`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use proto::id::{DeviceId, PackId};
use proto::share::Share;
use proto::share_store::{PeerStore, ShareStore, StoreError};
use proto::wire::pass_on::{PassOrder, Target};
use proto::wire::receipt::Receipt;

use crate::care::rebuild::{Source, build};
use crate::net::NetHandle;
use crate::peer::folder::FolderStore;
use crate::peer::kept::Shelf;
use crate::peer::passing::Order;

/// How long a target that did not take its share is left alone, the first time; doubles up to the longest.
const BACK_OFF_FIRST: Duration = Duration::from_secs(2);
const BACK_OFF_LONGEST: Duration = Duration::from_secs(600);
/// How often is looked without being told that there is something new.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a put may take. Chosen: a large share at 64 kbit/s.
const PUT_TIME: Duration = Duration::from_secs(600);

/// Targets that failed, and until when they are left alone.
#[derive(Default)]
struct Resting(HashMap<DeviceId, (Instant, Duration)>);

impl Resting {
    fn rests(&self, device: DeviceId) -> bool {
        self.0.get(&device).is_some_and(|(until, _)| *until > Instant::now())
    }

    fn failed(&mut self, device: DeviceId) {
        let wait = self.0.get(&device).map_or(BACK_OFF_FIRST, |(_, last)| (*last * 2).min(BACK_OFF_LONGEST));
        self.0.insert(device, (Instant::now() + wait, wait));
    }

    fn succeeded(&mut self, device: DeviceId) {
        self.0.remove(&device);
    }
}

/// Carries out orders until it is dropped.
pub async fn for_ever(net: NetHandle) {
    let mut resting = Resting::default();
    loop {
        let passing = net.passing();
        let of_list = net.clone();
        let packs = tokio::task::spawn_blocking(move || of_list.passing().packs()).await;
        for pack in packs.unwrap_or_default() {
            if let Err(error) = carry_out(&net, pack, &mut resting).await {
                tracing::warn!(pack = %pack.short(), %error, "a pack cannot be passed on now");
            }
        }
        let _ = tokio::time::timeout(LOOK_EVERY, passing.changed.notified()).await;
    }
}

async fn carry_out(net: &NetHandle, pack: PackId, resting: &mut Resting) -> Result<(), StoreError> {
    let Some(order) = net.passing().order(pack) else { return Ok(()) };
    let (owner, of_shelves) = (order.owner(), net.clone());
    let shelves = tokio::task::spawn_blocking(move || {
        Ok::<_, StoreError>((of_shelves.shelf(owner)?, of_shelves.passing().shelf(owner)?))
    });
    let (kept, passing) = shelves.await.map_err(stopped)??;
    let (open, asleep): (Vec<Target>, Vec<Target>) =
        order.record.open().into_iter().partition(|target| !resting.rests(target.device));
    if !open.is_empty() {
        bring(net, &order, &open, &asleep, &[&kept, &passing], resting).await?;
    }
    let of_end = net.clone();
    let ended = tokio::task::spawn_blocking(move || of_end.passing().end(pack, of_end.now_secs()));
    ended.await.map_err(stopped)?
}

/// Builds and puts what is open. Nothing happens while fewer shares are here than it takes: the owner is still sending.
async fn bring(
    net: &NetHandle,
    order: &Order,
    open: &[Target],
    asleep: &[Target],
    shelves: &[&Shelf],
    resting: &mut Resting,
) -> Result<(), StoreError> {
    let (record, manifest) = (&order.record, &order.record.order.manifest);
    let wanted: Vec<u8> = open.iter().map(|target| target.index).collect();
    let sources = sources(&record.order, shelves);
    if sources.len() < usize::from(manifest.shape.k) {
        return Ok(());
    }
    let built = match build(manifest, &sources, &wanted).await {
        Ok(built) => built,
        Err(error) => {
            tracing::warn!(pack = %manifest.pack.short(), %error, "a pack to be passed on cannot be built");
            return Ok(());
        }
    };
    let puts = built.shares.into_iter().zip(open).map(|((_, id, share), target)| async move {
        let store = net.peer_of(target.device, order.owner());
        (target, put(&store, id, share).await)
    });
    let (mut receipts, mut failing) = (Vec::new(), asleep.iter().map(|target| target.index).collect::<BTreeSet<u8>>());
    for (target, result) in join_all(puts).await {
        let signed = result.map(|receipt| receipt.filter(|receipt| record.order.is_for(receipt, target)));
        match signed {
            Ok(Some(receipt)) => {
                resting.succeeded(target.device);
                receipts.push(receipt);
            }
            Ok(None) => fail(resting, target, &mut failing, "it did not sign for it"),
            Err(error) => fail(resting, target, &mut failing, &error.to_string()),
        }
    }
    let (of_note, pack) = (net.clone(), manifest.pack);
    let noted = tokio::task::spawn_blocking(move || of_note.passing().note(pack, receipts, failing));
    noted.await.map_err(stopped)?
}

fn fail(resting: &mut Resting, target: &Target, failing: &mut BTreeSet<u8>, reason: &str) {
    tracing::info!(to = %target.device.short(), reason, "a share was not taken; it is tried again");
    resting.failed(target.device);
    failing.insert(target.index);
}

async fn put(store: &impl ShareStore, id: proto::id::ShareId, share: Share) -> Result<Option<Receipt>, StoreError> {
    let put = tokio::time::timeout(PUT_TIME, store.put(id, share)).await;
    let ack = put.map_err(|_| StoreError::Unreachable {
        reason: "it took too long".to_owned(),
    })??;
    Ok(ack.receipt.and_then(|receipt| Receipt::decode(&receipt).ok()))
}

/// The shares of the pack that are here, kept or to be passed on.
fn sources(order: &PassOrder, shelves: &[&Shelf]) -> Vec<Source> {
    let store = |id| {
        let mut stores = shelves.iter().map(|shelf| &shelf.store);
        stores.find(|store| store.has(id)).cloned()
    };
    let as_source = |index, store: FolderStore| Source {
        index,
        store: Arc::new(store) as Arc<dyn PeerStore>,
    };
    let shares = (0..).zip(&order.manifest.shares);
    shares
        .filter_map(|(index, id)| Some(as_source(index, store(*id)?)))
        .collect()
}

fn stopped(error: tokio::task::JoinError) -> StoreError {
    StoreError::Unreachable {
        reason: format!("The store's thread stopped: {error}"),
    }
}
