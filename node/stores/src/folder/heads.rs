//! The heads of an account's devices: one file each, replaced whole, never by an older one. What was replaced is in the trash, by days.
//!
//! Only the words of an account make devices, and a device has one place here and one of each day in the trash: nobody who stole
//! one takes the place of another. An account that makes devices without end loses the heads that changed longest ago, into the trash.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::sync::PoisonError;
use std::time::SystemTime;

use bytes::Bytes;
use proto::head::{HEAD_BYTES, Head};
use proto::id::{AccountId, DeviceId};
use proto::share_store::{HeadPlace, OLD_HEADS_MAX, OldHead, OldHeads, StoreError};
use proto::wire::word::AccountWord;

use super::layout::{Layout, devices_in};
use super::{Inner, writes};

/// Most devices of one account whose heads are kept. Chosen: ten times as many as a roster has of a member, and one answer holds them.
pub(super) const DEVICES_MAX: usize = 64;

/// Keeps a head of the store's owner unless a newer one of its device is held, or the device is revoked by what the owner said
/// of itself. Blocks.
pub(super) fn put(store: &Inner, encoded: &[u8], word: Option<&AccountWord>) -> Result<(), StoreError> {
    let (layout, owner) = (&store.layout, store.owner);
    let head = Head::decode(encoded).map_err(StoreError::refused)?;
    if head.account() != owner {
        return Err(StoreError::refused("The head belongs to another account"));
    }
    if word.is_some_and(|word| !word.trusts(&head.cert)) {
        return Err(StoreError::refused("The head is of a device that its account revoked"));
    }
    let path = layout.heads(owner).join(head.device().to_string());
    let _one_at_a_time = store.heads.lock().unwrap_or_else(PoisonError::into_inner);
    match held(&path)? {
        // Written once more: that it can be read does not say that it is on the disk, when the first answer was an error.
        Some(held) if held.as_ref() == encoded => {}
        Some(held) => match Head::decode(&held) {
            Ok(known) if known.seq >= head.seq => {
                return Err(StoreError::refused(format!(
                    "A head as new as number {} is held for that device",
                    head.seq
                )));
            }
            Ok(_) => store.keep_old_head(head.device(), &held, store.days.today())?,
            // A held file that does not decode is damaged: the new head heals it.
            Err(_) => {}
        },
        None => make_place(store, word)?,
    }
    store.replace(&path, &[encoded])
}

/// Makes room for the head of one more device. What is damaged gives way first, then what is of revoked devices, then the heads that
/// were put longest ago: of a device that is in use that is never long.
fn make_place(store: &Inner, word: Option<&AccountWord>) -> Result<(), StoreError> {
    let folder = store.layout.heads(store.owner);
    let there = by_age(&folder)?;
    let Some(over) = (there.len() + 1).checked_sub(DEVICES_MAX).filter(|over| *over > 0) else {
        return Ok(());
    };
    let mut heads = Vec::new();
    for (put, device) in there {
        let bytes = held(&folder.join(device.to_string()))?;
        let head = bytes.as_ref().and_then(|bytes| Head::decode(bytes).ok());
        let is_trusted = |head: &Head| word.is_none_or(|word| word.trusts(&head.cert));
        let rank = head.as_ref().map(is_trusted);
        heads.push(((rank, put, device), bytes.filter(|_| head.is_some())));
    }
    heads.sort_unstable_by_key(|(order, _)| *order);
    for ((_, _, device), bytes) in heads.into_iter().take(over) {
        if let Some(bytes) = bytes {
            store.keep_old_head(device, &bytes, store.days.today())?;
        }
        store.remove_head(&folder.join(device.to_string()))?;
    }
    Ok(())
}

/// The heads held for `account`, of most of its devices those that were put last. Blocks.
pub(super) fn of(layout: &Layout, account: AccountId) -> Result<Vec<Bytes>, StoreError> {
    let folder = layout.heads(account);
    let there = by_age(&folder)?;
    if there.is_empty() {
        layout.check_here()?;
    }
    let newest = there.iter().rev().take(DEVICES_MAX);
    let heads = newest.map(|(_, device)| held(&folder.join(device.to_string())));
    heads.filter_map(Result::transpose).collect()
}

/// Heads of `account` that were replaced and are in the trash, behind `after`, as many as one answer holds. Blocks.
pub(super) fn old(store: &Inner, account: AccountId, after: Option<HeadPlace>) -> Result<OldHeads, StoreError> {
    let (layout, today) = (&store.layout, store.days.today());
    let mut answer = OldHeads::default();
    let mut last = after;
    for (day, folder) in layout.old_heads_of(account).map_err(read_error)? {
        if after.is_some_and(|after| day < after.day) {
            continue;
        }
        for device in devices_in(&folder).map_err(read_error)? {
            let place = HeadPlace { day, device };
            if after.is_some_and(|after| place <= after) {
                continue;
            }
            if answer.heads.len() >= OLD_HEADS_MAX {
                answer.next = last;
                return Ok(answer);
            }
            // What has another length is damaged; gone since it was listed, it is over.
            let found = held(&folder.join(device.to_string()))?;
            let sound = found.filter(|found| found.len() == HEAD_BYTES);
            answer.heads.extend(sound.map(|encoded| OldHead {
                encoded,
                age_days: u16::try_from(today.saturating_sub(day)).unwrap_or(u16::MAX),
            }));
            last = Some(place);
        }
    }
    if answer.heads.is_empty() {
        layout.check_here()?;
    }
    Ok(answer)
}

/// Devices with a head in a folder, and when it was put; the oldest first.
fn by_age(folder: &Path) -> Result<Vec<(SystemTime, DeviceId)>, StoreError> {
    let devices = devices_in(folder).map_err(read_error)?.into_iter();
    let put = |device: DeviceId| {
        let found = fs::metadata(folder.join(device.to_string())).and_then(|found| found.modified());
        (found.unwrap_or(SystemTime::UNIX_EPOCH), device)
    };
    let mut devices: Vec<_> = devices.map(put).collect();
    devices.sort_unstable();
    Ok(devices)
}

fn held(path: &Path) -> Result<Option<Bytes>, StoreError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(HEAD_BYTES as u64 + 1).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(read_error(error)),
    }
}

fn read_error(error: io::Error) -> StoreError {
    writes::store_error("reading heads", &error)
}
