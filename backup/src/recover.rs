//! From the phrase and some peers back to a catalog: the newest valid head, its root, all logs and indexes.

use std::collections::HashSet;
use std::sync::Mutex;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use proto::id::{DeviceId, PackId};
use proto::keys::AccountKeys;
use proto::root::{Root, RootRef, SectionRef};
use rusqlite::Transaction;
use upload_queue::packs::{KnownPack, PackRow, Purpose};
use upload_queue::peers::Peer;

use crate::catalog::content::{self, Published};
use crate::catalog::tree::{self, Replay};
use crate::restore::fetch::FetchStats;
use crate::restore::sections::records;
use crate::restore::{Reader, RestoreError};

mod heads;
mod replay;

/// Shares that a peer lists at a time.
const LIST_PAGE: u32 = 4096;
/// Runs of sections fetched ahead, and how many sections a run has at most: each is up to 1 MiB of records.
const RUNS_AHEAD: usize = 4;
const RUN_SECTIONS_MAX: usize = 4;

/// What recovery found.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The device whose head was taken.
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
    /// Peers that answered, and of those the ones that served an older head (rollback) or a fork, with what was wrong.
    pub peers_answered: usize,
    /// Peers whose answer was not believed.
    pub peers_bad: Vec<(String, String)>,
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
    /// The catalog already is that of a device which backs up: it has jobs and snapshots that are nowhere else.
    #[error("This device has published backups already; recover into a new home")]
    InUse,
    /// Reading failed.
    #[error(transparent)]
    Read(#[from] RestoreError),
}

