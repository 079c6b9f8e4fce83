//! A checkpoint: what is new goes into log and index sections, a new root and a new head.
//!
//! The head is signed and recorded together with the pack that carries its root, before any peer gets it: whatever
//! happens then, the same head is put again and no other is ever signed with its number. `heads` puts it.

use std::collections::{BTreeSet, HashSet};
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;

use crossbeam_channel::bounded;
use database::DbError;
use proto::cap_index::{Cap, IndexRecord};
use proto::head::RootRef;
use proto::head::{Head, HeadBody};
use proto::log_record::{Entry, LogRecord, SnapshotRecord};
use proto::record;
use proto::root::{ROOT_BYTES_TURN, ROOT_SECTIONS_MAX, Root};
use rusqlite::Connection;
use upload_queue::packs;
use upload_queue::packs::PackRow;

use super::metadata::Gatherer;
use super::outbox::Outbox;
use super::run::Run;
use super::seal::random;
use super::{WriteError, WriteEvent, Writer, now_ns};
use crate::catalog::content::{Posted, anew, post};
use crate::catalog::tree::Snapshot;
use crate::catalog::tree::rows::join;
use crate::catalog::{content, heads, tree};
use crate::said::path_buf;

/// Snapshot records in a head longer than this go without their roots: a head has a fixed size.
const HEAD_SNAPSHOT_BYTES_MAX: usize = 1024;

/// Logs that go into a posting.
struct Logs {
    /// Snapshots that the root does not list yet.
    new: Vec<SnapshotRecord>,
    /// Bytes of their records.
    new_bytes: usize,
    /// There are more than were taken.
    is_cut: bool,
    /// The last snapshot whose log was pushed.
    last: Option<u64>,
    /// Records that say more than that there was a snapshot.
    changes: u64,
}

impl Writer {
    /// Posts what the catalog knows and peers do not, without reading any file. Blocking, as `run`; returns on how many
    /// peers the newest head is.
    pub fn post(&self, events: &(dyn Fn(WriteEvent) + Sync)) -> Result<usize, WriteError> {
        if self.peers.all().is_empty() {
            return Err(WriteError::NoPeers);
        }
        let (parcels, _nothing_is_read) = bounded(1);
        let stop = AtomicBool::new(false);
        let run = Run::new(self, &stop, events, parcels);
        run.put_newest_head()?;
        run.checkpoint()?;
        Ok(run.heads())
    }
}

