//! What is known of the account's heads: whose backups are here, what peers were last seen to hold.
//!
//! Of a device there may be heads on the grid that this catalog knows nothing of: another machine's, or this one's own when
//! its home was turned back. Asking peers is `crate::heads`' part.

use std::collections::{BTreeMap, BTreeSet};

use database::DbError;
use proto::id::{DeviceId, HeadHash};
use proto::root::{DEVICE_NAME_BYTES_MAX, Root, TAKEN_DEVICES_MAX, TAKEN_HEADS_MAX, TakenDevice, UNREAD_HEADS_MAX};
use rusqlite::{Connection, OptionalExtension, Transaction};
use upload_queue::peers::PeerKey;

use super::{content, tree};

/// A head as a peer was last seen to hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenHead {
    /// Who holds it.
    pub peer: PeerKey,
    /// Whose it is.
    pub device: DeviceId,
    /// Which it is.
    pub hash: HeadHash,
    /// Its number.
    pub seq: u64,
    /// When its newest snapshot was made, nanoseconds since 1970.
    pub made_ns: Option<i64>,
}

/// A device of the account, not this one, that has backups which are not in this catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherDevice {
    /// Which.
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// The number of its newest head.
    pub seq: u64,
    /// When its newest snapshot was made, nanoseconds since 1970.
    pub made_ns: Option<i64>,
}

/// Replaces what a peer was last seen to hold.
pub fn see(tx: &Transaction<'_>, peer: &PeerKey, heads: &[SeenHead]) -> Result<(), DbError> {
    tx.prepare_cached("DELETE FROM head_seen WHERE peer = ?")?
        .execute([&peer.0])?;
    let mut insert = tx.prepare_cached("INSERT OR REPLACE INTO head_seen VALUES (?, ?, ?, ?, ?)")?;
    for head in heads {
        insert.execute((&peer.0, head.device.0, head.hash.0, head.seq, head.made_ns))?;
    }
    Ok(())
}

