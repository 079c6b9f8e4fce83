//! What lives for one run: the listing of the bucket, and what is to be done after everything else.
//!
//! In temporary tables, which SQLite moves to a file when they grow: a listing need not be in order, and millions of pages or
//! deletions need no memory.

use rusqlite::{OptionalExtension, params};
use s3::Listed;

use super::{BATCH_ROWS, Inventory, InventoryError, batches};
use crate::merge::Keyed;

/// The tables.
pub(super) const TABLES: &str = "
    PRAGMA temp_store = FILE;
    CREATE TEMP TABLE seen (key BLOB PRIMARY KEY, bytes INTEGER NOT NULL, etag TEXT NOT NULL) WITHOUT ROWID;
    CREATE TEMP TABLE later (key BLOB PRIMARY KEY, path BLOB, made BLOB);
    CREATE TEMP TABLE dead (key BLOB PRIMARY KEY, etag TEXT NOT NULL, is_strange INTEGER NOT NULL) WITHOUT ROWID;
";

/// What was put off: a key, and a path if it has one.
pub(crate) type Later = (Vec<u8>, Option<Vec<u8>>);

/// An object in the listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub key: Vec<u8>,
    pub etag: String,
}

/// An object that has no file any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dead {
    pub key: Vec<u8>,
    /// What it had when last heard of; empty: unknown.
    pub etag: String,
    /// The inventory knows nothing of it: it has yet to be asked who put it there.
    pub is_strange: bool,
}

impl Keyed for Seen {
    fn key(&self) -> &[u8] {
        &self.key
    }
}

impl Inventory {
    /// Adds a batch of the listing.
    pub fn see(&self, objects: &[Listed]) -> Result<(), InventoryError> {
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
    pub fn seen(&self, key: &[u8]) -> Result<Option<Seen>, InventoryError> {
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
    pub fn all_seen(&self) -> impl Iterator<Item = Result<Seen, InventoryError>> + Send + '_ {
        batches(move |after: Option<&Seen>| {
            let after = after.map(|seen| seen.key.as_slice());
            self.batch("SELECT key, etag FROM seen", after, |row| {
                Ok(Seen {
                    key: row.get(0)?,
                    etag: row.get(1)?,
                })
            })
        })
    }

    /// This page is published when all that is no page has been.
    pub fn put_off(&self, key: &[u8], path: &[u8]) -> Result<(), InventoryError> {
        self.with(|connection| {
            connection
                .prepare_cached("REPLACE INTO later VALUES (?1, ?2, NULL)")?
                .execute([key, path])
                .map(drop)
        })
    }

    /// So is this, which has no file but these contents.
    pub fn put_off_made(&self, key: &[u8], contents: &[u8]) -> Result<(), InventoryError> {
        self.with(|connection| {
            connection
                .prepare_cached("REPLACE INTO later VALUES (?1, NULL, ?2)")?
                .execute([key, contents])
                .map(drop)
        })
    }

    /// The contents of something without a file; empty if nothing is known of it.
    pub fn made(&self, key: &[u8]) -> Result<Vec<u8>, InventoryError> {
        self.with(|connection| {
            let mut query = connection.prepare_cached("SELECT made FROM later WHERE key = ?1")?;
            let found: Option<Option<Vec<u8>>> = query.query_row([key], |row| row.get(0)).optional()?;
            Ok(found.flatten().unwrap_or_default())
        })
    }

    /// Pages that were put off: keys and paths; those that have no file have none.
    pub fn put_off_until_now(&self) -> impl Iterator<Item = Result<Later, InventoryError>> + Send + '_ {
        batches(move |after: Option<&Later>| {
            let after = after.map(|(key, _)| key.as_slice());
            self.batch("SELECT key, path FROM later", after, |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
        })
    }

    /// This object has no file any more.
    pub fn mark_dead(&self, dead: &Dead) -> Result<(), InventoryError> {
        self.with(|connection| {
            connection
                .prepare_cached("REPLACE INTO dead VALUES (?1, ?2, ?3)")?
                .execute(params![dead.key, dead.etag, dead.is_strange])
                .map(drop)
        })
    }

    /// Up to a thousand of these, strange ones or the others, and how many of them there are.
    pub fn dead(&self, is_strange: bool) -> Result<(Vec<Dead>, u64), InventoryError> {
        self.with(|connection| {
            let sql = "SELECT count(*) FROM dead WHERE is_strange = ?1";
            let count = connection.query_row(sql, [is_strange], |row| row.get(0))?;
            let sql = "SELECT key, etag FROM dead WHERE is_strange = ?1 ORDER BY key LIMIT ?2";
            let mut query = connection.prepare_cached(sql)?;
            let dead = query.query_map(params![is_strange, BATCH_ROWS], |row| {
                Ok(Dead {
                    key: row.get(0)?,
                    etag: row.get(1)?,
                    is_strange,
                })
            })?;
            Ok((dead.collect::<Result<_, _>>()?, count))
        })
    }

    /// The run begins anew.
    pub fn clear(&self) -> Result<(), InventoryError> {
        self.with(|connection| connection.execute_batch("DELETE FROM seen; DELETE FROM later; DELETE FROM dead;"))
    }

    /// These were seen to.
    pub fn bury(&self, keys: &[Vec<u8>]) -> Result<(), InventoryError> {
        self.with(|connection| {
            let tx = connection.transaction()?;
            for key in keys {
                tx.prepare_cached("DELETE FROM dead WHERE key = ?1")?.execute([key])?;
            }
            tx.commit()
        })
    }
}
