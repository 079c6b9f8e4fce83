//! Giving shares up: numbered notes say which, the objects stay until [`TRASH_DAYS`] have passed by the endpoint's clock, or the fewer
//! days that a share was written with (`short`).
//!
//! The last note that names a share decides: a discard puts it into the trash, a recall takes it out. An object that was put after
//! its discard is not in the trash. Notes are only ever added, each by a conditional put under the next number, and removed from
//! the oldest on, with what they gave up: so every step may be cut off and repeated.

use std::collections::{BTreeMap, BTreeSet};

use api::clock;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use proto::discard::{DISCARD_BYTES_MAX, Discard, NO_HOLDER, Order, read_ids, write_ids};
use proto::id::{AccountId, ShareId};
use proto::keys::{DeviceCert, power};
use proto::share_store::StoreError;
use proto::wire::frame::IDS_MAX;
use s3::{Condition, Headers, Listed, Meta};

use super::notes::{Note, Trash};
use super::parts::Part;
use super::{Slot, keys};
use crate::folder::{Expired, TRASH_DAYS};

/// Bytes in front of a discard in its note: its length; zero in a recall.
const LENGTH_BYTES: usize = 2;
/// Longest note, in bytes: its length, a discard, and as many ids as one may name.
const NOTE_BYTES_MAX: u64 = (LENGTH_BYTES + DISCARD_BYTES_MAX + IDS_MAX as usize * ShareId::LEN) as u64;
/// Notes that are read, and shares asked about, at once.
const ASKS_MAX: usize = 16;
/// Attempts against other devices that write notes at the same time.
const ATTEMPTS_MAX: u32 = 5;

/// Who gives shares up in a place that has no node of its own: the owner's device.
#[derive(Clone)]
pub struct Signer {
    /// The device's key.
    pub device: SigningKey,
    /// Its certificate.
    pub cert: DeviceCert,
}

