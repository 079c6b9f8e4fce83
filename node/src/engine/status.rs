//! Is my data safe: all of it, or these files.

use std::collections::HashSet;

use backup::catalog::{content, tree};
use backup::exclude::Rules;
use proto::id::VersionId;
use proto::log_record::{Content, Entry, EntryKind};
use rusqlite::Connection;
use upload_queue::db::DbError;
use upload_queue::job::JobState;
use upload_queue::packs;
use upload_queue::peers::PeerKey;

use crate::engine::buckets::is_further_slot;
use crate::engine::policy::{peers_within, tolerate};
use crate::engine::{Engine, clock};
use crate::failure::{Exit, Failure};
use crate::message::{self, FileState, FileStatus, PathName};
use crate::output::Sink;

/// Snapshots looked at, from the newest back, for one that is complete.
const SNAPSHOTS_LOOKED_AT_MAX: usize = 100;
/// Jobs being sent that are looked at one by one; the rest counts as waiting.
const SENDING_LOOKED_AT_MAX: usize = 10_000;

impl Engine {
    pub(super) async fn status(&self, sink: &Sink) -> Result<Exit, Failure> {
        self.connect().await?;
        let online = self.online().await;
        let tolerate = tolerate(&self.config());
        let counts = self.0.queue.counts()?;
        let jobs = self.0.queue.list(SENDING_LOOKED_AT_MAX)?;
        let sending = jobs.iter().filter(|job| job.state == JobState::Sending);
        let read = self.0.db.read(|conn| {
            let mut status = newest(conn)?;
            let at_risk = at_risk(conn, sending.map(|job| job.version))?;
            let risky = jobs.iter().filter(|job| at_risk.contains(&job.version));
            let bytes_at_risk: u64 = risky.map(|job| job.bytes).sum();
            let health = packs::health(conn, tolerate)?;
            status.files_at_risk = at_risk.len() as u64;
            status.files_waiting = counts.jobs - status.files_at_risk;
            status.bytes_waiting = counts.bytes.saturating_sub(bytes_at_risk);
            status.files_protected = status.files_total.saturating_sub(counts.jobs);
            status.bytes_protected = status.bytes_total.saturating_sub(counts.bytes);
            status.tolerates = health.tolerates.unwrap_or(0).into();
            status.safe = status.newest_complete_snapshot.is_some()
                && counts.jobs == 0
                && health.safe == health.packs
                && tree::unpublished(conn)?.is_empty();
            Ok::<_, DbError>(status)
        });
        let mut status = read?;
        let config = self.config();
        let is_counted = |key: &PeerKey| !is_further_slot(key);
        status.peers_online = online.iter().filter(|key| is_counted(key)).count() as u32;
        status.peers_total = self.0.peers.all().iter().filter(|peer| is_counted(&peer.key)).count() as u32;
        status.tolerate = config.tolerate.into();
        status.tolerates = peers_within(&config, status.tolerates.into()) as u32;
        status.costs = self.costs(&config)?;
        let (counts, kept) = self.kept_for_friends().await;
        (status.bytes_received, status.bytes_sent, status.bytes_for_friends) =
            (counts.bytes_received, counts.bytes_sent, kept);
        status.alarms = self.alarms().await;
        self.set_outlook(&mut status, &online)?;
        sink.send(status).await?;
        Ok(Exit::Done)
    }

    pub(super) async fn file_status(&self, paths: &[PathName], sink: &Sink) -> Result<Exit, Failure> {
        let config = self.config();
        let rules = Rules::new(&config.exclude).map_err(|error| Failure::from_error(&error).exit(Exit::Usage))?;
        for path in paths {
            let status = self
                .0
                .db
                .read(|conn| self.one_file(conn, path, &rules, tolerate(&config)));
            sink.send(status?).await?;
        }
        Ok(Exit::Done)
    }

