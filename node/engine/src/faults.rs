//! What goes on while config.toml or the catalog cannot be used: friends are served, what only reads is answered as far as it
//! can be, and the rest says what to do. A daemon goes back to work when it can.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::failure::{Exit, Failure};
use api::output::Sink;
use api::request::Request;
use api::request::verb::Needs;
use database::{Db, DbError};
use proto::keys::power;
use upload_queue::queue::Queue;
use upload_queue::space::Disk;

use crate::config::{Config, last_good};
use crate::home::Home;
use crate::{DaemonOptions, Engine, Mode};

/// How often a daemon looks whether config.toml was corrected, or its disk has room again. Chosen: a person who corrects it sees
/// it at once, and it costs a look at one small file.
const LOOK: Duration = Duration::from_secs(2);
/// With so much free the catalog can be opened to be written. Chosen: its journal's index and some pages, many times over.
const FREE_BYTES_MIN: u64 = 8 << 20;

/// Why a daemon works without a catalog of its own.
#[derive(Clone, Debug)]
pub(super) enum CatalogFault {
    /// It is damaged or missing: an empty one stands in for it, which knows of nothing.
    Unusable(Failure),
    /// There is no room on its disk: it can be read.
    OnlyRead(Failure),
}

impl Engine {
    /// Opens a locked home for the daemon: also one whose catalog cannot be used, to serve friends.
    pub async fn open_to_serve(home: Home, options: DaemonOptions) -> Result<Self, Failure> {
        let path = home.paths.catalog();
        let weights = home.config.priority.clone().unwrap_or_default();
        let opened = Db::sweep_scratch(home.paths.state_dir()).and_then(|()| {
            let db = backup::catalog::open_existing(&path)?;
            // Reads and writes a little of it.
            Queue::open(db.clone(), weights)?;
            Ok(db)
        });
        let error = match opened {
            Ok(db) => return Self::open_with(home, Mode::Daemon(options), db, None).await,
            Err(error) => error,
        };
        let is_refused = matches!(error, DbError::Sqlite(_) | DbError::Io { .. } | DbError::NotSynced);
        let readable = is_refused.then(|| backup::catalog::open_to_read(&path).ok()).flatten();
        let failure = Failure::from(error);
        let (db, fault) = match readable {
            Some(db) => (db, CatalogFault::OnlyRead(no_room(failure, &home))),
            None => {
                let hint = "stop this daemon, move catalog.db away if it is there, run `gridbackup recover` and start again: it is \
                            rebuilt from what peers hold, or made empty if they hold no backups of this account";
                (backup::catalog::stand_in()?, CatalogFault::Unusable(failure.hint(hint)))
            }
        };
        let (CatalogFault::OnlyRead(said) | CatalogFault::Unusable(said)) = &fault;
        tracing::error!("{said}. Until then this node only serves its friends");
        Self::open_with(home, Mode::Daemon(options), db, Some(fault)).await
    }

    /// Why config.toml cannot be used, if so.
    pub(super) fn config_fault(&self) -> Option<Failure> {
        let fault = self.0.config_fault.lock();
        fault.expect("no panic while the fault is locked").clone()
    }

    /// Nothing is backed up now, and nothing looked after that a catalog says.
    pub(super) fn only_serves(&self) -> bool {
        self.0.catalog_fault.is_some()
    }

    /// From now on this is what config.toml says.
    pub(super) fn set_config(&self, config: Config) {
        let paths = &self.0.home.paths;
        last_good::keep(&paths.config(), &paths.last_config());
        *self.0.config.write().expect("no panic while the config is locked") = config;
        let mut fault = self.0.config_fault.lock().expect("no panic while the fault is locked");
        let was_faulty = fault.take().is_some();
        drop(fault);
        self.refresh_peers();
        self.set_bandwidth();
        if was_faulty {
            self.0.back_up_now.notify_one();
        }
    }

    /// Refuses what cannot be done while config or catalog cannot be used. What config.toml alone is needed for finds out by itself.
    pub(super) fn refuse_at_fault(&self, request: &Request) -> Result<(), Failure> {
        let how = request.verb().how;
        if matches!(how.needs, Needs::Process | Needs::Roster) {
            return Ok(());
        }
        match &self.0.catalog_fault {
            Some(CatalogFault::Unusable(fault)) if how.needs == Needs::Catalog => return Err(fault.clone()),
            Some(CatalogFault::OnlyRead(fault)) if !how.only_reads() => return Err(fault.clone()),
            _ => {}
        }
        // A check writes down what it finds, and does nothing by the config.
        let is_by_config = how.needs == Needs::Catalog && !how.only_reads() && !matches!(request, Request::Check(_));
        match self.config_fault().filter(|_| is_by_config) {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    /// Refuses what takes a power that this machine does not have: said at once, not file by file.
    pub(super) fn refuse_without_power(&self, needed: u8) -> Result<(), Failure> {
        if self.0.home.cert.powers & needed == needed {
            return Ok(());
        }
        let text = match needed {
            power::READ => "it holds no key to read with",
            _ => "it gives nothing up and takes nothing back",
        };
        Err(Failure::new(Exit::Failed, format!("This machine may only put: {text}"))
            .hint("`gridbackup device ls`, on another machine of the account, shows which may"))
    }

    /// Says when config.toml cannot be used any more, and takes a corrected one into force. Until it is dropped.
    pub(super) async fn mend_config_for_ever(&self, sink: &Sink) {
        let paths = &self.0.home.paths;
        let mut was_said = false;
        loop {
            match last_good::usable(&paths.config(), &paths.last_config()) {
                Err(fault) if !was_said => {
                    self.tell("config_damaged", fault.to_string(), sink).await;
                    was_said = true;
                    let mut known = self.0.config_fault.lock().expect("no panic while the fault is locked");
                    *known = Some(fault);
                }
                Ok(file) if self.config_fault().is_some() => {
                    self.set_config(file.config().clone());
                    let text = format!("{} can be used again", paths.config().display());
                    tracing::warn!("{text}");
                    self.tell("config_mended", text, sink).await;
                    was_said = false;
                }
                _ => {}
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends when the disk of a catalog that can only be read has room again.
    pub(super) async fn room_again(&self) {
        if !matches!(self.0.catalog_fault, Some(CatalogFault::OnlyRead(_))) {
            return std::future::pending().await;
        }
        let home = self.0.home.paths.state_dir();
        while is_full(home) {
            tokio::time::sleep(LOOK).await;
        }
        tracing::warn!("There is room on the disk again: this node starts anew");
        self.0.starts_anew.store(true, Ordering::Relaxed);
    }

    /// Whether the daemon ended to be started again: what is open for reading cannot become writable.
    pub fn starts_anew(&self) -> bool {
        self.0.starts_anew.load(Ordering::Relaxed)
    }
}

fn no_room(failure: Failure, home: &Home) -> Failure {
    let mut said = Failure::new(
        failure.exit,
        format!("Nothing can be written to {}", home.paths.state_dir().display()),
    )
    .hint("make room on its disk; a daemon goes on by itself then");
    said.causes.push(failure.error);
    said.causes.extend(failure.causes);
    said
}

/// Whether so little room is left in a home that nothing can be recorded there.
pub(super) fn is_full(home: &Path) -> bool {
    Disk::of(home).is_ok_and(|disk| disk.free_bytes < FREE_BYTES_MIN)
}
