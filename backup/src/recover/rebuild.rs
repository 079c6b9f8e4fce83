//! One head rebuilt into a catalog: its chain of roots, their sections in order, and who holds what.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use proto::head::RootRef;
use proto::id::PackId;
use proto::root::{Root, SectionRef};
use proto::share_store::StoreError;
use rusqlite::Transaction;
use tokio::time::Instant;
use upload_queue::packs::{KnownPack, PackRow, Purpose};
use upload_queue::peers::batches::{Batches, Shelf};
use upload_queue::peers::{Peer, PeerKey};

use super::replay;
use super::replay::Listed;
use crate::catalog::content::Posted;
use crate::catalog::tree::Replay;
use crate::heads::OpenHead;
use crate::restore::fetch_stats::FetchStats;
use crate::restore::sections::records;
use crate::restore::{Reader, RestoreError};

/// Runs of sections fetched ahead, and how many sections a run has at most: each is up to 1 MiB of records.
const RUNS_AHEAD: usize = 4;
const RUN_SECTIONS_MAX: usize = 4;

/// When more peers have listed their shares than are still awaited, these get as long again, so many times, but not less than this.
/// Chosen: an honest peer is slow by its line, a liar by will.
const LATE_FACTOR: u32 = 3;
const LATE_MIN: Duration = Duration::from_secs(10);

/// What rebuilding works with.
pub(super) struct Rebuild<'a> {
    /// The catalog that is rebuilt, and where from.
    pub(super) reader: &'a Reader,
    /// What peers say they hold.
    pub(super) listed: &'a [Listed],
    pub(super) stats: &'a Mutex<FetchStats>,
    pub(super) progress: &'a (dyn Fn(&str) + Send + Sync),
}

impl Rebuild<'_> {
    /// Makes the catalog that which `open` leads to, whatever it was; returns the root. Cut off or failed, it is to be begun anew.
    pub(super) async fn rebuild(&self, open: &OpenHead) -> Result<Root, RestoreError> {
        let reader = self.reader;
        let roots = self.roots(open.body.root.as_ref()).await?;
        write_to(reader, replay::clear).await?;
        let sections = roots.iter().map(|root| root.root.sections.len()).sum::<usize>();
        let (mut replay, mut done) = (Replay::new(open.head.device()), 0);
        for found in &roots {
            let (packs, holders) = (found.packs(), self.listed.to_vec());
            let rows = write_to(reader, move |tx| replay::add_metadata_packs(tx, &packs, &holders)).await?;
            replay = self
                .replay_sections(&found.root, &rows, replay, &mut |count| {
                    done += count;
                    (self.progress)(&format!(
                        "Reading the backup log and index: {done} of {sections} sections"
                    ));
                })
                .await?;
        }
        let root = roots
            .into_iter()
            .next_back()
            .map(|found| found.root)
            .unwrap_or_default();
        let adopted = Posted {
            seq: open.head.seq,
            hash: open.hash.0,
            head: open.head.encode(),
            body: open.body.clone(),
            root: root.clone(),
        };
        let (cert, listed) = (open.head.cert.clone(), self.listed.to_vec());
        write_to(reader, move |tx| replay::adopt(tx, &cert, &adopted, &listed)).await?;
        Ok(root)
    }

    /// Whether what `open` leads to can be read now, as far as its chain of roots tells.
    pub(super) async fn is_readable(&self, open: &OpenHead) -> bool {
        self.roots(open.body.root.as_ref()).await.is_ok()
    }

    /// The chain of roots, oldest first.
    async fn roots(&self, newest: Option<&RootRef>) -> Result<Vec<FoundRoot>, RestoreError> {
        let mut roots = Vec::new();
        let mut seen: HashSet<(PackId, u32)> = HashSet::new();
        let mut next = newest.cloned();
        while let Some(at) = next {
            let manifest = replay::manifest(&at.pack)?;
            if !seen.insert((manifest.pack, at.offset)) {
                return Err(damaged_root("its chain of older roots is a circle"));
            }
            // Nothing says who holds it: everyone is asked.
            let pack = KnownPack {
                row: PackRow(0),
                holders: vec![None; manifest.shares.len()],
                manifest,
                record: at.pack.clone(),
                purpose: Purpose::Metadata,
            };
            let key = self.reader.unwrap(&at.pack)?;
            let place = [(at.offset, at.len)];
            let encoded = self.reader.read_pack(&pack, &key, &place, self.stats).await?;
            let root = records::<Root>(&encoded[0])?
                .pop()
                .ok_or_else(|| damaged_root("its section is empty"))?;
            next = root.older.clone();
            roots.push(FoundRoot { at, root });
        }
        roots.reverse();
        Ok(roots)
    }

    /// Fetches a root's sections, several packs ahead, and replays them in order.
    async fn replay_sections(
        &self,
        root: &Root,
        rows: &[PackRow],
        mut replay: Replay,
        done: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Replay, RestoreError> {
        let mut runs: Vec<(PackRow, Vec<SectionRef>)> = Vec::new();
        for section in &root.sections {
            let row = rows[replay::pack_of(root, section)?];
            match runs.last_mut() {
                Some((last, run)) if *last == row && run.len() < RUN_SECTIONS_MAX => run.push(*section),
                _ => runs.push((row, vec![*section])),
            }
        }
        let (reader, stats) = (self.reader, self.stats);
        let mut fetched = futures::stream::iter(runs)
            .map(|(row, run)| async move {
                let ranges: Vec<(u32, u32)> = run.iter().map(|section| (section.offset, section.len)).collect();
                let encoded: Vec<Bytes> = reader.read_row(row, &ranges, stats).await?;
                Ok::<_, RestoreError>((row, run, encoded))
            })
            .buffered(RUNS_AHEAD);
        while let Some((row, run, encoded)) = fetched.try_next().await? {
            let count = run.len();
            replay = write_to(reader, move |tx| {
                for (section, encoded) in run.iter().zip(&encoded) {
                    replay::section(tx, &mut replay, row, section, encoded)?;
                }
                Ok(replay)
            })
            .await?;
            done(count);
        }
        Ok(replay)
    }
}

