//! Whose content is lost: in packs of which peers and the spool have too few shares (`upload_queue::packs::lost`).
//!
//! The catalog keeps the places of lost content, in case a peer comes back with it; but nothing new refers to them. Where the
//! file is still here as it was recorded, it becomes work again (`crate::prepare::lost`). `post::begin_anew` is for
//! names and indexes.

use std::collections::{HashMap, HashSet};

use database::DbError;
use proto::cap_index::Extent;
use proto::id::{ChunkId, VersionId};
use proto::log_record::Meta;
use rusqlite::{Connection, Transaction};
use upload_queue::packs;
use upload_queue::packs::{PackRow, Purpose};

use super::{Place, SectionRow, anew, decoded, moves, place, post};
use crate::catalog::tree::rows::{COLUMNS, directory_path, join, read_row};
use crate::catalog::{shown, tree};

/// A file whose content is lost.
#[derive(Clone, Debug, PartialEq)]
pub struct LostFile {
    /// Its absolute path.
    pub path: Vec<u8>,
    /// Its version.
    pub version: VersionId,
    /// What it was.
    pub meta: Meta,
    /// It is what the newest scan found there: if it still is, its content can be sent again.
    pub is_current: bool,
}

/// Lost packs and what is in them.
#[derive(Debug, Default)]
pub struct Lost {
    chunks: HashMap<ChunkId, PackRow>,
    sections: HashMap<SectionRow, PackRow>,
    versions: HashSet<VersionId>,
}

impl Lost {
    /// All that is lost; cheap where nothing is.
    pub fn load(conn: &Connection) -> Result<Self, DbError> {
        let mut packs = packs::lost(conn, Purpose::Data)?;
        packs.extend(packs::lost(conn, Purpose::Metadata)?);
        Self::of(conn, &packs.into_iter().collect())
    }

    /// As if these packs were lost. Reads every chunk's and every version's place once, unless there are no packs.
    pub fn of(conn: &Connection, packs: &HashSet<PackRow>) -> Result<Self, DbError> {
        let mut lost = Self::default();
        if packs.is_empty() {
            return Ok(lost);
        }
        super::for_each_chunk(conn, &mut |place| {
            if packs.contains(&place.pack) {
                lost.chunks.insert(place.slot.id, place.pack);
            }
        })?;
        let mut query = conn.prepare("SELECT id, pack FROM section")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let pack = PackRow(row.get(1)?);
            if packs.contains(&pack) {
                lost.sections.insert(SectionRow(row.get(0)?), pack);
            }
        }
        let mut query = conn.prepare("SELECT version, cap, section FROM content")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let place = match row.get::<_, Option<Vec<u8>>>(1)? {
                Some(cap) => Place::Extents(decoded(1, &cap)?),
                None => Place::Section(SectionRow(row.get(2)?)),
            };
            if lost.leads_into(&place).next().is_some() {
                lost.versions.insert(VersionId(row.get::<_, i64>(0)?.cast_unsigned()));
            }
        }
        Ok(lost)
    }

    /// Whether no content is lost.
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// The lost packs that a place leads into.
    fn leads_into<'a>(&'a self, place: &'a Place) -> Box<dyn Iterator<Item = PackRow> + 'a> {
        match place {
            Place::Section(section) => Box::new(self.sections.get(section).copied().into_iter()),
            Place::Extents(extents) => Box::new(extents.iter().filter_map(|extent| match extent {
                Extent::Chunk(id, _) => self.chunks.get(id).copied(),
                Extent::Hole(_) => None,
            })),
        }
    }

    /// Calls `visit` with each file that kept snapshots show whose content is lost; a version with several names once.
    pub fn for_each_file<E: From<DbError>>(
        &self,
        conn: &Connection,
        visit: &mut dyn FnMut(LostFile) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.is_empty() {
            return Ok(());
        }
        let kept = tree::kept(conn)?;
        let series = shown::series(&kept);
        let mut seen = HashSet::new();
        // Rows of now come before those of then, so that of several names of a version one that is still there is told.
        for rows in ["until IS NULL", "until IS NOT NULL"] {
            let mut query = conn
                .prepare(&format!(
                    "SELECT {COLUMNS}, directory FROM entry WHERE version IS NOT NULL AND {rows}"
                ))
                .map_err(DbError::from)?;
            let mut rows = query.query([]).map_err(DbError::from)?;
            while let Some(row) = rows.next().map_err(DbError::from)? {
                let version = VersionId(row.get::<_, i64>(3).map_err(DbError::from)?.cast_unsigned());
                if !self.versions.contains(&version) || seen.contains(&version) {
                    continue;
                }
                let found = read_row(row).map_err(DbError::from)?;
                let directory = directory_path(conn, row.get(6).map_err(DbError::from)?)?;
                if !shown::is_shown(&series, &directory, &found) {
                    continue;
                }
                seen.insert(version);
                visit(LostFile {
                    path: join(&directory, &found.entry.name),
                    version,
                    is_current: found.until.is_none(),
                    meta: found.entry.meta,
                })?;
            }
        }
        Ok(())
    }
}

/// Lost files, counted, and the first of them by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LostFiles {
    /// How many.
    pub files: u64,
    /// Their bytes, by length.
    pub bytes: u64,
    /// The first.
    pub named: Vec<LostFile>,
}

impl LostFiles {
    /// Counts a file, and keeps its name if there are fewer than `named_max`.
    pub fn count(&mut self, file: LostFile, named_max: usize) {
        self.files += 1;
        self.bytes += file.meta.size;
        if self.named.len() < named_max {
            self.named.push(file);
        }
    }
}

/// The files whose content is lost: what `check`, `repair`, `run` and `status` name. Those that wait to be sent again are not
/// among them.
pub fn files(conn: &Connection, named_max: usize) -> Result<LostFiles, DbError> {
    let lost = Lost::load(conn)?;
    let mut found = LostFiles::default();
    let mut waits = conn.prepare("SELECT EXISTS (SELECT 1 FROM job WHERE version = ?1 AND state <> 2)")?;
    lost.for_each_file::<DbError>(conn, &mut |file| {
        let is_waiting: bool = waits.query_row([file.version.0.cast_signed()], |row| row.get(0))?;
        if !is_waiting {
            found.count(file, named_max);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Declares lost packs dead that no file leads into any more: their content is elsewhere by now, or nobody wants it.
/// Returns how many data packs.
pub fn bury(tx: &Transaction<'_>, now_ns: i64) -> Result<usize, DbError> {
    anew::bury(tx, now_ns)?;
    let packs = packs::lost(tx, Purpose::Data)?;
    if packs.is_empty() {
        return Ok(0);
    }
    let lost = Lost::load(tx)?;
    let mut needed: HashSet<PackRow> = moves::under_way(tx)?.into_iter().collect();
    lost.for_each_file::<DbError>(tx, &mut |file| {
        if let Some(place) = place(tx, file.version)? {
            needed.extend(lost.leads_into(&place));
        }
        Ok(())
    })?;
    let unneeded: Vec<PackRow> = packs.into_iter().filter(|row| !needed.contains(row)).collect();
    packs::set_dead(tx, &unneeded, now_ns)?;
    unneeded.iter().try_for_each(|row| post::list_pack(tx, *row))?;
    Ok(unneeded.len())
}
