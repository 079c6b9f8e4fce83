//! Where in a slot a share lies, and what is known of it without asking.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use proto::id::ShareId;

/// Most shares that are known. Chosen: 1 TiB of large ones in 10 MiB of memory; of those beyond, the other part is asked first.
const KNOWN_MAX: usize = 1 << 18;

/// Where in a slot shares lie that stay equally long in its trash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// For [`KeepDays::MOST`](proto::keep_days::KeepDays::MOST), and locked where the bucket locks.
    Full,
    /// For as many days as each one's manifest says, which are fewer, and never locked.
    Short,
}

/// Shares that were last seen among those with fewer days. Where nothing is known, the other part is asked first.
#[derive(Default)]
pub(super) struct Known(Mutex<BTreeSet<ShareId>>);

impl Known {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<ShareId>> {
        self.0.lock().expect("nothing panics while it is locked")
    }

    /// These lie there.
    pub(super) fn add(&self, ids: impl IntoIterator<Item = ShareId>) {
        let mut known = self.lock();
        for id in ids {
            if known.len() < KNOWN_MAX {
                known.insert(id);
            }
        }
    }

    /// A share was found in that part.
    pub(super) fn found(&self, part: Part, id: ShareId) {
        match part {
            Part::Full => drop(self.lock().remove(&id)),
            Part::Short => self.add([id]),
        }
    }

    /// In which order a share is looked for.
    pub(super) fn order(&self, id: ShareId) -> [Part; 2] {
        match self.lock().contains(&id) {
            true => [Part::Short, Part::Full],
            false => [Part::Full, Part::Short],
        }
    }
}
