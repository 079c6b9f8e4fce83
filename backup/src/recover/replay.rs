//! Filling the catalog again: packs, then log and index sections in the order in which they were posted.

use std::sync::Arc;

use database::DbError;
use proto::cap_index::{Cap, Extent, IndexRecord, PackRecord};
use proto::id::{DeviceId, HeadHash, ShareId, VersionId};
use proto::keys::{DeviceCert, power};
use proto::log_record::{LogRecord, SnapshotRecord};
use proto::manifest::Manifest;
use proto::root::{Root, SectionRef};
use proto::section_kind::SectionKind;
use rusqlite::Transaction;
use upload_queue::packs;
use upload_queue::packs::{PackRow, Purpose};
use upload_queue::peers::PeerKey;

use crate::catalog::content::{Place, Posted, SectionPlace, SectionRow, live};
use crate::catalog::tree::Replay;
use crate::catalog::{content, heads, tree};
use crate::restore::RestoreError;
use crate::restore::sections::records;

/// What an earlier recovery that did not come to its end may have left.
const CLEAR: &str = "
    DELETE FROM published; DELETE FROM section; DELETE FROM content; DELETE FROM unlisted_pack; DELETE FROM chunk;
    DELETE FROM alias; DELETE FROM amendment; DELETE FROM change; DELETE FROM entry; DELETE FROM snapshot;
    DELETE FROM directory WHERE id > 1; DELETE FROM share; DELETE FROM pack; DELETE FROM forgotten;
    DELETE FROM chunk_twin; DELETE FROM dead_pack; DELETE FROM tag; DELETE FROM pinned; DELETE FROM moving_pack;
    DELETE FROM lacking; DELETE FROM mount_point; DELETE FROM head_peer; DELETE FROM device; DELETE FROM taken_head;
    DELETE FROM unread_head; DELETE FROM version_counter; DELETE FROM snapshot_left_out; DELETE FROM left_out;
    DELETE FROM disk_due; DELETE FROM disk_news; DELETE FROM disk_pack; DELETE FROM disk_known;
";

/// Shares that one peer listed; shared, since they may be many.
pub(super) type Listed = (PeerKey, Arc<Vec<ShareId>>);

/// Empties the catalog.
pub(super) fn clear(tx: &Transaction<'_>) -> Result<(), RestoreError> {
    tx.execute_batch(CLEAR).map_err(DbError::from)?;
    Ok(())
}

/// Records metadata packs and who holds them; returns the row of each.
pub(super) fn add_metadata_packs(
    tx: &Transaction<'_>,
    packs: &[PackRecord],
    listed: &[Listed],
) -> Result<Vec<PackRow>, RestoreError> {
    let mut rows = Vec::with_capacity(packs.len());
    for record in packs {
        let manifest = manifest(record)?;
        rows.push(packs::insert_known(tx, record, &manifest, Purpose::Metadata)?);
    }
    record_held(tx, listed)?;
    Ok(rows)
}

/// Records who holds the packs known by now.
pub(super) fn record_held(tx: &Transaction<'_>, listed: &[Listed]) -> Result<(), RestoreError> {
    for (peer, shares) in listed {
        packs::record_held(tx, peer, shares)?;
    }
    Ok(())
}

/// Replays one section.
pub(super) fn section(
    tx: &Transaction<'_>,
    replay: &mut Replay,
    pack: PackRow,
    section: &SectionRef,
    encoded: &[u8],
) -> Result<(), RestoreError> {
    let row = content::add_section(
        tx,
        &SectionPlace {
            pack,
            offset: section.offset,
            len: section.len,
            kind: section.kind,
        },
    )?;
    if section.is(SectionKind::Log) {
        for record in records::<LogRecord>(encoded)? {
            replay.apply(tx, record)?;
        }
    }
    if section.is(SectionKind::Index) {
        for record in records::<IndexRecord>(encoded)? {
            match record {
                IndexRecord::Pack(record, slots) => {
                    let pack = packs::insert_known(tx, &record, &manifest(&record)?, Purpose::Data)?;
                    content::replay_chunks(tx, pack, &slots)?;
                }
                IndexRecord::Cap(version, cap) => content::replay_cap(tx, row, version, &cap)?,
                IndexRecord::CapMore(version, from, more) => add_extents(tx, row, version, from, more)?,
            }
        }
    }
    Ok(())
}

/// Goes on with a long version's extents at byte `from`; what was there from that byte on is replaced.
fn add_extents(
    tx: &Transaction<'_>,
    section: SectionRow,
    version: VersionId,
    from: u64,
    more: Vec<Extent>,
) -> Result<(), RestoreError> {
    let Some(Place::Extents(mut extents)) = content::place(tx, version)? else {
        tracing::warn!(
            "The extents of version {} from byte {from} on have no beginning",
            version.0
        );
        return Ok(());
    };
    let (mut end, mut kept) = (0u64, 0);
    while end < from && kept < extents.len() {
        end = end.saturating_add(match extents[kept] {
            Extent::Chunk(_, len) => u64::from(len),
            Extent::Hole(len) => len,
        });
        kept += 1;
    }
    if end != from {
        tracing::warn!("The extents of version {} do not reach byte {from}", version.0);
        return Ok(());
    }
    extents.truncate(kept);
    extents.extend(more);
    content::replay_cap(tx, section, version, &Cap::Extents(extents))?;
    Ok(())
}

