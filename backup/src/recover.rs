//! From the keys and some peers back to a catalog: of each device the newest head that can be read, its root, all logs and indexes.
//!
//! The device with the newest snapshot comes first, and the catalog goes on from its head; what only others have is merged into
//! it. A head that cannot be read is gone round, and named. Of a device that the account has revoked all states are merged that peers
//! still have, last and from the oldest on: a thief with its keys adds to them, and hides none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use database::DbError;
use proto::id::{DeviceId, HeadHash, PackId};
use proto::keys::{AccountKeys, power};
use proto::root::Root;
use proto::wire::word::AccountWord;
use rusqlite::Transaction;
use upload_queue::packs;

use crate::catalog;
use crate::catalog::content::live;
use crate::catalog::{heads as known_heads, tree};
use crate::heads::{Looked, OpenHead, look};
use crate::restore::fetch_stats::FetchStats;
use crate::restore::{Reader, RestoreError};

mod choose;
mod heads;
mod merge;
mod old;
mod rebuild;
mod replay;

use choose::{Chosen, choose};
use heads::{Heads, Line};
use old::OldHead;
use rebuild::{Rebuild, Unlisted, list, write_to};

/// How long a peer may take to say which heads it has. Chosen: far longer than any that answers at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to recover.
#[derive(Clone, Debug, Default)]
pub struct Aim {
    /// Go back to what was made before this time, nanoseconds since 1970, as far as peers keep older heads.
    pub before_ns: Option<i64>,
    /// The device that goes on from here: the numbers of its heads do, too.
    pub own: Option<DeviceId>,
    /// Heads that are known without asking, encoded: the newest one of the home that is recovered.
    pub known: Vec<Vec<u8>>,
    /// What to do when the newest head of the device itself cannot be read.
    pub own_unreadable: Unreadable,
    /// What the account said of its devices, as far as is known.
    pub word: Option<AccountWord>,
}

/// What to do about a head that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Unreadable {
    /// Take the newest that can, and say which could not.
    #[default]
    GoRound,
    /// Nothing: what it leads to is still wanted.
    Fail,
}

/// What recovery found.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The device whose head the catalog goes on from.
    pub device: DeviceId,
    /// Its name.
    pub device_name: String,
    /// Sequence number of the head.
    pub head: u64,
    /// Snapshots found, without those that were forgotten.
    pub snapshots: u64,
    /// Snapshots found that were forgotten.
    pub forgotten: u64,
    /// Files in the newest.
    pub files: u64,
    /// All devices that made any of the snapshots, that with the newest first.
    pub devices: Vec<RecoveredDevice>,
    /// Heads that are newer than what was recovered and could not be read.
    pub unread: Vec<UnreadHead>,
    /// Devices that are revoked and have states at peers.
    pub revoked: Vec<RevokedDevice>,
    /// What the owner had set, as TOML, if the head says it.
    pub settings: Option<String>,
    /// Peers that answered, and of those the ones that served an older head (rollback) or a fork, with what was wrong.
    pub peers_answered: usize,
    /// Peers whose answer was not believed.
    pub peers_bad: Vec<(String, String)>,
}

/// A device and what came back of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredDevice {
    /// Its name.
    pub name: String,
    /// Its snapshots, without those that were forgotten.
    pub snapshots: u64,
    /// When its newest was made, nanoseconds since 1970.
    pub newest_ns: i64,
    /// Files in its newest.
    pub files: u64,
}

/// A device that the account has revoked: what it signed last may be somebody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedDevice {
    /// Its name.
    pub name: String,
    /// When its states say that they were made, nanoseconds since 1970: in the order in which peers came to have them, the last one last.
    pub states_ns: Vec<i64>,
}

/// A head that peers have and that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadHead {
    /// The name of its device.
    pub device_name: String,
    /// Its number.
    pub seq: u64,
    /// When its newest snapshot was made, nanoseconds since 1970.
    pub made_ns: Option<i64>,
    /// Why not.
    pub reason: String,
}

/// Recovery failed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// No peer has a head of this account.
    #[error("No peer that answered has a backup of this account ({answered} answered)")]
    NoHead {
        /// Peers that answered.
        answered: usize,
    },
    /// Reading failed.
    #[error(transparent)]
    Read(#[from] RestoreError),
}

impl From<DbError> for RecoverError {
    fn from(error: DbError) -> Self {
        Self::Read(error.into())
    }
}

