//! Shares, heads and promises of one account in a directory: a `dir:` peer, and what this node keeps for a friend.
//!
//! The file system is the only truth: no database beside it, nothing to repair after a crash. A share is a file that appears
//! under its name when it is complete and durable, and goes by way of the trash. Leaves out whose turn it is and how fast: limits are decorators.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use proto::discard::{Discard, Evidence};
use proto::id::{AccountId, DeviceId, ShareId, VolumeId, VoterId};
use proto::shape::ShareSize;
use proto::share::Share;
use proto::share_store::{
    BoxFuture, HeadPlace, HeadStore, OldHeads, PromiseStore, PutAck, ShareStore, Space, StoreError,
};
use proto::wire::word::AccountWord;
use upload_queue::space::{MinFree, Room};

mod care;
mod claims;
mod days;
mod heads;
mod layout;
mod promises;
mod trash;
mod usage;
mod writes;

pub use claims::Claims;
use days::Days;
use layout::Layout;
pub use layout::{account_folder, is_marked, used_below};
use promises::Durable;
pub use promises::VOLUMES_MAX;
pub use trash::{Expired, LastDiscard, TRASH_DAYS};
pub use usage::Earmark;
use usage::Usage;
pub use writes::store_error;

/// A folder that cannot be used as a store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder is missing, or its marker is: an unmounted disk looks like this.
    #[error("{path} is not a gridbackup store: is the disk mounted?")]
    NotAStore {
        /// The folder.
        path: PathBuf,
    },
    /// The marker is not what was written, and nothing beside it says that this is a store.
    #[error(
        "The marker in {path} is damaged and nothing is stored there: remove {path}/gridbackup-store, then add the folder again"
    )]
    Damaged {
        /// The folder.
        path: PathBuf,
    },
    /// The marker was written by a newer gridbackup.
    #[error("The store in {path} is of a newer version: update gridbackup")]
    Version {
        /// The folder.
        path: PathBuf,
    },
    /// The folder cannot be read or written.
    #[error("The store in {path} cannot be used: {source}")]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// One account's shares and heads in a directory; clones share it.
#[derive(Clone)]
pub struct FolderStore {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    owner: AccountId,
    usage: Usage,
    claims: Claims,
    days: Days,
    /// Held while a discard is taken.
    discards: Mutex<()>,
    /// Held while a head is taken.
    heads: Mutex<()>,
    /// Held while a claim is judged, or a promise read.
    promises: Mutex<Durable>,
}

impl FolderStore {
    /// Opens the store of `owner` below `root`, and makes both when they are not there. `quota` limits the bytes of stored
    /// shares.
    pub fn open(root: &Path, owner: AccountId, quota: Option<u64>) -> Result<Self, OpenError> {
        layout::mark(root)?;
        Self::open_marked(root, owner, quota)
    }

    /// As `open`, but the root must already be a store: so that an unmounted disk is missed, not replaced.
    pub fn open_existing(root: &Path, owner: AccountId, quota: Option<u64>) -> Result<Self, OpenError> {
        layout::check_or_mend_mark(root)?;
        Self::open_marked(root, owner, quota)
    }

