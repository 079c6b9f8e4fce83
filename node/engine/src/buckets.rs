//! Buckets as peers: from the config, found again by recovery, looked after by the hour.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use api::failure::{Exit, Failure};
use api::request::PeerAdd;
use database::DbError;
use s3::{Client, Location};
use stores::bucket::{Bucket, SHARES_MAX, Slot, Terms};
use upload_queue::packs;
use upload_queue::peers::place::Place;
use upload_queue::peers::{Peer, PeerKey, Reach};

use crate::Engine;
use crate::config::{Config, PeerConfig, check_storage_class};
use crate::known::FoundPlace;
use crate::known::KnownPeer;

/// The buckets in use, and the part of the config that each was made from.
pub(super) type Buckets = Mutex<BTreeMap<String, (PeerConfig, Bucket)>>;

fn location_of(peer: &PeerConfig) -> Result<Location, s3::Error> {
    let mut location = Location::parse(peer.url.as_deref().unwrap_or_default())?;
    location.endpoint = peer.endpoint.clone().or(location.endpoint);
    location.region = peer.region.clone().or(location.region);
    Ok(location)
}

/// Whether two entries of the config mean the same folder or bucket, however its location is written.
pub(super) fn is_same_place(a: &PeerConfig, b: &PeerConfig) -> bool {
    match (location_of(a), location_of(b)) {
        (Ok(a), Ok(b)) => (a.bucket, a.prefix, a.endpoint) == (b.bucket, b.prefix, b.endpoint),
        _ => a.url.is_some() && a.url == b.url,
    }
}

impl Engine {
    /// The slots of all buckets in the config, as peers.
    pub(super) fn bucket_peers(&self, config: &Config) -> Vec<Peer> {
        let mut peers = Vec::new();
        for (name, peer) in &config.peers {
            match self.bucket(name, peer) {
                None => {}
                Some(Ok(bucket)) => peers.extend(slots(name, &bucket, shares(peer))),
                Some(Err(failure)) => tracing::error!("Peer {name} cannot be used: {failure}"),
            }
        }
        peers
    }

