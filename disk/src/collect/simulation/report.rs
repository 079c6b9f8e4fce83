//! Hours of a volume's life, and what they cost.

use super::host::{Host, Pattern};
use super::volume::Volume;
use crate::collect::policy::{IDLE_SECS, Policy};
use crate::collect::table::Totals;

/// Seconds between two commits. Specified: `--lag`.
const COMMIT_SECS: u32 = 10;
/// Blocks that may settle down in each of them: a twentieth of an uplink of 20 Mbit/s.
const SETTLE_BLOCKS: u64 = 300;
/// Packs full of credit that are kept. As many as `CREDIT_BLOCKS_MAX` is of large packs at k = 3, roughly.
const KEPT_PACKS: u32 = 10;

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// What the host overwrites.
    pub pattern: Pattern,
    /// Whether a snapshot is taken after the first busy phase, and deleted after the last.
    pub has_snapshot: bool,
    /// Blocks of the volume, all of which are written once before anything is counted.
    pub blocks: u32,
    /// Blocks of a full pack.
    pub pack_blocks: u32,
    /// Writes of the host between two commits: 600 are 240 KB/s.
    pub commit_writes: u32,
    /// Hours in which the host writes, after each of which it is idle for one.
    pub busy_hours: &'static [u32],
    /// Where the host's choices come from.
    pub seed: u64,
}

impl Scenario {
    /// The volume of the research's table, for 21 hours. With a commit of a hundredth of it, that is coarse: a disk of 1 TB has
    /// ten thousand commits in a life of its blocks.
    pub fn new(pattern: Pattern) -> Self {
        Self {
            pattern,
            has_snapshot: false,
            blocks: 60_000,
            pack_blocks: 300,
            commit_writes: 600,
            busy_hours: &[6, 6, 6],
            seed: 15,
        }
    }
}

/// What came of it. Stored is what lies in packs that were not given up, beside the blocks that the head or a snapshot needs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Blocks that the host wrote, of which some were overwritten before they were committed.
    pub overwrites: u64,
    /// Of what was sent while the host wrote, over what was the host's.
    pub busy_amplification: f64,
    /// The same with what was moved while it did not.
    pub amplification: f64,
    /// Stored over needed while the host wrote: the mean after commits.
    pub busy_stored_mean: f64,
    /// The same: the most.
    pub busy_stored_peak: f64,
    /// The most of stored over needed at the ends of idle hours, of packs that may be moved: all, if there is no snapshot.
    pub settled_stored: f64,
    /// The same of all packs, which has what was dead in packs when a snapshot pinned the rest of them.
    pub settled_stored_with_pinned: f64,
    /// The same at the end, when there is no snapshot any more.
    pub last_stored: f64,
    /// Seconds of the longest time that it took to settle, the wait for being idle with it.
    pub settle_secs: u32,
    /// Most packs at a time.
    pub packs: u64,
    /// Most records of where a snapshot's blocks went.
    pub relocations: usize,
}

/// Stored over needed.
fn over(totals: Totals) -> f64 {
    totals.blocks as f64 / totals.needed().max(1) as f64
}

struct Run {
    scenario: Scenario,
    policy: Policy,
    volume: Volume,
    host: Host,
    now_secs: u32,
    figures: Figures,
    busy_moved: u64,
    stored_sum: f64,
    commits: u32,
}

impl Run {
    fn stored(&self) -> f64 {
        over(self.volume.table.totals())
    }

    /// Without the padding of one pack, which may be all that may be moved beside a snapshot.
    fn movable(&self) -> Totals {
        let movable = self.volume.table.movable();
        let padding_max = u64::from(self.policy.padded_blocks - 1);
        Totals {
            blocks: movable.blocks.saturating_sub(padding_max),
            ..movable
        }
    }

    fn busy(&mut self, hours: u32) {
        let moved_before = self.volume.moved_blocks;
        for _ in 0..hours * 3600 / COMMIT_SECS {
            self.now_secs += COMMIT_SECS;
            let blocks = self.host.commit(self.scenario.commit_writes);
            self.figures.overwrites += u64::from(self.scenario.commit_writes);
            self.volume.commit(self.now_secs, &blocks, SETTLE_BLOCKS, false);
            self.stored_sum += self.stored();
            self.commits += 1;
            self.figures.busy_stored_peak = self.figures.busy_stored_peak.max(self.stored());
            self.note();
        }
        self.busy_moved += self.volume.moved_blocks - moved_before;
    }

    fn idle(&mut self) {
        let mut settled = None;
        for secs in (COMMIT_SECS..=3600).step_by(COMMIT_SECS as usize) {
            let is_idle = secs >= IDLE_SECS;
            self.volume.commit(self.now_secs + secs, &[], SETTLE_BLOCKS, is_idle);
            let movable = self.movable();
            if movable.blocks * 100 > movable.needed() * u64::from(self.policy.settled_percent) {
                settled = None;
            } else {
                settled = settled.or(Some(secs));
            }
            self.note();
        }
        self.now_secs += 3600;
        self.figures.settle_secs = self.figures.settle_secs.max(settled.unwrap_or(u32::MAX));
        self.figures.last_stored = self.stored();
        let with_pinned = self.figures.settled_stored_with_pinned.max(self.stored());
        self.figures.settled_stored_with_pinned = with_pinned;
        self.figures.settled_stored = self.figures.settled_stored.max(over(self.movable()));
        self.volume.check();
    }

    fn note(&mut self) {
        self.figures.packs = self.figures.packs.max(self.volume.table.totals().packs);
        self.figures.relocations = self.figures.relocations.max(self.volume.relocations());
    }

    fn finish(mut self) -> Figures {
        let host = self.volume.host_blocks - u64::from(self.scenario.blocks);
        self.figures.busy_amplification = (host + self.busy_moved) as f64 / host as f64;
        self.figures.amplification = (host + self.volume.moved_blocks) as f64 / host as f64;
        self.figures.busy_stored_mean = self.stored_sum / f64::from(self.commits);
        self.figures
    }
}

/// Simulates. Every block of the head and of snapshots is read at the end of each phase, and the table counted anew.
pub fn run(scenario: Scenario, policy: Policy) -> Figures {
    let mut run = Run {
        scenario,
        policy,
        volume: Volume::new(policy, scenario.blocks, scenario.pack_blocks, KEPT_PACKS),
        host: Host::new(scenario.pattern, scenario.blocks, scenario.seed),
        now_secs: 0,
        figures: Figures::default(),
        busy_moved: 0,
        stored_sum: 0.0,
        commits: 0,
    };
    let all: Vec<_> = (0..scenario.blocks).collect();
    run.volume.commit(0, &all, 0, false);
    let mut snapshot = None;
    for hours in scenario.busy_hours {
        run.busy(*hours);
        run.volume.check();
        if scenario.has_snapshot && snapshot.is_none() {
            snapshot = Some(run.volume.snapshot());
        }
        run.idle();
    }
    if let Some(snapshot) = snapshot {
        run.volume.delete(snapshot);
        run.idle();
    }
    run.finish()
}

#[cfg(test)]
mod tests;
