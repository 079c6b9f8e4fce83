//! Everything at and below a path into an archive, in order. Small files are fetched a batch at a time, each pack once, while
//! the batch before is written; large ones pass through in pieces. Memory is bounded for any number and length of files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use proto::cap_index::{ChunkSlot, Extent};
use proto::id::{ChunkId, VersionId};
use proto::log_record::{Content, Entry, EntryKind};
use proto::size::{KIB, MIB};
use upload_queue::packs::PackRow;

use crate::archive::{Archive, Member};
use crate::catalog::content::{Place, SectionRow};
use crate::catalog::{content, tree};
use crate::restore::cat::cat_extents;
use crate::restore::content::open_chunk;
use crate::restore::fetch_stats::FetchStats;
use crate::restore::sections::{Inlines, load_inlines};
use crate::restore::select::{Selection, base_path};
use crate::restore::window::{Item, window};
use crate::restore::{Overwrite, Reader, RestoreError, RestoreOptions};

/// Content of the small files that are fetched together, and how many of them. Chosen: a pack or two.
const BATCH_BYTES_MAX: u64 = 16 * MIB as u64;
const BATCH_FILES_MAX: usize = 4096;
/// Files from this length on pass through alone.
const LARGE_BYTES: u64 = 4 * MIB as u64;
/// Batches fetched ahead, and packs or sections of a batch fetched at once.
const BATCHES_AHEAD: usize = 2;
const FETCHES_AT_ONCE: usize = 8;
/// Index sections that are kept: neighbours in a folder often have their contents in the same ones.
const SECTIONS_KEPT_MAX: usize = 16;

/// What an export did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Paths written.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Paths left out whose content was not uploaded yet.
    pub waiting: Vec<Vec<u8>>,
    /// Paths left out that the archive has no place for: sockets.
    pub without_place: u64,
}

/// A path with where its content is.
struct Planned {
    item: Item,
    source: Source,
    first_name: Option<Vec<u8>>,
}

#[derive(Clone)]
enum Source {
    None,
    Here(Vec<u8>),
    Section(SectionRow, VersionId),
    Extents(Vec<Extent>),
    Waiting,
}

impl Source {
    fn bytes(&self, entry: &Entry) -> u64 {
        match self {
            Self::None | Self::Waiting => 0,
            Self::Here(content) => content.len() as u64,
            Self::Section(..) => entry.meta.size,
            Self::Extents(extents) => extents.iter().map(Extent::len).sum(),
        }
    }
}

/// Contents fetched for a batch.
#[derive(Default)]
struct Fetched {
    chunks: HashMap<ChunkId, Bytes>,
    sections: HashMap<SectionRow, Arc<Inlines>>,
}

/// Sections met lately, the latest last.
type Kept = Mutex<Vec<(SectionRow, Arc<Inlines>)>>;

