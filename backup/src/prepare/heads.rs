//! Putting the newest head on the peers, once everything that it leads to can be read from them.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;

use crate::catalog::content::{self, publish};

use super::checkpoint::known_pack;
use super::pipeline::Run;
use super::{WriteError, WriteEvent};

/// A peer that does not answer for so long gets the head another time.
const PUT_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a peer is asked to take a head.
const PUT_TRIES: u32 = 4;
/// Time between two tries.
const PUT_PAUSE: Duration = Duration::from_millis(400);

impl Run<'_> {
    /// Puts the newest head if no peer has it yet and all that it names can be read. Nothing is wrong when that does not succeed now: the head is recorded,
    /// and the next checkpoint or run tries again.
    pub fn put_newest_head(&self) -> Result<(), WriteError> {
        let db = &self.writer.db;
        if db.read(publish::is_acknowledged)? || !self.is_readable()? {
            return Ok(());
        }
        let Some(published) = db.read(content::published)? else {
            return Ok(());
        };
        // A power cut must not forget a head that a peer has: another one with its number would be a fork.
        db.write_durable(publish::offer)?;
        let peers = self.writer.peers.all();
        let head = Bytes::from(published.head);
        let mut acknowledged = 0;
        let mut missing = peers;
        // A head on few peers is lost with them: who was just being dialled is asked again.
        for attempt in 0..PUT_TRIES {
            if attempt > 0 {
                std::thread::sleep(PUT_PAUSE);
            }
            let puts = missing.iter().map(|peer| {
                let put = peer.store.put_head(head.clone());
                async { tokio::time::timeout(PUT_TIMEOUT, put).await }
            });
            let answers = self.writer.runtime.block_on(async { join_all(puts).await });
            let asked = missing.len();
            let mut answers = answers.into_iter();
            missing.retain(|peer| match answers.next() {
                Some(Ok(Ok(()))) => false,
                answer => {
                    tracing::debug!(peer = peer.name, ?answer, "The peer did not take the new head");
                    true
                }
            });
            acknowledged += asked - missing.len();
            if missing.is_empty() {
                break;
            }
        }
        for peer in &missing {
            tracing::warn!(peer = peer.name, "The peer did not take the new head");
        }
        if acknowledged > 0 {
            db.write(publish::acknowledge)?;
            self.head_put(acknowledged);
            (self.events)(WriteEvent::Published {
                seq: published.seq,
                peers: acknowledged,
            });
        }
        Ok(())
    }

    /// Waits until the packs that only the newest head names are safe, or nothing more can be done for them now.
    pub fn wait_for_metadata(&self) -> Result<(), WriteError> {
        for pack in self.writer.db.read(publish::unacknowledged_packs)? {
            self.writer.runtime.block_on(self.writer.uploader.settled(pack))?;
        }
        Ok(())
    }

    fn is_readable(&self) -> Result<bool, WriteError> {
        let packs = self.writer.db.read(publish::unacknowledged_packs)?;
        self.writer.db.read(|conn| {
            for row in &packs {
                let pack = known_pack(conn, *row)?;
                if pack.held() < usize::from(pack.manifest.shape.k) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }
}