    fn open_marked(root: &Path, owner: AccountId, quota: Option<u64>) -> Result<Self, OpenError> {
        let layout = Layout::create(root, owner)?;
        let inner = Inner {
            layout,
            owner,
            usage: Usage::new(quota),
            claims: Claims::default(),
            days: Days::open(root, layout::newest_trash_day(root)),
            discards: Mutex::default(),
            heads: Mutex::default(),
            promises: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// When the newest head of `account` came to the store at `root`, seconds since 1970. Blocks.
    pub fn newest_head_secs(root: &Path, account: AccountId) -> Option<u64> {
        let heads = fs::read_dir(account_folder(root, account).join("heads")).ok()?;
        let times = heads.flatten().filter_map(|head| head.metadata().ok()?.modified().ok());
        let newest = times.max()?;
        newest
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()
            .map(|since| since.as_secs())
    }

    /// Whose shares these are.
    pub fn owner(&self) -> AccountId {
        self.inner.owner
    }

    /// Changes the limit on stored bytes. Shares beyond a lowered one stay.
    pub fn set_quota(&self, quota: Option<u64>) {
        self.inner.usage.set_quota(quota);
    }

    /// Changes what of the disk stays free.
    pub fn set_min_free(&self, min_free: MinFree) {
        self.inner.usage.set_min_free(min_free);
    }

    /// Bytes that the account takes, but for what has not arrived in full. Blocks the first time, while they are counted.
    pub fn used_bytes(&self) -> Result<u64, StoreError> {
        self.inner.usage.used(&self.inner.layout)
    }

    /// Reads a share back from disk and checks all of it. `Corrupt` if a byte is wrong. Blocks.
    pub fn verify(&self, id: ShareId) -> Result<(), StoreError> {
        self.inner
            .read_whole(id)?
            .verify(id)
            .map_err(|error| StoreError::Corrupt {
                reason: error.to_string(),
            })
    }

    /// Opens a share's file for reading; gives its length too. Blocks.
    pub fn open_share(&self, id: ShareId) -> Result<(File, u64), StoreError> {
        self.inner.open_share(id)
    }

    /// Whether a sound copy of `id` is here already, if need be out of the trash; a damaged one counts as absent, so that
    /// putting it again heals it. Blocks.
    pub fn holds_sound(&self, id: ShareId) -> Result<bool, StoreError> {
        let _claim = self.inner.claims.claim(id);
        self.inner.holds_sound(id)
    }

    /// Whether a share was given up and is only in the trash. Blocks.
    pub fn is_given_up(&self, id: ShareId) -> bool {
        !self.has(id) && self.inner.open_trashed(id).is_ok()
    }

    /// Fails with `Full` if `bytes` more would be beyond the quota. Blocks.
    pub fn check_quota(&self, bytes: u64) -> Result<(), StoreError> {
        self.inner.usage.check_quota(&self.inner.layout, bytes)
    }

    /// Takes room on the disk for `bytes` that were earmarked, or fails with `Full`. Blocks.
    pub fn take_disk(&self, bytes: u64) -> Result<Room, StoreError> {
        self.inner.usage.take_disk(&self.inner.layout, bytes)
    }

    /// Takes room in the quota for a share that is on its way, beside `unfinished` bytes of others, or fails with `Full`.
    /// Blocks.
    pub fn earmark(&self, bytes: u64, unfinished: u64) -> Result<Earmark, StoreError> {
        self.inner.usage.earmark(&self.inner.layout, bytes, unfinished)
    }

    /// The last discard that was taken.
    pub async fn last_discard(&self) -> Result<LastDiscard, StoreError> {
        self.blocking(Inner::last_discard).await
    }

    /// Carries out a discard as `holder`: moves the shares that are there to the trash, durably, and counts them.
    pub async fn take_discard(&self, discard: Discard, ids: Vec<ShareId>, holder: DeviceId) -> Result<u32, StoreError> {
        self.blocking(move |inner| inner.take_discard(&discard, &ids, holder, inner.days.today()))
            .await
    }

    /// Keeps a head, unless what its account said of itself, as far as is known, revokes the device that signed it.
    pub async fn keep_head(&self, head: Bytes, word: Option<AccountWord>) -> Result<(), StoreError> {
        self.blocking(move |inner| heads::put(inner, &head, word.as_ref()))
            .await
    }

    /// Judges a claim of the owner, unless what the owner said of itself, as far as is known, revokes the device that signed it.
    pub async fn judge(&self, claim: Bytes, word: Option<AccountWord>) -> Result<Bytes, StoreError> {
        self.blocking(move |inner| promises::claim(inner, &claim, word.as_ref()))
            .await
    }

    /// Removes for good what has been in the trash for longer than [`TRASH_DAYS`], or than the fewer days that it was written with.
    /// Blocks.
    pub fn expire(&self) -> Result<Expired, StoreError> {
        self.inner.expire(self.inner.days.today())
    }

    /// Where transfers are that have not ended.
    pub fn incoming(&self) -> PathBuf {
        self.inner.layout.incoming()
    }

    /// Takes a complete, synced file on the same file system into the store under `id`, durably. The caller has checked
    /// its bytes. Blocks.
    pub fn adopt(&self, id: ShareId, path: &Path, bytes: u64, earmark: Option<Earmark>) -> Result<(), StoreError> {
        let _claim = self.inner.claims.claim(id);
        // Another put was faster. What came first stays: a later manifest must not shorten its days in the trash.
        if self.has(id) && self.inner.holds_sound(id)? {
            return fs::remove_file(path).map_err(|error| writes::store_error("removing a second copy", &error));
        }
        self.inner.install(id, path, bytes, earmark)
    }

    /// Counts so many days: a test's time.
    #[cfg(test)]
    pub(crate) fn pass_days(&self, days: u32) {
        self.inner.days.pass(days);
    }

    async fn blocking<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    {
        let inner = self.inner.clone();
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(stopped) => Err(StoreError::Unreachable {
                reason: format!("The store's thread stopped: {stopped}"),
            }),
        }
    }
}

impl Inner {
    fn put(&self, id: ShareId, share: &Share) -> Result<PutAck, StoreError> {
        share.verify(id).map_err(|error| StoreError::Refused {
            reason: error.to_string(),
        })?;
        let _claim = self.claims.claim(id);
        if self.holds_sound(id)? {
            return Ok(PutAck::default());
        }
        let bytes = share.stored_bytes() as u64;
        let _room = self.usage.take_room(&self.layout, bytes)?;
        let temp = self.layout.temp(id);
        writes::write(&temp, &[&share.data, &share.tail])
            .and_then(|()| self.install(id, &temp, bytes, None))
            .inspect_err(|_| drop(fs::remove_file(&temp)))?;
        Ok(PutAck {
            bytes_sent: bytes,
            receipt: None,
        })
    }

