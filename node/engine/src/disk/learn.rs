//! Whose packs of disks are this machine's to look after: those of disks that no other machine has gone on with. What packs these are is read from
//! the disk's own table, without being its writer.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use api::failure::Failure;
use backup::catalog::content;
use backup::catalog::disks as known;
use database::DbError;
use disk::commit::opening::each_named;
use disks::record::VolumeBytes;
use proto::cap_index::PackRecord;
use proto::head::RootRef;
use proto::id::ShareId;
use proto::manifest::Manifest;
use upload_queue::packs;
use upload_queue::peers::{Peer, PeerKey};

use super::id;
use crate::listing::listed;
use crate::{Engine, failures};

/// What peers list: who they are, and which shares each has.
struct Lists {
    all: Vec<(PeerKey, HashSet<ShareId>)>,
    /// Somebody did not answer: of a share that nobody lists nothing is known.
    is_partial: bool,
}

impl Engine {
    /// Learns the packs of disks that are this machine's to look after, and forgets those of disks that another one writes by now, by what these peers
    /// say. Names of the disks that are looked after, and were not before.
    pub(crate) async fn learn_disks(&self, peers: &[Peer]) -> Result<Vec<String>, Failure> {
        let posted = self.0.db.read(content::posted)?;
        let own = posted.and_then(|posted| posted.body.disks).unwrap_or_default();
        let mut learned = Vec::new();
        if own.is_empty() {
            return Ok(learned);
        }
        let newest = self.disk_heads(peers).await?;
        for head in own {
            let volume = head.volume;
            // Who opens a disk learns its packs by itself.
            if self.0.disks.is_in_use(volume) {
                continue;
            }
            let is_elsewhere = newest.get(&volume).is_some_and(|(_, machine)| machine.is_some());
            match (is_elsewhere, self.0.db.read(|conn| known::is_here(conn, volume))?) {
                (true, _) => drop(self.0.db.write(|tx| known::set_elsewhere(tx, volume))?),
                (false, Some(true)) => {}
                (false, _) => match self.learn_disk(volume, head.root).await {
                    Ok(name) => learned.push(name),
                    Err(failure) => tracing::info!("The packs of disk {} are not known yet: {failure}", id(volume)),
                },
            }
        }
        Ok(learned)
    }

    /// Learns the packs of a disk from the table of this root. Its name.
    pub(super) async fn learn_disk(&self, volume: VolumeBytes, at: RootRef) -> Result<String, Failure> {
        let reader = self.disk_packs().await?;
        let reading = move || {
            let mut records = Vec::new();
            let root = each_named(&at, reader, &mut |some| {
                records.extend_from_slice(some);
                Ok(())
            })?;
            Ok::<_, disk::DeviceError>((root.name, records))
        };
        let read = tokio::task::spawn_blocking(reading).await.map_err(failures::worker)?;
        let (name, records) =
            read.map_err(|error| failures::too_few_shares(format!("its table of packs cannot be read: {error}")))?;
        let news = self.unknown_packs(&records)?;
        let lists = match news.is_empty() {
            true => Lists {
                all: Vec::new(),
                is_partial: false,
            },
            false => self.list_all().await,
        };
        // Of which too few shares were seen while somebody is away: it is not known to be lost.
        let (seen, unseen): (Vec<_>, Vec<_>) = records
            .into_iter()
            .partition(|record| !lists.is_partial || !news.contains(&record.manifest) || lists.are_enough(record));
        self.0.db.write::<_, DbError>(|tx| {
            known::learn(tx, volume, &seen)?;
            for (peer, shares) in &lists.all {
                let shares: Vec<ShareId> = seen
                    .iter()
                    .filter(|record| news.contains(&record.manifest))
                    .filter_map(|record| Manifest::decode(&record.manifest).ok())
                    .flat_map(|manifest| manifest.shares)
                    .filter(|share| shares.contains(share))
                    .collect();
                packs::record_held(tx, peer, &shares)?;
            }
            match unseen.is_empty() {
                true => known::set_here(tx, volume),
                false => known::unset(tx, volume),
            }
        })?;
        match unseen.len() {
            0 => Ok(name),
            count => Err(failures::too_few_shares(format!(
                "too few shares of {count} of its packs were seen while peers are away"
            ))),
        }
    }

    /// The disk that is being opened here, by another machine's table or one of before.
    pub(super) fn learn_in_background(&self, volume: VolumeBytes, at: RootRef) {
        let engine = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            let Some(engine) = engine.upgrade().map(Engine) else {
                return;
            };
            if let Err(failure) = engine.learn_disk(volume, at).await {
                tracing::warn!("The packs of disk {} are not known here yet: {failure}", id(volume));
            }
        });
    }

    /// Manifests of those that the catalog does not have.
    fn unknown_packs(&self, records: &[PackRecord]) -> Result<HashSet<Vec<u8>>, Failure> {
        let mut unknown = HashSet::new();
        for record in records {
            let Ok(manifest) = Manifest::decode(&record.manifest) else {
                continue;
            };
            if self.0.db.read(|conn| packs::find(conn, manifest.pack))?.is_none() {
                unknown.insert(record.manifest.clone());
            }
        }
        Ok(unknown)
    }

    async fn list_all(&self) -> Lists {
        let peers = self.0.peers.all();
        let answers = futures::future::join_all(peers.iter().map(listed)).await;
        let mut lists = Lists {
            all: Vec::new(),
            is_partial: false,
        };
        for (peer, answer) in peers.into_iter().zip(answers) {
            match answer {
                Ok(shares) => lists.all.push((peer.key, shares)),
                Err(error) => {
                    tracing::debug!("{} does not say what it has of a disk: {error}", peer.name);
                    lists.is_partial = true;
                }
            }
        }
        lists
    }

    /// Names of these disks, as this machine has written them down.
    pub(crate) fn disk_names(&self, volumes: impl IntoIterator<Item = VolumeBytes>) -> Vec<String> {
        let records = self
            .disk_records()
            .all()
            .map(|(records, _)| records)
            .unwrap_or_default();
        let names: BTreeMap<_, _> = records.into_iter().map(|record| (record.volume, record.name)).collect();
        let name = |volume: VolumeBytes| {
            names
                .get(&volume)
                .cloned()
                .unwrap_or_else(|| id(volume)[..8].to_owned())
        };
        volumes.into_iter().map(name).collect()
    }
}

impl Lists {
    /// Whether as many different shares of a pack were seen as it takes to read it.
    fn are_enough(&self, record: &PackRecord) -> bool {
        let Ok(manifest) = Manifest::decode(&record.manifest) else {
            return false;
        };
        let is_seen = |share: &&ShareId| self.all.iter().any(|(_, shares)| shares.contains(*share));
        manifest.shares.iter().filter(is_seen).count() >= usize::from(manifest.shape.k)
    }
}
