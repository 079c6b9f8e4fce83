//! What collection asks of committed content: how many blocks refer to each pack, which these are, and what they hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::CommittedBlocks;
use super::parts::{copy_part, parts};
use crate::commit::PackNumber;
use crate::commit::opening::Places;
use crate::device::DeviceError;
use crate::extents::{Run, Update, Usage};
use crate::journal::record::BLOCK_BYTES;

impl CommittedBlocks {
    /// Where packs lie.
    pub fn places(&self) -> &Arc<Places> {
        &self.inner.places
    }

    /// Blocks that refer to each pack, never too few once they were counted (`recount`).
    pub fn live(&self) -> Vec<(PackNumber, u32)> {
        self.inner.lock().map.live()
    }

    /// Reads pages of the table of packs that lead to other pages, which then stay: without them nobody knows where all pages lie.
    pub fn read_table(&self) -> Result<(), DeviceError> {
        let mut committed = self.committed();
        let mut is_new = false;
        while let Some(wanted) = committed.packs.missing() {
            committed.packs.give(&wanted, &self.inner.places.page(&wanted)?)?;
            is_new = true;
        }
        let mut state = self.inner.lock();
        if is_new && state.committed.root.commit == committed.root.commit {
            state.committed.packs = committed.packs;
        }
        Ok(())
    }

    /// How often the map was begun anew: then blocks have to be counted anew as well.
    pub fn rounds(&self) -> u64 {
        self.inner.lock().rounds
    }

    /// Bytes of the map in memory, and of blocks.
    pub fn usage(&self) -> (Usage, usize) {
        (self.inner.lock().map.usage(), self.inner.slots.bytes())
    }

    /// Whether leaves would have to be fetched to count all blocks.
    pub fn has_leaves_elsewhere(&self) -> bool {
        let state = self.inner.lock();
        let regions = state.map.leaf_regions();
        regions.iter().any(|region| state.map.is_elsewhere(*region))
    }

    /// Fetches all leaves that are not here. Commits go on meanwhile.
    pub fn fetch_leaves(&self) -> Result<(), DeviceError> {
        let regions = self.inner.lock().map.leaf_regions();
        let mut regions = regions.into_iter();
        regions.try_for_each(|region| self.inner.lock_with_leaf(region).map(drop))
    }

    /// Counts the blocks of all leaves, which fetches those that are not here. Reads go on meanwhile; no commit may.
    pub fn recount(&self) -> Result<(), DeviceError> {
        let (regions, mut counted) = (self.inner.lock().map.leaf_regions(), BTreeMap::new());
        for region in regions {
            let mut state = self.inner.lock_with_leaf(region)?;
            self.inner.ask(&mut state, |map| map.count_leaf(region, &mut counted))?;
        }
        Ok(self.inner.lock().map.take_counts(&counted)?)
    }

    /// The blocks that lie in a pack, each part in one slot; by the pack's own list of what it brought, of which some is elsewhere by now.
    pub fn live_runs(&self, pack: PackNumber) -> Result<Vec<Run>, DeviceError> {
        let record = self.inner.places.record(pack)?;
        let slots = self.inner.list(pack, &record)?;
        let mut live = Vec::new();
        for update in self.inner.places.updates(&record, &slots)? {
            let (Update::Map(brought) | Update::Move { to: brought, .. }) = update else {
                continue;
            };
            for run in self.inner.find(brought.start, brought.count)? {
                if run.place.pack == pack {
                    live.extend(parts(&run));
                }
            }
        }
        // A pack may have brought a block twice; it lies in one place.
        live.sort_unstable_by_key(|run| (run.start, u64::MAX - run.count));
        let mut end = 0_u64;
        live.retain_mut(|run| {
            let known = end.saturating_sub(run.start).min(run.count);
            end = end.max(run.end());
            *run = Run {
                start: run.start + known,
                count: run.count - known,
                place: run.place.after(known as u32),
            };
            run.count > 0
        });
        Ok(live)
    }

    /// The blocks of a part of a run that is in one slot, from where it lies.
    pub fn read_part(&self, part: &Run) -> Result<Vec<u8>, DeviceError> {
        let mut blocks = vec![0; part.count as usize * BLOCK_BYTES];
        if self.inner.copy(part.start, std::slice::from_ref(part), &mut blocks) {
            return Ok(blocks);
        }
        let slots = self.inner.fetch(part)?;
        match slots.first() {
            Some(slot) if copy_part(part, slot, part.start, &mut blocks) => Ok(blocks),
            _ => Err(DeviceError::Damaged(format!(
                "a slot of pack {} is too short",
                part.place.pack
            ))),
        }
    }
}
