//! Delivering packs: local peers at once, the others through the spool, with bounded memory, retries and re-placement.
//!
//! `lines` remembers what waits for whom, `held` and `pass` what a steward brings, `outgoing` brings a new pack into the
//! database, `room` finds room for it in the spool, `lane` sends, `record` writes down what arrived, `supervise` follows the
//! set of peers. The spool and the database are the truth: killed at any point, the next start goes on with what they say, and
//! sends at most what was in flight a second time.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use database::{Db, DbError};
use proto::cap_index::PackRecord;
use proto::id::ShareId;
use proto::manifest::Manifest;
use proto::share::Share;
use proto::share_store::StoreError;
use rusqlite::Transaction;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::packs;
use crate::packs::{PackRow, Purpose};
use crate::peers::{PeerKey, PeerSet};
use crate::planner::{Uptime, plan_code};
use crate::space::MinFree;
use crate::spool::SpoolError;
use crate::steward::StewardPeer;
use crate::uploader::lines::Mark;
use crate::uploader::shared::{Shared, blocking, vital};
use crate::uploader::waiting::Waiting;

mod held;
mod lane;
mod line;
mod lines;
mod outgoing;
mod pass;
mod record;
mod rehome;
mod replan;
mod room;
mod shared;
mod supervise;
mod verify;
mod waiting;

/// Limits and policy of an uploader.
#[derive(Clone, Debug)]
pub struct UploaderConfig {
    /// Where undelivered shares wait.
    pub spool: PathBuf,
    /// Most bytes in the spool: `deliver` waits beyond it.
    pub spool_bytes_max: u64,
    /// What stays free of its disk.
    pub min_free: MinFree,
    /// Puts in flight to one peer.
    pub puts_per_peer: usize,
    /// Shares of a pack that may be lost: friends that may vanish, more where one peer has several shares.
    pub tolerate: u8,
    /// Who brings shares to the others, if anybody does.
    pub steward: Option<StewardPeer>,
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

/// A share that was built anew, and the peer it is to go to.
pub struct Rebuilt {
    /// Its number in the manifest.
    pub index: u8,
    /// Its id.
    pub id: ShareId,
    /// Its stored form.
    pub share: Share,
    /// Where it goes.
    pub to: PeerKey,
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
    /// The spool was full of shares for peers that do not take them, and these gave way to packs that others take. They are
    /// owed until repair has built them anew.
    GaveWay {
        /// Whom they were for, if anybody.
        peer: Option<PeerKey>,
        /// How many.
        shares: u64,
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
    /// The spool has reached its limit, with shares for peers that do not take them now, and the others are too few.
    #[error(
        "The spool {path} is full: {} MiB wait for peers that do not take them now; it goes on when they do, or raise `spool_max`",
        bytes_max >> 20
    )]
    Stalled {
        /// The spool.
        path: String,
        /// Its limit.
        bytes_max: u64,
    },
    /// The spool's disk has no room for another pack, and nothing in the spool can go out now.
    #[error(
        "The disk of the spool {path} has {} MiB left, and {} MiB are needed for the next pack: make room on it, then run again",
        free_bytes >> 20, needed_bytes.div_ceil(1 << 20)
    )]
    DiskFull {
        /// The spool.
        path: String,
        /// Bytes left on the disk.
        free_bytes: u64,
        /// Bytes needed.
        needed_bytes: u64,
    },
    /// The uploader, or its runtime, was shut down meanwhile.
    #[error("The uploader was shut down")]
    Stopped,
}

impl From<SpoolError> for UploadError {
    fn from(error: SpoolError) -> Self {
        Self::Spool {
            path: error.path.display().to_string(),
            source: error.source,
        }
    }
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
    /// Shares that gave way in a full spool since the uploader was made.
    pub gave_way: u64,
}

