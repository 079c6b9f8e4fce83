//! Reading everything that is kept for friends again, slowly, round after round: a disk that forgets is found before its
//! shares are needed.
//!
//! Progress is a small file, written after each batch: a restart goes on where it stopped. Leaves out what follows from
//! damage: a share set aside is listed no longer, which tells its owner and whoever repairs for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proto::id::{AccountId, ShareId};
use proto::share_store::{ShareStore, StoreError};

use crate::folder::FolderStore;

/// Shares between two notes of the progress.
const BATCH: u32 = 16;
/// First word of the progress file.
const HEADER: &str = "gridbackup-scrub-1";

/// Where a round stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Progress {
    /// When the round began, in seconds since 1970.
    pub began_secs: u64,
    /// Whose shares are being read; none: the round is at its end.
    pub account: Option<AccountId>,
    /// The last share read of that account.
    pub after: Option<ShareId>,
}

/// What a round, or a part of one, has found.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Found {
    /// Shares read.
    pub shares: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Shares that were damaged and set aside.
    pub damaged: Vec<(AccountId, ShareId)>,
}

/// The progress file of a home.
pub struct ProgressFile(PathBuf);

impl ProgressFile {
    /// In the state folder of a home.
    pub fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("scrub"))
    }

    /// What it says; a missing or damaged file: no round yet.
    pub fn read(&self) -> Progress {
        let parse = |text: String| {
            let mut words = text.split_whitespace();
            (words.next()? == HEADER).then_some(())?;
            Some(Progress {
                began_secs: words.next()?.parse().ok()?,
                account: words.next().and_then(|word| word.parse().ok()),
                after: words.next().and_then(|word| word.parse().ok()),
            })
        };
        fs::read_to_string(&self.0).ok().and_then(parse).unwrap_or_default()
    }

    /// Replaces it. Not synced: what a power cut takes back is read once more.
    pub fn write(&self, progress: &Progress) -> std::io::Result<()> {
        let word = |word: Option<String>| word.unwrap_or_else(|| "-".to_owned());
        let text = format!(
            "{HEADER} {} {} {}\n",
            progress.began_secs,
            word(progress.account.map(|id| id.to_string())),
            word(progress.after.map(|id| id.to_string())),
        );
        durable::replace_note(&self.0, &[text.as_bytes()])
    }
}

impl Progress {
    /// Is a new round due?
    pub fn is_due(&self, now_secs: u64, every: Duration) -> bool {
        self.account.is_some() || now_secs >= self.began_secs.saturating_add(every.as_secs())
    }
}

/// Reads the shares of one account from `after` on, no faster than `bytes_per_sec`; `note` is told after each batch. May
/// be dropped: the next run goes on behind the last batch noted.
pub async fn account(
    store: &FolderStore,
    mut after: Option<ShareId>,
    bytes_per_sec: u64,
    found: &mut Found,
    note: &mut (dyn FnMut(Option<ShareId>) + Send),
) -> Result<(), StoreError> {
    loop {
        let ids = store.list(after, BATCH).await?;
        let Some(last) = ids.last().copied() else { return Ok(()) };
        for id in ids {
            let began = Instant::now();
            let of_store = store.clone();
            let read = tokio::task::spawn_blocking(move || read_one(&of_store, id)).await;
            let read = read.map_err(|error| StoreError::Unreachable {
                reason: error.to_string(),
            })??;
            found.shares += 1;
            found.bytes += read.bytes;
            if read.damaged {
                tracing::warn!(share = %id, "a share kept for a friend is damaged; it was set aside");
                found.damaged.push((store.owner(), id));
            }
            let pause = Duration::from_secs_f64(read.bytes as f64 / bytes_per_sec.max(1) as f64);
            tokio::time::sleep(pause.saturating_sub(began.elapsed())).await;
        }
        after = Some(last);
        note(after);
    }
}

struct Read {
    bytes: u64,
    damaged: bool,
}

/// A share that opens and cannot be read is damaged, too: a bad sector. When it is the whole disk that is gone, setting it
/// aside fails, and with it the round.
fn read_one(store: &FolderStore, id: ShareId) -> Result<Read, StoreError> {
    let bytes = match store.open_share(id) {
        Ok((_, bytes)) => bytes,
        // Its owner removed it meanwhile.
        Err(StoreError::NotFound) => {
            return Ok(Read {
                bytes: 0,
                damaged: false,
            });
        }
        Err(error) => return Err(error),
    };
    match store.verify(id) {
        Ok(()) | Err(StoreError::NotFound) => Ok(Read { bytes, damaged: false }),
        Err(StoreError::Corrupt { .. } | StoreError::Unreachable { .. }) => {
            store.set_aside(id)?;
            Ok(Read { bytes, damaged: true })
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use proto::share_store::contract::Fixture;

    use super::*;

    const FAST: u64 = u64::MAX;

    #[tokio::test]
    async fn a_damaged_share_is_set_aside_and_the_others_stay() {
        let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
        let store = FolderStore::open(root.path(), fixture.account(), None).unwrap();
        let mut ids = Vec::new();
        for number in 0..4 {
            let (id, share) = fixture.share(number);
            store.put(id, share).await.unwrap();
            ids.push(id);
        }
        let path = |id: ShareId| {
            let (account, name) = (fixture.account().to_string(), id.to_string());
            root.path().join(&account).join("shares").join(&name[..2]).join(name)
        };
        let mut bytes = fs::read(path(ids[2])).unwrap();
        bytes[100_000] ^= 1;
        fs::write(path(ids[2]), bytes).unwrap();
        let (mut found, mut noted) = (Found::default(), Vec::new());
        account(&store, None, FAST, &mut found, &mut |at| noted.push(at))
            .await
            .unwrap();
        assert_eq!((found.shares, found.damaged), (4, vec![(fixture.account(), ids[2])]));
        let left = store.list(None, 10).await.unwrap();
        assert_eq!(left.len(), 3);
        assert!(!left.contains(&ids[2]));
        assert_eq!(noted.len(), 1);
        // From the middle on, only the rest is read.
        let mut rest = Found::default();
        account(&store, Some(left[0]), FAST, &mut rest, &mut |_| {})
            .await
            .unwrap();
        assert_eq!(rest.shares, 2);
    }

    #[test]
    fn progress_comes_back_and_damage_to_it_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = ProgressFile::new(dir.path());
        assert_eq!(file.read(), Progress::default());
        for progress in [
            Progress {
                began_secs: 7,
                account: None,
                after: None,
            },
            Progress {
                began_secs: 7,
                account: Some(AccountId([1; 32])),
                after: None,
            },
            Progress {
                began_secs: 7,
                account: Some(AccountId([1; 32])),
                after: Some(ShareId([2; 32])),
            },
        ] {
            file.write(&progress).unwrap();
            assert_eq!(file.read(), progress);
        }
        fs::write(dir.path().join("scrub"), "something else").unwrap();
        assert_eq!(file.read(), Progress::default());
    }

    #[test]
    fn a_round_is_due_once_in_its_time_and_an_open_one_at_once() {
        let month = Duration::from_secs(30 * 24 * 3600);
        let ended = Progress {
            began_secs: 1_000_000,
            account: None,
            after: None,
        };
        assert!(!ended.is_due(1_000_001, month));
        assert!(ended.is_due(1_000_000 + month.as_secs(), month));
        assert!(
            Progress {
                account: Some(AccountId([1; 32])),
                ..ended
            }
            .is_due(1_000_001, month)
        );
    }
}
