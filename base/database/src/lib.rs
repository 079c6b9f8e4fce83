//! The catalog's SQLite file: one writer at a time, readers beside it, numbered migrations.
//!
//! **Power cuts.** The file is in WAL mode. An ordinary commit is not synced (`synchronous=NORMAL`): a power cut may take
//! back the newest commits, always a suffix of them, and never tears one. That is enough for whatever can be found or done
//! again: a scan, a lease, a pack whose spool files were synced before its commit (files without a row are swept). Two
//! things may not be taken back, and go through [`Db::write_durable`]: that a share was delivered, because its spool file
//! is removed next; and the newest head, because the same number must never be signed twice. Since commits survive in
//! order, a durable commit also makes all commits before it durable. A killed process loses nothing either way.
//!
//! **A sync that failed.** The kernel says so once, and takes the pages for clean: a later sync of the WAL says yes though
//! commits before it are on no disk, and everything behind them would be lost with them. So after one, before anything more
//! is written, the WAL is copied into the database from memory, that is synced, and the WAL begins anew.
//!
//! Leaves out: any table but `schema`. Each component brings its own migrations.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, ffi};

use crate::file::{
    Scratch, create, foreign_if_corrupt, in_memory_folder, open_existing, open_frozen, open_reader,
    remove_with_side_files, rename_durably, sweep_scratch,
};

mod checksum;
mod file;

/// The database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// SQLite said no.
    #[error("The catalog failed: {0}")]
    Sqlite(#[source] rusqlite::Error),
    /// A page of the file is not what was written.
    #[error("catalog.db is damaged on the disk; move it away and run `gridbackup recover`")]
    Damaged,
    /// The file is no database, is truncated, or belongs to another program.
    #[error("{path} is not a gridbackup catalog or is damaged; move it away and run `gridbackup recover`")]
    Foreign {
        /// The file.
        path: String,
    },
    /// Written by a newer gridbackup.
    #[error("{path} was written by a newer gridbackup ({component} schema {version})")]
    Newer {
        /// The file.
        path: String,
        /// Whose tables.
        component: &'static str,
        /// The schema version found.
        version: u32,
    },
    /// The file that should be there is not.
    #[error("{path} is missing")]
    Missing {
        /// The file.
        path: String,
    },
    /// The disk failed, and what it did not take could not be written anew yet.
    #[error("The disk did not take what the catalog wrote: look at the disk, then try again")]
    NotSynced,
    /// It is opened for reading only.
    #[error("The home cannot be written, so that it can only be read")]
    ReadOnly,
    /// The file could not be created or read.
    #[error("{path} cannot be opened: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        let code = error.sqlite_error();
        let is_damaged = code.is_some_and(|code| {
            code.extended_code == ffi::SQLITE_IOERR_DATA || code.code == ErrorCode::DatabaseCorrupt
        });
        if is_damaged { Self::Damaged } else { Self::Sqlite(error) }
    }
}

/// One numbered step of a component's schema.
#[derive(Clone, Copy)]
pub struct Migration {
    /// Whose tables: each component counts its own versions.
    pub component: &'static str,
    /// From 1, without gaps.
    pub version: u32,
    /// The statements.
    pub sql: &'static str,
}

/// The schemas of two crates as one list, that of the lower first.
///
/// # Panics
/// If `N` is not the sum of both lengths: when it is compiled.
pub const fn joined<const N: usize>(lower: &[Migration], upper: &[Migration]) -> [Migration; N] {
    assert!(N == lower.len() + upper.len());
    let (mut all, mut at) = ([lower[0]; N], 0);
    while at < N {
        all[at] = if at < lower.len() {
            lower[at]
        } else {
            upper[at - lower.len()]
        };
        at += 1;
    }
    all
}

/// Readers kept open between reads; more may be open at a moment.
const READERS_IDLE_MAX: usize = 4;
/// A handle to the database; clones share it.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    /// None: nothing can be written.
    writer: Option<Mutex<Connection>>,
    readers: Mutex<Vec<Connection>>,
    path: PathBuf,
    /// Dropped last: the folder of a database that goes with its handle.
    scratch: Option<Scratch>,
}

impl Db {
    /// Opens or creates `path` (WAL) and runs the migrations that are missing.
    ///
    /// Only what is cheap is checked (header, length, whose file it is): opening takes the same time at any size.
    pub fn open(path: &Path, migrations: &[Migration]) -> Result<Self, DbError> {
        Self::open_in(path, migrations, None)
    }

    /// A database in memory, gone with its last handle. It is a file in the system's temporary folder: SQLite's own
    /// in-memory databases have no WAL, so that their readers would wait for the writer.
    pub fn in_memory(migrations: &[Migration]) -> Result<Self, DbError> {
        Self::scratch(&in_memory_folder(), migrations)
    }

