//! One commit of a disk, from the journal to a head that survives the loss of friends, and when the next one is due.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backup::writer::disks::DiskPost;
use backup::writer::{WriteError, Writer};
use disk::DeviceError;
use disk::claim::writer::Commit;
use disk::commit::compose::{PackSink, Prepared};
use disk::running::edits::{Edit, NewVolume};
use disk::running::error::EditError;
use disk::running::{Accept, Running, first_commit};
use futures::future::BoxFuture;
use proto::id::VoterId;
use proto::manifest::Manifest;
use tokio_util::sync::DropGuard;
use upload_queue::packs::PackRow;

use crate::outgoing::{Delivered, OutgoingPacks};
use crate::record::VolumeBytes;
use crate::voters::Electorate;
use crate::voting::{ClaimError, Voting, disk_head};

/// Without a write for so long, what was written is committed. Chosen: a program that saves is done by then.
pub const QUIET: Duration = Duration::from_secs(10);
/// What was written is committed after so long, whatever is written beside it.
pub const LAG_MAX: Duration = Duration::from_secs(60);
/// So much is committed at once. Chosen: an eighth of the usual journal, a few packs of the largest shape.
pub const AT_ONCE_BYTES: u64 = 256 << 20;
/// How long one attempt waits for peers to take its packs.
const PACKS_WAIT: Duration = Duration::from_secs(60);
/// After so long without enough takers shares are built anew for peers that take them. Chosen: a friend's uplink is given some time; one that
/// comes back is used within a minute, together with the longest pause between attempts.
const MEND_AFTER: Duration = Duration::from_secs(15);
/// Between two looks whether the end was asked for.
const TICK: Duration = Duration::from_millis(200);
/// How long one attempt waits for a majority of voters.
const VOTERS_WAIT: Duration = Duration::from_secs(60);
/// Between attempts that failed, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// Builds shares of these packs anew that too few peers have, for peers that take them now. May be dropped.
pub type Mend = Arc<dyn Fn(Vec<PackRow>) -> BoxFuture<'static, ()> + Send + Sync>;

/// The way of a disk's commits to peers.
pub struct Way {
    /// The write side.
    pub writer: Writer,
    /// Which disk.
    pub volume: VolumeBytes,
    /// Whether this machine is its writer, and who has to take its commits.
    pub voting: Voting,
    /// Roots are committed that name other voters than were asked: those before are lost.
    pub is_without_voters: bool,
    /// A share that a peer did not take may be nowhere: nothing but this brings it back when somebody takes it.
    pub mend: Mend,
    /// Ends the claim with it.
    pub end: DropGuard,
    /// Nanoseconds since 1970.
    pub now_ns: fn() -> i64,
    /// Of the commit that is under way.
    pub delivered: Delivered,
    /// One commit at a time: the packs that were delivered are its own.
    pub turn: Mutex<()>,
}

fn unavailable(error: &WriteError) -> DeviceError {
    DeviceError::Unavailable(error.to_string())
}

impl Way {
    /// The first commit of a new disk: there is one when this succeeds.
    pub fn create(&self, name: String, size: u64, voters: &[VoterId], stop: &AtomicBool) -> Result<(), DeviceError> {
        self.writer
            .room_for_disk(self.volume)
            .map_err(|error| unavailable(&error))?;
        let mut sink = OutgoingPacks::new(&self.writer, self.volume, self.delivered.clone());
        let voters = voters.iter().map(|voter| voter.0).collect();
        let first = first_commit(self.volume, name, size, voters, (self.now_ns)(), &mut sink)?;
        self.accept(&first, stop)?;
        self.look_after()
    }

    /// From its first commit on the catalog knows all packs of a disk, as each is noted when it is made.
    fn look_after(&self) -> Result<(), DeviceError> {
        self.writer
            .look_after_disk(self.volume)
            .map_err(|error| unavailable(&error))
    }

    /// Commits what there is, as much as one commit takes; whether there was anything. Blocking.
    pub fn commit(&self, running: &Running, stop: &AtomicBool) -> Result<bool, DeviceError> {
        self.in_turn(stop, |sink, accept| running.commit((self.now_ns)(), sink, accept))
    }

    /// The same, also if nothing was written: moves up to so many blocks, so that packs of which little is needed are given up.
    pub fn settle(&self, running: &Running, blocks: u64, stop: &AtomicBool) -> Result<bool, DeviceError> {
        self.in_turn(stop, |sink, accept| {
            running.settle(blocks, (self.now_ns)(), sink, accept)
        })
    }

    /// Commits what there is, and then an edit of the volume. Blocking.
    pub fn edit(&self, running: &Running, edit: &Edit, stop: &AtomicBool) -> Result<(), EditError> {
        self.in_turn(stop, |sink, accept| running.edit(edit, (self.now_ns)(), sink, accept))
    }

