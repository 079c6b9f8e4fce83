//! The catalog's SQLite file: one writer at a time, readers beside it, numbered migrations.
//!
//! **Power cuts.** The file is in WAL mode. An ordinary commit is not synced (`synchronous=NORMAL`): a power cut may take
//! back the newest commits, always a suffix of them, and never tears one. That is enough for whatever can be found or done
//! again: a scan, a lease, a pack whose spool files were synced before its commit (files without a row are swept). Two
//! things may not be taken back, and go through [`Db::write_durable`]: that a share was delivered, because its spool file
//! is removed next; and the newest head, because the same number must never be signed twice. Since commits survive in
//! order, a durable commit also makes all commits before it durable. A killed process loses nothing either way.
//!
//! Leaves out: any table but `schema`. Each component brings its own migrations.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};

/// The database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// SQLite said no.
    #[error("The catalog failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
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
    /// The file could not be created or read.
    #[error("{path} cannot be opened: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// One numbered step of a component's schema.
pub struct Migration {
    /// Whose tables: each component counts its own versions.
    pub component: &'static str,
    /// From 1, without gaps.
    pub version: u32,
    /// The statements.
    pub sql: &'static str,
}

/// Schema of this crate, oldest first.
const MIGRATIONS: &[Migration] = &[
    Migration {
        component: "queue",
        version: 1,
        sql: include_str!("../migrations/queue-0001.sql"),
    },
    Migration {
        component: "packs",
        version: 1,
        sql: include_str!("../migrations/packs-0001.sql"),
    },
];

/// `application_id` of a catalog: "gbcg". `file` and we tell by it whose database this is.
const APPLICATION_ID: i32 = 0x6762_6367;
/// What an SQLite file begins with (<https://sqlite.org/fileformat2.html> §1.3).
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Page caches, in KiB. Chosen: the writer's holds the inner pages of the indexes of about a million files.
const WRITER_CACHE_KIB: u32 = 8 * 1024;
const READER_CACHE_KIB: u32 = 2 * 1024;
/// Readers kept open between reads; more may be open at a moment.
const READERS_IDLE_MAX: usize = 4;
/// How long SQLite waits for another process (a CLI reading the file) before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// The WAL file is cut back to this after a checkpoint.
const WAL_BYTES_MAX: u32 = 64 << 20;

/// A handle to the database; clones share it.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
    path: PathBuf,
    /// Dropped last: the folder of a database made for a test.
    _scratch: Option<Scratch>,
}

impl Db {
    /// Opens or creates `path` (WAL) and runs the migrations that are missing: this crate's own, then `migrations`.
    ///
    /// Only what is cheap is checked (header, length, whose file it is): opening takes the same time at any size.
    pub fn open(path: &Path, migrations: &[Migration]) -> Result<Self, DbError> {
        Self::open_in(path, migrations, None)
    }

    /// A database for tests, gone with its last handle. It is a file in the system's temporary folder: SQLite's own
    /// in-memory databases have no WAL, so that their readers would wait for the writer.
    pub fn in_memory(migrations: &[Migration]) -> Result<Self, DbError> {
        let scratch = Scratch::new()?;
        let path = scratch.0.join("catalog.db");
        let db = Self::open_in(&path, migrations, Some(scratch))?;
        lock(&db.0.writer).pragma_update(None, "synchronous", "OFF")?;
        Ok(db)
    }

    fn open_in(path: &Path, migrations: &[Migration], scratch: Option<Scratch>) -> Result<Self, DbError> {
        let all: Vec<&Migration> = MIGRATIONS.iter().chain(migrations).collect();
        if !path.exists() {
            create(path, &all)?;
        }
        let writer = open_existing(path, &all).map_err(|error| foreign_if_corrupt(error, path))?;
        Ok(Self(Arc::new(Inner {
            writer: Mutex::new(writer),
            readers: Mutex::default(),
            path: path.to_owned(),
            _scratch: scratch,
        })))
    }

    /// Runs `work` in a write transaction, committed if it returns `Ok`. Writers wait for each other; do no IO inside, and
    /// do not call `write` from within.
    pub fn write<T, E: From<DbError>>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, E>) -> Result<T, E> {
        transact(&mut lock(&self.0.writer), work)
    }

    /// As `write`, and synced to disk, together with all commits before it, when this returns.
    pub fn write_durable<T, E: From<DbError>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut writer = lock(&self.0.writer);
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

