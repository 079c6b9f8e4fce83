//! The file itself: made whole or not at all, refused when it is not ours, and the settings of its connections.

use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::{DbError, Migration, checksum, migrate, pending, set_synchronous, transact};

/// `application_id` of a catalog: "gbcg". `file` and we tell by it whose database this is.
const APPLICATION_ID: i32 = 0x6762_6367;
/// What an SQLite file begins with (<https://sqlite.org/fileformat2.html> §1.3).
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Page caches, in KiB. Chosen: the writer's holds the inner pages of the indexes of about a million files.
const WRITER_CACHE_KIB: u32 = 8 * 1024;
const READER_CACHE_KIB: u32 = 2 * 1024;
/// How long SQLite waits for another process (a CLI reading the file) before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// The WAL file is cut back to this after a checkpoint.
const WAL_BYTES_MAX: u32 = 64 << 20;

/// Makes a whole catalog beside `path` and renames it: whatever is at `path` is never half made.
pub(super) fn create(path: &Path, migrations: &[&Migration]) -> Result<(), DbError> {
    let io = |source| DbError::Io {
        path: path.display().to_string(),
        source,
    };
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    remove_with_side_files(&new)?;
    // Paths are private; SQLite gives its side files the same mode.
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    drop(options.open(&new).map_err(io)?);

    let mut conn = open(&new)?;
    checksum::reserve(&conn)?;
    let tx = conn.transaction()?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.execute_batch("CREATE TABLE schema (component TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID")?;
    migrate(&tx, path, migrations)?;
    tx.commit()?;
    drop(conn);

    rename_durably(&new, path)
}

/// Renames a whole database; the new name is on the disk when this returns.
pub(super) fn rename_durably(from: &Path, to: &Path) -> Result<(), DbError> {
    if !to.exists() {
        // The journal of a database that was moved away by hand would be played into this one.
        remove_each(to, &SIDE_FILES)?;
    }
    std::fs::File::open(from)
        .and_then(|file| durable::sync(&file, from))
        .and_then(|()| durable::rename(from, to))
        .map_err(|source| DbError::Io {
            path: to.display().to_string(),
            source,
        })
}

/// Removes a database that is not in use, and what SQLite keeps beside it.
pub(super) fn remove_with_side_files(path: &Path) -> Result<(), DbError> {
    remove_each(path, &[""])?;
    remove_each(path, &SIDE_FILES)
}

/// Endings of the names of what SQLite keeps beside a database.
const SIDE_FILES: [&str; 3] = ["-journal", "-wal", "-shm"];

fn remove_each(path: &Path, endings: &[&str]) -> Result<(), DbError> {
    for ending in endings {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        match std::fs::remove_file(&name) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                let path = PathBuf::from(name).display().to_string();
                return Err(DbError::Io { path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn open_existing(path: &Path, migrations: &[&Migration]) -> Result<Connection, DbError> {
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

/// A connection to a file that is there, whose pages have checksums.
fn open(path: &Path) -> Result<Connection, DbError> {
    checksum::register()?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags_and_vfs(path, flags, checksum::VFS_NAME)?)
}

fn connect(path: &Path, cache_kib: u32) -> Result<Connection, DbError> {
    let conn = open(path)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(64);
    conn.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(conn)
}

/// A connection that writes nothing, neither into the file nor beside it, and takes no locks. Where a WAL was left, SQLite
/// keeps its index of it in memory; without one the file is all there is, and is said not to change.
pub(super) fn open_frozen(path: &Path) -> Result<Connection, DbError> {
    check_header(path)?;
    checksum::register()?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = if wal_bytes(path) > 0 {
        let conn = Connection::open_with_flags_and_vfs(path, flags, checksum::UNLOCKED_VFS_NAME)?;
        conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        conn
    } else {
        let flags = flags | OpenFlags::SQLITE_OPEN_URI;
        Connection::open_with_flags_and_vfs(immutable_uri(path), flags, checksum::VFS_NAME)?
    };
    conn.set_prepared_statement_cache_capacity(64);
    conn.pragma_update(None, "cache_size", -i64::from(READER_CACHE_KIB))?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    let application: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    match application == APPLICATION_ID {
        true => Ok(conn),
        false => Err(foreign(path)),
    }
}

/// <https://sqlite.org/uri.html>; every byte that is not plain is escaped.
fn immutable_uri(path: &Path) -> PathBuf {
    use std::fmt::Write;
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
            byte => write!(uri, "%{byte:02x}").expect("writing to memory does not fail"),
        }
    }
    uri.push_str("?immutable=1");
    PathBuf::from(uri)
}

fn wal_bytes(path: &Path) -> u64 {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    std::fs::metadata(wal).map_or(0, |meta| meta.len())
}

pub(super) fn open_reader(path: &Path) -> Result<Connection, DbError> {
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
    if header[..16] != *SQLITE_MAGIC || !has_checksums(&header) {
        return Err(foreign(path));
    }
    // With a WAL the file may rightly be behind its header; SQLite then checks the length itself.
    if wal_bytes(path) == 0 && len < header_bytes(&header) {
        return Err(foreign(path));
    }
    Ok(())
}

/// Whether its pages are such as `checksum` writes: without room for them, it would overwrite rows.
fn has_checksums(header: &[u8; 100]) -> bool {
    page_bytes(header) == checksum::PAGE_BYTES as u64 && usize::from(header[20]) == checksum::SUM_BYTES
}

fn page_bytes(header: &[u8; 100]) -> u64 {
    match u64::from(u16::from_be_bytes([header[16], header[17]])) {
        1 => 65_536, // how the format writes the one size that does not fit
        bytes => bytes,
    }
}

/// Bytes that the file has by its own header: page size times pages.
fn header_bytes(header: &[u8; 100]) -> u64 {
    let pages = u32::from_be_bytes([header[28], header[29], header[30], header[31]]);
    page_bytes(header) * u64::from(pages)
}

fn foreign(path: &Path) -> DbError {
    DbError::Foreign {
        path: path.display().to_string(),
    }
}

pub(super) fn foreign_if_corrupt(error: DbError, path: &Path) -> DbError {
    match &error {
        DbError::Damaged => foreign(path),
        DbError::Sqlite(sqlite) if sqlite.sqlite_error_code() == Some(ErrorCode::NotADatabase) => foreign(path),
        // No table `schema`: our number on somebody else's file.
        DbError::Sqlite(rusqlite::Error::SqliteFailure(_, Some(message))) if message.starts_with("no such table") => {
            foreign(path)
        }
        _ => error,
    }
}

/// What the names of scratch folders begin with.
pub(super) const SCRATCH: &str = "gridbackup-scratch-";

pub(super) fn sweep_scratch(base: &Path) -> Result<(), DbError> {
    let io = |source| DbError::Io {
        path: base.display().to_string(),
        source,
    };
    for entry in std::fs::read_dir(base).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_name().as_encoded_bytes().starts_with(SCRATCH.as_bytes()) {
            std::fs::remove_dir_all(entry.path()).map_err(io)?;
        }
    }
    Ok(())
}

/// In memory where the system has such a folder.
pub(super) fn in_memory_folder() -> PathBuf {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() {
        shm.to_owned()
    } else {
        std::env::temp_dir()
    }
}

/// A folder that is removed when dropped.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new(base: &Path) -> Result<Self, DbError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("{SCRATCH}{}-{number}", std::process::id()));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
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
        // What is left over is swept when its base is a home that is opened again.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
