//! Putting the newest head on the peers, once everything that it leads to can be read from them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use proto::head::Head;
use proto::share_store::StoreError;
use upload_queue::peers::{Peer, PeerKey};

use super::checkpoint::known_pack;
use super::disks::leads_anywhere;
use super::run::Run;
use super::{WriteError, WriteEvent};
use crate::catalog::content::post;
use crate::catalog::{content, heads};
use crate::heads::{look, note};

/// A peer that does not answer for so long gets the head another time.
const PUT_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a peer is asked to take a head that is on too few.
const PUT_TRIES: u32 = 4;
/// Time between two tries: a peer that was just being dialled is there by then.
const PUT_PAUSE: Duration = Duration::from_millis(400);

/// Held while a head is signed and recorded, and while the newest is put: a backup and a commit of a disk that run at once must not
/// sign two heads with one number, nor take one that was put for the newest. Clones are one lock.
#[derive(Clone, Debug, Default)]
pub struct HeadLock(Arc<Mutex<()>>);

impl HeadLock {
    /// Waits for whoever has it. Not to be taken twice by one thread.
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run<'_> {
    /// Puts the newest head on the peers that do not have it, if all that it names can be read. It counts as posted
    /// once it survives the loss of `tolerate` friends, and everything that only it names does, too. Until then it goes only to
    /// those who hold a share of all that: the others keep the head before, which may be better kept, so that one of the two
    /// can be read whoever is lost. Nothing is wrong when it does not get so far now: the head is recorded, and the next
    /// checkpoint or run goes on.
    pub fn put_newest_head(&self) -> Result<(), WriteError> {
        let _putting = self.writer.heads.lock();
        let db = &self.writer.db;
        let Some(posted) = db.read(content::posted)?.filter(leads_anywhere) else {
            return Ok(());
        };
        let holders = db.read(|conn| post::holders(conn, &posted.hash))?;
        let (mut holding, mut missing): (Vec<_>, Vec<_>) = self
            .writer
            .peers
            .all()
            .into_iter()
            .partition(|peer| holders.contains(&peer.key));
        let was_acknowledged = db.read(post::is_acknowledged)?;
        if missing.is_empty() && was_acknowledged {
            return Ok(());
        }
        let kept = self.kept()?;
        match &kept {
            Kept::AsAsked => {}
            Kept::By(peers) => missing.retain(|peer| peers.contains(&peer.key)),
            Kept::Unreadable => return Ok(()),
        }
        if !was_acknowledged {
            // A power cut must not forget a head that a peer has: another one with its number would be a fork.
            db.write_durable(post::offer)?;
        }
        let head = Bytes::from(posted.head);
        let is_own = Head::decode(&head).is_ok_and(|head| head.device() == self.writer.cert.device);
        let mut refused = Vec::new();
        for attempt in 0..PUT_TRIES {
            if attempt > 0 {
                std::thread::sleep(PUT_PAUSE);
            }
            let took = self.put(&head, std::mem::take(&mut missing), &mut refused);
            db.write(|tx| {
                took.iter()
                    .try_for_each(|peer| post::add_holder(tx, &peer.key, &posted.hash))
            })?;
            holding.extend(took);
            missing = refused.iter().map(|(peer, _)| Peer::clone(peer)).collect();
            if missing.is_empty() || survives(&holding, self.writer.uploader.tolerate()) || attempt + 1 == PUT_TRIES {
                break;
            }
            refused.clear();
        }
        for (peer, error) in refused.iter().filter(|_| is_own) {
            tracing::warn!(peer = peer.name, "The peer did not take the new head: {error}");
        }
        // Another device's, from which this catalog was recovered: that device may have gone on.
        self.heads_refused(refused.into_iter().filter(|_| is_own));
        self.head_put(holding.len());
        self.look_whether_overtaken()?;
        if survives(&holding, self.writer.uploader.tolerate()) && kept == Kept::AsAsked {
            db.write(post::acknowledge)?;
            (self.events)(WriteEvent::Posted {
                seq: posted.seq,
                peers: holding.len(),
            });
        }
        Ok(())
    }

