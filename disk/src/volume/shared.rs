//! What the volume's threads share: the journal and the map under one lock, which nobody holds while a record is sealed or written.
//! Records are given their places in one order, sealed side by side, and written and shown in that order.

use std::borrow::Cow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::journal::record::BlockRange;
use crate::journal::{FlushError, Journal, JournalError, Reserved};
use crate::map::Map;

/// Buffers that are kept for the next record. Chosen: as many as processors of a small machine may seal at a time.
const BUFFERS_MAX: usize = 4;
/// Longer ones are not kept. Chosen: the record of what one reading of a socket brings fits in twice.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// The journal and the map, and who waits for them.
pub struct Shared {
    core: Mutex<Core>,
    /// A record was written, or places were taken back.
    turned: Condvar,
    /// Memory that was touched before costs no page faults: a large part of what a large record takes.
    buffers: Mutex<Vec<Vec<u8>>>,
}

/// What is under the lock.
pub struct Core {
    /// The journal.
    pub journal: Journal,
    /// What it has.
    pub map: Map,
    /// Whether the record whose turn it is is being written.
    is_writing: bool,
}

impl Shared {
    /// Of a journal that was opened, and what it has.
    pub fn new(journal: Journal, map: Map) -> Self {
        Self {
            core: Mutex::new(Core {
                journal,
                map,
                is_writing: false,
            }),
            turned: Condvar::new(),
            buffers: Mutex::default(),
        }
    }

    /// The journal and the map, for a moment.
    pub fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, as soon as this is no longer so.
    fn lock_unless(&self, is_so: impl FnMut(&mut Core) -> bool) -> MutexGuard<'_, Core> {
        let waited = self.turned.wait_while(self.lock(), is_so);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record, and shows it.
    pub fn append(&self, ranges: &[BlockRange], blocks: &[Cow<'_, [u8]>]) -> Result<(), JournalError> {
        let mut record = self.buffers().pop().unwrap_or_default();
        let mut is_written = false;
        while !is_written {
            let reserved = self.lock().journal.reserve(ranges.to_vec())?;
            reserved.seal(blocks.iter().map(|block| &**block), &mut record);
            is_written = self.write(reserved, &record)?;
        }
        let mut buffers = self.buffers();
        if buffers.len() < BUFFERS_MAX && record.capacity() <= BUFFER_BYTES_MAX {
            buffers.push(record);
        }
        Ok(())
    }

    fn buffers(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a record in its turn, and shows it. False if its place was taken back before.
    fn write(&self, reserved: Reserved, record: &[u8]) -> Result<bool, JournalError> {
        let mut core = self.lock_unless(|core| {
            core.journal.is_held(&reserved) && (core.is_writing || !core.journal.is_next(&reserved))
        });
        if !core.journal.is_held(&reserved) {
            return Ok(false);
        }
        core.is_writing = true;
        drop(core);
        let written = reserved.write(record);
        let mut core = self.lock();
        core.is_writing = false;
        let done = match written {
            Ok(()) => {
                let entry = core.journal.publish(reserved);
                core.map.apply(&entry);
                Ok(true)
            }
            Err(error) => {
                core.journal.withdraw();
                Err(error.into())
            }
        };
        drop(core);
        self.turned.notify_all();
        done
    }

    /// Makes all durable that was appended; what a file does not take goes to another one, once.
    pub fn sync(&self) -> Result<(), FlushError> {
        let told = |error: &dyn std::fmt::Display| FlushError(error.to_string());
        let plan = self.lock().journal.plan_flush().map_err(|error| told(&error))?;
        let Err(error) = plan.sync() else {
            self.lock().journal.flushed(&plan);
            return Ok(());
        };
        tracing::error!(%error, "the journal did not sync and is written to another file");
        let done = self.rewrite().map_err(|error| told(&error));
        self.turned.notify_all();
        done
    }

    /// Nobody may append meanwhile: if this fails too, what was written since must not be promised.
    fn rewrite(&self) -> Result<(), JournalError> {
        let mut core = self.lock_unless(|core| core.is_writing);
        let entries = core.journal.rewrite()?;
        entries.iter().for_each(|entry| core.map.apply(entry));
        let plan = core.journal.plan_flush()?;
        match plan.sync() {
            Ok(()) => core.journal.flushed(&plan),
            Err(error) => {
                core.journal.give_up();
                return Err(error.into());
            }
        }
        Ok(())
    }
}