/// Rebuilds the empty catalog of `reader` from its peers. Repeatable: run again after a crash or when more peers are up;
/// what an earlier run left is cleared first. If it is dropped, nothing counts as recovered.
///
/// With `before_ns` (since 1970) the newest snapshot made before it is gone back to, as far as peers keep older heads.
pub async fn recover(
    reader: &Reader,
    keys: &AccountKeys,
    before_ns: Option<i64>,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<Recovered, RecoverError> {
    let known = write_to(reader, |tx| Ok(content::published(tx)?)).await?;
    if known.is_some_and(|published| published.seq > 0) {
        return Err(RecoverError::InUse);
    }
    let peers = reader.peers.all();
    progress("Asking peers for the newest backup");
    let heads = match before_ns {
        None => heads::ask(&peers, keys).await,
        Some(before_ns) => heads::ask_before(&peers, keys, before_ns).await,
    };
    let Some((head, body)) = heads.newest else {
        return Err(RecoverError::NoHead {
            answered: heads.peers_answered,
        });
    };
    let stats = Mutex::new(FetchStats::default());
    let roots = roots(reader, body.root.as_ref(), &stats).await?;
    progress("Asking peers which shares they hold");
    let listed = futures::future::join_all(peers.iter().map(list)).await;
    write_to(reader, replay::clear).await?;

    let device = head.device();
    let sections = roots.iter().map(|root| root.root.sections.len()).sum::<usize>();
    let (mut replay, mut done) = (Replay::new(device), 0);
    for found in &roots {
        let (packs, holders) = (found.packs(), listed.clone());
        let rows = write_to(reader, move |tx| replay::add_metadata_packs(tx, &packs, &holders)).await?;
        replay = replay_sections(reader, &found.root, &rows, replay, &stats, &mut |count| {
            done += count;
            progress(&format!(
                "Reading the backup log and index: {done} of {sections} sections"
            ));
        })
        .await?;
    }
    let root = roots
        .into_iter()
        .next_back()
        .map(|found| found.root)
        .unwrap_or_default();
    let adopted = Published {
        seq: 0,
        hash: [0; 32],
        head: Vec::new(),
        body,
        root,
    };
    write_to(reader, move |tx| replay::finish(tx, device, adopted, &listed)).await?;
    let (snapshots, forgotten) = write_to(reader, |tx| Ok((tree::kept(tx)?, tree::forgotten(tx)?))).await?;
    let mut peers_bad = heads.peers_bad;
    let served = stats.into_inner().expect("no panic while the counts are locked");
    peers_bad.extend(served.peers_bad);
    Ok(Recovered {
        device,
        device_name: head.cert.name.clone(),
        head: head.seq,
        snapshots: snapshots.len() as u64,
        forgotten: forgotten.len() as u64,
        files: snapshots.last().map_or(0, |snapshot| snapshot.record.files),
        peers_answered: heads.peers_answered,
        peers_bad,
    })
}

/// A root and where it lies.
struct FoundRoot {
    at: RootRef,
    root: Root,
}

impl FoundRoot {
    /// The packs its sections name, then the one it lies in.
    fn packs(&self) -> Vec<proto::cap_index::PackRecord> {
        let own = std::iter::once(&self.at.pack);
        self.root.packs.iter().chain(own).cloned().collect()
    }
}

/// The chain of roots, oldest first.
async fn roots(
    reader: &Reader,
    newest: Option<&RootRef>,
    stats: &Mutex<FetchStats>,
) -> Result<Vec<FoundRoot>, RestoreError> {
    let mut roots = Vec::new();
    let mut seen: HashSet<(PackId, u32)> = HashSet::new();
    let mut next = newest.cloned();
    while let Some(at) = next {
        let manifest = replay::manifest(&at.pack)?;
        if !seen.insert((manifest.pack, at.offset)) {
            return Err(damaged_root("its chain of older roots is a circle"));
        }
        // Nothing says who holds it: everyone is asked.
        let pack = KnownPack {
            row: PackRow(0),
            holders: vec![None; manifest.shares.len()],
            manifest,
            record: at.pack.clone(),
            purpose: Purpose::Metadata,
        };
        let key = reader.unwrap(&at.pack)?;
        let encoded = reader.read_pack(&pack, &key, &[(at.offset, at.len)], stats).await?;
        let root = records::<Root>(&encoded[0])?
            .pop()
            .ok_or_else(|| damaged_root("its section is empty"))?;
        next = root.older.clone();
        roots.push(FoundRoot { at, root });
    }
    roots.reverse();
    Ok(roots)
}

/// All shares that a peer holds for us. A peer that does not answer holds nothing that is known yet: its shares are found
/// by asking when they are needed.
async fn list(peer: &Peer) -> replay::Listed {
    let mut shares = Vec::new();
    loop {
        match peer.store.list(shares.last().copied(), LIST_PAGE).await {
            Ok(page)
                if page
                    .first()
                    .is_some_and(|first| shares.last().is_none_or(|last| first > last)) =>
            {
                shares.extend(page);
            }
            Ok(_) => break,
            Err(error) => {
                tracing::warn!("{} did not list its shares: {error}", peer.name);
                break;
            }
        }
    }
    (peer.key.clone(), shares)
}

/// Fetches a root's sections, several packs ahead, and replays them in order.
async fn replay_sections(
    reader: &Reader,
    root: &Root,
    rows: &[PackRow],
    mut replay: Replay,
    stats: &Mutex<FetchStats>,
    done: &mut (dyn FnMut(usize) + Send),
) -> Result<Replay, RestoreError> {
    let mut runs: Vec<(PackRow, Vec<SectionRef>)> = Vec::new();
    for section in &root.sections {
        let row = rows[replay::pack_of(root, section)?];
        match runs.last_mut() {
            Some((last, run)) if *last == row && run.len() < RUN_SECTIONS_MAX => run.push(*section),
            _ => runs.push((row, vec![*section])),
        }
    }
    let mut fetched = futures::stream::iter(runs)
        .map(|(row, run)| async move {
            let ranges: Vec<(u32, u32)> = run.iter().map(|section| (section.offset, section.len)).collect();
            let encoded: Vec<Bytes> = reader.read_row(row, &ranges, stats).await?;
            Ok::<_, RestoreError>((row, run, encoded))
        })
        .buffered(RUNS_AHEAD);
    while let Some((row, run, encoded)) = fetched.try_next().await? {
        let count = run.len();
        replay = write_to(reader, move |tx| {
            for (section, encoded) in run.iter().zip(&encoded) {
                replay::section(tx, &mut replay, row, section, encoded)?;
            }
            Ok(replay)
        })
        .await?;
        done(count);
    }
    Ok(replay)
}

/// Runs `work` in one write transaction, off the runtime's threads.
async fn write_to<T: Send + 'static>(
    reader: &Reader,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, RestoreError> + Send + 'static,
) -> Result<T, RestoreError> {
    let db = reader.db.clone();
    tokio::task::spawn_blocking(move || db.write(work)).await?
}

fn damaged_root(reason: &str) -> RestoreError {
    RestoreError::Damaged {
        what: "A root".to_owned(),
        reason: reason.to_owned(),
    }
}
