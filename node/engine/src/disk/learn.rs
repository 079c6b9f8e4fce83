//! Whose packs of disks are this machine's to look after: those of disks that no other machine has gone on with. What packs these are is read from
//! the disk's own table, without being its writer.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use api::failure::Failure;
use backup::catalog::content;
use backup::catalog::disks as known;
use database::{Db, DbError};
use disk::commit::opening::each_named;
use disks::record::VolumeBytes;
use proto::cap_index::PackRecord;
use proto::head::RootRef;
use proto::id::ShareId;
use proto::manifest::Manifest;
use upload_queue::packs;
use upload_queue::peers::{Peer, PeerKey};

use super::id;
use crate::listing::{in_trash, listed};
use crate::{Engine, failures};

/// What peers list.
#[derive(Default)]
struct Lists {
    /// Which shares each has.
    kept: Vec<(PeerKey, HashSet<ShareId>)>,
    /// What any of them has in its trash.
    trash: HashSet<ShareId>,
    /// Somebody did not answer: of a share that nobody lists nothing is known.
    is_partial: bool,
}

/// What becomes of a pack that the catalog does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    /// It is looked after from now on.
    Known,
    /// It was given up: the disk's table forgets it with its next commit.
    GivenUp,
    /// Too few shares were seen, and why cannot be told.
    Unclear,
}

impl Engine {
    /// Learns the packs of disks that are this machine's to look after, and forgets those of disks that another one writes by now, by what these peers
    /// say. Names of the disks that are looked after, and were not before.
    pub(crate) async fn learn_disks(&self, peers: &[Peer]) -> Result<Vec<String>, Failure> {
        self.learn_disks_into(&self.0.db, peers).await
    }

    /// The same into a catalog that is not this process's yet.
    pub(crate) async fn learn_disks_into(&self, db: &Db, peers: &[Peer]) -> Result<Vec<String>, Failure> {
        let posted = db.read(content::posted)?;
        let own = posted.and_then(|posted| posted.body.disks).unwrap_or_default();
        let mut learned = Vec::new();
        if own.is_empty() {
            return Ok(learned);
        }
        let newest = self.disk_heads(&own, peers).await;
        for head in own {
            let volume = head.volume;
            let is_elsewhere = newest.get(&volume).is_some_and(|(_, machine)| machine.is_some());
            match (is_elsewhere, db.read(|conn| known::is_here(conn, volume))?) {
                // It will hear of that by itself.
                (true, _) if self.0.disks.is_in_use(volume) => {}
                (true, _) => drop(db.write(|tx| known::set_elsewhere(tx, volume))?),
                (false, Some(true)) => {}
                (false, _) => match self.learn_disk(db, volume, head.root).await {
                    Ok(name) => learned.push(name),
                    Err(failure) => tracing::info!("The packs of disk {} are not known yet: {failure}", id(volume)),
                },
            }
        }
        Ok(learned)
    }

