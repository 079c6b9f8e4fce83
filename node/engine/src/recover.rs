//! Taking over an account: reach some peers, take the newest head, rebuild the catalog.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::clock;
use api::failure::{Exit, Failure};
use api::message::{Phase, Progress, RecoverSummary, RecoveredDeviceSummary, RevokedSummary, Summary, UnreadSummary};
use api::output::Sink;
use api::request::Recover;
use backup::catalog;
use backup::catalog::trouble::{Kind, Met};
use backup::catalog::{disks, heads, tree, trouble};
use backup::recover::{Aim, RecoverError, Recovered, RecoveredDevice, RevokedDevice, UnreadHead};
use database::DbError;
use jiff::Timestamp;
use upload_queue::peers::{Peer, PeerSet};

use crate::buckets::is_same_place;
use crate::config::{ConfigFile, PeerConfig};
use crate::heads::Rebuilding;
use crate::{Engine, failures, policy, settings};

/// How long a peer may take to say which heads it has.
const PATIENCE: Duration = Duration::from_secs(60);

impl Engine {
    pub(super) async fn recover(&self, asked: Recover, sink: &Sink) -> Result<Exit, Failure> {
        let Recover { via, before, tolerate } = asked;
        let _busy = self.0.busy.lock().await;
        let started = Instant::now();
        if self.0.uploader.get().is_some() {
            return Err(Failure::new(Exit::HomeBusy, "A daemon is at work in this home")
                .hint("stop it, then run `gridbackup recover` again"));
        }
        let (found, mut peers) = self.reach(&via).await?;
        self.connect().await?;
        // Peers named on the command line enter the config only when recovery succeeded.
        peers.splice(0..0, self.0.peers.all());
        let peers = PeerSet::new(peers);
        self.refuse_unsent(&peers, before).await?;
        let progress = sink.clone();
        let say = move |what: &str| {
            let current = Some(what.to_owned());
            progress.progress(Progress {
                phase: Phase::Recover,
                current,
                ..Progress::default()
            });
        };
        let before_ns = before.map(|before| i64::try_from(before.as_nanosecond()).unwrap_or(i64::MAX));
        let aim = Aim {
            before_ns,
            ..self.aim()?
        };
        let came = Mutex::new(Vec::new());
        let configure = |recovered: &Recovered| {
            let mut all = self.keep_places(&found, recovered.settings.as_deref())?;
            all.extend(self.adopt_settings(recovered, tolerate)?);
            *came.lock().unwrap_or_else(PoisonError::into_inner) = all;
            Ok(())
        };
        let count = peers.all().len();
        let mut summary = match self.rebuild(peers, &aim, &say, &configure).await {
            Ok(recovered) => {
                self.note_left_out()?;
                self.recover_summary(recovered)?
            }
            Err(Rebuilding::Recover(RecoverError::NoHead { answered })) if via.is_empty() => {
                self.begin_anew(answered, count)?
            }
            Err(error) => return Err(error.into()),
        };
        summary.disks = self.recovered_disks().await?;
        summary.settings = came.into_inner().unwrap_or_else(PoisonError::into_inner);
        summary.seconds = started.elapsed().as_secs_f64();
        sink.send(Summary::Recover(Box::new(summary))).await?;
        Ok(Exit::Done)
    }

    /// Names of the disks that came back; their packs are looked after here from now on.
    async fn recovered_disks(&self) -> Result<Vec<String>, Failure> {
        // A home that had no catalog has one by now, and this process another one, in memory.
        let db = catalog::open_existing(&self.0.home.paths.catalog())?;
        let mut names = self.learn_disks_into(&db, &self.0.peers.all()).await?;
        // Of those that could not be read now.
        names.extend(self.disk_names(db.read(disks::unknown)?));
        names.sort();
        Ok(names)
    }

