//! What is in the bucket, as far as we know: one row a key, journaled, so that a killed run is taken up where it was.
//!
//! A row is set to [`State::Doubt`] durably *before* its object is sent, and to what was stored after. Whatever a killed run
//! may or may not have written is therefore found in doubt, and sent again; nothing else is. The inventory is bound to a bucket.
//!
//! Leaves out: what follows from a row (`plan`).

use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};
use rustix::fs::{FlockOperation, flock};
use s3::Parts;

use crate::merge::Keyed;
use crate::routes::Compress;
use crate::stat::Stat;

mod listing;
mod memory;
mod pending;

pub(crate) use listing::{Dead, Later, Seen};
pub(crate) use memory::Memory;
pub(crate) use pending::{Audience, Change, Listener};

/// `application_id`: "gbpb".
const APPLICATION_ID: i32 = 0x6762_7062;
/// Version of the schema.
const VERSION: i32 = 3;
/// Rows read at once: few enough to be nothing, enough that a query a batch costs nothing.
const BATCH_ROWS: usize = 1000;
/// Page cache, in KiB. Chosen: sequential reading needs none, and a run has 64 MiB for everything.
const CACHE_KIB: i32 = 4096;

/// The inventory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// SQLite said no.
    #[error("The inventory `{path}` failed: {source}; moved away, it is built anew from a listing", path = .path.display())]
    Sqlite {
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// Not an inventory, or a newer one.
    #[error("`{path}` is not an inventory of this gridbackup; name another file with --index", path = .0.display())]
    Foreign(PathBuf),
    /// Of another bucket.
    #[error("`{path}` is the inventory of {bound}, not of {asked}; name another file with --index", path = .path.display())]
    Bound {
        path: PathBuf,
        /// The bucket that it is of.
        bound: String,
        /// Whose it should be.
        asked: String,
    },
    /// Another run works with it.
    #[error("Another run publishes with the inventory `{path}` (--wait waits)", path = .0.display())]
    Busy(PathBuf),
    /// Its folder or lock.
    #[error("`{path}` cannot be opened: {source}", path = .path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

/// How far a row can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The object is what the row says, and the file was that when its times were taken.
    Sure,
    /// The object is what the row says; the file was touched so shortly before it was read that its times prove nothing.
    Racy,
    /// The object was on its way when last heard of: it is the old one, the new one, or none.
    Doubt,
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub key: Vec<u8>,
    pub state: State,
    pub stat: Stat,
    pub hash: [u8; 32],
    pub etag: String,
    pub version: Option<String>,
    pub headers: [u8; 16],
    pub compress: Compress,
}

impl Keyed for Row {
    fn key(&self) -> &[u8] {
        &self.key
    }
}

/// Opens or makes a file that is for its owner only: it names all that a site has.
fn private(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    let file = options.create(true).append(true).mode(0o600).open(path)?;
    // An older run made it for all to read. Somebody else's file stays as it is.
    let _stays = file.set_permissions(Permissions::from_mode(0o600));
    Ok(file)
}

/// The inventory file, locked against other runs while it is open.
pub(crate) struct Inventory {
    path: PathBuf,
    connection: Mutex<Connection>,
    /// Nothing is known yet: it is new, or nothing was ever stored.
    pub is_empty: bool,
    /// Who hears of changes: nobody until it is set.
    pub audience: Audience,
    _lock: File,
}

impl Inventory {
    /// Opens or makes the inventory of `bucket`, a location with its endpoint.
    pub fn open(path: &Path, bucket: &str) -> Result<Self, InventoryError> {
        let io = |source| InventoryError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(io)?;
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = private(name.as_ref()).map_err(io)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(InventoryError::Busy(path.to_owned()));
        }
        let failed = |source| InventoryError::Sqlite {
            path: path.to_owned(),
            source,
        };
        // Before SQLite makes it for all to read; what it makes beside it takes its mode.
        private(path).map_err(io)?;
        let mut connection = Connection::open(path).map_err(failed)?;
        let is_empty = prepare(&mut connection, path, bucket)?;
        Ok(Self {
            path: path.to_owned(),
            connection: Mutex::new(connection),
            is_empty,
            audience: Audience::default(),
            _lock: lock,
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, InventoryError> {
        let mut connection: MutexGuard<'_, _> = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut connection).map_err(|source| InventoryError::Sqlite {
            path: self.path.clone(),
            source,
        })
    }

