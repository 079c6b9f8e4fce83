//! What differs between the kinds of peers, in one place. Each question is a `match` over all kinds: a new kind does not
//! compile until it has an answer to every one of them.
//!
//! How names in the database are written is `upload_queue::peers::place`'s concern, how URLs are `stores`'; what an
//! answer takes to be carried out stands with the kind, in `folders`, `buckets` and `peers`.

use std::collections::HashSet;
use std::iter::successors;

use api::failure::{Exit, Failure};
use api::message;
use api::message::PeerKind;
use api::output::Sink;
use api::request::PeerAdd;
use friendnet::net::reach::Route;
use proto::id::AccountId;
use proto::share_store::StoreError;
use upload_queue::peers::place::Place;
use upload_queue::peers::{Peer, PeerKey};

use crate::config::PeerUrl;
use crate::config::{Config, PeerConfig};
use crate::home::HomePaths;
use crate::known::{FoundPlace, KnownPeer};
use crate::prices::Price;
use crate::{Engine, buckets, folders, known, prices};

/// All kinds, in the order in which their peers are opened and listed.
pub(super) fn kinds() -> impl Iterator<Item = PeerKind> {
    successors(Some(PeerKind::Folder), |kind| match kind {
        PeerKind::Folder => Some(PeerKind::S3),
        PeerKind::S3 => Some(PeerKind::Friend),
        PeerKind::Friend => None,
    })
}

/// What is in a place.
pub(super) fn of(place: &Place) -> PeerKind {
    match place {
        Place::Friend(_) => PeerKind::Friend,
        Place::Folder(_) => PeerKind::Folder,
        Place::Bucket { .. } => PeerKind::S3,
    }
}

/// What a peer's entry in the config is about.
pub(super) fn meant(entry: &PeerConfig) -> PeerKind {
    match entry.named() {
        None => PeerKind::Friend,
        Some(PeerUrl::Folder(_)) => PeerKind::Folder,
        Some(PeerUrl::Bucket(_)) => PeerKind::S3,
    }
}

impl Engine {
    /// Makes the folder or bucket of a new peer a store, so that later an unmounted disk is told from an empty one; the request as it
    /// is to be carried out then.
    pub(super) async fn prepare_peer(&self, peer: &PeerAdd) -> Result<PeerAdd, Failure> {
        match PeerUrl::check(&peer.url).map_err(|reason| Failure::new(Exit::Usage, reason))? {
            PeerUrl::Folder(path) => self.prepare_folder(peer, path),
            PeerUrl::Bucket(_) => self.prepare_bucket(peer).await,
        }
    }

    /// The peers of a kind that config and roster name, opened.
    pub(super) fn open_peers(&self, kind: PeerKind, config: &Config) -> Vec<Peer> {
        match kind {
            PeerKind::Folder => self.folder_peers(config),
            PeerKind::S3 => self.bucket_peers(config),
            PeerKind::Friend => self.friend_peers(),
        }
    }

    /// The names in the database of all peers of a kind; `None` if they cannot be told now, which says nothing of any of them.
    pub(super) fn keys_of(&self, kind: PeerKind, config: &Config) -> Option<HashSet<PeerKey>> {
        match kind {
            PeerKind::Folder => Some(self.keys_of_folders(config).into_values().collect()),
            PeerKind::S3 => self.keys_of_slots(config.peers.iter()),
            PeerKind::Friend => self.keys_of_devices(&|_| true),
        }
    }

    /// The names in the database of what an entry of the config names. Which devices a friend has, the roster says.
    pub(super) fn keys_of_entry(&self, name: &str, config: &Config) -> HashSet<PeerKey> {
        let Some((key, entry)) = config.peers.get_key_value(name) else {
            return HashSet::new();
        };
        match meant(entry) {
            PeerKind::Folder => self.keys_of_folders(config).remove(name).into_iter().collect(),
            PeerKind::S3 => self.keys_of_slots([(key, entry)].into_iter()).unwrap_or_default(),
            PeerKind::Friend => HashSet::new(),
        }
    }

    /// What a peer that has no node of its own needs by the hour.
    pub(super) async fn keep_peers(&self, round: u32, sink: &Sink) {
        for kind in kinds() {
            match kind {
                PeerKind::Folder => self.expire_folders().await,
                PeerKind::S3 => self.look_after_buckets(round, sink).await,
                PeerKind::Friend => {}
            }
        }
    }

    /// What recovery finds at a place named on the command line; `None`: somebody who is to be met.
    pub(super) async fn find_place(&self, place: &str) -> Result<Option<FoundPlace>, Failure> {
        match PeerUrl::of(place) {
            Some(PeerUrl::Folder(path)) => self.existing_folder(path).map(Some),
            Some(PeerUrl::Bucket(url)) => self.existing_bucket(url).await.map(Some),
            None => Ok(None),
        }
    }
}

