//! Which packs are of which virtual disk, and whether they are this machine's to look after.
//!
//! What a disk needs is in its own table, in its packs; here is what the machine that writes it counts, audits and repairs. When another machine
//! writes it, that one gives packs up without a word to anybody: then this catalog forgets them, as it would take them for lost.

use std::collections::{BTreeMap, HashSet};

use database::DbError;
use proto::cap_index::PackRecord;
use proto::id::PackId;
use proto::manifest::Manifest;
use rusqlite::{Connection, OptionalExtension, Transaction};
use upload_queue::packs;
use upload_queue::packs::{PackRow, Purpose};

use super::content;

/// Id of a disk.
pub type VolumeBytes = [u8; 16];

/// Records of which disk a pack is.
pub fn add_pack(tx: &Transaction<'_>, volume: VolumeBytes, pack: PackRow) -> Result<(), DbError> {
    tx.prepare_cached("INSERT OR REPLACE INTO disk_pack VALUES (?1, ?2)")?
        .execute((pack.0, volume))?;
    Ok(())
}

/// Adds packs that the disk's own table names. Returns how many were not known, of which nobody is known to have anything yet.
pub fn learn(tx: &Transaction<'_>, volume: VolumeBytes, records: &[PackRecord]) -> Result<u64, DbError> {
    let mut news = 0;
    for record in records {
        // One that cannot be read names no shares: nothing can be done for it here.
        let Ok(manifest) = Manifest::decode(&record.manifest) else {
            continue;
        };
        news += u64::from(packs::find(tx, manifest.pack)?.is_none());
        let row = packs::insert_known(tx, record, &manifest, Purpose::Disk)?;
        add_pack(tx, volume, row)?;
    }
    Ok(news)
}

/// All packs of this disk are known from now on, as those that are made are added: they are this machine's to look after.
pub fn set_here(tx: &Transaction<'_>, volume: VolumeBytes) -> Result<(), DbError> {
    set(tx, volume, true)
}

/// Another machine writes this disk: its packs are forgotten, and none of their shares is given up. Those of which a share is on its way
/// stay until it has arrived. How many stay.
pub fn set_elsewhere(tx: &Transaction<'_>, volume: VolumeBytes) -> Result<u64, DbError> {
    set(tx, volume, false)?;
    let all = packs_of(tx, volume)?;
    let forgotten = packs::forget_arrived(tx, &all)?;
    tidy(tx)?;
    Ok(all.len() as u64 - forgotten)
}

/// Nothing is known of this disk: it is gone, or who looks after its packs is to be found out.
pub fn unset(tx: &Transaction<'_>, volume: VolumeBytes) -> Result<(), DbError> {
    tx.prepare_cached("DELETE FROM disk_known WHERE volume = ?1")?
        .execute([volume])?;
    Ok(())
}

fn set(tx: &Transaction<'_>, volume: VolumeBytes, is_here: bool) -> Result<(), DbError> {
    tx.prepare_cached("INSERT OR REPLACE INTO disk_known VALUES (?1, ?2)")?
        .execute((volume, is_here))?;
    Ok(())
}

/// Whether this machine looks after all packs of a disk; `None`: nobody has found out.
pub fn is_here(conn: &Connection, volume: VolumeBytes) -> Result<Option<bool>, DbError> {
    let mut select = conn.prepare_cached("SELECT is_here FROM disk_known WHERE volume = ?1")?;
    Ok(select.query_row([volume], |row| row.get(0)).optional()?)
}

/// Disks that the newest head names of which nobody has found out whether their packs are this machine's to look after.
pub fn unknown(conn: &Connection) -> Result<Vec<VolumeBytes>, DbError> {
    let mut unknown = Vec::new();
    for head in content::posted(conn)?
        .and_then(|posted| posted.body.disks)
        .unwrap_or_default()
    {
        if is_here(conn, head.volume)?.is_none() {
            unknown.push(head.volume);
        }
    }
    Ok(unknown)
}

/// Packs of a disk, ascending.
pub fn packs_of(conn: &Connection, volume: VolumeBytes) -> Result<Vec<PackRow>, DbError> {
    let mut select = conn.prepare_cached("SELECT pack FROM disk_pack WHERE volume = ?1 ORDER BY pack")?;
    let rows = select.query_map([volume], |row| row.get(0).map(PackRow))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Packs of a disk that nothing gave up and that are not among these.
pub fn unnamed(conn: &Connection, volume: VolumeBytes, named: &HashSet<PackId>) -> Result<Vec<PackRow>, DbError> {
    let mut select = conn.prepare_cached(
        "SELECT pack.id, pack.pack_id FROM disk_pack JOIN pack ON pack.id = disk_pack.pack
         WHERE volume = ?1 AND pack.id NOT IN (SELECT pack FROM dead_pack) ORDER BY pack.id",
    )?;
    let rows = select.query_map([volume], |row| Ok((PackRow(row.get(0)?), PackId(row.get(1)?))))?;
    let mut unnamed = Vec::new();
    for row in rows {
        let (row, id) = row?;
        if !named.contains(&id) {
            unnamed.push(row);
        }
    }
    Ok(unnamed)
}

/// How many of these packs are of which disk. Those of no disk are left out.
pub fn volumes_of(conn: &Connection, packs: &HashSet<PackRow>) -> Result<BTreeMap<VolumeBytes, u64>, DbError> {
    let mut select = conn.prepare_cached("SELECT volume FROM disk_pack WHERE pack = ?1")?;
    let mut volumes = BTreeMap::new();
    for pack in packs {
        let volume: Option<VolumeBytes> = select.query_row([pack.0], |row| row.get(0)).optional()?;
        if let Some(volume) = volume {
            *volumes.entry(volume).or_default() += 1;
        }
    }
    Ok(volumes)
}

/// Bytes of the shares that peers hold of a disk.
pub fn bytes_held(conn: &Connection, volume: VolumeBytes) -> Result<u64, DbError> {
    packs::bytes_held(conn, &packs_of(conn, volume)?)
}

/// Takes back what is said of packs whose rows are gone: other packs will have their numbers.
pub fn tidy(tx: &Transaction<'_>) -> Result<(), DbError> {
    tx.execute_batch(
        "DELETE FROM disk_pack WHERE pack NOT IN (SELECT id FROM pack);
         DELETE FROM disk_due WHERE pack NOT IN (SELECT id FROM pack);",
    )?;
    Ok(())
}

#[cfg(test)]
mod tests;
