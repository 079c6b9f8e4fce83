//! The disks that are open in this process: one face each.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::failure::{Exit, Failure};
use api::output::Sink;
use api::request::TakeOver;
use backup::catalog::{content, disks as packs_of_disks};
use disk::DeviceError;
use disk::claim::writer::Commit;
use disk::commit::root::Root;
use disk::running::Running;
use disk::running::edits::Edit;
use disk::running::error::OpenError;
use disks::open::OpenDisk;
use disks::record::{DiskRecord, VolumeBytes};
use proto::head::RootRef;

use super::claim::{Change, Claimed, Claiming};
use super::known::KnownDisk;
use super::{JOURNAL_BYTES, say_failing, unusable};
use crate::{Engine, failures};

/// What to do with a cache that others have overtaken.
const OVERTAKEN_HINT: &str = "`gridbackup disk salvage` makes a disk of what is there";

/// The disks that this process has open, opens or closes.
#[derive(Default)]
pub(crate) struct OpenDisks {
    by_volume: Mutex<BTreeMap<VolumeBytes, Opened>>,
    /// Held while a disk is made: two of one name would be one too many.
    pub making: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
struct Opened {
    name: String,
    /// None as long as it is being opened, and while it is removed.
    disk: Option<Arc<OpenDisk>>,
    served_at: Vec<String>,
}

impl OpenDisks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<VolumeBytes, Opened>> {
        self.by_volume.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk, if it is open, and where it is served.
    pub fn get(&self, volume: VolumeBytes) -> Option<(Arc<OpenDisk>, Vec<String>)> {
        let opened = self.lock().get(&volume).cloned()?;
        Some((opened.disk?, opened.served_at))
    }

    /// Whether this process uses it.
    pub fn is_in_use(&self, volume: VolumeBytes) -> bool {
        self.lock().contains_key(&volume)
    }

    /// Takes a disk that nobody else uses; released with what comes back.
    pub(super) fn take(&self, known: &KnownDisk) -> Result<InUse<'_>, Failure> {
        let mut opened = self.lock();
        if opened.contains_key(&known.volume) {
            return Err(in_use(&known.name, &opened[&known.volume].served_at));
        }
        let entry = Opened {
            name: known.name.clone(),
            ..Opened::default()
        };
        opened.insert(known.volume, entry);
        let (disks, volume) = (self, known.volume);
        Ok(InUse { disks, volume })
    }

    /// Names of open disks of which something has waited for a commit for so long; and the volumes of all that are in use.
    pub fn behind(&self, patience: Duration) -> (Vec<String>, Vec<VolumeBytes>) {
        let opened = self.lock();
        let is_behind = |opened: &&Opened| {
            let waiting = opened.disk.as_ref().and_then(|disk| disk.waiting());
            waiting.is_some_and(|waiting| waiting >= patience)
        };
        let behind = opened.values().filter(is_behind).map(|opened| opened.name.clone());
        (behind.collect(), opened.keys().copied().collect())
    }
}

fn in_use(name: &str, served_at: &[String]) -> Failure {
    let failure = |error: String| Failure::new(Exit::Failed, error);
    match served_at {
        [] => failure(format!("`{name}` is in use by another command")).hint("try again when that has ended"),
        places => failure(format!("`{name}` is in use: it is served at {}", places.join(", ")))
            .hint("end that first, where `gridbackup disk serve` or `mount` runs"),
    }
}

/// A disk that this process uses; dropped, it does so no more.
pub(super) struct InUse<'a> {
    disks: &'a OpenDisks,
    volume: VolumeBytes,
}

impl InUse<'_> {
    fn set_disk(&self, disk: &Arc<OpenDisk>) {
        if let Some(opened) = self.disks.lock().get_mut(&self.volume) {
            opened.disk = Some(disk.clone());
        }
    }

    /// It is served there.
    pub fn set_served_at(&self, served_at: Vec<String>) {
        if let Some(opened) = self.disks.lock().get_mut(&self.volume) {
            opened.served_at = served_at;
        }
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.disks.lock().remove(&self.volume);
    }
}

impl Engine {
    /// Opens a disk, which is not open yet, to be written by this machine.
    pub(super) async fn open_disk(
        &self,
        known: &KnownDisk,
        take_over: TakeOver,
    ) -> Result<(Arc<OpenDisk>, InUse<'_>), Failure> {
        let in_use = self.0.disks.take(known)?;
        let mut disk = self.open_unused(known, take_over, &Change::Keep).await?;
        if !disk.root().leaving.is_empty() {
            // It was cut off: a majority of those before is needed no more, but for this.
            self.edit_voters(known, disk, vec![Edit::VotersTaken]).await?;
            let known = self.find_disk(&super::id(known.volume)).await?;
            disk = self.open_unused(&known, TakeOver::Never, &Change::Keep).await?;
        }
        in_use.set_disk(&disk);
        Ok((disk, in_use))
    }