/// Rebuilds the catalog of `reader`, which is one that is lost with nothing, from its peers. Repeatable: run again after a
/// crash or when more peers are up; what an earlier run left is cleared first. If it is dropped, nothing counts as recovered.
pub async fn recover(
    reader: &Reader,
    keys: &AccountKeys,
    aim: &Aim,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<Recovered, RecoverError> {
    let peers = reader.peers.all();
    progress("Asking peers for the newest backup");
    let looked = look(&peers, keys, PATIENCE).await;
    let known: Vec<OpenHead> = aim
        .known
        .iter()
        .filter_map(|head| OpenHead::open(head, keys).ok())
        .collect();
    let Heads {
        lines,
        peers_answered,
        mut peers_bad,
    } = heads::sort(&looked, &known);
    let own_heads = heads_of(&lines, aim.own);
    if aim.before_ns.is_some() {
        peers_bad.clear();
    }
    let Chosen { lines, revoked, old } = choose(lines, aim, (&peers, keys), progress).await;
    if lines.is_empty() {
        return Err(RecoverError::NoHead {
            answered: peers_answered,
        });
    }
    progress("Asking peers which shares they hold");
    let (listed, unlisted) = list(&peers).await;
    peers_bad.extend(bad_lists(unlisted, &looked));
    let stats = Mutex::new(FetchStats::default());
    let mut following = Following {
        reader,
        keys,
        aim,
        listed: &listed,
        stats: &stats,
        progress,
        old,
        unread: Vec::new(),
        aside: Vec::new(),
    };
    let (first, settings) = following.follow(lines).await?;
    let (unread, aside) = (following.unread, following.aside);
    // Who goes back to a time wants nothing of what came later.
    let aside = if aim.before_ns.is_some() { Vec::new() } else { aside };
    write_to(reader, move |tx| conclude(tx, &own_heads, &aside)).await?;
    let served = stats.into_inner().expect("no panic while the counts are locked");
    peers_bad.extend(served.peers_bad);
    let devices = write_to(reader, |tx| Ok(devices(tx)?)).await?;
    let forgotten = write_to(reader, |tx| Ok(tree::forgotten(tx)?)).await?;
    Ok(Recovered {
        device: first.head.device(),
        device_name: first.head.cert.name.clone(),
        head: first.head.seq,
        snapshots: devices.iter().map(|device| device.snapshots).sum(),
        forgotten: forgotten.len() as u64,
        files: devices.first().map_or(0, |device| device.files),
        devices,
        unread,
        revoked,
        settings,
        peers_answered,
        peers_bad,
    })
}

/// Who answered, and had no list to be believed. Who did not answer before is away, and not to be named.
fn bad_lists(unlisted: Vec<Unlisted>, looked: &[Looked]) -> impl Iterator<Item = (String, String)> {
    let answered = |failed: &Unlisted| {
        let mut looked = looked.iter();
        looked.any(|looked| looked.peer == failed.peer && looked.heads.is_ok())
    };
    let answered = unlisted.into_iter().filter(answered);
    answered.map(|failed| (failed.name, failed.reason))
}

/// A machine that may only put sets nothing for those that read.
fn believed(root: Root, open: &OpenHead) -> Root {
    let settings = root.settings.filter(|_| open.head.cert.powers & power::READ != 0);
    Root { settings, ..root }
}

fn heads_of(lines: &[Line], own: Option<DeviceId>) -> Vec<OpenHead> {
    let heads = lines.iter().flat_map(|line| &line.candidates);
    heads.filter(|open| Some(open.head.device()) == own).cloned().collect()
}

/// Ends the recovery, when all is in the catalog: what the device has signed is known, but for the heads that were set aside.
fn conclude(tx: &Transaction<'_>, own_heads: &[OpenHead], aside: &[OpenHead]) -> Result<(), RestoreError> {
    for open in aside {
        known_heads::set_aside(tx, open.hash, &open.head.encode())?;
    }
    for open in own_heads {
        known_heads::raise_floor(tx, open.head.seq)?;
        if !aside.contains(open) {
            known_heads::take(tx, open.head.device(), open.hash)?;
        }
    }
    replay::conclude(tx)
}

/// Lines on their way into a catalog.
struct Following<'a> {
    reader: &'a Reader,
    keys: &'a AccountKeys,
    aim: &'a Aim,
    listed: &'a [replay::Listed],
    stats: &'a Mutex<FetchStats>,
    progress: &'a (dyn Fn(&str) + Send + Sync),
    /// Heads that peers replaced, once they were asked for.
    old: Option<Vec<OldHead>>,
    unread: Vec<UnreadHead>,
    /// The same, as they are.
    aside: Vec<OpenHead>,
}

