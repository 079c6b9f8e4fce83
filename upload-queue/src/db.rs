//! The catalog's SQLite file: one writer at a time, readers beside it, numbered migrations.

use std::path::Path;

use rusqlite::{Connection, Transaction};

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

/// A handle to the database; clones share it.
#[derive(Clone)]
pub struct Db {}

impl Db {
    /// Opens or creates `path` (WAL) and runs the migrations that are missing: this crate's own, then `migrations`.
    pub fn open(_path: &Path, _migrations: &[Migration]) -> Result<Self, DbError> {
        todo!()
    }
    /// A database that lives in memory, for tests.
    pub fn in_memory(_migrations: &[Migration]) -> Result<Self, DbError> {
        todo!()
    }
    /// Runs `work` in a write transaction, committed if it returns `Ok`. Writers wait for each other; do no IO inside.
    pub fn write<T, E: From<DbError>>(&self, _work: impl FnOnce(&Transaction<'_>) -> Result<T, E>) -> Result<T, E> {
        todo!()
    }
    /// Runs `work` on a read-only connection, which sees one consistent state and never waits for a writer.
    pub fn read<T, E: From<DbError>>(&self, _work: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        todo!()
    }
}