/// The peers of a kind as they can be told beside a process that holds the home: by config, roster and catalog.
pub(super) fn known(
    kind: PeerKind,
    home: &HomePaths,
    config: &Config,
    own: AccountId,
) -> Result<Vec<KnownPeer>, Failure> {
    match kind {
        PeerKind::Folder => Ok(folders::known(config)),
        PeerKind::S3 => buckets::known(config, &home.catalog()),
        PeerKind::Friend => Ok(known::friends(home, own)),
    }
}

/// Whether two peers are one for people: the slots of a bucket are.
pub(super) fn are_one(a: &Peer, b: &Peer) -> bool {
    let are_parts = match of(&a.place) {
        PeerKind::S3 => of(&b.place) == PeerKind::S3 && a.name == b.name,
        PeerKind::Folder | PeerKind::Friend => false,
    };
    are_parts || a.key == b.key
}

/// Whether it costs nothing to ask a peer.
pub(super) fn is_free_to_ask(peer: &Peer) -> bool {
    match of(&peer.place) {
        PeerKind::Friend | PeerKind::Folder => true,
        PeerKind::S3 => false,
    }
}

/// How a peer that answers is reached, in a word; a friend by the route to its device.
pub(super) fn reach(peer: &Peer, route: Option<Route>) -> message::Reach {
    match of(&peer.place) {
        PeerKind::Friend => route_of(route),
        PeerKind::Folder => message::Reach::Local,
        PeerKind::S3 => message::Reach::Remote,
    }
}

/// How a friend is reached.
pub(super) fn route_of(route: Option<Route>) -> message::Reach {
    match route {
        Some(Route::Direct) => message::Reach::Direct,
        Some(Route::HolePunched) => message::Reach::HolePunched,
        Some(Route::Relayed) => message::Reach::Relayed,
        None => message::Reach::None,
    }
}

/// What it means that a peer answered with an error, or, without one, not in time; and what to do about it.
pub(super) fn trouble(peer: &Peer, error: Option<&StoreError>) -> (String, &'static str) {
    let name = &peer.name;
    let reason = error.map_or_else(|| "no answer in time".to_owned(), ToString::to_string);
    match (of(&peer.place), error) {
        (PeerKind::Folder, _) => (
            format!("{name} cannot be used: {reason}"),
            "mount the disk or the share, or remove it with `gridbackup peer rm`",
        ),
        (PeerKind::S3, _) => (
            format!("{name} cannot be used: {reason}"),
            "look at the bucket's name, its endpoint and the credentials (AWS_PROFILE, AWS_ACCESS_KEY_ID, …) of this process",
        ),
        (PeerKind::Friend, Some(StoreError::Refused { .. })) => (
            format!("{name} refuses this account: {reason}"),
            "ask whether the account was removed from the grid: a ticket of whoever removed it brings it back",
        ),
        (PeerKind::Friend, _) => (
            format!("{name} is not reached: {reason}"),
            "ask whether that node runs and is online; if it does, one of the two must be reachable from outside, or both need a common friend who is",
        ),
    }
}

/// What a peer costs, where that is known.
pub(super) fn price(entry: &PeerConfig) -> Option<Price> {
    match entry.named()? {
        PeerUrl::Folder(_) => None,
        PeerUrl::Bucket(url) => prices::of_bucket(entry, url),
    }
}

/// Shares of a pack that a peer holds beyond one.
pub(super) fn further_shares(entry: &PeerConfig) -> u64 {
    match meant(entry) {
        PeerKind::S3 => entry.shares.unwrap_or(1).saturating_sub(1).into(),
        PeerKind::Folder | PeerKind::Friend => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_without_a_url_is_a_friends_and_only_buckets_cost() {
        let entry = |url: Option<&str>| PeerConfig {
            url: url.map(str::to_owned),
            price: Some(0.01),
            shares: Some(3),
            ..PeerConfig::default()
        };
        for (url, kind, is_priced, further) in [
            (None, PeerKind::Friend, false, 0),
            (Some("dir:/mnt"), PeerKind::Folder, false, 0),
            (Some("s3://bucket"), PeerKind::S3, true, 2),
        ] {
            let entry = entry(url);
            assert_eq!(meant(&entry), kind, "{url:?}");
            assert_eq!(price(&entry).is_some(), is_priced, "{url:?}");
            assert_eq!(further_shares(&entry), further, "{url:?}");
        }
    }

    #[test]
    fn no_kind_is_named_twice_or_forgotten() {
        let all: Vec<_> = kinds().collect();
        assert_eq!(all, [PeerKind::Folder, PeerKind::S3, PeerKind::Friend]);
    }
}
