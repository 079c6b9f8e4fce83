//! A checksum on every page of the catalog, which SQLite's own format does not have: a bit that rots on the disk is found
//! by whoever reads the page, instead of becoming a wrong answer.
//!
//! Done where SQLite hands pages to the file: the system's own functions do all the work, this adds eight bytes at the end
//! of a page that is written (SQLite leaves them free when asked to: *reserved bytes*, <https://sqlite.org/fileformat2.html>
//! §1.3.4) and compares them when it is read. The WAL has checksums of its own. SQLite's `cksumvfs` does the same; it is
//! not part of the bundled library.

#![allow(unsafe_code, reason = "SQLite's file functions are C function pointers")]

use std::ffi::{CStr, c_int, c_void};
use std::sync::{Mutex, OnceLock, PoisonError};

use rusqlite::Connection;
use rusqlite::ffi;

use super::DbError;

/// Name under which the checking file functions are registered.
pub(super) const VFS_NAME: &CStr = c"gridbackup-checksum";
/// Bytes of a page; SQLite's default.
pub(super) const PAGE_BYTES: usize = 4096;
/// Bytes of a page's checksum, at its end.
pub(super) const SUM_BYTES: usize = 8;

/// The system's file functions with two of them replaced. SQLite sees only the first field.
#[repr(C)]
struct Checking {
    methods: ffi::sqlite3_io_methods,
    read: unsafe extern "C" fn(*mut ffi::sqlite3_file, *mut c_void, c_int, ffi::sqlite3_int64) -> c_int,
    write: unsafe extern "C" fn(*mut ffi::sqlite3_file, *const c_void, c_int, ffi::sqlite3_int64) -> c_int,
    system: usize,
}

/// One `Checking` for each set of functions that the system opens files with (one, on Linux).
static CHECKING: Mutex<Vec<&'static Checking>> = Mutex::new(Vec::new());
/// Address of the system's `sqlite3_vfs`, which lives as long as the process; `Err`: SQLite's code.
static SYSTEM_VFS: OnceLock<Result<usize, c_int>> = OnceLock::new();

/// Makes the checking functions known to SQLite; repeating it changes nothing.
pub(super) fn register() -> Result<(), DbError> {
    let registered = SYSTEM_VFS.get_or_init(|| {
        // SAFETY: the default VFS is a static of SQLite's (initialised by this call), and a copy of it with another name and
        // `xOpen` is leaked, as registration requires. Its other functions do not look at which VFS they were called by.
        unsafe {
            let system = ffi::sqlite3_vfs_find(std::ptr::null());
            if system.is_null() {
                return Err(ffi::SQLITE_ERROR);
            }
            let own = Box::leak(Box::new(ffi::sqlite3_vfs {
                zName: VFS_NAME.as_ptr(),
                pNext: std::ptr::null_mut(),
                xOpen: Some(open),
                ..*system
            }));
            match ffi::sqlite3_vfs_register(own, 0) {
                ffi::SQLITE_OK => Ok(system as usize),
                code => Err(code),
            }
        }
    });
    registered.map(|_system| ()).map_err(failure)
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
    let Some(Ok(system)) = SYSTEM_VFS.get() else {
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
        if code == ffi::SQLITE_OK && flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
            match checking((*file).pMethods) {
                Some(checking) => (*file).pMethods = &raw const checking.methods,
                None => return ffi::SQLITE_ERROR,
            }
        }
        code
    }
}

/// # Safety
/// `system` are the functions of an open file.
unsafe fn checking(system: *const ffi::sqlite3_io_methods) -> Option<&'static Checking> {
    let mut known = CHECKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(checking) = known.iter().find(|checking| checking.system == system as usize) {
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
            ..methods
        },
        read: methods.xRead?,
        write: methods.xWrite?,
        system: system as usize,
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
        if code != ffi::SQLITE_OK || !is_page(bytes, offset) {
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
        if !is_page(bytes, offset) {
            return (checking.write)(file, from, bytes, offset);
        }
        let mut page = [0; PAGE_BYTES];
        page.copy_from_slice(std::slice::from_raw_parts(from.cast::<u8>(), PAGE_BYTES));
        let sum = sum(&page, offset);
        page[PAGE_BYTES - SUM_BYTES..].copy_from_slice(&sum);
        (checking.write)(file, page.as_ptr().cast(), bytes, offset)
    }
}

fn failure(code: c_int) -> DbError {
    DbError::Sqlite(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
}
