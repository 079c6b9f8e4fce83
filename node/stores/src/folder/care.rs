//! What looking after a store needs of it: which pack a share belongs to, and a place for damaged ones.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use proto::id::ShareId;
use proto::manifest::Manifest;
use proto::shape::ShareSize;
use proto::share::manifest_in_tail;
use proto::share_store::StoreError;

use super::{FolderStore, Inner, writes};

impl FolderStore {
    /// The manifest in a share's tail: its data is not read. Blocks.
    pub fn manifest(&self, id: ShareId) -> Result<Manifest, StoreError> {
        self.inner.manifest(id)
    }

    /// How long a share has been here, by this machine's clock; nothing for one from the future. Blocks.
    pub fn age(&self, id: ShareId) -> Result<Duration, StoreError> {
        let (file, _) = self.inner.open_share(id)?;
        let written = file.metadata().and_then(|found| found.modified());
        let written = written.map_err(|error| writes::store_error("reading a share", &error))?;
        Ok(written.elapsed().unwrap_or_default())
    }

    /// Whether there is a file of this share, sound or not. Blocks.
    pub fn has(&self, id: ShareId) -> bool {
        self.inner.layout.share(id).exists()
    }

    /// Removes a share for good, without the trash: for shares that are not kept here, but passed on. Blocks.
    pub fn drop_share(&self, id: ShareId) -> Result<(), StoreError> {
        self.inner.remove(id)
    }

    /// Moves everything of the account away, durably, but its promises: where it is then, to be removed. Blocks.
    pub fn evict(&self) -> Result<PathBuf, StoreError> {
        // Whoever asked in between would hear of no promise.
        let _no_claim = self.inner.promises.lock().unwrap_or_else(PoisonError::into_inner);
        let evicted = self.inner.layout.evict();
        evicted.map_err(|error| writes::store_error("moving what an account stored", &error))?;
        Ok(self.inner.layout.evicted())
    }

    /// Moves a damaged share aside, durably: it is listed and served no longer, so that its owner and whoever repairs for
    /// it learn that it is gone. The file stays for whoever wants to look at the disk. Blocks.
    pub fn set_aside(&self, id: ShareId) -> Result<(), StoreError> {
        let _claim = self.inner.claims.claim(id);
        let path = self.inner.layout.share(id);
        let bytes = fs::metadata(&path)
            .map_err(|error| writes::store_error("reading a share", &error))?
            .len();
        writes::relocate(&path, &self.inner.layout.damaged(id))?;
        self.inner.usage.release(bytes, 0);
        Ok(())
    }
}

impl Inner {
    pub(super) fn manifest(&self, id: ShareId) -> Result<Manifest, StoreError> {
        let (file, bytes) = self.open_share(id)?;
        let corrupt = |reason: String| StoreError::Corrupt { reason };
        let size = usize::try_from(bytes).ok().and_then(ShareSize::from_stored_bytes);
        let size = size.ok_or_else(|| corrupt(format!("{bytes} bytes are not the length of a stored share")))?;
        let mut tail = vec![0; size.tail_bytes()];
        file.read_exact_at(&mut tail, size.data_bytes() as u64)
            .map_err(|error| writes::store_error("reading a share", &error))?;
        manifest_in_tail(size, &tail).map_err(|error| corrupt(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use proto::share_store::ShareStore;
    use proto::share_store::contract::Fixture;

    use super::*;

    #[tokio::test]
    async fn a_share_set_aside_is_listed_and_counted_no_longer_and_can_be_put_again() {
        let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
        let store = FolderStore::open(root.path(), fixture.account(), None).unwrap();
        let (id, share) = fixture.share(0);
        store.put(id, share.clone()).await.unwrap();
        assert_eq!(store.manifest(id).unwrap(), share.manifest().unwrap());
        assert!(store.age(id).unwrap() < Duration::from_secs(60));
        store.set_aside(id).unwrap();
        assert_eq!(store.list(None, 10).await.unwrap(), []);
        assert_eq!(store.used_bytes().unwrap(), 0);
        assert_eq!(store.get(id, 0..1).await, Err(StoreError::NotFound));
        assert_eq!(store.manifest(id), Err(StoreError::NotFound));
        store.put(id, share.clone()).await.unwrap();
        store.set_aside(id).unwrap();
        store.put(id, share).await.unwrap();
        assert_eq!(store.list(None, 10).await.unwrap(), [id]);
    }
}
