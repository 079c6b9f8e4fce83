//! How well files are protected: one file, or all at and below some paths, counted.
//!
//! A file is protected when the packs of its content survive the loss that the policy asks for, and the phrase finds it:
//! the metadata survives that, too, and a head that enough peers have leads there (docs/decisions/0004).

use std::collections::{BTreeSet, HashMap, HashSet};

use database::DbError;
use proto::cap_index::Extent;
use proto::id::VersionId;
use proto::log_record::{Content, Entry, EntryKind};
use proto::manifest::Manifest;
use rusqlite::{Connection, OptionalExtension};
use upload_queue::packs;
use upload_queue::packs::{Counted, Counter, PackRow, Purpose};
use upload_queue::peers::PeerKey;

use super::content::{Place, post};
use super::tree::rows::{COLUMNS, EntryRow, child_directory, join, place, read_row, row_at};
use super::{content, tree};

/// Rows read at once. Chosen: a folder of a million names takes no more memory than any other.
const BATCH_ROWS: usize = 1024;
/// `job.state` of jobs whose content is sealed and on its way.
const SENDING: i64 = 2;

/// How well something is protected, better first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Standing {
    /// As the policy asks.
    Protected,
    /// On too few peers.
    AtRisk,
    /// Not on the grid yet, or nothing leads to it yet.
    Waiting,
    /// Fewer shares are left than it takes, and none wait here: only the file itself can bring it back.
    Lost,
}

/// How well a file is protected, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Measure {
    /// In a word.
    pub standing: Standing,
    /// Peers that hold shares of its worst pack.
    pub held: u32,
    /// How many of them may be lost.
    pub tolerates: u32,
}

impl Measure {
    const WAITING: Self = Self {
        standing: Standing::Waiting,
        held: 0,
        tolerates: 0,
    };

    fn worse(self, other: Self) -> Self {
        Self {
            standing: self.standing.max(other.standing),
            held: self.held.min(other.held),
            tolerates: self.tolerates.min(other.tolerates),
        }
    }
}

/// Files of one standing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Amount {
    /// Files: everything but folders.
    pub files: u64,
    /// Their bytes, by length.
    pub bytes: u64,
}

/// Files by standing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// As the policy asks.
    pub protected: Amount,
    /// On too few peers.
    pub at_risk: Amount,
    /// Not on the grid yet.
    pub waiting: Amount,
    /// To be brought back from the files only.
    pub lost: Amount,
    /// Paths of lost files, the first of them.
    pub lost_paths: Vec<Vec<u8>>,
}

impl Tally {
    /// All of them.
    pub fn total(&self) -> Amount {
        let all = [self.protected, self.at_risk, self.waiting, self.lost];
        all.iter().fold(Amount::default(), |sum, part| Amount {
            files: sum.files + part.files,
            bytes: sum.bytes + part.bytes,
        })
    }

    fn part(&mut self, standing: Standing) -> &mut Amount {
        match standing {
            Standing::Protected => &mut self.protected,
            Standing::AtRisk => &mut self.at_risk,
            Standing::Waiting => &mut self.waiting,
            Standing::Lost => &mut self.lost,
        }
    }
}

/// What older snapshots rest on: data packs that no file of the tally has anything in, older versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Older {
    /// Packs that could be read, and survive too few losses.
    pub at_risk: u64,
    /// Packs that cannot be brought back.
    pub lost: u64,
    /// Versions of files that are not on the grid yet, and that no file of the tally is.
    pub waiting: u64,
}

/// What is counted: what a snapshot shows at and below some paths, none of which is below another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range {
    /// The snapshot's number.
    pub snapshot: u64,
    /// Absolute paths.
    pub paths: Vec<Vec<u8>>,
}

/// Most paths of lost files that a tally names.
const LOST_PATHS_MAX: usize = 10;

/// Measures files against one state of the catalog.
pub struct Gauge<'a> {
    conn: &'a Connection,
    tolerate: u32,
    counter: Counter,
    packs: HashMap<PackRow, Option<Counted>>,
    weak: HashMap<PackRow, Counted>,
    touched: HashSet<PackRow>,
    /// Versions with a job that were met.
    jobs_met: HashSet<VersionId>,
    metadata: Measure,
    unposted: BTreeSet<u64>,
    is_acknowledged: bool,
    /// The newest snapshot.
    newest: Option<u64>,
}

