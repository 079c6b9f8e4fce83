//! The promises of an account as a voter: one small file a volume, raised under a lock, never lowered and never removed
//! (docs/format/promise.md §4). And which voter a folder is.
//!
//! Two processes on one folder, also on two machines, are kept apart by the lock of a file: as well as the folder's file system does that.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use proto::epoch::{Epoch, Verdict};
use proto::id::{AccountId, VolumeId, VoterId};
use proto::promise::{PROMISE_BYTES, Promise};
use proto::share_store::StoreError;
use proto::wire::word::AccountWord;

use super::layout::Layout;
use super::{Inner, writes};

/// Most volumes of one account with a promise here. Chosen: nobody has so many disks, and they take 4 MiB of a disk for ever.
pub const VOLUMES_MAX: usize = 1_024;
/// Longest wait for another process that holds the lock. Chosen: whoever has it waits for one small file to be synced.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Between two attempts to take it.
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// What the file with a folder's id begins with.
const ID_TITLE: &str = "gridbackup folder id 1\n";
/// Bytes of that file.
const ID_BYTES: usize = ID_TITLE.len() + 2 * VoterId::LEN + 1;

/// What this process made durable, by volume. What is found in a file may be a write that failed: it is written once more before it
/// is answered.
pub(super) type Durable = BTreeMap<VolumeId, (Epoch, Bytes)>;

/// Judges a claim of the store's owner, unless what the owner said of itself revokes the device. Blocks.
pub(super) fn claim(store: &Inner, encoded: &Bytes, word: Option<&AccountWord>) -> Result<Bytes, StoreError> {
    let claim = Promise::decode(encoded).map_err(StoreError::refused)?;
    if claim.account() != store.owner {
        return Err(StoreError::refused("The claim is of another account's volume"));
    }
    if word.is_some_and(|word| !word.trusts(&claim.cert)) {
        return Err(StoreError::refused("The claim is of a device that its account revoked"));
    }
    // Or promises would be made below the mount point of a disk that is away.
    store.layout.check_here()?;
    let mut synced = store.promises.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = store.layout.promises(store.owner);
    if synced.is_empty() {
        // Who made it may have been cut off before it was durable.
        writes::create_folders(&folder).map_err(|error| vote_error(&error))?;
    }
    let _lock = locked(&folder.join("lock"))?;
    let held = held(store, &synced, claim.volume)?;
    let (epoch, answer) = match &held {
        Some((promise, bytes)) if claim.verdict(Some(promise)) != Verdict::Raise => (promise.epoch(), bytes),
        _ => (claim.epoch(), encoded),
    };
    if held.is_none() {
        check_volumes(&store.layout, store.owner)?;
    }
    let is_known = synced.get(&claim.volume).is_some_and(|(_, known)| known == answer);
    if !is_known {
        let path = store.layout.promise(store.owner, claim.volume);
        match held {
            None => {
                add(&path, answer)?;
                store.usage.count(answer.len() as u64, 0);
            }
            Some(_) => store.replace(&path, &[answer])?,
        }
        synced.insert(claim.volume, (epoch, answer.clone()));
    }
    Ok(answer.clone())
}

/// The promise of a volume of the store's owner. Blocks.
pub(super) fn of(store: &Inner, account: AccountId, volume: VolumeId) -> Result<Option<Bytes>, StoreError> {
    if account != store.owner {
        return Err(StoreError::refused("The promise is for another account's volume"));
    }
    let synced = store.promises.lock().unwrap_or_else(PoisonError::into_inner);
    let held = held(store, &synced, volume)?;
    if held.is_none() {
        store.layout.check_here()?;
    }
    Ok(held.map(|(_, bytes)| bytes))
}

