//! Names in a store's folder.
//!
//! ```text
//! <root>/gridbackup-store                       marker: "gridbackup store 1\n"
//! <root>/<account, 64 hex digits>/shares/<first 2>/<share id>
//!                                            /heads/<device id>
//!                                            /promises/<volume id>, /promises/lock        docs/format/promise.md §4
//!                                            /damaged/<share id>                  set aside by a scrub
//!                                            /incoming/<share id>.part            a transfer that has not ended
//!                                            /incoming/<share id>.<…>.tmp         a local put that has not ended
//!                                            /discard, /trash/…                   docs/format/discard.md §3
//! <root>/gridbackup-days                        days counted
//! <root>/gridbackup-folder-id, ….lock           which voter the folder is
//! ```

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::id::{AccountId, DeviceId, ShareId, VolumeId};
use proto::keep_days::KeepDays;
use proto::share_store::StoreError;

use super::{OpenError, writes};

const MARKER: &str = "gridbackup-store";
const MARKER_TITLE: &str = "gridbackup store ";
const MARKER_TEXT: &str = "gridbackup store 1\n";
/// Longest marker that is read; a longer one is damaged.
const MARKER_BYTES_MAX: u64 = 64;
/// Temporary files older than this belong to no living put. Chosen: no put lasts an hour, clocks of mounts differ.
const TEMP_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The paths of one account's store.
pub struct Layout {
    root: PathBuf,
    account: PathBuf,
}

/// A folder of the trash: what was given up on one day and stays equally long.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TrashDay {
    /// When it was given up, as the store counts.
    pub day: u32,
    /// Days that it stays.
    pub keep_days: KeepDays,
}

impl TrashDay {
    /// Whether all of its days were counted.
    pub fn is_over(self, today: u32) -> bool {
        self.day.saturating_add(self.keep_days.days()) < today
    }

    fn name(self) -> String {
        let Self { day, keep_days } = self;
        match keep_days {
            KeepDays::MOST => format!("{day:08}"),
            fewer => format!("{day:08}.{:02}", fewer.days()),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let (day, keep_days) = match name.split_once('.') {
            None => (name, KeepDays::MOST),
            Some((day, days)) => (
                day,
                KeepDays::new(days.parse().ok()?).filter(|days| *days < KeepDays::MOST)?,
            ),
        };
        let day = day.parse().ok()?;
        Some(Self { day, keep_days })
    }
}

/// Makes `root` a store if it is none yet. Files of others in it are left alone.
pub fn mark(root: &Path) -> Result<(), OpenError> {
    let io_error = |source| OpenError::Io {
        path: root.to_owned(),
        source,
    };
    match check_or_mend_mark(root) {
        Err(OpenError::NotAStore { .. }) => {}
        // Who made it may have been cut off before it was durable.
        Ok(()) => return writes::sync_directory_of(&root.join(MARKER)).map_err(io_error),
        other => return other,
    }
    writes::create_folders(root)
        .and_then(|()| write_mark(root))
        .map_err(io_error)
}

/// Checks that `root` is a store of this version.
pub fn check_mark(root: &Path) -> Result<(), OpenError> {
    let mut text = Vec::new();
    let read = File::open(root.join(MARKER)).and_then(|file| file.take(MARKER_BYTES_MAX).read_to_end(&mut text));
    match read {
        Ok(_) if text == MARKER_TEXT.as_bytes() => Ok(()),
        Ok(_) if is_newer(&text) => Err(OpenError::Version { path: root.to_owned() }),
        Ok(_) => Err(OpenError::Damaged { path: root.to_owned() }),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(OpenError::NotAStore { path: root.to_owned() }),
        Err(source) => Err(OpenError::Io {
            path: root.to_owned(),
            source,
        }),
    }
}

/// Whether `root` has a marker, of whatever version: an unmounted disk has none.
pub fn is_marked(root: &Path) -> bool {
    root.join(MARKER).exists()
}

/// As `check_mark`, but a marker that is damaged or lost is made good where shares lie beside it: a power cut or a bad
/// sector must not take a whole store away. An empty one is made good in any case: a marker was made there, so the disk is
/// the right one.
pub fn check_or_mend_mark(root: &Path) -> Result<(), OpenError> {
    let refused = match check_mark(root) {
        Err(refused @ (OpenError::Damaged { .. } | OpenError::NotAStore { .. })) => refused,
        other => return other,
    };
    let is_empty = fs::metadata(root.join(MARKER)).is_ok_and(|found| found.is_file() && found.len() == 0);
    if !is_empty && !has_accounts(root) {
        return Err(refused);
    }
    match write_mark(root) {
        Ok(()) => tracing::warn!("{refused}. It was made good: shares lie beside it"),
        // What can only be read can still be read.
        Err(error) => tracing::warn!("{refused}. Shares lie beside it, but it cannot be made good: {error}"),
    }
    Ok(())
}

fn write_mark(root: &Path) -> io::Result<()> {
    durable::replace(&root.join(MARKER), &[MARKER_TEXT.as_bytes()])
}

/// Only a whole marker with a higher number: what was cut off or flipped is of no version.
fn is_newer(text: &[u8]) -> bool {
    let text = std::str::from_utf8(text).ok();
    let number = text.and_then(|text| text.strip_prefix(MARKER_TITLE)?.strip_suffix('\n'));
    number
        .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|number| number.parse::<u32>().ok())
        .is_some_and(|number| number > 1)
}

