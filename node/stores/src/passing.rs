//! What this node passes on for friends who named it their steward (docs/protocol/steward.md): orders, each a file that is
//! durable before it is acknowledged, and shares that are not kept but brought to others.
//!
//! ```text
//! <store>/passing/orders/<pack id>                    a record (proto::wire::pass_on::PassRecord)
//! <store>/passing/<account>/…   a store as `peer::folder` has it
//! ```
//!
//! Shares to pass on have a store of their own: so no order, whoever gives it, can make this node part with a share that it
//! keeps, and nobody counts them as kept. Leaves out the bringing (`care::pass_on`). Everything here blocks.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use proto::id::{AccountId, PackId, ShareId};
use proto::share_store::StoreError;
use proto::wire::pass_on::{PassOrder, PassRecord, RECORD_BYTES_MAX};
use proto::wire::receipt::Receipt;
use tokio::sync::Notify;
use upload_queue::space::MinFree;

use super::folder::{FolderStore, store_error};
use super::partial::Partials;
use super::shelf::Shelf;

/// Most orders of one account: beyond it the owner sends by itself. Chosen: 48 GB of packs with k = 3 on their way at once.
const ORDERS_MAX: usize = 4096;
/// How long after it was given an order that was carried out is remembered. Chosen: as long as a share stays in the trash.
const REMEMBER_SECS: u64 = 30 * 86_400;

/// Orders, and the shares that wait for their targets.
pub struct Passing {
    root: PathBuf,
    orders: OnceLock<Mutex<Orders>>,
    shelves: Mutex<HashMap<AccountId, Shelf>>,
    min_free: MinFree,
    /// Something may be possible that was not before.
    pub changed: Notify,
}

type Orders = HashMap<PackId, Order>;

/// An order and how far it is.
#[derive(Clone, Debug)]
pub struct Order {
    /// What is on disk.
    pub record: PassRecord,
    /// Shares that their target did not take when that was last tried.
    pub failing: BTreeSet<u8>,
    /// Carried out, and its shares are removed.
    has_ended: bool,
}

impl Order {
    /// Whose pack it is.
    pub fn owner(&self) -> AccountId {
        self.record.order.manifest.account
    }

    fn is_old(&self, now_secs: u64) -> bool {
        now_secs.saturating_sub(self.record.since_secs) >= REMEMBER_SECS
    }
}

impl Passing {
    /// Orders and shares below `store`. Nothing is read before the first use.
    pub fn new(store: &Path) -> Self {
        Self {
            root: store.join("passing"),
            orders: OnceLock::new(),
            shelves: Mutex::default(),
            min_free: MinFree::default(),
            changed: Notify::new(),
        }
    }

    /// The same, of whose disk this stays free.
    pub fn keeping_free(self, min_free: MinFree) -> Self {
        Self { min_free, ..self }
    }