    /// The names in the database of all slots of these parts of the config; `None` if a bucket cannot be told by its name now.
    pub(super) fn keys_of_slots<'a>(
        &self,
        entries: impl Iterator<Item = (&'a String, &'a PeerConfig)>,
    ) -> Option<HashSet<PeerKey>> {
        let mut keys = HashSet::new();
        for (name, peer) in entries {
            if let Some(bucket) = self.bucket(name, peer) {
                let bucket = bucket.ok()?;
                keys.extend((0..shares(peer)).map(|slot| place(&bucket, slot).key()));
            }
        }
        Some(keys)
    }

    /// The bucket that a part of the config names, if it names one.
    fn bucket(&self, name: &str, peer: &PeerConfig) -> Option<Result<Bucket, Failure>> {
        peer.named()?.bucket()?;
        let mut buckets = self.0.buckets.lock().expect("no panic while the buckets are locked");
        if let Some((_, bucket)) = buckets.get(name).filter(|(made_from, _)| made_from == peer) {
            return Some(Ok(bucket.clone()));
        }
        let made = self.make_bucket(peer);
        if let Ok(bucket) = &made {
            buckets.insert(name.to_owned(), (peer.clone(), bucket.clone()));
        }
        Some(made)
    }

    fn make_bucket(&self, peer: &PeerConfig) -> Result<Bucket, Failure> {
        let failure = |error: s3::Error| Failure::from_error(&error);
        let location = location_of(peer).map_err(failure)?;
        let client = Client::new(location, &s3::Options::default()).map_err(failure)?;
        let terms = Terms {
            signer: self.signer(),
            storage_class: peer.storage_class.clone(),
            quota: peer.quota.as_ref().map(|quota| quota.0),
            bandwidth: self.0.bandwidth.clone(),
            slots: shares(peer),
        };
        let bucket = Bucket::new(client, self.0.home.account.clone(), terms);
        let used = self.0.db.read(|conn| {
            (0..shares(peer)).try_fold(0, |used, slot| {
                let (bytes, _) = packs::held_by(conn, &place(&bucket, slot).key())?;
                Ok::<_, DbError>(used + bytes)
            })
        })?;
        bucket.set_used_bytes(used);
        Ok(bucket)
    }

    /// Makes the store of a new bucket peer, or finds it: the request with as many shares as it takes.
    pub(super) async fn prepare_bucket(&self, peer: &PeerAdd) -> Result<PeerAdd, Failure> {
        if let Some(class) = &peer.storage_class {
            check_storage_class(class).map_err(|reason| Failure::new(Exit::Usage, reason))?;
        }
        check_shares(peer.shares)?;
        let asked = PeerConfig {
            url: Some(peer.url.clone()),
            endpoint: peer.endpoint.clone(),
            region: peer.region.clone(),
            ..PeerConfig::default()
        };
        let known = self.config().peers.get(&peer.name).cloned();
        let known = known.filter(|known| known.url == asked.url);
        let bucket = self.make_bucket(known.as_ref().unwrap_or(&asked))?;
        let there = self.slots_there(&peer.url, &bucket).await?;
        let wanted = match &known {
            // What the config says of it already stays.
            Some(known) => u16::from(shares(known).max(there.unwrap_or(1))),
            None => peer.shares.or(there.map(u16::from)).unwrap_or(1),
        };
        // A new one is asked again what it can do.
        let there = there.filter(|there| known.is_some() || wanted < u16::from(*there));
        self.grow(&peer.url, &bucket, there, wanted).await?;
        Ok(PeerAdd {
            shares: Some(wanted).filter(|wanted: &u16| *wanted > 1),
            ..peer.clone()
        })
    }

    /// Tells a bucket how many shares it takes from now on.
    pub(super) async fn resize_bucket(&self, name: &str, wanted: u16) -> Result<(), Failure> {
        check_shares(Some(wanted))?;
        match self.buckets().into_iter().find(|(bucket, ..)| bucket == name) {
            Some((_, bucket, there)) => self.grow(name, &bucket, Some(there), wanted).await,
            None => Ok(()),
        }
    }

    async fn grow(&self, place: &str, bucket: &Bucket, there: Option<u8>, wanted: u16) -> Result<(), Failure> {
        match there {
            Some(there) if wanted < u16::from(there) => Err(Failure::new(
                Exit::Usage,
                format!("{place} takes {there} shares of a pack, and what lies there cannot be put into {wanted}"),
            )
            .hint(format!(
                "say --shares {there} or more, or use another prefix of the bucket"
            ))),
            Some(there) if wanted == u16::from(there) => Ok(()),
            _ => {
                let shares = u8::try_from(wanted).unwrap_or(SHARES_MAX);
                bucket.create(shares).await.map_err(|error| failed(place, &error))
            }
        }
    }

    /// How many slots a bucket has. What somebody hid in spite of its locks is brought back first.
    async fn slots_there(&self, place: &str, bucket: &Bucket) -> Result<Option<u8>, Failure> {
        let failed = |error| failed(place, &error);
        let revealed = bucket.reveal().await.map_err(failed)?;
        if revealed > 0 {
            tracing::warn!("{revealed} objects in {place} had been deleted, and their locks brought them back");
        }
        bucket.shares().await.map_err(failed)
    }

    /// A bucket with a store of this account: its slots, what the config is to say of it, and what it knows of the grid.
    pub(super) async fn existing_bucket(&self, place: &str) -> Result<FoundPlace, Failure> {
        let location = Location::parse(place).map_err(|error| Failure::from_error(&error).exit(Exit::Usage))?;
        let mut config = PeerConfig {
            url: Some(location.to_string()),
            endpoint: location.endpoint.clone(),
            region: location.region.clone(),
            ..PeerConfig::default()
        };
        let bucket = self.make_bucket(&config)?;
        let Some(there) = self.slots_there(place, &bucket).await? else {
            return Err(
                Failure::new(Exit::Failed, format!("{location} has no store of this account"))
                    .hint("name the bucket and prefix that were added as a peer, with their endpoint (?endpoint=URL)"),
            );
        };
        config.shares = Some(there.into()).filter(|there| *there > 1);
        let roster = bucket.own_roster().await.map_err(|error| failed(place, &error))?;
        let name: String = location
            .bucket
            .chars()
            .map(|c| if c == '.' { '-' } else { c })
            .collect();
        Ok(FoundPlace {
            peers: slots(&name, &bucket, there),
            name,
            config,
            roster,
        })
    }

    /// The buckets of the config that can be used: names, and how many slots each has.
    pub(super) fn buckets(&self) -> Vec<(String, Bucket, u8)> {
        let config = self.config();
        let buckets = config.peers.iter().filter_map(|(name, peer)| {
            let bucket = self.bucket(name, peer)?.ok()?;
            Some((name.clone(), bucket, shares(peer)))
        });
        buckets.collect()
    }

    /// Ends the trash of buckets, which have no node of their own, and locks anew what they keep.
    pub(super) async fn keep_buckets(&self) {
        for (name, bucket, shares) in self.buckets() {
            match bucket.renew_locks(shares).await {
                Ok(0) => {}
                Ok(locked) => tracing::info!(name, locked, "objects of a bucket were locked anew"),
                Err(error) => tracing::warn!("The locks in {name} were not renewed: {error}"),
            }
            for slot in 0..shares {
                match bucket.slot(slot).expire().await {
                    Ok(expired) if expired.shares > 0 => tracing::info!(name, ?expired, "trash of a bucket"),
                    Ok(_) => {}
                    Err(error) => tracing::warn!("The trash in {name} was not looked through: {error}"),
                }
            }
        }
    }
}

