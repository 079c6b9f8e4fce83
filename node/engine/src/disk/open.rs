//! The disks that are open in this process: one face each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::failure::{Exit, Failure};
use api::message::{Changed, Deed, Thing};
use api::output::Sink;
use api::request::TakeOver;
use disk::DeviceError;
use disk::running::Running;
use disk::running::edits::Edit;
use disk::running::error::OpenError;
use disks::open::OpenDisk;
use disks::record::{DiskRecord, VolumeBytes};

use super::claim::Claimed;
use super::known::KnownDisk;
use super::{JOURNAL_BYTES, unusable};
use crate::{Engine, failures};

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
            let error = format!("`{}` is in use by this process", known.name);
            return Err(Failure::new(Exit::Failed, error).hint("`gridbackup disk info` says where it is served"));
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
            let state = opened.disk.as_ref().map(|disk| disk.state());
            state
                .and_then(|state| state.waiting_since)
                .is_some_and(|since| since.elapsed() >= patience)
        };
        let behind = opened.values().filter(is_behind).map(|opened| opened.name.clone());
        (behind.collect(), opened.keys().copied().collect())
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
        let disk = self.open_unused(known, take_over).await?;
        in_use.set_disk(&disk);
        Ok((disk, in_use))
    }

    async fn open_unused(&self, known: &KnownDisk, take_over: TakeOver) -> Result<Arc<OpenDisk>, Failure> {
        let config = self.config();
        // Before the disk is looked at: what is newer at peers than this home's catalog is taken in by it.
        let uploader = self.uploader(&config).await?;
        let writer = self.writer(uploader, &config);
        let Claimed {
            way,
            newest,
            is_taken_over,
        } = self.claim(known, writer, take_over).await?;
        let mut record = match &known.record {
            Some(record) => record.clone(),
            None => self.new_record(known)?,
        };
        let records = self.disk_records();
        let cache = records.cache_of(&record);
        // What is written from now on may never come to peers.
        let was_ahead = std::mem::replace(&mut record.is_ahead, true);
        let put = records.put(&record);
        put.map_err(|error| unusable(&records.folder_of(record.volume), &error))?;
        let (packs, runtime) = (self.disk_packs().await?, tokio::runtime::Handle::current());
        let (volume, journal) = (known.volume, Some(record.journal_bytes));
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
        if is_taken_over {
            keep_taken_over(&disk).await?;
        }
        Ok(disk)
    }

    fn new_record(&self, known: &KnownDisk) -> Result<DiskRecord, Failure> {
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
    ) -> Result<Exit, Failure> {
        let closed = disk.close(patience).await;
        let size = disk.root().size;
        drop(disk);
        if let Err(error) = closed {
            return Err(self.not_committed(known, error).await);
        }
        self.note_closed(known.volume, size)?;
        // Whoever does not listen any more has what was to be told.
        let told = Changed::new(Deed::Committed, Thing::Disk, known.name.clone());
        let _nobody_reads = sink.send(told).await;
        Ok(Exit::Done)
    }

    fn note_closed(&self, volume: VolumeBytes, size: u64) -> Result<(), Failure> {
        let records = self.disk_records();
        let Ok(Some(mut record)) = records.of(volume) else {
            return Ok(());
        };
        record.is_ahead = false;
        record.size = size;
        let put = records.put(&record);
        put.map_err(|error| unusable(&records.folder_of(volume), &error))
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

pub(super) fn not_opened(name: &str, error: OpenError) -> Failure {
    let (exit, hint) = match &error {
        OpenError::Device(DeviceError::Unavailable(_)) | OpenError::TurnedBack { .. } => {
            (Exit::TooFewShares, "try again when more peers are up")
        }
        OpenError::Overtaken { .. } => (Exit::Failed, "`gridbackup disk salvage` makes a disk of what is there"),
        OpenError::OtherVolume { .. } => (Exit::Failed, "name another folder with --cache"),
        _ => (Exit::Failed, "`gridbackup check` says how its packs are"),
    };
    Failure::context(format!("`{name}` was not opened"), &error)
        .exit(exit)
        .hint(hint)
}
