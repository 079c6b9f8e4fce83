//! From chunks to packs on the grid and a new head: compress, pack, seal, deliver, post, settle.
//!
//! Whoever has chunks brings them to a `Run`: `prepare` from files, `repack` from old packs. No file is opened here, and
//! nothing of where chunks come from is known. All under one cap on bytes in memory, whatever the data.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use database::{Db, DbError};
use ed25519_dalek::SigningKey;
use proto::head::HeadError;
use proto::keys::{AccountKeys, DeviceCert};
use proto::section::SectionError;
use proto::share_store::StoreError;
use tokio::runtime::Handle;
use upload_queue::queue::Queue;
use upload_queue::uploader::{DrainReport, UploadError, Uploader};

pub(crate) mod run;

pub(crate) mod budget;
pub(crate) mod compress;
pub(crate) mod in_flight;
pub(crate) mod packer;

mod commit;
mod seal;
pub(crate) mod sealing;

mod checkpoint;
pub mod disks;
mod drain;
pub mod heads;
mod metadata;
mod outbox;
mod settle;

pub mod repack;

/// Everything the write side works with.
#[derive(Clone)]
pub struct Writer {
    /// The catalog.
    pub db: Db,
    /// The queue.
    pub queue: Queue,
    /// The way out.
    pub uploader: Uploader,
    /// The account's keys.
    pub keys: Arc<AccountKeys>,
    /// The device's key, which signs manifests and heads.
    pub device: SigningKey,
    /// The device's certificate.
    pub cert: DeviceCert,
    /// Peers, for heads.
    pub peers: upload_queue::peers::PeerSet,
    /// Held by whoever signs or puts a head: one of all writers of a catalog.
    pub heads: heads::HeadLock,
    /// The runtime that the uploader lives in; stages are plain threads and block on it.
    pub runtime: Handle,
    /// What the owner set, as TOML, to be posted with the next root; `None`: what the last one says stays.
    pub settings: Option<String>,
    /// Limits.
    pub limits: PrepareLimits,
}

/// Limits of the write side.
#[derive(Clone, Debug)]
pub struct PrepareLimits {
    /// Bytes of file content and open packs in memory at once.
    pub bytes_in_flight_max: usize,
    /// Threads that read and compress.
    pub threads: usize,
    /// zstd level.
    pub zstd_level: i32,
    /// Seconds between two heads while there is something new to post.
    pub post_interval_secs: u64,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct WriteSummary {
    /// Bytes of files read.
    pub bytes_read: u64,
    /// Bytes of sealed content before redundancy (data and metadata packs' used plaintext).
    pub bytes_added: u64,
    /// Packs made.
    pub packs: u64,
    /// Files that could not be read, with the reason; the rest went on.
    pub failed: Vec<(PathBuf, String)>,
    /// Files that somebody deleted before they were read: they are in no snapshot.
    pub gone: u64,
    /// What could not be delivered.
    pub undelivered: DrainReport,
    /// Peers that have the newest head.
    pub heads: usize,
    /// Names of the peers that did not take it, with what they said.
    pub heads_refused: Vec<(String, StoreError)>,
}

impl WriteSummary {
    /// This round and the next one of a run, as one.
    pub(crate) fn and_then(mut self, next: Self) -> Self {
        self.failed.extend(next.failed);
        Self {
            bytes_read: self.bytes_read + next.bytes_read,
            bytes_added: self.bytes_added + next.bytes_added,
            packs: self.packs + next.packs,
            gone: self.gone + next.gone,
            failed: self.failed,
            ..next
        }
    }
}

/// The write side failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The catalog failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The uploader failed.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// The system gave no randomness.
    #[error("The system gave no random bytes: {0}")]
    Random(String),
    /// zstd could not be set up.
    #[error("The compressor could not be set up: {0}")]
    Zstd(std::io::Error),
    /// A part of the write side came to an end before its work did.
    #[error("A thread of the backup failed: {0}; run it again, and report this")]
    Thread(String),
    /// There is nowhere to put shares.
    #[error("No peer to send to; add one with `gridbackup peer add`")]
    NoPeers,
    /// What is to be posted is over a limit of its format.
    #[error("The backup cannot be posted: {0}")]
    Section(#[from] SectionError),
    /// The head cannot be written.
    #[error("The backup cannot be posted: {0}")]
    Head(#[from] HeadError),
    /// Peers hold heads of this device that this catalog knows nothing of.
    #[error("This home is older than what peers hold of this machine: `gridbackup run --once` catches up")]
    Overtaken,
    /// A version of the catalog that does not fit together.
    #[error("The catalog does not know {what}; move catalog.db away and run `gridbackup recover`")]
    Missing {
        /// What is missing.
        what: String,
    },
}

/// What happens while writing.
#[derive(Clone, Debug)]
pub enum WriteEvent {
    /// A file's content was read and sealed.
    FileDone {
        /// Its path.
        path: PathBuf,
        /// Bytes by length.
        bytes: u64,
    },
    /// A file could not be read.
    FileFailed {
        /// Its path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Bytes of file content read so far.
    BytesRead(u64),
    /// A new head is on this many peers.
    Posted {
        /// Head sequence number.
        seq: u64,
        /// Peers that acknowledged it.
        peers: usize,
    },
}

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