    /// The place of `owner`'s shares that are to be passed on, made when it is not there.
    pub fn shelf(&self, owner: AccountId) -> Result<Shelf, StoreError> {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shelf) = shelves.get(&owner) {
            return Ok(shelf.clone());
        }
        let opened = FolderStore::open(&self.root, owner, None);
        let store = opened.map_err(|error| StoreError::Unreachable {
            reason: error.to_string(),
        })?;
        store.set_min_free(self.min_free);
        let partials = Arc::new(Partials::new(store.incoming()));
        let shelf = Shelf { store, partials };
        shelves.insert(owner, shelf.clone());
        Ok(shelf)
    }

    /// Takes an order durably; of an older one for the same pack stay the receipts. Without targets the pack is forgotten.
    /// The caller has checked that it comes from the owner.
    pub fn take(&self, order: PassOrder, now_secs: u64) -> Result<Option<Order>, StoreError> {
        if order.targets.is_empty() {
            self.forget(&order)?;
            return Ok(None);
        }
        let (pack, owner) = (order.manifest.pack, order.manifest.account);
        let mut orders = self.orders();
        let known = orders.get(&pack).filter(|known| known.owner() == owner).cloned();
        if let Some(known) = known.as_ref().filter(|known| known.record.order == order) {
            return Ok(Some(known.clone()));
        }
        if known.is_none() {
            let of_owner = orders.values().filter(|order| order.owner() == owner).count();
            if of_owner >= ORDERS_MAX || orders.contains_key(&pack) {
                return Err(StoreError::Full {
                    reason: format!("{ORDERS_MAX} packs are to be passed on already"),
                });
            }
        }
        let (receipts, since_secs) = known.map_or((Vec::new(), now_secs), |known| {
            (known.record.receipts, known.record.since_secs)
        });
        let taken = Order {
            record: PassRecord {
                order,
                receipts,
                since_secs,
            },
            failing: BTreeSet::new(),
            has_ended: false,
        };
        self.write(&taken.record)?;
        orders.insert(pack, taken.clone());
        drop(orders);
        self.changed.notify_one();
        Ok(Some(taken))
    }

    /// Whether a share of `owner` belongs to a pack that is to be passed on.
    pub fn expects(&self, owner: AccountId, id: ShareId) -> bool {
        let orders = self.orders();
        let mut manifests = orders.values().map(|order| &order.record.order.manifest);
        manifests.any(|manifest| manifest.account == owner && manifest.shares.contains(&id))
    }

    /// The packs of the orders that there is something to do for, oldest first.
    pub fn packs(&self, now_secs: u64) -> Vec<PackId> {
        let orders = self.orders();
        let mut packs: Vec<_> = orders
            .values()
            .filter(|order| !order.has_ended || order.is_old(now_secs))
            .map(|order| (order.record.since_secs, order.record.order.manifest.pack))
            .collect();
        packs.sort_unstable_by_key(|(since, pack)| (*since, pack.0));
        packs.into_iter().map(|(_, pack)| pack).collect()
    }

    /// The order for a pack as it is now.
    pub fn order(&self, pack: PackId) -> Option<Order> {
        self.orders().get(&pack).cloned()
    }

    /// Notes what a round has brought, durably, and what it has not.
    pub fn note(&self, pack: PackId, receipts: Vec<Receipt>, failing: BTreeSet<u8>) -> Result<(), StoreError> {
        let mut orders = self.orders();
        let Some(order) = orders.get_mut(&pack) else {
            return Ok(());
        };
        order.failing = failing;
        if receipts.is_empty() {
            return Ok(());
        }
        let mut record = order.record.clone();
        record.receipts.extend(receipts);
        self.write(&record)?;
        order.record = record;
        Ok(())
    }

    /// Ends what is carried out: its shares go at once; the record stays for a while, so that an owner who was away can
    /// still learn who signed.
    pub fn end(&self, pack: PackId, now_secs: u64) -> Result<(), StoreError> {
        let Some(order) = self.order(pack) else { return Ok(()) };
        if !order.record.open().is_empty() {
            return Ok(());
        }
        self.remove_shares(&order.record.order)?;
        if order.is_old(now_secs) {
            return self.remove_record(pack);
        }
        if let Some(order) = self.orders().get_mut(&pack) {
            order.has_ended = true;
        }
        Ok(())
    }

    /// Forgets everything of an account; how many bytes that was.
    pub fn evict(&self, owner: AccountId) -> Result<u64, StoreError> {
        let of_owner = |order: &Order| order.owner() == owner;
        let orders: Vec<Order> = self
            .orders()
            .values()
            .filter(|order| of_owner(order))
            .cloned()
            .collect();
        if orders.is_empty() {
            return Ok(0);
        }
        let bytes = self.used_by(owner)?;
        orders.iter().try_for_each(|order| self.forget(&order.record.order))?;
        Ok(bytes)
    }

    /// Bytes of shares of `owner` that wait for their targets.
    pub fn used_by(&self, owner: AccountId) -> Result<u64, StoreError> {
        self.shelf(owner)?.used_bytes()
    }

    /// Bytes of all shares that wait for their targets.
    pub fn used_bytes(&self) -> Result<u64, StoreError> {
        let owners: BTreeSet<AccountId> = self.orders().values().map(Order::owner).collect();
        owners
            .into_iter()
            .try_fold(0, |sum, owner| Ok(sum + self.used_by(owner)?))
    }

    fn forget(&self, order: &PassOrder) -> Result<(), StoreError> {
        let pack = order.manifest.pack;
        let is_known = self
            .order(pack)
            .is_some_and(|known| known.owner() == order.manifest.account);
        if is_known {
            self.remove_shares(order)?;
            self.remove_record(pack)?;
        }
        Ok(())
    }

    fn remove_shares(&self, order: &PassOrder) -> Result<(), StoreError> {
        let store = self.shelf(order.manifest.account)?.store;
        order.manifest.shares.iter().try_for_each(|id| store.drop_share(*id))
    }

    /// The record goes after the shares: cut off, the rest is done in the next round.
    fn remove_record(&self, pack: PackId) -> Result<(), StoreError> {
        let mut orders = self.orders();
        match fs::remove_file(self.path(pack)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(store_error("removing an order", &error));
            }
            _ => {}
        }
        orders.remove(&pack);
        Ok(())
    }

    fn path(&self, pack: PackId) -> PathBuf {
        self.root.join("orders").join(pack.to_string())
    }

    /// Written beside, synced, renamed, the folder synced: an order that was acknowledged survives a power cut.
    fn write(&self, record: &PassRecord) -> Result<(), StoreError> {
        let path = self.path(record.order.manifest.pack);
        durable::create_folders(&self.root.join("orders"))
            .and_then(|()| durable::replace(&path, &[&record.encode()]))
            .map_err(|error| store_error("writing an order", &error))
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        let orders = self
            .orders
            .get_or_init(|| Mutex::new(read_all(&self.root.join("orders"))));
        orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is in the folder. A damaged record is removed: its owner, who still has everything, gives the order again.
fn read_all(folder: &Path) -> Orders {
    let mut orders = Orders::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return orders;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        match read(&path) {
            Ok(record) => {
                let order = Order {
                    record,
                    failing: BTreeSet::new(),
                    has_ended: false,
                };
                orders.insert(order.record.order.manifest.pack, order);
            }
            Err(reason) => {
                tracing::warn!(path = %path.display(), reason, "an order to pass a pack on cannot be read; it is dropped");
                let _ = fs::remove_file(&path);
            }
        }
    }
    orders
}

fn read(path: &Path) -> Result<PassRecord, String> {
    let bytes = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if bytes > RECORD_BYTES_MAX as u64 {
        return Err("it is too long".to_owned());
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let record = PassRecord::decode(&bytes).map_err(|error| error.to_string())?;
    let name = record.order.manifest.pack.to_string();
    match path.file_name().is_some_and(|found| *found == *name) {
        true => Ok(record),
        false => Err("it is of another pack".to_owned()),
    }
}

#[cfg(test)]
mod tests;