/// The slots that the catalog knows, if the config has a bucket. Of which one, their names alone do not say.
pub(super) fn known(config: &Config, catalog: &Path) -> Result<Vec<KnownPeer>, Failure> {
    let mut entries = config.peers.values().filter_map(PeerConfig::named);
    if !entries.any(|named| named.bucket().is_some()) {
        return Ok(Vec::new());
    }
    let keys = database::look::<_, DbError>(catalog, packs::peers)?.into_iter();
    let slots = keys.filter(|key| matches!(key.place(), Some(Place::Bucket { .. })));
    let known = slots.map(|key| KnownPeer {
        domain: key.0.clone(),
        name: key.0.clone(),
        key,
    });
    Ok(known.collect())
}

fn shares(peer: &PeerConfig) -> u8 {
    u8::try_from(peer.shares.unwrap_or(1))
        .unwrap_or(SHARES_MAX)
        .clamp(1, SHARES_MAX)
}

fn check_shares(shares: Option<u16>) -> Result<(), Failure> {
    match shares {
        Some(shares) if !(1..=u16::from(SHARES_MAX)).contains(&shares) => Err(Failure::new(
            Exit::Usage,
            format!("A bucket takes from 1 to {SHARES_MAX} shares of a pack, not {shares}"),
        )),
        _ => Ok(()),
    }
}

fn place(bucket: &Bucket, slot: u8) -> Place {
    let url = bucket.url();
    Place::Bucket { url, slot }
}

/// Each slot takes a share of each pack, as if it were a domain of its own: what their common loss means is the policy's concern.
fn slots(name: &str, bucket: &Bucket, shares: u8) -> Vec<Peer> {
    let slots = (0..shares).map(|slot| {
        let place = place(bucket, slot);
        let store: Arc<Slot> = Arc::new(bucket.slot(slot));
        Peer {
            domain: place.to_string(),
            key: place.key(),
            place,
            name: name.to_owned(),
            reach: Reach::Remote,
            store,
        }
    });
    slots.collect()
}

fn failed(place: &str, error: &proto::share_store::StoreError) -> Failure {
    Failure::new(Exit::Failed, format!("{place} cannot be used: {error}"))
}