impl Run<'_> {
    /// Posts what is new, if anything is; then puts the newest head where it is not yet, and settles jobs.
    pub fn checkpoint(&self) -> Result<(), WriteError> {
        self.record_ready(1)?;
        {
            let _signing = self.writer.heads.lock();
            let _no_metadata_meanwhile = self.gate.write().unwrap_or_else(PoisonError::into_inner);
            tree::fit_source_roots(&self.writer.db)?;
            self.begin_anew_if_lost()?;
            while self.post()? {}
        }
        self.wait_for_metadata()?;
        self.put_newest_head()?;
        self.settle_safe()
    }

    /// If metadata is lost, or came back, the next posting says so.
    fn begin_anew_if_lost(&self) -> Result<(), WriteError> {
        let db = &self.writer.db;
        if db.read(anew::is_due)? {
            tracing::warn!("names and indexes of the backup were lost at the peers; they are posted again");
            db.write(|tx| anew::begin(tx, now_ns()))?;
        }
        if db.read(anew::came_back)? {
            db.write(anew::take_back)?;
        }
        Ok(())
    }

    /// Posts what is new, as far as one root takes it; whether there is more.
    fn post(&self) -> Result<bool, WriteError> {
        if self.is_overtaken()? {
            return Ok(false);
        }
        let db = &self.writer.db;
        let previous = db.read(content::posted)?;
        let mut outbox = Outbox::new(self);
        let mut changes = db.read(|conn| push_delivered(conn, &mut outbox))?;
        for section in self.inline.take() {
            outbox.push(section)?;
            changes += 1;
        }
        let logs = db.read(|conn| self.push_logs(conn, previous.as_ref(), &mut outbox))?;
        changes += logs.changes;
        changes += db.read(|conn| self.push_index(conn, &mut outbox))?;
        let forgotten = Some(db.read(tree::forgotten_ranges)?).filter(|ranges| !ranges.is_empty());
        let said = previous.as_ref().and_then(|previous| previous.root.forgotten.as_ref());
        changes += u64::from(said != forgotten.as_ref());
        let mut marked = previous
            .as_ref()
            .map(|previous| previous.root.clone())
            .unwrap_or_default();
        changes += u64::from(db.read(|conn| tree::mark(conn, &mut marked))?);
        changes += u64::from(db.read(|conn| heads::tell(conn, self.writer.cert.device, &mut marked))?);
        if self.writer.settings.is_some() && previous.is_some() {
            changes += u64::from(marked.settings != self.writer.settings);
        }
        let settings = self.writer.settings.clone().or_else(|| marked.settings.take());
        let is_cut = logs.is_cut;
        let newest = match logs.new.last().filter(|_| is_cut) {
            Some(last) => Some(last.clone()),
            None => db.read(|conn| self.newest_snapshot(conn))?,
        };
        match previous {
            _ if changes == 0 && logs.new.is_empty() => Ok(false),
            Some(previous) if changes == 0 && !is_cut && is_told_by_head(&previous, newest.as_ref(), &logs) => {
                let body = next_body(Some(&previous), previous.body.root.clone(), newest);
                let posted = self.writer.sign(Some(&previous), previous.root.clone(), body)?;
                db.write(|tx| {
                    post::sign(tx, &posted)?;
                    logs.last.iter().try_for_each(|seq| tree::posted(tx, *seq))
                })?;
                Ok(false)
            }
            previous => {
                let mut root = next_root(previous.as_ref(), !logs.new.is_empty());
                root.snapshots.extend(logs.new);
                root.forgotten = forgotten;
                (root.tags, root.pinned, root.devices) = (marked.tags, marked.pinned, marked.devices);
                (root.settings, root.unread) = (settings, marked.unread);
                outbox.post(root, |root, root_ref| {
                    let body = next_body(previous.as_ref(), Some(root_ref), newest);
                    self.writer.sign(previous.as_ref(), root, body)
                })?;
                Ok(is_cut)
            }
        }
    }

    /// The snapshot that a head tells of: one that this device just made, which no root may list, or else the newest of all.
    fn newest_snapshot(&self, conn: &Connection) -> Result<Option<SnapshotRecord>, DbError> {
        let mut snapshots = tree::snapshots(conn)?;
        if snapshots
            .last()
            .is_some_and(|last| last.device != self.writer.cert.device)
        {
            snapshots = tree::by_time(snapshots);
        }
        Ok(snapshots.pop().map(|snapshot| snapshot.record))
    }

    /// Pushes the logs of snapshots that have something to post, and the bare records of those that did not change
    /// anything and so far were only in a head.
    fn push_logs(
        &self,
        conn: &Connection,
        previous: Option<&Posted>,
        outbox: &mut Outbox<'_, '_>,
    ) -> Result<Logs, WriteError> {
        let in_root = previous
            .and_then(|previous| previous.root.snapshots.last())
            .map_or(0, |last| last.seq);
        let unposted: BTreeSet<u64> = tree::unposted(conn)?.into_iter().collect();
        let snapshots = tree::snapshots(conn)?;
        let known: HashSet<u64> = snapshots.iter().map(|snapshot| snapshot.record.seq).collect();
        let mut logs = Logs {
            new: Vec::new(),
            new_bytes: 0,
            is_cut: false,
            last: None,
            changes: 0,
        };
        let mut sections = Gatherer::default();
        for Snapshot { record, .. } in snapshots {
            let seq = record.seq;
            let full = record.parent.is_none_or(|parent| !known.contains(&parent));
            if seq > in_root {
                logs.new_bytes += record_bytes(&record);
                logs.is_cut = logs.new_bytes > ROOT_BYTES_TURN && !logs.new.is_empty();
                if logs.is_cut {
                    break;
                }
                logs.new.push(record.clone());
            }
            if unposted.contains(&seq) {
                let mut folder = Vec::new();
                tree::log::<WriteError>(conn, seq, full, &mut |record| {
                    logs.changes += u64::from(!matches!(record, LogRecord::Snapshot(_)));
                    if let LogRecord::Directory(path) = &record {
                        folder.clone_from(path);
                    }
                    self.push_log(&mut sections, &folder, &record, outbox)
                })?;
                sections.carries().snapshot = Some(seq);
                logs.last = Some(seq);
            } else if seq > in_root {
                self.push_log(&mut sections, b"/", &LogRecord::Snapshot(record), outbox)?;
            }
        }
        sections.finish().map_or(Ok(()), |section| outbox.push(section))?;
        Ok(logs)
    }

    /// Pushes a record of a log. One that is refused is said to be missing: it is of something in `folder`.
    fn push_log(
        &self,
        sections: &mut Gatherer<LogRecord>,
        folder: &[u8],
        record: &LogRecord,
        outbox: &mut Outbox<'_, '_>,
    ) -> Result<(), WriteError> {
        match sections.push(record) {
            Ok(section) => section.map_or(Ok(()), |section| outbox.push(section)),
            Err(error) => {
                let path = match record {
                    LogRecord::Entry(Entry { name, .. }) | LogRecord::Gone(name) => join(folder, name),
                    LogRecord::Directory(_) | LogRecord::Snapshot(_) | LogRecord::LeftOut(_) => folder.to_vec(),
                };
                self.failed(path_buf(&path), format!("It cannot be recorded in the backup: {error}"));
                Ok(())
            }
        }
    }

    /// Pushes index records of packs that can be read by now, and of the versions all of whose packs are listed then.
    fn push_index(&self, conn: &Connection, outbox: &mut Outbox<'_, '_>) -> Result<u64, WriteError> {
        let mut sections = Gatherer::default();
        let mut records = 0;
        let mut unlisted = HashSet::new();
        for row in post::unlisted_packs(conn)? {
            let pack = known_pack(conn, row)?;
            if pack.held() < usize::from(pack.manifest.shape.k) {
                unlisted.insert(row);
                continue;
            }
            for record in IndexRecord::of_pack(pack.record, &post::unlisted_chunks(conn, row)?) {
                sections.push(&record)?.map_or(Ok(()), |section| outbox.push(section))?;
            }
            sections.carries().packs.push(row);
            records += 1;
        }
        for version in post::unlisted_caps(conn)? {
            if content::packs_of(conn, version)?
                .iter()
                .any(|pack| unlisted.contains(pack))
            {
                continue;
            }
            let Some(extents) = post::extents(conn, version)? else {
                continue;
            };
            for record in IndexRecord::of_cap(version, Cap::Extents(extents)) {
                sections.push(&record)?.map_or(Ok(()), |section| outbox.push(section))?;
            }
            sections.carries().caps.push(version);
            records += 1;
        }
        sections.finish().map_or(Ok(()), |section| outbox.push(section))?;
        Ok(records)
    }
}