    /// An empty database in a folder of its own below `base`, gone with its last handle: for what is put together beside a
    /// database that stays as it is meanwhile.
    pub fn scratch(base: &Path, migrations: &[Migration]) -> Result<Self, DbError> {
        let scratch = Scratch::new(base)?;
        let path = scratch.0.join("catalog.db");
        let db = Self::open_in(&path, migrations, Some(scratch))?;
        if let Some(writer) = &db.0.writer {
            lock(writer).pragma_update(None, "synchronous", "OFF")?;
        }
        Ok(db)
    }

    /// Removes what `scratch` left behind in `base` in processes that were cut off. Only to be called by whoever alone works there.
    pub fn sweep_scratch(base: &Path) -> Result<(), DbError> {
        sweep_scratch(base)
    }

    /// As `scratch`, beside this one.
    pub fn scratch_beside(&self, migrations: &[Migration]) -> Result<Self, DbError> {
        let home = match &self.0.scratch {
            Some(scratch) => scratch.0.parent(),
            None => self.0.path.parent(),
        };
        Self::scratch(home.unwrap_or(Path::new("/")), migrations)
    }

    /// Opens `path`, which must be there, as `open` does.
    pub fn open_existing(path: &Path, migrations: &[Migration]) -> Result<Self, DbError> {
        match path.try_exists() {
            Ok(true) => Self::open_in(path, migrations, None),
            Ok(false) => Err(DbError::Missing {
                path: path.display().to_string(),
            }),
            Err(source) => Err(DbError::Io {
                path: path.display().to_string(),
                source,
            }),
        }
    }

    /// Makes `path`, which is not there, a copy of this one: all of it, or nothing.
    pub fn save_as(&self, path: &Path, migrations: &[Migration]) -> Result<(), DbError> {
        let mut whole = path.as_os_str().to_owned();
        whole.push(".whole");
        let whole = PathBuf::from(whole);
        remove_with_side_files(&whole)?;
        let copy = Self::open(&whole, migrations)?;
        copy.replace_by(self, &|_| true)?;
        copy.writer()?.pragma_update(None, "journal_mode", "DELETE")?;
        drop(copy);
        rename_durably(&whole, path)
    }

    /// Replaces the rows of the tables to `replace` by those of `other`, which has the same schema, in one durable transaction.
    pub fn replace_by(&self, other: &Self, replace: &dyn Fn(&str) -> bool) -> Result<(), DbError> {
        let mut writer = self.writer()?;
        let path = other.0.path.display().to_string();
        writer.execute("ATTACH DATABASE ?1 AS other", [path])?;
        set_synchronous(&writer, "FULL")?;
        let replaced = transact(&mut writer, |tx| replace_tables(tx, replace));
        set_synchronous(&writer, "NORMAL")?;
        writer.execute("DETACH DATABASE other", [])?;
        replaced
    }

    fn open_in(path: &Path, migrations: &[Migration], scratch: Option<Scratch>) -> Result<Self, DbError> {
        let all: Vec<&Migration> = migrations.iter().collect();
        if !path.exists() {
            create(path, &all)?;
        }
        let writer = open_existing(path, &all).map_err(|error| foreign_if_corrupt(error, path))?;
        Ok(Self(Arc::new(Inner {
            writer: Some(Mutex::new(writer)),
            readers: Mutex::default(),
            path: path.to_owned(),
            scratch,
        })))
    }

    /// Opens `path` without writing anything, not even beside it: on a disk that is full or may only be read. The caller sees to it that
    /// no other process writes meanwhile.
    pub fn open_to_read(path: &Path, migrations: &[Migration]) -> Result<Self, DbError> {
        if !path.exists() {
            return Err(DbError::Missing {
                path: path.display().to_string(),
            });
        }
        let all: Vec<&Migration> = migrations.iter().collect();
        let reader = open_frozen(path).and_then(|conn| match pending(&conn, path, &all)? {
            true => Err(DbError::ReadOnly),
            false => Ok(conn),
        });
        let reader = reader.map_err(|error| foreign_if_corrupt(error, path))?;
        Ok(Self(Arc::new(Inner {
            writer: None,
            readers: Mutex::new(vec![reader]),
            path: path.to_owned(),
            scratch: None,
        })))
    }

    /// Whether writes fail because it was opened to be read.
    pub fn is_read_only(&self) -> bool {
        self.0.writer.is_none()
    }