/// Whether `root` has the folder of any account.
fn has_accounts(root: &Path) -> bool {
    let is_account = |name: &str| name.len() == ACCOUNT_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    names_in(root).unwrap_or_default().iter().any(|name| {
        let folder = root.join(name);
        is_account(name) && folder.join("shares").is_dir() && folder.join("heads").is_dir()
    })
}

/// Digits of an account's id, all of them: with a part of them two accounts could share a shelf.
const ACCOUNT_DIGITS: usize = 2 * AccountId::LEN;

/// The folder of an account's store below `root`.
pub fn account_folder(root: &Path, account: AccountId) -> PathBuf {
    root.join(account.to_string())
}

impl Layout {
    /// Makes the folders that an account's store needs.
    pub fn create(root: &Path, owner: AccountId) -> Result<Self, OpenError> {
        let layout = Self {
            root: root.to_owned(),
            account: account_folder(root, owner),
        };
        layout.bring_promises_back().map_err(|source| OpenError::Io {
            path: layout.evicted(),
            source,
        })?;
        for folder in ["shares", "heads", "incoming"] {
            let path = layout.account.join(folder);
            writes::create_folders(&path).map_err(|source| OpenError::Io { path, source })?;
        }
        layout.make_share_folders().map_err(|source| OpenError::Io {
            path: layout.account.join("shares"),
            source,
        })?;
        layout.sweep();
        Ok(layout)
    }

    /// The paths alone: thousands of images of a disk with 256 folders in them take minutes.
    #[cfg(test)]
    pub fn bare(root: &Path, owner: AccountId) -> Self {
        Self {
            root: root.to_owned(),
            account: account_folder(root, owner),
        }
    }

    /// Where all that the account has here goes before it is removed.
    pub fn evicted(&self) -> PathBuf {
        self.account.with_extension("evicted")
    }

    /// Moves everything of the account away at once, durably, but its promises.
    pub fn evict(&self) -> io::Result<()> {
        durable::relocate(&self.account, &self.evicted())?;
        self.bring_promises_back()
    }

    /// A voter that forgets lets two writers write: promises stay whatever goes, also when that was cut off halfway.
    fn bring_promises_back(&self) -> io::Result<()> {
        let (away, place) = (self.evicted().join("promises"), self.account.join("promises"));
        if !away.is_dir() {
            return Ok(());
        }
        writes::create_folders(&self.account)?;
        durable::relocate(&away, &place)
    }

