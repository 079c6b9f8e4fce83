//! Repacking: what is still wanted of mostly dead packs goes into new ones, so that the old ones can be given up.
//!
//! Only where it pays: at least as many bytes come free as are sent. Chunks keep their ids and stay compressed; each is
//! checked on its way. Cut off anywhere, nothing is lost: `content::moves` says from when on the new packs count.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use crossbeam_channel::bounded;
use database::DbError;
use proto::cap_index::ChunkSlot;
use proto::size::MIB;
use rusqlite::Connection;
use upload_queue::packs;
use upload_queue::packs::PackRow;

use super::packer::{Closed, Parcel, shares_bytes};
use super::run::{Run, join_all};
use super::{WriteError, Writer};
use crate::catalog::content;
use crate::catalog::content::live::Wanted;
use crate::catalog::content::moves;
use crate::restore::{Reader, RestoreError};

/// Bytes fetched at a time.
const BATCH_BYTES: u32 = 8 * MIB as u32;

/// Packs to be repacked, and what that comes to.
#[derive(Debug, Default)]
pub struct Plan {
    /// What is still wanted of each.
    pub packs: BTreeMap<PackRow, Vec<ChunkSlot>>,
    /// Bytes of chunks to be copied.
    pub copied_bytes: u64,
    /// Bytes of all shares of these packs.
    pub freed_bytes: u64,
}

/// What a repacking did.
#[derive(Debug, Default)]
pub struct Repacked {
    /// Bytes of chunks that were copied.
    pub copied_bytes: u64,
    /// New packs that are safe, and that chunks are read from now.
    pub packs_safe: usize,
    /// Packs that could not be read; they stay as they are.
    pub failed: Vec<RestoreError>,
}

/// The packs that are at most half wanted, if repacking all of them sends at most as many bytes as it frees. None while an
/// earlier repacking is under way: what it copied would be copied again. New packs are taken to have the code of the newest of
/// the old.
pub fn plan(conn: &Connection, wanted: &Wanted) -> Result<Plan, DbError> {
    let (mut plan, mut code) = (Plan::default(), (1, 1));
    if !moves::under_way(conn)?.is_empty() {
        return Ok(plan);
    }
    for (row, chunks) in &wanted.chunks {
        let Some(pack) = packs::get(conn, *row)? else { continue };
        let shape = pack.manifest.shape;
        if 2 * chunks.bytes() > shape.plain_bytes() as u64 {
            continue;
        }
        code = (shape.k, shape.n);
        plan.packs.insert(*row, Vec::new());
        plan.copied_bytes += chunks.bytes();
        plan.freed_bytes += u64::from(shape.n) * shape.share.stored_bytes() as u64;
    }
    let lens = plan.packs.keys().flat_map(|row| wanted.chunks[row].lens());
    if plan.packs.is_empty() || 2 * shares_bytes(code, lens) > plan.freed_bytes {
        return Ok(Plan::default());
    }
    content::for_each_chunk(conn, &mut |place| {
        if let Some(slots) = plan.packs.get_mut(&place.pack)
            && wanted.chunks[&place.pack].contains(place.slot.offset)
        {
            slots.push(place.slot);
        }
    })?;
    plan.packs
        .values_mut()
        .for_each(|slots| slots.sort_unstable_by_key(|slot| slot.offset));
    Ok(plan)
}

impl Writer {
    /// Copies what `plan` says into new packs, delivers and posts these, and has chunks read from those that are safe.
    /// Blocking, as `run`. `stop` makes it finish what is in flight; `copied` is called with the bytes copied so far.
    pub fn repack(
        &self,
        reader: &Reader,
        plan: &Plan,
        stop: &AtomicBool,
        copied: &(dyn Fn(u64) + Sync),
    ) -> Result<Repacked, WriteError> {
        if self.peers.all().is_empty() {
            return Err(WriteError::NoPeers);
        }
        let (parcels, full) = bounded(1);
        let run = Run::new(self, stop, &|_| {}, parcels);
        let mut copy = Copy {
            run: &run,
            reader,
            copied,
            done: Repacked::default(),
        };
        std::thread::scope(|scope| {
            let sealer = scope.spawn(|| {
                let full = full; // closed when the sealer fails, so that nobody waits for it
                run.watched(|| run.seal_parcels(&full, moves::begin))
            });
            let copied = run.watched(|| copy.all(plan));
            let _ = run.packer.finish(); // a sealer that failed tells why itself
            drop(run.parcels.send(Parcel::End));
            copied.and(join_all(vec![sealer]))
        })?;
        run.drain()?;
        run.checkpoint()?;
        let tolerate = self.uploader.tolerate();
        Ok(Repacked {
            packs_safe: self.db.write_durable(|tx| moves::finish(tx, tolerate))?,
            ..copy.done
        })
    }
}

/// The reading side.
struct Copy<'r, 'a> {
    run: &'r Run<'a>,
    reader: &'r Reader,
    copied: &'r (dyn Fn(u64) + Sync),
    done: Repacked,
}

impl Copy<'_, '_> {
    fn all(&mut self, plan: &Plan) -> Result<(), WriteError> {
        for (row, slots) in &plan.packs {
            for batch in slots.chunk_by(|first, next| first.offset / BATCH_BYTES == next.offset / BATCH_BYTES) {
                if self.run.stopped() {
                    return Ok(());
                }
                let read = self.reader.read_checked(*row, batch);
                match self.reader.runtime.block_on(read) {
                    Ok(stored) => match self.append(batch, &stored) {
                        Ok(()) => {}
                        Err(Closed) => return Ok(()), // the sealer says why
                    },
                    Err(RestoreError::Db(error)) => return Err(error.into()),
                    Err(error) => {
                        self.done.failed.push(error);
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, slots: &[ChunkSlot], stored: &[Bytes]) -> Result<(), Closed> {
        for (slot, stored) in slots.iter().zip(stored) {
            self.run.packer.append(slot.id, stored, slot.raw_len)?;
            self.done.copied_bytes += stored.len() as u64;
            (self.copied)(self.done.copied_bytes);
        }
        Ok(())
    }
}
