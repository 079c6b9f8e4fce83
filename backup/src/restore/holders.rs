//! Ranges of one share from the peer that holds it, or from whichever peer turns out to hold it.

use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use database::DbError;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use proto::hash_tree;
use proto::id::ShareId;
use proto::share_store::StoreError;
use upload_queue::packs;
use upload_queue::packs::KnownPack;
use upload_queue::peers::{Peer, PeerKey};

use crate::restore::fetch_stats::FetchStats;
use crate::restore::segments::byte_range;
use crate::restore::{Reader, spooled};

/// How often a wait is looked at again: the others may have answered meanwhile, and show how long it should take.
const DOUBT_STEP: Duration = Duration::from_millis(100);
/// Tries of a get that a peer is too busy for, and the longest wait between them. Chosen.
const BUSY_TRIES: u32 = 3;
const BUSY_WAIT_MAX: Duration = Duration::from_secs(2);

/// Ranges of a share, as one peer served them.
#[derive(Clone)]
pub(super) struct ShareGot {
    pub(super) index: u8,
    pub(super) peer: Peer,
    /// One for each run asked for.
    pub(super) runs: Vec<Bytes>,
}

/// Whom to ask for a share.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// The peer that is known to hold it; everyone if none is known.
    Holder,
    /// Everyone, also peers that did not answer a moment ago.
    Everyone,
}

/// Reads shares of one pack.
#[derive(Clone, Copy)]
pub(super) struct Holders<'a> {
    pub(super) reader: &'a Reader,
    pub(super) pack: &'a KnownPack,
    pub(super) stats: &'a Mutex<FetchStats>,
}

