//! The folder of a map: a file for each leaf, under a name that is never used again, and the files of the table that say which of them
//! count. A leaf is durable before the table names it; what the table does not name is removed by the next opening.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::MapError;
use super::leaf::{LEAF_BYTES_MAX, Leaf};
use super::table::{LeafRecord, Table, TableFile, TableKind};

/// Files of changes before all is written as one. Chosen: an opening reads so many.
const CHANGES_MAX: u64 = 256;
/// Bytes of changes before all is written as one, if all is not more itself: so each byte is written about twice.
const CHANGES_BYTES_MIN: u64 = 1 << 20;

/// What a file's name says it is.
enum Named {
    Leaf { region: u64, file: u64 },
    Table(TableKind, u64),
    Temporary,
}

fn parse(name: &str) -> Option<Named> {
    // The highest number is none: in the table it stands for a leaf that is elsewhere.
    let hex = |digits| u64::from_str_radix(digits, 16).ok().filter(|number| *number < u64::MAX);
    let (stem, ending) = name.rsplit_once('.')?;
    match ending {
        "leaf" => {
            let (region, file) = stem.split_once('-')?;
            let (region, file) = (hex(region)?, hex(file)?);
            Some(Named::Leaf { region, file })
        }
        "table" => Some(Named::Table(TableKind::Whole, hex(stem)?)),
        "changes" => Some(Named::Table(TableKind::Changes, hex(stem)?)),
        "tmp" => Some(Named::Temporary),
        _ => None,
    }
}

/// An open folder.
pub(super) struct Files {
    folder: PathBuf,
    volume: [u8; 16],
    /// The number of the next leaf's file.
    next_leaf: u64,
    /// The number of the last whole table.
    whole: u64,
    whole_bytes: u64,
    /// Of changes behind that.
    changes_bytes: u64,
}

impl Files {
    /// Reads the table, and removes what it does not name.
    pub fn open(folder: &Path, volume: [u8; 16]) -> Result<(Self, Table), MapError> {
        // What a process that was killed named may not be durable yet, and is relied upon from now on.
        durable::sync_directory_of(&folder.join("table"))?;
        let mut files = Self {
            folder: folder.to_owned(),
            volume,
            next_leaf: 1,
            whole: 0,
            whole_bytes: 0,
            changes_bytes: 0,
        };
        let names = files.list()?;
        let numbers = |wanted| {
            let of_kind = names.iter().filter_map(move |(named, _)| match named {
                Named::Table(kind, number) if *kind == wanted => Some(*number),
                _ => None,
            });
            of_kind.collect::<BTreeSet<_>>()
        };
        let mut table = Table::default();
        if let Some(number) = numbers(TableKind::Whole).last() {
            (files.whole, files.whole_bytes) = (*number, files.take(&mut table, TableKind::Whole, *number)?);
        }
        for number in numbers(TableKind::Changes).range(files.whole + 1..) {
            let next = table.number + 1;
            if next != *number {
                return Err(files.table_damaged(TableKind::Changes, next, "it is missing"));
            }
            files.changes_bytes += files.take(&mut table, TableKind::Changes, next)?;
        }
        files.sweep(&names, &table);
        Ok((files, table))
    }

    /// Begins anew with this table, whatever is there.
    pub fn begin(folder: &Path, volume: [u8; 16], table: &mut Table) -> Result<Self, MapError> {
        let mut files = Self {
            folder: folder.to_owned(),
            volume,
            next_leaf: 1,
            whole: 0,
            whole_bytes: 0,
            changes_bytes: 0,
        };
        let names = files.list()?;
        let highest = names.iter().map(|(named, _)| match named {
            Named::Table(_, number) => *number,
            Named::Leaf { .. } | Named::Temporary => 0,
        });
        table.number = highest.max().unwrap_or(0) + 1;
        files.save_whole(table)?;
        files.sweep(&names, table);
        Ok(files)
    }