    /// What is named on the command line: folders and buckets as peers, and friends who are met.
    async fn reach(&self, via: &[String]) -> Result<(Vec<(String, PeerConfig)>, Vec<Peer>), Failure> {
        let (mut found, mut peers) = (Vec::new(), Vec::new());
        for place in via {
            let Some(there) = self.find_place(place).await? else {
                self.meet(place).await?;
                continue;
            };
            if let Some(roster) = there.roster {
                self.network().await?;
                self.learn(vec![roster]).await;
            }
            found.push((there.name, there.config));
            peers.extend(there.peers);
        }
        Ok((found, peers))
    }

    /// A home whose catalog is gone and whose peers have no backups never had any, if enough of them say so.
    fn begin_anew(&self, answered: usize, peers: usize) -> Result<RecoverSummary, Failure> {
        let path = self.0.home.paths.catalog();
        if peers == 0 {
            return Err(Failure::new(Exit::Failed, "This home knows no peer to ask for backups")
                .hint("name a friend's address or ticket, a folder or a bucket with --via"));
        }
        if path.exists() || peers - answered > usize::from(policy::tolerate(&self.config())) {
            return Err(failures::recover(RecoverError::NoHead { answered }));
        }
        catalog::open(&path)?;
        Ok(RecoverSummary {
            account: self.0.home.account.account_id().to_string(),
            device: self.device().to_string(),
            peers_answered: answered as u64,
            ..RecoverSummary::default()
        })
    }

    /// What no peer has yet must not be lost by rebuilding, unless this home is behind its peers anyway.
    async fn refuse_unsent(&self, peers: &PeerSet, before: Option<Timestamp>) -> Result<(), Failure> {
        if before.is_some() {
            return Ok(());
        }
        let looked = backup::heads::look(&peers.all(), &self.0.home.account, PATIENCE).await;
        let own = self.device();
        let is_behind = self.0.db.write::<_, DbError>(|tx| {
            backup::heads::note(tx, &looked)?;
            Ok(!heads::ahead(tx, own)?.is_empty())
        })?;
        if is_behind || self.unsent()? == 0 {
            return Ok(());
        }
        let error = "This home knows all that peers have, and has backups that no peer has yet";
        Err(Failure::new(Exit::Failed, error)
            .hint("`gridbackup run --once` sends them; `gridbackup status` says what waits"))
    }

    /// What the newest snapshot says that it lacks is still lacking, until a run of this home has looked.
    fn note_left_out(&self) -> Result<(), Failure> {
        self.0.db.write::<_, DbError>(|tx| {
            let Some(newest) = tree::by_time(tree::kept(tx)?).pop() else {
                return Ok(());
            };
            let unread = tree::left_out(tx, newest.record.seq)?.unread.into_iter();
            let reason = "it could not be read when it was last backed up";
            let list: Vec<(Vec<u8>, String)> = unread.map(|path| (path.0, reason.to_owned())).collect();
            let met = Met {
                kind: Kind::Unseen,
                within: &[],
                list: &list,
                now_ns: clock::now_ns(),
            };
            trouble::replace(tx, &met)
        })?;
        Ok(())
    }