impl<'a> Gauge<'a> {
    /// `tolerate`: shares of a pack that may be lost. `is_known`: who still is a peer.
    pub fn new(conn: &'a Connection, tolerate: u8, is_known: &dyn Fn(&PeerKey) -> bool) -> Result<Self, DbError> {
        let counter = Counter::new(conn, is_known)?;
        let mut gauge = Self {
            conn,
            tolerate: u32::from(tolerate),
            packs: HashMap::new(),
            weak: counter.weak(conn, tolerate)?,
            counter,
            touched: HashSet::new(),
            jobs_met: HashSet::new(),
            metadata: Measure::WAITING,
            unposted: tree::unposted(conn)?.into_iter().collect(),
            is_acknowledged: post::is_backup_acknowledged(conn)?,
            newest: tree::latest(conn)?.map(|snapshot| snapshot.record.seq),
        };
        // No settled file has anything in a pack that no index lists yet; what is lost is not listed anew.
        let unlisted: HashSet<PackRow> = post::unlisted_packs(conn)?.into_iter().collect();
        gauge
            .weak
            .retain(|row, counted| counted.is_lost() || !unlisted.contains(row));
        if let Some(rows) = gauge.metadata_packs()? {
            gauge.metadata = gauge.of_packs(&rows)?;
        }
        Ok(gauge)
    }

    /// Losses of peers' shares that everything survives which can be read at all.
    pub fn tolerates(&self) -> Result<Option<u32>, DbError> {
        self.counter.tolerates(self.conn)
    }

    /// The packs from which everything else is found; `None` while no head leads there.
    fn metadata_packs(&self) -> Result<Option<Vec<PackRow>>, DbError> {
        let Some(posted) = content::posted(self.conn)? else {
            return Ok(None);
        };
        let mut select = self
            .conn
            .prepare_cached("SELECT DISTINCT pack FROM section WHERE published = 2")?;
        let rows = select.query_map([], |row| row.get(0).map(PackRow))?;
        let mut rows: Vec<PackRow> = rows.collect::<Result<_, _>>()?;
        let root = posted.body.root.filter(|_| self.is_acknowledged || rows.is_empty());
        if let Some(manifest) = root.and_then(|root| Manifest::decode(&root.pack.manifest).ok()) {
            rows.extend(packs::find(self.conn, manifest.pack)?.map(|pack| pack.row));
        }
        Ok(Some(rows).filter(|rows| !rows.is_empty()))
    }

    fn of_packs(&mut self, rows: &[PackRow]) -> Result<Measure, DbError> {
        let mut worst = Measure {
            standing: Standing::Protected,
            held: u32::MAX,
            tolerates: u32::MAX,
        };
        for row in rows {
            let counted = match self.packs.get(row) {
                Some(known) => *known,
                None => {
                    let counted = self.counter.count(self.conn, *row)?;
                    self.packs.insert(*row, counted);
                    counted
                }
            };
            let Some(counted) = counted else { continue };
            self.touched.insert(*row);
            let standing = match counted.tolerates() {
                Some(tolerates) if tolerates >= self.tolerate => Standing::Protected,
                Some(_) => Standing::AtRisk,
                None if counted.is_lost() => Standing::Lost,
                None => Standing::Waiting,
            };
            worst = worst.worse(Measure {
                standing,
                held: counted.held,
                tolerates: counted.tolerates().unwrap_or(0),
            });
        }
        Ok(worst)
    }

    /// One entry that snapshots show from `since` on.
    pub fn measure(&mut self, since: u64, entry: &Entry) -> Result<Measure, DbError> {
        let measure = match entry.content {
            Content::Version(version) => self.version(version)?,
            // What travels in the log is where the metadata is.
            Content::None | Content::Inline(_) => self.metadata,
        };
        match measure.standing {
            Standing::Protected if self.is_not_led_to(since) => Ok(Measure {
                standing: Standing::Waiting,
                ..measure
            }),
            _ => Ok(measure),
        }
    }

    /// No head on enough peers leads to what is so from this snapshot on.
    fn is_not_led_to(&self, since: u64) -> bool {
        self.unposted.contains(&since) || (!self.is_acknowledged && self.newest == Some(since))
    }

