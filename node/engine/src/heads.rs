//! This account's heads at the peers: is this home behind them, do peers hold the newest, which other machines are there.
//!
//! Before a process sends anything it looks whether peers hold newer heads of this machine than its catalog knows: then the home
//! was turned back, and the catalog is rebuilt from them. Otherwise what came in between would be lost without a word.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use api::clock;
use api::failure::{Exit, Failure};
use api::message::Problem;
use api::output::Sink;
use backup::catalog;
use backup::catalog::content::post;
use backup::catalog::heads::{OtherDevice, SeenHead};
use backup::catalog::trouble::{Kind, Met};
use backup::catalog::{content, heads, tree, trouble};
use backup::heads::{Looked, OpenHead, fault, look, note};
use backup::recover::{Aim, RecoverError, Recovered, Unreadable, is_readable, wanted_by};
use backup::restore::Reader;
use database::DbError;
use friendnet::roster::Roster;
use proto::id::PackId;
use proto::share_store::StoreError;
use proto::wire::word::AccountWord;
use rusqlite::Connection;
use tokio::sync::MutexGuard;
use upload_queue::peers::{PeerKey, PeerSet};

use crate::policy::tolerate;
use crate::{Engine, failures, kind};

/// How long a peer may take to say which heads it has, before a backup. Chosen: who is there answers in less than a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same where somebody waits for the answer itself.
const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// What a look at the heads came to.
#[derive(Clone, Debug, Default)]
pub(super) struct HeadsFound {
    /// Peers that should have the newest head of this machine, and answered.
    pub expected: u64,
    /// Those of them that have it.
    pub found: u64,
    /// What is wrong, by peer.
    pub faults: Vec<(String, String)>,
    /// Other machines of the account, with backups that this home does not know.
    pub others: Vec<OtherDevice>,
    /// The newest head of this machine itself that this home does not know.
    pub ahead: Option<SeenHead>,
}

impl Engine {
    /// Asks the peers for the account's heads, and notes what they have.
    pub(super) async fn look(&self, patience: Duration) -> Result<Vec<Looked>, Failure> {
        let looked = look(&self.0.peers.all(), &self.0.home.account, patience).await;
        self.0.db.write(|tx| note(tx, &looked))?;
        Ok(looked)
    }

    /// Asks buckets only where nobody else has a head of this machine: what is asked of them costs, and a head that they
    /// have alone is one that nobody else took.
    async fn look_before_sending(&self) -> Result<(), Failure> {
        let own = self.device();
        let peers = self.0.peers.all();
        let (buckets, others): (Vec<_>, Vec<_>) = peers.into_iter().partition(|peer| !kind::is_free_to_ask(peer));
        let mut looked = look(&others, &self.0.home.account, PATIENCE).await;
        let is_known = |looked: &Looked| looked.sound().any(|open| open.head.device() == own);
        if !looked.iter().any(is_known) {
            looked.extend(look(&buckets, &self.0.home.account, PATIENCE).await);
        }
        Ok(self.0.db.write(|tx| note(tx, &looked))?)
    }

    /// Makes sure that this home is not behind the heads that peers hold; if it is, it catches up.
    pub(super) async fn meet_heads(&self) -> Result<(), Failure> {
        self.compare_heads(&mut *self.0.heads_met.lock().await).await
    }

