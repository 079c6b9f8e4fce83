//! Chunks on their way out of mostly dead packs: copied into a new pack, they are read where they were until the new one
//! is safe and an index section lists it. So nothing depends on shares that peers may never get.

use proto::cap_index::ChunkSlot;
use rusqlite::{Connection, Transaction, params};
use upload_queue::db::DbError;
use upload_queue::packs::{self, PackRow};

use super::{cbor, decoded, put_chunks};

/// Records a pack that such chunks were copied into.
pub fn begin(tx: &Transaction<'_>, pack: PackRow, slots: &[ChunkSlot]) -> Result<(), DbError> {
    tx.prepare_cached("INSERT INTO moving_pack VALUES (?1, ?2)")?
        .execute(params![pack.0, cbor(&slots.to_vec())])?;
    Ok(())
}

/// The packs that chunks are on their way into, ascending.
pub fn under_way(conn: &Connection) -> Result<Vec<PackRow>, DbError> {
    let mut query = conn.prepare_cached("SELECT pack FROM moving_pack ORDER BY pack")?;
    let rows = query.query_map([], |row| row.get(0).map(PackRow))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Has chunks read from the packs that they were copied into, of all such packs that are safe and listed; returns how many
/// were.
pub fn finish(tx: &Transaction<'_>, tolerate: u8) -> Result<usize, DbError> {
    let mut finished = 0;
    for pack in under_way(tx)? {
        let is_listed = !super::publish::unlisted_packs(tx)?.contains(&pack);
        if !is_listed || !packs::is_safe(tx, pack, tolerate)? {
            continue;
        }
        let slots: Vec<ChunkSlot> = tx
            .prepare_cached("SELECT slots FROM moving_pack WHERE pack = ?1")?
            .query_row([pack.0], |row| decoded(0, &row.get::<_, Vec<u8>>(0)?))?;
        put_chunks(tx, pack, &slots)?;
        tx.prepare_cached("DELETE FROM moving_pack WHERE pack = ?1")?
            .execute([pack.0])?;
        finished += 1;
    }
    Ok(finished)
}

#[cfg(test)]
mod tests {
    use proto::id::ChunkId;
    use upload_queue::db::Db;

    use super::*;
    use crate::catalog::MIGRATIONS;
    use crate::catalog::content::{add_chunks, chunk, publish};

    fn slot(offset: u32) -> ChunkSlot {
        ChunkSlot {
            id: ChunkId([7; 16]),
            offset,
            stored_len: 10,
            raw_len: 10,
        }
    }

    #[test]
    fn a_chunk_is_read_where_it_was_until_the_new_pack_is_safe_and_listed() {
        let db = Db::in_memory(MIGRATIONS).unwrap();
        let (old, new) = (PackRow(1), PackRow(2));
        let pack = || db.read(|conn| chunk(conn, slot(0).id)).unwrap().unwrap().pack;
        let held = |held: u8| {
            let insert = "INSERT OR REPLACE INTO pack VALUES (2, 3, ?1, 0, 0, 2, x'', x'')";
            db.write(|tx| tx.execute(insert, [held]).map_err(DbError::from))
                .unwrap()
        };
        let finish = || db.write(|tx| finish(tx, 2)).unwrap();
        db.write(|tx| {
            add_chunks(tx, old, &[slot(0)])?;
            publish::add_unlisted(tx, new, &[slot(500)])?;
            begin(tx, new, &[slot(500)])
        })
        .unwrap();
        held(5);
        assert_eq!((finish(), pack()), (0, old), "no index lists it");
        db.write(|tx| publish::list_pack(tx, new)).unwrap();
        held(4);
        assert_eq!(
            (finish(), pack()),
            (0, old),
            "the loss of two friends could be too much"
        );
        assert_eq!(db.read(under_way).unwrap(), [new]);
        held(5);
        assert_eq!((finish(), pack()), (1, new));
        assert_eq!(db.read(under_way).unwrap(), []);
    }
}
