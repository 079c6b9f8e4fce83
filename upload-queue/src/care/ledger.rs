//! Watch and rotas in the database, so that a restart forgets no silence and repeats no round.

use database::DbError;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::care::audit::Rota;
use crate::care::standing::{PeerRecord, Tally, Watch};
use crate::peers::PeerKey;

/// Columns of `care_peer` behind its key, in the order in which `record` reads them.
const COLUMNS: &str = "seen_secs, silent_secs, watched_secs, up_secs, success, failure, offline, left_open, unknown, \
                       sound, unsound, contained, late, proved_secs";

/// What is written into the column `late`, which says nothing any more.
const UNUSED: i64 = 0;

/// What is known of all peers.
pub fn watch(conn: &Connection) -> Result<Watch, DbError> {
    let looked = conn
        .query_row("SELECT looked_secs FROM care_watch WHERE id = 1", [], |row| {
            row.get::<_, i64>(0)
        })
        .optional()?;
    let mut select = conn.prepare_cached(&format!("SELECT {COLUMNS}, key FROM care_peer"))?;
    let rows = select.query_map([], |row| Ok((PeerKey(row.get(14)?), record(row)?)))?;
    Ok(Watch {
        peers: rows.collect::<Result<_, _>>()?,
        looked_secs: looked.map(i64::cast_unsigned),
    })
}

/// Keeps what is known of all peers.
pub fn set_watch(tx: &Transaction<'_>, watch: &Watch) -> Result<(), DbError> {
    if let Some(looked) = watch.looked_secs {
        tx.execute(
            "INSERT OR REPLACE INTO care_watch VALUES (1, ?1)",
            [looked.cast_signed()],
        )?;
    }
    for (key, record) in &watch.peers {
        set_record(tx, key, record)?;
    }
    Ok(())
}

/// When all shares were last looked after.
pub fn repaired_secs(conn: &Connection) -> Result<Option<u64>, DbError> {
    let secs = conn.query_row("SELECT repaired_secs FROM care_repair WHERE id = 1", [], |row| {
        row.get::<_, i64>(0)
    });
    Ok(secs.optional()?.map(i64::cast_unsigned))
}

/// Keeps when that was.
pub fn set_repaired_secs(tx: &Transaction<'_>, secs: u64) -> Result<(), DbError> {
    tx.execute(
        "INSERT OR REPLACE INTO care_repair VALUES (1, ?1)",
        [secs.cast_signed()],
    )?;
    Ok(())
}

/// Keeps what is known of one peer.
pub fn set_record(tx: &Transaction<'_>, key: &PeerKey, record: &PeerRecord) -> Result<(), DbError> {
    let tally = &record.tally;
    tx.prepare_cached(&format!(
        "INSERT OR REPLACE INTO care_peer (key, {COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)"
    ))?
    .execute(params![
        key.0,
        record.seen_secs.map(u64::cast_signed),
        record.silent_secs.cast_signed(),
        record.watched_secs,
        record.up_secs,
        tally.success.cast_signed(),
        tally.failure.cast_signed(),
        tally.offline.cast_signed(),
        tally.contained.cast_signed(),
        tally.unknown.cast_signed(),
        record.sound,
        record.unsound,
        record.contained,
        UNUSED,
        record.proved_secs.map(u64::cast_signed),
    ])?;
    Ok(())
}

fn record(row: &Row<'_>) -> rusqlite::Result<PeerRecord> {
    let number = |at: usize| row.get::<_, i64>(at).map(i64::cast_unsigned);
    let moment = |at: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(at)?.map(i64::cast_unsigned));
    Ok(PeerRecord {
        seen_secs: moment(0)?,
        silent_secs: number(1)?,
        watched_secs: row.get(2)?,
        up_secs: row.get(3)?,
        tally: Tally {
            success: number(4)?,
            failure: number(5)?,
            offline: number(6)?,
            contained: number(7)?,
            unknown: number(8)?,
        },
        sound: row.get(9)?,
        unsound: row.get(10)?,
        contained: row.get(11)?,
        proved_secs: moment(13)?,
    })
}

/// Where the audits of a peer stand, if there were any.
pub fn rota(conn: &Connection, key: &PeerKey) -> Result<Option<Rota>, DbError> {
    let mut select =
        conn.prepare_cached("SELECT secret, position, due_secs, closer, failed FROM care_rota WHERE key = ?1")?;
    let rota = select.query_row([&key.0], |row| {
        Ok(Rota {
            secret: row.get::<_, i64>(0)?.cast_unsigned(),
            position: row.get::<_, Option<i64>>(1)?.map(i64::cast_unsigned),
            due_secs: row.get::<_, i64>(2)?.cast_unsigned(),
            closer: row.get(3)?,
            failed: row.get(4)?,
        })
    });
    Ok(rota.optional()?)
}

/// Keeps where the audits of a peer stand.
pub fn set_rota(tx: &Transaction<'_>, key: &PeerKey, rota: &Rota) -> Result<(), DbError> {
    tx.prepare_cached("INSERT OR REPLACE INTO care_rota VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            key.0,
            rota.secret.cast_signed(),
            rota.position.map(u64::cast_signed),
            rota.due_secs.cast_signed(),
            rota.closer,
            rota.failed
        ])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::care::audit::{Outcome, Pace};
    use crate::care::standing::Patience;
    use database::Db;

    #[test]
    fn what_is_known_of_peers_comes_back() {
        let db = Db::in_memory(crate::schema::MIGRATIONS).unwrap();
        assert_eq!(db.read(watch).unwrap(), Watch::default());
        let (a, b) = (PeerKey("a".into()), PeerKey("b".into()));
        let mut known = Watch::default();
        for hour in 0..100 {
            known.look(
                hour * 3600,
                &[(a.clone(), hour < 50), (b.clone(), true)],
                &Patience::default(),
            );
        }
        known.audited(&b, 7, 64, &Outcome::Contained);
        known.audited(
            &a,
            8,
            64,
            &Outcome::Failure {
                missing: Vec::new(),
                damaged: Vec::new(),
            },
        );
        db.write(|tx| set_watch(tx, &known)).unwrap();
        assert_eq!(db.read(watch).unwrap(), known);

        let mut rota = Rota::new(5, &Pace::default(), u64::MAX);
        assert_eq!(db.read(|conn| super::rota(conn, &a)).unwrap(), None);
        rota.position = Some(u64::MAX - 1);
        db.write(|tx| set_rota(tx, &a, &rota)).unwrap();
        assert_eq!(db.read(|conn| super::rota(conn, &a)).unwrap(), Some(rota));
    }
}
