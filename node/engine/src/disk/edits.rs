//! Snapshots of disks, going back to them, clones, other sizes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::failure::{Exit, Failure};
use api::message::{Changed, Deed, Thing};
use api::output::Sink;
use api::request::{DiskClone, DiskResize, DiskSnapshot, TakeOver};
use backup::catalog::content;
use backup::heads::Looked;
use disk::running::edits::{Edit, NewVolume};
use disk::running::error::EditError;
use disks::open::OpenDisk;
use disks::record::{DiskRecord, VolumeBytes};

use super::known::KnownDisk;
use super::{JOURNAL_BYTES, check_name, check_size, new_volume, unusable};
use crate::policy::tolerate;
use crate::{Engine, failures};

/// How long a peer may take to say which disks there are.
const PATIENCE_HEADS: Duration = Duration::from_secs(20);
/// How long the end of such a command waits for peers.
const PATIENCE: Duration = Duration::from_secs(300);

impl Engine {
    /// Does something with a disk that may be open or not, and blocks. One that was not is closed again.
    pub(super) async fn with_disk<T: Send + 'static>(
        &self,
        known: &KnownDisk,
        sink: &Sink,
        act: impl FnOnce(&Arc<OpenDisk>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        if let Some((disk, _)) = self.0.disks.get(known.volume) {
            let acting = tokio::task::spawn_blocking(move || act(&disk));
            return acting.await.map_err(failures::worker)?;
        }
        let (disk, _in_use) = self.open_disk(known, TakeOver::Never).await?;
        let used = disk.clone();
        let acted = tokio::task::spawn_blocking(move || act(&used)).await;
        let closed = self.close_disk(known, disk, PATIENCE, sink).await;
        let done = acted.map_err(failures::worker)??;
        closed.map(|()| done)
    }

    async fn edit(&self, known: &KnownDisk, edit: Edit, sink: &Sink) -> Result<(), Failure> {
        let name = known.name.clone();
        self.with_disk(known, sink, move |disk| {
            disk.edit(&edit).map_err(|error| not_edited(&name, error))
        })
        .await
    }

    pub(crate) async fn snapshot_disk(&self, asked: DiskSnapshot, sink: &Sink) -> Result<Exit, Failure> {
        check_name(&asked.snapshot)?;
        let known = self.find_disk(&asked.name).await?;
        self.edit(&known, Edit::Snapshot(asked.snapshot.clone()), sink).await?;
        self.say_snapshot(Deed::Made, &known, &asked.snapshot, sink).await
    }

    pub(crate) async fn remove_disk_snapshot(&self, asked: DiskSnapshot, sink: &Sink) -> Result<Exit, Failure> {
        let known = self.find_disk(&asked.name).await?;
        // No clone is made meanwhile, for which something is held before any head names it.
        let _making = self.0.disks.making.lock().await;
        let named = self.named_volumes().await?;
        let (name, snapshot) = (known.name.clone(), asked.snapshot.clone());
        self.with_disk(&known, sink, move |disk| {
            let entry = disk.root().snapshots.into_iter().find(|entry| entry.name == snapshot);
            let held = entry.map(|entry| entry.held).unwrap_or_default();
            for volume in held_for_nobody(&held, named.as_ref()) {
                tracing::info!("{name}@{snapshot} was held for a clone that was never made");
                let snapshot = snapshot.clone();
                let let_go = disk.edit(&Edit::LetGo { snapshot, volume });
                let_go.map_err(|error| not_edited(&name, error))?;
            }
            let deleted = disk.edit(&Edit::DeleteSnapshot(snapshot));
            deleted.map_err(|error| not_edited(&name, error))
        })
        .await?;
        self.say_snapshot(Deed::Removed, &known, &asked.snapshot, sink).await
    }

