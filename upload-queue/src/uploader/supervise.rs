//! Following the set of peers: lanes for those that come, other places for the shares of those that go.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};

use crate::peers::{Peer, PeerKey};
use crate::uploader::shared::Shared;
use crate::uploader::{lane, replan};

/// How often the peers are looked at without being woken.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Longest wait for a peer to say how much space it has.
const SPACE_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs until aborted, and the lanes with it.
pub(super) async fn supervise(shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    let mut lanes: HashMap<PeerKey, Vec<AbortHandle>> = HashMap::new();
    loop {
        let peers = shared.peers.all();
        for peer in &peers {
            let running = lanes.entry(peer.key.clone()).or_default();
            running.retain(|lane| !lane.is_finished());
            while running.len() < shared.config.puts_per_peer.max(1) {
                running.push(tasks.spawn(lane::lane(shared.clone(), peer.key.clone())));
            }
            tasks.spawn(ask_space(shared.clone(), peer.clone()));
        }
        lanes.retain(|_, running| running.iter().any(|lane| !lane.is_finished()));
        // Lanes of peers that are gone must notice it.
        shared.announce();
        replan::homeless(&shared).await;
        while let Some(ended) = tasks.try_join_next() {
            if ended.is_err_and(|error| error.is_panic()) {
                tracing::error!("a lane of the uploader panicked");
            }
        }
        let _ = tokio::time::timeout(LOOK_EVERY, shared.woken.notified()).await;
    }
}

async fn ask_space(shared: Arc<Shared>, peer: Peer) {
    if let Ok(Ok(space)) = tokio::time::timeout(SPACE_TIMEOUT, peer.store.space()).await {
        shared.lines().set_free_bytes(&peer.key, space.free_bytes);
    }
}
