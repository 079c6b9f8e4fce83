//! Packs that nothing wants any more. Which they are is not known here.

use database::DbError;
use proto::id::ShareId;
use rusqlite::{Connection, OptionalExtension, Transaction};

use super::{KnownPack, PackRow, Purpose, stored_bytes};

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

/// Packs of disks that nothing wants, of which no share is on its way any more.
pub fn dead_of_disks(conn: &Connection) -> Result<Vec<KnownPack>, DbError> {
    let dead = rows(
        conn,
        "SELECT pack.id FROM pack JOIN dead_pack ON dead_pack.pack = pack.id
         WHERE pack.purpose = ? AND NOT EXISTS (SELECT 1 FROM share WHERE share.pack = pack.id AND share.spooled = 1)
         ORDER BY pack.id",
        [Purpose::Disk as i64],
    )?;
    let known = dead.into_iter().map(|row| super::get(conn, row));
    Ok(known.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Forgets the packs of disks that nothing wants and of which nobody is known to have a share: unlike those of backups they never come
/// back. How many are left that nothing wants.
pub fn forget_gone_of_disks(tx: &Transaction<'_>) -> Result<u64, DbError> {
    let gone = dead_of_disks(tx)?.into_iter().filter(|known| known.held() == 0);
    for known in gone {
        forget(tx, known.row)?;
    }
    let mut left = tx.prepare_cached(
        "SELECT count(*) FROM pack JOIN dead_pack ON dead_pack.pack = pack.id WHERE pack.purpose = ?",
    )?;
    let left: i64 = left.query_row([Purpose::Disk as i64], |row| row.get(0))?;
    Ok(left.unsigned_abs())
}

/// Forgets packs, whoever has shares of them, but for those of which a share is on its way. How many were forgotten.
pub fn forget_arrived(tx: &Transaction<'_>, packs: &[PackRow]) -> Result<u64, DbError> {
    let mut is_on_its_way = tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM share WHERE pack = ?1 AND spooled = 1)")?;
    let mut forgotten = 0;
    for pack in packs {
        if !is_on_its_way.query_row([pack.0], |row| row.get::<_, bool>(0))? {
            forget(tx, *pack)?;
            forgotten += 1;
        }
    }
    Ok(forgotten)
}

fn forget(tx: &Transaction<'_>, pack: PackRow) -> Result<(), DbError> {
    for statement in [
        "DELETE FROM dead_pack WHERE pack = ?",
        "DELETE FROM share WHERE pack = ?",
        "DELETE FROM pack WHERE id = ?",
    ] {
        tx.prepare_cached(statement)?.execute([pack.0])?;
    }
    Ok(())
}

/// Bytes of the shares, in stored form, that peers hold of these packs.
pub fn bytes_held(conn: &Connection, packs: &[PackRow]) -> Result<u64, DbError> {
    let mut select = conn.prepare_cached("SELECT share_bytes, held FROM pack WHERE id = ?1")?;
    let mut bytes = 0;
    for pack in packs {
        let sizes = select.query_row([pack.0], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, u32>(1)?)));
        let held = sizes
            .optional()?
            .map(|(share, held)| stored_bytes(share) * u64::from(held));
        bytes += held.unwrap_or(0);
    }
    Ok(bytes)
}

/// Packs of disks that do not survive so many losses, but for those that are lost or that nothing wants.
pub fn unsafe_of_disks(conn: &Connection, tolerate: u8) -> Result<Vec<PackRow>, DbError> {
    rows(
        conn,
        "SELECT id FROM pack WHERE purpose = ?1 AND held < k + ?2
         AND NOT EXISTS (SELECT 1 FROM dead_pack WHERE dead_pack.pack = pack.id)
         AND NOT EXISTS (SELECT 1 FROM lost_pack WHERE lost_pack.pack = pack.id) ORDER BY id",
        [Purpose::Disk as i64, i64::from(tolerate)],
    )
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
