//! What the database says is in the spool, and for whom.

use database::DbError;
use rusqlite::Connection;

use crate::packs::stored_bytes;
use crate::peers::PeerKey;

/// Shares in the spool that wait for one peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spooled {
    /// Which; none: for any that has room.
    pub peer: Option<PeerKey>,
    /// How many.
    pub shares: u64,
    /// Their bytes, in stored form.
    pub bytes: u64,
}

/// What waits in the spool, by peer, the most first.
pub fn spooled_by_peer(conn: &Connection) -> Result<Vec<Spooled>, DbError> {
    let mut select = conn.prepare_cached(
        "SELECT peer.key, pack.share_bytes, count(*)
         FROM share JOIN pack ON pack.id = share.pack LEFT JOIN peer ON peer.id = share.planned
         WHERE share.spooled = 1 GROUP BY peer.key, pack.share_bytes",
    )?;
    let rows = select.query_map([], |row| {
        let peer: Option<String> = row.get(0)?;
        Ok((peer.map(PeerKey), row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    })?;
    let mut all: Vec<Spooled> = Vec::new();
    for row in rows {
        let (peer, data_bytes, count) = row?;
        let (shares, bytes) = (count as u64, stored_bytes(data_bytes) * count as u64);
        match all.iter_mut().find(|known| known.peer == peer) {
            Some(known) => (known.shares, known.bytes) = (known.shares + shares, known.bytes + bytes),
            None => all.push(Spooled { peer, shares, bytes }),
        }
    }
    all.sort_by_key(|known| std::cmp::Reverse(known.bytes));
    Ok(all)
}