    fn version(&mut self, version: VersionId) -> Result<Measure, DbError> {
        let mut select = self.conn.prepare_cached("SELECT state FROM job WHERE version = ?1")?;
        let job: Option<i64> = select
            .query_row([version.0.cast_signed()], |row| row.get(0))
            .optional()?;
        if job.is_some() {
            self.jobs_met.insert(version);
        }
        if job.is_some_and(|state| state != SENDING) {
            return Ok(Measure::WAITING);
        }
        let Some((rows, is_whole)) = self.packs_of(version)? else {
            return Ok(Measure::WAITING);
        };
        let mut measure = self.of_packs(&rows)?;
        if !is_whole {
            measure.standing = Standing::Lost;
        }
        if job.is_some() && measure.standing == Standing::Protected {
            // On enough peers, but no head on the grid leads to it yet.
            measure.standing = Standing::Waiting;
        }
        Ok(match measure.standing {
            Standing::Lost | Standing::Waiting => measure,
            _ => measure.worse(self.led_to()),
        })
    }

    /// How well what leads to content is protected. The catalog knows what lost metadata said: it is posted again.
    fn led_to(&self) -> Measure {
        Measure {
            standing: match self.metadata.standing {
                Standing::Lost => Standing::Waiting,
                standing => standing,
            },
            ..self.metadata
        }
    }

    /// The packs of a version's content, and whether all of it has a place; `None` while it has none.
    fn packs_of(&self, version: VersionId) -> Result<Option<(Vec<PackRow>, bool)>, DbError> {
        let extents = match content::place(self.conn, version)? {
            None => return Ok(None),
            Some(Place::Section(_)) => return Ok(Some((content::packs_of(self.conn, version)?, true))),
            Some(Place::Extents(extents)) => extents,
        };
        let (mut rows, mut is_whole) = (Vec::new(), true);
        for extent in extents {
            let Extent::Chunk(id, _) = extent else { continue };
            match content::chunk(self.conn, id)? {
                Some(place) if rows.last() != Some(&place.pack) => rows.push(place.pack),
                Some(_) => {}
                None => is_whole = false,
            }
        }
        rows.sort_unstable();
        rows.dedup();
        Ok(Some((rows, is_whole)))
    }

    /// Counts all files of a range, and the packs that only older snapshots rest on. Reads no content's place where
    /// nothing is weak.
    pub fn tally(&mut self, range: &Range) -> Result<(Tally, Older), DbError> {
        let mut tally = Tally::default();
        let is_calm = self.weak.is_empty();
        if !(is_calm && self.whole_snapshot(range, &mut tally)?) {
            for path in &range.paths {
                self.count_below(range.snapshot, path, is_calm, &mut tally)?;
            }
        }
        let mut older = Older {
            waiting: self.jobs()?.saturating_sub(self.jobs_met.len() as u64),
            ..Older::default()
        };
        for (row, counted) in &self.weak {
            if self.touched.contains(row) {
                continue;
            }
            match (counted.is_lost(), counted.purpose) {
                // Nothing of files: `disks` counts them.
                (_, Purpose::Disk) => {}
                (true, _) => older.lost += 1,
                (false, Purpose::Data) => older.at_risk += 1,
                // The head that leads to it says how well it is kept.
                (false, Purpose::Metadata) => {}
            }
        }
        Ok((tally, older))
    }

    /// Packs of virtual disks: those on too few peers, and those of which too few shares are left.
    pub fn disks(&self) -> (u64, u64) {
        let (mut at_risk, mut lost) = (0, 0);
        for counted in self.weak.values().filter(|counted| counted.purpose == Purpose::Disk) {
            match counted.is_lost() {
                true => lost += 1,
                // What is on its way to peers is no more than new.
                false => at_risk += u64::from(counted.spooled == 0),
            }
        }
        (at_risk, lost)
    }

    /// Everything is protected, and the snapshot knows how much that is: nothing has to be looked at.
    fn whole_snapshot(&self, range: &Range, tally: &mut Tally) -> Result<bool, DbError> {
        let is_settled = self.jobs()? == 0 && self.unposted.is_empty() && self.metadata.standing == Standing::Protected;
        let Some(snapshot) = tree::snapshot(self.conn, range.snapshot)?.filter(|_| is_settled) else {
            return Ok(false);
        };
        let roots = snapshot.record.source_roots.iter().map(|root| &root.0);
        if !roots.eq(&range.paths) || !tree::snapshot_complete(self.conn, range.snapshot)? {
            return Ok(false);
        }
        tally.protected = Amount {
            files: snapshot.record.files,
            bytes: snapshot.record.bytes,
        };
        Ok(true)
    }

    fn jobs(&self) -> Result<u64, DbError> {
        let select = "SELECT coalesce(sum(jobs), 0) FROM job_total";
        Ok(self
            .conn
            .query_row(select, [], |row| row.get::<_, i64>(0))?
            .cast_unsigned())
    }