    fn writer(&self) -> Result<MutexGuard<'_, Connection>, DbError> {
        let writer = self.0.writer.as_ref().map(lock).ok_or(DbError::ReadOnly)?;
        if checksum::has_sync_failed() {
            checksum::set_sync_failed(false);
            let copied = writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
            // A reader at work keeps it from beginning anew: until the next write nothing is promised.
            if copied != Ok(0) {
                checksum::set_sync_failed(true);
            }
            copied?;
        }
        Ok(writer)
    }

    /// Runs `work` in a write transaction, committed if it returns `Ok`. Writers wait for each other; do no IO inside, and
    /// do not call `write` from within.
    pub fn write<T, E: From<DbError>>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, E>) -> Result<T, E> {
        transact(&mut *self.writer()?, work)
    }

    /// As `write`, and synced to disk, together with all commits before it, when this returns.
    pub fn write_durable<T, E: From<DbError>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut writer = self.writer()?;
        if checksum::has_sync_failed() {
            return Err(DbError::NotSynced.into());
        }
        set_synchronous(&writer, "FULL")?;
        let result = transact(&mut writer, work);
        set_synchronous(&writer, "NORMAL")?;
        result
    }

    /// Runs `work` on a read-only connection, which sees one consistent state and never waits for a writer.
    pub fn read<T, E: From<DbError>>(&self, work: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        let idle = lock(&self.0.readers).pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None if self.is_read_only() => open_frozen(&self.0.path).map_err(E::from)?,
            None => open_reader(&self.0.path).map_err(E::from)?,
        };
        let result = {
            let state = reader.transaction().map_err(DbError::from)?;
            work(&state)
        };
        let mut readers = lock(&self.0.readers);
        if readers.len() < READERS_IDLE_MAX {
            readers.push(reader);
        }
        result
    }
}

/// Removes the database at `path`, which nobody has open, with all that SQLite keeps beside it.
pub fn remove(path: &Path) -> Result<(), DbError> {
    remove_with_side_files(path)
}

/// Runs `work` on a read-only connection to the database of another process. Nothing is created and nothing migrated.
pub fn look<T, E: From<DbError>>(path: &Path, work: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
    let mut reader = open_reader(path).map_err(E::from)?;
    let state = reader.transaction().map_err(DbError::from)?;
    work(&state)
}

/// A panic in a transaction has rolled it back by the time the lock is poisoned: the connection is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn transact<T, E: From<DbError>>(
    writer: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let tx = writer
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(DbError::from)?;
    let value = work(&tx)?;
    tx.commit().map_err(DbError::from)?;
    Ok(value)
}

/// Tables of which every database keeps its own rows.
const OWN_TABLES: &str = "'schema', 'sqlite_sequence'";

fn replace_tables(tx: &Transaction<'_>, replace: &dyn Fn(&str) -> bool) -> Result<(), DbError> {
    let tables = {
        let mut query = tx.prepare(&format!(
            "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT IN ({OWN_TABLES})"
        ))?;
        let names = query.query_map([], |row| row.get::<_, String>(0))?;
        names.collect::<Result<Vec<_>, _>>()?
    };
    for table in tables.iter().filter(|table| replace(table)) {
        tx.execute_batch(&format!(
            "DELETE FROM main.\"{table}\"; INSERT INTO main.\"{table}\" SELECT * FROM other.\"{table}\";"
        ))?;
    }
    Ok(())
}

fn set_synchronous(conn: &Connection, level: &str) -> Result<(), DbError> {
    Ok(conn.pragma_update(None, "synchronous", level)?)
}

fn schema_version(conn: &Connection, component: &str) -> Result<u32, DbError> {
    Ok(conn
        .query_row("SELECT version FROM schema WHERE component = ?1", [component], |row| {
            row.get(0)
        })
        .optional()?
        .unwrap_or(0))
}

/// Whether a migration is missing; fails when one is unknown.
fn pending(conn: &Connection, path: &Path, migrations: &[&Migration]) -> Result<bool, DbError> {
    let mut pending = false;
    for migration in migrations {
        let component = migration.component;
        let version = schema_version(conn, component)?;
        let known = migrations
            .iter()
            .filter(|other| other.component == component)
            .map(|other| other.version)
            .max()
            .unwrap_or(0);
        if version > known {
            return Err(DbError::Newer {
                path: path.display().to_string(),
                component,
                version,
            });
        }
        pending |= version < known;
    }
    Ok(pending)
}

fn migrate(tx: &Transaction<'_>, path: &Path, migrations: &[&Migration]) -> Result<(), DbError> {
    for migration in migrations {
        let found = schema_version(tx, migration.component)?;
        if migration.version <= found {
            continue;
        }
        assert_eq!(
            migration.version,
            found + 1,
            "migrations of {} have a gap",
            migration.component
        );
        tracing::info!(path = %path.display(), component = migration.component, version = migration.version, "migrating");
        tx.execute_batch(migration.sql)?;
        tx.execute(
            "INSERT INTO schema VALUES (?1, ?2) ON CONFLICT (component) DO UPDATE SET version = ?2",
            (migration.component, migration.version),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