/// All heads that peers were last seen to hold.
pub fn seen(conn: &Connection) -> Result<Vec<SeenHead>, DbError> {
    let mut query =
        conn.prepare_cached("SELECT peer, device, hash, seq, made_ns FROM head_seen ORDER BY device, seq")?;
    let rows = query.query_map([], |row| {
        Ok(SeenHead {
            peer: PeerKey(row.get(0)?),
            device: DeviceId(row.get(1)?),
            hash: HeadHash(row.get(2)?),
            seq: row.get(3)?,
            made_ns: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The number and the hash of the newest head that this device made, as this catalog knows it.
pub fn newest_own(conn: &Connection, own: DeviceId) -> Result<Option<(u64, HeadHash)>, DbError> {
    let Some(posted) = content::posted(conn)? else {
        return Ok(None);
    };
    let is_own = proto::head::Head::decode(&posted.head).is_ok_and(|head| head.device() == own);
    Ok(is_own.then_some((posted.seq, HeadHash(posted.hash))))
}

/// Heads of this device that peers hold and that its catalog knows nothing of: its home is older than they are, or a copy of
/// the home is at work. The newest last.
pub fn ahead(conn: &Connection, own: DeviceId) -> Result<Vec<SeenHead>, DbError> {
    let known = newest_own(conn, own)?;
    let mut taken = taken(conn)?;
    // Those were decided on: they are taken in when they can be read.
    taken.extend(set_aside_hashes(conn)?);
    let mut ahead = seen(conn)?;
    ahead.retain(|head| {
        let is_news = known.is_none_or(|(seq, hash)| head.seq >= seq && head.hash != hash);
        head.device == own && is_news && !taken.contains(&head.hash)
    });
    Ok(ahead)
}

fn set_aside_hashes(conn: &Connection) -> Result<Vec<HeadHash>, DbError> {
    let mut query = conn.prepare_cached("SELECT hash FROM unread_head")?;
    let hashes = query.query_map([], |row| row.get(0).map(HeadHash))?;
    Ok(hashes.collect::<Result<_, _>>()?)
}

/// Devices with backups that are not in this catalog, as those who are peers were last seen to hold them.
pub fn others(
    conn: &Connection,
    own: DeviceId,
    is_peer: &dyn Fn(&PeerKey) -> bool,
) -> Result<Vec<OtherDevice>, DbError> {
    let taken = taken(conn)?;
    let adopted = content::posted(conn)?.map(|posted| HeadHash(posted.hash));
    let all = newest_of_others(conn, own, is_peer)?;
    let unknown = all
        .into_iter()
        .filter(|(hash, _)| !taken.contains(hash) && adopted != Some(*hash));
    Ok(unknown.map(|(_, other)| other).collect())
}

/// Devices whose newest heads say what must not be given up, whether it is in this catalog or not: all others, but for those that
/// are gone for good.
pub fn guarded(
    conn: &Connection,
    own: DeviceId,
    is_peer: &dyn Fn(&PeerKey) -> bool,
) -> Result<Vec<OtherDevice>, DbError> {
    let mut released = conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM released_device WHERE id = ?1)")?;
    let mut guarded = Vec::new();
    for (_, other) in newest_of_others(conn, own, is_peer)? {
        if !released.query_row([other.device.0], |row| row.get::<_, bool>(0))? {
            guarded.push(other);
        }
    }
    Ok(guarded)
}

/// A machine is gone for good: what only its heads lead to may be given up.
pub fn release(tx: &Transaction<'_>, device: DeviceId) -> Result<(), DbError> {
    tx.prepare_cached("INSERT OR IGNORE INTO released_device VALUES (?1)")?
        .execute([device.0])?;
    Ok(())
}

fn newest_of_others(
    conn: &Connection,
    own: DeviceId,
    is_peer: &dyn Fn(&PeerKey) -> bool,
) -> Result<Vec<(HeadHash, OtherDevice)>, DbError> {
    let names = names(conn)?;
    let mut newest: BTreeMap<DeviceId, SeenHead> = BTreeMap::new();
    let of_others = |head: &SeenHead| head.device != own && is_peer(&head.peer);
    for head in seen(conn)?.into_iter().filter(of_others) {
        newest.insert(head.device, head); // ascending by number
    }
    let others = newest.into_values().map(|head| {
        let other = OtherDevice {
            name: names.get(&head.device).cloned().unwrap_or_else(|| head.device.short()),
            device: head.device,
            seq: head.seq,
            made_ns: head.made_ns,
        };
        (head.hash, other)
    });
    Ok(others.collect())
}

/// Records that the backups which a head leads to are in this catalog.
pub fn take(tx: &Transaction<'_>, device: DeviceId, head: HeadHash) -> Result<(), DbError> {
    tx.prepare_cached("INSERT OR REPLACE INTO taken_head (hash, device) VALUES (?, ?)")?
        .execute((head.0, device.0))?;
    Ok(())
}

/// The heads that were taken over.
pub fn taken(conn: &Connection) -> Result<BTreeSet<HeadHash>, DbError> {
    let mut query = conn.prepare_cached("SELECT hash FROM taken_head")?;
    let hashes = query.query_map([], |row| row.get(0).map(HeadHash))?;
    Ok(hashes.collect::<Result<_, _>>()?)
}

/// The heads that were taken over, in that order, with whose they are.
pub(crate) fn taken_of(conn: &Connection) -> Result<Vec<(DeviceId, HeadHash)>, DbError> {
    let mut query = conn.prepare_cached("SELECT device, hash FROM taken_head ORDER BY id")?;
    let heads = query.query_map([], |row| Ok((DeviceId(row.get(0)?), HeadHash(row.get(1)?))))?;
    Ok(heads.collect::<Result<_, _>>()?)
}

/// Remembers a head that was gone round, encoded.
pub(crate) fn set_aside(tx: &Transaction<'_>, hash: HeadHash, head: &[u8]) -> Result<(), DbError> {
    tx.prepare_cached("INSERT OR IGNORE INTO unread_head VALUES (?, ?)")?
        .execute((hash.0, head))?;
    Ok(())
}

/// The heads that were gone round and not taken over since, encoded.
pub fn unread(conn: &Connection) -> Result<Vec<Vec<u8>>, DbError> {
    let mut query = conn
        .prepare_cached("SELECT head FROM unread_head WHERE hash NOT IN (SELECT hash FROM taken_head) ORDER BY hash")?;
    let heads = query.query_map([], |row| row.get(0))?;
    Ok(heads.collect::<Result<_, _>>()?)
}

/// Gives up the heads that were gone round: their backups are looked for no more.
pub fn forget_unread(tx: &Transaction<'_>) -> Result<(), DbError> {
    let own = |head: Vec<u8>| proto::head::Head::decode(&head).ok();
    for head in unread(tx)?.into_iter().filter_map(own) {
        take(tx, head.device(), HeadHash(head.hash()))?;
    }
    Ok(())
}

/// The next head of this device gets a number above `seq`.
pub fn raise_floor(tx: &Transaction<'_>, seq: u64) -> Result<(), DbError> {
    tx.prepare_cached("INSERT INTO head_floor VALUES (1, ?1) ON CONFLICT (one) DO UPDATE SET seq = max(seq, ?1)")?
        .execute([seq])?;
    Ok(())
}

/// The number above which the next head of this device has to be.
pub fn floor(conn: &Connection) -> Result<u64, DbError> {
    let floor = conn.query_row("SELECT seq FROM head_floor", [], |row| row.get(0));
    Ok(floor.optional()?.unwrap_or(0))
}

/// Records what a device is called.
pub fn name(tx: &Transaction<'_>, device: DeviceId, name: &str) -> Result<(), DbError> {
    tx.prepare_cached("INSERT OR REPLACE INTO device VALUES (?, ?)")?
        .execute((device.0, name))?;
    Ok(())
}

/// What devices are called.
pub fn names(conn: &Connection) -> Result<BTreeMap<DeviceId, String>, DbError> {
    let mut query = conn.prepare_cached("SELECT id, name FROM device")?;
    let names = query.query_map([], |row| Ok((DeviceId(row.get(0)?), row.get(1)?)))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// Writes into a root whose backups are in it beside this device's; whether it said anything else before.
pub(crate) fn tell(conn: &Connection, own: DeviceId, root: &mut Root) -> Result<bool, DbError> {
    let snapshots = tree::snapshots(conn)?;
    let all: Vec<u64> = snapshots.iter().map(|snapshot| snapshot.record.seq).collect();
    let names = names(conn)?;
    let mut heads: BTreeMap<DeviceId, Vec<HeadHash>> = BTreeMap::new();
    for (device, head) in taken_of(conn)? {
        heads.entry(device).or_default().push(head);
    }
    let makers: BTreeSet<DeviceId> = snapshots.iter().map(|snapshot| snapshot.device).collect();
    let mut devices: BTreeSet<DeviceId> = makers.into_iter().filter(|maker| *maker != own).collect();
    devices.extend(heads.keys());
    let taken = devices.into_iter().take(TAKEN_DEVICES_MAX).map(|device| {
        let mut heads = heads.remove(&device).unwrap_or_default();
        heads.drain(..heads.len().saturating_sub(TAKEN_HEADS_MAX));
        let theirs = snapshots.iter().filter(|known| known.device == device && device != own);
        let theirs: BTreeSet<u64> = theirs.map(|known| known.record.seq).collect();
        TakenDevice {
            device,
            name: short_name(names.get(&device), device),
            snapshots: tree::ranges(&all, |seq| theirs.contains(&seq)),
            heads,
        }
    });
    let devices = Some(taken.collect::<Vec<_>>()).filter(|devices| !devices.is_empty());
    let unread = unread(conn)?.into_iter().take(UNREAD_HEADS_MAX).map(Into::into);
    let unread = Some(unread.collect::<Vec<_>>()).filter(|unread| !unread.is_empty());
    let differs = root.devices != devices || root.unread != unread;
    (root.devices, root.unread) = (devices, unread);
    Ok(differs)
}

fn short_name(name: Option<&String>, device: DeviceId) -> String {
    let fits = |name: &&String| (1..=DEVICE_NAME_BYTES_MAX).contains(&name.len());
    name.filter(fits).cloned().unwrap_or_else(|| device.short())
}

/// Takes over what a root says of other devices.
pub(crate) fn replay(tx: &Transaction<'_>, root: &Root) -> Result<(), DbError> {
    for taken in root.devices.iter().flatten() {
        name(tx, taken.device, &taken.name)?;
        for range in &taken.snapshots {
            tx.prepare_cached("UPDATE snapshot SET device = ?1 WHERE seq BETWEEN ?2 AND ?3")?
                .execute((taken.device.0, range.first, range.last))?;
        }
        taken.heads.iter().try_for_each(|head| take(tx, taken.device, *head))?;
    }
    for encoded in root.unread.iter().flatten() {
        if let Ok(head) = proto::head::Head::decode(encoded) {
            set_aside(tx, HeadHash(head.hash()), encoded)?;
        }
    }
    Ok(())
}
