//! The facts that the verdict rests on, gathered in one place from the catalog, the config and a look at the folders.
//!
//! Works on a connection alone, so that `status` can be answered for a home that another process holds.

use std::collections::{BTreeSet, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use api::clock;
use api::failure::Exit;
use api::human::Period;
use backup::catalog::content::post;
use backup::catalog::protection::{Gauge, Older, Range, Tally};
use backup::catalog::tree::{Snapshot, covers};
use backup::catalog::trouble::{Kind, RunRecord, Trouble};
use backup::catalog::{content, disks, heads, tree, trouble};
use backup::said::said_io;
use database::DbError;
use jiff::Timestamp;
use proto::id::DeviceId;
use rusqlite::Connection;
use upload_queue::packs;
use upload_queue::peers::PeerKey;

use crate::config::Config;
use crate::disk::DiskVotes;
use crate::known::KnownPeer;
use crate::policy::{peers_within, tolerate};
use crate::verdict;
use crate::verdict::{Facts, Failing, HeadBehind, LastRun, Named};

/// Names that a verdict gets of each list.
const NAMES_MAX: usize = 10;

/// What the catalog does not know.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub config: Config,
    /// Why config.toml cannot be used; then the config is an earlier one.
    pub config_fault: Option<String>,
    /// This device.
    pub device: DeviceId,
    pub peers: Vec<KnownPeer>,
    /// Who answers; none: nobody asked.
    pub online: Option<Vec<PeerKey>>,
    pub store_only: bool,
    /// A run is at work.
    pub is_running: bool,
    /// Virtual disks to which something was written that is on this machine alone, as far as that can be told.
    pub disks_ahead: Vec<String>,
    /// Virtual disks by their voters, as far as these are written down here.
    pub disk_votes: Vec<DiskVotes>,
    /// Nothing can be written in the home: no run could even be recorded.
    pub is_full: bool,
    /// The account has revoked this device.
    pub is_revoked: bool,
    /// The account has left the grid.
    pub has_left: bool,
}

/// Whether people count a peer of this name. Who cannot be told is one.
pub(super) fn is_counted(key: &PeerKey) -> bool {
    key.place().is_none_or(|place| place.is_counted())
}

impl Scene {
    pub fn is_known(&self, key: &PeerKey) -> bool {
        self.peers.iter().any(|peer| peer.key == *key)
    }
}

/// The facts; blocking.
pub(super) fn gather(conn: &Connection, scene: &Scene) -> Result<Facts, DbError> {
    let config = &scene.config;
    let snapshots = tree::kept(conn)?;
    let folders = folders(config);
    let mut gauge = Gauge::new(conn, tolerate(config), &|key| scene.is_known(key))?;
    let (tally, older) = match range(&snapshots, &folders) {
        Some(range) => gauge.tally(&range)?,
        None => (Tally::default(), Older::default()),
    };
    let (disks_at_risk, disks_lost) = gauge.disks();
    let shares = gauge.tolerates()?.unwrap_or(0);
    let runs = trouble::runs(conn)?;
    let counted = || scene.peers.iter().filter(|peer| is_counted(&peer.key));
    let mut facts = Facts {
        store_only: scene.store_only && snapshots.is_empty(),
        config_fault: scene.config_fault.clone(),
        is_revoked: scene.is_revoked,
        has_left: scene.has_left,
        folders: folders.len() as u64,
        paths_named: runs.iter().any(|run| !run.whole),
        has_snapshot: !snapshots.is_empty(),
        older_at_risk: older.at_risk,
        older_lost: older.lost,
        older_waiting: older.waiting,
        disks: content::posted(conn)?.map_or(0, |posted| posted.body.disks.iter().flatten().count() as u64),
        disks_ahead: named(&scene.disks_ahead),
        disks_at_risk,
        disks_lost,
        disks_unknown: disks::unknown(conn)?.len() as u64,
        heads_unread: heads::unread(conn)?.len() as u64,
        tolerate: config.tolerate.into(),
        tolerates: peers_within(config, shares.into()),
        peers: counted().map(|peer| &peer.domain).collect::<BTreeSet<_>>().len() as u64,
        peers_online: scene.online.as_ref().map(|online| {
            let answers = counted().filter(|peer| online.contains(&peer.key));
            answers.map(|peer| &peer.domain).collect::<BTreeSet<_>>().len() as u64
        }),
        waits_for: waits_for(conn, scene)?,
        head_behind: head_behind(conn, scene)?,
        heads_refused: heads_refused(conn, scene)?,
        last_run: last_run(&runs, !folders.is_empty(), scene.is_running),
        overdue: overdue(&runs, snapshots.last(), config.alarm_after),
        ..Facts::default()
    };
    if scene.is_full && !scene.store_only {
        facts.last_run = LastRun::Failed {
            error: "the disk of this home is full: nothing can be recorded there".to_owned(),
            since: Timestamp::now(),
        };
    }
    add_votes(&mut facts, scene);
    add_tally(&mut facts, tally);
    add_sources(&mut facts, conn, &folders, &snapshots)?;
    Ok(facts)
}

