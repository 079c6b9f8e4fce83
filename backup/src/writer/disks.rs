//! What a virtual disk needs of the write side: packs of its own, and a head that says where its newest commit lies
//! (docs/decisions/0068-disks-in-heads.md). What is in its packs is not known here.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::bounded;
use database::DbError;
use proto::cap_index::PackRecord;
use proto::head::{DiskHead, HeadBody, RootRef};
use proto::id::{PackId, ShareId};
use proto::keys::WRAPPED_KEY_BYTES;
use proto::manifest::Manifest;
use proto::root::Root;
use proto::shape::{PackShape, ShareSize};
use proto::wire::frame::IDS_MAX;
use upload_queue::packs;
use upload_queue::packs::{PackRow, Purpose};
use upload_queue::peers::PeerKey;

use super::run::{Run, TICK};
use super::seal::DISK_KEEP_DAYS;
use super::{WriteError, WriteEvent, Writer};
use crate::catalog::content::{Posted, post};
use crate::catalog::{content, disks};

/// Between two looks at a pack for which nothing more could be done. Chosen: peers that come back are dialled within seconds.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How long a peer may take to give shares up.
const DISCARD_WAIT: Duration = Duration::from_secs(30);

/// Bytes that the root of a disk is taken to have while there is none: their number is as long as any's.
const ROOT_BYTES: u32 = 1 << 20;

/// The newest commit of a disk, on its way into a head.
pub struct DiskPost<'a> {
    /// Which disk.
    pub volume: [u8; 16],
    /// Its commit; `None`: heads name the disk no more.
    pub newest: Option<DiskHead>,
    /// The packs that this commit is in, and that none before it was.
    pub packs: &'a [PackRow],
}

/// Where a head is that has a disk's commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskPosted {
    /// The number of the newest head; one above that of the commit's own if a backup was posted meanwhile.
    pub seq: u64,
    /// Names of the peers that have it.
    pub peers: Vec<String>,
    /// The commit counts: head and packs survive the loss of `tolerate` friends. Else it is recorded here, and the head goes on to
    /// peers with every later one.
    pub is_safe: bool,
}

impl Writer {
    /// The shapes that packs of a disk have if they are made now, ascending by what they hold.
    pub fn shapes(&self) -> [PackShape; ShareSize::ALL.len()] {
        let (k, n) = self.uploader.code();
        ShareSize::ALL.map(|share| PackShape { k, n, share })
    }

    /// Seals a pack of a disk and delivers it: when this returns, it survives a power cut here, or more. Blocking; waits for room in the spool.
    pub fn seal_and_deliver(
        &self,
        shape: PackShape,
        plain: &[u8],
        volume: [u8; 16],
    ) -> Result<(PackRow, PackRecord), WriteError> {
        let outgoing = self.seal(shape, plain, Purpose::Disk)?;
        let record = outgoing.record.clone();
        let delivering = self
            .uploader
            .deliver(outgoing, move |tx, row| disks::add_pack(tx, volume, row));
        Ok((self.runtime.block_on(delivering)?, record))
    }

    /// Waits until these packs survive the loss of `tolerate` friends (true), or no longer than `patience`, or until `stop` (false).
    /// Blocking.
    pub fn wait_safe(&self, packs: &[PackRow], patience: Duration, stop: &AtomicBool) -> Result<bool, WriteError> {
        let begun = Instant::now();
        let goes_on = || begun.elapsed() < patience && !stop.load(Ordering::Relaxed);
        for pack in packs {
            while !self.are_safe(&[*pack])? {
                let (uploader, pack) = (self.uploader.clone(), *pack);
                let mut settling = self.runtime.spawn(async move { uploader.settled(pack).await });
                let settled = loop {
                    if let Ok(settled) = self
                        .runtime
                        .block_on(async { tokio::time::timeout(TICK, &mut settling).await })
                    {
                        break settled.map_err(|error| WriteError::Thread(error.to_string()))??;
                    }
                    if !goes_on() {
                        settling.abort();
                        return Ok(false);
                    }
                };
                let looked = Instant::now();
                while !settled && looked.elapsed() < LOOK_AGAIN {
                    if !goes_on() {
                        return Ok(false);
                    }
                    std::thread::sleep(TICK.min(patience.saturating_sub(begun.elapsed())));
                }
            }
        }
        Ok(true)
    }

    /// Packs of disks that do not survive the loss of `tolerate` friends and are not lost, and that nothing gave up.
    pub fn unsafe_disk_packs(&self) -> Result<Vec<PackRow>, WriteError> {
        let tolerate = self.uploader.tolerate();
        Ok(self.db.read(|conn| packs::unsafe_of_disks(conn, tolerate))?)
    }

    /// Packs that no head names which counts as posted: the next one counts only when they survive the loss of `tolerate` friends.
    pub fn unacknowledged_packs(&self) -> Result<Vec<PackRow>, WriteError> {
        Ok(self.db.read(post::unacknowledged_packs)?)
    }

