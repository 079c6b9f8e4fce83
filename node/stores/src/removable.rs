//! A folder peer that may come and go: a USB disk, a NAS mount. Opened when it is there, unreachable when it is not.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;

use api::clock;
use bytes::Bytes;
use proto::discard::{Discard, Evidence, NO_HOLDER, Order};
use proto::id::{AccountId, ShareId, VolumeId, VoterId};
use proto::share::Share;
use proto::share_store::{
    BoxFuture, HeadPlace, HeadStore, OldHeads, PromiseStore, PutAck, ShareStore, Space, StoreError,
};
use upload_queue::space::MinFree;

use crate::bucket::Signer;
use crate::folder::FolderStore;

/// The folder of one account's shares at `root`, if it is there now.
pub struct DirPeer {
    root: PathBuf,
    signer: Signer,
    quota: Option<u64>,
    min_free: MinFree,
    opened: Mutex<Option<FolderStore>>,
}

impl DirPeer {
    /// A peer at `root`; nothing is touched yet.
    pub fn new(root: PathBuf, signer: Signer, quota: Option<u64>) -> Self {
        Self {
            root,
            signer,
            quota,
            min_free: MinFree::default(),
            opened: Mutex::new(None),
        }
    }

    /// The same, of whose disk this stays free.
    pub fn keeping_free(self, min_free: MinFree) -> Self {
        Self { min_free, ..self }
    }

    /// The store, opened anew if the last attempt failed. A folder without its marker is a disk that is not mounted.
    pub fn store(&self) -> Result<FolderStore, StoreError> {
        let mut opened = self.opened.lock().expect("no panic while the store is locked");
        if let Some(store) = opened.as_ref().filter(|_| self.root.exists()) {
            return Ok(store.clone());
        }
        let store = FolderStore::open_existing(&self.root, self.signer.cert.account, self.quota);
        let store = store.map_err(|error| StoreError::Unreachable {
            reason: error.to_string(),
        })?;
        store.set_min_free(self.min_free);
        *opened = Some(store.clone());
        Ok(store)
    }

    async fn give_up(&self, ids: Vec<ShareId>) -> Result<u32, StoreError> {
        self.signer.check()?;
        let Signer { device, cert } = &self.signer;
        if ids.is_empty() {
            return Ok(0);
        }
        let store = self.store()?;
        let last = store.last_discard().await?;
        let order = Order {
            holder: NO_HOLDER,
            number: last.number.saturating_add(1),
            previous: last.hash,
            issued_secs: clock::now_secs(),
        };
        let discard = Discard::sign(device, cert, order, &ids).map_err(StoreError::refused)?;
        store.take_discard(discard, ids, NO_HOLDER).await
    }
}

impl ShareStore for DirPeer {
    fn put(&self, id: ShareId, share: Share) -> BoxFuture<'_, Result<PutAck, StoreError>> {
        Box::pin(async move { self.store()?.put(id, share).await })
    }
    fn get(&self, id: ShareId, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        Box::pin(async move { self.store()?.get(id, range).await })
    }
    fn list(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(async move { self.store()?.list(after, limit).await })
    }
    fn remove(&self, id: ShareId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.give_up(vec![id]).await.map(drop) })
    }
    fn space(&self) -> BoxFuture<'_, Result<Space, StoreError>> {
        Box::pin(async move { self.store()?.space().await })
    }
    fn discard(&self, ids: Vec<ShareId>) -> BoxFuture<'_, Result<u32, StoreError>> {
        Box::pin(self.give_up(ids))
    }
    fn list_trash(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(async move { self.store()?.list_trash(after, limit).await })
    }
    fn evidence(&self, id: ShareId) -> BoxFuture<'_, Result<Evidence, StoreError>> {
        Box::pin(async move { self.store()?.evidence(id).await })
    }
    fn recall(&self, ids: Vec<ShareId>) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(async move { self.store()?.recall(ids).await })
    }
}

impl HeadStore for DirPeer {
    fn put_head(&self, head: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.store()?.put_head(head).await })
    }
    fn heads(&self, account: AccountId) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>> {
        Box::pin(async move { self.store()?.heads(account).await })
    }
    fn old_heads(&self, account: AccountId, after: Option<HeadPlace>) -> BoxFuture<'_, Result<OldHeads, StoreError>> {
        Box::pin(async move { self.store()?.old_heads(account, after).await })
    }
}

impl PromiseStore for DirPeer {
    fn claim(&self, claim: Bytes) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        Box::pin(async move { self.store()?.claim(claim).await })
    }
    fn promise(&self, account: AccountId, volume: VolumeId) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(async move { self.store()?.promise(account, volume).await })
    }
    fn voter(&self) -> BoxFuture<'_, Result<VoterId, StoreError>> {
        Box::pin(async move { self.store()?.voter().await })
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proto::id::DeviceId;
    use proto::keys::{DeviceCert, power};
    use proto::share_store::contract;
    use proto::share_store::contract::Fixture;

    use super::*;

    #[tokio::test]
    async fn a_folder_peer_keeps_what_it_gives_up_as_long_as_its_manifest_says() {
        let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
        FolderStore::open(root.path(), fixture.account(), None).unwrap();
        let device = SigningKey::from_bytes(&[8; 32]);
        let id = DeviceId(device.verifying_key().to_bytes());
        let cert = DeviceCert::sign(fixture.words(), id, power::ALL, "laptop", 0);
        let peer = DirPeer::new(root.path().to_owned(), Signer { device, cert }, None);
        let pass_days = async |days| {
            let store = peer.store().unwrap();
            store.pass_days(days);
            store.expire().unwrap();
        };
        contract::check_keep_days(&peer, &fixture, pass_days).await;
    }
}
