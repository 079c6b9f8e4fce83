//! The trash of one account: what it gave up stays readable for [`TRASH_DAYS`], whoever signed for giving it up, or for the fewer
//! days that the share's own manifest has said since it came.
//!
//! Every step is a rename and may be cut off and repeated: a share is always in one place, kept or in the trash. Nothing is
//! removed but by `expire`, and that only removes what a valid discard in the same day's folder names.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use proto::discard::{DISCARD_BYTES_MAX, Discard, Evidence, write_ids};
use proto::id::{DeviceId, ShareId};
use proto::keep_days::KeepDays;
use proto::share_store::StoreError;
use proto::wire::frame::IDS_MAX;

use super::heads::DEVICES_MAX;
use super::layout::{TrashDay, devices_in};
use super::{Inner, writes};

/// Whole days that something stays in the trash, unless it was written to stay for fewer.
pub const TRASH_DAYS: u32 = KeepDays::MOST.days();

/// Bytes in front of a discard in its file: its length.
const LENGTH_BYTES: usize = 2;
/// Longest file of a discard: its length, itself, and as many ids as one may name.
const FILE_BYTES_MAX: u64 = (LENGTH_BYTES + DISCARD_BYTES_MAX + IDS_MAX as usize * ShareId::LEN) as u64;

/// Bytes of discards that an account may leave in its trash whatever its quota: whoever has used it up must be able to give
/// something up. Chosen: they name all of its shares, several times.
const DISCARDS_BYTES_MIN: u64 = 16 << 20;
/// Of a larger quota, one part in so many instead.
const DISCARDS_PART: u64 = 1024;

/// The last discard that was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LastDiscard {
    /// Its number; 0 if there was none.
    pub number: u64,
    /// BLAKE3 of its encoding.
    pub hash: [u8; 32],
}

/// What an expiry scan did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Expired {
    /// Shares removed for good.
    pub shares: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Shares that no valid discard names: they are kept again.
    pub returned: u64,
}

impl Inner {
    /// The last discard that was taken.
    pub(super) fn last_discard(&self) -> Result<LastDiscard, StoreError> {
        let taken = read(&self.layout.last_discard(), DISCARD_BYTES_MAX as u64)?;
        let Some(encoded) = taken else {
            return self.layout.check_here().map(|()| LastDiscard::default());
        };
        match Discard::decode(&encoded) {
            Ok(last) => Ok(LastDiscard {
                number: last.order.number,
                hash: last.hash(),
            }),
            Err(error) => {
                // Refusing all discards for ever would help nobody: whatever follows waits in the trash like the rest.
                tracing::error!("The last discard of {} is damaged: {error}", self.owner.short());
                Ok(LastDiscard::default())
            }
        }
    }

    /// Takes a discard that is to be carried out here, by `holder`: moves the shares that are there, and counts them.
    pub(super) fn take_discard(
        &self,
        discard: &Discard,
        ids: &[ShareId],
        holder: DeviceId,
        today: u32,
    ) -> Result<u32, StoreError> {
        let _one_at_a_time = self.discards.lock().unwrap_or_else(PoisonError::into_inner);
        // Or the trash would be made below the mount point of a disk that is away.
        self.layout.check_here()?;
        let is_again = self.check_order(discard, holder)?;
        let to_move = self.sort_by_days(ids, today, is_again)?;
        // A discard of nothing moves nothing, and needs no proof: the next one takes its number.
        if !is_again && to_move.is_empty() {
            return Ok(0);
        }
        let encoded = discard.encode();
        let length = (encoded.len() as u16).to_le_bytes();
        let payload = write_ids(ids);
        if !is_again {
            self.check_evidence(to_move.len() * (length.len() + encoded.len() + payload.len()))?;
        }
        let name = format!("{}.discard", discard.order.number);
        for day in to_move.keys() {
            let folder = self.layout.trash_day(*day);
            writes::create_folders(&folder).map_err(trash_error)?;
            self.replace(&folder.join(&name), &[&length, &encoded, &payload])?;
        }
        self.replace(&self.layout.last_discard(), &[&encoded])?;
        let mut moved = 0;
        for (day, ids) in &to_move {
            for run in ids.chunk_by(|a, b| a.0[0] == b.0[0]) {
                moved += self.move_to_trash(run, *day)?;
            }
            let folder = self.layout.trash_day(*day);
            writes::sync_directory_of(&folder.join(&name))
                .and_then(|()| writes::sync_directory_of(&folder))
                .map_err(trash_error)?;
        }
        Ok(moved)
    }

