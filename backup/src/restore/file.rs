//! Random access to the contents of files: the segments that a read needs, a little ahead when a file is read in order,
//! and nothing twice while it is remembered. Everything is verified as in a restore.
//!
//! Leaves out names and folders: `view` has those.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use proto::cap_index::Extent;
use proto::id::VersionId;
use proto::log_record::{Content, Entry};
use proto::pack::segments_of;
use proto::shape::SEGMENT_PLAIN_BYTES;
use proto::size::{KIB, MIB};
use tokio::sync::Semaphore;
use upload_queue::packs::PackRow;

use crate::catalog::content::{Place, SectionRow};
use crate::catalog::{content, tree};
use crate::restore::content::open_chunk;
use crate::restore::fetch_stats::FetchStats;
use crate::restore::file::cache::{Cache, Key, Value};
use crate::restore::file::extents::Extents;
use crate::restore::sections::load_inlines;
use crate::restore::{Reader, RestoreError};

mod ahead;
mod cache;
mod extents;

use self::ahead::Ahead;
pub use self::cache::Failed;

/// A chunk longer than this is opened on a thread that may be busy for a while.
const OPENED_INLINE_BYTES_MAX: usize = 64 * KIB;
/// Read-aheads under way at once, of all files together: what is read now goes first.
const AHEADS_MAX: usize = 8;

/// Opens files; clones share one cache.
#[derive(Clone)]
pub struct Files(Arc<Inner>);

struct Inner {
    reader: Reader,
    cache: Cache,
    stats: Mutex<FetchStats>,
    /// Kibibytes of packs that may be fetched at the moment.
    in_flight: Semaphore,
    in_flight_kib_max: u32,
    aheads: Arc<Semaphore>,
}

/// A file open for reading; dropping it closes it.
pub struct OpenFile {
    files: Files,
    body: Body,
    ahead: Mutex<Ahead>,
}

enum Body {
    Here(Bytes),
    Section(SectionRow, VersionId),
    Extents(Extents),
}

impl Files {
    /// At most `cache_bytes_max` bytes of opened segments, chunks and sections are kept.
    pub fn new(reader: Reader, cache_bytes_max: usize) -> Self {
        let in_flight_kib_max = u32::try_from(reader.bytes_in_flight_max / KIB)
            .unwrap_or(u32::MAX >> 4)
            .max(1);
        Self(Arc::new(Inner {
            cache: Cache::new(cache_bytes_max, reader.runtime.clone()),
            stats: Mutex::default(),
            in_flight: Semaphore::new(in_flight_kib_max as usize),
            in_flight_kib_max,
            aheads: Arc::new(Semaphore::new(AHEADS_MAX)),
            reader,
        }))
    }

    /// The read side that this fetches with.
    pub fn reader(&self) -> &Reader {
        &self.0.reader
    }

    /// What fetching has cost and found so far.
    pub fn stats(&self) -> FetchStats {
        self.0
            .stats
            .lock()
            .expect("no panic while the counts are locked")
            .clone()
    }

    /// Opens the file at `path`. Reads the catalog only.
    pub fn open(&self, snapshot: u64, path: &[u8]) -> Result<OpenFile, RestoreError> {
        let missing = || RestoreError::NoSuchPath {
            path: String::from_utf8_lossy(path).into_owned(),
        };
        let entry = self.0.reader.db.read(|conn| tree::entry(conn, snapshot, path))?;
        self.open_entry(&entry.ok_or_else(missing)?)
    }

    /// Opens an entry's content. Reads the catalog only.
    pub fn open_entry(&self, entry: &Entry) -> Result<OpenFile, RestoreError> {
        let path = || String::from_utf8_lossy(&entry.name).into_owned();
        let body = match &entry.content {
            Content::None => return Err(RestoreError::NoContent { path: path() }),
            Content::Inline(bytes) => Body::Here(Bytes::copy_from_slice(bytes)),
            Content::Version(version) => match self.0.reader.db.read(|conn| content::place(conn, *version))? {
                None => return Err(RestoreError::Waiting { path: path() }),
                Some(Place::Section(section)) => Body::Section(section, *version),
                Some(Place::Extents(extents)) => Body::Extents(Extents::new(extents)?),
            },
        };
        Ok(OpenFile {
            files: self.clone(),
            body,
            ahead: Mutex::default(),
        })
    }

