//! A checksum on every page of the catalog, which SQLite's own format does not have: a bit that rots on the disk is found
//! by whoever reads the page, instead of becoming a wrong answer.
//!
//! Done where SQLite hands pages to the file: the system's own functions do all the work, this adds eight bytes at the end
//! of a page that is written (SQLite leaves them free when asked to: *reserved bytes*, <https://sqlite.org/fileformat2.html>
//! §1.3.4) and compares them when it is read. The WAL has checksums of its own. SQLite's `cksumvfs` does the same; it is
//! not part of the bundled library.
//!
//! Here it is also noticed that the system could not sync the file or its WAL, which SQLite says to nobody when it happens in
//! a checkpoint by the way.

#![allow(unsafe_code, reason = "SQLite's file functions are C function pointers")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use rusqlite::{Connection, ffi};

use super::DbError;

/// Name under which the checking file functions are registered.
pub(super) const VFS_NAME: &CStr = c"gridbackup-checksum";
/// The same over the system's functions that take no locks: for files that nobody may write to.
pub(super) const UNLOCKED_VFS_NAME: &CStr = c"gridbackup-checksum-unlocked";
/// SQLite's name for these.
const UNLOCKED_SYSTEM_NAME: &CStr = c"unix-none";
/// Bytes of a page; SQLite's default.
pub(super) const PAGE_BYTES: usize = 4096;
/// Bytes of a page's checksum, at its end. Chosen: a page that rots is taken for sound once in 2^64 times.
pub(super) const SUM_BYTES: usize = 8;

/// The system's file functions with two of them replaced. SQLite sees only the first field.
#[repr(C)]
struct Checking {
    methods: ffi::sqlite3_io_methods,
    read: unsafe extern "C" fn(*mut ffi::sqlite3_file, *mut c_void, c_int, ffi::sqlite3_int64) -> c_int,
    write: unsafe extern "C" fn(*mut ffi::sqlite3_file, *const c_void, c_int, ffi::sqlite3_int64) -> c_int,
    sync: unsafe extern "C" fn(*mut ffi::sqlite3_file, c_int) -> c_int,
    system: usize,
    kind: Kind,
}

/// Which of SQLite's files it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The database: its pages have checksums.
    Main,
    /// Its write-ahead log.
    Wal,
}

/// A sync of some catalog or WAL of this process failed, and what it was to make durable was not written anew since.
static SYNC_FAILED: AtomicBool = AtomicBool::new(false);

/// Whether a sync failed since the last `sync_is_made_good`.
pub(super) fn has_sync_failed() -> bool {
    SYNC_FAILED.load(Ordering::Acquire)
}

/// What did not sync was written anew, and synced; or, in tests, was not.
pub(super) fn set_sync_failed(failed: bool) {
    SYNC_FAILED.store(failed, Ordering::Release);
}

/// One `Checking` for each set of functions that the system opens files with (one, on Linux).
static CHECKING: Mutex<Vec<&'static Checking>> = Mutex::new(Vec::new());
/// Address of the system's `sqlite3_vfs`, which lives as long as the process; `Err`: SQLite's code.
static SYSTEM_VFS: OnceLock<Result<usize, c_int>> = OnceLock::new();
/// The same of the one without locks.
static UNLOCKED_SYSTEM_VFS: OnceLock<Result<usize, c_int>> = OnceLock::new();

/// Makes the checking functions known to SQLite; repeating it changes nothing.
pub(super) fn register() -> Result<(), DbError> {
    let locked = SYSTEM_VFS.get_or_init(|| wrap(std::ptr::null(), VFS_NAME, open));
    let unlocked =
        UNLOCKED_SYSTEM_VFS.get_or_init(|| wrap(UNLOCKED_SYSTEM_NAME.as_ptr(), UNLOCKED_VFS_NAME, open_unlocked));
    (*locked).and(*unlocked).map(|_system| ()).map_err(failure)
}

type Open = unsafe extern "C" fn(
    *mut ffi::sqlite3_vfs,
    ffi::sqlite3_filename,
    *mut ffi::sqlite3_file,
    c_int,
    *mut c_int,
) -> c_int;

/// Registers a copy of the system's VFS of the name `system` (null: the default one) that opens files with `open`.
fn wrap(system: *const c_char, name: &'static CStr, open: Open) -> Result<usize, c_int> {
    // SAFETY: the system's VFS is a static of SQLite's (initialised by this call), and a copy of it with another name and
    // `xOpen` is leaked, as registration requires. Its other functions do not look at which VFS they were called by.
    unsafe {
        let system = ffi::sqlite3_vfs_find(system);
        if system.is_null() {
            return Err(ffi::SQLITE_ERROR);
        }
        let own = Box::leak(Box::new(ffi::sqlite3_vfs {
            zName: name.as_ptr(),
            pNext: std::ptr::null_mut(),
            xOpen: Some(open),
            ..*system
        }));
        match ffi::sqlite3_vfs_register(own, 0) {
            ffi::SQLITE_OK => Ok(system as usize),
            code => Err(code),
        }
    }
}