    /// Records that nobody needs these packs of a disk any more. From then on they are no loss, and `discard_of_disks` tells peers.
    pub fn give_up(&self, records: &[PackRecord], now_ns: i64) -> Result<(), WriteError> {
        let ids = records
            .iter()
            .filter_map(|record| Manifest::decode(&record.manifest).ok());
        let ids: Vec<PackId> = ids.map(|manifest| manifest.pack).collect();
        self.db.write_durable(|tx| {
            let mut rows = Vec::new();
            for id in &ids {
                rows.extend(packs::find(tx, *id)?.map(|known| known.row));
            }
            packs::set_dead(tx, &rows, now_ns)
        })?;
        Ok(())
    }

    /// The same of the packs of a disk that its table, with these in it, does not name: those of a commit that was never offered to anybody, for
    /// one. How many that were.
    pub fn give_up_unnamed(&self, volume: [u8; 16], named: &HashSet<PackId>, now_ns: i64) -> Result<u64, WriteError> {
        let given_up = self.db.write_durable::<_, DbError>(|tx| {
            let unnamed = disks::unnamed(tx, volume, named)?;
            packs::set_dead(tx, &unnamed, now_ns)?;
            Ok(unnamed.len())
        })?;
        Ok(given_up as u64)
    }

    /// This machine is the writer of a disk all of whose packs are known, and looks after them.
    pub fn look_after_disk(&self, volume: [u8; 16]) -> Result<(), WriteError> {
        Ok(self.db.write(|tx| disks::set_here(tx, volume))?)
    }

    /// The packs of a disk are nobody's business here any more: nothing is counted, and nothing given up.
    pub fn forget_disk(&self, volume: [u8; 16]) -> Result<(), WriteError> {
        Ok(self
            .db
            .write::<_, DbError>(|tx| disks::set_elsewhere(tx, volume).map(drop))?)
    }

    /// Has peers move the shares of packs that disks gave up to their trash, and forgets packs of which nobody is known to have any. What a
    /// peer that is away has is told to it another time. How many packs are left. May be dropped.
    pub async fn discard_of_disks(&self) -> Result<u64, WriteError> {
        let dead = self.db.read(packs::dead_of_disks)?;
        let mut of_peers: BTreeMap<PeerKey, Vec<ShareId>> = BTreeMap::new();
        for known in &dead {
            for (share, holder) in known.manifest.shares.iter().zip(&known.holders) {
                if let Some(holder) = holder {
                    of_peers.entry(holder.clone()).or_default().push(*share);
                }
            }
        }
        for (key, mut shares) in of_peers {
            let Some(peer) = self.peers.get(&key) else { continue };
            shares.sort_unstable();
            shares.dedup();
            for ids in shares.chunks(IDS_MAX as usize) {
                let discarding = tokio::time::timeout(DISCARD_WAIT, peer.store.discard(ids.to_vec()));
                match discarding.await {
                    Ok(Ok(_)) => self.db.write(|tx| {
                        let mut missing = ids.iter();
                        missing.try_for_each(|share| packs::record_missing(tx, &key, *share))
                    })?,
                    Ok(Err(error)) => {
                        tracing::debug!("{} does not give up what a disk needs no more: {error}", peer.name);
                        break;
                    }
                    Err(_late) => break,
                }
            }
        }
        Ok(self.db.write::<_, DbError>(|tx| {
            let left = packs::forget_gone_of_disks(tx)?;
            disks::tidy(tx)?;
            Ok(left)
        })?)
    }

    fn are_safe(&self, packs: &[PackRow]) -> Result<bool, WriteError> {
        let tolerate = self.uploader.tolerate();
        let are_safe = |conn: &rusqlite::Connection| {
            packs.iter().try_fold(true, |all, pack| {
                Ok::<_, DbError>(all && packs::is_safe(conn, *pack, tolerate)?)
            })
        };
        Ok(self.db.read(are_safe)?)
    }

    /// The commit of a disk that the newest head of this machine has.
    pub fn disk(&self, volume: [u8; 16]) -> Result<Option<DiskHead>, WriteError> {
        let posted = self.db.read(content::posted)?;
        Ok(posted.and_then(|posted| posted.body.disk(volume).cloned()))
    }

    /// The newest head, to be put on this peer by whoever asks; none if it has it. An error as long as it is not as well kept as what the peer
    /// may have now.
    pub fn head_for(&self, peer: &PeerKey) -> Result<Option<Bytes>, WriteError> {
        let _putting = self.heads.lock();
        let missing = || WriteError::Missing {
            what: "the head that is to be put".to_owned(),
        };
        let posted = self.db.read(content::posted)?.ok_or_else(missing)?;
        if self.db.read(|conn| post::holders(conn, &posted.hash))?.contains(peer) {
            return Ok(None);
        }
        // One that is acknowledged was recorded durably before any peer had it.
        match self.db.read(post::is_acknowledged)? {
            true => Ok(Some(Bytes::from(posted.head))),
            false => Err(missing()),
        }
    }