    /// All at once: made on demand, each would cost a put two more syncs.
    fn make_share_folders(&self) -> io::Result<()> {
        let shares = self.account.join("shares");
        let last = shares.join("ff");
        if last.exists() {
            // Who made them may have been cut off before they were durable.
            return writes::create_folders(&last);
        }
        for first in 0..=u8::MAX {
            match fs::create_dir(shares.join(format!("{first:02x}"))) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        writes::sync_directory_of(&last)
    }

    /// Where a share is.
    pub fn share(&self, id: ShareId) -> PathBuf {
        let name = id.to_string();
        self.account.join("shares").join(&name[..2]).join(name)
    }

    /// Where a share is that was given up on that day.
    pub fn trashed(&self, day: TrashDay, id: ShareId) -> PathBuf {
        let name = id.to_string();
        self.trash_day(day).join(&name[..2]).join(name)
    }

    /// What was given up on that day.
    pub fn trash_day(&self, day: TrashDay) -> PathBuf {
        self.account.join("trash").join(day.name())
    }

    /// Heads replaced on that day; they stay as long as anything does.
    pub fn old_heads(&self, day: u32) -> PathBuf {
        let keep_days = KeepDays::MOST;
        self.trash_day(TrashDay { day, keep_days }).join("heads")
    }

    /// The last discard taken.
    pub fn last_discard(&self) -> PathBuf {
        self.account.join("discard")
    }

    /// Days that have something in the trash, newest first.
    pub fn trash_days(&self) -> io::Result<Vec<TrashDay>> {
        days_in(&self.account.join("trash"))
    }

    /// Ids of the shares given up on that day that begin with the byte `first`, in no order.
    pub fn trashed_in(&self, day: TrashDay, first: u8) -> io::Result<Vec<ShareId>> {
        let names = names_in(&self.trash_day(day).join(format!("{first:02x}")))?;
        Ok(names.into_iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Where a share goes that turned out to be damaged.
    pub fn damaged(&self, id: ShareId) -> PathBuf {
        self.account.join("damaged").join(id.to_string())
    }

    /// A new name for a share while it is written: two stores on one folder, even in two processes, never share it.
    pub fn temp(&self, id: ShareId) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (process, count) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        self.incoming().join(format!("{id}.{process}-{count}.tmp"))
    }

    /// Removes what puts left behind that a crash cut off. What cannot be removed stays: the store may be one to read only.
    fn sweep(&self) {
        let folders = [
            self.incoming(),
            self.account.join("heads"),
            self.account.join("promises"),
            self.account.clone(),
            self.root.clone(),
        ];
        for entry in folders
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flatten()
            .flatten()
        {
            let abandoned = entry
                .metadata()
                .and_then(|found| found.modified())
                .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > TEMP_AGE_MAX));
            if abandoned && entry.path().extension().is_some_and(|extension| extension == "tmp") {
                let _stays = fs::remove_file(entry.path());
            }
        }
    }

    /// Where the heads of `account` are.
    pub fn heads(&self, account: AccountId) -> PathBuf {
        account_folder(&self.root, account).join("heads")
    }

    /// Where the promises to `account` are.
    pub fn promises(&self, account: AccountId) -> PathBuf {
        account_folder(&self.root, account).join("promises")
    }

    /// Where the promise of a volume is.
    pub fn promise(&self, account: AccountId, volume: VolumeId) -> PathBuf {
        self.promises(account).join(volume.to_string())
    }

    /// How many volumes of `account` have one.
    pub fn promised_volumes(&self, account: AccountId) -> io::Result<usize> {
        let names = names_in(&self.promises(account))?.into_iter();
        Ok(names.filter(|name| name.parse::<VolumeId>().is_ok()).count())
    }

    /// What says which voter the folder is.
    pub fn folder_id(&self) -> PathBuf {
        self.root.join("gridbackup-folder-id")
    }

    /// The folders of heads of `account` that were replaced, by day, ascending.
    pub fn old_heads_of(&self, account: AccountId) -> io::Result<Vec<(u32, PathBuf)>> {
        let trash = account_folder(&self.root, account).join("trash");
        let days = days_in(&trash)?.into_iter().rev();
        Ok(days
            .filter(|day| day.keep_days == KeepDays::MOST)
            .map(|day| (day.day, trash.join(day.name()).join("heads")))
            .collect())
    }

    /// Where transfers are that have not ended.
    pub fn incoming(&self) -> PathBuf {
        self.account.join("incoming")
    }

