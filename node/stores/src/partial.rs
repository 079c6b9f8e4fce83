//! Shares that have arrived in part: files that grow as bytes come, so that a transfer goes on where it stopped, whichever
//! end went away.
//!
//! Nothing is known about the bytes before the share is complete; then they are read back and checked as a whole. Everything
//! here blocks.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use proto::id::ShareId;
use proto::share::Share;
use proto::share_store::StoreError;
use upload_queue::space::Room;

use super::folder::{Claims, Earmark, FolderStore, store_error};

/// Most unfinished transfers kept for one friend. With the size of a share this also bounds their bytes.
const PARTIALS_MAX: usize = 64;
const EXTENSION: &str = "part";

/// The order in which puts were asked for. The last one asked for counts, whichever begins first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Turn(u64);

impl Turn {
    /// One later than all before.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// One friend's unfinished transfers.
pub struct Partials {
    folder: PathBuf,
    /// Beginning and finishing one share exclude each other: else a second transfer would begin in the very file that the
    /// first is about to take away.
    turns: Claims,
    /// The newest writer of each share that is being received: when a connection breaks unnoticed, the next one takes over.
    writers: Mutex<HashMap<ShareId, Turn>>,
}

/// A transfer that nobody goes on with just now.
struct Idle {
    id: ShareId,
    path: PathBuf,
    bytes: u64,
    changed: SystemTime,
}

/// A transfer that is going on. Dropping it ends it; its bytes stay.
pub struct Partial {
    partials: Arc<Partials>,
    id: ShareId,
    writer: Turn,
    path: PathBuf,
    file: File,
    /// On the disk, for what has not come yet.
    room: Room,
    /// In the quota.
    earmark: Option<Earmark>,
    /// Bytes that are in the file.
    received: u32,
    stored_bytes: u32,
    resumed: bool,
}

impl Partials {
    /// Transfers in `folder`, which exists.
    pub fn new(folder: PathBuf) -> Self {
        let (turns, writers) = Default::default();
        Self { folder, turns, writers }
    }

    /// Begins or goes on with the transfer of `id`; whoever asked for it before `writer` can write it no longer. `None` if
    /// `store` holds it already.
    pub fn open(
        self: &Arc<Self>,
        id: ShareId,
        stored_bytes: u32,
        writer: Turn,
        store: &FolderStore,
    ) -> Result<Option<Partial>, StoreError> {
        let _turn = self.turns.claim(id);
        if store.holds_sound(id)? {
            return Ok(None);
        }
        let earmark = self.earmark(id, stored_bytes, store)?;
        let mut room = store.take_disk(stored_bytes.into())?;
        {
            // Before its file is opened: what somebody writes is not removed to make room.
            let mut writers = self.lock();
            if writers.get(&id).is_some_and(|other| *other > writer) {
                return Err(taken_over());
            }
            writers.insert(id, writer);
        }
        let path = self.folder.join(format!("{id}.{EXTENSION}"));
        let (file, received) = self.open_file(&path, stored_bytes).map_err(|error| {
            self.end(id, writer);
            store_error("receiving a share", &error)
        })?;
        room.written(received.into());
        let resumed = received > 0;
        Ok(Some(Partial {
            partials: self.clone(),
            id,
            writer,
            path,
            file,
            room,
            earmark: Some(earmark),
            received,
            stored_bytes,
            resumed,
        }))
    }

    fn open_file(&self, path: &Path, stored_bytes: u32) -> io::Result<(File, u32)> {
        if !path.exists() {
            self.make_room()?;
        }
        let file = File::options().append(true).create(true).open(path)?;
        match u32::try_from(file.metadata()?.len()) {
            Ok(received) if received <= stored_bytes => Ok((file, received)),
            _ => file.set_len(0).map(|()| (file, 0)),
        }
    }

    /// Room in the quota of `store` for a share; transfers that nobody goes on with give way to it.
    fn earmark(&self, id: ShareId, stored_bytes: u32, store: &FolderStore) -> Result<Earmark, StoreError> {
        let others = self.idle(Some(id)).map_err(unfinished_error)?;
        let others = others.iter().map(|idle| idle.bytes).sum();
        match store.earmark(stored_bytes.into(), others) {
            Err(StoreError::Full { .. }) if others > 0 => {
                self.drop_idle(Some(id))?;
                store.earmark(stored_bytes.into(), 0)
            }
            earmarked => earmarked,
        }
    }