/// Takes a head over whose sections were replayed: snapshots without a log of their own, what was forgotten, and what the next
/// head builds on.
pub(super) fn adopt(
    tx: &Transaction<'_>,
    cert: &DeviceCert,
    adopted: &Posted,
    listed: &[Listed],
) -> Result<(), RestoreError> {
    record_held(tx, listed)?;
    let unchanged = adopted.root.snapshots.iter().chain(&adopted.body.snapshot);
    for record in unchanged.filter(|record| record.parent.is_some()) {
        add_snapshot(tx, cert.device, record)?;
    }
    tree::replay_marks(tx, &adopted.root)?;
    tree::replay_forgotten(tx, adopted.root.forgotten.as_deref().unwrap_or_default())?;
    // Who cannot read has taken over nothing of others, whatever it says.
    if cert.powers & power::READ != 0 {
        heads::replay(tx, &adopted.root)?;
    }
    heads::name(tx, cert.device, &cert.name)?;
    heads::take(tx, cert.device, HeadHash(adopted.hash))?;
    content::set_posted(tx, adopted)?;
    Ok(())
}

/// Ends the recovery, when all is in the catalog.
pub(super) fn conclude(tx: &Transaction<'_>) -> Result<(), RestoreError> {
    content::choose_twins(tx)?;
    tree::mark_complete(tx)?;
    let kept: Vec<u64> = tree::kept(tx)?.iter().map(|snapshot| snapshot.record.seq).collect();
    live::record(tx, &live::wanted(tx, &kept)?, 0)?;
    Ok(())
}

/// A snapshot at whose time nothing had changed has no log: its tree is its parent's.
fn add_snapshot(tx: &Transaction<'_>, device: DeviceId, record: &SnapshotRecord) -> Result<(), RestoreError> {
    let mut record = record.clone();
    if record.source_roots.is_empty() {
        // Its parent may be one that changed nothing either, and that no head names any more.
        let all = tree::snapshots(tx)?;
        let earlier = all.into_iter().rev().find(|known| known.record.seq < record.seq);
        record.source_roots = earlier.map(|earlier| earlier.record.source_roots).unwrap_or_default();
    }
    Replay::new(device).apply(tx, LogRecord::Snapshot(record))?;
    Ok(())
}

/// The position of a section's pack; the one behind the last is the root's own.
pub(super) fn pack_of(root: &Root, section: &SectionRef) -> Result<usize, RestoreError> {
    let index = section.pack as usize;
    match index <= root.packs.len() {
        true => Ok(index),
        false => Err(RestoreError::Damaged {
            what: "A root".to_owned(),
            reason: "it names a pack that it does not list".to_owned(),
        }),
    }
}

/// A pack's manifest, checked.
pub(super) fn manifest(record: &PackRecord) -> Result<Manifest, RestoreError> {
    Manifest::decode(&record.manifest).map_err(|error| RestoreError::Damaged {
        what: "A pack's manifest".to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proto::head::HeadBody;
    use proto::root::TakenDevice;

    use super::*;
    use crate::catalog;

    /// A thief with a machine that only puts would say that he has taken over what he cannot read, and hide it so.
    #[test]
    fn who_cannot_read_has_taken_over_nothing_of_others() {
        let device = |number| DeviceId([number; 32]);
        let other = TakenDevice {
            device: device(3),
            name: "laptop".to_owned(),
            snapshots: Vec::new(),
            heads: vec![HeadHash([4; 32])],
        };
        let posted = Posted {
            seq: 1,
            hash: [5; 32],
            head: Vec::new(),
            body: HeadBody {
                root: None,
                snapshot: None,
                disks: None,
            },
            root: Root {
                devices: Some(vec![other]),
                ..Root::default()
            },
        };
        let words = SigningKey::from_bytes(&[1; 32]);
        for (powers, believed) in [(power::ALL, true), (power::PUT_ONLY, false)] {
            let dir = tempfile::tempdir().unwrap();
            let db = catalog::open(&dir.path().join("catalog.db")).unwrap();
            let cert = DeviceCert::sign(&words, device(2), powers, "nas", 1);
            let adopting = |tx: &Transaction<'_>| adopt(tx, &cert, &posted, &[]);
            db.write::<_, RestoreError>(adopting).unwrap();
            let taken = db.read(heads::taken).unwrap();
            assert_eq!(taken.contains(&HeadHash([4; 32])), believed);
            assert!(taken.contains(&HeadHash([5; 32])), "its own head is");
        }
    }
}