    /// The first commit of this new disk, as a snapshot of another one, which holds that for it. Blocking.
    pub fn create_clone(
        &self,
        origin: &Running,
        snapshot: &str,
        new: NewVolume,
        stop: &AtomicBool,
    ) -> Result<(), EditError> {
        let room = self.writer.room_for_disk(self.volume);
        room.map_err(|error| unavailable(&error))?;
        let made: Result<(), EditError> = self.in_turn(stop, |sink, accept| {
            let first = origin.clone_of(snapshot, new, (self.now_ns)(), sink)?;
            Ok(accept(&first)?)
        });
        made?;
        Ok(self.look_after()?)
    }

    fn in_turn<T, E>(
        &self,
        stop: &AtomicBool,
        make: impl FnOnce(&mut dyn PackSink, &mut Accept<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sink = OutgoingPacks::new(&self.writer, self.volume, self.delivered.clone());
        let mut was_offered = false;
        let made = make(&mut sink, &mut |prepared| {
            was_offered = true;
            self.accept(prepared, stop)
        });
        // One that was offered is offered again as it is, with the same packs.
        if made.is_ok() || !was_offered {
            self.delivered.clear();
        }
        made
    }

    /// Gives up what accepted commits need no more: recorded first, then taken out of the disk's table with its next commit, and moved to the
    /// trash of the peers that answer. With `also_orphans` what a process before this one did not come to. Blocking.
    pub fn give_up(&self, running: &Running, also_orphans: bool) -> Result<u64, DeviceError> {
        let given_up = match also_orphans {
            true => running.orphans()?,
            false => running.take_given_up()?,
        };
        if given_up.is_empty() {
            return Ok(0);
        }
        let records: Vec<_> = given_up.iter().map(|given_up| given_up.record.clone()).collect();
        let recorded = self.writer.give_up(&records, (self.now_ns)());
        recorded.map_err(|error| unavailable(&error))?;
        let numbers: Vec<_> = given_up.iter().map(|given_up| given_up.number).collect();
        running.confirm_given_up(&numbers)?;
        Ok(numbers.len() as u64)
    }

    /// Gives up what the table of packs does not name: a process that died while it made a commit left packs of it behind. None while a commit is
    /// on its way, whose packs the table does not name yet. Blocking.
    pub fn give_up_unnamed(&self, running: &Running) -> Result<u64, DeviceError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if running.has_offered() || !self.delivered.all().is_empty() {
            return Ok(0);
        }
        let mut named = HashSet::new();
        running.own_packs(&mut |records| {
            for record in records {
                // One that is not understood is named all the same: without knowing which, nothing is given up.
                let manifest = Manifest::decode(&record.manifest);
                let manifest = manifest.map_err(|error| DeviceError::Damaged(error.to_string()))?;
                named.insert(manifest.pack);
            }
            Ok(())
        })?;
        // A table that names nothing was not read: the root itself lies in a pack.
        if named.is_empty() {
            return Ok(0);
        }
        let given_up = self.writer.give_up_unnamed(self.volume, &named, (self.now_ns)());
        given_up.map_err(|error| unavailable(&error))
    }

    /// Waits until these packs, and all others that the next head names first, survive the loss of friends.
    fn wait_safe(&self, packs: &[PackRow], stop: &AtomicBool) -> Result<bool, WriteError> {
        let begun = Instant::now();
        loop {
            let mut all = packs.to_vec();
            all.extend(self.writer.unacknowledged_packs()?);
            let left = PACKS_WAIT.saturating_sub(begun.elapsed());
            if self.writer.wait_safe(&all, MEND_AFTER.min(left), stop)? {
                return Ok(true);
            }
            if stop.load(Ordering::SeqCst) || left <= MEND_AFTER {
                return Ok(false);
            }
            self.mend(all, left, stop);
        }
    }

    fn mend(&self, packs: Vec<PackRow>, patience: Duration, stop: &AtomicBool) {
        let begun = Instant::now();
        let mut mending = self.writer.runtime.spawn((self.mend)(packs));
        while begun.elapsed() < patience && !stop.load(Ordering::SeqCst) {
            let looking = async { tokio::time::timeout(TICK, &mut mending).await };
            if self.writer.runtime.block_on(looking).is_ok() {
                return;
            }
        }
        mending.abort();
    }

