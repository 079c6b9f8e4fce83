//! Shares that stay in the trash for fewer days than most: they lie in a part of the slot of their own, so that nobody has to ask of
//! every share how long it stays, and locks are not renewed for them.
//!
//! How long each stays is read from its own tail once it was given up. Leaves out who may give up: `trash`.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use proto::id::ShareId;
use proto::keep_days::KeepDays;
use proto::manifest::Manifest;
use proto::shape::ShareSize;
use proto::share::{Share, manifest_in_tail};
use proto::share_store::StoreError;
use proto::wire::frame::IDS_MAX;
use s3::{BATCH_KEYS_MAX, Listed};

use super::notes::Trash;
use super::parts::Part;
use super::trash::is_over;
use super::{Slot, keys};
use crate::folder::Expired;

/// Tails that are read at once.
const ASKS_MAX: usize = 16;

impl Slot {
    /// Where a share belongs, which was verified.
    pub(super) fn part_of(&self, share: &Share) -> Part {
        match share.manifest().map(|manifest| self.days_in(&manifest)) {
            Ok(days) if days < KeepDays::MOST => Part::Short,
            _ => Part::Full,
        }
    }

    /// Whether these bytes are that share, with a manifest of this account.
    pub(super) fn is_ours(&self, id: ShareId, stored: Bytes) -> bool {
        let share = Share::from_stored(stored).and_then(|share| share.verify(id).and_then(|()| share.manifest()));
        share.is_ok_and(|manifest| manifest.account == self.bucket.account_id())
    }

    /// What the manifest of another account says counts for nothing.
    fn days_in(&self, manifest: &Manifest) -> KeepDays {
        match manifest.account == self.bucket.account_id() {
            true => manifest.keep_days,
            false => KeepDays::MOST,
        }
    }

    /// Removes for good what was given up long enough ago for its own days, and notes of what lies nowhere else that it is in the
    /// trash no more. Cut off in between, it is shown there until the month is over.
    pub(super) async fn expire_short(
        &self,
        trash: &mut Trash,
        now: Timestamp,
        expired: &mut Expired,
    ) -> Result<(), StoreError> {
        let prefix = self.bucket.0.keys.shares(self.number, Part::Short);
        let (mut gone, mut start_after) = (Vec::new(), Vec::new());
        loop {
            let (batch, _) = self.bucket.list(prefix.clone(), start_after, BATCH_KEYS_MAX).await?;
            let Some(last) = batch.last() else { break };
            start_after = last.key.clone();
            let doomed = self.over(&batch, trash, now).await?;
            gone.extend(doomed.iter().map(|(id, _)| *id));
            let doomed = doomed
                .into_iter()
                .map(|(id, bytes)| (self.share_key(Part::Short, id), bytes));
            self.delete_shares(doomed.collect(), expired).await?;
        }
        gone.iter().for_each(|id| self.known.found(Part::Full, *id));
        let elsewhere: BTreeSet<ShareId> = self
            .look_at(Part::Full, &gone)
            .await?
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        gone.retain(|id| !elsewhere.contains(id));
        gone.sort_unstable();
        for ids in gone.chunks(IDS_MAX as usize) {
            self.write(trash, ids, |_| Ok(None)).await?;
        }
        Ok(())
    }

    /// Those of the objects that were given up for longer than their days, with their bytes.
    async fn over(&self, batch: &[Listed], trash: &Trash, now: Timestamp) -> Result<Vec<(ShareId, u64)>, StoreError> {
        let waiting = batch.iter().filter_map(|object| {
            let id = keys::id_of(&object.key).filter(|id| trash.has(*id, object.modified))?;
            let given_up = trash.given_up(id).filter(|given_up| is_over(Some(*given_up), 0, now))?;
            Some((id, object, given_up))
        });
        let asks: Vec<_> = waiting
            .map(|(id, object, given_up)| async move {
                let days = self.days_of(id, object).await?.days();
                Ok::<_, StoreError>(is_over(Some(given_up), days, now).then_some((id, object.bytes)))
            })
            .collect();
        let over: Vec<_> = stream::iter(asks).buffered(ASKS_MAX).try_collect().await?;
        Ok(over.into_iter().flatten().collect())
    }

    /// How long a share stays, by its tail; longest, if that cannot be read.
    async fn days_of(&self, id: ShareId, object: &Listed) -> Result<KeepDays, StoreError> {
        let Some(size) = usize::try_from(object.bytes)
            .ok()
            .and_then(ShareSize::from_stored_bytes)
        else {
            return Ok(KeepDays::MOST);
        };
        let (tail, bytes) = (size.data_bytes() as u64..object.bytes, size.tail_bytes() as u64);
        match self
            .bucket
            .heard(self.bucket.0.client.get(&object.key, Some(tail), bytes).await)
        {
            Ok(read) => {
                let manifest = manifest_in_tail(size, &read.bytes).ok();
                let manifest = manifest.filter(|manifest| manifest.shares.contains(&id));
                Ok(manifest.map_or(KeepDays::MOST, |manifest| self.days_in(&manifest)))
            }
            // Somebody was faster.
            Err(StoreError::NotFound) => Ok(KeepDays::MOST),
            Err(error) => Err(error),
        }
    }
}
