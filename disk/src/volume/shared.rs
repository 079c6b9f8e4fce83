//! What the volume's threads share: the journal and the map under one lock, which nobody holds while a record is sealed or written.
//! Records are given their places in one order, sealed side by side, and written and shown in that order.

use std::borrow::Cow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::usage::Marks;
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
    /// A record was written, places were taken back, or a file was made.
    turned: Condvar,
    /// A file is to be made, or none any more.
    wanted: Condvar,
    /// Memory that was touched before costs no page faults: a large part of what a large record takes.
    buffers: Mutex<Vec<Vec<u8>>>,
}

/// What is under the lock.
pub struct Core {
    /// The journal.
    pub journal: Journal,
    /// What it has.
    pub map: Map,
    /// When records came.
    pub(super) marks: Marks,
    /// Whether the record whose turn it is is being written.
    is_writing: bool,
    /// Whether nobody makes files any more.
    is_ending: bool,
}

impl Shared {
    /// Of a journal that was opened, and what it has.
    pub fn new(journal: Journal, map: Map) -> Self {
        let mut marks = Marks::default();
        if journal.last_seq() > journal.committed_seq() {
            marks.came_behind(journal.committed_seq(), Instant::now());
        }
        Self {
            core: Mutex::new(Core {
                journal,
                map,
                marks,
                is_writing: false,
                is_ending: false,
            }),
            turned: Condvar::new(),
            wanted: Condvar::new(),
            buffers: Mutex::default(),
        }
    }

    /// The journal and the map, for a moment.
    pub fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, as soon as this is no longer so.
    pub fn lock_unless(&self, is_so: impl FnMut(&mut Core) -> bool) -> MutexGuard<'_, Core> {
        let waited = self.turned.wait_while(self.lock(), is_so);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record, and shows it.
    pub fn append(&self, ranges: &[BlockRange], blocks: &[Cow<'_, [u8]>]) -> Result<(), JournalError> {
        let mut record = self.buffers().pop().unwrap_or_default();
        let mut is_written = false;
        while !is_written {
            let reserved = self.reserve(ranges)?;
            reserved.seal(blocks.iter().map(|block| &**block), &mut record);
            is_written = self.write(reserved, &record)?;
        }
        let mut buffers = self.buffers();
        if buffers.len() < BUFFERS_MAX && record.capacity() <= BUFFER_BYTES_MAX {
            buffers.push(record);
        }
        Ok(())
    }

    fn reserve(&self, ranges: &[BlockRange]) -> Result<Reserved, JournalError> {
        let mut core = self.lock_unless(|core| core.journal.waits_for_file(ranges));
        let reserved = core.journal.reserve(ranges.to_vec());
        if core.journal.wants_file() {
            self.wanted.notify_one();
        }
        reserved
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
                let before = core.journal.last_seq();
                core.marks.came_behind(before, Instant::now());
                let entry = core.journal.written(reserved);
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
        let mut core = self.lock_unless(|core| core.is_writing || core.journal.is_making());
        let entries = core.journal.rewrite()?;
        let committed = core.journal.committed_seq();
        let needed = entries.iter().filter(|entry| entry.head.seq > committed);
        needed.for_each(|entry| core.map.apply(entry));
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

    /// Says that all is durable, if it is.
    pub fn end(&self) -> Result<(), JournalError> {
        self.lock_unless(|core| core.is_writing).journal.end()
    }

    /// Makes files before they are needed, until told to stop.
    pub fn make_files(&self) {
        let mut core = self.lock();
        loop {
            let wanted = self
                .wanted
                .wait_while(core, |core| !core.is_ending && !core.journal.wants_file());
            core = wanted.unwrap_or_else(PoisonError::into_inner);
            if core.is_ending {
                return;
            }
            let plan = core.journal.plan_file();
            drop(core);
            let made = plan.make();
            core = self.lock();
            core.journal.made(made);
            self.turned.notify_all();
        }
    }

    /// Ends `make_files`, after the file that is being made.
    pub fn make_no_files(&self) {
        self.lock().is_ending = true;
        self.wanted.notify_all();
    }
}
