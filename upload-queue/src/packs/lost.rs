//! Packs that cannot be read any more: peers that are counted on and the spool together have fewer than k of their shares.
//!
//! The view `lost_pack` is the one definition. What was in such a pack, and whether it can be had elsewhere, is not known here.

use std::collections::{HashMap, HashSet};

use database::DbError;
use proto::id::ShareId;
use rusqlite::{Connection, Transaction};

use super::{PackRow, Purpose, forget_holder};
use crate::peers::PeerKey;

/// Lost packs that carry this, ascending.
pub fn lost(conn: &Connection, purpose: Purpose) -> Result<Vec<PackRow>, DbError> {
    let mut select = conn.prepare_cached("SELECT pack FROM lost_pack WHERE purpose = ?1 ORDER BY pack")?;
    let rows = select.query_map([purpose as i64], |row| row.get(0).map(PackRow))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether a pack is lost.
pub fn is_lost(conn: &Connection, row: PackRow) -> Result<bool, DbError> {
    let mut select = conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM lost_pack WHERE pack = ?1)")?;
    Ok(select.query_row([row.0], |row| row.get(0))?)
}

/// Packs that would be lost if these peers were no more, and are not yet; ascending.
pub fn lost_without(conn: &Connection, peers: &HashSet<PeerKey>) -> Result<Vec<PackRow>, DbError> {
    let mut select = conn.prepare_cached(
        "SELECT pack.id, pack.k, pack.held + (
             SELECT count(*) FROM share WHERE share.pack = pack.id AND share.spooled = 1 AND share.holder IS NULL
         ) FROM pack WHERE id NOT IN (SELECT pack FROM dead_pack) ORDER BY id",
    )?;
    let theirs = shares_of(conn, peers)?;
    let mut lost = Vec::new();
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (id, k, there): (i64, u64, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let gone = theirs.get(&id).copied().unwrap_or(0);
        if there >= k && there.saturating_sub(gone) < k {
            lost.push(PackRow(id));
        }
    }
    Ok(lost)
}

/// Of each pack that is not dead, how many shares these peers hold.
fn shares_of(conn: &Connection, peers: &HashSet<PeerKey>) -> Result<HashMap<i64, u64>, DbError> {
    let mut counts = HashMap::new();
    let mut select = conn.prepare_cached(
        "SELECT share.pack FROM peer JOIN share ON share.holder = peer.id
         WHERE peer.key = ?1 AND share.pack NOT IN (SELECT pack FROM dead_pack)",
    )?;
    for peer in peers {
        let packs = select.query_map([&peer.0], |row| row.get::<_, i64>(0))?;
        for pack in packs {
            *counts.entry(pack?).or_insert(0) += 1;
        }
    }
    Ok(counts)
}

/// Shares due of all packs that are not dead: n of each, for ever.
pub fn shares_due(conn: &Connection) -> Result<u64, DbError> {
    let mut select =
        conn.prepare_cached("SELECT count(*) FROM share WHERE pack NOT IN (SELECT pack FROM dead_pack)")?;
    Ok(select.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned())
}

/// Shares of packs that are not dead, by who is believed to hold them.
pub fn held_by_all(conn: &Connection) -> Result<Vec<(PeerKey, u64)>, DbError> {
    let mut select = conn.prepare_cached(
        "SELECT peer.key, count(*) FROM peer JOIN share ON share.holder = peer.id
         WHERE share.pack NOT IN (SELECT pack FROM dead_pack) GROUP BY peer.id ORDER BY peer.key",
    )?;
    let counts = select.query_map([], |row| {
        Ok((PeerKey(row.get(0)?), row.get::<_, i64>(1)?.cast_unsigned()))
    })?;
    Ok(counts.collect::<Result<_, _>>()?)
}

/// Peers that are believed to hold anything.
pub fn holders(conn: &Connection) -> Result<Vec<PeerKey>, DbError> {
    let mut select = conn.prepare_cached(
        "SELECT key FROM peer WHERE EXISTS (SELECT 1 FROM share WHERE share.holder = peer.id) ORDER BY key",
    )?;
    let keys = select.query_map([], |row| row.get(0).map(PeerKey))?;
    Ok(keys.collect::<Result<_, _>>()?)
}

/// Forgets what those holders have that `is_gone` says are peers no longer. Returns each with the shares it was counted for.
pub fn forget_holders(
    tx: &Transaction<'_>,
    is_gone: impl Fn(&PeerKey) -> bool,
) -> Result<Vec<(PeerKey, u64)>, DbError> {
    let gone = holders(tx)?.into_iter().filter(|holder| is_gone(holder));
    let forgotten = gone.map(|holder| {
        let shares = forget_holder(tx, &holder)?;
        Ok((holder, shares))
    });
    forgotten.collect()
}