    /// Learns the packs of a disk from the table of this root. Its name.
    async fn learn_disk(&self, db: &Db, volume: VolumeBytes, at: RootRef) -> Result<String, Failure> {
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
        let (name, mut records) =
            read.map_err(|error| failures::too_few_shares(format!("its table of packs cannot be read: {error}")))?;
        let news = unknown_packs(db, &records)?;
        let lists = match news.is_empty() {
            true => Lists::default(),
            false => self.list_all().await,
        };
        let is_open = self.0.disks.is_in_use(volume);
        let mut unclear = 0;
        records.retain(|record| {
            let found = match news.contains(&record.manifest) {
                true => lists.find(record, is_open),
                false => Found::Known,
            };
            unclear += u64::from(found == Found::Unclear);
            found == Found::Known
        });
        db.write::<_, DbError>(|tx| {
            known::learn(tx, volume, &records)?;
            for (peer, kept) in &lists.kept {
                let new = records.iter().filter(|record| news.contains(&record.manifest));
                let shares = new.filter_map(|record| Some(Manifest::decode(&record.manifest).ok()?.shares));
                let held: Vec<ShareId> = shares.flatten().filter(|share| kept.contains(share)).collect();
                packs::record_held(tx, peer, &held)?;
            }
            match unclear {
                0 => known::set_here(tx, volume),
                _ => known::unset(tx, volume),
            }
        })?;
        match unclear {
            0 => Ok(name),
            _ => Err(failures::too_few_shares(format!(
                "too few shares of {unclear} of its packs were seen"
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
            if let Err(failure) = engine.learn_disk(&engine.0.db, volume, at).await {
                tracing::warn!("The packs of disk {} are not known here yet: {failure}", id(volume));
            }
        });
    }

    async fn list_all(&self) -> Lists {
        let peers = self.0.peers.all();
        let asking = peers
            .iter()
            .map(|peer| async move { (listed(peer).await, in_trash(peer).await) });
        let answers = futures::future::join_all(asking).await;
        let mut lists = Lists::default();
        for (peer, (kept, trash)) in peers.into_iter().zip(answers) {
            lists.trash.extend(trash.unwrap_or_default());
            match kept {
                Ok(kept) => lists.kept.push((peer.key, kept)),
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

/// Manifests of those that the catalog does not have.
fn unknown_packs(db: &Db, records: &[PackRecord]) -> Result<HashSet<Vec<u8>>, Failure> {
    let mut unknown = HashSet::new();
    for record in records {
        let Ok(manifest) = Manifest::decode(&record.manifest) else {
            continue;
        };
        if db.read(|conn| packs::find(conn, manifest.pack))?.is_none() {
            unknown.insert(record.manifest.clone());
        }
    }
    Ok(unknown)
}

impl Lists {
    fn find(&self, record: &PackRecord, is_open: bool) -> Found {
        let Ok(manifest) = Manifest::decode(&record.manifest) else {
            return Found::Unclear;
        };
        let is_kept = |share: &ShareId| self.kept.iter().any(|(_, kept)| kept.contains(share));
        let kept = manifest.shares.iter().filter(|share| is_kept(share)).count();
        let is_thrown_away = manifest
            .shares
            .iter()
            .any(|share| self.trash.contains(share) && !is_kept(share));
        match kept {
            _ if is_thrown_away => Found::GivenUp,
            kept if kept >= usize::from(manifest.shape.k) => Found::Known,
            _ if self.is_partial => Found::Unclear,
            // All of its shares at once: no loss does that, but trash that was emptied.
            0 => Found::GivenUp,
            // Who has the disk open knows what nobody needs, and gives that up.
            _ if is_open => Found::Known,
            _ => Found::Unclear,
        }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proto::id::{AccountId, PackId};
    use proto::keys::WRAPPED_KEY_BYTES;
    use proto::shape::{PackShape, ShareSize};

    use super::*;

    /// A pack of 2 of 3 shares.
    fn record() -> PackRecord {
        let shape = PackShape {
            k: 2,
            n: 3,
            share: ShareSize::Small,
        };
        let shares = (0..3).map(|share| ShareId([share; 32])).collect();
        let device = SigningKey::from_bytes(&[3; 32]);
        let manifest = Manifest::sign(PackId([9; 32]), shape, shares, AccountId([1; 32]), &device);
        PackRecord {
            manifest: manifest.encode(),
            wrapped_key: [0; WRAPPED_KEY_BYTES],
        }
    }

    /// A table names what was given up until the next commit: that is no loss, and no reason to build shares anew.
    #[test]
    fn a_pack_is_looked_after_if_it_can_be_read_and_was_not_given_up() {
        let found = |kept: &[u8], trash: &[u8], is_partial: bool, is_open: bool| {
            let shares = |numbers: &[u8]| numbers.iter().map(|number| ShareId([*number; 32])).collect();
            let lists = Lists {
                kept: vec![(PeerKey("dir:/a".into()), shares(kept))],
                trash: shares(trash),
                is_partial,
            };
            lists.find(&record(), is_open)
        };
        assert_eq!(found(&[0, 1], &[], false, false), Found::Known);
        assert_eq!(found(&[0, 1], &[], true, false), Found::Known);
        assert_eq!(
            found(&[0, 1], &[0], false, false),
            Found::Known,
            "it was moved to another peer"
        );
        assert_eq!(found(&[0, 1], &[2], false, false), Found::GivenUp);
        assert_eq!(found(&[], &[], false, false), Found::GivenUp);
        assert_eq!(found(&[], &[], true, true), Found::Unclear);
        assert_eq!(found(&[0], &[], true, true), Found::Unclear);
        assert_eq!(found(&[0], &[], false, false), Found::Unclear);
        assert_eq!(
            found(&[0], &[], false, true),
            Found::Known,
            "it is lost, unless nobody needs it"
        );
    }
}
