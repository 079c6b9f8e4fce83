//! What the inventory knows of the lock in the bucket.

use rusqlite::{OptionalExtension, params};

use super::{Inventory, InventoryError};

/// The table, since version 2 of the schema.
pub(super) const TABLE: &str = "
CREATE TABLE lock (
    -- Who we are in it: random.
    holder TEXT NOT NULL,
    -- ETag of the lock object since we gave it back; empty: somebody has to look.
    etag TEXT NOT NULL,
    fence INTEGER NOT NULL,
    -- At the end of the last run that left the inventory as the bucket was; NULL: it may not be so.
    generation INTEGER,
    -- Whether the endpoint honours conditions; NULL: not known yet.
    is_conditional INTEGER,
    -- Seconds since 1970 on the endpoint's clock until which late writes may still come; NULL: none are to be feared.
    doubt_until INTEGER
);
";

/// Since version 3: whether the endpoint refuses requests that come after the time that they were signed for; NULL: not known yet.
pub(super) const IS_TIMED: &str = "ALTER TABLE lock ADD COLUMN is_timed INTEGER";

/// What was last known of the lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub holder: String,
    pub etag: String,
    pub fence: u64,
    pub generation: Option<u64>,
    pub is_conditional: Option<bool>,
    pub is_timed: Option<bool>,
    pub doubt_until: Option<i64>,
}

impl Memory {
    /// A run that found out that others had published did not get to its end.
    pub fn is_unsettled(&self) -> bool {
        !self.holder.is_empty() && self.generation.is_none()
    }
}

impl Inventory {
    /// What is known; at first nothing.
    pub fn lock_memory(&self) -> Result<Memory, InventoryError> {
        self.with(|connection| {
            let sql = "SELECT holder, etag, fence, generation, is_conditional, is_timed, doubt_until FROM lock";
            let read = |row: &rusqlite::Row<'_>| {
                Ok(Memory {
                    holder: row.get(0)?,
                    etag: row.get(1)?,
                    fence: row.get(2)?,
                    generation: row.get(3)?,
                    is_conditional: row.get(4)?,
                    is_timed: row.get(5)?,
                    doubt_until: row.get(6)?,
                })
            };
            Ok(connection.query_row(sql, [], read).optional()?.unwrap_or_default())
        })
    }

    /// This is known now, and outlives the power: what follows relies on it.
    pub fn remember_lock(&self, memory: &Memory) -> Result<(), InventoryError> {
        self.with(|connection| {
            connection.pragma_update(None, "synchronous", "FULL")?;
            let tx = connection.transaction()?;
            tx.execute("DELETE FROM lock", [])?;
            tx.execute(
                "INSERT INTO lock (holder, etag, fence, generation, is_conditional, is_timed, doubt_until)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    memory.holder,
                    memory.etag,
                    memory.fence,
                    memory.generation,
                    memory.is_conditional,
                    memory.is_timed,
                    memory.doubt_until,
                ],
            )?;
            let done = tx.commit();
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            done
        })
    }
}