/// Packs that are not dead and survive the loss of fewer than `tolerate` holders, ascending.
pub fn unsafe_rows(conn: &Connection, tolerate: u8) -> Result<Vec<PackRow>, DbError> {
    let mut select = conn.prepare_cached(
        "SELECT id FROM pack WHERE held < k + ?1 AND id NOT IN (SELECT pack FROM dead_pack) ORDER BY id",
    )?;
    let rows = select.query_map([tolerate], |row| row.get(0).map(PackRow))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A peer gave a share that it was not believed to have, and it was as it should be: its word counts again.
pub fn believe(tx: &Transaction<'_>, peer: &PeerKey, share: ShareId) -> Result<(), DbError> {
    tx.prepare_cached("DELETE FROM care_bad WHERE key = ?1 AND share_id = ?2")?
        .execute((&peer.0, share.0))?;
    Ok(())
}

/// The spool turned out not to have this share: it is on no way any more.
pub fn forget_spooled(tx: &Transaction<'_>, share: ShareId) -> Result<(), DbError> {
    tx.prepare_cached("UPDATE share SET spooled = 0 WHERE share_id = ?1 AND spooled = 1")?
        .execute([share.0])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packs::{insert_known, record_held, set_alive, set_dead};
    use crate::{fixture, packs};
    use database::Db;

    fn peer(number: usize) -> PeerKey {
        PeerKey(format!("dir:{number}"))
    }

    /// A catalog with one pack of k = 2 and n = 4, held by as many peers.
    fn catalog(held: usize) -> (Db, PackRow, Vec<ShareId>) {
        let db = Db::in_memory(crate::schema::MIGRATIONS).unwrap();
        let pack = fixture::pack(1, 2, 4);
        let ids: Vec<ShareId> = pack.shares.iter().map(|(id, _)| *id).collect();
        let row = db
            .write(|tx| {
                let row = insert_known(tx, &pack.record, &pack.manifest, Purpose::Data)?;
                for (number, id) in ids.iter().take(held).enumerate() {
                    record_held(tx, &peer(number), &[*id])?;
                }
                Ok::<_, DbError>(row)
            })
            .unwrap();
        (db, row, ids)
    }

    fn spool(db: &Db, row: PackRow, count: u8) {
        db.write::<_, DbError>(|tx| {
            for index in 0..count {
                packs::shares::respool(tx, row, 3 - index, &peer(9))?;
            }
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_pack_is_lost_below_k_shares_at_peers_and_in_the_spool_together_and_never_when_nothing_wants_it() {
        for held in 0..=2 {
            for spooled in 0..=2 {
                let (db, row, _) = catalog(held);
                spool(&db, row, spooled);
                let expected = held + usize::from(spooled) < 2;
                let found = db.read(|conn| Ok::<_, DbError>((is_lost(conn, row)?, lost(conn, Purpose::Data)?)));
                let (is_lost, rows) = found.unwrap();
                assert_eq!(is_lost, expected, "{held} held, {spooled} spooled");
                assert_eq!(rows, if expected { vec![row] } else { vec![] });
                assert!(db.read(|conn| lost(conn, Purpose::Metadata)).unwrap().is_empty());
                db.write(|tx| set_dead(tx, &[row], 0)).unwrap();
                assert!(db.read(|conn| lost(conn, Purpose::Data)).unwrap().is_empty());
                db.write(|tx| set_alive(tx, &[row])).unwrap();
            }
        }
    }

    #[test]
    fn a_share_that_is_both_held_and_spooled_counts_once() {
        let (db, row, ids) = catalog(0);
        spool(&db, row, 1);
        db.write(|tx| record_held(tx, &peer(9), &[ids[3]])).unwrap();
        assert!(db.read(|conn| super::is_lost(conn, row)).unwrap());
    }

    #[test]
    fn what_would_be_lost_without_some_peers_is_what_is_lost_when_they_are_forgotten() {
        for held in 0..=4 {
            for gone in 0..=held {
                let (db, row, _) = catalog(held);
                let peers: HashSet<PeerKey> = (0..gone).map(peer).collect();
                let foretold = db.read(|conn| lost_without(conn, &peers)).unwrap();
                let was_lost = db.read(|conn| is_lost(conn, row)).unwrap();
                let forgotten = db.write(|tx| forget_holders(tx, |key| peers.contains(key))).unwrap();
                assert_eq!(forgotten.len(), gone);
                let is_lost = db.read(|conn| is_lost(conn, row)).unwrap();
                assert_eq!(!foretold.is_empty(), is_lost && !was_lost, "{held} held, {gone} gone");
                assert_eq!(db.read(holders).unwrap().len(), held - gone);
                assert_eq!(db.read(shares_due).unwrap(), 4, "n shares are due for ever");
                assert_eq!(db.read(held_by_all).unwrap().len(), held - gone);
            }
        }
    }

    #[test]
    fn a_peer_s_word_counts_again_once_its_share_was_read_well() {
        let (db, row, ids) = catalog(2);
        db.write(|tx| packs::record_lost(tx, &peer(0), ids[0])).unwrap();
        assert!(db.read(|conn| is_lost(conn, row)).unwrap());
        assert_eq!(db.read(|conn| packs::not_believed(conn, &peer(0))).unwrap(), [ids[0]]);
        db.write::<_, DbError>(|tx| {
            believe(tx, &peer(0), ids[0])?;
            record_held(tx, &peer(0), &[ids[0]]).map(drop)
        })
        .unwrap();
        assert!(!db.read(|conn| is_lost(conn, row)).unwrap());
        assert!(db.read(|conn| packs::not_believed(conn, &peer(0))).unwrap().is_empty());
    }
}