fn set_synchronous(conn: &Connection, level: &str) -> Result<(), DbError> {
    Ok(conn.pragma_update(None, "synchronous", level)?)
}

/// Makes a whole catalog beside `path` and renames it: whatever is at `path` is never half made.
fn create(path: &Path, migrations: &[&Migration]) -> Result<(), DbError> {
    let io = |source| DbError::Io {
        path: path.display().to_string(),
        source,
    };
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    for leftover in ["", "-journal"] {
        let mut name = new.clone().into_os_string();
        name.push(leftover);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
    }
    // Paths are private; SQLite gives its side files the same mode.
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    drop(options.open(&new).map_err(io)?);

    let mut conn = Connection::open(&new)?;
    let tx = conn.transaction()?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.execute_batch("CREATE TABLE schema (component TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID")?;
    migrate(&tx, path, migrations)?;
    tx.commit()?;
    drop(conn);

    std::fs::rename(&new, path).map_err(io)?;
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io)
}

fn open_existing(path: &Path, migrations: &[&Migration]) -> Result<Connection, DbError> {
    check_header(path)?;
    let mut conn = connect(path, WRITER_CACHE_KIB)?;
    // Before the first pragma that writes: another program's database is left as it is.
    let application: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if application != APPLICATION_ID {
        return Err(foreign(path));
    }
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
    set_synchronous(&conn, "NORMAL")?;
    if pending(&conn, path, migrations)? {
        transact(&mut conn, |tx| migrate(tx, path, migrations))?;
    }
    Ok(conn)
}

fn connect(path: &Path, cache_kib: u32) -> Result<Connection, DbError> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(64);
    conn.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(conn)
}

fn open_reader(path: &Path) -> Result<Connection, DbError> {
    let conn = connect(path, READER_CACHE_KIB)?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

/// Refuses what is no SQLite file or ends early, before SQLite touches it.
fn check_header(path: &Path) -> Result<(), DbError> {
    let io = |source| DbError::Io {
        path: path.display().to_string(),
        source,
    };
    let mut file = std::fs::File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    let mut header = [0; 100];
    if len < header.len() as u64 {
        return Err(foreign(path));
    }
    file.read_exact(&mut header).map_err(io)?;
    if header[..16] != *SQLITE_MAGIC {
        return Err(foreign(path));
    }
    // With a WAL the file may rightly be behind its header; SQLite then checks the length itself.
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let wal_bytes = std::fs::metadata(wal).map_or(0, |meta| meta.len());
    if wal_bytes == 0 && len < header_bytes(&header) {
        return Err(foreign(path));
    }
    Ok(())
}

/// Bytes that the file has by its own header: page size times pages.
fn header_bytes(header: &[u8; 100]) -> u64 {
    let page = match u64::from(u16::from_be_bytes([header[16], header[17]])) {
        1 => 65_536, // how the format writes the one size that does not fit
        bytes => bytes,
    };
    let pages = u32::from_be_bytes([header[28], header[29], header[30], header[31]]);
    page * u64::from(pages)
}

fn foreign(path: &Path) -> DbError {
    DbError::Foreign {
        path: path.display().to_string(),
    }
}

fn foreign_if_corrupt(error: DbError, path: &Path) -> DbError {
    match &error {
        DbError::Sqlite(sqlite)
            if matches!(
                sqlite.sqlite_error_code(),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            ) =>
        {
            foreign(path)
        }
        // No table `schema`: our number on somebody else's file.
        DbError::Sqlite(rusqlite::Error::SqliteFailure(_, Some(message))) if message.starts_with("no such table") => {
            foreign(path)
        }
        _ => error,
    }
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

/// A folder that is removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, DbError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // In memory where the system has such a folder.
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() {
            shm.to_owned()
        } else {
            std::env::temp_dir()
        };
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("gridbackup-{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(source) => {
                    return Err(DbError::Io {
                        path: path.display().to_string(),
                        source,
                    });
                }
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left over at worst in the system's temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests;