    /// The root of the store: for asking the file system.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Ids of the shares whose id begins with the byte `first`, in no order.
    pub fn shares_in(&self, first: u8) -> io::Result<Vec<ShareId>> {
        let names = names_in(&self.account.join("shares").join(format!("{first:02x}")))?;
        Ok(names.into_iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Bytes of all that is stored, the trash too.
    pub fn measure(&self) -> io::Result<u64> {
        measure(&self.account)
    }

    /// Bytes of what lies beside the shares of a day in the trash.
    pub fn beside_trashed(&self, day: TrashDay) -> io::Result<u64> {
        beside_shares(&self.trash_day(day))
    }

    /// `Unreachable` unless the store is still mounted: tells "not there" from "cannot tell".
    pub fn check_here(&self) -> Result<(), StoreError> {
        match check_mark(&self.root) {
            // The disk is there, whatever happened to the marker.
            Ok(()) | Err(OpenError::Damaged { .. }) => Ok(()),
            Err(error) => Err(StoreError::Unreachable {
                reason: error.to_string(),
            }),
        }
    }
}

/// Bytes in each account's folder below `root`.
pub fn used_below(root: &Path) -> Result<HashMap<PathBuf, u64>, StoreError> {
    let counted = names_in(root).and_then(|names| {
        let accounts = names.into_iter().map(|name| root.join(name));
        accounts
            .filter(|account| account.join("shares").is_dir())
            .map(|account| Ok((account.clone(), measure(&account)? + unfinished(&account)?)))
            .collect()
    });
    counted.map_err(|error| writes::store_error("measuring the store", &error))
}

fn measure(account: &Path) -> io::Result<u64> {
    let trash = account.join("trash");
    let mut folders = vec![account.join("shares")];
    folders.extend(days_in(&trash)?.into_iter().map(|day| trash.join(day.name())));
    let mut bytes = files_in(&account.join("heads"))? + files_in(&account.join("promises"))?;
    bytes += length(&account.join("discard"))?;
    for folder in folders {
        bytes += beside_shares(&folder)?;
        for first in 0..=u8::MAX {
            let folder = folder.join(format!("{first:02x}"));
            for name in names_in(&folder)? {
                if name.parse::<ShareId>().is_ok() {
                    bytes += fs::metadata(folder.join(&name))?.len();
                }
            }
        }
    }
    Ok(bytes)
}

/// Bytes of shares that have not arrived in full.
fn unfinished(account: &Path) -> io::Result<u64> {
    files_in(&account.join("incoming"))
}

/// Bytes in a day's folder of the trash that are no shares: discards, and heads that were replaced.
fn beside_shares(day: &Path) -> io::Result<u64> {
    Ok(files_in(day)? + files_in(&day.join("heads"))?)
}

/// Bytes of the files in a folder, but not of those in folders in it.
fn files_in(folder: &Path) -> io::Result<u64> {
    let names = names_in(folder)?.into_iter();
    names.map(|name| length(&folder.join(name))).sum()
}

/// Bytes of a file; nothing if there is none, or none any more.
fn length(path: &Path) -> io::Result<u64> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(found.len()),
        Ok(_) => Ok(0),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(0),
        Err(error) => Err(error),
    }
}

/// The newest day that anything in any account's trash below `root` names.
pub fn newest_trash_day(root: &Path) -> Option<u32> {
    let accounts = fs::read_dir(root).ok()?.flatten();
    accounts
        .filter_map(|account| Some(days_in(&account.path().join("trash")).ok()?.first()?.day))
        .max()
}

/// Devices that have a head in a folder, ascending.
pub fn devices_in(heads: &Path) -> io::Result<Vec<DeviceId>> {
    let names = names_in(heads)?.into_iter();
    let mut devices: Vec<DeviceId> = names.filter_map(|name| name.parse().ok()).collect();
    devices.sort_unstable();
    Ok(devices)
}

fn days_in(trash: &Path) -> io::Result<Vec<TrashDay>> {
    let names = names_in(trash)?;
    let mut days: Vec<TrashDay> = names.iter().filter_map(|name| TrashDay::parse(name)).collect();
    days.sort_unstable_by(|a, b| b.cmp(a));
    Ok(days)
}

/// Names in a folder; none if it is not there.
fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        other => other?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
    names.filter_map(Result::transpose).collect()
}
