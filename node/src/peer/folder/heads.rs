//! The heads of an account's devices: one file each, replaced whole, never by an older one.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use bytes::Bytes;
use proto::head::{HEAD_BYTES, Head};
use proto::id::{AccountId, DeviceId};
use proto::share_store::StoreError;

use super::layout::Layout;
use super::{Inner, durable};

/// Most devices of one account whose heads are kept: bounds what a member can make us store for nothing.
const DEVICES_MAX: usize = 64;

/// Keeps a head of the store's owner unless a newer one of its device is held. Blocks.
pub(super) fn put(store: &Inner, encoded: &[u8]) -> Result<(), StoreError> {
    let (layout, owner) = (&store.layout, store.owner);
    let refused = |reason: String| StoreError::Refused { reason };
    let head = Head::decode(encoded).map_err(|error| refused(error.to_string()))?;
    if head.account() != owner {
        return Err(refused("The head belongs to another account".into()));
    }
    let path = layout.heads(owner).join(head.device().to_string());
    let _claim = store.claims.claim_name(head.device().0);
    match held(&path)? {
        // Written once more: that it can be read does not say that it is on the disk, when the first answer was an error.
        Some(held) if held.as_ref() == encoded => {}
        Some(held) => match Head::decode(&held) {
            Ok(known) if known.seq >= head.seq => {
                return Err(refused(format!(
                    "A head as new as number {} is held for that device",
                    head.seq
                )));
            }
            Ok(_) => store.keep_old_head(head.device(), &held, store.days.today())?,
            // A held file that does not decode is damaged: the new head heals it.
            Err(_) => {}
        },
        None if devices(&path)? >= DEVICES_MAX => {
            return Err(StoreError::Full {
                reason: format!("heads of {DEVICES_MAX} devices are held"),
            });
        }
        None => {}
    }
    store.replace(&path, &[encoded])
}

/// All heads held for `account`. Blocks.
pub(super) fn of(layout: &Layout, account: AccountId) -> Result<Vec<Bytes>, StoreError> {
    let mut heads = in_folder(layout, &layout.heads(account))?;
    heads.truncate(DEVICES_MAX);
    Ok(heads)
}

/// Heads of `account` that were replaced and are in the trash, newest first, as many as one answer holds. Blocks.
pub(super) fn old(layout: &Layout, account: AccountId) -> Result<Vec<Bytes>, StoreError> {
    let mut heads = Vec::new();
    for folder in layout.old_heads_of(account).map_err(read_error)? {
        heads.append(&mut in_folder(layout, &folder)?);
        if heads.len() >= DEVICES_MAX {
            break;
        }
    }
    heads.truncate(DEVICES_MAX);
    Ok(heads)
}

fn in_folder(layout: &Layout, folder: &Path) -> Result<Vec<Bytes>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return layout.check_here().map(|()| Vec::new()),
        other => other.map_err(read_error)?,
    };
    let mut heads = Vec::new();
    for entry in entries.take(2 * DEVICES_MAX) {
        let entry = entry.map_err(read_error)?;
        if is_device(&entry.file_name()) {
            heads.extend(held(&entry.path())?);
        }
    }
    Ok(heads)
}

fn held(path: &Path) -> Result<Option<Bytes>, StoreError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(HEAD_BYTES as u64 + 1).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(read_error(error)),
    }
}

fn devices(path: &Path) -> Result<usize, StoreError> {
    let folder = path.parent().unwrap_or(path);
    let names = fs::read_dir(folder).map_err(read_error)?.flatten();
    Ok(names.filter(|entry| is_device(&entry.file_name())).count())
}

fn is_device(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.parse::<DeviceId>().is_ok())
}

fn read_error(error: io::Error) -> StoreError {
    durable::store_error("reading heads", &error)
}
