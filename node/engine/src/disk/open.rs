//! The disks that are open in this process: one face each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::failure::{Exit, Failure};
use api::message::{Changed, Deed, Thing};
use api::output::Sink;
use api::request::TakeOver;
use disk::DeviceError;
use disk::running::{OpenError, Running};
use disks::open::OpenDisk;
use disks::record::{DiskRecord, VolumeBytes};

use super::known::KnownDisk;
use super::{JOURNAL_BYTES, unusable};
use crate::{Engine, failures};

/// The disks that this process has open, opens or closes, by volume.
#[derive(Default)]
pub(crate) struct OpenDisks(BTreeMap<VolumeBytes, Opened>);

#[derive(Default)]
struct Opened {
    /// None as long as it is being opened.
    disk: Option<Arc<OpenDisk>>,
    served_at: Vec<String>,
}

impl OpenDisks {
    /// The disk, if it is open.
    pub fn get(&self, volume: VolumeBytes) -> Option<Arc<OpenDisk>> {
        self.0.get(&volume)?.disk.clone()
    }

    /// Whether it is open, being opened or being closed.
    pub fn is_in_use(&self, volume: VolumeBytes) -> bool {
        self.0.contains_key(&volume)
    }

    /// Where it is served.
    pub fn served_at(&self, volume: VolumeBytes) -> Vec<String> {
        self.0
            .get(&volume)
            .map_or_else(Vec::new, |opened| opened.served_at.clone())
    }

    /// It is served there.
    pub fn set_served_at(&mut self, volume: VolumeBytes, served_at: Vec<String>) {
        if let Some(opened) = self.0.get_mut(&volume) {
            opened.served_at = served_at;
        }
    }
}

impl Engine {
    /// Opens a disk, which is not open yet, to be written by this machine.
    pub(super) async fn open_disk(&self, known: &KnownDisk, take_over: TakeOver) -> Result<Arc<OpenDisk>, Failure> {
        {
            let mut opened = self.0.disks.lock().await;
            if opened.is_in_use(known.volume) {
                let error = format!("`{}` is served already", known.name);
                return Err(Failure::new(Exit::Failed, error).hint("`gridbackup disk info` says where"));
            }
            opened.0.insert(known.volume, Opened::default());
        }
        let disk = self.open_unused(known, take_over).await;
        let mut opened = self.0.disks.lock().await;
        match (&disk, opened.0.get_mut(&known.volume)) {
            (Ok(disk), Some(entry)) => entry.disk = Some(disk.clone()),
            _ => drop(opened.0.remove(&known.volume)),
        }
        disk
    }

    async fn open_unused(&self, known: &KnownDisk, take_over: TakeOver) -> Result<Arc<OpenDisk>, Failure> {
        let config = self.config();
        // Before the disk is looked at: what is newer at peers than this home's catalog is taken in by it.
        let uploader = self.uploader(&config).await?;
        let writer = self.writer(uploader, &config);
        let (way, newest) = self.claim(known, writer, take_over).await?;
        let mut record = match &known.record {
            Some(record) => record.clone(),
            None => self.new_record(known)?,
        };
        let records = self.disk_records();
        let cache = records.cache_of(&record);
        // What is written from now on may never come to peers.
        record.is_ahead = true;
        let put = records.put(&record);
        put.map_err(|error| unusable(&records.folder_of(record.volume), &error))?;
        let (packs, runtime) = (self.disk_packs().await?, tokio::runtime::Handle::current());
        let volume = known.volume;
        let opening = move || Running::open(&cache, volume, newest.number, &newest.root, packs, runtime);
        let running = tokio::task::spawn_blocking(opening).await.map_err(failures::worker)?;
        let running = running.map_err(|error| not_opened(&known.name, error))?;
        Ok(Arc::new(OpenDisk::start(running, way)))
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
    pub(super) async fn close_disk(&self, known: &KnownDisk, patience: Duration, sink: &Sink) -> Result<Exit, Failure> {
        let Some(disk) = self.0.disks.lock().await.get(known.volume) else {
            return Ok(Exit::Done);
        };
        let closed = disk.close(patience).await;
        let size = disk.root().size;
        drop(disk);
        if closed.is_ok() {
            self.note_closed(known.volume, size)?;
        }
        self.0.disks.lock().await.0.remove(&known.volume);
        closed.map_err(|error| self.not_committed(known, error))?;
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

fn not_opened(name: &str, error: OpenError) -> Failure {
    let (exit, hint) = match &error {
        OpenError::Device(DeviceError::Unavailable(_)) | OpenError::TurnedBack { .. } => {
            (Exit::TooFewShares, "try again when more peers are up")
        }
        OpenError::Overtaken { .. } => (Exit::Failed, "move that folder away to go on from the newest commit"),
        OpenError::OtherVolume { .. } => (Exit::Failed, "name another folder with --cache"),
        _ => (Exit::Failed, "`gridbackup check` says how its packs are"),
    };
    Failure::context(format!("`{name}` was not opened"), &error)
        .exit(exit)
        .hint(hint)
}
