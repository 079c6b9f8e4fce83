//! The engine: an open home, and what is asked of it. The command line and the API both end here.
//!
//! One engine owns a home's state; several requests may run at once, but only one backup or restore.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};

use api::failure::Failure;
use backup::writer::heads::HeadLock;
use database::{Db, DbError};
use friendnet::handle::NetHandle;
use proto::id::DeviceId;
use stores::silence::Silence;
use tokio::sync::{Mutex, Notify, OnceCell};
use upload_queue::bandwidth::Bandwidth;
use upload_queue::peers::PeerSet;
use upload_queue::queue::Queue;
use upload_queue::uploader::Uploader;

use crate::bandwidth::Limits;
use crate::config::Config;
use crate::faults::CatalogFault;
use crate::home::Home;

mod alarms;
mod audit;
pub mod bandwidth;
mod buckets;
mod care;
mod check;
pub mod config;
mod costs;
mod daemon;
mod diff;
mod disk;
mod doctor;
mod dump;
mod execute;
mod facts;
mod failures;
mod faults;
mod file_status;
mod find;
mod folders;
mod friends;
mod heads;
mod help;
pub mod home;
mod keeping;
mod kind;
mod known;
mod listen;
mod listing;
mod look;
mod lost;
mod marks;
mod membership;
mod mount;
mod names;
pub mod onlook;
mod outlook;
mod peer_changes;
mod peers;
mod policy;
mod prices;
mod reasons;
mod recover;
mod remember;
mod removal;
mod repack;
mod repair;
mod restore;
mod retention;
mod rosters;
mod run;
mod settings;
mod snapshots;
mod stats;
mod status;
mod steward;
mod upload_log;
mod upload_progress;
mod verdict;
mod verify;
mod watch;
mod whole;

pub use execute::no_daemon;

/// What the engine is opened for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One request, then exit.
    Command(CommandOptions),
    /// The daemon: serve until told to stop.
    Daemon(DaemonOptions),
}

/// How a command runs that no daemon executes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandOptions {
    /// Addresses to listen on instead of the config's.
    pub listen: Vec<String>,
    /// Go before the config's.
    pub limits: Limits,
}

/// How the daemon runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonOptions {
    /// Addresses to listen on instead of the config's.
    pub listen: Vec<String>,
    /// Go before the config's.
    pub limits: Limits,
    /// Only store for friends: no scanning, no uploads.
    pub store_only: bool,
    /// Where the API listens, as the `ready` message says it.
    pub api: String,
}

/// An open home; clones share it.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    home: Home,
    mode: Mode,
    config: RwLock<Config>,
    /// Why config.toml cannot be used; then the config is an earlier one.
    config_fault: std::sync::Mutex<Option<Failure>>,
    /// Why the catalog cannot be used; then `db` is none that may be written.
    catalog_fault: Option<CatalogFault>,
    db: Db,
    queue: Queue,
    peers: PeerSet,
    silence: Silence,
    buckets: buckets::Buckets,
    /// Peers of which it was said that they are another one's folder.
    said_twins: std::sync::Mutex<BTreeSet<String>>,
    net: OnceCell<NetHandle>,
    uploader: OnceCell<Uploader>,
    /// This process has compared its catalog with the heads that peers hold. Held while the catalog may be replaced.
    heads_met: Mutex<bool>,
    bandwidth: Bandwidth,
    /// Held by the backup or restore that runs: the two would fight for memory and bandwidth, two backups for the queue.
    busy: Mutex<()>,
    /// Of all that signs and puts heads: a backup, and commits of disks beside it.
    head_lock: HeadLock,
    /// Disks that are served by this process.
    disks: disk::OpenDisks,
    /// Held while shares are looked after: one round at a time.
    caring: Mutex<care::Caring>,
    /// Told whenever a peer took a share, and when a run ended.
    delivered: tokio::sync::Notify,
    /// A peer is one no more: what it held is to be built anew at once.
    repair_now: Notify,
    /// Content was lost at the peers, and its files are still here.
    back_up_now: Notify,
    /// The daemon ends to be started again.
    starts_anew: AtomicBool,
}