/// Makes SQLite leave room for checksums in a database that has no page yet.
pub(super) fn reserve(conn: &Connection) -> Result<(), DbError> {
    let mut bytes = SUM_BYTES as c_int;
    // SAFETY: the handle is open, and this file control reads and writes one int.
    let code = unsafe {
        ffi::sqlite3_file_control(
            conn.handle(),
            std::ptr::null(),
            ffi::SQLITE_FCNTL_RESERVE_BYTES,
            (&raw mut bytes).cast(),
        )
    };
    if code == ffi::SQLITE_OK {
        Ok(())
    } else {
        Err(failure(code))
    }
}

/// Truncated BLAKE3 of a page without its last bytes, and of where it lies: a page in the wrong place is found, too.
fn sum(page: &[u8], offset: i64) -> [u8; SUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&page[..page.len() - SUM_BYTES]);
    hasher.update(&offset.to_le_bytes());
    let mut sum = [0; SUM_BYTES];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..SUM_BYTES]);
    sum
}

fn is_page(bytes: c_int, offset: i64) -> bool {
    bytes as usize == PAGE_BYTES && offset % PAGE_BYTES as i64 == 0
}

unsafe extern "C" fn open(
    _own: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    // SAFETY: arguments go on as SQLite gave them.
    unsafe { open_by(&SYSTEM_VFS, name, file, flags, flags_out) }
}

unsafe extern "C" fn open_unlocked(
    _own: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    // SAFETY: arguments go on as SQLite gave them.
    unsafe { open_by(&UNLOCKED_SYSTEM_VFS, name, file, flags, flags_out) }
}

/// # Safety
/// The arguments are those of `xOpen`.
unsafe fn open_by(
    system: &OnceLock<Result<usize, c_int>>,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let Some(Ok(system)) = system.get() else {
        return ffi::SQLITE_ERROR;
    };
    // SAFETY: arguments go on as SQLite gave them; after success `file` is an open file whose first field are its
    // functions, and the set that replaces them is never freed.
    unsafe {
        let system = *system as *mut ffi::sqlite3_vfs;
        let Some(system_open) = (*system).xOpen else {
            return ffi::SQLITE_ERROR;
        };
        let code = system_open(system, name, file, flags, flags_out);
        let kind = match flags {
            flags if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 => Some(Kind::Main),
            flags if flags & ffi::SQLITE_OPEN_WAL != 0 => Some(Kind::Wal),
            _ => None,
        };
        if let (ffi::SQLITE_OK, Some(kind)) = (code, kind) {
            match checking((*file).pMethods, kind) {
                Some(checking) => (*file).pMethods = &raw const checking.methods,
                None => return ffi::SQLITE_ERROR,
            }
        }
        code
    }
}

/// # Safety
/// `system` are the functions of an open file.
unsafe fn checking(system: *const ffi::sqlite3_io_methods, kind: Kind) -> Option<&'static Checking> {
    let mut known = CHECKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(checking) = known
        .iter()
        .find(|checking| checking.system == system as usize && checking.kind == kind)
    {
        return Some(checking);
    }
    // SAFETY: they are a static of SQLite's.
    let methods = unsafe { *system };
    let checking = Box::leak(Box::new(Checking {
        methods: ffi::sqlite3_io_methods {
            // Without memory mapping, by which pages would get past us.
            iVersion: methods.iVersion.min(2),
            xRead: Some(read),
            xWrite: Some(write),
            xSync: Some(sync),
            ..methods
        },
        read: methods.xRead?,
        write: methods.xWrite?,
        sync: methods.xSync?,
        system: system as usize,
        kind,
    }));
    known.push(checking);
    Some(checking)
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    to: *mut c_void,
    bytes: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: only `open` gives a file these functions, inside a `Checking`; `to` has room for `bytes` bytes.
    unsafe {
        let checking = &*(*file).pMethods.cast::<Checking>();
        let code = (checking.read)(file, to, bytes, offset);
        if code != ffi::SQLITE_OK || checking.kind != Kind::Main || !is_page(bytes, offset) {
            return code;
        }
        let page = std::slice::from_raw_parts(to.cast::<u8>(), PAGE_BYTES);
        if sum(page, offset) == page[PAGE_BYTES - SUM_BYTES..] {
            return code;
        }
        tracing::info!(offset, "A page of the catalog is damaged");
        ffi::SQLITE_IOERR_DATA
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    bytes: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: only `open` gives a file these functions, inside a `Checking`; `from` has `bytes` bytes.
    unsafe {
        let checking = &*(*file).pMethods.cast::<Checking>();
        if checking.kind != Kind::Main || !is_page(bytes, offset) {
            return (checking.write)(file, from, bytes, offset);
        }
        let mut page = [0; PAGE_BYTES];
        page.copy_from_slice(std::slice::from_raw_parts(from.cast::<u8>(), PAGE_BYTES));
        let sum = sum(&page, offset);
        page[PAGE_BYTES - SUM_BYTES..].copy_from_slice(&sum);
        (checking.write)(file, page.as_ptr().cast(), bytes, offset)
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: only `open` gives a file these functions, inside a `Checking`.
    let code = unsafe { ((*(*file).pMethods.cast::<Checking>()).sync)(file, flags) };
    if code != ffi::SQLITE_OK {
        set_sync_failed(true);
    }
    code
}

fn failure(code: c_int) -> DbError {
    DbError::Sqlite(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
}