/// A root and where it lies.
struct FoundRoot {
    at: RootRef,
    root: Root,
}

impl FoundRoot {
    /// The packs its sections name, then the one it lies in.
    fn packs(&self) -> Vec<proto::cap_index::PackRecord> {
        let own = std::iter::once(&self.at.pack);
        self.root.packs.iter().chain(own).cloned().collect()
    }
}

/// A peer without a list, and why.
pub(super) struct Unlisted {
    pub(super) peer: PeerKey,
    pub(super) name: String,
    pub(super) reason: String,
}

/// All shares that each peer holds for us, and who gave no list that can be believed. Those hold nothing that is known yet:
/// their shares are found by asking when they are needed. Nobody is waited for much longer than for most.
pub(super) async fn list(peers: &[Peer]) -> (Vec<Listed>, Vec<Unlisted>) {
    let begun = Instant::now();
    let mut asking: FuturesUnordered<_> = peers
        .iter()
        .map(|peer| async move { (peer, Batches::new(&*peer.store, Shelf::Kept).all().await) })
        .collect();
    let mut lists = Vec::new();
    let mut until = None;
    while let Some(answer) = next_until(&mut asking, until).await {
        lists.push(answer);
        let sound = lists.iter().filter(|(_, list)| list.is_ok()).count();
        if until.is_none() && sound > asking.len() {
            until = Some(Instant::now() + LATE_MIN.max(LATE_FACTOR * begun.elapsed()));
        }
    }
    let answered: HashSet<&PeerKey> = lists.iter().map(|(peer, _)| &peer.key).collect();
    let late = || StoreError::Unreachable {
        reason: "Its list of shares did not come when most others' had".to_owned(),
    };
    let missing = peers.iter().filter(|peer| !answered.contains(&peer.key));
    let missing: Vec<_> = missing.map(|peer| (peer, Err(late()))).collect();
    let (mut listed, mut unlisted) = (Vec::new(), Vec::new());
    for (peer, list) in lists.into_iter().chain(missing) {
        match list {
            Ok(shares) => listed.push((peer.key.clone(), Arc::new(shares))),
            Err(error) => {
                tracing::warn!("{} did not list its shares: {error}", peer.name);
                unlisted.push(Unlisted {
                    peer: peer.key.clone(),
                    name: peer.name.clone(),
                    reason: error.to_string(),
                });
            }
        }
    }
    (listed, unlisted)
}

