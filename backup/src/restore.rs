//! From a snapshot back to files: plan by pack, fetch, open, write out of order, set metadata last.
//!
//! `run` tells the story of a restore from beginning to end.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use database::{Db, DbError};
use proto::keys::AccountKeys;
use tokio::runtime::Handle;
use upload_queue::peers::PeerSet;
use upload_queue::spool::Spool;

use crate::exclude::Rules;

mod asked;
mod cat;
mod content;
mod drill;
mod dry_run;
mod export;
pub mod fetch;
pub mod fetch_stats;
pub mod file;
mod holders;
mod judge;
mod metadata;
mod removal;
mod run;
pub(crate) mod sections;
mod segments;
mod select;
mod spooled;
mod target;
mod verify;
mod window;
mod write;

pub use drill::{Compared, Picked};
pub use export::Exported;

/// Everything the read side works with.
#[derive(Clone)]
pub struct Reader {
    /// The catalog.
    pub db: Db,
    /// Where shares are.
    pub peers: PeerSet,
    /// Shares that were not sent yet, if those are to be read, too.
    pub spool: Option<Spool>,
    /// The account's keys.
    pub keys: Arc<AccountKeys>,
    /// The runtime to fetch in.
    pub runtime: Handle,
    /// Bytes of packs in memory at once.
    pub bytes_in_flight_max: usize,
}

/// What to restore, and how.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Sequence number of the snapshot.
    pub snapshot: u64,
    /// Absolute path in the snapshot; `None`: everything, under absolute paths below `target`.
    pub path: Option<Vec<u8>>,
    /// Where to.
    pub target: PathBuf,
    /// gitignore-style patterns on paths as they are below `target`: only these (none: all).
    pub include: Vec<String>,
    /// The same: not these.
    pub exclude: Vec<String>,
    /// What to do with a file that is there.
    pub overwrite: Overwrite,
    /// Remove from `target` what is not in the snapshot, but would be if it had been there.
    pub delete: Option<Deleting>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Read every file back after it was written and compare.
    pub verify: bool,
}

/// What `delete` has to know.
#[derive(Clone, Debug, Default)]
pub struct Deleting {
    /// The rules of today's scans, beside those that the snapshot remembers: what they leave out stays.
    pub rules: Rules,
    /// Folders with keys, state or shares: nothing at or below them is ever removed.
    pub protected: Vec<PathBuf>,
}

/// What to do with a file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// Write it again.
    Always,
    /// Keep it if size and modification time agree.
    #[default]
    IfChanged,
    /// Keep it.
    Never,
}

/// What a restore did.
#[derive(Clone, Debug, Default)]
pub struct RestoreSummary {
    /// Files written.
    pub files_restored: u64,
    /// Files that were there already.
    pub files_unchanged: u64,
    /// Files (and folders) that could not be restored, with the reason.
    pub failed: Vec<(PathBuf, String)>,
    /// Files, links and other things that were removed, or would be.
    pub files_deleted: u64,
    /// Folders that were removed, or would be.
    pub folders_deleted: u64,
    /// Files and folders that are not in the snapshot and were left, since its scan would not have looked at them.
    pub left: u64,
    /// What would have been removed if everything had been restored: the only copy of a file may lie under another name.
    pub removals_withheld: u64,
    /// Include patterns that match nothing in the snapshot.
    pub unmatched: Vec<String>,
    /// The first pack of which too few shares could be had, if any: some of `failed` may succeed when more peers are up.
    pub too_few_shares: Option<String>,
    /// Bytes of content written, by length.
    pub bytes_restored: u64,
    /// Bytes fetched from peers.
    pub bytes_fetched: u64,
    /// Names of the peers that served.
    pub peers_used: Vec<String>,
    /// Names of the peers that served damaged shares, with what was wrong.
    pub peers_bad: Vec<(String, String)>,
}

/// What a restore tells of while it runs.
#[derive(Clone, Debug)]
pub enum RestoreEvent {
    /// How far it is.
    Progress(RestoreProgress),
    /// Something is in the target and not in the snapshot.
    Extra(Extra),
}