impl Following<'_> {
    /// Rebuilds the catalog from the first line that can be read and merges the others; the head it goes on from, and what was
    /// set.
    async fn follow(&mut self, lines: Vec<Line>) -> Result<(OpenHead, Option<String>), RecoverError> {
        let mut first: Option<(OpenHead, Option<String>)> = None;
        let mut failed = None;
        for line in lines {
            let Some(found) = &mut first else {
                match self.newest_readable(self.reader, line).await? {
                    Ok((open, root)) => first = Some((open, root.settings)),
                    Err(error) => failed = failed.or(Some(error)),
                }
                continue;
            };
            let taken = write_to(self.reader, |tx| Ok(known_heads::taken(tx)?)).await?;
            if line.candidates.first().is_some_and(|open| taken.contains(&open.hash)) {
                continue;
            }
            if let Some(age_days) = line.age_days {
                if self.knows_newest_of(&line).await? {
                    continue;
                }
                (self.progress)(&format!("Taking in what a revoked machine had {age_days} days ago"));
            }
            let settings = self.merge(line).await?;
            found.1 = found.1.take().or(settings);
        }
        first.ok_or_else(|| failed.map_or(RecoverError::NoHead { answered: 0 }, RecoverError::Read))
    }

    /// Whether the newest snapshot of a line is in the catalog already, by a head that is trusted more.
    async fn knows_newest_of(&self, line: &Line) -> Result<bool, RecoverError> {
        let newest = line.candidates.first().and_then(|open| open.body.snapshot.as_ref());
        let Some(newest) = newest.map(|snapshot| snapshot.id) else {
            return Ok(false);
        };
        let known = write_to(self.reader, |tx| Ok(tree::snapshots(tx)?)).await?;
        Ok(known.iter().any(|snapshot| snapshot.record.id == newest))
    }

    /// Takes in the backups of a line that only it has. What cannot be read, or not be merged, is named.
    async fn merge(&mut self, line: Line) -> Result<Option<String>, RecoverError> {
        let scratch = self.reader.db.scratch_beside(catalog::MIGRATIONS)?;
        let other = Reader {
            db: scratch.clone(),
            ..self.reader.clone()
        };
        let is_old = line.age_days.is_some();
        let Ok((open, root)) = self.newest_readable(&other, line).await? else {
            return Ok(None);
        };
        let listed = self.listed.to_vec();
        let merged = write_to(self.reader, move |tx| merge::merge(tx, &scratch, &listed)).await;
        match merged {
            Ok(()) => Ok(root.settings),
            Err(error) if is_about_the_head(&error) => {
                self.set_aside(open, &error, is_old);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Names a head that was not taken in. It is to be taken in later, unless it is one of the old ones of a revoked device: nobody
    /// waits for those.
    fn set_aside(&mut self, open: OpenHead, error: &RestoreError, is_old: bool) {
        self.unread.push(unread(&open, error));
        if !is_old {
            self.aside.push(open);
        }
    }

    /// Rebuilds the catalog of `into` from the newest head of a line that can be read; if there is none, why the first cannot.
    async fn newest_readable(
        &mut self,
        into: &Reader,
        line: Line,
    ) -> Result<Result<(OpenHead, Root), RestoreError>, RecoverError> {
        let rebuild = Rebuild {
            reader: into,
            listed: self.listed,
            stats: self.stats,
            progress: self.progress,
        };
        let (mut failed, mut tried) = (None, Vec::<HeadHash>::new());
        let mut candidates = line.candidates;
        let is_old = line.age_days.is_some();
        let mut has_asked = self.aim.before_ns.is_some() || is_old;
        loop {
            for open in std::mem::take(&mut candidates) {
                tried.push(open.hash);
                match rebuild.rebuild(&open).await {
                    Ok(root) => {
                        let root = believed(root, &open);
                        return Ok(Ok((open, root)));
                    }
                    Err(error) if is_about_the_head(&error) => {
                        let is_own = Some(line.device) == self.aim.own;
                        if is_own && self.aim.own_unreadable == Unreadable::Fail {
                            return Err(error.into());
                        }
                        let seq = open.head.seq;
                        self.set_aside(open, &error, is_old);
                        failed = failed.or(Some((seq, error)));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            let Some((newest, error)) = failed.take() else {
                return Err(RecoverError::NoHead { answered: 0 });
            };
            if has_asked {
                return Ok(Err(error));
            }
            has_asked = true;
            (self.progress)("The newest backup cannot be read: asking peers for older ones");
            if self.old.is_none() {
                self.old = Some(old::ask(&self.reader.peers.all(), self.keys).await);
            }
            candidates = heads::older(self.old.as_deref().unwrap_or_default(), line.device, newest, &tried);
            if candidates.is_empty() {
                return Ok(Err(error));
            }
            failed = Some((newest, error));
        }
    }
}

/// Whether another head may still be readable. What a catalog does not take is about the head, too: a thief can sign records that
/// contradict each other, and numbers that no table holds.
fn is_about_the_head(error: &RestoreError) -> bool {
    match error {
        RestoreError::TooFewShares { .. } | RestoreError::Damaged { .. } => true,
        RestoreError::Db(DbError::Sqlite(error)) => {
            let is_contradiction = error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation);
            is_contradiction || matches!(error, rusqlite::Error::ToSqlConversionFailure(_))
        }
        _ => false,
    }
}

fn unread(open: &OpenHead, error: &RestoreError) -> UnreadHead {
    UnreadHead {
        device_name: open.head.cert.name.clone(),
        seq: open.head.seq,
        made_ns: open.made_ns(),
        reason: error.to_string(),
    }
}

fn devices(conn: &rusqlite::Connection) -> Result<Vec<RecoveredDevice>, DbError> {
    let names = known_heads::names(conn)?;
    let mut devices: BTreeMap<DeviceId, RecoveredDevice> = BTreeMap::new();
    for snapshot in tree::by_time(tree::kept(conn)?) {
        let device = devices.entry(snapshot.device).or_insert_with(|| RecoveredDevice {
            name: names
                .get(&snapshot.device)
                .cloned()
                .unwrap_or_else(|| snapshot.device.short()),
            snapshots: 0,
            newest_ns: 0,
            files: 0,
        });
        device.snapshots += 1;
        (device.newest_ns, device.files) = (snapshot.record.time_ns, snapshot.record.files);
    }
    let mut devices: Vec<RecoveredDevice> = devices.into_values().collect();
    devices.sort_by_key(|device| std::cmp::Reverse(device.newest_ns));
    Ok(devices)
}

/// Whether what a head leads to can be read now.
pub async fn is_readable(reader: &Reader, head: &OpenHead) -> bool {
    let stats = Mutex::new(FetchStats::default());
    let rebuild = Rebuild {
        reader,
        listed: &[],
        stats: &stats,
        progress: &|_| {},
    };
    rebuild.is_readable(head).await
}

/// The data packs that a head's kept snapshots want: what another device must not give up. Reads all of its metadata into a catalog
/// that is gone afterwards.
pub async fn wanted_by(reader: &Reader, head: &OpenHead) -> Result<BTreeSet<PackId>, RestoreError> {
    let (listed, _) = list(&reader.peers.all()).await;
    let other = Reader {
        db: reader.db.scratch_beside(catalog::MIGRATIONS)?,
        ..reader.clone()
    };
    let stats = Mutex::new(FetchStats::default());
    let rebuild = Rebuild {
        reader: &other,
        listed: &listed,
        stats: &stats,
        progress: &|_| {},
    };
    rebuild.rebuild(head).await?;
    write_to(&other, |tx| {
        let kept: Vec<u64> = tree::kept(tx)?.iter().map(|snapshot| snapshot.record.seq).collect();
        let wanted = live::wanted(tx, &kept)?;
        let mut ids = BTreeSet::new();
        for row in wanted.live {
            ids.extend(packs::get(tx, row)?.map(|pack| pack.manifest.pack));
        }
        Ok(ids)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_catalog_takes_is_about_the_head_and_a_full_disk_is_not() {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);")
            .unwrap();
        let is_about = |seq: u64| {
            let error = conn.execute("INSERT INTO t VALUES (?1)", [seq]).unwrap_err();
            is_about_the_head(&DbError::from(error).into())
        };
        assert!(is_about(1) && is_about(u64::MAX));
        let full = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None);
        assert!(!is_about_the_head(&DbError::from(full).into()));
    }
}