/// Pushes sections that were delivered and that no root names: very small contents, or a posting cut short.
fn push_delivered(conn: &Connection, outbox: &mut Outbox<'_, '_>) -> Result<u64, WriteError> {
    let sections = post::unposted_sections(conn)?;
    for place in &sections {
        outbox.push_delivered(&known_pack(conn, place.pack)?.record, place);
    }
    Ok(sections.len() as u64)
}

/// A pack that the catalog names.
pub(super) fn known_pack(conn: &Connection, row: PackRow) -> Result<packs::KnownPack, WriteError> {
    packs::get(conn, row)?.ok_or_else(|| WriteError::Missing {
        what: format!("pack {}", row.0),
    })
}

/// The newest root, to be extended, also one that begins anew; a fresh one that points to it when it is long. Its own pack becomes the last of its
/// list: that is the position by which it named it.
fn next_root(previous: Option<&Posted>, has_snapshots: bool) -> Root {
    let Some(previous) = previous else {
        return Root::default();
    };
    let Some(own) = &previous.body.root else {
        return previous.root.clone();
    };
    // Only with a snapshot to list: what a root lists last tells which snapshots are in it.
    if has_snapshots && is_long(&previous.root) {
        return Root {
            older: Some(own.clone()),
            ..Root::default()
        };
    }
    let mut root = previous.root.clone();
    root.packs.push(own.pack.clone());
    root
}

/// Whether the lists of a root are long enough to begin new ones. What it says of all snapshots is in every root.
fn is_long(root: &Root) -> bool {
    let lists = Root {
        forgotten: None,
        tags: None,
        pinned: None,
        ..root.clone()
    };
    root.sections.len() >= ROOT_SECTIONS_MAX || record::to_cbor(&lists).len() >= ROOT_BYTES_TURN
}

/// Whether a head alone, without a new root, tells all of a snapshot that changed nothing. One without room for the paths
/// says that they are those of the last snapshot in the root; and what only heads tell must not get long.
fn is_told_by_head(previous: &Posted, newest: Option<&SnapshotRecord>, logs: &Logs) -> bool {
    let paths_are_told = newest.is_none_or(|newest| {
        let last = previous.root.snapshots.last();
        record_bytes(newest) <= HEAD_SNAPSHOT_BYTES_MAX.min(previous.body.snapshot_room())
            || last.is_some_and(|last| last.source_roots == newest.source_roots)
    });
    previous.body.root.is_some() && paths_are_told && logs.new_bytes < ROOT_BYTES_TURN / 2
}

/// What the next head says of backups; of disks what the one before did: nothing else at peers leads to them.
fn next_body(previous: Option<&Posted>, root: Option<RootRef>, snapshot: Option<SnapshotRecord>) -> HeadBody {
    let snapshot = snapshot.map(|mut record| {
        if record_bytes(&record) > HEAD_SNAPSHOT_BYTES_MAX {
            record.source_roots.clear();
        }
        record
    });
    let disks = previous.and_then(|previous| previous.body.disks.clone());
    HeadBody { root, snapshot, disks }
}

fn record_bytes(record: &SnapshotRecord) -> usize {
    record::to_cbor(record).len()
}

impl Writer {
    /// The next head of this device. Whoever signs one holds `HeadLock` until it is recorded.
    pub(super) fn sign(&self, previous: Option<&Posted>, root: Root, body: HeadBody) -> Result<Posted, WriteError> {
        // A head that was recovered from another device's begins no chain of this one.
        let own = previous
            .filter(|previous| Head::decode(&previous.head).is_ok_and(|head| head.device() == self.cert.device));
        let (seq, hash) = own.map_or((0, [0; 32]), |own| (own.seq, own.hash));
        // No number is signed twice, not even one that a lost catalog of this device gave out.
        let seq = seq.max(self.db.read(heads::floor)?) + 1;
        let head = Head::sign(&self.device, &self.cert, seq, hash, &body, &self.keys.put, random()?)?;
        Ok(Posted {
            seq,
            hash: head.hash(),
            head: head.encode(),
            body,
            root,
        })
    }
}