    /// Counts before the rename and takes the count back when it fails: two puts can then never share the last free bytes.
    fn install(&self, id: ShareId, from: &Path, bytes: u64, earmark: Option<Earmark>) -> Result<(), StoreError> {
        let path = self.layout.share(id);
        let replaced = fs::metadata(&path).map_or(0, |found| found.len());
        self.usage.reserve(&self.layout, bytes, replaced, earmark)?;
        writes::rename(from, &path).inspect_err(|_| self.usage.release(bytes, replaced))
    }

    fn open_share(&self, id: ShareId) -> Result<(File, u64), StoreError> {
        let found = File::open(self.layout.share(id)).or_else(|error| match error.kind() {
            ErrorKind::NotFound => self.open_trashed(id),
            _ => Err(error),
        });
        let found = found.and_then(|file| {
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        });
        match found {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.layout.check_here()?;
                Err(StoreError::NotFound)
            }
            other => other.map_err(|error| writes::store_error("reading a share", &error)),
        }
    }

    fn get(&self, id: ShareId, range: Range<u32>) -> Result<Bytes, StoreError> {
        let (file, bytes) = self.open_share(id)?;
        // A file longer than any share is damaged; the bound keeps it from deciding how much memory this takes.
        let end = u64::from(range.end);
        if range.start > range.end || end > bytes || end > ShareSize::LARGEST.stored_bytes() as u64 {
            return Err(StoreError::OutOfRange);
        }
        let mut buffer = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut buffer, range.start.into())
            .map_err(|error| writes::store_error("reading a share", &error))?;
        Ok(buffer.into())
    }

    fn read_whole(&self, id: ShareId) -> Result<Share, StoreError> {
        let (_, bytes) = self.open_share(id)?;
        let length = usize::try_from(bytes)
            .ok()
            .filter(|&bytes| ShareSize::from_stored_bytes(bytes).is_some());
        let Some(length) = length else {
            return Err(StoreError::Corrupt {
                reason: format!("{bytes} bytes are not the length of a stored share"),
            });
        };
        let stored = self.get(id, 0..length as u32)?;
        Share::from_stored(stored).map_err(|error| StoreError::Corrupt {
            reason: error.to_string(),
        })
    }

    /// The caller has claimed `id`. What is said to be held is durable: its bytes were synced before it had its name, and the
    /// name is synced here, because whoever gave it may have been cut off before.
    fn holds_sound(&self, id: ShareId) -> Result<bool, StoreError> {
        if !self.layout.share(id).exists() {
            self.recall_claimed(id)?;
        }
        let sound = match self.read_whole(id) {
            Ok(share) => share.verify(id).is_ok(),
            Err(StoreError::NotFound | StoreError::Corrupt { .. }) => false,
            Err(error) => return Err(error),
        };
        if sound {
            writes::sync_directory_of(&self.layout.share(id))
                .map_err(|error| writes::store_error("naming a share", &error))?;
        }
        Ok(sound)
    }

    fn list(&self, after: Option<ShareId>, limit: u32) -> Result<Vec<ShareId>, StoreError> {
        let limit = limit as usize;
        let mut ids = Vec::new();
        for first in after.map_or(0, |id| id.0[0])..=u8::MAX {
            if ids.len() >= limit {
                break;
            }
            let mut found = self
                .layout
                .shares_in(first)
                .map_err(|error| writes::store_error("listing shares", &error))?;
            found.retain(|id| after.is_none_or(|after| *id > after));
            found.sort_unstable();
            found.truncate(limit - ids.len());
            ids.append(&mut found);
        }
        if ids.is_empty() {
            self.layout.check_here()?;
        }
        Ok(ids)
    }

    fn remove(&self, id: ShareId) -> Result<(), StoreError> {
        let _claim = self.claims.claim(id);
        let path = self.layout.share(id);
        let removed = fs::metadata(&path).and_then(|found| fs::remove_file(&path).map(|()| found.len()));
        match removed {
            Ok(bytes) => {
                self.usage.release(bytes, 0);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => self.layout.check_here(),
            Err(error) => Err(writes::store_error("removing a share", &error)),
        }
    }
}

