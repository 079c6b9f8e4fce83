//! Accepts streams, finds out who opened them, and hands them to their protocols: the one place for what holds whichever protocol
//! it is, greetings, refusals, and how many streams may wait for a welcome.
//!
//! libp2p-stream drops a stream that nobody is waiting for, so the loops here never wait for anything else.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll, select_all};
use libp2p::{PeerId, Stream, StreamProtocol};
use proto::id::DeviceId;
use proto::wire::greeting::Refusal;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::core::Core;
use super::greet;
use super::greet::Caller;
use super::protocol::{Audience, Conversation, Protocol};
use crate::identity;

/// Streams of one device that has not greeted on them yet, if it is a member's. Chosen: more than it opens at once.
const UNGREETED_OF_MEMBER: usize = 32;
/// The same for any other device. Chosen: a recovering owner asks for the roster and for shares; with the strangers that are
/// let in this bounds their streams.
const UNGREETED_OF_STRANGER: usize = 4;

/// Lets streams in, by the protocols that it was given.
pub struct Acceptor {
    core: Arc<Core>,
    arrivals: SelectAll<BoxStream<'static, Arrival>>,
}

/// A stream that somebody opened.
struct Arrival {
    peer: PeerId,
    stream: Stream,
    protocol: Arc<dyn Protocol>,
}

impl Acceptor {
    /// From now on streams of these protocols are taken, and wait for `run`.
    pub fn new(core: Arc<Core>, protocols: Vec<Arc<dyn Protocol>>) -> Self {
        let arrivals = protocols.into_iter().map(|protocol| {
            let mut control = core.control.clone();
            let streams = control.accept(StreamProtocol::new(protocol.id()));
            let streams = streams.expect("each protocol has an id of its own, and there is one acceptor");
            let arrival = move |(peer, stream)| Arrival {
                peer,
                stream,
                protocol: protocol.clone(),
            };
            streams.map(arrival).boxed()
        });
        let arrivals = select_all(arrivals);
        Self { core, arrivals }
    }

    /// Serves all protocols until the node stops.
    pub async fn run(mut self) {
        let ungreeted = Ungreeted::default();
        let tasks = TaskTracker::new();
        loop {
            let Arrival { peer, stream, protocol } = tokio::select! {
                () = self.core.stop.cancelled() => break,
                Some(arrival) = self.arrivals.next() => arrival,
                else => break,
            };
            let Some(device) = identity::device_id(peer) else {
                continue;
            };
            let most = match self.core.roster().device(device) {
                Some(_) => UNGREETED_OF_MEMBER,
                None => UNGREETED_OF_STRANGER,
            };
            let entrance = Entrance {
                core: self.core.clone(),
                peer,
                device,
                turn: ungreeted.enter(peer, most),
            };
            let stop = self.core.stop.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = entrance.receive(stream, protocol) => {}
                }
            });
        }
    }
}

/// The streams of each device on which nobody has been greeted yet; clones share them. Of too many, the oldest is dropped.
#[derive(Clone, Default)]
struct Ungreeted(Arc<Mutex<HashMap<PeerId, VecDeque<CancellationToken>>>>);

/// A stream's place; given back when dropped.
struct Turn {
    ungreeted: Ungreeted,
    peer: PeerId,
    stop: CancellationToken,
}

impl Ungreeted {
    fn enter(&self, peer: PeerId, most: usize) -> Turn {
        let stop = CancellationToken::new();
        let mut streams = self.lock();
        let of_peer = streams.entry(peer).or_default();
        of_peer.push_back(stop.clone());
        while of_peer.len() > most {
            of_peer.pop_front().inspect(CancellationToken::cancel);
        }
        Turn {
            ungreeted: self.clone(),
            peer,
            stop,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, VecDeque<CancellationToken>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Tells it from the others: none of them is cancelled before it is taken out.
        self.stop.cancel();
        let mut streams = self.ungreeted.lock();
        if let Some(of_peer) = streams.get_mut(&self.peer) {
            of_peer.retain(|stop| !stop.is_cancelled());
            if of_peer.is_empty() {
                streams.remove(&self.peer);
            }
        }
    }
}

struct Entrance {
    core: Arc<Core>,
    peer: PeerId,
    device: DeviceId,
    turn: Turn,
}

impl Entrance {
    async fn receive(self, mut stream: Stream, protocol: Arc<dyn Protocol>) {
        let stop = self.turn.stop.clone();
        let conversation = tokio::select! {
            conversation = self.greet(&mut stream, protocol) => conversation,
            // It has opened too many.
            () = stop.cancelled() => return,
        };
        if let Some(conversation) = conversation {
            // A known friend no longer counts among the ungreeted.
            drop(self.turn);
            conversation(stream).await;
        }
    }

    /// What goes on with a caller who was let in; none if all is said.
    async fn greet(&self, stream: &mut Stream, protocol: Arc<dyn Protocol>) -> Option<Conversation> {
        let (refusal, about) = match greet::read_hello(stream, self.device).await {
            Err(refusal) => (refusal, None),
            Ok(caller) => match self.admit(stream, &caller, protocol).await {
                Err(refusal @ (Refusal::Revoked | Refusal::HasLeft)) => (refusal, Some(caller.cert.account)),
                // To the caller this node may be a member still.
                Err(Refusal::Stranger) => (Refusal::Stranger, Some(self.core.cert.account)),
                Err(refusal) => (refusal, None),
                Ok(conversation) => return conversation,
            },
        };
        tracing::debug!(peer = %self.peer, ?refusal, "A stream was refused");
        self.core.counters.refused();
        let roster = self.core.roster();
        greet::refuse(stream, refusal, about.and_then(|account| roster.word(account))).await;
        None
    }

    async fn admit(
        &self,
        stream: &mut Stream,
        caller: &Caller,
        protocol: Arc<dyn Protocol>,
    ) -> Result<Option<Conversation>, Refusal> {
        let roster = self.core.roster();
        let is_member = roster.admits(&caller.cert);
        if is_member && roster.device(self.device).is_none() {
            self.core.links.vouch(self.peer, &caller.cert);
        }
        if !is_member && protocol.audience() == Audience::Members {
            return Err(greet::outside(&roster, &caller.cert));
        }
        protocol.accept(stream, caller).await
    }
}