    /// Whether peers were seen to hold heads of this device that this catalog does not know: a copy of the home has gone on, and a
    /// head above its own would hide what it has backed up. Whoever catches up reads again what none was signed for.
    pub fn is_overtaken(&self) -> Result<bool, WriteError> {
        let ahead = self
            .writer
            .db
            .read(|conn| heads::ahead(conn, self.writer.cert.device))?;
        Ok(!ahead.is_empty())
    }

    /// Asks those who refused the head for theirs. What they say counts for nothing, what this device has signed does.
    fn look_whether_overtaken(&self) -> Result<(), WriteError> {
        let refusing = self.heads_refused_by();
        let mut peers = self.writer.peers.all();
        peers.retain(|peer| refusing.contains(&peer.key));
        if peers.is_empty() {
            return Ok(());
        }
        let looking = look(&peers, &self.writer.keys, PUT_TIMEOUT);
        let looked = self.writer.runtime.block_on(looking);
        Ok(self.writer.db.write(|tx| note(tx, &looked))?)
    }

    /// Offers a head to peers; returns those that took it, and adds those that did not, with the reason.
    fn put(&self, head: &Bytes, peers: Vec<Peer>, refused: &mut Vec<(Peer, StoreError)>) -> Vec<Peer> {
        let puts = peers.iter().map(|peer| {
            let put = peer.store.put_head(head.clone());
            async { tokio::time::timeout(PUT_TIMEOUT, put).await }
        });
        let answers = self.writer.runtime.block_on(async { join_all(puts).await });
        let mut took = Vec::new();
        for (peer, answer) in peers.into_iter().zip(answers) {
            let error = match answer {
                Ok(Ok(())) => {
                    took.push(peer);
                    continue;
                }
                Ok(Err(error)) => error,
                Err(_) => StoreError::Unreachable {
                    reason: "it did not answer in time".to_owned(),
                },
            };
            tracing::info!(
                peer = peer.name,
                %error,
                "The peer did not take the new head; it is offered again"
            );
            refused.push((peer, error));
        }
        took
    }

    /// Waits until the packs that only the newest head names are safe, or nothing more can be done for them now.
    pub fn wait_for_metadata(&self) -> Result<(), WriteError> {
        for pack in self.writer.db.read(post::unacknowledged_packs)? {
            self.writer.runtime.block_on(self.writer.uploader.settled(pack))?;
        }
        Ok(())
    }

    /// How well the packs are kept that no head names which counts as posted.
    fn kept(&self) -> Result<Kept, WriteError> {
        let packs = self.writer.db.read(post::unacknowledged_packs)?;
        let tolerate = usize::from(self.writer.uploader.tolerate());
        self.writer.db.read(|conn| {
            let (mut by, mut as_asked) = (None::<HashSet<PeerKey>>, true);
            for row in &packs {
                let pack = known_pack(conn, *row)?;
                let needed = usize::from(pack.manifest.shape.k);
                if pack.held() < needed {
                    return Ok(Kept::Unreadable);
                }
                as_asked &= pack.held() >= needed + tolerate;
                let holders: HashSet<PeerKey> = pack.holders.into_iter().flatten().collect();
                by = Some(match by {
                    Some(by) => by.intersection(&holders).cloned().collect(),
                    None => holders,
                });
            }
            Ok(by.filter(|_| !as_asked).map_or(Kept::AsAsked, Kept::By))
        })
    }
}

/// How well what a head leads to is kept.
#[derive(PartialEq, Eq, Debug)]
enum Kept {
    /// It survives as many losses as the policy asks for.
    AsAsked,
    /// It can be read, and these have a share of all of it.
    By(HashSet<PeerKey>),
    /// It cannot be read.
    Unreadable,
}

/// Whether what these peers have is still there when `tolerate` friends are lost.
fn survives(holding: &[Peer], tolerate: u8) -> bool {
    let domains: HashSet<&str> = holding.iter().map(|peer| peer.domain.as_str()).collect();
    domains.len() > usize::from(tolerate)
}