    pub(crate) async fn roll_disk_back(&self, asked: DiskSnapshot, sink: &Sink) -> Result<Exit, Failure> {
        let known = self.find_disk(&asked.name).await?;
        self.refuse_served(&known, "rolled back")?;
        self.edit(&known, Edit::Rollback(asked.snapshot.clone()), sink).await?;
        sink.send(Changed::new(Deed::Changed, Thing::Disk, known.name)).await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn resize_disk(&self, asked: &DiskResize, sink: &Sink) -> Result<Exit, Failure> {
        check_size(asked.size)?;
        let known = self.find_disk(&asked.name).await?;
        // Clients ask for the size when they connect, and never again.
        self.refuse_served(&known, "resized")?;
        let (size, shrink) = (asked.size, asked.shrink);
        let name = known.name.clone();
        self.with_disk(&known, sink, move |disk| {
            let edit = match shrink && size < disk.root().size {
                true => Edit::Shrink(size),
                false => Edit::Grow(size),
            };
            disk.edit(&edit).map_err(|error| not_edited(&name, error))
        })
        .await?;
        sink.send(Changed::new(Deed::Changed, Thing::Disk, known.name)).await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn clone_disk(&self, asked: DiskClone, sink: &Sink) -> Result<Exit, Failure> {
        check_name(&asked.new)?;
        let known = self.find_disk(&asked.name).await?;
        let _making = self.0.disks.making.lock().await;
        self.refuse_taken(&asked.new).await?;
        let volume = new_volume()?;
        let config = self.config();
        let uploader = self.uploader(&config).await?;
        let (way, voters) = self.claim_new(volume, self.writer(uploader, &config)).await?;
        let new = NewVolume {
            volume,
            name: asked.new.clone(),
            voters: voters.iter().map(|voter| voter.0).collect(),
        };
        let taken = asked.snapshot.is_none().then(|| format!("for-{}", asked.new));
        let snapshot = asked.snapshot.or_else(|| taken.clone()).unwrap_or_default();
        let (name, of) = (known.name.clone(), snapshot.clone());
        let size = self
            .with_disk(&known, sink, move |disk| {
                let edits = taken.map(Edit::Snapshot).into_iter();
                let hold = Edit::Hold {
                    snapshot: of.clone(),
                    volume,
                };
                for edit in edits.chain([hold]) {
                    disk.edit(&edit).map_err(|error| not_edited(&name, error))?;
                }
                let created = disk.create_clone(&of, new, &way);
                if let Err(error) = created {
                    // A clone that never was holds nothing; one that a head names already may come to be.
                    let let_go = Edit::LetGo { snapshot: of, volume };
                    let is_named = !matches!(way.writer.disk(volume), Ok(None));
                    if !is_named && let Err(error) = disk.edit(&let_go) {
                        tracing::warn!("A snapshot is still held for a disk that was not made: {error}");
                    }
                    return Err(not_edited(&name, error));
                }
                let snapshot = disk.snapshot(&of).map_err(|error| not_edited(&name, error))?;
                Ok(snapshot.size())
            })
            .await?;
        let records = self.disk_records();
        let record = DiskRecord::new(volume, asked.new.clone(), size, None, JOURNAL_BYTES);
        records
            .put(&record)
            .map_err(|error| unusable(&records.folder_of(volume), &error))?;
        sink.send(Changed::new(Deed::Made, Thing::Disk, asked.new)).await?;
        Ok(Exit::Done)
    }

    /// All disks that any head of the account names, or this machine has written down; none if so many peers are away that a head may be
    /// known to them alone.
    async fn named_volumes(&self) -> Result<Option<BTreeSet<VolumeBytes>>, Failure> {
        let looked = self.look(PATIENCE_HEADS).await?;
        let away = looked.iter().filter(|looked| looked.heads.is_err()).count();
        if away > usize::from(tolerate(&self.config())) {
            return Ok(None);
        }
        let heads = looked.iter().flat_map(Looked::sound);
        let mut named: BTreeSet<_> = heads
            .flat_map(|open| open.body.disks.iter().flatten())
            .map(|head| head.volume)
            .collect();
        let posted = self.0.db.read(content::posted)?;
        let own = posted.and_then(|posted| posted.body.disks).unwrap_or_default();
        named.extend(own.into_iter().map(|head| head.volume));
        let Ok((records, unreadable)) = self.disk_records().all() else {
            return Ok(None);
        };
        if !unreadable.is_empty() {
            return Ok(None);
        }
        named.extend(records.into_iter().map(|record| record.volume));
        Ok(Some(named))
    }

    /// The snapshot that a removed clone came from is held for it no more.
    pub(super) async fn let_go(
        &self,
        origin: VolumeBytes,
        snapshot: String,
        volume: VolumeBytes,
        sink: &Sink,
    ) -> Result<(), Failure> {
        let disks = self.known_disks().await?;
        let Some(known) = disks.into_iter().find(|known| known.volume == origin) else {
            return Ok(());
        };
        self.edit(&known, Edit::LetGo { snapshot, volume }, sink).await
    }

    fn refuse_served(&self, known: &KnownDisk, what: &str) -> Result<(), Failure> {
        match self.0.disks.is_in_use(known.volume) {
            false => Ok(()),
            true => Err(Failure::new(
                Exit::Failed,
                format!("`{}` is served, and cannot be {what}", known.name),
            )
            .hint("end that first")),
        }
    }

    async fn say_snapshot(&self, deed: Deed, known: &KnownDisk, snapshot: &str, sink: &Sink) -> Result<Exit, Failure> {
        let name = format!("{}@{snapshot}", known.name);
        sink.send(Changed::new(deed, Thing::DiskSnapshot, name)).await?;
        Ok(Exit::Done)
    }
}

/// Disks for which a snapshot is held and that are nowhere: a process that died held it for a clone, and never came to make that.
fn held_for_nobody(held: &[VolumeBytes], named: Option<&BTreeSet<VolumeBytes>>) -> Vec<VolumeBytes> {
    let is_nowhere = |volume: &&VolumeBytes| named.is_some_and(|named| !named.contains(*volume));
    held.iter().filter(is_nowhere).copied().collect()
}

/// An edit was not made.
pub(super) fn not_edited(name: &str, error: EditError) -> Failure {
    match &error {
        EditError::Device(device) => {
            let failure = Failure::new(Exit::Failed, format!("`{name}` was not changed: {device}"));
            failure
                .exit(Exit::UnderProtected)
                .hint("if this was being sent, the disk goes on with it when it is served; `gridbackup disk info` says how it is")
        }
        EditError::Smaller { .. } => Failure::from_error(&error).hint("if that is meant, say --shrink"),
        EditError::NoSuchSnapshot(_) => Failure::from_error(&error).hint("`gridbackup disk info` lists its snapshots"),
        _ => Failure::from_error(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that died between the hold and the clone left the snapshot held for ever.
    #[test]
    fn a_snapshot_is_held_for_nobody_only_if_all_heads_were_seen_and_none_names_the_clone() {
        let held = [[2; 16], [3; 16]];
        let named = BTreeSet::from([[1; 16], [3; 16]]);
        assert_eq!(held_for_nobody(&held, Some(&named)), [[2; 16]]);
        assert!(held_for_nobody(&held, None).is_empty());
    }
}
