//! The transport that strangers come in by: handshakes that are going on are counted by where they come from, and the oldest
//! gives way. A socket that says nothing costs nobody but its own network a place.
//!
//! libp2p's own limit counts all addresses together and turns the newest away: thirty-two silent sockets shut a node.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::{Multiaddr, PeerId, Transport};
use tokio_util::sync::CancellationToken;

use super::crowd::{Crowd, Limits};

/// Handshakes going on at once. Chosen: a grid behind one address that comes back all at once, and 16 MiB of buffers in all.
/// Each takes ten seconds at most.
const HANDSHAKES: Limits = Limits {
    address: 32,
    network: 64,
    provider: 128,
    all: 256,
};

type Connection = (PeerId, StreamMuxerBox);

/// `inner`, with its handshakes counted.
pub(super) struct Doors {
    inner: Boxed<Connection>,
    waiting: Waiting,
}

impl Doors {
    /// Nobody waits.
    pub(super) fn new(inner: Boxed<Connection>) -> Self {
        Self {
            inner,
            waiting: Waiting::default(),
        }
    }
}

/// The handshakes that are going on; clones share them.
#[derive(Clone)]
struct Waiting(Arc<Mutex<State>>);

struct State {
    next: u64,
    crowd: Crowd<u64>,
    stops: Vec<(u64, CancellationToken)>,
}

/// One handshake; counted until this is dropped.
struct Turn {
    waiting: Waiting,
    number: u64,
    stop: CancellationToken,
}

impl Default for Waiting {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            next: 0,
            crowd: Crowd::new(HANDSHAKES),
            stops: Vec::new(),
        })))
    }
}

impl Waiting {
    fn enter(&self, address: &Multiaddr) -> Turn {
        let mut state = self.lock();
        let (number, stop) = (state.next, CancellationToken::new());
        state.next += 1;
        state.stops.push((number, stop.clone()));
        let gone = state.crowd.enter(number, address);
        state.stops.retain(|(number, stop)| {
            let goes = gone.contains(number);
            if goes {
                stop.cancel();
            }
            !goes
        });
        Turn {
            waiting: self.clone(),
            number,
            stop,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.waiting.lock();
        state.crowd.leave(self.number);
        state.stops.retain(|(number, _)| *number != self.number);
    }
}

impl Transport for Doors {
    type Output = Connection;
    type Error = io::Error;
    type ListenerUpgrade = BoxFuture<'static, Result<Connection, io::Error>>;
    type Dial = <Boxed<Connection> as Transport>::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        self.inner.dial(address, options)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let event = std::task::ready!(Pin::new(&mut self.inner).poll(context));
        Poll::Ready(match event {
            TransportEvent::Incoming {
                listener_id,
                upgrade,
                local_addr,
                send_back_addr,
            } => {
                let turn = self.waiting.enter(&send_back_addr);
                let upgrade = Box::pin(async move {
                    tokio::select! {
                        connection = upgrade => connection,
                        () = turn.stop.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
                    }
                });
                TransportEvent::Incoming {
                    listener_id,
                    upgrade,
                    local_addr,
                    send_back_addr,
                }
            }
            other => other.map_upgrade(|upgrade| Box::pin(upgrade) as Self::ListenerUpgrade),
        })
    }
}