    /// Bytes of transfers that nobody goes on with just now.
    pub fn idle_bytes(&self) -> Result<u64, StoreError> {
        let idle = self.idle(None).map_err(unfinished_error)?;
        Ok(idle.iter().map(|idle| idle.bytes).sum())
    }

    /// Removes the transfers that nobody goes on with, but for that of `but`: they begin anew.
    pub fn drop_idle(&self, but: Option<ShareId>) -> Result<(), StoreError> {
        let idle = self.idle(but).map_err(unfinished_error)?;
        idle.iter()
            .try_for_each(|idle| self.remove(idle))
            .map_err(unfinished_error)
    }

    /// Removes the oldest transfers that nobody is writing, until that which begins fits: it is among the writers.
    fn make_room(&self) -> io::Result<()> {
        let mut idle = self.idle(None)?;
        let count = idle.len() + self.lock().len();
        idle.sort_unstable_by_key(|idle| idle.changed);
        let surplus = count.saturating_sub(PARTIALS_MAX);
        idle.iter().take(surplus).try_for_each(|idle| self.remove(idle))
    }

    fn idle(&self, but: Option<ShareId>) -> io::Result<Vec<Idle>> {
        let mut idle = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let Some(id) = share_of(&path).filter(|id| Some(*id) != but) else {
                continue;
            };
            let found = match fs::metadata(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                found => found?,
            };
            if !self.lock().contains_key(&id) {
                idle.push(Idle {
                    id,
                    path,
                    bytes: found.len(),
                    changed: found.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                });
            }
        }
        Ok(idle)
    }