    fn accept(&self, prepared: &Prepared, stop: &AtomicBool) -> Result<(), DeviceError> {
        let named = Electorate::of_root(&prepared.committed.root);
        if !self.is_without_voters && !self.voting.electorate().covers(&named) {
            return Err(DeviceError::Unavailable(
                "the commit names voters that were not asked: close the disk, and open it again".to_owned(),
            ));
        }
        let mut packs = self.delivered.all();
        if packs.is_empty() {
            // Offered by a process before this one, which alone knew which they are.
            packs = self.writer.unsafe_disk_packs().map_err(|error| unavailable(&error))?;
        }
        let are_safe = self.wait_safe(&packs, stop);
        if !are_safe.map_err(|error| unavailable(&error))? {
            return Err(DeviceError::Unavailable(
                "too few peers have taken the packs of the commit".to_owned(),
            ));
        }
        let epoch = self.voting.epoch();
        let epoch = epoch.ok_or_else(|| DeviceError::Unavailable(ClaimError::Busy.to_string()))?;
        let commit = Commit {
            epoch,
            number: prepared.committed.root.commit,
            root: prepared.at.clone(),
        };
        let newest = disk_head(self.volume, &commit);
        let post = DiskPost {
            volume: self.volume,
            newest: Some(newest),
            packs: &packs,
        };
        let posted = self
            .writer
            .post_disk(&post, &|_| {})
            .map_err(|error| unavailable(&error))?;
        match posted.is_safe {
            true => {
                let accepting = self.voting.commit(&commit.root, commit.number, VOTERS_WAIT);
                let accepted = self.writer.runtime.block_on(accepting);
                accepted.map_err(|error| DeviceError::Unavailable(error.to_string()))
            }
            false if posted.peers.is_empty() => Err(DeviceError::Unavailable(
                "no peer has taken the head of the commit".to_owned(),
            )),
            false => Err(DeviceError::Unavailable(format!(
                "only {} has its head, and with `tolerate` = {} more have to",
                posted.peers.join(", "),
                self.writer.uploader.tolerate()
            ))),
        }
    }
}

/// When a commit is due. Pure: it is told what there is, and when.
#[derive(Debug, Default)]
pub struct Due {
    /// Since when something waits.
    since: Option<Instant>,
    /// The last record that was seen, and when it was new.
    last: Option<(u64, Instant)>,
    /// Not before, as an attempt failed.
    retry: Option<(Instant, Duration)>,
}

impl Due {
    /// Nothing waits.
    pub fn clean(&mut self) {
        *self = Self::default();
    }

    /// An attempt failed.
    pub fn failed(&mut self, now: Instant) {
        let wait = self.retry.map_or(RETRY.0, |(_, wait)| (wait * 2).min(RETRY.1));
        self.retry = Some((now + wait, wait));
    }

    /// A commit was made; more may wait.
    pub fn committed(&mut self, now: Instant) {
        (self.since, self.retry) = (Some(now), None);
    }

    /// Something waits: is it time?
    pub fn is_due(&mut self, now: Instant, last_seq: u64, waiting_bytes: u64, is_asked: bool) -> bool {
        let since = *self.since.get_or_insert(now);
        let quiet_since = match self.last {
            Some((seq, at)) if seq == last_seq => at,
            _ => {
                self.last = Some((last_seq, now));
                now
            }
        };
        if self.retry.is_some_and(|(at, _)| now < at) {
            return false;
        }
        is_asked || now >= since + LAG_MAX || now >= quiet_since + QUIET || waiting_bytes >= AT_ONCE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_written_is_committed_when_it_is_quiet_and_after_a_minute_at_most() {
        let begun = Instant::now();
        let due_at = |seq: &dyn Fn(u32) -> u64| {
            let mut due = Due::default();
            (0..100).find(|second| due.is_due(begun + SEC * *second, seq(*second), 4096, false))
        };
        assert_eq!(due_at(&|_| 7), Some(10));
        assert_eq!(due_at(&|second| second.into()), Some(60));
        assert_eq!(due_at(&|second| if second < 20 { second.into() } else { 20 }), Some(30));
    }

    #[test]
    fn a_full_journal_and_whoever_asks_wait_for_nothing_but_for_a_failure_to_pass() {
        let begun = Instant::now();
        let mut due = Due::default();
        assert!(!due.is_due(begun, 1, AT_ONCE_BYTES - 1, false));
        assert!(due.is_due(begun, 1, AT_ONCE_BYTES, false));
        assert!(due.is_due(begun, 1, 1, true));
        due.failed(begun);
        assert!(!due.is_due(begun + SEC, 1, AT_ONCE_BYTES, true));
        assert!(due.is_due(begun + RETRY.0, 1, 1, true));
        (0..20).for_each(|_| due.failed(begun));
        assert!(due.is_due(begun + RETRY.1, 1, 1, true));
        due.committed(begun);
        assert!(due.is_due(begun, 1, 1, true));
    }
}