    pub(super) async fn open_unused(
        &self,
        known: &KnownDisk,
        take_over: TakeOver,
        change: &Change,
    ) -> Result<Arc<OpenDisk>, Failure> {
        let config = self.config();
        // What is newer at peers than this home's catalog is taken in by it.
        let uploader = self.uploader(&config).await?;
        let known = &self.caught_up(known)?;
        let writer = self.writer(uploader, &config);
        let mut record = match &known.record {
            Some(record) => record.clone(),
            None => self.new_record(known)?,
        };
        let records = self.disk_records();
        let cache = records.cache_of(&record);
        // Where record and cache lie together: of a cache that is elsewhere another record may have told.
        let may_be_dropped = known.record.is_some() && !record.is_ahead && record.named_cache().is_none();
        if !may_be_dropped && take_over != TakeOver::Never {
            // Before it is claimed: what cannot be opened here is not to be taken from whoever serves it.
            self.refuse_overtaken(known, &cache)?;
        }
        let claiming = Claiming {
            take_over,
            change,
            offered: Running::offered(&cache, known.volume).map_err(|error| not_opened(&known.name, error))?,
        };
        let Claimed {
            way,
            newest,
            is_taken_over,
        } = self.claim(known, writer, claiming).await?;
        if may_be_dropped {
            drop_overtaken(known, &cache, &newest)?;
        }
        if record.is_ahead {
            warn_of_lost_journal(known, &cache, &newest);
        }
        // What is written from now on may never come to peers.
        let was_ahead = std::mem::replace(&mut record.is_ahead, true);
        let put = records.put(&record);
        put.map_err(|error| unusable(&records.folder_of(record.volume), &error))?;
        let (packs, runtime) = (self.disk_packs().await?, tokio::runtime::Handle::current());
        let (volume, journal) = (known.volume, Some(record.journal_bytes));
        let at = newest.root.clone();
        let opening = move || Running::open(&cache, volume, newest.number, &newest.root, packs, runtime, journal);
        let running = tokio::task::spawn_blocking(opening).await.map_err(failures::worker)?;
        let running = running.map_err(|error| {
            // Nothing was written to what was not opened.
            record.is_ahead = was_ahead;
            if let Err(error) = records.put(&record) {
                tracing::warn!("{}: {error}", records.folder_of(record.volume).display());
            }
            not_opened(&known.name, error)
        })?;
        let disk = Arc::new(OpenDisk::start(running, way));
        // Of one that was taken over packs may have been given up since it was this machine's.
        if is_taken_over || self.0.db.read(|conn| packs_of_disks::is_here(conn, volume))? != Some(true) {
            self.learn_in_background(volume, at);
        }
        if is_taken_over {
            keep_taken_over(&disk).await?;
        }
        Ok(disk)
    }

    /// The disk with the commit of this machine that its catalog has by now.
    fn caught_up(&self, known: &KnownDisk) -> Result<KnownDisk, Failure> {
        let mut known = known.clone();
        let posted = self.0.db.read(content::posted)?;
        if let Some(own) = posted.and_then(|posted| posted.body.disk(known.volume).cloned())
            && (known.machine.is_none() || known.head.as_ref().is_none_or(|head| head.number() < own.number()))
        {
            (known.head, known.machine) = (Some(own), None);
        }
        Ok(known)
    }

    /// Whether what this machine has not committed follows a commit that others have gone on from.
    pub(super) fn is_overtaken(&self, known: &KnownDisk, cache: &Path) -> Result<bool, Failure> {
        let Some(head) = &known.head else { return Ok(false) };
        let looked = Running::is_overtaken(cache, known.volume, head.commit, &head.root);
        looked.map_err(|error| not_opened(&known.name, error))
    }

    fn refuse_overtaken(&self, known: &KnownDisk, cache: &Path) -> Result<(), Failure> {
        if !self.is_overtaken(known, cache)? {
            return Ok(());
        }
        let error = format!(
            "`{}` was gone on with by another machine, or a copy of this one. What this one has not committed is in {} and stays there",
            known.name,
            cache.display()
        );
        Err(Failure::new(Exit::Failed, error).hint(overtaken_hint(known)))
    }

