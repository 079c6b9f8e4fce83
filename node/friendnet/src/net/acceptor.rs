//! Accepts streams, finds out who opened them, and hands them to what serves them.
//!
//! libp2p-stream drops a stream that nobody is waiting for, so the loops here never wait for anything else.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use libp2p::{PeerId, Stream};
use libp2p_stream::IncomingStreams;
use proto::id::DeviceId;
use proto::wire::greeting::Refusal;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::core::Core;
use super::greet::Caller;
use super::{frames, greet};
use crate::share::serve;
use crate::{identity, join};
use stores::guests::Seat;

/// Streams of one device that has not greeted on them yet, if it is a member's. Chosen: more than it opens at once.
const UNGREETED_OF_MEMBER: usize = 32;
/// The same for any other device. Chosen: a recovering owner asks for the roster and for shares; with the strangers that are
/// let in this bounds their streams.
const UNGREETED_OF_STRANGER: usize = 4;

/// Serves both protocols until the node stops.
pub async fn run(core: Arc<Core>, mut shares: IncomingStreams, mut members: IncomingStreams) {
    let ungreeted = Ungreeted::default();
    let tasks = TaskTracker::new();
    loop {
        let (stream, protocol) = tokio::select! {
            () = core.stop.cancelled() => break,
            Some(stream) = shares.next() => (stream, Protocol::Share),
            Some(stream) = members.next() => (stream, Protocol::Member),
            else => break,
        };
        let (peer, stream) = stream;
        let Some(device) = identity::device_id(peer) else {
            continue;
        };
        let most = match core.members.roster().device(device) {
            Some(_) => UNGREETED_OF_MEMBER,
            None => UNGREETED_OF_STRANGER,
        };
        let entrance = Entrance {
            core: core.clone(),
            peer,
            device,
            turn: ungreeted.enter(peer, most),
        };
        let stop = core.stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = entrance.receive(stream, protocol) => {}
            }
        });
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

#[derive(Clone, Copy)]
enum Protocol {
    Share,
    Member,
}

struct Entrance {
    core: Arc<Core>,
    peer: PeerId,
    device: DeviceId,
    turn: Turn,
}

impl Entrance {
    async fn receive(self, mut stream: Stream, protocol: Protocol) {
        let stop = self.turn.stop.clone();
        let admitted = tokio::select! {
            admitted = self.greet(&mut stream, protocol) => admitted,
            // It has opened too many.
            () = stop.cancelled() => return,
        };
        if let Some((caller, seat)) = admitted {
            // A known friend no longer counts among the ungreeted.
            drop(self.turn);
            serve::run(self.core, caller, stream, seat).await;
        }
    }

    /// Who is to be served for long, and its place; none if all is said.
    async fn greet(&self, stream: &mut Stream, protocol: Protocol) -> Option<(Caller, Seat)> {
        let (refusal, about) = match greet::read_hello(stream, self.device).await {
            Err(refusal) => (refusal, None),
            Ok(caller) => match self.admit(stream, &caller, protocol).await {
                Err(refusal @ (Refusal::Revoked | Refusal::HasLeft)) => (refusal, Some(caller.cert.account)),
                // To the caller this node may be a member still.
                Err(Refusal::Stranger) => (Refusal::Stranger, Some(self.core.cert.account)),
                Err(refusal) => (refusal, None),
                Ok(seat) => return seat.map(|seat| (caller, seat)),
            },
        };
        tracing::debug!(peer = %self.peer, ?refusal, "A stream was refused");
        self.core.counters.refused();
        let roster = self.core.members.roster();
        greet::refuse(stream, refusal, about.and_then(|account| roster.word(account))).await;
        None
    }

    async fn admit(&self, stream: &mut Stream, caller: &Caller, protocol: Protocol) -> Result<Option<Seat>, Refusal> {
        let roster = self.core.members.roster();
        let is_member = roster.admits(&caller.cert);
        if is_member && roster.device(self.device).is_none() {
            self.core.links.vouch(self.peer, &caller.cert);
        }
        match protocol {
            Protocol::Member => join::answer(&self.core, stream, self.peer, caller).await.map(|()| None),
            Protocol::Share => {
                if !roster.is_in_force(&caller.cert) {
                    return Err(Refusal::Revoked);
                }
                if roster.has_left(caller.cert.account) {
                    return Err(Refusal::HasLeft);
                }
                if !is_member || roster.member(caller.owner).is_none() {
                    return Err(Refusal::Stranger);
                }
                let (core, account, now_secs) = (self.core.clone(), caller.cert.account, self.core.now_secs());
                tokio::task::spawn_blocking(move || core.kept.heard.note(account, now_secs));
                let seat = self.core.kept.guests.seat(account).map_err(|_| Refusal::Busy)?;
                let welcome = self.core.welcome();
                frames::say(stream, &welcome, Bytes::new())
                    .await
                    .map_err(|_| Refusal::Malformed)?;
                Ok(Some(seat))
            }
        }
    }
}