impl ShareStore for FolderStore {
    fn put(&self, id: ShareId, share: Share) -> BoxFuture<'_, Result<PutAck, StoreError>> {
        Box::pin(self.blocking(move |inner| inner.put(id, &share)))
    }
    fn get(&self, id: ShareId, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        Box::pin(self.blocking(move |inner| inner.get(id, range)))
    }
    fn list(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(self.blocking(move |inner| inner.list(after, limit)))
    }
    fn remove(&self, id: ShareId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.blocking(move |inner| inner.remove(id)))
    }
    fn space(&self) -> BoxFuture<'_, Result<Space, StoreError>> {
        Box::pin(self.blocking(|inner| inner.usage.space(&inner.layout)))
    }
    fn list_trash(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(self.blocking(move |inner| inner.list_trash(after, limit)))
    }
    fn evidence(&self, id: ShareId) -> BoxFuture<'_, Result<Evidence, StoreError>> {
        Box::pin(self.blocking(move |inner| inner.evidence(id)))
    }
    fn recall(&self, ids: Vec<ShareId>) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(self.blocking(move |inner| inner.recall(&ids)))
    }
}

impl HeadStore for FolderStore {
    fn put_head(&self, head: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.keep_head(head, None))
    }
    fn heads(&self, account: AccountId) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>> {
        Box::pin(self.blocking(move |inner| heads::of(&inner.layout, account)))
    }
    fn old_heads(&self, account: AccountId, after: Option<HeadPlace>) -> BoxFuture<'_, Result<OldHeads, StoreError>> {
        Box::pin(self.blocking(move |inner| heads::old(inner, account, after)))
    }
}

impl PromiseStore for FolderStore {
    fn claim(&self, claim: Bytes) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        Box::pin(self.judge(claim, None))
    }
    fn promise(&self, account: AccountId, volume: VolumeId) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(self.blocking(move |inner| promises::of(inner, account, volume)))
    }
    fn voter(&self) -> BoxFuture<'_, Result<VoterId, StoreError>> {
        Box::pin(self.blocking(|inner| promises::voter(&inner.layout)))
    }
}

#[cfg(test)]
mod tests;
