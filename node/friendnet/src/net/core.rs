//! What all tasks of the network share: identity, connections, budget, clock, and a view of who belongs.
//!
//! Leaves out what only one protocol needs: changing the roster, invitations, kept shares.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ed25519_dalek::SigningKey;
use futures::io::AsyncWriteExt;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use proto::id::{AccountId, DeviceId};
use proto::keys::{DeviceCert, power};
use proto::wire::VERSION;
use proto::wire::by_device::Speaker;
use proto::wire::greeting::Greeting;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use upload_queue::bandwidth::Bandwidth;

use super::counters::Counters;
use super::driver::Dial;
use super::frames::Frame;
use super::greet;
use super::greet::GreetError;
use super::links::{Links, announced};
use super::resolve::resolve;
use crate::identity;
use crate::roster::Roster;

/// How long a connection may take to come up, and a stream to open on it.
pub const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How often a stream is opened that the other side drops without a word. libp2p-stream drops streams that arrive faster than
/// its acceptor is scheduled: two at once are enough.
const TRIES_MAX: u32 = 5;
/// The wait before the second try; each one after that waits longer by as much.
const RETRY_WAIT: Duration = Duration::from_millis(50);
/// Most addresses tried in one dial.
const ADDRESSES_MAX: usize = 16;

/// Shared by all tasks; see the module.
pub struct Core {
    /// This device's key.
    pub device_key: SigningKey,
    /// This device.
    pub device: DeviceId,
    /// Its certificate.
    pub cert: DeviceCert,
    /// Who is in the grid, always as it is now.
    pub members: watch::Receiver<Arc<Roster>>,
    /// Bytes and shares counted.
    pub counters: Counters,
    /// Connections.
    pub links: Arc<Links>,
    /// Addresses that the node was asked to listen on.
    pub listen: Vec<Multiaddr>,
    /// Addresses that others should be told besides: a forwarded port, a name.
    pub announce: Vec<Multiaddr>,
    /// Holds what is sent and received to rates.
    pub bandwidth: Bandwidth,
    /// Opens streams.
    pub control: libp2p_stream::Control,
    /// Asks the driver.
    pub dials: mpsc::Sender<Dial>,
    /// Ends all tasks.
    pub stop: CancellationToken,
}

/// A peer that no connection or stream leads to.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{device} does not answer: {reason}")]
pub struct ConnectError {
    /// The first digits of the device.
    device: String,
    /// What was tried.
    reason: String,
}

/// A stream that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The other side did not say welcome.
    #[error(transparent)]
    Greet(#[from] GreetError),
}

impl Core {
    /// The roster now.
    pub fn roster(&self) -> Arc<Roster> {
        self.members.borrow().clone()
    }

    /// This device as one that speaks for its account, if it may and its account has not revoked it.
    pub fn speaker(&self) -> Option<Speaker<'_>> {
        let speaker = Speaker {
            key: &self.device_key,
            cert: &self.cert,
        };
        let may = self.cert.powers & power::ADMIT != 0 && self.roster().is_in_force(&self.cert);
        may.then_some(speaker)
    }

    /// What this node says first on a stream that it opened.
    pub fn hello(&self, owner: Option<AccountId>) -> Greeting {
        Greeting::Hello {
            version: VERSION,
            cert: self.cert.encode().into(),
            owner,
        }
    }

    /// What this node answers to a caller that it will serve.
    pub fn welcome(&self) -> Greeting {
        Greeting::Welcome {
            version: VERSION,
            cert: self.cert.encode().into(),
        }
    }

    /// Sees that there is a connection to `device`: at once when there is one, else by dialing all known addresses. May be
    /// dropped.
    pub async fn connect(&self, device: DeviceId) -> Result<PeerId, ConnectError> {
        let failed = |reason: &str| ConnectError {
            device: device.short(),
            reason: reason.to_owned(),
        };
        let peer = identity::peer_id(device).ok_or_else(|| failed("its id is no key"))?;
        if self.links.is_connected(peer) {
            return Ok(peer);
        }
        let addresses = resolve(self.addresses_of(device, peer)).await;
        if addresses.is_empty() {
            return Err(failed("no address of it is known"));
        }
        let (done, outcome) = oneshot::channel();
        self.dials
            .send(Dial { peer, addresses, done })
            .await
            .map_err(|_| failed("the network is stopped"))?;
        match tokio::time::timeout(CONNECT_TIME, outcome).await {
            Err(_) => Err(failed("no connection in time")),
            Ok(Err(_)) => Err(failed("the network is stopped")),
            Ok(Ok(Err(reason))) => Err(failed(&reason)),
            Ok(Ok(Ok(()))) => Ok(peer),
        }
    }

    /// Connects, opens a stream, says the first frames, and returns it when the other side has said welcome. May be dropped.
    pub async fn open(&self, device: DeviceId, protocol: &'static str, said: &[Frame]) -> Result<Stream, OpenError> {
        let mut tries = 0;
        loop {
            let failed = match self.try_open(device, protocol, said).await {
                Err(OpenError::Greet(error @ GreetError::Dropped { .. })) => error,
                outcome => return outcome,
            };
            tries += 1;
            if tries == TRIES_MAX {
                return Err(failed.into());
            }
            tokio::time::sleep(RETRY_WAIT * tries).await;
        }
    }

    async fn try_open(&self, device: DeviceId, protocol: &'static str, said: &[Frame]) -> Result<Stream, OpenError> {
        let mut stream = self.open_stream(device, protocol).await?;
        for frame in said {
            frame.write(&mut stream).await.map_err(GreetError::from)?;
        }
        stream.flush().await.map_err(GreetError::from)?;
        greet::read_welcome(&mut stream, device).await?;
        Ok(stream)
    }

    async fn open_stream(&self, device: DeviceId, protocol: &'static str) -> Result<Stream, OpenError> {
        let peer = self.connect(device).await?;
        // A control that is shared opens one stream after the other; a clone has its own turn.
        let mut control = self.control.clone();
        let opening = control.open_stream(peer, StreamProtocol::new(protocol));
        let opened = tokio::time::timeout(CONNECT_TIME, opening).await;
        let opened = opened.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        Ok(opened.map_err(|error| GreetError::Dropped {
            reason: error.to_string(),
        })?)
    }

    /// Where this node can be reached, as others should be told.
    pub fn announced_addresses(&self) -> Vec<Multiaddr> {
        if !self.announce.is_empty() {
            return self.announce.clone();
        }
        let external = self.links.reachability().external;
        announced(&self.listen, &self.links.listening(), &external)
    }

    /// Seconds since 1970 by this machine's clock.
    pub fn now_secs(&self) -> u64 {
        SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
    }

    fn addresses_of(&self, device: DeviceId, peer: PeerId) -> Vec<Multiaddr> {
        let mut addresses = self.links.addresses(peer);
        let roster = self.roster();
        for address in roster.device(device).map(|known| known.addresses()).unwrap_or_default() {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses.truncate(ADDRESSES_MAX);
        addresses
    }
}

/// Splits the device off an address that ends in `/p2p/…`.
pub fn split_device(mut address: Multiaddr) -> Option<(DeviceId, Multiaddr)> {
    match address.pop() {
        Some(Protocol::P2p(peer)) => Some((identity::device_id(peer)?, address)),
        _ => None,
    }
}