    fn one_file(&self, conn: &Connection, path: &PathName, rules: &Rules, tolerate: u8) -> Result<FileStatus, DbError> {
        let mut status = FileStatus {
            path: path.clone(),
            state: FileState::Unknown,
            domains: 0,
            tolerates: 0,
        };
        let Some((snapshot, entry)) = tree::newest(conn, &path.0)? else {
            if rules.excludes(&path.0, path.to_path().is_dir()) {
                status.state = FileState::Excluded;
            }
            return Ok(status);
        };
        let mut worst = Worst {
            tolerate,
            held: u32::MAX,
            tolerates: u32::MAX,
            state: FileState::Protected,
        };
        if entry.kind == EntryKind::Directory {
            tree::walk(conn, snapshot, &path.0, &mut |_, entry| {
                worst.see(conn, self, entry)?;
                Ok::<_, DbError>(true)
            })?;
        } else {
            worst.see(conn, self, &entry)?;
        }
        if tree::unpublished(conn)?.contains(&snapshot) {
            worst.state = FileState::Waiting;
        }
        status.state = worst.state;
        if worst.held != u32::MAX {
            let tolerates = peers_within(&self.config(), worst.tolerates.into());
            (status.domains, status.tolerates) = (worst.held, tolerates as u32);
        }
        Ok(status)
    }
}

/// The least protected of some entries.
struct Worst {
    tolerate: u8,
    held: u32,
    tolerates: u32,
    state: FileState,
}

impl Worst {
    fn see(&mut self, conn: &Connection, engine: &Engine, entry: &Entry) -> Result<(), DbError> {
        let (waits, packs) = match entry.content {
            Content::None => return Ok(()),
            // Tiny content travels in the log: it is where the metadata packs are.
            Content::Inline(_) => (false, metadata_packs(conn)?),
            Content::Version(version) => {
                let job = engine.0.queue.get(conn, version)?;
                (
                    job.is_some_and(|job| job.state != JobState::Sending),
                    content::packs_of(conn, version)?,
                )
            }
        };
        if waits || packs.is_empty() {
            (self.state, self.held, self.tolerates) = (FileState::Waiting, 0, 0);
            return Ok(());
        }
        for row in packs {
            let Some(pack) = packs::get(conn, row)? else { continue };
            let (held, needed) = (pack.held() as u32, u32::from(pack.manifest.shape.k));
            self.held = self.held.min(held);
            self.tolerates = self.tolerates.min(held.saturating_sub(needed));
            if held < needed {
                self.state = FileState::Waiting;
            } else if held < needed + u32::from(self.tolerate) && self.state != FileState::Waiting {
                self.state = FileState::AtRisk;
            }
        }
        if let Content::Version(version) = entry.content
            && self.state == FileState::Protected
            && engine.0.queue.get(conn, version)?.is_some()
        {
            // On enough peers, but no head on the grid leads to it yet.
            self.state = FileState::Waiting;
        }
        Ok(())
    }
}

/// The pack of the newest root.
fn metadata_packs(conn: &Connection) -> Result<Vec<packs::PackRow>, DbError> {
    let root = content::published(conn)?.and_then(|published| published.body.root);
    let manifest = root.and_then(|root| proto::manifest::Manifest::decode(&root.pack.manifest).ok());
    let pack = match manifest {
        Some(manifest) => packs::find(conn, manifest.pack)?,
        None => None,
    };
    Ok(pack.into_iter().map(|pack| pack.row).collect())
}

/// What the catalog says of the newest snapshots.
fn newest(conn: &Connection) -> Result<message::Status, DbError> {
    let snapshots = tree::kept(conn)?;
    let mut status = message::Status::default();
    if let Some(newest) = snapshots.last() {
        (status.files_total, status.bytes_total) = (newest.record.files, newest.record.bytes);
    }
    for snapshot in snapshots.iter().rev().take(SNAPSHOTS_LOOKED_AT_MAX) {
        if tree::snapshot_complete(conn, snapshot.record.seq)? {
            status.newest_complete_snapshot = Some(snapshot.record.id.to_string());
            status.newest_complete_time = Some(clock::timestamp(snapshot.record.time_ns));
            break;
        }
    }
    Ok(status)
}

/// Of these versions, those whose content could be read from the grid now.
fn at_risk(conn: &Connection, versions: impl Iterator<Item = VersionId>) -> Result<HashSet<VersionId>, DbError> {
    let mut found = HashSet::new();
    for version in versions {
        let mut readable = true;
        for row in content::packs_of(conn, version)? {
            let pack = packs::get(conn, row)?;
            readable &= pack.is_some_and(|pack| pack.held() >= usize::from(pack.manifest.shape.k));
        }
        if readable {
            found.insert(version);
        }
    }
    Ok(found)
}
