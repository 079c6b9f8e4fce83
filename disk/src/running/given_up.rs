//! Packs that nobody needs any more. Who keeps packs is told of each, gives it up, and says when that is recorded: only then the table of packs
//! forgets it, so that whatever happens between, it is found again.

use std::collections::BTreeSet;

use proto::cap_index::PackRecord;

use super::Running;
use crate::commit::PackNumber;
use crate::device::DeviceError;

/// A pack that no accepted commit and no snapshot needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// Its number.
    pub number: PackNumber,
    /// What it takes to find it.
    pub record: PackRecord,
}

impl Running {
    /// Packs that became unneeded by commits that were accepted, each told once by this process. None before what packs have was counted, which
    /// the first collection does.
    pub fn take_given_up(&self) -> Result<Vec<GivenUp>, DeviceError> {
        let mut state = self.lock();
        let unneeded = state.collector.untold(&self.blocks);
        let given_up = self.named(&unneeded)?;
        state.collector.are_told(unneeded);
        Ok(given_up)
    }

    /// Counts what packs have, which collection rests on: fetches what is not here of the map, and goes on beside commits meanwhile. A volume
    /// whose map is on this disk does it by itself with its first commit; for another one this is to be called in the background, and
    /// nothing is collected before.
    pub fn count_packs(&self) -> Result<(), DeviceError> {
        self.blocks.fetch_leaves()?;
        let mut state = self.lock();
        state.collector.count(&self.blocks)?;
        self.counted().totals = state.collector.totals(&self.blocks);
        Ok(())
    }

    /// All packs of the table that nobody needs, told or not: what a process before this one may not have come to give up. Counts what packs
    /// have first, if that was not done yet, which takes as long as reading the whole map.
    pub fn orphans(&self) -> Result<Vec<GivenUp>, DeviceError> {
        self.count_packs()?;
        let state = self.lock();
        self.named(&state.collector.unneeded(&self.blocks)?)
    }

    /// It is recorded that these are given up: the next commit takes them out of the table. Those that somebody needs stay.
    pub fn confirm_given_up(&self, packs: &[PackNumber]) -> Result<(), DeviceError> {
        let mut state = self.lock();
        let unneeded = state.collector.unneeded(&self.blocks)?;
        let confirmed = packs.iter().copied().filter(|pack| unneeded.contains(pack));
        state.collector.confirm(confirmed);
        Ok(())
    }

    /// All packs that the last commit names, by the thousand, those that it borrows left out. Fetches what is not here of the table.
    pub fn own_packs(&self, each: &mut dyn FnMut(&[PackRecord]) -> Result<(), DeviceError>) -> Result<(), DeviceError> {
        let committed = self.blocks.committed();
        let numbers = committed.root.borrowed..committed.packs.next();
        self.blocks.places().each(numbers, each)
    }

    /// Whether a commit is on its way that was not accepted yet: the table does not name its packs.
    pub fn has_offered(&self) -> bool {
        let state = self.lock();
        state.waiting.is_some() || state.writer.offered.is_some()
    }

    fn named(&self, packs: &BTreeSet<PackNumber>) -> Result<Vec<GivenUp>, DeviceError> {
        let named = packs.iter().map(|number| {
            let record = self.blocks.places().record(*number)?;
            Ok(GivenUp {
                number: *number,
                record,
            })
        });
        named.collect()
    }
}
