//! The handle that the rest of the node uses of its network.
//!
//! ```text
//! Net::start(NetConfig) ─► NetHandle   listen, serve friends, keep the roster equal, until the last handle is dropped
//!   .peer(device)        ─► RemoteStore  a friend's node as a `PeerStore`
//!   .invite(…)           ─► Ticket       one line that admits one account
//!   .join(&ticket)                       become a member of somebody's grid
//!   .meet(address)                       recovery: find the grid again with a new device of a known account
//!   .roster(), .roster_changes()         who is a member, where their devices are
//!   .connected(device), .link_changes()  who is there now
//!   .counters()                          bytes and shares so far
//! ```
//!
//! Below it: `net` carries, `join` and `keeper` keep the roster, `share` asks and answers for shares. Never here: what a share or a
//! backup is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use proto::id::{AccountId, DeviceId};
use proto::wire::grid_limits::MEMBERS_MAX;
use proto::wire::roster::RosterRecords;
use proto::wire::ticket::{ADDRESSES_MAX, Ticket};
use stores::folder::Expired;
use stores::kept::Kept;
use stores::passing::Passing;
use stores::shelf::Shelf;
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use crate::identity;
use crate::invite::{Invite, InvitesError};
use crate::join::{JoinError, Membership};
use crate::net::core::{Core, split_device};
use crate::net::counters::Counted;
use crate::net::reach::{Reachability, Route};
use crate::roster::Roster;
use crate::share::remote::RemoteStore;

mod membership;

/// How often an exchange is tried.
const EXCHANGE_TRIES: u32 = 4;
/// Time between two tries (chosen: longer than both ends take to agree on one connection).
const EXCHANGE_PAUSE: Duration = Duration::from_millis(300);

/// An invitation could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// This device may not speak for its account.
    #[error("This device may not speak for its account: invite from one that may")]
    MayNotAdmit,
    /// The account is in no grid any more.
    #[error("This account is no member of the grid any more: nobody would be let in by its ticket")]
    NoMember,
    /// Nobody more can be admitted.
    #[error("The grid is full: it has {MEMBERS_MAX} members, with those removed, and no grid has more")]
    GridFull,
    /// The node listens nowhere.
    #[error("The node does not listen on any address that a friend could dial")]
    NoAddress,
    /// The system has no randomness.
    #[error("The system gives no random bytes: {reason}")]
    Random {
        /// What the system said.
        reason: String,
    },
    /// The invitation cannot be kept.
    #[error(transparent)]
    Keep(#[from] InvitesError),
}

/// The network of a node; clones share it, and it stops when the last one is dropped.
#[derive(Clone)]
pub struct NetHandle {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) kept: Arc<Kept>,
    stores: Mutex<HashMap<(DeviceId, Option<AccountId>), RemoteStore>>,
    _stop: DropGuard,
}

impl NetHandle {
    /// The handle of a network that stops with it.
    pub(crate) fn new(core: Arc<Core>, membership: Arc<Membership>, kept: Arc<Kept>) -> Self {
        let stop = core.stop.clone().drop_guard();
        Self {
            shared: Arc::new(Shared {
                core,
                membership,
                kept,
                stores: Mutex::default(),
                _stop: stop,
            }),
        }
    }

    /// This device.
    pub fn device(&self) -> DeviceId {
        self.shared.core.device
    }

    /// This device's name in libp2p.
    pub fn peer_id(&self) -> libp2p::PeerId {
        identity::keypair(&self.shared.core.device_key).public().to_peer_id()
    }