/// Which voter the folder is, which is settled when that is first asked for. Blocks.
pub(super) fn voter(layout: &Layout) -> Result<VoterId, StoreError> {
    layout.check_here()?;
    let path = layout.folder_id();
    if let Some(id) = read_id(&path)? {
        // Who wrote it may have been cut off before it was durable, and another machine is about to hear of it.
        writes::sync_directory_of(&path).map_err(|error| vote_error(&error))?;
        return Ok(id);
    }
    let _lock = locked(&path.with_extension("lock"))?;
    if let Some(id) = read_id(&path)? {
        return Ok(id);
    }
    let mut id = VoterId([0; VoterId::LEN]);
    getrandom::fill(&mut id.0).map_err(|error| StoreError::Unreachable {
        reason: format!("the system gives no randomness: {error}"),
    })?;
    let text = format!("{ID_TITLE}{id}\n");
    add(&path, text.as_bytes())?;
    Ok(id)
}

/// What is promised of a volume, and the bytes of it.
fn held(store: &Inner, synced: &Durable, volume: VolumeId) -> Result<Option<(Promise, Bytes)>, StoreError> {
    let path = store.layout.promise(store.owner, volume);
    let damaged = |what: &str| StoreError::Corrupt {
        reason: format!("The promise of volume {volume} in {} {what}", path.display()),
    };
    let held = match read(&path, PROMISE_BYTES)? {
        None => None,
        Some(bytes) => {
            let promise = Promise::decode(&bytes).map_err(|error| damaged(&format!("is damaged: {error}")))?;
            if (promise.account(), promise.volume) != (store.owner, volume) {
                return Err(damaged("is that of another volume"));
            }
            Some((promise, bytes))
        }
    };
    let before = synced.get(&volume).map(|(epoch, _)| *epoch);
    if held.as_ref().map(|(promise, _)| promise.epoch()) < before {
        return Err(damaged(
            "is older than what was promised before: was the folder restored from a copy?",
        ));
    }
    Ok(held)
}

fn check_volumes(layout: &Layout, owner: AccountId) -> Result<(), StoreError> {
    let volumes = layout.promised_volumes(owner).map_err(|error| vote_error(&error))?;
    match volumes < VOLUMES_MAX {
        true => Ok(()),
        false => Err(StoreError::Full {
            reason: format!("promises of {VOLUMES_MAX} volumes of this account are kept already"),
        }),
    }
}

fn read_id(path: &Path) -> Result<Option<VoterId>, StoreError> {
    let Some(bytes) = read(path, ID_BYTES)? else {
        return Ok(None);
    };
    let digits = bytes
        .strip_prefix(ID_TITLE.as_bytes())
        .and_then(|rest| rest.strip_suffix(b"\n"));
    let id = digits.and_then(|digits| VoterId::from_slice(&HEXLOWER.decode(digits).ok()?));
    id.map(Some).ok_or_else(|| StoreError::Corrupt {
        reason: format!(
            "{} is damaged: nobody can tell which voter this folder is",
            path.display()
        ),
    })
}

/// All of a small file, and one byte more of one that is too long; none if there is none.
fn read(path: &Path, bytes_max: usize) -> Result<Option<Bytes>, StoreError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(vote_error(&error)),
    }
}

/// Writes a file that was not found, durably, and only if it is not there: on a folder of another machine, that it is not may be what this one
/// remembers.
fn add(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    match durable::add(path, &[bytes]) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(busy()),
        // FAT has no second names, and is on no other machine.
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => {
            writes::replace(path, &[bytes])
        }
        Err(error) => Err(vote_error(&error)),
    }
}

/// Takes the lock of a file that is only there to be locked; it ends with what is returned, or with the process.
fn locked(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(|error| vote_error(&error))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_WAIT => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(busy()),
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                let reason = format!(
                    "{} cannot be locked, so this folder is no voter: {error}",
                    path.display()
                );
                return Err(StoreError::Refused { reason });
            }
            Err(TryLockError::Error(error)) => return Err(vote_error(&error)),
        }
    }
}

fn busy() -> StoreError {
    let retry_after = Duration::from_secs(1);
    StoreError::Busy { retry_after }
}

fn vote_error(error: &io::Error) -> StoreError {
    writes::store_error("keeping promises", error)
}

#[cfg(test)]
mod tests;