    fn new_record(&self, known: &KnownDisk) -> Result<DiskRecord, Failure> {
        if let (Some(_), Some(problem)) = (known.size, &known.problem) {
            let error = format!(
                "`{}` is not opened: where its journal is nobody knows: {problem}",
                known.name
            );
            let hint = "remove what is set aside to open it as of its last commit: what was written since is left in the folder that --cache named";
            return Err(Failure::new(Exit::Failed, error).hint(hint));
        }
        let size = known.size.ok_or_else(|| {
            let problem = known.problem.clone().unwrap_or_default();
            failures::too_few_shares(format!("`{}` cannot be read now: {problem}", known.name))
        })?;
        Ok(DiskRecord::new(
            known.volume,
            known.name.clone(),
            size,
            None,
            JOURNAL_BYTES,
        ))
    }

    /// Closes a disk, when nobody uses it any more: what was written is put on peers, if that is possible within `patience`.
    pub(super) async fn close_disk(
        &self,
        known: &KnownDisk,
        disk: Arc<OpenDisk>,
        patience: Duration,
        sink: &Sink,
    ) -> Result<(), Failure> {
        let closed = tokio::select! {
            closed = disk.close(patience) => closed,
            never = say_failing(&known.name, &disk, sink) => match never {},
        };
        let root = disk.root();
        drop(disk);
        if let Err(error) = closed {
            return Err(self.not_committed(known, error).await);
        }
        self.note_closed(known.volume, &root)
    }

    pub(super) fn note_closed(&self, volume: VolumeBytes, root: &Root) -> Result<(), Failure> {
        let records = self.disk_records();
        let Ok(Some(mut record)) = records.of(volume) else {
            return Ok(());
        };
        record.close(root);
        let put = records.put(&record);
        put.map_err(|error| unusable(&records.folder_of(volume), &error))
    }
}

fn warn_of_lost_journal(known: &KnownDisk, cache: &Path, newest: &Commit<RootRef>) {
    // Also a folder that is empty is not there: a disk that is not mounted, for one.
    if !cache.join("writer").exists() {
        tracing::warn!(
            "`{}`: its journal is not in {} any more, and with it what was written and not committed: it is opened as of its last commit, {}",
            known.name,
            cache.display(),
            newest.number
        );
    }
}

/// Keeps the state that was taken over: what the machine before has not committed lies on top of it, and is salvaged with it.
async fn keep_taken_over(disk: &Arc<OpenDisk>) -> Result<(), Failure> {
    let disk = disk.clone();
    let keeping = move || {
        let name = format!("before-takeover-{}", disk.root().commit);
        disk.edit(&Edit::Snapshot(name))
    };
    let kept = tokio::task::spawn_blocking(keeping).await.map_err(failures::worker)?;
    // One that has no room for another snapshot is served all the same.
    if let Err(error) = kept {
        tracing::warn!("What was taken over is not kept as a snapshot: {error}");
    }
    Ok(())
}

/// All that was written here was on peers when it was closed: if another machine has gone on from there, the cache is worth nothing. Before
/// anything says that something may be in it.
fn drop_overtaken(known: &KnownDisk, cache: &Path, newest: &Commit<RootRef>) -> Result<(), Failure> {
    let looked = Running::is_overtaken(cache, known.volume, newest.number, &newest.root);
    match looked.map_err(|error| not_opened(&known.name, error))? {
        true => std::fs::remove_dir_all(cache).map_err(|error| unusable(cache, &error)),
        false => Ok(()),
    }
}

fn overtaken_hint(known: &KnownDisk) -> &'static str {
    match known.record.as_ref().is_none_or(|record| record.is_ahead) {
        true => OVERTAKEN_HINT,
        false => "it had committed all when it was closed: remove that folder, and open the disk again",
    }
}

pub(super) fn not_opened(name: &str, error: OpenError) -> Failure {
    let (exit, hint) = match &error {
        OpenError::Device(DeviceError::Unavailable(_)) | OpenError::TurnedBack { .. } => {
            (Exit::TooFewShares, "try again when more peers are up")
        }
        OpenError::Overtaken { .. } => (Exit::Failed, OVERTAKEN_HINT),
        OpenError::OtherVolume { .. } => (Exit::Failed, "name another folder with --cache"),
        _ => (Exit::Failed, "`gridbackup check` says how its packs are"),
    };
    Failure::new(Exit::Failed, format!("`{name}` was not opened: {error}"))
        .exit(exit)
        .hint(hint)
}
