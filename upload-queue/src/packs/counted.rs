//! Shares as they count: only what a peer that is still one holds, and what the spool still has.
//!
//! Says how many losses a pack survives, for whoever tells the owner. What is lost the view `lost_pack` defines; here it is asked
//! of fewer holders than are recorded, and a test holds the two together.

use std::collections::HashMap;

use database::DbError;
use rusqlite::{Connection, OptionalExtension};

use super::{PackRow, Purpose, purpose};
use crate::peers::PeerKey;

/// A pack's shares, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counted {
    /// What it carries.
    pub purpose: Purpose,
    /// Shares needed to read it.
    pub needed: u32,
    /// Shares that peers hold.
    pub held: u32,
    /// Shares that wait in the spool.
    pub spooled: u32,
}

impl Counted {
    /// Losses that it survives; `None`: it cannot be read from peers.
    pub fn tolerates(&self) -> Option<u32> {
        self.held.checked_sub(self.needed)
    }

    /// As the view `lost_pack` has it, of the holders that were counted: only the files themselves can bring it back.
    pub fn is_lost(&self) -> bool {
        self.held + self.spooled < self.needed
    }
}

/// Counts packs, without the shares at peers that are none any more.
#[derive(Clone, Debug, Default)]
pub struct Counter {
    gone: HashMap<PackRow, u32>,
}

impl Counter {
    /// `is_known` says who still is a peer.
    pub fn new(conn: &Connection, is_known: &dyn Fn(&PeerKey) -> bool) -> Result<Self, DbError> {
        let mut peers = conn.prepare_cached("SELECT id, key FROM peer")?;
        let mut held = conn.prepare_cached("SELECT pack, count(*) FROM share WHERE holder = ?1 GROUP BY pack")?;
        let rows = peers.query_map([], |row| Ok((row.get::<_, i64>(0)?, PeerKey(row.get(1)?))))?;
        let mut gone: HashMap<PackRow, u32> = HashMap::new();
        for row in rows {
            let (id, key) = row?;
            if is_known(&key) {
                continue;
            }
            let packs = held.query_map([id], |row| Ok((PackRow(row.get(0)?), row.get::<_, u32>(1)?)))?;
            for pack in packs {
                let (pack, shares) = pack?;
                *gone.entry(pack).or_default() += shares;
            }
        }
        Ok(Self { gone })
    }

    /// One pack; `None` if there is none in this row.
    pub fn count(&self, conn: &Connection, row: PackRow) -> Result<Option<Counted>, DbError> {
        let mut select = conn.prepare_cached(
            "SELECT purpose, k, held, (SELECT count(*) FROM share WHERE share.pack = pack.id AND spooled = 1 AND holder IS NULL)
             FROM pack WHERE id = ?1",
        )?;
        let counted = select.query_row([row.0], |found| {
            let held: u32 = found.get(2)?;
            Ok(Counted {
                purpose: purpose(found.get(0)?),
                needed: found.get(1)?,
                held: held.saturating_sub(self.gone.get(&row).copied().unwrap_or(0)),
                spooled: found.get(3)?,
            })
        });
        Ok(counted.optional()?)
    }

    /// Packs, not dead, that do not survive the loss of `tolerate` shares.
    pub fn weak(&self, conn: &Connection, tolerate: u8) -> Result<HashMap<PackRow, Counted>, DbError> {
        let mut select =
            conn.prepare_cached("SELECT id FROM pack WHERE held < k + ?1 AND id NOT IN (SELECT pack FROM dead_pack)")?;
        let rows = select.query_map([tolerate], |row| row.get(0).map(PackRow))?;
        let mut rows: Vec<PackRow> = rows.collect::<Result<_, _>>()?;
        let mut is_dead = conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM dead_pack WHERE pack = ?1)")?;
        for row in self.gone.keys() {
            if !is_dead.query_row([row.0], |row| row.get::<_, bool>(0))? {
                rows.push(*row);
            }
        }
        let mut weak = HashMap::new();
        for row in rows {
            let counted = self.count(conn, row)?;
            let is_weak = |counted: &Counted| counted.held < counted.needed + u32::from(tolerate);
            weak.extend(counted.filter(is_weak).map(|counted| (row, counted)));
        }
        Ok(weak)
    }

    /// Fewest losses that any pack survives which can be read and is not dead; `None` if there is no such pack.
    pub fn tolerates(&self, conn: &Connection) -> Result<Option<u32>, DbError> {
        let mut select = conn.prepare_cached(
            "SELECT id, k, held FROM pack WHERE held >= k AND id NOT IN (SELECT pack FROM dead_pack)",
        )?;
        let mut rows = select.query([])?;
        let mut fewest: Option<u32> = None;
        while let Some(row) = rows.next()? {
            let gone = self.gone.get(&PackRow(row.get(0)?)).copied().unwrap_or(0);
            let survives = row.get::<_, u32>(2)?.checked_sub(gone + row.get::<_, u32>(1)?);
            fewest = fewest.into_iter().chain(survives).min();
        }
        Ok(fewest)
    }
}