impl Engine {
    /// Opens a locked home. One without a catalog is refused, since an empty one would make its history disappear.
    pub async fn open(home: Home, mode: Mode) -> Result<Self, Failure> {
        Db::sweep_scratch(home.paths.state_dir())?;
        let db = backup::catalog::open_existing(&home.paths.catalog())?;
        Self::open_with(home, mode, db, None).await
    }

    /// Opens a locked home to recover its catalog, which may be missing.
    pub async fn open_to_recover(home: Home, mode: Mode) -> Result<Self, Failure> {
        if home.paths.catalog().exists() {
            return Self::open(home, mode).await;
        }
        Db::sweep_scratch(home.paths.state_dir())?;
        let db = backup::catalog::scratch(home.paths.state_dir())?;
        Self::open_with(home, mode, db, None).await
    }

    /// Opens a locked home for what needs only the roster: a catalog that cannot be used is as good as none.
    pub async fn open_for_roster(home: Home, options: CommandOptions) -> Result<Self, Failure> {
        let path = home.paths.catalog();
        let opened = match home.is_to_read() {
            true => Err(DbError::ReadOnly),
            false => backup::catalog::open_existing(&path),
        };
        let opened = opened.or_else(|_| backup::catalog::open_to_read(&path));
        let db = opened.or_else(|_| backup::catalog::stand_in())?;
        Self::open_with(home, Mode::Command(options), db, None).await
    }

    /// Opens a locked home for a command that only reads: also one that cannot be written.
    pub async fn open_to_read(home: Home, options: CommandOptions) -> Result<Self, Failure> {
        let path = home.paths.catalog();
        let opened = match home.is_to_read() {
            true => Err(DbError::ReadOnly),
            false => backup::catalog::open_existing(&path),
        };
        let db = match opened {
            Err(DbError::ReadOnly) => backup::catalog::open_to_read(&path)?,
            Err(error @ (DbError::Sqlite(_) | DbError::Io { .. })) if path.exists() => {
                let db = backup::catalog::open_to_read(&path).map_err(|_| error)?;
                tracing::warn!(
                    "{} cannot be written, and is only read: is its disk full?",
                    path.display()
                );
                db
            }
            opened => opened?,
        };
        Self::open_with(home, Mode::Command(options), db, None).await
    }

    async fn open_with(home: Home, mode: Mode, db: Db, catalog_fault: Option<CatalogFault>) -> Result<Self, Failure> {
        let weights = home.config.priority.clone().unwrap_or_default();
        let queue = Queue::open(db.clone(), weights)?;
        let inner = Inner {
            config: RwLock::new(home.config.clone()),
            config_fault: std::sync::Mutex::new(home.config_fault.clone()),
            catalog_fault,
            silence: Silence::load(home.paths.silent()),
            home,
            mode,
            db,
            queue,
            peers: PeerSet::default(),
            buckets: buckets::Buckets::default(),
            said_twins: std::sync::Mutex::default(),
            net: OnceCell::new(),
            uploader: OnceCell::new(),
            heads_met: Mutex::default(),
            bandwidth: Bandwidth::default(),
            busy: Mutex::new(()),
            head_lock: HeadLock::default(),
            disks: disk::OpenDisks::default(),
            caring: Mutex::default(),
            delivered: tokio::sync::Notify::new(),
            repair_now: Notify::new(),
            back_up_now: Notify::new(),
            starts_anew: AtomicBool::new(false),
        };
        let engine = Self(Arc::new(inner));
        engine.refresh_peers();
        engine.set_bandwidth();
        Ok(engine)
    }

    fn config(&self) -> Config {
        self.0
            .config
            .read()
            .expect("no panic while the config is locked")
            .clone()
    }

    fn device(&self) -> DeviceId {
        self.0.home.cert.device
    }
}
