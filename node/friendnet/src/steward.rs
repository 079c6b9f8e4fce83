//! The steward's work: for each order, build what is missing from the shares that are here, and bring it to its targets.
//!
//! May be cut off anywhere: a share that its target has already is signed for again without being sent. Leaves out taking orders
//! (`share::serve::pass_on`) and keeping them (`stores::passing`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use proto::id::{DeviceId, PackId, ShareId};
use proto::share::Share;
use proto::share_store::{PeerStore, ShareStore, StoreError};
use proto::wire::pass_on::{PassOrder, Target};
use proto::wire::receipt::Receipt;
use stores::passing::Order;
use upload_queue::care::rebuild::{Source, build};

use crate::blocking::blocking;
use crate::handle::NetHandle;

/// How long a target that did not take its share is left alone, the first time; doubles up to the longest.
const BACK_OFF_FIRST: Duration = Duration::from_secs(2);
const BACK_OFF_LONGEST: Duration = Duration::from_secs(600);
/// How often is looked without being told that there is something new.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a put may take. Chosen: a large share at 64 kbit/s.
const PUT_TIME: Duration = Duration::from_secs(600);

/// How long a pack that cannot be built is left alone: its owner brings other shares, or does without us.
const BUILD_AGAIN: Duration = Duration::from_secs(60);

/// What failed, and until when it is left alone.
#[derive(Default)]
struct Resting {
    targets: HashMap<DeviceId, (Instant, Duration)>,
    packs: HashMap<PackId, Instant>,
}

impl Resting {
    fn has(&self, device: DeviceId) -> bool {
        self.targets
            .get(&device)
            .is_some_and(|(until, _)| *until > Instant::now())
    }

    fn failed(&mut self, device: DeviceId) {
        let last = self.targets.get(&device).map(|(_, wait)| *wait);
        let wait = last.map_or(BACK_OFF_FIRST, |wait| (wait * 2).min(BACK_OFF_LONGEST));
        self.targets.insert(device, (Instant::now() + wait, wait));
    }

    fn succeeded(&mut self, device: DeviceId) {
        self.targets.remove(&device);
    }

    fn has_pack(&mut self, pack: PackId) -> bool {
        self.packs.retain(|_, until| *until > Instant::now());
        self.packs.contains_key(&pack)
    }
}

/// Carries out orders until it is dropped.
pub async fn for_ever(net: NetHandle) {
    let mut resting = Resting::default();
    loop {
        let of_list = net.clone();
        let packs = blocking(move || Ok(of_list.passing().packs(of_list.now_secs()))).await;
        for pack in packs.unwrap_or_default() {
            if resting.has_pack(pack) {
                continue;
            }
            if let Err(error) = carry_out(&net, pack, &mut resting).await {
                tracing::warn!(pack = %pack.short(), %error, "a pack cannot be passed on now");
            }
        }
        let _ = tokio::time::timeout(LOOK_EVERY, net.passing().changed.notified()).await;
    }
}

async fn carry_out(net: &NetHandle, pack: PackId, resting: &mut Resting) -> Result<(), StoreError> {
    let Some(order) = net.passing().order(pack) else {
        return Ok(());
    };
    let open = order.record.open();
    let (asleep, awake): (Vec<Target>, Vec<Target>) = open.into_iter().partition(|target| resting.has(target.device));
    let mut failing: BTreeSet<u8> = asleep.iter().map(|target| target.index).collect();
    let receipts = match awake.is_empty() {
        true => Vec::new(),
        false => bring(net, &order, &awake, &mut failing, resting).await?,
    };
    let of_note = net.clone();
    blocking(move || {
        let passing = of_note.passing();
        passing.note(pack, receipts, failing)?;
        passing.end(pack, of_note.now_secs())
    })
    .await
}

/// Builds and puts what is open; returns what was signed for. Nothing happens while fewer shares are here than it takes: the
/// owner is still sending.
async fn bring(
    net: &NetHandle,
    order: &Order,
    open: &[Target],
    failing: &mut BTreeSet<u8>,
    resting: &mut Resting,
) -> Result<Vec<Receipt>, StoreError> {
    let (of_order, manifest) = (&order.record.order, &order.record.order.manifest);
    let (of_sources, asked) = (net.clone(), of_order.clone());
    let sources = blocking(move || sources(&of_sources, &asked)).await?;
    if sources.len() < usize::from(manifest.shape.k) {
        return Ok(Vec::new());
    }
    let wanted: Vec<u8> = open.iter().map(|target| target.index).collect();
    let built = match build(manifest, &sources, &wanted).await {
        Ok(built) => built,
        Err(error) => {
            tracing::warn!(pack = %manifest.pack.short(), %error, "a pack to be passed on cannot be built");
            failing.extend(wanted);
            resting.packs.insert(manifest.pack, Instant::now() + BUILD_AGAIN);
            return Ok(Vec::new());
        }
    };
    let puts = built
        .shares
        .into_iter()
        .zip(open)
        .map(|((_, id, share), target)| async move {
            let store = net.peer_of(target.device, order.owner());
            (target, put(&store, id, share).await)
        });
    let mut receipts = Vec::new();
    for (target, result) in join_all(puts).await {
        let reason = match result {
            Ok(Some(receipt)) if of_order.is_for(&receipt, target) => {
                resting.succeeded(target.device);
                receipts.push(receipt);
                continue;
            }
            Ok(_) => "it did not sign for it".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::info!(to = %target.device.short(), reason, "a share was not taken; it is tried again");
        resting.failed(target.device);
        failing.insert(target.index);
    }
    Ok(receipts)
}

async fn put(store: &impl ShareStore, id: ShareId, share: Share) -> Result<Option<Receipt>, StoreError> {
    let put = tokio::time::timeout(PUT_TIME, store.put(id, share)).await;
    let ack = put.map_err(|_| StoreError::Unreachable {
        reason: "it took too long".to_owned(),
    })??;
    Ok(ack.receipt.and_then(|receipt| Receipt::decode(&receipt).ok()))
}

/// The shares of the pack that are here, kept or to be passed on. Blocks.
fn sources(net: &NetHandle, order: &PassOrder) -> Result<Vec<Source>, StoreError> {
    let owner = order.manifest.account;
    let stores = [net.shelf(owner)?.store, net.passing().shelf(owner)?.store];
    let shares = (0..).zip(&order.manifest.shares);
    let here = shares.filter_map(|(index, id)| {
        let store = stores.iter().find(|store| store.has(*id))?;
        let store: Arc<dyn PeerStore> = Arc::new(store.clone());
        Some(Source { index, store })
    });
    Ok(here.collect())
}