    async fn inline(&self, section: SectionRow, version: VersionId) -> Result<Bytes, Failed> {
        let files = self.clone();
        let load = |_| async move {
            let inlines = load_inlines(&files.0.reader, section, &files.0.stats).await?;
            Ok(vec![Value::Section(Arc::new(inlines))])
        };
        let values = self.0.cache.get(&[Key::Section(section)], load).await?;
        let content = match values.first() {
            Some(Value::Section(inlines)) => inlines.get(&version),
            _ => None,
        };
        content.map(|content| Bytes::copy_from_slice(content)).ok_or_else(|| {
            Arc::new(RestoreError::Damaged {
                what: "A metadata section".to_owned(),
                reason: "it does not hold the file's content".to_owned(),
            })
        })
    }

    /// Opened segments of a pack, in the order asked; those that are not here yet are fetched as one.
    async fn segments(&self, pack: PackRow, numbers: impl Iterator<Item = u32>) -> Result<Vec<Value>, Failed> {
        let keys: Vec<Key> = numbers.map(|number| Key::Segment(pack, number)).collect();
        let files = self.clone();
        let load = |missing| async move { files.fetch_segments(pack, missing).await };
        self.0.cache.get(&keys, load).await
    }

    async fn fetch_segments(&self, pack: PackRow, keys: Vec<Key>) -> Result<Vec<Value>, Failed> {
        let cost = u32::try_from(keys.len() * SEGMENT_PLAIN_BYTES / KIB).unwrap_or(u32::MAX);
        let _permit = self.0.in_flight.acquire_many(cost.min(self.0.in_flight_kib_max)).await;
        let ranges: Vec<(u32, u32)> = keys
            .iter()
            .filter_map(|key| match key {
                Key::Segment(_, number) => Some((number * SEGMENT_PLAIN_BYTES as u32, SEGMENT_PLAIN_BYTES as u32)),
                _ => None,
            })
            .collect();
        let read = self.0.reader.read_row(pack, &ranges, &self.0.stats).await?;
        // Each in memory of its own, so that forgetting it sets that free.
        Ok(read
            .iter()
            .map(|plain| Value::Bytes(Bytes::copy_from_slice(plain)))
            .collect())
    }

    /// A chunk's plaintext.
    async fn chunk(&self, extent: Extent) -> Result<Bytes, Failed> {
        let Extent::Chunk(id, _) = extent else {
            return Ok(Bytes::new());
        };
        let files = self.clone();
        let load = |_| async move { files.load_chunk(extent).await };
        let values = self.0.cache.get(&[Key::Chunk(id)], load).await?;
        match values.into_iter().next() {
            Some(Value::Bytes(plain)) => Ok(plain),
            _ => Err(Arc::new(RestoreError::Stopped)),
        }
    }

    async fn load_chunk(&self, extent: Extent) -> Result<Vec<Value>, Failed> {
        let mut place = None;
        self.0
            .reader
            .locate(&[extent], |pack, slot, _| place = Some((pack, slot)))?;
        let Some((pack, slot)) = place else {
            return Ok(vec![Value::Bytes(Bytes::new())]);
        };
        let numbers = segments_of(slot.offset, slot.stored_len);
        let segments = self.segments(pack, numbers.clone()).await?;
        let skip = slot.offset as usize - numbers.start as usize * SEGMENT_PLAIN_BYTES;
        let stored = cut(&segments, skip, slot.stored_len as usize);
        let plain = if slot.raw_len as usize > OPENED_INLINE_BYTES_MAX {
            let reader = self.0.reader.clone();
            let opening = tokio::task::spawn_blocking(move || open_chunk(&reader, &slot, &stored));
            opening.await.map_err(RestoreError::from)??
        } else {
            open_chunk(&self.0.reader, &slot, &stored)?
        };
        // Segments inside of the chunk hold nothing else; those at its ends may hold the neighbours, too.
        let inside = numbers.start + 1..numbers.end.saturating_sub(1);
        self.0.cache.drop_keys(inside.map(|number| Key::Segment(pack, number)));
        Ok(vec![Value::Bytes(plain)])
    }

    /// Brings the segments of these chunks here, all of one pack by one fetch.
    async fn gather(&self, chunks: &[Extent]) -> Result<(), Failed> {
        let unknown = chunks.iter().filter(|extent| match extent {
            Extent::Chunk(id, _) => !self.0.cache.has(&Key::Chunk(*id)),
            Extent::Hole(_) => false,
        });
        let unknown: Vec<Extent> = unknown.copied().collect();
        let mut wanted: BTreeMap<PackRow, BTreeSet<u32>> = BTreeMap::new();
        self.0.reader.locate(&unknown, |pack, slot, _| {
            let numbers = segments_of(slot.offset, slot.stored_len);
            wanted.entry(pack).or_default().extend(numbers);
        })?;
        let fetches = wanted
            .into_iter()
            .map(|(pack, numbers)| self.segments(pack, numbers.into_iter()));
        futures::future::try_join_all(fetches).await.map(drop)
    }
}