/// All peers that anything was ever recorded of.
pub fn peers(conn: &Connection) -> Result<Vec<PeerKey>, DbError> {
    let mut select = conn.prepare_cached("SELECT key FROM peer ORDER BY key")?;
    let keys = select.query_map([], |row| row.get(0).map(PeerKey))?;
    Ok(keys.collect::<Result<_, _>>()?)
}

/// The peers that shares in the spool are meant for.
pub fn waited_for(conn: &Connection) -> Result<Vec<PeerKey>, DbError> {
    let mut select = conn.prepare_cached(
        "SELECT key FROM peer WHERE id IN (SELECT planned FROM share WHERE spooled = 1) ORDER BY key",
    )?;
    let keys = select.query_map([], |row| row.get(0).map(PeerKey))?;
    Ok(keys.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::packs::{insert_known, record_held, set_dead};
    use database::Db;

    fn peer(number: usize) -> PeerKey {
        PeerKey(format!("friend:{number}"))
    }

    /// Packs of 2 of 4 shares, of which the first peers hold so many each.
    fn packs(held: &[usize]) -> (Db, Vec<PackRow>) {
        let db = Db::in_memory(crate::schema::MIGRATIONS).unwrap();
        let mut rows = Vec::new();
        for (seed, held) in (1..).zip(held) {
            let pack = fixture::pack(seed, 2, 4);
            let recorded = db.write::<_, DbError>(|tx| {
                for (number, (id, _)) in pack.shares[..*held].iter().enumerate() {
                    insert_known(tx, &pack.record, &pack.manifest, pack.purpose)?;
                    record_held(tx, &peer(number), &[*id])?;
                }
                insert_known(tx, &pack.record, &pack.manifest, pack.purpose)
            });
            rows.push(recorded.unwrap());
        }
        (db, rows)
    }

    #[test]
    fn shares_at_who_is_no_peer_any_more_do_not_count() {
        let (db, rows) = packs(&[4, 3, 1]);
        let seen = |gone: &[usize]| {
            db.read::<_, DbError>(|conn| {
                let counter = Counter::new(conn, &|key| gone.iter().all(|number| peer(*number) != *key))?;
                let mut weak: Vec<(PackRow, u32, bool)> = counter
                    .weak(conn, 1)?
                    .into_iter()
                    .map(|(row, counted)| (row, counted.held, counted.is_lost()))
                    .collect();
                weak.sort_unstable();
                Ok((weak, counter.tolerates(conn)?))
            })
            .unwrap()
        };
        assert_eq!(seen(&[]), (vec![(rows[2], 1, true)], Some(1)));
        assert_eq!(seen(&[1]).0, [(rows[1], 2, false), (rows[2], 1, true)]);
        assert_eq!(seen(&[1]).1, Some(0));
        let (weak, tolerates) = seen(&[0, 1, 2]);
        assert_eq!(weak, [(rows[0], 1, true), (rows[1], 0, true), (rows[2], 0, true)]);
        assert_eq!(tolerates, None);
    }

    #[test]
    fn what_is_lost_is_what_the_view_calls_so() {
        let held = [0, 1, 2, 3, 4];
        for spooled in 0..=4 {
            let (db, rows) = packs(&held);
            for (row, held) in rows.iter().zip(held) {
                let spool = |tx: &rusqlite::Transaction<'_>| {
                    let free = (held..4).take(spooled);
                    free.map(|index| crate::packs::shares::respool(tx, *row, index as u8, &peer(9)))
                        .collect::<Result<Vec<_>, _>>()
                };
                db.write(spool).unwrap();
                let (counted, viewed) = db
                    .read::<_, DbError>(|conn| {
                        let counted = Counter::new(conn, &|_| true)?.count(conn, *row)?.unwrap();
                        Ok((counted, crate::packs::is_lost(conn, *row)?))
                    })
                    .unwrap();
                assert_eq!(counted.is_lost(), viewed, "{held} held, {spooled} spooled");
            }
        }
    }

    #[test]
    fn dead_packs_are_nobodys_trouble() {
        let (db, rows) = packs(&[1]);
        db.write::<_, DbError>(|tx| set_dead(tx, &rows, 0)).unwrap();
        let weak = db
            .read::<_, DbError>(|conn| Counter::new(conn, &|_| false)?.weak(conn, 2))
            .unwrap();
        assert!(weak.is_empty());
    }
}
