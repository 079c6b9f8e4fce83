//! Accepts streams, finds out who opened them, and hands them to what serves them.
//!
//! libp2p-stream drops a stream that nobody is waiting for, so the loops here never wait for anything else.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use libp2p::{PeerId, Stream};
use libp2p_stream::IncomingStreams;
use proto::wire::greeting::Refusal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::core::Core;
use super::frames;
use super::greet::{self, Caller};
use crate::friendnet::{identity, join};
use crate::peer::serve;

/// Streams whose opener is not known yet. Chosen: more than a grid of 30 friends opens at once.
const UNKNOWN_MAX: usize = 64;
/// Streams being served. Chosen: two lanes and an exchange for each of 32 members.
const SERVED_MAX: usize = 128;

/// Serves both protocols until the node stops.
pub async fn run(core: Arc<Core>, mut shares: IncomingStreams, mut members: IncomingStreams) {
    let unknown = Arc::new(Semaphore::new(UNKNOWN_MAX));
    let served = Arc::new(Semaphore::new(SERVED_MAX));
    let tasks = TaskTracker::new();
    loop {
        let (stream, protocol) = tokio::select! {
            () = core.stop.cancelled() => break,
            Some(stream) = shares.next() => (stream, Protocol::Share),
            Some(stream) = members.next() => (stream, Protocol::Member),
            else => break,
        };
        let (peer, stream) = stream;
        // Without a permit the stream is dropped, and the other side told so by its reset: a flood gets nothing more.
        let Ok(permit) = unknown.clone().try_acquire_owned() else {
            continue;
        };
        let entrance = Entrance {
            core: core.clone(),
            peer,
            unknown: permit,
            served: served.clone(),
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

#[derive(Clone, Copy)]
enum Protocol {
    Share,
    Member,
}

struct Entrance {
    core: Arc<Core>,
    peer: PeerId,
    unknown: OwnedSemaphorePermit,
    served: Arc<Semaphore>,
}

impl Entrance {
    async fn receive(self, mut stream: Stream, protocol: Protocol) {
        let Some(device) = identity::device_id(self.peer) else {
            return;
        };
        let refusal = match greet::read_hello(&mut stream, device).await {
            Err(refusal) => refusal,
            Ok(caller) => match self.admit(&mut stream, &caller, protocol).await {
                Err(refusal) => refusal,
                Ok(Admitted::Served) => return,
                Ok(Admitted::Lane(permit)) => {
                    // A known friend no longer counts among the unknown.
                    drop(self.unknown);
                    serve::run(self.core, caller, stream).await;
                    return drop(permit);
                }
            },
        };
        tracing::debug!(peer = %self.peer, ?refusal, "A stream was refused");
        self.core.counters.refused();
        greet::refuse(&mut stream, refusal).await;
    }

    async fn admit(&self, stream: &mut Stream, caller: &Caller, protocol: Protocol) -> Result<Admitted, Refusal> {
        match protocol {
            Protocol::Member => join::answer(&self.core, stream, self.peer, caller)
                .await
                .map(|()| Admitted::Served),
            Protocol::Share => {
                let roster = self.core.members.roster();
                if !roster.admits(&caller.cert) || roster.member(caller.owner).is_none() {
                    return Err(Refusal::Stranger);
                }
                let (core, account, now_secs) = (self.core.clone(), caller.cert.account, self.core.now_secs());
                tokio::task::spawn_blocking(move || core.kept.heard.note(account, now_secs));
                let permit = self.served.clone().try_acquire_owned().map_err(|_| Refusal::Busy)?;
                let welcome = self.core.welcome();
                frames::say(stream, &welcome, Bytes::new())
                    .await
                    .map_err(|_| Refusal::Malformed)?;
                Ok(Admitted::Lane(permit))
            }
        }
    }
}

enum Admitted {
    /// All is said already.
    Served,
    /// A stream for shares, with its place among those served.
    Lane(OwnedSemaphorePermit),
}
