//! What lives for one run: the listing of the bucket, and what is to be done after everything else.
//!
//! In temporary tables, which SQLite moves to a file when they grow: a listing need not be in order, and millions of pages or
//! deletions need no memory.

use rusqlite::params;
use s3::Listed;

use super::{Index, IndexError, PAGE_ROWS, pages};
use crate::merge::Keyed;

/// The tables.
pub(super) const TABLES: &str = "
    PRAGMA temp_store = FILE;
    CREATE TEMP TABLE seen (key BLOB PRIMARY KEY, bytes INTEGER NOT NULL, etag TEXT NOT NULL) WITHOUT ROWID;
    CREATE TEMP TABLE later (key BLOB PRIMARY KEY, path BLOB NOT NULL) WITHOUT ROWID;
    CREATE TEMP TABLE dead (key BLOB PRIMARY KEY) WITHOUT ROWID;
";

/// An object in the listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub key: Vec<u8>,
    pub etag: String,
}

impl Keyed for Seen {
    fn key(&self) -> &[u8] {
        &self.key
    }
}

impl Index {
    /// Adds a page of the listing.
    pub fn see(&self, objects: &[Listed]) -> Result<(), IndexError> {
        self.with(|connection| {
            let tx = connection.transaction()?;
            for object in objects {
                tx.prepare_cached("REPLACE INTO seen VALUES (?1, ?2, ?3)")?
                    .execute(params![object.key, object.bytes, object.etag])?;
            }
            tx.commit()
        })
    }

    /// The listing's object of a key.
    pub fn seen(&self, key: &[u8]) -> Result<Option<Seen>, IndexError> {
        use rusqlite::OptionalExtension;
        self.with(|connection| {
            let mut query = connection.prepare_cached("SELECT etag FROM seen WHERE key = ?1")?;
            query
                .query_row([key], |row| {
                    Ok(Seen {
                        key: key.to_vec(),
                        etag: row.get(0)?,
                    })
                })
                .optional()
        })
    }

    /// The listing by key.
    pub fn all_seen(&self) -> impl Iterator<Item = Result<Seen, IndexError>> + Send + '_ {
        pages(move |after: Option<&Seen>| {
            self.with(|connection| {
                let sql = "SELECT key, etag FROM seen WHERE key > ?1 OR ?2 ORDER BY key LIMIT ?3";
                let after = after.map(|seen| seen.key.as_slice());
                let mut query = connection.prepare_cached(sql)?;
                let found = params![after.unwrap_or_default(), after.is_none(), PAGE_ROWS];
                let rows = query.query_map(found, |row| {
                    Ok(Seen {
                        key: row.get(0)?,
                        etag: row.get(1)?,
                    })
                })?;
                rows.collect()
            })
        })
    }

    /// This page is published when all that is no page has been.
    pub fn put_off(&self, key: &[u8], path: &[u8]) -> Result<(), IndexError> {
        self.with(|connection| {
            connection
                .prepare_cached("REPLACE INTO later VALUES (?1, ?2)")?
                .execute([key, path])
                .map(drop)
        })
    }

    /// Pages that were put off: keys and paths.
    pub fn put_off_until_now(&self) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), IndexError>> + Send + '_ {
        pages(move |after: Option<&(Vec<u8>, Vec<u8>)>| {
            self.with(|connection| {
                let sql = "SELECT key, path FROM later WHERE key > ?1 OR ?2 ORDER BY key LIMIT ?3";
                let after = after.map(|(key, _)| key.as_slice());
                let mut query = connection.prepare_cached(sql)?;
                let found = params![after.unwrap_or_default(), after.is_none(), PAGE_ROWS];
                let rows = query.query_map(found, |row| Ok((row.get(0)?, row.get(1)?)))?;
                rows.collect()
            })
        })
    }

    /// This object has no file any more.
    pub fn mark_dead(&self, key: &[u8]) -> Result<(), IndexError> {
        self.with(|connection| {
            connection
                .prepare_cached("REPLACE INTO dead VALUES (?1)")?
                .execute([key])
                .map(drop)
        })
    }

    /// Up to a thousand of these, and how many there are.
    pub fn dead(&self) -> Result<(Vec<Vec<u8>>, u64), IndexError> {
        self.with(|connection| {
            let count = connection.query_row("SELECT count(*) FROM dead", [], |row| row.get(0))?;
            let mut query = connection.prepare_cached("SELECT key FROM dead ORDER BY key LIMIT ?1")?;
            let keys = query
                .query_map([PAGE_ROWS], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            Ok((keys, count))
        })
    }

    /// These were seen to.
    pub fn bury(&self, keys: &[Vec<u8>]) -> Result<(), IndexError> {
        self.with(|connection| {
            let tx = connection.transaction()?;
            for key in keys {
                tx.prepare_cached("DELETE FROM dead WHERE key = ?1")?.execute([key])?;
            }
            tx.commit()
        })
    }
}