    /// All addresses that the node listens on, with this device at their end.
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.named(self.shared.core.links.listening())
    }

    /// The addresses that friends are told, with this device at their end.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.named(self.shared.core.announced_addresses())
    }

    /// A friend's device as a store of our shares. The same device gives the same lanes.
    pub fn peer(&self, device: DeviceId) -> RemoteStore {
        self.store(device, None)
    }

    /// The shares of another account on a friend's device: for reading, to audit and repair them.
    pub fn peer_of(&self, device: DeviceId, owner: AccountId) -> RemoteStore {
        self.store(
            device,
            Some(owner).filter(|owner| *owner != self.shared.core.cert.account),
        )
    }

    /// Whether there is a connection to a device.
    pub fn connected(&self, device: DeviceId) -> bool {
        identity::peer_id(device).is_some_and(|peer| self.shared.core.links.is_connected(peer))
    }

    /// How connections lead to a device, if there are any.
    pub fn route(&self, device: DeviceId) -> Option<Route> {
        self.shared.core.links.route(identity::peer_id(device)?)
    }

    /// How others reach this node.
    pub fn reachability(&self) -> Reachability {
        self.shared.core.links.reachability()
    }

    /// Changes whenever a connection comes or goes, or an address is learned.
    pub fn link_changes(&self) -> watch::Receiver<()> {
        self.shared.core.links.subscribe()
    }

    /// The roster now.
    pub fn roster(&self) -> Arc<Roster> {
        self.shared.core.roster()
    }

    /// The roster, with every change.
    pub fn roster_changes(&self) -> watch::Receiver<Arc<Roster>> {
        self.shared.membership.members.subscribe()
    }

    /// Makes a ticket that is good until `expires_secs` (seconds since 1970). `label` is for our own eyes.
    pub async fn invite(&self, label: &str, expires_secs: u64) -> Result<Ticket, InviteError> {
        let core = &self.shared.core;
        if core.speaker().is_none() {
            return Err(InviteError::MayNotAdmit);
        }
        let roster = core.roster();
        if !roster.admits(&core.cert) {
            return Err(InviteError::NoMember);
        }
        if !roster.has_room(core.cert.account) {
            return Err(InviteError::GridFull);
        }
        let addresses: Vec<_> = core
            .announced_addresses()
            .iter()
            .take(ADDRESSES_MAX)
            .map(|at| at.to_vec().into())
            .collect();
        if addresses.is_empty() {
            return Err(InviteError::NoAddress);
        }
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(|error| InviteError::Random {
            reason: error.to_string(),
        })?;
        let grid = roster.grid();
        let takes_back = roster.removals_by(core.cert.account);
        let ticket = Ticket {
            inviter: core.device,
            grid,
            secret,
            expires_secs,
            addresses,
        };
        let (kept, label) = (ticket.clone(), label.to_owned());
        let membership = self.shared.membership.clone();
        let keeping = tokio::task::spawn_blocking(move || membership.invites.add(&kept, &label, takes_back));
        keeping.await.map_err(|stopped| InviteError::Random {
            reason: stopped.to_string(),
        })??;
        Ok(ticket)
    }

    /// The invitations given out, oldest first.
    pub fn invites(&self) -> Vec<Invite> {
        self.shared.membership.invites.all()
    }

    /// Joins the grid of a ticket. Repeating it succeeds.
    pub async fn join(&self, ticket: &Ticket) -> Result<(), JoinError> {
        persist(|| self.shared.membership.join(ticket)).await
    }

    /// Dials a member by address (`…/p2p/…`) and takes over its roster if this account is in it: how a recovered device
    /// finds its grid. Returns the device met.
    pub async fn meet(&self, address: Multiaddr) -> Result<DeviceId, JoinError> {
        let no_device = || JoinError::Answer {
            reason: format!("{address} does not end in /p2p/ and a device"),
        };
        let (device, address) = split_device(address.clone()).ok_or_else(no_device)?;
        self.shared.membership.hint(device, std::iter::once(address));
        persist(|| self.shared.membership.exchange(device)).await?;
        Ok(device)
    }

    /// Takes in a roster that was found somewhere, as if its writer had been met.
    pub async fn learn(&self, records: RosterRecords) -> Result<(), JoinError> {
        self.shared.membership.learn(records).await
    }

    /// Remembers one more address of a device, until the node stops.
    pub fn hint(&self, device: DeviceId, address: Multiaddr) {
        self.shared.membership.hint(device, std::iter::once(address));
    }

    /// Limits what one friend may use here; `None` returns to the default.
    pub fn set_quota(&self, account: AccountId, quota: Option<u64>) {
        self.shared.kept.set_quota(account, quota);
    }

    /// Bytes that we keep for `account`. Blocks.
    pub fn kept_for(&self, account: AccountId) -> Result<u64, proto::share_store::StoreError> {
        self.shared.kept.shelf(account)?.used_bytes()
    }

    /// Ends what was in the trash of members for long enough. Blocks.
    pub fn expire(&self) -> Expired {
        let accounts: Vec<AccountId> = self.roster().members().map(|member| member.account).collect();
        self.shared.kept.expire(&accounts)
    }

    /// Removes everything kept for an account, for good; how many bytes it was. Blocks.
    pub fn evict(&self, account: AccountId) -> Result<u64, proto::share_store::StoreError> {
        self.shared.kept.evict(account)
    }

    /// When an account was last heard from, and when its newest head came, seconds since 1970. Blocks.
    pub fn signs_of_life(&self, account: AccountId) -> (u64, Option<u64>) {
        let kept = &self.shared.kept;
        let now_secs = self.now_secs();
        let roster = self.roster();
        let mut devices = roster.devices().filter(|device| device.cert.account == account);
        if devices.any(|device| self.connected(device.cert.device)) {
            kept.heard.note(account, now_secs);
            return (now_secs, kept.newest_head_secs(account));
        }
        (kept.heard.last_secs(account, now_secs), kept.newest_head_secs(account))
    }

    /// What this node passes on for friends.
    pub(crate) fn passing(&self) -> &Passing {
        &self.shared.kept.passing
    }

    /// Seconds since 1970.
    pub(crate) fn now_secs(&self) -> u64 {
        self.shared.core.now_secs()
    }

    /// The place of `owner`'s shares on this node, made when it is not there. Blocks on first use.
    pub fn shelf(&self, owner: AccountId) -> Result<Shelf, proto::share_store::StoreError> {
        self.shared.kept.shelf(owner)
    }

    /// What went over the network so far.
    pub fn counters(&self) -> Counted {
        self.shared.core.counters.read()
    }

    /// Waits until everything has stopped, whoever wanted it.
    pub async fn stopped(&self) {
        self.shared.core.stop.cancelled().await;
    }

    /// Stops everything, also for other clones.
    pub fn stop(&self) {
        self.shared.core.stop.cancel();
    }

    fn store(&self, device: DeviceId, owner: Option<AccountId>) -> RemoteStore {
        let mut stores = self.shared.stores.lock().expect("no panic while the stores are locked");
        let make = || RemoteStore::new(self.shared.membership.clone(), device, owner);
        stores.entry((device, owner)).or_insert_with(make).clone()
    }

    fn named(&self, addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
        let peer = self.peer_id();
        addresses
            .into_iter()
            .map(|address| address.with(Protocol::P2p(peer)))
            .collect()
    }
}

/// Tries an exchange again that was cut off: when both ends dial at once, one of the two connections is given up, and with
/// it whatever had begun on it. Every exchange may be repeated.
async fn persist<T, F>(exchange: impl Fn() -> F) -> Result<T, JoinError>
where
    F: Future<Output = Result<T, JoinError>>,
{
    for _ in 1..EXCHANGE_TRIES {
        match exchange().await {
            Err(JoinError::Answer { reason }) => tracing::debug!(reason, "An exchange is tried again"),
            done => return done,
        }
        tokio::time::sleep(EXCHANGE_PAUSE).await;
    }
    exchange().await
}