    /// Where in the trash those of `ids` go that are kept here, ascending. A discard that comes again has those with it, too, that
    /// it moved before: that may have been cut off before it was durable.
    fn sort_by_days(
        &self,
        ids: &[ShareId],
        today: u32,
        is_again: bool,
    ) -> Result<BTreeMap<TrashDay, Vec<ShareId>>, StoreError> {
        let days = match is_again {
            true => self.layout.trash_days().map_err(trash_error)?,
            false => Vec::new(),
        };
        let mut sorted: BTreeMap<TrashDay, Vec<ShareId>> = BTreeMap::new();
        for id in ids {
            let to = match self.layout.share(*id).exists() {
                true => Some(TrashDay {
                    day: today,
                    keep_days: self.keep_days(*id),
                }),
                false => days.iter().copied().find(|day| self.layout.trashed(*day, *id).exists()),
            };
            if let Some(to) = to {
                sorted.entry(to).or_default().push(*id);
            }
        }
        Ok(sorted)
    }

    /// How long a kept share stays after it was given up: as the manifest says with which it came. That of another account says
    /// nothing, and a damaged one neither: then it stays longest.
    fn keep_days(&self, id: ShareId) -> KeepDays {
        let manifest = self.manifest(id).ok();
        manifest
            .filter(|manifest| manifest.account == self.owner && manifest.shares.contains(&id))
            .map_or(KeepDays::MOST, |manifest| manifest.keep_days)
    }

    /// `Full` if so many bytes more of discards fit neither the quota nor what may be beyond it.
    fn check_evidence(&self, bytes: usize) -> Result<(), StoreError> {
        let bytes = bytes as u64;
        let full = match self.usage.check_quota(&self.layout, bytes) {
            Err(full @ StoreError::Full { .. }) => full,
            other => return other,
        };
        let days = self.layout.trash_days().map_err(trash_error)?.into_iter();
        let there: io::Result<u64> = days.map(|day| self.layout.beside_trashed(day)).sum();
        let most = DISCARDS_BYTES_MIN.max(self.usage.quota().unwrap_or(0) / DISCARDS_PART);
        match there.map_err(trash_error)?.saturating_add(bytes) <= most {
            true => Ok(()),
            false => Err(full),
        }
    }

    /// Whether it is the last one again: its answer was lost.
    fn check_order(&self, discard: &Discard, holder: DeviceId) -> Result<bool, StoreError> {
        let refused = |reason: String| Err(StoreError::Refused { reason });
        if discard.account() != self.owner || discard.order.holder != holder {
            return refused("The discard is about another account or holder".to_owned());
        }
        let last = self.last_discard()?;
        let follows = discard.order.number == last.number.saturating_add(1) && discard.order.previous == last.hash;
        let is_again = discard.hash() == last.hash;
        if follows || is_again {
            return Ok(is_again);
        }
        refused(format!(
            "Discard {} does not follow the last one, {}",
            discard.order.number, last.number
        ))
    }

    /// Moves shares whose ids begin with the same byte.
    fn move_to_trash(&self, ids: &[ShareId], day: TrashDay) -> Result<u32, StoreError> {
        let mut moved = 0;
        for id in ids {
            let _claim = self.claims.claim(*id);
            let (from, to) = (self.layout.share(*id), self.layout.trashed(day, *id));
            moved += u32::from(rename(&from, &to)?);
        }
        // Also when they had been moved before: that may have been cut off before it was durable.
        if let Some(id) = ids
            .first()
            .filter(|id| folder_of(&self.layout.trashed(day, **id)).is_dir())
        {
            // What is in neither place after a power cut would be lost: the new name is made durable first.
            writes::sync_directory_of(&self.layout.trashed(day, *id))
                .and_then(|()| writes::sync_directory_of(&self.layout.share(*id)))
                .map_err(trash_error)?;
        }
        Ok(moved)
    }

    /// Takes shares out of the trash; those of `ids` that are kept now.
    pub(super) fn recall(&self, ids: &[ShareId]) -> Result<Vec<ShareId>, StoreError> {
        let mut held = Vec::new();
        for id in ids {
            let _claim = self.claims.claim(*id);
            let kept = self.layout.share(*id);
            if kept.exists() {
                // An earlier recall may have been cut off before it was durable.
                writes::sync_directory_of(&kept).map_err(trash_error)?;
                held.push(*id);
            } else if self.recall_claimed(*id)? {
                held.push(*id);
            }
        }
        if held.is_empty() {
            self.layout.check_here()?;
        }
        Ok(held)
    }