    /// Where it lies: there is room for what must not be in memory.
    pub fn folder(&self) -> &Path {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new("."))
    }

    /// A key's row.
    pub fn get(&self, key: &[u8]) -> Result<Option<Row>, InventoryError> {
        self.with(|connection| {
            let sql = "SELECT * FROM objects WHERE key = ?1";
            connection.prepare_cached(sql)?.query_row([key], read).optional()
        })
    }

    /// All rows by key, read in batches: what is written meanwhile is seen if it is further on.
    pub fn rows(&self) -> impl Iterator<Item = Result<Row, InventoryError>> + Send + '_ {
        batches(move |after: Option<&Row>| {
            let after = after.map(|row| row.key.as_slice());
            self.batch("SELECT * FROM objects", after, read)
        })
    }

    /// Rows of a table by key, from after a key on.
    fn batch<T>(
        &self,
        select: &str,
        after: Option<&[u8]>,
        read: impl Fn(&SqlRow<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, InventoryError> {
        // A key can be empty, and one comparison alone is a search; `OR` would read the table from its beginning.
        let than = if after.is_some() { ">" } else { ">=" };
        let sql = format!("{select} WHERE key {than} ?1 ORDER BY key LIMIT ?2");
        self.with(|connection| {
            let mut query = connection.prepare_cached(&sql)?;
            let rows = query.query_map(params![after.unwrap_or_default(), BATCH_ROWS], read)?;
            rows.collect()
        })
    }

    /// This one is about to be sent. When an object is overwritten (`is_known`) it is durable when this returns and outlives the
    /// power, because the row would else tell of the old one; a key that was never heard of is sent again anyway.
    pub fn doubt(&self, key: &[u8], is_known: bool) -> Result<(), InventoryError> {
        self.with(|connection| {
            if is_known {
                connection.pragma_update(None, "synchronous", "FULL")?;
            }
            let tx = connection.transaction()?;
            tx.prepare_cached(
                "INSERT INTO objects VALUES (?1, 2, 0, 0, 0, 0, x'', '', NULL, x'', 0)
                 ON CONFLICT (key) DO UPDATE SET state = 2",
            )?
            .execute([key])?;
            let change = if is_known { Change::Updated } else { Change::Added };
            pending::note(&tx, self.audience, key, change)?;
            tx.commit()?;
            connection.pragma_update(None, "synchronous", "NORMAL")
        })
    }

    /// These are stored: what was in doubt is not any more.
    pub fn store(&self, rows: &[Row]) -> Result<(), InventoryError> {
        self.with(|connection| {
            let tx = connection.transaction()?;
            for row in rows {
                tx.prepare_cached("REPLACE INTO objects VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?
                    .execute(params![
                        row.key,
                        row.state as u8,
                        row.stat.bytes,
                        row.stat.mtime_ns,
                        row.stat.ctime_ns,
                        row.stat.inode.cast_signed(),
                        row.hash,
                        row.etag,
                        row.version,
                        row.headers,
                        row.compress as u8,
                    ])?;
                tx.prepare_cached("DELETE FROM parts WHERE key = ?1")?
                    .execute([&row.key])?;
            }
            tx.commit()
        })
    }

    /// These are deleted.
    pub fn forget(&self, keys: &[Vec<u8>]) -> Result<(), InventoryError> {
        self.with(|connection| {
            let tx = connection.transaction()?;
            for key in keys {
                tx.prepare_cached("DELETE FROM objects WHERE key = ?1")?
                    .execute([key])?;
            }
            tx.commit()
        })
    }

    /// An upload in parts was begun.
    pub fn parts_begun(&self, parts: &Parts) -> Result<(), InventoryError> {
        self.with(|connection| {
            let sql = "REPLACE INTO parts VALUES (?1, ?2)";
            connection.execute(sql, params![parts.key, parts.upload_id]).map(drop)
        })
    }

    /// It was given up.
    pub fn parts_ended(&self, parts: &Parts) -> Result<(), InventoryError> {
        self.with(|connection| {
            let sql = "DELETE FROM parts WHERE key = ?1 AND upload_id = ?2";
            connection.execute(sql, params![parts.key, parts.upload_id]).map(drop)
        })
    }

    /// Uploads in parts that earlier runs left behind.
    pub fn parts_left(&self) -> Result<Vec<Parts>, InventoryError> {
        self.with(|connection| {
            let mut query = connection.prepare("SELECT key, upload_id FROM parts")?;
            let rows = query.query_map([], |row| {
                Ok(Parts {
                    key: row.get(0)?,
                    upload_id: row.get(1)?,
                })
            })?;
            rows.collect()
        })
    }
}

/// Makes the tables or checks whose they are; true if they are empty.
fn prepare(connection: &mut Connection, path: &Path, bucket: &str) -> Result<bool, InventoryError> {
    let failed = |source| InventoryError::Sqlite {
        path: path.to_owned(),
        source,
    };
    let foreign = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => InventoryError::Foreign(path.to_owned()),
        _ => InventoryError::Sqlite {
            path: path.to_owned(),
            source,
        },
    };
    let number =
        |connection: &Connection, name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (id, version) = (number(connection, "application_id"), number(connection, "user_version"));
    let (id, version) = (id.map_err(foreign)?, version.map_err(failed)?);
    let is_new = match (id, version) {
        (APPLICATION_ID, 1..=VERSION) => false,
        (0, 0) => true,
        _ => return Err(InventoryError::Foreign(path.to_owned())),
    };
    let set_up = |connection: &mut Connection| {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        if is_new {
            let tx = connection.transaction()?;
            tx.execute_batch(include_str!("schema.sql"))?;
            tx.execute("INSERT INTO bound VALUES (?1)", [bucket])?;
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
            tx.pragma_update(None, "user_version", 1)?;
            tx.commit()?;
        }
        for (next, sql) in [(2, memory::TABLE), (3, memory::IS_TIMED)] {
            if version < next {
                let tx = connection.transaction()?;
                tx.execute_batch(sql)?;
                tx.pragma_update(None, "user_version", next)?;
                tx.commit()?;
            }
        }
        connection.execute_batch(listing::TABLES)?;
        connection.execute_batch(pending::TABLES)?;
        connection.query_row("SELECT bucket FROM bound", [], |row| row.get::<_, String>(0))
    };
    let bound = set_up(connection).map_err(failed)?;
    if bound != bucket {
        return Err(InventoryError::Bound {
            path: path.to_owned(),
            bound,
            asked: bucket.to_owned(),
        });
    }
    let is_empty = "SELECT NOT EXISTS (SELECT 1 FROM objects)";
    connection.query_row(is_empty, [], |row| row.get(0)).map_err(failed)
}

fn read(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    let (hash, headers): (Vec<u8>, Vec<u8>) = (row.get(6)?, row.get(9)?);
    Ok(Row {
        key: row.get(0)?,
        // What is not known is doubted: the object is sent again.
        state: match row.get(1)? {
            0 => State::Sure,
            1 => State::Racy,
            _ => State::Doubt,
        },
        stat: Stat {
            bytes: row.get(2)?,
            mtime_ns: row.get(3)?,
            ctime_ns: row.get(4)?,
            inode: row.get::<_, i64>(5)?.cast_unsigned(),
        },
        // Rows that were only ever in doubt have none.
        hash: hash.try_into().unwrap_or_default(),
        etag: row.get(7)?,
        version: row.get(8)?,
        headers: headers.try_into().unwrap_or_default(),
        compress: match row.get(10)? {
            1 => Compress::Gzip,
            2 => Compress::Brotli,
            _ => Compress::None,
        },
    })
}

/// An iterator over batches: `next` gets the last item of the batch before.
fn batches<T: Clone + Send>(
    mut next: impl FnMut(Option<&T>) -> Result<Vec<T>, InventoryError> + Send,
) -> impl Iterator<Item = Result<T, InventoryError>> + Send {
    let mut batch = Vec::new().into_iter();
    let mut last: Option<T> = None;
    let mut is_over = false;
    std::iter::from_fn(move || {
        if batch.len() == 0 && !is_over {
            match next(last.as_ref()) {
                Ok(rows) => {
                    is_over = rows.len() < BATCH_ROWS;
                    last = rows.last().cloned();
                    batch = rows.into_iter();
                }
                Err(error) => {
                    is_over = true;
                    return Some(Err(error));
                }
            }
        }
        batch.next().map(Ok)
    })
}

#[cfg(test)]
mod tests;