/// Something in the target that is not in the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    /// Which.
    pub path: PathBuf,
    /// It is a folder.
    pub is_folder: bool,
    /// Why it stays; none: it was removed, or would be.
    pub left: Option<WhyLeft>,
}

/// Why something stays that is not in the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyLeft {
    /// A rule of the config or of an ignore file matches it.
    #[error("the rules of the backup leave it out")]
    Rules,
    /// It was there, but could not be read.
    #[error("it could not be read when the snapshot was made")]
    Unread,
    /// It is a mount point, or was one when the snapshot was made.
    #[error("another file system is mounted there")]
    OtherFileSystem,
    /// It is in a folder with a valid `CACHEDIR.TAG`.
    #[error("it is in a folder that is tagged as a cache")]
    Cache,
    /// Keys, state or shares.
    #[error("gridbackup keeps its own state or shares there")]
    Ours,
    /// What the scan left out is not known in full.
    #[error("what the backup leaves out there is not known")]
    Unknown,
}

/// A restore failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The catalog failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// This device holds no key to read with.
    #[error(transparent)]
    CannotRead(#[from] proto::keys::CannotRead),
    /// The path is not in the snapshot.
    #[error("`{path}` is not in this snapshot")]
    NoSuchPath {
        /// As asked.
        path: String,
    },
    /// The patterns leave nothing.
    #[error("Nothing in this snapshot matches {patterns}")]
    NothingMatches {
        /// As asked.
        patterns: String,
    },
    /// A file's content is not on the grid yet.
    #[error("`{path}` was not uploaded yet when this was asked")]
    Waiting {
        /// Which.
        path: String,
    },
    /// Too few shares of a pack can be had.
    #[error("Not enough shares reachable: {have} of {need} for a pack; not reachable: {missing}")]
    TooFewShares {
        /// Good shares had.
        have: usize,
        /// Shares needed.
        need: usize,
        /// Names of peers that hold the others.
        missing: String,
    },
    /// A folder, pipe or device has no content to show.
    #[error("`{path}` has no content: it is no file")]
    NoContent {
        /// As asked.
        path: String,
    },
    /// The target cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    Target {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Metadata on the grid is damaged.
    #[error("{what} on the grid is damaged: {reason}")]
    Damaged {
        /// What.
        what: String,
        /// Why.
        reason: String,
    },
    /// An include or exclude pattern cannot be parsed.
    #[error("A pattern cannot be used: {reason}")]
    Pattern {
        /// What is wrong with which.
        reason: String,
    },
    /// The runtime was shut down meanwhile.
    #[error("The restore was stopped; start it again to go on")]
    Stopped,
}

impl From<tokio::task::JoinError> for RestoreError {
    fn from(error: tokio::task::JoinError) -> Self {
        match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Self::Stopped,
        }
    }
}

/// How far a restore is.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoreProgress {
    /// Files done, and in all.
    pub files: (u64, u64),
    /// Bytes done, and in all.
    pub bytes: (u64, u64),
}

impl Reader {
    /// Restores. Blocking: run it on its own thread. Once `tell` says `Break`, what was begun is finished and the rest left
    /// for another time (`Stopped`).
    pub fn restore(
        &self,
        options: &RestoreOptions,
        tell: &(dyn Fn(RestoreEvent) -> ControlFlow<()> + Sync),
    ) -> Result<RestoreSummary, RestoreError> {
        run::restore(self, options, tell)
    }

    /// Writes everything at and below `path` (none: everything) into an archive. Blocking.
    pub fn export(
        &self,
        snapshot: u64,
        path: Option<&[u8]>,
        archive: &mut dyn crate::archive::Archive,
    ) -> Result<Exported, RestoreError> {
        export::export(self, snapshot, path, archive)
    }

    /// Writes a file's content to `out`; returns its length. Blocking.
    pub fn cat(&self, snapshot: u64, path: &[u8], out: &mut dyn std::io::Write) -> Result<u64, RestoreError> {
        cat::cat(self, snapshot, path, out)
    }
}

#[cfg(test)]
mod tests;