    fn recover_summary(&self, recovered: Recovered) -> Result<RecoverSummary, Failure> {
        // Of each machine: what another one backed up is not this one's to go on with, unless that is said.
        let snapshots = self
            .0
            .db
            .read(|conn| Ok::<_, DbError>(tree::by_time(tree::kept(conn)?)))?;
        let newest: BTreeMap<_, _> = snapshots
            .into_iter()
            .map(|snapshot| (snapshot.device, snapshot.record.source_roots))
            .collect();
        let roots: BTreeSet<_> = newest.into_values().flatten().map(|root| root.0).collect();
        let device = |device: RecoveredDevice| RecoveredDeviceSummary {
            name: device.name,
            snapshots: device.snapshots,
            files: device.files,
            newest: clock::timestamp(device.newest_ns),
        };
        let unread = |head: UnreadHead| UnreadSummary {
            device: head.device_name,
            number: head.seq,
            time: head.made_ns.map(clock::timestamp),
            error: head.reason,
        };
        let revoked = |device: RevokedDevice| RevokedSummary {
            device: device.name,
            states: device.states_ns.into_iter().map(clock::timestamp).collect(),
        };
        Ok(RecoverSummary {
            account: self.0.home.account.account_id().to_string(),
            device: self.device().to_string(),
            recovered_device: recovered.device_name,
            snapshots: recovered.snapshots,
            snapshots_forgotten: recovered.forgotten,
            files: recovered.files,
            devices: recovered.devices.into_iter().map(device).collect(),
            unread: recovered.unread.into_iter().map(unread).collect(),
            revoked: recovered.revoked.into_iter().map(revoked).collect(),
            folders: self
                .config()
                .folders
                .iter()
                .map(|folder| folder.display().to_string())
                .collect(),
            roots: roots
                .iter()
                .map(|root| String::from_utf8_lossy(root).into_owned())
                .collect(),
            peers_answered: recovered.peers_answered as u64,
            peers_bad: recovered
                .peers_bad
                .into_iter()
                .map(|(peer, reason)| format!("{peer}: {reason}"))
                .collect(),
            ..RecoverSummary::default()
        })
    }

    /// Settings that came with the backups go into config.toml, where nothing else was chosen.
    fn adopt_settings(&self, recovered: &Recovered, tolerate: Option<u16>) -> Result<Vec<String>, Failure> {
        let Some(text) = &recovered.settings else {
            return Ok(Vec::new());
        };
        let mut file = ConfigFile::open(&self.0.home.paths.config())?;
        let chosen: &[&str] = if tolerate.is_some() { &["tolerate"] } else { &[] };
        let came = settings::adopt(&mut file, text, chosen)?;
        self.save_config(&file)?;
        Ok(came)
    }

    fn save_config(&self, file: &ConfigFile) -> Result<(), Failure> {
        file.save()?;
        self.set_config(file.config().clone());
        Ok(())
    }

    /// Folders and buckets that recovery was done from are peers from now on, by the names and with the prices that the settings
    /// have for them, if these came with the backups. Says which settings came.
    fn keep_places(&self, found: &[(String, PeerConfig)], settings: Option<&str>) -> Result<Vec<String>, Failure> {
        let mut file = ConfigFile::open(&self.0.home.paths.config())?;
        let mut came = Vec::new();
        for (name, peer) in found {
            let known = settings.and_then(|text| settings::at_place(text, peer));
            if let Some((name, item)) = known {
                came.extend(settings::adopt_peer(&mut file, &name, &item)?);
            }
            let peers = &file.config().peers;
            match peers.iter().find(|(_, there)| is_same_place(there, peer)) {
                Some((name, there)) => {
                    let name = name.clone();
                    // What lies there counts, if somebody added shares since the settings were written.
                    if peer.shares > there.shares {
                        set_peer(&mut file, &name, "shares", peer.shares)?;
                    }
                }
                None => add_peer(&mut file, name, peer.clone())?,
            }
        }
        self.save_config(&file)?;
        Ok(came)
    }
}

/// Adds it under this name, or one like it that is free.
fn add_peer(file: &mut ConfigFile, name: &str, peer: PeerConfig) -> Result<(), Failure> {
    let letters = name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' });
    let mut name: String = letters.collect();
    while file.config().peers.contains_key(&name) {
        name.push('-');
    }
    set_peer(file, &name, "url", peer.url)?;
    set_peer(file, &name, "endpoint", peer.endpoint)?;
    set_peer(file, &name, "region", peer.region)?;
    set_peer(file, &name, "shares", peer.shares)
}

fn set_peer(file: &mut ConfigFile, name: &str, field: &str, value: Option<impl ToString>) -> Result<(), Failure> {
    match value {
        Some(value) => file.set(&format!("peers.{name}.{field}"), &value.to_string()),
        None => Ok(()),
    }
}