    /// As `recall`, for one share that the caller has claimed and that is not kept; whether it was in the trash.
    pub(super) fn recall_claimed(&self, id: ShareId) -> Result<bool, StoreError> {
        let kept = self.layout.share(id);
        for day in self.layout.trash_days().map_err(trash_error)? {
            let trashed = self.layout.trashed(day, id);
            if rename(&trashed, &kept)? {
                writes::sync_directory_of(&kept)
                    .and_then(|()| writes::sync_directory_of(&trashed))
                    .map_err(trash_error)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A share in the trash, opened for reading.
    pub(super) fn open_trashed(&self, id: ShareId) -> io::Result<File> {
        for day in self.layout.trash_days()? {
            match File::open(self.layout.trashed(day, id)) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                opened => return opened,
            }
        }
        Err(ErrorKind::NotFound.into())
    }

    /// Ids in the trash greater than `after`, ascending, at most `limit`.
    pub(super) fn list_trash(&self, after: Option<ShareId>, limit: u32) -> Result<Vec<ShareId>, StoreError> {
        let limit = limit as usize;
        let days = self.layout.trash_days().map_err(trash_error)?;
        let mut ids = Vec::new();
        for first in after.map_or(0, |id| id.0[0])..=u8::MAX {
            if ids.len() >= limit {
                break;
            }
            let mut found = Vec::new();
            for day in &days {
                found.extend(self.layout.trashed_in(*day, first).map_err(trash_error)?);
            }
            found.retain(|id| after.is_none_or(|after| *id > after));
            found.sort_unstable();
            found.dedup();
            found.truncate(limit - ids.len());
            ids.append(&mut found);
        }
        if ids.is_empty() {
            self.layout.check_here()?;
        }
        Ok(ids)
    }

    /// Keeps a head that is about to be replaced, if it is the first of its device today: the one with which the day began.
    /// So there are never more than a month's, however often a thief replaces them. Of more devices on one day than have a place
    /// here, which only the words of the account can make, those are kept that fit the room of discards.
    pub(super) fn keep_old_head(&self, device: DeviceId, encoded: &[u8], today: u32) -> Result<(), StoreError> {
        let path = self.layout.old_heads(today).join(device.to_string());
        if path.exists() {
            // Who kept it may have been cut off before it was durable, and the head is about to go from its place.
            return writes::sync_directory_of(&path).map_err(trash_error);
        }
        let folder = self.layout.old_heads(today);
        writes::create_folders(&folder).map_err(trash_error)?;
        if devices_in(&folder).map_err(trash_error)?.len() >= DEVICES_MAX {
            match self.check_evidence(encoded.len()) {
                Err(StoreError::Full { .. }) => return Ok(()),
                checked => checked?,
            }
        }
        self.replace(&path, &[encoded])?;
        writes::sync_directory_of(&folder)
            .and_then(|()| writes::sync_directory_of(folder_of(&folder)))
            .map_err(trash_error)
    }

    /// Removes a head that gave way.
    pub(super) fn remove_head(&self, path: &Path) -> Result<(), StoreError> {
        let removed = fs::metadata(path).and_then(|found| fs::remove_file(path).map(|()| found.len()));
        match removed {
            Ok(bytes) => self.usage.release(bytes, 0),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(trash_error(error)),
        }
        Ok(())
    }

    /// By which discard a share in the trash was given up.
    pub(super) fn evidence(&self, id: ShareId) -> Result<Evidence, StoreError> {
        for day in self.layout.trash_days().map_err(trash_error)? {
            if !self.layout.trashed(day, id).exists() {
                continue;
            }
            for path in self.discards_of(day)? {
                let found = read(&path, FILE_BYTES_MAX)?.and_then(|bytes| evidence_in(&bytes));
                if let Some(found) = found.filter(|found| found.ids.binary_search(&id).is_ok()) {
                    return Ok(found);
                }
            }
        }
        self.layout.check_here()?;
        Err(StoreError::NotFound)
    }

    /// The files of the discards that were taken on a day.
    fn discards_of(&self, day: TrashDay) -> Result<Vec<PathBuf>, StoreError> {
        let entries = fs::read_dir(self.layout.trash_day(day)).map_err(trash_error)?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()).map_err(trash_error));
        let is_discard = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "discard");
        paths.filter(|path| path.as_ref().map_or(true, is_discard)).collect()
    }

    /// Ends the days that are over: removes what their discards name.
    pub(super) fn expire(&self, today: u32) -> Result<Expired, StoreError> {
        let mut expired = Expired::default();
        for day in self.layout.trash_days().map_err(trash_error)? {
            if day.is_over(today) {
                self.expire_day(day, &mut expired)?;
            }
        }
        Ok(expired)
    }

    fn expire_day(&self, day: TrashDay, expired: &mut Expired) -> Result<(), StoreError> {
        let folder = self.layout.trash_day(day);
        let evidence = self.discards_of(day)?;
        for path in &evidence {
            for id in self.discarded_by(path)? {
                self.remove_trashed(day, id, expired)?;
            }
        }
        self.return_unnamed(day, expired)?;
        let beside = self.layout.beside_trashed(day).map_err(trash_error)?;
        // Only now: cut off before, the next scan still finds what gives it the right to go on.
        for path in evidence {
            fs::remove_file(path).map_err(trash_error)?;
        }
        fs::remove_dir_all(&folder).map_err(trash_error)?;
        self.usage.release(beside, 0);
        Ok(())
    }

    /// What a discard in the trash names; nothing if it is damaged.
    fn discarded_by(&self, path: &Path) -> Result<Vec<ShareId>, StoreError> {
        let Some(bytes) = read(path, FILE_BYTES_MAX)? else {
            return Ok(Vec::new());
        };
        let evidence = evidence_in(&bytes).filter(|evidence| evidence.discard.account() == self.owner);
        if evidence.is_none() {
            tracing::error!("{} is no valid discard: its shares are kept", path.display());
        }
        Ok(evidence.map(|evidence| evidence.ids).unwrap_or_default())
    }

    fn remove_trashed(&self, day: TrashDay, id: ShareId, expired: &mut Expired) -> Result<(), StoreError> {
        let _claim = self.claims.claim(id);
        let path = self.layout.trashed(day, id);
        let removed = fs::metadata(&path).and_then(|found| fs::remove_file(&path).map(|()| found.len()));
        match removed {
            Ok(bytes) => {
                self.usage.release(bytes, 0);
                expired.shares += 1;
                expired.bytes += bytes;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(trash_error(error)),
        }
    }

    /// Shares of a day that no discard names go back: no deletion without an order.
    fn return_unnamed(&self, day: TrashDay, expired: &mut Expired) -> Result<(), StoreError> {
        for first in 0..=u8::MAX {
            for id in self.layout.trashed_in(day, first).map_err(trash_error)? {
                let _claim = self.claims.claim(id);
                let (from, to) = (self.layout.trashed(day, id), self.layout.share(id));
                expired.returned += u64::from(rename(&from, &to)?);
                writes::sync_directory_of(&to).map_err(trash_error)?;
            }
        }
        Ok(())
    }

    /// Replaces a file that is no share, and counts it.
    pub(super) fn replace(&self, path: &Path, parts: &[&[u8]]) -> Result<(), StoreError> {
        let before = fs::metadata(path).map_or(0, |found| found.len());
        writes::replace(path, parts)?;
        let after = parts.iter().map(|part| part.len() as u64).sum();
        self.usage.count(after, before);
        Ok(())
    }
}

/// A discard and its ids from the bytes of its file.
fn evidence_in(bytes: &[u8]) -> Option<Evidence> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    let (encoded, ids) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    Evidence::read(encoded, ids).ok()
}

/// The bytes of a file, `None` if there is none. A longer file than `bytes_max` is cut off, and will not decode.
fn read(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(trash_error(error)),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Whether there was something to rename. The caller syncs both folders, once for all that it moves.
fn rename(from: &Path, to: &Path) -> Result<bool, StoreError> {
    match durable::rename_unsynced(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = folder_of(to);
            if !from.exists() || folder.exists() {
                return Ok(false);
            }
            // Durable before anything is in it: the share's old name is synced away before the day's folder is synced again.
            durable::create_folder(folder)
                .and_then(|()| durable::rename_unsynced(from, to))
                .map(|()| true)
                .map_err(trash_error)
        }
        Err(error) => Err(trash_error(error)),
    }
}

fn trash_error(error: io::Error) -> StoreError {
    writes::store_error("using the trash", &error)
}

#[cfg(test)]
mod tests;
