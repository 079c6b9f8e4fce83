//! Peers as they are told before they are opened: by config, roster and catalog, or by what lies in a place.

use friendnet::roster::Roster;
use proto::id::AccountId;
use proto::wire::roster::RosterRecords;
use upload_queue::peers::place::Place;
use upload_queue::peers::{Peer, PeerKey};

use crate::config::PeerConfig;
use crate::home::HomePaths;

/// Where a failure domain begins with this, an account id follows: all devices of a person are lost together.
pub(super) const ACCOUNT: &str = "account:";

/// A peer as the facts need it.
#[derive(Clone, Debug)]
pub(super) struct KnownPeer {
    pub key: PeerKey,
    pub domain: String,
    pub name: String,
}

/// A place without a node that recovery can read from.
pub(super) struct FoundPlace {
    /// What to ask there: of a bucket, each slot.
    pub peers: Vec<Peer>,
    /// A name for it.
    pub name: String,
    /// What the config is to say.
    pub config: PeerConfig,
    /// The grid as one of the account's devices knew it.
    pub roster: Option<RosterRecords>,
}

/// The devices of friends, from the roster alone; nobody if it cannot be read.
pub(super) fn friends(paths: &HomePaths, own: AccountId) -> Vec<KnownPeer> {
    let roster = Roster::load(&paths.roster());
    let devices = roster.iter().flat_map(|roster| {
        roster.keepers(own).map(|device| KnownPeer {
            key: Place::Friend(device.cert.device).key(),
            domain: format!("{ACCOUNT}{}", device.cert.account),
            name: roster.name_of(device.cert.account),
        })
    });
    devices.collect()
}