pub(super) fn export(
    reader: &Reader,
    snapshot: u64,
    path: Option<&[u8]>,
    archive: &mut dyn Archive,
) -> Result<Exported, RestoreError> {
    let options = everything(snapshot, path);
    let base = base_path(&options);
    let entry = reader.db.read(|conn| tree::entry(conn, snapshot, &base))?;
    let kind = match entry {
        Some(entry) => entry.kind,
        None if path.is_none() => EntryKind::Directory,
        None => {
            let path = String::from_utf8_lossy(&base).into_owned();
            return Err(RestoreError::NoSuchPath { path });
        }
    };
    let selection = Selection::new(&options, kind)?;
    let mut exported = Exported::default();
    let mut first_names: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let (kept, stats) = (Kept::default(), Mutex::new(FetchStats::default()));
    let mut after = None;
    loop {
        let (items, last) = window(reader, snapshot, &selection, after.as_deref())?;
        let links = archive.has_links();
        let planned = items
            .into_iter()
            .map(|item| plan(reader, item, links, &mut first_names));
        let planned = planned.collect::<Result<Vec<_>, _>>()?;
        reader.runtime.block_on(async {
            let mut ready = futures::stream::iter(batches(planned))
                .map(|batch| async {
                    let fetched = fetch(reader, &batch, &kept, &stats).await?;
                    Ok::<_, RestoreError>((batch, fetched))
                })
                .buffered(BATCHES_AHEAD);
            while let Some(batch) = ready.next().await {
                let (batch, fetched) = batch?;
                for planned in &batch {
                    write(reader, planned, &fetched, &stats, archive, &mut exported).await?;
                }
            }
            Ok::<_, RestoreError>(())
        })?;
        match last {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    archive.finish().map_err(failed)?;
    Ok(exported)
}

fn everything(snapshot: u64, path: Option<&[u8]>) -> RestoreOptions {
    RestoreOptions {
        snapshot,
        path: path.map(<[u8]>::to_vec),
        target: "/".into(),
        include: Vec::new(),
        exclude: Vec::new(),
        overwrite: Overwrite::Never,
        delete: None,
        dry_run: true,
        verify: false,
    }
}

fn plan(
    reader: &Reader,
    item: Item,
    links: bool,
    first_names: &mut HashMap<(u64, u64), Vec<u8>>,
) -> Result<Planned, RestoreError> {
    if leads_elsewhere(&item.relative) {
        return Err(RestoreError::Damaged {
            what: format!("The name {}", String::from_utf8_lossy(&item.relative)),
            reason: "it leads out of the archive".to_owned(),
        });
    }
    let meta = &item.entry.meta;
    // No archive has sockets: what is left out has no other name either.
    let has_place = !matches!(item.entry.kind, EntryKind::Directory | EntryKind::Socket);
    let link = (links && meta.links > 1 && has_place).then_some((meta.device, meta.inode));
    if let Some(first) = link.and_then(|link| first_names.get(&link)) {
        return Ok(Planned {
            first_name: Some(first.clone()),
            source: Source::None,
            item,
        });
    }
    let source = match (item.entry.kind, &item.entry.content) {
        (EntryKind::File, Content::Inline(content)) => Source::Here(content.clone()),
        (EntryKind::File, Content::Version(version)) => match reader.db.read(|conn| content::place(conn, *version))? {
            None => Source::Waiting,
            Some(Place::Section(section)) => Source::Section(section, *version),
            Some(Place::Extents(extents)) => Source::Extents(extents),
        },
        _ => Source::None,
    };
    if let Some(link) = link.filter(|_| !matches!(source, Source::Waiting)) {
        first_names.insert(link, item.relative.clone());
    }
    Ok(Planned {
        item,
        source,
        first_name: None,
    })
}

/// Whoever unpacks an archive may not look: no log has such names, but a damaged catalog may.
fn leads_elsewhere(relative: &[u8]) -> bool {
    relative.split(|byte| *byte == b'/').any(|name| name == b"..")
}

/// Runs of small files whose contents fit in memory together; each large file is a batch of its own.
fn batches(planned: Vec<Planned>) -> Vec<Vec<Planned>> {
    let mut batches: Vec<Vec<Planned>> = Vec::new();
    let mut bytes = BATCH_BYTES_MAX;
    for planned in planned {
        let own = planned.source.bytes(&planned.item.entry);
        bytes += own;
        match batches.last_mut() {
            Some(batch) if bytes < BATCH_BYTES_MAX && batch.len() < BATCH_FILES_MAX => batch.push(planned),
            _ => {
                bytes = own;
                batches.push(vec![planned]);
            }
        }
        if own >= LARGE_BYTES {
            bytes = BATCH_BYTES_MAX;
        }
    }
    batches
}

fn is_large(planned: &Planned) -> bool {
    planned.source.bytes(&planned.item.entry) >= LARGE_BYTES
}

async fn fetch(
    reader: &Reader,
    batch: &[Planned],
    kept: &Kept,
    stats: &Mutex<FetchStats>,
) -> Result<Fetched, RestoreError> {
    let mut sections: BTreeSet<SectionRow> = BTreeSet::new();
    let mut packs: BTreeMap<PackRow, Vec<ChunkSlot>> = BTreeMap::new();
    for planned in batch.iter().filter(|planned| !is_large(planned)) {
        match &planned.source {
            Source::Section(section, _) => drop(sections.insert(*section)),
            Source::Extents(extents) => {
                reader.locate(extents, |pack, slot, _| packs.entry(pack).or_default().push(slot))?;
            }
            _ => {}
        }
    }
    let mut fetched = Fetched::default();
    let mut loading = futures::stream::iter(sections)
        .map(|section| async move { Ok::<_, RestoreError>((section, section_at(reader, section, kept, stats).await?)) })
        .buffer_unordered(FETCHES_AT_ONCE);
    while let Some(loaded) = loading.next().await {
        let (section, inlines) = loaded?;
        fetched.sections.insert(section, inlines);
    }
    let mut reading = futures::stream::iter(packs)
        .map(|(pack, mut slots)| async move {
            slots.sort_unstable_by_key(|slot| slot.offset);
            slots.dedup();
            let stored = reader.read_slots(pack, &slots, stats).await?;
            Ok::<_, RestoreError>((slots, stored))
        })
        .buffer_unordered(FETCHES_AT_ONCE);
    while let Some(read) = reading.next().await {
        let (slots, stored) = read?;
        for (slot, stored) in slots.iter().zip(&stored) {
            fetched.chunks.insert(slot.id, open_chunk(reader, slot, stored)?);
        }
    }
    Ok(fetched)
}

async fn section_at(
    reader: &Reader,
    section: SectionRow,
    kept: &Kept,
    stats: &Mutex<FetchStats>,
) -> Result<Arc<Inlines>, RestoreError> {
    let lock = || kept.lock().expect("no panic while the sections are locked");
    if let Some((_, inlines)) = lock().iter().find(|(known, _)| *known == section) {
        return Ok(inlines.clone());
    }
    let inlines = Arc::new(load_inlines(reader, section, stats).await?);
    let mut kept = lock();
    if kept.len() == SECTIONS_KEPT_MAX {
        kept.remove(0);
    }
    kept.push((section, inlines.clone()));
    Ok(inlines)
}

async fn write(
    reader: &Reader,
    planned: &Planned,
    fetched: &Fetched,
    stats: &Mutex<FetchStats>,
    archive: &mut dyn Archive,
    exported: &mut Exported,
) -> Result<(), RestoreError> {
    let Planned {
        item,
        source,
        first_name,
    } = planned;
    let content = match source {
        Source::Waiting => {
            exported.waiting.push(item.relative.clone());
            return Ok(());
        }
        Source::Section(section, version) => {
            let inlines = fetched.sections.get(section);
            let content = inlines.and_then(|inlines| inlines.get(version)).ok_or_else(missing)?;
            &content[..]
        }
        Source::Here(content) => content,
        Source::None | Source::Extents(_) => &[],
    };
    let bytes = match source {
        Source::Extents(_) => source.bytes(&item.entry),
        _ => content.len() as u64,
    };
    let member = Member {
        path: &item.relative,
        entry: &item.entry,
        bytes,
        first_name: first_name.as_deref(),
    };
    if !archive.begin(&member).map_err(failed)? {
        exported.without_place += 1;
        let path = item.relative.escape_ascii();
        tracing::warn!(%path, "The archive has no place for such a thing: it is left out");
        return Ok(());
    }
    match source {
        Source::Extents(extents) if is_large(planned) => {
            cat_extents(reader, extents, stats, &mut Contents(archive)).await?;
        }
        Source::Extents(extents) => write_small(extents, fetched, archive)?,
        _ if content.is_empty() => {}
        _ => archive.content(content).map_err(failed)?,
    }
    archive.end().map_err(failed)?;
    exported.entries += 1;
    exported.bytes += bytes;
    Ok(())
}

fn write_small(extents: &[Extent], fetched: &Fetched, archive: &mut dyn Archive) -> Result<(), RestoreError> {
    let zeros = [0; 64 * KIB];
    for extent in extents {
        match extent {
            Extent::Chunk(id, _) => {
                let chunk = fetched.chunks.get(id).ok_or_else(missing)?;
                archive.content(chunk).map_err(failed)?;
            }
            Extent::Hole(len) => {
                let mut left = *len;
                while left > 0 {
                    let now = left.min(zeros.len() as u64);
                    archive.content(&zeros[..now as usize]).map_err(failed)?;
                    left -= now;
                }
            }
        }
    }
    Ok(())
}

/// The content of one member as something to write to.
struct Contents<'a>(&'a mut dyn Archive);

impl io::Write for Contents<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.content(bytes).map(|()| bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn missing() -> RestoreError {
    RestoreError::Damaged {
        what: "A metadata section".to_owned(),
        reason: "it does not hold a file's content".to_owned(),
    }
}

fn failed(source: io::Error) -> RestoreError {
    RestoreError::Target {
        path: "The output".into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::leads_elsewhere;

    #[test]
    fn no_name_in_an_archive_leads_out_of_it() {
        for (name, expected) in [
            (&b"a/b"[..], false),
            (b"..a/b..", false),
            (b"", false),
            (b"..", true),
            (b"a/../b", true),
            (b"../b", true),
        ] {
            assert_eq!(leads_elsewhere(name), expected, "{}", String::from_utf8_lossy(name));
        }
    }
}