fn add_tally(facts: &mut Facts, tally: Tally) {
    let amount = |part: backup::catalog::protection::Amount| verdict::Amount {
        files: part.files,
        bytes: part.bytes,
    };
    facts.protected = amount(tally.protected);
    facts.at_risk = amount(tally.at_risk);
    facts.waiting = amount(tally.waiting);
    facts.lost = amount(tally.lost);
    facts.lost_names = tally.lost_paths.iter().map(|path| shown(path)).collect();
}

fn add_votes(facts: &mut Facts, scene: &Scene) {
    let is_there = |key: &PeerKey| scene.online.as_ref().is_none_or(|online| online.contains(key));
    let is_shut = |votes: &&DiskVotes| !votes.has_majority_of(is_there);
    let names = |votes: Vec<&DiskVotes>| named(&votes.iter().map(|votes| votes.name.clone()).collect::<Vec<_>>());
    let (shut, open): (Vec<_>, Vec<_>) = scene.disk_votes.iter().partition(is_shut);
    facts.disks_shut = names(shut);
    facts.disks_voter_gone = names(open.into_iter().filter(|votes| !votes.gone.is_empty()).collect());
}

fn named(names: &[String]) -> Named {
    Named {
        count: names.len() as u64,
        names: names.iter().take(NAMES_MAX).cloned().collect(),
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// The folders of the config as snapshots name them: their real paths, where they are there.
pub(super) fn folders(config: &Config) -> Vec<Vec<u8>> {
    let real = |folder: &std::path::PathBuf| {
        let real = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.clone());
        real.as_os_str().as_bytes().to_vec()
    };
    config.folders.iter().map(real).collect()
}

/// What is counted: the folders, and what else snapshots have; as the newest snapshot shows it, since what no run looked
/// at stays as it was.
fn range(snapshots: &[Snapshot], folders: &[Vec<u8>]) -> Option<Range> {
    let newest = snapshots.last()?;
    let roots = snapshots.iter().flat_map(|snapshot| &snapshot.record.source_roots);
    let all: BTreeSet<&[u8]> = roots
        .map(|root| root.0.as_slice())
        .chain(folders.iter().map(Vec::as_slice))
        .collect();
    let mut paths: Vec<Vec<u8>> = Vec::new();
    for path in &all {
        if !all.iter().any(|above| above != path && covers(above, path)) {
            paths.push(path.to_vec());
        }
    }
    Some(Range {
        snapshot: newest.record.seq,
        paths,
    })
}

fn waits_for(conn: &Connection, scene: &Scene) -> Result<Vec<String>, DbError> {
    let keys: HashSet<PeerKey> = packs::waited_for(conn)?.into_iter().collect();
    let names = scene.peers.iter().filter(|peer| keys.contains(&peer.key));
    let names: BTreeSet<String> = names.map(|peer| peer.name.clone()).collect();
    Ok(names.into_iter().collect())
}

/// The newest head, if too few of those who still are peers have it.
fn head_behind(conn: &Connection, scene: &Scene) -> Result<Option<HeadBehind>, DbError> {
    let Some(posted) = content::posted(conn)? else {
        return Ok(None);
    };
    let holders = post::holders(conn, &posted.hash)?;
    let have = scene.peers.iter().filter(|peer| holders.contains(&peer.key));
    let on = have.map(|peer| &peer.domain).collect::<BTreeSet<_>>().len() as u64;
    let needed = u64::from(tolerate(&scene.config)) + 1;
    let is_own = !holders.is_empty() || !post::is_acknowledged(conn)?;
    // One that says something new of disks alone: what leads to backups is where it was.
    let is_of_disks = !post::is_acknowledged(conn)? && post::is_backup_acknowledged(conn)?;
    Ok(Some(HeadBehind { on, needed }).filter(|_| is_own && !is_of_disks && on < needed))
}

/// The peers that know newer heads of this device.
fn heads_refused(conn: &Connection, scene: &Scene) -> Result<Vec<String>, DbError> {
    let ahead: HashSet<PeerKey> = heads::ahead(conn, scene.device)?
        .into_iter()
        .map(|head| head.peer)
        .collect();
    let names = scene.peers.iter().filter(|peer| ahead.contains(&peer.key));
    let names: BTreeSet<String> = names.map(|peer| peer.name.clone()).collect();
    Ok(names.into_iter().collect())
}

/// How the newest run went: of the folders, if there are any and a run was about them.
fn last_run(runs: &[RunRecord], has_folders: bool, is_running: bool) -> LastRun {
    let is_whole = has_folders && runs.iter().any(|run| run.whole);
    let mut fitting = runs.iter().filter(|run| run.whole || !is_whole);
    let Some(newest) = fitting.next() else {
        return LastRun::None;
    };
    match (newest.ended_ns, newest.exit) {
        (None, _) if is_running => LastRun::UnderWay,
        (Some(ended), Some(exit)) if is_good(exit) => LastRun::Done(clock::timestamp(ended)),
        (Some(ended), Some(exit)) if exit != Exit::Interrupted.code() => {
            let earlier = fitting.take_while(|run| run.exit.is_some_and(|exit| !is_good(exit)));
            let first = earlier.last().and_then(|run| run.ended_ns).unwrap_or(ended);
            LastRun::Failed {
                error: newest.error.clone().unwrap_or_else(|| format!("exit code {exit}")),
                since: clock::timestamp(first),
            }
        }
        _ => LastRun::CutOff(clock::timestamp(newest.began_ns)),
    }
}

fn is_good(exit: u8) -> bool {
    [Exit::Done, Exit::SourceUnreadable, Exit::UnderProtected]
        .iter()
        .any(|good| good.code() == exit)
}

/// Time since the last good run, or the newest snapshot of who never ran here, if it is longer than `after`.
fn overdue(runs: &[RunRecord], newest: Option<&Snapshot>, after: Period) -> Option<Period> {
    let good = runs.iter().find(|run| run.exit.is_some_and(is_good));
    let last_ns = good
        .and_then(|run| run.ended_ns)
        .or(newest.map(|snapshot| snapshot.record.time_ns))?;
    // A clock that was set back says nothing.
    let age = u64::try_from(clock::now_ns().saturating_sub(last_ns)).ok()?;
    let age = Duration::from_secs(age / 1_000_000_000);
    Some(Period(age)).filter(|age| age.0 > after.0)
}

fn add_sources(
    facts: &mut Facts,
    conn: &Connection,
    folders: &[Vec<u8>],
    snapshots: &[Snapshot],
) -> Result<(), DbError> {
    let mut of_folders = 0;
    for folder in folders {
        let known = trouble::at(conn, Kind::Unseen, folder)?;
        of_folders += u64::from(known.as_ref().is_some_and(|known| known.subject == *folder));
        let roots = || snapshots.iter().flat_map(|snapshot| &snapshot.record.source_roots);
        if let Some(failing) = failing(folder, known) {
            facts.folders_failing.push(failing);
        } else if !roots().any(|root| covers(&root.0, folder)) {
            facts.folders_new.push(shown(folder));
        }
    }
    let kinds = [Kind::Unseen, Kind::Unread, Kind::Partial];
    let mut left_out = Named::default();
    let mut since: Option<i64> = None;
    for kind in kinds {
        left_out.count += trouble::count(conn, kind)?;
        let some = trouble::list(conn, kind, NAMES_MAX)?;
        let names = some.into_iter().filter(|known| !folders.contains(&known.subject));
        left_out.names.extend(names.map(|known| shown(&known.subject)));
        let oldest = trouble::oldest(conn, kind)?;
        since = since.into_iter().chain(oldest).min();
    }
    left_out.count = left_out.count.saturating_sub(of_folders);
    facts.left_out_since = since.map(clock::timestamp).filter(|_| left_out.count > 0);
    facts.left_out = left_out;
    Ok(())
}

/// A folder that the last run could not look at, or that is not there now.
fn failing(folder: &[u8], known: Option<Trouble>) -> Option<Failing> {
    let now = std::fs::symlink_metadata(Path::new(std::ffi::OsStr::from_bytes(folder))).err();
    let (reason, since): (String, Option<Timestamp>) = match (known, now) {
        (None, None) => return None,
        (Some(known), _) => (known.reason, Some(clock::timestamp(known.since_ns))),
        (None, Some(error)) => (said_io(&error), None),
    };
    Some(Failing {
        path: shown(folder),
        reason,
        since,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ended_ns: i64, exit: u8, whole: bool) -> RunRecord {
        RunRecord {
            began_ns: ended_ns - 1,
            ended_ns: Some(ended_ns),
            exit: Some(exit),
            error: (!is_good(exit)).then(|| "it failed".to_owned()),
            whole,
        }
    }

    #[test]
    fn a_good_run_of_a_named_path_does_not_cover_up_that_the_folders_fail() {
        let runs = [run(50, 0, false), run(40, 1, true), run(30, 1, true), run(20, 0, true)];
        let failed = LastRun::Failed {
            error: "it failed".to_owned(),
            since: clock::timestamp(30),
        };
        assert_eq!(last_run(&runs, true, false), failed);
        assert_eq!(last_run(&runs, false, false), LastRun::Done(clock::timestamp(50)));
        let cut_off = RunRecord {
            ended_ns: None,
            exit: None,
            ..run(60, 0, true)
        };
        let cut_off = [cut_off];
        assert_eq!(last_run(&cut_off, true, true), LastRun::UnderWay);
        assert_eq!(last_run(&cut_off, true, false), LastRun::CutOff(clock::timestamp(59)));
        assert_eq!(last_run(&[], true, false), LastRun::None);
    }

    #[test]
    fn a_run_is_late_when_an_alarm_would_be_raised() {
        let now = clock::now_ns();
        let hour = 3_600_000_000_000;
        let after = Period(Duration::from_secs(3 * 3600));
        let late = |runs: &[RunRecord]| overdue(runs, None, after).map(|age| age.0.as_secs() / 3600);
        assert_eq!(late(&[run(now - 4 * hour, 4, true)]), Some(4));
        assert_eq!(late(&[run(now, 1, true), run(now - 5 * hour, 0, true)]), Some(5));
        assert_eq!(late(&[run(now - 2 * hour, 3, true)]), None);
        assert_eq!(late(&[run(now + 9 * hour, 0, true)]), None, "the clock was set back");
        assert_eq!(late(&[]), None);
    }
}