async fn next_until<F: Future>(asking: &mut FuturesUnordered<F>, until: Option<Instant>) -> Option<F::Output> {
    match until {
        None => asking.next().await,
        Some(until) => tokio::time::timeout_at(until, asking.next()).await.ok().flatten(),
    }
}

/// Runs `work` in one write transaction, off the runtime's threads.
pub(super) async fn write_to<T: Send + 'static>(
    reader: &Reader,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, RestoreError> + Send + 'static,
) -> Result<T, RestoreError> {
    let db = reader.db.clone();
    tokio::task::spawn_blocking(move || db.write(work)).await?
}

fn damaged_root(reason: &str) -> RestoreError {
    RestoreError::Damaged {
        what: "A root".to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use futures::future::pending;
    use proto::id::{AccountId, ShareId};
    use proto::share::Share;
    use proto::share_store::memory::MemoryStore;
    use proto::share_store::{BoxFuture, HeadStore, PeerStore, PromiseStore, PutAck, ShareStore, Space};
    use upload_queue::peers::Reach;

    use super::*;

    /// Never says which shares it has.
    struct Silent;

    impl ShareStore for Silent {
        fn put(&self, _: ShareId, _: Share) -> BoxFuture<'_, Result<PutAck, StoreError>> {
            unreachable!("it is only listed")
        }
        fn get(&self, _: ShareId, _: Range<u32>) -> BoxFuture<'_, Result<Bytes, StoreError>> {
            unreachable!("it is only listed")
        }
        fn list(&self, _: Option<ShareId>, _: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
            Box::pin(pending())
        }
        fn remove(&self, _: ShareId) -> BoxFuture<'_, Result<(), StoreError>> {
            unreachable!("it is only listed")
        }
        fn space(&self) -> BoxFuture<'_, Result<Space, StoreError>> {
            unreachable!("it is only listed")
        }
    }

    impl HeadStore for Silent {
        fn put_head(&self, _: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
            unreachable!("it is only listed")
        }
        fn heads(&self, _: AccountId) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>> {
            unreachable!("it is only listed")
        }
    }

    impl PromiseStore for Silent {}

    fn peer(name: &str, store: Arc<dyn PeerStore>) -> Peer {
        Peer {
            key: PeerKey(name.to_owned()),
            place: upload_queue::peers::place::Place::Folder("/memory".into()),
            name: name.to_owned(),
            domain: name.to_owned(),
            reach: Reach::Remote,
            store,
        }
    }

    /// One friend who let each batch wait for a minute held a recovery up for ten.
    #[tokio::test(start_paused = true)]
    async fn who_does_not_list_is_waited_for_not_much_longer_than_for_most_and_named() {
        let honest = || Arc::new(MemoryStore::new());
        let peers = [peer("a", honest()), peer("late", Arc::new(Silent)), peer("b", honest())];
        let begun = Instant::now();
        let (listed, unlisted) = list(&peers).await;
        assert!(begun.elapsed() <= LATE_MIN, "{:?}", begun.elapsed());
        let names: Vec<&str> = unlisted.iter().map(|failed| failed.name.as_str()).collect();
        assert_eq!((listed.len(), names), (2, vec!["late"]));
        // Where half of them are late, they get their time.
        let begun = Instant::now();
        let (listed, _) = list(&peers[..2]).await;
        assert!(listed.len() == 1 && begun.elapsed() > LATE_MIN);
    }
}