/// What has been acknowledged, and what is on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes of shares that peers have acknowledged since the uploader was made, in stored form.
    pub delivered_bytes: u64,
    /// Bytes of shares on their way to peers that take them; what waits for absent ones is not among them.
    pub waiting_bytes: u64,
    /// The peer that most of them are for, and how many.
    pub slowest: Option<(PeerKey, u64)>,
}

/// How often those who wait look again although nothing was reported: peers are given up by time, too.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The uploader; clones share it. Must be made inside a tokio runtime. With the last clone the sending stops.
#[derive(Clone)]
pub struct Uploader {
    shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

/// Background tasks, stopped when dropped.
struct Tasks(Vec<AbortHandle>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Uploader {
    /// Starts it, and goes on with what an earlier process left in the spool.
    pub fn start(
        db: Db,
        peers: PeerSet,
        config: UploaderConfig,
        events: tokio::sync::mpsc::Sender<UploadEvent>,
    ) -> Result<Self, UploadError> {
        let (shared, deliveries) = Shared::open(db, peers, config, events)?;
        let shared = Arc::new(shared);
        let mut tasks = vec![
            tokio::spawn(vital(shared.clone(), record::record(shared.clone(), deliveries))).abort_handle(),
            tokio::spawn(vital(shared.clone(), supervise::supervise(shared.clone()))).abort_handle(),
        ];
        let pass = |_| tokio::spawn(vital(shared.clone(), pass::pass(shared.clone()))).abort_handle();
        tasks.extend((0..pass::ASKING_MAX).map(pass));
        Ok(Self {
            shared,
            _tasks: Arc::new(Tasks(tasks)),
        })
    }

    /// The code (k, n) that a pack made now should have.
    pub fn code(&self) -> (u8, u8) {
        let peers = self.shared.peers.all();
        let tolerate = self.shared.tolerate();
        let domains = self.shared.lines().domains(&peers, tolerate, Instant::now());
        plan_code(tolerate, &domains)
    }

    /// Sets what was measured of peers, for the codes of packs made from now on.
    pub fn set_uptimes(&self, uptimes: HashMap<PeerKey, Uptime>) {
        self.shared.lines().set_uptimes(uptimes);
    }

    /// Shares of a pack that may be lost, as configured.
    pub fn tolerate(&self) -> u8 {
        self.shared.tolerate()
    }

    /// Changes how many that are, for what is sent and counted from now on.
    pub fn set_tolerate(&self, tolerate: u8) {
        self.shared.set_tolerate(tolerate);
    }

    /// Plans the shares onto peers, puts local ones, spools the others, then records pack and plan and runs `with_pack`,
    /// all in one transaction. When it returns, the pack survives a crash of this process. Sending goes on behind it.
    ///
    /// Waits while the spool is over its limit, unless the pack carries metadata. Shares for peers that do not take them give
    /// way if the others are enough; fails as `Stalled` if they are not. May be dropped: what was begun is then finished all the same.
    pub async fn deliver<F>(&self, pack: OutgoingPack, with_pack: F) -> Result<PackRow, UploadError>
    where
        F: FnOnce(&Transaction<'_>, PackRow) -> Result<(), DbError> + Send + 'static,
    {
        let task = tokio::spawn(outgoing::deliver(self.shared.clone(), pack, with_pack));
        shared::joined(task.await)?
    }

    /// Takes shares of a known pack that were built anew: they go through the spool to their peers like those of a new
    /// pack; whoever held them before no longer counts. Shares in the spool already are left as they are. Returns how many
    /// were taken. May be dropped: what was begun is then finished all the same.
    pub async fn rehome(&self, pack: PackRow, shares: Vec<Rebuilt>) -> Result<usize, UploadError> {
        let task = tokio::spawn(rehome::rehome(self.shared.clone(), pack, shares));
        shared::joined(task.await)?
    }

    /// Names the steward, or that there is none; what another one was to bring goes to its peers directly.
    pub fn set_steward(&self, steward: Option<StewardPeer>) {
        {
            let mut lines = self.shared.lines();
            for (peer, share) in lines.held.set_steward(steward) {
                lines.add(Some(&peer), share, Instant::now());
            }
        }
        self.shared.announce();
    }

    /// Peers that are given nothing new: they are lost, or were proved not to keep what they took. What waits for them goes to others;
    /// otherwise content that more friends took with them than may be lost would wait for those very friends.
    pub fn shun(&self, peers: HashSet<PeerKey>) {
        if self.shared.lines().shun(peers) {
            self.shared.woken.notify_one(); // what had no place may have one
        }
        self.shared.announce();
    }

    /// Waits until every spooled share is delivered or no peer that could take it answers; metadata goes first. Relies on
    /// stores that give up by themselves: a put that never returns is waited for, for an hour. May be dropped.
    pub async fn drain(&self) -> Result<DrainReport, UploadError> {
        self.quiet(|_| true).await?;
        let shared = self.shared.clone();
        let (health, shares_waiting) = blocking(move || {
            shared.db.read::<_, DbError>(|conn| {
                let health = packs::health(conn, shared.tolerate())?;
                Ok((health, packs::shares::spooled_count(conn)?))
            })
        })
        .await??;
        Ok(DrainReport {
            packs_unsafe: health.packs - health.safe,
            shares_waiting,
            peers_failed: self.shared.lines().errors(),
            bytes_sent: self.bytes_sent(),
            gave_way: self.shared.gave_way.load(Ordering::Relaxed),
        })
    }

    /// Waits until `pack` is safe (true), or nothing more can be done for it now (false).
    pub async fn settled(&self, pack: PackRow) -> Result<bool, UploadError> {
        let mark = self.begin_wait().await;
        loop {
            self.shared.go_on()?;
            // Looked at in this order: a share leaves its line only after it is recorded.
            let quiet = self
                .shared
                .lines()
                .is_quiet(&mark, |share| share.pack == pack, Instant::now());
            let shared = self.shared.clone();
            let safe = blocking(move || {
                let tolerate = shared.tolerate();
                shared
                    .db
                    .read::<_, DbError>(|conn| packs::is_safe(conn, pack, tolerate))
            })
            .await??;
            if safe || quiet {
                return Ok(safe);
            }
            self.shared.change(Some(Instant::now() + LOOK_AGAIN)).await;
        }
    }

    /// Gives all peers and all shares another chance, at once.
    async fn begin_wait(&self) -> Mark {
        self.shared.lines().forgive();
        replan::homeless(&self.shared).await;
        let mark = self.shared.lines().mark(Instant::now());
        self.shared.changed.notify_waiters();
        self.shared.woken.notify_one();
        mark
    }

    /// Waits until nothing more can be done for the shares that `which` selects.
    async fn quiet(&self, which: impl Fn(&Waiting) -> bool) -> Result<(), UploadError> {
        let mark = self.begin_wait().await;
        while !self.shared.lines().is_quiet(&mark, &which, Instant::now()) {
            self.shared.go_on()?;
            self.shared.change(Some(Instant::now() + LOOK_AGAIN)).await;
        }
        Ok(())
    }

    /// Tries peers again that were given up, and plans shares without a peer anew: called when a peer comes or returns.
    pub fn wake(&self) {
        self.shared.lines().wake();
        self.shared.changed.notify_waiters();
        self.shared.woken.notify_one();
    }

    /// How far sending is.
    pub fn sent(&self) -> Sent {
        let lines = self.shared.lines();
        let (waiting_bytes, slowest) = lines.under_way(Instant::now());
        Sent {
            delivered_bytes: self.shared.delivered_bytes.load(Ordering::Relaxed),
            waiting_bytes,
            slowest,
        }
    }

    /// Reads every share in the spool; those that are damaged are on no way any more. Returns how many that were.
    pub async fn verify_spool(&self) -> Result<u64, UploadError> {
        let shared = self.shared.clone();
        blocking(move || verify::all(&shared)).await?
    }

    /// Bytes sent since it was made.
    pub fn bytes_sent(&self) -> u64 {
        self.shared.bytes_sent.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
