//! When each account was last heard from: one small file each, written at most once an hour.
//!
//! Only notices and alarms depend on it, so it is not synced, and a file that cannot be read counts from now on.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use proto::id::AccountId;

/// Seconds between two writes. Chosen: alarms count in days.
const WRITE_SECS: u64 = 3_600;

/// See the module.
pub struct Heard {
    folder: PathBuf,
    written: Mutex<HashMap<AccountId, u64>>,
}

impl Heard {
    /// Kept in `heard` below `root`.
    pub fn new(root: &Path) -> Self {
        Self {
            folder: root.join("heard"),
            written: Mutex::default(),
        }
    }

    /// The account was heard from just now. Blocks for a moment once an hour.
    pub fn note(&self, account: AccountId, now_secs: u64) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let last = written.entry(account).or_insert(0);
        if now_secs.saturating_sub(*last) < WRITE_SECS {
            return;
        }
        let path = self.folder.join(account.to_string());
        let text = format!("{now_secs}\n");
        let done = fs::create_dir_all(&self.folder).and_then(|()| durable::replace_note(&path, &[text.as_bytes()]));
        match done {
            Ok(()) => *last = now_secs,
            Err(error) => tracing::warn!("{} cannot be written: {error}", path.display()),
        }
    }

    /// When the account was last heard from, seconds since 1970, to an hour. One never heard of is counted from now.
    pub fn last_secs(&self, account: AccountId, now_secs: u64) -> u64 {
        let text = fs::read_to_string(self.folder.join(account.to_string())).ok();
        match text.and_then(|text| text.trim().parse::<u64>().ok()) {
            // A clock that was ahead when it was written must not silence alarms for years.
            Some(secs) if secs <= now_secs => secs,
            _ => {
                self.note(account, now_secs);
                now_secs
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: AccountId = AccountId([7; 32]);

    #[test]
    fn an_account_is_counted_from_when_it_was_last_heard_or_first_asked_for() {
        let root = tempfile::tempdir().unwrap();
        let now = 1_800_000_000;
        assert_eq!(Heard::new(root.path()).last_secs(ACCOUNT, now), now);
        assert_eq!(Heard::new(root.path()).last_secs(ACCOUNT, now + 500_000), now);
        Heard::new(root.path()).note(ACCOUNT, now + 600_000);
        assert_eq!(Heard::new(root.path()).last_secs(ACCOUNT, now + 900_000), now + 600_000);
        assert_eq!(
            Heard::new(root.path()).last_secs(ACCOUNT, now + 1),
            now + 1,
            "the clock was ahead"
        );
    }
}