    /// The same, unless this process did so already. What comes back keeps others from replacing the catalog.
    pub(super) async fn meet_heads_once(&self) -> Result<MutexGuard<'_, bool>, Failure> {
        let mut met = self.0.heads_met.lock().await;
        if !*met {
            self.compare_heads(&mut met).await?;
        }
        Ok(met)
    }

    async fn compare_heads(&self, met: &mut bool) -> Result<(), Failure> {
        self.connect().await?;
        self.look_before_sending().await?;
        match self.ahead()? {
            Some(ahead) => self.catch_up(&ahead).await?,
            None => self.take_in_unread().await?,
        }
        *met = true;
        Ok(())
    }

    /// The newest head of this machine that a peer was seen to hold and that this home does not know.
    fn ahead(&self) -> Result<Option<SeenHead>, Failure> {
        let own = self.device();
        Ok(self.0.db.read(|conn| heads::ahead(conn, own))?.pop())
    }

    /// Takes in what a head leads to that could not be read when this catalog was recovered, if it can be by now.
    async fn take_in_unread(&self) -> Result<(), Failure> {
        let unread = self.0.db.read(heads::unread)?;
        if unread.is_empty() || self.0.uploader.get().is_some() {
            return Ok(());
        }
        let reader = self.reader().await?;
        for head in unread {
            let Ok(open) = OpenHead::open(&head, &self.0.home.account) else {
                continue;
            };
            // A copy of this home gave its numbers to other files: that does not change by trying again.
            let is_fork = |conn: &Connection| trouble::at(conn, Kind::Fork, &open.hash.0);
            if self.0.db.read(is_fork)?.is_some() {
                continue;
            }
            if is_readable(&reader, &open).await && self.unsent()? == 0 {
                let recovered = self
                    .rebuild(self.0.peers.clone(), &self.aim()?, &|_| {}, &|_| Ok(()))
                    .await?;
                if self.0.db.read(heads::taken)?.contains(&open.hash) {
                    tracing::warn!(
                        "The backup number {} of {}, which could not be read before, can be again: {} snapshots are known now",
                        open.head.seq,
                        open.head.cert.name,
                        recovered.snapshots
                    );
                } else {
                    let list = [(open.hash.0.to_vec(), "it cannot be merged".to_owned())];
                    let met = Met {
                        kind: Kind::Fork,
                        within: &[],
                        list: &list,
                        now_ns: clock::now_ns(),
                    };
                    self.0.db.write(|tx| trouble::replace(tx, &met))?;
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Snapshots and files that no peer has yet.
    pub(super) fn unsent(&self) -> Result<u64, Failure> {
        Ok(self.0.db.read(tree::unposted)?.len() as u64 + self.0.queue.counts()?.jobs)
    }

    async fn catch_up(&self, ahead: &SeenHead) -> Result<(), Failure> {
        if self.0.uploader.get().is_some() {
            return Err(restart(ahead));
        }
        let behind = behind(ahead);
        let aim = Aim {
            own_unreadable: Unreadable::Fail,
            ..self.aim()?
        };
        let rebuilt = self.rebuild(self.0.peers.clone(), &aim, &|_| {}, &|_| Ok(())).await;
        let recovered = rebuilt.map_err(|error| match error {
            Rebuilding::Recover(RecoverError::Read(error)) => {
                let failure = failures::read(error);
                Failure::new(failure.exit, format!("{behind}, and cannot read it now: {}", failure.error)).hint(
                    "try again when more peers are up, or go on from the newest that can be read with `gridbackup recover`",
                )
            }
            error => error.into(),
        })?;
        tracing::warn!("{behind}: caught up, {} snapshots are known now", recovered.snapshots);
        Ok(())
    }

    /// What recovery in this home is to go on from.
    pub(super) fn aim(&self) -> Result<Aim, Failure> {
        let posted = self.0.db.read(content::posted)?;
        let mut known = self.0.db.read(heads::unread)?;
        known.extend(posted.map(|posted| posted.head).filter(|head| !head.is_empty()));
        Ok(Aim {
            own: Some(self.device()),
            known,
            word: self.own_word(),
            ..Aim::default()
        })
    }

    /// What this account said of its devices, as far as this home has heard.
    fn own_word(&self) -> Option<AccountWord> {
        let roster = Roster::load(&self.0.home.paths.roster())?;
        roster.word(self.0.home.account.account_id()).cloned()
    }

    /// Rebuilds the catalog beside the one there is, which is replaced when that is done and `before` succeeded, or stays.
    pub(super) async fn rebuild(
        &self,
        peers: PeerSet,
        aim: &Aim,
        progress: &(dyn Fn(&str) + Send + Sync),
        before: &(dyn Fn(&Recovered) -> Result<(), Failure> + Send + Sync),
    ) -> Result<Recovered, Rebuilding> {
        let paths = &self.0.home.paths;
        let rebuilt = catalog::scratch(paths.state_dir()).map_err(Failure::from)?;
        let reader = Reader {
            db: rebuilt.clone(),
            peers,
            ..self.reader().await?
        };
        let recovered = backup::recover::recover(&reader, &self.0.home.account, aim, progress)
            .await
            .map_err(Rebuilding::Recover)?;
        before(&recovered)?;
        let (db, path) = (self.0.db.clone(), paths.catalog());
        let replacing = move || {
            if !path.exists() {
                catalog::install(&rebuilt, &path)?;
            }
            catalog::replace(&db, &rebuilt)
        };
        let replaced = tokio::task::spawn_blocking(replacing).await.map_err(failures::worker)?;
        replaced.map_err(Failure::from)?;
        Ok(recovered)
    }

    /// Which peers lack the newest head, and which other machines there are. A peer that never had it lacks nothing as long as
    /// enough others do; one that lost it does until it was put there again.
    pub(super) async fn check_heads(&self) -> Result<HeadsFound, Failure> {
        let had = self.0.db.read(|conn| match content::posted(conn)? {
            Some(posted) => post::holders(conn, &posted.hash),
            None => Ok(HashSet::new()),
        })?;
        let looked = self.look(PATIENCE_MAX).await?;
        let own = self.device();
        let found = self.0.db.read(|conn| {
            let mut found = HeadsFound {
                others: heads::others(conn, own, &|key| self.0.peers.get(key).is_some())?,
                ahead: heads::ahead(conn, own)?.pop(),
                ..HeadsFound::default()
            };
            if heads::newest_own(conn, own)?.is_none() {
                return Ok(found);
            }
            let is_kept = post::is_acknowledged(conn)?;
            for answered in looked.iter().filter(|looked| looked.heads.is_ok()) {
                let fault = fault(conn, answered, own)?;
                if fault.is_some() && is_kept && !had.contains(&answered.peer) {
                    continue;
                }
                found.expected += 1;
                found.found += u64::from(fault.is_none());
                found.faults.extend(fault.map(|fault| (answered.name.clone(), fault)));
            }
            Ok::<_, DbError>(found)
        });
        Ok(found?)
    }

    /// Names what is wrong with the heads.
    pub(super) async fn say_heads(&self, found: &HeadsFound, sink: &Sink) -> Result<(), Failure> {
        let remedy = match found.ahead {
            None => "`gridbackup repair` puts the newest there",
            Some(_) => "`gridbackup run --once` catches up; a daemon does when it is started again",
        };
        for (peer, error) in &found.faults {
            let error = format!("{error}; {remedy}");
            sink.send(Problem::of_peer(peer, error)).await?;
        }
        Ok(())
    }

    /// Puts heads where they are missing, old or damaged, unless a backup runs, which does so itself.
    pub(super) async fn mend_heads(&self) -> Result<HeadsFound, Failure> {
        let found = self.check_heads().await?;
        let is_done = self.0.db.read(post::is_acknowledged)?;
        // The next head of a home that is behind could hide what it does not know.
        if (found.faults.is_empty() && is_done) || found.ahead.is_some() {
            return Ok(found);
        }
        let Ok(_busy) = self.0.busy.try_lock() else {
            return Ok(found);
        };
        self.post_head().await?;
        self.check_heads().await
    }

    /// The same by the daemon, which tells of it.
    pub(super) async fn mend_heads_in_background(&self, sink: &Sink) -> Result<(), Failure> {
        let before = self.check_heads().await?;
        if before.faults.is_empty() && self.0.db.read(post::is_acknowledged)? {
            return Ok(());
        }
        if let Some(ahead) = &before.ahead {
            self.tell("heads", restart(ahead).to_string(), sink).await;
            return Ok(());
        }
        let after = self.mend_heads().await?;
        if !before.faults.is_empty() {
            let text = format!(
                "The newest head was missing, old or damaged at {} peers, and is at {} now",
                before.faults.len(),
                after.faults.len()
            );
            self.tell("heads", text, sink).await;
        }
        Ok(())
    }

    /// Says which peers refuse the head of this machine because they hold another, and what to do.
    pub(super) async fn say_refused(&self, refused: &[(String, StoreError)], sink: &Sink) -> Result<(), Failure> {
        if !refused
            .iter()
            .any(|(_, error)| matches!(error, StoreError::Refused { .. }))
        {
            return Ok(());
        }
        self.look(PATIENCE).await?;
        let own = self.device();
        for head in self.0.db.read(|conn| heads::ahead(conn, own))? {
            let peer = self.0.peers.get(&head.peer).map_or(head.peer.0, |peer| peer.name);
            let error = format!(
                "It refuses the new head: it holds number {} of this machine, which this home does not know; the next \
                 backup catches up (a daemon: restart it)",
                head.seq
            );
            sink.send(Problem::of_peer(&peer, error)).await?;
        }
        Ok(())
    }

    /// The packs that other machines of the account still want. Fails when that cannot be told.
    pub(super) async fn wanted_by_others(&self) -> Result<BTreeSet<PackId>, Failure> {
        if !self.0.db.read(heads::unread)?.is_empty() {
            let error = "Nothing is given up: a backup that could not be read when this home was recovered may want it";
            return Err(Failure::new(Exit::UnderProtected, error).hint(
                "`gridbackup run --once` takes it in when it can be read; `gridbackup forget --unread` gives it up",
            ));
        }
        let unsure = |error: String| {
            Failure::new(Exit::UnderProtected, format!("Nothing is given up: {error}"))
                .hint("run `gridbackup prune` again when more peers are up")
        };
        let looked = self.look(PATIENCE_MAX).await?;
        let away: BTreeSet<&str> = looked
            .iter()
            // A head that is not valid could be anybody's.
            .filter(|looked| {
                looked
                    .heads
                    .as_ref()
                    .map_or(true, |heads| heads.iter().any(Result::is_err))
            })
            .map(|looked| looked.domain.as_str())
            .collect();
        if away.len() > usize::from(tolerate(&self.config())) {
            let error = format!(
                "{} peers do not say whether another machine of this account has backups there",
                away.len()
            );
            return Err(unsure(error));
        }
        let own = self.device();
        let reader = self.reader().await?;
        let mut wanted = BTreeSet::new();
        let is_peer = |key: &PeerKey| self.0.peers.get(key).is_some();
        for other in self.0.db.read(|conn| heads::guarded(conn, own, &is_peer))? {
            let all = looked.iter().flat_map(Looked::sound);
            let newest = all.filter(|open| open.head.device() == other.device && open.head.seq == other.seq);
            // Two writers may have signed the same number.
            let newest: BTreeMap<_, _> = newest.map(|open| (open.hash, open)).collect();
            if newest.is_empty() {
                // Those that answer have an older one or none: what the newest wants could be anything.
                let error = format!(
                    "who has the newest backup of the machine `{}` does not answer",
                    other.name
                );
                return Err(unsure(error));
            }
            for newest in newest.into_values() {
                wanted.extend(self.wanted_by(&reader, newest, &other.name).await.map_err(unsure)?);
            }
        }
        Ok(wanted)
    }

    async fn wanted_by(&self, reader: &Reader, head: &OpenHead, name: &str) -> Result<BTreeSet<PackId>, String> {
        wanted_by(reader, head)
            .await
            .map_err(|error| {
                format!(
                    "what the machine `{name}` has backed up cannot be read: {error}; if it is gone for good: `gridbackup forget \
                     --device {name}`"
                )
            })
    }
}

fn behind(ahead: &SeenHead) -> String {
    let made = ahead
        .made_ns
        .map_or_else(String::new, |made| format!(" of {}", clock::timestamp(made)));
    format!(
        "This home is older than the newest backup of this machine (number {}{made}) that peers hold",
        ahead.seq
    )
}

/// Nothing can be caught up with under an uploader, which knows packs by the catalog's numbers.
fn restart(ahead: &SeenHead) -> Failure {
    Failure::new(Exit::Failed, behind(ahead)).hint("restart gridbackup: it catches up before it sends anything")
}

/// Another machine in words.
pub(super) fn other_text(other: &OtherDevice) -> String {
    let made = other.made_ns.map_or_else(
        || "no snapshot yet".to_owned(),
        |made| format!("its newest is of {}", clock::timestamp(made)),
    );
    format!(
        "{} ({}) has backups of its own: {made}",
        other.name,
        other.device.short()
    )
}

/// Why a catalog was not rebuilt.
pub(super) enum Rebuilding {
    /// What peers have could not be read.
    Recover(RecoverError),
    /// Anything else.
    Other(Failure),
}

impl From<Failure> for Rebuilding {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

impl From<Rebuilding> for Failure {
    fn from(error: Rebuilding) -> Self {
        match error {
            Rebuilding::Recover(error) => failures::recover(error),
            Rebuilding::Other(failure) => failure,
        }
    }
}