    fn count_below(&mut self, snapshot: u64, path: &[u8], is_calm: bool, tally: &mut Tally) -> Result<(), DbError> {
        let conn = self.conn;
        each_below(conn, snapshot, path, &mut |path, row| {
            if row.entry.kind != EntryKind::Directory {
                self.add(row, path, is_calm, tally)?;
            }
            Ok(true)
        })
    }

    /// The worst of all files at and below a path; `None` if there are none.
    pub fn worst_below(&mut self, snapshot: u64, path: &[u8]) -> Result<Option<Measure>, DbError> {
        let mut worst: Option<Measure> = None;
        let conn = self.conn;
        each_below(conn, snapshot, path, &mut |_, row| {
            if row.entry.kind == EntryKind::Directory {
                return Ok(true);
            }
            let measure = self.measure(row.since, &row.entry)?;
            worst = Some(worst.map_or(measure, |worst| worst.worse(measure)));
            Ok(true)
        })?;
        Ok(worst)
    }

    fn add(&mut self, row: &EntryRow, path: &[u8], is_calm: bool, tally: &mut Tally) -> Result<(), DbError> {
        let standing = match row.entry.content {
            Content::Version(version) if is_calm && self.is_settled(version)? => self.led_to().standing,
            _ => self.measure(row.since, &row.entry)?.standing,
        };
        if standing == Standing::Lost && tally.lost_paths.len() < LOST_PATHS_MAX {
            tally.lost_paths.push(path.to_vec());
        }
        let part = tally.part(standing);
        part.files += 1;
        if row.entry.kind == EntryKind::File {
            part.bytes += row.entry.meta.size;
        }
        Ok(())
    }

    fn is_settled(&self, version: VersionId) -> Result<bool, DbError> {
        let mut select = self
            .conn
            .prepare_cached("SELECT settled FROM content WHERE version = ?1")?;
        let settled = select.query_row([version.0.cast_signed()], |row| row.get(0));
        Ok(settled.optional()?.unwrap_or(false))
    }
}

/// Calls `visit` with the path and the entry of everything at and below a path, in no order, until it returns `Ok(false)`.
/// Unlike `tree::walk` it shows what no run has looked at since as it was then, whatever the snapshot's own roots.
pub fn visit_below(
    conn: &Connection,
    snapshot: u64,
    path: &[u8],
    visit: &mut tree::Visit<'_, DbError>,
) -> Result<(), DbError> {
    each_below(conn, snapshot, path, &mut |path, row| visit(path, &row.entry))
}

type Each<'a> = dyn FnMut(&[u8], &EntryRow) -> Result<bool, DbError> + 'a;

fn each_below(conn: &Connection, snapshot: u64, path: &[u8], visit: &mut Each<'_>) -> Result<(), DbError> {
    let Some((directory, name)) = place(conn, path)? else {
        return Ok(());
    };
    let Some(top) = row_at(conn, snapshot, directory, &name)? else {
        return Ok(());
    };
    if !visit(path, &top)? || top.entry.kind != EntryKind::Directory {
        return Ok(());
    }
    let mut folders = Vec::new();
    folders.extend(child_directory(conn, directory, &name)?.map(|id| (id, path.to_vec())));
    while let Some((folder, path)) = folders.pop() {
        let mut after = Vec::new();
        loop {
            let rows = batch(conn, snapshot, folder, &after)?;
            for row in &rows {
                let path = join(&path, &row.entry.name);
                if !visit(&path, row)? {
                    return Ok(());
                }
                if row.entry.kind == EntryKind::Directory {
                    let below = child_directory(conn, folder, &row.entry.name)?;
                    folders.extend(below.map(|id| (id, path)));
                }
            }
            match rows.last() {
                Some(last) if rows.len() == BATCH_ROWS => after.clone_from(&last.entry.name),
                _ => break,
            }
        }
    }
    Ok(())
}

/// Rows of a folder that a snapshot shows, by name, after this one.
fn batch(conn: &Connection, snapshot: u64, directory: i64, after: &[u8]) -> Result<Vec<EntryRow>, DbError> {
    let mut select = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM entry WHERE directory = ?1 AND name > ?2 AND since <= ?3
         AND (until IS NULL OR until > ?3) ORDER BY name LIMIT ?4"
    ))?;
    let rows = select.query_map((directory, after, snapshot, BATCH_ROWS), read_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}