    /// Whether a head has room for a commit of this disk, as it would be made now; to be asked before anything of a new disk is written.
    pub fn room_for_disk(&self, volume: [u8; 16]) -> Result<(), WriteError> {
        let shape = self.shapes()[0];
        let shares = vec![ShareId([0; 32]); usize::from(shape.n)];
        let (pack, account) = (PackId([0; 32]), self.keys.account_id());
        let manifest = Manifest::sign_keeping(DISK_KEEP_DAYS, pack, shape, shares, account, &self.device);
        let pack = PackRecord {
            manifest: manifest.encode(),
            wrapped_key: [0; WRAPPED_KEY_BYTES],
        };
        // The longest of all.
        let root = RootRef {
            pack,
            offset: u32::MAX - ROOT_BYTES,
            len: ROOT_BYTES,
        };
        let newest = DiskHead {
            volume,
            epoch: u64::MAX,
            commit: u64::MAX,
            root,
        };
        let posted = self.db.read(content::posted)?;
        let mut body = posted.map_or_else(nothing, |posted| posted.body);
        Ok(body.set_disk(volume, Some(newest))?)
    }

    /// Signs a head that differs from the newest by this disk's commit alone, records it, and puts it where the newest head of a backup
    /// would be put. Blocking. Nothing is written if it has no room, is older than what the newest head says, or if this home was
    /// turned back.
    pub fn post_disk(
        &self,
        commit: &DiskPost<'_>,
        events: &(dyn Fn(WriteEvent) + Sync),
    ) -> Result<DiskPosted, WriteError> {
        if self.peers.all().is_empty() {
            return Err(WriteError::NoPeers);
        }
        if self
            .db
            .read(content::posted)?
            .is_some_and(|posted| begins_anew(&posted))
        {
            // The next head has a new root of the backups, or there is none to be had.
            self.post(events)?;
        }
        let (parcels, _nothing_is_read) = bounded(1);
        let stop = AtomicBool::new(false);
        let run = Run::new(self, &stop, events, parcels);
        run.sign_disk(commit)?;
        run.put_newest_head()?;
        self.where_it_is(commit)
    }

    fn where_it_is(&self, commit: &DiskPost<'_>) -> Result<DiskPosted, WriteError> {
        let is_safe = self.are_safe(commit.packs)?;
        let found = self.db.read(|conn| {
            let Some(newest) = content::posted(conn)? else {
                return Ok(None);
            };
            let holders = post::holders(conn, &newest.hash)?;
            Ok::<_, DbError>(Some((newest.seq, holders, post::is_acknowledged(conn)?)))
        })?;
        let (seq, holders, is_acknowledged) = found.ok_or_else(|| WriteError::Missing {
            what: "the head that was just signed".to_owned(),
        })?;
        let mut peers = self.peers.all();
        peers.retain(|peer| holders.contains(&peer.key));
        Ok(DiskPosted {
            seq,
            peers: peers.into_iter().map(|peer| peer.name).collect(),
            is_safe: is_safe && is_acknowledged,
        })
    }
}

impl Run<'_> {
    fn sign_disk(&self, commit: &DiskPost<'_>) -> Result<(), WriteError> {
        let writer = self.writer;
        let _signing = writer.heads.lock();
        if self.is_overtaken()? {
            return Err(WriteError::Overtaken);
        }
        let previous = writer.db.read(content::posted)?;
        if previous.as_ref().is_some_and(begins_anew) {
            return Err(WriteError::Missing {
                what: "where names and indexes of the backup lie".to_owned(),
            });
        }
        let mut body = previous.as_ref().map_or_else(nothing, |previous| previous.body.clone());
        let before = body.disk(commit.volume).cloned();
        if before.is_some() && before == commit.newest {
            // It was signed already, and may not be where it has to be.
            return Ok(());
        }
        body.set_disk(commit.volume, commit.newest.clone())?;
        let root = previous
            .as_ref()
            .map_or_else(Root::default, |previous| previous.root.clone());
        let posted = writer.sign(previous.as_ref(), root, body)?;
        writer.db.write(|tx| post::sign_disk(tx, &posted, commit.packs))?;
        Ok(())
    }
}

/// What a head says before there is anything.
fn nothing() -> HeadBody {
    HeadBody {
        root: None,
        snapshot: None,
        disks: None,
    }
}

/// Names and indexes were lost, and are to be posted anew: a head without their root would take them for never stored.
fn begins_anew(posted: &Posted) -> bool {
    posted.body.root.is_none() && posted.body.snapshot.is_some()
}

/// Whether a head is worth having. One whose root begins anew leads to what is lost: the next one is. One that says of nothing says that the
/// disks of the heads before it are gone.
pub(super) fn leads_anywhere(posted: &Posted) -> bool {
    !begins_anew(posted)
}
