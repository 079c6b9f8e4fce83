//! Packs that nothing wants any more. Which they are is not known here.

use database::DbError;
use proto::id::ShareId;
use rusqlite::{Connection, OptionalExtension, Transaction};

use super::{PackRow, Purpose, stored_bytes};

/// A share of a known pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownShare {
    /// Its pack.
    pub pack: PackRow,
    /// Bytes of its stored form.
    pub stored_bytes: u64,
    /// Its pack is dead.
    pub dead: bool,
}

/// Dead packs, ascending.
pub fn dead(conn: &Connection) -> Result<Vec<PackRow>, DbError> {
    rows(conn, "SELECT pack FROM dead_pack ORDER BY pack", [])
}

/// Data packs, dead ones too, ascending.
pub fn data_rows(conn: &Connection) -> Result<Vec<PackRow>, DbError> {
    rows(
        conn,
        "SELECT id FROM pack WHERE purpose = ? ORDER BY id",
        [Purpose::Data as i64],
    )
}

/// Declares packs dead. Declaring it again changes nothing.
pub fn set_dead(tx: &Transaction<'_>, packs: &[PackRow], now_ns: i64) -> Result<(), DbError> {
    let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO dead_pack VALUES (?, ?)")?;
    for pack in packs {
        insert.execute((pack.0, now_ns))?;
    }
    Ok(())
}

/// Takes that back.
pub fn set_alive(tx: &Transaction<'_>, packs: &[PackRow]) -> Result<(), DbError> {
    let mut delete = tx.prepare_cached("DELETE FROM dead_pack WHERE pack = ?")?;
    for pack in packs {
        delete.execute([pack.0])?;
    }
    Ok(())
}

/// The share of this id, if it belongs to a known pack.
pub fn share_of(conn: &Connection, id: ShareId) -> Result<Option<KnownShare>, DbError> {
    let mut select = conn.prepare_cached(
        "SELECT pack.id, pack.share_bytes, EXISTS (SELECT 1 FROM dead_pack WHERE dead_pack.pack = pack.id)
         FROM share JOIN pack ON pack.id = share.pack WHERE share.share_id = ? LIMIT 1",
    )?;
    let share = select.query_row([id.0], |row| {
        Ok(KnownShare {
            pack: PackRow(row.get(0)?),
            stored_bytes: stored_bytes(row.get(1)?),
            dead: row.get(2)?,
        })
    });
    Ok(share.optional()?)
}

fn rows<P: rusqlite::Params>(conn: &Connection, query: &str, params: P) -> Result<Vec<PackRow>, DbError> {
    let mut select = conn.prepare_cached(query)?;
    let rows = select.query_map(params, |row| row.get(0).map(PackRow))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