impl Holders<'_> {
    pub(super) fn stats(&self) -> std::sync::MutexGuard<'_, FetchStats> {
        self.stats.lock().expect("no panic while the counts are locked")
    }
    /// Waits for as long as getting these runs should take at most.
    pub(super) async fn doubt(&self, runs: &[Range<u32>]) {
        let (began, longest) = (
            Instant::now(),
            runs.iter().map(|run| byte_range(run).len() as u32).max(),
        );
        loop {
            let limit = self.stats().answers.hedge_after(longest.unwrap_or_default());
            match limit.checked_sub(began.elapsed()) {
                None | Some(Duration::ZERO) => return,
                Some(left) => tokio::time::sleep(left.min(DOUBT_STEP)).await,
            }
        }
    }
    /// The holder of this share takes longer than others.
    pub(super) fn note_slow(&self, index: u8) {
        if let Some(holder) = self.holder(index) {
            self.stats().answers.was_slow(holder);
        }
    }
    /// Whether the share is rather built from others: its holder takes long, and enough of them are quick.
    pub(super) fn is_better_rebuilt(&self, index: u8) -> bool {
        let is_slow = |index| self.holder(index).is_some_and(|key| self.stats().answers.is_slow(key));
        let is_quick = |other: &u8| *other != index && self.looks_reachable(*other) && !is_slow(*other);
        let shape = self.pack.manifest.shape;
        is_slow(index) && (0..shape.n).filter(is_quick).count() >= usize::from(shape.k)
    }
    pub(super) fn id(&self, index: u8) -> ShareId {
        self.pack.manifest.shares[usize::from(index)]
    }
    fn holder(&self, index: u8) -> Option<&PeerKey> {
        self.pack.holders.get(usize::from(index))?.as_ref()
    }
    /// How well a share's holder does: not known or not answering, slow, or well.
    pub(super) fn promise(&self, index: u8) -> u8 {
        let is_slow = || self.holder(index).is_some_and(|key| self.stats().answers.is_slow(key));
        match self.looks_reachable(index) {
            false => 0,
            true => 2 - u8::from(is_slow()),
        }
    }
    /// Whether the share's holder is known and has not just failed to answer.
    fn looks_reachable(&self, index: u8) -> bool {
        self.holder(index)
            .is_some_and(|key| !self.stats().answers.is_down(key) && self.reader.peers.get(key).is_some())
    }
    /// Where a share should be, for people.
    pub(super) fn whereabouts(&self, index: u8) -> String {
        match self.holder(index) {
            Some(key) => self
                .reader
                .peers
                .get(key)
                .map_or_else(|| key.0.clone(), |peer| peer.name),
            None => format!("unknown holder of share {}", self.id(index).short()),
        }
    }
    fn candidates(&self, index: u8, ask: Ask) -> Vec<Peer> {
        let known = self.holder(index).and_then(|key| self.reader.peers.get(key));
        let all = || self.reader.peers.all();
        let mut peers = match (ask, known) {
            (Ask::Everyone, _) | (Ask::Holder, None) => all(),
            (Ask::Holder, Some(peer)) => vec![peer],
        };
        if ask == Ask::Holder {
            let stats = self.stats();
            peers.retain(|peer| !stats.answers.is_down(&peer.key));
        }
        let stored_bytes = self.pack.manifest.shape.share.stored_bytes() as u64;
        let spool = self.reader.spool.as_ref();
        peers.extend(
            spool
                .filter(|spool| spool.has(self.id(index), stored_bytes))
                .map(spooled::as_peer),
        );
        peers
    }

    /// The runs of a share from the first peer that serves them. What it learns about the holder is recorded.
    pub(super) async fn get(&self, index: u8, runs: &[Range<u32>], ask: Ask) -> Option<ShareGot> {
        let mut asked: FuturesUnordered<_> = self
            .candidates(index, ask)
            .into_iter()
            .map(|peer| async move {
                let runs = self.get_from(&peer, index, runs).await;
                (peer, runs)
            })
            .collect();
        while let Some((peer, answer)) = asked.next().await {
            match answer {
                Ok(runs) => {
                    self.note_holder(&peer, index).await;
                    return Some(ShareGot { index, peer, runs });
                }
                Err(error) => self.note_failure(&peer, index, &error).await,
            }
        }
        None
    }

    async fn get_from(&self, peer: &Peer, index: u8, runs: &[Range<u32>]) -> Result<Vec<Bytes>, StoreError> {
        let id = self.id(index);
        let gets = runs.iter().map(|run| self.get_range(peer, id, byte_range(run)));
        futures::future::try_join_all(gets).await
    }

    /// One range of a stored share: exactly as long as asked for, or an error.
    async fn get_range(&self, peer: &Peer, id: ShareId, range: Range<u32>) -> Result<Bytes, StoreError> {
        let asked = Instant::now();
        let mut tries = 1;
        let bytes = loop {
            match peer.store.get(id, range.clone()).await {
                Err(StoreError::Busy { retry_after }) if tries < BUSY_TRIES => {
                    tries += 1;
                    tokio::time::sleep(retry_after.min(BUSY_WAIT_MAX)).await;
                }
                answer => break answer?,
            }
        };
        if bytes.len() != (range.end - range.start) as usize {
            let reason = format!("{} bytes instead of {}", bytes.len(), range.end - range.start);
            return Err(StoreError::Corrupt { reason });
        }
        let mut stats = self.stats();
        stats
            .answers
            .answered(&peer.key, range.end - range.start, asked.elapsed());
        stats.bytes_fetched += bytes.len() as u64;
        stats.ranges_fetched += 1;
        stats.peers_used.insert(peer.name.clone());
        Ok(bytes)
    }

    async fn note_holder(&self, peer: &Peer, index: u8) {
        if self.holder(index) == Some(&peer.key) || spooled::is_spool(peer) {
            return;
        }
        let (key, id) = (peer.key.clone(), self.id(index));
        self.write(move |tx| packs::record_held(tx, &key, &[id]).map(drop))
            .await;
    }

    async fn note_failure(&self, peer: &Peer, index: u8, error: &StoreError) {
        match error {
            _ if spooled::is_spool(peer) => {}
            StoreError::Unreachable { .. } => {
                self.stats().answers.was_down(&peer.key);
            }
            StoreError::Corrupt { reason } => self.note_bad(peer, index, reason.clone()).await,
            StoreError::NotFound | StoreError::OutOfRange if self.holder(index) == Some(&peer.key) => {
                self.note_lost(peer, index).await;
            }
            _ => {}
        }
    }

    /// The peer served a damaged share: names it, and forgets that it holds that share.
    pub(super) async fn note_bad(&self, peer: &Peer, index: u8, reason: String) {
        let text = format!("Share {}: {reason}", self.id(index).short());
        self.stats().peers_bad.entry(peer.name.clone()).or_insert(text);
        self.note_lost(peer, index).await;
    }

    async fn note_lost(&self, peer: &Peer, index: u8) {
        if spooled::is_spool(peer) {
            return;
        }
        let (key, id) = (peer.key.clone(), self.id(index));
        self.write(move |tx| packs::record_lost(tx, &key, id)).await;
    }

    /// What is learned about holders is a hint: a restore goes on if it cannot be recorded.
    async fn write(&self, work: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<(), DbError> + Send + 'static) {
        let db = self.reader.db.clone();
        match tokio::task::spawn_blocking(move || db.write(work)).await {
            Ok(Ok(()) | Err(DbError::ReadOnly)) => {}
            Ok(Err(error)) => tracing::warn!("What was learned about a peer was not recorded: {error}"),
            Err(error) => tracing::warn!("What was learned about a peer was not recorded: {error}"),
        }
    }

    /// Checks the ranges of a share against its leaf table, or against all of its bytes if the table itself is damaged.
    /// `false`: do not use them. A damaged share is named.
    pub(super) async fn is_good(&self, got: &ShareGot, runs: &[Range<u32>]) -> bool {
        let size = self.pack.manifest.shape.share;
        let (id, bytes) = (self.id(got.index), size.data_bytes() as u32);
        let table = bytes..bytes + hash_tree::table_bytes(size.data_bytes()) as u32;
        let Ok(table) = self.get_range(&got.peer, id, table).await else {
            return false;
        };
        if hash_tree::table_root(&table) != id {
            self.note_bad(&got.peer, got.index, "its leaf table is damaged".to_owned())
                .await;
            return match self.get_range(&got.peer, id, 0..bytes).await {
                Ok(whole) => *blake3::hash(&whole).as_bytes() == id.0 && same_ranges(&whole, got, runs),
                Err(_) => false,
            };
        }
        for (run, bytes) in runs.iter().zip(&got.runs) {
            let first_leaf = byte_range(run).start / hash_tree::LEAF_BYTES as u32;
            if let Err(leaf) = hash_tree::check_leaves(&table, first_leaf, bytes) {
                self.note_bad(&got.peer, got.index, format!("leaf {leaf} is damaged"))
                    .await;
                return false;
            }
        }
        true
    }
}

fn same_ranges(whole: &[u8], got: &ShareGot, runs: &[Range<u32>]) -> bool {
    runs.iter().zip(&got.runs).all(|(run, bytes)| {
        let range = byte_range(run);
        whole[range.start as usize..range.end as usize] == bytes[..]
    })
}
