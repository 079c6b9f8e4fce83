//! Delivering packs: local peers at once, the others through the spool, with bounded memory, retries and re-placement.

use std::path::PathBuf;

use proto::cap_index::PackRecord;
use proto::id::ShareId;
use proto::manifest::Manifest;
use proto::share::Share;
use proto::share_store::StoreError;
use rusqlite::Transaction;

use crate::db::{Db, DbError};
use crate::packs::{PackRow, Purpose};
use crate::peers::{PeerKey, PeerSet};

/// Limits and policy of an uploader.
#[derive(Clone, Debug)]
pub struct UploaderConfig {
    /// Where undelivered shares wait.
    pub spool: PathBuf,
    /// Most bytes in the spool: `deliver` waits beyond it.
    pub spool_bytes_max: u64,
    /// Puts in flight to one peer.
    pub puts_per_peer: usize,
    /// Friends that may vanish.
    pub tolerate: u8,
}

/// A sealed pack on its way out.
pub struct OutgoingPack {
    /// All it takes to open it.
    pub record: PackRecord,
    /// Its public manifest, as in `record`.
    pub manifest: Manifest,
    /// Its shares, in stored form.
    pub shares: Vec<(ShareId, Share)>,
    /// What it carries.
    pub purpose: Purpose,
}

/// What happens while delivering. Sent without waiting: a slow listener loses events, never a share.
#[derive(Clone, Debug)]
pub enum UploadEvent {
    /// A share arrived; `bytes` really travelled.
    Delivered {
        /// Where.
        peer: PeerKey,
        /// Bytes sent.
        bytes: u64,
    },
    /// A pack now has as many holders as the policy asks for.
    PackSafe {
        /// Which.
        pack: PackRow,
    },
    /// A peer did not take a share; the share is placed elsewhere or tried again.
    PeerFailed {
        /// Which.
        peer: PeerKey,
        /// Why.
        error: StoreError,
    },
    /// A spooled share was damaged or missing; its pack can only be completed by repair.
    SpoolLost {
        /// Which pack.
        pack: PackRow,
        /// Which share.
        share: ShareId,
    },
}

/// Delivering failed on this machine (a failing peer is not an error here).
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The spool failed: full or unwritable disk.
    #[error("The spool {path} cannot be written: {source}")]
    Spool {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What is still undelivered when nothing more can be done now.
#[derive(Clone, Debug, Default)]
pub struct DrainReport {
    /// Packs with fewer holders than the policy asks for.
    pub packs_unsafe: u64,
    /// Shares still in the spool.
    pub shares_waiting: u64,
    /// The last error of each peer that failed.
    pub peers_failed: Vec<(PeerKey, StoreError)>,
    /// Bytes sent since the uploader was made.
    pub bytes_sent: u64,
}

/// The uploader; clones share it. Must be made inside a tokio runtime.
#[derive(Clone)]
pub struct Uploader {}

impl Uploader {
    /// Starts it, and goes on with what an earlier process left in the spool.
    pub fn start(
        _db: Db,
        _peers: PeerSet,
        _config: UploaderConfig,
        _events: tokio::sync::mpsc::Sender<UploadEvent>,
    ) -> Result<Self, UploadError> {
        todo!()
    }
    /// The code (k, n) that a pack made now should have.
    pub fn code(&self) -> (u8, u8) {
        todo!()
    }
    /// Plans the shares onto peers, puts local ones, spools the others, then records pack and plan and runs `with_pack`,
    /// all in one transaction. When it returns, the pack survives a crash of this process. Sending goes on behind it.
    pub async fn deliver<F>(&self, _pack: OutgoingPack, _with_pack: F) -> Result<PackRow, UploadError>
    where
        F: FnOnce(&Transaction<'_>, PackRow) -> Result<(), DbError> + Send + 'static,
    {
        todo!()
    }
    /// Waits until every spooled share is delivered or no peer that could take it answers; metadata goes first.
    pub async fn drain(&self) -> Result<DrainReport, UploadError> {
        todo!()
    }
    /// Waits until `pack` is safe (true), or nothing more can be done for it now (false).
    pub async fn settled(&self, _pack: PackRow) -> Result<bool, UploadError> {
        todo!()
    }
    /// Tries peers again that were given up, and plans shares without a peer anew: called when a peer comes or returns.
    pub fn wake(&self) {
        todo!()
    }
    /// Bytes sent since it was made.
    pub fn bytes_sent(&self) -> u64 {
        todo!()
    }
}
