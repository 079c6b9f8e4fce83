//! Starting: the one place where the network's parts meet, and that knows which protocols are spoken.

use std::path::PathBuf;
use std::sync::Arc;

use stores::kept::Kept;
use stores::room::Offered;
use upload_queue::space::MinFree;

use crate::handle::NetHandle;
use crate::invite::Invites;
use crate::join::{JoinError, Membership};
use crate::members::Members;
use crate::net::protocol::Protocol;
use crate::net::start;
pub use crate::net::start::{TransportConfig, TransportError};
use crate::roster::RosterFileError;
use crate::share::serve::ShareProtocol;
use crate::{identity, keeper};

/// What a node needs to go on the network.
pub struct NetConfig {
    /// How it goes there.
    pub transport: TransportConfig,
    /// The account's name for people.
    pub account_name: String,
    /// Where roster, invitations and the shares of friends are kept: `roster`, `invites` and `store` in it.
    pub home: PathBuf,
    /// What all friends together may use, and each of them unless `set_quota` says otherwise.
    pub offered: Offered,
    /// What stays free of the disk that their shares are on.
    pub min_free: MinFree,
}

/// The network did not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The certificate is not this device's.
    #[error("The device certificate belongs to another device: run `gridbackup init` or `recover` again")]
    Certificate,
    /// The transport did not start.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The roster cannot be used.
    #[error(transparent)]
    Roster(#[from] RosterFileError),
    /// This device's addresses cannot be told.
    #[error(transparent)]
    Addresses(#[from] JoinError),
}

/// Starts networks.
pub struct Net;

impl Net {
    /// Listens, serves friends, and keeps the roster equal with theirs. Founds a grid of one if this home is in none. Must be
    /// called inside a tokio runtime. When it returns, `addresses` are those that the system gave.
    pub async fn start(config: NetConfig) -> Result<NetHandle, NetError> {
        if config.transport.cert.device != identity::device_of(&config.transport.device_key) {
            return Err(NetError::Certificate);
        }
        let members = Members::open(&config.home.join("roster"));
        let invites = Invites::open(&config.home.join("invites"));
        let kept = Kept::new(&config.home.join("store"), config.offered, config.min_free);
        let transport = start::prepare(config.transport, members.subscribe())?;
        let (core, kept) = (transport.core.clone(), Arc::new(kept));
        let membership = Membership::new(core.clone(), members, invites, config.account_name);
        let membership = Arc::new(membership);
        membership.found()?;
        // Whatever fails from here on stops what was started.
        let net = NetHandle::new(core.clone(), membership.clone(), kept.clone());
        transport.run(protocols(&membership, kept));
        tokio::spawn(keeper::run(membership.clone()));
        start::await_addresses(&core).await?;
        // Before anybody is invited: who joins learns of this device at once.
        match membership.tell_addresses().await {
            // A full disk: friends know the last addresses, and this node knows theirs.
            Err(JoinError::Keep(error)) => tracing::warn!("{error}"),
            other => other?,
        }
        Ok(net)
    }
}

/// All that is spoken here.
fn protocols(membership: &Arc<Membership>, kept: Arc<Kept>) -> Vec<Arc<dyn Protocol>> {
    let shares = ShareProtocol::new(membership.core.clone(), kept);
    vec![membership.clone(), Arc::new(shares)]
}