    fn remove(&self, idle: &Idle) -> io::Result<()> {
        // Under the lock: somebody may have begun to go on with it.
        let writers = self.lock();
        if writers.contains_key(&idle.id) {
            return Ok(());
        }
        match fs::remove_file(&idle.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn end(&self, id: ShareId, writer: Turn) {
        let mut writers = self.lock();
        if writers.get(&id) == Some(&writer) {
            writers.remove(&id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ShareId, Turn>> {
        self.writers.lock().expect("no panic while the transfers are locked")
    }
}

impl Partial {
    /// Where the next bytes belong.
    pub fn received(&self) -> u32 {
        self.received
    }

    /// Whether all bytes are here.
    pub fn is_complete(&self) -> bool {
        self.received == self.stored_bytes
    }

    /// Adds bytes. `offset` is where they belong: where the last ones ended. After an error the transfer is over.
    pub fn append(&mut self, offset: u32, bytes: &[u8]) -> Result<(), StoreError> {
        if offset != self.received || bytes.len() > (self.stored_bytes - self.received) as usize {
            return Err(StoreError::Refused {
                reason: format!("Bytes at {offset} of a share do not follow the last ones"),
            });
        }
        // Under the lock, so that a new writer never sees an old one's bytes arrive after its own.
        let writers = self.partials.lock();
        if writers.get(&self.id) != Some(&self.writer) {
            return Err(taken_over());
        }
        let written = self.file.write_all(bytes);
        if written.is_err() {
            // How much of it is there is unknown; a later transfer must find only what came whole.
            let _ = self.file.set_len(self.received.into());
        }
        drop(writers);
        written.map_err(|error| store_error("receiving a share", &error))?;
        self.received += bytes.len() as u32;
        self.room.written(bytes.len() as u64);
        Ok(())
    }

    /// Checks the complete share and takes it into `store`, durably. `memory` is given back as soon as the checking is done:
    /// waiting for the disk needs none.
    pub fn finish<T>(self, store: &FolderStore, memory: T) -> Result<(), StoreError> {
        self.finish_if(store, memory, |_| Ok(()))
    }

    /// As `finish`, but only a share that `may_stay` lets in.
    pub fn finish_if<T>(
        mut self,
        store: &FolderStore,
        memory: T,
        may_stay: impl FnOnce(&Share) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let _turn = self.partials.turns.claim(self.id);
        if self.partials.lock().get(&self.id) != Some(&self.writer) {
            return Err(taken_over());
        }
        let checked = self.check().and_then(|share| may_stay(&share));
        drop(memory);
        if let Err(error) = checked {
            let _ = fs::remove_file(&self.path);
            return Err(error);
        }
        // What fails to sync is not gone on with: its bytes are read back soundly, and are on no disk.
        durable::sync(&self.file, &self.path).map_err(|error| store_error("receiving a share", &error))?;
        store.adopt(self.id, &self.path, self.stored_bytes.into(), self.earmark.take())
    }

    /// Reads the bytes back from the file: what is acknowledged is what is on disk, not what came by.
    fn check(&self) -> Result<Share, StoreError> {
        let mut stored = Vec::with_capacity(self.stored_bytes as usize);
        File::open(&self.path)
            .and_then(|file| file.take(u64::from(self.stored_bytes) + 1).read_to_end(&mut stored))
            .map_err(|error| store_error("checking a share", &error))?;
        let checked = Share::from_stored(stored.into()).and_then(|share| share.verify(self.id).map(|()| share));
        checked.map_err(|error| match self.resumed {
            // The first part may have been damaged by a crash here: that is not the sender's fault.
            true => StoreError::Busy {
                retry_after: Duration::ZERO,
            },
            false => StoreError::Refused {
                reason: error.to_string(),
            },
        })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.partials.end(self.id, self.writer);
    }
}

fn unfinished_error(error: io::Error) -> StoreError {
    store_error("looking at unfinished shares", &error)
}

fn taken_over() -> StoreError {
    StoreError::Busy {
        retry_after: Duration::from_secs(1),
    }
}

fn share_of(path: &Path) -> Option<ShareId> {
    if path.extension()? != EXTENSION {
        return None;
    }
    path.file_stem()?.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proto::share_store::ShareStore;
    use proto::share_store::contract::Fixture;

    use super::*;

    struct Holder {
        store: FolderStore,
        partials: Arc<Partials>,
        fixture: Fixture,
        _root: tempfile::TempDir,
    }

    fn holder() -> Holder {
        let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
        let store = FolderStore::open(root.path(), fixture.account(), None).unwrap();
        let partials = Arc::new(Partials::new(store.incoming()));
        Holder {
            store,
            partials,
            fixture,
            _root: root,
        }
    }

    impl Holder {
        fn open(&self, number: usize) -> Partial {
            let (id, share) = self.fixture.share(number);
            self.partials
                .open(id, share.stored_bytes() as u32, Turn::next(), &self.store)
                .unwrap()
                .expect("not held")
        }

        fn stored(&self, number: usize) -> Vec<u8> {
            let (_, share) = self.fixture.share(number);
            [&share.data[..], &share.tail].concat()
        }
    }

    #[test]
    fn a_transfer_goes_on_where_the_last_one_ended() {
        let holder = holder();
        let stored = holder.stored(0);
        holder.open(0).append(0, &stored[..1000]).unwrap();
        let mut partial = holder.open(0);
        assert_eq!(partial.received(), 1000);
        partial.append(1000, &stored[1000..]).unwrap();
        assert!(partial.is_complete());
        partial.finish(&holder.store, ()).unwrap();
        let (id, share) = holder.fixture.share(0);
        assert_eq!(holder.store.verify(id), Ok(()));
        assert!(
            holder
                .partials
                .open(id, share.stored_bytes() as u32, Turn::next(), &holder.store)
                .unwrap()
                .is_none()
        );
        assert!(holder.partials.lock().is_empty());
    }

    #[test]
    fn the_newest_transfer_of_a_share_is_the_only_one() {
        let holder = holder();
        let stored = holder.stored(0);
        let mut old = holder.open(0);
        old.append(0, &stored[..10]).unwrap();
        let mut new = holder.open(0);
        assert_eq!(old.append(10, &stored[10..20]), Err(taken_over()));
        drop(old);
        new.append(10, &stored[10..]).unwrap();
        new.finish(&holder.store, ()).unwrap();
    }

    #[test]
    fn a_put_that_was_asked_for_earlier_but_begins_later_does_not_take_over() {
        let holder = holder();
        let early = Turn::next();
        let _late = holder.open(0);
        let (id, share) = holder.fixture.share(0);
        let opened = holder
            .partials
            .open(id, share.stored_bytes() as u32, early, &holder.store);
        assert_eq!(opened.err(), Some(taken_over()));
    }

    #[test]
    fn bytes_that_do_not_follow_or_are_too_many_are_refused() {
        let holder = holder();
        let stored = holder.stored(0);
        let refused =
            |offset, bytes: &[u8]| matches!(holder.open(0).append(offset, bytes), Err(StoreError::Refused { .. }));
        assert!(refused(1, &stored[..1]));
        assert!(refused(0, &[&stored[..], &[0]].concat()));
    }

    #[test]
    fn a_part_damaged_by_a_crash_is_sent_anew_and_not_held_against_the_sender() {
        let holder = holder();
        let stored = holder.stored(0);
        holder.open(0).append(0, &[0; 1000]).unwrap();
        let mut partial = holder.open(0);
        partial.append(1000, &stored[1000..]).unwrap();
        assert!(matches!(
            partial.finish(&holder.store, ()),
            Err(StoreError::Busy { .. })
        ));
        let mut partial = holder.open(0);
        assert_eq!(partial.received(), 0);
        let mut wrong = stored.clone();
        wrong[0] ^= 1;
        partial.append(0, &wrong).unwrap();
        assert!(matches!(
            partial.finish(&holder.store, ()),
            Err(StoreError::Refused { .. })
        ));
    }

    /// An fsync that fails says so once; the kernel then takes the pages for clean. A node kept the file, found it complete at
    /// the next put, read it back from the page cache and signed for what was on no disk.
    #[test]
    fn what_did_not_sync_is_received_anew_and_never_believed() {
        let holder = holder();
        let stored = holder.stored(0);
        let mut partial = holder.open(0);
        partial.append(0, &stored).unwrap();
        let (_reader, writer) = std::io::pipe().unwrap();
        partial.file = File::from(std::os::fd::OwnedFd::from(writer)); // no kernel syncs a pipe
        assert!(matches!(
            partial.finish(&holder.store, ()),
            Err(StoreError::Unreachable { .. })
        ));
        let mut partial = holder.open(0);
        assert_eq!(partial.received(), 0);
        partial.append(0, &stored).unwrap();
        partial.finish(&holder.store, ()).unwrap();
        assert_eq!(holder.store.verify(holder.fixture.share(0).0), Ok(()));
    }

    #[tokio::test]
    async fn unfinished_transfers_do_not_pile_up_nor_count_as_shares() {
        let holder = holder();
        for number in 0..2 * PARTIALS_MAX {
            let id = ShareId([number as u8; 32]);
            let mut partial = holder
                .partials
                .open(id, 1000, Turn::next(), &holder.store)
                .unwrap()
                .unwrap();
            partial.append(0, b"part").unwrap();
        }
        assert_eq!(fs::read_dir(holder.store.incoming()).unwrap().count(), PARTIALS_MAX);
        assert_eq!(holder.store.list(None, 10).await, Ok(Vec::new()));
        assert_eq!(holder.store.used_bytes(), Ok(0));
        assert_eq!(
            holder.partials.idle_bytes(),
            Ok(4 * PARTIALS_MAX as u64),
            "but they are known"
        );
    }

    #[test]
    fn transfers_that_nobody_goes_on_with_give_way_when_the_quota_is_used_up() {
        let holder = holder();
        let share_bytes = holder.stored(0).len() as u64;
        holder.store.set_quota(Some(share_bytes + 100));
        let (stored, begun) = (holder.stored(0), ShareId([9; 32]));
        let open = |id, bytes: u64| holder.partials.open(id, bytes as u32, Turn::next(), &holder.store);
        open(begun, share_bytes)
            .unwrap()
            .unwrap()
            .append(0, &stored[..1000])
            .unwrap();
        let first = holder.open(0);
        assert_eq!(holder.partials.idle_bytes(), Ok(0), "it gave way");
        let full = open(begun, share_bytes);
        assert!(
            matches!(full.err(), Some(StoreError::Full { .. })),
            "one that is going on does not"
        );
        drop(first);
        let mut again = holder.open(0);
        again.append(0, &stored).unwrap();
        again.finish(&holder.store, ()).unwrap();
        assert_eq!(holder.store.used_bytes(), Ok(share_bytes));
        assert!(matches!(open(begun, share_bytes).err(), Some(StoreError::Full { .. })));
    }
}
