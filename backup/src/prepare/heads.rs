//! Putting the newest head on the peers, once everything that it leads to can be read from them.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use upload_queue::peers::Peer;

use crate::catalog::content::{self, publish};

use super::checkpoint::known_pack;
use super::pipeline::Run;
use super::{WriteError, WriteEvent};

/// A peer that does not answer for so long gets the head another time.
const PUT_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a peer is asked to take a head that is on too few.
const PUT_TRIES: u32 = 4;
/// Time between two tries: a peer that was just being dialled is there by then.
const PUT_PAUSE: Duration = Duration::from_millis(400);

impl Run<'_> {
    /// Puts the newest head on the peers that do not have it, if all that it names can be read. It counts as published
    /// once it survives the loss of `tolerate` friends. Nothing is wrong when it does not get so far now: the head is
    /// recorded, and the next checkpoint or run goes on.
    pub fn put_newest_head(&self) -> Result<(), WriteError> {
        let db = &self.writer.db;
        let Some(published) = db.read(content::published)? else {
            return Ok(());
        };
        let holders = db.read(|conn| publish::holders(conn, &published.hash))?;
        let (mut holding, mut missing): (Vec<_>, Vec<_>) = self
            .writer
            .peers
            .all()
            .into_iter()
            .partition(|peer| holders.contains(&peer.key));
        let was_acknowledged = db.read(publish::is_acknowledged)?;
        if missing.is_empty() && was_acknowledged || !self.is_readable()? {
            return Ok(());
        }
        if !was_acknowledged {
            // A power cut must not forget a head that a peer has: another one with its number would be a fork.
            db.write_durable(publish::offer)?;
        }
        let head = Bytes::from(published.head);
        for attempt in 0..PUT_TRIES {
            if attempt > 0 {
                std::thread::sleep(PUT_PAUSE);
            }
            let (took, refused) = self.put(&head, missing);
            db.write(|tx| {
                took.iter()
                    .try_for_each(|peer| publish::add_holder(tx, &peer.key, &published.hash))
            })?;
            holding.extend(took);
            missing = refused;
            if missing.is_empty() || survives(&holding, self.writer.uploader.tolerate()) {
                break;
            }
        }
        for peer in &missing {
            tracing::warn!(peer = peer.name, "The peer did not take the new head");
        }
        self.head_put(holding.len());
        if survives(&holding, self.writer.uploader.tolerate()) {
            db.write(publish::acknowledge)?;
            (self.events)(WriteEvent::Published {
                seq: published.seq,
                peers: holding.len(),
            });
        }
        Ok(())
    }

    /// Offers a head to peers; those that took it, and those that did not.
    fn put(&self, head: &Bytes, peers: Vec<Peer>) -> (Vec<Peer>, Vec<Peer>) {
        let puts = peers.iter().map(|peer| {
            let put = peer.store.put_head(head.clone());
            async { tokio::time::timeout(PUT_TIMEOUT, put).await }
        });
        let answers = self.writer.runtime.block_on(async { join_all(puts).await });
        let (mut took, mut refused) = (Vec::new(), Vec::new());
        for (peer, answer) in peers.into_iter().zip(answers) {
            let reason = match answer {
                Ok(Ok(())) => {
                    took.push(peer);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it did not answer in time".to_owned(),
            };
            tracing::info!(
                peer = peer.name,
                reason,
                "The peer did not take the new head; it is offered again"
            );
            refused.push(peer);
        }
        (took, refused)
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

/// Whether what these peers have is still there when `tolerate` friends are lost.
fn survives(holding: &[Peer], tolerate: u8) -> bool {
    let domains: HashSet<&str> = holding.iter().map(|peer| peer.domain.as_str()).collect();
    domains.len() > usize::from(tolerate)
}