impl Signer {
    /// That this device may give up shares.
    pub fn check(&self) -> Result<(), StoreError> {
        match self.cert.powers & power::GIVE_UP {
            0 => Err(StoreError::Refused {
                reason: "this device may not give up shares".to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

impl Slot {
    /// Reads the notes that are not known yet. The endpoint's time.
    async fn load_trash(&self, trash: &mut Trash) -> Result<Option<Timestamp>, StoreError> {
        let prefix = self.bucket.0.keys.notes(self.number);
        let (listed, now) = self.bucket.list_few(prefix).await?;
        let numbered = listed
            .into_iter()
            .filter_map(|object| Some((keys::last(&object.key)?.parse::<u64>().ok()?, object)));
        let there: BTreeMap<u64, _> = numbered.collect();
        let unknown = there.iter().filter(|(number, _)| !trash.notes.contains_key(number));
        let reads = unknown.map(|(number, object)| self.read_note(*number, object));
        let reads: Vec<_> = reads.collect();
        let read: Vec<_> = stream::iter(reads).buffered(ASKS_MAX).try_collect().await?;
        for (number, note) in read {
            trash.notes.extend(note.map(|note| (number, note)));
        }
        trash.retain(|number| there.contains_key(&number));
        trash.is_known = true;
        Ok(now)
    }

    async fn read_note(&self, number: u64, object: &Listed) -> Result<(u64, Option<Note>), StoreError> {
        let read = self.bucket.read(&object.key, NOTE_BYTES_MAX).await?;
        let note = read.map(|read| {
            parse(&read.bytes, object.modified, (self.bucket.account_id(), number)).unwrap_or_else(|| {
                tracing::error!(number, "A note about given up shares is damaged: what it names stays");
                Note::nothing(object.modified)
            })
        });
        Ok((number, note))
    }

    /// Puts shares into the trash; how many were not there already.
    pub(super) async fn give_up(&self, ids: Vec<ShareId>) -> Result<u32, StoreError> {
        let signer = &self.bucket.0.terms.signer;
        signer.check()?;
        if ids.is_empty() {
            return Ok(0);
        }
        let mut trash = self.trash.lock().await;
        self.load_trash(&mut trash).await?;
        let before = trash.trashed.len();
        self.write(&mut trash, &ids, |trash| {
            let order = Order {
                holder: NO_HOLDER,
                number: trash.next(),
                previous: trash.previous(),
                issued_secs: clock::now_secs(),
            };
            let discard = Discard::sign(&signer.device, &signer.cert, order, &ids);
            discard.map(Some).map_err(StoreError::refused)
        })
        .await?;
        Ok((trash.trashed.len().saturating_sub(before)) as u32)
    }

    /// Takes those of `ids` out of the trash that are in it.
    pub(super) async fn take_out(&self, ids: &[ShareId]) -> Result<(), StoreError> {
        let mut trash = self.trash.lock().await;
        if !trash.is_known {
            self.load_trash(&mut trash).await?;
        }
        let back = ids.iter().copied().filter(|id| trash.trashed.contains_key(id));
        let back: Vec<ShareId> = back.collect();
        match back.is_empty() {
            true => Ok(()),
            false => self.write(&mut trash, &back, |_| Ok(None)).await,
        }
    }

    /// As `take_out`, of shares that may be gone; those that are kept now.
    pub(super) async fn recall_shares(&self, ids: &[ShareId]) -> Result<Vec<ShareId>, StoreError> {
        let found = |found: Vec<(ShareId, Meta)>| found.into_iter().map(|(id, _)| id);
        let mut held: BTreeSet<ShareId> = found(self.look_at(Part::Full, ids).await?).collect();
        let other: Vec<ShareId> = ids.iter().copied().filter(|id| !held.contains(id)).collect();
        held.extend(found(self.look_at(Part::Short, &other).await?));
        let held: Vec<ShareId> = held.into_iter().collect();
        self.take_out(&held).await?;
        Ok(held)
    }

    /// Those of the shares that are there, whether in the trash or not.
    pub(super) async fn look_at(&self, part: Part, ids: &[ShareId]) -> Result<Vec<(ShareId, Meta)>, StoreError> {
        let bucket = &self.bucket;
        let ask = |id: ShareId| async move {
            match bucket.heard(bucket.0.client.head(&self.share_key(part, id)).await) {
                Ok(meta) => Ok(Some((id, meta))),
                Err(StoreError::NotFound) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let asks: Vec<_> = ids.iter().map(|id| ask(*id)).collect();
        let there: Vec<_> = stream::iter(asks).buffered(ASKS_MAX).try_collect().await?;
        Ok(there.into_iter().flatten().collect())
    }

    /// Learns what other devices gave up or took back.
    pub(super) async fn refresh_trash(&self) -> Result<(), StoreError> {
        let mut trash = self.trash.lock().await;
        self.load_trash(&mut trash).await.map(drop)
    }

    /// As `list`, of the shares in the trash.
    pub(super) async fn list_given_up(&self, after: Option<ShareId>, limit: u32) -> Result<Vec<ShareId>, StoreError> {
        if after.is_none() {
            self.refresh_trash().await?;
        }
        let trash = self.trash.lock().await;
        let ids = trash.trashed.keys().filter(|id| after.is_none_or(|after| **id > after));
        Ok(ids.copied().take(limit as usize).collect())
    }

    /// Removes for good what was given up long enough ago, and heads that were replaced by then.
    pub async fn expire(&self) -> Result<Expired, StoreError> {
        self.bucket.0.terms.signer.check()?;
        let mut expired = Expired::default();
        // Nothing is recalled meanwhile, at least not from here.
        let mut trash = self.trash.lock().await;
        let Some(now) = self.load_trash(&mut trash).await? else {
            return Ok(expired);
        };
        self.expire_short(&mut trash, now, &mut expired).await?;
        let is_old = |put| is_over(put, TRASH_DAYS, now);
        while let Some((number, note)) = trash.oldest().filter(|(_, note)| is_old(note.modified)) {
            let gone = note.ids.iter().copied();
            let gone: Vec<ShareId> = gone.filter(|id| trash.trashed.get(id) == Some(&number)).collect();
            self.remove_for_good(&gone, note.modified, &mut expired).await?;
            let key = self.bucket.0.keys.note(self.number, number);
            self.bucket.heard(self.bucket.0.client.delete_one(&key).await)?;
            trash.retain(|left| left != number);
        }
        drop(trash);
        let old = self.bucket.list_few(self.bucket.0.keys.old_heads(self.number));
        let old = old.await?.0.into_iter().filter(|head| is_old(head.modified));
        self.delete(&old.map(|head| head.key).collect::<Vec<_>>()).await?;
        Ok(expired)
    }

    /// Deletes those of `ids` whose objects are no younger than that.
    async fn remove_for_good(
        &self,
        ids: &[ShareId],
        given_up: Option<Timestamp>,
        expired: &mut Expired,
    ) -> Result<(), StoreError> {
        let doomed = self.look_at(Part::Full, ids).await?.into_iter();
        let doomed = doomed.filter(|(_, meta)| meta.modified.is_some_and(|put| Some(put) <= given_up));
        let doomed: Vec<_> = doomed
            .map(|(id, meta)| (self.share_key(Part::Full, id), meta.bytes))
            .collect();
        self.delete_shares(doomed, expired).await
    }

    /// Deletes objects of shares, by their keys and bytes.
    pub(super) async fn delete_shares(
        &self,
        doomed: Vec<(Vec<u8>, u64)>,
        expired: &mut Expired,
    ) -> Result<(), StoreError> {
        let (keys, bytes): (Vec<_>, Vec<_>) = doomed.into_iter().unzip();
        self.delete(&keys).await?;
        let bytes: u64 = bytes.iter().sum();
        expired.shares += keys.len() as u64;
        expired.bytes += bytes;
        self.bucket.count(|used| used.saturating_sub(bytes));
        Ok(())
    }

    async fn delete(&self, keys: &[Vec<u8>]) -> Result<(), StoreError> {
        let failed = self.bucket.heard(self.bucket.0.client.delete(keys).await)?;
        match failed.into_iter().next() {
            Some(failed) => Err(super::store_error(failed.error)),
            None => Ok(()),
        }
    }

    /// Adds a note; another device may take the number first.
    pub(super) async fn write(
        &self,
        trash: &mut Trash,
        ids: &[ShareId],
        sign: impl Fn(&Trash) -> Result<Option<Discard>, StoreError>,
    ) -> Result<(), StoreError> {
        for _ in 0..ATTEMPTS_MAX {
            let (number, discard) = (trash.next(), sign(trash)?);
            let encoded = discard.as_ref().map(Discard::encode).unwrap_or_default();
            let length = (encoded.len() as u16).to_le_bytes();
            let body = Bytes::from([&length[..], &encoded, &write_ids(ids)].concat());
            let key = self.bucket.0.keys.note(self.number, number);
            let client = &self.bucket.0.client;
            let put = client
                .put(&key, body.clone(), &Headers::default(), &Condition::Absent)
                .await;
            let is_ours = match put {
                Err(s3::Error::Changed(_)) => {
                    // An earlier attempt whose answer was lost counts.
                    let there = self.bucket.read(&key, NOTE_BYTES_MAX).await?;
                    there.is_some_and(|there| there.bytes == body)
                }
                put => self.bucket.heard(put).map(|_| true)?,
            };
            self.load_trash(trash).await?;
            if is_ours {
                return Ok(());
            }
        }
        Err(StoreError::Busy {
            retry_after: std::time::Duration::from_secs(1),
        })
    }
}

/// Whether so many whole days have passed since something was put, and one more: a day's beginning is nobody's loss.
pub(super) fn is_over(put: Option<Timestamp>, days: u32, now: Timestamp) -> bool {
    put.is_some_and(|put| now.duration_since(put) > SignedDuration::from_hours(24 * (i64::from(days) + 1)))
}

/// A note, unless it is damaged, or a discard in it is not the account's own one with this number: whoever has nothing but the
/// bucket's credentials gives nothing up.
pub(super) fn parse(bytes: &[u8], modified: Option<Timestamp>, (account, number): (AccountId, u64)) -> Option<Note> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    let (discard, ids) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    let (discard, ids) = match discard {
        [] => (None, read_ids(ids).ok()?),
        discard => {
            let discard = Discard::decode(discard).ok()?;
            let order = &discard.order;
            if discard.account() != account || order.holder != NO_HOLDER || order.number != number {
                return None;
            }
            (Some(discard.hash()), discard.ids(ids).ok()?)
        }
    };
    Some(Note { modified, discard, ids })
}

#[cfg(test)]
mod tests {
    use proto::id::DeviceId;
    use proto::share_store::contract::Fixture;

    use super::*;

    /// A note that an invented account had signed made shares missing, and after a month gridbackup itself deleted them.
    #[test]
    fn only_the_account_s_own_discard_with_the_number_of_its_note_gives_anything_up() {
        let (owner, other) = (Fixture::new(1), Fixture::new(2));
        let ids = [ShareId([7; 32])];
        let note = |fixture: &Fixture, holder: DeviceId, number: u64| {
            let device = SigningKey::from_bytes(&[8; 32]);
            let id = DeviceId(device.verifying_key().to_bytes());
            let cert = DeviceCert::sign(fixture.words(), id, power::ALL, "laptop", 0);
            let order = Order {
                holder,
                number,
                previous: [0; 32],
                issued_secs: 0,
            };
            let discard = Discard::sign(&device, &cert, order, &ids).unwrap().encode();
            [&(discard.len() as u16).to_le_bytes()[..], &discard, &write_ids(&ids)].concat()
        };
        let is_taken = |note: &[u8]| parse(note, None, (owner.account(), 3)).is_some();
        assert!(is_taken(&note(&owner, NO_HOLDER, 3)));
        assert!(!is_taken(&note(&other, NO_HOLDER, 3)), "another account's");
        assert!(!is_taken(&note(&owner, NO_HOLDER, 2)), "an old one, copied");
        assert!(!is_taken(&note(&owner, DeviceId([5; 32]), 3)), "what a friend was told");
    }
}