/// `len` bytes after the first `skip` of these segments end to end.
fn cut(segments: &[Value], mut skip: usize, len: usize) -> Bytes {
    let mut cut = BytesMut::with_capacity(len);
    for segment in segments {
        let Value::Bytes(plain) = segment else { continue };
        let end = plain.len().min(skip + len - cut.len());
        cut.extend_from_slice(&plain[skip.min(end)..end]);
        skip = 0;
    }
    cut.freeze()
}

impl OpenFile {
    /// Up to `len` bytes from `offset` on; fewer only at the end of the file. May be dropped at any time.
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, Failed> {
        let extents = match &self.body {
            Body::Here(bytes) => return Ok(slice(bytes, offset, len)),
            Body::Section(section, version) => {
                let content = self.files.inline(*section, *version).await?;
                return Ok(slice(&content, offset, len));
            }
            Body::Extents(extents) => extents,
        };
        let end = offset.saturating_add(len as u64).min(extents.len());
        if offset >= end {
            return Ok(Bytes::new());
        }
        self.read_ahead(extents, offset..end);
        let parts: Vec<(Extent, Range<u64>)> = extents.overlapping(offset..end).collect();
        let chunks: Vec<Extent> = parts.iter().map(|(extent, _)| *extent).collect();
        if chunks.len() > 1 {
            self.files.gather(&chunks).await?;
        }
        let reads = parts.into_iter().map(|(extent, part)| async move {
            match extent {
                Extent::Hole(_) => Ok(Bytes::from(vec![0; (part.end - part.start) as usize])),
                chunk => {
                    let plain = self.files.chunk(chunk).await?;
                    Ok::<_, Failed>(plain.slice(part.start as usize..part.end as usize))
                }
            }
        });
        let mut parts = futures::future::try_join_all(reads).await?;
        Ok(match parts.len() {
            1 => parts.swap_remove(0),
            _ => parts.concat().into(),
        })
    }

    /// Starts fetching what will be read next, if this file is being read in order and not too much else is fetched.
    fn read_ahead(&self, extents: &Extents, read: Range<u64>) {
        let mut ahead = self.ahead.lock().expect("no panic while a position is locked");
        let Some(next) = ahead.after(read, extents.len()) else {
            return;
        };
        let Ok(permit) = self.files.0.aheads.clone().try_acquire_owned() else {
            return;
        };
        ahead.fetched_until(next.end);
        let (files, chunks) = (self.files.clone(), extents.overlapping(next).map(|(extent, _)| extent));
        let chunks: Vec<Extent> = chunks.collect();
        self.files.0.reader.runtime.spawn(async move {
            let _permit = permit;
            if let Err(error) = files.gather(&chunks).await {
                tracing::debug!("Reading ahead failed, which whoever reads will be told: {error}");
            }
        });
    }

    /// Bytes that are not in holes; `None` if only reading tells.
    pub fn bytes_outside_holes(&self) -> Option<u64> {
        match &self.body {
            Body::Extents(extents) => Some(extents.bytes_outside_holes()),
            Body::Here(_) | Body::Section(..) => None,
        }
    }

    /// The first byte from `offset` on that is in no hole; `None` if all is hole from there to the end. `len` is the file's
    /// length.
    pub fn next_outside_hole(&self, offset: u64, len: u64) -> Option<u64> {
        match &self.body {
            Body::Extents(extents) => extents.next(offset, |extent| matches!(extent, Extent::Chunk(..))),
            Body::Here(_) | Body::Section(..) => (offset < len).then_some(offset),
        }
    }

    /// The first byte from `offset` on that is in a hole; the end of the file counts as one.
    pub fn next_hole(&self, offset: u64, len: u64) -> Option<u64> {
        if offset >= len {
            return None;
        }
        match &self.body {
            Body::Extents(extents) => extents
                .next(offset, |extent| matches!(extent, Extent::Hole(_)))
                .or(Some(len)),
            Body::Here(_) | Body::Section(..) => Some(len),
        }
    }
}

fn slice(bytes: &Bytes, offset: u64, len: usize) -> Bytes {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(start..start.saturating_add(len).min(bytes.len()))
}

/// What a mount keeps in memory of what it opened. Chosen: a few readers' windows, and far below a node's budget.
pub const CACHE_BYTES_MAX: usize = 64 * MIB;
