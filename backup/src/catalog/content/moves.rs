//! Chunks on their way out of mostly dead packs: copied into a new pack, they are read where they were until the new one
//! is safe and an index section lists it. So nothing depends on shares that peers may never get.

use database::DbError;
use proto::cap_index::ChunkSlot;
use rusqlite::{Connection, Transaction, params};
use upload_queue::packs;
use upload_queue::packs::PackRow;

use super::{cbor, decoded, post, put_chunks};

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
/// were. A pack that was lost on its way is forgotten: its chunks are still where they were.
pub fn finish(tx: &Transaction<'_>, tolerate: u8) -> Result<usize, DbError> {
    let mut finished = 0;
    let unlisted = post::unlisted_packs(tx)?;
    for pack in under_way(tx)? {
        if packs::is_lost(tx, pack)? {
            post::list_pack(tx, pack)?; // never, so that it is not waited for
        } else if packs::is_safe(tx, pack, tolerate)? && !unlisted.contains(&pack) {
            put_chunks(tx, pack, &slots(tx, pack)?)?;
            finished += 1;
        } else {
            continue;
        }
        tx.prepare_cached("DELETE FROM moving_pack WHERE pack = ?1")?
            .execute([pack.0])?;
    }
    Ok(finished)
}

fn slots(conn: &Connection, pack: PackRow) -> Result<Vec<ChunkSlot>, DbError> {
    let mut query = conn.prepare_cached("SELECT slots FROM moving_pack WHERE pack = ?1")?;
    Ok(query.query_row([pack.0], |row| decoded(0, &row.get::<_, Vec<u8>>(0)?))?)
}

#[cfg(test)]
mod tests {
    use database::Db;
    use proto::id::ChunkId;

    use super::*;
    use crate::catalog::MIGRATIONS;
    use crate::catalog::content::{add_chunks, chunk};

    fn slot(offset: u32) -> ChunkSlot {
        ChunkSlot {
            id: ChunkId([7; 16]),
            offset,
            stored_len: 10,
            raw_len: 10,
        }
    }

    const OLD: PackRow = PackRow(1);
    const NEW: PackRow = PackRow(2);

    /// A catalog with a chunk on its way from the old pack to the new one, of which peers hold so many shares.
    fn catalog(held: u8) -> Db {
        let db = Db::in_memory(MIGRATIONS).unwrap();
        db.write(|tx| {
            add_chunks(tx, OLD, &[slot(0)])?;
            post::add_unlisted(tx, NEW, &[slot(500)])?;
            begin(tx, NEW, &[slot(500)])
        })
        .unwrap();
        hold(&db, held);
        db
    }

    fn hold(db: &Db, held: u8) {
        let insert = "INSERT OR REPLACE INTO pack VALUES (2, 3, ?1, 0, 0, 2, x'', x'')";
        db.write(|tx| tx.execute(insert, [held]).map_err(DbError::from))
            .unwrap();
    }

    /// How many packs were finished, and where the chunk is read now.
    fn finished(db: &Db) -> (usize, PackRow) {
        let finished = db.write(|tx| finish(tx, 2)).unwrap();
        (finished, db.read(|conn| chunk(conn, slot(0).id)).unwrap().unwrap().pack)
    }

    #[test]
    fn a_chunk_is_read_where_it_was_until_the_new_pack_is_safe_and_listed() {
        let db = catalog(5);
        assert_eq!(finished(&db), (0, OLD), "no index lists it");
        db.write(|tx| post::list_pack(tx, NEW)).unwrap();
        hold(&db, 4);
        assert_eq!(finished(&db), (0, OLD), "the loss of two friends could be too much");
        assert_eq!(db.read(under_way).unwrap(), [NEW]);
        hold(&db, 5);
        assert_eq!(finished(&db), (1, NEW));
        assert_eq!(db.read(under_way).unwrap(), []);
    }

    #[test]
    fn a_pack_that_is_lost_on_its_way_is_not_waited_for() {
        let db = catalog(2);
        let spool = "INSERT INTO share VALUES (2, 4, x'', NULL, NULL, ?1)";
        db.write(|tx| tx.execute(spool, [1]).map_err(DbError::from)).unwrap();
        assert_eq!(finished(&db), (0, OLD));
        assert_eq!(db.read(under_way).unwrap(), [NEW], "the spool has it");
        db.write(|tx| tx.execute("DELETE FROM share", []).map_err(DbError::from))
            .unwrap();
        assert_eq!(finished(&db), (0, OLD));
        assert_eq!(db.read(under_way).unwrap(), []);
        assert_eq!(db.read(post::unlisted_packs).unwrap(), []);
    }
}
