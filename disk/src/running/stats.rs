//! What an open volume takes, and what it did since it was opened.

use std::time::Duration;

use super::Running;
use crate::commit::compose::Prepared;
use crate::device::Device;
use crate::journal::record::BLOCK_BYTES;

/// The figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of blocks that are not zeros, as of the last commit; before compression. Never too low; none before they were counted.
    pub live_bytes: Option<u64>,
    /// Bytes of plaintext that all packs of the volume have room for, those that only snapshots need with them; none before they were
    /// counted.
    pub stored_bytes: Option<u64>,
    /// How many packs these are.
    pub packs: Option<u64>,
    /// Snapshots.
    pub snapshots: u64,
    /// The last commit.
    pub commit: u64,
    /// Bytes of the journal that are in use, of which what is committed is released file by file.
    pub journal_bytes: u64,
    /// Bytes that the journal has room for.
    pub journal_bytes_max: u64,
    /// Bytes of blocks that wait for a commit.
    pub pending_bytes: u64,
    /// How long the oldest change has waited for a commit, to the second or so; none if there is nothing.
    pub oldest_pending: Option<Duration>,
    /// Commits that were accepted since it was opened.
    pub commits: u64,
    /// Bytes of blocks that these took from the host.
    pub host_bytes: u64,
    /// Bytes of plaintext of packs that these sent, with padding.
    pub sent_bytes: u64,
    /// Bytes of blocks among these that were moved.
    pub moved_bytes: u64,
    /// Bytes of blocks and lists of slots in memory.
    pub blocks_cache_bytes: u64,
    /// Bytes of leaves in memory.
    pub leaves_cache_bytes: u64,
    /// Bytes of changes of the map in memory.
    pub overlay_bytes: u64,
}

/// What was done since the volume was opened.
#[derive(Default)]
pub(super) struct Counted {
    commits: u64,
    host_blocks: u64,
    sent_bytes: u64,
    moved_blocks: u64,
    /// Bytes that packs take, and how many they are, as of the last commit; none before they were counted.
    pub totals: Option<(u64, u64)>,
}

impl Counted {
    /// A commit was accepted.
    pub fn add(&mut self, prepared: &Prepared, host_blocks: u64, moved_blocks: u64) {
        self.commits += 1;
        self.host_blocks += host_blocks;
        self.sent_bytes += prepared.bytes;
        self.moved_blocks += moved_blocks;
    }
}

impl Running {
    /// What it takes, and what it did. Waits for no commit.
    pub fn stats(&self) -> Stats {
        const BLOCK: u64 = BLOCK_BYTES as u64;
        let (usage, blocks_cache_bytes) = self.blocks.usage();
        let root = self.root();
        let counted = self.counted();
        let totals = counted.totals;
        let live = totals.map(|_| {
            self.blocks
                .live()
                .iter()
                .map(|(_, blocks)| u64::from(*blocks) * BLOCK)
                .sum()
        });
        let journal = self.volume.journal_usage();
        Stats {
            live_bytes: live,
            stored_bytes: totals.map(|(bytes, _)| bytes),
            packs: totals.map(|(_, packs)| packs),
            snapshots: root.snapshots.len() as u64,
            commit: root.commit,
            journal_bytes: journal.used_bytes,
            journal_bytes_max: journal.bytes_max,
            pending_bytes: journal.pending_bytes,
            oldest_pending: journal.oldest_pending,
            commits: counted.commits,
            host_bytes: counted.host_blocks * BLOCK,
            sent_bytes: counted.sent_bytes,
            moved_bytes: counted.moved_blocks * BLOCK,
            blocks_cache_bytes: blocks_cache_bytes as u64,
            leaves_cache_bytes: usage.cache_bytes as u64,
            overlay_bytes: usage.overlay_bytes as u64,
        }
    }

    /// Bytes of the device.
    pub fn size(&self) -> u64 {
        self.volume.size()
    }
}