    fn list(&mut self) -> Result<Vec<(Named, PathBuf)>, MapError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if let Some(named) = name.to_str().and_then(parse) {
                if let Named::Leaf { file, .. } = named {
                    self.next_leaf = self.next_leaf.max(file + 1);
                }
                names.push((named, entry.path()));
            }
        }
        Ok(names)
    }

    fn take(&self, table: &mut Table, kind: TableKind, number: u64) -> Result<u64, MapError> {
        let bytes = fs::read(self.table_path(kind, number))?;
        let file = TableFile::decode(&bytes, &self.volume).filter(|file| (file.kind, file.number) == (kind, number));
        let file = file.ok_or_else(|| self.table_damaged(kind, number, "it is not what was written"))?;
        table.take(&file);
        Ok(bytes.len() as u64)
    }

    fn table_damaged(&self, kind: TableKind, number: u64, reason: &'static str) -> MapError {
        let path = self.table_path(kind, number);
        MapError::TableDamaged { path, reason }
    }

    fn table_path(&self, kind: TableKind, number: u64) -> PathBuf {
        let ending = match kind {
            TableKind::Whole => "table",
            TableKind::Changes => "changes",
        };
        self.folder.join(format!("{number:016x}.{ending}"))
    }

    /// Where a leaf's file lies.
    pub fn leaf_path(&self, region: u64, file: u64) -> PathBuf {
        self.folder.join(format!("{region:x}-{file:x}.leaf"))
    }

    fn sweep(&self, names: &[(Named, PathBuf)], table: &Table) {
        for (named, path) in names {
            let counts = match named {
                Named::Leaf { region, file } => table
                    .leaves
                    .get(region)
                    .is_some_and(|record| record.file == Some(*file)),
                Named::Table(TableKind::Whole, number) => *number == self.whole,
                Named::Table(TableKind::Changes, number) => *number > self.whole,
                Named::Temporary => false,
            };
            if !counts {
                remove(path);
            }
        }
    }

    /// The bytes of a leaf's file; none if it is missing or too long to be one.
    pub fn read_leaf(&self, region: u64, file: u64) -> io::Result<Option<Vec<u8>>> {
        let opened = match File::open(self.leaf_path(region, file)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let length = opened.metadata()?.len();
        let mut bytes = Vec::with_capacity(length.min(LEAF_BYTES_MAX as u64) as usize);
        opened.take(LEAF_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok((bytes.len() <= LEAF_BYTES_MAX).then_some(bytes))
    }

    /// Writes leaves, each with a number of its own, and makes them durable. On failure nothing refers to them.
    pub fn write_leaves<'a>(
        &mut self,
        leaves: impl Iterator<Item = (u64, Option<&'a Leaf>)>,
    ) -> io::Result<Vec<(u64, Option<LeafRecord>)>> {
        let (mut records, mut written) = (Vec::new(), Vec::new());
        for (region, leaf) in leaves {
            let record = match leaf {
                Some(leaf) => {
                    let file = self.next_leaf;
                    self.next_leaf += 1;
                    let path = self.leaf_path(region, file);
                    written.push((durable::write_unsynced(&path, &[leaf.bytes()])?, path));
                    let (commit, sum) = (leaf.commit(), leaf.sum());
                    let file = Some(file);
                    Some(LeafRecord { file, commit, sum })
                }
                None => None,
            };
            records.push((region, record));
        }
        for (file, path) in &written {
            durable::sync(file, path)?;
        }
        Ok(records)
    }

    /// Makes changes of the table durable, behind all that were: from then on they count, and the leaves that they name.
    pub fn save_changes(&mut self, changes: &TableFile) -> io::Result<()> {
        let path = self.table_path(TableKind::Changes, changes.number);
        durable::sync_directory_of(&path)?;
        let bytes = changes.encode(&self.volume);
        durable::replace(&path, &[&bytes])?;
        self.changes_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Writes the table as one file if that is due.
    pub fn fold(&mut self, table: &Table) -> io::Result<()> {
        let bytes_max = self.whole_bytes.max(CHANGES_BYTES_MIN);
        if self.changes_bytes < bytes_max && table.number - self.whole < CHANGES_MAX {
            return Ok(());
        }
        self.write_whole(table)
    }

    /// Writes the table as one file.
    pub fn write_whole(&mut self, table: &Table) -> io::Result<()> {
        let old = self.whole;
        self.save_whole(table)?;
        if old > 0 && old < table.number {
            remove(&self.table_path(TableKind::Whole, old));
        }
        // Whatever a cut leaves of them is not behind the whole table, and counts for nothing.
        (old + 1..=table.number).for_each(|number| remove(&self.table_path(TableKind::Changes, number)));
        Ok(())
    }

    /// Its number is that of the last changes in it: whether it or they are found says the same.
    fn save_whole(&mut self, table: &Table) -> io::Result<()> {
        let bytes = table.whole().encode(&self.volume);
        let path = self.table_path(TableKind::Whole, table.number);
        durable::sync_directory_of(&path)?;
        durable::replace(&path, &[&bytes])?;
        (self.whole, self.whole_bytes, self.changes_bytes) = (table.number, bytes.len() as u64, 0);
        Ok(())
    }
}

/// Removes what counts no more. A power cut may bring it back: the next opening removes it.
pub(super) fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::debug!(path = %path.display(), %error, "what counts no more stays behind");
        }
        _ => {}
    }
}
