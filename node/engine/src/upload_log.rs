//! What is logged while shares go up: of a peer that fails one line, not one for each share and try. The end of a run names it again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use upload_queue::peers::{PeerKey, PeerSet};
use upload_queue::uploader::UploadEvent;

/// A daemon says it again after this time. Chosen: a day's log has a line for every hour of it.
const TELL_AGAIN: Duration = Duration::from_secs(3_600);

/// Logs uploads.
pub struct UploadLog {
    peers: PeerSet,
    told: HashMap<PeerKey, Instant>,
}

impl UploadLog {
    /// A log that calls peers by the names that they have here.
    pub fn new(peers: PeerSet) -> Self {
        Self {
            peers,
            told: HashMap::new(),
        }
    }

    /// Logs an event, if it is worth it.
    pub fn log(&mut self, event: &UploadEvent) {
        match event {
            UploadEvent::PeerFailed { peer, error } => {
                let name = self.peers.get(peer).map_or_else(|| peer.0.clone(), |peer| peer.name);
                let is_told = self.told.get(peer).is_some_and(|told| told.elapsed() < TELL_AGAIN);
                if is_told {
                    tracing::debug!("{name} did not take a share: {error}");
                } else {
                    self.told.insert(peer.clone(), Instant::now());
                    tracing::warn!("{name} did not take a share: {error}");
                }
            }
            UploadEvent::SpoolLost { pack, share } => tracing::error!(pack = pack.0, %share, "a spooled share is lost"),
            UploadEvent::GaveWay { peer, shares } => {
                let peer = peer.as_ref().map_or("nobody", |peer| &peer.0);
                tracing::warn!(
                    peer,
                    shares,
                    "shares gave way in the full spool: they are owed until repair has built them anew"
                );
            }
            UploadEvent::Delivered { .. } | UploadEvent::PackSafe { .. } => {}
        }
    }
}
